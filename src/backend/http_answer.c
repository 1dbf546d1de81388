#include "backend/http_answer.h"

#include <string.h>
#include <strings.h>

enum { STATUS, HEADER, BODY_LENGTH, BODY_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, DONE };

static http_step bad(err *e, const char *why) {
    err_set(e, ERR_UPSTREAM, "%s", why);
    return HTTP_BAD;
}

/* ---- lines ---- */

typedef enum found { LINE_NONE, LINE_FOUND, LINE_BAD } found;

/* The next line without its end. It points into the bytes given, or into a->line when it came in pieces. */
static found next_line(http_answer *a, const char **bytes, size_t *n, const char **line, size_t *length, err *e) {
    const char *end = memchr(*bytes, '\n', *n);
    size_t      take = end ? (size_t)(end - *bytes) + 1 : *n;
    a->head_bytes += take;
    if (a->line.len + take > HTTP_ANSWER_MAX_LINE || a->head_bytes > HTTP_ANSWER_MAX_HEAD) {
        bad(e, "its headers are larger than pare reads");
        return LINE_BAD;
    }
    *line = *bytes;
    *length = take;
    if (!end || a->line.len > 0) {
        if (!str_add(&a->line, *bytes, take)) {
            err_set(e, ERR_MEMORY, "out of memory");
            return LINE_BAD;
        }
        *line = a->line.data;
        *length = a->line.len;
    }
    *bytes += take;
    *n -= take;
    if (!end) {
        return LINE_NONE;
    }
    a->line.len = 0; /* its bytes stay until the next piece comes */
    *length -= 1;
    *length -= *length > 0 && (*line)[*length - 1] == '\r';
    if (memchr(*line, '\0', *length)) {
        bad(e, "there is a NUL among its headers");
        return LINE_BAD;
    }
    return LINE_FOUND;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* ---- the head ---- */

static bool read_status(http_answer *a, const char *line, size_t n, err *e) {
    if (n < 12 || memcmp(line, "HTTP/1.", 7) != 0 || !is_digit(line[7]) || line[8] != ' ' || !is_digit(line[9]) ||
        !is_digit(line[10]) || !is_digit(line[11]) || (n > 12 && line[12] != ' ')) {
        bad(e, "it does not speak HTTP/1");
        return false;
    }
    a->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    a->http10 = line[7] == '0';
    a->said_close = a->said_keep = a->chunked = a->has_length = a->frames = false;
    a->text = NULL;
    a->left = 0;
    a->type[0] = a->retry_after[0] = '\0';
    if (a->status < 100 || a->status == 101) {
        bad(e, "it answered with a status that was not asked for");
        return false;
    }
    a->state = HEADER;
    return true;
}

static bool named(const char *line, size_t n, const char *name) {
    return n == strlen(name) && strncasecmp(line, name, n) == 0;
}

/* Adds to the text of the last header, which a folded line goes on with. */
static void add_text(http_answer *a, const char *value, size_t n) {
    size_t have = strlen(a->text);
    size_t room = a->text_size - 1 - have;
    n = n < room ? n : room;
    memcpy(a->text + have, value, n);
    a->text[have + n] = '\0';
}

static void begin_text(http_answer *a, char *out, size_t size, const char *value, size_t n) {
    a->text = out;
    a->text_size = size;
    out[0] = '\0';
    add_text(a, value, n);
}

static void trim(const char **value, const char **end) {
    while (*value < *end && (**value == ' ' || **value == '\t')) {
        (*value)++;
    }
    while (*end > *value && ((*end)[-1] == ' ' || (*end)[-1] == '\t')) {
        (*end)--;
    }
}

static bool read_length(http_answer *a, const char *value, size_t n, err *e) {
    uint64_t length = 0;
    bool     good = n > 0 && n <= 18; /* 10^18 bytes are past any limit of ours */
    for (size_t i = 0; good && i < n; i++) {
        good = is_digit(value[i]);
        length = length * 10 + (uint64_t)(value[i] - '0');
    }
    if (!good || (a->has_length && a->left != length)) {
        bad(e, "its content-length is not a number, or there are two");
        return false;
    }
    a->has_length = true;
    a->left = length;
    return true;
}

/* Does a list of names with commas hold this one? */
static bool lists(const char *value, size_t n, const char *name) {
    size_t length = strlen(name);
    for (size_t i = 0; i < n;) {
        while (i < n && (value[i] == ' ' || value[i] == '\t' || value[i] == ',')) {
            i++;
        }
        size_t from = i;
        while (i < n && value[i] != ',' && value[i] != ' ' && value[i] != '\t') {
            i++;
        }
        if (i - from == length && strncasecmp(value + from, name, length) == 0) {
            return true;
        }
    }
    return false;
}

static bool read_encoding(http_answer *a, const char *value, size_t n, err *e) {
    if (named(value, n, "chunked") && !a->chunked) {
        a->chunked = true;
    } else if (!named(value, n, "identity")) {
        bad(e, "its transfer-encoding is one that pare does not read");
        return false;
    }
    return true;
}

static bool read_header(http_answer *a, const char *line, size_t n, err *e) {
    const char *end = line + n;
    if (line[0] == ' ' || line[0] == '\t') { /* a folded line (RFC 9112, section 5.2) */
        if (a->frames) {
            bad(e, "one of its headers goes over two lines");
            return false;
        }
        trim(&line, &end);
        if (a->text) {
            add_text(a, line, (size_t)(end - line));
        }
        return true;
    }
    const char *colon = memchr(line, ':', n);
    size_t      name = colon ? (size_t)(colon - line) : 0;
    if (name == 0 || memchr(line, ' ', name) || memchr(line, '\t', name)) {
        bad(e, "one of its headers has no name");
        return false;
    }
    const char *value = colon + 1;
    trim(&value, &end);
    size_t length = (size_t)(end - value);
    a->text = NULL;
    a->frames = true;
    if (named(line, name, "content-type")) {
        a->frames = false;
        begin_text(a, a->type, sizeof a->type, value, length);
    } else if (named(line, name, "retry-after")) {
        a->frames = false;
        begin_text(a, a->retry_after, sizeof a->retry_after, value, length);
    } else if (named(line, name, "content-length")) {
        return read_length(a, value, length, e);
    } else if (named(line, name, "transfer-encoding")) {
        return read_encoding(a, value, length, e);
    } else if (named(line, name, "connection")) {
        a->said_close = a->said_close || lists(value, length, "close");
        a->said_keep = a->said_keep || lists(value, length, "keep-alive");
    } else {
        a->frames = false;
    }
    return true;
}

/* The empty line after the headers: how does the body end? (RFC 9112, section 6.3) */
static bool end_head(http_answer *a, err *e) {
    if (a->status < 200) {
        a->state = STATUS;
        a->status = 0;
        return ++a->informational <= HTTP_ANSWER_MAX_1XX || bad(e, "it does not come to its answer") != HTTP_BAD;
    }
    a->keep = a->http10 ? a->said_keep && !a->said_close : !a->said_close;
    a->head_bytes = 0;
    if (a->status == 204 || a->status == 304) {
        a->state = DONE;
    } else if (a->chunked) {
        a->state = CHUNK_SIZE;
        /* Both, or chunks of HTTP/1.0, which has none: somebody between us may read it otherwise (section 6.1). */
        a->keep = a->keep && !a->has_length && !a->http10;
        a->left = 0;
    } else if (a->has_length) {
        a->state = a->left > 0 ? BODY_LENGTH : DONE;
    } else {
        a->state = BODY_CLOSE;
        a->keep = false;
    }
    return true;
}

/* ---- chunks ---- */

static int hex_digit(char c) {
    if (is_digit(c)) {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_chunk_size(http_answer *a, const char *line, size_t n, err *e) {
    uint64_t size = 0;
    size_t   digits = 0;
    while (digits < n && hex_digit(line[digits]) >= 0 && digits <= 15) {
        size = size << 4 | (uint64_t)hex_digit(line[digits++]);
    }
    bool ends = digits == n || line[digits] == ';' || line[digits] == ' ' || line[digits] == '\t';
    if (digits == 0 || digits > 15 || !ends) {
        bad(e, "the length of a chunk is not a number");
        return false;
    }
    a->head_bytes = 0;
    a->left = size;
    a->state = size > 0 ? CHUNK_DATA : TRAILER;
    return true;
}

static bool read_line(http_answer *a, const char *line, size_t n, err *e) {
    switch (a->state) {
    case STATUS:
        return read_status(a, line, n, e);
    case HEADER:
        return n > 0 ? read_header(a, line, n, e) : end_head(a, e);
    case CHUNK_SIZE:
        return read_chunk_size(a, line, n, e);
    case CHUNK_END:
        a->state = CHUNK_SIZE;
        return n == 0 || bad(e, "a chunk is longer than it says") != HTTP_BAD;
    default: /* TRAILER: nothing in it is of use */
        if (n == 0) {
            a->state = DONE;
        }
        return true;
    }
}

static http_step take_body(http_answer *a, const char **bytes, size_t *n, const char **body, size_t *body_n) {
    size_t take = *n;
    if (a->state != BODY_CLOSE) {
        take = take < a->left ? take : (size_t)a->left;
        a->left -= take;
        if (a->left == 0) {
            a->state = a->state == CHUNK_DATA ? CHUNK_END : DONE;
        }
    }
    *body = *bytes;
    *body_n = take;
    *bytes += take;
    *n -= take;
    return HTTP_BODY;
}

http_step http_answer_step(http_answer *a, const char **bytes, size_t *n, const char **body, size_t *body_n, err *e) {
    while (a->state != DONE) {
        if (*n == 0) {
            return HTTP_MORE;
        }
        if (a->state == BODY_LENGTH || a->state == BODY_CLOSE || a->state == CHUNK_DATA) {
            return take_body(a, bytes, n, body, body_n);
        }
        const char *line = NULL;
        size_t      length = 0;
        found       f = next_line(a, bytes, n, &line, &length, e);
        if (f == LINE_BAD || (f == LINE_FOUND && !read_line(a, line, length, e))) {
            return HTTP_BAD;
        }
    }
    return HTTP_END;
}

http_step http_answer_closed(http_answer *a, err *e) {
    if (a->state == DONE || a->state == BODY_CLOSE) {
        a->state = DONE;
        return HTTP_END;
    }
    return bad(e, a->status == 0 ? "it closed the connection" : "it closed the connection in the middle");
}

void http_answer_clear(http_answer *a) {
    str_free(&a->line);
    *a = (http_answer){0};
}
