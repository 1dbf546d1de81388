/* log_event.c - a line of the log with fields, as JSON or as logfmt (name=value, quoted where it must be). */
#include <string.h>

#include "base/log.h"
#include "base/utf8.h"

/* Quoted, with JSON's escapes; a byte that is not UTF-8 becomes U+FFFD. */
static void add_quoted(str *out, const char *text) {
    size_t n = strlen(text);
    str_addc(out, '"');
    for (size_t at = 0; at < n;) {
        uint32_t c;
        char     bytes[4];
        at += utf8_decode(text + at, n - at, &c);
        if (c == '"' || c == '\\') {
            str_addc(out, '\\');
            str_addc(out, (char)c);
        } else if (c == '\n') {
            str_adds(out, "\\n");
        } else if (log_hides(c)) {
            str_addf(out, "\\u%04x", (unsigned)c);
        } else {
            str_add(out, bytes, utf8_encode(c, bytes));
        }
    }
    str_addc(out, '"');
}

static bool is_bare(const char *text) {
    if (!*text) {
        return false;
    }
    for (const char *p = text; *p; p++) {
        if (*p <= ' ' || *p >= 0x7F || *p == '"' || *p == '=' || *p == '\\') {
            return false;
        }
    }
    return true;
}

/* `unit` parts of a whole, with as many digits. */
static void add_decimal(str *out, int64_t number, int64_t unit, int digits) {
    uint64_t size = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    str_addf(out, "%s%llu.%0*llu", number < 0 ? "-" : "", (unsigned long long)(size / (uint64_t)unit), digits,
             (unsigned long long)(size % (uint64_t)unit));
}

static void add_value(str *out, const log_field *f, bool json) {
    switch (f->kind) {
    case LOG_TEXT:
        if (!json && is_bare(f->text)) {
            str_adds(out, f->text);
        } else {
            add_quoted(out, f->text);
        }
        return;
    case LOG_NUMBER:
        str_addf(out, "%lld", (long long)f->number);
        return;
    case LOG_MILLI:
        add_decimal(out, f->number, 1000, 3);
        return;
    case LOG_MICRO:
        add_decimal(out, f->number, 1000000, 6);
        return;
    case LOG_FLAG:
        str_adds(out, f->number ? "true" : "false");
        return;
    }
}

void log_event(log_level level, const char *message, const log_field *fields, int n) {
    if (!log_wants(level)) {
        return;
    }
    str line = {0};
    log_head(level, message, &line);
    bool json = line.data && line.data[0] == '{'; /* the format may change while we write */
    for (int i = 0; i < n; i++) {
        if (fields[i].kind == LOG_TEXT && !fields[i].text) {
            continue;
        }
        str_addf(&line, json ? ",\"%s\":" : " %s=", fields[i].name);
        add_value(&line, &fields[i], json);
    }
    str_adds(&line, json ? "}\n" : "\n");
    log_put(&line);
    str_free(&line);
}
