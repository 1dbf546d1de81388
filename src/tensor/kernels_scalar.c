/* kernels_scalar.c - every kernel in plain C: the reference for the other instruction sets, and the fallback. */
#include <math.h>
#include <string.h>

#include "tensor/kernels.h"
#include "tensor/matrix.h"
#include "tensor/panel.h"

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

static void panel_f32(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    for (int c = 0; c < n; c++)
        column_float(panel, cols, x + (size_t)c * cols, y + (size_t)c * ldy, load_f32, 4);
}

static void panel_f16(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    for (int c = 0; c < n; c++)
        column_float(panel, cols, x + (size_t)c * cols, y + (size_t)c * ldy, load_f16, 2);
}

static void panel_bf16(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy) {
    for (int c = 0; c < n; c++)
        column_float(panel, cols, x + (size_t)c * cols, y + (size_t)c * ldy, load_bf16, 2);
}

/* fmaf even where it is a call: once a block, and the result has the bits of the vector kernels. */
static void add_scaled(float *y, const int32_t *dot, const uint8_t *scales, float x_scale) {
    for (int r = 0; r < PANEL_ROWS; r++)
        y[r] = fmaf((float)dot[r], load_f16(scales + 2 * r) * x_scale, y[r]);
}

static void column_q8_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum,
                        float *y) {
    for (int r = 0; r < PANEL_ROWS; r++)
        y[r] = 0;
    for (int b = 0; b < cols / BLOCK_INPUTS; b++, panel += Q8_0_BLOCK, xq += BLOCK_INPUTS) {
        int32_t dot[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *w = panel + SCALE_BYTES + 4 * r;
            dot[r] = -Q8_0_OFFSET * xsum[b];
            for (int i = 0; i < BLOCK_INPUTS; i++)
                dot[r] += w[i / 4 * LINE_BYTES + i % 4] * xq[i];
        }
        add_scaled(y, dot, panel, xs[b]);
    }
}

static void panel_q8_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy) {
    size_t blocks = (size_t)(cols / BLOCK_INPUTS);
    for (size_t c = 0; c < (size_t)n; c++)
        column_q8_0(panel, cols, xq + c * (size_t)cols, xs + c * blocks, xsum + c * blocks, y + c * (size_t)ldy);
}

static void column_q4_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum,
                        float *y) {
    for (int r = 0; r < PANEL_ROWS; r++)
        y[r] = 0;
    for (int b = 0; b < cols / BLOCK_INPUTS; b++, panel += Q4_0_BLOCK, xq += BLOCK_INPUTS) {
        int32_t dot[PANEL_ROWS];
        for (int r = 0; r < PANEL_ROWS; r++) {
            const uint8_t *w = panel + SCALE_BYTES + 4 * r;
            dot[r] = -Q4_0_OFFSET * xsum[b];
            for (int j = 0; j < Q4_0_LINES; j++)
                for (int t = 0; t < 4; t++) {
                    uint8_t two = w[j * LINE_BYTES + t];
                    dot[r] += (two & 15) * xq[8 * j + t] + (two >> 4) * xq[8 * j + 4 + t];
                }
        }
        add_scaled(y, dot, panel, xs[b]);
    }
}

static void panel_q4_0(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy) {
    size_t blocks = (size_t)(cols / BLOCK_INPUTS);
    for (size_t c = 0; c < (size_t)n; c++)
        column_q4_0(panel, cols, xq + c * (size_t)cols, xs + c * blocks, xsum + c * blocks, y + c * (size_t)ldy);
}

/* Rounds to nearest even. Groups too small for 127 / peak to be finite count as zero; what is not a number becomes 0. */
static void quantize_q8(const float *x, int8_t *q, float *scales, int32_t *sums, int n) {
    for (int b = 0; b < n / BLOCK_INPUTS; b++, x += BLOCK_INPUTS, q += BLOCK_INPUTS) {
        float peak = 0;
        for (int i = 0; i < BLOCK_INPUTS; i++)
            peak = fabsf(x[i]) > peak ? fabsf(x[i]) : peak;
        float inverse = peak > Q8_TINY ? 127.0f / peak : 0.0f;
        scales[b] = peak > Q8_TINY ? peak / 127.0f : 0.0f;
        sums[b] = 0;
        for (int i = 0; i < BLOCK_INPUTS; i++) {
            float scaled = x[i] * inverse;
            q[i] = scaled >= -127.5f && scaled <= 127.5f ? (int8_t)rintf(scaled) : 0;
            sums[b] += q[i];
        }
    }
}

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

static void silu_mul(float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
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

static float kv_value(kv_type type, const void *base, int64_t i) {
    return type == KV_F16 ? f16_to_f32(((const uint16_t *)base)[i]) : ((const float *)base)[i];
}

static void attend(kv_type type, const float *q, int heads, int dim, const void *k, const void *v, int64_t stride,
                   int length, float scale, float *scores, float *out) {
    for (int h = 0; h < heads; h++, q += dim, out += dim, scores += length) {
        for (int t = 0; t < length; t++) {
            float dot = 0;
            for (int d = 0; d < dim; d++)
                dot += q[d] * kv_value(type, k, t * stride + d);
            scores[t] = dot * scale;
        }
        softmax(scores, length);
        memset(out, 0, (size_t)dim * sizeof *out);
        for (int t = 0; t < length; t++)
            for (int d = 0; d < dim; d++)
                out[d] += scores[t] * kv_value(type, v, t * stride + d);
    }
}

static void to_f16(const float *x, uint16_t *out, int n) {
    for (int i = 0; i < n; i++)
        out[i] = f32_to_f16(x[i]);
}

const kernels kernels_scalar = {
    .name = "scalar",
    .panel_f32 = panel_f32,
    .panel_f16 = panel_f16,
    .panel_bf16 = panel_bf16,
    .panel_q8_0 = panel_q8_0,
    .panel_q4_0 = panel_q4_0,
    .quantize_q8 = quantize_q8,
    .rms_norm = rms_norm,
    .add = add,
    .silu_mul = silu_mul,
    .softmax = softmax,
    .argmax = argmax,
    .attend = attend,
    .to_f16 = to_f16,
};
