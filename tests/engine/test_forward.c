/* The forward pass against reference logits, for every instruction set this machine has. */
#include "check.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "engine/forward.h"
#include "tensor/kernels.h"

#define FOLDER "../shared/conformance/logits/"
#define MOST   256 /* tokens a sequence */

typedef struct sequences {
    int32_t ids[8][MOST];
    int     length[8];
    int     count;
} sequences;

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, f), *n);
    data[*n] = 0;
    fclose(f);
    return data;
}

static void read_sequences(const char *name, sequences *out) {
    char path[256];
    snprintf(path, sizeof(path), FOLDER "%s/tokens.json", name);
    size_t n;
    char  *text = slurp(path, &n);
    cJSON *lists = cJSON_ParseWithLength(text, n), *list, *id;
    memset(out, 0, sizeof(*out));
    cJSON_ArrayForEach(list, lists) {
        int s = out->count++;
        cJSON_ArrayForEach(id, list) {
            assert_true(out->length[s] < MOST);
            out->ids[s][out->length[s]++] = (int32_t)id->valuedouble;
        }
    }
    cJSON_Delete(lists);
    free(text);
}

/* All positions of one sequence, `chunk` tokens a pass, in `slot`. */
static void run_sequence(forward *f, kv_cache *kv, const sequences *s, int which, int slot, int chunk, int vocab,
                         float *out) {
    forward_token batch[MOST];
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
    kv_cache *kv = kv_open(&m->shape, 4, MOST, type, &e);
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
    print_message("%s, %s, KV %s: max %.1e rms %.1e, other arg-max %d\n", name, kernels_get()->name,
                  type == KV_F32 ? "f32" : "f16", d.max, d.rms, d.other_argmax);
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
    kv_cache *kv = m ? kv_open(&m->shape, 5, MOST, KV_F16, &e) : NULL;
    forward  *f = kv ? forward_new(m, p, 128, 128, &e) : NULL;
    assert_ok(f, e);
    sequences *s = calloc(1, sizeof(*s));
    read_sequences("llama", s);
    int    vocab = m->shape.vocab;
    float *alone = malloc((size_t)s->length[2] * (size_t)vocab * sizeof(float));
    run_sequence(f, kv, s, 2, 4, 64, vocab, alone);

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

static void refuses_what_cannot_be(void **state) {
    (void)state;
    err         e = {0};
    model_shape s = {.layers = 1 << 20, .kv_heads = 1 << 10, .head_dim = 1 << 10};
    assert_null(kv_open(&s, 1 << 20, 1 << 30, KV_F32, &e));
    assert_says(e, "cannot be addressed");
    assert_null(kv_open(&s, 0, 16, KV_F32, &e));
}

/* The kernels are chosen once in a process, so each instruction set has its own. */
static int in_child(const char *isa) {
    pid_t child = fork();
    if (child == 0) {
        setenv("PARE_ISA", isa, 1);
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(logits_f32),
            cmocka_unit_test(logits_f16),
            cmocka_unit_test(mixed_batch),
            cmocka_unit_test(refuses_what_cannot_be),
        };
        exit(cmocka_run_group_tests_name(isa, tests, NULL, NULL));
    }
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void) {
    const char *const isas[] = {"scalar", "avx2", "avx512"};
    int               failed = 0;
    for (int i = 0; i < 3; i++) {
        if (kernels_named(isas[i])) {
            failed += in_child(isas[i]);
        } else {
            printf("skipped: this machine has no %s\n", isas[i]);
        }
    }
    return failed != 0;
}
