/* A provider's stream in random pieces: never a crash, and the same answer as in one piece. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/openai.h"
#include "dialect/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

typedef struct stream {
    request_kind kind;
    answer       grown;
    bool         done, failed;
    str          written; /* the chunks as pare would write them */
    err          e;
} stream;

static void take(void *ctx, const event *ev) {
    stream *s = ctx;
    must(ev->raw_dialect == &dialect_openai && !ev->raw == !ev->raw_len);
    s->failed = !answer_add(&s->grown, ev, &s->e) || s->failed;
    must(openai_write_chunk(s->kind, &s->grown, ev, true, &s->written));
}

static void tell(void *ctx, const event *ev) {
    static const answer head;
    must(openai_write_chunk(REQUEST_CHAT, &head, ev, false, ctx));
    must(str_addf(ctx, "%d %lld %s %s %zu\n", ev->choice, (long long)ev->created, ev->id ? ev->id : "",
                  ev->model ? ev->model : "", ev->raw_len));
}

/* What is read without a tree is what the reader with the tree says. */
static void compare(const char *data, size_t n) {
    str quick = {0};
    str whole = {0};
    err e = {0};
    if (openai_read_ordinary(data, n, tell, &quick)) {
        must(openai_read_any(REQUEST_CHAT, data, n, tell, &whole, &e));
        must(quick.len == whole.len && memcmp(quick.data, whole.data, whole.len) == 0);
    }
    str_free(&quick);
    str_free(&whole);
}

static bool payload(void *ctx, const char *data, size_t n) {
    stream *s = ctx;
    compare(data, n);
    bool good = dialect_openai.read_chunk(s->kind, NULL, data, n, take, s, &s->done, &s->e);
    return good && !s->done && !s->failed;
}

static void run(stream *s, const char *bytes, size_t n, uint32_t seed) {
    sse_reader r = {0};
    bool       good = true;
    for (size_t at = 0; good && at < n;) {
        seed = seed * 1664525 + 1013904223;
        size_t piece = 1 + (seed >> 24) % 40;
        piece = piece < n - at ? piece : n - at;
        good = sse_feed(&r, bytes + at, piece, payload, s, &s->e);
        at += piece;
    }
    sse_clear(&r);
}

static void finish(stream *s, str *out) {
    must(dialect_openai.write_answer(&(request){.kind = s->kind}, &s->grown, out));
    if (s->grown.n_choices > 0) { /* a stored answer must read back as it was */
        answer back;
        str    again = {0};
        err    e = {0};
        if (!dialect_openai.read_answer(s->kind, out->data, out->len, &back, &e)) {
            must(e.code == ERR_LIMIT || e.code == ERR_UPSTREAM);
        } else {
            must(dialect_openai.write_answer(&(request){.kind = s->kind}, &back, &again));
            must(again.len == out->len && memcmp(again.data, out->data, out->len) == 0);
            answer_clear(&back);
        }
        str_free(&again);
    }
    answer_clear(&s->grown);
    str_free(&s->written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 5) {
        return 0;
    }
    uint32_t seed;
    memcpy(&seed, data, sizeof seed);
    request_kind kind = data[4] & 1 ? REQUEST_CHAT : REQUEST_COMPLETION;
    const char  *bytes = (const char *)data + 5;
    stream       whole = {.kind = kind};
    stream       pieces = {.kind = kind};
    str          a = {0};
    str          b = {0};
    sse_reader   r = {0};
    sse_feed(&r, bytes, n - 5, payload, &whole, &whole.e);
    sse_clear(&r);
    run(&pieces, bytes, n - 5, seed);
    finish(&whole, &a);
    finish(&pieces, &b);
    must(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
    str_free(&a);
    str_free(&b);
    return 0;
}
