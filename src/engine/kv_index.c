#include "engine/kv_index.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define TOKEN_BYTES (KV_TOKENS * sizeof(int32_t))
#define MAX_BLOCKS  (1 << 28) /* far beyond any memory, and no sum or product below can overflow */
#define LOST_WAYS   4

typedef struct node {
    uint64_t chain; /* hash of the scope and all tokens up to here; seeded, so nobody can prepare collisions */
    int32_t  tokens[KV_TOKENS];
    int32_t  parent, scope;        /* a root has a scope record and no parent */
    int32_t  child, before, after; /* first child; siblings, newest first */
    int32_t  bucket;               /* next in the same bucket */
    int32_t  newer, older;         /* while it rests */
    int32_t  holders;
    int32_t  awake; /* children that do not rest */
    bool     is_node, pinned, rests;
} node;

typedef struct scope_record { /* lives as long as it has roots, so there are never more than blocks */
    kv_scope scope;
    int32_t  child;  /* first root */
    int32_t  bucket; /* next in the same bucket; next free one */
} scope_record;

struct kv_index {
    int           blocks;
    node         *nodes;
    int32_t      *free;          /* a stack of blocks given back */
    int           n_free, fresh; /* blocks from `fresh` on were never used */
    int32_t      *buckets;
    uint64_t      mask; /* of buckets and scope_buckets */
    scope_record *scopes;
    int32_t      *scope_buckets;
    int32_t       free_scope, fresh_scope;
    int32_t       newest, oldest;
    int           resting;
    uint64_t     *lost; /* chains of evicted nodes: for each bucket the last LOST_WAYS, the last one first; 0: none */
    uint64_t      seed;

    _Atomic int64_t held, cached, shared, evicted;
};

/* One thread writes, so a plain addition is enough; readers see whole numbers. */
static void count(_Atomic int64_t *counter, int64_t by) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

/* ---- opening ---- */

static uint64_t power_of_two(uint64_t at_least) {
    uint64_t n = 16;
    while (n < at_least) {
        n *= 2;
    }
    return n;
}

kv_index *kv_index_new(int blocks, err *e) {
    if (blocks < 1 || blocks > MAX_BLOCKS) {
        err_set(e, ERR_INVALID, "a key/value cache of %d blocks cannot be indexed; 1 to %d can", blocks, MAX_BLOCKS);
        return NULL;
    }
    kv_index *x = calloc(1, sizeof(*x));
    uint64_t  buckets = power_of_two((uint64_t)blocks * 2);
    size_t    n = (size_t)blocks;
    if (x) {
        *x = (kv_index){.blocks = blocks, .mask = buckets - 1, .seed = hash_seed()};
        x->newest = x->oldest = x->free_scope = KV_NONE;
        x->nodes = calloc(n, sizeof(*x->nodes));
        x->free = calloc(n, sizeof(*x->free));
        x->scopes = calloc(n, sizeof(*x->scopes));
        x->buckets = malloc(buckets * sizeof(*x->buckets));
        x->scope_buckets = malloc(buckets * sizeof(*x->scope_buckets));
        x->lost = calloc(buckets * LOST_WAYS, sizeof(*x->lost));
    }
    if (!x || !x->nodes || !x->free || !x->scopes || !x->buckets || !x->scope_buckets || !x->lost) {
        kv_index_free(x);
        err_set(e, ERR_MEMORY, "no memory for the index of a key/value cache of %d blocks; make the cache smaller",
                blocks);
        return NULL;
    }
    memset(x->buckets, 0xFF, buckets * sizeof(*x->buckets)); /* KV_NONE */
    memset(x->scope_buckets, 0xFF, buckets * sizeof(*x->scope_buckets));
    return x;
}

void kv_index_free(kv_index *x) {
    if (x) {
        free(x->nodes);
        free(x->free);
        free(x->scopes);
        free(x->buckets);
        free(x->scope_buckets);
        free(x->lost);
        free(x);
    }
}

/* ---- scopes ---- */

static uint64_t hash_of_scope(const kv_index *x, const kv_scope *scope) {
    return hash64(scope->bytes, sizeof(scope->bytes), x->seed);
}

static int32_t find_scope(const kv_index *x, const kv_scope *scope) {
    int32_t s = x->scope_buckets[hash_of_scope(x, scope) & x->mask];
    while (s != KV_NONE && memcmp(x->scopes[s].scope.bytes, scope->bytes, sizeof(scope->bytes)) != 0) {
        s = x->scopes[s].bucket;
    }
    return s;
}

static int32_t make_scope(kv_index *x, const kv_scope *scope) {
    int32_t s = x->free_scope;
    if (s != KV_NONE) {
        x->free_scope = x->scopes[s].bucket;
    } else {
        s = x->fresh_scope++;
    }
    int32_t *bucket = &x->scope_buckets[hash_of_scope(x, scope) & x->mask];
    x->scopes[s] = (scope_record){.scope = *scope, .child = KV_NONE, .bucket = *bucket};
    *bucket = s;
    return s;
}

static void forget_scope(kv_index *x, int32_t s) {
    int32_t *at = &x->scope_buckets[hash_of_scope(x, &x->scopes[s].scope) & x->mask];
    while (*at != s) {
        at = &x->scopes[*at].bucket;
    }
    *at = x->scopes[s].bucket;
    x->scopes[s].bucket = x->free_scope;
    x->free_scope = s;
}

/* ---- what was evicted ---- */

static uint64_t *find_lost(const kv_index *x, uint64_t chain) {
    uint64_t *set = &x->lost[(chain & x->mask) * LOST_WAYS];
    for (int i = 0; i < LOST_WAYS; i++) {
        if (set[i] == chain) {
            return &set[i];
        }
    }
    return NULL;
}

static void remember_lost(kv_index *x, uint64_t chain) {
    uint64_t *set = &x->lost[(chain & x->mask) * LOST_WAYS];
    memmove(set + 1, set, (LOST_WAYS - 1) * sizeof(*set));
    set[0] = chain;
}

static void forget_lost(kv_index *x, uint64_t chain) {
    uint64_t *at = find_lost(x, chain);
    if (at) {
        *at = 0;
    }
}

/* ---- looking up ---- */

static uint64_t chain_of(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens) {
    uint64_t before = parent == KV_NONE ? hash_of_scope(x, scope) : x->nodes[parent].chain;
    return hash64(tokens, TOKEN_BYTES, before);
}

static bool is_child(const kv_index *x, const node *n, const kv_scope *scope, int parent) {
    return n->parent == parent &&
           (parent != KV_NONE || memcmp(x->scopes[n->scope].scope.bytes, scope->bytes, sizeof(scope->bytes)) == 0);
}

int kv_index_find(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens) {
    uint64_t chain = chain_of(x, scope, parent, tokens);
    for (int32_t b = x->buckets[chain & x->mask]; b != KV_NONE; b = x->nodes[b].bucket) {
        const node *n = &x->nodes[b];
        if (n->chain == chain && is_child(x, n, scope, parent) && memcmp(n->tokens, tokens, TOKEN_BYTES) == 0) {
            return b;
        }
    }
    return KV_NONE;
}

static int common_tokens(const int32_t *a, const int32_t *b, int n) {
    int i = 0;
    while (i < n && a[i] == b[i]) {
        i++;
    }
    return i;
}

int kv_index_nearest(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens, int n, int *common) {
    int32_t s = parent == KV_NONE ? find_scope(x, scope) : KV_NONE;
    int32_t b = parent != KV_NONE ? x->nodes[parent].child : s != KV_NONE ? x->scopes[s].child : KV_NONE;
    int     best = KV_NONE;
    *common = 0;
    for (int seen = 0; b != KV_NONE && seen < KV_CHILDREN && *common < n; b = x->nodes[b].after, seen++) {
        int same = common_tokens(x->nodes[b].tokens, tokens, n);
        if (same > *common) {
            *common = same;
            best = b;
        }
    }
    return best;
}

bool kv_index_lost(const kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens) {
    uint64_t chain = chain_of(x, scope, parent, tokens);
    return chain && find_lost(x, chain);
}

bool kv_index_is_node(const kv_index *x, int block) {
    return x->nodes[block].is_node;
}

/* ---- resting: the list of what may go, oldest first to go ---- */

static void enter_list(kv_index *x, int32_t b) {
    node *n = &x->nodes[b];
    n->rests = true;
    n->newer = KV_NONE;
    n->older = x->newest;
    *(x->newest == KV_NONE ? &x->oldest : &x->nodes[x->newest].newer) = b;
    x->newest = b;
    x->resting++;
}

static void leave_list(kv_index *x, int32_t b) {
    node *n = &x->nodes[b];
    n->rests = false;
    *(n->newer == KV_NONE ? &x->newest : &x->nodes[n->newer].older) = n->older;
    *(n->older == KV_NONE ? &x->oldest : &x->nodes[n->older].newer) = n->newer;
    x->resting--;
}

static void rest_if_idle(kv_index *x, int32_t b) {
    while (b != KV_NONE && !x->nodes[b].holders && !x->nodes[b].pinned && !x->nodes[b].awake) {
        enter_list(x, b);
        b = x->nodes[b].parent;
        if (b != KV_NONE) {
            x->nodes[b].awake--;
        }
    }
}

static void wake(kv_index *x, int32_t b) {
    while (b != KV_NONE && x->nodes[b].rests) {
        leave_list(x, b);
        b = x->nodes[b].parent;
        if (b != KV_NONE) {
            x->nodes[b].awake++;
        }
    }
}

/* ---- nodes ---- */

static int32_t *first_child(kv_index *x, const node *n) {
    return n->parent == KV_NONE ? &x->scopes[n->scope].child : &x->nodes[n->parent].child;
}

void kv_index_add(kv_index *x, const kv_scope *scope, int parent, const int32_t *tokens, int block) {
    node *n = &x->nodes[block];
    n->chain = chain_of(x, scope, parent, tokens);
    n->parent = parent;
    n->scope = KV_NONE;
    if (parent == KV_NONE) {
        n->scope = find_scope(x, scope);
        n->scope = n->scope == KV_NONE ? make_scope(x, scope) : n->scope;
    } else {
        x->nodes[parent].awake++;
    }
    memcpy(n->tokens, tokens, TOKEN_BYTES);
    n->child = n->before = KV_NONE;
    n->is_node = true;

    int32_t *first = first_child(x, n);
    n->after = *first;
    if (n->after != KV_NONE) {
        x->nodes[n->after].before = block;
    }
    *first = block;
    n->bucket = x->buckets[n->chain & x->mask];
    x->buckets[n->chain & x->mask] = block;
    forget_lost(x, n->chain);
}

static void remove_node(kv_index *x, int32_t b) {
    node    *n = &x->nodes[b];
    int32_t *at = &x->buckets[n->chain & x->mask];
    while (*at != b) {
        at = &x->nodes[*at].bucket;
    }
    *at = n->bucket;
    *(n->before == KV_NONE ? first_child(x, n) : &x->nodes[n->before].after) = n->after;
    if (n->after != KV_NONE) {
        x->nodes[n->after].before = n->before;
    }
    if (n->parent == KV_NONE && x->scopes[n->scope].child == KV_NONE) {
        forget_scope(x, n->scope);
    }
    n->is_node = false;
}

/* The oldest resting node is a leaf: its children would have entered the list before it. */
static int evict(kv_index *x) {
    int32_t b = x->oldest;
    if (b == KV_NONE) {
        return KV_NONE;
    }
    leave_list(x, b);
    remove_node(x, b);
    remember_lost(x, x->nodes[b].chain);
    count(&x->cached, -1);
    count(&x->evicted, 1);
    return b;
}

/* ---- blocks ---- */

int kv_index_take(kv_index *x) {
    int b = x->n_free ? x->free[--x->n_free] : x->fresh < x->blocks ? x->fresh++ : evict(x);
    if (b != KV_NONE) {
        x->nodes[b] = (node){.parent = KV_NONE, .scope = KV_NONE, .child = KV_NONE, .holders = 1};
        count(&x->held, 1);
    }
    return b;
}

/* Nobody needs the block any more, or nobody but the disk. */
static void settle(kv_index *x, int b) {
    const node *n = &x->nodes[b];
    if (n->is_node) {
        rest_if_idle(x, b);
    } else if (!n->holders && !n->pinned) {
        x->free[x->n_free++] = b;
    }
}

void kv_index_hold(kv_index *x, int block) {
    node *n = &x->nodes[block];
    wake(x, block);
    n->holders++;
    if (n->holders == 1) {
        count(&x->held, 1);
        count(&x->cached, n->is_node ? -1 : 0);
    } else if (n->holders == 2) {
        count(&x->shared, 1);
    }
}

void kv_index_drop(kv_index *x, int block) {
    node *n = &x->nodes[block];
    n->holders--;
    if (n->holders == 1) {
        count(&x->shared, -1);
    } else if (n->holders == 0) {
        count(&x->held, -1);
        count(&x->cached, n->is_node ? 1 : 0);
        settle(x, block);
    }
}

void kv_index_pin(kv_index *x, int block) {
    wake(x, block);
    x->nodes[block].pinned = true;
}

void kv_index_unpin(kv_index *x, int block) {
    x->nodes[block].pinned = false;
    if (!x->nodes[block].holders) {
        settle(x, block);
    }
}

int kv_index_available(const kv_index *x) {
    return x->n_free + (x->blocks - x->fresh) + x->resting;
}

kv_index_counts kv_index_count(const kv_index *x) {
    return (kv_index_counts){
        .held = atomic_load_explicit(&x->held, memory_order_relaxed),
        .cached = atomic_load_explicit(&x->cached, memory_order_relaxed),
        .shared = atomic_load_explicit(&x->shared, memory_order_relaxed),
        .evicted = atomic_load_explicit(&x->evicted, memory_order_relaxed),
    };
}

/* ---- checking ---- */

typedef struct tally { /* what a walk over the blocks finds */
    int nodes, resting, held, cached, shared, roots;
} tally;

/* Adds a free block to seen[], which keeps it from being free twice. */
static bool check_free(const kv_index *x, const int32_t *holders, bool *seen, err *e) {
    for (int i = 0; i < x->n_free; i++) {
        int32_t b = x->free[i];
        if (b < 0 || b >= x->fresh || seen[b] || x->nodes[b].is_node || x->nodes[b].holders || x->nodes[b].pinned) {
            return err_set(e, ERR_INTERNAL, "block %d is on the free stack, and free twice, never used or in use", b);
        }
        seen[b] = true;
    }
    for (int b = x->fresh; b < x->blocks; b++) {
        if (holders[b] || x->nodes[b].is_node) {
            return err_set(e, ERR_INTERNAL, "block %d was never given away, and is in use", b);
        }
        seen[b] = true;
    }
    return true;
}

static bool check_children(const kv_index *x, int32_t parent, int32_t first, int *children, err *e) {
    int     awake = 0;
    int32_t before = KV_NONE;
    for (int32_t b = first; b != KV_NONE; b = x->nodes[b].after, (*children)++) {
        const node *n = &x->nodes[b];
        if (!n->is_node || n->before != before || *children > x->blocks || n->parent != parent) {
            return err_set(e, ERR_INTERNAL, "the children of block %d are no list at block %d", parent, b);
        }
        before = b;
        awake += !n->rests;
    }
    if (parent != KV_NONE && awake != x->nodes[parent].awake) {
        return err_set(e, ERR_INTERNAL, "block %d counts %d children awake, and has %d", parent, x->nodes[parent].awake,
                       awake);
    }
    return true;
}

static bool check_node(const kv_index *x, int b, const bool *free_block, err *e) {
    const node *n = &x->nodes[b];
    if (n->parent != KV_NONE && (free_block[n->parent] || !x->nodes[n->parent].is_node)) {
        return err_set(e, ERR_INTERNAL, "the parent %d of block %d is no node", n->parent, b);
    }
    const kv_scope *scope = n->parent == KV_NONE ? &x->scopes[n->scope].scope : NULL;
    if (kv_index_find(x, scope, n->parent, n->tokens) != b) {
        return err_set(e, ERR_INTERNAL, "block %d is not found by its tokens, or another one is", b);
    }
    if (n->rests != (!n->holders && !n->pinned && !n->awake)) {
        return err_set(e, ERR_INTERNAL, "block %d %s with %d holders and %d children awake", b,
                       n->rests ? "rests" : "does not rest", n->holders, n->awake);
    }
    return true;
}

static bool check_blocks(const kv_index *x, const int32_t *holders, const bool *free_block, tally *t, err *e) {
    for (int b = 0; b < x->fresh; b++) {
        const node *n = &x->nodes[b];
        if (n->holders != holders[b]) {
            return err_set(e, ERR_INTERNAL, "block %d counts %d holders, and %d hold it", b, n->holders, holders[b]);
        }
        if (!free_block[b] && !n->is_node && !n->holders && !n->pinned) {
            return err_set(e, ERR_INTERNAL, "block %d is lost: not free, not held, no node", b);
        }
        if (n->is_node && (!check_node(x, b, free_block, e) || !check_children(x, b, n->child, &t->nodes, e))) {
            return false;
        }
        t->resting += n->is_node && n->rests;
        t->held += n->holders > 0;
        t->shared += n->holders > 1;
        t->cached += n->is_node && !n->holders;
        t->roots += n->is_node && n->parent == KV_NONE;
    }
    return true;
}

static bool check_scopes(const kv_index *x, tally *t, err *e) {
    int roots = 0;
    for (uint64_t i = 0; i <= x->mask; i++) {
        for (int32_t s = x->scope_buckets[i]; s != KV_NONE; s = x->scopes[s].bucket) {
            if (x->scopes[s].child == KV_NONE || find_scope(x, &x->scopes[s].scope) != s) {
                return err_set(e, ERR_INTERNAL, "scope %d is empty or not found", s);
            }
            if (!check_children(x, KV_NONE, x->scopes[s].child, &roots, e)) {
                return false;
            }
        }
    }
    if (roots != t->roots) {
        return err_set(e, ERR_INTERNAL, "the scopes have %d roots, and there are %d", roots, t->roots);
    }
    t->nodes += roots;
    return true;
}

/* place[b]: how far from the oldest; parents must come later than their children. */
static bool check_resting(const kv_index *x, int32_t *place, const tally *t, err *e) {
    int     n = 0;
    int32_t older = KV_NONE;
    for (int32_t b = x->oldest; b != KV_NONE; older = b, b = x->nodes[b].newer) {
        if (n >= x->blocks || !x->nodes[b].rests || x->nodes[b].older != older) {
            return err_set(e, ERR_INTERNAL, "the list of resting blocks is broken at block %d", b);
        }
        place[b] = n++;
        for (int32_t c = x->nodes[b].child; c != KV_NONE; c = x->nodes[c].after) {
            if (place[c] >= place[b]) {
                return err_set(e, ERR_INTERNAL, "block %d would go before its child %d", b, c);
            }
        }
    }
    if (x->newest != older || n != x->resting || n != t->resting) {
        return err_set(e, ERR_INTERNAL, "%d blocks rest, %d are listed, %d are counted", t->resting, n, x->resting);
    }
    return true;
}

static bool check_counts(const kv_index *x, const tally *t, int nodes, err *e) {
    kv_index_counts c = kv_index_count(x);
    if (c.held != t->held || c.cached != t->cached || c.shared != t->shared) {
        return err_set(e, ERR_INTERNAL, "counted: %lld held, %lld cached, %lld shared; there are %d, %d, %d",
                       (long long)c.held, (long long)c.cached, (long long)c.shared, t->held, t->cached, t->shared);
    }
    int in_table = 0;
    for (uint64_t i = 0; i <= x->mask; i++) {
        for (int32_t b = x->buckets[i]; b != KV_NONE && in_table <= x->blocks; b = x->nodes[b].bucket) {
            in_table++;
        }
    }
    if (in_table != nodes || t->nodes != nodes) {
        return err_set(e, ERR_INTERNAL, "%d nodes, of which %d are in the table and %d in the tree", nodes, in_table,
                       t->nodes);
    }
    return true;
}

bool kv_index_check(const kv_index *x, const int32_t *holders, err *e) {
    bool    *free_block = calloc((size_t)x->blocks, sizeof(*free_block));
    int32_t *place = malloc((size_t)x->blocks * sizeof(*place));
    tally    t = {0};
    bool     ok = free_block && place;
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for checking %d blocks", x->blocks);
    } else {
        memset(place, 0x7F, (size_t)x->blocks * sizeof(*place)); /* not in the list: after all that are */
    }
    ok = ok && check_free(x, holders, free_block, e) && check_blocks(x, holders, free_block, &t, e) &&
         check_scopes(x, &t, e) && check_resting(x, place, &t, e);
    int nodes = 0;
    for (int b = 0; ok && b < x->fresh; b++) {
        nodes += x->nodes[b].is_node;
    }
    ok = ok && check_counts(x, &t, nodes, e);
    free(free_block);
    free(place);
    return ok;
}
