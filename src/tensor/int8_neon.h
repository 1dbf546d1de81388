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

/* ---- values ---- */

/* Bits move up by `by`, down where it is negative. */
TILE uint8x16_t shifted(uint8x16_t v, const int by) {
    return by ? vshlq_u8(v, vdupq_n_s8((int8_t)by)) : v;
}

TILE int8x16_t with_bits(int8x16_t w, uint8x16_t high, const int by, const int mask) {
    return vorrq_s8(w, vreinterpretq_s8_u8(vandq_u8(shifted(high, by), vdupq_n_u8((uint8_t)mask))));
}

TILE void open_levels(const panel_form f, int8x16_t two[2]) {
    static const int8_t levels[][16] = {[OF_IQ4] = {LEVELS_IQ4}, [OF_FP4] = {LEVELS_FP4}};
    const int8x16_t     all = vld1q_s8(levels[f.levels]);
    UNROLL for (int i = 0; i < 2; i++) two[i] = vqtbl1q_s8(all, vreinterpretq_u8_s8(two[i]));
}

/* Are opened bytes signed, without an offset? */
TILE int opens_signed(const panel_form f) {
    return f.offset == 128;
}

/* Of the 8 lines of bytes that a block opens to the same quarter of lines 2j and 2j + 1; `lines` begins at that quarter. */
TILE void open_pair(const panel_form f, const uint8_t *lines, const int j, int8x16_t two[2]) {
    if (f.bits == 8) {
        UNROLL for (int i = 0; i < 2; i++) two[i] = open_bytes(lines + (2 * j + i) * LINE_BYTES);
    } else if (f.bits == 2 || f.bits == 3) {
        const uint8x16_t pairs = vld1q_u8(lines + j / 2 * LINE_BYTES), low = vdupq_n_u8(3);
        UNROLL for (int i = 0; i < 2; i++) two[i] =
            vreinterpretq_s8_u8(vandq_u8(shifted(pairs, -2 * (j % 2 * 2 + i)), low));
    } else if (f.bits == 6) {
        const uint8_t   *half = lines + j / 2 * 3 * LINE_BYTES;
        const uint8x16_t high = vld1q_u8(half + 2 * LINE_BYTES);
        open_nibbles(half + j % 2 * LINE_BYTES, two);
        UNROLL for (int i = 0; i < 2; i++) two[i] = with_bits(two[i], high, 4 - 2 * (j % 2 * 2 + i), 0x30);
    } else {
        open_nibbles(lines + j * LINE_BYTES, two);
    }
    if (f.bits == 3 || f.bits == 5) {
        const int        top = f.bits - 1;
        const uint8x16_t high = vld1q_u8(lines + top * LINE_BYTES);
        UNROLL for (int i = 0; i < 2; i++) two[i] = with_bits(two[i], high, top - (2 * j + i), 1 << top);
    }
    if (f.levels)
        open_levels(f, two);
}

/* ---- products ---- */

/* The integer sums, dot[n][LINE_VECS], begin with 0 or with what takes off an offset: `ld` apart for the next column. */
TILE void clear(int32x4_t *dot, const int n) {
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) dot[i] = vdupq_n_s32(0);
}
TILE void start(int32x4_t *dot, const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int h = 0; h < LINE_VECS; h++) dot[c * LINE_VECS + h] =
        vdupq_n_s32(minus[(size_t)c * ld]);
}

/* A part of a block, two opened lines at a time. */
TILE void dot_part(const panel_form f, int32x4_t *dot, const uint8_t *lines, const int part, const int8_t *q,
                   size_t ldq, const int n) {
    const int pairs = 4 / f.parts;
    UNROLL for (int j = part * pairs; j < (part + 1) * pairs; j++) {
        int8x16_t x[MOST_COLUMNS], w[2];
        UNROLL for (int c = 0; c < n; c++) x[c] = vld1q_s8(q + (size_t)c * ldq + j / 2 * 16);
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            open_pair(f, lines + h * QUARTER_BYTES, j, w);
            UNROLL for (int c = 0; c < n; c++) {
                int32x4_t *to = &dot[c * LINE_VECS + h];
                *to = opens_signed(f) ? dot_pair(*to, w[0], w[1], x[c], j % 2)
                                      : dot_small_pair(*to, w[0], w[1], x[c], j % 2);
            }
        }
    }
}

/* ---- scales ---- */

/* Exponents e as 2^(e - 128); the lowest two are subnormal, and the larger one of these integers is right. */
static inline vec half_powers(uint32x4_t exponents) {
    const int32x4_t e = vreinterpretq_s32_u32(exponents);
    const int32x4_t normal = vshlq_n_s32(vsubq_s32(e, vdupq_n_s32(1)), 23);
    const int32x4_t least = vshlq_s32(vdupq_n_s32(0x200000), vminq_s32(e, vdupq_n_s32(2)));
    return vreinterpretq_f32_s32(vmaxq_s32(normal, least));
}

TILE void widen_u8(const uint8_t *p, uint32x4_t whole[LINE_VECS]) {
    const uint8x16_t all = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(all)), high = vmovl_high_u8(all);
    whole[0] = vmovl_u16(vget_low_u16(low));
    whole[1] = vmovl_high_u16(low);
    whole[2] = vmovl_u16(vget_low_u16(high));
    whole[3] = vmovl_high_u16(high);
}

TILE void widen_i8(const uint8_t *p, int32x4_t whole[LINE_VECS]) {
    const int8x16_t all = vreinterpretq_s8_u8(vld1q_u8(p));
    const int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_high_s8(all);
    whole[0] = vmovl_s16(vget_low_s16(low));
    whole[1] = vmovl_high_s16(low);
    whole[2] = vmovl_s16(vget_low_s16(high));
    whole[3] = vmovl_high_s16(high);
}

TILE void load_scales(const uint8_t *d, vec *scale) {
    UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] = v_load_f16(d + h * LANES * 2);
}

/* The 16 scales of a part of block b. */
TILE void scales_of(const panel_form f, const uint8_t *stretch, size_t b, const int part, vec *scale) {
    const uint8_t *p = stretch + K_SCALES;
    uint32x4_t     whole[LINE_VECS];
    int32x4_t      of_sign[LINE_VECS];
    if (f.scales == SCALES_F16) {
        load_scales(stretch + b * SCALE_BYTES, scale);
    } else if (f.scales == SCALES_E8M0) {
        widen_u8(stretch + b * PANEL_ROWS, whole);
        UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] = half_powers(whole[h]);
    } else if (f.scales == SCALES_I8) {
        widen_i8(p + (b * f.parts + (size_t)part) * PANEL_ROWS, of_sign);
        load_scales(stretch, scale);
        UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] = v_mul(scale[h], vcvtq_f32_s32(of_sign[h]));
    } else {
        if (f.scales == SCALES_U4) { /* pairs of bytes */
            UNROLL for (size_t h = 0; h < LINE_VECS; h++) {
                whole[h] = vmovl_u16(vreinterpret_u16_u8(vld1_u8(p + 2 * (b * PANEL_ROWS + h * LANES))));
                whole[h] = vandq_u32(part ? vshrq_n_u32(whole[h], 8) : whole[h], vdupq_n_u32(15));
            }
        } else {
            widen_u8(p + b * PANEL_ROWS, whole);
        }
        load_scales(stretch, scale);
        UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] = v_mul(scale[h], vcvtq_f32_u32(whole[h]));
    }
}

/* What is least, times what the sums of activations are too large by. */
static inline vec eighth(const uint8_t *halves, const int h) {
    return v_mul(v_load_f16(halves + h * LANES * 2), v_set1(1.0f / Q8_SHARES));
}

TILE void add_scaled(vec *sum, const int32x4_t *dot, const vec *scale, const float *share, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        vec x = v_set1(share[(size_t)c * ld]);
        UNROLL for (int h = 0; h < LINE_VECS; h++) sum[c * LINE_VECS + h] =
            v_fma(vcvtq_f32_s32(dot[c * LINE_VECS + h]), v_mul(scale[h], x), sum[c * LINE_VECS + h]);
    }
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_of(const panel_form f, vec *sum, const uint8_t *w, size_t blocks, size_t b, const columns *x, size_t at,
                   const int n) {
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const uint8_t *lines = block_lines(f, w, blocks, b);
    UNROLL for (int part = 0; part < f.parts; part++) {
        size_t         ld_minus;
        const int32_t *minus = offset_sums(f, x, at, (size_t)part, &ld_minus);
        vec            scale[LINE_VECS];
        int32x4_t      dot[MOST_COLUMNS * LINE_VECS];
        if (minus && !opens_signed(f))
            start(dot, minus, ld_minus, n);
        else
            clear(dot, n);
        dot_part(f, dot, lines, part, x->q + at * BLOCK_INPUTS, cols, n);
        scales_of(f, w, b, part, scale);
        add_scaled(sum, dot, scale, x->shares + at, ld, n);
    }
    if (f.least == LEAST_F16)
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            vec low = eighth(w + (blocks + b) * SCALE_BYTES, h);
            UNROLL for (int c = 0; c < n; c++) sum[c * LINE_VECS + h] =
                v_fma(low, v_set1((float)x->sums[at + (size_t)c * ld]), sum[c * LINE_VECS + h]);
        }
}

/* Minimums lie in pairs, as the sums of activations do: the even ones meet the first sum, the odd ones the second. */
TILE void take_minimums(const panel_form f, vec *sum, const uint8_t *w, const columns *x, size_t at, const int n) {
    const uint8_t *minimums = w + (f.least == LEAST_U4 ? K_SCALES : K_MINIMUMS);
    size_t         ld;
    const int16_t *sums = minimum_sums(f, x, at, &ld);
    int32x4_t      of[MOST_COLUMNS * LINE_VECS];
    clear(of, n);
    UNROLL for (size_t pair = 0; pair < minimum_pairs(f); pair++) UNROLL for (int h = 0; h < LINE_VECS; h += 2) {
        uint8x8x2_t two = vld2_u8(minimums + 2 * (pair * PANEL_ROWS + (size_t)(h * LANES)));
        UNROLL for (int odd = 0; odd < 2; odd++) {
            uint8x8_t bytes = f.least == LEAST_U4 ? vshr_n_u8(two.val[odd], 4) : two.val[odd];
            int16x8_t minimum = vreinterpretq_s16_u16(vmovl_u8(bytes));
            UNROLL for (int c = 0; c < n; c++) {
                int16_t    by = sums[(size_t)c * ld + 2 * pair + (size_t)odd];
                int32x4_t *to = &of[c * LINE_VECS + h];
                to[0] = vmlal_n_s16(to[0], vget_low_s16(minimum), by);
                to[1] = vmlal_n_s16(to[1], vget_high_s16(minimum), by);
            }
        }
    }
    UNROLL for (int h = 0; h < LINE_VECS; h++) {
        vec scale = eighth(w + SCALE_BYTES, h);
        UNROLL for (int c = 0; c < n; c++) sum[c * LINE_VECS + h] =
            vfmsq_f32(sum[c * LINE_VECS + h], scale, vcvtq_f32_s32(of[c * LINE_VECS + h]));
    }
}

#include "tensor/int8_tile.h"

#endif
