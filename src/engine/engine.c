/* engine.c - opening, submitting, telling. The work is done in schedule.c. */
#include "engine/engine.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "engine/schedule.h"
#include "engine/slide.h"

#define DEFAULT_SEQUENCES   16
#define DEFAULT_CONTEXT     8192
#define DEFAULT_QUEUE       1024
#define DEFAULT_STEP_TOKENS 128
#define MOST_SEQUENCES      4096
#define MOST_STEP_TOKENS    65536
#define CLEAN_BYTES         512

/* ---- opening and closing ---- */

bool engine_size_of(const model_shape *m, const char *name, const engine_options *o, engine_size *out, err *e) {
    engine_size s = {.sequences = o->sequences > 0 ? o->sequences : DEFAULT_SEQUENCES,
                     .queue = o->queue > 0 ? o->queue : DEFAULT_QUEUE,
                     .step_tokens = o->step_tokens > 0 ? o->step_tokens : DEFAULT_STEP_TOKENS};
    s.context = o->context > 0 ? o->context : m->context < DEFAULT_CONTEXT ? m->context : DEFAULT_CONTEXT;
    if (s.context < 2) {
        return err_set(e, ERR_INVALID, "a context of %d token leaves no room for an answer; ask for at least 2",
                       s.context);
    }
    if (s.context > m->context) {
        return err_set(e, ERR_INVALID, "a context of %d tokens is more than the %d that %s was made for", s.context,
                       m->context, name);
    }
    if (s.sequences > MOST_SEQUENCES || s.step_tokens > MOST_STEP_TOKENS) {
        return err_set(e, ERR_INVALID, "%d sequences and %d tokens a step: at most %d and %d are possible", s.sequences,
                       s.step_tokens, MOST_SEQUENCES, MOST_STEP_TOKENS);
    }
    if (s.context > INT32_MAX / s.sequences) {
        return err_set(e, ERR_INVALID, "%d sequences of %d tokens are too many; lower one of them", s.sequences,
                       s.context);
    }
    if (s.step_tokens < s.sequences + PACE_LEAST) {
        s.step_tokens = s.sequences + PACE_LEAST; /* every decoding sequence has its token in each step */
    }
    *out = s;
    return true;
}

static bool read_options(engine *g, const engine_options *o, err *e) {
    engine_size s;
    if (g->m->shape.headless) {
        return err_set(e, ERR_UNSUPPORTED, "%s makes embeddings and writes no text", g->m->name);
    }
    if (!engine_size_of(&g->m->shape, g->m->name, o, &s, e)) {
        return false;
    }
    g->sequences = s.sequences;
    g->context = s.context;
    g->queue = s.queue;
    g->step_tokens = s.step_tokens;
    return true;
}

static bool take_memory(engine *g, const engine_options *o, err *e) {
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
    g->line = fair_new(FAIR_CLIENTS, e);
    g->pace = g->line ? pace_new(g->sequences, o->step_us, e) : NULL;
    if (!g->pace) {
        return false;
    }
    g->kv = kv_open(&g->m->shape,
                    &(kv_options){.type = o->kv,
                                  .sequences = g->sequences,
                                  .context = g->context,
                                  .step_tokens = g->step_tokens,
                                  .bytes = o->kv_bytes,
                                  .disk = o->kv_disk,
                                  .disk_bytes = o->kv_disk_bytes,
                                  .model = o->fingerprint},
                    e);
    g->pass = g->kv ? forward_new(g->m, g->p, g->step_tokens, g->sequences, e) : NULL;
    return g->pass != NULL;
}

static bool start_thread(engine *g, err *e) {
    g->started = thread_start(&g->thread, schedule_thread, g, "the thread of an engine", e);
    return g->started;
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
    pthread_mutex_init(&g->tree_lock, NULL);
    pthread_condattr_t steady; /* a nap must not last longer because the wall clock was set back */
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&g->work, &steady);
    pthread_condattr_destroy(&steady);
    const engine_options defaults = {0};
    o = o ? o : &defaults;
    if (!read_options(g, o, e) || !take_memory(g, o, e) || !start_thread(g, e)) {
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
    fair_free(g->line);
    pace_free(g->pace);
    mask_ahead_stop(g->ahead);
    vocab_tree_free(g->tree);
    free(g->samplers);
    free(g->jobs);
    free(g->free_slots);
    free(g->rows);
    free(g->batch);
    pthread_cond_destroy(&g->work);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->tree_lock);
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
    if (r->n_tokens >= g->context && !r->slide) {
        return err_set(e, ERR_INVALID, "the prompt has %d tokens, the context of %s holds %d with the answer",
                       r->n_tokens, g->m->name, g->context);
    }
    if (r->max_tokens == 0) {
        return err_set(e, ERR_INVALID, "an answer of 0 tokens was asked for; ask for at least 1");
    }
    if (r->n_stop < 0 || r->n_stop > TEXT_MAX_STOP) {
        return err_set(e, ERR_LIMIT, "%d stop strings are too many; %d are possible", r->n_stop, TEXT_MAX_STOP);
    }
    if (r->grammar && !g->m->tokens) {
        return err_set(e, ERR_UNSUPPORTED, "%s has no tokenizer, so its answers cannot follow a grammar", g->m->name);
    }
    for (int i = 0; i < r->n_tokens; i++) {
        if (r->tokens[i] < 0 || r->tokens[i] >= g->m->shape.vocab) {
            return err_set(e, ERR_INVALID, "token %d of the prompt is %d; the ids of %s go from 0 to %d", i,
                           r->tokens[i], g->m->name, g->m->shape.vocab - 1);
        }
    }
    return true;
}

/* Copies the prompt, or what stays of one that is too long, into memory with room for the answer. */
static bool copy_prompt(const engine *g, engine_job *j, const engine_request *r) {
    bool cut = r->n_tokens >= g->context;
    int  keep = slide_keep(r->slide_keep, g->context);
    j->n = cut ? slide_left(keep, g->context) : r->n_tokens;
    j->slid = r->n_tokens - j->n;
    int room = r->max_tokens > 0 && r->max_tokens < g->context - j->n ? j->n + r->max_tokens : g->context;
    j->tokens = arena_alloc(j->memory, (size_t)room * sizeof(*j->tokens));
    if (j->tokens && cut) {
        slide_tokens(j->tokens, r->tokens, r->n_tokens, keep, g->context);
    } else if (j->tokens) {
        memcpy(j->tokens, r->tokens, (size_t)j->n * sizeof(*j->tokens));
    }
    return j->tokens != NULL;
}

static engine_job *make_job(engine *g, const engine_request *r) {
    arena      *memory = arena_new(sizeof(engine_job) + 256);
    engine_job *j = memory ? arena_zero(memory, 1, sizeof(*j)) : NULL;
    if (!j) {
        arena_free(memory);
        return NULL;
    }
    bool follows = r->grammar && !r->trigger; /* then each byte of the text is the grammar's */
    bool drop_space = r->fresh_text && !follows && g->m->tokens && tokenizer_strips_first_space(g->m->tokens);
    j->g = g;
    j->memory = memory;
    j->ask = *r;
    j->ask.tokens = NULL; /* j->tokens and the automata of text_begin are its own */
    j->ask.stop = NULL;
    if (!copy_prompt(g, j, r) || !text_begin(&j->text, r->stop, r->n_stop, drop_space, memory) ||
        !str_reserve(&j->text.clean, CLEAN_BYTES)) { /* now, not in the step that brings the first broken character */
        job_free(j);
        return NULL;
    }
    return j;
}

/* What the first grammar needs, once: the tokens as a tree, and the thread that works out masks. */
static bool prepare_grammars(engine *g, err *e) {
    pthread_mutex_lock(&g->tree_lock);
    g->tree = g->tree ? g->tree : vocab_tree_new(g->m->tokens, g->m->shape.vocab, e);
    g->ahead = g->ahead || !g->tree ? g->ahead : mask_ahead_start(e);
    bool ok = g->tree && g->ahead;
    pthread_mutex_unlock(&g->tree_lock);
    return ok;
}

static bool begin_grammar(engine *g, engine_job *j, const engine_request *r, err *e) {
    if (!r->grammar) {
        return true;
    }
    matcher *m = prepare_grammars(g, e) ? matcher_new(r->grammar, g->tree, r->trigger, e) : NULL;
    j->mask = m ? mask_next_new(g->ahead, m, g->m->shape.vocab, e) : NULL;
    return j->mask != NULL;
}

static int clamp_priority(int priority) {
    return priority < -MOST_PRIORITY ? -MOST_PRIORITY : priority > MOST_PRIORITY ? MOST_PRIORITY : priority;
}

/* Puts the job into the line, if there is room. */
static bool stand_in_line(engine *g, engine_job *j, err *e) {
    bool ok = false;
    pthread_mutex_lock(&g->lock);
    int waiting = atomic_load(&g->told.waiting);
    if (g->closing) {
        err_set(e, ERR_BUSY, "%s is shutting down", g->m->name);
    } else if (waiting >= g->queue) {
        err_set(e, ERR_BUSY, "%s is busy: %d requests are waiting already; try again later", g->m->name, waiting);
    } else {
        j->submitted_us = clock_us();
        fair_join(g->line, &j->place, j->ask.client, clamp_priority(j->ask.priority));
        if (waiting == 0 && atomic_load(&g->told.running) == 0) {
            told_set(&g->told.last_step_us, j->submitted_us);
        }
        atomic_fetch_add(&g->told.waiting, 1);
        told_add(&g->told.line_tokens, j->n);
        told_add(&g->told.jobs, 1);
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
    if (!begin_grammar(g, j, r, e) || !stand_in_line(g, j, e)) {
        job_free(j);
        return NULL;
    }
    return j;
}

void engine_cancel(engine_job *job) {
    engine *g = job->g;
    atomic_store(&job->cancelled, true);
    atomic_store(&g->cancel_seen, true);
}

/* ---- telling ---- */

static int64_t told(const _Atomic int64_t *from) {
    return atomic_load_explicit(from, memory_order_relaxed);
}

void engine_stats_read(const engine *g, engine_stats *out) {
    const telling *t = &g->told;
    int64_t        backlog = told(&t->line_tokens) + told(&t->begun_tokens);
    *out = (engine_stats){.steps = told(&t->steps),
                          .prompt_tokens = told(&t->prompt_tokens),
                          .completion_tokens = told(&t->completion_tokens),
                          .jobs = told(&t->jobs),
                          .cancelled = told(&t->cancelled),
                          .preempted = told(&t->preempted),
                          .running = atomic_load(&t->running),
                          .decoding = atomic_load(&t->decoding),
                          .waiting = atomic_load(&t->waiting),
                          .sequences = g->sequences,
                          .backlog_tokens = backlog,
                          .backlog_s = (double)backlog * (double)told(&t->token_ns) * 1e-9,
                          .last_token_us = told(&t->last_token_us),
                          .last_step_us = told(&t->last_step_us),
                          .kv = kv_usage_read(g->kv)};
    histogram_read(&t->first_token, 1e-6, &out->first_token);
    histogram_read(&t->inter_token, 1e-6, &out->inter_token);
    histogram_read(&t->queued, 1e-6, &out->queued);
    histogram_read(&t->step, 1e-6, &out->step);
    histogram_read(&t->batch, 1, &out->batch);
}
