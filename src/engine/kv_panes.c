#include "engine/kv_panes.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PASSED_SHARE 4 /* of what rests, one in so many may be what was only passed */

typedef struct pane {
    int32_t block; /* KV_NONE: free */
    int32_t holders;
    int32_t newer, older; /* while it rests */
    bool    rests, wanted;
} pane;

typedef struct rest_list {
    int32_t newest, oldest;
    int     count;
} rest_list;

struct kv_panes {
    int       count, blocks;
    pane     *panes;
    int32_t  *of;            /* [blocks] */
    int32_t  *free;          /* a stack of those given back */
    int       n_free, fresh; /* from `fresh` on they were never used */
    rest_list passed, wanted;

    _Atomic int64_t held, evicted;
};

static void count(_Atomic int64_t *counter, int64_t by) { /* one thread writes, others read */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

/* ---- opening ---- */

kv_panes *kv_panes_new(int panes, int blocks, err *e) {
    kv_panes *p = calloc(1, sizeof(*p));
    if (p) {
        *p = (kv_panes){.count = panes,
                        .blocks = blocks,
                        .passed = {.newest = KV_NONE, .oldest = KV_NONE},
                        .wanted = {.newest = KV_NONE, .oldest = KV_NONE}};
        p->panes = calloc((size_t)panes, sizeof(*p->panes));
        p->free = calloc((size_t)panes, sizeof(*p->free));
        p->of = malloc((size_t)blocks * sizeof(*p->of));
    }
    if (!p || !p->panes || !p->free || !p->of) {
        kv_panes_free(p);
        err_set(e, ERR_MEMORY, "no memory for the list of %d windows' blocks; make the cache smaller", panes);
        return NULL;
    }
    memset(p->of, 0xFF, (size_t)blocks * sizeof(*p->of)); /* KV_NONE */
    for (int i = 0; i < panes; i++) {
        p->panes[i].block = KV_NONE;
    }
    return p;
}

void kv_panes_free(kv_panes *p) {
    if (p) {
        free(p->panes);
        free(p->free);
        free(p->of);
        free(p);
    }
}

/* ---- resting ---- */

static void enter_list(kv_panes *p, int32_t i) {
    pane      *n = &p->panes[i];
    rest_list *l = n->wanted ? &p->wanted : &p->passed;
    n->rests = true;
    n->newer = KV_NONE;
    n->older = l->newest;
    *(l->newest == KV_NONE ? &l->oldest : &p->panes[l->newest].newer) = i;
    l->newest = i;
    l->count++;
}

static void leave_list(kv_panes *p, int32_t i) {
    pane      *n = &p->panes[i];
    rest_list *l = n->wanted ? &p->wanted : &p->passed;
    *(n->newer == KV_NONE ? &l->newest : &p->panes[n->newer].older) = n->older;
    *(n->older == KV_NONE ? &l->oldest : &p->panes[n->older].newer) = n->newer;
    l->count--;
    n->rests = n->wanted = false;
}

static int evict(kv_panes *p) {
    int        resting = p->passed.count + p->wanted.count;
    bool       passed = p->passed.count > 0 && (p->passed.count * PASSED_SHARE >= resting || p->wanted.count == 0);
    rest_list *l = passed ? &p->passed : &p->wanted;
    int32_t    i = l->oldest;
    if (i != KV_NONE) {
        leave_list(p, i);
        p->of[p->panes[i].block] = KV_NONE;
        count(&p->evicted, 1);
    }
    return i;
}

/* ---- panes ---- */

int kv_panes_take(kv_panes *p, int block) {
    int i = p->n_free ? p->free[--p->n_free] : p->fresh < p->count ? p->fresh++ : evict(p);
    if (i != KV_NONE) {
        p->panes[i] = (pane){.block = block, .holders = 1};
        p->of[block] = i;
        count(&p->held, 1);
    }
    return i;
}

int kv_panes_of(const kv_panes *p, int block) {
    return p->of[block];
}

static void free_pane(kv_panes *p, int i) {
    p->of[p->panes[i].block] = KV_NONE;
    p->panes[i].block = KV_NONE;
    p->free[p->n_free++] = i;
}

void kv_panes_hold(kv_panes *p, int i) {
    pane *n = &p->panes[i];
    if (n->rests) {
        leave_list(p, i);
    }
    count(&p->held, n->holders == 0);
    n->holders++;
}

void kv_panes_drop(kv_panes *p, int i, kv_rest rest) {
    pane *n = &p->panes[i];
    n->wanted |= rest == KV_REST_WANTED;
    if (--n->holders > 0) {
        return;
    }
    count(&p->held, -1);
    if (rest == KV_REST_FREE) {
        free_pane(p, i);
    } else {
        enter_list(p, i);
    }
}

void kv_panes_move(kv_panes *p, int i, int block) {
    p->of[p->panes[i].block] = KV_NONE;
    p->of[block] = i;
    p->panes[i].block = block;
}

void kv_panes_forget(kv_panes *p, int block) {
    int i = p->of[block];
    if (i != KV_NONE) {
        leave_list(p, i);
        free_pane(p, i);
    }
}

int kv_panes_available(const kv_panes *p) {
    return p->n_free + (p->count - p->fresh) + p->passed.count + p->wanted.count;
}

kv_panes_counts kv_panes_count(const kv_panes *p) {
    return (kv_panes_counts){.held = atomic_load_explicit(&p->held, memory_order_relaxed),
                             .evicted = atomic_load_explicit(&p->evicted, memory_order_relaxed)};
}

/* ---- checking ---- */

static bool check_list(const kv_panes *p, const rest_list *l, bool wanted, err *e) {
    int     n = 0;
    int32_t older = KV_NONE;
    for (int32_t i = l->oldest; i != KV_NONE; older = i, i = p->panes[i].newer, n++) {
        const pane *at = &p->panes[i];
        if (n >= p->count || !at->rests || at->wanted != wanted || at->older != older || at->holders) {
            return err_set(e, ERR_INTERNAL, "the list of resting panes is broken at pane %d", i);
        }
    }
    return (n == l->count && l->newest == older) ||
           err_set(e, ERR_INTERNAL, "%d panes rest and %d are counted", n, l->count);
}

/* A pane is free (and on the stack), held, or rests below a node. */
static bool check_pane(const kv_panes *p, const kv_index *x, int i, int holders, int *used, err *e) {
    const pane *n = &p->panes[i];
    if (n->holders != holders) {
        return err_set(e, ERR_INTERNAL, "pane %d counts %d holders, and %d hold it", i, n->holders, holders);
    }
    if (n->block == KV_NONE) {
        return (!holders && !n->rests) || err_set(e, ERR_INTERNAL, "pane %d is used and has no block", i);
    }
    if (n->block < 0 || n->block >= p->blocks || p->of[n->block] != i || i >= p->fresh) {
        return err_set(e, ERR_INTERNAL, "block %d does not have its pane %d", n->block, i);
    }
    if (n->rests != !holders || (n->rests && !kv_index_is_node(x, n->block))) {
        return err_set(e, ERR_INTERNAL, "pane %d of block %d %s with %d holders", i, n->block,
                       n->rests ? "rests" : "does not rest", holders);
    }
    ++*used;
    return true;
}

static bool check_free(const kv_panes *p, err *e) {
    for (int k = 0; k < p->n_free; k++) {
        int32_t i = p->free[k];
        if (i < 0 || i >= p->fresh || p->panes[i].block != KV_NONE) {
            return err_set(e, ERR_INTERNAL, "pane %d is on the free stack, and in use", i);
        }
    }
    return true;
}

bool kv_panes_check(const kv_panes *p, const kv_index *x, const int32_t *holders, err *e) {
    int used = 0, named = 0, held = 0;
    for (int i = 0; i < p->count; i++) {
        if (!check_pane(p, x, i, holders[i], &used, e)) {
            return false;
        }
        held += holders[i] > 0;
    }
    for (int b = 0; b < p->blocks; b++) {
        named += p->of[b] != KV_NONE;
    }
    if (named != used || used + p->n_free != p->fresh || held != kv_panes_count(p).held) {
        return err_set(e, ERR_INTERNAL,
                       "of %d panes %d are used, %d named by blocks, %d free; %lld are counted as held", p->fresh, used,
                       named, p->n_free, (long long)kv_panes_count(p).held);
    }
    return check_free(p, e) && check_list(p, &p->passed, false, e) && check_list(p, &p->wanted, true, e);
}
