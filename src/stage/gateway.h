/* gateway.h - what all exchanges share: models and who answers for them, prices, client keys, caches, ledger.
 *
 * Made once at start from the configuration and read-only afterwards, but for the stores, which look after themselves. */
#ifndef PARE_STAGE_GATEWAY_H
#define PARE_STAGE_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/hash.h"
#include "store/cache.h"
#include "store/db.h"

/* Micro-dollars per million tokens: $0.15 is 150000. */
typedef struct price {
    int64_t input, cached_input, output;
    bool    known;
} price;

typedef struct model_entry {
    const char *name; /* what clients ask for */
    backend    *backend;
    const char *upstream; /* the provider's name for it */
    price       price;    /* what a token costs */
    price       baseline; /* of the model a local one stands in for; else the same as price */
} model_entry;

typedef struct client_key {
    const char *name;
    sha256      hash;  /* of the key's bytes */
    const char *space; /* namespace of caches: the key's own unless configured to share */
    bool        admin; /* may see the dashboard, the metrics and everybody's requests */
} client_key;

typedef struct gateway {
    model_entry     *models;
    int              n_models;
    client_key      *keys;
    int              n_keys;
    backend        **backends;
    int              n_backends;
    cache           *cache; /* NULL: recall is off */
    int64_t          cache_ttl_us;
    db              *db;       /* NULL: nothing is kept at rest */
    struct flights  *flights;  /* recall's: identical requests in flight */
    struct counters *counters; /* account's: for /metrics */
    /* Every finished exchange, for whoever watches: called on the exchange's loop, must not block; may be NULL. */
    void (*live)(void *ctx, const ledger_row *row);
    void *live_ctx;
} gateway;

const model_entry *gateway_model(const gateway *g, const char *name);
const client_key  *gateway_key(const gateway *g, const char *secret); /* constant time; NULL: unknown */

/* Tokens at a price, in micro-dollars, rounded half up. */
int64_t price_of(const price *p, int64_t prompt, int64_t cached, int64_t completion);

#endif
