/* gguf_write.c - see gguf.c for the layout. */
#include "model/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct gguf_writer {
    char    *path, *part; /* NULL when writing to memory */
    int      fd;
    str     *out;     /* the file in memory, or the buffer before fd */
    str      buffer;  /* what `out` points at for a file */
    str      keys;    /* metadata entries as they will lie in the file */
    str      tensors; /* tensor entries */
    uint64_t key_count, tensor_count;
    size_t  *sizes; /* bytes of each tensor */
    size_t   sizes_cap;
    uint64_t data_bytes; /* of all tensors declared so far, padded */
    uint64_t alignment;
    bool     streaming; /* the header is out */
    uint64_t current;   /* tensor being written */
    size_t   done;      /* bytes of it that are out */
    bool     failed;
    err      why;
};

enum { BUFFER_BYTES = 1 << 20 };

__attribute__((format(printf, 3, 4))) static void fail(gguf_writer *w, err_code code, const char *format, ...) {
    if (w->failed)
        return;
    char    text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    w->failed = true;
    err_set(&w->why, code, "%.200s: %s", w->path ? w->path : "GGUF in memory", text);
}

/* ---- opening ---- */

static gguf_writer *writer_new(str *out, err *e) {
    gguf_writer *w = calloc(1, sizeof *w);
    if (!w) {
        err_set(e, ERR_MEMORY, "out of memory for a GGUF writer");
        return NULL;
    }
    w->fd = -1;
    w->out = out ? out : &w->buffer;
    w->alignment = 32;
    return w;
}

gguf_writer *gguf_write_open(const char *path, err *e) {
    gguf_writer *w = writer_new(NULL, e);
    if (!w)
        return NULL;
    w->path = strdup(path);
    if (w->path && asprintf(&w->part, "%s.part%ld", path, (long)getpid()) < 0)
        w->part = NULL;
    if (!w->path || !w->part) {
        err_set(e, ERR_MEMORY, "out of memory for a GGUF writer");
        gguf_write_abandon(w);
        return NULL;
    }
    w->fd = open(w->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (w->fd < 0) {
        err_set(e, ERR_IO, "%.300s: cannot be created: %s", path, strerror(errno));
        gguf_write_abandon(w);
        return NULL;
    }
    return w;
}

gguf_writer *gguf_write_open_memory(str *out, err *e) {
    return writer_new(out, e);
}

/* ---- metadata ---- */

static void add_u32(str *s, uint32_t v) {
    str_add(s, &v, sizeof v);
}

static void add_u64(str *s, uint64_t v) {
    str_add(s, &v, sizeof v);
}

static void add_string(str *s, const char *data, size_t n) {
    add_u64(s, n);
    if (n)
        str_add(s, data, n);
}

static size_t kind_bytes(gguf_kind kind) {
    switch (kind) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    default:
        return 0;
    }
}

/* Begins an entry; false when none can be added any more. */
static bool begin_key(gguf_writer *w, const char *key, gguf_kind kind) {
    if (w->streaming)
        fail(w, ERR_INTERNAL, "the key %s comes after the first tensor data", key);
    if (w->failed)
        return false;
    add_string(&w->keys, key, strlen(key));
    add_u32(&w->keys, (uint32_t)kind);
    w->key_count++;
    return true;
}

void gguf_write_int(gguf_writer *w, const char *key, gguf_kind kind, int64_t value) {
    if (kind_bytes(kind) == 0 || kind == GGUF_F32 || kind == GGUF_F64 || kind == GGUF_BOOL)
        fail(w, ERR_INTERNAL, "the key %s is not of an integer kind", key);
    else if (begin_key(w, key, kind))
        str_add(&w->keys, &value, kind_bytes(kind)); /* little-endian: the low bytes come first */
}

void gguf_write_float(gguf_writer *w, const char *key, gguf_kind kind, double value) {
    float single = (float)value;
    if (kind != GGUF_F32 && kind != GGUF_F64)
        fail(w, ERR_INTERNAL, "the key %s is not of a float kind", key);
    else if (begin_key(w, key, kind))
        str_add(&w->keys, kind == GGUF_F32 ? (const void *)&single : (const void *)&value, kind_bytes(kind));
}

void gguf_write_bool(gguf_writer *w, const char *key, bool value) {
    if (begin_key(w, key, GGUF_BOOL))
        str_addc(&w->keys, (char)value);
}

void gguf_write_string(gguf_writer *w, const char *key, const char *data, size_t n) {
    if (begin_key(w, key, GGUF_STRING))
        add_string(&w->keys, data, n);
}

void gguf_write_text(gguf_writer *w, const char *key, const char *text) {
    gguf_write_string(w, key, text, strlen(text));
}

void gguf_write_array(gguf_writer *w, const char *key, gguf_kind kind, const void *values, size_t count) {
    size_t each = kind_bytes(kind);
    if (each == 0 || count > SIZE_MAX / each) {
        fail(w, ERR_INTERNAL, "the array %s cannot be written", key);
        return;
    }
    if (!begin_key(w, key, GGUF_ARRAY))
        return;
    add_u32(&w->keys, (uint32_t)kind);
    add_u64(&w->keys, count);
    if (count)
        str_add(&w->keys, values, count * each);
}

void gguf_write_strings(gguf_writer *w, const char *key, const gguf_str *values, size_t count) {
    if (!begin_key(w, key, GGUF_ARRAY))
        return;
    add_u32(&w->keys, GGUF_STRING);
    add_u64(&w->keys, count);
    for (size_t i = 0; i < count; i++)
        add_string(&w->keys, values[i].data, values[i].len);
}

void gguf_write_value(gguf_writer *w, const char *key, const gguf_value *v) {
    if (v->kind == GGUF_ARRAY && v->element == GGUF_STRING)
        gguf_write_strings(w, key, v->strings, v->count);
    else if (v->kind == GGUF_ARRAY)
        gguf_write_array(w, key, v->element, v->bytes, v->count);
    else if (v->kind == GGUF_STRING)
        gguf_write_string(w, key, v->bytes, v->count);
    else if (begin_key(w, key, v->kind))
        str_add(&w->keys, v->bytes, kind_bytes(v->kind));
}

void gguf_write_alignment(gguf_writer *w, uint32_t alignment) {
    if (alignment < 8 || alignment > 65536 || (alignment & (alignment - 1)))
        fail(w, ERR_INTERNAL, "an alignment of %u is not a power of two from 8 to 65536", alignment);
    else if (w->tensor_count)
        fail(w, ERR_INTERNAL, "the alignment comes after the first tensor");
    else
        w->alignment = alignment;
    gguf_write_int(w, "general.alignment", GGUF_U32, alignment);
}

/* ---- tensors ---- */

/* Bytes of a tensor; false when there is no such tensor. */
static bool tensor_bytes(const block_format *format, int dims, const int64_t *shape, size_t *bytes) {
    if (dims < 1 || dims > 4 || shape[0] < 1 || !block_row_bytes(format, shape[0], bytes))
        return false;
    for (int d = 1; d < dims; d++) {
        if (shape[d] < 1 || (uint64_t)shape[d] > (uint64_t)INT64_MAX / *bytes)
            return false;
        *bytes *= (size_t)shape[d];
    }
    return true;
}

void gguf_write_tensor(gguf_writer *w, const char *name, const block_format *format, int dims, const int64_t *shape) {
    size_t bytes = 0;
    if (w->streaming)
        fail(w, ERR_INTERNAL, "tensor %s is declared after the first tensor data", name);
    else if (!tensor_bytes(format, dims, shape, &bytes))
        fail(w, ERR_INVALID, "tensor %s cannot have this shape as %s", name, format->name);
    if (w->failed)
        return;
    if (w->tensor_count == w->sizes_cap) {
        size_t  cap = w->sizes_cap ? w->sizes_cap * 2 : 64;
        size_t *sizes = realloc(w->sizes, cap * sizeof *sizes);
        if (!sizes) {
            fail(w, ERR_MEMORY, "out of memory");
            return;
        }
        w->sizes = sizes;
        w->sizes_cap = cap;
    }
    add_string(&w->tensors, name, strlen(name));
    add_u32(&w->tensors, (uint32_t)dims);
    for (int d = 0; d < dims; d++)
        add_u64(&w->tensors, (uint64_t)shape[d]);
    add_u32(&w->tensors, (uint32_t)format->type);
    add_u64(&w->tensors, w->data_bytes);
    w->sizes[w->tensor_count++] = bytes;
    uint64_t padded = (bytes + w->alignment - 1) / w->alignment * w->alignment;
    if (padded > INT64_MAX - w->data_bytes)
        fail(w, ERR_INVALID, "the tensors together are larger than any file");
    else
        w->data_bytes += padded;
}

/* ---- output ---- */

static void write_all(gguf_writer *w, const char *data, size_t n) {
    while (n && !w->failed) {
        ssize_t got = write(w->fd, data, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            fail(w, ERR_IO, "cannot be written: %s", got < 0 ? strerror(errno) : "nothing was taken");
            return;
        }
        data += got;
        n -= (size_t)got;
    }
}

static void flush(gguf_writer *w) {
    if (w->out->failed)
        fail(w, ERR_MEMORY, "out of memory");
    if (w->fd < 0)
        return;
    write_all(w, w->out->data, w->out->len);
    str_clear(w->out);
}

static void put(gguf_writer *w, const void *data, size_t n) {
    if (w->fd >= 0 && n >= BUFFER_BYTES) {
        flush(w);
        write_all(w, data, n);
        return;
    }
    if (!str_add(w->out, data, n))
        fail(w, ERR_MEMORY, "out of memory");
    if (w->fd >= 0 && w->out->len >= BUFFER_BYTES)
        flush(w);
}

/* Zeros from byte `at` to the next multiple of the alignment. */
static void pad(gguf_writer *w, uint64_t at) {
    static const char zeros[256];
    for (size_t n = (size_t)((w->alignment - at % w->alignment) % w->alignment); n && !w->failed;) {
        size_t piece = n < sizeof zeros ? n : sizeof zeros;
        put(w, zeros, piece);
        n -= piece;
    }
}

static void begin_data(gguf_writer *w) {
    if (w->keys.failed || w->tensors.failed)
        fail(w, ERR_MEMORY, "out of memory");
    if (w->streaming || w->failed)
        return;
    w->streaming = true;
    str head = {0};
    str_add(&head, "GGUF", 4);
    add_u32(&head, 3);
    add_u64(&head, w->tensor_count);
    add_u64(&head, w->key_count);
    if (head.failed)
        fail(w, ERR_MEMORY, "out of memory");
    else
        put(w, head.data, head.len);
    if (w->keys.len)
        put(w, w->keys.data, w->keys.len);
    if (w->tensors.len)
        put(w, w->tensors.data, w->tensors.len);
    pad(w, head.len + w->keys.len + w->tensors.len);
    str_free(&head);
}

bool gguf_write_data(gguf_writer *w, const void *data, size_t n) {
    begin_data(w);
    if (!w->failed && (w->current == w->tensor_count || n > w->sizes[w->current] - w->done))
        fail(w, ERR_INTERNAL, "more data than tensor %llu has room for", (unsigned long long)w->current);
    if (w->failed)
        return false;
    put(w, data, n);
    w->done += n;
    if (w->done == w->sizes[w->current]) {
        pad(w, w->done);
        w->current++;
        w->done = 0;
    }
    return !w->failed;
}

static void close_file(gguf_writer *w) {
    if (fsync(w->fd) != 0)
        fail(w, ERR_IO, "cannot be written: %s", strerror(errno));
    int closed = close(w->fd);
    w->fd = -1;
    if (closed != 0)
        fail(w, ERR_IO, "cannot be written: %s", strerror(errno));
    if (w->failed)
        return;
    if (rename(w->part, w->path) != 0) {
        fail(w, ERR_IO, "cannot be renamed from %.100s: %s", w->part, strerror(errno));
        return;
    }
    free(w->part);
    w->part = NULL;
}

bool gguf_write_finish(gguf_writer *w, err *e) {
    begin_data(w);
    if (w->current != w->tensor_count)
        fail(w, ERR_INTERNAL, "tensor %llu lacks data", (unsigned long long)w->current);
    flush(w);
    if (w->fd >= 0 && !w->failed)
        close_file(w);
    bool ok = !w->failed;
    if (!ok && e)
        *e = w->why;
    gguf_write_abandon(w);
    return ok;
}

void gguf_write_abandon(gguf_writer *w) {
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->part)
        unlink(w->part);
    str_free(&w->buffer);
    str_free(&w->keys);
    str_free(&w->tensors);
    free(w->sizes);
    free(w->path);
    free(w->part);
    free(w);
}
