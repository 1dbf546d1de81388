/* The walk of an exchange with a scripted backend: what is remembered, shared, cancelled, priced and refused. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "stage/counters.h"
#include "stage/flights.h"
#include "stage/stage.h"

/* ---- a backend that does what the test says, one step at a time ---- */

typedef struct scripted {
    backend base;
    int     started, cancelled;
} scripted;

struct backend_call {
    loop_task        task;
    scripted        *of;
    loop            *home;
    backend_event_fn fn;
    void            *ctx;
};

static backend_call *running[8]; /* in order of their start */
static request       asked;      /* the last one, as the backend got it */

static void say_cancelled(loop_task *t) {
    backend_call *c = (backend_call *)t;
    err           why = {0};
    err_set(&why, ERR_CANCELLED, "cancelled");
    event ev = {.kind = EVENT_ERROR, .error = &why};
    c->fn(c->ctx, &ev);
    free(c);
}

static backend_call *start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                           err *e) {
    (void)model;
    (void)e;
    asked = *r;
    scripted     *s = (scripted *)b;
    backend_call *c = calloc(1, sizeof *c);
    *c = (backend_call){.of = s, .home = l, .fn = fn, .ctx = ctx};
    running[s->started++] = c;
    return c;
}

static void cancel(backend_call *c) {
    c->of->cancelled++;
    c->task.run = say_cancelled;
    loop_post(c->home, &c->task);
}

static const backend_ops ops = {.kind = "remote", .start = start, .cancel = cancel};
static const backend_ops local_ops = {.kind = "local", .start = start, .cancel = cancel};

static void answer_with(int i, const char *text, const char *finish, int64_t completion) {
    backend_call *c = running[i];
    event         ev = {.kind = EVENT_DELTA, .text = text, .text_len = strlen(text), .finish = finish};
    c->fn(c->ctx, &ev);
    bool      local = c->of->base.ops == &local_ops;
    usage     u = {.prompt = 1000, .completion = completion, .cached = local ? 800 : 0, .known = true};
    kv_report kv = {.prompt = 1000, .cached = 800, .miss = "diverge"};
    event     end = {.kind = EVENT_DONE, .usage = &u, .kv = local ? &kv : NULL};
    c->fn(c->ctx, &end);
    free(c);
}

static void fail_with(int i, int status) {
    backend_call *c = running[i];
    err           why = {0};
    err_set(&why, ERR_UPSTREAM, "scripted failure");
    event ev = {.kind = EVENT_ERROR, .error = &why, .status = status};
    c->fn(c->ctx, &ev);
    free(c);
}

/* ---- a house ---- */

typedef struct bed {
    gateway     g;
    pipeline    p;
    scripted    backend;
    backend    *backends[1];
    model_entry models[1];
    client_key  keys[2];
    loop       *loop;
    int         finished;
    exchange   *last; /* freed by the next one or at the end */
} bed;

static bed *the_bed;

static void finish(exchange *x) {
    the_bed->finished++;
    if (the_bed->last) {
        exchange_free(the_bed->last);
    }
    the_bed->last = x;
}

static const exchange_sink sink = {.finish = finish};

static int setup(void **state) {
    err  e = {0};
    bed *b = calloc(1, sizeof *b);
    the_bed = b;
    b->backend.base = (backend){.ops = &ops, .name = "up", .fingerprint = "f"};
    b->backends[0] = &b->backend.base;
    b->models[0] = (model_entry){.name = "m", .backend = b->backends[0], .upstream = "m"};
    b->models[0].price = price_flat((price_rates){.input = 150000000, .cached = 75000000, .output = 600000000});
    b->models[0].baseline = b->models[0].price;
    b->g = (gateway){.models = b->models, .n_models = 1, .backends = b->backends, .n_backends = 1};
    b->g.cache = cache_new(1 << 20, &e);
    b->g.cache_ttl_us = 60 * 1000000;
    b->g.flights = flights_new();
    b->g.counters = counters_new();
    b->loop = loop_new(0, &e);
    stage *const row[] = {&stage_account, &stage_admit, &stage_recall, &stage_route, &stage_answer};
    for (size_t i = 0; i < 5; i++) {
        pipeline_add(&b->p, row[i]);
    }
    *state = b;
    return b->loop && b->g.cache ? 0 : -1;
}

static int teardown(void **state) {
    bed *b = *state;
    if (b->last) {
        exchange_free(b->last);
    }
    loop_free(b->loop);
    cache_free(b->g.cache);
    flights_free(b->g.flights);
    counters_free(b->g.counters);
    free(b);
    return 0;
}

static exchange *begin(bed *b, const char *body, const char *bearer) {
    exchange *x = exchange_new(4096);
    x->loop = b->loop;
    x->gateway = &b->g;
    x->speaks = &dialect_openai;
    x->kind = REQUEST_CHAT;
    x->body = body;
    x->body_len = strlen(body);
    x->bearer = bearer;
    x->sink = &sink;
    x->arrived_us = clock_us();
    x->arrived_wall_us = clock_wall_us();
    snprintf(x->id, sizeof x->id, "test");
    return x;
}

static exchange *go(bed *b, const char *body) {
    exchange *x = begin(b, body, NULL);
    pipeline_start(&b->p, x);
    return x;
}

static void stop_loop(loop_task *t) {
    (void)t;
    loop_stop(the_bed->loop);
}

static void settle(bed *b) { /* runs what has been posted so far */
    loop_task t = {.run = stop_loop};
    err       e = {0};
    loop_post(b->loop, &t);
    assert_true(loop_run(b->loop, &e));
}

#define ASK    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"
#define ASK_10 "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":10}"

/* ---- tests ---- */

static void test_remembered(void **state) {
    bed *b = *state;
    go(b, ASK);
    answer_with(0, "hello", "stop", 500);
    assert_int_equal(b->finished, 1);
    assert_int_equal(b->last->result, OUTCOME_OK);
    assert_string_equal(b->last->answered_by, "remote:up");
    assert_int_equal(b->last->cost_nano, 150000 + 300000);
    assert_int_equal(b->last->saved_nano, 0);
    go(b,
       "{\"stream\":true,\"user\":\"someone\",\"messages\":[{\"content\":\"hi\",\"role\":\"user\"}],\"model\":\"m\"}");
    assert_int_equal(b->finished, 2);
    assert_int_equal(b->backend.started, 1);
    assert_string_equal(b->last->answered_by, "recall.exact");
    assert_int_equal(b->last->cost_nano, 0);
    assert_int_equal(b->last->saved_nano, 450000);
}

static void test_not_remembered(void **state) {
    bed *b = *state;
    go(b, ASK);
    answer_with(0, "cut", "length", 500); /* the request set no limit: cut off upstream */
    go(b, ASK);
    assert_int_equal(b->backend.started, 2);
    answer_with(1, "no", "content_filter", 1);
    go(b, ASK);
    assert_int_equal(b->backend.started, 3);
    fail_with(2, 500);
    assert_int_equal(b->last->result, OUTCOME_ERROR);
    go(b, ASK_10);
    assert_int_equal(b->backend.started, 4);
    answer_with(3, "short of it", "length", 7); /* 7 of 10: the provider's own limit */
    go(b, ASK_10);
    assert_int_equal(b->backend.started, 5);
    answer_with(4, "ten", "length", 10); /* the request's own limit: complete */
    go(b, ASK_10);
    assert_int_equal(b->backend.started, 5);
    assert_string_equal(b->last->answered_by, "recall.exact");
    go(b, ASK);
    event more = {.kind = EVENT_DELTA, .narrowed = true}; /* what the provider said has no place in what is kept */
    running[5]->fn(running[5]->ctx, &more);
    answer_with(5, "not all", "stop", 5);
    assert_int_equal(b->last->result, OUTCOME_OK);
    go(b, ASK);
    assert_int_equal(b->backend.started, 7);
    answer_with(6, "hello", "stop", 5);
}

static void test_shared_flight(void **state) {
    bed *b = *state;
    go(b, ASK);
    go(b, ASK);
    go(b, ASK);
    assert_int_equal(b->backend.started, 1);
    answer_with(0, "hello", "stop", 500);
    settle(b);
    assert_int_equal(b->finished, 3);
    assert_int_equal(b->backend.started, 1);
    assert_string_equal(b->last->answered_by, "recall.exact");
}

static void test_failed_flight(void **state) {
    bed *b = *state;
    go(b, ASK);
    go(b, ASK);
    fail_with(0, 502);
    settle(b);
    assert_int_equal(b->backend.started, 2); /* the follower asks for itself */
    answer_with(1, "hello", "stop", 5);
    assert_int_equal(b->finished, 2);
    assert_int_equal(b->last->result, OUTCOME_OK);
}

static void test_leader_leaves(void **state) {
    bed      *b = *state;
    exchange *leader = go(b, ASK);
    go(b, ASK);
    pipeline_cancel(leader);
    settle(b);
    assert_int_equal(b->backend.cancelled, 0); /* goes on for the other */
    assert_int_equal(b->finished, 0);
    answer_with(0, "hello", "stop", 5);
    settle(b);
    assert_int_equal(b->finished, 2);
    assert_string_equal(b->last->answered_by, "recall.exact");
}

static void test_all_leave(void **state) {
    bed      *b = *state;
    exchange *leader = go(b, ASK), *follower = go(b, ASK);
    pipeline_cancel(leader);
    pipeline_cancel(follower);
    settle(b);
    settle(b);
    assert_int_equal(b->backend.cancelled, 1);
    assert_int_equal(b->finished, 2);
    assert_int_equal(b->last->result, OUTCOME_CANCELLED);
    go(b, ASK);
    assert_int_equal(b->backend.started, 2); /* nothing was remembered */
    answer_with(1, "hello", "stop", 5);
}

static void test_cancel(void **state) {
    bed      *b = *state;
    exchange *x = go(b, ASK);
    pipeline_cancel(x);
    settle(b);
    assert_int_equal(b->backend.cancelled, 1);
    assert_int_equal(b->finished, 1);
    assert_int_equal(b->last->result, OUTCOME_CANCELLED);
}

static void test_cache_control(void **state) {
    bed *b = *state;
    go(b, ASK);
    answer_with(0, "one", "stop", 5);
    exchange *x = begin(b, ASK, NULL);
    x->no_cache = true;
    pipeline_start(&b->p, x);
    assert_int_equal(b->backend.started, 2);
    answer_with(1, "two", "stop", 5);
    go(b, ASK);
    assert_non_null(b->last->hit);
    assert_non_null(strstr(b->last->hit->body, "two")); /* the fresh answer replaced the old one */
    exchange *y = begin(b, ASK_10, NULL);
    y->no_store = true;
    pipeline_start(&b->p, y);
    answer_with(2, "three", "stop", 5);
    go(b, ASK_10);
    assert_int_equal(b->backend.started, 4);
    answer_with(3, "four", "stop", 5);
}

static void test_refusals(void **state) {
    bed *b = *state;
    go(b, "{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_int_equal(b->last->status, 404);
    assert_string_equal(b->last->failed.param, "model");
    go(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":5}]}");
    assert_int_equal(b->last->status, 400);
    assert_string_equal(b->last->failed.param, "messages[0].content");
    assert_int_equal(b->last->result, OUTCOME_REFUSED);
    assert_int_equal(b->backend.started, 0);
}

static void test_keys(void **state) {
    bed *b = *state;
    b->keys[0] = (client_key){.name = "a", .hash = sha256_of("secret-a", 8), .space = "a"};
    b->keys[1] = (client_key){.name = "b", .hash = sha256_of("secret-b", 8), .space = "b"};
    b->g.keys = b->keys;
    b->g.n_keys = 2;
    gateway_sort_keys(b->keys, 2);
    go(b, ASK);
    assert_int_equal(b->last->status, 401);
    pipeline_start(&b->p, begin(b, ASK, "secret-c"));
    assert_int_equal(b->last->status, 401);
    pipeline_start(&b->p, begin(b, ASK, "secret-a"));
    answer_with(0, "for a", "stop", 5);
    pipeline_start(&b->p, begin(b, ASK, "secret-b"));
    assert_int_equal(b->backend.started, 2); /* b does not see a's answer */
    answer_with(1, "for b", "stop", 5);
    pipeline_start(&b->p, begin(b, ASK, "secret-a"));
    assert_non_null(strstr(b->last->hit->body, "for a"));
}

/* What a model of our own obeys is read for it alone, and is no part of what is remembered. */
static void test_local_members(void **state) {
    bed *b = *state;
    go(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"priority\":\"urgent\"}");
    assert_int_equal(b->backend.started, 1); /* a provider may know what that is */
    answer_with(0, "hello", "stop", 5);
    assert_false(b->last->has_kv);
    b->backend.base.ops = &local_ops;
    go(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"b\"}],\"priority\":\"urgent\"}");
    assert_int_equal(b->last->status, 400);
    assert_string_equal(b->last->failed.param, "priority");
    assert_int_equal(b->last->result, OUTCOME_REFUSED);
    go(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"b\"}],\"priority\":-7,"
          "\"cache_prompt\":false}");
    assert_int_equal(b->backend.started, 2);
    assert_int_equal(asked.priority, -7);
    assert_true(asked.no_reuse);
    assert_string_equal(asked.space, "");
    answer_with(1, "hello", "stop", 500);
    assert_true(b->last->has_kv);
    assert_string_equal(b->last->kv.miss, "diverge");
    assert_int_equal(b->last->answer.usage.cached, 800);
    go(b, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}");
    assert_string_equal(b->last->answered_by, "recall.exact");
}

/* Prefixes that we had stored ourselves are no discount of the provider that the model stands in for. */
static void test_own_prefixes_are_a_saving(void **state) {
    bed *b = *state;
    b->backend.base.ops = &local_ops;
    b->models[0].price = (price){.known = true};
    go(b, ASK);
    answer_with(0, "hello", "stop", 500);
    assert_int_equal(b->last->cost_nano, 0);
    assert_int_equal(b->last->saved_nano, 150000 + 300000);
}

static void test_spaces_reach_the_backend(void **state) {
    bed *b = *state;
    b->backend.base.ops = &local_ops;
    b->keys[0] = (client_key){.name = "a", .hash = sha256_of("secret-a", 8), .space = "shared"};
    b->g.keys = b->keys;
    b->g.n_keys = 1;
    pipeline_start(&b->p, begin(b, ASK, "secret-a"));
    assert_string_equal(asked.space, "shared");
    answer_with(0, "hello", "stop", 5);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_remembered),
                                       T(test_not_remembered),
                                       T(test_shared_flight),
                                       T(test_failed_flight),
                                       T(test_leader_leaves),
                                       T(test_all_leave),
                                       T(test_cancel),
                                       T(test_cache_control),
                                       T(test_refusals),
                                       T(test_keys),
                                       T(test_local_members),
                                       T(test_own_prefixes_are_a_saving),
                                       T(test_spaces_reach_the_backend)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
