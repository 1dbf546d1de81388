/* ast.h - a template after parsing: a tree in one arena, never changed afterwards. */
#ifndef PARE_MODEL_TEMPLATE_AST_H
#define PARE_MODEL_TEMPLATE_AST_H

#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"
#include "model/template/value.h"

typedef enum operator_kind {
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN
} operator_kind;

typedef enum node_kind {
    /* expressions */
    N_CONST,   /* constant */
    N_NAME,    /* name */
    N_LIST,    /* items */
    N_TUPLE,   /* items */
    N_DICT,    /* items: key, value, key, value ... */
    N_ATTR,    /* a . constant */
    N_INDEX,   /* a [ b ] */
    N_SLICE,   /* a [ items[0] : items[1] : items[2] ], each may be NULL */
    N_CALL,    /* a ( args ) */
    N_FILTER,  /* a | builtin ( args ); constant is its name */
    N_TEST,    /* a is builtin ( args ); constant is its name */
    N_NOT,     /* a */
    N_NEG,     /* a */
    N_POS,     /* a */
    N_AND,     /* items */
    N_OR,      /* items */
    N_COND,    /* a if b else c; c may be NULL */
    N_COMPARE, /* a, then pairs: items[i]->op with items[i]->a */
    N_OPERAND, /* op, a */
    N_ADD,     /* items, added from the left */
    N_CONCAT,  /* items */
    N_BINARY,  /* a op b */
    /* targets of assignment, beside N_NAME and N_TUPLE */
    N_NS_ATTR, /* name . constant */
    /* statements */
    N_BODY,         /* items */
    N_DATA,         /* constant */
    N_OUTPUT,       /* a */
    N_IF,           /* items: condition, body, condition, body ...; c: the else body or NULL */
    N_FOR,          /* for a in b if items[0]: c; items[1] is the else body; both may be NULL */
    N_BREAK,        /* leaves the loop */
    N_CONTINUE,     /* goes on with the next item */
    N_SET,          /* a = b */
    N_SET_BLOCK,    /* a = c, through the filters b (an N_FILTER chain with NULL at its end) or NULL */
    N_FILTER_BLOCK, /* c through the filters b */
    N_MACRO,        /* name, items: the parameters (N_PARAM); c */
    N_PARAM,        /* name; a is the default or NULL; constant is its name */
    N_CALL_BLOCK,   /* a: the call; b: an N_MACRO, what caller() runs */
    N_WITH          /* items: target, value, target, value ...; c */
} node_kind;

typedef struct node node;

typedef struct call_args {
    node       **values;
    int          n;
    const text **names;
    node       **named;
    int          n_named;
    node        *rest;       /* *rest, or NULL */
    node        *rest_named; /* **rest_named, or NULL */
} call_args;

struct node {
    uint8_t        kind;
    uint8_t        op;
    bool           varargs; /* N_MACRO: its body asks for the arguments beyond the parameters */
    bool           kwargs;
    bool           recursive; /* N_FOR: loop(items) runs its body again */
    int            line;
    int            name;
    int            n;
    value          constant;
    node          *a, *b, *c;
    node         **items;
    call_args     *args;
    const builtin *builtin;
};

typedef struct ast {
    arena          *memory;
    node           *body;
    text          **names;   /* by number */
    const builtin **globals; /* the global function of each name, or NULL */
    int             n_names;
    map            *numbers; /* name to number */
    int             loop;    /* numbers of names that statements bind */
    int             caller;
    int             varargs;
    int             kwargs;
} ast;

#define TEMPLATE_MAX_SOURCE ((size_t)1 << 20)
#define TEMPLATE_MAX_SYNTAX 120 /* how deep expressions and statements nest */

/* parse.c; the bytes of `source` (newlines as jinja_normalise leaves them) stay in use while the tree lives. */
bool jinja_parse(ast *tree, const char *source, size_t n, err *e);
void jinja_ast_free(ast *tree);

#endif
