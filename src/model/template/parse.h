/* parse.h - what the two halves of the parser share: statements (parse.c) and expressions (parse_expression.c).
 *
 * Every function returns NULL or false after it has filled p->e. Source: the grammar of jinja2's parser, 3.1.        */
#ifndef PARE_MODEL_TEMPLATE_PARSE_H
#define PARE_MODEL_TEMPLATE_PARSE_H

#include "model/template/ast.h"
#include "model/template/lex.h"

typedef struct parser {
    ast         *tree;
    const token *at;
    int          depth;
    int          loops; /* how many loops of this macro we are in: break and continue want one */
    node        *macro; /* the innermost macro we are in, or NULL */
    err         *e;
} parser;

typedef struct node_list {
    node **items;
    int    n;
    int    cap;
} node_list;

node *parse_node(parser *p, node_kind kind);
bool  parse_append(parser *p, node_list *list, node *item);   /* false when item is NULL, too */
text *parse_text(parser *p, const char *bytes, size_t n);     /* copies */
int   parse_number_of(parser *p, const char *name, size_t n); /* a name's number; -1 when memory is out */

bool  parse_is_op(const parser *p, const char *op);
bool  parse_is_name(const parser *p, const char *name);
bool  parse_skip_op(parser *p, const char *op); /* true when it was there */
bool  parse_skip_name(parser *p, const char *name);
bool  parse_expect_op(parser *p, const char *op);
node *parse_wrong(parser *p, const char *expected); /* "expected X, found Y"; NULL */
bool  parse_enter(parser *p);                       /* one level deeper; false when too deep */
void  parse_leave(parser *p);

node *parse_expression(parser *p);
node *parse_tuple(parser *p, bool with_condition, bool in_parentheses); /* `a, b` or just `a` */
node *parse_target(parser *p);                                          /* names and tuples of names */
node *parse_name_target(parser *p);
node *parse_filters(parser *p, node *of, bool first_without_pipe);

#endif
