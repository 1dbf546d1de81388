#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/template/parse.h"
#include "model/template/render.h"
#include "model/template/text.h"

static node *unary(parser *p, bool with_filter);

/* ---- literals ---- */

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One escape of Python's string literals; `*i` stands behind the backslash. */
static size_t unescape(const char *s, size_t n, size_t *i, char *out) {
    static const char names[] = "nrtabfv\\'\"";
    static const char means[] = "\n\r\t\a\b\f\v\\'\"";
    char              c = s[(*i)++];
    const char       *simple = c ? strchr(names, c) : NULL;
    if (simple) {
        out[0] = means[simple - names];
        return 1;
    }
    if (c == '\n') {
        return 0;
    }
    uint32_t cp = 0;
    size_t   width = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    size_t   k = 0;
    if (width) {
        for (; k < width && *i + k < n && hex_digit(s[*i + k]) >= 0; k++) {
            cp = cp << 4 | (uint32_t)hex_digit(s[*i + k]);
        }
        if (k == width) {
            *i += k;
            return utf8_encode(cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000) ? 0xFFFD : cp, out);
        }
    } else if (c >= '0' && c <= '7') {
        cp = (uint32_t)(c - '0');
        for (; k < 2 && *i < n && s[*i] >= '0' && s[*i] <= '7'; k++) {
            cp = cp << 3 | (uint32_t)(s[(*i)++] - '0');
        }
        return utf8_encode(cp, out);
    }
    out[0] = '\\'; /* no escape: the backslash stays */
    out[1] = c;
    return 2;
}

static node *string(parser *p) {
    node  *n = parse_node(p, N_CONST);
    size_t room = 0;
    for (const token *t = p->at; t->kind == T_STRING; t++) {
        room += t->n;
    }
    char *bytes = n ? arena_alloc(p->tree->memory, room + 4) : NULL;
    if (!bytes) {
        err_set(p->e, ERR_MEMORY, "out of memory while reading the chat template");
        return NULL;
    }
    size_t w = 0;
    for (; p->at->kind == T_STRING; p->at++) { /* 'a' 'b' is 'ab' */
        const char *s = p->at->at + 1;
        size_t      len = p->at->n - 2;
        for (size_t i = 0; i < len;) {
            if (s[i] == '\\' && i + 1 < len) {
                i++;
                w += unescape(s, len, &i, bytes + w);
            } else {
                bytes[w++] = s[i++];
            }
        }
    }
    text *t = parse_text(p, "", 0);
    if (!t) {
        return NULL;
    }
    *t = (text){.bytes = bytes, .n = w, .chars = -1};
    t->chars = jinja_chars(t);
    n->constant = value_string(t);
    return n;
}

static node *number(parser *p) {
    char   digits[64];
    size_t w = 0;
    node  *n = parse_node(p, N_CONST);
    if (!n) {
        return NULL;
    }
    for (size_t i = 0; i < p->at->n; i++) {
        if (p->at->at[i] != '_') {
            if (w + 1 == sizeof(digits)) {
                return parse_wrong(p, "a shorter number");
            }
            digits[w++] = p->at->at[i];
        }
    }
    digits[w] = '\0';
    char *end = digits;
    errno = 0;
    if (p->at->kind == T_FLOAT) {
        n->constant = value_float(strtod(digits, &end));
    } else {
        int base = digits[0] != '0' || w < 3 ? 10 : (digits[1] | 32) == 'x' ? 16 : (digits[1] | 32) == 'o' ? 8 : 2;
        if (base == 2 && (digits[1] | 32) != 'b') {
            base = 10;
        }
        n->constant = value_int(strtoll(digits + (base == 10 ? 0 : 2), &end, base));
        if (errno == ERANGE) {
            return parse_wrong(p, "a number below 2^63");
        }
    }
    if (*end) {
        return parse_wrong(p, "a number");
    }
    p->at++;
    return n;
}

static node *name(parser *p) {
    static const struct {
        const char *word;
        value_kind  kind;
        bool        truth;
    } words[] = {{"true", V_BOOL, true},   {"false", V_BOOL, false}, {"True", V_BOOL, true},
                 {"False", V_BOOL, false}, {"none", V_NONE, false},  {"None", V_NONE, false}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (parse_is_name(p, words[i].word)) {
            node *n = parse_node(p, N_CONST);
            if (n) {
                n->constant = words[i].kind == V_NONE ? value_none() : value_bool(words[i].truth);
                p->at++;
            }
            return n;
        }
    }
    node *n = parse_name_target(p);
    if (n && p->macro) {
        p->macro->varargs |= n->name == p->tree->varargs;
        p->macro->kwargs |= n->name == p->tree->kwargs;
    }
    return n;
}

static node *finish(node *n, const node_list *items) {
    if (n) {
        n->items = items->items;
        n->n = items->n;
    }
    return n;
}

static node *list_literal(parser *p) {
    node     *n = parse_node(p, N_LIST);
    node_list items = {0};
    p->at++;
    while (n && !parse_is_op(p, "]")) {
        if (items.n && !parse_expect_op(p, ",")) {
            return NULL;
        }
        if (parse_is_op(p, "]")) {
            break;
        }
        if (!parse_append(p, &items, parse_expression(p))) {
            return NULL;
        }
    }
    p->at++;
    return finish(n, &items);
}

static node *dict_literal(parser *p) {
    node     *n = parse_node(p, N_DICT);
    node_list items = {0};
    p->at++;
    while (n && !parse_is_op(p, "}")) {
        if (items.n && !parse_expect_op(p, ",")) {
            return NULL;
        }
        if (parse_is_op(p, "}")) {
            break;
        }
        if (!parse_append(p, &items, parse_expression(p)) || !parse_expect_op(p, ":") ||
            !parse_append(p, &items, parse_expression(p))) {
            return NULL;
        }
    }
    p->at++;
    return finish(n, &items);
}

static node *primary(parser *p) {
    switch (p->at->kind) {
    case T_NAME:
        return name(p);
    case T_STRING:
        return string(p);
    case T_INTEGER:
    case T_FLOAT:
        return number(p);
    default:
        break;
    }
    if (parse_is_op(p, "[")) {
        return list_literal(p);
    }
    if (parse_is_op(p, "{")) {
        return dict_literal(p);
    }
    if (parse_skip_op(p, "(")) {
        node *n = parse_tuple(p, true, true);
        return n && parse_expect_op(p, ")") ? n : NULL;
    }
    return parse_wrong(p, "an expression");
}

/* ---- what follows a primary: .name [item] (arguments) | filter, is test ---- */

static node *named_argument(parser *p, const text ***names, int *n_names) {
    /* The names grow in step with the list of their values: doubled whenever that is full. */
    int n = *n_names;
    if ((n & (n - 1)) == 0) {
        const text **grown = arena_zero(p->tree->memory, n ? 2 * (size_t)n : 1, sizeof(*grown));
        if (!grown) {
            err_set(p->e, ERR_MEMORY, "out of memory while reading the chat template");
            return NULL;
        }
        if (n) {
            memcpy(grown, *names, (size_t)n * sizeof(*grown));
        }
        *names = grown;
    }
    (*names)[n] = parse_text(p, p->at->at, p->at->n);
    if (!(*names)[n]) {
        return NULL;
    }
    *n_names = n + 1;
    p->at += 2;
    return parse_expression(p);
}

static bool argument(parser *p, call_args *a, node_list *values, node_list *named) {
    if (parse_is_op(p, "**") && !a->rest_named) {
        p->at++;
        return (a->rest_named = parse_expression(p)) != NULL;
    }
    if (parse_is_op(p, "*") && !a->rest && !a->rest_named) {
        p->at++;
        return (a->rest = parse_expression(p)) != NULL;
    }
    if (p->at->kind == T_NAME && p->at[1].kind == T_OPERATOR && strcmp(p->at[1].op, "=") == 0 && !a->rest_named) {
        return parse_append(p, named, named_argument(p, &a->names, &a->n_named));
    }
    if (named->n || a->rest || a->rest_named) {
        parse_wrong(p, "arguments by place before those by name");
        return false;
    }
    return parse_append(p, values, parse_expression(p));
}

/* At "(". */
static call_args *arguments(parser *p) {
    call_args *a = arena_zero(p->tree->memory, 1, sizeof(*a));
    node_list  values = {0};
    node_list  named = {0};
    if (!a) {
        err_set(p->e, ERR_MEMORY, "out of memory while reading the chat template");
        return NULL;
    }
    p->at++;
    for (bool first = true; !parse_is_op(p, ")"); first = false) {
        if (!first && !parse_expect_op(p, ",")) {
            return NULL;
        }
        if (parse_is_op(p, ")")) {
            break;
        }
        if (!argument(p, a, &values, &named)) {
            return NULL;
        }
    }
    p->at++;
    a->values = values.items;
    a->n = values.n;
    a->named = named.items;
    return a;
}

static node *call(parser *p, node *of) {
    node *n = parse_node(p, N_CALL);
    if (!n) {
        return NULL;
    }
    n->a = of;
    n->args = arguments(p);
    return n->args ? n : NULL;
}

static node *slice(parser *p, node *of, node *first) {
    node     *n = parse_node(p, N_SLICE);
    node_list bounds = {0};
    if (!n || !parse_append(p, &bounds, n) || !parse_append(p, &bounds, n) || !parse_append(p, &bounds, n)) {
        return NULL;
    }
    n->a = of;
    n->items = bounds.items;
    n->n = 3;
    n->items[0] = first;
    n->items[1] = n->items[2] = NULL;
    p->at++; /* ":" */
    if (!parse_is_op(p, ":") && !parse_is_op(p, "]")) {
        n->items[1] = parse_expression(p);
        if (!n->items[1]) {
            return NULL;
        }
    }
    if (parse_skip_op(p, ":") && !parse_is_op(p, "]")) {
        n->items[2] = parse_expression(p);
        if (!n->items[2]) {
            return NULL;
        }
    }
    return parse_expect_op(p, "]") ? n : NULL;
}

static node *subscript(parser *p, node *of) {
    if (parse_skip_op(p, ".")) {
        if (p->at->kind == T_INTEGER) { /* a.0 is a[0] */
            node *n = parse_node(p, N_INDEX);
            if (!n) {
                return NULL;
            }
            n->a = of;
            n->b = number(p);
            return n->b ? n : NULL;
        }
        if (p->at->kind != T_NAME) {
            return parse_wrong(p, "a name or a number behind the dot");
        }
        node *n = parse_node(p, N_ATTR);
        text *attribute = n ? parse_text(p, p->at->at, p->at->n) : NULL;
        if (!attribute) {
            return NULL;
        }
        n->a = of;
        n->constant = value_string(attribute);
        n->builtin = jinja_string_method(attribute->bytes, attribute->n);
        p->at++;
        return n;
    }
    p->at++; /* "[" */
    if (parse_is_op(p, ":")) {
        return slice(p, of, NULL);
    }
    node *key = parse_tuple(p, true, false);
    if (key && parse_is_op(p, ":")) {
        return slice(p, of, key);
    }
    node *n = key && parse_expect_op(p, "]") ? parse_node(p, N_INDEX) : NULL;
    if (n) {
        n->a = of;
        n->b = key;
    }
    return n;
}

static node *postfix(parser *p, node *n) {
    while (n) {
        if (parse_is_op(p, ".") || parse_is_op(p, "[")) {
            n = subscript(p, n);
        } else if (parse_is_op(p, "(")) {
            n = call(p, n);
        } else {
            break;
        }
    }
    return n;
}

/* The name of a filter or test into n->constant, its arguments in brackets into n->args. */
static bool named(parser *p, node *n, const char *what) {
    if (p->at->kind != T_NAME) {
        parse_wrong(p, what);
        return false;
    }
    text *t = parse_text(p, p->at->at, p->at->n);
    if (!t) {
        return false;
    }
    n->constant = value_string(t);
    p->at++;
    if (parse_is_op(p, "(")) {
        n->args = arguments(p);
        return n->args != NULL;
    }
    return true;
}

node *parse_filters(parser *p, node *of, bool first_without_pipe) {
    node *n = of;
    while (first_without_pipe || parse_skip_op(p, "|")) {
        first_without_pipe = false;
        node *f = parse_node(p, N_FILTER);
        if (!f || !named(p, f, "the name of a filter")) {
            return NULL;
        }
        f->a = n;
        /* A filter that does not exist is an error when it is reached, as in jinja2 within an `if`. */
        f->builtin = jinja_filter(f->constant.as.string->bytes, f->constant.as.string->n);
        n = f;
    }
    return n;
}

static node *test(parser *p, node *of) {
    p->at++; /* "is" */
    bool  negated = parse_skip_name(p, "not");
    node *n = parse_node(p, N_TEST);
    if (!n || !named(p, n, "the name of a test")) {
        return NULL;
    }
    n->a = of;
    n->builtin = jinja_test(n->constant.as.string->bytes, n->constant.as.string->n);
    bool argument_follows = p->at->kind == T_NAME
                                ? !parse_is_name(p, "else") && !parse_is_name(p, "or") && !parse_is_name(p, "and") &&
                                      !parse_is_name(p, "is")
                                : p->at->kind == T_STRING || p->at->kind == T_INTEGER || p->at->kind == T_FLOAT ||
                                      parse_is_op(p, "[") || parse_is_op(p, "{");
    if (!n->args && argument_follows) { /* x is divisibleby 3 */
        node_list one = {0};
        n->args = arena_zero(p->tree->memory, 1, sizeof(*n->args));
        if (!n->args || !parse_append(p, &one, postfix(p, primary(p)))) {
            return NULL;
        }
        n->args->values = one.items;
        n->args->n = 1;
    }
    if (!negated) {
        return n;
    }
    node *not = parse_node(p, N_NOT);
    if (not ) {
        not ->a = n;
    }
    return not ;
}

static node *filters_and_tests(parser *p, node *n) {
    while (n) {
        if (parse_is_op(p, "|")) {
            n = parse_filters(p, n, false);
        } else if (parse_is_name(p, "is")) {
            n = test(p, n);
        } else if (parse_is_op(p, "(")) {
            n = call(p, n);
        } else {
            break;
        }
    }
    return n;
}

/* ---- operators, from the tightest to the loosest ---- */

static node *unary(parser *p, bool with_filter) {
    node *n;
    if (!parse_enter(p)) {
        return NULL;
    }
    if (parse_is_op(p, "-") || parse_is_op(p, "+")) {
        n = parse_node(p, parse_is_op(p, "-") ? N_NEG : N_POS);
        p->at++;
        if (n && !(n->a = unary(p, false))) {
            n = NULL;
        }
    } else {
        n = primary(p);
    }
    n = postfix(p, n);
    if (with_filter) {
        n = filters_and_tests(p, n);
    }
    parse_leave(p);
    return n;
}

static node *binary(parser *p, operator_kind op, node *a, node *b) {
    node *n = a && b ? parse_node(p, N_BINARY) : NULL;
    if (n) {
        n->op = (uint8_t)op;
        n->a = a;
        n->b = b;
    }
    return n;
}

static node *power(parser *p) {
    node *n = unary(p, true);
    while (n && parse_skip_op(p, "**")) {
        n = binary(p, OP_POW, n, unary(p, true));
    }
    return n;
}

static node *product(parser *p) {
    static const struct {
        const char   *op;
        operator_kind kind;
    } ops[] = {{"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}};
    node *n = power(p);
    for (bool more = true; n && more;) {
        more = false;
        for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]) && !more; i++) {
            if (parse_skip_op(p, ops[i].op)) {
                n = binary(p, ops[i].kind, n, power(p));
                more = true;
            }
        }
    }
    return n;
}

/* `first` and what follows behind each `op`, as one node of `kind`; `first` alone when none follows. A first operand
 * that is such a chain itself is taken in: evaluation is from the left anyway. */
static node *chain(parser *p, node *first, const char *op, const char *word, node_kind kind,
                   node *(*operand)(parser *)) {
    node_list items = {0};
    node     *n = NULL;
    while (first && (op ? parse_skip_op(p, op) : parse_skip_name(p, word))) {
        if (!n) {
            n = parse_node(p, kind);
            if (!n || !parse_append(p, &items, first)) {
                return NULL;
            }
        }
        if (!parse_append(p, &items, operand(p))) {
            return NULL;
        }
    }
    return n ? finish(n, &items) : first;
}

static node *concat(parser *p) {
    return chain(p, product(p), "~", NULL, N_CONCAT, product);
}

static node *sum(parser *p) {
    node *n = concat(p);
    while (n && (parse_is_op(p, "+") || parse_is_op(p, "-"))) {
        n = parse_skip_op(p, "-") ? binary(p, OP_SUB, n, concat(p)) : chain(p, n, "+", NULL, N_ADD, concat);
    }
    return n;
}

static bool comparison(parser *p, operator_kind *op) {
    static const struct {
        const char   *op;
        operator_kind kind;
    } ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT}, {"<=", OP_LE}, {">", OP_GT}, {">=", OP_GE}};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (parse_skip_op(p, ops[i].op)) {
            *op = ops[i].kind;
            return true;
        }
    }
    if (parse_skip_name(p, "in")) {
        *op = OP_IN;
        return true;
    }
    if (parse_is_name(p, "not") && p->at[1].kind == T_NAME && p->at[1].n == 2 && memcmp(p->at[1].at, "in", 2) == 0) {
        p->at += 2;
        *op = OP_NOT_IN;
        return true;
    }
    return false;
}

static node *compare(parser *p) {
    node         *first = sum(p);
    node_list     operands = {0};
    operator_kind op;
    while (first && comparison(p, &op)) {
        node *operand = parse_node(p, N_OPERAND);
        if (!operand || !(operand->a = sum(p)) || !parse_append(p, &operands, operand)) {
            return NULL;
        }
        operand->op = (uint8_t)op;
    }
    if (!first || operands.n == 0) {
        return first;
    }
    node *n = parse_node(p, N_COMPARE);
    if (n) {
        n->a = first;
    }
    return finish(n, &operands);
}

static node *not_expression(parser *p) {
    if (!parse_is_name(p, "not")) {
        return compare(p);
    }
    p->at++;
    node *n = parse_enter(p) ? parse_node(p, N_NOT) : NULL;
    if (!n || !(n->a = not_expression(p))) {
        return NULL;
    }
    parse_leave(p);
    return n;
}

static node *and_expression(parser *p) {
    return chain(p, not_expression(p), NULL, "and", N_AND, not_expression);
}

static node *or_expression(parser *p) {
    return chain(p, and_expression(p), NULL, "or", N_OR, and_expression);
}

node *parse_expression(parser *p) {
    if (!parse_enter(p)) {
        return NULL;
    }
    node *n = or_expression(p);
    while (n && parse_skip_name(p, "if")) {
        node *condition = parse_node(p, N_COND);
        if (!condition || !(condition->a = or_expression(p))) {
            return NULL;
        }
        condition->b = n;
        if (parse_skip_name(p, "else") && !(condition->c = parse_expression(p))) {
            return NULL;
        }
        n = condition;
    }
    parse_leave(p);
    return n;
}

static bool tuple_ends(const parser *p, bool in_parentheses) {
    return p->at->kind == T_VARIABLE_END || p->at->kind == T_BLOCK_END || (in_parentheses && parse_is_op(p, ")")) ||
           parse_is_op(p, "]");
}

node *parse_tuple(parser *p, bool with_condition, bool in_parentheses) {
    node_list items = {0};
    bool      tuple = false;
    while (!tuple_ends(p, in_parentheses)) {
        node *item = with_condition ? parse_expression(p) : or_expression(p);
        if (!parse_append(p, &items, item)) {
            return NULL;
        }
        if (!parse_skip_op(p, ",")) {
            break;
        }
        tuple = true;
    }
    if (!tuple && items.n == 1) {
        return items.items[0];
    }
    if (items.n == 0 && !in_parentheses) {
        return parse_wrong(p, "an expression");
    }
    return finish(parse_node(p, N_TUPLE), &items);
}
