/* archs.h - which transformers' classes pare imports: one row a class, with its GGUF name, its tensors and its traits. */
#ifndef PARE_MODEL_IMPORT_ARCHS_H
#define PARE_MODEL_IMPORT_ARCHS_H

#include <stdbool.h>

/* What happens to a tensor's values on the way. */
typedef enum tensor_change {
    KEEP,
    PAIR_Q,     /* rows of a head from halves (i, i + d/2) to neighbours (2i, 2i+1), as GGUF's llama turns them */
    PAIR_K,     /* the same, over the key heads */
    PLUS_ONE,   /* Gemma's norms are stored as the distance from 1 */
    TRANSPOSE,  /* GPT-2's Conv1D holds [in, out] */
    FUSED_GATE, /* [experts, 2 ffn, dim]: the first half of each expert's rows */
    FUSED_UP    /* the second half */
} tensor_change;

enum { MAY_BE_ABSENT = 1, MAY_HAVE_BIAS = 2, INSTEAD = 4 /* only where the row before found nothing */ };

/* '#' stands for the layer, '@' for the expert (all experts of a layer become one tensor). ".weight" and ".bias" are
 * added; a `gguf` of NULL ends a table. */
typedef struct tensor_rule {
    const char   *hf, *gguf;
    tensor_change change;
    unsigned      flags;
} tensor_rule;

/* How a model's attention windows are said. */
typedef enum window_rule {
    WINDOW_NONE,     /* sliding_window limits every layer, and GGUF has no key for it: only up to its length */
    WINDOW_SWITCHED, /* the same, when use_sliding_window says so (Qwen) */
    WINDOW_KEY,      /* attention.sliding_window, all layers (Phi-3) */
    WINDOW_SECOND,   /* the same, layers 0, 2, 4 .. (Gemma 2) */
    WINDOW_SIXTH     /* the same, all but each sixth layer (Gemma 3) */
} window_rule;

enum {
    ARCH_LLAMA_KEYS = 1,  /* vocab_size and rope.dimension_count are written */
    ARCH_NO_ROPE = 2,     /* learned positions */
    ARCH_ENCODER = 4,     /* attention to both sides, pooling, no output matrix */
    ARCH_TIED = 8,        /* tie_word_embeddings is true where config.json does not say */
    ARCH_EXPERTS = 16,    /* a router and experts in every layer */
    ARCH_LAYER_NORM = 32, /* not RMS */
    ARCH_NORM_TOPK = 64,  /* router weights are normalised over the chosen experts; without it they must not be */
    ARCH_ADD_MODEL = 128, /* names may lack "model." */
    ARCH_HEAD_FIXED = 256 /* a head has hidden_size / heads values, whatever head_dim says */
};

typedef struct import_arch {
    const char        *hf;         /* in config.json's architectures */
    const char        *model_type; /* where architectures is missing; NULL: another row of the type stands for it */
    const char        *gguf;
    const tensor_rule *tensors;
    unsigned           traits;
    window_rule        window;
    const char        *activations; /* "silu|swish": those that GGUF's architecture has */
    const char        *strip;       /* prefixes of tensor names that say nothing, "a.|b." */
    const char        *pre;         /* tokenizer.ggml.pre where only vocab.json and merges.txt are there; or NULL */
    double             rope_base;   /* where config.json does not say */
} import_arch;

const import_arch *import_arch_named(const char *hf);
const import_arch *import_arch_typed(const char *model_type);
const char        *import_arch_name(int i); /* "LlamaForCausalLM"; NULL past the last */

/* Tensors that are no weights, or none of the text model's: "*.suffix" or "prefix*". */
bool import_left_out(const import_arch *a, const char *name);

#endif
