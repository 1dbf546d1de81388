/* The forward pass against reference logits, for every instruction set this machine has. */
#include "check.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/forward.h"
#include "sequences.h"
#include "tensor/kernels.h"

static kv_cache *open_kv(const model_shape *shape, int count, int context, kv_type type, err *e) {
    return kv_open(shape, &(kv_options){.type = type, .sequences = count, .context = context}, e);
}

static void begin(kv_cache *kv, int sequence, const int32_t *ids, int n, bool reuse) {
    kv_release(kv, sequence);
    kv_begin(kv, sequence, (kv_scope){{1}}, ids, n, reuse);
    assert_false(kv_loading(kv, sequence));
    assert_true(kv_reserve(kv, sequence, n));
}

/* All positions of one sequence, `chunk` tokens a pass, in `slot`. */
static void run_sequence(forward *f, kv_cache *kv, const sequences *s, int which, int slot, int chunk, int vocab,
                         float *out) {
    forward_token batch[MOST];
    begin(kv, slot, s->ids[which], s->length[which], false);
    for (int at = 0; at < s->length[which]; at += chunk) {
        int n = s->length[which] - at < chunk ? s->length[which] - at : chunk;
        for (int i = 0; i < n; i++) {
            batch[i] = (forward_token){s->ids[which][at + i], slot, at + i, true};
        }
        memcpy(out + (size_t)at * (size_t)vocab, forward_run(f, kv, batch, n),
               (size_t)n * (size_t)vocab * sizeof(float));
    }
}

typedef struct deviation {
    double max, rms;
    int    other_argmax; /* rows whose best token differs though it was clear */
} deviation;

static int best_of(const float *row, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = row[i] > row[best] ? i : best;
    }
    return best;
}

static deviation compare(const float *got, const float *want, int rows, int vocab) {
    double    squares = 0, size = 0;
    deviation d = {0};
    for (long i = 0; i < (long)rows * vocab; i++) {
        double diff = fabs((double)got[i] - (double)want[i]);
        d.max = diff > d.max ? diff : d.max;
        squares += diff * diff;
        size += (double)want[i] * (double)want[i];
    }
    for (int r = 0; r < rows; r++) {
        const float *w = want + (size_t)r * (size_t)vocab, *g = got + (size_t)r * (size_t)vocab;
        int          best = best_of(w, vocab), mine = best_of(g, vocab);
        d.other_argmax += best != mine && (double)(w[best] - w[mine]) > 10 * d.max;
    }
    size = sqrt(size / ((double)rows * vocab));
    d.max /= size;
    d.rms = sqrt(squares / ((double)rows * vocab)) / size;
    return d;
}

static void check_model(const char *name, kv_type type, double max, double rms) {
    char path[256];
    snprintf(path, sizeof(path), FOLDER "%s/model.gguf", name);
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    err    e = {0};
    pool  *p = pool_new(2, &e);
    model *m = model_open(path, NULL, 0, p, &e);
    assert_ok(m, e);
    sequences *s = calloc(1, sizeof(*s));
    read_sequences(name, s);
    kv_cache *kv = open_kv(&m->shape, 4, MOST, type, &e);
    forward  *f = forward_new(m, p, MOST, MOST, &e);
    assert_ok(kv && f, e);

    int    vocab = m->shape.vocab, rows = s->length[0] + s->length[1] + s->length[2];
    size_t bytes = (size_t)rows * (size_t)vocab * sizeof(float), n;
    float *whole = malloc(bytes), *split = malloc(bytes);
    snprintf(path, sizeof(path), FOLDER "%s/logits.f32", name);
    float *want = (float *)(void *)slurp(path, &n);
    assert_int_equal(n, bytes);

    const int chunks[] = {MOST, 1, 7, 64};
    for (int c = 0; c < 4; c++) {
        float *out = c ? split : whole, *at = out;
        for (int i = 0; i < s->count; i++) {
            run_sequence(f, kv, s, i, (i + c) % 4, chunks[c], vocab, at);
            at += (size_t)s->length[i] * (size_t)vocab;
        }
        if (c && memcmp(whole, split, bytes) != 0) {
            fail_msg("%s: in chunks of %d the bits differ from the whole prompt's", name, chunks[c]);
        }
    }
    deviation d = compare(whole, want, rows, vocab);
    print_message("%s, %s, KV %s: max %.1e rms %.1e, other arg-max %d\n", name, kernels_get()->name, kv_type_name(type),
                  d.max, d.rms, d.other_argmax);
    assert_true(d.max <= max && d.rms <= rms && d.other_argmax == 0);
    if (type == KV_F32) {
        for (int r = 0; r < rows; r++) {
            assert_int_equal(best_of(whole + (size_t)r * (size_t)vocab, vocab),
                             best_of(want + (size_t)r * (size_t)vocab, vocab));
        }
    }
    free(whole);
    free(split);
    free(want);
    free(s);
    forward_free(f);
    kv_close(kv);
    model_close(m);
    pool_free(p);
}

static void logits_f32(void **state) {
    (void)state;
    check_model("llama", KV_F32, 2e-4, 2e-5);
    check_model("llama-tied", KV_F32, 2e-4, 2e-5);
    check_model("llama-ropefreqs", KV_F32, 2e-4, 2e-5);
}

static void logits_f16(void **state) {
    (void)state;
    check_model("llama", KV_F16, 5e-3, 1e-3);
    check_model("llama-tied", KV_F16, 5e-3, 1e-3);
    check_model("llama-ropefreqs", KV_F16, 5e-3, 1e-3);
}

/* Sequences of different lengths in one batch, with wanted rows here and there, give the bits that each gives alone. */
static void mixed_batch(void **state) {
    (void)state;
    const char *path = FOLDER "llama/model.gguf";
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    err       e = {0};
    pool     *p = pool_new(2, &e);
    model    *m = model_open(path, NULL, 0, p, &e);
    kv_cache *kv = m ? open_kv(&m->shape, 5, MOST, KV_F16, &e) : NULL;
    forward  *f = kv ? forward_new(m, p, 128, 128, &e) : NULL;
    assert_ok(f, e);
    sequences *s = calloc(1, sizeof(*s));
    read_sequences("llama", s);
    int    vocab = m->shape.vocab;
    float *alone = malloc((size_t)s->length[2] * (size_t)vocab * sizeof(float));
    run_sequence(f, kv, s, 2, 4, 64, vocab, alone);

    for (int slot = 0; slot < 4; slot++) {
        begin(kv, slot, s->ids[2], s->length[2], false);
    }
    int           at[4] = {0}, wanted[128];
    uint64_t      random = 5;
    forward_token batch[128];
    for (int step = 0; step < 40; step++) {
        int n = 0, rows = 0;
        for (int slot = 0; slot < 4; slot++) {
            int take = (int)(test_random(&random) % 32);
            for (int i = 0; i < take && at[slot] < s->length[2]; i++, n++) {
                batch[n] = (forward_token){s->ids[2][at[slot]], slot, at[slot], test_random(&random) % 3 == 0};
                if (batch[n].logits) {
                    wanted[rows++] = at[slot];
                }
                at[slot]++;
            }
        }
        if (n == 0) {
            continue;
        }
        const float *got = forward_run(f, kv, batch, n);
        for (int r = 0; r < rows; r++) {
            assert_memory_equal(got + (size_t)r * (size_t)vocab, alone + (size_t)wanted[r] * (size_t)vocab,
                                (size_t)vocab * sizeof(float));
        }
    }
    free(alone);
    free(s);
    forward_free(f);
    kv_close(kv);
    model_close(m);
    pool_free(p);
}

/* Coarser caches, measured: q8_0 max 5.6e-2, rms 9.4e-3; q4_0 0.88, 0.12. What a wrong layout gives is above 1. */
static void logits_of_quantised_caches(void **state) {
    (void)state;
    check_model("llama", KV_Q8_0, 0.1, 1.5e-2);
    check_model("llama", KV_Q4_0, 1.5, 0.2);
}

/* Sequences that begin alike hold the same blocks and read them together; each has the bits that it has alone. */
static void shared_beginning(void **state) {
    (void)state;
    enum { SHARERS = 6, LENGTH = 200, COMMON = 176 };
    const char *path = FOLDER "llama/model.gguf";
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        skip();
    }
    err       e = {0};
    pool     *p = pool_new(2, &e);
    model    *m = model_open(path, NULL, 0, p, &e);
    kv_cache *kv = m ? open_kv(&m->shape, SHARERS + 1, MOST, KV_F16, &e) : NULL;
    forward  *f = kv ? forward_new(m, p, MOST, MOST, &e) : NULL;
    assert_ok(f, e);
    sequences *s = calloc(1, sizeof(*s));
    read_sequences("llama", s);
    int            vocab = m->shape.vocab;
    size_t         row = (size_t)vocab * sizeof(float);
    float         *alone = malloc(SHARERS * row), *scratch = malloc(LENGTH * row);
    static int32_t ids[SHARERS][LENGTH];
    for (int i = 0; i < SHARERS; i++) {
        memcpy(ids[i], s->ids[2], sizeof(ids[i]));
        ids[i][COMMON] = i; /* from here on each goes its own way */
        memcpy(s->ids[3], ids[i], sizeof(ids[i]));
        s->length[3] = LENGTH;
        run_sequence(f, kv, s, 3, SHARERS, 64, vocab, scratch);
        memcpy(alone + (size_t)i * (size_t)vocab, scratch + (size_t)(LENGTH - 1) * (size_t)vocab, row);
    }
    forward_token batch[LENGTH];
    for (int i = 0; i < SHARERS; i++) {
        begin(kv, i, ids[i], LENGTH, true);
        int found = kv_found(kv, i).tokens, n = 0;
        assert_int_equal(found, i ? COMMON : 0);
        for (int at = found; at < LENGTH - 1; at++) {
            batch[n++] = (forward_token){ids[i][at], i, at, false};
        }
        forward_run(f, kv, batch, n);
        kv_commit(kv, i, LENGTH - 1);
    }
    for (int i = 0; i < SHARERS; i++) {
        assert_memory_equal(kv_table(kv, i), kv_table(kv, 0), COMMON / KV_TOKENS * sizeof(int32_t));
        batch[i] = (forward_token){ids[i][LENGTH - 1], i, LENGTH - 1, true};
    }
    assert_memory_equal(forward_run(f, kv, batch, SHARERS), alone, SHARERS * row);
    int     tokens;
    int64_t positions;
    forward_shared(f, &tokens, &positions);
    assert_int_equal(tokens, SHARERS);
    assert_int_equal(positions, (SHARERS - 1) * (COMMON / 64 * 64)); /* whole groups of attention */
    assert_ok(kv_check(kv, &e), e);
    free(alone);
    free(scratch);
    free(s);
    forward_free(f);
    kv_close(kv);
    model_close(m);
    pool_free(p);
}

static void refuses_what_cannot_be(void **state) {
    (void)state;
    err         e = {0};
    model_shape s = {.layers = 1 << 20, .kv_heads = 1 << 10, .head_dim = 1 << 10};
    assert_null(open_kv(&s, 1 << 20, 1 << 30, KV_F32, &e));
    assert_null(open_kv(&s, 0, 16, KV_F32, &e));
}

/* The kernels are chosen once in a process, so each instruction set has its own. */
static int in_child(const char *isa) {
    pid_t child = fork();
    if (child == 0) {
        setenv("PARE_ISA", isa, 1);
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(logits_f32),
            cmocka_unit_test(logits_f16),
            cmocka_unit_test(logits_of_quantised_caches),
            cmocka_unit_test(mixed_batch),
            cmocka_unit_test(shared_beginning),
            cmocka_unit_test(refuses_what_cannot_be),
        };
        exit(cmocka_run_group_tests_name(isa, tests, NULL, NULL));
    }
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void) {
    const char *const isas[] = {"scalar", "avx2", "avx512", "avx512bf16"};
    int               failed = 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (kernels_named(isas[i])) {
            failed += in_child(isas[i]);
        } else {
            printf("skipped: this machine has no %s\n", isas[i]);
        }
    }
    return failed != 0;
}
