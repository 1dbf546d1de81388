/* Synthetic models: what the weights are like, which matrix has which type, and what is refused. */
#include "check.h"

#include <math.h>
#include <unistd.h>

#include "model/gguf.h"
#include "model/model.h"
#include "model/synth.h"

static char path[64];

static gguf *made(const char *shape, const char *type, uint64_t seed) {
    err e = {0};
    assert_ok(synth_write(shape, type, seed, path, NULL, NULL, &e), e);
    gguf *g = gguf_open(path, &e);
    assert_ok(g, e);
    return g;
}

/* A deviation near 1 / sqrt(columns), and a mean within a few standard errors of zero: the values of a part share their
 * scale and min, so that a part of 32 counts as one draw. */
static void weights_are_sane(const gguf_tensor *t) {
    int64_t n = t->shape[0] * t->shape[1];
    float  *values = malloc((size_t)n * sizeof *values);
    double  sum = 0, squares = 0;
    block_to_f32(t->format->type, t->data, values, n);
    for (int64_t i = 0; i < n; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    free(values);
    double mean = sum / (double)n, deviation = sqrt(squares / (double)n), unit = 1 / sqrt((double)t->shape[0]);
    if (!(fabs(deviation / unit - 1) < 0.1) || !(fabs(mean) < 4 * unit / sqrt((double)n / 32)))
        fail_msg("%s (%s): mean %g, deviation %g, expected %g", t->name, t->format->name, mean, deviation, unit);
}

static void every_type_gives_sane_weights(void **state) {
    (void)state;
    for (int i = 0; synth_type_name(i); i++) {
        gguf *g = made("llama-small", synth_type_name(i), 7);
        for (size_t k = 0; k < gguf_tensor_count(g); k++) {
            const gguf_tensor *t = gguf_tensor_at(g, k);
            if (t->dims == 2)
                weights_are_sane(t);
            else
                assert_int_equal(t->format->type, BLOCK_F32);
        }
        gguf_close(g);
    }
}

static block_type type_of(const gguf *g, const char *name) {
    const gguf_tensor *t = gguf_tensor_named(g, name);
    if (!t)
        fail_msg("there is no tensor %s", name);
    return t->format->type;
}

static void a_mixture_has_its_sensitive_matrices_finer(void **state) {
    (void)state;
    gguf *g = made("llama-small", "Q4_K_M", 1);
    assert_int_equal(type_of(g, "token_embd.weight"), BLOCK_Q4_K);
    assert_int_equal(type_of(g, "output.weight"), BLOCK_Q6_K);
    /* Of two layers the last is in the last eighth; the first is in neither, and not a third one. */
    assert_int_equal(type_of(g, "blk.0.attn_v.weight"), BLOCK_Q4_K);
    assert_int_equal(type_of(g, "blk.0.ffn_down.weight"), BLOCK_Q4_K);
    assert_int_equal(type_of(g, "blk.1.attn_v.weight"), BLOCK_Q6_K);
    assert_int_equal(type_of(g, "blk.1.ffn_down.weight"), BLOCK_Q6_K);
    assert_int_equal(type_of(g, "blk.1.attn_q.weight"), BLOCK_Q4_K);
    assert_int_equal(type_of(g, "blk.1.ffn_up.weight"), BLOCK_Q4_K);
    gguf_close(g);
    g = made("llama-small", "q4_k", 1);
    assert_int_equal(type_of(g, "output.weight"), BLOCK_Q4_K);
    assert_int_equal(type_of(g, "blk.1.ffn_down.weight"), BLOCK_Q4_K);
    gguf_close(g);
}

/* Packed rows say what the blocks of the file say, to the rounding of a few float operations. */
static void rows_are_those_of(const gguf *g, const char *name, const matrix *m) {
    const gguf_tensor *t = gguf_tensor_named(g, name);
    int                cols = (int)t->shape[0];
    float             *got = malloc((size_t)cols * sizeof *got), *expected = malloc((size_t)cols * sizeof *expected);
    assert_true(m->type == t->format->type && m->rows == t->shape[1] && m->cols == cols);
    for (int r = 0; r < m->rows; r++) {
        block_to_f32(m->type, (const uint8_t *)t->data + t->bytes / (size_t)m->rows * (size_t)r, expected, cols);
        matrix_row(m, r, got);
        for (int c = 0; c < cols; c++)
            if (!(fabsf(got[c] - expected[c]) <= 1e-6f))
                fail_msg("%s: row %d, column %d is %g, not %g", name, r, c, (double)got[c], (double)expected[c]);
    }
    free(got);
    free(expected);
}

static void a_mixture_loads(void **state) {
    (void)state;
    err    e = {0};
    gguf  *g = made("llama-small", "q4_k_m", 3);
    model *m = model_open(path, NULL, 0, NULL, &e);
    assert_ok(m, e);
    rows_are_those_of(g, "token_embd.weight", &m->embedding);
    rows_are_those_of(g, "output.weight", &m->output);
    rows_are_those_of(g, "blk.0.ffn_down.weight", &m->layers[0].ffn.down);
    rows_are_those_of(g, "blk.1.ffn_down.weight", &m->layers[1].ffn.down);
    rows_are_those_of(g, "blk.1.attn_v.weight", &m->layers[1].v);
    model_close(m);
    gguf_close(g);
}

static char *contents(const char *type, uint64_t seed, size_t *n) {
    gguf_close(made("llama-small", type, seed));
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

static void a_seed_gives_the_same_bytes(void **state) {
    (void)state;
    size_t n1, n2, n3;
    char  *first = contents("q4_k_m", 5, &n1), *again = contents("q4_k_m", 5, &n2), *other = contents("q4_k_m", 6, &n3);
    assert_true(n1 == n2 && n1 == n3);
    assert_memory_equal(first, again, n1);
    assert_true(memcmp(first, other, n1) != 0);
    free(first);
    free(again);
    free(other);
}

static void what_cannot_be_made_is_refused(void **state) {
    (void)state;
    err e = {0};
    unlink(path);
    assert_false(synth_write("llama-tiny", "q4_k_m", 1, path, NULL, NULL, &e));
    assert_says(e, "token_embd.weight has rows of 64 values, which do not divide into q4_k blocks of 256");
    assert_int_equal(access(path, F_OK), -1);
    assert_false(synth_write("llama-tiny", "q9", 1, path, NULL, NULL, &e));
    assert_says(e, "\"q9\" is not a type of synthetic models; there are f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, ");
    assert_says(e, ", mxfp4");
    assert_null(synth_type_name(-1));
}

static int remove_file(void **state) {
    (void)state;
    unlink(path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gives_sane_weights),
        cmocka_unit_test(a_mixture_has_its_sensitive_matrices_finer),
        cmocka_unit_test(a_mixture_loads),
        cmocka_unit_test(a_seed_gives_the_same_bytes),
        cmocka_unit_test(what_cannot_be_made_is_refused),
    };
    snprintf(path, sizeof path, "/tmp/pare-test-synth-file-%ld.gguf", (long)getpid());
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
