/* house.h - opens everything that the settings ask for: database, cache, backends, models. */
#ifndef PARE_SERVE_HOUSE_H
#define PARE_SERVE_HOUSE_H

#include "serve/settings.h"
#include "stage/stage.h"
#include "tensor/pool.h"

typedef struct house {
    gateway           gateway;
    pipeline          pipeline;
    pool             *compute;       /* NULL without local models */
    struct on_demand *demand;        /* NULL unless models are loaded on demand */
    int64_t           cached_loaded; /* answers that came back from the database */
} house;

/* Loads the models, which takes as long as that takes; `say` (may be NULL) is told what is being done. */
house *house_open(const settings *s, void (*say)(const char *line), err *e);
void   house_stop(house *h);  /* ends backends and database, while the loops still exist for their last words */
void   house_close(house *h); /* everything else; the loops are gone by then */

#endif
