/* cache.h - stored answers in memory: sharded, bounded in bytes, least recently used goes first, nothing outlives its
 * time. A key is a SHA-256, so a hit is the same request. Any thread; a lock is held for a look-up only.            */
#ifndef PARE_STORE_CACHE_H
#define PARE_STORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hash.h"

/* One stored answer. Immutable once put; counted, so that a reader keeps it while it is evicted. */
typedef struct cached {
    sha256  key;
    int64_t created_us, expires_us; /* wall clock */
    int64_t prompt_tokens, completion_tokens;
    char    model[128];
    char    space[64]; /* the client's namespace */
    size_t  len;
    char    body[]; /* the answer in OpenAI's whole form */
} cached;

typedef struct cache cache;

cache *cache_new(size_t max_bytes, err *e);
void   cache_free(cache *c);

cached       *cached_new(size_t body_len); /* one reference, the caller's; fill before putting */
void          cached_retain(const cached *e);
void          cached_release(const cached *e);
const cached *cached_hold(const cached *e); /* one more reference; any thread */
bool          cached_gone(const cached *e); /* it was in a cache and was replaced, evicted or removed */

void          cache_put(cache *c, cached *e);                         /* takes its own reference; replaces */
const cached *cache_get(cache *c, const sha256 *key, int64_t now_us); /* NULL or a reference to release */
bool          cache_remove(cache *c, const sha256 *key);
/* All, or those of one model and/or namespace (NULL: any); returns how many. */
size_t        cache_purge(cache *c, const char *model, const char *space);

typedef struct cache_stats {
    size_t  entries, bytes, max_bytes;
    int64_t hits, misses, stored, evicted, expired;
} cache_stats;
void cache_stats_read(const cache *c, cache_stats *out);

#endif
