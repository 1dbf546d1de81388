/* report_write.c - a report as an aligned table, as CSV (RFC 4180) and as JSON. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/money.h"
#include "base/utf8.h"
#include "cli/report.h"

#define N_SUMS 8

static const char *const sum_names[N_SUMS] = {"requests",          "attempts",         "prompt_tokens", "cached_tokens",
                                              "completion_tokens", "reasoning_tokens", "cost",          "saved"};
enum { SUM_ATTEMPTS = 1, SUM_CACHED = 3, SUM_REASONING = 5, SUM_COST = 6 };

static void sums_of(const ledger_line *l, int64_t out[N_SUMS]) {
    const int64_t all[N_SUMS] = {l->requests,          l->attempts,         l->prompt_tokens, l->cached_tokens,
                                 l->completion_tokens, l->reasoning_tokens, l->cost_nano,     l->saved_nano};
    memcpy(out, all, sizeof all);
}

static const char *dollars(int64_t nano, char out[40]) {
    int64_t micro = money_micro(nano);
    snprintf(out, 40, "%s%" PRId64 ".%06" PRId64, micro < 0 ? "-" : "", micro / (micro < 0 ? -1000000 : 1000000),
             micro < 0 ? -(micro % 1000000) : micro % 1000000);
    return out;
}

/* ---- a table ---- */

/* Characters, near enough for alignment: names are mostly ASCII. */
static int width_of(const char *text) {
    int n = 0;
    for (; *text; text++) {
        n += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return n;
}

/* Clients choose the names of models that do not exist: nothing of theirs may steer a terminal. */
static void put_name(const char *text, int width) {
    int padding = width - width_of(text[0] ? text : "-");
    for (const char *p = text[0] ? text : "-"; *p; p++) {
        putchar((unsigned char)*p < ' ' || *p == 0x7F ? '?' : *p);
    }
    printf("%*s", padding > 0 ? padding : 0, "");
}

static const char *cell(const int64_t *sums, int i, char out[40]) {
    if (i >= SUM_COST) {
        return dollars(sums[i], out);
    }
    snprintf(out, 40, "%" PRId64, sums[i]);
    return out;
}

typedef struct layout {
    int  names[LEDGER_MAX_BY], sums[N_SUMS];
    bool shown[N_SUMS]; /* columns that are all nought are left out where that is the usual case */
} layout;

static const char *const heads[N_SUMS] = {"requests",   "tries",     "tokens in", "cached",
                                          "tokens out", "reasoning", "cost $",    "saved $"};

static void widen(int *width, int n) {
    *width = n > *width ? n : *width;
}

static void lay_out(const report *r, layout *l) {
    int64_t total[N_SUMS];
    sums_of(&r->total, total);
    for (int i = 0; i < N_SUMS; i++) {
        char text[40];
        l->shown[i] = (i != SUM_ATTEMPTS && i != SUM_CACHED && i != SUM_REASONING) || total[i] != 0;
        l->sums[i] = (int)strlen(heads[i]);
        widen(&l->sums[i], (int)strlen(cell(total, i, text)));
    }
    for (int i = 0; i < r->query.n_by; i++) {
        l->names[i] = (int)strlen(r->query.by[i]);
        widen(&l->names[i], i == 0 ? (int)strlen("total") : 0);
        for (size_t k = 0; k < r->n_rows; k++) {
            widen(&l->names[i], width_of(r->rows[k].names[i]));
        }
    }
}

static void put_sums(const layout *l, const ledger_line *line) {
    int64_t sums[N_SUMS];
    sums_of(line, sums);
    for (int i = 0; i < N_SUMS; i++) {
        char text[40];
        if (l->shown[i]) {
            printf("%s%*s", i ? "  " : "", l->sums[i], cell(sums, i, text));
        }
    }
    putchar('\n');
}

void report_table(const report *r) {
    layout l = {0};
    int    n = r->query.n_by;
    lay_out(r, &l);
    for (int i = 0; i < n; i++) {
        printf("%-*s  ", l.names[i], r->query.by[i]);
    }
    for (int i = 0; i < N_SUMS; i++) {
        if (l.shown[i]) {
            printf("%s%*s", i ? "  " : "", l.sums[i], heads[i]);
        }
    }
    putchar('\n');
    for (size_t k = 0; n > 0 && k < r->n_rows; k++) {
        for (int i = 0; i < n; i++) {
            put_name(r->rows[k].names[i], l.names[i]);
            fputs("  ", stdout);
        }
        put_sums(&l, &r->rows[k].sums);
    }
    for (int i = 0; i < n; i++) {
        printf("%-*s  ", l.names[i], i == 0 ? "total" : "");
    }
    put_sums(&l, &r->total);
}

/* ---- CSV ---- */

static void csv_text(const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    for (; *text; text++) {
        if (*text == '"') {
            putchar('"');
        }
        putchar(*text);
    }
    putchar('"');
}

static void csv_money(int64_t nano) {
    char text[40];
    printf(",%s,%" PRId64, dollars(nano, text), nano);
}

static void csv_line(const report *r, const report_row *row) {
    int64_t sums[N_SUMS];
    sums_of(&row->sums, sums);
    for (int i = 0; i < r->query.n_by; i++) {
        csv_text(row->names[i]);
        putchar(',');
    }
    for (int i = 0; i < SUM_COST; i++) {
        printf("%s%" PRId64, i ? "," : "", sums[i]);
    }
    csv_money(sums[SUM_COST]);
    csv_money(sums[SUM_COST + 1]);
    fputs("\r\n", stdout);
}

/* No total: a spreadsheet would add it in. */
void report_csv(const report *r) {
    for (int i = 0; i < r->query.n_by; i++) {
        printf("%s,", r->query.by[i]);
    }
    for (int i = 0; i < SUM_COST; i++) {
        printf("%s%s", i ? "," : "", sum_names[i]);
    }
    fputs(",cost_usd,cost_nano,saved_usd,saved_nano\r\n", stdout);
    for (size_t k = 0; k < r->n_rows; k++) {
        csv_line(r, &r->rows[k]);
    }
}

/* ---- JSON ---- */

/* A name may have been cut inside a character: what is not UTF-8 is left off. */
static void json_text(str *out, const char *text) {
    size_t n = strlen(text), bad = n;
    utf8_valid(text, n, &bad);
    str_json(out, text, bad < n ? bad : n);
}

static void json_sums(str *out, const ledger_line *l) {
    int64_t sums[N_SUMS];
    char    text[40];
    sums_of(l, sums);
    for (int i = 0; i < N_SUMS; i++) {
        if (i < SUM_COST) {
            str_addf(out, "\"%s\":%" PRId64 ",", sum_names[i], sums[i]);
        } else {
            str_addf(out, "\"%s_usd\":%s,\"%s_nano\":%" PRId64 "%s", sum_names[i], dollars(sums[i], text), sum_names[i],
                     sums[i], i + 1 < N_SUMS ? "," : "");
        }
    }
}

static void flush(str *out) {
    fwrite(out->data ? out->data : "", 1, out->len, stdout);
    str_clear(out);
}

void report_json(const report *r) {
    str out = {0};
    str_adds(&out, "{\"rows\":[");
    for (size_t k = 0; k < r->n_rows; k++) {
        str_adds(&out, k ? ",\n{" : "\n{");
        for (int i = 0; i < r->query.n_by; i++) {
            str_addf(&out, "\"%s\":", r->query.by[i]);
            json_text(&out, r->rows[k].names[i]);
            str_addc(&out, ',');
        }
        json_sums(&out, &r->rows[k].sums);
        str_addc(&out, '}');
        flush(&out);
    }
    str_adds(&out, "],\n\"total\":{");
    json_sums(&out, &r->total);
    str_adds(&out, "}}\n");
    flush(&out);
    str_free(&out);
}

/* ---- rows ---- */

typedef enum column_kind { C_TEXT, C_INT, C_BOOL, C_TIME, C_USD } column_kind;

#define TEXT(name, member)                                                                                             \
    { name, C_TEXT, offsetof(ledger_row, member) }
#define INT(name, member)                                                                                              \
    { name, C_INT, offsetof(ledger_row, member) }
#define BOOL(name, member)                                                                                             \
    { name, C_BOOL, offsetof(ledger_row, member) }
#define MONEY(name, member) {name "_usd", C_USD, offsetof(ledger_row, member)}, INT(name "_nano", member)

static const struct {
    const char *name;
    column_kind kind;
    size_t      at;
} columns[] = {{"time", C_TIME, offsetof(ledger_row, time_us)},
               TEXT("id", id),
               TEXT("key", key),
               TEXT("group", group),
               TEXT("model", model),
               TEXT("upstream", upstream),
               TEXT("backend", backend),
               TEXT("stage", stage),
               TEXT("outcome", outcome),
               BOOL("attempt", attempt),
               TEXT("tier", tier),
               INT("prompt_tokens", prompt_tokens),
               INT("cached_tokens", cached_tokens),
               INT("write_5m_tokens", write_5m),
               INT("write_1h_tokens", write_1h),
               INT("audio_in_tokens", audio_in),
               INT("image_in_tokens", image_in),
               INT("completion_tokens", completion_tokens),
               INT("reasoning_tokens", reasoning_tokens),
               INT("audio_out_tokens", audio_out),
               INT("searches", searches),
               BOOL("counted", counted),
               MONEY("cost", cost_nano),
               MONEY("saved", saved_nano),
               INT("queue_us", queue_us),
               INT("first_us", first_us),
               INT("total_us", total_us),
               BOOL("stream", stream)};
#define N_COLUMNS (sizeof columns / sizeof columns[0])

void report_rows_head(report_form form) {
    for (size_t i = 0; form == REPORT_CSV && i < N_COLUMNS; i++) {
        printf("%s,", columns[i].name);
    }
    fputs(form == REPORT_CSV ? "status\r\n" : "", stdout);
}

/* 2026-11-21T19:17:49.123456Z */
static const char *time_text(int64_t us, char out[64]) {
    time_t    seconds = (time_t)(us / 1000000);
    struct tm at;
    size_t    n = gmtime_r(&seconds, &at) ? strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &at) : 0;
    snprintf(out + n, 64 - n, ".%06dZ", (int)(us % 1000000));
    return out;
}

static void row_json(const ledger_row *row, str *out) {
    char text[64];
    for (size_t i = 0; i < N_COLUMNS; i++) {
        const char *at = (const char *)row + columns[i].at;
        str_addf(out, "%s\"%s\":", i ? "," : "{", columns[i].name);
        switch (columns[i].kind) {
        case C_TEXT:
            json_text(out, at);
            break;
        case C_INT:
            str_addf(out, "%" PRId64, *(const int64_t *)(const void *)at);
            break;
        case C_BOOL:
            str_adds(out, *(const bool *)at ? "true" : "false");
            break;
        case C_TIME:
            str_addf(out, "\"%s\"", time_text(row->time_us, text));
            break;
        case C_USD:
            str_adds(out, dollars(*(const int64_t *)(const void *)at, text));
        }
    }
    str_addf(out, ",\"status\":%d}\n", row->status);
}

static void row_csv(const ledger_row *row) {
    char text[64];
    for (size_t i = 0; i < N_COLUMNS; i++) {
        const char *at = (const char *)row + columns[i].at;
        switch (columns[i].kind) {
        case C_TEXT:
            csv_text(at);
            break;
        case C_INT:
            printf("%" PRId64, *(const int64_t *)(const void *)at);
            break;
        case C_BOOL:
            putchar(*(const bool *)at ? '1' : '0');
            break;
        case C_TIME:
            fputs(time_text(row->time_us, text), stdout);
            break;
        case C_USD:
            fputs(dollars(*(const int64_t *)(const void *)at, text), stdout);
        }
        putchar(',');
    }
    printf("%d\r\n", row->status);
}

bool report_rows_one(void *ctx, const ledger_row *row, err *e) {
    if (*(const report_form *)ctx == REPORT_CSV) {
        row_csv(row);
    } else {
        str out = {0};
        row_json(row, &out);
        bool failed = out.failed;
        flush(&out);
        str_free(&out);
        if (failed) {
            return err_set(e, ERR_MEMORY, "Out of memory for the report.");
        }
    }
    return !ferror(stdout) ||
           err_set(e, ERR_IO, "The report could not be written: the disk is full, or its reader left.");
}
