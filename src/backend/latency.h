/* latency.h - how soon somebody begins to answer: an estimate that rises at once and falls slowly, and a spread.
 *
 * Any thread, without locks. Times are microseconds, `now_us` is clock_us. */
#ifndef PARE_BACKEND_LATENCY_H
#define PARE_BACKEND_LATENCY_H

#include <stdatomic.h>
#include <stdint.h>

/* A peak-sensitive moving average: a slow answer counts in full at once, quick ones bring it down with a half-life of 7 s,
 * and so does time, so that who was slow is tried again. Source: Finagle's peak EWMA (Twitter, 2014). */
typedef struct latency {
    _Atomic uint64_t word; /* the average as a float's bits, above the milliseconds when it was made */
} latency;

void   latency_note(latency *l, int64_t took_us, int64_t now_us);
double latency_now(const latency *l, int64_t now_us); /* 0: not known */
/* What one more call costs: the average times all that would then be in flight. Who is not known yet is tried first, by
 * one call at a time. */
double latency_cost(const latency *l, int in_flight, int64_t now_us);

#define LATENCY_BUCKETS 192 /* eight an octave, from 64 us to 18 minutes */

typedef struct latency_spread { /* of the last one to two thousand, more or less */
    _Atomic uint32_t counts[LATENCY_BUCKETS];
    _Atomic uint32_t total;
} latency_spread;

void    latency_spread_note(latency_spread *s, int64_t took_us);
/* What 95 of 100 stay below, a ninth too much at most; 0: fewer than twenty are known. */
int64_t latency_p95(const latency_spread *s);

#endif
