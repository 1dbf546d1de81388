/* kernels_neon.c - NEON: four registers hold a line of a panel. The two tables differ in their dot products of int8. */
#if defined(__aarch64__)
#include "tensor/int8.h"
#include "tensor/vector_neon.h"

#include "tensor/kernels_vector.h"

/* To nearest even; what is not a number becomes 0. */
static inline int16x4_t rounded(vec scaled) {
    return vqmovn_s32(vcvtnq_s32_f32(scaled));
}

static inline float block_peak(const float *x) {
    vec peaks = v_zero();
    UNROLL for (int i = 0; i < BLOCK_INPUTS; i += LANES) peaks = v_max(vabsq_f32(v_load(x + i)), peaks);
    return v_peak(peaks);
}

static inline void quantize_block(const float *x, float inverse, int8_t *q, int32_t *halves) {
    UNROLL for (int i = 0; i < BLOCK_INPUTS; i += 2 * LANES) {
        int16x4_t low = rounded(v_mul(v_load(x + i), v_set1(inverse)));
        int16x4_t high = rounded(v_mul(v_load(x + i + LANES), v_set1(inverse)));
        vst1_s8(q + i, vqmovn_s16(vcombine_s16(low, high)));
    }
    halves[0] = vaddlvq_s8(vld1q_s8(q));
    halves[1] = vaddlvq_s8(vld1q_s8(q + 16));
}

#include "tensor/quantize_q8.h"

const kernels kernels_neon = {
    .name = "neon",
    VECTOR_KERNELS,
    .attend = attend_neon,
    .panel = {VECTOR_PANELS, INT8_TYPES(INT8_ENTRY_NEON)},
    .quantize_q8 = quantize_q8,
};

const kernels kernels_dotprod = {
    .name = "dotprod",
    VECTOR_KERNELS,
    .attend = attend_dotprod,
    .panel = {VECTOR_PANELS, INT8_TYPES(INT8_ENTRY_DOTPROD)},
    .quantize_q8 = quantize_q8,
};
#else
typedef int pare_no_neon;
#endif
