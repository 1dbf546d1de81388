/* otlp.c - the queue of spans and the thread that sends. */
#include "serve/otlp.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/thread.h"
#include "serve/otlp_parts.h"

#define MAX_WAITING  2048     /* exchanges; each has one or two spans and about 2 KB */
#define BATCH        256      /* exchanges of one message */
#define DELAY_US     5000000  /* the longest that a span waits for company */
#define SEND_US      10000000 /* for one message and its answer */
#define FLUSH_US     2000000  /* for all that is left at the end */
#define PAUSE_US     1000000  /* before a message is sent again; doubled each time */
#define MAX_PAUSE_US 30000000
#define MAX_ANSWER   (64u << 10)

struct otlp {
    otlp_options           o; /* strings are our own */
    char                  *traces_url, *metrics_url, *service;
    char                   instance[33];
    struct curl_slist     *headers;
    const struct counters *counters;
    otlp_series           *series;
    int64_t                begun_ns;
    pthread_t              thread;
    CURLM                 *multi; /* of the thread, but for wake-ups */
    CURL                  *easy;

    pthread_mutex_t lock; /* of what follows; held for some instructions */
    otlp_span      *first, *last;
    int             waiting;
    bool            stopping;
    int64_t         stop_us;                          /* when the thread must have ended */
    _Atomic bool    stopped;                          /* the thread is gone */
    _Atomic int64_t dropped, refused, sent, failures; /* exchanges; refused: by the collector; failures: messages */

    /* the thread's own */
    otlp_span *batch; /* taken from the queue, and not delivered yet */
    int        n_batch;
    int64_t    not_before_us, pause_us, metrics_us; /* clock_us */
    bool       away, told_refusal;
    str        body, answer;
};

/* ---- from the loops ---- */

void otlp_begin(const otlp *t, exchange *x, const char *traceparent, const char *tracestate) {
    if (t && t->o.traces) {
        trace_begin(&t->o, x, traceparent, tracestate);
    }
}

/* The oldest makes room: who looks at traces looks at the newest. */
static void put(otlp *t, otlp_span *s) {
    otlp_span *oldest = NULL;
    bool       wake;
    s->next = NULL;
    pthread_mutex_lock(&t->lock);
    if (t->waiting == MAX_WAITING) {
        oldest = t->first;
        t->first = oldest->next;
        t->waiting--;
    }
    *(t->first ? &t->last->next : &t->first) = s;
    t->last = s;
    t->waiting++;
    wake = t->waiting == BATCH;
    pthread_mutex_unlock(&t->lock);
    if (oldest) {
        atomic_fetch_add(&t->dropped, 1);
        free(oldest);
    }
    if (wake) {
        curl_multi_wakeup(t->multi);
    }
}

void otlp_finished(otlp *t, const exchange *x, const otlp_peer *peer) {
    otlp_span s;
    otlp_span_fill(&s, x, peer);
    if (t->o.metrics) {
        otlp_series_record(t->series, &s);
    }
    if (!t->o.traces || !x->trace || !x->trace->sampled || atomic_load(&t->stopped)) {
        return;
    }
    otlp_span *copy = malloc(sizeof *copy);
    if (!copy) {
        atomic_fetch_add(&t->dropped, 1);
        return;
    }
    *copy = s;
    put(t, copy);
}

/* ---- one message ---- */

static size_t on_answer(char *bytes, size_t size, size_t count, void *arg) {
    otlp  *t = arg;
    size_t n = size * count;
    return t->answer.len + n <= MAX_ANSWER && str_add(&t->answer, bytes, n) ? n : 0;
}

/* When the thread must have ended; far away as long as nobody wants it to. */
static int64_t end_of(otlp *t) {
    pthread_mutex_lock(&t->lock);
    int64_t us = t->stopping ? t->stop_us : INT64_MAX;
    pthread_mutex_unlock(&t->lock);
    return us;
}

/* The transfer's result; CURLE_OPERATION_TIMEDOUT also when the end has come. */
static CURLcode transfer(otlp *t) {
    int64_t  began = clock_us();
    CURLcode result = CURLE_OPERATION_TIMEDOUT;
    if (curl_multi_add_handle(t->multi, t->easy) != CURLM_OK) {
        return CURLE_OUT_OF_MEMORY;
    }
    for (int running = 1; running > 0;) {
        int64_t end = end_of(t), now = clock_us(), limit = began + SEND_US;
        limit = end < limit ? end : limit;
        if (curl_multi_perform(t->multi, &running) != CURLM_OK || (running > 0 && now >= limit)) {
            break;
        }
        int      left;
        CURLMsg *m;
        while ((m = curl_multi_info_read(t->multi, &left))) {
            if (m->msg == CURLMSG_DONE) {
                result = m->data.result;
            }
        }
        if (running > 0) {
            curl_multi_poll(t->multi, NULL, 0, (int)((limit - now) / 1000) + 1, NULL);
        }
    }
    curl_multi_remove_handle(t->multi, t->easy);
    return result;
}

typedef enum verdict { DELIVERED, LATER, NEVER } verdict;

/* The collector takes a part of a message and says how much it did not take (OTLP: partial success). */
static void read_partial(otlp *t, int sent) {
    cJSON      *root = t->answer.len ? json_parse(t->answer.data, t->answer.len, 8, NULL) : NULL;
    cJSON      *partial = cJSON_GetObjectItemCaseSensitive(root, "partialSuccess");
    cJSON      *spans = cJSON_GetObjectItemCaseSensitive(partial, "rejectedSpans");
    const char *text = cJSON_GetStringValue(spans);
    double      n = text ? strtod(text, NULL) : cJSON_IsNumber(spans) ? spans->valuedouble : 0;
    if (n > 0 && sent > 0) {
        atomic_fetch_add(&t->refused, n < sent * 2.0 ? (int64_t)n : (int64_t)sent * 2);
        if (!t->told_refusal) {
            t->told_refusal = true;
            log_warn("the telemetry collector refuses spans; further refusals are only counted");
        }
    }
    cJSON_Delete(root);
}

/* Once when it goes away and once when it is back. */
static void tell(otlp *t, bool away, const char *why) {
    if (away && !t->away) {
        log_warn("telemetry cannot be delivered (%s); it is tried again until it can", why);
    } else if (!away && t->away) {
        log_info("telemetry is delivered again");
    }
    t->away = away;
}

static void back_off(otlp *t) {
    curl_off_t asked = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &asked);
    uint64_t chance;
    int64_t  pause = t->pause_us > 0 ? t->pause_us : PAUSE_US;
    if (!random_bytes(&chance, sizeof chance)) {
        chance = 0;
    }
    t->pause_us = pause * 2 < MAX_PAUSE_US ? pause * 2 : MAX_PAUSE_US;
    pause = pause / 2 + (int64_t)(chance % (uint64_t)(pause / 2)); /* so that many gateways do not come at once */
    if (asked > 0) {
        pause = asked < MAX_PAUSE_US / 1000000 ? asked * 1000000 : MAX_PAUSE_US;
    }
    t->not_before_us = clock_us() + pause;
}

/* t->body to that address; `exchanges`: how many are in it, 0 for metrics. */
static verdict post(otlp *t, const char *url, int exchanges) {
    long status = 0;
    char why[128];
    str_clear(&t->answer);
    curl_easy_setopt(t->easy, CURLOPT_URL, url);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->body.data);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body.len);
    CURLcode result = transfer(t);
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (result == CURLE_OK && status >= 200 && status < 300) {
        t->pause_us = 0;
        tell(t, false, NULL);
        read_partial(t, exchanges);
        return DELIVERED;
    }
    atomic_fetch_add(&t->failures, 1);
    if (result == CURLE_OK) {
        snprintf(why, sizeof why, "the collector answers with status %ld", status);
    } else {
        snprintf(why, sizeof why, "%s", curl_easy_strerror(result));
    }
    tell(t, true, why);
    if (result == CURLE_OK && status != 429 && status != 502 && status != 503 && status != 504) {
        t->pause_us = 0;
        return NEVER; /* the same bytes would be refused again */
    }
    back_off(t);
    return LATER;
}

/* ---- spans ---- */

static void take_batch(otlp *t) {
    otlp_span **end = &t->batch;
    pthread_mutex_lock(&t->lock);
    while (t->first && t->n_batch < BATCH) {
        otlp_span *s = t->first;
        t->first = s->next;
        t->waiting--;
        s->next = NULL;
        *end = s;
        end = &s->next;
        t->n_batch++;
    }
    pthread_mutex_unlock(&t->lock);
}

static void free_batch(otlp *t) {
    for (otlp_span *s = t->batch, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    t->batch = NULL;
    t->n_batch = 0;
}

static void write_spans(otlp *t) {
    str *out = &t->body;
    str_clear(out);
    str_adds(out, "{\"resourceSpans\":[{");
    otlp_resource(out, t->service, t->instance);
    str_adds(out, ",\"scopeSpans\":[{");
    otlp_scope(out);
    str_adds(out, ",\"spans\":[");
    for (const otlp_span *s = t->batch; s; s = s->next) {
        str_adds(out, s == t->batch ? "" : ",");
        otlp_span_write(s, out);
    }
    str_adds(out, "],\"schemaUrl\":\"" OTLP_SCHEMA "\"}],\"schemaUrl\":\"" OTLP_SCHEMA "\"}]}");
}

/* False: it has to wait. */
static bool send_spans(otlp *t) {
    if (!t->batch) {
        take_batch(t);
    }
    if (!t->batch) {
        return false;
    }
    write_spans(t);
    verdict v = NEVER;
    if (!t->body.failed) {
        v = post(t, t->traces_url, t->n_batch);
    } else { /* out of memory */
        str_free(&t->body);
    }
    if (v == LATER) {
        return false;
    }
    atomic_fetch_add(v == DELIVERED ? &t->sent : &t->dropped, t->n_batch);
    free_batch(t);
    return true;
}

/* ---- metrics ---- */

static bool send_metrics(otlp *t) {
    otlp_report r = {.service = t->service,
                     .instance = t->instance,
                     .counters = t->counters,
                     .begun_ns = t->begun_ns,
                     .now_ns = clock_wall_us() * 1000,
                     .dropped = atomic_load(&t->dropped)};
    str_clear(&t->body);
    otlp_series_write(t->series, &r, &t->body);
    if (t->body.failed) {
        str_free(&t->body);
        return true;
    }
    return post(t, t->metrics_url, 0) != LATER;
}

/* ---- the thread ---- */

static bool stopping(otlp *t) {
    return end_of(t) != INT64_MAX;
}

static int waiting(otlp *t) {
    pthread_mutex_lock(&t->lock);
    int n = t->waiting;
    pthread_mutex_unlock(&t->lock);
    return n + t->n_batch;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* What is left, once: nobody is asked a second time. */
static void flush(otlp *t) {
    while (clock_us() < end_of(t) && send_spans(t)) {
    }
    if (t->o.metrics && clock_us() < end_of(t)) {
        send_metrics(t);
    }
    atomic_store(&t->stopped, true);
    int lost = waiting(t);
    if (lost > 0) {
        atomic_fetch_add(&t->dropped, lost);
        log_warn("the traces of %d requests could not be delivered before the end", lost);
    }
}

static void *run(void *arg) {
    otlp   *t = arg;
    int64_t delay = least(DELAY_US, t->o.interval_us), spans_us = clock_us() + delay;
    t->metrics_us = clock_us() + t->o.interval_us;
    while (!stopping(t)) {
        int64_t now = clock_us();
        bool    may = now >= t->not_before_us;
        if (may && t->o.metrics && now >= t->metrics_us && send_metrics(t)) {
            t->metrics_us = clock_us() + t->o.interval_us;
        }
        may = clock_us() >= t->not_before_us;
        if (may && t->o.traces && (now >= spans_us || waiting(t) >= BATCH)) {
            while (send_spans(t) && waiting(t) >= BATCH && !stopping(t)) {
            }
            spans_us = clock_us() + delay;
        }
        int64_t next = t->o.metrics ? least(spans_us, t->metrics_us) : spans_us;
        next = next > t->not_before_us ? next : t->not_before_us;
        int64_t wait = next - clock_us();
        if (wait > 0 && !stopping(t)) { /* a transfer may have had the wake-up */
            curl_multi_poll(t->multi, NULL, 0, (int)(least(wait, 60000000) / 1000) + 1, NULL);
        }
    }
    flush(t);
    return NULL;
}

/* ---- making and ending ---- */

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool otlp_same(const otlp_options *a, const otlp_options *b) {
    bool same = same_text(a->endpoint, b->endpoint) && same_text(a->ca_file, b->ca_file) &&
                same_text(a->service_name, b->service_name) && a->n_headers == b->n_headers && a->traces == b->traces &&
                a->metrics == b->metrics && a->propagate == b->propagate && a->interval_us == b->interval_us &&
                !(a->sample < b->sample) && !(a->sample > b->sample);
    for (int i = 0; same && i < a->n_headers; i++) {
        same = strcmp(a->headers[i], b->headers[i]) == 0;
    }
    return same;
}

static bool add_header(otlp *t, const char *line) {
    struct curl_slist *more = curl_slist_append(t->headers, line);
    t->headers = more ? more : t->headers;
    return more != NULL;
}

static char *join(const char *base, const char *path) {
    size_t n = strlen(base);
    while (n > 0 && base[n - 1] == '/') {
        n--;
    }
    str url = {0};
    str_add(&url, base, n);
    str_adds(&url, path);
    return str_take(&url);
}

static bool copy_options(otlp *t, const otlp_options *o) {
    t->o = *o;
    t->o.endpoint = t->o.ca_file = t->o.service_name = NULL;
    t->o.headers = NULL;
    t->traces_url = join(o->endpoint, "/v1/traces");
    t->metrics_url = join(o->endpoint, "/v1/metrics");
    t->service = strdup(o->service_name);
    bool ok = t->traces_url && t->metrics_url && t->service && add_header(t, "Content-Type: application/json") &&
              add_header(t, "Expect:") && add_header(t, "User-Agent: pare/" PARE_VERSION);
    for (int i = 0; ok && i < o->n_headers; i++) {
        ok = add_header(t, o->headers[i]);
    }
    return ok;
}

static bool open_client(otlp *t, const otlp_options *o) {
    t->multi = curl_global_init(CURL_GLOBAL_ALL) == CURLE_OK ? curl_multi_init() : NULL;
    t->easy = t->multi ? curl_easy_init() : NULL;
    if (!t->easy) {
        return false;
    }
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(t->easy, CURLOPT_QUICK_EXIT, 1L); /* the end does not wait for the name resolver's thread */
#endif
    return !o->ca_file || curl_easy_setopt(t->easy, CURLOPT_CAINFO, o->ca_file) == CURLE_OK;
}

otlp *otlp_start(const otlp_options *o, const struct counters *c, err *e) {
    otlp   *t = calloc(1, sizeof *t);
    uint8_t id[16];
    if (!t) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    atomic_store(&t->stopped, true);
    t->counters = c;
    t->begun_ns = clock_wall_us() * 1000;
    t->series = otlp_series_new();
    if (!t->series || !random_bytes(id, sizeof id) || !copy_options(t, o) || !open_client(t, o)) {
        otlp_free(t);
        err_set(e, ERR_MEMORY, "Telemetry could not start: out of memory.");
        return NULL;
    }
    hex_encode(id, sizeof id, t->instance);
    atomic_store(&t->stopped, false);
    if (!thread_start(&t->thread, run, t, "the thread that sends telemetry", e)) {
        atomic_store(&t->stopped, true);
        otlp_free(t);
        return NULL;
    }
    return t;
}

void otlp_stop(otlp *t) {
    if (!t || stopping(t)) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    t->stop_us = clock_us() + FLUSH_US;
    pthread_mutex_unlock(&t->lock);
    curl_multi_wakeup(t->multi);
    pthread_join(t->thread, NULL);
}

void otlp_free(otlp *t) {
    if (!t) {
        return;
    }
    if (!atomic_load(&t->stopped)) {
        otlp_stop(t);
    }
    free_batch(t);
    take_batch(t);
    while (t->batch) {
        free_batch(t);
        take_batch(t);
    }
    curl_easy_cleanup(t->easy);
    if (t->multi) {
        curl_multi_cleanup(t->multi);
    }
    curl_slist_free_all(t->headers);
    otlp_series_free(t->series);
    str_free(&t->body);
    str_free(&t->answer);
    free(t->traces_url);
    free(t->metrics_url);
    free(t->service);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void otlp_metrics(otlp *t, str *out) {
    static const char *const names[] = {"sent", "dropped", "refused"};
    _Atomic int64_t *const   values[] = {&t->sent, &t->dropped, &t->refused};
    static const char *const help[] = {"Traced exchanges that the collector has taken.",
                                       "Traced exchanges that were not delivered.",
                                       "Spans that the collector took a message without."};
    for (int i = 0; i < 3; i++) {
        str_addf(out,
                 "# HELP pare_telemetry_%s_total %s\n# TYPE pare_telemetry_%s_total counter\n"
                 "pare_telemetry_%s_total %lld\n",
                 names[i], help[i], names[i], names[i], (long long)atomic_load(values[i]));
    }
    str_addf(out,
             "# HELP pare_telemetry_failures_total Messages to the collector that failed.\n"
             "# TYPE pare_telemetry_failures_total counter\npare_telemetry_failures_total %lld\n"
             "# HELP pare_telemetry_waiting Traced exchanges that wait to be sent.\n"
             "# TYPE pare_telemetry_waiting gauge\n",
             (long long)atomic_load(&t->failures));
    pthread_mutex_lock(&t->lock);
    int n = t->waiting;
    pthread_mutex_unlock(&t->lock);
    str_addf(out, "pare_telemetry_waiting %d\n", n);
}
