/* Providers of Anthropic's and Google's API that answer badly: what clients of OpenAI's and Anthropic's API get. A stream
 * that breaks ends with an error event and never with a clean stop, whatever was said before. */
#include "bed.h"

#define MESSAGES "/v1/messages"

/* ---- Anthropic's words ---- */

#define A_EVENT(type, rest) "event: " type "\ndata: {\"type\":\"" type "\"" rest "}\n\n"
#define A_START                                                                                                        \
    A_EVENT("message_start",                                                                                           \
            ",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\","         \
            "\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}")
#define A_TEXT    A_EVENT("content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}")
#define A_SAY(t)  A_EVENT("content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"" t "\"}")
#define A_STOP(i) A_EVENT("content_block_stop", ",\"index\":" i)
#define A_END(reason)                                                                                                  \
    A_EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"" reason "\",\"stop_sequence\":null},"                     \
                             "\"usage\":{\"output_tokens\":3}")
#define A_DONE  A_EVENT("message_stop", "")
#define A_BEGUN A_START A_TEXT A_SAY("hel")
#define A_GOOD  A_BEGUN A_SAY("lo") A_STOP("0") A_END("end_turn") A_DONE
#define A_CALL                                                                                                         \
    A_EVENT("content_block_start",                                                                                     \
            ",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"find\","                   \
            "\"input\":{}}")
#define A_JSON(t)                                                                                                      \
    A_EVENT("content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"" t "\""  \
                                   "}")
#define A_ERROR(type, text) "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" text "\"}}"
#define A_WHOLE                                                                                                        \
    "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\",\"content\":[{\"type\":"       \
    "\"text\",\"text\":\"hello\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":"                     \
    "{\"input_tokens\":7,\"output_tokens\":3}}"

/* ---- Google's words ---- */

#define G_PARTS(parts, more) "{\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[" parts "]}" more "}]"
#define G_SAY(t)             EVENT(G_PARTS("{\"text\":\"" t "\"}", ",\"index\":0") "}")
#define G_USAGE              ",\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":3}}"
#define G_END(t, reason)     EVENT(G_PARTS("{\"text\":\"" t "\"}", ",\"finishReason\":\"" reason "\"") G_USAGE)
#define G_GOOD               G_SAY("hel") G_END("lo", "STOP")
#define G_ERROR(code, text)  "{\"error\":{\"code\":" code ",\"message\":\"" text "\",\"status\":\"X\"}}"
#define G_WHOLE              G_PARTS("{\"text\":\"hello\"}", ",\"finishReason\":\"STOP\"") G_USAGE

#define JSON_OF(status) status "\r\nContent-Type: application/json"

/* Every byte by itself: characters of several bytes, lines and chunks are all cut. */
static void write_bytewise(upstream *u, int fd, const char *all) {
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (size_t i = 0; all[i] && !atomic_load(&u->stop); i++) {
        send_all(fd, all + i, 1);
    }
}

static void run_a_bytewise(upstream *u, int fd) {
    write_bytewise(u, fd,
                   A_START A_TEXT A_SAY("gr\xc3\xbc\xc3\x9f \xf0\x9f\xa6\x8a") A_STOP("0") A_END("end_turn") A_DONE);
}

static void run_g_bytewise(upstream *u, int fd) {
    write_bytewise(u, fd, G_SAY("gr\xc3\xbc\xc3\x9f ") G_END("\xf0\x9f\xa6\x8a", "STOP"));
}

static const script scripts[] = {
    {"a_good", SSE_HEAD, A_GOOD, CHUNKED, KEEP, NULL},
    {"a_whole", JSON_HEAD, A_WHOLE, LENGTH, KEEP, NULL},
    {"a_bytewise", NULL, NULL, RAW, CLOSE, run_a_bytewise},
    {"a_unknown", SSE_HEAD,
     A_START A_EVENT("ping", "") A_EVENT("weather_report", ",\"sky\":\"blue\"")
         A_EVENT("content_block_start", ",\"index\":0,\"content_block\":{\"type\":\"dream\",\"of\":\"sheep\"}") A_EVENT(
             "content_block_delta", ",\"index\":0,\"delta\":{\"type\":\"dream_delta\",\"dream\":\"x\"}") A_STOP("0")
             A_EVENT("content_block_start", ",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}")
                 A_EVENT("content_block_delta", ",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}")
                     A_STOP("1") A_END("end_turn") A_DONE,
     CHUNKED, KEEP, NULL},
    {"a_no_usage", SSE_HEAD,
     A_EVENT("message_start", ",\"message\":{\"id\":\"m\",\"role\":\"assistant\",\"content\":[]}") A_TEXT A_SAY("hello")
         A_STOP("0") A_EVENT("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"}") A_DONE,
     CHUNKED, KEEP, NULL},
    {"a_no_names", SSE_HEAD, /* no event: lines; the type stands in the data as well */
     EVENT("{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":7}}}")
         EVENT("{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}")
             EVENT("{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":"
                   "3}}") EVENT("{\"type\":\"message_stop\"}"),
     CHUNKED, KEEP, NULL},
    {"a_unstopped", SSE_HEAD, A_BEGUN A_STOP("0") A_END("end_turn"), CHUNKED, KEEP, NULL},
    {"a_bad_call", SSE_HEAD, A_START A_CALL A_JSON("{\\\"q\\\":\\\"s") A_STOP("0") A_END("tool_use") A_DONE, CHUNKED,
     KEEP, NULL},
    {"a_cut", SSE_HEAD, A_BEGUN, CHUNKED, KEEP, NULL},
    {"a_cut_block", SSE_HEAD, A_BEGUN A_STOP("0"), CHUNKED, KEEP, NULL},
    {"a_cut_event", SSE_HEAD, A_BEGUN "event: content_block_delta\ndata: {\"type\":\"content", BY_CLOSE, CLOSE, NULL},
    {"a_cut_call", SSE_HEAD, A_START A_CALL A_JSON("{\\\"q\\\":"), CHUNKED, KEEP, NULL},
    {"a_reset", SSE_HEAD, A_BEGUN A_SAY("lo"), HALF_CHUNK, RESET, NULL},
    {"a_error_event", SSE_HEAD, A_BEGUN "event: error\ndata: " A_ERROR("overloaded_error", "Overloaded") "\n\n",
     CHUNKED, KEEP, NULL},
    {"a_error_late", SSE_HEAD,
     A_BEGUN A_STOP("0") A_END("end_turn") "event: error\ndata: " A_ERROR("api_error", "Overloaded") "\n\n", CHUNKED,
     KEEP, NULL},
    {"a_error_first", SSE_HEAD, "event: error\ndata: " A_ERROR("overloaded_error", "Overloaded") "\n\n", CHUNKED, KEEP,
     NULL},
    {"a_529", JSON_OF("529 Overloaded"), A_ERROR("overloaded_error", "Overloaded"), LENGTH, KEEP, NULL},
    {"a_429", JSON_OF("429 Too Many") "\r\nRetry-After: 7", A_ERROR("rate_limit_error", "later"), LENGTH, KEEP, NULL},
    {"a_413", JSON_OF("413 Too Large"), A_ERROR("request_too_large", "too large"), LENGTH, KEEP, NULL},
    {"a_error_200", JSON_HEAD, A_ERROR("api_error", "quota is gone"), LENGTH, KEEP, NULL},
    {"a_page", "200 OK\r\nContent-Type: text/html", "<h1>hello</h1>", LENGTH, KEEP, NULL},
    {"a_other", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL}, /* OpenAI's form: the dialect in pare.yaml is wrong */
    {"a_other_s", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
    {"a_not_json", SSE_HEAD, A_BEGUN "event: ping\ndata: hello\n\n", CHUNKED, KEEP, NULL},
    {"a_half_whole", JSON_HEAD, A_WHOLE, TOO_LONG, CLOSE, NULL},
    {"a_closes", "", NULL, RAW, CLOSE, NULL},
    {"g_good", SSE_HEAD, G_GOOD, CHUNKED, KEEP, NULL},
    {"g_whole", JSON_HEAD, G_WHOLE, LENGTH, KEEP, NULL},
    {"g_list", JSON_HEAD,
     "[" G_PARTS("{\"text\":\"hel\"}", "") "},\n" G_PARTS("{\"text\":\"lo\"}", ",\"finishReason\":\"STOP\"") G_USAGE
     "]",
     LENGTH, KEEP, NULL},
    {"g_bytewise", NULL, NULL, RAW, CLOSE, run_g_bytewise},
    {"g_unknown", SSE_HEAD,
     EVENT("{\"weather\":1}") EVENT(
         G_PARTS("{\"dream\":{\"of\":\"sheep\"}},{\"text\":\"hello\"}", ",\"mood\":\"good\"") "}") G_END("", "STOP"),
     CHUNKED, KEEP, NULL},
    {"g_no_usage", SSE_HEAD, G_SAY("hel") EVENT(G_PARTS("{\"text\":\"lo\"}", ",\"finishReason\":\"STOP\"") "}"),
     CHUNKED, KEEP, NULL},
    {"g_blocked", SSE_HEAD, EVENT("{\"promptFeedback\":{\"blockReason\":\"SAFETY\"}" G_USAGE), CHUNKED, KEEP, NULL},
    {"g_bad_call", SSE_HEAD,
     EVENT(G_PARTS("{\"functionCall\":{\"name\":\"find\",\"args\":\"sea\"}}", ",\"finishReason\":\"STOP\"") G_USAGE),
     CHUNKED, KEEP, NULL},
    {"g_malformed", SSE_HEAD, EVENT(G_PARTS("", ",\"finishReason\":\"MALFORMED_FUNCTION_CALL\"") G_USAGE), CHUNKED,
     KEEP, NULL},
    {"g_cut", SSE_HEAD, G_SAY("hel") G_SAY("lo"), CHUNKED, KEEP, NULL},
    {"g_cut_event", SSE_HEAD, G_SAY("hel") "data: {\"candidates\":[{\"con", BY_CLOSE, CLOSE, NULL},
    {"g_reset", SSE_HEAD, G_SAY("hel") G_SAY("lo"), HALF_CHUNK, RESET, NULL},
    {"g_error_inside", SSE_HEAD, G_SAY("hel") EVENT(G_ERROR("503", "overloaded")), CHUNKED, KEEP, NULL},
    {"g_error_first", SSE_HEAD, EVENT(G_ERROR("503", "overloaded")), CHUNKED, KEEP, NULL},
    {"g_error_200", JSON_HEAD, G_ERROR("429", "quota is gone"), LENGTH, KEEP, NULL},
    {"g_429", JSON_OF("429 Too Many") "\r\nRetry-After: 7", G_ERROR("429", "later"), LENGTH, KEEP, NULL},
    {"g_list_400", JSON_OF("400 Bad"), "[" G_ERROR("400", "bad thing") "]", LENGTH, KEEP, NULL},
    {"g_page", "200 OK\r\nContent-Type: text/html", "<h1>hello</h1>", LENGTH, KEEP, NULL},
    {"g_other", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
    {"g_empty", JSON_HEAD, "{}", LENGTH, KEEP, NULL},
    {"g_not_json", SSE_HEAD, G_SAY("hel") "data: hello\n\n", CHUNKED, KEEP, NULL},
    {"g_half_whole", JSON_HEAD, G_WHOLE, TOO_LONG, CLOSE, NULL},
    {"g_stalls", SSE_HEAD, G_SAY("hel"), UNENDED, HANG, NULL},
    {"a_stalls", SSE_HEAD, A_BEGUN, UNENDED, HANG, NULL},
    {0}};

/* As in test_upstream.c: status of a whole answer and of a stream; BROKEN: 200, some of it, an error event, no end. */
typedef struct expectation {
    const char *name;
    int         whole, stream;
    const char *has;
} expectation;

#define BROKEN 1

static const expectation expected[] = {
    {"a_good", 200, 200, "lo"},
    {"a_whole", 200, 200, "hello"},
    {"a_bytewise", 200, 200, "gr\xc3\xbc\xc3\x9f \xf0\x9f\xa6\x8a"},
    {"a_unknown", 200, 200, "hello"},
    {"a_no_usage", 200, 200, "hello"},
    {"a_no_names", 200, 200, "hello"},
    {"a_unstopped", 200, 200, "hel"}, /* it had said why it stopped */
    {"a_bad_call", 200, 200, "find"}, /* the model's own words; the client sees them and may ask again */
    {"a_cut", 502, BROKEN, "in the middle"},
    {"a_cut_block", 502, BROKEN, "in the middle"},
    {"a_cut_event", 502, BROKEN, "cannot be read"},
    {"a_cut_call", 502, BROKEN, "in the middle"},
    {"a_reset", 502, BROKEN, "in the middle"},
    {"a_error_event", 502, BROKEN, "Overloaded"},
    {"a_error_late", 502, BROKEN, "Overloaded"},
    {"a_error_first", 502, 502, "Overloaded"},
    {"a_529", 529, 529, "Overloaded"},
    {"a_429", 429, 429, "later"},
    {"a_413", 413, 413, "too large"},
    {"a_error_200", 502, 502, "quota is gone"},
    {"a_page", 502, 502, "not an answer"},
    {"a_other", 502, 502, "not an answer"},
    {"a_other_s", 502, BROKEN, "cannot be read"}, /* its chunks are unknown events, which pass by, until [DONE] */
    {"a_not_json", 502, BROKEN, "cannot be read"},
    {"a_half_whole", 502, 502, "in the middle"},
    {"a_closes", 502, 502, "did not answer"},
    {"g_good", 200, 200, "lo"},
    {"g_whole", 200, 200, "hello"},
    {"g_list", 200, 200, "hello"},
    {"g_bytewise", 200, 200, "\xf0\x9f\xa6\x8a"},
    {"g_unknown", 200, 200, "hello"},
    {"g_no_usage", 200, 200, "lo"},
    {"g_blocked", 200, 200, "SAFETY"},
    {"g_bad_call", 200, 200, "find"},
    {"g_malformed", 200, 200, "MALFORMED"},
    {"g_cut", 502, BROKEN, "in the middle"},
    {"g_cut_event", 502, BROKEN, "cannot be read"},
    {"g_reset", 502, BROKEN, "in the middle"},
    {"g_error_inside", 502, BROKEN, "overloaded"},
    {"g_error_first", 502, 502, "overloaded"},
    {"g_error_200", 502, 502, "quota is gone"},
    {"g_429", 429, 429, "later"},
    {"g_list_400", 400, 400, "bad thing"},
    {"g_page", 502, 502, "not an answer"},
    {"g_other", 502, 502, "not an answer"},
    {"g_empty", 502, 502, "not an answer"},
    {"g_not_json", 502, BROKEN, "cannot be read"},
    {"g_half_whole", 502, 502, "in the middle"},
    {"g_stalls", 504, BROKEN, "did not"},
    {"a_stalls", 504, BROKEN, "did not"},
};

static bed      the;
static upstream up; /* of this test: the bed's own is asked by nobody */

static int setup(void **state) {
    (void)state;
    char backends[512];
    assert_true(upstream_start(&up, scripts));
    snprintf(
        backends, sizeof backends,
        "  of_a: {dialect: anthropic, base_url: \"http://127.0.0.1:%d\", timeouts: {first: 2s, between: 400ms}}\n"
        "  of_g: {dialect: gemini, base_url: \"http://127.0.0.1:%d/v1beta\", timeouts: {first: 2s, between: 400ms}}\n",
        up.port, up.port);
    the.model_line = "  a: {backend: of_a, model: gpt, retries: 0}\n  g: {backend: of_g, model: gpt, retries: 0}\n";
    bed_open_with(&the, scripts, backends);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_close(&the);
    upstream_stop(&up);
    return 0;
}

/* ---- the two kinds of client ---- */

typedef struct client_kind {
    const char *path, *end, *error; /* how a stream ends well, and how with an error */
} client_kind;

static const client_kind kinds[] = {{CHAT, DONE, "data: {\"error\":"},
                                    {MESSAGES, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
                                     "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\""}};

static void ask_as(const client_kind *k, const char *name, bool stream, reply *r) {
    static int salt;
    char       body[512];
    snprintf(body, sizeof body,
             "{\"model\":\"%c\",\"max_tokens\":50,\"messages\":[{\"role\":\"user\",\"content\":\"@%s %d\"}]%s}",
             name[0], name, ++salt, stream ? ",\"stream\":true" : "");
    post(the.port, k->path, "anthropic-version: 2023-06-01\r\n", body, r);
}

static bool ends_with(const reply *r, const char *end) {
    size_t n = strlen(end);
    return r->body.len >= n && memcmp(r->body.data + r->body.len - n, end, n) == 0;
}

static void complain(const client_kind *k, const expectation *x, bool stream, const reply *r, const char *what) {
    fail_msg("%s, %s, %s: %s: status %d, %s, %.1500s", k->path, x->name, stream ? "stream" : "whole", what, r->status,
             r->complete ? "complete" : "cut", r->body.data ? r->body.data : "");
}

/* The texts of the deltas of either API, joined, have `text`: a stream cuts it anywhere. */
static void deltas_of(const reply *r, str *out) {
    static const char *const keys[] = {"\"content\":\"", "\"text\":\""};
    str_clear(out);
    for (const char *line = r->body.data; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        size_t n = strcspn(line, "\n");
        for (size_t i = 0; i < 2; i++) {
            const char *at = memmem(line, n, keys[i], strlen(keys[i]));
            if (at) {
                at += strlen(keys[i]);
                str_add(out, at, strcspn(at, "\""));
            }
        }
    }
}

static void check_stream(const client_kind *k, const expectation *x, const reply *r) {
    bool broken = x->stream == BROKEN, ended = ends_with(r, k->end), error = body_has(r, k->error);
    if (ended == broken || error != broken) {
        complain(k, x, true, r, broken ? "no error event, or a clean stop" : "no clean stop");
    }
    if (broken && (body_has(r, "[DONE]") || body_has(r, "message_stop"))) {
        complain(k, x, true, r, "a clean stop behind or before the error");
    }
    str said = {0};
    deltas_of(r, &said);
    if (!body_has(r, x->has) && !(said.data && strstr(said.data, x->has))) {
        complain(k, x, true, r, "lacks what it must have");
    }
    str_free(&said);
}

static void run_case(const client_kind *k, const expectation *x, bool stream) {
    reply r = {0};
    int   want = stream ? x->stream : x->whole;
    ask_as(k, x->name, stream, &r);
    if (!r.complete || r.status != (want == BROKEN ? 200 : want)) {
        complain(k, x, stream, &r, "the status");
    }
    if (stream && r.status == 200) {
        check_stream(k, x, &r);
    } else if (!body_has(&r, x->has)) {
        complain(k, x, stream, &r, "lacks what it must have");
    }
    if (r.status != 200) {
        char id[64];
        assert_true(header_of(&r, "x-request-id", id, sizeof id));
        assert_true(body_has(&r, "\"error\":"));
    }
    if (strstr(x->name, "_429") && !has_header(&r, "Retry-After", "7")) {
        complain(k, x, stream, &r, "no Retry-After");
    }
    reply_free(&r);
}

static void test_matrix(void **state) {
    (void)state;
    int asked = 0;
    for (size_t c = 0; c < sizeof kinds / sizeof kinds[0]; c++) {
        for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
            run_case(&kinds[c], &expected[i], false);
            run_case(&kinds[c], &expected[i], true);
            asked += 2;
        }
    }
    until(in_flight(&the) == 0 && ledger_count(&the) == asked);
    assert_int_equal(in_flight(&the), 0);
    bed_stop(&the, 5000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), asked);
    assert_int_equal(ledger_number(&the, "SELECT count(DISTINCT request_id) FROM ledger"), asked);
    /* Who does not count is counted, and what is broken is not remembered. */
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome='ok' AND prompt_tokens=0"), 0);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome='error' AND status<400"), 0);
}

/* A call whose arguments are no JSON: OpenAI's clients get the text as it is; Anthropic's, whose API has objects alone,
 * get it under a name that says so. Nobody gets half an object. */
static void test_broken_arguments(void **state) {
    (void)state;
    reply r = {0};
    ask_as(&kinds[0], "a_bad_call", false, &r);
    assert_true(body_has(&r, "\"arguments\":\"{\\\"q\\\":\\\"s\"") && body_has(&r, "\"finish_reason\":\"tool_calls\""));
    reply_free(&r);
    ask_as(&kinds[1], "g_bad_call", false, &r);
    assert_true(body_has(&r, "\"type\":\"tool_use\"") && body_has(&r, "\"input\":{"));
    reply_free(&r);
}

/* One that calls a refusal by its status and type keeps both, in the words of the client's API. */
static void test_overloaded(void **state) {
    (void)state;
    reply r = {0};
    ask_as(&kinds[1], "a_529", true, &r);
    assert_string_equal(r.body.data, A_ERROR("overloaded_error", "Overloaded"));
    reply_free(&r);
    ask_as(&kinds[0], "a_529", true, &r);
    assert_true(body_has(&r, "{\"error\":{\"message\":\"of_a answered with status 529: Overloaded"));
    reply_free(&r);
    ask_as(&kinds[1], "g_429", true, &r);
    assert_true(body_has(&r, "\"type\":\"rate_limit_error\""));
    reply_free(&r);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_matrix), T(test_broken_arguments), T(test_overloaded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
