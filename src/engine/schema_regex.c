/* schema_regex.c - regular expressions, the part of ECMA-262 that is regular.
 *
 * Alternatives, groups, classes, . \d \w \s and their complements, escapes, ? * + {m} {m,} {m,n}, ^ at the beginning and
 * $ at the end of an alternative of the whole. Without these two anything may stand before and after, as JSON Schema has
 * it. What comes out is the inside of a JSON string, so a character that cannot stand there as it is becomes its escape. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/schema_parts.h"

#define MOST_PATTERN 65536
#define MOST_GROUPS  100
#define MOST_RANGES  512
#define MOST_ITEMS   4096 /* in a row, or alternatives */

typedef struct piece { /* an expression, and how many characters it matches */
    const expr *x;
    int64_t     least, most; /* most < 0: no bound */
} piece;

typedef struct regex {
    schema     *s;
    const char *text;
    size_t      n, at;
    int         depth;
} regex;

static piece wrong(regex *p, const char *what) {
    schema_wrong(p->s, ERR_UNSUPPORTED, "pattern, character %zu: %s", p->at + 1, what);
    return (piece){0};
}

static int peek(const regex *p) {
    return p->at < p->n ? (unsigned char)p->text[p->at] : -1;
}

/* ---- characters ---- */

typedef struct class {
    code_range range[MOST_RANGES];
    int        n;
} class;

static bool add(regex *p, class *c, uint32_t lo, uint32_t hi) {
    if (c->n == MOST_RANGES) {
        wrong(p, "a class has too many ranges");
        return false;
    }
    c->range[c->n++] = (code_range){lo, hi};
    return true;
}

/* \d \w \s, or (upper case) all else. */
static bool add_named(regex *p, class *c, int name) {
    static const code_range digit[] = {{'0', '9'}}, letter[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                            space[] = {{9, 13},          {32, 32},         {0xA0, 0xA0},     {0x1680, 0x1680},
                                       {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                       {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    int               lower = name | 0x20;
    const code_range *of = lower == 'd' ? digit : lower == 'w' ? letter : space;
    int               n = lower == 'd' ? 1 : lower == 'w' ? 4 : 10;
    code_range        out[11];
    n = class_normal(of, n, name != lower, out);
    for (int i = 0; i < n; i++) {
        if (!add(p, c, out[i].lo, out[i].hi)) {
            return false;
        }
    }
    return true;
}

static bool is_named(int c) {
    return c == 'd' || c == 'D' || c == 'w' || c == 'W' || c == 's' || c == 'S';
}

static bool hex(regex *p, int digits, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        int c = peek(p), d = c >= '0' && c <= '9'                 ? c - '0'
                             : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                                  : -1;
        if (d < 0) {
            wrong(p, "a hexadecimal digit is missing");
            return false;
        }
        *code = *code << 4 | (uint32_t)d;
    }
    return true;
}

/* After a backslash: one character. */
static bool escaped(regex *p, uint32_t *code) {
    static const char names[] = "nrtfv", means[] = "\n\r\t\f\v";
    int               c = peek(p);
    const char       *named = c > 0 ? strchr(names, c) : NULL;
    p->at++;
    if (named) {
        *code = (unsigned char)means[named - names];
        return true;
    }
    if (c == 'x' || c == 'u') {
        return hex(p, c == 'x' ? 2 : 4, code);
    }
    if (c < 0 || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c >= 0x80) {
        p->at--;
        wrong(p, "this escape is not supported");
        return false;
    }
    *code = (uint32_t)c;
    return true;
}

static const expr *as_text(schema *s, uint32_t lo, uint32_t hi) {
    return expr_class(s->r, &(code_range){lo, hi}, 1);
}

/* The class as it stands in a JSON string. */
static piece written(regex *p, const class *c, bool negate) {
    static const char names[] = "\b\f\n\r\t\"\\", means[] = "bfnrt\"\\";
    schema           *s = p->s;
    code_range        out[MOST_RANGES + 1];
    const expr       *item[2 * MOST_RANGES + 64];
    int               k = 0, n = class_normal(c->range, c->n, negate, out);
    for (int i = 0; i < n && !s->r->failed; i++) {
        uint32_t lo = out[i].lo > 0 ? out[i].lo : 1; /* NUL cannot stand in a string that all readers take */
        for (uint32_t code = lo; code < 0x20 && code <= out[i].hi; code++) {
            char        text[8];
            const char *named = strchr(names, (int)code);
            snprintf(text, sizeof(text), named ? "\\%c" : "\\u%04x", named ? (unsigned)means[named - names] : code);
            item[k++] = schema_word(s, text);
        }
        for (lo = lo < 0x20 ? 0x20 : lo; lo <= out[i].hi;) {
            uint32_t hi = out[i].hi;
            if (lo == '"' || lo == '\\') {
                item[k++] = schema_word(s, lo == '"' ? "\\\"" : "\\\\");
                lo++;
                continue;
            }
            hi = lo < '"' && hi >= '"' ? '"' - 1 : lo < '\\' && hi >= '\\' ? '\\' - 1 : hi;
            item[k++] = as_text(s, lo, hi);
            lo = hi + 1;
        }
    }
    return (piece){s->r->failed ? NULL : expr_alt(s->r, item, k), 1, 1};
}

static bool class_char(regex *p, class *c, uint32_t *code, bool *single) {
    *single = true;
    if (peek(p) != '\\') {
        p->at += utf8_decode(p->text + p->at, p->n - p->at, code);
        return true;
    }
    p->at++;
    if (is_named(peek(p))) {
        *single = false;
        return add_named(p, c, p->text[p->at++]);
    }
    if (peek(p) == 'b') {
        p->at++;
        *code = 8;
        return true;
    }
    return escaped(p, code);
}

static piece class_of(regex *p) {
    class c = {.n = 0};
    p->at++;
    bool negate = peek(p) == '^';
    p->at += negate;
    while (peek(p) >= 0 && peek(p) != ']' && !p->s->r->failed) {
        uint32_t lo = 0, hi;
        bool     single, last;
        if (!class_char(p, &c, &lo, &single) || !single) {
            continue;
        }
        hi = lo;
        if (peek(p) == '-' && p->at + 1 < p->n && p->text[p->at + 1] != ']') {
            p->at++;
            if (!class_char(p, &c, &hi, &last)) {
                break;
            }
            if (!last || hi < lo) {
                return wrong(p, "a range of characters runs backwards, or to a class");
            }
        }
        add(p, &c, lo, hi);
    }
    if (p->s->r->failed || peek(p) < 0) {
        return wrong(p, "a [ has no ]");
    }
    p->at++;
    return written(p, &c, negate);
}

/* ---- the rest ---- */

static piece alternatives(regex *p);

static piece group(regex *p) {
    p->at++;
    if (peek(p) == '?') {
        p->at++;
        if (peek(p) == '<' && p->at + 1 < p->n && p->text[p->at + 1] != '=' && p->text[p->at + 1] != '!') {
            while (peek(p) >= 0 && peek(p) != '>') {
                p->at++;
            }
        } else if (peek(p) != ':') {
            return wrong(p, "looking ahead or back, and flags, are not supported");
        }
        p->at++;
    }
    if (++p->depth > MOST_GROUPS) {
        return wrong(p, "groups stand in each other more than 100 deep");
    }
    piece x = alternatives(p);
    p->depth--;
    if (!p->s->r->failed && peek(p) != ')') {
        return wrong(p, "a ( has no )");
    }
    p->at++;
    return x;
}

static piece atom(regex *p) {
    class c = {.n = 0};
    uint32_t code = 0;
    int      first = peek(p);
    if (first == '(') {
        return group(p);
    }
    if (first == '[') {
        return class_of(p);
    }
    if (first == '.') {
        p->at++;
        add(p, &c, '\n', '\n');
        add(p, &c, '\r', '\r');
        add(p, &c, 0x2028, 0x2029);
        return written(p, &c, true);
    }
    if (first == '*' || first == '+' || first == '?' || first == '{' || first == '}' || first == ']') {
        return wrong(p, "this character needs a backslash here");
    }
    if (first == '^' || first == '$') {
        return wrong(p, "^ and $ are possible only at the beginning and end of the whole pattern");
    }
    if (first == '\\') {
        p->at++;
        if (is_named(peek(p))) {
            add_named(p, &c, p->text[p->at++]);
            return written(p, &c, false);
        }
        if (!escaped(p, &code)) {
            return (piece){0};
        }
    } else {
        p->at += utf8_decode(p->text + p->at, p->n - p->at, &code);
    }
    add(p, &c, code, code);
    return written(p, &c, false);
}

static bool number(regex *p, int *out) {
    size_t begin = p->at;
    int    value = 0;
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        value = value * 10 + (peek(p) - '0');
        if (value > GRAMMAR_MOST_COUNT) {
            wrong(p, "a repetition of more than 1000000 is too long");
            return false;
        }
    }
    *out = value;
    return p->at > begin;
}

static bool counts(regex *p, int *min, int *max) {
    int c = peek(p);
    *min = c == '+';
    *max = c == '?' ? 1 : GRAMMAR_NO_MAX;
    p->at++;
    if (c != '{') {
        return true;
    }
    bool ok = number(p, min);
    if (ok && peek(p) == ',') {
        p->at++;
        if (peek(p) != '}') {
            ok = number(p, max);
        }
    } else {
        *max = *min;
    }
    ok = ok && peek(p) == '}' && (*max == GRAMMAR_NO_MAX || *max >= *min);
    if (!ok) {
        wrong(p, "a repetition is {m}, {m,} or {m,n}");
    }
    p->at++;
    return ok;
}

static int64_t times(int64_t n, int64_t count) {
    return n < 0 || (count < 0 && n > 0) ? -1 : n == 0 ? 0 : n > 1000000000 / (count + 1) ? -1 : n * count;
}

static piece repeated(regex *p) {
    piece x = atom(p);
    while (!p->s->r->failed && peek(p) >= 0 && strchr("*+?{", peek(p))) {
        int min, max;
        if (!counts(p, &min, &max)) {
            return (piece){0};
        }
        if (peek(p) == '?') { /* reluctant: the same texts */
            p->at++;
        }
        x.x = expr_repeat(p->s->r, x.x, min, max);
        x.least = min > 0 && x.least > 1000000000 / min ? 1000000000 : x.least * min;
        x.most = times(x.most, max);
    }
    return x;
}

static void follow(regex *p, piece *all, piece x) {
    all->x = all->x ? expr_pair(p->s->r, all->x, x.x) : x.x;
    all->least += x.least;
    all->most = all->most < 0 || x.most < 0 ? -1 : all->most + x.most;
}

static piece anything(regex *p) {
    return (piece){expr_repeat(p->s->r, schema_char(p->s), 0, GRAMMAR_NO_MAX), 0, -1};
}

static piece sequence(regex *p) {
    bool         whole = p->depth == 0, from_here = whole && peek(p) == '^', to_here = false;
    piece        all = {.x = NULL};
    int          n = 0;
    const expr **item = calloc(MOST_ITEMS, sizeof(const expr *));
    p->at += from_here;
    while (peek(p) >= 0 && peek(p) != '|' && peek(p) != ')' && !p->s->r->failed) {
        if (whole && peek(p) == '$' && (p->at + 1 == p->n || p->text[p->at + 1] == '|')) {
            p->at++;
            to_here = true;
            break;
        }
        piece x = repeated(p);
        if (n == MOST_ITEMS || !item) {
            wrong(p, "the pattern is too long");
            break;
        }
        item[n++] = x.x;
        all.least += x.least;
        all.most = all.most < 0 || x.most < 0 ? -1 : all.most + x.most;
    }
    const expr *inside = p->s->r->failed || !item ? NULL : expr_seq(p->s->r, item, n);
    free(item);
    if (!inside) {
        return (piece){0};
    }
    piece out = {.x = NULL};
    if (whole && !from_here) {
        follow(p, &out, anything(p));
    }
    follow(p, &out, (piece){inside, all.least, all.most});
    if (whole && !to_here) {
        follow(p, &out, anything(p));
    }
    return out;
}

static piece alternatives(regex *p) {
    const expr **item = calloc(MOST_ITEMS, sizeof(const expr *));
    piece        all = sequence(p), x = all;
    int          n = 0;
    while (item && !p->s->r->failed) {
        item[n++] = x.x;
        all.least = x.least < all.least ? x.least : all.least;
        all.most = all.most < 0 || x.most < 0 ? -1 : x.most > all.most ? x.most : all.most;
        if (peek(p) != '|' || n == MOST_ITEMS) {
            break;
        }
        p->at++;
        x = sequence(p);
    }
    if (!item) {
        rules_fail(p->s->r, ERR_MEMORY, "out of memory for a grammar");
    }
    all.x = p->s->r->failed ? NULL : expr_alt(p->s->r, item, n);
    free(item);
    return all;
}

const expr *schema_regex(schema *s, const char *pattern, int *least, int *most) {
    regex p = {.s = s, .text = pattern, .n = strlen(pattern)};
    if (p.n > MOST_PATTERN) {
        schema_wrong(s, ERR_LIMIT, "the pattern is longer than %d bytes", MOST_PATTERN);
        return NULL;
    }
    piece x = alternatives(&p);
    if (!s->r->failed && p.at < p.n) {
        x = wrong(&p, "a ) without its (, or too many alternatives");
    }
    *least = x.least > GRAMMAR_MOST_COUNT ? GRAMMAR_MOST_COUNT : (int)x.least;
    *most = x.most > GRAMMAR_MOST_COUNT ? -1 : (int)x.most;
    return x.x;
}
