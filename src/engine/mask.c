/* mask.c - following an answer. */
#include "engine/mask.h"

#include <stdlib.h>
#include <string.h>

#include "engine/mask_parts.h"

#define WALK_NODES 8192 /* of the tree, before the masks of single nodes are the better way */
#define NOTE_WIDE  1

/* ---- waiting for the trigger ---- */

static bool begin_trigger(matcher *m, const char *trigger) {
    size_t n = strlen(trigger);
    m->trigger = strdup(trigger);
    m->fall = calloc(n + 1, sizeof(*m->fall));
    m->wrong = calloc(n + 1, sizeof(*m->wrong));
    if (!m->trigger || !m->fall || !m->wrong) {
        return false;
    }
    m->n_trigger = (int)n;
    for (int i = 1, border = 0; i < m->n_trigger; i++) {
        while (border > 0 && trigger[i] != trigger[border]) {
            border = m->fall[border];
        }
        border += trigger[i] == trigger[border];
        m->fall[i + 1] = border;
    }
    return true;
}

static void end_trigger(matcher *m) {
    for (int i = 0; m->wrong && i < m->n_trigger; i++) {
        free(m->wrong[i]);
    }
    free(m->trigger);
    free(m->fall);
    free(m->wrong);
    m->trigger = NULL;
    m->fall = NULL;
    m->wrong = NULL;
}

static void forbid(uint64_t *bits, int32_t id) {
    bits[id / 64] &= ~((uint64_t)1 << (id % 64));
}

static int trigger_step(const matcher *m, int seen, char byte) {
    while (seen > 0 && m->trigger[seen] != byte) {
        seen = m->fall[seen];
    }
    return seen + (m->trigger[seen] == byte);
}

/* Tokens that would finish the trigger and go on with bytes that the grammar does not begin with. */
static int32_t *wrong_tokens(matcher *m, int seen) {
    const vocab_tree *v = m->v;
    int32_t          *list = NULL;
    int               n = 0, cap = 0;
    m->path[0] = seen; /* bytes of the trigger, or below zero the state's number: -1 - state */
    for (int32_t i = 1; i < v->n_nodes; i++) {
        int depth = v->node[i].depth, at = m->path[depth - 1];
        if (at >= 0) {
            at = trigger_step(m, at, (char)v->node[i].byte);
            at = at == m->n_trigger ? -1 - m->state : at;
        } else if (at != -1 - STATE_DEAD) {
            at = -1 - machine_step(&m->m, -1 - at, m->g->class_of[v->node[i].byte]);
        }
        m->path[depth] = at;
        for (int k = 0; at == -1 - STATE_DEAD && k < v->node[i].tokens; k++) {
            if (n + 1 >= cap) {
                cap = cap ? 2 * cap : 16;
                int32_t *more = realloc(list, (size_t)cap * sizeof(*more));
                if (!more) {
                    free(list);
                    return NULL;
                }
                list = more;
            }
            list[n++] = v->ids[v->node[i].first + k];
        }
    }
    if (!list) {
        list = malloc(sizeof(*list));
    }
    if (list) {
        list[n] = -1;
    }
    return list;
}

/* All but what goes wrong and what ends the answer: the grammar has not begun. */
static void free_mask(matcher *m, uint64_t *bits) {
    if (!m->wrong[m->seen]) {
        m->wrong[m->seen] = wrong_tokens(m, m->seen);
    }
    const int32_t *wrong = m->wrong[m->seen]; /* NULL: no memory; matcher_accept will tell */
    memset(bits, 0xFF, mask_words(m->v->vocab) * sizeof(*bits));
    for (int i = 0; wrong && wrong[i] >= 0; i++) {
        forbid(bits, wrong[i]);
    }
    for (int i = 0; i < m->v->n_ends; i++) {
        forbid(bits, m->v->ends[i]);
    }
}

/* ---- a matcher ---- */

matcher *matcher_new(grammar *g, vocab_tree *v, const char *trigger, err *e) {
    matcher *m = calloc(1, sizeof(*m));
    if (!m || !machine_init(&m->m, g, e)) {
        free(m);
        err_set(e, ERR_MEMORY, "out of memory for following a grammar");
        return NULL;
    }
    m->g = grammar_hold(g);
    m->v = vocab_tree_hold(v);
    m->t = mask_table_for(g, v, e);
    m->path = calloc((size_t)v->depth + 2, sizeof(*m->path));
    if (!m->t || !m->path || (trigger && trigger[0] && !begin_trigger(m, trigger))) {
        matcher_free(m);
        err_set(e, ERR_MEMORY, "out of memory for following a grammar");
        return NULL;
    }
    m->state = machine_begin(&m->m);
    if (m->trigger) {
        m->wrong[0] = wrong_tokens(m, 0);
    }
    mask_table_warm(m->t, g);
    return m;
}

void matcher_free(matcher *m) {
    if (m) {
        end_trigger(m);
        machine_free(&m->m);
        grammar_free(m->g);
        vocab_tree_free(m->v);
        free(m->path);
        free(m);
    }
}

bool matcher_may_end(const matcher *m) {
    return m->ended || (!m->trigger && machine_flags(&m->m, m->state) & STATE_ENDS);
}

bool matcher_done(const matcher *m) {
    const item *items;
    return m->ended ||
           (!m->trigger && machine_flags(&m->m, m->state) & STATE_ENDS && machine_items(&m->m, m->state, &items) == 0);
}

/* One item of a state that lets many tokens pass. */
static bool mask_item(matcher *m, item x, uint64_t *bits) {
    const local_mask *l = mask_local(m->t, m->g, x.node);
    if (!l || l->deepest + m->m.sets.tag[x.set] > GRAMMAR_MOST_DEPTH) {
        return false;
    }
    for (size_t w = 0; w < mask_words(m->v->vocab); w++) {
        bits[w] |= l->bits[w];
    }
    int         state = l->n_leaves > 0 ? machine_leave(&m->m, x.set) : STATE_DEAD;
    int64_t     all = INT64_MAX;
    const item *items; /* none where the answer ends with the rule; the leaves may be the whole tree */
    bool        goes_on = machine_items(&m->m, state, &items) > 0;
    for (int i = 0; goes_on && i < l->n_leaves; i++) {
        mask_walk(&m->m, m->v, m->path, l->leaves[i], state, bits, &all, NULL);
    }
    return true;
}

static bool has_wide(const matcher *m) {
    const item *items;
    int         n = machine_items(&m->m, m->state, &items);
    for (int i = 0; i < n; i++) {
        if (mask_is_wide(m->g, items[i].node)) {
            return true;
        }
    }
    return false;
}

static void mask_state(matcher *m, uint64_t *bits) {
    int64_t budget = WALK_NODES, all = INT64_MAX;
    if (m->m.note[m->state] != NOTE_WIDE && !has_wide(m)) {
        if (mask_walk(&m->m, m->v, m->path, 0, m->state, bits, &budget, NULL)) {
            return;
        }
        m->m.note[m->state] = NOTE_WIDE;
    }
    const item *items;
    int         n = machine_items(&m->m, m->state, &items);
    for (int i = 0; i < n; i++) {
        item x = m->m.states.item[m->m.states.at[m->state] + (size_t)i]; /* the list moves while states are added */
        if (!mask_item(m, x, bits)) {
            mask_walk(&m->m, m->v, m->path, 0, m->state, bits, &all, NULL);
            return;
        }
    }
}

void matcher_mask(matcher *m, uint64_t *bits) {
    if (m->trigger) {
        free_mask(m, bits);
        return;
    }
    memset(bits, 0, mask_words(m->v->vocab) * sizeof(*bits));
    if (matcher_may_end(m)) {
        for (int i = 0; i < m->v->n_ends; i++) {
            bits[m->v->ends[i] / 64] |= (uint64_t)1 << (m->v->ends[i] % 64);
        }
    }
    if (!m->ended) {
        m->state = machine_tidy(&m->m, m->state);
        m->m.work = 0;
        m->m.most = MASK_WORK;
        mask_state(m, bits);
        m->m.most = INT64_MAX;
    }
}

static int follow(matcher *m, int state, const char *bytes, size_t n) {
    for (size_t i = 0; i < n && state != STATE_DEAD; i++) {
        state = machine_step(&m->m, state, m->g->class_of[(uint8_t)bytes[i]]);
    }
    return state;
}

/* Anything may come; what follows the trigger in the same token is the grammar's already. */
static bool accept_freely(matcher *m, int32_t token) {
    const char *bytes;
    size_t      n = tokenizer_piece(m->v->t, token, true, &bytes);
    int         seen = m->seen;
    for (size_t i = 0; i < n; i++) {
        seen = trigger_step(m, seen, bytes[i]);
        if (seen == m->n_trigger) {
            int state = follow(m, m->state, bytes + i + 1, n - i - 1);
            if (state == STATE_DEAD) {
                return false;
            }
            m->state = state;
            end_trigger(m);
            return true;
        }
    }
    m->seen = seen;
    return true;
}

bool matcher_accept(matcher *m, int32_t token) {
    if (m->ended) {
        return false;
    }
    if (tokenizer_ends(m->v->t, token)) {
        m->ended = matcher_may_end(m);
        return m->ended;
    }
    if (m->trigger) {
        return accept_freely(m, token);
    }
    const char *bytes;
    size_t      n = tokenizer_piece(m->v->t, token, false, &bytes);
    int         state = n > 0 && n <= VOCAB_LONGEST ? follow(m, m->state, bytes, n) : STATE_DEAD;
    if (state == STATE_DEAD) {
        return false;
    }
    m->state = machine_tidy(&m->m, state);
    return true;
}
