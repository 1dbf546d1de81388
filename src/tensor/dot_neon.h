/* dot_neon.h - dot products of int8 in NEON, in two versions: a file that is compiled for FEAT_DotProd (armv8.2-a, and
 * nearly every core since the Cortex-A76) gets SDOT, any other what armv8-a has.
 *
 * A register of weights holds four inputs of four rows, as a quarter of a panel's line does (panel.h); a register of
 * inputs holds 16 of one column, four a lane.                                                                        */
#ifndef PARE_TENSOR_DOT_NEON_H
#define PARE_TENSOR_DOT_NEON_H

#include <arm_neon.h>

#include "tensor/unroll.h"

#if defined(__ARM_FEATURE_DOTPROD)

/* dot += w0 . x[0..4) + w1 . x[4..8), or with `upper` x[8..12) and x[12..16). */
TILE int32x4_t dot_pair(int32x4_t dot, int8x16_t w0, int8x16_t w1, int8x16_t x, const int upper) {
    return upper ? vdotq_laneq_s32(vdotq_laneq_s32(dot, w0, x, 2), w1, x, 3)
                 : vdotq_laneq_s32(vdotq_laneq_s32(dot, w0, x, 0), w1, x, 1);
}

/* The same; without SDOT it is less work for weights of 0 .. 63. */
TILE int32x4_t dot_small_pair(int32x4_t dot, int8x16_t w0, int8x16_t w1, int8x16_t x, const int upper) {
    return dot_pair(dot, w0, w1, x, upper);
}

#else

TILE int8x16_t input_lane(int8x16_t x, const int upper, const int second) {
    int32x4_t all = vreinterpretq_s32_s8(x);
    return vreinterpretq_s8_s32(upper ? (second ? vdupq_laneq_s32(all, 3) : vdupq_laneq_s32(all, 2))
                                      : (second ? vdupq_laneq_s32(all, 1) : vdupq_laneq_s32(all, 0)));
}

/* Two products of -128 by +-127 still fit in 16 bits. */
TILE int32x4_t dot_four(int32x4_t dot, int8x16_t w, int8x16_t x) {
    return vpadalq_s16(dot, vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)));
}

TILE int32x4_t dot_pair(int32x4_t dot, int8x16_t w0, int8x16_t w1, int8x16_t x, const int upper) {
    dot = dot_four(dot, w0, input_lane(x, upper, 0));
    return dot_four(dot, w1, input_lane(x, upper, 1));
}

/* Four products of 63 by +-127 still fit in 16 bits. */
TILE int32x4_t dot_small_pair(int32x4_t dot, int8x16_t w0, int8x16_t w1, int8x16_t x, const int upper) {
    int8x16_t x0 = input_lane(x, upper, 0), x1 = input_lane(x, upper, 1);
    int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(w0), vget_low_s8(x0)), vget_low_s8(w1), vget_low_s8(x1));
    int16x8_t high = vmlal_high_s8(vmull_high_s8(w0, x0), w1, x1);
    return vpadalq_s16(dot, vpaddq_s16(low, high));
}

#endif

/* 16 bytes of 4-bit values as two registers, low nibbles first. */
TILE void open_nibbles(const uint8_t *p, int8x16_t two[2]) {
    uint8x16_t both = vld1q_u8(p);
    two[0] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
    two[1] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
}

/* 16 bytes that are plus 128, without it. */
TILE int8x16_t open_bytes(const uint8_t *p) {
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128)));
}

#endif
