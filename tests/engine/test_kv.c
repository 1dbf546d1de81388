/* The cache as the engine uses it: sizes, sharing, copying, what is found and why not, and who waits for whom. Random use
 * against a model is in test_kv_model.c, the disk in test_kv_spill.c. */
#include "engine/kv_bed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"

static const kv_scope *house = &bed_scopes[0], *other = &bed_scopes[1];

static kv_match begin(kv_cache *kv, int sequence, const kv_scope *scope, const int32_t *tokens, int n) {
    kv_begin(kv, sequence, *scope, tokens, n, true);
    assert_false(kv_loading(kv, sequence));
    bed_check(kv);
    return kv_found(kv, sequence);
}

static void release(kv_cache *kv, int sequence) {
    kv_release(kv, sequence);
    bed_check(kv);
}

/* ---- sizes ---- */

static kv_usage usage_of(const model_shape *shape, kv_options o) {
    err       e = {0};
    kv_cache *kv = kv_open(shape, &o, &e);
    assert_ok(kv, e);
    kv_usage u = kv_usage_read(kv);
    kv_close(kv);
    return u;
}

static void test_default_sizes(void **state) {
    (void)state;
    const size_t block = bed_block_bytes(KV_F16);
    /* 3 layers, 2 heads, 16 positions of 32 keys and 32 values of 2 bytes */
    assert_int_equal(block, 3 * 2 * 16 * 64 * 2);
    assert_int_equal(kv_bytes_of(&bed_shape, KV_F16, 17), 2 * block);
    assert_int_equal(kv_bytes_of(&bed_shape, KV_F16, 0), 0);
    assert_int_equal(bed_block_bytes(KV_F32), 2 * block);

    kv_usage u = usage_of(&bed_shape, (kv_options){.type = KV_F16, .sequences = 3, .context = 100});
    assert_int_equal(u.blocks, 3 * 7);
    assert_int_equal(u.bytes, 21 * block);
    assert_int_equal(u.block_tokens, 16);
    u = usage_of(&bed_shape, (kv_options){.type = KV_F16, .sequences = 2, .context = 100, .bytes = 50 * block + 1});
    assert_int_equal(u.blocks, 50);

    const model_shape large = {.layers = 40, .kv_heads = 8, .head_dim = 128};
    const size_t      large_block = kv_bytes_of(&large, KV_F16, 16);
    u = usage_of(&large, (kv_options){.type = KV_F16, .sequences = 16, .context = 4096});
    assert_int_equal(u.blocks, ((size_t)1 << 30) / large_block);
    u = usage_of(&large, (kv_options){.type = KV_F16, .sequences = 1, .context = 32768}); /* more than 1 GiB for one */
    assert_int_equal(u.blocks, 32768 / 16);
}

static void refused(const model_shape *shape, kv_options o, const char *part) {
    err e = {0};
    assert_null(kv_open(shape, &o, &e));
    assert_says(e, part);
}

static void test_refused_sizes(void **state) {
    (void)state;
    const size_t block = bed_block_bytes(KV_F16);
    kv_options   o = {.type = KV_F16, .sequences = 2, .context = 100, .bytes = 7 * block - 1};
    refused(&bed_shape, o, "one sequence of 100 tokens takes 86016 (f16)");
    o.bytes = 7 * block;
    assert_int_equal(usage_of(&bed_shape, o).blocks, 7);
    refused(&bed_shape, (kv_options){.sequences = 0, .context = 100}, "0 sequences of 100 tokens");
    refused(&bed_shape, (kv_options){.sequences = 1, .context = -5}, "-5 tokens");
    refused(&bed_shape, (kv_options){.sequences = 1, .context = 16, .bytes = SIZE_MAX}, "too large");

    const model_shape odd = {.layers = 1, .kv_heads = 1, .head_dim = 48},
                      none = {.layers = 0, .kv_heads = 1, .head_dim = 32};
    refused(&odd, (kv_options){.type = KV_Q8_0, .sequences = 1, .context = 16}, "32");
    refused(&none, (kv_options){.sequences = 1, .context = 16}, "0 layers");
    const model_shape vast = {.layers = INT32_MAX, .kv_heads = INT32_MAX, .head_dim = 4096};
    refused(&vast, (kv_options){.sequences = 1, .context = 16}, "cannot be addressed");
    const model_shape wide = {.layers = INT32_MAX, .kv_heads = 1 << 8, .head_dim = 128};
    refused(&wide, (kv_options){.sequences = INT32_MAX, .context = INT32_MAX}, "cannot be addressed");
    refused(&bed_shape, (kv_options){.sequences = 1, .context = 16, .disk = "no/such"}, "fingerprint");
}

static size_t resident_bytes(void) {
    long  pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*s %ld", &pages), 1);
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A large cache takes memory as it is used, and what comes back is used again first. */
static void test_untouched_memory(void **state) {
    (void)state;
    const model_shape shape = {.layers = 2, .kv_heads = 4, .head_dim = 64};
    kv_options        o = {.type = KV_F32, .sequences = 2, .context = 4096, .bytes = (size_t)512 << 20};
    err               e = {0};
    size_t            before = resident_bytes();
    kv_cache         *kv = kv_open(&shape, &o, &e);
    assert_ok(kv, e);
    static float   row[4 * 64];
    static int32_t tokens[4096];
    for (int round = 0; round < 50; round++) {
        kv_begin(kv, 0, *house, tokens, 320, false);
        assert_true(kv_reserve(kv, 0, 320));
        for (int p = 0; p < 320; p++) {
            kv_write(kv, 0, 0, p, row, row);
        }
        kv_commit(kv, 0, 320);
        kv_release(kv, 0);
    }
    assert_true(resident_bytes() < before + ((size_t)32 << 20));
    kv_close(kv);
}

/* ---- all types ---- */

static void check_type(kv_type type) {
    enum { N = 20 };
    kv_cache *kv = bed_open(type, 1, 64, 4);
    kv_layout layout;
    err       e = {0};
    int32_t   tokens[N];
    char keys[BED_HEADS][2][8192] __attribute__((aligned(64))), values[BED_HEADS][2][8192] __attribute__((aligned(64)));
    bed_fill(tokens, N, 5);
    assert_ok(kv_layout_of(type, BED_DIM, &layout, &e), e);
    assert_true(layout.key_bytes <= 8192 && layout.value_bytes <= 8192);
    bed_run(kv, 0, house, tokens, N);
    for (int layer = 0; layer < BED_LAYERS; layer++) {
        uint64_t chain = bed_root(house);
        memset(keys, 0, sizeof(keys));
        memset(values, 0, sizeof(values));
        for (int p = 0; p < N; p++) {
            float k[BED_HEADS * BED_DIM], v[BED_HEADS * BED_DIM], want[BED_DIM], got[BED_DIM];
            chain = bed_chain(chain, tokens[p]);
            bed_values(chain, layer, 0, k);
            bed_values(chain, layer, 1, v);
            for (int head = 0; head < BED_HEADS; head++) {
                kv_view     view = kv_head(kv, layer, head);
                const char *block = view.blocks + (size_t)kv_table(kv, 0)[p / KV_TOKENS] * view.block_bytes;
                assert_int_equal((uintptr_t)block % 64, 0);
                kv_put_key(&layout, keys[head][p / 16], p % 16, k + head * BED_DIM);
                kv_put_value(&layout, values[head][p / 16], p % 16, v + head * BED_DIM);
                kv_get_key(&layout, keys[head][p / 16], p % 16, want);
                kv_get_key(view.layout, block, p % 16, got);
                assert_memory_equal(got, want, sizeof(got));
                kv_get_value(&layout, values[head][p / 16], p % 16, want);
                kv_get_value(view.layout, block + view.values_at, p % 16, got);
                assert_memory_equal(got, want, sizeof(got));
            }
        }
    }
    kv_close(kv);
}

static void test_all_types(void **state) {
    (void)state;
    check_type(KV_F16);
    check_type(KV_F32);
    check_type(KV_Q8_0);
    check_type(KV_Q4_0);
}

/* ---- sharing ---- */

static void test_shared_once(void **state) {
    (void)state;
    enum { N = 4 };
    kv_cache *kv = bed_open(KV_F32, N, 128, 40);
    int32_t   tokens[N][100];
    for (int i = 0; i < N; i++) {
        bed_fill(tokens[i], 100, 1000);
        bed_fill(tokens[i] + 64, 36, 2000 + 100 * i);
        kv_match found = bed_run(kv, i, house, tokens[i], 100);
        assert_int_equal(found.tokens, i ? 64 : 0);
        assert_int_equal(found.miss, i ? KV_MISS_DIVERGE : KV_MISS_NEW);
        assert_memory_equal(kv_table(kv, i), kv_table(kv, 0), 4 * sizeof(int32_t));
        assert_int_not_equal(kv_table(kv, i)[4], i ? kv_table(kv, 0)[4] : -1);
    }
    kv_usage u = kv_usage_read(kv);
    assert_int_equal(u.held, 4 + N * 3);
    assert_int_equal(u.shared, 4);
    assert_int_equal(u.lookup_tokens, N * 99);
    assert_int_equal(u.hit_tokens, (N - 1) * 64);
    for (int i = 0; i < N; i++) {
        bed_verify(kv, i, house, tokens[i], 100);
    }
    for (int i = 0; i < N; i++) {
        release(kv, i);
    }
    u = kv_usage_read(kv);
    assert_int_equal(u.held, 0);
    assert_int_equal(u.cached, 4 + N * 2);
    kv_close(kv);
}

/* The last token is computed, whatever is stored; a block that it ends is copied in part. */
static void test_the_last_token_is_computed(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 128, 20);
    int32_t   tokens[65];
    bed_fill(tokens, 65, 3);
    bed_run(kv, 0, house, tokens, 64);
    kv_match found = begin(kv, 1, house, tokens, 64);
    assert_int_equal(found.tokens, 63);
    assert_int_equal(found.miss, KV_MISS_NONE);
    found = begin(kv, 1, house, tokens, 65); /* begins anew without kv_release */
    assert_int_equal(found.tokens, 64);
    assert_int_equal(found.miss, KV_MISS_NONE);
    found = begin(kv, 1, house, tokens, 33);
    assert_int_equal(found.tokens, 32);
    found = begin(kv, 1, house, tokens, 1);
    assert_int_equal(found.tokens, 0);
    assert_int_equal(found.miss, KV_MISS_NONE);
    found = begin(kv, 1, house, tokens, 0);
    assert_int_equal(found.tokens, 0);
    kv_close(kv);
}

static void test_copy_leaves_the_source(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 3, 128, 20);
    int32_t   a[48], b[60], c[60];
    bed_fill(a, 48, 10);
    bed_fill(b, 60, 10);
    bed_fill(c, 60, 10);
    bed_fill(b + 41, 19, 500); /* nine tokens of the third block are the same */
    bed_run(kv, 0, house, a, 48);
    release(kv, 0);
    kv_match found = bed_run(kv, 1, house, b, 60);
    assert_int_equal(found.tokens, 41);
    assert_int_equal(found.miss, KV_MISS_DIVERGE);
    assert_int_equal(kv_usage_read(kv).copied, 1);
    bed_verify(kv, 1, house, b, 60);
    assert_int_equal(begin(kv, 0, house, a, 48).tokens, 47);
    bed_verify(kv, 0, house, a, 47);
    /* Three tokens are not worth a copy. */
    c[35] = 499;
    assert_int_equal(begin(kv, 2, house, c, 60).tokens, 32);
    assert_int_equal(kv_usage_read(kv).copied, 2);
    kv_close(kv);
}

/* No block is free for the copy, as all are held: what is whole is found. */
static void test_no_block_for_the_copy(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 64, 4);
    int32_t   a[64];
    bed_fill(a, 64, 10);
    bed_run(kv, 0, house, a, 64);
    kv_match found = begin(kv, 1, house, a, 60);
    assert_int_equal(found.tokens, 48);
    assert_int_equal(found.miss, KV_MISS_NONE);
    assert_false(kv_reserve(kv, 1, 60));
    assert_int_equal(kv_room(kv, 1), 0);
    bed_check(kv);
    kv_close(kv);
}

/* Two sequences that computed the same at the same time: it is stored once. */
static void test_equal_blocks_become_one(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 64, 10);
    int32_t   tokens[60];
    bed_fill(tokens, 60, 10);
    begin(kv, 0, house, tokens, 60);
    begin(kv, 1, house, tokens, 60);
    bed_compute(kv, 0, house, tokens, 0, 40);
    assert_int_equal(kv_usage_read(kv).held, 3);
    bed_compute(kv, 1, house, tokens, 0, 40);
    assert_int_equal(kv_usage_read(kv).held, 4);
    assert_int_equal(kv_usage_read(kv).shared, 2);
    assert_memory_equal(kv_table(kv, 0), kv_table(kv, 1), 2 * sizeof(int32_t));
    bed_compute(kv, 1, house, tokens, 40, 60);
    bed_compute(kv, 0, house, tokens, 40, 60);
    bed_verify(kv, 0, house, tokens, 60);
    bed_verify(kv, 1, house, tokens, 60);
    kv_close(kv);
}

static void test_without_reuse(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 64, 8);
    int32_t   tokens[60];
    bed_fill(tokens, 60, 10);
    kv_begin(kv, 0, *house, tokens, 60, false);
    assert_int_equal(kv_found(kv, 0).miss, KV_MISS_OFF);
    bed_compute(kv, 0, house, tokens, 0, 60);
    assert_int_equal(begin(kv, 1, house, tokens, 60).miss, KV_MISS_NEW); /* it leaves nothing either */
    bed_compute(kv, 1, house, tokens, 0, 60);
    release(kv, 0);
    kv_begin(kv, 0, *house, tokens, 60, false);
    assert_int_equal(kv_found(kv, 0).tokens, 0);
    assert_int_equal(kv_advance(kv, 0, 0), 0);
    kv_rank(kv, 1, 1);
    kv_rank(kv, 0, 2);
    assert_false(kv_awaits(kv, 0, 0));
    assert_int_equal(kv_usage_read(kv).lookup_tokens, 59);
    kv_close(kv);
}

/* ---- leaving and missing ---- */

static void test_least_recently_used_goes(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 1, 64, 8);
    int32_t   a[33], b[33], c[65];
    bed_fill(a, 33, 100);
    bed_fill(b, 33, 200);
    bed_fill(c, 65, 300);
    for (int round = 0; round < 2; round++) { /* a, b, a */
        bed_run(kv, 0, house, a, 33);
        release(kv, 0);
        if (!round) {
            bed_run(kv, 0, house, b, 33);
            release(kv, 0);
        }
    }
    bed_run(kv, 0, house, c, 64); /* four are free, none goes */
    release(kv, 0);
    assert_int_equal(kv_usage_read(kv).evicted, 0);
    c[0] = 999;
    bed_run(kv, 0, house, c, 48); /* three go: both of b, then a's tail */
    release(kv, 0);
    assert_int_equal(kv_usage_read(kv).evicted, 3);
    kv_match found = begin(kv, 0, house, b, 33);
    assert_int_equal(found.tokens, 0);
    assert_int_equal(found.miss, KV_MISS_EVICTED);
    found = begin(kv, 0, house, a, 33);
    assert_int_equal(found.tokens, 16);
    assert_int_equal(found.miss, KV_MISS_EVICTED);
    kv_close(kv);
}

static void test_why_not_more(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 1, 64, 8);
    int32_t   a[40], b[40];
    bed_fill(a, 40, 100);
    bed_run(kv, 0, house, a, 40);
    release(kv, 0);
    bed_fill(b, 40, 500);
    assert_int_equal(begin(kv, 0, house, b, 40).miss, KV_MISS_NEW);
    b[0] = a[0]; /* as every text of some models: no beginning in common */
    assert_int_equal(begin(kv, 0, house, b, 40).miss, KV_MISS_NEW);
    memcpy(b, a, 4 * sizeof(*a));
    kv_match found = begin(kv, 0, house, b, 40);
    assert_int_equal(found.tokens, 4);
    assert_int_equal(found.miss, KV_MISS_DIVERGE);
    found = begin(kv, 0, house, a, 40); /* its last eight were no whole block */
    assert_int_equal(found.tokens, 32);
    assert_int_equal(found.miss, KV_MISS_NONE);
    assert_int_equal(begin(kv, 0, house, a, 33).miss, KV_MISS_NONE);
    kv_close(kv);
}

static void test_scopes_are_apart(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 64, 4);
    int32_t   a[64], b[64];
    bed_fill(a, 64, 100);
    bed_fill(b, 64, 900);
    bed_run(kv, 0, house, a, 32);
    kv_match found = begin(kv, 1, other, a, 32);
    assert_int_equal(found.tokens, 0);
    assert_int_equal(found.miss, KV_MISS_NEW);
    kv_rank(kv, 0, 1);
    kv_rank(kv, 1, 2);
    assert_false(kv_awaits(kv, 1, 0));
    bed_compute(kv, 1, other, a, 0, 32);
    assert_int_equal(kv_usage_read(kv).shared, 0);
    bed_verify(kv, 0, house, a, 32);
    bed_verify(kv, 1, other, a, 32);
    release(kv, 0);
    release(kv, 1);
    bed_run(kv, 0, other, b, 64); /* all else goes */
    release(kv, 0);
    assert_int_equal(begin(kv, 0, house, a, 32).miss, KV_MISS_EVICTED);
    assert_int_equal(begin(kv, 0, other, a, 32).miss, KV_MISS_EVICTED);
    assert_int_equal(begin(kv, 0, &bed_scopes[2], a, 32).miss, KV_MISS_NEW);
    kv_close(kv);
}

static void test_reserve_and_room(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 64, 6);
    int32_t   a[64], b[64];
    bed_fill(a, 64, 100);
    bed_fill(b, 64, 900);
    begin(kv, 0, house, a, 10);
    assert_int_equal(kv_room(kv, 0), 64);
    assert_false(kv_reserve(kv, 0, 65));
    bed_compute(kv, 0, house, a, 0, 10);
    assert_int_equal(kv_room(kv, 0), 54);
    bed_compute(kv, 0, house, a, 10, 50); /* four blocks */
    begin(kv, 1, house, b, 50);
    assert_int_equal(kv_room(kv, 1), 32);
    assert_false(kv_reserve(kv, 1, 40));
    bed_check(kv);
    assert_int_equal(kv_room(kv, 1), 32); /* whether it took them or not */
    assert_true(kv_reserve(kv, 1, 32));
    bed_verify(kv, 0, house, a, 50);
    release(kv, 0);
    assert_true(kv_reserve(kv, 1, 64));
    assert_int_equal(kv_usage_read(kv).evicted, 1); /* the fourth was not whole, so it was free */
    kv_commit(kv, 1, 0);
    kv_close(kv);
}

/* ---- together ---- */

/* A small engine: sequences of one prompt that arrive together; older ones first, a chunk a step. */
static void test_arriving_together(void **state) {
    (void)state;
    enum { N = 5, LENGTH = 100, CHUNK = 23 };
    kv_cache *kv = bed_open(KV_F32, N, 128, 60);
    int32_t   tokens[N][LENGTH];
    int       at[N] = {0}, computed = 0, steps = 0;
    for (int i = 0; i < N; i++) {
        bed_fill(tokens[i], LENGTH, 7);
        tokens[i][LENGTH - 1] = i; /* the last block is each one's own */
        kv_rank(kv, i, 10 - i);    /* the last is the oldest */
        at[i] = begin(kv, i, house, tokens[i], LENGTH).tokens;
    }
    for (bool busy = true; busy; steps++) {
        busy = false;
        for (int i = N - 1; i >= 0; i--) {
            if (at[i] % KV_TOKENS == 0) {
                at[i] = kv_advance(kv, i, at[i]);
            }
            if (at[i] == LENGTH || kv_awaits(kv, i, at[i])) {
                continue;
            }
            int to = at[i] + CHUNK < LENGTH ? at[i] + CHUNK : LENGTH;
            bed_compute(kv, i, house, tokens[i], at[i], to);
            computed += to - at[i];
            at[i] = to;
        }
        for (int i = 0; i < N; i++) {
            busy = busy || at[i] < LENGTH;
        }
        assert_true(steps < 100);
    }
    assert_int_equal(computed, 96 + N * 4);
    assert_int_equal(kv_usage_read(kv).held, 6 + N);
    for (int i = 0; i < N; i++) {
        bed_verify(kv, i, house, tokens[i], LENGTH);
    }
    kv_close(kv);
}

static void test_who_waits(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 3, 128, 30);
    int32_t   a[100], b[100], c[100];
    bed_fill(a, 100, 7);
    bed_fill(b, 100, 7);
    bed_fill(c, 100, 7);
    c[60] = 1; /* goes another way in the block from 48 on */
    begin(kv, 0, house, a, 100);
    begin(kv, 1, house, b, 100);
    kv_rank(kv, 0, 5);
    kv_rank(kv, 1, 5);
    assert_false(kv_awaits(kv, 0, 0)); /* the same rank: neither waits */
    assert_false(kv_awaits(kv, 1, 0));
    kv_rank(kv, 1, 6);
    assert_false(kv_awaits(kv, 0, 0));
    assert_true(kv_awaits(kv, 1, 0));
    bed_compute(kv, 0, house, a, 0, 40);
    assert_false(kv_awaits(kv, 1, 0)); /* the block is there */
    assert_int_equal(kv_advance(kv, 1, 0), 32);
    assert_int_equal(kv_advance(kv, 1, 32), 32);
    assert_true(kv_awaits(kv, 1, 32)); /* half computed */
    bed_compute(kv, 0, house, a, 40, 50);
    assert_int_equal(kv_advance(kv, 1, 32), 48);
    assert_true(kv_awaits(kv, 1, 48));
    begin(kv, 2, house, c, 100);
    kv_rank(kv, 2, 7);
    assert_int_equal(kv_found(kv, 2).tokens, 48);
    assert_false(kv_awaits(kv, 2, 48));
    release(kv, 1);
    /* The older one ends before the block does: nobody computes it. */
    begin(kv, 1, house, a, 60);
    kv_rank(kv, 1, 1);
    kv_rank(kv, 0, 3);
    assert_false(kv_awaits(kv, 0, 50)); /* not at a block's beginning */
    release(kv, 0);
    begin(kv, 0, house, a, 100);
    assert_int_equal(kv_found(kv, 0).tokens, 48);
    assert_false(kv_awaits(kv, 0, 48));
    begin(kv, 1, house, a, 64); /* computes its last token, and with it the block */
    assert_true(kv_awaits(kv, 0, 48));
    assert_false(kv_awaits(kv, 1, 48));
    kv_close(kv);
}

/* What it had reserved before is given back for what it takes over. */
static void test_advance_over_reserved(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 128, 16);
    int32_t   tokens[100];
    bed_fill(tokens, 100, 7);
    begin(kv, 0, house, tokens, 100);
    begin(kv, 1, house, tokens, 100);
    assert_true(kv_reserve(kv, 1, 50));
    bed_compute(kv, 0, house, tokens, 0, 100);
    assert_int_equal(kv_usage_read(kv).held, 11);
    assert_int_equal(kv_advance(kv, 1, 0), 96);
    bed_check(kv);
    assert_int_equal(kv_usage_read(kv).held, 7);
    assert_int_equal(kv_usage_read(kv).shared, 6);
    bed_compute(kv, 1, house, tokens, 96, 100);
    bed_verify(kv, 1, house, tokens, 100);
    kv_close(kv);
}

/* ---- usage, from another thread ---- */

typedef struct watcher {
    const kv_cache *kv;
    atomic_bool     stop;
    atomic_int      looks;
    int64_t         wrong;
} watcher;

static void *watch(void *arg) {
    watcher *w = arg;
    int64_t  hits = 0;
    while (!atomic_load(&w->stop)) {
        kv_usage u = kv_usage_read(w->kv);
        w->wrong += u.blocks != 12 || u.held < 0 || u.held > 12 || u.cached < 0 || u.cached > 12 || u.hit_tokens < hits;
        hits = u.hit_tokens;
        atomic_fetch_add(&w->looks, 1);
    }
    return NULL;
}

static void test_usage_from_another_thread(void **state) {
    (void)state;
    kv_cache *kv = bed_open(KV_F32, 2, 64, 12);
    watcher   w = {.kv = kv};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
    for (int i = 0; i < 300 || !atomic_load(&w.looks); i++) {
        int32_t tokens[60];
        bed_fill(tokens, 60, i % 5);
        bed_run(kv, i % 2, house, tokens, 60);
        kv_release(kv, i % 2);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(w.wrong, 0);
    kv_close(kv);
}

/* ---- time ---- */

/* The bound is generous, for machines under load; the time is told. */
static void test_time_of_begin(void **state) {
    (void)state;
    enum { N = 2001 };
    const model_shape shape = {.layers = 1, .kv_heads = 1, .head_dim = 32};
    kv_options        o = {.type = KV_F16, .sequences = 2, .context = 4096};
    err               e = {0};
    kv_cache         *kv = kv_open(&shape, &o, &e);
    static int32_t    tokens[N];
    assert_ok(kv, e);
    bed_fill(tokens, N, 0);
    kv_begin(kv, 0, *house, tokens, N, true);
    assert_true(kv_reserve(kv, 0, N));
    kv_commit(kv, 0, N);
    kv_release(kv, 0);
    int64_t best = INT64_MAX, ended = INT64_MAX;
    for (int i = 0; i < 50; i++) {
        int64_t start = clock_us();
        kv_begin(kv, 0, *house, tokens, N, true);
        int64_t begun = clock_us();
        assert_int_equal(kv_found(kv, 0).tokens, 2000);
        kv_release(kv, 0);
        int64_t end = clock_us();
        best = begun - start < best ? begun - start : best;
        ended = end - begun < ended ? end - begun : ended;
    }
    print_message("kv_begin with 2000 stored tokens: %lld us, kv_release: %lld us\n", (long long)best,
                  (long long)ended);
    assert_true(best < 1000);
    kv_close(kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_sizes),
        cmocka_unit_test(test_refused_sizes),
        cmocka_unit_test(test_untouched_memory),
        cmocka_unit_test(test_all_types),
        cmocka_unit_test(test_shared_once),
        cmocka_unit_test(test_the_last_token_is_computed),
        cmocka_unit_test(test_copy_leaves_the_source),
        cmocka_unit_test(test_no_block_for_the_copy),
        cmocka_unit_test(test_equal_blocks_become_one),
        cmocka_unit_test(test_without_reuse),
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_why_not_more),
        cmocka_unit_test(test_scopes_are_apart),
        cmocka_unit_test(test_reserve_and_room),
        cmocka_unit_test(test_arriving_together),
        cmocka_unit_test(test_who_waits),
        cmocka_unit_test(test_advance_over_reserved),
        cmocka_unit_test(test_usage_from_another_thread),
        cmocka_unit_test(test_time_of_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
