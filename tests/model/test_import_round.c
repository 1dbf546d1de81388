/* The conformance models written back as Hugging Face folders and imported again: every tensor must come out with the
 * bits it had, which needs the right name, order of rows, transposition and offset for each. */
#include "model/test_import_bed.h"

#define MODELS "../shared/conformance/logits/"

/* Names on the folder's side; '#' is the layer, '@' the expert. Written down here a second time, on purpose. */
typedef struct pair {
    const char *gguf, *hf;
} pair;

enum { PAIRS = 24 };

typedef struct family {
    const char *model, *class;
    const char *config; /* further members, with a comma before */
    pair        names[PAIRS];
    bool        permuted, plus_one, transposed, layer_norm;
} family;

#define BL "blk.#."
#define HL "model.layers.#."
#define COMMON                                                                                                         \
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"},                        \
        {BL "attn_norm", HL "input_layernorm"}, {BL "attn_q", HL "self_attn.q_proj"},                                  \
        {BL "attn_k", HL "self_attn.k_proj"}, {BL "attn_v", HL "self_attn.v_proj"},                                    \
        {BL "attn_output", HL "self_attn.o_proj"}, {BL "attn_q_norm", HL "self_attn.q_norm"},                          \
        {BL "attn_k_norm", HL "self_attn.k_norm"}, {BL "ffn_gate", HL "mlp.gate_proj"},                                \
        {BL "ffn_up", HL "mlp.up_proj"}, {                                                                             \
        BL "ffn_down", HL "mlp.down_proj"                                                                              \
    }
#define USUAL                                                                                                          \
    COMMON, {                                                                                                          \
        BL "ffn_norm", HL "post_attention_layernorm"                                                                   \
    }
#define BE "encoder.layer.#."
#define BERT                                                                                                           \
    {"token_embd", "embeddings.word_embeddings"}, {"position_embd", "embeddings.position_embeddings"},                 \
        {"token_types", "embeddings.token_type_embeddings"}, {"token_embd_norm", "embeddings.LayerNorm"},              \
        {BL "attn_q", BE "attention.self.query"}, {BL "attn_k", BE "attention.self.key"},                              \
        {BL "attn_v", BE "attention.self.value"}, {BL "attn_output", BE "attention.output.dense"},                     \
        {BL "attn_output_norm", BE "attention.output.LayerNorm"}, {BL "ffn_up", BE "intermediate.dense"},              \
        {BL "ffn_down", BE "output.dense"}, {                                                                          \
        BL "layer_output_norm", BE "output.LayerNorm"                                                                  \
    }

static const family families[] = {
    {"llama", "LlamaForCausalLM", ",\"hidden_act\":\"silu\"", {USUAL}, .permuted = true},
    {"llama-tied", "LlamaForCausalLM", ",\"tie_word_embeddings\":true", {USUAL}, .permuted = true},
    {"qwen2",
     "Qwen2ForCausalLM",
     ",\"use_sliding_window\":false,\"sliding_window\":64,\"max_window_layers\":1",
     {USUAL}},
    {"qwen3", "Qwen3ForCausalLM", "", {USUAL}},
    {"qwen3moe",
     "Qwen3MoeForCausalLM",
     ",\"num_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":96,\"norm_topk_prob\":true,"
     "\"decoder_sparse_step\":1,\"mlp_only_layers\":[]",
     {USUAL,
      {BL "ffn_gate_inp", HL "mlp.gate"},
      {BL "ffn_gate_exps", HL "mlp.experts.@.gate_proj"},
      {BL "ffn_up_exps", HL "mlp.experts.@.up_proj"},
      {BL "ffn_down_exps", HL "mlp.experts.@.down_proj"}}},
    {"gemma2",
     "Gemma2ForCausalLM",
     ",\"query_pre_attn_scalar\":32,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,"
     "\"sliding_window\":64,\"hidden_activation\":\"gelu_pytorch_tanh\"",
     {COMMON,
      {BL "post_attention_norm", HL "post_attention_layernorm"},
      {BL "ffn_norm", HL "pre_feedforward_layernorm"},
      {BL "post_ffw_norm", HL "post_feedforward_layernorm"}},
     .plus_one = true},
    {"phi3",
     "Phi3ForCausalLM",
     ",\"sliding_window\":1024,\"original_max_position_embeddings\":4096",
     {{"token_embd", "model.embed_tokens"},
      {"output_norm", "model.norm"},
      {"output", "lm_head"},
      {BL "attn_norm", HL "input_layernorm"},
      {BL "attn_qkv", HL "self_attn.qkv_proj"},
      {BL "attn_output", HL "self_attn.o_proj"},
      {BL "ffn_norm", HL "post_attention_layernorm"},
      {BL "ffn_up", HL "mlp.gate_up_proj"},
      {BL "ffn_down", HL "mlp.down_proj"}}},
    {"gpt2",
     "GPT2LMHeadModel",
     ",\"activation_function\":\"gelu_new\",\"tie_word_embeddings\":false",
     {{"token_embd", "transformer.wte"},
      {"position_embd", "transformer.wpe"},
      {"output_norm", "transformer.ln_f"},
      {"output", "lm_head"},
      {BL "attn_norm", "transformer.h.#.ln_1"},
      {BL "attn_qkv", "transformer.h.#.attn.c_attn"},
      {BL "attn_output", "transformer.h.#.attn.c_proj"},
      {BL "ffn_norm", "transformer.h.#.ln_2"},
      {BL "ffn_up", "transformer.h.#.mlp.c_fc"},
      {BL "ffn_down", "transformer.h.#.mlp.c_proj"}},
     .transposed = true,
     .layer_norm = true},
    {"bert-mean", "BertModel", ",\"hidden_act\":\"gelu\",\"type_vocab_size\":2", {BERT}, .layer_norm = true},
    {"bert-cls", "BertModel", ",\"hidden_act\":\"gelu\",\"type_vocab_size\":2", {BERT}, .layer_norm = true},
};

/* ---- the folder ---- */

static int64_t whole(const gguf *g, const char *suffix, int64_t missing) {
    gguf_str arch;
    char     key[120];
    int64_t  value = missing;
    assert_true(gguf_string(g, "general.architecture", &arch, NULL));
    snprintf(key, sizeof key, "%.*s.%s", (int)arch.len, arch.data, suffix);
    gguf_int(g, key, 0, INT64_MAX, &value, NULL);
    return value;
}

static double real(const gguf *g, const char *suffix) {
    gguf_str arch;
    char     key[120];
    double   value = 0;
    assert_true(gguf_string(g, "general.architecture", &arch, NULL));
    snprintf(key, sizeof key, "%.*s.%s", (int)arch.len, arch.data, suffix);
    gguf_float(g, key, &value, NULL);
    return value;
}

static void write_config(const bed *b, const family *f, const gguf *g) {
    str s = {0};
    str_addf(&s,
             "{\"architectures\":[\"%s\"],\"num_hidden_layers\":%lld,\"hidden_size\":%lld,\"intermediate_size\":%lld,"
             "\"num_attention_heads\":%lld,\"num_key_value_heads\":%lld,\"max_position_embeddings\":%lld,\"%s\":%.9g",
             f->class, (long long)whole(g, "block_count", 0), (long long)whole(g, "embedding_length", 0),
             (long long)whole(g, "feed_forward_length", 0), (long long)whole(g, "attention.head_count", 0),
             (long long)whole(g, "attention.head_count_kv", 0), (long long)whole(g, "context_length", 0),
             f->layer_norm ? "layer_norm_eps" : "rms_norm_eps",
             real(g, f->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"));
    if (real(g, "rope.freq_base") > 0)
        str_addf(&s, ",\"rope_theta\":%.9g", real(g, "rope.freq_base"));
    if (whole(g, "attention.key_length", 0))
        str_addf(&s, ",\"head_dim\":%lld", (long long)whole(g, "attention.key_length", 0));
    str_addf(&s, "%s}", f->config);
    bed_text(b, "config.json", s.data);
    str_free(&s);
}

/* blk.7.attn_q.weight -> model.layers.7.self_attn.q_proj.weight; '@' stays. */
static void hf_name(const family *f, const char *gguf_name, char *out, size_t size) {
    char        base[120];
    long        layer = 0;
    const char *dot = strrchr(gguf_name, '.');
    snprintf(base, sizeof base, "%.*s", (int)(dot - gguf_name), gguf_name);
    if (strncmp(base, "blk.", 4) == 0) {
        char *rest;
        layer = strtol(gguf_name + 4, &rest, 10);
        snprintf(base, sizeof base, "blk.#%.*s", (int)(dot - rest), rest);
    }
    for (int i = 0; i < PAIRS && f->names[i].gguf; i++) {
        if (strcmp(f->names[i].gguf, base) != 0)
            continue;
        const char *mark = strchr(f->names[i].hf, '#');
        if (mark)
            snprintf(out, size, "%.*s%ld%s%s", (int)(mark - f->names[i].hf), f->names[i].hf, layer, mark + 1, dot);
        else
            snprintf(out, size, "%s%s", f->names[i].hf, dot);
        return;
    }
    fail_msg("%s has no name in the test's table of %s", gguf_name, f->class);
}

/* The inverse of what the import does to rows: neighbours back to halves. */
static void halves(const uint8_t *in, uint8_t *out, int64_t rows, int64_t heads, size_t row_bytes) {
    int64_t d = rows / heads;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < d; i++) {
            int64_t to = i % 2 == 0 ? i / 2 : d / 2 + i / 2;
            memcpy(out + (size_t)(h * d + to) * row_bytes, in + (size_t)(h * d + i) * row_bytes, row_bytes);
        }
}

static void back(const family *f, const gguf *g, const gguf_tensor *t, uint8_t *out, int64_t *shape) {
    const size_t width = t->type == BLOCK_F32 ? 4 : 2;
    const bool   q = strstr(t->name, ".attn_q.") != NULL, k = strstr(t->name, ".attn_k.") != NULL;
    const bool   conv = strstr(t->name, "attn_qkv.weight") || strstr(t->name, "attn_output.weight") ||
                      strstr(t->name, "ffn_up.weight") || strstr(t->name, "ffn_down.weight");
    const int64_t rows = t->dims == 1 ? t->shape[0] : t->shape[1], cols = t->dims == 1 ? 1 : t->shape[0];
    memcpy(out, t->data, t->bytes);
    for (int d = 0; d < t->dims; d++)
        shape[d] = t->shape[t->dims - 1 - d];
    if (f->permuted && (q || k))
        halves(t->data, out, rows, whole(g, q ? "attention.head_count" : "attention.head_count_kv", 0),
               (size_t)cols * width);
    if (f->plus_one && strstr(t->name, "norm.weight"))
        for (int64_t i = 0; i < t->shape[0]; i++)
            ((float *)(void *)out)[i] -= 1;
    if (f->transposed && conv) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++)
                memcpy(out + (size_t)(c * rows + r) * width, (const uint8_t *)t->data + (size_t)(r * cols + c) * width,
                       width);
        shape[0] = cols;
        shape[1] = rows;
    }
}

static void write_weights(const bed *b, const family *f, const gguf *g) {
    st_file s = {0};
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        const char        *dtype = t->type == BLOCK_F32 ? "F32" : "F16";
        char               name[200];
        int64_t            shape[4];
        uint8_t           *data = malloc(t->bytes);
        back(f, g, t, data, shape);
        hf_name(f, t->name, name, sizeof name);
        char *expert = strchr(name, '@');
        if (!expert)
            st_add(&s, name, dtype, t->dims, shape, data, t->bytes);
        for (int64_t x = 0; expert && x < shape[0]; x++) {
            char   one[220];
            size_t each = t->bytes / (size_t)shape[0];
            snprintf(one, sizeof one, "%.*s%lld%s", (int)(expert - name), name, (long long)x, expert + 1);
            st_add(&s, one, dtype, 2, shape + 1, data + (size_t)x * each, each);
        }
        free(data);
    }
    st_save(&s, b, "model.safetensors");
}

/* ---- comparing ---- */

/* The distance from 1 that the folder holds is rounded for values below 1/2: what comes back is that rounded value. */
static bool same_distance(const gguf_tensor *was, const gguf_tensor *is) {
    const float *a = was->data, *b = is->data;
    for (int64_t i = 0; i < was->shape[0]; i++) {
        volatile float distance = a[i] - 1;
        if (b[i] != distance + 1)
            return false;
    }
    return true;
}

static void same_tensors(const family *f, const gguf *was, const gguf *is) {
    assert_int_equal(gguf_tensor_count(is), gguf_tensor_count(was));
    for (size_t i = 0; i < gguf_tensor_count(was); i++) {
        const gguf_tensor *a = gguf_tensor_at(was, i), *c = gguf_tensor_named(is, a->name);
        if (!c || c->type != a->type || c->dims != a->dims || memcmp(c->shape, a->shape, sizeof a->shape) != 0)
            fail_msg("%s: %s is %s", f->model, a->name, c ? "of another type or shape" : "missing");
        if (f->plus_one && strstr(a->name, "norm.weight") ? !same_distance(a, c)
                                                          : memcmp(a->data, c->data, a->bytes) != 0)
            fail_msg("%s: %s has other values", f->model, a->name);
    }
}

/* Every ARCH.* key of the conformance file that the import writes as well must have its value. */
static void same_keys(const family *f, const gguf *was, const gguf *is) {
    int same = 0;
    for (size_t i = 0; i < gguf_key_count(was); i++) {
        gguf_kind   kind;
        const char *key = gguf_key_at(was, i, &kind);
        int64_t     a, b;
        double      x, y;
        if (strncmp(key, "general.", 8) == 0 || strncmp(key, "tokenizer.", 10) == 0 || !gguf_has(is, key))
            continue;
        if (gguf_int(was, key, 0, INT64_MAX, &a, NULL)) {
            assert_true(gguf_int(is, key, 0, INT64_MAX, &b, NULL));
            if (a != b)
                fail_msg("%s: %s is %lld, was %lld", f->model, key, (long long)b, (long long)a);
        } else if (gguf_float(was, key, &x, NULL)) {
            assert_true(gguf_float(is, key, &y, NULL));
            if (x != y)
                fail_msg("%s: %s is %.9g, was %.9g", f->model, key, y, x);
        }
        same++;
    }
    assert_true(same >= 7);
}

static void round_trip(void **state) {
    int done = 0;
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const family *f = &families[i];
        char          path[160];
        err           e = {0};
        snprintf(path, sizeof path, MODELS "%s/model.gguf", f->model);
        gguf *was = gguf_open(path, &e);
        if (!was) {
            print_message("%s is not here: skipped\n", path);
            continue;
        }
        bed           b;
        import_report r;
        bed_open(&b);
        write_config(&b, f, was);
        write_weights(&b, f, was);
        const bool single = gguf_tensor_named(was, "token_embd.weight")->type == BLOCK_F32;
        gguf      *is = bed_import(&b, (import_options){.type = single ? "f32" : "f16", .no_tokenizer = true}, &r, &e);
        if (!is)
            fail_msg("%s: %s", f->model, e.text);
        same_tensors(f, was, is);
        same_keys(f, was, is);
        print_message("%s: %lld tensors%s%s\n", f->model, (long long)r.tensors, r.runs ? "" : "; not run: ", r.why_not);
        import_report_free(&r);
        gguf_close(is);
        gguf_close(was);
        bed_close(&b);
        done++;
    }
    if (!done)
        skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
