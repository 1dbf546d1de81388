/* The embedder: pooling against the conformance set, texts packed together against each alone and against a plain pass,
 * long texts in pieces, order, refusals, cancelling and closing. */
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "engine/embed.h"
#include "engine/engine.h"
#include "engine/forward.h"
#include "engine/pooling.h"
#include "model/synth.h"

#define FOLDER "../shared/conformance/logits/"
#define MOST   512

static pool *p;

/* ---- a request and its end ---- */

typedef struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t  change;
    int             done;
    bool            cancelled;
    err             error;
    int64_t         tokens;
} waiter;

static void on_done(void *ctx, const embed_result *r) {
    waiter *w = ctx;
    pthread_mutex_lock(&w->lock);
    w->done++;
    w->cancelled = r->cancelled;
    w->tokens = r->tokens;
    if (r->error) {
        w->error = *r->error;
    }
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
}

static void begin(waiter *w) {
    *w = (waiter){0};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->change, NULL);
}

static void end(waiter *w) {
    pthread_mutex_lock(&w->lock);
    while (w->done == 0) {
        pthread_cond_wait(&w->change, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->change);
}

static void embed(embedder *m, const embed_text *texts, int n, float *out) {
    waiter w;
    err    e = {0};
    begin(&w);
    assert_ok(embed_submit(m, &(embed_request){texts, n, out, on_done, &w}, &e), e);
    end(&w);
    assert_int_equal(w.done, 1);
    assert_false(w.cancelled);
    assert_ok(w.error.code == ERR_NONE, w.error);
}

/* ---- models ---- */

static char path[64];

static model *synthetic(const char *shape) {
    err e = {0};
    assert_ok(synth_write(shape, "q8_0", 3, path, NULL, NULL, &e), e);
    model *m = model_open(path, NULL, 0, p, &e);
    assert_ok(m, e);
    return m;
}

/* The plain definition: one text, one pass, its rows pooled. */
static void plainly(const model *m, pooling how, const embed_text *t, float *out) {
    err            e = {0};
    kv_cache      *kv = kv_open(&m->shape, &(kv_options){.type = KV_F32, .sequences = 1, .context = t->n}, &e);
    forward       *f = forward_new(m, p, t->n, 1, &e);
    forward_token *batch = calloc((size_t)t->n, sizeof *batch);
    assert_ok(kv && f, e);
    kv_begin(kv, 0, (kv_scope){0}, t->ids, t->n, false);
    assert_true(kv_reserve(kv, 0, t->n));
    for (int i = 0; i < t->n; i++) {
        batch[i] = (forward_token){.id = t->ids[i], .position = i, .logits = true};
    }
    pooling_rows(how, forward_rows(f, kv, batch, t->n), t->n, m->shape.dim, out);
    forward_free(f);
    kv_close(kv);
    free(batch);
}

static int32_t ids[1 << 16];

static void make_texts(embed_text *out, int n, int longest, int vocab, uint64_t seed) {
    int32_t *at = ids;
    for (int i = 0; i < n; i++) {
        out[i] = (embed_text){at, 1 + (int)(test_random(&seed) % (uint64_t)longest)};
        assert_true(at + out[i].n <= ids + sizeof ids / sizeof *ids);
        for (int k = 0; k < out[i].n; k++) {
            *at++ = (int32_t)(test_random(&seed) % (uint64_t)vocab);
        }
    }
}

static double distance(const float *a, const float *b, int n) {
    double diff = 0, size = 0;
    for (int i = 0; i < n; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(diff / size);
}

/* ---- the conformance set ---- */

static char *slurp(const char *name, const char *file, size_t *n) {
    char full[256];
    snprintf(full, sizeof full, FOLDER "%s/%s", name, file);
    FILE *f = fopen(full, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 1);
    assert_int_equal(fread(data, 1, *n, f), *n);
    data[*n] = 0;
    fclose(f);
    return data;
}

static int read_lists(const char *name, embed_text *out) {
    size_t   n;
    char    *text = slurp(name, "tokens.json", &n);
    cJSON   *lists = cJSON_ParseWithLength(text, n), *list, *id;
    int32_t *at = ids;
    int      count = 0;
    cJSON_ArrayForEach(list, lists) {
        out[count] = (embed_text){at, cJSON_GetArraySize(list)};
        cJSON_ArrayForEach(id, list) {
            *at++ = (int32_t)id->valuedouble;
        }
        count++;
    }
    cJSON_Delete(lists);
    free(text);
    return count;
}

/* Deviations as the set's README has them: relative to the size of all expected values. */
static void near(const char *what, const float *got, const float *want, size_t n) {
    double size = 0, max = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        size += (double)want[i] * (double)want[i];
    }
    size = sqrt(size / (double)n);
    for (size_t i = 0; i < n; i++) {
        double diff = fabs((double)got[i] - (double)want[i]) / size;
        max = diff > max ? diff : max;
        squares += diff * diff;
    }
    print_message("%s: max %.1e rms %.1e\n", what, max, sqrt(squares / (double)n));
    assert_true(max <= 2e-4 && sqrt(squares / (double)n) <= 2e-5);
}

static void pooled_rows_are_the_references(void **state) {
    (void)state;
    static const struct {
        const char *model, *file;
        pooling     asked, how;
    } rows[] = {{"bert-mean", "mean.erf.f32", POOLING_NONE, POOLING_MEAN},
                {"bert-mean", "cls.erf.f32", POOLING_CLS, POOLING_CLS},
                {"bert-cls", "cls.erf.f32", POOLING_NONE, POOLING_CLS},
                {"bert-cls", "mean.erf.f32", POOLING_MEAN, POOLING_MEAN}};
    if (access(FOLDER "bert-mean/model.gguf", R_OK) != 0) {
        print_message("skipped: " FOLDER " is not here\n");
        skip();
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char       full[256];
        err        e = {0};
        size_t     n;
        embed_text texts[4];
        snprintf(full, sizeof full, FOLDER "%s/model.gguf", rows[i].model);
        model *m = model_open(full, NULL, 0, p, &e);
        assert_ok(m, e);
        int       count = read_lists(rows[i].model, texts);
        embedder *b = embed_open(m, p, &(embed_options){.pooling = rows[i].asked, .kv = KV_F32}, &e);
        assert_ok(b, e);
        size_t values = (size_t)count * (size_t)m->shape.dim;
        float *got = calloc(values, sizeof *got), *want = (float *)(void *)slurp(rows[i].model, rows[i].file, &n);
        assert_int_equal(n, values * sizeof *want);
        assert_int_equal(embed_width(b), m->shape.dim);
        embed(b, texts, count, got);
        snprintf(full, sizeof full, "%s, %s", rows[i].model, rows[i].file);
        near(full, got, want, values);
        free(got);
        free(want);
        embed_close(b);
        model_close(m);
    }
}

/* ---- packing ---- */

static void check_packed(const char *shape, pooling asked, pooling how, int step_tokens, int n, int longest) {
    err        e = {0};
    embed_text texts[300];
    model     *m = synthetic(shape);
    int        dim = m->shape.dim;
    make_texts(texts, n, longest, m->shape.vocab, 1);
    embed_options o = {.pooling = asked, .step_tokens = step_tokens, .kv = KV_F32};
    embedder     *b = embed_open(m, p, &o, &e);
    assert_ok(b, e);
    float *together = calloc((size_t)n * (size_t)dim, sizeof *together), *alone = calloc((size_t)dim, sizeof *alone);
    embed(b, texts, n, together);
    for (int i = 0; i < n; i++) {
        plainly(m, how, &texts[i], alone);
        const float *got = together + (size_t)i * (size_t)dim;
        /* pieces of a long causal text join their means in another order */
        bool         same = texts[i].n > step_tokens && how == POOLING_MEAN
                                ? distance(got, alone, dim) < 1e-6
                                : memcmp(got, alone, (size_t)dim * sizeof *alone) == 0;
        if (!same) {
            fail_msg("%s: text %d of %d tokens differs by %g", shape, i, texts[i].n, distance(got, alone, dim));
        }
    }
    embed_stats s;
    embed_stats_read(b, &s);
    assert_int_equal(s.texts, n);
    assert_int_equal(s.waiting, 0);
    assert_true(step_tokens == 0 ? s.steps * 4 < n : s.steps <= n);
    free(together);
    free(alone);
    embed_close(b);
    model_close(m);
}

static void packed_texts_have_the_bits_of_each_alone(void **state) {
    (void)state;
    check_packed("bert-tiny", POOLING_NONE, POOLING_MEAN, 0, 300, 40);
    check_packed("bert-tiny", POOLING_CLS, POOLING_CLS, 64, 40, 60);
    check_packed("bert-tiny", POOLING_LAST, POOLING_LAST, 0, 40, 60);
}

static void a_text_that_is_longer_than_a_step_comes_out_the_same(void **state) {
    (void)state;
    check_packed("bert-tiny", POOLING_NONE, POOLING_MEAN, 32, 30, 128);
    check_packed("llama-tiny", POOLING_LAST, POOLING_LAST, 48, 20, 256);
    check_packed("llama-tiny", POOLING_MEAN, POOLING_MEAN, 48, 20, 256);
}

/* One job's hundreds of texts do not keep another's one waiting to the end. */
static void a_short_job_overtakes_a_long_one(void **state) {
    (void)state;
    static float      many[4000 * 64], one[64];
    err               e = {0};
    static embed_text texts[4000];
    model            *m = synthetic("bert-tiny");
    embedder         *b = embed_open(m, p, &(embed_options){.step_tokens = 64, .kv = KV_F32}, &e);
    assert_ok(b, e);
    make_texts(texts, 4000, 20, m->shape.vocab, 2);
    waiter first, second;
    begin(&first);
    begin(&second);
    assert_ok(embed_submit(b, &(embed_request){texts, 4000, many, on_done, &first}, &e), e);
    assert_ok(embed_submit(b, &(embed_request){texts, 1, one, on_done, &second}, &e), e);
    end(&second);
    embed_stats s;
    embed_stats_read(b, &s);
    assert_true(s.waiting > 0); /* of the first */
    end(&first);
    assert_memory_equal(one, many, sizeof one);
    embed_close(b);
    model_close(m);
}

/* ---- refusals, cancelling, closing ---- */

static void what_cannot_be_is_refused_with_both_numbers(void **state) {
    (void)state;
    err       e = {0};
    float     out[64];
    model    *m = synthetic("bert-tiny");
    embedder *b = embed_open(m, p, &(embed_options){.context = 100, .kv = KV_F32}, &e);
    assert_ok(b, e);
    assert_int_equal(embed_context(b), 100);
    memset(ids, 0, sizeof ids);
    embed_text text = {ids, 101};
    assert_null(embed_submit(b, &(embed_request){&text, 1, out, on_done, NULL}, &e));
    assert_int_equal(e.code, ERR_CONTEXT);
    assert_says(e, "101");
    assert_says(e, "100");
    text.n = 0;
    assert_null(embed_submit(b, &(embed_request){&text, 1, out, on_done, NULL}, &e));
    assert_says(e, "no tokens");
    text.n = 2;
    ids[1] = m->shape.vocab;
    assert_null(embed_submit(b, &(embed_request){&text, 1, out, on_done, NULL}, &e));
    assert_says(e, "token 1 of text 0 is 1024");
    ids[1] = 0;
    text.n = 100;
    embed(b, &text, 1, out);
    embed_close(b);
    assert_null(engine_open(m, p, NULL, &e)); /* and no text comes of it */
    assert_says(e, "writes no text");
    model_close(m);
    m = synthetic("llama-tiny");
    assert_null(embed_open(m, p, NULL, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_says(e, "pooling: mean, cls or last");
    model_close(m);
}

static void every_job_ends_once_whatever_happens(void **state) {
    (void)state;
    enum { JOBS = 12, TEXTS = 200 };
    static embed_text texts[TEXTS];
    static float      out[JOBS][TEXTS * 64];
    waiter            w[JOBS];
    err               e = {0};
    model            *m = synthetic("bert-tiny");
    embedder         *b = embed_open(m, p, &(embed_options){.step_tokens = 64, .kv = KV_F32}, &e);
    assert_ok(b, e);
    make_texts(texts, TEXTS, 20, m->shape.vocab, 5);
    embed_job *jobs[JOBS];
    for (int i = 0; i < JOBS; i++) {
        begin(&w[i]);
        jobs[i] = embed_submit(b, &(embed_request){texts, TEXTS, out[i], on_done, &w[i]}, &e);
        assert_ok(jobs[i], e);
    }
    for (int i = 0; i < JOBS; i += 3) {
        pthread_mutex_lock(&w[i].lock);
        if (!w[i].done) {
            embed_cancel(jobs[i]);
        }
        pthread_mutex_unlock(&w[i].lock);
    }
    end(&w[0]);
    embed_stop(b); /* the rest ends, and nothing new begins */
    waiter none;
    begin(&none);
    assert_null(embed_submit(b, &(embed_request){texts, 1, out[0], on_done, &none}, &e));
    assert_int_equal(e.code, ERR_BUSY);
    int cancelled = 0;
    for (int i = 1; i < JOBS; i++) {
        end(&w[i]);
        assert_int_equal(w[i].done, 1);
        assert_true(w[i].cancelled || w[i].tokens > 0);
        cancelled += w[i].cancelled;
    }
    embed_stats s;
    embed_stats_read(b, &s);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.jobs, JOBS);
    assert_true(cancelled <= s.cancelled && s.cancelled <= JOBS);
    embed_close(b);
    model_close(m);
}

/* What a budget counts: a long text of a model that looks both ways needs rows of its own, of others only the cache. */
static void the_size_is_told_before(void **state) {
    (void)state;
    model_shape s = {.context = 8192, .causal = true};
    embed_size  is = embed_size_of(&s, &(embed_options){0});
    assert_int_equal(is.step_tokens, 2048);
    assert_int_equal(is.rows, 2048);
    assert_int_equal(is.kv_tokens, 2048 + 256 * KV_TOKENS);
    assert_int_equal(is.long_kv_tokens, 8192);
    assert_int_equal(is.long_rows, 0);
    s.causal = false;
    assert_int_equal(embed_size_of(&s, &(embed_options){.context = 4096}).long_rows, 4096);
    is = embed_size_of(&s, &(embed_options){.context = 512});
    assert_int_equal(is.context, 512);
    assert_int_equal(is.long_kv_tokens, 0);
    assert_int_equal(is.long_rows, 0);
    assert_int_equal(embed_size_of(&s, &(embed_options){.context = 4}).step_tokens, 1024); /* more never comes */
}

static void a_full_queue_says_so(void **state) {
    (void)state;
    static embed_text texts[500];
    static float      out[500 * 64], more[500 * 64];
    err               e = {0};
    waiter            w;
    model            *m = synthetic("bert-tiny");
    embedder         *b = embed_open(m, p, &(embed_options){.queue = 100, .step_tokens = 16, .kv = KV_F32}, &e);
    assert_ok(b, e);
    make_texts(texts, 500, 16, m->shape.vocab, 7);
    begin(&w);
    assert_ok(embed_submit(b, &(embed_request){texts, 500, out, on_done, &w}, &e),
              e); /* longer than the queue, alone */
    if (!embed_submit(b, &(embed_request){texts, 400, more, on_done, &w}, &e)) {
        assert_int_equal(e.code, ERR_BUSY);
        assert_says(e, "texts are waiting");
    } else {
        fail_msg("500 texts wait, the queue holds 100, and 400 more were taken");
    }
    end(&w);
    embed_close(b);
    model_close(m);
}

static void unit_vectors_and_names(void **state) {
    (void)state;
    float   v[] = {3, 0, 4}, zero[2] = {0, 0};
    pooling how;
    pooling_unit(v, 3);
    assert_float_equal(v[0], 0.6f, 1e-7f);
    assert_float_equal(v[2], 0.8f, 1e-7f);
    pooling_unit(zero, 2);
    assert_true(zero[0] == 0 && zero[1] == 0);
    assert_true(pooling_named("last", &how) && how == POOLING_LAST);
    assert_false(pooling_named("rank", &how));
    assert_false(pooling_named("", &how));
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pooled_rows_are_the_references),
        cmocka_unit_test(packed_texts_have_the_bits_of_each_alone),
        cmocka_unit_test(a_text_that_is_longer_than_a_step_comes_out_the_same),
        cmocka_unit_test(a_short_job_overtakes_a_long_one),
        cmocka_unit_test(what_cannot_be_is_refused_with_both_numbers),
        cmocka_unit_test(every_job_ends_once_whatever_happens),
        cmocka_unit_test(the_size_is_told_before),
        cmocka_unit_test(a_full_queue_says_so),
        cmocka_unit_test(unit_vectors_and_names),
    };
    snprintf(path, sizeof path, "/tmp/pare-embed-%d.gguf", (int)getpid());
    p = pool_new(2, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_free(p);
    unlink(path);
    return failed;
}
