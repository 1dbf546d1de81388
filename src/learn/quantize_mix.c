#include "learn/quantize_mix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The layers in which a matrix is in the finer of two types. */
typedef enum where { NOWHERE, EVERYWHERE, FIRST_2, FIRST_4, FIRST_EIGHTH, FIRST_SIXTEENTH, ENDS, SHARED_4 } where;

/* In the layers of `where` it is `finer`, in the others `usual`. */
typedef struct choice {
    where      where;
    block_type finer, usual;
} choice;

struct mix {
    const char *name, *about;
    int         file_type; /* llama.cpp's enum llama_ftype */
    bool        one;       /* format for all; the rest of the row says nothing */
    block_type  main, output;
    choice      attn_v, ffn_down;
    block_type  attn_output, attn_qkv;
    block_type  attn_output_8; /* where there are 8 experts */
    block_type  experts;
};

#define Q2_K BLOCK_Q2_K
#define Q3_K BLOCK_Q3_K
#define Q4_K BLOCK_Q4_K
#define Q5_K BLOCK_Q5_K
#define Q6_K BLOCK_Q6_K
#define Q8_0 BLOCK_Q8_0
#define MXF4 BLOCK_MXFP4

static const mix mixes[] = {
    {"q2_k",
     "2.6 bits, finer where it hurts most; loses much",
     10,
     false,
     Q2_K,
     Q6_K,
     {SHARED_4, Q4_K, Q3_K},
     {EVERYWHERE, Q3_K, Q2_K},
     Q3_K,
     Q2_K,
     Q5_K,
     Q2_K},
    {"q3_k_s",
     "q3_k, the output in q6_k",
     11,
     false,
     Q3_K,
     Q6_K,
     {NOWHERE, Q3_K, Q3_K},
     {NOWHERE, Q3_K, Q3_K},
     Q3_K,
     Q3_K,
     Q5_K,
     Q3_K},
    {"q3_k_m",
     "q3_k, sensitive matrices in q4_k and q5_k",
     12,
     false,
     Q3_K,
     Q6_K,
     {FIRST_2, Q5_K, Q4_K},
     {FIRST_SIXTEENTH, Q5_K, Q4_K},
     Q4_K,
     Q4_K,
     Q5_K,
     Q3_K},
    {"q3_k_l",
     "q3_k, sensitive matrices in q5_k",
     13,
     false,
     Q3_K,
     Q6_K,
     {EVERYWHERE, Q5_K, Q3_K},
     {EVERYWHERE, Q5_K, Q3_K},
     Q5_K,
     Q4_K,
     Q3_K,
     Q3_K},
    {"q4_k_s",
     "q4_k, a few matrices in q5_k",
     14,
     false,
     Q4_K,
     Q6_K,
     {FIRST_4, Q5_K, Q4_K},
     {FIRST_EIGHTH, Q5_K, Q4_K},
     Q4_K,
     Q4_K,
     Q5_K,
     Q4_K},
    {"q4_k_m",
     "q4_k, half of the sensitive matrices in q6_k: the usual choice",
     15,
     false,
     Q4_K,
     Q6_K,
     {ENDS, Q6_K, Q4_K},
     {ENDS, Q6_K, Q4_K},
     Q4_K,
     Q5_K,
     Q5_K,
     Q4_K},
    {"q5_k_s",
     "q5_k, the output in q6_k",
     16,
     false,
     Q5_K,
     Q6_K,
     {NOWHERE, Q5_K, Q5_K},
     {NOWHERE, Q5_K, Q5_K},
     Q5_K,
     Q5_K,
     Q5_K,
     Q5_K},
    {"q5_k_m",
     "q5_k, half of the sensitive matrices in q6_k",
     17,
     false,
     Q5_K,
     Q6_K,
     {ENDS, Q6_K, Q5_K},
     {ENDS, Q6_K, Q5_K},
     Q5_K,
     Q6_K,
     Q5_K,
     Q5_K},
    {"mxfp4_moe",
     "experts in mxfp4, everything else in q8_0",
     38,
     false,
     Q8_0,
     Q8_0,
     {NOWHERE, Q8_0, Q8_0},
     {NOWHERE, Q8_0, Q8_0},
     Q8_0,
     Q8_0,
     Q8_0,
     MXF4},
};

/* One format for every matrix, the embedding and the output included. q2_k is the mixture of that name. */
static const mix plain[] = {
    {"f32", "", 0, true, BLOCK_F32},        {"f16", "", 1, true, BLOCK_F16},
    {"bf16", "", 32, true, BLOCK_BF16},     {"q4_0", "", 2, true, BLOCK_Q4_0},
    {"q4_1", "", 3, true, BLOCK_Q4_1},      {"q5_0", "", 8, true, BLOCK_Q5_0},
    {"q5_1", "", 9, true, BLOCK_Q5_1},      {"q8_0", "", 7, true, BLOCK_Q8_0},
    {"q3_k", "", 11, true, BLOCK_Q3_K},     {"q4_k", "", 14, true, BLOCK_Q4_K},
    {"q5_k", "", 16, true, BLOCK_Q5_K},     {"q6_k", "", 18, true, BLOCK_Q6_K},
    {"iq4_nl", "", 25, true, BLOCK_IQ4_NL}, {"iq4_xs", "", 30, true, BLOCK_IQ4_XS},
    {"mxfp4", "", 38, true, BLOCK_MXFP4},
};

enum { MIXES = sizeof mixes / sizeof *mixes, PLAIN = sizeof plain / sizeof *plain };

const mix *mix_named(const char *name) {
    for (int i = 0; name && i < MIXES; i++)
        if (strcasecmp(mixes[i].name, name) == 0)
            return &mixes[i];
    for (int i = 0; name && i < PLAIN; i++)
        if (strcasecmp(plain[i].name, name) == 0)
            return &plain[i];
    return NULL;
}

const mix *mix_at(int i) {
    return i >= 0 && i < MIXES ? &mixes[i] : NULL;
}

const char *mix_name(const mix *m) {
    return m->name;
}

const char *mix_about(const mix *m) {
    return m->about;
}

int mix_file_type(const mix *m) {
    return m->file_type;
}

/* ---- the model ---- */

/* ARCH.key as an integer, or the largest element of an array of them (a number a layer); 0 when absent. */
static int hyper(const gguf *g, gguf_str arch, const char *key) {
    char      name[200];
    int64_t   value = 0;
    gguf_kind kind;
    size_t    count;
    snprintf(name, sizeof name, "%.*s.%s", (int)(arch.len < 100 ? arch.len : 100), arch.data, key);
    if (gguf_int(g, name, 0, 1 << 24, &value, NULL))
        return (int)value;
    if (!gguf_array(g, name, &kind, &count, NULL) || kind == GGUF_STRING)
        return 0;
    for (size_t i = 0; i < count && i < 4096; i++) {
        double x = gguf_array_number(g, name, i);
        if (x > (double)value && x <= 1 << 24)
            value = (int64_t)x;
    }
    return (int)value;
}

/* The N of "blk.N."; -1 for tensors outside the layers. */
static int layer_of(const char *name) {
    if (strncmp(name, "blk.", 4) != 0)
        return -1;
    char *end;
    long  n = strtol(name + 4, &end, 10);
    return end > name + 4 && *end == '.' && n >= 0 && n < 1 << 20 ? (int)n : -1;
}

mix_facts mix_facts_of(const gguf *g) {
    mix_facts f = {.tied = !gguf_tensor_named(g, "output.weight")};
    gguf_str  arch;
    if (gguf_string(g, "general.architecture", &arch, NULL)) {
        int heads = hyper(g, arch, "attention.head_count"), kv_heads = hyper(g, arch, "attention.head_count_kv");
        f.layers = hyper(g, arch, "block_count");
        f.dim = hyper(g, arch, "embedding_length");
        f.experts = hyper(g, arch, "expert_count");
        f.heads_a_kv_head = kv_heads > 0 ? heads / kv_heads : 1;
    }
    for (size_t i = 0; f.layers == 0 && i < gguf_tensor_count(g); i++) {
        int layer = layer_of(gguf_tensor_at(g, i)->name);
        f.layers = layer >= f.layers ? layer + 1 : f.layers;
    }
    return f;
}

/* ---- the choice ---- */

static bool applies(where w, int layer, const mix_facts *f) {
    int n = f->layers;
    switch (w) {
    case NOWHERE:
        return false;
    case EVERYWHERE:
        return true;
    case FIRST_2:
        return layer < 2;
    case FIRST_4:
        return layer < 4;
    case FIRST_EIGHTH:
        return layer < n / 8;
    case FIRST_SIXTEENTH:
        return layer < n / 16;
    case ENDS: /* the first and last eighth, and every third between */
        return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    case SHARED_4:
        return f->heads_a_kv_head >= 4;
    }
    return false;
}

static block_type choose(choice c, int layer, const mix_facts *f) {
    return applies(c.where, layer, f) ? c.finer : c.usual;
}

static block_type attn_v_type(const mix *m, const mix_facts *f, int layer) {
    block_type type = choose(m->attn_v, layer, f);
    if (f->experts == 8) /* next to eight experts it weighs nothing */
        return BLOCK_Q8_0;
    /* Models like Llama 70B: eight heads share a value, so it is small and matters. */
    if (f->layers == 80 && f->dim == 8192 && (type == BLOCK_Q3_K || type == BLOCK_Q4_K))
        return BLOCK_Q5_K;
    return type;
}

block_type mix_type(const mix *m, const mix_facts *f, const gguf_tensor *t) {
    const char *name = t->name;
    int         layer = layer_of(name);
    if (m->one)
        return m->main;
    if (strcmp(name, "output.weight") == 0 || (f->tied && strcmp(name, "token_embd.weight") == 0))
        return m->output;
    if (t->dims > 2 && t->shape[2] > 1 && m->experts != m->main)
        return m->experts;
    if (m->main == BLOCK_Q8_0)
        return m->main;
    if (strstr(name, "attn_v.weight"))
        return attn_v_type(m, f, layer);
    if (strstr(name, "attn_k.weight"))
        return f->experts == 8 ? BLOCK_Q8_0 : m->main;
    if (strstr(name, "ffn_down"))
        return choose(m->ffn_down, layer, f);
    if (strstr(name, "attn_output.weight"))
        return f->experts == 8 ? m->attn_output_8 : m->attn_output;
    if (strstr(name, "attn_qkv.weight"))
        return m->attn_qkv;
    return m->main;
}

block_type mix_fallback(block_type type, int64_t row) {
    if (row % block_format_of((int)type)->values == 0)
        return type;
    block_type next = BLOCK_F16;
    switch (type) {
    case BLOCK_Q2_K:
    case BLOCK_Q3_K:
    case BLOCK_IQ4_XS:
        next = BLOCK_IQ4_NL;
        break;
    case BLOCK_Q4_K:
        next = BLOCK_Q5_0;
        break;
    case BLOCK_Q5_K:
        next = BLOCK_Q5_1;
        break;
    case BLOCK_Q6_K:
        next = BLOCK_Q8_0;
        break;
    default:
        break;
    }
    return row % block_format_of((int)next)->values == 0 ? next : BLOCK_F16;
}
