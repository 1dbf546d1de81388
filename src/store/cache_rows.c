/* cache_rows.c - stored answers at rest: written, purged, swept, and read back at start. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/db_parts.h"

#define PORTIONS 16 /* deletions of one sweep */

static int run(sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    sqlite3_reset(s);
    return code == SQLITE_DONE || code == SQLITE_ROW ? SQLITE_OK : code;
}

static int run_with(sqlite3_stmt *s, int64_t first) {
    sqlite3_bind_int64(s, 1, first);
    return run(s);
}

/* ---- parts: how large, and when the first of its rows expires ---- */

static int flush_part(db *d) {
    if (d->part.bytes == 0) {
        return SQLITE_OK;
    }
    sqlite3_stmt *s = d->sql[SQL_PART_ADD];
    sqlite3_bind_int64(s, 2, d->part.bytes);
    sqlite3_bind_int64(s, 3, d->part.soonest_us);
    d->part.bytes = 0;
    return run_with(s, d->part.id);
}

static int add_to_part(db *d, int64_t row, const cached *e) {
    int     code = SQLITE_OK;
    int64_t id = row / CACHE_PART, bytes = (int64_t)e->len + CACHE_ROW_BYTES;
    if (d->part.bytes > 0 && d->part.id != id) {
        code = flush_part(d);
    }
    bool first = d->part.bytes == 0;
    d->part.id = id;
    d->part.bytes += bytes;
    d->part.soonest_us = first || e->expires_us < d->part.soonest_us ? e->expires_us : d->part.soonest_us;
    d->cache_bytes += bytes;
    return code;
}

/* Anew, after rows of it were deleted. */
static int count_part(db *d, int64_t id) {
    int code = run_with(d->sql[SQL_PART_FORGET], id);
    return code == SQLITE_OK ? run_with(d->sql[SQL_PART_COUNT], id) : code;
}

/* The first part that the statement finds from `from` on. */
static bool find_part(sqlite3_stmt *s, int64_t from, int64_t *id) {
    sqlite3_bind_int64(s, 1, from);
    bool found = sqlite3_step(s) == SQLITE_ROW;
    *id = found ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return found;
}

static int count_all_parts(db *d) {
    int     code = SQLITE_OK;
    int64_t from = INT64_MIN, id;
    while (code == SQLITE_OK && find_part(d->sql[SQL_PART_NEXT], from, &id)) {
        code = count_part(d, id);
        from = id < INT64_MAX ? id + 1 : INT64_MAX;
        if (id == INT64_MAX) {
            break;
        }
    }
    return code;
}

/* ---- putting ----
 *
 * A row is always added behind the others, also where its key has one already: the newest counts when they are read
 * back, and the older goes when its time comes. So no index of keys is kept, whose pages each new key would dirty at
 * random. */

static void bind_put(sqlite3_stmt *s, int at, const cached *e) {
    sqlite3_bind_blob(s, at, e->key.bytes, sizeof e->key.bytes, SQLITE_STATIC);
    sqlite3_bind_text(s, at + 1, e->space, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, at + 2, e->model, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, at + 3, e->created_us);
    sqlite3_bind_int64(s, at + 4, e->expires_us);
    sqlite3_bind_int64(s, at + 5, e->prompt_tokens);
    sqlite3_bind_int64(s, at + 6, e->completion_tokens);
    sqlite3_bind_blob64(s, at + 7, e->body, e->len, SQLITE_STATIC);
}

static int put_one(db *d, const cached *e) {
    bind_put(d->sql[SQL_CACHE_PUT], 1, e);
    int code = run(d->sql[SQL_CACHE_PUT]);
    if (code == SQLITE_OK) {
        return add_to_part(d, sqlite3_last_insert_rowid(d->connection), e);
    }
    return writer_drops(d, OP_CACHE_PUT, code) ? SQLITE_OK : code;
}

static int put_many(db *d) {
    for (int i = 0; i < CACHE_ROWS; i++) {
        bind_put(d->sql[SQL_CACHE_PUT_MANY], 1 + i * CACHE_COLUMNS, d->puts[i]);
    }
    int     code = run(d->sql[SQL_CACHE_PUT_MANY]);
    int64_t first = sqlite3_last_insert_rowid(d->connection) - CACHE_ROWS + 1; /* each is one more than the largest */
    for (int i = 0; i < CACHE_ROWS && code == SQLITE_OK; i++) {
        code = add_to_part(d, first + i, d->puts[i]);
    }
    return code;
}

static int flush_puts(db *d) {
    bool many = d->many && d->n_puts == CACHE_ROWS;
    int  code = many ? put_many(d) : SQLITE_OK;
    for (int i = 0; !many && i < d->n_puts && code == SQLITE_OK; i++) {
        code = put_one(d, d->puts[i]);
    }
    d->n_puts = 0;
    return code;
}

static int put(db *d, const cached *e) {
    if (cached_gone(e)) {
        return SQLITE_OK; /* replaced or evicted while it waited: nobody would read it back */
    }
    d->puts[d->n_puts++] = e;
    return d->n_puts == CACHE_ROWS ? flush_puts(d) : SQLITE_OK;
}

/* ---- removing ---- */

static int purge(db *d, const op *o) {
    if (o->purge.any_model && o->purge.any_space) {
        int code = run(d->sql[SQL_CACHE_CLEAR]);
        return code == SQLITE_OK ? run(d->sql[SQL_PART_CLEAR]) : code;
    }
    sqlite3_stmt *s = d->sql[SQL_CACHE_PURGE];
    if (!o->purge.any_model) {
        sqlite3_bind_text(s, 1, o->text, -1, SQLITE_STATIC);
    }
    if (!o->purge.any_space) {
        sqlite3_bind_text(s, 2, o->text + strlen(o->text) + 1, -1, SQLITE_STATIC);
    }
    int code = run(s);
    sqlite3_clear_bindings(s); /* what is not bound is any */
    return code == SQLITE_OK && sqlite3_changes(d->connection) > 0 ? count_all_parts(d) : code;
}

static int remove_key(db *d, const op *o) {
    sqlite3_bind_blob(d->sql[SQL_CACHE_REMOVE], 1, o->remove.bytes, sizeof o->remove.bytes, SQLITE_STATIC);
    int code = run(d->sql[SQL_CACHE_REMOVE]);
    return code == SQLITE_OK && sqlite3_changes(d->connection) > 0 ? count_all_parts(d) : code;
}

void cache_rows_begin(db *d) {
    d->n_puts = 0;
    d->part.bytes = 0;
}

int cache_rows_finish(db *d) {
    int code = flush_puts(d);
    return code == SQLITE_OK ? flush_part(d) : code;
}

int cache_rows_apply(db *d, const op *o) {
    if (o->kind == OP_CACHE_PUT) {
        return put(d, o->put);
    }
    int code = cache_rows_finish(d); /* in the order of asking */
    if (code == SQLITE_OK) {
        code = o->kind == OP_CACHE_REMOVE ? remove_key(d, o) : purge(d, o);
    }
    return code;
}

/* ---- the sweep ---- */

static int64_t bytes_at_rest(db *d) {
    sqlite3_stmt *s = d->sql[SQL_CACHE_BYTES];
    int64_t       bytes = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_reset(s);
    return bytes;
}

/* A transaction of its own: whatever fails here is tried again at the next sweep. */
static bool delete_from_part(db *d, sqlite3_stmt *s, int64_t id) {
    if (run(d->sql[SQL_BEGIN]) != SQLITE_OK) {
        return false;
    }
    bool good = run_with(s, id) == SQLITE_OK && count_part(d, id) == SQLITE_OK && run(d->sql[SQL_COMMIT]) == SQLITE_OK;
    if (!good && !sqlite3_get_autocommit(d->connection)) {
        run(d->sql[SQL_ROLLBACK]);
    }
    return good;
}

/* What has expired goes first, from any part. */
static bool expire(db *d, int64_t now_us, bool *more) {
    int64_t id;
    bool    good = true;
    *more = false;
    for (int i = 0; good && i < PORTIONS; i++) {
        *more = find_part(d->sql[SQL_PART_DUE], now_us, &id);
        if (!*more) {
            return true;
        }
        sqlite3_bind_int64(d->sql[SQL_CACHE_EXPIRE], 2, now_us);
        good = delete_from_part(d, d->sql[SQL_CACHE_EXPIRE], id);
    }
    return good;
}

bool cache_rows_sweep(db *d, int64_t now_us) {
    bool more = false;
    if (!expire(d, now_us, &more)) {
        return false;
    }
    /* Our own count only grows between sweeps, and other processes delete too: so sum up anew. */
    int64_t limit = atomic_load(&d->cache_limit), id;
    d->cache_bytes = bytes_at_rest(d);
    if (d->cache_bytes <= limit || more) {
        return more;
    }
    for (int i = 0; i < PORTIONS && d->cache_bytes > limit / 10 * 9; i++) { /* a tenth of air, for the next while */
        if (!find_part(d->sql[SQL_PART_NEXT], INT64_MIN, &id) || !delete_from_part(d, d->sql[SQL_CACHE_SHRINK], id)) {
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

/* The newest rows that fit. */
static bool choose(sqlite3 *c, size_t most, rowids *ids) {
    sqlite3_stmt *s = NULL;
    const char   *sql = "SELECT id, length(body) + " CACHE_ROW_BYTES_SQL " FROM cache WHERE expires_us > ?"
                        " ORDER BY id DESC";
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
static void load_row(sqlite3_stmt *s, cache *into) {
    const void *key = sqlite3_column_blob(s, 0);
    const void *body = sqlite3_column_blob(s, 7);
    size_t      n = (size_t)sqlite3_column_bytes(s, 7);
    if (!key || !body || sqlite3_column_bytes(s, 0) != (int)sizeof(sha256)) {
        return;
    }
    cached *e = cached_new(n);
    if (!e) {
        return;
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
}

/* Oldest of the chosen first, so that the newest is the last to be evicted, and replaces older ones of its key. */
static bool load_rows(sqlite3 *c, const rowids *ids, cache *into) {
    sqlite3_stmt *s = NULL;
    const char   *sql = "SELECT key, space, model, created_us, expires_us, prompt_tokens, completion_tokens, body"
                        " FROM cache WHERE id = ?";
    if (sqlite3_prepare_v2(c, sql, -1, &s, NULL) != SQLITE_OK) {
        return false;
    }
    for (size_t i = ids->n; i > 0; i--) {
        sqlite3_bind_int64(s, 1, ids->at[i - 1]);
        if (sqlite3_step(s) == SQLITE_ROW) {
            load_row(s, into);
        }
        sqlite3_reset(s);
    }
    sqlite3_finalize(s);
    return true;
}

int64_t db_cache_load(db *d, cache *into, err *e) {
    cache_stats before, after;
    cache_stats_read(into, &before);
    sqlite3 *c = db_connect(d->path, false, e);
    if (!c) {
        return -1;
    }
    rowids ids = {0};
    bool   good = (choose(c, before.max_bytes, &ids) && load_rows(c, &ids, into)) ||
                db_fail(d->path, c, "read the stored answers", e);
    free(ids.at);
    sqlite3_close(c);
    cache_stats_read(into, &after);
    return good ? (int64_t)after.entries - (int64_t)before.entries : -1;
}
