/* libpare_call.c - calls that wait, and cancellers that end them.
 *
 * Locks are taken in this order: a canceller's, a call's, the engine's. The thread that runs the job takes the call's
 * alone. Stopping a job sets flags and waits for nothing.                                                            */
#include <stdlib.h>

#include "engine/libpare_parts.h"

struct pare_canceller {
    pthread_mutex_t lock;
    bool            set;
    waiting        *first;
};

void waiting_begin(waiting *w, pare_canceller *canceller, void (*stop)(void *job)) {
    *w = (waiting){.canceller = canceller, .stop = stop};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
    if (!canceller) {
        return;
    }
    pthread_mutex_lock(&canceller->lock);
    w->cancelled = canceller->set;
    w->next = canceller->first;
    if (w->next) {
        w->next->prev = w;
    }
    canceller->first = w;
    pthread_mutex_unlock(&canceller->lock);
}

void waiting_end(waiting *w) {
    if (w->canceller) {
        pthread_mutex_lock(&w->canceller->lock);
        *(w->prev ? &w->prev->next : &w->canceller->first) = w->next;
        if (w->next) {
            w->next->prev = w->prev;
        }
        pthread_mutex_unlock(&w->canceller->lock);
    }
    pthread_cond_destroy(&w->change);
    pthread_mutex_destroy(&w->lock);
}

void waiting_cancel(waiting *w) {
    pthread_mutex_lock(&w->lock);
    w->cancelled = true;
    if (w->job) {
        w->stop(w->job);
    }
    pthread_mutex_unlock(&w->lock);
}

void waiting_started(waiting *w, void *job) {
    w->job = job;
    if (w->cancelled) {
        w->stop(job);
    }
}

void waiting_done(waiting *w) {
    pthread_mutex_lock(&w->lock);
    w->job = NULL;
    w->done = true;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
}

/* ---- cancellers ---- */

pare_canceller *pare_canceller_new(void) {
    pare_canceller *c = calloc(1, sizeof(*c));
    if (c) {
        pthread_mutex_init(&c->lock, NULL);
    }
    return c;
}

void pare_cancel(pare_canceller *c) {
    if (!c) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->set = true;
    for (waiting *w = c->first; w; w = w->next) {
        waiting_cancel(w);
    }
    pthread_mutex_unlock(&c->lock);
}

void pare_canceller_reset(pare_canceller *c) {
    if (c) {
        pthread_mutex_lock(&c->lock);
        c->set = false;
        pthread_mutex_unlock(&c->lock);
    }
}

void pare_canceller_free(pare_canceller *c) {
    if (c) {
        pthread_mutex_destroy(&c->lock);
        free(c);
    }
}
