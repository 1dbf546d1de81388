/* Answers and streams of the OpenAI API, written, read, and put together from deltas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dialect/openai.h"

static answer grown; /* what the deltas of a test have made */
static int    events, raws;
static str    trail;

static int start(void **state) {
    (void)state;
    events = raws = 0;
    return 0;
}

static int finish(void **state) {
    (void)state;
    answer_clear(&grown);
    str_free(&trail);
    return 0;
}

static void take(void *ctx, const event *ev) {
    err *e = ctx;
    events++;
    raws += ev->raw != NULL;
    assert_ptr_equal(ev->raw_dialect, &dialect_openai);
    assert_true(!ev->raw == !ev->raw_len);
    if (!answer_add(&grown, ev, e)) {
        str_adds(&trail, e->text);
    }
}

static bool chunk(request_kind kind, const char *data, bool *done, err *e) {
    *e = (err){0};
    return dialect_openai.read_chunk(kind, NULL, data, strlen(data), take, e, done, e);
}

static void good_chunk(request_kind kind, const char *data) {
    err  e;
    bool done;
    if (!chunk(kind, data, &done, &e)) {
        fail_msg("%s: %s", data, e.text);
    }
    assert_false(done);
}

/* ---- streams ---- */

static void test_chat_stream(void **state) {
    (void)state;
    good_chunk(REQUEST_CHAT,
               "{\"id\":\"chatcmpl-1\",\"created\":5,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":"
               "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}");
    good_chunk(REQUEST_CHAT, "{\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"Hm\"}}]}");
    good_chunk(REQUEST_CHAT, "{\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"m.\"}}]}");
    good_chunk(REQUEST_CHAT,
               "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"H\\u00e9\"},\"logprobs\":{\"content\":[{\"token\":"
               "\"H\",\"logprob\":-0.5,\"bytes\":[72],\"top_logprobs\":[]}]}}]}");
    good_chunk(REQUEST_CHAT, "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"},\"logprobs\":{\"content\":[{"
                             "\"token\":\"llo\",\"logprob\":-1,\"bytes\":null,\"top_logprobs\":[]}]}}]}");
    good_chunk(REQUEST_CHAT, "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}");
    assert_true(answer_complete(&grown));
    assert_false(grown.usage.known);
    good_chunk(REQUEST_CHAT,
               "{\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3,\"prompt_tokens_details\":"
               "{\"cached_tokens\":4},\"completion_tokens_details\":{\"reasoning_tokens\":2}}}");
    bool done;
    err  e;
    assert_true(chunk(REQUEST_CHAT, "[DONE]", &done, &e));
    assert_true(done);
    assert_int_equal(events, 7);
    assert_int_equal(raws, 7);
    assert_string_equal(grown.id, "chatcmpl-1");
    assert_string_equal(grown.model, "gpt");
    assert_int_equal(grown.created, 5);
    assert_string_equal(grown.choices[0].text.data, "H\xC3\xA9llo");
    assert_string_equal(grown.choices[0].reasoning.data, "Hmm.");
    assert_int_equal(cJSON_GetArraySize(grown.choices[0].logprobs), 2);
    assert_string_equal(grown.choices[0].finish, "stop");
    assert_true(grown.usage.known && grown.usage.prompt == 10 && grown.usage.completion == 3);
    assert_true(grown.usage.cached == 4 && grown.usage.reasoning == 2);
}

static const char *in_call(int i, const char *key) {
    const cJSON *call = cJSON_GetArrayItem(grown.choices[0].tool_calls, i);
    const cJSON *function = cJSON_GetObjectItem(call, "function");
    const cJSON *value = cJSON_GetObjectItem(cJSON_GetObjectItem(function, key) ? function : call, key);
    return value ? value->valuestring : NULL;
}

static void test_tool_calls(void **state) {
    (void)state;
#define CALLS(x) "{\"choices\":[{\"delta\":{\"tool_calls\":[" x "]}}]}"
    good_chunk(REQUEST_CHAT, CALLS("{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                                   "\"arguments\":\"\"}}"));
    good_chunk(REQUEST_CHAT, CALLS("{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\"}},"
                                   "{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\":\"}}"));
    good_chunk(REQUEST_CHAT, CALLS("{\"index\":1,\"function\":{\"arguments\":\"{}\"}}"));
    good_chunk(REQUEST_CHAT, CALLS("{\"index\":0,\"id\":\"\",\"function\":{\"name\":\"\",\"arguments\":\"1}\"}}"));
    good_chunk(REQUEST_CHAT,
               CALLS("{\"id\":\"c\",\"function\":{\"name\":\"h\",\"arguments\":{\"y\": 2}}}")); /* no index */
    assert_int_equal(cJSON_GetArraySize(grown.choices[0].tool_calls), 3);
    assert_string_equal(in_call(0, "id"), "a");
    assert_string_equal(in_call(0, "name"), "f");
    assert_string_equal(in_call(0, "arguments"), "{\"x\":1}");
    assert_string_equal(in_call(1, "id"), "b");
    assert_string_equal(in_call(1, "type"), "function");
    assert_string_equal(in_call(1, "arguments"), "{}");
    assert_string_equal(in_call(2, "id"), "c");
    assert_string_equal(in_call(2, "arguments"), "{\"y\":2}");
    for (int i = 0; i < 5000; i++) { /* a character at a time, over many sizes of memory */
        good_chunk(REQUEST_CHAT, CALLS("{\"index\":1,\"function\":{\"arguments\":\"x\"}}"));
    }
    assert_int_equal(strlen(in_call(1, "arguments")), 5002);
    assert_int_equal(trail.len, 0);
}

static void test_bounds(void **state) {
    (void)state;
    err  e = {0};
    bool done;
    for (int i = 0; i < 256; i++) {
        char call[128];
        snprintf(call, sizeof call, "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":%d,\"id\":\"x\"}]}}]}",
                 i * 3);
        good_chunk(REQUEST_CHAT, call);
    }
    assert_int_equal(trail.len, 0);
    good_chunk(REQUEST_CHAT, CALLS("{\"index\":9999,\"id\":\"x\"}"));
    assert_non_null(strstr(trail.data, "256"));
    assert_false(chunk(REQUEST_CHAT, "{\"choices\":[{\"index\":128,\"delta\":{}}]}", &done, &e));
    assert_false(chunk(REQUEST_CHAT, "{\"choices\":[{\"index\":-1,\"delta\":{}}]}", &done, &e));
    event ev = {.text = "x", .text_len = 1, .choice = 128};
    assert_false(answer_add(&grown, &ev, &e));
    char *big = malloc(40 << 20);
    memset(big, 'x', 40 << 20);
    ev = (event){.text = big, .text_len = 40 << 20, .choice = 3};
    assert_true(answer_add(&grown, &ev, &e));
    ev.choice = 5;
    assert_false(answer_add(&grown, &ev, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    assert_int_equal(grown.n_choices, 6);
    free(big);
}

static void test_completion_stream(void **state) {
    (void)state;
    good_chunk(REQUEST_COMPLETION,
               "{\"id\":\"cmpl-1\",\"choices\":[{\"index\":1,\"text\":\"b\",\"logprobs\":{\"tokens\":[\"b\"],"
               "\"token_logprobs\":[-0.25],\"top_logprobs\":[{\"b\":-0.25,\"c\":-2}],\"text_offset\":[0]}},"
               "{\"index\":0,\"text\":\"a\",\"finish_reason\":\"length\"}]}");
    assert_int_equal(events, 2);
    assert_int_equal(raws, 1);
    assert_string_equal(grown.choices[0].text.data, "a");
    assert_string_equal(grown.choices[1].text.data, "b");
    assert_string_equal(grown.choices[0].finish, "length");
    assert_false(answer_complete(&grown));
    const cJSON *entry = grown.choices[1].logprobs->child;
    assert_true(cJSON_GetObjectItem(entry, "logprob")->valuedouble == -0.25);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(entry, "top_logprobs")), 2);
}

static void test_errors_in_a_stream(void **state) {
    (void)state;
    err  e;
    bool done;
    assert_false(chunk(REQUEST_CHAT, "{\"error\":{\"message\":\"Overloaded\",\"type\":\"x\"}}", &done, &e));
    assert_int_equal(e.code, ERR_UPSTREAM);
    assert_non_null(strstr(e.text, "Overloaded"));
    assert_false(chunk(REQUEST_CHAT, "{\"error\":\"plain\"}", &done, &e));
    assert_non_null(strstr(e.text, "plain"));
    assert_false(chunk(REQUEST_CHAT, "{\"choices\":", &done, &e));
    assert_int_equal(e.code, ERR_UPSTREAM);
    assert_false(chunk(REQUEST_CHAT, "[]", &done, &e));
    assert_int_equal(events, 0);
    good_chunk(REQUEST_CHAT, "{\"choices\":[],\"prompt_filter_results\":[]}"); /* passes through */
    assert_int_equal(raws, 1);
}

/* ---- whole answers ---- */

static void read_back(request_kind kind, const str *written, answer *out) {
    err e = {0};
    if (!dialect_openai.read_answer(kind, written->data, written->len, out, &e)) {
        fail_msg("%s: %s", written->data, e.text);
    }
    assert_int_equal(out->raw_len, written->len);
    assert_memory_equal(out->raw, written->data, written->len);
    assert_ptr_equal(out->raw_dialect, &dialect_openai);
}

static void test_round_trip(void **state) {
    (void)state;
    answer a = {.id = "chatcmpl-9",
                .model = "m",
                .created = 77,
                .usage = {.prompt = 10, .completion = 5, .cached = 3, .reasoning = 2, .known = true}};
    event  ev = {
         .text = "Hi \"you\"\n\xC3\xA9", .text_len = 11, .reasoning = "so", .reasoning_len = 2, .finish = "stop"};
    cJSON *calls = cJSON_Parse("[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                               "\"arguments\":\"{\\\"x\\\":1}\"}},{\"index\":1,\"id\":\"b\",\"function\":{\"name\":"
                               "\"g\",\"arguments\":\"{}\"}}]");
    cJSON *logprobs = cJSON_Parse("[{\"token\":\"Hi\",\"logprob\":-0.125,\"bytes\":[72,105],\"top_logprobs\":"
                                  "[{\"token\":\"Hi\",\"logprob\":-0.125,\"bytes\":[72,105]}]}]");
    err    e = {0};
    assert_true(answer_add(&a, &ev, &e));
    ev = (event){.choice = 1, .refusal = "No.", .refusal_len = 3, .finish = "content_filter"};
    assert_true(answer_add(&a, &ev, &e));
    ev = (event){.choice = 2, .tool_calls = calls, .logprobs = logprobs, .finish = "tool_calls"};
    assert_true(answer_add(&a, &ev, &e));
    str first = {0};
    str second = {0};
    assert_true(dialect_openai.write_answer(&(request){.kind = REQUEST_CHAT}, &a, &first));
    answer b;
    read_back(REQUEST_CHAT, &first, &b);
    assert_true(dialect_openai.write_answer(&(request){.kind = REQUEST_CHAT}, &b, &second));
    assert_string_equal(first.data, second.data);
    assert_int_equal(b.n_choices, 3);
    assert_string_equal(b.choices[0].text.data, "Hi \"you\"\n\xC3\xA9");
    assert_string_equal(b.choices[0].reasoning.data, "so");
    assert_string_equal(b.choices[1].refusal.data, "No.");
    assert_string_equal(b.choices[1].finish, "content_filter");
    assert_int_equal(cJSON_GetArraySize(b.choices[2].tool_calls), 2);
    assert_int_equal(cJSON_GetArraySize(b.choices[2].logprobs), 1);
    assert_memory_equal(&b.usage, &a.usage, sizeof a.usage);
    assert_non_null(strstr(first.data, "\"object\":\"chat.completion\",\"created\":77"));
    assert_non_null(strstr(first.data, "\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"a\""));
    assert_non_null(strstr(first.data, "\"total_tokens\":15"));
    answer_clear(&a);
    answer_clear(&b);
    str_free(&first);
    str_free(&second);
    cJSON_Delete(calls);
    cJSON_Delete(logprobs);
}

static void test_completion_round_trip(void **state) {
    (void)state;
    const char *body =
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,"
        "\"text\":\"\xC3\xA9\x61\x62\",\"logprobs\":{\"tokens\":[\"\xC3\xA9\",\"ab\"],\"token_logprobs\":[null,-0.5],"
        "\"top_logprobs\":[{},{\"ab\":-0.5,\"x\":-3}],\"text_offset\":[0,1]},\"finish_reason\":\"length\"}]}";
    str    in = {0};
    str    out = {0};
    answer a;
    str_adds(&in, body);
    read_back(REQUEST_COMPLETION, &in, &a);
    assert_true(dialect_openai.write_answer(&(request){.kind = REQUEST_COMPLETION}, &a, &out));
    assert_string_equal(out.data, body);
    answer_clear(&a);
    str_free(&in);
    str_free(&out);
}

static void test_answers_that_are_none(void **state) {
    (void)state;
    static const char *const bodies[] = {"",
                                         "{",
                                         "[]",
                                         "{}",
                                         "{\"choices\":[]}",
                                         "{\"choices\":{}}",
                                         "{\"error\":{\"message\":\"no\"},\"choices\":[{}]}",
                                         "{\"choices\":[{\"index\":1e9}]}"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        answer a;
        err    e = {0};
        assert_false(dialect_openai.read_answer(REQUEST_CHAT, bodies[i], strlen(bodies[i]), &a, &e));
        assert_true(e.text[0] != 0);
        assert_null(a.choices);
    }
    str    parts = {0};
    answer a;
    str_adds(&parts, "{\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
                     "\"text\":\"b\"}]},\"finish_reason\":\"stop\"}]}");
    read_back(REQUEST_CHAT, &parts, &a);
    assert_string_equal(a.choices[0].text.data, "ab");
    answer_clear(&a);
    str_free(&parts);
}

/* ---- chunks and errors, written ---- */

static void test_write_chunk(void **state) {
    (void)state;
    answer head = {.id = "chatcmpl-1", .model = "m", .created = 3};
    event  ev = {.text = "a", .text_len = 1};
    usage  u = {1, 2, 0, 0, true, false};
    str    s = {0};
    assert_true(openai_write_chunk(REQUEST_CHAT, &head, &(event){0}, true, &s));
    assert_string_equal(s.data, "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":3,\"model\":"
                                "\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                                "\"logprobs\":null,\"finish_reason\":null}]}");
    str_clear(&s);
    assert_true(openai_write_chunk(REQUEST_CHAT, &head, &ev, false, &s));
    assert_non_null(strstr(s.data, "\"delta\":{\"content\":\"a\"}"));
    str_clear(&s);
    ev = (event){.finish = "stop"};
    assert_true(openai_write_chunk(REQUEST_CHAT, &head, &ev, false, &s));
    assert_non_null(strstr(s.data, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\""));
    str_clear(&s);
    cJSON *calls = cJSON_Parse("[{\"id\":\"a\"},{\"index\":7,\"id\":\"b\"},{}]");
    ev = (event){.tool_calls = calls};
    assert_true(openai_write_chunk(REQUEST_CHAT, &head, &ev, false, &s));
    assert_non_null(strstr(s.data, "\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\"},{\"index\":7,\"id\":\"b\"},"
                                   "{\"index\":2}]}"));
    cJSON_Delete(calls);
    str_clear(&s);
    ev = (event){.text = "t", .text_len = 1};
    assert_true(openai_write_chunk(REQUEST_COMPLETION, &head, &ev, true, &s));
    assert_non_null(strstr(s.data, "\"object\":\"text_completion\""));
    assert_non_null(strstr(s.data, "{\"index\":0,\"text\":\"t\",\"logprobs\":null,\"finish_reason\":null}"));
    str_clear(&s);
    assert_true(openai_write_usage(REQUEST_CHAT, &head, &u, &s));
    assert_non_null(strstr(s.data, "\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_"));
    str_free(&s);
}

/* Each choice's first chunk has the role, in whatever order they begin. */
static void test_choices_out_of_order(void **state) {
    (void)state;
    openai_writing w = {0};
    answer         head = {.id = "c"};
    request        r = {.kind = REQUEST_CHAT};
    static const struct {
        int  choice;
        bool first;
    } steps[] = {{1, true}, {0, true}, {1, false}, {0, false}, {127, true}, {127, false}, {64, true}};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        str   s = {0};
        event ev = {.text = "a", .text_len = 1, .choice = steps[i].choice};
        assert_true(openai_write_event(&r, &w, &head, &ev, &s));
        assert_int_equal(strstr(s.data, "assistant") != NULL, steps[i].first);
        str_free(&s);
    }
}

static void test_write_error(void **state) {
    (void)state;
    static const struct {
        err_code    code;
        int         status;
        const char *param, *wanted;
    } cases[] = {
        {ERR_INVALID, 400, "n", "\"type\":\"invalid_request_error\",\"param\":\"n\",\"code\":null}}"},
        {ERR_NOT_FOUND, 404, "model",
         "\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"model_not_found\""},
        {ERR_DENIED, 0, "", "\"type\":\"authentication_error\",\"param\":null,\"code\":\"invalid_api_key\""},
        {ERR_BUSY, 429, "", "\"type\":\"rate_limit_error\""},
        {ERR_UPSTREAM, 0, "", "\"type\":\"api_error\""},
        {ERR_LIMIT, 0, "", "\"type\":\"invalid_request_error\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err e = {0};
        str s = {0};
        err_at(&e, cases[i].code, cases[i].param, "A \"sentence\" %c.", 0xFF);
        assert_true(dialect_openai.write_error(&e, cases[i].status, &s));
        assert_non_null(strstr(s.data, "{\"error\":{\"message\":\"A \\\"sentence\\\" \xEF\xBF\xBD.\","));
        assert_non_null(strstr(s.data, cases[i].wanted));
        cJSON *root = json_parse(s.data, s.len, 8, &e);
        assert_non_null(root);
        cJSON_Delete(root);
        str_free(&s);
    }
}

int main(void) {
#define ONE(test) cmocka_unit_test_setup_teardown(test, start, finish)
    const struct CMUnitTest tests[] = {
        ONE(test_chat_stream),
        ONE(test_tool_calls),
        ONE(test_bounds),
        ONE(test_completion_stream),
        ONE(test_errors_in_a_stream),
        ONE(test_round_trip),
        ONE(test_completion_round_trip),
        ONE(test_answers_that_are_none),
        ONE(test_write_chunk),
        ONE(test_choices_out_of_order),
        ONE(test_write_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
