#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/map.h"
#include "model/import/tree.h"
#include "tensor/block.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data is little-endian");

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER = 100 * 1000 * 1000, /* the specification's bound */
    MAX_TENSORS = 1 << 20,
    MAX_NAME = 512
};

struct safetensors {
    char       *name;
    const char *data; /* NULL: read from fd */
    int         fd;
    uint64_t    size;
    uint64_t    data_at; /* where the tensors begin */
    arena      *memory;
    st_tensor  *tensors;
    size_t      count;
    map        *index;
};

typedef struct dtype {
    const char *name;
    int         width, type;
} dtype;

/* The types of the specification. Those narrower than a byte are left out and so refused by name. */
static const dtype dtypes[] = {
    {"F32", 4, BLOCK_F32}, {"F16", 2, BLOCK_F16}, {"BF16", 2, BLOCK_BF16}, {"F64", 8, -1},     {"I64", 8, -1},
    {"I32", 4, -1},        {"I16", 2, -1},        {"I8", 1, -1},           {"U64", 8, -1},     {"U32", 4, -1},
    {"U16", 2, -1},        {"U8", 1, -1},         {"BOOL", 1, -1},         {"F8_E4M3", 1, -1}, {"F8_E5M2", 1, -1},
    {"F8_E8M0", 1, -1},    {"C64", 8, -1}};

/* ---- sentences ---- */

static const char *short_name(const safetensors *s) {
    size_t n = strlen(s->name);
    return n > 160 ? s->name + n - 160 : s->name;
}

__attribute__((format(printf, 4, 5))) static void say(const safetensors *s, err *e, err_code code, const char *format,
                                                      ...) {
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set(e, code, "%s: %s", short_name(s), text);
}

/* A macro for the same reason as err_set: the compiler sees the false. */
#define fail(...) (say(__VA_ARGS__), false)

/* ---- bytes ---- */

static bool read_at(const safetensors *s, uint64_t at, void *out, size_t n, err *e) {
    if (at > s->size || n > s->size - at)
        return fail(s, e, ERR_INTERNAL, "bytes past the end of the file were asked for");
    if (s->data) {
        memcpy(out, s->data + at, n);
        return true;
    }
    for (char *p = out; n;) {
        ssize_t got = pread(s->fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail(s, e, ERR_IO, "cannot be read at byte %llu: %s", (unsigned long long)at,
                        got < 0 ? strerror(errno) : "the file has become shorter");
        p += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

bool safetensors_read(const safetensors *s, const st_tensor *t, uint64_t at, void *out, size_t n, err *e) {
    if (at > t->bytes || n > t->bytes - at)
        return fail(s, e, ERR_INTERNAL, "bytes past the end of tensor %s were asked for", t->name);
    return read_at(s, t->at + at, out, n, e);
}

/* ---- one entry of the header ---- */

static bool read_dtype(const safetensors *s, const tree *entry, st_tensor *t, err *e) {
    const tree *name = tree_member(entry, "dtype");
    if (!tree_is(name, TREE_STRING))
        return fail(s, e, ERR_INVALID, "tensor %s: dtype is %s, must be a string", t->name, tree_kind_name(name));
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (tree_text_is(name, dtypes[i].name)) {
            t->dtype = dtypes[i].name;
            t->type = dtypes[i].type;
            t->width = dtypes[i].width;
            return true;
        }
    return fail(s, e, ERR_UNSUPPORTED, "tensor %s has the dtype \"%.*s\", which pare does not know", t->name,
                (int)(name->count < 24 ? name->count : 24), name->u.text);
}

/* Fills the shape and the bytes it asks for. */
static bool read_shape(const safetensors *s, const tree *entry, st_tensor *t, err *e) {
    const tree *shape = tree_member(entry, "shape");
    if (!tree_is(shape, TREE_ARRAY))
        return fail(s, e, ERR_INVALID, "tensor %s: shape is %s, must be an array", t->name, tree_kind_name(shape));
    if (shape->count > SAFETENSORS_MAX_DIMS)
        return fail(s, e, ERR_LIMIT, "tensor %s has %u dimensions, more than %d", t->name, shape->count,
                    SAFETENSORS_MAX_DIMS);
    t->dims = (int)shape->count;
    for (int d = 0; d < SAFETENSORS_MAX_DIMS; d++)
        t->shape[d] = 1;
    uint64_t bytes = (uint64_t)t->width;
    int      d = 0;
    for (const tree *v = tree_first(shape); v; v = v->next) {
        if (!tree_is(v, TREE_NUMBER) || !v->integer || v->whole < 0)
            return fail(s, e, ERR_INVALID, "tensor %s: shape[%d] is no whole number from 0 on", t->name, d);
        if (v->whole && bytes > (uint64_t)INT64_MAX / (uint64_t)v->whole)
            return fail(s, e, ERR_INVALID, "tensor %s: its shape is larger than any file", t->name);
        bytes *= (uint64_t)v->whole;
        t->shape[d++] = v->whole;
    }
    t->bytes = bytes;
    return true;
}

static bool read_offsets(const safetensors *s, const tree *entry, st_tensor *t, err *e) {
    const tree *offsets = tree_member(entry, "data_offsets"), *begin = tree_first(offsets);
    const tree *end = begin ? begin->next : NULL;
    if (!tree_is(offsets, TREE_ARRAY) || offsets->count != 2 || !begin || !end || !begin->integer || !end->integer ||
        begin->whole < 0)
        return fail(s, e, ERR_INVALID, "tensor %s: data_offsets must be two whole numbers", t->name);
    uint64_t data = s->size - s->data_at;
    if (end->whole < begin->whole || (uint64_t)end->whole > data)
        return fail(
            s, e, ERR_INVALID,
            "tensor %s: data_offsets are %lld to %lld, but the file has %llu bytes of data (truncated download?)",
            t->name, (long long)begin->whole, (long long)end->whole, (unsigned long long)data);
    if ((uint64_t)(end->whole - begin->whole) != t->bytes)
        return fail(s, e, ERR_INVALID, "tensor %s: data_offsets hold %lld bytes, its shape as %s takes %llu", t->name,
                    (long long)(end->whole - begin->whole), t->dtype, (unsigned long long)t->bytes);
    t->at = s->data_at + (uint64_t)begin->whole;
    return true;
}

static bool read_name(safetensors *s, const tree *entry, st_tensor *t, err *e) {
    if (entry->key_len == 0 || entry->key_len > MAX_NAME)
        return fail(s, e, ERR_INVALID, "a tensor's name has %u bytes, must have 1 to %d", entry->key_len, MAX_NAME);
    for (uint32_t i = 0; i < entry->key_len; i++)
        if ((unsigned char)entry->key[i] < 0x20 || entry->key[i] == 0x7f)
            return fail(s, e, ERR_INVALID, "a tensor's name holds a control character");
    t->name = arena_memdup(s->memory, entry->key, entry->key_len);
    return t->name || fail(s, e, ERR_MEMORY, "out of memory");
}

static bool read_entry(safetensors *s, const tree *entry, err *e) {
    st_tensor *t = &s->tensors[s->count];
    if (!read_name(s, entry, t, e))
        return false;
    if (!tree_is(entry, TREE_OBJECT))
        return fail(s, e, ERR_INVALID, "tensor %s is %s in the header, must be an object", t->name,
                    tree_kind_name(entry));
    for (const tree *m = tree_first(entry); m; m = m->next)
        if (!tree_key_is(m, "dtype") && !tree_key_is(m, "shape") && !tree_key_is(m, "data_offsets"))
            return fail(s, e, ERR_INVALID, "tensor %s has the unknown member \"%.*s\"", t->name,
                        (int)(m->key_len < 40 ? m->key_len : 40), m->key);
    if (!read_dtype(s, entry, t, e) || !read_shape(s, entry, t, e) || !read_offsets(s, entry, t, e))
        return false;
    s->count++;
    return true;
}

static bool read_metadata(const safetensors *s, const tree *m, err *e) {
    if (!tree_is(m, TREE_OBJECT))
        return fail(s, e, ERR_INVALID, "__metadata__ is %s, must be an object", tree_kind_name(m));
    for (const tree *v = tree_first(m); v; v = v->next)
        if (!tree_is(v, TREE_STRING))
            return fail(s, e, ERR_INVALID, "__metadata__ may hold strings only, not %s", tree_kind_name(v));
    return true;
}

/* ---- the header ---- */

static int by_place(const void *a, const void *b) {
    const st_tensor *x = a, *y = b;
    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* an empty tensor before the one that begins there */
}

static bool check_tiling(const safetensors *s, err *e) {
    uint64_t at = s->data_at;
    for (size_t i = 0; i < s->count; i++) {
        const st_tensor *t = &s->tensors[i];
        if (t->at != at)
            return fail(s, e, ERR_INVALID,
                        "tensor %s begins at byte %llu of the data, %s the tensor before ends at %llu", t->name,
                        (unsigned long long)(t->at - s->data_at),
                        t->at < at ? "but" : "and leaves a hole:", (unsigned long long)(at - s->data_at));
        at += t->bytes;
    }
    if (at != s->size)
        return fail(s, e, ERR_INVALID, "%llu bytes after the last tensor belong to nothing",
                    (unsigned long long)(s->size - at));
    return true;
}

static bool read_header(safetensors *s, const tree *root, err *e) {
    if (!tree_is(root, TREE_OBJECT))
        return fail(s, e, ERR_INVALID, "the header is %s, must be an object", tree_kind_name(root));
    if (root->count > MAX_TENSORS)
        return fail(s, e, ERR_LIMIT, "the header names %u tensors, more than %d", root->count, MAX_TENSORS);
    s->tensors = arena_zero(s->memory, (size_t)root->count + 1, sizeof *s->tensors);
    if (!s->tensors)
        return fail(s, e, ERR_MEMORY, "out of memory for %u tensors", root->count);
    for (const tree *m = tree_first(root); m; m = m->next)
        if (!(tree_key_is(m, "__metadata__") ? read_metadata(s, m, e) : read_entry(s, m, e)))
            return false;
    qsort(s->tensors, s->count, sizeof *s->tensors, by_place);
    if (!check_tiling(s, e))
        return false;
    s->index = map_new(s->count + 1);
    bool ok = s->index != NULL;
    for (size_t i = 0; ok && i < s->count; i++)
        ok = map_put(s->index, s->tensors[i].name, strlen(s->tensors[i].name), (int64_t)i);
    return ok || fail(s, e, ERR_MEMORY, "out of memory for the index of %zu tensors", s->count);
}

static bool open_header(safetensors *s, err *e) {
    uint64_t length;
    if (s->size < LENGTH_BYTES)
        return fail(s, e, ERR_INVALID, "has %llu bytes, too few for a safetensors file", (unsigned long long)s->size);
    if (!read_at(s, 0, &length, sizeof length, e))
        return false;
    if (length > MAX_HEADER)
        return fail(s, e, ERR_LIMIT, "says that its header has %llu bytes, more than %d (is it a safetensors file?)",
                    (unsigned long long)length, MAX_HEADER);
    if (length < 2 || length > s->size - LENGTH_BYTES)
        return fail(s, e, ERR_INVALID, "the header of %llu bytes does not fit the file of %llu (truncated download?)",
                    (unsigned long long)length, (unsigned long long)s->size);
    s->data_at = LENGTH_BYTES + length;
    s->memory = arena_new(1 << 16);
    arena *scratch = arena_new(1 << 16); /* the header's text and tree, not needed afterwards */
    char  *text = scratch ? arena_alloc(scratch, (size_t)length) : NULL;
    bool   ok = s->memory && text;
    if (!ok)
        say(s, e, ERR_MEMORY, "out of memory for a header of %llu bytes", (unsigned long long)length);
    ok = ok && read_at(s, LENGTH_BYTES, text, (size_t)length, e);
    if (ok && text[0] != '{')
        ok = fail(s, e, ERR_INVALID, "the header does not begin with \"{\": not a safetensors file");
    if (ok) {
        const tree *root = tree_parse(scratch, text, (size_t)length, e);
        ok = root ? read_header(s, root, e) : err_prefix(e, "%s: header", short_name(s));
    }
    arena_free(scratch);
    return ok;
}

static safetensors *open_new(const char *name, err *e) {
    safetensors *s = calloc(1, sizeof *s);
    if (s)
        s->name = strdup(name);
    if (!s || !s->name) {
        free(s);
        err_set(e, ERR_MEMORY, "out of memory while opening %.200s", name);
        return NULL;
    }
    s->fd = -1;
    return s;
}

static safetensors *open_done(safetensors *s, bool ok) {
    if (ok)
        return s;
    safetensors_close(s);
    return NULL;
}

safetensors *safetensors_open(const char *path, err *e) {
    safetensors *s = open_new(path, e);
    if (!s)
        return NULL;
    struct stat st;
    s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (s->fd < 0 || fstat(s->fd, &st) != 0)
        return open_done(s,
                         fail(s, e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot be opened: %s", strerror(errno)));
    if (!S_ISREG(st.st_mode))
        return open_done(s, fail(s, e, ERR_INVALID, "is not a file"));
    s->size = (uint64_t)st.st_size;
    return open_done(s, open_header(s, e));
}

safetensors *safetensors_open_memory(const char *name, const void *data, size_t n, err *e) {
    safetensors *s = open_new(name, e);
    if (!s)
        return NULL;
    s->data = data;
    s->size = n;
    return open_done(s, open_header(s, e));
}

void safetensors_close(safetensors *s) {
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    map_free(s->index);
    arena_free(s->memory);
    free(s->name);
    free(s);
}

const char *safetensors_name(const safetensors *s) {
    return s->name;
}

size_t safetensors_count(const safetensors *s) {
    return s->count;
}

const st_tensor *safetensors_at(const safetensors *s, size_t i) {
    return i < s->count ? &s->tensors[i] : NULL;
}

const st_tensor *safetensors_named(const safetensors *s, const char *name) {
    int64_t i;
    return map_get(s->index, name, strlen(name), &i) ? &s->tensors[i] : NULL;
}
