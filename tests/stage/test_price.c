/* What usage costs: each kind of token, tier and length, against sums worked out by hand and a plain reckoning. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "stage/price.h"

#define USD   1000000000LL /* per million tokens, in nano-dollars */
#define AS_IT -1
#define UNSET                                                                                                          \
    .cached = AS_IT, .write_5m = AS_IT, .write_1h = AS_IT, .reasoning = AS_IT, .audio_in = AS_IT,                      \
    .audio_cached = AS_IT, .image_in = AS_IT, .audio_out = AS_IT, .search = AS_IT

static price plain(void) { /* $1 in, $2 out */
    return price_flat((price_rates){.input = USD, .output = 2 * USD, UNSET});
}

/* Every rate another power of ten, so that a token in the wrong place shows. */
static price_rates powers(void) {
    return (price_rates){.input = 1000000,
                         .cached = 10 * 1000000LL,
                         .write_5m = 100 * 1000000LL,
                         .write_1h = 1000 * 1000000LL,
                         .audio_in = 10000 * 1000000LL,
                         .audio_cached = 100000 * 1000000LL,
                         .image_in = 1000000 * 1000000LL,
                         .output = 10000000 * 1000000LL,
                         .reasoning = 100000000 * 1000000LL,
                         .audio_out = 1000000000 * 1000000LL,
                         .search = 10000000000 * 1000000LL};
}

static void test_small_requests_do_not_round_away(void **state) {
    (void)state;
    price p = price_flat((price_rates){.input = 150000000, .output = 600000000, UNSET});
    p.standard.cached = 75000000;
    assert_int_equal(price_of(&p, &(usage){.prompt = 1, .known = true}), 150);
    assert_int_equal(price_of(&p, &(usage){.prompt = 1000, .cached = 400, .completion = 10}), 90000 + 30000 + 6000);
    p = price_flat((price_rates){.input = 500000, .output = 499999, UNSET}); /* half a nano-dollar rounds up */
    assert_int_equal(price_of(&p, &(usage){.prompt = 1}), 1);
    assert_int_equal(price_of(&p, &(usage){.completion = 1}), 0);
    assert_int_equal(price_of(&p, &(usage){.prompt = 1, .completion = 1}), 1); /* the sum is rounded, once */
    p.known = false;
    assert_int_equal(price_of(&p, &(usage){.prompt = 1000000}), 0);
}

static void test_each_kind_has_its_rate(void **state) {
    (void)state;
    price p = price_flat(powers());
    usage u = {.prompt = 1 + 2 + 3 + 4 + 5 + 6 + 7, /* rest, cached text, writes, sound, cached sound, images */
               .cached = 2 + 6,
               .write_5m = 3,
               .write_1h = 4,
               .audio_in = 5 + 6,
               .audio_cached = 6,
               .image_in = 7,
               .completion = 8 + 9 + 1,
               .reasoning = 9,
               .audio_out = 1,
               .searches = 2};
    assert_int_equal(price_of(&p, &u), 21987654321LL); /* two of the dearest, one of the next, 9, 8, 7 ... 1 */
}

static void test_what_is_not_said_costs_as_the_next(void **state) {
    (void)state;
    price p = plain();
    usage u = {.prompt = 100,
               .cached = 10,
               .write_5m = 10,
               .write_1h = 10,
               .audio_in = 20,
               .audio_cached = 5,
               .image_in = 30,
               .completion = 100,
               .reasoning = 40,
               .audio_out = 20,
               .searches = 3};
    assert_int_equal(price_of(&p, &u), 100 * 1000 + 100 * 2000);
    p.standard.write_5m = 5 * USD; /* an hour costs as five minutes do, until it is said */
    assert_int_equal(price_of(&p, &u), 100 * 1000 + 100 * 2000 + 20 * 4000);
    p = plain();
    p.standard.cached = 0; /* nought is a price */
    assert_int_equal(price_of(&p, &u), 90 * 1000 + 100 * 2000);
}

static void test_parts_never_exceed_the_whole(void **state) {
    (void)state;
    price p = price_flat(powers());
    assert_int_equal(price_of(&p, &(usage){.prompt = 10, .cached = 99}), 100);
    assert_int_equal(price_of(&p, &(usage){.prompt = 10, .cached = 4, .write_5m = 99}), 40 + 600);
    assert_int_equal(price_of(&p, &(usage){.prompt = 10, .cached = 4, .image_in = 99}), 40 + 6000000);
    assert_int_equal(price_of(&p, &(usage){.completion = 3, .reasoning = 9, .audio_out = 9}), 300000000);
    assert_int_equal(price_of(&p, &(usage){.prompt = -5, .cached = -1, .completion = -7, .searches = -1}), 0);
}

static void test_tiers_and_lengths(void **state) {
    (void)state;
    price p = plain();
    p.long_from = 200000;
    p.longer.input = 4 * USD;
    p.batch.input = USD / 2;
    p.flex.input = USD / 4;
    p.priority.input = 3 * USD;
    p.longer_batch.input = 2 * USD;
    usage u = {.prompt = 200000};
    assert_int_equal(price_of(&p, &u), 200000000); /* not more than long_from */
    u.tier = TIER_BATCH;
    assert_int_equal(price_of(&p, &u), 100000000);
    u.tier = TIER_FLEX;
    assert_int_equal(price_of(&p, &u), 50000000);
    u.tier = TIER_PRIORITY;
    assert_int_equal(price_of(&p, &u), 600000000);
    u.prompt = 200001; /* then every token costs more */
    assert_int_equal(price_of(&p, &u), 200001000);
    u.tier = TIER_STANDARD;
    assert_int_equal(price_of(&p, &u), 800004000);
    u.tier = TIER_BATCH;
    assert_int_equal(price_of(&p, &u), 400002000);
}

static void test_absurd_counts(void **state) {
    (void)state;
    price p = price_flat((price_rates){.input = 1000 * USD, .output = 1000 * USD, UNSET});
    assert_int_equal(price_of(&p, &(usage){.prompt = 1LL << 29}), (1LL << 29) * 1000000);
    assert_int_equal(price_of(&p, &(usage){.prompt = 1LL << 53, .completion = 1LL << 53}), PRICE_MOST);
    assert_int_equal(price_of(&p, &(usage){.prompt = INT64_MAX, .cached = INT64_MAX}), PRICE_MOST);
}

static int64_t random_part(int64_t *left, unsigned *seed) {
    int64_t n = *left > 0 ? rand_r(seed) % (*left + 1) : 0;
    *left -= n;
    return n;
}

/* A random division of a prompt and an answer, priced part by part in floating point. */
static void test_against_a_plain_reckoning(void **state) {
    (void)state;
    unsigned seed = 5;
    for (int i = 0; i < 2000; i++) {
        price_rates r = {.input = rand_r(&seed),
                         .output = rand_r(&seed),
                         .cached = rand_r(&seed),
                         .write_5m = rand_r(&seed),
                         .write_1h = rand_r(&seed),
                         .reasoning = rand_r(&seed),
                         .audio_in = rand_r(&seed),
                         .audio_cached = rand_r(&seed),
                         .image_in = rand_r(&seed),
                         .audio_out = rand_r(&seed),
                         .search = rand_r(&seed)};
        price       p = price_flat(r);
        int64_t     left = rand_r(&seed) % 1000000, out = rand_r(&seed) % 100000;
        usage       u = {.prompt = left, .completion = out, .searches = rand_r(&seed) % 9};
        int64_t     text_cached = random_part(&left, &seed), audio_cached = random_part(&left, &seed);
        u.write_5m = random_part(&left, &seed);
        u.write_1h = random_part(&left, &seed);
        int64_t audio = random_part(&left, &seed);
        u.image_in = random_part(&left, &seed);
        u.cached = text_cached + audio_cached;
        u.audio_cached = audio_cached;
        u.audio_in = audio + audio_cached;
        u.reasoning = random_part(&out, &seed);
        u.audio_out = random_part(&out, &seed);
        double sum = (double)left * (double)r.input + (double)text_cached * (double)r.cached +
                     (double)audio_cached * (double)r.audio_cached + (double)u.write_5m * (double)r.write_5m +
                     (double)u.write_1h * (double)r.write_1h + (double)audio * (double)r.audio_in +
                     (double)u.image_in * (double)r.image_in + (double)out * (double)r.output +
                     (double)u.reasoning * (double)r.reasoning + (double)u.audio_out * (double)r.audio_out +
                     (double)u.searches * (double)r.search;
        assert_true(llabs(price_of(&p, &u) - (int64_t)(sum / 1e6 + 0.5)) <= 1); /* doubles have 53 bits */
        assert_true(price_most(&p, u.prompt, u.completion) + u.searches * r.search / 1000000 + 1 >= price_of(&p, &u));
    }
}

static void test_the_most(void **state) {
    (void)state;
    price p = plain();
    assert_int_equal(price_most(&p, 1000, 100), 1000 * 1000 + 100 * 2000);
    p.standard.write_1h = 2 * USD;
    p.standard.reasoning = 3 * USD;
    assert_int_equal(price_most(&p, 1000, 100), 1000 * 2000 + 100 * 3000);
    p.priority.output = 9 * USD; /* a provider's account may choose the tier */
    assert_int_equal(price_most(&p, 1000, 100), 1000 * 2000 + 100 * 9000);
    p.long_from = 1000;
    p.longer.input = 50 * USD;
    assert_int_equal(price_most(&p, 500, 0), 500 * 2000);
    assert_int_equal(price_most(&p, 900, 0), 900 * 50000); /* the prompt's length is an estimate */
    assert_int_equal(price_most(&p, -1, -1), 0);
}

/* One that stands for several is as dear as each of them, whatever is asked. */
static void test_raised(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 2000; round++) {
        price p[3];
        for (int i = 0; i < 3; i++) {
            int64_t rate[6];
            for (int k = 0; k < 6; k++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                rate[k] = (int64_t)(seed >> 33) % (20 * USD);
            }
            p[i] = price_flat((price_rates){.input = rate[0],
                                            .output = rate[1],
                                            .cached = rate[2],
                                            .write_5m = rate[0],
                                            .write_1h = rate[3],
                                            .reasoning = rate[1],
                                            .audio_in = rate[0],
                                            .audio_cached = rate[2],
                                            .image_in = rate[0],
                                            .audio_out = rate[4]});
            if (seed >> 20 & 1) {
                p[i].long_from = 1000 + (int64_t)(seed >> 40) % 1000;
                p[i].longer.input = p[i].longer.output = rate[5];
            }
        }
        price all = p[0];
        price_raise(&all, &p[1]);
        price_raise(&all, &p[2]);
        int64_t prompt = (int64_t)(seed >> 30) % 4000, output = (int64_t)(seed >> 22) % 3000;
        usage   u = {.prompt = prompt, .completion = output, .cached = prompt / 3, .known = true};
        for (int i = 0; i < 3; i++) {
            assert_true(price_most(&all, prompt, output) >= price_most(&p[i], prompt, output));
            assert_true(price_most(&all, prompt, output) >= price_of(&p[i], &u));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_requests_do_not_round_away),
        cmocka_unit_test(test_each_kind_has_its_rate),
        cmocka_unit_test(test_what_is_not_said_costs_as_the_next),
        cmocka_unit_test(test_parts_never_exceed_the_whole),
        cmocka_unit_test(test_tiers_and_lengths),
        cmocka_unit_test(test_absurd_counts),
        cmocka_unit_test(test_against_a_plain_reckoning),
        cmocka_unit_test(test_the_most),
        cmocka_unit_test(test_raised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
