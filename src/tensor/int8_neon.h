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

#define INT8_TILE     4 /* columns: 16 dot products of 32 registers; the sums rest in memory between blocks */
#define QUARTERS      4 /* of a line, 4 rows each */
#define QUARTER_BYTES 16

/* Where a tile's columns lie; all [n][...] from its first column. */
typedef struct tile_input {
    const int8_t  *q;
    const float   *scales, *sums;
    const int32_t *minus8, *minus32;
    size_t         cols, blocks;
} tile_input;

/* The integer sums, dot[n][QUARTERS], begin with 0 or with what takes off an offset: `ld` apart for the next column. */
TILE void clear(int32x4_t *dot, const int n) {
    UNROLL for (int i = 0; i < n * QUARTERS; i++) dot[i] = vdupq_n_s32(0);
}
TILE void start(int32x4_t *dot, const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int h = 0; h < QUARTERS; h++) dot[c * QUARTERS + h] =
        vdupq_n_s32(minus[(size_t)c * ld]);
}

TILE void load_inputs(int8x16_t *x, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int c = 0; c < n; c++) x[c] = vld1q_s8(q + (size_t)c * ldq);
}

TILE void dot_nibbles(int32x4_t *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        int8x16_t x[INT8_TILE], w[2];
        load_inputs(x, q + j / 2 * 16, ldq, n);
        UNROLL for (int h = 0; h < QUARTERS; h++) {
            open_nibbles(lines + j * LINE_BYTES + h * QUARTER_BYTES, w);
            UNROLL for (int c = 0; c < n; c++) dot[c * QUARTERS + h] =
                dot_small_pair(dot[c * QUARTERS + h], w[0], w[1], x[c], j % 2);
        }
    }
}

/* Two lines at a time. */
TILE void dot_q8_0(int32x4_t *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    UNROLL for (int j = 0; j < Q8_0_LINES / 2; j++) {
        int8x16_t x[INT8_TILE];
        load_inputs(x, q + j / 2 * 16, ldq, n);
        UNROLL for (int h = 0; h < QUARTERS; h++) {
            const uint8_t *at = lines + 2 * j * LINE_BYTES + h * QUARTER_BYTES;
            int8x16_t      first = open_bytes(at), next = open_bytes(at + LINE_BYTES);
            UNROLL for (int c = 0; c < n; c++) dot[c * QUARTERS + h] =
                dot_pair(dot[c * QUARTERS + h], first, next, x[c], j % 2);
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
    int8x16_t x[INT8_TILE], w[2];
    load_inputs(x, q, ldq, n);
    UNROLL for (int h = 0; h < QUARTERS; h++) UNROLL for (int j = 0; j < 2; j++) {
        open_q6_k(lines + h * QUARTER_BYTES, j, w);
        UNROLL for (int c = 0; c < n; c++) dot[c * QUARTERS + h] =
            dot_small_pair(dot[c * QUARTERS + h], w[0], w[1], x[c], j);
    }
}

TILE void load_scales(const uint8_t *d, vec *scale) {
    UNROLL for (int h = 0; h < QUARTERS; h++) scale[h] = v_load_f16(d + h * LANES * 2);
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

TILE void add_scaled(vec *sum, const int32x4_t *dot, const vec *scale, const float *x_scale, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        vec x = v_set1(x_scale[(size_t)c * ld]);
        UNROLL for (int h = 0; h < QUARTERS; h++) sum[c * QUARTERS + h] =
            v_fma(vcvtq_f32_s32(dot[c * QUARTERS + h]), v_mul(scale[h], x), sum[c * QUARTERS + h]);
    }
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_32(block_type type, vec *sum, const uint8_t *w, size_t blocks, size_t b, const tile_input *x, size_t at,
                   const int n) {
    const int      lines = type == BLOCK_Q4_0 ? Q4_0_LINES : Q8_0_LINES;
    const uint8_t *from = w + blocks * SCALE_BYTES + b * (size_t)(lines * LINE_BYTES);
    const int8_t  *q = x->q + at * BLOCK_INPUTS;
    vec            scale[QUARTERS];
    int32x4_t      dot[INT8_TILE * QUARTERS];
    if (type == BLOCK_Q4_0) {
        start(dot, x->minus8 + at, x->blocks, n);
        dot_nibbles(dot, from, q, x->cols, n);
    } else {
        clear(dot, n);
        dot_q8_0(dot, from, q, x->cols, n);
    }
    load_scales(w + b * SCALE_BYTES, scale);
    add_scaled(sum, dot, scale, x->scales + at, x->blocks, n);
}

TILE void block_q4_k(vec *sum, const uint8_t *w, size_t b, const tile_input *x, size_t at, const int n) {
    vec       scale[QUARTERS], minimum[QUARTERS];
    int32x4_t dot[INT8_TILE * QUARTERS];
    clear(dot, n);
    dot_nibbles(dot, w + Q4_K_HEAD + b * Q4_0_LINES * LINE_BYTES, x->q + at * BLOCK_INPUTS, x->cols, n);
    scales_u8(w + 2 * SCALE_BYTES + 16 * b, w, scale);
    add_scaled(sum, dot, scale, x->scales + at, x->blocks, n);
    scales_u8(w + Q4_K_MINS + 16 * b, w + SCALE_BYTES, minimum);
    UNROLL for (int c = 0; c < n; c++) {
        vec of_x = v_set1(x->sums[at + (size_t)c * x->blocks]);
        UNROLL for (int h = 0; h < QUARTERS; h++) sum[c * QUARTERS + h] =
            vfmsq_f32(sum[c * QUARTERS + h], minimum[h], of_x);
    }
}

TILE void block_q6_k(vec *sum, const uint8_t *w, size_t b, const tile_input *x, size_t at, const int n) {
    UNROLL for (size_t half = 0; half < 2; half++) {
        const size_t g = 2 * b + half;
        vec          scale[QUARTERS];
        int32x4_t    dot[INT8_TILE * QUARTERS];
        start(dot, x->minus32 + 2 * at + half, 2 * x->blocks, n);
        dot_q6_k(dot, w + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES, x->q + at * BLOCK_INPUTS + half * Q6_K_INPUTS,
                 x->cols, n);
        scales_i8(w + 2 * SCALE_BYTES + 16 * g, w, scale);
        add_scaled(sum, dot, scale, x->scales + at, x->blocks, n);
    }
}

TILE void int8_tile(block_type type, const uint8_t *w, const tile_input *x, float *y, int ldy, const int n) {
    vec sum[INT8_TILE * QUARTERS];
    UNROLL for (int i = 0; i < n * QUARTERS; i++) sum[i] = v_zero();
    for (size_t done = 0; done < x->blocks;) {
        size_t blocks = x->blocks - done < 8 ? x->blocks - done : 8;
        for (size_t b = 0; b < blocks; b++) {
            if (type == BLOCK_Q4_K)
                block_q4_k(sum, w, b, x, done + b, n);
            else if (type == BLOCK_Q6_K)
                block_q6_k(sum, w, b, x, done + b, n);
            else
                block_32(type, sum, w, blocks, b, x, done + b, n);
        }
        done += blocks;
        w += stretch_bytes(type, blocks);
    }
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int h = 0; h < QUARTERS; h++)
        v_store(y + (size_t)c * (size_t)ldy + h * LANES, sum[c * QUARTERS + h]);
}

TILE void int8_panel(block_type type, const uint8_t *w, const columns *x, float *y, int ldy) {
    for (int n = x->n, now, done = 0; n > 0; n -= now, done += now) {
        int tiles = (n + INT8_TILE - 1) / INT8_TILE;
        now = (n + tiles - 1) / tiles; /* 5 columns are 3 + 2, not 4 + 1 */
        columns    part = columns_from(x, done, now);
        tile_input in = {part.q,
                         part.scales,
                         part.sums,
                         part.minus8,
                         part.minus32,
                         (size_t)x->cols,
                         (size_t)(x->cols / BLOCK_INPUTS)};
        float     *to = y + (size_t)done * (size_t)ldy;
        if (now == 4)
            int8_tile(type, w, &in, to, ldy, 4);
        else if (now == 3)
            int8_tile(type, w, &in, to, ldy, 3);
        else if (now == 2)
            int8_tile(type, w, &in, to, ldy, 2);
        else
            int8_tile(type, w, &in, to, ldy, 1);
    }
}

#define INT8_FUNCTIONS(isa)                                                                                            \
    void panel_q4_0_##isa(const uint8_t *panel, const columns *x, float *y, int ldy) {                                 \
        int8_panel(BLOCK_Q4_0, panel, x, y, ldy);                                                                      \
    }                                                                                                                  \
    void panel_q8_0_##isa(const uint8_t *panel, const columns *x, float *y, int ldy) {                                 \
        int8_panel(BLOCK_Q8_0, panel, x, y, ldy);                                                                      \
    }                                                                                                                  \
    void panel_q4_k_##isa(const uint8_t *panel, const columns *x, float *y, int ldy) {                                 \
        int8_panel(BLOCK_Q4_K, panel, x, y, ldy);                                                                      \
    }                                                                                                                  \
    void panel_q6_k_##isa(const uint8_t *panel, const columns *x, float *y, int ldy) {                                 \
        int8_panel(BLOCK_Q6_K, panel, x, y, ldy);                                                                      \
    }

#endif
