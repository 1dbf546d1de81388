/* arena.h - memory that is taken in pieces and given back in one call.
 *
 * An exchange owns one; everything of the request lives there. Not thread safe: one owner at a time. Memory is 16-byte
 * aligned and not zeroed unless said so. NULL means that the system is out of memory or `n` overflowed.             */
#ifndef PARE_BASE_ARENA_H
#define PARE_BASE_ARENA_H

#include <stddef.h>

typedef struct arena arena;

arena *arena_new(size_t first_block);
void   arena_free(arena *a); /* NULL is fine */

void *arena_alloc(arena *a, size_t n);
void *arena_zero(arena *a, size_t count, size_t size);    /* zeroed array; checks count * size */
char *arena_strdup(arena *a, const char *text);           /* NULL in, NULL out */
char *arena_memdup(arena *a, const void *data, size_t n); /* copies n bytes and adds a terminating NUL */
char *arena_printf(arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

size_t arena_bytes(const arena *a); /* taken from the system so far */

#endif
