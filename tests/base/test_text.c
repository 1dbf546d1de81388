/* arena, str and err: memory that grows, and the sentences kept in it. */
#include "check.h"

#include <limits.h>

#include "base/arena.h"
#include "base/str.h"
#include "base/utf8.h"

static void test_arena(void **state) {
    (void)state;
    arena   *a = arena_new(0);
    uint64_t random = 7;
    char    *pieces[2000];
    size_t   sizes[2000];
    size_t   sum = 0;
    for (int i = 0; i < 2000; i++) {
        sizes[i] = test_random(&random) % (i % 50 == 0 ? 100000 : 200);
        sum += sizes[i];
        pieces[i] = arena_alloc(a, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], i & 255, sizes[i]);
    }
    for (int i = 0; i < 2000; i++) { /* nobody wrote into a neighbour */
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal((unsigned char)pieces[i][k], i & 255);
        }
    }
    assert_true(arena_bytes(a) >= sum && arena_bytes(a) < 2 * sum + 300000);
    assert_null(arena_alloc(a, SIZE_MAX));
    assert_null(arena_alloc(a, SIZE_MAX - 20));
    assert_null(arena_zero(a, SIZE_MAX / 2, 3));
    assert_null(arena_memdup(a, "", SIZE_MAX));
    const int *zeros = arena_zero(a, 100, sizeof(int));
    for (int i = 0; i < 100; i++) {
        assert_int_equal(zeros[i], 0);
    }
    assert_non_null(arena_zero(a, 0, 0));
    assert_null(arena_strdup(a, NULL));
    assert_string_equal(arena_strdup(a, "text"), "text");
    assert_string_equal(arena_memdup(a, "textual", 4), "text");
    assert_string_equal(arena_memdup(a, NULL, 0), "");
    assert_string_equal(arena_printf(a, "%s-%d", "n", 12345), "n-12345");
    arena_free(a);
    arena_free(NULL);
}

static void test_str(void **state) {
    (void)state;
    str s = {0};
    str_adds(&s, "a");
    str_addc(&s, 'b');
    str_add(&s, "c\0d", 3);
    assert_int_equal(s.len, 5);
    assert_memory_equal(s.data, "abc\0d", 6);
    str_clear(&s);
    for (int i = 0; i < 10000; i++) {
        str_addf(&s, "%d,", i);
    }
    assert_int_equal(s.len, 48890);
    assert_int_equal(strlen(s.data), s.len);
    char *taken = str_take(&s);
    assert_non_null(taken);
    assert_null(s.data);
    free(taken);
    assert_null(str_take(&s));

    str_jsons(&s, "a\"b\\c\n\x01\x1F\x7F\xC3\xA9/");
    assert_string_equal(s.data, "\"a\\\"b\\\\c\\n\\u0001\\u001f\x7F\xC3\xA9/\"");
    str_clear(&s);
    str_json(&s, "a\0b", 3);
    str_jsons(&s, NULL);
    assert_string_equal(s.data, "\"a\\u0000b\"null");

    str_clear(&s);
    str_usd(&s, 1234567);
    str_addc(&s, ' ');
    str_usd(&s, 0);
    str_addc(&s, ' ');
    str_usd(&s, -1);
    str_addc(&s, ' ');
    str_usd(&s, LLONG_MIN);
    assert_string_equal(s.data, "1.234567 0.000000 -0.000001 -9223372036854.775808");

    str_clear(&s);
    str_label(&s, "a\"b\\c\nd\te{}");
    str_label(&s, "");
    assert_string_equal(s.data, "\"a\\\"b\\\\c\\nd\te{}\"\"\""); /* a tab stays one, as in no JSON */

    assert_false(str_reserve(&s, SIZE_MAX - 4)); /* failure sticks until the string is cleared */
    assert_true(s.failed);
    assert_false(str_addc(&s, 'x'));
    assert_null(str_take(&s));
    str_free(&s);
}

/* Every byte at every distance from the eight-byte step, written and read back. */
static void test_json_bytes(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        for (size_t before = 0; before < 17; before++) {
            char text[24];
            memset(text, 0x7E, sizeof(text));
            text[before] = (char)c;
            bool plain = c >= 0x20 && c != 34 && c != 92;
            assert_int_equal(str_json_plain(text, sizeof(text)), plain ? sizeof(text) : before);
            assert_int_equal(str_json_plain(text, before), before);
            str s = {0};
            assert_true(str_json(&s, text, sizeof(text)));
            assert_int_equal(s.len, 26 + (plain ? 0 : strchr("\b\t\n\f\r\"\\", c) && c ? 1 : 5));
            str_free(&s);
        }
    }
}

static void test_err(void **state) {
    (void)state;
    err e = {0};
    assert_false(err_set(&e, ERR_LIMIT, "%s is %d", "it", 5));
    assert_string_equal(e.text, "it is 5");
    assert_string_equal(e.param, "");
    assert_false(err_at(&e, ERR_INVALID, "messages[2].content", "wrong"));
    assert_string_equal(e.param, "messages[2].content");
    err_prefix(&e, "file %s", "f");
    assert_string_equal(e.text, "file f: wrong");
    assert_string_equal(e.param, "messages[2].content");
    err_set(&e, ERR_IO, "[%s]", e.text); /* its own text as an argument */
    assert_string_equal(e.text, "[file f: wrong]");
    assert_false(err_set(NULL, ERR_IO, "x"));
    assert_false(err_at(NULL, ERR_IO, "p", "x"));
    assert_false(err_prefix(NULL, "x"));
    char long_text[2000];
    for (size_t cut = 0; cut < 4; cut++) { /* never half a character at the end */
        memset(long_text, 'x', sizeof(long_text));
        for (size_t i = cut; i + 3 < sizeof(long_text); i += 3) {
            memcpy(long_text + i, "\xE2\x82\xAC", 3);
        }
        long_text[sizeof(long_text) - 1] = '\0';
        err_at(&e, ERR_INVALID, long_text, "%s", long_text);
        assert_true(strlen(e.text) > 480 && strlen(e.param) > 100);
        assert_true(utf8_valid(e.text, strlen(e.text), NULL));
        assert_true(utf8_valid(e.param, strlen(e.param), NULL));
        err_prefix(&e, "%s", long_text);
        assert_true(utf8_valid(e.text, strlen(e.text), NULL));
    }
    assert_string_equal(err_word(ERR_NOT_FOUND), "not_found");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_arena), cmocka_unit_test(test_str),
                                       cmocka_unit_test(test_json_bytes), cmocka_unit_test(test_err)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
