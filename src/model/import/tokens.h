/* tokens.h - the vocabulary on its way: one text, score and type for each row of the embedding, and what the tokenizer's
 * files say about special tokens. */
#ifndef PARE_MODEL_IMPORT_TOKENS_H
#define PARE_MODEL_IMPORT_TOKENS_H

#include "model/import/internal.h"

/* GGUF's token types. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

enum { SPECIALS = 7 };

typedef struct tokens {
    importer   *m;
    const char *dir;
    const tree *json, *settings, *special_map,
        *added_json; /* tokenizer.json, tokenizer_config.json, .. ; may be NULL */

    size_t    count; /* rows of the embedding */
    gguf_str *texts;
    float    *scores;
    int32_t  *types;
    size_t    known; /* rows that a token has */
    map      *ids;   /* text -> id */

    const char *model, *pre; /* tokenizer.ggml.model and .pre */
    bool        with_scores;
    gguf_str   *merges;
    size_t      merge_count;
    int         space_prefix, remove_spaces; /* -1: not said */
    const char *charsmap;
    size_t      charsmap_len;
    int         add_bos, add_eos;         /* -1: not said */
    int         lowercase, strip_accents; /* WordPiece; -1: not said */
    int64_t     special[SPECIALS];        /* ids; -1 */
    bool        eats_space;               /* some added token takes the space after it along (rstrip) */
} tokens;

/* Sets one row. A token past the embedding: an error unless `added`, which only makes a note. */
bool tokens_set(tokens *t, int64_t id, const char *text, size_t n, float score, int type, bool added);

/* The types' rule of converters for tokens that were added to a vocabulary. */
bool tokens_added(tokens *t);

bool tokens_special(tokens *t);  /* ids of bos, eos .. and whether they are added */
void tokens_write(tokens *t);    /* all tokenizer.* keys but the template */
bool tokens_template(tokens *t); /* tokenizer.chat_template */

/* pre.c: tokenizer.ggml.pre for a pre_tokenizer; NULL with a sentence. */
const char *pre_name(tokens *t, const tree *pre_tokenizer, bool ignore_merges);

/* sentencepiece.c: tokenizer.model. */
bool sentencepiece_read(tokens *t);

/* vocabulary.c: tokenizer.json's model, vocab.json with merges.txt, vocab.txt. */
bool vocabulary_json(tokens *t);
bool vocabulary_files(tokens *t, bool *found);

#endif
