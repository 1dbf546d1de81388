/* The split functions against the regular expressions they stand for, run by PCRE2 in the same stages. */
#include "check.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/utf8.h"
#include "model/tokenizer/chars.h"
#include "model/tokenizer/split.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 2000
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ROUNDS 2000
#endif
#endif
#ifndef ROUNDS
#define ROUNDS 20000
#endif

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define LLAMA3(digits, letters)                                                                                        \
    "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?[" letters "]+|\\p{N}" digits         \
    "| ?[^\\s\\p{N}" letters "]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER  "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER  "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define ENDING "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
#define GPT4O(digits, ending)                                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ending           \
    "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define NOT_HAN(set) "(?:(?!\\p{sc:Han})" set ")"
#define CJK          "[一-龥\\x{800}-一\\x{AC00}-\\x{D7FF}]+"
#define BLOOM        " ?[^(\\s|.,!?…。，、।۔،)]+"

/* Source: the tokenizer.json of each model, as converters and the reference write them. In deepseek-llm's marks the
 * range ends begin at U+3001: U+3000 counts as white space first. Its list of cased letters is written as Lu|Ll|Lt,
 * which is the same for the letters tested here. In tiny_aya \b is spelt out: PCRE2's takes no mark for a part of a
 * word, the tokenizer's does. */
static const struct {
    const char *name;
    const char *stages[7];
} patterns[] = {
    {"gpt-2", {GPT2}},
    {"llama-bpe", {LLAMA3("{1,3}", "\\p{L}")}},
    {"qwen2", {LLAMA3("", "\\p{L}")}},
    {"qwen35", {LLAMA3("", "\\p{L}\\p{M}")}},
    {"starcoder", {"\\p{N}", GPT2}},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {"deepseek-llm",
     {"[\\r\\n]", "\\s?[\\p{Lu}\\p{Ll}\\p{Lt}]+", "\\s?[!-/:-~！-／：-～‘-‟\\x{3001}-。]+", "\\s+\\z", CJK, "\\p{N}+"}},
    {"deepseek-v3",
     {"\\p{N}{1,3}", "[一-龥\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"tekken", {GPT4O("", "")}},
    {"gpt-4o", {GPT4O("{1,3}", ENDING)}},
    {"jais-2",
     {"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
      "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)"
      "|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {"minicpm5", {"\\p{N}{1,3}", LLAMA3("+", "\\p{L}")}},
    {"seed-coder",
     {"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}"
      "| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"bailingmoe",
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"
      "|\\s+(?!\\S)|\\s+"}},
    {"ufakzeka",
     {"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"laguna", {"[^\\n]+|[\\n]+", LLAMA3("", "\\p{L}")}},
    {"exaone-moe",
     {"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
      "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?"
      "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"spark2_5",
     {"\\p{N}{1,3}", "[一-龥\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+",
      "\\p{N}"}},
    {"afmoe",
     {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))",
      "[一-\\x{9FFF}㐀-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}\\x{FF65}-\\x{FF9F}"
      "\\x{2F00}-\\x{2FDF}\\x{0E40}-\\x{0E7F}\\x{0E80}-\\x{0EFF}\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}"
      "\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}\\x{1100}-\\x{11FF}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"tiny_aya", {"\\d{1,3}(?=(?:\\d{3})*(?![\\p{L}\\p{M}\\p{N}\\p{Pc}]))", GPT4O("{1,3}", ENDING)}},
    /* It counts the bytes of these, and would cut them anew each time. */
    /* clang-format off */
    {"youtu",
     {"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\\x{303F}︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
      GPT4O("", ENDING)}},
    /* clang-format on */
    {"kimi-k2",
     {"[\\p{sc:Han}]+|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER) "*" NOT_HAN(
         LOWER) "+" ENDING
                "|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER) "+" NOT_HAN(
                    LOWER) "*" ENDING "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"superbpe", {"\\p{N}+", "\\d{1,3}(?=(?:\\d{3})*(?!\\d))"}}, /* published as the places: (?=(\d{3})+(?!\d)) */
    {"chameleon",
     {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
      "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {"bloom", {BLOOM}},
    {"viking", {BLOOM, "\\p{N}"}},
};

typedef struct cuts { /* where the pieces end */
    size_t at[2048];
    size_t count;
} cuts;

static void regex_cut(pcre2_code **stages, const char *text, size_t from, size_t to, cuts *out) {
    if (!*stages) {
        out->at[out->count++] = to;
        return;
    }
    pcre2_match_data *m = pcre2_match_data_create_from_pattern(*stages, NULL);
    /* The part is a text of its own: nothing is looked at before or behind it. */
    size_t            at = 0, gap = 0, n = to - from;
    while (at < n && pcre2_match(*stages, (PCRE2_SPTR)text + from, n, at, 0, m, NULL) > 0) {
        const size_t *place = pcre2_get_ovector_pointer(m);
        if (gap < place[0]) {
            regex_cut(stages + 1, text, from + gap, from + place[0], out);
        }
        regex_cut(stages + 1, text, from + place[0], from + place[1], out);
        at = gap = place[1];
    }
    if (gap < n) {
        regex_cut(stages + 1, text, from + gap, to, out);
    }
    pcre2_match_data_free(m);
}

static bool note(void *arg, const uint8_t *word, size_t n) {
    cuts *out = arg;
    (void)word;
    out->at[out->count] = (out->count ? out->at[out->count - 1] : 0) + n;
    out->count++;
    return true;
}

/* Mostly what the expressions tell apart, in every neighbourhood. */
static size_t random_text(uint64_t *seed, char *out) {
    static const char *const bits[] = {" ",
                                       " ",
                                       " ",
                                       "\n",
                                       "\r",
                                       "\t",
                                       "\v",
                                       "\xC2\xA0",
                                       "\xE3\x80\x80",
                                       "\xC2\x85",
                                       "a",
                                       "b",
                                       "Z",
                                       "Q",
                                       "s",
                                       "S",
                                       "'",
                                       "'",
                                       "'s",
                                       "'RE",
                                       "'ll",
                                       "'lL",
                                       "1",
                                       "2",
                                       "34",
                                       "5",
                                       "Ⅷ",
                                       "²",
                                       "१",
                                       "é",
                                       "É",
                                       "ǅ",
                                       "ʰ",
                                       "日",
                                       "本",
                                       "ア",
                                       "ぁ",
                                       "한",
                                       "ا",
                                       "ש",
                                       "\xCC\x81",
                                       "\xE0\xA4\xBC",
                                       "!",
                                       ".",
                                       "/",
                                       "/",
                                       "-",
                                       "_",
                                       "$",
                                       "+",
                                       "<",
                                       "^",
                                       "`",
                                       "|",
                                       "~",
                                       "(",
                                       "…",
                                       "。",
                                       "，",
                                       "।",
                                       "‘",
                                       "！",
                                       "€",
                                       "🙂",
                                       "\x01",
                                       "\x7F",
                                       "\xE2\x80\x8B",
                                       "\xEE\x80\x80",
                                       "  ",
                                       "        ",
                                       "12345",
                                       "x ",
                                       "ABc",
                                       "，",
                                       "㐀",
                                       "⺀",
                                       "〇",
                                       "ㄅ",
                                       "ㄱ",
                                       "ก็",
                                       "๑๒๓",
                                       "<sentinel:1",
                                       ">",
                                       "IMGIMG",
                                       "IMGIMGABIZ",
                                       "Z"};
    size_t                   n = 0;
    for (uint64_t want = test_random(seed) % 40; want > 0; want--) {
        const char *bit = bits[test_random(seed) % (sizeof(bits) / sizeof(bits[0]))];
        for (uint64_t times = test_random(seed) % 6 == 0 ? 4 : 1; times > 0; times--) {
            memcpy(out + n, bit, strlen(bit));
            n += strlen(bit);
        }
    }
    return n;
}

static void check_pattern(size_t p) {
    const split_pattern *s = split_named(patterns[p].name, strlen(patterns[p].name));
    pcre2_code          *stages[8] = {0};
    assert_non_null(s);
    for (int i = 0; patterns[p].stages[i]; i++) {
        int    code;
        size_t offset;
        stages[i] = pcre2_compile((PCRE2_SPTR)patterns[p].stages[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                  &code, &offset, NULL);
        if (!stages[i]) {
            fail_msg("%s: expression %d is wrong at %zu", patterns[p].name, i, offset);
        }
    }
    uint64_t seed = p;
    char     text[1024];
    for (int k = 0; k < ROUNDS; k++) {
        cuts   want = {.count = 0}, got = {.count = 0};
        size_t n = random_text(&seed, text);
        if (n == 0) {
            continue;
        }
        regex_cut(stages, text, 0, n, &want);
        assert_true(split_text(s, (const uint8_t *)text, n, note, &got));
        if (want.count != got.count || memcmp(want.at, got.at, got.count * sizeof(got.at[0])) != 0) {
            size_t i = 0;
            while (want.at[i] == got.at[i]) {
                i++;
            }
            size_t from = i ? want.at[i - 1] : 0;
            fail_msg("\"%s\" cuts \"%.*s\" at %zu after \"%.*s\", the expression at %zu", patterns[p].name, (int)n,
                     text, got.at[i] - from, (int)from, text, want.at[i] - from);
        }
    }
    for (int i = 0; stages[i]; i++) {
        pcre2_code_free(stages[i]);
    }
}

/* Zero-width matches, too: the pieces of superbpe as its own expression cuts them. */
static void test_superbpe_places(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t      ends[8];
    } cases[] = {{"1", {1}},
                 {"1234", {1, 4}},
                 {"123456", {3, 6}},
                 {"by the way 12345678 it is", {11, 13, 16, 19, 25}},
                 {"٣٣٣٣", {2, 8}}};
    const split_pattern *s = split_named("superbpe", 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cuts got = {.count = 0};
        assert_true(split_text(s, (const uint8_t *)cases[i].text, strlen(cases[i].text), note, &got));
        for (size_t k = 0; k < got.count; k++) {
            assert_int_equal(got.at[k], cases[i].ends[k]);
        }
        assert_int_equal(got.at[got.count - 1], strlen(cases[i].text));
    }
}

/* Every name that today's converters write, and none besides. */
static void test_names(void **state) {
    (void)state;
    static const char *const names[] = {"",
                                        "default",
                                        "llama3",
                                        "llama-v3",
                                        "llama-bpe",
                                        "falcon3",
                                        "falcon-h1",
                                        "pixtral",
                                        "midm-2.0",
                                        "lfm2",
                                        "jina-v5-nano",
                                        "deepseek-llm",
                                        "deepseek-coder",
                                        "deepseek-v3",
                                        "spark2_5",
                                        "youtu",
                                        "falcon",
                                        "mpt",
                                        "starcoder",
                                        "gpt-2",
                                        "phi-2",
                                        "jina-es",
                                        "jina-de",
                                        "gigachat",
                                        "jina-v2-es",
                                        "jina-v2-de",
                                        "a.x-4.0",
                                        "mellum",
                                        "modern-bert",
                                        "jais-2",
                                        "gemma4",
                                        "granite-embed-multi-311m",
                                        "sarvam-moe",
                                        "jina-v1-en",
                                        "jina-v2-code",
                                        "roberta-bpe",
                                        "whitespace",
                                        "refact",
                                        "command-r",
                                        "qwen2",
                                        "deepseek-r1-qwen",
                                        "kormo",
                                        "f2llmv2",
                                        "qwen35",
                                        "stablelm2",
                                        "olmo",
                                        "dbrx",
                                        "smaug-bpe",
                                        "poro-chat",
                                        "glm4",
                                        "chatglm-bpe",
                                        "viking",
                                        "jais",
                                        "tekken",
                                        "smollm",
                                        "codeshell",
                                        "bloom",
                                        "gpt3-finnish",
                                        "exaone",
                                        "exaone4",
                                        "exaone-moe",
                                        "chameleon",
                                        "minerva-7b",
                                        "megrez",
                                        "gpt-4o",
                                        "llama4",
                                        "kanana2",
                                        "talkie",
                                        "granite-embed-multi-97m",
                                        "tiny_aya",
                                        "cohere2moe",
                                        "superbpe",
                                        "trillion",
                                        "granite-docling",
                                        "bailingmoe",
                                        "bailingmoe2",
                                        "llada-moe",
                                        "seed-coder",
                                        "hunyuan",
                                        "hunyuan-dense",
                                        "hy_v4",
                                        "joyai-llm",
                                        "kimi-k2",
                                        "ufakzeka",
                                        "grok-2",
                                        "afmoe",
                                        "laguna",
                                        "minimax-m2",
                                        "solar-open",
                                        "mellum2",
                                        "minicpm5"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const split_pattern *s = split_named(names[i], strlen(names[i]));
        if (!s) {
            fail_msg("\"%s\" is not known", names[i]);
        }
        assert_true((s->raw == SPLIT_RAW_NOT) == (s->stages[0] != NULL));
    }
    assert_null(split_named("qwen", 4));
    assert_null(split_named("llama-bpe2", 10));
}

static void test_patterns(void **state) {
    (void)state;
    chars_init();
    for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
        check_pattern(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_patterns), cmocka_unit_test(test_superbpe_places),
                                       cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
