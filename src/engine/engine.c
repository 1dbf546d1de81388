/* engine.c - the scheduler.
 *
 * One thread owns the cache, the forward pass and all that runs; the lock guards the waiting line only. A step takes
 * one token of every decoding sequence and fills the rest of its budget with chunks of prompts, oldest first, so that
 * a long prompt never stalls those who are answering.                                                                */
#include "engine/engine.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "engine/text.h"

#define DEFAULT_SEQUENCES   16
#define DEFAULT_CONTEXT     8192
#define DEFAULT_QUEUE       1024
#define DEFAULT_STEP_TOKENS 256
#define MOST_SEQUENCES      4096
#define MOST_STEP_TOKENS    65536

struct engine_job {
    engine_job    *next; /* in the waiting line */
    engine        *g;
    arena         *memory; /* holds the job itself */
    engine_request ask;
    text_out       text;
    atomic_bool    cancelled;

    int     slot;
    int     position;  /* tokens in the cache */
    int     generated; /* tokens of the answer */
    int32_t last;      /* the newest of them, not in the cache yet */
    int64_t submitted_us, started_us, first_us;
};

typedef struct wanted { /* a row of logits */
    int     index;      /* in jobs[]: whom it is for */
    int     slot;
    sampled choice;
} wanted;

struct engine {
    const model *m;
    pool        *p;
    int          sequences, context, queue, step_tokens;

    kv_cache *kv;
    forward  *pass;
    sampler **samplers; /* one a slot */
    pthread_t thread;
    bool      started;

    pthread_mutex_t lock;
    pthread_cond_t  work;
    engine_job     *first, *last; /* the waiting line */
    bool            closing;
    atomic_bool     cancel_seen; /* somebody cancelled: look through the line */
    atomic_int      waiting;

    /* The scheduler thread's own. */
    engine_job   **jobs; /* running, oldest first */
    int            n_jobs;
    int           *free_slots;
    int            n_free;
    forward_token *batch;
    int            n_batch;
    wanted        *rows;
    int            n_rows;
    const float   *logits;

    _Atomic int64_t steps, prompt_tokens, completion_tokens, submitted, cancelled, last_token_us, last_step_us;
    atomic_int      running, kv_used;
};

/* ---- the end of a job ---- */

static void free_job(engine_job *j) {
    text_free(&j->text);
    arena_free(j->memory); /* and with it j */
}

static void finish(engine_job *j, engine_finish how, const char *stop_text, const err *why) {
    int64_t       now = clock_us();
    text_span     rest = text_end(&j->text);
    engine_result r = {.finish = how,
                       .stop_text = stop_text,
                       .prompt_tokens = j->ask.n_tokens,
                       .completion_tokens = j->generated,
                       .queued_us = (j->started_us ? j->started_us : now) - j->submitted_us,
                       .first_us = j->first_us ? j->first_us - j->submitted_us : 0,
                       .total_us = now - j->submitted_us,
                       .text = rest.text,
                       .text_len = rest.len,
                       .error = why};
    if (how == FINISH_CANCELLED) {
        atomic_fetch_add(&j->g->cancelled, 1);
    }
    j->ask.done(j->ask.ctx, &r);
    free_job(j);
}

static void finish_chain(engine_job *j) {
    while (j) {
        engine_job *next = j->next;
        finish(j, FINISH_CANCELLED, NULL, NULL);
        j = next;
    }
}

/* Gives the slot back; the job stays in jobs[] as NULL until the step is over. */
static void leave(engine *g, int index, engine_finish how, const char *stop_text, const err *why) {
    engine_job *j = g->jobs[index];
    g->jobs[index] = NULL;
    g->free_slots[g->n_free++] = j->slot;
    finish(j, how, stop_text, why);
}

static void close_gaps(engine *g) {
    int kept = 0, used = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        if (g->jobs[i]) {
            used += g->jobs[i]->position;
            g->jobs[kept++] = g->jobs[i];
        }
    }
    g->n_jobs = kept;
    atomic_store(&g->running, kept);
    atomic_store(&g->kv_used, used);
}

/* ---- the waiting line ---- */

/* Unlinks cancelled jobs and returns them as a chain. With the lock held. */
static engine_job *pick_cancelled(engine *g) {
    engine_job *gone = NULL, **link = &g->first, *kept = NULL;
    while (*link) {
        engine_job *j = *link;
        if (atomic_load(&j->cancelled)) {
            *link = j->next;
            j->next = gone;
            gone = j;
            atomic_fetch_sub(&g->waiting, 1);
        } else {
            kept = j;
            link = &j->next;
        }
    }
    g->last = kept;
    return gone;
}

static void admit(engine *g) {
    while (g->first && g->n_free > 0) {
        engine_job *j = g->first;
        g->first = j->next;
        if (!g->first) {
            g->last = NULL;
        }
        j->next = NULL;
        atomic_fetch_sub(&g->waiting, 1);
        j->slot = g->free_slots[--g->n_free];
        j->started_us = clock_us();
        g->jobs[g->n_jobs++] = j;
        atomic_store(&g->running, g->n_jobs);
    }
}

/* Waits for work and lets it in. False when the engine closes. */
static bool gather(engine *g) {
    pthread_mutex_lock(&g->lock);
    while (!g->closing && !g->first && g->n_jobs == 0) {
        pthread_cond_wait(&g->work, &g->lock);
    }
    bool        open = !g->closing;
    engine_job *gone = NULL;
    int         had = g->n_jobs;
    if (open) {
        gone = atomic_exchange(&g->cancel_seen, false) ? pick_cancelled(g) : NULL;
        admit(g);
    }
    pthread_mutex_unlock(&g->lock);
    finish_chain(gone);
    for (int i = had; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        sampler_begin(g->samplers[j->slot], &j->ask.sampling, j->ask.tokens, j->ask.n_tokens);
    }
    return open;
}

static void drop_cancelled(engine *g) {
    for (int i = 0; i < g->n_jobs; i++) {
        if (atomic_load(&g->jobs[i]->cancelled)) {
            leave(g, i, FINISH_CANCELLED, NULL, NULL);
        }
    }
    close_gaps(g);
}

/* ---- a step ---- */

static void put_token(engine *g, int index, int32_t id, bool logits) {
    engine_job *j = g->jobs[index];
    g->batch[g->n_batch++] =
        (forward_token){.id = id, .sequence = j->slot, .position = j->position++, .logits = logits};
    if (logits) {
        wanted *row = &g->rows[g->n_rows++];
        row->index = index;
        row->slot = j->slot;
    }
}

static void build_batch(engine *g) {
    g->n_batch = g->n_rows = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        if (g->jobs[i]->generated > 0) {
            put_token(g, i, g->jobs[i]->last, true);
        }
    }
    int64_t prompt = 0;
    for (int i = 0; i < g->n_jobs; i++) {
        engine_job *j = g->jobs[i];
        while (j->position < j->ask.n_tokens && g->n_batch < g->step_tokens) {
            put_token(g, i, j->ask.tokens[j->position], j->position + 1 == j->ask.n_tokens);
            prompt++;
        }
    }
    atomic_fetch_add(&g->prompt_tokens, prompt);
}

static void sample_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    engine *g = arg;
    for (int i = begin; i < end; i++) {
        const float *logits = g->logits + (size_t)i * (size_t)g->m->shape.vocab;
        sampler_next(g->samplers[g->rows[i].slot], logits, &g->rows[i].choice);
    }
}

static void compute(engine *g) {
    pool_take(g->p);
    g->logits = forward_run(g->pass, g->kv, g->batch, g->n_batch);
    pool_run(g->p, g->n_rows, 1, sample_rows, g);
    pool_give(g->p);
}

static bool ends(const engine *g, const engine_job *j, int32_t id) {
    return g->m->tokens && !j->ask.ignore_eos && tokenizer_ends(g->m->tokens, id);
}

/* Hands the new token of jobs[index] on and looks whether it was the last one. */
static void take_token(engine *g, int index, const sampled *choice) {
    engine_job *j = g->jobs[index];
    int32_t     id = choice->token.id;
    j->last = id;
    j->generated++;
    if (!j->first_us) {
        j->first_us = clock_us();
    }
    if (ends(g, j, id)) {
        leave(g, index, FINISH_STOP, NULL, NULL);
        return;
    }
    const char *bytes = "";
    size_t      n = g->m->tokens ? tokenizer_piece(g->m->tokens, id, false, &bytes) : 0;
    text_span   shown;
    int         stop = text_add(&j->text, bytes, n, &shown);
    j->ask.piece(j->ask.ctx, &(engine_piece){.text = shown.text, .text_len = shown.len, .choice = choice});
    if (text_failed(&j->text)) {
        err why = {0};
        err_set(&why, ERR_MEMORY, "out of memory for the text of an answer");
        leave(g, index, FINISH_ERROR, NULL, &why);
    } else if (stop >= 0) {
        leave(g, index, FINISH_STOP, j->text.stop[stop].bytes, NULL);
    } else if (j->generated == j->ask.max_tokens || j->ask.n_tokens + j->generated >= g->context) {
        leave(g, index, FINISH_LENGTH, NULL, NULL);
    }
}

static void step(engine *g) {
    build_batch(g);
    compute(g);
    int64_t now = clock_us();
    atomic_fetch_add(&g->steps, 1);
    atomic_store(&g->last_step_us, now);
    if (g->n_rows > 0) {
        atomic_fetch_add(&g->completion_tokens, g->n_rows);
        atomic_store(&g->last_token_us, now);
    }
    for (int row = 0; row < g->n_rows; row++) {
        take_token(g, g->rows[row].index, &g->rows[row].choice);
    }
    close_gaps(g);
}

static void *schedule(void *arg) {
    engine *g = arg;
    while (gather(g)) {
        drop_cancelled(g);
        if (g->n_jobs > 0) {
            step(g);
        }
    }
    for (int i = 0; i < g->n_jobs; i++) {
        leave(g, i, FINISH_CANCELLED, NULL, NULL);
    }
    close_gaps(g);
    pthread_mutex_lock(&g->lock);
    engine_job *rest = g->first;
    g->first = g->last = NULL;
    atomic_store(&g->waiting, 0);
    pthread_mutex_unlock(&g->lock);
    finish_chain(rest);
    return NULL;
}

/* ---- opening and closing ---- */

static bool read_options(engine *g, const engine_options *o, err *e) {
    int most = g->m->shape.context;
    g->sequences = o->sequences > 0 ? o->sequences : DEFAULT_SEQUENCES;
    g->queue = o->queue > 0 ? o->queue : DEFAULT_QUEUE;
    g->step_tokens = o->step_tokens > 0 ? o->step_tokens : DEFAULT_STEP_TOKENS;
    g->context = o->context > 0 ? o->context : most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    if (g->context > most) {
        return err_set(e, ERR_INVALID, "a context of %d tokens is more than the %d that %s was made for", g->context,
                       most, g->m->name);
    }
    if (g->sequences > MOST_SEQUENCES || g->step_tokens > MOST_STEP_TOKENS) {
        return err_set(e, ERR_INVALID, "%d sequences and %d tokens a step: at most %d and %d are possible",
                       g->sequences, g->step_tokens, MOST_SEQUENCES, MOST_STEP_TOKENS);
    }
    if (g->context > INT32_MAX / g->sequences) {
        return err_set(e, ERR_INVALID, "%d sequences of %d tokens are too many; lower one of them", g->sequences,
                       g->context);
    }
    if (g->step_tokens < g->sequences) {
        g->step_tokens = g->sequences; /* every decoding sequence has its token in each step */
    }
    return true;
}

static bool take_memory(engine *g, kv_type type, err *e) {
    size_t n = (size_t)g->sequences;
    g->samplers = calloc(n, sizeof(*g->samplers));
    g->jobs = calloc(n, sizeof(*g->jobs));
    g->free_slots = calloc(n, sizeof(*g->free_slots));
    g->rows = calloc(n, sizeof(*g->rows));
    g->batch = calloc((size_t)g->step_tokens, sizeof(*g->batch));
    if (!g->samplers || !g->jobs || !g->free_slots || !g->rows || !g->batch) {
        return err_set(e, ERR_MEMORY, "out of memory for an engine of %d sequences", g->sequences);
    }
    for (int i = 0; i < g->sequences; i++) {
        g->free_slots[i] = g->sequences - 1 - i; /* slot 0 goes first: fewer pages are touched */
        g->samplers[i] = sampler_new(g->m->shape.vocab, e);
        if (!g->samplers[i]) {
            return false;
        }
    }
    g->n_free = g->sequences;
    g->kv = kv_open(&g->m->shape, g->sequences, g->context, type, e);
    g->pass = g->kv ? forward_new(g->m, g->p, g->step_tokens, g->sequences, e) : NULL;
    return g->pass != NULL;
}

static bool start_thread(engine *g, err *e) {
    sigset_t all, before; /* signals belong to the threads that expect them */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&g->thread, NULL, schedule, g);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    g->started = rc == 0;
    return g->started || err_set(e, ERR_IO, "cannot start the thread of an engine: %s", strerror(rc));
}

engine *engine_open(const model *m, pool *p, const engine_options *o, err *e) {
    engine *g = calloc(1, sizeof(*g));
    if (!g) {
        err_set(e, ERR_MEMORY, "out of memory for an engine");
        return NULL;
    }
    g->m = m;
    g->p = p;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->work, NULL);
    const engine_options defaults = {0};
    o = o ? o : &defaults;
    if (!read_options(g, o, e) || !take_memory(g, o->kv, e) || !start_thread(g, e)) {
        engine_close(g);
        return NULL;
    }
    return g;
}

void engine_close(engine *g) {
    if (!g) {
        return;
    }
    if (g->started) {
        pthread_mutex_lock(&g->lock);
        g->closing = true;
        pthread_cond_signal(&g->work);
        pthread_mutex_unlock(&g->lock);
        pthread_join(g->thread, NULL);
    }
    for (int i = 0; g->samplers && i < g->sequences; i++) {
        sampler_free(g->samplers[i]);
    }
    forward_free(g->pass);
    kv_close(g->kv);
    free(g->samplers);
    free(g->jobs);
    free(g->free_slots);
    free(g->rows);
    free(g->batch);
    pthread_cond_destroy(&g->work);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

int engine_context(const engine *g) {
    return g->context;
}

/* ---- submitting ---- */

static bool check_request(const engine *g, const engine_request *r, err *e) {
    if (r->n_tokens < 1) {
        return err_set(e, ERR_INVALID, "the prompt is empty; send at least one token");
    }
    if (r->n_tokens >= g->context) {
        return err_set(e, ERR_INVALID, "the prompt has %d tokens, the context of %s holds %d with the answer",
                       r->n_tokens, g->m->name, g->context);
    }
    if (r->max_tokens == 0) {
        return err_set(e, ERR_INVALID, "an answer of 0 tokens was asked for; ask for at least 1");
    }
    if (r->n_stop < 0 || r->n_stop > TEXT_MAX_STOP) {
        return err_set(e, ERR_LIMIT, "%d stop strings are too many; %d are possible", r->n_stop, TEXT_MAX_STOP);
    }
    for (int i = 0; i < r->n_tokens; i++) {
        if (r->tokens[i] < 0 || r->tokens[i] >= g->m->shape.vocab) {
            return err_set(e, ERR_INVALID, "token %d of the prompt is %d; the ids of %s go from 0 to %d", i,
                           r->tokens[i], g->m->name, g->m->shape.vocab - 1);
        }
    }
    return true;
}

static engine_job *make_job(engine *g, const engine_request *r) {
    arena      *memory = arena_new(sizeof(engine_job) + (size_t)r->n_tokens * sizeof(*r->tokens) + 256);
    engine_job *j = memory ? arena_zero(memory, 1, sizeof(*j)) : NULL;
    if (!j) {
        arena_free(memory);
        return NULL;
    }
    bool drop_space = r->fresh_text && g->m->tokens && tokenizer_strips_first_space(g->m->tokens);
    j->g = g;
    j->memory = memory;
    j->ask = *r;
    j->ask.tokens = (void *)arena_memdup(memory, r->tokens, (size_t)r->n_tokens * sizeof(*r->tokens));
    j->ask.stop = NULL; /* text_begin has its own */
    if (!j->ask.tokens || !text_begin(&j->text, r->stop, r->n_stop, drop_space, memory)) {
        free_job(j);
        return NULL;
    }
    return j;
}

/* Puts the job at the end of the line, if there is room. */
static bool stand_in_line(engine *g, engine_job *j, err *e) {
    bool ok = false;
    pthread_mutex_lock(&g->lock);
    int waiting = atomic_load(&g->waiting);
    if (g->closing) {
        err_set(e, ERR_BUSY, "%s is shutting down", g->m->name);
    } else if (waiting >= g->queue) {
        err_set(e, ERR_BUSY, "%s is busy: %d requests are waiting already; try again later", g->m->name, waiting);
    } else {
        j->submitted_us = clock_us();
        if (g->last) {
            g->last->next = j;
        } else {
            g->first = j;
        }
        g->last = j;
        if (waiting == 0 && atomic_load(&g->running) == 0) {
            atomic_store(&g->last_step_us, j->submitted_us);
        }
        atomic_store(&g->waiting, waiting + 1);
        atomic_fetch_add(&g->submitted, 1);
        pthread_cond_signal(&g->work);
        ok = true;
    }
    pthread_mutex_unlock(&g->lock);
    return ok;
}

engine_job *engine_submit(engine *g, const engine_request *r, err *e) {
    if (!check_request(g, r, e)) {
        return NULL;
    }
    engine_job *j = make_job(g, r);
    if (!j) {
        err_set(e, ERR_MEMORY, "out of memory for a prompt of %d tokens", r->n_tokens);
        return NULL;
    }
    if (!stand_in_line(g, j, e)) {
        free_job(j);
        return NULL;
    }
    return j;
}

void engine_cancel(engine_job *job) {
    engine *g = job->g;
    atomic_store(&job->cancelled, true);
    atomic_store(&g->cancel_seen, true);
}

void engine_stats_read(const engine *g, engine_stats *out) {
    *out = (engine_stats){.steps = atomic_load(&g->steps),
                          .prompt_tokens = atomic_load(&g->prompt_tokens),
                          .completion_tokens = atomic_load(&g->completion_tokens),
                          .jobs = atomic_load(&g->submitted),
                          .cancelled = atomic_load(&g->cancelled),
                          .running = atomic_load(&g->running),
                          .waiting = atomic_load(&g->waiting),
                          .sequences = g->sequences,
                          .last_token_us = atomic_load(&g->last_token_us),
                          .last_step_us = atomic_load(&g->last_step_us),
                          .kv_bytes = kv_bytes(g->kv),
                          .kv_used_tokens = atomic_load(&g->kv_used),
                          .kv_tokens = g->sequences * g->context};
}
