/* trie.h - texts by their bytes, for finding all that begin at a place: one step a byte, each a probe of a hash table.
 *
 * Built once, read by any thread afterwards. The memory is taken for the sum of the texts' lengths, so that adding
 * never fails.                                                                                                       */
#ifndef PARE_MODEL_TOKENIZER_TRIE_H
#define PARE_MODEL_TOKENIZER_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRIE_MAX = 1 << 24 }; /* bytes of all texts: a node's number and a byte share 32 bits */

typedef struct trie_edge {
    uint32_t from; /* node << 8 | byte */
    uint32_t to;   /* 0: free (nothing leads to the root, node 0) */
} trie_edge;

typedef struct trie {
    trie_edge *edges; /* hash table, at most half full */
    uint32_t   mask;
    int32_t   *value; /* [node] of the text that ends here; -1: none */
    uint32_t   nodes;
} trie;

bool trie_open(trie *t, size_t bytes); /* bytes < TRIE_MAX; false when out of memory */
void trie_close(trie *t);

/* `n` bytes, n > 0; of a text added twice the last value counts. The sum of all n must not pass trie_open's bytes. */
void trie_add(trie *t, const char *text, size_t n, int32_t value);

static inline uint32_t trie_slot(const trie *t, uint32_t from) {
    uint32_t i = (uint32_t)(from * 0x9e3779b97f4a7c15u >> 32) & t->mask;
    while (t->edges[i].to != 0 && t->edges[i].from != from) {
        i = (i + 1) & t->mask;
    }
    return i;
}

/* The node after `byte`; 0: no text goes on like this. */
static inline uint32_t trie_step(const trie *t, uint32_t node, uint8_t byte) {
    return t->edges[trie_slot(t, node << 8 | byte)].to;
}

#endif
