/* merge.h - byte-pair merging: of all neighbours that may be joined, always the pair of the lowest rank, the leftmost
 * among equals, until none is left. Both tokenizer kinds are this with another idea of a pair and its rank.
 *
 * Few symbols are merged in place (quadratic, but no memory is touched besides them); many with a heap of candidates
 * over a linked list, O(n log n). Source of the rule: Sennrich et al. 2016, arXiv:1508.07909.                         */
#ifndef PARE_MODEL_TOKENIZER_MERGE_H
#define PARE_MODEL_TOKENIZER_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERGE_NO_RANK UINT32_MAX
#define MERGE_MAX     ((size_t)1 << 21) /* symbols at once (about 46 bytes of memory each); callers cut longer runs */

typedef struct merge_symbol {
    uint32_t id;         /* the model's name for it */
    uint32_t at, len;    /* bytes of the text */
    uint32_t prev, next; /* while merging many */
} merge_symbol;

/* The rank of joining two neighbours, or MERGE_NO_RANK; *id is the joined symbol's name. */
typedef uint32_t (*merge_rank)(const void *model, const merge_symbol *left, const merge_symbol *right, uint32_t *id);

typedef struct merge_space { /* reused from word to word; zero-initialise, merge_space_free */
    merge_symbol *symbols;
    uint64_t     *heap;
    size_t        symbol_cap, heap_cap;
} merge_space;

bool merge_space_symbols(merge_space *s, size_t n); /* room for n symbols; false when out of memory */
void merge_space_free(merge_space *s);

/* Merges symbols[0..n), n <= MERGE_MAX, neighbours in the text. Returns how many are left (in place, in order), or 0
 * when out of memory (or n is 0). */
size_t merge_run(merge_space *s, size_t n, merge_rank rank, const void *model);

#endif
