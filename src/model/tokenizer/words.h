/* words.h - the ids of words met a moment ago, for the length of one encoding: text repeats its words, and finding one
 * here costs a fraction of merging it.
 *
 * One slot a hash value: a newer word takes the place of an older one. Memory is in proportion to the text and bounded;
 * a short text gets none. When memory is short there are no words, and encoding is only slower.                      */
#ifndef PARE_MODEL_TOKENIZER_WORDS_H
#define PARE_MODEL_TOKENIZER_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WORD_BYTES = 32, WORD_IDS = 7, WORDS_MAX = 16384 };

typedef struct word { /* one cache line */
    uint64_t part[4]; /* the word's bytes, by overlapping loads (word_key) */
    int32_t  ids[WORD_IDS];
    uint8_t  len;   /* bytes; 0: free */
    uint8_t  count; /* of ids */
} word;

typedef struct words { /* zero-initialise; words_close */
    word    *slots;
    uint32_t mask;
} words;

void words_open(words *w, size_t text_bytes);
void words_close(words *w);

static inline uint64_t word_load(const char *p, size_t n) { /* n <= 8 bytes */
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

/* Fills `key` so that two words of the same length are equal when their parts are. */
static inline void word_key(word *key, const char *text, size_t n) {
    key->len = (uint8_t)n;
    key->part[0] = key->part[1] = key->part[2] = key->part[3] = 0;
    if (n >= 8) {
        key->part[0] = word_load(text, 8);
        key->part[1] = word_load(text + n - 8, 8);
        if (n > 16) {
            key->part[2] = word_load(text + 8, 8);
            key->part[3] = word_load(text + n - 16, 8);
        }
    } else if (n >= 4) {
        key->part[0] = word_load(text, 4) << 32 | word_load(text + n - 4, 4);
    } else {
        key->part[0] = (uint64_t)(uint8_t)text[0] << 16 | (uint64_t)(uint8_t)text[n / 2] << 8 | (uint8_t)text[n - 1];
    }
}

/* The slot for a word; NULL where it is too long or there are none. `key` is filled. */
static inline word *words_slot(const words *w, word *key, const char *text, size_t n) {
    if (!w->slots || n > WORD_BYTES || n == 0) {
        return NULL;
    }
    word_key(key, text, n);
    uint64_t h = (key->part[0] ^ n) * 0x9e3779b97f4a7c15u ^ key->part[1] * 0xc2b2ae3d27d4eb4fu;
    if (n > 16) {
        h ^= (key->part[2] ^ key->part[3] << 7) * 0x165667b19e3779f9u;
    }
    h ^= h >> 29;
    return &w->slots[(uint32_t)(h * 0xbf58476d1ce4e5b9u >> 40) & w->mask];
}

static inline bool word_is(const word *known, const word *key) {
    return known->len == key->len && ((known->part[0] ^ key->part[0]) | (known->part[1] ^ key->part[1]) |
                                      (known->part[2] ^ key->part[2]) | (known->part[3] ^ key->part[3])) == 0;
}

/* Remembers what the word became, if it is not too much. */
static inline void word_keep(word *slot, const word *key, const int32_t *ids, size_t count) {
    if (count <= WORD_IDS) {
        *slot = *key;
        slot->count = (uint8_t)count;
        if (count > 0) {
            memcpy(slot->ids, ids, count * sizeof(*ids));
        }
    }
}

#endif
