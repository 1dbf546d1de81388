/* stall.c - see stall.h. A thread runs when its clock does. */
#include "tensor/stall.h"

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <unistd.h>

#define LOOK_NS   8000 /* the clock of a running thread shows less */
#define MOST_SEEN 8    /* threads in one look */

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

void stand_return(stand *s, bool home) {
    while (atomic_load_explicit(&s->state, memory_order_acquire) != STAND_MOVED)
        sched_yield(); /* the mover is between two system calls */
    pid_t thread = atomic_load_explicit(&s->thread, memory_order_relaxed);
    int   core = atomic_load_explicit(&s->core, memory_order_relaxed);
    if (CPU_COUNT(&s->cores) > 0) { /* else the mover could not read them, and did not move it */
        cpu_set_t from;
        CPU_ZERO(&from);
        CPU_SET((size_t)(core < 0 ? 0 : core), &from);
        if (home && core >= 0)
            sched_setaffinity(thread, sizeof from, &from);
        sched_setaffinity(thread, sizeof s->cores, &s->cores);
    }
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
    bool  moved = false;
    if (sched_getaffinity(thread, sizeof s->cores, &s->cores) == 0)
        moved = sched_setaffinity(thread, sizeof here, &here) == 0;
    else
        CPU_ZERO(&s->cores);
    atomic_store_explicit(&s->state, STAND_MOVED, memory_order_release);
    return moved;
}

bool stall_rescue(stand *all, int n, int self) {
    struct {
        stand    *who;
        clockid_t clock;
        int64_t   before;
    } seen[MOST_SEEN];
    int count = 0;
    for (int i = 1; i < n && count < MOST_SEEN; i++) {
        stand *s = &all[(self + i) % n];
        if (atomic_load_explicit(&s->state, memory_order_acquire) != STAND_BUSY)
            continue;
        seen[count].who = s;
        seen[count].clock = atomic_load_explicit(&s->clock, memory_order_relaxed);
        seen[count].before = read_clock(seen[count].clock);
        count++;
    }
    bool    busy = count > 0;
    int64_t end = read_clock(CLOCK_MONOTONIC) + LOOK_NS;
    while (busy && read_clock(CLOCK_MONOTONIC) < end) {
        busy = false;
        for (int i = 0; i < count; i++)
            busy |= atomic_load_explicit(&seen[i].who->state, memory_order_acquire) == STAND_BUSY;
    }
    for (int i = 0; busy && i < count; i++)
        if (atomic_load_explicit(&seen[i].who->state, memory_order_acquire) == STAND_BUSY && seen[i].before >= 0 &&
            read_clock(seen[i].clock) == seen[i].before && bring(seen[i].who))
            return true;
    return false;
}
