#include "model/import/tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/utf8.h"

enum { FEW = 12 }; /* objects up to this size are checked for repeated keys by comparing all pairs */

typedef struct reader {
    arena      *memory;
    const char *text;
    size_t      n, at;
    int         depth;
    uint32_t    values;
    err        *e;
} reader;

static bool wrong(reader *r, const char *what) {
    return err_set(r->e, ERR_INVALID, "not JSON: %s at byte %zu", what, r->at);
}

static bool no_memory(reader *r) {
    return err_set(r->e, ERR_MEMORY, "out of memory while reading %zu bytes of JSON", r->n);
}

static void skip_blanks(reader *r) {
    while (r->at < r->n &&
           (r->text[r->at] == ' ' || r->text[r->at] == '\n' || r->text[r->at] == '\r' || r->text[r->at] == '\t'))
        r->at++;
}

static char peek(const reader *r) {
    return r->at < r->n ? r->text[r->at] : '\0';
}

/* ---- strings ---- */

/* Four hex digits at `at`; -1 when they are not. */
static int32_t hex4(const reader *r, size_t at) {
    int32_t v = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = i < r->n ? r->text[i] : '\0';
        int  digit = c >= '0' && c <= '9'   ? c - '0'
                     : c >= 'a' && c <= 'f' ? c - 'a' + 10
                     : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                            : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* r->at is behind "\u". A pair of surrogates is one character; half a pair is none. */
static bool read_unicode(reader *r, char **out) {
    int32_t high = hex4(r, r->at);
    if (high < 0)
        return wrong(r, "\\u needs four hex digits");
    r->at += 4;
    uint32_t c = (uint32_t)high;
    if (c >= 0xd800 && c < 0xe000) {
        int32_t low =
            r->n - r->at >= 6 && r->text[r->at] == '\\' && r->text[r->at + 1] == 'u' ? hex4(r, r->at + 2) : -1;
        if (c >= 0xdc00 || low < 0xdc00 || low >= 0xe000)
            return wrong(r, "half of a surrogate pair");
        r->at += 6;
        c = 0x10000 + ((c - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
    }
    *out += utf8_encode(c, *out);
    return true;
}

static bool read_escape(reader *r, char **out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char              c = peek(r);
    const char       *known = c ? strchr(from, c) : NULL;
    if (c == 'u') {
        r->at++;
        return read_unicode(r, out);
    }
    if (!known)
        return wrong(r, "a backslash before something that needs none");
    *(*out)++ = to[known - from];
    r->at++;
    return true;
}

/* r->at is behind the opening quote; ends behind the closing one. */
static bool read_string(reader *r, const char **text, uint32_t *len) {
    size_t start = r->at, escapes = 0;
    while (r->at < r->n && r->text[r->at] != '"') {
        if ((unsigned char)r->text[r->at] < 0x20)
            return wrong(r, "an unescaped control character");
        if (r->text[r->at] == '\\') {
            escapes++;
            r->at++;
        }
        r->at++;
    }
    if (r->at >= r->n) {
        r->at = start;
        return wrong(r, "a string without an end");
    }
    size_t end = r->at, bad;
    if (end - start > UINT32_MAX / 2)
        return wrong(r, "a string longer than 2 GiB");
    if (!utf8_valid(r->text + start, end - start, &bad)) {
        r->at = start + bad;
        return wrong(r, "a byte that is not UTF-8");
    }
    *text = r->text + start;
    *len = (uint32_t)(end - start);
    if (escapes) { /* an escape is never shorter than what it stands for */
        char *copy = arena_alloc(r->memory, end - start + 1), *out = copy;
        if (!copy)
            return no_memory(r);
        for (r->at = start; r->at < end;) {
            if (r->text[r->at] != '\\') {
                *out++ = r->text[r->at++];
                continue;
            }
            r->at++;
            if (!read_escape(r, &out))
                return false;
        }
        *text = copy;
        *len = (uint32_t)(out - copy);
    }
    r->at = end + 1;
    return true;
}

/* ---- numbers ---- */

static size_t digits(const reader *r, size_t at) {
    while (at < r->n && r->text[at] >= '0' && r->text[at] <= '9')
        at++;
    return at;
}

static bool read_number(reader *r, tree *t) {
    char   copy[64];
    size_t start = r->at, at = start + (peek(r) == '-'), end = digits(r, at);
    bool   good = end > at && !(r->text[at] == '0' && end - at > 1), fraction = false;
    if (good && end < r->n && r->text[end] == '.') {
        at = end + 1;
        end = digits(r, at);
        good = end > at;
        fraction = true;
    }
    if (good && end < r->n && (r->text[end] == 'e' || r->text[end] == 'E')) {
        at = end + 1;
        at += at < r->n && (r->text[at] == '+' || r->text[at] == '-');
        end = digits(r, at);
        good = end > at;
        fraction = true;
    }
    if (!good || end - start >= sizeof copy)
        return wrong(r, "something that is no number");
    memcpy(copy, r->text + start, end - start);
    copy[end - start] = '\0';
    t->kind = TREE_NUMBER;
    t->u.number = strtod(copy, NULL);
    if (!isfinite(t->u.number))
        return wrong(r, "a number too large for a double");
    t->integer = !fraction && end - start <= 18; /* 18 characters fit an int64 in any case */
    t->whole = t->integer ? strtoll(copy, NULL, 10) : 0;
    r->at = end;
    return true;
}

/* ---- values ---- */

static bool read_value(reader *r, tree *t);

static tree *new_value(reader *r) {
    if (++r->values > TREE_MAX_VALUES) {
        err_set(r->e, ERR_LIMIT, "the JSON has more than %d values", TREE_MAX_VALUES);
        return NULL;
    }
    tree *t = arena_zero(r->memory, 1, sizeof *t);
    if (!t)
        no_memory(r);
    return t;
}

static bool twice(reader *r, const tree *m) {
    return err_set(r->e, ERR_INVALID, "the key \"%.*s\" stands twice in one object",
                   (int)(m->key_len < 80 ? m->key_len : 80), m->key);
}

static bool keys_differ(reader *r, const tree *object) {
    if (object->count <= FEW) {
        for (const tree *a = object->u.first; a; a = a->next)
            for (const tree *b = a->next; b; b = b->next)
                if (a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0)
                    return twice(r, a);
        return true;
    }
    map *seen = map_new(object->count);
    bool ok = seen || no_memory(r);
    for (const tree *m = object->u.first; ok && m; m = m->next) {
        size_t before = map_count(seen);
        ok = map_put(seen, m->key, m->key_len, 0) || no_memory(r);
        if (ok && map_count(seen) == before)
            ok = twice(r, m);
    }
    map_free(seen);
    return ok;
}

/* r->at is behind the opening bracket or brace. */
static bool read_children(reader *r, tree *t) {
    const bool object = t->kind == TREE_OBJECT;
    const char close = object ? '}' : ']';
    tree     **tail = &t->u.first;
    if (++r->depth > TREE_MAX_DEPTH)
        return err_set(r->e, ERR_LIMIT, "the JSON is nested deeper than %d", TREE_MAX_DEPTH);
    skip_blanks(r);
    if (peek(r) == close) {
        r->at++;
        r->depth--;
        return true;
    }
    for (;;) {
        tree *child = new_value(r);
        if (!child)
            return false;
        skip_blanks(r);
        if (object) {
            if (peek(r) != '"')
                return wrong(r, "no key where one belongs");
            r->at++;
            if (!read_string(r, &child->key, &child->key_len))
                return false;
            skip_blanks(r);
            if (peek(r) != ':')
                return wrong(r, "no colon after a key");
            r->at++;
        }
        if (!read_value(r, child))
            return false;
        *tail = child;
        tail = &child->next;
        t->count++;
        skip_blanks(r);
        char c = peek(r);
        if (c != ',' && c != close)
            return wrong(r, object ? "neither comma nor brace after a member"
                                   : "neither comma nor bracket after an element");
        r->at++;
        if (c == close)
            break;
    }
    r->depth--;
    return !object || keys_differ(r, t);
}

static bool read_word(reader *r, const char *word) {
    size_t n = strlen(word);
    if (r->n - r->at < n || memcmp(r->text + r->at, word, n) != 0)
        return wrong(r, "an unknown word");
    r->at += n;
    return true;
}

/* The depth of recursion is bounded by TREE_MAX_DEPTH. */
static bool read_value(reader *r, tree *t) {
    skip_blanks(r);
    if (r->at >= r->n)
        return wrong(r, "the end of the text where a value belongs");
    switch (r->text[r->at]) {
    case '{':
    case '[':
        t->kind = r->text[r->at++] == '{' ? TREE_OBJECT : TREE_ARRAY;
        t->u.first = NULL;
        return read_children(r, t);
    case '"':
        t->kind = TREE_STRING;
        r->at++;
        return read_string(r, &t->u.text, &t->count);
    case 't':
        t->yes = true;
        t->kind = TREE_BOOL;
        return read_word(r, "true");
    case 'f':
        t->kind = TREE_BOOL;
        return read_word(r, "false");
    case 'n':
        t->kind = TREE_NULL;
        return read_word(r, "null");
    default:
        return read_number(r, t);
    }
}

const tree *tree_parse(arena *memory, const char *text, size_t n, err *e) {
    reader r = {.memory = memory, .text = text, .n = n, .e = e};
    tree  *root = new_value(&r);
    if (!root || !read_value(&r, root))
        return NULL;
    skip_blanks(&r);
    if (r.at != n) {
        wrong(&r, "something after the value");
        return NULL;
    }
    return root;
}

/* ---- reading the tree ---- */

bool tree_key_is(const tree *t, const char *text) {
    return t->key && strlen(text) == t->key_len && memcmp(t->key, text, t->key_len) == 0;
}

bool tree_text_is(const tree *t, const char *text) {
    return tree_is(t, TREE_STRING) && strlen(text) == t->count && memcmp(t->u.text, text, t->count) == 0;
}

const tree *tree_member(const tree *object, const char *key) {
    if (!tree_is(object, TREE_OBJECT))
        return NULL;
    for (const tree *m = object->u.first; m; m = m->next)
        if (tree_key_is(m, key))
            return m;
    return NULL;
}

const tree *tree_value(const tree *object, const char *key) {
    const tree *m = tree_member(object, key);
    return tree_is(m, TREE_NULL) ? NULL : m;
}

const char *tree_text(arena *memory, const tree *t) {
    return tree_is(t, TREE_STRING) ? arena_memdup(memory, t->u.text, t->count) : NULL;
}

const char *tree_kind_name(const tree *t) {
    static const char *const names[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
    return t ? names[t->kind] : "nothing";
}
