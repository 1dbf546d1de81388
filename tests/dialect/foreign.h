/* foreign.h - what the tests of providers' dialects share: JSON written with ' for ", and requests brought to a provider. */
#ifndef PARE_TESTS_FOREIGN_H
#define PARE_TESTS_FOREIGN_H

#include "check.h"

#include "dialect/dialect.h"

/* A copy with " for each '; the caller frees. */
static inline char *quoted(const char *text) {
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *p = copy; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    return copy;
}

static inline void canonical(const char *text, str *out) {
    err    e = {0};
    cJSON *tree = json_parse(text, strlen(text), JSON_MAX_DEPTH, &e);
    if (!tree) {
        fail_msg("not JSON (%s): %s", e.text, text);
    }
    assert_true(json_canonical(tree, out));
    cJSON_Delete(tree);
}

/* The same JSON, whatever its blanks and order. */
static inline void assert_json(const char *actual, const char *wanted) {
    char *text = quoted(wanted);
    str   a = {0}, b = {0};
    canonical(actual, &a);
    canonical(text, &b);
    assert_string_equal(a.data, b.data);
    str_free(&a);
    str_free(&b);
    free(text);
}

typedef struct carried {
    arena  *memory;
    char   *body;
    request r;
    drops   dropped;
    str     out;
    err     e;
} carried;

/* The body, as a client of OpenAI's API sends it, for this provider. False: the provider's side refused it. */
static inline bool carry(carried *c, const dialect *to, request_kind kind, const char *model, const char *body,
                         bool drop) {
    *c = (carried){.memory = arena_new(4096), .body = quoted(body), .dropped = {.allowed = drop}};
    assert_ok(dialect_openai.read_request(kind, c->body, strlen(c->body), c->memory, &c->r, &c->e), c->e);
    c->r.drops = &c->dropped;
    return to->write_request(&c->r, model, true, &c->out, &c->e);
}

static inline void carried_free(carried *c) {
    request_free(&c->r);
    arena_free(c->memory);
    free(c->body);
    str_free(&c->out);
}

/* The whole request that the provider gets. */
static inline void assert_carried(const dialect *to, request_kind kind, const char *model, const char *body,
                                  const char *wanted) {
    carried c;
    assert_ok(carry(&c, to, kind, model, body, false), c.e);
    assert_json(c.out.data, wanted);
    carried_free(&c);
}

/* Refused with the member's name; and, where dropping is allowed, left out and listed. */
static inline void assert_dropped(const dialect *to, request_kind kind, const char *model, const char *body,
                                  const char *name, const char *wanted) {
    carried c;
    if (carry(&c, to, kind, model, body, false)) {
        fail_msg("carried without a word: %s", c.out.data);
    }
    assert_int_equal(c.e.code, ERR_UNSUPPORTED);
    assert_string_equal(c.e.param, name);
    carried_free(&c);
    assert_ok(carry(&c, to, kind, model, body, true), c.e);
    assert_string_equal(c.dropped.names, name);
    assert_json(c.out.data, wanted);
    carried_free(&c);
}

#endif
