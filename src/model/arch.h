/* arch.h - what kinds of transformer pare knows: one row a kind, with its traits; and a model's numbers.
 *
 * A new architecture is a new row, plus a trait when it truly does something new. What is not in the table is refused
 * by name, never guessed.                                                                                            */
#ifndef PARE_MODEL_ARCH_H
#define PARE_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"
#include "tensor/kernels.h"

typedef enum rope_kind { ROPE_NONE, ROPE_PAIRS, ROPE_HALVES } rope_kind; /* (2i, 2i+1) or (i, i + rot/2) */
typedef enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_YARN } rope_scaling;

typedef enum norm_kind { NORM_RMS, NORM_LAYER } norm_kind;
/* Where a layer's norms stand, f being attention or the feed-forward part. */
typedef enum norm_place {
    NORM_BEFORE, /* x + f(norm(x)) */
    NORM_AROUND, /* x + norm'(f(norm(x))): gemma2, gemma3, glm4 */
    NORM_AFTER,  /* x + norm(f(x)): olmo2 */
    NORM_SUM     /* norm(x + f(x)): bert */
} norm_place;

typedef enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_WHOLE } qk_norm; /* of each head; of all heads at once */

/* What a kind has beyond the plain decoder. */
typedef enum arch_trait {
    TRAIT_PLAIN_FFN = 1 << 0,        /* down(act(up x)); otherwise down(act(gate x) * (up x)) */
    TRAIT_FUSED_QKV = 1 << 1,        /* one tensor attn_qkv holds q, k and v, as a rule: model_shape.fused_qkv */
    TRAIT_FUSED_GATE = 1 << 2,       /* ffn_up holds the gate's rows, then those of up */
    TRAIT_POSITIONS = 1 << 3,        /* learned positions are added to the embedding */
    TRAIT_TOKEN_TYPES = 1 << 4,      /* row 0 of the token types too, and a norm follows */
    TRAIT_EXPERTS = 1 << 5,          /* may have experts */
    TRAIT_RENORM = 1 << 6,           /* the chosen experts' shares are made to sum to 1 */
    TRAIT_SHARED_GATE = 1 << 7,      /* what the shared expert says is weighed by a sigmoid */
    TRAIT_WINDOW = 1 << 8,           /* may have attention windows */
    TRAIT_CAPS = 1 << 9,             /* may have soft caps */
    TRAIT_SCALES = 1 << 10,          /* embedding_scale, residual_scale, attention.scale, logit_scale */
    TRAIT_SCALE_EMBEDDING = 1 << 11, /* embeddings are multiplied by sqrt(dim) */
    TRAIT_LOGIT_TIMES = 1 << 12,     /* logit_scale multiplies (command-r); otherwise it divides (granite) */
    TRAIT_PARALLEL = 1 << 13,        /* x + attention(norm(x)) + ffn(norm'(x)) */
    TRAIT_PARALLEL_KEY = 1 << 14,    /* the same where use_parallel_residual says so */
    TRAIT_BOTH_WAYS = 1 << 15,       /* attention also looks ahead: embeddings, no text */
    TRAIT_QKV_BIAS = 1 << 16,        /* q, k and v must have biases */
    TRAIT_LONG_ROPE = 1 << 17,       /* may have other rope factors for long contexts */
    TRAIT_NO_NORM_WEIGHT = 1 << 18,  /* layer norms without weights: olmo */
    TRAIT_HALF_FFN = 1 << 19,        /* feed_forward_length counts gate and up together: qwen */
    TRAIT_PARALLEL_BARE = 1 << 20,   /* TRAIT_PARALLEL where the file has no norms before the feed-forward parts */
    TRAIT_CLAMP = 1 << 21,           /* may clamp q, k and v: olmo */
    TRAIT_LOCAL_PLAIN = 1 << 22      /* layers with a window turn without scaling */
} arch_trait;

typedef struct arch {
    const char *name; /* general.architecture */
    rope_kind   rope;
    norm_kind   norm;
    norm_place  place;
    qk_norm     qk;
    activation  act;
    unsigned    traits;          /* arch_trait */
    int         window_every;    /* layer i has a window unless i % window_every == window_every - 1; 1: all layers */
    int         no_rope_every;   /* layer i has no rope if i % no_rope_every == no_rope_every - 1; 0: all have it */
    int         window;          /* where the file says nothing; 0: none */
    float       local_rope_base; /* of layers with a window; 0: as the others */
    float       caps[2];         /* of scores and of logits where the file says nothing (gemma2) */
    int         deep;            /* so many layers: queries are scaled by 1 / sqrt(dim / heads); 0: none */
} arch;

typedef enum pooling {
    POOLING_NONE,
    POOLING_MEAN,
    POOLING_CLS,
    POOLING_LAST,
    POOLING_RANK
} pooling; /* GGUF's numbers */

typedef struct model_shape {
    const arch *arch;
    int         layers, dim, heads, kv_heads, head_dim, ffn, vocab, context;
    int         rope_dim; /* values of a head that turn; even, <= head_dim */
    float       rope_base;
    float       rope_scale; /* positions are divided by it; 1 without scaling */
    float       norm_eps;
    bool        tied; /* the output uses the embedding */

    bool         headless; /* gives rows, no logits: no output matrix at all */
    bool         causal;
    bool         parallel;
    bool         fused_qkv;     /* one tensor holds q, k and v */
    bool         fused_experts; /* one tensor holds each expert's gate and up */
    rope_scaling scaling;
    int          rope_original;   /* context that it was trained with, of yarn and of long rope */
    float   yarn_fast, yarn_slow; /* turns over the original context above and below which nothing and all is scaled */
    float   rope_attn;            /* multiplies cosine and sine */
    float   local_rope_base, local_rope_scale, local_rope_attn; /* of layers with a window */
    float   attn_scale;                                         /* of scores: 1 / sqrt(head_dim) but for a few */
    float   attn_cap, logit_cap;                                /* 0: none */
    float   clamp_qkv;                                          /* q, k and v stay within -this and this; 0: no clamp */
    float   embedding_scale, residual_scale, logit_scale;       /* all multiply; 1 but for a few */
    int     window, window_every;                               /* 0: none; see arch.window_every */
    int     experts, experts_used, expert_ffn;                  /* 0: none */
    int     shared_ffn;                                         /* of the shared expert; 0: none */
    float   expert_scale;
    bool    expert_renorm;
    int     token_types, positions; /* rows of these embeddings */
    pooling pooling;
} model_shape;

const arch *arch_named(const char *name, size_t n);
/* The i-th architecture; NULL past the last. */
const arch *arch_at(int i);

/* Reads and checks the hyper-parameters; sentences name the key. vocab comes from the embedding tensor's shape. */
bool model_shape_read(const gguf *g, model_shape *out, err *e);

static inline bool arch_has(const model_shape *s, arch_trait trait) {
    return (s->arch->traits & (unsigned)trait) != 0;
}

/* How many positions, its own included, a token sees in this layer; 0: all before it. */
static inline int model_window(const model_shape *s, int layer) {
    bool all = s->window_every > 1 && layer % s->window_every == s->window_every - 1;
    return all ? 0 : s->window;
}

/* Whether layers with a window turn in another way than the others. */
static inline bool model_turns_locally(const model_shape *s) {
    return s->window && (s->local_rope_base != s->rope_base || s->local_rope_scale != s->rope_scale ||
                         s->local_rope_attn != s->rope_attn);
}

static inline bool model_turns(const model_shape *s, int layer) { /* has rope */
    int every = s->arch->no_rope_every;
    return s->arch->rope != ROPE_NONE && !(every && layer % every == every - 1);
}

#endif
