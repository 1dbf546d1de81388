/* mask_parts.h - a matcher and its table, for the files that work on them. */
#ifndef PARE_ENGINE_MASK_PARTS_H
#define PARE_ENGINE_MASK_PARTS_H

#include <pthread.h>

#include "engine/mask.h"
#include "engine/mask_machine.h"

#define MASK_WORK 400000 /* items that one mask may look at; a usual one looks at a few thousand */

typedef struct local_mask { /* what a node's own rule says of the tokens, whoever called it */
    int      deepest;       /* it holds where the stack leaves so much room */
    int32_t *leaves;        /* nodes of the tree at which the rule may end and tokens go on */
    int      n_leaves, cap_leaves;
    uint64_t bits[];
} local_mask;

#define MASK_LEVELS 6 /* two nodes are alike at level k when no text of 2 << k bytes tells them apart */

typedef struct mask_table mask_table;
struct mask_table { /* of one grammar and one vocabulary */
    mask_table           *next;
    vocab_tree           *v;
    int                   n_nodes;
    int64_t               bytes;
    atomic_bool           warmed;
    pthread_mutex_t       lock; /* guards what follows, and working out; reading local[] needs none */
    machine               m;
    int32_t              *path;
    uint64_t             *like[MASK_LEVELS]; /* by node; NULL: not worked out */
    int32_t              *done;              /* nodes that have a mask of their own */
    int                   n_done, cap_done;
    _Atomic(local_mask *) local[]; /* by the grammar's node; NULL: not worked out */
};

/* The grammar's table for this vocabulary, which goes with the grammar. */
mask_table       *mask_table_for(grammar *g, vocab_tree *v, err *e);
/* NULL: no memory, or too much is stored already. */
const local_mask *mask_local(mask_table *t, const grammar *g, int node);
bool              mask_is_wide(const grammar *g, int node); /* lets many bytes pass, as in the middle of a text */
/* Works out what will be asked for in strings, once a table and for some milliseconds. */
void              mask_table_warm(mask_table *t, const grammar *g);

/* Allows the tokens below node `top` of the tree whose bytes from there on lead somewhere from `state`. `path` has
 * v->depth + 1 places. False: more than *budget nodes; bits are set in part. `leaves` may be NULL. */
bool mask_walk(machine *m, const vocab_tree *v, int32_t *path, int32_t top, int state, uint64_t *bits, int64_t *budget,
               local_mask *leaves);

struct matcher {
    grammar    *g;
    vocab_tree *v;
    mask_table *t;
    machine     m;
    int         state;
    bool        ended; /* by a token that ends answers */
    int32_t    *path;

    char     *trigger; /* NULL: none, or it was seen */
    int       n_trigger, seen;
    int32_t  *fall;  /* [n_trigger + 1] Knuth-Morris-Pratt: length of the longest proper border of each prefix */
    int32_t **wrong; /* by bytes seen: tokens that finish the trigger and go on as the grammar forbids; -1 ends */
};

#endif
