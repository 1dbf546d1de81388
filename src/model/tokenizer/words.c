#include "model/tokenizer/words.h"

#include <stdlib.h>

_Static_assert(sizeof(word) == 64, "a word is a cache line");

enum { SHORT = 1024 }; /* bytes of text that are not worth the memory */

void words_open(words *w, size_t text_bytes) {
    if (text_bytes < SHORT) {
        return;
    }
    uint32_t slots = 64;
    while (slots < WORDS_MAX && slots < text_bytes / 16) {
        slots *= 2;
    }
    w->slots = aligned_alloc(sizeof(word), slots * sizeof(word));
    if (w->slots) {
        memset(w->slots, 0, slots * sizeof(word));
        w->mask = slots - 1;
    }
}

void words_close(words *w) {
    free(w->slots);
    memset(w, 0, sizeof(*w));
}
