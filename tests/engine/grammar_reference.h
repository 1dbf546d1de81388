/* grammar_reference.h - what a text is under a grammar's expressions, by plain backtracking.
 *
 * Shares nothing with the automata: it reads the rules as the front end wrote them. For a text of up to 511 bytes it says
 * whether the text is an answer, and whether it can become one (given that every part of the grammar can end).       */
#ifndef TESTS_ENGINE_GRAMMAR_REFERENCE_H
#define TESTS_ENGINE_GRAMMAR_REFERENCE_H

#include "check.h"

#include "engine/grammar_parts.h"

#define REFERENCE_TEXT 511

typedef struct places { /* positions in the text */
    uint64_t word[8];
} places;

typedef struct reference {
    const rules *r;
    const char  *text;
    int          n;
    bool         viable; /* something would have read beyond the end */
    places      *known;  /* [rules][n + 1] ends of a rule that begins there */
    bool        *done;
} reference;

static inline bool places_has(const places *p, int i) {
    return p->word[i / 64] >> (i % 64) & 1;
}

static inline void places_add(places *p, int i) {
    p->word[i / 64] |= (uint64_t)1 << (i % 64);
}

static inline bool places_join(places *p, places q) {
    bool more = false;
    for (int w = 0; w < 8; w++) {
        more = more || (q.word[w] & ~p->word[w]);
        p->word[w] |= q.word[w];
    }
    return more;
}

static places reference_ends(reference *f, const expr *x, int at);

static inline places reference_ends_of(reference *f, const expr *x, places from) {
    places to = {0};
    for (int i = 0; i <= f->n; i++) {
        if (places_has(&from, i)) {
            places_join(&to, reference_ends(f, x, i));
        }
    }
    return to;
}

static inline places reference_repeat(reference *f, const expr *x, int at) {
    places now = {0}, all = {0};
    places_add(&now, at);
    for (int i = 0; i < x->min; i++) {
        now = reference_ends_of(f, x->items[0], now);
    }
    all = now;
    for (int i = x->min; x->max == GRAMMAR_NO_MAX || i < x->max; i++) {
        now = reference_ends_of(f, x->items[0], now);
        if (!places_join(&all, now)) {
            break;
        }
    }
    return all;
}

static places reference_ends(reference *f, const expr *x, int at) {
    places to = {0};
    int    i = 0;
    switch (x->kind) {
    case EXPR_TEXT:
        while (i < x->n && at + i < f->n && f->text[at + i] == x->text[i]) {
            i++;
        }
        f->viable = f->viable || (i < x->n && at + i == f->n);
        if (i == x->n) {
            places_add(&to, at + i);
        }
        return to;
    case EXPR_RANGE:
        f->viable = f->viable || at == f->n;
        if (at < f->n && (uint8_t)f->text[at] >= x->lo && (uint8_t)f->text[at] <= x->hi) {
            places_add(&to, at + 1);
        }
        return to;
    case EXPR_SEQ:
        places_add(&to, at);
        for (i = 0; i < x->n; i++) {
            to = reference_ends_of(f, x->items[i], to);
        }
        return to;
    case EXPR_ALT:
        for (i = 0; i < x->n; i++) {
            places_join(&to, reference_ends(f, x->items[i], at));
        }
        return to;
    case EXPR_REPEAT:
        return reference_repeat(f, x, at);
    case EXPR_RULE:
        i = x->rule * (f->n + 1) + at;
        if (!f->done[i]) {
            f->known[i] = reference_ends(f, f->r->rule[x->rule].body, at);
            f->done[i] = true;
        }
        return f->known[i];
    }
    return to;
}

/* Returns whether the text can become an answer; *whole: it is one. */
static inline bool reference_reads(const rules *r, int root, const char *text, size_t n, bool *whole) {
    assert_true(n <= REFERENCE_TEXT);
    size_t    cells = (size_t)r->n * (n + 1);
    reference f = {
        .r = r, .text = text, .n = (int)n, .known = calloc(cells, sizeof(places)), .done = calloc(cells, sizeof(bool))};
    assert_true(f.known && f.done);
    places ends = reference_ends(&f, r->rule[root].body, 0);
    *whole = places_has(&ends, (int)n);
    free(f.known);
    free(f.done);
    return f.viable || *whole;
}

#endif
