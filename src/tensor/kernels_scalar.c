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

/* ---- int8: one stretch of one column; q, scales ... begin at the stretch ---- */

typedef struct stretch {
    const uint8_t *panel;
    int            blocks; /* of 32 inputs */
    const int8_t  *q;
    float          scale;
    const float   *shares;
    const int16_t *sums;
    const int32_t *minus8, *minus128, *minus32;
} stretch;

/* y += dot * weight_scale * share; fmaf even where it is a call: once a block, and the result has the bits of the vector
 * kernels. */
static float add_scaled(float y, int32_t dot, float weight_scale, float share) {
    return fmaf((float)dot, weight_scale * share, y);
}

static int32_t dot_nibbles(const uint8_t *lines, int r, const int8_t *q) {
    int32_t dot = 0;
    for (int j = 0; j < Q4_0_LINES; j++)
        for (int t = 0; t < 4; t++) {
            uint8_t two = lines[j * LINE_BYTES + 4 * r + t];
            dot += (two & 15) * q[8 * j + t] + (two >> 4) * q[8 * j + 4 + t];
        }
    return dot;
}

static float row_q4_0(const stretch *s, int r) {
    float y = 0;
    for (int b = 0; b < s->blocks; b++) {
        const uint8_t *lines = s->panel + s->blocks * SCALE_BYTES + b * Q4_0_LINES * LINE_BYTES;
        int32_t        dot = s->minus8[b] + dot_nibbles(lines, r, s->q + b * BLOCK_INPUTS);
        y = add_scaled(y, dot, load_f16(s->panel + b * SCALE_BYTES + 2 * r), s->shares[b]);
    }
    return y;
}

static float row_q8_0(const stretch *s, int r) {
    float y = 0;
    for (int b = 0; b < s->blocks; b++) {
        const uint8_t *lines = s->panel + s->blocks * SCALE_BYTES + b * Q8_0_LINES * LINE_BYTES + 4 * r;
        const int8_t  *q = s->q + b * BLOCK_INPUTS;
        int32_t        dot = s->minus128[b];
        for (int i = 0; i < BLOCK_INPUTS; i++)
            dot += lines[i / 4 * LINE_BYTES + i % 4] * q[i];
        y = add_scaled(y, dot, load_f16(s->panel + b * SCALE_BYTES + 2 * r), s->shares[b]);
    }
    return y;
}

static float row_q4_k(const stretch *s, int r) {
    float   d = load_f16(s->panel + 2 * r), d_min = load_f16(s->panel + SCALE_BYTES + 2 * r), y = 0;
    int32_t minimums = 0;
    for (int b = 0; b < s->blocks; b++) {
        int32_t dot = dot_nibbles(s->panel + Q4_K_HEAD + b * Q4_0_LINES * LINE_BYTES, r, s->q + b * BLOCK_INPUTS);
        y = add_scaled(y, dot, d * (float)s->panel[2 * SCALE_BYTES + 16 * b + r], s->shares[b]);
        minimums += s->panel[Q4_K_MINS + b / 2 * 32 + 2 * r + b % 2] * s->sums[b];
    }
    return fmaf(-d_min / Q8_SHARES, (float)minimums, y);
}

static float row_q6_k(const stretch *s, int r) {
    float d = load_f16(s->panel + 2 * r), y = 0;
    for (int g = 0; g < 2 * s->blocks; g++) {
        const uint8_t *lines = s->panel + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES + 4 * r;
        const int8_t  *q = s->q + g * Q6_K_INPUTS;
        int32_t        dot = s->minus32[g];
        for (int i = 0; i < Q6_K_INPUTS; i++) {
            int low = lines[i / 8 * LINE_BYTES + i % 4] >> (i & 4) & 15;
            int high = lines[2 * LINE_BYTES + i % 4] >> (i / 4 * 2) & 3;
            dot += (low | high << 4) * q[i];
        }
        y = add_scaled(y, dot, d * (float)(int8_t)s->panel[2 * SCALE_BYTES + 16 * g + r], s->shares[g / 2]);
    }
    return y;
}

static inline void int8_panel(const uint8_t *panel, const columns *x, float *y, int ldy,
                              float (*row)(const stretch *, int), int head, int block) {
    for (int c = 0; c < x->n; c++, y += ldy) {
        const uint8_t *at = panel;
        columns        one = columns_from(x, c, 1);
        for (int r = 0; r < PANEL_ROWS; r++)
            y[r] = 0;
        for (int k = 0; k < x->cols; k += STRETCH_INPUTS) {
            int     left = (x->cols - k) / BLOCK_INPUTS, b = k / BLOCK_INPUTS;
            stretch s = {at,
                         left < 8 ? left : 8,
                         one.q + k,
                         one.scales[k / STRETCH_INPUTS],
                         one.shares + b,
                         one.sums + b,
                         one.minus8 + b,
                         one.minus128 + b,
                         one.minus32 + 2 * b};
            for (int r = 0; r < PANEL_ROWS; r++)
                y[r] = fmaf(row(&s, r), s.scale, y[r]);
            at += head + s.blocks * block;
        }
    }
}

static void panel_q4_0(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(panel, x, y, ldy, row_q4_0, 0, Q4_0_BLOCK);
}

static void panel_q8_0(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(panel, x, y, ldy, row_q8_0, 0, Q8_0_BLOCK);
}

static void panel_q4_k(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(panel, x, y, ldy, row_q4_k, Q4_K_HEAD, Q4_0_LINES * LINE_BYTES);
}

static void panel_q6_k(const uint8_t *panel, const columns *x, float *y, int ldy) {
    int8_panel(panel, x, y, ldy, row_q6_k, Q6_K_HEAD, 2 * Q6_K_LINES * LINE_BYTES);
}

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

const kernels kernels_scalar = {
    .name = "scalar",
    .panel = {[BLOCK_F32] = panel_f32,
              [BLOCK_F16] = panel_f16,
              [BLOCK_BF16] = panel_bf16,
              [BLOCK_Q4_0] = panel_q4_0,
              [BLOCK_Q8_0] = panel_q8_0,
              [BLOCK_Q4_K] = panel_q4_k,
              [BLOCK_Q6_K] = panel_q6_k},
    .quantize_q8 = quantize_q8,
    .rms_norm = rms_norm,
    .add = add,
    .silu_mul = silu_mul,
    .softmax = softmax,
    .argmax = argmax,
    .attend = attend_scalar,
};
