/* Each instruction set this machine has against the scalar kernels, or against double precision. */
#include "check.h"

#include <math.h>

#include "tensor/kernels.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"

static const char *const names[] = {"scalar", "avx2", "avx512"};

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

typedef void int8_kernel(const uint8_t *, int, const int8_t *, const float *, const int32_t *, int, float *, int);

typedef struct int8_input {
    int      cols;
    int8_t  *x;
    float   *scales;
    int32_t *sums;
    uint8_t *panels; /* two */
    size_t   panel_bytes;
} int8_input;

/* `extreme` takes the largest weights and activations everywhere: what overflows, overflows here. */
static int8_input int8_make(int cols, int block, bool extreme) {
    size_t     blocks = (size_t)cols / 32;
    int8_input in = {.cols = cols, .panel_bytes = blocks * (size_t)block};
    in.x = malloc((size_t)cols * MOST);
    in.scales = floats(blocks * MOST);
    in.sums = calloc(blocks * MOST, sizeof *in.sums);
    in.panels = malloc(2 * in.panel_bytes);
    for (size_t i = 0; i < (size_t)cols * MOST; i++) {
        in.x[i] = (int8_t)(extreme ? (i / (size_t)cols % 2 ? -127 : 127) : (int)(test_random(&seed) % 255) - 127);
        in.sums[i / 32] += in.x[i];
    }
    for (size_t i = 0; i < 2 * in.panel_bytes; i++)
        in.panels[i] = (uint8_t)(extreme ? (i / 4 % 2 ? 0xff : 0) : test_random(&seed));
    for (size_t b = 0; b < 2 * blocks; b++)
        for (int r = 0; r < PANEL_ROWS; r++) {
            uint16_t scale = f32_to_f16(uniform() / 16);
            memcpy(in.panels + b * (size_t)block + 2 * r, &scale, 2);
        }
    return in;
}

static void int8_free(int8_input *in) {
    free(in->x);
    free(in->scales);
    free(in->sums);
    free(in->panels);
}

/* All numbers of columns give the reference's bits, write nothing else, and two panels are as one and one. */
static void int8_check(const char *what, const int8_input *in, int8_kernel *reference, int8_kernel *kernel,
                       int8_kernel *pair) {
    enum { LDY = 2 * PANEL_ROWS + 1 };
    static float expected[MOST * LDY], got[MOST * LDY];
    for (int n = 1; n <= MOST; n++) {
        memset(expected, 0x55, sizeof expected);
        memset(got, 0x55, sizeof got);
        for (int p = 0; p < 2; p++) {
            const uint8_t *panel = in->panels + (size_t)p * in->panel_bytes;
            reference(panel, in->cols, in->x, in->scales, in->sums, n, expected + p * PANEL_ROWS, LDY);
            if (!pair)
                kernel(panel, in->cols, in->x, in->scales, in->sums, n, got + p * PANEL_ROWS, LDY);
        }
        if (pair)
            pair(in->panels, in->cols, in->x, in->scales, in->sums, n, got, LDY);
        assert_same_bits(what, got, expected, MOST * LDY);
    }
}

static void int8_panels_have_the_bits_of_the_reference(void **state) {
    (void)state;
    static const int sizes[] = {32, 64, 352, 2048};
    EACH(k) for (size_t s = 0; s < 4; s++) for (int extreme = 0; extreme < 2; extreme++) {
        char what[64];
        snprintf(what, sizeof what, "%s, %d inputs%s", k->name, sizes[s], extreme ? ", extreme" : "");
        int8_input in = int8_make(sizes[s], Q8_0_BLOCK, extreme);
        int8_check(what, &in, kernels_scalar.panel_q8_0, k->panel_q8_0, NULL);
        if (k->pair_q8_0)
            int8_check(what, &in, kernels_scalar.panel_q8_0, NULL, k->pair_q8_0);
        int8_free(&in);
        in = int8_make(sizes[s], Q4_0_BLOCK, extreme);
        int8_check(what, &in, kernels_scalar.panel_q4_0, k->panel_q4_0, NULL);
        if (k->pair_q4_0)
            int8_check(what, &in, kernels_scalar.panel_q4_0, NULL, k->pair_q4_0);
        int8_free(&in);
    }
}

/* The reference itself, against the values of the blocks in double precision. */
static void int8_reference_is_the_product(void **state) {
    (void)state;
    enum { COLS = 320 };
    for (int q4 = 0; q4 < 2; q4++) {
        block_type type = q4 ? BLOCK_Q4_0 : BLOCK_Q8_0;
        float     *w = floats(PANEL_ROWS * COLS), *x = floats(COLS), row[COLS], y[PANEL_ROWS], scales[COLS / 32];
        uint8_t    blocks[PANEL_ROWS * COLS * 2];
        uint8_t   *packed = aligned_alloc(64, PANEL_ROWS * COLS * 2);
        int8_t     xq[COLS];
        int32_t    sums[COLS / 32];
        matrix     m;
        block_from_f32(type, w, blocks, PANEL_ROWS * COLS);
        matrix_pack(&m, type, PANEL_ROWS, COLS, blocks, packed);
        kernels_scalar.quantize_q8(x, xq, scales, sums, COLS);
        (q4 ? kernels_scalar.panel_q4_0 : kernels_scalar.panel_q8_0)(packed, COLS, xq, scales, sums, 1, y, PANEL_ROWS);
        double expected[PANEL_ROWS] = {0};
        for (int r = 0; r < PANEL_ROWS; r++) {
            matrix_row(&m, r, row);
            for (int k = 0; k < COLS; k++)
                expected[r] += (double)row[k] * xq[k] * (double)scales[k / 32];
        }
        assert_true(relative_rms(y, expected, PANEL_ROWS) < 1e-6);
        free(w);
        free(x);
        free(packed);
    }
}

typedef void float_kernel(const uint8_t *, int, const float *, int, float *, int);

static float_kernel *float_kernel_of(const kernels *k, block_type type) {
    return type == BLOCK_F32 ? k->panel_f32 : type == BLOCK_F16 ? k->panel_f16 : k->panel_bf16;
}

static void float_check(const kernels *k, block_type type, int cols) {
    enum { LDY = PANEL_ROWS + 1 };
    size_t        bytes = type == BLOCK_F32 ? 4 : 2, weights = (size_t)cols * PANEL_ROWS;
    float        *w = floats(weights), *x = floats((size_t)cols * MOST);
    uint8_t      *panel = malloc(weights * bytes); /* exactly: a read past the end is caught by the sanitizer */
    float_kernel *multiply = float_kernel_of(k, type);
    static float  single[MOST * LDY], got[MOST * LDY];
    double        expected[PANEL_ROWS];
    block_from_f32(type, w, panel, (int64_t)weights);
    block_to_f32(type, panel, w, (int64_t)weights);
    memset(single, 0x55, sizeof single);
    for (int c = 0; c < MOST; c++) {
        multiply(panel, cols, x + (size_t)c * (size_t)cols, 1, single + c * LDY, LDY);
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
        multiply(panel, cols, x, n, got, LDY);
        assert_same_bits(k->name, got, single, (size_t)n * LDY);
        for (size_t i = (size_t)n * LDY; i < MOST * LDY; i++)
            assert_int_equal(((unsigned char *)got)[4 * i], 0x55);
    }
    free(w);
    free(x);
    free(panel);
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
    enum { N = 32 * 40 };
    float  *x = floats(N), scales[2][N / 32];
    int8_t  q[2][N];
    int32_t sums[2][N / 32];
    memset(x, 0, 32 * sizeof *x);
    x[40] = NAN;
    x[70] = INFINITY;
    x[100] = -INFINITY;
    for (int i = 128; i < 160; i++)
        x[i] *= 1e-38f;
    for (int i = 160; i < 192; i++)
        x[i] *= 1e38f;
    for (int i = 192; i < 224; i++) /* ties */
        x[i] = (float)(i - 208) + 0.5f;
    x[192] = 127.0f;
    kernels_scalar.quantize_q8(x, q[0], scales[0], sums[0], N);
    assert_true(scales[0][0] == 0 && sums[0][0] == 0);
    for (int i = 224; i < N; i++)
        assert_true(fabsf(x[i] - (float)q[0][i] * scales[0][i / 32]) <= scales[0][i / 32] * 0.5001f);
    EACH(k) {
        k->quantize_q8(x, q[1], scales[1], sums[1], N);
        for (int i = 0; i < N; i++)
            if (q[0][i] != q[1][i])
                fail_msg("%s: %g becomes %d, not %d", k->name, (double)x[i], q[1][i], q[0][i]);
        assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
        assert_same_bits(k->name, scales[1], scales[0], N / 32);
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
        k->silu_mul(y, w, n);
        close_to(k->name, "silu_mul", n, y, expected, 2e-7);
        free(x);
        free(w);
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
        k->silu_mul(g, up, 20);
        assert_true(g[0] == 200 && g[1] == 0 && g[2] == 88.8f && fabsf(g[3]) < 1e-30f && g[4] == INFINITY && g[5] == 0);
        float bad[3] = {1, NAN, 2}, ones[3] = {1, 1, 1};
        k->silu_mul(bad, ones, 3);
        assert_true(isnan(bad[1]) && !isnan(bad[0]) && !isnan(bad[2]));
    }
}

static void halves_round_alike(void **state) {
    (void)state;
    EACH(k) for (size_t l = 0; l < LENGTHS; l++) {
        int       n = lengths[l];
        float    *x = floats((size_t)n);
        uint16_t *out = malloc((size_t)n * sizeof *out);
        for (int i = 0; i < n; i++)
            x[i] = ldexpf(x[i], (int)(test_random(&seed) % 48) - 30);
        k->to_f16(x, out, n);
        for (int i = 0; i < n; i++)
            assert_int_equal(out[i], f32_to_f16(x[i]));
        free(x);
        free(out);
    }
}

/* One query head in double precision. */
static void attend_head(kv_type type, const float *q, int dim, const void *k, const void *v, int64_t stride, int length,
                        float scale, double *out) {
    double *score = calloc((size_t)length, sizeof *score), peak = -INFINITY, sum = 0;
    for (int t = 0; t < length; t++) {
        for (int d = 0; d < dim; d++) {
            int64_t at = t * stride + d;
            float   f = type == KV_F16 ? f16_to_f32(((const uint16_t *)k)[at]) : ((const float *)k)[at];
            score[t] += (double)q[d] * (double)f;
        }
        score[t] *= (double)scale;
        peak = fmax(peak, score[t]);
    }
    for (int t = 0; t < length; t++)
        sum += score[t] = exp(score[t] - peak);
    for (int d = 0; d < dim; d++) {
        out[d] = 0;
        for (int t = 0; t < length; t++) {
            int64_t at = t * stride + d;
            float   f = type == KV_F16 ? f16_to_f32(((const uint16_t *)v)[at]) : ((const float *)v)[at];
            out[d] += score[t] / sum * (double)f;
        }
    }
    free(score);
}

static void attend_check(const kernels *k, kv_type type, int heads, int dim, int length) {
    int64_t  stride = dim + 16; /* other heads' values lie between */
    size_t   values = (size_t)(length - 1) * (size_t)stride + (size_t)dim, size = type == KV_F16 ? 2 : 4;
    float   *q = floats((size_t)(heads * dim)), *kf = floats(values), *vf = floats(values);
    uint8_t *kt = malloc(values * size), *vt = malloc(values * size);
    float   *scores = malloc((size_t)heads * (size_t)length * sizeof *scores);
    float   *out = malloc((size_t)(heads * dim) * sizeof *out);
    float    scale = 1.0f / sqrtf((float)dim);
    double   expected[256];
    block_from_f32(type == KV_F16 ? BLOCK_F16 : BLOCK_F32, kf, kt, (int64_t)values);
    block_from_f32(type == KV_F16 ? BLOCK_F16 : BLOCK_F32, vf, vt, (int64_t)values);
    k->attend(type, q, heads, dim, kt, vt, stride, length, scale, scores, out);
    for (int h = 0; h < heads; h++) {
        attend_head(type, q + h * dim, dim, kt, vt, stride, length, scale, expected);
        double wrong = relative_rms(out + h * dim, expected, (size_t)dim);
        if (!(wrong <= 1e-6))
            fail_msg("%s: head %d of %d, dim %d, length %d: relative error %g", k->name, h, heads, dim, length, wrong);
    }
    free(q);
    free(kf);
    free(vf);
    free(kt);
    free(vt);
    free(scores);
    free(out);
}

static void attention_is_accurate(void **state) {
    (void)state;
    static const int dims[] = {4, 8, 16, 20, 32, 64, 80, 96, 128, 256}, spans[] = {1, 2, 3, 4, 5, 17, 100};
    EACH(k)
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (size_t l = 0; l < 7; l++)
            for (int heads = 1; heads <= 9; heads++) {
                attend_check(k, KV_F16, heads, dims[d], spans[l]);
                attend_check(k, KV_F32, heads, dims[d], spans[l]);
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
        cmocka_unit_test(softmax_and_argmax),
        cmocka_unit_test(far_ends_of_the_exponential),
        cmocka_unit_test(halves_round_alike),
        cmocka_unit_test(attention_is_accurate),
        cmocka_unit_test(a_lesser_set_can_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
