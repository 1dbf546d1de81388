/* spare: blocks are malloc's own, kept by the thread that freed them. */
#include "check.h"

#include <pthread.h>

#include "base/spare.h"

/* Every block holds what was asked for, however often it has been somebody else's. */
static void test_sizes(void **state) {
    (void)state;
    uint64_t seed = 7;
    char    *held[200] = {0};
    size_t   sizes[200] = {0};
    for (int turn = 0; turn < 200000; turn++) {
        size_t i = (size_t)(test_random(&seed) % 200);
        if (held[i]) {
            for (size_t k = 0; k < sizes[i]; k += 97) {
                assert_int_equal((unsigned char)held[i][k], i);
            }
            assert_true(sizes[i] == 0 || (unsigned char)held[i][sizes[i] - 1] == i);
            spare_free(held[i]);
        }
        sizes[i] = (size_t)(test_random(&seed) % (turn % 8 == 0 ? 9000 : 300));
        held[i] = spare_malloc(sizes[i]);
        assert_non_null(held[i]);
        assert_int_equal((uintptr_t)held[i] % 16, 0);
        memset(held[i], (int)i, sizes[i]);
    }
    for (size_t i = 0; i < 200; i++) {
        spare_free(held[i]);
    }
    spare_free(NULL);
}

/* free and realloc take them, and spare_free takes malloc's. */
static void test_mixed(void **state) {
    (void)state;
    for (size_t n = 0; n < 6000; n = n * 2 + 1) {
        char *p = spare_malloc(n);
        p = realloc(p, n + 100);
        assert_non_null(p);
        memset(p, 1, n + 100);
        spare_free(p);
        free(spare_malloc(n));
        spare_free(malloc(n));
    }
}

/* Blocks go from one thread to another, and a thread that ends leaves none behind (a leak checker would say so). */
static void *free_all(void *arg) {
    void **blocks = arg;
    for (int i = 0; i < 1000; i++) {
        spare_free(blocks[i]);
        spare_free(spare_malloc(40));
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    void *blocks[1000];
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < 1000; i++) {
            blocks[i] = spare_malloc(i);
            memset(blocks[i], 2, i);
        }
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, free_all, blocks), 0);
        pthread_join(thread, NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
