/* What Anthropic's API gets: a client's own bytes when it speaks that API, and otherwise a request written anew, in which
 * what cannot be carried is named. */
#include "check.h"

#include "dialect/anthropic.h"

static arena  *memory;
static request r;
static str     out;
static drops   dropped;

static int start(void **state) {
    (void)state;
    memory = arena_new(0);
    r = (request){0};
    dropped = (drops){0};
    return memory == NULL;
}

static int finish(void **state) {
    (void)state;
    request_free(&r);
    arena_free(memory);
    str_free(&out);
    out = (str){0};
    return 0;
}

static void read_as(const dialect *d, const char *body) {
    err e = {0};
    request_free(&r);
    str_clear(&out);
    if (!d->read_request(REQUEST_CHAT, body, strlen(body), memory, &r, &e)) {
        fail_msg("%s\nrefused: %s", body, e.text);
    }
    r.drops = &dropped;
}

static bool write(const char *model, err *e) {
    *e = (err){0};
    str_clear(&out);
    return dialect_anthropic.write_request(&r, model, true, &out, e);
}

/* An OpenAI request as Anthropic's model "c" gets it. */
static const char *build(const char *body) {
    err e;
    read_as(&dialect_openai, body);
    if (!write("c", &e)) {
        fail_msg("%s\nnot written: %s", body, e.text);
    }
    cJSON *tree = json_parse(out.data, out.len, JSON_MAX_DEPTH, &e);
    assert_ok(tree, e);
    cJSON_Delete(tree);
    return out.data;
}

#define CHAT(rest) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]" rest "}"
#define SAYS(list) "{\"model\":\"m\",\"messages\":[" list "]}"
#define HEAD       "{\"model\":\"c\",\"max_tokens\":8192,"
#define HI         "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}]"

static void assert_builds(const char *body, const char *wanted) {
    assert_string_equal(build(body), wanted);
}

/* ---- the same dialect ---- */

static void test_untouched(void **state) {
    (void)state;
    err e;
    read_as(&dialect_anthropic,
            "{ \"max_tokens\" : 50,\n \"mod\\u0065l\": \"m\", "
            "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
            "\"text\":\"\\u00e9\",\"cache_control\":{\"type\":\"ephemeral\"}}]}],\"thinking\":{\"type\":\"adaptive\"},"
            "\"brand_new\":{\"model\":1} }  ");
    assert_true(write("claude \"x\"", &e));
    assert_string_equal(
        out.data,
        "{ \"max_tokens\" : 50,\n \"mod\\u0065l\": \"claude \\\"x\\\"\", \"messages\":[{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"\\u00e9\",\"cache_control\":{\"type\":\"ephemeral\"}}]}],\"thinking\":{"
        "\"type\":"
        "\"adaptive\"},\"brand_new\":{\"model\":1} }  ");
    r.most_tokens = 60;
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"max_tokens\" : 50,"));
    r.most_tokens = 40;
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"max_tokens\" : 40,"));
}

static void test_untouched_thinking(void **state) {
    (void)state;
    err e;
#define THINKS                                                                                                         \
    "{\"model\":\"m\",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":8000},\"max_tokens\":9000,\"messages\":["   \
    "{\"role\":\"user\",\"content\":\"Hi\"}]}"
    read_as(&dialect_anthropic, THINKS);
    r.most_tokens = 8500; /* still above the budget */
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"budget_tokens\":8000},\"max_tokens\":8500"));
    r.most_tokens = 4000;
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"budget_tokens\":3000},\"max_tokens\":4000"));
    r.most_tokens = 100;
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"thinking\":{\"type\":\"disabled\"},\"max_tokens\":100"));
}

/* ---- messages ---- */

static void test_messages(void **state) {
    (void)state;
    assert_builds(CHAT(""), HEAD HI "}");
    assert_builds(
        SAYS("{\"role\":\"system\",\"content\":\"A\"},{\"role\":\"user\",\"content\":\"B\"},{\"role\":\"user\","
             "\"content\":"
             "[{\"type\":\"text\",\"text\":\"C\"},{\"type\":\"text\",\"text\":\"\"}]},{\"role\":\"developer\","
             "\"content\":"
             "[{\"type\":\"text\",\"text\":\"D\"}]},{\"role\":\"assistant\",\"content\":\"E\",\"refusal\":\"F\"},"
             "{\"role\":\"user\",\"content\":\"\"},{\"role\":\"assistant\",\"content\":\"G\"}"),
        HEAD
        "\"system\":[{\"type\":\"text\",\"text\":\"A\"},{\"type\":\"text\",\"text\":\"D\"}],\"messages\":["
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"B\"},{\"type\":\"text\",\"text\":\"C\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"E\"},{\"type\":\"text\",\"text\":\"F\"},"
        "{\"type\":\"text\",\"text\":\"G\"}]}]}");
    assert_builds(SAYS("{\"role\":\"system\",\"content\":\"\"},{\"role\":\"user\",\"content\":\"Hi\"}"), HEAD HI "}");
    err e;
    read_as(&dialect_openai, SAYS("{\"role\":\"system\",\"content\":\"A\"}"));
    assert_false(write("c", &e));
    assert_string_equal(e.param, "messages");
}

static void test_calls_and_results(void **state) {
    (void)state;
    assert_builds(
        SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":"
             "\"f:1\",\"type\":"
             "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": "
             "9007199254740993}\"}},{\"id\":\"b\",\"type\":\"function\","
             "\"function\":{\"name\":\"g\",\"arguments\":\"\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"f:1\",\"name\":"
             "\"f\",\"content\":"
             "\"1\"},{\"role\":\"tool\",\"tool_call_id\":\"b\",\"is_error\":true,\"content\":[{\"type\":\"text\","
             "\"text\":\"2\"},"
             "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
             "png;base64,AA==\"}}]},{\"role\":\"user\",\"content\":\"So?\"}"),
        HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]},{\"role\":"
             "\"assistant\",\"content\":["
             "{\"type\":\"tool_use\",\"id\":\"f_1\",\"name\":\"f\",\"input\":{\"x\": "
             "9007199254740993}},{\"type\":\"tool_use\",\"id\":"
             "\"b\",\"name\":\"g\","
             "\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"f_1\","
             "\"content\":\"1\"},"
             "{\"type\":\"tool_result\",\"tool_use_id\":\"b\",\"content\":[{\"type\":\"text\",\"text\":\"2\"},{"
             "\"type\":\"image\","
             "\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"AA==\"}}],\"is_error\":true},"
             "{\"type\":\"text\",\"text\":\"So?\"}]}]}");
}

static void test_parts(void **state) {
    (void)state;
    assert_builds(SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x/"
                       "y\",\"detail\":\"high\"},"
                       "\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"file\",\"file\":{\"filename\":\"a."
                       "pdf\",\"file_data\":"
                       "\"data:application/pdf;base64,JVBE\"}}]}"),
                  HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"url\","
                       "\"url\":\"https://x/y\"},"
                       "\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"document\",\"title\":\"a.pdf\","
                       "\"source\":{\"type\":\"base64\","
                       "\"media_type\":\"application/pdf\",\"data\":\"JVBE\"}}]}]}");
    assert_string_equal(dropped.names, "image_url.detail");
}

static void test_reasoning_back(void **state) {
    (void)state;
    assert_builds(
        SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"A\",\"reasoning_content\":"
             "\"Hm\","
             "\"reasoning_signature\":\"s\",\"reasoning_redacted\":\"r1\\nr2\"},{\"role\":\"user\",\"content\":\"B\"},"
             "{\"role\":\"assistant\",\"content\":\"C\",\"reasoning_content\":\"unsigned\"}"),
        HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]},{\"role\":"
             "\"assistant\",\"content\":["
             "{\"type\":\"thinking\",\"thinking\":\"Hm\",\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":"
             "\"r1\"},"
             "{\"type\":\"redacted_thinking\",\"data\":\"r2\"},{\"type\":\"text\",\"text\":\"A\"}]},{\"role\":\"user\","
             "\"content\":["
             "{\"type\":\"text\",\"text\":\"B\"}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
             "\"C\"}]}]}");
    assert_string_equal(dropped.names, "reasoning_content");
}

/* ---- tools and the rest of the top ---- */

#define F "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"

static void test_tools(void **state) {
    (void)state;
    assert_builds(
        CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"strict\":true,"
             "\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{}}}},\"cache_control\":{\"type\":"
             "\"ephemeral\"}},"
             "{\"type\":\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}],\"tool_choice\":\"required\","
             "\"parallel_tool_calls\":false"),
        HEAD HI
        ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\",\"properties\":"
        "{\"x\":{}}},\"strict\":true,\"cache_control\":{\"type\":\"ephemeral\"}},{\"name\":\"g\",\"input_schema\":"
        "{\"type\":\"object\",\"properties\":{}}}],\"tool_choice\":{\"type\":\"any\","
        "\"disable_parallel_tool_use\":true}}");
#define G ",\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}}]"
    assert_builds(CHAT(",\"tools\":[" F "],\"tool_choice\":\"none\",\"parallel_tool_calls\":false"),
                  HEAD HI G ",\"tool_choice\":{\"type\":\"none\"}}");
    assert_builds(CHAT(",\"tools\":[" F "],\"parallel_tool_calls\":false"),
                  HEAD HI G ",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}}");
    assert_builds(CHAT(",\"tools\":[" F "],\"tool_choice\":" F),
                  HEAD HI G ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}}");
    assert_builds(CHAT(",\"tools\":[],\"tool_choice\":\"none\",\"parallel_tool_calls\":false"), HEAD HI "}");
}

static void test_top(void **state) {
    (void)state;
    assert_builds(
        CHAT(
            ",\"max_completion_tokens\":7,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":3,\"stop\":\"x\",\"user\":\"u\","
            "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"n\":1,\"logprobs\":false,\"seed\":null,"
            "\"service_tier\":\"default\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
            "\"n\","
            "\"schema\":{\"type\":\"object\"}}},\"cache_control\":{\"type\":\"ephemeral\"}"),
        "{\"model\":\"c\",\"max_tokens\":7," HI
        ",\"temperature\":0.5,\"top_p\":0.25,\"top_k\":3,\"stop_sequences\":[\"x\"],"
        "\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}},\"service_tier\":"
        "\"standard_only\",\"metadata\":{\"user_id\":\"u\"},\"cache_control\":{\"type\":\"ephemeral\"},\"stream\":"
        "true}");
    r.most_tokens = 5;
    err e;
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"max_tokens\":5,"));
    read_as(&dialect_openai, CHAT(""));
    r.most_tokens = 5;
    assert_true(write("c", &e));
    assert_non_null(strstr(out.data, "\"max_tokens\":5,"));
    assert_string_equal(dropped.names, "");
    build(CHAT(",\"metadata\":{\"a\":\"b\"},\"store\":true")); /* hints */
    assert_string_equal(dropped.names, "metadata, store");
}

/* ---- thinking ---- */

static const struct {
    const char *model, *rest, *has, *hasnt;
} thoughts[] = {
    {"claude-sonnet-4-5-20250929", ",\"reasoning_effort\":\"high\"", "\"budget_tokens\":16384}", "output_config"},
    {"claude-sonnet-4-5-20250929", ",\"reasoning_effort\":\"high\"", "\"max_tokens\":24576,", NULL},
    {"claude-3-7-sonnet-latest", ",\"reasoning_effort\":\"high\",\"max_tokens\":4000", "\"budget_tokens\":3000}", NULL},
    {"claude-opus-4-20250514", ",\"reasoning_effort\":\"low\"", "{\"type\":\"enabled\",\"budget_tokens\":2048}", NULL},
    {"some-server's", ",\"reasoning_effort\":\"low\"", "\"budget_tokens\":2048}", "output_config"},
    {"claude-opus-4-6", ",\"reasoning_effort\":\"high\"",
     "{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"high\"}", "budget"},
    {"anthropic/claude-opus-4.6", ",\"reasoning_effort\":\"xhigh\"", "\"effort\":\"high\"", "budget"},
    {"claude-opus-4-7-20260416", ",\"reasoning_effort\":\"xhigh\"", "\"effort\":\"xhigh\"", "budget"},
    {"claude-sonnet-5", ",\"reasoning_effort\":\"minimal\"", "\"effort\":\"low\"", "budget"},
    {"claude-sonnet-5", ",\"reasoning_effort\":\"none\"", "\"max_tokens\":8192,", "thinking"},
    {"claude-sonnet-5", ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":5000}", "{\"type\":\"adaptive\"}",
     "budget"},
    {"claude-haiku-4-5", ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":5000},\"max_tokens\":5001",
     "{\"type\":\"enabled\",\"budget_tokens\":5000}", NULL},
    {"claude-haiku-4-5", ",\"thinking\":{\"type\":\"adaptive\"},\"reasoning_effort\":\"low\"",
     "\"budget_tokens\":2048}", "effort"},
    {"claude-opus-4-6", ",\"thinking\":{\"type\":\"disabled\"}", "\"thinking\":{\"type\":\"disabled\"}", "budget"},
};

static void test_thinking(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof thoughts / sizeof thoughts[0]; i++) {
        char body[300];
        err  e;
        snprintf(body, sizeof body, CHAT("%s"), thoughts[i].rest);
        read_as(&dialect_openai, body);
        assert_ok(write(thoughts[i].model, &e), e);
        if (!strstr(out.data, thoughts[i].has) || (thoughts[i].hasnt && strstr(out.data, thoughts[i].hasnt))) {
            fail_msg("%s for %s: %s", thoughts[i].rest, thoughts[i].model, out.data);
        }
    }
}

static void test_thinking_without_room(void **state) {
    (void)state;
    err e;
    read_as(&dialect_openai, CHAT(",\"reasoning_effort\":\"low\",\"max_tokens\":500"));
    assert_false(write("claude-haiku-4-5", &e));
    assert_string_equal(e.param, "reasoning_effort");
    assert_says(e, "1024");
    dropped.allowed = true;
    assert_ok(write("claude-haiku-4-5", &e), e);
    assert_null(strstr(out.data, "thinking"));
    assert_string_equal(dropped.names, "reasoning_effort");
    dropped = (drops){0};
    read_as(&dialect_openai, CHAT(",\"reasoning_effort\":\"low\",\"max_tokens\":5000"));
    r.most_tokens = 500; /* the operator's cap is not the client's fault */
    assert_ok(write("claude-haiku-4-5", &e), e);
    assert_null(strstr(out.data, "thinking"));
    assert_string_equal(dropped.names, "reasoning_effort");
#define ROUND(sign)                                                                                                    \
    "{\"model\":\"m\",\"reasoning_effort\":\"low\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":"    \
    "\"assistant\"" sign ",\"tool_calls\":[{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","          \
    "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"1\"}]}"
    dropped = (drops){0};
    read_as(&dialect_openai, ROUND("")); /* the client lost what the model had thought */
    assert_ok(write("claude-haiku-4-5", &e), e);
    assert_null(strstr(out.data, "budget"));
    assert_string_equal(dropped.names, "reasoning_effort");
    read_as(&dialect_openai, ROUND(",\"reasoning_content\":\"Hm\",\"reasoning_signature\":\"s\""));
    assert_ok(write("claude-haiku-4-5", &e), e);
    assert_non_null(strstr(out.data, "budget"));
}

/* ---- what cannot be carried ---- */

static const struct {
    const char *body, *param;
} lost[] = {
    {CHAT(",\"temperature\":1.5"), "temperature"},
    {CHAT(",\"seed\":1"), "seed"},
    {CHAT(",\"logprobs\":true"), "logprobs"},
    {CHAT(",\"presence_penalty\":1"), "presence_penalty"},
    {CHAT(",\"frequency_penalty\":1"), "frequency_penalty"},
    {CHAT(",\"logit_bias\":{\"1\":2}"), "logit_bias"},
    {CHAT(",\"min_p\":0.1"), "min_p"},
    {CHAT(",\"brand_new\":1"), "brand_new"},
    {CHAT(",\"response_format\":{\"type\":\"json_object\"}"), "response_format"},
    {CHAT(",\"service_tier\":\"flex\""), "service_tier"},
    {CHAT(",\"reasoning_effort\":\"wild\""), "reasoning_effort"},
    {CHAT(",\"tools\":[{\"type\":\"custom\",\"custom\":{}}]"), "tools[0].type"},
    {CHAT(",\"tools\":[" F "],\"tool_choice\":{\"type\":\"allowed_tools\"}"), "tool_choice"},
    {SAYS("{\"role\":\"user\",\"content\":\"Hi\",\"name\":\"n\"}"), "messages[0].name"},
    {SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"function\",\"name\":\"f\",\"content\":\"x\"}"),
     "messages[1].name"},
    {SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"a\",\"audio\":{\"id\":\"x\"}}"),
     "messages[1].audio"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"input_audio\",\"input_"
          "audio\":{}}]}"),
     "messages[0].content[1].type"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"file\",\"file\":{\"file_id\":"
          "\"f\"}}]}"),
     "messages[0].content[1].file.file_id"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"file\",\"file\":{\"file_"
          "data\":"
          "\"data:text/csv;base64,AA\"}}]}"),
     "messages[0].content[1].file.file_data"},
    {SAYS("{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"input_audio\"}]},{\"role\":"
          "\"user\","
          "\"content\":\"Hi\"}"),
     "messages[0].content[1].type"},
    {SAYS("{\"role\":\"user\",\"content\":\"x\",\"pinned\":true}"), "messages[0].pinned"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",\"lang\":\"de\"}]}"),
     "messages[0].content[0].lang"},
    {CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"examples\":[1]}}]"),
     "tools[0].function.examples"},
    {CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"},\"examples\":[1]}]"), "tools[0].examples"},
};

static void test_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lost / sizeof lost[0]; i++) {
        err e;
        read_as(&dialect_openai, lost[i].body);
        dropped = (drops){0};
        if (write("c", &e)) {
            fail_msg("written: %s", lost[i].body);
        }
        assert_string_equal(e.param, lost[i].param);
        assert_int_equal(error_status(e.code), 400);
        dropped.allowed = true;
        assert_ok(write("c", &e), e);
        assert_non_null(strstr(dropped.names, lost[i].param));
        cJSON *tree = json_parse(out.data, out.len, JSON_MAX_DEPTH, &e);
        assert_ok(tree, e);
        cJSON_Delete(tree);
        r.drops = NULL; /* nobody keeps a list: nothing is dropped */
        assert_false(write("c", &e));
    }
}

static const struct {
    const char *body, *param;
} wrong[] = {
    {SAYS("{\"role\":\"tool\",\"content\":\"x\"}"), "messages[0].tool_call_id"},
    {SAYS("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}"), "messages[0].tool_calls[0].id"},
    {SAYS("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{}}]}"),
     "messages[0].tool_calls[0].function.name"},
    {SAYS(
         "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"[1\"}}]}"),
     "messages[0].tool_calls[0].function.arguments"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}"),
     "messages[0].content[0].image_url.url"},
    {SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"file:///etc/passwd\"}}]}"),
     "messages[0].content[0].image_url.url"},
    {CHAT(",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}"), "response_format.json_schema.schema"},
};

/* A list that is longer than its place says so. */
static void test_many_dropped(void **state) {
    (void)state;
    drops d = {.allowed = true};
    err   e = {0};
    char  name[32];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "member_%d", i);
        assert_true(drop_member(&d, name, "x", &e));
        assert_true(strlen(d.names) < sizeof d.names);
    }
    assert_string_equal(d.names + strlen(d.names) - 5, ", ...");
    assert_null(strstr(d.names, "..., "));
    assert_non_null(strstr(d.names, "member_0, member_1, "));
}

static void test_wrong(void **state) {
    (void)state;
    dropped.allowed = true;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        err e;
        read_as(&dialect_openai, wrong[i].body);
        assert_false(write("c", &e));
        assert_string_equal(e.param, wrong[i].param);
        assert_int_equal(error_status(e.code), 400);
    }
}

static void test_address(void **state) {
    (void)state;
    place_of    p = {.kind = REQUEST_CHAT, .base = "https://api.anthropic.com", .model = "m"};
    const char *wanted = "https://api.anthropic.com/v1/messages";
    assert_true(dialect_anthropic.write_url(&p, &out));
    assert_string_equal(out.data, wanted);
    str_clear(&out);
    p.base = "https://api.anthropic.com/v1";
    assert_true(dialect_anthropic.write_url(&p, &out));
    assert_string_equal(out.data, wanted);
    p.kind = REQUEST_EMBEDDINGS;
    assert_false(dialect_anthropic.write_url(&p, &out));
}

/* What a client of this API said, through the neutral form and back: the same question. */
static void test_there_and_back(void **state) {
    (void)state;
    err e;
    read_as(&dialect_anthropic, "{\"model\":\"m\",\"max_tokens\":9000,\"system\":[{\"type\":\"text\",\"text\":\"S\","
                                "\"cache_control\":{\"type\":\"ephemeral\"}}],"
                                "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{"
                                "\"type\":\"base64\",\"media_type\":\"image/png\","
                                "\"data\":\"AA==\"}},{\"type\":\"text\",\"text\":\"Q\"}]},{\"role\":\"assistant\","
                                "\"content\":[{\"type\":\"thinking\",\"thinking\":"
                                "\"Hm\",\"signature\":\"s\"},{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\","
                                "\"input\":{\"x\":[1]}}]},{\"role\":\"user\","
                                "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":\"1\",\"is_"
                                "error\":true}]}],\"tools\":[{\"name\":\"f\","
                                "\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"any\"},"
                                "\"thinking\":{\"type\":\"enabled\","
                                "\"budget_tokens\":2048},\"stream\":true}");
    r.from = &dialect_openai; /* so that it is written anew */
    assert_ok(write("claude-haiku-4-5", &e), e);
    assert_string_equal(out.data, "{\"model\":\"claude-haiku-4-5\",\"max_tokens\":9000,\"system\":[{\"type\":\"text\","
                                  "\"text\":\"S\",\"cache_control\":{\"type\":"
                                  "\"ephemeral\"}}],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
                                  "\"source\":{\"type\":\"base64\",\"media_type\":"
                                  "\"image/"
                                  "png\",\"data\":\"AA==\"}},{\"type\":\"text\",\"text\":\"Q\"}]},{\"role\":"
                                  "\"assistant\",\"content\":[{\"type\":\"thinking\","
                                  "\"thinking\":\"Hm\",\"signature\":\"s\"},{\"type\":\"tool_use\",\"id\":\"a\","
                                  "\"name\":\"f\",\"input\":{\"x\":[1]}}]},{\"role\":"
                                  "\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":"
                                  "\"1\",\"is_error\":true}]}],\"tools\":[{\"name\":"
                                  "\"f\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"any\"},"
                                  "\"thinking\":{\"type\":\"enabled\","
                                  "\"budget_tokens\":2048},\"stream\":true}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_untouched, start, finish),
        cmocka_unit_test_setup_teardown(test_untouched_thinking, start, finish),
        cmocka_unit_test_setup_teardown(test_messages, start, finish),
        cmocka_unit_test_setup_teardown(test_calls_and_results, start, finish),
        cmocka_unit_test_setup_teardown(test_parts, start, finish),
        cmocka_unit_test_setup_teardown(test_reasoning_back, start, finish),
        cmocka_unit_test_setup_teardown(test_tools, start, finish),
        cmocka_unit_test_setup_teardown(test_top, start, finish),
        cmocka_unit_test_setup_teardown(test_thinking, start, finish),
        cmocka_unit_test_setup_teardown(test_thinking_without_room, start, finish),
        cmocka_unit_test_setup_teardown(test_named, start, finish),
        cmocka_unit_test_setup_teardown(test_many_dropped, start, finish),
        cmocka_unit_test_setup_teardown(test_wrong, start, finish),
        cmocka_unit_test_setup_teardown(test_address, start, finish),
        cmocka_unit_test_setup_teardown(test_there_and_back, start, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
