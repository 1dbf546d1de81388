/* observe.h - what is told of exchanges: lines of the log, traces and metrics. */
#ifndef PARE_SERVE_OBSERVE_H
#define PARE_SERVE_OBSERVE_H

#include "serve/generation.h"

struct evhttp_request;
struct exchange;

/* On the loop, when the request's headers are read. */
void observe_begin(const generation *g, struct exchange *x, struct evhttp_request *r);

/* gateway.finished, with the generation as its context. */
void observe_finished(void *ctx, const struct exchange *x);
bool observe_wanted(const generation *g); /* false: nobody needs to be told */

/* ---- request_log.c: one line for a finished exchange ---- */

void request_log(const settings *s, const struct exchange *x);

#endif
