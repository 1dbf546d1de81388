/* show_read.c - gathers what a file says of itself; nothing that is missing or odd is an error here. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/show.h"
#include "model/template/template.h"
#include "model/tokenizer/tokenizer.h"

static gguf_str text_of(const gguf *g, const char *key) {
    gguf_str s = {0};
    return gguf_string(g, key, &s, NULL) ? s : (gguf_str){0};
}

/* ARCH.key, or the largest of a list with one a layer. */
static int64_t number_of(const shown_model *m, const char *key) {
    char      name[200];
    int64_t   value = 0;
    gguf_kind kind;
    size_t    count;
    size_t    n = m->architecture.len < 100 ? m->architecture.len : 100;
    snprintf(name, sizeof name, "%.*s.%s", (int)n, n ? m->architecture.data : "", key);
    if (gguf_int(m->g, name, 0, INT64_MAX, &value, NULL)) {
        return value;
    }
    if (!gguf_array(m->g, name, &kind, &count, NULL) || kind == GGUF_STRING) {
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        double x = gguf_array_number(m->g, name, i);
        value = x > (double)value && x < 1e15 ? (int64_t)x : value;
    }
    return value;
}

static shown_type *type_of(shown_model *m, const gguf_tensor *t) {
    const int most = (int)(sizeof m->types / sizeof *m->types);
    for (int i = 0; i < m->n_types; i++) {
        if (m->types[i].number == t->type) {
            return &m->types[i];
        }
    }
    if (m->n_types == most) {
        return &m->types[most - 1];
    }
    m->types[m->n_types] = (shown_type){.number = t->type, .name = t->format ? t->format->name : NULL};
    return &m->types[m->n_types++];
}

static void count_tensors(shown_model *m) {
    for (size_t i = 0; i < gguf_tensor_count(m->g); i++) {
        const gguf_tensor *t = gguf_tensor_at(m->g, i);
        shown_type        *type = type_of(m, t);
        int64_t            values = t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
        type->tensors++;
        type->values += values;
        type->bytes += t->bytes;
        m->parameters += values;
        m->tensor_bytes += t->bytes;
    }
}

static void read_tokenizer(shown_model *m) {
    err       e = {0};
    gguf_kind kind;
    m->tokenizer = text_of(m->g, "tokenizer.ggml.model");
    m->pre = text_of(m->g, "tokenizer.ggml.pre");
    gguf_array(m->g, "tokenizer.ggml.tokens", &kind, &m->vocabulary, NULL);
    if (!m->tokenizer.data) {
        return;
    }
    tokenizer *t = tokenizer_open(m->g, &e);
    m->tokenizer_works = t != NULL;
    snprintf(m->tokenizer_why, sizeof m->tokenizer_why, "%.299s", t ? "" : e.text);
    tokenizer_close(t);
}

static void read_template(shown_model *m) {
    err      e = {0};
    gguf_str source = text_of(m->g, "tokenizer.chat_template");
    m->chat_template = source.data != NULL;
    if (!m->chat_template) {
        return;
    }
    chat_template *t = template_compile(source.data, source.len, &e);
    m->chat_works = t != NULL;
    snprintf(m->chat_why, sizeof m->chat_why, "%.299s", t ? "" : e.text);
    template_free(t);
}

void show_read(const gguf *g, const char *path, shown_model *m) {
    err e = {0};
    *m = (shown_model){.g = g, .path = path};
    m->architecture = text_of(g, "general.architecture");
    m->name = text_of(g, "general.name");
    m->license = text_of(g, "general.license");
    m->size_label = text_of(g, "general.size_label");
    m->context = number_of(m, "context_length");
    m->layers = number_of(m, "block_count");
    m->dim = number_of(m, "embedding_length");
    m->heads = number_of(m, "attention.head_count");
    m->kv_heads = number_of(m, "attention.head_count_kv");
    m->kv_heads = m->kv_heads ? m->kv_heads : m->heads;
    m->ffn = number_of(m, "feed_forward_length");
    m->experts = number_of(m, "expert_count");
    m->experts_used = number_of(m, "expert_used_count");
    count_tensors(m);
    read_tokenizer(m);
    read_template(m);
    m->runs = model_shape_read(g, &m->shape, &e);
    snprintf(m->why_not, sizeof m->why_not, "%.299s", m->runs ? "" : e.text);
}

/* ---- strings of strangers ---- */

void show_text(str *out, gguf_str s, size_t most) {
    size_t at = 0;
    while (at < s.len && at < most) {
        uint32_t cp;
        char     bytes[4];
        at += utf8_decode(s.data + at, s.len - at, &cp);
        if (cp == '\n') {
            str_adds(out, "\\n");
        } else if (cp == '\t') {
            str_addc(out, ' ');
        } else if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) { /* what moves cursors and changes colours */
            str_addc(out, '?');
        } else {
            str_add(out, bytes, utf8_encode(cp, bytes));
        }
    }
    if (at < s.len) {
        str_addf(out, "... (%zu bytes)", s.len);
    }
}

void show_json_text(str *out, gguf_str s) {
    str clean = {0};
    for (size_t at = 0; at < s.len;) {
        uint32_t cp;
        char     bytes[4];
        at += utf8_decode(s.data + at, s.len - at, &cp);
        str_add(&clean, bytes, utf8_encode(cp, bytes));
    }
    out->failed |= clean.failed;
    str_json(out, clean.data ? clean.data : "", clean.len);
    str_free(&clean);
}
