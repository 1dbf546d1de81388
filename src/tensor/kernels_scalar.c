/* kernels_scalar.c - every kernel in plain C: the reference for the other instruction sets, and the fallback. */
#include <math.h>
#include <string.h>

#include "tensor/int8.h"
#include "tensor/kernels.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/panel_row.h"

static uint16_t load_u16(const uint8_t *p) {
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static float load_f32(const uint8_t *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

static float load_bf16(const uint8_t *p) {
    uint32_t u = (uint32_t)load_u16(p) << 16;
    float    f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static float load_f16(const uint8_t *p) {
    return f16_to_f32(load_u16(p));
}

/* y[0..16) of one column; `load` reads one weight of `bytes` bytes. */
static inline void column_float(const uint8_t *panel, int cols, const float *x, float *y,
                                float (*load)(const uint8_t *), int bytes) {
    for (int r = 0; r < PANEL_ROWS; r++)
        y[r] = 0;
    for (int begin = 0; begin < cols; begin += SUM_SPAN) {
        int   end = begin + SUM_SPAN < cols ? begin + SUM_SPAN : cols;
        float span[PANEL_ROWS] = {0};
        for (int k = begin; k < end; k++, panel += PANEL_ROWS * bytes)
            for (int r = 0; r < PANEL_ROWS; r++)
                span[r] += load(panel + r * bytes) * x[k];
        for (int r = 0; r < PANEL_ROWS; r++)
            y[r] += span[r];
    }
}

static void panel_f32(const uint8_t *panel, const columns *x, float *y, int ldy) {
    for (int c = 0; c < x->n; c++)
        column_float(panel, x->cols, x->x + (size_t)c * x->cols, y + (size_t)c * ldy, load_f32, 4);
}

static void panel_f16(const uint8_t *panel, const columns *x, float *y, int ldy) {
    for (int c = 0; c < x->n; c++)
        column_float(panel, x->cols, x->x + (size_t)c * x->cols, y + (size_t)c * ldy, load_f16, 2);
}

static void panel_bf16(const uint8_t *panel, const columns *x, float *y, int ldy) {
    for (int c = 0; c < x->n; c++)
        column_float(panel, x->cols, x->x + (size_t)c * x->cols, y + (size_t)c * ldy, load_bf16, 2);
}

/* ---- int8: one stretch of one column; q, shares and sums begin at the stretch ---- */

typedef struct stretch {
    const uint8_t *panel;
    int            blocks; /* of 32 inputs */
    const int8_t  *q;
    const float   *shares;
    const int16_t *sums, *half_sums;
} stretch;

TILE int32_t dot_part(const panel_form f, const uint8_t *lines, int r, const int8_t *q, int begin, int end) {
    int32_t dot = 0;
    for (int i = begin; i < end; i++)
        dot += row_weight(f, lines, r, i) * q[i];
    return dot;
}

/* fmaf even where it is a call: once a part, and the result has the bits of the vector kernels. */
TILE float row_stretch(const panel_form f, const stretch *s, int r) {
    const int inputs = BLOCK_INPUTS / f.parts;
    int32_t   minimums = 0;
    float     y = 0;
    for (int b = 0; b < s->blocks; b++) {
        const uint8_t *lines = block_lines(f, s->panel, (size_t)s->blocks, (size_t)b);
        for (int part = 0; part < f.parts; part++) {
            int32_t dot = dot_part(f, lines, r, s->q + b * BLOCK_INPUTS, part * inputs, (part + 1) * inputs);
            y = fmaf((float)dot, row_scale(f, s->panel, b, part, r) * s->shares[b], y);
            if (f.least == LEAST_U8 || f.least == LEAST_U4)
                minimums +=
                    row_minimum(f, s->panel, b, part, r) * (f.parts == 2 ? s->half_sums[2 * b + part] : s->sums[b]);
        }
        if (f.least == LEAST_F16)
            y = fmaf(row_f16(block_lows(s->panel, (size_t)s->blocks, (size_t)b), r) / Q8_SHARES, s->sums[b], y);
    }
    if (f.least == LEAST_U8 || f.least == LEAST_U4)
        y = fmaf(-row_f16(s->panel + SCALE_BYTES, r) / Q8_SHARES, (float)minimums, y);
    return y;
}

TILE void int8_panel(const block_type type, const uint8_t *panel, const columns *x, float *y, int ldy) {
    const panel_form f = form_of(type);
    for (int c = 0; c < x->n; c++, y += ldy) {
        const uint8_t *at = panel;
        const columns  one = columns_from(x, c, 1);
        for (int r = 0; r < PANEL_ROWS; r++)
            y[r] = 0;
        for (int k = 0; k < x->cols; k += STRETCH_INPUTS) {
            const int     left = (x->cols - k) / BLOCK_INPUTS, b = k / BLOCK_INPUTS;
            const stretch s = {at,           left < STRETCH_BLOCKS ? left : STRETCH_BLOCKS,
                               one.q + k,    one.shares + b,
                               one.sums + b, one.half_sums + 2 * b};
            for (int r = 0; r < PANEL_ROWS; r++)
                y[r] = fmaf(row_stretch(f, &s, r), one.scales[k / STRETCH_INPUTS], y[r]);
            at += stretch_bytes(f, (size_t)s.blocks);
        }
    }
}

#define SCALAR_PANEL(name, type)                                                                                       \
    static void panel_##name(const uint8_t *panel, const columns *x, float *y, int ldy) {                              \
        int8_panel(BLOCK_##type, panel, x, y, ldy);                                                                    \
    }
INT8_TYPES(SCALAR_PANEL)

static float block_peak(const float *x) {
    float peak = 0;
    for (int i = 0; i < BLOCK_INPUTS; i++)
        peak = fabsf(x[i]) > peak ? fabsf(x[i]) : peak;
    return peak;
}

/* Rounds to nearest even; what is not a number becomes 0. */
static void quantize_block(const float *x, float inverse, int8_t *q, int32_t *halves) {
    halves[0] = halves[1] = 0;
    for (int i = 0; i < BLOCK_INPUTS; i++) {
        float scaled = x[i] * inverse;
        q[i] = scaled >= -127.5f && scaled <= 127.5f ? (int8_t)rintf(scaled) : 0;
        halves[i / 16] += q[i];
    }
}

#include "tensor/quantize_q8.h"

static void rms_norm(const float *x, const float *weight, float eps, float *out, int n) {
    double squares = 0;
    for (int i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    float scale = (float)(1.0 / sqrt(squares / n + eps));
    for (int i = 0; i < n; i++)
        out[i] = x[i] * scale * (weight ? weight[i] : 1.0f);
}

static void add(float *x, const float *y, int n) {
    for (int i = 0; i < n; i++)
        x[i] += y[i];
}

static void layer_norm(const float *x, const float *weight, const float *bias, float eps, float *out, int n) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i];
    float mean = (float)(sum / n);
    for (int i = 0; i < n; i++)
        squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    float scale = 1.0f / sqrtf((float)(squares / n) + eps);
    for (int i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale * (weight ? weight[i] : 1.0f) + (bias ? bias[i] : 0.0f);
}

static void silu(float *x, const float *up, int n) {
    for (int i = 0; i < n; i++)
        x[i] = x[i] / (1.0f + expf(-x[i])) * (up ? up[i] : 1.0f);
}

static void gelu_tanh(float *x, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float u = 0.79788456f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = 0.5f * x[i] * (1.0f + tanhf(u)) * (up ? up[i] : 1.0f);
    }
}

static void gelu_erf(float *x, const float *up, int n) {
    for (int i = 0; i < n; i++)
        x[i] = 0.5f * x[i] * erfcf(-0.70710678f * x[i]) * (up ? up[i] : 1.0f);
}

static void relu_squared(float *x, const float *up, int n) {
    for (int i = 0; i < n; i++) {
        float positive = x[i] < 0 ? 0 : x[i];
        x[i] = positive * positive * (up ? up[i] : 1.0f);
    }
}

static void cap_values(float *x, float cap, int n) {
    for (int i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static void softmax(float *x, int n) {
    float  peak = -INFINITY;
    double sum = 0;
    for (int i = 0; i < n; i++)
        peak = x[i] > peak ? x[i] : peak;
    for (int i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - peak);
    float scale = (float)(1.0 / sum);
    for (int i = 0; i < n; i++)
        x[i] *= scale;
}

static int argmax(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

#define SCALAR_ENTRY(name, type) [BLOCK_##type] = panel_##name,

const kernels kernels_scalar = {
    .name = "scalar",
    .panel = {[BLOCK_F32] = panel_f32, [BLOCK_F16] = panel_f16, [BLOCK_BF16] = panel_bf16, INT8_TYPES(SCALAR_ENTRY)},
    .quantize_q8 = quantize_q8,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add = add,
    .activate = {silu, gelu_tanh, gelu_erf, relu_squared},
    .cap = cap_values,
    .softmax = softmax,
    .argmax = argmax,
    .attend = attend_scalar,
};
