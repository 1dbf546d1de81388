/* db.c - pare.db opened and closed, and the doors to its two threads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/thread.h"
#include "store/db_parts.h"

#define MAX_PUT_BYTES (64 << 20)
#define CACHE_LIMIT   (1LL << 30)
#define ENOUGH        1024 /* wishes that need not wait for more: the cost of a commit is small beside them */

/* ---- open, close ---- */

char *db_file_of(const char *path) {
    struct stat at;
    char       *file = NULL;
    bool        directory = stat(path, &at) == 0 && S_ISDIR(at.st_mode);
    return asprintf(&file, "%s%s", path, directory ? "/pare.db" : "") < 0 ? NULL : file;
}

static bool open_parts(db *d, const char *path, err *e) {
    d->path = db_file_of(path);
    d->ops = queue_new(NULL, NULL);
    d->asks = queue_new(NULL, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* setting the date does not stretch a wait */
    pthread_cond_init(&d->kick, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&d->lock, NULL);
    if (!d->path || !d->ops || !d->asks) {
        return err_set(e, ERR_MEMORY, "Out of memory for the database.");
    }
    atomic_init(&d->cache_limit, CACHE_LIMIT);
    d->connection = db_connect(d->path, true, e);
    if (!d->connection || !writer_prepare(d, e)) {
        return false;
    }
    d->writing = thread_start(&d->writer, writer_run, d, "the database's writer", e);
    d->reading = d->writing && thread_start(&d->reader, reader_run, d, "the database's reader", e);
    return d->reading || err_prefix(e, "%s", d->path);
}

db *db_open(const char *path, err *e) {
    db *d = calloc(1, sizeof *d);
    if (!d) {
        err_set(e, ERR_MEMORY, "Out of memory for the database.");
        return NULL;
    }
    if (!open_parts(d, path, e)) {
        db_close(d);
        return NULL;
    }
    return d;
}

void db_close(db *d) {
    if (!d) {
        return;
    }
    atomic_store(&d->closing, true);
    if (d->reading) {
        queue_put(d->asks, &d->last_ask);
        pthread_join(d->reader, NULL);
    }
    if (d->writing) {
        queue_put(d->ops, &d->last_op);
        db_kick(d);
        pthread_join(d->writer, NULL);
    }
    if (d->asks) {
        ask_refuse_all(d);
    }
    for (int i = 0; i < SQL_COUNT; i++) {
        sqlite3_finalize(d->sql[i]);
    }
    sqlite3_close(d->connection);
    pthread_cond_destroy(&d->kick);
    pthread_mutex_destroy(&d->lock);
    queue_free(d->ops);
    queue_free(d->asks);
    free(d->path);
    free(d);
}

/* ---- wishes ---- */

static op *new_op(db *d, op_kind kind, size_t text) {
    op *o = malloc(sizeof *o + text);
    if (!o) {
        atomic_fetch_add(kind == OP_LEDGER ? &d->rows_dropped : &d->cache_dropped, 1);
        log_error("out of memory for a row of the database; it is dropped");
        return NULL;
    }
    o->kind = kind;
    return o;
}

void db_kick(db *d) {
    pthread_mutex_lock(&d->lock);
    d->kicked = true;
    pthread_cond_signal(&d->kick);
    pthread_mutex_unlock(&d->lock);
}

static void put_op(db *d, op *o) {
    queue_put(d->ops, &o->item);
    if (atomic_fetch_add(&d->queued, 1) + 1 == ENOUGH) {
        db_kick(d);
    }
}

void db_ledger(db *d, const ledger_row *row) {
    op *o = new_op(d, OP_LEDGER, ledger_text_bytes(row));
    if (o) {
        ledger_pack(o, row);
        atomic_fetch_add(&d->rows_waiting, 1);
        put_op(d, o);
    }
}

void db_ledger_keep(db *d, int64_t us) {
    atomic_store(&d->ledger_keep_us, us);
}

void db_cache_put(db *d, const cached *e) {
    if (atomic_load(&d->put_bytes) + (long long)e->len > MAX_PUT_BYTES) {
        atomic_fetch_add(&d->cache_dropped, 1);
        return;
    }
    op *o = new_op(d, OP_CACHE_PUT, 0);
    if (o) {
        o->put = cached_hold(e);
        atomic_fetch_add(&d->put_bytes, (long long)e->len);
        put_op(d, o);
    }
}

void db_cache_remove(db *d, const sha256 *key) {
    op *o = new_op(d, OP_CACHE_REMOVE, 0);
    if (o) {
        o->remove = *key;
        put_op(d, o);
    }
}

void db_cache_purge(db *d, const char *model, const char *space) {
    size_t model_size = model ? strlen(model) + 1 : 1, space_size = space ? strlen(space) + 1 : 1;
    op    *o = new_op(d, OP_CACHE_PURGE, model_size + space_size);
    if (o) {
        o->purge.any_model = !model;
        o->purge.any_space = !space;
        memcpy(o->text, model ? model : "", model_size);
        memcpy(o->text + model_size, space ? space : "", space_size);
        put_op(d, o);
    }
}

void db_cache_limit(db *d, int64_t bytes) {
    atomic_store(&d->cache_limit, bytes);
}

void db_stats_read(const db *d, db_stats *out) {
    *out = (db_stats){.rows_written = atomic_load(&d->rows_written),
                      .rows_waiting = atomic_load(&d->rows_waiting),
                      .rows_dropped = atomic_load(&d->rows_dropped),
                      .commits = atomic_load(&d->commits),
                      .failures = atomic_load(&d->failures),
                      .cache_dropped = atomic_load(&d->cache_dropped)};
}
