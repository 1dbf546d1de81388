/* Every architecture of the conformance set: its logits, or rows, against the reference's, in one pass and in chunks, on
 * every instruction set; and one row alone has the bits that it has among others. F16 caches are tried on the best set
 * alone, and rows alone not on the plain one, where each takes as long as a batch: test_attend.c and test_matrix.c hold
 * all sets to the plain one's answers. */
#include "check.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/forward.h"
#include "engine/kv.h"
#include "sequences.h"
#include "tensor/kernels.h"

/* Deviations as the set's README has them: relative to the size of all expected values. F32 and F16 keys and values. */
typedef struct bound {
    const char *name, *file;
    double      max, rms, max_f16, rms_f16;
    bool        experts; /* rounding may choose another expert: 2 % of the rows are left out then */
} bound;

static const bound bounds[] = {
    {"llama", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"llama-tied", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"llama-ropefreqs", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"qwen2", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"qwen3", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"qwen3moe", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, true},
    {"gemma2", "logits.f32", 1e-3, 2e-4, 3e-2, 5e-3, false},
    {"phi3", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"gpt2", "logits.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"bert-mean", "hidden.erf.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
    {"bert-cls", "hidden.erf.f32", 2e-4, 2e-5, 5e-3, 1e-3, false},
};

/* All rows of all sequences, `chunk` tokens a pass. */
static void run_all(forward *f, kv_cache *kv, const sequences *s, int chunk, int width, float *out) {
    forward_token batch[MOST];
    for (int i = 0; i < s->count; i++) {
        kv_release(kv, 0);
        kv_begin(kv, 0, (kv_scope){{1}}, s->ids[i], s->length[i], false);
        assert_true(kv_reserve(kv, 0, s->length[i]));
        for (int at = 0, n; at < s->length[i]; at += n) {
            n = s->length[i] - at < chunk ? s->length[i] - at : chunk;
            for (int t = 0; t < n; t++)
                batch[t] = (forward_token){s->ids[i][at + t], 0, at + t, true};
            memcpy(out, forward_run(f, kv, batch, n), (size_t)n * (size_t)width * sizeof(float));
            out += (size_t)n * (size_t)width;
        }
    }
}

static int best_of(const float *row, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        best = row[i] > row[best] ? i : best;
    return best;
}

static void compare(const bound *b, kv_type type, const float *got, const float *want, int rows, int width) {
    double size = 0, squares = 0, max = 0, most = type == KV_F32 ? b->max : b->max_f16;
    int    left_out = 0, other = 0;
    for (long i = 0; i < (long)rows * width; i++)
        size += (double)want[i] * (double)want[i];
    size = sqrt(size / ((double)rows * width));
    for (int r = 0; r < rows; r++) {
        const float *g = got + (size_t)r * (size_t)width, *w = want + (size_t)r * (size_t)width;
        double       peak = 0, sum = 0;
        for (int i = 0; i < width; i++) {
            double diff = fabs((double)g[i] - (double)w[i]) / size;
            peak = diff > peak ? diff : peak;
            sum += diff * diff;
        }
        if (b->experts && type != KV_F32 && peak > most) {
            left_out++;
            continue;
        }
        other += type == KV_F32 && best_of(g, width) != best_of(w, width);
        max = peak > max ? peak : max;
        squares += sum;
    }
    double rms = sqrt(squares / ((double)rows * width));
    print_message("%s, %s, KV %s: max %.1e rms %.1e, other arg-max %d, rows left out %d\n", b->name,
                  kernels_get()->name, kv_type_name(type), max, rms, other, left_out);
    assert_true(max <= most);
    assert_true(rms <= (type == KV_F32 ? b->rms : b->rms_f16));
    assert_true(other == 0 && left_out * 50 <= rows);
}

static void check_model(const bound *b, kv_type type) {
    char path[256];
    err  e = {0};
    snprintf(path, sizeof(path), FOLDER "%s/model.gguf", b->name);
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not here\n", path);
        return;
    }
    pool  *p = pool_new(2, &e);
    model *m = model_open(path, NULL, 0, p, &e);
    assert_ok(m, e);
    sequences *s = calloc(1, sizeof(*s));
    read_sequences(b->name, s);
    kv_cache *kv = kv_open(&m->shape, &(kv_options){.type = type, .sequences = 1, .context = MOST}, &e);
    forward  *f = forward_new(m, p, MOST, MOST, &e);
    assert_ok(kv && f, e);
    int    width = m->shape.headless ? m->shape.dim : m->shape.vocab, rows = s->length[0] + s->length[1] + s->length[2];
    size_t bytes = (size_t)rows * (size_t)width * sizeof(float), n;
    float *whole = malloc(bytes), *split = malloc(bytes);
    snprintf(path, sizeof(path), FOLDER "%s/%s", b->name, b->file);
    float *want = (float *)(void *)slurp(path, &n);
    assert_int_equal(n, bytes);
    run_all(f, kv, s, MOST, width, whole);
    compare(b, type, whole, want, rows, width);
    const int chunks[] = {64, 7, 1}, tried = strcmp(kernels_get()->name, "scalar") == 0 ? 2 : 3;
    for (int c = 0; m->shape.causal && c < tried; c++) {
        run_all(f, kv, s, chunks[c], width, split);
        if (memcmp(whole, split, bytes) != 0)
            fail_msg("%s: in chunks of %d the bits differ from the whole prompt's", b->name, chunks[c]);
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

static void with_exact_caches(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        check_model(&bounds[i], KV_F32);
}

static void with_half_caches(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        check_model(&bounds[i], KV_F16);
}

/* The kernels are chosen once in a process, so each instruction set has its own. */
static int in_child(const char *isa, bool best) {
    pid_t child = fork();
    if (child == 0) {
        setenv("PARE_ISA", isa, 1);
        const struct CMUnitTest tests[] = {cmocka_unit_test(with_exact_caches), cmocka_unit_test(with_half_caches)};
        const struct CMUnitTest exact[] = {cmocka_unit_test(with_exact_caches)};
        exit(best ? cmocka_run_group_tests_name(isa, tests, NULL, NULL)
                  : cmocka_run_group_tests_name(isa, exact, NULL, NULL));
    }
    int status = 1;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(void) {
    static const char *const sets[] = {"scalar", "avx2", "avx512", "avx512bf16", "neon", "dotprod"};
    size_t                   best = 0;
    int                      failed = 0;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) /* from the plainest on */
        if (kernels_named(sets[i]))
            best = i;
    for (size_t i = 0; i <= best; i++)
        if (kernels_named(sets[i]))
            failed += in_child(sets[i], i == best);
    return failed;
}
