/* arch.h - what kinds of transformer pare knows: one row a kind, with its names and its traits.
 *
 * A new architecture is a new row, plus a trait when it truly does something new. What is not in the table is refused
 * by name, never guessed.                                                                                            */
#ifndef PARE_MODEL_ARCH_H
#define PARE_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"

typedef enum rope_kind { ROPE_NONE, ROPE_PAIRS, ROPE_HALVES } rope_kind; /* (2i, 2i+1) or (i, i + rot/2) */
typedef enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR } rope_scaling;

typedef struct arch {
    const char *name; /* general.architecture */
    rope_kind   rope;
    /* traits to come (issue by issue): norm kind and place, biases, q/k norm, soft caps, windows, gate, experts */
} arch;

typedef struct model_shape {
    const arch *arch;
    int         layers, dim, heads, kv_heads, head_dim, ffn, vocab, context;
    int         rope_dim; /* values of a head that turn; even, <= head_dim */
    float       rope_base;
    float       rope_scale; /* positions are divided by it; 1 without scaling */
    float       norm_eps;
    bool        tied; /* the output uses the embedding */
} model_shape;

const arch *arch_named(const char *name, size_t n);

/* Reads and checks the hyper-parameters; sentences name the key. vocab comes from the embedding tensor's shape. */
bool model_shape_read(const gguf *g, model_shape *out, err *e);

#endif
