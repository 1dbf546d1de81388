/* Keys and values go into a block and come out again, in every type and place. */
#include "check.h"

#include <math.h>

#include "tensor/block.h"
#include "tensor/kvblock.h"

static const kv_type types[] = {KV_F16, KV_F32, KV_Q8_0, KV_Q4_0};
#define EACH_TYPE(t) for (size_t t = 0; t < sizeof types / sizeof *types; t++)

static uint64_t seed = 11;

static float uniform(void) {
    return (float)((double)(test_random(&seed) >> 40) / (1 << 23) - 1.0);
}

static bool quantised(kv_type type) {
    return type == KV_Q8_0 || type == KV_Q4_0;
}

/* A block of keys and one of values; every byte beyond what the layout asks for is watched by the sanitizer. */
typedef struct block {
    kv_layout l;
    void     *keys, *values;
} block;

static block block_make(kv_type type, int dim) {
    block b;
    err   e = {0};
    assert_ok(kv_layout_of(type, dim, &b.l, &e), e);
    b.keys = aligned_alloc(64, b.l.key_bytes);
    b.values = aligned_alloc(64, b.l.value_bytes);
    memset(b.keys, 0xff, b.l.key_bytes);
    memset(b.values, 0xff, b.l.value_bytes);
    return b;
}

static void block_free(block *b) {
    free(b->keys);
    free(b->values);
}

/* What one value becomes: for Q8_0 within half a step of the group's scale, which is itself a rounded half. */
static void check_group(kv_type type, const float *x, const float *got, int n) {
    float    back[32], peak = 0;
    uint16_t half;
    uint8_t  coded[18];
    for (int i = 0; i < n; i++)
        peak = fabsf(x[i]) > peak ? fabsf(x[i]) : peak;
    if (type == KV_Q4_0) {
        block_from_f32(BLOCK_Q4_0, x, coded, 32);
        block_to_f32(BLOCK_Q4_0, coded, back, 32);
    }
    for (int i = 0; i < n; i++) {
        block_from_f32(BLOCK_F16, x + i, &half, 1);
        float expected = type == KV_F16 ? f16_to_f32(half) : type == KV_Q4_0 ? back[i] : x[i];
        float wrong = type == KV_Q8_0 ? peak / 127 * 0.501f + peak * 0x1p-11f : 0;
        if (!(fabsf(got[i] - expected) <= wrong))
            fail_msg("type %s: %g becomes %g", kv_type_name(type), (double)x[i], (double)got[i]);
    }
}

static void check_row(kv_type type, const float *x, const float *got, int dim) {
    int step = quantised(type) ? 32 : 1;
    for (int d = 0; d < dim; d += step)
        check_group(type, x + d, got + d, step);
}

static void values_come_out_as_they_went_in(void **state) {
    (void)state;
    static const int dims[] = {1, 7, 32, 64, 80, 96, 128, 4096};
    static float     x[2][KV_TOKENS][4096], got[4096];
    EACH_TYPE(t) for (size_t s = 0; s < sizeof dims / sizeof *dims; s++) {
        int dim = dims[s];
        if (quantised(types[t]) && dim % 32)
            continue;
        block b = block_make(types[t], dim);
        for (int i = 0; i < KV_TOKENS + 5; i++) { /* in a mixed order, and some again with other values */
            int place = i * 7 % KV_TOKENS;
            for (int d = 0; d < dim; d++) {
                float scale = ldexpf(1, (d / 32 + place) % 9 - 4);
                x[0][place][d] = uniform() * scale;
                x[1][place][d] = uniform() * scale;
            }
            kv_put_key(&b.l, b.keys, place, x[0][place]);
            kv_put_value(&b.l, b.values, place, x[1][place]);
        }
        for (int place = 0; place < KV_TOKENS; place++) {
            kv_get_key(&b.l, b.keys, place, got);
            check_row(types[t], x[0][place], got, dim);
            kv_get_value(&b.l, b.values, place, got);
            check_row(types[t], x[1][place], got, dim);
        }
        block_free(&b);
    }
}

/* The layout itself, which the kernels read: the places of one key's and one value's numbers. */
static void the_layout_is_the_one_of_the_header(void **state) {
    (void)state;
    float x[64];
    for (int d = 0; d < 64; d++)
        x[d] = (float)(d % 32 == 3 ? -127 : d % 32); /* Q8_0: scale 1 */
    block b = block_make(KV_F32, 64);
    kv_put_key(&b.l, b.keys, 5, x);
    kv_put_value(&b.l, b.values, 5, x);
    assert_true(((float *)b.keys)[9 * KV_TOKENS + 5] == 9 && ((float *)b.values)[5 * 64 + 9] == 9);
    block_free(&b);
    b = block_make(KV_Q8_0, 64);
    kv_put_key(&b.l, b.keys, 5, x);
    kv_put_value(&b.l, b.values, 5, x);
    const uint8_t *k = b.keys, *v = b.values;
    assert_int_equal(((const uint16_t *)b.keys)[1 * KV_TOKENS + 5], 0x3c00); /* 1.0, of the second group */
    assert_int_equal(kv_numbers_at(64), 64);
    assert_int_equal(k[64 + (8 + 2) * 64 + 4 * 5 + 1], 9 + 128); /* value 32 + 9: line 2, byte 1 */
    assert_int_equal((int8_t)v[64 + 5 * 64 + 32 + 3], -127);
    block_free(&b);
    for (int d = 0; d < 64; d++)
        x[d] = (float)(d % 16 - 8); /* Q4_0: scale 1 */
    b = block_make(KV_Q4_0, 64);
    kv_put_key(&b.l, b.keys, 5, x);
    kv_put_value(&b.l, b.values, 5, x);
    k = b.keys, v = b.values;
    assert_int_equal(k[64 + (4 + 1) * 64 + 4 * 5 + 2], 10 | 14 << 4); /* values 32 + 10 and 32 + 14 */
    assert_int_equal(v[64 + 5 * 32 + 16 + 9], 9 | 9 << 4);            /* values 32 + 9 and 32 + 25 */
    block_free(&b);
}

static void places_are_independent(void **state) {
    (void)state;
    EACH_TYPE(t) {
        block b = block_make(types[t], 96);
        float x[96], before[KV_TOKENS][96], now[96];
        for (int place = 0; place < KV_TOKENS; place++) {
            for (int d = 0; d < 96; d++)
                x[d] = uniform();
            kv_put_key(&b.l, b.keys, place, x);
            kv_put_value(&b.l, b.values, place, x);
        }
        for (int values = 0; values < 2; values++)
            for (int again = 0; again < KV_TOKENS; again++) {
                for (int place = 0; place < KV_TOKENS; place++)
                    (values ? kv_get_value : kv_get_key)(&b.l, values ? b.values : b.keys, place, before[place]);
                for (int d = 0; d < 96; d++)
                    x[d] = uniform() * 9;
                (values ? kv_put_value : kv_put_key)(&b.l, values ? b.values : b.keys, again, x);
                for (int place = 0; place < KV_TOKENS; place++) {
                    (values ? kv_get_value : kv_get_key)(&b.l, values ? b.values : b.keys, place, now);
                    assert_int_equal(memcmp(before[place], now, sizeof now) == 0, place != again);
                }
            }
        block_free(&b);
    }
}

static void what_is_stored_is_finite(void **state) {
    (void)state;
    EACH_TYPE(t) {
        block b = block_make(types[t], 64);
        float x[64], got[2][64];
        for (int d = 0; d < 64; d++)
            x[d] = d == 1 ? INFINITY : d == 2 ? -INFINITY : d == 3 ? 1e30f : d == 4 ? -65519.0f : d == 5 ? NAN : 1;
        for (int d = 32; d < 64; d++) /* too small for a scale */
            x[d] = d % 2 ? 1e-40f : -1e-42f;
        kv_put_key(&b.l, b.keys, 3, x);
        kv_put_value(&b.l, b.values, 3, x);
        kv_get_key(&b.l, b.keys, 3, got[0]);
        kv_get_value(&b.l, b.values, 3, got[1]);
        assert_memory_equal(got[0], got[1], sizeof got[0]);
        for (int d = 0; d < 64; d++)
            assert_true(isfinite(got[0][d]));
        if (types[t] == KV_F16)
            assert_true(got[0][1] == 65504 && got[0][2] == -65504 && got[0][3] == 65504 && got[0][4] == -65504);
        assert_true(got[0][5] == 0);
        for (int d = 32; d < 64; d++)
            assert_true(fabsf(got[0][d]) <= 1e-40f);
        block_free(&b);
    }
}

/* Every half comes back as itself, and every float next to a tie rounds as f32_to_f16 has it. */
static void halves_round_as_elsewhere(void **state) {
    (void)state;
    block b = block_make(KV_F16, 3);
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float two[2] = {f16_to_f32((uint16_t)h), f16_to_f32((uint16_t)(h + 1 < 0x7c00 ? h + 1 : h))};
        float middle = (two[0] + two[1]) / 2, x[3] = {-two[0], middle, nextafterf(middle, 1e9f)}, got[3];
        kv_put_value(&b.l, b.values, 15, x);
        kv_get_value(&b.l, b.values, 15, got);
        for (int d = 0; d < 3; d++)
            assert_true(got[d] == f16_to_f32(f32_to_f16(x[d])));
    }
    block_free(&b);
}

static void names_and_sizes(void **state) {
    (void)state;
    kv_type   type;
    kv_layout l;
    err       e = {0};
    EACH_TYPE(t) {
        assert_true(kv_type_named(kv_type_name(types[t]), &type));
        assert_int_equal(type, types[t]);
        assert_ok(kv_layout_of(types[t], 96, &l, &e), e);
        assert_true(l.key_bytes % 64 == 0 && l.value_bytes % 64 == 0 && l.dim == 96 && l.type == types[t]);
    }
    assert_true(kv_type_named("Q8_0", &type) && type == KV_Q8_0);
    assert_false(kv_type_named("q5", &type));
    assert_false(kv_type_named(NULL, &type));
    assert_ok(kv_layout_of(KV_F16, 64, &l, &e), e);
    assert_int_equal(l.key_bytes, 64 * 16 * 2);
    assert_ok(kv_layout_of(KV_F16, 5, &l, &e), e);
    assert_int_equal(l.value_bytes, 192);
    assert_ok(kv_layout_of(KV_Q4_0, 128, &l, &e), e);
    assert_int_equal(l.key_bytes, 4 * 32 + 128 * 8);
    assert_false(kv_layout_of(KV_Q8_0, 80, &l, &e));
    assert_says(e, "q8_0");
    assert_says(e, "80");
    assert_false(kv_layout_of(KV_F16, 0, &l, &e));
    assert_false(kv_layout_of(KV_F16, 4097, &l, &e));
    assert_says(e, "4097");
    assert_false(kv_layout_of((kv_type)9, 64, &l, &e));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_out_as_they_went_in), cmocka_unit_test(the_layout_is_the_one_of_the_header),
        cmocka_unit_test(places_are_independent),          cmocka_unit_test(what_is_stored_is_finite),
        cmocka_unit_test(halves_round_as_elsewhere),       cmocka_unit_test(names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
