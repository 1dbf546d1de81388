/* hyper.c - sizes, norms, activations, experts and scales of config.json as GGUF's keys. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/import/internal.h"

/* The bounds of model/arch.c, so that no product of two sizes overflows. */
enum { MAX_LAYERS = 1024, MAX_DIM = 1 << 18, MAX_HEADS = 1 << 12, MAX_CONTEXT = 1 << 24, MAX_EXPERTS = 1 << 12 };

static bool missing(importer *m, const char *key) {
    return err_set(m->e, ERR_INVALID, "%.200s: %s is missing", m->config.where, key);
}

/* One of the names in "a|b"? */
static bool listed(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *p = list; *p;) {
        size_t each = strcspn(p, "|");
        if (each == n && memcmp(p, name, n) == 0)
            return true;
        p += each + (p[each] == '|');
    }
    return false;
}

static bool read_activation(importer *m) {
    const char *keys = m->arch->window == WINDOW_SECOND || m->arch->window == WINDOW_SIXTH
                           ? "hidden_activation|hidden_act" /* Gemma's code reads the first and ignores the second */
                           : "hidden_act|activation_function|hidden_activation";
    const char *name = NULL;
    if (!config_text(&m->config, keys, &name))
        return false;
    if (!name || listed(m->arch->activations, name))
        return true;
    char why[160];
    snprintf(why, sizeof why, "is \"%.60s\", but GGUF's %s computes %s", name, m->arch->gguf, m->arch->activations);
    return config_refuse(&m->config, "the activation function", why);
}

/* ---- sizes ---- */

static bool read_heads(importer *m) {
    config *c = &m->config;
    hyper  *h = &m->h;
    if (m->arch->window == WINDOW_SIXTH) { /* Gemma 3's defaults, which its configurations leave out */
        h->heads = 8;
        h->kv_heads = 4;
        h->head_dim = 256;
    }
    if (!hf_int(c, "num_attention_heads|n_head", 1, MAX_HEADS, &h->heads))
        return false;
    if (!h->heads)
        return missing(m, "num_attention_heads");
    if (!hf_int(c, "num_key_value_heads", 1, MAX_HEADS, &h->kv_heads) ||
        !hf_int(c, "head_dim", 1, MAX_DIM, &h->head_dim))
        return false;
    h->kv_heads_said = h->kv_heads != 0;
    h->kv_heads = h->kv_heads ? h->kv_heads : h->heads;
    h->head_dim_said = h->head_dim != 0;
    if (h->heads % h->kv_heads)
        return config_refuse(c, "num_key_value_heads", "does not divide num_attention_heads");
    if (!h->head_dim_said && h->dim % h->heads)
        return config_refuse(c, "hidden_size", "is not a multiple of num_attention_heads");
    int64_t whole = h->dim / h->heads;
    if (m->arch->traits & ARCH_HEAD_FIXED && h->head_dim_said && h->head_dim != whole)
        return config_refuse(c, "head_dim",
                             "differs from hidden_size / num_attention_heads, which GGUF cannot say here");
    if (m->arch->traits & ARCH_HEAD_FIXED)
        h->head_dim_said = false;
    h->head_dim = h->head_dim ? h->head_dim : whole;
    return true;
}

static bool read_sizes(importer *m) {
    config *c = &m->config;
    hyper  *h = &m->h;
    h->context = m->arch->window == WINDOW_SIXTH ? 131072 : 0; /* Gemma 3's default */
    if (!hf_int(c, "num_hidden_layers|n_layer|n_layers|num_layers", 1, MAX_LAYERS, &h->layers) ||
        !hf_int(c, "hidden_size|n_embd", 1, MAX_DIM, &h->dim) ||
        !hf_int(c, "intermediate_size|n_inner", 1, MAX_DIM * 4, &h->ffn) ||
        !hf_int(c, "max_position_embeddings|n_positions|n_ctx", 1, MAX_CONTEXT, &h->context))
        return false;
    if (!h->layers || !h->dim || !h->context)
        return missing(m, !h->layers ? "num_hidden_layers" : !h->dim ? "hidden_size" : "max_position_embeddings");
    if (!h->ffn && m->arch->tensors[0].hf[0] == 'w') /* GPT-2 alone has a default */
        h->ffn = 4 * h->dim;
    return h->ffn ? read_heads(m) : missing(m, "intermediate_size");
}

static void put_sizes(importer *m) {
    const hyper *h = &m->h;
    import_put_int(m, "block_count", h->layers);
    import_put_int(m, "embedding_length", h->dim);
    import_put_int(m, "feed_forward_length", h->ffn);
    import_put_int(m, "attention.head_count", h->heads);
    if (h->kv_heads_said)
        import_put_int(m, "attention.head_count_kv", h->kv_heads);
    if (h->head_dim_said) {
        import_put_int(m, "attention.key_length", h->head_dim);
        import_put_int(m, "attention.value_length", h->head_dim);
    }
}

/* ---- norms and scales ---- */

static bool read_norm(importer *m) {
    config    *c = &m->config;
    const bool layer = m->arch->traits & ARCH_LAYER_NORM;
    double     eps = m->arch->window == WINDOW_SIXTH ? 1e-6 : -1;
    if (!hf_number(c, layer ? "layer_norm_eps|layer_norm_epsilon|norm_epsilon" : "rms_norm_eps", 1e-16, 0.1, &eps))
        return false;
    if (eps < 0)
        return missing(m, layer ? "layer_norm_eps" : "rms_norm_eps");
    import_put_float(m, layer ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", eps);
    return true;
}

static bool put_number(importer *m, const char *key, const char *suffix, bool needed) {
    double value = NAN;
    if (!hf_number(&m->config, key, -1e6, 1e6, &value))
        return false;
    if (isnan(value))
        return !needed || missing(m, key);
    import_put_float(m, suffix, value);
    return true;
}

static bool read_granite(importer *m) {
    return put_number(m, "attention_multiplier", "attention.scale", true) &&
           put_number(m, "embedding_multiplier", "embedding_scale", true) &&
           put_number(m, "residual_multiplier", "residual_scale", true) &&
           put_number(m, "logits_scaling", "logit_scale", true);
}

/* GGUF says no query scale for Gemma: readers know that the largest model of each generation has dim / heads in it, and
 * all others the length of a head. */
static bool read_gemma(importer *m, int64_t largest) {
    config *c = &m->config;
    hyper  *h = &m->h;
    double  known = h->layers == largest ? (double)h->dim / (double)h->heads : (double)h->head_dim, scalar = 256;
    bool    both_sides = false;
    if (!hf_number(c, "query_pre_attn_scalar", 1e-3, 1e6, &scalar) ||
        !hf_bool(c, "use_bidirectional_attention", &both_sides))
        return false;
    if (fabs(scalar - known) > 1e-6 * known)
        return config_refuse(c, "query_pre_attn_scalar", "is not the one that GGUF's readers take for this size");
    if (both_sides)
        return config_refuse(c, "use_bidirectional_attention", "asks for attention that also looks ahead");
    if (m->arch->window == WINDOW_SECOND)
        return put_number(m, "attn_logit_softcapping", "attn_logit_softcapping", true) &&
               put_number(m, "final_logit_softcapping", "final_logit_softcapping", true);
    if (config_find(c, "attn_logit_softcapping", NULL))
        return config_refuse(c, "attn_logit_softcapping", "is a setting that GGUF's gemma3 does not have");
    return put_number(m, "final_logit_softcapping", "final_logit_softcapping", false);
}

/* ---- experts ---- */

static bool read_router(importer *m) {
    config    *c = &m->config;
    const bool normalised = m->arch->traits & ARCH_NORM_TOPK, mixtral = m->arch->window == WINDOW_NONE;
    bool       said = mixtral; /* Mixtral always normalises; Qwen's default is not to */
    int64_t    step = 1;
    if (!hf_bool(c, "norm_topk_prob", &said) || !hf_int(c, "decoder_sparse_step", 0, MAX_LAYERS, &step))
        return false;
    if (said != normalised)
        return config_refuse(c, "norm_topk_prob",
                             normalised ? "is not true, but GGUF's readers normalise the weights of the chosen experts"
                                        : "is true, but GGUF's readers do not normalise the weights of the experts");
    if (step != 1)
        return config_refuse(c, "decoder_sparse_step", "asks for layers without experts, which GGUF cannot say here");
    const tree *dense = config_find(c, "mlp_only_layers", NULL);
    if (dense && dense->count)
        return config_refuse(c, "mlp_only_layers", "asks for layers without experts, which GGUF cannot say here");
    return true;
}

static bool read_experts(importer *m) {
    config *c = &m->config;
    int64_t used = 0, each = 0, shared = 0;
    if (!hf_int(c, "num_local_experts|num_experts", 1, MAX_EXPERTS, &m->h.experts) ||
        !hf_int(c, "num_experts_per_tok", 1, MAX_EXPERTS, &used) ||
        !hf_int(c, "moe_intermediate_size", 1, MAX_DIM * 4, &each) ||
        !hf_int(c, "shared_expert_intermediate_size", 1, MAX_DIM * 4, &shared))
        return false;
    if (!m->h.experts || !used)
        return missing(m, m->h.experts ? "num_experts_per_tok" : "num_experts");
    if (used > m->h.experts)
        return config_refuse(c, "num_experts_per_tok", "is more than the experts there are");
    import_put_int(m, "expert_count", m->h.experts);
    import_put_int(m, "expert_used_count", used);
    if (each)
        import_put_int(m, "expert_feed_forward_length", each);
    if (shared)
        import_put_int(m, "expert_shared_feed_forward_length", shared);
    return read_router(m);
}

/* ---- what must have one value ---- */

typedef struct must {
    const char *key;
    bool        wanted;
    const char *otherwise;
} must;

/* Switches with one position that GGUF's architectures can have. Others of the name are unknown and refused as such. */
static const must switches[] = {
    {"is_causal", true, "asks for attention that also looks ahead"},
    {"rope_interleaved", false, "asks for another pairing of the rotation"},
    {"rotary_emb_interleaved", false, "asks for another pairing of the rotation"},
    {"scale_attn_by_inverse_layer_idx", false, "asks for attention scaled by the layer"},
    {"scale_attn_weights", true, "asks for attention that is not scaled"},
    {"add_cross_attention", false, "asks for attention to an encoder"},
    {"use_rms_norm", false, "asks for another kind of norm"},
    {"prenorm", false, "asks for norms before the layers"},
    {"parallel_block", false, "asks for parallel residuals"},
    {"parallel_block_tied_norm", false, "asks for parallel residuals"},
    {"causal", false, "asks for causal attention"},
    {"use_mrope", false, "asks for positions in several dimensions"},
    {"mlp_fc1_bias", false, "asks for biases that GGUF's nomic-bert does not have"},
    {"mlp_fc2_bias", false, "asks for biases that GGUF's nomic-bert does not have"},
    {"use_qk_norm", false, "asks for norms of queries and keys"},
};

static bool check_switches(importer *m) {
    const bool encoder = m->arch->traits & ARCH_ENCODER;
    bool       decoder = false;
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        const must *s = &switches[i];
        bool        value = s->wanted;
        if (!hf_bool(&m->config, s->key, &value))
            return false;
        if (value != s->wanted && !(encoder && strcmp(s->key, "is_causal") == 0))
            return config_refuse(&m->config, s->key, s->otherwise);
    }
    if (!hf_bool(&m->config, "is_decoder", &decoder))
        return false;
    return !(encoder && decoder) || config_refuse(&m->config, "is_decoder", "asks for causal attention");
}

static bool check_texts(importer *m) {
    static const struct {
        const char *key, *wanted;
    } texts[] = {{"position_embedding_type", "absolute"}, {"norm_type", "layer_norm"}, {"mlp_type", "default"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *said = texts[i].wanted;
        if (!config_text(&m->config, texts[i].key, &said))
            return false;
        if (strcmp(said, texts[i].wanted) != 0)
            return config_refuse(&m->config, texts[i].key, "is another than GGUF's architecture has");
    }
    return true;
}

static bool check_quantised(importer *m) {
    const tree *q = config_find(&m->config, "quantization_config|compression_config", NULL);
    if (!q)
        return true;
    const char *method = tree_text(m->memory, tree_value(q, "quant_method"));
    char        why[160];
    snprintf(why, sizeof why, "says that the weights are quantised (%.40s); pare imports the model they were made from",
             method ? method : "no method named");
    return config_refuse(&m->config, "quantization_config", why);
}

static bool read_encoder(importer *m) {
    int64_t types = 0, trained = 0;
    if (!hf_int(&m->config, "type_vocab_size", 0, 1 << 20, &types) ||
        !hf_int(&m->config, "max_trained_positions", 1, MAX_CONTEXT, &trained))
        return false;
    if (trained && trained < m->h.context) {
        double unused; /* only past the trained positions does rotary_scaling_factor change anything */
        if (!hf_number(&m->config, "rotary_scaling_factor", 0, 1e6, &unused))
            return false;
        m->h.context = trained;
    }
    import_put_bool(m, "attention.causal", false);
    return true;
}

static bool read_family(importer *m) {
    const unsigned traits = m->arch->traits;
    int64_t        vocab = 0;
    if (!hf_int(&m->config, "vocab_size", 1, 1 << 24, &vocab))
        return false;
    if (strcmp(m->arch->gguf, "granite") == 0)
        return read_granite(m);
    if (m->arch->window == WINDOW_SECOND)
        return read_gemma(m, 46); /* 27B */
    if (m->arch->window == WINDOW_SIXTH)
        return read_gemma(m, 62); /* 27B */
    return !(traits & ARCH_EXPERTS) || read_experts(m);
}

bool hyper_read(importer *m) {
    hyper *h = &m->h;
    h->tied = m->arch->traits & ARCH_TIED;
    h->tied_said = config_find(&m->config, "tie_word_embeddings", NULL) != NULL;
    if (!hf_bool(&m->config, "tie_word_embeddings", &h->tied) || !check_quantised(m) || !read_sizes(m) ||
        !read_activation(m) || !check_switches(m) || !check_texts(m))
        return false;
    put_sizes(m);
    return read_norm(m) && read_family(m) && (!(m->arch->traits & ARCH_ENCODER) || read_encoder(m));
}
