#include "model/tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

int32_t vocab_find(const vocab *v, const char *text, size_t n) {
    if (n == 0 || n > v->longest) {
        return -1;
    }
    uint64_t hash = hash64(text, n, v->seed);
    for (uint64_t i = hash & v->mask; v->slots[i].id_1 != 0; i = (i + 1) & v->mask) {
        if (v->slots[i].tag == (uint32_t)(hash >> 32)) {
            uint32_t    id = v->slots[i].id_1 - 1;
            size_t      len;
            const char *known = vocab_text(v, id, &len);
            if (len == n && memcmp(known, text, n) == 0) {
                return (int32_t)id;
            }
        }
    }
    return -1;
}

static void index_token(vocab *v, uint32_t id) {
    size_t      n;
    const char *text = vocab_text(v, id, &n);
    if (n == 0) {
        return;
    }
    uint64_t hash = hash64(text, n, v->seed);
    uint64_t i = hash & v->mask;
    for (; v->slots[i].id_1 != 0; i = (i + 1) & v->mask) {
        size_t      len;
        const char *known = vocab_text(v, v->slots[i].id_1 - 1, &len);
        if (v->slots[i].tag == (uint32_t)(hash >> 32) && len == n && memcmp(known, text, n) == 0) {
            break;
        }
    }
    v->slots[i] = (vocab_slot){(uint32_t)(hash >> 32), id + 1};
}

static bool copy_texts(vocab *v, const gguf *g, const gguf_str *tokens, err *e) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        if (tokens[i].len > UINT32_MAX / 4 || (bytes += tokens[i].len + 1) > UINT32_MAX / 4) {
            return err_set(e, ERR_LIMIT, "%s: the texts of tokenizer.ggml.tokens take more than 1 GiB", gguf_name(g));
        }
    }
    v->texts = malloc(bytes);
    v->text_at = malloc(((size_t)v->count + 1) * sizeof(*v->text_at));
    if (!v->texts || !v->text_at) {
        return err_set(e, ERR_MEMORY, "out of memory for a vocabulary of %zu bytes", bytes);
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        v->text_at[i] = at;
        if (tokens[i].len > 0) {
            memcpy(v->texts + at, tokens[i].data, tokens[i].len);
        }
        at += (uint32_t)tokens[i].len;
        v->texts[at++] = 0;
        v->longest = tokens[i].len > v->longest ? tokens[i].len : v->longest;
    }
    v->text_at[v->count] = at;
    return true;
}

static bool read_kinds(vocab *v, const gguf *g, err *e) {
    const char *key = "tokenizer.ggml.token_type";
    v->kinds = malloc(v->count);
    int32_t *types = malloc(v->count * sizeof(*types));
    bool     ok = v->kinds && types;
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for %u token types", v->count);
    } else if (!gguf_has(g, key)) {
        memset(v->kinds, TOKEN_NORMAL, v->count);
    } else if ((ok = gguf_array_ints(g, key, types, v->count, e))) {
        for (uint32_t i = 0; ok && i < v->count; i++) {
            if (types[i] < 0 || types[i] > TOKEN_BYTE) {
                ok = err_set(e, ERR_INVALID, "%s: %s[%u] is %d, but token types are 0 to %d", gguf_name(g), key, i,
                             types[i], TOKEN_BYTE);
            }
            v->kinds[i] = types[i] == 0 ? TOKEN_NORMAL : (uint8_t)types[i];
        }
    }
    free(types);
    return ok;
}

static bool index_all(vocab *v, err *e) {
    uint64_t slots = 16;
    while (slots < 2 * (uint64_t)v->count) {
        slots *= 2;
    }
    v->slots = calloc(slots, sizeof(*v->slots));
    if (!v->slots) {
        return err_set(e, ERR_MEMORY, "out of memory for the index of %u tokens", v->count);
    }
    v->mask = slots - 1;
    v->seed = hash_seed();
    for (uint32_t i = 0; i < v->count; i++) {
        index_token(v, i);
    }
    return true;
}

bool vocab_open(vocab *v, const gguf *g, err *e) {
    const char *key = "tokenizer.ggml.tokens";
    gguf_kind   kind;
    size_t      count;
    if (!gguf_array(g, key, &kind, &count, e)) {
        return false;
    }
    if (kind != GGUF_STRING || count == 0 || count > VOCAB_MAX) {
        return err_set(e, ERR_INVALID, "%s: %s must be an array of 1 to %d strings", gguf_name(g), key, VOCAB_MAX);
    }
    v->count = (uint32_t)count;
    gguf_str *tokens = malloc(count * sizeof(*tokens));
    if (!tokens) {
        return err_set(e, ERR_MEMORY, "out of memory for %zu tokens", count);
    }
    bool ok = gguf_array_strings(g, key, tokens, count, e) && copy_texts(v, g, tokens, e) && read_kinds(v, g, e) &&
              index_all(v, e);
    free(tokens);
    return ok;
}

bool vocab_pieces(vocab *v, vocab_decode decode, err *e) {
    v->pieces = malloc(v->text_at[v->count]); /* a piece is never longer than its text */
    v->piece_at = malloc(((size_t)v->count + 1) * sizeof(*v->piece_at));
    if (!v->pieces || !v->piece_at) {
        return err_set(e, ERR_MEMORY, "out of memory for the pieces of %u tokens", v->count);
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        size_t      n;
        const char *text = vocab_text(v, i, &n);
        v->piece_at[i] = at;
        at += (uint32_t)decode(text, n, (token_kind)v->kinds[i], v->pieces + at);
    }
    v->piece_at[v->count] = at;
    return true;
}

void vocab_close(vocab *v) {
    free(v->texts);
    free(v->text_at);
    free(v->pieces);
    free(v->piece_at);
    free(v->kinds);
    free(v->slots);
    memset(v, 0, sizeof(*v));
}
