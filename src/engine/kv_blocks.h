/* kv_blocks.h - the memory of a cache's blocks, and how it is cut.
 *
 * For each layer one piece of every block, next to each other, so that the attention of a layer walks through one region;
 * in a piece, for each head its keys and then its values.                                                             */
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
    int       per_sequence; /* blocks of one at full length */
    size_t    head_bytes, piece_bytes, piece_step, bytes;
    char     *memory; /* NULL: not taken */
} kv_blocks;

/* Checks the options and takes the memory; pages come from the system when they are first written. */
bool kv_blocks_open(kv_blocks *k, const model_shape *shape, const kv_options *o, err *e);
void kv_blocks_close(kv_blocks *k);

static inline char *kv_piece(const kv_blocks *k, int layer, int block) {
    return k->memory + (size_t)layer * k->piece_step + (size_t)block * k->piece_bytes;
}
void kv_blocks_copy(const kv_blocks *k, int from, int to);
void kv_blocks_put(const kv_blocks *k, int layer, int block, int place, const float *key, const float *value);

int kv_blocks_for(int tokens); /* that hold so many */

#endif
