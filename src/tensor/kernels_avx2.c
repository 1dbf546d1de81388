/* kernels_avx2.c - AVX2 with FMA and F16C: two registers hold a line of a panel. */
#if defined(__x86_64__)
#include "tensor/int8.h"
#include "tensor/vector_avx2.h"

#include "tensor/kernels_vector.h"

static inline __m256i rounded(vec scaled) {
    __m256i whole = _mm256_cvtps_epi32(scaled);
    return _mm256_and_si256(whole, _mm256_castps_si256(_mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q)));
}

static inline int32_t integer_sum(__m256i a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline float block_peak(const float *x) {
    const vec sign = v_set1(-0.0f);
    vec       peaks = v_zero();
    UNROLL for (int i = 0; i < 4; i++) peaks = v_max(_mm256_andnot_ps(sign, v_load(x + i * LANES)), peaks);
    return v_peak(peaks);
}

static inline void quantize_block(const float *x, float inverse, int8_t *q, int32_t *halves) {
    __m256i i[4];
    UNROLL for (int j = 0; j < 4; j++) i[j] = rounded(v_mul(v_load(x + j * LANES), v_set1(inverse)));
    /* packing works within 128-bit lanes: put the groups of four bytes in order afterwards */
    __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((void *)q, packed);
    halves[0] = integer_sum(_mm256_add_epi32(i[0], i[1]));
    halves[1] = integer_sum(_mm256_add_epi32(i[2], i[3]));
}

#include "tensor/quantize_q8.h"

const kernels kernels_avx2 = {
    .name = "avx2",
    VECTOR_KERNELS,
    .attend = attend_avx2,
    .panel = {VECTOR_PANELS, INT8_TYPES(INT8_ENTRY_AVX2)},
    .quantize_q8 = quantize_q8,
};
#else
typedef int pare_no_avx2;
#endif
