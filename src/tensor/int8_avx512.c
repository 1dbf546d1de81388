/* int8_avx512.c - one quantised panel with few columns: weights are opened in registers as they stream by. */
#if defined(__x86_64__)
#include "tensor/int8_avx512.h"

#define MOST_COLUMNS 12 /* 12 sums and 12 dot products of 32 registers */
#define LINE_VECS    1

/* One opened line against inputs q[0..4) of each column. */
TILE void dot_line(__m512i *dot, __m512i w, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int c = 0; c < n; c++) dot[c] = _mm512_dpbusd_epi32(dot[c], w, four_bytes(q + (size_t)c * ldq));
}

/* The integer sums begin with what takes off an offset, `ld` apart for the next column, or with 0. */
TILE void start(__m512i *dot, const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) dot[c] =
        minus ? _mm512_set1_epi32(minus[(size_t)c * ld]) : _mm512_setzero_si512();
}

TILE void add_scaled(vec *sum, const __m512i *dot, vec scale, const float *share, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) sum[c] =
        v_fma(_mm512_cvtepi32_ps(dot[c]), v_mul(scale, v_set1(share[(size_t)c * ld])), sum[c]);
}

TILE void dot_nibbles(__m512i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        __m512i two[2];
        open_nibbles(lines + j * LINE_BYTES, two);
        dot_line(dot, two[0], q + 8 * j, ldq, n);
        dot_line(dot, two[1], q + 8 * j + 4, ldq, n);
    }
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_32(block_type type, vec *sum, const uint8_t *w, size_t blocks, size_t b, const columns *x, size_t at,
                   const int n) {
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const uint8_t *from = block_lines(type, w, blocks, b);
    const int8_t  *q = x->q + at * BLOCK_INPUTS;
    __m512i        dot[MOST_COLUMNS];
    start(dot, type == BLOCK_Q4_0 ? x->minus8 + at : type == BLOCK_Q8_0 ? x->minus128 + at : NULL, ld, n);
    if (type == BLOCK_Q8_0)
        UNROLL for (int j = 0; j < Q8_0_LINES; j++) dot_line(dot, load_line(from + j * LINE_BYTES), q + 4 * j, cols, n);
    else
        dot_nibbles(dot, from, q, cols, n);
    vec scale =
        type == BLOCK_Q4_K ? scale_u8(w + 2 * SCALE_BYTES + 16 * b, v_load_f16(w)) : v_load_f16(w + b * SCALE_BYTES);
    add_scaled(sum, dot, scale, x->shares + at, ld, n);
}

TILE void block_q6_k(vec *sum, const uint8_t *w, size_t b, const columns *x, size_t at, const int n) {
    const size_t cols = (size_t)x->cols;
    UNROLL for (size_t half = 0; half < 2; half++) {
        const uint8_t *lines = w + Q6_K_HEAD + (2 * b + half) * Q6_K_LINES * LINE_BYTES;
        const int8_t  *q = x->q + at * BLOCK_INPUTS + half * Q6_K_INPUTS;
        __m512i        dot[MOST_COLUMNS], four[4];
        start(dot, x->minus32 + 2 * at + half, cols / Q6_K_INPUTS, n);
        open_q6_k(lines, four);
        UNROLL for (int j = 0; j < 4; j++) dot_line(dot, four[j], q + 4 * j, cols, n);
        vec scale = scale_i8(w + 2 * SCALE_BYTES + 16 * (2 * b + half), v_load_f16(w));
        add_scaled(sum, dot, scale, x->shares + at, cols / BLOCK_INPUTS, n);
    }
}

TILE void take_minimums(vec *sum, const uint8_t *w, const columns *x, size_t at, const int n) {
    const size_t ld = (size_t)x->cols / BLOCK_INPUTS;
    __m512i      of[MOST_COLUMNS];
    start(of, NULL, 0, n);
    UNROLL for (size_t pair = 0; pair < 4; pair++) {
        __m512i two = minimums_of(w, pair);
        UNROLL for (int c = 0; c < n; c++) of[c] =
            _mm512_dpwssd_epi32(of[c], two, four_bytes(x->sums + at + (size_t)c * ld + 2 * pair));
    }
    vec scale = minimum_scale(w);
    UNROLL for (int c = 0; c < n; c++) sum[c] = _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(of[c]), sum[c]);
}

#include "tensor/int8_tile.h"

/* Four opened lines beside the sums of Q6_K: fewer columns fit. */
INT8_FUNCTIONS(avx512, MOST_COLUMNS, 8)
#else
typedef int pare_no_avx512_int8;
#endif
