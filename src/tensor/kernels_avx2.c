/* kernels_avx2.c - AVX2 with FMA and F16C: two registers hold a line of a panel. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES           8
#define FLOAT_TILE      6 /* columns: 12 sums of 16 registers; the totals rest in memory between spans */
#define FLOAT_TILE_VECS 12
#define HEAD_TILE       2

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
static inline void v_store_f16(uint16_t *p, vec a) {
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
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

#include "tensor/kernels_vector.h"

static inline __m256i rounded(vec scaled) {
    __m256i whole = _mm256_cvtps_epi32(scaled);
    return _mm256_and_si256(whole, _mm256_castps_si256(_mm256_cmp_ps(scaled, scaled, _CMP_ORD_Q)));
}

static inline int32_t sum_epi32(__m256i a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static void quantize_q8(const float *x, int8_t *q, float *scales, int32_t *sums, int n) {
    const vec sign = v_set1(-0.0f);
    for (int b = 0; b < n / BLOCK_INPUTS; b++, x += BLOCK_INPUTS, q += BLOCK_INPUTS) {
        vec peaks = v_zero();
        UNROLL for (int i = 0; i < 4; i++) peaks = v_max(_mm256_andnot_ps(sign, v_load(x + i * LANES)), peaks);
        float   peak = v_peak(peaks);
        vec     inverse = v_set1(peak > Q8_TINY ? 127.0f / peak : 0.0f);
        __m256i i[4];
        UNROLL for (int j = 0; j < 4; j++) i[j] = rounded(v_mul(v_load(x + j * LANES), inverse));
        scales[b] = peak > Q8_TINY ? peak / 127.0f : 0.0f;
        sums[b] = sum_epi32(_mm256_add_epi32(_mm256_add_epi32(i[0], i[1]), _mm256_add_epi32(i[2], i[3])));
        /* packing works within 128-bit lanes: put the groups of four bytes in order afterwards */
        __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
        packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((void *)q, packed);
    }
}

/* ---- panels of int8 ---- */

#define PREFETCH_BYTES 6912
#define INT8_TILE      4 /* columns */
#define HALF_BYTES     32
#define HALVES         2 /* of a line, 8 rows each */

static inline __m256i four_inputs(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm256_set1_epi32(four);
}

/* Both halves of a line meet the same broadcast activations; dot is [n][HALVES].
 *
 * A pair of products is at most 2 * 15 * 127 and eight of them still fit in 16 bits, so the widening to 32 bits comes
 * once, at the end. */
TILE void dot_q4_0(__m256i *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int n) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    UNROLL for (int i = 0; i < n * HALVES; i++) dot[i] = _mm256_setzero_si256();
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        __m256i even[HALVES], odd[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            __m256i line = _mm256_loadu_si256((const void *)(lines + j * LINE_BYTES + h * HALF_BYTES));
            even[h] = _mm256_and_si256(line, low);
            odd[h] = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i first = four_inputs(x + (size_t)c * ldx + 8 * j),
                    next = four_inputs(x + (size_t)c * ldx + 8 * j + 4);
            UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i *to = &dot[c * HALVES + h];
                *to = _mm256_add_epi16(*to, _mm256_maddubs_epi16(even[h], first));
                *to = _mm256_add_epi16(*to, _mm256_maddubs_epi16(odd[h], next));
            }
        }
    }
    UNROLL for (int i = 0; i < n * HALVES; i++) dot[i] = _mm256_madd_epi16(dot[i], ones);
}

/* Unsigned by signed would overflow 16 bits (2 * 255 * 127); the weight's size by the activation with the weight's sign
 * does not (2 * 128 * 127). */
TILE void dot_q8_0(__m256i *dot, const uint8_t *lines, const int8_t *x, size_t ldx, const int n) {
    const __m256i offset = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
    UNROLL for (int i = 0; i < n * HALVES; i++) dot[i] = _mm256_setzero_si256();
    UNROLL for (int j = 0; j < Q8_0_LINES; j++) {
        __m256i w[HALVES], size[HALVES];
        UNROLL for (int h = 0; h < HALVES; h++) {
            w[h] = _mm256_loadu_si256((const void *)(lines + j * LINE_BYTES + h * HALF_BYTES));
            w[h] = _mm256_xor_si256(w[h], offset);
            size[h] = _mm256_abs_epi8(w[h]);
        }
        UNROLL for (int c = 0; c < n; c++) {
            __m256i four = four_inputs(x + (size_t)c * ldx + 4 * j);
            UNROLL for (int h = 0; h < HALVES; h++) {
                __m256i pairs = _mm256_maddubs_epi16(size[h], _mm256_sign_epi8(four, w[h]));
                dot[c * HALVES + h] = _mm256_add_epi32(dot[c * HALVES + h], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
}

TILE void int8_tile(block_type type, const uint8_t *w, int cols, const int8_t *x, const float *xs, const int32_t *xsum,
                    float *y, int ldy, const int n) {
    const int    block = type == BLOCK_Q4_0 ? Q4_0_BLOCK : Q8_0_BLOCK;
    const int    lines = type == BLOCK_Q4_0 ? Q4_0_LINES : Q8_0_LINES;
    const size_t ldx = (size_t)cols, blocks = (size_t)(cols / BLOCK_INPUTS);
    vec          sum[INT8_TILE * HALVES];
    UNROLL for (int i = 0; i < n * HALVES; i++) sum[i] = v_zero();
    for (size_t b = 0; b < blocks; b++, w += block, x += BLOCK_INPUTS) {
        __m256i dot[INT8_TILE * HALVES];
        UNROLL for (int i = 0; i <= lines; i++) PREFETCH(w + PREFETCH_BYTES + i * LINE_BYTES);
        if (type == BLOCK_Q4_0)
            dot_q4_0(dot, w + SCALE_BYTES, x, ldx, n);
        else
            dot_q8_0(dot, w + SCALE_BYTES, x, ldx, n);
        UNROLL for (int c = 0; c < n; c++) {
            size_t  at = (size_t)c * blocks + b;
            vec     x_scale = v_set1(xs[at]);
            __m256i offset = _mm256_set1_epi32(type == BLOCK_Q4_0 ? Q4_0_OFFSET * xsum[at] : 0);
            UNROLL for (int h = 0; h < HALVES; h++) {
                int i = c * HALVES + h;
                vec d = _mm256_cvtepi32_ps(_mm256_sub_epi32(dot[i], offset));
                sum[i] = v_fma(d, v_mul(v_load_f16(w + h * LANES * 2), x_scale), sum[i]);
            }
        }
    }
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int h = 0; h < HALVES; h++)
        v_store(y + (size_t)c * (size_t)ldy + h * LANES, sum[c * HALVES + h]);
}

TILE void int8_panel(block_type type, const uint8_t *w, int cols, const int8_t *x, const float *xs, const int32_t *xsum,
                     int n, float *y, int ldy) {
    const size_t blocks = (size_t)(cols / BLOCK_INPUTS);
    while (n > 0) {
        int tiles = (n + INT8_TILE - 1) / INT8_TILE;
        int now = (n + tiles - 1) / tiles; /* 5 columns are 3 + 2, not 4 + 1 */
        if (now == 4)
            int8_tile(type, w, cols, x, xs, xsum, y, ldy, 4);
        else if (now == 3)
            int8_tile(type, w, cols, x, xs, xsum, y, ldy, 3);
        else if (now == 2)
            int8_tile(type, w, cols, x, xs, xsum, y, ldy, 2);
        else
            int8_tile(type, w, cols, x, xs, xsum, y, ldy, 1);
        n -= now;
        x += (size_t)now * (size_t)cols;
        xs += (size_t)now * blocks;
        xsum += (size_t)now * blocks;
        y += (size_t)now * (size_t)ldy;
    }
}

static void panel_q8_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy) {
    int8_panel(BLOCK_Q8_0, panel, cols, xq, xs, xsum, n, y, ldy);
}

static void panel_q4_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy) {
    int8_panel(BLOCK_Q4_0, panel, cols, xq, xs, xsum, n, y, ldy);
}

const kernels kernels_avx2 = {
    .name = "avx2",
    VECTOR_KERNELS,
    .panel_q8_0 = panel_q8_0,
    .panel_q4_0 = panel_q4_0,
    .quantize_q8 = quantize_q8,
};
#else
typedef int pare_no_avx2;
#endif
