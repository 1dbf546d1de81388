/* wire.h - one POST to a provider and its answer, as it comes.
 *
 * Two ways, one contract: libcurl (wire_curl.c) for TLS, HTTP/2 and proxies, and a socket of our own (wire_plain.c) for
 * http:// without a proxy, which is how models on one's own machines are reached and costs a tenth as much a request.
 * wire_new chooses. Calls, their events and aborts are on the caller's loop; events never come from within wire_start.
 * Time limits but for the connection's are the caller's: it aborts.                                                   */
#ifndef PARE_BACKEND_WIRE_H
#define PARE_BACKEND_WIRE_H

#include "base/err.h"
#include "base/loop.h"

typedef struct wire      wire;
typedef struct wire_call wire_call;

typedef enum wire_end {
    WIRE_OK,          /* the answer has ended as it said it would */
    WIRE_UNREACHABLE, /* no address, or nobody there */
    WIRE_TIMEOUT,     /* no connection in time */
    WIRE_BROKEN,      /* the connection or what came over it */
    WIRE_STOPPED      /* `body` said so */
} wire_end;

typedef struct wire_events {
    /* Once, before the body. Texts are "" when the answer has no such header. */
    void (*head)(void *ctx, int status, const char *content_type, const char *retry_after);
    bool (*body)(void *ctx, const char *bytes, size_t n); /* false: no more of it */
    /* The last event; the call is gone. `reason` is for a sentence in brackets; "" for WIRE_OK. */
    void (*done)(void *ctx, wire_end end, const char *reason);
} wire_events;

typedef struct wire_options {    /* texts are copied */
    const char        *base_url; /* http:// or https://, then host, port and a path */
    const char *const *headers;  /* "Name: value", sent with every request; NULL at the end */
    int64_t            connect_us;
    bool               http2;   /* where TLS negotiates it */
    const char        *ca_file; /* NULL: the system's */
} wire_options;

typedef struct wire_request {
    const char        *url;     /* begins with the base_url */
    const char *const *headers; /* instead of the options'; NULL: those. NULL at its end */
    const char        *body;    /* lives until `done` or the abort */
    size_t             body_len;
} wire_request;

typedef struct wire_ops {
    wire_call *(*start)(wire *w, loop *l, const wire_request *q, const wire_events *events, void *ctx, err *e);
    void (*abort)(wire_call *call); /* at once; `done` will not come; not from within an event */
    void (*close)(wire *w);         /* any thread, without calls */
} wire_ops;

struct wire { /* embed first */
    const wire_ops *ops;
};

wire *wire_new(const wire_options *o, err *e);

/* The two ways themselves. wire_plain_fits: http://, no name and password in the URL, no proxy in the environment. */
bool  wire_plain_fits(const wire_options *o);
wire *wire_plain(const wire_options *o, err *e);
wire *wire_curl(const wire_options *o, err *e);

#endif
