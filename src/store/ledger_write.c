/* ledger_write.c - rows of the ledger: packed while they wait, then written many by one statement, in order of their
 * arrival, so that the table grows at its end and the pages that it fills are written once.
 *
 * Of a row most is as in the row before (the key, the model, the stage, the kinds of tokens that there were none of), and
 * a comparison is cheaper than a binding: a place of the statement is bound anew only where it differs.               */
#include <string.h>

#include "store/db_parts.h"

/* In the order of the statement (writer.c): texts first. */
#define TEXTS(r)                                                                                                       \
    { (r)->id, (r)->key, (r)->group, (r)->model, (r)->stage, (r)->backend, (r)->upstream, (r)->tier, (r)->outcome }

static const size_t sizes[ROW_TEXTS] = {
    sizeof(((ledger_row *)0)->id),       sizeof(((ledger_row *)0)->key),   sizeof(((ledger_row *)0)->group),
    sizeof(((ledger_row *)0)->model),    sizeof(((ledger_row *)0)->stage), sizeof(((ledger_row *)0)->backend),
    sizeof(((ledger_row *)0)->upstream), sizeof(((ledger_row *)0)->tier),  sizeof(((ledger_row *)0)->outcome)};

size_t ledger_text_bytes(const ledger_row *r) {
    const char *const texts[ROW_TEXTS] = TEXTS(r);
    size_t            n = 0;
    for (int i = 0; i < ROW_TEXTS; i++) {
        n += strnlen(texts[i], sizes[i] - 1);
    }
    return n;
}

void ledger_pack(op *o, const ledger_row *r) {
    const char *const texts[ROW_TEXTS] = TEXTS(r);
    char             *to = o->text;
    o->row = (packed_row){.time_us = r->time_us,
                          .numbers = {r->prompt_tokens, r->completion_tokens, r->cached_tokens, r->reasoning_tokens,
                                      r->write_5m, r->write_1h, r->audio_in, r->audio_out, r->image_in, r->searches,
                                      r->counted, r->attempt, r->cost_nano, r->saved_nano, r->queue_us, r->first_us,
                                      r->total_us, r->stream, r->status}};
    for (int i = 0; i < ROW_TEXTS; i++) {
        size_t n = strnlen(texts[i], sizes[i] - 1);
        memcpy(to, texts[i], n);
        o->row.lengths[i] = (uint8_t)n;
        to += n;
    }
}

/* ---- binding ---- */

/* The columns from `at` on; `before` is what they hold, or NULL. */
static void bind_row(sqlite3_stmt *s, int at, const op *o, const op *before) {
    const packed_row *r = &o->row, *was = before ? &before->row : NULL;
    const char       *text = o->text, *old = before ? before->text : NULL;
    sqlite3_bind_int64(s, at++, r->id);
    sqlite3_bind_int64(s, at++, r->time_us);
    for (int i = 0; i < ROW_TEXTS; i++, at++) {
        size_t n = r->lengths[i];
        if (!was || was->lengths[i] != n || memcmp(text, old, n) != 0) {
            sqlite3_bind_text(s, at, text, (int)n, SQLITE_STATIC);
        }
        text += n;
        if (was) {
            old += was->lengths[i];
        }
    }
    for (int i = 0; i < ROW_NUMBERS; i++, at++) {
        if (!was || was->numbers[i] != r->numbers[i]) {
            sqlite3_bind_int64(s, at, r->numbers[i]);
        }
    }
}

/* ---- writing ---- */

static int run(sqlite3_stmt *s) {
    int code = sqlite3_step(s);
    sqlite3_reset(s);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* An id that is taken (another process has the same microsecond) is passed by, in steps that double, so that a dense
 * stretch of them is left soon. */
static int write_one(db *d, op *o, int64_t *written) {
    int code = SQLITE_CONSTRAINT;
    for (int64_t step = 1; (code & 0xFF) == SQLITE_CONSTRAINT && step < 1 << 24; step *= 2) {
        bind_row(d->sql[SQL_LEDGER], 1, o, NULL);
        code = run(d->sql[SQL_LEDGER]);
        o->row.id += code == SQLITE_OK ? 0 : step;
    }
    *written += code == SQLITE_OK;
    return code == SQLITE_OK || writer_drops(d, OP_LEDGER, code) ? SQLITE_OK : code;
}

static int write_many(db *d, op **rows, int64_t *written) {
    sqlite3_stmt *s = d->sql[SQL_LEDGER_MANY];
    for (int i = 0; i < LEDGER_ROWS; i++) {
        bind_row(s, 1 + i * LEDGER_COLUMNS, rows[i], d->bound[i]);
        d->bound[i] = rows[i];
    }
    int code = run(s);
    *written += code == SQLITE_OK ? LEDGER_ROWS : 0;
    return code;
}

/* By insertion: rows come nearly in order, each late by as much as its exchange took. */
static void sort_by_time(op **rows, int n) {
    for (int i = 1; i < n; i++) {
        op *o = rows[i];
        int at = i;
        for (; at > 0 && rows[at - 1]->row.time_us > o->row.time_us; at--) {
            rows[at] = rows[at - 1];
        }
        rows[at] = o;
    }
}

/* Each larger than the one before, also where more rows have one microsecond than there are ids in it, and where the batch
 * before ended with the same. */
static void give_ids(db *d, op **rows, int n) {
    int64_t last = n > 0 && d->last_id / 1024 == ledger_id(rows[0]->row.time_us) / 1024 ? d->last_id : 0;
    for (int i = 0; i < n; i++) {
        int64_t at = rows[i]->row.time_us; /* before the last, so that every window that is open at its end has it */
        int64_t id = ledger_id(at < LEDGER_LAST_US ? at : LEDGER_LAST_US - 1) + (d->id_salt++ & 511);
        last = id > last ? id : last + 1;
        rows[i]->row.id = last;
    }
    d->last_id = last;
}

int ledger_write(db *d, op **rows, int n, int64_t *written) {
    sort_by_time(rows, n);
    give_ids(d, rows, n);
    memset(d->bound, 0, sizeof d->bound); /* they were of a batch that is gone */
    int code = SQLITE_OK, i = 0;
    for (; d->many && code == SQLITE_OK && n - i >= LEDGER_ROWS; i += LEDGER_ROWS) {
        code = write_many(d, rows + i, written);
    }
    for (; code == SQLITE_OK && i < n; i++) {
        code = write_one(d, rows[i], written);
    }
    return code;
}
