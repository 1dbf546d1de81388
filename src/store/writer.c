/* writer.c - the one thread that writes: it gathers wishes for a moment and commits them together.
 *
 * What cannot be written now (disk full, locked by another process) stays in order and is tried again every second; the
 * log says so once a minute. Only a row that can never be written is dropped.                                       */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/db_parts.h"

#define GATHER_US      100000 /* how long a row may wait for company */
#define GATHER_STEP_US 10000
#define GATHER_COUNT   512
#define BATCH          2048 /* wishes in one transaction, so that other processes get their turn */
#define RETRY_US       1000000
#define RETRY_CLOSING  3
#define COMPLAIN_US    60000000
#define MAX_PENDING    500000 /* about 450 MB of rows */
#define SWEEP_US       30000000

static const char *const texts[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_LEDGER] = "INSERT INTO ledger(time_us, request_id, key, key_group, model, stage, backend, upstream_model,"
                   " tier, outcome, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, write_5m,"
                   " write_1h, audio_in, audio_out, image_in, searches, counted, attempt, cost_nano, saved_nano,"
                   " queue_us, first_us, total_us, stream, status)"
                   " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [SQL_LEDGER_EXPIRE] = "DELETE FROM ledger WHERE id IN (SELECT id FROM ledger WHERE time_us < ? ORDER BY time_us"
                          " LIMIT 256)",
    [SQL_CACHE_PUT] = "INSERT OR REPLACE INTO cache(key, space, model, created_us, expires_us, prompt_tokens,"
                      " completion_tokens, bytes, body) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [SQL_CACHE_REMOVE] = "DELETE FROM cache WHERE key = ?",
    [SQL_CACHE_PURGE] = "DELETE FROM cache WHERE (?1 IS NULL OR model = ?1) AND (?2 IS NULL OR space = ?2)",
    [SQL_CACHE_CLEAR] = "DELETE FROM cache", /* without a condition SQLite empties the table page by page */
    [SQL_CACHE_EXPIRE] = "DELETE FROM cache WHERE rowid IN (SELECT rowid FROM cache WHERE expires_us <= ? ORDER BY "
                         "expires_us LIMIT 256)",
    [SQL_CACHE_BYTES] = "SELECT total(bytes) FROM cache",
    [SQL_CACHE_OLDEST] = "DELETE FROM cache WHERE rowid IN (SELECT rowid FROM cache ORDER BY created_us LIMIT 64)",
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

bool writer_prepare(db *d, err *e) {
    for (int i = 0; i < SQL_COUNT; i++) {
        if (sqlite3_prepare_v3(d->connection, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &d->sql[i], NULL) != SQLITE_OK) {
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

static int write_row(db *d, const ledger_row *r) {
    sqlite3_stmt *s = d->sql[SQL_LEDGER];
    const char   *words[] = {r->id, r->key, r->group, r->model, r->stage, r->backend, r->upstream, r->tier, r->outcome};
    int64_t       numbers[] = {
              r->prompt_tokens, r->completion_tokens, r->cached_tokens, r->reasoning_tokens, r->write_5m, r->write_1h,
              r->audio_in,      r->audio_out,         r->image_in,      r->searches,         r->counted,  r->attempt,
              r->cost_nano,     r->saved_nano,        r->queue_us,      r->first_us,         r->total_us, r->stream,
              r->status};
    int at = 1;
    sqlite3_bind_int64(s, at++, r->time_us);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        sqlite3_bind_text(s, at++, words[i], -1, SQLITE_STATIC);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sqlite3_bind_int64(s, at++, numbers[i]);
    }
    return run(s);
}

static int write_op(db *d, const op *o) {
    switch (o->kind) {
    case OP_LEDGER:
        return write_row(d, &o->row);
    case OP_CACHE_PUT:
        return cache_rows_put(d, o->put);
    case OP_CACHE_REMOVE:
    case OP_CACHE_PURGE:
        return cache_rows_apply(d, o);
    case OP_TURN_PUT:
    case OP_TURN_DELETE:
    case OP_ASK:
        return turn_rows_apply(d, o);
    }
    return SQLITE_OK;
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

static bool never(int code) { /* this row will not be written tomorrow either */
    code &= 0xFF;
    return code == SQLITE_TOOBIG || code == SQLITE_CONSTRAINT || code == SQLITE_MISMATCH || code == SQLITE_RANGE;
}

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

static bool give_up(db *d) {
    complain(d);
    turn_release_asks(d);
    if (!sqlite3_get_autocommit(d->connection)) { /* some errors have rolled back by themselves */
        run(d->sql[SQL_ROLLBACK]);
    }
    return false;
}

/* Commits the first wishes; they leave the list only once they are safe. */
static bool write_batch(db *d) {
    if (run(d->sql[SQL_BEGIN]) != SQLITE_OK) {
        return give_up(d);
    }
    int     count = 0;
    int64_t rows = 0;
    for (op *o = d->first; o && count < BATCH; o = (op *)o->item.next, count++) {
        int code = write_op(d, o);
        if (code != SQLITE_OK && !never(code)) {
            return give_up(d);
        }
        if (code != SQLITE_OK) {
            log_error("%s: a row cannot be written and is dropped: %s", d->path, sqlite3_errmsg(d->connection));
            atomic_fetch_add(o->kind == OP_LEDGER ? &d->rows_dropped : &d->cache_dropped, 1);
        } else {
            rows += o->kind == OP_LEDGER;
        }
    }
    if (run(d->sql[SQL_COMMIT]) != SQLITE_OK) {
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

/* Waits for the first wish, or for the next sweep; then for company. Sleeping in steps instead of waiting on the queue
 * keeps it from waking this thread for every single row. */
static void gather(db *d, bool *stop) {
    int64_t wait = d->next_sweep_us - clock_us();
    append(d, queue_wait_all(d->ops, d->first ? 0 : wait > 0 ? wait : 0), stop);
    if (!d->first || *stop) {
        return;
    }
    for (int64_t us = 0; us < GATHER_US && !atomic_load(&d->closing); us += GATHER_STEP_US) {
        if (atomic_exchange(&d->hurry, false) || d->n_pending + (int64_t)queue_count(d->ops) >= GATHER_COUNT) {
            break;
        }
        usleep(GATHER_STEP_US);
    }
    append(d, queue_take_all(d->ops), stop);
}

/* A small portion of the rows that are older than they are kept; true when there is more to do. */
static bool expire_rows(db *d) {
    int64_t keep_us = atomic_load(&d->ledger_keep_us);
    if (keep_us <= 0) {
        return false;
    }
    sqlite3_bind_int64(d->sql[SQL_LEDGER_EXPIRE], 1, clock_wall_us() - keep_us);
    return run(d->sql[SQL_LEDGER_EXPIRE]) == SQLITE_OK && sqlite3_changes(d->connection) > 0;
}

static void sweep(db *d) {
    int64_t now = clock_us();
    if (now >= d->next_sweep_us || d->cache_bytes > atomic_load(&d->cache_limit)) {
        bool more = cache_rows_sweep(d, clock_wall_us());
        more = turn_rows_sweep(d, clock_wall_us()) || more;
        more = expire_rows(d) || more;
        d->next_sweep_us = now + (more ? GATHER_STEP_US : SWEEP_US);
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
