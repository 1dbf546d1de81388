/* charsmap.h - SentencePiece's normaliser: strings that are replaced by others (NFKC and the like), the longest match
 * first.
 *
 * The file's blob (tokenizer.ggml.precompiled_charsmap): a little-endian 32-bit size, that many bytes of a double-array
 * trie (Darts-clone, 32-bit units), then the replacements, each ending with a NUL. It is not trusted: every index is
 * checked where it is used. Read-only after opening.                                                                 */
#ifndef PARE_MODEL_TOKENIZER_CHARSMAP_H
#define PARE_MODEL_TOKENIZER_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

typedef struct charsmap {
    uint32_t *units;
    uint32_t  count;
    char     *texts;
    size_t    bytes;
    uint64_t  begins[256 * 256 / 64]; /* bit first * 256 + second: a match may begin with these two bytes */
} charsmap;

bool charsmap_open(charsmap *m, const gguf *g, err *e); /* a file without the key has an empty map */
void charsmap_close(charsmap *m);

/* How many bytes of text (n > 0) match, 0: none; *out is what stands for them (*len bytes, may be 0). */
size_t charsmap_match(const charsmap *m, const char *text, size_t n, const char **out, size_t *len);

/* Whether a match may begin with these two bytes: false is the common case in plain text. */
static inline bool charsmap_may(const charsmap *m, uint8_t first, uint8_t second) {
    const uint32_t bit = (uint32_t)first << 8 | second;
    return m->begins[bit / 64] >> bit % 64 & 1;
}

#endif
