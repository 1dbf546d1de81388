#include "check.h"

#include "base/config.h"
#include "base/str.h"

static config *parse(const char *text, err *e) {
    return config_parse("pare.yaml", text, strlen(text), e);
}

static const char *const known[] = {"listen", "models", "cache", "threads", NULL};

static void test_unknown_key(void **state) {
    (void)state;
    err     e = {0};
    config *c = parse("# a comment\nlisten: 127.0.0.1:7273\n\nmodles:\n  a: b\n", &e);
    assert_ok(c, e);
    assert_false(config_known(c, config_root(c), known, &e));
    assert_string_equal(e.text, "pare.yaml:4: unknown key \"modles\"; did you mean \"models\"?");
    config_free(c);
    c = parse("listen: x\nzzzzzzzzzzz: 1\n", &e);
    assert_false(config_known(c, config_root(c), known, &e));
    assert_says(e, "pare.yaml:2: unknown key \"zzzzzzzzzzz\"; known here: listen, models, cache, threads");
    config_free(c);
    c = parse("listen: x\ncache:\n", &e);
    assert_true(config_known(c, config_root(c), known, &e));
    assert_true(config_known(c, config_get(config_root(c), "cache"), known, &e)); /* empty: nothing unknown in it */
    assert_false(config_known(c, config_get(config_root(c), "listen"), known, &e));
    config_free(c);
}

static void test_tree(void **state) {
    (void)state;
    err     e = {0};
    config *c = parse("models:\n  - name: a\n    file: x.gguf\n  - name: b\nflow: {a: [1, 2, 3], b: \"q: #\"}\n", &e);
    assert_ok(c, e);
    const config_node *root = config_root(c);
    assert_int_equal(config_kind_of(root), CONFIG_MAPPING);
    assert_int_equal(config_count(root), 2);
    assert_string_equal(config_key(root, 1), "flow");
    const config_node *models = config_get(root, "models");
    assert_int_equal(config_kind_of(models), CONFIG_SEQUENCE);
    assert_int_equal(config_count(models), 2);
    assert_int_equal(config_line(models), 1);
    assert_int_equal(config_line(config_item(models, 1)), 4);
    assert_null(config_item(models, 2));
    assert_null(config_key(models, 0));
    assert_null(config_get(models, "name"));
    assert_null(config_get(NULL, "name"));
    const char *text = "default";
    assert_ok(config_string(c, config_item(models, 0), "file", &text, &e), e);
    assert_string_equal(text, "x.gguf");
    assert_true(config_string(c, config_item(models, 1), "file", &text, &e)); /* absent: left alone */
    assert_string_equal(text, "x.gguf");
    assert_false(config_string(c, root, "models", &text, &e));
    assert_says(e, "pare.yaml:1: models must be a single value, not a list");
    assert_ok(config_string(c, config_get(root, "flow"), "b", &text, &e), e);
    assert_string_equal(text, "q: #");
    config_free(c);
    config_free(NULL);
}

static void test_values(void **state) {
    (void)state;
    err     e = {0};
    config *c = parse("i: 12\nneg: -3\nf: 0.5\nt: true\nq: '12'\nsize: 256MiB\nwait: 500ms\nbig: 99999999999999999999\n"
                      "word: abc\nempty:\nhex: 0x10\nnan: nan\n",
                      &e);
    assert_ok(c, e);
    const config_node *r = config_root(c);
    int64_t            i = 1;
    double             d = 1;
    bool               b = false;
    const char        *s = "old";
    assert_ok(config_int(c, r, "i", 0, 100, &i, &e) && i == 12, e);
    assert_ok(config_number(c, r, "f", 0, 1, &d, &e) && d == 0.5, e);
    assert_ok(config_number(c, r, "i", 0, 100, &d, &e) && d == 12, e);
    assert_ok(config_bool(c, r, "t", &b, &e) && b, e);
    assert_ok(config_string(c, r, "q", &s, &e) && strcmp(s, "12") == 0, e);
    assert_ok(config_size(c, r, "size", &i, &e) && i == 256 << 20, e);
    assert_ok(config_duration(c, r, "wait", &i, &e) && i == 500000, e);
    assert_ok(config_string(c, r, "empty", &s, &e) && strcmp(s, "12") == 0, e);
    i = 1;
    assert_false(config_int(c, r, "neg", 0, 100, &i, &e));
    assert_string_equal(e.text, "pare.yaml:2: neg must lie between 0 and 100, not -3");
    assert_false(config_int(c, r, "q", 0, 100, &i, &e)); /* quoted: a text */
    assert_false(config_int(c, r, "f", 0, 100, &i, &e));
    assert_false(config_int(c, r, "big", INT64_MIN, INT64_MAX, &i, &e));
    assert_false(config_int(c, r, "word", 0, 100, &i, &e));
    assert_false(config_int(c, r, "hex", 0, 100, &i, &e));
    assert_false(config_number(c, r, "nan", 0, 100, &d, &e));
    assert_false(config_number(c, r, "word", 0, 100, &d, &e));
    assert_false(config_bool(c, r, "i", &b, &e));
    assert_false(config_size(c, r, "word", &i, &e));
    assert_false(config_duration(c, r, "i", &i, &e));
    assert_says(e, "pare.yaml:1: i must be a duration such as");
    assert_int_equal(i, 1);
    config_free(c);
}

static void test_environment(void **state) {
    (void)state;
    err e = {0};
    setenv("PARE_TEST_KEY", "s$cret${x}", 1);
    setenv("PARE_TEST_PORT", "8080", 1);
    setenv("PARE_TEST_EMPTY", "", 1);
    unsetenv("PARE_TEST_NONE");
    config *c =
        parse("a: pre-${PARE_TEST_KEY}-post\nb: $$5 and $5 $\nport: ${PARE_TEST_PORT}\nq: '${PARE_TEST_EMPTY}'\n", &e);
    assert_ok(c, e);
    const char *text = NULL;
    int64_t     port = 0;
    config_string(c, config_root(c), "a", &text, &e);
    assert_string_equal(text, "pre-s$cret${x}-post"); /* what comes in is not read again */
    config_string(c, config_root(c), "b", &text, &e);
    assert_string_equal(text, "$5 and $5 $");
    config_string(c, config_root(c), "q", &text, &e);
    assert_string_equal(text, "");
    assert_ok(config_int(c, config_root(c), "port", 1, 65535, &port, &e) && port == 8080, e);
    config_free(c);
    assert_null(parse("a: 1\nkey: ${PARE_TEST_NONE}\n", &e));
    assert_string_equal(e.text, "pare.yaml:2: the environment variable PARE_TEST_NONE is not set");
    assert_null(parse("a: ${PARE_TEST_PORT\n", &e));
    assert_null(parse("a: ${}\n", &e));
}

static void test_refuses(void **state) {
    (void)state;
    static const char *const bad[] = {
        "a: &x 1\n",    "a: &x [1]\nb: *x\n", "a: *x\n",      "a: !!int 1\n", "a: !mine {}\n", "a: 1\n---\nb: 2\n",
        "a: 1\na: 2\n", "[a]: 1\n",           "{a: 1}: 2\n",  "a: [1\n",      "a: \"x\n",      "\ta: 1\n",
        "a: b: c\n",    "a: \"\\0\"\n",       "\"\\0\": 1\n", "a: \xFF\n",    "&x a: 1\n",     "a: 1\n...\nb\n",
        "%FOO\n",       "a: {b: 1\n",         "- a\nb: 1\n",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        err     e = {0};
        config *c = parse(bad[i], &e);
        if (c) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_says(e, "pare.yaml:");
        assert_null(parse(bad[i], NULL));
    }
    static const char *const empty[] = {"", "\n", "# only this\n", "---\n", "~\n"};
    for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
        err     e = {0};
        config *c = parse(empty[i], &e);
        assert_ok(c, e);
        assert_null(config_root(c));
        int64_t n = 5;
        assert_true(config_int(c, config_root(c), "n", 0, 9, &n, &e) && n == 5);
        assert_true(config_known(c, config_root(c), known, &e));
        config_free(c);
    }
}

static void test_bounds(void **state) {
    (void)state;
    err e = {0};
    str s = {0};
    for (int i = 0; i < 200000; i++) {
        str_addc(&s, '[');
    }
    assert_null(config_parse("deep", s.data, s.len, &e));
    assert_says(e, "deep:1: nested deeper than 32 levels");
    str_clear(&s);
    for (int i = 0; i < 150000; i++) {
        str_adds(&s, "- 1\n");
    }
    assert_null(config_parse("many", s.data, s.len, &e));
    assert_says(e, "more than 100000 values");
    str_clear(&s);
    for (int i = 0; i < 300000; i++) {
        str_adds(&s, "# comment\n");
    }
    assert_null(config_parse("large", s.data, s.len, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    str_free(&s);
    assert_null(config_load("/nonexistent/pare.yaml", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_null(config_load("tests", &e)); /* a folder */
}

static void test_mutations(void **state) {
    (void)state;
    static const char seed[] =
        "listen: 127.0.0.1:1\nmodels:\n  - {name: 'a', file: \"b\\n\"}\n  - name: |\n      text\n"
        "cache: {ttl: 24h, on: true}\n";
    uint64_t random = 5;
    for (int i = 0; i < 20000; i++) {
        char   text[sizeof(seed)];
        size_t n = sizeof(seed) - 1;
        memcpy(text, seed, n);
        for (uint64_t k = test_random(&random) % 3 + 1; k; k--) {
            text[test_random(&random) % n] =
                (char)(test_random(&random) % 2 ? "{}[]:,-?&*!|>'\"%@`# \n\t"[test_random(&random) % 23]
                                                : (char)test_random(&random));
        }
        err     e = {0};
        config *c = config_parse("f", text, n, &e);
        assert_true(c || e.text[0]);
        config_free(c);
    }
}

static void test_units(void **state) {
    (void)state;
    int64_t v = 0;
    assert_true(parse_size("64KiB", &v) && v == 65536);
    assert_true(parse_size("8G", &v) && v == 8LL << 30);
    assert_true(parse_size("10MB", &v) && v == 10000000);
    assert_true(parse_size("123", &v) && v == 123);
    assert_true(parse_duration("30s", &v) && v == 30000000);
    assert_true(parse_duration("10m", &v) && v == 600000000);
    assert_true(parse_duration("24h", &v) && v == 86400000000);
    assert_true(parse_duration("7d", &v) && v == 604800000000);
    assert_true(parse_duration("0", &v) && v == 0);
    v = 77;
    static const char *const bad[] = {"",      "G",  "-1G", "1.5G", "1 G", "1g", "99999999999G", "9223372036854775808",
                                      "1GiBB", "+1", " 1",  "0x1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(parse_size(bad[i], &v));
        assert_false(parse_duration(bad[i], &v));
    }
    assert_false(parse_duration("5", &v));
    assert_false(parse_duration("200000000d", &v));
    assert_int_equal(v, 77);
}

static void test_nearest(void **state) {
    (void)state;
    assert_string_equal(nearest_name("model", known), "models");
    assert_string_equal(nearest_name("lsiten", known), "listen");
    assert_string_equal(nearest_name("cahce", known), "cache");
    assert_string_equal(nearest_name("thread", known), "threads");
    assert_null(nearest_name("x", known));
    assert_null(nearest_name("", known));
    assert_null(nearest_name("completely", known));
    char long_name[500];
    memset(long_name, 'a', sizeof(long_name));
    long_name[499] = '\0';
    assert_null(nearest_name(long_name, known));
    const char *const long_known[] = {long_name, NULL};
    assert_null(nearest_name("aaa", long_known));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_key), cmocka_unit_test(test_tree),    cmocka_unit_test(test_values),
        cmocka_unit_test(test_environment), cmocka_unit_test(test_refuses), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_mutations),   cmocka_unit_test(test_units),   cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
