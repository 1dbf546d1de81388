/* block_levels.c - the formats whose nibbles number 16 unevenly spaced levels.
 *
 *   IQ4_NL  32 values: f16 scale, nibbles as in Q4_0
 *   IQ4_XS  256 values: f16 d, 16 bits with the upper two bits of the 8 scales (part p at bit 2 p), 4 bytes with their
 *           lower four (even parts low), 8 times the nibbles of 32 values. value = d (scale - 32) level
 *   MXFP4   32 values: exponent byte e, nibbles. value = 2^(e - 127) times a float of sign, two bits of exponent and one
 *           of fraction: "OCP Microscaling Formats (MX) Specification", 2023                                         */
#include <float.h>

#include "tensor/block_signed.h"

/* Twice the values, which makes them integers. */
static const int8_t mxfp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

enum { PARTS = SUPER_VALUES / BLOCK_VALUES, NIBBLES = BLOCK_VALUES / 2 };

static void levels_out(float scale, const int8_t *levels, const uint8_t *nibbles, float *out) {
    for (int i = 0; i < NIBBLES; i++) {
        out[i] = scale * (float)levels[nibbles[i] & 15];
        out[NIBBLES + i] = scale * (float)levels[nibbles[i] >> 4];
    }
}

void iq4_nl_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += IQ4_NL_BYTES)
        levels_out(f16_to_f32(load_u16(in)), uneven_levels, in + 2, out + k);
}

void iq4_xs_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += IQ4_XS_BYTES) {
        float    d = f16_to_f32(load_u16(in));
        uint32_t upper = load_u16(in + 2);
        for (int p = 0; p < PARTS; p++) {
            int scale = (in[4 + p / 2] >> p % 2 * 4 & 15) | (int)(upper >> 2 * p & 3) << 4;
            levels_out(d * (float)(scale - 32), uneven_levels, in + 8 + p * NIBBLES, out + k + p * BLOCK_VALUES);
        }
    }
}

/* 2^(e - 128), a half of what the exponent says, as the levels are doubled. It is a subnormal float for 0 and 1. */
static float mxfp4_step(uint8_t e) {
    uint32_t u = e < 2 ? 0x200000u << e : (uint32_t)(e - 1) << 23;
    float    f;
    memcpy(&f, &u, sizeof f);
    return f;
}

void mxfp4_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, in += MXFP4_BYTES)
        levels_out(mxfp4_step(in[0]), mxfp4_levels, in + 1, out + k);
}

/* The number of a level, by halves. */
static int number_of(int8_t level) {
    int n = level >= uneven_levels[8] ? 8 : 0;
    n += level >= uneven_levels[n + 4] ? 4 : 0;
    n += level >= uneven_levels[n + 2] ? 2 : 0;
    return n + (level >= uneven_levels[n + 1]);
}

static void put_levels(const int8_t *q, uint8_t *nibbles) {
    for (int i = 0; i < NIBBLES; i++)
        nibbles[i] = (uint8_t)(number_of(q[i]) | number_of(q[NIBBLES + i]) << 4);
}

static const signed_grid iq4 = {.part = BLOCK_VALUES,
                                .uneven = true,
                                .low = -127,
                                .high = 113,
                                .scale_low = -32,
                                .all_scales = true,
                                .nearer = -28,
                                .further = 28};

void iq4_nl_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, out += IQ4_NL_BYTES) {
        int8_t q[BLOCK_VALUES];
        store_u16(out, signed_search_part(in + k, &iq4, q));
        put_levels(q, out + 2);
    }
}

void iq4_xs_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += IQ4_XS_BYTES) {
        signed_block s;
        signed_search(in + k, &iq4, &s);
        memset(out, 0, 8);
        store_u16(out, s.d);
        for (int p = 0; p < PARTS; p++) {
            int scale = s.scale[p] + 32;
            out[2 + p / 4] |= (uint8_t)(scale >> 4 << p % 4 * 2);
            out[4 + p / 2] |= (uint8_t)((scale & 15) << p % 2 * 4);
            put_levels(s.q + p * BLOCK_VALUES, out + 8 + p * NIBBLES);
        }
    }
}

/* ---- MXFP4 ---- */

#define MXFP4_MOST 252 /* the largest exponent with which 6 is a finite float */

/* Of magnitudes: steps are 1 up to 4, then 2, then 4. */
static lanes nearest_mxfp4(lanes v) {
    lanes fine = nearest(v, 0, 4), middle = 2 * nearest(0.5f * v, 0, 4), coarse = 4 * nearest(0.25f * v, 0, 3);
    return pick(v < 4, fine, pick(v < 8, middle, coarse));
}

/* Magnitudes as parts of a power of two above them all, and its exponent. NaN counts as 0, infinity as FLT_MAX. */
static int take_magnitudes(const float *in, float *x) {
    float peak = 0;
    int   exponent;
    for (int i = 0; i < BLOCK_VALUES; i++) {
        x[i] = fabsf(in[i]) <= FLT_MAX ? fabsf(in[i]) : isnan(in[i]) ? 0 : FLT_MAX;
        peak = x[i] > peak ? x[i] : peak;
    }
    frexpf(peak, &exponent);
    for (int i = 0; i < BLOCK_VALUES; i++)
        x[i] = (float)ldexp((double)x[i], -exponent);
    return exponent;
}

static float round_mxfp4(const float *x, float step, uint8_t *q) {
    lanes error = {0};
    for (int i = 0; i < BLOCK_VALUES; i += LANES) {
        lanes v = {x[i], x[i + 1], x[i + 2], x[i + 3]}, level = nearest_mxfp4(v / step), off = step * level - v;
        error += off * off;
        for (int c = 0; c < LANES; c++)
            q[i + c] = (uint8_t)level[c];
    }
    return error[0] + error[1] + error[2] + error[3];
}

/* The peak is at least 1/2 here. Of steps of 2^-3 and more none clips it; below 2^-6 it alone errs by more than half. */
static void search_mxfp4(const float *in, uint8_t *out) {
    float x[BLOCK_VALUES], least = INFINITY;
    int   exponent = take_magnitudes(in, x);
    for (int power = -3; power >= -6; power--) {
        uint8_t q[BLOCK_VALUES];
        int     e = power + exponent + 128;
        e = e < 0 ? 0 : e > MXFP4_MOST ? MXFP4_MOST : e;
        float error = round_mxfp4(x, ldexpf(1, e - 128 - exponent), q);
        if (error >= least)
            continue;
        least = error;
        out[0] = (uint8_t)e;
        memset(out + 1, 0, NIBBLES);
        for (int i = 0; i < BLOCK_VALUES; i++) {
            int level = q[i], nibble = level <= 4 ? level : level == 6 ? 5 : level == 8 ? 6 : 7;
            out[1 + i % NIBBLES] |= (uint8_t)((nibble && in[i] < 0 ? nibble | 8 : nibble) << i / NIBBLES * 4);
        }
    }
}

void mxfp4_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += BLOCK_VALUES, out += MXFP4_BYTES)
        search_mxfp4(in + k, out);
}
