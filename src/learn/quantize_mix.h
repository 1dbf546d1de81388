/* quantize_mix.h - which matrices a mixture has in which type. Used by quantize.c.
 *
 * The mixtures are llama.cpp's (src/llama-quant.cpp, llama_tensor_get_type, as of 2025), so that a name means here what
 * users know it to mean: matrices that harm most when they are rough, and of these the first and last layers, are finer. */
#ifndef PARE_LEARN_QUANTIZE_MIX_H
#define PARE_LEARN_QUANTIZE_MIX_H

#include <stdbool.h>

#include "model/gguf.h"
#include "tensor/block.h"

typedef struct mix mix;

typedef struct mix_facts { /* of the model */
    int  layers, dim, experts;
    int  heads_a_kv_head; /* query heads that share keys and values */
    bool tied;            /* no output.weight: the embedding is the output too */
} mix_facts;

const mix  *mix_named(const char *name); /* a mixture's or block format's; NULL when there is none */
const mix  *mix_at(int i);               /* the mixtures that are not one format; NULL past the last */
const char *mix_name(const mix *m);
const char *mix_about(const mix *m);
int         mix_file_type(const mix *m); /* general.file_type */
mix_facts   mix_facts_of(const gguf *g);
block_type  mix_type(const mix *m, const mix_facts *f, const gguf_tensor *t);

/* What rows take that `type`'s block does not divide; F16 in the end. */
block_type mix_fallback(block_type type, int64_t row);

#endif
