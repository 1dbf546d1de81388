/* forward.c - the transformer, layer by layer, for a batch of tokens.
 *
 * Every step works on rows: row i is token i of the batch. Matrix products take all rows at once; everything else is
 * done row by row, so that a row's bits do not depend on its neighbours. Element-wise work that follows another
 * element-wise step on the same row is done in the same pass over the pool.                                          */
#include "engine/forward.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/forward_parts.h"

/* ---- opening ---- */

static int widest(const model_shape *s) {
    int ffn = s->experts ? s->shared_ffn : s->ffn;
    int widest = s->dim > ffn ? s->dim : ffn;
    int q_dim = s->heads * s->head_dim;
    return widest > q_dim ? widest : q_dim;
}

/* What takes memory of its own, then the scratch. */
static bool open_parts(forward *f, err *e) {
    const model_shape *s = &f->m->shape;
    f->input = activations_new(f->max_tokens, widest(s), e);
    if (!f->input)
        return false;
    if (s->experts) {
        int cols = s->dim > s->expert_ffn ? s->dim : s->expert_ffn;
        f->expert_input = activations_new(f->max_tokens * s->experts_used, cols, e);
        if (!f->expert_input)
            return false;
    }
    f->plan = attention_new(s, f->p, f->max_tokens, e);
    return f->plan &&
           (forward_map(f) ||
            err_set(e, ERR_MEMORY, "out of memory for a forward pass of %d tokens a step; lower the tokens of a step",
                    f->max_tokens));
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
    f->turns = model_turns_locally(&m->shape) ? TURNS : 1;
    if (max_logits > max_tokens)
        f->max_logits = max_tokens;
    if (!open_parts(f, e)) {
        forward_free(f);
        return NULL;
    }
    rope_frequencies(f, m->shape.context);
    return f;
}

void forward_set_context(forward *f, int context) {
    rope_frequencies(f, context);
}

void forward_free(forward *f) {
    if (!f)
        return;
    if (f->memory)
        munmap(f->memory, f->memory_bytes);
    activations_free(f->input);
    activations_free(f->expert_input);
    attention_free(f->plan);
    free(f);
}

/* ---- rows ---- */

static void norm(const forward *f, const norm_weights *w, const float *x, float *out, int n) {
    const model_shape *s = &f->m->shape;
    if (s->arch->norm == NORM_RMS)
        f->k->rms_norm(x, w->weight, s->norm_eps, out, n);
    else
        f->k->layer_norm(x, w->weight, w->bias, s->norm_eps, out, n);
}

/* x += a row of an embedding that the model may not have. */
static void add_row(const forward *f, const matrix *m, int row, float *x, float *scratch) {
    if (!m->rows)
        return;
    matrix_row(m, row, scratch);
    f->k->add(x, scratch, m->cols);
}

static void scale_row(float *x, float scale, int n) {
    for (int i = 0; scale != 1 && i < n; i++)
        x[i] *= scale;
}

/* Embedding, and the angles that all layers share. */
static void begin_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward           *f = arg;
    const model       *m = f->m;
    const model_shape *s = &m->shape;
    for (int row = begin; row < end; row++) {
        const forward_token *t = &f->tokens[row];
        float               *x = row_of(f->x, row, s->dim), *normed = row_of(f->normed, row, s->dim);
        f->rows[row] = row;
        matrix_row(&m->embedding, t->id, x);
        scale_row(x, s->embedding_scale, s->dim);
        add_row(f, &m->positions, t->position, x, normed);
        add_row(f, &m->token_types, t->type, x, normed);
        if (m->embedding_norm.weight)
            norm(f, &m->embedding_norm, x, x, s->dim);
        if (block_input(f) == f->normed)
            norm(f, &m->layers[0].attn_norm, x, normed, s->dim);
        rope_turns(f, t->position, row_of(f->turn, row, f->turns * s->rope_dim));
    }
}

static void add_bias(const forward *f, float *row, const float *bias, int n) {
    if (bias)
        f->k->add(row, bias, n);
}

static void clamp_row(float *x, float limit, int n) {
    for (int i = 0; limit > 0 && i < n; i++)
        x[i] = x[i] < -limit ? -limit : x[i] > limit ? limit : x[i];
}

static void norm_heads(const forward *f, const norm_weights *w, float *heads, int count) {
    const model_shape *s = &f->m->shape;
    if (s->arch->qk == QK_NORM_WHOLE)
        norm(f, w, heads, heads, count * s->head_dim);
    for (int h = 0; s->arch->qk == QK_NORM_HEAD && h < count; h++)
        norm(f, w, row_of(heads, h, s->head_dim), row_of(heads, h, s->head_dim), s->head_dim);
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
        const float         *turn = row_of(f->turn, row, f->turns * s->rope_dim);
        float               *q = row_of(f->q, row, q_dim);
        float               *k = row_of(f->k_new, row, kv_dim);
        float               *v = row_of(f->v_new, row, kv_dim);
        add_bias(f, q, w->q_bias, q_dim);
        add_bias(f, k, w->k_bias, kv_dim);
        add_bias(f, v, w->v_bias, kv_dim);
        clamp_row(q, s->clamp_qkv, q_dim);
        clamp_row(k, s->clamp_qkv, kv_dim);
        clamp_row(v, s->clamp_qkv, kv_dim);
        norm_heads(f, &w->q_norm, q, s->heads);
        norm_heads(f, &w->k_norm, k, s->kv_heads);
        rope_heads(f, q, s->heads, turn);
        rope_heads(f, k, s->kv_heads, turn);
        kv_write(f->kv, f->layer, t->sequence, t->position, k, v);
    }
}

/* The residual stream takes what a part of a layer gave; arch.h's norm_place says how. */
static void add_part(const forward *f, int row, const float *bias, const norm_weights *after) {
    const model_shape *s = &f->m->shape;
    float             *x = row_of(f->x, row, s->dim), *given = row_of(f->projected, row, s->dim);
    norm_place         at = s->arch->place;
    add_bias(f, given, bias, s->dim);
    if (at == NORM_AROUND || at == NORM_AFTER)
        norm(f, after, given, given, s->dim);
    scale_row(given, s->residual_scale, s->dim);
    f->k->add(x, given, s->dim);
    if (at == NORM_SUM)
        norm(f, after, x, x, s->dim);
}

static void after_attention(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward             *f = arg;
    const model_shape   *s = &f->m->shape;
    const layer_weights *w = &f->m->layers[f->layer];
    for (int row = begin; row < end; row++) {
        float *x = row_of(f->x, row, s->dim), *normed = row_of(f->normed, row, s->dim);
        if (s->parallel &&
            w->ffn_norm.weight) /* both parts read the same x; without a norm of its own the same normed */
            norm(f, &w->ffn_norm, x, normed, s->dim);
        add_part(f, row, w->o_bias, &w->attn_after);
        if (!s->parallel && block_input(f) == f->normed)
            norm(f, &w->ffn_norm, x, normed, s->dim);
    }
}

float *forward_activate(const forward *f, const ffn_weights *w, float *gate, float *up, int n) {
    activate_fn act = f->k->activate[f->m->shape.arch->act];
    add_bias(f, up, w->up_bias, n);
    if (!w->gate.rows) {
        act(up, NULL, n);
        return up;
    }
    add_bias(f, gate, w->gate_bias, n);
    act(gate, up, n);
    return gate;
}

static void activate_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward *f = arg;
    int      ffn = f->m->shape.ffn;
    for (int row = begin; row < end; row++)
        forward_activate(f, &f->m->layers[f->layer].ffn, row_of(f->gate, row, ffn), row_of(f->up, row, ffn), ffn);
}

static void after_ffn(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward             *f = arg;
    const model_shape   *s = &f->m->shape;
    const layer_weights *w = &f->m->layers[f->layer];
    bool                 last = f->layer + 1 == s->layers;
    const norm_weights  *next = last ? &f->m->output_norm : &f->m->layers[f->layer + 1].attn_norm;
    bool                 is_normed = last ? s->arch->place != NORM_SUM : block_input(f) == f->normed;
    for (int row = begin; row < end; row++) {
        add_part(f, row, s->experts ? NULL : w->ffn.down_bias, &w->ffn_after);
        if (is_normed)
            norm(f, next, row_of(f->x, row, s->dim), row_of(f->normed, row, s->dim), s->dim);
    }
}

static void end_logits(void *arg, int begin, int end, int thread) {
    (void)thread;
    forward           *f = arg;
    const model_shape *s = &f->m->shape;
    for (int row = begin; row < end; row++) {
        float *logits = row_of(f->logits, row, s->vocab);
        add_bias(f, logits, f->m->output_bias, s->vocab);
        scale_row(logits, s->logit_scale, s->vocab);
        if (s->logit_cap > 0)
            f->k->cap(logits, s->logit_cap, s->vocab);
    }
}

/* ---- layers ---- */

void forward_each_row(forward *f, pool_fn fn) {
    pool_run(f->p, f->n, ROW_GRAIN, fn, f);
}

void forward_project(forward *f, const float *x, int cols, int count, const matrix *const *w, float *const *y) {
    int      ldy[3];
    unsigned forms = 0;
    for (int i = 0; i < count; i++) {
        ldy[i] = w[i]->rows;
        forms |= matrix_form(w[i]);
    }
    activations_set(f->input, f->p, x, f->n, cols, forms);
    matrix_multiply(f->p, count, w, f->input, y, ldy);
}

static void keep_row(float *rows, int from, int to, int width) {
    memcpy(row_of(rows, to, width), row_of(rows, from, width), (size_t)width * sizeof(float));
}

/* What follows the last layer's cache entries serves the wanted rows alone: the others end here. */
static void keep_wanted_rows(forward *f) {
    const model_shape *s = &f->m->shape;
    int                kept = 0;
    for (int row = 0; row < f->n; row++) {
        if (!f->tokens[row].logits)
            continue;
        if (kept != row) {
            keep_row(f->x, row, kept, s->dim);
            keep_row(f->q, row, kept, s->heads * s->head_dim);
            if (s->parallel)
                keep_row(f->normed, row, kept, s->dim);
        }
        f->rows[kept++] = row;
    }
    f->n = kept;
}

static void attention_block(forward *f) {
    const model_shape   *s = &f->m->shape;
    const layer_weights *w = &f->m->layers[f->layer];
    forward_project(f, block_input(f), s->dim, 3, (const matrix *const[]){&w->q, &w->k, &w->v},
                    (float *const[]){f->q, f->k_new, f->v_new});
    forward_each_row(f, place_rows);
    if (f->layer + 1 == s->layers) {
        keep_wanted_rows(f);
        attention_plan(f->plan, f->kv, f->tokens, f->rows, f->n);
    }
    attention_run(f->plan, f->kv, f->layer, f->q, f->mixed);
    forward_project(f, f->mixed, s->heads * s->head_dim, 1, (const matrix *const[]){&w->o},
                    (float *const[]){f->projected});
    forward_each_row(f, after_attention);
}

static void dense_ffn(forward *f) {
    const model_shape *s = &f->m->shape;
    const ffn_weights *w = &f->m->layers[f->layer].ffn;
    bool               gated = w->gate.rows > 0;
    forward_project(f, block_input(f), s->dim, gated ? 2 : 1, (const matrix *const[]){&w->up, &w->gate},
                    (float *const[]){f->up, f->gate});
    forward_each_row(f, activate_rows);
    forward_project(f, gated ? f->gate : f->up, s->ffn, 1, (const matrix *const[]){&w->down},
                    (float *const[]){f->projected});
}

static void ffn_block(forward *f) {
    if (f->m->shape.experts)
        experts_run(f);
    else
        dense_ffn(f);
    forward_each_row(f, after_ffn);
}

const float *forward_rows(forward *f, kv_cache *kv, const forward_token *tokens, int n) {
    f->kv = kv;
    f->tokens = tokens;
    f->n = n;
    forward_each_row(f, begin_rows);
    attention_plan(f->plan, kv, tokens, f->rows, n);
    for (f->layer = 0; f->layer < f->m->shape.layers && f->n > 0; f->layer++) {
        attention_block(f);
        if (f->n > 0) /* somebody wants rows */
            ffn_block(f);
    }
    return f->m->shape.arch->place == NORM_SUM ? f->x : f->normed;
}

const float *forward_run(forward *f, kv_cache *kv, const forward_token *tokens, int n) {
    const model_shape *s = &f->m->shape;
    const float       *rows = forward_rows(f, kv, tokens, n);
    if (f->n == 0 || s->headless)
        return rows;
    forward_project(f, rows, s->dim, 1, (const matrix *const[]){&f->m->output}, (float *const[]){f->logits});
    if (f->m->output_bias || s->logit_scale != 1 || s->logit_cap > 0)
        pool_run(f->p, f->n, 1, end_logits, f);
    return f->logits;
}

void forward_shared(const forward *f, int *tokens, int64_t *positions) {
    attention_shared(f->plan, tokens, positions);
}
