/* reference_archs.h - a small model of every architecture, with what its authors' code does (HF:
 * huggingface/transformers) and what the converter writes for it (llama.cpp's convert_hf_to_gguf.py and gguf-py).
 *
 * Windows are short and patterns of layers are passed at least once, so that each trait shows within 60 tokens. */
#ifndef TESTS_ENGINE_REFERENCE_ARCHS_H
#define TESTS_ENGINE_REFERENCE_ARCHS_H

#include "engine/random_model.h"

typedef struct reference_case {
    spec s;
    void (*more)(const random_model *); /* keys that only this one has */
} reference_case;

/* ---- keys ---- */

/* The converter writes config.logits_scaling, by which HF granite divides. */
static inline void keys_granite(const random_model *m) {
    random_float(m, "embedding_scale", m->s->embedding_scale);
    random_float(m, "residual_scale", m->s->residual_scale);
    random_float(m, "attention.scale", m->s->query_scale);
    random_float(m, "logit_scale", 1 / m->s->logit_scale);
}

/* Granite 4 without its Mamba layers is stored as granite, with the settings of layers that it does not have. */
static inline void keys_granite4(const random_model *m) {
    int32_t kv[8] = {0};
    keys_granite(m);
    for (int i = 0; i < m->s->layers; i++)
        kv[i] = m->s->kv_heads;
    gguf_write_array(m->w, random_key(m, "attention.head_count_kv"), GGUF_I32, kv, (size_t)m->s->layers);
    random_int(m, "expert_count", 0);
    random_int(m, "expert_used_count", 0);
    random_int(m, "expert_shared_feed_forward_length", m->s->ffn);
    random_int(m, "ssm.conv_kernel", 4);
    random_int(m, "ssm.state_size", 128);
    random_int(m, "ssm.group_count", 1);
    random_int(m, "ssm.inner_size", 192);
    random_int(m, "ssm.time_step_rank", 48);
    gguf_write_bool(m->w, random_key(m, "rope.scaling.finetuned"), true);
}

static inline void keys_command_r(const random_model *m) {
    random_float(m, "logit_scale", m->s->logit_scale); /* HF cohere multiplies */
    gguf_write_text(m->w, random_key(m, "rope.scaling.type"), "none");
}

/* The converter writes true where config.json says nothing (StableLM 3B, 2 1.6B): what counts is whether the file has
 * norms before the feed-forward parts (HF stablelm has none in a parallel layer). */
static inline void keys_stablelm(const random_model *m) {
    gguf_write_bool(m->w, random_key(m, "use_parallel_residual"), true);
}

static inline void keys_gptneox(const random_model *m) {
    gguf_write_bool(m->w, random_key(m, "use_parallel_residual"), m->s->parallel);
}

static inline void keys_olmo3(const random_model *m) {
    bool pattern[8];
    for (int i = 0; i < m->s->layers; i++)
        pattern[i] = i % 4 != 3;
    gguf_write_array(m->w, random_key(m, "attention.sliding_window_pattern"), GGUF_BOOL, pattern, (size_t)m->s->layers);
    gguf_write_float(m->w, random_key(m, "rope.scaling.yarn_attn_factor"), GGUF_F32, 1 + 0.1 * log(m->s->factor));
}

static inline void keys_pooling(const random_model *m) {
    random_int(m, "pooling_type", 1);
    random_int(m, "vocab_size", SPEC_VOCAB);
}

/* ---- the models ---- */

#define SIZES      .layers = 3, .dim = 96, .heads = 6, .kv_heads = 2, .head_dim = 16, .ffn = 100, .context = 128
#define LONG_HEADS .layers = 3, .dim = 96, .heads = 4, .kv_heads = 2, .head_dim = 20, .ffn = 75, .context = 128
#define BIG_HEADS  .layers = 3, .dim = 96, .heads = 3, .kv_heads = 1, .head_dim = 64, .ffn = 77, .context = 128
#define NEIGHBOURS .rotate = ROTATE_NEIGHBOURS, .rope_base = 10000
#define HALVES     .rotate = ROTATE_HALVES, .rope_base = 10000
#define LAYER_NORM .layer_norm = true, .norm_bias = true
#define ALL_BIASES .qkv_bias = true, .o_bias = true, .ffn_bias = true
#define EXPERTS    .experts = 5, .used = 2, .expert_ffn = 52
#define GEMMA2                                                                                                         \
    .arch = "gemma2", HALVES, .act = USE_GELU_TANH, .tied = true, .norms = NORMS_AROUND, .window = 8,                  \
    .window_every = 2, .attn_cap = 2, .logit_cap = 3
#define GEMMA3                                                                                                         \
    .arch = "gemma3", .rotate = ROTATE_HALVES, .rope_base = 1000000, .act = USE_GELU_TANH, .tied = true,               \
    .norms = NORMS_AROUND, .qk = HEADS_EACH, .window = 9, .window_every = 6, .local_base = 10000, .local_plain = true
#define PHI3     .arch = "phi3", HALVES, .fused_qkv = true, .fused_gate = true
#define STABLELM .arch = "stablelm", SIZES, HALVES, LAYER_NORM, .rope_dim = 4
#define PHI2                                                                                                           \
    .arch = "phi2", HALVES, LAYER_NORM, ALL_BIASES, .rope_dim = 6, .act = USE_GELU_TANH, .plain_ffn = true,            \
    .parallel = true, .one_norm = true, .output_bias = true, .layers = 3, .dim = 96, .heads = 6, .kv_heads = 6,        \
    .head_dim = 16, .ffn = 4 * 96, .context = 128
#define GPTNEOX                                                                                                        \
    .arch = "gptneox", HALVES, LAYER_NORM, ALL_BIASES, .rope_dim = 4, .act = USE_GELU_ERF, .plain_ffn = true,          \
    .fused_qkv = true, .layers = 3, .dim = 96, .heads = 6, .kv_heads = 6, .head_dim = 16, .ffn = 150, .context = 128
#define GRANITE    NEIGHBOURS, .embedding_scale = 12, .residual_scale = 0.22, .query_scale = 0.11, .logit_scale = 1 / 8.0
#define BERT_SIZES .layers = 3, .dim = 96, .heads = 6, .kv_heads = 6, .head_dim = 16, .ffn = 140, .context = 128

static const reference_case reference_cases[] = {
    /* HF llama, mistral */
    {{.name = "llama", .arch = "llama", LONG_HEADS, NEIGHBOURS}, NULL},
    {{.name = "llama-bias", .arch = "llama", SIZES, NEIGHBOURS, ALL_BIASES, .tied = true}, NULL},
    {{.name = "llama-fused", .arch = "llama", SIZES, NEIGHBOURS, .fused_qkv = true}, NULL},
    {{.name = "llama-linear", .arch = "llama", SIZES, NEIGHBOURS, .scaling = STRETCH_LINEAR, .factor = 4}, NULL},
    {{.name = "llama-yarn",
      .arch = "llama",
      BIG_HEADS,
      .rotate = ROTATE_NEIGHBOURS,
      .rope_base = 500,
      .scaling = STRETCH_YARN,
      .factor = 4,
      .original = 32,
      .beta_fast = 4,
      .beta_slow = 0.5},
     NULL},
    {{.name = "llama-3.1", .arch = "llama", BIG_HEADS, NEIGHBOURS, .rope_freqs = true}, NULL},
    {{.name = "mixtral",
      .arch = "llama",
      SIZES,
      NEIGHBOURS,
      .experts = 5,
      .used = 2,
      .expert_ffn = 100,
      .renorm = true},
     NULL},
    /* HF qwen2, qwen3, qwen2_moe, qwen3_moe */
    {{.name = "qwen2", .arch = "qwen2", SIZES, HALVES, .qkv_bias = true, .tied = true}, NULL},
    {{.name = "qwen2-yarn",
      .arch = "qwen2",
      BIG_HEADS,
      .rotate = ROTATE_HALVES,
      .rope_base = 100000,
      .qkv_bias = true,
      .scaling = STRETCH_YARN,
      .factor = 4,
      .original = 64,
      .beta_fast = 32,
      .beta_slow = 1},
     NULL},
    {{.name = "qwen3", .arch = "qwen3", BIG_HEADS, HALVES, .qk = HEADS_EACH}, NULL},
    {{.name = "qwen2moe",
      .arch = "qwen2moe",
      SIZES,
      HALVES,
      EXPERTS,
      .qkv_bias = true,
      .shared_ffn = 70,
      .shared_gate = true},
     NULL},
    {{.name = "qwen3moe", .arch = "qwen3moe", LONG_HEADS, HALVES, EXPERTS, .qk = HEADS_EACH, .renorm = true}, NULL},
    {{.name = "qwen3moe-fused",
      .arch = "qwen3moe",
      LONG_HEADS,
      HALVES,
      EXPERTS,
      .qk = HEADS_EACH,
      .renorm = true,
      .fused_experts = true},
     NULL},
    /* HF gemma, gemma2, gemma3: embeddings times sqrt(hidden_size); query_pre_attn_scalar is the length of a head but
     * for Gemma 2 27B (46 layers) and Gemma 3 27B (62), where it is hidden_size / heads */
    {{.name = "gemma",
      .arch = "gemma",
      LONG_HEADS,
      HALVES,
      .act = USE_GELU_TANH,
      .tied = true,
      .embedding_scale = 9.797958971132712},
     NULL},
    {{.name = "gemma2", GEMMA2, LONG_HEADS, .embedding_scale = 9.797958971132712}, NULL},
    {{.name = "gemma2-27b",
      GEMMA2,
      .layers = 46,
      .dim = 48,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 20,
      .ffn = 40,
      .context = 128,
      .embedding_scale = 6.928203230275509,
      .query_scale = 0.3535533905932738},
     NULL},
    {{.name = "gemma3",
      GEMMA3,
      .layers = 7,
      .dim = 96,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 20,
      .ffn = 75,
      .context = 128,
      .scaling = STRETCH_LINEAR,
      .factor = 8,
      .embedding_scale = 9.797958971132712},
     NULL},
    {{.name = "gemma3-27b",
      GEMMA3,
      .layers = 62,
      .dim = 48,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 20,
      .ffn = 40,
      .context = 128,
      .scaling = STRETCH_LINEAR,
      .factor = 8,
      .embedding_scale = 6.928203230275509,
      .query_scale = 0.3535533905932738},
     NULL},
    /* HF phi3: the window is on every layer; LongRoPE's factors go by the length in use */
    {{.name = "phi3", PHI3, SIZES, .window = 11, .window_every = 1}, NULL},
    {{.name = "phi3-long",
      PHI3,
      LONG_HEADS,
      .rope_dim = 12,
      .long_rope = true,
      .original = 32,
      .used_context = 128,
      .rope_attn = 1.19},
     NULL},
    {{.name = "phi3-short",
      PHI3,
      LONG_HEADS,
      .rope_dim = 12,
      .long_rope = true,
      .original = 64,
      .used_context = 64,
      .rope_attn = 1.19},
     NULL},
    /* HF gpt2, gpt_bigcode, starcoder2 */
    {{.name = "gpt2",
      .arch = "gpt2",
      LAYER_NORM,
      ALL_BIASES,
      .layers = 3,
      .dim = 96,
      .heads = 6,
      .kv_heads = 6,
      .head_dim = 16,
      .ffn = 130,
      .context = 128,
      .fused_qkv = true,
      .plain_ffn = true,
      .act = USE_GELU_TANH,
      .positions = true,
      .tied = true},
     NULL},
    {{.name = "starcoder",
      .arch = "starcoder",
      LAYER_NORM,
      ALL_BIASES,
      .layers = 3,
      .dim = 96,
      .heads = 6,
      .kv_heads = 1,
      .head_dim = 16,
      .ffn = 130,
      .context = 128,
      .fused_qkv = true,
      .plain_ffn = true,
      .act = USE_GELU_TANH,
      .positions = true},
     NULL},
    {{.name = "starcoder2",
      .arch = "starcoder2",
      SIZES,
      HALVES,
      LAYER_NORM,
      ALL_BIASES,
      .plain_ffn = true,
      .act = USE_GELU_TANH,
      .window = 13,
      .window_every = 1},
     NULL},
    /* HF olmo, olmo2, olmo3, olmoe */
    {{.name = "olmo", .arch = "olmo", SIZES, NEIGHBOURS, .layer_norm = true, .norm_bare = true, .clamp = 1.5}, NULL},
    {{.name = "olmo2", .arch = "olmo2", SIZES, HALVES, .norms = NORMS_AFTER, .qk = HEADS_TOGETHER}, NULL},
    {{.name = "olmo3",
      .arch = "olmo2",
      .layers = 5,
      .dim = 96,
      .heads = 4,
      .kv_heads = 4,
      .head_dim = 24,
      .ffn = 100,
      .context = 128,
      .rotate = ROTATE_HALVES,
      .rope_base = 500,
      .norms = NORMS_AFTER,
      .qk = HEADS_TOGETHER,
      .window = 10,
      .window_every = 4,
      .scaling = STRETCH_YARN,
      .factor = 8,
      .original = 32,
      .beta_fast = 32,
      .beta_slow = 1,
      .local_plain = true},
     keys_olmo3},
    {{.name = "olmoe",
      .arch = "olmoe",
      SIZES,
      HALVES,
      .experts = 5,
      .used = 2,
      .expert_ffn = 100,
      .qk = HEADS_TOGETHER},
     NULL},
    /* HF smollm3: no_rope_layer_interval 4 */
    {{.name = "smollm3",
      .arch = "smollm3",
      .layers = 5,
      .dim = 96,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 16,
      .ffn = 100,
      .context = 128,
      NEIGHBOURS,
      .no_rope_every = 4,
      .tied = true},
     NULL},
    /* HF granite, granitemoe, granitemoeshared, granitemoehybrid with attention alone */
    {{.name = "granite", .arch = "granite", SIZES, GRANITE, .tied = true}, keys_granite},
    {{.name = "granite-4",
      .arch = "granite",
      .layers = 3,
      .dim = 96,
      .heads = 6,
      .kv_heads = 6,
      .head_dim = 16,
      .ffn = 100,
      .context = 128,
      GRANITE},
     keys_granite4},
    {{.name = "granitemoe",
      .arch = "granitemoe",
      SIZES,
      GRANITE,
      .experts = 5,
      .used = 2,
      .expert_ffn = 100,
      .shared_ffn = 60,
      .renorm = true},
     keys_granite},
    {{.name = "internlm2", .arch = "internlm2", SIZES, NEIGHBOURS}, NULL},
    /* remote code of LGAI-EXAONE/EXAONE-3.5: as llama, rotate_half and rows not permuted */
    {{.name = "exaone", .arch = "exaone", SIZES, HALVES, .rope_freqs = true}, NULL},
    /* remote code of Qwen/Qwen-7B: w1(x) * silu(w2(x)), w2 being the file's gate; intermediate_size counts both */
    {{.name = "qwen",
      .arch = "qwen",
      .layers = 3,
      .dim = 96,
      .heads = 6,
      .kv_heads = 6,
      .head_dim = 16,
      .ffn = 90,
      .context = 128,
      HALVES,
      .fused_qkv = true,
      .qkv_bias = true,
      .half_ffn = true},
     NULL},
    /* HF stablelm */
    {{.name = "stablelm", STABLELM, .qkv_bias = true}, keys_stablelm},
    {{.name = "stablelm-12b", STABLELM, .parallel = true, .one_norm = true}, keys_stablelm},
    /* HF phi: files of 2023 have one tensor for q, k and v, later ones three */
    {{.name = "phi2", PHI2, .fused_qkv = true}, NULL},
    {{.name = "phi2-separate", PHI2}, NULL},
    /* HF gpt_neox */
    {{.name = "gptneox", GPTNEOX, .parallel = true}, keys_gptneox},
    {{.name = "gptneox-sequential", GPTNEOX}, keys_gptneox},
    /* HF cohere: norms without biases, interleaved rope */
    {{.name = "command-r",
      .arch = "command-r",
      SIZES,
      NEIGHBOURS,
      .layer_norm = true,
      .parallel = true,
      .one_norm = true,
      .tied = true,
      .logit_scale = 0.0625},
     keys_command_r},
    /* HF nemotron: 1 + weight is in the file */
    {{.name = "nemotron",
      .arch = "nemotron",
      SIZES,
      HALVES,
      LAYER_NORM,
      .rope_dim = 8,
      .plain_ffn = true,
      .act = USE_RELU_SQUARED},
     NULL},
    /* HF bert; remote code of nomic-ai/nomic-bert-2048: fc11(x) * silu(fc12(x)), fc12 being the file's gate */
    {{.name = "bert",
      .arch = "bert",
      BERT_SIZES,
      LAYER_NORM,
      ALL_BIASES,
      .norms = NORMS_ON_SUM,
      .plain_ffn = true,
      .act = USE_GELU_ERF,
      .positions = true,
      .token_types = true,
      .both_ways = true},
     keys_pooling},
    {{.name = "bert-fused",
      .arch = "bert",
      BERT_SIZES,
      LAYER_NORM,
      ALL_BIASES,
      .norms = NORMS_ON_SUM,
      .fused_qkv = true,
      .plain_ffn = true,
      .act = USE_GELU_ERF,
      .positions = true,
      .both_ways = true},
     keys_pooling},
    {{.name = "nomic-bert",
      .arch = "nomic-bert",
      BERT_SIZES,
      .rotate = ROTATE_HALVES,
      .rope_base = 1000,
      LAYER_NORM,
      .norms = NORMS_ON_SUM,
      .fused_qkv = true,
      .token_types = true,
      .both_ways = true},
     keys_pooling},
};

#define REFERENCE_CASES (sizeof reference_cases / sizeof *reference_cases)

#endif
