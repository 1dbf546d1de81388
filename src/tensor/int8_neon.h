/* int8_neon.h - one quantised panel with any number of columns in NEON; four registers hold a line. int8_neon.c and
 * int8_dotprod.c compile it, with one or the other dot product of dot_neon.h.                                          */
#ifndef PARE_TENSOR_INT8_NEON_H
#define PARE_TENSOR_INT8_NEON_H

#include "tensor/dot_neon.h"
#include "tensor/int8.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/unroll.h"
#include "tensor/vector_neon.h"

#define MOST_COLUMNS  4 /* 16 dot products of 32 registers; the sums rest in memory between blocks */
#define LINE_VECS     4 /* quarters of a line, 4 rows each */
#define QUARTER_BYTES 16

/* The integer sums, dot[n][LINE_VECS], begin with 0 or with what takes off an offset: `ld` apart for the next column. */
TILE void clear(int32x4_t *dot, const int n) {
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) dot[i] = vdupq_n_s32(0);
}
TILE void start(int32x4_t *dot, const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int h = 0; h < LINE_VECS; h++) dot[c * LINE_VECS + h] =
        vdupq_n_s32(minus[(size_t)c * ld]);
}

TILE void load_inputs(int8x16_t *x, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int c = 0; c < n; c++) x[c] = vld1q_s8(q + (size_t)c * ldq);
}

TILE void dot_nibbles(int32x4_t *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        int8x16_t x[MOST_COLUMNS], w[2];
        load_inputs(x, q + j / 2 * 16, ldq, n);
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            open_nibbles(lines + j * LINE_BYTES + h * QUARTER_BYTES, w);
            UNROLL for (int c = 0; c < n; c++) dot[c * LINE_VECS + h] =
                dot_small_pair(dot[c * LINE_VECS + h], w[0], w[1], x[c], j % 2);
        }
    }
}

/* Two lines at a time. */
TILE void dot_q8_0(int32x4_t *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int j = 0; j < Q8_0_LINES / 2; j++) {
        int8x16_t x[MOST_COLUMNS];
        load_inputs(x, q + j / 2 * 16, ldq, n);
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            const uint8_t *at = lines + 2 * j * LINE_BYTES + h * QUARTER_BYTES;
            int8x16_t      first = open_bytes(at), next = open_bytes(at + LINE_BYTES);
            UNROLL for (int c = 0; c < n; c++) dot[c * LINE_VECS + h] =
                dot_pair(dot[c * LINE_VECS + h], first, next, x[c], j % 2);
        }
    }
}

/* Adds to the nibbles of line j of 16 inputs their high bits: bits 4 and 5 of the byte. */
TILE void open_q6_k(const uint8_t *lines, const int j, int8x16_t two[2]) {
    uint8x16_t middle = vdupq_n_u8(0x30), high = vld1q_u8(lines + 2 * LINE_BYTES);
    uint8x16_t first = j ? high : vshlq_n_u8(high, 4), next = j ? vshrq_n_u8(high, 2) : vshlq_n_u8(high, 2);
    open_nibbles(lines + j * LINE_BYTES, two);
    two[0] = vorrq_s8(two[0], vreinterpretq_s8_u8(vandq_u8(first, middle)));
    two[1] = vorrq_s8(two[1], vreinterpretq_s8_u8(vandq_u8(next, middle)));
}

/* 16 inputs: two lines of nibbles, one of high bits. */
TILE void dot_q6_k(int32x4_t *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    int8x16_t x[MOST_COLUMNS], w[2];
    load_inputs(x, q, ldq, n);
    UNROLL for (int h = 0; h < LINE_VECS; h++) UNROLL for (int j = 0; j < 2; j++) {
        open_q6_k(lines + h * QUARTER_BYTES, j, w);
        UNROLL for (int c = 0; c < n; c++) dot[c * LINE_VECS + h] =
            dot_small_pair(dot[c * LINE_VECS + h], w[0], w[1], x[c], j);
    }
}

TILE void load_scales(const uint8_t *d, vec *scale) {
    UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] = v_load_f16(d + h * LANES * 2);
}

/* 16 uint8 or int8 scales as floats, times the f16 at d. */
TILE void scales_u8(const uint8_t *p, const uint8_t *d, vec *scale) {
    uint8x16_t all = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(all)), high = vmovl_high_u8(all);
    load_scales(d, scale);
    scale[0] = v_mul(scale[0], vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))));
    scale[1] = v_mul(scale[1], vcvtq_f32_u32(vmovl_high_u16(low)));
    scale[2] = v_mul(scale[2], vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))));
    scale[3] = v_mul(scale[3], vcvtq_f32_u32(vmovl_high_u16(high)));
}
TILE void scales_i8(const uint8_t *p, const uint8_t *d, vec *scale) {
    int8x16_t all = vreinterpretq_s8_u8(vld1q_u8(p));
    int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_high_s8(all);
    load_scales(d, scale);
    scale[0] = v_mul(scale[0], vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))));
    scale[1] = v_mul(scale[1], vcvtq_f32_s32(vmovl_high_s16(low)));
    scale[2] = v_mul(scale[2], vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))));
    scale[3] = v_mul(scale[3], vcvtq_f32_s32(vmovl_high_s16(high)));
}

TILE void add_scaled(vec *sum, const int32x4_t *dot, const vec *scale, const float *share, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        vec x = v_set1(share[(size_t)c * ld]);
        UNROLL for (int h = 0; h < LINE_VECS; h++) sum[c * LINE_VECS + h] =
            v_fma(vcvtq_f32_s32(dot[c * LINE_VECS + h]), v_mul(scale[h], x), sum[c * LINE_VECS + h]);
    }
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_32(block_type type, vec *sum, const uint8_t *w, size_t blocks, size_t b, const columns *x, size_t at,
                   const int n) {
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const uint8_t *from = block_lines(type, w, blocks, b);
    const int8_t  *q = x->q + at * BLOCK_INPUTS;
    vec            scale[LINE_VECS];
    int32x4_t      dot[MOST_COLUMNS * LINE_VECS];
    if (type == BLOCK_Q4_0)
        start(dot, x->minus8 + at, ld, n);
    else
        clear(dot, n);
    if (type == BLOCK_Q8_0)
        dot_q8_0(dot, from, q, cols, n);
    else
        dot_nibbles(dot, from, q, cols, n);
    if (type == BLOCK_Q4_K)
        scales_u8(w + 2 * SCALE_BYTES + 16 * b, w, scale);
    else
        load_scales(w + b * SCALE_BYTES, scale);
    add_scaled(sum, dot, scale, x->shares + at, ld, n);
}

TILE void block_q6_k(vec *sum, const uint8_t *w, size_t b, const columns *x, size_t at, const int n) {
    const size_t cols = (size_t)x->cols;
    UNROLL for (size_t half = 0; half < 2; half++) {
        const size_t g = 2 * b + half;
        vec          scale[LINE_VECS];
        int32x4_t    dot[MOST_COLUMNS * LINE_VECS];
        start(dot, x->minus32 + 2 * at + half, cols / Q6_K_INPUTS, n);
        dot_q6_k(dot, w + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES, x->q + at * BLOCK_INPUTS + half * Q6_K_INPUTS, cols,
                 n);
        scales_i8(w + 2 * SCALE_BYTES + 16 * g, w, scale);
        add_scaled(sum, dot, scale, x->shares + at, cols / BLOCK_INPUTS, n);
    }
}

/* Minimums lie in pairs, as the sums of activations do: the even ones meet the first sum, the odd ones the second. */
TILE void take_minimums(vec *sum, const uint8_t *w, const columns *x, size_t at, const int n) {
    const size_t ld = (size_t)x->cols / BLOCK_INPUTS;
    int32x4_t    of[MOST_COLUMNS * LINE_VECS];
    clear(of, n);
    UNROLL for (size_t pair = 0; pair < 4; pair++) UNROLL for (int h = 0; h < LINE_VECS; h += 2) {
        uint8x8x2_t two = vld2_u8(w + Q4_K_MINS + 32 * pair + 2 * h * LANES);
        UNROLL for (int odd = 0; odd < 2; odd++) {
            int16x8_t minimum = vreinterpretq_s16_u16(vmovl_u8(two.val[odd]));
            UNROLL for (int c = 0; c < n; c++) {
                int16_t    by = x->sums[at + (size_t)c * ld + 2 * pair + (size_t)odd];
                int32x4_t *to = &of[c * LINE_VECS + h];
                to[0] = vmlal_n_s16(to[0], vget_low_s16(minimum), by);
                to[1] = vmlal_n_s16(to[1], vget_high_s16(minimum), by);
            }
        }
    }
    UNROLL for (int h = 0; h < LINE_VECS; h++) {
        vec scale = v_mul(v_load_f16(w + SCALE_BYTES + h * LANES * 2), v_set1(1.0f / Q8_SHARES));
        UNROLL for (int c = 0; c < n; c++) sum[c * LINE_VECS + h] =
            vfmsq_f32(sum[c * LINE_VECS + h], scale, vcvtq_f32_s32(of[c * LINE_VECS + h]));
    }
}

#include "tensor/int8_tile.h"

#endif
