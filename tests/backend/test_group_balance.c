/* A group that is well: how the calls are shared out, hedges, what is told of it, many loops at once, and what it costs. */
#include "group_bed.h"

#include <math.h>
#include <pthread.h>

static void answer_after(int fd, int ms) {
    nap(ms);
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n" GOOD_STREAM);
}

static void run_slow(upstream *u, int fd) {
    (void)u;
    answer_after(fd, 30);
}

static void run_slower(upstream *u, int fd) { /* notices that it is not wanted any more */
    if (peer_left(u, fd, 3000)) {
        atomic_fetch_add(&u->left, 1);
        return;
    }
    answer_after(fd, 0);
}

static atomic_int
    pair; /* requests of the two scripts below: the first ends when the second has come, however slow we are */

static void run_late(upstream *u, int fd) {
    (void)u;
    atomic_fetch_add(&pair, 1);
    answer_after(fd, 200);
}

static void run_late_failure(upstream *u, int fd) {
    atomic_fetch_add(&pair, 1);
    for (int i = 0; i < 1000 && atomic_load(&pair) < 2 && !atomic_load(&u->stop); i++) {
        nap(5);
    }
    nap(20);
    say(fd, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

static void run_slow_failure(upstream *u, int fd) {
    (void)u;
    nap(60);
    say(fd, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/* Usage at once, words later: what Anthropic does, in OpenAI's words. */
static void run_usage_first(upstream *u, int fd) {
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n" EVENT(ROLE) EVENT(USAGE_CHUNK));
    if (peer_left(u, fd, 2000)) {
        atomic_fetch_add(&u->left, 1);
    }
}

static atomic_int odd;

static void run_one_in_three(upstream *u, int fd) { /* fails */
    (void)u;
    if (atomic_fetch_add(&odd, 1) % 3 == 0) {
        say(fd, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else {
        answer_after(fd, 0);
    }
}

#define STALL_MS 150
static atomic_int stalls; /* @mostly is slow while it is set */

static void run_mostly(upstream *u, int fd) {
    (void)u;
    answer_after(fd, atomic_load(&stalls) ? STALL_MS : 2);
}

static const script scripts[] = {{"good", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"good_b", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"good_c", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"slow", NULL, NULL, RAW, CLOSE, run_slow},
                                 {"slower", NULL, NULL, RAW, CLOSE, run_slower},
                                 {"late", NULL, NULL, RAW, CLOSE, run_late},
                                 {"late_failure", NULL, NULL, RAW, CLOSE, run_late_failure},
                                 {"slow_failure", NULL, NULL, RAW, CLOSE, run_slow_failure},
                                 {"usage_first", NULL, NULL, RAW, CLOSE, run_usage_first},
                                 {"one_in_three", NULL, NULL, RAW, CLOSE, run_one_in_three},
                                 {"mostly", NULL, NULL, RAW, CLOSE, run_mostly},
                                 {0}};

#define TARGET(i, script, share)                                                                                       \
    { .backend = the.hosts[i], .model = script, .weight = share }

/* ---- sharing out ---- */

static int64_t calls_of(const backend *b, int i) {
    return atomic_load(&((group *)b)->members[i].state->calls);
}

static void test_by_weight(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@good", 5), TARGET(1, "@good", 3), TARGET(2, "@good", 2)};
    backend           *b = group_of(t, 3, NULL);
    int                runs = 0, last = -1;
    for (int i = 0; i < 1000; i++) {
        caller c;
        call_once(&c, b, true);
        assert_answer(&c, "hello", the.hosts[c.by[1] - '0']->name);
        runs += last != c.by[1];
        last = c.by[1];
        caller_free(&c);
    }
    for (int i = 0; i < 3; i++) {
        double share = t[i].weight / 10.0, sigma = sqrt(1000 * share * (1 - share));
        assert_true(fabs((double)calls_of(b, i) - 1000 * share) <= 3 * sigma);
    }
    assert_true(runs > 500); /* and not all of one member's in a row */
    b->ops->close(b);
}

/* The same without the network, over more weights: shares are exact but for a few. */
static void test_shares(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 50; round++) {
        group_target t[HOSTS];
        int          total = 0, n = 2 + (int)(test_random(&seed) % 3), picked[HOSTS] = {0};
        for (int i = 0; i < n; i++) {
            t[i] = (group_target)TARGET(i, "m", 1 + (int)(test_random(&seed) % (round % 2 ? 9 : 1000)));
            total += t[i].weight;
        }
        backend *b = group_of(t, n, NULL);
        for (int i = 0; i < 1000; i++) {
            circuit_entry how;
            picked[group_pick((group *)b, &(group_choice){0}, 1000000, &how)]++;
        }
        for (int i = 0; i < n; i++) {
            double share = (double)t[i].weight / total, sigma = sqrt(1000 * share * (1 - share));
            assert_true(fabs(picked[i] - 1000 * share) <= 3 * sigma + 1);
        }
        b->ops->close(b);
    }
}

static void test_by_latency(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slow", 1), TARGET(1, "@good", 1), TARGET(2, "@good", 1)};
    group_options      o = {.balance = BALANCE_LATENCY};
    backend           *b = group_of(t, 3, &o);
    for (int i = 0; i < 100; i++) {
        caller c;
        call_once(&c, b, true);
        assert_answer(&c, "hello", the.hosts[c.by[1] - '0']->name);
        caller_free(&c);
    }
    assert_true(calls_of(b, 0) <= 5); /* once to know it, and no more than chance would have it */
    assert_true(calls_of(b, 1) > 10 && calls_of(b, 2) > 10);
    b->ops->close(b);
}

/* ---- hedges ---- */

static void test_hedge_wins(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slower", 1000), TARGET(1, "@good", 1)};
    group_options      o = {.hedge = true, .hedge_percent = 100, .hedge_after_us = 40000};
    backend           *b = group_of(t, 2, &o);
    caller             c = {0};
    int                left = atomic_load(&the.up[0].left), tries = 0;
    do { /* chance may name the quick one first */
        caller_free(&c);
        call_once(&c, b, true);
    } while (c.n_attempts == 0 && ++tries < 20);
    assert_answer(&c, "hello", "h1");
    assert_true(took_ms(&c) >= 40 && took_ms(&c) < 2900);
    assert_int_equal(c.n_attempts, 1);
    assert_string_equal(c.attempts[0].backend, "h0");
    assert_string_equal(c.attempts[0].model, "@slower");
    assert_string_equal(c.attempts[0].why, "hedge");
    assert_int_equal(c.attempts[0].status, 0);
    assert_false(c.attempts[0].usage.known || c.attempts[0].usage.counted);
    const member *m = ((group *)b)->members;
    assert_int_equal(atomic_load(&m[1].state->hedges), 1);
    assert_int_equal(atomic_load(&m[1].state->hedges_won), 1);
    assert_int_equal(atomic_load(&m[0].state->in_flight), 0);
    for (int i = 0; i < 100 && atomic_load(&the.up[0].left) == left; i++) {
        rest(2);
    }
    assert_int_equal(atomic_load(&the.up[0].left), left + 1); /* its connection was closed at once */
    caller_free(&c);
    b->ops->close(b);
}

/* The first one speaks after all; the hedge's end comes later than its last words, which wait for it. */
static void test_hedge_loses(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slow", 1000)};
    group_options      o = {.hedge = true, .hedge_percent = 100, .hedge_after_us = 5000};
    backend           *b = group_of(t, 1, &o);
    caller             c;
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h0");
    assert_int_equal(c.n_attempts, 1);
    assert_int_equal(calls_of(b, 0), 2);
    assert_int_equal(atomic_load(&((group *)b)->members[0].state->hedges_won), 0);
    caller_free(&c);
    b->ops->close(b);
}

/* What is known of the loser's usage is told. */
static void test_usage_of_the_loser(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@usage_first", 1000), TARGET(1, "@good", 1)};
    group_options      o = {.hedge = true, .hedge_percent = 100, .hedge_after_us = 40000};
    backend           *b = group_of(t, 2, &o);
    caller             c = {0};
    int                tries = 0;
    do {
        caller_free(&c);
        call_once(&c, b, true);
    } while (c.n_attempts == 0 && ++tries < 20);
    assert_answer(&c, "hello", "h1");
    assert_true(c.attempts[0].usage.known && c.attempts[0].usage.prompt == 7);
    caller_free(&c);
    b->ops->close(b);
}

/* The first fails while the hedge runs: that goes on as the next try. Both fail: then it is tried again. */
static void test_hedge_and_failures(void **state) {
    (void)state;
    const group_target good[] = {TARGET(0, "@late_failure", 1000000), TARGET(1, "@late", 1)};
    const group_target bad[] = {TARGET(0, "@late_failure", 1),
                                TARGET(1, "@late_failure", 1),
                                {.backend = the.hosts[2], .model = "@good", .fallback = true}};
    group_options      o = {.retries = 1, .hedge = true, .hedge_percent = 100, .hedge_after_us = 20000, .pause_us = 1};
    backend           *b = group_of(good, 2, &o);
    caller             c;
    atomic_store(&pair, 0);
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h1");
    assert_int_equal(c.n_attempts, 0); /* a status of its own: nothing to pay */
    assert_int_equal(calls_of(b, 0) + calls_of(b, 1), 2);
    caller_free(&c);
    b->ops->close(b);
    b = group_of(bad, 3, &o);
    atomic_store(&pair, 0);
    call_once(&c, b, true);
    assert_answer(&c, "hello", "h2");
    assert_int_equal(calls_of(b, 0) + calls_of(b, 1), 2);
    caller_free(&c);
    b->ops->close(b);
}

/* Somebody who is asked for leave and takes his time. */
typedef struct slow_leave {
    try_leave     leave; /* first */
    struct event *timer;
    void (*later)(void *of, bool granted);
    void   *of;
    int64_t said_us;
} slow_leave;

static void give_leave(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    slow_leave *s = arg;
    s->said_us = clock_us();
    s->later(s->of, true);
}

static try_verdict ask_slowly(void *ctx, void (*later)(void *of, bool granted), void *of) {
    slow_leave *s = ctx;
    s->later = later;
    s->of = of;
    evtimer_add(s->timer, &(struct timeval){.tv_usec = 150000});
    return TRY_LATER;
}

/* The only try fails while leave for its hedge is asked: the call ends when that has come, and not before. */
static void test_failure_while_leave_is_asked(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slow_failure", 1)};
    group_options      o = {.hedge = true, .hedge_percent = 100, .hedge_after_us = 10000};
    backend           *b = group_of(t, 1, &o);
    slow_leave         s = {.leave = {.ask = ask_slowly, .ctx = &s}};
    asked              a;
    caller             c;
    s.timer = evtimer_new(loop_base(the.l), give_leave, &s);
    ask_for(&a, true, "");
    a.r.leave = &s.leave;
    start_call(&c, b, &a.r);
    run_loop();
    assert_int_equal(c.finals, 1);
    assert_int_equal(c.status, 500);
    assert_true(s.said_us > 0 && c.done_us >= s.said_us);
    assert_int_equal(calls_of(b, 0), 1);
    event_free(s.timer);
    asked_free(&a);
    caller_free(&c);
    b->ops->close(b);
}

static void test_cancel_of_both(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slower", 1), TARGET(1, "@slower", 1)};
    group_options      o = {.retries = 2, .hedge = true, .hedge_percent = 100, .hedge_after_us = 10000};
    backend           *b = group_of(t, 2, &o);
    asked              a;
    caller             c;
    ask_for(&a, true, "");
    start_call(&c, b, &a.r);
    rest(100);
    assert_int_equal(calls_of(b, 0) + calls_of(b, 1), 2);
    int64_t asked_us = clock_us();
    b->ops->cancel(c.call);
    run_loop();
    assert_int_equal(c.finals, 1);
    assert_int_equal(c.code, ERR_CANCELLED);
    assert_int_equal(c.n_attempts, 1); /* the other was asked as well */
    assert_true(c.done_us - asked_us < 2000000);
    rest(20);
    asked_free(&a);
    caller_free(&c);
    b->ops->close(b);
}

/* Whole answers too: the winner's end comes at once behind its words, and waits for the loser's. */
static void test_hedge_of_a_whole(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slower", 1000), TARGET(1, "@whole", 1)};
    group_options      o = {.hedge = true, .hedge_percent = 100, .hedge_after_us = 20000};
    backend           *b = group_of(t, 2, &o);
    caller             c = {0};
    int                tries = 0;
    do {
        caller_free(&c);
        call_once(&c, b, false);
    } while (c.n_attempts == 0 && ++tries < 20);
    assert_answer(&c, "hello", "h1");
    assert_int_equal(c.wholes, 1);
    assert_int_equal(c.n_attempts, 1);
    caller_free(&c);
    b->ops->close(b);
}

/* No more than the share of calls that the settings allow, and one besides. */
static void test_hedge_budget(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@mostly", 1)};
    group_options      o = {.hedge = true, .hedge_percent = 10, .hedge_after_us = 10000};
    backend           *b = group_of(t, 1, &o);
    caller             c;
    atomic_store(&stalls, 1);
    for (int i = 0; i < 35; i++) {
        call_once(&c, b, true);
        assert_answer(&c, "hello", "h0");
        caller_free(&c);
    }
    assert_int_equal(atomic_load(&((group *)b)->members[0].state->hedges), 1 + 3);
    b->ops->close(b);
}

/* Where the settings name no time it is the 95th percentile, once that is known. */
static void test_hedge_after_p95(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@mostly", 1)};
    group_options      o = {.hedge = true, .hedge_percent = 100};
    backend           *b = group_of(t, 1, &o);
    const member      *m = ((group *)b)->members;
    caller             c;
    atomic_store(&stalls, 0);
    for (int i = 0; i < 18; i++) {
        call_once(&c, b, true);
        caller_free(&c);
    }
    atomic_store(&stalls, 1);
    call_once(&c, b, true); /* the 19th: too few to know it */
    caller_free(&c);
    assert_int_equal(atomic_load(&m->state->hedges), 0);
    atomic_store(&stalls, 0);
    for (int i = 0; i < 60; i++) {
        call_once(&c, b, true);
        caller_free(&c);
    }
    int64_t before = atomic_load(&m->state->hedges), p95 = latency_p95(&((group *)b)->pace->first[1]);
    assert_true(before < 30 && p95 >= 2000 && p95 < STALL_MS * 1000);
    atomic_store(&stalls, 1);
    call_once(&c, b, true);
    caller_free(&c);
    assert_int_equal(atomic_load(&m->state->hedges), before + 1);
    b->ops->close(b);
}

/* ---- telling ---- */

static void test_metrics_and_status(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@good", 2), {.backend = the.hosts[1], .model = "\"x\\", .fallback = true}};
    backend           *b = group_of(t, 2, NULL), *all[] = {the.hosts[0], b, the.hosts[1]};
    str                out = {0};
    caller             c;
    call_once(&c, b, true);
    caller_free(&c);
    assert_true(b->ops->metrics(all, 3, &out));
    assert_non_null(strstr(out.data, "# TYPE pare_target_calls_total counter\n"
                                     "pare_target_calls_total{model=\"m\",backend=\"h0\",upstream=\"@good\"} 1\n"
                                     "pare_target_calls_total{model=\"m\",backend=\"h1\",upstream=\"\\\"x\\\\\"} 0\n"));
    assert_non_null(strstr(out.data, "pare_target_circuit_state{model=\"m\",backend=\"h0\",upstream=\"@good\"} 0\n"));
    str_clear(&out);
    assert_true(b->ops->status(b, &out));
    cJSON       *root = cJSON_ParseWithLength(out.data, out.len);
    const cJSON *targets = cJSON_GetObjectItem(root, "targets"), *first = cJSON_GetArrayItem(targets, 0);
    assert_int_equal(cJSON_GetArraySize(targets), 2);
    assert_string_equal(cJSON_GetObjectItem(first, "circuit")->valuestring, "closed");
    assert_int_equal(cJSON_GetObjectItem(first, "calls")->valueint, 1);
    assert_true(cJSON_GetObjectItem(first, "latency_ms")->valuedouble > 0);
    cJSON_Delete(root);
    str_free(&out);
    b->ops->close(b);
}

static void test_fingerprints(void **state) {
    (void)state;
    backend           *key = host_named("h0#2", the.up[0].port, NULL); /* another key of the same host */
    const group_target one[] = {TARGET(0, "a", 1), {.backend = key, .model = "a", .weight = 7}};
    const group_target two[] = {TARGET(0, "a", 1), TARGET(1, "a", 1)}, other[] = {TARGET(0, "a", 1), TARGET(1, "b", 1)};
    backend           *x = group_of(one, 2, NULL), *y = group_of(two, 2, NULL), *z = group_of(other, 2, NULL);
    assert_string_equal(x->fingerprint, the.hosts[0]->fingerprint);
    assert_string_not_equal(y->fingerprint, x->fingerprint);
    assert_string_not_equal(y->fingerprint, z->fingerprint);
    x->ops->close(x);
    y->ops->close(y);
    z->ops->close(z);
    key->ops->close(key);
    err e = {0};
    assert_null(backend_group("m", two, 0, NULL, &e));
    assert_says(e, "0 targets");
    assert_null(
        backend_group("m", &(group_target){.backend = the.hosts[0], .model = "a", .fallback = true}, 1, NULL, &e));
    assert_says(e, "fallbacks only");
    assert_null(backend_group("m", &(group_target)TARGET(0, "a", 0), 1, NULL, &e));
    assert_says(e, "weight");
}

/* What runs when everything ends is put away without a word. */
static void test_close_while_calls_run(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@slower", 1), TARGET(1, "@late_failure", 1)};
    remote_options     none = {0};
    backend           *own[] = {host_named("own0", the.up[0].port, &none), host_named("own1", the.up[1].port, &none)};
    group_target       mine[] = {t[0], t[1]};
    mine[0].backend = own[0];
    mine[1].backend = own[1];
    backend *b = group_of(mine, 2, &(group_options){.hedge = true, .hedge_percent = 100, .hedge_after_us = 1000});
    asked    a;
    caller   c[3];
    ask_for(&a, true, "");
    for (int i = 0; i < 3; i++) {
        start_call(&c[i], b, &a.r);
    }
    rest(50);
    b->ops->close(b);
    own[0]->ops->close(own[0]);
    own[1]->ops->close(own[1]);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(c[i].finals, 0);
        caller_free(&c[i]);
    }
    the.waiting = 0;
    asked_free(&a);
}

/* ---- several loops ---- */

#define LOOPS 4
#define EACH  60
#define ONCE  6

typedef struct crowd {
    backend  *b;
    int       index;
    int       answered, failed;
    pthread_t thread;
} crowd;

static void *run_crowd(void *arg) {
    crowd *w = arg;
    err    e = {0};
    loop  *l = loop_new(w->index, &e);
    for (int i = 0; l && i < EACH; i++) {
        asked  a[ONCE];
        caller c[ONCE];
        int    waiting = ONCE;
        for (int k = 0; k < ONCE; k++) {
            ask_for(&a[k], true, "");
            c[k] = (caller){.of = w->b, .waiting = &waiting, .l = l};
            c[k].call = w->b->ops->start(w->b, l, &a[k].r, "", hear, &c[k], &e);
            waiting -= !c[k].call;
        }
        if (!loop_run(l, &e)) {
            break;
        }
        for (int k = 0; k < ONCE; k++) {
            w->answered += c[k].finals == 1 && c[k].last == EVENT_DONE;
            w->failed += c[k].finals == 1 && c[k].last == EVENT_ERROR;
            caller_free(&c[k]);
            asked_free(&a[k]);
        }
    }
    loop_free(l);
    return NULL;
}

static void test_many_loops(void **state) {
    (void)state;
    const group_target t[] = {TARGET(0, "@one_in_three", 1), TARGET(1, "@good", 1), TARGET(2, "@slow", 1)};
    group_options      o = {.retries = 3,
                            .pause_us = 1000,
                            .break_failures = 2,
                            .break_us = 20000,
                            .hedge = true,
                            .hedge_percent = 20,
                            .hedge_after_us = 10000};
    backend           *b = group_of(t, 3, &o);
    crowd              w[LOOPS];
    int                answered = 0, failed = 0;
    for (int i = 0; i < LOOPS; i++) {
        w[i] = (crowd){.b = b, .index = i + 1};
        assert_int_equal(pthread_create(&w[i].thread, NULL, run_crowd, &w[i]), 0);
    }
    for (int i = 0; i < LOOPS; i++) {
        pthread_join(w[i].thread, NULL);
        answered += w[i].answered;
        failed += w[i].failed;
    }
    assert_int_equal(answered, LOOPS * EACH * ONCE); /* two of three are well, and three more tries */
    assert_int_equal(failed, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(atomic_load(&((group *)b)->members[i].state->in_flight), 0);
        assert_true(calls_of(b, i) > 0);
    }
    b->ops->close(b);
}

/* ---- what it costs ---- */

typedef struct echo { /* a member that answers from its start, but for the loop's turn */
    backend          base;
    backend_event_fn fn;
    void            *ctx;
} echo;

static backend_call *echo_start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn,
                                void *ctx, err *e) {
    (void)l;
    (void)r;
    (void)model;
    (void)e;
    echo *x = (echo *)b;
    x->fn = fn;
    x->ctx = ctx;
    return (backend_call *)x;
}

static void count_event(void *ctx, const event *ev) {
    *(int64_t *)ctx += ev->kind == EVENT_DONE;
}

static int64_t time_calls(backend *b, echo *x, int n) {
    request r = {0};
    int64_t ended = 0, begun = clock_us();
    for (int i = 0; i < n; i++) {
        assert_non_null(b->ops->start(b, the.l, &r, "m", count_event, &ended, NULL));
        x->fn(x->ctx, &(event){.kind = EVENT_DELTA, .text = "hello", .text_len = 5});
        x->fn(x->ctx, &(event){.kind = EVENT_DONE});
    }
    assert_int_equal(ended, n);
    return clock_us() - begun;
}

static void test_cost_of_one(void **state) {
    (void)state;
    static const backend_ops ops = {.kind = "remote", .start = echo_start};
    echo                     x = {.base = {.ops = &ops, .name = "echo", .fingerprint = "f"}};
    const group_target       t[] = {{.backend = &x.base, .model = "m", .weight = 1}};
    backend                 *b = group_of(t, 1, NULL);
    int64_t                  with = INT64_MAX, without = INT64_MAX;
    for (int i = 0; i < 10; i++) {
        int64_t a = time_calls(b, &x, 10000), bare = time_calls(&x.base, &x, 10000);
        with = a < with ? a : with;
        without = bare < without ? bare : without;
    }
    double best = (double)(with - without) / 10000;
    print_message("a group of one adds %.2f us to a request\n", best);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) && defined(__OPTIMIZE__)
    assert_true(best < 2);
#endif
    b->ops->close(b);
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
        cmocka_unit_test(test_by_weight),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_by_latency),
        cmocka_unit_test(test_hedge_wins),
        cmocka_unit_test(test_hedge_loses),
        cmocka_unit_test(test_usage_of_the_loser),
        cmocka_unit_test(test_hedge_and_failures),
        cmocka_unit_test(test_cancel_of_both),
        cmocka_unit_test(test_hedge_of_a_whole),
        cmocka_unit_test(test_hedge_budget),
        cmocka_unit_test(test_hedge_after_p95),
        cmocka_unit_test(test_metrics_and_status),
        cmocka_unit_test(test_fingerprints),
        cmocka_unit_test(test_close_while_calls_run),
        cmocka_unit_test(test_many_loops),
        cmocka_unit_test(test_cost_of_one),
        cmocka_unit_test(test_failure_while_leave_is_asked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
