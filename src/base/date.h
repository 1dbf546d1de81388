/* date.h - dates and times as people write them, and where UTC's days and months begin. Microseconds since 1970. */
#ifndef PARE_BASE_DATE_H
#define PARE_BASE_DATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "2026-12-31" (its beginning, UTC) or RFC 3339: "2026-12-31T18:00:00Z", "2026-12-31T18:00:00.5+02:00". Years 1970 to
 * 9999. *us is touched only on success. */
bool parse_date(const char *text, int64_t *us);

#define DATE_TEXT 24
/* "2026-12-31T16:00:00Z"; whole seconds. */
void date_text(int64_t us, char out[DATE_TEXT]);

int64_t day_begin(int64_t us);
int64_t month_begin(int64_t us);

#endif
