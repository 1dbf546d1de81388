#include "model/tokenizer/split_parts.h"

SPLIT_MATCH(match_gpt2) {
    *matched = true;
    size_t n = contraction(p, end, false);
    if (n > 0) {
        return n;
    }
    place q = p + (*p == ' ');
    const unsigned class = chars_at(q, end, &n);
    if (class & CHAR_LETTER) {
        return (size_t)(run(q + n, end, CHAR_LETTER) - p);
    }
    if (class & CHAR_NUMBER) {
        return (size_t)(run(q + n, end, CHAR_NUMBER) - p);
    }
    if (q < end && !(class & CHAR_SPACE)) {
        return (size_t)(run_not(q + n, end, CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER) - p);
    }
    return spaces(p, end);
}

typedef struct llama3_options {
    int      digits;
    unsigned letters;
    bool     contractions, breaks; /* line breaks after marks */
} llama3_options;

static inline size_t llama3_family(place p, place end, llama3_options o) {
    const unsigned letters = o.letters;
    size_t         n = o.contractions ? contraction(p, end, true) : 0;
    if (n > 0) {
        return n;
    }
    const unsigned class = chars_at(p, end, &n);
    if (!is_break(*p) && !(class & CHAR_NUMBER)) { /* [^\r\n\p{L}\p{N}]?\p{L}+ */
        size_t next;
        if (class & letters || chars_at(p + n, end, &next) & letters) {
            return (size_t)(run(p + n, end, letters) - p);
        }
    }
    if (class & CHAR_NUMBER) {
        return (size_t)(numbers(p, end, o.digits) - p);
    }
    n = marks_and_breaks(p, end, CHAR_SPACE | CHAR_NUMBER | letters, o.breaks, false);
    return n > 0 ? n : spaces_or_breaks(p, end);
}

SPLIT_MATCH(match_llama3) {
    *matched = true;
    return llama3_family(p, end, (llama3_options){3, CHAR_LETTER, true, true});
}

SPLIT_MATCH(match_qwen2) {
    *matched = true;
    return llama3_family(p, end, (llama3_options){1, CHAR_LETTER, true, true});
}

SPLIT_MATCH(match_qwen35) {
    *matched = true;
    return llama3_family(p, end, (llama3_options){1, CHAR_LETTER | CHAR_MARK, true, true});
}

SPLIT_MATCH(match_seed_coder) {
    *matched = true;
    return llama3_family(p, end, (llama3_options){1, CHAR_LETTER, true, false});
}

SPLIT_MATCH(match_no_contractions) {
    *matched = true;
    return llama3_family(p, end, (llama3_options){1, CHAR_LETTER, false, true});
}

/* The two halves of a word in tekken and gpt-4o; letters without case and marks belong to both. */
static inline bool is_upper(unsigned class) {
    return (class & (CHAR_LETTER | CHAR_MARK)) && !(class & CHAR_LOWER);
}

static inline bool is_lower(unsigned class) {
    return (class & (CHAR_LETTER | CHAR_MARK)) && !(class & CHAR_UPPER);
}

/* The class of a letter or mark that may stand in a word: not Han where `no_han`. */
static inline unsigned word_class(place p, place end, size_t *n, bool no_han) {
    const unsigned class = chars_at(p, end, n);
    return no_han && *n > 2 && is_han(p, end) ? 0 : class;
}

/* upper*lower+ : greedy, giving back upper characters until one of them is lower too. NULL: no match. */
static inline place upper_then_lower(place p, place end, place *after_upper, bool no_han) {
    place  both_end = NULL; /* past the last character of the upper run that is lower too */
    size_t n;
    unsigned class;
    while (is_upper(class = word_class(p, end, &n, no_han))) {
        p += n;
        both_end = is_lower(class) ? p : both_end;
    }
    *after_upper = p;
    place q = p;
    while (is_lower(word_class(q, end, &n, no_han))) {
        q += n;
    }
    return q > p ? q : both_end;
}

typedef struct gpt4o_options {
    int  digits;
    bool contractions; /* after a word */
    bool slash;        /* after marks, like a line break */
    bool no_han;       /* in words */
} gpt4o_options;

static inline size_t gpt4o_family(place p, place end, gpt4o_options o) {
    size_t n;
    const unsigned class = chars_at(p, end, &n);
    if (!is_break(*p) && !(class & CHAR_NUMBER)) {
        const bool before = !(class & CHAR_LETTER); /* the one character before a word; a mark may be either */
        place      upper = NULL;
        place      bare_upper = NULL;
        place      stop = before ? upper_then_lower(p + n, end, &upper, o.no_han) : NULL;
        if (!stop) {
            stop = upper_then_lower(p, end, &bare_upper, o.no_han);
        }
        if (!stop && before && upper > p + n) {
            stop = upper;
        }
        if (!stop && bare_upper > p) {
            stop = bare_upper;
        }
        if (stop) {
            return (size_t)(stop - p) + (o.contractions ? contraction(stop, end, true) : 0);
        }
    }
    if (class & CHAR_NUMBER) {
        return (size_t)(numbers(p, end, o.digits) - p);
    }
    n = marks_and_breaks(p, end, CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER, true, o.slash);
    return n > 0 ? n : spaces_or_breaks(p, end);
}

SPLIT_MATCH(match_tekken) {
    *matched = true;
    return gpt4o_family(p, end, (gpt4o_options){.digits = 1, .slash = true});
}

SPLIT_MATCH(match_gpt4o) {
    *matched = true;
    return gpt4o_family(p, end, (gpt4o_options){.digits = 3, .contractions = true, .slash = true});
}

SPLIT_MATCH(match_youtu) {
    *matched = true;
    return gpt4o_family(p, end, (gpt4o_options){.digits = 1, .contractions = true, .slash = true});
}

SPLIT_MATCH(match_kimi) {
    size_t n;
    place  q = p;
    *matched = true;
    while (chars_at(q, end, &n), n > 2 && is_han(q, end)) {
        q += n;
    }
    return q > p ? (size_t)(q - p)
                 : gpt4o_family(p, end, (gpt4o_options){.digits = 3, .contractions = true, .no_han = true});
}

/* `breaks`: line breaks belong to the marks before them and to the white space around them; else each is a piece. */
static inline size_t deepseek3_family(place p, place end, bool breaks, split_found *matched) {
    enum { WORD = CHAR_LETTER | CHAR_MARK, MARK = CHAR_PUNCTUATION | CHAR_SYMBOL };
    *matched = true;
    size_t n;
    const unsigned class = chars_at(p, end, &n);
    if (*p < 0x80 && class & MARK && p + 1 < end && is_ascii_letter(p[1])) {
        place q = p + 1;
        while (q < end && is_ascii_letter(*q)) {
            q++;
        }
        return (size_t)(q - p);
    }
    if (!is_break(*p) && !(class & MARK)) { /* [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+ */
        place q = run(p + n, end, WORD);
        if (q > p + n || class & WORD) {
            return (size_t)(q - p);
        }
    }
    place marks = p + (*p == ' ');
    place q = run(marks, end, MARK);
    if (q > marks) {
        while (breaks && q < end && is_break(*q)) {
            q++;
        }
        return (size_t)(q - p);
    }
    *matched = (class & CHAR_SPACE) != 0; /* other control characters match nothing */
    if (!breaks && is_break(*p)) {
        return 1;
    }
    return !*matched ? n : breaks ? spaces_or_breaks(p, end) : spaces(p, end);
}

SPLIT_MATCH(match_deepseek3) {
    return deepseek3_family(p, end, true, matched);
}

SPLIT_MATCH(match_spark) {
    return deepseek3_family(p, end, false, matched);
}
