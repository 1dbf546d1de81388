/* memory.c - the cache in memory: shards, each a hash table whose entries also stand in one list by last use.
 *
 * A key is a SHA-256 and so already spread evenly: its first byte picks the shard, eight others the bucket. A look-up
 * holds its shard's lock for a short chain and two list moves; nothing is freed and no body is copied under it.      */
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "store/cache.h"

#define SHARDS        16
#define SMALL         (16 << 20) /* below this one shard holds all, so that its share is not too small for an answer */
#define LEAST_BUCKETS 64
#define CACHE_LINE    64 /* bytes */
#define SYSTEM_BYTES  32 /* what malloc keeps for itself around the two pieces of an entry */

/* ---- one stored answer, counted ---- */

typedef struct count { /* stands before the public part, in the same piece of memory */
    _Alignas(max_align_t) atomic_int references;
    atomic_bool gone; /* out of the cache again */
} count;

static count *count_of(const cached *e) {
    return (count *)(uintptr_t)e - 1;
}

cached *cached_new(size_t body_len) {
    if (body_len >= SIZE_MAX - sizeof(count) - sizeof(cached)) {
        return NULL;
    }
    count *c = malloc(sizeof *c + sizeof(cached) + body_len + 1);
    if (!c) {
        return NULL;
    }
    atomic_init(&c->references, 1);
    atomic_init(&c->gone, false);
    cached *e = (cached *)(c + 1);
    memset(e, 0, sizeof *e);
    e->len = body_len;
    e->body[body_len] = '\0';
    return e;
}

void cached_release(const cached *e) {
    count *c = count_of(e);
    if (atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) == 1) {
        free(c);
    }
}

const cached *cached_hold(const cached *e) {
    atomic_fetch_add_explicit(&count_of(e)->references, 1, memory_order_relaxed);
    return e;
}

bool cached_gone(const cached *e) {
    return atomic_load_explicit(&count_of(e)->gone, memory_order_relaxed);
}

/* ---- a shard ---- */

typedef struct node {
    const cached *answer;
    struct node  *chain;         /* same bucket; or, once taken out, the next to free */
    struct node  *newer, *older; /* by last use */
} node;

typedef struct shard { /* has cache lines of its own, lest the lock of one slow the others */
    _Alignas(CACHE_LINE) pthread_mutex_t lock;
    node      **buckets;
    size_t      n_buckets; /* a power of two */
    node       *newest, *oldest;
    size_t      bytes, max_bytes;
    cache_stats counts; /* entries and the counters; bytes are above */
} shard;

struct cache {
    shard *shards;
    int    n_shards;
};

static size_t bytes_of(const cached *e) {
    return sizeof(count) + sizeof(cached) + e->len + 1 + sizeof(node) + sizeof(node *) + SYSTEM_BYTES;
}

static uint64_t spread(const sha256 *key) {
    uint64_t h;
    memcpy(&h, key->bytes + 8, sizeof h);
    return h;
}

static shard *shard_of(const cache *c, const sha256 *key) {
    return &c->shards[key->bytes[0] % c->n_shards];
}

static node **find(shard *s, const sha256 *key) {
    node **at = &s->buckets[spread(key) & (s->n_buckets - 1)];
    while (*at && memcmp(&(*at)->answer->key, key, sizeof *key) != 0) {
        at = &(*at)->chain;
    }
    return at;
}

static void list_add(shard *s, node *n) {
    n->newer = NULL;
    n->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = n;
    s->newest = n;
}

static void list_remove(shard *s, node *n) {
    *(n->newer ? &n->newer->older : &s->newest) = n->older;
    *(n->older ? &n->older->newer : &s->oldest) = n->newer;
}

/* Takes the entry out and puts it on the list `gone`, which is freed when the lock is given back. */
static void take_out(shard *s, node **at, node **gone) {
    node *n = *at;
    *at = n->chain;
    list_remove(s, n);
    s->bytes -= bytes_of(n->answer);
    s->counts.entries--;
    atomic_store_explicit(&count_of(n->answer)->gone, true, memory_order_relaxed);
    n->chain = *gone;
    *gone = n;
}

static void free_gone(node *gone) {
    while (gone) {
        node *next = gone->chain;
        cached_release(gone->answer);
        free(gone);
        gone = next;
    }
}

/* When memory is short the table stays as it is: slower, not wrong. */
static void grow(shard *s) {
    size_t wider = s->n_buckets * 2;
    node **buckets = calloc(wider, sizeof(node *));
    if (!buckets) {
        return;
    }
    for (size_t i = 0; i < s->n_buckets; i++) {
        for (node *n = s->buckets[i]; n;) {
            node  *next = n->chain;
            node **head = &buckets[spread(&n->answer->key) & (wider - 1)];
            n->chain = *head;
            *head = n;
            n = next;
        }
    }
    free(s->buckets);
    s->buckets = buckets;
    s->n_buckets = wider;
}

/* ---- the cache ---- */

cache *cache_new(size_t max_bytes, err *e) {
    cache *c = calloc(1, sizeof *c);
    int    n = max_bytes < SMALL ? 1 : SHARDS;
    shard *shards = c ? aligned_alloc(CACHE_LINE, (size_t)n * sizeof *shards) : NULL;
    if (!shards) {
        free(c);
        err_set(e, ERR_MEMORY, "Out of memory for the cache.");
        return NULL;
    }
    memset(shards, 0, (size_t)n * sizeof *shards);
    c->shards = shards;
    for (int i = 0; i < n; i++) {
        shard *s = &shards[i];
        s->buckets = calloc(LEAST_BUCKETS, sizeof(node *));
        if (!s->buckets) {
            cache_free(c);
            err_set(e, ERR_MEMORY, "Out of memory for the cache.");
            return NULL;
        }
        s->n_buckets = LEAST_BUCKETS;
        s->max_bytes = max_bytes / (size_t)n;
        pthread_mutex_init(&s->lock, NULL);
        c->n_shards = i + 1;
    }
    return c;
}

void cache_free(cache *c) {
    if (!c) {
        return;
    }
    cache_purge(c, NULL, NULL);
    for (int i = 0; i < c->n_shards; i++) {
        pthread_mutex_destroy(&c->shards[i].lock);
        free(c->shards[i].buckets);
    }
    free(c->shards);
    free(c);
}

void cache_put(cache *c, cached *e) {
    shard *s = shard_of(c, &e->key);
    size_t bytes = bytes_of(e);
    if (bytes > s->max_bytes) {
        return; /* would push out all others for itself */
    }
    node *n = malloc(sizeof *n);
    if (!n) {
        return;
    }
    n->answer = cached_hold(e);
    node *gone = NULL;
    pthread_mutex_lock(&s->lock);
    node **at = find(s, &e->key);
    if (*at) {
        take_out(s, at, &gone);
    }
    while (s->bytes + bytes > s->max_bytes) {
        take_out(s, find(s, &s->oldest->answer->key), &gone);
        s->counts.evicted++;
    }
    if (s->counts.entries >= s->n_buckets) {
        grow(s);
    }
    node **head = &s->buckets[spread(&e->key) & (s->n_buckets - 1)];
    n->chain = *head;
    *head = n;
    list_add(s, n);
    s->bytes += bytes;
    s->counts.entries++;
    s->counts.stored++;
    pthread_mutex_unlock(&s->lock);
    free_gone(gone);
}

const cached *cache_get(cache *c, const sha256 *key, int64_t now_us) {
    shard        *s = shard_of(c, key);
    node         *gone = NULL;
    const cached *found = NULL;
    pthread_mutex_lock(&s->lock);
    node **at = find(s, key);
    node  *n = *at;
    if (n && n->answer->expires_us <= now_us) {
        take_out(s, at, &gone);
        s->counts.expired++;
    } else if (n) {
        list_remove(s, n);
        list_add(s, n);
        found = cached_hold(n->answer);
    }
    *(found ? &s->counts.hits : &s->counts.misses) += 1;
    pthread_mutex_unlock(&s->lock);
    free_gone(gone);
    return found;
}

bool cache_remove(cache *c, const sha256 *key) {
    shard *s = shard_of(c, key);
    node  *gone = NULL;
    pthread_mutex_lock(&s->lock);
    node **at = find(s, key);
    if (*at) {
        take_out(s, at, &gone);
    }
    pthread_mutex_unlock(&s->lock);
    bool removed = gone != NULL;
    free_gone(gone);
    return removed;
}

static size_t purge_shard(shard *s, const char *model, const char *space) {
    size_t purged = 0;
    node  *gone = NULL;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_buckets; i++) {
        for (node **at = &s->buckets[i]; *at;) {
            const cached *e = (*at)->answer;
            if ((!model || strcmp(e->model, model) == 0) && (!space || strcmp(e->space, space) == 0)) {
                take_out(s, at, &gone);
                purged++;
            } else {
                at = &(*at)->chain;
            }
        }
    }
    pthread_mutex_unlock(&s->lock);
    free_gone(gone);
    return purged;
}

size_t cache_purge(cache *c, const char *model, const char *space) {
    size_t purged = 0;
    for (int i = 0; i < c->n_shards; i++) {
        purged += purge_shard(&c->shards[i], model, space);
    }
    return purged;
}

void cache_stats_read(const cache *c, cache_stats *out) {
    *out = (cache_stats){0};
    for (int i = 0; i < c->n_shards; i++) {
        shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        out->entries += s->counts.entries;
        out->bytes += s->bytes;
        out->max_bytes += s->max_bytes;
        out->hits += s->counts.hits;
        out->misses += s->counts.misses;
        out->stored += s->counts.stored;
        out->evicted += s->counts.evicted;
        out->expired += s->counts.expired;
        pthread_mutex_unlock(&s->lock);
    }
}
