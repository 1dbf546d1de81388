#include "model/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "model/tokenizer/internal.h"

/* The kinds by the value of tokenizer.ggml.model. */
static const struct {
    const char     *name;
    tokenizer_model kind;
} models[] = {{"llama", KIND_SPM},      {"gpt2", KIND_BPE},       {"gemma4", KIND_BPE},
              {"whitespace", KIND_BPE}, {"bert", KIND_WORDPIECE}, {"t5", KIND_UNIGRAM}};

static const struct {
    bool (*open)(tokenizer *t, const gguf *g, err *e);
    bool (*encode)(encoder *c, const char *text, size_t n, bool first);
} kinds[] = {[KIND_SPM] = {spm_open, spm_encode},
             [KIND_BPE] = {bpe_open, bpe_encode},
             [KIND_WORDPIECE] = {wordpiece_open, wordpiece_encode},
             [KIND_UNIGRAM] = {unigram_open, unigram_encode}};

static bool find_kind(const gguf *g, tokenizer_model *kind, err *e) {
    gguf_str model;
    if (!gguf_string(g, "tokenizer.ggml.model", &model, e)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        if (model.len == strlen(models[i].name) && memcmp(model.data, models[i].name, model.len) == 0) {
            *kind = models[i].kind;
            return true;
        }
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: tokenizer.ggml.model is \"%.*s\"; this version has \"llama\" (SPM), \"gpt2\" and \"gemma4\" "
                   "(BPE), \"bert\" (WordPiece) and \"t5\" (Unigram)",
                   gguf_name(g), (int)(model.len < 60 ? model.len : 60), model.data);
}

tokenizer *tokenizer_open(const gguf *g, err *e) {
    tokenizer_model kind;
    if (!find_kind(g, &kind, e)) {
        return NULL;
    }
    tokenizer *t = calloc(1, sizeof(*t));
    if (!t) {
        err_set(e, ERR_MEMORY, "out of memory for a tokenizer");
        return NULL;
    }
    t->kind = kind;
    bool ok = vocab_open(&t->vocab, g, e);
    if (ok && !(t->whole = calloc(t->vocab.count, sizeof(*t->whole)))) {
        ok = err_set(e, ERR_MEMORY, "out of memory for %u tokens", t->vocab.count);
    }
    ok = ok && kinds[kind].open(t, g, e) && traits_open(t, g, e) && special_open(&t->special, &t->vocab, e);
    if (!ok) {
        tokenizer_close(t);
        return NULL;
    }
    return t;
}

void tokenizer_close(tokenizer *t) {
    if (!t) {
        return;
    }
    bpe_close(t);
    spm_close(t);
    wordpiece_close(t);
    unigram_close(t);
    pieces_close(t);
    special_close(&t->special);
    vocab_close(&t->vocab);
    free((void *)t->whole);
    free(t->traits);
    free(t);
}

bool key_bool(const gguf *g, const char *key, bool *value, err *e) {
    return !gguf_has(g, key) || gguf_bool(g, key, value, e);
}

bool trie_of_vocab(trie *tokens, const vocab *v, uint32_t skip, const char *name, err *e) {
    size_t n, bytes = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        vocab_text(v, i, &n);
        if (skip >> v->kinds[i] & 1) {
            continue;
        }
        if (n > TOKEN_LONGEST) {
            return err_set(e, ERR_LIMIT, "%s: token %u has %zu bytes; at most %d are supported", name, i, n,
                           TOKEN_LONGEST);
        }
        bytes += n;
    }
    if (bytes >= TRIE_MAX) {
        return err_set(e, ERR_LIMIT, "%s: the tokens take %zu bytes; less than %d are supported", name, bytes,
                       TRIE_MAX);
    }
    if (!trie_open(tokens, bytes)) {
        return err_set(e, ERR_MEMORY, "out of memory for tokens of %zu bytes", bytes);
    }
    for (uint32_t i = 0; i < v->count; i++) {
        const char *text = vocab_text(v, i, &n);
        if (n > 0 && !(skip >> v->kinds[i] & 1)) {
            trie_add(tokens, text, n, (int32_t)i);
        }
    }
    return true;
}

bool token_ids_add(token_ids *t, int32_t id) {
    return token_ids_append(t, &id, 1);
}

bool token_ids_append(token_ids *t, const int32_t *ids, size_t count) {
    if (t->cap - t->count < count) {
        size_t   cap = t->cap < 64 ? 64 + count : 2 * t->cap + count;
        int32_t *grown = cap > SIZE_MAX / sizeof(*grown) ? NULL : realloc(t->ids, cap * sizeof(*grown));
        if (!grown) {
            return false;
        }
        t->ids = grown;
        t->cap = cap;
    }
    if (count > 0) {
        memmove(t->ids + t->count, ids, count * sizeof(*ids)); /* they may be its own */
    }
    t->count += count;
    return true;
}

void token_ids_free(token_ids *t) {
    free(t->ids);
    memset(t, 0, sizeof(*t));
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The text between special tokens. */
static bool encode_ordinary(encoder *c, const char *text, size_t n, bool *after_special) {
    if (n == 0) {
        return true;
    }
    const bool first = *after_special;
    *after_special = false;
    return kinds[c->t->kind].encode(c, text, n, first);
}

static bool encode_text(encoder *c, const char *text, size_t n, bool with_control) {
    const tokenizer *t = c->t;
    bool             after_special = true;
    special_match    match;
    size_t           at = 0;
    while (at < n && special_next(&t->special, text, n, at, with_control, &match)) {
        size_t stop = match.at;
        while (stop > at && t->traits[match.id] & TRAIT_EATS_SPACE_BEFORE && is_blank(text[stop - 1])) {
            stop--;
        }
        if (!encode_ordinary(c, text + at, stop - at, &after_special) || !token_ids_add(c->out, match.id)) {
            return false;
        }
        after_special = true;
        at = match.at + match.len;
        while (at < n && t->traits[match.id] & TRAIT_EATS_SPACE_AFTER && is_blank(text[at])) {
            at++;
        }
    }
    return encode_ordinary(c, text + at, n - at, &after_special);
}

bool tokenizer_encode(const tokenizer *t, const char *text, size_t n, encode_options o, token_ids *out, err *e) {
    const size_t before = out->count;
    encoder      c = {.t = t, .out = out};
    bool         ok = true;
    words_open(&c.words, n);
    if (o.add_special && t->adds_bos && t->bos >= 0) {
        ok = token_ids_add(out, t->bos);
    }
    ok = ok && encode_text(&c, text, n, o.parse_special);
    if (ok && o.add_special && t->adds_eos && t->eos >= 0) {
        ok = token_ids_add(out, t->eos);
    }
    merge_space_free(&c.space);
    words_close(&c.words);
    str_free(&c.text);
    free(c.lattice);
    if (!ok) {
        out->count = before;
        return err_set(e, ERR_MEMORY, "out of memory while encoding a text of %zu bytes", n);
    }
    return true;
}

static bool in_range(const tokenizer *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->vocab.count;
}

size_t tokenizer_piece(const tokenizer *t, int32_t id, bool special, const char **bytes) {
    *bytes = "";
    if (!in_range(t, id)) {
        return 0;
    }
    token_kind kind = (token_kind)t->vocab.kinds[id];
    if (!special && (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN)) {
        return 0;
    }
    *bytes = t->vocab.pieces + t->vocab.piece_at[id];
    return t->vocab.piece_at[id + 1] - t->vocab.piece_at[id];
}

const char *tokenizer_text(const tokenizer *t, int32_t id) {
    return in_range(t, id) ? t->vocab.texts + t->vocab.text_at[id] : NULL;
}

token_kind tokenizer_kind(const tokenizer *t, int32_t id) {
    return in_range(t, id) ? (token_kind)t->vocab.kinds[id] : TOKEN_UNKNOWN;
}

bool tokenizer_ends(const tokenizer *t, int32_t id) {
    return in_range(t, id) && t->traits[id] & TRAIT_END;
}

int32_t tokenizer_find(const tokenizer *t, const char *text, size_t n) {
    return vocab_find(&t->vocab, text, n);
}

int tokenizer_vocab(const tokenizer *t) {
    return (int)t->vocab.count;
}

int32_t tokenizer_bos(const tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const tokenizer *t) {
    return t->eos;
}

bool tokenizer_adds_bos(const tokenizer *t) {
    return t->adds_bos && t->bos >= 0;
}

bool tokenizer_strips_first_space(const tokenizer *t) {
    return t->space_prefix; /* never set for byte-level BPE */
}

bool tokenizer_begin(const tokenizer *t, token_ids *prompt, err *e) {
    if (!t->adds_bos || t->bos < 0 || (prompt->count > 0 && prompt->ids[0] == t->bos)) {
        return true;
    }
    if (!token_ids_add(prompt, t->bos)) {
        return err_set(e, ERR_MEMORY, "out of memory for a prompt");
    }
    memmove(prompt->ids + 1, prompt->ids, (prompt->count - 1) * sizeof(*prompt->ids));
    prompt->ids[0] = t->bos;
    return true;
}
