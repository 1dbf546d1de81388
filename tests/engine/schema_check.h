/* schema_check.h - does a JSON value satisfy a schema: the keywords of schema.c, checked on values and not on texts. */
#ifndef TESTS_ENGINE_SCHEMA_CHECK_H
#define TESTS_ENGINE_SCHEMA_CHECK_H

#include "check.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <regex.h>

#include "base/json.h"
#include "base/utf8.h"

static bool satisfies(const cJSON *root, const cJSON *s, const cJSON *v);

static inline const cJSON *word_of(const cJSON *s, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(s, key);
}

static inline double number_of(const cJSON *s, const char *key, double otherwise) {
    const cJSON *x = word_of(s, key);
    return x ? x->valuedouble : otherwise;
}

static inline bool has_type(const char *type, const cJSON *v) {
    return strcmp(type, "object") == 0    ? cJSON_IsObject(v)
           : strcmp(type, "array") == 0   ? cJSON_IsArray(v)
           : strcmp(type, "string") == 0  ? cJSON_IsString(v)
           : strcmp(type, "boolean") == 0 ? cJSON_IsBool(v)
           : strcmp(type, "null") == 0    ? cJSON_IsNull(v)
           : strcmp(type, "integer") == 0 ? cJSON_IsNumber(v) && floor(v->valuedouble) == v->valuedouble
                                          : cJSON_IsNumber(v);
}

static inline bool type_holds(const cJSON *s, const cJSON *v) {
    const cJSON *type = word_of(s, "type"), *t;
    if (cJSON_IsString(type)) {
        return has_type(type->valuestring, v);
    }
    cJSON_ArrayForEach(t, type) {
        if (has_type(t->valuestring, v)) {
            return true;
        }
    }
    return !type;
}

static inline int characters(const char *text) {
    int n = 0;
    for (; *text; text++) {
        n += (*text & 0xC0) != 0x80;
    }
    return n;
}

/* Patterns of the tests are in the part that POSIX has too. */
static inline bool matches(const char *pattern, const char *text) {
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool yes = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return yes;
}

static inline bool string_holds(const cJSON *s, const cJSON *v) {
    const cJSON *pattern = word_of(s, "pattern");
    int          n = characters(v->valuestring);
    bool         ok = n >= number_of(s, "minLength", 0) && n <= number_of(s, "maxLength", 1e9);
    return ok && (!pattern || matches(pattern->valuestring, v->valuestring));
}

static inline bool object_holds(const cJSON *root, const cJSON *s, const cJSON *v) {
    const cJSON *props = word_of(s, "properties"), *extra = word_of(s, "additionalProperties"), *r;
    cJSON_ArrayForEach(r, word_of(s, "required")) {
        if (!word_of(v, r->valuestring)) {
            return false;
        }
    }
    for (const cJSON *m = v->child; m; m = m->next) {
        const cJSON *of = word_of(props, m->string);
        if (of ? !satisfies(root, of, m)
               : (cJSON_IsFalse(extra) && !word_of(s, "patternProperties")) ||
                     (cJSON_IsObject(extra) && !satisfies(root, extra, m))) {
            return false;
        }
    }
    const cJSON *kinds = word_of(s, "patternProperties"), *names = word_of(s, "propertyNames");
    for (const cJSON *m = v->child; m; m = m->next) {
        cJSON name = {.type = cJSON_String, .valuestring = m->string};
        if (names && !satisfies(root, names, &name)) {
            return false;
        }
        for (const cJSON *k = kinds ? kinds->child : NULL; k; k = k->next) {
            if (matches(k->string, m->string) && !satisfies(root, k, m)) {
                return false;
            }
        }
    }
    int n = cJSON_GetArraySize(v);
    return n >= number_of(s, "minProperties", 0) && n <= number_of(s, "maxProperties", 1e9);
}

static inline bool array_holds(const cJSON *root, const cJSON *s, const cJSON *v) {
    const cJSON *prefix = word_of(s, "prefixItems"), *items = word_of(s, "items");
    int          n = cJSON_GetArraySize(v), first = cJSON_GetArraySize(prefix);
    for (int i = 0; i < n; i++) {
        const cJSON *of = i < first ? cJSON_GetArrayItem(prefix, i) : items;
        if (of && !satisfies(root, of, cJSON_GetArrayItem(v, i))) {
            return false;
        }
    }
    for (int i = 0; cJSON_IsTrue(word_of(s, "uniqueItems")) && i < n; i++) {
        for (int k = 0; k < i; k++) {
            if (cJSON_Compare(cJSON_GetArrayItem(v, i), cJSON_GetArrayItem(v, k), true)) {
                return false;
            }
        }
    }
    return n >= number_of(s, "minItems", 0) && n <= number_of(s, "maxItems", 1e9);
}

static inline bool some_hold(const cJSON *root, const cJSON *list, const cJSON *v, bool all) {
    const cJSON *c;
    cJSON_ArrayForEach(c, list) {
        if (satisfies(root, c, v) != all) {
            return !all;
        }
    }
    return all;
}

static bool satisfies(const cJSON *root, const cJSON *s, const cJSON *v) {
    if (cJSON_IsBool(s)) {
        return cJSON_IsTrue(s);
    }
    if (cJSON_IsNull(v) && cJSON_IsTrue(word_of(s, "nullable"))) {
        return true;
    }
    const cJSON *ref = word_of(s, "$ref"), *c, *list = word_of(s, "enum");
    if (ref) { /* "#", "#/$defs/name" */
        const char *name = strrchr(ref->valuestring, '/');
        if (!satisfies(root, name ? word_of(word_of(root, "$defs"), name + 1) : root, v)) {
            return false;
        }
    }
    bool listed = !list;
    cJSON_ArrayForEach(c, list) {
        listed = listed || cJSON_Compare(c, v, true);
    }
    if (!listed || !type_holds(s, v) || (word_of(s, "const") && !cJSON_Compare(word_of(s, "const"), v, true)) ||
        (word_of(s, "anyOf") && !some_hold(root, word_of(s, "anyOf"), v, false)) ||
        (word_of(s, "oneOf") && !some_hold(root, word_of(s, "oneOf"), v, false)) ||
        !some_hold(root, word_of(s, "allOf"), v, true) ||
        (word_of(s, "not") && satisfies(root, word_of(s, "not"), v))) {
        return false;
    }
    if (cJSON_IsNumber(v)) {
        double x = v->valuedouble, times = x / number_of(s, "multipleOf", 1);
        if (word_of(s, "multipleOf") && fabs(times - nearbyint(times)) > 1e-9 + fabs(times) * 1e-15) {
            return false;
        }
        return x >= number_of(s, "minimum", -INFINITY) && x <= number_of(s, "maximum", INFINITY) &&
               x > number_of(s, "exclusiveMinimum", -INFINITY) && x < number_of(s, "exclusiveMaximum", INFINITY);
    }
    return cJSON_IsString(v)   ? string_holds(s, v)
           : cJSON_IsObject(v) ? object_holds(root, s, v)
           : cJSON_IsArray(v)  ? array_holds(root, s, v)
                               : true;
}

/* The text is JSON, and satisfies the schema. */
static inline void check_text(const cJSON *schema, const char *text, size_t n) {
    const char *end =
        NULL; /* not json_parse: in maps a name may come twice, which no context-free grammar can prevent */
    cJSON *v = utf8_valid(text, n, NULL) ? cJSON_ParseWithLengthOpts(text, n, &end, false) : NULL;
    if (!v || end != text + n || !satisfies(schema, schema, v)) {
        char *s = cJSON_PrintUnformatted(schema);
        fail_msg("%.*s is not of the schema %.300s", (int)n, text, s);
    }
    cJSON_Delete(v);
}

static const char *const schema_samples[] = {
    "{\"type\":\"object\"}",
    "{}",
    "true",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\"}},"
    "\"required\":[\"name\",\"age\"],\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"boolean\"},\"c\":{\"const\":[1,{"
    "\"x\":"
    "null}]},\"d\":{\"enum\":[\"q\\\"\",2.5,null]}},\"required\":[\"c\"],\"title\":\"t\"}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"boolean\"},\"c\":{\"type\":"
    "\"null\"}}}",
    "{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"null\"},\"ac\":{\"type\":\"boolean\"},\"\\u00e9\":{"
    "\"type\":"
    "\"null\"}},\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"number\"},\"minProperties\":2,\"maxProperties\":3}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":-12,\"maximum\":123},\"minItems\":1,\"maxItems\":"
    "4}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":{\"type\":"
    "\"boolean\"},"
    "\"maxItems\":4}",
    "{\"type\":\"array\",\"items\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"number\",\"exclusiveMinimum\":-2.5,\"exclusiveMaximum\":17.25}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"number\",\"minimum\":99.125,\"maximum\":101}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"exclusiveMinimum\":0}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"maximum\":-10}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":5},\"maxItems\":6}",
    "{\"type\":\"string\",\"maxLength\":300}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[a-z]+(-[0-9]{2,3})?$\"}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"a.[^a-z]\"}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^(yes|no|[\\\"\\\\\\\\/"
    "]{2})$\",\"maxLength\":3}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"format\":\"date-time\"}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"format\":\"email\"},\"maxItems\":2}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"format\":\"uuid\"},\"maxItems\":2}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"format\":\"ipv4\"},\"maxItems\":3}",
    "{\"$ref\":\"#/$defs/tree\",\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
    "\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},\"required\":[\"v\",\"kids\"]}}}",
    "{\"type\":\"object\",\"properties\":{\"next\":{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}},\"required\":["
    "\"next\"]}",
    "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"a\"},\"x\":{\"type\":\"integer\"}},"
    "\"required\":["
    "\"kind\",\"x\"]},{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"b\"},\"y\":{\"type\":\"string\"}},"
    "\"required\":[\"kind\",\"y\"]}]}",
    "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\",\"minimum\":0}},\"required\":[\"a\"]},"
    "{\"properties\":{\"a\":{\"maximum\":10,\"type\":\"integer\"},\"b\":{\"type\":\"string\"}},\"required\":[\"b\"]}]}",
    "{\"type\":[\"string\",\"null\"],\"maxLength\":4}",
    "{\"type\":\"integer\",\"nullable\":true}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}},\"oneOf\":[{\"required\":[\"a\"]},{\"properties\":"
    "{\"b\":{"
    "\"type\":\"null\"}},\"required\":[\"b\"]}]}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":-50,\"maximum\":1234}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"multipleOf\":60}}",
    "{\"type\":\"array\",\"items\":{\"multipleOf\":0.25,\"exclusiveMinimum\":0,\"maximum\":64}}",
    "{\"type\":\"array\",\"items\":{\"type\":\"number\",\"multipleOf\":0.01,\"minimum\":0,\"maximum\":99.99}}",
    "{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"enum\":[1,\"a\",null,[2],1.0]},\"minItems\":1,\"maxItems\":"
    "3}",
    "{\"type\":\"object\",\"patternProperties\":{\"^[a-f]{2,4}$\":{\"type\":\"integer\"}},\"additionalProperties\":"
    "false}",
    "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^k[0-9]+$\"},\"additionalProperties\":{\"type\":\"null\"}}",
    "{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"p\",\"q\",\"r\"]},\"additionalProperties\":{\"type\":\"null\"}"
    "}",
    "{\"type\":\"array\",\"items\":{\"not\":{\"type\":[\"object\",\"array\"]}}}",
    "{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
    "n\",\"maximum\":5},\"$defs\":{\"n\":{\"type\":\"integer\",\"minimum\":1}}}",
};

#define SCHEMA_SAMPLES (sizeof(schema_samples) / sizeof(*schema_samples))

#endif
