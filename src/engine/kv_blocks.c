#include "engine/kv_blocks.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/kv_window.h"

#define DEFAULT_BYTES ((size_t)1 << 30)
#define MAX_BLOCKS    (1 << 27) /* of one cache: with the smallest block there is, 128 bytes, 16 GiB */
#define NODE_BYTES    256       /* a block's place in the index, about */

/* ---- sizes ---- */

/* What is asked for, and what a block costs. */
typedef struct sizes {
    size_t one, all; /* blocks of one sequence at full length, and of all */
    size_t windows;  /* panes that all sequences hold at most */
    size_t piece;    /* bytes of a layer's part of a block */
    size_t block;    /* and of all parts that no window saves */
    size_t pane;     /* the others; 0: none */
} sizes;

static bool multiply(size_t a, size_t b, size_t *out) {
    *out = a * b;
    return !b || a <= SIZE_MAX / b;
}

int kv_blocks_for(int tokens) {
    return tokens / KV_TOKENS + (tokens % KV_TOKENS != 0);
}

/* Bytes of a block in one layer, and in all. */
static bool block_size(const model_shape *shape, const kv_layout *l, size_t *piece, size_t *block, err *e) {
    if (shape->layers < 1 || shape->kv_heads < 1) {
        return err_set(e, ERR_INVALID, "a model of %d layers and %d K/V heads has no keys and values", shape->layers,
                       shape->kv_heads);
    }
    return (multiply(l->key_bytes + l->value_bytes, (size_t)shape->kv_heads, piece) &&
            multiply(*piece, (size_t)shape->layers, block)) ||
           err_set(e, ERR_INVALID, "keys and values of %d layers with %d heads of %d cannot be addressed",
                   shape->layers, shape->kv_heads, shape->head_dim);
}

static bool cannot_be_addressed(const kv_options *o, err *e) {
    return err_set(e, ERR_INVALID,
                   "a key/value cache of %d sequences of %d tokens cannot be addressed; lower one of them",
                   o->sequences, o->context);
}

/* Layers that have panes, when the cache is used as panes need. What is on disk is whole, so that any of it can be
 * gone on from: with a disk all layers keep all positions. */
static int layers_with_panes(const model_shape *shape, const kv_options *o) {
    int n = 0;
    for (int i = 0; o->step_tokens > 0 && !o->disk && shape->window > 0 && i < shape->layers; i++) {
        n += model_window(shape, i) > 0;
    }
    return n;
}

static bool read_sizes(sizes *s, const model_shape *shape, const kv_options *o, const kv_layout *l, err *e) {
    size_t whole = 0, n = (size_t)o->sequences;
    s->one = (size_t)kv_blocks_for(o->context);
    if (!block_size(shape, l, &s->piece, &whole, e)) {
        return false;
    }
    s->pane = s->piece * (size_t)layers_with_panes(shape, o);
    s->block = whole - s->pane;
    if (!multiply(s->one, whole, &whole) || !multiply(s->one, n, &s->all)) {
        return cannot_be_addressed(o, e);
    }
    size_t each = (size_t)kv_window_most(shape->window), step = (size_t)kv_blocks_for(o->step_tokens);
    s->windows = each < s->one ? n * each + step : s->all;
    s->windows = s->windows < s->all ? s->windows : s->all;
    return true;
}

/* Beside what the windows of all sequences need, the same again for ends and beginnings that rest; more in a cache
 * with room for more than all sequences, fewer in one with less. */
static size_t panes_for(const sizes *s, size_t blocks) {
    if (s->windows >= blocks) {
        return blocks;
    }
    double rest = (double)s->windows * (double)blocks / (double)s->all;
    return rest < (double)(blocks - s->windows) ? s->windows + (size_t)rest : blocks;
}

/* Where all layers have panes a block still costs its place in the index. */
static double cost_of(const sizes *s, size_t blocks) {
    double block = (double)(s->block > NODE_BYTES ? s->block : NODE_BYTES);
    return (double)blocks * block + (double)panes_for(s, blocks) * (double)s->pane;
}

/* The most blocks, from `least` to `most`, that cost no more; `least` when even those do. */
static size_t most_blocks(const sizes *s, double bytes, size_t least, size_t most) {
    while (least < most) {
        size_t middle = most - (most - least) / 2;
        if (cost_of(s, middle) <= bytes) {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    return least;
}

static bool is_enough(const sizes *s, const kv_options *o, err *e) {
    size_t windows = s->windows < s->one ? s->windows : s->one;
    size_t least = s->one * s->block + windows * s->pane; /* no more than one * (block + pane) */
    return !o->bytes || o->bytes >= least ||
           err_set(e, ERR_INVALID,
                   "%zu bytes for keys and values are not enough: one sequence of %d tokens takes %zu (%s)%s; give "
                   "more or lower the context",
                   o->bytes, o->context, least, kv_type_name(o->type),
                   s->pane ? " with the windows of the others" : "");
}

static bool keep_count(kv_blocks *k, const sizes *s, size_t blocks, size_t panes, err *e) {
    if (blocks > MAX_BLOCKS) {
        return err_set(e, ERR_LIMIT,
                       "a key/value cache of %zu blocks of %zu bytes is too large, %d blocks are the most; make it "
                       "smaller",
                       blocks, s->block + s->pane, MAX_BLOCKS);
    }
    size_t with_panes;
    k->count = (int)blocks;
    k->panes = (int)panes;
    return (multiply(blocks, s->block, &k->bytes) && multiply(panes, s->pane, &with_panes) &&
            !__builtin_add_overflow(k->bytes, with_panes, &k->bytes)) ||
           err_set(e, ERR_INVALID, "a key/value cache of %zu blocks of %zu bytes cannot be addressed", blocks,
                   s->block + s->pane);
}

static bool choose_whole(kv_blocks *k, const sizes *s, const kv_options *o, err *e) {
    size_t n = o->bytes / s->block;
    if (!o->bytes) {
        n = DEFAULT_BYTES / s->block < s->all ? DEFAULT_BYTES / s->block : s->all;
        n = n < s->one ? s->one : n;
    }
    return keep_count(k, s, n, 0, e);
}

/* k->panes stays 0 when they would save nothing. */
static bool choose_count(kv_blocks *k, sizes *s, const kv_options *o, err *e) {
    size_t bytes = o->bytes ? o->bytes : DEFAULT_BYTES, most = o->bytes ? (size_t)MAX_BLOCKS + 1 : s->all;
    if (s->block + s->pane == 0) { /* a layout has bytes */
        return cannot_be_addressed(o, e);
    }
    if (!is_enough(s, o, e)) {
        return false;
    }
    if (s->pane) {
        size_t n = most_blocks(s, (double)bytes, s->one, most), panes = panes_for(s, n);
        if (o->bytes && n == s->one && (bytes - n * s->block) / s->pane < panes) {
            panes = (bytes - n * s->block) / s->pane; /* what is enough for one sequence, and little that rests */
        }
        if (panes < n) {
            return keep_count(k, s, n, panes, e);
        }
    }
    s->block += s->pane;
    s->pane = 0;
    return choose_whole(k, s, o, e);
}

static bool choose_sizes(kv_blocks *k, const model_shape *shape, const kv_options *o, err *e) {
    sizes s = {0};
    if (o->sequences < 1 || o->context < 1) {
        return err_set(e, ERR_INVALID,
                       "a key/value cache of %d sequences of %d tokens holds nothing; both are at least 1",
                       o->sequences, o->context);
    }
    if (!kv_layout_of(o->type, shape->head_dim, &k->layout, e) || !read_sizes(&s, shape, o, &k->layout, e) ||
        !choose_count(k, &s, o, e)) {
        return false;
    }
    k->per_sequence = (int)s.one;
    k->layers = shape->layers;
    k->heads = shape->kv_heads;
    k->head_bytes = k->layout.key_bytes + k->layout.value_bytes;
    k->piece_bytes = s.piece;
    k->piece_step = (size_t)k->count * s.piece;
    k->panes_at = k->bytes - (size_t)k->panes * s.pane;
    return true;
}

size_t kv_bytes_of(const model_shape *shape, kv_type type, int64_t tokens) {
    kv_layout l;
    size_t    piece, block, bytes;
    if (tokens <= 0 || !kv_layout_of(type, shape->head_dim, &l, NULL) || !block_size(shape, &l, &piece, &block, NULL)) {
        return 0;
    }
    size_t blocks = (size_t)(tokens / KV_TOKENS) + (tokens % KV_TOKENS != 0);
    return multiply(blocks, block, &bytes) ? bytes : SIZE_MAX;
}

size_t kv_bytes_for(const model_shape *shape, const kv_options *o, int64_t tokens) {
    sizes     s = {0};
    kv_layout l;
    if (tokens <= 0 || o->sequences < 1 || o->context < 1 || !kv_layout_of(o->type, shape->head_dim, &l, NULL) ||
        !read_sizes(&s, shape, o, &l, NULL)) {
        return 0;
    }
    size_t blocks = (size_t)(tokens / KV_TOKENS) + (tokens % KV_TOKENS != 0);
    blocks = blocks > s.one ? blocks : s.one;
    if (!s.pane || panes_for(&s, blocks) >= blocks) {
        return kv_bytes_of(shape, o->type, (int64_t)blocks * KV_TOKENS);
    }
    double bytes = cost_of(&s, blocks) + 1; /* of what it is rounded by */
    return bytes < (double)SIZE_MAX ? (size_t)bytes : SIZE_MAX;
}

size_t kv_bytes_taken(const model_shape *shape, const kv_options *o) {
    kv_blocks k = {0};
    return choose_sizes(&k, shape, o, NULL) ? k.bytes : 0;
}

/* ---- memory ---- */

/* First the layers that keep all positions, then those with panes. */
static bool place_layers(kv_blocks *k, const model_shape *shape) {
    size_t whole = 0, windowed = k->panes_at;
    k->at = calloc((size_t)k->layers, sizeof(*k->at));
    for (int i = 0; k->at && i < k->layers; i++) {
        bool   panes = k->panes && model_window(shape, i);
        size_t step = panes ? (size_t)k->panes * k->piece_bytes : k->piece_step;
        k->at[i] = panes ? windowed : whole;
        *(panes ? &windowed : &whole) += step;
    }
    return k->at != NULL;
}

bool kv_blocks_open(kv_blocks *k, const model_shape *shape, const kv_options *o, err *e) {
    *k = (kv_blocks){0};
    if (!choose_sizes(k, shape, o, e)) {
        return false;
    }
    void *m = mmap(NULL, k->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED || !place_layers(k, shape)) {
        if (m != MAP_FAILED) {
            munmap(m, k->bytes);
        }
        return err_set(e, ERR_MEMORY,
                       "no memory for a key/value cache of %zu MiB (%d sequences of %d tokens); lower one of them",
                       k->bytes >> 20, o->sequences, o->context);
    }
    /* A wish: attention reads more pages than the processor remembers addresses of, unless they are large. */
    madvise(m, k->bytes, MADV_HUGEPAGE);
    k->memory = m;
    return true;
}

void kv_blocks_close(kv_blocks *k) {
    if (k->memory) {
        munmap(k->memory, k->bytes);
        k->memory = NULL;
    }
    free(k->at);
    k->at = NULL;
}

static void copy(const kv_blocks *k, bool panes, int from, int to) {
    for (int layer = 0; layer < k->layers; layer++) {
        if (kv_has_panes(k, layer) == panes) {
            memcpy(kv_piece(k, layer, to), kv_piece(k, layer, from), k->piece_bytes);
        }
    }
}

void kv_blocks_copy(const kv_blocks *k, int from, int to) {
    copy(k, false, from, to);
}

void kv_panes_copy(const kv_blocks *k, int from, int to) {
    copy(k, true, from, to);
}

void kv_blocks_put(const kv_blocks *k, int layer, int number, int place, const float *key, const float *value) {
    char *at = kv_piece(k, layer, number);
    for (int head = 0; head < k->heads; head++) {
        size_t first = (size_t)head * (size_t)k->layout.dim;
        kv_put_key(&k->layout, at, place, key + first);
        kv_put_value(&k->layout, at + k->layout.key_bytes, place, value + first);
        at += k->head_bytes;
    }
}
