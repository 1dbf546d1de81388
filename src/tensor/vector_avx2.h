/* vector_avx2.h - AVX2 with FMA and F16C: the vector type of 8 floats and its operations. */
#ifndef PARE_TENSOR_VECTOR_AVX2_H
#define PARE_TENSOR_VECTOR_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES           8
#define FLOAT_TILE      6 /* columns: 12 sums of 16 registers; the totals rest in memory between spans */
#define FLOAT_TILE_VECS 12

typedef __m256 vec;

static inline vec v_zero(void) {
    return _mm256_setzero_ps();
}
static inline vec v_set1(float f) {
    return _mm256_set1_ps(f);
}
static inline vec v_load(const void *p) {
    return _mm256_loadu_ps(p);
}
static inline vec v_load_n(const float *p, int n) {
    float some[LANES] = {0};
    if (n >= LANES)
        return v_load(p);
    memcpy(some, p, (size_t)n * sizeof *p);
    return v_load(some);
}
static inline vec v_load_f16(const void *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
static inline vec v_load_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline void v_store(float *p, vec a) {
    _mm256_storeu_ps(p, a);
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
    return _mm256_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b) {
    return _mm256_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b) {
    return _mm256_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b) {
    return _mm256_div_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}
/* A NaN in either argument: the result is b. */
static inline vec v_max(vec a, vec b) {
    return _mm256_max_ps(a, b);
}
static inline vec v_min(vec a, vec b) {
    return _mm256_min_ps(a, b);
}
static inline vec v_round(vec a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec two_to(__m256i m) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(m, _mm256_set1_epi32(127)), 23));
}
/* a * 2^m, m whole and within +-250: in two factors, so that subnormal and infinite results come out right */
static inline vec v_scale(vec a, vec m) {
    __m256i whole = _mm256_cvtps_epi32(m);
    __m256i half = _mm256_srai_epi32(whole, 1);
    return v_mul(v_mul(a, two_to(half)), two_to(_mm256_sub_epi32(whole, half)));
}
/* p where x is at least `limit` or not a number, else 0 */
static inline vec v_keep(vec p, vec x, vec limit) {
    return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), p);
}
static inline __m128 halves(vec a) {
    return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}
static inline float v_sum(vec a) {
    __m128 s = halves(a);
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float v_peak(vec a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline int v_any_equal(vec a, vec b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) != 0;
}
static inline void v_sum4(float *out, vec a, vec b, vec c, vec d) {
    vec s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, halves(s));
}

#endif
