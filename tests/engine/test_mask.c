/* Masks: equal to trying every token, whatever the vocabulary; random answers under them satisfy their schema; what is
 * forced is right; the engine follows a grammar. Prints what a mask costs. */
#include "check.h"

#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "engine/mask.h"
#include "engine/mask_parts.h"
#include "grammar_reference.h"
#include "jobs.h"
#include "schema_check.h"

#define TOKENIZERS "../shared/conformance/tokenizers/ggml-vocab-"
#define BUNDLED    "models/storyteller.gguf"

static uint64_t random_state = 3;

static int64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

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

static bool is_text(const vocabulary *o, int32_t id) {
    token_kind k = tokenizer_kind(o->t, id);
    return k != TOKEN_CONTROL && k != TOKEN_UNKNOWN && k != TOKEN_UNUSED && !tokenizer_ends(o->t, id);
}

static int32_t pick(const uint64_t *bits, int vocab) {
    int n = 0;
    for (size_t w = 0; w < mask_words(vocab); w++) {
        n += __builtin_popcountll(bits[w]);
    }
    assert_true(n > 0);
    int k = (int)(test_random(&random_state) % (uint64_t)n);
    for (int32_t id = 0;; id++) {
        if (mask_has(bits, id) && k-- == 0) {
            return id;
        }
    }
}

/* ---- against the plain reference ---- */

static void test_brute_force(void **unused) {
    (void)unused;
    static const char *const grammars[] = {
        "root ::= \"{\" (pair (\", \" pair)*)? \"}\"\npair ::= str \": \" v\nv ::= str | root | [0-9]+\nstr ::= "
        "\"\\\"\" "
        "ch{0,9} \"\\\"\"\nch ::= [^\"\\\\]",
        "root ::= (\"the \" | \"a \") word (\" \" word)* \".\"\nword ::= [a-z]{1,6}",
        "root ::= \"x\" root \"y\" | \"once upon a time\" | \"z\"",
    };
    vocabulary o;
    if (!open_vocabulary(BUNDLED, &o)) {
        skip();
    }
    int       vocab = tokenizer_vocab(o.t);
    uint64_t *bits = calloc(mask_words(vocab), sizeof(*bits));
    for (size_t i = 0; i < 3; i++) {
        err   e = {0};
        rules r;
        int   root;
        assert_ok(rules_begin(&r, &e), e);
        assert_ok(gbnf_read(grammars[i], strlen(grammars[i]), &r, &root, &e), e);
        grammar *g = grammar_from_gbnf(grammars[i], strlen(grammars[i]), &e);
        matcher *m = matcher_new(g, o.v, NULL, &e);
        assert_ok(m, e);
        char   text[512];
        size_t n = 0;
        for (int step = 0; step < 14 && !matcher_done(m); step++) {
            matcher_mask(m, bits);
            for (int32_t id = 0; id < vocab; id++) {
                const char *piece;
                bool        whole;
                size_t      k = tokenizer_piece(o.t, id, false, &piece);
                bool        may = false;
                if (tokenizer_ends(o.t, id)) {
                    reference_reads(&r, root, text, n, &may);
                } else if (is_text(&o, id) && k > 0 && n + k < 400) {
                    memcpy(text + n, piece, k);
                    may = reference_reads(&r, root, text, n + k, &whole);
                }
                if (may != mask_has(bits, id)) {
                    fail_msg("after \"%.*s\" token %d \"%.*s\": %d, the reference says %d", (int)n, text, id, (int)k,
                             piece, mask_has(bits, id), may);
                }
            }
            int32_t id = pick(bits, vocab);
            assert_true(matcher_accept(m, id));
            const char *piece;
            size_t      k = tokenizer_piece(o.t, id, false, &piece);
            memcpy(text + n, piece, k);
            n += k;
        }
        matcher_free(m);
        grammar_free(g);
        rules_end(&r);
    }
    free(bits);
    close_vocabulary(&o);
}

/* ---- real vocabularies ---- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every token by stepping its bytes, which test_grammar compares with the reference. */
static void check_mask(matcher *m, const vocabulary *o, const uint64_t *bits) {
    for (int32_t id = 0; id < tokenizer_vocab(o->t); id++) {
        const char *piece;
        size_t      n = tokenizer_piece(o->t, id, false, &piece);
        bool        may = tokenizer_ends(o->t, id) && matcher_may_end(m);
        if (is_text(o, id) && n > 0 && n <= VOCAB_LONGEST) {
            int state = m->state;
            for (size_t i = 0; i < n && state != STATE_DEAD; i++) {
                state = machine_step(&m->m, state, m->g->class_of[(uint8_t)piece[i]]);
            }
            may = state != STATE_DEAD;
        }
        if (may != mask_has(bits, id)) {
            fail_msg("token %d \"%.*s\": %d", id, (int)n, piece, mask_has(bits, id));
        }
    }
}

typedef struct costs {
    double us[20000];
    int    n, forced, tokens;
} costs;

/* One random answer; its bytes into text. Closes what it can after a while. Returns the length; 0: it got too long. */
static size_t random_answer(matcher *m, const vocabulary *o, char *text, size_t room, bool check, costs *c) {
    int       vocab = tokenizer_vocab(o->t);
    uint64_t *bits = calloc(mask_words(vocab), sizeof(*bits));
    size_t    n = 0;
    for (int step = 0; step < 150 && !matcher_done(m); step++) {
        int32_t id = -1, forced[MASK_FORCED];
        int     k = test_random(&random_state) % 2 ? matcher_forced(m, forced, MASK_FORCED) : 0;
        c->forced += k;
        for (int i = 0; i < k; i++) {
            const char *piece;
            size_t      length = tokenizer_piece(o->t, forced[i], false, &piece);
            assert_true(matcher_accept(m, forced[i]));
            assert_true(n + length < room);
            memcpy(text + n, piece, length);
            n += length;
        }
        int64_t begun = clock_ns();
        matcher_mask(m, bits);
        if (c->n < 20000) {
            c->us[c->n++] = (double)(clock_ns() - begun) / 1000;
        }
        if (check && step % 4 == 0) {
            check_mask(m, o, bits);
        }
        if (matcher_done(m)) {
            break;
        }
        static const char *const closers[] = {"}", "]", "\"", "0"};
        for (int i = 0; step > 8 && id < 0 && i < 4; i++) {
            int32_t closer = tokenizer_find(o->t, closers[3 - i], 1);
            id = i > 0 && closer >= 0 && mask_has(bits, closer) ? closer : -1;
        }
        id = id < 0 ? pick(bits, vocab) : id;
        const char *piece;
        size_t      length = tokenizer_piece(o->t, id, false, &piece);
        assert_true(matcher_accept(m, id));
        if (tokenizer_ends(o->t, id)) {
            break;
        }
        if (n + length >= room) {
            n = 0;
            break;
        }
        memcpy(text + n, piece, length);
        n += length;
        c->tokens++;
    }
    free(bits);
    return matcher_may_end(m) ? n : 0;
}

/* Where rules end with the answer no token goes on beyond them, and the masks are what stepping bytes says. */
static void test_rules_that_end_the_answer(void **unused) {
    (void)unused;
    static const char text[] = "root ::= a | b | \"<\" a \">\"\n a ::= [^x<]*\n b ::= ([^y<] [^z])*";
    vocabulary        o;
    err               e = {0};
    if (!open_vocabulary(BUNDLED, &o)) {
        skip();
    }
    grammar *g = grammar_from_gbnf(text, sizeof(text) - 1, &e);
    assert_ok(g, e);
    uint64_t *bits = calloc(mask_words(tokenizer_vocab(o.t)), sizeof(*bits));
    for (int round = 0; round < 8; round++) {
        matcher *m = matcher_new(g, o.v, NULL, &e);
        assert_ok(m, e);
        for (int step = 0; step < 12 && !matcher_done(m); step++) {
            matcher_mask(m, bits);
            check_mask(m, &o, bits);
            int32_t id = tokenizer_find(o.t, "<", 1);
            id = round % 2 && step == 0 && id >= 0 && mask_has(bits, id) ? id : pick(bits, tokenizer_vocab(o.t));
            assert_true(matcher_accept(m, id));
            if (tokenizer_ends(o.t, id)) {
                break;
            }
        }
        matcher_free(m);
    }
    grammar_free(g);
    free(bits);
    close_vocabulary(&o);
}

static void test_vocabularies(void **unused) {
    (void)unused;
    static const char *const names[] = {"llama-spm", "llama-bpe", "qwen2"};
    int                      opened = 0;
    for (int i = 0; i < 3; i++) {
        char       path[256];
        vocabulary o;
        snprintf(path, sizeof(path), TOKENIZERS "%s.gguf", names[i]);
        if (!open_vocabulary(path, &o)) {
            continue;
        }
        opened++;
        costs *c = calloc(1, sizeof(*c));
        double slowest_begin = 0;
        int    whole = 0;
        for (size_t k = 0; k < SCHEMA_SAMPLES; k++) {
            err      e = {0};
            cJSON   *schema = json_parse(schema_samples[k], strlen(schema_samples[k]), JSON_MAX_DEPTH, &e);
            grammar *g = grammar_from_schema(schema, NULL, &e);
            assert_ok(g, e);
            for (int round = 0; round < 3; round++) {
                char     text[16384];
                int64_t  begun = clock_us();
                matcher *m = matcher_new(g, o.v, NULL, &e);
                double   ms = (double)(clock_us() - begun) / 1000;
                slowest_begin = ms > slowest_begin ? ms : slowest_begin;
                assert_ok(m, e);
                size_t n = random_answer(m, &o, text, sizeof(text), round == 0, c);
                if (n > 0) {
                    check_text(schema, text, n);
                    whole++;
                }
                matcher_free(m);
            }
            grammar_free(g);
            cJSON_Delete(schema);
        }
        qsort(c->us, (size_t)c->n, sizeof(double), by_size);
        print_message(
            "%-10s %6d tokens: %d masks, median %.1f us, p90 %.1f, p99 %.1f, max %.1f; begin at most %.1f ms; "
            "%d tokens forced, %d drawn, %d answers\n",
            names[i], tokenizer_vocab(o.t), c->n, c->us[c->n / 2], c->us[c->n * 9 / 10], c->us[c->n * 99 / 100],
            c->us[c->n - 1], slowest_begin, c->forced, c->tokens, whole);
        assert_true(whole > (int)SCHEMA_SAMPLES);
        free(c);
        close_vocabulary(&o);
    }
    if (!opened) {
        skip();
    }
}

/* ---- in the engine ---- */

typedef struct told {
    answer *a;
    char    text[8192];
    size_t  n;
} told;

static told heard[8];

static void keep_text(told *t, const char *text, size_t n) {
    if (t->n + n < sizeof(t->text)) {
        memcpy(t->text + t->n, text, n);
        t->n += n;
    }
}

static void hear_piece(void *ctx, const engine_piece *p) {
    told *t = ctx;
    keep_text(t, p->text, p->text_len);
    on_piece(t->a, p);
}

static void hear_done(void *ctx, const engine_result *r) {
    told *t = ctx;
    keep_text(t, r->text, r->text_len);
    on_done(t->a, r);
}

static pool  *p;
static model *m;

static void ask(engine *g, int slot, engine_request r) {
    err     e = {0};
    int32_t prompt[] = {1, 2, 3, 4};
    heard[slot] = (told){.a = new_answer()};
    r.tokens = prompt;
    r.n_tokens = 4;
    r.piece = hear_piece;
    r.done = hear_done;
    r.ctx = &heard[slot];
    assert_ok(engine_submit(g, &r, &e), e);
}

static void test_engine(void **unused) {
    (void)unused;
    err e = {0};
    if (access(BUNDLED, R_OK) != 0) {
        skip();
    }
    p = pool_new(2, &e);
    m = model_open(BUNDLED, NULL, 0, p, &e);
    assert_ok(m, e);
    engine *g = engine_open(m, p, &(engine_options){.sequences = 8}, &e);
    assert_ok(g, e);
    int stopped = 0;
    for (size_t k = 0; k < SCHEMA_SAMPLES; k++) {
        cJSON   *schema = json_parse(schema_samples[k], strlen(schema_samples[k]), JSON_MAX_DEPTH, &e);
        grammar *of = grammar_from_schema(schema, &(schema_options){.space = (json_space)(k % 3)}, &e);
        for (int i = 0; i < 8; i++) { /* 6 and 7 ask the same: the same must come */
            engine_request r = {.max_tokens = 150, .grammar = of, .sampling = sampling_default()};
            r.sampling.seed = (uint64_t)(i == 7 ? 6 : i);
            r.sampling.temperature = i % 3 == 2 ? 0 : 1;
            r.sampling.top_k = 40;
            r.sampling.temperature = i == 7 || i == 6 ? 1 : r.sampling.temperature;
            r.sampling.top_logprobs = i == 5 ? 3 : -1;
            ask(g, i, r);
        }
        grammar_free(of);
        for (int i = 0; i < 8; i++) {
            wait_for(heard[i].a);
            assert_int_equal(heard[i].a->result.completion_tokens - heard[i].a->n <= 1, true);
            if (heard[i].a->finish == FINISH_STOP) {
                check_text(schema, heard[i].text, heard[i].n);
                stopped++;
            } else {
                assert_int_equal(heard[i].a->finish, FINISH_LENGTH);
            }
        }
        assert_int_equal(heard[6].n, heard[7].n);
        assert_memory_equal(heard[6].text, heard[7].text, heard[6].n);
        for (int i = 0; i < 8; i++) {
            free_answer(heard[i].a);
        }
        cJSON_Delete(schema);
    }
    print_message("%d of %d answers came to an end\n", stopped, (int)SCHEMA_SAMPLES * 8);
    assert_true(stopped > (int)SCHEMA_SAMPLES * 2);
    engine_close(g);
    model_close(m);
    pool_free(p);
}

/* A long stretch is forced: it takes fewer steps than tokens. And a trigger: free until it comes. */
static void test_forced_and_trigger(void **unused) {
    (void)unused;
    static const char fixed[] = "root ::= \"once upon a time there was a little girl who liked to play\" [.!]";
    static const char call[] = "root ::= \"(\" [0-9]{3} \")\"";
    err               e = {0};
    if (access(BUNDLED, R_OK) != 0) {
        skip();
    }
    p = pool_new(2, &e);
    m = model_open(BUNDLED, NULL, 0, p, &e);
    assert_ok(m, e);
    engine  *g = engine_open(m, p, &(engine_options){.sequences = 2}, &e);
    grammar *of = grammar_from_gbnf(fixed, strlen(fixed), &e);
    assert_ok(of, e);
    ask(g, 0, (engine_request){.max_tokens = 100, .grammar = of, .sampling = sampling_default()});
    wait_for(heard[0].a);
    engine_stats stats;
    engine_stats_read(g, &stats);
    print_message("\"%.*s\": %d tokens in %d steps\n", (int)heard[0].n, heard[0].text, heard[0].a->n, (int)stats.steps);
    assert_int_equal(heard[0].a->finish, FINISH_STOP);
    assert_int_equal(heard[0].n, strlen(fixed) - strlen("root ::= \"\" [.!]") + 1);
    assert_true(stats.steps * 2 < heard[0].a->n);
    assert_int_equal(stats.completion_tokens, heard[0].a->n);
    free_answer(heard[0].a);
    grammar_free(of);
    of = grammar_from_gbnf(call, strlen(call), &e);
    assert_ok(of, e);
    int seen = 0;
    for (int i = 0; i < 30; i++) {
        engine_request r = {.max_tokens = 80, .grammar = of, .trigger = "e", .sampling = sampling_default()};
        r.sampling.seed = (uint64_t)i;
        ask(g, 0, r);
        wait_for(heard[0].a);
        const char *at = memchr(heard[0].text, 'e', heard[0].n);
        if (heard[0].a->finish == FINISH_STOP) { /* not before the trigger, and not before the grammar's end */
            assert_non_null(at);
            assert_int_equal(heard[0].text + heard[0].n - at, 6);
            assert_true(at[1] == '(' && at[5] == ')');
            seen++;
        }
        free_answer(heard[0].a);
    }
    assert_true(seen > 10);
    grammar_free(of);
    engine_close(g);
    model_close(m);
    pool_free(p);
}

/* Before the trigger anything may come but the end; behind it what the grammar says. */
static void test_no_end_before_the_trigger(void **unused) {
    (void)unused;
    static const char text[] = "root ::= [0-9]{2}";
    vocabulary        o;
    err               e = {0};
    if (!open_vocabulary(BUNDLED, &o)) {
        skip();
    }
    int       vocab = tokenizer_vocab(o.t);
    grammar  *g = grammar_from_gbnf(text, strlen(text), &e);
    uint64_t *bits = calloc(mask_words(vocab), sizeof(*bits));
    matcher  *w = matcher_new(g, o.v, "</t>", &e);
    assert_ok(w, e);
    static const char said[] = "a</</t>12";
    assert_true(o.v->n_ends > 0);
    for (size_t at = 0; at + 1 < sizeof(said); at++) {
        matcher_mask(w, bits);
        for (int i = 0; i < o.v->n_ends; i++) {
            assert_false(mask_has(bits, o.v->ends[i]));
            assert_false(matcher_accept(w, o.v->ends[i]));
        }
        assert_false(matcher_may_end(w));
        assert_false(matcher_done(w));
        int32_t id = tokenizer_find(o.t, said + at, 1);
        assert_true(id < 0 || mask_has(bits, id));
        if (id < 0 || !matcher_accept(w, id)) {
            fail_msg("\"%c\" is not taken after \"%.*s\"", said[at], (int)at, said);
        }
    }
    assert_true(matcher_done(w));
    matcher_mask(w, bits);
    assert_true(mask_has(bits, o.v->ends[0]));
    matcher_free(w);
    grammar_free(g);
    free(bits);
    close_vocabulary(&o);
}

/* Only what the mask allows is drawn; log-probabilities stay those of all tokens. */
static void test_sampler(void **unused) {
    (void)unused;
    err      e = {0};
    float    logits[130];
    uint64_t mask[3] = {0};
    sampler *s = sampler_new(130, &e);
    assert_ok(s, e);
    for (int i = 0; i < 130; i++) {
        logits[i] = (float)(test_random(&random_state) % 1000) / 100;
    }
    sampled  none, out;
    sampling how = sampling_default();
    sampler_begin(s, &how, NULL, 0);
    sampler_next_of(s, logits, mask, &none);
    assert_int_equal(none.token.id, -1);
    mask[0] = 1u << 7;
    mask[2] = 2;
    for (int i = 0; i < 100; i++) {
        how.seed = (uint64_t)i;
        how.temperature = i % 2 ? 0.0f : 1.0f;
        how.top_k = i % 5;
        how.top_p = i % 7 ? 1.0f : 0.4f;
        how.top_logprobs = i % 3 - 1;
        how.repeat_penalty = i % 11 ? 1.0f : 1.2f;
        sampler_begin(s, &how, NULL, 0);
        sampler_next_of(s, logits, mask, &out);
        assert_true(out.token.id == 7 || out.token.id == 129);
        if (how.temperature == 0 && how.repeat_penalty == 1) {
            assert_int_equal(out.token.id, logits[7] >= logits[129] ? 7 : 129);
        }
    }
    sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler),
        cmocka_unit_test(test_brute_force),
        cmocka_unit_test(test_rules_that_end_the_answer),
        cmocka_unit_test(test_vocabularies),
        cmocka_unit_test(test_engine),
        cmocka_unit_test(test_forced_and_trigger),
        cmocka_unit_test(test_no_end_before_the_trigger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
