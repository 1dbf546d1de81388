/* fairness.h - who is next: the waiting line of an engine, fair between clients.
 *
 * Each client has a counter of the tokens it had; the next job is one of the smallest priority value, of these one of
 * the client with the smallest counter, of these the one that came first. A client that comes back after a pause is
 * lifted to the smallest counter of those who are there, so that nobody saves up turns by staying away. Source: the
 * Virtual Token Counter, arXiv:2401.00588.
 *
 * The table of clients is bounded: one that has no job gives its place to a new one, and when all have jobs, new ones
 * share a counter with one of them. Not thread safe.                                                                */
#ifndef PARE_ENGINE_FAIRNESS_H
#define PARE_ENGINE_FAIRNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define FAIR_CLIENTS   4096
#define FAIR_GENERATED 2 /* a generated token counts as much as so many of a prompt, which are computed side by side */

typedef struct fair_line fair_line;

typedef struct fair_ticket { /* a job's place; part of the job */
    struct fair_ticket *next;
    int64_t             number; /* first come, smaller number */
    int                 priority;
    int                 client; /* in the table */
} fair_ticket;

fair_line *fair_new(int clients, err *e); /* 1 .. FAIR_CLIENTS */
void       fair_free(fair_line *l);

/* Stands in line. fair_leave must follow, fair_take may come between. */
void         fair_join(fair_line *l, fair_ticket *t, uint64_t client, int priority);
/* Who is next; stays in line. NULL: nobody waits. */
fair_ticket *fair_next(const fair_line *l);
/* Leaves the line to be served; it must be the one that fair_next gave. */
void         fair_take(fair_line *l, fair_ticket *t);
/* Takes those out of the line that `leaves` is true for, as a chain; fair_leave is done for them. */
fair_ticket *fair_pick(fair_line *l, bool (*leaves)(const fair_ticket *t));
/* Served, or never to be: the job is over. It must not be in line. */
void         fair_leave(fair_line *l, const fair_ticket *t);

void    fair_charge(fair_line *l, const fair_ticket *t, int64_t tokens);
int64_t fair_had(const fair_line *l, const fair_ticket *t); /* the counter of the job's client */
int     fair_clients(const fair_line *l);                   /* who have jobs, waiting or served */

#endif
