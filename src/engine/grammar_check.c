/* grammar_check.c - what must be known of a whole grammar before it runs.
 *
 * Which rules may be empty; that no rule can begin with itself, for the stack would grow without reading a byte; and how
 * deep each place must nest at least before its rule can end. Places that cannot end are cut off, so whatever can be begun
 * can be finished within the depth.                                                                                  */
#include <limits.h>
#include <stdlib.h>

#include "engine/grammar_parts.h"

#define MOST_WORK 400000000 /* edges looked at */

typedef struct checking {
    grammar *g;
    int64_t  work;
    int32_t *todo;  /* [n_nodes] */
    int32_t *stamp; /* [n_nodes] the last walk that met the node */
    int32_t  now;
} checking;

static bool tangled(err *e) {
    return err_set(e, ERR_LIMIT, "the grammar's rules refer to each other in too tangled a way; make it smaller");
}

/* ---- which rules may be empty ---- */

/* Nodes reached from the rule's start without a byte, into todo[]. Returns how many. */
static int left_nodes(checking *c, int rule) {
    grammar *g = c->g;
    int      n = 0;
    c->now++;
    c->todo[n++] = g->start[rule].node;
    c->stamp[g->start[rule].node] = c->now;
    for (int i = 0; i < n; i++) {
        const grammar_node *node = &g->node[c->todo[i]];
        for (int k = 0; k < node->n_calls; k++) {
            const call_edge *d = &g->calls[node->first_call + k];
            c->work++;
            if (g->start[d->rule].nullable && c->stamp[d->to] != c->now) {
                c->stamp[d->to] = c->now;
                c->todo[n++] = d->to;
            }
        }
    }
    return n;
}

static bool may_be_empty(checking *c, int rule) {
    int n = left_nodes(c, rule);
    for (int i = 0; i < n; i++) {
        if (c->g->node[c->todo[i]].final) {
            return true;
        }
    }
    return false;
}

/* Rules mostly call those that come later or those that came before: walking both ways settles either at once. */
static bool find_nullable(checking *c) {
    grammar *g = c->g;
    for (bool changed = true, down = true; changed; down = !down) {
        changed = false;
        for (int i = 0; i < g->n_rules; i++) {
            int rule = down ? g->n_rules - 1 - i : i;
            if (!g->start[rule].nullable && may_be_empty(c, rule)) {
                g->start[rule].nullable = changed = true;
            }
        }
        c->work += g->n_rules;
        if (c->work > MOST_WORK) {
            return false;
        }
    }
    return true;
}

/* ---- how deep it must nest ---- */

static int32_t need_of(const grammar *g, const grammar_node *node) {
    int32_t least = node->final ? 0 : INT32_MAX;
    for (int i = 0; i < node->n_bytes && least > 0; i++) {
        int32_t need = g->node[g->bytes[node->first_byte + i].to].need;
        least = need < least ? need : least;
    }
    for (int i = 0; i < node->n_calls && least > 0; i++) {
        const call_edge *d = &g->calls[node->first_call + i];
        int32_t          inner = g->node[g->start[d->rule].node].need, after = g->node[d->to].need;
        if (inner != INT32_MAX && after != INT32_MAX) {
            int32_t need = inner + 1 > after ? inner + 1 : after;
            least = need < least ? need : least;
        }
    }
    return least;
}

static bool find_need(checking *c) {
    grammar *g = c->g;
    for (int i = 0; i < g->n_nodes; i++) {
        g->node[i].need = INT32_MAX;
    }
    for (bool changed = true, down = true; changed; down = !down) {
        changed = false;
        for (int i = 0; i < g->n_nodes; i++) {
            grammar_node *node = &g->node[down ? g->n_nodes - 1 - i : i];
            int32_t       need = need_of(g, node);
            changed = changed || need != node->need;
            node->need = need;
        }
        c->work += g->n_nodes + g->n_bytes + g->n_calls;
        if (c->work > MOST_WORK) {
            return false;
        }
    }
    return true;
}

/* Drops edges that lead nowhere. */
static void cut_off(grammar *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        grammar_node *node = &g->node[i];
        int           kept = 0;
        for (int k = 0; k < node->n_bytes; k++) {
            byte_edge d = g->bytes[node->first_byte + k];
            if (g->node[d.to].need <= GRAMMAR_MOST_DEPTH) {
                g->bytes[node->first_byte + kept++] = d;
            }
        }
        node->n_bytes = kept;
        kept = 0;
        for (int k = 0; k < node->n_calls; k++) {
            call_edge d = g->calls[node->first_call + k];
            if (g->node[d.to].need <= GRAMMAR_MOST_DEPTH && g->node[g->start[d.rule].node].need < GRAMMAR_MOST_DEPTH) {
                g->calls[node->first_call + kept++] = d;
            }
        }
        node->n_calls = kept;
    }
    for (int i = 0; i < g->n_nodes; i++) {
        g->node[i].last = g->node[i].final && g->node[i].n_bytes == 0 && g->node[i].n_calls == 0;
    }
}

/* ---- which rules may begin with which ---- */

typedef struct begins {
    int32_t *first, *with; /* rule i may begin with with[first[i] .. first[i + 1]) */
    int32_t *before;       /* how many may begin with it and have no rank yet */
    int32_t *queue;
} begins;

static void list_begins(checking *c, begins *b) {
    grammar *g = c->g;
    int      n = 0;
    for (int rule = 0; rule < g->n_rules; rule++) {
        int nodes = left_nodes(c, rule);
        b->first[rule] = n;
        for (int i = 0; i < nodes; i++) {
            const grammar_node *node = &g->node[c->todo[i]];
            for (int k = 0; k < node->n_calls; k++) {
                b->with[n] = g->calls[node->first_call + k].rule;
                b->before[b->with[n++]]++;
            }
        }
    }
    b->first[g->n_rules] = n;
}

/* Kahn's topological sort (CACM 5(11), 1962); what is left over stands in a circle. */
static bool find_ranks(checking *c, begins *b, const grammar_rule *names, err *e) {
    grammar *g = c->g;
    int      n = 0;
    list_begins(c, b);
    for (int i = 0; i < g->n_rules; i++) {
        if (b->before[i] == 0) {
            b->queue[n++] = i;
        }
    }
    for (int at = 0; at < n; at++) {
        int rule = b->queue[at];
        g->start[rule].rank = at;
        for (int k = b->first[rule]; k < b->first[rule + 1]; k++) {
            if (--b->before[b->with[k]] == 0) {
                b->queue[n++] = b->with[k];
            }
        }
    }
    for (int i = 0; n < g->n_rules && i < g->n_rules; i++) {
        if (b->before[i] > 0) {
            return err_set(e, ERR_INVALID,
                           "the rule \"%.64s\" may begin with itself (left recursion), or with one that does; write it "
                           "as a repetition",
                           names[i].name);
        }
    }
    return true;
}

static bool rank_rules(checking *c, const grammar_rule *names, err *e) {
    size_t n = (size_t)c->g->n_rules + 1;
    begins b = {.first = calloc(n, sizeof(int32_t)),
                .with = calloc((size_t)c->g->n_calls + 1, sizeof(int32_t)),
                .before = calloc(n, sizeof(int32_t)),
                .queue = calloc(n, sizeof(int32_t))};
    bool   ok = b.first && b.with && b.before && b.queue;
    ok = ok ? find_ranks(c, &b, names, e) : err_set(e, ERR_MEMORY, "out of memory for a grammar");
    free(b.first);
    free(b.with);
    free(b.before);
    free(b.queue);
    return ok;
}

bool grammar_check(grammar *g, const grammar_rule *names, err *e) {
    checking c = {.g = g,
                  .todo = calloc((size_t)g->n_nodes, sizeof(int32_t)),
                  .stamp = calloc((size_t)g->n_nodes, sizeof(int32_t))};
    bool     ok = true;
    if (!c.todo || !c.stamp) {
        ok = err_set(e, ERR_MEMORY, "out of memory for a grammar");
    } else if (!find_need(&c) || !find_nullable(&c)) {
        ok = tangled(e);
    } else if (g->node[g->start[g->root].node].need > GRAMMAR_MOST_DEPTH) {
        ok = err_set(e, ERR_INVALID, "nothing of finite size, nested at most %d deep, satisfies this grammar",
                     GRAMMAR_MOST_DEPTH);
    } else {
        cut_off(g);
        ok = rank_rules(&c, names, e);
    }
    free(c.todo);
    free(c.stamp);
    return ok;
}
