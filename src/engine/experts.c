/* experts.c - the feed-forward part of a mixture of experts (arXiv:2101.03961, 2401.04088).
 *
 * A router scores the experts for each token; the best few compute, and their answers are added up by their shares. The
 * tokens are sorted by expert, so that an expert's matrices are read once for all of its tokens. A token's answer does
 * not depend on the others: products have the same bits for any number of columns, and its experts are added in the
 * order in which they were chosen.                                                                                    */
#include <math.h>
#include <string.h>

#include "engine/forward_parts.h"

/* Probabilities over all experts, then the best few: the first of equals. */
static void choose(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward           *f = arg;
    const model_shape *s = &f->m->shape;
    for (int row = begin; row < end; row++) {
        float *scores = row_of(f->work.scores, row, s->experts);
        float *shares = row_of(f->work.shares, row, s->experts_used);
        int   *chosen = f->work.chosen + (size_t)row * (size_t)s->experts_used;
        float  sum = 0;
        f->k->softmax(scores, s->experts);
        for (int u = 0; u < s->experts_used; u++) {
            int best = f->k->argmax(scores, s->experts);
            chosen[u] = best;
            sum += shares[u] = scores[best];
            scores[best] = -1;
        }
        for (int u = 0; u < s->experts_used; u++)
            shares[u] *= s->expert_scale / (s->expert_renorm ? sum : 1);
    }
}

/* Sorts the pieces of work (token, one of its experts) by expert: a counting sort. */
static void sort(forward *f) {
    expert_rows *w = &f->work;
    int          experts = f->m->shape.experts, n = f->n * f->m->shape.experts_used;
    memset(w->begin, 0, (size_t)(experts + 1) * sizeof *w->begin);
    for (int i = 0; i < n; i++)
        w->begin[w->chosen[i] + 1]++;
    for (int x = 0; x < experts; x++)
        w->begin[x + 1] += w->begin[x];
    for (int i = 0; i < n; i++) /* moves each begin to the next one's */
        w->place[i] = w->begin[w->chosen[i]]++;
    for (int x = experts; x > 0; x--)
        w->begin[x] = w->begin[x - 1];
    w->begin[0] = 0;
}

static void gather(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward           *f = arg;
    const model_shape *s = &f->m->shape;
    const float       *input = block_input(f);
    for (int row = begin; row < end; row++)
        for (int u = 0; u < s->experts_used; u++)
            memcpy(row_of(f->work.in, f->work.place[row * s->experts_used + u], s->dim),
                   input + (size_t)row * (size_t)s->dim, (size_t)s->dim * sizeof(float));
}

static void activate_pieces(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward *f = arg;
    int      ffn = f->m->shape.expert_ffn;
    for (int i = begin; i < end; i++)
        f->k->activate[f->m->shape.arch->act](row_of(f->work.gate, i, ffn), row_of(f->work.up, i, ffn), ffn);
}

/* One product of each expert that has rows. */
static int list_parts(forward *f, bool down) {
    const layer_weights *l = &f->m->layers[f->layer];
    const model_shape   *s = &f->m->shape;
    expert_rows         *w = &f->work;
    int                  count = 0;
    for (int x = 0; x < s->experts; x++) {
        int first = w->begin[x], n = w->begin[x + 1] - first;
        if (n == 0)
            continue;
        if (down) {
            w->parts[count++] = (matrix_part){&l->experts[x].down, first, n, row_of(w->out, first, s->dim)};
            continue;
        }
        w->parts[count++] = (matrix_part){&l->experts[x].gate, first, n, row_of(w->gate, first, s->expert_ffn)};
        w->parts[count++] = (matrix_part){&l->experts[x].up, first, n, row_of(w->up, first, s->expert_ffn)};
    }
    return count;
}

static void multiply(forward *f, const float *x, int cols, bool down) {
    const ffn_weights *w = &f->m->layers[f->layer].experts[0];
    unsigned           forms = down ? matrix_form(&w->down) : matrix_form(&w->gate) | matrix_form(&w->up);
    activations_set(f->expert_input, f->p, x, f->n * f->m->shape.experts_used, cols, forms);
    matrix_multiply_parts(f->p, list_parts(f, down), f->work.parts, f->expert_input);
}

/* What the shared expert says is weighed by the sigmoid of a product with the token. */
static void weigh_shared(const forward *f, const float *gate, const float *input, float *said) {
    int   dim = f->m->shape.dim;
    float dot = 0;
    if (!gate)
        return;
    for (int i = 0; i < dim; i++)
        dot += gate[i] * input[i];
    float weight = 1.0f / (1.0f + expf(-dot));
    for (int i = 0; i < dim; i++)
        said[i] *= weight;
}

static void add_up(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward           *f = arg;
    const model_shape *s = &f->m->shape;
    float             *input = block_input(f);
    for (int row = begin; row < end; row++) {
        float *sum = row_of(f->projected, row, s->dim);
        if (s->shared_ffn)
            weigh_shared(f, f->m->layers[f->layer].shared_gate, row_of(input, row, s->dim), sum);
        else
            memset(sum, 0, (size_t)s->dim * sizeof *sum);
        for (int u = 0; u < s->experts_used; u++) {
            int          i = row * s->experts_used + u;
            const float *out = row_of(f->work.out, f->work.place[i], s->dim);
            float        share = f->work.shares[i];
            for (int d = 0; d < s->dim; d++)
                sum[d] += share * out[d];
        }
    }
}

static void activate_shared(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward *f = arg;
    int      ffn = f->m->shape.shared_ffn;
    for (int row = begin; row < end; row++)
        forward_activate(f, &f->m->layers[f->layer].ffn, row_of(f->gate, row, ffn), row_of(f->up, row, ffn), ffn);
}

static void run_shared(forward *f, const float *input) {
    const ffn_weights *w = &f->m->layers[f->layer].ffn;
    const model_shape *s = &f->m->shape;
    forward_project(f, input, s->dim, 2, (const matrix *const[]){&w->gate, &w->up}, (float *const[]){f->gate, f->up});
    forward_each_row(f, activate_shared);
    forward_project(f, f->gate, s->shared_ffn, 1, (const matrix *const[]){&w->down}, (float *const[]){f->projected});
}

void experts_run(forward *f) {
    const model_shape *s = &f->m->shape;
    float             *input = block_input(f);
    forward_project(f, input, s->dim, 1, (const matrix *const[]){&f->m->layers[f->layer].router},
                    (float *const[]){f->work.scores});
    forward_each_row(f, choose);
    sort(f);
    forward_each_row(f, gather);
    multiply(f, f->work.in, s->dim, false);
    pool_run(f->p, f->n * s->experts_used, ROW_GRAIN, activate_pieces, f);
    multiply(f, f->work.gate, s->expert_ffn, true);
    if (s->shared_ffn)
        run_shared(f, input);
    forward_each_row(f, add_up);
}
