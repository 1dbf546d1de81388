/* mask_machine.h - where in a grammar a text stands, byte by byte.
 *
 * A state is a set of items: a node of a rule's automaton, and the places to return to when that rule ends. Return places
 * are sets too, of (node, return places) pairs, so that stacks that differ only below are one: the graph-structured stack
 * of Tomita (1985), with equal sets kept once. Equal states have equal numbers, and where a byte leads from a state is
 * worked out once and remembered: a deterministic automaton that is built as far as it is walked. One thread.        */
#ifndef PARE_ENGINE_MASK_MACHINE_H
#define PARE_ENGINE_MASK_MACHINE_H

#include "engine/grammar_parts.h"

#define STATE_DEAD   0 /* no text goes on from here */
#define SET_BOTTOM   0 /* the answer ends when this returns */
#define SET_OUTSIDE  1 /* returns to who knows where: for what holds wherever a rule is called from */
#define STATE_ENDS   1 /* flags: the answer may end here */
#define STATE_LEAVES 2 /* the rule that was entered with SET_OUTSIDE may end here */

typedef struct item {
    int32_t node, set;
} item;

typedef struct lists { /* lists of items, equal ones once; a list's number is its place in at[] */
    item    *item;
    size_t   n_items, cap_items;
    size_t  *at; /* one more at the end */
    int32_t *hash, *tag;
    int      n, cap;
    int32_t *slot;
    int      n_slots;
} lists;

typedef struct machine {
    const grammar       *g;
    lists                sets, states; /* a set's tag is its depth, a state's tag its flags */
    int32_t             *row;          /* [states.cap * n_classes] where a class leads; -1: not known yet */
    uint8_t             *note;         /* [states.cap] the caller's, 0 at first */
    item                *now;          /* the state in the making */
    int                  n_now;
    int32_t             *seen, seen_by; /* hash of now[] */
    struct call_waiting *call;
    int                  n_calls;
    int64_t              work;    /* items looked at; a caller that sets it back may stop at a bound */
    int64_t              most;    /* beyond it unknown steps lead to STATE_DEAD and are not remembered */
    int                  deepest; /* largest depth, with what an item needs beyond it, that was asked for */
    item                *back;    /* return places being gathered */
    bool                 failed;  /* memory ran out */
} machine;

bool machine_init(machine *m, const grammar *g, err *e);
void machine_free(machine *m);

int machine_begin(machine *m);                   /* the state in which an answer begins */
int machine_enter(machine *m, int node);         /* the node alone, with SET_OUTSIDE */
int machine_leave(machine *m, int set);          /* the state after a return to these places */
int machine_work(machine *m, int state, int cl); /* machine_step, worked out */
/* Forgets all but one state, whose new number is returned, once much has been remembered. Sets of old are gone. */
int machine_tidy(machine *m, int state);

static inline int machine_step(machine *m, int state, int cl) {
    int to = m->row[(size_t)state * (size_t)m->g->n_classes + (size_t)cl];
    return to >= 0 ? to : machine_work(m, state, cl);
}

static inline int machine_flags(const machine *m, int state) {
    return m->states.tag[state];
}

static inline int machine_items(const machine *m, int state, const item **items) {
    *items = m->states.item + m->states.at[state];
    return (int)(m->states.at[state + 1] - m->states.at[state]);
}

#endif
