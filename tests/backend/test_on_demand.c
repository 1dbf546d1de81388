/* Models that are loaded on demand: two under a budget for one, one that never fits, one that is left alone, requests that
 * are cancelled in line, many at once, a file that cannot be loaded for a while, and closing while a model is loaded. */
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
    int           status;
    int64_t       retry_after; /* 0: none */
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
    c->status = ev->status;
    c->retry_after = ev->retry_after ? strtoll(ev->retry_after, NULL, 10) : 0;
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

/* ---- a file that cannot be loaded ---- */

static void write_file(const char *path, const char *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static char *read_story(size_t *n) {
    FILE *f = fopen(STORYTELLER, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n);
    assert_true(data && fread(data, 1, *n, f) == *n);
    fclose(f);
    return data;
}

static void fails_with(backend *b, const char *says, int64_t least, int64_t most) {
    call calls[3] = {{.b = b}, {.b = b}, {.b = b, .cancel = true}};
    run(calls, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(calls[i].finals, 1);
        assert_int_equal(calls[i].last, EVENT_ERROR);
        assert_says(calls[i].error, says);
        assert_int_equal(calls[i].status, 503);
        assert_in_range(calls[i].retry_after, least, most);
    }
    assert_int_equal(calls[2].error.code, ERR_CANCELLED);
    assert_int_equal(calls[2].retry_after, 0);
}

static void is_ill(backend *b, const char *says) {
    err e = {0};
    assert_false(b->ops->healthy(b, &e));
    assert_says(e, says);
}

static void is_well_by(backend *b, int64_t until_us) {
    while (!b->ops->healthy(b, NULL) && clock_us() < until_us)
        usleep(20000);
    assert_true(b->ops->healthy(b, NULL));
}

/* Cut short it fails; asked again it fails without being tried, and so it stays for the pause; a failure after that stands
 * twice as long, but the whole file, once it is back, is loaded at once. */
static void a_failure_stands_for_a_while(void **state) {
    (void)state;
    err           e = {0};
    local_options o = {.sequences = 1, .context = 64};
    char          path[64];
    size_t        n;
    if (!have_story())
        skip();
    char *story = read_story(&n);
    snprintf(path, sizeof path, "/tmp/pare-demand-%d.gguf", (int)getpid());
    write_file(path, story, n);
    pool      *p = pool_new(2, &e);
    on_demand *d = on_demand_new(p, 0, 0, &e);
    backend   *b = on_demand_add(d, "story", path, NULL, 0, &o, &e);
    assert_ok(b, e);
    write_file(path, story, n / 2);
    int64_t begun = clock_us();
    fails_with(b, "story could not be loaded: ", 4, 5);
    is_ill(b, "story could not be loaded: ");
    int64_t asked = clock_us();
    for (int i = 0; i < 20; i++)
        fails_with(b, "story could not be loaded: ", 1, 5);
    assert_true(clock_us() < begun + 4000000); /* or the machine is too slow for what follows to say anything */
    is_ill(b, "past the end");
    is_well_by(b, asked + 8000000);
    assert_true(clock_us() >= begun + 5000000);
    fails_with(b, "past the end", 6, 10);
    is_ill(b, "past the end");
    write_file(path, story, n);
    is_well_by(b, clock_us() + 4000000); /* far less than the pause that is left */
    call c = {.b = b};
    run(&c, 1);
    assert_int_equal(c.last, EVENT_DONE);
    assert_int_equal(c.tokens, 8);
    b->ops->close(b);
    on_demand_free(d);
    pool_free(p);
    unlink(path);
    free(story);
}

/* Closed at any moment of a load: the request that waits for it ends as cancelled, and nothing is left. */
static void closing_gives_up_a_load(void **state) {
    (void)state;
    err           e = {0};
    local_options o = {.sequences = 1, .context = 64};
    if (!have_story())
        skip();
    pool *p = pool_new(2, &e);
    for (int i = 0; i < 12; i++) {
        on_demand *d = on_demand_new(p, 0, 0, &e);
        backend   *b = on_demand_add(d, "story", STORYTELLER, NULL, 0, &o, &e);
        loop      *l = loop_new(0, &e);
        int        open = 1;
        call       c = {.b = b, .l = l, .open = &open};
        assert_ok(d && b && l, e);
        c.ask = (prompt){.text = "Once"};
        c.r = (request){.kind = REQUEST_COMPLETION, .prompts = &c.ask, .n_prompts = 1, .max_tokens = 2, .top_p = 1};
        assert_ok(b->ops->start(b, l, &c.r, NULL, on_event, &c, &e), e);
        usleep((unsigned)(i * 700));
        b->ops->close(b);
        assert_true(loop_run(l, &e)); /* until the final event */
        assert_int_equal(c.finals, 1);
        assert_int_equal(c.error.code, ERR_CANCELLED);
        assert_false(loaded(b));
        loop_free(l);
        on_demand_free(d);
    }
    pool_free(p);
}

/* The settings that a model was made of may be gone when it is loaded. */
static void options_are_its_own(void **state) {
    (void)state;
    err  e = {0};
    char directory[] = "/tmp/pare-demand-XXXXXX", path[64];
    if (!have_story())
        skip();
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/kv", directory);
    char         *said = strdup(path);
    local_options o = {.sequences = 1, .context = 64, .kv_disk = said, .kv_disk_bytes = 16 << 20};
    pool         *p = pool_new(1, &e);
    on_demand    *d = on_demand_new(p, 0, 0, &e);
    backend      *b = on_demand_add(d, "story", STORYTELLER, NULL, 0, &o, &e);
    assert_ok(b, e);
    memset(said, 'x', strlen(said));
    free(said);
    call c = {.b = b};
    run(&c, 1);
    assert_ok(c.error.code == ERR_NONE, c.error);
    assert_int_equal(access(path, F_OK), 0);
    b->ops->close(b);
    on_demand_free(d);
    pool_free(p);
    char all[96];
    snprintf(all, sizeof all, "rm -rf %s", directory);
    assert_int_equal(system(all), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_share_the_room_for_one),  cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(who_is_idle_leaves),          cmocka_unit_test(fingerprints_agree),
        cmocka_unit_test(what_is_no_model_is_refused), cmocka_unit_test(a_failure_stands_for_a_while),
        cmocka_unit_test(closing_gives_up_a_load),     cmocka_unit_test(options_are_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
