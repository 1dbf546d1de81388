/* pre.c - the way a byte-level tokenizer cuts its text into words, recognised by the regular expressions themselves.
 *
 * Source: the tokenizer.json of the models named beside each row. A chain that is not here is refused: another cut gives
 * other tokens, and no warning. */
#include <stdio.h>
#include <string.h>

#include "model/import/tokens.h"

#define ENDINGS        "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES         "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K(digits) ENDINGS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES
#define UPPER          "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER          "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(digits, ending)                                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ending "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ending           \
    "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
#define CJK_KANA "[一-龥\xe3\x81\x80-ゟ゠-ヿ]+"
#define CJK      "[一-龥ࠀ-一가-\xed\x9f\xbf]+"

typedef struct known_chain {
    const char *name;
    int         ignore_merges; /* 1: only with it, 0: only without, -1: either */
    const char *parts[8];      /* a regular expression, or "<...>" for a part of another kind */
} known_chain;

#define BYTES       "<bytes>"       /* ByteLevel without its regular expression */
#define BYTES_WORDS "<bytes words>" /* ByteLevel with GPT-2's */
#define DIGIT       "<digit>"       /* Digits, one by one */
#define DIGITS      "<digits>"
#define PUNCTUATION "<punctuation>" /* runs of it */

static const known_chain chains[] = {
    {"gpt-2", -1, {BYTES_WORDS}},               /* gpt2 */
    {"starcoder", -1, {DIGIT, BYTES_WORDS}},    /* starcoder2, SmolLM2, granite-3 */
    {"llama-bpe", 1, {CL100K("{1,3}"), BYTES}}, /* Llama-3 */
    {"dbrx", 0, {CL100K("{1,3}"), BYTES}},      /* dbrx, phi-4, OLMo-2 */
    {"qwen2", -1, {CL100K(""), BYTES}},         /* Qwen2, Qwen3 */
    {"qwen35",
     -1,
     {ENDINGS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES, BYTES}},
    {"tekken", 1, {O200K("", ""), BYTES}}, /* Mistral-Nemo */
    {"gpt-4o", 0, {O200K("{1,3}", ENDINGS "?"), BYTES}},
    {"falcon", -1, {PUNCTUATION, BYTES_WORDS, DIGITS, "[0-9][0-9][0-9]"}},
    {"bloom", -1, {" ?[^(\\s|[.,!?…。，、।۔،])]+", BYTES}},
    {"deepseek-coder", -1, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, DIGIT, BYTES}},
    {"deepseek-v3",
     -1,
     {"\\p{N}{1,3}", CJK_KANA,
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES,
      BYTES}},
};

enum { CHAINS = sizeof chains / sizeof *chains, MAX_PARTS = 8 };

static const char *refuse(tokens *t, const char *what, const char *named) {
    err_set(t->m->e, ERR_UNSUPPORTED, "%.200s/tokenizer.json: pre_tokenizer: %s%s%.160s", t->dir, what,
            named[0] ? ": " : "", named);
    return NULL;
}

/* Line ends as they are written in a regular expression, whether the file escapes them or not. */
static const char *plain_regex(tokens *t, const tree *regex) {
    str out = {0};
    for (uint32_t i = 0; i < regex->count; i++) {
        char c = regex->u.text[i];
        if (c == '\r' || c == '\n')
            str_adds(&out, c == '\r' ? "\\r" : "\\n");
        else
            str_addc(&out, c);
    }
    const char *copy = out.failed || !out.data ? NULL : arena_memdup(t->m->memory, out.data, out.len);
    str_free(&out);
    if (!copy)
        import_no_memory(t->m);
    return copy;
}

static const char *split_part(tokens *t, const tree *part) {
    const tree *regex = tree_value(tree_value(part, "pattern"), "Regex");
    const tree *behavior = tree_value(part, "behavior"), *invert = tree_value(part, "invert");
    const bool  inverted = invert && invert->yes;
    if (!tree_is(regex, TREE_STRING) || regex->count == 0)
        return refuse(t, "a Split without a regular expression", "");
    /* What matches is kept and the rest dropped: the same, for expressions that match every character. */
    if (!(tree_text_is(behavior, "Isolated") && !inverted) && !(tree_text_is(behavior, "Removed") && inverted))
        return refuse(t, "a Split that does not isolate what matches", "");
    return plain_regex(t, regex);
}

static const char *part_name(tokens *t, const tree *part) {
    const tree *type = tree_value(part, "type"), *flag;
    if (tree_text_is(type, "Split"))
        return split_part(t, part);
    if (tree_text_is(type, "ByteLevel")) {
        flag = tree_value(part, "add_prefix_space");
        if (flag && flag->yes)
            return refuse(t, "ByteLevel adds a space before the text, which GGUF cannot say", "");
        flag = tree_value(part, "use_regex");
        return flag && !flag->yes ? BYTES : BYTES_WORDS;
    }
    if (tree_text_is(type, "Digits")) {
        flag = tree_value(part, "individual_digits");
        return flag && flag->yes ? DIGIT : DIGITS;
    }
    if (tree_text_is(type, "Punctuation") && tree_text_is(tree_value(part, "behavior"), "Contiguous"))
        return PUNCTUATION;
    const char *name = tree_text(t->m->memory, type);
    return refuse(t, "a part that pare does not know", name ? name : "");
}

const char *pre_name(tokens *t, const tree *pre_tokenizer, bool ignore_merges) {
    const char *parts[MAX_PARTS] = {NULL};
    int         count = 0;
    const bool  sequence = tree_text_is(tree_value(pre_tokenizer, "type"), "Sequence");
    if (!tree_is(pre_tokenizer, TREE_OBJECT))
        return refuse(t, "is missing, but a byte-level tokenizer needs one", "");
    const tree *part = sequence ? tree_first(tree_value(pre_tokenizer, "pretokenizers")) : pre_tokenizer;
    for (; part; part = sequence ? part->next : NULL) {
        if (count == MAX_PARTS - 1)
            return refuse(t, "has more parts than any that pare knows", "");
        parts[count] = part_name(t, part);
        if (!parts[count++])
            return NULL;
    }
    for (int i = 0; i < CHAINS; i++) {
        int same = 0;
        while (same < MAX_PARTS && parts[same] && chains[i].parts[same] &&
               strcmp(parts[same], chains[i].parts[same]) == 0)
            same++;
        if (same == count && !chains[i].parts[same] &&
            (chains[i].ignore_merges < 0 || chains[i].ignore_merges == (int)ignore_merges))
            return chains[i].name;
    }
    for (int i = 0; i < count; i++)
        if (parts[i][0] != '<')
            return refuse(t, "cuts words by an expression that pare does not know", parts[i]);
    return refuse(t, "cuts words in a way that pare does not know", count ? parts[0] : "");
}
