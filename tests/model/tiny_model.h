/* tiny_model.h - a whole llama model of some 40 KB in memory, with handles to make it wrong in one place. */
#ifndef TESTS_MODEL_TINY_MODEL_H
#define TESTS_MODEL_TINY_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf_write.h"

enum { TINY_DIM = 32, TINY_HEADS = 4, TINY_KV_HEADS = 2, TINY_FFN = 64, TINY_VOCAB = 272, TINY_LAYERS = 2 };

typedef struct tiny {
    const char *without;         /* key or tensor to leave out */
    void (*more)(gguf_writer *); /* further keys and tensors (declared last: their data is zeros) */
    size_t      more_bytes[2];   /* of the tensors that `more` declares; 128 and none when zero */
    int64_t     reshape[2];      /* shape of blk.1.ffn_up.weight instead of its own, when set */
    bool        no_tokenizer, tied;
    const char *architecture;
} tiny;

static inline bool tiny_has(const tiny *t, const char *name) {
    return !t->without || strcmp(t->without, name) != 0;
}

static inline void tiny_int(gguf_writer *w, const tiny *t, const char *key, int value) {
    if (tiny_has(t, key))
        gguf_write_int(w, key, GGUF_U32, value);
}

static inline void tiny_vocabulary(gguf_writer *w) {
    static char text[TINY_VOCAB][12];
    gguf_str    texts[TINY_VOCAB];
    float       scores[TINY_VOCAB];
    int32_t     types[TINY_VOCAB];
    const char *first[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < TINY_VOCAB; i++) {
        if (i < 3)
            snprintf(text[i], sizeof text[i], "%s", first[i]);
        else if (i < 259)
            snprintf(text[i], sizeof text[i], "<0x%02X>", i - 3);
        else
            snprintf(text[i], sizeof text[i], "%c", 'a' + i - 259);
        texts[i] = (gguf_str){text[i], strlen(text[i])};
        scores[i] = i < 259 ? 0 : (float)(259 - i);
        types[i] = i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1;
    }
    gguf_write_text(w, "tokenizer.ggml.model", "llama");
    gguf_write_strings(w, "tokenizer.ggml.tokens", texts, TINY_VOCAB);
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, TINY_VOCAB);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, TINY_VOCAB);
    gguf_write_int(w, "tokenizer.ggml.bos_token_id", GGUF_U32, 1);
    gguf_write_int(w, "tokenizer.ggml.eos_token_id", GGUF_U32, 2);
    gguf_write_text(w, "tokenizer.chat_template", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
}

/* Declares one tensor; `total` gathers the bytes of data that are to follow. */
static inline void tiny_tensor(gguf_writer *w, const tiny *t, const char *name, block_type type, int64_t rows,
                               int64_t cols, size_t *total) {
    const block_format *f = block_format_of(type);
    int64_t             shape[2] = {cols, rows};
    size_t              row = 0;
    if (!tiny_has(t, name))
        return;
    if (t->reshape[0] && strcmp(name, "blk.1.ffn_up.weight") == 0)
        memcpy(shape, t->reshape, sizeof shape);
    block_row_bytes(f, shape[0], &row);
    gguf_write_tensor(w, name, f, rows ? 2 : 1, shape);
    *total += row * (size_t)(rows ? shape[1] : 1);
}

static inline void tiny_tensors(gguf_writer *w, const tiny *t, size_t *sizes, int *count) {
    int n = 0, kv = TINY_DIM / TINY_HEADS * TINY_KV_HEADS;
#define TINY_TENSOR(type, rows, cols, ...)                                                                             \
    do {                                                                                                               \
        char name[64];                                                                                                 \
        snprintf(name, sizeof name, __VA_ARGS__);                                                                      \
        sizes[n] = 0;                                                                                                  \
        tiny_tensor(w, t, name, type, rows, cols, &sizes[n]);                                                          \
        n += sizes[n] != 0;                                                                                            \
    } while (0)
    TINY_TENSOR(BLOCK_Q8_0, TINY_VOCAB, TINY_DIM, "token_embd.weight");
    for (int i = 0; i < TINY_LAYERS; i++) {
        TINY_TENSOR(BLOCK_F32, 0, TINY_DIM, "blk.%d.attn_norm.weight", i);
        TINY_TENSOR(BLOCK_F16, TINY_DIM, TINY_DIM, "blk.%d.attn_q.weight", i);
        TINY_TENSOR(BLOCK_BF16, kv, TINY_DIM, "blk.%d.attn_k.weight", i);
        TINY_TENSOR(BLOCK_F32, kv, TINY_DIM, "blk.%d.attn_v.weight", i);
        TINY_TENSOR(BLOCK_Q4_0, TINY_DIM, TINY_DIM, "blk.%d.attn_output.weight", i);
        TINY_TENSOR(BLOCK_F32, 0, TINY_DIM, "blk.%d.attn_q.bias", i);
        TINY_TENSOR(BLOCK_F32, 0, TINY_DIM, "blk.%d.ffn_norm.weight", i);
        TINY_TENSOR(BLOCK_Q4_0, TINY_FFN, TINY_DIM, "blk.%d.ffn_gate.weight", i);
        TINY_TENSOR(BLOCK_Q4_0, TINY_FFN, TINY_DIM, "blk.%d.ffn_up.weight", i);
        TINY_TENSOR(BLOCK_Q8_0, TINY_DIM, TINY_FFN, "blk.%d.ffn_down.weight", i);
    }
    TINY_TENSOR(BLOCK_F32, 0, TINY_DIM, "output_norm.weight");
    if (!t->tied)
        TINY_TENSOR(BLOCK_Q4_0, TINY_VOCAB, TINY_DIM, "output.weight");
#undef TINY_TENSOR
    *count = n;
}

/* The file, malloc'd into *out. Data bytes: a pattern that the tests can recompute, tensor k's byte i is
 * (i * 7 + k) % 31, which is a small positive number in every format but for its scale. */
static inline bool tiny_build(const tiny *t, str *out, err *e) {
    gguf_writer *w = gguf_write_open_memory(out, e);
    if (!w)
        return false;
    gguf_write_text(w, "general.architecture", t->architecture ? t->architecture : "llama");
    if (tiny_has(t, "general.name"))
        gguf_write_text(w, "general.name", "tiny");
    tiny_int(w, t, "llama.vocab_size", TINY_VOCAB);
    tiny_int(w, t, "llama.context_length", 128);
    tiny_int(w, t, "llama.embedding_length", TINY_DIM);
    tiny_int(w, t, "llama.block_count", TINY_LAYERS);
    tiny_int(w, t, "llama.feed_forward_length", TINY_FFN);
    tiny_int(w, t, "llama.attention.head_count", TINY_HEADS);
    tiny_int(w, t, "llama.attention.head_count_kv", TINY_KV_HEADS);
    if (tiny_has(t, "llama.attention.layer_norm_rms_epsilon"))
        gguf_write_float(w, "llama.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-5);
    if (!t->no_tokenizer)
        tiny_vocabulary(w);
    size_t sizes[16 * TINY_LAYERS];
    int    count;
    tiny_tensors(w, t, sizes, &count);
    if (t->more)
        t->more(w);
    for (int k = 0; k < count; k++) {
        uint8_t *data = malloc(sizes[k]);
        for (size_t i = 0; i < sizes[k]; i++)
            data[i] = (uint8_t)((i * 7 + (size_t)k) % 31);
        gguf_write_data(w, data, sizes[k]);
        free(data);
    }
    static const char zeros[4096];
    for (int k = 0; t->more && k < 2; k++) {
        size_t n = t->more_bytes[0] ? t->more_bytes[k] : k == 0 ? 128 : 0; /* most declare one tensor of 32 F32 */
        if (n)
            gguf_write_data(w, zeros, n);
    }
    return gguf_write_finish(w, e);
}

#endif
