/* libpare: embeddings, against one pass of the model over each text alone. */
#include "libpare_bed.h"

#include <math.h>

#include "engine/forward.h"
#include "engine/pooling.h"
#include "model/synth.h"

#define MOST_IDS 512

static const char *const texts[] = {"ab cde the quick", "q",
                                    "hello world, it is a long way from here to there and back again"};

static pare_model *open_encoder(const pare_options *o) {
    told why = {""};
    err  e = {0};
    char path[] = "/tmp/pare-libpare-XXXXXX";
    int  fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_ok(synth_write("bert-tiny", "f16", 5, path, NULL, NULL, &e), e);
    pare_model *m = pare_open(path, o, TELL(why));
    unlink(path);
    assert_done(m, why);
    return m;
}

/* The reference: rows of the whole text, pooled. */
static void embed_plainly(pare_model *m, const char *text, float *out) {
    err           e = {0};
    told          why = {""};
    int32_t       ids[MOST_IDS];
    forward_token batch[MOST_IDS];
    int           n = pare_tokenize(m, text, PARE_TOKENS_SPECIAL, ids, MOST_IDS, TELL(why));
    assert_true(n > 0 && n <= MOST_IDS);
    forward  *pass = forward_new(m->weights, m->compute, n, n, &e);
    kv_cache *kv = kv_open(&m->weights->shape, &(kv_options){.sequences = 1, .context = n}, &e);
    assert_ok(pass && kv, e);
    kv_begin(kv, 0, (kv_scope){0}, ids, n, false);
    assert_true(kv_reserve(kv, 0, n));
    for (int i = 0; i < n; i++) {
        batch[i] = (forward_token){.id = ids[i], .position = i, .logits = true};
    }
    pool_take(m->compute);
    const float *rows = forward_rows(pass, kv, batch, n);
    pool_give(m->compute);
    int dim = m->weights->shape.dim, from = m->pooling == POOLING_LAST ? n - 1 : 0;
    pooling_rows(m->pooling, rows + (size_t)from * (size_t)dim, n - from, dim, out);
    kv_close(kv);
    forward_free(pass);
}

static void assert_close(const float *a, const float *b, int n, double scale) {
    for (int i = 0; i < n; i++) {
        if (fabs((double)a[i] - (double)b[i]) > 2e-3 * scale) {
            fail_msg("value %d is %g, not %g", i, (double)a[i], (double)b[i]);
        }
    }
}

static double length_of(const float *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += (double)v[i] * (double)v[i];
    }
    return sqrt(sum);
}

static void check_texts(pare_model *m) {
    told      why = {""};
    pare_info info = {0};
    assert_done(pare_describe(m, &info, TELL(why)), why);
    assert_int_equal(info.can_embed, 1);
    size_t     dim = (size_t)info.dimension;
    float     *unit = calloc(3 * dim, sizeof(float)), *raw = calloc(3 * dim, sizeof(float));
    float     *plain = calloc(dim, sizeof(float));
    pare_usage usage = {0};
    assert_done(pare_embed(m, texts, 3, NULL, unit, &usage, TELL(why)), why);
    assert_int_equal(usage.finish, PARE_FINISH_STOP);
    assert_done(pare_embed(m, texts, 3, &(pare_embedding){.raw = 1}, raw, NULL, TELL(why)), why);
    int tokens = 0;
    for (size_t i = 0; i < 3; i++) {
        tokens += pare_tokenize(m, texts[i], PARE_TOKENS_SPECIAL, NULL, 0, TELL(why));
        embed_plainly(m, texts[i], plain);
        double length = length_of(plain, info.dimension);
        assert_close(raw + i * dim, plain, info.dimension, length);
        assert_true(fabs(length_of(unit + i * dim, info.dimension) - 1) < 1e-5);
        pooling_unit(plain, info.dimension);
        assert_close(unit + i * dim, plain, info.dimension, 1);
    }
    assert_int_equal(usage.prompt_tokens, tokens);
    free(unit);
    free(raw);
    free(plain);
}

static void test_encoder(void **state) {
    (void)state;
    told        why = {""};
    pare_info   info = {0};
    pare_model *m = open_encoder(NULL);
    assert_done(pare_describe(m, &info, TELL(why)), why);
    assert_string_equal(info.architecture, "bert");
    assert_string_equal(info.pooling, "mean");
    assert_int_equal(info.can_generate, 0);
    assert_int_equal(info.can_chat, 0);
    check_texts(m);
    assert_int_equal(pare_generate(m, "a", NULL, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "does not generate");
    assert_null(pare_chat_new(m, TELL(why)));
    assert_says(why, "does not generate");
    pare_close(m);
    m = open_encoder(&(pare_options){.pooling = "cls", .threads = 1});
    check_texts(m);
    pare_close(m);
}

static void test_decoder(void **state) {
    (void)state;
    static const char *const ways[] = {"mean", "last"};
    for (int i = 0; i < 2; i++) {
        told        why = {""};
        pare_model *m = open_storyteller(&(pare_options){.pooling = ways[i]});
        check_texts(m);
        /* and it still generates */
        assert_done(pare_generate(m, "A", &(pare_request){.max_tokens = 3}, NULL, NULL, NULL, TELL(why)), why);
        pare_close(m);
    }
}

/* What was cut is the text of so many tokens, with the same frame around it. */
static void test_truncate(void **state) {
    (void)state;
    told        why = {""};
    pare_model *m = open_encoder(&(pare_options){.context = 16});
    char        full[64] = "", exact[64] = "";
    float       cut[64], whole[64];
    for (int i = 0; i < 20; i++) {
        strcat(full, "a ");
        strcat(exact, i < 14 ? "a " : "");
    }
    const char *text = full, *same = exact;
    assert_int_equal(pare_tokenize(m, exact, PARE_TOKENS_SPECIAL, NULL, 0, TELL(why)), 16);
    assert_int_equal(pare_embed(m, &text, 1, NULL, cut, NULL, TELL(why)), 0);
    assert_says(why, "22");
    assert_says(why, "16");
    pare_usage usage = {0};
    assert_done(pare_embed(m, &text, 1, &(pare_embedding){.truncate = 1}, cut, &usage, TELL(why)), why);
    assert_int_equal(usage.prompt_tokens, 16);
    assert_done(pare_embed(m, &same, 1, NULL, whole, NULL, TELL(why)), why);
    assert_memory_equal(cut, whole, sizeof(cut));
    pare_close(m);
}

static void test_refused(void **state) {
    (void)state;
    told        why = {""};
    float       v[256];
    const char *none = NULL;
    pare_model *m = open_storyteller(NULL);
    assert_int_equal(pare_embed(m, texts, 1, NULL, v, NULL, TELL(why)), 0);
    assert_says(why, "pooling");
    pare_close(m);
    m = open_storyteller(&(pare_options){.pooling = "mean"});
    assert_int_equal(pare_embed(m, texts, 0, NULL, v, NULL, TELL(why)), 0);
    assert_int_equal(pare_embed(m, &none, 1, NULL, v, NULL, TELL(why)), 0);
    assert_says(why, "text 0");
    pare_canceller *stop = pare_canceller_new();
    pare_usage      usage = {0};
    pare_cancel(stop);
    assert_done(pare_embed(m, texts, 1, &(pare_embedding){.canceller = stop}, v, &usage, TELL(why)), why);
    assert_int_equal(usage.finish, PARE_FINISH_CANCELLED);
    pare_canceller_reset(stop);
    assert_done(pare_embed(m, texts, 1, &(pare_embedding){.canceller = stop}, v, &usage, TELL(why)), why);
    assert_int_equal(usage.finish, PARE_FINISH_STOP);
    pare_canceller_free(stop);
    pare_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
