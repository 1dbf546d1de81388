/* The summary of the ledger against a plain reckoning over the same rows, its edges, its speed, and the reader thread. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "store/db.h"

#define SECOND 1000000LL
#define NOW    (1760000000LL * SECOND + 123456)

static char path[96];

static int make_path(void **state) {
    (void)state;
    snprintf(path, sizeof path, "/tmp/pare-test-stats-XXXXXX");
    int fd = mkstemp(path);
    close(fd);
    return fd < 0;
}

static int remove_path(void **state) {
    (void)state;
    static const char *const names[] = {"", "-wal", "-shm"};
    char                     file[128];
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s%s", path, names[i]);
        unlink(file);
    }
    return 0;
}

/* ---- rows ---- */

static unsigned seed = 11;

static ledger_row random_row(int64_t now_us, int64_t within_us, int models) {
    static const char *const stages[] = {"recall.exact", "answer", ""};
    static const char *const outcomes[] = {"ok", "ok", "ok", "error", "cancelled", "refused"};
    ledger_row               r = {.time_us = now_us - (int64_t)(rand_r(&seed) * 1024LL + rand_r(&seed)) % within_us};
    snprintf(r.id, sizeof r.id, "req-%d", rand_r(&seed));
    snprintf(r.model, sizeof r.model, "model-%d", (int)(rand_r(&seed) % (unsigned)models));
    strcpy(r.stage, stages[rand_r(&seed) % 3]);
    strcpy(r.outcome, outcomes[rand_r(&seed) % 6]);
    r.prompt_tokens = rand_r(&seed) % 5000;
    r.completion_tokens = rand_r(&seed) % 800;
    r.cached_tokens = rand_r(&seed) % 100;
    r.cost_nano = (int64_t)(rand_r(&seed) % 100000) * 1000;
    r.saved_nano = (int64_t)(rand_r(&seed) % 100000) * 1000;
    r.total_us = rand_r(&seed) % 3000000;
    r.first_us = rand_r(&seed) % 2 ? rand_r(&seed) % 1000000 : 0;
    r.stream = rand_r(&seed) % 2;
    r.status = 200;
    return r;
}

static db *open_with(const ledger_row *rows, int n) {
    err e = {0};
    db *d = db_open(path, &e);
    if (!d) {
        fail_msg("%s", e.text);
    }
    for (int i = 0; i < n; i++) {
        db_ledger(d, &rows[i]);
    }
    db_close(d);
    d = db_open(path, &e);
    assert_non_null(d);
    return d;
}

static cJSON *stats(int64_t now_us, int64_t window_us) {
    sqlite3 *c;
    str      json = {0};
    err      e = {0};
    assert_int_equal(sqlite3_open_v2(path, &c, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (!ledger_stats(c, now_us, window_us, &json, &e)) {
        fail_msg("%s", e.text);
    }
    sqlite3_close(c);
    cJSON *root = json_parse(json.data, json.len, 16, &e);
    if (!root) {
        fail_msg("%s in %s", e.text, json.data);
    }
    str_free(&json);
    return root;
}

static const cJSON *at(const cJSON *root, const char *dotted) {
    char  copy[128];
    char *save = NULL;
    snprintf(copy, sizeof copy, "%s", dotted);
    for (char *key = strtok_r(copy, "/", &save); key; key = strtok_r(NULL, "/", &save)) {
        root = cJSON_GetObjectItemCaseSensitive(root, key);
    }
    assert_non_null(root);
    return root;
}

static double num(const cJSON *root, const char *dotted) {
    const cJSON *value = at(root, dotted);
    assert_true(cJSON_IsNumber(value));
    return value->valuedouble;
}

static void same(double a, double b) {
    if (fabs(a - b) > 1e-6 * fmax(1, fabs(b))) {
        fail_msg("%.9g is not %.9g", a, b);
    }
}

/* ---- the reckoning ---- */

static int by_value(const void *x, const void *y) {
    double a = *(const double *)x;
    double b = *(const double *)y;
    return (a > b) - (a < b);
}

/* stage NULL: all; field 0: total_us, 1: first_us; from <= time < to. Smallest value that has percent below or at it. */
static double percentile(const ledger_row *rows, int n, const char *stage, int field, int64_t from, int64_t to,
                         int percent) {
    double *values = malloc((size_t)n * sizeof *values);
    int     count = 0;
    for (int i = 0; i < n; i++) {
        const ledger_row *r = &rows[i];
        int64_t           v = field ? r->first_us : r->total_us;
        if (strcmp(r->outcome, "ok") == 0 && r->time_us >= from && r->time_us < to && (!field || v > 0) &&
            (!stage || strcmp(r->stage, stage) == 0)) {
            values[count++] = (double)v / 1000;
        }
    }
    assert_true(count > 0);
    qsort(values, (size_t)count, sizeof *values, by_value);
    int i = 0;
    while ((i + 1) * 100 < percent * count) {
        i++;
    }
    double v = values[i];
    free(values);
    return v;
}

static void test_against_a_reckoning(void **state) {
    (void)state;
    enum { N = 4000 };
    ledger_row *rows = malloc(N * sizeof *rows);
    for (int i = 0; i < N; i++) {
        rows[i] = random_row(NOW, 7200 * SECOND, 5);
    }
    db     *d = open_with(rows, N);
    cJSON  *root = stats(NOW, 3600 * SECOND);
    int64_t from = NOW - 3600 * SECOND + 1;
    double  requests = 0, hits = 0, answers = 0, none = 0, prompt = 0, cost = 0, saved = 0, ok = 0, cached = 0;
    double  model_requests = 0, model_cost = 0;
    for (int i = 0; i < N; i++) {
        const ledger_row *r = &rows[i];
        if (r->time_us < from) {
            continue;
        }
        requests++;
        hits += strcmp(r->stage, "recall.exact") == 0;
        answers += strcmp(r->stage, "answer") == 0;
        none += r->stage[0] == 0;
        prompt += (double)r->prompt_tokens;
        cached += (double)r->cached_tokens;
        cost += (double)r->cost_nano;
        saved += (double)r->saved_nano;
        ok += strcmp(r->outcome, "ok") == 0;
        if (strcmp(r->model, "model-2") == 0) {
            model_requests++;
            model_cost += (double)r->cost_nano;
        }
    }
    same(num(root, "requests"), requests);
    same(num(root, "per_second"), requests / 3600);
    same(num(root, "window_s"), 3600);
    same(num(root, "now"), 1760000000.123);
    same(num(root, "by_stage/recall.exact"), hits);
    same(num(root, "by_stage/answer"), answers);
    same(num(root, "by_stage/none"), none);
    same(num(root, "by_outcome/ok"), ok);
    same(num(root, "tokens/prompt"), prompt);
    same(num(root, "tokens/cached"), cached);
    same(num(root, "cost_usd"), cost / 1e9);
    same(num(root, "saved_usd"), saved / 1e9);
    static const int percents[] = {50, 90, 99};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "latency_ms/all/p%d", percents[i]);
        same(num(root, name), percentile(rows, N, NULL, 0, from, NOW + 1, percents[i]));
        snprintf(name, sizeof name, "latency_ms/answer/p%d", percents[i]);
        same(num(root, name), percentile(rows, N, "answer", 0, from, NOW + 1, percents[i]));
        snprintf(name, sizeof name, "first_token_ms/p%d", percents[i]);
        same(num(root, name), percentile(rows, N, NULL, 1, from, NOW + 1, percents[i]));
    }
    const cJSON *models = at(root, "by_model");
    assert_int_equal(cJSON_GetArraySize(models), 5);
    const cJSON *m;
    double       last = 1e9;
    cJSON_ArrayForEach(m, models) {
        assert_true(num(m, "requests") <= last);
        last = num(m, "requests");
        if (strcmp(at(m, "model")->valuestring, "model-2") == 0) {
            same(num(m, "requests"), model_requests);
            same(num(m, "cost_usd"), model_cost / 1e9);
        }
    }
    const cJSON *series = at(root, "series");
    int64_t      step = (int64_t)num(root, "step_s");
    double       sum = 0, sum_hits = 0, sum_cost = 0;
    int64_t      t = 0;
    assert_true(cJSON_GetArraySize(series) <= 120 && cJSON_GetArraySize(series) >= 30);
    cJSON_ArrayForEach(m, series) {
        assert_true(t == 0 || (int64_t)num(m, "t") == t + step);
        t = (int64_t)num(m, "t");
        assert_int_equal(t % step, 0);
        sum += num(m, "requests");
        sum_hits += num(m, "hits");
        sum_cost += num(m, "cost_usd");
    }
    same(sum, requests);
    same(sum_hits, hits);
    same(sum_cost, cost / 1e9);
    m = series->child->next->next;
    t = (int64_t)num(m, "t");
    same(num(m, "p50_ms"), percentile(rows, N, NULL, 0, t * SECOND, (t + step) * SECOND, 50));
    same(num(m, "p99_ms"), percentile(rows, N, NULL, 0, t * SECOND, (t + step) * SECOND, 99));
    const cJSON *recent = at(root, "recent");
    assert_int_equal(cJSON_GetArraySize(recent), 50);
    double time = 1e18;
    cJSON_ArrayForEach(m, recent) {
        assert_true(num(m, "time") <= time);
        time = num(m, "time");
    }
    cJSON_Delete(root);
    db_close(d);
    free(rows);
}

static void test_an_empty_ledger(void **state) {
    (void)state;
    db    *d = open_with(NULL, 0);
    cJSON *root = stats(NOW, 300 * SECOND);
    same(num(root, "requests"), 0);
    assert_true(cJSON_IsNull(at(root, "latency_ms/all/p50")));
    assert_int_equal(cJSON_GetArraySize(at(root, "recent")), 0);
    assert_true(cJSON_GetArraySize(at(root, "series")) > 50);
    cJSON_Delete(root);
    for (int64_t window = 1; window < 400LL * 86400; window = window * 3 + 1) {
        root = stats(NOW, window * SECOND);
        int steps = cJSON_GetArraySize(at(root, "series"));
        assert_true(steps >= 1 && steps <= 120);
        cJSON_Delete(root);
    }
    sqlite3 *c;
    str      json = {0};
    err      e = {0};
    sqlite3_open_v2(path, &c, SQLITE_OPEN_READONLY, NULL);
    assert_false(ledger_stats(c, NOW, 0, &json, &e));
    assert_false(ledger_stats(c, NOW, -5, &json, &e));
    assert_false(ledger_stats(c, NOW, INT64_MAX, &json, &e));
    str_free(&json);
    sqlite3_close(c);
    db_close(d);
}

/* Names that clients choose: cut characters, quotes, and more of them than a page can show. */
static void test_names_of_strangers(void **state) {
    (void)state;
    ledger_row rows[200];
    for (int i = 0; i < 200; i++) {
        rows[i] = random_row(NOW, 60 * SECOND, 1);
        snprintf(rows[i].model, sizeof rows[i].model, "m-%d-\"\\\n\xC3", i);
        rows[i].prompt_tokens = INT64_MAX / 2;
    }
    db    *d = open_with(rows, 200);
    cJSON *root = stats(NOW, 300 * SECOND);
    assert_int_equal(cJSON_GetArraySize(at(root, "by_model")), 64);
    same(num(root, "requests"), 200);
    double       sum = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, at(root, "by_model")) {
        sum += num(m, "requests");
    }
    same(sum, 200);
    cJSON_Delete(root);
    db_close(d);
}

static void test_hundred_thousand_rows(void **state) {
    (void)state;
    enum { N = 100000 };
    ledger_row *rows = malloc(N * sizeof *rows);
    for (int i = 0; i < N; i++) {
        rows[i] = random_row(NOW, 3600 * SECOND, 8);
        rows[i].time_us = NOW - (int64_t)(N - i) * 3600 * SECOND / N + 1; /* as they come: in order of time */
    }
    int64_t begin = clock_us();
    db     *d = open_with(rows, N);
    int64_t written = clock_us();
    int64_t best = INT64_MAX;
    for (int i = 0; i < 3; i++) {
        int64_t from = clock_us();
        cJSON  *root = stats(NOW, 3600 * SECOND);
        int64_t took = clock_us() - from;
        best = took < best ? took : best;
        same(num(root, "requests"), N);
        cJSON_Delete(root);
    }
    print_message("100000 rows: written in %lld ms, summed up in %lld ms\n", (long long)(written - begin) / 1000,
                  (long long)best / 1000);
    db_close(d);
    free(rows);
    assert_true(best < 2 * SECOND); /* the aim is 150 ms on a quiet machine; a sanitizer and company are slower */
}

/* ---- the reader thread ---- */

static bool sum_up(struct sqlite3 *c, const void *arg, str *json, err *e) {
    return ledger_stats(c, ((const int64_t *)arg)[0], ((const int64_t *)arg)[1], json, e);
}

static bool write_something(struct sqlite3 *c, const void *arg, str *json, err *e) {
    (void)arg;
    (void)json;
    return sqlite3_exec(c, "DELETE FROM ledger", NULL, NULL, NULL) == SQLITE_OK || err_set(e, ERR_IO, "cannot");
}

static bool take_for_ever(struct sqlite3 *c, const void *arg, str *json, err *e) {
    (void)arg;
    (void)json;
    int code = sqlite3_exec(c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
                            NULL, NULL, NULL);
    return code == SQLITE_OK || err_set(e, ERR_IO, "interrupted");
}

typedef struct asked {
    loop     *loop;
    int       left;
    int       good, refused, late;
    double    requests;
    bool      on_loop;
    pthread_t thread;
} asked;

static void on_answer(void *ctx, const str *json, const err *e) {
    asked *a = ctx;
    a->on_loop = pthread_equal(pthread_self(), a->thread);
    if (!e) {
        cJSON *root = json_parse(json->data, json->len, 16, NULL);
        a->requests = num(root, "requests");
        cJSON_Delete(root);
        a->good++;
    } else if (e->code == ERR_TIMEOUT) {
        a->late++;
    } else {
        a->refused++;
    }
    if (--a->left == 0) {
        loop_stop(a->loop);
    }
}

static void test_asking(void **state) {
    (void)state;
    ledger_row rows[10];
    for (int i = 0; i < 10; i++) {
        rows[i] = random_row(NOW, 60 * SECOND, 1);
    }
    db     *d = open_with(rows, 10);
    err     e = {0};
    asked   a = {.loop = loop_new(0, &e), .left = 4, .thread = pthread_self()};
    int64_t arg[2] = {NOW, 300 * SECOND};
    db_ask(d, a.loop, sum_up, arg, sizeof arg, on_answer, &a);
    memset(arg, 0, sizeof arg); /* it was copied */
    db_ask(d, a.loop, write_something, NULL, 0, on_answer, &a);
    db_ask(d, a.loop, take_for_ever, NULL, 0, on_answer, &a);
    arg[0] = NOW;
    arg[1] = 300 * SECOND;
    db_ask(d, a.loop, sum_up, arg, sizeof arg, on_answer, &a);
    assert_true(loop_run(a.loop, &e));
    assert_int_equal(a.good, 2);
    assert_int_equal(a.refused, 1);
    assert_int_equal(a.late, 1);
    assert_true(a.on_loop);
    same(a.requests, 10);
    /* Closing does not wait for a long question; its answer is an error. */
    int64_t begin = clock_us();
    a.left = 1;
    db_ask(d, a.loop, take_for_ever, NULL, 0, on_answer, &a);
    usleep(50000);
    db_close(d);
    assert_true(clock_us() - begin < 2 * SECOND);
    assert_true(loop_run(a.loop, &e));
    assert_int_equal(a.refused, 2);
    loop_free(a.loop);
}

int main(void) {
    log_setup(LOG_OFF, false);
#define WITH_PATH(test) cmocka_unit_test_setup_teardown(test, make_path, remove_path)
    const struct CMUnitTest tests[] = {
        WITH_PATH(test_against_a_reckoning),   WITH_PATH(test_an_empty_ledger), WITH_PATH(test_names_of_strangers),
        WITH_PATH(test_hundred_thousand_rows), WITH_PATH(test_asking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
