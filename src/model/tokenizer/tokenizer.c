#include "model/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "model/tokenizer/internal.h"

tokenizer *tokenizer_open(const gguf *g, err *e) {
    gguf_str model;
    if (!gguf_string(g, "tokenizer.ggml.model", &model, e)) {
        return NULL;
    }
    const bool is_spm = model.len == 5 && memcmp(model.data, "llama", 5) == 0;
    if (!is_spm && !(model.len == 4 && memcmp(model.data, "gpt2", 4) == 0)) {
        err_set(e, ERR_UNSUPPORTED,
                "%s: tokenizer.ggml.model is \"%.*s\"; this version has \"llama\" (SPM) and \"gpt2\" (byte-level BPE)",
                gguf_name(g), (int)(model.len < 60 ? model.len : 60), model.data);
        return NULL;
    }
    tokenizer *t = calloc(1, sizeof(*t));
    if (!t) {
        err_set(e, ERR_MEMORY, "out of memory for a tokenizer");
        return NULL;
    }
    t->is_spm = is_spm;
    bool ok = vocab_open(&t->vocab, g, e);
    if (ok && !(t->whole = calloc(t->vocab.count, sizeof(*t->whole)))) {
        ok = err_set(e, ERR_MEMORY, "out of memory for %u tokens", t->vocab.count);
    }
    ok = ok && (is_spm ? spm_open(t, g, e) : bpe_open(t, g, e)) && traits_open(t, g, e) &&
         special_open(&t->special, &t->vocab, e);
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
    special_close(&t->special);
    vocab_close(&t->vocab);
    free((void *)t->whole);
    free(t->traits);
    free(t);
}

bool token_ids_add(token_ids *t, int32_t id) {
    if (t->count == t->cap) {
        size_t   cap = t->cap < 64 ? 64 : 2 * t->cap;
        int32_t *grown = cap > SIZE_MAX / sizeof(*grown) ? NULL : realloc(t->ids, cap * sizeof(*grown));
        if (!grown) {
            return false;
        }
        t->ids = grown;
        t->cap = cap;
    }
    t->ids[t->count++] = id;
    return true;
}

void token_ids_free(token_ids *t) {
    free(t->ids);
    memset(t, 0, sizeof(*t));
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The text between special tokens. SPM puts a space before the first and before what follows a special token. */
static bool encode_ordinary(encoder *c, const char *text, size_t n, bool *after_special) {
    if (n == 0) {
        return true;
    }
    bool prefix = *after_special && c->t->space_prefix;
    *after_special = false;
    return c->t->is_spm ? spm_encode(c, text, n, prefix) : bpe_encode(c, text, n);
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
    if (o.add_special && t->adds_bos && t->bos >= 0) {
        ok = token_ids_add(out, t->bos);
    }
    ok = ok && encode_text(&c, text, n, o.parse_special);
    if (ok && o.add_special && t->adds_eos && t->eos >= 0) {
        ok = token_ids_add(out, t->eos);
    }
    merge_space_free(&c.space);
    str_free(&c.text);
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
    return t->is_spm && t->space_prefix;
}
