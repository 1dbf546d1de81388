/* A local model that ranks: a query and its documents become pairs whose second texts are of the second type, with BERT's
 * tokens; the scores are those of the pairs put together here by hand. */
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "backend/backend.h"
#include "engine/embed.h"
#include "model/gguf_write.h"

enum { DIM = 32, FFN = 64, CONTEXT = 32, DOCUMENTS = 3, CLS = 2, SEP = 3, RED = 4, GREEN, BLUE, LEAF, SEA, VOCAB };

static const char *const words[VOCAB] = {"[PAD]",  "[UNK]", "[CLS]", "[SEP]", "▁red",
                                         "▁green", "▁blue", "▁leaf", "▁sea"};

static char  path[64];
static pool *p;

typedef struct part {
    const char *name;
    int         cols, rows; /* rows 0: a vector */
} part;

static const part parts[] = {
    {"token_embd.weight", DIM, VOCAB},
    {"token_types.weight", DIM, 2},
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
};

static void write_model(void) {
    err          e = {0};
    uint64_t     seed = 21;
    gguf_str     tokens[VOCAB];
    int32_t      kinds[VOCAB];
    float        numbers[DIM * FFN];
    gguf_writer *w = gguf_write_open(path, &e);
    assert_ok(w, e);
    for (int i = 0; i < VOCAB; i++) {
        tokens[i] = (gguf_str){words[i], strlen(words[i])};
        kinds[i] = words[i][0] == '[' ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    gguf_write_text(w, "general.architecture", "bert");
    gguf_write_int(w, "bert.context_length", GGUF_U32, CONTEXT);
    gguf_write_int(w, "bert.embedding_length", GGUF_U32, DIM);
    gguf_write_int(w, "bert.block_count", GGUF_U32, 1);
    gguf_write_int(w, "bert.feed_forward_length", GGUF_U32, FFN);
    gguf_write_int(w, "bert.attention.head_count", GGUF_U32, 4);
    gguf_write_float(w, "bert.attention.layer_norm_epsilon", GGUF_F32, 1e-12);
    gguf_write_int(w, "bert.pooling_type", GGUF_U32, POOLING_RANK);
    gguf_write_text(w, "tokenizer.ggml.model", "bert");
    gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, VOCAB);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, kinds, VOCAB);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        int64_t shape[2] = {parts[i].cols, parts[i].rows};
        gguf_write_tensor(w, parts[i].name, block_format_of(BLOCK_F32), parts[i].rows ? 2 : 1, shape);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        int n = parts[i].cols * (parts[i].rows ? parts[i].rows : 1);
        for (int k = 0; k < n; k++) {
            numbers[k] = (float)(int64_t)test_random(&seed) * 0x1p-63f * (parts[i].rows ? 0.5f : 1);
        }
        gguf_write_data(w, numbers, (size_t)n * sizeof *numbers);
    }
    assert_ok(gguf_write_finish(w, &e), e);
}

/* ---- by hand ---- */

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

static void by_hand(const embed_text *texts, int n, float *scores) {
    err       e = {0};
    waiter    w = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};
    model    *m = model_open(path, NULL, 0, p, &e);
    embedder *b = m ? embed_open(m, p, &(embed_options){.kv = KV_F32}, &e) : NULL;
    assert_ok(b, e);
    assert_ok(embed_submit(b, &(embed_request){texts, n, scores, on_done, &w}, &e), e);
    pthread_mutex_lock(&w.lock);
    while (!w.done) {
        pthread_cond_wait(&w.change, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    for (int i = 0; i < n; i++) {
        scores[i] = 1 / (1 + expf(-scores[i]));
    }
    embed_close(b);
    model_close(m);
}

/* ---- as a request ---- */

typedef struct call {
    loop_task task; /* first */
    loop     *l;
    backend  *b;
    request   r;
    double    scores[DOCUMENTS];
    int       answers;
    int64_t   tokens;
} call;

static void on_event(void *ctx, const event *ev) {
    call *c = ctx;
    if (ev->error) {
        fail_msg("%s", ev->error->text);
    }
    if (ev->kind == EVENT_WHOLE) {
        err          e = {0};
        cJSON       *json = json_parse(ev->whole->raw, ev->whole->raw_len, JSON_MAX_DEPTH, &e);
        const cJSON *one;
        assert_ok(json, e);
        cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(json, "results")) {
            int which = cJSON_GetObjectItemCaseSensitive(one, "index")->valueint;
            assert_in_range(which, 0, DOCUMENTS - 1);
            c->scores[which] = cJSON_GetObjectItemCaseSensitive(one, "relevance_score")->valuedouble;
            c->answers++;
        }
        c->tokens = ev->whole->usage.prompt;
        cJSON_Delete(json);
    } else {
        loop_stop(c->l);
    }
}

static void start(loop_task *task) {
    call *c = (call *)task;
    err   e = {0};
    assert_ok(c->b->ops->start(c->b, c->l, &c->r, NULL, on_event, c, &e), e);
}

static void a_document_is_of_the_second_type(void **state) {
    (void)state;
    static const int32_t ids[DOCUMENTS][9] = {{CLS, GREEN, LEAF, SEP, BLUE, SEA, SEP},
                                              {CLS, GREEN, LEAF, SEP, GREEN, SEP},
                                              {CLS, GREEN, LEAF, SEP, LEAF, RED, LEAF, RED, SEP}};
    static const int     n[DOCUMENTS] = {7, 6, 9};
    err                  e = {0};
    prompt     documents[DOCUMENTS] = {{.text = "blue sea"}, {.text = "Green"}, {.text = "leaf red leaf red"}};
    embed_text pairs[2 * DOCUMENTS];
    float      expected[2 * DOCUMENTS];
    call       c = {.task.run = start, .l = loop_new(0, &e)};
    write_model();
    c.b = backend_local("ranker", path, NULL, 0, p, &(local_options){.kv = KV_F32}, &e);
    assert_ok(c.b && c.l, e);
    c.r = (request){.kind = REQUEST_RERANK, .query = "green leaf", .prompts = documents, .n_prompts = DOCUMENTS};
    loop_post(c.l, &c.task);
    assert_ok(loop_run(c.l, &e), e);
    for (int i = 0; i < DOCUMENTS; i++) {
        pairs[i] = (embed_text){ids[i], n[i], 4};
        pairs[DOCUMENTS + i] = (embed_text){ids[i], n[i], 0};
    }
    by_hand(pairs, 2 * DOCUMENTS, expected);
    assert_int_equal(c.answers, DOCUMENTS);
    assert_int_equal(c.tokens, n[0] + n[1] + n[2]);
    for (int i = 0; i < DOCUMENTS; i++) {
        assert_float_equal(c.scores[i], (double)expected[i], 1e-5);
        assert_true(fabsf(expected[i] - expected[DOCUMENTS + i]) > 1e-3f); /* or it would not matter */
    }
    c.b->ops->close(c.b);
    loop_free(c.l);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_of_the_second_type),
    };
    snprintf(path, sizeof path, "/tmp/pare-rerank-%d.gguf", (int)getpid());
    p = pool_new(2, NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pool_free(p);
    unlink(path);
    return failed;
}
