/* otlp_metrics.c - the histograms of the GenAI conventions by who was asked for what, and pare's own sums.
 *
 * A series is one set of attributes. They come from the configuration, but for the name that a provider gives its model:
 * their number is bounded, and what goes beyond is counted under one mark (otel.metric.overflow), as OpenTelemetry's SDKs
 * do. Loops record under a lock that is held for a search and some additions. Sums run from the start of the process
 * (cumulative), so what could not be sent is in the next report.                                                      */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "serve/otlp_parts.h"
#include "stage/counters.h"

#define MAX_SERIES 1000
#define SLOTS      4096 /* a power of two, four times as many as there may be */
#define MAX_BOUNDS 16
#define CUMULATIVE 2
#define KEY_BYTES  768

typedef enum group { OF_REQUEST, OF_CALL, OF_TOKENS, GROUPS } group; /* series whose attributes are the same */

/* Bounds: gen-ai-metrics.md of the conventions. */
static const double seconds[] = {0.01, 0.02, 0.04, 0.08,  0.16,  0.32,  0.64,
                                 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
static const double firsts[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10};
static const double paces[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5};
static const double tokens[] = {1,     4,     16,     64,      256,     1024,     4096,
                                16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864};

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

typedef struct instrument {
    const char   *name, *unit, *help;
    group         group;
    int           slot; /* which histogram of its series */
    const double *bounds;
    int           n_bounds;
    const char   *type; /* of tokens; else NULL */
} instrument;

/* Those of one name stand together. */
static const instrument instruments[] = {
    {"gen_ai.server.request.duration", "s", "Arrival of a request to the end of its answer.", OF_REQUEST, 0, seconds,
     COUNT(seconds), NULL},
    {"gen_ai.server.time_to_first_token", "s", "Arrival of a request to the first token of a successful answer.",
     OF_REQUEST, 1, firsts, COUNT(firsts), NULL},
    {"gen_ai.server.time_per_output_token", "s", "Time per output token after the first one.", OF_REQUEST, 2, paces,
     COUNT(paces), NULL},
    {"gen_ai.client.operation.duration", "s", "From asking the provider or the model to the end of its answer.",
     OF_CALL, 0, seconds, COUNT(seconds), NULL},
    {"gen_ai.client.token.usage", "{token}", "Tokens of what was asked of providers and models.", OF_TOKENS, 0, tokens,
     COUNT(tokens), "input"},
    {"gen_ai.client.token.usage", "{token}", "Tokens of what was asked of providers and models.", OF_TOKENS, 1, tokens,
     COUNT(tokens), "output"},
};

typedef struct histogram {
    int64_t bucket[MAX_BOUNDS + 1], count;
    double  sum;
} histogram;

typedef struct series {
    group     group;
    char     *key;
    size_t    length; /* of the key */
    uint64_t  hash;
    str       attributes; /* JSON, without brackets */
    histogram h[3];
} series;

struct otlp_series {
    pthread_mutex_t lock; /* of all below; a series, once it is there, stays where it is */
    series         *slots[SLOTS];
    series         *list[MAX_SERIES + GROUPS];
    int             n;
    series         *overflow[GROUPS];
};

otlp_series *otlp_series_new(void) {
    otlp_series *s = calloc(1, sizeof *s);
    if (s) {
        pthread_mutex_init(&s->lock, NULL);
    }
    return s;
}

void otlp_series_free(otlp_series *s) {
    if (!s) {
        return;
    }
    for (int i = 0; i < s->n; i++) {
        free(s->list[i]->key);
        str_free(&s->list[i]->attributes);
        free(s->list[i]);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- recording ---- */

typedef struct labels { /* of one record */
    group       group;
    const char *operation, *provider, *model, *response_model, *error, *address;
    int         port;
} labels;

/* Each part with its NUL, so that no two sets give the same bytes. */
static size_t key_of(const labels *l, char key[KEY_BYTES]) {
    const char *const parts[] = {l->operation, l->provider, l->model, l->response_model, l->error ? l->error : "",
                                 l->address};
    size_t            n = 0;
    key[n++] = (char)('0' + l->group);
    memcpy(key + n, &l->port, sizeof l->port);
    n += sizeof l->port;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t length = strlen(parts[i]) + 1, room = KEY_BYTES - n;
        length = length < room ? length : room;
        memcpy(key + n, parts[i], length);
        n += length;
    }
    return n;
}

static void write_labels(const labels *l, str *out) {
    otlp_attribute(out, "gen_ai.operation.name", l->operation);
    otlp_attribute(out, "gen_ai.provider.name", l->provider);
    otlp_attribute(out, "gen_ai.request.model", l->model);
    otlp_attribute(out, "gen_ai.response.model", l->response_model);
    otlp_attribute(out, "error.type", l->error);
    if (l->address[0]) {
        otlp_attribute(out, "server.address", l->address);
        otlp_attribute_int(out, "server.port", l->port);
    }
}

static series *add(otlp_series *s, group g, const char *key, size_t n, uint64_t hash, const labels *l) {
    series *e = calloc(1, sizeof *e);
    if (!e) {
        return NULL;
    }
    e->group = g;
    e->hash = hash;
    e->key = malloc(n + 1);
    e->length = n;
    if (l) {
        write_labels(l, &e->attributes);
    } else {
        otlp_attribute_bool(&e->attributes, "otel.metric.overflow", true);
    }
    if (e->key) {
        memcpy(e->key, key, n);
    }
    if (!e->key || e->attributes.failed) {
        free(e->key);
        str_free(&e->attributes);
        free(e);
        return NULL;
    }
    s->list[s->n++] = e;
    return e;
}

static series *overflow(otlp_series *s, group g) {
    if (!s->overflow[g]) {
        s->overflow[g] = add(s, g, "", 0, 0, NULL);
    }
    return s->overflow[g];
}

/* With the lock held; NULL: out of memory. */
static series *find(otlp_series *s, const labels *l, const char *key, size_t n, uint64_t hash) {
    int overflows = 0;
    for (int g = 0; g < GROUPS; g++) {
        overflows += s->overflow[g] != NULL;
    }
    for (uint64_t i = hash & (SLOTS - 1);; i = (i + 1) & (SLOTS - 1)) {
        series *e = s->slots[i];
        if (e && e->hash == hash && e->length == n && memcmp(e->key, key, n) == 0) {
            return e;
        }
        if (!e) {
            if (s->n - overflows >= MAX_SERIES) {
                return overflow(s, l->group);
            }
            return s->slots[i] = add(s, l->group, key, n, hash, l);
        }
    }
}

static void observe(histogram *h, const double *bounds, int n, double value) {
    int i = 0;
    while (i < n && value > bounds[i]) { /* a bound belongs to the bucket below it */
        i++;
    }
    h->bucket[i]++;
    h->count++;
    h->sum += value;
}

/* values[slot] < 0: none. */
static void record(otlp_series *s, const labels *l, const double values[3]) {
    char     key[KEY_BYTES];
    size_t   n = key_of(l, key);
    uint64_t hash = hash64(key, n, hash_seed());
    pthread_mutex_lock(&s->lock);
    series *e = find(s, l, key, n, hash);
    for (int i = 0; e && i < COUNT(instruments); i++) {
        const instrument *in = &instruments[i];
        if (in->group == l->group && values[in->slot] >= 0) {
            observe(&e->h[in->slot], in->bounds, in->n_bounds, values[in->slot]);
        }
    }
    pthread_mutex_unlock(&s->lock);
}

/* When the first token came is known of streams, and of our own models, which make one token after the other. */
static bool knows_first(const otlp_span *x) {
    return x->first_us >= 0 && !x->error && (x->stream || x->local);
}

void otlp_series_record(otlp_series *s, const otlp_span *x) {
    labels l = {.group = OF_REQUEST,
                .operation = x->operation,
                .provider = x->provider,
                .model = x->model,
                .response_model = x->response_model,
                .error = x->error,
                .address = ""};
    double total = (double)(x->ended_ns - x->begun_ns) / 1e9, first = (double)x->first_us / 1e6;
    bool   known = knows_first(x), paced = known && x->usage.known && x->usage.completion > 1 && total > first;
    record(s, &l,
           (double[3]){total, known ? first : -1, paced ? (total - first) / (double)(x->usage.completion - 1) : -1});
    if (x->asked_ns == 0) {
        return; /* what was recalled or refused asked nobody: no tokens were bought */
    }
    l.group = OF_CALL;
    l.address = x->address;
    l.port = x->port;
    record(s, &l, (double[3]){(double)(x->ended_ns - x->asked_ns) / 1e9, -1, -1});
    if (x->usage.known) {
        l.group = OF_TOKENS;
        l.error = NULL;
        bool makes = x->kind == REQUEST_CHAT || x->kind == REQUEST_COMPLETION;
        record(s, &l, (double[3]){(double)x->usage.prompt, makes ? (double)x->usage.completion : -1, -1});
    }
}

/* ---- writing ---- */

static void write_point(const otlp_report *r, const instrument *in, const series *e, const histogram *h, str *out) {
    str_adds(out, "{\"attributes\":[");
    str_add(out, e->attributes.data ? e->attributes.data : "", e->attributes.len);
    otlp_attribute(out, "gen_ai.token.type", in->type);
    str_addf(out, "],\"startTimeUnixNano\":\"%lld\",\"timeUnixNano\":\"%lld\",\"count\":\"%lld\",\"sum\":%.12g",
             (long long)r->begun_ns, (long long)r->now_ns, (long long)h->count, h->sum);
    str_adds(out, ",\"bucketCounts\":[");
    for (int i = 0; i <= in->n_bounds; i++) {
        str_addf(out, "%s\"%lld\"", i ? "," : "", (long long)h->bucket[i]);
    }
    str_adds(out, "],\"explicitBounds\":[");
    for (int i = 0; i < in->n_bounds; i++) {
        str_addf(out, "%s%.12g", i ? "," : "", in->bounds[i]);
    }
    str_adds(out, "]}");
}

static void begin_metric(str *out, const char *name, const char *unit, const char *help, const char *kind) {
    str_adds(out, out->data[out->len - 1] == '[' ? "" : ",");
    str_addf(out, "{\"name\":\"%s\",\"unit\":\"%s\",\"description\":\"%s\",\"%s\":{", name, unit, help, kind);
}

/* The points of one instrument, behind those that are there; a metric begins with the first of its name. */
static void write_points(otlp_series *s, const otlp_report *r, const instrument *in, bool *open, str *out) {
    for (int i = 0;; i++) {
        pthread_mutex_lock(&s->lock);
        const series *e = i < s->n ? s->list[i] : NULL;
        histogram     h = e ? e->h[in->slot] : (histogram){0};
        pthread_mutex_unlock(&s->lock);
        if (!e) {
            return;
        }
        if (e->group != in->group || h.count == 0) {
            continue;
        }
        if (!*open) {
            begin_metric(out, in->name, in->unit, in->help, "histogram");
            str_addf(out, "\"aggregationTemporality\":%d,\"dataPoints\":[", CUMULATIVE);
        }
        str_adds(out, *open ? "," : "");
        *open = true;
        write_point(r, in, e, &h, out);
    }
}

static void write_histograms(otlp_series *s, const otlp_report *r, str *out) {
    bool open = false;
    for (int i = 0; i < COUNT(instruments) && !out->failed; i++) {
        write_points(s, r, &instruments[i], &open, out);
        bool last = i + 1 == COUNT(instruments) || strcmp(instruments[i].name, instruments[i + 1].name) != 0;
        if (last && open) {
            str_adds(out, "]}}");
            open = false;
        }
    }
}

static void begin_point(const otlp_report *r, str *out) {
    str_adds(out, out->data[out->len - 1] == '[' ? "" : ",");
    str_addf(out, "{\"startTimeUnixNano\":\"%lld\",\"timeUnixNano\":\"%lld\",", (long long)r->begun_ns,
             (long long)r->now_ns);
}

static void begin_sum(str *out, const char *name, const char *unit, const char *help, bool grows) {
    begin_metric(out, name, unit, help, "sum");
    str_addf(out, "\"aggregationTemporality\":%d,\"isMonotonic\":%s,\"dataPoints\":[", CUMULATIVE,
             grows ? "true" : "false");
}

static void add_sum(const otlp_report *r, const char *name, const char *unit, const char *help, bool grows, int64_t n,
                    str *out) {
    begin_sum(out, name, unit, help, grows);
    begin_point(r, out);
    str_addf(out, "\"asInt\":\"%lld\"}]}}", (long long)n);
}

static void add_money(const otlp_report *r, const char *name, const char *help, int64_t nano, str *out) {
    begin_sum(out, name, "{USD}", help, true);
    begin_point(r, out);
    str_addf(out, "\"asDouble\":%lld.%09lld}]}}", (long long)(nano / 1000000000), (long long)(nano % 1000000000));
}

static void write_requests(const otlp_report *r, const counters_sums *c, str *out) {
    begin_sum(out, "pare.requests", "{request}", "Finished exchanges by who answered and how they ended.", true);
    for (int by = 0; by < BY_COUNT; by++) {
        for (int o = 1; o < COUNTED_OUTCOMES; o++) {
            if (c->requests[by][o] > 0) {
                begin_point(r, out);
                str_adds(out, "\"attributes\":[");
                otlp_attribute(out, "pare.answered_by", counted_by_word(by));
                otlp_attribute(out, "pare.outcome", counted_outcome_word(o));
                str_addf(out, "],\"asInt\":\"%lld\"}", (long long)c->requests[by][o]);
            }
        }
    }
    str_adds(out, "]}}");
}

static void write_tokens(const otlp_report *r, const counters_sums *c, str *out) {
    begin_sum(out, "pare.tokens", "{token}", "Tokens by direction and by who answered, recalled ones too.", true);
    for (int by = 0; by < BY_COUNT; by++) {
        for (int k = 0; k < 2; k++) {
            int64_t n = k ? c->completion[by] : c->prompt[by];
            if (n > 0) {
                begin_point(r, out);
                str_adds(out, "\"attributes\":[");
                otlp_attribute(out, "pare.answered_by", counted_by_word(by));
                otlp_attribute(out, "gen_ai.token.type", k ? "output" : "input");
                str_addf(out, "],\"asInt\":\"%lld\"}", (long long)n);
            }
        }
    }
    str_adds(out, "]}}");
}

static void write_sums(const otlp_report *r, str *out) {
    counters_sums c;
    counters_read(r->counters, &c);
    write_requests(r, &c, out);
    write_tokens(r, &c, out);
    add_sum(r, "pare.requests.active", "{request}", "Exchanges that have begun and not ended.", false, c.in_flight,
            out);
    add_sum(r, "pare.streams", "{request}", "Finished exchanges whose client asked for a stream.", true, c.streams,
            out);
    add_sum(r, "pare.attempts", "{attempt}", "Further tries for an answer: hedges that lost, retries, fallbacks.", true,
            c.attempts, out);
    add_sum(r, "pare.prompt.cached", "{token}", "Prompt tokens that the backend had in its own cache.", true, c.cached,
            out);
    add_money(r, "pare.cost", "Money spent.", c.cost_nano, out);
    add_money(r, "pare.saved", "Money that the same answers would have cost without pare.", c.saved_nano, out);
    add_sum(r, "pare.telemetry.dropped", "{span}", "Exchanges whose spans were not delivered.", true, r->dropped, out);
}

void otlp_series_write(otlp_series *s, const otlp_report *r, str *out) {
    str_adds(out, "{\"resourceMetrics\":[{");
    otlp_resource(out, r->service, r->instance);
    str_adds(out, ",\"scopeMetrics\":[{");
    otlp_scope(out);
    str_adds(out, ",\"metrics\":[");
    if (!out->failed) {
        write_histograms(s, r, out);
        write_sums(r, out);
    }
    str_adds(out, "],\"schemaUrl\":\"" OTLP_SCHEMA "\"}],\"schemaUrl\":\"" OTLP_SCHEMA "\"}]}");
}
