/* Block formats against ../shared/conformance/quants: the reference's blocks and their exact values. */
#include "tensor/block_sets.h"

#include <math.h>

static void values_are_the_reference(void **state) {
    (void)state;
    need_conformance();
    for (size_t i = 0; i < TYPES; i++)
        for (int s = 0; s < 2; s++) {
            const char         *set = s ? "random" : "normal";
            size_t              n_blocks = 0, n_values = 0;
            uint8_t            *blocks = read_set(types[i], set, ".bin", &n_blocks);
            float              *expected = read_set(types[i], set, ".f32", &n_values);
            const block_format *f = block_format_named(types[i]);
            int64_t             n = (int64_t)(n_values / 4);
            size_t              bytes;
            assert_true(blocks && expected && f);
            assert_true(block_row_bytes(f, n, &bytes));
            assert_int_equal(bytes, n_blocks);
            float *got = malloc(n_values);
            block_to_f32(f->type, blocks, got, n);
            for (int64_t k = 0; k < n; k++)
                if (got[k] != expected[k] && !(isnan(got[k]) && isnan(expected[k])))
                    fail_msg("%s.%s: value %lld is %.9g, not %.9g", types[i], set, (long long)k, (double)got[k],
                             (double)expected[k]);
            free(blocks);
            free(expected);
            free(got);
        }
}

static void every_half_goes_there_and_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float    f = f16_to_f32((uint16_t)h);
        uint16_t back = f32_to_f16(f);
        if (isnan(f))
            assert_int_equal(back & 0x7e00, 0x7e00);
        else
            assert_int_equal(back, h);
    }
    assert_int_equal(f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(0x1p-24f), 1);
    assert_int_equal(f32_to_f16(0x1p-25f), 0);   /* a tie goes to even */
    assert_int_equal(f32_to_f16(0x1.8p-24f), 2); /* and here upwards */
    assert_int_equal(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(f32_to_f16(1.0f + 0x3p-11f), 0x3c02);
}

static void formats_are_known_by_number_and_name(void **state) {
    (void)state;
    assert_int_equal(block_format_of(8)->bytes, 34);
    assert_string_equal(block_format_of(2)->name, "q4_0");
    assert_ptr_equal(block_format_named("BF16"), block_format_of(30));
    assert_int_equal(block_format_of(14)->bytes, 210);
    static const struct {
        int         number, values, bytes;
        const char *name;
    } searched[] = {{10, 256, 84, "q2_k"},
                    {11, 256, 110, "q3_k"},
                    {20, 32, 18, "iq4_nl"},
                    {23, 256, 136, "iq4_xs"},
                    {39, 32, 17, "mxfp4"}};
    for (size_t i = 0; i < sizeof searched / sizeof *searched; i++) {
        const block_format *f = block_format_of(searched[i].number);
        assert_true(f && f == block_format_named(searched[i].name));
        assert_int_equal(f->values, searched[i].values);
        assert_int_equal(f->bytes, searched[i].bytes);
    }
    assert_null(block_format_of(4)); /* was once Q4_2 */
    assert_null(block_format_of(-1));
    assert_null(block_format_named("q9"));
    assert_null(block_format_named(NULL));
}

static void row_sizes_are_checked(void **state) {
    (void)state;
    size_t bytes = 0;
    assert_true(block_row_bytes(block_format_named("q4_0"), 64, &bytes));
    assert_int_equal(bytes, 36);
    assert_false(block_row_bytes(block_format_named("q4_0"), 33, &bytes));
    assert_false(block_row_bytes(block_format_named("q4_0"), -32, &bytes));
    assert_false(block_row_bytes(block_format_named("f32"), INT64_MAX, &bytes));
}

/* Rows of several blocks, so that a reader that goes on from a wrong place is seen, and each pattern by itself. */
static void every_byte_of_a_block_counts(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (size_t i = 0; i < TYPES; i++) {
        const block_format *f = block_format_named(types[i]);
        uint8_t             blocks[3 * 256];
        float               before[3 * 256], after[3 * 256];
        for (int k = 0; k < 3 * f->bytes; k++)
            blocks[k] = (uint8_t)(1 + test_random(&seed) % 60); /* as a half: a small number, not zero */
        block_to_f32(f->type, blocks, before, 3 * f->values);
        for (int k = 0; k < f->bytes; k++) {
            blocks[f->bytes + k] ^= 0x55;
            block_to_f32(f->type, blocks, after, 3 * f->values);
            blocks[f->bytes + k] ^= 0x55;
            size_t block = (size_t)f->values * sizeof(float);
            assert_memory_equal(before, after, block);
            assert_memory_equal(before + 2 * f->values, after + 2 * f->values, block);
            if (memcmp(before + f->values, after + f->values, block) == 0)
                fail_msg("%s: byte %d changes no value", f->name, k);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_the_reference),
        cmocka_unit_test(every_half_goes_there_and_back),
        cmocka_unit_test(formats_are_known_by_number_and_name),
        cmocka_unit_test(row_sizes_are_checked),
        cmocka_unit_test(every_byte_of_a_block_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
