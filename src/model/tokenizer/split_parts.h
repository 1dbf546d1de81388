/* split_parts.h - the parts that many of the split expressions have in common. */
#ifndef PARE_MODEL_TOKENIZER_SPLIT_PARTS_H
#define PARE_MODEL_TOKENIZER_SPLIT_PARTS_H

#include "model/tokenizer/chars.h"
#include "model/tokenizer/split_match.h"

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

/* Up to `most` numbers. */
static inline place numbers(place p, place end, int most) {
    size_t n;
    for (int i = 0; i < most && (chars_at(p, end, &n) & CHAR_NUMBER); i++) {
        p += n;
    }
    return p;
}

/* ` ?[^\s\p{L}\p{N}]+` and, with `breaks`, the line breaks (or slashes) after it; 0: none. */
static inline size_t marks_and_breaks(place p, place end, unsigned not_marks, bool breaks, bool slash) {
    place start = p + (*p == ' ');
    place q = run_not(start, end, not_marks);
    if (q == start) {
        return 0;
    }
    while (breaks && q < end && (is_break(*q) || (slash && *q == '/'))) {
        q++;
    }
    return (size_t)(q - p);
}

static inline bool is_ascii_letter(uint8_t c) {
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

#endif
