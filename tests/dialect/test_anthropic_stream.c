/* Streams and answers of Anthropic's Messages API: read, however they are cut; passed on; and written from the deltas of
 * others, however these are mixed. */
#include "check.h"

#include "dialect/anthropic.h"
#include "dialect/neutral.h"
#include "dialect/sse.h"

/* ---- reading: a stream's bytes into an answer ---- */

typedef struct reader {
    anthropic_reading state;
    answer            grown;
    str               passed, trail; /* trail: the events in short */
    anthropic_writing writing;
    int               raws;
    bool              done;
    err               e;
} reader;

static void take(void *ctx, const event *ev) {
    reader *rd = ctx;
    assert_ptr_equal(ev->raw_dialect, &dialect_anthropic);
    assert_true(answer_add(&rd->grown, ev, &rd->e));
    if (ev->raw) {
        rd->raws++;
        assert_true(dialect_anthropic.write_raw(NULL, &rd->writing, ev, &rd->passed));
    }
    str_addf(&rd->trail, "%s%s%s%s%s%s%s", ev->id ? "i" : "", ev->reasoning ? "r" : "", ev->signature ? "s" : "",
             ev->text ? "t" : "", ev->tool_calls ? "c" : "", ev->finish ? "f" : "", ev->usage ? "u" : "");
}

static bool payload(void *ctx, const char *data, size_t n) {
    reader *rd = ctx;
    assert_false(rd->done); /* nothing comes behind the end */
    return dialect_anthropic.read_chunk(REQUEST_CHAT, &rd->state, data, n, take, rd, &rd->done, &rd->e);
}

static bool feed(reader *rd, const char *bytes, size_t n, size_t cut) {
    sse_reader sse = {0};
    err        e = {0};
    bool good = sse_feed(&sse, bytes, cut, payload, rd, &e) && sse_feed(&sse, bytes + cut, n - cut, payload, rd, &e);
    sse_clear(&sse);
    return good;
}

static void reader_clear(reader *rd) {
    answer_clear(&rd->grown);
    str_free(&rd->passed);
    str_free(&rd->trail);
    *rd = (reader){0};
}

static const char *call_text(const answer *a, int i, const char *key) {
    const cJSON *call = cJSON_GetArrayItem(a->choices[0].tool_calls, i);
    const cJSON *function = neutral_get(call, "function");
    return neutral_text(neutral_get(function, key) ? function : call, key);
}

#define EVENT(name, rest) "event: " name "\ndata: {\"type\":\"" name "\"" rest "}\n\n"
#define START(i, block)   EVENT("content_block_start", ",\"index\":" i ",\"content_block\":" block)
#define DELTA(i, delta)   EVENT("content_block_delta", ",\"index\":" i ",\"delta\":{\"type\":" delta "}")
#define STOP(i)           EVENT("content_block_stop", ",\"index\":" i)

/* In the form of the API's guide: thinking, text, two calls, a search of the provider's own between them. */
static const char recorded[] = EVENT(
    "message_start",
    ",\"message\":{\"id\":\"msg_01\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\","
    "\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":20,"
    "\"cache_creation_input_tokens\":300,\"cache_read_input_tokens\":1000,\"cache_creation\":{"
    "\"ephemeral_5m_input_tokens\":100,\"ephemeral_1h_input_tokens\":200},\"output_tokens\":1,"
    "\"service_tier\":\"priority\"}}") START("0", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
    EVENT("ping", "") DELTA("0", "\"thinking_delta\",\"thinking\":\"Let me \"") DELTA(
        "0", "\"thinking_delta\",\"thinking\":\"see.\"") DELTA("0", "\"signature_delta\",\"signature\":\"EqQB==\"")
        STOP("0") START("1", "{\"type\":\"text\",\"text\":\"\"}") DELTA(
            "1", "\"text_delta\",\"text\":\"H\\u00e9\"") DELTA("1", "\"text_delta\",\"text\":\"llo\"")
            DELTA("1", "\"citations_delta\",\"citation\":{\"type\":\"char_location\"}") STOP("1") START(
                "2", "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"weather\",\"input\":{}}")
                DELTA("2", "\"input_json_delta\",\"partial_json\":\"\"") DELTA(
                    "2", "\"input_json_delta\",\"partial_json\":\"{\\\"city\\\": \\\"Par\"")
                    DELTA("2", "\"input_json_delta\",\"partial_json\":\"is\\\"}\"") STOP("2") START(
                        "3",
                        "{\"type\":\"server_tool_use\",\"id\":\"srvtoolu_1\",\"name\":\"web_search\",\"input\":{}}")
                        DELTA("3", "\"input_json_delta\",\"partial_json\":\"{\\\"query\\\":1}\"") STOP("3") START(
                            "4", "{\"type\":\"web_search_tool_result\",\"tool_use_id\":\"srvtoolu_1\",\"content\":[]}")
                            STOP("4")
                                START("5", "{\"type\":\"tool_use\",\"id\":\"toolu_2\",\"name\":\"now\",\"input\":{}}")
                                    STOP("5") EVENT("something_new", ",\"x\":[1]")
                                        EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_"
                                                               "sequence\":null},\"usage\":{\"output_tokens\":89,"
                                                               "\"output_tokens_details\":{\"thinking_tokens\":30},"
                                                               "\"server_tool_use\":{\"web_search_requests\":1}}")
                                            EVENT("message_stop", "");

static void check_recorded(const reader *rd) {
    const answer *a = &rd->grown;
    const usage  *u = &a->usage;
    assert_true(rd->done);
    assert_string_equal(a->id, "msg_01");
    assert_string_equal(a->model, "claude-sonnet-4-5");
    assert_int_equal(a->n_choices, 1);
    assert_string_equal(a->choices[0].reasoning.data, "Let me see.");
    assert_string_equal(a->choices[0].signature.data, "EqQB==");
    assert_string_equal(a->choices[0].text.data, "H\xC3\xA9llo");
    assert_string_equal(a->choices[0].finish, "tool_calls");
    assert_true(a->narrowed); /* the search has no place here */
    assert_int_equal(cJSON_GetArraySize(a->choices[0].tool_calls), 2);
    assert_string_equal(call_text(a, 0, "id"), "toolu_1");
    assert_string_equal(call_text(a, 0, "name"), "weather");
    assert_string_equal(call_text(a, 0, "arguments"), "{\"city\": \"Paris\"}");
    assert_string_equal(call_text(a, 1, "arguments"), "{}");
    assert_true(u->known && u->prompt == 1320 && u->cached == 1000 && u->write_5m == 100 && u->write_1h == 200);
    assert_true(u->completion == 89 && u->reasoning == 30 && u->searches == 1 && u->tier == TIER_PRIORITY);
    int events = 0;
    for (const char *p = recorded; (p = strstr(p, "event: ")); p++) {
        events++;
    }
    assert_int_equal(rd->raws, events); /* each passes, once */
}

static void test_every_cut(void **state) {
    (void)state;
    size_t n = sizeof recorded - 1;
    for (size_t cut = 0; cut <= n; cut++) {
        reader rd = {0};
        assert_true(feed(&rd, recorded, n, cut));
        check_recorded(&rd);
        reader_clear(&rd);
    }
}

/* The same dialect on both sides: the bytes themselves, with comments before the last event. */
static void test_passed_on(void **state) {
    (void)state;
    reader rd = {0};
    size_t n = sizeof recorded - 1, tail = strlen(EVENT("message_stop", ""));
    assert_true(feed(&rd, recorded, n, n));
    assert_true(dialect_anthropic.write_end(NULL, &rd.writing, &rd.grown, true, ": x-pare-cost-usd 1\n", &rd.passed));
    assert_int_equal(strncmp(rd.passed.data, recorded, n - tail), 0);
    assert_string_equal(rd.passed.data + n - tail, ": x-pare-cost-usd 1\n\n" EVENT("message_stop", ""));
    reader_clear(&rd);
    anthropic_writing w = {0};
    str               out = {0};
    answer            none = {0};
    char              lines[] = "{\"type\":\n\"message_stop\",\"x\":1}";
    event             ev = {.raw = lines, .raw_len = strlen(lines)};
    assert_true(dialect_anthropic.write_raw(NULL, &w, &ev, &out));
    assert_int_equal(out.len, 0);
    dialect_anthropic.write_end(NULL, &w, &none, true, "", &out);
    assert_string_equal(out.data, "event: message_stop\ndata: {\"type\":\ndata: \"message_stop\",\"x\":1}\n\n");
    str_clear(&out);
    char *big = calloc(1, 2000); /* no room for it: it passes at once, and once */
    memset(big, ' ', 1999);
    memcpy(big, "{\"type\":\"message_stop\"}", 23);
    ev = (event){.raw = big, .raw_len = 1999};
    w = (anthropic_writing){0};
    assert_true(dialect_anthropic.write_raw(NULL, &w, &ev, &out));
    dialect_anthropic.write_end(NULL, &w, &none, true, ": c\n", &out);
    assert_non_null(strstr(out.data, "message_stop"));
    assert_null(strstr(strstr(out.data, "data:"), "event:"));
    assert_string_equal(out.data + out.len - 5, ": c\n\n");
    str_clear(&out);
    w = (anthropic_writing){0};
    ev = (event){.raw = "{\"type\":\"a\\nb\"}", .raw_len = 15};
    dialect_anthropic.write_raw(NULL, &w, &ev, &out); /* no name that could break a line */
    assert_int_equal(strncmp(out.data, "event: message\ndata: {", 22), 0);
    free(big);
    str_free(&out);
}

static void test_wrong_streams(void **state) {
    (void)state;
    static const struct {
        const char *data, *says;
    } cases[] = {
        {"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}", "Overloaded"},
        {"{\"type\":\"error\"}", "did not say"},
        {"[1]", "not a JSON object"},
        {"{", "cannot be read"},
        {"{\"type\":\"content_block_start\",\"index\":1024,\"content_block\":{\"type\":\"tool_use\"}}", "1024 blocks"},
        {"{\"type\":\"content_block_start\",\"index\":-1,\"content_block\":{\"type\":\"tool_use\"}}", "1024 blocks"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        reader rd = {0};
        assert_false(payload(&rd, cases[i].data, strlen(cases[i].data)));
        assert_says(rd.e, cases[i].says);
        assert_int_equal(rd.e.code, i < 4 ? ERR_UPSTREAM : ERR_LIMIT);
        assert_int_equal(rd.raws, 0);
        reader_clear(&rd);
    }
    static const char *const odd[] = {
        "{}",
        "{\"type\":5}",
        "{\"type\":\"message_start\"}",
        "{\"type\":\"content_block_start\"}",
        "{\"type\":\"content_block_delta\"}",
        ("{\"type\":\"content_block_delta\",\"index\":1e9,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"
         "\"x\"}}"),
        "{\"type\":\"content_block_delta\",\"index\":\"0\",\"delta\":{\"type\":\"text_delta\",\"text\":7}}",
        "{\"type\":\"content_block_stop\",\"index\":77}",
        "{\"type\":\"message_delta\",\"usage\":{\"output_tokens\":-5}}",
    };
    reader rd = {0};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        assert_true(payload(&rd, odd[i], strlen(odd[i])));
    }
    assert_int_equal(rd.raws, 9); /* each passes, none says a word */
    assert_int_equal(rd.grown.n_choices, 0);
    reader_clear(&rd);
}

static void test_stop_reasons(void **state) {
    (void)state;
    static const char *const words[][2] = {
        {"end_turn", "stop"},
        {"stop_sequence", "stop"},
        {"max_tokens", "length"},
        {"tool_use", "tool_calls"},
        {"refusal", "content_filter"},
        {"pause_turn", "length"},
        {"model_context_window_exceeded", "length"},
        {"of_tomorrow", "stop"},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_string_equal(anthropic_finish(words[i][0]), words[i][1]);
    }
    assert_null(anthropic_finish(NULL));
    reader      rd = {0};
    const char *refused =
        "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"refusal\",\"stop_details\":{\"type\":"
        "\"refusal\",\"explanation\":\"No.\"}},\"usage\":{\"output_tokens\":3}}";
    assert_true(payload(&rd, refused, strlen(refused)));
    assert_string_equal(rd.grown.choices[0].refusal.data, "No.");
    assert_string_equal(rd.grown.choices[0].finish, "content_filter");
    assert_string_equal(rd.trail.data, "fu");
    reader_clear(&rd);
}

/* ---- whole answers ---- */

static void test_whole(void **state) {
    (void)state;
    static const char body[] = "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\","
                               "\"content\":[{\"type\":\"thinking\",\"thinking\":"
                               "\"Hm\",\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"x\"},{\"type\":"
                               "\"text\",\"text\":\"A\",\"citations\":null},"
                               "{\"type\":\"text\",\"text\":\"B\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\","
                               "\"input\":{\"x\":1}},{\"type\":\"tool_use\","
                               "\"id\":\"u\",\"name\":\"g\",\"input\":{}},{\"type\":\"of_tomorrow\"},7],\"stop_"
                               "reason\":\"tool_use\",\"usage\":{\"input_tokens\":5,"
                               "\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":11,\"output_tokens\":13,"
                               "\"service_tier\":\"batch\"}}";
    answer            a;
    err               e = {0};
    str               out = {0};
    assert_ok(dialect_anthropic.read_answer(REQUEST_CHAT, body, sizeof body - 1, &a, &e), e);
    assert_string_equal(a.raw, body);
    assert_ptr_equal(a.raw_dialect, &dialect_anthropic);
    assert_string_equal(a.choices[0].text.data, "AB");
    assert_string_equal(a.choices[0].reasoning.data, "Hm");
    assert_string_equal(a.choices[0].signature.data, "s 2!x"); /* anthropic_thoughts.c */
    assert_string_equal(call_text(&a, 0, "arguments"), "{\"x\":1}");
    assert_string_equal(call_text(&a, 1, "id"), "u");
    assert_true(a.usage.prompt == 23 && a.usage.cached == 11 && a.usage.write_5m == 7 && a.usage.write_1h == 0);
    assert_true(a.usage.completion == 13 && a.usage.tier == TIER_BATCH);
    assert_true(dialect_anthropic.write_answer(NULL, &a, &out));
    assert_string_equal(
        out.data,
        "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\",\"content\":[{\"type\":"
        "\"thinking\",\"thinking\":"
        "\"Hm\",\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"x\"},{\"type\":\"text\",\"text\":"
        "\"AB\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{\"x\":1}},"
        "{\"type\":\"tool_use\",\"id\":\"u\",\"name\":\"g\",\"input\":{}}],\"stop_reason\":\"tool_use\",\"stop_"
        "sequence\":null,\"usage\":{"
        "\"input_tokens\":5,\"cache_creation_input_tokens\":7,\"cache_read_input_tokens\":11,\"cache_creation\":{"
        "\"ephemeral_5m_input_tokens\":7,\"ephemeral_1h_input_tokens\":0},\"output_tokens\":13,\"service_tier\":"
        "\"batch\"}}");
    answer again;
    assert_ok(dialect_anthropic.read_answer(REQUEST_CHAT, out.data, out.len, &again, &e), e);
    assert_memory_equal(&again.usage, &a.usage, sizeof a.usage);
    answer_clear(&again);
    answer_clear(&a);
    str_free(&out);
}

/* Which answers the neutral form holds all of, whole and as a stream. */
static void test_narrowed(void **state) {
    (void)state;
    static const struct {
        bool        narrowed;
        const char *blocks, *stop;
    } cases[] = {
        {false, "{\"type\":\"text\",\"text\":\"a\",\"citations\":null}", "end_turn"},
        {false, "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"a\"}",
         "end_turn"},
        {false, "{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"f\",\"input\":{}}", "tool_use"},
        {true, "{\"type\":\"text\",\"text\":\"a\"}", "stop_sequence"},
        {true, "{\"type\":\"text\",\"text\":\"a\",\"citations\":[{}]}", "end_turn"},
        {true, "{\"type\":\"redacted_thinking\",\"data\":\"x\"},{\"type\":\"text\",\"text\":\"a\"}", "end_turn"},
        {true,
         "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"thinking\",\"thinking\":\"u\","
         "\"signature\":\"v\"}",
         "end_turn"},
        {true, "{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"}",
         "end_turn"},
        {true, "{\"type\":\"server_tool_use\",\"id\":\"i\",\"name\":\"web_search\",\"input\":{}}", "end_turn"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        str    body = {0}, line = {0};
        answer a;
        err    e = {0};
        reader rd = {0};
        str_addf(&body, "{\"content\":[%s],\"stop_reason\":\"%s\"}", cases[i].blocks, cases[i].stop);
        assert_ok(dialect_anthropic.read_answer(REQUEST_CHAT, body.data, body.len, &a, &e), e);
        assert_int_equal(a.narrowed, cases[i].narrowed);
        answer_clear(&a);
        cJSON       *tree = json_parse(body.data, body.len, 9, &e);
        const cJSON *block;
        int          k = 0;
        cJSON_ArrayForEach(block, cJSON_GetObjectItem(tree, "content")) {
            str_clear(&line);
            str_addf(&line, "{\"type\":\"content_block_start\",\"index\":%d,\"content_block\":", k++);
            json_write(block, &line);
            str_addc(&line, '}');
            assert_true(payload(&rd, line.data, line.len));
            if (cJSON_GetArraySize(cJSON_GetObjectItem(block, "citations")) > 0) {
                static const char cited[] = "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
                                            "\"citations_delta\",\"citation\":{}}}";
                assert_true(payload(&rd, cited, sizeof cited - 1));
            }
        }
        cJSON_Delete(tree);
        str_clear(&line);
        str_addf(&line, "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\"}}", cases[i].stop);
        assert_true(payload(&rd, line.data, line.len));
        assert_int_equal(rd.grown.narrowed, cases[i].narrowed);
        reader_clear(&rd);
        str_free(&body);
        str_free(&line);
    }
}

/* Some servers give calls no ids: the client gets some to name them by, the same however it reads the answer. */
static void test_calls_without_ids(void **state) {
    (void)state;
    static const char body[] =
        "{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{\\\"id\\\":9007199254740993}\"}},{\"type\":\"function\",\"function\":{"
        "\"name\":\"g\",\"arguments\":\"\"}}]},\"finish_reason\":\"tool_calls\"}]}";
    answer            a;
    err               e = {0};
    str               whole = {0}, stream = {0};
    anthropic_writing w = {0};
    assert_ok(dialect_openai.read_answer(REQUEST_CHAT, body, sizeof body - 1, &a, &e), e);
    assert_true(dialect_anthropic.write_answer(NULL, &a, &whole));
    assert_true(dialect_anthropic.write_end(NULL, &w, &a, false, "", &stream));
    char ids[2][32];
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(whole.data, i ? "\"}" : "toolu_");
        at = i ? strstr(strstr(whole.data, "\"tool_use\"") + 9, "\"tool_use\"") : at;
        at = strstr(at, "toolu_");
        assert_non_null(at);
        snprintf(ids[i], sizeof ids[i], "%.25s", at);
        assert_non_null(strstr(stream.data, ids[i]));
    }
    assert_string_not_equal(ids[0], ids[1]);
    assert_non_null(strstr(whole.data, "\"input\":{\"id\":9007199254740993}")); /* no digit is lost */
    answer_clear(&a);
    str_free(&whole);
    str_free(&stream);
}

static void test_whole_odd(void **state) {
    (void)state;
    answer            a;
    err               e = {0};
    str               out = {0};
    static const char error[] = "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"Boom\"}}";
    assert_false(dialect_anthropic.read_answer(REQUEST_CHAT, error, sizeof error - 1, &a, &e));
    assert_says(e, "Boom");
    assert_false(dialect_anthropic.read_answer(REQUEST_CHAT, "{\"id\":\"x\"}", 10, &a, &e));
    assert_says(e, "not a message");
    static const char empty[] = "{\"content\":[],\"stop_reason\":\"max_tokens\"}";
    e = (err){0};
    assert_ok(dialect_anthropic.read_answer(REQUEST_CHAT, empty, sizeof empty - 1, &a, &e), e);
    assert_true(answer_complete(&a) && !a.usage.known);
    answer_clear(&a);
    /* As OpenAI's providers and small models answer: a refusal beside "stop", arguments that are no JSON. */
    static const char refused[] =
        "{\"choices\":[{\"message\":{\"content\":null,\"refusal\":\"No.\"},\"finish_reason\":\"stop\"}]}";
    assert_ok(dialect_openai.read_answer(REQUEST_CHAT, refused, sizeof refused - 1, &a, &e), e);
    dialect_anthropic.write_answer(NULL, &a, &out);
    assert_non_null(strstr(out.data, "[{\"type\":\"text\",\"text\":\"No.\"}],\"stop_reason\":\"refusal\""));
    answer_clear(&a);
    str_clear(&out);
    static const char broken[] =
        "{\"choices\":[{\"message\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{oops\"}}]},\"finish_reason\":\"stop\"}]}";
    assert_ok(dialect_openai.read_answer(REQUEST_CHAT, broken, sizeof broken - 1, &a, &e), e);
    dialect_anthropic.write_answer(NULL, &a, &out);
    assert_non_null(strstr(out.data, "\"input\":{\"invalid_json\":\"{oops\"}}],\"stop_reason\":\"tool_use\""));
    answer_clear(&a);
    str_free(&out);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        int         status;
        const char *type;
    } types[] = {{400, "invalid_request_error"},
                 {401, "authentication_error"},
                 {402, "billing_error"},
                 {403, "permission_error"},
                 {404, "not_found_error"},
                 {413, "request_too_large"},
                 {429, "rate_limit_error"},
                 {500, "api_error"},
                 {502, "api_error"},
                 {503, "overloaded_error"},
                 {504, "timeout_error"},
                 {529, "overloaded_error"},
                 {409, "invalid_request_error"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        str  out = {0};
        char wanted[200];
        err  e = {.code = ERR_INVALID, .text = "a \"b\" \xFF."};
        assert_true(dialect_anthropic.write_error(&e, types[i].status, &out));
        snprintf(wanted, sizeof wanted,
                 "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"a \\\"b\\\" \xEF\xBF\xBD.\"}}",
                 types[i].type);
        assert_string_equal(out.data, wanted);
        str_free(&out);
    }
    str out = {0};
    err e = {.code = ERR_BUSY, .text = "Later."};
    assert_true(dialect_anthropic.write_break(NULL, NULL, &e, 0, &out));
    assert_string_equal(out.data,
                        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":"
                        "\"Later.\"}}\n\n");
    str_free(&out);
}

/* ---- writing: deltas of others into a stream ---- */

typedef struct writer {
    anthropic_writing state;
    answer            head;
    str               out;
} writer;

static void delta(writer *w, event ev) {
    err e = {0};
    ev.kind = EVENT_DELTA;
    assert_ok(answer_add(&w->head, &ev, &e), e);
    assert_true(dialect_anthropic.write_event(NULL, &w->state, &w->head, &ev, &w->out));
}

static void words(writer *w, const char *text) {
    delta(w, (event){.text = text, .text_len = strlen(text)});
}

static void thoughts(writer *w, const char *text) {
    delta(w, (event){.reasoning = text, .reasoning_len = strlen(text)});
}

static void call(writer *w, int index, const char *id, const char *name, const char *arguments) {
    cJSON *calls = cJSON_CreateArray(), *one = cJSON_CreateObject();
    cJSON_AddItemToArray(calls, one);
    cJSON_AddNumberToObject(one, "index", index);
    if (id) {
        cJSON_AddStringToObject(one, "id", id);
    }
    cJSON *function = cJSON_AddObjectToObject(one, "function");
    if (name) {
        cJSON_AddStringToObject(function, "name", name);
    }
    cJSON_AddStringToObject(function, "arguments", arguments);
    delta(w, (event){.tool_calls = calls});
    cJSON_Delete(calls);
}

static void end(writer *w, const char *comments) {
    assert_true(dialect_anthropic.write_end(NULL, &w->state, &w->head, false, comments, &w->out));
}

static void writer_clear(writer *w) {
    answer_clear(&w->head);
    str_free(&w->out);
    *w = (writer){0};
}

#define ZERO                                                                                                           \
    "{\"input_tokens\":0,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"cache_creation\":{"         \
    "\"ephemeral_5m_input_tokens\":0,\"ephemeral_1h_input_tokens\":0},\"output_tokens\":0,\"service_tier\":"           \
    "\"standard\"}"
#define BEGIN                                                                                                          \
    EVENT("message_start", ",\"message\":{\"id\":\"x\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\","   \
                           "\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":" ZERO "}")
#define SAY(i, text)      DELTA(i, "\"text_delta\",\"text\":\"" text "\"")
#define ARGS(i, text)     DELTA(i, "\"input_json_delta\",\"partial_json\":\"" text "\"")
#define TOOL(i, id, name) START(i, "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"" name "\",\"input\":{}}")
#define TEXT(i)           START(i, "{\"type\":\"text\",\"text\":\"\"}")

static void test_written(void **state) {
    (void)state;
    writer w = {0};
    usage  u = {.prompt = 30, .cached = 10, .completion = 7, .known = true};
    delta(&w, (event){.id = "x", .model = "m"});
    assert_string_equal(w.out.data, BEGIN);
    str_clear(&w.out);
    thoughts(&w, "Hm");
    thoughts(&w, ".");
    delta(&w, (event){.signature = "si", .signature_len = 2});
    delta(&w, (event){.signature = "gn", .signature_len = 2});
    words(&w, "A");
    words(&w, "\xC3\xA9\n");
    assert_string_equal(w.out.data, START("0", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
                                        DELTA("0", "\"thinking_delta\",\"thinking\":\"Hm\"")
                                            DELTA("0", "\"thinking_delta\",\"thinking\":\".\"")
                                                DELTA("0", "\"signature_delta\",\"signature\":\"sign\"") STOP("0")
                                                    TEXT("1") SAY("1", "A") SAY("1", "\xC3\xA9\\n"));
    str_clear(&w.out);
    call(&w, 0, "a", "f", "");
    call(&w, 0, NULL, NULL, "{\"x\":\"}");
    call(&w, 0, NULL, NULL, "\"}");
    call(&w, 1, "b", "g", "{}");
    assert_string_equal(w.out.data, STOP("1") TOOL("2", "a", "f") ARGS("2", "{\\\"x\\\":\\\"}") ARGS("2", "\\\"}")
                                        STOP("2") TOOL("3", "b", "g") ARGS("3", "{}"));
    str_clear(&w.out);
    delta(&w, (event){.finish = "tool_calls"});
    delta(&w, (event){.usage = &u});
    assert_int_equal(w.out.len, 0);
    end(&w, ": c\n");
    assert_string_equal(
        w.out.data,
        STOP("3") EVENT("message_delta",
                        ",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\"usage\":{"
                        "\"input_tokens\":20,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":10,"
                        "\"cache_creation\":{\"ephemeral_5m_input_tokens\":0,\"ephemeral_1h_input_tokens\":0},"
                        "\"output_tokens\":7,\"service_tier\":\"standard\"}") ": c\n\n" EVENT("message_stop", ""));
    writer_clear(&w);
}

/* Deltas of two calls that are mixed: the first goes out as it comes, the second when the first is whole. */
static void test_mixed_calls(void **state) {
    (void)state;
    writer w = {0};
    delta(&w, (event){.id = "x", .model = "m"});
    str_clear(&w.out);
    call(&w, 0, "a", "f", "{\"x\"");
    call(&w, 1, "b", "g", "{\"y\"");
    call(&w, 0, NULL, NULL, ":1");
    assert_string_equal(w.out.data, TOOL("0", "a", "f") ARGS("0", "{\\\"x\\\"") ARGS("0", ":1"));
    str_clear(&w.out);
    words(&w, "meanwhile");
    call(&w, 1, NULL, NULL, ":2}");
    assert_int_equal(w.out.len, 0);
    call(&w, 0, NULL, NULL, "}");
    assert_string_equal(w.out.data, ARGS("0", "}") STOP("0") TEXT("1") SAY("1", "meanwhile") STOP("1")
                                        TOOL("2", "b", "g") ARGS("2", "{\\\"y\\\":2}"));
    str_clear(&w.out);
    call(&w, 2, "c", "h", "not an object");
    call(&w, 3, "d", "", "{}");
    call(&w, 3, NULL, "i", "");
    assert_string_equal(w.out.data, STOP("2") TOOL("3", "c", "h") ARGS("3", "not an object"));
    str_clear(&w.out);
    end(&w, "");
    assert_int_equal(strncmp(w.out.data, STOP("3") TOOL("4", "d", "i") ARGS("4", "{}") STOP("4") "event: message_delta",
                             strlen(STOP("3") TOOL("4", "d", "i") ARGS("4", "{}") STOP("4") "event: message_delta")),
                     0);
    writer_clear(&w);
}

/* An answer that comes at once (from a cache), one without words, a signature that comes late. */
static void test_written_at_once(void **state) {
    (void)state;
    writer w = {0};
    end(&w, "");
    assert_non_null(strstr(w.out.data, "event: message_start"));
    assert_non_null(strstr(w.out.data, "\"stop_reason\":\"end_turn\""));
    writer_clear(&w);
    delta(&w, (event){.id = "x",
                      .model = "m",
                      .text = "A",
                      .text_len = 1,
                      .reasoning = "R",
                      .reasoning_len = 1,
                      .refusal = "N",
                      .refusal_len = 1,
                      .finish = "stop"});
    delta(&w, (event){.signature = "s", .signature_len = 1});
    end(&w, "");
    assert_int_equal(strncmp(w.out.data, BEGIN, strlen(BEGIN)), 0);
    const char *wanted = START("0", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
        DELTA("0", "\"thinking_delta\",\"thinking\":\"R\"") STOP("0") TEXT("1") SAY("1", "A") STOP("1") TEXT("2")
            SAY("2", "N") STOP("2") START("3", "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}")
                DELTA("3", "\"signature_delta\",\"signature\":\"s\"") STOP("3");
    assert_int_equal(strncmp(w.out.data + strlen(BEGIN), wanted, strlen(wanted)), 0);
    assert_non_null(strstr(w.out.data, "\"stop_reason\":\"refusal\""));
    writer_clear(&w);
}

/* Blocks are begun, told and ended one after another, counted from 0. */
static bool in_order(void *ctx, const char *data, size_t n) {
    int   *at = ctx; /* twice the number of the next block; odd: it is open */
    err    e = {0};
    cJSON *root = json_parse(data, n, JSON_MAX_DEPTH, &e);
    assert_ok(root, e);
    const char  *type = neutral_text(root, "type");
    const cJSON *index = neutral_get(root, "index");
    if (index) {
        assert_int_equal(index->valueint, *at / 2);
        assert_int_equal(*at % 2, strcmp(type, "content_block_start") != 0);
        *at += strcmp(type, "content_block_delta") != 0;
    }
    cJSON_Delete(root);
    return true;
}

/* Any mixture of deltas is a well-formed stream, and read again it is the same answer. */
static void test_any_mixture(void **state) {
    (void)state;
    static const char *const arguments[] = {"{\"a\":[1,{\"b\":\"}\\\"{\"}],\"c\":\"\\\\\"}", "{}",
                                            "{\"long\":\"xxxxxxxxxxxxxxxx\"}"};
    uint64_t                 seed = 7;
    for (int round = 0; round < 400; round++) {
        writer w = {0};
        size_t said[3] = {0};
        delta(&w, (event){.id = "x", .model = "m"});
        for (int step = 0; step < 60; step++) {
            unsigned which = (unsigned)(test_random(&seed) % 5);
            char     piece[64] = "";
            if (which == 3) {
                words(&w, "w");
            } else if (which == 4 && step < 20) {
                thoughts(&w, "t");
            } else if (which < 3 && said[which] < strlen(arguments[which])) {
                size_t n = 1 + test_random(&seed) % 6;
                snprintf(piece, n + 1, "%s", arguments[which] + said[which]);
                call(&w, (int)which, said[which] ? NULL : "id", said[which] ? NULL : "f", piece);
                said[which] += strlen(piece);
            }
        }
        end(&w, ": comment\n");
        reader     rd = {0};
        sse_reader sse = {0};
        err        e = {0};
        int        at = 0;
        assert_ok(sse_feed(&sse, w.out.data, w.out.len, in_order, &at, &e), e);
        sse_clear(&sse);
        assert_int_equal(at % 2, 0);
        assert_true(feed(&rd, w.out.data, w.out.len, w.out.len / 2));
        assert_true(rd.done);
        if (w.head.n_choices > 0) {
            const choice *a = &w.head.choices[0], *b = &rd.grown.choices[0];
            assert_int_equal(a->text.len, b->text.len);
            assert_int_equal(a->reasoning.len, b->reasoning.len);
            assert_int_equal(cJSON_GetArraySize(a->tool_calls), cJSON_GetArraySize(b->tool_calls));
            for (int i = 0; i < cJSON_GetArraySize(a->tool_calls); i++) {
                assert_string_equal(call_text(&w.head, i, "arguments"), call_text(&rd.grown, i, "arguments"));
            }
        }
        reader_clear(&rd);
        writer_clear(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_passed_on),
        cmocka_unit_test(test_wrong_streams),
        cmocka_unit_test(test_stop_reasons),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_narrowed),
        cmocka_unit_test(test_calls_without_ids),
        cmocka_unit_test(test_whole_odd),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_mixed_calls),
        cmocka_unit_test(test_written_at_once),
        cmocka_unit_test(test_any_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
