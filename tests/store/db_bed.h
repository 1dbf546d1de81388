/* db_bed.h - a pare.db of a test's own: rows to put into it, and plain questions to the file. */
#ifndef PARE_TESTS_STORE_DB_BED_H
#define PARE_TESTS_STORE_DB_BED_H

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

static inline int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/pare-test-db-XXXXXX");
    if (!mkdtemp(directory)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/pare.db", directory);
    return 0;
}

static inline int remove_directory(void **state) {
    (void)state;
    static const char *const names[] = {"", "-wal", "-shm", "-journal"};
    char                     file[128];
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s%s", path, names[i]);
        unlink(file);
    }
    return rmdir(directory);
}

static inline ledger_row row_of(int64_t i) {
    ledger_row r = {.time_us = clock_wall_us(), .prompt_tokens = 10, .completion_tokens = 5, .total_us = i};
    snprintf(r.id, sizeof r.id, "req-%lld", (long long)i);
    strcpy(r.model, "m");
    strcpy(r.stage, "answer");
    strcpy(r.backend, "local:m");
    strcpy(r.outcome, "ok");
    r.status = 200;
    return r;
}

static inline cached *answer_of(int i, size_t body, int64_t ttl_us) {
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

static inline void put(db *d, int i, size_t body, int64_t ttl_us) {
    cached *e = answer_of(i, body, ttl_us);
    db_cache_put(d, e);
    cached_release(e);
}

static inline db *open_db(void) {
    err e = {0};
    db *d = db_open(path, &e);
    if (!d) {
        fail_msg("%s", e.text);
    }
    return d;
}

static inline int64_t ask(const char *sql) {
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

static inline void assert_whole(void) {
    sqlite3      *c;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c, "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
    sqlite3_finalize(s);
    sqlite3_close(c);
}

/* What is known of the parts of the cache is what a plain reckoning says. */
static inline void assert_parts(void) {
    assert_int_equal(ask("SELECT count(*) FROM (SELECT id / 256 AS part, sum(length(body) + 256) AS n,"
                         " min(expires_us) AS soonest FROM cache GROUP BY 1) LEFT JOIN cache_part p ON p.id = part"
                         " WHERE p.bytes IS NOT n OR p.soonest_us IS NOT soonest"),
                     0);
    assert_int_equal(ask("SELECT count(*) FROM cache_part WHERE id NOT IN (SELECT id / 256 FROM cache)"), 0);
}

static inline bool has(cache *c, int i) {
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

static inline void wait_written(db *d, int64_t rows) {
    db_stats s = {0};
    for (int i = 0; i < 500 && s.rows_written < rows; i++) {
        usleep(10000);
        db_stats_read(d, &s);
    }
    assert_int_equal(s.rows_written, rows);
}

static inline bool count_row(void *ctx, const ledger_row *row, err *e) {
    int64_t *n = ctx;
    (void)e;
    n[0]++;
    n[1] += row->searches == 9 && strcmp(row->group, "g") == 0 && strcmp(row->upstream, "u") == 0 &&
            row->completion_tokens == 2 && row->total_us == 8 && row->stream && strcmp(row->tier, "flex") == 0;
    n[2] += row->prompt_tokens;
    n[3] += row->time_us >= n[4];
    n[4] = row->time_us;
    return true;
}

#endif
