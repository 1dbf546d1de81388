/* bf16_avx512.c - products of bfloat16 weights with activations rounded to bfloat16 (AVX512_BF16): two inputs a lane at
 * once, summed in float32. Meant for CPUs that run this instruction at full rate (kernels.c).
 *
 * A panel's lines k and k + 1 are woven into one register of pairs; pairs meet a broadcast pair of activations. One sum an
 * output, pairs in order, whatever the number of columns: y = y + w[k+1] x[k+1] + w[k] x[k], as the instruction has it. An
 * odd last input is paired with zero.                                                                                */
#if defined(__x86_64__)
#include <string.h>

#include "tensor/int8.h"
#include "tensor/matrix.h"
#include "tensor/unroll.h"
#include "tensor/vector_avx512.h"

#define PREFETCH_BYTES 4096
#define LINE           32  /* bytes of 16 bfloat16 */
#define NARROW_TILE    12  /* columns of one panel */
#define WIDE_TILE      6   /* columns of two */
#define PIECE_PAIRS    128 /* 8 KB of woven pairs a panel */

/* Lines k and k + 1 as [row][2]. */
static inline __m512i weave(__m256i even, __m256i odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1));
}

static inline __m512i load_pair(const uint8_t *panel, int pair) {
    const uint8_t *at = panel + (size_t)pair * 2 * LINE;
    return weave(_mm256_loadu_si256((const void *)at), _mm256_loadu_si256((const void *)(at + LINE)));
}

static inline __m512i load_last(const uint8_t *panel, int pair) {
    return weave(_mm256_loadu_si256((const void *)(panel + (size_t)pair * 2 * LINE)), _mm256_setzero_si256());
}

static inline __m512bh two_inputs(const uint16_t *x) {
    int32_t two;
    memcpy(&two, x, sizeof two);
    return (__m512bh)_mm512_set1_epi32(two);
}

static inline __m512bh one_input(const uint16_t *x) {
    return (__m512bh)_mm512_set1_epi32(*x);
}

TILE void narrow_tile(const uint8_t *panel, const uint16_t *x, int cols, float *y, int ldy, const int n) {
    vec sum[NARROW_TILE];
    UNROLL for (int c = 0; c < n; c++) sum[c] = v_zero();
    for (int pair = 0; pair < cols / 2; pair++) {
        __m512bh w = (__m512bh)load_pair(panel, pair);
        PREFETCH(panel + (size_t)pair * 2 * LINE + PREFETCH_BYTES);
        UNROLL for (int c = 0; c < n; c++) sum[c] =
            _mm512_dpbf16_ps(sum[c], w, two_inputs(x + (size_t)c * (size_t)cols + 2 * pair));
    }
    if (cols % 2) {
        __m512bh w = (__m512bh)load_last(panel, cols / 2);
        UNROLL for (int c = 0; c < n; c++) sum[c] =
            _mm512_dpbf16_ps(sum[c], w, one_input(x + (size_t)c * (size_t)cols + cols - 1));
    }
    UNROLL for (int c = 0; c < n; c++) v_store(y + (size_t)c * (size_t)ldy, sum[c]);
}

void panel_bf16_dot(const uint8_t *panel, const columns *x, float *y, int ldy) {
    const uint16_t *from = x->rounded;
    for (int n = x->n, now; n > 0; n -= now, from += (size_t)now * (size_t)x->cols, y += (size_t)now * (size_t)ldy) {
        if (n >= NARROW_TILE)
            narrow_tile(panel, from, x->cols, y, ldy, now = NARROW_TILE);
        else if (n >= 8)
            narrow_tile(panel, from, x->cols, y, ldy, now = 8);
        else if (n >= 4)
            narrow_tile(panel, from, x->cols, y, ldy, now = 4);
        else if (n >= 2)
            narrow_tile(panel, from, x->cols, y, ldy, now = 2);
        else
            narrow_tile(panel, from, x->cols, y, ldy, now = 1);
    }
}

typedef struct piece {
    _Alignas(64) __m512i pairs[2][PIECE_PAIRS];
} piece;

/* Pairs [0, pairs) of the piece; x begins at its first input. */
TILE void wide_tile(const piece *w, int pairs, bool first, const uint16_t *x, size_t ldx, float *y, int ldy,
                    const int n) {
    vec sum[2][WIDE_TILE];
    UNROLL for (int p = 0; p < 2; p++) UNROLL for (int c = 0; c < n; c++) sum[p][c] =
        first ? v_zero() : v_load(y + (size_t)c * (size_t)ldy + p * PANEL_ROWS);
    for (int i = 0; i < pairs; i++) {
        UNROLL for (int c = 0; c < n; c++) {
            __m512bh two = two_inputs(x + (size_t)c * ldx + 2 * i);
            UNROLL for (int p = 0; p < 2; p++) sum[p][c] = _mm512_dpbf16_ps(sum[p][c], (__m512bh)w->pairs[p][i], two);
        }
    }
    UNROLL for (int p = 0; p < 2; p++) UNROLL for (int c = 0; c < n; c++)
        v_store(y + (size_t)c * (size_t)ldy + p * PANEL_ROWS, sum[p][c]);
}

/* Inputs of which the last stands alone are left to the narrow products: no model's rows are odd. */
void wide_bf16_dot(const uint8_t *panels, const columns *x, float *y, int ldy) {
    const size_t cols = (size_t)x->cols, panel_bytes = cols * LINE;
    const int    tiles = (x->n + WIDE_TILE - 1) / WIDE_TILE;
    piece        woven;
    if (cols % 2) {
        panel_bf16_dot(panels, x, y, ldy);
        panel_bf16_dot(panels + panel_bytes, x, y + PANEL_ROWS, ldy);
        return;
    }
    for (int at = 0; at < x->cols / 2; at += PIECE_PAIRS) {
        int now = x->cols / 2 - at < PIECE_PAIRS ? x->cols / 2 - at : PIECE_PAIRS;
        for (int i = 0; i < now; i++)
            UNROLL for (int p = 0; p < 2; p++) woven.pairs[p][i] = load_pair(panels + (size_t)p * panel_bytes, at + i);
        for (int t = 0, c = 0; t < tiles; t++) {
            int             end = (int)((int64_t)x->n * (t + 1) / tiles), n = end - c;
            const uint16_t *from = x->rounded + (size_t)c * cols + 2 * (size_t)at;
            float          *to = y + (size_t)c * (size_t)ldy;
            if (n == 6)
                wide_tile(&woven, now, at == 0, from, cols, to, ldy, 6);
            else if (n == 5)
                wide_tile(&woven, now, at == 0, from, cols, to, ldy, 5);
            else
                for (int one = 0; one < n; one++)
                    wide_tile(&woven, now, at == 0, from + (size_t)one * cols, cols, to + (size_t)one * (size_t)ldy,
                              ldy, 1);
            c = end;
        }
    }
}
#else
typedef int pare_no_avx512_bf16;
#endif
