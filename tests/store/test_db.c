/* pare.db: rows come back, a second process may write too, a kill at any moment leaves a whole file. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/ledger.h"

static char directory[64];
static char path[96];

static int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/pare-test-db-XXXXXX");
    if (!mkdtemp(directory)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/pare.db", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    static const char *const names[] = {"", "-wal", "-shm", "-journal"};
    char                     file[128];
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s%s", path, names[i]);
        unlink(file);
    }
    return rmdir(directory);
}

static ledger_row row_of(int64_t i) {
    ledger_row r = {.time_us = clock_wall_us(), .prompt_tokens = 10, .completion_tokens = 5, .total_us = i};
    snprintf(r.id, sizeof r.id, "req-%lld", (long long)i);
    strcpy(r.model, "m");
    strcpy(r.stage, "answer");
    strcpy(r.backend, "local:m");
    strcpy(r.outcome, "ok");
    r.status = 200;
    return r;
}

static cached *answer_of(int i, size_t body, int64_t ttl_us) {
    cached *e = cached_new(body);
    assert_non_null(e);
    e->key = sha256_of(&i, sizeof i);
    e->created_us = clock_wall_us() + i;
    e->expires_us = clock_wall_us() + ttl_us;
    e->prompt_tokens = i;
    e->completion_tokens = 2 * i;
    snprintf(e->model, sizeof e->model, "model-%d", i % 2);
    snprintf(e->space, sizeof e->space, "space");
    memset(e->body, 'a' + i % 26, body);
    return e;
}

static void put(db *d, int i, size_t body, int64_t ttl_us) {
    cached *e = answer_of(i, body, ttl_us);
    db_cache_put(d, e);
    cached_release(e);
}

static db *open_db(void) {
    err e = {0};
    db *d = db_open(path, &e);
    if (!d) {
        fail_msg("%s", e.text);
    }
    return d;
}

static int64_t ask(const char *sql) {
    sqlite3      *c;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open_v2(path, &c, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c, sql, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(c);
    return value;
}

static void assert_whole(void) {
    sqlite3      *c;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c, "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
    sqlite3_finalize(s);
    sqlite3_close(c);
}

static bool has(cache *c, int i) {
    sha256        key = sha256_of(&i, sizeof i);
    const cached *e = cache_get(c, &key, clock_wall_us());
    if (e) {
        assert_int_equal(e->prompt_tokens, i);
        assert_int_equal(e->completion_tokens, 2 * i);
        assert_string_equal(e->space, "space");
        assert_int_equal(e->body[e->len - 1], 'a' + i % 26);
        cached_release(e);
    }
    return e != NULL;
}

static void wait_written(db *d, int64_t rows) {
    db_stats s = {0};
    for (int i = 0; i < 500 && s.rows_written < rows; i++) {
        usleep(10000);
        db_stats_read(d, &s);
    }
    assert_int_equal(s.rows_written, rows);
}

/* ---- tests ---- */

static void test_close_writes_all(void **state) {
    (void)state;
    db *d = open_db();
    for (int i = 0; i < 5000; i++) {
        ledger_row r = row_of(i);
        db_ledger(d, &r);
    }
    db_close(d);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 5000);
    assert_int_equal(ask("SELECT count(*) FROM ledger WHERE total_us = id - 1 AND status = 200 AND outcome = 'ok'"),
                     5000);
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
        bytes = ask("SELECT total(bytes) FROM cache");
        if (bytes > 0 && bytes <= 1 << 20 && ask("SELECT max(prompt_tokens) FROM cache") == 299) {
            break;
        }
        usleep(20000);
    }
    assert_true(bytes > 0 && bytes <= 1 << 20);
    db_close(d);
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
    assert_int_equal(ask("SELECT count(*) FROM ledger WHERE total_us = id - 1"), 5000);
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
        /* Rows are committed in order: of each run a prefix is there, without a gap. */
        assert_int_equal(ask("SELECT count(*) FROM ledger a WHERE total_us > 0 AND NOT EXISTS"
                             " (SELECT 1 FROM ledger b WHERE b.id = a.id - 1 AND b.total_us = a.total_us - 1)"),
                         0);
    }
    assert_true(rows > 0);
}

/* ---- versions ---- */

static void run_sql(const char *sql) {
    sqlite3 *c;
    char    *why = NULL;
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    if (sqlite3_exec(c, sql, NULL, NULL, &why) != SQLITE_OK) {
        fail_msg("%s", why);
    }
    sqlite3_close(c);
}

/* The tables exactly as version 1 made them. */
static const char version_1[] =
    "CREATE TABLE ledger(id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, request_id TEXT NOT NULL, key TEXT NOT NULL,"
    " model TEXT NOT NULL, stage TEXT NOT NULL, backend TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, counted INTEGER NOT NULL,"
    " cost_micro INTEGER NOT NULL, saved_micro INTEGER NOT NULL, queue_us INTEGER NOT NULL, first_us INTEGER NOT NULL,"
    " total_us INTEGER NOT NULL, stream INTEGER NOT NULL, outcome TEXT NOT NULL, status INTEGER NOT NULL);"
    "CREATE INDEX ledger_time ON ledger(time_us);"
    "CREATE TABLE cache(key BLOB PRIMARY KEY NOT NULL, space TEXT NOT NULL, model TEXT NOT NULL,"
    " created_us INTEGER NOT NULL, expires_us INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,"
    " completion_tokens INTEGER NOT NULL, bytes INTEGER NOT NULL, body BLOB NOT NULL);"
    "CREATE INDEX cache_age ON cache(created_us, expires_us, bytes);"
    "CREATE INDEX cache_expiry ON cache(expires_us);"
    "INSERT INTO ledger VALUES(1, 1000, 'a', 'k', 'm', 'answer', 'remote:up', 7, 3, 2, 1, 450, 12, 1, 2, 3, 1, 'ok',"
    " 200), (2, 2000, 'b', '', 'm', '', '', 0, 0, 0, 0, 0, 0, 0, -1, 3, 0, 'refused', 400),"
    " (3, 3000, 'c', 'k', 'm', 'recall.exact', '', 9, 9, 0, 0, 0, 450, 0, 1, 3, 0, 'ok', 200);"
    "PRAGMA journal_mode = WAL; PRAGMA application_id = 1885434469; PRAGMA user_version = 1;";

static void test_a_ledger_of_version_1_keeps_its_rows(void **state) {
    (void)state;
    err e = {0};
    run_sql(version_1);
    assert_null(ledger_open(path, &e)); /* a report cannot bring it up to date, and says who can */
    assert_non_null(strstr(e.text, "pare serve"));
    db        *d = open_db();
    ledger_row r = row_of(7);
    r.cost_nano = 123;
    db_ledger(d, &r);
    db_close(d);
    db_close(open_db()); /* once is enough */
    assert_int_equal(ask("PRAGMA user_version") >= 2, 1);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 4);
    assert_int_equal(ask("SELECT cost_nano FROM ledger WHERE id = 1"), 450000);
    assert_int_equal(ask("SELECT saved_nano FROM ledger WHERE id = 1"), 12000);
    assert_int_equal(ask("SELECT saved_nano FROM ledger WHERE id = 3"), 450000);
    assert_int_equal(ask("SELECT cost_nano + saved_nano FROM ledger WHERE id = 2"), 0);
    assert_int_equal(ask("SELECT cost_nano FROM ledger WHERE id = 4"), 123);
    assert_int_equal(ask("SELECT prompt_tokens + completion_tokens + cached_tokens + counted FROM ledger WHERE id = 1"),
                     13);
    assert_int_equal(ask("SELECT attempt + reasoning_tokens + searches + (tier = '') FROM ledger WHERE id = 1"), 1);
    assert_whole();
}

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
        WITH_DIRECTORY(test_close_writes_all),         WITH_DIRECTORY(test_committed_within_a_second),
        WITH_DIRECTORY(test_cache_comes_back),         WITH_DIRECTORY(test_load_keeps_the_newest),
        WITH_DIRECTORY(test_cache_at_rest_is_bounded), WITH_DIRECTORY(test_refuses_what_is_not_ours),
        WITH_DIRECTORY(test_opens_a_directory),        WITH_DIRECTORY(test_a_lock_of_others_is_waited_out),
        WITH_DIRECTORY(test_full_disk_is_survived),    WITH_DIRECTORY(test_two_processes),
        WITH_DIRECTORY(test_kill_at_any_moment),       WITH_DIRECTORY(test_a_ledger_of_version_1_keeps_its_rows),
        WITH_DIRECTORY(test_rows_come_back_whole),     WITH_DIRECTORY(test_old_rows_go),
        WITH_DIRECTORY(test_spending_by_key),          WITH_DIRECTORY(test_a_report_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
