/* The numbers of evaluations against what can be computed by hand or in another way. */
#include <math.h>

#include "check.h"
#include "learn/statistics.h"

static void near(double is, double should, double within) {
    if (!(fabs(is - should) <= within))
        fail_msg("%.17g is not %.17g", is, should);
}

static void test_nll(void **state) {
    (void)state;
    const float even[4] = {7, 7, 7, 7};
    near(nll_of(even, 4, 2), log(4), 1e-15);
    const float large[3] = {1000, 999, -1000}; /* exp of these overflows */
    near(nll_of(large, 3, 0), log(1 + exp(-1)), 1e-12);
    near(nll_of(large, 3, 2), 2000 + log(1 + exp(-1)), 1e-9);
}

static void test_divergence(void **state) {
    (void)state;
    /* p = 1/2, 1/4, 1/4 and q = 1/4, 1/2, 1/4: KL = 1/2 ln 2 - 1/4 ln 2. */
    const float p[3] = {logf(2), 0, 0}, q[3] = {5, 5 + logf(2), 5};
    divergence  d = divergence_of(p, q, 3, 1);
    near(d.kl, 0.25 * log(2), 1e-7);
    near(d.p_id, 0.25, 1e-7);
    near(d.q_id, 0.5, 1e-7);
    assert_int_equal(d.p_top, 0);
    assert_int_equal(d.q_top, 1);
    d = divergence_of(p, p, 3, 0);
    assert_true(d.kl == 0);
    assert_int_equal(d.p_top, d.q_top);
    uint64_t seed = 3;
    float    a[500], b[500];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 500; i++) {
            a[i] = (float)(test_random(&seed) % 1000) / 100;
            b[i] = a[i] + (float)(test_random(&seed) % 100) / 1000;
        }
        d = divergence_of(a, b, 500, 7);
        double kl = 0;
        for (int i = 0; i < 500; i++)
            kl += exp(-nll_of(a, 500, i)) * (nll_of(b, 500, i) - nll_of(a, 500, i));
        near(d.kl, kl, 1e-12);
        assert_true(d.kl > 0);
    }
}

static void test_running(void **state) {
    (void)state;
    running      r = {0};
    const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};
    for (int i = 0; i < 8; i++)
        running_add(&r, x[i]);
    near(r.mean, 5, 1e-15);
    near(r.squares, 32, 1e-12);
    near(running_error(&r), sqrt(32.0 / 7 / 8), 1e-15);
    running one = {0};
    running_add(&one, 3);
    assert_true(running_error(&one) == 0);
}

static void test_quantile(void **state) {
    (void)state;
    double x[] = {5, 1, 4, 2, 3};
    sort_numbers(x, 5);
    near(quantile(x, 5, 0), 1, 0);
    near(quantile(x, 5, 0.5), 3, 0);
    near(quantile(x, 5, 0.9), 4.6, 1e-15);
    near(quantile(x, 5, 1), 5, 0);
    near(quantile(x, 1, 0.99), 1, 0);
    assert_true(isnan(quantile(x, 0, 0.5)));
}

static void test_wilson(void **state) {
    (void)state;
    interval i = wilson(90, 100); /* 0.8256 to 0.9448: Wilson's interval in any table */
    near(i.low, 0.82563, 1e-5);
    near(i.high, 0.94477, 1e-5);
    i = wilson(10, 10);
    assert_true(i.high == 1 && i.low > 0.7 && i.low < 0.75);
    i = wilson(0, 10);
    assert_true(i.low == 0);
}

static void test_deviation(void **state) {
    (void)state;
    const float a[4] = {1, 2, 3, 0.0f}, b[4] = {1, 2.5f, 1, -0.0f};
    deviation   d = deviation_of(a, b, 4);
    near(d.rms, sqrt((0.25 + 4) / 4), 1e-12);
    near(d.largest, 2, 0);
    assert_int_equal(d.at, 2);
    assert_int_equal(d.first, 1);
    d = deviation_of(a, a, 4);
    assert_true(d.rms == 0 && d.largest == 0 && d.first == -1);
    const float c[4] = {1, NAN, 3, 0};
    d = deviation_of(a, c, 4);
    assert_true(isnan(d.largest) && d.at == 1 && d.first == 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nll),      cmocka_unit_test(test_divergence), cmocka_unit_test(test_running),
        cmocka_unit_test(test_quantile), cmocka_unit_test(test_wilson),     cmocka_unit_test(test_deviation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
