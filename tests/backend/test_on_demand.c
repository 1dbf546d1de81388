/* Models that are loaded on demand: two under a budget for one, one that never fits, one that is left alone, requests that
 * are cancelled in line, and many at once. */
#include "check.h"

#include <pthread.h>
#include <unistd.h>

#include "backend/on_demand.h"
#include "base/clock.h"

#define STORYTELLER "models/storyteller.gguf"

typedef struct call {
    loop_task     task; /* first */
    loop         *l;
    backend      *b;
    request       r;
    prompt        ask;
    backend_call *running;
    int          *open;
    bool          cancel;
    event_kind    last;
    int           finals;
    err           error;
    int64_t       tokens;
    int           most;     /* tokens; 0: 8 */
    struct call  *against;  /* asked again and again until this one has its answer, */
    int64_t       until_us; /* or until then */
} call;

static void end(call *c) {
    if (--*c->open == 0)
        loop_stop(c->l);
}

static void on_event(void *ctx, const event *ev) {
    call *c = ctx;
    if (ev->kind == EVENT_DELTA)
        return;
    c->finals++;
    c->last = ev->kind;
    if (ev->error)
        c->error = *ev->error;
    if (ev->usage)
        c->tokens = ev->usage->completion;
    if (c->against && c->against->finals == 0 && clock_us() < c->until_us)
        loop_post(c->l, &c->task);
    else
        end(c);
}

static void start(loop_task *task) {
    call *c = (call *)task;
    c->running = c->b->ops->start(c->b, c->l, &c->r, NULL, on_event, c, &c->error);
    if (!c->running)
        end(c);
    else if (c->cancel)
        c->b->ops->cancel(c->running);
}

/* Runs the calls at the same time. */
static void run(call *calls, int n) {
    err   e = {0};
    loop *l = loop_new(0, &e);
    int   open = n;
    assert_ok(l, e);
    for (int i = 0; i < n; i++) {
        call *c = &calls[i];
        c->task.run = start;
        c->l = l;
        c->open = &open;
        c->ask = (prompt){.text = "Once upon a time"};
        c->r = (request){.kind = REQUEST_COMPLETION,
                         .prompts = &c->ask,
                         .n_prompts = 1,
                         .max_tokens = c->most ? c->most : 8,
                         .top_p = 1,
                         .repeat_penalty = 1};
        loop_post(l, &c->task);
    }
    assert_true(loop_run(l, &e));
    loop_free(l);
}

static bool loaded(backend *b) {
    str text = {0};
    assert_true(b->ops->status(b, &text));
    assert_non_null(strstr(text.data, "\"model\":\"")); /* the dashboard's name of it, loaded or not */
    assert_non_null(strstr(text.data, "\"waiting\":"));
    bool absent = strstr(text.data, "\"loaded\":false") != NULL;
    str_free(&text);
    return !absent;
}

/* What one model takes, as the refusal says it. */
static int64_t needed(pool *p, const local_options *o) {
    err        e = {0};
    on_demand *d = on_demand_new(p, 1 << 20, 0, &e);
    backend   *b = on_demand_add(d, "story", STORYTELLER, NULL, 0, o, &e);
    assert_ok(b, e);
    call c = {.b = b};
    run(&c, 1);
    assert_int_equal(c.error.code, ERR_MEMORY);
    assert_null(c.running);
    long long mib = 0;
    assert_int_equal(sscanf(c.error.text, "story needs %lld MiB", &mib), 1);
    assert_non_null(strstr(c.error.text, "is 1 MiB"));
    b->ops->close(b);
    on_demand_free(d);
    return (int64_t)(mib + 1) << 20;
}

static bool have_story(void) {
    if (access(STORYTELLER, R_OK) == 0)
        return true;
    print_message("skipped: %s is not here\n", STORYTELLER);
    return false;
}

static void two_share_the_room_for_one(void **state) {
    (void)state;
    err           e = {0};
    local_options o = {.sequences = 2, .context = 128};
    if (!have_story())
        skip();
    pool      *p = pool_new(2, &e);
    int64_t    one = needed(p, &o);
    on_demand *d = on_demand_new(p, one + one / 2, 0, &e);
    backend   *b[2] = {on_demand_add(d, "one", STORYTELLER, NULL, 0, &o, &e),
                       on_demand_add(d, "two", STORYTELLER, NULL, 0, &o, &e)};
    assert_ok(b[0] && b[1], e);
    assert_int_equal(strlen(b[0]->fingerprint), 64);
    assert_false(loaded(b[0]) || loaded(b[1]));
    for (int round = 0; round < 4; round++) {
        call c = {.b = b[round % 2]};
        run(&c, 1);
        assert_int_equal(c.last, EVENT_DONE);
        assert_int_equal(c.tokens, 8);
        assert_true(loaded(b[round % 2]));
        assert_false(loaded(b[(round + 1) % 2]));
    }
    /* At the same time: each waits until the other has finished; nobody is lost. */
    enum { MANY = 24 };
    call many[MANY] = {0};
    for (int i = 0; i < MANY; i++) {
        many[i].b = b[i % 2];
        many[i].cancel = i % 5 == 4;
    }
    run(many, MANY);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(many[i].finals, 1);
        assert_int_equal(many[i].last, many[i].cancel ? EVENT_ERROR : EVENT_DONE);
        if (many[i].cancel)
            assert_int_equal(many[i].error.code, ERR_CANCELLED);
    }
    assert_true(b[0]->ops->healthy(b[0], &e));
    str text = {0};
    assert_true(b[0]->ops->metrics(b, 2, &text));
    assert_non_null(strstr(text.data, "pare_model_loaded{model=\"one\"}"));
    str_free(&text);
    b[0]->ops->close(b[0]);
    b[1]->ops->close(b[1]);
    on_demand_free(d);
    pool_free(p);
}

/* Others that use the memory without a break do not keep it for ever. */
static void nobody_waits_for_ever(void **state) {
    (void)state;
    err           e = {0};
    local_options o = {.sequences = 4, .context = 128};
    if (!have_story())
        skip();
    pool      *p = pool_new(2, &e);
    int64_t    one = needed(p, &o), until = clock_us() + 15 * 1000000LL;
    on_demand *d = on_demand_new(p, one + one / 2, 0, &e);
    backend   *busy = on_demand_add(d, "busy", STORYTELLER, NULL, 0, &o, &e);
    backend   *patient = on_demand_add(d, "patient", STORYTELLER, NULL, 0, &o, &e);
    assert_ok(busy && patient, e);
    call calls[4] = {{.most = 13}, {.most = 34}, {.most = 55}, {.b = patient}};
    for (int i = 0; i < 3; i++) {
        calls[i].b = busy;
        calls[i].against = &calls[3];
        calls[i].until_us = until;
    }
    run(calls, 4);
    assert_true(clock_us() < until);
    for (int i = 0; i < 4; i++)
        assert_int_equal(calls[i].last, EVENT_DONE);
    assert_true(calls[0].finals > 1);
    busy->ops->close(busy);
    patient->ops->close(patient);
    on_demand_free(d);
    pool_free(p);
}

static void who_is_idle_leaves(void **state) {
    (void)state;
    err           e = {0};
    local_options o = {.sequences = 1, .context = 64};
    if (!have_story())
        skip();
    pool      *p = pool_new(2, &e);
    on_demand *d = on_demand_new(p, 0, 100000, &e);
    backend   *b = on_demand_add(d, "story", STORYTELLER, NULL, 0, &o, &e);
    assert_ok(b, e);
    call c = {.b = b};
    run(&c, 1);
    assert_int_equal(c.last, EVENT_DONE);
    int64_t until = clock_us() + 20 * 1000000;
    while (loaded(b) && clock_us() < until)
        usleep(20000);
    assert_false(loaded(b));
    call again = {.b = b};
    run(&again, 1);
    assert_int_equal(again.last, EVENT_DONE);
    b->ops->close(b);
    on_demand_free(d);
    pool_free(p);
}

/* The measured fingerprint is the one that the loaded model has, or each load would be refused as another file. */
static void fingerprints_agree(void **state) {
    (void)state;
    static const char *const files[] = {STORYTELLER, "../shared/conformance/logits/bert-mean/model.gguf"};
    err                      e = {0};
    local_options            o = {.sequences = 1, .context = 64, .slide = true, .kv = KV_Q8_0};
    pool                    *p = pool_new(1, &e);
    on_demand               *d = on_demand_new(p, 0, 0, &e);
    for (int i = 0; i < 2; i++) {
        if (access(files[i], R_OK) != 0)
            continue;
        backend *later = on_demand_add(d, "later", files[i], NULL, 0, &o, &e);
        backend *now = backend_local("now", files[i], NULL, 0, p, &o, &e);
        assert_ok(later && now, e);
        assert_string_equal(later->fingerprint, now->fingerprint);
        now->ops->close(now);
        later->ops->close(later);
    }
    on_demand_free(d);
    pool_free(p);
}

static void what_is_no_model_is_refused(void **state) {
    (void)state;
    err        e = {0};
    pool      *p = pool_new(1, &e);
    on_demand *d = on_demand_new(p, 0, 0, &e);
    assert_null(on_demand_add(d, "none", "/nonexistent/model.gguf", NULL, 0, NULL, &e));
    assert_true(e.text[0]);
    e = (err){0};
    assert_null(on_demand_add(d, "text", "README.md", NULL, 0, NULL, &e));
    assert_true(e.text[0]);
    on_demand_free(d);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_share_the_room_for_one),  cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(who_is_idle_leaves),          cmocka_unit_test(fingerprints_agree),
        cmocka_unit_test(what_is_no_model_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
