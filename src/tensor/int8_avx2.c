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

/* ---- values ---- */

static inline __m256i four_bytes(const void *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

static inline __m256i load_half(const uint8_t *line) {
    return _mm256_loadu_si256((const void *)line);
}

static inline __m256i widen(__m256i pairs) {
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Bits move up by `by`, down where it is negative; what comes from the next byte is masked away by the callers. */
TILE __m256i shifted(__m256i v, const int by) {
    return by > 0 ? _mm256_slli_epi16(v, by) : by < 0 ? _mm256_srli_epi16(v, -by) : v;
}

TILE __m256i with_bits(__m256i w, __m256i high, const int by, const int mask) {
    return _mm256_or_si256(w, _mm256_and_si256(shifted(high, by), _mm256_set1_epi8((char)mask)));
}

/* Half a line of 4-bit values becomes two of bytes. */
TILE void open_nibbles(const uint8_t *line, __m256i two[2]) {
    const __m256i low = _mm256_set1_epi8(15), both = load_half(line);
    two[0] = _mm256_and_si256(both, low);
    two[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
}

TILE void open_levels(const panel_form f, __m256i two[2]) {
    static const int8_t levels[][16] = {[OF_IQ4] = {LEVELS_IQ4}, [OF_FP4] = {LEVELS_FP4}};
    const __m256i       all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)levels[f.levels]));
    UNROLL for (int i = 0; i < 2; i++) two[i] = _mm256_shuffle_epi8(all, two[i]);
}

/* Are opened bytes signed, without an offset? */
TILE int opens_signed(const panel_form f) {
    return f.offset == 128;
}

/* Of the 8 lines of bytes that a block opens to the same half of lines 2j and 2j + 1; `lines` begins at that half. */
TILE void open_pair(const panel_form f, const uint8_t *lines, const int j, __m256i two[2]) {
    if (f.bits == 8) {
        UNROLL for (int i = 0; i < 2; i++) two[i] =
            _mm256_xor_si256(load_half(lines + (2 * j + i) * LINE_BYTES), _mm256_set1_epi8(-128));
    } else if (f.bits == 2 || f.bits == 3) {
        const __m256i pairs = load_half(lines + j / 2 * LINE_BYTES), low = _mm256_set1_epi8(3);
        UNROLL for (int i = 0; i < 2; i++) two[i] = _mm256_and_si256(shifted(pairs, -2 * (j % 2 * 2 + i)), low);
    } else if (f.bits == 6) {
        const uint8_t *half = lines + j / 2 * 3 * LINE_BYTES;
        const __m256i  high = load_half(half + 2 * LINE_BYTES);
        open_nibbles(half + j % 2 * LINE_BYTES, two);
        UNROLL for (int i = 0; i < 2; i++) two[i] = with_bits(two[i], high, 4 - 2 * (j % 2 * 2 + i), 0x30);
    } else {
        open_nibbles(lines + j * LINE_BYTES, two);
    }
    if (f.bits == 3 || f.bits == 5) {
        const int     top = f.bits - 1;
        const __m256i high = load_half(lines + top * LINE_BYTES);
        UNROLL for (int i = 0; i < 2; i++) two[i] = with_bits(two[i], high, top - (2 * j + i), 1 << top);
    }
    if (f.levels)
        open_levels(f, two);
}

/* ---- products ---- */

/* Adds the products with two lines. Two products of unsigned and signed bytes make 16 bits:
 *   up to 4 bits, at most 2 * 15 * 127 and eight such in a block: they add up in 16 bits, to be widened at the end
 *   5 and 6 bits, at most 2 * 63 * 127: two fit, and are widened here
 *   signed bytes: unsigned they would overflow (2 * 255 * 127); the weight's size by the activation with the weight's sign
 *   does not (2 * 128 * 127), but alone. */
TILE __m256i add_products(const panel_form f, __m256i dot, const __m256i w[2], const __m256i x[2]) {
    if (opens_signed(f)) {
        UNROLL for (int i = 0; i < 2; i++) dot =
            _mm256_add_epi32(dot, widen(_mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(x[i], w[i]))));
        return dot;
    }
    const __m256i first = _mm256_maddubs_epi16(w[0], x[0]), next = _mm256_maddubs_epi16(w[1], x[1]);
    if (f.bits <= 4)
        return _mm256_add_epi16(_mm256_add_epi16(dot, first), next);
    return _mm256_add_epi32(dot, widen(_mm256_add_epi16(first, next)));
}

/* A part of a block; dot is [n][LINE_VECS]. Both halves of a line meet the same broadcast activations. */
TILE void dot_part(const panel_form f, __m256i *dot, const uint8_t *lines, const int part, const int8_t *q, size_t ldq,
                   const int n) {
    const int pairs = 4 / f.parts;
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) dot[i] = _mm256_setzero_si256();
    UNROLL for (int j = part * pairs; j < (part + 1) * pairs; j++) {
        __m256i w[LINE_VECS][2];
        UNROLL for (int h = 0; h < LINE_VECS; h++) open_pair(f, lines + h * HALF_BYTES, j, w[h]);
        UNROLL for (int c = 0; c < n; c++) {
            const int8_t *at = q + (size_t)c * ldq + 8 * j;
            const __m256i x[2] = {four_bytes(at), four_bytes(at + 4)};
            UNROLL for (int h = 0; h < LINE_VECS; h++) dot[c * LINE_VECS + h] =
                add_products(f, dot[c * LINE_VECS + h], w[h], x);
        }
    }
    if (f.bits <= 4 && !opens_signed(f))
        UNROLL for (int i = 0; i < n * LINE_VECS; i++) dot[i] = widen(dot[i]);
}

/* ---- scales ---- */

/* 8 exponents e as 2^(e - 128); the lowest two are subnormal, and the larger one of these integers is right. */
static inline vec half_powers(const uint8_t *p) {
    const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)), one = _mm256_set1_epi32(1);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    const __m256i least = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), _mm256_min_epi32(e, _mm256_set1_epi32(2)));
    return _mm256_castsi256_ps(_mm256_max_epi32(normal, least));
}

/* Of a part of block b the scales of rows 8h .. 8h + 7. */
TILE vec scales_of(const panel_form f, const uint8_t *stretch, size_t b, const int part, const int h) {
    const uint8_t *p = stretch + K_SCALES;
    __m256i        whole;
    if (f.scales == SCALES_F16)
        return v_load_f16(stretch + b * SCALE_BYTES + h * LANES * 2);
    if (f.scales == SCALES_E8M0)
        return half_powers(stretch + b * PANEL_ROWS + h * LANES);
    if (f.scales == SCALES_U4) {
        whole = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p + 2 * (b * PANEL_ROWS + (size_t)(h * LANES)))));
        whole = _mm256_and_si256(part ? _mm256_srli_epi32(whole, 8) : whole, _mm256_set1_epi32(15));
    } else {
        const uint8_t *at = p + (b * f.parts + (size_t)part) * PANEL_ROWS + h * LANES;
        const __m128i  bytes = _mm_loadl_epi64((const void *)at);
        whole = f.scales == SCALES_U8 ? _mm256_cvtepu8_epi32(bytes) : _mm256_cvtepi8_epi32(bytes);
    }
    return v_mul(v_load_f16(stretch + h * LANES * 2), _mm256_cvtepi32_ps(whole));
}

/* What is least, times what the sums of activations are too large by. */
static inline vec eighth(const uint8_t *halves, const int h) {
    return v_mul(v_load_f16(halves + h * LANES * 2), v_set1(1.0f / Q8_SHARES));
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
TILE void block_of(const panel_form f, vec *sum, const uint8_t *w, size_t blocks, size_t b, const columns *x, size_t at,
                   const int n) {
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const uint8_t *lines = block_lines(f, w, blocks, b);
    UNROLL for (int part = 0; part < f.parts; part++) {
        size_t         ld_minus;
        const int32_t *minus = offset_sums(f, x, at, (size_t)part, &ld_minus);
        vec            scale[LINE_VECS];
        __m256i        dot[MOST_COLUMNS * LINE_VECS];
        dot_part(f, dot, lines, part, x->q + at * BLOCK_INPUTS, cols, n);
        UNROLL for (int h = 0; h < LINE_VECS; h++) scale[h] = scales_of(f, w, b, part, h);
        add_scaled(sum, dot, scale, x->shares + at, ld, opens_signed(f) ? NULL : minus, ld_minus, n);
    }
    if (f.least == LEAST_F16)
        UNROLL for (int h = 0; h < LINE_VECS; h++) {
            vec low = eighth(w + (blocks + b) * SCALE_BYTES, h);
            UNROLL for (int c = 0; c < n; c++) sum[c * LINE_VECS + h] =
                v_fma(low, v_set1((float)x->sums[at + (size_t)c * ld]), sum[c * LINE_VECS + h]);
        }
}

/* Minimums lie in pairs, as sums of activations do: two products of 16 bits in each row's 32. */
TILE void take_minimums(const panel_form f, vec *sum, const uint8_t *w, const columns *x, size_t at, const int n) {
    const uint8_t *minimums = w + (f.least == LEAST_U4 ? K_SCALES : K_MINIMUMS);
    size_t         ld;
    const int16_t *sums = minimum_sums(f, x, at, &ld);
    __m256i        of[MOST_COLUMNS * LINE_VECS];
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) of[i] = _mm256_setzero_si256();
    UNROLL for (size_t pair = 0; pair < minimum_pairs(f); pair++) UNROLL for (int h = 0; h < LINE_VECS; h++) {
        const uint8_t *from = minimums + 2 * (pair * PANEL_ROWS + (size_t)(h * LANES));
        __m256i        two = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)from));
        two = f.least == LEAST_U4 ? _mm256_srli_epi16(two, 4) : two;
        UNROLL for (int c = 0; c < n; c++) of[c * LINE_VECS + h] = _mm256_add_epi32(
            of[c * LINE_VECS + h], _mm256_madd_epi16(two, four_bytes(sums + (size_t)c * ld + 2 * pair)));
    }
    UNROLL for (int h = 0; h < LINE_VECS; h++) {
        vec scale = eighth(w + SCALE_BYTES, h);
        UNROLL for (int c = 0; c < n; c++) sum[c * LINE_VECS + h] =
            _mm256_fnmadd_ps(scale, _mm256_cvtepi32_ps(of[c * LINE_VECS + h]), sum[c * LINE_VECS + h]);
    }
}

#include "tensor/int8_tile.h"

#define AVX2_PANEL(name, type) INT8_FUNCTION(name, type, avx2, MOST_COLUMNS)
INT8_TYPES(AVX2_PANEL)
#else
typedef int pare_no_avx2_int8;
#endif
