/* Server-sent events: however the bytes are cut, the payloads are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dialect/sse.h"

static bool collect(void *ctx, const char *data, size_t n) {
    str *s = ctx;
    str_addc(s, '<');
    str_add(s, data, n);
    str_addc(s, '>');
    return true;
}

static const char tricky[] = "\xEF\xBB\xBF"
                             "data: one\n\n"
                             ": a comment\r\n"
                             "event: x\r\nid: 7\r\ndata:two\r\ndata: and  more\r\n\r\n"
                             "data\rdata: \rdata:  three\r\r"
                             "retry: 5\n\n\n"
                             "database: no\ndata: {\"a\":\"\xC3\xA9\"}\n\n"
                             "data:\n\n"
                             "data: [DONE]\n\n";
static const char wanted[] = "<one><two\nand  more><\n\n three><{\"a\":\"\xC3\xA9\"}><><[DONE]>";

static void feed(sse_reader *r, const char *bytes, size_t n, str *out) {
    err e = {0};
    if (!sse_feed(r, bytes, n, collect, out, &e)) {
        fail_msg("%s", e.text);
    }
}

static void test_every_split(void **state) {
    (void)state;
    size_t n = sizeof tricky - 1;
    for (size_t i = 0; i <= n; i++) {
        for (size_t k = i; k <= n; k++) {
            sse_reader r = {0};
            str        out = {0};
            feed(&r, tricky, i, &out);
            feed(&r, tricky + i, k - i, &out);
            feed(&r, tricky + k, n - k, &out);
            assert_string_equal(out.data, wanted);
            assert_false(sse_partial(&r));
            sse_clear(&r);
            str_free(&out);
        }
    }
    sse_reader r = {0};
    str        out = {0};
    for (size_t i = 0; i < n; i++) {
        feed(&r, tricky + i, 1, &out);
    }
    assert_string_equal(out.data, wanted);
    sse_clear(&r);
    str_free(&out);
}

static void test_what_is_unfinished(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        bool        partial;
    } cases[] = {{"", false},
                 {"data: a\n\n", false},
                 {"data: a\n", true},
                 {"data: a", true},
                 {"data: a\r\r", false},
                 {": x\n", false},
                 {"data: a\n\ndata", true},
                 {"data: a\r\n\r\n", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sse_reader r = {0};
        str        out = {0};
        feed(&r, cases[i].bytes, strlen(cases[i].bytes), &out);
        assert_int_equal(sse_partial(&r), cases[i].partial);
        sse_clear(&r);
        str_free(&out);
    }
}

static void test_limits(void **state) {
    (void)state;
    sse_reader r = {.limit = 100};
    str        out = {0};
    err        e = {0};
    char       line[300] = "data: ";
    memset(line + 6, 'x', 293);
    assert_false(sse_feed(&r, line, sizeof line, collect, &out, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    sse_clear(&r);
    assert_int_equal(r.limit, 100);
    bool good = true;
    int  fed = 0;
    while (good && fed++ < 300) { /* many short lines of one event */
        good = sse_feed(&r, "data: 0123456789\n", 17, collect, &out, &e);
    }
    assert_true(fed > 5 && fed < 15);
    sse_clear(&r);
    good = true;
    for (fed = 0; good && fed < 1000; fed++) { /* a line without an end, a byte at a time */
        good = sse_feed(&r, "x", 1, collect, &out, &e);
    }
    assert_true(fed < 200);
    sse_clear(&r);
    str_free(&out);
}

static bool stop_at_second(void *ctx, const char *data, size_t n) {
    (void)data;
    (void)n;
    return ++*(int *)ctx < 2;
}

static void test_a_payload_may_stop_it(void **state) {
    (void)state;
    sse_reader r = {0};
    int        count = 0;
    err        e = {0};
    assert_false(sse_feed(&r, "data: 1\n\ndata: 2\n\ndata: 3\n\n", 27, stop_at_second, &count, &e));
    assert_int_equal(count, 2);
    sse_clear(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_what_is_unfinished),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_a_payload_may_stop_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
