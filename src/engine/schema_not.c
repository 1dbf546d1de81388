/* schema_not.c - not, where what is left is a schema again: fewer types, or fewer values of an enum. */
#include <string.h>

#include "engine/schema_parts.h"

static cJSON *get(const cJSON *node, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(node, key);
}

/* The only keyword of a schema, but for those that describe; NULL: it has none, or several. */
static const cJSON *only_word(const cJSON *node, bool *none) {
    const cJSON *word = NULL;
    int          n = 0;
    for (const cJSON *c = node->child; c; c = c->next) {
        if (!schema_is_note(c->string)) {
            word = c;
            n++;
        }
    }
    *none = n == 0;
    return n == 1 ? word : NULL;
}

static bool names(const cJSON *type, const char *name) {
    const cJSON *t = NULL;
    if (cJSON_IsString(type)) {
        return strcmp(type->valuestring, name) == 0;
    }
    cJSON_ArrayForEach(t, type) {
        if (cJSON_IsString(t) && strcmp(t->valuestring, name) == 0) {
            return true;
        }
    }
    return false;
}

/* `copy` without the types that are forbidden; false: they are not types of their own, such as whole numbers. */
static bool drop_types(cJSON *copy, const cJSON *forbidden) {
    static const char *const all[] = {"object", "array", "string", "number", "integer", "boolean", "null"};
    const cJSON             *type = get(copy, "type");
    cJSON                   *left = cJSON_CreateArray();
    if (names(forbidden, "integer") && !names(forbidden, "number") && (!type || names(type, "number"))) {
        cJSON_Delete(left);
        return false;
    }
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        bool whole = strcmp(all[i], "integer") == 0; /* without a type they are among the numbers */
        bool wanted = type ? names(type, all[i]) : !whole;
        if (wanted && !names(forbidden, all[i]) && !(whole && names(forbidden, "number"))) {
            cJSON_AddItemToArray(left, cJSON_CreateString(all[i]));
        }
    }
    if (names(forbidden, "null")) {
        cJSON_DeleteItemFromObjectCaseSensitive(copy, "nullable");
    }
    if (type) {
        cJSON_ReplaceItemInObjectCaseSensitive(copy, "type", left);
    } else {
        cJSON_AddItemToObject(copy, "type", left);
    }
    return true;
}

/* `copy` without the values that are forbidden. */
static bool drop_values(cJSON *copy, const cJSON *word) {
    cJSON *list = get(copy, "enum"), *v = NULL;
    if (!cJSON_IsArray(list) || (strcmp(word->string, "enum") == 0 && !cJSON_IsArray(word)) ||
        (int64_t)cJSON_GetArraySize(list) * cJSON_GetArraySize(word) > 4 * SCHEMA_MOST_MADE) {
        return false;
    }
    for (cJSON *c = list->child, *next; c; c = next) {
        bool forbidden = strcmp(word->string, "const") == 0 && cJSON_Compare(c, word, true);
        next = c->next;
        if (strcmp(word->string, "enum") == 0) {
            cJSON_ArrayForEach(v, word) {
                forbidden = forbidden || cJSON_Compare(c, v, true);
            }
        }
        if (forbidden) {
            cJSON_Delete(cJSON_DetachItemViaPointer(list, c));
        }
    }
    return true;
}

const cJSON *schema_not(schema *s, const cJSON *node) {
    const cJSON *no = get(node, "not");
    cJSON       *copy = (cJSON *)schema_without(s, node, "not"); /* s's own, and new */
    bool         none = false, ok = cJSON_IsFalse(no);
    const cJSON *word = cJSON_IsObject(no) ? only_word(no, &none) : NULL;
    if (copy && (cJSON_IsTrue(no) || none)) {
        schema_wrong(s, ERR_INVALID, "\"not\" of what allows everything allows no value at all");
        return NULL;
    }
    if (copy && word && strcmp(word->string, "type") == 0) {
        ok = drop_types(copy, word);
    } else if (copy && word && (strcmp(word->string, "enum") == 0 || strcmp(word->string, "const") == 0)) {
        ok = drop_values(copy, word);
    }
    if (copy && !ok) {
        schema_wrong(s, ERR_UNSUPPORTED,
                     "the keyword \"not\" is supported with a type, and beside an enum with values, and not otherwise");
        return NULL;
    }
    return copy;
}
