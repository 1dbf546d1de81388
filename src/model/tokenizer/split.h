/* split.h - the pre-tokenizers of byte-level BPE: how a text is cut into the pieces that are merged on their own.
 *
 * Each name of tokenizer.ggml.pre stands for one or several published regular expressions, used one after another:
 * every expression cuts what the ones before it left, matches and gaps alike. They are written here as functions over
 * UTF-8 that look ahead a bounded number of characters, so that time is linear for any text. A byte that is not UTF-8
 * is a character of no class.                                                                                        */
#ifndef PARE_MODEL_TOKENIZER_SPLIT_H
#define PARE_MODEL_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum split_found {
    SPLIT_GAP,   /* the bytes are known not to begin a match */
    SPLIT_PIECE, /* they are one */
    SPLIT_THREES /* they are several, of three characters each, the first of one to three */
} split_found;

/* What stands at p, before `end`: returns bytes (>= 1). */
typedef size_t (*split_match)(const uint8_t *p, const uint8_t *end, split_found *matched);

enum { SPLIT_STAGES = 6 };

/* Patterns that are no expressions: BPE over characters, not bytes. */
typedef enum split_raw {
    SPLIT_RAW_NOT,
    SPLIT_RAW_LINES, /* spaces become U+2581; only runs of line feeds are cut off */
    SPLIT_RAW_WORDS  /* cut at white space, which is lost */
} split_raw;

typedef struct split_pattern {
    const char *name;
    split_match stages[SPLIT_STAGES + 1]; /* ends with NULL */
    bool        whole_first;              /* a piece that is a token is taken as it is (ignore_merges) */
    bool        adds_bos;                 /* where the file does not say */
    bool        always_bos;               /* whatever the file says */
    split_raw   raw;                      /* such a pattern has no stages */
} split_pattern;

/* NULL for an unknown name; "" is the pattern of a file that names none. Call chars_init before using one. */
const split_pattern *split_named(const char *name, size_t n);

/* Calls `word` for each piece, in order; stops and returns false when it does. */
bool split_text(const split_pattern *s, const uint8_t *text, size_t n, bool (*word)(void *, const uint8_t *, size_t),
                void *arg);

#endif
