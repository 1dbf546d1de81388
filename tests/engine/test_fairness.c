/* The waiting line and its counters; the pace of a step. Both alone, without a model. */
#include "check.h"

#include "engine/fairness.h"
#include "engine/pace.h"

#define JOBS 400

static fair_line *open_line(int clients) {
    err        e = {0};
    fair_line *l = fair_new(clients, &e);
    assert_ok(l, e);
    return l;
}

/* Serves the next job to its end: it has `tokens`. Returns its ticket. */
static fair_ticket *serve(fair_line *l, int64_t tokens) {
    fair_ticket *t = fair_next(l);
    assert_non_null(t);
    fair_take(l, t);
    fair_charge(l, t, tokens);
    fair_leave(l, t);
    return t;
}

static void first_come_within_a_client(void **state) {
    (void)state;
    fair_line  *l = open_line(8);
    fair_ticket t[5];
    assert_null(fair_next(l));
    for (int i = 0; i < 5; i++) {
        fair_join(l, &t[i], 7, 0);
    }
    for (int i = 0; i < 5; i++) {
        assert_ptr_equal(serve(l, 10), &t[i]);
    }
    assert_null(fair_next(l));
    assert_int_equal(fair_clients(l), 0);
    fair_free(l);
}

static void priority_goes_before_all(void **state) {
    (void)state;
    fair_line  *l = open_line(8);
    fair_ticket t[6];
    const int   priority[6] = {0, 5, 0, -3, 5, 0}, order[6] = {3, 0, 2, 5, 1, 4};
    for (int i = 0; i < 6; i++) {
        fair_join(l, &t[i], 7, priority[i]);
    }
    for (int i = 0; i < 6; i++) {
        assert_ptr_equal(serve(l, 1), &t[order[i]]);
    }
    fair_join(l, &t[0], 1, 1);
    fair_join(l, &t[1], 2, 0);
    fair_charge(l, &t[1], 1000000);
    assert_ptr_equal(serve(l, 1), &t[1]); /* whatever it had */
    assert_ptr_equal(serve(l, 1), &t[0]);
    fair_free(l);
}

/* A hundred requests of one client do not keep another's single one waiting, and tokens are shared, not turns. */
static void tokens_are_shared(void **state) {
    (void)state;
    fair_line         *l = open_line(8);
    static fair_ticket many[JOBS], few[JOBS];
    for (int i = 0; i < 100; i++) {
        fair_join(l, &many[i], 1, 0);
    }
    assert_ptr_equal(serve(l, 50), &many[0]);
    fair_join(l, &few[0], 2, 0);
    assert_ptr_equal(serve(l, 50), &many[1]); /* both had 50: first come */
    assert_ptr_equal(serve(l, 50), &few[0]);
    while (fair_next(l)) {
        serve(l, 50);
    }

    int64_t had[2] = {0, 0};
    for (int i = 0; i < JOBS; i++) {
        fair_join(l, &many[i], 1, 0);
        fair_join(l, &few[i], 2, 0);
    }
    for (int i = 0; i < 200; i++) { /* client 2 asks for ten times as much with each request */
        const fair_ticket *t = fair_next(l);
        bool               large = t >= few && t < few + JOBS;
        serve(l, large ? 1000 : 100);
        had[large] += large ? 1000 : 100;
        assert_true(llabs(had[0] - had[1]) <= 1000);
    }
    while (fair_next(l)) {
        serve(l, 1);
    }
    fair_free(l);
}

static void nobody_saves_up_turns(void **state) {
    (void)state;
    fair_line  *l = open_line(8);
    fair_ticket a[4], b[4];
    fair_join(l, &a[0], 1, 0);
    serve(l, 10); /* client 1 had 10 and goes */
    for (int i = 0; i < 4; i++) {
        fair_join(l, &b[i], 2, 0);
        assert_int_equal(fair_had(l, &b[i]), 10 + i * 5000); /* nobody was there: as much as the last who left */
        serve(l, 5000);
    }
    fair_join(l, &b[0], 2, 0);
    fair_join(l, &a[0], 1, 0);
    assert_int_equal(fair_had(l, &a[0]), 20010); /* lifted to client 2's */
    fair_join(l, &a[1], 1, 0);
    assert_int_equal(fair_had(l, &a[1]), 20010);
    assert_ptr_equal(serve(l, 5000), &b[0]);
    assert_ptr_equal(serve(l, 5000), &a[0]);
    assert_ptr_equal(serve(l, 5000), &a[1]);
    fair_free(l);
}

static bool odd(const fair_ticket *t) {
    return t->number % 2 == 1;
}

static void some_leave_the_line(void **state) {
    (void)state;
    fair_line  *l = open_line(4);
    fair_ticket t[9];
    for (int i = 0; i < 9; i++) {
        fair_join(l, &t[i], (uint64_t)(i / 3), 0);
    }
    int gone = 0;
    for (const fair_ticket *g = fair_pick(l, odd); g; g = g->next) {
        assert_true(odd(g));
        gone++;
    }
    assert_int_equal(gone, 4);
    const int order[5] = {0, 4, 6, 2, 8}; /* one of each client, then the second of those who had two */
    for (int i = 0; i < 5; i++) {
        assert_ptr_equal(serve(l, 10), &t[order[i]]);
    }
    assert_int_equal(fair_clients(l), 0);
    fair_free(l);
}

/* Thousands of clients pass through a table of eight; as many as it holds are told apart, the others share. */
static void the_table_is_bounded(void **state) {
    (void)state;
    fair_line         *l = open_line(8);
    static fair_ticket t[JOBS];
    uint64_t           random = 5;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < JOBS; i++) {
            fair_join(l, &t[i], test_random(&random), (int)(test_random(&random) % 3));
            if (i % 3 == 0) {
                fair_charge(l, &t[i], (int64_t)(test_random(&random) % 100));
            }
        }
        assert_true(fair_clients(l) <= 8);
        int before = -1;
        for (int i = 0; i < JOBS; i++) {
            const fair_ticket *next = serve(l, (int64_t)(test_random(&random) % 50));
            assert_true(next->priority >= before);
            before = next->priority;
        }
        assert_null(fair_next(l));
        assert_int_equal(fair_clients(l), 0);
    }
    /* A client with a history is forgotten for a new one only when there is no other place. */
    fair_ticket kept, other;
    fair_join(l, &kept, 1, 0);
    fair_join(l, &other, 2, 0);
    fair_charge(l, &kept, 1000000);
    fair_take(l, fair_next(l) == &other ? &other : &kept);
    fair_leave(l, &other);
    serve(l, 0);
    fair_join(l, &kept, 1, 0);
    assert_true(fair_had(l, &kept) >= 1000000);
    fair_free(l);
}

/* ---- pace ---- */

typedef struct machine { /* a step of n and p lasts base + n each + p token, times up to 1 + noise */
    double   base, each, token, noise;
    uint64_t random;
} machine;

static int64_t step_of(machine *m, int n, int p) {
    double noise = m->noise * (double)(test_random(&m->random) % 1000) / 1000;
    return (int64_t)((m->base + n * m->each + p * m->token) * (1 + noise));
}

typedef struct run {
    int     steps;
    int64_t longest, late; /* late: steps above the limit */
    double  mean_chunk;
} run;

static run prefill(pace *p, machine *m, int n, int tokens, int64_t limit, int outlier_at) {
    run r = {0};
    int left = tokens, mixed = 0;
    while (left > 0) {
        int chunk = pace_prefill(p, n, 1, left < 248 ? left : 248);
        assert_true(chunk >= 0 && chunk <= left);
        int64_t us = step_of(m, n, chunk);
        r.steps++;
        mixed += chunk > 0;
        r.longest = us > r.longest ? us : r.longest;
        r.late += us > limit;
        pace_note(p, n, chunk, r.steps == outlier_at ? us * 50 : us);
        left -= chunk;
        assert_true(r.steps <= tokens + tokens / 4 + 2); /* it gets on */
    }
    r.mean_chunk = (double)tokens / (mixed ? mixed : 1);
    return r;
}

static pace *open_pace(int64_t step_us) {
    err   e = {0};
    pace *p = pace_new(64, step_us, &e);
    assert_ok(p, e);
    return p;
}

static void a_long_prompt_joins_streams(void **state) {
    (void)state;
    machine m = {.base = 40000, .each = 500, .token = 900, .noise = 0.05, .random = 1};
    pace   *p = open_pace(0);
    assert_int_equal(pace_prefill(p, 0, 1, 256), 256); /* nobody is kept waiting */
    for (int i = 0; i < 30; i++) {
        pace_note(p, 8, 0, step_of(&m, 8, 0));
    }
    run r = prefill(p, &m, 8, 4000, 2 * 44000, 0);
    print_message("8 streams, 44 ms a step: %d steps for 4000 tokens, mean chunk %.1f, longest %.1f ms\n", r.steps,
                  r.mean_chunk, (double)r.longest / 1000);
    assert_int_equal(r.late, 0);
    assert_true(r.mean_chunk > 30); /* (1.8 - 1) 44 / 0.9 is 39: the time is used, too */
    assert_true(pace_token_us(p) > 900);
    pace_free(p);
}

/* Nothing is known: the streams begin with the prompt there, and the first steps are slow. */
static void a_cold_start(void **state) {
    (void)state;
    machine cold = {.base = 400000, .each = 5000, .token = 9000, .noise = 0.05, .random = 2};
    machine m = {.base = 40000, .each = 500, .token = 900, .noise = 0.05, .random = 2};
    pace   *p = open_pace(0);
    assert_int_equal(pace_prefill(p, 1, 1, 256), 0); /* the first step measures */
    pace_note(p, 1, 0, step_of(&cold, 1, 0));
    int chunk = pace_prefill(p, 1, 1, 256);
    assert_in_range(chunk, PACE_LEAST, 16); /* whatever the cold step promised */
    pace_note(p, 1, chunk, step_of(&cold, 1, chunk));
    run r = prefill(p, &m, 8, 4000, 2 * 44000, 0);
    assert_true(r.late <= 8); /* until the cold measurements are replaced */
    r = prefill(p, &m, 8, 4000, 2 * 44000, 0);
    assert_int_equal(r.late, 0);
    assert_true(r.mean_chunk > 25);
    pace_free(p);
}

static void one_outlier_changes_little(void **state) {
    (void)state;
    machine m = {.base = 40000, .each = 500, .token = 900, .noise = 0.05, .random = 3};
    for (int at = 5; at < 100; at += 7) {
        pace *p = open_pace(0);
        prefill(p, &m, 8, 4000, 0, 0);
        int before = pace_prefill(p, 8, 1, 248);
        pace_note(p, 8, 0, 5000000); /* somebody else had the core for five seconds */
        int after = pace_prefill(p, 8, 1, 248);
        assert_true(after <= before * 3 / 2);
        run r = prefill(p, &m, 8, 4000, 2 * 44000 * 11 / 10, at);
        assert_int_equal(r.late, 0);
        assert_true(r.mean_chunk > 20);
        pace_free(p);
    }
}

/* The machine becomes twice as slow, or as fast, for good: steps follow. */
static void a_lasting_change_is_followed(void **state) {
    (void)state;
    machine m = {.base = 40000, .each = 500, .token = 900, .noise = 0.05, .random = 4};
    machine slow = {.base = 80000, .each = 1000, .token = 1800, .noise = 0.05, .random = 4};
    pace   *p = open_pace(0);
    prefill(p, &m, 8, 4000, 0, 0);
    prefill(p, &slow, 8, 30000, 0, 0);
    run r = prefill(p, &slow, 8, 4000, 2 * 88000, 0);
    assert_int_equal(r.late, 0);
    assert_true(r.mean_chunk > 25);
    prefill(p, &m, 8, 30000, 0, 0);
    r = prefill(p, &m, 8, 4000, 2 * 44000 * 11 / 10, 0);
    assert_int_equal(r.late, 0);
    assert_true(r.mean_chunk > 25);
    pace_free(p);
}

static void the_given_step_time_is_kept(void **state) {
    (void)state;
    machine m = {.base = 10000, .each = 100, .token = 300, .noise = 0.02, .random = 6};
    pace   *p = open_pace(30000);
    prefill(p, &m, 4, 4000, 0, 0);
    run r = prefill(p, &m, 4, 4000, 32000, 0);
    assert_int_equal(r.late, 0);
    assert_true(r.mean_chunk > 50); /* (30 - 10.4) / 0.3 is 65 */
    pace_free(p);
    p = open_pace(1000); /* not to be had: the least there is */
    prefill(p, &m, 4, 400, 0, 0);
    assert_int_equal(pace_prefill(p, 4, 1, 256), PACE_LEAST);
    assert_int_equal(pace_prefill(p, 4, 1, 2), 2);
    pace_free(p);
    p = open_pace(0); /* fast steps: 20 ms are nobody's worry */
    m = (machine){.base = 1000, .each = 10, .token = 100, .random = 7};
    prefill(p, &m, 4, 4000, 0, 0);
    r = prefill(p, &m, 4, 4000, 21000, 0);
    assert_int_equal(r.late, 0);
    assert_true(r.mean_chunk > 120);
    pace_free(p);
}

/* The number of streams changes with every step: a prompt gets on all the same. */
static void any_number_of_streams(void **state) {
    (void)state;
    machine m = {.base = 40000, .each = 500, .token = 900, .noise = 0.05, .random = 8};
    pace   *p = open_pace(0);
    int     steps = 0, empty = 0;
    for (int left = 20000; left > 0; steps++) {
        int n = 1 + (int)(test_random(&m.random) % 64);
        int chunk = pace_prefill(p, n, 1, left < 192 ? left : 192);
        empty += chunk == 0;
        pace_note(p, n, chunk, step_of(&m, n, chunk));
        left -= chunk;
        assert_true(steps < 3000);
    }
    print_message("1 to 64 streams: %d steps for 20000 tokens, %d of them without\n", steps, empty);
    assert_true(empty * 8 <= steps + 8);
    pace_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_come_within_a_client),  cmocka_unit_test(priority_goes_before_all),
        cmocka_unit_test(tokens_are_shared),           cmocka_unit_test(nobody_saves_up_turns),
        cmocka_unit_test(some_leave_the_line),         cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(a_long_prompt_joins_streams), cmocka_unit_test(a_cold_start),
        cmocka_unit_test(one_outlier_changes_little),  cmocka_unit_test(a_lasting_change_is_followed),
        cmocka_unit_test(the_given_step_time_is_kept), cmocka_unit_test(any_number_of_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
