/* kv_panes.h - who holds which pane, and which one goes first.
 *
 * A pane is what a block has in the layers that see only a window: 16 positions of those layers. A block has one while
 * some sequence still looks at it, and afterwards until the room is needed; what a block holds in the other layers stays
 * as long as the block does (kv_index.h). So a stored prefix can be gone on from where the panes of its last window are
 * still there.
 *
 * A pane that nobody holds rests in one of two lists, the oldest first to go. What a sequence just passed on its way may
 * keep a quarter of the room: one long prompt would otherwise drive out the places that others come back to, which are
 * where prompts and answers end and where a prefix was once looked for.
 *
 * All memory is taken in kv_panes_new; each call takes constant time. One thread; the counts may be read by any.      */
#ifndef PARE_ENGINE_KV_PANES_H
#define PARE_ENGINE_KV_PANES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/kv_index.h"

typedef struct kv_panes kv_panes;

kv_panes *kv_panes_new(int panes, int blocks, err *e);
void      kv_panes_free(kv_panes *p);

/* A pane for a block that has none, held once; the one that rests longest is taken from its block when there is no other.
 * KV_NONE: all are held. */
int kv_panes_take(kv_panes *p, int block);
int kv_panes_of(const kv_panes *p, int block); /* KV_NONE: gone */

void kv_panes_hold(kv_panes *p, int pane);

typedef enum kv_rest {               /* what becomes of a pane that nobody holds any more */
                       KV_REST_FREE, /* its block is no node */
                       KV_REST_PASSED,
                       KV_REST_WANTED /* counts when any of its holders says so */
} kv_rest;
void kv_panes_drop(kv_panes *p, int pane, kv_rest rest);

void kv_panes_move(kv_panes *p, int pane, int block); /* to a block that has none */
void kv_panes_forget(kv_panes *p, int block);         /* the block is used anew: its pane, if any, is free */
int  kv_panes_available(const kv_panes *p);           /* how many kv_panes_take could give now */

typedef struct kv_panes_counts {
    int64_t held, evicted;
} kv_panes_counts;
kv_panes_counts kv_panes_count(const kv_panes *p);

/* holders[pane]: how often sequences hold it. Walks everything; false with a sentence when something does not fit. */
bool kv_panes_check(const kv_panes *p, const kv_index *x, const int32_t *holders, err *e);

#endif
