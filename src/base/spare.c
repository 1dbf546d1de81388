#include "base/spare.h"

#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* Classes by what can be used of a block: glibc's sizes are 24, 40, 56 and so on, and other allocators' are found by the
 * same rule, rounded down when a block is put away and up when one is taken. */
#define LEAST   24
#define STEP    16
#define CLASSES 270       /* up to libevent's buffers for reading, 4 KiB and their head */
#define MOST    (1 << 20) /* bytes that a thread keeps */

typedef struct spare {
    struct spare *next;
} spare;

typedef struct store {
    spare *of[CLASSES];
    size_t bytes;
    bool   known; /* to the key, which empties it when the thread ends */
} store;

/* Where misuse of freed memory is looked for, freed memory is not kept from those who look. */
#if defined(__SANITIZE_ADDRESS__)
#define KEEPS false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS false
#endif
#endif
#ifndef KEEPS
#define KEEPS true
#endif

static _Thread_local store mine;
static pthread_key_t       key;
static bool                has_key;
static pthread_once_t      once = PTHREAD_ONCE_INIT;

static void empty(void *arg) {
    store *s = arg;
    for (int i = 0; i < CLASSES; i++) {
        while (s->of[i]) {
            spare *first = s->of[i];
            s->of[i] = first->next;
            free(first);
        }
    }
    s->bytes = 0;
    s->known = false; /* another key's destructor may still put something away */
}

static void make_key(void) {
    has_key = pthread_key_create(&key, empty) == 0;
}

static bool be_known(store *s) {
    pthread_once(&once, make_key);
    s->known = KEEPS && has_key && pthread_setspecific(key, s) == 0;
    return s->known;
}

void *spare_malloc(size_t n) {
    size_t class = n <= LEAST ? 0 : (n - LEAST + STEP - 1) / STEP;
    spare *block = class < CLASSES ? mine.of[class] : NULL;
    if (!block) {
        return malloc(n);
    }
    mine.of[class] = block->next;
    mine.bytes -= LEAST + class * STEP;
    return block;
}

void spare_free(void *block) {
    size_t size = block ? malloc_usable_size(block) : 0;
    size_t class = (size - LEAST) / STEP;
    if (size < LEAST || class >= CLASSES || mine.bytes > MOST || (!mine.known && !be_known(&mine))) {
        free(block);
        return;
    }
    spare *put = block;
    put->next = mine.of[class];
    mine.of[class] = put;
    mine.bytes += LEAST + class * STEP;
}
