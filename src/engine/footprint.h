/* footprint.h - the memory that a model will take, from its file alone, before anything is loaded.
 *
 * The parts are those of the engine: packed weights, the cache of keys and values, the scratch of a step, and what
 * samplers and the tokenizer keep for each token of the vocabulary.                                                  */
#ifndef PARE_ENGINE_FOOTPRINT_H
#define PARE_ENGINE_FOOTPRINT_H

#include "engine/engine.h"
#include "model/gguf.h"

typedef struct footprint { /* bytes */
    size_t weights, kv, working;
    int    context; /* tokens a sequence of the engine can hold; 0: an encoder has no engine */
} footprint;

/* `vocabulary`: tokens of the tokenizer, 0 without one; `sequences`: that are sampled. False when there can be no such
 * cache of keys and values. */
bool footprint_of(const gguf *g, const model_shape *s, size_t vocabulary, const kv_options *cache, int step_tokens,
                  int sequences, footprint *out);

/* Of an engine with these options (and their defaults, engine.h), its cache full. */
bool footprint_of_engine(const gguf *g, const engine_options *o, footprint *out, err *e);

static inline size_t footprint_sum(const footprint *f) {
    return f->weights + f->kv + f->working;
}

#endif
