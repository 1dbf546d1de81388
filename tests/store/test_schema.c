/* Files of older versions are brought up to date and keep their rows. */
#include "db_bed.h"

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
    assert_int_equal(ask("PRAGMA user_version") >= 3, 1);
    assert_int_equal(ask("SELECT count(*) FROM ledger"), 4);
    assert_int_equal(ask("SELECT cost_nano FROM ledger WHERE request_id = 'a'"), 450000);
    assert_int_equal(ask("SELECT saved_nano FROM ledger WHERE request_id = 'a'"), 12000);
    assert_int_equal(ask("SELECT saved_nano FROM ledger WHERE request_id = 'c'"), 450000);
    assert_int_equal(ask("SELECT cost_nano + saved_nano FROM ledger WHERE request_id = 'b'"), 0);
    assert_int_equal(ask("SELECT cost_nano FROM ledger WHERE request_id = 'req-7'"), 123);
    assert_int_equal(ask("SELECT prompt_tokens + completion_tokens + cached_tokens + counted FROM ledger WHERE"
                         " request_id = 'a'"),
                     13);
    assert_int_equal(
        ask("SELECT attempt + reasoning_tokens + searches + (tier = '') FROM ledger WHERE request_id = 'a'"), 1);
    assert_whole();
}

/* What version 2 had in place of version 1. */
static const char version_2[] =
    "ALTER TABLE ledger RENAME COLUMN cost_micro TO cost_nano; ALTER TABLE ledger RENAME COLUMN saved_micro TO "
    "saved_nano;"
    "ALTER TABLE ledger ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN write_5m INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN write_1h INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN audio_in INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN audio_out INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN image_in INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN searches INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE ledger ADD COLUMN tier TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE ledger ADD COLUMN key_group TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE ledger ADD COLUMN upstream_model TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE ledger ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX ledger_key ON ledger(key, time_us); PRAGMA user_version = 2; DELETE FROM ledger;"
    /* not in order of time, and 3000 in one microsecond: more than there are ids in it */
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
    " INSERT INTO ledger(time_us, request_id, key, model, stage, backend, prompt_tokens, completion_tokens,"
    " cached_tokens, counted, cost_nano, saved_nano, queue_us, first_us, total_us, stream, outcome, status, searches,"
    " tier, key_group, upstream_model) SELECT CASE WHEN i <= 3000 THEN 5000000 ELSE 9000000 - i END, 'r' || i, 'k',"
    " 'm', 'answer', 'b', i, 2, 3, 0, 4, 5, 6, 7, 8, 1, 'ok', 200, 9, 'flex', 'g', 'u' FROM n;"
    "INSERT INTO ledger(time_us, request_id, key, model, stage, backend, prompt_tokens, completion_tokens,"
    " cached_tokens, counted, cost_nano, saved_nano, queue_us, first_us, total_us, stream, outcome, status)"
    " VALUES(-5, 'early', '', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', 0),"
    " (9223372036854775807, 'late', '', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', 0);";

static void test_a_file_of_version_2_keeps_its_rows(void **state) {
    (void)state;
    err e = {0};
    run_sql(version_1);
    run_sql(version_2);
    sqlite3      *c;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c,
                                        "INSERT INTO cache(key, space, model, created_us, expires_us, prompt_tokens,"
                                        " completion_tokens, bytes, body) VALUES(?, 'space', 'm', ?, ?, ?, ?, 0, ?)",
                                        -1, &s, NULL),
                     SQLITE_OK);
    for (int i = 0; i < 600; i++) {
        cached *a = answer_of(i, 50, 60000000);
        sqlite3_bind_blob(s, 1, a->key.bytes, sizeof a->key.bytes, SQLITE_STATIC);
        sqlite3_bind_int64(s, 2, a->created_us);
        sqlite3_bind_int64(s, 3, a->expires_us);
        sqlite3_bind_int(s, 4, i);
        sqlite3_bind_int(s, 5, 2 * i);
        sqlite3_bind_blob(s, 6, a->body, (int)a->len, SQLITE_STATIC);
        assert_int_equal(sqlite3_step(s), SQLITE_DONE);
        sqlite3_reset(s);
        cached_release(a);
    }
    sqlite3_finalize(s);
    sqlite3_close(c);

    db    *d = open_db();
    cache *into = cache_new(1 << 20, NULL);
    assert_int_equal(db_cache_load(d, into, &e), 600);
    assert_true(has(into, 0) && has(into, 255) && has(into, 256) && has(into, 599));
    cache_free(into);
    db_close(d);
    assert_parts();
    assert_whole();
    assert_int_equal(ask("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name GLOB '*_2'"), 0);
    c = ledger_open(path, &e);
    assert_non_null(c);
    int64_t sum[5] = {[4] = INT64_MIN};
    assert_true(ledger_rows(c, 0, INT64_MAX, count_row, sum, &e));
    assert_int_equal(sum[0], 4002);
    assert_int_equal(sum[1], 4000);
    assert_int_equal(sum[2], 4000 * 4001 / 2);
    assert_int_equal(sum[3], 4002); /* in order of time */
    int64_t some[5] = {0};
    assert_true(ledger_rows(c, 9000000 - 3500, 9000000 - 3000, count_row, some, &e));
    assert_int_equal(some[0], 500);
    sqlite3_close(c);
}

int main(void) {
    log_setup(LOG_OFF, false);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_ledger_of_version_1_keeps_its_rows, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(test_a_file_of_version_2_keeps_its_rows, make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
