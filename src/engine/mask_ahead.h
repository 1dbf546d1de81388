/* mask_ahead.h - masks that are worked out while the forward pass runs.
 *
 * A mask depends on the tokens that were accepted and on nothing else, so the one for the next token can be worked out by
 * another thread while the forward pass of the last one computes its logits. One such thread an engine; it is started for
 * the first request that has a grammar.
 *
 * An answer's mask_next goes to and fro: from mask_next_ask until mask_next_ready its matcher belongs to that thread.  */
#ifndef PARE_ENGINE_MASK_AHEAD_H
#define PARE_ENGINE_MASK_AHEAD_H

#include "engine/mask.h"

typedef struct mask_ahead mask_ahead; /* the thread and its line */
typedef struct mask_next  mask_next;  /* an answer's matcher, and the mask of its next token */

mask_ahead *mask_ahead_start(err *e);
/* All mask_nexts are to be freed before. Joins the thread. */
void        mask_ahead_stop(mask_ahead *a);

/* Takes the matcher, also when it fails. `vocab`: the ids of the model's output. */
mask_next *mask_next_new(mask_ahead *a, matcher *m, int vocab, err *e);
/* At once: what is just being worked on is freed by the thread when it is done. NULL is fine. */
void       mask_next_free(mask_next *n);

typedef struct mask_asks { /* those whose masks are asked for together, so that the thread is woken once; zeroed */
    mask_next *first, *last;
} mask_asks;

/* Asks for the mask, if that was not done already. From any thread, one at a time for each mask_next; until they are sent
 * none of them is freed. */
void mask_next_ask(mask_next *n, mask_asks *with);
void mask_asks_send(mask_asks *asks);
/* Whether the mask is there, waiting for it until `until_us` (clock_us; 0: not at all). Asked for or not, it is there only
 * after somebody asked. */
bool mask_next_ready(mask_next *n, int64_t until_us);

/* For a mask that is ready: a bit for each id of the model's output. */
const uint64_t *mask_next_bits(const mask_next *n);
/* The matcher, to be moved on: what was worked out is out of date, and a new mask must be asked for. Only when the mask is
 * ready, or none was asked for. */
matcher        *mask_next_matcher(mask_next *n);

#endif
