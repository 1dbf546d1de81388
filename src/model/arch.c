/* arch.c - the table of architectures. */
#include "model/arch.h"

#include <string.h>

static const arch archs[] = {
    {.name = "llama",
     .rope = ROPE_PAIRS,
     .traits = TRAIT_EXPERTS | TRAIT_RENORM}, /* mistral, mixtral, smollm, .. too */
    {.name = "qwen2", .rope = ROPE_HALVES, .traits = TRAIT_QKV_BIAS},
    {.name = "qwen3", .rope = ROPE_HALVES, .qk = QK_NORM_HEAD},
    {.name = "qwen2moe", .rope = ROPE_HALVES, .traits = TRAIT_QKV_BIAS | TRAIT_EXPERTS | TRAIT_SHARED_GATE},
    {.name = "qwen3moe", .rope = ROPE_HALVES, .qk = QK_NORM_HEAD, .traits = TRAIT_EXPERTS | TRAIT_RENORM},
    {.name = "gemma", .rope = ROPE_HALVES, .act = ACT_GELU_TANH, .traits = TRAIT_SCALE_EMBEDDING},
    {.name = "gemma2",
     .rope = ROPE_HALVES,
     .place = NORM_AROUND,
     .act = ACT_GELU_TANH,
     .traits = TRAIT_SCALE_EMBEDDING | TRAIT_WINDOW | TRAIT_CAPS,
     .window_every = 2,
     .window = 4096,
     .caps = {50, 30},
     .deep = 46},
    {.name = "gemma3",
     .rope = ROPE_HALVES,
     .place = NORM_AROUND,
     .qk = QK_NORM_HEAD,
     .act = ACT_GELU_TANH,
     .traits = TRAIT_SCALE_EMBEDDING | TRAIT_WINDOW | TRAIT_CAPS | TRAIT_LOCAL_PLAIN,
     .window_every = 6,
     .local_rope_base = 10000,
     .deep = 62},
    {.name = "phi3",
     .rope = ROPE_HALVES,
     .traits = TRAIT_FUSED_QKV | TRAIT_FUSED_GATE | TRAIT_WINDOW | TRAIT_LONG_ROPE,
     .window_every = 1},
    {.name = "gpt2",
     .norm = NORM_LAYER,
     .act = ACT_GELU_TANH,
     .traits = TRAIT_PLAIN_FFN | TRAIT_FUSED_QKV | TRAIT_POSITIONS},
    {.name = "starcoder",
     .norm = NORM_LAYER,
     .act = ACT_GELU_TANH,
     .traits = TRAIT_PLAIN_FFN | TRAIT_FUSED_QKV | TRAIT_POSITIONS},
    {.name = "starcoder2",
     .rope = ROPE_HALVES,
     .norm = NORM_LAYER,
     .act = ACT_GELU_TANH,
     .traits = TRAIT_PLAIN_FFN | TRAIT_WINDOW,
     .window_every = 1,
     .window = 4096}, /* the converter leaves it out; all sizes have it (arXiv:2402.19173) */
    {.name = "olmo", .rope = ROPE_PAIRS, .norm = NORM_LAYER, .traits = TRAIT_NO_NORM_WEIGHT | TRAIT_CLAMP},
    {.name = "olmo2", /* and OLMo 3, which has windows */
     .rope = ROPE_HALVES,
     .place = NORM_AFTER,
     .qk = QK_NORM_WHOLE,
     .traits = TRAIT_WINDOW | TRAIT_LOCAL_PLAIN,
     .window_every = 4},
    {.name = "olmoe", .rope = ROPE_HALVES, .qk = QK_NORM_WHOLE, .traits = TRAIT_EXPERTS},
    {.name = "smollm3", .rope = ROPE_PAIRS, .no_rope_every = 4},
    {.name = "granite", .rope = ROPE_PAIRS, .traits = TRAIT_SCALES},
    {.name = "granitemoe", .rope = ROPE_PAIRS, .traits = TRAIT_SCALES | TRAIT_EXPERTS | TRAIT_RENORM},
    {.name = "internlm2", .rope = ROPE_PAIRS},
    {.name = "exaone", .rope = ROPE_HALVES},
    {.name = "qwen", .rope = ROPE_HALVES, .traits = TRAIT_FUSED_QKV | TRAIT_HALF_FFN},
    {.name = "stablelm", .rope = ROPE_HALVES, .norm = NORM_LAYER, .traits = TRAIT_PARALLEL_BARE},
    {.name = "phi2",
     .rope = ROPE_HALVES,
     .norm = NORM_LAYER,
     .act = ACT_GELU_TANH,
     .traits = TRAIT_PLAIN_FFN | TRAIT_FUSED_QKV | TRAIT_PARALLEL},
    {.name = "gptneox",
     .rope = ROPE_HALVES,
     .norm = NORM_LAYER,
     .act = ACT_GELU_ERF,
     .traits = TRAIT_PLAIN_FFN | TRAIT_FUSED_QKV | TRAIT_PARALLEL_KEY},
    {.name = "command-r",
     .rope = ROPE_PAIRS,
     .norm = NORM_LAYER,
     .traits = TRAIT_PARALLEL | TRAIT_SCALES | TRAIT_LOGIT_TIMES},
    {.name = "nemotron", .rope = ROPE_HALVES, .norm = NORM_LAYER, .act = ACT_RELU_SQUARED, .traits = TRAIT_PLAIN_FFN},
    {.name = "bert",
     .norm = NORM_LAYER,
     .place = NORM_SUM,
     .act = ACT_GELU_ERF,
     .traits = TRAIT_PLAIN_FFN | TRAIT_POSITIONS | TRAIT_TOKEN_TYPES | TRAIT_BOTH_WAYS},
    {.name = "nomic-bert",
     .rope = ROPE_HALVES,
     .norm = NORM_LAYER,
     .place = NORM_SUM,
     .traits = TRAIT_FUSED_QKV | TRAIT_TOKEN_TYPES | TRAIT_BOTH_WAYS},
};

const arch *arch_named(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strlen(archs[i].name) == n && memcmp(archs[i].name, name, n) == 0)
            return &archs[i];
    return NULL;
}

const arch *arch_at(int i) {
    return i >= 0 && (size_t)i < sizeof archs / sizeof *archs ? &archs[i] : NULL;
}
