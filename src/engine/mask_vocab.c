/* mask_vocab.c - sort the tokens by their bytes; a common beginning is a common path. */
#include "engine/mask_vocab.h"

#include <stdlib.h>
#include <string.h>

typedef struct piece {
    const char *bytes;
    int         n;
    int32_t     id;
} piece;

static int by_bytes(const void *a, const void *b) {
    const piece *x = a, *y = b;
    int          order = memcmp(x->bytes, y->bytes, (size_t)(x->n < y->n ? x->n : y->n));
    return order ? order : x->n != y->n ? x->n - y->n : (x->id > y->id) - (x->id < y->id);
}

static int common(const piece *a, const piece *b) {
    int n = 0;
    while (n < a->n && n < b->n && a->bytes[n] == b->bytes[n]) {
        n++;
    }
    return n;
}

/* Fills `list`; counts the nodes of their tree. */
static int list_pieces(vocab_tree *v, piece *list, int64_t *nodes) {
    int known = tokenizer_vocab(v->t), n = 0;
    for (int32_t id = 0; id < known && id < v->vocab; id++) {
        token_kind kind = tokenizer_kind(v->t, id);
        if (tokenizer_ends(v->t, id)) {
            v->ends[v->n_ends++] = id;
            continue;
        }
        const char *bytes = NULL;
        size_t      length = tokenizer_piece(v->t, id, false, &bytes);
        if (length > 0 && length <= VOCAB_LONGEST && kind != TOKEN_CONTROL && kind != TOKEN_UNKNOWN &&
            kind != TOKEN_UNUSED) {
            list[n++] = (piece){bytes, (int)length, id};
        }
    }
    qsort(list, (size_t)n, sizeof(*list), by_bytes);
    *nodes = 1;
    for (int i = 0; i < n; i++) {
        *nodes += list[i].n - (i > 0 ? common(&list[i - 1], &list[i]) : 0);
    }
    return n;
}

static void close_node(vocab_tree *v, const int32_t *path, int depth) {
    vocab_node *node = &v->node[path[depth]];
    node->end = v->n_nodes;
    node->lowest = node->lowest > node->depth ? node->lowest : node->depth;
    if (depth > 0 && v->node[path[depth - 1]].lowest < node->lowest) {
        v->node[path[depth - 1]].lowest = node->lowest;
    }
}

static void grow_tree(vocab_tree *v, const piece *list, int n) {
    int32_t path[VOCAB_LONGEST + 1] = {0}; /* the nodes from the root to the token before */
    int     depth = 0;
    v->n_ids = n;
    v->node[0] = (vocab_node){0};
    v->n_nodes = 1;
    for (int i = 0; i < n; i++) {
        int same = i > 0 ? common(&list[i - 1], &list[i]) : 0;
        for (; depth > same; depth--) {
            close_node(v, path, depth);
        }
        while (depth < list[i].n) {
            uint8_t byte = (uint8_t)list[i].bytes[depth++];
            path[depth] = v->n_nodes;
            v->node[v->n_nodes++] = (vocab_node){.byte = byte, .depth = (uint16_t)depth, .first = i};
        }
        v->node[path[depth]].tokens++;
        v->ids[i] = list[i].id;
        v->depth = depth > v->depth ? depth : v->depth;
    }
    for (; depth >= 0; depth--) {
        close_node(v, path, depth);
    }
}

vocab_tree *vocab_tree_new(const tokenizer *t, int vocab, err *e) {
    size_t      n = (size_t)tokenizer_vocab(t) + 1;
    vocab_tree *v = calloc(1, sizeof(*v));
    piece      *list = calloc(n, sizeof(*list));
    if (v && list) {
        atomic_init(&v->holders, 1);
        v->t = t;
        v->vocab = vocab;
        v->ids = calloc(n, sizeof(*v->ids));
        v->ends = calloc(n, sizeof(*v->ends));
    }
    if (v && list && v->ids && v->ends) {
        int64_t nodes;
        int     pieces = list_pieces(v, list, &nodes);
        v->node = nodes < INT32_MAX ? calloc((size_t)nodes, sizeof(*v->node)) : NULL;
        if (v->node) {
            grow_tree(v, list, pieces);
        }
    }
    free(list);
    if (!v || !v->node) {
        vocab_tree_free(v);
        err_set(e, ERR_MEMORY, "out of memory for the tree of %d tokens", tokenizer_vocab(t));
        return NULL;
    }
    return v;
}

vocab_tree *vocab_tree_hold(vocab_tree *v) {
    atomic_fetch_add(&v->holders, 1);
    return v;
}

void vocab_tree_free(vocab_tree *v) {
    if (v && atomic_fetch_sub(&v->holders, 1) <= 1) {
        free(v->node);
        free(v->ids);
        free(v->ends);
        free(v);
    }
}
