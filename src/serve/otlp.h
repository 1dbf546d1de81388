/* otlp.h - traces and metrics for an OpenTelemetry collector, by OTLP over HTTP in its JSON encoding.
 *
 * Loops hand finished exchanges over and go on: a collector that is slow, away or wrong costs no request anything. One
 * thread of its own sends. Spans wait in a queue whose oldest make room for new ones; metrics are sums since the start, so
 * that a gap in sending loses none of them. Prompts, answers and keys are in neither.
 *
 * Sources: the OTLP specification 1.x (JSON Protobuf encoding; what may be sent again), W3C Trace Context, and the
 * semantic conventions of OTLP_SCHEMA, the last that have GenAI's in the same repository.                             */
#ifndef PARE_SERVE_OTLP_H
#define PARE_SERVE_OTLP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define OTLP_SCHEMA "https://opentelemetry.io/schemas/1.41.0"

struct exchange;
struct counters;

typedef struct otlp_options {
    const char  *endpoint; /* http://collector:4318, without /v1/traces; NULL: off */
    const char **headers;  /* "name: value" */
    int          n_headers;
    const char  *ca_file; /* NULL: the system's */
    bool         traces, metrics;
    bool         propagate;   /* providers get a traceparent */
    int64_t      interval_us; /* between two reports of the metrics; spans wait for 5 s at most */
    double       sample;      /* part of the traces that begin here which is recorded, 0 to 1 */
    const char  *service_name;
} otlp_options;

typedef struct otlp_peer { /* who was asked, as the settings have him */
    const char *provider;  /* gen_ai.provider.name; a constant */
    const char *base_url;  /* NULL: a model of our own */
} otlp_peer;

bool otlp_same(const otlp_options *a, const otlp_options *b);

typedef struct otlp otlp;

otlp *otlp_start(const otlp_options *o, const struct counters *c, err *e); /* keeps copies */
void  otlp_stop(otlp *t); /* sends what waits, for two seconds at most; the loops have ended. NULL is fine */
void  otlp_free(otlp *t); /* NULL is fine */

/* The exchange's place in a trace: the client's, where its headers (NULL: none) are valid, or a new one. On the loop. */
void otlp_begin(const otlp *t, struct exchange *x, const char *traceparent, const char *tracestate);
void otlp_finished(otlp *t, const struct exchange *x, const otlp_peer *peer); /* on the loop; a few microseconds */

void otlp_metrics(otlp *t, str *out); /* Prometheus text: how the sending goes */

/* ---- settings_otlp.c ---- */

/* gen_ai.provider.name of a host that speaks OpenAI's dialect, or of the dialect itself. */
const char *otlp_provider(const char *dialect, const char *base_url);

#endif
