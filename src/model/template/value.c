#include "model/template/value.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "model/template/render.h"
#include "model/template/text.h"

#define INDEX_FROM 9 /* entries; below, comparing them all is as fast as hashing */

bool jinja_truth(value v) {
    switch (v.kind) {
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.as.truth;
    case V_INT:
        return v.as.integer != 0;
    case V_FLOAT:
        return v.as.number != 0;
    case V_STRING:
        return v.as.string->n > 0;
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW:
        return v.as.list->n > 0;
    case V_DICT:
        return v.as.dict->n > 0;
    default:
        return true;
    }
}

const char *jinja_type_name(value v) {
    static const char *const names[] = {"Undefined", "NoneType",    "bool",  "int",      "float",     "str",
                                        "list",      "tuple",       "range", "view",     "generator", "dict",
                                        "Namespace", "LoopContext", "Macro", "function", "method"};
    return names[v.kind];
}

bool jinja_text_share(render *r, const char *bytes, size_t n, bool markup, value *out) {
    text *t = jinja_alloc(r, 1, sizeof(*t));
    if (!t) {
        return false;
    }
    *t = (text){.bytes = bytes, .n = n, .chars = -1, .markup = markup};
    *out = value_string(t);
    return true;
}

bool jinja_text(render *r, const char *bytes, size_t n, value *out) {
    char *copy = jinja_alloc(r, n, 1);
    if (!copy) {
        return false;
    }
    if (n) {
        memcpy(copy, bytes, n);
    }
    return jinja_spend(r, n) && jinja_text_share(r, copy, n, false, out);
}

list *jinja_list(render *r, size_t n) {
    list *l = jinja_alloc(r, 1, sizeof(*l));
    if (!l) {
        return NULL;
    }
    *l = (list){.n = n};
    if (n) {
        l->items = jinja_spend(r, n) ? jinja_alloc(r, n, sizeof(value)) : NULL;
        if (!l->items) {
            return NULL;
        }
    }
    return l;
}

/* ---- equality and order ---- */

/* Exact, also where a double cannot hold the integer. */
static int compare_int_float(int64_t a, double b) {
    if (b >= 9223372036854775808.0) {
        return -1;
    }
    if (b < -9223372036854775808.0) {
        return 1;
    }
    int64_t whole = (int64_t)b;
    if (a != whole) {
        return a < whole ? -1 : 1;
    }
    double rest = b - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

static bool is_nan(value v) {
    return v.kind == V_FLOAT && isnan(v.as.number);
}

static int compare_numbers(value a, value b) { /* neither is NaN */
    if (value_is_integral(a) && value_is_integral(b)) {
        int64_t x = value_integer(a);
        int64_t y = value_integer(b);
        return (x > y) - (x < y);
    }
    if (value_is_integral(a)) {
        return compare_int_float(value_integer(a), b.as.number);
    }
    if (value_is_integral(b)) {
        return -compare_int_float(value_integer(b), a.as.number);
    }
    return (a.as.number > b.as.number) - (a.as.number < b.as.number);
}

static bool too_deep(render *r) {
    return jinja_fail(r, ERR_LIMIT, "a value nests deeper than %d levels", TEMPLATE_MAX_NEST);
}

static bool equal(render *r, value a, value b, int depth, bool *out);

static bool equal_dicts(render *r, const dict *a, const dict *b, int depth, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        value item = {0};
        bool  found;
        if (!jinja_dict_get(r, b, a->entries[i].key, &item, &found)) {
            return false;
        }
        if (!found) {
            *out = false;
        } else if (!equal(r, a->entries[i].item, item, depth + 1, out)) {
            return false;
        }
    }
    return true;
}

static bool equal_lists(render *r, const list *a, const list *b, int depth, bool *out) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        if (!equal(r, a->items[i], b->items[i], depth + 1, out)) {
            return false;
        }
    }
    return true;
}

static bool equal(render *r, value a, value b, int depth, bool *out) {
    if (depth > TEMPLATE_MAX_NEST) {
        return too_deep(r);
    }
    if (!jinja_spend(r, 0)) {
        return false;
    }
    *out = false;
    if (value_is_number(a) && value_is_number(b)) {
        *out = !is_nan(a) && !is_nan(b) && compare_numbers(a, b) == 0;
    } else if (a.kind != b.kind) {
        return true;
    } else if (a.kind == V_STRING) {
        const text *x = a.as.string;
        const text *y = b.as.string;
        *out = x == y || (x->n == y->n && memcmp(x->bytes, y->bytes, x->n) == 0);
        return jinja_spend(r, *out ? x->n : 0);
    } else if (a.kind == V_UNDEFINED || a.kind == V_NONE) {
        *out = true;
    } else if (a.kind == V_LIST || a.kind == V_TUPLE || a.kind == V_RANGE) {
        return equal_lists(r, a.as.list, b.as.list, depth, out);
    } else if (a.kind == V_DICT) {
        return equal_dicts(r, a.as.dict, b.as.dict, depth, out);
    } else {
        *out = a.as.list == b.as.list; /* the same object */
    }
    return true;
}

bool jinja_equal(render *r, value a, value b, bool *out) {
    return equal(r, a, b, 0, out);
}

static int compare_texts(const text *a, const text *b) { /* UTF-8 sorts as its code points do */
    int by_bytes = memcmp(a->bytes, b->bytes, a->n < b->n ? a->n : b->n);
    return by_bytes ? by_bytes : (a->n > b->n) - (a->n < b->n);
}

static bool compare(render *r, value a, value b, int depth, int *out) {
    if (depth > TEMPLATE_MAX_NEST) {
        return too_deep(r);
    }
    if (value_is_number(a) && value_is_number(b)) {
        *out = is_nan(a) || is_nan(b) ? 2 : compare_numbers(a, b); /* 2: neither less, equal nor greater */
        return jinja_spend(r, 0);
    }
    if (a.kind == V_STRING && b.kind == V_STRING) {
        *out = compare_texts(a.as.string, b.as.string);
        *out = (*out > 0) - (*out < 0);
        return jinja_spend(r, a.as.string->n < b.as.string->n ? a.as.string->n : b.as.string->n);
    }
    if ((a.kind != V_LIST && a.kind != V_TUPLE) || a.kind != b.kind) {
        return jinja_fail(r, ERR_INVALID, "%s and %s have no order", jinja_type_name(a), jinja_type_name(b));
    }
    const list *x = a.as.list;
    const list *y = b.as.list;
    for (size_t i = 0; i < x->n && i < y->n; i++) {
        bool same;
        if (!equal(r, x->items[i], y->items[i], depth + 1, &same)) {
            return false;
        }
        if (!same) {
            return compare(r, x->items[i], y->items[i], depth + 1, out);
        }
    }
    *out = (x->n > y->n) - (x->n < y->n);
    return true;
}

bool jinja_compare(render *r, value a, value b, int *out) {
    return compare(r, a, b, 0, out);
}

/* ---- dictionaries ---- */

static bool hash_value(render *r, value v, int depth, uint64_t *out) {
    if (depth > TEMPLATE_MAX_NEST) {
        return too_deep(r);
    }
    uint64_t seed = hash_seed();
    if (v.kind == V_STRING) {
        *out = hash64(v.as.string->bytes, v.as.string->n, seed);
        return jinja_spend(r, v.as.string->n);
    }
    if (value_is_number(v)) { /* 1, 1.0 and true are one key */
        double d = value_double(v) + 0.0;
        *out = hash64(&d, sizeof(d), seed);
        return true;
    }
    if (v.kind == V_TUPLE) {
        uint64_t all = seed;
        for (size_t i = 0; i < v.as.list->n; i++) {
            uint64_t one = 0;
            if (!hash_value(r, v.as.list->items[i], depth + 1, &one)) {
                return false;
            }
            all = (all ^ one) * 0x9e3779b97f4a7c15u;
        }
        *out = all;
        return jinja_spend(r, v.as.list->n);
    }
    if (v.kind == V_LIST || v.kind == V_DICT) {
        return jinja_fail(r, ERR_INVALID, "a %s cannot be the key of a dict", jinja_type_name(v));
    }
    *out = v.kind; /* None and objects: few of them */
    return true;
}

static bool hashable(render *r, value v) {
    uint64_t ignored;
    return v.kind == V_STRING || hash_value(r, v, 0, &ignored);
}

dict *jinja_dict(render *r, size_t expected) {
    dict *d = jinja_alloc(r, 1, sizeof(*d));
    if (!d) {
        return NULL;
    }
    *d = (dict){.cap = expected};
    if (expected) {
        d->entries = jinja_alloc(r, expected, sizeof(dict_entry));
        if (!d->entries) {
            return NULL;
        }
    }
    return d;
}

static void index_entry(dict *d, size_t entry) {
    size_t at = d->entries[entry].hash & (d->index_size - 1);
    while (d->index[at]) {
        at = (at + 1) & (d->index_size - 1);
    }
    d->index[at] = (uint32_t)entry + 1;
}

/* (Re)builds the index, twice as large as the entries' room or more. */
static bool build_index(render *r, dict *d) {
    bool   first = !d->index;
    size_t size = 32;
    while (size < 2 * d->cap) {
        size *= 2;
    }
    d->index = jinja_alloc(r, size, sizeof(*d->index));
    if (!d->index || !jinja_spend(r, size)) {
        return false;
    }
    memset(d->index, 0, size * sizeof(*d->index));
    d->index_size = size;
    for (size_t i = 0; i < d->n; i++) {
        if (first && !hash_value(r, d->entries[i].key, 0, &d->entries[i].hash)) {
            return false;
        }
        index_entry(d, i);
    }
    return true;
}

/* SIZE_MAX in *entry when the key is not there. `hash` is set with an index only. */
static bool find_entry(render *r, const dict *d, value key, uint64_t *hash, size_t *entry) {
    *entry = SIZE_MAX;
    if (d->index) {
        if (!hash_value(r, key, 0, hash)) {
            return false;
        }
        for (size_t at = *hash & (d->index_size - 1); d->index[at]; at = (at + 1) & (d->index_size - 1)) {
            const dict_entry *x = &d->entries[d->index[at] - 1];
            bool              same = false;
            if (x->hash == *hash && !jinja_equal(r, x->key, key, &same)) {
                return false;
            }
            if (same) {
                *entry = d->index[at] - 1;
                return true;
            }
        }
        return true;
    }
    if (key.kind == V_STRING) { /* nearly always: no call for a key that differs */
        for (size_t i = 0; i < d->n; i++) {
            value have = d->entries[i].key;
            if (have.kind == V_STRING && have.as.string->n == key.as.string->n &&
                memcmp(have.as.string->bytes, key.as.string->bytes, key.as.string->n) == 0) {
                *entry = i;
                break;
            }
        }
        return true;
    }
    if (!hashable(r, key)) {
        return false;
    }
    for (size_t i = 0; i < d->n; i++) {
        bool same;
        if (!jinja_equal(r, d->entries[i].key, key, &same)) {
            return false;
        }
        if (same) {
            *entry = i;
            break;
        }
    }
    return true;
}

bool jinja_dict_get(render *r, const dict *d, value key, value *item, bool *found) {
    uint64_t hash;
    size_t   entry;
    if (!find_entry(r, d, key, &hash, &entry)) {
        return false;
    }
    *found = entry != SIZE_MAX;
    if (*found) {
        *item = d->entries[entry].item;
    }
    return true;
}

bool jinja_dict_put(render *r, dict *d, value key, value item) {
    uint64_t hash = 0;
    size_t   entry;
    if (!jinja_spend(r, 0) || !find_entry(r, d, key, &hash, &entry)) {
        return false;
    }
    if (entry != SIZE_MAX) {
        d->entries[entry].item = item;
        return true;
    }
    bool grow = d->n == d->cap;
    if (grow) {
        size_t      cap = d->cap ? 2 * d->cap : 4;
        dict_entry *entries = jinja_alloc(r, cap, sizeof(dict_entry));
        if (!entries || !jinja_spend(r, d->n)) {
            return false;
        }
        if (d->n) {
            memcpy(entries, d->entries, d->n * sizeof(dict_entry));
        }
        d->entries = entries;
        d->cap = cap;
    }
    d->entries[d->n++] = (dict_entry){.key = key, .item = item, .hash = hash};
    if (d->n >= INDEX_FROM && (!d->index || grow)) {
        return build_index(r, d);
    }
    if (d->index) {
        index_entry(d, d->n - 1);
    }
    return true;
}

/* ---- containers ---- */

static bool iterate_text(render *r, const text *t, list *out) {
    size_t n = (size_t)jinja_chars(t);
    value *items = jinja_spend(r, t->n) ? jinja_alloc(r, n, sizeof(value)) : NULL;
    if (!items) {
        return false;
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = jinja_char(t->bytes + at, t->n - at);
        if (!jinja_spend(r, 0) || !jinja_text_share(r, t->bytes + at, len, false, &items[i])) {
            return false;
        }
        at += len;
    }
    *out = (list){.items = items, .n = n};
    return true;
}

bool jinja_iterate(render *r, value v, list *out) {
    *out = (list){0};
    if (v.kind == V_UNDEFINED) {
        return true;
    }
    if (v.kind == V_STRING) {
        return iterate_text(r, v.as.string, out);
    }
    if (value_is_listy(v)) {
        *out = *v.as.list;
        if (v.kind == V_GENERATOR) {
            v.as.list->n = 0;
        }
        return true;
    }
    if (v.kind == V_DICT) {
        list *keys = jinja_list(r, v.as.dict->n);
        if (!keys) {
            return false;
        }
        for (size_t i = 0; i < keys->n; i++) {
            keys->items[i] = v.as.dict->entries[i].key;
        }
        *out = *keys;
        return true;
    }
    return jinja_fail(r, ERR_INVALID, "'%s' object is not iterable", jinja_type_name(v));
}

bool jinja_length(render *r, value v, int64_t *out) {
    switch (v.kind) {
    case V_UNDEFINED:
        *out = 0;
        return true;
    case V_STRING:
        *out = jinja_chars(v.as.string);
        return jinja_spend(r, v.as.string->chars < 0 ? v.as.string->n : 0);
    case V_LIST:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW:
        *out = (int64_t)v.as.list->n;
        return true;
    case V_DICT:
        *out = (int64_t)v.as.dict->n;
        return true;
    case V_LOOP:
        *out = (int64_t)v.as.loop->items.n;
        return true;
    default:
        return jinja_fail(r, ERR_INVALID, "object of type '%s' has no length", jinja_type_name(v));
    }
}

bool jinja_contains(render *r, value container, value item, bool *out) {
    *out = false;
    if (container.kind == V_STRING) {
        if (item.kind != V_STRING) {
            return jinja_fail(r, ERR_INVALID, "'in <string>' requires string as left operand, not %s",
                              jinja_type_name(item));
        }
        *out = jinja_find_bytes(container.as.string, item.as.string, 0) != SIZE_MAX;
        return jinja_spend(r, container.as.string->n);
    }
    if (container.kind == V_DICT) {
        value ignored = {0};
        return jinja_spend(r, 0) && jinja_dict_get(r, container.as.dict, item, &ignored, out);
    }
    list items;
    if (!jinja_iterate(r, container, &items)) {
        return false;
    }
    for (size_t i = 0; i < items.n && !*out; i++) {
        if (!jinja_equal(r, items.items[i], item, out)) {
            return false;
        }
    }
    return true;
}

/* ---- from JSON ---- */

static bool from_json(render *r, const cJSON *json, int depth, value *out);

static bool from_members(render *r, const cJSON *json, size_t n, int depth, value *out) {
    dict *d = jinja_dict(r, n);
    if (!d) {
        return false;
    }
    for (const cJSON *c = json->child; c; c = c->next) {
        const char *key = c->string ? c->string : "";
        value       name = {0};
        value       item = {0};
        if (!jinja_text_share(r, key, strlen(key), false, &name) || !from_json(r, c, depth + 1, &item) ||
            !jinja_dict_put(r, d, name, item)) {
            return false;
        }
    }
    *out = value_dict(V_DICT, d);
    return true;
}

static bool from_json(render *r, const cJSON *json, int depth, value *out) {
    if (depth > TEMPLATE_MAX_NEST) {
        return too_deep(r);
    }
    if (cJSON_IsArray(json) || cJSON_IsObject(json)) {
        size_t n = 0;
        for (const cJSON *c = json->child; c; c = c->next) {
            n++;
        }
        if (cJSON_IsObject(json)) {
            return from_members(r, json, n, depth, out);
        }
        list *l = jinja_list(r, n);
        if (!l) {
            return false;
        }
        size_t i = 0;
        for (const cJSON *c = json->child; c; c = c->next) {
            if (!from_json(r, c, depth + 1, &l->items[i++])) {
                return false;
            }
        }
        *out = value_list(V_LIST, l);
        return true;
    }
    if (cJSON_IsString(json)) {
        const char *bytes = json->valuestring ? json->valuestring : "";
        return jinja_text_share(r, bytes, strlen(bytes), false, out);
    }
    if (cJSON_IsNumber(json)) { /* cJSON keeps doubles only: 1.0 comes out as 1 */
        double d = json->valuedouble;
        bool   whole = d >= -9007199254740992.0 && d <= 9007199254740992.0 && d == floor(d);
        *out = whole ? value_int((int64_t)d) : value_float(d);
        return true;
    }
    *out = cJSON_IsBool(json) ? value_bool(cJSON_IsTrue(json)) : value_none();
    return true;
}

bool jinja_from_json(render *r, const cJSON *json, value *out) {
    return from_json(r, json, 0, out);
}
