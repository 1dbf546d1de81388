/* The scheduler: the same answers alone and in company, cancellation at any moment, limits, closing. */
#include "check.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "jobs.h"

#define MODEL "../shared/conformance/logits/llama/model.gguf"

static pool  *p;
static model *m;

static int setup(void **state) {
    (void)state;
    err e = {0};
    if (access(MODEL, R_OK) != 0) {
        return 0;
    }
    p = pool_new(2, &e);
    m = model_open(MODEL, NULL, 0, p, &e);
    if (!m) {
        print_error("%s\n", e.text);
    }
    return m ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    model_close(m);
    pool_free(p);
    return 0;
}

static void need_model(void) {
    if (!m) {
        print_message("skipped: " MODEL " is not here\n");
        skip();
    }
}

static engine *open_engine(engine_options o) {
    err     e = {0};
    engine *g = engine_open(m, p, &o, &e);
    assert_ok(g, e);
    return g;
}

static int32_t prompts[8][100];
static int     lengths[8] = {1, 3, 17, 64, 100, 33, 8, 90};

static engine_request request(int i) {
    engine_request r = {.tokens = prompts[i], .n_tokens = lengths[i], .max_tokens = 20 + 7 * i};
    r.sampling = sampling_default();
    r.sampling.seed = (uint64_t)i;
    r.sampling.temperature = i % 2 ? 1.0f : 0.0f;
    if (i % 4 == 3) {
        r.sampling.top_p = 0.8f;
        r.sampling.repeat_penalty = 1.1f;
    }
    return r;
}

static void fill_prompts(void) {
    uint64_t random = 100;
    for (int i = 0; i < 8; i++) {
        for (int t = 0; t < 100; t++) {
            prompts[i][t] = (int32_t)(test_random(&random) % (uint64_t)m->shape.vocab);
        }
    }
}

/* Greedy and seeded answers do not depend on who else is in the batch, when they joined, or how prompts are cut. */
static void same_alone_and_in_company(void **state) {
    (void)state;
    need_model();
    fill_prompts();
    answer *alone[8];
    engine *g = open_engine((engine_options){.sequences = 1, .context = 256});
    for (int i = 0; i < 8; i++) {
        err e = {0};
        alone[i] = new_answer();
        assert_ok(submit(g, alone[i], request(i), &e), e);
        wait_for(alone[i]);
        assert_int_equal(alone[i]->finish, FINISH_LENGTH);
        assert_int_equal(alone[i]->n, 20 + 7 * i);
        assert_int_equal(alone[i]->result.completion_tokens, alone[i]->n);
        assert_int_equal(alone[i]->result.prompt_tokens, lengths[i]);
    }
    engine_close(g);

    uint64_t  random = 7;
    const int budgets[] = {8, 13, 256};
    for (int round = 0; round < 12; round++) {
        g = open_engine(
            (engine_options){.sequences = 3 + round % 6, .context = 256, .step_tokens = budgets[round % 3]});
        answer *a[8];
        for (int i = 0; i < 8; i++) {
            err e = {0};
            int who = (i * 3 + round) % 8;
            a[who] = new_answer();
            usleep((useconds_t)(test_random(&random) % 4000));
            assert_ok(submit(g, a[who], request(who), &e), e);
        }
        for (int i = 0; i < 8; i++) {
            wait_for(a[i]);
            assert_int_equal(a[i]->n, alone[i]->n);
            assert_memory_equal(a[i]->ids, alone[i]->ids, (size_t)a[i]->n * sizeof(int32_t));
            free_answer(a[i]);
        }
        engine_stats s;
        engine_stats_read(g, &s);
        assert_int_equal(s.jobs, 8);
        assert_int_equal(s.waiting, 0);
        engine_close(g);
    }
    for (int i = 0; i < 8; i++) {
        free_answer(alone[i]);
    }
}

static void context_ends_the_answer(void **state) {
    (void)state;
    need_model();
    fill_prompts();
    engine        *g = open_engine((engine_options){.sequences = 2, .context = 64});
    answer        *a = new_answer();
    engine_request r = request(2);
    err            e = {0};
    r.max_tokens = -1;
    assert_int_equal(engine_context(g), 64);
    assert_ok(submit(g, a, r, &e), e);
    wait_for(a);
    assert_int_equal(a->finish, FINISH_LENGTH);
    assert_int_equal(a->n, 64 - lengths[2]);
    free_answer(a);

    a = new_answer();
    assert_false(submit(g, a, request(4), &e)); /* 100 tokens */
    assert_int_equal(e.code, ERR_INVALID);
    assert_says(e, "the prompt has 100 tokens");
    assert_says(e, "holds 64");
    r = request(0);
    r.n_tokens = 0;
    assert_false(submit(g, a, r, &e));
    assert_says(e, "empty");
    prompts[1][2] = m->shape.vocab;
    assert_false(submit(g, a, request(1), &e));
    assert_says(e, "token 2 of the prompt is 512");
    prompts[1][2] = -1;
    assert_false(submit(g, a, request(1), &e));
    assert_int_equal(a->done, 0);
    free_answer(a);
    engine_close(g);

    assert_null(engine_open(m, p, &(engine_options){.context = m->shape.context + 1}, &e));
    assert_says(e, "was made for");
}

static void the_line_is_bounded(void **state) {
    (void)state;
    need_model();
    fill_prompts();
    engine *g = open_engine((engine_options){.sequences = 1, .context = 256, .queue = 3});
    answer *a[6];
    err     e = {0};
    int     taken = 0, refused = 0;
    for (int i = 0; i < 6; i++) {
        a[i] = new_answer();
        a[i]->delay_us = 1000;
        if (submit(g, a[i], request(3), &e)) {
            taken++;
        } else {
            refused++;
            assert_int_equal(e.code, ERR_BUSY);
            assert_says(e, "try again later");
        }
        if (i == 0) {
            usleep(20000); /* it has its slot, and nobody waits */
        }
    }
    assert_int_equal(taken, 4);
    assert_int_equal(refused, 2);
    for (int i = 0; i < 6; i++) {
        if (i < 4) {
            wait_for(a[i]);
        }
        assert_int_equal(a[i]->done, i < 4);
        free_answer(a[i]);
    }
    engine_close(g);
}

static void cancel_at_any_moment(void **state) {
    (void)state;
    need_model();
    fill_prompts();
    engine  *g = open_engine((engine_options){.sequences = 4, .context = 256, .step_tokens = 16});
    answer  *a[200];
    uint64_t random = 3;
    int      cancelled = 0;
    for (int i = 0; i < 200; i++) {
        err e = {0};
        a[i] = new_answer();
        assert_ok(submit(g, a[i], request(i % 8), &e), e);
        usleep((useconds_t)(test_random(&random) % 1500));
        cancel(a[test_random(&random) % (uint64_t)(i + 1)]);
    }
    for (int i = 0; i < 200; i += 2) {
        cancel(a[i]);
    }
    for (int i = 0; i < 200; i++) {
        wait_for(a[i]);
        cancelled += a[i]->finish == FINISH_CANCELLED;
    }
    engine_stats s;
    do { /* the last job's memory is given back after its `done` */
        engine_stats_read(g, &s);
    } while (s.running || s.kv.held);
    assert_int_equal(s.cancelled, cancelled);
    assert_int_equal(s.jobs, 200);
    assert_true(cancelled > 20);
    engine_close(g);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(a[i]->done, 1);
        free_answer(a[i]);
    }
}

static void closing_ends_all(void **state) {
    (void)state;
    need_model();
    fill_prompts();
    engine *g = open_engine((engine_options){.sequences = 2, .context = 256});
    answer *a[6];
    for (int i = 0; i < 6; i++) {
        err e = {0};
        a[i] = new_answer();
        a[i]->delay_us = 2000;
        assert_ok(submit(g, a[i], request(i), &e), e);
    }
    usleep(10000);
    engine_close(g);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(a[i]->done, 1);
        assert_true(a[i]->finish == FINISH_CANCELLED || a[i]->finish == FINISH_LENGTH);
        free_answer(a[i]);
    }
}

static void an_idle_engine_sleeps(void **state) {
    (void)state;
    need_model();
    engine *g = open_engine((engine_options){.sequences = 2, .context = 64});
    usleep(50000);
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(300000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    int64_t used = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    print_message("processor time while idle for 300 ms: %lld us\n", (long long)used);
    assert_true(used < 20000);
    engine_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_alone_and_in_company), cmocka_unit_test(context_ends_the_answer),
        cmocka_unit_test(the_line_is_bounded),       cmocka_unit_test(cancel_at_any_moment),
        cmocka_unit_test(closing_ends_all),          cmocka_unit_test(an_idle_engine_sleeps),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
