/* embed.h - texts in, one vector each out: embeddings, and the scores of a model that ranks.
 *
 * One thread an embedder. A step packs texts of all open jobs into one pass of the model, one of each job in turn, so
 * that a single query never waits for the rest of a long list. A text that is longer than a step has a pass of its own,
 * whose memory is given back afterwards. Jobs may be submitted and cancelled from any thread; after a successful submit
 * exactly one `done` comes, on the embedder's thread: it must be short and never wait.                                */
#ifndef PARE_ENGINE_EMBED_H
#define PARE_ENGINE_EMBED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"
#include "tensor/kvblock.h"
#include "tensor/pool.h"

typedef struct embedder  embedder;
typedef struct embed_job embed_job;

typedef struct embed_options {
    pooling pooling;     /* NONE: the file's; one of the two must say */
    int     context;     /* most tokens of a text; 0: what the model was made for */
    int     step_tokens; /* most of a step; 0: 2048. A step takes fewer where they would take longer than 50 ms */
    int     queue;       /* most texts that wait; 0: 65536 */
    kv_type kv;          /* of keys and values during a step; nothing is kept */
} embed_options;

/* What it takes besides the weights, in tokens: of keys and values (of the type o->kv), and rows of a pass. The `long` ones
 * come on top while a text that is longer than a step is computed, one at a time; here for one that fills the context. */
typedef struct embed_size {
    int     context, step_tokens;
    int64_t kv_tokens, rows;
    int64_t long_kv_tokens, long_rows; /* 0: no text is longer than a step, or its passes are the usual ones */
} embed_size;
embed_size embed_size_of(const model_shape *s, const embed_options *o);

/* The model and the pool outlive the embedder. */
embedder *embed_open(const model *m, pool *p, const embed_options *o, err *e);
void      embed_stop(embedder *m);  /* what is open ends as cancelled, further texts are refused */
void      embed_close(embedder *m); /* NULL is fine */
int       embed_context(const embedder *m);
int       embed_width(const embedder *m); /* values of a vector; 1 of a model that ranks */

typedef struct embed_text {
    const int32_t *ids;
    int            n;
    int second; /* from this token on a second text, of the type 1 where the model has types; 0: there is none */
} embed_text;

typedef struct embed_result {
    bool       cancelled;
    const err *error;     /* NULL: all vectors are there */
    int64_t    tokens;    /* computed */
    int64_t    queued_us; /* submit to the first step */
} embed_result;

typedef struct embed_request {
    const embed_text *texts; /* these, their ids and `out` live until `done` */
    int               n_texts;
    float            *out; /* [n_texts][embed_width], as pooled: of no particular length */
    void (*done)(void *ctx, const embed_result *r);
    void *ctx;
} embed_request;

/* Fails with ERR_INVALID for an empty text or an id out of range, with ERR_CONTEXT (both numbers) for a text that is too
 * long, with ERR_BUSY when the queue is full. The job is gone after its `done` has returned. */
embed_job *embed_submit(embedder *m, const embed_request *r, err *e);
void       embed_cancel(embed_job *job); /* as long as `done` has not been called; the caller's lock keeps that true */

typedef struct embed_stats { /* since the start */
    int64_t jobs, texts, tokens, steps, cancelled;
    int64_t waiting;      /* texts */
    int64_t last_step_us; /* monotonic: end of the last step, or when work last came to an idle embedder; 0: neither */
} embed_stats;
void embed_stats_read(const embedder *m, embed_stats *out);

#endif
