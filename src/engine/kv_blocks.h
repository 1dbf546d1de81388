/* kv_blocks.h - the memory of a cache's blocks, and how it is cut.
 *
 * For each layer one piece of every block, next to each other, so that the attention of a layer walks through one region;
 * in a piece, for each head its keys and then its values. Layers that see only a window (kv_options.step_tokens says
 * when) have their pieces in panes: so many as the windows of all sequences need, with room for some that rest.
 * kv_panes.h says which block has which pane.                                                                         */
#ifndef PARE_ENGINE_KV_BLOCKS_H
#define PARE_ENGINE_KV_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "engine/kv.h"

typedef struct kv_blocks {
    kv_layout layout;
    int       layers, heads;
    int       count;
    int       panes;        /* 0: all layers keep all positions */
    int       per_sequence; /* blocks of one at full length */
    size_t    head_bytes, piece_bytes, piece_step, bytes;
    size_t    panes_at; /* where the layers with panes begin */
    size_t   *at;       /* [layers] where each one's pieces begin; NULL: not taken */
    char     *memory;   /* NULL: not taken */
} kv_blocks;

/* Checks the options and takes the memory; pages come from the system when they are first written. */
bool kv_blocks_open(kv_blocks *k, const model_shape *shape, const kv_options *o, err *e);
void kv_blocks_close(kv_blocks *k);

static inline bool kv_has_panes(const kv_blocks *k, int layer) {
    return k->at[layer] >= k->panes_at;
}

/* `number`: of a block, or of a pane in a layer that has those. */
static inline char *kv_piece(const kv_blocks *k, int layer, int number) {
    return k->memory + k->at[layer] + (size_t)number * k->piece_bytes;
}

void kv_blocks_copy(const kv_blocks *k, int from, int to);
void kv_panes_copy(const kv_blocks *k, int from, int to);
void kv_blocks_put(const kv_blocks *k, int layer, int number, int place, const float *key, const float *value);

int kv_blocks_for(int tokens); /* that hold so many */

#endif
