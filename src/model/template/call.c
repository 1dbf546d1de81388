/* Calls and what stands behind a dot or in brackets. */
#include <string.h>

#include "model/template/render.h"
#include "model/template/text.h"

static bool use_of_undefined(render *r, value v) {
    const text *name = v.as.missing;
    int         n = !name ? 0 : name->n > 80 ? 80 : (int)name->n;
    if (v.unsafe) {
        return jinja_fail(r, ERR_INVALID, "'%.*s' would change a value, which the sandbox forbids", n,
                          name ? name->bytes : "");
    }
    return name ? jinja_fail(r, ERR_INVALID, "'%.*s' is undefined", n, name->bytes)
                : jinja_fail(r, ERR_INVALID, "an undefined value is used");
}

/* ---- attributes and items ---- */

static bool loop_attribute(const loop_state *loop, const text *name, value *out) {
    int64_t n = (int64_t)loop->items.n;
    int64_t at = (int64_t)loop->at;
    struct {
        const char *name;
        value       is;
    } const all[] = {{"index", value_int(at + 1)},
                     {"index0", value_int(at)},
                     {"revindex", value_int(n - at)},
                     {"revindex0", value_int(n - at - 1)},
                     {"first", value_bool(at == 0)},
                     {"last", value_bool(at == n - 1)},
                     {"length", value_int(n)},
                     {"depth", value_int(loop->depth)},
                     {"depth0", value_int(loop->depth - 1)},
                     {"previtem", at > 0 ? loop->items.items[at - 1] : value_undefined(name)},
                     {"nextitem", at + 1 < n ? loop->items.items[at + 1] : value_undefined(name)}};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (text_is(name, all[i].name, strlen(all[i].name))) {
            *out = all[i].is;
            return true;
        }
    }
    return false;
}

/* A method, or an attribute that is no item. False in *found when there is neither. */
static bool own_attribute(render *r, value of, const text *name, value *out, bool *found) {
    *found = true;
    if (of.kind == V_LOOP && loop_attribute(of.as.loop, name, out)) {
        return true;
    }
    if (of.kind == V_NAMESPACE) {
        return jinja_dict_get(r, of.as.dict, value_string((text *)name), out, found);
    }
    if (of.kind == V_MACRO && text_is(name, "name", 4)) {
        *out = value_string(r->tree->names[of.as.macro->node->name]);
        return true;
    }
    const builtin *what = jinja_method(of, name);
    if (what) {
        method *m = jinja_alloc(r, 1, sizeof(*m));
        if (!m) {
            return false;
        }
        *m = (method){.what = what, .self = of};
        *out = (value){.kind = V_METHOD, .as.method = m};
        return true;
    }
    if (jinja_forbidden(of, name)) {
        *out = value_undefined(name);
        out->unsafe = true;
        return true;
    }
    *found = false;
    return true;
}

bool jinja_attribute(render *r, value of, const text *name, value *out) {
    bool found;
    if (of.kind == V_UNDEFINED) {
        return use_of_undefined(r, of);
    }
    if (!own_attribute(r, of, name, out, &found)) {
        return false;
    }
    if (!found && of.kind == V_DICT && !jinja_dict_get(r, of.as.dict, value_string((text *)name), out, &found)) {
        return false;
    }
    if (!found) {
        *out = value_undefined(name);
    }
    return true;
}

static bool sequence_item(render *r, value of, int64_t at, value *out) {
    int64_t n;
    if (!jinja_length(r, of, &n)) {
        return false;
    }
    at += at < 0 ? n : 0;
    if (at < 0 || at >= n) {
        *out = value_undefined(NULL);
        return true;
    }
    if (of.kind != V_STRING) {
        *out = of.as.list->items[at];
        return true;
    }
    const text *t = of.as.string;
    size_t      from = jinja_offset(t, at);
    return jinja_spend(r, (uint64_t)n == t->n ? 0 : t->n) &&
           jinja_text_share(r, t->bytes + from, jinja_char(t->bytes + from, t->n - from), t->markup, out);
}

bool jinja_item(render *r, value of, value key, value *out) {
    bool found = false;
    if (of.kind == V_UNDEFINED) {
        return use_of_undefined(r, of);
    }
    bool sequence = of.kind == V_STRING || of.kind == V_LIST || of.kind == V_TUPLE || of.kind == V_RANGE;
    if (sequence && value_is_integral(key)) {
        return sequence_item(r, of, value_integer(key), out);
    }
    if (of.kind == V_DICT && key.kind != V_LIST && key.kind != V_DICT) {
        if (!jinja_dict_get(r, of.as.dict, key, out, &found)) {
            return false;
        }
    }
    if (!found && key.kind == V_STRING && !own_attribute(r, of, key.as.string, out, &found)) {
        return false;
    }
    if (!found) {
        *out = value_undefined(key.kind == V_STRING ? key.as.string : NULL);
    }
    return true;
}

/* ---- arguments ---- */

static bool expand_rest(render *r, const call_args *given, args *out) {
    list  more = {0};
    value named = value_none();
    if (given->rest) {
        value rest = {0};
        if (!jinja_eval(r, given->rest, &rest) || !jinja_iterate(r, rest, &more)) {
            return false;
        }
    }
    if (given->rest_named && !jinja_eval(r, given->rest_named, &named)) {
        return false;
    }
    if (given->rest_named && named.kind != V_DICT) {
        return jinja_fail(r, ERR_INVALID, "what follows ** must be a dict, not a %s", jinja_type_name(named));
    }
    size_t       n = (size_t)out->n + more.n;
    size_t       n_named = (size_t)out->n_named + (named.kind == V_DICT ? named.as.dict->n : 0);
    value       *values = n > 4096 || n_named > 4096 ? NULL : jinja_alloc(r, n + n_named, sizeof(value));
    const text **names = values ? jinja_alloc(r, n_named, sizeof(*names)) : NULL;
    if (!names) {
        return n > 4096 || n_named > 4096 ? jinja_fail(r, ERR_LIMIT, "a call with more than 4096 arguments") : false;
    }
    for (size_t i = 0; i < n; i++) {
        values[i] = i < (size_t)out->n ? out->values[i] : more.items[i - (size_t)out->n];
    }
    for (size_t i = 0; i < n_named; i++) {
        if (out->named && i < (size_t)out->n_named) {
            values[n + i] = out->named[i];
            names[i] = out->names[i];
            continue;
        }
        const dict_entry *entry = &named.as.dict->entries[i - (size_t)out->n_named];
        if (entry->key.kind != V_STRING) {
            return jinja_fail(r, ERR_INVALID, "the names of arguments must be strings");
        }
        values[n + i] = entry->item;
        names[i] = entry->key.as.string;
    }
    *out = (args){.values = values, .n = (int)n, .names = names, .named = values + n, .n_named = (int)n_named};
    return jinja_spend(r, n + n_named);
}

bool jinja_eval_args(render *r, const call_args *given, args *out) {
    *out = (args){0};
    if (!given) {
        return true;
    }
    size_t n = (size_t)given->n;
    out->values = n + (size_t)given->n_named ? jinja_alloc(r, n + (size_t)given->n_named, sizeof(value)) : NULL;
    if (!out->values && n + (size_t)given->n_named) {
        return false;
    }
    out->n = given->n;
    out->named = out->values ? out->values + n : NULL;
    out->names = given->names;
    out->n_named = given->n_named;
    for (int i = 0; i < given->n; i++) {
        if (!jinja_eval(r, given->values[i], &out->values[i])) {
            return false;
        }
    }
    for (int i = 0; i < given->n_named; i++) {
        if (!jinja_eval(r, given->named[i], &out->named[i])) {
            return false;
        }
    }
    return (!given->rest && !given->rest_named) || expand_rest(r, given, out);
}

bool jinja_arg(const args *a, int place, const char *name, value *out) {
    if (place >= 0 && place < a->n) {
        *out = a->values[place];
        return true;
    }
    for (int i = 0; name && i < a->n_named; i++) {
        if (text_is(a->names[i], name, strlen(name))) {
            *out = a->named[i];
            return true;
        }
    }
    return false;
}

bool jinja_arg_int(render *r, const args *a, int place, const char *name, int64_t *out) {
    value v = {0};
    if (!jinja_arg(a, place, name, &v)) {
        return true;
    }
    if (!value_is_integral(v)) {
        return jinja_fail(r, ERR_INVALID, "'%s' must be an integer, not a %s", name ? name : "the argument",
                          jinja_type_name(v));
    }
    *out = value_integer(v);
    return true;
}

bool jinja_arg_text(render *r, const args *a, int place, const char *name, const text **out) {
    value v = {0};
    if (!jinja_arg(a, place, name, &v)) {
        return true;
    }
    if (v.kind != V_STRING) {
        return jinja_fail(r, ERR_INVALID, "'%s' must be a string, not a %s", name ? name : "the argument",
                          jinja_type_name(v));
    }
    *out = v.as.string;
    return true;
}

bool jinja_arg_truth(const args *a, int place, const char *name, bool otherwise) {
    value v = {0};
    return jinja_arg(a, place, name, &v) ? jinja_truth(v) : otherwise;
}

/* ---- calls ---- */

static int text_length(const text *t) { /* for %.*s in a sentence */
    return t->n > 80 ? 80 : (int)t->n;
}

/* Arguments by name that are no parameters: kwargs takes them if the body asks for it; a caller is always welcome. */
static bool bind_other_names(render *r, const node *n, const args *a) {
    dict *kwargs = n->kwargs ? jinja_dict(r, 4) : NULL;
    if (n->kwargs && !kwargs) {
        return false;
    }
    for (int i = 0; i < a->n_named; i++) {
        const text *name = a->names[i];
        bool        parameter = false;
        for (int k = 0; k < n->n && !parameter; k++) {
            parameter = text_is(n->items[k]->constant.as.string, name->bytes, name->n);
        }
        if (parameter) {
            continue;
        }
        if (text_is(name, "caller", 6)) {
            if (!jinja_bind(r, r->tree->caller, a->named[i])) {
                return false;
            }
        } else if (!kwargs) {
            return jinja_fail(r, ERR_INVALID, "the macro '%.*s' takes no argument named '%.*s'",
                              text_length(r->tree->names[n->name]), r->tree->names[n->name]->bytes, text_length(name),
                              name->bytes);
        } else if (!jinja_dict_put(r, kwargs, value_string((text *)name), a->named[i])) {
            return false;
        }
    }
    return !kwargs || jinja_bind(r, r->tree->kwargs, value_dict(V_DICT, kwargs));
}

static bool bind_parameters(render *r, const node *n, const args *a) {
    for (int i = 0; i < n->n; i++) {
        const text *name = n->items[i]->constant.as.string;
        value       v = value_undefined(name);
        bool        given = i < a->n;
        if (given) {
            v = a->values[i];
        }
        for (int k = 0; k < a->n_named && !given; k++) {
            given = text_is(a->names[k], name->bytes, name->n);
            v = given ? a->named[k] : v;
        }
        if (!given && n->items[i]->a && !jinja_eval(r, n->items[i]->a, &v)) {
            return false;
        }
        if (!jinja_bind(r, n->items[i]->name, v)) {
            return false;
        }
    }
    if (a->n > n->n && !n->varargs) {
        return jinja_fail(r, ERR_INVALID, "the macro '%.*s' takes no more than %d arguments",
                          text_length(r->tree->names[n->name]), r->tree->names[n->name]->bytes, n->n);
    }
    if (n->varargs) {
        size_t more = a->n > n->n ? (size_t)(a->n - n->n) : 0;
        list  *rest = jinja_list(r, more);
        if (!rest) {
            return false;
        }
        for (size_t i = 0; i < more; i++) {
            rest->items[i] = a->values[(size_t)n->n + i];
        }
        if (!jinja_bind(r, r->tree->varargs, value_list(V_TUPLE, rest))) {
            return false;
        }
    }
    return bind_other_names(r, n, a);
}

bool jinja_call_macro(render *r, const macro *m, const args *a, value *out) {
    scope *outer = r->scope;
    scope *inner = jinja_alloc(r, 1, sizeof(*inner));
    if (!inner) {
        return false;
    }
    *inner = (scope){.parent = m->scope};
    size_t mark = r->out->len;
    r->scope = inner;
    bool ok = bind_parameters(r, m->node, a) && jinja_run(r, m->node->c) == RUN_DONE && jinja_take(r, mark, out);
    r->scope = outer;
    return ok;
}

bool jinja_call(render *r, value callee, const args *a, value *out) {
    switch (callee.kind) {
    case V_MACRO:
        return jinja_call_macro(r, callee.as.macro, a, out);
    case V_FUNCTION:
        return jinja_spend(r, 0) && callee.as.function->run(r, callee, a, out);
    case V_METHOD:
        return jinja_spend(r, 0) && callee.as.method->what->run(r, callee.as.method->self, a, out);
    case V_LOOP:
        return a->n == 1 ? jinja_call_loop(r, callee.as.loop, a->values[0], out)
                         : jinja_fail(r, ERR_INVALID, "loop takes what it runs over, and nothing else");
    case V_UNDEFINED:
        return use_of_undefined(r, callee);
    default:
        return jinja_fail(r, ERR_INVALID, "'%s' object is not callable", jinja_type_name(callee));
    }
}
