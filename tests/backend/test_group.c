/* A group that fails: what is tried again, where and when, and what never is. */
#include "group_bed.h"

static atomic_int turns[4]; /* of scripts that change */

static void send_once(int fd, const char *head, const char *body) {
    str out = {0};
    str_addf(&out, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", head, strlen(body), body);
    send_all(fd, out.data, out.len);
    str_free(&out);
}

static void run_flaky(upstream *u, int fd) { /* twice a failure */
    (void)u;
    bool bad = atomic_fetch_add(&turns[0], 1) < 2;
    send_once(fd, bad ? FAIL("503 Unavailable") : SSE_HEAD, bad ? SAYS("down") : GOOD_STREAM);
}

static void run_busy_once(upstream *u, int fd) { /* wants a second's rest, once */
    (void)u;
    bool bad = atomic_fetch_add(&turns[1], 1) < 1;
    send_once(fd, bad ? FAIL("429 Too Many") "\r\nRetry-After: 1" : SSE_HEAD, bad ? SAYS("later") : GOOD_STREAM);
}

static void run_busy_date(upstream *u, int fd) { /* the same as a date, two seconds from now */
    (void)u;
    char      head[160], date[64];
    time_t    at = time(NULL) + 2;
    struct tm utc;
    bool      bad = atomic_fetch_add(&turns[2], 1) < 1;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &utc));
    snprintf(head, sizeof head, FAIL("429 Too Many") "\r\nRetry-After: %s", date);
    send_once(fd, bad ? head : SSE_HEAD, bad ? SAYS("later") : GOOD_STREAM);
}

static atomic_int ill; /* @switched fails while it is set */

static void run_switched(upstream *u, int fd) {
    (void)u;
    bool bad = atomic_load(&ill);
    nap(60); /* long enough for others to come meanwhile */
    send_once(fd, bad ? FAIL("500 Oops") : SSE_HEAD, bad ? SAYS("ill") : GOOD_STREAM);
}

static const script scripts[] = {
    {"good", SSE_HEAD, EVENT(ROLE) GOOD_STREAM, CHUNKED, KEEP, NULL},
    {"good_whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
    {"e400", FAIL("400 Bad"), SAYS("bad request"), LENGTH, KEEP, NULL},
    {"e401", FAIL("401 Who"), SAYS("bad key"), LENGTH, KEEP, NULL},
    {"e404", FAIL("404 Not Found"), SAYS("no such model"), LENGTH, KEEP, NULL},
    {"e408", FAIL("408 Slow"), SAYS("slow"), LENGTH, KEEP, NULL},
    {"e409", FAIL("409 Conflict"), SAYS("lock"), LENGTH, KEEP, NULL},
    {"e500", FAIL("500 Oops"), SAYS("oops"), LENGTH, KEEP, NULL},
    {"busy", FAIL("429 Too Many") "\r\nRetry-After: 30", SAYS("later"), LENGTH, KEEP, NULL},
    {"busy_mute", FAIL("429 Too Many"), SAYS("later"), LENGTH, KEEP, NULL},
    {"cut", SSE_HEAD, EVENT(ROLE) EVENT(DELTA("hel")), CHUNKED, CLOSE, NULL},
    {"cut_role", SSE_HEAD, EVENT(ROLE), CHUNKED, CLOSE, NULL},
    {"error_first", SSE_HEAD, EVENT(SAYS("overloaded")), CHUNKED, KEEP, NULL},
    {"empty", SSE_HEAD, EVENT(ROLE) DONE, CHUNKED, KEEP, NULL},
    {"half_whole", JSON_HEAD, WHOLE, TOO_LONG, CLOSE, NULL},
    {"last_words", SSE_HEAD, "data: " DELTA("hel"), CHUNKED, CLOSE, NULL}, /* an event without its empty line */
    {"last_words_done", SSE_HEAD, "data: " END_DELTA, CHUNKED, CLOSE, NULL},
    {"resets", "", NULL, RAW, RESET, NULL},
    {"silent", "", NULL, RAW, HANG, NULL},
    {"role_hang", SSE_HEAD, EVENT(ROLE), UNENDED, HANG, NULL},
    {"trickle", NULL, NULL, RAW, CLOSE, run_trickle},
    {"flaky", NULL, NULL, RAW, CLOSE, run_flaky},
    {"busy_once", NULL, NULL, RAW, CLOSE, run_busy_once},
    {"busy_date", NULL, NULL, RAW, CLOSE, run_busy_date},
    {"switched", NULL, NULL, RAW, CLOSE, run_switched},
    {0}};

static const group_options quick = {.retries = 2, .pause_us = 20000, .break_failures = 1000};

#define TARGET(i, script)                                                                                              \
    { .backend = the.hosts[i], .model = script, .weight = 1 }
#define FALLBACK(i, script)                                                                                            \
    { .backend = the.hosts[i], .model = script, .fallback = true }

/* ---- one after another ---- */

static void test_well(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@good")};
    backend           *b = group_of(t, 1, &quick);
    caller             c;
    assert_string_equal(b->fingerprint, the.hosts[0]->fingerprint);
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h0");
    assert_string_equal(c.by_kind, "remote");
    assert_string_equal(c.by_model, "@good");
    assert_int_equal(c.deltas, 5); /* the role that was held back is among them */
    assert_int_equal(c.n_attempts, 0);
    assert_int_equal(c.usage.prompt, 7);
    caller_free(&c);
    b->ops->close(b);
}

static void test_again_after_5xx(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@flaky")};
    backend           *b = group_of(t, 1, &quick);
    caller             c;
    atomic_store(&turns[0], 0);
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h0");
    assert_int_equal(atomic_load(&turns[0]), 3);
    assert_true(took_ms(&c) >= 10 + 20); /* half of 20 and half of 40 ms at least */
    assert_int_equal(c.n_attempts, 0);   /* refused by status: nothing to pay */
    caller_free(&c);
    b->ops->close(b);
    group_options none = quick; /* and not at all where that is said */
    none.retries = 0;
    b = group_of(t, 1, &none);
    atomic_store(&turns[0], 0);
    call_once(&c, b, true);
    assert_int_equal(c.status, 503);
    assert_int_equal(atomic_load(&turns[0]), 1);
    caller_free(&c);
    b->ops->close(b);
}

#define EITHER (-1) /* one or two: libcurl itself asks again when a connection that it had kept breaks */

/* What each kind of failure leads to: how many requests in all, and who answers in the end. */
static void test_kinds_of_failure(void **state) {
    (void)state;
    static const struct {
        const char *script;
        int         at_first, at_second; /* requests */
        int         status;              /* 0: the fallback answers */
        int         attempts;
    } cases[] = {{"@e400", 1, 0, 400, 0},    {"@e404", 1, 0, 404, 0},      {"@e401", 1, 1, 0, 0},
                 {"@e408", 1, 1, 0, 0},      {"@e409", 1, 1, 0, 0},        {"@e500", 1, 1, 0, 0},
                 {"@busy", 1, 1, 0, 0},      {"@resets", EITHER, 1, 0, 0}, {"@cut", 1, 0, 502, 0},
                 {"@cut_role", 1, 1, 0, 1},  {"@error_first", 1, 1, 0, 1}, {"@silent", 1, 1, 0, 0},
                 {"@role_hang", 1, 1, 0, 1}, {"@half_whole", 1, 1, 0, 1},  {"@empty", 1, 0, 0, 0}};
    remote_options hasty = {.connect_us = 2000000, .first_us = 400000, .between_us = 400000};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool               whole = strcmp(cases[i].script, "@half_whole") == 0;
        backend           *first = host_named("first", the.up[0].port, &hasty);
        const group_target t[] = {{.backend = first, .model = cases[i].script, .weight = 1},
                                  FALLBACK(1, whole ? "@good_whole" : "@good")};
        backend           *b = group_of(t, 2, &quick);
        int                at_first = requests(0), at_second = requests(1);
        caller             c;
        call_once(&c, b, !whole);
        at_first = requests(0) - at_first;
        bool right = cases[i].at_first == EITHER ? at_first == 1 || at_first == 2 : at_first == cases[i].at_first;
        bool good = right && requests(1) - at_second == cases[i].at_second && c.status == cases[i].status &&
                    c.n_attempts == cases[i].attempts;
        if (!good) {
            fail_msg("%s: %d and %d requests, status %d, %d attempts: %s", cases[i].script, at_first,
                     requests(1) - at_second, c.status, c.n_attempts, c.sentence);
        }
        if (cases[i].at_second) {
            assert_answer(&c, "hello", "h1");
            assert_int_equal(c.deltas, whole ? 0 : 5); /* nothing of the first */
        } else {
            assert_string_equal(c.by, "first");
        }
        if (c.n_attempts) {
            assert_string_equal(c.attempts[0].backend, "first");
            assert_string_equal(c.attempts[0].model, cases[i].script);
            assert_string_equal(c.attempts[0].why, "fallback");
            assert_int_equal(c.attempts[0].status, 200);
            assert_false(c.attempts[0].usage.known);
        }
        caller_free(&c);
        b->ops->close(b);
        first->ops->close(first);
    }
}

static void test_nothing_after_a_delta(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@cut"), TARGET(1, "@cut"), FALLBACK(2, "@good")};
    backend           *b = group_of(t, 3, &quick);
    int                before = requests(0) + requests(1), third = requests(2);
    caller             c;
    call_once(&c, b, true);
    assert_int_equal(c.last, EVENT_ERROR); /* never a clean end */
    assert_string_equal(c.text.data, "hel");
    assert_int_equal(requests(0) + requests(1) - before, 1);
    assert_int_equal(requests(2), third);
    caller_free(&c);
    b->ops->close(b);
}

static void test_key_is_not_tried_again(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@e401"), TARGET(1, "@e401")};
    backend           *b = group_of(t, 2, &quick);
    int                before = requests(0) + requests(1);
    caller             c;
    call_once(&c, b, true);
    assert_int_equal(c.status, 401);
    assert_true(c.with_body);
    assert_int_equal(requests(0) + requests(1) - before, 2);
    caller_free(&c);
    b->ops->close(b);
}

/* The row, then the fallbacks in their order; where few tries are left, the fallbacks get them. */
static void test_order(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@e500"), TARGET(1, "@e500"), FALLBACK(2, "@e500"), FALLBACK(3, "@good")};
    int                before[HOSTS];
    caller             c;
    for (int retries = 1; retries <= 3; retries++) {
        group_options o = quick;
        o.retries = retries;
        backend *b = group_of(t, 4, &o);
        for (int i = 0; i < HOSTS; i++) {
            before[i] = requests(i);
        }
        call_once(&c, b, true);
        assert_int_equal(requests(0) + requests(1) - before[0] - before[1], retries == 3 ? 2 : 1);
        assert_int_equal(requests(2) - before[2], 1);
        assert_int_equal(requests(3) - before[3], retries > 1);
        assert_int_equal(c.status, retries > 1 ? 0 : 500);
        caller_free(&c);
        b->ops->close(b);
    }
}

/* ---- Retry-After ---- */

static void test_retry_after(void **state) {
    (void)state;
    const group_target second[] = {TARGET(0, "@busy_once")}, date[] = {TARGET(0, "@busy_date")};
    caller             c;
    backend           *b = group_of(second, 1, &quick);
    atomic_store(&turns[1], 0);
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h0");
    assert_true(took_ms(&c) >= 1000 && took_ms(&c) < 9000);
    caller_free(&c);
    b->ops->close(b);
    b = group_of(date, 1, &quick);
    atomic_store(&turns[2], 0);
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h0");
    assert_true(took_ms(&c) >= 900 && took_ms(&c) < 9000); /* dates have whole seconds */
    caller_free(&c);
    b->ops->close(b);
}

static void test_retry_after_too_long(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@busy")};
    backend           *b = group_of(t, 1, &quick);
    int                before = requests(0);
    caller             c;
    call_once(&c, b, true);
    assert_int_equal(c.status, 429);
    assert_string_equal(c.retry_after, "30");
    assert_true(c.with_body && took_ms(&c) < 5000);
    assert_int_equal(requests(0) - before, 1);
    assert_int_equal(circuit_now(&((group *)b)->members[0].state->circuit), CIRCUIT_CLOSED);
    caller_free(&c);
    b->ops->close(b);
}

/* Who wants to be left alone is, while others can be asked. */
static void test_busy_is_left_alone(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@busy"), TARGET(1, "@good")};
    backend           *b = group_of(t, 2, &quick);
    int                before = requests(0);
    for (int i = 0; i < 20; i++) {
        caller c;
        call_once(&c, b, true);
        assert_answer(&c, "hello", "h1");
        caller_free(&c);
    }
    assert_int_equal(requests(0) - before, 1);
    b->ops->close(b);
}

/* ---- the circuit ---- */

static void call_many(caller *c, asked *a, backend *b, int n) {
    for (int i = 0; i < n; i++) {
        ask_for(&a[i], true, "");
        start_call(&c[i], b, &a[i].r);
    }
    run_loop();
    for (int i = 0; i < n; i++) {
        asked_free(&a[i]);
        assert_int_equal(c[i].finals, 1);
    }
}

static void test_circuit(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@switched")};
    group_options      o = {.pause_us = 1000, .break_failures = 3, .break_us = 950000};
    backend           *b = group_of(t, 1, &o);
    caller             c[8];
    asked              a[8];
    err                why = {0};
    atomic_store(&ill, 1);
    assert_true(b->ops->healthy(b, &why));
    for (int i = 0; i < 3; i++) {
        call_once(&c[0], b, true);
        assert_int_equal(c[0].status, 500);
        caller_free(&c[0]);
    }
    int before = requests(0);
    assert_false(b->ops->healthy(b, &why));
    assert_says(why, "keeps failing");
    call_once(&c[0], b, true); /* open: nobody is asked */
    assert_int_equal(c[0].status, 503);
    assert_string_equal(c[0].retry_after, "1");
    assert_int_equal(requests(0), before);
    caller_free(&c[0]);
    nap(1010);
    assert_true(b->ops->healthy(b, &why)); /* a probe may come */
    call_many(c, a, b, 8);
    assert_int_equal(requests(0), before + 1);
    int refused = 0;
    for (int i = 0; i < 8; i++) {
        refused += c[i].status == 503;
        caller_free(&c[i]);
    }
    assert_int_equal(refused, 7);
    nap(1010); /* doubled */
    assert_false(b->ops->healthy(b, &why));
    nap(1010);
    atomic_store(&ill, 0);
    call_many(c, a, b, 8);
    assert_int_equal(requests(0), before + 2);
    for (int i = 0; i < 8; i++) {
        caller_free(&c[i]);
    }
    assert_true(b->ops->healthy(b, &why));
    call_many(c, a, b, 8); /* closed */
    assert_int_equal(requests(0), before + 10);
    for (int i = 0; i < 8; i++) {
        assert_answer(&c[i], "hello", "h0");
        caller_free(&c[i]);
    }
    b->ops->close(b);
}

/* What clients do wrong, and 429, open no circuit; a member that is open is passed over. */
static void test_circuit_of_faults_only(void **state) {
    (void)state;
    static const char *const harmless[] = {"@e400", "@e401", "@e404", "@e408", "@e409", "@busy_mute"};
    group_options            o = {.pause_us = 1000, .break_failures = 1};
    caller                   c;
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        const group_target t[] = {TARGET(0, harmless[i])};
        backend           *b = group_of(t, 1, &o);
        for (int k = 0; k < 3; k++) {
            call_once(&c, b, true);
            assert_true(c.status >= 400 && c.status < 430);
            caller_free(&c);
        }
        b->ops->close(b);
    }
    const group_target t[] = {TARGET(0, "@e500"), TARGET(1, "@good")};
    backend           *b = group_of(t, 2, &(group_options){.retries = 1, .pause_us = 1000, .break_failures = 1});
    int                before = requests(0);
    for (int i = 0; i < 20; i++) {
        call_once(&c, b, true);
        assert_answer(&c, "hello", "h1");
        caller_free(&c);
    }
    assert_int_equal(requests(0) - before, 1);
    b->ops->close(b);
}

/* ---- other ends ---- */

static void test_cancel_in_a_pause(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@e500")};
    backend           *b = group_of(t, 1, &(group_options){.retries = 5, .pause_us = 4000000});
    int                before = requests(0);
    asked              a;
    caller             c;
    ask_for(&a, true, "");
    start_call(&c, b, &a.r);
    for (int i = 0; i < 100 && requests(0) == before; i++) {
        rest(5);
    }
    rest(100); /* now it pauses, for 2 s at least */
    assert_int_equal(c.finals, 0);
    int64_t asked_us = clock_us();
    b->ops->cancel(c.call);
    assert_int_equal(c.finals, 0); /* not from within */
    run_loop();
    assert_int_equal(c.finals, 1);
    assert_int_equal(c.code, ERR_CANCELLED);
    assert_int_equal(c.status, 499);
    assert_true(c.done_us - asked_us < 1500000);
    assert_int_equal(requests(0), before + 1);
    rest(50);
    asked_free(&a);
    caller_free(&c);
    b->ops->close(b);
}

static void test_cancel_of_a_call(void **state) {
    (void)state;
    const group_target silent[] = {TARGET(0, "@silent"), FALLBACK(1, "@good")}, says[] = {TARGET(0, "@trickle")};
    backend           *b = group_of(silent, 2, &quick);
    int                left = atomic_load(&the.up[0].left), second = requests(1);
    asked              a;
    caller             c;
    ask_for(&a, true, "");
    start_call(&c, b, &a.r);
    rest(80);
    b->ops->cancel(c.call);
    run_loop();
    assert_int_equal(c.code, ERR_CANCELLED);
    assert_int_equal(requests(1), second); /* that the client left is nothing to retry */
    caller_free(&c);
    b->ops->close(b);
    b = group_of(says, 1, &quick);
    start_call(&c, b, &a.r);
    c.cancel_on_delta = true; /* from within an event */
    run_loop();
    assert_int_equal(c.code, ERR_CANCELLED);
    assert_int_equal(c.finals, 1);
    assert_int_equal(c.deltas, 1);
    asked_free(&a);
    caller_free(&c);
    b->ops->close(b);
    for (int i = 0; i < 400 && atomic_load(&the.up[0].left) < left + 2; i++) {
        rest(5);
    }
    assert_int_equal(atomic_load(&the.up[0].left), left + 2); /* both connections were closed */
}

/* A dialect that cannot carry a member of the request is passed over; where it is the only one, that is the answer. */
static void test_dialect_that_cannot(void **state) {
    (void)state;
    backend           *other = host_named("anthropic", the.up[0].port, &(remote_options){.speaks = &dialect_anthropic});
    const group_target t[] = {{.backend = other, .model = "@good", .weight = 1}, FALLBACK(1, "@good")};
    asked              a;
    caller             c = {0};
    err                e = {0};
    int                before = requests(0);
    backend           *b = group_of(t, 2, &quick);
    ask_for(&a, true, ",\"logit_bias\":{\"5\":1},\"max_tokens\":9");
    start_call(&c, b, &a.r);
    run_loop();
    assert_answer(&c, "hello", "h1");
    assert_int_equal(requests(0), before);
    assert_string_equal(a.drops.names, "");
    caller_free(&c);
    b->ops->close(b);
    b = group_of(t, 1, &quick);
    assert_null(b->ops->start(b, the.l, &a.r, "", hear, &c, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_string_equal(e.param, "logit_bias");
    asked_free(&a);
    b->ops->close(b);
    other->ops->close(other);
}

/* Whoever is told the last words, or a whole answer, may have had enough: the member's call ends once all the same. */
static void test_cancel_in_the_last_words(void **state) {
    (void)state;
    static const char *const words[] = {"@last_words", "@last_words_done", "@good", "@good_whole"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        asked  a;
        caller c = {0};
        err    e = {0};
        ask_for(&a, i < 3, "");
        c = (caller){
            .of = the.hosts[0], .waiting = &the.waiting, .l = the.l, .cancel_on_delta = true, .begun_us = clock_us()};
        c.call = the.hosts[0]->ops->start(the.hosts[0], the.l, &a.r, words[i], hear, &c, &e);
        assert_ok(c.call, e);
        the.waiting++;
        run_loop();
        rest(20);
        assert_int_equal(c.finals, 1);
        assert_int_equal(c.last, EVENT_ERROR);
        assert_int_equal(c.code, ERR_CANCELLED);
        caller_free(&c);
        asked_free(&a);
    }
}

static int setup(void **state) {
    (void)state;
    bed_open(scripts);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_close();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well),
        cmocka_unit_test(test_again_after_5xx),
        cmocka_unit_test(test_kinds_of_failure),
        cmocka_unit_test(test_nothing_after_a_delta),
        cmocka_unit_test(test_key_is_not_tried_again),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_retry_after_too_long),
        cmocka_unit_test(test_busy_is_left_alone),
        cmocka_unit_test(test_circuit),
        cmocka_unit_test(test_circuit_of_faults_only),
        cmocka_unit_test(test_cancel_in_a_pause),
        cmocka_unit_test(test_cancel_of_a_call),
        cmocka_unit_test(test_dialect_that_cannot),
        cmocka_unit_test(test_cancel_in_the_last_words),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
