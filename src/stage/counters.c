#include "stage/counters.h"

#include <stdatomic.h>
#include <stdlib.h>

#define BUCKETS 16

/* Seconds, upper bounds; from an exact hit to a long generation. */
static const double bounds[BUCKETS] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                       0.05,   0.1,     0.25,   0.5,   1,      2.5,   10,   60};

static const char *const by_name[BY_COUNT] = {"recall.exact", "local", "remote", "none"};
static const char *const outcome_name[] = {"open", "ok", "error", "refused", "cancelled"};
#define OUTCOMES 5

typedef struct histogram {
    _Atomic int64_t bucket[BUCKETS + 1];
    _Atomic int64_t sum_us;
} histogram;

struct counters {
    _Atomic int64_t in_flight;
    _Atomic int64_t requests[BY_COUNT][OUTCOMES];
    _Atomic int64_t streams;
    _Atomic int64_t prompt[BY_COUNT], completion[BY_COUNT], cached;
    _Atomic int64_t cost_micro, saved_micro;
    histogram       total[BY_COUNT], first[BY_COUNT];
};

counters *counters_new(void) {
    return calloc(1, sizeof(counters));
}

void counters_free(counters *c) {
    free(c);
}

static void more(_Atomic int64_t *n, int64_t by) {
    atomic_fetch_add_explicit(n, by, memory_order_relaxed);
}

static int64_t get(const _Atomic int64_t *n) {
    return atomic_load_explicit((_Atomic int64_t *)n, memory_order_relaxed);
}

static void observe(histogram *h, int64_t us) {
    int i = 0;
    while (i < BUCKETS && (double)us > bounds[i] * 1e6) {
        i++;
    }
    more(&h->bucket[i], 1);
    more(&h->sum_us, us);
}

void counters_begin(counters *c) {
    more(&c->in_flight, 1);
}

void counters_end(counters *c, const counted *w) {
    more(&c->in_flight, -1);
    more(&c->requests[w->by][w->outcome], 1);
    if (w->stream) {
        more(&c->streams, 1);
    }
    more(&c->prompt[w->by], w->prompt_tokens);
    more(&c->completion[w->by], w->completion_tokens);
    more(&c->cached, w->cached_tokens);
    more(&c->cost_micro, w->cost_micro);
    more(&c->saved_micro, w->saved_micro);
    observe(&c->total[w->by], w->total_us);
    if (w->first_us >= 0) {
        observe(&c->first[w->by], w->first_us);
    }
}

static void head(str *out, const char *name, const char *type, const char *help) {
    str_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void write_histograms(const histogram *h, const char *name, const char *help, str *out) {
    head(out, name, "histogram", help);
    for (int by = 0; by < BY_COUNT; by++) {
        int64_t sum = 0;
        for (int i = 0; i <= BUCKETS; i++) {
            sum += get(&h[by].bucket[i]);
            if (i < BUCKETS) {
                str_addf(out, "%s_bucket{answered_by=\"%s\",le=\"%g\"} %lld\n", name, by_name[by], bounds[i],
                         (long long)sum);
            } else {
                str_addf(out, "%s_bucket{answered_by=\"%s\",le=\"+Inf\"} %lld\n", name, by_name[by], (long long)sum);
            }
        }
        str_addf(out, "%s_sum{answered_by=\"%s\"} %.6f\n%s_count{answered_by=\"%s\"} %lld\n", name, by_name[by],
                 (double)get(&h[by].sum_us) / 1e6, name, by_name[by], (long long)sum);
    }
}

static void write_tokens(const counters *c, str *out) {
    head(out, "pare_tokens_total", "counter", "Tokens by direction and by who answered.");
    for (int by = 0; by < BY_COUNT; by++) {
        str_addf(out, "pare_tokens_total{answered_by=\"%s\",kind=\"prompt\"} %lld\n", by_name[by],
                 (long long)get(&c->prompt[by]));
        str_addf(out, "pare_tokens_total{answered_by=\"%s\",kind=\"completion\"} %lld\n", by_name[by],
                 (long long)get(&c->completion[by]));
    }
    head(out, "pare_prompt_cached_tokens_total", "counter", "Prompt tokens that the backend had in its own cache.");
    str_addf(out, "pare_prompt_cached_tokens_total %lld\n", (long long)get(&c->cached));
}

bool counters_write(const counters *c, str *out) {
    head(out, "pare_requests_in_flight", "gauge", "Exchanges that have begun and not ended.");
    str_addf(out, "pare_requests_in_flight %lld\n", (long long)get(&c->in_flight));
    head(out, "pare_requests_total", "counter", "Finished exchanges by who answered and how they ended.");
    for (int by = 0; by < BY_COUNT; by++) {
        for (int o = 1; o < OUTCOMES; o++) {
            str_addf(out, "pare_requests_total{answered_by=\"%s\",outcome=\"%s\"} %lld\n", by_name[by], outcome_name[o],
                     (long long)get(&c->requests[by][o]));
        }
    }
    head(out, "pare_streams_total", "counter", "Finished exchanges whose client asked for a stream.");
    str_addf(out, "pare_streams_total %lld\n", (long long)get(&c->streams));
    write_tokens(c, out);
    head(out, "pare_cost_usd_total", "counter", "Money spent.");
    str_adds(out, "pare_cost_usd_total ");
    str_usd(out, get(&c->cost_micro));
    str_adds(out, "\n");
    head(out, "pare_saved_usd_total", "counter", "Money that the same answers would have cost without pare.");
    str_adds(out, "pare_saved_usd_total ");
    str_usd(out, get(&c->saved_micro));
    str_adds(out, "\n");
    write_histograms(c->total, "pare_request_seconds", "Arrival to the end of the answer.", out);
    write_histograms(c->first, "pare_first_token_seconds", "Arrival to the first token.", out);
    return !out->failed;
}
