/* split_match.h - the expressions that the patterns of split.c are made of, one function each. Letters in the comments
 * are the Unicode categories; `gpt2` and so on name the model that made the expression known.                        */
#ifndef PARE_MODEL_TOKENIZER_SPLIT_MATCH_H
#define PARE_MODEL_TOKENIZER_SPLIT_MATCH_H

#include "model/tokenizer/split.h"

#define SPLIT_MATCH(name) size_t name(const uint8_t *p, const uint8_t *end, bool *matched)

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
SPLIT_MATCH(match_gpt2);
/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
SPLIT_MATCH(match_llama3);
SPLIT_MATCH(match_qwen2);  /* the same with \p{N} */
SPLIT_MATCH(match_qwen35); /* the same with [\p{L}\p{M}] for \p{L} */
/* [^\r\n\p{L}\p{N}]?[Lu Lt Lm Lo M]*[Ll Lm Lo M]+|[^\r\n\p{L}\p{N}]?[Lu Lt Lm Lo M]+[Ll Lm Lo M]*|\p{N}
 * | ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
SPLIT_MATCH(match_tekken);
SPLIT_MATCH(match_gpt4o); /* the same with (?i:'s|'t|'re|'ve|'m|'ll|'d)? after a word, and \p{N}{1,3} */

SPLIT_MATCH(match_number);       /* \p{N} */
SPLIT_MATCH(match_numbers);      /* \p{N}+ */
SPLIT_MATCH(match_numbers_3);    /* \p{N}{1,3} */
SPLIT_MATCH(match_three_digits); /* [0-9][0-9][0-9] */
SPLIT_MATCH(match_punctuation);  /* [\p{P}\$\+<=>\^~\|]+ */
SPLIT_MATCH(match_falcon_marks); /* the same and the backtick */
SPLIT_MATCH(match_newline);      /* [\r\n] */
SPLIT_MATCH(match_bloom);        /*  ?[^(\s|.,!?…。，、।۔،)]+ */

/* deepseek-coder: \s?\p{L}+  and  \s?\p{P}+ */
SPLIT_MATCH(match_space_letters);
SPLIT_MATCH(match_space_punctuation);
SPLIT_MATCH(match_cjk); /* [一-龥ࠀ-一가-퟿]+ */
/* deepseek-llm: \s?[cased letters]+ , \s?[!-/:-~！-／：-～‘-‟　-。]+ and \s+$ */
SPLIT_MATCH(match_space_cased);
SPLIT_MATCH(match_space_marks);
SPLIT_MATCH(match_trailing_space);
/* deepseek-v3: [一-龥぀-ゟ゠-ヿ]+  and
 * [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
SPLIT_MATCH(match_cjk_kana);
SPLIT_MATCH(match_deepseek3);

#endif
