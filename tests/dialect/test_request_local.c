/* The members of a request that only models of our own obey: which tools, which form, what the template sees. */
#include "check.h"

#include "dialect/dialect.h"

#define TOOLS                                                                                                          \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\",\"function\":{\"name\":"  \
    "\"g\"}}]"
#define CHAT(rest) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]" rest "}"

static arena  *memory;
static request r;

static int start(void **state) {
    (void)state;
    memory = arena_new(0);
    r = (request){0};
    return memory == NULL;
}

static int finish(void **state) {
    (void)state;
    request_free(&r);
    arena_free(memory);
    return 0;
}

static bool read(const char *body, err *e) {
    request_free(&r);
    *e = (err){0};
    return dialect_openai.read_request(REQUEST_CHAT, body, strlen(body), memory, &r, e) &&
           dialect_openai.read_local(&r, e);
}

static void good(const char *body) {
    err e;
    if (!read(body, &e)) {
        fail_msg("%s\nrefused: %s", body, e.text);
    }
}

static void wrong(const char *body, const char *param, const char *says) {
    err e;
    if (read(body, &e)) {
        fail_msg("accepted: %s", body);
    }
    assert_true(e.code == ERR_INVALID || e.code == ERR_UNSUPPORTED);
    assert_string_equal(e.param, param);
    assert_says(e, says);
    assert_int_equal(e.text[strlen(e.text) - 1], '.');
}

static void which_tools(void **state) {
    (void)state;
    good(CHAT(""));
    assert_int_equal(r.choice, TOOLS_AUTO);
    assert_false(r.one_tool);
    good(CHAT("," TOOLS ",\"tool_choice\":\"auto\",\"parallel_tool_calls\":true"));
    assert_int_equal(r.choice, TOOLS_AUTO);
    good(CHAT("," TOOLS ",\"tool_choice\":\"none\",\"parallel_tool_calls\":false"));
    assert_int_equal(r.choice, TOOLS_NONE);
    assert_true(r.one_tool);
    good(CHAT(",\"tool_choice\":\"none\""));
    good(CHAT("," TOOLS ",\"tool_choice\":\"required\""));
    assert_int_equal(r.choice, TOOLS_REQUIRED);
    good(CHAT("," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"));
    assert_int_equal(r.choice, TOOLS_NAMED);
    assert_string_equal(r.tool, "g");
    good(CHAT("," TOOLS ",\"tool_choice\":null"));
    wrong(CHAT(",\"tool_choice\":\"required\""), "tool_choice", "no tools");
    wrong(CHAT("," TOOLS ",\"tool_choice\":\"any\""), "tool_choice", "\"any\"");
    wrong(CHAT("," TOOLS ",\"tool_choice\":7"), "tool_choice", "not a number");
    wrong(CHAT("," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}"),
          "tool_choice.function.name", "none of the tools");
    wrong(CHAT("," TOOLS ",\"tool_choice\":{\"type\":\"function\"}"), "tool_choice.function.name", "missing");
    wrong(CHAT("," TOOLS ",\"tool_choice\":{\"type\":\"custom\"}"), "tool_choice.type", "custom");
    wrong(CHAT("," TOOLS ",\"parallel_tool_calls\":\"no\""), "parallel_tool_calls", "a string");
}

static void which_form(void **state) {
    (void)state;
    good(CHAT(",\"response_format\":{\"type\":\"text\"}"));
    assert_int_equal(r.form, RESPONSE_TEXT);
    good(CHAT(",\"response_format\":{\"type\":\"json_object\"}"));
    assert_int_equal(r.form, RESPONSE_JSON);
    assert_null(r.schema);
    good(CHAT(",\"response_format\":{\"type\":\"json_object\",\"schema\":{\"type\":\"array\"}}"));
    assert_int_equal(r.form, RESPONSE_SCHEMA);
    good(CHAT(
        ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":true,\"schema\":{"
        "\"type\":\"object\"}}}"));
    assert_int_equal(r.form, RESPONSE_SCHEMA);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(r.schema, "type")), "object");
    good(CHAT(",\"grammar\":\"root ::= \\\"a\\\"\""));
    assert_string_equal(r.grammar, "root ::= \"a\"");
    good(CHAT(",\"grammar\":\"\""));
    assert_null(r.grammar);
    wrong(CHAT(",\"response_format\":\"json\""), "response_format", "an object");
    wrong(CHAT(",\"response_format\":{\"type\":\"xml\"}"), "response_format.type", "json_schema");
    wrong(CHAT(",\"response_format\":{}"), "response_format.type", "json_schema");
    wrong(CHAT(",\"response_format\":{\"type\":\"json_schema\"}"), "response_format.json_schema", "missing");
    wrong(CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\"}}"),
          "response_format.json_schema.schema", "missing");
    wrong(CHAT(",\"grammar\":3"), "grammar", "a number");
    wrong(CHAT(",\"grammar\":\"x\",\"response_format\":{\"type\":\"json_object\"}"), "grammar", "exclude");
}

static void what_the_template_sees(void **state) {
    (void)state;
    good(CHAT(",\"chat_template_kwargs\":{\"enable_thinking\":false},\"reasoning_effort\":\"low\""));
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(r.template_input, "enable_thinking")));
    assert_string_equal(r.effort, "low");
    wrong(CHAT(",\"chat_template_kwargs\":[]"), "chat_template_kwargs", "an array");
    wrong(CHAT(",\"reasoning_effort\":1"), "reasoning_effort", "a number");
}

/* What changes the answer is in the cache's key; what only states the default is not. */
static void the_key(void **state) {
    (void)state;
    static const char *const same[] = {CHAT("," TOOLS), CHAT("," TOOLS ",\"tool_choice\":\"auto\""),
                                       CHAT("," TOOLS ",\"parallel_tool_calls\":true"),
                                       CHAT("," TOOLS ",\"response_format\":{\"type\":\"text\"},\"grammar\":null")};
    static const char *const others[] = {
        CHAT("," TOOLS ",\"tool_choice\":\"none\""),
        CHAT("," TOOLS ",\"tool_choice\":\"required\""),
        CHAT("," TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"),
        CHAT("," TOOLS ",\"parallel_tool_calls\":false"),
        CHAT("," TOOLS ",\"response_format\":{\"type\":\"json_object\"}"),
        CHAT("," TOOLS ",\"response_format\":{\"type\":\"text\",\"schema\":{}}"),
        CHAT("," TOOLS ",\"grammar\":\"root ::= [a]\""),
        CHAT("," TOOLS ",\"chat_template_kwargs\":{\"enable_thinking\":false}"),
        CHAT("," TOOLS ",\"reasoning_effort\":\"low\"")};
    str first = {0}, key = {0}, seen = {0};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        good(same[i]);
        str_clear(&key);
        assert_true(dialect_openai.canonical(&r, i == 0 ? &first : &key));
        assert_string_equal(i == 0 ? first.data : key.data, first.data);
    }
    str_adds(&seen, first.data);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        good(others[i]);
        str_clear(&key);
        assert_true(dialect_openai.canonical(&r, &key));
        assert_null(strstr(seen.data, key.data));
        str_adds(&seen, key.data);
    }
    str_free(&first);
    str_free(&key);
    str_free(&seen);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(which_tools, start, finish),
        cmocka_unit_test_setup_teardown(which_form, start, finish),
        cmocka_unit_test_setup_teardown(what_the_template_sees, start, finish),
        cmocka_unit_test_setup_teardown(the_key, start, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
