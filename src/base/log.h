/* log.h - one line an event on stderr, as text or as JSON. Never a secret; never a prompt, unless the operator asks for
 * it. Thread safe.
 *
 * Who logs writes the line himself, until log_start: from then on a thread writes, and who logs waits for nobody. A stderr
 * that is read too slowly makes LOG_WAITING bytes wait; what comes then is dropped, counted, and told when there is room
 * again.                                                                                                              */
#ifndef PARE_BASE_LOG_H
#define PARE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF } log_level;

void log_setup(log_level least, bool json);
void log_write(log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#define LOG_WAITING (1u << 20) /* bytes */

bool log_start(err *e);
void log_stop(
    int64_t wait_us); /* what waits is written, for at most that long and half a second; then as before log_start */
int64_t log_dropped(void); /* lines, since the process began */

/* ---- log_event.c: a message with fields ---- */

typedef enum log_kind {
    LOG_TEXT, /* left out where it is NULL; anybody's bytes: what is no UTF-8, ends a line or hides is written harmlessly */
    LOG_NUMBER,
    LOG_MILLI, /* thousandths, written as a decimal number */
    LOG_MICRO, /* millionths */
    LOG_FLAG
} log_kind;

typedef struct log_field {
    const char *name; /* ours: letters and underscores */
    log_kind    kind;
    const char *text;
    int64_t     number;
} log_field;

/* {"time":...,"level":...,"message":message,name:value,...} or: time level message name=value name="a value" (logfmt) */
void log_event(log_level level, const char *message, const log_field *fields, int n);

/* ---- for log_event.c ---- */

bool log_wants(log_level level);
bool log_as_json(void);
void log_head(log_level level, const char *message, str *line); /* all but the end of the line, and its brace */
/* What ends a line, moves a terminal's cursor, or shows text in another order than it has (Unicode's bidirectional controls):
 * it is written as a blank or an escape. */
bool log_hides(uint32_t c);
void log_put(const str *line); /* a whole line with its line feed */

#endif
