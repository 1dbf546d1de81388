/* group_pick.c - who of a group is asked next. */
#include <math.h>

#include "backend/group_parts.h"

/* Numbers that are evenly spread however many one takes: multiples of the golden ratio, modulo 1. Shares follow the weights
 * closely after few calls, bursts to one member do not happen, and loops need share one addition only. Source: Weyl
 * (1916); Knuth, TAOCP 3, 6.4. */
static uint64_t next_turn(group *g) {
    return atomic_fetch_add(&g->pace->turn, 0x9e3779b97f4a7c15u);
}

/* Scrambled: for choices that must not follow each other. Source: splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t scramble(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* x as a share of 2^32, times n: below n, without bias that matters for n below 2^20. */
static uint32_t share(uint32_t x, uint32_t n) {
    return (uint32_t)((uint64_t)x * n >> 32);
}

double group_random(group *g) {
    return ldexp((double)(scramble(next_turn(g)) >> 11), -53);
}

/* Of row[0..n). */
static int by_weight(group *g, const int *row, int n) {
    uint32_t total = 0;
    for (int i = 0; i < n; i++) {
        total += (uint32_t)g->members[row[i]].weight;
    }
    uint32_t at = share((uint32_t)(next_turn(g) >> 32), total);
    for (int i = 0; i < n; i++) {
        uint32_t weight = (uint32_t)g->members[row[i]].weight;
        if (at < weight) {
            return row[i];
        }
        at -= weight;
    }
    return row[n - 1];
}

static double cost_of(const member *m, int64_t now_us) {
    return latency_cost(&m->state->latency, atomic_load(&m->state->in_flight), now_us);
}

/* The better of two that chance names: nearly as good as the best of all, and without everybody running to the same one
 * at once. Source: Mitzenmacher, The Power of Two Choices (2001). */
static int by_latency(group *g, const int *row, int n, int64_t now_us) {
    uint64_t dice = scramble(next_turn(g));
    int      a = (int)share((uint32_t)dice, (uint32_t)n);
    int      b = (int)share((uint32_t)(dice >> 32), (uint32_t)n - 1);
    b += b >= a;
    return cost_of(&g->members[row[a]], now_us) <= cost_of(&g->members[row[b]], now_us) ? row[a] : row[b];
}

/* True where it may be asked; `busy_too`: also one that wants to be left alone. */
static bool may(const group *g, int i, uint64_t without, bool busy_too, int64_t now_us) {
    const member *m = &g->members[i];
    return !(without >> i & 1) && circuit_wait(&m->state->circuit, &g->limits, now_us) == 0 &&
           (busy_too || circuit_busy_for(&m->state->circuit, now_us) == 0);
}

static int of_row(group *g, uint64_t without, bool busy_too, int64_t now_us) {
    int row[GROUP_MAX_TARGETS], n = 0;
    for (int i = 0; i < g->n_row; i++) {
        if (may(g, i, without, busy_too, now_us)) {
            row[n++] = i;
        }
    }
    if (n < 2) {
        return n ? row[0] : -1;
    }
    return g->o.balance == BALANCE_LATENCY ? by_latency(g, row, n, now_us) : by_weight(g, row, n);
}

static int of_fallbacks(const group *g, uint64_t without, bool busy_too, int64_t now_us) {
    for (int i = g->n_row; i < g->n; i++) {
        if (may(g, i, without, busy_too, now_us)) {
            return i;
        }
    }
    return -1;
}

static int best(group *g, const group_choice *q, bool busy_too, int64_t now_us) {
    int i = q->row_last ? of_fallbacks(g, q->without, busy_too, now_us) : of_row(g, q->without, busy_too, now_us);
    if (i >= 0) {
        return i;
    }
    return q->row_last ? of_row(g, q->without, busy_too, now_us) : of_fallbacks(g, q->without, busy_too, now_us);
}

int group_peek(group *g, const group_choice *q, int64_t now_us) {
    return best(g, q, false, now_us);
}

/* Enters; a probe that another loop has begun meanwhile makes the next one the best. */
static int enter(group *g, group_choice q, bool busy_too, int64_t now_us, circuit_entry *how) {
    int i;
    while ((i = best(g, &q, busy_too, now_us)) >= 0) {
        *how = circuit_enter(&g->members[i].state->circuit, now_us);
        if (*how != CIRCUIT_REFUSED) {
            return i;
        }
        q.without |= (uint64_t)1 << i;
    }
    return -1;
}

int group_pick(group *g, const group_choice *q, int64_t now_us, circuit_entry *how) {
    int i = enter(g, *q, false, now_us, how);
    return i >= 0 ? i : enter(g, *q, true, now_us, how);
}

/* Not a probe: what is likely to fail shortens no wait. */
int group_pick_hedge(group *g, int first, uint64_t without, int64_t now_us, circuit_entry *how) {
    int i = of_row(g, without | (uint64_t)1 << first, false, now_us);
    i = i >= 0 ? i : first;
    if (!may(g, i, 0, false, now_us) || circuit_now(&g->members[i].state->circuit) != CIRCUIT_CLOSED) {
        return -1;
    }
    *how = circuit_enter(&g->members[i].state->circuit, now_us);
    if (*how == CIRCUIT_PROBE) { /* it opened between the two lines, and its time is over already */
        circuit_leave(&g->members[i].state->circuit, *how, now_us);
    }
    return *how == CIRCUIT_NORMAL ? i : -1;
}

int64_t group_wait(const group *g, uint64_t without, int64_t now_us) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < g->n; i++) {
        const circuit *c = &g->members[i].state->circuit;
        int64_t        open = circuit_wait(c, &g->limits, now_us), busy = circuit_busy_for(c, now_us);
        int64_t        wait = open > busy ? open : busy;
        if (!(without >> i & 1) && wait < least) {
            least = wait;
        }
    }
    return least;
}
