/* kernels_avx512.c - AVX-512 F, BW, VL, DQ and VNNI: one register holds a line of a panel. */
#if defined(__x86_64__)
#include "tensor/int8.h"
#include "tensor/vector_avx512.h"

#include "tensor/kernels_vector.h"

static void quantize_q8(const float *x, int8_t *q, float *scales, int32_t *halves, int n) {
    for (int b = 0; b < n / BLOCK_INPUTS; b++, x += BLOCK_INPUTS, q += BLOCK_INPUTS) {
        vec     a0 = v_load(x), a1 = v_load(x + LANES);
        float   peak = v_peak(v_max(_mm512_abs_ps(a1), v_max(_mm512_abs_ps(a0), v_zero())));
        float   inverse = peak > Q8_TINY ? 127.0f / peak : 0.0f;
        vec     s0 = v_mul(a0, v_set1(inverse)), s1 = v_mul(a1, v_set1(inverse));
        __m512i i0 = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(s0, s0, _CMP_ORD_Q), s0);
        __m512i i1 = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(s1, s1, _CMP_ORD_Q), s1);
        scales[b] = peak > Q8_TINY ? peak / 127.0f : 0.0f;
        halves[2 * b] = _mm512_reduce_add_epi32(i0);
        halves[2 * b + 1] = _mm512_reduce_add_epi32(i1);
        _mm_storeu_si128((void *)q, _mm512_cvtsepi32_epi8(i0));
        _mm_storeu_si128((void *)(q + LANES), _mm512_cvtsepi32_epi8(i1));
    }
}

#define AVX512_KERNELS VECTOR_KERNELS, .attend = attend_avx512, .quantize_q8 = quantize_q8
#define AVX512_WIDE                                                                                                    \
    [BLOCK_Q4_0] = wide_q4_0_avx512, [BLOCK_Q8_0] = wide_q8_0_avx512, [BLOCK_Q4_K] = wide_q4_k_avx512,                 \
    [BLOCK_Q6_K] = wide_q6_k_avx512

const kernels kernels_avx512 = {
    .name = "avx512", AVX512_KERNELS, .panel = {VECTOR_PANELS, INT8_TABLE(avx512)}, .wide = {AVX512_WIDE}};

const kernels kernels_avx512bf16 = {
    .name = "avx512bf16",
    AVX512_KERNELS,
    .panel = {[BLOCK_F32] = panel_f32, [BLOCK_F16] = panel_f16, [BLOCK_BF16] = panel_bf16_dot, INT8_TABLE(avx512)},
    .wide = {[BLOCK_BF16] = wide_bf16_dot, AVX512_WIDE},
    .rounds_bf16 = true};
#else
typedef int pare_no_avx512;
#endif
