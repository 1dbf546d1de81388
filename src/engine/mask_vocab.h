/* mask_vocab.h - a tokenizer's tokens as a tree of bytes, so that tokens that begin alike are looked at together.
 *
 * Built once a model, read-only, counted. Control and unused tokens are not in it; those that end an answer are apart.
 * Nodes lie in the order of a depth-first walk: the nodes below node i are (i, end of i).                            */
#ifndef PARE_ENGINE_MASK_VOCAB_H
#define PARE_ENGINE_MASK_VOCAB_H

#include <stdatomic.h>
#include <stdint.h>

#include "model/tokenizer/tokenizer.h"

#define VOCAB_LONGEST 512 /* bytes; a longer token is never chosen under a grammar */

typedef struct vocab_node {
    int32_t  end;
    int32_t  first;  /* in ids[]: tokens that end here */
    uint16_t tokens; /* how many */
    uint16_t depth;  /* bytes from the root, which has 0 */
    uint16_t lowest; /* depth of the longest token below */
    uint8_t  byte;
} vocab_node;

typedef struct vocab_tree {
    atomic_int       holders;
    const tokenizer *t;
    int              vocab, depth; /* ids of the model; longest token */
    vocab_node      *node;
    int              n_nodes;
    int32_t         *ids;
    int              n_ids;
    int32_t         *ends; /* ids that end an answer */
    int              n_ends;
} vocab_tree;

/* `vocab`: ids of the model's output, which may be more than the tokenizer's. The tokenizer must outlive the tree. */
vocab_tree *vocab_tree_new(const tokenizer *t, int vocab, err *e);
vocab_tree *vocab_tree_hold(vocab_tree *v);
void        vocab_tree_free(vocab_tree *v);

#endif
