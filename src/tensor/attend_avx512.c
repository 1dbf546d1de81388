/* attend_avx512.c - attention with AVX-512 F, BW, VL, DQ and VNNI: one register holds the 16 positions of a block. */
#if defined(__x86_64__)
#include "tensor/vector_avx512.h"

#include <string.h>

#include "tensor/kvblock.h"
#include "tensor/vector_math.h"

#define ROW_TILE 8

typedef __m512i ivec;

static inline vec v_from_int(ivec a) {
    return _mm512_cvtepi32_ps(a);
}

static inline vec v_load_i8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

static inline vec v_load_i4(const uint8_t *row, size_t at) {
    const vec number = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    __m512i   two = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(row + at / KV_GROUP * LANES)));
    return _mm512_permutexvar_ps(at % KV_GROUP ? _mm512_srli_epi32(two, 4) : two, number); /* looks at 4 bits */
}

static inline __m512i four_inputs(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Keys are unsigned, with an offset that the sum of the inputs takes off (kvblock.h). */
TILE void dot_q8_0(ivec *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int32_t *sums, size_t ldsum,
                   const int rows) {
    UNROLL for (int r = 0; r < rows; r++) dot[r] = _mm512_set1_epi32(-KV_Q8_OFFSET * sums[(size_t)r * ldsum]);
    UNROLL for (int j = 0; j < KV_Q8_LINES; j++) {
        __m512i line = _mm512_loadu_si512(lines + j * KV_LINE);
        UNROLL for (int r = 0; r < rows; r++) dot[r] =
            _mm512_dpbusd_epi32(dot[r], line, four_inputs(x + (size_t)r * ldx + 4 * j));
    }
}

TILE void dot_q4_0(ivec *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int32_t *sums, size_t ldsum,
                   const int rows) {
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int r = 0; r < rows; r++) dot[r] = _mm512_set1_epi32(-KV_Q4_OFFSET * sums[(size_t)r * ldsum]);
    UNROLL for (int j = 0; j < KV_Q4_LINES; j++) {
        __m512i line = _mm512_loadu_si512(lines + j * KV_LINE);
        __m512i first = _mm512_and_si512(line, low), next = _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
        UNROLL for (int r = 0; r < rows; r++) {
            const int8_t *at = x + (size_t)r * ldx + 8 * j;
            dot[r] = _mm512_dpbusd_epi32(dot[r], first, four_inputs(at));
            dot[r] = _mm512_dpbusd_epi32(dot[r], next, four_inputs(at + 4));
        }
    }
}

#include "tensor/attend_vector.h"

void attend_avx512(const attend_span *s) {
    attend(s);
}
#else
typedef int pare_no_attend_avx512;
#endif
