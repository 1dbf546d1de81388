/* forward.h - one pass of a model over a batch of tokens of any sequences.
 *
 * The plain definition of the transformer: reads the model's shape, writes the cache, gives logits. All memory is taken
 * in forward_new. One thread at a time; the work inside is spread over the pool.                                    */
#ifndef PARE_ENGINE_FORWARD_H
#define PARE_ENGINE_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/kv.h"
#include "model/model.h"
#include "tensor/pool.h"

typedef struct forward forward;

typedef struct forward_token {
    int32_t id;
    int     sequence; /* of the kv cache, which has room for its position */
    int     position; /* 0-based in its sequence; tokens of one sequence lie together and in order */
    bool    logits;   /* wanted for this token */
    int     type;     /* row of the model's token types (an encoder's segments); 0 where it has none */
} forward_token;

forward *forward_new(const model *m, pool *p, int max_tokens, int max_logits, err *e);
void     forward_free(forward *f);

/* For how many positions the pass will be used, where that changes the model (LongRoPE); at first the model's context.
 * Not between the tokens of a sequence. */
void forward_set_context(forward *f, int context);

/* Ids, sequences and positions must be in range (the caller checked them). Returns the logits of the wanted tokens in
 * order, [wanted][vocab], valid until the next call. Each row has the same bits whatever else is in the batch. A model
 * whose attention looks both ways wants all tokens of a sequence in one call. A headless model gives forward_rows. */
const float *forward_run(forward *f, kv_cache *kv, const forward_token *tokens, int n);

/* The same up to the last norm: [wanted][dim], what embeddings are made of. */
const float *forward_rows(forward *f, kv_cache *kv, const forward_token *tokens, int n);

/* Of the last run: tokens whose history was read together with others', and the positions that were not read again for
 * it (a layer). */
void forward_shared(const forward *f, int *tokens, int64_t *positions);

#endif
