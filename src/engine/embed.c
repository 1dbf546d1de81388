/* embed.c - the embedder's thread and its step.
 *
 * The lock guards the list of open jobs; everything else belongs to the thread. A step takes all its texts to the end,
 * so a job needs no state but how many of its texts are done. Keys and values live for one step.                     */
#include "engine/embed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "engine/forward.h"
#include "engine/kv.h"
#include "engine/pooling.h"
#include "engine/rank.h"

#define DEFAULT_STEP_TOKENS 2048
#define DEFAULT_QUEUE       65536
#define STEP_TEXTS          256
#define STEP_US             50000 /* engines that share the pool have answers to write between two steps */
#define LEAST_TOKENS        256   /* of a step however long it takes: smaller ones cost more a token */

struct embed_job {
    embed_job    *next, *prev;
    embedder     *of;
    embed_request ask;
    atomic_bool   cancelled;
    int           taken; /* texts that are done or in this step */
    int64_t       tokens, submitted_us, started_us;
};

typedef struct step_text {
    embed_job *job;
    int        which, rows;
} step_text;

typedef struct counts { /* written by the thread, but for jobs and waiting, under the lock; read by any */
    _Atomic int64_t jobs, texts, tokens, steps, cancelled, waiting, last_step_us;
} counts;

struct embedder {
    const model *m;
    pool        *p;
    pooling      how;
    int          context, step_tokens, queue, width;
    int64_t      kv_tokens;
    kv_type      type;
    pthread_t    thread;
    bool         started;

    pthread_mutex_t lock;
    pthread_cond_t  work;
    embed_job      *first, *last; /* open jobs; the next step begins with the first */
    bool            closing;
    counts          told;

    /* The thread's own. */
    kv_cache      *kv;
    forward       *pass;
    rank_head     *head; /* NULL: no model that ranks */
    forward_token *batch;
    step_text     *texts; /* [STEP_TEXTS] of the step at hand */
    int            n_texts, n_batch;
    double         token_us; /* measured; 0: not yet */
};

static void count(_Atomic int64_t *to, int64_t n) {
    atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

/* ---- the open jobs; with the lock held ---- */

static void append(embedder *m, embed_job *j) {
    j->prev = m->last;
    j->next = NULL;
    *(m->last ? &m->last->next : &m->first) = j;
    m->last = j;
}

static void take_out(embedder *m, embed_job *j) {
    *(j->prev ? &j->prev->next : &m->first) = j->next;
    *(j->next ? &j->next->prev : &m->last) = j->prev;
}

/* ---- the end of a job; on the thread, without the lock ---- */

static void finish(embed_job *j, bool cancelled, const err *why) {
    embedder    *m = j->of;
    int64_t      now = clock_us();
    embed_result r = {.cancelled = cancelled,
                      .error = why,
                      .tokens = j->tokens,
                      .queued_us = (j->started_us ? j->started_us : now) - j->submitted_us};
    pthread_mutex_lock(&m->lock);
    take_out(m, j);
    pthread_mutex_unlock(&m->lock);
    count(&m->told.waiting, j->taken - j->ask.n_texts);
    count(&m->told.cancelled, cancelled);
    j->ask.done(j->ask.ctx, &r);
    free(j);
}

/* ---- what a step takes ---- */

/* Tokens that a step may have so that others who share the pool get their turns. */
static int room_of(const embedder *m) {
    double fits = m->token_us > 0 ? STEP_US / m->token_us : LEAST_TOKENS;
    int    least = m->step_tokens < LEAST_TOKENS ? m->step_tokens : LEAST_TOKENS;
    return fits < least ? least : fits < m->step_tokens ? (int)fits : m->step_tokens;
}

static bool take_text(embedder *m, embed_job *j, int room) {
    if (j->taken == j->ask.n_texts || m->n_texts == STEP_TEXTS) {
        return false;
    }
    int n = j->ask.texts[j->taken].n;
    if (m->n_texts > 0 && n > room - m->n_batch) {
        return false;
    }
    m->texts[m->n_texts++] = (step_text){.job = j, .which = j->taken++};
    m->n_batch += n;
    return true;
}

/* With the lock held. One text of each job in turn until no further one fits; the job that was first goes last. */
static void choose(embedder *m) {
    int room = room_of(m);
    m->n_texts = m->n_batch = 0;
    for (bool more = m->first != NULL; more;) {
        more = false;
        for (embed_job *j = m->first; j; j = j->next) {
            more |= take_text(m, j, room);
        }
    }
    embed_job *served = m->first;
    if (served && served != m->last) {
        take_out(m, served);
        append(m, served);
    }
}

/* Waits for work. False when the embedder closes. */
static bool gather(embedder *m) {
    pthread_mutex_lock(&m->lock);
    while (!m->closing && !m->first) {
        pthread_cond_wait(&m->work, &m->lock);
    }
    bool open = !m->closing;
    pthread_mutex_unlock(&m->lock);
    return open;
}

static void drop_cancelled(embedder *m, bool all) {
    for (;;) {
        pthread_mutex_lock(&m->lock);
        embed_job *j = m->first;
        while (j && !all && !atomic_load(&j->cancelled)) {
            j = j->next;
        }
        pthread_mutex_unlock(&m->lock);
        if (!j) {
            return;
        }
        finish(j, true, NULL);
    }
}

/* ---- a step ---- */

static const embed_text *text_of(const step_text *t) {
    return &t->job->ask.texts[t->which];
}

static float *vector_of(const embedder *m, const step_text *t) {
    return t->job->ask.out + (size_t)t->which * (size_t)m->width;
}

/* Tokens [from, to) of a text as a batch. What looks both ways needs all rows; elsewhere only those that are pooled. */
static int put_tokens(const embedder *m, forward_token *batch, const embed_text *t, int sequence, int from, int to) {
    int  rows = 0;
    bool all = !m->m->shape.causal, typed = t->second > 0 && m->m->token_types.rows > 1;
    for (int i = from; i < to; i++) {
        bool wanted = all || pooling_wants(m->how, i, t->n);
        *batch++ = (forward_token){
            .id = t->ids[i], .sequence = sequence, .position = i, .logits = wanted, .type = typed && i >= t->second};
        rows += wanted;
    }
    return rows;
}

static void give_vector(const embedder *m, const step_text *t, const float *rows, int n) {
    float *out = vector_of(m, t);
    if (m->head) {
        *out = rank_score(m->head, rows);
    } else {
        pooling_rows(m->how, rows, n, m->width, out);
    }
}

static void note_step(embedder *m, int tokens, int64_t us) {
    double each = (double)us / tokens;
    if (tokens >= LEAST_TOKENS / 2) { /* a single short text says little about a full step */
        m->token_us = m->token_us > 0 ? 0.8 * m->token_us + 0.2 * each : each;
    }
    count(&m->told.steps, 1);
    count(&m->told.tokens, tokens);
    count(&m->told.texts, m->n_texts);
    count(&m->told.waiting, -m->n_texts);
    atomic_store_explicit(&m->told.last_step_us, clock_us(), memory_order_relaxed);
}

static bool run_packed(embedder *m, err *e) {
    int at = 0;
    for (int i = 0; i < m->n_texts; i++) {
        const embed_text *t = text_of(&m->texts[i]);
        kv_begin(m->kv, i, (kv_scope){0}, t->ids, t->n, false);
        if (!kv_reserve(m->kv, i, t->n)) {
            return err_set(e, ERR_INTERNAL, "%s has no room for a text of %d tokens; this is a bug", m->m->name, t->n);
        }
        m->texts[i].rows = put_tokens(m, m->batch + at, t, i, 0, t->n);
        at += t->n;
    }
    pool_take(m->p);
    int64_t      begun = clock_us();
    const float *rows = forward_rows(m->pass, m->kv, m->batch, at);
    for (int i = 0; i < m->n_texts; i++) {
        give_vector(m, &m->texts[i], rows, m->texts[i].rows);
        rows += (size_t)m->texts[i].rows * (size_t)m->m->shape.dim;
    }
    int64_t us = clock_us() - begun;
    pool_give(m->p);
    note_step(m, at, us);
    return true;
}

/* ---- one text that is longer than a step ---- */

/* A mean grows by pieces: what the rows so far gave, and those of this piece. */
static void add_piece(const embedder *m, const step_text *t, const float *rows, int n, int before) {
    if (n == 0) {
        return;
    }
    if (m->how != POOLING_MEAN || before == 0) {
        give_vector(m, t, rows, n);
        return;
    }
    float *out = vector_of(m, t), share = (float)n / (float)(before + n);
    for (int i = 0; i < m->width; i++) {
        double sum = 0;
        for (int row = 0; row < n; row++) {
            sum += (double)rows[(size_t)row * (size_t)m->width + (size_t)i];
        }
        out[i] += ((float)(sum / n) - out[i]) * share;
    }
}

static void run_pieces(embedder *m, forward *pass, kv_cache *kv, forward_token *batch, int piece) {
    const step_text  *t = &m->texts[0];
    const embed_text *text = text_of(t);
    int64_t           us = 0;
    for (int from = 0; from < text->n; from += piece) {
        int to = text->n - from < piece ? text->n : from + piece;
        int n = put_tokens(m, batch, text, 0, from, to);
        pool_take(m->p);
        int64_t begun = clock_us();
        add_piece(m, t, forward_rows(pass, kv, batch, to - from), n, from);
        us += clock_us() - begun;
        pool_give(m->p);
        if (atomic_load(&t->job->cancelled)) {
            break;
        }
    }
    note_step(m, text->n, us);
}

/* What looks both ways must have all tokens in one pass; others go in pieces through the usual one. */
static bool run_long(embedder *m, err *e) {
    const embed_text *text = text_of(&m->texts[0]);
    bool              whole = !m->m->shape.causal;
    kv_cache         *kv = kv_open(&m->m->shape, &(kv_options){.type = m->type, .sequences = 1, .context = text->n}, e);
    forward          *pass = kv && whole ? forward_new(m->m, m->p, text->n, 1, e) : m->pass;
    forward_token    *batch = whole ? calloc((size_t)text->n, sizeof(*batch)) : m->batch;
    bool ok = kv && pass && (batch || err_set(e, ERR_MEMORY, "out of memory for a text of %d tokens", text->n));
    if (ok) {
        forward_set_context(pass, m->context);
        kv_begin(kv, 0, (kv_scope){0}, text->ids, text->n, false);
        ok = kv_reserve(kv, 0, text->n) ||
             err_set(e, ERR_INTERNAL, "a text of %d tokens has no room; this is a bug", text->n);
    }
    if (ok) {
        run_pieces(m, pass, kv, batch, whole ? text->n : room_of(m));
    }
    if (whole) {
        forward_free(pass == m->pass ? NULL : pass);
        free(batch);
    }
    kv_close(kv);
    return ok;
}

/* ---- the thread ---- */

/* Who has all vectors is done; when the step failed, all that had a part in it. */
static void finish_step(embedder *m, const err *why) {
    for (int i = 0; i < m->n_texts; i++) {
        embed_job *j = m->texts[i].job;
        bool       last = true;
        for (int k = i + 1; k < m->n_texts && last; k++) {
            last = m->texts[k].job != j;
        }
        if (last && (why || j->taken == j->ask.n_texts)) {
            finish(j, false, why);
        }
    }
}

static void step(embedder *m) {
    err     e = {0};
    int64_t now = clock_us();
    for (int i = 0; i < m->n_texts; i++) {
        embed_job *j = m->texts[i].job;
        j->started_us = j->started_us ? j->started_us : now;
        j->tokens += text_of(&m->texts[i])->n;
    }
    bool ok = m->n_batch > m->step_tokens ? run_long(m, &e) : run_packed(m, &e);
    for (int i = 0; i < m->n_texts; i++) {
        kv_release(m->kv, i);
    }
    if (!ok) {
        count(&m->told.waiting, -m->n_texts);
    }
    finish_step(m, ok ? NULL : &e);
}

static void *run(void *arg) {
    embedder *m = arg;
    while (gather(m)) {
        drop_cancelled(m, false);
        pthread_mutex_lock(&m->lock);
        choose(m);
        pthread_mutex_unlock(&m->lock);
        if (m->n_texts > 0) {
            step(m);
        }
    }
    drop_cancelled(m, true);
    return NULL;
}

/* ---- opening and closing ---- */

embed_size embed_size_of(const model_shape *s, const embed_options *o) {
    embed_size is = {.context = o->context > 0 && o->context < s->context ? o->context : s->context};
    int        step = o->step_tokens > 0 ? o->step_tokens : DEFAULT_STEP_TOKENS;
    is.step_tokens = is.context * (int64_t)STEP_TEXTS < step ? is.context * STEP_TEXTS : step;
    is.rows = is.step_tokens;
    is.kv_tokens = (int64_t)is.step_tokens + (int64_t)STEP_TEXTS * KV_TOKENS; /* a last block of each is not full */
    if (is.context > is.step_tokens) {
        is.long_kv_tokens = is.context;
        is.long_rows = s->causal ? 0 : is.context;
    }
    return is;
}

static bool read_options(embedder *m, const embed_options *o, err *e) {
    const model_shape *s = &m->m->shape;
    const embed_size   is = embed_size_of(s, o);
    m->how = s->pooling == POOLING_RANK || o->pooling == POOLING_NONE ? s->pooling : o->pooling;
    m->context = is.context;
    m->step_tokens = is.step_tokens;
    m->kv_tokens = is.kv_tokens;
    m->queue = o->queue > 0 ? o->queue : DEFAULT_QUEUE;
    m->type = o->kv;
    m->width = m->how == POOLING_RANK ? 1 : s->dim;
    return m->how != POOLING_NONE || err_set(e, ERR_UNSUPPORTED,
                                             "the file of %s does not say how rows become one vector (pooling_type); "
                                             "set pooling: mean, cls or last if it is made for embeddings",
                                             m->m->name);
}

static bool take_memory(embedder *m, err *e) {
    int        longest = m->context < m->step_tokens ? m->context : m->step_tokens;
    kv_options o = {.type = m->type, .sequences = STEP_TEXTS, .context = longest};
    o.bytes = kv_bytes_of(&m->m->shape, m->type, m->kv_tokens);
    m->batch = calloc((size_t)m->step_tokens, sizeof(*m->batch));
    m->texts = calloc(STEP_TEXTS, sizeof(*m->texts));
    if (!m->batch || !m->texts) {
        return err_set(e, ERR_MEMORY, "out of memory for steps of %d tokens", m->step_tokens);
    }
    m->kv = kv_open(&m->m->shape, &o, e);
    m->pass = m->kv ? forward_new(m->m, m->p, m->step_tokens, 1, e) : NULL;
    if (!m->pass) {
        return false;
    }
    forward_set_context(m->pass, m->context);
    m->head = m->how == POOLING_RANK ? rank_open(m->m, e) : NULL;
    return m->head || m->how != POOLING_RANK;
}

static bool start_thread(embedder *m, err *e) {
    m->started = thread_start(&m->thread, run, m, "the thread of an embedder", e);
    return m->started;
}

embedder *embed_open(const model *model, pool *p, const embed_options *o, err *e) {
    static const embed_options defaults;
    embedder                  *m = calloc(1, sizeof(*m));
    if (!m) {
        err_set(e, ERR_MEMORY, "out of memory for an embedder");
        return NULL;
    }
    m->m = model;
    m->p = p;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->work, NULL);
    if (!read_options(m, o ? o : &defaults, e) || !take_memory(m, e) || !start_thread(m, e)) {
        embed_close(m);
        return NULL;
    }
    return m;
}

void embed_stop(embedder *m) {
    if (!m || !m->started) {
        return;
    }
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    pthread_cond_signal(&m->work);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    m->started = false;
}

void embed_close(embedder *m) {
    if (!m) {
        return;
    }
    embed_stop(m);
    rank_close(m->head);
    forward_free(m->pass);
    kv_close(m->kv);
    free(m->batch);
    free(m->texts);
    pthread_cond_destroy(&m->work);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int embed_context(const embedder *m) {
    return m->context;
}

int embed_width(const embedder *m) {
    return m->width;
}

/* ---- submitting ---- */

static bool check_text(const embedder *m, const embed_text *t, int which, err *e) {
    if (t->n < 1) {
        return err_set(e, ERR_INVALID, "text %d has no tokens", which);
    }
    if (t->n > m->context) {
        return err_set(e, ERR_CONTEXT, "text %d has %d tokens, the context of %s holds %d", which, t->n, m->m->name,
                       m->context);
    }
    for (int i = 0; i < t->n; i++) {
        if (t->ids[i] < 0 || t->ids[i] >= m->m->shape.vocab) {
            return err_set(e, ERR_INVALID, "token %d of text %d is %d; the ids of %s go from 0 to %d", i, which,
                           t->ids[i], m->m->name, m->m->shape.vocab - 1);
        }
    }
    return true;
}

static bool enter(embedder *m, embed_job *j, err *e) {
    int n = j->ask.n_texts;
    pthread_mutex_lock(&m->lock);
    int64_t waiting = atomic_load(&m->told.waiting);
    bool    full = waiting > 0 && waiting + n > m->queue; /* a list that is longer than the queue still has its turn */
    if (m->closing) {
        err_set(e, ERR_BUSY, "%s is shutting down", m->m->name);
    } else if (full) {
        err_set(e, ERR_BUSY, "%s is busy: %lld texts are waiting already; try again later", m->m->name,
                (long long)waiting);
    } else {
        j->submitted_us = clock_us();
        if (!m->first) {
            atomic_store(&m->told.last_step_us, j->submitted_us);
        }
        append(m, j);
        count(&m->told.waiting, n);
        count(&m->told.jobs, 1);
        pthread_cond_signal(&m->work);
    }
    bool ok = !m->closing && !full;
    pthread_mutex_unlock(&m->lock);
    return ok;
}

embed_job *embed_submit(embedder *m, const embed_request *r, err *e) {
    if (r->n_texts < 1) {
        err_set(e, ERR_INVALID, "there is no text");
        return NULL;
    }
    for (int i = 0; i < r->n_texts; i++) {
        if (!check_text(m, &r->texts[i], i, e)) {
            return NULL;
        }
    }
    embed_job *j = calloc(1, sizeof(*j));
    if (!j) {
        err_set(e, ERR_MEMORY, "out of memory for %d texts", r->n_texts);
        return NULL;
    }
    j->of = m;
    j->ask = *r;
    if (!enter(m, j, e)) {
        free(j);
        return NULL;
    }
    return j;
}

void embed_cancel(embed_job *job) {
    atomic_store(&job->cancelled, true);
}

void embed_stats_read(const embedder *m, embed_stats *out) {
    const counts *t = &m->told;
    *out = (embed_stats){.jobs = atomic_load(&t->jobs),
                         .texts = atomic_load(&t->texts),
                         .tokens = atomic_load(&t->tokens),
                         .steps = atomic_load(&t->steps),
                         .cancelled = atomic_load(&t->cancelled),
                         .waiting = atomic_load(&t->waiting),
                         .last_step_us = atomic_load(&t->last_step_us)};
}
