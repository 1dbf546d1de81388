/* schema_merge.c - two schemas that must both hold, as one: for allOf, and for keywords beside anyOf or $ref.
 *
 * Properties are joined, those with one name merged; the tighter of two bounds stays; types are intersected. Members of
 * one part are members of the whole: additionalProperties false in one part does not forbid what the other declares, for
 * else no two closed objects could be put together.                                                                  */
#include <stdlib.h>
#include <string.h>

#include "engine/schema_parts.h"

static cJSON *get(const cJSON *node, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(node, key);
}

static int values_in(const cJSON *node) {
    int n = 1;
    for (const cJSON *c = node->child; c; c = c->next) {
        n += values_in(c);
    }
    return n;
}

static cJSON *copy_of(schema *s, const cJSON *node) {
    s->made_values += values_in(node);
    if (s->made_values > SCHEMA_MOST_MADE) {
        schema_wrong(s, ERR_LIMIT, "putting its parts together takes more than %d values", SCHEMA_MOST_MADE);
        return NULL;
    }
    cJSON *copy = cJSON_Duplicate(node, true);
    if (!copy) {
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
    }
    return copy;
}

static bool keep(schema *s, cJSON *made) {
    if (made && s->n_made == s->cap_made) {
        int     cap = s->cap_made ? 2 * s->cap_made : 16;
        cJSON **more = realloc(s->made, (size_t)cap * sizeof(*more));
        if (more) {
            s->made = more;
            s->cap_made = cap;
        }
    }
    if (!made || s->n_made == s->cap_made) {
        cJSON_Delete(made);
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
        return false;
    }
    s->made[s->n_made++] = made;
    return true;
}

static void put(schema *s, cJSON *to, const char *key, cJSON *value) {
    if (value && get(to, key)) {
        cJSON_ReplaceItemInObjectCaseSensitive(to, key, value);
    } else if (value && !cJSON_AddItemToObject(to, key, value)) {
        cJSON_Delete(value);
        rules_fail(s->r, ERR_MEMORY, "out of memory for a grammar");
    }
}

static cJSON *both(schema *s, const cJSON *a, const cJSON *b) {
    const cJSON *all = cJSON_IsTrue(a) ? b : cJSON_IsTrue(b) ? a : schema_merge(s, a, b);
    return all ? copy_of(s, all) : NULL;
}

/* A name, or a list of names, as a list. */
static cJSON *type_list(const cJSON *type) {
    cJSON *list = cJSON_IsArray(type) ? cJSON_Duplicate(type, true) : cJSON_CreateArray();
    if (!cJSON_IsArray(type)) {
        cJSON_AddItemToArray(list, cJSON_Duplicate(type, true));
    }
    return list;
}

static void merge_types(schema *s, cJSON *to, const cJSON *b) {
    cJSON *kept = cJSON_CreateArray(), *xs = type_list(get(to, "type")), *ys = type_list(b), *x, *y;
    cJSON_ArrayForEach(x, xs) {
        cJSON_ArrayForEach(y, ys) {
            if (!cJSON_IsString(x) || !cJSON_IsString(y)) {
                continue;
            }
            bool narrow = strcmp(x->valuestring, "number") == 0 && strcmp(y->valuestring, "integer") == 0;
            bool wide = strcmp(x->valuestring, "integer") == 0 && strcmp(y->valuestring, "number") == 0;
            if (narrow || wide || strcmp(x->valuestring, y->valuestring) == 0) {
                cJSON_AddItemToArray(kept, cJSON_Duplicate(narrow ? y : x, true));
            }
        }
    }
    cJSON_Delete(xs);
    cJSON_Delete(ys);
    if (cJSON_GetArraySize(kept) == 0) {
        schema_wrong(s, ERR_INVALID, "parts that must hold together ask for different types");
        cJSON_Delete(kept);
    } else {
        put(s, to, "type", kept);
    }
}

static void merge_properties(schema *s, cJSON *to, const cJSON *b) {
    cJSON *a = get(to, "properties");
    for (const cJSON *c = b->child; c && !s->r->failed; c = c->next) {
        const cJSON *same = get(a, c->string);
        put(s, a, c->string, same ? both(s, same, c) : copy_of(s, c));
    }
}

static bool lists(const cJSON *list, const cJSON *v) {
    for (const cJSON *c = list->child; c; c = c->next) {
        if (cJSON_Compare(c, v, true)) {
            return true;
        }
    }
    return false;
}

/* required: the names of either; enum: the values of both. */
static void merge_lists(schema *s, cJSON *to, const cJSON *b, bool either) {
    cJSON *a = get(to, b->string);
    if (!cJSON_IsArray(a) || !cJSON_IsArray(b) ||
        (int64_t)cJSON_GetArraySize(a) * cJSON_GetArraySize(b) > 4 * SCHEMA_MOST_MADE) {
        schema_wrong(s, ERR_INVALID, "%s must be an array, and in parts that hold together a short one", b->string);
        return;
    }
    for (cJSON *c = a->child, *next; c && !either; c = next) {
        next = c->next;
        if (!lists(b, c)) {
            cJSON_Delete(cJSON_DetachItemViaPointer(a, c));
        }
    }
    for (const cJSON *c = b->child; c && either && !s->r->failed; c = c->next) {
        if (!lists(a, c)) {
            cJSON_AddItemToArray(a, copy_of(s, c));
        }
    }
}

/* -1: the smaller of two stays, 1: the larger, 0: it is no bound. */
static int bound_side(const char *key) {
    static const struct {
        const char *name;
        int         side;
    } bounds[] = {{"minimum", 1},       {"exclusiveMinimum", 1}, {"minLength", 1},         {"minItems", 1},
                  {"minProperties", 1}, {"maximum", -1},         {"exclusiveMaximum", -1}, {"maxLength", -1},
                  {"maxItems", -1},     {"maxProperties", -1}};
    for (size_t i = 0; i < sizeof(bounds) / sizeof(*bounds); i++) {
        if (strcmp(key, bounds[i].name) == 0) {
            return bounds[i].side;
        }
    }
    return 0;
}

static void merge_word(schema *s, cJSON *to, const cJSON *b) {
    cJSON *a = get(to, b->string);
    int    side = bound_side(b->string);
    if (!a) {
        put(s, to, b->string, copy_of(s, b));
    } else if (schema_is_note(b->string) || cJSON_Compare(a, b, true)) {
        return;
    } else if (side && cJSON_IsNumber(a) && cJSON_IsNumber(b)) {
        cJSON_SetNumberValue(a, (b->valuedouble - a->valuedouble) * side > 0 ? b->valuedouble : a->valuedouble);
    } else if (strcmp(b->string, "type") == 0) {
        merge_types(s, to, b);
    } else if (strcmp(b->string, "properties") == 0 && cJSON_IsObject(a) && cJSON_IsObject(b)) {
        merge_properties(s, to, b);
    } else if (strcmp(b->string, "required") == 0 || strcmp(b->string, "enum") == 0) {
        merge_lists(s, to, b, b->string[0] == 'r');
    } else if (strcmp(b->string, "nullable") == 0) {
        put(s, to, b->string, cJSON_CreateFalse());
    } else if (strcmp(b->string, "additionalProperties") == 0 && (cJSON_IsFalse(a) || cJSON_IsFalse(b))) {
        put(s, to, b->string, cJSON_CreateFalse());
    } else if (strcmp(b->string, "items") == 0 || strcmp(b->string, "additionalProperties") == 0) {
        put(s, to, b->string, both(s, a, b));
    } else {
        schema_wrong(s, ERR_UNSUPPORTED, "parts that must hold together have two different values of %s", b->string);
    }
}

/* What a schema says itself, without a reference. */
static const cJSON *resolved(schema *s, const cJSON *node) {
    for (int i = 0; node && !s->r->failed && cJSON_IsObject(node) && get(node, "$ref"); i++) {
        const cJSON *to = i < 32 ? schema_target(s, node) : NULL;
        bool         alone = true;
        for (const cJSON *c = node->child; c; c = c->next) {
            alone = alone && (strcmp(c->string, "$ref") == 0 || schema_is_note(c->string));
        }
        if (i == 32) {
            schema_wrong(s, ERR_LIMIT, "$ref leads to $ref more than 32 times");
        }
        if (!to || alone) {
            node = to;
            continue;
        }
        cJSON *rest = copy_of(s, node);
        if (rest) {
            cJSON_DeleteItemFromObjectCaseSensitive(rest, "$ref");
        }
        node = rest && keep(s, rest) ? schema_merge(s, rest, to) : NULL;
    }
    return node;
}

const cJSON *schema_merge(schema *s, const cJSON *a, const cJSON *b) {
    if (++s->nest > SCHEMA_MOST_NEST) {
        schema_wrong(s, ERR_LIMIT, "parts that must hold together nest more than %d deep", SCHEMA_MOST_NEST);
    }
    b = s->r->failed ? NULL : resolved(s, b);
    cJSON *to = NULL;
    if (b && cJSON_IsTrue(b)) {
        to = copy_of(s, a);
    } else if (b && (!cJSON_IsObject(a) || !cJSON_IsObject(b))) {
        schema_wrong(s, ERR_INVALID, "a part that must hold is not a schema");
    } else if (b) {
        bool         a_has = get(a, "$ref") != NULL && b->child;
        const cJSON *from = a_has ? resolved(s, a) : a;
        to = from ? copy_of(s, from) : NULL;
        if (to && b->child && from != b) {
            for (const cJSON *c = b->child; c && !s->r->failed; c = c->next) {
                merge_word(s, to, c);
            }
        }
    }
    s->nest--;
    return to && keep(s, to) && !s->r->failed ? to : NULL;
}
