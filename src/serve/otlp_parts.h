/* otlp_parts.h - what the files of otlp.h share; for them alone. */
#ifndef PARE_SERVE_OTLP_PARTS_H
#define PARE_SERVE_OTLP_PARTS_H

#include "serve/otlp.h"
#include "stage/exchange.h"

#define OTLP_STATE 512 /* bytes of a tracestate that pass on: what the standard asks for */

/* ---- otlp_trace.c ---- */

typedef struct trace {                               /* in the exchange's arena */
    uint8_t     id[16], parent[8], span[8], call[8]; /* call: of the span that asks the backend */
    bool        remote;                              /* parent is the client's */
    bool        sampled;
    const char *state; /* the client's tracestate; NULL: none */
} trace;

/* One finished exchange, as its spans need it; what is pointed at are constants. */
typedef struct otlp_span {
    struct otlp_span *next;
    trace             trace; /* state: of its own */
    char              state[OTLP_STATE + 1];
    const char       *operation, *provider, *error; /* error NULL: none */
    request_kind      kind;
    int64_t           begun_ns, asked_ns, ended_ns; /* since 1970; asked 0: no backend was */
    int64_t           first_us;                     /* from the arrival; -1: no token came */
    bool              local, stream, has_seed;
    bool              failed, call_failed; /* the request, and what was asked of the backend */
    int               status, port, n_finish, n_attempts;
    usage             usage;
    int64_t           cost_nano, saved_nano, max_tokens, n, seed, queue_us;
    char              model[128], response_model[128], response_id[64], upstream[128], key[64], stage[32], backend[80];
    char              address[128], request_id[40], finish[4][24];
} otlp_span;

void trace_begin(const otlp_options *o, exchange *x, const char *traceparent, const char *tracestate);
void otlp_span_fill(otlp_span *s, const exchange *x, const otlp_peer *peer);
void otlp_span_write(const otlp_span *s, str *out); /* one or two spans, with a comma between */

bool trace_parent_read(const char *text, uint8_t id[16], uint8_t parent[8], uint8_t *flags);

/* "https://user@api.example.com:8443/v1" into its host and port; false: it has none. */
bool otlp_host(const char *url, char *host, size_t size, int *port);

/* ---- otlp_json.c ---- */

void otlp_text(str *out, const char *text); /* a JSON string whatever the bytes are */
/* ,{"key":...} in a list of attributes; the first one without its comma (the list's '[' is before it). */
void otlp_attribute(str *out, const char *key, const char *text); /* "" and NULL: nothing */
void otlp_attribute_int(str *out, const char *key, int64_t value);
void otlp_attribute_double(str *out, const char *key, double value);
void otlp_attribute_bool(str *out, const char *key, bool value);
void otlp_resource(str *out, const char *service, const char *instance); /* "resource":{...} */
void otlp_scope(str *out);                                               /* "scope":{...} */

/* ---- otlp_metrics.c ---- */

typedef struct otlp_series otlp_series;

otlp_series *otlp_series_new(void);
void         otlp_series_free(otlp_series *s);
void         otlp_series_record(otlp_series *s, const otlp_span *x); /* any thread */

typedef struct otlp_report { /* of one moment */
    const char            *service, *instance;
    const struct counters *counters;
    int64_t                begun_ns, now_ns, dropped;
} otlp_report;
void otlp_series_write(otlp_series *s, const otlp_report *r, str *out); /* the whole body */

#endif
