/* Keys, groups and what they may use, over real sockets: no budget is passed by a token, whatever runs at once, and what
 * is changed while pare serves is in force a moment later. */
#include "bed.h"

#include "base/date.h"
#include "store/keys.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STREAMS 200
#else
#define STREAMS 1000
#endif

static bed   the;
static reply r;

/* ---- a provider that keeps to nothing: no end, no usage, no max_tokens ---- */

/* Twenty tokens at a time, so that a thousand of these threads leave something of two cores to pare. */
static void run_endless(upstream *u, int fd) {
    str twenty = {0};
    for (int i = 0; i < 20; i++) {
        str_adds(&twenty, EVENT(DELTA("tok ")));
    }
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 5000 && !atomic_load(&u->stop) && send_all(fd, twenty.data, twenty.len); i++) {
        nap(20);
    }
    str_free(&twenty);
    atomic_fetch_add(&u->left, 1);
}

/* Deltas of several tokens, of thoughts and of calls. */
static void run_wide(upstream *u, int fd) {
    static const char thought[] = "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\","
                                  "\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"so it is\"},"
                                  "\"finish_reason\":null}]}";
    static const char call[] =
        "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\","
        "\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":"
        "\"function\",\"function\":{\"name\":\"find\",\"arguments\":\"{\\\"a\\\": 1}\"}}]},"
        "\"finish_reason\":null}]}";
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 3000 && !atomic_load(&u->stop); i++) {
        bool good = say(fd, "data: ") &&
                    say(fd, i % 3 == 0   ? thought
                            : i % 3 == 1 ? call
                                         : DELTA("one two three")) &&
                    say(fd, "\n\n");
        if (!good) {
            return;
        }
        nap(1);
    }
}

static pthread_mutex_t asked_lock = PTHREAD_MUTEX_INITIALIZER;
static char            asked[2048];

/* What it was asked for, and a whole answer. */
static void run_tell(upstream *u, int fd) {
    (void)u;
    char head[128];
    pthread_mutex_lock(&asked_lock);
    snprintf(asked, sizeof asked, "%s", upstream_asked->data);
    pthread_mutex_unlock(&asked_lock);
    snprintf(head, sizeof head, "HTTP/1.1 " JSON_HEAD "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
             strlen(WHOLE));
    say(fd, head);
    say(fd, WHOLE);
}

static void run_slow(upstream *u, int fd) {
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 40 && !atomic_load(&u->stop); i++) {
        say(fd, EVENT(DELTA("more ")));
        nap(100);
    }
    say(fd, EVENT(END_DELTA) DONE);
}

static void run_anthropic(upstream *u, int fd) {
    say(fd,
        "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n"
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\","
        "\"role\":\"assistant\",\"model\":\"gpt\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
        "\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n"
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
        "\"text\",\"text\":\"\"}}\n\n");
    for (int i = 0; i < 3000 && !atomic_load(&u->stop); i++) {
        if (!say(fd,
                 "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
                 "\"text_delta\",\"text\":\"tok \"}}\n\n")) {
            return;
        }
        nap(1);
    }
}

/* Long enough for a hedge to go out. */
static void run_late(upstream *u, int fd) {
    nap(400);
    run_tell(u, fd);
}

static const script scripts[] = {{"late", NULL, NULL, RAW, CLOSE, run_late},
                                 {"half", JSON_HEAD, WHOLE, TOO_LONG, CLOSE, NULL},
                                 {"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"good", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"broken", SSE_HEAD, EVENT(DELTA("half")), UNENDED, CLOSE, NULL},
                                 {"no", "500 Down\r\nContent-Type: application/json", "{}", LENGTH, KEEP, NULL},
                                 {"endless", NULL, NULL, RAW, CLOSE, run_endless},
                                 {"wide", NULL, NULL, RAW, CLOSE, run_wide},
                                 {"tell", NULL, NULL, RAW, CLOSE, run_tell},
                                 {"slow", NULL, NULL, RAW, CLOSE, run_slow},
                                 {"messages", NULL, NULL, RAW, CLOSE, run_anthropic},
                                 {0}};

/* ---- the bed ---- */

/* `second` is a backend without the bed's short time limits. */
#define MODELS                                                                                                         \
    "  n: {backend: second, model: gpt, retries: 0}\n  a: {backend: anthropic, model: gpt, retries: 0}\n"              \
    "  free: {backend: second, model: gratis, retries: 0}\n"                                                           \
    "  again: {backend: second, model: gpt, retries: 2, pause: 1ms, circuit: {failures: 99}}\n"                        \
    "  twice: {backend: second, model: gpt, retries: 0, hedge: {percent: 100, after: 30ms}}\n"

static void open_with(const char *more) {
    the = (bed){.model_line = MODELS, .price_lines = "  gratis: {input: 0, output: 0}\n"};
    bed_open_with(&the, scripts, more);
}

static account_state state_of(char kind, const char *name) {
    account_state all[64], none = {0};
    int           n = limits_states(the.house->limits, all, 64, clock_wall_us());
    for (int i = 0; i < n; i++) {
        if (all[i].kind == kind && strcmp(all[i].name, name) == 0) {
            return all[i];
        }
    }
    return none;
}

/* Whatever a test did: at its end nothing is held. */
static void check_settled(void) {
    account_state all[64];
    until(in_flight(&the) == 0);
    int n = limits_states(the.house->limits, all, 64, clock_wall_us());
    for (int i = 0; i < n; i++) {
        assert_int_equal(all[i].held, 0);
        assert_int_equal(all[i].streams, 0);
    }
}

static int close_bed(void **state) {
    (void)state;
    if (the.server) {
        check_settled();
    }
    bed_close(&the);
    reply_free(&r);
    return 0;
}

static const char *bearer(const char *secret) {
    static char text[160];
    snprintf(text, sizeof text, "Authorization: Bearer %s\r\nCache-Control: no-cache\r\n", secret);
    return text;
}

static int chat(const char *secret, const char *model, const char *name, const char *more) {
    char body[512];
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"@%s\"}]%s}", model,
             name, more);
    post(the.port, CHAT, bearer(secret), body, &r);
    return r.status;
}

static int64_t count_of(const char *text, const char *part) {
    int64_t n = 0;
    for (const char *at = text; at && (at = strstr(at, part)); at += strlen(part)) {
        n++;
    }
    return n;
}

/* ---- budgets ---- */

static void test_a_thousand_streams(void **state) {
    (void)state;
    static int fds[STREAMS];
    int64_t    budget = STREAMS * 200000LL; /* about three quarters of what is asked for */
    char       more[160], body[256];
    int        refused = 0, ended = 0;
    snprintf(more, sizeof more, "keys:\n  - {name: k, key: secret-k-1, money_day: %.9f}\n", (double)budget / 1e9);
    open_with(more);
    for (int i = 0; i < STREAMS; i++) {
        snprintf(body, sizeof body,
                 "{\"model\":\"n\",\"stream\":true,\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":"
                 "\"@endless %d\"}]}",
                 i);
        fds[i] = client_connect(the.port);
        assert_true(fds[i] >= 0 && send_post(fds[i], CHAT, bearer("secret-k-1"), body));
    }
    for (int i = 0; i < STREAMS; i++) {
        reply_free(&r);
        read_reply(fds[i], &r, false);
        close(fds[i]);
        if (r.status == 402) {
            refused++;
            assert_true(body_has(&r, "The budget of the key k"));
        } else {
            ended++;
            assert_int_equal(r.status, 200);
            if (!r.complete || !body_has(&r, "data: [DONE]"))
                print_message("%d %zu ...%s", r.complete, r.body.len,
                              r.body.data ? r.body.data + (r.body.len > 600 ? r.body.len - 600 : 0) : "");
            assert_true(r.complete && body_has(&r, "data: [DONE]") && body_has(&r, "\"finish_reason\":\"length\""));
            assert_false(body_has(&r, "\"error\""));
        }
    }
    check_settled();
    int64_t spent = state_of('k', "k").nano_day;
    bed_stop(&the, 5000000);
    int64_t sum = ledger_number(&the, "SELECT sum(cost_nano) FROM ledger");
    print_message("%d streams, %d refused: %lld of %lld nano-dollars\n", ended, refused, (long long)sum,
                  (long long)budget);
    assert_int_equal(sum, spent);
    assert_true(sum <= budget);
    assert_true(sum >= budget / 10 * 9);
    assert_true(refused > 0 && ended > STREAMS / 2);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), STREAMS);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome = 'ok' AND counted = 1"), ended);
}

static void test_cut_at_the_token(void **state) {
    (void)state;
    int64_t budget = 500000; /* of which the prompt takes some, and the answer may have the rest */
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n");
    assert_int_equal(chat("secret-k-1", "n", "endless", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"),
                     200);
    assert_true(r.complete && body_has(&r, "[DONE]"));
    int64_t tokens = count_of(r.body.data, "\"content\":\"tok \"");
    char    usage[64];
    snprintf(usage, sizeof usage, "\"completion_tokens\":%lld", (long long)tokens);
    assert_true(body_has(&r, usage));
    assert_int_equal(count_of(r.body.data, "\"finish_reason\":\"length\""), 1);
    assert_int_equal(chat("secret-k-1", "n", "endless", ",\"stream\":true"), 402);
    assert_true(header_of(&r, "Retry-After", usage, sizeof usage) && atoi(usage) > 0 && atoi(usage) <= 86400);
    assert_int_equal(chat("secret-k-1", "free", "whole", ""), 200); /* what costs nothing goes on */
    until(atomic_load(&the.up.left) == 1);                          /* the provider was told to stop */
    assert_int_equal(atomic_load(&the.up.left), 1);
    bed_stop(&the, 5000000);
    int64_t prompt = ledger_number(&the, "SELECT prompt_tokens FROM ledger WHERE model = 'n' AND status = 200");
    assert_int_equal(tokens, (budget - (prompt + prompt / 5 + 8) * 1000) / 2000);
    assert_int_equal(ledger_number(&the, "SELECT completion_tokens FROM ledger WHERE model = 'n' AND status = 200"),
                     tokens);
    assert_int_equal(ledger_number(&the, "SELECT cost_nano FROM ledger WHERE model = 'n' AND status = 200"),
                     prompt * 1000 + tokens * 2000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome = 'ok' AND counted = 1"), 1);
}

/* A delta is passed on whole or not at all. */
static void test_wide_deltas(void **state) {
    (void)state;
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n");
    assert_int_equal(chat("secret-k-1", "n", "wide", ",\"stream\":true"), 200);
    assert_true(r.complete && body_has(&r, "\"finish_reason\":\"length\""));
    int64_t texts = count_of(r.body.data, "one two three"), thoughts = count_of(r.body.data, "so it is"),
            calls = count_of(r.body.data, "\"name\":\"find\"");
    assert_true(thoughts > 5 && texts > 5 && calls > 5);
    bed_stop(&the, 5000000);
    int64_t tokens = ledger_number(&the, "SELECT completion_tokens FROM ledger");
    assert_true(tokens >= texts * 3 + thoughts * 3 + calls * 4);
    assert_true(ledger_number(&the, "SELECT cost_nano FROM ledger") <= 500000);
}

static void test_a_stream_of_messages_is_cut_cleanly(void **state) {
    (void)state;
    char        body[256];
    static char data[65536];
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n");
    snprintf(body, sizeof body,
             "{\"model\":\"a\",\"max_tokens\":5000,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"
             "\"@messages\"}]}");
    post(the.port, "/v1/messages", bearer("secret-k-1"), body, &r);
    assert_int_equal(r.status, 200);
    snprintf(data, sizeof data, "%s", r.body.data);
    assert_int_equal(count_of(data, "event: message_start"), 1);
    assert_int_equal(count_of(data, "event: content_block_start"), 1);
    assert_int_equal(count_of(data, "event: content_block_stop"), 1);
    assert_int_equal(count_of(data, "\"stop_reason\":\"max_tokens\""), 1);
    assert_int_equal(count_of(data, "event: message_stop"), 1);
    assert_true(strstr(data, "event: content_block_stop") < strstr(data, "\"stop_reason\":\"max_tokens\""));
    int64_t tokens = count_of(data, "\"text\":\"tok \"");
    char    usage[64];
    snprintf(usage, sizeof usage, "\"output_tokens\":%lld", (long long)tokens);
    assert_true(tokens > 100 && strstr(data, usage));
}

static void test_whole_answers_are_bounded_by_the_provider(void **state) {
    (void)state;
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n  - {name: rich, key: secret-r-1}\n");
    assert_int_equal(chat("secret-r-1", "n", "tell", ",\"max_tokens\":1000"), 200);
    assert_non_null(strstr(asked, "\"max_tokens\":1000"));
    assert_int_equal(chat("secret-k-1", "n", "tell", ",\"max_tokens\":100"), 200); /* covered: as it was asked */
    assert_non_null(strstr(asked, "\"max_tokens\":100"));
    assert_int_equal(chat("secret-k-1", "n", "tell", ",\"max_tokens\":1000"), 200);
    const char *at = strstr(asked, "\"max_tokens\":");
    assert_non_null(at);
    assert_in_range(atoi(at + 13), 200, 249);
}

/* A try that broke off may be billed, and so may the one that is asked a second time: each is held for before it goes out,
 * and none is made that does not fit. 100 tokens are held as 120 at 2000 nano-dollars, and the prompt. */
static void test_further_tries_are_held_for(void **state) {
    (void)state;
    static const struct {
        const char *secret, *model, *script;
        int         status, tries;
    } rows[] = {
        {"secret-k-1", "again", "half", 502, 1}, {"secret-r-1", "again", "half", 502, 3},
        {"secret-t-1", "again", "half", 502, 2}, {"secret-k-1", "again", "no", 500, 3}, /* refusals cost nothing */
        {"secret-k-2", "twice", "late", 200, 1}, {"secret-r-1", "twice", "late", 200, 2}};
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n  - {name: k2, key: secret-k-2, money_day: "
              "0.0005}\n  - {name: t, key: secret-t-1, money_day: 0.00075}\n  - {name: r, key: secret-r-1, money_day: "
              "1}\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int before = atomic_load(&the.up.requests),
            status = chat(rows[i].secret, rows[i].model, rows[i].script, ",\"max_tokens\":100");
        int tries = atomic_load(&the.up.requests) - before;
        if (status != rows[i].status || tries != rows[i].tries) {
            fail_msg("row %zu: status %d, %d tries: %s", i, status, tries, r.body.data);
        }
        assert_int_equal(body_has(&r, "not tried again: what is left of the budget"), i == 0 || i == 2);
    }
    check_settled();
    assert_true(state_of('k', "k").nano_day <= 500000 && state_of('k', "t").nano_day <= 750000);
    bed_stop(&the, 5000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE stage = 'attempt' AND key = 'k'"), 0);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE stage = 'attempt' AND key = 't'"), 1);
}

/* Whatever becomes of a request, what it held is free again (close_bed looks), and only what came is booked. */
static void test_settled_whatever_happens(void **state) {
    (void)state;
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 1, streams: 9}\n");
    assert_int_equal(chat("secret-k-1", "n", "whole", ""), 200);
    assert_int_equal(chat("secret-k-1", "n", "no", ""), 500);
    assert_int_equal(chat("secret-k-1", "n", "good", ",\"stream\":true"), 200);
    chat("secret-k-1", "n", "broken", ",\"stream\":true");
    assert_int_equal(chat("secret-k-1", "nobody", "whole", ""), 404);
    char body[256];
    int  fd = client_connect(the.port);
    str  in = {0};
    snprintf(body, sizeof body,
             "{\"model\":\"n\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"@slow\"}]}");
    send_post(fd, CHAT, bearer("secret-k-1"), body);
    until((in.data && strstr(in.data, "more ")) || !receive(fd, &in));
    assert_true(state_of('k', "k").held > 0 && state_of('k', "k").streams == 1);
    close(fd); /* the client leaves */
    str_free(&in);
    check_settled();
    snprintf(body, sizeof body, "{\"model\":\"n\",\"messages\":[{\"role\":\"user\",\"content\":\"@whole again\"}]}");
    for (int i = 0; i < 2; i++) { /* the second is recalled, and costs nothing */
        int64_t before = state_of('k', "k").nano_day;
        post(the.port, CHAT, "Authorization: Bearer secret-k-1\r\n", body, &r);
        assert_int_equal(r.status, 200);
        until(in_flight(&the) == 0);
        assert_int_equal(state_of('k', "k").nano_day - before, i ? 0 : 7 * 1000 + 3 * 2000);
    }
    assert_true(answered_by(&r, "recall.exact"));
    int64_t spent = state_of('k', "k").nano_day;
    bed_stop(&the, 5000000);
    assert_int_equal(ledger_number(&the, "SELECT sum(cost_nano) FROM ledger"), spent);
}

static void test_groups(void **state) {
    (void)state;
    open_with("groups:\n  team: {money_month: 0.0005, models: [n, free]}\n"
              "keys:\n  - {name: ann, key: secret-ann, group: team}\n  - {name: bob, key: secret-bob, group: team}\n");
    assert_int_equal(chat("secret-ann", "n", "endless", ",\"stream\":true,\"max_tokens\":100"), 200);
    assert_int_equal(chat("secret-bob", "n", "endless", ",\"stream\":true"), 200); /* gets what is left */
    assert_true(r.complete && body_has(&r, "\"finish_reason\":\"length\""));
    assert_int_equal(chat("secret-ann", "n", "endless", ",\"stream\":true"), 402);
    assert_true(body_has(&r, "group team"));
    bed_stop(&the, 5000000);
    assert_true(ledger_number(&the, "SELECT sum(cost_nano) FROM ledger WHERE key_group = 'team'") <= 500000);
    assert_true(ledger_number(&the, "SELECT sum(cost_nano) FROM ledger WHERE key_group = 'team'") >= 470000);
}

static void test_unknown_group(void **state) {
    (void)state;
    open_with("");
    char path[128];
    snprintf(path, sizeof path, "%s/pare.yaml", the.dir);
    bed_write_config(&the, path, "groups:\n  team: {streams: 3}\nkeys:\n  - {name: a, key: secret-ann, group: taem}\n");
    post(the.port, "/api/reload", "", "{}", &r);
    assert_int_equal(r.status, 400);
    assert_true(body_has(&r, "taem") && body_has(&r, "did you mean team"));
}

/* ---- the other limits ---- */

static void get(const char *path, const char *secret) {
    str out = {0};
    int fd = client_connect(the.port);
    str_addf(&out, "GET %s HTTP/1.1\r\nHost: test\r\n%s\r\n", path, bearer(secret));
    reply_free(&r);
    send_all(fd, out.data, out.len);
    read_reply(fd, &r, false);
    close(fd);
    str_free(&out);
}

static void test_models(void **state) {
    (void)state;
    open_with("keys:\n  - {name: k, key: secret-k-1, models: [fr*]}\n  - {name: all, key: secret-all}\n");
    assert_int_equal(chat("secret-k-1", "free", "whole", ""), 200);
    assert_int_equal(chat("secret-k-1", "n", "whole", ""), 403);
    assert_true(body_has(&r, "\"param\":\"model\""));
    assert_int_equal(chat("secret-k-1", "no-such-model", "whole", ""), 403); /* not told that there is none */
    assert_int_equal(chat("secret-all", "no-such-model", "whole", ""), 404);
    get("/v1/models", "secret-k-1");
    assert_true(r.status == 200 && body_has(&r, "\"free\"") && !body_has(&r, "\"n\"") && !body_has(&r, "\"m\""));
    get("/v1/models/n", "secret-k-1");
    assert_int_equal(r.status, 404);
    get("/v1/models/n", "secret-all");
    assert_int_equal(r.status, 200);
}

static void test_rates_streams_and_expiry(void **state) {
    (void)state;
    char more[512], date[DATE_TEXT], value[32];
    date_text(clock_wall_us() + 3000000, date);
    snprintf(more, sizeof more,
             "keys:\n  - {name: slow, key: secret-slow, requests_minute: 2}\n"
             "  - {name: one, key: secret-one, streams: 1}\n  - {name: old, key: secret-old, expires: 2020-01-31}\n"
             "  - {name: soon, key: secret-soon, expires: %s}\n  - {name: few, key: secret-few, tokens_minute: 40}\n",
             date);
    open_with(more);
    while (clock_wall_us() / 1000000 % 60 > 55) { /* a new minute would begin anew */
        nap(200);
    }
    assert_int_equal(chat("secret-soon", "n", "whole", ""), 200);
    assert_int_equal(chat("secret-slow", "n", "whole", ""), 200);
    assert_int_equal(chat("secret-slow", "n", "whole", ""), 200);
    assert_int_equal(chat("secret-slow", "n", "whole", ""), 429);
    assert_true(header_of(&r, "Retry-After", value, sizeof value) && atoi(value) >= 1 && atoi(value) <= 60);
    assert_int_equal(chat("secret-few", "n", "whole", ",\"max_tokens\":16"), 200);
    assert_int_equal(chat("secret-few", "n", "whole", ",\"max_tokens\":16"), 429); /* 10 are used, more might be */
    assert_int_equal(chat("secret-old", "n", "whole", ""), 403);
    get("/v1/models", "secret-old");
    assert_int_equal(r.status, 401);
    char body[256];
    int  fd = client_connect(the.port);
    snprintf(body, sizeof body,
             "{\"model\":\"n\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"@slow\"}]}");
    send_post(fd, CHAT, bearer("secret-one"), body);
    until(state_of('k', "one").streams == 1);
    assert_int_equal(chat("secret-one", "n", "good", ",\"stream\":true"), 429);
    assert_int_equal(chat("secret-one", "n", "whole", ""), 200); /* is no stream */
    close(fd);
    until(state_of('k', "one").streams == 0);
    assert_int_equal(chat("secret-one", "n", "good", ",\"stream\":true"), 200);
    until(chat("secret-soon", "n", "whole", "") == 403);
    assert_int_equal(r.status, 403);
}

/* ---- keys that come and go ---- */

static void make_key(const char *name, const char *group, key_rules rules, char secret[KEY_SECRET]) {
    err             e = {0};
    key_row         row = {.rules = rules, .created_us = clock_wall_us()};
    struct sqlite3 *c = keys_connect(the.dir, true, &e);
    assert_ok(c, e);
    snprintf(row.name, sizeof row.name, "%s", name);
    snprintf(row.group, sizeof row.group, "%s", group);
    assert_ok(key_make_secret(&row, secret, &e), e);
    assert_ok(keys_create(c, &row, &e), e);
    keys_disconnect(c);
}

static int keys_now(void) {
    generation *g = house_now(the.house);
    int         n = g->gateway.n_keys;
    generation_drop(g); /* the house has one */
    return n;
}

static void test_keys_beside_a_running_server(void **state) {
    (void)state;
    err  e = {0};
    char ann[KEY_SECRET], bob[KEY_SECRET], body[256];
    open_with("");
    assert_int_equal(chat("whatever", "n", "whole", ""), 200); /* keys are not in use */
    make_key("ann", "", rules_none(), ann);
    int64_t began = clock_us();
    until(chat("whatever", "n", "whole", "") == 401);
    assert_true(clock_us() - began < 3000000);
    assert_int_equal(chat(ann, "n", "whole", ""), 200);
    key_rules poor = rules_none();
    poor.nano_day = 0;
    make_key("bob", "team", poor, bob);
    until(chat(bob, "n", "whole", "") == 402);
    assert_int_equal(r.status, 402);
    /* A stream of a key that is revoked goes on to its end. */
    int fd = client_connect(the.port);
    snprintf(body, sizeof body,
             "{\"model\":\"n\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"@slow\"}]}");
    send_post(fd, CHAT, bearer(ann), body);
    until(in_flight(&the) == 1);
    struct sqlite3 *c = keys_connect(the.dir, true, &e);
    assert_ok(keys_revoke(c, "ann", clock_wall_us(), &e), e);
    until(chat(ann, "n", "whole", "") == 401);
    assert_int_equal(r.status, 401);
    poor.nano_day = 1000000000;
    assert_ok(keys_limit(c, "bob", &poor, RULE_DAY, &e), e);
    until(chat(bob, "n", "whole", "") == 200);
    assert_int_equal(r.status, 200);
    poor.nano_day = 0;
    assert_ok(groups_limit(c, "team", &poor, RULE_DAY, &e), e);
    until(chat(bob, "n", "whole", "") == 402);
    assert_true(body_has(&r, "group team"));
    assert_ok(keys_revoke(c, "bob", clock_wall_us(), &e), e);
    keys_disconnect(c);
    until(chat(bob, "n", "whole", "") == 401);
    assert_int_equal(chat("whatever", "n", "whole", ""), 401); /* the last one revoked does not open the door */
    reply_free(&r);
    read_reply(fd, &r, false);
    assert_true(r.complete && body_has(&r, "[DONE]"));
    assert_int_equal(count_of(r.body.data, "more "), 40);
    close(fd);
}

static int api(const char *method, const char *path, const char *secret, const char *type, const char *body) {
    str out = {0};
    int fd = client_connect(the.port);
    str_addf(&out, "%s %s HTTP/1.1\r\nHost: test\r\n%s%s%s%sContent-Length: %zu\r\n\r\n%s", method, path,
             bearer(secret), *type ? "Content-Type: " : "", type, *type ? "\r\n" : "", strlen(body), body);
    reply_free(&r);
    send_all(fd, out.data, out.len);
    read_reply(fd, &r, false);
    close(fd);
    str_free(&out);
    return r.status;
}

#define JSON "application/json"

static void test_admin_api(void **state) {
    (void)state;
    char secret[KEY_SECRET];
    open_with("keys:\n  - {name: boss, key: secret-boss, admin: true}\n  - {name: k, key: secret-k-1}\n");
    assert_int_equal(api("POST", "/api/keys", "secret-k-1", JSON, "{\"name\":\"x\"}"), 403);
    assert_int_equal(api("POST", "/api/keys", "nobody's", JSON, "{\"name\":\"x\"}"), 401);
    assert_int_equal(api("POST", "/api/keys", "secret-boss", "text/plain", "{\"name\":\"x\"}"), 400);
    assert_int_equal(api("POST", "/api/keys", "secret-boss", JSON, "{\"name\":\"x\",\"colour\":1}"), 400);
    assert_true(body_has(&r, "colour"));
    assert_int_equal(api("POST", "/api/keys", "secret-boss", JSON, "{\"name\":\"boss\"}"), 400);
    assert_int_equal(api("POST", "/api/keys", "secret-boss", JSON, "{\"name\":\"two words\"}"), 400);
    assert_int_equal(api("POST", "/api/keys", "secret-boss", JSON, "{\"name\":\"x\",\"money_day\":-3}"), 400);
    assert_int_equal(api("POST", "/api/keys", "secret-boss", JSON,
                         "{\"name\":\"x\",\"group\":\"team\",\"models\":[\"n\"],\"money_day\":0.5}"),
                     200);
    const char *at = strstr(r.body.data, "\"key\":\"");
    assert_non_null(at);
    snprintf(secret, sizeof secret, "%.*s", (int)strcspn(at + 7, "\""), at + 7);
    assert_int_equal(strlen(secret), 69);
    assert_true(has_header(&r, "Cache-Control", "no-store"));
    until(chat(secret, "n", "whole", "") == 200); /* at once on this loop, a moment later on the other */
    assert_int_equal(r.status, 200);
    assert_int_equal(chat(secret, "m", "whole", ""), 403);
    assert_int_equal(api("POST", "/api/keys", "secret-boss", JSON, "{\"name\":\"x\"}"), 400); /* taken */
    assert_int_equal(api("PATCH", "/api/keys/x", "secret-boss", JSON, "{\"models\":null,\"streams\":2}"), 200);
    until(chat(secret, "m", "whole", "") == 200);
    assert_int_equal(r.status, 200);
    assert_int_equal(api("PATCH", "/api/groups/team", "secret-boss", JSON, "{\"money_month\":0}"), 200);
    until(chat(secret, "m", "whole", "") == 402);
    assert_int_equal(r.status, 402);
    assert_int_equal(api("PATCH", "/api/keys/none", "secret-boss", JSON, "{\"streams\":2}"), 404);
    assert_int_equal(api("PATCH", "/api/keys/boss", "secret-boss", JSON, "{\"streams\":2}"), 400);
    nap(300); /* the ledger's rows are written within 100 ms */
    assert_int_equal(api("GET", "/api/keys", "secret-boss", "", ""), 200);
    assert_true(body_has(&r, "\"name\":\"x\"") && body_has(&r, "\"money_day\":0.500000") && body_has(&r, "\"boss\""));
    assert_false(body_has(&r, secret));
    assert_true(body_has(&r, "\"spent_day\":0.000026")); /* two answers of 13000 nano-dollars */
    assert_int_equal(api("GET", "/api/limits", "secret-boss", "", ""), 200);
    assert_true(body_has(&r, "{\"kind\":\"key\",\"name\":\"x\",\"spent_day\":0.000026"));
    assert_int_equal(api("GET", "/api/limits", "secret-k-1", "", ""), 403);
    assert_int_equal(api("DELETE", "/api/keys/x", "secret-boss", "", ""), 200);
    until(chat(secret, "n", "whole", "") == 401);
    assert_int_equal(r.status, 401);
    assert_int_equal(api("PUT", "/api/keys/x", "secret-boss", JSON, "{}"), 405);
    bed_stop(&the, 5000000); /* nowhere but in the answer */
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM client_keys WHERE instr(hex(sha256), '%.20s') > 0 OR name = '%s'",
             secret + 5, secret);
    assert_int_equal(ledger_number(&the, sql), 0);
    assert_int_equal(ledger_number(&the, "SELECT length(sha256) FROM client_keys WHERE name = 'x'"), 32);
}

/* ---- over a restart ---- */

static void start_again(void) {
    err  e = {0};
    char path[128];
    assert_true(upstream_start(&the.up, scripts));
    snprintf(path, sizeof path, "%s/pare.yaml", the.dir);
    bed_write_config(&the, path, "keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n");
    settings_free(the.settings);
    the.settings = bed_read_again(&the, &e);
    assert_ok(the.settings, e);
    the.house = house_open(the.settings, NULL, &e);
    assert_ok(the.house, e);
    the.server = server_open(the.house, bed_read_again, &the, &e);
    assert_ok(the.server, e);
    assert_ok(server_start(the.server, &e), e);
    the.port = server_port(the.server);
}

static void test_spent_before_a_restart(void **state) {
    (void)state;
    open_with("keys:\n  - {name: k, key: secret-k-1, money_day: 0.0005}\n");
    while (clock_wall_us() % (86400LL * 1000000) > 86390LL * 1000000) { /* not over midnight */
        nap(500);
    }
    assert_int_equal(chat("secret-k-1", "n", "endless", ",\"stream\":true,\"max_tokens\":100"), 200);
    check_settled();
    int64_t spent = state_of('k', "k").nano_day;
    assert_true(spent > 200000);
    bed_stop(&the, 5000000);
    start_again();
    assert_int_equal(state_of('k', "k").nano_day, spent);
    assert_int_equal(chat("secret-k-1", "n", "endless", ",\"stream\":true"), 200);
    assert_int_equal(chat("secret-k-1", "n", "endless", ",\"stream\":true"), 402);
    bed_stop(&the, 5000000);
    assert_true(ledger_number(&the, "SELECT sum(cost_nano) FROM ledger") <= 500000);
}

/* A budget that comes later finds what was spent without one. */
static void test_a_budget_that_comes_later(void **state) {
    (void)state;
    err       e = {0};
    char      secret[KEY_SECRET];
    key_rules rules = rules_none();
    open_with("");
    make_key("ann", "", rules, secret);
    until(chat(secret, "n", "whole", "") == 200 && keys_now() == 1);
    chat(secret, "n", "whole", "");
    nap(400);
    rules.nano_day = 10000; /* less than one answer */
    struct sqlite3 *c = keys_connect(the.dir, true, &e);
    assert_ok(keys_limit(c, "ann", &rules, RULE_DAY, &e), e);
    keys_disconnect(c);
    until(chat(secret, "n", "whole", "") == 402);
    assert_int_equal(r.status, 402);
    assert_true(state_of('k', "ann").nano_day >= 13000);
}

/* ---- ten thousand ---- */

static void test_many_keys(void **state) {
    (void)state;
    enum { KEYS = 10000 };
    err      e = {0};
    sqlite3 *c;
    char     path[128], secret[24];
    open_with("");
    snprintf(path, sizeof path, "%s/pare.db", the.dir);
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    sqlite3_busy_timeout(c, 5000);
    assert_int_equal(sqlite3_exec(c, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < KEYS; i++) {
        char   sql[512], hex[65];
        sha256 hash = sha256_of(secret, (size_t)snprintf(secret, sizeof secret, "secret-%d", i));
        hex_encode(hash.bytes, 32, hex);
        snprintf(
            sql, sizeof sql,
            "INSERT INTO client_keys VALUES('key-%d', x'%s', '', 'key-%d', 0, '', 0, 0, 5, 1000000000, -1, 0, 1, 0)", i,
            hex, i);
        assert_int_equal(sqlite3_exec(c, sql, NULL, NULL, NULL), SQLITE_OK);
    }
    assert_int_equal(sqlite3_exec(c, "UPDATE client_changes SET n = n + 1; COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(c);
    until(keys_now() == KEYS);
    int64_t     began = clock_us();
    generation *was = house_now(the.house), *g = generation_rekey(was, &e);
    int64_t     made = clock_us() - began;
    assert_ok(g, e);
    generation_drop(was);
    began = clock_us();
    for (int i = 0; i < KEYS; i++) {
        snprintf(secret, sizeof secret, "secret-%d", i);
        const client_key *k = gateway_key(&g->gateway, secret);
        assert_non_null(k);
        assert_int_equal(atoi(k->name + 4), i);
    }
    int64_t each_ns = (clock_us() - began) * 1000 / KEYS;
    assert_null(gateway_key(&g->gateway, "secret-10000"));
    print_message("%d keys: taken over in %lld ms, looked up in %lld ns\n", KEYS, (long long)made / 1000,
                  (long long)each_ns);
    assert_true(each_ns < 100000); /* with sanitizers, too */
    if (generation_drop(g)) {
        generation_free(g);
    }
    until(chat("secret-7777", "n", "whole", "") == 200);
    assert_int_equal(r.status, 200);
    assert_int_equal(chat("secret-10000", "n", "whole", ""), 401);
}

/* ---- the file ---- */

static void test_rules_in_the_file(void **state) {
    (void)state;
    static const struct {
        const char *more, *said;
    } rows[] = {{"keys: [{name: a, key: secret-ann, requests_minute: 0}]", "requests_minute"},
                {"keys: [{name: a, key: secret-ann, money_day: -1}]", "money_day"},
                {"keys: [{name: a, key: secret-ann, models: gpt}]", "models must be a list"},
                {"keys: [{name: a, key: secret-ann, models: []}]", "models must be a list"},
                {"keys: [{name: a, key: secret-ann, expires: soon}]", "expires is \"soon\""},
                {"keys: [{name: a, key: secret-ann, money_dya: 1}]", "money_day"},
                {"groups: {team: {steams: 1}}", "streams"},
                {"groups: [team]", "groups must be a mapping"},
                {"shared: {share: 0.5}", "shared needs redis"},
                {"shared: {redis: 'http://x'}", "redis://"},
                {"shared: {redis: 'redis://127.0.0.1', share: 0}", "share"}};
    open_with("");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        err       e = {0};
        char      path[128];
        settings *s = settings_new(&e);
        snprintf(path, sizeof path, "%s/pare.yaml", the.dir);
        bed_write_config(&the, path, rows[i].more);
        if (settings_read(s, path, &e) || !strstr(e.text, rows[i].said)) {
            fail_msg("%s: %s", rows[i].more, e.text);
        }
        settings_free(s);
    }
}

/* ---- the door ---- */

static void test_open_addresses(void **state) {
    (void)state;
    err       e = {0};
    char      secret[KEY_SECRET];
    settings *s;
    open_with("");
    s = settings_new(&e);
    s->data = the.dir;
    assert_true(settings_listen(s, "0.0.0.0:0", &e));
    assert_false(settings_check(s, &e));
    assert_non_null(strstr(e.text, "pare key create"));
    settings_free(s);
    make_key("ann", "", rules_none(), secret);
    e = (err){0};
    s = settings_new(&e);
    s->data = the.dir;
    assert_true(settings_listen(s, "0.0.0.0:0", &e));
    assert_ok(settings_check(s, &e), e);
    settings_free(s);
}

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, close_bed)
    const struct CMUnitTest tests[] = {T(test_a_thousand_streams),
                                       T(test_cut_at_the_token),
                                       T(test_wide_deltas),
                                       T(test_a_stream_of_messages_is_cut_cleanly),
                                       T(test_whole_answers_are_bounded_by_the_provider),
                                       T(test_further_tries_are_held_for),
                                       T(test_settled_whatever_happens),
                                       T(test_groups),
                                       T(test_unknown_group),
                                       T(test_models),
                                       T(test_rates_streams_and_expiry),
                                       T(test_keys_beside_a_running_server),
                                       T(test_admin_api),
                                       T(test_spent_before_a_restart),
                                       T(test_a_budget_that_comes_later),
                                       T(test_many_keys),
                                       T(test_rules_in_the_file),
                                       T(test_open_addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
