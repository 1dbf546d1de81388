/* gguf.c - opening a GGUF file: one pass over the header in which every number is checked before it is used.
 *
 * The layout, little-endian (specification: ggml's docs/gguf.md):
 *
 *   "GGUF"  version u32  tensors u64  keys u64
 *   keys    * { name, kind u32, value }                     a string is u64 length + bytes
 *   tensors * { name, dims u32, shape u64[dims], type u32, offset u64 }   an array is kind u32, count u64, elements
 *   padding to general.alignment (32), then the data; offsets count from there
 *
 * Each length is read from the file once and kept beside its pointer: a file that somebody rewrites while it is mapped
 * can change what we read but never where. (One that shrinks raises SIGBUS in a reader of the mapping; weights are
 * therefore fetched with gguf_read, which cannot.) */
#include "model/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/map.h"

/* Numbers and tensor data are used as they lie in the file. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF data is little-endian");

enum {
    MAX_KEYS = 65536,
    MAX_TENSORS = 65536,
    MAX_KEY_NAME = 65535,  /* the specification's bound */
    MAX_TENSOR_NAME = 255, /* the specification says 64; some converters write longer ones */
    MAX_STRINGS = 1 << 24,
    MIN_KEY_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 65536,
    DEFAULT_ALIGNMENT = 32
};

typedef struct entry {
    const char    *name;
    gguf_kind      kind, element; /* element: of an array */
    size_t         count;         /* bytes of a string, elements of an array */
    const uint8_t *value;         /* in the file: the number, the string's bytes or the array's first element */
    gguf_str      *strings;       /* of an array of strings */
} entry;

struct gguf {
    char          *name;
    const uint8_t *data;
    size_t         size;
    int            fd; /* -1: memory that the caller keeps */
    arena         *memory;
    entry         *keys;
    size_t         key_count;
    map           *key_index;
    gguf_tensor   *tensors;
    uint64_t      *offsets; /* of the tensors, as the file says them */
    size_t         tensor_count;
    map           *tensor_index;
    uint64_t       alignment;
};

/* ---- sentences ---- */

/* The file's name for a sentence: the end of a long path says more than its beginning. */
static const char *short_name(const gguf *g) {
    size_t n = strlen(g->name);
    return n > 160 ? g->name + n - 160 : g->name;
}

__attribute__((format(printf, 4, 5))) static void say(const gguf *g, err *e, err_code code, const char *format, ...) {
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set(e, code, "%s: %s", short_name(g), text);
}

/* A macro for the same reason as err_set: the compiler sees the false. */
#define fail(...) (say(__VA_ARGS__), false)

static bool no_memory(const gguf *g, err *e) {
    return fail(g, e, ERR_MEMORY, "out of memory while reading the header");
}

static const char *kind_name(gguf_kind kind) {
    static const char *const names[] = {"an 8-bit unsigned integer",
                                        "an 8-bit integer",
                                        "a 16-bit unsigned integer",
                                        "a 16-bit integer",
                                        "a 32-bit unsigned integer",
                                        "a 32-bit integer",
                                        "a 32-bit float",
                                        "a boolean",
                                        "a string",
                                        "an array",
                                        "a 64-bit unsigned integer",
                                        "a 64-bit integer",
                                        "a 64-bit float"};
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "of an unknown kind";
}

/* Bytes of a number or boolean; 0 for strings and arrays. */
static size_t kind_bytes(gguf_kind kind) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return bytes[kind];
}

/* ---- reading the header ---- */

/* A place in the file, and what is being read there, for the sentence when the file ends. */
typedef struct cursor {
    gguf  *g;
    size_t at;
    char   what[160];
    err   *e;
} cursor;

static const uint8_t *take(cursor *c, size_t n) {
    if (n > c->g->size - c->at) {
        say(c->g, c->e, ERR_INVALID, "the file ends at byte %zu, inside %s (truncated download?)", c->g->size, c->what);
        return NULL;
    }
    c->at += n;
    return c->g->data + c->at - n;
}

static bool take_u32(cursor *c, uint32_t *out) {
    const uint8_t *p = take(c, sizeof *out);
    if (!p)
        return false;
    memcpy(out, p, sizeof *out);
    return true;
}

static bool take_u64(cursor *c, uint64_t *out) {
    const uint8_t *p = take(c, sizeof *out);
    if (!p)
        return false;
    memcpy(out, p, sizeof *out);
    return true;
}

static bool take_string(cursor *c, gguf_str *out) {
    uint64_t n;
    if (!take_u64(c, &n))
        return false;
    if (n > c->g->size - c->at)
        return fail(c->g, c->e, ERR_INVALID, "%s claims a string of %llu bytes, past the end of the file", c->what,
                    (unsigned long long)n);
    out->len = (size_t)n;
    out->data = (const char *)take(c, out->len);
    return true;
}

/* A key's or tensor's name: printable ASCII, so that it can stand in a sentence, a log line and a C string. */
static const char *take_name(cursor *c, size_t most) {
    gguf_str s = {0};
    if (!take_string(c, &s))
        return NULL;
    if (s.len == 0 || s.len > most) {
        say(c->g, c->e, ERR_INVALID, "the name of %s has %zu bytes, must have 1 to %zu", c->what, s.len, most);
        return NULL;
    }
    char *name = arena_memdup(c->g->memory, s.data, s.len);
    if (!name) {
        no_memory(c->g, c->e);
        return NULL;
    }
    for (size_t i = 0; i < s.len; i++)
        if (name[i] < 0x20 || name[i] > 0x7e) {
            say(c->g, c->e, ERR_INVALID, "the name of %s holds the byte 0x%02x; names are printable ASCII", c->what,
                (unsigned char)name[i]);
            return NULL;
        }
    return name;
}

/* Enters `name` into `index`; a second one of the same name is refused. */
static bool enter(cursor *c, map *index, const char *kind, const char *name, size_t i) {
    int64_t before;
    size_t  n = strlen(name);
    if (map_get(index, name, n, &before))
        return fail(c->g, c->e, ERR_INVALID, "the %s %.100s appears twice", kind, name);
    return map_put(index, name, n, (int64_t)i) || no_memory(c->g, c->e);
}

static bool take_strings(cursor *c, entry *k) {
    if (k->count > MAX_STRINGS)
        return fail(c->g, c->e, ERR_LIMIT, "the array %.100s claims %zu strings, pare reads at most %d", k->name,
                    k->count, MAX_STRINGS);
    /* The first walk proves that the strings are there, so the table never outgrows what the file holds. */
    size_t   begin = c->at;
    gguf_str s;
    for (size_t i = 0; i < k->count; i++)
        if (!take_string(c, &s))
            return false;
    k->strings = arena_alloc(c->g->memory, (k->count ? k->count : 1) * sizeof *k->strings);
    if (!k->strings)
        return no_memory(c->g, c->e);
    c->at = begin;
    for (size_t i = 0; i < k->count; i++)
        if (!take_string(c, &k->strings[i]))
            return false;
    return true;
}

static bool take_array(cursor *c, entry *k) {
    uint32_t element;
    uint64_t count;
    if (!take_u32(c, &element) || !take_u64(c, &count))
        return false;
    if (element > GGUF_F64)
        return fail(c->g, c->e, ERR_INVALID, "the array %.100s has elements of the unknown kind %u", k->name, element);
    if (element == GGUF_ARRAY)
        return fail(c->g, c->e, ERR_UNSUPPORTED, "%.100s is an array of arrays; pare does not read those", k->name);
    k->element = (gguf_kind)element;
    size_t least = element == GGUF_STRING ? sizeof(uint64_t) : kind_bytes(k->element);
    if (count > (c->g->size - c->at) / least)
        return fail(c->g, c->e, ERR_INVALID, "the array %.100s claims %llu elements, more than the file holds", k->name,
                    (unsigned long long)count);
    k->count = (size_t)count;
    k->value = c->g->data + c->at;
    return element == GGUF_STRING ? take_strings(c, k) : take(c, k->count * least) != NULL;
}

static bool take_entry(cursor *c, entry *k, size_t i) {
    uint32_t kind;
    snprintf(c->what, sizeof c->what, "key %zu of %zu", i + 1, c->g->key_count);
    k->name = take_name(c, MAX_KEY_NAME);
    if (!k->name || !enter(c, c->g->key_index, "key", k->name, i))
        return false;
    snprintf(c->what, sizeof c->what, "the value of %.100s", k->name);
    if (!take_u32(c, &kind))
        return false;
    if (kind > GGUF_F64)
        return fail(c->g, c->e, ERR_INVALID, "%.100s is of the unknown kind %u", k->name, kind);
    k->kind = (gguf_kind)kind;
    if (kind == GGUF_ARRAY)
        return take_array(c, k);
    if (kind == GGUF_STRING) {
        gguf_str s;
        if (!take_string(c, &s))
            return false;
        k->value = (const uint8_t *)s.data;
        k->count = s.len;
        return true;
    }
    k->value = take(c, kind_bytes(k->kind));
    if (k->value && kind == GGUF_BOOL && *k->value > 1)
        return fail(c->g, c->e, ERR_INVALID, "%.100s is a boolean with the value %u", k->name, *k->value);
    return k->value != NULL;
}

/* Shape and size of a tensor; its place in the file is checked when the place of the data is known. */
static bool measure_tensor(cursor *c, gguf_tensor *t) {
    int64_t values = 1;
    for (int d = 0; d < t->dims; d++) {
        if (t->shape[d] < 1)
            return fail(c->g, c->e, ERR_INVALID, "tensor %s has %lld values in dimension %d", t->name,
                        (long long)t->shape[d], d);
        if (values > INT64_MAX / t->shape[d])
            return fail(c->g, c->e, ERR_INVALID, "tensor %s claims more values than 64 bits count", t->name);
        values *= t->shape[d];
    }
    if (!t->format)
        return true;
    size_t row;
    if (!block_row_bytes(t->format, t->shape[0], &row))
        return fail(c->g, c->e, ERR_INVALID, "tensor %s has rows of %lld values, not a multiple of %s's block of %d",
                    t->name, (long long)t->shape[0], t->format->name, t->format->values);
    uint64_t rows = (uint64_t)(values / t->shape[0]);
    if (row == 0 || rows > SIZE_MAX / row)
        return fail(c->g, c->e, ERR_INVALID, "tensor %s claims more bytes than 64 bits count", t->name);
    t->bytes = (size_t)rows * row;
    return true;
}

static bool take_tensor(cursor *c, gguf_tensor *t, size_t i) {
    uint32_t dims, type;
    snprintf(c->what, sizeof c->what, "tensor %zu of %zu", i + 1, c->g->tensor_count);
    t->name = take_name(c, MAX_TENSOR_NAME);
    if (!t->name || !enter(c, c->g->tensor_index, "tensor", t->name, i) || !take_u32(c, &dims))
        return false;
    if (dims < 1 || dims > 4)
        return fail(c->g, c->e, ERR_INVALID, "tensor %s has %u dimensions, must have 1 to 4", t->name, dims);
    t->dims = (int)dims;
    for (int d = 0; d < 4; d++) {
        uint64_t n = 1;
        if (d < t->dims && !take_u64(c, &n))
            return false;
        if (n > INT64_MAX)
            return fail(c->g, c->e, ERR_INVALID, "tensor %s claims %llu values in dimension %d", t->name,
                        (unsigned long long)n, d);
        t->shape[d] = (int64_t)n;
    }
    if (!take_u32(c, &type) || !take_u64(c, &c->g->offsets[i]))
        return false;
    if (type > INT32_MAX)
        return fail(c->g, c->e, ERR_INVALID, "tensor %s is of the type %u, which cannot be", t->name, type);
    t->type = (int)type;
    t->format = block_format_of(t->type);
    return measure_tensor(c, t);
}

/* What a file is that does not begin with "GGUF", as far as we can tell. */
static bool not_gguf(const gguf *g, err *e) {
    const char *hint = "";
    if (g->size >= 7 && memcmp(g->data, "version", 7) == 0)
        hint = " (it looks like a Git LFS pointer: fetch the file itself)";
    else if (g->size >= 1 && g->data[0] == '<')
        hint = " (it looks like a web page: a failed download?)";
    else if (g->size >= 4 &&
             (!memcmp(g->data, "lmgg", 4) || !memcmp(g->data, "tjgg", 4) || !memcmp(g->data, "FUGG", 4)))
        hint = " (it is of an older or byte-swapped ggml format: convert the model again)";
    return fail(g, e, ERR_INVALID, "not a GGUF file%s", hint);
}

static bool take_version(cursor *c) {
    if (c->g->size < 4 || memcmp(c->g->data, "GGUF", 4) != 0)
        return not_gguf(c->g, c->e);
    uint32_t version;
    c->at = 4;
    if (!take_u32(c, &version))
        return false;
    if (version != 0 && (version & 0xffff) == 0)
        return fail(c->g, c->e, ERR_UNSUPPORTED, "a big-endian GGUF file; pare reads little-endian ones");
    if (version == 1)
        return fail(c->g, c->e, ERR_UNSUPPORTED, "GGUF version 1 is not read any more; convert the model again");
    if (version != 2 && version != 3)
        return fail(c->g, c->e, ERR_UNSUPPORTED, "GGUF version %u; pare reads versions 2 and 3", version);
    return true;
}

/* A count that the rest of the file could hold and that we are willing to index. */
static bool take_count(cursor *c, const char *what, uint64_t most, size_t least_bytes, size_t *out) {
    uint64_t n;
    if (!take_u64(c, &n))
        return false;
    if (n > most)
        return fail(c->g, c->e, ERR_LIMIT, "claims %llu %s, pare reads at most %llu", (unsigned long long)n, what,
                    (unsigned long long)most);
    if (n > (c->g->size - c->at) / least_bytes)
        return fail(c->g, c->e, ERR_INVALID,
                    "claims %llu %s, more than a file of %zu bytes holds (truncated download?)", (unsigned long long)n,
                    what, c->g->size);
    *out = (size_t)n;
    return true;
}

static bool read_alignment(gguf *g, err *e) {
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (gguf_has(g, "general.alignment") &&
        !gguf_int(g, "general.alignment", MIN_ALIGNMENT, MAX_ALIGNMENT, &alignment, e))
        return false;
    if (alignment & (alignment - 1))
        return fail(g, e, ERR_INVALID, "general.alignment is %lld, must be a power of two", (long long)alignment);
    g->alignment = (uint64_t)alignment;
    return true;
}

static int by_place(const void *a, const void *b) {
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

/* No two tensors share bytes. No converter writes such a file, and it would let a small one claim a lot of memory. */
static bool check_overlap(gguf *g, err *e) {
    const gguf_tensor **order = arena_alloc(g->memory, (g->tensor_count + 1) * sizeof *order);
    size_t              n = 0;
    if (!order)
        return no_memory(g, e);
    bool sorted = true;
    for (size_t i = 0; i < g->tensor_count; i++) {
        if (!g->tensors[i].data)
            continue;
        sorted = sorted && (n == 0 || by_place(&order[n - 1], &(const gguf_tensor *){&g->tensors[i]}) <= 0);
        order[n++] = &g->tensors[i];
    }
    if (!sorted)
        qsort(order, n, sizeof *order, by_place);
    for (size_t i = 1; i < n; i++)
        if ((const uint8_t *)order[i - 1]->data + order[i - 1]->bytes > (const uint8_t *)order[i]->data)
            return fail(g, e, ERR_INVALID, "the tensors %s and %s overlap", order[i - 1]->name, order[i]->name);
    return true;
}

static bool place_tensors(gguf *g, size_t header, err *e) {
    uint64_t start = (header + g->alignment - 1) / g->alignment * g->alignment;
    for (size_t i = 0; i < g->tensor_count; i++) {
        gguf_tensor *t = &g->tensors[i];
        uint64_t     offset = g->offsets[i];
        if (offset % g->alignment)
            return fail(g, e, ERR_INVALID, "tensor %s begins at offset %llu, not a multiple of the alignment %llu",
                        t->name, (unsigned long long)offset, (unsigned long long)g->alignment);
        if (start > g->size || offset > g->size - start)
            return fail(g, e, ERR_INVALID, "tensor %s begins past the end of the file (truncated download?)", t->name);
        uint64_t room = g->size - start - offset;
        if (t->bytes > room)
            return fail(g, e, ERR_INVALID, "tensor %s ends %llu bytes past the end of the file (truncated download?)",
                        t->name, (unsigned long long)(t->bytes - room));
        if (t->format)
            t->data = g->data + start + offset;
    }
    return check_overlap(g, e);
}

static bool read_header(gguf *g, err *e) {
    cursor c = {.g = g, .e = e, .what = "the header"};
    if (!take_version(&c) || !take_count(&c, "tensors", MAX_TENSORS, MIN_TENSOR_BYTES, &g->tensor_count) ||
        !take_count(&c, "keys", MAX_KEYS, MIN_KEY_BYTES, &g->key_count))
        return false;
    g->memory = arena_new(16384);
    g->key_index = map_new(g->key_count);
    g->tensor_index = map_new(g->tensor_count);
    if (!g->memory || !g->key_index || !g->tensor_index)
        return no_memory(g, e);
    g->keys = arena_zero(g->memory, g->key_count + 1, sizeof *g->keys);
    g->tensors = arena_zero(g->memory, g->tensor_count + 1, sizeof *g->tensors);
    g->offsets = arena_zero(g->memory, g->tensor_count + 1, sizeof *g->offsets);
    if (!g->keys || !g->tensors || !g->offsets)
        return no_memory(g, e);
    for (size_t i = 0; i < g->key_count; i++)
        if (!take_entry(&c, &g->keys[i], i))
            return false;
    if (!read_alignment(g, e))
        return false;
    for (size_t i = 0; i < g->tensor_count; i++)
        if (!take_tensor(&c, &g->tensors[i], i))
            return false;
    return place_tensors(g, c.at, e);
}

/* ---- opening and closing ---- */

static gguf *gguf_new(const char *name, err *e) {
    gguf *g = calloc(1, sizeof *g);
    if (g) {
        g->fd = -1;
        g->name = strdup(name);
    }
    if (!g || !g->name) {
        free(g);
        err_set(e, ERR_MEMORY, "%s: out of memory", name);
        return NULL;
    }
    return g;
}

static bool map_file(gguf *g, err *e) {
    /* O_NONBLOCK: opening a pipe must not wait for its writer; on a regular file it does nothing. */
    g->fd = open(g->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (g->fd < 0)
        return fail(g, e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot be opened: %s", strerror(errno));
    struct stat s;
    if (fstat(g->fd, &s) != 0)
        return fail(g, e, ERR_IO, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(s.st_mode))
        return fail(g, e, ERR_INVALID, "%s, not a GGUF file",
                    S_ISDIR(s.st_mode) ? "a directory" : "not a regular file");
    if (s.st_size <= 0)
        return fail(g, e, ERR_INVALID, "the file is empty (failed download?)");
    void *data = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, g->fd, 0);
    if (data == MAP_FAILED)
        return fail(g, e, ERR_IO, "cannot be mapped: %s", strerror(errno));
    g->data = data;
    g->size = (size_t)s.st_size;
    /* Advice only: it may fail. */
    posix_fadvise(g->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return true;
}

gguf *gguf_open(const char *path, err *e) {
    gguf *g = gguf_new(path, e);
    if (!g)
        return NULL;
    if (map_file(g, e) && read_header(g, e))
        return g;
    gguf_close(g);
    return NULL;
}

gguf *gguf_open_memory(const char *name, const void *data, size_t n, err *e) {
    gguf *g = gguf_new(name ? name : "model", e);
    if (!g)
        return NULL;
    g->data = data;
    g->size = n;
    if (read_header(g, e))
        return g;
    gguf_close(g);
    return NULL;
}

void gguf_close(gguf *g) {
    if (!g)
        return;
    if (g->fd >= 0) {
        if (g->data)
            munmap((void *)g->data, g->size);
        close(g->fd);
    }
    map_free(g->key_index);
    map_free(g->tensor_index);
    arena_free(g->memory);
    free(g->name);
    free(g);
}

const char *gguf_name(const gguf *g) {
    return g->name;
}

size_t gguf_bytes(const gguf *g) {
    return g->size;
}

bool gguf_read(const gguf *g, const gguf_tensor *t, size_t at, void *out, size_t n, err *e) {
    if (!t->data || at > t->bytes || n > t->bytes - at)
        return fail(g, e, ERR_INTERNAL, "read past the end of tensor %s", t->name);
    const uint8_t *from = (const uint8_t *)t->data + at;
    if (g->fd < 0) {
        memcpy(out, from, n);
        return true;
    }
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(g->fd, (char *)out + done, n - done, (off_t)(from - g->data) + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail(g, e, ERR_IO, "tensor %s cannot be read: %s", t->name, strerror(errno));
        if (got == 0)
            return fail(g, e, ERR_IO, "the file became shorter while it was read");
        done += (size_t)got;
    }
    return true;
}

/* ---- metadata ---- */

static const entry *find(const gguf *g, const char *key) {
    int64_t i;
    return map_get(g->key_index, key, strlen(key), &i) ? &g->keys[i] : NULL;
}

bool gguf_has(const gguf *g, const char *key) {
    return find(g, key) != NULL;
}

static const entry *need(const gguf *g, const char *key, err *e) {
    const entry *k = find(g, key);
    if (!k)
        say(g, e, ERR_INVALID, "the key %.100s is missing", key);
    return k;
}

static bool wrong_kind(const gguf *g, const entry *k, const char *wanted, err *e) {
    return fail(g, e, ERR_INVALID, "%.100s is %s, must be %s", k->name, kind_name(k->kind), wanted);
}

static bool is_integer(gguf_kind kind) {
    return kind <= GGUF_I32 || kind == GGUF_U64 || kind == GGUF_I64;
}

/* The i-th integer at `p`; false for a u64 that int64_t cannot hold. */
static bool load_integer(gguf_kind kind, const uint8_t *p, size_t i, int64_t *out) {
    uint64_t bits = 0;
    size_t   n = kind_bytes(kind);
    memcpy(&bits, p + i * n, n);
    switch (kind) {
    case GGUF_I8:
        *out = (int64_t)(bits ^ 0x80) - 0x80; /* extends the sign */
        return true;
    case GGUF_I16:
        *out = (int16_t)bits;
        return true;
    case GGUF_I32:
        *out = (int32_t)bits;
        return true;
    case GGUF_U64:
        *out = (int64_t)bits;
        return bits <= INT64_MAX;
    default:
        *out = (int64_t)bits;
        return true;
    }
}

static double load_float(gguf_kind kind, const uint8_t *p, size_t i) {
    if (kind == GGUF_F64) {
        double d;
        memcpy(&d, p + i * sizeof d, sizeof d);
        return d;
    }
    float f;
    memcpy(&f, p + i * sizeof f, sizeof f);
    return f;
}

bool gguf_int(const gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, err *e) {
    const entry *k = need(g, key, e);
    if (!k)
        return false;
    if (!is_integer(k->kind))
        return wrong_kind(g, k, "an integer", e);
    int64_t value;
    if (!load_integer(k->kind, k->value, 0, &value))
        return fail(g, e, ERR_INVALID, "%.100s is %llu, must be %lld to %lld", key, (unsigned long long)value,
                    (long long)min, (long long)max);
    if (value < min || value > max)
        return fail(g, e, ERR_INVALID, "%.100s is %lld, must be %lld to %lld", key, (long long)value, (long long)min,
                    (long long)max);
    *out = value;
    return true;
}

bool gguf_float(const gguf *g, const char *key, double *out, err *e) {
    const entry *k = need(g, key, e);
    if (!k)
        return false;
    if (k->kind != GGUF_F32 && k->kind != GGUF_F64)
        return wrong_kind(g, k, "a float", e);
    *out = load_float(k->kind, k->value, 0);
    return true;
}

bool gguf_bool(const gguf *g, const char *key, bool *out, err *e) {
    const entry *k = need(g, key, e);
    if (!k)
        return false;
    if (k->kind != GGUF_BOOL)
        return wrong_kind(g, k, "a boolean", e);
    *out = *k->value != 0;
    return true;
}

bool gguf_string(const gguf *g, const char *key, gguf_str *out, err *e) {
    const entry *k = need(g, key, e);
    if (!k)
        return false;
    if (k->kind != GGUF_STRING)
        return wrong_kind(g, k, "a string", e);
    *out = (gguf_str){(const char *)k->value, k->count};
    return true;
}

bool gguf_array(const gguf *g, const char *key, gguf_kind *kind, size_t *count, err *e) {
    const entry *k = need(g, key, e);
    if (!k)
        return false;
    if (k->kind != GGUF_ARRAY)
        return wrong_kind(g, k, "an array", e);
    *kind = k->element;
    *count = k->count;
    return true;
}

gguf_str gguf_array_string(const gguf *g, const char *key, size_t i) {
    const entry *k = find(g, key);
    return k && k->kind == GGUF_ARRAY && k->strings && i < k->count ? k->strings[i] : (gguf_str){"", 0};
}

static double element_number(const entry *k, size_t i) {
    int64_t value;
    if (k->element == GGUF_F32 || k->element == GGUF_F64)
        return load_float(k->element, k->value, i);
    return load_integer(k->element, k->value, i, &value) ? (double)value : (double)(uint64_t)value;
}

double gguf_array_number(const gguf *g, const char *key, size_t i) {
    const entry *k = find(g, key);
    return k && k->kind == GGUF_ARRAY && k->element != GGUF_STRING && i < k->count ? element_number(k, i) : 0;
}

/* The array `key` with exactly `count` elements; its element kind is the caller's matter. */
static const entry *need_array(const gguf *g, const char *key, size_t count, err *e) {
    const entry *k = need(g, key, e);
    if (!k)
        return NULL;
    if (k->kind != GGUF_ARRAY) {
        wrong_kind(g, k, "an array", e);
        return NULL;
    }
    if (k->count != count) {
        say(g, e, ERR_INVALID, "the array %.100s has %zu elements, must have %zu", key, k->count, count);
        return NULL;
    }
    return k;
}

static bool wrong_element(const gguf *g, const entry *k, const char *wanted, err *e) {
    return fail(g, e, ERR_INVALID, "an element of the array %.100s is %s, must be %s", k->name, kind_name(k->element),
                wanted);
}

bool gguf_array_strings(const gguf *g, const char *key, gguf_str *out, size_t count, err *e) {
    const entry *k = need_array(g, key, count, e);
    if (!k)
        return false;
    if (k->element != GGUF_STRING)
        return wrong_element(g, k, "a string", e);
    if (count)
        memcpy(out, k->strings, count * sizeof *out);
    return true;
}

bool gguf_array_ints(const gguf *g, const char *key, int32_t *out, size_t count, err *e) {
    const entry *k = need_array(g, key, count, e);
    if (!k)
        return false;
    if (!is_integer(k->element))
        return wrong_element(g, k, "an integer", e);
    for (size_t i = 0; i < count; i++) {
        int64_t value;
        if (!load_integer(k->element, k->value, i, &value) || value < INT32_MIN || value > INT32_MAX)
            return fail(g, e, ERR_INVALID, "element %zu of the array %.100s is past 32 bits", i, key);
        out[i] = (int32_t)value;
    }
    return true;
}

bool gguf_array_floats(const gguf *g, const char *key, float *out, size_t count, err *e) {
    const entry *k = need_array(g, key, count, e);
    if (!k)
        return false;
    if (k->element != GGUF_F32 && k->element != GGUF_F64)
        return wrong_element(g, k, "a float", e);
    for (size_t i = 0; i < count; i++)
        out[i] = (float)load_float(k->element, k->value, i);
    return true;
}

size_t gguf_key_count(const gguf *g) {
    return g->key_count;
}

const char *gguf_key_at(const gguf *g, size_t i, gguf_kind *kind) {
    if (i >= g->key_count)
        return NULL;
    if (kind)
        *kind = g->keys[i].kind;
    return g->keys[i].name;
}

bool gguf_value_at(const gguf *g, size_t i, gguf_value *out) {
    if (i >= g->key_count)
        return false;
    const entry *k = &g->keys[i];
    *out = (gguf_value){k->kind, k->element, k->count, k->value, k->strings};
    return true;
}

size_t gguf_tensor_count(const gguf *g) {
    return g->tensor_count;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i) {
    return i < g->tensor_count ? &g->tensors[i] : NULL;
}

const gguf_tensor *gguf_tensor_named(const gguf *g, const char *name) {
    int64_t i;
    return map_get(g->tensor_index, name, strlen(name), &i) ? &g->tensors[i] : NULL;
}
