/* block_k.c - Q4_K, Q5_K and Q6_K: superblocks of 256 values whose parts have small integer scales of their own.
 *
 *   Q4_K  f16 d, f16 dmin, 12 bytes with 8 six-bit scales and 8 six-bit mins, 128 bytes of nibbles
 *   Q5_K  the same with 32 bytes of fifth bits before the nibbles
 *   Q6_K  128 bytes of low nibbles, 64 bytes of high bit pairs, 16 int8 scales, f16 d
 *
 * Q4_K and Q5_K: value = d scale q - dmin min for parts of 32, q of 4 or 5 bits. Q6_K: value = d scale (q - 32) for
 * parts of 16.
 *
 * Rounding looks for a small sum of squared errors, all values alike: (1) a least-squares fit of each part for several
 * step widths, (2) d and dmin from the largest fit, and for each part the best integers near its own fit, (3) d and dmin
 * once more by least squares over the superblock, as long as that helps. */
#include <math.h>

#include "tensor/block_codecs.h"

enum { PARTS = 8, PART = SUPER_VALUES / PARTS, PARTS6 = 16, PART6 = SUPER_VALUES / PARTS6, ROUNDS = 3, TURNS = 4 };

#define LEVELS      63     /* of a six-bit scale or min */
#define SCALE_BYTES 12     /* the packed scales and mins */
#define REACH       1e8f   /* more than a superblock holds; squares of 256 such values stay finite */
#define FLAT        1e-20f /* spans that no half can express a step of */

/* ---- what is common ---- */

/* NaN counts as 0, what is out of reach saturates: the searches below meet finite numbers only. */
static void take_values(const float *in, float *x) {
    for (int i = 0; i < SUPER_VALUES; i++) {
        float v = isnan(in[i]) ? 0 : in[i];
        v = v < REACH ? v : REACH;
        x[i] = v > -REACH ? v : -REACH;
    }
}

/* The half nearest to largest / levels with which `largest` needs no more than `levels` steps (subnormal halves are
 * coarse). `largest` is not negative. */
static uint16_t half_step(float largest, int levels) {
    uint16_t h = f32_to_f16(largest / (float)levels);
    if (f16_to_f32(h) * ((float)levels + 0.5f) < largest)
        h++;
    return h < HALF_LARGEST ? h : HALF_LARGEST;
}

static int level_of(float value, float step, int low, int high) {
    float v = step != 0 ? roundf(value / step) : 0;
    return v < (float)low ? low : v > (float)high ? high : (int)v;
}

/* ---- Q4_K, Q5_K: scales and mins ---- */

typedef struct ranges {
    uint16_t d, dmin; /* halves */
    uint8_t  scale[PARTS], min[PARTS];
    uint8_t  q[SUPER_VALUES];
    float    error;
} ranges;

/* q = the integers in 0..top nearest to (x + min) / scale; returns the squared error of scale q - min. */
static float round_part(const float *x, float scale, float min, int top, uint8_t *q) {
    float inverse = scale > 0 ? 1 / scale : 0, error = 0;
    for (int i = 0; i < PART; i++) {
        float v = (x[i] + min) * inverse + 0.5f;
        v = v > 0 ? v : 0;
        q[i] = (uint8_t)(v < (float)top ? v : (float)top);
        float off = scale * (float)q[i] - min - x[i];
        error += off * off;
    }
    return error;
}

/* Least squares for x = scale q - min with q given; min stays at 0 or above, as the format has it. */
static void solve_part(const float *x, const uint8_t *q, float *scale, float *min) {
    float sq = 0, sqq = 0, sx = 0, sxq = 0;
    for (int i = 0; i < PART; i++) {
        float k = (float)q[i];
        sq += k;
        sqq += k * k;
        sx += x[i];
        sxq += x[i] * k;
    }
    float det = PART * sqq - sq * sq;
    if (det > 0) {
        *scale = (PART * sxq - sx * sq) / det;
        *min = (sq * sxq - sqq * sx) / det;
    }
    if ((det <= 0 || *min < 0) && sqq > 0) {
        *scale = sxq / sqq;
        *min = 0;
    }
}

/* Steps a little wider and narrower than the span asks for, as clipping an end may pay for all between, each bettered
 * by rounding and solving in turn (Lloyd's iteration): one outlier draws the min far from where the first step has it. */
static void fit_part(const float *x, int top, float *scale, float *min) {
    float low = 0, high = x[0], best = INFINITY;
    for (int i = 0; i < PART; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *scale = 0;
    *min = -low;
    if (high - low < FLAT)
        return;
    for (int c = -2; c <= 6; c++) {
        uint8_t q[PART];
        float   s = (high - low) / ((float)top - 0.25f * (float)c), m = -low;
        round_part(x, s, m, top, q);
        for (int i = 0; i < TURNS; i++) {
            solve_part(x, q, &s, &m);
            float error = round_part(x, s, m, top, q);
            if (error < best) {
                best = error;
                *scale = s;
                *min = m;
            }
        }
    }
}

static int near_level(int level, int step) {
    level += step;
    return level < 0 ? 0 : level > LEVELS ? LEVELS : level;
}

/* With d and dmin given: for each part the best of the nine pairs of integers around its fit. */
static void settle_ranges(const float *x, const float *scales, const float *mins, int top, ranges *r) {
    float d = f16_to_f32(r->d), dmin = f16_to_f32(r->dmin);
    r->error = 0;
    for (int p = 0; p < PARTS; p++) {
        int   scale = level_of(scales[p], d, 0, LEVELS), min = level_of(mins[p], dmin, 0, LEVELS);
        float best = INFINITY;
        for (int c = 0; c < 9; c++) {
            uint8_t q[PART];
            int     s = near_level(scale, c % 3 - 1), m = near_level(min, c / 3 - 1);
            float   error = round_part(x + p * PART, d * (float)s, dmin * (float)m, top, q);
            if (error < best) {
                best = error;
                r->scale[p] = (uint8_t)s;
                r->min[p] = (uint8_t)m;
                memcpy(r->q + p * PART, q, sizeof q);
            }
        }
        r->error += best;
    }
}

/* Least squares for d and dmin with all integers given. False when there is nothing to gain. */
static bool refit_ranges(const float *x, ranges *r) {
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0; /* x = d a - dmin b */
    for (int i = 0; i < SUPER_VALUES; i++) {
        int    p = i / PART;
        double a = (double)r->scale[p] * (double)r->q[i], b = (double)r->min[p];
        aa += a * a;
        ab += a * b;
        bb += b * b;
        xa += (double)x[i] * a;
        xb += (double)x[i] * b;
    }
    double   det = aa * bb - ab * ab;
    double   d = det > 0 ? (xa * bb - xb * ab) / det : aa > 0 ? xa / aa : 0;
    double   dmin = det > 0 ? (xa * ab - xb * aa) / det : 0;
    uint16_t hd = f32_to_f16((float)d), hm = f32_to_f16((float)dmin);
    if (d < 0 || dmin < 0 || hd > HALF_LARGEST || hm > HALF_LARGEST || (hd == r->d && hm == r->dmin))
        return false;
    r->d = hd;
    r->dmin = hm;
    return true;
}

static void quantize_ranges(const float *in, int top, ranges *best) {
    float x[SUPER_VALUES], scales[PARTS], mins[PARTS], scale = 0, min = 0;
    take_values(in, x);
    for (int p = 0; p < PARTS; p++) {
        fit_part(x + p * PART, top, &scales[p], &mins[p]);
        scale = scales[p] > scale ? scales[p] : scale;
        min = mins[p] > min ? mins[p] : min;
    }
    best->d = half_step(scale, LEVELS);
    best->dmin = half_step(min, LEVELS);
    settle_ranges(x, scales, mins, top, best);
    ranges next = *best;
    for (int i = 1; i < ROUNDS && refit_ranges(x, &next); i++) {
        settle_ranges(x, scales, mins, top, &next);
        if (next.error >= best->error)
            break;
        *best = next;
    }
}

/* Parts 0 to 3: six bits in a byte of their own. Parts 4 to 7: low four bits in the last four bytes (scale low, min
 * high), the upper two above the six of part p - 4. */
static void unpack_levels(const uint8_t *in, int p, int *scale, int *min) {
    if (p < 4) {
        *scale = in[p] & 63;
        *min = in[p + 4] & 63;
    } else {
        *scale = (in[p + 4] & 15) | in[p - 4] >> 6 << 4;
        *min = in[p + 4] >> 4 | in[p] >> 6 << 4;
    }
}

static void pack_levels(const ranges *r, uint8_t *out) {
    for (int p = 0; p < 4; p++) {
        out[p] = (uint8_t)(r->scale[p] | r->scale[p + 4] >> 4 << 6);
        out[p + 4] = (uint8_t)(r->min[p] | r->min[p + 4] >> 4 << 6);
        out[p + 8] = (uint8_t)((r->scale[p + 4] & 15) | (r->min[p + 4] & 15) << 4);
    }
}

/* `fifth`: 32 bytes, bit p of byte i belongs to value i of part p; NULL without. */
static void ranges_out(const uint8_t *head, const uint8_t *fifth, const uint8_t *nibbles, float *out) {
    float d = f16_to_f32(load_u16(head)), dmin = f16_to_f32(load_u16(head + 2));
    for (int p = 0; p < PARTS; p++) {
        const uint8_t *q = nibbles + p / 2 * PART; /* two parts share 32 bytes: the even one has the low nibbles */
        int            scale, min;
        unpack_levels(head + 4, p, &scale, &min);
        float step = d * (float)scale, offset = dmin * (float)min;
        for (int i = 0; i < PART; i++) {
            int   k = (q[i] >> p % 2 * 4 & 15) | (fifth ? (fifth[i] >> p & 1) << 4 : 0);
            float v = step * (float)k;
            out[p * PART + i] = v - offset;
        }
    }
}

static void ranges_in(const float *in, uint8_t *head, int largest) {
    const bool fifth = largest > 15; /* bits, before the nibbles */
    uint8_t   *after = head + 4 + SCALE_BYTES, *nibbles = after + (fifth ? PART : 0);
    ranges     r;
    quantize_ranges(in, largest, &r);
    store_u16(head, r.d);
    store_u16(head + 2, r.dmin);
    pack_levels(&r, head + 4);
    for (int p = 0; p < PARTS; p += 2)
        for (int i = 0; i < PART; i++)
            nibbles[p / 2 * PART + i] = (uint8_t)((r.q[p * PART + i] & 15) | (r.q[(p + 1) * PART + i] & 15) << 4);
    for (int i = 0; fifth && i < PART; i++) {
        int bits = 0;
        for (int p = 0; p < PARTS; p++)
            bits |= r.q[p * PART + i] >> 4 << p;
        after[i] = (uint8_t)bits;
    }
}

void q4_k_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += Q4_K_BYTES)
        ranges_out(in, NULL, in + 4 + SCALE_BYTES, out + k);
}

void q4_k_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += Q4_K_BYTES)
        ranges_in(in + k, out, 15);
}

void q5_k_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += Q5_K_BYTES)
        ranges_out(in, in + 4 + SCALE_BYTES, in + 4 + SCALE_BYTES + PART, out + k);
}

void q5_k_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += Q5_K_BYTES)
        ranges_in(in + k, out, 31);
}

/* ---- Q6_K: signed scales ---- */

typedef struct signs {
    uint16_t d;
    int8_t   scale[PARTS6];
    int8_t   q[SUPER_VALUES]; /* -32..31 */
    float    error;
} signs;

static float round_part6(const float *x, float scale, int8_t *q) {
    float inverse = scale != 0 ? 1 / scale : 0, error = 0;
    for (int i = 0; i < PART6; i++) {
        float v = x[i] * inverse + 32.5f;
        v = v > 0 ? v : 0;
        q[i] = (int8_t)((int)(v < 63 ? v : 63) - 32);
        float off = scale * (float)q[i] - x[i];
        error += off * off;
    }
    return error;
}

/* The value of largest magnitude goes to -32, the end that reaches further, or a little beside it. */
static float fit_part6(const float *x) {
    float peak = 0, scale = 0, best = INFINITY;
    for (int i = 0; i < PART6; i++)
        if (fabsf(x[i]) > fabsf(peak))
            peak = x[i];
    if (fabsf(peak) < FLAT)
        return 0;
    for (int c = 0; c < 17; c++) { /* at -32 first: a constant part is exact there */
        int8_t q[PART6];
        float  beside = 0.125f * (float)(c % 2 ? (c + 1) / 2 : -c / 2), s = peak / (-32 - beside), sqq = 0, sxq = 0;
        round_part6(x, s, q);
        for (int i = 0; i < PART6; i++) {
            sqq += (float)(q[i] * q[i]);
            sxq += x[i] * (float)q[i];
        }
        s = sqq > 0 ? sxq / sqq : s;
        float error = round_part6(x, s, q);
        if (error < best) {
            best = error;
            scale = s;
        }
    }
    return scale;
}

static void settle_signs(const float *x, const float *scales, signs *r) {
    float d = f16_to_f32(r->d);
    r->error = 0;
    for (int p = 0; p < PARTS6; p++) {
        int   level = level_of(scales[p], d, -128, 127);
        float best = INFINITY;
        for (int s = level - 1; s <= level + 1; s++) {
            int8_t q[PART6];
            if (s < -128 || s > 127)
                continue;
            float error = round_part6(x + p * PART6, d * (float)s, q);
            if (error < best) {
                best = error;
                r->scale[p] = (int8_t)s;
                memcpy(r->q + p * PART6, q, sizeof q);
            }
        }
        r->error += best;
    }
}

static bool refit_signs(const float *x, signs *r) {
    double aa = 0, xa = 0;
    for (int i = 0; i < SUPER_VALUES; i++) {
        int    p = i / PART6;
        double a = (double)(r->scale[p] * r->q[i]);
        aa += a * a;
        xa += (double)x[i] * a;
    }
    uint16_t d = f32_to_f16(aa > 0 ? (float)(xa / aa) : 0);
    if ((d & 0x7fff) > HALF_LARGEST || d == r->d)
        return false;
    r->d = d;
    return true;
}

/* d has the sign that sends the largest scale to -128. */
static void quantize_signs(const float *in, signs *best) {
    float x[SUPER_VALUES], scales[PARTS6], peak = 0;
    take_values(in, x);
    for (int p = 0; p < PARTS6; p++) {
        scales[p] = fit_part6(x + p * PART6);
        if (fabsf(scales[p]) > fabsf(peak))
            peak = scales[p];
    }
    best->d = (uint16_t)(half_step(fabsf(peak), 128) | (peak > 0 ? 0x8000 : 0));
    settle_signs(x, scales, best);
    signs next = *best;
    for (int i = 1; i < ROUNDS && refit_signs(x, &next); i++) {
        settle_signs(x, scales, &next);
        if (next.error >= best->error)
            break;
        *best = next;
    }
}

/* A half of 128 values has 64 bytes of nibbles and 32 of bit pairs. Of its four runs of 32 values, run r has its
 * nibbles in byte 32 (r % 2) + i, low for runs 0 and 1, and its bit pair in byte i at 2 r. */
void q6_k_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += Q6_K_BYTES) {
        float d = f16_to_f32(load_u16(in + 208));
        for (int p = 0; p < PARTS6; p++, out += PART6) {
            int            half = p / 8, run = p / 2 % 4, from = p % 2 * PART6;
            const uint8_t *nibbles = in + half * 64 + run % 2 * 32 + from, *pairs = in + 128 + half * 32 + from;
            float          step = d * (float)(int8_t)in[192 + p];
            for (int i = 0; i < PART6; i++) {
                int q = (nibbles[i] >> run / 2 * 4 & 15) | (pairs[i] >> run * 2 & 3) << 4;
                out[i] = step * (float)(q - 32);
            }
        }
    }
}

void q6_k_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += Q6_K_BYTES) {
        signs r;
        quantize_signs(in + k, &r);
        memset(out, 0, Q6_K_BYTES);
        for (int i = 0; i < SUPER_VALUES; i++) {
            int half = i / 128, run = i / 32 % 4, q = r.q[i] + 32;
            out[half * 64 + run % 2 * 32 + i % 32] |= (uint8_t)((q & 15) << run / 2 * 4);
            out[128 + half * 32 + i % 32] |= (uint8_t)(q >> 4 << run * 2);
        }
        memcpy(out + 192, r.scale, PARTS6);
        store_u16(out + 208, r.d);
    }
}
