/* Requests of clients that speak Anthropic's Messages API: what they become in the neutral form, and what they are told
 * when they are wrong, with the place as they wrote it. */
#include "check.h"

#include "base/clock.h"
#include "dialect/anthropic.h"

static arena  *memory;
static request r;
static str     text;

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
    str_free(&text);
    return 0;
}

static bool read(const char *body, err *e) {
    request_free(&r);
    *e = (err){0};
    return dialect_anthropic.read_request(REQUEST_CHAT, body, strlen(body), memory, &r, e);
}

static void good(const char *body) {
    err e;
    if (!read(body, &e)) {
        fail_msg("%s\nrefused: %s", body, e.text);
    }
}

/* One member of the neutral body as it is written. */
static const char *neutral(const char *key) {
    str_clear(&text);
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(r.body, key);
    if (!value) {
        return "-";
    }
    json_write(value, &text);
    return text.data;
}

#define SAYS(messages) "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[" messages "]}"
#define WITH(rest)     "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]," rest "}"
#define USER(blocks)   SAYS("{\"role\":\"user\",\"content\":[" blocks "]}")
#define ASSISTANT(blocks)                                                                                              \
    SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":[" blocks "]}")

static void test_plain(void **state) {
    (void)state;
    good("{\"model\":\"m\",\"max_tokens\":9,\"system\":\"Be "
         "brief.\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
         "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"Yes?\"}]},"
         "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}]}");
    assert_string_equal(r.model, "m");
    assert_int_equal(r.max_tokens, 9);
    assert_ptr_equal(r.from, &dialect_anthropic);
    assert_non_null(r.client);
    assert_int_equal(r.n_messages, 4);
    assert_string_equal(r.messages[0].role, "system");
    assert_string_equal(r.messages[0].content, "Be brief.");
    assert_string_equal(r.messages[2].content, "Yes?");
    assert_true(r.messages[2].plain);
    assert_string_equal(r.messages[3].content, "a\nb");
    assert_false(r.stream || r.include_usage);
}

static void test_top(void **state) {
    (void)state;
    good(WITH(
        "\"stop_sequences\":[\"x\",\"y\"],\"temperature\":1,\"top_p\":0.5,\"top_k\":7,\"stream\":true,"
        "\"metadata\":{\"user_id\":\"u\"},\"service_tier\":\"standard_only\","
        "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2048},"
        "\"output_config\":{\"effort\":\"low\",\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}},"
        "\"task_budget\":{\"total\":5}},\"cache_control\":{\"type\":\"ephemeral\"},\"container\":\"c\","
        "\"inference_geo\":null"));
    assert_int_equal(r.n_stop, 2);
    assert_string_equal(r.stop[1], "y");
    assert_true(r.top_k == 7 && r.top_p == 0.5 && r.temperature == 1);
    assert_true(r.stream && r.include_usage);
    assert_string_equal(neutral("user"), "\"u\"");
    assert_string_equal(neutral("service_tier"), "\"default\"");
    assert_string_equal(neutral("thinking"), "{\"type\":\"enabled\",\"budget_tokens\":2048}");
    assert_string_equal(neutral("reasoning_effort"), "\"low\"");
    assert_string_equal(neutral("response_format"),
                        "{\"json_schema\":{\"name\":\"answer\",\"schema\":{\"type\":\"object\"},\"strict\":true},"
                        "\"type\":\"json_schema\"}");
    assert_string_equal(neutral("output_config"), "{\"task_budget\":{\"total\":5}}");
    assert_string_equal(neutral("cache_control"), "{\"type\":\"ephemeral\"}");
    assert_string_equal(neutral("container"), "\"c\"");
    assert_string_equal(neutral("inference_geo"), "-");
    assert_string_equal(neutral("metadata"), "-");
    good(WITH("\"output_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}"));
    assert_string_not_equal(neutral("response_format"), "-");
}

static void test_cache_marks(void **state) {
    (void)state;
#define MARK "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}"
    good("{\"model\":\"m\",\"max_tokens\":9,\"system\":[{\"type\":\"text\",\"text\":\"S\"," MARK
         "}],\"messages\":[{\"role\":"
         "\"user\",\"content\":[{\"type\":\"text\",\"text\":\"U\"," MARK
         "},{\"type\":\"tool_result\",\"tool_use_id\":\"t\","
         "\"content\":\"R\"," MARK "}]}],\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}," MARK
         "}]}");
    assert_string_equal(neutral("messages"),
                        "[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"S\"," MARK "}]},"
                        "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"R\"," MARK
                        "}],\"tool_call_id\":\"t\"},"
                        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"U\"," MARK "}]}]");
    assert_string_equal(neutral("tools"),
                        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"
                        "\"object\"}}," MARK "}]");
}

static void test_tools(void **state) {
    (void)state;
    good(WITH("\"tools\":[{\"type\":\"custom\",\"name\":\"f\",\"description\":\"d\",\"strict\":true,\"input_schema\":{"
              "\"type\":"
              "\"object\"},\"defer_loading\":true},{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}],"
              "\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\",\"disable_parallel_tool_use\":true}"));
    assert_string_equal(
        neutral("tools"),
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"
        "\"object\"},\"strict\":true},\"defer_loading\":true},{\"type\":\"web_search_20250305\",\"name\":"
        "\"web_search\"}]");
    assert_string_equal(neutral("tool_choice"), "{\"function\":{\"name\":\"f\"},\"type\":\"function\"}");
    assert_string_equal(neutral("parallel_tool_calls"), "false");
    err e = {0};
    assert_false(dialect_anthropic.read_local(&r, &e)); /* a model of our own has no web search */
    assert_string_equal(e.param, "tools[1].type");
    static const char *const words[][2] = {{"auto", "\"auto\""}, {"any", "\"required\""}, {"none", "\"none\""}};
    for (int i = 0; i < 3; i++) {
        char body[300];
        snprintf(body, sizeof body,
                 WITH("\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"%s\"}"),
                 words[i][0]);
        good(body);
        assert_string_equal(neutral("tool_choice"), words[i][1]);
        e = (err){0};
        assert_ok(dialect_anthropic.read_local(&r, &e), e);
        assert_int_equal(r.choice, i == 0 ? TOOLS_AUTO : i == 1 ? TOOLS_REQUIRED : TOOLS_NONE);
    }
}

static void test_results(void **state) {
    (void)state;
    good(SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
              "\"Look.\"},"
              "{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{\"x\":[1,\"\\u00e9\"]}},"
              "{\"type\":\"tool_use\",\"id\":\"b\",\"name\":\"g\",\"input\":{}}]},"
              "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":\"1\"},"
              "{\"type\":\"tool_result\",\"tool_use_id\":\"b\",\"is_error\":true,\"content\":[{\"type\":\"text\","
              "\"text\":\"no\"},"
              "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"AA==\"}}]},"
              "{\"type\":\"tool_result\",\"tool_use_id\":\"c\"},{\"type\":\"text\",\"text\":\"Go on.\"}]}"));
    assert_string_equal(
        neutral("messages"),
        "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"Look.\",\"tool_calls\":[{"
        "\"function\":{"
        "\"name\":\"f\",\"arguments\":\"{\\\"x\\\":[1,\\\"\xC3\xA9\\\"]}\"},\"id\":\"a\",\"type\":\"function\"},{"
        "\"function\":{"
        "\"name\":\"g\",\"arguments\":\"{}\"},\"id\":\"b\",\"type\":\"function\"}]},"
        "{\"role\":\"tool\",\"content\":\"1\",\"tool_call_id\":\"a\"},"
        "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"no\"},{\"type\":\"image_url\",\"image_url\":{"
        "\"url\":"
        "\"data:image/png;base64,AA==\"}}],\"tool_call_id\":\"b\",\"is_error\":true},"
        "{\"role\":\"tool\",\"content\":\"\",\"tool_call_id\":\"c\"},{\"role\":\"user\",\"content\":\"Go on.\"}]");
    good(SAYS("{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":\"1\"}]}"));
    assert_int_equal(r.n_messages, 1); /* nothing but a result: no empty turn */
}

static void test_parts(void **state) {
    (void)state;
    good(USER(
        "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://x/y.png\"}},"
        "{\"type\":\"document\",\"title\":\"T\",\"source\":{\"type\":\"base64\",\"media_type\":\"application/pdf\","
        "\"data\":\"JVBE\"}},"
        "{\"type\":\"document\",\"title\":\"T\",\"context\":\"C\",\"source\":{\"type\":\"text\",\"media_type\":"
        "\"text/plain\",\"data\":\"D\"}},"
        "{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}},"
        "{\"type\":\"document\",\"citations\":{\"enabled\":true},\"source\":{\"type\":\"text\",\"data\":\"D\"}},"
        "{\"type\":\"search_result\",\"source\":\"s\",\"title\":\"t\",\"content\":[]}"));
    assert_string_equal(
        neutral("messages"),
        "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x/y.png\"}},"
        "{\"file\":{\"filename\":\"T\",\"file_data\":\"data:application/pdf;base64,JVBE\"},\"type\":\"file\"},"
        "{\"type\":\"text\",\"text\":\"T\\n\\nC\\n\\nD\"},"
        "{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}},"
        "{\"type\":\"document\",\"citations\":{\"enabled\":true},\"source\":{\"type\":\"text\",\"data\":\"D\"}},"
        "{\"type\":\"search_result\",\"source\":\"s\",\"title\":\"t\",\"content\":[]}]}]");
}

static void test_thinking(void **state) {
    (void)state;
    good(ASSISTANT(
        "{\"type\":\"thinking\",\"thinking\":\"Hm.\",\"signature\":\"s1\"},{\"type\":\"redacted_thinking\",\"data\":"
        "\"r1\"},{\"type\":\"thinking\",\"thinking\":\"Ah.\",\"signature\":\"s2\"},{\"type\":\"redacted_thinking\","
        "\"data\":\"r2\"},{\"type\":\"text\",\"text\":\"A\"}"));
    assert_string_equal(
        neutral("messages"),
        "[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":\"A\",\"reasoning_content\":"
        "\"Hm.\\nAh.\",\"reasoning_signature\":\"s2\",\"reasoning_redacted\":\"r1\\nr2\"}]");
    good(ASSISTANT("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}}"));
    assert_null(r.messages[1].content);
    good(SAYS("{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"system\",\"content\":\"From now on.\"}"));
    assert_string_equal(r.messages[1].role, "system");
}

/* ---- what is wrong, and where ---- */

static const struct {
    const char *body, *param, *says;
} bad[] = {
    {"[]", "", "must be a JSON object"},
    {"{", "", "byte"},
    {"{\"max_tokens\":1,\"messages\":[]}", "model", "missing"},
    {"{\"model\":\"\",\"max_tokens\":1,\"messages\":[]}", "model", "name of a model"},
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "max_tokens", "missing"},
    {"{\"model\":\"m\",\"max_tokens\":-1,\"messages\":[]}", "max_tokens", "."},
    {"{\"model\":\"m\",\"max_tokens\":\"9\",\"messages\":[]}", "max_tokens", "."},
    {"{\"model\":\"m\",\"max_tokens\":9}", "messages", "missing"},
    {SAYS(""), "messages", "empty"},
    {SAYS("7"), "messages[0]", "object"},
    {SAYS("{\"content\":\"x\"}"), "messages[0].role", "missing"},
    {SAYS("{\"role\":\"tool\",\"content\":\"x\"}"), "messages[0].role", "\"tool\""},
    {SAYS("{\"role\":\"user\"}"), "messages[0].content", "missing"},
    {SAYS("{\"role\":\"user\",\"content\":5}"), "messages[0].content", "a number"},
    {SAYS("{\"role\":\"user\",\"content\":[]}"), "messages[0].content", "empty"},
    {USER("\"x\""), "messages[0].content[0]", "object"},
    {USER("{}"), "messages[0].content[0].type", "missing"},
    {USER("{\"type\":\"text\"}"), "messages[0].content[0].text", "missing"},
    {USER("{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":1}"), "messages[0].content[1].text",
     "string"},
    {USER("{\"type\":\"image\"}"), "messages[0].content[0].source", "missing"},
    {USER("{\"type\":\"image\",\"source\":{}}"), "messages[0].content[0].source.type", "missing"},
    {USER("{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\"}}"),
     "messages[0].content[0].source.data", "missing"},
    {USER("{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png,x\",\"data\":\"\"}}"),
     "messages[0].content[0].source.media_type", "media type"},
    {USER("{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"text/html\",\"data\":\"\"}}"),
     "messages[0].content[0].source.media_type", "image/"},
    {USER("{\"type\":\"image\",\"source\":{\"type\":\"url\"}}"), "messages[0].content[0].source.url", "missing"},
    {USER("{\"type\":\"document\",\"source\":{\"type\":\"text\"}}"), "messages[0].content[0].source.data", "missing"},
    {USER("{\"type\":\"tool_result\"}"), "messages[0].content[0].tool_use_id", "missing"},
    {USER("{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"is_error\":1}"), "messages[0].content[0].is_error", "."},
    {USER("{\"type\":\"tool_result\",\"tool_use_id\":\"a\",\"content\":[{\"type\":\"text\"}]}"),
     "messages[0].content[0].content[0].text", "missing"},
    {USER("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}}"), "messages[0].content[0].type",
     "no place"},
    {ASSISTANT("{\"type\":\"tool_result\",\"tool_use_id\":\"a\"}"), "messages[1].content[0].type", "no place"},
    {ASSISTANT("{\"type\":\"tool_use\",\"name\":\"f\",\"input\":{}}"), "messages[1].content[0].id", "missing"},
    {ASSISTANT("{\"type\":\"tool_use\",\"id\":\"a\",\"input\":{}}"), "messages[1].content[0].name", "missing"},
    {ASSISTANT("{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":[]}"), "messages[1].content[0].input",
     "array"},
    {ASSISTANT("{\"type\":\"thinking\"}"), "messages[1].content[0].thinking", "missing"},
    {ASSISTANT("{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":1}"), "messages[1].content[0].signature",
     "string"},
    {ASSISTANT("{\"type\":\"redacted_thinking\"}"), "messages[1].content[0].data", "missing"},
    {WITH("\"system\":5"), "system", "number"},
    {WITH("\"system\":[{\"type\":\"image\"}]"), "system[0].type", "text"},
    {WITH("\"system\":[{\"type\":\"text\"}]"), "system[0].text", "missing"},
    {WITH("\"tools\":{}"), "tools", "array"},
    {WITH("\"tools\":[1]"), "tools[0]", "object"},
    {WITH("\"tools\":[{\"type\":1}]"), "tools[0].type", "string"},
    {WITH("\"tools\":[{\"input_schema\":{}}]"), "tools[0].name", "missing"},
    {WITH("\"tools\":[{\"name\":\"f\"}]"), "tools[0].input_schema", "missing"},
    {WITH("\"tools\":[{\"name\":\"f\",\"description\":1,\"input_schema\":{}}]"), "tools[0].description", "string"},
    {WITH("\"tool_choice\":\"auto\""), "tool_choice", "object"},
    {WITH("\"tool_choice\":{}"), "tool_choice.type", "missing"},
    {WITH("\"tool_choice\":{\"type\":\"required\"}"), "tool_choice.type", "any"},
    {WITH("\"tool_choice\":{\"type\":\"tool\"}"), "tool_choice.name", "missing"},
    {WITH("\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":3}"),
     "tool_choice.disable_parallel_tool_use", "."},
    {WITH("\"temperature\":1.5"), "temperature", "1"},
    {WITH("\"top_p\":2"), "top_p", "."},
    {WITH("\"top_k\":-2"), "top_k", "."},
    {WITH("\"n\":2"), "n", "one answer"},
    {WITH("\"stop_sequences\":\"x\""), "stop_sequences", "array"},
    {WITH("\"stop_sequences\":[\"\"]"), "stop_sequences[0]", "empty"},
    {WITH("\"stop_sequences\":[1]"), "stop_sequences[0]", "string"},
    {WITH("\"stop_sequences\":[\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
          "\"1\",\"1\",\"1\"]"),
     "stop_sequences", "16"},
    {WITH("\"stream\":1"), "stream", "."},
    {WITH("\"metadata\":1"), "metadata", "object"},
    {WITH("\"metadata\":{\"user_id\":1}"), "metadata.user_id", "."},
    {WITH("\"service_tier\":1"), "service_tier", "."},
    {WITH("\"thinking\":true"), "thinking", "object"},
    {WITH("\"thinking\":{}"), "thinking.type", "missing"},
    {WITH("\"thinking\":{\"type\":\"enabled\"}"), "thinking.budget_tokens", "missing"},
    {WITH("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":5}"), "thinking.budget_tokens", "1024"},
    {WITH("\"output_config\":1"), "output_config", "object"},
    {WITH("\"output_config\":{\"effort\":1}"), "output_config.effort", "."},
    {WITH("\"output_config\":{\"format\":{\"type\":\"x\"}}"), "output_config.format.type", "json_schema"},
    {WITH("\"output_format\":{\"type\":\"json_schema\"}"), "output_format.schema", "missing"},
    {WITH("\"output_format\":{\"type\":\"json_schema\",\"schema\":{}},\"output_config\":{\"format\":{}}"),
     "output_format", "older"},
    {WITH("\"stop_sequences\":[\"x\"],\"stop\":\"y\""), "stop", "not a member"},
};

static void test_errors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err e;
        if (read(bad[i].body, &e)) {
            fail_msg("taken: %s", bad[i].body);
        }
        if (strcmp(e.param, bad[i].param) != 0 || !strstr(e.text, bad[i].says) || e.text[strlen(e.text) - 1] != '.') {
            fail_msg("%s\nsays \"%s\" at \"%s\"", bad[i].body, e.text, e.param);
        }
        assert_null(r.body);
        assert_null(r.client);
        assert_int_equal(error_status(e.code) / 100, 4);
    }
    err e;
    assert_false(read("{\"model\":\"m\",\"max_tokens\":9}", &e));
    assert_string_equal(r.model, "m"); /* the ledger has a row for it */
    assert_false(dialect_anthropic.read_request(REQUEST_EMBEDDINGS, "{}", 2, memory, &r, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
}

/* ---- keys, counting, filling the cache ---- */

static void test_canonical(void **state) {
    (void)state;
    request other;
    err     e = {0};
    str     a = {0}, b = {0};
    good("{\"max_tokens\":9,\"stream\":true,\"metadata\":{\"user_id\":\"u\"},\"model\":\"m\",\"system\":[{\"type\":"
         "\"text\",\"text\":"
         "\"S\"}],\"messages\":[{\"content\":[{\"text\":\"Hi\",\"type\":\"text\"}],\"role\":\"user\"}],\"stop_"
         "sequences\":[\"x\"],"
         "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"auto\"}}");
    const char *same =
        "{\"model\":\"m\",\"max_completion_tokens\":9,\"stop\":\"x\",\"messages\":[{\"role\":\"system\",\"content\":"
        "\"S\"},{\"role\":\"user\",\"content\":\"Hi\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
        "\"f\",\"parameters\":{\"type\":\"object\"}}}]}";
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, same, strlen(same), memory, &other, &e), e);
    assert_true(dialect_anthropic.canonical(&r, &a) && dialect_openai.canonical(&other, &b));
    assert_string_equal(a.data, b.data);
    request_free(&other);
    str_clear(&a);
    str_clear(&b);
    good("{\"model\":\"m\",\"max_tokens\":0,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
    dialect_anthropic.canonical(&r, &a);
    good("{\"model\":\"m\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
    dialect_anthropic.canonical(&r, &b);
    assert_string_not_equal(a.data, b.data);
    str_free(&a);
    str_free(&b);
}

/* What the neutral form has no place for still makes another question. */
static const char *key_of(const char *body) {
    static str keys[2];
    static int turn;
    str       *key = &keys[turn++ % 2];
    str_clear(key);
    good(body);
    assert_true(dialect_anthropic.canonical(&r, key));
    return key->data;
}

#define TEXT(t)    "{\"type\":\"text\",\"text\":\"" t "\"}"
#define CALL(id)   "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"f\",\"input\":{}}"
#define RESULT(id) "{\"type\":\"tool_result\",\"tool_use_id\":\"" id "\",\"content\":\"R\"}"
#define THINK(t)   "{\"type\":\"thinking\",\"thinking\":\"" t "\",\"signature\":\"s\"}"

static void test_different_questions(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {ASSISTANT(TEXT("a") "," CALL("c") "," TEXT("b")), ASSISTANT(TEXT("a") "," TEXT("b") "," CALL("c"))},
        {ASSISTANT(THINK("a") "," THINK("b")), ASSISTANT(THINK("a\\nb"))},
        {ASSISTANT(TEXT("x") "," THINK("a")), ASSISTANT(THINK("a") "," TEXT("x"))},
        {USER(TEXT("a") "," RESULT("c")), USER(RESULT("c") "," TEXT("a"))},
        {USER("{\"type\":\"text\",\"text\":\"a\",\"citations\":[{\"type\":\"char_location\"}]}"), USER(TEXT("a"))},
        {USER("{\"type\":\"document\",\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"a\"}}"),
         USER(TEXT("a"))},
        {ASSISTANT("{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":{},\"caller\":{\"type\":\"direct\"}}"),
         ASSISTANT(CALL("c"))},
        {USER("{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":[" TEXT("R") "],\"x\":1}"),
         USER(RESULT("c"))},
        {SAYS("{\"role\":\"user\",\"content\":\"a\",\"x\":1}"), SAYS("{\"role\":\"user\",\"content\":\"a\"}")},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const char *one = key_of(pairs[i][0]);
        assert_true(r.narrowed);
        assert_string_not_equal(one, key_of(pairs[i][1]));
        assert_false(r.narrowed);
    }
    /* Marks for a provider's cache make no other question, at any depth; nor do nulls. */
#define MARKED "\"cache_control\":{\"type\":\"ephemeral\"}}"
    assert_string_equal(
        key_of(USER(TEXT("b") ",{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":[{\"type\":\"text\","
                              "\"text\":\"R\"," MARKED "]," MARKED)),
        key_of(USER(TEXT("b") ",{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":[" TEXT("R") "]}")));
    assert_true(r.narrowed);
    good(USER("{\"type\":\"text\",\"text\":\"a\",\"citations\":null,\"x\":[]}"));
    assert_false(r.narrowed);
}

/* A beta that passes on is another question; what the provider is told anyway is none. */
static void test_headers_in_key(void **state) {
    (void)state;
    str plain = {0}, beta = {0};
    good(USER(TEXT("a")));
    dialect_anthropic.canonical(&r, &plain);
    r.n_passed = 1;
    r.passed[0] = (passed_header){"anthropic-version", "2023-06-01"};
    dialect_anthropic.canonical(&r, &beta);
    assert_string_equal(plain.data, beta.data);
    str_clear(&beta);
    r.passed[0].value = "2023-06-011";
    dialect_anthropic.canonical(&r, &beta);
    assert_string_not_equal(plain.data, beta.data);
    str_clear(&beta);
    r.passed[0] = (passed_header){"anthropic-beta", "interleaved-thinking-2025-05-14"};
    dialect_anthropic.canonical(&r, &beta);
    assert_string_not_equal(plain.data, beta.data);
    str_free(&plain);
    str_free(&beta);
}

/* Very many members that nobody knows take no longer than they are long. */
static void test_many_members(void **state) {
    (void)state;
    str body = {0};
    str_adds(&body, "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]");
    for (int i = 0; i < 100000; i++) {
        str_addf(&body, ",\"k%d\":1", i);
    }
    str_addc(&body, '}');
    int64_t begun = clock_us();
    good(body.data);
    assert_true(clock_us() - begun < 10 * 1000000); /* each with each would be minutes */
    str_clear(&body);
    str_adds(&body, WITH("\"stop\":\"x\",\"stop_sequences\":[\"y\"]"));
    err e;
    assert_false(read(body.data, &e)); /* "stop" is what stop_sequences became */
    assert_string_equal(e.param, "stop");
    good(WITH("\"Model\":1")); /* another word than "model" */
    str_free(&body);
}

static void test_count(void **state) {
    (void)state;
    err         e = {0};
    const char *body = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    assert_ok(anthropic_read_count(body, strlen(body), memory, &r, &e), e);
    assert_int_equal(r.max_tokens, -1);
    assert_int_equal(r.n_messages, 1);
    assert_true(anthropic_write_count(12, &text));
    assert_string_equal(text.data, "{\"input_tokens\":12}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plain, start, finish),
        cmocka_unit_test_setup_teardown(test_top, start, finish),
        cmocka_unit_test_setup_teardown(test_cache_marks, start, finish),
        cmocka_unit_test_setup_teardown(test_tools, start, finish),
        cmocka_unit_test_setup_teardown(test_results, start, finish),
        cmocka_unit_test_setup_teardown(test_parts, start, finish),
        cmocka_unit_test_setup_teardown(test_thinking, start, finish),
        cmocka_unit_test_setup_teardown(test_errors, start, finish),
        cmocka_unit_test_setup_teardown(test_canonical, start, finish),
        cmocka_unit_test_setup_teardown(test_different_questions, start, finish),
        cmocka_unit_test_setup_teardown(test_headers_in_key, start, finish),
        cmocka_unit_test_setup_teardown(test_many_members, start, finish),
        cmocka_unit_test_setup_teardown(test_count, start, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
