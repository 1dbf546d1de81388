/* Texts made to be slow, and files made to be wrong. */
#include "model/vocab_files.h"

#include <math.h>

#include "model/gguf_write.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW_BUILD 1
#endif
#endif
#ifndef SLOW_BUILD
#define SLOW_BUILD 0
#endif

static const encode_options plain = {0};

/* ---- Time ---- */

static double encode_ms(const tokenizer *t, const char *unit, size_t n) {
    char  *text = malloc(n);
    size_t step = strlen(unit);
    for (size_t i = 0; i < n; i++) {
        text[i] = unit[i % step];
    }
    double    start = cpu_ms();
    token_ids ids = encode(t, text, n, plain);
    double    ms = cpu_ms() - start;
    assert_true(ids.count <= 3 * n + 1);
    token_ids_free(&ids);
    free(text);
    return ms;
}

/* Eight times the text may take eight times as long, and then some for the heap's logarithm and the machine's caches;
 * quadratic time would be 64 times. */
static void test_time_is_linear(void **state) {
    (void)state;
    static const char *const vocabs[] = {"llama-bpe", "llama-spm", "deepseek-llm", "gpt-neox", "bert-bge"};
    static const char *const units[] = {" ",  "a",         "\n", "ab",   "!",    " \n",  "1",  "'",
                                        "<|", "[PAD10001", "日", "\xFF", "\xE6", "🙂", "é ", "a\xC3Zé\xE2🙂\x01"};
    const size_t             large = SLOW_BUILD ? 200000 : 1000000;
    double                   worst = 0;
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        vocab_file o = {0};
        if (!vocab_file_open(vocabs[v], &o)) {
            skip();
        }
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            double small_ms = encode_ms(o.t, units[u], large / 8);
            double ms = encode_ms(o.t, units[u], large);
            worst = ms > worst ? ms : worst;
            if (ms > 24 * small_ms + 400) {
                fail_msg("%s: %zu bytes of \"%s\" take %.0f ms, %zu take %.0f ms", vocabs[v], large / 8, units[u],
                         small_ms, large, ms);
            }
        }
        vocab_file_close(&o);
    }
    printf("   %zu hostile bytes: at most %.0f ms of processor time\n", large, worst);
    assert_true(worst < (SLOW_BUILD ? 20000 : 4000));
}

static void test_opens_fast(void **state) {
    (void)state;
    vocab_file o = {0};
    double     start = cpu_ms();
    if (!vocab_file_open("qwen2", &o)) {
        skip();
    }
    double ms = cpu_ms() - start;
    vocab_file_close(&o);
    printf("   qwen2: %.0f ms to open 151669 tokens and 151387 merges\n", ms);
    assert_true(SLOW_BUILD || ms < 150);
}

/* A word of more symbols than are merged at once. */
static void test_longest_word(void **state) {
    (void)state;
    vocab_file o = {0};
    if (SLOW_BUILD || !vocab_file_open("gpt-2", &o)) {
        skip();
    }
    const size_t n = ((size_t)1 << 21) + 12345;
    char        *text = malloc(n);
    memset(text, 'a', n);
    token_ids ids = encode(o.t, text, n, plain);
    str       back = decode(o.t, &ids, false);
    assert_int_equal(back.len, n);
    assert_memory_equal(back.data, text, n);
    str_free(&back);
    token_ids_free(&ids);
    free(text);
    vocab_file_close(&o);
}

/* ---- Files ---- */

typedef struct draft { /* a small vocabulary with handles to make it wrong */
    const char *model, *pre;
    int         types, scores, merges; /* counts that differ from the tokens'; 0: right, -1: none */
    bool        numbers_for_tokens, numbers_for_merges, no_tokens;
    int64_t     bos, eot, bad_type;
    const char *token_0, *token_9, *token_10;
    float       score;
} draft;

enum { TOKENS = 300 };

static gguf *build(const draft *d, str *file) {
    static char    text[TOKENS][16];
    static int32_t types[TOKENS + 8];
    static float   scores[TOKENS + 8];
    gguf_str       tokens[TOKENS];
    const bool     spm = strcmp(d->model, "llama") == 0 || strcmp(d->model, "t5") == 0;
    const char    *fixed[] = {"<unk>", "<s>", "</s>", "<|end|>", "ab", "abc", "▁", "▁a", "bc", "x1", "x2"};
    for (int i = 0; i < TOKENS; i++) {
        types[i] = i == 0 ? TOKEN_UNKNOWN : i < 4 ? TOKEN_CONTROL : TOKEN_NORMAL;
        scores[i] = d->score != 0 ? d->score : (float)-i;
        if (i < 11) {
            snprintf(text[i], sizeof(text[i]), "%s", fixed[i]);
        } else if (i < 267 && spm) {
            snprintf(text[i], sizeof(text[i]), "<0x%02X>", i - 11);
            types[i] = TOKEN_BYTE;
        } else {
            snprintf(text[i], sizeof(text[i]), "%c%s", i < 267 ? 0x21 + i % 94 : 'a' + i % 26,
                     i < 120 || spm ? "" : "q");
        }
        tokens[i] = (gguf_str){text[i], strlen(text[i])};
    }
    tokens[0] = d->token_0 ? (gguf_str){d->token_0, strlen(d->token_0)} : tokens[0];
    tokens[9] = d->token_9 ? (gguf_str){d->token_9, strlen(d->token_9)} : tokens[9];
    tokens[10] = d->token_10 ? (gguf_str){d->token_10, strlen(d->token_10)} : tokens[10];
    types[20] = d->bad_type ? (int32_t)d->bad_type : types[20];
    err          e = {0};
    gguf_writer *w = gguf_write_open_memory(file, &e);
    assert_ok(w, e);
    gguf_write_text(w, "tokenizer.ggml.model", d->model);
    if (d->pre) {
        gguf_write_text(w, "tokenizer.ggml.pre", d->pre);
    }
    if (d->numbers_for_tokens) {
        gguf_write_array(w, "tokenizer.ggml.tokens", GGUF_I32, types, TOKENS);
    } else {
        gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, d->no_tokens ? 0 : TOKENS);
    }
    if (d->types >= 0) {
        gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, (size_t)(d->types ? d->types : TOKENS));
    }
    if (d->scores >= 0) {
        gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, (size_t)(d->scores ? d->scores : TOKENS));
    }
    static const char *const merges[] = {"a b", "ab c", "a b", "no such",  "noblank", "",    " ",        "a ",
                                         " a",  "b c",  "  x", "nosuch e", "c d",     "e é", "\xFF \xFE"};
    gguf_str                 lines[sizeof(merges) / sizeof(merges[0])];
    for (size_t i = 0; i < sizeof(merges) / sizeof(merges[0]); i++) {
        lines[i] = (gguf_str){merges[i], strlen(merges[i])};
    }
    if (d->numbers_for_merges) {
        gguf_write_array(w, "tokenizer.ggml.merges", GGUF_I32, types, 7);
    } else if (d->merges >= 0) {
        gguf_write_strings(w, "tokenizer.ggml.merges", lines, sizeof(merges) / sizeof(merges[0]));
    }
    gguf_write_int(w, "tokenizer.ggml.bos_token_id", GGUF_U32, d->bos ? d->bos : 1);
    gguf_write_int(w, "tokenizer.ggml.eos_token_id", GGUF_U32, 2);
    gguf_write_int(w, "tokenizer.ggml.eot_token_id", GGUF_U32, d->eot ? d->eot : 3);
    assert_ok(gguf_write_finish(w, &e), e);
    gguf *g = gguf_open_memory("draft", file->data, file->len, &e);
    assert_ok(g, e);
    return g;
}

static void check_refused(const draft *d, const char *says) {
    str        file = {0};
    err        e = {0};
    gguf      *g = build(d, &file);
    tokenizer *t = tokenizer_open(g, &e);
    if (t) {
        fail_msg("accepted, but should say \"%s\"", says);
    }
    assert_says(e, says);
    gguf_close(g);
    str_free(&file);
}

static void test_refuses(void **state) {
    (void)state;
    check_refused(&(draft){.model = "rwkv"}, "\"rwkv\"");
    check_refused(&(draft){.model = "bert", .token_0 = "nothing"}, "[UNK]");
    check_refused(&(draft){.model = "t5", .score = INFINITY}, "tokenizer.ggml.scores[0]");
    check_refused(&(draft){.model = ""}, "SPM");
    check_refused(&(draft){.model = "gpt2", .pre = "nobody"}, "\"nobody\"");
    check_refused(&(draft){.model = "gpt2", .merges = -1}, "tokenizer.ggml.merges");
    check_refused(&(draft){.model = "gpt2", .numbers_for_merges = true}, "tokenizer.ggml.merges");
    check_refused(&(draft){.model = "llama", .numbers_for_tokens = true}, "tokenizer.ggml.tokens");
    check_refused(&(draft){.model = "llama", .no_tokens = true}, "tokenizer.ggml.tokens");
    check_refused(&(draft){.model = "llama", .types = TOKENS - 1}, "tokenizer.ggml.token_type");
    check_refused(&(draft){.model = "llama", .types = TOKENS + 1}, "tokenizer.ggml.token_type");
    check_refused(&(draft){.model = "llama", .scores = TOKENS - 1}, "tokenizer.ggml.scores");
    check_refused(&(draft){.model = "llama", .bad_type = 7}, "[20] is 7");
    check_refused(&(draft){.model = "llama", .bad_type = -1}, "[20] is -1");
}

static void check_works(const draft *d) {
    str        file = {0};
    err        e = {0};
    gguf      *g = build(d, &file);
    tokenizer *t = tokenizer_open(g, &e);
    assert_ok(t, e);
    static const char *const texts[] = {"abc", "ab abc </s>x1x2", "",
                                        " ",   "\xFF\xFE\x80",    "nosuch e\xC3\xA9 </s><|end|>"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (int o = 0; o < 4; o++) {
            token_ids ids = encode(t, texts[i], strlen(texts[i]), (encode_options){o & 1, o & 2});
            str       back = decode(t, &ids, o & 2);
            str_free(&back);
            token_ids_free(&ids);
        }
    }
    tokenizer_close(t);
    gguf_close(g);
    str_free(&file);
}

static void test_odd_but_usable(void **state) {
    (void)state;
    static const char *const models[] = {"llama", "gpt2", "t5", "bert", "gemma4"};
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        const char *model = models[m];
        check_works(&(draft){.model = model});
        check_works(&(draft){.model = model, .pre = m != 1 ? NULL : "llama-bpe"});
        check_works(&(draft){.model = model, .types = -1});
        check_works(&(draft){.model = model, .scores = -1});
        if (m != 2) { /* Unigram refuses what is not a number */
            check_works(&(draft){.model = model, .score = (float)(0.0 / 0.0 * 1)});
        }
        check_works(&(draft){.model = model, .score = 1e38f});
        check_works(&(draft){.model = model, .bos = 5000, .eot = 4294967295});
        check_works(&(draft){.model = model, .token_9 = "abc", .token_10 = "abc"});
        check_works(&(draft){.model = model, .token_9 = "", .token_10 = ""});
        check_works(&(draft){.model = model, .token_9 = "\xFF\xC3", .token_10 = "\xE2\x96"});
    }
}

static void check_list(const tokenizer *t, const char *text, size_t n, const int32_t *want) {
    token_ids ids = encode(t, text, strlen(text), plain);
    assert_int_equal(ids.count, n);
    assert_memory_equal(ids.ids, want, n * sizeof(*want));
    token_ids_free(&ids);
}

/* What the drafts give, worked out by hand. */
static void test_small_vocabulary(void **state) {
    (void)state;
    str        file = {0};
    err        e = {0};
    gguf      *g = build(&(draft){.model = "llama", .token_9 = "abc", .token_10 = "q"}, &file);
    tokenizer *t = tokenizer_open(g, &e);
    assert_ok(t, e);
    /* ▁a (-7) is worse than ab (-4); then abc, which stands twice: the last id, whose score -9 is still better than
     * bc would have been, had b been free. */
    check_list(t, "abc", 2, (const int32_t[]){6, 9});
    check_list(t, "\xC3", 2, (const int32_t[]){6, 11 + 0xC3});
    check_list(t, "q", 2, (const int32_t[]){6, tokenizer_find(t, "q", 1)});
    assert_int_equal(tokenizer_find(t, "abc", 3), 9);
    assert_int_equal(tokenizer_find(t, "", 0), -1);
    assert_int_equal(tokenizer_find(t, "abcd", 4), -1);
    assert_true(tokenizer_ends(t, 2) && tokenizer_ends(t, 3) && !tokenizer_ends(t, 4));
    assert_false(tokenizer_ends(t, -1) || tokenizer_ends(t, TOKENS));
    tokenizer_close(t);
    gguf_close(g);
    str_clear(&file);
    g = build(&(draft){.model = "gpt2", .pre = "gpt-2"}, &file);
    t = tokenizer_open(g, &e);
    assert_ok(t, e);
    check_list(t, "abc", 1, (const int32_t[]){5});
    check_list(t, "ab", 1, (const int32_t[]){4});
    /* "c d" is a merge, but "cd" is no token: its bytes are. */
    check_list(t, "cd", 2, (const int32_t[]){tokenizer_find(t, "c", 1), tokenizer_find(t, "d", 1)});
    check_list(t, "\xFF", 0, (const int32_t[]){0}); /* this vocabulary has no token for it */
    tokenizer_close(t);
    gguf_close(g);
    str_free(&file);
}

static void test_mutations(void **state) {
    (void)state;
    uint64_t                 seed = 7;
    int                      opened = 0, refused = 0;
    static const char *const models[] = {"llama", "gpt2", "t5", "bert", "gemma4"};
    for (size_t kind = 0; kind < sizeof(models) / sizeof(models[0]); kind++) {
        str   file = {0};
        gguf *whole = build(&(draft){.model = models[kind]}, &file);
        gguf_close(whole);
        char *copy = malloc(file.len);
        for (int k = 0; k < 700; k++) {
            err    e = {0};
            size_t n = k % 5 == 0 ? test_random(&seed) % file.len : file.len;
            memcpy(copy, file.data, file.len);
            for (uint64_t flips = test_random(&seed) % 8; flips > 0; flips--) {
                copy[test_random(&seed) % file.len] = (char)test_random(&seed);
            }
            gguf      *g = gguf_open_memory("mutation", copy, n, &e);
            tokenizer *t = g ? tokenizer_open(g, &e) : NULL;
            if (t) {
                token_ids ids = encode(t, copy, n < 2000 ? n : 2000, (encode_options){true, true});
                str       back = decode(t, &ids, true);
                str_free(&back);
                token_ids_free(&ids);
                opened++;
            } else {
                assert_true(e.text[0]);
                refused++;
            }
            tokenizer_close(t);
            gguf_close(g);
        }
        free(copy);
        str_free(&file);
    }
    printf("   3500 mutations: %d opened, %d refused with a sentence\n", opened, refused);
    assert_true(opened > 300 && refused > 300);
}

/* Any bytes through the real vocabularies. */
static void test_random_bytes(void **state) {
    (void)state;
    static const char *const vocabs[] = {"llama-spm", "phi-3", "falcon", "deepseek-llm", "qwen2", "bert-bge"};
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        vocab_file o = {0};
        if (!vocab_file_open(vocabs[v], &o)) {
            skip();
        }
        uint64_t seed = v;
        for (int k = 0; k < 1000; k++) {
            char   text[200];
            size_t n = test_random(&seed) % sizeof(text);
            for (size_t i = 0; i < n; i++) {
                uint64_t r = test_random(&seed);
                text[i] = k % 2 ? (char)r : "<|>s/ \n\xE2\x96\x81"[r % 10];
            }
            token_ids ids = encode(o.t, text, n, (encode_options){k & 2, k & 4});
            token_ids_free(&ids);
        }
        vocab_file_close(&o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_is_linear), cmocka_unit_test(test_opens_fast),
        cmocka_unit_test(test_longest_word),   cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_odd_but_usable), cmocka_unit_test(test_small_vocabulary),
        cmocka_unit_test(test_mutations),      cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
