/* ledger.h - the ledger read back: sums by any of its columns, and its rows. For reports; on a connection of one's own,
 * beside a running server or without one. Times are microseconds since 1970, since <= t < until. */
#ifndef PARE_STORE_LEDGER_H
#define PARE_STORE_LEDGER_H

#include "store/db.h"

#define LEDGER_MAX_BY 6

/* What a report can be by: "key", "group", "model", "upstream", "backend", "stage", "outcome", "tier", "hour", "day",
 * "month" (UTC); NULL at the end. */
const char *const *ledger_by_names(void);

typedef struct ledger_query {
    const char *by[LEDGER_MAX_BY];
    int         n_by; /* 0: one line, the total */
    int64_t     since_us, until_us;
} ledger_query;

typedef struct ledger_line {
    const char *names[LEDGER_MAX_BY]; /* as the query's `by`; live until the callback returns */
    int64_t     requests, attempts;   /* attempts are no requests; their tokens and cost are in the sums */
    int64_t     prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens;
    int64_t     cost_nano, saved_nano;
} ledger_line;

/* A connection that only reads. Refuses a file that is not pare's or that another version of pare wrote. `path` as db_open
 * has it. Closed with sqlite3_close. */
struct sqlite3 *ledger_open(const char *path, err *e);

/* Calls `fn` for each line, in order of its names; false from it ends the report, with its error in e. */
typedef bool (*ledger_line_fn)(void *ctx, const ledger_line *line, err *e);
bool ledger_report(struct sqlite3 *read_only, const ledger_query *q, ledger_line_fn fn, void *ctx, err *e);

/* What each key has spent since a time, its attempts included, and of it since a later time; how often it has asked
 * (refused requests and attempts do not count), with how many tokens. A key that was in two groups stands twice. In order
 * of names; the caller frees. */
typedef struct ledger_spender {
    char    key[64], group[64];
    int64_t nano, late_nano, requests, tokens;
} ledger_spender;
bool ledger_spenders(struct sqlite3 *read_only, int64_t since_us, int64_t late_us, ledger_spender **out, size_t *n,
                     err *e);

/* Every row, oldest first. */
typedef bool (*ledger_row_fn)(void *ctx, const ledger_row *row, err *e);
bool ledger_rows(struct sqlite3 *read_only, int64_t since_us, int64_t until_us, ledger_row_fn fn, void *ctx, err *e);

#endif
