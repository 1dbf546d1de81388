/* Batching over the shared cache: the same tokens whatever the step, the memory and the company are; preemption,
 * shared prefixes, full contexts, fairness, what the engine tells. */
#include "check.h"

#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/schedule.h"
#include "engine/slide.h"
#include "jobs.h"
#include "model/synth.h"

#define KINDS   64
#define CONTEXT 128

static pool   *p;
static model  *m;
static int32_t prompts[KINDS][CONTEXT];
static int     lengths[KINDS], answers[KINDS];
static answer *alone[KINDS];

static engine *open_engine(engine_options o) {
    err e = {0};
    o.context = o.context ? o.context : CONTEXT;
    o.kv = KV_F32;
    engine *g = engine_open(m, p, &o, &e);
    assert_ok(g, e);
    return g;
}

/* Bytes for as many blocks as one full context needs, and some more. */
static size_t tiny_memory(int more_blocks) {
    return kv_bytes_of(&m->shape, KV_F32, CONTEXT + (int64_t)more_blocks * KV_TOKENS);
}

/* A quarter begins like another prompt; lengths lie on and beside the edges of blocks. */
static void make_prompts(void) {
    uint64_t random = 11;
    for (int i = 0; i < KINDS; i++) {
        lengths[i] = i % 8 == 7 ? KV_TOKENS * (1 + i / 16) + i % 3 - 1 : 1 + (int)(test_random(&random) % 90);
        answers[i] = 5 + (int)(test_random(&random) % 32);
        for (int t = 0; t < CONTEXT; t++) {
            prompts[i][t] = (int32_t)(test_random(&random) % (uint64_t)m->shape.vocab);
        }
        if (i % 4 == 1) {
            memcpy(prompts[i], prompts[i - 1], (size_t)(8 + i) * sizeof(int32_t));
        }
    }
}

static engine_request request(int i) {
    engine_request r = {.tokens = prompts[i],
                        .n_tokens = lengths[i],
                        .max_tokens = answers[i],
                        .ignore_eos = true,
                        .client = (uint64_t)(i % 5)};
    r.sampling = sampling_default();
    r.sampling.seed = (uint64_t)i;
    r.sampling.temperature = i % 2 ? 1.0f : 0.0f;
    if (i % 8 == 3) {
        r.sampling.repeat_penalty = 1.1f;
    }
    if (i % 8 == 6) { /* goes on beyond the end of the context */
        r.slide = true;
        r.slide_keep = i;
        r.max_tokens = 150;
    }
    return r;
}

static int setup(void **state) {
    (void)state;
    char path[] = "/tmp/pare-test-schedule-XXXXXX";
    err  e = {0};
    int  fd = mkstemp(path);
    p = pool_new(2, &e);
    bool ok = fd >= 0 && p && synth_write("llama-tiny", "q8_0", 1, path, NULL, NULL, &e) &&
              (m = model_open(path, NULL, 0, p, &e));
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    if (!ok) {
        print_error("%s\n", e.text);
        return -1;
    }
    make_prompts();
    engine *g = open_engine((engine_options){.sequences = 1});
    for (int i = 0; i < KINDS; i++) {
        engine_request r = request(i);
        r.no_reuse = true;
        alone[i] = new_answer();
        if (!submit(g, alone[i], r, &e)) {
            print_error("%s\n", e.text);
            return -1;
        }
        wait_for(alone[i]);
    }
    engine_close(g);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        free_answer(alone[i]);
    }
    model_close(m);
    pool_free(p);
    return 0;
}

static void check_same(const answer *a, int i) {
    assert_int_equal(a->done, 1);
    assert_int_equal(a->finish, FINISH_LENGTH);
    assert_int_equal(a->n, alone[i]->n);
    if (memcmp(a->ids, alone[i]->ids, (size_t)a->n * sizeof(int32_t)) != 0) {
        fail_msg("job %d: other tokens than alone", i);
    }
}

/* Nobody runs: each block is free or cached, and the cache's own books are right. */
static void check_idle(engine *g) {
    engine_stats s;
    do {
        engine_stats_read(g, &s);
    } while (s.running || s.waiting);
    err e = {0};
    assert_ok(kv_check(g->kv, &e), e);
    assert_int_equal(s.kv.held, 0);
    assert_int_equal(s.decoding, 0);
    assert_int_equal(s.backlog_tokens, 0);
    assert_int_equal(g->n_free, g->sequences);
    assert_int_equal(fair_clients(g->line), 0);
}

typedef struct outcome {
    int64_t preempted, cached;
    int     slid;
} outcome;

/* Runs `n` kinds side by side and compares each with what it gave alone. */
static outcome run_kinds(engine *g, int n, int first, uint64_t seed, bool no_reuse) {
    answer *a[KINDS];
    outcome o = {0};
    for (int k = 0; k < n; k++) {
        err            e = {0};
        int            i = (first + k) % KINDS;
        engine_request r = request(i);
        r.no_reuse = no_reuse;
        a[k] = new_answer();
        if (seed) {
            usleep((useconds_t)(test_random(&seed) % 500));
        }
        assert_ok(submit(g, a[k], r, &e), e);
    }
    for (int k = 0; k < n; k++) {
        wait_for(a[k]);
        check_same(a[k], (first + k) % KINDS);
        o.preempted += a[k]->result.preempted;
        o.cached += a[k]->result.cached_tokens;
        o.slid += a[k]->result.slid;
        assert_true(a[k]->result.cached_tokens < lengths[(first + k) % KINDS]);
        free_answer(a[k]);
    }
    check_idle(g);
    return o;
}

static void alone_is_as_expected(void **state) {
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        assert_int_equal(alone[i]->finish, FINISH_LENGTH);
        assert_int_equal(alone[i]->n, i % 8 == 6 ? 150 : answers[i]);
        assert_int_equal(alone[i]->result.cached_tokens, 0);
        assert_int_equal(alone[i]->result.miss, KV_MISS_OFF);
        assert_int_equal(alone[i]->result.preempted, 0);
        assert_true((alone[i]->result.slid > 0) == (i % 8 == 6));
    }
}

static void same_with_any_step_budget(void **state) {
    (void)state;
    const int     budgets[] = {1, 12, 17, 64, 1000};
    const int64_t times[] = {0, 1, 300};
    for (int i = 0; i < 5; i++) {
        for (int t = 0; t < 3; t++) {
            engine *g = open_engine((engine_options){.sequences = 8, .step_tokens = budgets[i], .step_us = times[t]});
            run_kinds(g, 8, 9 * i, (uint64_t)i, true);
            run_kinds(g, 24, 5 * i, 0, false);
            engine_close(g);
        }
    }
}

static void same_with_63_others(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        engine *g = open_engine((engine_options){.sequences = 64});
        run_kinds(g, KINDS, 0, (uint64_t)round, round == 0);
        engine_close(g);
    }
}

static void same_with_found_prefixes(void **state) {
    (void)state;
    engine *g = open_engine((engine_options){.sequences = 16, .kv_bytes = tiny_memory(1000)});
    outcome first = run_kinds(g, KINDS, 0, 0, false);
    outcome again = run_kinds(g, KINDS, 3, 0, false);
    print_message("prompt tokens found: %lld, and %lld the second time\n", (long long)first.cached,
                  (long long)again.cached);
    assert_true(first.cached > 100); /* the quarter that begins like another */
    assert_true(again.cached > 1000);
    engine_stats s;
    engine_stats_read(g, &s);
    assert_true(s.kv.hit_tokens >= first.cached + again.cached);
    engine_close(g);
}

/* Memory for one full context and little more: nearly all lose their blocks at some time. */
static void same_when_memory_is_short(void **state) {
    (void)state;
    int64_t preempted = 0;
    for (int round = 0; round < 6; round++) {
        engine *g = open_engine((engine_options){
            .sequences = 4 + 4 * round, .step_tokens = round % 2 ? 16 : 256, .kv_bytes = tiny_memory(round * 3)});
        int64_t n = run_kinds(g, KINDS, 7 * round, (uint64_t)(round % 3), round == 4).preempted;
        preempted += n;
        engine_stats s;
        engine_stats_read(g, &s);
        assert_int_equal(s.preempted, n);
        assert_int_equal(s.kv.blocks, CONTEXT / KV_TOKENS + round * 3);
        engine_close(g);
    }
    print_message("preempted %lld times\n", (long long)preempted);
    assert_true(preempted > 20);
}

/* Those who came first end first, and are never disturbed. */
static void the_oldest_keeps_its_memory(void **state) {
    (void)state;
    engine    *g = open_engine((engine_options){.sequences = 4, .kv_bytes = tiny_memory(2)});
    answer    *a[4];
    atomic_int counter = 0;
    for (int i = 0; i < 4; i++) {
        err            e = {0};
        engine_request r = request(2 * i);
        r.n_tokens = 20;
        r.max_tokens = CONTEXT - 20;
        r.slide = false;
        a[i] = new_answer();
        a[i]->counter = &counter;
        assert_ok(submit(g, a[i], r, &e), e);
    }
    int preempted = 0;
    for (int i = 0; i < 4; i++) {
        wait_for(a[i]);
        assert_int_equal(a[i]->n, CONTEXT - 20);
        preempted += a[i]->result.preempted;
    }
    assert_int_equal(a[0]->result.preempted, 0);
    assert_int_equal(a[0]->number, 1);
    assert_true(preempted > 0);
    for (int i = 0; i < 4; i++) {
        free_answer(a[i]);
    }
    check_idle(g);
    engine_close(g);
}

/* Eight ask the same at once: one computes, the others wait for it and take over what it has. */
static void one_computes_for_all(void **state) {
    (void)state;
    engine *g = open_engine((engine_options){.sequences = 8, .step_tokens = 32});
    answer *a[8], *late = new_answer();
    err     e = {0};
    for (int i = 0; i < 8; i++) {
        engine_request r = request(0);
        r.tokens = prompts[40];
        r.n_tokens = 100;
        r.max_tokens = 4;
        a[i] = new_answer();
        assert_ok(submit(g, a[i], r, &e), e);
    }
    int cached = 0;
    for (int i = 0; i < 8; i++) {
        wait_for(a[i]);
        assert_memory_equal(a[i]->ids, a[0]->ids, 4 * sizeof(int32_t));
        cached += a[i]->result.cached_tokens;
    }
    engine_stats s;
    engine_stats_read(g, &s);
    assert_int_equal(s.prompt_tokens, 800 - cached);
    assert_int_equal(cached, 7 * 96); /* all whole blocks but one's */
    engine_request r = request(0);
    r.tokens = prompts[40];
    r.n_tokens = 100;
    r.scope.bytes[3] = 1; /* another scope knows nothing of it */
    assert_ok(submit(g, late, r, &e), e);
    wait_for(late);
    assert_int_equal(late->result.cached_tokens, 0);
    assert_int_equal(late->result.miss, KV_MISS_NEW);
    for (int i = 0; i < 8; i++) {
        free_answer(a[i]);
    }
    free_answer(late);
    check_idle(g);
    engine_close(g);
}

/* Blocks come back from disk after a restart, while others run; the tokens are the same. */
static void same_after_a_restart(void **state) {
    (void)state;
    char directory[] = "/tmp/pare-test-schedule-disk-XXXXXX";
    assert_non_null(mkdtemp(directory));
    engine_options o = {.sequences = 8, .kv_bytes = tiny_memory(300), .kv_disk = directory, .fingerprint = "tiny"};
    engine        *g = open_engine(o);
    run_kinds(g, KINDS, 0, 0, false);
    engine_close(g);
    for (int round = 0; round < 2; round++) {
        o.kv_bytes = tiny_memory(round ? 4 : 300); /* the second time they are evicted and read, again and again */
        g = open_engine(o);
        outcome      again = run_kinds(g, KINDS, 5, 0, false);
        engine_stats s;
        engine_stats_read(g, &s);
        print_message("%lld prompt tokens found, %lld blocks read from disk\n", (long long)again.cached,
                      (long long)s.kv.disk_read);
        assert_true(again.cached > 1000 && s.kv.disk_hit_tokens > 0 && s.kv.disk_read > 0);
        assert_int_equal(s.kv.disk_bad, 0);
        engine_close(g);
    }
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", directory);
    assert_int_equal(system(command), 0);
}

/* ---- full contexts ---- */

static void slide_drops_the_middle(void **state) {
    (void)state;
    int32_t tokens[20], out[20];
    for (int i = 0; i < 20; i++) {
        tokens[i] = i;
    }
    assert_int_equal(slide_keep(-5, 16), 0);
    assert_int_equal(slide_keep(4, 16), 4);
    assert_int_equal(slide_keep(1000, 16), 14);
    assert_int_equal(slide_keep(1000, 2), 0);
    assert_int_equal(slide_left(4, 16), 10);
    slide_tokens(out, tokens, 20, 4, 16);
    const int32_t expected[10] = {0, 1, 2, 3, 14, 15, 16, 17, 18, 19};
    assert_memory_equal(out, expected, sizeof(expected));
    slide_tokens(tokens, tokens, 20, 4, 16);
    assert_memory_equal(tokens, expected, sizeof(expected));
    for (int context = 2; context < 300; context++) { /* something stays, and something goes */
        for (int keep = 0; keep <= context; keep++) {
            int left = slide_left(slide_keep(keep, context), context);
            assert_in_range(left, 1, context - 1);
        }
    }
}

/* After the slide the answer is the one to a prompt of what was kept. */
static void a_full_context_goes_on(void **state) {
    (void)state;
    engine        *g = open_engine((engine_options){.sequences = 2});
    engine_request r = request(0);
    answer        *a = new_answer(), *b = new_answer();
    err            e = {0};
    const int      keep = 10;
    r.n_tokens = 100;
    r.max_tokens = 300;
    r.slide = true;
    r.slide_keep = keep;
    assert_ok(submit(g, a, r, &e), e);
    wait_for(a);
    assert_int_equal(a->finish, FINISH_LENGTH);
    assert_int_equal(a->n, 300);
    assert_int_equal(a->result.completion_tokens, 300);
    assert_int_equal(a->result.prompt_tokens, 100);
    int left = keep + (CONTEXT - keep) / 2;
    int slides = 1 + (300 - (CONTEXT - 100) - 1) / (CONTEXT - left); /* none at the very end */
    assert_int_equal(a->result.slid, slides * (CONTEXT - left));

    int32_t all[CONTEXT], kept[CONTEXT];
    memcpy(all, prompts[0], 100 * sizeof(int32_t));
    memcpy(all + 100, a->ids, (CONTEXT - 100) * sizeof(int32_t));
    memcpy(kept, all, keep * sizeof(int32_t));
    memcpy(kept + keep, all + CONTEXT - (left - keep), (size_t)(left - keep) * sizeof(int32_t));
    r.tokens = kept;
    r.n_tokens = left;
    r.max_tokens = 20;
    r.slide = false;
    assert_ok(submit(g, b, r, &e), e);
    wait_for(b);
    assert_memory_equal(b->ids, a->ids + (CONTEXT - 100), 20 * sizeof(int32_t));
    free_answer(a);
    free_answer(b);
    check_idle(g);
    engine_close(g);
}

static void a_long_prompt_is_cut_or_refused(void **state) {
    (void)state;
    engine        *g = open_engine((engine_options){.sequences = 2, .context = 64});
    engine_request r = request(0);
    answer        *a = new_answer(), *b = new_answer();
    err            e = {0};
    r.n_tokens = CONTEXT;
    r.max_tokens = 10;
    assert_false(submit(g, a, r, &e));
    assert_int_equal(e.code, ERR_INVALID);
    assert_says(e, "the prompt has 128 tokens");
    assert_says(e, "holds 64");
    r.slide = true;
    r.slide_keep = 8;
    assert_ok(submit(g, a, r, &e), e);
    wait_for(a);
    assert_int_equal(a->result.slid, CONTEXT - 36);
    assert_int_equal(a->result.prompt_tokens, CONTEXT);
    int32_t kept[36];
    memcpy(kept, prompts[0], 8 * sizeof(int32_t));
    memcpy(kept + 8, prompts[0] + CONTEXT - 28, 28 * sizeof(int32_t));
    r.tokens = kept;
    r.n_tokens = 36;
    assert_ok(submit(g, b, r, &e), e);
    wait_for(b);
    assert_int_equal(b->result.slid, 0);
    assert_memory_equal(a->ids, b->ids, 10 * sizeof(int32_t));
    free_answer(a);
    free_answer(b);
    engine_close(g);
    assert_null(engine_open(m, p, &(engine_options){.context = 1}, &e));
    assert_says(e, "leaves no room");
}

/* ---- who is next ---- */

static void a_hundred_requests_starve_nobody(void **state) {
    (void)state;
    engine    *g = open_engine((engine_options){.sequences = 2});
    answer    *many[100], *one = new_answer();
    atomic_int counter = 0;
    err        e = {0};
    for (int i = 0; i < 100; i++) {
        engine_request r = request(i % 4);
        r.client = 1;
        r.max_tokens = 20;
        many[i] = new_answer();
        many[i]->counter = &counter;
        assert_ok(submit(g, many[i], r, &e), e);
    }
    engine_request r = request(5);
    r.client = 2;
    r.max_tokens = 20;
    one->counter = &counter;
    assert_ok(submit(g, one, r, &e), e);
    int before = atomic_load(&counter);
    wait_for(one);
    assert_true(one->number <= before + 6); /* the next free slot is its own; by turns it would be the 101st */
    for (int i = 0; i < 100; i++) {
        wait_for(many[i]);
        free_answer(many[i]);
    }
    free_answer(one);
    check_idle(g);
    engine_close(g);
}

static void priority_then_first_come(void **state) {
    (void)state;
    engine    *g = open_engine((engine_options){.sequences = 1});
    answer    *a[8];
    const int  priority[8] = {0, 2, 0, 1, -1, 2, 0, -2000000000}, order[8] = {1, 7, 4, 6, 3, 8, 5, 2};
    atomic_int counter = 0;
    err        e = {0};
    for (int i = 0; i < 8; i++) {
        engine_request r = request(1);
        r.priority = priority[i];
        r.client = 9;
        r.max_tokens = i ? 3 : 100;
        r.n_tokens = 20;
        a[i] = new_answer();
        a[i]->counter = &counter;
        a[i]->delay_us = i ? 0 : 500; /* the first has the slot until all are in line */
        assert_ok(submit(g, a[i], r, &e), e);
        if (i == 0) {
            wait_for_tokens(a[0], 1);
        }
    }
    for (int i = 0; i < 8; i++) {
        wait_for(a[i]);
        assert_int_equal(a[i]->number, order[i]);
        free_answer(a[i]);
    }
    engine_close(g);
}

/* ---- what the engine tells ---- */

static void check_histogram(const engine_histogram *h, int64_t values) {
    for (int i = 1; i < ENGINE_BUCKETS; i++) {
        assert_true(h->count[i] >= h->count[i - 1]);
    }
    assert_int_equal(h->count[ENGINE_BUCKETS - 1], values);
    assert_true(values == 0 || h->sum > 0);
}

static void the_numbers_agree(void **state) {
    (void)state;
    assert_true(engine_time_bounds[0] == 0.001 && engine_time_bounds[ENGINE_BUCKETS - 2] == 60);
    assert_true(engine_batch_bounds[0] == 1 && engine_batch_bounds[ENGINE_BUCKETS - 2] == 16384);
    engine      *g = open_engine((engine_options){.sequences = 4});
    engine_stats s;
    int          answered = 0, asked = 0, slid = 0;
    engine_stats_read(g, &s);
    assert_int_equal(s.steps + s.jobs + s.backlog_tokens + s.last_step_us + s.last_token_us, 0);
    answer *a[20], *slow = new_answer();
    err     e = {0};
    slow->delay_us = 2000;
    engine_request r = request(6);
    assert_ok(submit(g, slow, r, &e), e);
    wait_for_tokens(slow, 2);
    for (int i = 0; i < 20; i++) {
        a[i] = new_answer();
        r = request(i % 6);
        r.no_reuse = true;
        asked += r.n_tokens;
        answered += r.max_tokens;
        assert_ok(submit(g, a[i], r, &e), e);
    }
    engine_stats_read(g, &s);
    assert_true(s.decoding >= 1 && s.running >= 1 && s.waiting > 0);
    assert_true(s.backlog_tokens > 0 && s.backlog_tokens <= asked && s.backlog_s > 0);
    for (int i = 0; i < 20; i++) {
        wait_for(a[i]);
        free_answer(a[i]);
    }
    wait_for(slow);
    slid = slow->result.slid;
    check_idle(g);
    engine_stats_read(g, &s);
    assert_int_equal(s.jobs, 21);
    assert_int_equal(s.completion_tokens, answered + 150);
    assert_true(slid > 0 && s.prompt_tokens > asked + lengths[6]); /* what stayed was computed again */
    check_histogram(&s.first_token, 21);
    check_histogram(&s.queued, 21);
    check_histogram(&s.inter_token, answered + 150 - 21);
    check_histogram(&s.step, s.steps);
    check_histogram(&s.batch, s.steps);
    int slides = slid / (CONTEXT - slide_left(6, CONTEXT)); /* each token comes of a step, 21 and these of a prefill */
    assert_int_equal((int64_t)s.batch.sum, s.prompt_tokens + s.completion_tokens - 21 - slides);
    assert_true(s.step.sum > 0 && s.last_step_us >= s.last_token_us && s.last_token_us > 0);
    free_answer(slow);
    engine_close(g);
}

/* ---- memory ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
static void a_step_takes_no_memory(void **state) {
    (void)state;
    skip(); /* the sanitizers have their own malloc */
}
#else
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t n);

static _Atomic int64_t taken; /* calls, by any thread */

void *malloc(size_t n) {
    taken++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    taken++;
    return __libc_calloc(n, size);
}
void *realloc(void *old, size_t n) {
    taken++;
    return __libc_realloc(old, n);
}

typedef struct meter {
    answer  base;
    int64_t before, after;
} meter;

static void on_metered_piece(void *ctx, const engine_piece *piece) {
    meter *w = ctx;
    on_piece(&w->base, piece);
    if (w->base.n == 2) {
        w->before = taken;
    } else if (w->base.n == 140) {
        w->after = taken;
    }
}

/* From the second token of a long answer to its 140th: others prefill, decode, share, slide, are preempted and begin
 * again, all submitted before. */
static void a_step_takes_no_memory(void **state) {
    (void)state;
    engine *g = open_engine((engine_options){.sequences = 8, .kv_bytes = tiny_memory(9)});
    answer *a[8];
    meter   w = {0};
    err     e = {0};
    pthread_mutex_init(&w.base.lock, NULL);
    pthread_cond_init(&w.base.over, NULL);
    engine_request r = request(6);
    r.piece = on_metered_piece;
    r.done = on_done;
    r.ctx = &w.base;
    for (int i = 0; i < 8; i++) {
        engine_request other = request(i);
        other.max_tokens = 60;
        other.priority = 1;
        a[i] = new_answer();
        assert_ok(submit(g, a[i], other, &e), e);
    }
    assert_non_null(engine_submit(g, &r, &e));
    wait_for(&w.base);
    for (int i = 0; i < 8; i++) {
        wait_for(a[i]);
        free_answer(a[i]);
    }
    engine_stats s;
    engine_stats_read(g, &s);
    assert_true(s.preempted > 0);
    assert_int_equal(w.base.n, 150);
    assert_int_equal(w.after - w.before, 0);
    pthread_mutex_destroy(&w.base.lock);
    pthread_cond_destroy(&w.base.over);
    engine_close(g);
}
#endif

/* ---- all at once ---- */

static engine_request random_request(uint64_t *random, int *kind) {
    *kind = (int)(test_random(random) % KINDS);
    engine_request r = request(*kind);
    r.client = test_random(random) % 6;
    r.priority = (int)(test_random(random) % 3) - 1;
    r.no_reuse = test_random(random) % 8 == 0;
    r.scope.bytes[0] = (uint8_t)(test_random(random) % 2);
    return r;
}

static void stress(void **state) {
    (void)state;
    const char *word = getenv("PARE_STRESS");
    int         rounds = word ? atoi(word) : 6;
    uint64_t    random = 21;
    int64_t     preempted = 0, cancelled = 0, shared = 0;
    for (int round = 0; round < rounds; round++) {
        engine *g = open_engine((engine_options){.sequences = 3 + (int)(test_random(&random) % 30),
                                                 .step_tokens = 8 << test_random(&random) % 6,
                                                 .kv_bytes = tiny_memory((int)(test_random(&random) % 20))});
        answer *a[64];
        int     kind[64];
        for (int i = 0; i < 64; i++) {
            err            e = {0};
            engine_request r = random_request(&random, &kind[i]);
            a[i] = new_answer();
            assert_ok(submit(g, a[i], r, &e), e);
            usleep((useconds_t)(test_random(&random) % 3 ? 0 : 700));
            if (test_random(&random) % 3 == 0) {
                cancel(a[test_random(&random) % (uint64_t)(i + 1)]);
            }
        }
        for (int i = 0; i < 64; i++) {
            wait_for(a[i]);
            assert_int_equal(a[i]->done, 1);
            if (a[i]->finish == FINISH_CANCELLED) {
                cancelled++;
                assert_memory_equal(a[i]->ids, alone[kind[i]]->ids, (size_t)a[i]->n * sizeof(int32_t));
            } else {
                check_same(a[i], kind[i]);
            }
            preempted += a[i]->result.preempted;
            shared += a[i]->result.cached_tokens;
        }
        check_idle(g);
        engine_close(g);
        for (int i = 0; i < 64; i++) {
            free_answer(a[i]);
        }
    }
    print_message("%d rounds: %lld preempted, %lld cancelled, %lld tokens found\n", rounds, (long long)preempted,
                  (long long)cancelled, (long long)shared);
    assert_true(preempted > 0 && cancelled > 0 && shared > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_is_as_expected),
        cmocka_unit_test(same_with_any_step_budget),
        cmocka_unit_test(same_with_63_others),
        cmocka_unit_test(same_with_found_prefixes),
        cmocka_unit_test(same_when_memory_is_short),
        cmocka_unit_test(the_oldest_keeps_its_memory),
        cmocka_unit_test(one_computes_for_all),
        cmocka_unit_test(same_after_a_restart),
        cmocka_unit_test(slide_drops_the_middle),
        cmocka_unit_test(a_full_context_goes_on),
        cmocka_unit_test(a_long_prompt_is_cut_or_refused),
        cmocka_unit_test(a_hundred_requests_starve_nobody),
        cmocka_unit_test(priority_then_first_come),
        cmocka_unit_test(the_numbers_agree),
        cmocka_unit_test(a_step_takes_no_memory),
        cmocka_unit_test(stress),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
