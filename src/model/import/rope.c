/* rope.c - rotations: the base, how much of a head turns, and what stretches them to longer texts.
 *
 * transformers keeps them in rope_theta and rope_scaling, version 5 in rope_parameters with the same members. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/import/internal.h"

typedef struct rope {
    const tree *scaling; /* the object; NULL: none */
    const char *type;    /* its rope_type; "default" */
    double      factor;
    int64_t     original; /* original_max_position_embeddings; 0: not said */
} rope;

static bool refuse(importer *m, const char *key, const char *why) {
    return config_refuse(&m->config, key, why);
}

/* `list`: the members of this kind, "|a|b|", beside those of all kinds. */
static bool known_members(importer *m, const tree *object, const char *list) {
    static const char always[] = "|type|rope_type|factor|rope_theta|original_max_position_embeddings|"
                                 "partial_rotary_factor|";
    for (const tree *t = tree_first(object); t; t = t->next) {
        char name[64];
        snprintf(name, sizeof name, "|%.*s|", (int)(t->key_len < 60 ? t->key_len : 60), t->key);
        if (t->kind != TREE_NULL && !strstr(always, name) && !strstr(list, name)) {
            name[strlen(name) - 1] = '\0';
            char key[96];
            snprintf(key, sizeof key, "rope_scaling.%s", name + 1);
            return refuse(m, key, "is a setting that pare does not know for this kind of scaling");
        }
    }
    return true;
}

static bool read_original(importer *m, rope *r) {
    double value = 0;
    if (!config_member_number(&m->config, r->scaling, "original_max_position_embeddings", 1, 1 << 24, &value) ||
        !hf_int(&m->config, "original_max_position_embeddings", 1, 1 << 24, &r->original))
        return false;
    if (value > 0)
        r->original = (int64_t)value;
    return true;
}

static bool read_type(importer *m, rope *r) {
    const tree *type = tree_value(r->scaling, "rope_type");
    type = type ? type : tree_value(r->scaling, "type");
    r->type = "default";
    if (type && !(r->type = tree_text(m->memory, type)))
        return err_set(m->e, ERR_INVALID, "%.200s: rope_scaling.type is %s, must be a string", m->config.where,
                       tree_kind_name(type));
    return config_member_number(&m->config, r->scaling, "factor", 1e-3, 1e6, &r->factor) && read_original(m, r);
}

/* ---- kinds of scaling ---- */

static bool linear(importer *m, const rope *r) {
    if (!known_members(m, r->scaling, ""))
        return false;
    if (r->factor <= 0)
        return refuse(m, "rope_scaling.factor", "is missing");
    import_put_text(m, "rope.scaling.type", "linear");
    import_put_float(m, "rope.scaling.factor", r->factor);
    return true;
}

/* Peng et al. 2023 (arXiv:2309.00071). Attention is scaled by 1 + 0.1 ln factor, which readers know by themselves. */
static bool yarn(importer *m, const rope *r) {
    double own = 0, fast = 0, slow = 0;
    if (!known_members(m, r->scaling,
                       "|attention_factor|beta_fast|"
                       "beta_slow|extrapolation_factor|"))
        return false;
    if (r->factor <= 0)
        return refuse(m, "rope_scaling.factor", "is missing");
    double  usual = r->factor > 1 ? 1 + 0.1 * log(r->factor) : 1, extrapolation = 1;
    config *c = &m->config;
    if (!config_member_number(c, r->scaling, "attention_factor", 1e-3, 1e3, &own) ||
        !config_member_number(c, r->scaling, "beta_fast", 1e-3, 1e6, &fast) ||
        !config_member_number(c, r->scaling, "beta_slow", 1e-3, 1e6, &slow) ||
        !config_member_number(c, r->scaling, "extrapolation_factor", 0, 1e3, &extrapolation))
        return false;
    if (own > 0 && fabs(own - usual) > 1e-4)
        return refuse(m, "rope_scaling.attention_factor",
                      "is not 1 + 0.1 ln(factor), the one that GGUF's readers take");
    import_put_text(m, "rope.scaling.type", "yarn");
    import_put_float(m, "rope.scaling.factor", r->factor);
    import_put_int(m, "rope.scaling.original_context_length", r->original ? r->original : m->h.context);
    if (extrapolation != 1)
        import_put_float(m, "rope.scaling.yarn_ext_factor", extrapolation);
    if (fast > 0)
        import_put_float(m, "rope.scaling.yarn_beta_fast", fast);
    if (slow > 0)
        import_put_float(m, "rope.scaling.yarn_beta_slow", slow);
    return true;
}

/* Llama 3: long wavelengths are stretched by the factor, short ones kept, those between blended. The tensor divides the
 * frequencies. Computed in float32 as transformers does. */
static bool llama3(importer *m, const rope *r) {
    double low = 1, high = 4;
    if (!known_members(m, r->scaling,
                       "|low_freq_factor|"
                       "high_freq_factor|") ||
        !config_member_number(&m->config, r->scaling, "low_freq_factor", 1e-3, 1e3, &low) ||
        !config_member_number(&m->config, r->scaling, "high_freq_factor", 1e-3, 1e3, &high))
        return false;
    if (r->factor <= 0)
        return refuse(m, "rope_scaling.factor", "is missing");
    if (high <= low)
        return refuse(m, "rope_scaling.high_freq_factor", "is not larger than low_freq_factor");
    int64_t n = m->h.rope_dim / 2;
    float  *out = arena_zero(m->memory, (size_t)n + 1, sizeof *out);
    if (!out)
        return import_no_memory(m);
    const float original = (float)(r->original ? r->original : 8192), factor = (float)r->factor;
    for (int64_t i = 0; i < n; i++) {
        float frequency = 1.0f / powf((float)m->h.rope_base, (float)(2 * i) / (float)m->h.rope_dim);
        float length = 2 * (float)M_PI / frequency;
        float smooth = (original / length - (float)low) / ((float)high - (float)low);
        out[i] = length < original / (float)high  ? 1
                 : length > original / (float)low ? factor
                                                  : 1 / ((1 - smooth) / factor + smooth);
    }
    return tensors_add_values(m, "rope_freqs.weight", out, n);
}

static bool factor_tensor(importer *m, const rope *r, const char *key, const char *tensor) {
    const tree *list = tree_value(r->scaling, key);
    int64_t     n = m->h.rope_dim / 2, i = 0;
    float      *out = arena_zero(m->memory, (size_t)n + 1, sizeof *out);
    if (!out)
        return import_no_memory(m);
    if (!tree_is(list, TREE_ARRAY) || list->count != n)
        return err_set(m->e, ERR_INVALID, "%.200s: rope_scaling.%s must be a list of %lld numbers", m->config.where,
                       key, (long long)n);
    for (const tree *t = tree_first(list); t; t = t->next) {
        if (!tree_is(t, TREE_NUMBER) || !(t->u.number > 0 && t->u.number < 1e6))
            return err_set(m->e, ERR_INVALID, "%.200s: rope_scaling.%s[%lld] is no number above 0", m->config.where,
                           key, (long long)i);
        out[i++] = (float)t->u.number;
    }
    return tensors_add_values(m, tensor, out, n);
}

/* Phi-3's long texts: one list of factors up to the original length, another beyond it. */
static bool longrope(importer *m, const rope *r) {
    double scale = r->original ? (double)m->h.context / (double)r->original : 1, own = 0;
    if (m->arch->window != WINDOW_KEY)
        return refuse(m, "rope_scaling.type", "is longrope, which GGUF has for Phi-3 only");
    if (!known_members(m, r->scaling,
                       "|short_factor|long_factor|"
                       "attention_factor|partial_rotary_factor|") ||
        !config_member_number(&m->config, r->scaling, "attention_factor", 1e-3, 1e3, &own))
        return false;
    if (!r->original)
        return refuse(m, "original_max_position_embeddings", "is missing");
    double usual = scale > 1 ? sqrt(1 + log(scale) / log((double)r->original)) : 1;
    import_put_float(m, "rope.scaling.attn_factor", own > 0 ? own : usual);
    return factor_tensor(m, r, "long_factor", "rope_factors_long.weight") &&
           factor_tensor(m, r, "short_factor", "rope_factors_short.weight");
}

static bool scaling(importer *m, const rope *r) {
    if (strcmp(r->type, "default") == 0 || strcmp(r->type, "none") == 0)
        return known_members(m, r->scaling, "");
    if (strcmp(r->type, "linear") == 0)
        return linear(m, r);
    if (strcmp(r->type, "yarn") == 0)
        return yarn(m, r);
    if (strcmp(r->type, "llama3") == 0)
        return llama3(m, r);
    if (strcmp(r->type, "longrope") == 0 || strcmp(r->type, "su") == 0)
        return longrope(m, r);
    char why[120];
    snprintf(why, sizeof why, "is \"%.40s\", which GGUF cannot say (linear, yarn, llama3, longrope)", r->type);
    return refuse(m, "rope_scaling.type", why);
}

/* ---- all of it ---- */

static bool read_base(importer *m, const tree *object, const tree *local) {
    double base = m->arch->rope_base, near = 10000;
    if (!hf_number(&m->config, "rope_theta|rotary_emb_base", 1, 1e12, &base) ||
        !config_member_number(&m->config, object, "rope_theta", 1, 1e12, &base))
        return false;
    m->h.rope_base = base;
    import_put_float(m, "rope.freq_base", base);
    if (m->arch->window != WINDOW_SIXTH)
        return true;
    if (!hf_number(&m->config, "rope_local_base_freq", 1, 1e12, &near) ||
        !config_member_number(&m->config, local, "rope_theta", 1, 1e12, &near))
        return false;
    import_put_float(m, "rope.freq_base_swa", near);
    return true;
}

/* How many values of a head turn. */
static bool read_part(importer *m, const tree *object) {
    double part = 1, also = 1, scale_base = 0;
    if (!hf_number(&m->config, "partial_rotary_factor|rotary_emb_fraction", 0.01, 1, &part) ||
        !config_member_number(&m->config, object, "partial_rotary_factor", 0.01, 1, &also) ||
        !hf_number(&m->config, "rotary_emb_scale_base", 0, 1e9, &scale_base))
        return false;
    part = also < part ? also : part;
    if (scale_base > 0)
        return refuse(m, "rotary_emb_scale_base", "asks for another kind of rotation");
    if (part < 1 && m->arch->window != WINDOW_KEY)
        return refuse(m, "partial_rotary_factor", "asks to turn a part of each head, which GGUF cannot say here");
    m->h.rope_dim = (int64_t)((double)m->h.head_dim * part);
    if (m->h.rope_dim % 2 || m->h.rope_dim == 0)
        return refuse(m, "head_dim", "gives an odd number of values that turn");
    if (m->arch->traits & ARCH_LLAMA_KEYS || m->arch->window == WINDOW_KEY)
        import_put_int(m, "rope.dimension_count", m->h.rope_dim);
    return true;
}

bool rope_read(importer *m) {
    rope        r = {0};
    const tree *object = config_find(&m->config, "rope_parameters|rope_scaling", NULL);
    const tree *local = tree_value(object, "sliding_attention"), *global = tree_value(object, "full_attention");
    if (object && !tree_is(object, TREE_OBJECT))
        return refuse(m, "rope_scaling", "must be an object");
    if (m->arch->traits & ARCH_NO_ROPE)
        return !object || refuse(m, "rope_scaling", "makes no sense for a model with learned positions");
    if ((local || global) && m->arch->window != WINDOW_SIXTH)
        return refuse(m, "rope_parameters", "differs between kinds of layers, which GGUF cannot say here");
    r.scaling = global ? global : local ? NULL : object;
    if (!read_base(m, r.scaling, local) || !read_part(m, r.scaling) || !read_type(m, &r))
        return false;
    const tree *stretched = tree_value(local, "rope_type");
    if (stretched && !tree_text_is(stretched, "default"))
        return refuse(m, "rope_parameters.sliding_attention", "stretches the rotation of windowed layers");
    if (m->arch->window == WINDOW_KEY) /* Phi-3's readers want it in any case */
        import_put_int(m, "rope.scaling.original_context_length", r.original ? r.original : m->h.context);
    return scaling(m, &r);
}
