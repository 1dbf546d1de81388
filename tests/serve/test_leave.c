/* Clients that go away, at every moment; servers that are told to end, at every moment. What nobody waits for is
 * cancelled, upstream too; every exchange has one row; the sanitizers see whether memory is given back once.          */
#include "bed.h"

static void run_pour(upstream *u, int fd) { /* as fast as it can */
    char *big = malloc(60001);
    str   event = {0};
    memset(big, 'x', 60000);
    big[60000] = '\0';
    str_addf(&event, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"}}]}\n\n", big);
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    bool ok = true;
    for (int i = 0; i < 4000 && ok && !atomic_load(&u->stop); i++) {
        ok = send_all(fd, event.data, event.len);
    }
    if (!ok) {
        atomic_fetch_add(&u->left, 1);
    }
    str_free(&event);
    free(big);
}

static void run_later(upstream *u, int fd) { /* a stream of about 300 ms */
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 30; i++) {
        if (peer_left(u, fd, 10) || !say(fd, EVENT(DELTA("tok")))) {
            atomic_fetch_add(&u->left, 1);
            return;
        }
    }
    say(fd, EVENT(END_DELTA) DONE);
}

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"silent", "", NULL, RAW, HANG, NULL},
                                 {"head_only", SSE_HEAD, "", UNENDED, HANG, NULL},
                                 {"stalls", SSE_HEAD, EVENT(DELTA("hel")), UNENDED, HANG, NULL},
                                 {"half_json", JSON_HEAD, WHOLE, TOO_LONG, HANG, NULL},
                                 {"trickle", NULL, NULL, RAW, CLOSE, run_trickle},
                                 {"later", NULL, NULL, RAW, CLOSE, run_later},
                                 {"pour", NULL, NULL, RAW, CLOSE, run_pour},
                                 {0}};

static bed   the;
static reply r;

static int open_bed(void **state) {
    (void)state;
    bed_open(&the, scripts);
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    bed_close(&the);
    return 0;
}

/* A connection with a request under way; returns when the provider has it. */
static int begin(const char *name, const char *salt, bool stream) {
    char body[256];
    int  fd = client_connect(the.port), before = atomic_load(&the.up.requests);
    assert_true(fd >= 0);
    send_post(fd, CHAT, "", chat_body(body, sizeof body, name, salt, stream));
    until(atomic_load(&the.up.requests) > before);
    assert_true(atomic_load(&the.up.requests) > before);
    return fd;
}

static void leave(int fd, bool hard) {
    if (hard) {
        reset_connection(fd);
    }
    close(fd);
}

static void wait_quiet(void) {
    until(in_flight(&the) == 0);
    assert_int_equal(in_flight(&the), 0);
}

/* The rows of the stopped bed with this outcome. */
static int64_t rows_with(const char *outcome) {
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM ledger WHERE outcome = '%s'", outcome);
    return ledger_number(&the, sql);
}

static void test_before_the_body(void **state) {
    (void)state;
    static const char *const parts[] = {"",
                                        "PO",
                                        "POST " CHAT " HTTP/1.1\r\n",
                                        "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-",
                                        "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n",
                                        "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{\"model\":",
                                        "POST " CHAT
                                        " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"m"};
    for (size_t i = 0; i < 2 * sizeof parts / sizeof parts[0]; i++) {
        int fd = client_connect(the.port);
        say(fd, parts[i / 2]);
        nap(3);
        leave(fd, i % 2);
    }
    ask(&the, "whole", "after", false, &r);
    assert_int_equal(r.status, 200);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 1);
}

/* While it waits for the provider, in each of the provider's states. */
static void test_while_waiting(void **state) {
    (void)state;
    static const char *const names[] = {"silent", "head_only", "half_json", "stalls"};
    char                     salt[16];
    for (int i = 0; i < 16; i++) {
        snprintf(salt, sizeof salt, "%d", i);
        int left = atomic_load(&the.up.left), fd = begin(names[i / 4], salt, i & 1);
        nap(i & 1 ? 20 : 0);
        int64_t began = clock_us();
        leave(fd, i & 2);
        until(atomic_load(&the.up.left) > left);
        assert_int_equal(atomic_load(&the.up.left), left + 1);
        assert_true(clock_us() - began < 900000); /* cancelled, not timed out: the shortest limit is 1 s */
    }
    wait_quiet();
    bed_stop(&the, 1000000);
    assert_int_equal(rows_with("cancelled"), 16);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 16);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM cache"), 0);
}

static void test_mid_stream(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        str  in = {0};
        char salt[16];
        snprintf(salt, sizeof salt, "%d", i);
        int fd = begin("trickle", salt, true), left = atomic_load(&the.up.left);
        while (!in.data || !strstr(in.data, "tok")) {
            assert_true(receive(fd, &in));
        }
        int64_t began = clock_us();
        leave(fd, i & 1);
        until(atomic_load(&the.up.left) > left);
        assert_int_equal(atomic_load(&the.up.left), left + 1);
        assert_true(clock_us() - began < 500000);
        str_free(&in);
    }
    wait_quiet();
    ask(&the, "whole", "after", false, &r); /* the pool of connections is whole */
    ask(&the, "stream", "after", true, &r);
    assert_true(r.status == 200 && body_has(&r, DONE));
    bed_stop(&the, 1000000);
    assert_int_equal(rows_with("cancelled"), 6);
    assert_int_equal(rows_with("ok"), 2);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM cache"), 2);
    assert_int_equal(
        ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome='cancelled' AND completion_tokens=0"),
        0); /* half an answer was made and will be on the invoice */
}

/* Gone before, while and after the answer goes out. */
static void test_around_the_end(void **state) {
    (void)state;
    char body[256];
    for (int i = 0; i < 120; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "%d", i / 4);
        int fd = client_connect(the.port);
        send_post(fd, CHAT, "", chat_body(body, sizeof body, i & 1 ? "stream" : "whole", salt, i & 2));
        if (i % 3 == 1) {
            nap(1);
        } else if (i % 3 == 2) {
            read_reply(fd, &r, false);
        }
        leave(fd, false);
    }
    wait_quiet();
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 120);
    assert_int_equal(rows_with("ok") + rows_with("cancelled"), 120);
}

/* A client that has said all it will say may close its side; that is taken as leaving, as most gateways do. What is
 * already answered still goes out. */
static void test_half_closed(void **state) {
    (void)state;
    int fd = begin("silent", "half", false);
    shutdown(fd, SHUT_WR);
    until(atomic_load(&the.up.left) > 0);
    assert_int_equal(atomic_load(&the.up.left), 1);
    close(fd);
    wait_quiet();
}

/* More waits behind the running request than is read: the close is seen when the answer is done, and nothing hangs. */
static void test_behind_a_running_one(void **state) {
    (void)state;
    char *more = malloc(1 << 20);
    memset(more, 'x', (1 << 20) - 1);
    more[(1 << 20) - 1] = '\0';
    for (int i = 0; i < 4; i++) {
        int fd = begin(i & 1 ? "later" : "silent", i & 2 ? "a" : "b", true);
        send(fd, more, i & 2 ? 1000 : (1 << 20) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        leave(fd, false);
        wait_quiet();
    }
    free(more);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 4);
}

/* One question of many clients is one call; it goes on while one of them is left, and no longer. */
static void test_shared(void **state) {
    (void)state;
    enum { N = 8 };
    int  fd[N];
    char body[256];
    for (int round = 0; round < 2; round++) {
        int before = atomic_load(&the.up.requests), left = atomic_load(&the.up.left);
        fd[0] = begin(round ? "trickle" : "later", "shared", true);
        chat_body(body, sizeof body, round ? "trickle" : "later", "shared", true);
        for (int i = 1; i < N; i++) {
            fd[i] = client_connect(the.port);
            send_post(fd[i], CHAT, "", body);
        }
        until(in_flight(&the) == N);
        for (int i = 0; i < N - 1; i++) {
            leave(fd[i], i & 1);
        }
        until(in_flight(&the) == 2);
        assert_int_equal(in_flight(&the), 2); /* the last, and the first, whose client has gone */
        if (round == 0) {
            read_reply(fd[N - 1], &r, false);
            assert_true(r.status == 200 && body_has(&r, DONE) && answered_by(&r, "recall.exact"));
            assert_int_equal(atomic_load(&the.up.left), left);
        }
        leave(fd[N - 1], false);
        wait_quiet();
        assert_int_equal(atomic_load(&the.up.requests), before + 1);
        until(atomic_load(&the.up.left) == left + round); /* it sees the closed connection when it looks */
        assert_int_equal(atomic_load(&the.up.left), left + round);
    }
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 2 * N);
}

/* A stream that its client does not read is let go at 16 MiB. */
static void test_does_not_read(void **state) {
    (void)state;
    int fd = begin("pour", "x", true), left = atomic_load(&the.up.left);
    until(atomic_load(&the.up.left) > left);
    assert_int_equal(atomic_load(&the.up.left), left + 1);
    wait_quiet();
    close(fd);
    bed_stop(&the, 1000000);
    assert_int_equal(rows_with("cancelled"), 1);
}

static int open_dashboard(void) {
    int fd = client_connect(the.port);
    say(fd, "GET /api/live?window=15m HTTP/1.1\r\nHost: x\r\n\r\n");
    return fd;
}

static void test_dashboards(void **state) {
    (void)state;
    enum { N = 24 };
    int      fd[N];
    uint64_t seed = 7;
    for (int i = 0; i < N; i++) {
        fd[i] = open_dashboard();
    }
    for (int i = 0; i < 200; i++) {
        char salt[16];
        int  k = (int)(test_random(&seed) % N);
        snprintf(salt, sizeof salt, "%d", i);
        leave(fd[k], test_random(&seed) & 1);
        fd[k] = open_dashboard();
        if (i % 4 == 0) {
            ask(&the, "whole", salt, false, &r);
        }
    }
    str in = {0};
    ask(&the, "whole", "seen", false, &r);
    while (!in.data || !strstr(in.data, "event: stats") || !strstr(in.data, "event: requests")) {
        if (!receive(fd[0], &in)) {
            fail_msg("the dashboard got %s", in.data ? in.data : "nothing");
        }
        ask(&the, "whole", "seen", false, &r);
    }
    str_free(&in);
    for (int i = 0; i < 50; i++) { /* what a dashboard says is not kept without bound */
        static char noise[100000];
        send(fd[1], noise, sizeof noise, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    bed_stop(&the, 1000000); /* with all of them open */
    for (int i = 0; i < N; i++) {
        close(fd[i]);
    }
}

/* Questions to the database under way when the server ends. */
static void test_end_with_questions(void **state) {
    (void)state;
    int fd[60];
    for (int i = 0; i < 60; i++) {
        fd[i] = client_connect(the.port);
        say(fd[i], i % 3 == 0   ? "GET /api/stats HTTP/1.1\r\nHost: x\r\n\r\n"
                   : i % 3 == 1 ? "GET /api/live HTTP/1.1\r\nHost: x\r\n\r\n"
                                : "GET /api/cache?list=10 HTTP/1.1\r\nHost: x\r\n\r\n");
        if (i % 5 == 0) {
            leave(fd[i], i % 2);
            fd[i] = -1;
        }
    }
    nap(2);
    bed_stop(&the, 1000000);
    for (int i = 0; i < 60; i++) {
        if (fd[i] >= 0) {
            close(fd[i]);
        }
    }
}

/* What can end within the time ends; the rest is told. */
static void test_end_with_exchanges(void **state) {
    (void)state;
    reply many[5] = {{0}};
    int   fd[5];
    fd[0] = begin("later", "end", true);
    fd[1] = begin("trickle", "end", true);
    fd[2] = begin("silent", "end", false);
    char body[256];
    fd[3] = client_connect(the.port); /* follows the third */
    send_post(fd[3], CHAT, "", chat_body(body, sizeof body, "silent", "end", false));
    fd[4] = begin("trickle", "gone", true);
    until(in_flight(&the) == 5);
    leave(fd[4], true);
    bed_stop(&the, 1100000); /* "later" takes half a second, the silent one is given up after one and a half */
    for (int i = 0; i < 4; i++) {
        read_reply(fd[i], &many[i], false);
        close(fd[i]);
    }
    assert_true(many[0].status == 200 && many[0].complete && body_has(&many[0], DONE));
    assert_true(many[1].status == 200 && many[1].complete && body_has(&many[1], "shut down"));
    assert_false(body_has(&many[1], "[DONE]"));
    for (int i = 2; i < 4; i++) {
        assert_true(many[i].status == 503 && body_has(&many[i], "shut down"));
    }
    for (int i = 0; i < 5; i++) {
        reply_free(&many[i]);
    }
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 5);
    assert_int_equal(rows_with("cancelled"), 4);
    assert_int_equal(client_connect(the.port), -1); /* nobody listens any more */
}

/* No time at all: cancelled and told; and the last resort, when the loops end while exchanges run: nothing is sent, and
 * nothing is freed twice or never. */
static void end_at_once(int64_t drain_us) {
    int fd[5];
    fd[0] = begin("trickle", "1", true);
    fd[1] = begin("silent", "2", false);
    char body[256];
    fd[2] = client_connect(the.port);
    send_post(fd[2], CHAT, "", chat_body(body, sizeof body, "silent", "2", false));
    fd[3] = begin("stalls", "3", true);
    until(in_flight(&the) == 4);
    leave(fd[1], false); /* its work goes on for the third */
    fd[1] = open_dashboard();
    fd[4] = client_connect(the.port);
    say(fd[4], "GET /api/stats HTTP/1.1\r\nHost: x\r\n\r\n");
    nap(5);
    bed_stop(&the, drain_us);
    for (int i = 0; i < 5; i++) {
        close(fd[i]);
    }
}

static void test_end_at_once(void **state) {
    (void)state;
    end_at_once(0);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 4);
}

/* Connections between requests and in the middle of one. */
static void test_end_with_idle_connections(void **state) {
    (void)state;
    static const char *const parts[] = {"", "GET /he", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
                                        "POST " CHAT
                                        " HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n{\"model\":"};
    enum { N = 2 * sizeof parts / sizeof parts[0] };
    int   fd[N];
    char *much = calloc(1, 1 << 20);
    for (int i = 0; i < N; i++) {
        fd[i] = client_connect(the.port);
        say(fd[i], parts[i / 2]);
        if (i == N - 1) {
            send_all(fd[i], much, 1 << 20);
        }
    }
    free(much);
    nap(20);
    bed_stop(&the, 1000000);
    for (int i = 0; i < N; i++) {
        close(fd[i]);
    }
}

static void test_end_without_a_word(void **state) {
    (void)state;
    end_at_once(-1);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_bed, close_bed)
    const struct CMUnitTest tests[] = {T(test_before_the_body),
                                       T(test_while_waiting),
                                       T(test_mid_stream),
                                       T(test_around_the_end),
                                       T(test_half_closed),
                                       T(test_behind_a_running_one),
                                       T(test_shared),
                                       T(test_does_not_read),
                                       T(test_dashboards),
                                       T(test_end_with_questions),
                                       T(test_end_with_exchanges),
                                       T(test_end_at_once),
                                       T(test_end_with_idle_connections),
                                       T(test_end_without_a_word)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
