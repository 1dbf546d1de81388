/* stall.h - a compute thread that lost its core in the middle of a chunk.
 *
 * On a machine with a busy neighbour the scheduler takes a core from a thread for milliseconds, and all wait for the few
 * microseconds of work that it holds. Who waits has a core to give: it looks which thread holds a chunk and does not run,
 * moves it to its own core and goes to sleep. The moved thread finishes its chunk at once, goes back to where the scheduler
 * owes it time, unless others wait for what it does next, and may then use the cores that it might before (the system takes
 * these for asked for from then on: cores that a container gets later are not used by it). Where the system refuses such
 * moves, nothing happens but waiting.                                                                                                                                      */
#ifndef PARE_TENSOR_STALL_H
#define PARE_TENSOR_STALL_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

typedef enum stand_state { STAND_IDLE, STAND_BUSY, STAND_MOVING, STAND_MOVED } stand_state;

typedef struct stand { /* of one thread */
    _Alignas(64) atomic_int state;
    _Atomic(pid_t)     thread;
    _Atomic(clockid_t) clock; /* of its time on a core */
    atomic_int         core;  /* where the chunk began */
    cpu_set_t          cores; /* what it may use; the mover's note for the way back. None: it could not be moved */
} stand;

/* The calling thread stands here from now on. */
void stand_take(stand *s);

/* Around each chunk. home: nobody waits for this thread once its chunk is done. */
void stand_begin(stand *s);
void stand_return(stand *s, bool home); /* of a moved thread */

static inline void stand_end(stand *s, bool home) {
    int busy = STAND_BUSY;
    if (!atomic_compare_exchange_strong_explicit(&s->state, &busy, STAND_IDLE, memory_order_acq_rel,
                                                 memory_order_acquire))
        stand_return(s, home);
}

/* Brings one of the n threads, not that of `self`, to the caller's core, if it holds a chunk and does not run. Takes some
 * ten microseconds when any hold a chunk; of many, eight are looked at. False: nobody was moved. */
bool stall_rescue(stand *all, int n, int self);

#endif
