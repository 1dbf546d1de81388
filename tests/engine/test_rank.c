/* A model that ranks: its head against a plain double computation from the rows, with and without the dense part, and the
 * types of a pair's tokens against a model without types that says the same. */
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "engine/embed.h"
#include "engine/forward.h"
#include "model/gguf_write.h"

enum { DIM = 32, FFN = 64, VOCAB = 40, CONTEXT = 24, TEXTS = 9 };

static char   path[64];
static pool  *p;
static float  numbers[2 * VOCAB * DIM]; /* of the largest tensor */
static double dense[DIM][DIM], dense_bias[DIM], output[DIM], output_bias;

static float *random_numbers(int n, float scale, uint64_t *seed) {
    for (int i = 0; i < n; i++) {
        numbers[i] = (float)(int64_t)test_random(seed) * 0x1p-63f * scale;
    }
    return numbers;
}

typedef struct part {
    const char *name;
    int         cols, rows; /* rows 0: a vector */
} part;

static const part parts[] = {
    {"token_embd.weight", DIM, VOCAB},
    {"position_embd.weight", DIM, CONTEXT},
    {"token_embd_norm.weight", DIM, 0},
    {"blk.0.attn_q.weight", DIM, DIM},
    {"blk.0.attn_k.weight", DIM, DIM},
    {"blk.0.attn_v.weight", DIM, DIM},
    {"blk.0.attn_output.weight", DIM, DIM},
    {"blk.0.attn_output_norm.weight", DIM, 0},
    {"blk.0.ffn_up.weight", DIM, FFN},
    {"blk.0.ffn_down.weight", FFN, DIM},
    {"blk.0.layer_output_norm.weight", DIM, 0},
    {"cls.output.weight", DIM, 1},
    {"cls.output.bias", 1, 0},
    {"cls.weight", DIM, DIM},
    {"cls.bias", DIM, 0},
};

static void keep(const part *t) {
    for (int i = 0; i < DIM; i++) {
        if (strcmp(t->name, "cls.output.weight") == 0) {
            output[i] = (double)numbers[i];
        } else if (strcmp(t->name, "cls.bias") == 0) {
            dense_bias[i] = (double)numbers[i];
        }
        for (int k = 0; strcmp(t->name, "cls.weight") == 0 && k < DIM; k++) {
            dense[i][k] = (double)numbers[i * DIM + k];
        }
    }
    if (strcmp(t->name, "cls.output.bias") == 0) {
        output_bias = (double)numbers[0];
    }
}

static gguf_writer *begin_model(void) {
    err          e = {0};
    gguf_writer *w = gguf_write_open(path, &e);
    assert_ok(w, e);
    gguf_write_text(w, "general.architecture", "bert");
    gguf_write_text(w, "general.name", "ranker");
    gguf_write_int(w, "bert.context_length", GGUF_U32, CONTEXT);
    gguf_write_int(w, "bert.embedding_length", GGUF_U32, DIM);
    gguf_write_int(w, "bert.block_count", GGUF_U32, 1);
    gguf_write_int(w, "bert.feed_forward_length", GGUF_U32, FFN);
    gguf_write_int(w, "bert.attention.head_count", GGUF_U32, 4);
    gguf_write_float(w, "bert.attention.layer_norm_epsilon", GGUF_F32, 1e-12);
    gguf_write_int(w, "bert.pooling_type", GGUF_U32, POOLING_RANK);
    gguf_write_text(w, "tokenizer.ggml.model", "no_vocab");
    return w;
}

/* The first `n` parts. */
static void write_model(size_t n) {
    err          e = {0};
    uint64_t     seed = 5;
    gguf_writer *w = begin_model();
    for (size_t i = 0; i < n; i++) {
        int64_t shape[2] = {parts[i].cols, parts[i].rows};
        gguf_write_tensor(w, parts[i].name, block_format_of(BLOCK_F32), parts[i].rows ? 2 : 1, shape);
    }
    for (size_t i = 0; i < n; i++) {
        int count = parts[i].cols * (parts[i].rows ? parts[i].rows : 1);
        random_numbers(count, parts[i].rows ? 0.3f : 1, &seed);
        keep(&parts[i]);
        gguf_write_data(w, numbers, (size_t)count * sizeof *numbers);
    }
    assert_ok(gguf_write_finish(w, &e), e);
}

static double plain_score(const model *m, const embed_text *t, bool has_dense) {
    err           e = {0};
    kv_cache     *kv = kv_open(&m->shape, &(kv_options){.type = KV_F32, .sequences = 1, .context = CONTEXT}, &e);
    forward      *f = forward_new(m, p, CONTEXT, 1, &e);
    forward_token batch[CONTEXT];
    assert_ok(kv && f, e);
    kv_begin(kv, 0, (kv_scope){0}, t->ids, t->n, false);
    assert_true(kv_reserve(kv, 0, t->n));
    for (int i = 0; i < t->n; i++) {
        batch[i] = (forward_token){.id = t->ids[i], .position = i, .logits = true};
    }
    const float *row = forward_rows(f, kv, batch, t->n);
    double       sum = output_bias;
    for (int o = 0; o < DIM; o++) {
        double x = dense_bias[o];
        for (int i = 0; i < DIM; i++) {
            x += dense[o][i] * (double)row[i];
        }
        sum += output[o] * (has_dense ? tanh(x) : (double)row[o]);
    }
    forward_free(f);
    kv_close(kv);
    return sum;
}

typedef struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t  change;
    bool            done;
} waiter;

static void on_done(void *ctx, const embed_result *r) {
    waiter *w = ctx;
    pthread_mutex_lock(&w->lock);
    w->done = !r->error && !r->cancelled;
    pthread_cond_signal(&w->change);
    pthread_mutex_unlock(&w->lock);
}

static void check(size_t n, bool has_dense) {
    err        e = {0};
    embed_text texts[TEXTS];
    int32_t    ids[TEXTS][CONTEXT];
    float      scores[TEXTS];
    uint64_t   seed = 9;
    waiter     w = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};
    write_model(n);
    model *m = model_open(path, NULL, 0, p, &e);
    assert_ok(m, e);
    embedder *b = embed_open(m, p, &(embed_options){.pooling = POOLING_MEAN, .kv = KV_F32}, &e);
    assert_ok(b, e);
    assert_int_equal(embed_width(b), 1); /* the file wins: this model has nothing else to give */
    for (int i = 0; i < TEXTS; i++) {
        texts[i] = (embed_text){.ids = ids[i], .n = 1 + (int)(test_random(&seed) % CONTEXT)};
        for (int k = 0; k < texts[i].n; k++) {
            ids[i][k] = (int32_t)(test_random(&seed) % VOCAB);
        }
    }
    assert_ok(embed_submit(b, &(embed_request){texts, TEXTS, scores, on_done, &w}, &e), e);
    pthread_mutex_lock(&w.lock);
    while (!w.done) {
        pthread_cond_wait(&w.change, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    for (int i = 0; i < TEXTS; i++) {
        assert_float_equal((double)scores[i], plain_score(m, &texts[i], has_dense), 1e-4);
    }
    assert_true(fabsf(scores[0] - scores[1]) > 1e-3f);
    embed_close(b);
    model_close(m);
}

static void the_head_says_what_it_should(void **state) {
    (void)state;
    check(sizeof parts / sizeof *parts, true);
    check(sizeof parts / sizeof *parts - 2, false);
}

/* ---- the types of a pair ---- */

typedef enum typing { TYPED, FOLDED, ONE_TYPE } typing;

/* The same model three times: with two types; with none, but a vocabulary of two halves to whose rows the types are added,
 * so that it needs no types to say the same; and with the first type only. */
static void write_typed(typing how) {
    err          e = {0};
    float        types[2][DIM], words[VOCAB * DIM];
    uint64_t     seed = 77;
    size_t       n = sizeof parts / sizeof *parts;
    gguf_writer *w = begin_model();
    memcpy(words, random_numbers(VOCAB * DIM, 0.3f, &seed), sizeof words);
    memcpy(types, random_numbers(2 * DIM, 0.5f, &seed), sizeof types);
    int64_t rows[] = {DIM, how == FOLDED ? 2 * VOCAB : VOCAB}, kinds[] = {DIM, how == TYPED ? 2 : 1};
    gguf_write_tensor(w, parts[0].name, block_format_of(BLOCK_F32), 2, rows);
    if (how != FOLDED) {
        gguf_write_tensor(w, "token_types.weight", block_format_of(BLOCK_F32), 2, kinds);
    }
    for (size_t i = 1; i < n; i++) {
        int64_t shape[2] = {parts[i].cols, parts[i].rows};
        gguf_write_tensor(w, parts[i].name, block_format_of(BLOCK_F32), parts[i].rows ? 2 : 1, shape);
    }
    for (int i = 0; i < rows[1] * DIM; i++) {
        numbers[i] = words[i % (VOCAB * DIM)] + (how == FOLDED ? types[i / (VOCAB * DIM)][i % DIM] : 0);
    }
    gguf_write_data(w, numbers, (size_t)rows[1] * DIM * sizeof *numbers);
    if (how != FOLDED) {
        gguf_write_data(w, types, (size_t)kinds[1] * DIM * sizeof **types);
    }
    for (size_t i = 1; i < n; i++) {
        int count = parts[i].cols * (parts[i].rows ? parts[i].rows : 1);
        random_numbers(count, parts[i].rows ? 0.3f : 1, &seed);
        gguf_write_data(w, numbers, (size_t)count * sizeof *numbers);
    }
    assert_ok(gguf_write_finish(w, &e), e);
}

/* Scores of pairs, whose second texts begin at `second`; step_tokens below a text's length: each has its own pass. */
static void score(typing how, const int *second, int step_tokens, float *scores) {
    err        e = {0};
    embed_text texts[TEXTS];
    int32_t    ids[TEXTS][CONTEXT];
    uint64_t   seed = 9;
    waiter     w = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};
    write_typed(how);
    model *m = model_open(path, NULL, 0, p, &e);
    assert_ok(m, e);
    embedder *b = embed_open(m, p, &(embed_options){.kv = KV_F32, .step_tokens = step_tokens}, &e);
    assert_ok(b, e);
    for (int i = 0; i < TEXTS; i++) {
        texts[i] = (embed_text){ids[i], CONTEXT - i, second[i]};
        for (int k = 0; k < texts[i].n; k++) {
            bool shifted = how == FOLDED && second[i] > 0 && k >= second[i];
            ids[i][k] = (int32_t)(test_random(&seed) % VOCAB) + (shifted ? VOCAB : 0);
        }
    }
    assert_ok(embed_submit(b, &(embed_request){texts, TEXTS, scores, on_done, &w}, &e), e);
    pthread_mutex_lock(&w.lock);
    while (!w.done) {
        pthread_cond_wait(&w.change, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    embed_close(b);
    model_close(m);
}

static void the_second_text_is_of_the_second_type(void **state) {
    (void)state;
    static const int second[TEXTS] = {1, 0, CONTEXT / 2, 5, CONTEXT - 5, 0, 3, 2, CONTEXT - TEXTS}, none[TEXTS] = {0};
    float            typed[TEXTS], alone[TEXTS], folded[TEXTS], one_type[TEXTS], untold[TEXTS];
    score(TYPED, second, 0, typed);
    score(TYPED, second, 8, alone);
    score(FOLDED, second, 0, folded);
    score(ONE_TYPE, second, 0, one_type);
    score(TYPED, none, 0, untold);
    for (int i = 0; i < TEXTS; i++) {
        assert_float_equal((double)typed[i], (double)folded[i], 1e-4);
        assert_float_equal((double)typed[i], (double)alone[i], 1e-4);
        assert_float_equal((double)one_type[i], (double)untold[i], 1e-4);
        if (second[i]) {
            assert_true(fabsf(typed[i] - untold[i]) > 1e-3f);
        }
    }
}

static void a_ranking_model_without_its_head_is_refused(void **state) {
    (void)state;
    err e = {0};
    write_model(11);
    assert_null(model_open(path, NULL, 0, p, &e));
    assert_says(e, "cls.output.weight is missing");
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_head_says_what_it_should),
        cmocka_unit_test(the_second_text_is_of_the_second_type),
        cmocka_unit_test(a_ranking_model_without_its_head_is_refused),
    };
    snprintf(path, sizeof path, "/tmp/pare-rank-%d.gguf", (int)getpid());
    p = pool_new(2, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_free(p);
    unlink(path);
    return failed;
}
