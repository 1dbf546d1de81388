#include "model/tokenizer/split.h"

#include <string.h>

#include "model/tokenizer/chars.h"
#include "model/tokenizer/split_match.h"

#define GPT2                                                                                                           \
    { match_gpt2 }
#define STARCODER                                                                                                      \
    { match_number, match_gpt2 }
#define LLAMA3                                                                                                         \
    { match_llama3 }
#define QWEN2                                                                                                          \
    { match_qwen2 }
#define FALCON                                                                                                         \
    { match_falcon_marks, match_gpt2, match_three_digits }
#define DEFAULT                                                                                                        \
    { match_punctuation, match_gpt2, match_numbers, match_three_digits }
#define DEEPSEEK_LLM                                                                                                   \
    { match_newline, match_space_cased, match_space_marks, match_trailing_space, match_cjk, match_numbers }
#define DEEPSEEK_CODER                                                                                                 \
    { match_newline, match_space_letters, match_space_punctuation, match_cjk, match_number }
#define DEEPSEEK_V3                                                                                                    \
    { match_numbers_3, match_cjk_kana, match_deepseek3 }

/* The names that converters write, and what the reference understands by them. */
static const split_pattern patterns[] = {
    {"", DEFAULT},
    {"default", DEFAULT},
    {"gpt-2", GPT2},
    {"phi-2", GPT2},
    {"a.x-4.0", GPT2},
    {"exaone4", GPT2},
    {"granite-docling", GPT2},
    {"mellum", GPT2},
    {"modern-bert", GPT2},
    {"trillion", GPT2},
    {"mpt", GPT2},
    {"olmo", GPT2},
    {"jais", GPT2},
    {"gigachat", GPT2},
    {"jina-v1-en", GPT2},
    {"jina-v2-es", GPT2},
    {"jina-v2-de", GPT2},
    {"jina-v2-code", GPT2},
    {"jina-es", GPT2},
    {"jina-de", GPT2},
    {"roberta-bpe", GPT2},
    {"starcoder", STARCODER},
    {"refact", STARCODER},
    {"command-r", STARCODER},
    {"smollm", STARCODER},
    {"codeshell", STARCODER},
    {"exaone", STARCODER},
    {"minerva-7b", STARCODER},
    {"mellum2", STARCODER},
    {"llama-bpe", LLAMA3, true, true},
    {"llama3", LLAMA3, true, true},
    {"llama-v3", LLAMA3, true, true},
    {"falcon3", LLAMA3, true, true},
    {"falcon-h1", LLAMA3, true, true},
    {"jina-v5-nano", LLAMA3, true, true},
    {"lfm2", LLAMA3, true, true},
    {"midm-2.0", LLAMA3, true, true},
    {"pixtral", LLAMA3, true, true},
    {"minicpm5", {match_numbers_3, match_llama3}, true},
    {"jais-2", {match_llama3, match_space_powers}},
    {"dbrx", LLAMA3},
    {"smaug-bpe", LLAMA3},
    {"chatglm-bpe", LLAMA3},
    {"glm4", LLAMA3},
    {"qwen2", QWEN2},
    {"deepseek-r1-qwen", QWEN2},
    {"megrez", QWEN2},
    {"stablelm2", QWEN2},
    {"f2llmv2", QWEN2},
    {"grok-2", QWEN2},
    {"hunyuan", QWEN2},
    {"kormo", QWEN2},
    {"solar-open", QWEN2},
    {"bailingmoe", QWEN2}, /* whose \s*[\r\n] and possessive quantifiers match the same */
    {"bailingmoe2", QWEN2},
    {"llada-moe", QWEN2},
    {"laguna", {match_line_feeds, match_qwen2}},
    {"seed-coder", {match_seed_coder}},
    {"ufakzeka", {match_no_contractions}},
    {"exaone-moe", {match_exaone_moe}},
    {"qwen35", {match_qwen35}},
    {"falcon", FALCON},
    {"deepseek-llm", DEEPSEEK_LLM},
    {"deepseek-coder", DEEPSEEK_CODER},
    {"deepseek-v3", DEEPSEEK_V3},
    {"hunyuan-dense", DEEPSEEK_V3},
    {"hy_v4", DEEPSEEK_V3},
    {"joyai-llm", DEEPSEEK_V3},
    {"spark2_5", {match_numbers_3, match_cjk_kana, match_spark, match_number}},
    {"afmoe", {match_number_threes, match_afmoe_scripts, match_deepseek3}},
    {"tekken", {match_tekken}, true, true},
    {"gpt-4o", {match_gpt4o}},
    {"llama4", {match_gpt4o}},
    {"kanana2", {match_gpt4o}},
    {"minimax-m2", {match_gpt4o}},
    {"talkie", {match_gpt4o}},
    {"granite-embed-multi-97m", {match_gpt4o}, true},
    {"tiny_aya", {match_tiny_aya, match_gpt4o}},
    {"cohere2moe", {match_tiny_aya, match_gpt4o}},
    {"youtu", {match_youtu_scripts, match_youtu}, true},
    {"kimi-k2", {match_kimi}},
    {"superbpe", {match_numbers, match_digit_threes}},
    {"chameleon",
     {match_sentinel, match_image, match_tab_or_spaces, match_number, match_one_mark, match_gpt2},
     .adds_bos = true},
    {"gemma4", .adds_bos = true, .always_bos = true, .raw = SPLIT_RAW_LINES},
    {"granite-embed-multi-311m", .adds_bos = true, .always_bos = true, .raw = SPLIT_RAW_LINES},
    {"sarvam-moe", .raw = SPLIT_RAW_LINES},
    {"whitespace", .raw = SPLIT_RAW_WORDS},
    {"bloom", {match_bloom}},
    {"poro-chat", {match_bloom}},
    {"gpt3-finnish", {match_bloom}},
    {"viking", {match_bloom, match_number}},
};

const split_pattern *split_named(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        if (strlen(patterns[i].name) == n && memcmp(patterns[i].name, name, n) == 0) {
            return &patterns[i];
        }
    }
    return NULL;
}

typedef bool (*word_function)(void *, const uint8_t *, size_t);

static bool cut(const split_match *stage, const uint8_t *p, const uint8_t *end, word_function word, void *arg);

/* Groups of three characters, counted from the right. */
static bool cut_threes(const split_match *stage, const uint8_t *p, const uint8_t *end, word_function word, void *arg) {
    size_t chars = 0;
    size_t n;
    for (const uint8_t *q = p; q < end; q += n, chars++) {
        chars_at(q, end, &n);
    }
    while (p < end) {
        const uint8_t *q = p;
        do {
            chars_at(q, end, &n);
            q += n;
            chars--;
        } while (chars % 3 != 0);
        if (!cut(stage, p, q, word, arg)) {
            return false;
        }
        p = q;
    }
    return true;
}

static bool cut(const split_match *stage, const uint8_t *p, const uint8_t *end, word_function word, void *arg) {
    if (!*stage) {
        return word(arg, p, (size_t)(end - p));
    }
    const uint8_t *gap = p; /* begins what has not matched yet */
    while (p < end) {
        split_found matched;
        size_t      n = (*stage)(p, end, &matched);
        if (matched != SPLIT_GAP) {
            if ((gap < p && !cut(stage + 1, gap, p, word, arg)) ||
                !(matched == SPLIT_PIECE ? cut : cut_threes)(stage + 1, p, p + n, word, arg)) {
                return false;
            }
            gap = p + n;
        }
        p += n;
    }
    return gap == end || cut(stage + 1, gap, end, word, arg);
}

bool split_text(const split_pattern *s, const uint8_t *text, size_t n, bool (*word)(void *, const uint8_t *, size_t),
                void *arg) {
    return cut(s->stages, text, text + n, word, arg);
}
