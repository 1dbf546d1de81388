/* Models as a whole: shapes, weights, and the sentences for models that pare does not run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <unistd.h>

#include "base/map.h"
#include "model/model.h"
#include "model/synth.h"
#include "model/tiny_model.h"

static model *open_tiny(const tiny *t, err *e) {
    str file = {0};
    *e = (err){0};
    if (!tiny_build(t, &file, e))
        fail_msg("%s", e->text);
    model *m = model_open("tiny.gguf", file.data, file.len, NULL, e);
    str_free(&file);
    return m;
}

static void good(void **state) {
    (void)state;
    err    e;
    tiny   t = {0};
    model *m = open_tiny(&t, &e);
    if (!m)
        fail_msg("%s", e.text);
    const model_shape *s = &m->shape;
    assert_string_equal(m->name, "tiny");
    assert_string_equal(s->arch->name, "llama");
    assert_true(s->layers == 2 && s->dim == 32 && s->heads == 4 && s->kv_heads == 2 && s->head_dim == 8);
    assert_true(s->ffn == 64 && s->vocab == TINY_VOCAB && s->context == 128 && s->rope_dim == 8 && !s->tied);
    assert_true(s->rope_base == 10000 && s->rope_scale == 1 && fabsf(s->norm_eps - 1e-5f) < 1e-9f);
    assert_non_null(m->tokens);
    assert_non_null(m->layers[1].q_bias);
    assert_null(m->layers[1].k_bias);
    assert_null(m->rope_factors);
    assert_true(m->layers[1].ffn.down.rows == 32 && m->layers[1].ffn.down.cols == 64 &&
                m->layers[1].ffn.down.type == BLOCK_Q8_0);
    assert_true((uintptr_t)m->memory % (2 << 20) == 0 && (uintptr_t)m->layers[0].k.data % 64 == 0);
    /* A chat template that compiles, or the reason why not. */
    assert_true((m->chat != NULL) == (m->chat_error[0] == 0));
    model_close(m);
}

static void stops_when_told(void **state) {
    (void)state;
    err         e = {0};
    str         file = {0};
    tiny        t = {0};
    atomic_bool stop;
    assert_true(tiny_build(&t, &file, &e));
    pool *p = pool_new(2, &e);
    for (int pooled = 0; pooled < 2; pooled++) {
        e = (err){0};
        atomic_init(&stop, true);
        assert_null(model_open_until("tiny", file.data, file.len, pooled ? p : NULL, &stop, &e));
        assert_int_equal(e.code, ERR_CANCELLED);
        assert_non_null(strstr(e.text, "tiny: loading was stopped"));
        atomic_store(&stop, false);
        model *m = model_open_until("tiny", file.data, file.len, pooled ? p : NULL, &stop, &e);
        assert_non_null(m);
        model_close(m);
    }
    pool_free(p);
    str_free(&file);
}

/* Every weight arrives where it belongs: rows read back from the panels are those of the file. */
static void weights_arrive(void **state) {
    (void)state;
    err  e = {0};
    str  file = {0};
    tiny t = {0};
    assert_true(tiny_build(&t, &file, &e));
    gguf  *g = gguf_open_memory("tiny", file.data, file.len, &e);
    pool  *p = pool_new(2, &e);
    model *alone = model_open(NULL, file.data, file.len, NULL, &e);
    model *m = model_open(NULL, file.data, file.len, p, &e);
    assert_true(g && p && m && alone);
    assert_int_equal(m->memory_bytes, alone->memory_bytes);
    assert_memory_equal(m->memory, alone->memory, m->memory_bytes);
    const struct {
        const char   *name;
        const matrix *matrix;
    } pairs[] = {{"token_embd.weight", &m->embedding},
                 {"output.weight", &m->output},
                 {"blk.0.attn_q.weight", &m->layers[0].q},
                 {"blk.1.attn_k.weight", &m->layers[1].k},
                 {"blk.1.attn_v.weight", &m->layers[1].v},
                 {"blk.1.attn_output.weight", &m->layers[1].o},
                 {"blk.1.ffn_gate.weight", &m->layers[1].ffn.gate},
                 {"blk.1.ffn_up.weight", &m->layers[1].ffn.up},
                 {"blk.0.ffn_down.weight", &m->layers[0].ffn.down}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const gguf_tensor *tensor = gguf_tensor_named(g, pairs[i].name);
        const matrix      *w = pairs[i].matrix;
        assert_true(w->rows == tensor->shape[1] && w->cols == tensor->shape[0]);
        for (int r = 0; r < w->rows; r++) {
            float    expected[64], row[64];
            size_t   bytes = tensor->bytes / (size_t)w->rows;
            uint8_t *copy = malloc(bytes);
            memcpy(copy, (const uint8_t *)tensor->data + (size_t)r * bytes, bytes);
            block_to_f32(tensor->format->type, copy, expected, w->cols);
            free(copy);
            matrix_row(w, r, row);
            assert_memory_equal(row, expected, (size_t)w->cols * sizeof *row);
        }
    }
    const gguf_tensor *norm = gguf_tensor_named(g, "blk.1.ffn_norm.weight");
    assert_memory_equal(m->layers[1].ffn_norm.weight, norm->data, norm->bytes);
    model_close(m);
    model_close(alone);
    pool_free(p);
    gguf_close(g);
    str_free(&file);
}

static void tied(void **state) {
    (void)state;
    err    e;
    tiny   t = {.tied = true, .no_tokenizer = true, .without = "general.name"};
    model *m = open_tiny(&t, &e);
    assert_non_null(m);
    assert_true(m->shape.tied && m->output.data == m->embedding.data && m->output.rows == TINY_VOCAB);
    assert_null(m->tokens);
    assert_null(m->chat);
    assert_string_equal(m->name, "tiny"); /* of tiny.gguf */
    model_close(m);
}

/* ---- refusals ---- */

static void refused(tiny t, const char *part) {
    err    e;
    model *m = open_tiny(&t, &e);
    if (m)
        fail_msg("was opened; expected: %s", part);
    if (!strstr(e.text, part) || !strstr(e.text, "tiny.gguf"))
        fail_msg("\"%s\" does not say \"%s\"", e.text, part);
}

static void missing(void **state) {
    (void)state;
    refused((tiny){.without = "llama.block_count"}, "the key llama.block_count is missing");
    refused((tiny){.without = "llama.attention.layer_norm_rms_epsilon"}, "layer_norm_rms_epsilon is missing");
    refused((tiny){.without = "token_embd.weight"}, "tensor token_embd.weight is missing");
    refused((tiny){.without = "blk.1.ffn_up.weight"}, "tensor blk.1.ffn_up.weight is missing");
    refused((tiny){.without = "output_norm.weight"}, "tensor output_norm.weight is missing");
    refused((tiny){.architecture = "mamba"}, "the architecture \"mamba\" is not one that pare runs");
    refused((tiny){.architecture = "a\nb\33"}, "the architecture \"a?b?\" is not one that pare runs");
    refused((tiny){.reshape = {32, 65}}, "tensor blk.1.ffn_up.weight has the shape [32, 65], must have [32, 64]");
    refused((tiny){.reshape = {64, 32}}, "tensor blk.1.ffn_up.weight has the shape [64, 32], must have [32, 64]");
}

/* What `extra` does is chosen by the test: gguf_writer callbacks take no argument. */
static struct {
    const char *key, *text;
    gguf_kind   kind;
    double      value;
} extra;

static void extra_key(gguf_writer *w) {
    if (extra.text)
        gguf_write_text(w, extra.key, extra.text);
    else if (extra.kind == GGUF_F32)
        gguf_write_float(w, extra.key, GGUF_F32, extra.value);
    else if (extra.kind == GGUF_BOOL)
        gguf_write_bool(w, extra.key, extra.value != 0);
    else
        gguf_write_int(w, extra.key, extra.kind, (int64_t)extra.value);
    gguf_write_tensor(w, "blk.0.attn_output.bias", block_format_of(BLOCK_F32), 1, (int64_t[]){32});
}

/* Sets llama.KEY (instead of the file's own, when it has one) and wants the sentence, or success when part is NULL. */
static void with_key(const char *key, gguf_kind kind, double value, const char *part) {
    extra.key = key;
    extra.text = NULL;
    extra.kind = kind;
    extra.value = value;
    tiny t = {.without = key, .more = extra_key, .no_tokenizer = true};
    if (part) {
        refused(t, part);
        return;
    }
    err    e;
    model *m = open_tiny(&t, &e);
    if (!m)
        fail_msg("%s", e.text);
    assert_non_null(m->layers[0].o_bias);
    model_close(m);
}

static void with_text(const char *key, const char *text, const char *part) {
    extra.key = key;
    extra.text = text;
    refused((tiny){.without = key, .more = extra_key, .no_tokenizer = true}, part);
}

static void settings(void **state) {
    (void)state;
    with_key("llama.block_count", GGUF_U32, 0, "llama.block_count is 0, must be 1 to 1024");
    with_key("llama.block_count", GGUF_U32, 4294967295.0, "must be 1 to 1024");
    with_key("llama.block_count", GGUF_U32, 3, "tensor blk.2.attn_norm.weight is missing");
    with_key("llama.block_count", GGUF_U32, 1, "tensor blk.1.");
    with_key("llama.block_count", GGUF_U32, 1024, "a tensor of layer 1023 is missing");
    with_key("llama.block_count", GGUF_I16, 2, NULL);
    with_key("llama.embedding_length", GGUF_U32, 64, "has the shape [32, 272], must have [64, 272]");
    with_key("llama.embedding_length", GGUF_I32, -32, "llama.embedding_length is -32");
    with_key("llama.embedding_length", GGUF_U64, 1e18, "llama.embedding_length is 1000000000000000000");
    with_key("llama.embedding_length", GGUF_U32, 34, "not a multiple of attention.head_count");
    with_key("llama.attention.head_count", GGUF_U32, 32, "heads of an odd length");
    with_key("llama.attention.head_count_kv", GGUF_U32, 3, "does not divide attention.head_count");
    with_key("llama.attention.head_count_kv", GGUF_U32, 8, "does not divide attention.head_count");
    with_key("llama.attention.key_length", GGUF_U32, 8, NULL);
    with_key("llama.attention.key_length", GGUF_U32, 262144, "larger than pare takes");
    with_key("llama.attention.value_length", GGUF_U32, 8, "is given without attention.key_length");
    with_key("llama.attention.layer_norm_rms_epsilon", GGUF_F32, NAN, "layer_norm_rms_epsilon is");
    with_key("llama.attention.layer_norm_rms_epsilon", GGUF_U32, 1, "must be a float");
    with_key("llama.rope.dimension_count", GGUF_U32, 7, "llama.rope.dimension_count is odd");
    with_key("llama.rope.dimension_count", GGUF_U32, 10, "llama.rope.dimension_count is 10, must be 1 to 8");
    with_key("llama.rope.freq_base", GGUF_F32, 500000, NULL);
    with_key("llama.rope.freq_base", GGUF_F32, -1, "llama.rope.freq_base is -1");
    with_key("llama.rope.freq_base", GGUF_F32, INFINITY, "llama.rope.freq_base is inf");
    with_key("llama.expert_count", GGUF_U32, 8, "the key llama.expert_used_count is missing");
    with_key("llama.expert_count", GGUF_U32, 0, NULL);
    with_key("llama.expert_group_count", GGUF_U32, 4, "llama.expert_group_count asks for groups of experts");
    with_key("llama.attention.sliding_window", GGUF_U32, 4096, "asks for attention windows");
    with_key("llama.attention.causal", GGUF_BOOL, 0, "asks for attention that also looks ahead");
    with_key("llama.attention.causal", GGUF_BOOL, 1, NULL);
    with_key("llama.logit_scale", GGUF_F32, 2, "llama.logit_scale asks for scaled logits");
    with_key("llama.wishful_thinking", GGUF_F32, 2, "llama.wishful_thinking is a setting that pare does not know");
    with_key("general.anything", GGUF_F32, 2, NULL);
    with_text("llama.rope.scaling.type", "other", "llama.rope.scaling.type is \"other\", which pare does not do");
    with_text("llama.rope.scaling.type", "yarn", "the key llama.rope.scaling.factor is missing");
    with_text("llama.rope.scaling.type", "linear", "the key llama.rope.scaling.factor is missing");
}

static void unknown_tensor(gguf_writer *w) {
    gguf_write_tensor(w, "blk.0.attn_q_norm.weight", block_format_of(BLOCK_F32), 1, (int64_t[]){32});
}

static void wrong_bias(gguf_writer *w) {
    gguf_write_tensor(w, "blk.0.attn_output.bias", block_format_of(BLOCK_F32), 1, (int64_t[]){24});
}

static void zero_factors(gguf_writer *w) {
    gguf_write_tensor(w, "rope_freqs.weight", block_format_of(BLOCK_F32), 1, (int64_t[]){4});
}

static void odd_tensors(void **state) {
    (void)state;
    refused((tiny){.more = unknown_tensor}, "tensor blk.0.attn_q_norm.weight is none that this architecture has");
    refused((tiny){.more = wrong_bias, .more_bytes = {96}},
            "blk.0.attn_output.bias has the shape [24], must have [32]");
    refused((tiny){.more = zero_factors, .more_bytes = {16}}, "rope_freqs.weight holds 0; its values divide");
}

static void small_vocabulary(gguf_writer *w) {
    gguf_str texts[TINY_VOCAB + 1];
    for (int i = 0; i <= TINY_VOCAB; i++)
        texts[i] = (gguf_str){"x", 1};
    gguf_write_text(w, "tokenizer.ggml.model", "no_vocab");
    gguf_write_strings(w, "tokenizer.ggml.tokens", texts, TINY_VOCAB + 1);
    gguf_write_text(w, "tokenizer.chat_template", "{% nonsense %}");
    gguf_write_tensor(w, "blk.0.attn_output.bias", block_format_of(BLOCK_F32), 1, (int64_t[]){32});
}

/* A template that does not compile leaves a model that does not chat, and says why. */
static void bad_template(void **state) {
    (void)state;
    err    e;
    tiny   t = {.no_tokenizer = true, .more = small_vocabulary};
    model *m = open_tiny(&t, &e);
    assert_non_null(m);
    assert_null(m->chat);
    assert_null(m->tokens);
    assert_true(strlen(m->chat_error) > 3);
    model_close(m);
}

/* ---- models of others ---- */

static void conformance_model(const char *name, int dim, int heads, float base, bool is_tied, bool factors) {
    char path[120];
    err  e = {0};
    snprintf(path, sizeof path, "../shared/conformance/logits/%s/model.gguf", name);
    if (access(path, R_OK) != 0) {
        print_message("%s is absent: skipped\n", path);
        return;
    }
    model *m = model_open(path, NULL, 0, NULL, &e);
    if (!m)
        fail_msg("%s", e.text);
    const model_shape *s = &m->shape;
    assert_true(s->dim == dim && s->heads == heads && s->kv_heads == 2 && s->layers == 2 && s->vocab == 512);
    assert_true(s->context == 4096 && s->head_dim == 32 && s->rope_dim == 32 && s->rope_base == base);
    assert_true(s->tied == is_tied && (m->rope_factors != NULL) == factors);
    assert_null(m->tokens); /* "no_vocab" */
    float row[256];
    matrix_row(&m->embedding, 511, row);
    assert_true(isfinite(row[0]) && row[0] != row[1]);
    model_close(m);
}

static void conformance(void **state) {
    (void)state;
    conformance_model("llama", 256, 8, 10000, false, false);
    conformance_model("llama-tied", 128, 4, 10000, true, false);
    conformance_model("llama-ropefreqs", 192, 6, 500000, false, true);
    err e = {0};
    if (access("../shared/conformance/tokenizers/ggml-vocab-llama-spm.gguf", R_OK) == 0) {
        assert_null(model_open("../shared/conformance/tokenizers/ggml-vocab-llama-spm.gguf", NULL, 0, NULL, &e));
        assert_non_null(strstr(e.text, "a file with a vocabulary only?"));
    }
}

/* Engines look tokens up by text: no two are the same. */
static void distinct_tokens(const char *path) {
    static gguf_str texts[512];
    err             e = {0};
    gguf           *g = gguf_open(path, &e);
    map            *seen = map_new(512);
    assert_true(g && seen && gguf_array_strings(g, "tokenizer.ggml.tokens", texts, 512, &e));
    for (int i = 0; i < 512; i++) {
        assert_true(texts[i].len > 0);
        map_put(seen, texts[i].data, texts[i].len, i);
    }
    assert_int_equal(map_count(seen), 512);
    map_free(seen);
    gguf_close(g);
}

/* The embedding as float32 is larger than what one thread packs at a time: the pieces lie where they belong. */
static void embedding_arrives(const char *path, const model *m) {
    err                e = {0};
    gguf              *g = gguf_open(path, &e);
    const gguf_tensor *t = gguf_tensor_named(g, "token_embd.weight");
    assert_true(t->bytes == 512 * 64 * sizeof(float));
    for (int r = 0; r < 512; r++) {
        float row[64];
        matrix_row(&m->embedding, r, row);
        assert_memory_equal(row, (const float *)t->data + r * 64, sizeof row);
    }
    gguf_close(g);
}

static void synthetic(void **state) {
    (void)state;
    const char *types[] = {"f32", "f16", "bf16", "q8_0", "q4_0"};
    char        path[64];
    err         e = {0};
    snprintf(path, sizeof path, "/tmp/pare-test-synth-%ld.gguf", (long)getpid());
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!synth_write("llama-tiny", types[i], 1, path, NULL, NULL, &e))
            fail_msg("%s", e.text);
        model *m = model_open(path, NULL, 0, NULL, &e);
        if (!m)
            fail_msg("%s", e.text);
        assert_true(m->shape.dim == 64 && m->shape.layers == 2 && m->shape.vocab == 512);
        assert_int_equal(tokenizer_vocab(m->tokens), 512);
        distinct_tokens(path);
        if (i == 0)
            embedding_arrives(path, m);
        double sum = 0, squares = 0;
        int    n = 0;
        for (int r = 0; r < m->layers[0].ffn.down.rows; r++) {
            float row[192];
            matrix_row(&m->layers[0].ffn.down, r, row);
            for (int c = 0; c < 192; c++, n++) {
                sum += (double)row[c];
                squares += (double)row[c] * (double)row[c];
            }
        }
        /* A deviation near 1 / sqrt(192) = 0.072, a mean within a few standard errors of zero. */
        assert_true(fabs(sum / n) < 0.003);
        assert_true(fabs(sqrt(squares / n) - 0.072) < 0.01);
        model_close(m);
    }
    unlink(path);
    assert_false(synth_write("llama-9000", "f32", 1, path, NULL, NULL, &e));
    assert_non_null(strstr(e.text, "there is no shape \"llama-9000\"; there are llama-tiny, "));
    assert_null(synth_shape_name(99));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),        cmocka_unit_test(stops_when_told), cmocka_unit_test(weights_arrive),
        cmocka_unit_test(tied),        cmocka_unit_test(missing),         cmocka_unit_test(settings),
        cmocka_unit_test(odd_tensors), cmocka_unit_test(bad_template),    cmocka_unit_test(conformance),
        cmocka_unit_test(synthetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
