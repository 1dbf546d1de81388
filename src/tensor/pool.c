/* pool.c - compute threads that claim chunks of the job at hand.
 *
 * A job is published by one 64-bit word, `claim`: its generation above, the next unclaimed item below. A thread reads
 * the word, then the job's fields, and claims by compare-and-swap on the whole word; when that succeeds the job has
 * unclaimed items and therefore cannot have ended meanwhile, so the fields are the right ones. The word is closed while
 * the fields change, so that nobody joins the old generation with the new count. A worker that is late (asleep, or its
 * core is taken by a neighbour) finds nothing and is not waited for: a job ends when its items are done, not when every
 * thread has looked.                                                                                                 */
#include "tensor/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS  512
#define CLOSED       UINT32_MAX
#define SPIN_IDLE_NS 4000  /* then a waiting thread sleeps */
#define SPIN_STEP_NS 20000 /* the same while an engine holds its turn: the next job of its step comes within that */

typedef struct worker {
    struct pool *pool;
    pthread_t    handle;
    int          number;
} worker;

struct pool {
    int     threads;
    worker *workers; /* threads - 1 of them */

    _Atomic(pool_fn) fn;
    _Atomic(void *)  arg;
    atomic_int       count, grain;

    _Alignas(64) _Atomic uint64_t claim;
    _Alignas(64) _Atomic uint32_t done; /* items finished; the caller sleeps on it */
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t signal; /* changes when there may be work; workers sleep on it */
    _Atomic uint32_t sleepers;
    atomic_bool      stopping;

    _Alignas(64) _Atomic uint32_t next_turn; /* tickets handed out */
    _Atomic uint32_t serving;                /* the ticket whose turn it is; those who wait sleep on it */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
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

/* Chunks begin large and shrink to the grain, so that claims are few and the threads still end together. */
static int chunk_size(int left, int grain, int threads) {
    int size = left / (4 * threads);
    if (size < grain)
        size = grain;
    return size < left ? size : left;
}

/* Claims and runs chunks until none is left. */
static void work(pool *p, int thread) {
    uint64_t claim = atomic_load_explicit(&p->claim, memory_order_acquire);
    for (;;) {
        int     count = atomic_load_explicit(&p->count, memory_order_acquire);
        int     grain = atomic_load_explicit(&p->grain, memory_order_acquire);
        pool_fn fn = atomic_load_explicit(&p->fn, memory_order_acquire);
        void   *arg = atomic_load_explicit(&p->arg, memory_order_acquire);
        if ((uint32_t)claim >= (uint32_t)count)
            return;
        int begin = (int)(uint32_t)claim;
        int size = chunk_size(count - begin, grain, p->threads);
        if (!atomic_compare_exchange_weak_explicit(&p->claim, &claim, claim + (uint64_t)size, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        fn(arg, begin, begin + size, thread);
        uint32_t done = atomic_fetch_add(&p->done, (uint32_t)size) + (uint32_t)size;
        if (done == (uint32_t)count) {
            if (atomic_load(&p->caller_sleeps))
                futex_wake(&p->done, 1);
            return;
        }
        claim = atomic_load_explicit(&p->claim, memory_order_acquire);
    }
}

static bool turn_is_held(pool *p) {
    return atomic_load_explicit(&p->next_turn, memory_order_relaxed) !=
           atomic_load_explicit(&p->serving, memory_order_relaxed);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    pool   *p = w->pool;
    while (!atomic_load(&p->stopping)) {
        uint32_t seen = atomic_load(&p->signal);
        work(p, w->number);
        if (spin_while(&p->signal, seen, turn_is_held(p) ? SPIN_STEP_NS : SPIN_IDLE_NS))
            continue;
        atomic_fetch_add(&p->sleepers, 1);
        while (atomic_load(&p->signal) == seen)
            futex_wait(&p->signal, seen);
        atomic_fetch_sub(&p->sleepers, 1);
    }
    return NULL;
}

/* Each store releases and each load in work() acquires: who sees a new field also sees that the old claim is closed. */
static void publish(pool *p, int count, int grain, pool_fn fn, void *arg) {
    uint64_t generation = (atomic_load_explicit(&p->claim, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&p->claim, generation << 32 | CLOSED, memory_order_release);
    atomic_store_explicit(&p->fn, fn, memory_order_release);
    atomic_store_explicit(&p->arg, arg, memory_order_release);
    atomic_store_explicit(&p->count, count, memory_order_release);
    atomic_store_explicit(&p->grain, grain, memory_order_release);
    atomic_store_explicit(&p->done, 0, memory_order_release);
    atomic_store_explicit(&p->claim, (generation + 1) << 32, memory_order_release);
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
            futex_wait(&p->done, done);
        atomic_store(&p->caller_sleeps, 0);
    }
}

void pool_take(pool *p) {
    uint32_t mine = atomic_fetch_add(&p->next_turn, 1);
    uint32_t serving;
    while ((serving = atomic_load(&p->serving)) != mine)
        if (!spin_while(&p->serving, serving, SPIN_IDLE_NS))
            futex_wait(&p->serving, serving);
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

static int start_worker(pool *p, int number) {
    worker *w = &p->workers[number - 1];
    w->pool = p;
    w->number = number;
    sigset_t all, before; /* signals belong to the threads that expect them */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->handle, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
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
    if (!p->workers) {
        pool_free(p);
        err_set(e, ERR_MEMORY, "out of memory for %d compute threads", threads);
        return NULL;
    }
    for (int i = 1; i < threads; i++) {
        int rc = start_worker(p, i);
        if (rc) {
            pool_free(p);
            err_set(e, ERR_IO, "cannot start compute thread %d of %d: %s", i + 1, threads, strerror(rc));
            return NULL;
        }
        p->threads = i + 1;
    }
    return p;
}

void pool_free(pool *p) {
    if (!p)
        return;
    atomic_store(&p->stopping, true);
    atomic_fetch_add(&p->signal, 1);
    futex_wake(&p->signal, INT_MAX);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->workers[i - 1].handle, NULL);
    free(p->workers);
    free(p);
}

int pool_threads(const pool *p) {
    return p->threads;
}
