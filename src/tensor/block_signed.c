/* block_signed.c - see block_signed.h. */
#include "tensor/block_signed.h"

enum { STEPS = 8, ROUNDS = 6, FITS = 4 };

/* Denser about zero, where weights are. */
const int8_t uneven_levels[UNEVEN] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Counts the middles below v, and adds up the gaps. */
static inline lanes nearest_uneven(lanes v) {
    lanes level = all(uneven_levels[0]);
    for (int j = 0; j < UNEVEN - 1; j++) {
        float gap = (float)(uneven_levels[j + 1] - uneven_levels[j]), middle = (float)uneven_levels[j] + 0.5f * gap;
        level += (lanes)((masks)all(gap) & (v > middle));
    }
    return level;
}

static inline lanes nearest_level(const signed_grid *g, lanes v) {
    return g->uneven ? nearest_uneven(v) : nearest(v, g->low, g->high);
}

/* The step of those tried that fits best after least squares; `end` is the level that the peak goes to. */
static float fit_toward(const float *x, const signed_grid *g, float peak, float end) {
    float best = 0, step = 0;
    lanes inverse[FITS], sqq[FITS] = {0}, sxq[FITS] = {0};
    for (int c = 0; c < FITS * LANES; c++) { /* first the very end, where a constant part is exact */
        float beyond = c ? g->nearer + (g->further - g->nearer) * (float)(c - 1) / (FITS * LANES - 2) : 0;
        inverse[c / LANES][c % LANES] = (end + (end < 0 ? -beyond : beyond)) / peak;
    }
    for (int i = 0; i < g->part; i++)
        for (int c = 0; c < FITS; c++) {
            lanes q = nearest_level(g, x[i] * inverse[c]);
            sqq[c] += q * q;
            sxq[c] += x[i] * q;
        }
    for (int c = 0; c < FITS * LANES; c++) {
        float xq = sxq[c / LANES][c % LANES], qq = sqq[c / LANES][c % LANES];
        float gain = qq > 0 ? xq * xq / qq : 0; /* squares of x less the error */
        if (gain > best) {
            best = gain;
            step = xq / qq;
        }
    }
    return step;
}

static void fit_part(const float *x, const signed_grid *g, float fits[2]) {
    float peak = peak_of(x, g->part);
    fits[0] = peak != 0 ? fit_toward(x, g, peak, g->low) : 0;
    fits[1] = peak != 0 ? fit_toward(x, g, peak, g->high) : 0;
}

static lanes errors_of(const float *x, const signed_grid *g, lanes step) {
    lanes inverse = inverse_of(step), error = {0};
    for (int i = 0; i < g->part; i++) {
        lanes off = step * nearest_level(g, x[i] * inverse) - x[i];
        error += off * off;
    }
    return error;
}

/* Of these scales the one with the least error, if that is less than *least. */
static void try_scales(const float *x, float d, const signed_grid *g, lanes scale, int *best, float *least) {
    lanes error = errors_of(x, g, d * scale);
    for (int c = 0; c < LANES; c++)
        if (error[c] < *least) {
            *least = error[c];
            *best = (int)scale[c];
        }
}

/* For d given: of each part the best scale near its two fits, or among all that do not clip far more than the fits. */
static void settle(const float *x, const float fits[][2], const signed_grid *g, bool all_scales, signed_block *s) {
    const float d = f16_to_f32(s->d), by_d = d != 0 ? 1 / d : 0, low = g->scale_low, high = -low - 1;
    s->error = 0;
    for (int p = 0; p < SUPER_VALUES / g->part; p++, x += g->part) {
        float a = fits[p][0] * by_d, b = fits[p][1] * by_d, least = INFINITY;
        lanes near = nearest((lanes){a, a, a, b}, low, high) + (lanes){0, -1, 1, 0};
        try_scales(x, d, g, nearest(near, low, high), &s->scale[p], &least);
        for (int at = (int)low; all_scales && at < -(int)low; at += LANES) {
            float widest = fmaxf(fabsf((float)at), fabsf((float)(at + LANES - 1)));
            if (widest > 0.7f * fminf(fabsf(a), fabsf(b)))
                try_scales(x, d, g, (lanes){0, 1, 2, 3} + (float)at, &s->scale[p], &least);
        }
        s->error += least;
    }
}

typedef struct sums {
    float qq, xq, error; /* of levels and values */
} sums;

static float total(lanes v) {
    return v[0] + v[1] + v[2] + v[3];
}

/* The levels nearest to x with this step. */
static sums round_part(const float *x, const signed_grid *g, float step, int8_t *q) {
    float inverse = inverse_of(all(step))[0];
    lanes sqq = {0}, sxq = {0}, error = {0};
    for (int i = 0; i < g->part; i += LANES) {
        lanes v = {x[i], x[i + 1], x[i + 2], x[i + 3]}, level = nearest_level(g, v * inverse), off = step * level - v;
        sqq += level * level;
        sxq += v * level;
        error += off * off;
        for (int c = 0; c < LANES; c++)
            q[i + c] = (int8_t)level[c];
    }
    return (sums){total(sqq), total(sxq), total(error)};
}

/* All levels with d and the scales given; returns the d that least squares fits to them. */
static float round_block(const float *x, const signed_grid *g, signed_block *s) {
    float aa = 0, xa = 0;
    for (int p = 0; p < SUPER_VALUES / g->part; p++) {
        float scale = (float)s->scale[p];
        sums  now = round_part(x + p * g->part, g, f16_to_f32(s->d) * scale, s->q + p * g->part);
        aa += now.qq * scale * scale;
        xa += now.xq * scale;
    }
    return aa > 0 ? xa / aa : 0;
}

/* d has the sign that sends the largest scale to the low end. */
void signed_search(const float *in, const signed_grid *g, signed_block *best) {
    float x[SUPER_VALUES], fits[SIGNED_PARTS][2], largest = 0;
    take_values(in, x, SUPER_VALUES);
    for (int p = 0; p < SUPER_VALUES / g->part; p++) {
        fit_part(x + p * g->part, g, fits[p]);
        largest = fabsf(fits[p][0]) > fabsf(largest) ? fits[p][0] : largest;
    }
    *best = (signed_block){.error = INFINITY};
    signed_block s = *best;
    for (int c = 0; c < STEPS; c++) {
        const float beside = 0.04f * ((float)c - 0.5f * STEPS);
        s.d = half_step(largest / (g->scale_low * (1 + beside)));
        settle(x, fits, g, false, &s);
        if (s.error < best->error)
            *best = s;
    }
    bool all_scales = false;
    for (int i = 0; i < ROUNDS; i++) {
        s.d = half_step(round_block(x, g, best));
        settle(x, fits, g, all_scales, &s);
        if (s.error < best->error)
            *best = s;
        else if (all_scales || !g->all_scales)
            break;
        else
            all_scales = true;
    }
    round_block(x, g, best);
}

/* Each fit as the nearest half, bettered by rounding and solving in turn (Lloyd's iteration). */
uint16_t signed_search_part(const float *in, const signed_grid *g, int8_t *q) {
    float    x[SUPER_VALUES], fits[2], least = INFINITY;
    uint16_t best = 0;
    take_values(in, x, g->part);
    fit_part(x, g, fits);
    for (int f = 0; f < 2; f++)
        for (int i = 0; i < ROUNDS; i++) {
            uint16_t h = half_step(fits[f]);
            sums     now = round_part(x, g, f16_to_f32(h), q);
            if (now.error < least) {
                least = now.error;
                best = h;
            }
            fits[f] = now.qq > 0 ? now.xq / now.qq : 0;
        }
    round_part(x, g, f16_to_f32(best), q);
    return best;
}
