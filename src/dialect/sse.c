#include "dialect/sse.h"

#include <string.h>

#define DEFAULT_LIMIT ((size_t)16 << 20)

typedef struct feeding { /* what one call of sse_feed carries along */
    sse_reader *r;
    bool (*payload)(void *, const char *, size_t);
    void  *ctx;
    err   *e;
    size_t limit;
} feeding;

static bool too_long(const feeding *f) {
    return err_set(f->e, ERR_LIMIT, "One event of the stream is longer than %zu bytes.", f->limit);
}

static bool out_of_memory(const feeding *f) {
    return err_set(f->e, ERR_MEMORY, "Out of memory while reading a stream of events.");
}

static bool dispatch(const feeding *f) {
    sse_reader *r = f->r;
    if (!r->has_data) {
        return true;
    }
    r->has_data = false;
    bool good = f->payload(f->ctx, r->data.data ? r->data.data : "", r->data.len);
    str_clear(&r->data);
    return good;
}

static bool add_data(const feeding *f, const char *value, size_t n) {
    sse_reader *r = f->r;
    if (n >= f->limit || r->data.len + n >= f->limit) {
        return too_long(f);
    }
    if (r->has_data) {
        str_addc(&r->data, '\n');
    }
    r->has_data = true;
    return str_add(&r->data, value, n) || out_of_memory(f);
}

/* The value of a "data" line; NULL: another field, or a comment (empty name), which nobody here needs. */
static const char *data_of(const char *line, size_t n, size_t *length) {
    if (n < 4 || memcmp(line, "data", 4) != 0 || (n > 4 && line[4] != ':')) {
        return NULL;
    }
    size_t value = n > 4 ? 5 : 4;
    value += value < n && line[value] == ' ';
    *length = n - value;
    return line + value;
}

/* One whole line without its end. */
static bool take_line(const feeding *f, const char *line, size_t n) {
    if (!f->r->started) {
        f->r->started = true;
        if (n >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
            line += 3;
            n -= 3;
        }
    }
    if (n == 0) {
        return dispatch(f);
    }
    size_t      length;
    const char *value = data_of(line, n, &length);
    return !value || add_data(f, value, length);
}

/* An event that is one line of data and its empty line, all in these bytes, as most are: the payload is handed over where
 * it lies. Says how many bytes the event takes; 0: it is not so. */
static size_t event_in_place(const feeding *f, const char *bytes, size_t n, size_t length, bool *good) {
    const sse_reader *r = f->r;
    size_t            value_n;
    const char       *value;
    if (!r->started || r->has_data || r->line.len > 0 || n - length < 2 || memcmp(bytes + length, "\n\n", 2) != 0 ||
        !(value = data_of(bytes, length, &value_n)) || value_n >= f->limit) {
        return 0;
    }
    *good = f->payload(f->ctx, value, value_n);
    return length + 2;
}

static size_t line_length(const char *bytes, size_t n) {
    const char *lf = memchr(bytes, '\n', n);
    size_t      until = lf ? (size_t)(lf - bytes) : n;
    const char *cr = memchr(bytes, '\r', until);
    return cr ? (size_t)(cr - bytes) : until;
}

/* A line is handed over in place; only one that is split between two calls is copied. */
static bool end_line(const feeding *f, const char *piece, size_t n) {
    str *line = &f->r->line;
    if (line->len == 0) {
        return take_line(f, piece, n);
    }
    if (!str_add(line, piece, n)) {
        return out_of_memory(f);
    }
    bool good = take_line(f, line->data, line->len);
    str_clear(line);
    return good;
}

bool sse_feed(sse_reader *r, const char *bytes, size_t n, bool (*payload)(void *, const char *, size_t), void *ctx,
              err *e) {
    feeding f = {.r = r, .payload = payload, .ctx = ctx, .e = e, .limit = r->limit ? r->limit : DEFAULT_LIMIT};
    size_t  at = 0;
    while (at < n) {
        if (r->after_cr) { /* the LF of a CRLF, maybe in another call than its CR */
            r->after_cr = false;
            if (bytes[at] == '\n') {
                at++;
                continue;
            }
        }
        size_t length = line_length(bytes + at, n - at);
        if (length > f.limit || r->line.len + length > f.limit + 16) { /* 16: "data: " and a byte order mark */
            return too_long(&f);
        }
        if (at + length == n) {
            return str_add(&r->line, bytes + at, length) || out_of_memory(&f);
        }
        bool   good;
        size_t whole = event_in_place(&f, bytes + at, n - at, length, &good);
        if (whole > 0) {
            if (!good) {
                return false;
            }
            at += whole;
            continue;
        }
        r->after_cr = bytes[at + length] == '\r';
        if (!end_line(&f, bytes + at, length)) {
            return false;
        }
        at += length + 1;
    }
    return true;
}

bool sse_partial(const sse_reader *r) {
    return r->line.len > 0 || r->has_data;
}

void sse_clear(sse_reader *r) {
    size_t limit = r->limit;
    str_free(&r->line);
    str_free(&r->data);
    *r = (sse_reader){.limit = limit};
}
