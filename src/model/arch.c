/* arch.c - the table of architectures, and their hyper-parameters read with suspicion.
 *
 * A key that is neither read nor known to change nothing is refused by name: a model that runs with a setting ignored
 * gives wrong answers and no warning.                                                                                */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const arch archs[] = {
    {.name = "llama", .rope = ROPE_PAIRS},
};

/* Bounds that no model of today comes near and under which every product of two shapes fits an int64_t with ease. */
enum { MAX_LAYERS = 1024, MAX_DIM = 1 << 18, MAX_HEADS = 1 << 12, MAX_VOCAB = 1 << 24, MAX_CONTEXT = 1 << 24 };

const arch *arch_named(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strlen(archs[i].name) == n && memcmp(archs[i].name, name, n) == 0)
            return &archs[i];
    return NULL;
}

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

/* ---- keys that must not be ignored ---- */

/* What a key may say without pare having to do something about it. */
typedef enum harmless { ANY, ONLY_ZERO, ONLY_TRUE, ONLY_FALSE, ONLY_ONE_F32 } harmless;

typedef struct known_key {
    const char *name;
    harmless    when;
    const char *otherwise; /* what the file asks for when it says something else */
} known_key;

static const known_key known_keys[] = {
    {"block_count", ANY, NULL},
    {"context_length", ANY, NULL},
    {"embedding_length", ANY, NULL},
    {"feed_forward_length", ANY, NULL},
    {"vocab_size", ANY, NULL}, /* the embedding's shape says it too, and is what counts */
    {"tensor_data_layout", ANY, NULL},
    {"attention.head_count", ANY, NULL},
    {"attention.head_count_kv", ANY, NULL},
    {"attention.key_length", ANY, NULL},
    {"attention.value_length", ANY, NULL},
    {"attention.layer_norm_rms_epsilon", ANY, NULL},
    {"attention.causal", ONLY_TRUE, "attention that also looks ahead"},
    {"attention.sliding_window", ONLY_ZERO, "attention windows"},
    {"attention.clamp_kqv", ONLY_ZERO, "clamped attention inputs"},
    {"rope.dimension_count", ANY, NULL},
    {"rope.freq_base", ANY, NULL},
    {"rope.scale_linear", ANY, NULL},
    {"rope.scaling.type", ANY, NULL},
    {"rope.scaling.factor", ANY, NULL},
    {"rope.scaling.original_context_length", ANY, NULL}, /* only yarn computes with it, and yarn is refused */
    {"rope.scaling.finetuned", ANY, NULL},
    {"rope.scaling.attn_factor", ONLY_ONE_F32, "scaled attention"},
    {"expert_count", ONLY_ZERO, "experts"},
    {"expert_used_count", ONLY_ZERO, "experts"},
    {"use_parallel_residual", ONLY_FALSE, "parallel residuals"},
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
        return gguf_float(s->g, s->key, &f, NULL) && f == 1;
    }
    return false;
}

static bool check_key(source *s, const char *name) {
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++) {
        const known_key *k = &known_keys[i];
        if (strcmp(k->name, name) != 0)
            continue;
        name_key(s, name);
        if (is_harmless(s, k->when))
            return true;
        char text[120];
        snprintf(text, sizeof text, "asks for %s, which pare does not do for this architecture", k->otherwise);
        return refuse(s, ERR_UNSUPPORTED, text);
    }
    name_key(s, name);
    return refuse(s, ERR_UNSUPPORTED, "is a setting that pare does not know; it will not guess what it changes");
}

/* Every "ARCH.*" key of the file. */
static bool check_keys(source *s) {
    size_t n = strlen(s->arch);
    for (size_t i = 0; i < gguf_key_count(s->g); i++) {
        const char *key = gguf_key_at(s->g, i, NULL);
        if (strncmp(key, s->arch, n) == 0 && key[n] == '.' && !check_key(s, key + n + 1))
            return false;
    }
    return true;
}

/* ---- the shape ---- */

static bool read_heads(source *s, model_shape *m) {
    if (!read_int(s, "attention.head_count", MAX_HEADS, &m->heads))
        return false;
    m->kv_heads = m->heads;
    if (has(s, "attention.head_count_kv") && !read_int(s, "attention.head_count_kv", MAX_HEADS, &m->kv_heads))
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

static bool read_scaling(source *s, model_shape *m) {
    gguf_str type = {"none", 4};
    m->rope_scale = 1;
    /* The name that files of 2023 use for linear scaling. */
    if (has(s, "rope.scale_linear") && !read_float(s, "rope.scale_linear", 1e-3, 1e6, &m->rope_scale))
        return false;
    if (has(s, "rope.scaling.type") && !gguf_string(s->g, s->key, &type, s->e))
        return false;
    if (type.len == 4 && memcmp(type.data, "none", 4) == 0)
        return true;
    if (type.len != 6 || memcmp(type.data, "linear", 6) != 0) {
        char text[120];
        snprintf(text, sizeof text, "is \"%s\", which pare does not do (it does none and linear)", show(type).text);
        return refuse(s, ERR_UNSUPPORTED, text);
    }
    return read_float(s, "rope.scaling.factor", 1e-3, 1e6, &m->rope_scale);
}

static bool read_rope(source *s, model_shape *m) {
    if (m->head_dim % 2) {
        name_key(s, has(s, "attention.key_length") ? "attention.key_length" : "attention.head_count");
        return refuse(s, ERR_UNSUPPORTED, "gives heads of an odd length");
    }
    m->rope_dim = m->head_dim;
    if (has(s, "rope.dimension_count") && !read_int(s, "rope.dimension_count", m->head_dim, &m->rope_dim))
        return false;
    if (m->rope_dim % 2)
        return refuse(s, ERR_INVALID, "is odd");
    m->rope_base = 10000;
    if (has(s, "rope.freq_base") && !read_float(s, "rope.freq_base", 1, 1e12, &m->rope_base))
        return false;
    return read_scaling(s, m);
}

static bool read_vocab(source *s, model_shape *m) {
    const gguf_tensor *t = gguf_tensor_named(s->g, "token_embd.weight");
    if (!t || t->dims != 2 || t->shape[1] > MAX_VOCAB) {
        snprintf(s->key, sizeof s->key, "tensor token_embd.weight");
        return refuse(s, ERR_INVALID,
                      !t             ? "is missing (a file with a vocabulary only?)"
                      : t->dims != 2 ? "has no two dimensions"
                                     : "has more rows than pare takes");
    }
    m->vocab = (int)t->shape[1];
    m->tied = !gguf_tensor_named(s->g, "output.weight");
    return true;
}

bool model_shape_read(const gguf *g, model_shape *out, err *e) {
    gguf_str name;
    if (!gguf_string(g, "general.architecture", &name, e))
        return false;
    model_shape m = {.arch = arch_named(name.data, name.len)};
    if (!m.arch) {
        err_set(e, ERR_UNSUPPORTED, "the architecture \"%s\" is not one that pare runs (llama)", show(name).text);
        return err_prefix(e, "%.200s", gguf_name(g));
    }
    source s = {.g = g, .arch = m.arch->name, .e = e};
    if (!check_keys(&s) || !read_int(&s, "block_count", MAX_LAYERS, &m.layers) ||
        !read_int(&s, "context_length", MAX_CONTEXT, &m.context) ||
        !read_int(&s, "embedding_length", MAX_DIM, &m.dim) ||
        !read_int(&s, "feed_forward_length", MAX_DIM * 4, &m.ffn) || !read_heads(&s, &m) || !read_rope(&s, &m) ||
        !read_float(&s, "attention.layer_norm_rms_epsilon", 1e-12, 0.1, &m.norm_eps) || !read_vocab(&s, &m))
        return false;
    *out = m;
    return true;
}
