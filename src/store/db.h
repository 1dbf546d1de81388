/* db.h - pare.db: the ledger, and the cache at rest.
 *
 * SQLite in WAL mode. One writer thread takes rows from a queue and commits them in batches (at most one second apart,
 * usually 250 ms, or 1024 rows); a kill loses at most that. One reader thread answers questions, so that no event loop ever waits for
 * a disk. A full or failing disk is logged, counted and retried; the gateway goes on.                               */
#ifndef PARE_STORE_DB_H
#define PARE_STORE_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"
#include "store/cache.h"

typedef struct db db;

typedef struct ledger_row {
    int64_t time_us; /* wall clock, arrival */
    char    id[40];  /* request id */
    char    key[64]; /* the client key's name; "" without keys */
    char    model[128];
    char    group[64];     /* the client key's group; "" without */
    char    stage[24];     /* who answered: "recall.exact", "answer"; "attempt" */
    char    backend[80];   /* "local:NAME", "remote:NAME", "" */
    char    upstream[128]; /* the provider's name for the model; "" when nobody was asked */
    bool    attempt;       /* not the answer, but another try of the same request that may be on the invoice */
    int64_t prompt_tokens, completion_tokens, cached_tokens;
    int64_t reasoning_tokens, write_5m, write_1h, audio_in, audio_out, image_in, searches; /* as in dialect.h's usage */
    char    tier[12];              /* "standard", "batch", "flex", "priority"; "" when no tokens are known */
    bool    counted;               /* tokens were counted by pare, not told by the provider */
    int64_t cost_nano, saved_nano; /* nano-dollars: base/money.h */
    int64_t queue_us, first_us, total_us;
    bool    stream;
    char    outcome[24]; /* "ok", "error", "cancelled", "refused"; of an attempt "hedge", "retry", "fallback" */
    int     status;      /* HTTP */
} ledger_row;

/* Opens or makes the file `path`, or pare.db in it when it is a directory; refuses a newer schema with a sentence. More
 * than one process may hold it open (`pare cache` beside a running server). */
db  *db_open(const char *path, err *e);
void db_close(db *d); /* writes what is queued; before the loops that db_ask was given are freed; NULL is fine */

/* Copies; never blocks. While the disk fails, the newest 500000 rows wait in memory; older ones are dropped, counted
 * and logged. */
void db_ledger(db *d, const ledger_row *row);
void db_ledger_keep(db *d, int64_t us);    /* older rows are deleted, a few at a time; 0: none (at start) */
void db_cache_put(db *d, const cached *e); /* takes a reference; dropped when > 64 MiB wait. One that leaves the cache
                                               * in memory while it waits is not written. */
void db_cache_remove(db *d, const sha256 *key);
void db_cache_purge(db *d, const char *model, const char *space);
void db_cache_limit(db *d, int64_t bytes); /* of the cache at rest; the oldest go first; 1 GiB at start */
/* Reads the unexpired rows, newest last, into memory at start. Returns how many, or -1. */
int64_t db_cache_load(db *d, cache *into, err *e);

/* Runs `query` on the reader thread with the connection and a copy of the `arg_bytes` at `arg`, for 5 seconds at most,
 * then `done` on the loop with the JSON it wrote. */
struct sqlite3;
typedef bool (*db_query_fn)(struct sqlite3 *read_only, const void *arg, str *json, err *e);
typedef void (*db_answer_fn)(void *ctx, const str *json, const err *e); /* e NULL when fine */
void db_ask(db *d, loop *l, db_query_fn query, const void *arg, size_t arg_bytes, db_answer_fn done, void *ctx);

typedef struct db_stats {
    int64_t rows_written, rows_waiting, rows_dropped, commits, failures, cache_dropped;
} db_stats;
void db_stats_read(const db *d, db_stats *out);

/* The newest stored answers, at most `limit`: [{key, model, space, age_s, expires_s, tokens, bytes, text}], for
 * `pare cache list`. `text` is the beginning of the answer. */
bool db_cache_list(struct sqlite3 *read_only, int limit, str *json, err *e);
/* {entries, bytes} of the answers at rest. */
bool db_cache_totals(struct sqlite3 *read_only, str *json, err *e);

/* What each key has spent since a time (its attempts included), how often it has asked (refused requests and attempts do
 * not count) and with how many tokens. Synchronous: for budgets at start, before the loops run. */
typedef void (*ledger_spent)(void *ctx, const char *key, const char *group, int64_t nano, int64_t requests,
                             int64_t tokens);
bool db_spend(db *d, int64_t since_us, ledger_spent fn, void *ctx, err *e);

/* The ledger summed up over the last `window_us`, as the dashboard and the report show it (docs in stats.c). */
bool ledger_stats(struct sqlite3 *read_only, int64_t now_us, int64_t window_us, str *json, err *e);

#endif
