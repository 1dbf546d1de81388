/* Filters over sequences and numbers; those over text are in filters_text.c. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/template/render.h"
#include "model/template/text.h"

/* ---- attributes by name: "a.b", 0, "a,b" is not needed ---- */

/* One step of the path; `otherwise` (or NULL) stands in for what is not there. */
static bool step(render *r, value from, value key, const value *otherwise, value *out) {
    if (!jinja_item(r, from, key, out)) {
        return false;
    }
    if (otherwise && out->kind == V_UNDEFINED) {
        *out = *otherwise;
    }
    return true;
}

/* map(attribute="a.b.0"): item after item. */
static bool dig(render *r, value from, value path, const value *otherwise, value *out) {
    *out = from;
    if (path.kind != V_STRING) {
        return step(r, from, path, otherwise, out);
    }
    const text *p = path.as.string;
    for (size_t at = 0; at <= p->n;) {
        const char *dot = at < p->n ? memchr(p->bytes + at, '.', p->n - at) : NULL;
        size_t      n = dot ? (size_t)(dot - p->bytes) - at : p->n - at;
        value       key = {0};
        if (!jinja_text_share(r, p->bytes + at, n, false, &key)) {
            return false;
        }
        int64_t index = 0;
        bool    number = n > 0 && n < 10;
        for (size_t i = 0; i < n && number; i++) {
            number = p->bytes[at + i] >= '0' && p->bytes[at + i] <= '9';
            index = index * 10 + (p->bytes[at + i] - '0');
        }
        if (!step(r, *out, number ? value_int(index) : key, otherwise, out)) {
            return false;
        }
        at += n + 1;
    }
    return true;
}

/* Strings compare without their case unless asked otherwise. */
static bool fold(render *r, value v, bool case_sensitive, value *out) {
    *out = v;
    if (case_sensitive || v.kind != V_STRING) {
        return true;
    }
    size_t mark = r->out->len;
    return jinja_emit_case(r, v.as.string->bytes, v.as.string->n, CASE_LOWER) && jinja_take(r, mark, out);
}

static bool sort_key(render *r, value v, const args *a, int place, bool case_sensitive, value *out) {
    value path = {0};
    if (jinja_arg(a, place, "attribute", &path) && path.kind != V_NONE && !dig(r, v, path, NULL, &v)) {
        return false;
    }
    return fold(r, v, case_sensitive, out);
}

/* ---- sorting ---- */

typedef struct keyed {
    value key;
    value item;
} keyed;

/* Merge sort: stable, n log n comparisons whatever the input. */
static bool sort_keyed(render *r, keyed *all, keyed *spare, size_t n, bool reverse) {
    if (n < 2) {
        return true;
    }
    size_t half = n / 2;
    if (!sort_keyed(r, all, spare, half, reverse) || !sort_keyed(r, all + half, spare, n - half, reverse)) {
        return false;
    }
    memcpy(spare, all, half * sizeof(*all));
    for (size_t i = 0, j = half, w = 0; i < half; w++) {
        int order = 0;
        if (j < n && !(reverse ? jinja_compare(r, spare[i].key, all[j].key, &order)
                               : jinja_compare(r, all[j].key, spare[i].key, &order))) {
            return false;
        }
        all[w] = j < n && order < 0 ? all[j++] : spare[i++];
    }
    return true;
}

static bool sorted(render *r, keyed *all, size_t n, bool reverse, value *out) {
    keyed *spare = jinja_alloc(r, n, sizeof(*spare));
    list  *l = spare ? jinja_list(r, n) : NULL;
    if (!l || !sort_keyed(r, all, spare, n, reverse)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        l->items[i] = all[i].item;
    }
    *out = value_list(V_LIST, l);
    return true;
}

/* What `sort` compares: a list of one key for each attribute of "a,b". In a list, equal keys need no order, so that
 * several none's can be sorted, as in jinja2. */
static bool sort_keys(render *r, value v, const args *a, bool case_sensitive, value *out) {
    value  path = value_none();
    gather keys = {0};
    jinja_arg(a, 2, "attribute", &path);
    if (path.kind != V_STRING) {
        value key = {0};
        return sort_key(r, v, a, 2, case_sensitive, &key) && jinja_gather(r, &keys, key) &&
               jinja_gathered(r, &keys, V_LIST, out);
    }
    const text *all = path.as.string;
    for (size_t at = 0; at <= all->n;) {
        const char *comma = at < all->n ? memchr(all->bytes + at, ',', all->n - at) : NULL;
        size_t      n = comma ? (size_t)(comma - all->bytes) - at : all->n - at;
        value       one = {0};
        value       key = {0};
        if (!jinja_text_share(r, all->bytes + at, n, false, &one) || !dig(r, v, one, NULL, &key) ||
            !fold(r, key, case_sensitive, &key) || !jinja_gather(r, &keys, key)) {
            return false;
        }
        at += n + 1;
    }
    return jinja_gathered(r, &keys, V_LIST, out);
}

static bool filter_sort(render *r, value v, const args *a, value *out) {
    list items;
    if (!jinja_iterate(r, v, &items)) {
        return false;
    }
    keyed *all = jinja_alloc(r, items.n, sizeof(*all));
    bool   case_sensitive = jinja_arg_truth(a, 1, "case_sensitive", false);
    for (size_t i = 0; all && i < items.n; i++) {
        all[i].item = items.items[i];
        if (!sort_keys(r, items.items[i], a, case_sensitive, &all[i].key)) {
            return false;
        }
    }
    return all && sorted(r, all, items.n, jinja_arg_truth(a, 0, "reverse", false), out);
}

static bool pair_up(render *r, value key, value item, value *out) {
    list *pair = jinja_list(r, 2);
    if (!pair) {
        return false;
    }
    pair->items[0] = key;
    pair->items[1] = item;
    *out = value_list(V_TUPLE, pair);
    return true;
}

static bool filter_dictsort(render *r, value v, const args *a, value *out) {
    const text *by = NULL;
    if (v.kind != V_DICT) {
        return jinja_fail(r, ERR_INVALID, "dictsort: '%s' is not a dict", jinja_type_name(v));
    }
    if (!jinja_arg_text(r, a, 1, "by", &by)) {
        return false;
    }
    const dict *d = v.as.dict;
    keyed      *all = jinja_alloc(r, d->n, sizeof(*all));
    bool        case_sensitive = jinja_arg_truth(a, 0, "case_sensitive", false);
    bool        by_value = by && text_is(by, "value", 5);
    for (size_t i = 0; all && i < d->n; i++) {
        if (!pair_up(r, d->entries[i].key, d->entries[i].item, &all[i].item) ||
            !fold(r, by_value ? d->entries[i].item : d->entries[i].key, case_sensitive, &all[i].key)) {
            return false;
        }
    }
    return all && sorted(r, all, d->n, jinja_arg_truth(a, 2, "reverse", false), out);
}

/* ---- sequences ---- */

static bool filter_items(render *r, value v, const args *a, value *out) {
    (void)a;
    list *l = jinja_list(r, v.kind == V_DICT ? v.as.dict->n : 0);
    if (!l || (v.kind != V_DICT && v.kind != V_UNDEFINED)) {
        return l && jinja_fail(r, ERR_INVALID, "items: '%s' is not a dict", jinja_type_name(v));
    }
    for (size_t i = 0; i < l->n; i++) {
        if (!pair_up(r, v.as.dict->entries[i].key, v.as.dict->entries[i].item, &l->items[i])) {
            return false;
        }
    }
    *out = value_list(V_GENERATOR, l);
    return true;
}

static bool filter_length(render *r, value v, const args *a, value *out) {
    int64_t n;
    (void)a;
    if (!jinja_length(r, v, &n)) {
        return false;
    }
    *out = value_int(n);
    return true;
}

static bool filter_list(render *r, value v, const args *a, value *out) {
    list items;
    (void)a;
    list *l = jinja_iterate(r, v, &items) ? jinja_list(r, 0) : NULL;
    if (!l) {
        return false;
    }
    *l = (list){.items = items.items, .n = items.n};
    *out = value_list(V_LIST, l);
    return true;
}

static bool filter_first(render *r, value v, const args *a, value *out) {
    list items;
    (void)a;
    if (v.kind == V_GENERATOR) { /* takes one, leaves the others */
        list *l = v.as.list;
        *out = l->n ? l->items[0] : value_undefined(NULL);
        l->items += l->n > 0;
        l->n -= l->n > 0;
        return true;
    }
    if (!jinja_iterate(r, v, &items)) {
        return false;
    }
    *out = items.n ? items.items[0] : value_undefined(NULL);
    return true;
}

static bool filter_last(render *r, value v, const args *a, value *out) {
    list items;
    (void)a;
    if (v.kind == V_GENERATOR) {
        return jinja_fail(r, ERR_INVALID, "last: '%s' object is not reversible", jinja_type_name(v));
    }
    if (!jinja_iterate(r, v, &items)) {
        return false;
    }
    *out = items.n ? items.items[items.n - 1] : value_undefined(NULL);
    return true;
}

static bool filter_reverse(render *r, value v, const args *a, value *out) {
    list items;
    (void)a;
    if (v.kind == V_STRING) {
        const value bounds[3] = {value_none(), value_none(), value_int(-1)};
        return jinja_slice(r, v, bounds, out);
    }
    list *l = jinja_iterate(r, v, &items) ? jinja_list(r, items.n) : NULL;
    for (size_t i = 0; l && i < items.n; i++) {
        l->items[i] = items.items[items.n - 1 - i];
    }
    if (l) {
        *out = value_list(V_GENERATOR, l);
    }
    return l != NULL;
}

static bool filter_unique(render *r, value v, const args *a, value *out) {
    list   items;
    gather kept = {0};
    dict  *seen = jinja_dict(r, 8);
    bool   case_sensitive = jinja_arg_truth(a, 0, "case_sensitive", false);
    if (!seen || !jinja_iterate(r, v, &items)) {
        return false;
    }
    for (size_t i = 0; i < items.n; i++) {
        value key = {0};
        value ignored = {0};
        bool  found;
        if (!sort_key(r, items.items[i], a, 1, case_sensitive, &key) ||
            !jinja_dict_get(r, seen, key, &ignored, &found)) {
            return false;
        }
        if (!found && (!jinja_dict_put(r, seen, key, value_none()) || !jinja_gather(r, &kept, items.items[i]))) {
            return false;
        }
    }
    return jinja_gathered(r, &kept, V_GENERATOR, out);
}

static bool extreme(render *r, value v, const args *a, bool greatest, value *out) {
    list items;
    bool case_sensitive = jinja_arg_truth(a, 0, "case_sensitive", false);
    if (!jinja_iterate(r, v, &items)) {
        return false;
    }
    *out = value_undefined(NULL);
    value best = value_none();
    for (size_t i = 0; i < items.n; i++) {
        value key = {0};
        int   order = 0;
        if (!sort_key(r, items.items[i], a, 1, case_sensitive, &key) || (i && !jinja_compare(r, key, best, &order))) {
            return false;
        }
        if (i == 0 || (greatest ? order == 1 : order < 0)) {
            best = key;
            *out = items.items[i];
        }
    }
    return true;
}

static bool filter_min(render *r, value v, const args *a, value *out) {
    return extreme(r, v, a, false, out);
}

static bool filter_max(render *r, value v, const args *a, value *out) {
    return extreme(r, v, a, true, out);
}

static bool filter_sum(render *r, value v, const args *a, value *out) {
    list  items;
    value path = {0};
    value total = value_int(0);
    bool  by_attribute = jinja_arg(a, 0, "attribute", &path) && path.kind != V_NONE;
    jinja_arg(a, 1, "start", &total);
    if (!jinja_iterate(r, v, &items)) {
        return false;
    }
    for (size_t i = 0; i < items.n; i++) {
        value item = items.items[i];
        if ((by_attribute && !dig(r, item, path, NULL, &item)) || !jinja_add(r, total, item, &total)) {
            return false;
        }
    }
    *out = total;
    return true;
}

/* batch: rows of n, the last filled up; slice: n columns of nearly equal length. */
static bool filter_batch(render *r, value v, const args *a, value *out) {
    int64_t n = 0;
    list    items;
    value   fill = value_none();
    gather  rows = {0};
    bool    filled = jinja_arg(a, 1, "fill_with", &fill) && fill.kind != V_NONE;
    if (!jinja_arg_int(r, a, 0, "linecount", &n) || !jinja_iterate(r, v, &items)) {
        return false;
    }
    if (n < 1 || n > TEMPLATE_MAX_RANGE) {
        return jinja_fail(r, ERR_INVALID, "batch: rows of %lld items", (long long)n);
    }
    for (size_t at = 0; at < items.n; at += (size_t)n) {
        size_t left = items.n - at < (size_t)n ? items.n - at : (size_t)n;
        list  *row = jinja_list(r, filled ? (size_t)n : left);
        for (size_t i = 0; row && i < row->n; i++) {
            row->items[i] = i < left ? items.items[at + i] : fill;
        }
        if (!row || !jinja_gather(r, &rows, value_list(V_LIST, row))) {
            return false;
        }
    }
    return jinja_gathered(r, &rows, V_GENERATOR, out);
}

static bool filter_slice(render *r, value v, const args *a, value *out) {
    int64_t n = 0;
    list    items;
    value   fill = value_none();
    gather  columns = {0};
    bool    filled = jinja_arg(a, 1, "fill_with", &fill) && fill.kind != V_NONE;
    if (!jinja_arg_int(r, a, 0, "slices", &n) || !jinja_iterate(r, v, &items)) {
        return false;
    }
    if (n < 1 || n > TEMPLATE_MAX_RANGE) {
        return jinja_fail(r, ERR_INVALID, "slice: %lld columns", (long long)n);
    }
    size_t each = items.n / (size_t)n;
    size_t longer = items.n % (size_t)n;
    size_t at = 0;
    for (size_t k = 0; k < (size_t)n; k++) {
        size_t own = each + (k < longer);
        list  *column = jinja_list(r, own + (filled && k >= longer));
        for (size_t i = 0; column && i < column->n; i++) {
            column->items[i] = i < own ? items.items[at + i] : fill;
        }
        if (!column || !jinja_gather(r, &columns, value_list(V_LIST, column))) {
            return false;
        }
        at += own;
    }
    return jinja_gathered(r, &columns, V_GENERATOR, out);
}

/* ---- map, select and their like ---- */

/* The arguments from `from` on, for the filter or test that the first ones name. */
static args rest_of(const args *a, int from) {
    args rest = *a;
    rest.values = a->n > from ? a->values + from : NULL;
    rest.n = a->n > from ? a->n - from : 0;
    return rest;
}

/* jinja2 looks at no item of what is false, so that none and 0 pass for an empty list. */
static bool iterate_if_true(render *r, value v, list *items) {
    *items = (list){0};
    return !jinja_truth(v) || jinja_iterate(r, v, items);
}

static bool map_attribute(render *r, list items, const args *a, value path, value *out) {
    value otherwise = {0};
    bool  has_default = jinja_arg(a, -1, "default", &otherwise);
    list *l = jinja_list(r, items.n);
    for (size_t i = 0; l && i < items.n; i++) {
        if (!dig(r, items.items[i], path, has_default ? &otherwise : NULL, &l->items[i])) {
            return false;
        }
    }
    if (l) {
        *out = value_list(V_GENERATOR, l);
    }
    return l != NULL;
}

static bool filter_map(render *r, value v, const args *a, value *out) {
    list        items;
    value       path = {0};
    const text *name = NULL;
    if (!iterate_if_true(r, v, &items)) {
        return false;
    }
    if (a->n == 0 && jinja_arg(a, -1, "attribute", &path)) {
        return map_attribute(r, items, a, path, out);
    }
    if (!jinja_arg_text(r, a, 0, NULL, &name)) {
        return false;
    }
    const builtin *filter = name ? jinja_filter(name->bytes, name->n) : NULL;
    if (!filter) {
        return jinja_fail(r, ERR_INVALID, "map needs an attribute or the name of a filter");
    }
    args  rest = rest_of(a, 1);
    list *l = jinja_list(r, items.n);
    for (size_t i = 0; l && i < items.n; i++) {
        if (!jinja_spend(r, 0) || !filter->run(r, items.items[i], &rest, &l->items[i])) {
            return false;
        }
    }
    if (l) {
        *out = value_list(V_GENERATOR, l);
    }
    return l != NULL;
}

/* Keeps what passes the test (`wanted`) or fails it. With `by_attribute` the first argument says what of each item is
 * tested, and the test's name comes second; without a test, truth decides. */
static bool choose(render *r, value v, const args *a, bool wanted, bool by_attribute, value *out) {
    list           items;
    const text    *name = NULL;
    value          path = value_none();
    gather         kept = {0};
    int            at = by_attribute ? 1 : 0;
    const builtin *test = NULL;
    if (by_attribute && !jinja_arg(a, 0, NULL, &path)) {
        return jinja_fail(r, ERR_INVALID, "selectattr and rejectattr need the name of an attribute");
    }
    if (!jinja_arg_text(r, a, at, NULL, &name) || !iterate_if_true(r, v, &items)) {
        return false;
    }
    if (name && !(test = jinja_test(name->bytes, name->n))) {
        return jinja_fail(r, ERR_UNSUPPORTED, "there is no test '%.*s'", name->n > 60 ? 60 : (int)name->n, name->bytes);
    }
    args rest = rest_of(a, at + 1);
    for (size_t i = 0; i < items.n; i++) {
        value what = items.items[i];
        if (by_attribute && !dig(r, what, path, NULL, &what)) {
            return false;
        }
        if (test && !test->run(r, what, &rest, &what)) {
            return false;
        }
        if (!jinja_spend(r, 0) || (jinja_truth(what) == wanted && !jinja_gather(r, &kept, items.items[i]))) {
            return false;
        }
    }
    return jinja_gathered(r, &kept, V_GENERATOR, out);
}

static bool filter_select(render *r, value v, const args *a, value *out) {
    return choose(r, v, a, true, false, out);
}

static bool filter_reject(render *r, value v, const args *a, value *out) {
    return choose(r, v, a, false, false, out);
}

static bool filter_selectattr(render *r, value v, const args *a, value *out) {
    return choose(r, v, a, true, true, out);
}

static bool filter_rejectattr(render *r, value v, const args *a, value *out) {
    return choose(r, v, a, false, true, out);
}

/* ---- values ---- */

static bool filter_default(render *r, value v, const args *a, value *out) {
    (void)r;
    bool falsy = jinja_arg_truth(a, 1, "boolean", false) && !jinja_truth(v);
    *out = v;
    if (v.kind == V_UNDEFINED || falsy) {
        static text nothing = {.bytes = "", .n = 0, .chars = 0};
        *out = value_string(&nothing);
        jinja_arg(a, 0, "default_value", out);
    }
    return true;
}

static bool filter_attr(render *r, value v, const args *a, value *out) {
    const text *name = NULL;
    if (!jinja_arg_text(r, a, 0, "name", &name)) {
        return false;
    }
    if (!name) {
        return jinja_fail(r, ERR_INVALID, "attr needs the name of an attribute");
    }
    if (v.kind == V_DICT && !jinja_method(v, name)) { /* attributes only, not items */
        *out = value_undefined(name);
        return true;
    }
    return jinja_attribute(r, v, name, out);
}

/* The number that a string spells, in Python's way; false when it spells none. */
static bool parse_number(const text *t, bool whole, int base, value *out) {
    char   digits[64];
    size_t from = 0;
    size_t to = t->n;
    for (size_t n; from < to && (n = jinja_space(t->bytes + from, to - from)) > 0;) {
        from += n;
    }
    for (size_t n; from < to && (n = jinja_space_before(t->bytes + from, to - from)) > 0;) {
        to -= n;
    }
    size_t w = 0;
    for (size_t i = from; i < to; i++) {
        char c = t->bytes[i];
        if (c == '_' && i > from && i + 1 < to) {
            continue;
        }
        if (w + 1 == sizeof(digits) || c == '\0' || c == '(') {
            return false;
        }
        digits[w++] = c;
    }
    digits[w] = '\0';
    char *end;
    errno = 0;
    if (whole) {
        long long i = strtoll(digits, &end, base);
        *out = value_int(i);
    } else {
        if (strpbrk(digits, "xXpP")) { /* C reads hexadecimal, Python does not */
            return false;
        }
        *out = value_float(strtod(digits, &end));
        errno = 0;
    }
    return w > 0 && *end == '\0' && errno == 0;
}

static bool filter_int(render *r, value v, const args *a, value *out) {
    int64_t base = 10;
    value   otherwise = value_int(0);
    jinja_arg(a, 0, "default", &otherwise);
    if (!jinja_arg_int(r, a, 1, "base", &base)) {
        return false;
    }
    double d = 0;
    *out = otherwise;
    if (value_is_integral(v)) {
        *out = value_int(value_integer(v));
        return true;
    }
    if (v.kind == V_STRING) {
        value number = {0};
        if (base >= 0 && base <= 36 && base != 1 && parse_number(v.as.string, true, (int)base, &number)) {
            *out = number;
            return true;
        }
        if (!parse_number(v.as.string, false, 10, &number)) {
            return true;
        }
        d = number.as.number;
    } else if (v.kind == V_FLOAT) {
        d = v.as.number;
    } else if (v.kind == V_UNDEFINED) {
        return jinja_fail(r, ERR_INVALID, "int: the value is undefined");
    } else {
        return true;
    }
    if (d > -9223372036854775808.0 && d < 9223372036854775808.0) { /* NaN is neither */
        *out = value_int((int64_t)d);
    }
    return true;
}

static bool filter_float(render *r, value v, const args *a, value *out) {
    value otherwise = value_float(0);
    jinja_arg(a, 0, "default", &otherwise);
    if (v.kind == V_UNDEFINED) {
        return jinja_fail(r, ERR_INVALID, "float: the value is undefined");
    }
    if (value_is_number(v)) {
        *out = value_float(value_double(v));
    } else if (v.kind != V_STRING || !parse_number(v.as.string, false, 10, out)) {
        *out = otherwise;
    }
    return true;
}

static bool filter_abs(render *r, value v, const args *a, value *out) {
    (void)a;
    if (v.kind == V_FLOAT) {
        *out = value_float(fabs(v.as.number));
        return true;
    }
    if (!value_is_integral(v)) {
        return jinja_fail(r, ERR_INVALID, "abs: '%s' is not a number", jinja_type_name(v));
    }
    int64_t i = value_integer(v);
    *out = value_int(i);
    return i >= 0 || jinja_binary(r, OP_SUB, value_int(0), value_int(i), out);
}

static bool filter_round(render *r, value v, const args *a, value *out) {
    int64_t     precision = 0;
    const text *method = NULL;
    if (!jinja_arg_int(r, a, 0, "precision", &precision) || !jinja_arg_text(r, a, 1, "method", &method)) {
        return false;
    }
    if (!value_is_number(v) || precision < -20 || precision > 20) {
        return jinja_fail(r, ERR_INVALID, "round: '%s' is not a number, or the precision is too large",
                          jinja_type_name(v));
    }
    bool common = !method || text_is(method, "common", 6);
    if (common && value_is_integral(v) && precision >= 0) {
        *out = value_int(value_integer(v));
        return true;
    }
    double d = value_double(v);
    double scale = pow(10, (double)precision);
    if (!common) {
        *out = value_float((text_is(method, "ceil", 4) ? ceil(d * scale) : floor(d * scale)) / scale);
    } else if (precision >= 0) { /* the exact decimal value decides, and ties go to even, as in Python */
        char buffer[400];
        snprintf(buffer, sizeof(buffer), "%.*f", (int)precision, d);
        *out = value_float(strtod(buffer, NULL));
    } else {
        *out = value_float(rint(d * scale) / scale);
    }
    if (common && value_is_integral(v)) {
        *out = value_int((int64_t)out->as.number);
    }
    return true;
}

static const builtin filters[] = {
    {"length", filter_length},
    {"count", filter_length},
    {"default", filter_default},
    {"d", filter_default},
    {"list", filter_list},
    {"first", filter_first},
    {"last", filter_last},
    {"items", filter_items},
    {"dictsort", filter_dictsort},
    {"sort", filter_sort},
    {"unique", filter_unique},
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse},
    {"min", filter_min},
    {"max", filter_max},
    {"sum", filter_sum},
    {"batch", filter_batch},
    {"slice", filter_slice},
    {"attr", filter_attr},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
};

const builtin *jinja_filter(const char *name, size_t n) {
    const builtin *found = jinja_find(filters, sizeof(filters) / sizeof(filters[0]), name, n);
    return found ? found : jinja_text_filter(name, n);
}
