/* Masks that are worked out by another thread: the same as those that are asked for directly, whenever answers come and
 * go; late ones change when a token comes and not which. Prints what an answer under a schema costs its engine. */
#include "check.h"

#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"
#include "engine/mask_ahead.h"
#include "engine/schedule.h"
#include "jobs.h"

#define TOKENIZERS "../shared/conformance/tokenizers/ggml-vocab-"
#define BUNDLED    "models/storyteller.gguf"

#define ANSWERS 16
#define TOKENS  160
#define STEP_US 4000

static uint64_t random_state = 7;

/* Nested objects, strings with limits, arrays, enums, patterns, formats, numbers within bounds. */
static const char order_schema[] =
    "{\"type\":\"object\",\"properties\":{"
    "\"customer\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":40},"
    "\"email\":{\"type\":\"string\",\"format\":\"email\"},\"note\":{\"type\":\"string\",\"maxLength\":200}},"
    "\"required\":[\"name\",\"email\",\"note\"]},"
    "\"status\":{\"enum\":[\"new\",\"paid\",\"packed\",\"shipped\",\"returned\"]},"
    "\"lines\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":20,\"items\":{\"type\":\"object\",\"properties\":{"
    "\"sku\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}-[0-9]{4}$\"},"
    "\"title\":{\"type\":\"string\",\"maxLength\":80},"
    "\"count\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":99},\"price\":{\"type\":\"number\",\"minimum\":0},"
    "\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":12},\"maxItems\":5}},"
    "\"required\":[\"sku\",\"title\",\"count\",\"price\",\"tags\"]}}},"
    "\"required\":[\"customer\",\"status\",\"lines\"]}";

typedef struct vocabulary {
    gguf       *file;
    tokenizer  *t;
    vocab_tree *v;
} vocabulary;

static bool open_vocabulary(const char *path, vocabulary *out) {
    err e = {0};
    if (access(path, R_OK) != 0) {
        print_message("%s is not there: skipped\n", path);
        return false;
    }
    out->file = gguf_open(path, &e);
    assert_ok(out->file, e);
    out->t = tokenizer_open(out->file, &e);
    assert_ok(out->t, e);
    out->v = vocab_tree_new(out->t, tokenizer_vocab(out->t), &e);
    assert_ok(out->v, e);
    return true;
}

static void close_vocabulary(vocabulary *o) {
    vocab_tree_free(o->v);
    tokenizer_close(o->t);
    gguf_close(o->file);
}

static grammar *grammar_of(const char *schema) {
    err      e = {0};
    cJSON   *of = json_parse(schema, strlen(schema), JSON_MAX_DEPTH, &e);
    grammar *g = grammar_from_schema(of, &(schema_options){.space = JSON_SPACE_ONE}, &e);
    assert_ok(g, e);
    cJSON_Delete(of);
    return g;
}

static matcher *matcher_of(grammar *g, const vocabulary *o) {
    err      e = {0};
    matcher *m = matcher_new(g, o->v, NULL, &e);
    assert_ok(m, e);
    return m;
}

static mask_next *next_of(mask_ahead *a, grammar *g, const vocabulary *o) {
    err        e = {0};
    mask_next *n = mask_next_new(a, matcher_of(g, o), tokenizer_vocab(o->t), &e);
    assert_ok(n, e);
    return n;
}

static int below(int n) {
    return (int)(test_random(&random_state) % (uint64_t)n);
}

static int32_t pick(const uint64_t *bits, int vocab) {
    int n = 0;
    for (size_t w = 0; w < mask_words(vocab); w++) {
        n += __builtin_popcountll(bits[w]);
    }
    assert_true(n > 0);
    int k = below(n);
    for (int32_t id = 0;; id++) {
        if (mask_has(bits, id) && k-- == 0) {
            return id;
        }
    }
}

/* ---- the same masks ---- */

static void test_same_masks(void **unused) {
    (void)unused;
    vocabulary o;
    if (!open_vocabulary(BUNDLED, &o)) {
        skip();
    }
    err         e = {0};
    int         vocab = tokenizer_vocab(o.t);
    grammar    *g = grammar_of(order_schema);
    mask_ahead *a = mask_ahead_start(&e);
    assert_ok(a, e);
    uint64_t *bits = calloc(mask_words(vocab), sizeof(*bits));
    for (int round = 0; round < 20; round++) {
        mask_next *n[ANSWERS];
        matcher   *plain[ANSWERS];
        for (int i = 0; i < ANSWERS; i++) {
            n[i] = next_of(a, g, &o);
            plain[i] = matcher_of(g, &o);
            assert_false(mask_next_ready(n[i], 0)); /* nobody asked */
        }
        for (int step = 0; step < 12; step++) {
            mask_asks asks = {0};
            for (int i = 0; i < ANSWERS; i++) {
                mask_next_ask(n[i], &asks);
                mask_next_ask(n[i], &asks); /* once is enough */
            }
            mask_asks_send(&asks);
            for (int i = 0; i < ANSWERS; i++) {
                assert_true(mask_next_ready(n[i], clock_us() + 20000000));
                matcher_mask(plain[i], bits);
                assert_memory_equal(bits, mask_next_bits(n[i]), mask_words(vocab) * sizeof(*bits));
                int32_t id = pick(bits, vocab);
                assert_true(matcher_accept(plain[i], id));
                assert_true(matcher_accept(mask_next_matcher(n[i]), id));
                if (matcher_done(plain[i])) {
                    matcher_free(plain[i]);
                    mask_next_free(n[i]);
                    plain[i] = matcher_of(g, &o);
                    n[i] = next_of(a, g, &o);
                }
            }
        }
        mask_asks asks = {0};
        for (int i = 0; i < ANSWERS; i++) {
            if (i % 4) {
                mask_next_ask(n[i], &asks);
            }
        }
        mask_asks_send(&asks);
        for (int i = 0; i < ANSWERS; i++) { /* idle, in line, in work, ready: whatever it is, it may go */
            mask_next_free(n[i]);
            matcher_free(plain[i]);
        }
    }
    mask_ahead_stop(a);
    mask_ahead_stop(NULL);
    mask_next_free(NULL);
    grammar_free(g);
    free(bits);
    close_vocabulary(&o);
}

/* ---- late masks in the engine ---- */

static const char *const spoken[ANSWERS / 4] = {order_schema, "{\"type\":\"object\"}", NULL,
                                                "{\"type\":\"string\",\"maxLength\":60}"};

static void ask(engine *g, answer **a) {
    for (int i = 0; i < ANSWERS / 2; i++) {
        err         e = {0};
        int32_t     prompt[] = {1, 2, 3, 4 + i};
        const char *schema = spoken[i % (ANSWERS / 4)];
        grammar    *of = schema ? grammar_of(schema) : NULL;
        a[i] = new_answer();
        engine_request r = {.tokens = prompt,
                            .n_tokens = 4,
                            .max_tokens = 40 + i,
                            .grammar = of,
                            .sampling = sampling_default(),
                            .ctx = a[i]};
        r.sampling.seed = (uint64_t)i;
        assert_ok(submit(g, a[i], r, &e), e);
        grammar_free(of);
    }
    for (int i = 0; i < ANSWERS / 2; i++) {
        wait_for(a[i]);
    }
}

/* The thread has so much to do for somebody else that masks come late: others go on, and all tokens are the same. */
static void test_late_masks(void **unused) {
    (void)unused;
    err        e = {0};
    vocabulary o;
    if (access(BUNDLED, R_OK) != 0 || !open_vocabulary(TOKENIZERS "qwen2.gguf", &o)) {
        skip();
    }
    pool   *p = pool_new(2, &e);
    model  *m = model_open(BUNDLED, NULL, 0, p, &e);
    answer *calm[ANSWERS / 2], *busy[ANSWERS / 2];
    assert_ok(m, e);
    engine *g = engine_open(m, p, &(engine_options){.sequences = ANSWERS / 2}, &e);
    assert_ok(g, e);
    ask(g, calm);
    grammar   *slow = grammar_of("{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":900}}");
    mask_next *work[100];
    mask_asks  asks = {0};
    for (int i = 0; i < 100; i++) { /* each in another place of a string */
        work[i] = next_of(g->ahead, slow, &o);
        static const char x[] = "[\"";
        matcher_accept(mask_next_matcher(work[i]), tokenizer_find(o.t, x, 2));
        for (int k = 0; k < i * 8; k++) {
            assert_true(matcher_accept(mask_next_matcher(work[i]), tokenizer_find(o.t, "x", 1)));
        }
        mask_next_ask(work[i], &asks);
    }
    mask_asks_send(&asks);
    ask(g, busy);
    print_message("%d masks late, %.1f ms waited for them\n", (int)atomic_load(&g->told.masks_late),
                  (double)atomic_load(&g->told.mask_wait_us) / 1000);
    assert_true(atomic_load(&g->told.masks_late) > 0);
    for (int i = 0; i < ANSWERS / 2; i++) {
        assert_int_equal(calm[i]->finish, busy[i]->finish);
        assert_int_equal(calm[i]->n, busy[i]->n);
        assert_memory_equal(calm[i]->ids, busy[i]->ids, (size_t)calm[i]->n * sizeof(int32_t));
        assert_int_equal(calm[i]->result.completion_tokens, busy[i]->result.completion_tokens);
        free_answer(calm[i]);
        free_answer(busy[i]);
    }
    for (int i = 0; i < 100; i++) {
        mask_next_free(work[i]);
    }
    engine_close(g);
    grammar_free(slow);
    model_close(m);
    pool_free(p);
    close_vocabulary(&o);
}

/* ---- what it costs ---- */

static void add_words(str *out, int least, int most) {
    static const char *const words[] = {"blue", "small",  "wooden", "the",     "delivery", "kitchen",    "with",
                                        "late", "please", "ring",   "quality", "of",       "caf\xc3\xa9"};
    int                      n = least + below(most - least + 1);
    size_t                   from = out->len;
    while ((int)(out->len - from) < n - 12) {
        str_addf(out, "%s ", words[below(13)]);
    }
    str_adds(out, "x");
}

static void make_order(str *out) {
    str_adds(out, "{\"customer\": {\"name\": \"");
    add_words(out, 14, 38);
    str_addf(out, "\", \"email\": \"a%d.b@example%d.org\", \"note\": \"", below(99), below(99));
    add_words(out, 20, 198);
    static const char *const status[] = {"new", "paid", "packed", "shipped", "returned"};
    str_addf(out, "\"}, \"status\": \"%s\", \"lines\": [", status[below(5)]);
    for (int i = 0, n = 1 + below(4); i < n; i++) {
        str_addf(out, "%s{\"sku\": \"ABC-%04d\", \"title\": \"", i ? ", " : "", below(9999));
        add_words(out, 13, 79);
        str_addf(out, "\", \"count\": %d, \"price\": %d.%02d, \"tags\": [\"kitchen\", \"new\"]}", 1 + below(98),
                 below(500), below(99));
    }
    str_adds(out, "]}");
}

typedef struct costs {
    double us[ANSWERS * TOKENS];
    int    n;
} costs;

static void note(costs *c, double us) {
    if (c->n < (int)(sizeof(c->us) / sizeof(c->us[0]))) {
        c->us[c->n++] = us;
    }
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show(const char *what, costs *c) {
    qsort(c->us, (size_t)c->n, sizeof(double), by_size);
    print_message("  %-34s %5d: p50 %6.1f us, p99 %7.1f, max %7.1f\n", what, c->n, c->us[c->n / 2],
                  c->us[c->n * 99 / 100], c->us[c->n - 1]);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1000;
}

typedef struct speaker { /* an answer that says an order */
    mask_next *next;
    token_ids  ids;
    size_t     at;
    bool       skipped; /* its mask was late in the step before */
} speaker;

/* The tokens of a text that begins nowhere: SPM would put a space before it, which goes before a line's end instead. */
static void encode(const vocabulary *o, const str *text, token_ids *ids) {
    err    e = {0};
    bool   before = tokenizer_strips_first_space(o->t);
    str    all = {0};
    size_t at = 0;
    str_addf(&all, "%s%s", before ? "\n" : "", text->data);
    ids->count = 0;
    assert_ok(tokenizer_encode(o->t, all.data, all.len, (encode_options){0}, ids, &e), e);
    for (const char *piece = ""; before && (at == 0 || piece[0] != '\n');) {
        assert_true(tokenizer_piece(o->t, ids->ids[at++], false, &piece) > 0);
    }
    memmove(ids->ids, ids->ids + at, (ids->count - at) * sizeof(*ids->ids));
    ids->count -= at;
    str_free(&all);
}

static void begin_order(speaker *s, mask_ahead *a, grammar *g, const vocabulary *o) {
    str text = {0};
    make_order(&text);
    mask_next_free(s->next);
    s->next = next_of(a, g, o);
    s->at = 0;
    encode(o, &text, &s->ids);
    str_free(&text);
}

/* What schedule.c does with masks in a step, with a sleep where it computes. */
static int take_steps(mask_ahead *a, grammar *g, const vocabulary *o, costs *step, costs *token) {
    speaker s[ANSWERS] = {0};
    int     late = 0;
    for (int t = 0; t < TOKENS; t++) {
        double took = 0;
        for (int i = 0; i < ANSWERS; i++) {
            if (!s[i].next || s[i].at == s[i].ids.count) {
                begin_order(&s[i], a, g, o);
            }
        }
        double    begun = now_us();
        mask_asks asks = {0};
        for (int i = 0; i < ANSWERS; i++) {
            mask_next_ask(s[i].next, &asks);
        }
        mask_asks_send(&asks);
        took += now_us() - begun;
        usleep(STEP_US);
        for (int i = 0; i < ANSWERS; i++) {
            begun = now_us();
            bool ready = mask_next_ready(s[i].next, 0);
            took += now_us() - begun;
            late += !ready;
            if (!ready) {
                continue;
            }
            int32_t id = s[i].ids.ids[s[i].at++], forced[MASK_FORCED];
            assert_true(mask_has(mask_next_bits(s[i].next), id));
            begun = now_us();
            matcher *m = mask_next_matcher(s[i].next);
            assert_true(matcher_accept(m, id));
            matcher_forced(m, forced, MASK_FORCED);
            double us = now_us() - begun;
            took += us;
            note(token, us);
        }
        note(step, took);
    }
    for (int i = 0; i < ANSWERS; i++) {
        mask_next_free(s[i].next);
        token_ids_free(&s[i].ids);
    }
    return late;
}

/* The masks of some orders, one after the other. */
static void take_masks(grammar *g, const vocabulary *o, costs *c) {
    uint64_t *bits = calloc(mask_words(tokenizer_vocab(o->t)), sizeof(*bits));
    for (int i = 0; i < 8; i++) {
        str       text = {0};
        token_ids ids = {0};
        matcher  *m = matcher_of(g, o);
        make_order(&text);
        encode(o, &text, &ids);
        for (size_t k = 0; k < ids.count; k++) {
            double begun = now_us();
            matcher_mask(m, bits);
            note(c, now_us() - begun);
            assert_true(mask_has(bits, ids.ids[k]));
            assert_true(matcher_accept(m, ids.ids[k]));
        }
        assert_true(matcher_done(m));
        matcher_free(m);
        token_ids_free(&ids);
        str_free(&text);
    }
    free(bits);
}

static void test_costs(void **unused) {
    (void)unused;
    static const char *const names[] = {"llama-spm", "llama-bpe", "qwen2"};
    int                      opened = 0;
    for (int i = 0; i < 3; i++) {
        char       path[256];
        vocabulary o;
        err        e = {0};
        snprintf(path, sizeof(path), TOKENIZERS "%s.gguf", names[i]);
        if (!open_vocabulary(path, &o)) {
            continue;
        }
        opened++;
        costs   *step = calloc(1, sizeof(*step)), *token = calloc(1, sizeof(*token)), *mask = calloc(1, sizeof(*mask));
        double   begun = now_us();
        grammar *g = grammar_of(order_schema);
        double   compiled = now_us();
        mask_ahead *a = mask_ahead_start(&e);
        assert_ok(a, e);
        matcher_free(matcher_of(g, &o));
        double first = now_us();
        int    late = take_steps(a, g, &o, step, token);
        print_message("%s, %d tokens: grammar %.1f ms, first matcher %.1f ms; %d masks late of %d\n", names[i],
                      tokenizer_vocab(o.t), (compiled - begun) / 1000, (first - compiled) / 1000, late,
                      token->n + late);
        show("a token's work beside the step", token);
        char text[64];
        snprintf(text, sizeof(text), "a step of %d answers, all together", ANSWERS);
        show(text, step);
        grammar *fresh = grammar_of(order_schema);
        take_masks(fresh, &o, mask);
        show("masks of a new grammar", mask);
        mask->n = 0;
        take_masks(fresh, &o, mask);
        show("masks of the same again", mask);
        assert_true(token->us[token->n / 2] < 200); /* median; what it is to be is 50 */
        mask_ahead_stop(a);
        grammar_free(g);
        grammar_free(fresh);
        free(step);
        free(token);
        free(mask);
        close_vocabulary(&o);
    }
    if (!opened) {
        skip();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_masks),
        cmocka_unit_test(test_late_masks),
        cmocka_unit_test(test_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
