/* stall.c - see stall.h. A thread runs when its clock does. */
#include "tensor/stall.h"

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <unistd.h>

#define LOOK_NS 8000 /* the clock of a running thread shows less */

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) ? -1 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void stand_take(stand *s) {
    static _Thread_local pid_t     thread;
    static _Thread_local clockid_t clock;
    if (!thread) {
        thread = gettid();
        if (pthread_getcpuclockid(pthread_self(), &clock))
            clock = CLOCK_MONOTONIC; /* always runs: never moved */
    }
    atomic_store_explicit(&s->thread, thread, memory_order_relaxed);
    atomic_store_explicit(&s->clock, clock, memory_order_relaxed);
}

void stand_begin(stand *s) {
    atomic_store_explicit(&s->core, sched_getcpu(), memory_order_relaxed);
    atomic_store_explicit(&s->state, STAND_BUSY, memory_order_release);
}

/* First to the core it came from, where the scheduler owes it time; nobody waits for it now. */
void stand_return(stand *s) {
    while (atomic_load_explicit(&s->state, memory_order_acquire) != STAND_MOVED)
        sched_yield(); /* the mover is between two system calls */
    cpu_set_t home;
    CPU_ZERO(&home);
    CPU_SET((size_t)atomic_load_explicit(&s->core, memory_order_relaxed), &home);
    pid_t thread = atomic_load_explicit(&s->thread, memory_order_relaxed);
    sched_setaffinity(thread, sizeof home, &home);
    sched_setaffinity(thread, sizeof s->cores, &s->cores);
    atomic_store_explicit(&s->state, STAND_IDLE, memory_order_release);
}

static bool bring(stand *s) {
    int       busy = STAND_BUSY, core = sched_getcpu();
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET((size_t)(core < 0 ? 0 : core), &here);
    if (core < 0 || !atomic_compare_exchange_strong(&s->state, &busy, STAND_MOVING))
        return false;
    pid_t thread = atomic_load_explicit(&s->thread, memory_order_relaxed);
    bool  moved = sched_getaffinity(thread, sizeof s->cores, &s->cores) == 0 &&
                 sched_setaffinity(thread, sizeof here, &here) == 0;
    atomic_store_explicit(&s->state, STAND_MOVED, memory_order_release);
    return moved;
}

bool stall_rescue(stand *all, int n, int self) {
    for (int i = 0; i < n; i++) {
        stand *s = &all[i];
        if (i == self || atomic_load_explicit(&s->state, memory_order_acquire) != STAND_BUSY)
            continue;
        clockid_t clock = atomic_load_explicit(&s->clock, memory_order_relaxed);
        int64_t   before = read_clock(clock), end = read_clock(CLOCK_MONOTONIC) + LOOK_NS;
        while (read_clock(CLOCK_MONOTONIC) < end)
            if (atomic_load_explicit(&s->state, memory_order_acquire) != STAND_BUSY)
                return false;
        if (before >= 0 && read_clock(clock) == before && bring(s))
            return true;
    }
    return false;
}
