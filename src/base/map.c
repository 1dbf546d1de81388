#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

/* Linear probing with deletion by shifting back (no tombstones). Short keys lie in the slot itself, which saves a cache
 * miss on most look-ups. */

#define INLINE_KEY 16

typedef struct slot {
    uint64_t hash; /* 0: free */
    int64_t  value;
    size_t   n;
    union {
        char  bytes[INLINE_KEY];
        char *heap;
    } key;
} slot;

struct map {
    slot    *slots;
    size_t   size; /* a power of two; at most 3/4 are in use */
    size_t   count;
    uint64_t seed;
};

static const char *key_of(const slot *s) {
    return s->n <= INLINE_KEY ? s->key.bytes : s->key.heap;
}

map *map_new(size_t expected) {
    if (expected > SIZE_MAX / sizeof(slot) / 4) {
        return NULL;
    }
    map *m = calloc(1, sizeof(*m));
    if (!m) {
        return NULL;
    }
    m->size = 16;
    while (m->size / 4 * 3 < expected) {
        m->size *= 2;
    }
    m->seed = hash_seed();
    m->slots = calloc(m->size, sizeof(slot));
    if (!m->slots) {
        free(m);
        return NULL;
    }
    return m;
}

void map_free(map *m) {
    if (!m) {
        return;
    }
    for (size_t i = 0; i < m->size; i++) {
        if (m->slots[i].hash && m->slots[i].n > INLINE_KEY) {
            free(m->slots[i].key.heap);
        }
    }
    free(m->slots);
    free(m);
}

static uint64_t hash_of(const map *m, const void *key, size_t n) {
    uint64_t h = hash64(key, n, m->seed);
    return h ? h : 1;
}

/* The slot that holds the key, or the free one where it belongs. */
static slot *find(const map *m, uint64_t h, const void *key, size_t n) {
    for (size_t i = h & (m->size - 1);; i = (i + 1) & (m->size - 1)) {
        slot *s = &m->slots[i];
        if (!s->hash || (s->hash == h && s->n == n && (n == 0 || memcmp(key_of(s), key, n) == 0))) {
            return s;
        }
    }
}

static bool grow(map *m) {
    if (m->size > SIZE_MAX / sizeof(slot) / 2) {
        return false;
    }
    size_t size = m->size * 2;
    slot  *slots = calloc(size, sizeof(slot));
    if (!slots) {
        return false;
    }
    for (size_t i = 0; i < m->size; i++) {
        if (m->slots[i].hash) {
            size_t at = m->slots[i].hash & (size - 1);
            while (slots[at].hash) {
                at = (at + 1) & (size - 1);
            }
            slots[at] = m->slots[i];
        }
    }
    free(m->slots);
    m->slots = slots;
    m->size = size;
    return true;
}

bool map_put(map *m, const void *key, size_t n, int64_t value) {
    uint64_t h = hash_of(m, key, n);
    slot    *s = find(m, h, key, n);
    if (s->hash) {
        s->value = value;
        return true;
    }
    if (m->count + 1 > m->size / 4 * 3) {
        if (!grow(m)) {
            return false;
        }
        s = find(m, h, key, n);
    }
    char *bytes = s->key.bytes;
    if (n > INLINE_KEY) {
        bytes = malloc(n);
        if (!bytes) {
            return false;
        }
        s->key.heap = bytes;
    }
    if (n) {
        memcpy(bytes, key, n);
    }
    s->hash = h;
    s->n = n;
    s->value = value;
    m->count++;
    return true;
}

bool map_get(const map *m, const void *key, size_t n, int64_t *value) {
    const slot *s = find(m, hash_of(m, key, n), key, n);
    if (!s->hash) {
        return false;
    }
    if (value) {
        *value = s->value;
    }
    return true;
}

bool map_del(map *m, const void *key, size_t n) {
    slot *s = find(m, hash_of(m, key, n), key, n);
    if (!s->hash) {
        return false;
    }
    if (s->n > INLINE_KEY) {
        free(s->key.heap);
    }
    /* Close the hole: move back each follower whose home does not lie between the hole and itself. */
    size_t mask = m->size - 1;
    size_t hole = (size_t)(s - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].hash; i = (i + 1) & mask) {
        size_t home = m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].hash = 0;
    m->count--;
    return true;
}

size_t map_count(const map *m) {
    return m->count;
}

bool map_next(const map *m, size_t *at, const void **key, size_t *n, int64_t *value) {
    for (; *at < m->size; (*at)++) {
        const slot *s = &m->slots[*at];
        if (s->hash) {
            *key = key_of(s);
            *n = s->n;
            *value = s->value;
            (*at)++;
            return true;
        }
    }
    return false;
}
