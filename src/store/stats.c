/* stats.c - the ledger summed up over a window of time, as JSON for the dashboard and the report.
 *
 *   window_s, now (unix seconds), requests, per_second (requests / window_s), step_s (of the series)
 *   by_stage     {"recall.exact": n, "answer": n, ...}; "none" answered nobody (refused before)
 *   by_model     [{model, requests, prompt_tokens, completion_tokens, cost_usd, saved_usd}], most requests first
 *   by_outcome   {ok, error, cancelled, refused}
 *   tokens       {prompt, completion, cached}
 *   cost_usd, saved_usd   of exact sums; attempts (hedges that lost, retries) are in them and in the tokens, and are
 *                no requests
 *   latency_ms   {"all": {p50, p90, p99}, and the same for each stage}; of exchanges that ended well; null without any
 *   first_token_ms        {p50, p90, p99}
 *   series       [{t, requests, hits, prompt_tokens, completion_tokens, cost_usd, saved_usd, p50_ms, p99_ms}], at most
 *                120 steps, the empty ones included, aligned to multiples of step_s
 *   recent       the last 50 exchanges, newest first
 *
 * One pass over the rows, which stand in order of their time, the newest first. Percentiles (nearest rank) are of the newest 200000 rows: one sort
 * by duration, and then one walk finds the ranks of every stage and every step at once.                             */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/money.h"
#include "base/utf8.h"
#include "store/db_parts.h"

#define MAX_SAMPLES 200000
#define MAX_STEPS   120
#define MAX_RECENT  50
#define MAX_MODELS  64 /* clients choose the names of refused models: the rest is summed up as "(other)" */
#define MAX_STAGES  16
#define SECOND_US   ((int64_t)1000000)

enum { /* columns of the query, in order */
       C_TIME,
       C_ID,
       C_KEY,
       C_MODEL,
       C_STAGE,
       C_BACKEND,
       C_PROMPT,
       C_COMPLETION,
       C_CACHED,
       C_COST,
       C_SAVED,
       C_FIRST,
       C_TOTAL,
       C_STREAM,
       C_OUTCOME,
       C_STATUS,
       C_ATTEMPT
};

static const char query[] =
    "SELECT time_us, request_id, key, model, stage, backend, prompt_tokens, completion_tokens, cached_tokens,"
    " cost_nano, saved_nano, first_us, total_us, stream, outcome, status, attempt FROM ledger"
    " WHERE id >= ?1 AND id < ?2 ORDER BY id DESC";

typedef struct sums {
    int64_t requests, hits, prompt, completion, cached, cost, saved;
} sums;

typedef struct ranks { /* three percentiles of a group, found in a walk in order of duration */
    int64_t count, seen;
    int64_t p50, p90, p99; /* microseconds */
} ranks;

typedef struct sample {
    int64_t  us;
    uint16_t stage, step;
} sample;

typedef struct group { /* a stage or a model */
    char  name[128];
    sums  sum;
    ranks time;
} group;

typedef struct summary {
    int64_t  now_us, window_us, step_us, from_us; /* from_us: where the first step begins */
    int      n_steps;
    sums     all, steps[MAX_STEPS];
    ranks    all_time, step_time[MAX_STEPS], first_time;
    group    stages[MAX_STAGES], models[MAX_MODELS];
    int      n_stages, n_models;
    int64_t  outcomes[4];
    sample  *samples;
    size_t   n_samples, sample_room;
    int64_t *firsts;
    size_t   n_firsts, first_room;
    map     *model_index;
    str      recent;
    int      n_recent;
} summary;

static const char *const outcome_names[4] = {"ok", "error", "cancelled", "refused"};

/* ---- JSON ---- */

/* A name may have been cut inside a character: what is not UTF-8 is left off. */
static void add_text(str *out, const char *text) {
    size_t n = text ? strlen(text) : 0;
    size_t bad = n;
    utf8_valid(text ? text : "", n, &bad);
    str_json(out, text ? text : "", bad < n ? bad : n);
}

static void add_ms(str *out, int64_t us) {
    if (us < 0) {
        us = 0;
    }
    str_addf(out, "%" PRId64 ".%03" PRId64, us / 1000, us % 1000);
}

static void add_seconds(str *out, int64_t us) {
    add_ms(out, us / 1000);
}

static void add_ms_or_null(str *out, const ranks *r, int64_t us) {
    if (r->count > 0) {
        add_ms(out, us);
    } else {
        str_adds(out, "null");
    }
}

static void add_percentiles(str *out, const ranks *r) {
    str_adds(out, "{\"p50\":");
    add_ms_or_null(out, r, r->p50);
    str_adds(out, ",\"p90\":");
    add_ms_or_null(out, r, r->p90);
    str_adds(out, ",\"p99\":");
    add_ms_or_null(out, r, r->p99);
    str_addc(out, '}');
}

static void add_money(str *out, const sums *s) {
    str_adds(out, "\"cost_usd\":");
    str_usd(out, money_micro(s->cost));
    str_adds(out, ",\"saved_usd\":");
    str_usd(out, money_micro(s->saved));
}

static void add_recent(str *out, sqlite3_stmt *s, bool first) {
    static const struct {
        const char *name;
        int         column;
    } texts[] = {{"id", C_ID},       {"key", C_KEY},         {"model", C_MODEL},
                 {"stage", C_STAGE}, {"backend", C_BACKEND}, {"outcome", C_OUTCOME}};
    sums money = {.cost = sqlite3_column_int64(s, C_COST), .saved = sqlite3_column_int64(s, C_SAVED)};
    str_adds(out, first ? "{\"time\":" : ",{\"time\":");
    add_seconds(out, sqlite3_column_int64(s, C_TIME));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        str_addf(out, ",\"%s\":", texts[i].name);
        add_text(out, (const char *)sqlite3_column_text(s, texts[i].column));
    }
    str_addf(out, ",\"prompt_tokens\":%lld,\"completion_tokens\":%lld,", (long long)sqlite3_column_int64(s, C_PROMPT),
             (long long)sqlite3_column_int64(s, C_COMPLETION));
    add_money(out, &money);
    str_adds(out, ",\"total_ms\":");
    add_ms(out, sqlite3_column_int64(s, C_TOTAL));
    str_addf(out, ",\"stream\":%s,\"status\":%d}", sqlite3_column_int(s, C_STREAM) ? "true" : "false",
             sqlite3_column_int(s, C_STATUS));
}

/* ---- one row ---- */

static void add(int64_t *to, int64_t n) {
    *to = money_add(*to, n);
}

static void add_row(sums *to, sqlite3_stmt *s, bool hit) {
    to->requests += !sqlite3_column_int(s, C_ATTEMPT);
    to->hits += hit;
    add(&to->prompt, sqlite3_column_int64(s, C_PROMPT));
    add(&to->completion, sqlite3_column_int64(s, C_COMPLETION));
    add(&to->cached, sqlite3_column_int64(s, C_CACHED));
    add(&to->cost, sqlite3_column_int64(s, C_COST));
    add(&to->saved, sqlite3_column_int64(s, C_SAVED));
}

static group *name_group(group *g, const char *name) {
    size_t n = strlen(name);
    n = n < sizeof g->name ? n : sizeof g->name - 1;
    memcpy(g->name, name, n);
    g->name[n] = '\0';
    return g;
}

static int stage_at(summary *a, const char *name) {
    name = name[0] ? name : "none";
    for (int i = 0; i < a->n_stages; i++) {
        if (strcmp(a->stages[i].name, name) == 0) {
            return i;
        }
    }
    if (a->n_stages == MAX_STAGES) {
        return MAX_STAGES - 1; /* there are fewer stages than this: only a foreign table comes here */
    }
    name_group(&a->stages[a->n_stages], name);
    return a->n_stages++;
}

static group *model_at(summary *a, const char *name) {
    size_t  n = strlen(name);
    int64_t i = 0;
    if (map_get(a->model_index, name, n, &i)) {
        return &a->models[i];
    }
    bool full = a->n_models >= MAX_MODELS - 1;
    i = full ? MAX_MODELS - 1 : a->n_models;
    if (full) {
        a->n_models = MAX_MODELS;
        return name_group(&a->models[i], "(other)");
    }
    map_put(a->model_index, name, n, i); /* when memory is out the model may stand twice */
    a->n_models++;
    return name_group(&a->models[i], name);
}

static int outcome_at(const char *name) {
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, outcome_names[i]) == 0) {
            return i;
        }
    }
    return 3;
}

static int step_at(const summary *a, int64_t time_us) {
    int64_t i = (time_us - a->from_us) / a->step_us;
    return i < 0 ? 0 : i >= a->n_steps ? a->n_steps - 1 : (int)i;
}

static bool grow(void **at, size_t *room, size_t size) {
    size_t more = *room ? *room * 2 : 1024;
    void  *bigger = realloc(*at, more * size);
    if (bigger) {
        *at = bigger;
        *room = more;
    }
    return bigger != NULL;
}

static bool add_sample(summary *a, int64_t us, int stage, int step) {
    if (a->n_samples == MAX_SAMPLES) {
        return true;
    }
    void *at = a->samples;
    if (a->n_samples == a->sample_room && !grow(&at, &a->sample_room, sizeof *a->samples)) {
        return false;
    }
    a->samples = at;
    a->samples[a->n_samples++] = (sample){us, (uint16_t)stage, (uint16_t)step};
    a->all_time.count++;
    a->stages[stage].time.count++;
    a->step_time[step].count++;
    return true;
}

static bool add_first(summary *a, int64_t us) {
    if (a->n_firsts == MAX_SAMPLES) {
        return true;
    }
    void *at = a->firsts;
    if (a->n_firsts == a->first_room && !grow(&at, &a->first_room, sizeof *a->firsts)) {
        return false;
    }
    a->firsts = at;
    a->firsts[a->n_firsts++] = us;
    return true;
}

static const char *column(sqlite3_stmt *s, int i) {
    const char *text = (const char *)sqlite3_column_text(s, i);
    return text ? text : "";
}

static bool take_row(summary *a, sqlite3_stmt *s) {
    const char *stage = column(s, C_STAGE);
    bool        hit = strncmp(stage, "recall", 6) == 0;
    int         step = step_at(a, sqlite3_column_int64(s, C_TIME));
    int         outcome = outcome_at(column(s, C_OUTCOME));
    add_row(&a->all, s, hit);
    add_row(&a->steps[step], s, hit);
    add_row(&model_at(a, column(s, C_MODEL))->sum, s, hit);
    if (sqlite3_column_int(s, C_ATTEMPT)) {
        return true;
    }
    int at = stage_at(a, stage);
    a->stages[at].sum.requests++;
    a->outcomes[outcome]++;
    if (a->n_recent < MAX_RECENT) {
        add_recent(&a->recent, s, a->n_recent++ == 0);
    }
    if (outcome != 0) {
        return true;
    }
    int64_t first = sqlite3_column_int64(s, C_FIRST);
    return add_sample(a, sqlite3_column_int64(s, C_TOTAL), at, step) && (first <= 0 || add_first(a, first));
}

/* ---- percentiles ---- */

static int by_us(const void *x, const void *y) {
    int64_t a = ((const sample *)x)->us;
    int64_t b = ((const sample *)y)->us;
    return (a > b) - (a < b);
}

static int by_value(const void *x, const void *y) {
    int64_t a = *(const int64_t *)x;
    int64_t b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

static int64_t rank_of(int64_t count, int percent) { /* nearest rank, from 1 */
    return (count * percent + 99) / 100;
}

/* The next larger duration of a group whose count is known. */
static void walk(ranks *r, int64_t us) {
    r->seen++;
    r->p50 = r->seen == rank_of(r->count, 50) ? us : r->p50;
    r->p90 = r->seen == rank_of(r->count, 90) ? us : r->p90;
    r->p99 = r->seen == rank_of(r->count, 99) ? us : r->p99;
}

static void find_percentiles(summary *a) {
    if (a->n_samples > 0) {
        qsort(a->samples, a->n_samples, sizeof *a->samples, by_us);
    }
    for (size_t i = 0; i < a->n_samples; i++) {
        const sample *x = &a->samples[i];
        walk(&a->all_time, x->us);
        walk(&a->stages[x->stage].time, x->us);
        walk(&a->step_time[x->step], x->us);
    }
    if (a->n_firsts > 0) {
        qsort(a->firsts, a->n_firsts, sizeof *a->firsts, by_value);
    }
    a->first_time.count = (int64_t)a->n_firsts;
    for (size_t i = 0; i < a->n_firsts; i++) {
        walk(&a->first_time, a->firsts[i]);
    }
}

/* ---- the whole ---- */

/* Steps of a round length, so that a chart's points stay where they are while the window moves on. */
static void choose_steps(summary *a) {
    static const int seconds[] = {1,   2,    5,    10,   15,    20,    30,    60,    120,   300,    600,
                                  900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400, 172800, 604800};
    const int        n = sizeof seconds / sizeof seconds[0];
    int64_t          begin_us = a->now_us - a->window_us + 1; /* the window is open at its old end */
    int64_t          step = 0;
    int64_t          first = 0;
    int64_t          last = MAX_STEPS;
    for (int i = 0; last - first >= MAX_STEPS; i++) {
        step = i < n ? seconds[i] * SECOND_US : step * 2;
        first = begin_us / step;
        last = a->now_us / step;
    }
    a->step_us = step;
    a->from_us = first * step;
    a->n_steps = (int)(last - first) + 1;
}

static bool read_rows(summary *a, sqlite3 *c, err *e) {
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(c, query, -1, &s, NULL) != SQLITE_OK) {
        return db_fail("pare.db", c, "read the ledger", e);
    }
    sqlite3_bind_int64(s, 1, ledger_id(a->now_us - a->window_us + 1));
    sqlite3_bind_int64(s, 2, ledger_id(a->now_us + 1));
    bool good = true;
    int  code = SQLITE_DONE;
    while (good && (code = sqlite3_step(s)) == SQLITE_ROW) {
        good = take_row(a, s) || err_set(e, ERR_MEMORY, "Out of memory while summing up the ledger.");
    }
    if (good && code != SQLITE_DONE) {
        good = db_fail("pare.db", c, "read the ledger", e);
    }
    sqlite3_finalize(s);
    return good;
}

static int by_requests(const void *x, const void *y) {
    const group *a = x;
    const group *b = y;
    int          order = (a->sum.requests < b->sum.requests) - (a->sum.requests > b->sum.requests);
    return order ? order : strcmp(a->name, b->name);
}

static void write_groups(summary *a, str *out) {
    str_adds(out, ",\"by_stage\":{");
    for (int i = 0; i < a->n_stages; i++) {
        str_adds(out, i > 0 ? "," : "");
        add_text(out, a->stages[i].name);
        str_addf(out, ":%" PRId64, a->stages[i].sum.requests);
    }
    str_adds(out, "},\"by_outcome\":{");
    for (int i = 0; i < 4; i++) {
        str_addf(out, "%s\"%s\":%" PRId64, i > 0 ? "," : "", outcome_names[i], a->outcomes[i]);
    }
    str_adds(out, "},\"by_model\":[");
    qsort(a->models, (size_t)a->n_models, sizeof a->models[0], by_requests);
    for (int i = 0; i < a->n_models; i++) {
        const group *g = &a->models[i];
        str_adds(out, i > 0 ? ",{\"model\":" : "{\"model\":");
        add_text(out, g->name);
        str_addf(out, ",\"requests\":%" PRId64 ",\"prompt_tokens\":%" PRId64 ",\"completion_tokens\":%" PRId64 ",",
                 g->sum.requests, g->sum.prompt, g->sum.completion);
        add_money(out, &g->sum);
        str_addc(out, '}');
    }
    str_addc(out, ']');
}

static void write_times(const summary *a, str *out) {
    str_adds(out, ",\"latency_ms\":{\"all\":");
    add_percentiles(out, &a->all_time);
    for (int i = 0; i < a->n_stages; i++) {
        str_addc(out, ',');
        add_text(out, a->stages[i].name);
        str_addc(out, ':');
        add_percentiles(out, &a->stages[i].time);
    }
    str_adds(out, "},\"first_token_ms\":");
    add_percentiles(out, &a->first_time);
}

static void write_series(const summary *a, str *out) {
    str_addf(out, ",\"step_s\":%" PRId64 ",\"series\":[", a->step_us / SECOND_US);
    for (int i = 0; i < a->n_steps; i++) {
        const sums  *s = &a->steps[i];
        const ranks *r = &a->step_time[i];
        str_addf(out,
                 "%s{\"t\":%" PRId64 ",\"requests\":%" PRId64 ",\"hits\":%" PRId64 ",\"prompt_tokens\":%" PRId64
                 ",\"completion_tokens\":%" PRId64 ",",
                 i > 0 ? "," : "", (a->from_us + i * a->step_us) / SECOND_US, s->requests, s->hits, s->prompt,
                 s->completion);
        add_money(out, s);
        str_adds(out, ",\"p50_ms\":");
        add_ms_or_null(out, r, r->p50);
        str_adds(out, ",\"p99_ms\":");
        add_ms_or_null(out, r, r->p99);
        str_addc(out, '}');
    }
    str_addc(out, ']');
}

static bool write_summary(summary *a, str *out) {
    str_adds(out, "{\"window_s\":");
    add_seconds(out, a->window_us);
    str_adds(out, ",\"now\":");
    add_seconds(out, a->now_us);
    str_addf(out, ",\"requests\":%" PRId64 ",\"per_second\":%.6g", a->all.requests,
             (double)a->all.requests * SECOND_US / (double)a->window_us);
    str_addf(out, ",\"tokens\":{\"prompt\":%" PRId64 ",\"completion\":%" PRId64 ",\"cached\":%" PRId64 "},",
             a->all.prompt, a->all.completion, a->all.cached);
    add_money(out, &a->all);
    write_groups(a, out);
    write_times(a, out);
    write_series(a, out);
    str_adds(out, ",\"recent\":[");
    str_add(out, a->recent.data ? a->recent.data : "", a->recent.len);
    out->failed = out->failed || a->recent.failed;
    return str_adds(out, "]}");
}

bool ledger_stats(struct sqlite3 *read_only, int64_t now_us, int64_t window_us, str *json, err *e) {
    if (window_us < SECOND_US || window_us > INT64_MAX / 4 || now_us < window_us) {
        return err_at(e, ERR_INVALID, "window", "window must be at least 1s and not reach back before 1970.");
    }
    summary *a = calloc(1, sizeof *a);
    map     *index = a ? map_new(MAX_MODELS) : NULL;
    bool     good = index || err_set(e, ERR_MEMORY, "Out of memory while summing up the ledger.");
    if (good) {
        a->now_us = now_us;
        a->window_us = window_us;
        a->model_index = index;
        choose_steps(a);
        good = read_rows(a, read_only, e);
    }
    if (good) {
        find_percentiles(a);
        good = write_summary(a, json) || err_set(e, ERR_MEMORY, "Out of memory while summing up the ledger.");
    }
    if (a) {
        free(a->samples);
        free(a->firsts);
        str_free(&a->recent);
    }
    map_free(index);
    free(a);
    return good;
}
