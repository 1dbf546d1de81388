#include "check.h"

#include "base/utf8.h"

typedef struct row {
    const char *bytes;
    size_t      n;
    bool        valid;
    size_t      bad;   /* of the first wrong byte */
    size_t      whole; /* utf8_whole */
} row;

static const row table[] = {
    {"", 0, true, 0, 0},
    {"plain", 5, true, 0, 5},
    {"\0", 1, true, 0, 1},
    {"\xC3\xA9", 2, true, 0, 2},
    {"\xE2\x82\xAC", 3, true, 0, 3},
    {"\xF0\x9F\x98\x80", 4, true, 0, 4},
    {"\xF4\x8F\xBF\xBF", 4, true, 0, 4},
    {"\xEF\xBF\xBF", 3, true, 0, 3},
    {"a\xC3", 2, false, 1, 1},
    {"a\xE2\x82", 3, false, 1, 1},
    {"a\xF0\x9F\x98", 4, false, 1, 1},
    {"a\xF0", 2, false, 1, 1},
    {"a\x80", 2, false, 1, 2},            /* a continuation alone */
    {"\xC0\xAF", 2, false, 0, 2},         /* overlong */
    {"\xC1\xBF", 2, false, 0, 2},         /* overlong */
    {"\xE0\x9F\xBF", 3, false, 0, 3},     /* overlong */
    {"\xE0\x9F", 2, false, 0, 2},         /* overlong already: no byte completes it */
    {"\xF0\x8F\xBF\xBF", 4, false, 0, 4}, /* overlong */
    {"\xED\xA0\x80", 3, false, 0, 3},     /* surrogate */
    {"\xED\xA0", 2, false, 0, 2},         /* surrogate already */
    {"\xF4\x90\x80\x80", 4, false, 0, 4}, /* U+110000 */
    {"\xF5\x80\x80\x80", 4, false, 0, 4}, /* too large */
    {"\xFF", 1, false, 0, 1},
    {"\xFE", 1, false, 0, 1},
    {"\xC3(", 2, false, 0, 2},
    {"\xE2\x28\xA1", 3, false, 0, 3},
    {"12345678\xC3\xA9"
     "1234567\xFF",
     18, false, 17, 18},
    {"1234567\xE2\x82\xAC", 10, true, 0, 10}, /* across the eight-byte step */
};

static void test_table(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        const row *r = &table[i];
        size_t     bad = 999;
        if (utf8_valid(r->bytes, r->n, &bad) != r->valid || (!r->valid && bad != r->bad)) {
            fail_msg("row %zu: valid should be %d at %zu, bad is %zu", i, r->valid, r->bad, bad);
        }
        if (utf8_whole(r->bytes, r->n) != r->whole) {
            fail_msg("row %zu: whole should be %zu, not %zu", i, r->whole, utf8_whole(r->bytes, r->n));
        }
    }
}

static void test_every_code_point(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char     bytes[4];
        uint32_t back;
        size_t   n = utf8_encode(cp, bytes);
        bool     surrogate = cp >= 0xD800 && cp <= 0xDFFF;
        assert_int_equal(utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, surrogate ? 0xFFFD : cp);
        assert_true(utf8_valid(bytes, n, NULL));
        for (size_t cut = 1; cut < n; cut++) { /* each cut is held back, and is a wrong byte on its own */
            assert_int_equal(utf8_whole(bytes, cut), 0);
            assert_int_equal(utf8_decode(bytes, cut, &back), 1);
            assert_int_equal(back, 0xFFFD);
        }
    }
    char bytes[4];
    assert_int_equal(utf8_encode(0x110000, bytes), 3);
    assert_memory_equal(bytes, "\xEF\xBF\xBD", 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_every_code_point)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
