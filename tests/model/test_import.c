/* `pare import` on small folders: keys, computed tensors, types, shards, and every kind of refusal. */
#include "model/test_import_bed.h"

#include <math.h>

static void llama_folder(bed *b, const char *more, const char *dtype) {
    st_file s = {0};
    char    text[2000];
    bed_open(b);
    snprintf(text, sizeof text, LLAMA_CONFIG "%s}", more);
    bed_text(b, "config.json", text);
    st_llama(&s, dtype, 16);
    st_save(&s, b, "model.safetensors");
}

static void refused(const char *more, const char *says) {
    bed           b;
    import_report r;
    err           e = {0};
    llama_folder(&b, more, "F16");
    if (bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e))
        fail_msg("%s was taken", more);
    assert_says(e, says);
    assert_int_not_equal(access(b.out, F_OK), 0); /* nothing was left behind */
    import_report_free(&r);
    bed_close(&b);
}

static gguf *taken(bed *b, const char *more, const char *dtype, import_options o, import_report *r) {
    err e = {0};
    llama_folder(b, more, dtype);
    o.no_tokenizer = true;
    gguf *g = bed_import(b, o, r, &e);
    assert_ok(g, e);
    return g;
}

static void done(bed *b, gguf *g, import_report *r) {
    gguf_close(g);
    import_report_free(r);
    bed_close(b);
}

static int64_t whole(const gguf *g, const char *key) {
    int64_t v = -1;
    err     e = {0};
    assert_ok(gguf_int(g, key, 0, INT64_MAX, &v, &e), e);
    return v;
}

static double real(const gguf *g, const char *key) {
    double v = -1;
    err    e = {0};
    assert_ok(gguf_float(g, key, &v, &e), e);
    return v;
}

static void text_is(const gguf *g, const char *key, const char *expected) {
    gguf_str s;
    err      e = {0};
    assert_ok(gguf_string(g, key, &s, &e), e);
    if (s.len != strlen(expected) || memcmp(s.data, expected, s.len) != 0)
        fail_msg("%s is \"%.*s\", not \"%s\"", key, (int)s.len, s.data, expected);
}

static void keys(void **state) {
    (void)state;
    bed           b;
    import_report r;
    gguf         *g = taken(&b, ",\"rope_theta\":500000.0", "BF16", (import_options){.name = "Tiny"}, &r);
    text_is(g, "general.architecture", "llama");
    text_is(g, "general.name", "Tiny");
    assert_int_equal(whole(g, "general.file_type"), 32);
    assert_int_equal(whole(g, "llama.block_count"), 2);
    assert_int_equal(whole(g, "llama.context_length"), 2048);
    assert_int_equal(whole(g, "llama.embedding_length"), 32);
    assert_int_equal(whole(g, "llama.feed_forward_length"), 64);
    assert_int_equal(whole(g, "llama.attention.head_count"), 4);
    assert_int_equal(whole(g, "llama.attention.head_count_kv"), 2);
    assert_int_equal(whole(g, "llama.rope.dimension_count"), 8);
    assert_int_equal(whole(g, "llama.vocab_size"), 16);
    assert_true(real(g, "llama.rope.freq_base") == 500000.0);
    assert_true((float)real(g, "llama.attention.layer_norm_rms_epsilon") == 1e-5f);
    assert_int_equal(gguf_tensor_named(g, "blk.0.attn_q.weight")->type, BLOCK_BF16);
    assert_int_equal(gguf_tensor_named(g, "output_norm.weight")->type, BLOCK_F32);
    assert_true(r.runs);
    done(&b, g, &r);
}

/* Row r of a head of 8: halves (i, i + 4) become neighbours (2i, 2i + 1). */
static void rotation_pairs(void **state) {
    (void)state;
    bed           b;
    import_report r;
    gguf         *g = taken(&b, "", "F32", (import_options){0}, &r);
    const float  *q = gguf_tensor_named(g, "blk.0.attn_q.weight")->data,
                *v = gguf_tensor_named(g, "blk.0.attn_v.weight")->data;
    float *was = numbers(32 * 32, 100), *was_v = numbers(16 * 32, 102);
    for (int head = 0; head < 4; head++)
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                assert_memory_equal(q + (head * 8 + 2 * i + half) * 32, was + (head * 8 + half * 4 + i) * 32, 32 * 4);
    assert_memory_equal(v, was_v, 16 * 32 * 4);
    free(was);
    free(was_v);
    done(&b, g, &r);
}

static void types(void **state) {
    (void)state;
    static const char *const names[] = {"f32", "f16", "bf16", "q8_0"};
    float                   *was = numbers(64 * 32, 105); /* blk.0.ffn_up */
    for (int i = 0; i < 4; i++) {
        bed                b;
        import_report      r;
        gguf              *g = taken(&b, "", "BF16", (import_options){.type = names[i]}, &r);
        const gguf_tensor *t = gguf_tensor_named(g, "blk.0.ffn_up.weight");
        float              got[64 * 32];
        assert_string_equal(t->format->name, block_format_named(names[i])->name);
        block_to_f32(t->format->type, t->data, got, 64 * 32);
        for (int k = 0; k < 64 * 32; k++) /* eighths of a step of an 8-bit block */
            assert_true(fabsf(got[k] - was[k]) <= (i == 3 ? 8.0f / 127 : 0));
        done(&b, g, &r);
    }
    free(was);
}

static void llama3_rope(void **state) {
    (void)state;
    bed                b;
    import_report      r;
    gguf              *g = taken(&b,
                                 ",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
                                              "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}",
                                 "F16", (import_options){0}, &r);
    const gguf_tensor *t = gguf_tensor_named(g, "rope_freqs.weight");
    assert_non_null(t);
    assert_int_equal(t->shape[0], 4);
    const float *f = t->data;
    /* Wavelengths 2 pi 500000^(i/4): 6.3 is short (< 64/4); 167, 4443 and 118000 are long (> 64). */
    assert_true(f[0] == 1 && f[1] == 8 && f[2] == 8 && f[3] == 8);
    done(&b, g, &r);
    g = taken(&b,
              ",\"rope_theta\":1000.0,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":4.0,\"low_freq_factor\":1.0,"
              "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}",
              "F16", (import_options){0}, &r);
    f = gguf_tensor_named(g, "rope_freqs.weight")->data;
    double length = 2 * M_PI * pow(1000, 0.25), smooth = (64 / length - 1) / 3; /* 35.3: between 16 and 64 */
    assert_true(fabs((double)f[1] - 1 / ((1 - smooth) / 4 + smooth)) < 1e-5);
    done(&b, g, &r);
}

static void other_ropes(void **state) {
    (void)state;
    bed           b;
    import_report r;
    gguf *g = taken(&b, ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}", "F16", (import_options){0}, &r);
    text_is(g, "llama.rope.scaling.type", "linear");
    assert_true(real(g, "llama.rope.scaling.factor") == 2);
    done(&b, g, &r);
    g = taken(&b,
              ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":512,"
              "\"beta_fast\":32,\"beta_slow\":1,\"rope_theta\":20000}",
              "F16", (import_options){0}, &r);
    text_is(g, "llama.rope.scaling.type", "yarn");
    assert_true(real(g, "llama.rope.freq_base") == 20000);
    assert_int_equal(whole(g, "llama.rope.scaling.original_context_length"), 512);
    assert_true(real(g, "llama.rope.scaling.yarn_beta_fast") == 32);
    done(&b, g, &r);
    refused(",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}", "\"dynamic\", which GGUF cannot say");
    refused(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0,\"twist\":1}", "rope_scaling.twist");
    refused(",\"rope_scaling\":{\"type\":\"linear\"}", "rope_scaling.factor is missing");
    refused(",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":0.7}", "rope_scaling.mscale");
    refused(",\"partial_rotary_factor\":0.5", "partial_rotary_factor");
}

static void config_refusals(void **state) {
    (void)state;
    refused(",\"hidden_activation\":\"gelu\",\"hidden_act\":null", "stands twice");
    refused(",\"attn_logit_softcapping\":30.0", "attn_logit_softcapping is a setting that pare does not know");
    refused(",\"sliding_window\":512", "--context 512");
    refused(",\"quantization_config\":{\"quant_method\":\"fp8\"}", "quantised (fp8)");
    refused(",\"layer_types\":[\"full_attention\",\"linear_attention\"]", "layer 1 another kind");
    refused(",\"head_dim\":7", "odd number");
    refused(",\"head_dim\":\"8\"", "must be a whole number");
    refused(",\"is_causal\":false", "is_causal");
    refused(",\"rope_theta\":1e300", "must be 1 to 1e+12");
}

static void context_and_ignore(void **state) {
    (void)state;
    bed               b;
    import_report     r;
    const char *const ignore[] = {"my_flag"};
    gguf             *g = taken(&b, ",\"sliding_window\":512,\"my_flag\":3", "F16",
                                (import_options){.context = 512, .ignore = ignore, .ignore_count = 1}, &r);
    assert_int_equal(whole(g, "llama.context_length"), 512);
    done(&b, g, &r);
    refused(",\"my_flag\":3", "--ignore my_flag");
}

/* Activation and class in the configuration itself. */
static void other_configs(void **state) {
    static const struct {
        const char *config, *says;
    } rows[] = {
        {"{}", "architectures is missing"},
        {"[]", "must be an object"},
        {"{\"architectures\":[\"MambaForCausalLM\"]}", "\"MambaForCausalLM\" is not a model that pare imports"},
        {"{\"model_type\":\"mamba\"}", "\"mamba\" is not a model that pare imports"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", "num_hidden_layers is missing"},
        {"{\"model_type\":\"llama\",\"num_hidden_layers\":1e30}", "must be a whole number"},
        {"{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":"
         "4,"
         "\"intermediate_size\":64,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"hidden_act\":\"gelu\"}",
         "\"gelu\", but GGUF's llama computes silu|swish"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bed           b;
        import_report r;
        err           e = {0};
        bed_open(&b);
        bed_text(&b, "config.json", rows[i].config);
        assert_null(bed_import(&b, (import_options){0}, &r, &e));
        assert_says(e, rows[i].says);
        import_report_free(&r);
        bed_close(&b);
    }
}

static void weights_refused(void **state) {
    (void)state;
    bed           b;
    import_report r;
    err           e = {0};
    st_file       s = {0};
    llama_folder(&b, "", "F16");
    st_llama(&s, "F16", 16);
    st_numbers(&s, "model.layers.0.self_attn.q_norm.weight", "F16", 0, 8, 9);
    st_save(&s, &b, "model.safetensors");
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_says(e, "q_norm.weight has no place in GGUF's llama");
    import_report_free(&r);
    st_numbers(&s, "model.embed_tokens.weight", "F16", 16, 32, 1);
    st_save(&s, &b, "model.safetensors");
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_says(e, "model.layers.0.input_layernorm.weight is missing");
    import_report_free(&r);
    const int64_t shape[2] = {16, 32};
    char          fp8[16 * 32] = {0};
    st_add(&s, "model.embed_tokens.weight", "F8_E4M3", 2, shape, fp8, sizeof fp8);
    st_save(&s, &b, "model.safetensors");
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_says(e, "is F8_E4M3");
    import_report_free(&r);
    bed_file(&b, "pytorch_model.bin", "x", 1);
    char path[100];
    snprintf(path, sizeof path, "%s/model.safetensors", b.dir);
    unlink(path);
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_says(e, "can run code when they are read");
    import_report_free(&r);
    bed_close(&b);
}

static void too_large_for_f16(void **state) {
    (void)state;
    bed           b;
    import_report r;
    err           e = {0};
    st_file       s = {0};
    float         big[16 * 32] = {1e6f};
    const int64_t shape[2] = {16, 32};
    llama_folder(&b, ",\"tie_word_embeddings\":true", "F32");
    st_llama(&s, "F32", 16);
    str_free(&s.header);
    str_free(&s.data);
    st_file again = {0};
    st_llama(&again, "F32", 16);
    memcpy(again.data.data, big, sizeof big); /* the embedding is first */
    (void)shape;
    st_save(&again, &b, "model.safetensors");
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true, .type = "f16"}, &r, &e));
    assert_says(e, "token_embd.weight holds 1e+06, which f16 cannot say");
    import_report_free(&r);
    gguf *g = bed_import(&b, (import_options){.no_tokenizer = true, .type = "bf16"}, &r, &e);
    assert_ok(g, e);
    assert_null(gguf_tensor_named(g, "output.weight")); /* tied: the copy in the file is not taken */
    done(&b, g, &r);
}

static void shards_and_index(void **state) {
    (void)state;
    bed           b;
    import_report r;
    err           e = {0};
    st_file       s = {0}, one = {0};
    char          path[100];
    llama_folder(&b, "", "F16");
    snprintf(path, sizeof path, "%s/model.safetensors", b.dir);
    unlink(path);
    st_llama(&s, "F16", 16);
    str names = {0};
    str_adds(&names, "{\"weight_map\":{");
    for (const char *p = s.header.data; (p = strstr(p, "\"model.")) || (p = NULL); p++) {
        const char *end = strchr(p + 1, '"');
        str_addf(&names, "%.*s\":\"b.safetensors\",", (int)(end - p), p);
        p = end;
    }
    str_adds(&names, "\"lm_head.weight\":\"a.safetensors\"}}");
    /* lm_head alone in a.safetensors */
    st_numbers(&one, "lm_head.weight", "F16", 16, 32, 3);
    st_save(&one, &b, "a.safetensors");
    st_file rest = {0};
    str     all = {0};
    (void)all;
    st_llama(&rest, "F16", 16);
    st_save(&rest, &b, "b.safetensors"); /* holds lm_head as well: the index and the files disagree */
    bed_text(&b, "model.safetensors.index.json", names.data);
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_says(e, "tensors, but the files hold");
    import_report_free(&r);
    char *at = strstr(names.data, "a.safetensors");
    at[0] = 'b';
    bed_text(&b, "model.safetensors.index.json", names.data);
    gguf *g = bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e);
    assert_ok(g, e);
    assert_int_equal(gguf_tensor_count(g), 21);
    gguf_close(g);
    import_report_free(&r);
    bed_text(&b, "model.safetensors.index.json", "{\"weight_map\":{\"x\":\"../b.safetensors\"}}");
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_says(e, "no plain file name");
    import_report_free(&r);
    bed_text(&b, "model.safetensors.index.json", "{\"weight_map\":{\"x\":\"c.safetensors\"}}");
    assert_null(bed_import(&b, (import_options){.no_tokenizer = true}, &r, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    import_report_free(&r);
    str_free(&names);
    str_free(&s.header);
    str_free(&s.data);
    bed_close(&b);
}

static void dry_run(void **state) {
    (void)state;
    bed           b;
    import_report r;
    err           e = {0};
    llama_folder(&b, "", "F16");
    import_options o = {.dir = b.dir, .out = b.out, .no_tokenizer = true, .dry_run = true};
    assert_ok(import_folder(&o, &r, &e), e);
    assert_int_equal(r.tensors, 21);
    assert_int_not_equal(access(b.out, F_OK), 0);
    import_report_free(&r);
    bed_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),          cmocka_unit_test(rotation_pairs),     cmocka_unit_test(types),
        cmocka_unit_test(llama3_rope),   cmocka_unit_test(other_ropes),        cmocka_unit_test(config_refusals),
        cmocka_unit_test(other_configs), cmocka_unit_test(context_and_ignore), cmocka_unit_test(weights_refused),
        cmocka_unit_test(dry_run),       cmocka_unit_test(too_large_for_f16),  cmocka_unit_test(shards_and_index)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
