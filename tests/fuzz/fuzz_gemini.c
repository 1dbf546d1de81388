/* What Gemini and Cohere might answer, and clients might ask of them: never a crash, and what is read can be written on, as
 * JSON. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/dialect.h"
#include "dialect/values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

typedef struct stream {
    answer grown;
    bool   failed;
    err    e;
} stream;

static void take(void *ctx, const event *ev) {
    stream *s = ctx;
    must(ev->raw_dialect == &dialect_gemini && !ev->raw == !ev->raw_len && ev->choice >= 0);
    s->failed = !answer_add(&s->grown, ev, &s->e) || s->failed;
}

static void written(const answer *a) {
    request r = {.kind = REQUEST_CHAT};
    str     out = {0};
    must(dialect_openai.write_answer(&r, a, &out));
    cJSON *tree = json_parse(out.data, out.len, JSON_MAX_DEPTH, NULL);
    must(tree || out.len > (1 << 20)); /* arguments nest deeper only inside a string */
    cJSON_Delete(tree);
    str_free(&out);
}

static void read_stream(const char *bytes, size_t n) {
    stream s = {0};
    void  *state = calloc(1, dialect_gemini.reading);
    bool   good = state != NULL, done = false;
    while (good && !s.failed && n > 0) { /* one chunk a line */
        const char *end = memchr(bytes, '\n', n);
        size_t      line = end ? (size_t)(end - bytes) : n;
        good = dialect_gemini.read_chunk(REQUEST_CHAT, state, bytes, line, take, &s, &done, &s.e);
        must((good || !done) && (good || s.e.text[0])); /* done: the prompt was stopped */
        bytes += line + (end != NULL);
        n -= line + (end != NULL);
    }
    written(&s.grown);
    answer_clear(&s.grown);
    free(state);
}

/* Vectors and scores: what pare hands on must be JSON, in every shape that a request may ask for. */
static void read_values(const dialect *d, request_kind kind, const char *bytes, size_t n) {
    prompt  prompts[3] = {{.text = "a"}, {.text = "\"b"}, {.text = "c"}};
    request r = {
        .kind = kind, .model = "m", .prompts = prompts, .n_prompts = 3, .base64 = true, .return_documents = true};
    answer a;
    err    e = {0};
    str    out = {0};
    if (d->read_answer(kind, bytes, n, &a, &e)) {
        must(a.raw_dialect == &dialect_openai);
        must(values_adapt(&r, a.raw, a.raw_len, &out));
        cJSON *tree = json_parse(out.data, out.len, JSON_MAX_DEPTH, &e);
        must(tree || e.code == ERR_LIMIT);
        cJSON_Delete(tree);
    } else {
        must(e.code == ERR_UPSTREAM || e.code == ERR_MEMORY);
    }
    str_clear(&out);
    values_adapt(&r, bytes, n, &out); /* not only of what pare wrote */
    str_free(&out);
    answer_clear(&a);
}

/* A client's request for each provider: refused with a sentence, or JSON. */
static void carry(request_kind kind, const char *bytes, size_t n) {
    static const struct {
        const dialect *to;
        const char    *model;
        bool           drop;
    } targets[] = {{&dialect_gemini, "gemini-2.5-flash", true},
                   {&dialect_gemini, "models/gemini-3-pro", false},
                   {&dialect_cohere, "c", true}};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        arena  *memory = arena_new(1024);
        drops   dropped = {.allowed = targets[i].drop};
        request r;
        err     e = {0};
        str     out = {0};
        if (dialect_openai.read_request(kind, bytes, n, memory, &r, &e)) {
            r.drops = &dropped;
            bool   good = targets[i].to->write_request(&r, targets[i].model, true, &out, &e);
            cJSON *tree = good ? json_parse(out.data, out.len, 3 * JSON_MAX_DEPTH, &e) : NULL;
            must(tree || e.code == ERR_LIMIT || (!good && e.text[0]));
            cJSON_Delete(tree);
        }
        request_free(&r);
        str_free(&out);
        arena_free(memory);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    /* A copy of just that size, so that reading past its end is seen. */
    char *bytes = malloc(n > 1 ? n - 1 : 1);
    must(bytes != NULL);
    memcpy(bytes, data + 1, n - 1);
    answer a;
    err    e = {0};
    switch (data[0] % 5) {
    case 0:
        if (dialect_gemini.read_answer(REQUEST_CHAT, bytes, n - 1, &a, &e)) {
            written(&a);
        } else {
            must(e.text[0]);
        }
        answer_clear(&a);
        break;
    case 1:
        read_stream(bytes, n - 1);
        break;
    case 2:
        read_values(&dialect_gemini, REQUEST_EMBEDDINGS, bytes, n - 1);
        break;
    case 3:
        carry(data[0] & 32 ? REQUEST_CHAT : data[0] & 64 ? REQUEST_EMBEDDINGS : REQUEST_RERANK, bytes, n - 1);
        break;
    default:
        read_values(&dialect_cohere, data[0] & 32 ? REQUEST_RERANK : REQUEST_EMBEDDINGS, bytes, n - 1);
    }
    free(bytes);
    return 0;
}
