/* split_match_more.c - expressions of single families: grouped digits, scripts, chameleon's marks. */
#include <string.h>
#include <utf8proc.h>

#include "model/tokenizer/split_parts.h"

typedef struct range {
    uint32_t first, last;
} range;

static bool in_ranges(const range *r, size_t count, uint32_t cp) {
    for (size_t i = 0; i < count; i++) {
        if (cp >= r[i].first && cp <= r[i].last) {
            return true;
        }
    }
    return false;
}

#define IN(list, cp) in_ranges(list, sizeof(list) / sizeof((list)[0]), cp)

/* The code point at p < end; 0 for a wrong byte. */
static uint32_t code_at(place p, place end, size_t *n) {
    uint32_t cp = *p;
    *n = 1;
    if (cp >= 0x80) {
        *n = utf8_decode((const char *)p, (size_t)(end - p), &cp);
        cp = *n == 1 ? 0 : cp;
    }
    return cp;
}

/* Script=Han, Unicode 15: Scripts.txt */
bool is_han(const uint8_t *p, const uint8_t *end) {
    static const range most = {0x4E00, 0x9FFF};
    static const range others[] = {{0x2E80, 0x2E99},   {0x2E9B, 0x2EF3},   {0x2F00, 0x2FD5},   {0x3005, 0x3005},
                                   {0x3007, 0x3007},   {0x3021, 0x3029},   {0x3038, 0x303B},   {0x3400, 0x4DBF},
                                   {0xF900, 0xFA6D},   {0xFA70, 0xFAD9},   {0x16FE2, 0x16FE3}, {0x16FF0, 0x16FF1},
                                   {0x20000, 0x2A6DF}, {0x2A700, 0x2B739}, {0x2B740, 0x2B81D}, {0x2B820, 0x2CEA1},
                                   {0x2CEB0, 0x2EBE0}, {0x2F800, 0x2FA1D}, {0x30000, 0x3134A}, {0x31350, 0x323AF}};
    size_t             n;
    const uint32_t     cp = code_at(p, end, &n);
    return cp >= 0x2E80 && (in_ranges(&most, 1, cp) || IN(others, cp));
}

SPLIT_MATCH(match_line_feeds) {
    place q = p;
    *matched = SPLIT_PIECE;
    while (q < end && (*q == '\n') == (*p == '\n')) {
        q++;
    }
    return (size_t)(q - p);
}

/* ---- Digits ---- */

/* \d: a decimal digit of any script. */
static bool is_digit(place p, place end, size_t *n) {
    const unsigned class = chars_at(p, end, n);
    return class & CHAR_NUMBER &&
           (*p < 0x80 || utf8proc_category((utf8proc_int32_t)code_at(p, end, n)) == UTF8PROC_CATEGORY_ND);
}

static place digits(place p, place end) {
    size_t n;
    while (p < end && is_digit(p, end, &n)) {
        p += n;
    }
    return p;
}

/* A number that is no decimal digit (a Roman one, say) parts digits from what is beside them. */
SPLIT_MATCH(match_digit_threes) {
    size_t      n;
    const place q = digits(p, end);
    chars_at(p, end, &n);
    *matched = q > p ? SPLIT_THREES : SPLIT_GAP;
    return q > p ? (size_t)(q - p) : n;
}

SPLIT_MATCH(match_number_threes) {
    size_t      n;
    const place q = run(p, end, CHAR_NUMBER);
    chars_at(p, end, &n);
    *matched = q > p ? SPLIT_THREES : SPLIT_GAP;
    return q > p ? (size_t)(q - p) : n;
}

/* A run of digits counts if a word ends with it: no letter, mark, number or connecting punctuation follows. */
SPLIT_MATCH(match_tiny_aya) {
    size_t      n;
    const place q = digits(p, end);
    if (q == p) {
        chars_at(p, end, &n);
        *matched = SPLIT_GAP;
        return n;
    }
    const unsigned after = chars_at(q, end, &n);
    const bool     joins =
        after & (CHAR_LETTER | CHAR_MARK | CHAR_NUMBER) ||
        (after & CHAR_PUNCTUATION && utf8proc_category((utf8proc_int32_t)code_at(q, end, &n)) == UTF8PROC_CATEGORY_PC);
    *matched = joins ? SPLIT_GAP : SPLIT_THREES;
    return (size_t)(q - p);
}

/* ---- Scripts ---- */

/* Which of a family's sets a character is in; 0: none. */
typedef int (*set_of)(uint32_t cp);

/* A run of one set. */
static size_t script_run(place p, place end, set_of set, split_found *matched) {
    size_t    n;
    const int first = set(code_at(p, end, &n));
    place     q = p + n;
    *matched = first ? SPLIT_PIECE : SPLIT_GAP;
    while (first && q < end && set(code_at(q, end, &n)) == first) {
        q += n;
    }
    return (size_t)(q - p);
}

static int afmoe_set(uint32_t cp) {
    static const range scripts[] = {{0x4E00, 0x9FFF}, {0x3400, 0x4DBF}, {0xF900, 0xFAFF}, {0x3040, 0x30FF},
                                    {0xFF65, 0xFF9F}, {0x2F00, 0x2FDF}, {0x0E40, 0x0EFF}, {0x1780, 0x17FF},
                                    {0x1000, 0x109F}, {0xAA60, 0xAA7F}, {0xA9E0, 0xA9FF}, {0xAC00, 0xD7AF},
                                    {0x1100, 0x11FF}};
    return cp >= 0x0E40 && IN(scripts, cp);
}

static int youtu_set(uint32_t cp) {
    static const range korean[] = {{0xAC00, 0xD7A3}, {0x3131, 0x318E}};
    static const range marks[] = {{0xFF01, 0xFF01}, {0x2026, 0x2026}, {0x201C, 0x201D},
                                  {0x2018, 0x2019}, {0x2014, 0x2014}, {0xFF1A, 0xFF1B},
                                  {0xFF0C, 0xFF0C}, {0x3001, 0x303F}, {0xFE30, 0xFE4F}};
    static const range bopomofo[] = {{0x3105, 0x312F}};
    static const range chinese[] = {{0x4E00, 0x9FA5}, {0x3040, 0x30FF}};
    return cp < 0x2014 ? 0 : IN(korean, cp) ? 1 : IN(marks, cp) ? 2 : IN(bopomofo, cp) ? 3 : IN(chinese, cp) ? 4 : 0;
}

SPLIT_MATCH(match_afmoe_scripts) {
    return script_run(p, end, afmoe_set, matched);
}

SPLIT_MATCH(match_youtu_scripts) {
    return script_run(p, end, youtu_set, matched);
}

/* ---- exaone-moe ---- */

/* Letters with their marks, single spaces between letters included. */
static place joined_words(place p, place end) {
    size_t n;
    while (true) {
        while (chars_at(p, end, &n) & CHAR_LETTER) {
            p = run(p + n, end, CHAR_MARK);
        }
        if (end - p < 2 || *p != ' ' || !(chars_at(p + 1, end, &n) & CHAR_LETTER)) {
            return p;
        }
        p++;
    }
}

SPLIT_MATCH(match_exaone_moe) {
    *matched = SPLIT_PIECE;
    size_t n = contraction(p, end, true);
    if (n > 0) {
        return n;
    }
    size_t next;
    const unsigned class = chars_at(p, end, &n);
    if (class & CHAR_LETTER) {
        return (size_t)(joined_words(p, end) - p);
    }
    if (!is_break(*p) && !(class & CHAR_NUMBER) && chars_at(p + n, end, &next) & CHAR_LETTER) {
        return (size_t)(joined_words(p + n, end) - p);
    }
    if (class & CHAR_NUMBER) {
        return n;
    }
    n = marks_and_breaks(p, end, CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER, false, false);
    if (n > 0) {
        return n + (p + n < end && is_break(p[n]));
    }
    return spaces_or_breaks(p, end);
}

/* ---- jais-2 ---- */

/* A piece of match_llama3. One of white space that does not end with a line break is cut into powers of two up to 512,
 * the greatest first; the expression's (?!\S) holds everywhere within such a piece. */
SPLIT_MATCH(match_space_powers) {
    enum { MOST = 512 };
    size_t n, first;
    *matched = SPLIT_PIECE;
    if (!(chars_at(p, end, &first) & CHAR_SPACE) || is_break(end[-1]) ||
        (p + first < end && !(chars_at(p + first, end, &n) & CHAR_SPACE))) {
        return (size_t)(end - p);
    }
    int   count = 0;
    place q = p;
    for (; count < MOST && chars_at(q, end, &n) & CHAR_SPACE; count++) {
        q += n;
    }
    int power = 1;
    while (2 * power <= count) {
        power *= 2;
    }
    for (q = p; power > 0; power--) {
        chars_at(q, end, &n);
        q += n;
    }
    return (size_t)(q - p);
}

/* ---- chameleon ---- */

SPLIT_MATCH(match_sentinel) {
    static const char word[] = "<sentinel:";
    const size_t      n = sizeof(word) - 1;
    *matched = SPLIT_GAP;
    if ((size_t)(end - p) <= n || memcmp(p, word, n) != 0) {
        return 1;
    }
    place q = p + n;
    while (q < end && *q >= '0' && *q <= '9') {
        q++;
    }
    if (q == p + n || q == end || *q != '>') {
        return n;
    }
    *matched = SPLIT_PIECE;
    return (size_t)(q + 1 - p);
}

SPLIT_MATCH(match_image) {
    static const char word[] = "IMGIMG";
    const size_t      n = sizeof(word) - 1;
    *matched = SPLIT_GAP;
    if ((size_t)(end - p) <= n || memcmp(p, word, n) != 0) {
        return 1;
    }
    place q = p + n;
    while (q < end && q < p + n + 4 && *q >= 'A' && *q <= 'I') {
        q++;
    }
    if (q == p + n || q == end || *q != 'Z') {
        return 1;
    }
    *matched = SPLIT_PIECE;
    return (size_t)(q + 1 - p);
}

SPLIT_MATCH(match_tab_or_spaces) {
    size_t n = 0;
    while (n < 4 && p + n < end && p[n] == ' ') {
        n++;
    }
    *matched = *p == '\t' || *p == '\n' || n >= 2 ? SPLIT_PIECE : SPLIT_GAP;
    return n == 4 ? 4 : n >= 2 ? 2 : 1;
}

SPLIT_MATCH(match_one_mark) {
    size_t n;
    const unsigned class = chars_at(p, end, &n);
    *matched = class & CHAR_PUNCTUATION || (*p < 0x80 && class & CHAR_SYMBOL) ? SPLIT_PIECE : SPLIT_GAP;
    return n;
}
