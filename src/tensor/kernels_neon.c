/* kernels_neon.c - NEON: four registers hold a line of a panel. The two tables differ in their dot products of int8. */
#if defined(__aarch64__)
#include "tensor/int8.h"
#include "tensor/vector_neon.h"

#include "tensor/kernels_vector.h"

/* To nearest even; what is not a number becomes 0. */
static inline int16x4_t rounded(vec scaled) {
    return vqmovn_s32(vcvtnq_s32_f32(scaled));
}

static void quantize_q8(const float *x, int8_t *q, float *scales, int32_t *halves, int n) {
    for (int b = 0; b < n / BLOCK_INPUTS; b++, x += BLOCK_INPUTS, q += BLOCK_INPUTS) {
        vec peaks = v_zero();
        UNROLL for (int i = 0; i < BLOCK_INPUTS; i += LANES) peaks = v_max(vabsq_f32(v_load(x + i)), peaks);
        float peak = v_peak(peaks);
        vec   inverse = v_set1(peak > Q8_TINY ? 127.0f / peak : 0.0f);
        scales[b] = peak > Q8_TINY ? peak / 127.0f : 0.0f;
        UNROLL for (int i = 0; i < BLOCK_INPUTS; i += 2 * LANES) {
            int16x4_t low = rounded(v_mul(v_load(x + i), inverse));
            int16x4_t high = rounded(v_mul(v_load(x + i + LANES), inverse));
            vst1_s8(q + i, vqmovn_s16(vcombine_s16(low, high)));
        }
        halves[2 * b] = vaddlvq_s8(vld1q_s8(q));
        halves[2 * b + 1] = vaddlvq_s8(vld1q_s8(q + 16));
    }
}

const kernels kernels_neon = {
    .name = "neon",
    VECTOR_KERNELS,
    .attend = attend_neon,
    .panel = {VECTOR_PANELS, INT8_TABLE(neon)},
    .quantize_q8 = quantize_q8,
};

const kernels kernels_dotprod = {
    .name = "dotprod",
    VECTOR_KERNELS,
    .attend = attend_dotprod,
    .panel = {VECTOR_PANELS, INT8_TABLE(dotprod)},
    .quantize_q8 = quantize_q8,
};
#else
typedef int pare_no_neon;
#endif
