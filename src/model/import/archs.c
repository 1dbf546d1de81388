/* archs.c - names on both sides. Sources: transformers' modeling files for the left, ggml-org/llama.cpp's
 * gguf-py (constants, tensor_mapping) and convert_hf_to_gguf for the right. */
#include "model/import/archs.h"

#include <stddef.h>
#include <string.h>

#define L "model.layers.#."
#define B "blk.#."

#define EMBED                                                                                                          \
    { "model.embed_tokens", "token_embd", KEEP, 0 }
#define ENDING                                                                                                         \
    {"model.norm", "output_norm", KEEP, 0}, {"lm_head", "output", KEEP, MAY_BE_ABSENT}, {                              \
        NULL, NULL, KEEP, 0                                                                                            \
    }
#define NORMS                                                                                                          \
    {L "input_layernorm", B "attn_norm", KEEP, 0}, {                                                                   \
        L "post_attention_layernorm", B "ffn_norm", KEEP, 0                                                            \
    }
#define QKV(q, k)                                                                                                      \
    {L "self_attn.q_proj", B "attn_q", q, MAY_HAVE_BIAS}, {L "self_attn.k_proj", B "attn_k", k, MAY_HAVE_BIAS}, {      \
        L "self_attn.v_proj", B "attn_v", KEEP, MAY_HAVE_BIAS                                                          \
    }
#define OUT                                                                                                            \
    { L "self_attn.o_proj", B "attn_output", KEEP, MAY_HAVE_BIAS }
#define QK_NORMS                                                                                                       \
    {L "self_attn.q_norm", B "attn_q_norm", KEEP, 0}, {                                                                \
        L "self_attn.k_norm", B "attn_k_norm", KEEP, 0                                                                 \
    }
#define MLP                                                                                                            \
    {L "mlp.gate_proj", B "ffn_gate", KEEP, MAY_HAVE_BIAS}, {L "mlp.up_proj", B "ffn_up", KEEP, MAY_HAVE_BIAS}, {      \
        L "mlp.down_proj", B "ffn_down", KEEP, MAY_HAVE_BIAS                                                           \
    }
/* Experts one by one, or all in one tensor as transformers 5 holds them. */
#define EXPERTS                                                                                                        \
    {L "mlp.gate", B "ffn_gate_inp", KEEP, 0}, {L "mlp.experts.@.gate_proj", B "ffn_gate_exps", KEEP, MAY_BE_ABSENT},  \
        {L "mlp.experts.gate_up_proj", B "ffn_gate_exps", FUSED_GATE, INSTEAD},                                        \
        {L "mlp.experts.@.up_proj", B "ffn_up_exps", KEEP, MAY_BE_ABSENT},                                             \
        {L "mlp.experts.gate_up_proj", B "ffn_up_exps", FUSED_UP, INSTEAD},                                            \
        {L "mlp.experts.@.down_proj", B "ffn_down_exps", KEEP, MAY_BE_ABSENT}, {                                       \
        L "mlp.experts.down_proj", B "ffn_down_exps", KEEP, INSTEAD                                                    \
    }

static const tensor_rule llama[] = {EMBED, NORMS, QKV(PAIR_Q, PAIR_K), OUT, MLP, ENDING};
static const tensor_rule mixtral[] = {EMBED,
                                      NORMS,
                                      QKV(PAIR_Q, PAIR_K),
                                      OUT,
                                      {L "block_sparse_moe.gate", B "ffn_gate_inp", KEEP, 0},
                                      {L "block_sparse_moe.experts.@.w1", B "ffn_gate_exps", KEEP, 0},
                                      {L "block_sparse_moe.experts.@.w3", B "ffn_up_exps", KEEP, 0},
                                      {L "block_sparse_moe.experts.@.w2", B "ffn_down_exps", KEEP, 0},
                                      ENDING};
static const tensor_rule qwen2[] = {EMBED, NORMS, QKV(KEEP, KEEP), OUT, MLP, ENDING};
static const tensor_rule qwen2moe[] = {EMBED,
                                       NORMS,
                                       QKV(KEEP, KEEP),
                                       OUT,
                                       EXPERTS,
                                       {L "mlp.shared_expert.gate_proj", B "ffn_gate_shexp", KEEP, 0},
                                       {L "mlp.shared_expert.up_proj", B "ffn_up_shexp", KEEP, 0},
                                       {L "mlp.shared_expert.down_proj", B "ffn_down_shexp", KEEP, 0},
                                       {L "mlp.shared_expert_gate", B "ffn_gate_inp_shexp", KEEP, 0},
                                       ENDING};
static const tensor_rule qwen3[] = {EMBED, NORMS, QKV(KEEP, KEEP), QK_NORMS, OUT, MLP, ENDING};
static const tensor_rule qwen3moe[] = {EMBED, NORMS, QKV(KEEP, KEEP), QK_NORMS, OUT, EXPERTS, ENDING};

#define GEMMA_NORMS                                                                                                    \
    {L "input_layernorm", B "attn_norm", PLUS_ONE, 0},                                                                 \
        {L "post_attention_layernorm", B "post_attention_norm", PLUS_ONE, 0},                                          \
        {L "pre_feedforward_layernorm", B "ffn_norm", PLUS_ONE, 0}, {                                                  \
        L "post_feedforward_layernorm", B "post_ffw_norm", PLUS_ONE, 0                                                 \
    }
#define GEMMA_ENDING                                                                                                   \
    {"model.norm", "output_norm", PLUS_ONE, 0}, {"lm_head", "output", KEEP, MAY_BE_ABSENT}, {                          \
        NULL, NULL, KEEP, 0                                                                                            \
    }

static const tensor_rule gemma2[] = {EMBED, GEMMA_NORMS, QKV(KEEP, KEEP), OUT, MLP, GEMMA_ENDING};
static const tensor_rule gemma3[] = {EMBED,
                                     GEMMA_NORMS,
                                     QKV(KEEP, KEEP),
                                     {L "self_attn.q_norm", B "attn_q_norm", PLUS_ONE, 0},
                                     {L "self_attn.k_norm", B "attn_k_norm", PLUS_ONE, 0},
                                     OUT,
                                     MLP,
                                     GEMMA_ENDING};
static const tensor_rule phi3[] = {EMBED,
                                   NORMS,
                                   {L "self_attn.qkv_proj", B "attn_qkv", KEEP, 0},
                                   {L "self_attn.o_proj", B "attn_output", KEEP, 0},
                                   {L "mlp.gate_up_proj", B "ffn_up", KEEP, 0},
                                   {L "mlp.down_proj", B "ffn_down", KEEP, 0},
                                   ENDING};
static const tensor_rule gpt2[] = {{"wte", "token_embd", KEEP, 0},
                                   {"wpe", "position_embd", KEEP, 0},
                                   {"h.#.ln_1", B "attn_norm", KEEP, MAY_HAVE_BIAS},
                                   {"h.#.attn.c_attn", B "attn_qkv", TRANSPOSE, MAY_HAVE_BIAS},
                                   {"h.#.attn.c_proj", B "attn_output", TRANSPOSE, MAY_HAVE_BIAS},
                                   {"h.#.ln_2", B "ffn_norm", KEEP, MAY_HAVE_BIAS},
                                   {"h.#.mlp.c_fc", B "ffn_up", TRANSPOSE, MAY_HAVE_BIAS},
                                   {"h.#.mlp.c_proj", B "ffn_down", TRANSPOSE, MAY_HAVE_BIAS},
                                   {"ln_f", "output_norm", KEEP, MAY_HAVE_BIAS},
                                   {"lm_head", "output", KEEP, MAY_BE_ABSENT},
                                   {NULL, NULL, KEEP, 0}};
static const tensor_rule olmo2[] = {EMBED,
                                    QKV(KEEP, KEEP),
                                    QK_NORMS,
                                    OUT,
                                    {L "post_attention_layernorm", B "post_attention_norm", KEEP, 0},
                                    MLP,
                                    {L "post_feedforward_layernorm", B "post_ffw_norm", KEEP, 0},
                                    ENDING};
static const tensor_rule starcoder2[] = {EMBED,
                                         {L "input_layernorm", B "attn_norm", KEEP, MAY_HAVE_BIAS},
                                         QKV(KEEP, KEEP),
                                         OUT,
                                         {L "post_attention_layernorm", B "ffn_norm", KEEP, MAY_HAVE_BIAS},
                                         {L "mlp.c_fc", B "ffn_up", KEEP, MAY_HAVE_BIAS},
                                         {L "mlp.c_proj", B "ffn_down", KEEP, MAY_HAVE_BIAS},
                                         {"model.norm", "output_norm", KEEP, MAY_HAVE_BIAS},
                                         {"lm_head", "output", KEEP, MAY_BE_ABSENT},
                                         {NULL, NULL, KEEP, 0}};

#define E "encoder.layer.#."
static const tensor_rule bert[] = {{"embeddings.word_embeddings", "token_embd", KEEP, 0},
                                   {"embeddings.position_embeddings", "position_embd", KEEP, 0},
                                   {"embeddings.token_type_embeddings", "token_types", KEEP, 0},
                                   {"embeddings.LayerNorm", "token_embd_norm", KEEP, MAY_HAVE_BIAS},
                                   {E "attention.self.query", B "attn_q", KEEP, MAY_HAVE_BIAS},
                                   {E "attention.self.key", B "attn_k", KEEP, MAY_HAVE_BIAS},
                                   {E "attention.self.value", B "attn_v", KEEP, MAY_HAVE_BIAS},
                                   {E "attention.output.dense", B "attn_output", KEEP, MAY_HAVE_BIAS},
                                   {E "attention.output.LayerNorm", B "attn_output_norm", KEEP, MAY_HAVE_BIAS},
                                   {E "intermediate.dense", B "ffn_up", KEEP, MAY_HAVE_BIAS},
                                   {E "output.dense", B "ffn_down", KEEP, MAY_HAVE_BIAS},
                                   {E "output.LayerNorm", B "layer_output_norm", KEEP, MAY_HAVE_BIAS},
                                   {NULL, NULL, KEEP, 0}};
#define N "encoder.layers.#."
static const tensor_rule nomic[] = {{"embeddings.word_embeddings", "token_embd", KEEP, 0},
                                    {"embeddings.token_type_embeddings", "token_types", KEEP, MAY_BE_ABSENT},
                                    {"emb_ln", "token_embd_norm", KEEP, MAY_HAVE_BIAS},
                                    {N "attn.Wqkv", B "attn_qkv", KEEP, 0},
                                    {N "attn.out_proj", B "attn_output", KEEP, 0},
                                    {N "norm1", B "attn_output_norm", KEEP, MAY_HAVE_BIAS},
                                    {N "mlp.fc11", B "ffn_up", KEEP, 0},
                                    {N "mlp.fc12", B "ffn_gate", KEEP, 0},
                                    {N "mlp.fc2", B "ffn_down", KEEP, 0},
                                    {N "norm2", B "layer_output_norm", KEEP, MAY_HAVE_BIAS},
                                    {NULL, NULL, KEEP, 0}};

#define SILU "silu|swish"
#define TANH "gelu_pytorch_tanh|gelu_new|gelu_fast" /* three names of the tanh form */

static const import_arch archs[] = {
    {"LlamaForCausalLM", "llama", "llama", llama, ARCH_LLAMA_KEYS | ARCH_ADD_MODEL, WINDOW_NONE, SILU, "", NULL, 10000},
    {"MistralForCausalLM", "mistral", "llama", llama, ARCH_LLAMA_KEYS | ARCH_ADD_MODEL, WINDOW_NONE, SILU, "", NULL,
     10000},
    {"MixtralForCausalLM", "mixtral", "llama", mixtral,
     ARCH_LLAMA_KEYS | ARCH_ADD_MODEL | ARCH_EXPERTS | ARCH_NORM_TOPK, WINDOW_NONE, SILU, "", NULL, 1e6},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", qwen2, ARCH_ADD_MODEL, WINDOW_SWITCHED, SILU, "", "qwen2", 10000},
    {"Qwen2MoeForCausalLM", "qwen2_moe", "qwen2moe", qwen2moe, ARCH_ADD_MODEL | ARCH_EXPERTS, WINDOW_SWITCHED, SILU, "",
     "qwen2", 10000},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", qwen3, ARCH_ADD_MODEL, WINDOW_SWITCHED, SILU, "", "qwen2", 10000},
    {"Qwen3MoeForCausalLM", "qwen3_moe", "qwen3moe", qwen3moe, ARCH_ADD_MODEL | ARCH_EXPERTS | ARCH_NORM_TOPK,
     WINDOW_SWITCHED, SILU, "", "qwen2", 10000},
    {"Gemma2ForCausalLM", "gemma2", "gemma2", gemma2, ARCH_ADD_MODEL | ARCH_TIED, WINDOW_SECOND, TANH, "", NULL, 10000},
    {"Gemma3ForCausalLM", "gemma3_text", "gemma3", gemma3, ARCH_ADD_MODEL | ARCH_TIED, WINDOW_SIXTH, TANH, "", NULL,
     1e6},
    {"Gemma3ForConditionalGeneration", "gemma3", "gemma3", gemma3, ARCH_ADD_MODEL | ARCH_TIED, WINDOW_SIXTH, TANH,
     "language_model.", NULL, 1e6},
    {"Phi3ForCausalLM", "phi3", "phi3", phi3, ARCH_ADD_MODEL, WINDOW_KEY, SILU, "", NULL, 10000},
    {"GPT2LMHeadModel", "gpt2", "gpt2", gpt2, ARCH_NO_ROPE | ARCH_TIED | ARCH_LAYER_NORM, WINDOW_NONE, TANH,
     "transformer.", "gpt-2", 0},
    {"Olmo2ForCausalLM", "olmo2", "olmo2", olmo2, ARCH_ADD_MODEL, WINDOW_NONE, SILU, "", NULL, 10000},
    {"Starcoder2ForCausalLM", "starcoder2", "starcoder2", starcoder2, ARCH_ADD_MODEL | ARCH_TIED | ARCH_LAYER_NORM,
     WINDOW_NONE, TANH, "", "starcoder", 10000},
    {"SmolLM3ForCausalLM", "smollm3", "smollm3", llama, ARCH_LLAMA_KEYS | ARCH_ADD_MODEL | ARCH_TIED, WINDOW_SWITCHED,
     SILU, "", NULL, 2e6},
    {"GraniteForCausalLM", "granite", "granite", llama, ARCH_LLAMA_KEYS | ARCH_ADD_MODEL | ARCH_HEAD_FIXED, WINDOW_NONE,
     SILU, "", NULL, 10000},
    {"BertModel", "bert", "bert", bert, ARCH_NO_ROPE | ARCH_ENCODER | ARCH_LAYER_NORM, WINDOW_NONE, "gelu", "bert.",
     NULL, 0},
    {"BertForMaskedLM", NULL, "bert", bert, ARCH_NO_ROPE | ARCH_ENCODER | ARCH_LAYER_NORM, WINDOW_NONE, "gelu", "bert.",
     NULL, 0},
    {"NomicBertModel", "nomic_bert", "nomic-bert", nomic, ARCH_ENCODER | ARCH_LAYER_NORM, WINDOW_NONE, "swiglu",
     "bert.", NULL, 10000},
};

enum { ARCHS = sizeof archs / sizeof *archs };

const import_arch *import_arch_named(const char *hf) {
    for (int i = 0; i < ARCHS; i++)
        if (strcmp(archs[i].hf, hf) == 0)
            return &archs[i];
    return NULL;
}

const import_arch *import_arch_typed(const char *model_type) {
    for (int i = 0; i < ARCHS; i++)
        if (archs[i].model_type && strcmp(archs[i].model_type, model_type) == 0)
            return &archs[i];
    return NULL;
}

const char *import_arch_name(int i) {
    return i >= 0 && i < ARCHS ? archs[i].hf : NULL;
}

/* ---- what is no weight of the text model ---- */

static const char *const everywhere[] = {
    "*.rotary_emb.inv_freq", "*.attn.bias", "*.attn.masked_bias", "*.attention.bias", "*.attention.masked_bias", NULL};
/* A BERT's heads for training, and its pooler, which sentence embeddings do not use. */
static const char *const of_encoders[] = {"embeddings.position_ids", "pooler.*", "cls.*", NULL};
static const char *const of_gemma3[] = {"vision_tower.*", "multi_modal_projector.*", "model.vision_tower.*",
                                        "model.multi_modal_projector.*", NULL};

static bool in_list(const char *const *list, const char *name) {
    size_t n = strlen(name);
    for (; *list; list++) {
        size_t p = strlen(*list);
        if ((*list)[0] == '*'       ? n >= p - 1 && strcmp(name + n - (p - 1), *list + 1) == 0
            : (*list)[p - 1] == '*' ? strncmp(name, *list, p - 1) == 0
                                    : strcmp(name, *list) == 0)
            return true;
    }
    return false;
}

bool import_left_out(const import_arch *a, const char *name) {
    return in_list(everywhere, name) || (a->traits & ARCH_ENCODER && in_list(of_encoders, name)) ||
           (a->window == WINDOW_SIXTH && in_list(of_gemma3, name));
}
