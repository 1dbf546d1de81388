/* libpare_parts.h - the rooms of libpare, for its own files only.
 *
 * libpare.c opens and tells; libpare_call.c waits for what runs, and cancels it; libpare_generate.c, libpare_chat.c,
 * libpare_embed.c and libpare_tokens.c are the functions of pare.h; libpare_structs.c reads and writes its structs.   */
#ifndef PARE_ENGINE_LIBPARE_PARTS_H
#define PARE_ENGINE_LIBPARE_PARTS_H

#include <pthread.h>
#include <stdbool.h>

#include "engine/embed.h"
#include "engine/engine.h"
#include "engine/guard.h"
#include "pare.h"

struct pare_model {
    pool          *compute;
    model         *weights;
    guard         *guard; /* NULL: no chat */
    engine_options options;
    int            context;  /* tokens of a request */
    pooling        pooling;  /* asked for, or else the file's */
    int32_t       *controls; /* ids of all control tokens */
    int            n_controls;

    /* Opened when first used: a program that only embeds has no use for an engine's cache, and the other way round. */
    pthread_mutex_t opening;
    engine         *engine;
    embedder       *embedder;
};

engine   *libpare_engine(pare_model *m, err *e);
embedder *libpare_embedder(pare_model *m, err *e);

/* The sentence to the caller; returns false. */
bool libpare_tell(const err *e, char *error, size_t size);

/* ---- libpare_structs.c ---- */

typedef struct struct_kind {
    const char *name;
    size_t      now, first; /* bytes: of this library's, and of the first that was published */
} struct_kind;

extern const struct_kind libpare_options, libpare_info, libpare_request, libpare_usage, libpare_embedding;

/* Into *out [kind->now], zero where the caller's is shorter or NULL. */
bool libpare_read(const struct_kind *kind, const void *from, void *out, err *e);
/* Whether libpare_write will do; `to` may be NULL. */
bool libpare_may_write(const struct_kind *kind, const void *to, err *e);
/* All but its `size`, as far as the caller's goes. */
void libpare_write(const struct_kind *kind, void *to, const void *from);

/* ---- libpare_call.c: one call that waits for what the engine's or the embedder's thread does ---- */

typedef struct waiting {
    pthread_mutex_t lock; /* guards all but what belongs to the canceller */
    pthread_cond_t  change;
    void           *job; /* NULL before it runs and when it is over */
    void (*stop)(void *job);
    bool done, cancelled;

    pare_canceller *canceller; /* NULL: none; it guards the two */
    struct waiting *next, *prev;
} waiting;

void waiting_begin(waiting *w, pare_canceller *canceller, void (*stop)(void *job)); /* may be cancelled at once */
void waiting_end(waiting *w);
void waiting_cancel(waiting *w); /* any thread, without the lock */
/* With the lock held, after a submit: what was cancelled meanwhile is stopped now. */
void waiting_started(waiting *w, void *job);
/* On the job's thread, when it is over. */
void waiting_done(waiting *w);

/* ---- libpare_generate.c ---- */

typedef struct asking { /* one request to the model, already in tokens */
    const pare_request *request;
    const int32_t      *tokens;
    int                 n_tokens;
    bool                fresh; /* the answer is a text of its own */
    pare_piece          piece;
    void               *user;
    str                *whole; /* the answer is added; NULL: nobody wants it */
} asking;

bool libpare_ask(pare_model *m, const asking *a, pare_usage *usage, err *e);

#endif
