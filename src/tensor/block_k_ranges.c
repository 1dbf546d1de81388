/* block_k_ranges.c - Q2_K, Q4_K and Q5_K: superblocks of 256 values whose parts have a small scale and a small min each.
 *
 *   Q2_K  16 bytes, each the scale of a part low and its min high; 64 bytes of bit pairs; f16 d, f16 dmin
 *   Q4_K  f16 d, f16 dmin, 12 bytes with 8 six-bit scales and 8 six-bit mins, 128 bytes of nibbles
 *   Q5_K  the same with 32 bytes of fifth bits before the nibbles
 *
 * value = d scale q - dmin min, q of 2, 4 or 5 bits, for parts of 16 (Q2_K) or 32.
 *
 * Rounding looks for a small sum of squared errors, all values alike: (1) a least-squares fit of each part, out of
 * several step widths, (2) d and dmin near what the largest fits ask for, and for each part the best integers near its
 * own fit, (3) d and dmin once more by least squares over the superblock, as long as that helps.                    */
#include "tensor/block_search.h"

enum { PARTS = 16, PART2 = SUPER_VALUES / PARTS /* Q2_K's */, PART = 32, FITS = 3, TURNS = 4, STEPS = 8, ROUNDS = 4 };

#define SCALE_BYTES 12 /* the packed scales and mins of Q4_K and Q5_K */

typedef struct grid {
    int   part;  /* values */
    float top;   /* of q */
    float most;  /* of a scale, of a min */
    float apart; /* between the widths tried */
} grid;

typedef struct superblock {
    uint16_t d, dmin; /* halves */
    float    scale[PARTS], min[PARTS];
    uint8_t  q[SUPER_VALUES];
    float    error;
} superblock;

typedef struct sums {
    lanes q, qq, xq, error;
} sums;

/* x = scale q - min, q the nearest of 0..top: the squared error, and what least squares needs. */
static inline sums round_lanes(const float *x, const grid *g, lanes scale, lanes min) {
    lanes inverse = inverse_of(scale);
    sums  s = {0};
    for (int i = 0; i < g->part; i++) {
        lanes q = nearest((x[i] + min) * inverse, 0, g->top);
        lanes off = scale * q - min - x[i];
        s.q += q;
        s.qq += q * q;
        s.xq += x[i] * q;
        s.error += off * off;
    }
    return s;
}

/* Least squares with q given; min stays at 0 or above, as the format has it. */
static inline void solve(const grid *g, float sum_x, const sums *s, lanes *scale, lanes *min) {
    lanes det = (float)g->part * s->qq - s->q * s->q, free = inverse_of(greater(det, all(0)));
    lanes a = ((float)g->part * s->xq - sum_x * s->q) * free, b = (s->q * s->xq - s->qq * sum_x) * free;
    lanes through_zero = s->xq * inverse_of(s->qq);
    masks good = (b >= 0) & (det > 0);
    *scale = greater(pick(good, a, through_zero), all(0));
    *min = pick(good, b, all(0));
}

/* Steps a little wider and narrower than the span asks for, as clipping an end may pay for all between, each bettered
 * by rounding and solving in turn (Lloyd's iteration): one outlier draws the min far from where the first step has it. */
static void fit_part(const float *x, const grid *g, float *scale, float *min) {
    float low = 0, high = x[0], sum_x = 0, best = INFINITY, tie = 0;
    for (int i = 0; i < g->part; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sum_x += x[i];
        tie += x[i] * x[i] * 1e-6f; /* then the widest, so that parts that are alike agree */
    }
    *scale = 0;
    *min = -low;
    if (high - low < FLAT)
        return;
    for (int c = 0; c < FITS; c++) {
        lanes s = (high - low) / (g->top + 0.5f - g->apart * ((lanes){0, 1, 2, 3} + (float)(c * LANES)));
        lanes m = all(-low);
        for (int t = 0; t <= TURNS; t++) {
            sums now = round_lanes(x, g, s, m);
            for (int k = 0; k < LANES; k++)
                if (now.error[k] < best - tie) {
                    best = now.error[k];
                    *scale = s[k];
                    *min = m[k];
                }
            solve(g, sum_x, &now, &s, &m);
        }
    }
}

/* With d and dmin given: for each part the best of twelve pairs of integers around its fit. A scale beside it goes with
 * the min that leaves the middle where it was. */
static void settle(const float *x, const grid *g, const float *scales, const float *mins, superblock *s) {
    const float d = f16_to_f32(s->d), dmin = f16_to_f32(s->dmin), by_d = d > 0 ? 1 / d : 0;
    const float by_dmin = dmin > 0 ? 1 / dmin : 0;
    s->error = 0;
    for (int p = 0; p < SUPER_VALUES / g->part; p++, x += g->part) {
        float best = INFINITY, at = nearest(all(scales[p] * by_d), 0, g->most)[0];
        for (int c = -1; c <= 1; c++) {
            float k = nearest(all(at + (float)c), 0, g->most)[0], middle = (d * k - scales[p]) * 0.5f * g->top;
            lanes m = nearest(all((mins[p] + middle) * by_dmin) + (lanes){0, -1, 1, 2}, 0, g->most);
            lanes error = round_lanes(x, g, all(d * k), dmin * m).error;
            for (int l = 0; l < LANES; l++)
                if (error[l] < best) {
                    best = error[l];
                    s->scale[p] = k;
                    s->min[p] = m[l];
                }
        }
        s->error += best;
    }
}

/* The integers with d, dmin, scales and mins given, and through *d and *dmin what least squares fits to them. */
static void round_block(const float *x, const grid *g, superblock *s, float *to_d, float *to_dmin) {
    const float d = f16_to_f32(s->d), dmin = f16_to_f32(s->dmin);
    double      aa = 0, ab = 0, bb = 0, xa = 0, xb = 0; /* x = d a - dmin b */
    for (int p = 0; p < SUPER_VALUES / g->part; p++) {
        float inverse = inverse_of(all(d * s->scale[p]))[0], min = dmin * s->min[p];
        float sq = 0, sqq = 0, sx = 0, sxq = 0;
        for (int i = p * g->part; i < (p + 1) * g->part; i += LANES) {
            lanes v = {x[i], x[i + 1], x[i + 2], x[i + 3]}, q = nearest((v + min) * inverse, 0, g->top);
            for (int c = 0; c < LANES; c++) {
                s->q[i + c] = (uint8_t)q[c];
                sq += q[c];
                sqq += q[c] * q[c];
                sx += v[c];
                sxq += v[c] * q[c];
            }
        }
        double a = s->scale[p], b = s->min[p];
        aa += a * a * sqq;
        ab += a * b * sq;
        bb += b * b * g->part;
        xa += a * sxq;
        xb += b * sx;
    }
    double det = aa * bb - ab * ab;
    *to_d = (float)(det > 0 ? (xa * bb - xb * ab) / det : aa > 0 ? xa / aa : 0);
    *to_dmin = (float)(det > 0 ? (xa * ab - xb * aa) / det : bb > 0 ? -xb / bb : 0);
}

static bool keep_better(const float *x, const grid *g, const float *scales, const float *mins, float d, float dmin,
                        superblock *best) {
    superblock s;
    s.d = half_step(d > 0 ? d : 0);
    s.dmin = half_step(dmin > 0 ? dmin : 0);
    settle(x, g, scales, mins, &s);
    if (s.error >= best->error)
        return false;
    *best = s;
    return true;
}

/* The integer that the largest scale or min would have: whole ones for six bits, so that a value that stands alone is
 * met by one of several products, and halves for four. */
static float most_asked(const grid *g, int c) {
    return g->most + (float)(2 - c) * (g->most > 15 ? 1.0f : 0.5f);
}

/* The half that scales or mins are nearest to multiples of. */
static float step_alone(const grid *g, const float *values, float largest) {
    float best = INFINITY, step = 0;
    for (int c = 0; c < STEPS; c++) {
        float d = f16_to_f32(half_step(largest / most_asked(g, c))), inverse = d > 0 ? 1 / d : 0, error = 0;
        for (int p = 0; p < SUPER_VALUES / g->part; p++) {
            float off = d * nearest(all(values[p] * inverse), 0, g->most)[0] - values[p];
            error += off * off;
        }
        if (error < best) {
            best = error;
            step = d;
        }
    }
    return step;
}

static void quantize(const float *in, const grid *g, superblock *best) {
    float x[SUPER_VALUES], scales[PARTS], mins[PARTS], scale = 0, min = 0, d, dmin;
    take_values(in, x, SUPER_VALUES);
    for (int p = 0; p < SUPER_VALUES / g->part; p++) {
        fit_part(x + p * g->part, g, &scales[p], &mins[p]);
        scale = scales[p] > scale ? scales[p] : scale;
        min = mins[p] > min ? mins[p] : min;
    }
    best->error = INFINITY;
    dmin = step_alone(g, mins, min);
    for (int c = 0; c < STEPS; c++)
        keep_better(x, g, scales, mins, scale / most_asked(g, c), dmin, best);
    d = f16_to_f32(best->d);
    for (int c = 0; c < STEPS; c++)
        keep_better(x, g, scales, mins, d, min / most_asked(g, c), best);
    for (int i = 0; i < ROUNDS; i++) {
        round_block(x, g, best, &d, &dmin);
        if (!keep_better(x, g, scales, mins, d, dmin, best))
            break;
    }
    round_block(x, g, best, &d, &dmin);
}

/* ---- Q4_K, Q5_K ---- */

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

static void pack_levels(const superblock *s, uint8_t *out) {
    for (int p = 0; p < 4; p++) {
        out[p] = (uint8_t)((int)s->scale[p] | (int)s->scale[p + 4] >> 4 << 6);
        out[p + 4] = (uint8_t)((int)s->min[p] | (int)s->min[p + 4] >> 4 << 6);
        out[p + 8] = (uint8_t)(((int)s->scale[p + 4] & 15) | ((int)s->min[p + 4] & 15) << 4);
    }
}

/* `fifth`: 32 bytes, bit p of byte i belongs to value i of part p; NULL without. */
static void ranges_out(const uint8_t *head, const uint8_t *fifth, const uint8_t *nibbles, float *out) {
    float d = f16_to_f32(load_u16(head)), dmin = f16_to_f32(load_u16(head + 2));
    for (int p = 0; p < PARTS / 2; p++) {
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
    const grid g = {PART, (float)largest, 63, 0.3f};
    superblock s;
    quantize(in, &g, &s);
    store_u16(head, s.d);
    store_u16(head + 2, s.dmin);
    pack_levels(&s, head + 4);
    for (int p = 0; p < PARTS / 2; p += 2)
        for (int i = 0; i < PART; i++)
            nibbles[p / 2 * PART + i] = (uint8_t)((s.q[p * PART + i] & 15) | (s.q[(p + 1) * PART + i] & 15) << 4);
    for (int i = 0; fifth && i < PART; i++) {
        int bits = 0;
        for (int p = 0; p < PARTS / 2; p++)
            bits |= s.q[p * PART + i] >> 4 << p;
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

/* ---- Q2_K ---- */

/* A half of 128 values has 32 bytes of bit pairs. Of its four runs of 32 values, run r has pair i in byte i at 2 r. */
static const uint8_t *pairs_of(const uint8_t *pairs, int p) {
    return pairs + p / 8 * 32 + p % 2 * PART2;
}

static int pair_shift(int p) {
    return p / 2 % 4 * 2;
}

void q2_k_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t k = 0; k < n; k += SUPER_VALUES, in += Q2_K_BYTES) {
        float d = f16_to_f32(load_u16(in + 80)), dmin = f16_to_f32(load_u16(in + 82));
        for (int p = 0; p < PARTS; p++, out += PART2) {
            const uint8_t *pairs = pairs_of(in + 16, p);
            int            shift = pair_shift(p);
            float          step = d * (float)(in[p] & 15), offset = dmin * (float)(in[p] >> 4);
            for (int i = 0; i < PART2; i++) {
                float v = step * (float)(pairs[i] >> shift & 3);
                out[i] = v - offset;
            }
        }
    }
}

void q2_k_in(const float *in, uint8_t *out, int64_t n) {
    static const grid g = {PART2, 3, 15, 0.125f};
    for (int64_t k = 0; k < n; k += SUPER_VALUES, out += Q2_K_BYTES) {
        superblock s;
        quantize(in + k, &g, &s);
        memset(out, 0, Q2_K_BYTES);
        for (int p = 0; p < PARTS; p++)
            out[p] = (uint8_t)((int)s.scale[p] | (int)s.min[p] << 4);
        for (int i = 0; i < SUPER_VALUES; i++)
            out[16 + i / 128 * 32 + i % 32] |= (uint8_t)(s.q[i] << i / 32 % 4 * 2);
        store_u16(out + 80, s.d);
        store_u16(out + 82, s.dmin);
    }
}
