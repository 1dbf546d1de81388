#include "engine/histogram.h"

#include <math.h>
#include <stdatomic.h>

const double engine_time_bounds[ENGINE_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                   0.5,   1,      2.5,   5,    10,    30,   60,  INFINITY};

const double engine_batch_bounds[ENGINE_BUCKETS] = {1,   2,   4,    8,    16,   32,   64,    128,
                                                    256, 512, 1024, 2048, 4096, 8192, 16384, INFINITY};

/* One thread writes, so a load and a store do; readers see each number whole. */
static void add(_Atomic int64_t *to, int64_t n) {
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

static void put(histogram *h, const double *bounds, double value, int64_t whole) {
    int i = 0;
    while (i + 1 < ENGINE_BUCKETS && value > bounds[i]) {
        i++;
    }
    add(&h->count[i], 1);
    add(&h->sum, whole);
}

void histogram_time(histogram *h, int64_t us) {
    put(h, engine_time_bounds, (double)us * 1e-6, us);
}

void histogram_batch(histogram *h, int64_t tokens) {
    put(h, engine_batch_bounds, (double)tokens, tokens);
}

void histogram_read(const histogram *h, double unit, engine_histogram *out) {
    int64_t total = 0;
    for (int i = 0; i < ENGINE_BUCKETS; i++) {
        total += atomic_load_explicit(&h->count[i], memory_order_relaxed);
        out->count[i] = total;
    }
    out->sum = (double)atomic_load_explicit(&h->sum, memory_order_relaxed) * unit;
}
