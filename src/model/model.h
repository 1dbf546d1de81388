/* model.h - a loaded model: its shape, its packed weights, its tokenizer and its chat template.
 *
 * Read-only after model_open: any number of engines and threads may use it.                                          */
#ifndef PARE_MODEL_MODEL_H
#define PARE_MODEL_MODEL_H

#include "base/err.h"
#include "model/arch.h"
#include "model/gguf.h"
#include "model/template/template.h"
#include "model/tokenizer/tokenizer.h"
#include "tensor/matrix.h"

typedef struct layer_weights {
    float *attn_norm, *ffn_norm; /* [dim] */
    matrix q, k, v, o; /* q [heads*head_dim, dim], k and v [kv_heads*head_dim, dim], o [dim, heads*head_dim] */
    float *q_bias, *k_bias, *v_bias, *o_bias; /* NULL when the model has none */
    matrix gate, up, down;                    /* [ffn, dim], [ffn, dim], [dim, ffn] */
} layer_weights;

typedef struct model {
    char          *name; /* general.name or the file's */
    model_shape    shape;
    matrix         embedding; /* [vocab, dim] */
    matrix         output;    /* [vocab, dim]; shares the embedding's data when tied */
    float         *output_norm;
    float         *rope_factors; /* [rope_dim/2] divides the frequencies; NULL when absent */
    layer_weights *layers;
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
void   model_close(model *m);

#endif
