/* kernels_vector.h - the kernels that read the same for every vector instruction set. kernels_avx2.c and
 * kernels_avx512.c define the type `vec` of LANES floats, its v_* operations and the tile sizes, then include this.   */
#ifndef PARE_TENSOR_KERNELS_VECTOR_H
#define PARE_TENSOR_KERNELS_VECTOR_H

#include <math.h>
#include <string.h>

#include "tensor/kernels.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"

/* Tiles are inlined with constant sizes so that their accumulators are registers; that needs full unrolling. */
#define TILE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define LINE_VECS (PANEL_ROWS / LANES)

#define PREFETCH(p)     __builtin_prefetch((p), 0, 3)
#define PREFETCH_FAR(p) __builtin_prefetch((p), 0, 2) /* into the second-level cache */

/* ---- panels of floats ---- */

typedef enum weight_kind { WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16 } weight_kind;

TILE vec weights(weight_kind kind, const uint8_t *p) {
    return kind == WEIGHT_F32 ? v_load(p) : kind == WEIGHT_F16 ? v_load_f16(p) : v_load_bf16(p);
}

/* Adds `spans` spans of `inputs` inputs each to total[n][LINE_VECS], in order. Working on several at once keeps enough
 * independent additions in flight when there are few columns. */
TILE void add_spans(weight_kind kind, const uint8_t *panel, const float *x, size_t ldx, vec *total, const int n,
                    const int spans, int inputs) {
    const size_t line = PANEL_ROWS * (kind == WEIGHT_F32 ? 4 : 2);
    vec          sum[FLOAT_TILE_VECS];
    UNROLL for (int i = 0; i < spans * n * LINE_VECS; i++) sum[i] = v_zero();
    for (int k = 0; k < inputs; k++)
        UNROLL for (int s = 0; s < spans; s++) {
            const uint8_t *w = panel + ((size_t)s * SUM_SPAN + (size_t)k) * line;
            PREFETCH(w + (size_t)4 * SUM_SPAN * line);
            vec row[LINE_VECS];
            UNROLL for (int v = 0; v < LINE_VECS; v++) row[v] = weights(kind, w + (size_t)v * (line / LINE_VECS));
            UNROLL for (int c = 0; c < n; c++) {
                vec xk = v_set1(x[(size_t)c * ldx + (size_t)s * SUM_SPAN + (size_t)k]);
                UNROLL for (int v = 0; v < LINE_VECS; v++) {
                    vec *to = &sum[(s * n + c) * LINE_VECS + v];
                    *to = v_fma(row[v], xk, *to);
                }
            }
        }
    UNROLL for (int s = 0; s < spans; s++) UNROLL for (int i = 0; i < n * LINE_VECS; i++) total[i] =
        v_add(total[i], sum[s * n * LINE_VECS + i]);
}

TILE void float_tile(weight_kind kind, const uint8_t *panel, int cols, const float *x, float *y, int ldy, const int n,
                     const int spans) {
    const size_t line = PANEL_ROWS * (kind == WEIGHT_F32 ? 4 : 2);
    vec          total[FLOAT_TILE_VECS];
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) total[i] = v_zero();
    int k = 0;
    for (; cols - k >= spans * SUM_SPAN; k += spans * SUM_SPAN)
        add_spans(kind, panel + (size_t)k * line, x + k, (size_t)cols, total, n, spans, SUM_SPAN);
    for (; k < cols; k += SUM_SPAN)
        add_spans(kind, panel + (size_t)k * line, x + k, (size_t)cols, total, n, 1,
                  cols - k < SUM_SPAN ? cols - k : SUM_SPAN);
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int v = 0; v < LINE_VECS; v++)
        v_store(y + (size_t)c * (size_t)ldy + v * LANES, total[c * LINE_VECS + v]);
}

TILE void float_panel(weight_kind kind, const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    for (int now; n > 0; n -= now, x += (size_t)now * (size_t)cols, y += (size_t)now * (size_t)ldy) {
        if (n >= FLOAT_TILE)
            float_tile(kind, panel, cols, x, y, ldy, now = FLOAT_TILE, 1);
        else if (n >= 4)
            float_tile(kind, panel, cols, x, y, ldy, now = 4, 1);
        else if (n >= 2)
            float_tile(kind, panel, cols, x, y, ldy, now = 2, 2);
        else
            float_tile(kind, panel, cols, x, y, ldy, now = 1, 4);
    }
}

static void panel_f32(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    float_panel(WEIGHT_F32, panel, cols, x, n, y, ldy);
}

static void panel_f16(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    float_panel(WEIGHT_F16, panel, cols, x, n, y, ldy);
}

static void panel_bf16(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    float_panel(WEIGHT_BF16, panel, cols, x, n, y, ldy);
}

/* ---- norms and element-wise work ---- */

/* e^x within 2 ulp: x = m ln 2 + r, |r| <= ln 2 / 2, Taylor's polynomial of degree 7 for e^r (next term 5e-9). ln 2 is
 * split in two so that m ln 2 is exact in its upper part. */
TILE vec v_exp(vec x) {
    x = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x)); /* where float32 ends; a NaN stays a NaN */
    vec m = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
    vec r = v_fma(m, v_set1(-0x1.62e4p-1f), x);
    r = v_fma(m, v_set1(-0x1.7f7d1cp-20f), r);
    vec p = v_set1(1.0f / 5040);
    p = v_fma(p, r, v_set1(1.0f / 720));
    p = v_fma(p, r, v_set1(1.0f / 120));
    p = v_fma(p, r, v_set1(1.0f / 24));
    p = v_fma(p, r, v_set1(1.0f / 6));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_scale(p, m);
}

static void rms_norm(const float *x, const float *weight, float eps, float *out, int n) {
    vec squares[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        UNROLL for (int v = 0; v < 4; v++) {
            vec a = v_load(x + i + v * LANES);
            squares[v] = v_fma(a, a, squares[v]);
        }
    for (; i < n; i += LANES) {
        vec a = v_load_n(x + i, n - i);
        squares[0] = v_fma(a, a, squares[0]);
    }
    float sum = v_sum(v_add(v_add(squares[0], squares[1]), v_add(squares[2], squares[3])));
    vec   scale = v_set1(1.0f / sqrtf(sum / (float)n + eps));
    for (i = 0; i < n; i += LANES) {
        vec a = v_mul(v_load_n(x + i, n - i), scale);
        v_store_n(out + i, weight ? v_mul(a, v_load_n(weight + i, n - i)) : a, n - i);
    }
}

static void add(float *x, const float *y, int n) {
    for (int i = 0; i < n; i += LANES)
        v_store_n(x + i, v_add(v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

static void silu_mul(float *gate, const float *up, int n) {
    for (int i = 0; i < n; i += LANES) {
        vec g = v_load_n(gate + i, n - i);
        vec silu = v_div(g, v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), g))));
        v_store_n(gate + i, v_mul(silu, v_load_n(up + i, n - i)), n - i);
    }
}

static float peak_of(const float *x, int n) {
    vec best = v_set1(-INFINITY);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        best = v_max(v_load(x + i), best);
    float peak = v_peak(best);
    for (; i < n; i++)
        peak = x[i] > peak ? x[i] : peak;
    return peak;
}

static void softmax(float *x, int n) {
    vec   peak = v_set1(peak_of(x, n)), sums = v_zero();
    float sum = 0;
    int   i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec a = v_exp(v_sub(v_load(x + i), peak));
        v_store(x + i, a);
        sums = v_add(sums, a);
    }
    if (i < n)
        v_store_n(x + i, v_exp(v_sub(v_load_n(x + i, n - i), peak)), n - i);
    for (; i < n; i++)
        sum += x[i];
    vec scale = v_set1(1.0f / (v_sum(sums) + sum));
    for (i = 0; i < n; i += LANES)
        v_store_n(x + i, v_mul(v_load_n(x + i, n - i), scale), n - i);
}

static int argmax(const float *x, int n) {
    float peak = peak_of(x, n);
    vec   all = v_set1(peak);
    int   i = 0;
    if (isnan(x[0])) /* nothing is greater than it, as in the reference */
        return 0;
    while (i + LANES <= n && !v_any_equal(v_load(x + i), all))
        i += LANES;
    for (; i < n; i++)
        if (x[i] == peak)
            return i;
    return 0;
}

static void to_f16(const float *x, uint16_t *out, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        v_store_f16(out + i, v_load(x + i));
    for (; i < n; i++)
        out[i] = f32_to_f16(x[i]);
}

/* ---- attention ---- */

#define TILE_POSITIONS 4 /* keys that meet the same piece of query */
#define TILE_PIECES    4 /* vectors of a value row that are summed at a time */

TILE vec kv_piece(kv_type type, const void *base, int64_t i) {
    return type == KV_F16 ? v_load_f16((const uint16_t *)base + i) : v_load((const float *)base + i);
}

/* scores[h][t] for `heads` heads and all positions. */
TILE void score_tile(kv_type type, const float *q, const int heads, int dim, const void *k, int64_t stride, int length,
                     float scale, float *scores) {
    for (int t = 0; t < length; t += TILE_POSITIONS) {
        int64_t at[TILE_POSITIONS]; /* past the end the last key again: the order of additions stays the same */
        UNROLL for (int p = 0; p < TILE_POSITIONS; p++) at[p] = (t + p < length ? t + p : length - 1) * stride;
        vec sum[HEAD_TILE][TILE_POSITIONS];
        UNROLL for (int h = 0; h < heads; h++) UNROLL for (int p = 0; p < TILE_POSITIONS; p++) sum[h][p] = v_zero();
        for (int d = 0; d < dim; d += LANES) {
            vec key[TILE_POSITIONS];
            UNROLL for (int p = 0; p < TILE_POSITIONS; p++) key[p] = kv_piece(type, k, at[p] + d);
            UNROLL for (int h = 0; h < heads; h++) {
                vec query = v_load(q + (size_t)h * (size_t)dim + d);
                UNROLL for (int p = 0; p < TILE_POSITIONS; p++) sum[h][p] = v_fma(query, key[p], sum[h][p]);
            }
        }
        UNROLL for (int h = 0; h < heads; h++) {
            float four[TILE_POSITIONS];
            v_sum4(four, sum[h][0], sum[h][1], sum[h][2], sum[h][3]);
            for (int p = 0; p < TILE_POSITIONS && t + p < length; p++)
                scores[(size_t)h * (size_t)length + (size_t)(t + p)] = four[p] * scale;
        }
    }
}

/* out[h][d ..] for `heads` heads and `pieces` vectors of the value rows. */
TILE void value_tile(kv_type type, const float *scores, const int heads, const int pieces, int dim, int d,
                     const void *v, int64_t stride, int length, float *out) {
    vec sum[HEAD_TILE][TILE_PIECES];
    UNROLL for (int h = 0; h < heads; h++) UNROLL for (int i = 0; i < pieces; i++) sum[h][i] = v_zero();
    for (int t = 0; t < length; t++) {
        vec value[TILE_PIECES];
        UNROLL for (int i = 0; i < pieces; i++) value[i] = kv_piece(type, v, t * stride + d + i * LANES);
        UNROLL for (int h = 0; h < heads; h++) {
            vec weight = v_set1(scores[(size_t)h * (size_t)length + (size_t)t]);
            UNROLL for (int i = 0; i < pieces; i++) sum[h][i] = v_fma(weight, value[i], sum[h][i]);
        }
    }
    UNROLL for (int h = 0; h < heads; h++) UNROLL for (int i = 0; i < pieces; i++)
        v_store(out + (size_t)h * (size_t)dim + d + i * LANES, sum[h][i]);
}

TILE void attend_tile(kv_type type, const float *q, const int heads, int dim, const void *k, const void *v,
                      int64_t stride, int length, float scale, float *scores, float *out) {
    score_tile(type, q, heads, dim, k, stride, length, scale, scores);
    for (int h = 0; h < heads; h++)
        softmax(scores + (size_t)h * (size_t)length, length);
    int d = 0;
    for (; d + TILE_PIECES * LANES <= dim; d += TILE_PIECES * LANES)
        value_tile(type, scores, heads, TILE_PIECES, dim, d, v, stride, length, out);
    for (; d < dim; d += LANES)
        value_tile(type, scores, heads, 1, dim, d, v, stride, length, out);
}

TILE void attend_type(kv_type type, const float *q, int heads, int dim, const void *k, const void *v, int64_t stride,
                      int length, float scale, float *scores, float *out) {
    while (heads > 0) {
        int now = heads < HEAD_TILE ? 1 : HEAD_TILE;
        if (now == HEAD_TILE)
            attend_tile(type, q, HEAD_TILE, dim, k, v, stride, length, scale, scores, out);
        else
            attend_tile(type, q, 1, dim, k, v, stride, length, scale, scores, out);
        heads -= now;
        q += (size_t)now * (size_t)dim;
        out += (size_t)now * (size_t)dim;
        scores += (size_t)now * (size_t)length;
    }
}

static void attend(kv_type type, const float *q, int heads, int dim, const void *k, const void *v, int64_t stride,
                   int length, float scale, float *scores, float *out) {
    if (dim % LANES)
        kernels_scalar.attend(type, q, heads, dim, k, v, stride, length, scale, scores, out);
    else if (type == KV_F16)
        attend_type(KV_F16, q, heads, dim, k, v, stride, length, scale, scores, out);
    else
        attend_type(KV_F32, q, heads, dim, k, v, stride, length, scale, scores, out);
}

#define VECTOR_KERNELS                                                                                                 \
    .panel_f32 = panel_f32, .panel_f16 = panel_f16, .panel_bf16 = panel_bf16, .rms_norm = rms_norm, .add = add,        \
    .silu_mul = silu_mul, .softmax = softmax, .argmax = argmax, .attend = attend, .to_f16 = to_f16

#endif
