/* forward.c - the transformer, layer by layer, for a batch of tokens.
 *
 * Every step works on rows: row i is token i of the batch. Matrix products take all rows at once; everything else is
 * done row by row, so that a row's bits do not depend on its neighbours. Element-wise work that follows another
 * element-wise step on the same row is done in the same pass over the pool.                                          */
#include "engine/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/attention.h"
#include "tensor/kernels.h"

#define ROW_GRAIN 4 /* rows of element-wise work worth waking a thread for */

struct forward {
    const model   *m;
    pool          *p;
    const kernels *k;
    int            max_tokens, max_logits;
    double        *frequency; /* [rope_dim/2] radians a position */
    activations   *input;

    /* Rows of scratch, all [max_tokens][...]. */
    float *x;      /* [dim] the residual stream */
    float *normed; /* [dim] */
    float *q, *k_new, *v_new;
    float *mixed;     /* [heads*head_dim] what attention gives */
    float *projected; /* [dim] what a block adds to x */
    float *gate, *up; /* [ffn] */
    float *turn;      /* [rope_dim/2][2] cosine and sine of the row's position */
    float *logits;    /* [max_logits][vocab] */

    attention *plan; /* who attends to what in this step */

    char  *memory; /* all of the above, one mapping; pages are touched when used */
    size_t memory_bytes;

    /* The batch at hand; rows[] maps a row to its token once rows have been dropped. */
    kv_cache            *kv;
    const forward_token *tokens;
    int                 *rows;
    int                  n;
    int                  layer;
};

/* ---- memory ---- */

typedef struct carve { /* counts first, hands out then */
    char  *base;
    size_t at;
    bool   overflow;
} carve;

static float *take(carve *c, int64_t rows, int64_t cols) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)rows, (size_t)cols, &bytes) || bytes > SIZE_MAX / 64) {
        c->overflow = true;
        return NULL;
    }
    bytes = (bytes * sizeof(float) + 63) & ~(size_t)63;
    float *given = c->base ? (float *)(void *)(c->base + c->at) : NULL;
    c->overflow |= __builtin_add_overflow(c->at, bytes, &c->at);
    return given;
}

static void lay_out(forward *f, carve *c) {
    const model_shape *s = &f->m->shape;
    int64_t            rows = f->max_tokens;
    int64_t            q_dim = (int64_t)s->heads * s->head_dim;
    int64_t            kv_dim = (int64_t)s->kv_heads * s->head_dim;
    f->x = take(c, rows, s->dim);
    f->normed = take(c, rows, s->dim);
    f->q = take(c, rows, q_dim);
    f->k_new = take(c, rows, kv_dim);
    f->v_new = take(c, rows, kv_dim);
    f->mixed = take(c, rows, q_dim);
    f->projected = take(c, rows, s->dim);
    f->gate = take(c, rows, s->ffn);
    f->up = take(c, rows, s->ffn);
    f->turn = take(c, rows, s->rope_dim);
    f->logits = take(c, f->max_logits, s->vocab);
    f->rows = (int *)(void *)take(c, rows, 1);
}

static bool map_scratch(forward *f) {
    carve count = {0};
    lay_out(f, &count);
    if (count.overflow) {
        return false;
    }
    void *memory = mmap(NULL, count.at, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    f->memory = memory;
    f->memory_bytes = count.at;
    carve real = {.base = f->memory};
    lay_out(f, &real);
    return true;
}

static int widest(const model_shape *s) {
    int widest = s->dim > s->ffn ? s->dim : s->ffn;
    int q_dim = s->heads * s->head_dim;
    return widest > q_dim ? widest : q_dim;
}

/* The i-th pair of a head turns by base^(-2i/rope_dim) a position, divided by the model's factor for it and by the
 * linear scale. Source: RoFormer, arXiv:2104.09864; factors: Llama 3.1 (rope_freqs.weight). */
static bool find_frequencies(forward *f) {
    const model_shape *s = &f->m->shape;
    int                pairs = s->rope_dim / 2;
    f->frequency = calloc((size_t)pairs + 1, sizeof(double));
    if (!f->frequency) {
        return false;
    }
    for (int i = 0; i < pairs; i++) {
        double factor = f->m->rope_factors ? (double)f->m->rope_factors[i] : 1.0;
        f->frequency[i] = pow((double)s->rope_base, -2.0 * i / s->rope_dim) / factor / (double)s->rope_scale;
    }
    return true;
}

forward *forward_new(const model *m, pool *p, int max_tokens, int max_logits, err *e) {
    if (max_tokens < 1 || max_logits < 1) {
        err_set(e, ERR_INTERNAL, "a forward pass needs room for at least one token");
        return NULL;
    }
    forward *f = calloc(1, sizeof(*f));
    if (!f) {
        err_set(e, ERR_MEMORY, "out of memory for the forward pass");
        return NULL;
    }
    *f = (forward){.m = m, .p = p, .k = kernels_get(), .max_tokens = max_tokens, .max_logits = max_logits};
    if (max_logits > max_tokens) {
        f->max_logits = max_tokens;
    }
    f->input = activations_new(max_tokens, widest(&m->shape), e);
    if (!f->input) {
        forward_free(f);
        return NULL;
    }
    f->plan = attention_new(&m->shape, p, max_tokens, e);
    if (!f->plan) {
        forward_free(f);
        return NULL;
    }
    if (!find_frequencies(f) || !map_scratch(f)) {
        err_set(e, ERR_MEMORY, "out of memory for a forward pass of %d tokens a step; lower the tokens of a step",
                max_tokens);
        forward_free(f);
        return NULL;
    }
    return f;
}

void forward_free(forward *f) {
    if (!f) {
        return;
    }
    if (f->memory) {
        munmap(f->memory, f->memory_bytes);
    }
    activations_free(f->input);
    attention_free(f->plan);
    free(f->frequency);
    free(f);
}

/* ---- rows ---- */

static float *row_of(float *base, int row, int width) {
    return base + (size_t)row * (size_t)width;
}

/* Embedding, and the angles that all layers share. */
static void begin_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward           *f = arg;
    const model_shape *s = &f->m->shape;
    for (int row = begin; row < end; row++) {
        const forward_token *t = &f->tokens[row];
        float               *x = row_of(f->x, row, s->dim);
        float               *turn = row_of(f->turn, row, s->rope_dim);
        f->rows[row] = row;
        matrix_row(&f->m->embedding, t->id, x);
        f->k->rms_norm(x, f->m->layers[0].attn_norm, s->norm_eps, row_of(f->normed, row, s->dim), s->dim);
        for (int i = 0; i < s->rope_dim / 2; i++) {
            double angle = t->position * f->frequency[i]; /* double: far positions keep their fraction */
            turn[2 * i] = (float)cos(angle);
            turn[2 * i + 1] = (float)sin(angle);
        }
    }
}

static void rope(rope_kind kind, float *head, const float *turn, int rope_dim) {
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

static void turn_heads(const forward *f, float *heads, int count, const float *turn) {
    const model_shape *s = &f->m->shape;
    if (s->arch->rope == ROPE_NONE) {
        return;
    }
    for (int h = 0; h < count; h++) {
        rope(s->arch->rope, row_of(heads, h, s->head_dim), turn, s->rope_dim);
    }
}

static void add_bias(const forward *f, float *row, const float *bias, int n) {
    if (bias) {
        f->k->add(row, bias, n);
    }
}

/* From projections to queries, and to keys and values in the cache. */
static void place_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward             *f = arg;
    const model_shape   *s = &f->m->shape;
    const layer_weights *w = &f->m->layers[f->layer];
    int                  q_dim = s->heads * s->head_dim;
    int                  kv_dim = s->kv_heads * s->head_dim;
    for (int row = begin; row < end; row++) {
        const forward_token *t = &f->tokens[row];
        const float         *turn = row_of(f->turn, row, s->rope_dim);
        float               *q = row_of(f->q, row, q_dim);
        float               *k = row_of(f->k_new, row, kv_dim);
        float               *v = row_of(f->v_new, row, kv_dim);
        add_bias(f, q, w->q_bias, q_dim);
        add_bias(f, k, w->k_bias, kv_dim);
        add_bias(f, v, w->v_bias, kv_dim);
        turn_heads(f, q, s->heads, turn);
        turn_heads(f, k, s->kv_heads, turn);
        kv_write(f->kv, f->layer, t->sequence, t->position, k, v);
    }
}

static void add_and_norm(forward *f, int row, const float *bias, const float *norm) {
    const model_shape *s = &f->m->shape;
    float             *x = row_of(f->x, row, s->dim);
    f->k->add(x, row_of(f->projected, row, s->dim), s->dim);
    add_bias(f, x, bias, s->dim);
    f->k->rms_norm(x, norm, s->norm_eps, row_of(f->normed, row, s->dim), s->dim);
}

static void after_attention(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward             *f = arg;
    const layer_weights *w = &f->m->layers[f->layer];
    for (int row = begin; row < end; row++) {
        add_and_norm(f, row, w->o_bias, w->ffn_norm);
    }
}

static void activate(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward *f = arg;
    int      ffn = f->m->shape.ffn;
    for (int row = begin; row < end; row++) {
        f->k->silu_mul(row_of(f->gate, row, ffn), row_of(f->up, row, ffn), ffn);
    }
}

static void after_ffn(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward     *f = arg;
    bool         last = f->layer + 1 == f->m->shape.layers;
    const float *norm = last ? f->m->output_norm : f->m->layers[f->layer + 1].attn_norm;
    for (int row = begin; row < end; row++) {
        add_and_norm(f, row, NULL, norm);
    }
}

/* ---- layers ---- */

static void each_row(forward *f, pool_fn fn) {
    pool_run(f->p, f->n, ROW_GRAIN, fn, f);
}

/* y[i] = w[i] x for matrices that share their input. */
static void project(forward *f, const float *x, int cols, int count, const matrix *const *w, float *const *y) {
    int      ldy[3];
    unsigned forms = 0;
    for (int i = 0; i < count; i++) {
        ldy[i] = w[i]->rows;
        forms |= matrix_form(w[i]);
    }
    activations_set(f->input, f->p, x, f->n, cols, forms);
    matrix_multiply(f->p, count, w, f->input, y, ldy);
}

/* What follows the last layer's cache entries serves the logits alone: rows that want none end here. */
static void keep_wanted_rows(forward *f) {
    const model_shape *s = &f->m->shape;
    int                q_dim = s->heads * s->head_dim;
    int                kept = 0;
    for (int row = 0; row < f->n; row++) {
        if (!f->tokens[row].logits) {
            continue;
        }
        if (kept != row) {
            memcpy(row_of(f->x, kept, s->dim), row_of(f->x, row, s->dim), (size_t)s->dim * sizeof(float));
            memcpy(row_of(f->q, kept, q_dim), row_of(f->q, row, q_dim), (size_t)q_dim * sizeof(float));
        }
        f->rows[kept++] = row;
    }
    f->n = kept;
}

static void attention_block(forward *f) {
    const model_shape   *s = &f->m->shape;
    const layer_weights *w = &f->m->layers[f->layer];
    project(f, f->normed, s->dim, 3, (const matrix *const[]){&w->q, &w->k, &w->v},
            (float *const[]){f->q, f->k_new, f->v_new});
    each_row(f, place_rows);
    if (f->layer + 1 == s->layers) {
        keep_wanted_rows(f);
        attention_plan(f->plan, f->kv, f->tokens, f->rows, f->n);
    }
    attention_run(f->plan, f->kv, f->layer, f->q, f->mixed);
    project(f, f->mixed, s->heads * s->head_dim, 1, (const matrix *const[]){&w->o}, (float *const[]){f->projected});
    each_row(f, after_attention);
}

static void ffn_block(forward *f) {
    const model_shape   *s = &f->m->shape;
    const layer_weights *w = &f->m->layers[f->layer];
    project(f, f->normed, s->dim, 2, (const matrix *const[]){&w->gate, &w->up}, (float *const[]){f->gate, f->up});
    each_row(f, activate);
    project(f, f->gate, s->ffn, 1, (const matrix *const[]){&w->down}, (float *const[]){f->projected});
    each_row(f, after_ffn);
}

const float *forward_run(forward *f, kv_cache *kv, const forward_token *tokens, int n) {
    f->kv = kv;
    f->tokens = tokens;
    f->n = n;
    each_row(f, begin_rows);
    attention_plan(f->plan, kv, tokens, f->rows, n);
    for (f->layer = 0; f->layer < f->m->shape.layers; f->layer++) {
        attention_block(f);
        if (f->n == 0) {
            return f->logits; /* nobody wants any */
        }
        ffn_block(f);
    }
    project(f, f->normed, f->m->shape.dim, 1, (const matrix *const[]){&f->m->output}, (float *const[]){f->logits});
    return f->logits;
}

void forward_shared(const forward *f, int *tokens, int64_t *positions) {
    attention_shared(f->plan, tokens, positions);
}
