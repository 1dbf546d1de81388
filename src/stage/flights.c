#include "stage/flights.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/spare.h"

#define SHARDS     16  /* by the key's first byte: loops seldom want the same one */
#define CHAINS     256 /* of a shard, by the second: a chain of one among four thousand requests in flight */
#define CACHE_LINE 64  /* bytes */

struct flight {
    loop_task task; /* for `abandoned`, posted to the leader's loop */
    flights  *all;
    sha256    key;
    loop     *home;
    void (*abandoned)(void *);
    void     *ctx;
    flight   *chain; /* the next of the same chain */
    follower *first;
    bool      unattended; /* the leader's own client has gone */
    bool      posted;     /* `task` is on its way to the loop */
    bool      landed;     /* the leader is done; whoever is last frees */
};

typedef struct shard {
    _Alignas(CACHE_LINE) pthread_mutex_t lock;
    flight *chains[CHAINS];
} shard;

struct flights {
    shard shards[SHARDS];
    _Alignas(CACHE_LINE) _Atomic uint64_t landed;
};

static shard *shard_of(flights *all, const sha256 *key) {
    return &all->shards[key->bytes[0] % SHARDS];
}

/* Where the flight of this key stands, or would. */
static flight **find(shard *s, const sha256 *key) {
    flight **at = &s->chains[key->bytes[1] % CHAINS];
    while (*at && memcmp(&(*at)->key, key, sizeof *key) != 0) {
        at = &(*at)->chain;
    }
    return at;
}

flights *flights_new(void) {
    flights *f = aligned_alloc(CACHE_LINE, sizeof *f);
    if (!f) {
        return NULL;
    }
    memset(f, 0, sizeof *f);
    for (int i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&f->shards[i].lock, NULL);
    }
    return f;
}

void flights_free(flights *f) {
    for (int i = 0; f && i < SHARDS; i++) {
        for (int k = 0; k < CHAINS; k++) { /* their leaders ended with their loop */
            for (flight *left = f->shards[i].chains[k], *next; left; left = next) {
                next = left->chain;
                spare_free(left);
            }
        }
        pthread_mutex_destroy(&f->shards[i].lock);
    }
    free(f);
}

/* Runs on the leader's loop, where flight_land runs too: so the two cannot cross. */
static void run_abandoned(loop_task *t) {
    flight *f = (flight *)t;
    if (f->landed) {
        spare_free(f);
        return;
    }
    shard *s = shard_of(f->all, &f->key);
    pthread_mutex_lock(&s->lock); /* followers that come and go on other loops read it */
    f->posted = false;
    pthread_mutex_unlock(&s->lock);
    f->abandoned(f->ctx);
}

static void run_landed(loop_task *t) {
    follower *f = (follower *)t;
    f->landed(f->ctx, f->result);
}

flight *flight_join(flights *all, const sha256 *key, follower *f, loop *leader_loop, void (*abandoned)(void *),
                    void *leader_ctx, bool *out_of_memory) {
    *out_of_memory = false;
    shard  *s = shard_of(all, key);
    flight *mine = spare_malloc(sizeof *mine);
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
    pthread_mutex_lock(&s->lock);
    flight **at = find(s, key), *other = *at;
    if (other) {
        f->task.run = run_landed;
        f->of = other;
        f->shard = (int)(s - all->shards);
        f->prev = NULL;
        f->next = other->first;
        if (other->first) {
            other->first->prev = f;
        }
        other->first = f;
        pthread_mutex_unlock(&s->lock);
        spare_free(mine);
        return NULL;
    }
    *at = mine;
    pthread_mutex_unlock(&s->lock);
    return mine;
}

void flight_land(flights *all, flight *f, const cached *result) {
    shard *s = shard_of(all, &f->key);
    pthread_mutex_lock(&s->lock);
    *find(s, &f->key) = f->chain;
    follower *waiting = f->first;
    f->first = NULL;
    for (follower *w = waiting; w; w = w->next) {
        w->of = NULL; /* flight_leave now answers false */
    }
    f->landed = true;
    atomic_fetch_add(&all->landed, 1);
    bool posted = f->posted;
    pthread_mutex_unlock(&s->lock);
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
        spare_free(f);
    }
}

bool flight_keep(flights *all, flight *f) {
    shard *s = shard_of(all, &f->key);
    pthread_mutex_lock(&s->lock);
    bool others = f->first != NULL;
    f->unattended = others;
    pthread_mutex_unlock(&s->lock);
    return others;
}

bool flight_leave(flights *all, follower *f) {
    shard *s = &all->shards[f->shard];
    pthread_mutex_lock(&s->lock);
    flight *of = f->of;
    if (!of) {
        pthread_mutex_unlock(&s->lock);
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
    pthread_mutex_unlock(&s->lock);
    return true;
}

uint64_t flights_landed(const flights *all) {
    return atomic_load(&((flights *)all)->landed);
}
