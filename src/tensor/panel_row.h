/* panel_row.h - one row of a quantised panel in plain C: what pack.c unpacks and kernels_scalar.c multiplies. */
#ifndef PARE_TENSOR_PANEL_ROW_H
#define PARE_TENSOR_PANEL_ROW_H

#include <string.h>

#include "tensor/panel.h"

static inline float row_f16(const uint8_t *halves, int r) {
    uint16_t h;
    memcpy(&h, halves + 2 * r, sizeof h);
    return f16_to_f32(h);
}

/* 2^(e - 128): the lowest two are subnormal. */
static inline float half_power(uint8_t e) {
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float    f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The weight of input i of a block, without its scale. */
TILE int row_weight(const panel_form f, const uint8_t *lines, int r, int i) {
    static const int8_t levels[][16] = {[OF_IQ4] = {LEVELS_IQ4}, [OF_FP4] = {LEVELS_FP4}};
    const uint8_t      *at = lines + 4 * r + i % 4;
    int                 value;
    if (f.bits == 8) {
        value = at[i / 4 * LINE_BYTES];
    } else if (f.bits == 2 || f.bits == 3) {
        value = at[i / 16 * LINE_BYTES] >> (i / 4 % 4 * 2) & 3;
    } else if (f.bits == 6) {
        at += i / 16 * 3 * LINE_BYTES;
        value = at[i % 16 / 8 * LINE_BYTES] >> (i & 4) & 15;
        value |= (at[2 * LINE_BYTES] >> (i / 4 % 4 * 2) & 3) << 4;
    } else {
        value = at[i / 8 * LINE_BYTES] >> (i & 4) & 15;
    }
    if (f.bits == 3 || f.bits == 5)
        value |= (at[(f.bits - 1) * LINE_BYTES] >> (i / 4) & 1) << (f.bits - 1);
    return f.levels ? levels[f.levels][value] : value - f.offset;
}

/* Of a part of block b of a stretch. */
TILE float row_scale(const panel_form f, const uint8_t *stretch, int b, int part, int r) {
    const uint8_t *integers = stretch + K_SCALES;
    switch (f.scales) {
    case SCALES_F16:
        return row_f16(stretch + b * SCALE_BYTES, r);
    case SCALES_E8M0:
        return half_power(stretch[b * PANEL_ROWS + r]);
    case SCALES_U8:
        return row_f16(stretch, r) * (float)integers[b * PANEL_ROWS + r];
    case SCALES_I8:
        return row_f16(stretch, r) * (float)(int8_t)integers[(b * f.parts + part) * PANEL_ROWS + r];
    default:
        return row_f16(stretch, r) * (float)(integers[2 * (b * PANEL_ROWS + r) + part] & 15);
    }
}

/* Where lows begin in a stretch of `blocks`. */
TILE const uint8_t *block_lows(const uint8_t *stretch, size_t blocks, size_t b) {
    return stretch + (blocks + b) * SCALE_BYTES;
}

/* Where the minimum of row r and block b is, of SCALES_U8. */
static inline int minimum_place(int b, int r) {
    return K_MINIMUMS + b / 2 * 2 * PANEL_ROWS + 2 * r + b % 2;
}

/* As an integer, times d_min. */
TILE int row_minimum(const panel_form f, const uint8_t *stretch, int b, int part, int r) {
    return f.least == LEAST_U8 ? stretch[minimum_place(b, r)]
                               : stretch[K_SCALES + 2 * (b * PANEL_ROWS + r) + part] >> 4;
}

#endif
