/* schema.c - JSON Schema 2020-12 as a grammar of compact JSON.
 *
 * Read: type, enum, const, properties, required, additionalProperties, minProperties, maxProperties, propertyNames and one
 * of patternProperties of maps, items, prefixItems, minItems, maxItems, uniqueItems of a few values, minLength, maxLength,
 * pattern, format, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf of what has few digits, anyOf, oneOf (as
 * anyOf), allOf (merged), not (of types, or values of an enum), $ref within the document, $defs, definitions, nullable.
 * What only describes is passed over; all else is refused by its name. Members come in the order in which they are declared.
 * A schema may allow more than the grammar (spellings, orders, escapes), never less.                                 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "engine/schema_parts.h"

static const char *const notes[] = {
    "title",       "description",   "default",         "examples",      "example",
    "deprecated",  "readOnly",      "writeOnly",       "$schema",       "$id",
    "id",          "$comment",      "$anchor",         "$vocabulary",   "$defs",
    "definitions", "contentSchema", "contentEncoding", "discriminator", "contentMediaType",
    "xml",         "externalDocs",  "$dynamicAnchor"};

static const char *const read_words[] = {
    "type",        "enum",          "const",         "properties",    "required",          "additionalProperties",
    "items",       "prefixItems",   "minItems",      "maxItems",      "minLength",         "maxLength",
    "pattern",     "format",        "minimum",       "maximum",       "exclusiveMinimum",  "exclusiveMaximum",
    "anyOf",       "oneOf",         "allOf",         "$ref",          "nullable",          "multipleOf",
    "uniqueItems", "minProperties", "maxProperties", "propertyNames", "patternProperties", "not"};

static bool has(const cJSON *node, const char *key) { /* cJSON's own does not mind the case */
    return cJSON_GetObjectItemCaseSensitive(node, key) != NULL;
}

static bool is_among(const char *key, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (strcmp(key, list[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool schema_is_note(const char *key) {
    return strncmp(key, "x-", 2) == 0 || is_among(key, notes, sizeof(notes) / sizeof(*notes));
}

void schema_wrong(schema *s, err_code code, const char *format, ...) {
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (!s->r->failed) {
        err_at(s->r->e, code, s->path, "schema%s%.100s: %s", s->path[0] ? " at " : "", s->path, text);
    }
    s->r->failed = true;
}

int schema_count(schema *s, const cJSON *node, const char *key, int fallback) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(node, key);
    if (!v) {
        return fallback;
    }
    if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble != (double)(int64_t)v->valuedouble) {
        schema_wrong(s, ERR_INVALID, "%s must be a whole number from 0 on", key);
        return fallback;
    }
    if (v->valuedouble > GRAMMAR_MOST_COUNT) {
        schema_wrong(s, ERR_LIMIT, "%s is more than %d", key, GRAMMAR_MOST_COUNT);
        return fallback;
    }
    return (int)v->valuedouble;
}

/* ---- small parts ---- */

const expr *schema_word(schema *s, const char *text) {
    return expr_text(s->r, text, strlen(text));
}

static const expr *with_space(schema *s, const char *mark) {
    json_space space = s->o ? s->o->space : JSON_SPACE_OPTIONAL;
    if (space == JSON_SPACE_OPTIONAL) {
        return expr_pair(s->r, schema_word(s, mark), expr_optional(s->r, schema_word(s, " ")));
    }
    return space == JSON_SPACE_ONE ? expr_pair(s->r, schema_word(s, mark), schema_word(s, " ")) : schema_word(s, mark);
}

const expr *schema_comma(schema *s) {
    return with_space(s, ",");
}

const expr *schema_colon(schema *s) {
    return with_space(s, ":");
}

const expr *schema_apart(schema *s, const char *name, const expr *body) {
    int rule = rules_add(s->r, name);
    if (rule < 0) {
        return NULL;
    }
    s->r->rule[rule].body = body;
    s->r->rule[rule].apart = true;
    return expr_rule(s->r, rule);
}

/* Any JSON value; objects and arrays in it come back to it. */
const expr *schema_any(schema *s) {
    if (s->any < 0 && (s->any = rules_add(s->r, "any value")) >= 0) {
        cJSON       empty = {.type = cJSON_Object};
        const expr *all[7] = {schema_object(s, &empty),    schema_array(s, &empty), schema_plain_string(s),
                              schema_number(s, &empty, 0), schema_word(s, "true"),  schema_word(s, "false"),
                              schema_word(s, "null")};
        s->r->rule[s->any].body = expr_alt(s->r, all, 7);
        s->r->rule[s->any].apart = true;
    }
    return expr_rule(s->r, s->any);
}

/* ---- references ---- */

static bool same_key(const char *key, const char *part, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++, k++) {
        char c = part[i];
        if (c == '~' && i + 1 < n && (part[i + 1] == '0' || part[i + 1] == '1')) { /* RFC 6901 */
            c = part[++i] == '0' ? '~' : '/';
        } else if (c == '%' && i + 2 < n) {
            char hex[3] = {part[i + 1], part[i + 2], 0}, *end;
            long code = strtol(hex, &end, 16);
            c = *end == 0 ? (char)code : c;
            i += *end == 0 ? 2 : 0;
        }
        if (key[k] != c) {
            return false;
        }
    }
    return key[k] == 0;
}

static const cJSON *child(const cJSON *node, const char *part, size_t n) {
    long number = 0;
    if (cJSON_IsArray(node)) {
        number = strtol(part, NULL, 10);
    }
    for (const cJSON *c = cJSON_IsObject(node) || cJSON_IsArray(node) ? node->child : NULL; c; c = c->next) {
        if (cJSON_IsArray(node) ? number-- == 0 : same_key(c->string, part, n)) {
            return c;
        }
    }
    return NULL;
}

const cJSON *schema_target(schema *s, const cJSON *node) {
    const cJSON *ref = cJSON_GetObjectItemCaseSensitive(node, "$ref");
    const char  *at = cJSON_IsString(ref) ? ref->valuestring : "";
    const cJSON *to = s->root;
    if (at[0] != '#' || (at[1] && at[1] != '/')) {
        schema_wrong(s, ERR_UNSUPPORTED, "$ref \"%.60s\" leaves the document; only \"#/...\" is possible", at);
        return NULL;
    }
    for (at++; *at == '/' && to;) {
        size_t n = strcspn(at + 1, "/");
        to = child(to, at + 1, n);
        at += n + 1;
    }
    if (!to) {
        schema_wrong(s, ERR_INVALID, "$ref \"%.60s\" names nothing in the schema", ref->valuestring);
    }
    return to;
}

/* A rule for the schema that is referred to, made once, so that it may refer to itself. */
static const expr *refer(schema *s, const cJSON *to) {
    int64_t rule;
    if (!map_get(s->rule_of, &to, sizeof(to), &rule)) {
        rule = rules_add(s->r, to->string ? to->string : "a schema");
        if (rule < 0 || !map_put(s->rule_of, &to, sizeof(to), rule)) {
            rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
            return NULL;
        }
        const expr *body = schema_value(s, to);
        s->r->rule[rule].body = body;
        s->r->rule[rule].apart = true;
    }
    return expr_rule(s->r, (int)rule);
}

/* ---- kinds of schema ---- */

static bool has_more_than(const cJSON *node, const char *key) {
    for (const cJSON *c = node->child; c; c = c->next) {
        if (strcmp(c->string, key) != 0 && !schema_is_note(c->string)) {
            return true;
        }
    }
    return false;
}

const cJSON *schema_without(schema *s, const cJSON *node, const char *key) {
    cJSON        only = {.type = cJSON_Object};
    const cJSON *copy = schema_merge(s, node, &only);
    if (copy) {
        cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)copy, key); /* the copy is s's own */
    }
    return copy;
}

static const expr *alternatives(schema *s, const cJSON *node, const char *key) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(node, key);
    int          n = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || n == 0) {
        schema_wrong(s, ERR_INVALID, "%s must be an array with at least one schema", key);
        return NULL;
    }
    const cJSON *base = has_more_than(node, key) ? schema_without(s, node, key) : NULL;
    const expr **item = calloc((size_t)n, sizeof(const expr *));
    int          k = 0;
    if (!item) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    for (const cJSON *c = list->child; c && !s->r->failed; c = c->next) {
        if (cJSON_IsFalse(c)) {
            continue;
        }
        const cJSON *both = base ? schema_merge(s, base, c) : c;
        item[k++] = both ? schema_below(s, both, key) : NULL;
    }
    const expr *x = s->r->failed ? NULL : schema_apart(s, key, expr_alt(s->r, item, k));
    free(item);
    return x;
}

static const expr *all_of(schema *s, const cJSON *node) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(node, "allOf");
    const cJSON *sum = cJSON_IsArray(list) ? schema_without(s, node, "allOf") : NULL;
    if (!cJSON_IsArray(list)) {
        schema_wrong(s, ERR_INVALID, "allOf must be an array of schemas");
    }
    for (const cJSON *c = sum ? list->child : NULL; c && sum; c = c->next) {
        sum = schema_merge(s, sum, c);
    }
    return sum ? schema_value(s, sum) : NULL;
}

static bool is_kind(const cJSON *v, const char *type) {
    static const struct {
        const char *name;
        int         kinds;
    } types[] = {{"object", cJSON_Object}, {"array", cJSON_Array}, {"string", cJSON_String},
                 {"number", cJSON_Number}, {"null", cJSON_NULL},   {"boolean", cJSON_True | cJSON_False}};
    if (strcmp(type, "integer") == 0) {
        return cJSON_IsNumber(v) && v->valuedouble >= -9e15 && v->valuedouble <= 9e15 &&
               v->valuedouble == (double)(int64_t)v->valuedouble;
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (strcmp(type, types[i].name) == 0) {
            return (v->type & 0xFF & types[i].kinds) != 0;
        }
    }
    return false;
}

bool schema_type_allows(const cJSON *node, const cJSON *v) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(node, "type"), *t = NULL;
    if (cJSON_IsNull(v) && cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(node, "nullable"))) {
        return true;
    }
    cJSON_ArrayForEach(t, type) {
        if (cJSON_IsString(t) && is_kind(v, t->valuestring)) {
            return true;
        }
    }
    return cJSON_IsString(type) ? is_kind(v, type->valuestring) : !type;
}

const expr *schema_written(schema *s, const cJSON *v) {
    str         text = {0};
    bool        ok = json_write(v, &text);
    const expr *x = ok ? expr_text(s->r, text.data, text.len) : NULL;
    str_free(&text);
    if (!x) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
    }
    return x;
}

/* The values of enum or const, as far as `type` allows them. */
static const expr *values(schema *s, const cJSON *node) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(node, "enum"), *v = NULL;
    const cJSON *one = cJSON_GetObjectItemCaseSensitive(node, "const");
    int          n = list ? cJSON_GetArraySize(list) : 1, k = 0;
    for (const cJSON *c = node->child; c; c = c->next) {
        static const char *const beside[] = {"type", "enum", "const", "nullable"};
        if (!schema_is_note(c->string) && !is_among(c->string, beside, 4)) {
            schema_wrong(s, ERR_UNSUPPORTED, "%s beside enum or const is not supported; leave it out", c->string);
        }
    }
    if (list && (!cJSON_IsArray(list) || n == 0 || n > SCHEMA_MOST_VALUES)) {
        schema_wrong(s, ERR_INVALID, "enum must be an array of 1 to %d values", SCHEMA_MOST_VALUES);
    }
    const expr **item = s->r->failed ? NULL : calloc((size_t)n + 1, sizeof(const expr *));
    if (!item) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return NULL;
    }
    cJSON_ArrayForEach(v, list) {
        if (schema_type_allows(node, v) && (!one || cJSON_Compare(v, one, true))) {
            item[k++] = schema_written(s, v);
        }
    }
    if (!list && schema_type_allows(node, one)) {
        item[k++] = schema_written(s, one);
    }
    if (k == 0) {
        schema_wrong(s, ERR_INVALID, "no value satisfies both enum or const and the rest");
    }
    const expr *x = s->r->failed ? NULL
                    : k > 8      ? schema_apart(s, "enum", expr_alt(s->r, item, k))
                                 : expr_alt(s->r, item, k);
    free(item);
    return x;
}

static const expr *of_type(schema *s, const cJSON *node, const char *type) {
    if (strcmp(type, "object") == 0) {
        return schema_object(s, node);
    }
    if (strcmp(type, "array") == 0) {
        return schema_array(s, node);
    }
    if (strcmp(type, "string") == 0) {
        return schema_string(s, node);
    }
    if (strcmp(type, "number") == 0 || strcmp(type, "integer") == 0) {
        return schema_number(s, node, type[0] == 'i');
    }
    if (strcmp(type, "null") == 0) {
        return schema_word(s, "null");
    }
    if (strcmp(type, "boolean") == 0) {
        const expr *both[] = {schema_word(s, "true"), schema_word(s, "false")};
        return expr_alt(s->r, both, 2);
    }
    schema_wrong(s, ERR_INVALID, "the type \"%.40s\" is unknown", type);
    return NULL;
}

/* A schema without a type means the type that its keywords speak of. */
static const char *type_meant(const cJSON *node) {
    static const char *const speak[][2] = {
        {"properties", "object"},       {"required", "object"},         {"additionalProperties", "object"},
        {"minProperties", "object"},    {"maxProperties", "object"},    {"items", "array"},
        {"prefixItems", "array"},       {"minItems", "array"},          {"maxItems", "array"},
        {"minLength", "string"},        {"maxLength", "string"},        {"pattern", "string"},
        {"format", "string"},           {"minimum", "number"},          {"maximum", "number"},
        {"exclusiveMinimum", "number"}, {"exclusiveMaximum", "number"}, {"uniqueItems", "array"},
        {"multipleOf", "number"},       {"propertyNames", "object"},    {"patternProperties", "object"}};
    for (size_t i = 0; i < sizeof(speak) / sizeof(*speak); i++) {
        if (has(node, speak[i][0])) {
            return speak[i][1];
        }
    }
    return NULL;
}

static const expr *by_type(schema *s, const cJSON *node) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(node, "type"), *t = NULL;
    const expr  *item[8];
    int          n = 0;
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(node, "nullable"))) {
        item[n++] = schema_word(s, "null");
    }
    if (cJSON_IsString(type)) {
        item[n++] = of_type(s, node, type->valuestring);
    } else if (cJSON_IsArray(type) && cJSON_GetArraySize(type) > 0 && cJSON_GetArraySize(type) < 8) {
        cJSON_ArrayForEach(t, type) {
            if (!cJSON_IsString(t)) {
                schema_wrong(s, ERR_INVALID, "a list of types holds something else than names");
                return NULL;
            }
            if (n < 8 && !s->r->failed) {
                item[n++] = of_type(s, node, t->valuestring);
            }
        }
    } else if (type) {
        schema_wrong(s, ERR_INVALID, "type must be a name or a list of names");
    } else {
        item[n++] = type_meant(node) ? of_type(s, node, type_meant(node)) : schema_any(s);
    }
    return s->r->failed ? NULL : expr_alt(s->r, item, n);
}

static bool check_words(schema *s, const cJSON *node) {
    for (const cJSON *c = node->child; c; c = c->next) {
        if (!schema_is_note(c->string) && !is_among(c->string, read_words, sizeof(read_words) / sizeof(*read_words))) {
            schema_wrong(s, ERR_UNSUPPORTED, "the keyword \"%.60s\" is not supported", c->string);
        }
    }
    if (has(node, "anyOf") && has(node, "oneOf")) {
        schema_wrong(s, ERR_UNSUPPORTED, "anyOf and oneOf in one schema are not supported");
    }
    return !s->r->failed;
}

static const expr *read_node(schema *s, const cJSON *node) {
    if (cJSON_IsTrue(node)) {
        return schema_any(s);
    }
    if (!cJSON_IsObject(node)) {
        schema_wrong(s, ERR_INVALID,
                     cJSON_IsFalse(node) ? "false allows no value at all" : "a schema must be an object");
        return NULL;
    }
    if (!check_words(s, node)) {
        return NULL;
    }
    if (has(node, "not")) {
        const cJSON *rest = schema_not(s, node);
        return rest ? schema_value(s, rest) : NULL;
    }
    if (has(node, "$ref")) {
        const cJSON *to = schema_target(s, node);
        if (to && has_more_than(node, "$ref")) {
            const cJSON *rest = schema_without(s, node, "$ref");
            to = rest ? schema_merge(s, rest, to) : NULL;
            return to ? schema_value(s, to) : NULL;
        }
        return to ? refer(s, to) : NULL;
    }
    if (has(node, "allOf")) {
        return all_of(s, node);
    }
    if (has(node, "anyOf") || has(node, "oneOf")) {
        return alternatives(s, node, has(node, "anyOf") ? "anyOf" : "oneOf");
    }
    if (has(node, "enum") || has(node, "const")) {
        return values(s, node);
    }
    return by_type(s, node);
}

const expr *schema_value(schema *s, const cJSON *node) {
    if (s->r->failed) {
        return NULL;
    }
    if (++s->nest > SCHEMA_MOST_NEST) {
        schema_wrong(s, ERR_LIMIT, "it nests more than %d deep, or a $ref with keywords beside it comes back to itself",
                     SCHEMA_MOST_NEST);
    }
    const expr *x = s->r->failed ? NULL : read_node(s, node);
    s->nest--;
    return x;
}

const expr *schema_below(schema *s, const cJSON *node, const char *key) {
    size_t n = strlen(s->path);
    snprintf(s->path + n, sizeof(s->path) - n, "%s%s", n ? "." : "", key);
    const expr *x = schema_value(s, node);
    if (!s->r->failed) {
        s->path[n] = 0;
    }
    return x;
}

/* ---- whole schemas ---- */

bool schema_read(schema *s, const cJSON *root, const expr **out) {
    s->root = root;
    s->rule_of = map_new(16);
    if (!s->rule_of) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
    }
    *out = s->r->failed ? NULL : cJSON_IsObject(root) ? refer(s, root) : schema_value(s, root);
    for (int i = 0; i < s->n_made; i++) {
        cJSON_Delete(s->made[i]);
    }
    free(s->made);
    map_free(s->rule_of);
    s->made = NULL;
    s->n_made = s->cap_made = 0;
    return !s->r->failed;
}

static schema begin(rules *r, const schema_options *o) {
    return (schema){.r = r, .o = o, .any = -1, .object = -1, .string = -1, .number = -1, .integer = -1};
}

static const cJSON any_object = {.type = cJSON_Object,
                                 .child = &(cJSON){.type = cJSON_String, .valuestring = "object", .string = "type"}};

static const expr *one_or_more(rules *r, const expr *x, const char *between, int most) {
    const expr *more = expr_pair(r, expr_text(r, between, strlen(between)), x);
    return most > 1 ? expr_pair(r, x, expr_repeat(r, more, 0, most - 1)) : x;
}

grammar *grammar_from_calls(const grammar_call *calls, int n, const char *between, int most, const schema_options *o,
                            err *e) {
    err   unread = {0};
    rules r;
    e = e ? e : &unread;
    if (!rules_begin(&r, e)) {
        return NULL;
    }
    schema       s = begin(&r, o);
    int          root = rules_add(&r, "root");
    const expr **item = n > 0 ? calloc((size_t)n, sizeof(const expr *)) : NULL;
    if (!item) {
        rules_fail(&r, n > 0 ? ERR_MEMORY : ERR_INVALID,
                   n > 0 ? "out of memory for a grammar" : "a grammar of no calls");
    }
    for (int i = 0; item && i < n && !r.failed; i++) {
        const expr *x = NULL, *of[3];
        schema_read(&s, calls[i].schema ? calls[i].schema : &any_object, &x);
        of[0] = expr_text(&r, calls[i].before, strlen(calls[i].before));
        of[1] = x;
        of[2] = expr_text(&r, calls[i].after, strlen(calls[i].after));
        item[i] = r.failed ? NULL : expr_seq(&r, of, 3);
    }
    const expr *any = r.failed ? NULL : schema_apart(&s, "call", expr_alt(&r, item, n));
    const expr *all = r.failed ? NULL : one_or_more(&r, any, between ? between : "", most);
    free(item);
    if (!r.failed) {
        r.rule[root].body = all;
    }
    return grammar_compile(&r, root, e);
}

grammar *grammar_from_schema(const cJSON *schema, const schema_options *o, err *e) {
    return grammar_from_calls(&(grammar_call){"", schema, ""}, 1, NULL, 1, o, e);
}

grammar *grammar_json_object(const schema_options *o, err *e) {
    return grammar_from_schema(&any_object, o, e);
}
