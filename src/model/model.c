#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/weights.h"

enum { MAX_NAME = 200, MAX_TEMPLATE_BYTES = 1 << 20 };

/* general.name, or what the file is called without its folder and ".gguf". */
static bool read_name(model *m, const gguf *g, err *e) {
    gguf_str s;
    if (!gguf_has(g, "general.name") || !gguf_string(g, "general.name", &s, NULL) || s.len == 0 ||
        !utf8_valid(s.data, s.len, NULL) || memchr(s.data, 0, s.len)) {
        const char *path = gguf_name(g), *slash = strrchr(path, '/');
        s.data = slash ? slash + 1 : path;
        s.len = strlen(s.data);
        if (s.len > 5 && strcmp(s.data + s.len - 5, ".gguf") == 0)
            s.len -= 5;
    }
    m->name = strndup(s.data, s.len > MAX_NAME ? utf8_whole(s.data, MAX_NAME) : s.len);
    return m->name || err_set(e, ERR_MEMORY, "out of memory");
}

static bool read_tokenizer(model *m, const gguf *g, err *e) {
    gguf_str kind;
    if (!gguf_has(g, "tokenizer.ggml.model"))
        return true;
    if (!gguf_string(g, "tokenizer.ggml.model", &kind, e))
        return false;
    if (kind.len == strlen("no_vocab") && memcmp(kind.data, "no_vocab", kind.len) == 0)
        return true;
    m->tokens = tokenizer_open(g, e);
    if (!m->tokens)
        return false;
    /* Embeddings are often padded; a token without an embedding is what cannot be. */
    if (tokenizer_vocab(m->tokens) > m->shape.vocab) {
        err_set(e, ERR_INVALID, "the tokenizer has %d tokens and token_embd.weight %d rows", tokenizer_vocab(m->tokens),
                m->shape.vocab);
        return err_prefix(e, "%.200s", gguf_name(g));
    }
    return true;
}

/* A template that pare cannot compile leaves a model that still completes text; m->chat_error says why. */
static void read_template(model *m, const gguf *g) {
    gguf_str source;
    err      e = {0};
    if (!gguf_has(g, "tokenizer.chat_template"))
        return;
    if (gguf_string(g, "tokenizer.chat_template", &source, &e)) {
        if (source.len > MAX_TEMPLATE_BYTES)
            err_set(&e, ERR_LIMIT, "the chat template has %zu bytes, pare takes %d", source.len, MAX_TEMPLATE_BYTES);
        else
            m->chat = template_compile(source.data, source.len, &e);
    }
    if (!m->chat)
        snprintf(m->chat_error, sizeof m->chat_error, "%.*s", (int)utf8_whole(e.text, strnlen(e.text, 255)), e.text);
}

static bool load(model *m, const gguf *g, pool *p, const atomic_bool *stop, err *e) {
    /* What is quick to refuse comes before the weights. */
    if (!read_name(m, g, e) || !model_shape_read(g, &m->shape, e) || !read_tokenizer(m, g, e))
        return false;
    read_template(m, g);
    return weights_load(m, g, p, stop, e) || err_prefix(e, "%.200s", gguf_name(g));
}

model *model_open(const char *path, const void *data, size_t n, pool *p, err *e) {
    return model_open_until(path, data, n, p, NULL, e);
}

model *model_open_until(const char *path, const void *data, size_t n, pool *p, const atomic_bool *stop, err *e) {
    if (!path && !data) {
        err_set(e, ERR_INTERNAL, "model_open without a path and without data");
        return NULL;
    }
    gguf  *g = data ? gguf_open_memory(path, data, n, e) : gguf_open(path, e);
    model *m = g ? calloc(1, sizeof *m) : NULL;
    if (g && !m)
        err_set(e, ERR_MEMORY, "out of memory");
    if (m && !load(m, g, p, stop, e)) {
        model_close(m);
        m = NULL;
    }
    gguf_close(g);
    return m;
}

void model_close(model *m) {
    if (!m)
        return;
    template_free(m->chat);
    tokenizer_close(m->tokens);
    weights_free(m);
    free(m->name);
    free(m);
}
