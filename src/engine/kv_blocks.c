#include "engine/kv_blocks.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define DEFAULT_BYTES ((size_t)1 << 30)
#define MAX_BLOCKS    (1 << 27) /* of one cache: with the smallest block there is, 128 bytes, 16 GiB */

/* ---- sizes ---- */

static bool multiply(size_t a, size_t b, size_t *out) {
    *out = a * b;
    return !b || a <= SIZE_MAX / b;
}

int kv_blocks_for(int tokens) {
    return tokens / KV_TOKENS + (tokens % KV_TOKENS != 0);
}

/* Bytes of a block in one layer, and in all. */
static bool block_size(const model_shape *shape, const kv_layout *l, size_t *piece, size_t *block, err *e) {
    if (shape->layers < 1 || shape->kv_heads < 1) {
        return err_set(e, ERR_INVALID, "a model of %d layers and %d K/V heads has no keys and values", shape->layers,
                       shape->kv_heads);
    }
    return (multiply(l->key_bytes + l->value_bytes, (size_t)shape->kv_heads, piece) &&
            multiply(*piece, (size_t)shape->layers, block)) ||
           err_set(e, ERR_INVALID, "keys and values of %d layers with %d heads of %d cannot be addressed",
                   shape->layers, shape->kv_heads, shape->head_dim);
}

static bool choose_count(kv_blocks *k, const kv_options *o, size_t block, err *e) {
    size_t one = 0, all = 0, per_sequence = (size_t)k->per_sequence;
    if (!multiply(per_sequence, block, &one) || !multiply(per_sequence, (size_t)o->sequences, &all)) {
        return err_set(e, ERR_INVALID,
                       "a key/value cache of %d sequences of %d tokens cannot be addressed; lower one of them",
                       o->sequences, o->context);
    }
    size_t n = o->bytes / block;
    if (!o->bytes) {
        n = DEFAULT_BYTES / block < all ? DEFAULT_BYTES / block : all;
        n = n < per_sequence ? per_sequence : n;
    } else if (o->bytes < one) {
        return err_set(e, ERR_INVALID,
                       "%zu bytes for keys and values are not enough: one sequence of %d tokens takes %zu (%s); give "
                       "more or lower the context",
                       o->bytes, o->context, one, kv_type_name(o->type));
    }
    if (n > MAX_BLOCKS) {
        return err_set(e, ERR_LIMIT,
                       "a key/value cache of %zu blocks of %zu bytes is too large, %d blocks are the most; make it "
                       "smaller",
                       n, block, MAX_BLOCKS);
    }
    k->count = (int)n;
    return multiply(n, block, &k->bytes) ||
           err_set(e, ERR_INVALID, "a key/value cache of %zu blocks of %zu bytes cannot be addressed", n, block);
}

static bool choose_sizes(kv_blocks *k, const model_shape *shape, const kv_options *o, err *e) {
    size_t block = 0;
    if (o->sequences < 1 || o->context < 1) {
        return err_set(e, ERR_INVALID,
                       "a key/value cache of %d sequences of %d tokens holds nothing; both are at least 1",
                       o->sequences, o->context);
    }
    k->per_sequence = kv_blocks_for(o->context);
    if (!kv_layout_of(o->type, shape->head_dim, &k->layout, e) ||
        !block_size(shape, &k->layout, &k->piece_bytes, &block, e) || !choose_count(k, o, block, e)) {
        return false;
    }
    k->layers = shape->layers;
    k->heads = shape->kv_heads;
    k->head_bytes = k->layout.key_bytes + k->layout.value_bytes;
    k->piece_step = (size_t)k->count * k->piece_bytes;
    return true;
}

size_t kv_bytes_of(const model_shape *shape, kv_type type, int64_t tokens) {
    kv_layout l;
    size_t    piece, block, bytes;
    if (tokens <= 0 || !kv_layout_of(type, shape->head_dim, &l, NULL) || !block_size(shape, &l, &piece, &block, NULL)) {
        return 0;
    }
    size_t blocks = (size_t)(tokens / KV_TOKENS) + (tokens % KV_TOKENS != 0);
    return multiply(blocks, block, &bytes) ? bytes : SIZE_MAX;
}

size_t kv_bytes_taken(const model_shape *shape, const kv_options *o) {
    kv_blocks k = {0};
    return choose_sizes(&k, shape, o, NULL) ? k.bytes : 0;
}

/* ---- memory ---- */

bool kv_blocks_open(kv_blocks *k, const model_shape *shape, const kv_options *o, err *e) {
    *k = (kv_blocks){0};
    if (!choose_sizes(k, shape, o, e)) {
        return false;
    }
    void *m = mmap(NULL, k->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) {
        return err_set(e, ERR_MEMORY,
                       "no memory for a key/value cache of %zu MiB (%d sequences of %d tokens); lower one of them",
                       k->bytes >> 20, o->sequences, o->context);
    }
    /* A wish: attention reads more pages than the processor remembers addresses of, unless they are large. */
    madvise(m, k->bytes, MADV_HUGEPAGE);
    k->memory = m;
    return true;
}

void kv_blocks_close(kv_blocks *k) {
    if (k->memory) {
        munmap(k->memory, k->bytes);
        k->memory = NULL;
    }
}

void kv_blocks_copy(const kv_blocks *k, int from, int to) {
    for (int layer = 0; layer < k->layers; layer++) {
        memcpy(kv_piece(k, layer, to), kv_piece(k, layer, from), k->piece_bytes);
    }
}

void kv_blocks_put(const kv_blocks *k, int layer, int block, int place, const float *key, const float *value) {
    char *at = kv_piece(k, layer, block);
    for (int head = 0; head < k->heads; head++) {
        size_t first = (size_t)head * (size_t)k->layout.dim;
        kv_put_key(&k->layout, at, place, key + first);
        kv_put_value(&k->layout, at + k->layout.key_bytes, place, value + first);
        at += k->head_bytes;
    }
}
