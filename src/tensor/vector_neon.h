/* vector_neon.h - NEON of the plain armv8-a: the vector type of 4 floats and its operations. */
#ifndef PARE_TENSOR_VECTOR_NEON_H
#define PARE_TENSOR_VECTOR_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define LANES           4
#define FLOAT_TILE      6 /* columns: 24 sums of 32 registers; the totals rest in memory between spans */
#define FLOAT_TILE_VECS 24

typedef float32x4_t vec;

static inline vec v_zero(void) {
    return vdupq_n_f32(0);
}
static inline vec v_set1(float f) {
    return vdupq_n_f32(f);
}
/* As bytes, which need no alignment. */
static inline vec v_load(const void *p) {
    return vreinterpretq_f32_u8(vld1q_u8(p));
}
static inline vec v_load_n(const float *p, int n) {
    float some[LANES] = {0};
    if (n >= LANES)
        return v_load(p);
    memcpy(some, p, (size_t)n * sizeof *p);
    return v_load(some);
}
static inline vec v_load_f16(const void *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
static inline vec v_load_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
static inline void v_store(float *p, vec a) {
    vst1q_f32(p, a);
}
static inline void v_store_n(float *p, vec a, int n) {
    float some[LANES];
    if (n >= LANES) {
        v_store(p, a);
        return;
    }
    v_store(some, a);
    memcpy(p, some, (size_t)n * sizeof *p);
}
static inline vec v_add(vec a, vec b) {
    return vaddq_f32(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return vsubq_f32(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return vmulq_f32(a, b);
}
static inline vec v_div(vec a, vec b) {
    return vdivq_f32(a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return vfmaq_f32(c, a, b);
}
/* A NaN in either argument: the result is b. (The instructions of that name make a NaN of both or pass over both.) */
static inline vec v_max(vec a, vec b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vec v_min(vec a, vec b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vec v_round(vec a) {
    return vrndnq_f32(a);
}
static inline vec two_to(int32x4_t m) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(m, vdupq_n_s32(127)), 23));
}
/* a * 2^m, m whole and within +-250: in two factors, so that subnormal and infinite results come out right */
static inline vec v_scale(vec a, vec m) {
    int32x4_t whole = vcvtq_s32_f32(m);
    int32x4_t half = vshrq_n_s32(whole, 1);
    return v_mul(v_mul(a, two_to(half)), two_to(vsubq_s32(whole, half)));
}
/* p where x is at least `limit` or not a number, else 0 */
static inline vec v_keep(vec p, vec x, vec limit) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(p), vcltq_f32(x, limit)));
}
static inline float v_sum(vec a) {
    return vaddvq_f32(a);
}
static inline float v_peak(vec a) {
    return vmaxnmvq_f32(a);
}
static inline int v_any_equal(vec a, vec b) {
    return vmaxvq_u32(vceqq_f32(a, b)) != 0;
}

#endif
