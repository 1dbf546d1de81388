/* local.h - the rooms of the local backend, for its own files only.
 *
 * local.c opens and closes it; local_tell.c says how it is; local_prompt.c turns requests into tokens; local_guard.c
 * keeps clients' words from becoming control tokens; local_call.c carries one request through the engine.            */
#ifndef PARE_BACKEND_LOCAL_H
#define PARE_BACKEND_LOCAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "backend/backend.h"
#include "backend/local_guard.h"
#include "engine/engine.h"

typedef struct local_backend {
    backend     base; /* first */
    model      *m;
    engine     *engine;
    guard      *guard;         /* NULL without a tokenizer */
    size_t      longest_token; /* bytes; 0 without a tokenizer */
    bool        slide, share_all;
    queue      *work;      /* calls whose prompts are to be made, for the worker thread */
    queue_item  last_work; /* tells the worker to end */
    pthread_t   worker;
    bool        started;
    atomic_bool closing;
} local_backend;

/* The prompts of one request, on the worker thread. `which` is below local_prompt_count(r). */
int  local_prompt_count(const request *r);
bool local_prompt_make(const local_backend *b, const request *r, int which, token_ids *out, err *e);
/* How many of a made prompt's first tokens stay when the context slides: those of the system messages. */
int  local_prompt_keep(const local_backend *b, const request *r, const token_ids *made);

/* backend_ops.metrics, .status and .healthy. */
bool local_metrics(backend *const *all, int n, str *out);
bool local_status(backend *b, str *out);
bool local_healthy(backend *b, err *why);
/* False, with a sentence, when work waits and nothing has come of it for long. */
bool local_gets_on(const char *name, const engine_stats *s, int64_t now_us, err *why);

/* backend_ops.start and .cancel. */
backend_call *local_call_start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                               err *e);
void          local_call_cancel(backend_call *call);

/* What the worker does with an item of `work`: makes the prompts, submits the jobs. */
void local_call_prepare(queue_item *item);

#endif
