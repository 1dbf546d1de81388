#include "stage/flights.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/map.h"

struct flight {
    loop_task task; /* for `abandoned`, posted to the leader's loop */
    flights  *all;
    sha256    key;
    loop     *home;
    void (*abandoned)(void *);
    void     *ctx;
    follower *first;
    bool      unattended; /* the leader's own client has gone */
    bool      posted;     /* `task` is on its way to the loop */
    bool      landed;     /* the leader is done; whoever is last frees */
};

struct flights {
    pthread_mutex_t  lock;
    map             *by_key; /* SHA-256 -> flight pointer */
    _Atomic uint64_t landed;
};

flights *flights_new(void) {
    flights *f = calloc(1, sizeof *f);
    if (!f) {
        return NULL;
    }
    f->by_key = map_new(64);
    if (!f->by_key) {
        free(f);
        return NULL;
    }
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

void flights_free(flights *f) {
    if (f) {
        size_t      at = 0, n;
        const void *key;
        int64_t     left;
        while (map_next(f->by_key, &at, &key, &n, &left)) { /* their leaders ended with their loop */
            free((flight *)(intptr_t)left);
        }
        map_free(f->by_key);
        pthread_mutex_destroy(&f->lock);
        free(f);
    }
}

/* Runs on the leader's loop, where flight_land runs too: so the two cannot cross. */
static void run_abandoned(loop_task *t) {
    flight *f = (flight *)t;
    if (f->landed) {
        free(f);
        return;
    }
    pthread_mutex_lock(&f->all->lock); /* followers that come and go on other loops read it */
    f->posted = false;
    pthread_mutex_unlock(&f->all->lock);
    f->abandoned(f->ctx);
}

static void run_landed(loop_task *t) {
    follower *f = (follower *)t;
    f->landed(f->ctx, f->result);
}

flight *flight_join(flights *all, const sha256 *key, follower *f, loop *leader_loop, void (*abandoned)(void *),
                    void *leader_ctx, bool *out_of_memory) {
    *out_of_memory = false;
    flight *mine = calloc(1, sizeof *mine);
    if (!mine) {
        *out_of_memory = true;
        return NULL;
    }
    *mine = (flight){.task.run = run_abandoned,
                     .all = all,
                     .key = *key,
                     .home = leader_loop,
                     .abandoned = abandoned,
                     .ctx = leader_ctx};
    pthread_mutex_lock(&all->lock);
    int64_t known = 0;
    if (map_get(all->by_key, key->bytes, sizeof key->bytes, &known)) {
        flight *other = (flight *)(intptr_t)known;
        f->task.run = run_landed;
        f->of = other;
        f->prev = NULL;
        f->next = other->first;
        if (other->first) {
            other->first->prev = f;
        }
        other->first = f;
        pthread_mutex_unlock(&all->lock);
        free(mine);
        return NULL;
    }
    bool stored = map_put(all->by_key, key->bytes, sizeof key->bytes, (int64_t)(intptr_t)mine);
    pthread_mutex_unlock(&all->lock);
    if (!stored) {
        free(mine);
        *out_of_memory = true;
        return NULL;
    }
    return mine;
}

void flight_land(flights *all, flight *f, const cached *result) {
    pthread_mutex_lock(&all->lock);
    map_del(all->by_key, f->key.bytes, sizeof f->key.bytes);
    follower *waiting = f->first;
    f->first = NULL;
    for (follower *w = waiting; w; w = w->next) {
        w->of = NULL; /* flight_leave now answers false */
    }
    f->landed = true;
    atomic_fetch_add(&all->landed, 1);
    bool posted = f->posted;
    pthread_mutex_unlock(&all->lock);
    while (waiting) {
        follower *next = waiting->next; /* read first: once posted it may be gone */
        waiting->result = result;
        if (result) {
            cached_hold(result);
        }
        loop_post(waiting->home, &waiting->task);
        waiting = next;
    }
    if (!posted) {
        free(f);
    }
}

bool flight_keep(flights *all, flight *f) {
    pthread_mutex_lock(&all->lock);
    bool others = f->first != NULL;
    f->unattended = others;
    pthread_mutex_unlock(&all->lock);
    return others;
}

bool flight_leave(flights *all, follower *f) {
    pthread_mutex_lock(&all->lock);
    flight *of = f->of;
    if (!of) {
        pthread_mutex_unlock(&all->lock);
        return false;
    }
    if (f->prev) {
        f->prev->next = f->next;
    } else {
        of->first = f->next;
    }
    if (f->next) {
        f->next->prev = f->prev;
    }
    bool alone = !of->first && of->unattended && !of->posted;
    if (alone) {
        of->posted = true;
        loop_post(of->home, &of->task); /* under the lock, so that the flight cannot land and be freed in between */
    }
    pthread_mutex_unlock(&all->lock);
    return true;
}

uint64_t flights_landed(const flights *all) {
    return atomic_load(&((flights *)all)->landed);
}
