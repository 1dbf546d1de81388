#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tensor/pool.h"

#define MOST 5000

typedef struct tally {
    unsigned char seen[MOST]; /* plain memory: ThreadSanitizer sees whether pool_run orders the threads */
    int           threads, grain, count;
    atomic_int    bad;
} tally;

static void count_items(void *arg, int begin, int end, int thread) {
    tally *t = arg;
    if (thread < 0 || thread >= t->threads || begin < 0 || end > t->count || begin >= end)
        atomic_fetch_add(&t->bad, 1);
    if (end - begin < t->grain && end != t->count)
        atomic_fetch_add(&t->bad, 1);
    for (int i = begin; i < end; i++)
        t->seen[i]++;
}

static void run_many(int threads, int rounds) {
    err   e = {0};
    pool *p = pool_new(threads, &e);
    assert_ok(p, e);
    assert_int_equal(pool_threads(p), threads);
    static tally t;
    uint64_t     seed = (uint64_t)threads;
    for (int round = 0; round < rounds; round++) {
        int count = (int)(test_random(&seed) % (round % 16 ? 40 : MOST));
        int grain = (int)(test_random(&seed) % 4);
        memset(t.seen, 0, sizeof t.seen);
        t.threads = threads;
        t.count = count;
        t.grain = grain;
        pool_run(p, count, grain, count_items, &t);
        assert_int_equal(atomic_load(&t.bad), 0);
        for (int i = 0; i < MOST; i++)
            if (t.seen[i] != (i < count))
                fail_msg("%d threads, round %d: item %d of %d ran %d times", threads, round, i, count, t.seen[i]);
        if (round % 500 == 0) { /* let the workers fall asleep, so that waking is tested too */
            struct timespec nap = {0, 300000};
            nanosleep(&nap, NULL);
        }
    }
    pool_free(p);
}

static void every_item_runs_once(void **state) {
    (void)state;
    run_many(1, 2000);
    run_many(2, 10000);
    run_many(3, 5000);
    run_many(8, 2000);
}

static void pools_start_and_end(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++)
        pool_free(pool_new(1 + i % 5, NULL));
    pool *p = pool_new(0, NULL);
    assert_non_null(p);
    assert_true(pool_threads(p) >= 1);
    pool_free(p);
    pool_free(NULL);
    err e = {0};
    assert_null(pool_new(1 << 20, &e));
    assert_says(e, "compute threads");
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void idle_threads_sleep(void **state) {
    (void)state;
    pool        *p = pool_new(4, NULL);
    static tally t;
    t.threads = 4;
    t.count = 1000;
    pool_run(p, t.count, 1, count_items, &t);
    struct timespec nap = {0, 300000000};
    double          before = seconds(CLOCK_PROCESS_CPUTIME_ID);
    nanosleep(&nap, NULL);
    double burnt = seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
    pool_free(p);
    if (burnt > 0.03)
        fail_msg("%.0f ms of processor time in 300 ms of nothing", burnt * 1e3);
}

static struct {
    pool      *p;
    int       *order, *next;
    atomic_int inside, overlaps;
} shared_turns;

typedef struct caller {
    pthread_t handle;
    int       number;
} caller;

static void *take_a_turn(void *arg) {
    caller *c = arg;
    pool_take(shared_turns.p);
    if (atomic_fetch_add(&shared_turns.inside, 1))
        atomic_fetch_add(&shared_turns.overlaps, 1);
    shared_turns.order[(*shared_turns.next)++] = c->number;
    atomic_fetch_sub(&shared_turns.inside, 1);
    pool_give(shared_turns.p);
    return NULL;
}

static void turns_are_first_come_first_served(void **state) {
    (void)state;
    enum { CALLERS = 8 };
    caller callers[CALLERS];
    int    order[CALLERS] = {0}, next = 0;
    shared_turns.p = pool_new(1, NULL);
    shared_turns.order = order;
    shared_turns.next = &next;
    pool_take(shared_turns.p);
    for (int i = 0; i < CALLERS; i++) {
        callers[i].number = i;
        pthread_create(&callers[i].handle, NULL, take_a_turn, &callers[i]);
        struct timespec nap = {0, 30000000}; /* each is in the queue before the next comes */
        nanosleep(&nap, NULL);
    }
    pool_give(shared_turns.p);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i].handle, NULL);
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(order[i], i);
    pool_free(shared_turns.p);
}

static void *take_many_turns(void *arg) {
    int *plain = arg;
    for (int i = 0; i < 2000; i++) {
        pool_take(shared_turns.p);
        ++*plain; /* lost updates or a race would show */
        pool_give(shared_turns.p);
    }
    return NULL;
}

static void turns_exclude_each_other(void **state) {
    (void)state;
    pthread_t handles[4];
    int       plain = 0;
    shared_turns.p = pool_new(2, NULL);
    for (int i = 0; i < 4; i++)
        pthread_create(&handles[i], NULL, take_many_turns, &plain);
    for (int i = 0; i < 4; i++)
        pthread_join(handles[i], NULL);
    assert_int_equal(plain, 8000);
    assert_int_equal(atomic_load(&shared_turns.overlaps), 0);
    pool_free(shared_turns.p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),     cmocka_unit_test(pools_start_and_end),
        cmocka_unit_test(idle_threads_sleep),       cmocka_unit_test(turns_are_first_come_first_served),
        cmocka_unit_test(turns_exclude_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
