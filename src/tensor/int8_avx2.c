/* int8_avx2.c - one quantised panel with any number of columns; two registers hold a line. */
#if defined(__x86_64__)
#include <string.h>

#include "tensor/int8.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/unroll.h"
#include "tensor/vector_avx2.h"

#define FAR_BYTES  18432 /* ahead, into the second-level cache: a core has few slots for the first-level one */
#define NEAR_BYTES 2304  /* and from there into the first-level cache. Measured together: 33 GB/s, one alone 28 */
#define INT8_TILE  4     /* columns */
#define HALF_BYTES 32
#define HALVES     2 /* of a line, 8 rows each */

/* Where a tile's columns lie; all [n][...] from its first column. */
typedef struct tile_input {
    const int8_t  *q;
    const float   *scales, *sums;
    const int32_t *minus8, *minus32;
    size_t         cols, blocks;
} tile_input;

static inline __m256i four_inputs(const int8_t *x) {
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
    UNROLL for (int i = 0; i < n * HALVES; i++) dot[i] = _mm256_setzero_si256();
}

/* Both halves of a line meet the same broadcast activations; dot is [n][HALVES].
 *
 * A pair of products is at most 2 * 15 * 127 and eight of them still fit in 16 bits, so the widening to 32 bits comes
 * once, at the end. */
TILE void dot_nibbles(__m256i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    const __m256i low = _mm256_set1_epi8(15);
    clear(dot, n);
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        __m256i even[HALVES], odd[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i line = load_half(lines + j * LINE_BYTES, h);
            even[h] = _mm256_and_si256(line, low);
            odd[h] = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i first = four_inputs(q + (size_t)c * ldq + 8 * j),
                    next = four_inputs(q + (size_t)c * ldq + 8 * j + 4);
            UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i *to = &dot[c * HALVES + h];
                *to = _mm256_add_epi16(*to, _mm256_maddubs_epi16(even[h], first));
                *to = _mm256_add_epi16(*to, _mm256_maddubs_epi16(odd[h], next));
            }
        }
    }
    UNROLL for (int i = 0; i < n * HALVES; i++) dot[i] = widen(dot[i]);
}

/* Unsigned by signed would overflow 16 bits (2 * 255 * 127); the weight's size by the activation with the weight's sign
 * does not (2 * 128 * 127). */
TILE void dot_q8_0(__m256i *dot, const uint8_t *lines, const int8_t *q, size_t ldq, const int n) {
    const __m256i offset = _mm256_set1_epi8(-128);
    clear(dot, n);
    UNROLL for (int j = 0; j < Q8_0_LINES; j++) {
        __m256i w[HALVES], size[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            w[h] = _mm256_xor_si256(load_half(lines + j * LINE_BYTES, h), offset);
            size[h] = _mm256_abs_epi8(w[h]);
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i four = four_inputs(q + (size_t)c * ldq + 4 * j);
            UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i pairs = _mm256_maddubs_epi16(size[h], _mm256_sign_epi8(four, w[h]));
                dot[c * HALVES + h] = _mm256_add_epi32(dot[c * HALVES + h], widen(pairs));
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
        __m256i even[HALVES], odd[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i line = load_half(lines + j * LINE_BYTES, h), high = load_half(lines + 2 * LINE_BYTES, h);
            __m256i first = j ? high : _mm256_slli_epi16(high, 4);
            __m256i next = j ? _mm256_srli_epi16(high, 2) : _mm256_slli_epi16(high, 2);
            even[h] = _mm256_or_si256(_mm256_and_si256(line, low), _mm256_and_si256(first, middle));
            odd[h] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(line, 4), low), _mm256_and_si256(next, middle));
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i first = four_inputs(q + (size_t)c * ldq + 8 * j),
                    next = four_inputs(q + (size_t)c * ldq + 8 * j + 4);
            UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i pairs =
                    _mm256_add_epi16(_mm256_maddubs_epi16(even[h], first), _mm256_maddubs_epi16(odd[h], next));
                dot[c * HALVES + h] = _mm256_add_epi32(dot[c * HALVES + h], widen(pairs));
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
TILE void add_scaled(vec *sum, const __m256i *dot, const vec *scale, const float *x_scale, size_t ld_scale,
                     const int32_t *minus, size_t ld, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        vec     x = v_set1(x_scale[(size_t)c * ld_scale]);
        __m256i offset = _mm256_set1_epi32(minus ? minus[(size_t)c * ld] : 0);
        UNROLL for (int h = 0; h < HALVES; h++) {
            int i = c * HALVES + h;
            vec d = _mm256_cvtepi32_ps(minus ? _mm256_add_epi32(dot[i], offset) : dot[i]);
            sum[i] = v_fma(d, v_mul(scale[h], x), sum[i]);
        }
    }
}

/* Block b (32 inputs) of a stretch of `blocks`; `at` counts from the first block of the row. */
TILE void block_32(block_type type, vec *sum, const uint8_t *w, size_t blocks, size_t b, const tile_input *x, size_t at,
                   const int n) {
    const int      lines = type == BLOCK_Q4_0 ? Q4_0_LINES : Q8_0_LINES;
    const uint8_t *from = w + blocks * SCALE_BYTES + b * (size_t)(lines * LINE_BYTES);
    const int8_t  *q = x->q + at * BLOCK_INPUTS;
    vec            scale[HALVES];
    __m256i        dot[INT8_TILE * HALVES];
    UNROLL for (int h = 0; h < HALVES; h++) scale[h] = v_load_f16(w + b * SCALE_BYTES + h * LANES * 2);
    if (type == BLOCK_Q4_0)
        dot_nibbles(dot, from, q, x->cols, n);
    else
        dot_q8_0(dot, from, q, x->cols, n);
    add_scaled(sum, dot, scale, x->scales + at, x->blocks, type == BLOCK_Q4_0 ? x->minus8 + at : NULL, x->blocks, n);
}

TILE void block_q4_k(vec *sum, const uint8_t *w, size_t b, const tile_input *x, size_t at, const int n) {
    const uint8_t *from = w + Q4_K_HEAD + b * Q4_0_LINES * LINE_BYTES;
    vec            scale[HALVES], minimum[HALVES];
    __m256i        dot[INT8_TILE * HALVES];
    UNROLL for (int h = 0; h < HALVES; h++) {
        scale[h] = scale_u8(w + 2 * SCALE_BYTES + 16 * b + h * LANES, v_load_f16(w + h * LANES * 2));
        minimum[h] = scale_u8(w + Q4_K_MINS + 16 * b + h * LANES, v_load_f16(w + SCALE_BYTES + h * LANES * 2));
    }
    dot_nibbles(dot, from, x->q + at * BLOCK_INPUTS, x->cols, n);
    add_scaled(sum, dot, scale, x->scales + at, x->blocks, NULL, 0, n);
    UNROLL for (int c = 0; c < n; c++) {
        vec of_x = v_set1(x->sums[at + (size_t)c * x->blocks]);
        UNROLL for (int h = 0; h < HALVES; h++) sum[c * HALVES + h] =
            _mm256_fnmadd_ps(minimum[h], of_x, sum[c * HALVES + h]);
    }
}

TILE void block_q6_k(vec *sum, const uint8_t *w, size_t b, const tile_input *x, size_t at, const int n) {
    UNROLL for (size_t g = 2 * b; g < 2 * b + 2; g++) {
        const uint8_t *from = w + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES;
        vec            scale[HALVES];
        __m256i        dot[INT8_TILE * HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) scale[h] =
            scale_i8(w + 2 * SCALE_BYTES + 16 * g + h * LANES, v_load_f16(w + h * LANES * 2));
        dot_q6_k(dot, from, x->q + at * BLOCK_INPUTS + (g - 2 * b) * Q6_K_INPUTS, x->cols, n);
        add_scaled(sum, dot, scale, x->scales + at, x->blocks, x->minus32 + 2 * at + (g - 2 * b), 2 * x->blocks, n);
    }
}

/* An eighth of a stretch, scales and all, for each block that is computed. */
TILE void prefetch_block(block_type type, const uint8_t *w, size_t b) {
    const size_t   bytes = stretch_bytes(type, 8) / 8;
    const uint8_t *at = w + b * bytes;
    UNROLL for (size_t i = 0; i < (bytes + LINE_BYTES - 1) / LINE_BYTES; i++) {
        PREFETCH_FAR(at + FAR_BYTES + i * LINE_BYTES);
        PREFETCH(at + NEAR_BYTES + i * LINE_BYTES);
    }
}

TILE void int8_tile(block_type type, const uint8_t *w, const tile_input *x, float *y, int ldy, const int n) {
    vec sum[INT8_TILE * HALVES];
    UNROLL for (int i = 0; i < n * HALVES; i++) sum[i] = v_zero();
    for (size_t done = 0; done < x->blocks;) {
        size_t blocks = x->blocks - done < 8 ? x->blocks - done : 8;
        for (size_t b = 0; b < blocks; b++) {
            prefetch_block(type, w, b);
            if (type == BLOCK_Q4_K)
                block_q4_k(sum, w, b, x, done + b, n);
            else if (type == BLOCK_Q6_K)
                block_q6_k(sum, w, b, x, done + b, n);
            else
                block_32(type, sum, w, blocks, b, x, done + b, n);
        }
        done += blocks;
        w += stretch_bytes(type, blocks);
    }
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int h = 0; h < HALVES; h++)
        v_store(y + (size_t)c * (size_t)ldy + h * LANES, sum[c * HALVES + h]);
}

TILE void int8_panel(block_type type, const uint8_t *w, const columns *x, float *y, int ldy) {
    for (int n = x->n, now, done = 0; n > 0; n -= now, done += now) {
        int tiles = (n + INT8_TILE - 1) / INT8_TILE;
        now = (n + tiles - 1) / tiles; /* 5 columns are 3 + 2, not 4 + 1 */
        columns    part = columns_from(x, done, now);
        tile_input in = {part.q,
                         part.scales,
                         part.sums,
                         part.minus8,
                         part.minus32,
                         (size_t)x->cols,
                         (size_t)(x->cols / BLOCK_INPUTS)};
        float     *to = y + (size_t)done * (size_t)ldy;
        if (now == 4)
            int8_tile(type, w, &in, to, ldy, 4);
        else if (now == 3)
            int8_tile(type, w, &in, to, ldy, 3);
        else if (now == 2)
            int8_tile(type, w, &in, to, ldy, 2);
        else
            int8_tile(type, w, &in, to, ldy, 1);
    }
}

void panel_q4_0_avx2(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q4_0, panel, x, y, ldy);
}

void panel_q8_0_avx2(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q8_0, panel, x, y, ldy);
}

void panel_q4_k_avx2(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q4_K, panel, x, y, ldy);
}

void panel_q6_k_avx2(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(BLOCK_Q6_K, panel, x, y, ldy);
}
#else
typedef int pare_no_avx2_int8;
#endif
