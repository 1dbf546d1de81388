/* vector_avx512.h - AVX-512 F, BW, VL and DQ: the vector type of 16 floats and its operations. */
#ifndef PARE_TENSOR_VECTOR_AVX512_H
#define PARE_TENSOR_VECTOR_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define LANES           16
#define FLOAT_TILE      12 /* columns: 12 sums and 12 totals of 32 registers */
#define FLOAT_TILE_VECS 12

typedef __m512 vec;

static inline __mmask16 first(int n) {
    return (__mmask16)(n >= LANES ? 0xffff : (1u << n) - 1);
}

static inline vec v_zero(void) {
    return _mm512_setzero_ps();
}
static inline vec v_set1(float f) {
    return _mm512_set1_ps(f);
}
static inline vec v_load(const void *p) {
    return _mm512_loadu_ps(p);
}
static inline vec v_load_n(const float *p, int n) {
    return _mm512_maskz_loadu_ps(first(n), p);
}
static inline vec v_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
static inline vec v_load_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
static inline void v_store(float *p, vec a) {
    _mm512_storeu_ps(p, a);
}
static inline void v_store_n(float *p, vec a, int n) {
    _mm512_mask_storeu_ps(p, first(n), a);
}
static inline vec v_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}
/* A NaN in either argument: the result is b. */
static inline vec v_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}
static inline vec v_min(vec a, vec b) {
    return _mm512_min_ps(a, b);
}
static inline vec v_round(vec a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^m, m whole */
static inline vec v_scale(vec a, vec m) {
    return _mm512_scalef_ps(a, m);
}
/* p where x is at least `limit` or not a number, else 0 */
static inline vec v_keep(vec p, vec x, vec limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), p);
}
static inline float v_sum(vec a) {
    return _mm512_reduce_add_ps(a);
}
static inline float v_peak(vec a) {
    return _mm512_reduce_max_ps(a);
}
static inline int v_any_equal(vec a, vec b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) != 0;
}
static inline __m256 halves(vec a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
static inline void v_sum4(float *out, vec a, vec b, vec c, vec d) {
    __m256 ab = _mm256_hadd_ps(halves(a), halves(b));
    __m256 cd = _mm256_hadd_ps(halves(c), halves(d));
    __m256 s = _mm256_hadd_ps(ab, cd);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

#endif
