/* histogram.h - counts by bucket, written by one thread and read by any without stopping it. */
#ifndef PARE_ENGINE_HISTOGRAM_H
#define PARE_ENGINE_HISTOGRAM_H

#include <stdint.h>

#include "engine/engine.h"

/* Values are whole microseconds or tokens, so that sums are exact and need no atomic double. */
typedef struct histogram {
    _Atomic int64_t count[ENGINE_BUCKETS]; /* of this bucket alone */
    _Atomic int64_t sum;
} histogram;

void histogram_time(histogram *h, int64_t us);
void histogram_batch(histogram *h, int64_t tokens);

/* Adds the buckets up, as engine.h wants them; the sum is multiplied by `unit` (1e-6 for seconds). */
void histogram_read(const histogram *h, double unit, engine_histogram *out);

#endif
