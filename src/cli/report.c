/* report.c - `pare report`: what was spent and saved, summed up by whatever is asked for, or row by row.
 *
 * Reads the database itself, on a connection that cannot write: beside a running server or without one. There is no
 * `pare export`: the rows are one more way of looking at the same time span of the same ledger (--rows).               */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/money.h"
#include "cli/cli.h"
#include "cli/report.h"

static int run(int argc, char **argv);

const command command_report = {
    .name = "report",
    .summary = "money and tokens from the ledger, as a table, CSV or JSON",
    .run = run,
    .help =
        "Usage: pare report [--by LIST] [--since WHEN] [--until WHEN] [--csv|--json] [--rows] [--data DIR]\n\n"
        "Sums up the ledger. Works beside a running server and without one. Days are UTC's, as on invoices.\n\n"
        "  --by LIST     key, group, model, upstream, backend, stage, outcome, tier, hour, day, month: at most six,\n"
        "                with commas; default model. \"none\": the total alone\n"
        "  --since WHEN  a time span back from now (30d, 12h) or a day (2026-11-01); default 30d; \"all\": everything\n"
        "  --until WHEN  the same; up to but without it; default now\n"
        "  --csv         for spreadsheets; with the exact nano-dollars beside the dollars\n"
        "  --json        for scripts\n"
        "  --rows        the rows themselves instead of sums: CSV, or with --json one JSON object a line\n"
        "  --data DIR    where pare.db lies; default as `pare serve`\n\n"
        "A request has one row, and one more for each further try that may be on the invoice (stage \"attempt\").\n"
        "Dollars are rounded to millionths where they are printed; sums are made before that.\n\n"
        "Examples:\n"
        "  pare report --by key,model,day --since 7d\n"
        "  pare report --by backend,upstream --since 2026-10-01 --until 2026-11-01\n"
        "  pare report --by month --since all --csv > months.csv\n"
        "  pare report --rows --since 24h --json | jq 'select(.outcome == \"error\")'\n"};

/* ---- when ---- */

static bool parse_day(const char *text, int64_t *us) {
    struct tm at = {0};
    char     *end = strptime(text, "%Y-%m-%d", &at);
    if (end && *end == 'T') {
        end = strptime(end + 1, "%H:%M", &at);
    }
    if (!end || *end) {
        return false;
    }
    int day = at.tm_mday;
    *us = (int64_t)timegm(&at) * 1000000;
    return at.tm_mday == day; /* there is no 31st of November */
}

static bool parse_when(const char *text, int64_t now_us, int64_t *us) {
    int64_t span = 0;
    if (strcmp(text, "all") == 0) {
        *us = 0;
        return true;
    }
    if (parse_day(text, us)) {
        return true;
    }
    *us = parse_duration(text, &span) && span >= 0 ? now_us - span : 0;
    return parse_duration(text, &span) && span >= 0;
}

/* ---- by what ---- */

static bool is_by(const char *name) {
    for (const char *const *known = ledger_by_names(); *known; known++) {
        if (strcmp(*known, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool parse_by(char *list, ledger_query *q) {
    char *rest = NULL;
    if (strcmp(list, "none") == 0) {
        return true;
    }
    for (char *name = strtok_r(list, ", ", &rest); name; name = strtok_r(NULL, ", ", &rest)) {
        if (!is_by(name)) {
            const char *near = nearest_name(name, ledger_by_names());
            cli_usage(&command_report, "There is no \"%s\" to sum up by%s%s%s.", name, near ? "; did you mean " : "",
                      near ? near : "", near ? "?" : "");
            return false;
        }
        if (q->n_by == LEDGER_MAX_BY) {
            cli_usage(&command_report, "--by takes %d names at most.", LEDGER_MAX_BY);
            return false;
        }
        q->by[q->n_by++] = name;
    }
    return true;
}

/* ---- gathering ---- */

static bool no_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory for the report; ask for a shorter time or fewer columns.");
}

static void add(ledger_line *to, const ledger_line *l) {
    to->requests += l->requests;
    to->attempts += l->attempts;
    to->prompt_tokens = money_add(to->prompt_tokens, l->prompt_tokens);
    to->completion_tokens = money_add(to->completion_tokens, l->completion_tokens);
    to->cached_tokens = money_add(to->cached_tokens, l->cached_tokens);
    to->reasoning_tokens = money_add(to->reasoning_tokens, l->reasoning_tokens);
    to->cost_nano = money_add(to->cost_nano, l->cost_nano);
    to->saved_nano = money_add(to->saved_nano, l->saved_nano);
}

static bool take_line(void *ctx, const ledger_line *line, err *e) {
    report *r = ctx;
    if (r->n_rows == r->room) {
        size_t      room = r->room ? r->room * 2 : 64;
        report_row *rows = realloc(r->rows, room * sizeof *rows);
        if (!rows) {
            return no_memory(e);
        }
        r->rows = rows;
        r->room = room;
    }
    report_row *row = &r->rows[r->n_rows++];
    *row = (report_row){.sums = *line};
    add(&r->total, line);
    for (int i = 0; i < r->query.n_by; i++) {
        row->names[i] = strdup(line->names[i]);
        if (!row->names[i]) {
            return no_memory(e);
        }
    }
    return true;
}

static void free_rows(report *r) {
    for (size_t i = 0; i < r->n_rows; i++) {
        for (int k = 0; k < r->query.n_by; k++) {
            free(r->rows[i].names[k]);
        }
    }
    free(r->rows);
}

static bool sum_up(sqlite3 *c, report *r, report_form form, err *e) {
    bool good = ledger_report(c, &r->query, take_line, r, e);
    if (good && form == REPORT_CSV) {
        report_csv(r);
    } else if (good && form == REPORT_JSON) {
        report_json(r);
    } else if (good) {
        report_table(r);
    }
    free_rows(r);
    return good;
}

static bool list_rows(sqlite3 *c, const ledger_query *q, report_form form, err *e) {
    form = form == REPORT_TABLE ? REPORT_CSV : form;
    report_rows_head(form);
    return ledger_rows(c, q->since_us, q->until_us, report_rows_one, &form, e);
}

/* ---- the command ---- */

static int work(const char *data, report *r, report_form form, bool rows) {
    char directory[4096];
    err  e = {0};
    cli_data_dir(directory, sizeof directory);
    sqlite3 *c = ledger_open(data ? data : directory, &e);
    bool     good = c && (rows ? list_rows(c, &r->query, form, &e) : sum_up(c, r, form, &e));
    sqlite3_close(c);
    return good ? EXIT_DONE : cli_fail(&e);
}

static int run(int argc, char **argv) {
    const char      *by = "model", *since = "30d", *until = NULL, *data = NULL;
    bool             csv = false, json = false, rows = false, helped = false;
    int              n_words = 0;
    report           r = {.query.until_us = INT64_MAX};
    const option_row options[] = {{"--by", OPTION_TEXT, &by},       {"--since", OPTION_TEXT, &since},
                                  {"--until", OPTION_TEXT, &until}, {"--data", OPTION_TEXT, &data},
                                  {"--csv", OPTION_FLAG, &csv},     {"--json", OPTION_FLAG, &json},
                                  {"--rows", OPTION_FLAG, &rows},   {NULL}};
    if (!cli_options(&command_report, argc, argv, options, NULL, 0, &n_words, &helped)) {
        return EXIT_USAGE;
    }
    if (helped) {
        return EXIT_DONE;
    }
    if (csv && json) {
        return cli_usage(&command_report, "--csv and --json exclude each other.");
    }
    int64_t now = clock_wall_us();
    if (!parse_when(since, now, &r.query.since_us)) {
        return cli_usage(&command_report, "--since takes a span like 30d or a day like 2026-11-01, not \"%s\".", since);
    }
    if (until && !parse_when(until, now, &r.query.until_us)) {
        return cli_usage(&command_report, "--until takes a span like 1d or a day like 2026-11-01, not \"%s\".", until);
    }
    char *list = strdup(by);
    int   code = !list ? EXIT_FAILED : EXIT_USAGE;
    if (list && parse_by(list, &r.query)) {
        code = work(data, &r, csv ? REPORT_CSV : json ? REPORT_JSON : REPORT_TABLE, rows);
    }
    free(list);
    return code;
}
