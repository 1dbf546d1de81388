/* counters.h - what /metrics shows of the gateway. Written from all loops, with relaxed atomics; read at any time. */
#ifndef PARE_STAGE_COUNTERS_H
#define PARE_STAGE_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

typedef struct counters counters;

typedef enum counted_by { BY_RECALL_EXACT, BY_LOCAL, BY_REMOTE, BY_NOBODY, BY_COUNT } counted_by;

typedef struct counted { /* one finished exchange */
    counted_by by;
    int        outcome; /* enum outcome */
    bool       stream;
    int64_t    prompt_tokens, completion_tokens, cached_tokens;
    int64_t    cost_micro, saved_micro;
    int64_t    first_us, total_us; /* first_us < 0: no token came */
} counted;

counters *counters_new(void);
void      counters_free(counters *c);
void      counters_begin(counters *c); /* one more in flight */
void      counters_end(counters *c, const counted *what);
bool      counters_write(const counters *c, str *out); /* Prometheus text */

#endif
