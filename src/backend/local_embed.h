/* local_embed.h - embeddings and scores of a model of our own, for the files of the local backend only.
 *
 * A thread of its own makes tokens of texts and JSON of vectors; the embedder (engine/embed.h) computes between the two. */
#ifndef PARE_BACKEND_LOCAL_EMBED_H
#define PARE_BACKEND_LOCAL_EMBED_H

#include "backend/backend.h"
#include "engine/embed.h"

typedef struct local_embeds local_embeds;

/* NULL and no error when the model makes no embeddings: neither its file nor `o` names a pooling, and it writes text. */
local_embeds *local_embed_open(const char *name, const model *m, struct pool *p, const local_options *o, err *e);
void          local_embed_close(local_embeds *s); /* NULL is fine */

/* `s` NULL: refused with a sentence. */
backend_call *local_embed_start(local_embeds *s, const char *name, loop *l, const request *r, backend_event_fn fn,
                                void *ctx, err *e);
bool          local_embed_is(const backend_call *call); /* else it is local_call.c's */
void          local_embed_cancel(backend_call *call);

const embedder *local_embedder(const local_embeds *s); /* NULL: none */

#endif
