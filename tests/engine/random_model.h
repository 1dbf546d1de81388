/* random_model.h - a small model of any architecture with random weights, written as llama.cpp's converter would: its
 * keys (gguf-py/gguf/constants.py) and its names of tensors (gguf-py/gguf/tensor_mapping.py). */
#ifndef TESTS_ENGINE_RANDOM_MODEL_H
#define TESTS_ENGINE_RANDOM_MODEL_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine/reference_spec.h"
#include "model/gguf_write.h"

enum { RANDOM_MOST_TENSORS = 1500 };

typedef struct random_tensor {
    char    name[64];
    int     dims;
    int64_t shape[3];
    float   middle, spread;
} random_tensor;

typedef struct random_model {
    const spec   *s;
    gguf_writer  *w;
    int           layer, count;
    random_tensor list[RANDOM_MOST_TENSORS];
} random_model;

/* ---- keys ---- */

static inline const char *random_key(const random_model *m, const char *key) {
    static char full[96];
    snprintf(full, sizeof full, "%s.%s", m->s->arch, key);
    return full;
}

static inline void random_int(const random_model *m, const char *key, int value) {
    gguf_write_int(m->w, random_key(m, key), GGUF_U32, value);
}

static inline void random_float(const random_model *m, const char *key, double value) {
    if (value != 0)
        gguf_write_float(m->w, random_key(m, key), GGUF_F32, value);
}

static inline void random_rope_keys(const random_model *m) {
    const spec *s = m->s;
    if (s->rotate == ROTATE_NONE)
        return;
    random_int(m, "rope.dimension_count", spec_rope_dim(s));
    random_float(m, "rope.freq_base", s->rope_base);
    random_float(m, "rope.scaling.attn_factor", s->rope_attn);
    if (s->original)
        random_int(m, "rope.scaling.original_context_length", s->original);
    if (s->scaling == STRETCH_NONE)
        return;
    gguf_write_text(m->w, random_key(m, "rope.scaling.type"), s->scaling == STRETCH_YARN ? "yarn" : "linear");
    random_float(m, "rope.scaling.factor", s->factor);
    if (s->scaling == STRETCH_YARN && s->beta_fast != 32)
        random_float(m, "rope.scaling.yarn_beta_fast", s->beta_fast);
    if (s->scaling == STRETCH_YARN && s->beta_slow != 1)
        random_float(m, "rope.scaling.yarn_beta_slow", s->beta_slow);
}

static inline void random_expert_keys(const random_model *m) {
    const spec *s = m->s;
    random_int(m, "expert_count", s->experts);
    random_int(m, "expert_used_count", s->used);
    if (s->expert_ffn != s->ffn)
        random_int(m, "expert_feed_forward_length", s->expert_ffn);
    if (s->shared_ffn)
        random_int(m, "expert_shared_feed_forward_length", s->shared_ffn);
}

static inline void random_keys(const random_model *m) {
    const spec *s = m->s;
    gguf_write_text(m->w, "general.architecture", s->arch);
    gguf_write_text(m->w, "general.name", s->name);
    gguf_write_text(m->w, "tokenizer.ggml.model", "no_vocab");
    random_int(m, "block_count", s->layers);
    random_int(m, "context_length", s->context);
    random_int(m, "embedding_length", s->dim);
    random_int(m, "feed_forward_length", s->half_ffn ? 2 * s->ffn : s->ffn);
    random_int(m, "attention.head_count", s->heads);
    if (s->kv_heads != s->heads)
        random_int(m, "attention.head_count_kv", s->kv_heads);
    if (s->head_dim * s->heads != s->dim) {
        random_int(m, "attention.key_length", s->head_dim);
        random_int(m, "attention.value_length", s->head_dim);
    }
    random_float(m, s->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", SPEC_EPS);
    random_rope_keys(m);
    if (s->window && !s->window_unsaid)
        random_int(m, "attention.sliding_window", s->window);
    random_float(m, "attn_logit_softcapping", s->attn_cap);
    random_float(m, "final_logit_softcapping", s->logit_cap);
    random_float(m, "attention.clamp_kqv", s->clamp);
    if (s->experts)
        random_expert_keys(m);
    if (s->both_ways)
        gguf_write_bool(m->w, random_key(m, "attention.causal"), false);
}

/* ---- tensors ---- */

static inline random_tensor *random_add(random_model *m, const char *name, const char *kind) {
    assert_true(m->count < RANDOM_MOST_TENSORS);
    random_tensor *t = &m->list[m->count++];
    *t = (random_tensor){.shape = {1, 1, 1}};
    if (m->layer < 0)
        snprintf(t->name, sizeof t->name, "%s.%s", name, kind);
    else
        snprintf(t->name, sizeof t->name, "blk.%d.%s.%s", m->layer, name, kind);
    return t;
}

/* [rows, cols], or [planes, rows, cols]; values that keep the size of what they are multiplied with, times `size`. */
static inline void random_matrix(random_model *m, const char *name, int planes, int rows, int cols, double size) {
    random_tensor *t = random_add(m, name, "weight");
    t->dims = planes ? 3 : 2;
    t->shape[0] = cols;
    t->shape[1] = rows;
    t->shape[2] = planes ? planes : 1;
    t->spread = (float)(size / sqrt(cols));
}

static inline void random_vector(random_model *m, const char *name, const char *kind, int n, double middle,
                                 double spread) {
    random_tensor *t = random_add(m, name, kind);
    t->dims = 1;
    t->shape[0] = n;
    t->middle = (float)middle;
    t->spread = (float)spread;
}

static inline void random_linear(random_model *m, const char *name, int rows, int cols, bool bias, double size) {
    random_matrix(m, name, 0, rows, cols, size);
    if (bias)
        random_vector(m, name, "bias", rows, 0, 0.3);
}

static inline void random_norm(random_model *m, const char *name, int n) {
    if (m->s->norm_bare)
        return;
    random_vector(m, name, "weight", n, 1, 0.3);
    if (m->s->norm_bias)
        random_vector(m, name, "bias", n, 0, 0.2);
}

static inline void random_attention(random_model *m) {
    const spec *s = m->s;
    int         q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    if (s->fused_qkv) {
        random_linear(m, "attn_qkv", q + 2 * kv, s->dim, s->qkv_bias, 1.4);
    } else {
        random_linear(m, "attn_q", q, s->dim, s->qkv_bias, 1.4);
        random_linear(m, "attn_k", kv, s->dim, s->qkv_bias, 1.4);
        random_linear(m, "attn_v", kv, s->dim, s->qkv_bias, 1.4);
    }
    random_linear(m, "attn_output", s->dim, q, s->o_bias, 1.4);
    if (s->qk != HEADS_PLAIN) {
        random_norm(m, "attn_q_norm", s->qk == HEADS_EACH ? s->head_dim : q);
        random_norm(m, "attn_k_norm", s->qk == HEADS_EACH ? s->head_dim : kv);
    }
}

static inline void random_experts(random_model *m) {
    const spec *s = m->s;
    random_matrix(m, "ffn_gate_inp", 0, s->experts, s->dim, 1.5);
    if (s->fused_experts) {
        random_matrix(m, "ffn_gate_up_exps", s->experts, 2 * s->expert_ffn, s->dim, 1.5);
    } else {
        random_matrix(m, "ffn_gate_exps", s->experts, s->expert_ffn, s->dim, 1.5);
        random_matrix(m, "ffn_up_exps", s->experts, s->expert_ffn, s->dim, 1.5);
    }
    random_matrix(m, "ffn_down_exps", s->experts, s->dim, s->expert_ffn, 1.5);
    if (!s->shared_ffn)
        return;
    random_matrix(m, "ffn_gate_shexp", 0, s->shared_ffn, s->dim, 1.5);
    random_matrix(m, "ffn_up_shexp", 0, s->shared_ffn, s->dim, 1.5);
    random_matrix(m, "ffn_down_shexp", 0, s->dim, s->shared_ffn, 1.5);
    if (s->shared_gate)
        random_vector(m, "ffn_gate_inp_shexp", "weight", s->dim, 0, 1.5 / sqrt(s->dim));
}

static inline void random_layer(random_model *m) {
    const spec *s = m->s;
    if (s->norms == NORMS_BEFORE || s->norms == NORMS_AROUND) {
        random_norm(m, "attn_norm", s->dim);
        if (!s->one_norm)
            random_norm(m, "ffn_norm", s->dim);
    }
    random_attention(m);
    if (s->norms == NORMS_AROUND || s->norms == NORMS_AFTER) {
        random_norm(m, "post_attention_norm", s->dim);
        random_norm(m, "post_ffw_norm", s->dim);
    }
    if (s->norms == NORMS_ON_SUM) {
        random_norm(m, "attn_output_norm", s->dim);
        random_norm(m, "layer_output_norm", s->dim);
    }
    if (s->experts) {
        random_experts(m);
        return;
    }
    if (!s->plain_ffn && !s->fused_gate)
        random_linear(m, "ffn_gate", s->ffn, s->dim, s->ffn_bias, 1.5);
    random_linear(m, "ffn_up", s->fused_gate ? 2 * s->ffn : s->ffn, s->dim, s->ffn_bias, 1.5);
    random_linear(m, "ffn_down", s->dim, s->ffn, s->ffn_bias, 1.5);
}

static inline void random_beside(random_model *m) {
    const spec *s = m->s;
    random_matrix(m, "token_embd", 0, SPEC_VOCAB, s->dim, sqrt(s->dim));
    if (s->positions)
        random_matrix(m, "position_embd", 0, s->context, s->dim, sqrt(s->dim));
    if (s->token_types)
        random_matrix(m, "token_types", 0, SPEC_TYPES, s->dim, sqrt(s->dim));
    random_norm(m, s->norms == NORMS_ON_SUM ? "token_embd_norm" : "output_norm", s->dim);
    if (!s->both_ways && !s->tied)
        random_matrix(m, "output", 0, SPEC_VOCAB, s->dim, 1);
    if (s->output_bias)
        random_vector(m, "output", "bias", SPEC_VOCAB, 0, 0.3);
    if (s->rope_freqs) /* 1 for the fast pairs and more for the slow ones, as in Llama 3.1 */
        random_vector(m, "rope_freqs", "weight", spec_rope_dim(s) / 2, 4, 2);
    if (s->long_rope) {
        random_vector(m, "rope_factors_long", "weight", spec_rope_dim(s) / 2, 4, 2);
        random_vector(m, "rope_factors_short", "weight", spec_rope_dim(s) / 2, 1.2, 0.1);
    }
}

/* `middle` with a deviation of `spread`: the sum of three uniform numbers, so never further off than 3 spreads. */
static inline float random_value(uint64_t *seed, const random_tensor *t) {
    double sum = 0;
    for (int i = 0; i < 3; i++)
        sum += (double)(test_random(seed) >> 11) / (double)(1ull << 53) * 2 - 1;
    double value = (double)t->middle + sum * (double)t->spread;
    return (float)(t->middle > 0 ? fmax(value, 0.1) : value);
}

static inline void random_data(const random_model *m, uint64_t seed) {
    for (int i = 0; i < m->count; i++) {
        const random_tensor *t = &m->list[i];
        int64_t              n = t->shape[0] * t->shape[1] * t->shape[2];
        float               *values = malloc((size_t)n * sizeof *values);
        assert_non_null(values);
        for (int64_t v = 0; v < n; v++)
            values[v] = random_value(&seed, t);
        gguf_write_data(m->w, values, (size_t)n * sizeof *values);
        free(values);
    }
}

/* The whole file, malloc'd into *out. `more` adds the keys that only this architecture has; may be NULL. */
static inline bool random_model_build(const spec *s, void (*more)(const random_model *), uint64_t seed, str *out,
                                      err *e) {
    random_model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->s = s;
    m->w = gguf_write_open_memory(out, e);
    assert_non_null(m->w);
    random_keys(m);
    if (more)
        more(m);
    for (m->layer = 0; m->layer < s->layers; m->layer++)
        random_layer(m);
    m->layer = -1;
    random_beside(m);
    for (int i = 0; i < m->count; i++)
        gguf_write_tensor(m->w, m->list[i].name, block_format_of(BLOCK_F32), m->list[i].dims, m->list[i].shape);
    random_data(m, seed);
    bool ok = gguf_write_finish(m->w, e);
    free(m);
    return ok;
}

#endif
