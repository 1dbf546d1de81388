/* generation.h - what one reading of pare.yaml made: settings, backends, models, prices, certificate.
 *
 * Generations are counted. The newest serves new requests; an older one lives on while exchanges of its time run, and is
 * then retired. Backends whose definition did not change are handed from one to the next: models stay loaded, connections
 * stay open, streams go on. Immutable once open, but for the count.                                                   */
#ifndef PARE_SERVE_GENERATION_H
#define PARE_SERVE_GENERATION_H

#include "serve/settings.h"
#include "stage/gateway.h"

struct house;

typedef struct generation {
    gateway       gateway;
    struct house *house;
    settings     *settings;
    bool          owns;   /* settings_free when it is freed */
    tls          *tls;    /* NULL: none */
    backend     **groups; /* this generation's own (backend/group.h), which go on with what the ones before have learnt;
                             closed before their members */
    int           n_groups;
    _Atomic int   users; /* exchanges, loops and the house */

    /* generation_keys.c */
    struct generation *root;        /* of which this one has all but the keys; held. NULL: it stands by itself */
    arena             *memory;      /* of the keys' texts */
    int64_t            keys_change; /* the database's counter when they were read */
} generation;

/* Opens what the settings name and the house has not open yet; models are loaded, which takes as long as that takes. On
 * failure everything is as it was. `say` may be NULL. The house holds the first reference. Not on a loop. */
generation *generation_open(struct house *h, settings *s, bool owns, void (*say)(const char *line), err *e);

generation *generation_hold(generation *g);
/* True: that was the last one, and generation_free is due, on a thread that may wait. */
bool        generation_drop(generation *g);
/* Closes the backends that no other generation has. Returns the generation that this was the last to hold: it is due too,
 * once the loops have done what they do for its exchanges. NULL: none. */
generation *generation_end(generation *g);
void        generation_free(generation *g); /* the same, with those it held; where no loop runs */

/* The backends of the house, open in one generation or more. */
typedef struct opened {
    struct opened *next;
    backend       *backend;
    char          *definition; /* everything that makes it what it is; secrets as hashes */
    int            generations;
    bool           stays; /* cannot be closed before the end */
} opened;

void generation_close_groups(generation *g);

/* generation_keys.c: fills gateway.keys; last, since accounts get their rules here, which is not taken back. */
bool        generation_open_keys(generation *n, err *e);
void        generation_free_keys(generation *n);
/* The same with the keys as they are in the database now. The caller holds the first reference. */
generation *generation_rekey(generation *was, err *e);

/* generation_models.c: fills backend, upstream, price and targets of a remote model's entry. */
bool generation_open_targets(generation *n, const setting_model *m, model_entry *entry, err *e);

void opened_close_all(struct house *h); /* at the end: also those in use */

#endif
