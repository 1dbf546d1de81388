/* model.h - a loaded model: its shape, its packed weights, its tokenizer and its chat template.
 *
 * Read-only after model_open: any number of engines and threads may use it.                                          */
#ifndef PARE_MODEL_MODEL_H
#define PARE_MODEL_MODEL_H

#include <stdatomic.h>

#include "base/err.h"
#include "model/arch.h"
#include "model/gguf.h"
#include "model/template/template.h"
#include "model/tokenizer/tokenizer.h"
#include "tensor/matrix.h"

typedef struct norm_weights { /* NULL: none */
    float *weight, *bias;
} norm_weights;

typedef struct ffn_weights {
    matrix gate, up, down;                  /* [ffn, dim], [ffn, dim], [dim, ffn]; no gate in a plain one */
    float *gate_bias, *up_bias, *down_bias; /* NULL when the model has none, as all biases below */
} ffn_weights;

typedef struct layer_weights {
    norm_weights attn_norm, ffn_norm;   /* [dim] before the part, where arch.h's norm_place has one */
    norm_weights attn_after, ffn_after; /* [dim] after it, or after the sum */
    norm_weights q_norm, k_norm;        /* [head_dim], or of all heads */
    matrix       q, k, v, o; /* q [heads*head_dim, dim], k and v [kv_heads*head_dim, dim], o [dim, heads*head_dim] */
    float       *q_bias, *k_bias, *v_bias, *o_bias;
    ffn_weights  ffn;
    /* With experts `ffn` is the shared one, if there is one. */
    matrix       router;      /* [experts, dim] */
    ffn_weights *experts;     /* [experts] NULL without experts */
    float       *shared_gate; /* [dim] */
} layer_weights;

typedef struct model {
    char          *name; /* general.name or the file's */
    model_shape    shape;
    matrix         embedding;              /* [vocab, dim] */
    matrix         positions, token_types; /* [positions, dim], [token_types, dim]; rows 0 when there are none */
    norm_weights   embedding_norm;
    matrix         output; /* [vocab, dim]; shares the embedding's data when tied; rows 0 when headless */
    float         *output_bias;
    norm_weights   output_norm;
    /* Of a model that ranks (POOLING_RANK): [dim, dim] and [1, dim]; rows 0 when there are none. */
    matrix         rank_dense, rank_output;
    float         *rank_dense_bias, *rank_output_bias;
    float         *rope_factors;           /* [rope_dim/2] divides the frequencies; NULL when absent */
    float         *rope_long, *rope_short; /* the same for contexts above rope_original, and up to it */
    layer_weights *layers;
    ffn_weights   *experts;         /* of all layers */
    tokenizer     *tokens;          /* NULL when the file has none ("no_vocab") */
    chat_template *chat;            /* NULL when the file has none, or one that pare cannot compile */
    char           chat_error[256]; /* why not, in that case; otherwise empty */
    size_t         weight_bytes;
    void          *memory; /* all weights, one mapping */
    size_t         memory_bytes;
} model;

/* `path` NULL with `data`: a model in memory (the bundled one). The gguf is closed again: packed weights are the only
 * copy that stays. `pool` may be NULL; packing then runs on the calling thread. */
model *model_open(const char *path, const void *data, size_t n, pool *p, err *e);
/* The same, given up with ERR_CANCELLED soon after another thread has set *stop. */
model *model_open_until(const char *path, const void *data, size_t n, pool *p, const atomic_bool *stop, err *e);
void   model_close(model *m);

#endif
