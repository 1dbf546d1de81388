/* group.h - one backend that stands for several: the hosts, keys and providers that can answer for a model.
 *
 * A call goes to one of the first row of targets (by weight, or to the quickest); while nothing of an answer has reached
 * the caller it may be tried again, after a pause with jitter or as Retry-After says, at another one of the row, and then
 * at the fallbacks in their order. What a member says of a request itself (400, 404, 413, 422) is the answer and not tried
 * elsewhere. A member that keeps failing is left alone for a while: its circuit opens, and a single call probes whether it
 * is well again (half open). With hedging a second call starts when the first has said nothing for as long as 95 of 100
 * calls take to say something; whoever speaks first goes on, the other is cancelled. What both cost is told: the final
 * event has `by`, `by_model` and all other tries in `attempts`; `by` stands on every event.
 *
 * start, cancel and events are on the caller's loop, as backend.h says; what all loops share (circuits, latencies, counts)
 * is atomic. The members outlive the group and are not closed by it.                                                    */
#ifndef PARE_BACKEND_GROUP_H
#define PARE_BACKEND_GROUP_H

#include "backend/backend.h"

typedef struct group_target {
    backend    *backend;
    const char *model;    /* what it calls the model */
    int         weight;   /* 1..1000000; of the first row */
    bool        fallback; /* not of the first row: tried in the order given when that has failed */
} group_target;

typedef enum group_balance { BALANCE_WEIGHTED, BALANCE_LATENCY } group_balance;

#define GROUP_RETRIES 2

/* 0 is the default but for retries. */
typedef struct group_options {
    group_balance balance;
    int           retries;        /* further tries at all, fallbacks included; 0: none, below 0: the default */
    int64_t       pause_us;       /* before the first retry, doubled for each; default 200 ms; with jitter */
    int64_t       longest_us;     /* a pause, also by Retry-After: longer ones are not waited for; default 5 s */
    int           break_failures; /* in a row that open a circuit; default 5 */
    int64_t       break_us;       /* how long it stays open; default 10 s, doubled to 5 min while probes fail */
    bool          hedge;
    int           hedge_percent;  /* of calls that may be doubled; default 5 */
    int64_t       hedge_after_us; /* 0: the 95th percentile of the time to the first event */
} group_options;

backend *backend_group(const char *name, const group_target *targets, int n, const group_options *o, err *e);

/* `b`, which has had no call yet, goes on where `from` is: with the circuits, latencies and counts of the members that both
 * have (the same backend and model), with its turn and its budget for hedges. Both may then be called. Nothing happens
 * where one of them is no group. */
void group_inherit(backend *b, const backend *from);

#endif
