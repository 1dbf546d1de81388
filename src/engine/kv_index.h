/* kv_index.h - who holds which block, what the full ones hold, and which one goes first.
 *
 * A block is free, taken (its holder writes it) or a node: full, never written again, found by its tokens. Nodes form one
 * tree a scope; the child that continues a node with 16 given tokens is found by one probe of a hash table whose keys
 * are (parent, tokens), and compared. A radix tree alone would have to search a node's children, and a root may have
 * thousands; the table finds 2000 tokens in 5 us whatever the fan-out (measured by tests/engine/test_kv_index.c),
 * while the tree says who depends on whom and which child is partly equal.
 *
 * A node rests when no sequence holds it, the disk does not need it and all its children rest. Resting nodes stand in
 * one list; a parent enters it after its children, so the oldest one is always a leaf and eviction never searches. All
 * operations take constant time, but that waking or resting a node may do the same to its ancestors.
 *
 * One thread; kv_index_count may be called by any. A parent of KV_NONE means the root of `scope`.                    */
#ifndef PARE_ENGINE_KV_INDEX_H
#define PARE_ENGINE_KV_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/kv.h"

#define KV_NONE     (-1)
#define KV_CHILDREN 64 /* most that kv_index_nearest looks at, the newest first */

typedef struct kv_index kv_index;

kv_index *kv_index_new(int blocks, err *e);
void      kv_index_free(kv_index *x);

/* ---- blocks ---- */

/* A block that the caller holds once: the last one given back, else one never used, else the node that rests longest,
 * which is forgotten. KV_NONE: there is none. */
int  kv_index_take(kv_index *x);
void kv_index_hold(kv_index *x, int block);
void kv_index_drop(kv_index *x, int block); /* the last one frees the block or, if it is a node, lets it rest */
void kv_index_pin(kv_index *x, int block);  /* for the disk: stays where it is, but is not held; once a block */
void kv_index_unpin(kv_index *x, int block);
bool kv_index_is_node(const kv_index *x, int block);
int  kv_index_available(const kv_index *x); /* how many blocks kv_index_take could give now */

/* ---- the tree ---- */

/* The node below `parent` with these KV_TOKENS tokens, or KV_NONE. */
int  kv_index_find(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens);
/* The child of `parent` that has most of tokens[0 .. n) at its beginning: *common of them, at least one. */
int  kv_index_nearest(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens, int n, int *common);
/* Makes the taken block a node. `parent` is a node that the caller holds; there is no such child yet. */
void kv_index_add(kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens, int block);
/* True when such a node was evicted, as far as remembered: at least the last four, and mostly the last 8 for each block. */
bool kv_index_lost(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens);

/* ---- telling ---- */

typedef struct kv_index_counts {
    int64_t held, cached, shared, evicted; /* as in kv_usage */
} kv_index_counts;
kv_index_counts kv_index_count(const kv_index *x);

/* holders[block]: how often sequences hold it. Walks everything; false with a sentence when something does not fit. */
bool kv_index_check(const kv_index *x, const int32_t *holders, err *e);

#endif
