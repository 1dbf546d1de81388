/* ledger.c - what the ledger says about spending: for budgets when pare starts, and for `pare report`. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/map.h"
#include "base/money.h"
#include "store/db_parts.h"
#include "store/ledger.h"

/* ---- budgets ---- */

static const char *text_at(sqlite3_stmt *s, int i) {
    const char *text = (const char *)sqlite3_column_text(s, i);
    return text ? text : "";
}

static const char spend_query[] =
    "SELECT key, key_group, attempt = 0 AND outcome <> 'refused', cost_nano, prompt_tokens, completion_tokens, id"
    " FROM ledger WHERE id >= ?";

/* Grouping by SQL would sort all rows of the month for a handful of sums. */
typedef struct spenders {
    ledger_spender *at;
    size_t          n, room, last; /* last: who the row before was of; rows of one key come together */
    map            *index;         /* of key and group, with their zeros */
} spenders;

static void copy_name(char to[64], const char *name) {
    memset(to, 0, 64);
    memcpy(to, name, strnlen(name, 63));
}

static ledger_spender *spender_of(spenders *all, const char *key, const char *group) {
    if (all->n > 0 && strcmp(all->at[all->last].key, key) == 0 && strcmp(all->at[all->last].group, group) == 0) {
        return &all->at[all->last];
    }
    struct {
        char key[64], group[64];
    } name;
    int64_t i = 0;
    copy_name(name.key, key);
    copy_name(name.group, group);
    if (!map_get(all->index, &name, sizeof name, &i)) {
        if (all->n == all->room) {
            size_t          room = all->room ? all->room * 2 : 64;
            ledger_spender *at = realloc(all->at, room * sizeof *at);
            if (!at) {
                return NULL;
            }
            all->at = at;
            all->room = room;
        }
        i = (int64_t)all->n;
        if (!map_put(all->index, &name, sizeof name, i)) {
            return NULL;
        }
        ledger_spender *s = &all->at[all->n++];
        memset(s, 0, sizeof *s);
        memcpy(s->key, name.key, sizeof s->key);
        memcpy(s->group, name.group, sizeof s->group);
    }
    all->last = (size_t)i;
    return &all->at[i];
}

static bool add_spending(spenders *all, sqlite3_stmt *s, int64_t late_id) {
    ledger_spender *to = spender_of(all, text_at(s, 0), text_at(s, 1));
    if (to) {
        int64_t nano = sqlite3_column_int64(s, 3);
        to->requests += sqlite3_column_int(s, 2);
        to->nano = money_add(to->nano, nano);
        to->late_nano = sqlite3_column_int64(s, 6) >= late_id ? money_add(to->late_nano, nano) : to->late_nano;
        to->tokens = money_add(to->tokens, money_add(sqlite3_column_int64(s, 4), sqlite3_column_int64(s, 5)));
    }
    return to != NULL;
}

static int by_name(const void *x, const void *y) {
    const ledger_spender *a = x, *b = y;
    int                   order = strcmp(a->key, b->key);
    return order ? order : strcmp(a->group, b->group);
}

bool ledger_spenders(struct sqlite3 *read_only, int64_t since_us, int64_t late_us, ledger_spender **out, size_t *n,
                     err *e) {
    sqlite3_stmt *s = NULL;
    spenders      all = {.index = map_new(64)};
    bool          good = all.index != NULL;
    int           code = SQLITE_NOMEM;
    if (good && (code = sqlite3_prepare_v2(read_only, spend_query, -1, &s, NULL)) == SQLITE_OK) {
        sqlite3_bind_int64(s, 1, ledger_id(since_us));
        while (good && (code = sqlite3_step(s)) == SQLITE_ROW) {
            good = add_spending(&all, s, ledger_id(late_us));
        }
    }
    if (!good) {
        err_set(e, ERR_MEMORY, "Out of memory while summing up the ledger.");
    }
    good = good && (code == SQLITE_DONE || db_fail("pare.db", read_only, "read the ledger", e));
    sqlite3_finalize(s);
    map_free(all.index);
    if (!good) {
        free(all.at);
        return false;
    }
    if (all.n > 0) {
        qsort(all.at, all.n, sizeof *all.at, by_name);
    }
    *out = all.at;
    *n = all.n;
    return true;
}

bool db_spend(db *d, int64_t since_us, ledger_spent fn, void *ctx, err *e) {
    sqlite3        *c = db_connect(d->path, false, e);
    ledger_spender *all = NULL;
    size_t          n = 0;
    bool            good = c && ledger_spenders(c, since_us, since_us, &all, &n, e);
    for (size_t i = 0; good && i < n; i++) {
        fn(ctx, all[i].key, all[i].group, all[i].nano, all[i].requests, all[i].tokens);
    }
    free(all);
    sqlite3_close(c);
    return good;
}

/* ---- reports ---- */

/* SQLite's sum() fails where it overflows, and a provider's counts may be absurd: millions and rest are summed apart. */
#define SPLIT_SUM(column) "sum((" column ") / 1000000), sum((" column ") % 1000000)"

static int64_t joined(sqlite3_stmt *s, int at) {
    int64_t millions = sqlite3_column_int64(s, at), rest = sqlite3_column_int64(s, at + 1);
    int64_t whole = millions > INT64_MAX / 1000000 ? INT64_MAX : millions < 0 ? 0 : millions * 1000000;
    return money_add(whole, rest);
}

/* Days and months are UTC's, as the providers' invoices have them. */
static const struct {
    const char *name, *sql;
} columns[] = {
    {"key", "key"},
    {"group", "key_group"},
    {"model", "model"},
    {"upstream", "upstream_model"},
    {"backend", "backend"},
    {"stage", "stage"},
    {"outcome", "outcome"},
    {"tier", "tier"},
    {"hour", "strftime('%Y-%m-%d %H:00', time_us / 1000000, 'unixepoch')"},
    {"day", "strftime('%Y-%m-%d', time_us / 1000000, 'unixepoch')"},
    {"month", "strftime('%Y-%m', time_us / 1000000, 'unixepoch')"},
};
#define N_COLUMNS (sizeof columns / sizeof columns[0])

const char *const *ledger_by_names(void) {
    static const char *const names[] = {"key",     "group", "model", "upstream", "backend", "stage",
                                        "outcome", "tier",  "hour",  "day",      "month",   NULL};
    return names;
}

static const char *sql_of(const char *name) {
    for (size_t i = 0; i < N_COLUMNS; i++) {
        if (strcmp(columns[i].name, name) == 0) {
            return columns[i].sql;
        }
    }
    return NULL;
}

static bool write_query(const ledger_query *q, str *sql) {
    str_adds(sql, "SELECT sum(attempt = 0), sum(attempt <> 0)");
    str_adds(sql, ", " SPLIT_SUM("prompt_tokens") ", " SPLIT_SUM("completion_tokens") ", " SPLIT_SUM("cached_tokens"));
    str_adds(sql, ", " SPLIT_SUM("reasoning_tokens") ", " SPLIT_SUM("cost_nano") ", " SPLIT_SUM("saved_nano"));
    for (int i = 0; i < q->n_by; i++) {
        str_addf(sql, ", %s AS by%d", sql_of(q->by[i]), i);
    }
    str_adds(sql, " FROM ledger WHERE id >= ?1 AND id < ?2");
    for (int i = 0; i < q->n_by; i++) {
        str_addf(sql, "%s by%d", i ? "," : " GROUP BY", i);
    }
    if (q->n_by > 0) {
        str_adds(sql, " ORDER BY");
    }
    for (int i = 0; i < q->n_by; i++) {
        str_addf(sql, "%s by%d", i ? "," : "", i);
    }
    return !sql->failed;
}

static void take_line(sqlite3_stmt *s, const ledger_query *q, ledger_line *line) {
    int64_t *const numbers[] = {&line->prompt_tokens,    &line->completion_tokens, &line->cached_tokens,
                                &line->reasoning_tokens, &line->cost_nano,         &line->saved_nano};
    int            at = 2;
    line->requests = sqlite3_column_int64(s, 0);
    line->attempts = sqlite3_column_int64(s, 1);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++, at += 2) {
        *numbers[i] = joined(s, at);
    }
    for (int i = 0; i < q->n_by; i++) {
        line->names[i] = text_at(s, at + i);
    }
}

static bool check_query(const ledger_query *q, err *e) {
    for (int i = 0; i < q->n_by; i++) {
        if (!sql_of(q->by[i])) {
            return err_set(e, ERR_INVALID, "The ledger has no column \"%s\" to sum up by.", q->by[i]);
        }
    }
    return q->n_by <= LEDGER_MAX_BY || err_set(e, ERR_LIMIT, "A report is by %d columns at most.", LEDGER_MAX_BY);
}

bool ledger_report(struct sqlite3 *read_only, const ledger_query *q, ledger_line_fn fn, void *ctx, err *e) {
    str           sql = {0};
    sqlite3_stmt *s = NULL;
    if (!check_query(q, e)) {
        return false;
    }
    if (!write_query(q, &sql)) {
        str_free(&sql);
        return err_set(e, ERR_MEMORY, "Out of memory for the report.");
    }
    int  code = sqlite3_prepare_v2(read_only, sql.data, -1, &s, NULL);
    bool going = true;
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(s, 1, ledger_id(q->since_us));
        sqlite3_bind_int64(s, 2, ledger_id(q->until_us));
        while (going && (code = sqlite3_step(s)) == SQLITE_ROW) {
            ledger_line line = {0};
            take_line(s, q, &line);
            going = fn(ctx, &line, e);
        }
    }
    bool good = going && (code == SQLITE_DONE || db_fail("pare.db", read_only, "read the ledger", e));
    sqlite3_finalize(s);
    str_free(&sql);
    return good;
}

/* ---- the connection ---- */

struct sqlite3 *ledger_open(const char *path, err *e) {
    char *file = db_file_of(path);
    if (!file) {
        err_set(e, ERR_MEMORY, "Out of memory for the database.");
        return NULL;
    }
    sqlite3 *c = access(file, F_OK) == 0 ? db_connect(file, false, e) : NULL;
    if (!c && access(file, F_OK) != 0) {
        err_set(e, ERR_NOT_FOUND, "There is no ledger %s; name the directory of pare's data with --data DIR.", file);
    }
    if (c && !db_check_read(file, c, e)) {
        sqlite3_close(c);
        c = NULL;
    }
    free(file);
    return c;
}

/* ---- rows ---- */

static const char rows_query[] =
    "SELECT time_us, request_id, key, key_group, model, upstream_model, backend, stage, outcome, status, attempt, tier,"
    " prompt_tokens, cached_tokens, write_5m, write_1h, audio_in, image_in, completion_tokens, reasoning_tokens,"
    " audio_out, searches, counted, cost_nano, saved_nano, queue_us, first_us, total_us, stream"
    " FROM ledger WHERE id >= ?1 AND id < ?2 ORDER BY id";

static void take_text(char *to, size_t size, sqlite3_stmt *s, int *at) {
    const char *text = text_at(s, (*at)++);
    size_t      n = strnlen(text, size - 1);
    memcpy(to, text, n);
    to[n] = '\0';
}

static void take_row(sqlite3_stmt *s, ledger_row *r) {
    int at = 0;
    r->time_us = sqlite3_column_int64(s, at++);
    take_text(r->id, sizeof r->id, s, &at);
    take_text(r->key, sizeof r->key, s, &at);
    take_text(r->group, sizeof r->group, s, &at);
    take_text(r->model, sizeof r->model, s, &at);
    take_text(r->upstream, sizeof r->upstream, s, &at);
    take_text(r->backend, sizeof r->backend, s, &at);
    take_text(r->stage, sizeof r->stage, s, &at);
    take_text(r->outcome, sizeof r->outcome, s, &at);
    r->status = sqlite3_column_int(s, at++);
    r->attempt = sqlite3_column_int(s, at++) != 0;
    take_text(r->tier, sizeof r->tier, s, &at);
    int64_t *const numbers[] = {&r->prompt_tokens, &r->cached_tokens, &r->write_5m,          &r->write_1h,
                                &r->audio_in,      &r->image_in,      &r->completion_tokens, &r->reasoning_tokens,
                                &r->audio_out,     &r->searches};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        *numbers[i] = sqlite3_column_int64(s, at++);
    }
    r->counted = sqlite3_column_int(s, at++) != 0;
    int64_t *const more[] = {&r->cost_nano, &r->saved_nano, &r->queue_us, &r->first_us, &r->total_us};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
        *more[i] = sqlite3_column_int64(s, at++);
    }
    r->stream = sqlite3_column_int(s, at) != 0;
}

bool ledger_rows(struct sqlite3 *read_only, int64_t since_us, int64_t until_us, ledger_row_fn fn, void *ctx, err *e) {
    sqlite3_stmt *s = NULL;
    int           code = sqlite3_prepare_v2(read_only, rows_query, -1, &s, NULL);
    bool          going = true;
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(s, 1, ledger_id(since_us));
        sqlite3_bind_int64(s, 2, ledger_id(until_us));
        while (going && (code = sqlite3_step(s)) == SQLITE_ROW) {
            ledger_row row = {0};
            take_row(s, &row);
            going = fn(ctx, &row, e);
        }
    }
    bool good = going && (code == SQLITE_DONE || db_fail("pare.db", read_only, "read the ledger", e));
    sqlite3_finalize(s);
    return good;
}
