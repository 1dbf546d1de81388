/* json_parse against its plain reference: the same texts are taken, and the trees are the same. */
#include "check.h"

#include <math.h>

#include "base/json.h"
#include "base/json_plain.h"

static void compare(const char *text, size_t n, int max_depth) {
    err    e = {0};
    char  *exact = malloc(n ? n : 1); /* no NUL behind it: the sanitizer sees a read too far */
    cJSON *want, *got;
    memcpy(exact, text, n);
    want = plain_parse(exact, n, max_depth);
    got = json_parse(exact, n, max_depth, &e);
    if (!want != !got || (want && !plain_same(got, want))) {
        fail_msg("%s: %.*s (%s)", want ? got ? "another tree" : "refused" : "accepted", (int)n, text, e.text);
    }
    if (!got) {
        assert_true(e.code != ERR_NONE && e.text[0]);
    }
    free(exact);
    cJSON_Delete(want);
    cJSON_Delete(got);
}

static void same(const char *text) {
    compare(text, strlen(text), JSON_MAX_DEPTH);
}

/* ---- Random documents ---- */

typedef struct maker {
    uint64_t random;
    str      out;
    int      depth;
} maker;

static uint64_t below(maker *m, uint64_t n) {
    return test_random(&m->random) % n;
}

static void make_blanks(maker *m) {
    while (below(m, 8) == 0) {
        str_addc(&m->out, " \n\r\t"[below(m, 4)]);
    }
}

static void make_string(maker *m) {
    static const char *const pieces[] = {
        "a",
        "role",
        "content",
        " and more words than eight bytes ",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\b",
        "\\f",
        "\\r",
        "\\t",
        "\\u00e9",
        "\\u0041",
        "\\u20AC",
        "\\ud83d\\ude00",
        "\xC3\xA9",
        "\xE2\x82\xAC",
        "\xF0\x9F\x98\x80",
        "\x7F",
        "\\uDBFF\\uDFFF",
        "/",
        "{",
        "]",
    };
    str_addc(&m->out, '"');
    for (uint64_t n = below(m, below(m, 20) ? 4 : 40); n; n--) {
        str_adds(&m->out, pieces[below(m, sizeof(pieces) / sizeof(pieces[0]))]);
    }
    str_addc(&m->out, '"');
}

static void make_digits(maker *m, uint64_t n) {
    for (; n; n--) {
        str_addc(&m->out, (char)('0' + below(m, 10)));
    }
}

static void make_number(maker *m) {
    str_adds(&m->out, below(m, 3) ? "" : "-");
    if (below(m, 3)) {
        str_addc(&m->out, (char)('1' + below(m, 9)));
        make_digits(m, below(m, below(m, 4) ? 5 : 24));
    } else {
        str_addc(&m->out, '0');
    }
    if (below(m, 2)) {
        str_addc(&m->out, '.');
        make_digits(m, 1 + below(m, below(m, 2) ? 4 : 26));
    }
    if (below(m, 5) == 0) {
        str_adds(&m->out, below(m, 2) ? "e" : "E");
        str_adds(&m->out, below(m, 2) ? "" : below(m, 2) ? "+" : "-");
        make_digits(m, 1 + below(m, 3));
    }
}

static void make_key(maker *m, uint64_t i) {
    static const char *const keys[] = {
        "role",       "content",     "model",         "messages", "id", "finish_reason",
        "max_tokens", "temperature", "r\\u006fle",    "i\\u0064", "k",  "completion_tokens_details",
        "logit_bias", "tool_calls",  "prompt_tokens", "key"};
    if (below(m, 3) == 0) {
        make_string(m);
        return;
    }
    const char *key = keys[below(m, sizeof(keys) / sizeof(keys[0]))];
    bool        plain = below(m, 16) == 0; /* most get a number, so that few objects have a key twice */
    plain ? str_addf(&m->out, "\"%s\"", key) : str_addf(&m->out, "\"%s%d\"", key, (int)i);
}

static void make_value(maker *m);

static void make_members(maker *m, bool object) {
    uint64_t n = below(m, below(m, 10) ? 4 : 30);
    m->depth++;
    str_addc(&m->out, object ? '{' : '[');
    for (uint64_t i = 0; i < n; i++) {
        str_adds(&m->out, i ? "," : "");
        make_blanks(m);
        if (object) {
            make_key(m, i);
            make_blanks(m);
            str_addc(&m->out, ':');
        }
        make_value(m);
    }
    make_blanks(m);
    str_addc(&m->out, object ? '}' : ']');
    m->depth--;
}

static void make_value(maker *m) {
    make_blanks(m);
    switch (below(m, m->depth < 6 ? 8 : 5)) {
    case 0:
    case 1:
        make_number(m);
        break;
    case 2:
        str_adds(&m->out, below(m, 3) == 0 ? "null" : below(m, 2) ? "true" : "false");
        break;
    case 3:
    case 4:
        make_string(m);
        break;
    default:
        make_members(m, below(m, 3) > 0);
    }
    make_blanks(m);
}

static void test_random_documents(void **state) {
    (void)state;
    maker m = {.random = 7};
    int   good = 0;
    for (int i = 0; i < 30000; i++) {
        str_clear(&m.out);
        make_value(&m);
        compare(m.out.data, m.out.len, JSON_MAX_DEPTH);
        cJSON *value = json_parse(m.out.data, m.out.len, JSON_MAX_DEPTH, NULL);
        good += value != NULL;
        cJSON_Delete(value);
        for (uint64_t k = below(&m, 4); k; k--) {
            static const char bytes[] = "{}[]\",:\\u0019eE+-.\n\t\x01\x80\xC3\xFF /ntfd";
            size_t            at = below(&m, m.out.len);
            m.out.data[at] = below(&m, 4) ? bytes[below(&m, sizeof(bytes))] : (char)below(&m, 256);
            compare(m.out.data, below(&m, 4) ? m.out.len : at, JSON_MAX_DEPTH);
        }
    }
    print_message("%d of 30000 documents are valid\n", good);
    assert_in_range(good, 15000, 30000);
    str_free(&m.out);
}

/* ---- Numbers ---- */

/* Every way to a double gives the bits that strtod gives. */
static void test_random_numbers(void **state) {
    (void)state;
    maker m = {.random = 11};
    for (int i = 0; i < 300000; i++) {
        str_clear(&m.out);
        make_number(&m);
        cJSON *value = json_parse(m.out.data, m.out.len, 1, NULL);
        double want = strtod(m.out.data, NULL);
        if (m.out.len > 60 || want > 1.7976931348623157e308 || want < -1.7976931348623157e308) {
            assert_null(value);
        } else if (!value || memcmp(&value->valuedouble, &want, sizeof(want)) != 0) {
            fail_msg("%s", m.out.data);
        }
        cJSON_Delete(value);
    }
    str_free(&m.out);
}

static void test_edge_numbers(void **state) {
    (void)state;
    static const char *const numbers[] = {
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "-9007199254740993",
        "9999999999999999999",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999",
        "0.9007199254740993",
        "0.9007199254740992",
        "9007199254740.993",
        "2147483647",
        "2147483648",
        "-2147483648",
        "-2147483649",
        "2147483647.5",
        "-0",
        "-0.0",
        "0.1",
        "0.30000000000000004",
        "1e22",
        "1e23",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "5e-324",
        "2e-324",
        "2.2250738585072011e-308",
        "0.000000000000000001",
        "0.0000000000000000001",
        "1000000000000000000000000000000000000000000000000000000000000",
        "10000000000000000000000000000000000000000000000000000000000000",
        "0.1234567890123456789012345678901234567890123456789012345678",
        "0.12345678901234567890123456789012345678901234567890123456789",
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        same(numbers[i]);
    }
}

/* ---- Escapes, keys, bounds ---- */

static void test_every_escape(void **state) {
    (void)state;
    char text[32];
    for (int c = 0; c < 256; c++) {
        snprintf(text, sizeof(text), "\"\\%c\"", c ? c : 1);
        same(text);
    }
    for (int code = 0; code < 0x10000; code += code % 0x400 < 2 || code % 0x400 > 0x3FD ? 1 : 37) {
        snprintf(text, sizeof(text), "\"\\u%04x\"", (unsigned)code);
        same(text);
        snprintf(text, sizeof(text), "\"\\ud83d\\u%04X\"", (unsigned)code);
        same(text);
        snprintf(text, sizeof(text), "\"\\u%04x\\udc00\"", (unsigned)code);
        same(text);
    }
    static const char whole[] = "[\"\\ud83d\\ude00\"]"; /* every place where it can end */
    for (size_t n = 0; n < sizeof(whole); n++) {
        compare(whole, n, JSON_MAX_DEPTH);
    }
}

static void test_keys_twice(void **state) {
    (void)state;
    same("{\"role\":1,\"r\\u006fle\":2}");
    same("{\"r\\u006fle\":1,\"role\":2}");
    same("{\"other\":1,\"oth\\u0065r\":2}");
    same("{\"\":1,\"\":2}");
    same("{\"\":1,\"a\":2}");
    for (int n = 1; n < 40;
         n++) { /* around the step from comparing to a table; the same key as the first or the last */
        for (int twice = -1; twice < n; twice++) {
            str s = {0};
            for (int i = 0; i < n; i++) {
                str_addf(&s, "%c\"key%d\":%d", i ? ',' : '{', i, i);
            }
            str_addf(&s, ",\"key%d\":1}", twice < 0 ? n : twice);
            compare(s.data, s.len, JSON_MAX_DEPTH);
            str_free(&s);
        }
    }
}

static void test_bounds(void **state) {
    (void)state;
    for (int depth = 1; depth < 6; depth++) {
        compare("[[[1]]]", 7, depth);
        compare("{\"a\":[{}]}", 10, depth);
    }
    for (int over = 0; over < 2; over++) {
        str s = {0};
        str_addc(&s, '[');
        for (int i = 0; i < JSON_MAX_VALUES - 1 + over; i++) {
            str_adds(&s, "1,");
        }
        str_adds(&s, "1]");
        cJSON *value = json_parse(s.data, s.len, JSON_MAX_DEPTH, NULL);
        cJSON *want = plain_parse(s.data, s.len, JSON_MAX_DEPTH);
        assert_int_equal(value == NULL, over);
        assert_int_equal(want == NULL, over);
        cJSON_Delete(value);
        cJSON_Delete(want);
        str_free(&s);
    }
}

/* ---- The tree is cJSON's ---- */

static void test_tree_works(void **state) {
    (void)state;
    static const char text[] = "{\"role\":\"user\",\"mine\":[1,\"two\"],\"content\":\"a\\nb\",\"n\":64}";
    cJSON            *value = json_parse(text, sizeof(text) - 1, JSON_MAX_DEPTH, NULL);
    cJSON            *copy = cJSON_Duplicate(value, true);
    assert_true(cJSON_Compare(value, copy, true));
    assert_non_null(cJSON_SetValuestring(cJSON_GetObjectItem(value, "content"), "a text that is longer than before"));
    assert_true(cJSON_ReplaceItemInObjectCaseSensitive(value, "role", cJSON_CreateString("system")));
    cJSON *mine = cJSON_DetachItemFromObjectCaseSensitive(value, "mine");
    cJSON *role = cJSON_DetachItemFromObjectCaseSensitive(copy, "role");
    cJSON_Delete(cJSON_DetachItemFromArray(mine, 0));
    assert_true(cJSON_AddItemToObject(value, "theirs", mine));
    assert_true(cJSON_AddItemToObject(value, "second role", role));
    assert_true(cJSON_AddNumberToObject(value, "more", 3));
    char *written = cJSON_PrintUnformatted(value);
    assert_string_equal(written, "{\"role\":\"system\",\"content\":\"a text that is longer than before\","
                                 "\"n\":64,\"theirs\":[\"two\"],\"second role\":\"user\",\"more\":3}");
    cJSON_free(written);
    cJSON_Delete(value);
    written = cJSON_PrintUnformatted(copy); /* lives on its own */
    assert_string_equal(written, "{\"mine\":[1,\"two\"],\"content\":\"a\\nb\",\"n\":64}");
    cJSON_free(written);
    cJSON_Delete(copy);
}

static void test_member(void **state) {
    (void)state;
    cJSON *object = cJSON_Parse("{\"role\":1,\"rule\":2,\"\":3}");
    cJSON *array = cJSON_Parse("[1,2]");
    assert_int_equal(json_member(object, "rule")->valueint, 2);
    assert_int_equal(json_member(object, "role")->valueint, 1);
    assert_int_equal(json_member(object, "")->valueint, 3);
    assert_null(json_member(object, "ro"));
    assert_null(json_member(object, "Role"));
    assert_null(json_member(array, "role"));
    assert_null(json_member(NULL, "role"));
    cJSON_Delete(object);
    cJSON_Delete(array);
}

/* ---- Writing ---- */

/* As json_canonical wrote every number once: an integer up to 2^53 in full, else the fewest digits that read back. */
static void write_plainly(double d, char out[40]) {
    if (d == floor(d) && fabs(d) <= 0x1p53) {
        snprintf(out, 40, "%lld", (long long)d);
        return;
    }
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(out, 40, "%.*g", precision, d);
        if (strtod(out, NULL) == d) {
            return;
        }
    }
}

static void write_both(double d) {
    char   want[40];
    str    got = {0};
    cJSON *number = cJSON_CreateNumber(d);
    write_plainly(d, want);
    assert_true(json_write(number, &got));
    assert_string_equal(got.data, want);
    cJSON_Delete(number);
    str_free(&got);
}

static void test_writes_numbers(void **state) {
    (void)state;
    static const double edges[] = {0,
                                   -0.0,
                                   0.1,
                                   0.7,
                                   0.0001,
                                   0.00012,
                                   0.00009,
                                   0x1p53,
                                   -0x1p53,
                                   0x1p53 + 2,
                                   0x1p63,
                                   1e15 - 0.5,
                                   1e14 + 0.5,
                                   123456789012345.6,
                                   99999999999999.9,
                                   0.1 + 0.2,
                                   1.0 / 3,
                                   5e-324,
                                   1.7976931348623157e308,
                                   0.123456789,
                                   0.1234567891,
                                   1e21};
    maker               m = {.random = 13};
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        write_both(edges[i]);
        write_both(nextafter(edges[i], 1e300));
        write_both(-edges[i]);
    }
    for (int i = 0; i < 200000; i++) {
        double   tens = (double[]){1, 10, 100, 1e3, 1e4, 1e6, 1e9, 1e12}[below(&m, 8)];
        uint64_t bits = test_random(&m.random);
        double   d;
        memcpy(&d, &bits, sizeof(d));
        if (isfinite(d)) {
            write_both(d);
        }
        d = (double)(int64_t)(bits >> below(&m, 64)) / tens; /* a decimal of some length */
        write_both(d);
        write_both(-d);
    }
}

/* Each place of each escape in strings of every length around the steps of eight and 64 bytes. */
static void test_writes_strings(void **state) {
    (void)state;
    maker m = {.random = 17};
    for (int i = 0; i < 20000; i++) {
        char   text[300];
        size_t n = below(&m, 4) ? below(&m, 24) : below(&m, sizeof(text));
        for (size_t k = 0; k < n; k++) {
            text[k] = (char)(below(&m, 20) ? 'a' + (int)below(&m, 26) : 1 + (int)below(&m, 0x7E));
        }
        str    out = {0};
        cJSON *back;
        assert_true(str_json(&out, text, n));
        back = plain_parse(out.data, out.len, 1);
        assert_non_null(back);
        assert_int_equal(strlen(back->valuestring), n);
        assert_memory_equal(back->valuestring, text, n);
        for (size_t k = 0; k < n; k++) {
            size_t plain = 0;
            while (k + plain < n && text[k + plain] != '"' && text[k + plain] != '\\' &&
                   (unsigned char)text[k + plain] >= 0x20) {
                plain++;
            }
            assert_int_equal(str_json_plain(text + k, n - k), plain);
        }
        cJSON_Delete(back);
        str_free(&out);
    }
}

static void says(const char *text, const char *wanted) {
    err e = {0};
    assert_null(json_parse(text, strlen(text), JSON_MAX_DEPTH, &e));
    assert_says(e, wanted);
}

static void test_sentences(void **state) {
    (void)state;
    says("", "the text is empty");
    says("  ", "ends too early, at byte 2");
    says("[1,2", "ends too early, at byte 4");
    says("[1;2]", "unexpected ; at byte 2");
    says("[1\f]", "unexpected byte 0x0c at byte 2");
    says("{\"a\":tru}", "unexpected t at byte 5");
    says("[01]", "bad number at byte 1");
    says("[1e999]", "too large for a double");
    says("[\"abc", "the string that begins at byte 1 has no end");
    says("\"a\\", "the string that begins at byte 0 has no end");
    says("\"a\nb\"", "unescaped control character at byte 2");
    says("\"\\u12g4\"", "\\u needs four hex digits at byte 1");
    says("\"a\\u0000\"", "NUL character (\\u0000) at byte 2");
    says("\"\\ud800x\"", "half a surrogate pair at byte 1");
    says("\"\\x\"", "unknown escape at byte 1");
    says("{\"role\":1,\"b\":2,\"role\":3}", "the key \"role\" stands twice");
    says("1 2", "unexpected 2 at byte 2");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_documents), cmocka_unit_test(test_random_numbers),
        cmocka_unit_test(test_edge_numbers),     cmocka_unit_test(test_every_escape),
        cmocka_unit_test(test_keys_twice),       cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_tree_works),       cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_writes_numbers),   cmocka_unit_test(test_writes_strings),
        cmocka_unit_test(test_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
