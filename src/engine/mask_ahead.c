/* mask_ahead.c - a thread, and a line of answers that want their next mask. First come, first served. */
#include "engine/mask_ahead.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"

typedef enum next_state {
    NEXT_IDLE,  /* nobody asked */
    NEXT_ASKED, /* in line, or being worked on: the matcher is the thread's */
    NEXT_READY
} next_state;

struct mask_next {
    mask_ahead *a;
    mask_next  *behind; /* in line */
    matcher    *m;
    bool        gone;  /* nobody wants it any more: the thread frees it */
    atomic_int  state; /* changed by the lock's holder, or without it by the owner of the matcher; read by any */
    uint64_t    bits[];
};

struct mask_ahead {
    pthread_t       thread;
    pthread_mutex_t lock; /* guards what follows, and `gone` */
    pthread_cond_t  asked, done;
    mask_next      *first, *last;
    bool            closing;
};

static void free_now(mask_next *n) {
    matcher_free(n->m);
    free(n);
}

/* ---- the thread ---- */

/* The next in line; NULL when the engine closes. Under the lock. */
static mask_next *take(mask_ahead *a) {
    while (!a->first && !a->closing) {
        pthread_cond_wait(&a->asked, &a->lock);
    }
    mask_next *n = a->first;
    if (n) {
        a->first = n->behind;
        a->last = a->first ? a->last : NULL;
    }
    return n;
}

static void *work(void *arg) {
    mask_ahead *a = arg;
    pthread_mutex_lock(&a->lock);
    for (mask_next *n; (n = take(a)) != NULL;) {
        bool gone = n->gone;
        pthread_mutex_unlock(&a->lock);
        if (!gone) {
            matcher_mask(n->m, n->bits);
        }
        pthread_mutex_lock(&a->lock);
        gone = n->gone;
        if (!gone) {
            atomic_store_explicit(&n->state, NEXT_READY, memory_order_release);
            pthread_cond_signal(&a->done);
        } else { /* its grammar may go with it, which takes a while */
            pthread_mutex_unlock(&a->lock);
            free_now(n);
            pthread_mutex_lock(&a->lock);
        }
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

mask_ahead *mask_ahead_start(err *e) {
    mask_ahead *a = calloc(1, sizeof(*a));
    if (!a) {
        err_set(e, ERR_MEMORY, "out of memory for the masks of an engine");
        return NULL;
    }
    pthread_condattr_t steady;
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->asked, NULL);
    pthread_cond_init(&a->done, &steady);
    pthread_condattr_destroy(&steady);
    if (!thread_start(&a->thread, work, a, "the thread that works out masks", e)) {
        pthread_cond_destroy(&a->asked);
        pthread_cond_destroy(&a->done);
        pthread_mutex_destroy(&a->lock);
        free(a);
        return NULL;
    }
    return a;
}

void mask_ahead_stop(mask_ahead *a) {
    if (!a) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    a->closing = true;
    pthread_cond_signal(&a->asked);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL); /* those in line are gone: the thread has freed them */
    pthread_cond_destroy(&a->asked);
    pthread_cond_destroy(&a->done);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* ---- an answer ---- */

mask_next *mask_next_new(mask_ahead *a, matcher *m, int vocab, err *e) {
    mask_next *n = calloc(1, sizeof(*n) + mask_words(vocab) * sizeof(n->bits[0]));
    if (!n) {
        matcher_free(m);
        err_set(e, ERR_MEMORY, "out of memory for the masks of an answer");
        return NULL;
    }
    n->a = a;
    n->m = m;
    atomic_init(&n->state, NEXT_IDLE);
    return n;
}

void mask_next_free(mask_next *n) {
    if (!n) {
        return;
    }
    mask_ahead *a = n->a;
    pthread_mutex_lock(&a->lock);
    n->gone = atomic_load_explicit(&n->state, memory_order_relaxed) == NEXT_ASKED;
    bool gone = n->gone;
    pthread_mutex_unlock(&a->lock);
    if (!gone) {
        free_now(n);
    }
}

void mask_next_ask(mask_next *n, mask_asks *with) {
    if (atomic_load_explicit(&n->state, memory_order_relaxed) != NEXT_IDLE) {
        return;
    }
    atomic_store_explicit(&n->state, NEXT_ASKED, memory_order_relaxed);
    n->behind = NULL;
    if (with->last) {
        with->last->behind = n;
    } else {
        with->first = n;
    }
    with->last = n;
}

void mask_asks_send(mask_asks *asks) {
    if (!asks->first) {
        return;
    }
    mask_ahead *a = asks->first->a;
    pthread_mutex_lock(&a->lock);
    bool idle = !a->first;
    if (idle) {
        a->first = asks->first;
    } else {
        a->last->behind = asks->first;
    }
    a->last = asks->last;
    pthread_mutex_unlock(&a->lock);
    if (idle) {
        pthread_cond_signal(&a->asked); /* without the lock: it would wake only to wait for it */
    }
    *asks = (mask_asks){0};
}

static bool is_ready(const mask_next *n) {
    return atomic_load_explicit(&n->state, memory_order_acquire) == NEXT_READY;
}

bool mask_next_ready(mask_next *n, int64_t until_us) {
    mask_ahead *a = n->a;
    if (is_ready(n) || until_us <= clock_us()) {
        return is_ready(n);
    }
    const struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_mutex_lock(&a->lock);
    while (!is_ready(n) && pthread_cond_timedwait(&a->done, &a->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&a->lock);
    return is_ready(n);
}

const uint64_t *mask_next_bits(const mask_next *n) {
    return n->bits;
}

matcher *mask_next_matcher(mask_next *n) {
    atomic_store_explicit(&n->state, NEXT_IDLE, memory_order_relaxed);
    return n->m;
}
