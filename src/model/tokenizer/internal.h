/* internal.h - what the files of tokenizer/ share: the tokenizer itself and the state of one encoding. */
#ifndef PARE_MODEL_TOKENIZER_INTERNAL_H
#define PARE_MODEL_TOKENIZER_INTERNAL_H

#include <stdatomic.h>

#include "base/str.h"
#include "model/tokenizer/merge.h"
#include "model/tokenizer/special.h"
#include "model/tokenizer/split.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab.h"

enum { TRAIT_END = 1, TRAIT_EATS_SPACE_BEFORE = 2, TRAIT_EATS_SPACE_AFTER = 4 };

/* Byte-level BPE. A symbol is a token's id or, for what merges name but the vocabulary lacks, a number past them. */
typedef struct bpe_pair {
    uint32_t left, right, rank, joined; /* rank MERGE_NO_RANK: free */
} bpe_pair;

typedef struct bpe {
    const split_pattern *pattern;
    bpe_pair            *pairs; /* hash table */
    uint64_t             mask, seed;
    uint32_t             byte_symbol[256];
    int32_t              byte_token[256]; /* -1: the vocabulary lacks it */
} bpe;

/* SPM: scores as ranks (lower is better), the bytes' tokens, and where a text may be cut: between two bytes that stand
 * beside each other in no token, no merge can ever join what is left and right. */
typedef struct spm {
    uint32_t *rank;                     /* [tokens] */
    int32_t   byte_token[256];          /* -1: neither <0xXX> nor the byte itself is a token */
    uint64_t  together[256 * 256 / 64]; /* bit left * 256 + right: some token has these two in a row */
} spm;

/* Whether a text that equals a token is encoded as that token alone. Found out when it is first asked; the answer
 * never changes, so threads may find it out at the same time. */
enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

struct tokenizer {
    vocab            vocab;
    special_index    special;
    bool             is_spm;
    bpe              bpe;
    spm              spm;
    _Atomic uint8_t *whole;  /* [tokens] */
    uint8_t         *traits; /* [tokens] */
    int32_t          bos, eos, unknown;
    bool             adds_bos, adds_eos, space_prefix;
};

typedef struct encoder {
    const tokenizer *t;
    token_ids       *out;
    merge_space      space;
    str              text; /* a word as the vocabulary writes it */
} encoder;

bool bpe_open(tokenizer *t, const gguf *g, err *e);
void bpe_close(tokenizer *t);
bool bpe_encode(encoder *c, const char *text, size_t n); /* appends; false when out of memory */

bool spm_open(tokenizer *t, const gguf *g, err *e);
void spm_close(tokenizer *t);
bool spm_encode(encoder *c, const char *text, size_t n, bool prefix); /* prefix: as if a space stood before */

/* traits.c: which ids begin and end a text, and the tokens that files mark wrongly. Before special_open. */
bool traits_open(tokenizer *t, const gguf *g, err *e);

#endif
