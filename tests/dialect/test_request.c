/* What a client may send, what it is told when it is wrong, the cache key, and what a provider gets to see. */
#include "check.h"

#include "base/clock.h"
#include "dialect/dialect.h"

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

static bool read(request_kind kind, const char *body, err *e) {
    request_free(&r);
    *e = (err){0};
    return dialect_openai.read_request(kind, body, strlen(body), memory, &r, e);
}

static void good(request_kind kind, const char *body) {
    err e;
    if (!read(kind, body, &e)) {
        fail_msg("%s\nrefused: %s", body, e.text);
    }
}

#define CHAT(rest) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]" rest "}"
#define TEXT(rest) "{\"model\":\"m\",\"prompt\":\"Hi\"" rest "}"

static void test_all_fields(void **state) {
    (void)state;
    good(REQUEST_CHAT,
         "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
         "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
         "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}},"
         "{\"type\":\"text\",\"text\":\"c\"}]},"
         "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[]},{\"role\":\"assistant\"},"
         "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"42\"}],"
         "\"tools\":[{\"type\":\"function\"}],\"tool_choice\":\"auto\",\"n\":1,\"stop\":[\"x\",\"y\"],"
         "\"max_tokens\":5,\"max_completion_tokens\":7,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":-1,\"min_p\":0.1,"
         "\"presence_penalty\":-2,\"frequency_penalty\":2,\"repetition_penalty\":1.1,\"seed\":9223372036854775807,"
         "\"logprobs\":true,\"top_logprobs\":20,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
         "\"ignore_eos\":true,\"user\":\"u\",\"something_new\":{\"a\":1}}");
    assert_string_equal(r.model, "m");
    assert_int_equal(r.n_messages, 6);
    assert_string_equal(r.messages[0].content, "Be brief.");
    assert_true(r.messages[0].plain);
    assert_string_equal(r.messages[1].content, "a\nb");
    assert_true(r.messages[1].plain);
    assert_string_equal(r.messages[2].content, "c");
    assert_false(r.messages[2].plain);
    assert_null(r.messages[3].content);
    assert_false(r.messages[3].plain);
    assert_string_equal(r.messages[5].role, "tool");
    assert_false(r.messages[5].plain);
    assert_non_null(r.tools);
    assert_int_equal(r.n_stop, 2);
    assert_int_equal(r.max_tokens, 7);
    assert_true(r.temperature == 0.5 && r.top_p == 0.9 && r.min_p == 0.1 && r.repeat_penalty == 1.1);
    assert_int_equal(r.top_k, 0);
    assert_true(r.has_seed && r.seed == INT64_MAX);
    assert_true(r.logprobs && r.stream && r.include_usage && r.ignore_eos);
    assert_int_equal(r.top_logprobs, 20);
}

static void test_defaults(void **state) {
    (void)state;
    good(REQUEST_CHAT, CHAT(",\"temperature\":null,\"stop\":null,\"stream_options\":null,\"tools\":[]"));
    assert_true(r.temperature == 1 && r.top_p == 1 && r.repeat_penalty == 1 && r.min_p == 0);
    assert_int_equal(r.max_tokens, -1);
    assert_false(r.has_seed || r.stream || r.include_usage || r.logprobs || r.ignore_eos);
    assert_null(r.tools);
    assert_int_equal(r.n_stop, 0);
}

static void test_prompts(void **state) {
    (void)state;
    good(REQUEST_COMPLETION, TEXT(",\"logprobs\":3,\"echo\":false,\"best_of\":1,\"suffix\":\"\""));
    assert_string_equal(r.prompts[0].text, "Hi");
    assert_true(r.logprobs);
    assert_int_equal(r.top_logprobs, 3);
    good(REQUEST_COMPLETION, TEXT(",\"logprobs\":0"));
    assert_true(r.logprobs);
    good(REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}");
    assert_int_equal(r.n_prompts, 2);
    assert_string_equal(r.prompts[1].text, "b");
    good(REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[0,2147483647]}");
    assert_int_equal(r.n_prompts, 1);
    assert_int_equal(r.prompts[0].n_ids, 2);
    assert_int_equal(r.prompts[0].ids[1], 2147483647);
    good(REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[[1],[2,3]]}");
    assert_int_equal(r.n_prompts, 2);
    assert_int_equal(r.prompts[1].ids[1], 3);
}

typedef struct wrong {
    request_kind kind;
    const char  *body, *param, *part; /* part: of the sentence */
} wrong;

static void test_what_is_wrong(void **state) {
    (void)state;
#define ROLE(x) "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}," x "]}"
    const wrong cases[] = {
        {REQUEST_CHAT, "", "", "empty"},
        {REQUEST_CHAT, "{\"model\":\"m\",", "", "byte"},
        {REQUEST_CHAT, "{\"model\":\"\xff\"}", "", "byte 10"},
        {REQUEST_CHAT, "[]", "", "an array"},
        {REQUEST_CHAT, "{}", "model", "missing"},
        {REQUEST_CHAT, "{\"model\":7}", "model", "a number"},
        {REQUEST_CHAT, "{\"model\":\"\"}", "model", "empty"},
        {REQUEST_CHAT, "{\"model\":\"m\"}", "messages", "missing"},
        {REQUEST_CHAT, "{\"model\":\"m\",\"messages\":{}}", "messages", "an object"},
        {REQUEST_CHAT, "{\"model\":\"m\",\"messages\":[]}", "messages", "empty"},
        {REQUEST_CHAT, ROLE("3"), "messages[1]", "a number"},
        {REQUEST_CHAT, ROLE("{}"), "messages[1].role", "missing"},
        {REQUEST_CHAT, ROLE("{\"role\":\"boss\"}"), "messages[1].role", "boss"},
        {REQUEST_CHAT, ROLE("{\"role\":\"user\"}"), "messages[1].content", "missing"},
        {REQUEST_CHAT, ROLE("{\"role\":\"user\",\"content\":null}"), "messages[1].content", "not null"},
        {REQUEST_CHAT, ROLE("{\"role\":\"user\",\"content\":5}"), "messages[1].content",
         "must be a string or an array of parts, not a number."},
        {REQUEST_CHAT, ROLE("{\"role\":\"user\",\"content\":[7]}"), "messages[1].content[0]", "a number"},
        {REQUEST_CHAT, ROLE("{\"role\":\"user\",\"content\":[{}]}"), "messages[1].content[0].type", "missing"},
        {REQUEST_CHAT, ROLE("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":1}]}"),
         "messages[1].content[0].text", "a number"},
        {REQUEST_CHAT, CHAT(",\"tools\":5"), "tools", "array"},
        {REQUEST_CHAT, CHAT(",\"tools\":[5]"), "tools[0]", "object"},
        {REQUEST_CHAT, CHAT(",\"n\":129"), "n", "between 1"},
        {REQUEST_CHAT, CHAT(",\"n\":0"), "n", "between 1"},
        {REQUEST_CHAT, CHAT(",\"stop\":\"\""), "stop", "empty"},
        {REQUEST_CHAT, CHAT(",\"stop\":[\"a\",\"\"]"), "stop[1]", "empty"},
        {REQUEST_CHAT, CHAT(",\"stop\":[1]"), "stop[0]", "a number"},
        {REQUEST_CHAT,
         CHAT(",\"stop\":[\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\","
              "\"1\",\"1\",\"1\",\"1\",\"1\"]"),
         "stop", "more than 16"},
        {REQUEST_CHAT, CHAT(",\"max_tokens\":0"), "max_tokens", "between 1"},
        {REQUEST_CHAT, CHAT(",\"max_completion_tokens\":1.5"), "max_completion_tokens", "integer"},
        {REQUEST_CHAT, CHAT(",\"temperature\":2.1"), "temperature", "between 0 and 2, not 2.1."},
        {REQUEST_CHAT, CHAT(",\"temperature\":\"1\""), "temperature", "a string"},
        {REQUEST_CHAT, CHAT(",\"top_p\":0"), "top_p", "above 0"},
        {REQUEST_CHAT, CHAT(",\"presence_penalty\":3"), "presence_penalty", "between"},
        {REQUEST_CHAT, CHAT(",\"repetition_penalty\":0"), "repetition_penalty", "above 0"},
        {REQUEST_CHAT, CHAT(",\"repeat_penalty\":0"), "repeat_penalty", "above 0"},
        {REQUEST_CHAT, CHAT(",\"seed\":1.5"), "seed", "integer"},
        {REQUEST_CHAT, CHAT(",\"seed\":9223372036854775808"), "seed", "64 bits"},
        {REQUEST_CHAT, CHAT(",\"seed\":1e300"), "seed", "between"},
        {REQUEST_CHAT, CHAT(",\"logprobs\":1"), "logprobs", "true or false"},
        {REQUEST_CHAT, CHAT(",\"top_logprobs\":2"), "top_logprobs", "needs"},
        {REQUEST_CHAT, CHAT(",\"logprobs\":true,\"top_logprobs\":21"), "top_logprobs", "between"},
        {REQUEST_CHAT, CHAT(",\"stream\":\"yes\""), "stream", "a string"},
        {REQUEST_CHAT, CHAT(",\"stream_options\":{}"), "stream_options", "\"stream\": true"},
        {REQUEST_CHAT, CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":1}"),
         "stream_options.include_usage", "a number"},
        {REQUEST_CHAT, CHAT(",\"user\":1"), "user", "a number"},
        {REQUEST_CHAT, CHAT(",\"ignore_eos\":1"), "ignore_eos", "a number"},
        {REQUEST_COMPLETION, "{\"model\":\"m\"}", "prompt", "missing"},
        {REQUEST_COMPLETION, CHAT(""), "prompt", "/v1/chat/completions"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[]}", "prompt", "empty"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[[]]}", "prompt[0]", "empty"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,2,3,-1]}", "prompt[3]", "token id"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[[1],[2,\"a\"]]}", "prompt[1][1]", "token id"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[2147483648]}", "prompt[0]", "token id"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"a\",1]}", "prompt[1]", "a number"},
        {REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[{}]}", "prompt[0]", "an object"},
        {REQUEST_COMPLETION, TEXT(",\"logprobs\":6"), "logprobs", "between"},
        {REQUEST_COMPLETION, TEXT(",\"echo\":true"), "echo", "not supported"},
        {REQUEST_COMPLETION, TEXT(",\"best_of\":2"), "best_of", "not supported"},
        {REQUEST_COMPLETION, TEXT(",\"suffix\":\"x\""), "suffix", "not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const wrong *w = &cases[i];
        err          e;
        if (read(w->kind, w->body, &e)) {
            fail_msg("taken: %s", w->body);
        }
        if (strcmp(e.param, w->param) != 0 || !strstr(e.text, w->part) || e.text[strlen(e.text) - 1] != '.') {
            fail_msg("%s\ngives %s: %s", w->body, e.param, e.text);
        }
        assert_null(r.body);
    }
}

static void test_too_deep_and_too_many(void **state) {
    (void)state;
    char deep[400];
    err  e;
    strcpy(deep, "{\"model\":\"m\",\"x\":");
    for (int i = 0; i < 70; i++) {
        strcat(deep, "[");
    }
    for (int i = 0; i < 70; i++) {
        strcat(deep, "]");
    }
    strcat(deep, "}");
    assert_false(read(REQUEST_CHAT, deep, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    str many = {0};
    str_adds(&many, "{\"model\":\"m\",\"prompt\":[\"a\"");
    for (int i = 0; i < 64; i++) {
        str_adds(&many, ",\"a\"");
    }
    str_adds(&many, "]}");
    assert_false(read(REQUEST_COMPLETION, many.data, &e));
    assert_string_equal(e.param, "prompt");
    assert_string_equal(r.model, "m"); /* for the ledger */
    str_free(&many);
}

/* ---- the cache key ---- */

static char *canonical(request_kind kind, const char *body) {
    good(kind, body);
    str s = {0};
    assert_true(dialect_openai.canonical(&r, &s));
    return str_take(&s);
}

static void same_key(request_kind kind, const char *a, const char *b, bool same) {
    char *x = canonical(kind, a);
    char *y = canonical(kind, b);
    if ((strcmp(x, y) == 0) != same) {
        fail_msg("%s\n%s\nare %s", x, y, same ? "different" : "the same");
    }
    free(x);
    free(y);
}

static void test_canonical(void **state) {
    (void)state;
    char *key =
        canonical(REQUEST_CHAT, " { \"temperature\" : 1.0, \"messages\":[ {\"content\":\"Hi\", \"role\":\"user\"}],"
                                "\"model\":\"m\",\"stop\":\"x\",\"max_completion_tokens\":1e1}");
    assert_string_equal(key, "chat {\"max_tokens\":10,\"messages\":[{\"content\":\"Hi\",\"role\":\"user\"}],"
                             "\"model\":\"m\",\"stop\":[\"x\"]}");
    free(key);
    static const char *const nothing[] = {
        CHAT(""),
        CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"),
        CHAT(",\"user\":\"u\",\"safety_identifier\":\"s\",\"prompt_cache_key\":\"k\",\"metadata\":{\"a\":\"b\"}"),
        CHAT(",\"store\":true,\"service_tier\":\"flex\""),
        CHAT(",\"priority\":-5,\"cache_prompt\":false"),
        CHAT(",\"priority\":\"high\",\"cache_prompt\":7"),
        CHAT(",\"temperature\":1,\"top_p\":1.0,\"n\":1,\"presence_penalty\":0,\"frequency_penalty\":0.0"),
        CHAT(",\"logprobs\":false,\"top_logprobs\":0,\"ignore_eos\":false,\"tools\":[],\"stop\":[],\"logit_bias\":{}"),
        CHAT(",\"seed\":null,\"unknown\":null,\"max_tokens\":null"),
        "{\"model\":\"m\",\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}],\"role\":\"user\"}]}",
        "{\"model\":\"\\u006d\",\"messages\":[{\"role\":\"user\",\"content\":\"\\u0048i\"}]}",
    };
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
        same_key(REQUEST_CHAT, CHAT(""), nothing[i], true);
    }
    static const char *const something[] = {
        CHAT(",\"temperature\":0.9"),
        CHAT(",\"seed\":0"),
        CHAT(",\"unknown\":0"),
        CHAT(",\"logprobs\":true"),
        CHAT(",\"max_tokens\":100"),
        CHAT(",\"logit_bias\":{\"5\":1}"),
        CHAT(",\"logit_bias\":5"),
        CHAT(",\"repetition_penalty\":1.1"),
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi \"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"Hi\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\",\"name\":\"bob\"}]}",
        "{\"model\":\"n\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"H\"},{\"role\":\"user\",\"content\":\"i\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"H\"},"
        "{\"type\":\"text\",\"text\":\"i\"}]}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\","
        "\"cache_control\":{}}]}]}",
    };
    for (size_t i = 0; i < sizeof something / sizeof something[0]; i++) {
        same_key(REQUEST_CHAT, CHAT(""), something[i], false);
    }
    same_key(REQUEST_CHAT, CHAT(",\"max_tokens\":5"), CHAT(",\"max_completion_tokens\":5"), true);
    same_key(REQUEST_CHAT, CHAT(",\"max_tokens\":5"), CHAT(",\"max_completion_tokens\":5,\"max_tokens\":9"), true);
    same_key(REQUEST_CHAT, CHAT(",\"seed\":9007199254740993"), CHAT(",\"seed\":9007199254740992"), false);
    same_key(REQUEST_CHAT, CHAT(",\"stop\":\"a\""), CHAT(",\"stop\":[\"a\"]"), true);
    same_key(REQUEST_CHAT, CHAT(",\"stop\":[\"b\",\"a\"]"), CHAT(",\"stop\":[\"a\"]"), false);
    same_key(REQUEST_COMPLETION, TEXT(""), "{\"model\":\"m\",\"prompt\":[\"Hi\"],\"best_of\":1,\"echo\":false}", true);
    same_key(REQUEST_COMPLETION, TEXT(""), TEXT(",\"logprobs\":0"), false);
    same_key(REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,2]}", "{\"model\":\"m\",\"prompt\":[[1,2]]}", true);
    same_key(REQUEST_COMPLETION, "{\"model\":\"m\",\"prompt\":[[1,2]]}", "{\"model\":\"m\",\"prompt\":[[1],[2]]}",
             false);
    key = canonical(REQUEST_COMPLETION, TEXT(""));
    assert_memory_equal(key, "completion {", 12);
    free(key);
}

/* ---- what only models of our own obey ---- */

static bool reads_local(const char *more, err *e) {
    static char body[256]; /* the request points into it */
    snprintf(body, sizeof body, "{\"model\":\"m\",\"prompt\":\"Hi\"%s}", more);
    good(REQUEST_COMPLETION, body); /* for a provider any of them is fine */
    return dialect_openai.read_local(&r, e);
}

static void refuses_local(const char *more, const char *param, const char *says) {
    err e = {0};
    assert_false(reads_local(more, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_string_equal(e.param, param);
    assert_says(e, says);
    assert_int_equal(e.text[strlen(e.text) - 1], '.');
}

static void test_local_members(void **state) {
    (void)state;
    err e = {0};
    assert_ok(reads_local("", &e), e);
    assert_true(r.priority == 0 && !r.no_reuse && !r.space);
    assert_ok(reads_local(",\"priority\":null,\"cache_prompt\":null", &e), e);
    assert_true(r.priority == 0 && !r.no_reuse);
    assert_ok(reads_local(",\"priority\":-100,\"cache_prompt\":false", &e), e);
    assert_true(r.priority == -100 && r.no_reuse);
    assert_ok(reads_local(",\"priority\":100,\"cache_prompt\":true", &e), e);
    assert_true(r.priority == 100 && !r.no_reuse);
    refuses_local(",\"priority\":101", "priority", "-100 and 100");
    refuses_local(",\"priority\":-101", "priority", "-100 and 100");
    refuses_local(",\"priority\":1.5", "priority", "integer");
    refuses_local(",\"priority\":\"1\"", "priority", "a string");
    refuses_local(",\"priority\":true", "priority", "integer");
    refuses_local(",\"cache_prompt\":1", "cache_prompt", "cache_prompt");
    refuses_local(",\"cache_prompt\":\"no\"", "cache_prompt", "a string");
    str sent = {0};
    assert_false(reads_local(",\"priority\":\"urgent\"", NULL));
    assert_true(dialect_openai.write_request(&r, "up", false, &sent, NULL));
    assert_string_equal(sent.data, "{\"model\":\"up\",\"prompt\":\"Hi\",\"priority\":\"urgent\"}");
    str_free(&sent);
}

static void test_context_error(void **state) {
    (void)state;
    err e = {0};
    str s = {0};
    err_at(&e, ERR_CONTEXT, "prompt[1]", "the prompt has 300 tokens, the context holds 256");
    assert_int_equal(error_status(e.code), 400);
    assert_true(dialect_openai.write_error(&e, 0, &s));
    assert_string_equal(s.data, "{\"error\":{\"message\":\"the prompt has 300 tokens, the context holds 256\","
                                "\"type\":\"invalid_request_error\",\"param\":\"prompt[1]\","
                                "\"code\":\"context_length_exceeded\"}}");
    str_free(&s);
}

/* ---- to a provider ---- */

static void sends(const char *body, const char *model, bool ask_usage, const char *wanted) {
    good(REQUEST_CHAT, body);
    str s = {0};
    assert_true(dialect_openai.write_request(&r, model, ask_usage, &s, NULL));
    assert_string_equal(s.data, wanted);
    str_free(&s);
}

#define MESSAGES "\"messages\" : [ {\"role\":\"user\", \"content\":\"\\\"model\\\": \\\\\"} ]"

static void test_write_request(void **state) {
    (void)state;
    sends("{\"model\" : \"m\" , " MESSAGES " }", "other \"one\"", false,
          "{\"model\" : \"other \\\"one\\\"\" , " MESSAGES " }");
    sends(" {" MESSAGES ",\"x\":{\"model\":1e5},\"model\":\"m\",\"seed\":1.0} ", "o", true,
          " {" MESSAGES ",\"x\":{\"model\":1e5},\"model\":\"o\",\"seed\":1.0} ");
    sends("{\"mod\\u0065l\":\"m\"," MESSAGES "}", "o", false, "{\"mod\\u0065l\":\"o\"," MESSAGES "}");
    sends("{\"model\":\"m\",\"stream\":true," MESSAGES " } ", "o", true,
          "{\"model\":\"o\",\"stream\":true," MESSAGES ",\"stream_options\":{\"include_usage\":true} } ");
    sends("{\"model\":\"m\",\"stream\":true," MESSAGES "}", "o", false,
          "{\"model\":\"o\",\"stream\":true," MESSAGES "}");
    sends("{\"model\":\"m\",\"stream_options\":null,\"stream\":true," MESSAGES "}", "o", true,
          "{\"model\":\"o\",\"stream_options\":{\"include_usage\":true},\"stream\":true," MESSAGES "}");
    sends("{\"model\":\"m\",\"stream_options\":{\"include_usage\":false,\"y\":[1]},\"stream\":true," MESSAGES "}", "o",
          true, "{\"model\":\"o\",\"stream_options\":{\"include_usage\":true,\"y\":[1]},\"stream\":true," MESSAGES "}");
    sends("{\"model\":\"m\",\"stream_options\":{ \"include_usage\":true},\"stream\":true," MESSAGES "}", "o", true,
          "{\"model\":\"o\",\"stream_options\":{ \"include_usage\":true},\"stream\":true," MESSAGES "}");
}

/* ---- speed: printed, and held to ten times the aim, which a sanitizer or a busy machine may take ---- */

static void measure(const char *name, size_t bytes, double aim_key_us, double aim_write_us) {
    str body = {0};
    str_adds(&body, "{\"model\":\"m\",\"temperature\":0,\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}");
    for (int i = 0; body.len < bytes; i++) {
        str_addf(&body, ",{\"role\":\"user\",\"content\":\"Message %d: \\\"how\\\" does this\\nwork?", i);
        for (size_t n = body.len + bytes / 8; body.len < n;) {
            str_adds(&body, " The quick brown fox jumps over the lazy dog.");
        }
        str_adds(&body, "\"}");
    }
    str_adds(&body, "]}");
    double best[3] = {1e9, 1e9, 1e9};
    for (int round = 0; round < 30; round++) {
        err     e = {0};
        arena  *a = arena_new(4096);
        request q;
        str     key = {0};
        str     out = {0};
        int64_t t0 = clock_us();
        int     times = bytes < 10000 ? 50 : 1;
        for (int i = 0; i < times; i++) {
            if (i > 0) {
                request_free(&q);
            }
            assert_true(dialect_openai.read_request(REQUEST_CHAT, body.data, body.len, a, &q, &e));
        }
        int64_t t1 = clock_us();
        for (int i = 0; i < times; i++) {
            str_clear(&key);
            assert_true(dialect_openai.canonical(&q, &key));
        }
        int64_t t2 = clock_us();
        for (int i = 0; i < times; i++) {
            str_clear(&out);
            assert_true(dialect_openai.write_request(&q, "other", false, &out, NULL));
        }
        int64_t t3 = clock_us();
        double  took[3] = {(double)(t1 - t0) / times, (double)(t2 - t1) / times, (double)(t3 - t2) / times};
        for (int k = 0; k < 3; k++) {
            best[k] = took[k] < best[k] ? took[k] : best[k];
        }
        request_free(&q);
        str_free(&key);
        str_free(&out);
        arena_free(a);
    }
    print_message("%s (%zu bytes): read %.1f us, canonical %.1f us, write %.1f us\n", name, body.len, best[0], best[1],
                  best[2]);
    str_free(&body);
    assert_true(best[1] < 10 * aim_key_us);
    assert_true(best[2] < 10 * aim_write_us);
}

static void test_speed(void **state) {
    (void)state;
    measure("small", 900, 10, 10);
    measure("large", 440000, 1000, 300);
}

int main(void) {
#define ONE(test) cmocka_unit_test_setup_teardown(test, start, finish)
    const struct CMUnitTest tests[] = {
        ONE(test_all_fields),
        ONE(test_defaults),
        ONE(test_prompts),
        ONE(test_what_is_wrong),
        ONE(test_too_deep_and_too_many),
        ONE(test_canonical),
        ONE(test_local_members),
        ONE(test_context_error),
        ONE(test_write_request),
        ONE(test_speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
