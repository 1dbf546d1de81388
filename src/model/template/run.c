/* Statements: they write, bind names and decide what runs next. */
#include <string.h>

#include "model/template/render.h"

static run_result run_statement(render *r, const node *n);

static bool assign(render *r, const node *target, value v) {
    if (target->kind == N_NAME) {
        return jinja_bind(r, target->name, v);
    }
    r->line = target->line;
    if (target->kind == N_NS_ATTR) {
        const node name = {.kind = N_NAME, .name = target->name, .line = target->line};
        value      space = {0};
        if (!jinja_eval(r, &name, &space)) {
            return false;
        }
        if (space.kind != V_NAMESPACE) {
            return jinja_fail(r, ERR_INVALID, "only a namespace takes assignments to its attributes, not a %s",
                              jinja_type_name(space));
        }
        return jinja_dict_put(r, space.as.dict, target->constant, v);
    }
    list items;
    if (!jinja_iterate(r, v, &items)) {
        return false;
    }
    if (items.n != (size_t)target->n) {
        return jinja_fail(r, ERR_INVALID, "%zu values do not unpack into %d names", items.n, target->n);
    }
    for (int i = 0; i < target->n; i++) {
        if (!assign(r, target->items[i], items.items[i])) {
            return false;
        }
    }
    return true;
}

/* A scope inside the present one. It lives in the arena, since a macro defined in it may outlive the block. */
static scope *enter(render *r) {
    scope *inner = jinja_alloc(r, 1, sizeof(*inner));
    if (inner) {
        *inner = (scope){.parent = r->scope};
        r->scope = inner;
    }
    return inner;
}

static void leave(render *r, scope *inner) {
    r->scope = inner->parent;
}

/* Runs a body in a scope of its own. */
static run_result run_inside(render *r, const node *body) {
    scope *inner = enter(r);
    if (!inner) {
        return RUN_FAILED;
    }
    run_result result = jinja_run(r, body);
    leave(r, inner);
    return result;
}

/* The body's output as a string instead of in the output. */
static run_result capture(render *r, const node *body, value *out) {
    size_t     mark = r->out->len;
    run_result result = run_inside(r, body);
    return result != RUN_FAILED && !jinja_take(r, mark, out) ? RUN_FAILED : result;
}

/* The filters of {% filter a | b %}: a chain of N_FILTER that ends in NULL, applied from its end. */
static bool apply_filters(render *r, const node *chain, value *v) {
    int depth = 0;
    for (const node *f = chain; f; f = f->a) {
        depth++;
    }
    for (; depth > 0; depth--) {
        const node *f = chain;
        for (int i = 1; i < depth; i++) {
            f = f->a;
        }
        args a;
        if (!jinja_spend(r, (size_t)depth) || !jinja_eval_args(r, f->args, &a)) {
            return false;
        }
        r->line = f->line;
        if (!f->builtin) {
            return jinja_fail(r, ERR_UNSUPPORTED, "there is no filter '%.*s'",
                              f->constant.as.string->n > 60 ? 60 : (int)f->constant.as.string->n,
                              f->constant.as.string->bytes);
        }
        if (!f->builtin->run(r, *v, &a, v)) {
            return false;
        }
    }
    return true;
}

static run_result run_if(render *r, const node *n) {
    for (int i = 0; i < n->n; i += 2) {
        value condition = {0};
        if (!jinja_eval(r, n->items[i], &condition)) {
            return RUN_FAILED;
        }
        if (jinja_truth(condition)) {
            return jinja_run(r, n->items[i + 1]);
        }
    }
    return n->c ? jinja_run(r, n->c) : RUN_DONE;
}

/* `for x in items if condition`: the loop counts only what passes. */
static bool keep_matching(render *r, const node *n, list *items) {
    list  *kept = jinja_list(r, items->n);
    scope *inner = kept ? enter(r) : NULL;
    bool   ok = inner != NULL;
    size_t w = 0;
    for (size_t i = 0; ok && i < items->n; i++) {
        value condition = {0};
        inner->n = 0;
        ok = assign(r, n->a, items->items[i]) && jinja_eval(r, n->items[0], &condition);
        if (ok && jinja_truth(condition)) {
            kept->items[w++] = items->items[i];
        }
    }
    if (inner) {
        leave(r, inner);
    }
    if (ok) {
        *items = *kept;
        items->n = w;
    }
    return ok;
}

static run_result run_items(render *r, const node *n, loop_state *loop) {
    scope      *inner = enter(r);
    run_result  result = inner ? RUN_DONE : RUN_FAILED;
    const value self = {.kind = V_LOOP, .as.loop = loop};
    for (; result == RUN_DONE && loop->at < loop->items.n; loop->at++) {
        inner->n = 0; /* what an iteration sets is gone in the next */
        if (!assign(r, n->a, loop->items.items[loop->at]) || !jinja_bind(r, r->tree->loop, self)) {
            result = RUN_FAILED;
            break;
        }
        result = jinja_run(r, n->c);
        if (result == RUN_CONTINUE) {
            result = RUN_DONE;
        }
    }
    if (inner) {
        leave(r, inner);
    }
    return result == RUN_BREAK ? RUN_DONE : result;
}

static run_result run_loop(render *r, const node *n, value over, int depth) {
    loop_state *loop = jinja_alloc(r, 1, sizeof(*loop));
    if (!loop) {
        return RUN_FAILED;
    }
    *loop = (loop_state){.node = n, .scope = r->scope, .depth = depth};
    r->line = n->line;
    if (!jinja_iterate(r, over, &loop->items) || (n->items[0] && !keep_matching(r, n, &loop->items))) {
        return RUN_FAILED;
    }
    if (loop->items.n == 0) {
        return n->items[1] ? run_inside(r, n->items[1]) : RUN_DONE;
    }
    return run_items(r, n, loop);
}

static run_result run_for(render *r, const node *n) {
    value over = {0};
    return jinja_eval(r, n->b, &over) ? run_loop(r, n, over, 1) : RUN_FAILED;
}

bool jinja_call_loop(render *r, const loop_state *loop, value items, value *out) {
    if (!loop->node->recursive) {
        return jinja_fail(r, ERR_INVALID, "this loop is not marked as recursive");
    }
    scope *outer = r->scope;
    size_t mark = r->out->len;
    r->scope = loop->scope;
    bool ok = run_loop(r, loop->node, items, loop->depth + 1) == RUN_DONE && jinja_take(r, mark, out);
    r->scope = outer;
    return ok;
}

static bool define_macro(render *r, const node *n, value *out) {
    macro *m = jinja_alloc(r, 1, sizeof(*m));
    if (!m) {
        return false;
    }
    *m = (macro){.node = n, .scope = r->scope};
    *out = (value){.kind = V_MACRO, .as.macro = m};
    return true;
}

/* {% call(x) list(items) %}: the macro gets the body as `caller`. */
static bool run_call(render *r, const node *n) {
    value caller = {0};
    value callee = {0};
    value result = {0};
    args  a;
    if (!define_macro(r, n->b, &caller) || !jinja_eval(r, n->a->a, &callee) || !jinja_eval_args(r, n->a->args, &a)) {
        return false;
    }
    static const text name = {.bytes = "caller", .n = 6, .chars = 6};
    size_t            named = (size_t)a.n_named + 1;
    value            *values = jinja_alloc(r, named, sizeof(value));
    const text      **names = jinja_alloc(r, named, sizeof(*names));
    if (!values || !names) {
        return false;
    }
    for (size_t i = 0; i + 1 < named; i++) {
        values[i] = a.named[i];
        names[i] = a.names[i];
    }
    values[named - 1] = caller;
    names[named - 1] = &name;
    a.named = values;
    a.names = names;
    a.n_named = (int)named;
    r->line = n->line;
    return jinja_call(r, callee, &a, &result) && jinja_print(r, result);
}

static run_result run_with(render *r, const node *n) {
    value *values = jinja_alloc(r, (size_t)n->n / 2, sizeof(value));
    if (!values) {
        return RUN_FAILED;
    }
    for (int i = 0; i < n->n; i += 2) { /* all of them before the first is bound */
        if (!jinja_eval(r, n->items[i + 1], &values[i / 2])) {
            return RUN_FAILED;
        }
    }
    scope     *inner = enter(r);
    run_result result = inner ? RUN_DONE : RUN_FAILED;
    for (int i = 0; result == RUN_DONE && i < n->n; i += 2) {
        result = assign(r, n->items[i], values[i / 2]) ? RUN_DONE : RUN_FAILED;
    }
    if (result == RUN_DONE) {
        result = jinja_run(r, n->c);
    }
    if (inner) {
        leave(r, inner);
    }
    return result;
}

/* {{ a + b + c }}: strings go out one by one, without their sum being built. */
static bool output_sum(render *r, const node *n) {
    value few[8] = {0};
    for (int i = 0; i < n->n; i++) {
        if (!jinja_eval(r, n->items[i], &few[i])) {
            return false;
        }
    }
    r->line = n->line;
    int strings = 0;
    while (strings < n->n && few[strings].kind == V_STRING && !few[strings].as.string->markup) {
        strings++;
    }
    if (strings == n->n) {
        for (int i = 0; i < n->n; i++) {
            if (!jinja_print(r, few[i])) {
                return false;
            }
        }
        return true;
    }
    for (int i = 1; i < n->n; i++) {
        if (!jinja_add(r, few[0], few[i], &few[0])) {
            return false;
        }
    }
    return jinja_print(r, few[0]);
}

static bool output(render *r, const node *n) {
    value v = {0};
    if (n->kind == N_ADD && n->n <= 8) {
        return output_sum(r, n);
    }
    return jinja_eval(r, n, &v) && jinja_print(r, v);
}

static run_result run_set_block(render *r, const node *n) {
    value      v = {0};
    run_result result = capture(r, n->c, &v);
    if (result != RUN_DONE) {
        return result;
    }
    return apply_filters(r, n->b, &v) && assign(r, n->a, v) ? RUN_DONE : RUN_FAILED;
}

static run_result run_filter_block(render *r, const node *n) {
    value      v = {0};
    run_result result = capture(r, n->c, &v);
    if (result == RUN_FAILED) {
        return result;
    }
    return apply_filters(r, n->b, &v) && jinja_print(r, v) ? result : RUN_FAILED;
}

static run_result run_statement(render *r, const node *n) {
    value v = {0};
    bool  ok = true;
    switch (n->kind) {
    case N_DATA:
        ok = jinja_emit(r, n->constant.as.string->bytes, n->constant.as.string->n);
        break;
    case N_OUTPUT:
        ok = output(r, n->a);
        break;
    case N_IF:
        return run_if(r, n);
    case N_FOR:
        return run_for(r, n);
    case N_BREAK:
        return RUN_BREAK;
    case N_CONTINUE:
        return RUN_CONTINUE;
    case N_SET:
        ok = jinja_eval(r, n->b, &v) && assign(r, n->a, v);
        break;
    case N_SET_BLOCK:
        return run_set_block(r, n);
    case N_FILTER_BLOCK:
        return run_filter_block(r, n);
    case N_MACRO:
        ok = define_macro(r, n, &v) && jinja_bind(r, n->name, v);
        break;
    case N_CALL_BLOCK:
        ok = run_call(r, n);
        break;
    case N_WITH:
        return run_with(r, n);
    default:
        ok = jinja_fail(r, ERR_INTERNAL, "no statement has node kind %d", n->kind);
    }
    return ok ? RUN_DONE : RUN_FAILED;
}

run_result jinja_run(render *r, const node *body) {
    if (r->depth >= TEMPLATE_MAX_DEPTH) {
        jinja_fail(r, ERR_LIMIT, "evaluation nests deeper than %d levels (an endless recursion?)", TEMPLATE_MAX_DEPTH);
        return RUN_FAILED;
    }
    r->depth++;
    run_result result = RUN_DONE;
    for (int i = 0; i < body->n && result == RUN_DONE; i++) {
        const node *n = body->items[i];
        r->line = n->line;
        result = jinja_spend(r, 0) ? run_statement(r, n) : RUN_FAILED;
    }
    r->depth--;
    return result;
}
