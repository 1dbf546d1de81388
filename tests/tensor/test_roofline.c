#include "check.h"

#include <time.h>

#include "tensor/kernels.h"
#include "tensor/roofline.h"

static const char *const names[] = {"scalar", "neon", "dotprod", "avx2", "avx512"};

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Every byte is read once: the sum of the words is the reference's, and changes with any of them. */
static void reads_see_every_word(void **state) {
    (void)state;
    enum { BYTES = 16 * ROOFLINE_READ_BYTES, WORDS = BYTES / 8 };
    uint64_t *words = aligned_alloc(64, BYTES), seed = 5;
    assert_non_null(words);
    for (int i = 0; i < WORDS; i++)
        words[i] = test_random(&seed);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const roofline_kernels *k = roofline_kernels_named(names[n]);
        if (!k)
            continue;
        for (size_t bytes = ROOFLINE_READ_BYTES; bytes <= BYTES; bytes += ROOFLINE_READ_BYTES) {
            uint64_t sum = 0;
            for (size_t i = 0; i < bytes / 8; i++)
                sum += words[i];
            if (k->read(words, bytes) != sum)
                fail_msg("%s: the sum of %zu bytes is wrong", names[n], bytes);
        }
    }
    free(words);
}

/* The chains count their own multiply-adds: as many as a whole number of vectors a round, and exactly in proportion. */
static void chains_do_what_they_count(void **state) {
    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const roofline_kernels *k = roofline_kernels_named(names[n]);
        if (!k)
            continue;
        double (*const chains[])(int) = {k->int8, k->f32, roofline_has_bf16(k) ? k->bf16 : NULL};
        for (int c = 0; c < 3; c++) {
            if (!chains[c])
                continue;
            double one = chains[c](1);
            assert_true(one >= 32 && one <= 16 * 64);
            assert_true((int)one % 8 == 0);
            for (int rounds = 0; rounds <= ROOFLINE_ROUNDS; rounds += 331)
                if (chains[c](rounds) != one * rounds)
                    fail_msg("%s, chain %d: %d rounds count %.0f, not %.0f", names[n], c, rounds, chains[c](rounds),
                             one * rounds);
            assert_true(chains[c](ROOFLINE_ROUNDS) == one * ROOFLINE_ROUNDS);
        }
    }
    assert_null(roofline_kernels_named("none"));
}

static void the_machine_is_plausible(void **state) {
    (void)state;
    err      e = {0};
    pool    *p = pool_new(0, &e);
    roofline r;
    assert_ok(p, e);
    double began = now_s();
    assert_ok(roofline_measure(p, &r, &e), e);
    double took = now_s() - began;
    printf("%s, %d threads: %.1f GB/s, %.2f TOPS int8, %.2f TFLOPS bf16, %.2f TFLOPS f32, in %.2f s\n", r.isa,
           r.threads, r.read_bytes_s / 1e9, r.int8_ops_s / 1e12, r.bf16_flops_s / 1e12, r.f32_flops_s / 1e12, took);
    assert_string_equal(r.isa, kernels_get()->name);
    assert_int_equal(r.threads, pool_threads(p));
    /* From a slow virtual core to the largest of servers; a unit mistaken by a thousand falls out. */
    assert_true(r.read_bytes_s > 2e8 && r.read_bytes_s < 2e12);
    assert_true(r.int8_ops_s > 5e7 * r.threads && r.int8_ops_s < 4e12 * r.threads);
    assert_true(r.f32_flops_s > 2e7 * r.threads && r.f32_flops_s < 1e12 * r.threads);
    assert_true(r.bf16_flops_s >= 0 && r.bf16_flops_s < 4e12 * r.threads);
    if (took > 120) /* 0.5 s alone; busy neighbours and sanitizers make it more, never without end */
        fail_msg("the reading took %.1f s", took);
    pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_see_every_word),
        cmocka_unit_test(chains_do_what_they_count),
        cmocka_unit_test(the_machine_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
