/* Providers that answer well, badly or not at all: what the client gets, what is remembered, what the ledger says. */
#include "bed.h"

#define GZIP       "\x1f\x8b\x08\x01\x02\x03\x04\x05 not what was asked for"
#define SAYS(text) "{\"error\":{\"message\":\"" text "\",\"type\":\"t\",\"code\":null}}"

/* An answer of `mebi` MiB of one byte, by close. */
static void pour(int fd, const char *head, const char *first, size_t mebi) {
    char *block = malloc(1 << 20);
    memset(block, 'x', 1 << 20);
    say(fd, head);
    say(fd, first);
    for (size_t i = 0; i < mebi && send_all(fd, block, 1 << 20); i++) {
    }
    free(block);
}

static void run_huge_body(upstream *u, int fd) {
    (void)u;
    pour(fd, "HTTP/1.1 " JSON_HEAD "\r\nConnection: close\r\n\r\n", "{\"x\":\"", 66);
}

static void run_huge_line(upstream *u, int fd) {
    (void)u;
    pour(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n", EVENT(DELTA("a")) "data: ", 18);
}

static void run_huge_error(upstream *u, int fd) {
    (void)u;
    pour(fd, "HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n", "", 2);
}

/* One byte at a time: every state of every parser sees every split. */
static void run_bytewise(upstream *u, int fd) {
    static const char all[] = "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n" GOOD_STREAM;
    for (size_t i = 0; i < sizeof all - 1 && !atomic_load(&u->stop); i++) {
        send_all(fd, all + i, 1);
    }
}

/* More calls than an answer is kept with. */
static void run_many_calls(upstream *u, int fd) {
    (void)u;
    str all = {0};
    str_adds(&all, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 300; i++) {
        str_addf(
            &all,
            "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%d,\"id\":\"c%d\","
            "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
            i, i);
    }
    str_adds(&all, EVENT("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}") DONE);
    send_all(fd, all.data, all.len);
    str_free(&all);
}

/* Names ending in "_s" answer streams: the client that asks for a whole answer gets it assembled. */
static const script scripts[] = {
    {"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
    {"whole_close", JSON_HEAD, WHOLE, BY_CLOSE, CLOSE, NULL},
    {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
    {"crlf", SSE_HEAD "; charset=utf-8",
     "data: " DELTA("hel") "\r\n\r\ndata:" DELTA("lo") "\r\n\r\n: ping\r\n\r\ndata: " END_DELTA
                                                       "\r\n\r\ndata: [DONE]\r\n\r\n",
     CHUNKED, KEEP, NULL},
    {"cr", SSE_HEAD, "data: " DELTA("hel") "\r\rdata: " DELTA("lo") "\r\rdata: " END_DELTA "\r\rdata: [DONE]\r\r",
     BY_CLOSE, CLOSE, NULL},
    {"bytewise", NULL, NULL, RAW, CLOSE, run_bytewise},
    {"early_hints",
     "HTTP/1.1 103 Early Hints\r\nContent-Type: text/html\r\n\r\nHTTP/1.1 " JSON_HEAD
     "\r\nConnection: close\r\n\r\n" WHOLE,
     NULL, RAW, CLOSE, NULL},
    {"no_done", SSE_HEAD, EVENT(DELTA("hello")) EVENT(END_DELTA), BY_CLOSE, CLOSE, NULL},
    {"many_calls", NULL, NULL, RAW, CLOSE, run_many_calls},
    {"done_unended", SSE_HEAD, EVENT(DELTA("hello")) EVENT(END_DELTA) "data: [DONE]", BY_CLOSE, CLOSE, NULL},
    {"after_done", SSE_HEAD, EVENT(DELTA("hello")) EVENT(END_DELTA) DONE "data: {\"oops\n\ndata: x\n\n", CHUNKED, KEEP,
     NULL},
    {"linger", SSE_HEAD, EVENT(DELTA("hello")) EVENT(END_DELTA) DONE, UNENDED, HANG, NULL},
    {"two_lines", SSE_HEAD,
     "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"hello\"},\"finish_reason\":"
     "\"stop\"}]}\n\ndata: [DONE]\n\n",
     CHUNKED, KEEP, NULL},
    {"length", SSE_HEAD,
     EVENT("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":"
           "\"length\"}]}") DONE,
     CHUNKED, KEEP, NULL},
    {"bad_400", "400 Bad Request\r\nContent-Type: application/json", SAYS("bad thing"), LENGTH, KEEP, NULL},
    {"bad_401", "401 Unauthorized\r\nContent-Type: application/json", SAYS("who?"), LENGTH, KEEP, NULL},
    {"busy", "429 Too Many\r\nContent-Type: application/json\r\nRetry-After: 7", SAYS("later"), CHUNKED, KEEP, NULL},
    {"folded",
     "HTTP/1.1 429 Too Many\r\nContent-Type: application/json\r\nRetry-After: 7\r\n X-Evil: 1\r\n"
     "Connection: close\r\n\r\n" SAYS("later"),
     NULL, RAW, CLOSE, NULL},
    {"html_500", "500 Oops\r\nContent-Type: text/html", "<h1>oops</h1>", LENGTH, CLOSE, NULL},
    {"empty_503", "503 Unavailable\r\nContent-Type: text/plain", "", LENGTH, KEEP, NULL},
    {"half_error", "500 Oops\r\nContent-Type: application/json", SAYS("half"), TOO_LONG, CLOSE, NULL},
    {"huge_error", NULL, NULL, RAW, CLOSE, run_huge_error},
    {"nothing", "HTTP/1.1 204 No Content\r\n\r\n", NULL, RAW, CLOSE, NULL},
    {"moved", "302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Type: text/html", "<a>there</a>", LENGTH, KEEP,
     NULL},
    {"error_200", JSON_HEAD, SAYS("quota is gone"), LENGTH, KEEP, NULL},
    {"error_first", SSE_HEAD, EVENT(SAYS("overloaded")), CHUNKED, KEEP, NULL},
    {"error_inside", SSE_HEAD, EVENT(DELTA("hel")) EVENT(SAYS("overloaded")) DONE, CHUNKED, KEEP, NULL},
    {"page", "200 OK\r\nContent-Type: text/html", "<h1>hello</h1>", LENGTH, KEEP, NULL},
    {"gzip", JSON_HEAD "\r\nContent-Encoding: gzip", GZIP, LENGTH, KEEP, NULL},
    {"empty", JSON_HEAD, "", LENGTH, KEEP, NULL},
    {"not_json", SSE_HEAD, EVENT(DELTA("hel")) "data: hello\n\n", CHUNKED, KEEP, NULL},
    {"cut", SSE_HEAD, EVENT(DELTA("hel")), CHUNKED, CLOSE, NULL},
    {"broken_late", SSE_HEAD, EVENT(DELTA("hello")) EVENT(END_DELTA) EVENT("oops"), CHUNKED, KEEP, NULL},
    {"reset_late", SSE_HEAD, EVENT(DELTA("hello")) EVENT(END_DELTA) EVENT(USAGE_CHUNK), HALF_CHUNK, RESET, NULL},
    {"cut_event", SSE_HEAD, EVENT(DELTA("hel")) "data: {\"choices\":[{\"ind", BY_CLOSE, CLOSE, NULL},
    {"reset", SSE_HEAD, EVENT(DELTA("hel")) EVENT(DELTA("lo")), HALF_CHUNK, RESET, NULL},
    {"half_whole", JSON_HEAD, WHOLE, TOO_LONG, CLOSE, NULL},
    {"huge_body", NULL, NULL, RAW, CLOSE, run_huge_body},
    {"huge_line", NULL, NULL, RAW, CLOSE, run_huge_line},
    {"not_http", "SSH-2.0-OpenSSH_9.2\r\n", NULL, RAW, CLOSE, NULL},
    {"closes", "", NULL, RAW, CLOSE, NULL},
    {"resets", "", NULL, RAW, RESET, NULL},
    {"silent", "", NULL, RAW, HANG, NULL},
    {"head_only", SSE_HEAD, "", UNENDED, HANG, NULL},
    {"stalls", SSE_HEAD, EVENT(DELTA("hel")), UNENDED, HANG, NULL},
    {"trickle", NULL, NULL, RAW, CLOSE, run_trickle},
    {0}};

/* What the client must get. status 200: a good answer. has: a part of the body. A broken stream: 200 and an error event
 * when a token was out, else the status. */
typedef struct expectation {
    const char *name;
    int         whole;  /* status of a request without stream */
    int         stream; /* BROKEN: 200, an error event, no [DONE] */
    const char *has;
    bool        kept; /* the second time it is recalled */
} expectation;

#define BROKEN 1

static const expectation expected[] = {
    {"whole", 200, 200, "hello", true},
    {"whole_close", 200, 200, "hello", true},
    {"stream", 200, 200, "lo", true},
    {"crlf", 200, 200, "lo", true},
    {"cr", 200, 200, "lo", true},
    {"bytewise", 200, 200, "lo", true},
    {"early_hints", 200, 200, "hello", true},
    {"no_done", 200, 200, "hello", true},
    {"done_unended", 200, 200, "hello", true},
    {"after_done", 200, 200, "hello", true},
    {"linger", 200, 200, "hello", true},
    {"two_lines", 200, 200, "hello", true},
    {"length", 200, 200, "hello", false}, /* cut off upstream: the request set no limit */
    {"bad_400", 400, 400, SAYS("bad thing"), false},
    {"bad_401", 401, 401, SAYS("who?"), false},
    {"busy", 429, 429, SAYS("later"), false},
    {"folded", 429, 429, SAYS("later"), false},
    {"html_500", 500, 500, "<h1>oops</h1>", false},
    {"empty_503", 503, 503, "answered with status 503", false},
    {"half_error", 502, 502, "broke off", false},
    {"huge_error", 500, 500, "larger than pare reads", false},
    {"nothing", 502, 502, "not an answer", false},
    {"moved", 502, 502, "answered with status 302", false},
    {"error_200", 502, 502, "quota is gone", false},
    {"error_first", 502, 502, "overloaded", false},
    {"error_inside", 502, BROKEN, "overloaded", false},
    {"page", 502, 502, "not an answer", false},
    {"gzip", 502, 502, "not an answer", false},
    {"empty", 502, 502, "not an answer", false},
    {"not_json", 502, BROKEN, "cannot be read", false},
    {"cut", 502, BROKEN, "in the middle", false},
    {"cut_event", 502, BROKEN, "cannot be read", false},
    {"broken_late", 502, BROKEN, "cannot be read", false}, /* after the last finish reason: all the same */
    {"reset_late", 502, BROKEN, "in the middle", false},
    {"reset", 502, BROKEN, "in the middle", false},
    {"half_whole", 502, 502, "in the middle", false},
    {"huge_body", 502, 502, "larger than pare reads", false},
    {"huge_line", 502, BROKEN, "longer than", false},
    {"not_http", 502, 502, "did not answer", false},
    {"closes", 502, 502, "did not answer", false},
    {"resets", 502, 502, "did not answer", false},
};

static const expectation slow[] = {
    {"silent", 504, 504, "did not answer in time", false},
    {"head_only", 504, 504, "did not answer in time", false},
    {"stalls", 504, BROKEN, "did not go on", false},
    {"trickle", 504, BROKEN, "did not come to the end", false},
};

static bed the;

static int setup(void **state) {
    (void)state;
    bed_open(&the, scripts);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_close(&the);
    return 0;
}

/* Every line of a stream is a field, a comment or empty; one payload is one event. */
static bool well_formed(const char *stream) {
    for (const char *line = stream; *line; line = strchr(line, '\n') + 1) {
        bool known = *line == ':' || *line == '\n' || strncmp(line, "data: ", 6) == 0;
        if (!known || !strchr(line, '\n')) {
            return false;
        }
    }
    return true;
}

static void check_reply(const expectation *x, const reply *r, bool stream, const char *when) {
    int status = stream ? x->stream : x->whole;
    if (!r->complete || r->status != (status == BROKEN ? 200 : status) || !body_has(r, x->has)) {
        fail_msg("%s, %s, %s: status %d, %s, %.600s", x->name, stream ? "stream" : "whole", when, r->status,
                 r->complete ? "complete" : "cut", r->body.data ? r->body.data : "");
    }
    if (stream && r->status == 200) { /* ends well or with an error event, never both */
        size_t n = strlen(DONE);
        bool   done = r->body.len >= n && memcmp(r->body.data + r->body.len - n, DONE, n) == 0;
        bool   error = body_has(r, "data: {\"error\":");
        if (done == (status == BROKEN) || error == done || (!done && body_has(r, "[DONE]")) ||
            !well_formed(r->body.data)) {
            fail_msg("%s, %s: ends wrongly: %s", x->name, when, r->body.data);
        }
    }
    if (r->status != 200) {
        char id[64];
        assert_true(header_of(r, "x-request-id", id, sizeof id));
        assert_false(body_has(r, "[DONE]"));
    }
}

/* Asks twice: what is whole comes from memory the second time, all else reaches the provider again. */
static int run_case(const expectation *x, bool stream) {
    reply r = {0};
    int   before = atomic_load(&the.up.requests);
    ask(&the, x->name, stream ? "s" : "w", stream, &r);
    check_reply(x, &r, stream, "first");
    if (strcmp(x->name, "busy") == 0) {
        assert_true(has_header(&r, "Retry-After", "7"));
    }
    assert_null(strstr(r.head.data, "\nX-Evil"));
    assert_int_equal(atomic_load(&the.up.requests), before + 1);
    ask(&the, x->name, stream ? "s" : "w", stream, &r);
    check_reply(x, &r, stream, "again");
    if (answered_by(&r, "recall.exact") != x->kept) {
        fail_msg("%s, %s: recalled: %d", x->name, stream ? "stream" : "whole", !x->kept);
    }
    assert_int_equal(atomic_load(&the.up.requests), before + (x->kept ? 1 : 2));
    if (x->kept) { /* and the other form comes from memory too */
        ask(&the, x->name, stream ? "s" : "w", !stream, &r);
        check_reply(x, &r, !stream, "in the other form");
        assert_true(answered_by(&r, "recall.exact"));
    }
    reply_free(&r);
    return x->kept ? 3 : 2;
}

static void run_all(const expectation *all, size_t n) {
    int asked = 0;
    for (size_t i = 0; i < n; i++) {
        asked += run_case(&all[i], false) + run_case(&all[i], true);
    }
    until(in_flight(&the) == 0 && ledger_count(&the) == asked);
    assert_int_equal(in_flight(&the), 0);
    bed_stop(&the, 5000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), asked);
    assert_int_equal(ledger_number(&the, "SELECT count(DISTINCT request_id) FROM ledger"), asked);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome NOT IN ('ok','error')"), 0);
    int kept = 0;
    for (size_t i = 0; i < n; i++) {
        kept += all[i].kept ? 2 : 0;
    }
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM cache"), kept); /* nothing broken is stored */
}

static void test_matrix(void **state) {
    (void)state;
    run_all(expected, sizeof expected / sizeof expected[0]);
}

/* A provider that leaves the end mark out has not ended before each of the answers that were asked for has. */
static void test_one_of_two(void **state) {
    (void)state;
    reply r = {0};
    post(the.port, "/v1/chat/completions", "",
         "{\"model\":\"m\",\"n\":2,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"@no_done\"}]}", &r);
    assert_int_equal(r.status, 200);
    assert_true(body_has(&r, "in the middle of the answer"));
    assert_false(body_has(&r, "[DONE]"));
    reply_free(&r);
}

static long long number_behind(const char *text, const char *from, const char *name) {
    const char *at = strstr(text, from);
    at = at ? strstr(at, name) : NULL;
    return at ? atoll(at + strlen(name)) : -1;
}

/* Anthropic's streams begin with the length of the prompt, which this provider tells at the end. */
static void test_prompt_in_the_first_event(void **state) {
    (void)state;
    static const char head[] =
        "{\"model\":\"m\",\"max_tokens\":9,\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":"
        "\"object\"}}],\"messages\":[{\"role\":\"user\",\"content\":\"@stream how long is this?\"}]";
    char  body[512];
    reply r = {0};
    snprintf(body, sizeof body, "%s}", head);
    post(the.port, "/v1/messages/count_tokens", "", body, &r);
    assert_int_equal(r.status, 200);
    long long estimated = number_behind(r.body.data, "{", "\"input_tokens\":");
    assert_true(estimated > 10);
    snprintf(body, sizeof body, "%s,\"stream\":true}", head);
    post(the.port, "/v1/messages", "", body, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(number_behind(r.body.data, "event: message_start", "\"input_tokens\":"), estimated);
    assert_int_equal(number_behind(r.body.data, "event: message_delta", "\"input_tokens\":"), 7);
    reply_free(&r);
}

/* What is larger than pare keeps is told whole where its events are, and else is an error: never a part as if it were all. */
static void test_more_than_is_kept(void **state) {
    (void)state;
    static const struct {
        const char *path, *body;
        int         status;
        const char *has, *not ;
    } cases[] = {
        {"/v1/chat/completions",
         "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"@many_calls\"}]}", 200,
         "\"c299\"", "error"},
        {"/v1/chat/completions", "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"@many_calls\"}]}",
         502, "larger than pare keeps", "c100"},
        {"/v1/messages",
         "{\"model\":\"m\",\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"@many_"
         "calls\"}]}",
         200, "larger than pare keeps", "message_stop"},
        {"/v1/messages",
         "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"@many_calls\"}]}", 502,
         "larger than pare keeps", "c100"},
        {"/v1/responses", "{\"model\":\"m\",\"stream\":true,\"input\":\"@many_calls\"}", 200, "larger than pare keeps",
         "response.completed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        reply r = {0};
        post(the.port, cases[i].path, "", cases[i].body, &r);
        if (r.status != cases[i].status || !body_has(&r, cases[i].has) || body_has(&r, cases[i].not )) {
            fail_msg("%zu: status %d: %.300s ... %s", i, r.status, r.body.data,
                     r.body.data + (r.body.len > 600 ? r.body.len - 600 : 0));
        }
        reply_free(&r);
    }
    /* The ledger says of each what its client was told. */
    const size_t n = sizeof cases / sizeof cases[0];
    until(ledger_count(&the) == (int64_t)n);
    bed_stop(&the, 5000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome = 'ok' AND status = 200"), 1);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome = 'error' AND status = 502"),
                     n - 1);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE cost_nano > 0"), n);
}

typedef struct patient {
    const expectation *x;
    bool               stream;
    reply              r;
} patient;

static void *wait_for_one(void *arg) {
    patient *p = arg;
    ask(&the, p->x->name, p->stream ? "s" : "w", p->stream, &p->r);
    return NULL;
}

/* Those that take their time, side by side. */
static void test_time_limits(void **state) {
    (void)state;
    enum { N = sizeof slow / sizeof slow[0] };
    patient   patients[2 * N] = {0};
    pthread_t threads[2 * N];
    int64_t   began = clock_us();
    for (int i = 0; i < 2 * N; i++) {
        patients[i] = (patient){.x = &slow[i / 2], .stream = i % 2};
        assert_int_equal(pthread_create(&threads[i], NULL, wait_for_one, &patients[i]), 0);
    }
    for (int i = 0; i < 2 * N; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < 2 * N; i++) {
        check_reply(patients[i].x, &patients[i].r, patients[i].stream, "late");
        reply_free(&patients[i].r);
    }
    assert_true(clock_us() - began < 9000000); /* the longest limit is 4 s */
    until(atomic_load(&the.up.open) == 0);
    assert_int_equal(atomic_load(&the.up.open), 0); /* and the sockets upstream are closed */
    assert_int_equal(in_flight(&the), 0);
}

static void test_unreachable(void **state) {
    (void)state;
    reply r = {0};
    upstream_stop(&the.up);
    ask(&the, "whole", "nobody", true, &r);
    assert_int_equal(r.status, 502);
    assert_true(body_has(&r, "cannot be reached"));
    reply_free(&r);
    assert_true(upstream_start(&the.up, scripts)); /* for teardown */
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_matrix),      T(test_one_of_two), T(test_more_than_is_kept), T(test_prompt_in_the_first_event),
        T(test_time_limits), T(test_unreachable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
