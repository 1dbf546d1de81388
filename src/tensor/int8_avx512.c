/* int8_avx512.c - one quantised panel with few columns: weights are opened in registers as they stream by. */
#if defined(__x86_64__)
#include "tensor/int8_avx512.h"

#define MOST_COLUMNS 12 /* 12 sums and 12 dot products of 32 registers */
#define LINE_VECS    1

/* One opened line against inputs q[0..4) of each column. */
TILE void dot_line(__m512i *dot, __m512i w, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int c = 0; c < n; c++) dot[c] = _mm512_dpbusd_epi32(dot[c], w, four_bytes(q + (size_t)c * ldq));
}

TILE void add_scaled(vec *sum, const __m512i *dot, vec scale, const float *share, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) sum[c] =
        v_fma(_mm512_cvtepi32_ps(dot[c]), v_mul(scale, v_set1(share[(size_t)c * ld])), sum[c]);
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_of(const panel_form f, vec *sum, const uint8_t *w, size_t blocks, size_t b, const columns *x, size_t at,
                   const int n) {
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const uint8_t *lines = block_lines(f, w, blocks, b);
    const int      pairs = 4 / f.parts;
    UNROLL for (int part = 0; part < f.parts; part++) {
        size_t         ld_minus;
        const int32_t *minus = offset_sums(f, x, at, (size_t)part, &ld_minus);
        __m512i        dot[MOST_COLUMNS], two[2];
        UNROLL for (int c = 0; c < n; c++) dot[c] =
            minus ? _mm512_set1_epi32(minus[(size_t)c * ld_minus]) : _mm512_setzero_si512();
        UNROLL for (int j = part * pairs; j < (part + 1) * pairs; j++) {
            const int8_t *q = x->q + at * BLOCK_INPUTS + 8 * j;
            open_pair(f, lines, j, two);
            UNROLL for (int i = 0; i < 2; i++) dot_line(dot, two[i], q + 4 * i, cols, n);
        }
        add_scaled(sum, dot, scales_of(f, w, b, part), x->shares + at, ld, n);
    }
    if (f.least == LEAST_F16) {
        vec low = lows_of(w, blocks, b);
        UNROLL for (int c = 0; c < n; c++) sum[c] = v_fma(low, v_set1((float)x->sums[at + (size_t)c * ld]), sum[c]);
    }
}

TILE void take_minimums(const panel_form f, vec *sum, const uint8_t *w, const columns *x, size_t at, const int n) {
    size_t         ld;
    const int16_t *sums = minimum_sums(f, x, at, &ld);
    __m512i        of[MOST_COLUMNS];
    UNROLL for (int c = 0; c < n; c++) of[c] = _mm512_setzero_si512();
    UNROLL for (size_t pair = 0; pair < minimum_pairs(f); pair++) {
        __m512i two = minimums_of(f, w, pair);
        UNROLL for (int c = 0; c < n; c++) of[c] =
            _mm512_dpwssd_epi32(of[c], two, four_bytes(sums + (size_t)c * ld + 2 * pair));
    }
    vec scale = minimum_scale(w);
    UNROLL for (int c = 0; c < n; c++) sum[c] = _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(of[c]), sum[c]);
}

#include "tensor/int8_tile.h"

/* Registers for the opened lines beside the sums: where the lines of high bits wait, fewer columns fit. */
#define AVX512_PANEL(name, type) INT8_FUNCTION(name, type, avx512, form_of(BLOCK_##type).parts == 2 ? 8 : MOST_COLUMNS)
INT8_TYPES(AVX512_PANEL)
#else
typedef int pare_no_avx512_int8;
#endif
