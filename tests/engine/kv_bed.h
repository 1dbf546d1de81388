/* kv_bed.h - a small cache for tests, filled with values that say which tokens they stand for. */
#ifndef PARE_TESTS_KV_BED_H
#define PARE_TESTS_KV_BED_H

#include "check.h"

#include "engine/kv.h"

enum { BED_LAYERS = 3, BED_HEADS = 2, BED_DIM = 32 };

static const model_shape bed_shape = {.layers = BED_LAYERS, .kv_heads = BED_HEADS, .head_dim = BED_DIM};
static const kv_scope    bed_scopes[3] = {{{1}}, {{2, 1}}, {{2, 2}}};

static inline size_t bed_block_bytes(kv_type type) {
    return kv_bytes_of(&bed_shape, type, KV_TOKENS);
}

static inline kv_cache *bed_open_disk(kv_type type, int sequences, int context, int blocks, const char *disk,
                                      size_t disk_bytes) {
    err        e = {0};
    kv_options o = {.type = type,
                    .sequences = sequences,
                    .context = context,
                    .bytes = (size_t)blocks * bed_block_bytes(type),
                    .disk = disk,
                    .disk_bytes = disk_bytes,
                    .model = "test"};
    kv_cache  *kv = kv_open(&bed_shape, &o, &e);
    assert_ok(kv, e);
    return kv;
}

static inline kv_cache *bed_open(kv_type type, int sequences, int context, int blocks) {
    return bed_open_disk(type, sequences, context, blocks, NULL, 0);
}

static inline void bed_check(const kv_cache *kv) {
    err e = {0};
    assert_ok(kv_check(kv, &e), e);
}

/* Of the scope and tokens[0 .. n): nothing else may stand behind a stored value. */
static inline uint64_t bed_chain(uint64_t chain, int32_t token) {
    uint64_t state = chain ^ (uint64_t)(uint32_t)token * 0x9e3779b97f4a7c15u;
    return test_random(&state);
}

static inline uint64_t bed_root(const kv_scope *scope) {
    uint64_t chain = 1;
    for (int i = 0; i < 16; i++) {
        chain = bed_chain(chain, scope->bytes[i]);
    }
    return chain;
}

/* 20 bits, so that F32 holds them exactly. part: 0 keys, 1 values. */
static inline void bed_values(uint64_t chain, int layer, int part, float *out) {
    uint64_t state = chain + (uint64_t)(layer * 2 + part);
    for (int i = 0; i < BED_HEADS * BED_DIM; i++) {
        out[i] = (float)(test_random(&state) >> 44) / 1024 - 512;
    }
}

/* Computes the positions [from, to) as a forward pass would. */
static inline void bed_write(kv_cache *kv, int sequence, const kv_scope *scope, const int32_t *tokens, int from,
                             int to) {
    uint64_t chain = bed_root(scope);
    float    k[BED_HEADS * BED_DIM], v[BED_HEADS * BED_DIM];
    for (int p = 0; p < to; p++) {
        chain = bed_chain(chain, tokens[p]);
        for (int layer = 0; p >= from && layer < BED_LAYERS; layer++) {
            bed_values(chain, layer, 0, k);
            bed_values(chain, layer, 1, v);
            kv_write(kv, layer, sequence, p, k, v);
        }
    }
}

static inline void bed_compare(const float *got, const float *want, int position, int layer, int head) {
    for (int i = 0; i < BED_DIM; i++) {
        if (got[i] != want[i]) {
            fail_msg("position %d, layer %d, head %d, value %d: %g is stored, %g was written", position, layer, head, i,
                     (double)got[i], (double)want[i]);
        }
    }
}

/* The positions [from, to) of a layer hold what stands for these tokens in this scope; KV_F32 only. */
static inline void bed_verify_layer(const kv_cache *kv, int layer, int sequence, const kv_scope *scope,
                                    const int32_t *tokens, int from, int to) {
    uint64_t       chain = bed_root(scope);
    const int32_t *table = kv_layer_table(kv, layer, sequence);
    float          k[BED_HEADS * BED_DIM], v[BED_HEADS * BED_DIM], got[BED_DIM];
    for (int p = 0; p < to; p++) {
        chain = bed_chain(chain, tokens[p]);
        if (p < from) {
            continue;
        }
        assert_true(table[p / KV_TOKENS] >= 0);
        bed_values(chain, layer, 0, k);
        bed_values(chain, layer, 1, v);
        for (int head = 0; head < BED_HEADS; head++) {
            kv_view     view = kv_head(kv, layer, head);
            const char *block = view.blocks + (size_t)table[p / KV_TOKENS] * view.block_bytes;
            kv_get_key(view.layout, block, p % KV_TOKENS, got);
            bed_compare(got, k + head * BED_DIM, p, layer, head);
            kv_get_value(view.layout, block + view.values_at, p % KV_TOKENS, got);
            bed_compare(got, v + head * BED_DIM, p, layer, head);
        }
    }
}

/* All positions [0, to) of all layers. */
static inline void bed_verify(const kv_cache *kv, int sequence, const kv_scope *scope, const int32_t *tokens, int to) {
    for (int layer = 0; layer < BED_LAYERS; layer++) {
        bed_verify_layer(kv, layer, sequence, scope, tokens, 0, to);
    }
}

/* Reserves, computes and commits up to `to`. */
static inline void bed_compute(kv_cache *kv, int sequence, const kv_scope *scope, const int32_t *tokens, int from,
                               int to) {
    assert_true(kv_reserve(kv, sequence, to));
    bed_write(kv, sequence, scope, tokens, from, to);
    kv_commit(kv, sequence, to);
    bed_check(kv);
}

/* A whole sequence, from kv_begin to its last token; not released. */
static inline kv_match bed_run(kv_cache *kv, int sequence, const kv_scope *scope, const int32_t *tokens, int n) {
    kv_begin(kv, sequence, *scope, tokens, n, true);
    while (kv_loading(kv, sequence)) {
    }
    kv_match found = kv_found(kv, sequence);
    bed_check(kv);
    bed_compute(kv, sequence, scope, tokens, found.tokens, n);
    return found;
}

static inline void bed_fill(int32_t *tokens, int n, int32_t first) {
    for (int i = 0; i < n; i++) {
        tokens[i] = first + i;
    }
}

#endif
