/* How fast: megabytes a second of English, and time in proportion to any text. One thread.
 *
 * A machine under test is shared, so that the floors are far below what a quiet one does (20 MB/s and more); the figures
 * are printed. A floor still catches what is slower by a whole factor: a lost table, a quadratic step. */
#include "model/vocab_files.h"

#include <math.h>

#include "model/gguf_write.h"
#include "model/tokenizer/chars.h"
#include "model/tokenizer/split.h"

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

static const double least_mb_s = 4;

/* The best of three. */
static double encode_best_ms(const tokenizer *t, const char *text, size_t n) {
    double best = INFINITY;
    for (int k = 0; k < 3; k++) {
        const double start = cpu_ms();
        token_ids    ids = encode(t, text, n, (encode_options){0});
        best = fmin(best, cpu_ms() - start);
        token_ids_free(&ids);
    }
    return best;
}

/* A unigram model with BERT's words, the frequent ones first in its vocabulary. */
static tokenizer *unigram_of(const vocab_file *bert, str *file, gguf **g) {
    const int    n = tokenizer_vocab(bert->t);
    gguf_str    *tokens = malloc((size_t)n * sizeof(*tokens));
    float       *scores = malloc((size_t)n * sizeof(*scores));
    int32_t     *types = malloc((size_t)n * sizeof(*types));
    err          e = {0};
    gguf_writer *w = gguf_write_open_memory(file, &e);
    for (int i = 0; i < n; i++) {
        const char *text = tokenizer_text(bert->t, i);
        tokens[i] = (gguf_str){text, strlen(text)};
        scores[i] = -logf((float)(i + 2));
        types[i] = i == 100 ? TOKEN_UNKNOWN : TOKEN_NORMAL;
    }
    gguf_write_text(w, "tokenizer.ggml.model", "t5");
    gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, (size_t)n);
    gguf_write_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, (size_t)n);
    gguf_write_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, (size_t)n);
    gguf_write_int(w, "tokenizer.ggml.unknown_token_id", GGUF_U32, 100);
    gguf_write_bool(w, "tokenizer.ggml.add_space_prefix", true);
    gguf_write_bool(w, "tokenizer.ggml.remove_extra_whitespaces", true);
    assert_ok(gguf_write_finish(w, &e), e);
    *g = gguf_open_memory("unigram", file->data, file->len, &e);
    assert_ok(*g, e);
    tokenizer *t = tokenizer_open(*g, &e);
    assert_ok(t, e);
    free(tokens);
    free(scores);
    free(types);
    return t;
}

/* ---- English ---- */

static void check_speed(const char *name, const tokenizer *t, const char *text, size_t n) {
    const double mb_s = (double)n / encode_best_ms(t, text, n) / 1e3;
    printf("   %-12s %5.1f MB/s\n", name, mb_s);
    assert_true(SLOW_BUILD || mb_s > least_mb_s);
}

static void test_english(void **state) {
    (void)state;
    static const char *const vocabs[] = {"gpt-2",        "llama-bpe", "qwen2",   "falcon",
                                         "deepseek-llm", "llama-spm", "bert-bge"};
    size_t                   n;
    char                    *text = read_file("../shared/data/corpus/the-blue-fairy-book.txt", &n);
    vocab_file               o = {0};
    if (!text || !vocab_file_open("bert-bge", &o)) {
        free(text);
        print_message("skipped: no corpus\n");
        skip();
    }
    str        file = {0};
    gguf      *g;
    tokenizer *t = unigram_of(&o, &file, &g);
    check_speed("unigram", t, text, n);
    tokenizer_close(t);
    gguf_close(g);
    str_free(&file);
    vocab_file_close(&o);
    for (size_t v = 0; v < sizeof(vocabs) / sizeof(vocabs[0]); v++) {
        if (vocab_file_open(vocabs[v], &o)) {
            check_speed(vocabs[v], o.t, text, n);
            vocab_file_close(&o);
        }
    }
    free(text);
}

/* ---- Hostile texts ---- */

static const char *const units[] = {" ",  "a",    "\n",           "ab",         "!",   " \n",       "1",  "'",
                                    "日", "\xFF", "🙂",         "a\xC3",      " \t", "e\xCC\x81", "Aa", "a ",
                                    "1a", "٣",    "\xE2\x96\x81", "<sentinel:", "½ "};

static void fill(char *text, size_t n, const char *unit) {
    const size_t step = strlen(unit);
    for (size_t i = 0; i < n; i++) {
        text[i] = unit[i % step];
    }
}

static void test_unigram_is_linear(void **state) {
    (void)state;
    vocab_file o = {0};
    if (!vocab_file_open("bert-bge", &o)) {
        skip();
    }
    const size_t large = SLOW_BUILD ? 200000 : 1000000;
    char        *text = malloc(large);
    str          file = {0};
    gguf        *g;
    tokenizer   *t = unigram_of(&o, &file, &g);
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        fill(text, large, units[u]);
        const double small_ms = encode_best_ms(t, text, large / 4);
        const double ms = encode_best_ms(t, text, large);
        if (ms > 8 * small_ms + 100) {
            fail_msg("%zu bytes of \"%s\" take %.0f ms, %zu take %.0f ms", large / 4, units[u], small_ms, large, ms);
        }
    }
    tokenizer_close(t);
    gguf_close(g);
    str_free(&file);
    free(text);
    vocab_file_close(&o);
}

static bool count_piece(void *arg, const uint8_t *piece, size_t n) {
    (void)piece;
    *(size_t *)arg += n;
    return true;
}

static double split_ms(const split_pattern *s, const char *text, size_t n) {
    double best = INFINITY;
    for (int k = 0; k < 2; k++) {
        size_t       bytes = 0;
        const double start = cpu_ms();
        assert_true(split_text(s, (const uint8_t *)text, n, count_piece, &bytes));
        best = fmin(best, cpu_ms() - start);
        assert_int_equal(bytes, n); /* nothing is lost */
    }
    return best;
}

static void test_patterns_are_linear(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2",    "llama-bpe", "qwen35",         "tekken",       "gpt-4o",
                                        "",         "falcon",    "deepseek-coder", "deepseek-llm", "deepseek-v3",
                                        "bloom",    "viking",    "jais-2",         "minicpm5",     "seed-coder",
                                        "ufakzeka", "laguna",    "exaone-moe",     "spark2_5",     "afmoe",
                                        "tiny_aya", "youtu",     "kimi-k2",        "superbpe",     "chameleon"};
    const size_t             large = SLOW_BUILD ? 100000 : 400000;
    char                    *text = malloc(large);
    chars_init();
    for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
        fill(text, large, units[u]);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
            const split_pattern *s = split_named(names[i], strlen(names[i]));
            const double         small_ms = split_ms(s, text, large / 4);
            const double         ms = split_ms(s, text, large);
            if (ms > 8 * small_ms + 20) {
                fail_msg("%s: %zu bytes of \"%s\" take %.1f ms, %zu take %.1f ms", names[i], large / 4, units[u],
                         small_ms, large, ms);
            }
        }
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_english),
        cmocka_unit_test(test_unigram_is_linear),
        cmocka_unit_test(test_patterns_are_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
