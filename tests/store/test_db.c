/* pare.db: rows come back, a second process may write too, a kill at any moment leaves a whole file. */
#include "db_bed.h"

/* ---- tests ---- */

/* How many rows are not the next of the one before them; a run of row_of begins with 0. */
static const char broken[] = "SELECT count(*) FROM (SELECT total_us, lag(total_us) OVER (ORDER BY id) AS before FROM"
                             " ledger) WHERE total_us > 0 AND before IS NOT total_us - 1";

static void test_close_writes_all(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 5000; i++) {
        ledger_row r = row_of(i);
        db_ledger(d, &r);
    }
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 5000);
    assert_int_equal(ask("SELECT count(*) FROM ledger WHERE status = 200 AND outcome = 'ok'"), 5000);
    assert_int_equal(ask(broken), 0);
    struct stat at;
    assert_int_equal(stat(path, &at), 0);
    assert_int_equal(at.st_mode & 0777, 0600);
}

static void test_committed_within_a_second(void **state) {
    (void)state;
    db        *d = open_db();
    ledger_row r = row_of(1);
    int64_t    begin = clock_us();
    db_ledger(d, &r);
    wait_written(d, 1);
    assert_true(clock_us() - begin < 1000000);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 1);
    db_stats s;
    db_stats_read(d, &s);
    assert_int_equal(s.rows_waiting, 0);
    assert_int_equal(s.commits, 1);
    db_close(d);
}

static void test_cache_comes_back(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 10; i++) {
        put(d, i, 100, 60000000);
    }
    put(d, 3, 200, 60000000); /* replaces */
    put(d, 10, 100, -1);      /* expired already */
    sha256 key = sha256_of(&(int){4}, sizeof(int));
    db_cache_remove(d, &key);
    db_close(d);
    d = open_db();
    err    e = {0};
    cache *c = cache_new(1 << 20, NULL);
    assert_int_equal(db_cache_load(d, c, &e), 9);
    assert_true(has(c, 3));
    assert_false(has(c, 4));
    assert_false(has(c, 10));
    assert_true(has(c, 9));
    cache_free(c);
    db_cache_purge(d, "model-1", "space");
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM cache WHERE prompt_tokens <> 10"), 4); /* 10 may be swept or not yet */
    d = open_db();
    db_cache_purge(d, NULL, "nobody");
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM cache WHERE prompt_tokens <> 10"), 4);
    d = open_db();
    db_cache_purge(d, NULL, NULL);
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM cache"), 0);
}

/* An answer that was stored again counts once, with its newest form; one that left the cache while it waited is not
 * written. */
static void test_stored_again(void **state) {
    (void)state;
    db    *d = open_db();
    cache *c = cache_new(1 << 20, NULL);
    for (int i = 0; i < 40; i++) {
        cached *e = answer_of(i, 100, 60000000);
        cache_put(c, e);
        db_cache_put(d, e);
        cached_release(e);
        put(d, i, 300, 60000000);
    }
    for (int i = 0; i < 40; i += 2) {
        sha256 key = sha256_of(&i, sizeof i);
        assert_true(cache_remove(c, &key));
    }
    db_close(d); /* before 250 ms are over, or some are written and removed from memory only */
    cache_free(c);
    int64_t rows = ask("SELECT count(*) FROM cache");
    assert_true(rows == 60 || rows == 80);
    d = open_db();
    c = cache_new(1 << 20, NULL);
    err e = {0};
    assert_int_equal(db_cache_load(d, c, &e), 40);
    for (int i = 0; i < 40; i++) {
        sha256        key = sha256_of(&i, sizeof i);
        const cached *found = cache_get(c, &key, clock_wall_us());
        assert_non_null(found);
        assert_int_equal(found->len, 300);
        cached_release(found);
    }
    cache_free(c);
    sqlite3 *read_only;
    str      json = {0};
    assert_int_equal(sqlite3_open_v2(path, &read_only, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_true(db_cache_totals(read_only, &json, &e));
    assert_string_equal(json.data, "{\"entries\":40,\"bytes\":12000}");
    json.len = 0;
    assert_true(db_cache_list(read_only, 15, &json, &e));
    int n = 0;
    for (const char *at = json.data; (at = strstr(at, "\"key\"")); at++) {
        n++;
    }
    assert_int_equal(n, 15);
    str_free(&json);
    sqlite3_close(read_only);
    sha256 key = sha256_of(&(int){4}, sizeof(int));
    db_cache_remove(d, &key);
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM cache WHERE prompt_tokens = 4"), 0);
    assert_parts();
}

/* What expires sooner than older rows goes when its time comes, and before anything that has not expired. */
static void test_expired_goes_first(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 1500; i++) {
        put(d, i, 100, i % 10 == 3 ? 1 : 60000000);
    }
    db_close(d); /* may have swept a part of them already */
    assert_int_equal(ask("SELECT count(*) FROM cache WHERE prompt_tokens % 10 <> 3"), 1350);
    d = open_db(); /* sweeps at its start */
    for (int i = 0; i < 500 && ask("SELECT count(*) FROM cache") > 1350; i++) {
        usleep(10000);
    }
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM cache"), 1350);
    assert_int_equal(ask("SELECT count(*) FROM cache WHERE prompt_tokens % 10 = 3"), 0);
    assert_parts();
}

static void test_load_keeps_the_newest(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 100; i++) {
        put(d, i, 1000, 60000000);
    }
    db_close(d);
    d = open_db();
    cache *c = cache_new(20000, NULL);
    err    e = {0};
    assert_true(db_cache_load(d, c, &e) >= 10);
    assert_true(has(c, 99));
    assert_true(has(c, 95));
    assert_false(has(c, 50));
    cache_free(c);
    c = cache_new(20000, NULL);
    int64_t loaded = db_cache_load(d, c, &e);
    cached *more = answer_of(1000, 1000, 60000000);
    while (loaded-- > 5) { /* pushing new ones in drops the oldest first, so the newest five stay longest */
        more->key = sha256_of(&loaded, sizeof loaded);
        cached *copy = cached_new(more->len);
        memcpy(copy, more, sizeof *more + more->len);
        cache_put(c, copy);
        cached_release(copy);
    }
    cached_release(more);
    assert_true(has(c, 99));
    assert_true(has(c, 97));
    cache_free(c);
    db_close(d);
}

static void test_cache_at_rest_is_bounded(void **state) {
    (void)state;
    db *d = open_db();
    db_cache_limit(d, 1 << 20);
    for (int i = 0; i < 300; i++) {
        put(d, i, 10000, i < 20 ? 1 : 60000000);
    }
    int64_t bytes = 0;
    for (int i = 0; i < 300; i++) { /* writing and sweeping take a moment */
        bytes = ask("SELECT total(length(body) + 256) FROM cache");
        if (bytes > 0 && bytes <= 1 << 20 && ask("SELECT max(prompt_tokens) FROM cache") == 299) {
            break;
        }
        usleep(20000);
    }
    assert_true(bytes > 0 && bytes <= 1 << 20);
    db_close(d);
    assert_parts();
    int64_t oldest = ask("SELECT min(prompt_tokens) FROM cache");
    assert_true(oldest > 100); /* the newest are kept */
    assert_int_equal(ask("SELECT max(prompt_tokens) FROM cache"), 299);
}

static void test_refuses_what_is_not_ours(void **state) {
    (void)state;
    err   e = {0};
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++) {
        fputs("This is not a database. ", f);
    }
    fclose(f);
    assert_null(db_open(path, &e));
    assert_int_equal(e.code, ERR_INVALID);
    unlink(path);

    sqlite3 *c;
    sqlite3_open(path, &c);
    sqlite3_exec(c, "CREATE TABLE other(x)", NULL, NULL, NULL);
    sqlite3_close(c);
    assert_null(db_open(path, &e));
    assert_non_null(strstr(e.text, "another program"));
    unlink(path);

    db_close(open_db());
    sqlite3_open(path, &c);
    sqlite3_exec(c, "PRAGMA user_version = 1000", NULL, NULL, NULL);
    sqlite3_close(c);
    assert_null(db_open(path, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "newer pare"));

    assert_null(db_open("/tmp/pare-no-such-directory/x/pare.db", &e));
    assert_int_equal(e.code, ERR_IO);
}

static void test_opens_a_directory(void **state) {
    (void)state;
    err e = {0};
    db *d = db_open(directory, &e);
    assert_non_null(d);
    db_close(d);
    assert_int_equal(access(path, F_OK), 0);
}

static void test_a_lock_of_others_is_waited_out(void **state) {
    (void)state;
    db      *d = open_db();
    sqlite3 *c;
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    sqlite3_busy_timeout(c, 5000); /* the writer's first sweep may hold the lock just now */
    assert_int_equal(sqlite3_exec(c, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < 100; i++) {
        ledger_row r = row_of(i);
        db_ledger(d, &r);
    }
    usleep(400000);
    db_stats s;
    db_stats_read(d, &s);
    assert_int_equal(s.rows_waiting, 100);
    assert_int_equal(sqlite3_exec(c, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(c);
    wait_written(d, 100);
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 100);
}

/* RLIMIT_FSIZE stands for a full disk: a file cannot grow past it. In a child, for the limit holds for its process. */
static void survive_full_disk(void) {
    log_setup(LOG_OFF, false);
    signal(SIGXFSZ, SIG_IGN);
    db           *d = db_open(path, NULL);
    struct rlimit normal;
    getrlimit(RLIMIT_FSIZE, &normal);
    struct rlimit full = {.rlim_cur = 64 << 10, .rlim_max = normal.rlim_max};
    setrlimit(RLIMIT_FSIZE, &full);
    for (int i = 0; d && i < 5000; i++) {
        ledger_row r = row_of(i);
        db_ledger(d, &r);
    }
    db_stats s = {0};
    for (int i = 0; d && i < 500 && s.failures == 0; i++) {
        usleep(10000);
        db_stats_read(d, &s);
    }
    bool waited = s.failures > 0 && s.rows_waiting > 0 && s.rows_dropped == 0;
    setrlimit(RLIMIT_FSIZE, &normal); /* room again */
    for (int i = 0; d && i < 1000 && s.rows_waiting > 0; i++) {
        usleep(10000);
        db_stats_read(d, &s);
    }
    bool written = s.rows_written == 5000;
    db_close(d);
    _exit(!d ? 1 : !waited ? 2 : !written ? 3 : 0);
}

static void test_full_disk_is_survived(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        survive_full_disk();
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 5000);
    assert_int_equal(ask(broken), 0);
    assert_whole();
}

static void test_two_processes(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        err e = {0};
        db *d = db_open(path, &e);
        for (int i = 0; d && i < 2000; i++) {
            ledger_row r = row_of(i);
            db_ledger(d, &r);
            usleep(100);
        }
        db_close(d);
        _exit(d ? 0 : 1);
    }
    db *d = open_db();
    for (int i = 0; i < 2000; i++) {
        put(d, i, 300, 60000000);
        usleep(100);
    }
    db_close(d);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 2000);
    assert_int_equal(ask("SELECT count(*) FROM cache"), 2000);
    assert_whole();
}

static void write_like_mad(void) {
    log_setup(LOG_OFF, false);
    db *d = db_open(path, NULL);
    if (!d) {
        _exit(1);
    }
    for (int64_t i = 0;; i++) {
        ledger_row r = row_of(i);
        db_ledger(d, &r);
        if (i % 4 == 0) {
            put(d, (int)(i % 997), (size_t)(500 + i % 9000), i % 3 == 0 ? 1 : 60000000);
        }
        if (i % 500 == 0) {
            db_cache_purge(d, "model-1", NULL);
            usleep(1000);
        }
    }
}

static void test_kill_at_any_moment(void **state) {
    (void)state;
    unsigned seed = (unsigned)clock_us();
    int64_t  rows = 0;
    for (int round = 0; round < 10; round++) {
        pid_t child = fork();
        if (child == 0) {
            write_like_mad();
        }
        usleep(50000 + rand_r(&seed) % 300000);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status)); /* it was at work until then */
        db    *d = open_db();             /* opens again, and recovers */
        err    e = {0};
        cache *c = cache_new(64 << 20, NULL);
        assert_true(db_cache_load(d, c, &e) >= 0);
        cache_free(c);
        db_close(d);
        assert_whole();
        int64_t now = ask("SELECT count(*) FROM ledger");
        assert_true(now >= rows);
        rows = now;
        assert_int_equal(ask(broken), 0); /* rows are committed in order: of each run a prefix is there */
        assert_parts();
    }
    assert_true(rows > 0);
}

/* ---- rows ---- */

static bool keep_row(void *ctx, const ledger_row *row, err *e) {
    (void)e;
    memcpy(ctx, row, sizeof *row);
    return true;
}

static void test_rows_come_back_whole(void **state) {
    (void)state;
    ledger_row r = row_of(5);
    strcpy(r.key, "k");
    strcpy(r.group, "g");
    strcpy(r.upstream, "gpt");
    strcpy(r.tier, "flex");
    r.time_us = 77000000;
    r.attempt = r.counted = r.stream = true;
    r.cached_tokens = 1, r.reasoning_tokens = 2, r.write_5m = 3, r.write_1h = 4, r.audio_in = 5, r.audio_out = 6;
    r.image_in = 7, r.searches = 8, r.cost_nano = 9, r.saved_nano = 10, r.queue_us = 11, r.first_us = 12;
    db *d = open_db();
    db_ledger(d, &r);
    db_close(d);
    err      e = {0};
    sqlite3 *c = ledger_open(directory, &e);
    assert_non_null(c);
    ledger_row back = {0};
    assert_true(ledger_rows(c, 0, 77000001, keep_row, &back, &e));
    assert_memory_equal(&back, &r, sizeof r);
    memset(&back, 0, sizeof back);
    assert_true(ledger_rows(c, 77000001, INT64_MAX, keep_row, &back, &e)); /* since <= t < until */
    assert_true(ledger_rows(c, 0, 77000000, keep_row, &back, &e));
    assert_int_equal(back.time_us, 0);
    sqlite3_close(c);
}

/* Rows of one microsecond, in one batch and in more, from two processes: none is lost. */
static void test_many_rows_of_one_time(void **state) {
    (void)state;
    for (int run = 0; run < 3; run++) {
        db *d = open_db();
        for (int i = 0; i < 5000; i++) {
            ledger_row r = row_of(i);
            r.time_us = 1000000;
            r.searches = i % 7 == 0; /* some differ from the row before, most do not */
            snprintf(r.model, sizeof r.model, "%s", i % 3 ? "model" : "another");
            db_ledger(d, &r);
        }
        db_close(d);
    }
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 15000);
    assert_int_equal(ask("SELECT count(*) FROM ledger WHERE searches = (total_us % 7 = 0) AND request_id = 'req-' ||"
                         " total_us AND model = CASE WHEN total_us % 3 THEN 'model' ELSE 'another' END"),
                     15000);
    assert_whole();
}

/* Rows come in order of their ends, and are found by their time. */
static void test_rows_out_of_order(void **state) {
    (void)state;
    db      *d = open_db();
    unsigned seed = 5;
    int64_t  within = 0;
    for (int i = 0; i < 9000; i++) {
        ledger_row r = row_of(i);
        r.time_us = 1000000 + rand_r(&seed) % 100000;
        within += r.time_us >= 1040000 && r.time_us < 1050000;
        db_ledger(d, &r);
    }
    db_close(d);
    err      e = {0};
    sqlite3 *c = ledger_open(path, &e);
    assert_non_null(c);
    int64_t sum[5] = {0};
    assert_true(ledger_rows(c, 1040000, 1050000, count_row, sum, &e));
    assert_int_equal(sum[0], within);
    assert_int_equal(sum[3], within);
    sqlite3_close(c);
}

/* ---- keeping ---- */

static void test_old_rows_go(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 1000; i++) {
        ledger_row r = row_of(i);
        r.time_us -= i < 700 ? 3600000000LL : 0;
        db_ledger(d, &r);
    }
    wait_written(d, 1000);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 1000); /* all are kept unless said otherwise */
    db_close(d);
    d = open_db();
    db_ledger_keep(d, 1800000000LL); /* looked at when rows are swept: at once, or 30 s later */
    for (int i = 0; i < 4500 && ask("SELECT count(*) FROM ledger") > 300; i++) {
        usleep(10000);
    }
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 300);
    assert_int_equal(ask("SELECT min(total_us) FROM ledger"), 700);
}

/* ---- sums ---- */

typedef struct spent {
    char    text[512];
    int64_t nano;
} spent;

static void take_spent(void *ctx, const char *key, const char *group, int64_t nano, int64_t requests, int64_t tokens) {
    spent *s = ctx;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "%s/%s %lld %lld %lld;", key, group, (long long)nano, (long long)requests,
             (long long)tokens);
}

static void test_spending_by_key(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 8; i++) {
        ledger_row r = row_of(i);
        r.time_us = i * 1000;
        r.cost_nano = 1000 + i;
        strcpy(r.key, i % 2 ? "odd" : "even");
        strcpy(r.group, i == 7 ? "team" : "");
        r.attempt = i == 4;                           /* costs, and is no request */
        strcpy(r.outcome, i == 6 ? "refused" : "ok"); /* neither is this one */
        db_ledger(d, &r);
    }
    db_close(d);
    d = open_db();
    err   e = {0};
    spent s = {0};
    assert_true(db_spend(d, 2000, take_spent, &s, &e));
    assert_string_equal(s.text, "even/ 3012 1 45;odd/ 2008 2 30;odd/team 1007 1 15;");
    db_close(d);
}

static bool take_line(void *ctx, const ledger_line *line, err *e) {
    spent *s = ctx;
    size_t n = strlen(s->text);
    (void)e;
    snprintf(s->text + n, sizeof s->text - n, "%s %s %lld+%lld %lld %lld;", line->names[0] ? line->names[0] : "-",
             line->names[1] ? line->names[1] : "-", (long long)line->requests, (long long)line->attempts,
             (long long)line->prompt_tokens, (long long)line->cost_nano);
    s->nano += line->cost_nano;
    return true;
}

static void test_a_report_adds_up(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 6; i++) {
        ledger_row r = row_of(i);
        r.time_us = 1700000000000000LL + i * 43200000000LL; /* 2023-11-14 22:13:20 UTC, and half a day more each */
        r.cost_nano = i == 5 ? 999999999999LL : 1;
        r.prompt_tokens = i == 5 ? 1LL << 52 : 10; /* absurd, and summed all the same */
        r.attempt = i == 3;
        snprintf(r.model, sizeof r.model, "m%d", i % 2);
        db_ledger(d, &r);
    }
    db_close(d);
    err          e = {0};
    spent        s = {0};
    sqlite3     *c = ledger_open(directory, &e);
    ledger_query q = {.by = {"model", "day"}, .n_by = 2, .since_us = 0, .until_us = INT64_MAX};
    assert_non_null(c);
    assert_true(ledger_report(c, &q, take_line, &s, &e));
    assert_string_equal(s.text, "m0 2023-11-14 1+0 10 1;m0 2023-11-15 1+0 10 1;m0 2023-11-16 1+0 10 1;"
                                "m1 2023-11-15 1+0 10 1;m1 2023-11-16 0+1 10 1;m1 2023-11-17 1+0 4503599627370496 "
                                "999999999999;");
    assert_int_equal(s.nano, 1000000000004LL);
    q.by[1] = "nonsense";
    assert_false(ledger_report(c, &q, take_line, &s, &e));
    assert_non_null(strstr(e.text, "nonsense"));
    spent all = {0};
    q.n_by = 0;
    assert_true(ledger_report(c, &q, take_line, &all, &e));
    assert_int_equal(all.nano, 1000000000004LL);
    q.n_by = 1;
    q.since_us = q.until_us = 5; /* nothing */
    spent none = {0};
    assert_true(ledger_report(c, &q, take_line, &none, &e));
    assert_string_equal(none.text, "");
    sqlite3_close(c);
}

int main(void) {
    log_setup(LOG_OFF, false);
#define WITH_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, make_directory, remove_directory)
    const struct CMUnitTest tests[] = {
        WITH_DIRECTORY(test_close_writes_all),
        WITH_DIRECTORY(test_committed_within_a_second),
        WITH_DIRECTORY(test_cache_comes_back),
        WITH_DIRECTORY(test_load_keeps_the_newest),
        WITH_DIRECTORY(test_cache_at_rest_is_bounded),
        WITH_DIRECTORY(test_refuses_what_is_not_ours),
        WITH_DIRECTORY(test_opens_a_directory),
        WITH_DIRECTORY(test_a_lock_of_others_is_waited_out),
        WITH_DIRECTORY(test_full_disk_is_survived),
        WITH_DIRECTORY(test_two_processes),
        WITH_DIRECTORY(test_kill_at_any_moment),
        WITH_DIRECTORY(test_stored_again),
        WITH_DIRECTORY(test_expired_goes_first),
        WITH_DIRECTORY(test_many_rows_of_one_time),
        WITH_DIRECTORY(test_rows_out_of_order),
        WITH_DIRECTORY(test_rows_come_back_whole),
        WITH_DIRECTORY(test_old_rows_go),
        WITH_DIRECTORY(test_spending_by_key),
        WITH_DIRECTORY(test_a_report_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
