/* The index alone: the tree and its look-ups, who goes first, what is remembered, and the time of a long match. */
#include "check.h"

#include "base/clock.h"
#include "engine/kv_index.h"

static const kv_scope house = {{1}}, other = {{2}};

static const kv_scope *scopes[2] = {&house, &other};

static kv_index *open_index(int blocks) {
    err       e = {0};
    kv_index *x = kv_index_new(blocks, &e);
    assert_ok(x, e);
    return x;
}

static void fill(int32_t *tokens, int32_t first) {
    for (int i = 0; i < KV_TOKENS; i++) {
        tokens[i] = first + i;
    }
}

static int add(kv_index *x, const kv_scope *scope, int parent, int32_t first) {
    int32_t tokens[KV_TOKENS];
    fill(tokens, first);
    int b = kv_index_take(x);
    assert_int_not_equal(b, KV_NONE);
    kv_index_add(x, scope, parent, tokens, b);
    return b;
}

static int find(const kv_index *x, const kv_scope *scope, int parent, int32_t first) {
    int32_t tokens[KV_TOKENS];
    fill(tokens, first);
    return kv_index_find(x, scope, parent, tokens);
}

static bool lost(const kv_index *x, const kv_scope *scope, int parent, int32_t first) {
    int32_t tokens[KV_TOKENS];
    fill(tokens, first);
    return kv_index_lost(x, scope, parent, tokens);
}

static void check(const kv_index *x, const int32_t *holders) {
    err e = {0};
    assert_ok(kv_index_check(x, holders, &e), e);
}

static void test_find(void **state) {
    (void)state;
    kv_index *x = open_index(8);
    int32_t   holders[8] = {0};
    int       a = add(x, &house, KV_NONE, 100), b = add(x, &house, a, 200), c = add(x, &house, a, 300);
    holders[a] = holders[b] = holders[c] = 1;
    assert_int_equal(find(x, &house, KV_NONE, 100), a);
    assert_int_equal(find(x, &house, a, 200), b);
    assert_int_equal(find(x, &house, a, 300), c);
    assert_int_equal(find(x, &house, b, 300), KV_NONE); /* the same tokens elsewhere */
    assert_int_equal(find(x, &house, KV_NONE, 200), KV_NONE);
    assert_int_equal(find(x, &other, KV_NONE, 100), KV_NONE);
    int d = add(x, &other, KV_NONE, 100);
    holders[d] = 1;
    assert_int_equal(find(x, &other, KV_NONE, 100), d);
    assert_int_equal(find(x, &house, KV_NONE, 100), a);
    check(x, holders);
    kv_index_free(x);
}

static void test_nearest(void **state) {
    (void)state;
    kv_index *x = open_index(8);
    int32_t   tokens[KV_TOKENS];
    int       common = -1;
    int       a = add(x, &house, KV_NONE, 100), b = add(x, &house, a, 200);
    fill(tokens, 200);
    tokens[5] = 9;
    assert_int_equal(kv_index_nearest(x, &house, a, tokens, KV_TOKENS, &common), b);
    assert_int_equal(common, 5);
    assert_int_equal(kv_index_nearest(x, &house, a, tokens, 3, &common), b);
    assert_int_equal(common, 3);
    assert_int_equal(kv_index_nearest(x, &house, b, tokens, KV_TOKENS, &common), KV_NONE);
    assert_int_equal(common, 0);
    int closer = kv_index_take(x);
    tokens[9] = 8;
    kv_index_add(x, &house, a, tokens, closer);
    tokens[9] = 7;
    assert_int_equal(kv_index_nearest(x, &house, a, tokens, KV_TOKENS, &common), closer);
    assert_int_equal(common, 9);
    fill(tokens, 100);
    assert_int_equal(kv_index_nearest(x, &other, KV_NONE, tokens, 12, &common), KV_NONE);
    assert_int_equal(kv_index_nearest(x, &house, KV_NONE, tokens, 12, &common), a);
    kv_index_free(x);
}

static void test_nearest_is_bounded(void **state) {
    (void)state;
    enum { MANY = 200 };
    kv_index *x = open_index(MANY);
    int32_t   tokens[KV_TOKENS];
    int       common;
    for (int i = 0; i < MANY; i++) {
        add(x, &house, KV_NONE, 1000 * i);
    }
    fill(tokens, 1000 * (MANY - KV_CHILDREN));
    assert_int_not_equal(kv_index_nearest(x, &house, KV_NONE, tokens, 8, &common), KV_NONE);
    assert_int_equal(common, 8);
    fill(tokens, 1000 * (MANY - KV_CHILDREN - 1));
    assert_int_equal(kv_index_nearest(x, &house, KV_NONE, tokens, 8, &common), KV_NONE);
    assert_int_equal(find(x, &house, KV_NONE, 1000 * (MANY - KV_CHILDREN - 1)), MANY - KV_CHILDREN - 1);
    kv_index_free(x);
}

static void test_lowest_and_last_first(void **state) {
    (void)state;
    kv_index *x = open_index(4);
    assert_int_equal(kv_index_take(x), 0);
    assert_int_equal(kv_index_take(x), 1);
    kv_index_drop(x, 0);
    assert_int_equal(kv_index_available(x), 3);
    assert_int_equal(kv_index_take(x), 0); /* used before: its pages are there */
    assert_int_equal(kv_index_take(x), 2);
    assert_int_equal(kv_index_take(x), 3);
    assert_int_equal(kv_index_take(x), KV_NONE);
    kv_index_free(x);
}

/* Two chains, released one after the other: the first goes first, its tail before its root. */
static void test_leaves_of_the_oldest_first(void **state) {
    (void)state;
    kv_index *x = open_index(6);
    int32_t   holders[6] = {0};
    int       chain[2][3];
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < 3; i++) {
            chain[c][i] = add(x, &house, i ? chain[c][i - 1] : KV_NONE, 100 * c + 20 * i);
        }
    }
    for (int c = 1; c >= 0; c--) {
        for (int i = 2; i >= 0; i--) {
            kv_index_drop(x, chain[c][i]);
        }
    }
    check(x, holders);
    assert_int_equal(kv_index_available(x), 6);
    assert_int_equal(kv_index_count(x).cached, 6);
    int want[6] = {chain[1][2], chain[1][1], chain[1][0], chain[0][2], chain[0][1], chain[0][0]};
    for (int i = 0; i < 6; i++) {
        assert_int_equal(kv_index_take(x), want[i]);
        holders[want[i]] = 1;
        check(x, holders);
    }
    assert_int_equal(kv_index_take(x), KV_NONE);
    assert_int_equal(kv_index_count(x).evicted, 6);
    kv_index_free(x);
}

static void test_use_renews(void **state) {
    (void)state;
    kv_index *x = open_index(3);
    int       a = add(x, &house, KV_NONE, 0), b = add(x, &house, KV_NONE, 50), c = add(x, &house, KV_NONE, 90);
    kv_index_drop(x, a);
    kv_index_drop(x, b);
    kv_index_drop(x, c);
    kv_index_hold(x, a);
    assert_int_equal(kv_index_available(x), 2);
    kv_index_drop(x, a);
    assert_int_equal(kv_index_take(x), b);
    assert_int_equal(kv_index_take(x), c);
    assert_int_equal(kv_index_take(x), a);
    kv_index_free(x);
}

/* What the disk needs stays, and so do its ancestors, although nobody holds them. */
static void test_pinned(void **state) {
    (void)state;
    kv_index *x = open_index(4);
    int32_t   holders[4] = {0};
    int       root = add(x, &house, KV_NONE, 0), mid = add(x, &house, root, 50), leaf = add(x, &house, mid, 90);
    int       own = kv_index_take(x);
    kv_index_pin(x, mid);
    kv_index_pin(x, own);
    kv_index_drop(x, leaf);
    kv_index_drop(x, mid);
    kv_index_drop(x, root);
    kv_index_drop(x, own);
    check(x, holders);
    assert_int_equal(kv_index_count(x).held, 0);
    assert_int_equal(kv_index_count(x).cached, 3);
    assert_int_equal(kv_index_available(x), 1);
    assert_int_equal(kv_index_take(x), leaf);
    assert_int_equal(kv_index_take(x), KV_NONE);
    kv_index_unpin(x, mid);
    holders[leaf] = 1;
    check(x, holders);
    assert_int_equal(kv_index_take(x), mid);
    assert_int_equal(kv_index_take(x), root);
    kv_index_unpin(x, own);
    assert_int_equal(kv_index_take(x), own);
    kv_index_free(x);
}

static void test_remembers_the_evicted(void **state) {
    (void)state;
    kv_index *x = open_index(2);
    int       a = add(x, &house, KV_NONE, 0), b = add(x, &house, a, 50);
    assert_false(lost(x, &house, KV_NONE, 0));
    kv_index_drop(x, b);
    kv_index_drop(x, a);
    int first = kv_index_take(x);
    assert_int_equal(first, b);
    assert_true(lost(x, &house, a, 50));
    assert_false(lost(x, &house, KV_NONE, 50));
    int second = kv_index_take(x);
    assert_int_equal(second, a);
    assert_true(lost(x, &house, KV_NONE, 0));
    assert_false(lost(x, &other, KV_NONE, 0));
    int32_t tokens[KV_TOKENS];
    fill(tokens, 0);
    kv_index_add(x, &house, KV_NONE, tokens, second); /* it is back */
    assert_false(lost(x, &house, KV_NONE, 0));
    kv_index_free(x);
}

/* More scopes one after another than there are records: they come back. */
static void test_scopes_come_and_go(void **state) {
    (void)state;
    kv_index *x = open_index(3);
    int32_t   holders[3] = {0};
    for (int i = 0; i < 100; i++) {
        kv_scope scope = {{(uint8_t)i, 77}};
        int      b = add(x, &scope, KV_NONE, 5);
        assert_int_equal(find(x, &scope, KV_NONE, 5), b);
        kv_index_drop(x, b);
        check(x, holders);
    }
    assert_int_equal(kv_index_count(x).evicted, 97);
    kv_index_free(x);
}

static void test_counts(void **state) {
    (void)state;
    kv_index *x = open_index(3);
    int       a = add(x, &house, KV_NONE, 0);
    kv_index_hold(x, a);
    kv_index_hold(x, a);
    kv_index_counts c = kv_index_count(x);
    assert_int_equal(c.held, 1);
    assert_int_equal(c.shared, 1);
    kv_index_drop(x, a);
    kv_index_drop(x, a);
    c = kv_index_count(x);
    assert_int_equal(c.held, 1);
    assert_int_equal(c.shared, 0);
    kv_index_drop(x, a);
    c = kv_index_count(x);
    assert_int_equal(c.held, 0);
    assert_int_equal(c.cached, 1);
    kv_index_free(x);
}

static void test_refused(void **state) {
    (void)state;
    err e = {0};
    assert_null(kv_index_new(0, &e));
    assert_says(e, "0 blocks");
    assert_null(kv_index_new(INT32_MAX, &e));
    assert_says(e, "2147483647 blocks");
}

/* A check that finds nothing proves nothing: wrong books must be told. */
static void test_check_sees(void **state) {
    (void)state;
    kv_index *x = open_index(3);
    err       e = {0};
    int32_t   holders[3] = {0};
    int       a = add(x, &house, KV_NONE, 0);
    assert_false(kv_index_check(x, holders, &e));
    assert_says(e, "counts 1 holders, and 0 hold it");
    kv_index_drop(x, a);
    holders[2] = 1; /* never given away */
    assert_false(kv_index_check(x, holders, &e));
    assert_says(e, "block 2");
    kv_index_free(x);
}

/* Random trees: whatever is done, the books are right and everything that was added and not evicted is found. */
static void test_many_steps(void **state) {
    (void)state;
    enum { BLOCKS = 40, STEPS = 30000 };
    kv_index *x = open_index(BLOCKS);
    uint64_t  seed = 7;
    int32_t   holders[BLOCKS] = {0};
    int       path[8][6], depth[8] = {0}; /* eight walkers, each with a chain of held nodes */
    for (int step = 0; step < STEPS; step++) {
        int w = (int)(test_random(&seed) % 8);
        int grow = test_random(&seed) % 3 != 0;
        if (grow && depth[w] < 6) {
            const kv_scope *scope = scopes[w % 2];
            int             parent = depth[w] ? path[w][depth[w] - 1] : KV_NONE;
            int32_t         first = (int32_t)(test_random(&seed) % 3) * 100;
            int             b = find(x, scope, parent, first);
            if (b != KV_NONE) {
                kv_index_hold(x, b);
            } else if (kv_index_available(x)) {
                b = add(x, scope, parent, first);
            } else {
                assert_int_equal(kv_index_take(x), KV_NONE);
                continue;
            }
            path[w][depth[w]++] = b;
            holders[b]++;
        } else {
            int keep = depth[w] ? (int)(test_random(&seed) % (uint64_t)depth[w]) : 0;
            while (depth[w] > keep) {
                int b = path[w][--depth[w]];
                holders[b]--;
                kv_index_drop(x, b);
            }
        }
        check(x, holders);
    }
    assert_true(kv_index_count(x).evicted > 1000);
    kv_index_free(x);
}

/* 2000 tokens are 125 look-ups, among 100000 nodes. The bound is generous, for machines under load; the time is told. */
static void test_time_of_a_match(void **state) {
    (void)state;
    enum { NODES = 100000, LENGTH = 125, ROUNDS = 40 };
    kv_index *x = open_index(NODES);
    int       chain[LENGTH], n = 0, parent = KV_NONE;
    for (int i = 0; i < NODES; i++) { /* the chain lies spread among the others, which are all roots */
        bool next = i % (NODES / LENGTH) == 0;
        int  b = add(x, &house, next ? parent : KV_NONE, next ? 16 * n : 16 * i);
        if (next) {
            chain[n++] = parent = b;
        }
    }
    assert_int_equal(n, LENGTH);
    for (int i = LENGTH - 1; i >= 0; i--) {
        kv_index_drop(x, chain[i]);
    }
    int64_t best = INT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        int64_t begin = clock_us();
        parent = KV_NONE;
        for (int i = 0; i < LENGTH; i++) {
            parent = find(x, &house, parent, 16 * i);
            assert_int_equal(parent, chain[i]);
            kv_index_hold(x, parent);
        }
        int64_t took = clock_us() - begin;
        best = took < best ? took : best;
        for (int i = LENGTH - 1; i >= 0; i--) {
            kv_index_drop(x, chain[i]);
        }
    }
    print_message("finding 2000 tokens among %d nodes: %lld us\n", NODES, (long long)best);
    assert_true(best < 1000);
    kv_index_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_nearest_is_bounded),
        cmocka_unit_test(test_lowest_and_last_first),
        cmocka_unit_test(test_leaves_of_the_oldest_first),
        cmocka_unit_test(test_use_renews),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_remembers_the_evicted),
        cmocka_unit_test(test_scopes_come_and_go),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_check_sees),
        cmocka_unit_test(test_many_steps),
        cmocka_unit_test(test_time_of_a_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
