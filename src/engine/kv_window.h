/* kv_window.h - the panes of one sequence: what its next tokens may look at in the layers with a window.
 *
 * Entry i of a sequence is its i-th block of KV_TOKENS positions; it holds the panes of a run of entries, which ends
 * where its blocks do and whose beginning follows the window. Attention reads whole groups of ATTEND_GROUP positions, so
 * the run begins with one.                                                                                            */
#ifndef PARE_ENGINE_KV_WINDOW_H
#define PARE_ENGINE_KV_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kv_panes.h"

typedef struct kv_window {
    int32_t *table;     /* [entries] the pane of each, or KV_NONE */
    int      low, high; /* held: entries [low, high) */
    int  wanted[2]; /* entries where others may begin: the end of the prompt, and of what was found of it; 0: none */
    bool shared;    /* its whole blocks are nodes */
} kv_window;

/* The first entry that a token after `entry` whole ones reads, with a window of so many tokens. */
int kv_window_low(int window, int entry);
/* Most panes that a sequence holds, beside those of the tokens it is computing. */
int kv_window_most(int window);

/* How many of these nodes, entries [from, to) of a sequence that holds the panes [low, from), can be gone on from:
 * after them the panes of a whole window are there. */
int kv_window_usable(const kv_panes *p, int window, const int32_t *nodes, int low, int from, int to);

/* The sequence begins with no block. */
void kv_window_begin(kv_window *w, bool shared);
/* Lets the panes from `entry` on go. Those before entry `whole` belong to blocks that are nodes. */
void kv_window_cut(kv_window *w, kv_panes *p, int entry, int whole);
/* Its first `to` blocks are nodes, usable as above: holds the panes that the next token reads, and no others. It has none
 * from `to` on. */
void kv_window_enter(kv_window *w, kv_panes *p, int window, const int32_t *nodes, int to);
/* Panes for its own new blocks up to `to`; false: all are held, it has some of them. */
bool kv_window_grow(kv_window *w, kv_panes *p, const int32_t *blocks, int to);
/* The node `same` takes the place of the equal block `own`, which is given up. */
void kv_window_replace(kv_window *w, kv_panes *p, int entry, int own, int same);
/* `whole` entries are computed: lets go what the next tokens do not read. */
void kv_window_pass(kv_window *w, kv_panes *p, int window, int whole);

#endif
