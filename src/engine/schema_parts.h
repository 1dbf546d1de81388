/* schema_parts.h - a JSON Schema while it becomes a grammar. Each function returns NULL once the rules have failed. */
#ifndef PARE_ENGINE_SCHEMA_PARTS_H
#define PARE_ENGINE_SCHEMA_PARTS_H

#include <cjson/cJSON.h>

#include "base/map.h"
#include "engine/grammar_parts.h"

#define SCHEMA_MOST_NEST   200
#define SCHEMA_MOST_MADE   100000 /* values of merged schemas */
#define SCHEMA_MOST_VALUES 100000 /* of one enum */

typedef struct schema {
    rules                *r;
    const schema_options *o;
    const cJSON          *root;    /* what "#" is */
    map                  *rule_of; /* schemas that something refers to, by address */
    cJSON               **made;    /* merged schemas, to be freed */
    int                   n_made, cap_made, made_values;
    int                   nest;
    char                  path[112];                            /* of the schema that is being read, for sentences */
    int                   any, object, string, number, integer; /* shared rules; -1: not made yet */
    const expr           *chr;                                  /* one character of a string */
} schema;

bool        schema_read(schema *s, const cJSON *root, const expr **out);
const expr *schema_value(schema *s, const cJSON *node);
const expr *schema_below(schema *s, const cJSON *node, const char *key); /* the same, one place further down */
const expr *schema_any(schema *s);
const expr *schema_apart(schema *s, const char *name, const expr *body); /* as a rule of its own */
void        schema_wrong(schema *s, err_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A count: a whole number from 0 on; `fallback` where it is missing. */
int         schema_count(schema *s, const cJSON *node, const char *key, int fallback);
const expr *schema_word(schema *s, const char *text);
const expr *schema_comma(schema *s); /* with the space that may or must follow */
const expr *schema_colon(schema *s);

const expr *schema_object(schema *s, const cJSON *node);
const expr *schema_array(schema *s, const cJSON *node);
const expr *schema_string(schema *s, const cJSON *node);
const expr *schema_plain_string(schema *s);
const expr *schema_char(schema *s);
const expr *schema_number(schema *s, const cJSON *node, bool integer);

/* `pattern` as the inside of a JSON string; ECMA-262 without what looks around or back. *least and *most: characters;
 * *most < 0: no bound. */
const expr *schema_regex(schema *s, const char *pattern, int *least, int *most);

/* Both at once, as a new schema that `s` owns; NULL when they cannot be put together. */
const cJSON *schema_merge(schema *s, const cJSON *a, const cJSON *b);
/* A copy of the schema without a keyword, which `s` owns. */
const cJSON *schema_without(schema *s, const cJSON *node, const char *key);
const cJSON *schema_target(schema *s, const cJSON *node);           /* of its $ref */
bool         schema_type_allows(const cJSON *node, const cJSON *v); /* as far as `type` says */
const expr  *schema_written(schema *s, const cJSON *v);             /* the value as JSON */
const cJSON *schema_not(schema *s, const cJSON *node);              /* the same without `not`, which it has */
bool         schema_is_note(const char *key);                       /* a keyword that allows and forbids nothing */

#endif
