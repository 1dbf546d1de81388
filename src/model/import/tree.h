/* tree.h - JSON files of any size a model folder has, as a tree.
 *
 * base/json.h is for requests: half a million values, no NUL characters, 80 bytes a value. A tokenizer.json has millions
 * of values and its texts may hold any character; the header of a safetensors file is trusted even less. Strings carry
 * their length, a key that stands twice is an error, depth and the number of values are bounded.
 *
 * The tree lives in the arena; strings without escapes point into `text`, which must live as long.                   */
#ifndef PARE_MODEL_IMPORT_TREE_H
#define PARE_MODEL_IMPORT_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

enum { TREE_MAX_DEPTH = 64, TREE_MAX_VALUES = 4 << 20 };

typedef enum tree_kind { TREE_NULL, TREE_BOOL, TREE_NUMBER, TREE_STRING, TREE_ARRAY, TREE_OBJECT } tree_kind;

typedef struct tree tree;
struct tree {
    const char *key; /* NULL outside an object; not NUL-terminated */
    uint32_t    key_len;
    uint8_t     kind;    /* tree_kind */
    bool        yes;     /* TREE_BOOL */
    bool        integer; /* TREE_NUMBER: written without fraction and exponent, and within int64 */
    uint32_t    count;   /* members, elements, or bytes of a string */
    union {
        double      number;
        const char *text; /* TREE_STRING, not NUL-terminated */
        tree       *first;
    } u;
    int64_t whole; /* the value of an integer */
    tree   *next;  /* the one after this in its array or object */
};

/* NULL with a sentence that names the byte offset. */
const tree *tree_parse(arena *memory, const char *text, size_t n, err *e);

static inline bool tree_is(const tree *t, tree_kind kind) { /* false for NULL */
    return t && t->kind == kind;
}

/* A member of an object; NULL when absent, when `object` is NULL or no object. tree_value: NULL for a null, too. */
const tree *tree_member(const tree *object, const char *key);
const tree *tree_value(const tree *object, const char *key);

bool        tree_text_is(const tree *t, const char *text);
bool        tree_key_is(const tree *t, const char *text);
const char *tree_text(arena      *memory,
                      const tree *t);      /* a NUL-terminated copy; NULL when it is no string or memory ends */
const char *tree_kind_name(const tree *t); /* "a string", for sentences */

/* Walks members or elements: for (const tree *m = tree_first(t); m; m = m->next). NULL for anything else. */
static inline const tree *tree_first(const tree *t) {
    return t && (t->kind == TREE_ARRAY || t->kind == TREE_OBJECT) ? t->u.first : NULL;
}

#endif
