#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/spare.h"

#define ALIGNMENT     16
#define LEAST_BLOCK   256
#define LARGEST_BLOCK (256 * 1024) /* doubling stops here, so that a big arena wastes at most this much */

typedef struct block {
    struct block *next;
    size_t        pad; /* keeps data 16-byte aligned */
    char          data[];
} block;

struct arena {
    block *blocks;
    char  *at; /* free room of the first block */
    size_t left;
    size_t next_size;
    size_t bytes;
};

_Static_assert(sizeof(block) % ALIGNMENT == 0, "data of a block is aligned");

arena *arena_new(size_t first_block) {
    arena *a = spare_malloc(sizeof(*a));
    if (a) {
        *a = (arena){.next_size = first_block < LEAST_BLOCK ? LEAST_BLOCK : first_block, .bytes = sizeof(*a)};
    }
    return a;
}

void arena_free(arena *a) {
    if (!a) {
        return;
    }
    for (block *b = a->blocks; b;) {
        block *next = b->next;
        spare_free(b);
        b = next;
    }
    spare_free(a);
}

static block *take_block(arena *a, size_t n) {
    if (n > SIZE_MAX - sizeof(block)) {
        return NULL;
    }
    block *b = spare_malloc(sizeof(block) + n);
    if (b) {
        a->bytes += sizeof(block) + n;
    }
    return b;
}

static void *alloc_slow(arena *a, size_t n) {
    /* A large piece gets a block of its own behind the first, so that the room left there stays in use. */
    if (a->blocks && n > a->next_size / 4) {
        block *b = take_block(a, n);
        if (!b) {
            return NULL;
        }
        b->next = a->blocks->next;
        a->blocks->next = b;
        return b->data;
    }
    size_t size = n > a->next_size ? n : a->next_size;
    block *b = take_block(a, size);
    if (!b) {
        return NULL;
    }
    b->next = a->blocks;
    a->blocks = b;
    a->at = b->data + n;
    a->left = size - n;
    if (a->next_size < LARGEST_BLOCK) {
        a->next_size *= 2;
    }
    return b->data;
}

void *arena_alloc(arena *a, size_t n) {
    if (n > SIZE_MAX - ALIGNMENT) {
        return NULL;
    }
    n = n ? (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1) : ALIGNMENT;
    if (n > a->left) {
        return alloc_slow(a, n);
    }
    void *p = a->at;
    a->at += n;
    a->left -= n;
    return p;
}

void *arena_zero(arena *a, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) {
        return NULL;
    }
    void *p = arena_alloc(a, count * size);
    return p ? memset(p, 0, count * size) : NULL;
}

char *arena_memdup(arena *a, const void *data, size_t n) {
    char *copy = n < SIZE_MAX ? arena_alloc(a, n + 1) : NULL;
    if (copy) {
        if (n) {
            memcpy(copy, data, n);
        }
        copy[n] = '\0';
    }
    return copy;
}

char *arena_strdup(arena *a, const char *text) {
    return text ? arena_memdup(a, text, strlen(text)) : NULL;
}

char *arena_printf(arena *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (text) {
        va_start(args, format);
        vsnprintf(text, (size_t)n + 1, format, args);
        va_end(args);
    }
    return text;
}

size_t arena_bytes(const arena *a) {
    return a->bytes;
}
