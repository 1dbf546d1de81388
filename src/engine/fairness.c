#include "engine/fairness.h"

#include <stdlib.h>

#include "base/hash.h"

typedef struct client {
    uint64_t     id;
    int64_t      had;
    fair_ticket *first, *last; /* waiting; rising priority, then first come */
    int          jobs;         /* waiting and served */
    int          next;         /* in the chain of its bucket, or of the free ones; -1 ends it */
    int          active_at;    /* in active[] while jobs > 0 */
} client;

struct fair_line {
    client  *clients;
    int     *bucket; /* [n] first of each chain; -1: none */
    int     *active; /* clients with jobs */
    int      n, n_active;
    int      free; /* first of the chain of clients that never were or were forgotten */
    uint64_t seed; /* clients are named by strangers */
    int64_t  number;
    int64_t  floor; /* what a newcomer starts with when nobody is there: the counter of the last who left */
};

fair_line *fair_new(int clients, err *e) {
    fair_line *l = calloc(1, sizeof(*l));
    if (l) {
        size_t n = (size_t)clients;
        l->n = clients;
        l->seed = hash_seed();
        l->clients = calloc(n, sizeof(*l->clients));
        l->bucket = calloc(n, sizeof(*l->bucket));
        l->active = calloc(n, sizeof(*l->active));
    }
    if (!l || !l->clients || !l->bucket || !l->active) {
        fair_free(l);
        err_set(e, ERR_MEMORY, "out of memory for a waiting line of %d clients", clients);
        return NULL;
    }
    for (int i = 0; i < clients; i++) {
        l->bucket[i] = -1;
        l->clients[i].next = i + 1 < clients ? i + 1 : -1;
    }
    return l;
}

void fair_free(fair_line *l) {
    if (l) {
        free(l->clients);
        free(l->bucket);
        free(l->active);
        free(l);
    }
}

/* ---- the table ---- */

static int *bucket_of(const fair_line *l, uint64_t id) {
    return &l->bucket[hash64(&id, sizeof(id), l->seed) % (uint64_t)l->n];
}

static void forget(fair_line *l, int i) {
    int *link = bucket_of(l, l->clients[i].id);
    while (*link != i) {
        link = &l->clients[*link].next;
    }
    *link = l->clients[i].next;
    l->clients[i].next = l->free;
    l->free = i;
}

static int64_t smallest_counter(const fair_line *l) {
    int64_t least = l->n_active ? INT64_MAX : l->floor;
    for (int i = 0; i < l->n_active; i++) {
        int64_t had = l->clients[l->active[i]].had;
        least = had < least ? had : least;
    }
    return least;
}

/* Forgets all who have no job and nothing to remember: they would be lifted above their own counter anyway. When there
 * are none such, the one with no job that had the least. Called when the table is full, of which no place is free. */
static void make_place(fair_line *l) {
    int64_t floor = smallest_counter(l);
    int     least = -1;
    for (int i = 0; i < l->n; i++) {
        const client *c = &l->clients[i];
        if (c->jobs > 0) {
            continue;
        }
        if (c->had <= floor) {
            forget(l, i);
        } else if (least < 0 || c->had < l->clients[least].had) {
            least = i;
        }
    }
    if (l->free < 0 && least >= 0) {
        forget(l, least);
    }
}

static int find_or_add(fair_line *l, uint64_t id) {
    int *bucket = bucket_of(l, id);
    for (int i = *bucket; i >= 0; i = l->clients[i].next) {
        if (l->clients[i].id == id) {
            return i;
        }
    }
    if (l->free < 0) {
        make_place(l);
    }
    if (l->free < 0) {
        return (int)(bucket - l->bucket); /* all have jobs: share with whoever has this number */
    }
    int i = l->free;
    l->free = l->clients[i].next;
    l->clients[i] = (client){.id = id, .next = *bucket};
    *bucket = i;
    return i;
}

/* ---- the line ---- */

void fair_join(fair_line *l, fair_ticket *t, uint64_t id, int priority) {
    int     i = find_or_add(l, id);
    client *c = &l->clients[i];
    *t = (fair_ticket){.client = i, .priority = priority, .number = l->number++};
    if (c->jobs == 0) {
        int64_t floor = smallest_counter(l);
        c->had = c->had > floor ? c->had : floor;
        c->active_at = l->n_active;
        l->active[l->n_active++] = i;
    }
    c->jobs++;
    if (!c->first) {
        c->first = c->last = t;
    } else if (c->last->priority <= priority) {
        c->last->next = t;
        c->last = t;
    } else {
        fair_ticket **link = &c->first;
        while ((*link)->priority <= priority) {
            link = &(*link)->next;
        }
        t->next = *link;
        *link = t;
    }
}

static bool goes_before(const client *a, const client *b) {
    if (a->first->priority != b->first->priority) {
        return a->first->priority < b->first->priority;
    }
    return a->had != b->had ? a->had < b->had : a->first->number < b->first->number;
}

fair_ticket *fair_next(const fair_line *l) {
    const client *best = NULL;
    for (int i = 0; i < l->n_active; i++) {
        const client *c = &l->clients[l->active[i]];
        if (c->first && (!best || goes_before(c, best))) {
            best = c;
        }
    }
    return best ? best->first : NULL;
}

void fair_take(fair_line *l, fair_ticket *t) {
    client       *c = &l->clients[t->client];
    fair_ticket **link = &c->first, *before = NULL;
    while (*link != t) { /* more urgent ones may have come since fair_next */
        before = *link;
        link = &before->next;
    }
    *link = t->next;
    c->last = c->last == t ? before : c->last;
    t->next = NULL;
}

void fair_leave(fair_line *l, const fair_ticket *t) {
    client *c = &l->clients[t->client];
    if (--c->jobs > 0) {
        return;
    }
    l->n_active--;
    l->active[c->active_at] = l->active[l->n_active];
    l->clients[l->active[c->active_at]].active_at = c->active_at;
    if (l->n_active == 0 && c->had > l->floor) {
        l->floor = c->had;
    }
}

fair_ticket *fair_pick(fair_line *l, bool (*leaves)(const fair_ticket *t)) {
    fair_ticket *gone = NULL;
    for (int i = 0; i < l->n_active; i++) {
        client       *c = &l->clients[l->active[i]];
        fair_ticket **link = &c->first, *kept = NULL;
        while (*link) {
            fair_ticket *t = *link;
            if (leaves(t)) {
                *link = t->next;
                t->next = gone;
                gone = t;
            } else {
                kept = t;
                link = &t->next;
            }
        }
        c->last = kept;
    }
    for (const fair_ticket *t = gone; t; t = t->next) {
        fair_leave(l, t);
    }
    return gone;
}

/* ---- counters ---- */

void fair_charge(fair_line *l, const fair_ticket *t, int64_t tokens) {
    l->clients[t->client].had += tokens;
}

int64_t fair_had(const fair_line *l, const fair_ticket *t) {
    return l->clients[t->client].had;
}

int fair_clients(const fair_line *l) {
    return l->n_active;
}
