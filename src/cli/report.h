/* report.h - what the files of `pare report` share. */
#ifndef PARE_CLI_REPORT_H
#define PARE_CLI_REPORT_H

#include "store/ledger.h"

typedef enum report_form { REPORT_TABLE, REPORT_CSV, REPORT_JSON } report_form;

typedef struct report_row { /* a line of the ledger's, with names of its own */
    char       *names[LEDGER_MAX_BY];
    ledger_line sums; /* sums.names are not used */
} report_row;

typedef struct report {
    ledger_query query;
    report_row  *rows;
    size_t       n_rows, room;
    ledger_line  total;
} report;

/* Onto standard output. */
void report_table(const report *r);
void report_csv(const report *r);
void report_json(const report *r);

/* The rows of the ledger themselves, one a call: ctx is a report_form * (CSV with a head, or JSON lines). */
void report_rows_head(report_form form);
bool report_rows_one(void *ctx, const ledger_row *row, err *e);

#endif
