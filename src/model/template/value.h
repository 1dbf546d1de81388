/* value.h - what a template computes with: Python's types, as far as Jinja needs them.
 *
 * A value is 16 bytes and is copied freely; what it points to lives in the arena of the compiled template (constants)
 * or of the rendering, or in the JSON input (the bytes of its strings), and never changes, except that namespaces take
 * assignments, generators run dry and a text learns its length. Equality, order, truth and hashing are Python's.     */
#ifndef PARE_MODEL_TEMPLATE_VALUE_H
#define PARE_MODEL_TEMPLATE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/json.h"

struct render;

typedef enum value_kind {
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST, /* from here to V_GENERATOR: as.list */
    V_TUPLE,
    V_RANGE,
    V_VIEW,      /* dict.items(), keys(), values() */
    V_GENERATOR, /* map, select ...: can be walked once */
    V_DICT,      /* as.dict */
    V_NAMESPACE, /* as.dict */
    V_LOOP,
    V_MACRO,
    V_FUNCTION,
    V_METHOD
} value_kind;

typedef struct text {
    const char *bytes; /* UTF-8, not NUL-terminated */
    size_t      n;
    int64_t     chars;  /* code points; -1: not counted yet (never in a constant, which threads share) */
    bool        markup; /* went through `safe` or `escape`: adding other text to it escapes that text */
} text;

typedef struct value {
    uint8_t kind;
    bool    unsafe; /* of V_UNDEFINED: the sandbox hides it */
    union {
        bool                  truth;
        int64_t               integer;
        double                number;
        text                 *string;
        const text           *missing; /* V_UNDEFINED: the name that was not found, or NULL */
        struct list          *list;
        struct dict          *dict;
        struct loop_state    *loop;
        struct macro         *macro;
        const struct builtin *function;
        struct method        *method;
    } as;
} value;

typedef struct list {
    value      *items;
    size_t      n;
    const char *label; /* how V_RANGE and V_VIEW print: "range(0, 3)", "dict_keys" */
} list;

typedef struct dict_entry {
    value    key;
    value    item;
    uint64_t hash; /* only with an index */
} dict_entry;

typedef struct dict { /* keeps the order of insertion */
    dict_entry *entries;
    size_t      n;
    size_t      cap;
    uint32_t   *index; /* entry + 1, open addressing; NULL while there are few entries */
    size_t      index_size;
} dict;

/* The arguments of a call, as evaluated. */
typedef struct args {
    value       *values;
    int          n;
    const text **names;
    value       *named;
    int          n_named;
} args;

/* A filter, test, global function or method: `self` is what stands before the pipe, the `is` or the dot. */
typedef struct builtin {
    const char *name;
    bool (*run)(struct render *r, value self, const args *a, value *out);
} builtin;

typedef struct method {
    const builtin *what;
    value          self;
} method;

static inline value value_none(void) {
    return (value){.kind = V_NONE};
}
static inline value value_undefined(const text *name) {
    return (value){.kind = V_UNDEFINED, .as.missing = name};
}
static inline value value_bool(bool truth) {
    return (value){.kind = V_BOOL, .as.truth = truth};
}
static inline value value_int(int64_t i) {
    return (value){.kind = V_INT, .as.integer = i};
}
static inline value value_float(double f) {
    return (value){.kind = V_FLOAT, .as.number = f};
}
static inline value value_string(text *t) {
    return (value){.kind = V_STRING, .as.string = t};
}
static inline value value_list(value_kind kind, list *l) {
    return (value){.kind = (uint8_t)kind, .as.list = l};
}
static inline value value_dict(value_kind kind, dict *d) {
    return (value){.kind = (uint8_t)kind, .as.dict = d};
}
static inline bool value_is_listy(value v) {
    return v.kind >= V_LIST && v.kind <= V_GENERATOR;
}
static inline bool value_is_number(value v) {
    return v.kind >= V_BOOL && v.kind <= V_FLOAT;
}
static inline bool value_is_integral(value v) {
    return v.kind == V_BOOL || v.kind == V_INT;
}
static inline int64_t value_integer(value v) { /* of an integral value */
    return v.kind == V_BOOL ? v.as.truth : v.as.integer;
}
static inline double value_double(value v) { /* of a number */
    return v.kind == V_FLOAT ? v.as.number : (double)value_integer(v);
}
static inline bool text_is(const text *t, const char *bytes, size_t n) {
    return t->n == n && memcmp(t->bytes, bytes, n) == 0;
}

bool        jinja_truth(value v);
const char *jinja_type_name(value v); /* Python's: "str", "NoneType" ... */

/* These spend steps and memory of the rendering and fail when either runs out, or as Python does. */
bool  jinja_text(struct render *r, const char *bytes, size_t n, value *out);                    /* copies the bytes */
bool  jinja_text_share(struct render *r, const char *bytes, size_t n, bool markup, value *out); /* does not */
list *jinja_list(struct render *r, size_t n);                                                   /* items not set */
dict *jinja_dict(struct render *r, size_t expected);
bool  jinja_dict_put(struct render *r, dict *d, value key, value item);
bool  jinja_dict_get(struct render *r, const dict *d, value key, value *item, bool *found);
bool  jinja_equal(struct render *r, value a, value b, bool *out);
bool  jinja_compare(struct render *r, value a, value b, int *out); /* <0, 0, >0 */
bool  jinja_contains(struct render *r, value container, value item, bool *out);
bool  jinja_length(struct render *r, value v, int64_t *out);
bool  jinja_from_json(struct render *r, const cJSON *json, value *out);

/* The items of anything that `for` takes. The list is shared: do not write to it. */
bool jinja_iterate(struct render *r, value v, list *out);

#endif
