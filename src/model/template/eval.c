/* Expressions: a walk over the tree, one value out of each node. */
#include <string.h>

#include "model/template/render.h"
#include "model/template/text.h"

static value lookup(render *r, int name) {
    for (const scope *s = r->scope; s; s = s->parent) {
        if (s->slots) {
            return s->slots[name];
        }
        for (int i = s->n - 1; i >= 0; i--) {
            if (s->bindings[i].name == name) {
                return s->bindings[i].bound;
            }
        }
        r->steps += (uint64_t)s->n / 16; /* a scope with thousands of names is walked at a price */
    }
    return value_undefined(NULL);
}

bool jinja_bind(render *r, int name, value v) {
    scope *s = r->scope;
    if (s->slots) {
        s->slots[name] = v;
        return true;
    }
    for (int i = 0; i < s->n; i++) {
        if (s->bindings[i].name == name) {
            s->bindings[i].bound = v;
            return jinja_spend(r, (size_t)s->n);
        }
    }
    if (s->n == s->cap) {
        int      cap = s->cap ? 2 * s->cap : 8;
        binding *grown = jinja_alloc(r, (size_t)cap, sizeof(*grown));
        if (!grown) {
            return false;
        }
        if (s->n) {
            memcpy(grown, s->bindings, (size_t)s->n * sizeof(*grown));
        }
        s->bindings = grown;
        s->cap = cap;
    }
    s->bindings[s->n++] = (binding){.name = name, .bound = v};
    return jinja_spend(r, (size_t)s->n);
}

static bool eval_list(render *r, const node *n, value *out) {
    list *l = jinja_list(r, (size_t)n->n);
    for (int i = 0; l && i < n->n; i++) {
        if (!jinja_eval(r, n->items[i], &l->items[i])) {
            return false;
        }
    }
    if (l) {
        *out = value_list(n->kind == N_LIST ? V_LIST : V_TUPLE, l);
    }
    return l != NULL;
}

static bool eval_dict(render *r, const node *n, value *out) {
    dict *d = jinja_dict(r, (size_t)n->n / 2);
    for (int i = 0; d && i < n->n; i += 2) {
        value key = {0};
        value item = {0};
        if (!jinja_eval(r, n->items[i], &key) || !jinja_eval(r, n->items[i + 1], &item) ||
            !jinja_dict_put(r, d, key, item)) {
            return false;
        }
    }
    if (d) {
        *out = value_dict(V_DICT, d);
    }
    return d != NULL;
}

static bool eval_slice(render *r, const node *n, value *out) {
    value of = {0};
    value bounds[3];
    if (!jinja_eval(r, n->a, &of)) {
        return false;
    }
    for (int i = 0; i < 3; i++) {
        bounds[i] = value_none();
        if (n->items[i] && !jinja_eval(r, n->items[i], &bounds[i])) {
            return false;
        }
    }
    r->line = n->line;
    return jinja_slice(r, of, bounds, out);
}

static bool eval_filter(render *r, const node *n, value *out) {
    value self = {0};
    args  a;
    if (!jinja_eval(r, n->a, &self) || !jinja_eval_args(r, n->args, &a)) {
        return false;
    }
    r->line = n->line;
    if (!n->builtin) {
        const text *name = n->constant.as.string;
        return jinja_fail(r, ERR_UNSUPPORTED, "there is no filter '%.*s'", name->n > 60 ? 60 : (int)name->n,
                          name->bytes);
    }
    return jinja_spend(r, 0) && n->builtin->run(r, self, &a, out);
}

static bool eval_test(render *r, const node *n, value *out) {
    value self = {0};
    args  a;
    if (!jinja_eval(r, n->a, &self) || !jinja_eval_args(r, n->args, &a)) {
        return false;
    }
    r->line = n->line;
    if (!n->builtin) {
        const text *name = n->constant.as.string;
        return jinja_fail(r, ERR_UNSUPPORTED, "there is no test '%.*s'", name->n > 60 ? 60 : (int)name->n, name->bytes);
    }
    return jinja_spend(r, 0) && n->builtin->run(r, self, &a, out);
}

/* A method is called without the detour of a value that stands for it. */
static bool eval_call(render *r, const node *n, value *out) {
    value          callee = {0};
    args           a;
    const builtin *method = NULL;
    if (n->a->kind == N_ATTR) {
        value self = {0};
        if (!jinja_eval(r, n->a->a, &self)) {
            return false;
        }
        r->line = n->a->line;
        method = self.kind == V_STRING ? n->a->builtin : jinja_method(self, n->a->constant.as.string);
        if (method) {
            callee = self;
        } else if (!jinja_attribute(r, self, n->a->constant.as.string, &callee)) {
            return false;
        }
    } else if (!jinja_eval(r, n->a, &callee)) {
        return false;
    }
    if (!jinja_eval_args(r, n->args, &a)) {
        return false;
    }
    r->line = n->line;
    return method ? jinja_spend(r, 0) && method->run(r, callee, &a, out) : jinja_call(r, callee, &a, out);
}

/* `and`, `or`: the operand that decides, itself. */
static bool eval_logic(render *r, const node *n, value *out) {
    for (int i = 0; i < n->n; i++) {
        if (!jinja_eval(r, n->items[i], out)) {
            return false;
        }
        if (jinja_truth(*out) == (n->kind == N_OR)) {
            break;
        }
    }
    return true;
}

static bool eval_compare(render *r, const node *n, value *out) {
    value left = {0};
    if (!jinja_eval(r, n->a, &left)) {
        return false;
    }
    for (int i = 0; i < n->n; i++) { /* a < b < c is a < b and b < c */
        value right = {0};
        if (!jinja_eval(r, n->items[i]->a, &right)) {
            return false;
        }
        r->line = n->items[i]->line;
        if (!jinja_binary(r, (operator_kind)n->items[i]->op, left, right, out)) {
            return false;
        }
        if (!jinja_truth(*out)) {
            break;
        }
        left = right;
    }
    return true;
}

/* Long sums of strings are how templates write a message: the pieces are copied once, not once per plus. */
static bool add_run(render *r, value *v, int n, int *used) {
    size_t total = 0;
    int    k = 0;
    while (k < n && v[k].kind == V_STRING && !v[k].as.string->markup) {
        total += v[k++].as.string->n; /* at most n strings that exist: no overflow before memory ends */
        if (total > TEMPLATE_MAX_MEMORY) {
            return jinja_fail(r, ERR_LIMIT, "needs more than %zu MiB of memory", TEMPLATE_MAX_MEMORY >> 20);
        }
    }
    *used = k;
    if (k < 2) {
        *used = 1;
        return true;
    }
    char *bytes = jinja_alloc(r, total, 1);
    if (!bytes || !jinja_spend(r, total)) {
        return false;
    }
    size_t at = 0;
    for (int i = 0; i < k; i++) {
        if (v[i].as.string->n) {
            memcpy(bytes + at, v[i].as.string->bytes, v[i].as.string->n);
        }
        at += v[i].as.string->n;
    }
    return jinja_text_share(r, bytes, total, false, &v[0]);
}

static bool eval_operands(render *r, const node *n, value *operands) {
    for (int i = 0; i < n->n; i++) {
        if (!jinja_eval(r, n->items[i], &operands[i])) {
            return false;
        }
    }
    r->line = n->line;
    return true;
}

static bool eval_add(render *r, const node *n, value *out) {
    value  few[8];
    value *v = n->n <= 8 ? few : jinja_alloc(r, (size_t)n->n, sizeof(value));
    int    used = 0;
    if (!v || !eval_operands(r, n, v) || !add_run(r, v, n->n, &used)) {
        return false;
    }
    value sum = v[0];
    for (int i = used; i < n->n; i++) {
        if (!jinja_add(r, sum, v[i], &sum)) {
            return false;
        }
    }
    *out = sum;
    return true;
}

static bool eval_concat(render *r, const node *n, value *out) {
    size_t mark = r->out->len;
    value  few[8];
    value *v = n->n <= 8 ? few : jinja_alloc(r, (size_t)n->n, sizeof(value));
    if (!v || !eval_operands(r, n, v)) {
        return false;
    }
    for (int i = 0; i < n->n; i++) {
        if (!jinja_print(r, v[i])) {
            return false;
        }
    }
    return jinja_take(r, mark, out);
}

static bool eval_sign(render *r, const node *n, value *out) {
    value v = {0};
    if (!jinja_eval(r, n->a, &v)) {
        return false;
    }
    r->line = n->line;
    if (v.kind == V_FLOAT) {
        *out = value_float(n->kind == N_NEG ? -v.as.number : v.as.number);
        return true;
    }
    return n->kind == N_NEG ? jinja_binary(r, OP_SUB, value_int(0), v, out)
                            : jinja_binary(r, OP_SUB, v, value_int(0), out);
}

static bool eval_binary(render *r, const node *n, value *out) {
    value a = {0};
    value b = {0};
    if (!jinja_eval(r, n->a, &a) || !jinja_eval(r, n->b, &b)) {
        return false;
    }
    r->line = n->line;
    return jinja_binary(r, (operator_kind)n->op, a, b, out);
}

static bool eval_part(render *r, const node *n, value *out) {
    value of = {0};
    value key = {0};
    if (!jinja_eval(r, n->a, &of)) {
        return false;
    }
    if (n->kind == N_ATTR) {
        r->line = n->line;
        return jinja_attribute(r, of, n->constant.as.string, out);
    }
    if (!jinja_eval(r, n->b, &key)) {
        return false;
    }
    r->line = n->line;
    return jinja_item(r, of, key, out);
}

static bool eval_condition(render *r, const node *n, value *out) {
    value condition = {0};
    if (!jinja_eval(r, n->a, &condition)) {
        return false;
    }
    if (jinja_truth(condition)) {
        return jinja_eval(r, n->b, out);
    }
    *out = value_undefined(NULL);
    return !n->c || jinja_eval(r, n->c, out);
}

static bool evaluate(render *r, const node *n, value *out) {
    switch (n->kind) {
    case N_LIST:
    case N_TUPLE:
        return eval_list(r, n, out);
    case N_DICT:
        return eval_dict(r, n, out);
    case N_ATTR:
    case N_INDEX:
        return eval_part(r, n, out);
    case N_SLICE:
        return eval_slice(r, n, out);
    case N_CALL:
        return eval_call(r, n, out);
    case N_FILTER:
        return eval_filter(r, n, out);
    case N_TEST:
        return eval_test(r, n, out);
    case N_NOT:
        if (!jinja_eval(r, n->a, out)) {
            return false;
        }
        *out = value_bool(!jinja_truth(*out));
        return true;
    case N_NEG:
    case N_POS:
        return eval_sign(r, n, out);
    case N_AND:
    case N_OR:
        return eval_logic(r, n, out);
    case N_COND:
        return eval_condition(r, n, out);
    case N_COMPARE:
        return eval_compare(r, n, out);
    case N_ADD:
        return eval_add(r, n, out);
    case N_CONCAT:
        return eval_concat(r, n, out);
    case N_BINARY:
        return eval_binary(r, n, out);
    default:
        return jinja_fail(r, ERR_INTERNAL, "no value has node kind %d", n->kind);
    }
}

bool jinja_eval(render *r, const node *n, value *out) {
    if (!jinja_spend(r, 0)) {
        return false;
    }
    if (n->kind == N_CONST) {
        *out = n->constant;
        return true;
    }
    if (n->kind == N_NAME) {
        *out = lookup(r, n->name);
        return true;
    }
    r->line = n->line;
    if (r->depth >= TEMPLATE_MAX_DEPTH) {
        return jinja_fail(r, ERR_LIMIT, "evaluation nests deeper than %d levels (an endless recursion?)",
                          TEMPLATE_MAX_DEPTH);
    }
    r->depth++;
    bool ok = evaluate(r, n, out);
    r->depth--;
    return ok;
}
