/* forward_memory.c - the scratch of a forward pass: one mapping, counted first and handed out then. */
#include <sys/mman.h>

#include "engine/forward_parts.h"

typedef struct carve {
    char  *base;
    size_t at;
    bool   overflow;
} carve;

static void *take_bytes(carve *c, int64_t rows, int64_t cols, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)rows, (size_t)cols, &bytes) || bytes > SIZE_MAX / 256) {
        c->overflow = true;
        return NULL;
    }
    bytes = (bytes * size + 63) & ~(size_t)63;
    void *given = c->base ? c->base + c->at : NULL;
    c->overflow |= __builtin_add_overflow(c->at, bytes, &c->at);
    return given;
}

static float *take(carve *c, int64_t rows, int64_t cols) {
    return take_bytes(c, rows, cols, sizeof(float));
}

static int *take_ints(carve *c, int64_t rows, int64_t cols) {
    return take_bytes(c, rows, cols, sizeof(int));
}

static void lay_out_experts(forward *f, carve *c) {
    const model_shape *s = &f->m->shape;
    expert_rows       *w = &f->work;
    int64_t            rows = (int64_t)f->max_tokens * s->experts_used;
    w->scores = take(c, f->max_tokens, s->experts);
    w->shares = take(c, rows, 1);
    w->chosen = take_ints(c, rows, 1);
    w->place = take_ints(c, rows, 1);
    w->begin = take_ints(c, s->experts + 1, 1);
    w->in = take(c, rows, s->dim);
    w->gate = take(c, rows, s->expert_ffn);
    w->up = take(c, rows, s->expert_ffn);
    w->out = take(c, rows, s->dim);
    w->parts = take_bytes(c, 2, s->experts, sizeof *w->parts);
}

static void lay_out(forward *f, carve *c) {
    const model_shape *s = &f->m->shape;
    int64_t            rows = f->max_tokens;
    int64_t            q_dim = (int64_t)s->heads * s->head_dim;
    int64_t            kv_dim = (int64_t)s->kv_heads * s->head_dim;
    int64_t            ffn = s->experts ? s->shared_ffn : s->ffn;
    f->x = take(c, rows, s->dim);
    f->normed = take(c, rows, s->dim);
    f->q = take(c, rows, q_dim);
    f->k_new = take(c, rows, kv_dim);
    f->v_new = take(c, rows, kv_dim);
    f->mixed = take(c, rows, q_dim);
    f->projected = take(c, rows, s->dim);
    f->gate = take(c, rows, ffn);
    f->up = take(c, rows, ffn);
    f->turn = take(c, rows, (int64_t)f->turns * s->rope_dim);
    f->logits = take(c, f->max_logits, s->headless ? 0 : s->vocab);
    f->rows = take_ints(c, rows, 1);
    f->frequency = take_bytes(c, TURNS, s->rope_dim, sizeof *f->frequency);
    if (s->experts)
        lay_out_experts(f, c);
}

bool forward_map(forward *f) {
    carve count = {0};
    lay_out(f, &count);
    if (count.overflow)
        return false;
    void *memory = mmap(NULL, count.at, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    f->memory = memory;
    f->memory_bytes = count.at;
    carve real = {.base = f->memory};
    lay_out(f, &real);
    return true;
}
