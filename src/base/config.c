#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/arena.h"
#include "base/str.h"

#define MAX_FILE  (1024 * 1024)
#define MAX_DEPTH 32
#define MAX_NODES 100000

struct config_node {
    config_kind   kind;
    int           line;
    bool          quoted; /* '12' is a text, 12 is a number */
    const char   *text;   /* of a scalar, environment put in */
    size_t        count;
    size_t        cap;
    config_node **items;
    const char  **keys; /* of a mapping */
};

struct config {
    arena       *memory;
    const char  *name;
    config_node *root;
};

/* "key:" with nothing behind it: as good as absent. */
static bool is_empty(const config_node *n) {
    return n->kind == CONFIG_SCALAR && !n->quoted &&
           (*n->text == '\0' || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0);
}

/* ---- Building the tree ---- */

typedef struct builder {
    config       *c;
    yaml_parser_t parser;
    yaml_event_t  event;
    int           nodes;
    err          *e;
} builder;

static bool fail_at(builder *b, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool fail_at(builder *b, int line, const char *format, ...) {
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_set(b->e, ERR_INVALID, "%s:%d: %s", b->c->name, line, text);
}

static bool no_memory(builder *b) {
    return err_set(b->e, ERR_MEMORY, "%s: out of memory", b->c->name);
}

static int line_of(const builder *b) {
    return (int)b->event.start_mark.line + 1;
}

/* The next event is in b->event until the next call; config_parse frees the last. */
static bool next_event(builder *b) {
    yaml_event_delete(&b->event);
    if (yaml_parser_parse(&b->parser, &b->event)) {
        return true;
    }
    memset(&b->event, 0, sizeof(b->event));
    if (b->parser.error == YAML_MEMORY_ERROR) {
        return no_memory(b);
    }
    bool reader = b->parser.error == YAML_READER_ERROR; /* has an offset, but no mark */
    return fail_at(b, reader ? 1 : (int)b->parser.problem_mark.line + 1, "not YAML: %s",
                   b->parser.problem ? b->parser.problem : "unknown problem");
}

/* Puts the environment into a scalar. A lone $ stays a dollar sign. */
static const char *expand(builder *b, const char *text, size_t n) {
    if (!memchr(text, '$', n)) {
        return arena_memdup(b->c->memory, text, n);
    }
    str out = {0};
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '$' || i + 1 == n || (text[i + 1] != '$' && text[i + 1] != '{')) {
            str_addc(&out, text[i]);
            continue;
        }
        if (text[++i] == '$') {
            str_addc(&out, '$');
            continue;
        }
        const char *start = text + i + 1;
        const char *close = memchr(start, '}', n - i - 1);
        size_t      length = close ? (size_t)(close - start) : 0;
        char        name[128];
        if (!close || length == 0 || length >= sizeof(name)) {
            fail_at(b, line_of(b), "\"${\" needs the name of an environment variable and \"}\" (a plain dollar: $$)");
            str_free(&out);
            return NULL;
        }
        memcpy(name, start, length);
        name[length] = '\0';
        const char *value = getenv(name);
        if (!value) {
            fail_at(b, line_of(b), "the environment variable %s is not set", name);
            str_free(&out);
            return NULL;
        }
        str_adds(&out, value);
        i += length + 1;
    }
    const char *done = out.failed ? NULL : arena_memdup(b->c->memory, out.data ? out.data : "", out.len);
    if (!done) {
        no_memory(b);
    }
    str_free(&out);
    return done;
}

static bool check_plain(builder *b, const yaml_char_t *anchor, const yaml_char_t *tag) {
    if (anchor) {
        return fail_at(b, line_of(b), "anchors (&%s) are not supported; write the value again", (const char *)anchor);
    }
    if (tag) {
        return fail_at(b, line_of(b), "tags (%s) are not supported", (const char *)tag);
    }
    return true;
}

static config_node *new_node(builder *b, config_kind kind) {
    if (++b->nodes > MAX_NODES) {
        fail_at(b, line_of(b), "more than %d values", MAX_NODES);
        return NULL;
    }
    config_node *node = arena_zero(b->c->memory, 1, sizeof(*node));
    if (!node) {
        no_memory(b);
        return NULL;
    }
    node->kind = kind;
    node->line = line_of(b);
    return node;
}

static bool append(builder *b, config_node *parent, const char *key, config_node *child) {
    if (parent->count == parent->cap) {
        size_t        cap = parent->cap ? parent->cap * 2 : 8;
        config_node **items = arena_zero(b->c->memory, cap, sizeof(*items));
        const char  **keys = arena_zero(b->c->memory, cap, sizeof(*keys));
        if (!items || !keys) {
            return no_memory(b);
        }
        if (parent->count) {
            memcpy(items, parent->items, parent->count * sizeof(*items));
            memcpy(keys, parent->keys, parent->count * sizeof(*keys));
        }
        parent->items = items;
        parent->keys = keys;
        parent->cap = cap;
    }
    parent->items[parent->count] = child;
    parent->keys[parent->count++] = key;
    return true;
}

static config_node *build(builder *b, int depth);

static const char *read_key(builder *b, const config_node *mapping) {
    if (b->event.type != YAML_SCALAR_EVENT) {
        fail_at(b, line_of(b), "a key must be a plain word");
        return NULL;
    }
    if (!check_plain(b, b->event.data.scalar.anchor, b->event.data.scalar.tag)) {
        return NULL;
    }
    const char *text = (const char *)b->event.data.scalar.value;
    size_t      n = b->event.data.scalar.length;
    if (memchr(text, '\0', n)) {
        fail_at(b, line_of(b), "a key holds a NUL character");
        return NULL;
    }
    if (mapping->count >= 1024) { /* each new key is compared with all before it */
        fail_at(b, line_of(b), "more than 1024 keys in one place");
        return NULL;
    }
    if (config_get(mapping, text)) {
        fail_at(b, line_of(b), "the key \"%.80s\" stands here twice", text);
        return NULL;
    }
    const char *key = arena_memdup(b->c->memory, text, n);
    if (!key) {
        no_memory(b);
    }
    return key;
}

static config_node *build_children(builder *b, config_node *node, int depth) {
    yaml_event_type_t end = node->kind == CONFIG_MAPPING ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    while (next_event(b)) {
        if (b->event.type == end) {
            return node;
        }
        const char *key = NULL;
        int         line = line_of(b);
        if (node->kind == CONFIG_MAPPING) {
            key = read_key(b, node);
            if (!key || !next_event(b)) {
                return NULL;
            }
        }
        config_node *child = build(b, depth + 1);
        if (!child || !append(b, node, key, child)) {
            return NULL;
        }
        child->line = line; /* where the key is: that is where people look */
    }
    return NULL;
}

/* The node that begins with the event at hand. */
static config_node *build(builder *b, int depth) {
    if (depth > MAX_DEPTH) {
        fail_at(b, line_of(b), "nested deeper than %d levels", MAX_DEPTH);
        return NULL;
    }
    config_node *node = NULL;
    switch (b->event.type) {
    case YAML_SCALAR_EVENT:
        if (!check_plain(b, b->event.data.scalar.anchor, b->event.data.scalar.tag)) {
            return NULL;
        }
        if (memchr(b->event.data.scalar.value, '\0', b->event.data.scalar.length)) {
            fail_at(b, line_of(b), "a value holds a NUL character");
            return NULL;
        }
        node = new_node(b, CONFIG_SCALAR);
        if (node) {
            node->quoted = b->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
            node->text = expand(b, (const char *)b->event.data.scalar.value, b->event.data.scalar.length);
        }
        return node && node->text ? node : NULL;
    case YAML_MAPPING_START_EVENT:
        if (!check_plain(b, b->event.data.mapping_start.anchor, b->event.data.mapping_start.tag)) {
            return NULL;
        }
        node = new_node(b, CONFIG_MAPPING);
        return node ? build_children(b, node, depth) : NULL;
    case YAML_SEQUENCE_START_EVENT:
        if (!check_plain(b, b->event.data.sequence_start.anchor, b->event.data.sequence_start.tag)) {
            return NULL;
        }
        node = new_node(b, CONFIG_SEQUENCE);
        return node ? build_children(b, node, depth) : NULL;
    case YAML_ALIAS_EVENT:
        fail_at(b, line_of(b), "aliases (*%s) are not supported; write the value again",
                (const char *)b->event.data.alias.anchor);
        return NULL;
    default:
        fail_at(b, line_of(b), "unexpected YAML");
        return NULL;
    }
}

/* Passes over one event, which carries nothing; the one behind it is then at hand. */
static bool skip_event(builder *b) {
    if (!next_event(b)) {
        return false;
    }
    return next_event(b);
}

static bool build_document(builder *b) {
    if (!skip_event(b)) { /* stream start; at hand: document start, or stream end */
        return false;
    }
    if (b->event.type == YAML_STREAM_END_EVENT) {
        return true;
    }
    if (!next_event(b)) {
        return false;
    }
    config_node *root = build(b, 1);
    if (!root || !skip_event(b)) { /* document end; at hand: stream end, or another document */
        return false;
    }
    b->c->root = is_empty(root) ? NULL : root;
    if (b->event.type != YAML_STREAM_END_EVENT) {
        return fail_at(b, line_of(b), "a second document begins here (---); only one is read");
    }
    return true;
}

config *config_parse(const char *name, const char *text, size_t n, err *e) {
    if (n > MAX_FILE) {
        err_set(e, ERR_LIMIT, "%s: larger than %d bytes", name, MAX_FILE);
        return NULL;
    }
    config *c = calloc(1, sizeof(*c));
    if (!c) {
        err_set(e, ERR_MEMORY, "%s: out of memory", name);
        return NULL;
    }
    builder b = {.c = c, .e = e};
    c->name = name;
    c->memory = arena_new(4096);
    if (c->memory) {
        c->name = arena_strdup(c->memory, name);
    }
    if (!c->memory || !c->name || !yaml_parser_initialize(&b.parser)) {
        err_set(e, ERR_MEMORY, "%s: out of memory", name);
        config_free(c);
        return NULL;
    }
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, n);
    bool good = build_document(&b);
    yaml_event_delete(&b.event);
    yaml_parser_delete(&b.parser);
    if (!good) {
        config_free(c);
        return NULL;
    }
    return c;
}

config *config_load(const char *path, err *e) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
        return NULL;
    }
    config *c = NULL;
    char   *text = malloc(MAX_FILE + 1);
    size_t  n = text ? fread(text, 1, MAX_FILE + 1, file) : 0;
    if (!text) {
        err_set(e, ERR_MEMORY, "%s: out of memory", path);
    } else if (ferror(file)) {
        err_set(e, ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    } else {
        c = config_parse(path, text, n, e);
    }
    free(text);
    fclose(file);
    return c;
}

void config_free(config *c) {
    if (c) {
        arena_free(c->memory);
        free(c);
    }
}

/* ---- Reading the tree ---- */

const config_node *config_root(const config *c) {
    return c->root;
}

config_kind config_kind_of(const config_node *n) {
    return n->kind;
}

int config_line(const config_node *n) {
    return n->line;
}

size_t config_count(const config_node *n) {
    return n ? n->count : 0;
}

const config_node *config_item(const config_node *n, size_t i) {
    return n && i < n->count ? n->items[i] : NULL;
}

const char *config_key(const config_node *n, size_t i) {
    return n && i < n->count ? n->keys[i] : NULL;
}

const char *config_scalar(const config_node *n) {
    return n && n->kind == CONFIG_SCALAR ? n->text : NULL;
}

const config_node *config_get(const config_node *n, const char *key) {
    if (n && n->kind == CONFIG_MAPPING) {
        for (size_t i = 0; i < n->count; i++) {
            if (strcmp(n->keys[i], key) == 0) {
                return n->items[i];
            }
        }
    }
    return NULL;
}

bool config_fail(const config *c, const config_node *n, err *e, const char *format, ...) {
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return err_set(e, ERR_INVALID, "%s:%d: %s", c->name, n ? n->line : 1, text);
}

bool config_known(const config *c, const config_node *n, const char *const *known, err *e) {
    if (!n || is_empty(n)) {
        return true;
    }
    if (n->kind != CONFIG_MAPPING) {
        return config_fail(c, n, e, "expected \"key: value\" lines here");
    }
    for (size_t i = 0; i < n->count; i++) {
        const char *const *k = known;
        while (*k && strcmp(*k, n->keys[i]) != 0) {
            k++;
        }
        if (*k) {
            continue;
        }
        const char *near = nearest_name(n->keys[i], known);
        if (near) {
            return config_fail(c, n->items[i], e, "unknown key \"%.80s\"; did you mean \"%s\"?", n->keys[i], near);
        }
        str all = {0};
        for (k = known; *k; k++) {
            str_addf(&all, "%s%s", k == known ? "" : ", ", *k);
        }
        config_fail(c, n->items[i], e, "unknown key \"%.80s\"; known here: %s", n->keys[i],
                    all.data ? all.data : "none");
        str_free(&all);
        return false;
    }
    return true;
}

/* The scalar under `key`; NULL when it is absent or empty (then *wrong is false) or not a scalar (then it is true). */
static const config_node *scalar(const config *c, const config_node *n, const char *key, bool *wrong, err *e) {
    const config_node *node = config_get(n, key);
    *wrong = false;
    if (!node) {
        return NULL;
    }
    if (node->kind != CONFIG_SCALAR) {
        *wrong = true;
        config_fail(c, node, e, "%s must be a single value, not a %s", key,
                    node->kind == CONFIG_MAPPING ? "mapping" : "list");
        return NULL;
    }
    return is_empty(node) ? NULL : node;
}

bool config_string(const config *c, const config_node *n, const char *key, const char **out, err *e) {
    bool               wrong;
    const config_node *node = scalar(c, n, key, &wrong, e);
    if (node) {
        *out = node->text;
    }
    return !wrong;
}

bool config_int(const config *c, const config_node *n, const char *key, int64_t min, int64_t max, int64_t *out,
                err *e) {
    bool               wrong;
    const config_node *node = scalar(c, n, key, &wrong, e);
    if (!node) {
        return !wrong;
    }
    char *end;
    errno = 0;
    long long value = strtoll(node->text, &end, 10);
    if (node->quoted || end == node->text || *end || isspace((unsigned char)node->text[0])) {
        return config_fail(c, node, e, "%s must be a whole number, not \"%.80s\"", key, node->text);
    }
    if (errno == ERANGE || value < min || value > max) {
        return config_fail(c, node, e, "%s must lie between %lld and %lld, not %.80s", key, (long long)min,
                           (long long)max, node->text);
    }
    *out = value;
    return true;
}

bool config_number(const config *c, const config_node *n, const char *key, double min, double max, double *out,
                   err *e) {
    bool               wrong;
    const config_node *node = scalar(c, n, key, &wrong, e);
    if (!node) {
        return !wrong;
    }
    char  *end;
    double value = strtod(node->text, &end);
    if (node->quoted || end == node->text || *end || !isfinite(value)) {
        return config_fail(c, node, e, "%s must be a number, not \"%.80s\"", key, node->text);
    }
    if (value < min || value > max) {
        return config_fail(c, node, e, "%s must lie between %g and %g, not %.80s", key, min, max, node->text);
    }
    *out = value;
    return true;
}

bool config_bool(const config *c, const config_node *n, const char *key, bool *out, err *e) {
    bool               wrong;
    const config_node *node = scalar(c, n, key, &wrong, e);
    if (!node) {
        return !wrong;
    }
    bool yes = strcmp(node->text, "true") == 0;
    if (node->quoted || (!yes && strcmp(node->text, "false") != 0)) {
        return config_fail(c, node, e, "%s must be true or false, not \"%.80s\"", key, node->text);
    }
    *out = yes;
    return true;
}

bool config_size(const config *c, const config_node *n, const char *key, int64_t *bytes, err *e) {
    bool               wrong;
    const config_node *node = scalar(c, n, key, &wrong, e);
    if (!node) {
        return !wrong;
    }
    if (!parse_size(node->text, bytes)) {
        return config_fail(c, node, e, "%s must be a size such as 64KiB, 256MiB or 8G, not \"%.80s\"", key, node->text);
    }
    return true;
}

bool config_duration(const config *c, const config_node *n, const char *key, int64_t *us, err *e) {
    bool               wrong;
    const config_node *node = scalar(c, n, key, &wrong, e);
    if (!node) {
        return !wrong;
    }
    if (!parse_duration(node->text, us)) {
        return config_fail(c, node, e, "%s must be a duration such as 500ms, 30s, 10m, 24h or 7d, not \"%.80s\"", key,
                           node->text);
    }
    return true;
}
