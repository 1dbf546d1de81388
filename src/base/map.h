/* map.h - byte strings to 64-bit values; open addressing, insertion keeps its own copy of the key.
 *
 * Not thread safe for writing; any number of readers when nobody writes.                                            */
#ifndef PARE_BASE_MAP_H
#define PARE_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct map map;

map   *map_new(size_t expected);
void   map_free(map *m);
bool   map_put(map *m, const void *key, size_t n, int64_t value); /* replaces; false when out of memory */
bool   map_get(const map *m, const void *key, size_t n, int64_t *value);
bool   map_del(map *m, const void *key, size_t n);
size_t map_count(const map *m);

/* Walks all entries in no order: start with *at = 0, false at the end. The key lives until the next change. */
bool map_next(const map *m, size_t *at, const void **key, size_t *n, int64_t *value);

#endif
