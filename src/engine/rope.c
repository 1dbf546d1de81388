/* rope.c - rotary positions. Source: RoFormer, arXiv:2104.09864. */
#include <math.h>

#include "engine/forward_parts.h"

/* The pair i of a head that turns `turns` times over the original context: 2 pi turns = context base^(-2i / rope_dim). */
static double pair_that_turns(const model_shape *s, double turns) {
    return s->rope_dim * log(s->rope_original / (turns * 2 * M_PI)) / (2 * log((double)s->rope_base));
}

/* YaRN, arXiv:2309.00071, section 3.2: fast pairs keep their frequency, slow ones are divided by the scale, those between
 * blend. The bounds are whole pairs, as the authors' program has them. */
static double yarn(const model_shape *s, int i, double frequency) {
    double low = floor(pair_that_turns(s, (double)s->yarn_fast)), high = ceil(pair_that_turns(s, (double)s->yarn_slow));
    low = low < 0 ? 0 : low;
    high = high > s->rope_dim - 1 ? s->rope_dim - 1 : high;
    double ramp = (i - low) / (high - low > 0.001 ? high - low : 0.001);
    double scaled = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return frequency / (double)s->rope_scale * scaled + frequency * (1 - scaled);
}

/* The model's own factors divide the frequencies (Llama 3.1: rope_freqs; LongRoPE, arXiv:2402.13753: by the context). */
static double factor_of(const model *m, int context, int i) {
    const float *factors = m->rope_factors;
    if (m->rope_long)
        factors = context > m->shape.rope_original ? m->rope_long : m->rope_short;
    return factors ? (double)factors[i] : 1.0;
}

void rope_frequencies(forward *f, int context) {
    const model_shape *s = &f->m->shape;
    int                pairs = s->rope_dim / 2;
    for (int i = 0; i < pairs; i++) {
        double frequency = pow((double)s->rope_base, -2.0 * i / s->rope_dim) / factor_of(f->m, context, i);
        f->frequency[i] = s->scaling == ROPE_SCALING_YARN ? yarn(s, i, frequency) : frequency / (double)s->rope_scale;
        if (f->turns > 1)
            f->frequency[pairs + i] =
                pow((double)s->local_rope_base, -2.0 * i / s->rope_dim) / (double)s->local_rope_scale;
    }
}

void rope_turns(const forward *f, int position, float *turn) {
    const model_shape *s = &f->m->shape;
    for (int i = 0; i < f->turns * s->rope_dim / 2; i++) {
        double size = (double)(i < s->rope_dim / 2 ? s->rope_attn : s->local_rope_attn);
        double angle = position * f->frequency[i]; /* double: far positions keep their fraction */
        turn[2 * i] = (float)(cos(angle) * size);
        turn[2 * i + 1] = (float)(sin(angle) * size);
    }
}

static void turn_head(rope_kind kind, float *head, const float *turn, int rope_dim) {
    int half = rope_dim / 2;
    for (int i = 0; i < half; i++) {
        float *a = kind == ROPE_PAIRS ? &head[2 * i] : &head[i];
        float *b = kind == ROPE_PAIRS ? &head[2 * i + 1] : &head[i + half];
        float  c = turn[2 * i], s = turn[2 * i + 1];
        float  turned = *a * c - *b * s;
        *b = *a * s + *b * c;
        *a = turned;
    }
}

void rope_heads(const forward *f, float *heads, int count, const float *turn) {
    const model_shape *s = &f->m->shape;
    if (!model_turns(s, f->layer))
        return;
    if (f->turns > 1 && model_window(s, f->layer))
        turn += s->rope_dim;
    for (int h = 0; h < count; h++)
        turn_head(s->arch->rope, row_of(heads, h, s->head_dim), turn, s->rope_dim);
}
