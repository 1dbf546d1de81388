/* grammar_parts.h - a grammar while it is built, and as it is run.
 *
 * Front ends (gbnf.c, schema.c) write rules as expressions over bytes. grammar_compile.c turns each rule into a
 * deterministic automaton whose edges are bytes or calls of other rules; mask_machine.c runs those with a stack.     */
#ifndef PARE_ENGINE_GRAMMAR_PARTS_H
#define PARE_ENGINE_GRAMMAR_PARTS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/arena.h"
#include "engine/grammar.h"

#define GRAMMAR_NO_MAX     (-1)   /* of a repetition */
#define GRAMMAR_MOST_EXPRS 600000 /* expressions of all rules */
#define GRAMMAR_MOST_NEST  1200   /* of expressions: they are walked recursively */
#define GRAMMAR_MOST_RULES 60000
#define GRAMMAR_MOST_NODES (1 << 17) /* of all automata */
#define GRAMMAR_MOST_COUNT 1000000   /* in {m,n} */

typedef enum expr_kind { EXPR_TEXT, EXPR_RANGE, EXPR_SEQ, EXPR_ALT, EXPR_REPEAT, EXPR_RULE } expr_kind;

typedef struct expr expr;
struct expr {
    expr_kind    kind;
    uint8_t      lo, hi; /* RANGE: one byte */
    int          depth;  /* of expressions below, with this one */
    const char  *text;   /* TEXT: n bytes; none is the empty text */
    const expr **items;  /* SEQ, ALT: n; an ALT of none derives nothing. REPEAT: items[0] */
    int          n;
    int          min, max; /* REPEAT */
    int          rule;     /* RULE */
};

typedef struct grammar_rule {
    const char *name;  /* for sentences */
    const expr *body;  /* NULL until it is defined */
    bool        apart; /* never written out where it is called, so that its states are the same everywhere */
    int         block; /* part of a long repetition: nodes that it may take; 0: it is not */
} grammar_rule;

typedef struct code_range { /* code points, both included */
    uint32_t lo, hi;
} code_range;

/* A grammar under construction. The first failure stays in `*e`; constructors return NULL from then on and take NULL. */
typedef struct rules {
    arena        *memory;
    grammar_rule *rule;
    int           n, cap;
    int           exprs;
    bool          failed;
    err          *e;
} rules;

bool        rules_begin(rules *r, err *e);
void        rules_end(rules *r);
int         rules_add(rules *r, const char *name); /* the name is copied; -1 on failure */
void        rules_fail(rules *r, err_code code, const char *what);
const expr *expr_text(rules *r, const char *bytes, size_t n); /* copied */
const expr *expr_range(rules *r, int lo, int hi);
const expr *expr_seq(rules *r, const expr *const *items, int n);
const expr *expr_alt(rules *r, const expr *const *items, int n);
const expr *expr_repeat(rules *r, const expr *x, int min, int max);
const expr *expr_rule(rules *r, int rule);
const expr *expr_pair(rules *r, const expr *a, const expr *b);
const expr *expr_optional(rules *r, const expr *x);
/* One code point, in UTF-8, out of `ranges`, which need not be sorted. Surrogates are left out. */
const expr *expr_class(rules *r, const code_range *ranges, int n);
/* Sorts, joins, and (negate) complements within U+0000..U+10FFFF. `out` has room for n + 1. Returns how many. */
int         class_normal(const code_range *ranges, int n, bool negate, code_range *out);

/* ---- compiled ---- */

typedef struct byte_edge {
    uint8_t lo, hi;
    int32_t to;
} byte_edge;

typedef struct call_edge {
    int32_t rule, to;
} call_edge;

typedef struct grammar_node {
    int32_t first_byte, n_bytes; /* in bytes[], by rising byte */
    int32_t first_call, n_calls;
    int32_t need;  /* pending rules that the shortest nesting from here to the rule's end takes; INT32_MAX: no end */
    bool    final; /* the rule may end here */
    bool    last;  /* and has to: a call whose result this is needs no place on the stack */
} grammar_node;

typedef struct grammar_start {
    int32_t node;
    int32_t rank; /* a rule that another one may begin with has a larger rank than that one */
    bool    nullable;
} grammar_start;

struct grammar {
    atomic_int                   holders;
    grammar_node                *node;
    int                          n_nodes;
    byte_edge                   *bytes;
    int                          n_bytes;
    call_edge                   *calls;
    int                          n_calls;
    grammar_start               *start; /* by rule */
    int                          n_rules, root;
    uint8_t                      class_of[256]; /* bytes that no edge tells apart are one class */
    uint8_t                      byte_of[256];  /* one of each class */
    int                          n_classes;
    _Atomic(struct mask_table *) tables; /* what was worked out for a vocabulary: mask.c; freed with the grammar */
};

/* What the front ends read, before it is compiled; false: `r` has failed. */
bool gbnf_read(const char *text, size_t n, rules *r, int *root, err *e);

/* Ends `r`, whether or not it works. */
grammar *grammar_compile(rules *r, int root, err *e);

/* Nullable rules, ranks, needs; edges without an end are dropped. grammar_check.c. Names are for the sentences. */
bool grammar_check(grammar *g, const grammar_rule *names, err *e);

void mask_tables_free(struct mask_table *t); /* mask_table.c */

#endif
