/* Global functions, and the methods of dicts, lists and loops. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "model/template/render.h"
#include "model/template/text.h"

const builtin *jinja_find(const builtin *table, size_t count, const char *name, size_t n) {
    for (size_t i = 0; i < count; i++) {
        /* lengths first: a name from a template may hold a NUL */
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

/* ---- global functions ---- */

static bool call_range(render *r, value self, const args *a, value *out) {
    (void)self;
    int64_t start = 0;
    int64_t stop = 0;
    int64_t step = 1;
    if (a->n < 1 || a->n > 3) {
        return jinja_fail(r, ERR_INVALID, "range takes one to three integers");
    }
    if (!jinja_arg_int(r, a, a->n == 1 ? 1 : 0, NULL, &start) || !jinja_arg_int(r, a, a->n == 1 ? 0 : 1, NULL, &stop) ||
        !jinja_arg_int(r, a, 2, NULL, &step)) {
        return false;
    }
    if (step == 0) {
        return jinja_fail(r, ERR_INVALID, "the step of a range cannot be zero");
    }
    uint64_t span = step > 0 ? (stop > start ? (uint64_t)stop - (uint64_t)start : 0)
                             : (start > stop ? (uint64_t)start - (uint64_t)stop : 0);
    uint64_t stride = step > 0 ? (uint64_t)step : -(uint64_t)step;
    uint64_t n = span / stride + (span % stride != 0);
    if (n > TEMPLATE_MAX_RANGE) {
        return jinja_fail(r, ERR_LIMIT, "a range of more than %d numbers", TEMPLATE_MAX_RANGE);
    }
    list *l = jinja_list(r, (size_t)n);
    char  label[80];
    int   size = step == 1 ? snprintf(label, sizeof(label), "range(%lld, %lld)", (long long)start, (long long)stop)
                           : snprintf(label, sizeof(label), "range(%lld, %lld, %lld)", (long long)start, (long long)stop,
                                      (long long)step);
    char *kept = l ? jinja_alloc(r, (size_t)size + 1, 1) : NULL;
    if (!kept) {
        return false;
    }
    l->label = memcpy(kept, label, (size_t)size + 1);
    for (uint64_t i = 0; i < n; i++) {
        l->items[i] = value_int((int64_t)((uint64_t)start + i * (uint64_t)step));
    }
    *out = value_list(V_RANGE, l);
    return true;
}

/* dict(mapping or pairs, name=value ...), namespace(the same) */
static bool make_dict(render *r, value_kind kind, const args *a, value *out) {
    dict *d = jinja_dict(r, (size_t)a->n_named);
    if (!d) {
        return false;
    }
    if (a->n > 0 && a->values[0].kind == V_DICT) {
        const dict *from = a->values[0].as.dict;
        for (size_t i = 0; i < from->n; i++) {
            if (!jinja_dict_put(r, d, from->entries[i].key, from->entries[i].item)) {
                return false;
            }
        }
    } else if (a->n > 0) {
        list pairs;
        if (!jinja_iterate(r, a->values[0], &pairs)) {
            return false;
        }
        for (size_t i = 0; i < pairs.n; i++) {
            list pair;
            if (!jinja_iterate(r, pairs.items[i], &pair)) {
                return false;
            }
            if (pair.n != 2) {
                return jinja_fail(r, ERR_INVALID, "a dict is made from pairs, not from %zu values", pair.n);
            }
            if (!jinja_dict_put(r, d, pair.items[0], pair.items[1])) {
                return false;
            }
        }
    }
    for (int i = 0; i < a->n_named; i++) {
        if (!jinja_dict_put(r, d, value_string((text *)a->names[i]), a->named[i])) {
            return false;
        }
    }
    *out = value_dict(kind, d);
    return true;
}

static bool call_dict(render *r, value self, const args *a, value *out) {
    (void)self;
    return make_dict(r, V_DICT, a, out);
}

static bool call_namespace(render *r, value self, const args *a, value *out) {
    (void)self;
    return make_dict(r, V_NAMESPACE, a, out);
}

static bool call_raise_exception(render *r, value self, const args *a, value *out) {
    (void)self;
    size_t mark = r->out->len;
    value  message = value_none();
    jinja_arg(a, 0, "message", &message);
    if (!jinja_print(r, message) || !jinja_take(r, mark, out)) {
        return false;
    }
    const text *t = out->as.string;
    return err_set(r->e, ERR_INVALID, "%.*s", t->n > 4096 ? 4096 : (int)t->n, t->bytes);
}

/* One conversion of strftime at a time, so that nothing but flags and a letter reaches the library (a width could ask
 * for gigabytes). */
static bool emit_time(render *r, const struct tm *when, const text *format, size_t *i) {
    char   spec[5] = "%";
    char   buffer[128];
    size_t k = 1;
    while (*i < format->n && format->bytes[*i] && strchr("-_0^#", format->bytes[*i]) && k < 2) {
        spec[k++] = format->bytes[(*i)++];
    }
    char letter = *i < format->n ? format->bytes[(*i)++] : 0;
    if (letter == 'f') { /* Python's microseconds; the clock has seconds */
        return jinja_emit(r, "000000", 6);
    }
    if (!letter || !strchr("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%", letter)) {
        return jinja_fail(r, ERR_INVALID, "strftime_now: a conversion that does not exist");
    }
    if (letter == 'z' || letter == 'Z') { /* Python's datetime.now() has no zone */
        return true;
    }
    spec[k++] = letter;
    spec[k] = '\0';
    return jinja_emit(r, buffer, strftime(buffer, sizeof(buffer), spec, when));
}

static bool call_strftime_now(render *r, value self, const args *a, value *out) {
    (void)self;
    const text *format = NULL;
    time_t      now = (time_t)r->now;
    struct tm   when;
    size_t      mark = r->out->len;
    if (!jinja_arg_text(r, a, 0, "format", &format)) {
        return false;
    }
    if (!format || !gmtime_r(&now, &when)) {
        return jinja_fail(r, ERR_INVALID, "strftime_now needs a format");
    }
    for (size_t i = 0; i < format->n;) {
        if (format->bytes[i] != '%') {
            if (!jinja_emit(r, format->bytes + i++, 1)) {
                return false;
            }
            continue;
        }
        i++;
        if (!emit_time(r, &when, format, &i)) {
            return false;
        }
    }
    return jinja_take(r, mark, out);
}

static const builtin globals[] = {
    {"range", call_range},
    {"dict", call_dict},
    {"namespace", call_namespace},
    {"raise_exception", call_raise_exception},
    {"strftime_now", call_strftime_now},
};

const builtin *jinja_global(const char *name, size_t n) {
    return jinja_find(globals, sizeof(globals) / sizeof(globals[0]), name, n);
}

/* ---- dicts ---- */

static bool dict_get(render *r, value self, const args *a, value *out) {
    value key = {0};
    value item = {0};
    bool  found;
    if (!jinja_arg(a, 0, NULL, &key)) {
        return jinja_fail(r, ERR_INVALID, "get needs a key");
    }
    if (!jinja_dict_get(r, self.as.dict, key, &item, &found)) {
        return false;
    }
    *out = value_none();
    if (found) {
        *out = item;
    } else {
        jinja_arg(a, 1, NULL, out);
    }
    return true;
}

static bool dict_view(render *r, const dict *d, const char *label, bool keys, bool items, value *out) {
    list *l = jinja_list(r, d->n);
    if (!l) {
        return false;
    }
    l->label = label;
    for (size_t i = 0; i < d->n; i++) {
        if (keys && items) {
            list *pair = jinja_list(r, 2);
            if (!pair) {
                return false;
            }
            pair->items[0] = d->entries[i].key;
            pair->items[1] = d->entries[i].item;
            l->items[i] = value_list(V_TUPLE, pair);
        } else {
            l->items[i] = keys ? d->entries[i].key : d->entries[i].item;
        }
    }
    *out = value_list(V_VIEW, l);
    return true;
}

static bool dict_items(render *r, value self, const args *a, value *out) {
    (void)a;
    return dict_view(r, self.as.dict, "dict_items", true, true, out);
}

static bool dict_keys(render *r, value self, const args *a, value *out) {
    (void)a;
    return dict_view(r, self.as.dict, "dict_keys", true, false, out);
}

static bool dict_values(render *r, value self, const args *a, value *out) {
    (void)a;
    return dict_view(r, self.as.dict, "dict_values", false, true, out);
}

static bool copy(render *r, value self, const args *a, value *out) {
    (void)r;
    (void)a;
    *out = self; /* nothing can change it */
    return true;
}

static const builtin dict_methods[] = {
    {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values}, {"copy", copy}};

/* ---- lists ---- */

static bool list_count(render *r, value self, const args *a, value *out) {
    value   what = {0};
    int64_t n = 0;
    if (!jinja_arg(a, 0, NULL, &what)) {
        return jinja_fail(r, ERR_INVALID, "count needs a value");
    }
    for (size_t i = 0; i < self.as.list->n; i++) {
        bool same;
        if (!jinja_equal(r, self.as.list->items[i], what, &same)) {
            return false;
        }
        n += same;
    }
    *out = value_int(n);
    return true;
}

static bool list_index(render *r, value self, const args *a, value *out) {
    value what = {0};
    if (!jinja_arg(a, 0, NULL, &what)) {
        return jinja_fail(r, ERR_INVALID, "index needs a value");
    }
    for (size_t i = 0; i < self.as.list->n; i++) {
        bool same;
        if (!jinja_equal(r, self.as.list->items[i], what, &same)) {
            return false;
        }
        if (same) {
            *out = value_int((int64_t)i);
            return true;
        }
    }
    return jinja_fail(r, ERR_INVALID, "index: the value is not in the list");
}

static const builtin list_methods[] = {{"count", list_count}, {"index", list_index}, {"copy", copy}};

/* ---- loops ---- */

static bool loop_cycle(render *r, value self, const args *a, value *out) {
    if (a->n == 0) {
        return jinja_fail(r, ERR_INVALID, "loop.cycle needs something to cycle through");
    }
    *out = a->values[self.as.loop->at % (size_t)a->n];
    return true;
}

static bool loop_changed(render *r, value self, const args *a, value *out) {
    args *seen = self.as.loop->seen;
    bool  same = seen && seen->n == a->n;
    for (int i = 0; same && i < a->n; i++) {
        if (!jinja_equal(r, seen->values[i], a->values[i], &same)) {
            return false;
        }
    }
    if (!same) {
        args *kept = jinja_alloc(r, 1, sizeof(*kept));
        if (!kept) {
            return false;
        }
        *kept = *a;
        self.as.loop->seen = kept;
    }
    *out = value_bool(!same);
    return true;
}

static const builtin loop_methods[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

const builtin *jinja_method(value self, const text *name) {
    switch (self.kind) {
    case V_STRING:
        return jinja_string_method(name->bytes, name->n);
    case V_DICT:
        return jinja_find(dict_methods, COUNT(dict_methods), name->bytes, name->n);
    case V_LIST:
        return jinja_find(list_methods, COUNT(list_methods), name->bytes, name->n);
    case V_TUPLE:
        return jinja_find(list_methods, 2, name->bytes, name->n);
    case V_LOOP:
        return jinja_find(loop_methods, COUNT(loop_methods), name->bytes, name->n);
    default:
        return NULL;
    }
}

/* Methods that would change a value: jinja2's immutable sandbox hides them. */
bool jinja_forbidden(value self, const text *name) {
    static const char *const of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const of_lists[] = {"append", "clear",   "extend", "insert", "pop",
                                           "remove", "reverse", "sort",   NULL};
    const char *const       *names = self.kind == V_DICT ? of_dicts : self.kind == V_LIST ? of_lists : NULL;
    for (; names && *names; names++) {
        if (text_is(name, *names, strlen(*names))) {
            return true;
        }
    }
    return false;
}
