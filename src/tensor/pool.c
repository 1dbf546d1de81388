/* pool.c - compute threads that claim chunks of the job at hand.
 *
 * Each thread has a share of the items, one stretch, and claims chunks from its front: what it reads next follows what it
 * reads now, so prefetching across chunks is never in vain. Who is done takes chunks from the end of others' shares. A
 * worker that is late (asleep, or its core is taken by a neighbour) loses its share that way and is not waited for: a
 * job ends when its items are done, not when every thread has looked.
 *
 * A share is one 64-bit word: the job's generation, the next unclaimed item and the end. A thread reads the word, then
 * the job's fields, and claims by compare-and-swap on the whole word; when that succeeds the job has unclaimed items and
 * therefore cannot have ended meanwhile, so the fields are the right ones. While they change all shares are empty. A
 * generation comes again after 2^24 jobs: a thread would have to sleep through all of them between its read and its claim. */
#include "tensor/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "tensor/stall.h"

#define MAX_THREADS  512
#define ITEM_BITS    20 /* of a share's two numbers; jobs of more items are counted in units of several */
#define ITEM_MASK    ((1u << ITEM_BITS) - 1)
#define SPIN_IDLE_NS 4000   /* then a waiting thread sleeps */
#define SPIN_STEP_NS 20000  /* the same while an engine holds its turn: the next job of its step comes within that */
#define LOOK_NS      200000 /* who waits for others' chunks looks so often whether they run */

typedef struct worker {
    struct pool *pool;
    pthread_t    handle;
    int          number;
} worker;

typedef struct share { /* on a line of its own */
    _Alignas(64) _Atomic uint64_t word;
} share;

struct pool {
    int     threads;
    int     started; /* of the workers */
    worker *workers; /* threads - 1 of them */

    _Atomic(pool_fn) fn;
    _Atomic(void *)  arg;
    atomic_int       count, grain, unit; /* items; a claim's least units; items a unit */
    share           *shares;             /* [threads] */
    stand           *stands;             /* [threads] */
    uint64_t         generation;
    _Alignas(64) _Atomic uint32_t done; /* items finished; the caller sleeps on it */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t signal; /* changes when there may be work; workers sleep on it */
    _Atomic uint32_t sleepers;
    atomic_bool      stopping;

    _Alignas(64) _Atomic uint32_t next_turn; /* tickets handed out */
    _Atomic uint32_t serving;                /* the ticket whose turn it is; those who wait sleep on it */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, const struct timespec *longest) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, longest, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int how_many) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, how_many, NULL, NULL, 0);
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits a little for *word to leave `seen`. */
static bool spin_while(_Atomic uint32_t *word, uint32_t seen, int64_t ns) {
    int64_t end = now_ns() + ns;
    do {
        for (int i = 0; i < 16; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != seen)
                return true;
            relax();
        }
    } while (now_ns() < end);
    return false;
}

static uint64_t share_word(uint64_t generation, uint32_t next, uint32_t end) {
    return generation << 2 * ITEM_BITS | (uint64_t)next << ITEM_BITS | end;
}

/* Chunks that are not too many, and small enough to be taken over; they begin at multiples of the grain. */
static uint32_t chunk_size(uint32_t left, uint32_t grain) {
    uint32_t size = left / 16 / grain * grain;
    size = size < grain ? grain : size;
    return size < left ? size : left;
}

/* Runs one chunk of the share `of`, from its front or from its end. False: there is none. */
static bool work_on(pool *p, share *of, bool own, int thread) {
    uint64_t word = atomic_load_explicit(&of->word, memory_order_acquire);
    for (;;) {
        uint32_t next = (uint32_t)(word >> ITEM_BITS) & ITEM_MASK, end = (uint32_t)word & ITEM_MASK;
        if (next >= end)
            return false;
        int      count = atomic_load_explicit(&p->count, memory_order_acquire);
        int      grain = atomic_load_explicit(&p->grain, memory_order_acquire);
        int      unit = atomic_load_explicit(&p->unit, memory_order_acquire);
        pool_fn  fn = atomic_load_explicit(&p->fn, memory_order_acquire);
        void    *arg = atomic_load_explicit(&p->arg, memory_order_acquire);
        uint32_t size = chunk_size(end - next, (uint32_t)grain), begin = next, after = next + size;
        uint64_t taken = share_word(word >> 2 * ITEM_BITS, after, end);
        if (!own) {
            begin = (end - size) / (uint32_t)grain * (uint32_t)grain;
            begin = begin < next ? next : begin;
            after = end;
            taken = share_word(word >> 2 * ITEM_BITS, next, begin);
        }
        if (!atomic_compare_exchange_weak_explicit(&of->word, &word, taken, memory_order_acq_rel, memory_order_acquire))
            continue;
        int from = (int)begin * unit, to = (int64_t)after * unit < count ? (int)after * unit : count;
        stand_begin(&p->stands[thread]);
        fn(arg, from, to, thread);
        uint32_t done = atomic_fetch_add(&p->done, (uint32_t)(to - from)) + (uint32_t)(to - from);
        if (done == (uint32_t)count && atomic_load(&p->caller_sleeps))
            futex_wake(&p->done, 1);
        stand_end(&p->stands[thread], thread != 0); /* the caller begins the next job */
        return true;
    }
}

/* Claims and runs chunks until none is left. */
static void work(pool *p, int thread) {
    while (work_on(p, &p->shares[thread], true, thread)) {
    }
    for (int i = 1; i < p->threads; i++) {
        int other = thread + i < p->threads ? thread + i : thread + i - p->threads;
        while (work_on(p, &p->shares[other], false, thread)) {
        }
    }
}

static bool turn_is_held(pool *p) {
    return atomic_load_explicit(&p->next_turn, memory_order_relaxed) !=
           atomic_load_explicit(&p->serving, memory_order_relaxed);
}

/* Sleeps until *word leaves `seen`, or for a while when other threads still hold chunks of the job at hand: they may have
 * lost their cores. */
static void wait_for(pool *p, int thread, _Atomic uint32_t *word, uint32_t seen) {
    static const struct timespec look = {0, LOOK_NS};
    const bool                   unfinished = atomic_load(&p->done) != (uint32_t)atomic_load(&p->count);
    if (unfinished)
        stall_rescue(p->stands, p->threads, thread);
    futex_wait(word, seen, unfinished ? &look : NULL);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    pool   *p = w->pool;
    stand_take(&p->stands[w->number]);
    while (!atomic_load(&p->stopping)) {
        uint32_t seen = atomic_load(&p->signal);
        work(p, w->number);
        if (spin_while(&p->signal, seen, turn_is_held(p) ? SPIN_STEP_NS : SPIN_IDLE_NS))
            continue;
        atomic_fetch_add(&p->sleepers, 1);
        while (atomic_load(&p->signal) == seen)
            wait_for(p, w->number, &p->signal, seen);
        atomic_fetch_sub(&p->sleepers, 1);
    }
    return NULL;
}

/* The shares of the job before are empty. Each store releases and each load in work_on() acquires: who sees a new share
 * sees the new fields. */
static void publish(pool *p, int count, int grain, pool_fn fn, void *arg) {
    int unit = 1;
    while (count / unit >= (int)ITEM_MASK)
        unit *= 2;
    uint32_t units = (uint32_t)((count - 1) / unit + 1), step = (uint32_t)(grain > unit ? grain / unit : 1);
    atomic_store_explicit(&p->fn, fn, memory_order_release);
    atomic_store_explicit(&p->arg, arg, memory_order_release);
    atomic_store_explicit(&p->count, count, memory_order_release);
    atomic_store_explicit(&p->grain, (int)step, memory_order_release);
    atomic_store_explicit(&p->unit, unit, memory_order_release);
    atomic_store_explicit(&p->done, 0, memory_order_release);
    p->generation = (p->generation + 1) & ((1u << (64 - 2 * ITEM_BITS)) - 1);
    uint32_t chunks = (units - 1) / step + 1, begin = 0;
    for (int t = 0; t < p->threads; t++) {
        uint32_t end = (uint32_t)((uint64_t)chunks * (uint32_t)(t + 1) / (uint32_t)p->threads) * step;
        end = end < units ? end : units;
        atomic_store_explicit(&p->shares[t].word, share_word(p->generation, begin, end), memory_order_release);
        begin = end;
    }
}

void pool_run(pool *p, int count, int grain, pool_fn fn, void *arg) {
    if (count <= 0)
        return;
    if (grain < 1)
        grain = 1;
    if (p->threads == 1 || count <= grain) {
        fn(arg, 0, count, 0);
        return;
    }
    stand_take(&p->stands[0]);
    publish(p, count, grain, fn, arg);
    atomic_fetch_add(&p->signal, 1);
    if (atomic_load(&p->sleepers)) {
        int others = (count - 1) / grain;
        futex_wake(&p->signal, others < p->threads ? others : p->threads);
    }
    work(p, 0);

    for (;;) {
        uint32_t done = atomic_load_explicit(&p->done, memory_order_acquire);
        if (done == (uint32_t)count)
            return;
        if (spin_while(&p->done, done, SPIN_IDLE_NS))
            continue;
        atomic_store(&p->caller_sleeps, 1);
        while ((done = atomic_load(&p->done)) != (uint32_t)count)
            wait_for(p, 0, &p->done, done);
        atomic_store(&p->caller_sleeps, 0);
    }
}

void pool_take(pool *p) {
    uint32_t mine = atomic_fetch_add(&p->next_turn, 1);
    uint32_t serving;
    while ((serving = atomic_load(&p->serving)) != mine)
        if (!spin_while(&p->serving, serving, SPIN_IDLE_NS))
            futex_wait(&p->serving, serving, NULL);
}

void pool_give(pool *p) {
    uint32_t next = atomic_fetch_add(&p->serving, 1) + 1;
    if (atomic_load(&p->next_turn) != next)
        futex_wake(&p->serving,
                   INT_MAX); /* which of them sleeps for `next` is not known; the others look and sleep on */
}

static int usable_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static bool start_worker(pool *p, int number, err *e) {
    worker *w = &p->workers[number - 1];
    w->pool = p;
    w->number = number;
    char what[64];
    snprintf(what, sizeof what, "compute thread %d of %d", number + 1, p->threads);
    return thread_start(&w->handle, worker_main, w, what, e);
}

pool *pool_new(int threads, err *e) {
    if (threads <= 0)
        threads = usable_cores() < MAX_THREADS ? usable_cores() : MAX_THREADS;
    if (threads > MAX_THREADS) {
        err_set(e, ERR_INVALID, "%d compute threads asked for; the most is %d", threads, MAX_THREADS);
        return NULL;
    }
    pool *p = aligned_alloc(_Alignof(pool), sizeof *p);
    if (!p) {
        err_set(e, ERR_MEMORY, "out of memory for the compute threads");
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->threads = 1;
    if (threads == 1)
        return p;
    p->workers = calloc((size_t)threads - 1, sizeof *p->workers);
    p->shares = aligned_alloc(_Alignof(share), (size_t)threads * sizeof *p->shares);
    p->stands = aligned_alloc(_Alignof(stand), (size_t)threads * sizeof *p->stands);
    if (p->shares)
        memset(p->shares, 0, (size_t)threads * sizeof *p->shares);
    if (p->stands)
        memset(p->stands, 0, (size_t)threads * sizeof *p->stands);
    if (!p->workers || !p->shares || !p->stands) {
        pool_free(p);
        err_set(e, ERR_MEMORY, "out of memory for %d compute threads", threads);
        return NULL;
    }
    p->threads = threads; /* before there are others who read it */
    for (int i = 1; i < threads; i++) {
        if (!start_worker(p, i, e)) {
            pool_free(p);
            return NULL;
        }
        p->started = i;
    }
    return p;
}

void pool_free(pool *p) {
    if (!p)
        return;
    atomic_store(&p->stopping, true);
    atomic_fetch_add(&p->signal, 1);
    futex_wake(&p->signal, INT_MAX);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->workers[i].handle, NULL);
    free(p->workers);
    free(p->shares);
    free(p->stands);
    free(p);
}

int pool_threads(const pool *p) {
    return p->threads;
}
