/* exchange.h - one request and its answer, on its way down the stages and back up.
 *
 * It lives on one loop; nothing here is thread safe. Its arena holds everything of the request and dies with it. What
 * a stage saves it says here, in tokens and money; ledger, headers, metrics and dashboard read it from here.        */
#ifndef PARE_STAGE_EXCHANGE_H
#define PARE_STAGE_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/loop.h"
#include "dialect/dialect.h"
#include "stage/gateway.h"
#include "store/cache.h"

typedef enum outcome { OUTCOME_OPEN, OUTCOME_OK, OUTCOME_ERROR, OUTCOME_REFUSED, OUTCOME_CANCELLED } outcome;

struct exchange;

/* Where the answer goes; serve/ implements it. Called on the loop. */
typedef struct exchange_sink {
    void (*event)(struct exchange *, const event *); /* as it comes, deltas only; for streams */
    void (*finish)(struct exchange *);               /* once; all is known; x->hit, x->answer or x->failed is set */
    /* Asked of a complete answer of which pare could not keep all: whether its client cannot get it whole. May be NULL. */
    bool (*lacks)(struct exchange *);
} exchange_sink;

typedef struct exchange {
    /* set by serve before pipeline_start */
    arena               *memory;
    loop                *loop;
    gateway             *gateway;
    const dialect       *speaks; /* the client's dialect */
    request_kind         kind;
    const char          *body; /* the client's bytes; admit reads them into `request` */
    size_t               body_len;
    request              request;
    char                 id[40]; /* x-request-id */
    const char          *bearer; /* the client's key as sent; NULL: none. Never logged */
    bool                 no_cache, no_store;
    passed_header        passed[REQUEST_MAX_PASSED]; /* headers that mean something to a provider of the same dialect */
    int                  n_passed;
    bool                 debug; /* the client asks how the answer was made (x-pare-debug: 1) */
    const exchange_sink *sink;
    void                *client; /* serve's own */
    int64_t              arrived_us, arrived_wall_us;
    const char          *address;                  /* the client's, where it is to be logged; else NULL */
    const struct trace  *trace;                    /* serve's own: its place in a trace; NULL: none */
    const char          *traceparent, *tracestate; /* headers that go to a provider (W3C Trace Context); NULL: none */

    /* set by the stages */
    const client_key  *key;   /* NULL: keys are not in use */
    const char        *space; /* namespace of caches */
    const model_entry *target;
    backend           *backend; /* route's choice */
    backend_call      *call;
    const cached      *hit;        /* a stored answer; released with the exchange */
    answer             answer;     /* assembled as events come */
    bool               cut;        /* the stream broke or was refused upstream: not to be remembered */
    int                status;     /* HTTP status when failed */
    char              *error_body; /* the provider's own error body, NULL: none */
    size_t             error_body_len;
    const char        *error_type, *retry_after;
    const char        *said_model, *said_id; /* how the backend names model and answer; NULL: not at all */
    const char        *answered_stage;       /* "recall.exact", "answer" */
    char               answered_by[80];      /* "recall.exact", "local:NAME", "remote:NAME" */
    const char        *by, *by_model;        /* who of a group answered; NULL: the model's own backend */
    const attempt     *attempts;             /* what else was tried and may be on the invoice; in the arena */
    int                n_attempts;
    limit_grant        grant;         /* what is held of the client's budget; account.c settles it */
    int64_t            passed_tokens; /* of a stream with a budget: as counted, delta by delta */
    bool               over_budget;   /* ended there: what still comes is not passed on */
    int64_t            cost_nano, saved_nano;
    bool               has_kv; /* `kv` is known: a model of our own answered */
    kv_report          kv;
    int64_t queue_us, asked_us, first_us, done_us; /* but for queue: clock_us, 0 not yet; asked: the backend was */
    outcome result;

    /* the pipeline's own */
    int                    depth;             /* stages entered */
    bool                   waiting, detached; /* detached: the client has gone, the work goes on for others */
    void                  *state[8];          /* one a stage: its own memory, by stage index */
    const struct pipeline *pipeline;

    err failed; /* set by the stages. Last, since its texts need no zeroing: exchange_new */
} exchange;

#endif
