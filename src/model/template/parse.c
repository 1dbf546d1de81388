#include "model/template/parse.h"

#include <stdlib.h>
#include <string.h>

#include "model/template/render.h"
#include "model/template/text.h"

static node *body(parser *p, const char *const *ends);

/* ---- what both halves use ---- */

static void *out_of_memory(parser *p) {
    err_set(p->e, ERR_MEMORY, "out of memory while reading the chat template");
    return NULL;
}

node *parse_node(parser *p, node_kind kind) {
    node *n = arena_zero(p->tree->memory, 1, sizeof(*n));
    if (!n) {
        return out_of_memory(p);
    }
    n->kind = (uint8_t)kind;
    n->line = p->at->line;
    return n;
}

bool parse_append(parser *p, node_list *list, node *item) {
    if (!item) {
        return false;
    }
    if (list->n == list->cap) {
        int    cap = list->cap ? 2 * list->cap : 4;
        node **grown = arena_zero(p->tree->memory, (size_t)cap, sizeof(*grown));
        if (!grown) {
            out_of_memory(p);
            return false;
        }
        if (list->n) {
            memcpy(grown, list->items, (size_t)list->n * sizeof(*grown));
        }
        list->items = grown;
        list->cap = cap;
    }
    list->items[list->n++] = item;
    return true;
}

text *parse_text(parser *p, const char *bytes, size_t n) {
    text *t = arena_alloc(p->tree->memory, sizeof(*t));
    char *copy = t ? arena_memdup(p->tree->memory, bytes, n) : NULL;
    if (!copy) {
        return out_of_memory(p);
    }
    *t = (text){.bytes = copy, .n = n, .chars = -1};
    t->chars = jinja_chars(t);
    return t;
}

int parse_number_of(parser *p, const char *name, size_t n) {
    ast    *tree = p->tree;
    int64_t known;
    if (map_get(tree->numbers, name, n, &known)) {
        return (int)known;
    }
    int at = tree->n_names;
    if ((at & (at - 1)) == 0) { /* full at every power of two */
        size_t          cap = at ? 2 * (size_t)at : 1;
        text          **names = arena_zero(tree->memory, cap, sizeof(*names));
        const builtin **globals = arena_zero(tree->memory, cap, sizeof(*globals));
        if (!names || !globals) {
            out_of_memory(p);
            return -1;
        }
        if (at) {
            memcpy(names, tree->names, (size_t)at * sizeof(*names));
            memcpy(globals, tree->globals, (size_t)at * sizeof(*globals));
        }
        tree->names = names;
        tree->globals = globals;
    }
    tree->names[at] = parse_text(p, name, n);
    tree->globals[at] = jinja_global(name, n);
    if (!tree->names[at] || !map_put(tree->numbers, name, n, at)) {
        out_of_memory(p);
        return -1;
    }
    return tree->n_names++;
}

bool parse_is_op(const parser *p, const char *op) {
    return p->at->kind == T_OPERATOR && strcmp(p->at->op, op) == 0;
}

bool parse_is_name(const parser *p, const char *name) {
    return p->at->kind == T_NAME && strlen(name) == p->at->n && memcmp(p->at->at, name, p->at->n) == 0;
}

bool parse_skip_op(parser *p, const char *op) {
    bool there = parse_is_op(p, op);
    p->at += there;
    return there;
}

bool parse_skip_name(parser *p, const char *name) {
    bool there = parse_is_name(p, name);
    p->at += there;
    return there;
}

node *parse_wrong(parser *p, const char *expected) {
    int n = p->at->n > 40 ? 40 : (int)p->at->n;
    if (p->at->kind == T_EOF) {
        err_set(p->e, ERR_INVALID, "chat template, line %d: expected %s, found the end of the template", p->at->line,
                expected);
    } else {
        err_set(p->e, ERR_INVALID, "chat template, line %d: expected %s, found '%.*s'", p->at->line, expected, n,
                p->at->at);
    }
    return NULL;
}

bool parse_expect_op(parser *p, const char *op) {
    if (parse_skip_op(p, op)) {
        return true;
    }
    char quoted[8] = {'\'', op[0], '\'', 0};
    parse_wrong(p, quoted);
    return false;
}

bool parse_enter(parser *p) {
    if (++p->depth > TEMPLATE_MAX_SYNTAX) {
        return err_set(p->e, ERR_LIMIT, "chat template, line %d: nested deeper than %d levels", p->at->line,
                       TEMPLATE_MAX_SYNTAX);
    }
    return true;
}

void parse_leave(parser *p) {
    p->depth--;
}

/* ---- targets of assignment ---- */

node *parse_name_target(parser *p) {
    if (p->at->kind != T_NAME) {
        return parse_wrong(p, "a name");
    }
    node *n = parse_node(p, N_NAME);
    if (!n || (n->name = parse_number_of(p, p->at->at, p->at->n)) < 0) {
        return NULL;
    }
    p->at++;
    return n;
}

static node *bindable(parser *p) {
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
        if (parse_is_name(p, constants[i])) {
            return parse_wrong(p, "a name that can be assigned to");
        }
    }
    return parse_name_target(p);
}

node *parse_target(parser *p) {
    node_list items = {0};
    bool      tuple = false;
    if (!parse_enter(p)) {
        return NULL;
    }
    do {
        if (parse_is_name(p, "in") || parse_is_op(p, "=") || parse_is_op(p, ")")) {
            break;
        }
        node *item;
        if (parse_skip_op(p, "(")) {
            item = parse_target(p);
            if (item && !parse_expect_op(p, ")")) {
                return NULL;
            }
        } else {
            item = bindable(p);
        }
        if (!parse_append(p, &items, item)) {
            return NULL;
        }
        tuple |= parse_is_op(p, ",");
    } while (parse_skip_op(p, ","));
    parse_leave(p);
    if (items.n == 0) {
        return parse_wrong(p, "a name");
    }
    if (!tuple) {
        return items.items[0];
    }
    node *n = parse_node(p, N_TUPLE);
    if (n) {
        n->items = items.items;
        n->n = items.n;
    }
    return n;
}

/* ---- statements; each is at its keyword and stops before "%}" ---- */

static bool ends_block(parser *p) {
    if (p->at->kind != T_BLOCK_END) {
        parse_wrong(p, "'%}'");
        return false;
    }
    p->at++;
    return true;
}

/* A body up to its end keyword, which is skipped. */
static node *body_until(parser *p, const char *end) {
    const char *ends[] = {end, NULL};
    node       *n = ends_block(p) ? body(p, ends) : NULL;
    if (n) {
        p->at++;
    }
    return n;
}

static node *if_statement(parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    node                    *n = parse_node(p, N_IF);
    node_list                items = {0};
    do {
        p->at++;
        if (!n || !parse_append(p, &items, parse_tuple(p, false, false)) || !ends_block(p) ||
            !parse_append(p, &items, body(p, ends))) {
            return NULL;
        }
    } while (parse_is_name(p, "elif"));
    n->items = items.items;
    n->n = items.n;
    if (parse_skip_name(p, "else")) {
        n->c = body_until(p, "endif");
        return n->c ? n : NULL;
    }
    p->at++; /* endif */
    return n;
}

static node *for_statement(parser *p) {
    static const char *const ends[] = {"else", "endfor", NULL};
    node                    *n = parse_node(p, N_FOR);
    p->at++;
    if (!n || !(n->items = arena_zero(p->tree->memory, 2, sizeof(node *)))) {
        return out_of_memory(p);
    }
    n->n = 2;
    n->a = parse_target(p);
    if (!n->a) {
        return NULL;
    }
    if (!parse_skip_name(p, "in")) {
        return parse_wrong(p, "'in'");
    }
    n->b = parse_tuple(p, false, false);
    if (!n->b || (parse_skip_name(p, "if") && !(n->items[0] = parse_expression(p)))) {
        return NULL;
    }
    n->recursive = parse_skip_name(p, "recursive");
    p->loops++;
    n->c = ends_block(p) ? body(p, ends) : NULL;
    p->loops--;
    if (!n->c) {
        return NULL;
    }
    if (parse_skip_name(p, "else")) {
        n->items[1] = body_until(p, "endfor");
        return n->items[1] ? n : NULL;
    }
    p->at++; /* endfor */
    return n;
}

static node *namespace_target(parser *p) {
    node *n = parse_node(p, N_NS_ATTR);
    if (!n || (n->name = parse_number_of(p, p->at->at, p->at->n)) < 0) {
        return NULL;
    }
    p->at += 2;
    if (p->at->kind != T_NAME) {
        return parse_wrong(p, "a name behind the dot");
    }
    text *attribute = parse_text(p, p->at->at, p->at->n);
    if (!attribute) {
        return NULL;
    }
    n->constant = value_string(attribute);
    p->at++;
    return n;
}

static node *set_statement(parser *p) {
    node *n = parse_node(p, N_SET);
    p->at++;
    bool dotted = p->at->kind == T_NAME && p->at[1].kind == T_OPERATOR && strcmp(p->at[1].op, ".") == 0;
    if (!n || !(n->a = dotted ? namespace_target(p) : parse_target(p))) {
        return NULL;
    }
    if (parse_skip_op(p, "=")) {
        n->b = parse_tuple(p, true, false);
        return n->b ? n : NULL;
    }
    n->kind = N_SET_BLOCK;
    if (parse_is_op(p, "|") && !(n->b = parse_filters(p, NULL, false))) {
        return NULL;
    }
    n->c = body_until(p, "endset");
    return n->c ? n : NULL;
}

/* "(a, b=1)" into the parameters of a macro. */
static bool signature(parser *p, node *macro) {
    node_list items = {0};
    if (!parse_expect_op(p, "(")) {
        return false;
    }
    bool defaults = false;
    while (!parse_is_op(p, ")")) {
        if (items.n && !parse_expect_op(p, ",")) {
            return false;
        }
        node *parameter = bindable(p);
        if (!parameter) {
            return false;
        }
        parameter->kind = N_PARAM;
        parameter->constant = value_string(p->tree->names[parameter->name]);
        if (parse_skip_op(p, "=")) {
            defaults = true;
            parameter->a = parse_expression(p);
            if (!parameter->a) {
                return false;
            }
        } else if (defaults) {
            parse_wrong(p, "a default, since a parameter before this one has one,");
            return false;
        }
        if (!parse_append(p, &items, parameter)) {
            return false;
        }
    }
    p->at++;
    macro->items = items.items;
    macro->n = items.n;
    return true;
}

static bool macro_body(parser *p, node *macro, const char *end) {
    node *outer = p->macro;
    int   loops = p->loops;
    p->macro = macro;
    p->loops = 0;
    macro->c = body_until(p, end);
    p->macro = outer;
    p->loops = loops;
    return macro->c != NULL;
}

static node *macro_statement(parser *p) {
    node *n = parse_node(p, N_MACRO);
    p->at++;
    if (!n || p->at->kind != T_NAME) {
        return parse_wrong(p, "the macro's name");
    }
    n->name = parse_number_of(p, p->at->at, p->at->n);
    p->at++;
    return n->name >= 0 && signature(p, n) && macro_body(p, n, "endmacro") ? n : NULL;
}

static node *call_statement(parser *p) {
    node *n = parse_node(p, N_CALL_BLOCK);
    node *caller = n ? parse_node(p, N_MACRO) : NULL;
    p->at++;
    if (!caller || (parse_is_op(p, "(") && !signature(p, caller))) {
        return NULL;
    }
    caller->name = p->tree->caller;
    n->b = caller;
    n->a = parse_expression(p);
    if (n->a && n->a->kind != N_CALL) {
        return parse_wrong(p, "the call of a macro");
    }
    return n->a && macro_body(p, caller, "endcall") ? n : NULL;
}

static node *filter_statement(parser *p) {
    node *n = parse_node(p, N_FILTER_BLOCK);
    p->at++;
    if (!n || !(n->b = parse_filters(p, NULL, true))) {
        return NULL;
    }
    n->c = body_until(p, "endfilter");
    return n->c ? n : NULL;
}

static node *with_statement(parser *p) {
    node     *n = parse_node(p, N_WITH);
    node_list items = {0};
    p->at++;
    while (n && p->at->kind != T_BLOCK_END) {
        if (items.n && !parse_expect_op(p, ",")) {
            return NULL;
        }
        if (!parse_append(p, &items, bindable(p)) || !parse_expect_op(p, "=") ||
            !parse_append(p, &items, parse_expression(p))) {
            return NULL;
        }
    }
    if (!n || !(n->c = body_until(p, "endwith"))) {
        return NULL;
    }
    n->items = items.items;
    n->n = items.n;
    return n;
}

/* {% generation %} marks what the model wrote, for training; here it is only a scope. */
static node *generation_statement(parser *p) {
    node *n = parse_node(p, N_WITH);
    p->at++;
    return n && (n->c = body_until(p, "endgeneration")) ? n : NULL;
}

static node *leave_loop(parser *p, node_kind kind) {
    if (p->loops == 0) {
        err_set(p->e, ERR_INVALID, "chat template, line %d: break and continue belong in a loop", p->at->line);
        return NULL;
    }
    node *n = parse_node(p, kind);
    p->at++;
    return n;
}

static node *break_statement(parser *p) {
    return leave_loop(p, N_BREAK);
}

static node *continue_statement(parser *p) {
    return leave_loop(p, N_CONTINUE);
}

static node *statement(parser *p) {
    static const struct {
        const char *keyword;
        node *(*parse)(parser *);
    } statements[] = {{"if", if_statement},       {"for", for_statement},
                      {"set", set_statement},     {"macro", macro_statement},
                      {"call", call_statement},   {"filter", filter_statement},
                      {"with", with_statement},   {"generation", generation_statement},
                      {"break", break_statement}, {"continue", continue_statement}};
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (parse_is_name(p, statements[i].keyword)) {
            if (!parse_enter(p)) {
                return NULL;
            }
            node *n = statements[i].parse(p);
            parse_leave(p);
            return n && ends_block(p) ? n : NULL;
        }
    }
    return parse_wrong(p, "a statement (if, for, set, macro, call, filter, with, generation, break, continue)");
}

static bool at_one_of(const parser *p, const char *const *ends) {
    for (; ends && *ends; ends++) {
        if (parse_is_name(p, *ends)) {
            return true;
        }
    }
    return false;
}

static node *data(parser *p) {
    node *n = parse_node(p, N_DATA);
    text *t = n ? parse_text(p, "", 0) : NULL;
    if (!t) {
        return NULL;
    }
    *t = (text){.bytes = p->at->at, .n = p->at->n, .chars = -1};
    t->chars = jinja_chars(t);
    n->constant = value_string(t);
    p->at++;
    return n;
}

static node *variable(parser *p) {
    node *n = parse_node(p, N_OUTPUT);
    p->at++;
    if (!n || !(n->a = parse_tuple(p, true, false))) {
        return NULL;
    }
    if (p->at->kind != T_VARIABLE_END) {
        return parse_wrong(p, "'}}'");
    }
    p->at++;
    return n;
}

/* Stops at the keyword of one of `ends` (NULL: at the end of the template). */
static node *body(parser *p, const char *const *ends) {
    node     *n = parse_node(p, N_BODY);
    node_list items = {0};
    while (n && p->at->kind != T_EOF) {
        node *item;
        if (p->at->kind == T_DATA) {
            item = data(p);
        } else if (p->at->kind == T_VARIABLE_BEGIN) {
            item = variable(p);
        } else {
            p->at++; /* "{%" */
            if (at_one_of(p, ends)) {
                n->items = items.items;
                n->n = items.n;
                return n;
            }
            item = statement(p);
        }
        if (!parse_append(p, &items, item)) {
            return NULL;
        }
    }
    if (ends && n) {
        while (ends[1]) {
            ends++;
        }
        err_set(p->e, ERR_INVALID, "chat template, line %d: this block has no {%% %s %%}", n->line, *ends);
        return NULL;
    }
    if (n) {
        n->items = items.items;
        n->n = items.n;
    }
    return n;
}

static bool number_names(parser *p) {
    ast *tree = p->tree;
    tree->loop = parse_number_of(p, "loop", 4);
    tree->caller = parse_number_of(p, "caller", 6);
    tree->varargs = parse_number_of(p, "varargs", 7);
    tree->kwargs = parse_number_of(p, "kwargs", 6);
    return tree->loop >= 0 && tree->caller >= 0 && tree->varargs >= 0 && tree->kwargs >= 0;
}

bool jinja_parse(ast *tree, const char *source, size_t n, err *e) {
    token *tokens;
    *tree = (ast){.memory = arena_new(4096), .numbers = map_new(64)};
    if (!tree->memory || !tree->numbers) {
        jinja_ast_free(tree);
        return err_set(e, ERR_MEMORY, "out of memory while reading the chat template");
    }
    if (!jinja_lex(source, n, &tokens, e)) {
        jinja_ast_free(tree);
        return false;
    }
    parser p = {.tree = tree, .at = tokens, .e = e};
    tree->body = number_names(&p) ? body(&p, NULL) : NULL;
    free(tokens);
    if (!tree->body) {
        jinja_ast_free(tree);
        return false;
    }
    return true;
}

void jinja_ast_free(ast *tree) {
    arena_free(tree->memory);
    map_free(tree->numbers);
    *tree = (ast){0};
}
