#include "model/tokenizer/split_match.h"

#include "model/tokenizer/chars.h"

typedef const uint8_t *place;

/* Past the characters whose class has one of the bits. */
static inline place run(place p, place end, unsigned classes) {
    size_t n;
    while (chars_at(p, end, &n) & classes) {
        p += n;
    }
    return p;
}

/* Past the characters whose class has none of the bits. */
static inline place run_not(place p, place end, unsigned classes) {
    size_t n;
    while (p < end && !(chars_at(p, end, &n) & classes)) {
        p += n;
    }
    return p;
}

static inline bool is_break(uint8_t c) {
    return c == '\r' || c == '\n';
}

/* 's|'t|'re|'ve|'m|'ll|'d at p, where an apostrophe may stand; 0: no. */
static inline size_t contraction(place p, place end, bool any_case) {
    if (p >= end || *p != '\'' || end - p < 2) {
        return 0;
    }
    const uint8_t fold = any_case ? 0x20 : 0;
    const uint8_t a = p[1] | (p[1] < 0x80 ? fold : 0);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return 2;
    }
    if (end - p < 3) {
        return 0;
    }
    const uint8_t b = p[2] | (p[2] < 0x80 ? fold : 0);
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ at p, where white space stands: all of a run at the end, else all but its last character (which may
 * begin the next match), else the one there is. */
static inline size_t spaces(place p, place end) {
    place  at = p;
    place  last = p;
    size_t n;
    while (chars_at(at, end, &n) & CHAR_SPACE) {
        last = at;
        at += n;
    }
    return (size_t)((at == end || last == p ? at : last) - p);
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static inline size_t spaces_or_breaks(place p, place end) {
    place  at = p;
    place  after_break = NULL;
    size_t n;
    while (chars_at(at, end, &n) & CHAR_SPACE) {
        at += n;
        if (is_break(at[-1])) { /* no white space of several bytes ends in one of these */
            after_break = at;
        }
    }
    return after_break ? (size_t)(after_break - p) : spaces(p, end);
}

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

/* Up to `most` numbers. */
static inline place numbers(place p, place end, int most) {
    size_t n;
    for (int i = 0; i < most && (chars_at(p, end, &n) & CHAR_NUMBER); i++) {
        p += n;
    }
    return p;
}

/* ` ?[^\s\p{L}\p{N}]+` and the line breaks (or slashes) after it; 0: none. */
static inline size_t marks_and_breaks(place p, place end, unsigned not_marks, bool slash) {
    place start = p + (*p == ' ');
    place q = run_not(start, end, not_marks);
    if (q == start) {
        return 0;
    }
    while (q < end && (is_break(*q) || (slash && *q == '/'))) {
        q++;
    }
    return (size_t)(q - p);
}

static inline size_t llama3_family(place p, place end, int digits, unsigned letters) {
    size_t n = contraction(p, end, true);
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
        return (size_t)(numbers(p, end, digits) - p);
    }
    n = marks_and_breaks(p, end, CHAR_SPACE | CHAR_NUMBER | letters, false);
    return n > 0 ? n : spaces_or_breaks(p, end);
}

SPLIT_MATCH(match_llama3) {
    *matched = true;
    return llama3_family(p, end, 3, CHAR_LETTER);
}

SPLIT_MATCH(match_qwen2) {
    *matched = true;
    return llama3_family(p, end, 1, CHAR_LETTER);
}

SPLIT_MATCH(match_qwen35) {
    *matched = true;
    return llama3_family(p, end, 1, CHAR_LETTER | CHAR_MARK);
}

/* The two halves of a word in tekken and gpt-4o; letters without case and marks belong to both. */
static inline bool is_upper(unsigned class) {
    return (class & (CHAR_LETTER | CHAR_MARK)) && !(class & CHAR_LOWER);
}

static inline bool is_lower(unsigned class) {
    return (class & (CHAR_LETTER | CHAR_MARK)) && !(class & CHAR_UPPER);
}

/* upper*lower+ : greedy, giving back upper characters until one of them is lower too. NULL: no match. */
static inline place upper_then_lower(place p, place end, place *after_upper) {
    place  both_end = NULL; /* past the last character of the upper run that is lower too */
    size_t n;
    unsigned class;
    while (is_upper(class = chars_at(p, end, &n))) {
        p += n;
        both_end = is_lower(class) ? p : both_end;
    }
    *after_upper = p;
    place q = p;
    while (is_lower(chars_at(q, end, &n))) {
        q += n;
    }
    return q > p ? q : both_end;
}

static inline size_t gpt4o_family(place p, place end, int digits, bool contractions) {
    size_t n;
    const unsigned class = chars_at(p, end, &n);
    if (!is_break(*p) && !(class & CHAR_NUMBER)) {
        const bool before = !(class & CHAR_LETTER); /* the one character before a word; a mark may be either */
        place      upper = NULL;
        place      bare_upper = NULL;
        place      stop = before ? upper_then_lower(p + n, end, &upper) : NULL;
        if (!stop) {
            stop = upper_then_lower(p, end, &bare_upper);
        }
        if (!stop && before && upper > p + n) {
            stop = upper;
        }
        if (!stop && bare_upper > p) {
            stop = bare_upper;
        }
        if (stop) {
            return (size_t)(stop - p) + (contractions ? contraction(stop, end, true) : 0);
        }
    }
    if (class & CHAR_NUMBER) {
        return (size_t)(numbers(p, end, digits) - p);
    }
    n = marks_and_breaks(p, end, CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER, true);
    return n > 0 ? n : spaces_or_breaks(p, end);
}

SPLIT_MATCH(match_tekken) {
    *matched = true;
    return gpt4o_family(p, end, 1, false);
}

SPLIT_MATCH(match_gpt4o) {
    *matched = true;
    return gpt4o_family(p, end, 3, true);
}

static bool is_ascii_letter(uint8_t c) {
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

SPLIT_MATCH(match_deepseek3) {
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
        while (q < end && is_break(*q)) {
            q++;
        }
        return (size_t)(q - p);
    }
    *matched = class & CHAR_SPACE; /* other control characters match nothing */
    return *matched ? spaces_or_breaks(p, end) : n;
}
