/* kernels_avx512.c - AVX-512 F, BW, VL, DQ and VNNI: one register holds a line of a panel. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

#define LANES           16
#define FLOAT_TILE      12 /* columns: 12 sums and 12 totals of 32 registers */
#define FLOAT_TILE_VECS 12
#define HEAD_TILE       4

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
static inline void v_store_f16(uint16_t *p, vec a) {
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
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

#include "tensor/kernels_vector.h"

static void quantize_q8(const float *x, int8_t *q, float *scales, int32_t *sums, int n) {
    for (int b = 0; b < n / BLOCK_INPUTS; b++, x += BLOCK_INPUTS, q += BLOCK_INPUTS) {
        vec     a0 = v_load(x), a1 = v_load(x + LANES);
        float   peak = v_peak(v_max(_mm512_abs_ps(a1), v_max(_mm512_abs_ps(a0), v_zero())));
        float   inverse = peak > Q8_TINY ? 127.0f / peak : 0.0f;
        vec     s0 = v_mul(a0, v_set1(inverse)), s1 = v_mul(a1, v_set1(inverse));
        __m512i i0 = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(s0, s0, _CMP_ORD_Q), s0);
        __m512i i1 = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(s1, s1, _CMP_ORD_Q), s1);
        scales[b] = peak > Q8_TINY ? peak / 127.0f : 0.0f;
        sums[b] = _mm512_reduce_add_epi32(_mm512_add_epi32(i0, i1));
        _mm_storeu_si128((void *)q, _mm512_cvtsepi32_epi8(i0));
        _mm_storeu_si128((void *)(q + LANES), _mm512_cvtsepi32_epi8(i1));
    }
}

/* ---- panels of int8 ---- */

#define PREFETCH_BYTES 6912
#define INT8_TILE      8 /* columns of one panel */
#define PAIR_TILE      6 /* columns of two panels: 12 sums and 12 dot products of 32 registers */

static inline __m512i four_inputs(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

/* One line of unpacked weights of each panel against inputs x[0..4) of each column. */
TILE void dot_line(__m512i *dot, const __m512i *w, const int8_t *x, size_t ldx, const int panels, const int n) {
    UNROLL for (int c = 0; c < n; c++) {
        __m512i four = four_inputs(x + (size_t)c * ldx);
        UNROLL for (int p = 0; p < panels; p++) dot[p * n + c] = _mm512_dpbusd_epi32(dot[p * n + c], w[p], four);
    }
}

TILE void dot_q4_0(__m512i *dot, const uint8_t *block, size_t panel_bytes, const int8_t *x, size_t ldx,
                   const int panels, const int n) {
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
        __m512i even[2], odd[2];
        UNROLL for (int p = 0; p < panels; p++) {
            __m512i line = _mm512_loadu_si512(block + (size_t)p * panel_bytes + SCALE_BYTES + j * LINE_BYTES);
            even[p] = _mm512_and_si512(line, low);
            odd[p] = _mm512_and_si512(_mm512_srli_epi16(line, 4), low);
        }
        dot_line(dot, even, x + 8 * j, ldx, panels, n);
        dot_line(dot, odd, x + 8 * j + 4, ldx, panels, n);
    }
}

TILE void dot_q8_0(__m512i *dot, const uint8_t *block, size_t panel_bytes, const int8_t *x, size_t ldx,
                   const int panels, const int n) {
    UNROLL for (int j = 0; j < Q8_0_LINES; j++) {
        __m512i line[2];
        UNROLL for (int p = 0; p < panels; p++) line[p] =
            _mm512_loadu_si512(block + (size_t)p * panel_bytes + SCALE_BYTES + j * LINE_BYTES);
        dot_line(dot, line, x + 4 * j, ldx, panels, n);
    }
}

TILE void int8_tile(block_type type, const uint8_t *w, int cols, const int8_t *x, const float *xs, const int32_t *xsum,
                    float *y, int ldy, const int panels, const int n) {
    const int    block = type == BLOCK_Q4_0 ? Q4_0_BLOCK : Q8_0_BLOCK;
    const int    lines = type == BLOCK_Q4_0 ? Q4_0_LINES : Q8_0_LINES;
    const int    shift = type == BLOCK_Q4_0 ? Q4_0_OFFSET : Q8_0_OFFSET;
    const size_t ldx = (size_t)cols, blocks = (size_t)(cols / BLOCK_INPUTS), panel_bytes = blocks * (size_t)block;
    vec          sum[2 * INT8_TILE];
    UNROLL for (int i = 0; i < panels * n; i++) sum[i] = v_zero();
    for (size_t b = 0; b < blocks; b++, w += block, x += BLOCK_INPUTS) {
        __m512i dot[2 * INT8_TILE];
        if (panels == 1)
            UNROLL for (int i = 0; i <= lines; i++) PREFETCH(w + PREFETCH_BYTES + i * LINE_BYTES);
        else /* the next pair, for the second-level cache */
            UNROLL for (int p = 2; p < 4; p++) UNROLL for (int i = 0; i <= lines; i++)
                PREFETCH_FAR(w + (size_t)p * panel_bytes + i * LINE_BYTES);
        UNROLL for (int c = 0; c < n; c++) {
            __m512i offset = _mm512_set1_epi32(-shift * xsum[(size_t)c * blocks + b]);
            UNROLL for (int p = 0; p < panels; p++) dot[p * n + c] = offset;
        }
        if (type == BLOCK_Q4_0)
            dot_q4_0(dot, w, panel_bytes, x, ldx, panels, n);
        else
            dot_q8_0(dot, w, panel_bytes, x, ldx, panels, n);
        UNROLL for (int p = 0; p < panels; p++) {
            vec scale = v_load_f16(w + (size_t)p * panel_bytes);
            UNROLL for (int c = 0; c < n; c++) {
                vec both = v_mul(scale, v_set1(xs[(size_t)c * blocks + b]));
                sum[p * n + c] = v_fma(_mm512_cvtepi32_ps(dot[p * n + c]), both, sum[p * n + c]);
            }
        }
    }
    UNROLL for (int p = 0; p < panels; p++) UNROLL for (int c = 0; c < n; c++)
        v_store(y + (size_t)c * (size_t)ldy + p * PANEL_ROWS, sum[p * n + c]);
}

/* Any number of columns, in tiles of nearly equal width. */
TILE void int8_panel(block_type type, const uint8_t *w, int cols, const int8_t *x, const float *xs, const int32_t *xsum,
                     int n, float *y, int ldy, const int panels, const int widest) {
    const size_t blocks = (size_t)(cols / BLOCK_INPUTS);
    while (n > 0) {
        int tiles = (n + widest - 1) / widest;
        int now = (n + tiles - 1) / tiles;
        switch (now) {
#define WIDTH(N)                                                                                                       \
    case N:                                                                                                            \
        if ((N) <= widest)                                                                                             \
            int8_tile(type, w, cols, x, xs, xsum, y, ldy, panels, N);                                                  \
        break
            WIDTH(1);
            WIDTH(2);
            WIDTH(3);
            WIDTH(4);
            WIDTH(5);
            WIDTH(6);
            WIDTH(7);
            WIDTH(8);
#undef WIDTH
        }
        n -= now;
        x += (size_t)now * (size_t)cols;
        xs += (size_t)now * blocks;
        xsum += (size_t)now * blocks;
        y += (size_t)now * (size_t)ldy;
    }
}

static void panel_q8_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy) {
    int8_panel(BLOCK_Q8_0, panel, cols, xq, xs, xsum, n, y, ldy, 1, INT8_TILE);
}

static void panel_q4_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy) {
    int8_panel(BLOCK_Q4_0, panel, cols, xq, xs, xsum, n, y, ldy, 1, INT8_TILE);
}

static void pair_q8_0(const uint8_t *panels, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                      float *y, int ldy) {
    int8_panel(BLOCK_Q8_0, panels, cols, xq, xs, xsum, n, y, ldy, 2, PAIR_TILE);
}

static void pair_q4_0(const uint8_t *panels, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                      float *y, int ldy) {
    int8_panel(BLOCK_Q4_0, panels, cols, xq, xs, xsum, n, y, ldy, 2, PAIR_TILE);
}

const kernels kernels_avx512 = {
    .name = "avx512",
    VECTOR_KERNELS,
    .panel_q8_0 = panel_q8_0,
    .panel_q4_0 = panel_q4_0,
    .pair_q8_0 = pair_q8_0,
    .pair_q4_0 = pair_q4_0,
    .quantize_q8 = quantize_q8,
};
#else
typedef int pare_no_avx512;
#endif
