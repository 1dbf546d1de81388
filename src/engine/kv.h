/* kv.h - the key/value cache of one engine, in blocks that sequences share.
 *
 * A block holds KV_TOKENS consecutive positions of every layer. Sequences that begin with the same tokens, in the same
 * scope, hold the same blocks; a block is written only while one sequence holds it and it is not in the index, so a
 * shared one that is to be written is copied first. Full blocks go into the index, a tree whose nodes are found by a
 * hash of (parent, tokens) and compared token by token: a hit is never a guess. Blocks that nobody holds stay, the least
 * recently used one goes first when memory is short, leaves before their parents. With a disk (kv_disk.h) full blocks
 * are also written there and come back after a restart. Source: PagedAttention, arXiv:2309.06180.
 *
 * Layers that see only a window need not keep more than it: with kv_options.step_tokens their part of a block, its pane,
 * goes when no sequence looks at it any more and the room is needed. What is stored can be gone on from where the panes
 * of one whole window are there; kv_panes.h says which ones stay.
 *
 * All memory is taken in kv_open (pages are touched when used); nothing is allocated later. The engine's thread alone
 * calls these functions, except kv_usage, and kv_write and kv_view, which many threads may call for different tokens
 * while a step runs.                                                                                                 */
#ifndef PARE_ENGINE_KV_H
#define PARE_ENGINE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/arch.h"
#include "tensor/kvblock.h"

typedef struct kv_cache kv_cache;

typedef struct kv_options {
    kv_type type;
    int     sequences;   /* numbers 0 .. sequences-1 */
    int     context;     /* most tokens of one */
    int     step_tokens; /* the caller takes kv_reserve by steps: what all sequences together reserve beyond what they
                                have committed is no more. 0: any number, and layers with windows keep all positions */
    size_t  bytes;       /* for blocks; 0: room for all sequences at full length, at most 1 GiB. Never less than one
                              sequence at full length needs: 0 gives at least that, a smaller number is refused */
    const char *disk; /* directory; NULL: none. Made when it does not exist. With one all layers keep all positions */
    size_t      disk_bytes; /* 0: 4 GiB */
    const char *model;      /* fingerprint of the model's file, for the disk; may be NULL without one */
} kv_options;

kv_cache *kv_open(const model_shape *shape, const kv_options *o, err *e);
void      kv_close(kv_cache *kv); /* waits for the disk */

typedef struct kv_scope { /* prefixes are shared within a scope only */
    uint8_t bytes[16];
} kv_scope;

/* Why a prefix was not found as far as it could have been. */
typedef enum kv_miss {
    KV_MISS_NONE,    /* found to the end, but for less than a block; the last token is always computed */
    KV_MISS_NEW,     /* nothing in this scope begins like this */
    KV_MISS_DIVERGE, /* something begins like this and goes on differently (or ends) */
    KV_MISS_EVICTED, /* it was here and had to go */
    KV_MISS_OFF      /* the sequence asked for no reuse */
} kv_miss;

typedef struct kv_match {
    int     tokens;    /* covered: their keys and values are there */
    int     from_disk; /* of these */
    kv_miss miss;
} kv_match;

/* Begins a sequence of tokens[0 .. n), which the caller keeps unchanged until kv_release: finds what is stored of
 * tokens[0 .. n-1), holds it, copies a partly equal block when at least KV_TOKENS / 4 tokens of it fit and a block is
 * free or can be evicted. While kv_loading says so, blocks are on their way from disk. A sequence without reuse takes
 * nothing from the index and leaves nothing there. */
void     kv_begin(kv_cache *kv, int sequence, kv_scope scope, const int32_t *tokens, int n, bool reuse);
bool     kv_loading(kv_cache *kv, int sequence); /* polls; false: kv_found is final */
kv_match kv_found(const kv_cache *kv, int sequence);

/* Looks again from `position` (a multiple of KV_TOKENS, where the sequence stands): blocks that another sequence has
 * finished meanwhile are taken over. Returns the new position. */
int  kv_advance(kv_cache *kv, int sequence, int position);
/* True when a sequence with a smaller `rank` is about to compute the very block that this one needs next at `position`:
 * waiting for it is cheaper. The engine gives ranks with kv_rank (older is smaller) and tells how far each one stands by
 * kv_commit. */
bool kv_awaits(const kv_cache *kv, int sequence, int position);
void kv_rank(kv_cache *kv, int sequence, int64_t rank);

/* Blocks for the positions [0, length), evicting what nobody holds; false: all are held. Not fewer than are committed. */
bool kv_reserve(kv_cache *kv, int sequence, int length);

/* The positions [.., length) are computed and their tokens known (`tokens` as given to kv_begin, grown by the caller):
 * full blocks enter the index; where an equal one is there already, it is taken instead of the own copy. */
void kv_commit(kv_cache *kv, int sequence, int length);

/* Gives everything back. What is in the index stays until it is evicted. */
void kv_release(kv_cache *kv, int sequence);

/* ---- for the forward pass ---- */

void kv_write(kv_cache *kv, int layer, int sequence, int position, const float *k, const float *v);

typedef struct kv_view { /* of one layer and K/V head, for attend_span */
    const kv_layout *layout;
    const char      *blocks;
    size_t           block_bytes, values_at;
} kv_view;
kv_view        kv_head(const kv_cache *kv, int layer, int head);
const int32_t *kv_table(const kv_cache *kv, int sequence); /* block numbers, context / KV_TOKENS (rounded up) of them */
/* What kv_head's blocks are counted by in this layer: kv_table, or in a layer with panes their numbers, -1 for those that
 * the sequence has no more. */
const int32_t *kv_layer_table(const kv_cache *kv, int layer, int sequence);

/* ---- telling ---- */

typedef struct kv_usage {            /* counters since the start; any thread */
    int64_t blocks, held, cached;    /* all; in use by sequences; in the index and held by nobody */
    int64_t evicted, copied, shared; /* shared: held by more than one sequence now */
    int64_t lookup_tokens, hit_tokens, disk_hit_tokens;
    int64_t disk_bytes, disk_written, disk_read, disk_bad; /* blocks but for bytes */
    int64_t panes, panes_held, panes_evicted;              /* 0: all layers keep all positions */
    size_t  bytes;                                         /* of all blocks and panes */
    int     block_tokens;
} kv_usage;
kv_usage kv_usage_read(const kv_cache *kv);

/* Bytes that `tokens` positions take when all layers keep them. */
size_t kv_bytes_of(const model_shape *shape, kv_type type, int64_t tokens);
/* Bytes with which a cache of these options (but their `bytes`) has room for so many positions, and for one sequence at
 * full length; 0 when there is no such cache. */
size_t kv_bytes_for(const model_shape *shape, const kv_options *o, int64_t tokens);
/* Bytes that kv_open would take with these options; 0 when it would refuse them. */
size_t kv_bytes_taken(const model_shape *shape, const kv_options *o);

/* For tests: how many more tokens, beyond those committed, kv_reserve could give this sequence now. */
int kv_room(const kv_cache *kv, int sequence);

/* For tests: every block is free, cached or held as often as its count says; false with a sentence otherwise. */
bool kv_check(const kv_cache *kv, err *e);

#endif
