/* attend_neon.h - attention in NEON: four registers hold the 16 positions of a block. attend_neon.c and attend_dotprod.c
 * compile it, with one or the other dot product of dot_neon.h.                                                         */
#ifndef PARE_TENSOR_ATTEND_NEON_H
#define PARE_TENSOR_ATTEND_NEON_H

#include "tensor/vector_neon.h"

#include "tensor/dot_neon.h"
#include "tensor/kvblock.h"
#include "tensor/vector_math.h"

#define ROW_TILE 8

typedef int32x4_t ivec;

static inline vec v_from_int(ivec a) {
    return vcvtq_f32_s32(a);
}

static inline uint8x8_t load_four(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpret_u8_u32(vdup_n_u32(four));
}

static inline vec v_load_i8(const uint8_t *p) {
    int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(load_four(p)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

static inline vec v_load_i4(const uint8_t *row, size_t at) {
    uint8x8_t two = load_four(row + at / KV_GROUP * (KV_GROUP / 2) + at % (KV_GROUP / 2));
    uint8x8_t one = at % KV_GROUP >= KV_GROUP / 2 ? vshr_n_u8(two, 4) : vand_u8(two, vdup_n_u8(15));
    int16x8_t wide = vmovl_s8(vsub_s8(vreinterpret_s8_u8(one), vdup_n_s8(KV_Q4_OFFSET)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

/* Two lines at a time; the offset comes off each key. */
TILE void dot_q8_0(ivec *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int32_t *sums, size_t ldsum,
                   const int rows) {
    (void)sums;
    (void)ldsum;
    UNROLL for (int r = 0; r < rows; r++) dot[r] = vdupq_n_s32(0);
    UNROLL for (int j = 0; j < KV_Q8_LINES / 2; j++) {
        const uint8_t *at = lines + 2 * j * KV_LINE;
        int8x16_t      first = open_bytes(at), next = open_bytes(at + KV_LINE);
        UNROLL for (int r = 0; r < rows; r++) dot[r] =
            dot_pair(dot[r], first, next, vld1q_s8(x + (size_t)r * ldx + j / 2 * 16), j % 2);
    }
}

TILE void dot_q4_0(ivec *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int32_t *sums, size_t ldsum,
                   const int rows) {
    UNROLL for (int r = 0; r < rows; r++) dot[r] = vdupq_n_s32(-KV_Q4_OFFSET * sums[(size_t)r * ldsum]);
    UNROLL for (int j = 0; j < KV_Q4_LINES; j++) {
        int8x16_t key[2];
        open_nibbles(lines + j * KV_LINE, key);
        UNROLL for (int r = 0; r < rows; r++) dot[r] =
            dot_small_pair(dot[r], key[0], key[1], vld1q_s8(x + (size_t)r * ldx + j / 2 * 16), j % 2);
    }
}

#include "tensor/attend_vector.h"

#endif
