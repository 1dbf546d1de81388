#include "backend/latency.h"

#include <math.h>
#include <string.h>

#define TAU_MS  10000.0 /* the average loses all but 1/e of an old value in so long */
#define PENALTY 1e12    /* of who is not known and has a call in flight: behind all who are known */
#define ENOUGH  20      /* fewer have no 95th percentile */
#define FULL    2048    /* then all counts are halved, lest yesterday outvote today */
#define LEAST   6       /* 2^6 us: the first bucket begins there */

typedef struct average {
    float    us;
    uint32_t at_ms; /* wraps after 49 days; differences do not mind */
} average;

static average unpack(uint64_t word) {
    average  a = {.at_ms = (uint32_t)word};
    uint32_t bits = (uint32_t)(word >> 32);
    memcpy(&a.us, &bits, sizeof bits);
    return a;
}

static uint64_t pack(average a) {
    uint32_t bits;
    memcpy(&bits, &a.us, sizeof bits);
    return (uint64_t)bits << 32 | a.at_ms;
}

static double weight_of(average a, int64_t now_us) {
    int32_t ms = (int32_t)((uint32_t)(now_us / 1000) - a.at_ms); /* another loop may have been a little later */
    return exp(-(ms > 0 ? (double)ms : 0) / TAU_MS);
}

void latency_note(latency *l, int64_t took_us, int64_t now_us) {
    double   took = took_us > 1 ? (double)took_us : 1;
    uint64_t seen = atomic_load(&l->word), to;
    do {
        average a = unpack(seen);
        double  w = weight_of(a, now_us), old = (double)a.us * w;
        double  now = took > old ? took : (double)a.us * w + took * (1 - w);
        to = pack((average){.us = (float)now, .at_ms = (uint32_t)(now_us / 1000)});
    } while (!atomic_compare_exchange_weak(&l->word, &seen, to));
}

double latency_now(const latency *l, int64_t now_us) {
    average a = unpack(atomic_load(&l->word));
    return (double)a.us * weight_of(a, now_us);
}

double latency_cost(const latency *l, int in_flight, int64_t now_us) {
    double us = latency_now(l, now_us);
    if (us <= 0) {
        return in_flight > 0 ? PENALTY * in_flight : 0;
    }
    return us * (1 + in_flight);
}

static int bucket_of(int64_t us) {
    if (us < 1 << LEAST) {
        return 0;
    }
    int octave = 63 - __builtin_clzll((uint64_t)us); /* gcc and clang */
    int i = (octave - LEAST) * 8 + (int)(us >> (octave - 3) & 7);
    return i < LATENCY_BUCKETS ? i : LATENCY_BUCKETS - 1;
}

/* Where bucket i ends. */
static int64_t edge_of(int i) {
    return (int64_t)(8 + i % 8 + 1) << (i / 8 + LEAST - 3);
}

/* Counts that come in meanwhile may be halved or not; neither matters. */
static void halve(latency_spread *s) {
    uint32_t left = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        uint32_t n = atomic_load_explicit(&s->counts[i], memory_order_relaxed);
        atomic_fetch_sub_explicit(&s->counts[i], n / 2, memory_order_relaxed);
        left += n - n / 2;
    }
    atomic_store(&s->total, left);
}

void latency_spread_note(latency_spread *s, int64_t took_us) {
    atomic_fetch_add_explicit(&s->counts[bucket_of(took_us)], 1, memory_order_relaxed);
    if (atomic_fetch_add(&s->total, 1) + 1 == FULL) { /* one of all threads sees this number */
        halve(s);
    }
}

int64_t latency_p95(const latency_spread *s) {
    uint32_t counts[LATENCY_BUCKETS];
    uint64_t total = 0, below = 0;
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        counts[i] = atomic_load_explicit(&s->counts[i], memory_order_relaxed);
        total += counts[i];
    }
    if (total < ENOUGH) {
        return 0;
    }
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        below += counts[i];
        if (below * 100 >= total * 95) {
            return edge_of(i);
        }
    }
    return edge_of(LATENCY_BUCKETS - 1);
}
