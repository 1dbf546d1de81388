/* int8_avx512.c - one quantised panel with few columns: weights are opened in registers as they stream by. */
#if defined(__x86_64__)
#include "tensor/int8_avx512.h"

#define FAR_BYTES    18432 /* ahead, into the second-level cache: a core has few slots for the first-level one */
#define NEAR_BYTES   2304  /* and from there into the first-level cache. Measured together: 33 GB/s, one alone 28 */
#define MOST_COLUMNS 12    /* 12 sums and 12 dot products of 32 registers */

/* Where a tile's columns lie; all [n][...] from its first column. */
typedef struct tile_input {
    const int8_t  *q;
    const float   *scales, *sums;
    const int32_t *minus; /* the start of the integer sums: of 32 inputs, or of 16 */
    size_t         cols, blocks, halves;
} tile_input;

/* One opened line against inputs q[0..4) of each column. */
TILE void dot_line(__m512i *dot, __m512i w, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int c = 0; c < n; c++) dot[c] = _mm512_dpbusd_epi32(dot[c], w, four_inputs(q + (size_t)c * ldq));
}

TILE void start(__m512i *dot, const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) dot[c] =
        minus ? _mm512_set1_epi32(minus[(size_t)c * ld]) : _mm512_setzero_si512();
}

TILE void add_scaled(vec *sum, const __m512i *dot, vec scale, const float *x_scale, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        vec both = v_mul(scale, v_set1(x_scale[(size_t)c * ld]));
        sum[c] = v_fma(_mm512_cvtepi32_ps(dot[c]), both, sum[c]);
    }
}

TILE void dot_nibbles(__m512i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        __m512i two[2];
        open_nibbles(lines + j * LINE_BYTES, two);
        dot_line(dot, two[0], q + 8 * j, ldq, n);
        dot_line(dot, two[1], q + 8 * j + 4, ldq, n);
    }
}

/* Block b (32 inputs) of a stretch of `blocks`. */
TILE void block_q4_0(vec *sum, const uint8_t *w, size_t blocks, size_t b, const tile_input *x, size_t at, const int n) {
    const uint8_t *lines = w + blocks * SCALE_BYTES + b * Q4_0_LINES * LINE_BYTES;
    __m512i        dot[MOST_COLUMNS];
    start(dot, x->minus + at, x->blocks, n);
    dot_nibbles(dot, lines, x->q + at * BLOCK_INPUTS, x->cols, n);
    add_scaled(sum, dot, v_load_f16(w + b * SCALE_BYTES), x->scales + at, x->blocks, n);
}

TILE void block_q8_0(vec *sum, const uint8_t *w, size_t blocks, size_t b, const tile_input *x, size_t at, const int n) {
    const uint8_t *lines = w + blocks * SCALE_BYTES + b * Q8_0_LINES * LINE_BYTES;
    __m512i        dot[MOST_COLUMNS];
    start(dot, x->minus + at, x->blocks, n);
    UNROLL for (int j = 0; j < Q8_0_LINES; j++)
        dot_line(dot, load_line(lines + j * LINE_BYTES), x->q + at * BLOCK_INPUTS + 4 * j, x->cols, n);
    add_scaled(sum, dot, v_load_f16(w + b * SCALE_BYTES), x->scales + at, x->blocks, n);
}

TILE void block_q4_k(vec *sum, const uint8_t *w, size_t b, const tile_input *x, size_t at, const int n) {
    const uint8_t *lines = w + Q4_K_HEAD + b * Q4_0_LINES * LINE_BYTES;
    __m512i        dot[MOST_COLUMNS];
    start(dot, NULL, 0, n);
    dot_nibbles(dot, lines, x->q + at * BLOCK_INPUTS, x->cols, n);
    add_scaled(sum, dot, scale_u8(w + 2 * SCALE_BYTES + 16 * b, v_load_f16(w)), x->scales + at, x->blocks, n);
    vec minimum = scale_u8(w + Q4_K_MINS + 16 * b, v_load_f16(w + SCALE_BYTES));
    UNROLL for (int c = 0; c < n; c++) sum[c] =
        _mm512_fnmadd_ps(minimum, v_set1(x->sums[at + (size_t)c * x->blocks]), sum[c]);
}

TILE void block_q6_k(vec *sum, const uint8_t *w, size_t b, const tile_input *x, size_t at, const int n) {
    UNROLL for (int half = 0; half < 2; half++) {
        const uint8_t *lines = w + Q6_K_HEAD + (2 * b + (size_t)half) * Q6_K_LINES * LINE_BYTES;
        const int8_t  *q = x->q + at * BLOCK_INPUTS + half * Q6_K_INPUTS;
        __m512i        dot[MOST_COLUMNS], four[4];
        start(dot, x->minus + 2 * at + half, x->halves, n);
        open_q6_k(lines, four);
        UNROLL for (int j = 0; j < 4; j++) dot_line(dot, four[j], q + 4 * j, x->cols, n);
        vec scale = scale_i8(w + 2 * SCALE_BYTES + 16 * (2 * b + (size_t)half), v_load_f16(w));
        add_scaled(sum, dot, scale, x->scales + at, x->blocks, n);
    }
}

/* An eighth of a stretch, scales and all, for each block that is computed. */
TILE void prefetch_block(block_type type, const uint8_t *w, size_t b) {
    const size_t   bytes = stretch_bytes(type, 8) / 8;
    const uint8_t *at = w + b * bytes;
    UNROLL for (size_t i = 0; i < (bytes + LINE_BYTES - 1) / LINE_BYTES; i++) {
        PREFETCH_FAR(at + FAR_BYTES + i * LINE_BYTES);
        PREFETCH(at + NEAR_BYTES + i * LINE_BYTES);
    }
}

TILE void int8_tile(block_type type, const uint8_t *w, const tile_input *x, float *y, int ldy, const int n) {
    vec sum[MOST_COLUMNS];
    UNROLL for (int c = 0; c < n; c++) sum[c] = v_zero();
    for (size_t done = 0; done < x->blocks;) {
        size_t blocks = x->blocks - done < 8 ? x->blocks - done : 8;
        for (size_t b = 0; b < blocks; b++) {
            prefetch_block(type, w, b);
            if (type == BLOCK_Q4_0)
                block_q4_0(sum, w, blocks, b, x, done + b, n);
            else if (type == BLOCK_Q8_0)
                block_q8_0(sum, w, blocks, b, x, done + b, n);
            else if (type == BLOCK_Q4_K)
                block_q4_k(sum, w, b, x, done + b, n);
            else
                block_q6_k(sum, w, b, x, done + b, n);
        }
        done += blocks;
        w += stretch_bytes(type, blocks);
    }
    UNROLL for (int c = 0; c < n; c++) v_store(y + (size_t)c * (size_t)ldy, sum[c]);
}

/* Any number of columns, in tiles of nearly equal width. */
TILE void int8_panel(block_type type, const uint8_t *w, const columns *x, float *y, int ldy, const int widest) {
    for (int n = x->n, now, done = 0; n > 0; n -= now, done += now) {
        int tiles = (n + widest - 1) / widest;
        now = (n + tiles - 1) / tiles;
        columns    part = columns_from(x, done, now);
        size_t     blocks = (size_t)(x->cols / BLOCK_INPUTS);
        tile_input in = {
            part.q,          part.scales,
            part.sums,       type == BLOCK_Q4_0 ? part.minus8 : type == BLOCK_Q8_0 ? part.minus128 : part.minus32,
            (size_t)x->cols, blocks,
            2 * blocks};
        float *to = y + (size_t)done * (size_t)ldy;
        switch (now) {
#define WIDTH(N)                                                                                                       \
    case N:                                                                                                            \
        if ((N) <= widest)                                                                                             \
            int8_tile(type, w, &in, to, ldy, N);                                                                       \
        break
            WIDTH(1);
            WIDTH(2);
            WIDTH(3);
            WIDTH(4);
            WIDTH(5);
            WIDTH(6);
            WIDTH(7);
            WIDTH(8);
            WIDTH(9);
            WIDTH(10);
            WIDTH(11);
            WIDTH(12);
#undef WIDTH
        }
    }
}

void panel_q4_0_avx512(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q4_0, panel, x, y, ldy, 12);
}

void panel_q8_0_avx512(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q8_0, panel, x, y, ldy, 12);
}

void panel_q4_k_avx512(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q4_K, panel, x, y, ldy, 12);
}

/* Four opened lines beside the sums: fewer columns fit. */
void panel_q6_k_avx512(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q6_K, panel, x, y, ldy, 8);
}
#else
typedef int pare_no_avx512_int8;
#endif
