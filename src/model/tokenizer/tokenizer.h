/* tokenizer.h - text to ids and back, as the model's authors do it.
 *
 * Kinds by tokenizer.ggml.model: "llama" (SPM: scored merges over UTF-8 with byte fall-back), "gpt2" (byte-level BPE;
 * the split pattern by tokenizer.ggml.pre), "gemma4" (BPE over characters), "bert" (WordPiece) and "t5" (Unigram).
 * Read-only after opening: any thread. Encoding takes time linear (times log) in the text for any input.             */
#ifndef PARE_MODEL_TOKENIZER_TOKENIZER_H
#define PARE_MODEL_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

typedef enum token_kind {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE
} token_kind;

typedef struct tokenizer tokenizer;

tokenizer *tokenizer_open(const gguf *g, err *e);
void       tokenizer_close(tokenizer *t);
int        tokenizer_vocab(const tokenizer *t);

typedef struct token_ids { /* malloc'd, grows; free with token_ids_free */
    int32_t *ids;
    size_t   count, cap;
} token_ids;
bool token_ids_add(token_ids *t, int32_t id);
void token_ids_free(token_ids *t);

typedef struct encode_options {
    bool add_special;   /* BOS/EOS as the file asks; WordPiece's [CLS] and [SEP] */
    bool parse_special; /* the text of control tokens becomes the token; user-defined tokens always do */
} encode_options;

/* Appends to *out. `text` need not be valid UTF-8 (wrong bytes are encoded as bytes). */
bool tokenizer_encode(const tokenizer *t, const char *text, size_t n, encode_options o, token_ids *out, err *e);

/* For a prompt that a chat template made: templates usually write BOS themselves; where this one has not and the model
 * wants it, it comes first. */
bool tokenizer_begin(const tokenizer *t, token_ids *prompt, err *e);

/* The bytes of one token as they appear in running text (control tokens: empty unless `special`). They may be a part
 * of a character. Returns the length; *bytes lives as long as the tokenizer. SPM's space mark is already a space. */
size_t      tokenizer_piece(const tokenizer *t, int32_t id, bool special, const char **bytes);
/* The token's own text, e.g. "<|end|>", NUL-terminated, as in the vocabulary; NULL when id is out of range. */
const char *tokenizer_text(const tokenizer *t, int32_t id);
token_kind  tokenizer_kind(const tokenizer *t, int32_t id);

int32_t tokenizer_bos(const tokenizer *t); /* -1 when the file names none; the same below */
int32_t tokenizer_eos(const tokenizer *t);
bool    tokenizer_adds_bos(const tokenizer *t);
bool    tokenizer_ends(const tokenizer *t, int32_t id);                 /* EOS, EOT, EOM: generation stops here */
int32_t tokenizer_find(const tokenizer *t, const char *text, size_t n); /* exact vocabulary text; -1 */

/* Whether decoding drops the first space of a text (SPM and Unigram add one when encoding; WordPiece's words all begin
 * with one). */
bool tokenizer_strips_first_space(const tokenizer *t);

#endif
