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

/* ---- values ---- */

static inline __m512i load_line(const uint8_t *line) {
    return _mm512_loadu_si512(line);
}

/* Bits move up by `by`, down where it is negative; what comes from the next byte is masked away by the callers. Shifts by
 * immediates want them spelt out where nothing is unrolled. */
TILE __m512i shifted(__m512i v, const int by) {
    switch (by) {
    case 4:
        return _mm512_slli_epi16(v, 4);
    case 3:
        return _mm512_slli_epi16(v, 3);
    case 2:
        return _mm512_slli_epi16(v, 2);
    case 1:
        return _mm512_slli_epi16(v, 1);
    case -1:
        return _mm512_srli_epi16(v, 1);
    case -2:
        return _mm512_srli_epi16(v, 2);
    case -3:
        return _mm512_srli_epi16(v, 3);
    case -4:
        return _mm512_srli_epi16(v, 4);
    case -5:
        return _mm512_srli_epi16(v, 5);
    case -6:
        return _mm512_srli_epi16(v, 6);
    default:
        return v;
    }
}

/* w | (high moved up by `by`) & mask: 0xea is (a & b) | c. */
TILE __m512i with_bits(__m512i w, __m512i high, const int by, const int mask) {
    return _mm512_ternarylogic_epi64(shifted(high, by), _mm512_set1_epi8((char)mask), w, 0xea);
}

/* A line of 4-bit values becomes two of bytes. */
TILE void open_nibbles(const uint8_t *line, __m512i two[2]) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512i       both = load_line(line);
    two[0] = _mm512_and_si512(both, low);
    two[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
}

/* Levels come plus 128, as the unsigned factor of a product. */
TILE void open_levels(const panel_form f, __m512i two[2]) {
    static const int8_t levels[][16] = {[OF_IQ4] = {LEVELS_IQ4}, [OF_FP4] = {LEVELS_FP4}};
    const __m128i       some = _mm_xor_si128(_mm_loadu_si128((const void *)levels[f.levels]), _mm_set1_epi8(-128));
    const __m512i       all = _mm512_broadcast_i32x4(some);
    UNROLL for (int i = 0; i < 2; i++) two[i] = _mm512_shuffle_epi8(all, two[i]);
}

/* Of the 8 lines of bytes that a block opens to, lines 2j and 2j + 1: weights plus their offset. */
TILE void open_pair(const panel_form f, const uint8_t *lines, const int j, __m512i two[2]) {
    if (f.bits == 8) {
        UNROLL for (int i = 0; i < 2; i++) two[i] = load_line(lines + (2 * j + i) * LINE_BYTES);
    } else if (f.bits == 2 || f.bits == 3) {
        const __m512i pairs = load_line(lines + j / 2 * LINE_BYTES), low = _mm512_set1_epi8(3);
        UNROLL for (int i = 0; i < 2; i++) two[i] = _mm512_and_si512(shifted(pairs, -2 * (j % 2 * 2 + i)), low);
    } else if (f.bits == 6) {
        const uint8_t *half = lines + j / 2 * 3 * LINE_BYTES;
        const __m512i  high = load_line(half + 2 * LINE_BYTES);
        open_nibbles(half + j % 2 * LINE_BYTES, two);
        UNROLL for (int i = 0; i < 2; i++) two[i] = with_bits(two[i], high, 4 - 2 * (j % 2 * 2 + i), 0x30);
    } else {
        open_nibbles(lines + j * LINE_BYTES, two);
    }
    if (f.bits == 3 || f.bits == 5) {
        const int     top = f.bits - 1;
        const __m512i high = load_line(lines + top * LINE_BYTES);
        UNROLL for (int i = 0; i < 2; i++) two[i] = with_bits(two[i], high, top - (2 * j + i), 1 << top);
    }
    if (f.levels)
        open_levels(f, two);
}

/* ---- scales ---- */

/* 16 exponents e as 2^(e - 128); the lowest two are subnormal, and the larger one of these integers is right. */
static inline vec half_powers(const uint8_t *p) {
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)), one = _mm512_set1_epi32(1);
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
    const __m512i least = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), _mm512_min_epi32(e, _mm512_set1_epi32(2)));
    return _mm512_castsi512_ps(_mm512_max_epi32(normal, least));
}

/* The 16 scales of a part of block b. */
TILE vec scales_of(const panel_form f, const uint8_t *stretch, size_t b, const int part) {
    const uint8_t *p = stretch + K_SCALES;
    __m512i        whole;
    if (f.scales == SCALES_F16)
        return v_load_f16(stretch + b * SCALE_BYTES);
    if (f.scales == SCALES_E8M0)
        return half_powers(stretch + b * PANEL_ROWS);
    if (f.scales == SCALES_U4) {
        whole = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p + 2 * b * PANEL_ROWS)));
        whole = _mm512_and_si512(part ? _mm512_srli_epi32(whole, 8) : whole, _mm512_set1_epi32(15));
    } else {
        const __m128i bytes = _mm_loadu_si128((const void *)(p + (b * f.parts + (size_t)part) * PANEL_ROWS));
        whole = f.scales == SCALES_U8 ? _mm512_cvtepu8_epi32(bytes) : _mm512_cvtepi8_epi32(bytes);
    }
    return v_mul(v_load_f16(stretch), _mm512_cvtepi32_ps(whole));
}

/* Minimums, a pair of 16 bits a row; and what they are multiplied with, in which the sums of activations are eight times too
 * large, as in the lows. */
TILE __m512i minimums_of(const panel_form f, const uint8_t *stretch, size_t pair) {
    const uint8_t *from = stretch + (f.least == LEAST_U4 ? K_SCALES : K_MINIMUMS) + 2 * PANEL_ROWS * pair;
    const __m512i  two = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)from));
    return f.least == LEAST_U4 ? _mm512_srli_epi16(two, 4) : two;
}
static inline vec minimum_scale(const uint8_t *stretch) {
    return v_mul(v_load_f16(stretch + SCALE_BYTES), v_set1(1.0f / Q8_SHARES));
}
static inline vec lows_of(const uint8_t *stretch, size_t blocks, size_t b) {
    return v_mul(v_load_f16(stretch + (blocks + b) * SCALE_BYTES), v_set1(1.0f / Q8_SHARES));
}

/* Four activations, or two sums of them. */
static inline __m512i four_bytes(const void *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

#endif
