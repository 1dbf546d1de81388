/* split_match.h - the expressions that the patterns of split.c are made of, one function each. Letters in the comments
 * are the Unicode categories; `gpt2` and so on name the model that made the expression known.                        */
#ifndef PARE_MODEL_TOKENIZER_SPLIT_MATCH_H
#define PARE_MODEL_TOKENIZER_SPLIT_MATCH_H

#include "model/tokenizer/split.h"

#define SPLIT_MATCH(name) size_t name(const uint8_t *p, const uint8_t *end, split_found *matched)

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

/* seed-coder: match_qwen2 without line breaks after marks. ufakzeka: match_qwen2 without the contractions. */
SPLIT_MATCH(match_seed_coder);
SPLIT_MATCH(match_no_contractions);
/* youtu: match_gpt4o with \p{N} */
SPLIT_MATCH(match_youtu);
/* kimi-k2: [\p{Han}]+ and match_gpt4o with \p{N}{1,3}, no Han in words and no slash after marks */
SPLIT_MATCH(match_kimi);

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
SPLIT_MATCH(match_spark); /* spark2_5: the same with ` ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+` at its end */

/* split_match_more.c */
SPLIT_MATCH(match_line_feeds);    /* [^\n]+|[\n]+ */
SPLIT_MATCH(match_digit_threes);  /* superbpe: digits in groups of three from the right: (?=(\d{3})+(?!\d)) */
SPLIT_MATCH(match_number_threes); /* afmoe: the same with \p{N} */
SPLIT_MATCH(match_tiny_aya);      /* \d{1,3}(?=(?:\d{3})*\b) */
SPLIT_MATCH(match_afmoe_scripts); /* runs of Chinese, Japanese, Korean, Thai, Lao, Khmer and Myanmar characters */
SPLIT_MATCH(match_youtu_scripts); /* runs of Korean, of wide punctuation, of Bopomofo, or of Chinese and kana */
/* exaone-moe: (?i:contractions)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}
 * | ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+ */
SPLIT_MATCH(match_exaone_moe);
/* jais-2, after match_llama3: \s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s */
SPLIT_MATCH(match_space_powers);
/* chameleon: <sentinel:[0-9]+> , IMGIMG[A-I]{1,4}Z , [\t\n]|    |   and [\p{P}!-/:-@\[-`{-~] */
SPLIT_MATCH(match_sentinel);
SPLIT_MATCH(match_image);
SPLIT_MATCH(match_tab_or_spaces);
SPLIT_MATCH(match_one_mark);

bool is_han(const uint8_t *p, const uint8_t *end); /* the character at p < end is of the script Han */

#endif
