/* The circuit's states one by one, and the estimates of latency, without any backend. */
#include "check.h"

#include <math.h>
#include <pthread.h>

#include "backend/circuit.h"
#include "backend/latency.h"

static const circuit_limits limits = {.failures = 3, .open_us = 1000000};

#define SECOND 1000000LL
#define BEGIN  (1000 * SECOND)

static void fail_times(circuit *c, int n, int64_t now) {
    for (int i = 0; i < n; i++) {
        circuit_entry how = circuit_enter(c, now);
        assert_int_equal(how, CIRCUIT_NORMAL);
        assert_int_equal(circuit_ill(c, &limits, how, now), i == limits.failures - 1);
    }
}

static void test_opens_in_a_row_only(void **state) {
    (void)state;
    circuit c = {0};
    fail_times(&c, 2, BEGIN);
    circuit_well(&c, CIRCUIT_NORMAL);
    fail_times(&c, 2, BEGIN);
    assert_int_equal(circuit_now(&c), CIRCUIT_CLOSED);
    assert_true(circuit_ill(&c, &limits, CIRCUIT_NORMAL, BEGIN));
    assert_int_equal(circuit_now(&c), CIRCUIT_OPEN);
    assert_int_equal(circuit_enter(&c, BEGIN + SECOND - 2000), CIRCUIT_REFUSED);
    assert_int_equal(circuit_wait(&c, &limits, BEGIN), SECOND);
}

static void test_one_probe(void **state) {
    (void)state;
    circuit c = {0};
    int64_t now = BEGIN;
    fail_times(&c, 3, now);
    for (int64_t open = SECOND; open < 300 * SECOND; open *= 2) { /* each probe that fails doubles the time */
        assert_int_equal(circuit_enter(&c, now + open - 2000), CIRCUIT_REFUSED);
        now += open;
        assert_int_equal(circuit_enter(&c, now), CIRCUIT_PROBE);
        assert_int_equal(circuit_enter(&c, now), CIRCUIT_REFUSED);
        assert_false(circuit_ill(&c, &limits, CIRCUIT_NORMAL, now)); /* a call from before it opened */
        circuit_well(&c, CIRCUIT_NORMAL);
        assert_int_equal(circuit_now(&c), CIRCUIT_PROBING);
        assert_true(circuit_ill(&c, &limits, CIRCUIT_PROBE, now));
    }
    assert_int_equal(circuit_wait(&c, &limits, now), 300 * SECOND); /* and no further */
    now += 300 * SECOND;
    assert_int_equal(circuit_enter(&c, now), CIRCUIT_PROBE);
    circuit_leave(&c, CIRCUIT_PROBE, now); /* learned nothing: the next one may */
    assert_int_equal(circuit_enter(&c, now), CIRCUIT_PROBE);
    circuit_well(&c, CIRCUIT_PROBE);
    assert_int_equal(circuit_now(&c), CIRCUIT_CLOSED);
    fail_times(&c, 3, now);
    assert_int_equal(circuit_wait(&c, &limits, now), SECOND); /* the doubling is forgotten */
}

static void test_busy(void **state) {
    (void)state;
    circuit c = {0};
    circuit_busy(&c, BEGIN + 2 * SECOND);
    circuit_busy(&c, BEGIN + SECOND);
    assert_int_equal(circuit_busy_for(&c, BEGIN), 2 * SECOND);
    assert_int_equal(circuit_busy_for(&c, BEGIN + 3 * SECOND), 0);
    assert_int_equal(circuit_enter(&c, BEGIN), CIRCUIT_NORMAL); /* no failure */
}

typedef struct crowd {
    circuit    *c;
    atomic_int *probes;
} crowd;

static void *press(void *arg) {
    crowd *w = arg;
    for (int i = 0; i < 20000; i++) {
        circuit_entry how = circuit_enter(w->c, BEGIN + 10 * SECOND);
        if (how == CIRCUIT_PROBE) {
            assert_int_equal(atomic_fetch_add(w->probes, 1), 0);
            atomic_fetch_sub(w->probes, 1);
            if (i % 2) {
                circuit_leave(w->c, how, BEGIN);
            } else {
                circuit_ill(w->c, &limits, how, BEGIN - 1000 * SECOND);
            }
        }
    }
    return NULL;
}

static void test_one_probe_of_many_threads(void **state) {
    (void)state;
    circuit    c = {0};
    atomic_int probes = 0;
    crowd      w = {.c = &c, .probes = &probes};
    pthread_t  t[4];
    fail_times(&c, 3, BEGIN);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, press, &w), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
    }
    assert_int_equal(circuit_now(&c), CIRCUIT_OPEN);
}

static void test_latency(void **state) {
    (void)state;
    latency l = {0};
    assert_true(latency_now(&l, BEGIN) == 0);
    assert_true(latency_cost(&l, 0, BEGIN) == 0 && latency_cost(&l, 1, BEGIN) > 1e11);
    latency_note(&l, 1000, BEGIN);
    assert_true(fabs(latency_now(&l, BEGIN) - 1000) < 1);
    assert_true(fabs(latency_cost(&l, 2, BEGIN) - 3000) < 1);
    latency_note(&l, 50000, BEGIN); /* a peak counts in full */
    assert_true(fabs(latency_now(&l, BEGIN) - 50000) < 1);
    latency_note(&l, 1000, BEGIN + 10 * SECOND);
    double expected = 50000 * exp(-1) + 1000 * (1 - exp(-1));
    assert_true(fabs(latency_now(&l, BEGIN + 10 * SECOND) - expected) < expected / 1000);
    assert_true(latency_now(&l, BEGIN + 100 * SECOND) < 10);
}

static void test_p95(void **state) {
    (void)state;
    static latency_spread s;
    uint64_t              seed = 7;
    for (int i = 0; i < 19; i++) {
        latency_spread_note(&s, 1000);
        assert_int_equal(latency_p95(&s), 0);
    }
    for (int scale = 1; scale <= 1000; scale *= 10) { /* what is long ago is outvoted */
        for (int i = 0; i < 30000; i++) {
            latency_spread_note(&s, (int64_t)(test_random(&seed) % 100000) * scale + 1);
        }
        double exact = 95000.0 * scale, found = (double)latency_p95(&s);
        assert_true(found > exact * 0.97 && found < exact * 1.13 + 1);
    }
    latency_spread_note(&s, 0);
    latency_spread_note(&s, INT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_in_a_row_only),       cmocka_unit_test(test_one_probe), cmocka_unit_test(test_busy),
        cmocka_unit_test(test_one_probe_of_many_threads), cmocka_unit_test(test_latency),   cmocka_unit_test(test_p95),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
