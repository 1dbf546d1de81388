#include "model/tokenizer/merge.h"

#include <stdlib.h>
#include <string.h>

enum { FEW = 40 }; /* below, scanning all ranks beats a heap */

#define NOBODY UINT32_MAX

bool merge_space_symbols(merge_space *s, size_t n) {
    if (n <= s->symbol_cap) {
        return true;
    }
    size_t        cap = n < 256 ? 256 : n + n / 2;
    merge_symbol *grown = realloc(s->symbols, cap * sizeof(*grown));
    if (!grown) {
        return false;
    }
    s->symbols = grown;
    s->symbol_cap = cap;
    return true;
}

void merge_space_free(merge_space *s) {
    free(s->symbols);
    free(s->heap);
    memset(s, 0, sizeof(*s));
}

static size_t merge_few(merge_symbol *symbols, size_t n, merge_rank rank, const void *model) {
    uint32_t ranks[FEW]; /* of joining i with i + 1 */
    uint32_t ids[FEW];
    for (size_t i = 0; i + 1 < n; i++) {
        ranks[i] = rank(model, &symbols[i], &symbols[i + 1], &ids[i]);
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            if (ranks[i] < ranks[best]) {
                best = i;
            }
        }
        if (ranks[best] == MERGE_NO_RANK) {
            break;
        }
        symbols[best].id = ids[best];
        symbols[best].len += symbols[best + 1].len;
        n--;
        memmove(&symbols[best + 1], &symbols[best + 2], (n - best - 1) * sizeof(*symbols));
        if (best + 1 < n) {
            memmove(&ranks[best + 1], &ranks[best + 2], (n - best - 2) * sizeof(*ranks));
            memmove(&ids[best + 1], &ids[best + 2], (n - best - 2) * sizeof(*ids));
            ranks[best] = rank(model, &symbols[best], &symbols[best + 1], &ids[best]);
        }
        if (best > 0) {
            ranks[best - 1] = rank(model, &symbols[best - 1], &symbols[best], &ids[best - 1]);
        }
    }
    return n;
}

/* ---- Many: a heap of keys, rank << 32 | index of the left symbol. Four children a node: fewer levels, and those of
 * one node share a cache line. ---- */

static void sift_down(uint64_t *heap, size_t n, size_t at) {
    uint64_t moving = heap[at];
    for (size_t first; (first = 4 * at + 1) < n;) {
        size_t least = first;
        size_t end = first + 4 < n ? first + 4 : n;
        for (size_t child = first + 1; child < end; child++) {
            least = heap[child] < heap[least] ? child : least;
        }
        if (heap[least] >= moving) {
            break;
        }
        heap[at] = heap[least];
        at = least;
    }
    heap[at] = moving;
}

static void push(uint64_t *heap, size_t *count, uint64_t key) {
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 4] > key) {
        heap[at] = heap[(at - 1) / 4];
        at = (at - 1) / 4;
    }
    heap[at] = key;
}

static uint64_t pop(uint64_t *heap, size_t *count) {
    uint64_t least = heap[0];
    heap[0] = heap[--*count];
    if (*count > 0) {
        sift_down(heap, *count, 0);
    }
    return least;
}

/* Links the symbols and makes the heap of all that may be joined now. Returns its size. */
static size_t first_candidates(merge_space *s, size_t n, merge_rank rank, const void *model) {
    merge_symbol *symbols = s->symbols;
    size_t        count = 0;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i].prev = i > 0 ? i - 1 : NOBODY;
        symbols[i].next = i + 1 < n ? i + 1 : NOBODY;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        uint32_t id;
        uint32_t r = rank(model, &symbols[i], &symbols[i + 1], &id);
        s->heap[count] = (uint64_t)r << 32 | i;
        count += r != MERGE_NO_RANK;
    }
    for (size_t i = count / 4 + 1; i-- > 0;) {
        if (i < count) {
            sift_down(s->heap, count, i);
        }
    }
    return count;
}

static void add_candidate(merge_space *s, size_t *count, uint32_t left, merge_rank rank, const void *model) {
    uint32_t id;
    uint32_t r = rank(model, &s->symbols[left], &s->symbols[s->symbols[left].next], &id);
    if (r != MERGE_NO_RANK) {
        push(s->heap, count, (uint64_t)r << 32 | left);
    }
}

/* n - 1 keys at first; each of at most n - 1 merges takes one out and puts at most two in: never more than 2n. */
static size_t merge_many(merge_space *s, size_t n, merge_rank rank, const void *model) {
    if (s->heap_cap < 2 * n) {
        uint64_t *grown = realloc(s->heap, 2 * n * sizeof(*grown));
        if (!grown) {
            return 0;
        }
        s->heap = grown;
        s->heap_cap = 2 * n;
    }
    merge_symbol *symbols = s->symbols;
    size_t        count = first_candidates(s, n, rank, model);
    while (count > 0) {
        const uint64_t key = pop(s->heap, &count);
        merge_symbol  *left = &symbols[(uint32_t)key];
        uint32_t       id;
        /* The two may have been joined with others since: the key counts if its rank is still theirs. */
        if (left->len == 0 || left->next == NOBODY ||
            rank(model, left, &symbols[left->next], &id) != (uint32_t)(key >> 32)) {
            continue;
        }
        merge_symbol *right = &symbols[left->next];
        left->id = id;
        left->len += right->len;
        left->next = right->next;
        right->len = 0;
        if (left->next != NOBODY) {
            symbols[left->next].prev = (uint32_t)key;
            add_candidate(s, &count, (uint32_t)key, rank, model);
        }
        if (left->prev != NOBODY) {
            add_candidate(s, &count, left->prev, rank, model);
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (symbols[i].len > 0) {
            symbols[kept++] = symbols[i];
        }
    }
    return kept;
}

size_t merge_run(merge_space *s, size_t n, merge_rank rank, const void *model) {
    return n <= FEW ? merge_few(s->symbols, n, rank, model) : merge_many(s, n, rank, model);
}
