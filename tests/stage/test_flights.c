/* Flights between two loops on two threads: leaders land, leave or are abandoned while followers come and go, in an order
 * that a seed decides and the threads shuffle. Every exchange ends once, every reference is given back.               */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "stage/flights.h"

#define LOOPS 2
#define KEYS  5

typedef struct bed {
    flights   *all;
    loop      *loops[LOOPS];
    pthread_t  threads[LOOPS];
    atomic_int open, led, followed, shared, unshared, left, late, abandoned, wrong;
} bed;

/* What recall does with an exchange, without the rest of the house. */
typedef struct traveller {
    loop_task task; /* its next step */
    bed      *of;
    loop     *home;
    uint64_t  random;
    sha256    key;
    follower  follows;
    flight   *leads;
    int       steps;    /* until a leader lands */
    bool      detached; /* a leader without its client */
    bool      dying;    /* a leader that stops its work */
    bool      gone;     /* a follower whose client has left, while its answer is on the way */
} traveller;

static void end(traveller *t) {
    atomic_fetch_sub(&t->of->open, 1);
    free(t);
}

static void landed(void *ctx, const cached *result) {
    traveller *t = ctx;
    atomic_fetch_add(result ? &t->of->shared : &t->of->unshared, 1);
    if (result) {
        atomic_fetch_add(&t->of->wrong, memcmp(result->key.bytes, t->key.bytes, sizeof t->key.bytes) != 0);
        cached_release(result);
    }
    if (t->steps) {
        t->gone = true; /* its next step is in the mailbox and ends it */
    } else {
        end(t);
    }
}

static void abandoned(void *ctx) { /* as recall: the last follower has left, but a new one may have come */
    traveller *t = ctx;
    atomic_fetch_add(&t->of->abandoned, 1);
    t->detached = false;
    if (!flight_keep(t->of->all, t->leads)) {
        t->dying = true;
        t->steps = 1;
    } else {
        t->detached = true;
    }
}

static void land(traveller *t) {
    cached *made = NULL;
    if (!t->dying && test_random(&t->random) % 4 != 0) {
        made = cached_new(1);
        made->key = t->key;
    }
    flight_land(t->of->all, t->leads, made);
    if (made) {
        cached_release(made);
    }
    end(t);
}

static void step(loop_task *task);

static void again(traveller *t) {
    t->task.run = step;
    loop_post(t->home, &t->task);
}

static void lead(traveller *t) {
    if (--t->steps <= 0) {
        land(t);
        return;
    }
    if (!t->detached && !t->dying && test_random(&t->random) % 8 == 0) { /* its client leaves */
        if (flight_keep(t->of->all, t->leads)) {
            t->detached = true;
        } else {
            t->dying = true;
        }
    }
    again(t);
}

static void follow(traveller *t) {
    if (t->gone) { /* landed while this step was in the mailbox */
        end(t);
        return;
    }
    if (test_random(&t->random) % 3 == 0) {
        t->steps = 0;
        if (flight_leave(t->of->all, &t->follows)) {
            atomic_fetch_add(&t->of->left, 1);
            end(t);
        } else {
            atomic_fetch_add(&t->of->late, 1); /* `landed` is on its way and ends it */
        }
        return;
    }
    again(t);
}

static void step(loop_task *task) {
    traveller *t = (traveller *)task;
    if (t->leads) {
        lead(t);
    } else {
        follow(t);
    }
}

static void arrive(loop_task *task) {
    traveller *t = (traveller *)task;
    bool       out_of_memory;
    t->follows = (follower){.home = t->home, .ctx = t, .landed = landed};
    t->steps = 1 + (int)(test_random(&t->random) % 12);
    t->leads = flight_join(t->of->all, &t->key, &t->follows, t->home, abandoned, t, &out_of_memory);
    atomic_fetch_add(&t->of->wrong, out_of_memory);
    atomic_fetch_add(t->leads ? &t->of->led : &t->of->followed, 1);
    again(t);
}

static void *run(void *arg) {
    err e = {0};
    loop_run(arg, &e);
    return NULL;
}

static void open_bed(bed *b) {
    err e = {0};
    *b = (bed){.all = flights_new()};
    assert_non_null(b->all);
    for (int i = 0; i < LOOPS; i++) {
        b->loops[i] = loop_new(i, &e);
        assert_ok(b->loops[i], e);
        assert_int_equal(pthread_create(&b->threads[i], NULL, run, b->loops[i]), 0);
    }
}

static void close_bed(bed *b) {
    for (int i = 0; i < LOOPS; i++) {
        loop_stop(b->loops[i]);
        pthread_join(b->threads[i], NULL);
    }
    for (int i = 0; i < LOOPS; i++) {
        loop_free(b->loops[i]);
    }
    flights_free(b->all);
}

static void test_random_travellers(void **state) {
    (void)state;
    enum { COUNT = 40000, AT_ONCE = 64 };
    bed      b;
    uint64_t seed = 20240607;
    open_bed(&b);
    for (int i = 0; i < COUNT; i++) {
        while (atomic_load(&b.open) >= AT_ONCE) {
            sched_yield();
        }
        traveller *t = calloc(1, sizeof *t);
        t->of = &b;
        t->home = b.loops[test_random(&seed) % LOOPS];
        t->random = test_random(&seed);
        t->key.bytes[0] = (uint8_t)(test_random(&seed) % KEYS);
        t->task.run = arrive;
        atomic_fetch_add(&b.open, 1);
        loop_post(t->home, &t->task);
    }
    for (int waited = 0; atomic_load(&b.open) > 0 && waited < 10000; waited++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(atomic_load(&b.open), 0);
    assert_true(flights_landed(b.all) == (uint64_t)b.led);
    close_bed(&b);
    assert_int_equal(b.wrong, 0);
    assert_int_equal(b.led + b.followed, COUNT);
    assert_int_equal(b.followed, b.shared + b.unshared + b.left);
    /* Every branch was taken. */
    assert_true(b.led > 100 && b.followed > 100 && b.shared > 100 && b.unshared > 100 && b.left > 100);
    assert_true(b.abandoned > 10 && b.late >= 0);
}

/* ---- on one thread, in a known order ---- */

static int calls, results;

static void count_landed(void *ctx, const cached *result) {
    (void)ctx;
    calls++;
    results += result != NULL;
    if (result) {
        cached_release(result);
    }
}

static void count_abandoned(void *ctx) {
    ++*(int *)ctx;
}

typedef struct stopper {
    loop_task task;
    loop     *l;
} stopper;

static void run_stopper(loop_task *t) {
    loop_stop(((stopper *)t)->l);
}

static void settle(loop *l) {
    stopper s = {.task.run = run_stopper, .l = l};
    err     e = {0};
    loop_post(l, &s.task);
    assert_true(loop_run(l, &e));
}

static void test_in_order(void **state) {
    (void)state;
    err      e = {0};
    flights *all = flights_new();
    loop    *l = loop_new(0, &e);
    sha256   key = {.bytes = {1}}, other = {.bytes = {2}};
    follower f[4];
    int      alone = 0;
    bool     oom;
    calls = results = 0;
    for (int i = 0; i < 4; i++) {
        f[i] = (follower){.home = l, .landed = count_landed};
    }
    flight *a = flight_join(all, &key, &f[0], l, count_abandoned, &alone, &oom);
    flight *b = flight_join(all, &other, &f[1], l, count_abandoned, &alone, &oom);
    assert_non_null(a);
    assert_non_null(b); /* another key: another leader */
    assert_false(flight_keep(all, b));
    assert_null(flight_join(all, &key, &f[2], l, count_abandoned, &alone, &oom));
    assert_null(flight_join(all, &key, &f[3], l, count_abandoned, &alone, &oom));
    assert_true(flight_leave(all, &f[2]));
    assert_true(flight_keep(all, a));      /* the leader's client goes; one still waits */
    assert_true(flight_leave(all, &f[3])); /* and now nobody does */
    settle(l);
    assert_int_equal(alone, 1);
    assert_null(flight_join(all, &key, &f[2], l, count_abandoned, &alone, &oom)); /* it has not landed yet */
    uint64_t before = flights_landed(all);
    cached  *made = cached_new(3);
    flight_land(all, a, made);
    assert_false(flight_leave(all, &f[2])); /* too late: it comes */
    cached_release(made);
    settle(l);
    assert_int_equal(calls, 1);
    assert_int_equal(results, 1);
    flight_land(all, b, NULL);
    assert_int_equal(flights_landed(all), before + 2);
    flight *c = flight_join(all, &key, &f[0], l, count_abandoned, &alone, &oom);
    assert_non_null(c); /* the key is free again */
    flight_land(all, c, NULL);
    loop_free(l);
    flights_free(all);
}

/* The last follower leaves and the leader lands before it hears of it: the flight is freed once, nobody is called. */
static void test_land_before_abandoned(void **state) {
    (void)state;
    err      e = {0};
    flights *all = flights_new();
    loop    *l = loop_new(0, &e);
    sha256   key = {.bytes = {1}};
    follower f[2] = {{.home = l, .landed = count_landed}, {.home = l, .landed = count_landed}};
    int      alone = 0;
    bool     oom;
    flight  *a = flight_join(all, &key, &f[0], l, count_abandoned, &alone, &oom);
    assert_null(flight_join(all, &key, &f[1], l, count_abandoned, &alone, &oom));
    assert_true(flight_keep(all, a));
    assert_true(flight_leave(all, &f[1]));
    flight_land(all, a, NULL);
    settle(l);
    assert_int_equal(alone, 0);
    loop_free(l);
    flights_free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_order), cmocka_unit_test(test_land_before_abandoned),
                                       cmocka_unit_test(test_random_travellers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
