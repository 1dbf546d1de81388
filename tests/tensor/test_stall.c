/* test_stall.c - a thread that holds a chunk and does not run is brought to who waits for it, and goes back. */
#include "tensor/stall.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

static struct {
    stand      stands[2]; /* ours and the thread's */
    sem_t      began, go;
    atomic_int spin; /* instead of sleeping in the chunk */
    bool       holds;
    cpu_set_t  inside, after;
} shared;

static void *one_chunk(void *arg) {
    (void)arg;
    stand_take(&shared.stands[1]);
    if (shared.holds)
        stand_begin(&shared.stands[1]);
    sem_post(&shared.began);
    while (atomic_load(&shared.spin)) {
    }
    sem_wait(&shared.go); /* asleep: as if its core had been taken */
    sched_getaffinity(0, sizeof shared.inside, &shared.inside);
    if (shared.holds)
        stand_end(&shared.stands[1], true);
    sched_getaffinity(0, sizeof shared.after, &shared.after);
    return NULL;
}

static pthread_t start(bool holds, bool spin) {
    pthread_t t;
    memset(shared.stands, 0, sizeof shared.stands);
    sem_init(&shared.began, 0, 0);
    sem_init(&shared.go, 0, 0);
    atomic_store(&shared.spin, spin);
    shared.holds = holds;
    assert_int_equal(pthread_create(&t, NULL, one_chunk, NULL), 0);
    sem_wait(&shared.began);
    usleep(5000); /* it falls asleep, or has a core of its own */
    return t;
}

static void who_sleeps_is_moved_and_goes_back(void **state) {
    (void)state;
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    if (sched_setaffinity(0, sizeof all, &all))
        skip(); /* not allowed here */
    pthread_t t = start(true, false);
    assert_true(stall_rescue(shared.stands, 2, 0));
    assert_false(stall_rescue(shared.stands, 2, 0)); /* once is enough */
    sem_post(&shared.go);
    pthread_join(t, NULL);
    assert_int_equal(CPU_COUNT(&shared.inside), 1);
    assert_true(CPU_EQUAL(&shared.after, &all));
    assert_int_equal(atomic_load(&shared.stands[1].state), STAND_IDLE);
}

static int64_t nanoseconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void who_runs_or_holds_nothing_stays(void **state) {
    (void)state;
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    pthread_t t = start(false, false);
    assert_false(stall_rescue(shared.stands, 2, 0));
    assert_false(stall_rescue(shared.stands, 2, 1)); /* nor oneself */
    sem_post(&shared.go);
    pthread_join(t, NULL);
    assert_true(CPU_EQUAL(&shared.inside, &all) && CPU_EQUAL(&shared.after, &all));
    if (CPU_COUNT(&all) < 2)
        return; /* then nobody runs beside us */
    int wrong = 0;
    for (int i = 0; i < 50; i++) { /* where others have work to do, it may lose its core: then its clock stands still */
        t = start(true, true);
        clockid_t clock = atomic_load(&shared.stands[1].clock);
        int64_t   before = nanoseconds(clock);
        bool      moved = stall_rescue(shared.stands, 2, 0);
        int64_t   ran = nanoseconds(clock) - before;
        atomic_store(&shared.spin, 0);
        sem_post(&shared.go);
        pthread_join(t, NULL);
        wrong += moved && ran > 7000;
    }
    assert_true(wrong < 25); /* or we lost our core between two lines of this */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_sleeps_is_moved_and_goes_back),
        cmocka_unit_test(who_runs_or_holds_nothing_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
