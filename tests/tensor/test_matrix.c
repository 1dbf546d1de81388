/* Packing and the product, once for each instruction set: kernels are chosen once a process, so each has a child. */
#include "check.h"

#include <limits.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random_blocks.h"
#include "tensor/kernels.h"
#include "tensor/matrix.h"

/* Each of the three formats that hold values by themselves, then those of random_blocks.h. */
static const block_type float_types[] = {BLOCK_F32, BLOCK_F16, BLOCK_BF16};
#define FLOAT_TYPES (sizeof float_types / sizeof *float_types)
#define TYPES       (FLOAT_TYPES + RANDOM_BLOCK_TYPES)

static block_type type_at(size_t t) {
    return t < FLOAT_TYPES ? float_types[t] : random_block_types[t - FLOAT_TYPES].type;
}

static uint64_t seed = 11;

static float uniform(void) {
    return (float)((double)(test_random(&seed) >> 40) / (1 << 23) - 1.0);
}

static void fill(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = uniform();
}

/* The bytes of panels over those of blocks, in hundredths: K-quants have their scales in whole bytes and on 64-byte lines. */
static size_t most_hundredths(block_type type) {
    return type == BLOCK_Q3_K ? 106 : block_format_of((int)type)->values == 256 ? 103 : 100;
}

static void random_values(size_t t, random_bits how, uint8_t *blocks, size_t bytes) {
    for (size_t i = 0; t < FLOAT_TYPES && i < bytes;) {
        float x = uniform();
        block_from_f32(type_at(t), &x, blocks + i, 1);
        i += (size_t)block_format_of((int)type_at(t))->bytes;
    }
    for (size_t i = 0; t >= FLOAT_TYPES && i < bytes; i += (size_t)block_format_of((int)type_at(t))->bytes)
        random_block(t - FLOAT_TYPES, how, false, &seed, blocks + i);
}

/* A random matrix; *values gets its exact values, row-major. */
static matrix make(size_t t, random_bits how, int rows, int cols, float **values) {
    const block_type type = type_at(t);
    size_t           bytes, row, n = (size_t)rows * (size_t)cols;
    err              e = {0};
    assert_ok(matrix_size(type, rows, cols, &bytes, &e), e);
    block_row_bytes(block_format_of((int)type), cols, &row);
    size_t exact = row * (size_t)((rows + 15) / 16 * 16);
    assert_in_range(bytes, exact, exact * most_hundredths(type) / 100);
    float   *w = malloc(n * sizeof *w);
    uint8_t *blocks = malloc(row * (size_t)rows);
    uint8_t *data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    random_values(t, how, blocks, row * (size_t)rows);
    block_to_f32(type, blocks, w, (int64_t)n);
    memset(data, 0xff, bytes);
    matrix m;
    matrix_pack(&m, type, rows, cols, blocks, data);
    free(blocks);
    *values = w;
    return m;
}

/* The next number of columns that the type's blocks divide. */
static int columns_of(block_type type, int cols) {
    int block = block_format_of((int)type)->values;
    return (cols + block - 1) / block * block;
}

static void rows_come_back(void **state) {
    (void)state;
    static const int rows[] = {1, 15, 16, 17, 515}, cols[] = {32, 64, 256, 288, 544};
    for (size_t t = 0; t < TYPES; t++)
        for (int r = 0; r < 5; r++)
            for (int c = 0; c < 5; c++) {
                float *w, out[768];
                matrix m = make(t, c % 2 ? WILD_SCALES : RANDOM_BITS, rows[r], columns_of(type_at(t), cols[c]), &w);
                assert_int_equal(m.panels, (rows[r] + 15) / 16);
                for (int i = 0; i < m.rows; i++) {
                    matrix_row(&m, i, out);
                    assert_memory_equal(out, w + (size_t)i * (size_t)m.cols, (size_t)m.cols * sizeof *out);
                }
                free(w);
                free(m.data);
            }
}

static void odd_widths_of_floats(void **state) {
    (void)state;
    for (int cols = 1; cols < 40; cols += 6) {
        float *w, out[40];
        matrix m = make(1, RANDOM_BITS, 19, cols, &w); /* F16 */
        matrix_row(&m, 18, out);
        assert_memory_equal(out, w + 18 * cols, (size_t)cols * sizeof *out);
        free(w);
        free(m.data);
    }
}

static void shapes_are_checked(void **state) {
    (void)state;
    size_t bytes;
    err    e = {0};
    assert_false(matrix_size(BLOCK_Q4_0, 16, 33, &bytes, &e));
    assert_says(e, "33");
    assert_false(matrix_size((block_type)4, 16, 32, &bytes, &e));
    assert_says(e, "type 4");
    assert_false(matrix_size(BLOCK_Q4_K, 16, 128, &bytes, &e));
    assert_says(e, "128");
    assert_false(matrix_size(BLOCK_F32, 0, 32, &bytes, &e));
    assert_false(matrix_size(BLOCK_F32, -1, 32, &bytes, &e));
    assert_false(matrix_size(BLOCK_F32, 16, 0, &bytes, &e));
    assert_false(matrix_size(BLOCK_F32, INT64_MAX, 32, &bytes, &e));
    assert_false(matrix_size(BLOCK_F32, 32, INT64_MAX, &bytes, &e));
    assert_false(matrix_size(BLOCK_F32, INT_MAX, 32, &bytes, &e));
    assert_null(activations_new(0, 32, &e));
    assert_null(activations_new(INT_MAX, INT_MAX, &e));
    activations_free(NULL);
}

/* What the kernels should give for column x: int8 types see the rounded activations. */
static void expect(const matrix *m, const float *w, const float *x, double *y) {
    float   *seen = malloc((size_t)m->cols * sizeof *seen);
    int8_t  *q = malloc((size_t)m->cols);
    int32_t *halves = malloc((size_t)m->cols / 16 * sizeof *halves + 8);
    float   *scales = malloc((size_t)m->cols * sizeof *scales), *shares = malloc((size_t)m->cols * sizeof *shares);
    memcpy(seen, x, (size_t)m->cols * sizeof *seen);
    if (matrix_form(m) & FORM_BF16) {
        uint16_t half[1];
        for (int k = 0; k < m->cols; k++) {
            block_from_f32(BLOCK_BF16, x + k, half, 1);
            block_to_f32(BLOCK_BF16, half, seen + k, 1);
        }
    }
    if (matrix_form(m) & FORM_INT8) {
        kernels_scalar.quantize_q8(x, q, scales, shares, halves, m->cols);
        for (int k = 0; k < m->cols; k++)
            seen[k] = (float)q[k] * shares[k / 32] * scales[k / Q8_STRETCH];
    }
    for (int r = 0; r < m->rows; r++) {
        y[r] = 0;
        for (int k = 0; k < m->cols; k++)
            y[r] += (double)w[(size_t)r * (size_t)m->cols + (size_t)k] * (double)seen[k];
    }
    free(seen);
    free(q);
    free(scales);
    free(shares);
    free(halves);
}

enum { MOST = 33, ROWS_A = 515, ROWS_B = 40, ROWS_C = 7, COLS = 768 };

/* Three matrices of one input in one pass; all numbers of columns; outputs beyond the rows stay untouched. */
static void product_check(size_t t, int threads) {
    const block_type type = type_at(t);
    static const int rows[3] = {ROWS_A, ROWS_B, ROWS_C};
    static const int ldy[3] = {ROWS_A + 2, ROWS_B, ROWS_C + 1};
    const int        cols = columns_of(type, 352);
    static float     x[MOST * COLS], y[3][MOST * (ROWS_A + 2)], single[3][MOST * (ROWS_A + 2)];
    double           expected[ROWS_A];
    matrix           m[3];
    float           *w[3];
    err              e = {0};
    pool            *p = pool_new(threads, &e);
    activations     *a = activations_new(MOST, COLS, &e);
    assert_ok(p && a, e);
    for (int i = 0; i < 3; i++)
        m[i] = make(t, RANDOM_BITS, rows[i], cols, &w[i]);
    const matrix *const ms[3] = {&m[0], &m[1], &m[2]};
    fill(x, MOST * COLS);
    for (int c = 0; c < MOST; c++) {
        float *ys[3] = {single[0] + c * ldy[0], single[1] + c * ldy[1], single[2] + c * ldy[2]};
        activations_set(a, p, x + c * cols, 1, cols, matrix_form(&m[0]));
        matrix_multiply(p, 3, ms, a, ys, ldy);
        for (int i = 0; i < 3; i++) {
            expect(&m[i], w[i], x + c * cols, expected);
            double wrong = 0, all = 0;
            for (int r = 0; r < rows[i]; r++) {
                wrong += (ys[i][r] - expected[r]) * (ys[i][r] - expected[r]);
                all += expected[r] * expected[r];
            }
            if (!(sqrt(wrong / all) <= 1e-6))
                fail_msg("type %d, %d rows: relative error %g", (int)type, rows[i], sqrt(wrong / all));
        }
    }
    /* the scalar kernels take each column for itself: a few numbers of columns do */
    int stride = kernels_get() == &kernels_scalar ? 8 : 1;
    for (int n = 1; n <= MOST; n += stride) {
        float *ys[3] = {y[0], y[1], y[2]};
        memset(y, 0x55, sizeof y);
        activations_set(a, p, x, n, cols, matrix_form(&m[0]));
        matrix_multiply(p, 3, ms, a, ys, ldy);
        for (int i = 0; i < 3; i++)
            for (int c = 0; c < MOST; c++)
                for (int r = 0; r < ldy[i]; r++) {
                    uint32_t got, want = 0x55555555;
                    memcpy(&got, &y[i][c * ldy[i] + r], 4);
                    if (c < n && r < rows[i])
                        memcpy(&want, &single[i][c * ldy[i] + r], 4);
                    if (got != want)
                        fail_msg("type %d, %d threads: column %d of %d, row %d of %d differs", (int)type, threads, c, n,
                                 r, rows[i]);
                }
    }
    for (int i = 0; i < 3; i++) {
        free(w[i]);
        free(m[i].data);
    }
    activations_free(a);
    pool_free(p);
}

static void batches_have_the_bits_of_single_columns(void **state) {
    (void)state;
    for (size_t t = 0; t < TYPES; t++) {
        product_check(t, 1);
        product_check(t, 3);
    }
}

static void wide_check(int rows, int wide, int count) {
    for (size_t t = 0; t < TYPES; t++) {
        float *w, *x = malloc(sizeof *x * (size_t)count * (size_t)wide),
                  *y = malloc(sizeof *y * (size_t)count * (size_t)rows);
        float        *one = malloc(sizeof *one * (size_t)rows);
        matrix        m = make(t, RANDOM_BITS, rows, wide, &w);
        pool         *p = pool_new(3, NULL);
        activations  *a = activations_new(count, wide, NULL);
        const matrix *ms = &m;
        int           ld = rows;
        fill(x, (size_t)count * (size_t)wide);
        activations_set(a, p, x, count, wide, matrix_form(&m));
        matrix_multiply(p, 1, &ms, a, &y, &ld);
        for (int c = 0; c < count; c += 7) {
            float *to = one;
            activations_set(a, p, x + (size_t)c * (size_t)wide, 1, wide, matrix_form(&m));
            matrix_multiply(p, 1, &ms, a, &to, &ld);
            assert_memory_equal(one, y + c * rows, sizeof *one * (size_t)rows);
        }
        free(w);
        free(x);
        free(y);
        free(one);
        free(m.data);
        activations_free(a);
        pool_free(p);
    }
}

/* Inputs wide enough that the panels pass in several pieces; and more columns than have their sums kept at a time. */
static void wide_products(void **state) {
    (void)state;
    if (kernels_get() == &kernels_scalar) /* takes each column for itself, and long over it */
        skip();
    wide_check(104, 8192, 40);
    wide_check(48, 768, 300);
}

static int run(void) {
    print_message("kernels: %s\n", kernels_get()->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),     cmocka_unit_test(odd_widths_of_floats),
        cmocka_unit_test(shapes_are_checked), cmocka_unit_test(batches_have_the_bits_of_single_columns),
        cmocka_unit_test(wide_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    static const char *const names[] = {"scalar", "neon", "dotprod", "avx2", "avx512", "avx512bf16"};
    int                      failed = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!kernels_named(names[i]))
            continue;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            setenv("PARE_ISA", names[i], 1);
            exit(run() ? 1 : 0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            failed++;
    }
    return failed;
}
