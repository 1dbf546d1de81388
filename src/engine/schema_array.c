/* schema_array.c - arrays. uniqueItems is kept where the items are few values, with a rule for each set of values that have
 * come; of other items no context-free grammar can tell whether one came before.                                     */
#include <string.h>

#include "engine/schema_parts.h"

#define MOST_VALUES 8 /* 256 sets */

static const cJSON *get(const cJSON *node, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(node, key);
}

/* ---- items that are all different ---- */

typedef struct unique {
    schema     *s;
    const expr *value[MOST_VALUES];
    int         n, least, most;
    int         rule[1 << MOST_VALUES]; /* by set of values that have come: what may follow; 0: not made yet */
} unique;

/* The values of the items' schema; *n beyond MOST_VALUES: too many, or not known. */
static void list_values(const cJSON *items, const cJSON **values, int *n) {
    static const cJSON yes = {.type = cJSON_True}, no = {.type = cJSON_False};
    const cJSON       *list = get(items, "enum"), *one = get(items, "const"), *type = get(items, "type"), *v = NULL;
    *n = 0;
    for (const cJSON *c = items->child; c; c = c->next) {
        bool known = schema_is_note(c->string) || c == list || c == one || c == type;
        *n = known ? *n : MOST_VALUES + 1;
    }
    if (*n == 0 && !list && !one && cJSON_IsString(type) && strcmp(type->valuestring, "boolean") == 0) {
        values[(*n)++] = &yes;
        values[(*n)++] = &no;
        return;
    }
    if (*n > 0 || (list && one) || (!list && !one)) {
        *n = MOST_VALUES + 1;
        return;
    }
    if (one && schema_type_allows(items, one)) {
        values[(*n)++] = one;
    }
    cJSON_ArrayForEach(v, list) {
        bool twice = !schema_type_allows(items, v);
        for (int i = 0; i < *n && i < MOST_VALUES; i++) {
            twice = twice || cJSON_Compare(values[i], v, true);
        }
        if (!twice && *n < MOST_VALUES) {
            values[*n] = v;
        }
        *n += !twice;
    }
}

/* What may follow when the values of `set` have come. */
static const expr *after(unique *u, unsigned set) {
    rules *r = u->s->r;
    int    k = 0, count = __builtin_popcount(set); /* no C17 function counts bits */
    if (u->rule[set] == 0 && !r->failed) {
        const expr *item[MOST_VALUES + 1];
        u->rule[set] = rules_add(r, "different items");
        if (count >= u->least) {
            item[k++] = schema_word(u->s, "");
        }
        for (int i = 0; i < u->n && count < u->most; i++) {
            if (!(set >> i & 1)) {
                const expr *before = count ? schema_comma(u->s) : schema_word(u->s, "");
                item[k++] = expr_seq(r, (const expr *[]){before, u->value[i], after(u, set | 1u << i)}, 3);
            }
        }
        const expr *body = r->failed ? NULL : expr_alt(r, item, k);
        if (!r->failed) {
            r->rule[u->rule[set]].body = body;
        }
    }
    return r->failed ? NULL : expr_rule(r, u->rule[set]);
}

static const expr *unique_inside(schema *s, const cJSON *items, int least, int most) {
    const cJSON *values[MOST_VALUES];
    unique       u = {.s = s, .least = least};
    for (int i = 0; i < 32 && get(items, "$ref") && !s->r->failed; i++) {
        items = schema_target(s, items);
    }
    if (s->r->failed) {
        return NULL;
    }
    list_values(items, values, &u.n);
    if (u.n > MOST_VALUES) {
        schema_wrong(s, ERR_UNSUPPORTED,
                     "uniqueItems is not supported but for items that are an enum of at most %d values", MOST_VALUES);
        return NULL;
    }
    u.most = most >= 0 && most < u.n ? most : u.n;
    if (u.least > u.most) {
        schema_wrong(s, ERR_INVALID, "no array has as many different items as minItems says");
        return NULL;
    }
    for (int i = 0; i < u.n; i++) {
        u.value[i] = schema_written(s, values[i]);
    }
    return after(&u, 0);
}

/* ---- all arrays ---- */

/* Items beyond the prefix; NULL: there are none. */
static const expr *further_items(schema *s, const cJSON *node, int prefix) {
    const cJSON *items = get(node, "items");
    if (!items) {
        return prefix > 0 && !(s->o && s->o->open) ? NULL : schema_any(s);
    }
    if (cJSON_IsArray(items)) {
        schema_wrong(s, ERR_UNSUPPORTED, "a list of items is written prefixItems since 2020-12");
        return NULL;
    }
    return cJSON_IsFalse(items) ? NULL : schema_below(s, items, "items");
}

static const expr *array_inside(schema *s, const expr *const *prefix, int n, const expr *item, int least, int most) {
    const expr *comma = schema_comma(s);
    const expr *all = NULL;
    for (int i = 0; i < n; i++) {
        all = all ? expr_pair(s->r, expr_pair(s->r, all, comma), prefix[i]) : prefix[i];
    }
    least = least > n ? least - n : 0;
    most = most < 0 ? GRAMMAR_NO_MAX : most - n;
    if (!item || most == 0) {
        return all ? all : schema_word(s, "");
    }
    const expr *more = expr_pair(s->r, comma, item);
    if (all) {
        return expr_pair(s->r, all, expr_repeat(s->r, more, least, most));
    }
    all = expr_pair(s->r, item, expr_repeat(s->r, more, least > 0 ? least - 1 : 0, most < 0 ? most : most - 1));
    return least > 0 ? all : expr_optional(s->r, all);
}

static const expr *in_brackets(schema *s, const expr *inside) {
    const expr *all[] = {schema_word(s, "["), inside, schema_word(s, "]")};
    return s->r->failed ? NULL : schema_apart(s, "an array", expr_seq(s->r, all, 3));
}

static const expr *different_items(schema *s, const cJSON *node, int least, int most) {
    const cJSON *items = get(node, "items");
    if (!cJSON_IsObject(items) || get(node, "prefixItems")) {
        schema_wrong(s, ERR_UNSUPPORTED, "uniqueItems is not supported but for items that are an enum");
    }
    if (!s->r->failed && most >= 0 && most < least) {
        schema_wrong(s, ERR_INVALID, "no array has as many items as minItems and maxItems say");
    }
    return s->r->failed ? NULL : in_brackets(s, unique_inside(s, items, least, most));
}

const expr *schema_array(schema *s, const cJSON *node) {
    const cJSON *list = get(node, "prefixItems"), *c = NULL;
    const expr  *prefix[64];
    int          n = 0, least = schema_count(s, node, "minItems", 0), most = schema_count(s, node, "maxItems", -1);
    if (list && (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > 64)) {
        schema_wrong(s, ERR_LIMIT, "prefixItems must be an array of at most 64 schemas");
        return NULL;
    }
    if (cJSON_IsTrue(get(node, "uniqueItems")) && (most < 0 || most > 1)) {
        return different_items(s, node, least, most);
    }
    cJSON_ArrayForEach(c, list) {
        prefix[n++] = schema_below(s, c, "prefixItems");
    }
    const expr *item = s->r->failed || most == 0 ? NULL : further_items(s, node, n);
    if (!s->r->failed && ((most >= 0 && (most < least || most < n)) || (!item && least > n))) {
        schema_wrong(s, ERR_INVALID, "no array has as many items as minItems, maxItems and prefixItems say");
    }
    return s->r->failed ? NULL : in_brackets(s, array_inside(s, prefix, n, item, least, most));
}
