/* The settings read again while pare serves: as a whole or not at all, and nothing that runs is touched. */
#include "bed.h"

#include <sys/wait.h>

#include "serve/front.h"

static bed   the;
static reply r;

static void run_slow(upstream *u, int fd) {
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 8 && !atomic_load(&u->stop); i++) {
        say(fd, EVENT(DELTA("more ")));
        nap(100);
    }
    say(fd, EVENT(END_DELTA) DONE);
}

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"e500", "500 Oops\r\nContent-Type: application/json", "{}", LENGTH, KEEP, NULL},
                                 {"silent", "", NULL, RAW, HANG, NULL},
                                 {"slow", NULL, NULL, RAW, CLOSE, run_slow},
                                 {0}};

static int open_bed(void **state) {
    (void)state;
    the = (bed){.with_model = true};
    bed_open(&the, scripts);
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    bed_close(&the);
    reply_free(&r);
    return 0;
}

static void rewrite(const char *models, const char *more) {
    char path[128];
    the.model_line = models;
    snprintf(path, sizeof path, "%s/pare.yaml", the.dir);
    bed_write_config(&the, path, more);
}

static void reload(int status) {
    post(the.port, "/api/reload", "", "{}", &r);
    if (r.status != status) {
        fail_msg("reload: %d %s", r.status, r.body.data ? r.body.data : "");
    }
}

/* An adopted generation reaches the loops through their mailboxes. */
static int status_of_model(const char *name, int wanted) {
    int64_t limit = clock_us() + 5000000;
    do {
        char body[256];
        snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"@whole\"}]}",
                 name);
        post(the.port, CHAT, "Cache-Control: no-cache\r\n", body, &r);
    } while (r.status != wanted && clock_us() < limit);
    return r.status;
}

static const backend *local_backend(void) {
    const gateway *g = &the.house->now->gateway;
    for (int i = 0; i < g->n_backends; i++) {
        if (strcmp(g->backends[i]->ops->kind, "local") == 0) {
            return g->backends[i];
        }
    }
    return NULL;
}

/* What the house has open. The list belongs to the keeper's thread, and so a reload's end looks at it there. */
typedef struct look {
    const char *kind;
    int         all, of_kind;
    atomic_bool done;
} look;

static void on_look(void *ctx, const err *e) {
    look *l = ctx;
    (void)e;
    for (const opened *o = the.house->opened; o; o = o->next) {
        l->all++;
        l->of_kind += strncmp(o->definition, l->kind, strlen(l->kind)) == 0;
    }
    atomic_store(&l->done, true);
}

static look look_at(const char *kind) {
    look l = {.kind = kind};
    assert_true(keeper_reload(server_keeper(the.server), on_look, &l));
    while (!atomic_load(&l.done)) { /* it always comes */
        nap(1);
    }
    return l;
}

static bool is_open(const char *kind) {
    return look_at(kind).of_kind > 0;
}

static void test_models_come_and_go(void **state) {
    (void)state;
    const backend *was = local_backend();
    assert_non_null(was);
    assert_int_equal(status_of_model("n", 404), 404);
    rewrite("  storyteller: {file: bundled}\n  n: {backend: up, model: gpt}\n", "");
    reload(200);
    assert_int_equal(status_of_model("n", 200), 200);
    assert_ptr_equal(local_backend(), was); /* the model stays loaded */
    rewrite("  storyteller: {file: bundled}\n", "");
    reload(200);
    assert_int_equal(status_of_model("n", 404), 404);
    rewrite("", "");
    reload(200);
    assert_int_equal(status_of_model("storyteller", 404), 404);
    until(!is_open("local\n")); /* nobody has it any more: it is closed */
    assert_false(is_open("local\n"));
    assert_int_equal(status_of_model("m", 200), 200);
}

static void test_bad_settings_change_nothing(void **state) {
    (void)state;
    generation *was = the.house->now;
    rewrite(NULL, "colour: blue\n");
    reload(400);
    assert_true(body_has(&r, "colour"));
    rewrite(NULL, "tls: {certificate: /nowhere.pem, key: /nowhere.key}\n");
    reload(400);
    rewrite("  bad: {file: /nowhere.gguf}\n", "");
    reload(400);
    assert_true(body_has(&r, "nowhere.gguf"));
    rewrite(NULL, "cache: {size: 2MiB}\n");
    reload(400);
    assert_true(body_has(&r, "restart"));
    assert_ptr_equal(the.house->now, was);
    assert_int_equal(status_of_model("m", 200), 200);
}

static void test_running_streams_go_on(void **state) {
    (void)state;
    char body[512];
    int  fd = client_connect(the.port);
    send_post(fd, CHAT, "", chat_body(body, sizeof body, "slow", "1", true));
    until(in_flight(&the) == 1);
    rewrite("", "  gone: {base_url: 'http://127.0.0.1:1/v1'}\n");
    for (int i = 0; i < 20; i++) {
        reload(200);
    }
    read_reply(fd, &r, false);
    assert_int_equal(r.status, 200);
    assert_true(r.complete && body_has(&r, "[DONE]"));
    int n = 0;
    for (const char *at = r.body.data; at && (at = strstr(at, "more ")); at++) {
        n++;
    }
    assert_int_equal(n, 8);
    close(fd);
}

typedef struct asker {
    pthread_t   thread;
    atomic_bool stop;
    int         asked, failed;
} asker;

static void *ask_all_the_time(void *arg) {
    asker *a = arg;
    reply  mine = {0};
    while (!atomic_load(&a->stop)) {
        char body[256];
        chat_body(body, sizeof body, "whole", "always", false);
        post(the.port, CHAT, a->asked % 2 ? "Cache-Control: no-cache\r\n" : "", body, &mine);
        a->asked++;
        a->failed += mine.status != 200;
    }
    reply_free(&mine);
    return NULL;
}

static void test_under_load(void **state) {
    (void)state;
    asker askers[4] = {0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_all_the_time, &askers[i]), 0);
    }
    for (int i = 0; i < 40; i++) {
        rewrite(i % 2 ? "  storyteller: {file: bundled}\n" : "  n: {backend: up}\n", "");
        reload(200);
    }
    for (int i = 0; i < 4; i++) {
        atomic_store(&askers[i].stop, true);
        pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].asked > 0);
        assert_int_equal(askers[i].failed, 0);
    }
}

static void test_keys(void **state) {
    (void)state;
    rewrite(NULL, "keys:\n  - {name: boss, key: boss-secret, admin: true}\n");
    reload(200);
    assert_int_equal(status_of_model("m", 401), 401);
    post(the.port, "/api/reload", "", "{}", &r);
    assert_int_equal(r.status, 401);
    rewrite(NULL, "");
    post(the.port, "/api/reload", "Authorization: Bearer boss-secret\r\n", "{}", &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(status_of_model("m", 200), 200);
}

/* Whoever asked for it may be gone when it is done. */
static void test_client_leaves(void **state) {
    (void)state;
    for (int i = 0; i < 30; i++) {
        int fd = client_connect(the.port);
        send_post(fd, "/api/reload", "", "{}");
        close(fd);
    }
    reload(200);
    until(in_flight(&the) == 0);
    assert_int_equal(status_of_model("m", 200), 200);
}

/* One number of /metrics; -1: it is not there. */
static double metric(const char *line) {
    int fd = client_connect(the.port);
    reply_free(&r);
    say(fd, "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n");
    read_reply(fd, &r, false);
    close(fd);
    const char *at = r.body.data ? strstr(r.body.data, line) : NULL;
    return at ? atof(at + strlen(line)) : -1;
}

/* What a reload does not change is not forgotten: a circuit that is open, how quick a target is, whose turn it is. A backend
 * that is another one begins anew, beside one that is not. */
static void test_circuits_stay(void **state) {
    (void)state;
    static const char models[] =
        "  failing: {targets: [{backend: second, model: '@e500'}, {backend: changing, model: '@e500'}], retries: 1,\n"
        "            pause: 1ms, circuit: {failures: 1, open: 5m}}\n"
        "  grouped: {targets: [{backend: up, model: gpt}, {backend: second, model: gpt}]}\n";
    char more[128];
    for (int i = 0; i < 3; i++) {
        snprintf(more, sizeof more, "  changing: {base_url: 'http://127.0.0.1:%d/v1', api_key: %s}\n", the.up.port,
                 i == 2 ? "other" : "one");
        rewrite(models, more);
        reload(200);
        int before = atomic_load(&the.up.requests);
        assert_int_equal(status_of_model("failing", i == 0 ? 500 : i == 1 ? 503 : 500), i == 1 ? 503 : 500);
        /* Both are asked; nobody is; the one that is new is. */
        assert_int_equal(atomic_load(&the.up.requests) - before, i == 0 ? 2 : i == 1 ? 0 : 1);
        assert_int_equal(status_of_model("grouped", 200), 200);
        double up = metric("pare_target_calls_total{model=\"grouped\",backend=\"up\",upstream=\"gpt\"} "),
               second = metric("pare_target_calls_total{model=\"grouped\",backend=\"second\",upstream=\"gpt\"} ");
        assert_int_equal((int)(up + second), i + 1);
        assert_true(i < 2 || (up > 0 && second > 0)); /* by turns, over reloads: never three times the same */
        double first = metric("pare_target_first_event_seconds{model=\"grouped\",backend=\"up\",upstream=\"gpt\"} ");
        assert_true(up > 0 ? first > 0 : first >= 0);
    }
}

/* A model that is being loaded is given up when the server ends. */
static void test_end_while_loading(void **state) {
    (void)state;
    rewrite("", "");
    reload(200);
    until(!is_open("local\n"));
    atomic_store(&the.house->closing, true);
    rewrite("  storyteller: {file: bundled}\n", "");
    reload(400);
    assert_true(body_has(&r, "stopped"));
    atomic_store(&the.house->closing, false);
    reload(200);
    assert_int_equal(status_of_model("storyteller", 200), 200);
}

/* ---- 200 times under everything at once ---- */

typedef struct rioter {
    pthread_t   thread;
    atomic_bool stop;
    int         kind, asked, failed;
} rioter;

enum { HITS, MISSES, STREAMS, ABORTS, RETRIES, RIOTS };

static bool goes_wrong(int kind, int round, reply *mine) {
    static const char *const names[] = {"whole", "whole", "stream", "slow", "e500"};
    char                     body[512], salt[32];
    bool                     stream = kind == STREAMS || kind == ABORTS;
    snprintf(salt, sizeof salt, "%d", kind == HITS ? 0 : round);
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"@%s %s\"}]%s}",
             kind == RETRIES ? "failing"
             : round % 2     ? "grouped"
                             : "m",
             kind == ABORTS && round % 3 == 0 ? "silent" : names[kind], salt, stream ? ",\"stream\":true" : "");
    if (kind != ABORTS) {
        post(the.port, CHAT, kind == HITS ? "" : "Cache-Control: no-cache\r\n", body, mine);
        return (kind == RETRIES ? mine->status < 500 : mine->status != 200) || (stream && !body_has(mine, "[DONE]"));
    }
    int fd = client_connect(the.port);
    send_post(fd, CHAT, "", body);
    nap(round % 7 * 3);
    if (round % 2) {
        reset_connection(fd);
    }
    close(fd);
    return false;
}

static void *riot(void *arg) {
    rioter *a = arg;
    reply   mine = {0};
    while (!atomic_load(&a->stop)) {
        a->failed += goes_wrong(a->kind, a->asked++, &mine);
    }
    reply_free(&mine);
    return NULL;
}

/* Models, groups, hedges, retries, backends and their keys change; those who ask do not notice. */
static void test_storm(void **state) {
    (void)state;
    static const char *const groups[] = {
        "  grouped: {targets: [{backend: two_keys, model: gpt}, {backend: second, model: gpt}], retries: 1}\n",
        ("  grouped: {targets: [{backend: up, model: gpt}, {backend: second, model: gpt, weight: 3}], retries: 2, "
         "hedge: {after: 20ms}}\n"),
        "  grouped: {backend: changing, model: gpt, retries: 1}\n  n: {backend: changing, model: gpt}\n",
        "  grouped: {backend: two_keys, model: gpt, fallbacks: [{backend: changing, model: gpt}]}\n"};
    rioter rioters[RIOTS] = {0};
    rewrite("  grouped: {backend: second, model: gpt}\n  failing: {backend: second, model: gpt}\n", "");
    reload(200);
    assert_int_equal(status_of_model("grouped", 200), 200);
    for (int i = 0; i < RIOTS; i++) {
        rioters[i].kind = i;
        assert_int_equal(pthread_create(&rioters[i].thread, NULL, riot, &rioters[i]), 0);
    }
    for (int i = 0; i < 200; i++) {
        char more[160], models[512];
        snprintf(more, sizeof more, "  changing: {base_url: 'http://127.0.0.1:%d/v1', api_key: k%d}\n", the.up.port, i);
        snprintf(models, sizeof models, "%s  failing: {backend: changing, model: gpt, retries: 1, pause: 1ms}\n",
                 groups[i % 4]);
        rewrite(models, more);
        reload(200);
    }
    for (int i = 0; i < RIOTS; i++) {
        atomic_store(&rioters[i].stop, true);
        pthread_join(rioters[i].thread, NULL);
        if (rioters[i].asked == 0 || rioters[i].failed) {
            fail_msg("kind %d: %d of %d failed", i, rioters[i].failed, rioters[i].asked);
        }
    }
    until(in_flight(&the) == 0);
    assert_int_equal(in_flight(&the), 0);
    until(look_at("").all <= 9);
    assert_true(look_at("").all <= 9); /* the others, of which there were 200, have been closed */
}

/* ---- signals ---- */

typedef struct driver {
    pid_t     of;
    pthread_t thread;
    bool      whole;
} driver;

/* Asks for a slow stream, and while it runs tells the server to end, and then to read its settings. */
static void *drive(void *arg) {
    driver *d = arg;
    char    body[512];
    reply   mine = {0};
    int     fd = client_connect(the.port);
    send_post(fd, CHAT, "", chat_body(body, sizeof body, "slow", "1", true));
    until(in_flight(&the) == 1);
    kill(d->of, SIGHUP);
    nap(100);
    kill(d->of, SIGTERM);
    nap(100);
    kill(d->of, SIGHUP);
    read_reply(fd, &mine, false);
    d->whole = mine.complete && body_has(&mine, "[DONE]");
    close(fd);
    reply_free(&mine);
    return NULL;
}

static int serve_until_told(void) {
    err    e = {0};
    driver d = {.of = getpid()};
    server_block_signals();
    the = (bed){0};
    bed_open(&the, scripts);
    bool ok = pthread_create(&d.thread, NULL, drive, &d) == 0 && server_run(the.server, &e);
    pthread_join(d.thread, NULL);
    bed_close(&the);
    return ok && d.whole ? 0 : 3;
}

/* A hang-up never ends the server: not while it serves, and not while it finishes what runs. */
static void test_hang_up(void **state) {
    (void)state;
    int   status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(serve_until_told());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_bed, close_bed)
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hang_up), /* forks: before there are threads */
                                       T(test_models_come_and_go),
                                       T(test_bad_settings_change_nothing),
                                       T(test_running_streams_go_on),
                                       T(test_under_load),
                                       T(test_keys),
                                       T(test_client_leaves),
                                       T(test_circuits_stay),
                                       T(test_end_while_loading),
                                       T(test_storm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
