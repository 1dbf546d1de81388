/* schema_object.c - objects.
 *
 * Members come in the order of their declaration, so an object of n members takes n parts and not n factorial. The comma
 * is the only difficulty: it stands before every member but the first that is there.                                */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "engine/schema_parts.h"

#define MOST_MEMBERS 5000

typedef struct member {
    const char *name;
    const expr *pair; /* "name": value */
    bool        required;
} member;

typedef struct object {
    member     *member;
    int         n, cap;
    const expr *other; /* a pair that is not declared; NULL: none is allowed */
} object;

static const cJSON *get(const cJSON *node, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(node, key);
}

/* ---- names of members that are not declared ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const member *)a)->name, ((const member *)b)->name);
}

/* Characters that a name takes as they are. Escapes are left out, so that a name has one spelling. */
static const expr *name_chars(schema *s, int but_from, int but_to) {
    const code_range all[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x7F}, {0x80, 0x10FFFF}};
    code_range       left[16];
    int              n = 0;
    if (but_from > but_to) {
        return expr_class(s->r, all, 4);
    }
    for (int i = 0; i < 4; i++) { /* `but` is within ASCII */
        left[n++] = (code_range){all[i].lo, all[i].hi < (uint32_t)but_from ? all[i].hi : (uint32_t)but_from - 1};
        left[n++] = (code_range){all[i].lo > (uint32_t)but_to ? all[i].lo : (uint32_t)but_to + 1, all[i].hi};
    }
    code_range out[17];
    return expr_class(s->r, out, class_normal(left, n, false, out));
}

/* The rest of a name whose first `at` bytes are those of m[0..n), and which is none of them. Names beyond ASCII are not
 * followed to their ends: whatever shares a byte beyond ASCII with one at its place is left out. */
static const expr *other_rest(schema *s, const member *m, int n, size_t at, const expr *any_rest) {
    const expr *item[130];
    int         k = 0, i = 0;
    code_range  taken[129], free_codes[130];
    int         n_taken = 0;
    bool        ends = n > 0 && m[0].name[at] == 0;
    if (at > 256 || s->r->failed) {
        return expr_alt(s->r, NULL, 0); /* longer names are not told apart any more */
    }
    if (!ends) {
        item[k++] = schema_word(s, "");
    }
    i = ends;
    while (i < n) {
        uint8_t byte = (uint8_t)m[i].name[at];
        int     end = i;
        while (end < n && (uint8_t)m[end].name[at] == byte) {
            end++;
        }
        if (byte >= 0x80) {
            taken[n_taken++] = (code_range){0x80, 0x10FFFF};
            break;
        }
        taken[n_taken++] = (code_range){byte, byte};
        if (byte != '"' && byte != '\\' && byte >= 0x20) {
            item[k++] = expr_pair(s->r, expr_range(s->r, byte, byte), other_rest(s, m + i, end - i, at + 1, any_rest));
        }
        i = end;
    }
    code_range cut[] = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
    code_range all[132];
    memcpy(all, taken, (size_t)n_taken * sizeof(*all));
    memcpy(all + n_taken, cut, sizeof(cut));
    int codes = class_normal(all, n_taken + 3, true, free_codes);
    item[k++] = expr_pair(s->r, expr_class(s->r, free_codes, codes), any_rest);
    return expr_alt(s->r, item, k);
}

static const expr *other_name(schema *s, const object *o) {
    const expr *any_rest = expr_repeat(s->r, name_chars(s, 1, 0), 0, GRAMMAR_NO_MAX);
    const expr *name = any_rest;
    if (o->n > 0) {
        member *sorted = malloc((size_t)o->n * sizeof(*sorted));
        if (!sorted) {
            rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
            return NULL;
        }
        memcpy(sorted, o->member, (size_t)o->n * sizeof(*sorted));
        qsort(sorted, (size_t)o->n, sizeof(*sorted), by_name);
        name = other_rest(s, sorted, o->n, 0, schema_apart(s, "rest of a name", any_rest));
        free(sorted);
    }
    const expr *all[] = {schema_word(s, "\""), name, schema_word(s, "\"")};
    return schema_apart(s, "another name", expr_seq(s->r, all, 3));
}

/* ---- members ---- */

static const expr *pair_of(schema *s, const char *name, const expr *value) {
    str         text = {0};
    const expr *key = str_jsons(&text, name) ? expr_text(s->r, text.data, text.len) : NULL;
    str_free(&text);
    if (!key) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    const expr *all[] = {key, schema_colon(s), value};
    return expr_seq(s->r, all, 3);
}

/* additionalProperties, as a schema; NULL: none. */
static const cJSON *additional(schema *s, const cJSON *node) {
    static const cJSON anything = {.type = cJSON_True};
    const cJSON       *extra = get(node, "additionalProperties");
    if (!extra) {
        return get(node, "properties") && !(s->o && s->o->open) ? NULL : &anything;
    }
    if (!cJSON_IsBool(extra) && !cJSON_IsObject(extra)) {
        schema_wrong(s, ERR_INVALID, "additionalProperties must be true, false or a schema");
    }
    return cJSON_IsFalse(extra) ? NULL : extra;
}

static bool add_member(schema *s, object *o, const char *name, const expr *value) {
    if (o->n == MOST_MEMBERS) {
        schema_wrong(s, ERR_LIMIT, "an object has more than %d properties", MOST_MEMBERS);
        return false;
    }
    if (o->n == o->cap) {
        int     cap = o->cap ? 2 * o->cap : 16;
        member *more = realloc(o->member, (size_t)cap * sizeof(*more));
        if (!more) {
            rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
            return false;
        }
        o->member = more;
        o->cap = cap;
    }
    o->member[o->n++] = (member){.name = name, .pair = pair_of(s, name, value)};
    return !s->r->failed;
}

/* What is required without being declared must satisfy additionalProperties. */
static bool read_required(schema *s, object *o, const cJSON *node, const cJSON *extra, map *at) {
    const cJSON *list = get(node, "required"), *v = NULL;
    if (list && !cJSON_IsArray(list)) {
        schema_wrong(s, ERR_INVALID, "required must be an array of names");
    }
    cJSON_ArrayForEach(v, list) {
        int64_t i = o->n;
        if (s->r->failed || !cJSON_IsString(v)) {
            schema_wrong(s, ERR_INVALID, "required must be an array of names");
            return false;
        }
        size_t n = strlen(v->valuestring);
        if (!map_get(at, v->valuestring, n, &i)) {
            if (!extra) {
                schema_wrong(s, ERR_INVALID, "\"%.60s\" is required but not among the properties", v->valuestring);
                return false;
            }
            if (!add_member(s, o, v->valuestring, schema_value(s, extra)) || !map_put(at, v->valuestring, n, i)) {
                return false;
            }
        }
        if (o->member && i < o->n) { /* it is: found, or added just now */
            o->member[i].required = true;
        }
    }
    return !s->r->failed;
}

/* patternProperties of maps: names of one kind, and no others. */
static void read_pattern(schema *s, object *o, const cJSON *node) {
    const cJSON *list = get(node, "patternProperties"), *extra = get(node, "additionalProperties");
    int          least = 0, most = 0;
    if (!cJSON_IsObject(list) || cJSON_GetArraySize(list) != 1 || get(node, "properties") || get(node, "required") ||
        get(node, "propertyNames") || (extra && !cJSON_IsFalse(extra))) {
        schema_wrong(s, ERR_UNSUPPORTED,
                     "patternProperties is not supported but for one pattern, without properties, required and "
                     "propertyNames, and with no additionalProperties");
        return;
    }
    const expr *all[] = {schema_word(s, "\""), schema_regex(s, list->child->string, &least, &most),
                         schema_word(s, "\""), schema_colon(s), schema_below(s, list->child, "patternProperties")};
    o->other = s->r->failed ? NULL : expr_seq(s->r, all, 5);
}

/* A member for each name that may be there. */
static void add_named(schema *s, object *o, const cJSON *list, const cJSON *extra, map *at) {
    const cJSON *v = NULL;
    const expr  *value = schema_apart(s, "a value", schema_below(s, extra, "additionalProperties"));
    cJSON_ArrayForEach(v, list) {
        int64_t had;
        if (s->r->failed || !cJSON_IsString(v) || map_get(at, v->valuestring, strlen(v->valuestring), &had)) {
            continue;
        }
        if (!map_put(at, v->valuestring, strlen(v->valuestring), o->n)) {
            rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        }
        add_member(s, o, v->valuestring, value);
    }
}

static const cJSON any_string = {.type = cJSON_Object,
                                 .child = &(cJSON){.type = cJSON_String, .valuestring = "string", .string = "type"}};

/* propertyNames of maps: names out of a list are members that may be there; other names are strings of their schema. */
static void read_names(schema *s, object *o, const cJSON *node, const cJSON *extra, map *at) {
    const cJSON *names = get(node, "propertyNames");
    if (get(node, "properties")) {
        schema_wrong(s, ERR_UNSUPPORTED, "propertyNames beside properties is not supported");
        return;
    }
    const cJSON *of = schema_merge(s, &any_string, names), *list = of ? get(of, "enum") : NULL;
    bool         only = list != NULL;
    for (const cJSON *c = of ? of->child : NULL; c; c = c->next) {
        only = only && (c == list || strcmp(c->string, "type") == 0 || schema_is_note(c->string));
    }
    if (!of || !extra) {
        return;
    }
    if (only && cJSON_GetArraySize(list) <= MOST_MEMBERS) {
        add_named(s, o, list, extra, at);
    } else if (get(node, "required")) {
        schema_wrong(s, ERR_UNSUPPORTED, "required beside propertyNames is not supported, but for an enum of names");
    } else {
        const expr *all[] = {schema_below(s, of, "propertyNames"), schema_colon(s),
                             schema_below(s, extra, "additionalProperties")};
        o->other = s->r->failed ? NULL : expr_seq(s->r, all, 3);
    }
}

static void read_declared(schema *s, object *o, const cJSON *list, map *at) {
    if (list && !cJSON_IsObject(list)) {
        schema_wrong(s, ERR_INVALID, "properties must be an object");
    }
    for (const cJSON *c = list ? list->child : NULL; c && !s->r->failed; c = c->next) {
        if (!map_put(at, c->string, strlen(c->string), o->n)) {
            rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        }
        add_member(s, o, c->string, schema_below(s, c, c->string));
    }
}

/* A keyword that says something: {} and true do not. */
static bool says(const cJSON *word) {
    return word && !cJSON_IsTrue(word) && !(cJSON_IsObject(word) && !word->child);
}

static bool read_members(schema *s, object *o, const cJSON *node) {
    const cJSON *extra = additional(s, node);
    map         *at = map_new(16);
    if (!at) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return false;
    }
    if (says(get(node, "patternProperties"))) {
        read_pattern(s, o, node);
    } else if (says(get(node, "propertyNames"))) {
        read_names(s, o, node, extra, at);
        extra = NULL;
    } else {
        read_declared(s, o, get(node, "properties"), at);
    }
    bool ok = !s->r->failed && read_required(s, o, node, extra, at);
    map_free(at);
    if (ok && extra && !o->other) {
        const expr *all[] = {other_name(s, o), schema_colon(s), schema_below(s, extra, "additionalProperties")};
        o->other = s->r->failed ? NULL : expr_seq(s->r, all, 3);
    }
    return !s->r->failed;
}

/* ---- an object ---- */

/* An object of undeclared members only, least to most of them. */
static const expr *plain_map(schema *s, const object *o, int least, int most) {
    if (most == 0 || !o->other) {
        return schema_word(s, "");
    }
    const expr *pair = schema_apart(s, "a member", o->other);
    const expr *more = expr_repeat(s->r, expr_pair(s->r, schema_comma(s), pair), least > 0 ? least - 1 : 0,
                                   most < 0 ? GRAMMAR_NO_MAX : most - 1);
    const expr *all = expr_pair(s->r, pair, more);
    return least > 0 ? all : expr_optional(s->r, all);
}

/* Members from `from` on, when one stands before them already; then undeclared ones. */
static const expr *members_after(schema *s, const object *o, int from) {
    const expr **item = calloc((size_t)(o->n - from) + 1, sizeof(const expr *));
    int          n = 0;
    if (!item) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    for (int i = from; i < o->n; i++) {
        const expr *x = expr_pair(s->r, schema_comma(s), o->member[i].pair);
        item[n++] = o->member[i].required ? x : expr_optional(s->r, x);
    }
    if (o->other) {
        item[n++] = expr_repeat(s->r, expr_pair(s->r, schema_comma(s), o->other), 0, GRAMMAR_NO_MAX);
    }
    const expr *x = s->r->failed ? NULL : expr_seq(s->r, item, n);
    free(item);
    return x;
}

/* Any of the members up to the first required one may be the first. What follows each is a rule, which begins with the
 * next member or is the rule after that. */
static const expr *members(schema *s, const object *o) {
    int first = 0;
    while (first < o->n && !o->member[first].required) {
        first++;
    }
    int          starts = first < o->n ? first + 1 : o->n, n = 0;
    const expr **item = calloc((size_t)starts + 2, sizeof(const expr *));
    const expr  *after = item ? schema_apart(s, "members", members_after(s, o, starts)) : NULL;
    if (!item) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
    }
    for (int i = starts - 1; item && i >= 0 && !s->r->failed; i--) {
        item[n++] = expr_pair(s->r, o->member[i].pair, after);
        const expr *x = expr_pair(s->r, schema_comma(s), o->member[i].pair);
        x = o->member[i].required ? x : expr_optional(s->r, x);
        after = i > 0 ? schema_apart(s, "members", expr_pair(s->r, x, after)) : after;
    }
    if (item && first == o->n) {
        item[n++] = plain_map(s, o, 0, -1);
    }
    const expr *x = item && !s->r->failed ? expr_alt(s->r, item, n) : NULL;
    free(item);
    return x;
}

/* Any object at all: one rule serves all such schemas. */
static bool is_any_object(const cJSON *node) {
    static const char *const words[] = {"properties",    "required",      "additionalProperties", "minProperties",
                                        "maxProperties", "propertyNames", "patternProperties"};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (get(node, words[i])) {
            return false;
        }
    }
    return true;
}

const expr *schema_object(schema *s, const cJSON *node) {
    object o = {0};
    int    least = schema_count(s, node, "minProperties", 0), most = schema_count(s, node, "maxProperties", -1);
    int    shared = -1;
    if (is_any_object(node) && s->object >= 0) {
        return expr_rule(s->r, s->object);
    }
    if (is_any_object(node)) {
        shared = s->object = rules_add(s->r, "any object"); /* now: its members' values may be any objects */
    }
    const expr *inside = NULL;
    if (read_members(s, &o, node)) {
        if (o.n > 0 && (least > 0 || most >= 0)) {
            schema_wrong(s, ERR_UNSUPPORTED, "minProperties and maxProperties beside properties are not supported");
        } else if (least > 0 && (!o.other || (most >= 0 && most < least))) {
            schema_wrong(s, ERR_INVALID, "no object has as many members as minProperties says");
        }
        inside = o.n > 0 ? members(s, &o) : plain_map(s, &o, least, most);
    }
    free(o.member);
    const expr *all[] = {schema_word(s, "{"), inside, schema_word(s, "}")};
    const expr *x = s->r->failed ? NULL : expr_seq(s->r, all, 3);
    if (shared >= 0 && !s->r->failed) {
        s->r->rule[shared].body = x;
        s->r->rule[shared].apart = true;
        return expr_rule(s->r, shared);
    }
    return x ? schema_apart(s, "an object", x) : NULL;
}
