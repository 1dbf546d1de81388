/* counters.h - what /metrics shows of the gateway. Written from all loops, with relaxed atomics; read at any time. */
#ifndef PARE_STAGE_COUNTERS_H
#define PARE_STAGE_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

typedef struct counters      counters;
typedef struct counted_model counted_model;

typedef enum counted_by { BY_RECALL_EXACT, BY_LOCAL, BY_REMOTE, BY_NOBODY, BY_COUNT } counted_by;

#define COUNTED_OUTCOMES 5    /* enum outcome */
#define COUNTED_MODELS   1000 /* names of the configuration, all reloads together; further ones share one row */

typedef struct counted { /* one finished exchange */
    counted_by     by;
    int            outcome; /* enum outcome */
    int            reason;  /* enum err_code: why there is no answer */
    counted_model *model;   /* NULL: a name that nobody knows */
    bool           stream;
    int64_t        prompt_tokens, completion_tokens, cached_tokens;
    int64_t        cost_nano, saved_nano; /* nano-dollars */
    int64_t        attempts;              /* further tries; their tokens and cost are in the sums above */
    int64_t        first_us, total_us;    /* first_us < 0: no token came */
} counted;

counters *counters_new(void);
void      counters_free(counters *c);
void      counters_begin(counters *c); /* one more in flight */
void      counters_end(counters *c, const counted *what);
bool      counters_write(const counters *c, str *out); /* Prometheus text */

/* The row of a model of the configuration, for as long as the counters live. NULL: out of memory, or too many: then its
 * exchanges are counted with those of no model. Any thread, not on a loop. */
counted_model *counters_model(counters *c, const char *name);

typedef struct counters_sums { /* the same numbers for who writes them otherwise */
    int64_t in_flight, streams, attempts, cached, cost_nano, saved_nano;
    int64_t requests[BY_COUNT][COUNTED_OUTCOMES], prompt[BY_COUNT], completion[BY_COUNT];
} counters_sums;

void        counters_read(const counters *c, counters_sums *out);
const char *counted_by_word(int by);
const char *counted_outcome_word(int outcome);

#endif
