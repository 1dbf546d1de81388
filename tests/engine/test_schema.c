/* JSON Schema: every text of the grammar satisfies the schema, values that satisfy it can be written, and what cannot be
 * kept is refused. */
#include "check.h"

#include "base/clock.h"
#include "engine/mask_machine.h"
#include "schema_check.h"

static uint64_t random_state = 5;

static cJSON *parse(const char *text) {
    err    e = {0};
    cJSON *v = json_parse(text, strlen(text), JSON_MAX_DEPTH, &e);
    assert_ok(v, e);
    return v;
}

static grammar *compile(const char *text, const schema_options *o, err *e) {
    cJSON   *schema = parse(text);
    grammar *g = grammar_from_schema(schema, o, e);
    cJSON_Delete(schema);
    return g;
}

/* Random bytes that the grammar allows; after a while those that end things. Returns the length. */
static size_t random_text(machine *m, char *text, size_t room) {
    int state = machine_begin(m);
    for (size_t n = 0; n < room; n++) {
        int good[256], n_good = 0;
        for (int cl = 0; cl < m->g->n_classes; cl++) {
            if (machine_step(m, state, cl) != STATE_DEAD) {
                good[n_good++] = cl;
            }
        }
        bool ends = machine_flags(m, state) & STATE_ENDS;
        if (ends && (n_good == 0 || n > 60 || test_random(&random_state) % 8 == 0)) {
            return n;
        }
        assert_true(n_good > 0);
        int               cl = good[test_random(&random_state) % (uint64_t)n_good];
        static const char closers[] = "]}\"";
        for (int i = 0; n > 60 && i < n_good * 3; i++) { /* the quote is the last that is tried */
            cl = m->g->byte_of[good[i % n_good]] == closers[i / n_good] ? good[i % n_good] : cl;
        }
        uint8_t byte;
        do { /* any byte of the class */
            byte = (uint8_t)test_random(&random_state);
        } while (m->g->class_of[byte] != cl);
        text[n] = (char)byte;
        state = machine_tidy(m, machine_step(m, state, cl));
    }
    return room;
}

static void test_texts_hold(void **unused) {
    (void)unused;
    for (size_t i = 0; i < 3 * SCHEMA_SAMPLES; i++) {
        err            e = {0};
        machine        m;
        char           text[4096];
        cJSON         *schema = parse(schema_samples[i / 3]);
        schema_options o = {.space = (json_space)(i % 3)};
        grammar       *g = grammar_from_schema(schema, &o, &e);
        int            whole = 0;
        assert_ok(g, e);
        assert_ok(machine_init(&m, g, &e), e);
        for (int k = 0; k < 200; k++) {
            size_t n = random_text(&m, text, sizeof(text));
            if (n < sizeof(text)) {
                check_text(schema, text, n);
                whole++;
            }
        }
        if (whole < 100) {
            fail_msg("%s: only %d texts came to an end", schema_samples[i / 3], whole);
        }
        machine_free(&m);
        grammar_free(g);
        cJSON_Delete(schema);
    }
}

static bool takes(const char *schema, const char *text) {
    err      e = {0};
    machine  m;
    grammar *g = compile(schema, NULL, &e);
    assert_ok(g, e);
    assert_ok(machine_init(&m, g, &e), e);
    int state = machine_begin(&m);
    for (; *text; text++) {
        state = machine_step(&m, state, g->class_of[(uint8_t)*text]);
    }
    bool ends = machine_flags(&m, state) & STATE_ENDS;
    machine_free(&m);
    grammar_free(g);
    return ends;
}

static void test_values_written(void **unused) {
    (void)unused;
    static const char *const yes[][2] = {
        {"{\"type\":\"object\"}", "{\"a\": [1, {\"b\":\"\\u00e9\\n\"}], \"c\":-0.5e-7}"},
        {"{\"properties\":{\"a\":{},\"b\":{},\"c\":{}}}", "{\"b\":1}"},
        {"{\"properties\":{\"a\":{},\"b\":{},\"c\":{}}}", "{\"a\":1,\"c\":[]}"},
        {"{\"properties\":{\"a\":{},\"b\":{},\"c\":{}}}", "{}"},
        {"{\"properties\":{\"a\":{},\"b\":{},\"c\":{}},\"required\":[\"b\"]}", "{\"b\": true, \"c\":1}"},
        {"{\"properties\":{\"ab\":{}},\"additionalProperties\":true}", "{\"ab\":1,\"a\":1,\"abc\":2}"},
        {"{\"type\":\"integer\",\"minimum\":7,\"maximum\":1203}", "1203"},
        {"{\"type\":\"integer\",\"minimum\":7,\"maximum\":1203}", "7"},
        {"{\"type\":\"integer\",\"minimum\":7,\"maximum\":1203}", "999"},
        {"{\"type\":\"number\",\"minimum\":0.25,\"maximum\":1}", "0.25"},
        {"{\"type\":\"number\",\"minimum\":0.25,\"maximum\":1}", "1.0"},
        {"{\"type\":\"number\",\"minimum\":-1,\"maximum\":1}", "-0.75"},
        {"{\"type\":\"number\",\"maximum\":-3}", "-3"},
        {"{\"type\":\"string\",\"maxLength\":3}", "\"\xe4\xb8\x80\\n\\u00e9\""},
        {"{\"type\":\"string\",\"pattern\":\"b+\"}", "\"abba\""},
        {"{\"type\":\"string\",\"format\":\"date\"}", "\"2026-02-28\""},
        {"{\"type\":\"string\",\"format\":\"time\"}", "\"23:59:59.5Z\""},
        {"{\"type\":\"string\",\"format\":\"uri\"}", "\"https://a.example/x%20y?q=1#f\""},
        {"{\"type\":\"string\",\"format\":\"email\"}", "\"a.b@c.example\""},
        {"{\"type\":\"string\"}",
         "\"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""},
        {"{\"type\":\"string\"}", "\"\\u0001\\u0010\\u0100\\u1000\\ud7ff\\uE000\\uabcd\\\\\\/\\b\\f\\r\\t\\\"\""},
        {"{\"type\":\"integer\",\"multipleOf\":7}", "-343"},
        {"{\"type\":\"integer\",\"multipleOf\":7}", "0"},
        {"{\"multipleOf\":64}", "999999999999936"},
        {"{\"multipleOf\":1000000}", "123000000"},
        {"{\"multipleOf\":2500}", "7500"},
        {"{\"type\":\"integer\",\"multipleOf\":2.5}", "15"},
        {"{\"type\":\"number\",\"multipleOf\":0.01}", "19.9"},
        {"{\"type\":\"number\",\"multipleOf\":0.01}", "-19.99"},
        {"{\"type\":\"number\",\"multipleOf\":0.25}", "3.75"},
        {"{\"type\":\"number\",\"multipleOf\":0.25}", "3.5"},
        {"{\"type\":\"number\",\"multipleOf\":0.25}", "3.50"},
        {"{\"type\":\"number\",\"multipleOf\":0.05,\"minimum\":0.5,\"maximum\":1}", "0.95"},
        {"{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":3,\"maximum\":100}", "100"},
        {"{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":3,\"maximum\":100}", "5"},
        {"{\"patternProperties\":{\"^s_[a-z]+$\":{\"type\":\"null\"}}}", "{\"s_a\":null,\"s_bc\":null}"},
        {"{\"type\":\"object\",\"patternProperties\":{}}", "{\"x\":1}"},
        {"{\"propertyNames\":{\"pattern\":\"^[a-c]{2}$\"},\"additionalProperties\":{\"type\":\"null\"}}",
         "{\"ab\":null}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\",3]}}", "{\"b\":[]}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"$ref\":\"#/$defs/k\"},\"$defs\":{\"k\":{\"enum\":[\"a\",\"b\"]}}}",
         "{\"a\":1,\"b\":2}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]},\"required\":[\"b\"]}", "{\"b\":2}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"minLength\":2}}", "{\"aa\":1}"},
        {"{\"uniqueItems\":true,\"items\":{\"enum\":[\"a\",\"b\",\"c\"]}}", "[\"c\",\"a\"]"},
        {"{\"uniqueItems\":true,\"items\":{\"enum\":[\"a\",\"b\",\"c\"]}}", "[]"},
        {"{\"uniqueItems\":true,\"items\":{\"type\":\"boolean\"},\"minItems\":2}", "[false,true]"},
        {"{\"uniqueItems\":true,\"items\":{\"type\":\"integer\"},\"maxItems\":1}", "[17]"},
        {"{\"uniqueItems\":false,\"items\":{\"type\":\"null\"}}", "[null,null]"},
        {"{\"uniqueItems\":true,\"items\":{\"$ref\":\"#/$defs/k\"},\"$defs\":{\"k\":{\"enum\":[1,2]}}}", "[2, 1]"},
        {"{\"not\":{\"type\":\"null\"}}", "[1]"},
        {"{\"type\":[\"string\",\"null\"],\"not\":{\"type\":\"null\"}}", "\"a\""},
        {"{\"type\":\"string\",\"not\":false}", "\"a\""},
        {"{\"enum\":[1,2,3],\"not\":{\"enum\":[2]}}", "3"},
        {"{\"type\":\"integer\",\"title\":\"t\",\"$comment\":\"c\",\"examples\":[1],\"default\":2,\"deprecated\":true,"
         "\"readOnly\":true,\"writeOnly\":false,\"contentMediaType\":\"text/plain\",\"contentEncoding\":\"base64\","
         "\"contentSchema\":{},\"externalDocs\":{},\"xml\":{},\"example\":3,\"x-order\":1,\"$schema\":\"s\",\"$id\":"
         "\"i\"}",
         "5"},
        {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":\"a\"}},\"required\":[\"k\"]},{\"properties\":{\"k\":{"
         "\"const\":"
         "\"b\"}},\"required\":[\"k\"]}],\"discriminator\":{\"propertyName\":\"k\",\"mapping\":{\"a\":\"#/x\"}}}",
         "{\"k\":\"b\"}"},
    };
    static const char *const no[][2] = {
        {"{\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"b\"]}", "{\"a\":1}"},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"b\"]}", "{\"b\":1,}"},
        {"{\"properties\":{\"a\":{}}}", "{\"b\":1}"},
        {"{\"properties\":{\"a\":{\"type\":\"null\"}},\"additionalProperties\":true}", "{\"a\":1}"},
        {"{\"type\":\"integer\",\"minimum\":7,\"maximum\":1203}", "6"},
        {"{\"type\":\"integer\",\"minimum\":7,\"maximum\":1203}", "1204"},
        {"{\"type\":\"integer\"}", "-0"},
        {"{\"type\":\"integer\"}", "007"},
        {"{\"type\":\"number\",\"minimum\":0.25,\"maximum\":1}", "0.249"},
        {"{\"type\":\"number\",\"exclusiveMaximum\":1}", "1"},
        {"{\"type\":\"string\",\"maxLength\":3}", "\"abcd\""},
        {"{\"type\":\"string\"}", "\"\\ud800\""},
        {"{\"type\":\"string\"}", "\"\\u0000\""},
        {"{\"type\":\"string\",\"format\":\"date\"}", "\"2026-02-30\""},
        {"{\"type\":\"array\",\"items\":{},\"minItems\":2}", "[1]"},
        {"{\"type\":\"string\"}", "\"\\u0000\""},
        {"{\"type\":\"string\"}", "\"\\uD800\""},
        {"{\"type\":\"string\"}", "\"\\udfff\""},
        {"{\"type\":\"string\"}", "\"\x1f\""},
        {"{\"type\":\"string\"}", "\"\xed\xa0\x80\""},
        {"{\"type\":\"string\"}", "\"\xc1\x80\""},
        {"{\"type\":\"string\"}", "\"\xe0\x9f\xbf\""},
        {"{\"type\":\"string\"}", "\"\xf0\x8f\x80\x80\""},
        {"{\"type\":\"string\"}", "\"\xf4\x90\x80\x80\""},
        {"{\"type\":\"integer\",\"multipleOf\":7}", "344"},
        {"{\"type\":\"integer\",\"multipleOf\":7}", "-0"},
        {"{\"multipleOf\":64}", "65"},
        {"{\"multipleOf\":1000000}", "123000001"},
        {"{\"multipleOf\":2500}", "5100"},
        {"{\"type\":\"integer\",\"multipleOf\":2.5}", "12"},
        {"{\"type\":\"integer\",\"multipleOf\":2.5}", "2.5"},
        {"{\"type\":\"number\",\"multipleOf\":0.01}", "19.991"},
        {"{\"type\":\"number\",\"multipleOf\":0.25}", "3.7"},
        {"{\"type\":\"number\",\"multipleOf\":0.05,\"minimum\":0.5,\"maximum\":1}", "0.96"},
        {"{\"type\":\"number\",\"multipleOf\":0.05,\"minimum\":0.5,\"maximum\":1}", "1.05"},
        {"{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":3,\"maximum\":100}", "0"},
        {"{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":3,\"maximum\":100}", "105"},
        {"{\"patternProperties\":{\"^s_[a-z]+$\":{\"type\":\"null\"}}}", "{\"s_\":null}"},
        {"{\"patternProperties\":{\"^s_[a-z]+$\":{\"type\":\"null\"}}}", "{\"s_a\":1}"},
        {"{\"propertyNames\":{\"pattern\":\"^[a-c]{2}$\"},\"additionalProperties\":{\"type\":\"null\"}}",
         "{\"abc\":null}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]}}", "{\"c\":1}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]}}", "{\"a\":1,\"a\":2}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"a\",\"b\"]},\"required\":[\"b\"]}", "{\"a\":2}"},
        {"{\"type\":\"object\",\"propertyNames\":{\"minLength\":2}}", "{\"a\":1}"},
        {"{\"uniqueItems\":true,\"items\":{\"enum\":[\"a\",\"b\",\"c\"]}}", "[\"c\",\"c\"]"},
        {"{\"uniqueItems\":true,\"items\":{\"enum\":[\"a\",\"b\",\"c\"]},\"maxItems\":2}", "[\"c\",\"a\",\"b\"]"},
        {"{\"uniqueItems\":true,\"items\":{\"type\":\"integer\"},\"maxItems\":1}", "[17,18]"},
        {"{\"not\":{\"type\":\"null\"}}", "null"},
        {"{\"enum\":[1,2,3],\"not\":{\"enum\":[2]}}", "2"},
        {"{\"type\":[\"string\",\"null\"],\"not\":{\"type\":\"null\"}}", "null"},
    };
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
        if (!takes(yes[i][0], yes[i][1])) {
            fail_msg("%s does not take %s", yes[i][0], yes[i][1]);
        }
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) {
        if (takes(no[i][0], no[i][1])) {
            fail_msg("%s takes %s", no[i][0], no[i][1]);
        }
    }
}

static void test_refused(void **unused) {
    (void)unused;
    static const char *const bad[][2] = {
        {"{\"patternProperties\":{\"^a\":{}},\"properties\":{\"b\":{}}}", "patternProperties is not supported"},
        {"{\"patternProperties\":{\"^a\":{},\"^b\":{}}}", "patternProperties is not supported"},
        {"{\"patternProperties\":{\"^a\":{}},\"additionalProperties\":{}}", "patternProperties is not supported"},
        {"{\"propertyNames\":{\"pattern\":\"^a\"},\"properties\":{\"b\":{}}}", "propertyNames beside properties"},
        {"{\"propertyNames\":{\"pattern\":\"^a\"},\"required\":[\"b\"]}", "required beside propertyNames"},
        {"{\"propertyNames\":{\"enum\":[\"a\"]},\"required\":[\"b\"]}", "\"b\" is required"},
        {"{\"not\":{}}", "\"not\""},
        {"{\"not\":true}", "no value at all"},
        {"{\"not\":{\"title\":\"t\"}}", "no value at all"},
        {"{\"not\":{\"required\":[\"a\"]}}", "\"not\" is supported with"},
        {"{\"type\":\"number\",\"not\":{\"type\":\"integer\"}}", "\"not\" is supported with"},
        {"{\"type\":\"string\",\"not\":{\"const\":\"a\"}}", "\"not\" is supported with"},
        {"{\"enum\":[1,2],\"not\":{\"enum\":[2,1]}}", "enum must be"},
        {"{\"type\":\"null\",\"not\":{\"type\":\"null\"}}", "type must be a name"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"string\"}}", "uniqueItems is not supported"},
        {"{\"uniqueItems\":true,\"items\":{\"enum\":[1,2,3,4,5,6,7,8,9]}}", "at most 8"},
        {"{\"uniqueItems\":true,\"minItems\":3,\"items\":{\"enum\":[1,2,1]}}", "as many different items"},
        {"{\"uniqueItems\":true,\"prefixItems\":[{}],\"items\":{\"enum\":[1,2,1]}}", "uniqueItems is not supported"},
        {"{\"type\":\"integer\",\"multipleOf\":0}", "above 0"},
        {"{\"type\":\"integer\",\"multipleOf\":67}", "multipleOf 67 is not supported"},
        {"{\"type\":\"number\",\"multipleOf\":0.333}", "multipleOf 0.333"},
        {"{\"type\":\"number\",\"multipleOf\":1e-12}", "multipleOf"},
        {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":15,\"maximum\":20}", "no number lies"},
        {"{\"if\":{},\"then\":{}}", "\"if\" is not supported"},
        {"{\"contains\":{}}", "\"contains\" is not supported"},
        {"{\"type\":\"strin\"}", "\"strin\" is unknown"},
        {"{\"type\":\"string\",\"format\":\"regex\"}", "format \"regex\""},
        {"{\"properties\":{\"a\":{\"properties\":{\"b\":{\"if\":{}}}}}}", "a.b"},
        {"{\"$ref\":\"http://x\"}", "leaves the document"},
        {"{\"$ref\":\"#/$defs/x\"}", "names nothing"},
        {"{\"$ref\":\"#\"}", "finite"},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "finite"},
        {"{\"enum\":[]}", "enum must be"},
        {"{\"type\":\"string\",\"enum\":[1,2]}", "no value"},
        {"{\"type\":\"string\",\"pattern\":\"a(?=b)\"}", "looking ahead"},
        {"{\"type\":\"string\",\"pattern\":\"(a\"}", "has no )"},
        {"{\"type\":\"string\",\"pattern\":\"\\\\1\"}", "escape is not supported"},
        {"{\"type\":\"string\",\"pattern\":\"^a*$\",\"maxLength\":3}", "own length"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "bounds"},
        {"{\"type\":\"integer\",\"exclusiveMinimum\":2,\"exclusiveMaximum\":3}", "no number lies"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "different types"},
        {"{\"required\":[\"a\"],\"properties\":{},\"additionalProperties\":false}", "\"a\" is required"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "no array"},
        {"{\"type\":\"string\",\"minLength\":-1}", "whole number"},
        {"false", "no value at all"},
        {"[]", "must be an object"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err      e = {0};
        grammar *g = compile(bad[i][0], NULL, &e);
        if (g) {
            fail_msg("%s is taken", bad[i][0]);
        }
        assert_says(e, bad[i][1]);
    }
}

/* Refused, or compiled and walked; in any case soon. */
static void check_hostile(const char *what, cJSON *schema) {
    err      e = {0};
    int64_t  begun = clock_us();
    grammar *g = grammar_from_schema(schema, NULL, &e);
    int64_t  us = clock_us() - begun;
    print_message("%-28s %7.1f ms  %s\n", what, (double)us / 1000, g ? "compiled" : e.text);
    assert_true(us < 8000000); /* a second at most; a sanitizer and company take their time */
    if (g) {
        machine m;
        char    text[1024];
        assert_ok(machine_init(&m, g, &e), e);
        random_text(&m, text, sizeof(text));
        machine_free(&m);
        grammar_free(g);
    }
    cJSON_Delete(schema);
}

static cJSON *nested(int depth) {
    cJSON *s = parse("{\"type\":\"null\"}");
    for (int i = 0; i < depth; i++) {
        cJSON *outer = parse("{\"type\":\"array\"}");
        cJSON_AddItemToObject(outer, "items", s);
        s = outer;
    }
    return s;
}

static cJSON *many_values(int n, const char *format) {
    cJSON *s = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(s, "enum");
    for (int i = 0; i < n; i++) {
        char text[64];
        snprintf(text, sizeof(text), format, (unsigned)(i * 2654435761u), i);
        cJSON_AddItemToArray(list, cJSON_CreateString(text));
    }
    return s;
}

static cJSON *many_properties(int n) {
    cJSON *s = parse("{\"type\":\"object\"}"), *list = cJSON_AddObjectToObject(s, "properties");
    for (int i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof(text), "property_%d", i);
        cJSON_AddItemToObject(list, text, parse("{\"type\":\"string\",\"maxLength\":20}"));
    }
    return s;
}

/* Strings that have no masks in common. */
static cJSON *many_lengths(int n) {
    cJSON *s = parse("{\"type\":\"object\"}"), *list = cJSON_AddObjectToObject(s, "properties");
    for (int i = 0; i < n; i++) {
        char name[32], text[64];
        snprintf(name, sizeof(name), "property_%d", i);
        snprintf(text, sizeof(text), "{\"type\":\"string\",\"maxLength\":%d}", 100 + 7 * i);
        cJSON_AddItemToObject(list, name, parse(text));
    }
    return s;
}

/* a: b b, b: c c, ... */
static cJSON *doubling(int n) {
    cJSON *s = parse("{\"$ref\":\"#/$defs/d0\"}"), *defs = cJSON_AddObjectToObject(s, "$defs");
    for (int i = 0; i < n; i++) {
        char name[16], text[160];
        snprintf(name, sizeof(name), "d%d", i);
        snprintf(text, sizeof(text),
                 "{\"allOf\":[{\"properties\":{\"a\":{\"$ref\":\"#/$defs/d%d\"}}},{\"properties\":{\"a\":{"
                 "\"$ref\":\"#/$defs/d%d\"}}}]}",
                 i + 1, i + 1);
        cJSON_AddItemToObject(defs, name, parse(i + 1 < n ? text : "{\"type\":\"null\"}"));
    }
    return s;
}

static void test_hostile(void **unused) {
    (void)unused;
    check_hostile("nested 60", nested(60));
    check_hostile("nested 500", nested(500));
    check_hostile("10000 enum values", many_values(10000, "v%x-%d"));
    check_hostile("100001 enum values", many_values(100001, "%x%d"));
    check_hostile("1000 optional properties", many_properties(1000));
    check_hostile("6000 properties", many_properties(6000));
    check_hostile("doubling references", doubling(40));
    check_hostile("exponential pattern", parse("{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){30}$\"}"));
    check_hostile("nested pattern", parse("{\"type\":\"string\",\"pattern\":\"^((((a{9}){99}){999}){9999}){9999}$\"}"));
    check_hostile("nested stars", parse("{\"type\":\"string\",\"pattern\":\"^((((a*)*)*b?)*)*c$\"}"));
    check_hostile("a million characters", parse("{\"type\":\"string\",\"minLength\":9,\"maxLength\":1000000}"));
    check_hostile("a million items", parse("{\"type\":\"array\",\"items\":{},\"maxItems\":1000000}"));
    check_hostile("exactly a million", parse("{\"type\":\"array\",\"items\":{},\"minItems\":1000000}"));
    check_hostile("multiples",
                  parse("{\"prefixItems\":[{\"multipleOf\":64},{\"multipleOf\":63000000},{\"multipleOf\":6.1},"
                        "{\"multipleOf\":5.9e-8,\"minimum\":-1.5,\"maximum\":123456.75}]}"));
    check_hostile("60 lengths", many_lengths(60));
    check_hostile("2000 lengths", many_lengths(2000));
    check_hostile("email addresses", parse("{\"type\":\"string\",\"format\":\"email\"}"));
}

static void test_calls(void **unused) {
    (void)unused;
    err          e = {0};
    machine      m;
    cJSON       *schema = parse("{\"$ref\":\"#/$defs/x\",\"$defs\":{\"x\":{\"type\":\"null\"}}}");
    grammar_call calls[] = {{"f(", schema, ")"}, {"g(", NULL, ")"}};
    grammar     *g = grammar_from_calls(calls, 2, "\n", 2, NULL, &e);
    const char  *text = "f(null)\ng({\"a\":1})";
    assert_ok(g, e);
    assert_ok(machine_init(&m, g, &e), e);
    int state = machine_begin(&m);
    for (; *text; text++) {
        state = machine_step(&m, state, g->class_of[(uint8_t)*text]);
    }
    const item *items;
    assert_true(machine_flags(&m, state) & STATE_ENDS);
    assert_int_equal(machine_items(&m, state, &items), 0);
    machine_free(&m);
    grammar_free(g);
    cJSON_Delete(schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_hold), cmocka_unit_test(test_values_written), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile),    cmocka_unit_test(test_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
