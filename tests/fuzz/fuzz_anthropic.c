/* Anthropic's API from anybody: a request is taken or refused with a sentence, and what goes on is JSON again; a stream of
 * any payloads (one a line) is read, passed on and told anew without a crash, and what was told reads as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static void must_be_json(const str *s) {
    err    e = {0};
    cJSON *tree = json_parse(s->data ? s->data : "", s->len, JSON_MAX_DEPTH, &e);
    must(tree != NULL || e.code == ERR_LIMIT); /* the neutral form may be a little deeper */
    cJSON_Delete(tree);
}

/* ---- requests ---- */

static void check_good(request *r) {
    str   s = {0};
    err   e = {0};
    drops d = {.allowed = true};
    must(dialect_anthropic.canonical(r, &s) && s.len > 5);
    str_clear(&s);
    r->most_tokens = 100;
    must(dialect_anthropic.write_request(r, "y\"", true, &s, &e));
    must_be_json(&s);
    str_clear(&s);
    r->drops = &d;
    r->from = &dialect_openai; /* written anew */
    if (dialect_anthropic.write_request(r, "claude-haiku-4-5", true, &s, &e)) {
        must_be_json(&s);
    } else {
        must(e.text[0] != '\0');
    }
    e = (err){0};
    must(dialect_anthropic.read_local(r, &e) || e.text[0] != '\0');
    str_free(&s);
}

static void check_request(const char *bytes, size_t n, bool counting) {
    arena  *memory = arena_new(1024);
    request r;
    err     e = {0};
    must(memory != NULL);
    if (counting ? anthropic_read_count(bytes, n, memory, &r, &e)
                 : dialect_anthropic.read_request(REQUEST_CHAT, bytes, n, memory, &r, &e)) {
        check_good(&r);
    } else {
        str s = {0};
        must(e.text[0] != '\0' && r.body == NULL && r.client == NULL);
        must(dialect_anthropic.write_error(&e, 0, &s));
        must_be_json(&s);
        str_free(&s);
    }
    request_free(&r);
    arena_free(memory);
}

/* ---- streams ---- */

typedef struct flow {
    anthropic_reading reading;
    anthropic_writing writing, passing;
    answer            head;
    str               told, passed;
    bool              done, full;
} flow;

static void take(void *ctx, const event *ev) {
    flow *f = ctx;
    err   e = {0};
    f->full = f->full || !answer_add(&f->head, ev, &e);
    must(dialect_anthropic.write_event(NULL, &f->writing, &f->head, ev, &f->told));
    if (ev->raw) {
        must(dialect_anthropic.write_raw(NULL, &f->passing, ev, &f->passed));
    }
}

static void ignore(void *ctx, const event *ev) {
    err e = {0};
    must(answer_add(ctx, ev, &e));
}

typedef struct again {
    anthropic_reading reading;
    answer            head;
    bool              done;
} again;

static bool read_again(void *ctx, const char *data, size_t n) {
    again *a = ctx;
    err    e = {0};
    must(dialect_anthropic.read_chunk(REQUEST_CHAT, &a->reading, data, n, ignore, &a->head, &a->done, &e));
    return true;
}

static void same_text(const str *a, const str *b) {
    must(a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0));
}

static void check_told(const flow *f) {
    again      a = {0};
    sse_reader sse = {0};
    err        e = {0};
    must(sse_feed(&sse, f->told.data, f->told.len, read_again, &a, &e) && a.done);
    if (f->head.n_choices > 0 && a.head.n_choices > 0 && !f->full) {
        same_text(&f->head.choices[0].reasoning, &a.head.choices[0].reasoning);
        must(f->head.choices[0].text.len + f->head.choices[0].refusal.len == a.head.choices[0].text.len);
        must(cJSON_GetArraySize(f->head.choices[0].tool_calls) == cJSON_GetArraySize(a.head.choices[0].tool_calls));
    }
    answer_clear(&a.head);
    sse_clear(&sse);
}

static void check_stream(const char *bytes, size_t n) {
    flow f = {0};
    err  e = {0};
    for (const char *end = bytes + n, *line_end; bytes < end && !f.done; bytes = line_end + 1) {
        line_end = memchr(bytes, '\n', (size_t)(end - bytes));
        line_end = line_end ? line_end : end;
        if (!dialect_anthropic.read_chunk(REQUEST_CHAT, &f.reading, bytes, (size_t)(line_end - bytes), take, &f,
                                          &f.done, &e)) {
            must(e.text[0] != '\0');
            break;
        }
    }
    must(dialect_anthropic.write_end(NULL, &f.writing, &f.head, false, ": c\n", &f.told));
    must(dialect_anthropic.write_end(NULL, &f.passing, &f.head, true, "", &f.passed));
    check_told(&f);
    answer_clear(&f.head);
    str_free(&f.told);
    str_free(&f.passed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *bytes = (const char *)data;
    answer      a;
    err         e = {0};
    check_request(bytes, n, false);
    check_request(bytes, n, true);
    check_stream(bytes, n);
    if (dialect_anthropic.read_answer(REQUEST_CHAT, bytes, n, &a, &e)) {
        str s = {0};
        must(dialect_anthropic.write_answer(NULL, &a, &s));
        must_be_json(&s);
        str_free(&s);
        answer_clear(&a);
    } else {
        must(e.text[0] != '\0');
    }
    return 0;
}
