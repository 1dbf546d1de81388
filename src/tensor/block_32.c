/* block_32.c - the formats whose blocks have 32 values and one scale.
 *
 *   Q4_0    f16 scale, 16 bytes of nibbles: byte i holds value i in its low and value 16 + i in its high nibble
 *   Q4_1    f16 scale, f16 least value, nibbles as above
 *   Q5_0    f16 scale, 4 bytes with the fifth bit of value i at bit i, nibbles
 *   Q5_1    f16 scale, f16 least value, fifth bits, nibbles
 *   Q8_0    f16 scale, 32 int8                                                                                       */
#include <math.h>

#include "tensor/block_codecs.h"

/* ---- nibbles and fifth bits ---- */

static int q4_at(const uint8_t *nibbles, int i) {
    return nibbles[i % 16] >> i / 16 * 4 & 15;
}

static int q5_at(const uint8_t *fifth, const uint8_t *nibbles, int i) {
    return q4_at(nibbles, i) | (fifth[i / 8] >> i % 8 & 1) << 4;
}

static void put_q4(const uint8_t *q, uint8_t *nibbles) {
    for (int i = 0; i < 16; i++)
        nibbles[i] = (uint8_t)((q[i] & 15) | (q[16 + i] & 15) << 4);
}

static void put_q5(const uint8_t *q, uint8_t *fifth, uint8_t *nibbles) {
    put_q4(q, nibbles);
    memset(fifth, 0, 4);
    for (int i = 0; i < BLOCK_VALUES; i++)
        fifth[i / 8] |= (uint8_t)(q[i] >> 4 << i % 8);
}

/* Rounding is the reference's to the last bit, as far as halves hold the scale and the least value; beyond they
 * saturate. NaN counts as 0, what is infinite as REACH. */
#define REACH 1e8f
#define MOST  65504.0f /* the largest half */

static float within(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

static void take_values(const float *in, float *x) {
    for (int i = 0; i < BLOCK_VALUES; i++)
        x[i] = isnan(in[i]) ? 0 : within(in[i], -REACH, REACH);
}

/* floor(value inverse + shift) within 0..top. Of a subnormal scale the inverse may be infinite, and NaN gives 0. */
static uint8_t round_to(float value, float inverse, float shift, int top) {
    float scaled = value * inverse;
    float moved = scaled + shift;
    return (uint8_t)within(moved, 0, (float)top);
}

/* ---- symmetric: Q4_0, Q5_0 ---- */

static float peak_of(const float *x) {
    float peak = 0;
    for (int i = 0; i < BLOCK_VALUES; i++)
        if (fabsf(x[i]) > fabsf(peak))
            peak = x[i];
    return peak;
}

/* The value of largest magnitude becomes -half, the end of the range that has one step more. */
static uint16_t round_symmetric(const float *in, int half, uint8_t *q) {
    float x[BLOCK_VALUES];
    take_values(in, x);
    float scale = within(peak_of(x) / (float)-half, -MOST, MOST);
    float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    for (int i = 0; i < BLOCK_VALUES; i++)
        q[i] = round_to(x[i], inverse, (float)half + 0.5f, 2 * half - 1);
    return f32_to_f16(scale);
}

void q4_0_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += Q4_0_BYTES, out += BLOCK_VALUES) {
        float scale = f16_to_f32(load_u16(in));
        for (int i = 0; i < 16; i++) {
            out[i] = (float)((in[2 + i] & 15) - 8) * scale;
            out[16 + i] = (float)((in[2 + i] >> 4) - 8) * scale;
        }
    }
}

void q4_0_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += BLOCK_VALUES, out += Q4_0_BYTES) {
        uint8_t q[BLOCK_VALUES];
        store_u16(out, round_symmetric(in, 8, q));
        put_q4(q, out + 2);
    }
}

void q5_0_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += Q5_0_BYTES, out += BLOCK_VALUES) {
        float scale = f16_to_f32(load_u16(in));
        for (int i = 0; i < BLOCK_VALUES; i++)
            out[i] = (float)(q5_at(in + 2, in + 6, i) - 16) * scale;
    }
}

void q5_0_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += BLOCK_VALUES, out += Q5_0_BYTES) {
        uint8_t q[BLOCK_VALUES];
        store_u16(out, round_symmetric(in, 16, q));
        put_q5(q, out + 2, out + 6);
    }
}

/* ---- from the least value up: Q4_1, Q5_1 ---- */

static void round_range(const float *in, int top, uint8_t *head, uint8_t *q) {
    float x[BLOCK_VALUES];
    take_values(in, x);
    float low = x[0], high = x[0];
    for (int i = 1; i < BLOCK_VALUES; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    low = within(low, -MOST, MOST);
    float scale = within((high - low) / (float)top, 0, MOST);
    float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    for (int i = 0; i < BLOCK_VALUES; i++)
        q[i] = round_to(x[i] - low, inverse, 0.5f, top);
    store_u16(head, f32_to_f16(scale));
    store_u16(head + 2, f32_to_f16(low));
}

void q4_1_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += Q4_1_BYTES, out += BLOCK_VALUES) {
        float scale = f16_to_f32(load_u16(in)), low = f16_to_f32(load_u16(in + 2));
        for (int i = 0; i < BLOCK_VALUES; i++) {
            float v = (float)q4_at(in + 4, i) * scale;
            out[i] = v + low;
        }
    }
}

void q4_1_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += BLOCK_VALUES, out += Q4_1_BYTES) {
        uint8_t q[BLOCK_VALUES];
        round_range(in, 15, out, q);
        put_q4(q, out + 4);
    }
}

void q5_1_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += Q5_1_BYTES, out += BLOCK_VALUES) {
        float scale = f16_to_f32(load_u16(in)), low = f16_to_f32(load_u16(in + 2));
        for (int i = 0; i < BLOCK_VALUES; i++) {
            float v = (float)q5_at(in + 4, in + 8, i) * scale;
            out[i] = v + low;
        }
    }
}

void q5_1_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += BLOCK_VALUES, out += Q5_1_BYTES) {
        uint8_t q[BLOCK_VALUES];
        round_range(in, 31, out, q);
        put_q5(q, out + 4, out + 8);
    }
}

/* ---- Q8_0 ---- */

void q8_0_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += Q8_0_BYTES, out += BLOCK_VALUES) {
        float scale = f16_to_f32(load_u16(in));
        for (int i = 0; i < BLOCK_VALUES; i++)
            out[i] = (float)(int8_t)in[2 + i] * scale;
    }
}

void q8_0_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += BLOCK_VALUES, out += Q8_0_BYTES) {
        float x[BLOCK_VALUES];
        take_values(in, x);
        float scale = within(fabsf(peak_of(x)) / 127.0f, 0, MOST);
        float inverse = scale != 0 ? 1.0f / scale : 0.0f;
        store_u16(out, f32_to_f16(scale));
        for (int i = 0; i < BLOCK_VALUES; i++)
            out[2 + i] = (uint8_t)(int)within(roundf(x[i] * inverse), -127.0f, 127.0f);
    }
}
