/* shape.c - a model's hyper-parameters, read with suspicion.
 *
 * A key that is neither read nor known to change nothing is refused by name: a model that runs with a setting ignored
 * gives wrong answers and no warning.                                                                                */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/arch.h"

/* Bounds that no model of today comes near and under which every product of two shapes fits an int64_t with ease. */
enum {
    MAX_LAYERS = 1024,
    MAX_DIM = 1 << 18,
    MAX_HEADS = 1 << 12,
    MAX_VOCAB = 1 << 24,
    MAX_CONTEXT = 1 << 24,
    MAX_EXPERTS = 1 << 12,
    MAX_USED = 64
};

/* ---- reading "ARCH.key" ---- */

typedef struct source {
    const gguf *g;
    const char *arch;
    err        *e;
    char        key[160]; /* the full name of the last key asked for */
} source;

static bool refuse(source *s, err_code code, const char *text) {
    err_set(s->e, code, "%s %s", s->key, text);
    return err_prefix(s->e, "%.200s", gguf_name(s->g));
}

/* A string of the file as it can stand in a sentence. */
typedef struct shown {
    char text[48];
} shown;

static shown show(gguf_str s) {
    shown  out;
    size_t n = 0;
    for (; n < s.len && n < sizeof out.text - 1; n++)
        out.text[n] = s.data[n] >= 0x20 && s.data[n] <= 0x7e ? s.data[n] : '?';
    out.text[n] = 0;
    return out;
}

static const char *name_key(source *s, const char *key) {
    snprintf(s->key, sizeof s->key, "%s.%s", s->arch, key);
    return s->key;
}

static bool has(source *s, const char *key) {
    return gguf_has(s->g, name_key(s, key));
}

static bool read_int(source *s, const char *key, int64_t max, int *out) {
    int64_t value;
    if (!gguf_int(s->g, name_key(s, key), 1, max, &value, s->e))
        return false;
    *out = (int)value;
    return true;
}

static bool read_float(source *s, const char *key, double min, double max, float *out) {
    double value;
    if (!gguf_float(s->g, name_key(s, key), &value, s->e))
        return false;
    if (!(value >= min && value <= max)) { /* written so that NaN fails */
        char text[80];
        snprintf(text, sizeof text, "is %g, must be %g to %g", value, min, max);
        return refuse(s, ERR_INVALID, text);
    }
    *out = (float)value;
    return true;
}

static bool optional_int(source *s, const char *key, int64_t max, int *out) {
    return !has(s, key) || read_int(s, key, max, out);
}

static bool optional_float(source *s, const char *key, double min, double max, float *out) {
    return !has(s, key) || read_float(s, key, min, max, out);
}

static bool optional_bool(source *s, const char *key, bool *out) {
    return !has(s, key) || gguf_bool(s->g, s->key, out, s->e);
}

/* ---- keys that must not be ignored ---- */

/* What a key may say without pare having to do something about it. */
typedef enum harmless { ANY, ONLY_ZERO, ONLY_TRUE, ONLY_FALSE, ONLY_ONE_F32 } harmless;

typedef struct known_key {
    const char *name;
    harmless    when;
    const char *otherwise; /* what the file asks for when it says something else */
    unsigned    reads;     /* architectures with one of these traits read it */
} known_key;

static const known_key known_keys[] = {
    {"block_count", ANY, NULL, 0},
    {"context_length", ANY, NULL, 0},
    {"embedding_length", ANY, NULL, 0},
    {"feed_forward_length", ANY, NULL, 0},
    {"vocab_size", ANY, NULL, 0}, /* the embedding's shape says it too, and is what counts */
    {"tensor_data_layout", ANY, NULL, 0},
    {"attention.head_count", ANY, NULL, 0},
    {"attention.head_count_kv", ANY, NULL, 0},
    {"attention.key_length", ANY, NULL, 0},
    {"attention.value_length", ANY, NULL, 0},
    {"attention.layer_norm_rms_epsilon", ANY, NULL, 0},
    {"attention.layer_norm_epsilon", ANY, NULL, 0},
    {"attention.causal", ONLY_TRUE, "attention that also looks ahead", TRAIT_BOTH_WAYS},
    {"attention.sliding_window", ONLY_ZERO, "attention windows", TRAIT_WINDOW},
    {"attention.sliding_window_pattern", ONLY_ZERO, "attention windows", TRAIT_WINDOW},
    {"attention.clamp_kqv", ONLY_ZERO, "clamped attention inputs", TRAIT_CLAMP},
    {"attention.scale", ONLY_ZERO, "a scale of attention", TRAIT_SCALES},
    {"embedding_scale", ONLY_ONE_F32, "scaled embeddings", TRAIT_SCALES},
    {"residual_scale", ONLY_ONE_F32, "scaled residuals", TRAIT_SCALES},
    {"logit_scale", ONLY_ONE_F32, "scaled logits", TRAIT_SCALES},
    {"attn_logit_softcapping", ONLY_ZERO, "soft caps", TRAIT_CAPS},
    {"final_logit_softcapping", ONLY_ZERO, "soft caps", TRAIT_CAPS},
    {"rope.dimension_count", ANY, NULL, 0},
    {"rope.freq_base", ANY, NULL, 0},
    {"rope.freq_base_swa", ONLY_ZERO, "attention windows", TRAIT_WINDOW},
    {"rope.scale_linear", ANY, NULL, 0},
    {"rope.scaling.type", ANY, NULL, 0},
    {"rope.scaling.factor", ANY, NULL, 0},
    {"rope.scaling.original_context_length", ANY, NULL, 0},
    {"rope.scaling.finetuned", ANY, NULL, 0},
    {"rope.scaling.attn_factor", ANY, NULL, 0},
    {"rope.scaling.yarn_log_multiplier", ONLY_ZERO, "a kind of yarn", 0},
    {"rope.scaling.yarn_ext_factor", ONLY_ONE_F32, "a kind of yarn", 0},
    {"rope.scaling.yarn_attn_factor", ANY, NULL, 0},
    {"rope.scaling.yarn_beta_fast", ANY, NULL, 0},
    {"rope.scaling.yarn_beta_slow", ANY, NULL, 0},
    {"expert_count", ONLY_ZERO, "experts", TRAIT_EXPERTS},
    {"expert_used_count", ANY, NULL, 0}, /* says nothing without expert_count */
    {"expert_feed_forward_length", ANY, NULL, 0},
    {"expert_shared_feed_forward_length", ANY, NULL, 0},
    {"expert_shared_count", ONLY_ZERO, "several shared experts", 0},
    {"expert_group_count", ONLY_ZERO, "groups of experts", 0},
    {"expert_group_used_count", ONLY_ZERO, "groups of experts", 0},
    {"expert_weights_scale", ONLY_ONE_F32, "experts", TRAIT_EXPERTS},
    {"expert_weights_norm", ONLY_FALSE, "experts", TRAIT_EXPERTS},
    {"expert_gating_func", ONLY_ONE_F32, "another choice of experts", 0}, /* 1: softmax */
    {"leading_dense_block_count", ONLY_ZERO, "layers without experts", 0},
    {"interleave_moe_layer_step", ONLY_ONE_F32, "layers without experts", 0},
    {"moe_every_n_layers", ONLY_ZERO, "layers without experts", 0},
    {"use_parallel_residual", ONLY_FALSE, "parallel residuals",
     TRAIT_PARALLEL_KEY | TRAIT_PARALLEL | TRAIT_PARALLEL_BARE},
    {"pooling_type", ANY, NULL, 0},
    {"classifier.output_labels", ANY, NULL, 0}, /* names of the outputs of a head that ranks */
    /* What these lay out would come with tensors of its own, which are refused by name: Granite 4 without Mamba layers
     * keeps their settings, and models whose layers have no experts those of experts. */
    {"ssm.conv_kernel", ANY, NULL, 0},
    {"ssm.state_size", ANY, NULL, 0},
    {"ssm.group_count", ANY, NULL, 0},
    {"ssm.inner_size", ANY, NULL, 0},
    {"ssm.time_step_rank", ANY, NULL, 0},
};

/* Whether the key (s->key) says what it may say. Numbers may be integers or floats. */
static bool is_harmless(source *s, harmless when) {
    int64_t i;
    double  f;
    bool    b;
    switch (when) {
    case ANY:
        return true;
    case ONLY_ZERO:
        return gguf_int(s->g, s->key, 0, 0, &i, NULL) || (gguf_float(s->g, s->key, &f, NULL) && f == 0);
    case ONLY_TRUE:
        return gguf_bool(s->g, s->key, &b, NULL) && b;
    case ONLY_FALSE:
        return gguf_bool(s->g, s->key, &b, NULL) && !b;
    case ONLY_ONE_F32:
        return (gguf_float(s->g, s->key, &f, NULL) && f == 1) || gguf_int(s->g, s->key, 1, 1, &i, NULL);
    }
    return false;
}

static bool check_key(source *s, const arch *a, const char *name) {
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++) {
        const known_key *k = &known_keys[i];
        if (strcmp(k->name, name) != 0)
            continue;
        name_key(s, name);
        if ((a->traits & k->reads) || is_harmless(s, k->when))
            return true;
        char text[120];
        snprintf(text, sizeof text, "asks for %s, which pare does not do for this architecture", k->otherwise);
        return refuse(s, ERR_UNSUPPORTED, text);
    }
    name_key(s, name);
    return refuse(s, ERR_UNSUPPORTED, "is a setting that pare does not know; it will not guess what it changes");
}

/* Every "ARCH.*" key of the file. */
static bool check_keys(source *s, const arch *a) {
    size_t n = strlen(s->arch);
    for (size_t i = 0; i < gguf_key_count(s->g); i++) {
        const char *key = gguf_key_at(s->g, i, NULL);
        if (strncmp(key, s->arch, n) == 0 && key[n] == '.' && !check_key(s, a, key + n + 1))
            return false;
    }
    return true;
}

/* ---- the shape ---- */

/* A number (s->key), or a list of one for each layer, which must be equal: Granite 4 writes such. */
static bool read_each(source *s, int layers, int64_t max, int *out) {
    gguf_kind kind;
    size_t    n;
    int64_t   value;
    if (!gguf_array(s->g, s->key, &kind, &n, NULL)) {
        if (!gguf_int(s->g, s->key, 1, max, &value, s->e))
            return false;
        *out = (int)value;
        return true;
    }
    double first = n && kind != GGUF_STRING && kind != GGUF_ARRAY ? gguf_array_number(s->g, s->key, 0) : 0;
    if (n != (size_t)layers || !(first >= 1 && first <= (double)max) || first != floor(first))
        return refuse(s, ERR_INVALID, "is no list of a number for each layer");
    for (size_t i = 1; i < n; i++)
        if (gguf_array_number(s->g, s->key, i) != first)
            return refuse(s, ERR_UNSUPPORTED, "differs from layer to layer, which pare does not do");
    *out = (int)first;
    return true;
}

static bool read_heads(source *s, model_shape *m) {
    if (!read_int(s, "attention.head_count", MAX_HEADS, &m->heads))
        return false;
    m->kv_heads = m->heads;
    if (has(s, "attention.head_count_kv") && !read_each(s, m->layers, MAX_HEADS, &m->kv_heads))
        return false;
    if (m->kv_heads > m->heads || m->heads % m->kv_heads) {
        name_key(s, "attention.head_count_kv");
        return refuse(s, ERR_INVALID, "does not divide attention.head_count");
    }
    if (has(s, "attention.key_length")) {
        int value_length;
        if (!read_int(s, "attention.key_length", MAX_DIM, &m->head_dim))
            return false;
        value_length = m->head_dim;
        if (has(s, "attention.value_length") && !read_int(s, "attention.value_length", MAX_DIM, &value_length))
            return false;
        if (value_length != m->head_dim)
            return refuse(s, ERR_UNSUPPORTED, "differs from attention.key_length, which pare does not do");
    } else if (has(s, "attention.value_length")) {
        return refuse(s, ERR_UNSUPPORTED, "is given without attention.key_length");
    } else if (m->dim % m->heads) {
        name_key(s, "embedding_length");
        return refuse(s, ERR_INVALID, "is not a multiple of attention.head_count");
    } else {
        m->head_dim = m->dim / m->heads;
    }
    if ((int64_t)m->heads * m->head_dim > MAX_DIM) {
        name_key(s, "attention.head_count");
        return refuse(s, ERR_LIMIT, "times the length of a head is larger than pare takes");
    }
    return true;
}

static bool is(gguf_str s, const char *text) {
    return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* YaRN, arXiv:2309.00071. The attention factor grows with the scale as its equation 22 says. */
static bool read_yarn(source *s, model_shape *m) {
    m->scaling = ROPE_SCALING_YARN;
    m->yarn_fast = 32;
    m->yarn_slow = 1;
    m->rope_original = m->context;
    if (!read_float(s, "rope.scaling.factor", 1, 1e6, &m->rope_scale) ||
        !optional_float(s, "rope.scaling.yarn_beta_fast", 0.1, 1e6, &m->yarn_fast) ||
        !optional_float(s, "rope.scaling.yarn_beta_slow", 0.01, 1e6, &m->yarn_slow))
        return false;
    /* The converter writes config.json's attention_factor, which is the whole factor; 1 is what others write who mean
     * that nothing is to be added. */
    float whole = 1;
    if (!optional_float(s, "rope.scaling.yarn_attn_factor", 1e-3, 1e3, &whole))
        return false;
    m->rope_attn *= whole != 1 ? whole : 1 + 0.1f * logf(m->rope_scale);
    return true;
}

static bool read_scaling(source *s, model_shape *m) {
    gguf_str type = {"none", 4};
    bool     long_rope = (m->arch->traits & TRAIT_LONG_ROPE) != 0, turns = true;
    m->rope_scale = m->rope_attn = 1;
    m->rope_original = 0;
    /* The name that files of 2023 use for linear scaling. */
    if (!optional_float(s, "rope.scale_linear", 1e-3, 1e6, &m->rope_scale) ||
        !optional_float(s, "rope.scaling.attn_factor", 1e-3, 1e3, &m->rope_attn))
        return false;
    /* Granite's files say with this key whether heads turn at all; others' files what it is named after. */
    if ((m->arch->traits & TRAIT_SCALES) && !(m->arch->traits & TRAIT_LOGIT_TIMES) &&
        !optional_bool(s, "rope.scaling.finetuned", &turns))
        return false;
    if (!turns)
        return refuse(s, ERR_UNSUPPORTED, "says that there is no rope, which pare does not do for this architecture");
    if (has(s, "rope.scaling.type") && !gguf_string(s->g, s->key, &type, s->e))
        return false;
    if (is(type, "linear")) {
        if (!read_float(s, "rope.scaling.factor", 1e-3, 1e6, &m->rope_scale))
            return false;
        m->scaling = m->rope_scale == 1 ? ROPE_SCALING_NONE : ROPE_SCALING_LINEAR;
    } else if (is(type, "yarn")) {
        if (!read_yarn(s, m))
            return false;
    } else if (!is(type, "none") && !(is(type, "longrope") && long_rope)) {
        char text[120];
        snprintf(text, sizeof text, "is \"%s\", which pare does not do (it does none, linear and yarn)",
                 show(type).text);
        return refuse(s, ERR_UNSUPPORTED, text);
    }
    return optional_int(s, "rope.scaling.original_context_length", MAX_CONTEXT, &m->rope_original);
}

static bool read_rope(source *s, model_shape *m) {
    m->rope_dim = 0;
    m->rope_base = 10000;
    if (m->arch->rope == ROPE_NONE) {
        m->rope_scale = m->rope_attn = 1;
        return true;
    }
    m->rope_dim = m->head_dim;
    if (!optional_int(s, "rope.dimension_count", m->head_dim, &m->rope_dim))
        return false;
    if (m->rope_dim % 2) {
        if (has(s, "rope.dimension_count"))
            return refuse(s, ERR_INVALID, "is odd");
        name_key(s, has(s, "attention.key_length") ? "attention.key_length" : "attention.head_count");
        return refuse(s, ERR_UNSUPPORTED, "gives heads of an odd length");
    }
    if (!optional_float(s, "rope.freq_base", 1, 1e12, &m->rope_base) || !read_scaling(s, m))
        return false;
    m->local_rope_base = m->arch->local_rope_base > 0 ? m->arch->local_rope_base : m->rope_base;
    m->local_rope_scale = m->arch->traits & TRAIT_LOCAL_PLAIN ? 1 : m->rope_scale;
    m->local_rope_attn = m->arch->traits & TRAIT_LOCAL_PLAIN ? 1 : m->rope_attn;
    return optional_float(s, "rope.freq_base_swa", 1, 1e12, &m->local_rope_base);
}

/* ---- what only some have ---- */

/* How often a layer sees everything, as a number or as a list of which layers have a window. */
static bool read_pattern(source *s, model_shape *m) {
    m->window_every = m->arch->window_every;
    if (!has(s, "attention.sliding_window_pattern"))
        return true;
    int64_t   number;
    gguf_kind kind;
    size_t    n;
    if (gguf_int(s->g, s->key, 1, MAX_LAYERS, &number, NULL)) {
        m->window_every = (int)number;
        if (number == 1) /* each layer is the one that sees everything */
            m->window = 0;
        return true;
    }
    if (!gguf_array(s->g, s->key, &kind, &n, s->e))
        return false;
    bool   regular = kind == GGUF_BOOL && n == (size_t)m->layers;
    size_t every = 1;
    while (regular && every <= n && gguf_array_number(s->g, s->key, every - 1) != 0)
        every++;
    for (size_t i = 0; regular && i < n; i++)
        regular = (gguf_array_number(s->g, s->key, i) != 0) == (i % every != every - 1);
    if (!regular)
        return refuse(s, ERR_UNSUPPORTED, "is not \"every n-th layer sees everything\", which is all that pare does");
    m->window_every = (int)every;
    if (every == 1) /* no layer has one */
        m->window = 0;
    return true;
}

/* Where the file says nothing. Phi-3 files from before August 2024, microsoft's own among them, say nothing; a window
 * of 2047 is what both models of 4096 positions have (github.com/ggml-org/llama.cpp/pull/8931). */
static int unsaid_window(const model_shape *m) {
    bool phi3 = (m->arch->traits & TRAIT_LONG_ROPE) && m->context == 4096 && (m->layers == 32 || m->layers == 40);
    return phi3 ? 2047 : m->arch->window;
}

static bool read_window(source *s, model_shape *m) {
    if (!(m->arch->traits & TRAIT_WINDOW))
        return true;
    int64_t none;
    m->window = unsaid_window(m);
    if (has(s, "attention.sliding_window") && gguf_int(s->g, s->key, 0, 0, &none, NULL))
        m->window = 0;
    else if (!optional_int(s, "attention.sliding_window", MAX_CONTEXT, &m->window))
        return false;
    return !m->window || read_pattern(s, m);
}

static bool read_caps(source *s, model_shape *m) {
    m->attn_cap = m->arch->caps[0];
    m->logit_cap = m->arch->caps[1];
    return !(m->arch->traits & TRAIT_CAPS) || (optional_float(s, "attn_logit_softcapping", 0, 1e6, &m->attn_cap) &&
                                               optional_float(s, "final_logit_softcapping", 0, 1e6, &m->logit_cap));
}

/* 1 / sqrt(head_dim); the largest gemmas take the width that a head would have if heads filled the model. */
static float attention_scale(const model_shape *m) {
    bool deep = m->arch->deep && m->layers == m->arch->deep;
    return 1.0f / sqrtf(deep ? (float)m->dim / (float)m->heads : (float)m->head_dim);
}

static bool read_scales(source *s, model_shape *m) {
    m->embedding_scale = m->arch->traits & TRAIT_SCALE_EMBEDDING ? sqrtf((float)m->dim) : 1;
    m->residual_scale = m->logit_scale = 1;
    m->attn_scale = attention_scale(m);
    if (!(m->arch->traits & TRAIT_SCALES))
        return true;
    if (!optional_float(s, "embedding_scale", 1e-6, 1e6, &m->embedding_scale) ||
        !optional_float(s, "residual_scale", 1e-6, 1e6, &m->residual_scale) ||
        !optional_float(s, "attention.scale", 1e-6, 1e6, &m->attn_scale) ||
        !optional_float(s, "logit_scale", 1e-6, 1e6, &m->logit_scale))
        return false;
    if (!(m->arch->traits & TRAIT_LOGIT_TIMES))
        m->logit_scale = 1 / m->logit_scale;
    return true;
}

static bool read_experts(source *s, model_shape *m) {
    int64_t none;
    m->expert_scale = 1;
    m->expert_renorm = (m->arch->traits & TRAIT_RENORM) != 0;
    if (!(m->arch->traits & TRAIT_EXPERTS) || !has(s, "expert_count") || gguf_int(s->g, s->key, 0, 0, &none, NULL))
        return true;
    m->expert_ffn = m->ffn;
    if (!read_int(s, "expert_count", MAX_EXPERTS, &m->experts) ||
        !read_int(s, "expert_used_count", MAX_USED, &m->experts_used) ||
        !optional_bool(s, "expert_weights_norm", &m->expert_renorm) ||
        !optional_float(s, "expert_weights_scale", 1e-6, 1e6, &m->expert_scale))
        return false;
    if (m->experts_used > m->experts) {
        name_key(s, "expert_used_count");
        return refuse(s, ERR_INVALID, "is more than expert_count");
    }
    if (m->arch->traits & TRAIT_SHARED_GATE) { /* files of early 2024 do not say: then as these models were made */
        m->shared_ffn = m->ffn;
        m->expert_ffn = m->ffn / m->experts_used;
    }
    if (has(s, "expert_shared_feed_forward_length") && gguf_int(s->g, s->key, 0, 0, &none, NULL))
        m->shared_ffn = 0;
    else if (!optional_int(s, "expert_shared_feed_forward_length", MAX_DIM * 4, &m->shared_ffn))
        return false;
    return optional_int(s, "expert_feed_forward_length", MAX_DIM * 4, &m->expert_ffn);
}

static bool read_rest(source *s, model_shape *m) {
    int64_t type = POOLING_NONE;
    m->causal = !(m->arch->traits & TRAIT_BOTH_WAYS);
    m->parallel = (m->arch->traits & TRAIT_PARALLEL) != 0;
    if ((m->arch->traits & TRAIT_PARALLEL_KEY) && !optional_bool(s, "use_parallel_residual", &m->parallel))
        return false;
    if ((m->arch->traits & TRAIT_PARALLEL_BARE) && !gguf_tensor_named(s->g, "blk.0.ffn_norm.weight"))
        m->parallel = true; /* converters write use_parallel_residual for models that have none, too */
    if ((m->arch->traits & TRAIT_CLAMP) && !optional_float(s, "attention.clamp_kqv", 0, 1e6, &m->clamp_qkv))
        return false;
    if ((m->arch->traits & TRAIT_BOTH_WAYS) && !optional_bool(s, "attention.causal", &m->causal))
        return false;
    if (has(s, "pooling_type") && !gguf_int(s->g, s->key, POOLING_NONE, POOLING_RANK, &type, s->e))
        return false;
    m->pooling = (pooling)type;
    if (m->pooling == POOLING_RANK && m->causal)
        return refuse(s, ERR_UNSUPPORTED, "asks for a ranking decoder; pare ranks with encoders only");
    if (m->arch->traits & TRAIT_HALF_FFN)
        m->ffn /= 2;
    return true;
}

static bool read_eps(source *s, model_shape *m) {
    return read_float(s,
                      m->arch->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
                      1e-20, 0.1, &m->norm_eps);
}

static bool read_vocab(source *s, model_shape *m) {
    const gguf_tensor *t = gguf_tensor_named(s->g, "token_embd.weight");
    const gguf_tensor *types = gguf_tensor_named(s->g, "token_types.weight");
    const gguf_tensor *places = gguf_tensor_named(s->g, "position_embd.weight");
    if (!t || t->dims != 2 || t->shape[1] > MAX_VOCAB) {
        snprintf(s->key, sizeof s->key, "tensor token_embd.weight");
        return refuse(s, ERR_INVALID,
                      !t             ? "is missing (a file with a vocabulary only?)"
                      : t->dims != 2 ? "has no two dimensions"
                                     : "has more rows than pare takes");
    }
    m->vocab = (int)t->shape[1];
    m->token_types = types && types->shape[1] <= MAX_VOCAB ? (int)types->shape[1] : 1;
    m->positions = places && places->shape[1] <= MAX_CONTEXT ? (int)places->shape[1] : m->context;
    if ((m->arch->traits & TRAIT_POSITIONS) && m->positions < m->context)
        m->context = m->positions;
    m->headless = (m->arch->traits & TRAIT_BOTH_WAYS) != 0;
    m->fused_qkv = gguf_tensor_named(s->g, "blk.0.attn_qkv.weight") ||
                   ((m->arch->traits & TRAIT_FUSED_QKV) && !gguf_tensor_named(s->g, "blk.0.attn_q.weight"));
    m->fused_experts = gguf_tensor_named(s->g, "blk.0.ffn_gate_up_exps.weight") != NULL;
    m->tied = !m->headless && !gguf_tensor_named(s->g, "output.weight");
    return true;
}

/* "llama, qwen2, .." for the sentence that refuses another. */
static void list_archs(char *out, size_t size) {
    size_t n = 0;
    for (int i = 0; arch_at(i) && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", arch_at(i)->name);
}

static bool read_shape(source *s, model_shape *m) {
    return check_keys(s, m->arch) && read_int(s, "block_count", MAX_LAYERS, &m->layers) &&
           read_int(s, "context_length", MAX_CONTEXT, &m->context) &&
           read_int(s, "embedding_length", MAX_DIM, &m->dim) &&
           read_int(s, "feed_forward_length", MAX_DIM * 4, &m->ffn) && read_heads(s, m) && read_rope(s, m) &&
           read_eps(s, m) && read_window(s, m) && read_caps(s, m) && read_scales(s, m) && read_experts(s, m) &&
           read_rest(s, m) && read_vocab(s, m);
}

bool model_shape_read(const gguf *g, model_shape *out, err *e) {
    gguf_str name;
    if (!gguf_string(g, "general.architecture", &name, e))
        return false;
    model_shape m = {.arch = arch_named(name.data, name.len)};
    if (!m.arch) {
        char all[600];
        list_archs(all, sizeof all);
        err_set(e, ERR_UNSUPPORTED, "the architecture \"%s\" is not one that pare runs (%s)", show(name).text, all);
        return err_prefix(e, "%.200s", gguf_name(g));
    }
    source s = {.g = g, .arch = m.arch->name, .e = e};
    if (!read_shape(&s, &m))
        return false;
    *out = m;
    return true;
}
