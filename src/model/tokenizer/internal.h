/* internal.h - what the files of tokenizer/ share: the tokenizer itself and the state of one encoding. */
#ifndef PARE_MODEL_TOKENIZER_INTERNAL_H
#define PARE_MODEL_TOKENIZER_INTERNAL_H

#include <stdatomic.h>

#include "base/map.h"
#include "base/str.h"
#include "model/tokenizer/charsmap.h"
#include "model/tokenizer/merge.h"
#include "model/tokenizer/special.h"
#include "model/tokenizer/split.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/trie.h"
#include "model/tokenizer/vocab.h"
#include "model/tokenizer/words.h"

#define SPACE_MARK "\xE2\x96\x81" /* U+2581, how SentencePiece's vocabularies (and WordPiece's in GGUF) write a space */

enum { TOKEN_LONGEST = 1024 }; /* bytes of a token that a trie is walked along: what one place of a text can cost */

enum { TRAIT_END = 1, TRAIT_EATS_SPACE_BEFORE = 2, TRAIT_EATS_SPACE_AFTER = 4 };

/* Byte-level BPE. A symbol is a token's id or, for what merges name but the vocabulary lacks, a number past them. */
typedef struct bpe_pair {
    uint32_t left, right, rank, joined; /* rank MERGE_NO_RANK: free */
} bpe_pair;

typedef struct bpe {
    const split_pattern *pattern;
    bpe_pair            *pairs; /* hash table */
    uint64_t             mask, seed;
    map                 *extra; /* the symbols past the tokens, by text */
    uint32_t             byte_symbol[256];
    int32_t              byte_token[256]; /* -1: the vocabulary lacks it */
    bool                 lower;           /* characters of the raw kind become lower case first */
} bpe;

/* SentencePiece's vocabularies (SPM, Unigram): scores, the bytes' tokens, and where a text may be cut: two bytes that
 * stand beside each other in no token are never in one together, whatever is left and right of them. */
typedef struct pieces {
    float   *score;                    /* [tokens] */
    int32_t  byte_token[256];          /* -1: neither <0xXX> nor the byte itself is a token */
    uint64_t together[256 * 256 / 64]; /* bit left * 256 + right: some token has these two in a row */
} pieces;

typedef struct spm {
    uint32_t *rank; /* [tokens] scores as ranks: lower is better */
} spm;

typedef struct wordpiece {
    trie tokens;
    bool lower, strip_accents;
} wordpiece;

typedef struct unigram {
    trie     tokens;
    charsmap map;
    double   unknown_score;
    bool     byte_fallback;      /* every byte has a token */
    bool     drops_extra_spaces; /* at both ends and after another */
} unigram;

/* Whether a text that equals a token is encoded as that token alone. Found out when it is first asked; the answer
 * never changes, so threads may find it out at the same time. */
enum { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

typedef enum tokenizer_model { KIND_SPM, KIND_BPE, KIND_WORDPIECE, KIND_UNIGRAM } tokenizer_model;

struct tokenizer {
    tokenizer_model  kind;
    vocab            vocab;
    special_index    special;
    bpe              bpe;
    pieces           pieces;
    spm              spm;
    wordpiece        wordpiece;
    unigram          unigram;
    _Atomic uint8_t *whole;  /* [tokens] */
    uint8_t         *traits; /* [tokens] */
    int32_t          bos, eos, unknown;
    bool             adds_bos, adds_eos, space_prefix;
};

typedef struct lattice_node { /* the best way to a place of a text */
    double   score;
    uint32_t from; /* the place before the last token */
    int32_t  id;   /* that token; -1: an unknown character */
} lattice_node;

typedef struct encoder {
    const tokenizer *t;
    token_ids       *out;
    merge_space      space;
    words            words;
    str              text; /* a word as the vocabulary writes it */
    lattice_node    *lattice;
    size_t           lattice_cap;
    bool             after_unknown; /* Unigram: a run of unknown characters is one token */
} encoder;

/* What a kind provides. Encoding appends and returns false when out of memory. `first`: nothing or a special token
 * stands before the text. */
bool bpe_open(tokenizer *t, const gguf *g, err *e);
bool bpe_encode(encoder *c, const char *text, size_t n, bool first);
bool bpe_raw_encode(encoder *c, const char *text, size_t n); /* bpe_raw.c: for patterns of the raw kind */
void bpe_close(tokenizer *t);

bool spm_open(tokenizer *t, const gguf *g, err *e);
bool spm_encode(encoder *c, const char *text, size_t n, bool first);
void spm_close(tokenizer *t);

bool wordpiece_open(tokenizer *t, const gguf *g, err *e);
bool wordpiece_encode(encoder *c, const char *text, size_t n, bool first);
void wordpiece_close(tokenizer *t);

bool unigram_open(tokenizer *t, const gguf *g, err *e);
bool unigram_encode(encoder *c, const char *text, size_t n, bool first);
void unigram_close(tokenizer *t);

/* pieces.c */
bool   pieces_open(tokenizer *t, const gguf *g, err *e);
void   pieces_close(tokenizer *t);
size_t pieces_decode(const char *text, size_t n, token_kind kind, char *out); /* a vocab_decode */
bool   pieces_add_bytes(encoder *c, const char *text, size_t n);              /* a token for each, where there is one */

/* bpe.c, for bpe_raw.c: merges symbols of c->space, appends what they became. `missing` encodes a symbol that is no
 * token. */
bool bpe_merge(encoder *c, size_t count, const char *text, bool (*missing)(encoder *c, const char *text, size_t n));

/* Every token but those of `skip` (bits 1 << token_kind), by its text: the last id of a text that stands twice. */
bool trie_of_vocab(trie *tokens, const vocab *v, uint32_t skip, const char *name, err *e);

/* traits.c: which ids begin and end a text, and the tokens that files mark wrongly. Before special_open. */
bool traits_open(tokenizer *t, const gguf *g, err *e);

/* A bool of the file, where it has the key. */
bool key_bool(const gguf *g, const char *key, bool *value, err *e);

/* Several ids at once. */
bool token_ids_append(token_ids *t, const int32_t *ids, size_t count);

/* Whether no token has the byte that ends `text` and `next` in a row. */
static inline bool pieces_apart(const pieces *p, const str *text, char next) {
    const uint32_t bit = (uint32_t)(uint8_t)text->data[text->len - 1] << 8 | (uint8_t)next;
    return !(p->together[bit / 64] >> bit % 64 & 1);
}

/* Adds a few bytes (at most 8) to c->text without a call where there is room. */
static inline bool text_add_few(str *text, const char *bytes, size_t n) {
    if (text->cap - text->len < 9 && !str_reserve(text, text->len + 256)) {
        return false;
    }
    memcpy(text->data + text->len, bytes, n);
    text->len += n;
    return true;
}

#endif
