#include "engine/footprint.h"

#include "engine/kv.h"
#include "tensor/matrix.h"

enum {
    HUGE_PAGE = 2 << 20,   /* weights and cache are taken in these */
    ACTIVATION_BYTES = 5,  /* a value made ready for int8 products, tiles and sums included (matrix.c) */
    SAMPLER_BYTES = 20,    /* a token of the vocabulary, a sequence (sample.c) */
    TOKENIZER_BYTES = 100, /* a token: its text, its place in tables (measured, SPM and BPE) */
    EMBED_TOKENS = 2048,   /* of a step of embed.h at most */
    EMBED_TEXTS = 256
};

static size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Of one tensor in the model's memory: a matrix in panels, vectors as float32. */
static size_t packed_bytes(const gguf_tensor *t) {
    size_t  one = 0;
    int64_t slices = t->shape[2] * t->shape[3];
    if (t->dims > 1 && t->format && matrix_size(t->format->type, t->shape[1], t->shape[0], &one, NULL))
        return (size_t)slices * up(one, 64);
    return t->dims > 1 ? t->bytes : up((size_t)t->shape[0] * sizeof(float), 64);
}

static size_t weight_bytes(const gguf *g) {
    size_t sum = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++)
        sum += packed_bytes(gguf_tensor_at(g, i));
    return up(sum, HUGE_PAGE);
}

/* Bytes of one row of a step, as forward_memory.c has them. */
static size_t row_bytes(const model_shape *s) {
    size_t dim = (size_t)s->dim, q = (size_t)s->heads * (size_t)s->head_dim;
    size_t kv = (size_t)s->kv_heads * (size_t)s->head_dim, ffn = (size_t)(s->experts ? s->shared_ffn : s->ffn);
    size_t turns = model_turns_locally(s) ? 2 : 1;
    size_t floats = 3 * dim + 2 * q + 2 * kv + 2 * ffn + turns * (size_t)s->rope_dim;
    size_t bytes = sizeof(float) * floats + ACTIVATION_BYTES * larger(larger(q, dim), ffn);
    if (s->experts) { /* each row goes to so many of them */
        size_t used = (size_t)s->experts_used, wide = (size_t)s->expert_ffn;
        bytes += used * (sizeof(float) * (2 * dim + 2 * wide + 3) + ACTIVATION_BYTES * larger(dim, wide)) +
                 sizeof(float) * (size_t)s->experts;
    }
    return bytes;
}

bool footprint_of(const gguf *g, const model_shape *s, size_t vocabulary, const kv_options *cache, int step_tokens,
                  int sequences, footprint *out) {
    size_t logits = s->headless ? 0 : (size_t)s->vocab * sizeof(float);
    *out = (footprint){.weights = weight_bytes(g), .kv = kv_bytes_taken(s, cache)};
    out->working = (size_t)step_tokens * row_bytes(s) +
                   (size_t)sequences * (logits + (size_t)s->vocab * SAMPLER_BYTES) + vocabulary * TOKENIZER_BYTES;
    return out->kv > 0;
}

static size_t vocabulary_of(const gguf *g) {
    gguf_kind kind;
    size_t    n;
    return gguf_array(g, "tokenizer.ggml.tokens", &kind, &n, NULL) ? n : 0;
}

/* An embedder's steps and their keys and values (embed.h), beside the weights. */
static bool embedder_of(const gguf *g, const model_shape *s, footprint *out) {
    kv_options cache = {.type = KV_F32, .sequences = 1, .context = EMBED_TOKENS + EMBED_TEXTS * KV_TOKENS};
    return footprint_of(g, s, vocabulary_of(g), &cache, EMBED_TOKENS, 0, out);
}

bool footprint_of_engine(const gguf *g, const engine_options *o, footprint *out, err *e) {
    model_shape s;
    engine_size size;
    footprint   embedder = {0};
    if (!model_shape_read(g, &s, e))
        return false;
    if ((s.headless || s.pooling != POOLING_NONE) && !embedder_of(g, &s, &embedder))
        return err_set(e, ERR_INVALID, "%s: no room for keys and values of heads of %d", gguf_name(g), s.head_dim);
    if (s.headless) {
        *out = embedder;
        return true;
    }
    if (!engine_size_of(&s, gguf_name(g), o, &size, e))
        return false;
    kv_options cache = {.type = o->kv,
                        .sequences = size.sequences,
                        .context = size.context,
                        .step_tokens = size.step_tokens,
                        .bytes = o->kv_bytes,
                        .disk = o->kv_disk};
    if (!footprint_of(g, &s, vocabulary_of(g), &cache, size.step_tokens, size.sequences, out))
        return err_set(e, ERR_INVALID, "%s: no room for keys and values of heads of %d as %s", gguf_name(g), s.head_dim,
                       kv_type_name(o->kv));
    out->kv += embedder.kv;
    out->working += embedder.working;
    out->context = size.context;
    return true;
}
