/* libpare_embed.c - texts to vectors. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/libpare_parts.h"
#include "engine/pooling.h"

typedef struct embedding { /* one call */
    waiting      w;
    token_ids   *ids; /* [count] */
    embed_text  *texts;
    int          count;
    embed_result result;
    err          failed;
} embedding;

static void stop_job(void *job) {
    embed_cancel(job);
}

static void on_done(void *ctx, const embed_result *r) {
    embedding *x = ctx;
    x->result = *r; /* the caller looks at it after waiting_done */
    if (r->error) {
        x->failed = *r->error;
    }
    waiting_done(&x->w);
}

/* ---- the texts ---- */

/* Cuts at the text's end, and keeps what the tokenizer put around it: what it makes of an empty text. */
static bool cut(const tokenizer *t, token_ids *ids, size_t most, err *e) {
    token_ids frame = {0};
    if (!tokenizer_encode(t, "", 0, (encode_options){.add_special = true}, &frame, e)) {
        return false;
    }
    size_t head = 0, tail = 0;
    while (head < frame.count && frame.ids[head] == ids->ids[head]) {
        head++;
    }
    while (tail < frame.count - head && frame.ids[frame.count - 1 - tail] == ids->ids[ids->count - 1 - tail]) {
        tail++;
    }
    tail = tail < most ? tail : 0;
    memmove(ids->ids + most - tail, ids->ids + ids->count - tail, tail * sizeof(*ids->ids));
    ids->count = most;
    token_ids_free(&frame);
    return true;
}

static bool encode(const pare_model *m, embedding *x, const char *const *texts, bool truncate, err *e) {
    const tokenizer *t = m->weights->tokens;
    size_t           most = (size_t)m->context;
    for (int i = 0; i < x->count; i++) {
        token_ids *ids = &x->ids[i];
        if (!texts[i]) {
            return err_set(e, ERR_INVALID, "text %d is NULL", i);
        }
        if (!tokenizer_encode(t, texts[i], strlen(texts[i]), (encode_options){.add_special = true}, ids, e) ||
            (truncate && ids->count > most && !cut(t, ids, most, e))) {
            return false;
        }
        if (ids->count > INT_MAX) {
            return err_set(e, ERR_LIMIT, "text %d has %zu tokens", i, ids->count);
        }
        x->texts[i] = (embed_text){ids->ids, (int)ids->count};
    }
    return true;
}

/* ---- the call ---- */

/* *ran: the embedder has had it; it has not when it was cancelled before. */
static bool run(embedder *b, embedding *x, float *vectors, bool *ran, err *e) {
    embed_request r = {.texts = x->texts, .n_texts = x->count, .out = vectors, .done = on_done, .ctx = x};
    pthread_mutex_lock(&x->w.lock); /* the end waits until the job is known */
    *ran = !x->w.cancelled;
    embed_job *job = *ran ? embed_submit(b, &r, e) : NULL;
    if (job) {
        waiting_started(&x->w, job);
    }
    while (job && !x->w.done) {
        pthread_cond_wait(&x->w.change, &x->w.lock);
    }
    pthread_mutex_unlock(&x->w.lock);
    if (x->failed.code != ERR_NONE) {
        *e = x->failed;
        return false;
    }
    return job || !*ran;
}

static bool embed(pare_model *m, embedding *x, const char *const *texts, const pare_embedding *how, float *vectors,
                  pare_usage *usage, err *e) {
    int64_t   begun = clock_us();
    bool      ran = false;
    embedder *b = libpare_embedder(m, e);
    if (!b || !encode(m, x, texts, how->truncate != 0, e)) {
        return false;
    }
    waiting_begin(&x->w, how->canceller, stop_job);
    bool ok = run(b, x, vectors, &ran, e);
    waiting_end(&x->w);
    if (!ok) {
        return false;
    }
    bool whole = ran && !x->result.cancelled;
    for (int i = 0; whole && !how->raw && i < x->count; i++) {
        pooling_unit(vectors + (size_t)i * (size_t)embed_width(b), embed_width(b));
    }
    pare_usage told = {.prompt_tokens = (int)(x->result.tokens < INT_MAX ? x->result.tokens : INT_MAX),
                       .finish = whole ? PARE_FINISH_STOP : PARE_FINISH_CANCELLED,
                       .stop = -1,
                       .total_us = clock_us() - begun};
    libpare_write(&libpare_usage, usage, &told);
    return true;
}

static bool check(const pare_model *m, const char *const *texts, int count, const float *vectors, err *e) {
    if (!m->weights->tokens) {
        return err_set(e, ERR_UNSUPPORTED, "%s has no vocabulary, so it can read no text", m->weights->name);
    }
    return (texts && vectors && count > 0) ||
           err_set(e, ERR_INVALID, "there are no texts, or no room for their vectors");
}

int pare_embed(pare_model *m, const char *const *texts, int count, const pare_embedding *how, float *vectors,
               pare_usage *usage, char *error, size_t error_size) {
    err            e = {0};
    embedding      x = {.count = count};
    pare_embedding h;
    if (!libpare_read(&libpare_embedding, how, &h, &e) || !libpare_may_write(&libpare_usage, usage, &e) ||
        !check(m, texts, count, vectors, &e)) {
        return libpare_tell(&e, error, error_size);
    }
    x.ids = calloc((size_t)count, sizeof(*x.ids));
    x.texts = calloc((size_t)count, sizeof(*x.texts));
    bool ok = (x.ids && x.texts) || err_set(&e, ERR_MEMORY, "out of memory for %d texts", count);
    ok = ok && embed(m, &x, texts, &h, vectors, usage, &e);
    for (int i = 0; x.ids && i < count; i++) {
        token_ids_free(&x.ids[i]);
    }
    free(x.ids);
    free(x.texts);
    return ok || libpare_tell(&e, error, error_size);
}
