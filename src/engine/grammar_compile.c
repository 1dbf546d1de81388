/* grammar_compile.c - from expressions to automata.
 *
 * Each rule becomes a nondeterministic automaton (Thompson, CACM 11(6), 1968) and then a deterministic one by the subset
 * construction, in which a call of another rule is a symbol like a byte. Small rules without loops are written out where
 * they are called, and so are repetitions, for which masks are shared best (mask_table.c). A long repetition becomes
 * calls of blocks of at least its square root, so that {0,1000000} takes thousands of nodes and not millions. Everything is counted; what goes beyond a limit is refused.                   */
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "engine/grammar_parts.h"

#define SMALL_RULE  64                           /* parts of a rule that is written out where it is called */
#define INLINE_NEST 40                           /* of such rules in each other */
#define PLAIN_LEAST 4096                         /* nodes of a repetition that is written out */
#define PLAIN_ALL   (GRAMMAR_MOST_NODES / 4 * 3) /* those of all that are larger, */
#define PLAIN_PART  3                            /* of which one may take this part of what is left */
#define MOST_NFA    (2 * GRAMMAR_MOST_NODES)     /* nodes of one rule */
#define MOST_INTS   (8 << 20)                    /* in the subsets of one rule */
#define MOST_WORK   100000000                    /* edges looked at, for all rules */
#define CALL        (-1)                         /* in nfa_edge.lo; EMPTY likewise */
#define EMPTY       (-2)

typedef struct nfa_edge {
    int32_t next; /* of the same node; -1: none */
    int32_t to;
    int16_t lo, hi;
    int32_t rule;
} nfa_edge;

typedef enum small_state { SMALL_UNKNOWN, SMALL_BUSY, SMALL_YES, SMALL_NO } small_state;

typedef struct work {
    rules    *r;
    grammar  *g;
    int64_t   work;
    uint8_t  *small; /* by rule */
    int       small_cap, nest;
    int       cap_nodes, cap_bytes, cap_calls, cap_start;
    int32_t  *first; /* by NFA node: its first edge */
    int       n_nfa, cap_nfa;
    nfa_edge *edge;
    int       n_edges, cap_edges;
    int       rule;  /* that is being compiled */
    int       spare; /* of PLAIN_ALL */
    int       taken; /* of it, by this rule, as far as its nodes were estimated */
    int       end;   /* the NFA's final node */
    map      *ids;   /* subset -> DFA node */
    int32_t  *pool;  /* subsets, one after the other */
    size_t    n_pool, cap_pool;
    size_t   *from; /* by DFA node of this rule: where its subset begins; one more at the end */
    int       n_from, cap_from, base;
    int32_t  *set, *todo; /* [n_nfa] a subset in the making */
    uint32_t *stamp, now;
    int       n_set, cap_set;
} work;

/* ---- growing ---- */

/* Where p has room for one more than n; NULL when there is no memory, and then p is what it was. */
static void *grow(work *w, void *p, int *cap, int n, size_t size) {
    if (p && n < *cap) {
        return p;
    }
    int   more = *cap ? *cap * 2 : 256;
    void *q = realloc(p, (size_t)more * size);
    if (!q) {
        rules_fail(w->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    *cap = more;
    return q;
}

static bool too_large(work *w) {
    rules_fail(w->r, ERR_LIMIT,
               "the grammar is too large: its rules, lists and repetitions, written out, take too many states; make it "
               "smaller or its limits lower");
    return false;
}

/* ---- NFA ---- */

static int nfa_node(work *w) {
    if (w->n_nfa >= MOST_NFA) {
        too_large(w);
    }
    int32_t *first = w->r->failed ? NULL : grow(w, w->first, &w->cap_nfa, w->n_nfa, sizeof(*first));
    if (!first) {
        return 0;
    }
    w->first = first;
    w->first[w->n_nfa] = -1;
    return w->n_nfa++;
}

static void nfa_connect(work *w, int from, int to, int lo, int hi, int rule) {
    if (w->n_edges >= 4 * MOST_NFA) {
        too_large(w);
    }
    nfa_edge *edge = w->r->failed ? NULL : grow(w, w->edge, &w->cap_edges, w->n_edges, sizeof(*edge));
    if (edge) {
        w->edge = edge;
        w->edge[w->n_edges] = (nfa_edge){w->first[from], to, (int16_t)lo, (int16_t)hi, rule};
        w->first[from] = w->n_edges++;
    }
}

static bool is_small(work *w, int rule);

/* Takes the parts of x off *left; false when there are more, a loop, or a rule that is not small. */
static bool fits(work *w, const expr *x, int *left) {
    *left -= x->kind == EXPR_TEXT ? x->n : 1;
    if (*left < 0) {
        return false;
    }
    if (x->kind == EXPR_RULE) {
        return is_small(w, x->rule) && fits(w, w->r->rule[x->rule].body, left);
    }
    if (x->kind == EXPR_REPEAT) {
        for (int i = 0; i < x->max; i++) {
            if (!fits(w, x->items[0], left)) {
                return false;
            }
        }
        return x->max != GRAMMAR_NO_MAX;
    }
    for (int i = 0; x->kind != EXPR_TEXT && i < x->n; i++) {
        if (!fits(w, x->items[i], left)) {
            return false;
        }
    }
    return true;
}

static bool is_small(work *w, int rule) {
    while (rule >= w->small_cap) {
        int      had = w->small_cap;
        uint8_t *small = grow(w, w->small, &w->small_cap, w->small_cap, 1);
        if (!small) {
            return false;
        }
        w->small = small;
        memset(w->small + had, SMALL_UNKNOWN, (size_t)(w->small_cap - had));
    }
    const grammar_rule *of = &w->r->rule[rule];
    if (!w->small) { /* no rule has a number below 0 */
        return false;
    }
    if (w->small[rule] == SMALL_UNKNOWN && w->nest < INLINE_NEST) {
        int left = SMALL_RULE;
        w->small[rule] = SMALL_BUSY; /* met again below: it is recursive */
        w->nest++;
        bool yes = of->body && !of->apart && !of->block && fits(w, of->body, &left);
        w->nest--;
        w->small[rule] = yes ? SMALL_YES : SMALL_NO;
    }
    return w->small[rule] == SMALL_YES;
}

static void build(work *w, const expr *x, int from, int to);

/* Nodes that x takes, as far as `most`. */
static int nodes_of(work *w, const expr *x, int most) {
    int64_t sum = x->kind == EXPR_TEXT ? x->n : 1;
    if (x->kind == EXPR_RULE && is_small(w, x->rule)) {
        return SMALL_RULE < most ? SMALL_RULE : most;
    }
    for (int i = 0; (x->kind == EXPR_SEQ || x->kind == EXPR_ALT) && i < x->n && sum < most; i++) {
        sum += nodes_of(w, x->items[i], most);
    }
    if (x->kind == EXPR_REPEAT) {
        sum += (int64_t)nodes_of(w, x->items[0], most) * (x->max > 0 ? x->max : x->min + 1);
    }
    return sum < most ? (int)sum : most;
}

static void build_plain(work *w, const expr *x, int min, int max, int from, int to) {
    int at = from;
    for (int i = 0; i < min && !w->r->failed; i++) {
        int next = nfa_node(w);
        build(w, x, at, next);
        at = next;
    }
    if (max == GRAMMAR_NO_MAX) {
        int loop = nfa_node(w);
        nfa_connect(w, at, loop, EMPTY, 0, 0);
        build(w, x, loop, loop);
        at = loop;
    }
    for (int i = min; i < max && !w->r->failed; i++) {
        int next = nfa_node(w);
        nfa_connect(w, at, to, EMPTY, 0, 0);
        build(w, x, at, next);
        at = next;
    }
    nfa_connect(w, at, to, EMPTY, 0, 0);
}

/* What it may take is taken off now: it is compiled when others have had their parts. */
static int add_block(work *w, const expr *x, int min, int max, int nodes) {
    int rule = rules_add(w->r, "(a long repetition)");
    if (rule >= 0) {
        w->r->rule[rule].body = expr_repeat(w->r, x, min, max);
        w->r->rule[rule].block = nodes;
    }
    return rule;
}

/* Whole blocks, and a last one that is not whole: x{0,n} is B{0,q} x{0,s-1} or, at the very end, B{q} x{0,n%s}. */
static void build_blocks(work *w, const expr *x, int min, int max, int most, int from, int to) {
    int size = most / nodes_of(w, x, most);
    size = size > 2 ? size : 2;
    while ((int64_t)size * size < (max > min ? max : min)) {
        size++;
    }
    int whole = add_block(w, x, size, size, most);
    int some = max > min ? add_block(w, x, 0, size - 1, most) : 0;
    int at = from;
    for (int i = 0; i < min / size && !w->r->failed; i++) {
        int next = nfa_node(w);
        nfa_connect(w, at, next, CALL, 0, whole);
        at = next;
    }
    int rest = nfa_node(w);
    build_plain(w, x, min % size, min % size, at, rest);
    at = rest;
    if (max == GRAMMAR_NO_MAX) {
        build_plain(w, x, 0, max, at, to);
        return;
    }
    int left = max - min;
    for (; left >= size && !w->r->failed; left -= size) {
        int next = nfa_node(w);
        nfa_connect(w, at, to, CALL, 0, some);
        nfa_connect(w, at, next, CALL, 0, whole);
        at = next;
    }
    build_plain(w, x, 0, left, at, to);
}

/* Nodes that a repetition may take in this rule, when it is written out. */
static int plain_limit(const work *w, int rule) {
    int part = w->spare / PLAIN_PART;
    return w->r->rule[rule].block ? w->r->rule[rule].block : part > PLAIN_LEAST ? part : PLAIN_LEAST;
}

static void build_repeat(work *w, const expr *x, int from, int to) {
    const expr *of = x->items[0];
    int64_t     count = x->max > x->min ? x->max : x->min;
    int         most = plain_limit(w, w->rule);
    int64_t     nodes = nodes_of(w, of, GRAMMAR_MOST_NODES) * count;
    bool        plain = count <= 2 || nodes <= most;
    if (plain) {
        build_plain(w, of, x->min, x->max, from, to);
    } else {
        most = most > 2 * PLAIN_LEAST ? most / 2 : PLAIN_LEAST;
        build_blocks(w, of, x->min, x->max, most, from, to);
    }
    if (!w->r->rule[w->rule].block && most > PLAIN_LEAST && (nodes > PLAIN_LEAST || !plain)) {
        int taken = plain ? (int)nodes : 2 * most;
        w->spare -= taken;
        w->taken += plain ? taken : 0;
    }
}

static void build_text(work *w, const expr *x, int from, int to) {
    int at = from;
    for (int i = 0; i < x->n && !w->r->failed; i++) {
        int next = i + 1 < x->n ? nfa_node(w) : to;
        nfa_connect(w, at, next, (uint8_t)x->text[i], (uint8_t)x->text[i], 0);
        at = next;
    }
    if (x->n == 0) {
        nfa_connect(w, from, to, EMPTY, 0, 0);
    }
}

static void build(work *w, const expr *x, int from, int to) {
    if (w->r->failed) {
        return;
    }
    switch (x->kind) {
    case EXPR_TEXT:
        build_text(w, x, from, to);
        break;
    case EXPR_RANGE:
        nfa_connect(w, from, to, x->lo, x->hi, 0);
        break;
    case EXPR_SEQ:
        for (int i = 0; i < x->n && !w->r->failed; i++) {
            int next = i + 1 < x->n ? nfa_node(w) : to;
            build(w, x->items[i], from, next);
            from = next;
        }
        if (x->n == 0) {
            nfa_connect(w, from, to, EMPTY, 0, 0);
        }
        break;
    case EXPR_ALT:
        for (int i = 0; i < x->n; i++) {
            build(w, x->items[i], from, to);
        }
        break;
    case EXPR_REPEAT:
        build_repeat(w, x, from, to);
        break;
    case EXPR_RULE:
        if (is_small(w, x->rule)) {
            build(w, w->r->rule[x->rule].body, from, to);
        } else {
            nfa_connect(w, from, to, CALL, 0, x->rule);
        }
        break;
    }
}

/* ---- DFA ---- */

static int by_value(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Adds what is reached from `node` without a byte to the subset; nodes that only pass on are left out. */
static void reach(work *w, int node) {
    int n = 0;
    if (w->stamp[node] == w->now) {
        return;
    }
    w->stamp[node] = w->now;
    w->todo[n++] = node;
    while (n > 0) {
        int  at = w->todo[--n];
        bool matters = at == w->end;
        for (int i = w->first[at]; i >= 0; i = w->edge[i].next) {
            const nfa_edge *d = &w->edge[i];
            w->work++;
            if (d->lo != EMPTY) {
                matters = true;
            } else if (w->stamp[d->to] != w->now) {
                w->stamp[d->to] = w->now;
                w->todo[n++] = d->to;
            }
        }
        if (matters) {
            w->set[w->n_set++] = at;
        }
    }
}

static void begin_set(work *w) {
    w->n_set = 0;
    w->now++;
}

/* The DFA node of the subset in the making. */
static int set_id(work *w) {
    grammar *g = w->g;
    int64_t  id = 0;
    qsort(w->set, (size_t)w->n_set, sizeof(*w->set), by_value);
    size_t bytes = (size_t)w->n_set * sizeof(*w->set);
    if (map_get(w->ids, w->set, bytes, &id)) {
        return (int)id;
    }
    if (g->n_nodes >= GRAMMAR_MOST_NODES || w->n_pool + (size_t)w->n_set > MOST_INTS) {
        too_large(w);
        return 0;
    }
    if (w->n_pool + (size_t)w->n_set >= w->cap_pool) {
        size_t   cap = 2 * (w->n_pool + (size_t)w->n_set) + 1024;
        int32_t *more = realloc(w->pool, cap * sizeof(*more));
        if (!more) {
            rules_fail(w->r, ERR_MEMORY, "out of memory for a grammar");
            return 0;
        }
        w->pool = more;
        w->cap_pool = cap;
    }
    size_t       *from = grow(w, w->from, &w->cap_from, w->n_from + 1, sizeof(*from));
    grammar_node *node = grow(w, g->node, &w->cap_nodes, g->n_nodes, sizeof(*node));
    w->from = from ? from : w->from;
    g->node = node ? node : g->node;
    if (!from || !node || !map_put(w->ids, w->set, bytes, g->n_nodes)) {
        rules_fail(w->r, ERR_MEMORY, "out of memory for a grammar");
        return 0;
    }
    memcpy(w->pool + w->n_pool, w->set, bytes);
    w->from[w->n_from++] = w->n_pool;
    w->n_pool += (size_t)w->n_set;
    w->from[w->n_from] = w->n_pool;
    g->node[g->n_nodes] = (grammar_node){0};
    return g->n_nodes++;
}

/* `first` is the first edge of the same node. */
static void add_byte_edge(work *w, int first, byte_edge edge) {
    grammar   *g = w->g;
    byte_edge *before = g->n_bytes > first ? &g->bytes[g->n_bytes - 1] : NULL;
    if (before && before->to == edge.to && before->hi + 1 == edge.lo) {
        before->hi = edge.hi;
        return;
    }
    byte_edge *bytes = grow(w, g->bytes, &w->cap_bytes, g->n_bytes, sizeof(*bytes));
    if (bytes) {
        g->bytes = bytes;
        g->bytes[g->n_bytes++] = edge;
    }
}

/* The edges out of a subset that lead to bytes: between two cuts all bytes lead to the same subset. */
static void expand_bytes(work *w, size_t begin, size_t end, int first) {
    bool cut[257] = {false};
    for (size_t s = begin; s < end; s++) {
        for (int i = w->first[w->pool[s]]; i >= 0; i = w->edge[i].next) {
            if (w->edge[i].lo >= 0) {
                cut[w->edge[i].lo] = cut[w->edge[i].hi + 1] = true;
            }
        }
    }
    for (int lo = 0; lo < 256 && !w->r->failed;) {
        int hi = lo;
        while (hi < 255 && !cut[hi + 1]) {
            hi++;
        }
        begin_set(w);
        for (size_t s = begin; s < end; s++) {
            for (int i = w->first[w->pool[s]]; i >= 0; i = w->edge[i].next) {
                w->work++;
                if (w->edge[i].lo >= 0 && w->edge[i].lo <= lo && lo <= w->edge[i].hi) {
                    reach(w, w->edge[i].to);
                }
            }
        }
        if (w->n_set > 0) {
            add_byte_edge(w, first, (byte_edge){(uint8_t)lo, (uint8_t)hi, set_id(w)});
        }
        lo = hi + 1;
    }
}

static bool called_already(work *w, int first, int rule) {
    w->work += w->g->n_calls - first;
    for (int i = first; i < w->g->n_calls; i++) {
        if (w->g->calls[i].rule == rule) {
            return true;
        }
    }
    return false;
}

static void expand_calls(work *w, size_t begin, size_t end, int first) {
    grammar *g = w->g;
    for (size_t s = begin; s < end && !w->r->failed && w->work <= MOST_WORK; s++) {
        for (int i = w->first[w->pool[s]]; i >= 0 && w->work <= MOST_WORK; i = w->edge[i].next) {
            int rule = w->edge[i].rule;
            if (w->edge[i].lo != CALL || called_already(w, first, rule)) {
                continue;
            }
            begin_set(w);
            for (size_t t = s; t < end; t++) {
                for (int k = w->first[w->pool[t]]; k >= 0; k = w->edge[k].next) {
                    w->work++;
                    if (w->edge[k].lo == CALL && w->edge[k].rule == rule) {
                        reach(w, w->edge[k].to);
                    }
                }
            }
            int        to = set_id(w);
            call_edge *calls = grow(w, g->calls, &w->cap_calls, g->n_calls, sizeof(*calls));
            if (calls) {
                g->calls = calls;
                g->calls[g->n_calls++] = (call_edge){rule, to};
            }
        }
    }
}

static void expand(work *w, int number) {
    grammar *g = w->g;
    size_t   begin = w->from[number], end = w->from[number + 1];
    int      node = w->base + number, first_byte = g->n_bytes, first_call = g->n_calls;
    bool     final = false;
    for (size_t s = begin; s < end; s++) {
        final = final || w->pool[s] == w->end;
    }
    expand_bytes(w, begin, end, first_byte);
    expand_calls(w, begin, end, first_call);
    if (w->work > MOST_WORK) {
        too_large(w);
    }
    g->node[node] = (grammar_node){.first_byte = first_byte,
                                   .n_bytes = g->n_bytes - first_byte,
                                   .first_call = first_call,
                                   .n_calls = g->n_calls - first_call,
                                   .final = final};
}

/* Room for subsets of the NFA that was just built. */
static bool reserve_sets(work *w) {
    if (w->n_nfa > w->cap_set) {
        size_t n = (size_t)w->n_nfa * 2;
        free(w->set);
        free(w->todo);
        free(w->stamp);
        w->set = calloc(n, sizeof(*w->set));
        w->todo = calloc(n, sizeof(*w->todo));
        w->stamp = calloc(n, sizeof(*w->stamp));
        w->cap_set = w->set && w->todo && w->stamp ? (int)n : 0;
        w->now = 0;
    }
    map_free(w->ids);
    w->ids = map_new(64);
    if (w->cap_set == 0 || !w->ids) {
        rules_fail(w->r, ERR_MEMORY, "out of memory for a grammar");
    }
    return !w->r->failed;
}

static void compile_rule(work *w, int rule) {
    grammar *g = w->g;
    w->rule = rule;
    w->taken = w->r->rule[rule].block > PLAIN_LEAST ? w->r->rule[rule].block : 0;
    w->n_nfa = w->n_edges = 0;
    int begin = nfa_node(w);
    w->end = nfa_node(w);
    build(w, w->r->rule[rule].body, begin, w->end);
    grammar_start *start = NULL;
    if (!w->r->failed && reserve_sets(w)) {
        start = grow(w, g->start, &w->cap_start, rule, sizeof(*start));
    }
    if (!start) {
        return;
    }
    g->start = start;
    w->n_from = 0;
    w->n_pool = 0;
    w->base = g->n_nodes;
    begin_set(w);
    reach(w, begin);
    int first = set_id(w);
    for (int i = 0; i < w->n_from && !w->r->failed; i++) {
        expand(w, i);
    }
    int took = g->n_nodes - w->base;
    w->spare += took < w->taken ? w->taken - took : 0;
    g->start[rule] = (grammar_start){.node = first};
    g->n_rules = rule + 1;
}

static void find_classes(grammar *g) {
    bool cut[257] = {false};
    for (int i = 0; i < g->n_bytes; i++) {
        cut[g->bytes[i].lo] = cut[g->bytes[i].hi + 1] = true;
    }
    int class = 0;
    for (int b = 0; b < 256; b++) {
        class += b > 0 && cut[b];
        if (b == 0 || cut[b]) {
            g->byte_of[class] = (uint8_t)b;
        }
        g->class_of[b] = (uint8_t) class;
    }
    g->n_classes = class + 1;
}

static void work_free(work *w) {
    free(w->small);
    free(w->first);
    free(w->edge);
    map_free(w->ids);
    free(w->pool);
    free(w->from);
    free(w->set);
    free(w->todo);
    free(w->stamp);
}

static bool compile_all(rules *r, grammar *g) {
    work w = {.r = r, .g = g, .spare = PLAIN_ALL};
    for (int i = 0; i < r->n && !r->failed; i++) { /* blocks of long repetitions join while this runs */
        if (!r->rule[i].body) {
            rules_fail(r, ERR_INTERNAL, "a rule of the grammar is missing");
            break;
        }
        compile_rule(&w, i);
    }
    work_free(&w);
    return !r->failed;
}

grammar *grammar_compile(rules *r, int root, err *e) {
    grammar *g = r->failed ? NULL : calloc(1, sizeof(*g));
    if (!g) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        rules_end(r);
        return NULL;
    }
    atomic_init(&g->holders, 1);
    g->root = root;
    if (!compile_all(r, g) || !grammar_check(g, r->rule, e)) {
        grammar_free(g);
        g = NULL;
    } else {
        find_classes(g);
    }
    rules_end(r);
    return g;
}

grammar *grammar_hold(grammar *g) {
    atomic_fetch_add(&g->holders, 1);
    return g;
}

void grammar_free(grammar *g) {
    if (!g || atomic_fetch_sub(&g->holders, 1) > 1) {
        return;
    }
    mask_tables_free(atomic_load(&g->tables));
    free(g->node);
    free(g->bytes);
    free(g->calls);
    free(g->start);
    free(g);
}
