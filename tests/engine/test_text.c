/* What may be shown of the text so far, against a plain reference that sees the whole text. */
#include "check.h"

#include "base/utf8.h"
#include "engine/text.h"

typedef struct shown {
    str  text;
    int  stop;
    bool early; /* something came before the end */
} shown;

/* Feeds `bytes` in pieces of 1 .. most bytes. */
static shown feed(const char *bytes, size_t n, const char *const *stop, int n_stop, bool drop_space, int most,
                  uint64_t *random) {
    arena    *memory = arena_new(1024);
    text_out  t;
    text_span out;
    shown     got = {.stop = -1};
    assert_true(text_begin(&t, stop, n_stop, drop_space, memory));
    for (size_t at = 0; at < n && got.stop < 0;) {
        size_t take = 1 + test_random(random) % (uint64_t)most;
        take = take < n - at ? take : n - at;
        got.stop = text_add(&t, bytes + at, take, &out);
        assert_true(utf8_valid(out.text, out.len, NULL));
        str_add(&got.text, out.text, out.len);
        at += take;
        got.early |= out.len > 0 && at < n;
    }
    out = text_end(&t);
    assert_true(utf8_valid(out.text, out.len, NULL));
    str_add(&got.text, out.text, out.len);
    assert_false(text_failed(&t));
    text_free(&t);
    arena_free(memory);
    return got;
}

static void check(const char *bytes, const char *const *stop, int n_stop, const char *want, int want_stop) {
    uint64_t random = 1;
    for (int round = 0; round < 50; round++) {
        shown got = feed(bytes, strlen(bytes), stop, n_stop, false, 1 + round % 5, &random);
        assert_string_equal(got.text.data ? got.text.data : "", want);
        assert_int_equal(got.stop, want_stop);
        str_free(&got.text);
    }
}

static void stop_strings(void **state) {
    (void)state;
    check("Hello world", NULL, 0, "Hello world", -1);
    check("Hello world", (const char *[]){"wor"}, 1, "Hello ", 0);
    check("Hello wo", (const char *[]){"wor"}, 1, "Hello wo", -1);
    check("aaaab", (const char *[]){"aaab"}, 1, "a", 0);
    check("abababac", (const char *[]){"ababac"}, 1, "ab", 0);
    check("one two three", (const char *[]){"three", "two"}, 2, "one ", 1);
    check("say stopping", (const char *[]){"stop", "say stop"}, 2, "", 1); /* same end: the longer */
    check("x", (const char *[]){"", "x"}, 2, "", 0);
    check("gr\xc3\xbc\xc3\x9f dich \xf0\x9f\x98\x80!", (const char *[]){"\xf0\x9f\x98\x81"}, 1,
          "gr\xc3\xbc\xc3\x9f dich \xf0\x9f\x98\x80!", -1);
    check("caf\xc3\xa9 noir", (const char *[]){"\xa9"}, 1, "caf\xef\xbf\xbd", 0); /* a stop inside a character */
}

static void nothing_is_held_for_long(void **state) {
    (void)state;
    arena    *memory = arena_new(256);
    text_out  t;
    text_span out;
    assert_true(text_begin(&t, (const char *[]){"END"}, 1, false, memory));
    text_add(&t, "abcE", 4, &out);
    assert_int_equal(out.len, 3);
    text_add(&t, "N", 1, &out);
    assert_int_equal(out.len, 0);
    text_add(&t, "d\xe2", 2, &out);
    assert_memory_equal(out.text, "ENd", 3);
    assert_int_equal(out.len, 3);
    text_add(&t, "\x82\xac", 2, &out);
    assert_int_equal(out.len, 3);
    text_add(&t, "\xf0\x9f", 2, &out);
    assert_int_equal(out.len, 0);
    out = text_end(&t);
    assert_int_equal(out.len, 6); /* two bytes that never became a character */
    text_free(&t);
    arena_free(memory);
}

static void wrong_bytes(void **state) {
    (void)state;
    check("a\xff\xfez", NULL, 0, "a\xef\xbf\xbd\xef\xbf\xbdz", -1);
    check("a\xc3", NULL, 0, "a\xef\xbf\xbd", -1);
    check("\xc3(", NULL, 0, "\xef\xbf\xbd(", -1);
}

/* Tokens may be single bytes: nothing comes before its character is whole, and nothing is allocated on the way. */
static void bytes_one_by_one(void **state) {
    (void)state;
    static const char text[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\x95\x9c\xff!\xe2\x82z";
    static const char want[] =
        "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\x95\x9c\xef\xbf\xbd!\xef\xbf\xbd\xef\xbf\xbdz";
    arena   *memory = arena_new(256);
    text_out t;
    str      got = {0};
    assert_true(text_begin(&t, NULL, 0, false, memory));
    const char *held = t.held.data, *clean = t.clean.data;
    assert_non_null(held);
    assert_non_null(clean);
    for (size_t i = 0; i + 1 < sizeof(text); i++) {
        text_span out;
        assert_int_equal(text_add(&t, text + i, 1, &out), -1);
        assert_true(utf8_valid(out.text, out.len, NULL));
        assert_int_equal(utf8_whole(out.text, out.len), out.len);
        str_add(&got, out.text, out.len);
    }
    text_span rest = text_end(&t);
    str_add(&got, rest.text, rest.len);
    assert_string_equal(got.data, want);
    assert_ptr_equal(t.held.data, held);
    assert_ptr_equal(t.clean.data, clean);
    str_free(&got);
    text_free(&t);
    arena_free(memory);
}

static void first_space(void **state) {
    (void)state;
    uint64_t random = 3;
    shown    got = feed("  two", 5, NULL, 0, true, 1, &random);
    assert_string_equal(got.text.data, " two");
    str_free(&got.text);
    got = feed("none", 4, NULL, 0, true, 2, &random);
    assert_string_equal(got.text.data, "none");
    str_free(&got.text);
}

/* Random texts over a small alphabet: the earliest end of any stop string decides, of those the longest. */
static void against_a_reference(void **state) {
    (void)state;
    uint64_t random = 42;
    for (int round = 0; round < 3000; round++) {
        char        text[64] = {0}, stops[3][8] = {{0}};
        const char *stop[3];
        int         n = (int)(test_random(&random) % 40), n_stop = (int)(test_random(&random) % 4);
        for (int i = 0; i < n; i++) {
            text[i] = "ab"[test_random(&random) % 2];
        }
        for (int i = 0; i < n_stop; i++) {
            int len = 1 + (int)(test_random(&random) % 7);
            for (int k = 0; k < len; k++) {
                stops[i][k] = "ab"[test_random(&random) % 2];
            }
            stop[i] = stops[i];
        }
        int cut = n, hit = -1;
        for (int end = 1; end <= n && hit < 0; end++) {
            for (int i = 0; i < n_stop; i++) {
                int len = (int)strlen(stop[i]);
                if (len <= end && memcmp(text + end - len, stop[i], (size_t)len) == 0 && (hit < 0 || end - len < cut)) {
                    hit = i;
                    cut = end - len;
                }
            }
        }
        shown got = feed(text, (size_t)n, stop, n_stop, false, 4, &random);
        assert_int_equal(got.text.len, hit < 0 ? n : cut);
        assert_memory_equal(got.text.data ? got.text.data : "", text, got.text.len);
        assert_int_equal(got.stop, hit);
        str_free(&got.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_strings), cmocka_unit_test(nothing_is_held_for_long),
        cmocka_unit_test(wrong_bytes),  cmocka_unit_test(bytes_one_by_one),
        cmocka_unit_test(first_space),  cmocka_unit_test(against_a_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
