/* gateway.h - what all exchanges share: models and who answers for them, prices, client keys, caches, ledger.
 *
 * Made once at start from the configuration and read-only afterwards, but for the stores, which look after themselves. */
#ifndef PARE_STAGE_GATEWAY_H
#define PARE_STAGE_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/hash.h"
#include "stage/limits.h"
#include "stage/price.h"
#include "store/cache.h"
#include "store/db.h"

typedef struct model_target { /* who may answer for a model, at which price */
    const char *backend;      /* name */
    const char *upstream;     /* the provider's name for the model */
    price       price;
} model_target;

typedef struct model_entry {
    const char           *name; /* what clients ask for */
    backend              *backend;
    const char           *upstream; /* the provider's name for it */
    price                 price;    /* what a token costs */
    price                 baseline; /* of the model a local one stands in for; else the same as price */
    model_target         *targets;  /* of a group (backend/group.h); NULL: backend and upstream are the only ones */
    int                   n_targets;
    struct counted_model *counted;     /* its numbers for /metrics; NULL: those of no model */
    int64_t               most_output; /* tokens of an answer, where the request names no limit; 0: not known */
} model_entry;

typedef struct client_key {
    const char *name;
    sha256      hash;                    /* of the key's bytes */
    const char *space;                   /* namespace of caches: the key's own unless configured to share */
    bool        admin;                   /* may see the dashboard, the metrics and everybody's requests */
    const char *group;                   /* "" or NULL: none */
    account    *account, *group_account; /* NULL: nothing is limited */
    int64_t     expires_us;              /* its own or its group's, wall clock; 0: never */
    bool        revoked;                 /* stays in the list: while there is any key, keys are in use */
} client_key;

struct exchange;

typedef struct gateway {
    model_entry     *models;
    int              n_models;
    client_key      *keys; /* as gateway_sort_keys leaves them */
    int              n_keys;
    limits          *limits; /* the accounts of all; for the operator. NULL: none */
    struct shared   *shared; /* limits of several nodes (stage/shared.h); NULL: this one is alone */
    backend        **backends;
    int              n_backends;
    cache           *cache; /* NULL: recall is off */
    int64_t          cache_ttl_us;
    bool             drop_unsupported; /* members that a provider's dialect cannot carry are left out and listed */
    db              *db;               /* NULL: nothing is kept at rest */
    struct flights  *flights;          /* recall's: identical requests in flight */
    struct counters *counters;         /* account's: for /metrics */
    /* Every finished exchange, for whoever watches: called on the exchange's loop, must not block; may be NULL. */
    void (*live)(void *ctx, const ledger_row *row);
    void *live_ctx;
    /* The same with all of the exchange, for logs and traces; before its answer's end goes out. May be NULL. */
    void (*finished)(void *ctx, const struct exchange *x);
    void *finished_ctx;
} gateway;

const model_entry *gateway_model(const gateway *g, const char *name);
void               gateway_sort_keys(client_key *keys, int n); /* by hash */
/* Whose secret this is: by halving over the hashes, which tells nothing of secrets, then in constant time. NULL: unknown,
 * revoked or expired. */
const client_key  *gateway_key(const gateway *g, const char *secret);
/* The same for the sentence of a refusal: one that was valid until it expired. */
const client_key  *gateway_expired_key(const gateway *g, const char *secret);
/* By its own rules and its group's. NULL (keys are not in use) may all. */
bool               client_key_allows(const client_key *k, const char *model);

/* The price at a target: `backend` and `upstream` as events have them (by, by_model); NULL: the entry's own. */
const price *gateway_price(const model_entry *m, const char *backend, const char *upstream);

#endif
