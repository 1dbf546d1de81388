/* Which grammar a request gets, from where on, and whose mark stands before it. That answers follow it is tested over
 * HTTP, in tests/clients. */
#include "check.h"

#include "backend/local.h"

#define TOOLS                                                                                                          \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","             \
    "\"properties\":{\"a\":{\"type\":\"boolean\"},\"b\":{\"type\":\"boolean\"}}}}},"                                   \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define SCHEMA(text) ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":" text "}}"
#define NAMED(name)  ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"

static model no_vocabulary;

static local_backend backend_of(const char *chat_template) {
    return (local_backend){.base.name = "speaker", .m = &no_vocabulary, .speech = speech_format_of(chat_template)};
}

typedef struct asked {
    arena     *memory;
    request    r;
    local_rule rule;
    bool       ok;
    err        e;
} asked;

static asked ask(local_backend *b, const char *rest, bool thinks) {
    asked a = {.memory = arena_new(0)};
    str   body = {0};
    str_addf(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]%s}", rest);
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, body.data, body.len, a.memory, &a.r, &a.e), a.e);
    assert_ok(dialect_openai.read_local(&a.r, &a.e), a.e);
    a.ok = local_rule_make(b, &a.r, thinks, &a.rule, &a.e);
    str_free(&body);
    return a;
}

static void clear(asked *a) {
    grammar_free(a->rule.g);
    request_free(&a->r);
    arena_free(a->memory);
}

/* The grammar, for comparing only: it is kept, or gone. */
static const grammar *grammar_of(local_backend *b, const char *rest) {
    asked          a = ask(b, rest, false);
    const grammar *g = a.rule.g;
    assert_ok(a.ok, a.e);
    clear(&a);
    return g;
}

static void refused(local_backend *b, const char *rest, const char *param, const char *says) {
    asked a = ask(b, rest, false);
    assert_false(a.ok);
    assert_null(a.rule.g);
    assert_string_equal(a.e.param, param);
    assert_says(a.e, says);
    clear(&a);
}

static void what_needs_a_grammar(void **state) {
    (void)state;
    local_backend b = backend_of("<tool_call>");
    assert_null(grammar_of(&b, ""));
    assert_null(grammar_of(&b, TOOLS));
    assert_null(grammar_of(&b, TOOLS ",\"tool_choice\":\"none\""));
    assert_null(grammar_of(&b, ",\"response_format\":{\"type\":\"text\"}"));
    assert_non_null(grammar_of(&b, ",\"response_format\":{\"type\":\"json_object\"}"));
    assert_non_null(grammar_of(&b, SCHEMA("{\"type\":\"integer\"}")));
    assert_non_null(grammar_of(&b, ",\"grammar\":\"root ::= [a-z]\""));
    assert_non_null(grammar_of(&b, TOOLS ",\"tool_choice\":\"required\""));
    assert_non_null(grammar_of(&b, TOOLS NAMED("g")));
    local_rules_free(&b);
}

static void grammars_are_kept(void **state) {
    (void)state;
    local_backend            b = backend_of("<tool_call>");
    static const char *const all[] = {
        SCHEMA("{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}}}"),
        SCHEMA("{\"properties\":{\"b\":{\"type\":\"null\"},\"a\":{\"type\":\"null\"}}}"), /* another order */
        SCHEMA("{\"type\":\"integer\"}"),
        ",\"response_format\":{\"type\":\"json_object\"}",
        ",\"grammar\":\"root ::= [a-z]\"",
        ",\"grammar\":\"root ::= [a-y]\"",
        TOOLS ",\"tool_choice\":\"required\"",
        TOOLS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false",
        TOOLS NAMED("f"),
        TOOLS NAMED("g"),
        TOOLS SCHEMA("{\"type\":\"integer\"}"),
        TOOLS ",\"response_format\":{\"type\":\"json_object\"}",
    };
    enum { N = sizeof(all) / sizeof(all[0]) };
    const grammar *first[N];
    assert_true(N <= LOCAL_KEPT);
    for (int i = 0; i < N; i++) {
        first[i] = grammar_of(&b, all[i]);
        for (int k = 0; k < i; k++) {
            assert_ptr_not_equal(first[i], first[k]);
        }
    }
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(grammar_of(&b, all[i]), first[i]);
    }
    for (int i = 0; i < 3 * LOCAL_KEPT; i++) { /* the latest stays, whatever else comes by */
        char other[64];
        snprintf(other, sizeof(other), ",\"grammar\":\"root ::= \\\"%d\\\"\"", i);
        assert_non_null(grammar_of(&b, other));
        assert_ptr_equal(grammar_of(&b, all[0]), first[0]);
    }
    local_rules_free(&b);
}

static void from_where_on(void **state) {
    (void)state;
    local_backend thinker = backend_of("<think></think><tool_call>"), other = backend_of("<think></think>");
    asked         a = ask(&thinker, ",\"response_format\":{\"type\":\"json_object\"}", true);
    assert_string_equal(a.rule.trigger, "</think>");
    assert_null(a.rule.mark);
    clear(&a);
    a = ask(&thinker, ",\"response_format\":{\"type\":\"json_object\"}", false);
    assert_null(a.rule.trigger);
    clear(&a);
    a = ask(&thinker, TOOLS ",\"tool_choice\":\"required\"", true);
    assert_string_equal(a.rule.trigger, "</think>");
    assert_null(a.rule.mark); /* the grammar writes it */
    clear(&a);
    a = ask(&other, TOOLS ",\"tool_choice\":\"required\"",
            true); /* no way of its own: its call is read behind a mark */
    assert_ok(a.ok, a.e);
    assert_non_null(a.rule.mark);
    assert_int_equal(a.rule.prefix, -1);
    clear(&a);
    local_rules_free(&thinker);
    local_rules_free(&other);
}

static void what_is_refused(void **state) {
    (void)state;
    local_backend b = backend_of("<tool_call>"), mute = backend_of("");
    refused(&b, ",\"grammar\":\"root ::= missing\"", "grammar", "missing");
    refused(&b, SCHEMA("{\"type\":\"colour\"}"), "response_format.json_schema.schema", "colour");
    refused(&b, SCHEMA("{\"properties\":{\"a\":{\"type\":\"colour\"}}}"), "response_format.json_schema.schema.a",
            "colour");
    refused(&b, ",\"response_format\":{\"type\":\"json_object\",\"schema\":{\"type\":\"colour\"}}",
            "response_format.schema", "colour");
    refused(&b,
            ",\"tool_choice\":\"required\",\"tools\":[{\"function\":{\"name\":\"f\"}},{\"function\":{\"name\":\"g\","
            "\"parameters\":{\"properties\":{\"a\":{\"type\":\"colour\"}}}}}]",
            "tools[1].function.parameters.a", "colour");
    asked large = ask(&b, ",\"grammar\":\"root ::= [a]{1000001}\"", false);
    assert_false(large.ok);
    assert_int_equal(error_status(large.e.code), 400);
    clear(&large);
    large = ask(&b, SCHEMA("{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){30}$\"}"), false);
    assert_false(large.ok);
    assert_says(large.e, "too large");
    assert_int_equal(error_status(large.e.code), 400);
    clear(&large);
    large =
        ask(&b,
            ",\"tool_choice\":\"required\",\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
            "\"a\":{\"type\":\"string\",\"maxLength\":1000001}}}}}]",
            false);
    assert_false(large.ok);
    assert_int_equal(error_status(large.e.code), 400);
    clear(&large);
    mute.manners.no_tools = true;
    refused(&mute, TOOLS ",\"tool_choice\":\"required\"", "tool_choice", "no place for tools");
    assert_null(grammar_of(&mute, TOOLS));
    local_rules_free(&b);
    local_rules_free(&mute);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_needs_a_grammar),
        cmocka_unit_test(grammars_are_kept),
        cmocka_unit_test(from_where_on),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
