/* cache_rows.c - stored answers at rest: written, purged, swept, and read back at start. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/db_parts.h"

#define ROW_BYTES 256 /* of a row beside its body, about: key, names, its place in three indexes */
#define PORTIONS  16  /* deletions of one sweep */

static int run(sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s); /* they point into memory that may go now */
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

int cache_rows_put(db *d, const cached *e) {
    sqlite3_stmt *s = d->sql[SQL_CACHE_PUT];
    sqlite3_bind_blob(s, 1, e->key.bytes, sizeof e->key.bytes, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, e->space, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, e->model, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, e->created_us);
    sqlite3_bind_int64(s, 5, e->expires_us);
    sqlite3_bind_int64(s, 6, e->prompt_tokens);
    sqlite3_bind_int64(s, 7, e->completion_tokens);
    sqlite3_bind_int64(s, 8, (int64_t)e->len + ROW_BYTES);
    int code = sqlite3_bind_blob64(s, 9, e->body, e->len, SQLITE_STATIC);
    if (code == SQLITE_OK) {
        code = run(s);
    }
    if (code == SQLITE_OK) {
        d->cache_bytes += (int64_t)e->len + ROW_BYTES;
    }
    return code;
}

int cache_rows_apply(db *d, const op *o) {
    if (o->kind == OP_CACHE_REMOVE) {
        sqlite3_bind_blob(d->sql[SQL_CACHE_REMOVE], 1, o->remove.bytes, sizeof o->remove.bytes, SQLITE_STATIC);
        return run(d->sql[SQL_CACHE_REMOVE]);
    }
    if (o->purge.any_model && o->purge.any_space) {
        return run(d->sql[SQL_CACHE_CLEAR]);
    }
    sqlite3_stmt *s = d->sql[SQL_CACHE_PURGE];
    if (!o->purge.any_model) {
        sqlite3_bind_text(s, 1, o->purge.model, -1, SQLITE_STATIC);
    }
    if (!o->purge.any_space) {
        sqlite3_bind_text(s, 2, o->purge.space, -1, SQLITE_STATIC);
    }
    return run(s);
}

/* ---- the sweep ---- */

static int64_t bytes_at_rest(db *d) {
    sqlite3_stmt *s = d->sql[SQL_CACHE_BYTES];
    int64_t       bytes = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return bytes;
}

/* Each deletion is a transaction of its own: whatever fails here is tried again at the next sweep. */
bool cache_rows_sweep(db *d, int64_t now_us) {
    int expired = 0;
    for (int i = 0; i < PORTIONS; i++) {
        sqlite3_bind_int64(d->sql[SQL_CACHE_EXPIRE], 1, now_us);
        if (run(d->sql[SQL_CACHE_EXPIRE]) != SQLITE_OK) {
            return false;
        }
        expired = sqlite3_changes(d->connection);
        if (expired == 0) {
            break;
        }
    }
    /* Our own count only grows between sweeps, and other processes delete too: so sum up anew. */
    int64_t limit = atomic_load(&d->cache_limit);
    d->cache_bytes = bytes_at_rest(d);
    if (d->cache_bytes <= limit) {
        return expired > 0;
    }
    for (int i = 0; i < PORTIONS && d->cache_bytes > limit / 10 * 9; i++) { /* a tenth of air, for the next while */
        if (run(d->sql[SQL_CACHE_OLDEST]) != SQLITE_OK || sqlite3_changes(d->connection) == 0) {
            return false;
        }
        d->cache_bytes = bytes_at_rest(d);
    }
    return d->cache_bytes > limit / 10 * 9;
}

/* ---- reading back ---- */

typedef struct rowids {
    int64_t *at; /* newest first */
    size_t   n, room;
} rowids;

static bool add_rowid(rowids *ids, int64_t id) {
    if (ids->n == ids->room) {
        size_t   room = ids->room ? ids->room * 2 : 1024;
        int64_t *at = realloc(ids->at, room * sizeof *at);
        if (!at) {
            return false;
        }
        ids->at = at;
        ids->room = room;
    }
    ids->at[ids->n++] = id;
    return true;
}

/* The newest rows that fit; the index alone tells. */
static bool choose(sqlite3 *c, size_t most, rowids *ids) {
    sqlite3_stmt *s = NULL;
    const char   *sql = "SELECT rowid, bytes FROM cache WHERE expires_us > ? ORDER BY created_us DESC, rowid DESC";
    if (sqlite3_prepare_v2(c, sql, -1, &s, NULL) != SQLITE_OK) {
        return false;
    }
    sqlite3_bind_int64(s, 1, clock_wall_us());
    size_t total = 0;
    bool   good = true;
    int    code = SQLITE_DONE;
    while (good && (code = sqlite3_step(s)) == SQLITE_ROW) {
        int64_t bytes = sqlite3_column_int64(s, 1);
        total += bytes > 0 ? (size_t)bytes : 0;
        if (total > most) {
            code = SQLITE_DONE;
            break;
        }
        good = add_rowid(ids, sqlite3_column_int64(s, 0));
    }
    sqlite3_finalize(s);
    return good && code == SQLITE_DONE;
}

static void copy_text(char *to, size_t size, sqlite3_stmt *s, int column) {
    const void *text = sqlite3_column_text(s, column);
    size_t      n = text ? (size_t)sqlite3_column_bytes(s, column) : 0;
    n = n < size ? n : size - 1;
    if (n) {
        memcpy(to, text, n);
    }
    to[n] = '\0';
}

/* A row of the wrong shape is passed by: somebody else wrote it. */
static bool load_row(sqlite3_stmt *s, cache *into) {
    const void *key = sqlite3_column_blob(s, 0);
    const void *body = sqlite3_column_blob(s, 7);
    size_t      n = (size_t)sqlite3_column_bytes(s, 7);
    if (!key || !body || sqlite3_column_bytes(s, 0) != (int)sizeof(sha256)) {
        return false;
    }
    cached *e = cached_new(n);
    if (!e) {
        return false;
    }
    memcpy(e->key.bytes, key, sizeof e->key.bytes);
    copy_text(e->space, sizeof e->space, s, 1);
    copy_text(e->model, sizeof e->model, s, 2);
    e->created_us = sqlite3_column_int64(s, 3);
    e->expires_us = sqlite3_column_int64(s, 4);
    e->prompt_tokens = sqlite3_column_int64(s, 5);
    e->completion_tokens = sqlite3_column_int64(s, 6);
    memcpy(e->body, body, n);
    cache_put(into, e);
    cached_release(e);
    return true;
}

/* Oldest of the chosen first, so that the newest is the last to be evicted. */
static int64_t load_rows(sqlite3 *c, const rowids *ids, cache *into) {
    sqlite3_stmt *s = NULL;
    const char   *sql = "SELECT key, space, model, created_us, expires_us, prompt_tokens, completion_tokens, body"
                        " FROM cache WHERE rowid = ?";
    if (sqlite3_prepare_v2(c, sql, -1, &s, NULL) != SQLITE_OK) {
        return -1;
    }
    int64_t loaded = 0;
    for (size_t i = ids->n; i > 0; i--) {
        sqlite3_bind_int64(s, 1, ids->at[i - 1]);
        if (sqlite3_step(s) == SQLITE_ROW) {
            loaded += load_row(s, into);
        }
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    return loaded;
}

int64_t db_cache_load(db *d, cache *into, err *e) {
    cache_stats room;
    cache_stats_read(into, &room);
    sqlite3 *c = db_connect(d->path, false, e);
    if (!c) {
        return -1;
    }
    rowids  ids = {0};
    int64_t loaded = choose(c, room.max_bytes, &ids) ? load_rows(c, &ids, into) : -1;
    if (loaded < 0) {
        db_fail(d->path, c, "read the stored answers", e);
    }
    free(ids.at);
    sqlite3_close(c);
    return loaded;
}
