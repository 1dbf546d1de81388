/* mask_table.c - masks of single nodes, worked out once and read by all threads. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/mask_parts.h"

#define MOST_BYTES (48 << 20) /* of one table */
#define WARM_US    20000      /* for a new grammar, on the thread of the request that brings it */
#define WARM_LEVEL 2          /* nodes that 8 bytes do not tell apart are warmed once */
#define WIDE       64         /* bytes */
#define MOST_ALIKE 30000000   /* edges looked at to find nodes that are alike */
#define LOCAL_WORK 8000000

static void free_local(local_mask *l) {
    if (l) {
        free(l->leaves);
        free(l);
    }
}

static void free_table(mask_table *t) {
    for (int i = 0; i < t->n_done; i++) { /* others have one of these */
        free_local(atomic_load_explicit(&t->local[t->done[i]], memory_order_relaxed));
    }
    for (int k = 0; k < MASK_LEVELS; k++) {
        free(t->like[k]);
    }
    machine_free(&t->m);
    vocab_tree_free(t->v);
    free(t->path);
    free(t->done);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void mask_tables_free(mask_table *t) {
    while (t) {
        mask_table *next = t->next;
        free_table(t);
        t = next;
    }
}

/* ---- nodes that are alike ---- */

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 31;
}

/* What a node does within one byte more than `before` tells of: Moore's partition (1956), by hash. A rule that may be empty
 * would have to be looked through; nodes that call one are like no other. */
static uint64_t likeness(const grammar *g, int i, const uint64_t *before) {
    const grammar_node *node = &g->node[i];
    uint64_t            h = mix(0x9E3779B97F4A7C15u, node->final);
    for (int k = 0; k < node->n_bytes; k++) {
        const byte_edge *d = &g->bytes[node->first_byte + k];
        uint64_t         to = before[d->to];
        int              lo = d->lo;
        int              hi = d->hi;
        for (; k + 1 < node->n_bytes && d[1].lo == hi + 1 && before[d[1].to] == to; d++, k++) {
            hi = d[1].hi; /* neighbours that lead to nodes that are alike are one */
        }
        h = mix(h, (uint64_t)lo << 8 | (uint64_t)hi);
        h = mix(h, to);
    }
    for (int k = 0; k < node->n_calls; k++) {
        const call_edge *d = &g->calls[node->first_call + k];
        h = mix(h, (uint64_t)d->rule + 4096);
        h = mix(h, g->start[d->rule].nullable ? (uint64_t)i << 20 : before[d->to]);
    }
    return h;
}

static void find_alike(mask_table *t, const grammar *g) {
    size_t    n = (size_t)g->n_nodes;
    uint64_t *now = calloc(n, sizeof(*now)), *next = calloc(n, sizeof(*next));
    int64_t   edges = (int64_t)g->n_bytes + g->n_calls + g->n_nodes, work = 0;
    for (size_t i = 0; now && i < n; i++) {
        now[i] = g->node[i].final;
    }
    for (int level = 0, bytes = 0; now && next && level < MASK_LEVELS; level++) {
        for (; bytes < 2 << level; bytes++, work += edges) {
            for (size_t i = 0; work <= MOST_ALIKE && i < n; i++) {
                next[i] = likeness(g, (int)i, now);
            }
            uint64_t *swap = now;
            now = next;
            next = swap;
        }
        t->like[level] = work <= MOST_ALIKE ? malloc(n * sizeof(*now)) : NULL;
        if (t->like[level]) {
            memcpy(t->like[level], now, n * sizeof(*now));
        }
    }
    free(now);
    free(next);
}

/* A node that has a mask and that few bytes tell from this one; *bytes: none so short do. NULL: there is none. */
static const local_mask *alike(const mask_table *t, int node, int *bytes) {
    for (int level = MASK_LEVELS - 1; level >= 0; level--) {
        const uint64_t *like = t->like[level];
        for (int i = 0; like && i < t->n_done; i++) {
            if (like[t->done[i]] == like[node]) {
                *bytes = 2 << level;
                return atomic_load_explicit(&t->local[t->done[i]], memory_order_relaxed);
            }
        }
    }
    return NULL;
}

/* ---- tables ---- */

static mask_table *find_table(mask_table *t, const vocab_tree *v) {
    while (t && t->v != v) {
        t = t->next;
    }
    return t;
}

mask_table *mask_table_for(grammar *g, vocab_tree *v, err *e) {
    mask_table *first = atomic_load(&g->tables);
    mask_table *t = find_table(first, v);
    if (t) {
        return t;
    }
    t = calloc(1, sizeof(*t) + (size_t)g->n_nodes * sizeof(t->local[0]));
    if (!t) {
        err_set(e, ERR_MEMORY, "out of memory for the masks of a grammar");
        return NULL;
    }
    t->v = vocab_tree_hold(v);
    t->n_nodes = g->n_nodes;
    t->next = first;
    pthread_mutex_init(&t->lock, NULL);
    t->path = calloc((size_t)v->depth + 2, sizeof(*t->path));
    if (!t->path || !machine_init(&t->m, g, e)) {
        free_table(t);
        err_set(e, ERR_MEMORY, "out of memory for the masks of a grammar");
        return NULL;
    }
    find_alike(t, g);
    while (!atomic_compare_exchange_weak(&g->tables, &t->next, t)) {
        mask_table *other = find_table(t->next, v);
        if (other) { /* another thread was faster */
            free_table(t);
            return other;
        }
    }
    return t;
}

static void add_leave(local_mask *l, int32_t at) {
    if (l->n_leaves == l->cap_leaves) {
        int      cap = l->cap_leaves ? 2 * l->cap_leaves : 256;
        int32_t *more = realloc(l->leaves, (size_t)cap * sizeof(*more));
        if (!more) {
            l->deepest = GRAMMAR_MOST_DEPTH + 1; /* holds nowhere */
            return;
        }
        l->leaves = more;
        l->cap_leaves = cap;
    }
    l->leaves[l->n_leaves++] = at;
}

bool mask_walk(machine *m, const vocab_tree *v, int32_t *path, int32_t top, int state, uint64_t *bits, int64_t *budget,
               local_mask *leaves) {
    const vocab_node *node = v->node;
    const uint8_t    *class_of = m->g->class_of;
    int               base = node[top].depth;
    int64_t           left = *budget;
    path[0] = state;
    if (leaves && machine_flags(m, state) & STATE_LEAVES) {
        add_leave(leaves, top);
    }
    for (int32_t i = top + 1; i < node[top].end && left > 0; left--) {
        int depth = node[i].depth - base;
        int to = machine_step(m, path[depth - 1], class_of[node[i].byte]);
        if (to == STATE_DEAD) {
            i = node[i].end;
            continue;
        }
        path[depth] = to;
        for (int k = 0; k < node[i].tokens; k++) {
            int32_t id = v->ids[node[i].first + k];
            bits[id / 64] |= (uint64_t)1 << (id % 64);
        }
        if (leaves && node[i].end > i + 1 && machine_flags(m, to) & STATE_LEAVES) {
            add_leave(leaves, i);
        }
        i++;
    }
    *budget = left;
    return left > 0;
}

static void forbid_below(const vocab_tree *v, int32_t at, uint64_t *bits) {
    int end = v->node[at].end < v->n_nodes ? v->node[v->node[at].end].first : v->n_ids;
    for (int k = v->node[at].first; k < end; k++) {
        bits[v->ids[k] / 64] &= ~((uint64_t)1 << (v->ids[k] % 64));
    }
}

/* mask_walk for tokens of more than `known` bytes; `l` holds what is true of the shorter ones. */
static void walk_longer(mask_table *t, int state, int known, local_mask *l) {
    const vocab_node *node = t->v->node;
    t->path[0] = state;
    for (int32_t i = 1; i < node[0].end;) {
        int depth = node[i].depth;
        int to = node[i].lowest > known ? machine_step(&t->m, t->path[depth - 1], t->m.g->class_of[node[i].byte]) : -1;
        if (to == STATE_DEAD) {
            forbid_below(t->v, i, l->bits);
        }
        if (to <= STATE_DEAD) {
            i = node[i].end;
            continue;
        }
        t->path[depth] = to;
        for (int k = 0; k < node[i].tokens; k++) {
            int32_t id = t->v->ids[node[i].first + k];
            l->bits[id / 64] |= (uint64_t)1 << (id % 64);
        }
        if (depth > known && node[i].end > i + 1 && machine_flags(&t->m, to) & STATE_LEAVES) {
            add_leave(l, i);
        }
        i++;
    }
}

static local_mask *work_out(mask_table *t, int node) {
    size_t      words = mask_words(t->v->vocab);
    local_mask *l = calloc(1, sizeof(*l) + words * sizeof(uint64_t));
    int64_t     all = INT64_MAX;
    int         known = 0;
    if (!l) {
        return NULL;
    }
    machine_tidy(&t->m, STATE_DEAD);
    t->m.work = 0;
    t->m.most = LOCAL_WORK;
    int               state = machine_enter(&t->m, node);
    const local_mask *like = alike(t, node, &known);
    if (like && like->deepest <= GRAMMAR_MOST_DEPTH) {
        memcpy(l->bits, like->bits, words * sizeof(uint64_t));
        for (int i = 0; i < like->n_leaves; i++) {
            if (t->v->node[like->leaves[i]].depth <= known) {
                add_leave(l, like->leaves[i]);
            }
        }
        walk_longer(t, state, known, l);
    } else {
        mask_walk(&t->m, t->v, t->path, 0, state, l->bits, &all, l);
    }
    bool whole = t->m.work <= t->m.most && !t->m.failed;
    int  deepest = t->m.deepest > l->deepest ? t->m.deepest : l->deepest; /* of all so far: states are remembered */
    l->deepest = whole ? deepest : GRAMMAR_MOST_DEPTH + 1;
    return l;
}

static bool note_done(mask_table *t, int node) {
    if (t->n_done == t->cap_done) {
        int      cap = t->cap_done ? 2 * t->cap_done : 64;
        int32_t *more = realloc(t->done, (size_t)cap * sizeof(*more));
        if (!more) {
            return false;
        }
        t->done = more;
        t->cap_done = cap;
    }
    t->done[t->n_done++] = node;
    return true;
}

/* Most nodes of a long repetition have the masks of their neighbours: one copy serves all. */
static local_mask *shared(const mask_table *t, local_mask *l, int node) {
    int               bytes;
    const local_mask *like = alike(t, node, &bytes);
    size_t            words = mask_words(t->v->vocab);
    if (like && like->deepest == l->deepest && like->n_leaves == l->n_leaves &&
        memcmp(like->bits, l->bits, words * sizeof(l->bits[0])) == 0 &&
        (l->n_leaves == 0 || memcmp(like->leaves, l->leaves, (size_t)l->n_leaves * sizeof(*l->leaves)) == 0)) {
        return (local_mask *)(uintptr_t)like; /* const only for those who read */
    }
    return NULL;
}

/* Works the mask of a node out, or finds that it has another one's. Under the lock. */
static local_mask *add_local(mask_table *t, int node) {
    local_mask *l = t->bytes < MOST_BYTES ? work_out(t, node) : NULL;
    local_mask *same = l ? shared(t, l, node) : NULL;
    if (same) {
        free_local(l);
        l = same;
    } else if (l && note_done(t, node)) {
        t->bytes += (int64_t)(sizeof(*l) + mask_words(t->v->vocab) * sizeof(uint64_t) +
                              (size_t)l->cap_leaves * sizeof(*l->leaves));
    } else {
        free_local(l);
        l = NULL;
    }
    if (l) {
        atomic_store_explicit(&t->local[node], l, memory_order_release);
    }
    return l;
}

const local_mask *mask_local(mask_table *t, const grammar *g, int node) {
    local_mask *l = atomic_load_explicit(&t->local[node], memory_order_acquire);
    if (l || node >= g->n_nodes) {
        return l;
    }
    pthread_mutex_lock(&t->lock);
    l = atomic_load_explicit(&t->local[node], memory_order_relaxed);
    l = l ? l : add_local(t, node);
    pthread_mutex_unlock(&t->lock);
    return l;
}

bool mask_is_wide(const grammar *g, int node) {
    const grammar_node *at = &g->node[node];
    int                 width = 0;
    for (int k = 0; k < at->n_bytes; k++) {
        width += 1 + g->bytes[at->first_byte + k].hi - g->bytes[at->first_byte + k].lo;
    }
    return width >= WIDE;
}

static bool is_new_kind(mask_table *t, int node) {
    const uint64_t *like = t->like[WARM_LEVEL];
    pthread_mutex_lock(&t->lock);
    bool known = false;
    for (int i = 0; like && i < t->n_done && !known; i++) {
        known = like[t->done[i]] == like[node];
    }
    pthread_mutex_unlock(&t->lock);
    return !known;
}

/* Nodes of a rule have rising numbers from its beginning on, so what stands near a limit comes last: that is reached
 * seldom, and the beginnings of all rules go first. */
void mask_table_warm(mask_table *t, const grammar *g) {
    if (atomic_exchange(&t->warmed, true)) {
        return;
    }
    int64_t until = clock_us() + WARM_US;
    for (int from = 0; from < 2; from++) {
        for (int rule = 0, i = 0; i < g->n_nodes && clock_us() < until; i++) {
            bool begins = rule < g->n_rules && i == g->start[rule].node + 1;
            rule += begins;
            if ((begins || from > 0) && mask_is_wide(g, i) && is_new_kind(t, i)) {
                mask_local(t, g, i);
            }
        }
    }
}
