/* vocab.h - the tokens of a file: their texts, the bytes they stand for, their kinds, and the way back from a text.
 *
 * Where a text stands twice the last id is found, as in the reference; an empty one is never found. Read-only after
 * opening.                                                                                                           */
#ifndef PARE_MODEL_TOKENIZER_VOCAB_H
#define PARE_MODEL_TOKENIZER_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"
#include "model/tokenizer/tokenizer.h"

enum { VOCAB_MAX = 1 << 22 }; /* tokens; the largest in use have about 260 thousand */

typedef struct vocab_slot {
    uint32_t tag;  /* high half of the hash */
    uint32_t id_1; /* id + 1; 0: free */
} vocab_slot;

typedef struct vocab {
    uint32_t    count;
    size_t      longest;  /* bytes of the longest text */
    char       *texts;    /* each NUL-terminated */
    uint32_t   *text_at;  /* [count + 1] */
    char       *pieces;   /* the bytes in running text; filled by vocab_pieces */
    uint32_t   *piece_at; /* [count + 1] */
    uint8_t    *kinds;    /* token_kind */
    vocab_slot *slots;
    uint64_t    mask, seed;
} vocab;

bool vocab_open(vocab *v, const gguf *g, err *e);
void vocab_close(vocab *v);

/* Writes what `text` (n bytes) stands for to out, which has room for n bytes, and returns the length. */
typedef size_t (*vocab_decode)(const char *text, size_t n, token_kind kind, char *out);
bool vocab_pieces(vocab *v, vocab_decode decode, err *e);

int32_t vocab_find(const vocab *v, const char *text, size_t n); /* -1: none */

static inline const char *vocab_text(const vocab *v, uint32_t id, size_t *n) {
    *n = v->text_at[id + 1] - v->text_at[id] - 1;
    return v->texts + v->text_at[id];
}

#endif
