#include "check.h"

#include <math.h>

#include "base/clock.h"
#include "base/json.h"

static cJSON *parse(const char *text, err *e) {
    size_t n = strlen(text);
    char  *exact = malloc(n ? n : 1); /* no NUL behind it: the sanitizer sees a read too far */
    memcpy(exact, text, n);
    cJSON *value = json_parse(exact, n, JSON_MAX_DEPTH, e);
    free(exact);
    return value;
}

static void test_refuses(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "[,]",
        "]",
        "}",
        "tru",
        "nul",
        "truex",
        "1 2",
        "{} {}",
        "[] x",
        "[]\f",
        "\"abc",
        "\"abc\\",
        "\"abc\\\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\uZZZZ\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\u0000\"",
        "\"a\\u0000b\"",
        "{\"\\u0000\":1}",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "+1",
        "1.e5",
        "1e",
        "1e+",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "\xEF\xBB\xBF{}",
        "\"\xFF\"",
        "\"\xC0\xAF\"",
        "\"\xED\xA0\x80\"",
        "\"line\nbreak\"",
        "\"tab\there\"",
        "{'a':1}",
        "{a:1}",
        "// c\n1",
        "{\"a\":1,\"a\":2}",
        "{\"x\":[{\"k\":1,\"j\":2,\"k\":3}]}",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "1111111111111111111111111111111111111111111111111111111111111111111111111111",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err    e = {0};
        cJSON *value = parse(bad[i], &e);
        if (value || e.code == ERR_NONE || !e.text[0]) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_null(parse(bad[i], NULL));
    }
}

static void test_accepts(void **state) {
    (void)state;
    static const char *const good[] = {
        "{}",
        "[]",
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "1.5e-3",
        "1E5",
        "\"\"",
        "\"\\u00e9 \\ud83d\\ude00\"",
        "\"\\\\u0000\"",
        "\t\r\n[1, 2 ,3]\n",
        "{\"a\":{\"a\":{\"a\":1}}}",
        "\"\xC3\xA9\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\x7F\"",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        err    e = {0};
        cJSON *value = parse(good[i], &e);
        if (!value) {
            fail_msg("refused: %s: %s", good[i], e.text);
        }
        cJSON_Delete(value);
    }
}

/* `n` times `open` around a 1 and n times `close`. */
static cJSON *nested(int n, const char *open, const char *close, err *e) {
    str s = {0};
    for (int i = 0; i < n; i++) {
        str_adds(&s, open);
    }
    str_adds(&s, "1");
    for (int i = 0; i < n; i++) {
        str_adds(&s, close);
    }
    cJSON *value = json_parse(s.data, s.len, JSON_MAX_DEPTH, e);
    str_free(&s);
    return value;
}

static void test_depth(void **state) {
    (void)state;
    err    e = {0};
    cJSON *value = nested(JSON_MAX_DEPTH, "[", "]", &e);
    assert_ok(value, e);
    cJSON_Delete(value);
    value = nested(JSON_MAX_DEPTH, "{\"a\":", "}", &e);
    assert_ok(value, e);
    cJSON_Delete(value);
    assert_null(nested(JSON_MAX_DEPTH + 1, "[", "]", &e));
    assert_int_equal(e.code, ERR_LIMIT);
    assert_null(nested(1000000, "[", "]", &e));
    assert_null(nested(1000000, "{\"a\":", "}", &e));
    assert_null(nested(1000000, "[", "", &e));
    assert_null(nested(1000000, "", "]", &e));
}

static void test_many_values(void **state) {
    (void)state;
    size_t n = 16u << 20;
    char  *text = malloc(n);
    for (size_t i = 0; i < n; i += 2) {
        text[i] = '1';
        text[i + 1] = ',';
    }
    text[0] = '[';
    text[1] = ' ';
    text[n - 1] = ']';
    err e = {0};
    assert_null(json_parse(text, n, JSON_MAX_DEPTH, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    free(text);
}

static void test_many_keys(void **state) {
    (void)state;
    for (int twice = 0; twice < 2; twice++) {
        str s = {0};
        str_addc(&s, '{');
        for (int i = 0; i < 200000; i++) {
            str_addf(&s, "\"key%d\":%d,", i, i);
        }
        str_adds(&s, twice ? "\"key777\":1}" : "\"other\":1}");
        err     e = {0};
        int64_t start = clock_us();
        cJSON  *value = json_parse(s.data, s.len, JSON_MAX_DEPTH, &e);
        assert_true(clock_us() - start < 5000000); /* comparing each with each would take minutes */
        if (twice) {
            assert_null(value);
            assert_says(e, "key777");
        } else {
            assert_ok(value, e);
        }
        cJSON_Delete(value);
        str_free(&s);
    }
}

static void test_large_text(void **state) {
    (void)state;
    size_t n = 32u << 20;
    char  *text = malloc(n);
    for (size_t i = 0; i < n; i++) {
        text[i] = "some words of a long prompt, then more "[i % 39];
    }
    memcpy(text, "{\"a\":\"", 6);
    memcpy(text + n - 2, "\"}", 2);
    err     e = {0};
    int64_t start = clock_us();
    cJSON  *value = json_parse(text, n, JSON_MAX_DEPTH, &e);
    print_message("32 MiB of text parsed in %lld us\n", (long long)(clock_us() - start));
    assert_ok(value, e);
    assert_int_equal(strlen(cJSON_GetObjectItemCaseSensitive(value, "a")->valuestring), n - 8);
    cJSON_Delete(value);
    text[n - 3] = '\xFF';
    assert_null(json_parse(text, n, JSON_MAX_DEPTH, &e));
    assert_says(e, "33554429");
    free(text);
}

/* Every byte of a string at every distance from the eight-byte step. */
static void test_string_bytes(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        for (int before = 0; before < 17; before++) {
            char text[64];
            memset(text, 'x', sizeof(text));
            text[0] = '"';
            text[1 + before] = (char)c;
            text[30] = '"';
            cJSON *value = json_parse(text, 31, JSON_MAX_DEPTH, NULL);
            bool   good = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
            if (!!value != good) {
                fail_msg("byte 0x%02x at %d: %s", (unsigned)c, before, value ? "accepted" : "refused");
            }
            cJSON_Delete(value);
        }
    }
}

static void test_mutations(void **state) {
    (void)state;
    static const char seed[] =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9 \\ud83d\\ude00\"}],"
        "\"n\":1,\"temperature\":0.7e-1,\"stop\":[\"a\",null,true,false],\"x\":{\"y\":{}}}";
    uint64_t random = 1;
    for (int i = 0; i < 50000; i++) {
        char   text[sizeof(seed)];
        size_t n = sizeof(seed) - 1;
        memcpy(text, seed, n);
        for (uint64_t k = test_random(&random) % 4 + 1; k; k--) {
            text[test_random(&random) % n] = (char)test_random(&random);
        }
        n -= test_random(&random) % 8 == 0 ? test_random(&random) % n : 0;
        char *exact = malloc(n);
        memcpy(exact, text, n);
        cJSON *value = json_parse(exact, n, JSON_MAX_DEPTH, NULL);
        free(exact);
        if (value) { /* what is accepted survives writing and reading */
            str    out = {0};
            str    again = {0};
            err    e = {0};
            cJSON *back = NULL;
            assert_true(json_canonical(value, &out));
            back = json_parse(out.data, out.len, JSON_MAX_DEPTH, &e);
            assert_ok(back, e);
            assert_true(json_canonical(back, &again));
            assert_string_equal(out.data, again.data);
            cJSON_Delete(back);
            str_free(&out);
            str_free(&again);
        }
        cJSON_Delete(value);
    }
}

static void test_getters(void **state) {
    (void)state;
    err         e = {0};
    cJSON      *o = parse("{\"b\":true,\"i\":7,\"big\":1e300,\"f\":1.5,\"s\":\"text\",\"n\":null,\"neg\":-3}", &e);
    bool        b = false;
    int64_t     i = 42;
    double      d = 0.25;
    const char *s = "default";
    assert_ok(json_get_bool(o, "", "b", &b, &e) && b, e);
    assert_ok(json_get_int(o, "", "i", 0, 10, &i, &e) && i == 7, e);
    assert_ok(json_get_number(o, "", "f", 0, 2, &d, &e) && d == 1.5, e);
    assert_ok(json_get_string(o, "", "s", &s, &e) && strcmp(s, "text") == 0, e);
    i = 42;
    assert_true(json_get_int(o, "", "n", 0, 10, &i, &e) && i == 42);       /* null is absent */
    assert_true(json_get_int(o, "", "missing", 0, 10, &i, &e) && i == 42); /* so is nothing */
    assert_false(json_get_int(o, "messages[2]", "s", 0, 10, &i, &e));
    assert_string_equal(e.param, "messages[2].s");
    assert_says(e, "messages[2].s must be an integer, not a string");
    assert_false(json_get_int(o, "", "big", INT64_MIN, INT64_MAX, &i, &e));
    assert_false(json_get_int(o, "", "f", 0, 10, &i, &e));
    assert_false(json_get_int(o, "", "neg", 0, 10, &i, &e));
    assert_string_equal(e.param, "neg");
    assert_false(json_get_number(o, "", "f", 0, 1, &d, &e));
    assert_false(json_get_number(o, "", "b", 0, 1, &d, &e));
    assert_false(json_get_bool(o, "", "i", &b, &e));
    assert_false(json_get_string(o, "", "i", &s, &e));
    assert_int_equal(i, 42);
    assert_false(json_get_string(o, "", "i", &s, NULL));
    cJSON_Delete(o);
}

static void same(const char *text, const char *wanted, bool canonical) {
    err    e = {0};
    str    out = {0};
    cJSON *value = parse(text, &e);
    assert_ok(value, e);
    assert_true(canonical ? json_canonical(value, &out) : json_write(value, &out));
    assert_string_equal(out.data, wanted);
    str_free(&out);
    cJSON_Delete(value);
}

static void test_writing(void **state) {
    (void)state;
    same("{ \"b\" : 1.0, \"a\" : [1e2, 0.1, -0, 1e21] , \"A\":{\"z\":null,\"y\":false} }",
         "{\"A\":{\"y\":false,\"z\":null},\"a\":[100,0.1,0,1e+21],\"b\":1}", true);
    same("{\"b\":1,\"a\":2}", "{\"b\":1,\"a\":2}", false);
    same("9007199254740992", "9007199254740992", true);
    same("0.30000000000000004", "0.30000000000000004", true);
    same("\"\\u0001\\u001f\\\"\\\\/\\u00e9\\n\"", "\"\\u0001\\u001f\\\"\\\\/\xC3\xA9\\n\"", true);
    str text = {0};
    str back = {0};
    str_addc(&text, '{'); /* more members than fit on the stack */
    for (int i = 99; i >= 10; i--) {
        str_addf(&text, "\"k%d\":%d%s", i, i, i > 10 ? "," : "}");
    }
    cJSON *value = json_parse(text.data, text.len, JSON_MAX_DEPTH, NULL);
    assert_true(json_canonical(value, &back));
    assert_memory_equal(back.data, "{\"k10\":10,\"k11\":11,", 19);
    assert_int_equal(back.len, text.len);
    cJSON_Delete(value);
    str_free(&text);
    str_free(&back);
    cJSON *number = cJSON_CreateNumber(NAN);
    assert_true(json_write(number, &back));
    assert_string_equal(back.data, "null");
    cJSON_Delete(number);
    str_free(&back);
}

/* No digit of an integer is lost between reading and writing, and no two of them are the same. */
static void test_long_integers(void **state) {
    (void)state;
    same("9007199254740993", "9007199254740993", true);
    same("[\"1234567890123456789\",{\"12345678901234567890\":-12345678901234567890},1,[18446744073709551615,2.5],"
         "9007199254740994]",
         "[\"1234567890123456789\",{\"12345678901234567890\":-12345678901234567890},1,[18446744073709551615,2.5],"
         "9007199254740994]",
         true);
    same("{\"b\":100000000000000000001,\"a\":0.12345678901234567}",
         "{\"a\":0.12345678901234566,\"b\":100000000000000000001}", true);
    err    e = {0};
    cJSON *value = parse("{\"x\":9007199254740993}", &e), *copy = cJSON_Duplicate(value, true);
    str    text = {0};
    json_write(copy, &text);
    assert_string_equal(text.data, "{\"x\":9007199254740993}");
    cJSON_SetNumberValue(cJSON_GetObjectItem(copy, "x"), 5); /* no longer what was read */
    str_clear(&text);
    json_write(copy, &text);
    assert_string_equal(text.data, "{\"x\":5}");
    cJSON_Delete(value);
    cJSON_Delete(copy);
    str_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_integers), cmocka_unit_test(test_refuses),      cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_depth),         cmocka_unit_test(test_many_values),  cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_large_text),    cmocka_unit_test(test_string_bytes), cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_getters),       cmocka_unit_test(test_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
