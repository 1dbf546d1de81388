/* test_import_bed.h - model folders made in a test: a place for them, safetensors files, and imports of them. */
#ifndef TESTS_MODEL_TEST_IMPORT_BED_H
#define TESTS_MODEL_TEST_IMPORT_BED_H

#include "check.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "model/gguf.h"
#include "model/import/import.h"
#include "tensor/block.h"

typedef struct bed {
    char dir[64], out[80];
} bed;

static inline void bed_open(bed *b) {
    strcpy(b->dir, "/tmp/pare-import-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->out, sizeof b->out, "%s.gguf", b->dir);
}

static inline void bed_close(bed *b) {
    DIR *d = opendir(b->dir);
    for (struct dirent *f = d ? readdir(d) : NULL; f; f = readdir(d)) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", b->dir, f->d_name);
        unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(b->dir);
    unlink(b->out);
}

static inline void bed_file(const bed *b, const char *name, const void *data, size_t n) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", b->dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void bed_text(const bed *b, const char *name, const char *text) {
    bed_file(b, name, text, strlen(text));
}

/* A safetensors file in the making. */
typedef struct st_file {
    str header, data;
} st_file;

/* `shape` as safetensors has it: the row length last. */
static inline void st_add(st_file *s, const char *name, const char *dtype, int dims, const int64_t *shape,
                          const void *data, size_t bytes) {
    str_addf(&s->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", s->header.len ? "," : "{", name, dtype);
    for (int d = 0; d < dims; d++)
        str_addf(&s->header, "%s%lld", d ? "," : "", (long long)shape[d]);
    str_addf(&s->header, "],\"data_offsets\":[%zu,%zu]}", s->data.len, s->data.len + bytes);
    if (bytes)
        str_add(&s->data, data, bytes);
}

/* The file's bytes; frees what was gathered. */
static inline str st_bytes(st_file *s) {
    str out = {0};
    if (!s->header.len)
        str_addc(&s->header, '{');
    str_addc(&s->header, '}');
    uint64_t n = s->header.len;
    str_add(&out, &n, sizeof n);
    str_add(&out, s->header.data, s->header.len);
    if (s->data.len)
        str_add(&out, s->data.data, s->data.len);
    assert_false(out.failed);
    str_free(&s->header);
    str_free(&s->data);
    return out;
}

static inline void st_save(st_file *s, const bed *b, const char *name) {
    str bytes = st_bytes(s);
    bed_file(b, name, bytes.data, bytes.len);
    str_free(&bytes);
}

/* f32 values that are exact in every type: small multiples of 1/16. */
static inline float *numbers(size_t n, uint64_t seed) {
    float *out = malloc((n + 1) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((int)(test_random(&seed) % 255) - 127) / 16;
    return out;
}

static inline void st_numbers(st_file *s, const char *name, const char *dtype, int64_t rows, int64_t cols,
                              uint64_t seed) {
    int64_t shape[2] = {rows ? rows : cols, cols};
    size_t  n = (size_t)((rows ? rows : 1) * cols);
    float  *values = numbers(n, seed);
    int     type = strcmp(dtype, "F32") == 0 ? BLOCK_F32 : strcmp(dtype, "F16") == 0 ? BLOCK_F16 : BLOCK_BF16;
    void   *blocks = malloc(n * 4);
    block_from_f32((block_type)type, values, blocks, (int64_t)n);
    st_add(s, name, dtype, rows ? 2 : 1, shape, blocks, n * (type == BLOCK_F32 ? 4 : 2));
    free(values);
    free(blocks);
}

/* A small Llama: dim 32, 4 heads, 2 for keys, ffn 64, 2 layers. */
static inline void st_llama(st_file *s, const char *dtype, int64_t vocab) {
    static const struct {
        const char *name;
        int64_t     rows, cols;
    } parts[] = {{"self_attn.q_proj", 32, 32}, {"self_attn.k_proj", 16, 32}, {"self_attn.v_proj", 16, 32},
                 {"self_attn.o_proj", 32, 32}, {"mlp.gate_proj", 64, 32},    {"mlp.up_proj", 64, 32},
                 {"mlp.down_proj", 32, 64},    {"input_layernorm", 0, 32},   {"post_attention_layernorm", 0, 32}};
    st_numbers(s, "model.embed_tokens.weight", dtype, vocab, 32, 1);
    st_numbers(s, "model.norm.weight", dtype, 0, 32, 2);
    st_numbers(s, "lm_head.weight", dtype, vocab, 32, 3);
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            char name[100];
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, parts[i].name);
            st_numbers(s, name, dtype, parts[i].rows, parts[i].cols, 100 + (uint64_t)layer * 16 + i);
        }
}

#define LLAMA_CONFIG                                                                                                   \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,\"num_hidden_layers\":2,\"num_attention_heads\":4,"  \
    "\"num_key_value_heads\":2,\"intermediate_size\":64,\"max_position_embeddings\":2048,\"rms_norm_eps\":1e-5,"       \
    "\"hidden_act\":\"silu\",\"vocab_size\":16,\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.40.0\""

static inline gguf *bed_import(const bed *b, import_options o, import_report *r, err *e) {
    o.dir = b->dir;
    o.out = o.out ? o.out : b->out;
    if (!import_folder(&o, r, e))
        return NULL;
    gguf *g = gguf_open(b->out, e);
    return g;
}

#endif
