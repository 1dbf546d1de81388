/* special.h - finding the tokens that are taken out of a text before anything else: user-defined ones always, control
 * and unknown ones when the caller allows it. The leftmost place wins, there the longest token.
 *
 * A byte trie, walked from each place where a special token can begin: time linear in the text, times the length of
 * the longest special token (bounded).                                                                               */
#ifndef PARE_MODEL_TOKENIZER_SPECIAL_H
#define PARE_MODEL_TOKENIZER_SPECIAL_H

#include "model/tokenizer/trie.h"
#include "model/tokenizer/vocab.h"

enum { SPECIAL_LONGEST = 1024 }; /* bytes; a longer special token is an error */

typedef struct special_index {
    trie           tokens;
    const uint8_t *kinds;                     /* the vocabulary's */
    uint64_t       begins[2][256 * 256 / 64]; /* [with control tokens] bit first byte * 256 + second */
    bool           empty[2];
} special_index;

typedef struct special_match {
    size_t  at, len;
    int32_t id;
} special_match;

bool special_open(special_index *s, const vocab *v, err *e);
void special_close(special_index *s);

/* The first special token in text[from..n). */
bool special_next(const special_index *s, const char *text, size_t n, size_t from, bool with_control,
                  special_match *match);

#endif
