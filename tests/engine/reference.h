/* reference.h - the transformer once more, as plainly as it can be said: double precision, all tokens of a sequence,
 * nothing kept between layers but the rows. Each step names the paper or the authors' code that it follows; "HF" is
 * huggingface/transformers, models/NAME/modeling_NAME.py. What engine/forward.h gives is tested against this. */
#ifndef TESTS_ENGINE_REFERENCE_H
#define TESTS_ENGINE_REFERENCE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine/reference_spec.h"
#include "model/gguf.h"

typedef struct reference {
    const spec *s;
    const gguf *g;
    int         n;          /* tokens */
    double     *x;          /* [n][dim] the residual stream */
    double     *in, *given; /* [n][dim] what a part reads and what it says */
    double     *q, *k, *v;  /* [n][heads * head_dim], [n][kv_heads * head_dim] */
} reference;

/* ---- weights and norms ---- */

/* The values of "blk.LAYER.NAME", or of NAME when there is no layer; NULL when the file has none. F32 in these files. */
static inline const float *ref_values(const gguf *g, int layer, const char *name, const char *kind) {
    char full[96];
    if (layer < 0)
        snprintf(full, sizeof full, "%s.%s", name, kind);
    else
        snprintf(full, sizeof full, "blk.%d.%s.%s", layer, name, kind);
    const gguf_tensor *t = gguf_tensor_named(g, full);
    assert_true(!t || t->type == BLOCK_F32);
    return t ? t->data : NULL;
}

typedef struct rows { /* some rows of a matrix, by the name of its tensor */
    int         layer;
    const char *name;
    int         first, rows, cols;
    bool        bias;
} rows;

static inline void ref_linear(const gguf *g, rows w, const double *x, double *out) {
    const float *m = ref_values(g, w.layer, w.name, "weight"), *b = ref_values(g, w.layer, w.name, "bias");
    assert_non_null(m);
    for (int r = 0; r < w.rows; r++) {
        const float *row = m + (size_t)(w.first + r) * (size_t)w.cols;
        double       sum = 0;
        for (int c = 0; c < w.cols; c++)
            sum += (double)row[c] * x[c];
        out[r] = sum + (w.bias && b ? (double)b[w.first + r] : 0);
    }
}

/* LayerNorm, arXiv:1607.06450; RMSNorm, arXiv:1910.07467. */
static inline void ref_norm(const reference *r, int layer, const char *name, int n, const double *x, double *out) {
    const float *w = r->s->norm_bare ? NULL : ref_values(r->g, layer, name, "weight");
    const float *b = r->s->norm_bias ? ref_values(r->g, layer, name, "bias") : NULL;
    double       mean = 0, power = 0;
    assert_true(w || r->s->norm_bare);
    for (int i = 0; r->s->layer_norm && i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        power += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++)
        out[i] = (x[i] - mean) / sqrt(power + SPEC_EPS) * (w ? (double)w[i] : 1) + (b ? (double)b[i] : 0);
}

static inline double ref_act(nonlinear kind, double x) {
    switch (kind) {
    case USE_SILU:
        return x / (1 + exp(-x));
    case USE_GELU_TANH: /* arXiv:1606.08415, section 2; HF "gelu_new", "gelu_pytorch_tanh" */
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case USE_GELU_ERF: /* HF "gelu" */
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    default: /* HF "relu2", arXiv:2109.08668 */
        return x > 0 ? x * x : 0;
    }
}

/* ---- positions ---- */

/* YaRN, arXiv:2309.00071, as HF modeling_rope_utils.py `_compute_yarn_parameters` has it. */
static inline double ref_yarn(const spec *s, int i, double frequency) {
    double n = spec_rope_dim(s), bounds[2] = {s->beta_fast, s->beta_slow};
    for (int b = 0; b < 2; b++)
        bounds[b] = n * log(s->original / (bounds[b] * 2 * M_PI)) / (2 * log(s->rope_base));
    double low = fmax(floor(bounds[0]), 0), high = fmin(ceil(bounds[1]), n - 1);
    double ramp = fmin(fmax((i - low) / (high == low ? 0.001 : high - low), 0), 1);
    return frequency / s->factor * ramp + frequency * (1 - ramp);
}

static inline bool ref_has_window(const spec *s, int layer) {
    return s->window && !(s->window_every > 1 && (layer + 1) % s->window_every == 0);
}

/* Radians a position of pair i. LongRoPE (arXiv:2402.13753; HF `_compute_longrope_parameters`) and Llama 3.1
 * (`_compute_llama3_parameters`, whose factors the file holds) divide each frequency by its own factor. */
static inline double ref_frequency(const reference *r, int layer, int i) {
    const spec *s = r->s;
    bool        local = s->local_base > 0 && ref_has_window(s, layer);
    double      frequency = pow(local ? s->local_base : s->rope_base, -2.0 * i / spec_rope_dim(s));
    if (s->rope_freqs)
        frequency /= (double)ref_values(r->g, -1, "rope_freqs", "weight")[i];
    if (s->long_rope) {
        const char *which = s->used_context > s->original ? "rope_factors_long" : "rope_factors_short";
        frequency /= (double)ref_values(r->g, -1, which, "weight")[i];
    }
    if (s->local_plain && ref_has_window(s, layer))
        return frequency;
    return s->scaling == STRETCH_LINEAR ? frequency / s->factor
           : s->scaling == STRETCH_YARN ? ref_yarn(s, i, frequency)
                                        : frequency;
}

/* How long turned heads are: YaRN's and LongRoPE's attention factor. */
static inline double ref_length(const spec *s, int layer) {
    if (s->local_plain && ref_has_window(s, layer))
        return 1;
    return spec_or_one(s->rope_attn) * (s->scaling == STRETCH_YARN ? 1 + 0.1 * log(s->factor) : 1);
}

/* RoFormer, arXiv:2104.09864. Neighbours: the paper, and HF's rotate_half after the converter's permutation of rows;
 * halves: HF's rotate_half. */
static inline void ref_rope(const reference *r, int layer, int position, double *head) {
    const spec *s = r->s;
    int         n = spec_rope_dim(s);
    if (s->rotate == ROTATE_NONE || (s->no_rope_every && (layer + 1) % s->no_rope_every == 0))
        return;
    for (int i = 0; i < n / 2; i++) {
        double  angle = position * ref_frequency(r, layer, i), length = ref_length(s, layer);
        double *a = s->rotate == ROTATE_NEIGHBOURS ? &head[2 * i] : &head[i];
        double *b = s->rotate == ROTATE_NEIGHBOURS ? &head[2 * i + 1] : &head[i + n / 2];
        double  x = *a, y = *b;
        *a = length * (x * cos(angle) - y * sin(angle));
        *b = length * (x * sin(angle) + y * cos(angle));
    }
}

/* ---- attention ---- */

static inline void ref_head_norm(const reference *r, int layer, const char *name, int heads, double *x) {
    int each = r->s->qk == HEADS_EACH ? r->s->head_dim : heads * r->s->head_dim;
    for (int at = 0; r->s->qk != HEADS_PLAIN && at < heads * r->s->head_dim; at += each)
        ref_norm(r, layer, name, each, x + at, x + at);
}

static inline void ref_qkv(const reference *r, int layer, int t) {
    const spec *s = r->s;
    int         q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    double     *to[] = {r->q + (size_t)t * (size_t)q, r->k + (size_t)t * (size_t)kv, r->v + (size_t)t * (size_t)kv};
    const char *name[] = {"attn_q", "attn_k", "attn_v"};
    int         first[] = {0, q, q + kv}, n[] = {q, kv, kv};
    for (int i = 0; i < 3; i++) {
        rows w = {layer, s->fused_qkv ? "attn_qkv" : name[i], s->fused_qkv ? first[i] : 0, n[i], s->dim, s->qkv_bias};
        ref_linear(r->g, w, r->in + (size_t)t * (size_t)s->dim, to[i]);
        for (int c = 0; s->clamp > 0 && c < n[i]; c++) /* HF olmo: clip_qkv */
            to[i][c] = fmin(fmax(to[i][c], -s->clamp), s->clamp);
    }
    ref_head_norm(r, layer, "attn_q_norm", s->heads, to[0]);
    ref_head_norm(r, layer, "attn_k_norm", s->kv_heads, to[1]);
    for (int h = 0; h < s->heads; h++)
        ref_rope(r, layer, t, to[0] + h * s->head_dim);
    for (int h = 0; h < s->kv_heads; h++)
        ref_rope(r, layer, t, to[1] + h * s->head_dim);
}

/* One head of one token; a window of w is the token itself and the w - 1 before it (HF masking_utils.py). */
static inline void ref_attend(const reference *r, int layer, int t, int h, double *out) {
    const spec   *s = r->s;
    int           d = s->head_dim, kv_head = h / (s->heads / s->kv_heads), end = s->both_ways ? r->n : t + 1;
    int           begin = ref_has_window(s, layer) && t + 1 > s->window ? t + 1 - s->window : 0;
    double        scale = s->query_scale > 0 ? s->query_scale : 1 / sqrt(d), sum = 0;
    const double *q = r->q + ((size_t)t * (size_t)s->heads + (size_t)h) * (size_t)d;
    memset(out, 0, (size_t)d * sizeof *out);
    for (int p = begin; p < end; p++) {
        size_t at = ((size_t)p * (size_t)s->kv_heads + (size_t)kv_head) * (size_t)d;
        double score = 0;
        for (int c = 0; c < d; c++)
            score += scale * q[c] * r->k[at + (size_t)c];
        if (s->attn_cap > 0) /* HF gemma2 */
            score = s->attn_cap * tanh(score / s->attn_cap);
        sum += exp(score); /* small models: no overflow in a double */
        for (int c = 0; c < d; c++)
            out[c] += exp(score) * r->v[at + (size_t)c];
    }
    for (int c = 0; c < d; c++)
        out[c] /= sum;
}

static inline void ref_attention(const reference *r, int layer) {
    const spec *s = r->s;
    int         q_dim = s->heads * s->head_dim;
    double     *mixed = malloc((size_t)q_dim * sizeof *mixed);
    for (int t = 0; t < r->n; t++)
        ref_qkv(r, layer, t);
    for (int t = 0; t < r->n; t++) {
        for (int h = 0; h < s->heads; h++)
            ref_attend(r, layer, t, h, mixed + h * s->head_dim);
        ref_linear(r->g, (rows){layer, "attn_output", 0, s->dim, q_dim, s->o_bias}, mixed,
                   r->given + (size_t)t * (size_t)s->dim);
    }
    free(mixed);
}

/* ---- the feed-forward part ---- */

typedef struct ffn_names {
    const char *gate, *up, *down; /* gate NULL: a plain one */
    int         gate_first, up_first, down_first, ffn;
} ffn_names;

static inline void ref_ffn(const reference *r, int layer, ffn_names f, const double *x, double *out) {
    const spec *s = r->s;
    double     *gate = calloc((size_t)f.ffn, sizeof *gate), *up = calloc((size_t)f.ffn, sizeof *up);
    ref_linear(r->g, (rows){layer, f.up, f.up_first, f.ffn, s->dim, s->ffn_bias}, x, up);
    if (f.gate)
        ref_linear(r->g, (rows){layer, f.gate, f.gate_first, f.ffn, s->dim, s->ffn_bias}, x, gate);
    for (int i = 0; i < f.ffn; i++)
        up[i] = f.gate ? ref_act(s->act, gate[i]) * up[i] : ref_act(s->act, up[i]);
    ref_linear(r->g, (rows){layer, f.down, f.down_first, s->dim, f.ffn, s->ffn_bias}, up, out);
    free(gate);
    free(up);
}

static inline ffn_names ref_expert(const spec *s, int i) {
    if (s->fused_experts)
        return (ffn_names){"ffn_gate_up_exps",          "ffn_gate_up_exps", "ffn_down_exps", 2 * i * s->expert_ffn,
                           (2 * i + 1) * s->expert_ffn, i * s->dim,         s->expert_ffn};
    return (ffn_names){"ffn_gate_exps",   "ffn_up_exps", "ffn_down_exps", i * s->expert_ffn,
                       i * s->expert_ffn, i * s->dim,    s->expert_ffn};
}

/* Softmax over all experts, then the best few (HF mixtral, qwen2_moe, olmoe); renormalised it is also softmax over the
 * best few (HF granitemoe). */
static inline void ref_experts(const reference *r, int layer, const double *x, double *out) {
    const spec *s = r->s;
    double      score[16], said[512], gate = 0, sum = 0, share = 0;
    assert_true(s->experts <= 16 && s->dim <= 512);
    ref_linear(r->g, (rows){layer, "ffn_gate_inp", 0, s->experts, s->dim, false}, x, score);
    for (int i = 0; i < s->experts; i++)
        sum += score[i] = exp(score[i]);
    memset(out, 0, (size_t)s->dim * sizeof *out);
    int best[16];
    for (int u = 0; u < s->used; u++) {
        best[u] = -1;
        for (int i = 0; i < s->experts; i++) {
            bool taken = false;
            for (int b = 0; b < u; b++)
                taken |= best[b] == i;
            if (!taken && (best[u] < 0 || score[i] > score[best[u]]))
                best[u] = i;
        }
        share += score[best[u]] / sum;
    }
    for (int u = 0; u < s->used; u++) {
        ref_ffn(r, layer, ref_expert(s, best[u]), x, said);
        for (int c = 0; c < s->dim; c++)
            out[c] += score[best[u]] / sum / (s->renorm ? share : 1) * said[c];
    }
    if (!s->shared_ffn)
        return;
    ref_ffn(r, layer, (ffn_names){"ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", 0, 0, 0, s->shared_ffn}, x, said);
    if (s->shared_gate) /* HF qwen2_moe: sigmoid(shared_expert_gate(x)) */
        ref_linear(r->g, (rows){layer, "ffn_gate_inp_shexp", 0, 1, s->dim, false}, x, &gate);
    for (int c = 0; c < s->dim; c++)
        out[c] += (s->shared_gate ? 1 / (1 + exp(-gate)) : 1) * said[c];
}

static inline void ref_feed(const reference *r, int layer) {
    const spec *s = r->s;
    ffn_names   f = {s->plain_ffn ? NULL : "ffn_gate", "ffn_up", "ffn_down", 0, 0, 0, s->ffn};
    if (s->fused_gate) { /* HF phi3: gate_up_proj.chunk(2), the gate first */
        f.gate = "ffn_up";
        f.up_first = s->ffn;
    }
    for (int t = 0; t < r->n; t++) {
        size_t at = (size_t)t * (size_t)s->dim;
        if (s->experts)
            ref_experts(r, layer, r->in + at, r->given + at);
        else
            ref_ffn(r, layer, f, r->in + at, r->given + at);
    }
}

/* ---- layers ---- */

/* in = norm(x), or x where this model has no norm before a part. */
static inline void ref_before(const reference *r, int layer, const char *name) {
    const spec *s = r->s;
    for (int t = 0; t < r->n; t++) {
        size_t at = (size_t)t * (size_t)s->dim;
        if (s->norms == NORMS_AFTER || s->norms == NORMS_ON_SUM)
            memcpy(r->in + at, r->x + at, (size_t)s->dim * sizeof(double));
        else
            ref_norm(r, layer, name, s->dim, r->x + at, r->in + at);
    }
}

static inline void ref_after(const reference *r, int layer, const char *around, const char *on_sum) {
    const spec *s = r->s;
    for (int t = 0; t < r->n; t++) {
        double *x = r->x + (size_t)t * (size_t)s->dim, *given = r->given + (size_t)t * (size_t)s->dim;
        if (s->norms == NORMS_AROUND || s->norms == NORMS_AFTER) /* HF gemma2; HF olmo2 */
            ref_norm(r, layer, around, s->dim, given, given);
        for (int c = 0; c < s->dim; c++)
            x[c] += given[c] * spec_or_one(s->residual_scale); /* HF granite: residual_multiplier */
        if (s->norms == NORMS_ON_SUM)                          /* HF bert */
            ref_norm(r, layer, on_sum, s->dim, x, x);
    }
}

static inline void ref_layer(const reference *r, int layer) {
    const spec *s = r->s;
    size_t      bytes = (size_t)r->n * (size_t)s->dim * sizeof(double);
    double     *first = malloc(bytes); /* x as both parts of a parallel layer read it */
    assert_non_null(first);
    ref_before(r, layer, "attn_norm");
    if (s->parallel) { /* x + attention(norm(x)) + ffn(norm'(x)): HF gpt_neox, phi, cohere */
        memcpy(first, r->x, bytes);
        ref_attention(r, layer);
        ref_after(r, layer, "post_attention_norm", "attn_output_norm");
        for (size_t i = 0; i < bytes / sizeof(double); i++) {
            double sum = r->x[i];
            r->x[i] = first[i];
            first[i] = sum;
        }
        ref_before(r, layer, s->one_norm ? "attn_norm" : "ffn_norm");
        memcpy(r->x, first, bytes);
    } else {
        ref_attention(r, layer);
        ref_after(r, layer, "post_attention_norm", "attn_output_norm");
        ref_before(r, layer, s->one_norm ? "attn_norm" : "ffn_norm");
    }
    ref_feed(r, layer);
    ref_after(r, layer, "post_ffw_norm", "layer_output_norm");
    free(first);
}

static inline void ref_begin(const reference *r, const int *ids) {
    const spec  *s = r->s;
    const float *words = ref_values(r->g, -1, "token_embd", "weight");
    const float *places = ref_values(r->g, -1, "position_embd", "weight");
    const float *types = ref_values(r->g, -1, "token_types", "weight");
    for (int t = 0; t < r->n; t++) {
        double *x = r->x + (size_t)t * (size_t)s->dim;
        for (int c = 0; c < s->dim; c++) {
            x[c] = (double)words[ids[t] * s->dim + c] * spec_or_one(s->embedding_scale);
            x[c] += s->positions ? (double)places[t * s->dim + c] : 0;
            x[c] += s->token_types ? (double)types[c] : 0; /* all are of the first type */
        }
        if (s->norms == NORMS_ON_SUM)
            ref_norm(r, -1, "token_embd_norm", s->dim, x, x);
    }
}

/* [n][vocab] logits, or of an encoder [n][dim] rows; malloc'd. */
static inline double *ref_run(const spec *s, const gguf *g, const int *ids, int n) {
    size_t    q = (size_t)(s->heads * s->head_dim), kv = (size_t)(s->kv_heads * s->head_dim), d = (size_t)s->dim;
    double   *memory = calloc((size_t)n * (q + 2 * kv + 3 * d), sizeof *memory), *at = memory;
    double   *out = calloc((size_t)n * (size_t)(s->both_ways ? s->dim : SPEC_VOCAB), sizeof *out);
    reference r = {.s = s, .g = g, .n = n};
    assert_true(memory && out);
    double **parts[] = {&r.x, &r.in, &r.given, &r.q, &r.k, &r.v};
    size_t   widths[] = {d, d, d, q, kv, kv};
    for (int i = 0; i < 6; at += (size_t)n * widths[i++])
        *parts[i] = at;
    ref_begin(&r, ids);
    for (int layer = 0; layer < s->layers; layer++)
        ref_layer(&r, layer);
    if (s->both_ways)
        memcpy(out, r.x, (size_t)n * d * sizeof *out);
    for (int t = 0; !s->both_ways && t < n; t++) {
        double *logits = out + (size_t)t * SPEC_VOCAB;
        ref_norm(&r, -1, "output_norm", s->dim, r.x + (size_t)t * d, r.in);
        ref_linear(g, (rows){-1, s->tied ? "token_embd" : "output", 0, SPEC_VOCAB, s->dim, false}, r.in, logits);
        const float *bias = s->output_bias ? ref_values(g, -1, "output", "bias") : NULL;
        for (int i = 0; i < SPEC_VOCAB; i++) {
            logits[i] = (logits[i] + (bias ? (double)bias[i] : 0)) * spec_or_one(s->logit_scale);
            if (s->logit_cap > 0) /* HF gemma2: final_logit_softcapping */
                logits[i] = s->logit_cap * tanh(logits[i] / s->logit_cap);
        }
    }
    free(memory);
    return out;
}

#endif
