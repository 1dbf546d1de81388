/* attention.h - which rows of a step attend to which blocks, and doing it.
 *
 * Rows are gathered into sets that read the same blocks: the tokens of a chunk of prefill, some at a time; and the
 * tokens of decoding sequences that begin with the same blocks, whose common part is read once for all of them. Each
 * token then goes on alone through what is its own. Because of what attend.h promises, gathering changes no bit.    */
#ifndef PARE_ENGINE_ATTENTION_H
#define PARE_ENGINE_ATTENTION_H

#include "base/err.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "model/arch.h"
#include "tensor/pool.h"

typedef struct attention attention;

/* Takes all its memory. The shape must outlive it. */
attention *attention_new(const model_shape *shape, pool *p, int max_tokens, err *e);
void       attention_free(attention *a);

/* Once a step, and again when rows are dropped: row i of q and out belongs to tokens[rows[i]]. Tokens of one sequence
 * lie together, in order of position. */
void attention_plan(attention *a, const kv_cache *kv, const forward_token *tokens, const int *rows, int n);

/* q and out [n][heads][head_dim]. The keys and values of the step's own tokens are written already. */
void attention_run(attention *a, const kv_cache *kv, int layer, const float *q, float *out);

/* Of the last plan: tokens whose history is read together with others', and positions not read twice for it. */
void attention_shared(const attention *a, int *tokens, int64_t *positions);

#endif
