#include "model/tokenizer/trie.h"

#include <stdlib.h>
#include <string.h>

bool trie_open(trie *t, size_t bytes) {
    uint32_t slots = 16;
    while (slots < 2 * (bytes + 1)) {
        slots *= 2;
    }
    t->edges = calloc(slots, sizeof(*t->edges));
    t->value = malloc((bytes + 1) * sizeof(*t->value));
    if (!t->edges || !t->value) {
        return false;
    }
    t->mask = slots - 1;
    t->nodes = 1;
    t->value[0] = -1;
    return true;
}

void trie_close(trie *t) {
    free(t->edges);
    free(t->value);
    memset(t, 0, sizeof(*t));
}

void trie_add(trie *t, const char *text, size_t n, int32_t value) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t from = node << 8 | (uint8_t)text[i];
        trie_edge     *edge = &t->edges[trie_slot(t, from)];
        if (edge->to == 0) {
            *edge = (trie_edge){from, t->nodes};
            t->value[t->nodes++] = -1;
        }
        node = edge->to;
    }
    t->value[node] = value;
}
