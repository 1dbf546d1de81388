/* backend.h - who can answer: a request in, a stream of events out.
 *
 * A backend knows nothing of exchanges, caches or HTTP clients. start and cancel are called on the loop, and all events
 * come on that loop, never from within start. After a successful start exactly one final event comes (EVENT_DONE or
 * EVENT_ERROR), cancelled or not; until then the request must live, afterwards the call is gone.                    */
#ifndef PARE_BACKEND_BACKEND_H
#define PARE_BACKEND_BACKEND_H

#include <stdatomic.h>

#include "base/loop.h"
#include "base/str.h"
#include "dialect/dialect.h"
#include "model/arch.h"
#include "tensor/kvblock.h"

typedef struct backend      backend;
typedef struct backend_call backend_call;
typedef void (*backend_event_fn)(void *ctx, const event *ev);

typedef struct backend_ops {
    const char *kind; /* "local", "remote" */
    backend_call *(*start)(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                           err *e);
    void (*cancel)(backend_call *call); /* soon: within one token */
    /* Prometheus text of all in the list whose ops these are, so that each name has one HELP and TYPE. May be NULL. */
    bool (*metrics)(backend *const *all, int n, str *out);
    /* One JSON object: how it is now; for the dashboard. May be NULL. */
    bool (*status)(backend *b, str *out);
    bool (*healthy)(backend *b, err *why);
    void (*close)(backend *b);
} backend_ops;

struct backend { /* embed first */
    const backend_ops *ops;
    const char        *name;
    char               fingerprint[65]; /* changes when its answers may: hash of the model file, or of the base URL */
};

typedef struct local_options { /* 0 and NULL: as engine.h says */
    int         sequences, context, queue, step_tokens, step_ms;
    kv_type     kv;
    pooling     pooling; /* how rows become an embedding; NONE: as the file says */
    int64_t     kv_bytes, kv_disk_bytes;
    const char *kv_disk;     /* directory */
    bool        slide;       /* a full context loses its middle; without it a prompt that is too long is an error and an
                              answer ends with the context */
    bool        share_all;   /* prefixes are shared by all clients, and not only within a request's space */
    const atomic_bool *stop; /* of the caller's; once it is true, loading ends early with ERR_CANCELLED. May be NULL */
} local_options;

struct pool;
/* path NULL: data/n (the bundled model). Loads the model; takes as long as that takes. */
backend *backend_local(const char *name, const char *path, const void *data, size_t n, struct pool *p,
                       const local_options *o, err *e);

typedef struct remote_options {
    const char    *base_url;                                   /* https://api.example.com/v1 */
    const char    *api_key;                                    /* NULL: none is sent */
    const dialect *speaks;                                     /* NULL: OpenAI's */
    const char    *api_version;                                /* Azure's; NULL: the dialect's own */
    int64_t        connect_us, first_us, between_us, total_us; /* time limits; 0: 10 s, 120 s, 60 s, 600 s */
    bool           http2;                                      /* where TLS negotiates it */
    const char    *ca_file;                                    /* NULL: the system's */
} remote_options;
backend *backend_remote(const char *name, const remote_options *o, err *e);

#endif
