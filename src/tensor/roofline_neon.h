/* roofline_neon.h - the longest reads and fullest pipes of NEON. roofline_neon.c and roofline_dotprod.c compile it, with
 * one or the other dot product of dot_neon.h.                                                                         */
#ifndef PARE_TENSOR_ROOFLINE_NEON_H
#define PARE_TENSOR_ROOFLINE_NEON_H

#include <arm_neon.h>

#include "tensor/dot_neon.h"
#include "tensor/roofline.h"
#include "tensor/unroll.h"

#define LINE           64
#define PREFETCH_BYTES 4096

/* The chains are variables and not an array, which gcc would keep in memory once an asm names its elements. */
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

/* Hides from the compiler what a register holds, so that it neither folds or hoists a product of ones nor makes one
 * chain of several that look alike. Costs nothing. */
#define OPAQUE(x) __asm__ volatile("" : "+w"(x))

static uint64_t read_words(const void *from, size_t bytes) {
    const uint64_t *p = from;
    uint64x2_t      sum[4] = {vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0)};
    for (const uint64_t *end = p + bytes / sizeof *p; p < end; p += LINE / sizeof *p) {
        PREFETCH(p + PREFETCH_BYTES / sizeof *p);
        UNROLL for (int i = 0; i < 4; i++) sum[i] = vaddq_u64(sum[i], vld1q_u64(p + 2 * i));
    }
    return vaddvq_u64(vaddq_u64(vaddq_u64(sum[0], sum[1]), vaddq_u64(sum[2], sum[3])));
}

#define BEGIN(i) int32x4_t sum##i = vdupq_n_s32(0);
#define ADD(i)   total += vaddvq_s32(sum##i);
#define STEP(i)                                                                                                        \
    OPAQUE(a); /* each time: otherwise one product would serve all */                                                  \
    sum##i = dot_small_pair(sum##i, a, a, ones, 0);                                                                    \
    OPAQUE(sum##i);

static double int8_chains(int rounds) {
    int8x16_t ones = vdupq_n_s8(1), a = ones;
    double    total = 0;
    OPAQUE(ones);
    EACH_CHAIN(BEGIN)
    for (int r = 0; r < rounds; r++) {
        EACH_CHAIN(STEP)
    }
    EACH_CHAIN(ADD)
    return total;
}
#undef BEGIN
#undef ADD
#undef STEP

#define BEGIN(i) float32x4_t sum##i = vdupq_n_f32(0);
#define ADD(i)   total += (double)vaddvq_f32(sum##i);
#define STEP(i)                                                                                                        \
    sum##i = vfmaq_f32(sum##i, ones, ones);                                                                            \
    OPAQUE(sum##i);

static double f32_chains(int rounds) {
    float32x4_t ones = vdupq_n_f32(1);
    double      total = 0;
    OPAQUE(ones); /* a product by a known one would become an addition */
    EACH_CHAIN(BEGIN)
    for (int r = 0; r < rounds; r++) {
        EACH_CHAIN(STEP)
    }
    EACH_CHAIN(ADD)
    return total;
}

#endif
