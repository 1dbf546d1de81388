/* attend_avx2.c - attention with AVX2, FMA and F16C: two registers hold the 16 positions of a block. */
#if defined(__x86_64__)
#include "tensor/vector_avx2.h"

#include "tensor/kvblock.h"
#include "tensor/vector_math.h"

#define ROW_TILE 4

typedef __m256i ivec;

static inline vec v_from_int(ivec a) {
    return _mm256_cvtepi32_ps(a);
}

static inline vec v_load_i8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

static inline vec v_load_i4(const uint8_t *row, size_t at) {
    const __m256i  low = _mm256_set1_epi32(15), offset = _mm256_set1_epi32(KV_Q4_OFFSET);
    const uint8_t *bytes = row + at / KV_GROUP * (KV_GROUP / 2) + at % (KV_GROUP / 2);
    __m256i        two = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)bytes));
    if (at % KV_GROUP >= KV_GROUP / 2)
        two = _mm256_srli_epi32(two, 4);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(two, low), offset));
}

static inline __m256i four_inputs(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

/* Unsigned by signed would overflow 16 bits (2 * 255 * 127); the key's size by the input with the key's sign does not
 * (2 * 128 * 127). */
TILE void dot_q8_0(ivec *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int32_t *sums, size_t ldsum,
                   const int rows) {
    const __m256i offset = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
    (void)sums; /* the offset comes off each key */
    (void)ldsum;
    UNROLL for (int r = 0; r < rows; r++) dot[r] = _mm256_setzero_si256();
    UNROLL for (int j = 0; j < KV_Q8_LINES; j++) {
        __m256i key = _mm256_xor_si256(_mm256_loadu_si256((const void *)(lines + j * KV_LINE)), offset);
        __m256i size = _mm256_abs_epi8(key);
        UNROLL for (int r = 0; r < rows; r++) {
            __m256i four = four_inputs(x + (size_t)r * ldx + 4 * j);
            __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four, key));
            dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(pairs, ones));
        }
    }
}

/* A pair of products is at most 2 * 15 * 127 and eight of them still fit in 16 bits, so the widening to 32 bits comes
 * once, at the end. */
TILE void dot_q4_0(ivec *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int32_t *sums, size_t ldsum,
                   const int rows) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    UNROLL for (int r = 0; r < rows; r++) dot[r] = _mm256_setzero_si256();
    UNROLL for (int j = 0; j < KV_Q4_LINES; j++) {
        __m256i line = _mm256_loadu_si256((const void *)(lines + j * KV_LINE));
        __m256i first = _mm256_and_si256(line, low), next = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
        UNROLL for (int r = 0; r < rows; r++) {
            const int8_t *at = x + (size_t)r * ldx + 8 * j;
            dot[r] = _mm256_add_epi16(dot[r], _mm256_maddubs_epi16(first, four_inputs(at)));
            dot[r] = _mm256_add_epi16(dot[r], _mm256_maddubs_epi16(next, four_inputs(at + 4)));
        }
    }
    UNROLL for (int r = 0; r < rows; r++) dot[r] =
        _mm256_sub_epi32(_mm256_madd_epi16(dot[r], ones), _mm256_set1_epi32(KV_Q4_OFFSET * sums[(size_t)r * ldsum]));
}

#include "tensor/attend_vector.h"

void attend_avx2(const attend_span *s) {
    attend(s);
}
#else
typedef int pare_no_attend_avx2;
#endif
