/* mask_machine.c - closing a state: what returns, what calls.
 *
 * All calls of one rule at one place share one return set, so rules are entered in the order of their ranks, when nobody
 * can call them any more (grammar_check.c). A call whose result ends its own rule returns to that rule's return places at
 * once, so a right recursive list does not pile up. Rules that may be empty are stepped over where they are called.  */
#include "engine/mask_machine.h"

#include <stdlib.h>
#include <string.h>

#define ITEM_BOTTOM  (-1) /* nodes of the one item of SET_BOTTOM and SET_OUTSIDE */
#define ITEM_OUTSIDE (-2)
#define MOST_NOW     1024 /* items of a state; what is ambiguous beyond that is left out */
#define MOST_CALLS   8192
#define SEEN_SLOTS   4096
#define MOST_STATES  16384
#define TIDY_STATES  6000
#define MOST_SETS    65536
#define MOST_ITEMS   (4 << 20)

typedef struct call_waiting {
    int32_t rank, rule;
    item    back;
} call_waiting;

/* ---- lists ---- */

static uint32_t hash_items(const item *x, int n, int32_t tag) {
    uint64_t h = 0x9E3779B97F4A7C15u ^ (uint64_t)(uint32_t)tag;
    for (int i = 0; i < n; i++) {
        h ^= (uint64_t)(uint32_t)x[i].node << 32 | (uint32_t)x[i].set;
        h *= 0xBF58476D1CE4E5B9u;
        h ^= h >> 29;
    }
    return (uint32_t)(h ^ h >> 32);
}

static bool lists_init(lists *l, int cap) {
    *l = (lists){.cap = cap, .n_slots = 4 * cap, .cap_items = 256};
    l->item = malloc(l->cap_items * sizeof(*l->item));
    l->at = calloc((size_t)cap + 1, sizeof(*l->at));
    l->hash = calloc((size_t)cap, sizeof(*l->hash));
    l->tag = calloc((size_t)cap, sizeof(*l->tag));
    l->slot = malloc((size_t)l->n_slots * sizeof(*l->slot));
    if (l->slot) {
        memset(l->slot, -1, (size_t)l->n_slots * sizeof(*l->slot));
    }
    return l->item && l->at && l->hash && l->tag && l->slot;
}

static void lists_free(lists *l) {
    free(l->item);
    free(l->at);
    free(l->hash);
    free(l->tag);
    free(l->slot);
}

static void put_slot(lists *l, int32_t id) {
    uint32_t mask = (uint32_t)l->n_slots - 1, s = (uint32_t)l->hash[id] & mask;
    while (l->slot[s] >= 0) {
        s = (s + 1) & mask;
    }
    l->slot[s] = id;
}

static bool resize(void *p, size_t n, size_t size) {
    void **at = p;
    void  *q = realloc(*at, n * size);
    if (q) {
        *at = q;
    }
    return q != NULL;
}

static bool lists_grow(lists *l) {
    int      cap = l->cap * 2;
    int32_t *slot = malloc((size_t)cap * 4 * sizeof(*slot));
    if (!slot || !resize(&l->at, (size_t)cap + 1, sizeof(*l->at)) || !resize(&l->hash, (size_t)cap, sizeof(*l->hash)) ||
        !resize(&l->tag, (size_t)cap, sizeof(*l->tag))) {
        free(slot);
        return false;
    }
    free(l->slot);
    l->slot = slot;
    l->cap = cap;
    l->n_slots = 4 * cap;
    memset(slot, -1, (size_t)l->n_slots * sizeof(*slot));
    for (int i = 0; i < l->n; i++) {
        put_slot(l, i);
    }
    return true;
}

/* The number of the list, which is added when it is new; -1: no room. */
static int lists_id(lists *l, const item *x, int n, int32_t tag, int most) {
    uint32_t h = hash_items(x, n, tag), mask = (uint32_t)l->n_slots - 1;
    for (uint32_t s = h & mask; l->slot[s] >= 0; s = (s + 1) & mask) {
        int id = l->slot[s];
        if ((uint32_t)l->hash[id] == h && l->tag[id] == tag && l->at[id + 1] - l->at[id] == (size_t)n &&
            (n == 0 || memcmp(l->item + l->at[id], x, (size_t)n * sizeof(*x)) == 0)) {
            return id;
        }
    }
    if (l->n >= most || l->n_items + (size_t)n > MOST_ITEMS || (l->n == l->cap && !lists_grow(l))) {
        return -1;
    }
    if (l->n_items + (size_t)n > l->cap_items) {
        size_t cap = 2 * (l->n_items + (size_t)n);
        if (!resize(&l->item, cap, sizeof(*l->item))) {
            return -1;
        }
        l->cap_items = cap;
    }
    if (n > 0) {
        memcpy(l->item + l->n_items, x, (size_t)n * sizeof(*x));
    }
    l->at[l->n] = l->n_items;
    l->n_items += (size_t)n;
    l->at[l->n + 1] = l->n_items;
    l->hash[l->n] = (int32_t)h;
    l->tag[l->n] = tag;
    put_slot(l, l->n);
    return l->n++;
}

static int by_node(const void *a, const void *b) {
    const item *x = a, *y = b;
    return x->node != y->node ? (x->node > y->node) - (x->node < y->node) : (x->set > y->set) - (x->set < y->set);
}

static int sort_items(item *x, int n) {
    int kept = 0;
    if (n > 1) {
        qsort(x, (size_t)n, sizeof(*x), by_node);
    }
    for (int i = 0; i < n; i++) {
        if (kept == 0 || by_node(&x[i], &x[kept - 1]) != 0) {
            x[kept++] = x[i];
        }
    }
    return kept;
}

/* ---- opening ---- */

static bool tables_init(machine *m) {
    size_t states = 64;
    m->sets = m->states = (lists){0};
    m->row = malloc(states * (size_t)m->g->n_classes * sizeof(*m->row));
    m->note = calloc(states, 1);
    bool ok = lists_init(&m->sets, 64) && lists_init(&m->states, (int)states) && m->row && m->note;
    if (ok) {
        const item bottom = {ITEM_BOTTOM, 0}, outside = {ITEM_OUTSIDE, 0};
        memset(m->row, -1, states * (size_t)m->g->n_classes * sizeof(*m->row));
        lists_id(&m->sets, &bottom, 1, 0, MOST_SETS);
        lists_id(&m->sets, &outside, 1, 0, MOST_SETS);
        lists_id(&m->states, &bottom, 0, 0, MOST_STATES); /* STATE_DEAD */
        memset(m->row, 0, (size_t)m->g->n_classes * sizeof(*m->row));
    }
    return ok;
}

static void tables_free(machine *m) {
    lists_free(&m->sets);
    lists_free(&m->states);
    free(m->row);
    free(m->note);
}

bool machine_init(machine *m, const grammar *g, err *e) {
    *m = (machine){.g = g, .most = INT64_MAX};
    m->now = calloc(MOST_NOW, sizeof(*m->now));
    m->seen = calloc((size_t)SEEN_SLOTS * 2, sizeof(*m->seen));
    m->call = calloc(MOST_CALLS, sizeof(*m->call));
    m->back = calloc(MOST_CALLS, sizeof(*m->back));
    if (!tables_init(m) || !m->now || !m->seen || !m->call || !m->back) {
        machine_free(m);
        return err_set(e, ERR_MEMORY, "out of memory for following a grammar");
    }
    return true;
}

void machine_free(machine *m) {
    tables_free(m);
    free(m->now);
    free(m->seen);
    free(m->call);
    free(m->back);
    *m = (machine){0};
}

/* ---- closing a state ---- */

static void begin_state(machine *m) {
    m->n_now = m->n_calls = 0;
    if (++m->seen_by == INT32_MAX) {
        memset(m->seen, 0, (size_t)SEEN_SLOTS * 2 * sizeof(*m->seen));
        m->seen_by = 1;
    }
}

static bool is_too_deep(machine *m, int depth) {
    m->deepest = depth > m->deepest ? depth : m->deepest;
    return depth > GRAMMAR_MOST_DEPTH;
}

/* Adds an item once, if its rule can still end within the depth. */
static void add_item(machine *m, int32_t node, int32_t set) {
    uint32_t s = ((uint32_t)node * 0x9E3779B1u ^ (uint32_t)set * 0x85EBCA77u) >> 20;
    if (is_too_deep(m, m->sets.tag[set] + m->g->node[node].need) || m->n_now == MOST_NOW) {
        return;
    }
    for (; m->seen[2 * s] == m->seen_by; s = (s + 1) % SEEN_SLOTS) {
        const item *x = &m->now[m->seen[2 * s + 1]];
        if (x->node == node && x->set == set) {
            return;
        }
    }
    m->seen[2 * s] = m->seen_by;
    m->seen[2 * s + 1] = m->n_now;
    m->now[m->n_now++] = (item){node, set};
}

static void wait_for_return(machine *m, int32_t rule, item back) {
    const grammar_start *start = &m->g->start[rule];
    int                  depth = back.node >= 0 ? m->sets.tag[back.set] + 1 : 0;
    if (!is_too_deep(m, depth + m->g->node[start->node].need) && m->n_calls < MOST_CALLS) {
        m->call[m->n_calls++] = (call_waiting){start->rank, rule, back};
    }
}

static void call(machine *m, const call_edge *d, int32_t set) {
    const grammar *g = m->g;
    if (g->start[d->rule].nullable) {
        add_item(m, d->to, set);
    }
    if (!g->node[d->to].last) {
        wait_for_return(m, d->rule, (item){d->to, set});
        return;
    }
    for (size_t i = m->sets.at[set]; i < m->sets.at[set + 1]; i++) {
        wait_for_return(m, d->rule, m->sets.item[i]);
    }
}

static int give_back(machine *m, int32_t set) {
    int flags = 0;
    for (size_t i = m->sets.at[set]; i < m->sets.at[set + 1]; i++) {
        item back = m->sets.item[i];
        if (back.node >= 0) {
            add_item(m, back.node, back.set);
        } else {
            flags |= back.node == ITEM_BOTTOM ? STATE_ENDS : STATE_LEAVES;
        }
    }
    return flags;
}

/* Enters the rule of the smallest rank that is called; false when there is none. */
static bool enter_next(machine *m) {
    item   *back = m->back;
    int     n = 0, kept = 0, depth = 0;
    int32_t rank = INT32_MAX, rule = 0;
    for (int i = 0; i < m->n_calls; i++) {
        if (m->call[i].rank < rank) {
            rank = m->call[i].rank;
            rule = m->call[i].rule;
        }
    }
    if (rank == INT32_MAX) {
        return false;
    }
    for (int i = 0; i < m->n_calls; i++) {
        if (m->call[i].rank == rank) {
            back[n++] = m->call[i].back;
        } else {
            m->call[kept++] = m->call[i];
        }
    }
    m->work += m->n_calls;
    m->n_calls = kept;
    n = sort_items(back, n);
    for (int i = 0; i < n; i++) {
        int d = back[i].node >= 0 ? m->sets.tag[back[i].set] + 1 : 0;
        depth = d > depth ? d : depth;
    }
    int set = lists_id(&m->sets, back, n, depth, MOST_SETS);
    if (set >= 0) {
        add_item(m, m->g->start[rule].node, set);
    }
    return true;
}

static bool grow_rows(machine *m, int had) {
    size_t classes = (size_t)m->g->n_classes, cap = (size_t)m->states.cap;
    if (!resize(&m->row, cap * classes, sizeof(*m->row)) || !resize(&m->note, cap, 1)) {
        m->failed = true;
        return false;
    }
    memset(m->row + (size_t)had * classes, -1, (cap - (size_t)had) * classes * sizeof(*m->row));
    memset(m->note + had, 0, cap - (size_t)had);
    return true;
}

/* The state of the items in now[], `flags` being what returned already. */
static int close_state(machine *m, int flags) {
    const grammar *g = m->g;
    int            at = 0;
    do {
        for (; at < m->n_now; at++) {
            item                x = m->now[at];
            const grammar_node *node = &g->node[x.node];
            flags |= node->final ? give_back(m, x.set) : 0;
            for (int i = 0; i < node->n_calls; i++) {
                call(m, &g->calls[node->first_call + i], x.set);
            }
            m->work += 1 + node->n_calls;
        }
    } while (enter_next(m));
    int kept = 0;
    for (int i = 0; i < m->n_now; i++) {
        if (g->node[m->now[i].node].n_bytes > 0) {
            m->now[kept++] = m->now[i];
        }
    }
    kept = sort_items(m->now, kept);
    int had = m->states.cap;
    int id = m->failed ? -1 : lists_id(&m->states, m->now, kept, flags, MOST_STATES);
    if (m->states.cap > had && !grow_rows(m, had)) {
        return -1;
    }
    return id;
}

static int or_dead(int state) {
    return state < 0 ? STATE_DEAD : state;
}

int machine_begin(machine *m) {
    begin_state(m);
    add_item(m, m->g->start[m->g->root].node, SET_BOTTOM);
    return or_dead(close_state(m, 0));
}

int machine_enter(machine *m, int node) {
    begin_state(m);
    add_item(m, node, SET_OUTSIDE);
    return or_dead(close_state(m, 0));
}

int machine_leave(machine *m, int set) {
    begin_state(m);
    int flags = give_back(m, set);
    return or_dead(close_state(m, flags));
}

int machine_work(machine *m, int state, int cl) {
    const grammar *g = m->g;
    uint8_t        byte = g->byte_of[cl];
    if (m->work > m->most || m->failed) {
        return STATE_DEAD;
    }
    begin_state(m);
    for (size_t i = m->states.at[state]; i < m->states.at[state + 1]; i++) {
        item                x = m->states.item[i];
        const grammar_node *node = &g->node[x.node];
        const byte_edge    *d = g->bytes + node->first_byte, *end = d + node->n_bytes;
        while (d < end && d->hi < byte) {
            d++;
        }
        if (d < end && d->lo <= byte) {
            add_item(m, d->to, x.set);
        }
        m->work++;
    }
    int to = m->n_now > 0 ? close_state(m, 0) : STATE_DEAD;
    if (to >= 0) {
        m->row[(size_t)state * (size_t)g->n_classes + (size_t)cl] = to;
    }
    return or_dead(to);
}

/* ---- forgetting ---- */

typedef struct moving {
    const lists *old;
    int32_t     *to; /* by old set; -1: not moved yet */
} moving;

/* Sets nest at most GRAMMAR_MOST_DEPTH deep. */
static int move_set(machine *m, moving *v, int set) {
    if (v->to[set] >= 0) {
        return v->to[set];
    }
    size_t begin = v->old->at[set], n = v->old->at[set + 1] - begin;
    item  *x = malloc(n * sizeof(*x));
    if (!x) {
        m->failed = true;
        return SET_BOTTOM;
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = v->old->item[begin + i];
        x[i].set = x[i].node >= 0 ? move_set(m, v, x[i].set) : 0;
    }
    int id = lists_id(&m->sets, x, sort_items(x, (int)n), v->old->tag[set], MOST_SETS);
    free(x);
    m->failed = m->failed || id < 0;
    v->to[set] = id < 0 ? SET_BOTTOM : id;
    return v->to[set];
}

int machine_tidy(machine *m, int state) {
    if (m->states.n < TIDY_STATES && m->sets.n < MOST_SETS / 2 && m->states.n_items < MOST_ITEMS / 2 &&
        m->sets.n_items < MOST_ITEMS / 2) {
        return state;
    }
    machine old = *m;
    moving  v = {&old.sets, malloc((size_t)old.sets.n * sizeof(*v.to))};
    if (!v.to) { /* go on with what there is; at the limit unknown steps are dead */
        return state;
    }
    if (!tables_init(m)) {
        free(v.to);
        tables_free(m);
        *m = old;
        return state;
    }
    memset(v.to, -1, (size_t)old.sets.n * sizeof(*v.to));
    v.to[SET_BOTTOM] = SET_BOTTOM;
    v.to[SET_OUTSIDE] = SET_OUTSIDE;
    const item *x;
    int         n = machine_items(&old, state, &x);
    for (int i = 0; i < n; i++) {
        m->now[i] = (item){x[i].node, move_set(m, &v, x[i].set)};
    }
    int id = lists_id(&m->states, m->now, sort_items(m->now, n), machine_flags(&old, state), MOST_STATES);
    free(v.to);
    tables_free(&old);
    return or_dead(id);
}
