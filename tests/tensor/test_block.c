/* Block formats against ../shared/conformance/quants: the reference's blocks and their exact values. */
#include "check.h"

#include <math.h>

#include "tensor/block.h"

#define QUANTS "../shared/conformance/quants/"

static void *read_file(const char *name, size_t *n) {
    char path[256];
    snprintf(path, sizeof path, QUANTS "%s", name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    void *data = malloc(*n + 1);
    rewind(f);
    if (fread(data, 1, *n, f) != *n)
        fail_msg("cannot read %s", path);
    fclose(f);
    return data;
}

/* Those that round plainly give the reference's very blocks; the rest search, and are held to its error. */
static const char *const types[] = {"F16",  "BF16", "Q4_0", "Q4_1", "Q5_0",  "Q5_1",
                                    "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"};

enum { TYPES = sizeof types / sizeof *types, PLAIN = 7, ROWS = 16, COLS = 1024 };

static void need_conformance(void) {
    size_t n;
    void  *data = read_file("normal.source.f32", &n);
    if (!data) {
        print_message("skipped: no %s here\n", QUANTS);
        skip();
    }
    free(data);
}

static void values_are_the_reference(void **state) {
    (void)state;
    need_conformance();
    for (size_t i = 0; i < TYPES; i++)
        for (int s = 0; s < 2; s++) {
            char   name[64];
            size_t n_blocks, n_values;
            snprintf(name, sizeof name, "%s.%s.bin", types[i], s ? "random" : "normal");
            uint8_t *blocks = read_file(name, &n_blocks);
            snprintf(name, sizeof name, "%s.%s.f32", types[i], s ? "random" : "normal");
            float              *expected = read_file(name, &n_values);
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
                    fail_msg("%s: value %lld is %.9g, not %.9g", name, (long long)k, (double)got[k],
                             (double)expected[k]);
            free(blocks);
            free(expected);
            free(got);
        }
}

static void blocks_are_the_reference(void **state) {
    (void)state;
    need_conformance();
    for (size_t i = 0; i < PLAIN; i++)
        for (int s = 0; s < 2; s++) {
            char        name[64];
            const char *set = s ? "edge" : "normal";
            size_t      n_blocks, n_values;
            snprintf(name, sizeof name, "%s.source.f32", set);
            float *source = read_file(name, &n_values);
            snprintf(name, sizeof name, "%s.%s.bin", types[i], set);
            uint8_t *expected = read_file(name, &n_blocks);
            assert_true(source && expected);
            uint8_t *got = calloc(1, n_blocks);
            block_from_f32(block_format_named(types[i])->type, source, got, (int64_t)(n_values / 4));
            for (size_t k = 0; k < n_blocks; k++)
                if (got[k] != expected[k])
                    fail_msg("%s: byte %zu is %d, not %d", name, k, got[k], expected[k]);
            free(source);
            free(expected);
            free(got);
        }
}

static double row_error(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < COLS; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / COLS);
}

/* Row by row no more than 1.02 times the error of the reference's blocks, which row 0 (zeros) must have too. */
static void errors_are_near_the_reference(void **state) {
    (void)state;
    need_conformance();
    for (size_t i = PLAIN; i < TYPES; i++)
        for (int s = 0; s < 2; s++) {
            char                name[64];
            const char         *set = s ? "edge" : "normal";
            const block_format *f = block_format_named(types[i]);
            size_t              n_blocks, n_values;
            snprintf(name, sizeof name, "%s.source.f32", set);
            float *source = read_file(name, &n_values);
            snprintf(name, sizeof name, "%s.%s.bin", types[i], set);
            uint8_t *reference = read_file(name, &n_blocks);
            assert_true(f && source && reference);
            assert_int_equal(n_values, ROWS * COLS * sizeof(float));
            uint8_t *blocks = calloc(1, n_blocks);
            float   *ours = malloc(n_values), *theirs = malloc(n_values);
            block_from_f32(f->type, source, blocks, ROWS * COLS);
            block_to_f32(f->type, blocks, ours, ROWS * COLS);
            block_to_f32(f->type, reference, theirs, ROWS * COLS);
            for (int r = 0; r < ROWS; r++) {
                double error = row_error(ours + r * COLS, source + r * COLS);
                double limit = row_error(theirs + r * COLS, source + r * COLS);
                if (!(error <= 1.02 * limit))
                    fail_msg("%s: row %d has an error of %g, the reference %g", name, r, error, limit);
            }
            free(source);
            free(reference);
            free(blocks);
            free(ours);
            free(theirs);
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

/* For the formats that search, whatever is finite stays finite, and NaN counts as 0. */
static void hostile_floats_make_blocks_without_harm(void **state) {
    (void)state;
    static const float nasty[] = {NAN,    INFINITY, -INFINITY, 1e-42f, -1e-42f, 3e38f,
                                  -3e38f, 0.0f,     1.0f,      -1e-7f, 70000.0f};
    uint64_t           seed = 1;
    for (size_t i = 0; i < TYPES; i++) {
        const block_format *f = block_format_named(types[i]);
        for (int round = 0; round < 200; round++) {
            float   in[256], out[256];
            uint8_t blocks[512];
            for (int k = 0; k < 256; k++) /* some rounds have only a few kinds of values */
                in[k] = nasty[test_random(&seed) % (1 + (uint64_t)round % 11) * 7 % 11];
            block_from_f32(f->type, in, blocks, 256);
            block_to_f32(f->type, blocks, out, 256);
            for (int k = 0; k < 256 && f->values == 256; k++)
                if (!isfinite(out[k]))
                    fail_msg("%s: %g became %g", f->name, (double)in[k], (double)out[k]);
        }
    }
}

/* What a superblock can hold exactly comes back, or very nearly: every step of 32 in each part, at the widest scale. */
static void superblocks_hold_values_on_their_grid(void **state) {
    (void)state;
    static const block_type super[] = {BLOCK_Q4_K, BLOCK_Q5_K, BLOCK_Q6_K};
    for (size_t i = 0; i < sizeof super / sizeof *super; i++) {
        int     steps = super[i] == BLOCK_Q4_K ? 16 : super[i] == BLOCK_Q5_K ? 32 : 64;
        float   in[256], out[256];
        uint8_t blocks[256];
        for (int k = 0; k < 256; k++) {
            int at = super[i] == BLOCK_Q6_K ? k % 16 * 4 - 32 : k % 32 % steps - steps / 2;
            in[k] = (float)at * 63.0f * 0.0078125f; /* a scale of 63, and a d of 2^-7, which is a half */
        }
        block_from_f32(super[i], in, blocks, 256);
        block_to_f32(super[i], blocks, out, 256);
        for (int k = 0; k < 256; k++)
            if (fabsf(out[k] - in[k]) > 0.002f * 63.0f * 0.0078125f * (float)steps)
                fail_msg("%s: %g became %g", block_format_of(super[i])->name, (double)in[k], (double)out[k]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_the_reference),       cmocka_unit_test(blocks_are_the_reference),
        cmocka_unit_test(every_half_goes_there_and_back), cmocka_unit_test(formats_are_known_by_number_and_name),
        cmocka_unit_test(row_sizes_are_checked),          cmocka_unit_test(hostile_floats_make_blocks_without_harm),
        cmocka_unit_test(errors_are_near_the_reference),  cmocka_unit_test(superblocks_hold_values_on_their_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
