#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "base/utf8.h"

static atomic_int  least_level = LOG_INFO;
static atomic_bool as_json;

void log_setup(log_level least, bool json) {
    atomic_store(&least_level, (int)least);
    atomic_store(&as_json, json);
}

static const char *word(log_level level) {
    switch (level) {
    case LOG_DEBUG:
        return "debug";
    case LOG_INFO:
        return "info";
    case LOG_WARN:
        return "warn";
    default:
        return "error";
    }
}

/* One event is one line: whatever a stranger put into a name cannot begin a second one or move the cursor. */
static void make_plain(char *text) {
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7F) {
            *p = ' ';
        }
    }
    size_t bad;
    while (!utf8_valid(text, strlen(text), &bad)) {
        text[bad] = '?';
    }
}

void log_write(log_level level, const char *format, ...) {
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed) || level >= LOG_OFF) {
        return;
    }
    char    text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    text[utf8_whole(text, strlen(text))] = '\0';
    make_plain(text);

    int64_t   now = clock_wall_us();
    time_t    seconds = (time_t)(now / 1000000);
    struct tm utc;
    char      when[32] = "";
    gmtime_r(&seconds, &utc);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &utc);

    str line = {0};
    int ms = (int)(now / 1000 % 1000);
    if (atomic_load_explicit(&as_json, memory_order_relaxed)) {
        str_addf(&line, "{\"time\":\"%s.%03dZ\",\"level\":\"%s\",\"message\":", when, ms, word(level));
        str_jsons(&line, text);
        str_adds(&line, "}\n");
    } else {
        str_addf(&line, "%s.%03dZ %-5s %s\n", when, ms, word(level), text);
    }
    if (!line.failed) { /* one write, so that lines of several threads do not mix */
        while (write(STDERR_FILENO, line.data, line.len) < 0 && errno == EINTR) {
        }
    }
    str_free(&line);
}
