/* Architectures for which there is no conformance model: one layer each, every tensor followed to its place. */
#include "model/test_import_bed.h"

typedef struct follow {
    const char *hf, *gguf; /* with their suffixes; '@' in hf: four experts, stacked */
    int         rows, cols;
    bool        plus_one, paired;
} follow;

enum { MOST = 32, EXPERTS = 4 };

typedef struct model {
    const char *class, *arch, *config;
    const char *ints[12]; /* "suffix=value", ending in NULL */
    const char *floats[8];
    follow      tensors[MOST];
} model;

#define SIZES                                                                                                          \
    "\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_"    \
    "size\":16,"                                                                                                       \
    "\"max_position_embeddings\":64"
#define H "model.layers.0."
#define G "blk.0."
#define ENDS                                                                                                           \
    {"model.embed_tokens.weight", "token_embd.weight", 12, 8}, {                                                       \
        "model.norm.weight", "output_norm.weight", 0, 8                                                                \
    }
#define LAYER_NORMS                                                                                                    \
    {H "input_layernorm.weight", G "attn_norm.weight", 0, 8}, {                                                        \
        H "post_attention_layernorm.weight", G "ffn_norm.weight", 0, 8                                                 \
    }
#define HEADS(p)                                                                                                       \
    {H "self_attn.q_proj.weight", G "attn_q.weight", 8, 8, false, p},                                                  \
        {H "self_attn.k_proj.weight", G "attn_k.weight", 4, 8, false, p},                                              \
        {H "self_attn.v_proj.weight", G "attn_v.weight", 4, 8}, {                                                      \
        H "self_attn.o_proj.weight", G "attn_output.weight", 8, 8                                                      \
    }
#define GATED                                                                                                          \
    {H "mlp.gate_proj.weight", G "ffn_gate.weight", 16, 8}, {H "mlp.up_proj.weight", G "ffn_up.weight", 16, 8}, {      \
        H "mlp.down_proj.weight", G "ffn_down.weight", 8, 16                                                           \
    }

static const model models[] = {
    {"MixtralForCausalLM",
     "llama",
     SIZES ",\"rms_norm_eps\":1e-5,\"num_local_experts\":4,\"num_experts_per_tok\":2",
     {"expert_count=4", "expert_used_count=2", "rope.dimension_count=4", "vocab_size=12"},
     {"rope.freq_base=1000000"},
     {ENDS,
      LAYER_NORMS,
      HEADS(true),
      {"lm_head.weight", "output.weight", 12, 8},
      {H "block_sparse_moe.gate.weight", G "ffn_gate_inp.weight", 4, 8},
      {H "block_sparse_moe.experts.@.w1.weight", G "ffn_gate_exps.weight", 16, 8},
      {H "block_sparse_moe.experts.@.w3.weight", G "ffn_up_exps.weight", 16, 8},
      {H "block_sparse_moe.experts.@.w2.weight", G "ffn_down_exps.weight", 8, 16}}},
    {"Qwen2MoeForCausalLM",
     "qwen2moe",
     SIZES ",\"rms_norm_eps\":1e-6,\"num_experts\":4,\"num_experts_per_tok\":2,\"moe_intermediate_size\":6,"
           "\"shared_expert_intermediate_size\":10,\"norm_topk_prob\":false",
     {"expert_count=4", "expert_feed_forward_length=6", "expert_shared_feed_forward_length=10"},
     {"rope.freq_base=10000"},
     {ENDS,
      LAYER_NORMS,
      HEADS(false),
      {"lm_head.weight", "output.weight", 12, 8},
      {H "self_attn.q_proj.bias", G "attn_q.bias", 0, 8},
      {H "self_attn.k_proj.bias", G "attn_k.bias", 0, 4},
      {H "mlp.gate.weight", G "ffn_gate_inp.weight", 4, 8},
      {H "mlp.experts.@.gate_proj.weight", G "ffn_gate_exps.weight", 6, 8},
      {H "mlp.experts.@.up_proj.weight", G "ffn_up_exps.weight", 6, 8},
      {H "mlp.experts.@.down_proj.weight", G "ffn_down_exps.weight", 8, 6},
      {H "mlp.shared_expert.gate_proj.weight", G "ffn_gate_shexp.weight", 10, 8},
      {H "mlp.shared_expert.up_proj.weight", G "ffn_up_shexp.weight", 10, 8},
      {H "mlp.shared_expert.down_proj.weight", G "ffn_down_shexp.weight", 8, 10},
      {H "mlp.shared_expert_gate.weight", G "ffn_gate_inp_shexp.weight", 1, 8}}},
    {"Gemma3ForConditionalGeneration",
     "gemma3",
     "\"model_type\":\"gemma3\",\"vision_config\":{\"x\":1},\"mm_tokens_per_image\":256,\"text_config\":{\"hidden_"
     "size\":8,"
     "\"num_hidden_layers\":1,\"intermediate_size\":16,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_"
     "dim\":4,"
     "\"query_pre_attn_scalar\":4,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},\"sliding_window\":1024}",
     {"context_length=131072", "attention.sliding_window=1024", "attention.key_length=4"},
     {"rope.freq_base=1000000", "rope.freq_base_swa=10000", "rope.scaling.factor=8"},
     {{"language_model.model.embed_tokens.weight", "token_embd.weight", 12, 8},
      {"language_model.model.norm.weight", "output_norm.weight", 0, 8, true},
      {"language_model." H "input_layernorm.weight", G "attn_norm.weight", 0, 8, true},
      {"language_model." H "post_attention_layernorm.weight", G "post_attention_norm.weight", 0, 8, true},
      {"language_model." H "pre_feedforward_layernorm.weight", G "ffn_norm.weight", 0, 8, true},
      {"language_model." H "post_feedforward_layernorm.weight", G "post_ffw_norm.weight", 0, 8, true},
      {"language_model." H "self_attn.q_norm.weight", G "attn_q_norm.weight", 0, 4, true},
      {"language_model." H "self_attn.k_norm.weight", G "attn_k_norm.weight", 0, 4, true},
      {"language_model." H "self_attn.q_proj.weight", G "attn_q.weight", 8, 8},
      {"language_model." H "self_attn.k_proj.weight", G "attn_k.weight", 4, 8},
      {"language_model." H "self_attn.v_proj.weight", G "attn_v.weight", 4, 8},
      {"language_model." H "self_attn.o_proj.weight", G "attn_output.weight", 8, 8},
      {"language_model." H "mlp.gate_proj.weight", G "ffn_gate.weight", 16, 8},
      {"language_model." H "mlp.up_proj.weight", G "ffn_up.weight", 16, 8},
      {"language_model." H "mlp.down_proj.weight", G "ffn_down.weight", 8, 16},
      {"vision_tower.patch.weight", NULL, 4, 4}}},
    {"Olmo2ForCausalLM",
     "olmo2",
     SIZES ",\"rms_norm_eps\":1e-6",
     {"context_length=64"},
     {"rope.freq_base=10000"},
     {ENDS,
      HEADS(false),
      {"lm_head.weight", "output.weight", 12, 8},
      GATED,
      {H "self_attn.q_norm.weight", G "attn_q_norm.weight", 0, 8},
      {H "self_attn.k_norm.weight", G "attn_k_norm.weight", 0, 4},
      {H "post_attention_layernorm.weight", G "post_attention_norm.weight", 0, 8},
      {H "post_feedforward_layernorm.weight", G "post_ffw_norm.weight", 0, 8}}},
    {"Starcoder2ForCausalLM",
     "starcoder2",
     SIZES ",\"norm_epsilon\":1e-5,\"hidden_act\":\"gelu_pytorch_tanh\",\"use_bias\":true",
     {"attention.head_count_kv=1"},
     {"rope.freq_base=10000"},
     {ENDS,
      LAYER_NORMS,
      HEADS(false),
      {"model.norm.bias", "output_norm.bias", 0, 8},
      {H "input_layernorm.bias", G "attn_norm.bias", 0, 8},
      {H "self_attn.o_proj.bias", G "attn_output.bias", 0, 8},
      {H "mlp.c_fc.weight", G "ffn_up.weight", 16, 8},
      {H "mlp.c_fc.bias", G "ffn_up.bias", 0, 16},
      {H "mlp.c_proj.weight", G "ffn_down.weight", 8, 16}}},
    {"SmolLM3ForCausalLM",
     "smollm3",
     SIZES ",\"rms_norm_eps\":1e-6,\"no_rope_layers\":[1],\"no_rope_layer_interval\":4",
     {"rope.dimension_count=4"},
     {"rope.freq_base=2000000"},
     {ENDS, LAYER_NORMS, HEADS(true), GATED}},
    {"GraniteForCausalLM",
     "granite",
     SIZES ",\"rms_norm_eps\":1e-5,\"attention_multiplier\":0.125,\"embedding_multiplier\":12.0,"
           "\"residual_multiplier\":0.25,\"logits_scaling\":8.0",
     {"rope.dimension_count=4"},
     {"attention.scale=0.125", "embedding_scale=12", "residual_scale=0.25", "logit_scale=8"},
     {ENDS,
      LAYER_NORMS,
      HEADS(true),
      GATED,
      {"lm_head.weight", "output.weight", 12, 8},
      {H "self_attn.q_proj.bias", G "attn_q.bias", 0, 8, false, true}}},
    {"NomicBertModel",
     "nomic-bert",
     "\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"n_inner\":16,\"n_positions\":8192,\"max_trained_positions\":2048,"
     "\"layer_norm_epsilon\":1e-12,\"rotary_emb_base\":1000,\"rotary_emb_fraction\":1.0,\"rotary_scaling_factor\":2,"
     "\"activation_function\":\"swiglu\",\"causal\":false,\"prenorm\":false,\"type_vocab_size\":2,\"use_rms_norm\":"
     "false",
     {"context_length=2048", "embedding_length=8", "feed_forward_length=16"},
     {"rope.freq_base=1000"},
     {{"embeddings.word_embeddings.weight", "token_embd.weight", 12, 8},
      {"embeddings.token_type_embeddings.weight", "token_types.weight", 2, 8},
      {"emb_ln.weight", "token_embd_norm.weight", 0, 8},
      {"emb_ln.bias", "token_embd_norm.bias", 0, 8},
      {"encoder.layers.0.attn.Wqkv.weight", G "attn_qkv.weight", 24, 8},
      {"encoder.layers.0.attn.out_proj.weight", G "attn_output.weight", 8, 8},
      {"encoder.layers.0.norm1.weight", G "attn_output_norm.weight", 0, 8},
      {"encoder.layers.0.mlp.fc11.weight", G "ffn_up.weight", 16, 8},
      {"encoder.layers.0.mlp.fc12.weight", G "ffn_gate.weight", 16, 8},
      {"encoder.layers.0.mlp.fc2.weight", G "ffn_down.weight", 8, 16},
      {"encoder.layers.0.norm2.weight", G "layer_output_norm.weight", 0, 8}}},
};

static uint64_t seed_of(const model *m, int i, int expert) {
    return (uint64_t)(m - models) * 1000 + (uint64_t)i * 10 + (uint64_t)expert + 1;
}

static void write_folder(const bed *b, const model *m) {
    st_file s = {0};
    str     config = {0};
    str_addf(&config, "{\"architectures\":[\"%s\"],%s}", m->class, m->config);
    bed_text(b, "config.json", config.data);
    str_free(&config);
    for (int i = 0; i < MOST && m->tensors[i].hf; i++) {
        const follow *f = &m->tensors[i];
        const char   *at = strchr(f->hf, '@');
        if (!at)
            st_numbers(&s, f->hf, "F32", f->rows, f->cols, seed_of(m, i, 0));
        for (int x = 0; at && x < EXPERTS; x++) {
            char name[120];
            snprintf(name, sizeof name, "%.*s%d%s", (int)(at - f->hf), f->hf, x, at + 1);
            st_numbers(&s, name, "F32", f->rows, f->cols, seed_of(m, i, x));
        }
    }
    st_save(&s, b, "model.safetensors");
}

/* Heads have 4 values everywhere here: row i + 2 half goes to 2 i + half. */
static int paired_row(int row) {
    int head = row / 4, within = row % 4;
    return head * 4 + 2 * (within % 2) + within / 2;
}

static void check_tensor(const model *m, const gguf *g, int i) {
    const follow      *f = &m->tensors[i];
    const gguf_tensor *t = gguf_tensor_named(g, f->gguf);
    const bool         experts = strchr(f->hf, '@') != NULL;
    const int          rows = f->rows ? f->rows : 1;
    if (!t)
        fail_msg("%s: %s is missing", m->class, f->gguf);
    assert_int_equal(t->dims, experts ? 3 : f->rows ? 2 : 1);
    assert_int_equal(t->shape[0], f->cols);
    assert_int_equal(t->shape[1], rows);
    for (int x = 0; x < (experts ? EXPERTS : 1); x++) {
        float       *was = numbers((size_t)(rows * f->cols), seed_of(m, i, x));
        const float *is = (const float *)t->data + (size_t)x * (size_t)(rows * f->cols);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < f->cols; c++) {
                bool  vector = f->paired && !f->rows;
                int   to = f->paired ? paired_row(vector ? c : r) : r;
                float got = vector ? is[to] : is[to * f->cols + c];
                if (got != was[r * f->cols + c] + (f->plus_one ? 1 : 0))
                    fail_msg("%s: %s has another value in row %d, column %d", m->class, f->gguf, r, c);
            }
        free(was);
    }
}

static void check_key(const model *m, const gguf *g, const char *row, bool is_float) {
    const char *equals = strchr(row, '=');
    char        key[120];
    double      want = strtod(equals + 1, NULL), number = -1;
    int64_t     whole = -1;
    err         e = {0};
    snprintf(key, sizeof key, "%s.%.*s", m->arch, (int)(equals - row), row);
    if (is_float)
        assert_ok(gguf_float(g, key, &number, &e), e);
    else
        assert_ok(gguf_int(g, key, 0, INT64_MAX, &whole, &e), e);
    if (is_float ? (float)number != (float)want : whole != (int64_t)want)
        fail_msg("%s: %s is not %s", m->class, key, equals + 1);
}

static void each_architecture(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
        const model  *m = &models[k];
        bed           b;
        import_report r;
        err           e = {0};
        gguf_str      arch;
        int           count = 0;
        bed_open(&b);
        write_folder(&b, m);
        gguf *g = bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e);
        if (!g)
            fail_msg("%s: %s", m->class, e.text);
        assert_true(gguf_string(g, "general.architecture", &arch, NULL));
        assert_int_equal(arch.len, strlen(m->arch));
        assert_memory_equal(arch.data, m->arch, arch.len);
        for (int i = 0; i < MOST && m->tensors[i].hf; i++)
            if (m->tensors[i].gguf) {
                check_tensor(m, g, i);
                count++;
            }
        assert_int_equal(gguf_tensor_count(g), count);
        for (int i = 0; m->ints[i]; i++)
            check_key(m, g, m->ints[i], false);
        for (int i = 0; m->floats[i]; i++)
            check_key(m, g, m->floats[i], true);
        print_message("%s%s%s\n", m->class, r.runs ? "" : "; not run: ", r.why_not);
        gguf_close(g);
        import_report_free(&r);
        bed_close(&b);
    }
}

/* transformers 5 holds all experts in one tensor, gate and up together. */
static void fused_experts(void **state) {
    (void)state;
    bed           b;
    import_report r;
    err           e = {0};
    st_file       s = {0};
    const int64_t shape[3] = {4, 12, 8}, down[3] = {4, 8, 6};
    float        *both = numbers(4 * 12 * 8, 5), *last = numbers(4 * 8 * 6, 6);
    model         m = models[1];
    bed_open(&b);
    for (int i = 0; i < MOST && m.tensors[i].hf; i++) /* no experts one by one, no shared one */
        if (strchr(m.tensors[i].hf, '@'))
            m.tensors[i].hf = "skip.@";
    str config = {0};
    str_addf(&config, "{\"architectures\":[\"%s\"],%s}", m.class, m.config);
    bed_text(&b, "config.json", config.data);
    str_free(&config);
    for (int i = 0; i < MOST && m.tensors[i].hf; i++)
        if (!strchr(m.tensors[i].hf, '@'))
            st_numbers(&s, m.tensors[i].hf, "F32", m.tensors[i].rows, m.tensors[i].cols, 3);
    st_add(&s, H "mlp.experts.gate_up_proj", "F32", 3, shape, both, sizeof *both * 4 * 12 * 8);
    st_add(&s, H "mlp.experts.down_proj", "F32", 3, down, last, sizeof *last * 4 * 8 * 6);
    st_save(&s, &b, "model.safetensors");
    gguf *g = bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e);
    assert_ok(g, e);
    const float *gate = gguf_tensor_named(g, G "ffn_gate_exps.weight")->data,
                *up = gguf_tensor_named(g, G "ffn_up_exps.weight")->data;
    for (int x = 0; x < 4; x++) {
        assert_memory_equal(gate + x * 48, both + x * 96, 48 * 4);
        assert_memory_equal(up + x * 48, both + x * 96 + 48, 48 * 4);
    }
    assert_memory_equal(gguf_tensor_named(g, G "ffn_down_exps.weight")->data, last, 4 * 48 * 4);
    free(both);
    free(last);
    gguf_close(g);
    import_report_free(&r);
    bed_close(&b);
}

static void family_refusals(void **state) {
    static const struct {
        const char *class, *config, *says;
    } rows[] = {
        {"Qwen3MoeForCausalLM", SIZES ",\"rms_norm_eps\":1e-6,\"num_experts\":4,\"num_experts_per_tok\":2",
         "norm_topk_prob is not true"},
        {"Qwen3MoeForCausalLM", SIZES ",\"rms_norm_eps\":1e-6,\"num_experts\":4,\"num_experts_per_tok\":9",
         "more than the experts"},
        {"Qwen2MoeForCausalLM",
         SIZES ",\"rms_norm_eps\":1e-6,\"num_experts\":4,\"num_experts_per_tok\":2,\"mlp_only_layers\":[0]",
         "mlp_only_layers"},
        {"Gemma2ForCausalLM",
         SIZES ",\"rms_norm_eps\":1e-6,\"head_dim\":4,\"query_pre_attn_scalar\":144,\"attn_logit_softcapping\":50,"
               "\"final_logit_softcapping\":30",
         "query_pre_attn_scalar"},
        {"SmolLM3ForCausalLM", SIZES ",\"rms_norm_eps\":1e-6,\"no_rope_layers\":[0]", "no_rope_layers"},
        {"GraniteForCausalLM", SIZES ",\"rms_norm_eps\":1e-6", "attention_multiplier is missing"},
        {"BertModel", SIZES ",\"layer_norm_eps\":1e-12,\"position_embedding_type\":\"relative_key\"",
         "position_embedding_type"},
        {"BertModel", SIZES ",\"layer_norm_eps\":1e-12,\"hidden_act\":\"relu\"", "\"relu\""},
        {"GPT2LMHeadModel", SIZES ",\"layer_norm_epsilon\":1e-5,\"scale_attn_by_inverse_layer_idx\":true",
         "scaled by the layer"},
        {"Qwen2ForCausalLM", SIZES ",\"rms_norm_eps\":1e-6,\"use_sliding_window\":true,\"sliding_window\":8",
         "--context 8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bed           b;
        import_report r;
        err           e = {0};
        str           config = {0};
        bed_open(&b);
        str_addf(&config, "{\"architectures\":[\"%s\"],%s}", rows[i].class, rows[i].config);
        bed_text(&b, "config.json", config.data);
        assert_null(bed_import(&b, (import_options){0}, &r, &e));
        assert_says(e, rows[i].says);
        import_report_free(&r);
        str_free(&config);
        bed_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_architecture), cmocka_unit_test(fused_experts),
                                       cmocka_unit_test(family_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
