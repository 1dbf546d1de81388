#include "stage/counters.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/money.h"

#define BUCKETS 16

/* Seconds, upper bounds; from an exact hit to a long generation. */
static const double bounds[BUCKETS] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                       0.05,   0.1,     0.25,   0.5,   1,      2.5,   10,   60};

static const char *const by_name[BY_COUNT] = {"recall.exact", "local", "remote", "none"};
static const char *const outcome_name[COUNTED_OUTCOMES] = {"open", "ok", "error", "refused", "cancelled"};
#define OUTCOMES COUNTED_OUTCOMES
#define REASONS  (ERR_INTERNAL + 1)

typedef struct histogram {
    _Atomic int64_t bucket[BUCKETS + 1];
    _Atomic int64_t sum_us;
} histogram;

#define SLOTS      4  /* loops write numbers of their own, which whoever asks sums up; more than so many share them */
#define CACHE_LINE 64 /* bytes */

typedef struct times_of { /* one slot */
    _Alignas(CACHE_LINE) histogram total[BY_COUNT];
    histogram first[BY_COUNT];
} times_of;

struct counted_model {
    times_of       slots[SLOTS];
    counted_model *next;
    char          *name; /* NULL: of no model */
};

typedef struct tally { /* one slot */
    _Alignas(CACHE_LINE) _Atomic int64_t in_flight;
    _Atomic int64_t requests[BY_COUNT][OUTCOMES];
    _Atomic int64_t streams;
    _Atomic int64_t prompt[BY_COUNT], completion[BY_COUNT], cached;
    _Atomic int64_t cost_nano, saved_nano, attempts;
    _Atomic int64_t reasons[OUTCOMES][REASONS];
} tally;

/* Times are kept by model; those of all models are their sums, made when somebody asks. */
struct counters {
    tally                  slots[SLOTS];
    counted_model          other; /* of no model, or of too many */
    pthread_mutex_t        lock;  /* of adding to the list, which only grows */
    counted_model *_Atomic models;
    int                    n_models;
};

/* The calling thread's. */
static unsigned my_slot(void) {
    static atomic_uint            threads;
    static _Thread_local unsigned mine; /* 0: not taken yet */
    if (mine == 0) {
        mine = atomic_fetch_add(&threads, 1) % SLOTS + 1;
    }
    return mine - 1;
}

static void *zeroed(size_t size) {
    void *p = aligned_alloc(CACHE_LINE, size);
    return p ? memset(p, 0, size) : NULL;
}

counters *counters_new(void) {
    counters *c = zeroed(sizeof(counters));
    if (c) {
        pthread_mutex_init(&c->lock, NULL);
    }
    return c;
}

void counters_free(counters *c) {
    if (!c) {
        return;
    }
    for (counted_model *m = atomic_load(&c->models), *next; m; m = next) {
        next = m->next;
        free(m->name);
        free(m);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static counted_model *add_model(counters *c, const char *name) {
    counted_model *m = c->n_models < COUNTED_MODELS ? zeroed(sizeof *m) : NULL;
    char          *copy = m ? strdup(name) : NULL;
    if (!copy) {
        free(m);
        return NULL;
    }
    m->name = copy;
    m->next = atomic_load(&c->models);
    atomic_store(&c->models, m);
    c->n_models++;
    return m;
}

counted_model *counters_model(counters *c, const char *name) {
    pthread_mutex_lock(&c->lock);
    counted_model *m = atomic_load(&c->models);
    while (m && strcmp(m->name, name) != 0) {
        m = m->next;
    }
    m = m ? m : add_model(c, name);
    pthread_mutex_unlock(&c->lock);
    return m;
}

static void more(_Atomic int64_t *n, int64_t by) {
    if (by != 0) {
        atomic_fetch_add_explicit(n, by, memory_order_relaxed);
    }
}

static int64_t get(const _Atomic int64_t *n) {
    return atomic_load_explicit((_Atomic int64_t *)n, memory_order_relaxed);
}

/* A number of the first slot and its like of all others. */
static int64_t sum(const _Atomic int64_t *n) {
    int64_t all = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        all += get(n + i * (sizeof(tally) / sizeof *n));
    }
    return all;
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
    more(&c->slots[my_slot()].in_flight, 1);
}

void counters_end(counters *c, const counted *w) {
    unsigned  slot = my_slot();
    tally    *t = &c->slots[slot];
    times_of *times = &(w->model ? w->model : &c->other)->slots[slot];
    more(&t->in_flight, -1);
    more(&t->requests[w->by][w->outcome], 1);
    more(&t->streams, w->stream);
    more(&t->prompt[w->by], w->prompt_tokens);
    more(&t->completion[w->by], w->completion_tokens);
    more(&t->cached, w->cached_tokens);
    more(&t->cost_nano, w->cost_nano);
    more(&t->saved_nano, w->saved_nano);
    more(&t->attempts, w->attempts);
    more(&t->reasons[w->outcome][w->reason], w->reason != ERR_NONE);
    observe(&times->total[w->by], w->total_us);
    if (w->first_us >= 0) {
        observe(&times->first[w->by], w->first_us);
    }
}

static void head(str *out, const char *name, const char *type, const char *help) {
    str_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* ---- histograms ---- */

typedef struct times { /* a histogram's numbers, or the sum of several */
    int64_t bucket[BUCKETS + 1], sum_us, count;
} times;

static void add_times(times *t, const histogram *h) {
    for (int i = 0; i <= BUCKETS; i++) {
        int64_t n = get(&h->bucket[i]);
        t->bucket[i] += n;
        t->count += n;
    }
    t->sum_us += get(&h->sum_us);
}

static void add_model_times(times *t, const counted_model *m, bool first, int by) {
    for (int i = 0; i < SLOTS; i++) {
        add_times(t, first ? &m->slots[i].first[by] : &m->slots[i].total[by]);
    }
}

/* `labels`: without braces. */
static void write_times(const times *t, const char *name, const str *labels, str *out) {
    int64_t below = 0;
    for (int i = 0; i < BUCKETS; i++) {
        below += t->bucket[i];
        str_addf(out, "%s_bucket{%s,le=\"%g\"} %lld\n", name, labels->data, bounds[i], (long long)below);
    }
    str_addf(out, "%s_bucket{%s,le=\"+Inf\"} %lld\n%s_sum{%s} %.6f\n%s_count{%s} %lld\n", name, labels->data,
             (long long)t->count, name, labels->data, (double)t->sum_us / 1e6, name, labels->data, (long long)t->count);
}

static void write_histograms(const counters *c, bool first, const char *name, const char *help, str *out) {
    str labels = {0};
    head(out, name, "histogram", help);
    for (int by = 0; by < BY_COUNT; by++) {
        times t = {0};
        add_model_times(&t, &c->other, first, by);
        for (const counted_model *m = atomic_load((counted_model * _Atomic *)&c->models); m; m = m->next) {
            add_model_times(&t, m, first, by);
        }
        str_clear(&labels);
        str_addf(&labels, "answered_by=\"%s\"", by_name[by]);
        if (!labels.failed) {
            write_times(&t, name, &labels, out);
        }
    }
    out->failed = out->failed || labels.failed;
    str_free(&labels);
}

/* Only what has happened: most models are answered in one or two ways. */
static void write_by_model(const counters *c, bool first, const char *name, const char *help, str *out) {
    str labels = {0};
    head(out, name, "histogram", help);
    for (const counted_model *m = atomic_load((counted_model * _Atomic *)&c->models); m; m = m->next) {
        for (int by = 0; by < BY_COUNT; by++) {
            times t = {0};
            add_model_times(&t, m, first, by);
            str_clear(&labels);
            str_adds(&labels, "model=");
            str_label(&labels, m->name);
            str_addf(&labels, ",answered_by=\"%s\"", by_name[by]);
            if (t.count > 0 && !labels.failed) {
                write_times(&t, name, &labels, out);
            }
        }
    }
    out->failed = out->failed || labels.failed;
    str_free(&labels);
}

static void write_reasons(const counters *c, str *out) {
    head(out, "pare_unanswered_total", "counter", "Exchanges that ended without a whole answer, by how and why.");
    for (int o = 1; o < OUTCOMES; o++) {
        for (int r = 0; r < REASONS; r++) {
            int64_t n = sum(&c->slots[0].reasons[o][r]);
            if (n > 0) {
                str_addf(out, "pare_unanswered_total{outcome=\"%s\",reason=\"%s\"} %lld\n", outcome_name[o],
                         err_word((err_code)r), (long long)n);
            }
        }
    }
}

static void write_tokens(const counters *c, str *out) {
    head(out, "pare_tokens_total", "counter", "Tokens by direction and by who answered.");
    for (int by = 0; by < BY_COUNT; by++) {
        str_addf(out, "pare_tokens_total{answered_by=\"%s\",kind=\"prompt\"} %lld\n", by_name[by],
                 (long long)sum(&c->slots[0].prompt[by]));
        str_addf(out, "pare_tokens_total{answered_by=\"%s\",kind=\"completion\"} %lld\n", by_name[by],
                 (long long)sum(&c->slots[0].completion[by]));
    }
    head(out, "pare_prompt_cached_tokens_total", "counter", "Prompt tokens that the backend had in its own cache.");
    str_addf(out, "pare_prompt_cached_tokens_total %lld\n", (long long)sum(&c->slots[0].cached));
}

bool counters_write(const counters *c, str *out) {
    head(out, "pare_requests_in_flight", "gauge", "Exchanges that have begun and not ended.");
    str_addf(out, "pare_requests_in_flight %lld\n", (long long)sum(&c->slots[0].in_flight));
    head(out, "pare_requests_total", "counter", "Finished exchanges by who answered and how they ended.");
    for (int by = 0; by < BY_COUNT; by++) {
        for (int o = 1; o < OUTCOMES; o++) {
            str_addf(out, "pare_requests_total{answered_by=\"%s\",outcome=\"%s\"} %lld\n", by_name[by], outcome_name[o],
                     (long long)sum(&c->slots[0].requests[by][o]));
        }
    }
    head(out, "pare_streams_total", "counter", "Finished exchanges whose client asked for a stream.");
    str_addf(out, "pare_streams_total %lld\n", (long long)sum(&c->slots[0].streams));
    head(out, "pare_attempts_total", "counter", "Further tries for an answer: hedges that lost, retries, fallbacks.");
    str_addf(out, "pare_attempts_total %lld\n", (long long)sum(&c->slots[0].attempts));
    write_tokens(c, out);
    head(out, "pare_cost_usd_total", "counter", "Money spent.");
    str_adds(out, "pare_cost_usd_total ");
    str_usd(out, money_micro(sum(&c->slots[0].cost_nano)));
    str_adds(out, "\n");
    head(out, "pare_saved_usd_total", "counter", "Money that the same answers would have cost without pare.");
    str_adds(out, "pare_saved_usd_total ");
    str_usd(out, money_micro(sum(&c->slots[0].saved_nano)));
    str_adds(out, "\n");
    write_reasons(c, out);
    write_histograms(c, false, "pare_request_seconds", "Arrival to the end of the answer.", out);
    write_histograms(c, true, "pare_first_token_seconds", "Arrival to the first token.", out);
    write_by_model(c, false, "pare_model_request_seconds", "Arrival to the end of the answer, by model.", out);
    write_by_model(c, true, "pare_model_first_token_seconds", "Arrival to the first token, by model.", out);
    return !out->failed;
}

void counters_read(const counters *c, counters_sums *out) {
    *out = (counters_sums){.in_flight = sum(&c->slots[0].in_flight),
                           .streams = sum(&c->slots[0].streams),
                           .attempts = sum(&c->slots[0].attempts),
                           .cached = sum(&c->slots[0].cached),
                           .cost_nano = sum(&c->slots[0].cost_nano),
                           .saved_nano = sum(&c->slots[0].saved_nano)};
    for (int by = 0; by < BY_COUNT; by++) {
        out->prompt[by] = sum(&c->slots[0].prompt[by]);
        out->completion[by] = sum(&c->slots[0].completion[by]);
        for (int o = 0; o < OUTCOMES; o++) {
            out->requests[by][o] = sum(&c->slots[0].requests[by][o]);
        }
    }
}

const char *counted_by_word(int by) {
    return by_name[by];
}

const char *counted_outcome_word(int outcome) {
    return outcome_name[outcome];
}
