/* The sampler against a plain reference that sorts, and its draws against the distribution they come from. */
#include "check.h"

#include <math.h>

#include "engine/sample.h"

#define VOCAB 5000

typedef struct candidate {
    int    id;
    double value;
} candidate;

static int falling(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    return x->value != y->value ? (x->value < y->value) - (x->value > y->value) : x->id - y->id;
}

static double uniform(uint64_t *state) {
    return (double)(test_random(state) >> 11) * 0x1p-53;
}

static void random_logits(float *out, int n, double spread, uint64_t seed) {
    for (int i = 0; i < n; i++) { /* Box-Muller */
        double u = uniform(&seed) + 1e-12, v = uniform(&seed);
        out[i] = (float)(spread * sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
    }
}

/* The whole definition, slowly: p[id] after all filters, 0 for what they remove. Returns how many stay. */
static int reference(const float *logits, int n, const sampling *how, double *p) {
    candidate *c = malloc((size_t)n * sizeof(*c));
    for (int i = 0; i < n; i++) {
        c[i] = (candidate){i, (double)logits[i]};
        p[i] = 0;
    }
    qsort(c, (size_t)n, sizeof(*c), falling);
    int kept = how->top_k > 0 && how->top_k < n ? how->top_k : n;
    if (how->top_p < 1) {
        double total = 0, sum = 0;
        for (int i = 0; i < kept; i++) {
            total += exp(c[i].value - c[0].value);
        }
        int i = 0;
        do {
            sum += exp(c[i++].value - c[0].value) / total;
        } while (i < kept && sum < (double)how->top_p);
        kept = i;
    }
    while (how->min_p > 0 && kept > 1 && exp(c[kept - 1].value - c[0].value) < (double)how->min_p) {
        kept--;
    }
    double total = 0;
    for (int i = 0; i < kept; i++) {
        total += p[c[i].id] = exp((c[i].value - c[0].value) / (double)how->temperature);
    }
    for (int i = 0; i < n; i++) {
        p[i] /= total;
    }
    free(c);
    return kept;
}

static sampler *begin(const sampling *how, int vocab) {
    err      e = {0};
    sampler *s = sampler_new(vocab, &e);
    assert_ok(s, e);
    sampler_begin(s, how, NULL, 0);
    return s;
}

/* Draws many times; nothing outside the filters may come, and Pearson's statistic over the likely tokens must be what
 * chance gives (mean = degrees of freedom, deviation sqrt(2 * degrees); six deviations are allowed). */
static void check_draws(const char *name, const float *logits, int n, sampling how, int draws) {
    double  *p = malloc((size_t)n * sizeof(*p));
    int     *count = calloc((size_t)n, sizeof(*count));
    int      kept = reference(logits, n, &how, p);
    sampler *s = begin(&how, n);
    for (int i = 0; i < draws; i++) {
        sampled out;
        sampler_next(s, logits, &out);
        count[out.token.id]++;
        if (p[out.token.id] <= 0) {
            fail_msg("%s: token %d was drawn though the filters remove it (%d stay)", name, out.token.id, kept);
        }
    }
    double chi = 0, rest = 0, rest_seen = 0;
    int    degrees = 0;
    for (int i = 0; i < n; i++) {
        double expected = p[i] * draws;
        if (expected >= 8) {
            chi += (count[i] - expected) * (count[i] - expected) / expected;
            degrees++;
        } else {
            rest += expected;
            rest_seen += count[i];
        }
    }
    if (rest >= 8) {
        chi += (rest_seen - rest) * (rest_seen - rest) / rest;
        degrees++;
    }
    degrees--;
    print_message("%-28s %5d stay, chi-square %.1f for %d degrees\n", name, kept, chi, degrees);
    assert_true(degrees <= 0 || chi < degrees + 6 * sqrt(2.0 * degrees) + 6);
    sampler_free(s);
    free(p);
    free(count);
}

static void distributions(void **state) {
    (void)state;
    float logits[VOCAB];
    random_logits(logits, VOCAB, 3, 1);
    sampling plain = sampling_default(), how = plain;
    plain.seed = how.seed = 77;
    check_draws("plain", logits, VOCAB, plain, 20000);
    check_draws("plain, 20 tokens", logits, 20, plain, 20000);
    how.temperature = 0.6f;
    check_draws("temperature 0.6", logits, VOCAB, how, 20000);
    how.temperature = 1.7f;
    check_draws("temperature 1.7", logits, VOCAB, how, 20000);
    how = plain;
    how.top_k = 40;
    check_draws("top-k 40", logits, VOCAB, how, 20000);
    how.top_k = 1;
    check_draws("top-k 1", logits, VOCAB, how, 100);
    how.top_k = VOCAB + 5;
    check_draws("top-k beyond the vocabulary", logits, VOCAB, how, 20000);
    how = plain;
    how.top_p = 0.9f;
    check_draws("top-p 0.9", logits, VOCAB, how, 20000);
    how.top_p = 0.2f;
    check_draws("top-p 0.2", logits, VOCAB, how, 20000);
    how.top_p = 0;
    check_draws("top-p 0", logits, VOCAB, how, 100);
    how = plain;
    how.min_p = 0.05f;
    check_draws("min-p 0.05", logits, VOCAB, how, 20000);
    how.min_p = 1;
    check_draws("min-p 1", logits, VOCAB, how, 100);
    how = (sampling){.temperature = 0.8f, .top_k = 50, .top_p = 0.8f, .min_p = 0.02f, .repeat_penalty = 1, .seed = 3};
    check_draws("all of them", logits, VOCAB, how, 20000);
}

/* The set of candidates is exactly the reference's, over many shapes; equal logits are broken by id. */
static void filters_are_exact(void **state) {
    (void)state;
    float    logits[257];
    double   p[257];
    uint64_t random = 9;
    for (int round = 0; round < 300; round++) {
        random_logits(logits, 257, 0.2 + (double)(round % 7), random);
        if (round % 3 == 0) {
            for (int i = 0; i < 257; i++) {
                logits[i] = floorf(logits[i]); /* many ties */
            }
        }
        sampling how = {.temperature = 50, /* nearly flat: what stays is drawn soon */
                        .top_k = round % 2 ? (int)(test_random(&random) % 30) : 0,
                        .top_p = round % 4 < 2 ? 1 : (float)uniform(&random),
                        .min_p = round % 5 ? 0 : (float)uniform(&random),
                        .repeat_penalty = 1,
                        .top_logprobs = -1,
                        .seed = (uint64_t)round};
        int      kept = reference(logits, 257, &how, p), seen = 0;
        if (kept > 60) {
            continue;
        }
        bool     hit[257] = {false};
        sampler *s = begin(&how, 257);
        for (int i = 0; i < 40 * kept + 40; i++) {
            sampled out;
            sampler_next(s, logits, &out);
            seen += !hit[out.token.id];
            hit[out.token.id] = true;
            if (p[out.token.id] <= 0) {
                fail_msg("round %d: token %d should have been removed", round, out.token.id);
            }
        }
        assert_int_equal(seen, kept);
        sampler_free(s);
    }
}

static void greedy_takes_the_first_best(void **state) {
    (void)state;
    float logits[100] = {0};
    logits[40] = logits[70] = 2;
    sampling how = sampling_default();
    how.temperature = 0;
    sampler *s = begin(&how, 100);
    sampled  out;
    for (int i = 0; i < 5; i++) {
        sampler_next(s, logits, &out);
        assert_int_equal(out.token.id, 40);
        assert_int_equal(out.n_top, 0);
    }
    sampler_free(s);
}

static void penalties(void **state) {
    (void)state;
    float    logits[4] = {2.0f, 1.9f, 0.9f, -1.0f};
    sampling how = sampling_default();
    sampled  out;
    how.temperature = 0;
    how.presence_penalty = 0.5f;
    sampler  *s = begin(&how, 4);
    const int presence[] = {0, 1, 0, 0, 1}; /* 2.0; 1.5 | 1.9; 1.5 | 1.4; it counts once only */
    sampler_next(s, logits, &out);
    assert_int_equal(out.token.id, presence[0]);
    sampler_next(s, logits, &out);
    assert_int_equal(out.token.id, presence[1]);
    for (int i = 0; i < 6; i++) {
        sampler_next(s, logits, &out);
        assert_int_equal(out.token.id, 0);
    }

    how.presence_penalty = 0;
    how.frequency_penalty = 0.3f;
    sampler_begin(s, &how, NULL, 0);
    const int frequency[] = {0, 1, 0, 1, 0, 1, 0, 1, 2}; /* 0 and 1 fall by 0.3 each time they come */
    for (int i = 0; i < 9; i++) {
        sampler_next(s, logits, &out);
        assert_int_equal(out.token.id, frequency[i]);
    }

    how.frequency_penalty = 0;
    how.repeat_penalty = 1.5f;
    const int32_t prompt[] = {0, 0, 3};
    sampler_begin(s, &how, prompt, 3);
    sampler_next(s, logits, &out);
    assert_int_equal(out.token.id, 1); /* 2.0 / 1.5 is less than 1.9 */
    sampler_next(s, logits, &out);
    assert_int_equal(out.token.id, 0); /* 1.9 / 1.5 is less than 2.0 / 1.5 */
    float low[2] = {-1.0f, -1.2f};
    sampler_free(s);
    s = begin(&how, 2);
    sampler_begin(s, &how, (const int32_t[]){0}, 1);
    sampler_next(s, low, &out);
    assert_int_equal(out.token.id, 1); /* a negative logit is multiplied */

    how.repeat_penalty = 1; /* nothing is left of the sequence before */
    sampler_begin(s, &how, NULL, 0);
    sampler_next(s, low, &out);
    assert_int_equal(out.token.id, 0);
    sampler_free(s);
}

static void logprobs(void **state) {
    (void)state;
    float logits[VOCAB];
    random_logits(logits, VOCAB, 2, 4);
    double total = 0;
    for (int i = 0; i < VOCAB; i++) {
        total += exp((double)logits[i]);
    }
    sampling how = {.temperature = 0.7f, .top_p = 0.5f, .presence_penalty = 1, .repeat_penalty = 1, .seed = 1};
    for (int n = 0; n <= SAMPLE_MAX_TOP; n += 5) {
        how.top_logprobs = n;
        sampler *s = begin(&how, VOCAB);
        for (int i = 0; i < 20; i++) { /* penalties and filters do not show in the report */
            sampled out;
            sampler_next(s, logits, &out);
            assert_int_equal(out.n_top, n);
            assert_float_equal(out.token.logprob, (double)logits[out.token.id] - log(total), 1e-4);
            for (int t = 0; t < n; t++) {
                assert_float_equal(out.top[t].logprob, (double)logits[out.top[t].id] - log(total), 1e-4);
                assert_true(t == 0 || out.top[t].logprob <= out.top[t - 1].logprob);
            }
            int above = 0;
            for (int v = 0; v < VOCAB && n > 0; v++) {
                above += logits[v] > logits[out.top[n - 1].id];
            }
            assert_true(n == 0 || above == n - 1);
        }
        sampler_free(s);
    }
}

static void the_seed_decides(void **state) {
    (void)state;
    float logits[VOCAB];
    random_logits(logits, VOCAB, 2, 8);
    sampling how = sampling_default();
    int      first[50], other = 0;
    sampler *s = begin(&how, VOCAB), *t = begin(&how, VOCAB);
    sampled  out;
    how.seed = 12;
    sampler_begin(s, &how, NULL, 0);
    for (int i = 0; i < 50; i++) {
        sampler_next(s, logits, &out);
        first[i] = out.token.id;
    }
    sampler_begin(t, &how, NULL, 0);
    for (int i = 0; i < 50; i++) {
        sampler_next(t, logits, &out);
        assert_int_equal(out.token.id, first[i]);
    }
    how.seed = 13;
    sampler_begin(s, &how, NULL, 0);
    for (int i = 0; i < 50; i++) {
        sampler_next(s, logits, &out);
        other += out.token.id != first[i];
    }
    assert_true(other > 30);
    sampler_free(s);
    sampler_free(t);
}

/* A broken model gives NaN and infinities: some token comes, nothing crashes. */
static void broken_logits(void **state) {
    (void)state;
    float    logits[64];
    sampling how[] = {{.temperature = 0, .repeat_penalty = 1, .top_logprobs = -1},
                      {.temperature = 0, .repeat_penalty = 1.2f, .top_logprobs = 20},
                      {.temperature = 1, .top_p = 0.5f, .top_k = 5, .min_p = 0.1f, .top_logprobs = 20},
                      {.temperature = 1e-38f, .top_p = 1, .repeat_penalty = 1, .top_logprobs = 3}};
    for (int kind = 0; kind < 5; kind++) {
        for (int i = 0; i < 64; i++) {
            const float values[] = {NAN, INFINITY, -INFINITY, i % 2 ? NAN : INFINITY, i == 9 ? 3.0f : NAN};
            logits[i] = values[kind];
        }
        for (int h = 0; h < 4; h++) {
            sampler *s = begin(&how[h], 64);
            for (int i = 0; i < 10; i++) {
                sampled out;
                sampler_next(s, logits, &out);
                assert_true(out.token.id >= 0 && out.token.id < 64);
                assert_true(isfinite(out.token.logprob));
                for (int t = 0; t < out.n_top; t++) {
                    assert_true(isfinite(out.top[t].logprob));
                }
            }
            sampler_free(s);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distributions),
        cmocka_unit_test(filters_are_exact),
        cmocka_unit_test(greedy_takes_the_first_best),
        cmocka_unit_test(penalties),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(broken_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
