#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Copies what fits and never cuts a character in two: the sentence ends up in JSON. */
static void copy_text(char *to, size_t size, const char *from) {
    size_t n = strlen(from);
    if (n >= size) {
        n = utf8_whole(from, size - 1);
    }
    memcpy(to, from, n);
    to[n] = '\0';
}

/* Formats into a buffer of its own first, because callers may pass e->text as an argument. */
static void fill(err *e, err_code code, const char *param, const char *format, va_list args) {
    char text[sizeof(e->text)];
    char place[sizeof(e->param)];
    vsnprintf(text, sizeof(text), format, args);
    copy_text(place, sizeof(place), param ? param : "");
    e->code = code;
    copy_text(e->text, utf8_whole(text, strlen(text)) + 1, text);
    copy_text(e->param, sizeof(e->param), place);
}

void err_write(err *e, err_code code, const char *format, ...) {
    if (e) {
        va_list args;
        va_start(args, format);
        fill(e, code, NULL, format, args);
        va_end(args);
    }
}

void err_write_at(err *e, err_code code, const char *param, const char *format, ...) {
    if (e) {
        va_list args;
        va_start(args, format);
        fill(e, code, param, format, args);
        va_end(args);
    }
}

void err_write_prefix(err *e, const char *format, ...) {
    if (e) {
        char    before[sizeof(e->text)];
        char    both[2 * sizeof(e->text) + 2];
        va_list args;
        va_start(args, format);
        vsnprintf(before, sizeof(before), format, args);
        va_end(args);
        snprintf(both, sizeof(both), "%s: %s", before, e->text);
        copy_text(e->text, sizeof(e->text), both);
    }
}

const char *err_word(err_code code) {
    switch (code) {
    case ERR_NONE:
        return "none";
    case ERR_INVALID:
        return "invalid";
    case ERR_NOT_FOUND:
        return "not_found";
    case ERR_DENIED:
        return "denied";
    case ERR_LIMIT:
        return "limit";
    case ERR_CONTEXT:
        return "context";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_IO:
        return "io";
    case ERR_MEMORY:
        return "memory";
    case ERR_BUSY:
        return "busy";
    case ERR_UPSTREAM:
        return "upstream";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_CANCELLED:
        return "cancelled";
    case ERR_INTERNAL:
        return "internal";
    }
    return "internal";
}
