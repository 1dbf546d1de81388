/* block_from_f32: against the blocks and the errors of the reference in ../shared/conformance/quants, against searches
 * through all scales there are, and with what no tensor should hold. */
#include "tensor/block_sets.h"

#include <float.h>
#include <math.h>

static double rms_between(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / n);
}

/* To blocks and back. */
static void through(const block_format *f, const float *x, float *y, int n) {
    uint8_t *blocks = malloc((size_t)n / (size_t)f->values * (size_t)f->bytes);
    block_from_f32(f->type, x, blocks, n);
    block_to_f32(f->type, blocks, y, n);
    free(blocks);
}

static void blocks_are_the_reference(void **state) {
    (void)state;
    need_conformance();
    for (size_t i = 0; i < PLAIN; i++)
        for (int s = 0; s < 2; s++) {
            const char *set = s ? "edge" : "normal";
            size_t      n_blocks = 0, n_values = 0;
            float      *source = read_set("", set, ".source.f32", &n_values);
            uint8_t    *expected = read_set(types[i], set, ".bin", &n_blocks);
            assert_true(source && expected);
            uint8_t *got = calloc(1, n_blocks);
            block_from_f32(block_format_named(types[i])->type, source, got, (int64_t)(n_values / 4));
            for (size_t k = 0; k < n_blocks; k++)
                if (got[k] != expected[k])
                    fail_msg("%s.%s: byte %zu is %d, not %d", types[i], set, k, got[k], expected[k]);
            free(source);
            free(expected);
            free(got);
        }
}

/* Number `row` of "rms_error_by_row" of a type and set in report.json. */
static double reported(const char *report, const char *type, const char *set, int row) {
    char key[32];
    snprintf(key, sizeof key, "\"%s\": {", type);
    const char *at = strstr(report, key);
    snprintf(key, sizeof key, "\"%s\": {", set);
    at = at ? strstr(at, key) : NULL;
    at = at ? strstr(at, "\"rms_error_by_row\": [") : NULL;
    at = at ? strchr(at, '[') : NULL;
    for (int i = 0; at && i < row; i++)
        at = strchr(at + 1, ',');
    assert_non_null(at);
    return strtod(at + 1, NULL);
}

/* Row by row no worse than the reference's blocks (those are exact), nor than its report (that has four digits). Row 0 of
 * `edge`, zeros, so becomes zeros. */
static void no_row_is_worse_than_the_reference(void **state) {
    (void)state;
    need_conformance();
    size_t n;
    char  *report = read_set("", "report", ".json", &n);
    assert_non_null(report);
    for (size_t i = 0; i < TYPES; i++)
        for (int s = 0; s < 2; s++) {
            const char         *set = s ? "edge" : "normal";
            const block_format *f = block_format_named(types[i]);
            size_t              n_blocks = 0, n_values = 0;
            float              *source = read_set("", set, ".source.f32", &n_values);
            uint8_t            *reference = read_set(types[i], set, ".bin", &n_blocks);
            assert_true(f && source && reference);
            assert_int_equal(n_values, ROWS * COLS * sizeof(float));
            float *ours = malloc(n_values), *theirs = malloc(n_values);
            through(f, source, ours, ROWS * COLS);
            block_to_f32(f->type, reference, theirs, ROWS * COLS);
            for (int r = 0; r < ROWS; r++) {
                double error = rms_between(ours + r * COLS, source + r * COLS, COLS);
                double limit = rms_between(theirs + r * COLS, source + r * COLS, COLS);
                double report_limit = reported(report, types[i], set, r);
                if (!(error <= 1.0001 * limit && error <= 1.001 * report_limit))
                    fail_msg("%s.%s: row %d has an error of %g, the reference %g, reported %g", types[i], set, r, error,
                             limit, report_limit);
            }
            free(source);
            free(reference);
            free(ours);
            free(theirs);
        }
    free(report);
}

/* ---- inputs of our own ---- */

static float normal(uint64_t *seed) { /* Irwin and Hall: a sum of twelve */
    float sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (float)(test_random(seed) >> 40) * 0x1p-24f;
    return sum;
}

enum { KINDS = 7 };

/* Like weights, an outlier, far from zero, huge spread of sizes, steps, small, mostly zero. */
static void fill(float *x, int n, int kind, uint64_t *seed) {
    for (int i = 0; i < n; i++) {
        float v = normal(seed);
        x[i] = kind == 0   ? 0.02f * v
               : kind == 1 ? (i % 64 == 9 ? 8 * v : v)
               : kind == 2 ? 10 + v
               : kind == 3 ? ldexpf(v, (int)(test_random(seed) % 16) - 8)
               : kind == 4 ? roundf(3 * v)
               : kind == 5 ? 1e-3f * v
                           : (test_random(seed) % 8 ? 0 : v);
    }
}

/* The error of plain rounding to multiples of a step of which `levels` reach from end to end. */
static double even_error(const float *x, int n, int part, int levels, bool symmetric) {
    double sum = 0;
    for (int p = 0; p < n; p += part) {
        float low = 0, high = 0;
        for (int i = p; i < p + part; i++) {
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
        }
        low = symmetric ? fminf(low, -high) : low;
        high = symmetric ? -low : high;
        double step = (double)(high - low) / levels;
        for (int i = p; i < p + part; i++) {
            double off = step > 0 ? (double)x[i] - step * nearbyint((double)x[i] / step) : 0;
            sum += off * off;
        }
    }
    return sqrt(sum / n);
}

/* A search must beat plain rounding with a float's scale, although its own scales are coarse. IQ4's uneven levels need not
 * do so far from zero, and Q8_0 is plain. */
static void errors_are_those_of_the_bits_spent(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int         part, levels;
        bool        symmetric;
        double      allowed;
    } formats[] = {{"q2_k", 16, 3, false, 0.95},   {"q3_k", 16, 7, true, 0.85},  {"q4_k", 32, 15, false, 0.95},
                   {"q5_k", 32, 31, false, 0.95},  {"q6_k", 16, 63, true, 0.95}, {"iq4_nl", 32, 15, true, 1.15},
                   {"iq4_xs", 32, 15, true, 1.15}, {"q8_0", 32, 254, true, 1.02}};
    enum { N = 8192 };
    float   *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    uint64_t seed = 3;
    for (int kind = 0; kind < KINDS; kind++) {
        fill(x, N, kind, &seed);
        for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
            const block_format *f = block_format_named(formats[i].name);
            through(f, x, y, N);
            double error = rms_between(x, y, N),
                   even = even_error(x, N, formats[i].part, formats[i].levels, formats[i].symmetric);
            if (!(error <= formats[i].allowed * even))
                fail_msg("%s, inputs %d: error %g, of even steps %g", f->name, kind, error, even);
        }
    }
    free(x);
    free(y);
}

/* IQ4_NL and MXFP4 have one scale a block: all that there are, each with the nearest levels. */
static double best_of_all_scales(const block_format *f, const float *x) {
    double least = INFINITY;
    for (uint32_t scale = 0; scale < (f->type == BLOCK_MXFP4 ? 253 : 0xfc00); scale++) {
        uint8_t block[32] = {(uint8_t)scale, (uint8_t)(scale >> 8)};
        float   levels[32];
        double  sum = 0;
        if (f->type == BLOCK_IQ4_NL && (scale & 0x7fff) > 0x7bff)
            continue;
        for (int i = 0; i < 16; i++)
            block[f->bytes - 16 + i] = (uint8_t)(i * 0x11);
        block_to_f32(f->type, block, levels, 32);
        for (int i = 0; i < 32 && sum < least; i++) {
            double near = INFINITY;
            for (int j = 0; j < 16; j++)
                near = fmin(near, fabs((double)x[i] - (double)levels[j]));
            sum += near * near;
        }
        least = fmin(least, sum);
    }
    return sqrt(least / 32);
}

static void single_scales_are_near_the_best(void **state) {
    (void)state;
    static const block_type single[] = {BLOCK_IQ4_NL, BLOCK_MXFP4};
    uint64_t                seed = 11;
    for (int k = 0; k < 2; k++)
        for (int kind = 0; kind < KINDS; kind++) {
            const block_format *f = block_format_of((int)single[k]);
            double              ours = 0, best = 0;
            for (int b = 0; b < 4; b++) {
                float x[32], y[32];
                fill(x, 32, kind, &seed);
                through(f, x, y, 32);
                double error = rms_between(x, y, 32), least = best_of_all_scales(f, x);
                ours += error * error;
                best += least * least;
                if (f->type == BLOCK_MXFP4 &&
                    error > 1.00001 * least) /* as few exponents are sensible, the very best */
                    fail_msg("mxfp4, inputs %d: error %g, possible %g", kind, error, least);
            }
            if (sqrt(ours) > 1.03 * sqrt(best))
                fail_msg("%s, inputs %d: error %g, possible %g", f->name, kind, sqrt(ours), sqrt(best));
        }
}

/* What blocks hold comes back from blocks: exactly with one scale, and otherwise nearly. */
static void blocks_of_blocks_are_no_worse(void **state) {
    (void)state;
    enum { N = 4096 };
    float    x[N], once[N], twice[N];
    uint64_t seed = 7;
    for (int kind = 0; kind < KINDS; kind++) {
        fill(x, N, kind, &seed);
        for (size_t i = 0; i < TYPES; i++) {
            const block_format *f = block_format_named(types[i]);
            through(f, x, once, N);
            through(f, once, twice, N);
            double first = rms_between(x, once, N), second = rms_between(once, twice, N);
            bool   single = i < PLAIN || f->type == BLOCK_IQ4_NL || f->type == BLOCK_MXFP4;
            if (second > (single ? 0 : 0.5 * first))
                fail_msg("%s, inputs %d: error %g, then %g", f->name, kind, first, second);
        }
    }
}

/* Blocks do not depend on the ones beside them, and nothing is written beyond them. */
static void blocks_stand_alone(void **state) {
    (void)state;
    enum { N = 1024 };
    float    x[N];
    uint64_t seed = 13;
    fill(x, N, 3, &seed);
    for (size_t i = 0; i < TYPES; i++) {
        const block_format *f = block_format_named(types[i]);
        size_t              bytes = (size_t)(N / f->values * f->bytes);
        uint8_t             whole[N * 2 + 1], piece[257 * 2];
        memset(whole, 0xa5, sizeof whole);
        block_from_f32(f->type, x, whole, N);
        assert_int_equal(whole[bytes], 0xa5);
        for (int b = 0; b < N / f->values; b++) {
            memset(piece, 0xa5, sizeof piece);
            block_from_f32(f->type, x + b * f->values, piece, f->values);
            assert_memory_equal(piece, whole + b * f->bytes, (size_t)f->bytes);
            assert_int_equal(piece[f->bytes], 0xa5);
        }
    }
}

/* ---- what no tensor should hold ---- */

static void zeros_stay_zeros(void **state) {
    (void)state;
    for (size_t i = 0; i < TYPES; i++)
        for (int s = 0; s < 3; s++) {
            float x[256], y[256];
            for (int k = 0; k < 256; k++)
                x[k] = s == 0 ? 0 : s == 1 ? -0.0f : 1e-45f;
            through(block_format_named(types[i]), x, y, 256);
            for (int k = 0; k < 256; k++)
                if (y[k] != 0 && !(s == 2 && fabsf(y[k]) < 1e-38f))
                    fail_msg("%s: %g became %g", types[i], (double)x[k], (double)y[k]);
        }
}

static void hostile_floats_become_finite(void **state) {
    (void)state;
    static const float nasty[] = {NAN,    INFINITY, -INFINITY, 1e-42f, -1e-42f, FLT_MAX,
                                  -3e38f, 0.0f,     1.0f,      -1e-7f, 70000.0f};
    uint64_t           seed = 1;
    for (size_t i = 2; i < TYPES; i++)
        for (int round = 0; round < 300; round++) {
            float in[256], out[256];
            for (int k = 0; k < 256; k++) /* some rounds have only a few kinds of values */
                in[k] = nasty[test_random(&seed) % (1 + (uint64_t)round % 11) * 7 % 11];
            through(block_format_named(types[i]), in, out, 256);
            for (int k = 0; k < 256; k++)
                if (!isfinite(out[k]))
                    fail_msg("%s: %g became %g", types[i], (double)in[k], (double)out[k]);
        }
}

/* NaN counts as 0: nothing beside it changes. */
static void nan_counts_as_zero(void **state) {
    (void)state;
    uint64_t seed = 17;
    for (size_t i = 2; i < TYPES; i++)
        for (int round = 0; round < 20; round++) {
            float x[256], with[256], without[256], y[256], z[256];
            fill(x, 256, round % KINDS, &seed);
            for (int k = 0; k < 256; k++) {
                bool drop = test_random(&seed) % 16 == 0;
                with[k] = drop ? NAN : x[k];
                without[k] = drop ? 0 : x[k];
            }
            through(block_format_named(types[i]), with, y, 256);
            through(block_format_named(types[i]), without, z, 256);
            assert_memory_equal(y, z, sizeof y);
        }
}

/* Too large for a half as a scale: the sign stays, and the size as far as it goes. */
static void large_values_saturate(void **state) {
    (void)state;
    for (size_t i = 2; i < TYPES; i++)
        for (int s = 0; s < 3; s++) {
            static const float sizes[] = {1e9f, FLT_MAX, INFINITY};
            float              x[256], y[256];
            for (int k = 0; k < 256; k++)
                x[k] = k % 2 ? sizes[s] : -sizes[s];
            through(block_format_named(types[i]), x, y, 256);
            for (int k = 0; k < 256; k++)
                if (!isfinite(y[k]) || fabsf(y[k]) < 60000 || (y[k] > 0) != (k % 2 == 1))
                    fail_msg("%s: %g became %g", types[i], (double)x[k], (double)y[k]);
        }
}

/* These hold each value by itself: infinity and NaN stay, what is finite stays finite. */
static void single_values_stay_what_they_are(void **state) {
    (void)state;
    const float x[] = {INFINITY, -INFINITY, NAN, FLT_MAX, -FLT_MAX, 65519, 65520, -1e6f};
    float       y[8];
    through(block_format_of(BLOCK_F16), x, y, 8);
    assert_true(y[0] == INFINITY && y[1] == -INFINITY && isnan(y[2]));
    assert_true(y[3] == 65504 && y[4] == -65504 && y[5] == 65504 && y[6] == 65504 && y[7] == -65504);
    through(block_format_of(BLOCK_BF16), x, y, 8);
    assert_true(y[0] == INFINITY && y[1] == -INFINITY && isnan(y[2]));
    assert_true(y[3] == 0x1.fep127f && y[4] == -0x1.fep127f && y[5] == 65536);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_the_reference),
        cmocka_unit_test(no_row_is_worse_than_the_reference),
        cmocka_unit_test(errors_are_those_of_the_bits_spent),
        cmocka_unit_test(single_scales_are_near_the_best),
        cmocka_unit_test(blocks_of_blocks_are_no_worse),
        cmocka_unit_test(blocks_stand_alone),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(hostile_floats_become_finite),
        cmocka_unit_test(nan_counts_as_zero),
        cmocka_unit_test(large_values_saturate),
        cmocka_unit_test(single_values_stay_what_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
