/* clock.h - time in microseconds. */
#ifndef PARE_BASE_CLOCK_H
#define PARE_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_us(void);      /* monotonic: for durations */
int64_t clock_wall_us(void); /* since 1970, UTC: for rows and logs */

#endif
