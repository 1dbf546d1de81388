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
    const char *colon = memchr(line, ':', n);
    size_t      name = colon ? (size_t)(colon - line) : n;
    if (name != 4 || memcmp(line, "data", 4) != 0) {
        return true; /* a comment (empty name) or a field that nobody here needs */
    }
    size_t value = colon ? name + 1 : n;
    if (value < n && line[value] == ' ') {
        value++;
    }
    return add_data(f, line + value, n - value);
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
