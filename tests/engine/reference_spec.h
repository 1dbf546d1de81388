/* reference_spec.h - what a model does, said for tests: the file that random_model.h writes and the sums that
 * reference.h makes both follow it. Nothing here comes from src/model/arch.c, which is what is being tested. */
#ifndef TESTS_ENGINE_REFERENCE_SPEC_H
#define TESTS_ENGINE_REFERENCE_SPEC_H

#include <stdbool.h>

typedef enum rotation { ROTATE_NONE, ROTATE_NEIGHBOURS, ROTATE_HALVES } rotation;
typedef enum stretch { STRETCH_NONE, STRETCH_LINEAR, STRETCH_YARN } stretch; /* of positions */
typedef enum nonlinear { USE_SILU, USE_GELU_TANH, USE_GELU_ERF, USE_RELU_SQUARED } nonlinear;
typedef enum head_norm { HEADS_PLAIN, HEADS_EACH, HEADS_TOGETHER } head_norm;
typedef enum norms_at { NORMS_BEFORE, NORMS_AROUND, NORMS_AFTER, NORMS_ON_SUM } norms_at;

typedef struct spec {
    const char *name; /* of the case */
    const char *arch; /* general.architecture */
    int         layers, dim, heads, kv_heads, head_dim, ffn, context;

    bool      layer_norm, norm_bias, norm_bare; /* bare: no weights at all */
    norms_at  norms;
    bool      parallel, one_norm; /* one_norm: no ffn_norm, both parts read attn_norm's */
    head_norm qk;
    nonlinear act;
    bool      plain_ffn;
    bool      fused_qkv, fused_gate, fused_experts, half_ffn; /* how the file stores it */
    bool      qkv_bias, o_bias, ffn_bias, output_bias;
    bool      tied, positions, token_types, both_ways;

    rotation rotate;
    int      rope_dim; /* 0: all of head_dim */
    double   rope_base;
    stretch  scaling;
    double   factor, rope_attn; /* rope_attn: 0 is 1 */
    int      original;
    double   beta_fast, beta_slow;
    bool     rope_freqs, long_rope;
    int      used_context; /* of long rope: what the engine is told */
    double   local_base;   /* of layers with a window */
    bool     local_plain;  /* they are not stretched */
    int      no_rope_every;

    int    window, window_every;
    bool   window_unsaid; /* the file does not tell the window */
    double attn_cap, logit_cap;
    double embedding_scale, residual_scale, logit_scale, query_scale; /* multiply; 0: 1, 1, 1, 1/sqrt(head_dim) */
    double clamp;

    int  experts, used, expert_ffn, shared_ffn;
    bool renorm, shared_gate;
} spec;

enum { SPEC_VOCAB = 119, SPEC_TYPES = 2 };
#define SPEC_EPS 1e-5

static inline int spec_rope_dim(const spec *s) {
    return s->rope_dim ? s->rope_dim : s->head_dim;
}

static inline double spec_or_one(double x) {
    return x != 0 ? x : 1;
}

#endif
