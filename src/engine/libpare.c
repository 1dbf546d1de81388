/* libpare.c - include/pare.h over the engine: the callback interface turned into calls that wait. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "pare.h"

struct pare_model {
    pool   *compute;
    model  *weights;
    engine *engine;
};

typedef struct call {
    pthread_mutex_t lock;
    pthread_cond_t  ended;
    pare_piece      piece;
    void           *user;
    engine_job     *job;
    bool            done, stop, cancelled;
    engine_result   result;
    err             failed;
} call;

static void tell(const err *e, char *error, size_t size) {
    if (error && size > 0) {
        snprintf(error, size, "%s", e->text);
    }
}

const char *pare_version(void) {
    return PARE_VERSION;
}

pare_model *pare_open(const char *path, const pare_options *options, char *error, size_t error_size) {
    pare_options   o = options ? *options : (pare_options){0};
    engine_options eo = {.sequences = o.sequences, .context = o.context, .kv = KV_F16};
    err            e = {0};
    pare_model    *m = calloc(1, sizeof *m);
    if (!m || !path) {
        free(m);
        err_set(&e, path ? ERR_MEMORY : ERR_INVALID, path ? "Out of memory." : "There is no path.");
        tell(&e, error, error_size);
        return NULL;
    }
    m->compute = pool_new(o.threads, &e);
    m->weights = m->compute ? model_open(path, NULL, 0, m->compute, &e) : NULL;
    m->engine = m->weights ? engine_open(m->weights, m->compute, &eo, &e) : NULL;
    if (!m->engine) {
        tell(&e, error, error_size);
        pare_close(m);
        return NULL;
    }
    return m;
}

void pare_close(pare_model *m) {
    if (!m) {
        return;
    }
    if (m->engine) {
        engine_close(m->engine);
    }
    if (m->weights) {
        model_close(m->weights);
    }
    if (m->compute) {
        pool_free(m->compute);
    }
    free(m);
}

/* On the engine's thread. The caller's stop is passed on once; the job may still be unknown when the first piece comes. */
static void on_piece(void *ctx, const engine_piece *p) {
    call *c = ctx;
    if (p->text_len > 0 && c->piece && !c->stop && c->piece(c->user, p->text, p->text_len) != 0) {
        c->stop = true;
    }
    if (c->stop && !c->cancelled) {
        pthread_mutex_lock(&c->lock);
        if (c->job) {
            engine_cancel(c->job);
            c->cancelled = true;
        }
        pthread_mutex_unlock(&c->lock);
    }
}

static void on_done(void *ctx, const engine_result *r) {
    call *c = ctx;
    if (r->text_len > 0 && c->piece && !c->stop) {
        c->piece(c->user, r->text, r->text_len);
    }
    pthread_mutex_lock(&c->lock);
    c->result = *r;
    if (r->error) {
        c->failed = *r->error;
    }
    c->done = true;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->lock);
}

static bool submit_and_wait(pare_model *m, call *c, engine_request *r, err *e) {
    pthread_mutex_lock(&c->lock);
    c->job = engine_submit(m->engine, r, e); /* under the lock: on_piece waits until the job is known */
    bool ok = c->job != NULL;
    while (ok && !c->done) {
        pthread_cond_wait(&c->ended, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    if (ok && c->failed.code != ERR_NONE) {
        *e = c->failed;
        ok = false;
    }
    return ok;
}

int pare_generate(pare_model *m, const char *prompt, const pare_request *request, pare_piece piece, void *user,
                  pare_usage *usage, char *error, size_t error_size) {
    pare_request q = request ? *request : (pare_request){0};
    err          e = {0};
    token_ids    ids = {0};
    call         c = {.piece = piece, .user = user};
    bool         ok = m->weights->tokens || err_set(&e, ERR_UNSUPPORTED, "This model has no vocabulary.");
    ok = ok &&
         tokenizer_encode(m->weights->tokens, prompt, strlen(prompt), (encode_options){.add_special = true}, &ids, &e);
    if (ok) {
        sampling how = sampling_default();
        how.temperature = q.temperature;
        how.top_p = q.top_p > 0 ? q.top_p : 1;
        how.top_k = q.top_k;
        how.seed = q.seed;
        how.top_logprobs = -1;
        engine_request r = {.tokens = ids.ids,
                            .n_tokens = (int)ids.count,
                            .max_tokens = q.max_tokens > 0 ? q.max_tokens : -1,
                            .sampling = how,
                            .piece = on_piece,
                            .done = on_done,
                            .ctx = &c};
        pthread_mutex_init(&c.lock, NULL);
        pthread_cond_init(&c.ended, NULL);
        ok = submit_and_wait(m, &c, &r, &e);
        pthread_cond_destroy(&c.ended);
        pthread_mutex_destroy(&c.lock);
    }
    token_ids_free(&ids);
    if (ok && usage) {
        *usage = (pare_usage){c.result.prompt_tokens, c.result.completion_tokens};
    }
    if (!ok) {
        tell(&e, error, error_size);
    }
    return ok;
}

int pare_tokenize(pare_model *m, const char *text, int32_t *out, int room, char *error, size_t error_size) {
    err       e = {0};
    token_ids ids = {0};
    bool      ok = m->weights->tokens || err_set(&e, ERR_UNSUPPORTED, "This model has no vocabulary.");
    ok = ok && tokenizer_encode(m->weights->tokens, text, strlen(text), (encode_options){0}, &ids, &e);
    int count = ok ? (int)ids.count : -1;
    for (int i = 0; i < count && i < room; i++) {
        out[i] = ids.ids[i];
    }
    token_ids_free(&ids);
    if (!ok) {
        tell(&e, error, error_size);
    }
    return count;
}
