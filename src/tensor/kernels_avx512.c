/* kernels_avx512.c - AVX-512 F, BW, VL, DQ and VNNI: one register holds a line of a panel. */
#if defined(__x86_64__)
#include "tensor/int8.h"
#include "tensor/vector_avx512.h"

#include "tensor/kernels_vector.h"

static inline float block_peak(const float *x) {
    return v_peak(v_max(_mm512_abs_ps(v_load(x + LANES)), v_max(_mm512_abs_ps(v_load(x)), v_zero())));
}

static inline void quantize_block(const float *x, float inverse, int8_t *q, int32_t *halves) {
    UNROLL for (int i = 0; i < 2; i++) {
        vec     scaled = v_mul(v_load(x + i * LANES), v_set1(inverse));
        __m512i whole = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q), scaled);
        halves[i] = _mm512_reduce_add_epi32(whole);
        _mm_storeu_si128((void *)(q + i * LANES), _mm512_cvtsepi32_epi8(whole));
    }
}

#include "tensor/quantize_q8.h"

#define AVX512_KERNELS VECTOR_KERNELS, .attend = attend_avx512, .quantize_q8 = quantize_q8

const kernels kernels_avx512 = {.name = "avx512",
                                AVX512_KERNELS,
                                .panel = {VECTOR_PANELS, INT8_TYPES(INT8_ENTRY_AVX512)},
                                .wide = {INT8_TYPES(INT8_WIDE_ENTRY_AVX512)}};

const kernels kernels_avx512bf16 = {.name = "avx512bf16",
                                    AVX512_KERNELS,
                                    .panel = {[BLOCK_F32] = panel_f32,
                                              [BLOCK_F16] = panel_f16,
                                              [BLOCK_BF16] = panel_bf16_dot,
                                              INT8_TYPES(INT8_ENTRY_AVX512)},
                                    .wide = {[BLOCK_BF16] = wide_bf16_dot, INT8_TYPES(INT8_WIDE_ENTRY_AVX512)},
                                    .rounds_bf16 = true};
#else
typedef int pare_no_avx512;
#endif
