/* house.h - opens everything that the settings ask for: database, cache, backends, models. */
#ifndef PARE_SERVE_HOUSE_H
#define PARE_SERVE_HOUSE_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve/generation.h"
#include "stage/stage.h"
#include "tensor/pool.h"

typedef struct house {
    db               *db;
    cache            *cache; /* NULL: recall is off */
    struct flights   *flights;
    struct counters  *counters;
    limits           *limits; /* of keys and groups */
    struct shared    *shared; /* with other nodes (stage/shared.h); NULL: not shared */
    pipeline          pipeline;
    pool             *compute;       /* NULL without local models */
    atomic_bool       closing;       /* models that are being loaded are given up */
    struct on_demand *demand;        /* NULL unless models are loaded on demand */
    int64_t           cached_loaded; /* answers that came back from the database */
    opened           *opened;
    pthread_mutex_t   lock; /* of `now`; held for some instructions */
    generation       *now;
    void (*live)(void *ctx, const ledger_row *row); /* gateway.live of every generation */
    void *live_ctx;
    otlp *otlp; /* NULL: no telemetry is sent */
} house;

/* Loads the models, which takes as long as that takes; `say` (may be NULL) is told what is being done. */
house      *house_open(settings *s, void (*say)(const char *line), err *e);
/* The same in two steps, so that another thread can set `closing` meanwhile: then it fails soon, with ERR_CANCELLED. What
 * house_new gave is for house_close, also when it could not be filled. */
house      *house_new(err *e);
bool        house_fill(house *h, settings *s, void (*say)(const char *line), err *e);
generation *house_now(house *h); /* the newest generation, held for the caller; any thread */
/* Reads nothing by itself: `s` (which the house owns from then on, also when it fails) becomes the newest generation as a
 * whole or not at all. Returns it held for the caller. Not on a loop, and not at the same time as another. */
generation *house_renew(house *h, settings *s, err *e);
/* The keys as they are in the database now, everything else as it is. As house_renew. */
generation *house_rekey(house *h, err *e);
void        house_stop(house *h);  /* ends backends and database, while the loops still exist for their last words */
void        house_close(house *h); /* everything else; the loops are gone by then */

#endif
