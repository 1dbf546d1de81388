/* grammar_build.c - expressions, within limits. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/grammar_parts.h"

#define LAST_CODE 0x10FFFFu

bool rules_begin(rules *r, err *e) {
    *r = (rules){.e = e, .memory = arena_new(16384)};
    return r->memory || err_set(e, ERR_MEMORY, "out of memory for a grammar");
}

void rules_end(rules *r) {
    free(r->rule);
    arena_free(r->memory);
    *r = (rules){0};
}

void rules_fail(rules *r, err_code code, const char *what) {
    if (!r->failed) {
        err_set(r->e, code, "%s", what);
    }
    r->failed = true;
}

int rules_add(rules *r, const char *name) {
    if (r->n >= GRAMMAR_MOST_RULES) {
        rules_fail(r, ERR_LIMIT, "the grammar needs more than 60000 rules; make it smaller");
    }
    if (!r->failed && r->n == r->cap) {
        int           cap = r->cap ? r->cap * 2 : 32;
        grammar_rule *more = realloc(r->rule, (size_t)cap * sizeof(*more));
        if (!more) {
            rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        } else {
            r->rule = more;
            r->cap = cap;
        }
    }
    char *copy = r->failed ? NULL : arena_strdup(r->memory, name);
    if (!copy) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        return -1;
    }
    r->rule[r->n] = (grammar_rule){.name = copy};
    return r->n++;
}

static expr *new_expr(rules *r, expr_kind kind) {
    if (!r->failed && ++r->exprs > GRAMMAR_MOST_EXPRS) {
        rules_fail(r, ERR_LIMIT, "the grammar is too large: it has more than 600000 parts");
    }
    expr *x = r->failed ? NULL : arena_zero(r->memory, 1, sizeof(*x));
    if (!x) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    x->kind = kind;
    x->depth = 1;
    return x;
}

const expr *expr_text(rules *r, const char *bytes, size_t n) {
    expr *x = n < GRAMMAR_MOST_NODES ? new_expr(r, EXPR_TEXT) : NULL;
    if (!x) {
        rules_fail(r, ERR_LIMIT, "a text in the grammar is longer than 131072 bytes");
        return NULL;
    }
    x->text = arena_memdup(r->memory, bytes, n);
    x->n = (int)n;
    if (!x->text) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    return x;
}

const expr *expr_range(rules *r, int lo, int hi) {
    expr *x = new_expr(r, EXPR_RANGE);
    if (x) {
        x->lo = (uint8_t)lo;
        x->hi = (uint8_t)hi;
    }
    return x;
}

static bool deepen(rules *r, expr *x, const expr *below) {
    if (!below) {
        rules_fail(r, ERR_INTERNAL, "a part of the grammar is missing");
        return false;
    }
    x->depth = below->depth + 1 > x->depth ? below->depth + 1 : x->depth;
    if (x->depth > GRAMMAR_MOST_NEST) {
        rules_fail(r, ERR_LIMIT, "the grammar is nested too deeply");
    }
    return !r->failed;
}

static const expr *list(rules *r, expr_kind kind, const expr *const *items, int n) {
    expr *x = new_expr(r, kind);
    if (!x) {
        return NULL;
    }
    x->items = arena_zero(r->memory, n > 0 ? (size_t)n : 1, sizeof(*x->items));
    if (!x->items) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        if (!deepen(r, x, items[i])) {
            return NULL;
        }
        x->items[i] = items[i];
    }
    x->n = n;
    return x;
}

const expr *expr_seq(rules *r, const expr *const *items, int n) {
    return n == 1 ? items[0] : list(r, EXPR_SEQ, items, n);
}

const expr *expr_alt(rules *r, const expr *const *items, int n) {
    return n == 1 ? items[0] : list(r, EXPR_ALT, items, n);
}

const expr *expr_pair(rules *r, const expr *a, const expr *b) {
    const expr *both[] = {a, b};
    return expr_seq(r, both, 2);
}

const expr *expr_repeat(rules *r, const expr *x, int min, int max) {
    expr *y = new_expr(r, EXPR_REPEAT);
    if (y && (min < 0 || min > GRAMMAR_MOST_COUNT || max > GRAMMAR_MOST_COUNT)) {
        rules_fail(r, ERR_LIMIT, "a repetition of more than 1000000 is too long");
    }
    if (!y || !deepen(r, y, x)) {
        return NULL;
    }
    y->items = arena_zero(r->memory, 1, sizeof(*y->items));
    if (!y->items) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    y->items[0] = x;
    y->n = 1;
    y->min = min;
    y->max = max;
    return y;
}

const expr *expr_optional(rules *r, const expr *x) {
    return expr_repeat(r, x, 0, 1);
}

const expr *expr_rule(rules *r, int rule) {
    expr *x = rule < 0 ? NULL : new_expr(r, EXPR_RULE);
    if (x) {
        x->rule = rule;
    }
    return x;
}

/* ---- classes of code points ---- */

static int by_lo(const void *a, const void *b) {
    uint32_t x = ((const code_range *)a)->lo, y = ((const code_range *)b)->lo;
    return (x > y) - (x < y);
}

int class_normal(const code_range *ranges, int n, bool negate, code_range *out) {
    if (n > 0) {
        memcpy(out, ranges, (size_t)n * sizeof(*out));
    }
    qsort(out, (size_t)n, sizeof(*out), by_lo);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        if (out[i].lo > out[i].hi) {
            continue;
        }
        if (kept > 0 && out[i].lo <= out[kept - 1].hi + 1) {
            out[kept - 1].hi = out[i].hi > out[kept - 1].hi ? out[i].hi : out[kept - 1].hi;
        } else {
            out[kept++] = out[i];
        }
    }
    if (!negate) {
        return kept;
    }
    uint32_t from = 0; /* the gaps, written over what was read already */
    int      gaps = 0;
    for (int i = 0; i < kept; i++) {
        code_range taken = out[i];
        if (taken.lo > from) {
            out[gaps++] = (code_range){from, taken.lo - 1};
        }
        from = taken.hi + 1;
    }
    if (from <= LAST_CODE) {
        out[gaps++] = (code_range){from, LAST_CODE};
    }
    return gaps;
}

/* Both ends have the same number of bytes: splits where a byte's range is not followed by all of the next one's. */
static const expr *same_length(rules *r, const uint8_t *lo, const uint8_t *hi, int n) {
    if (n == 1) {
        return expr_range(r, lo[0], hi[0]);
    }
    if (lo[0] == hi[0]) {
        return expr_pair(r, expr_range(r, lo[0], lo[0]), same_length(r, lo + 1, hi + 1, n - 1));
    }
    static const uint8_t least[3] = {0x80, 0x80, 0x80}, most[3] = {0xBF, 0xBF, 0xBF};
    const expr          *part[3];
    int                  parts = 0, from = lo[0], to = hi[0];
    if (memcmp(lo + 1, least, (size_t)n - 1) != 0) {
        part[parts++] = expr_pair(r, expr_range(r, from, from), same_length(r, lo + 1, most, n - 1));
        from++;
    }
    const expr *end = NULL;
    if (memcmp(hi + 1, most, (size_t)n - 1) != 0) {
        end = expr_pair(r, expr_range(r, to, to), same_length(r, least, hi + 1, n - 1));
        to--;
    }
    if (from <= to) {
        part[parts++] = expr_pair(r, expr_range(r, from, to), same_length(r, least, most, n - 1));
    }
    if (end) {
        part[parts++] = end;
    }
    return expr_alt(r, part, parts);
}

const expr *expr_class(rules *r, const code_range *ranges, int n) {
    /* Code points of one length in UTF-8, without the surrogates. */
    static const code_range lengths[] = {
        {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, LAST_CODE}};
    const int    kinds = sizeof(lengths) / sizeof(*lengths);
    const expr **part = calloc((size_t)n * (size_t)kinds + 1, sizeof(const expr *));
    if (!part) {
        rules_fail(r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    int parts = 0;
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < kinds; k++) {
            uint32_t lo = ranges[i].lo > lengths[k].lo ? ranges[i].lo : lengths[k].lo;
            uint32_t hi = ranges[i].hi < lengths[k].hi ? ranges[i].hi : lengths[k].hi;
            char     first[4], last[4];
            if (lo <= hi) {
                size_t bytes = utf8_encode(lo, first);
                utf8_encode(hi, last);
                part[parts++] = same_length(r, (const uint8_t *)first, (const uint8_t *)last, (int)bytes);
            }
        }
    }
    const expr *x = expr_alt(r, part, parts);
    free(part);
    return x;
}
