/* bench_embed.c - embeddings a second: requests of so many texts, all of one length, one request at a time. */
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "cli/bench.h"
#include "engine/embed.h"

#define USUAL_TOKENS 128 /* a paragraph */

typedef struct rig {
    bench      *b;
    embedder   *e;
    embed_text *texts; /* [n] */
    int32_t    *ids;   /* [n][length] */
    float      *out;
    int         n, length;

    pthread_mutex_t lock;
    pthread_cond_t  changed;
    bool            done;
    err             why; /* ERR_NONE: it went well */
} rig;

static void ended(void *ctx, const embed_result *r) {
    rig *x = ctx;
    pthread_mutex_lock(&x->lock);
    x->done = true;
    if (r->error) {
        x->why = *r->error;
    }
    pthread_cond_signal(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

static bool embed_once(void *arg, double *seconds, err *e) {
    rig          *x = arg;
    embed_request ask = {.texts = x->texts, .n_texts = x->n, .out = x->out, .done = ended, .ctx = x};
    int64_t       began = clock_us();
    x->done = false;
    if (!embed_submit(x->e, &ask, e)) {
        return false;
    }
    pthread_mutex_lock(&x->lock);
    while (!x->done) {
        pthread_cond_wait(&x->changed, &x->lock);
    }
    pthread_mutex_unlock(&x->lock);
    *seconds = (double)(clock_us() - began) / 1e6;
    return x->why.code == ERR_NONE || err_set(e, x->why.code, "%s", x->why.text);
}

/* The speed does not depend on how rows become a vector, so a model that does not say is measured all the same. */
static bool rig_open(rig *x, bench *b, err *e) {
    embed_options o = {.kv = KV_F32}; /* as in the server */
    o.pooling = b->m->shape.pooling == POOLING_NONE ? POOLING_MEAN : POOLING_NONE;
    x->b = b;
    x->e = embed_open(b->m, b->p, &o, e);
    if (!x->e) {
        return false;
    }
    size_t n = (size_t)x->n;
    x->texts = calloc(n, sizeof *x->texts);
    x->ids = calloc(n * (size_t)x->length, sizeof *x->ids);
    x->out = calloc(n * (size_t)embed_width(x->e), sizeof *x->out);
    if (!x->texts || !x->ids || !x->out) {
        return err_set(e, ERR_MEMORY, "Out of memory for %d texts.", x->n);
    }
    for (size_t i = 0; i < n * (size_t)x->length; i++) {
        x->ids[i] = bench_token(b, (int64_t)i);
    }
    for (size_t i = 0; i < n; i++) {
        x->texts[i] = (embed_text){.ids = x->ids + i * (size_t)x->length, .n = x->length};
    }
    return true;
}

static void rig_close(rig *x) {
    embed_close(x->e);
    free(x->texts);
    free(x->ids);
    free(x->out);
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->lock);
}

/* An embedder looks up the embedding and has no use for the output. */
static void count_weights(const bench *b, bench_texts *t) {
    const matrix *output = &b->m->output;
    t->multiplied = b->parameters - (double)output->rows * output->cols;
    if (!b->m->shape.tied) {
        t->multiplied -= (double)b->m->embedding.rows * b->m->embedding.cols;
    }
    t->step_bytes = b->step_bytes - (double)output->panel_bytes * output->panels;
}

bool bench_embed(bench *b, int texts, err *e) {
    const model_shape *s = &b->m->shape;
    int                usual = s->context < USUAL_TOKENS ? s->context : USUAL_TOKENS;
    rig                x = {.n = texts, .length = b->prompt ? b->prompt : usual};
    bench_texts        t = {.texts = texts, .length = x.length};
    embed_stats        stats;
    if (x.length > s->context) {
        return err_set(e, ERR_INVALID, "--prompt %d is more than the %d tokens of the model's context; see --longest.",
                       x.length, s->context);
    }
    pthread_mutex_init(&x.lock, NULL);
    pthread_cond_init(&x.changed, NULL);
    bool ok = rig_open(&x, b, e) && bench_repeat(b, "embeddings", embed_once, &x, &t.seconds, &t.machine, e);
    if (ok) {
        embed_stats_read(x.e, &stats);
        t.steps = (double)stats.steps / (b->runs + 1); /* one more to warm up */
        count_weights(b, &t);
        bench_print_texts(b, &t);
    }
    rig_close(&x);
    return ok;
}
