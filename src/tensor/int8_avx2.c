/* int8_avx2.c - one quantised panel with any number of columns; two registers hold a line. */
#if defined(__x86_64__)
#include <string.h>

#include "tensor/int8.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/unroll.h"
#include "tensor/vector_avx2.h"

#define MOST_COLUMNS 4
#define LINE_VECS    2 /* halves of a line, 8 rows each */
#define HALF_BYTES   32

static inline __m256i four_bytes(const void *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

static inline __m256i load_half(const uint8_t *line, int h) {
    return _mm256_loadu_si256((const void *)(line + h * HALF_BYTES));
}

static inline __m256i widen(__m256i pairs) {
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

TILE void clear(__m256i *dot, const int n) {
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) dot[i] = _mm256_setzero_si256();
}

/* Both halves of a line meet the same broadcast activations; dot is [n][LINE_VECS].
 *
 * A pair of products is at most 2 * 15 * 127 and eight of them still fit in 16 bits, so the widening to 32 bits comes
 * once, at the end. */
TILE void dot_nibbles(__m256i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    const __m256i low = _mm256_set1_epi8(15);
    clear(dot, n);
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        __m256i even[LINE_VECS], odd[LINE_VECS];
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            __m256i line = load_half(lines + j * LINE_BYTES, h);
            even[h] = _mm256_and_si256(line, low);
            odd[h] = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i first = four_bytes(q + (size_t)c * ldq + 8 * j), next = four_bytes(q + (size_t)c * ldq + 8 * j + 4);
            UNROLL for (int h = 0; h < LINE_VECS; h++) {
                __m256i *to = &dot[c * LINE_VECS + h];
                *to = _mm256_add_epi16(*to, _mm256_maddubs_epi16(even[h], first));
                *to = _mm256_add_epi16(*to, _mm256_maddubs_epi16(odd[h], next));
            }
        }
    }
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) dot[i] = widen(dot[i]);
}

/* Unsigned by signed would overflow 16 bits (2 * 255 * 127); the weight's size by the activation with the weight's sign
 * does not (2 * 128 * 127). */
TILE void dot_q8_0(__m256i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    const __m256i offset = _mm256_set1_epi8(-128);
    clear(dot, n);
    UNROLL for (int j = 0; j < Q8_0_LINES; j++) {
        __m256i w[LINE_VECS], size[LINE_VECS];
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            w[h] = _mm256_xor_si256(load_half(lines + j * LINE_BYTES, h), offset);
            size[h] = _mm256_abs_epi8(w[h]);
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i four = four_bytes(q + (size_t)c * ldq + 4 * j);
            UNROLL for (int h = 0; h < LINE_VECS; h++) {
                __m256i pairs = _mm256_maddubs_epi16(size[h], _mm256_sign_epi8(four, w[h]));
                dot[c * LINE_VECS + h] = _mm256_add_epi32(dot[c * LINE_VECS + h], widen(pairs));
            }
        }
    }
}

/* 16 inputs: two lines of nibbles, one of high bits. Two products of a line are at most 2 * 63 * 127: two lines fit in 16
 * bits. */
TILE void dot_q6_k(__m256i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    const __m256i low = _mm256_set1_epi8(15), middle = _mm256_set1_epi8(0x30);
    clear(dot, n);
    UNROLL for (int j = 0; j < 2; j++) {
        __m256i even[LINE_VECS], odd[LINE_VECS];
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            __m256i line = load_half(lines + j * LINE_BYTES, h), high = load_half(lines + 2 * LINE_BYTES, h);
            __m256i first = j ? high : _mm256_slli_epi16(high, 4);
            __m256i next = j ? _mm256_srli_epi16(high, 2) : _mm256_slli_epi16(high, 2);
            even[h] = _mm256_or_si256(_mm256_and_si256(line, low), _mm256_and_si256(first, middle));
            odd[h] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(line, 4), low), _mm256_and_si256(next, middle));
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i first = four_bytes(q + (size_t)c * ldq + 8 * j), next = four_bytes(q + (size_t)c * ldq + 8 * j + 4);
            UNROLL for (int h = 0; h < LINE_VECS; h++) {
                __m256i pairs =
                    _mm256_add_epi16(_mm256_maddubs_epi16(even[h], first), _mm256_maddubs_epi16(odd[h], next));
                dot[c * LINE_VECS + h] = _mm256_add_epi32(dot[c * LINE_VECS + h], widen(pairs));
            }
        }
    }
}

/* 8 scales of half h as floats, times d */
static inline vec scale_u8(const uint8_t *p, vec d) {
    return v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p))));
}
static inline vec scale_i8(const uint8_t *p, vec d) {
    return v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p))));
}

/* `minus`: what is added to the integer sums, or NULL; `ld` apart for the next column. */
TILE void add_scaled(vec *sum, const __m256i *dot, const vec *scale, const float *share, size_t ld_share,
                     const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        vec     x = v_set1(share[(size_t)c * ld_share]);
        __m256i offset = _mm256_set1_epi32(minus ? minus[(size_t)c * ld] : 0);
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            int i = c * LINE_VECS + h;
            vec d = _mm256_cvtepi32_ps(minus ? _mm256_add_epi32(dot[i], offset) : dot[i]);
            sum[i] = v_fma(d, v_mul(scale[h], x), sum[i]);
        }
    }
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_32(block_type type, vec *sum, const uint8_t *w, size_t blocks, size_t b, const columns *x, size_t at,
                   const int n) {
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const uint8_t *from = block_lines(type, w, blocks, b);
    const int8_t  *q = x->q + at * BLOCK_INPUTS;
    vec            scale[LINE_VECS];
    __m256i        dot[MOST_COLUMNS * LINE_VECS];
    UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] =
        type == BLOCK_Q4_K ? scale_u8(w + 2 * SCALE_BYTES + 16 * b + h * LANES, v_load_f16(w + h * LANES * 2))
                           : v_load_f16(w + b * SCALE_BYTES + h * LANES * 2);
    if (type == BLOCK_Q8_0)
        dot_q8_0(dot, from, q, cols, n);
    else
        dot_nibbles(dot, from, q, cols, n);
    add_scaled(sum, dot, scale, x->shares + at, ld, type == BLOCK_Q4_0 ? x->minus8 + at : NULL, ld, n);
}

TILE void block_q6_k(vec *sum, const uint8_t *w, size_t b, const columns *x, size_t at, const int n) {
    const size_t cols = (size_t)x->cols;
    UNROLL for (size_t g = 2 * b; g < 2 * b + 2; g++) {
        const uint8_t *from = w + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES;
        vec            scale[LINE_VECS];
        __m256i        dot[MOST_COLUMNS * LINE_VECS];
        UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] =
            scale_i8(w + 2 * SCALE_BYTES + 16 * g + h * LANES, v_load_f16(w + h * LANES * 2));
        dot_q6_k(dot, from, x->q + at * BLOCK_INPUTS + (g - 2 * b) * Q6_K_INPUTS, cols, n);
        add_scaled(sum, dot, scale, x->shares + at, cols / BLOCK_INPUTS, x->minus32 + 2 * at + (g - 2 * b),
                   cols / Q6_K_INPUTS, n);
    }
}

/* Minimums lie in pairs, as sums of activations do: two products of 16 bits in each row's 32. */
TILE void take_minimums(vec *sum, const uint8_t *w, const columns *x, size_t at, const int n) {
    const size_t ld = (size_t)x->cols / BLOCK_INPUTS;
    __m256i      of[MOST_COLUMNS * LINE_VECS];
    clear(of, n);
    UNROLL for (size_t pair = 0; pair < 4; pair++) UNROLL for (int h = 0; h < LINE_VECS; h++) {
        const uint8_t *from = w + Q4_K_MINS + 32 * pair + 2 * h * LANES;
        __m256i        two = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)from));
        UNROLL for (int c = 0; c < n; c++) {
            __m256i sums = four_bytes(x->sums + at + (size_t)c * ld + 2 * pair);
            of[c * LINE_VECS + h] = _mm256_add_epi32(of[c * LINE_VECS + h], _mm256_madd_epi16(two, sums));
        }
    }
    UNROLL for (int h = 0; h < LINE_VECS; h++) {
        vec scale = v_mul(v_load_f16(w + SCALE_BYTES + h * LANES * 2), v_set1(1.0f / Q8_SHARES));
        UNROLL for (int c = 0; c < n; c++) sum[c * LINE_VECS + h] =
            _mm256_fnmadd_ps(scale, _mm256_cvtepi32_ps(of[c * LINE_VECS + h]), sum[c * LINE_VECS + h]);
    }
}

#include "tensor/int8_tile.h"

INT8_FUNCTIONS(avx2, MOST_COLUMNS, MOST_COLUMNS)
#else
typedef int pare_no_avx2_int8;
#endif
