/* int8_avx512.h - opening the lines of quantised panels in 512-bit registers: what int8_avx512.c (few columns) and
 * wide_avx512.c (many) share.                                                                                        */
#ifndef PARE_TENSOR_INT8_AVX512_H
#define PARE_TENSOR_INT8_AVX512_H

#include <string.h>

#include "tensor/int8.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/unroll.h"
#include "tensor/vector_avx512.h"

static inline __m512i load_line(const uint8_t *line) {
    return _mm512_loadu_si512(line);
}

/* 16 uint8 or int8 scales as floats, times d */
static inline vec scale_u8(const uint8_t *p, vec d) {
    return v_mul(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p))));
}
static inline vec scale_i8(const uint8_t *p, vec d) {
    return v_mul(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p))));
}

/* A line of 4-bit values becomes two of bytes. */
TILE void open_nibbles(const uint8_t *line, __m512i two[2]) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512i       both = load_line(line);
    two[0] = _mm512_and_si512(both, low);
    two[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
}

/* The three lines of 16 inputs of Q6_K become four of bytes. The shift moves the two bits of input k to bits 4 and 5;
 * 0xea is (a & b) | c. */
TILE void open_q6_k(const uint8_t *lines, __m512i four[4]) {
    const __m512i middle = _mm512_set1_epi8(0x30);
    __m512i       high = load_line(lines + 2 * LINE_BYTES);
    open_nibbles(lines, four);
    open_nibbles(lines + LINE_BYTES, four + 2);
    four[0] = _mm512_ternarylogic_epi64(_mm512_slli_epi16(high, 4), middle, four[0], 0xea);
    four[1] = _mm512_ternarylogic_epi64(_mm512_slli_epi16(high, 2), middle, four[1], 0xea);
    four[2] = _mm512_ternarylogic_epi64(high, middle, four[2], 0xea);
    four[3] = _mm512_ternarylogic_epi64(_mm512_srli_epi16(high, 2), middle, four[3], 0xea);
}

/* Four activations, or two sums of them. */
static inline __m512i four_bytes(const void *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Of a Q4_K stretch: the minimums of two blocks of 32, a pair of 16 bits a row; and what they are multiplied with, in which
 * the sums of activations are eight times too large. */
static inline __m512i minimums_of(const uint8_t *stretch, size_t pair) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(stretch + Q4_K_MINS + 32 * pair)));
}
static inline vec minimum_scale(const uint8_t *stretch) {
    return v_mul(v_load_f16(stretch + SCALE_BYTES), v_set1(1.0f / Q8_SHARES));
}

#endif
