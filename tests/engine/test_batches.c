/* test_batches.c - the same greedy tokens at batch 1, 8 and 64, in every format with kernels of its own and on every
 * instruction set; and how far the sets' tokens agree with each other. */
#include "check.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jobs.h"
#include "model/synth.h"
#include "tensor/kernels.h"

enum { JOBS = 64, TOKENS = 12 };

static const char *const types[] = {"f32", "f16", "bf16", "q4_0", "q8_0", "q4_k_m"};
#define TYPES (sizeof types / sizeof *types)

static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512bf16", "neon", "dotprod"};
#define ISAS (sizeof isas / sizeof *isas)

/* Shared with the children: what each set said at batch 1. */
static struct {
    bool    ran[ISAS];
    int32_t ids[ISAS][TYPES][JOBS][TOKENS];
} * said;

static size_t set; /* this child's */

static void ask_all(const model *m, pool *p, int sequences, int32_t ids[JOBS][TOKENS]) {
    err      e = {0};
    engine  *g = engine_open(m, p, &(engine_options){.sequences = sequences, .context = 128}, &e);
    answer  *a[JOBS];
    int32_t  prompts[JOBS][40];
    uint64_t random = 5;
    assert_ok(g, e);
    for (int i = 0; i < JOBS; i++) {
        engine_request r = {.tokens = prompts[i], .n_tokens = 1 + i % 40, .max_tokens = TOKENS, .ignore_eos = true};
        for (int t = 0; t < r.n_tokens; t++)
            prompts[i][t] = (int32_t)(test_random(&random) % (uint64_t)m->shape.vocab);
        r.sampling = sampling_default();
        r.sampling.temperature = 0;
        a[i] = new_answer();
        assert_ok(submit(g, a[i], r, &e), e);
    }
    for (int i = 0; i < JOBS; i++) {
        wait_for(a[i]);
        assert_int_equal(a[i]->n, TOKENS);
        memcpy(ids[i], a[i]->ids, sizeof ids[i]);
        free_answer(a[i]);
    }
    engine_close(g);
}

static void same_in_any_batch(void **state) {
    (void)state;
    err   e = {0};
    pool *p = pool_new(2, &e);
    assert_ok(p, e);
    for (size_t t = 0; t < TYPES; t++) {
        char           path[] = "/tmp/pare-test-batches-XXXXXX";
        static int32_t ids[JOBS][TOKENS];
        int            fd = mkstemp(path);
        assert_true(fd >= 0);
        close(fd);
        assert_ok(synth_write("llama-small", types[t], 11, path, NULL, NULL, &e), e);
        model *m = model_open(path, NULL, 0, p, &e);
        assert_ok(m, e);
        unlink(path);
        ask_all(m, p, 1, said->ids[set][t]);
        for (int batch = 8; batch <= JOBS; batch *= 8) {
            ask_all(m, p, batch, ids);
            if (memcmp(ids, said->ids[set][t], sizeof ids) != 0)
                fail_msg("%s: other tokens at batch %d", types[t], batch);
        }
        model_close(m);
    }
    said->ran[set] = true;
    pool_free(p);
}

/* The sets add floats in different orders and may round activations apart, so where two tokens are nearly as likely an
 * answer of these random weights can go another way. (avx512bf16 rounds activations of BF16 weights.) */
static void sets_agree(void **state) {
    (void)state;
    for (size_t s = 1; s < ISAS; s++)
        for (size_t t = 0; said->ran[0] && said->ran[s] && t < TYPES; t++) {
            int same = 0;
            for (int i = 0; i < JOBS; i++)
                for (int k = 0; k < TOKENS && said->ids[s][t][i][k] == said->ids[0][t][i][k]; k++)
                    same++;
            print_message("%s, %s: %d of %d tokens as scalar\n", isas[s], types[t], same, JOBS * TOKENS);
            assert_true(same >= JOBS * TOKENS * 4 / 5);
        }
}

int main(void) {
    int failed = 0;
    said = mmap(NULL, sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (said == MAP_FAILED)
        return 1;
    for (set = 0; set < ISAS; set++) {
        if (!kernels_named(isas[set])) {
            printf("skipped: this machine has no %s\n", isas[set]);
            continue;
        }
        pid_t child = fork(); /* the kernels are chosen once in a process */
        if (child == 0) {
            setenv("PARE_ISA", isas[set], 1);
            const struct CMUnitTest tests[] = {cmocka_unit_test(same_in_any_batch)};
            exit(cmocka_run_group_tests_name(isas[set], tests, NULL, NULL));
        }
        int status = 1;
        waitpid(child, &status, 0);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(sets_agree)};
    return failed + cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
