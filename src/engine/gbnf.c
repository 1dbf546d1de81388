/* gbnf.c - llama.cpp's grammar notation.
 *
 *   root ::= "yes" | "no" ws [0-9a-f]{2,8} (item ("," item)*)?     # a rule ends where the next one begins
 *
 * Source: the description in llama.cpp's grammars/README.md. A rule may run over several lines: at the end of a line it
 * goes on when the next thing is not a `name ::=`. The parser is by recursive descent, bounded in depth.             */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/utf8.h"
#include "engine/grammar_parts.h"

#define MOST_TEXT   (1 << 20)
#define MOST_GROUPS 200 /* in each other */
#define MOST_RANGES 4096
#define MOST_NAME   128

typedef struct gbnf {
    const char *text;
    size_t      n, at;
    rules      *r;
    map        *names;
    size_t     *used_at; /* by rule: where it was first named */
    int         used_cap;
    int         depth;
    err        *e;
} gbnf;

typedef struct exprs { /* a list that grows */
    const expr **item;
    int          n, cap;
} exprs;

static const expr *wrong_at(gbnf *p, size_t at, const char *what) {
    if (!p->r->failed) {
        size_t line = 1, column = 1;
        for (size_t i = 0; i < at && i < p->n; i++) {
            column = p->text[i] == '\n' ? 1 : column + 1;
            line += p->text[i] == '\n';
        }
        err_set(p->e, ERR_INVALID, "grammar, line %zu, column %zu: %s", line, column, what);
        p->r->failed = true;
    }
    return NULL;
}

static const expr *wrong(gbnf *p, const char *what) {
    return wrong_at(p, p->at, what);
}

static bool push(gbnf *p, exprs *list, const expr *x) {
    if (x && list->n == list->cap) {
        int          cap = list->cap ? list->cap * 2 : 8;
        const expr **more = realloc(list->item, (size_t)cap * sizeof(*more));
        if (!more) {
            rules_fail(p->r, ERR_MEMORY, "out of memory for a grammar");
            return false;
        }
        list->item = more;
        list->cap = cap;
    }
    if (x) {
        list->item[list->n++] = x;
    }
    return x != NULL;
}

/* ---- reading ---- */

static int peek(const gbnf *p) {
    return p->at < p->n ? (unsigned char)p->text[p->at] : -1;
}

static void skip_space(gbnf *p) {
    for (; p->at < p->n; p->at++) {
        if (p->text[p->at] == '#') {
            while (p->at + 1 < p->n && p->text[p->at + 1] != '\n') {
                p->at++;
            }
        } else if (!strchr(" \t\r\n", p->text[p->at]) || p->text[p->at] == 0) {
            return;
        }
    }
}

static bool is_word(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static size_t word(const gbnf *p) {
    size_t n = 0;
    while (p->at + n < p->n && is_word((unsigned char)p->text[p->at + n])) {
        n++;
    }
    return n;
}

/* Whether `name ::=` stands here, which ends the rule before it. */
static bool at_rule(gbnf *p) {
    size_t begin = p->at;
    p->at += word(p);
    bool named = p->at > begin;
    skip_space(p);
    bool yes = named && p->n - p->at >= 3 && memcmp(p->text + p->at, "::=", 3) == 0;
    p->at = begin;
    return yes;
}

static int rule_named(gbnf *p, const char *name, size_t n) {
    int64_t rule;
    if (map_get(p->names, name, n, &rule)) {
        return (int)rule;
    }
    char copy[MOST_NAME + 1];
    if (n > MOST_NAME) {
        wrong(p, "a rule's name is longer than 128 characters");
        return -1;
    }
    memcpy(copy, name, n);
    copy[n] = 0;
    rule = rules_add(p->r, copy);
    if (rule >= p->used_cap) {
        int     cap = p->used_cap ? 2 * p->used_cap : 64;
        size_t *more = realloc(p->used_at, (size_t)cap * sizeof(*more));
        if (more) {
            p->used_at = more;
            p->used_cap = cap;
        }
    }
    if (rule >= p->used_cap || !map_put(p->names, name, n, rule)) {
        rules_fail(p->r, ERR_MEMORY, "out of memory for a grammar");
        return -1;
    }
    if (rule >= 0) {
        p->used_at[rule] = p->at;
    }
    return (int)rule;
}

static int hex_digit(int c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* After a backslash. */
static bool escape(gbnf *p, uint32_t *code) {
    static const char names[] = "nrt\\\"[]", means[] = "\n\r\t\\\"[]";
    int               c = peek(p);
    const char       *named = c > 0 ? strchr(names, c) : NULL;
    int               digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (named) {
        *code = (unsigned char)means[named - names];
        p->at++;
        return true;
    }
    if (digits == 0) {
        wrong(p, "an unknown escape; possible are \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH");
        return false;
    }
    p->at++;
    *code = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        int d = hex_digit(peek(p));
        if (d < 0) {
            wrong(p, "a hexadecimal digit is missing in an escape");
            return false;
        }
        *code = *code << 4 | (uint32_t)d;
    }
    if (*code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF)) {
        wrong(p, "the escape is no character of Unicode");
        return false;
    }
    return true;
}

static bool character(gbnf *p, uint32_t *code) {
    if (peek(p) == '\\') {
        p->at++;
        return escape(p, code);
    }
    p->at += utf8_decode(p->text + p->at, p->n - p->at, code);
    return true;
}

/* ---- expressions ---- */

static const expr *literal(gbnf *p) {
    size_t open = p->at++;
    char  *bytes = malloc(p->n - open + 4); /* an escape is longer than its character */
    size_t n = 0;
    if (!bytes) {
        rules_fail(p->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    while (peek(p) >= 0 && peek(p) != '"' && !p->r->failed) {
        uint32_t code;
        if (character(p, &code)) {
            n += utf8_encode(code, bytes + n);
        }
    }
    const expr *x = NULL;
    if (peek(p) < 0) {
        wrong_at(p, open, "the text that begins here has no closing quote");
    } else if (!p->r->failed) {
        p->at++;
        x = expr_text(p->r, bytes, n);
    }
    free(bytes);
    return x;
}

static const expr *class_of(gbnf *p) {
    static const code_range empty = {1, 0};
    size_t                  open = p->at++;
    bool                    negate = peek(p) == '^';
    int                     n = 0;
    code_range             *range = malloc((MOST_RANGES + 1) * 2 * sizeof(*range));
    if (!range) {
        rules_fail(p->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    p->at += negate;
    range[0] = empty;
    while (peek(p) >= 0 && peek(p) != ']' && !p->r->failed) {
        uint32_t lo, hi;
        bool     ok = character(p, &lo);
        hi = lo;
        if (ok && peek(p) == '-' && p->at + 1 < p->n && p->text[p->at + 1] != ']') {
            p->at++;
            ok = character(p, &hi);
        }
        if (ok && lo > hi) {
            wrong(p, "a range of characters runs backwards");
        } else if (n == MOST_RANGES) {
            wrong(p, "a class has more than 4096 ranges");
        } else if (ok) {
            range[n++] = (code_range){lo, hi};
        }
    }
    const expr *x = NULL;
    if (peek(p) < 0) {
        wrong_at(p, open, "the class that begins here has no closing ]");
    } else if (!p->r->failed) {
        p->at++;
        int kept = class_normal(range, n, negate, range + MOST_RANGES + 1);
        x = expr_class(p->r, range + MOST_RANGES + 1, kept);
    }
    free(range);
    return x;
}

static const expr *alternatives(gbnf *p);

static const expr *group(gbnf *p) {
    size_t open = p->at++;
    if (++p->depth > MOST_GROUPS) {
        return wrong(p, "groups stand in each other more than 200 deep");
    }
    const expr *x = alternatives(p);
    p->depth--;
    if (x && peek(p) != ')') {
        return wrong_at(p, open, "the group that begins here has no closing )");
    }
    p->at++;
    return x;
}

static const expr *primary(gbnf *p) {
    static const code_range any = {0, 0x10FFFF};
    int                     c = peek(p);
    if (c == '"') {
        return literal(p);
    }
    if (c == '[') {
        return class_of(p);
    }
    if (c == '(') {
        return group(p);
    }
    if (c == '.') {
        p->at++;
        return expr_class(p->r, &any, 1);
    }
    size_t n = word(p);
    if (n == 0) {
        return wrong(p, "expected a text, a class, a group or a rule's name");
    }
    int rule = rule_named(p, p->text + p->at, n);
    p->at += n;
    return expr_rule(p->r, rule);
}

static bool number(gbnf *p, int *out) {
    size_t begin = p->at;
    int    value = 0;
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        value = value * 10 + (peek(p) - '0');
        if (value > GRAMMAR_MOST_COUNT) {
            wrong_at(p, begin, "a repetition of more than 1000000 is too long");
            return false;
        }
    }
    *out = p->at > begin ? value : *out;
    return p->at > begin;
}

/* {m} {m,} {m,n} {,n} */
static const expr *counted(gbnf *p, const expr *x) {
    int    min = 0, max = GRAMMAR_NO_MAX;
    size_t open = p->at++;
    skip_space(p);
    bool has_min = number(p, &min);
    skip_space(p);
    if (peek(p) == ',') {
        p->at++;
        skip_space(p);
        bool has_max = number(p, &max);
        has_min = has_min || has_max;
        skip_space(p);
    } else {
        max = min;
    }
    if (p->r->failed) {
        return NULL;
    }
    if (!has_min || peek(p) != '}') {
        return wrong_at(p, open, "a repetition is {m}, {m,} or {m,n}");
    }
    if (max != GRAMMAR_NO_MAX && max < min) {
        return wrong_at(p, open, "the repetition's largest count is below its smallest");
    }
    p->at++;
    return expr_repeat(p->r, x, min, max);
}

static const expr *postfix(gbnf *p) {
    const expr *x = primary(p);
    while (x && !p->r->failed) {
        skip_space(p);
        int c = peek(p);
        if (c == '{') {
            x = counted(p, x);
        } else if (c == '*' || c == '+' || c == '?') {
            p->at++;
            x = expr_repeat(p->r, x, c == '+', c == '?' ? 1 : GRAMMAR_NO_MAX);
        } else {
            break;
        }
    }
    return x;
}

static const expr *sequence(gbnf *p) {
    exprs list = {0};
    skip_space(p);
    while (!p->r->failed && peek(p) >= 0 && peek(p) != '|' && peek(p) != ')' && !at_rule(p)) {
        push(p, &list, postfix(p));
        skip_space(p);
    }
    const expr *x = p->r->failed ? NULL : expr_seq(p->r, list.item, list.n);
    free(list.item);
    return x;
}

static const expr *alternatives(gbnf *p) {
    exprs list = {0};
    bool  more = push(p, &list, sequence(p));
    while (more && peek(p) == '|') {
        p->at++;
        more = push(p, &list, sequence(p));
    }
    const expr *x = p->r->failed ? NULL : expr_alt(p->r, list.item, list.n);
    free(list.item);
    return x;
}

/* ---- rules ---- */

static void read_rule(gbnf *p) {
    size_t at = p->at;
    if (!at_rule(p)) {
        wrong(p, "expected a rule: name ::= ...");
        return;
    }
    size_t n = word(p);
    int    rule = rule_named(p, p->text + at, n);
    if (rule >= 0 && p->r->rule[rule].body) {
        wrong(p, "this rule was defined before");
        return;
    }
    p->at += n;
    skip_space(p);
    p->at += 3;
    const expr *body = alternatives(p);
    if (body && peek(p) == ')') {
        wrong(p, "a ) without its (");
    } else if (body) {
        p->r->rule[rule].body = body;
    }
}

static bool read_all(gbnf *p) {
    for (skip_space(p); p->at < p->n && !p->r->failed; skip_space(p)) {
        read_rule(p);
    }
    for (int i = 0; i < p->r->n && !p->r->failed; i++) {
        if (!p->r->rule[i].body && p->used_at) {
            char what[MOST_NAME + 64];
            snprintf(what, sizeof(what), "the rule \"%s\" is used but not defined", p->r->rule[i].name);
            wrong_at(p, p->used_at[i], what);
        }
    }
    return !p->r->failed;
}

bool gbnf_read(const char *text, size_t n, rules *r, int *root, err *e) {
    gbnf    p = {.text = text, .n = n, .r = r, .e = e};
    int64_t found = 0;
    size_t  bad;
    p.names = map_new(64);
    if (!p.names) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
    } else if (n > MOST_TEXT) {
        rules_fail(r, ERR_LIMIT, "the grammar's text is longer than 1048576 bytes");
    } else if (!utf8_valid(text, n, &bad)) {
        wrong_at(&p, bad, "this byte is not UTF-8");
    } else if (read_all(&p) && !map_get(p.names, "root", 4, &found)) {
        rules_fail(r, ERR_INVALID, "the grammar has no rule named \"root\", with which an answer begins");
    }
    *root = (int)found;
    map_free(p.names);
    free(p.used_at);
    return !r->failed;
}

grammar *grammar_from_gbnf(const char *text, size_t n, err *e) {
    err   unread = {0};
    rules r;
    int   root;
    e = e ? e : &unread;
    if (!rules_begin(&r, e)) {
        return NULL;
    }
    gbnf_read(text, n, &r, &root, e);
    return grammar_compile(&r, root, e);
}
