/* Each instruction set this machine has against the scalar kernels, or against double precision. */
#include "check.h"

#include <math.h>

#include "random_blocks.h"
#include "tensor/kernels.h"
#include "tensor/matrix.h"
#include "tensor/pack.h"
#include "tensor/panel.h"

static const char *const names[] = {"scalar", "neon", "dotprod", "avx2", "avx512", "avx512bf16"};

#define EACH(k)                                                                                                        \
    for (size_t isa = 0; isa < sizeof names / sizeof *names; isa++)                                                    \
        for (const kernels *k = kernels_named(names[isa]); k; k = NULL)

static uint64_t seed = 7;

static float uniform(void) {
    return (float)((double)(test_random(&seed) >> 40) / (1 << 23) - 1.0);
}

static float *floats(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = uniform();
    return x;
}

static double relative_rms(const float *got, const double *expected, size_t n) {
    double wrong = 0, all = 1e-300;
    for (size_t i = 0; i < n; i++) {
        wrong += (got[i] - expected[i]) * (got[i] - expected[i]);
        all += expected[i] * expected[i];
    }
    return sqrt(wrong / all);
}

static void assert_same_bits(const char *what, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: value %zu is %.9g, not %.9g", what, i, (double)a[i], (double)b[i]);
}

#define MOST 33 /* columns */

typedef struct int8_input {
    columns  x;
    uint8_t *panels; /* two */
    size_t   panel_bytes;
} int8_input;

/* The sums of `n` columns, in plain loops; q and shares are set. */
static void make_sums(columns *x) {
    size_t   groups = (size_t)(x->cols / 32) * (size_t)x->n;
    int16_t *sums = malloc(groups * sizeof *sums);
    int16_t *half_sums = malloc(2 * groups * sizeof *half_sums);
    int32_t *minus8 = malloc(groups * 4), *minus16 = malloc(groups * 4), *minus128 = malloc(groups * 4),
            *minus4 = malloc(groups * 8), *minus32 = malloc(groups * 8);
    for (size_t g = 0; g < groups; g++) {
        int sum[2] = {0, 0};
        for (size_t i = 0; i < 32; i++)
            sum[i / 16] += x->q[g * 32 + i];
        sums[g] = (int16_t)(8 * x->shares[g] * (float)(sum[0] + sum[1]));
        minus8[g] = -8 * (sum[0] + sum[1]);
        minus16[g] = -16 * (sum[0] + sum[1]);
        minus128[g] = -128 * (sum[0] + sum[1]);
        for (size_t h = 0; h < 2; h++) {
            half_sums[2 * g + h] = (int16_t)(8 * x->shares[g] * (float)sum[h]);
            minus4[2 * g + h] = -4 * sum[h];
            minus32[2 * g + h] = -32 * sum[h];
        }
    }
    x->sums = sums;
    x->half_sums = half_sums;
    x->minus8 = minus8;
    x->minus16 = minus16;
    x->minus128 = minus128;
    x->minus4 = minus4;
    x->minus32 = minus32;
}

static void free_columns(columns *x) {
    free((void *)x->q);
    free((void *)x->scales);
    free((void *)x->shares);
    free((void *)x->sums);
    free((void *)x->half_sums);
    free((void *)x->minus8);
    free((void *)x->minus16);
    free((void *)x->minus128);
    free((void *)x->minus4);
    free((void *)x->minus32);
}

/* ALL_ONES_OR_ZERO has the largest activations everywhere too: what overflows, overflows here. */
static int8_input int8_make(size_t t, int cols, random_bits how) {
    const bool extreme = how == ALL_ONES_OR_ZERO;
    block_type type = random_block_types[t].type;
    size_t     row = 0, format = (size_t)block_format_of((int)type)->bytes;
    int8_input in = {.x = {.n = MOST, .cols = cols, .scales = floats(Q8_STRETCHES(cols) * MOST)}};
    float     *shares = malloc((size_t)cols / 32 * MOST * sizeof *shares);
    for (size_t g = 0; g < (size_t)cols / 32 * MOST; g++)
        shares[g] = extreme ? 1.0f : (float)(1 + test_random(&seed) % 8) / 8;
    in.x.shares = shares;
    int8_t *q = malloc((size_t)cols * MOST);
    for (size_t i = 0; i < (size_t)cols * MOST; i++)
        q[i] = (int8_t)(extreme ? (i / (size_t)cols % 2 ? -127 : 127) : (int)(test_random(&seed) % 255) - 127);
    in.x.q = q;
    make_sums(&in.x);
    assert_true(pack_panel_bytes(type, cols, &in.panel_bytes));
    assert_true(block_row_bytes(block_format_of((int)type), cols, &row));
    in.panels = aligned_alloc(64, (2 * in.panel_bytes + 63) / 64 * 64);
    uint8_t *rows = malloc(2 * PANEL_ROWS * row);
    for (size_t b = 0; b < 2 * PANEL_ROWS * row; b += format)
        random_block(t, how, b / row % 2, &seed, rows + b);
    for (size_t p = 0; p < 2; p++)
        pack_panel(type, rows + p * PANEL_ROWS * row, row, PANEL_ROWS, cols, in.panels + p * in.panel_bytes);
    free(rows);
    return in;
}

static void int8_free(int8_input *in) {
    free_columns(&in->x);
    free(in->panels);
}

enum { LDY32 = 2 * PANEL_ROWS + 1 };

/* All numbers of columns give the reference's bits, write nothing else, and two panels are as one and one. */
static void int8_check(const char *what, const int8_input *in, const float *reference, panel_fn kernel, panel_fn wide,
                       int step) {
    static float expected[MOST * LDY32], got[MOST * LDY32];
    for (int n = 1; n <= MOST; n += step) {
        columns x = columns_from(&in->x, 0, n);
        memset(expected, 0x55, sizeof expected);
        memcpy(expected, reference, sizeof *expected * (size_t)n * LDY32);
        memset(got, 0x55, sizeof got);
        for (size_t p = 0; kernel && p < 2; p++)
            kernel(in->panels + p * in->panel_bytes, &x, got + p * PANEL_ROWS, LDY32);
        if (wide) {
            int          tiles = column_tiles(n), stretches = (int)Q8_STRETCHES(x.cols);
            column_tile *tile = aligned_alloc(64, (size_t)(tiles * stretches) * sizeof *tile);
            memset(tile, 0x55, (size_t)(tiles * stretches) * sizeof *tile);
            for (int i = 0; i < tiles * stretches; i++)
                column_tile_fill(&x, (size_t)(i / tiles), i % tiles, tile + i);
            x.tiles = tile;
            wide(in->panels, &x, got, LDY32);
            free(tile);
        }
        assert_same_bits(what, got, expected, MOST * LDY32);
    }
}

static void int8_check_all(size_t t, int cols, random_bits how) {
    static float     reference[MOST * LDY32];
    const block_type type = random_block_types[t].type;
    int8_input       in = int8_make(t, cols, how);
    memset(reference, 0x55, sizeof reference);
    for (size_t p = 0; p < 2; p++)
        kernels_scalar.panel[type](in.panels + p * in.panel_bytes, &in.x, reference + p * PANEL_ROWS, LDY32);
    EACH(k) {
        char what[64];
        snprintf(what, sizeof what, "%s, %s, %d inputs, bits %d", k->name, block_format_of((int)type)->name, cols,
                 (int)how);
        /* the scalar kernels take each column for itself: a few numbers of columns do */
        int8_check(what, &in, reference, k->panel[type], NULL, k == &kernels_scalar ? MOST - 1 : 1);
        if (k->wide[type])
            int8_check(what, &in, reference, NULL, k->wide[type], 1);
    }
    int8_free(&in);
}

static void int8_panels_have_the_bits_of_the_reference(void **state) {
    (void)state;
    static const int sizes[] = {32, 64, 352, 2048, 256, 768, 1280};
    for (size_t t = 0; t < RANDOM_BLOCK_TYPES; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int how = RANDOM_BITS; how <= WILD_SCALES; how++)
                if (sizes[s] % block_format_of((int)random_block_types[t].type)->values == 0)
                    int8_check_all(t, sizes[s], (random_bits)how);
}

/* The reference itself, against the values of the blocks in double precision. */
static void int8_reference_is_the_product(void **state) {
    (void)state;
    enum { COLS = 768 };
    for (size_t i = 0; i < 2 * RANDOM_BLOCK_TYPES; i++) {
        size_t     t = i / 2;
        block_type type = random_block_types[t].type;
        int8_input in = int8_make(t, COLS, i % 2 ? WILD_SCALES : RANDOM_BITS);
        float      row[COLS], y[PANEL_ROWS];
        double     expected[PANEL_ROWS] = {0};
        columns    x = columns_from(&in.x, 0, 1);
        kernels_scalar.panel[type](in.panels, &x, y, PANEL_ROWS);
        for (int r = 0; r < PANEL_ROWS; r++) {
            unpack_row(type, in.panels, r, COLS, row);
            for (int k = 0; k < COLS; k++)
                expected[r] += (double)row[k] * x.q[k] * (double)(x.shares[k / 32] * x.scales[k / Q8_STRETCH]);
        }
        double wrong = relative_rms(y, expected, PANEL_ROWS);
        if (wrong > 1e-6)
            fail_msg("type %d: relative error %g", (int)type, wrong);
        int8_free(&in);
    }
}

static void float_check(const kernels *k, block_type type, int cols) {
    enum { LDY = PANEL_ROWS + 1 };
    size_t       bytes = type == BLOCK_F32 ? 4 : 2, weights = (size_t)cols * PANEL_ROWS;
    float       *w = floats(weights), *x = floats((size_t)cols * MOST);
    uint8_t     *panel = malloc(weights * bytes); /* exactly: a read past the end is caught by the sanitizer */
    panel_fn     multiply = k->panel[type];
    uint16_t    *rounded = malloc((size_t)cols * MOST * sizeof *rounded);
    columns      all = {.n = MOST, .cols = cols, .x = x, .rounded = rounded};
    static float single[MOST * LDY], got[MOST * LDY];
    double       expected[PANEL_ROWS];
    block_from_f32(type, w, panel, (int64_t)weights);
    block_to_f32(type, panel, w, (int64_t)weights);
    block_from_f32(BLOCK_BF16, x, rounded, (int64_t)cols * MOST);
    if (type == BLOCK_BF16) /* exact in both forms: some tables take the one, some the other */
        block_to_f32(BLOCK_BF16, rounded, x, (int64_t)cols * MOST);
    memset(single, 0x55, sizeof single);
    for (int c = 0; c < MOST; c++) {
        columns one = columns_from(&all, c, 1);
        multiply(panel, &one, single + c * LDY, LDY);
        for (int r = 0; r < PANEL_ROWS; r++) {
            expected[r] = 0;
            for (size_t i = 0; i < (size_t)cols; i++)
                expected[r] += (double)w[i * PANEL_ROWS + (size_t)r] * (double)x[(size_t)c * (size_t)cols + i];
        }
        double wrong = relative_rms(single + c * LDY, expected, PANEL_ROWS);
        if (wrong > 1e-6)
            fail_msg("%s, %d inputs, type %d: relative error %g", k->name, cols, (int)type, wrong);
    }
    for (int n = 1; n <= MOST; n++) {
        memset(got, 0x55, sizeof got);
        all.n = n;
        multiply(panel, &all, got, LDY);
        assert_same_bits(k->name, got, single, (size_t)n * LDY);
        for (size_t i = (size_t)n * LDY; i < MOST * LDY; i++)
            assert_int_equal(((unsigned char *)got)[4 * i], 0x55);
    }
    free(w);
    free(x);
    free(panel);
    free(rounded);
}

static void float_panels_are_accurate_and_alike(void **state) {
    (void)state;
    static const int        sizes[] = {1, 7, 63, 64, 65, 129, 256, 300, 2048};
    static const block_type types[] = {BLOCK_F32, BLOCK_F16, BLOCK_BF16};
    EACH(k)
    for (int t = 0; t < 3; t++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            float_check(k, types[t], sizes[s]);
}

static void activations_round_alike(void **state) {
    (void)state;
    enum { N = 32 * 77 }; /* nine stretches and five blocks of a tenth */
    float  *x = floats(N), scales[2][Q8_STRETCHES(N)], shares[2][N / 32];
    int8_t  q[2][N];
    int32_t halves[2][N / 16];
    memset(x, 0, Q8_STRETCH * sizeof *x); /* of zeros */
    memset(x + 256, 0, 32 * sizeof *x);   /* a block of zeros among others */
    for (int i = 288; i < 320; i++)
        x[i] *= 1e-38f;
    x[512] = NAN;
    x[800] = INFINITY;
    x[1100] = -INFINITY;
    for (int i = 1280; i < 1536; i++)
        x[i] *= 1e38f;
    for (int i = 1536; i < 1568; i++) /* ties */
        x[i] = (float)(i - 1552) + 0.5f;
    x[1536] = 127.0f;
    for (int i = 1792; i < 2048; i++)
        x[i] *= 1e-38f;
    kernels_scalar.quantize_q8(x, q[0], scales[0], shares[0], halves[0], N);
    assert_true(scales[0][0] == 0 && scales[0][7] == 0);
    for (int i = 0; i < N; i++) {
        float share = shares[0][i / 32], step = share * scales[0][i / Q8_STRETCH];
        assert_true(share * 8 == rintf(share * 8) && share > 0 && share <= 1);
        if (isfinite(x[i]) && isfinite(step))
            assert_true(fabsf(x[i] - (float)q[0][i] * step) <= step * 0.5001f + Q8_TINY);
    }
    for (int b = 0; b < N / 32; b++) { /* no share is larger than it must be */
        float peak = 0, scale = scales[0][b / 8];
        for (int i = 0; i < 32; i++)
            peak = fmaxf(peak, fabsf(x[32 * b + i]));
        if (scale > 0 && isfinite(scale) && shares[0][b] > 0.125f)
            assert_true(peak >= 126.999f * scale * (shares[0][b] - 0.125f));
    }
    EACH(k) {
        k->quantize_q8(x, q[1], scales[1], shares[1], halves[1], N);
        assert_memory_equal(halves[0], halves[1], sizeof halves[0]);
        for (int i = 0; i < N; i++)
            if (q[0][i] != q[1][i])
                fail_msg("%s: %g becomes %d, not %d", k->name, (double)x[i], q[1][i], q[0][i]);
        assert_same_bits(k->name, scales[1], scales[0], Q8_STRETCHES(N));
        assert_same_bits(k->name, shares[1], shares[0], N / 32);
    }
    free(x);
}

static const int lengths[] = {1, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 100, 1000, 2051};
#define LENGTHS (sizeof lengths / sizeof *lengths)

/* Exactly n floats at the end of their allocation, so that the sanitizer sees a step over it. */
static float *copy(const float *x, int n) {
    float *y = malloc((size_t)n * sizeof *y);
    memcpy(y, x, (size_t)n * sizeof *y);
    return y;
}

static void close_to(const char *name, const char *what, int n, const float *got, const double *expected,
                     double bound) {
    double wrong = relative_rms(got, expected, (size_t)n);
    if (!(wrong <= bound))
        fail_msg("%s %s of %d: relative error %g", name, what, n, wrong);
}

static void norms_and_products(void **state) {
    (void)state;
    EACH(k) for (size_t l = 0; l < LENGTHS; l++) {
        int     n = lengths[l];
        float  *x = floats((size_t)n), *w = floats((size_t)n), *y = malloc((size_t)n * sizeof *y);
        double *expected = calloc((size_t)n, sizeof *expected), squares = 0;
        for (int i = 0; i < n; i++)
            squares += (double)x[i] * (double)x[i];
        for (int weighted = 0; weighted < 2; weighted++) {
            for (int i = 0; i < n; i++)
                expected[i] = x[i] / sqrt(squares / n + 1e-5) * (weighted ? (double)w[i] : 1.0);
            k->rms_norm(x, weighted ? w : NULL, 1e-5f, y, n);
            close_to(k->name, "rms_norm", n, y, expected, 2e-7);
        }
        memcpy(y, x, (size_t)n * sizeof *y);
        k->add(y, w, n);
        for (int i = 0; i < n; i++)
            assert_true(y[i] == x[i] + w[i]);
        for (int i = 0; i < n; i++) {
            y[i] = x[i] * 20;
            expected[i] = (double)y[i] / (1 + exp(-(double)y[i])) * (double)w[i];
        }
        k->activate[ACT_SILU](y, w, n);
        close_to(k->name, "silu", n, y, expected, 2e-7);
        free(x);
        free(w);
        free(y);
        free(expected);
    }
}

static double activated(activation act, double x) {
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x / M_SQRT2));
    default:
        return x > 0 ? x * x : 0;
    }
}

static void activations_and_layer_norm(void **state) {
    (void)state;
    EACH(k) for (size_t l = 0; l < LENGTHS; l++) {
        int     n = lengths[l];
        float  *x = floats((size_t)n), *w = floats((size_t)n), *b = floats((size_t)n), *y = floats((size_t)n);
        double *expected = calloc((size_t)n, sizeof *expected), sum = 0, squares = 0;
        x[0] = w[0] = 0.5f; /* so that something is left: errors are measured against the size of the whole */
        for (int act = 0; act < ACTIVATIONS; act++)
            for (int gated = 0; gated < 2; gated++) {
                for (int i = 0; i < n; i++) {
                    y[i] = x[i] * 8;
                    expected[i] = activated((activation)act, (double)y[i]) * (gated ? (double)w[i] : 1);
                }
                k->activate[act](y, gated ? w : NULL, n);
                close_to(k->name, "activate", n, y, expected, 5e-7);
            }
        for (int i = 0; i < n; i++) {
            y[i] = x[i] * 40;
            expected[i] = 30 * tanh((double)y[i] / 30);
        }
        k->cap(y, 30, n);
        close_to(k->name, "cap", n, y, expected, 5e-7);
        for (int i = 0; i < n; i++)
            sum += (double)(x[i] += 3);
        for (int i = 0; i < n; i++)
            squares += ((double)x[i] - sum / n) * ((double)x[i] - sum / n);
        for (int weighted = 0; weighted < 3; weighted++) {
            for (int i = 0; i < n; i++)
                expected[i] = ((double)x[i] - sum / n) / sqrt(squares / n + 1e-2) * (weighted ? (double)w[i] : 1) +
                              (weighted == 2 ? (double)b[i] : 0);
            k->layer_norm(x, weighted ? w : NULL, weighted == 2 ? b : NULL, 1e-2f, y, n);
            if (n > 1) /* of one value nothing but rounding is left */
                close_to(k->name, "layer_norm", n, y, expected, 2e-6);
        }
        free(x);
        free(w);
        free(b);
        free(y);
        free(expected);
    }
}

static void softmax_and_argmax(void **state) {
    (void)state;
    EACH(k) for (size_t l = 0; l < LENGTHS; l++) {
        int     n = lengths[l], best = 0;
        float  *x = floats((size_t)n);
        double *expected = calloc((size_t)n, sizeof *expected), sum = 0;
        for (int i = 0; i < n; i++) {
            x[i] *= 30;
            best = x[i] > x[best] ? i : best;
        }
        assert_int_equal(k->argmax(x, n), best);
        for (int i = 0; i < n; i++)
            sum += expected[i] = exp((double)x[i] - (double)x[best]);
        for (int i = 0; i < n; i++)
            expected[i] /= sum;
        float *y = copy(x, n);
        k->softmax(y, n);
        close_to(k->name, "softmax", n, y, expected, 5e-7);
        for (int i = 0; i < n; i++) /* each value, not only the large ones; x - peak alone may be off by 2e-6 */
            assert_true(fabs(y[i] - expected[i]) <= 5e-6 * expected[i]);
        for (int i = 0; i < n; i++)
            y[i] = -5;
        assert_int_equal(k->argmax(y, n), 0);
        y[n - 1] = 5;
        y[n / 2] = 5;
        assert_int_equal(k->argmax(y, n), n / 2);
        free(x);
        free(y);
        free(expected);
    }
}

static void far_ends_of_the_exponential(void **state) {
    (void)state;
    EACH(k) {
        float x[20] = {0, -200, -INFINITY, -87.5f, -100, -103};
        for (int i = 6; i < 20; i++)
            x[i] = -INFINITY;
        k->softmax(x, 20);
        assert_true(x[0] == 1.0f);
        assert_true(x[1] == 0.0f && x[2] == 0.0f && x[19] == 0.0f);
        assert_true(fabs((double)x[3] / exp(-87.5) - 1) < 1e-6);
        assert_true(fabs((double)x[4] / exp(-100) - 1) < 0.02); /* subnormal: few bits */
        float g[20] = {200, -200, 88.8f, -88.8f, INFINITY, 0}, up[20];
        for (int i = 0; i < 20; i++)
            up[i] = 1;
        k->activate[ACT_SILU](g, up, 20);
        assert_true(g[0] == 200 && g[1] == 0 && g[2] == 88.8f && fabsf(g[3]) < 1e-30f && g[4] == INFINITY && g[5] == 0);
        float bad[3] = {1, NAN, 2}, ones[3] = {1, 1, 1};
        k->activate[ACT_SILU](bad, ones, 3);
        assert_true(isnan(bad[1]) && !isnan(bad[0]) && !isnan(bad[2]));
    }
}

static void a_lesser_set_can_be_asked_for(void **state) {
    (void)state;
    setenv("PARE_ISA", "scalar", 1);
    assert_string_equal(kernels_get()->name, "scalar");
    assert_null(kernels_named("mmx"));
    assert_null(kernels_named(NULL));
    assert_ptr_equal(kernels_named("scalar"), &kernels_scalar);
}

int main(void) {
    EACH(k) print_message("has %s\n", k->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_panels_have_the_bits_of_the_reference),
        cmocka_unit_test(int8_reference_is_the_product),
        cmocka_unit_test(float_panels_are_accurate_and_alike),
        cmocka_unit_test(activations_round_alike),
        cmocka_unit_test(norms_and_products),
        cmocka_unit_test(activations_and_layer_norm),
        cmocka_unit_test(softmax_and_argmax),
        cmocka_unit_test(far_ends_of_the_exponential),
        cmocka_unit_test(a_lesser_set_can_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
