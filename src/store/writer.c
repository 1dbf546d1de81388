/* writer.c - the one thread that writes: it gathers wishes for a moment and commits them together.
 *
 * What cannot be written now (disk full, locked by another process) stays in order and is tried again every second; the
 * log says so once a minute. Only a row that can never be written is dropped.                                       */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/db_parts.h"

#define GATHER_US      250000 /* how long a row may wait for company */
#define SWEEP_AGAIN_US 10000  /* where one portion was not all */
#define RETRY_US       1000000
#define RETRY_CLOSING  3
#define COMPLAIN_US    60000000
#define MAX_PENDING    500000 /* about 160 MB of rows */
#define SWEEP_US       30000000

/* ROLLBACK: undoing one statement of many rows would take a copy of each page before it; the batch begins anew instead. */
#define LEDGER_INSERT(or)                                                                                              \
    "INSERT " or                                                                                                       \
        " INTO ledger(id, time_us, request_id, key, key_group, model, stage, backend, upstream_model, tier, "          \
        "outcome,"                                                                                                     \
        " prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, write_5m, write_1h, audio_in, audio_out," \
        " image_in, searches, counted, attempt, cost_nano, saved_nano, queue_us, first_us, total_us, stream, status)"
#define CACHE_INSERT(or)                                                                                               \
    "INSERT " or " INTO cache(key, space, model, created_us, expires_us, prompt_tokens, completion_tokens, body)"
#define IN_PART "id BETWEEN ?1 * 256 AND ?1 * 256 + 255" /* CACHE_PART */

static const char *const texts[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_LEDGER] = LEDGER_INSERT(""),
    [SQL_LEDGER_MANY] = LEDGER_INSERT("OR ROLLBACK"),
    [SQL_LEDGER_EXPIRE] = "DELETE FROM ledger WHERE id IN (SELECT id FROM ledger WHERE id < ? ORDER BY id LIMIT 256)",
    [SQL_CACHE_PUT] = CACHE_INSERT(""),
    [SQL_CACHE_PUT_MANY] = CACHE_INSERT("OR ROLLBACK"),
    [SQL_CACHE_REMOVE] = "DELETE FROM cache WHERE key = ?",
    [SQL_CACHE_PURGE] = "DELETE FROM cache WHERE (?1 IS NULL OR model = ?1) AND (?2 IS NULL OR space = ?2)",
    [SQL_CACHE_CLEAR] = "DELETE FROM cache", /* without a condition SQLite empties the table page by page */
    [SQL_CACHE_EXPIRE] = "DELETE FROM cache WHERE " IN_PART " AND expires_us <= ?2",
    [SQL_CACHE_SHRINK] = "DELETE FROM cache WHERE id IN (SELECT id FROM cache WHERE " IN_PART " ORDER BY id LIMIT 64)",
    [SQL_CACHE_BYTES] = "SELECT total(bytes) FROM cache_part",
    [SQL_PART_ADD] = "INSERT INTO cache_part(id, bytes, soonest_us) VALUES(?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
                     " bytes = bytes + excluded.bytes, soonest_us = min(soonest_us, excluded.soonest_us)",
    [SQL_PART_NEXT] = "SELECT id FROM cache_part WHERE id >= ? ORDER BY id LIMIT 1",
    [SQL_PART_DUE] = "SELECT id FROM cache_part WHERE soonest_us <= ? ORDER BY id LIMIT 1",
    [SQL_PART_FORGET] = "DELETE FROM cache_part WHERE id = ?",
    [SQL_PART_COUNT] =
        "INSERT INTO cache_part(id, bytes, soonest_us) SELECT ?1, sum(length(body) + " CACHE_ROW_BYTES_SQL
        "), min(expires_us) FROM cache WHERE " IN_PART " HAVING count(*) > 0",
    [SQL_PART_CLEAR] = "DELETE FROM cache_part",
    [SQL_TURN_PUT] = "INSERT OR IGNORE INTO conversations(id, owner, previous, created_us, expires_us, bytes, input,"
                     " response) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
    /* ?3: until when, ?4: who lives that long need not be prolonged, nor who comes before */
    [SQL_TURN_PROLONG] =
        "WITH RECURSIVE chain(id, n) AS (VALUES(?1, 1) UNION ALL SELECT c.previous, chain.n + 1 FROM chain JOIN"
        " conversations c ON c.id = chain.id WHERE c.owner = ?2 AND c.expires_us < ?4 AND c.previous IS NOT NULL AND"
        " chain.n < ?5) UPDATE conversations SET expires_us = ?3 WHERE id IN (SELECT id FROM chain) AND owner = ?2 AND"
        " expires_us < ?4",
    [SQL_TURN_DELETE] = "DELETE FROM conversations WHERE id = ? AND owner = ?",
    [SQL_TURN_EXPIRE] =
        "DELETE FROM conversations WHERE rowid IN (SELECT rowid FROM conversations WHERE expires_us <= ?"
        " ORDER BY expires_us LIMIT 16)",
    [SQL_TURN_BYTES] = "SELECT total(bytes) FROM conversations",
};

/* The statements that insert, with the places of their rows; one row where it is not said. */
static const struct {
    int columns, rows;
} places[SQL_COUNT] = {
    [SQL_LEDGER] = {LEDGER_COLUMNS, 1},
    [SQL_LEDGER_MANY] = {LEDGER_COLUMNS, LEDGER_ROWS},
    [SQL_CACHE_PUT] = {CACHE_COLUMNS, 1},
    [SQL_CACHE_PUT_MANY] = {CACHE_COLUMNS, CACHE_ROWS},
};

static bool prepare(db *d, int i, str *sql) {
    str_adds(sql, texts[i]);
    for (int row = 0; row < places[i].rows; row++) {
        str_adds(sql, row ? ", (?" : " VALUES(?");
        for (int column = 1; column < places[i].columns; column++) {
            str_adds(sql, ", ?");
        }
        str_addc(sql, ')');
    }
    return !sql->failed &&
           sqlite3_prepare_v3(d->connection, sql->data, -1, SQLITE_PREPARE_PERSISTENT, &d->sql[i], NULL) == SQLITE_OK;
}

bool writer_prepare(db *d, err *e) {
    d->id_salt = (unsigned)clock_us();
    for (int i = 0; i < SQL_COUNT; i++) {
        str  sql = {0};
        bool good = prepare(d, i, &sql);
        str_free(&sql);
        if (!good) {
            return db_fail(d->path, d->connection, "use it", e);
        }
    }
    return true;
}

static int run(sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    sqlite3_reset(s);
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

/* ---- one wish ---- */

/* Is it the row that is wrong, so that it can never be written? */
static bool is_of_row(int code) {
    code &= 0xFF;
    return code == SQLITE_TOOBIG || code == SQLITE_CONSTRAINT || code == SQLITE_MISMATCH || code == SQLITE_RANGE;
}

bool writer_drops(db *d, op_kind kind, int code) {
    if (!is_of_row(code)) {
        return false;
    }
    log_error("%s: a row cannot be written and is dropped: %s", d->path, sqlite3_errmsg(d->connection));
    atomic_fetch_add(kind == OP_LEDGER ? &d->rows_dropped : &d->cache_dropped, 1);
    return true;
}

static int write_op(db *d, const op *o) {
    if (o->kind < OP_TURN_PUT) {
        return cache_rows_apply(d, o);
    }
    int code = turn_rows_apply(d, o);
    return code == SQLITE_OK || writer_drops(d, o->kind, code) ? SQLITE_OK : code;
}

/* The ledger's rows are set apart and written together: nothing that was asked for between them changes them. */
static int write_ops(db *d, int count, int64_t *rows) {
    int code = SQLITE_OK, n = 0, i = 0;
    cache_rows_begin(d);
    for (op *o = d->first; code == SQLITE_OK && i < count; o = (op *)o->item.next, i++) {
        if (o->kind == OP_LEDGER) {
            d->rows[n++] = o;
        } else {
            code = write_op(d, o);
        }
    }
    code = code == SQLITE_OK ? cache_rows_finish(d) : code;
    return code == SQLITE_OK ? ledger_write(d, d->rows, n, rows) : code;
}

static void free_op(db *d, op *o) {
    if (o->kind == OP_LEDGER) {
        atomic_fetch_sub(&d->rows_waiting, 1);
    } else if (o->kind == OP_CACHE_PUT) {
        atomic_fetch_sub(&d->put_bytes, (long long)o->put->len);
        cached_release(o->put);
    } else if (o->kind >= OP_TURN_PUT) {
        turn_free_op(d, o);
    }
    free(o);
}

/* ---- a batch ---- */

static void complain(db *d) {
    int64_t now = clock_us();
    atomic_fetch_add(&d->failures, 1);
    if (d->complained_us && now - d->complained_us < COMPLAIN_US) {
        return;
    }
    d->complained_us = now;
    err why;
    db_fail(d->path, d->connection, "write to it", &why);
    log_error("%s %lld rows wait in memory and are tried again every second.", why.text,
              (long long)atomic_load(&d->rows_waiting));
}

static void roll_back(db *d) {
    if (!sqlite3_get_autocommit(d->connection)) { /* some errors have rolled back by themselves */
        run(d->sql[SQL_ROLLBACK]);
    }
}

static bool give_up(db *d) {
    complain(d);
    turn_release_asks(d);
    roll_back(d);
    return false;
}

static int try_batch(db *d, int count, bool many, int64_t *rows) {
    d->many = many;
    *rows = 0;
    int code = run(d->sql[SQL_BEGIN]);
    code = code == SQLITE_OK ? write_ops(d, count, rows) : code;
    return code == SQLITE_OK ? run(d->sql[SQL_COMMIT]) : code;
}

/* Commits the first wishes; they leave the list only once they are safe. */
static bool write_batch(db *d) {
    int     count = d->n_pending < DB_BATCH ? (int)d->n_pending : DB_BATCH;
    int64_t rows = 0;
    int     code = try_batch(d, count, true, &rows);
    if (is_of_row(code)) {
        roll_back(d); /* once more, each row by itself, to find the one */
        code = try_batch(d, count, false, &rows);
    }
    if (code != SQLITE_OK) {
        return give_up(d);
    }
    for (; count > 0; count--) {
        op *next = (op *)d->first->item.next;
        free_op(d, d->first);
        d->first = next;
        d->n_pending--;
    }
    d->last = d->first ? d->last : NULL;
    atomic_fetch_add(&d->rows_written, rows);
    atomic_fetch_add(&d->commits, 1);
    return true;
}

/* ---- the list of what is pending ---- */

static void append(db *d, queue_item *chain, bool *stop) {
    while (chain) {
        op *o = (op *)chain;
        chain = chain->next;
        if (&o->item == &d->last_op) {
            *stop = true;
            continue;
        }
        o->item.next = NULL;
        if (d->last) {
            d->last->item.next = &o->item;
        } else {
            d->first = o;
        }
        d->last = o;
        d->n_pending++;
    }
}

/* Drops the oldest wishes until `most` are left. */
static void bound(db *d, int64_t most, const char *why) {
    int64_t dropped = 0;
    for (; d->first && d->n_pending > most; d->n_pending--) {
        op *o = d->first;
        d->first = (op *)o->item.next;
        atomic_fetch_add(o->kind == OP_LEDGER ? &d->rows_dropped : &d->cache_dropped, 1);
        free_op(d, o);
        dropped++;
    }
    d->last = d->first ? d->last : NULL;
    if (dropped > 0) {
        log_error("%s: %lld rows are lost: %s", d->path, (long long)dropped, why);
    }
}

/* Not on the queue, which would wake this thread for every single row. */
static void wait_for_company(db *d) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += GATHER_US * 1000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&d->lock);
    while (!d->kicked && pthread_cond_timedwait(&d->kick, &d->lock, &until) == 0) {
    }
    d->kicked = false;
    pthread_mutex_unlock(&d->lock);
}

/* Waits for the first wish, or for the next sweep; then for company. */
static void gather(db *d, bool *stop) {
    int64_t wait = d->next_sweep_us - clock_us();
    append(d, queue_wait_all(d->ops, d->first ? 0 : wait > 0 ? wait : 0), stop);
    if (!d->first || *stop) {
        return;
    }
    if (d->n_pending < DB_BATCH) {
        wait_for_company(d);
    }
    atomic_store(&d->queued, 0);
    append(d, queue_take_all(d->ops), stop);
}

/* A small portion of the rows that are older than they are kept; true when there is more to do. */
static bool expire_rows(db *d) {
    int64_t keep_us = atomic_load(&d->ledger_keep_us);
    if (keep_us <= 0) {
        return false;
    }
    sqlite3_bind_int64(d->sql[SQL_LEDGER_EXPIRE], 1, ledger_id(clock_wall_us() - keep_us));
    return run(d->sql[SQL_LEDGER_EXPIRE]) == SQLITE_OK && sqlite3_changes(d->connection) > 0;
}

static void sweep(db *d) {
    int64_t now = clock_us();
    if (now >= d->next_sweep_us || d->cache_bytes > atomic_load(&d->cache_limit)) {
        bool more = cache_rows_sweep(d, clock_wall_us());
        more = turn_rows_sweep(d, clock_wall_us()) || more;
        more = expire_rows(d) || more;
        d->next_sweep_us = now + (more ? SWEEP_AGAIN_US : SWEEP_US);
    }
}

void *writer_run(void *arg) {
    db  *d = arg;
    bool stop = false;
    int  attempts = 0;
    while (!stop || d->first) {
        gather(d, &stop);
        if (d->first && !write_batch(d)) {
            bound(d, MAX_PENDING, "the disk could not take them in time");
            stop = stop || atomic_load(&d->closing);
            if (stop && ++attempts >= RETRY_CLOSING) {
                bound(d, 0, "the database cannot be written and pare is closing");
                break;
            }
            usleep(stop ? RETRY_US / 10 : RETRY_US);
            continue;
        }
        attempts = 0;
        if (!stop) {
            sweep(d);
        }
    }
    append(d, queue_take_all(d->ops), &stop);
    bound(d, 0, "pare is closing");
    return NULL;
}
