/* kernels_vector.h - the kernels that read the same for every vector instruction set. kernels_avx2.c and
 * kernels_avx512.c define the type `vec` of LANES floats, its v_* operations and the tile sizes, then include this.   */
#ifndef PARE_TENSOR_KERNELS_VECTOR_H
#define PARE_TENSOR_KERNELS_VECTOR_H

#include <math.h>
#include <string.h>

#include "tensor/kernels.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/vector_math.h"

#define LINE_VECS (PANEL_ROWS / LANES)

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

TILE void float_panel(weight_kind kind, const uint8_t *panel, const columns *x, float *y, int ldy) {
    const float *from = x->x;
    int          cols = x->cols;
    for (int now, n = x->n; n > 0; n -= now, from += (size_t)now * (size_t)cols, y += (size_t)now * (size_t)ldy) {
        if (n >= FLOAT_TILE)
            float_tile(kind, panel, cols, from, y, ldy, now = FLOAT_TILE, 1);
        else if (n >= 4)
            float_tile(kind, panel, cols, from, y, ldy, now = 4, 1);
        else if (n >= 2)
            float_tile(kind, panel, cols, from, y, ldy, now = 2, 2);
        else
            float_tile(kind, panel, cols, from, y, ldy, now = 1, 4);
    }
}

static void panel_f32(const uint8_t *panel, const columns *x, float *y, int ldy) {
    float_panel(WEIGHT_F32, panel, x, y, ldy);
}

static void panel_f16(const uint8_t *panel, const columns *x, float *y, int ldy) {
    float_panel(WEIGHT_F16, panel, x, y, ldy);
}

static void panel_bf16(const uint8_t *panel, const columns *x, float *y, int ldy) {
    float_panel(WEIGHT_BF16, panel, x, y, ldy);
}

/* ---- norms and element-wise work ---- */

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

/* Sums of x, or of (x - mean)^2. */
TILE float float_sum(const float *x, const vec mean, const bool squares, int n) {
    vec sums[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    int i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        UNROLL for (int v = 0; v < 4; v++) {
            vec a = v_sub(v_load(x + i + v * LANES), mean);
            sums[v] = squares ? v_fma(a, a, sums[v]) : v_add(sums[v], a);
        }
    float rest = 0;
    for (; i + LANES <= n; i += LANES) {
        vec a = v_sub(v_load(x + i), mean);
        sums[0] = squares ? v_fma(a, a, sums[0]) : v_add(sums[0], a);
    }
    for (float one[LANES]; i < n; i++) {
        v_store(one, mean);
        float a = x[i] - one[0];
        rest += squares ? a * a : a;
    }
    return v_sum(v_add(v_add(sums[0], sums[1]), v_add(sums[2], sums[3]))) + rest;
}

static void layer_norm(const float *x, const float *weight, const float *bias, float eps, float *out, int n) {
    vec mean = v_set1(float_sum(x, v_zero(), false, n) / (float)n);
    vec scale = v_set1(1.0f / sqrtf(float_sum(x, mean, true, n) / (float)n + eps));
    for (int i = 0; i < n; i += LANES) {
        vec a = v_mul(v_sub(v_load_n(x + i, n - i), mean), scale);
        if (weight)
            a = v_mul(a, v_load_n(weight + i, n - i));
        if (bias)
            a = v_add(a, v_load_n(bias + i, n - i));
        v_store_n(out + i, a, n - i);
    }
}

/* x / (1 + e^-y) */
TILE vec gated(vec x, vec y) {
    return v_div(x, v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), y))));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
TILE vec gelu_tanh_of(vec x) {
    vec cube = v_mul(v_mul(x, x), x);
    return gated(x, v_mul(v_set1(1.5957691f), v_fma(cube, v_set1(0.044715f), x)));
}

/* max(x, 0) - |x| erfc(|x| / sqrt 2) / 2, with erfc within 1.5e-7 by formula 7.1.26 of Abramowitz and Stegun. */
TILE vec gelu_erf_of(vec x) {
    vec size = v_max(x, v_sub(v_zero(), x)), z = v_mul(size, v_set1(0.70710678f));
    vec t = v_div(v_set1(1.0f), v_fma(z, v_set1(0.3275911f), v_set1(1.0f)));
    vec p = v_set1(1.061405429f);
    p = v_fma(p, t, v_set1(-1.453152027f));
    p = v_fma(p, t, v_set1(1.421413741f));
    p = v_fma(p, t, v_set1(-0.284496736f));
    p = v_fma(p, t, v_set1(0.254829592f));
    vec half = v_mul(v_mul(v_set1(0.5f), v_mul(p, t)), v_exp(v_sub(v_zero(), v_mul(z, z))));
    return v_sub(v_max(v_zero(), x), v_mul(size, half));
}

TILE vec relu_squared_of(vec x) {
    vec positive = v_max(v_zero(), x);
    return v_mul(positive, positive);
}

TILE void activate(activation act, float *x, const float *up, int n) {
    for (int i = 0; i < n; i += LANES) {
        vec a = v_load_n(x + i, n - i);
        a = act == ACT_SILU        ? gated(a, a)
            : act == ACT_GELU_TANH ? gelu_tanh_of(a)
            : act == ACT_GELU_ERF  ? gelu_erf_of(a)
                                   : relu_squared_of(a);
        v_store_n(x + i, up ? v_mul(a, v_load_n(up + i, n - i)) : a, n - i);
    }
}

static void silu(float *x, const float *up, int n) {
    activate(ACT_SILU, x, up, n);
}

static void gelu_tanh(float *x, const float *up, int n) {
    activate(ACT_GELU_TANH, x, up, n);
}

static void gelu_erf(float *x, const float *up, int n) {
    activate(ACT_GELU_ERF, x, up, n);
}

static void relu_squared(float *x, const float *up, int n) {
    activate(ACT_RELU_SQUARED, x, up, n);
}

/* cap - 2 cap / (e^(2 x / cap) + 1) */
static void cap_values(float *x, float cap, int n) {
    const vec most = v_set1(cap), twice = v_set1(2 * cap), inverse = v_set1(2 / cap);
    for (int i = 0; i < n; i += LANES) {
        vec e = v_add(v_exp(v_mul(v_load_n(x + i, n - i), inverse)), v_set1(1.0f));
        v_store_n(x + i, v_sub(most, v_div(twice, e)), n - i);
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

#define VECTOR_PANELS [BLOCK_F32] = panel_f32, [BLOCK_F16] = panel_f16, [BLOCK_BF16] = panel_bf16
#define VECTOR_KERNELS                                                                                                 \
    .rms_norm = rms_norm, .layer_norm = layer_norm, .add = add, .activate = {silu, gelu_tanh, gelu_erf, relu_squared}, \
    .cap = cap_values, .softmax = softmax, .argmax = argmax

#endif
