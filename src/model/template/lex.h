/* lex.h - a template's text in tokens, with whitespace control done: trim_blocks and lstrip_blocks are on.
 *
 * Source: the rules of jinja2's lexer, https://jinja.palletsprojects.com/en/3.1.x/templates/#whitespace-control      */
#ifndef PARE_MODEL_TEMPLATE_LEX_H
#define PARE_MODEL_TEMPLATE_LEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum token_kind {
    T_EOF,
    T_DATA,
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_INTEGER,
    T_FLOAT,
    T_STRING, /* with its quotes */
    T_OPERATOR
} token_kind;

typedef struct token {
    uint8_t     kind;
    char        op[3]; /* "+", "//" ...; of T_OPERATOR */
    int         line;
    const char *at;
    size_t      n;
} token;

/* Line ends become \n and one at the very end goes. Writes at most n bytes; returns how many. */
size_t jinja_normalise(const char *source, size_t n, char *out);

/* The caller frees *tokens, which end with T_EOF and point into source. */
bool jinja_lex(const char *source, size_t n, token **tokens, err *e);

#endif
