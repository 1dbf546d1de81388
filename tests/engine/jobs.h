/* jobs.h - submitting jobs in a test, and keeping what came of them. */
#ifndef TESTS_ENGINE_JOBS_H
#define TESTS_ENGINE_JOBS_H

#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "engine/engine.h"

#define MOST 600

typedef struct answer { /* what one job gave; `done` counts, for exactly one is right */
    pthread_mutex_t lock;
    pthread_cond_t  over;
    int32_t         ids[MOST];
    int             n, done;
    engine_finish   finish;
    engine_result   result;
    engine_job     *job; /* NULL before submit has returned and after done */
    int             delay_us;
    int             number; /* in the order of `done`, from 1 */
    atomic_int     *counter;
} answer;

static inline void on_piece(void *ctx, const engine_piece *piece) {
    answer *a = ctx;
    pthread_mutex_lock(&a->lock);
    if (a->n < MOST) {
        a->ids[a->n++] = piece->choice->token.id;
    }
    pthread_mutex_unlock(&a->lock);
    if (a->delay_us) {
        usleep((useconds_t)a->delay_us);
    }
}

static inline void on_done(void *ctx, const engine_result *r) {
    answer *a = ctx;
    pthread_mutex_lock(&a->lock);
    a->done++;
    a->finish = r->finish;
    a->result = *r;
    a->job = NULL;
    if (a->counter) {
        a->number = atomic_fetch_add(a->counter, 1) + 1;
    }
    pthread_cond_broadcast(&a->over);
    pthread_mutex_unlock(&a->lock);
}

static inline answer *new_answer(void) {
    answer *a = calloc(1, sizeof(*a));
    assert_non_null(a);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->over, NULL);
    return a;
}

static inline void free_answer(answer *a) {
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->over);
    free(a);
}

static inline void wait_for(answer *a) {
    pthread_mutex_lock(&a->lock);
    while (!a->done) {
        pthread_cond_wait(&a->over, &a->lock);
    }
    pthread_mutex_unlock(&a->lock);
}

static inline void wait_for_tokens(answer *a, int n) {
    for (bool enough = false; !enough; usleep(500)) {
        pthread_mutex_lock(&a->lock);
        enough = a->n >= n || a->done;
        pthread_mutex_unlock(&a->lock);
    }
}

static inline bool submit(engine *g, answer *a, engine_request r, err *e) {
    r.piece = on_piece;
    r.done = on_done;
    r.ctx = a;
    engine_job *job = engine_submit(g, &r, e);
    pthread_mutex_lock(&a->lock);
    a->job = a->done ? NULL : job;
    pthread_mutex_unlock(&a->lock);
    return job != NULL;
}

static inline void cancel(answer *a) {
    pthread_mutex_lock(&a->lock);
    if (a->job) {
        engine_cancel(a->job);
    }
    pthread_mutex_unlock(&a->lock);
}

#endif
