/* gguf.h - a GGUF v2/v3 file, mapped and checked.
 *
 * Everything in the file is hostile until checked: counts, lengths, offsets, types, alignment and names are verified
 * when the file is opened, so that readers afterwards need not. Opening costs time linear in the header's size.
 * The pointers handed out live as long as the gguf. Read-only after opening: any thread.                            */
#ifndef PARE_MODEL_GGUF_H
#define PARE_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tensor/block.h"

typedef struct gguf gguf;

typedef struct gguf_str { /* not NUL-terminated */
    const char *data;
    size_t      len;
} gguf_str;

typedef enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_kind;

typedef struct gguf_tensor {
    const char         *name;
    const block_format *format; /* NULL: a type pare does not know; `type` says which */
    int                 type;
    int                 dims;
    int64_t             shape[4]; /* shape[0] is the row length; unused dimensions are 1 */
    const void         *data;     /* NULL, and bytes 0, when format is NULL */
    size_t              bytes;
} gguf_tensor;

gguf *gguf_open(const char *path, err *e);
gguf *gguf_open_memory(const char *name, const void *data, size_t n, err *e); /* the caller keeps the memory */
void  gguf_close(gguf *g);

const char *gguf_name(const gguf *g); /* path or name, for sentences */
size_t      gguf_bytes(const gguf *g);

/* Copies n bytes of a tensor's data from byte `at`. Unlike reading t->data this survives a file that shrinks while it
 * is open (a mapping would raise SIGBUS): then it fails with a sentence. */
bool gguf_read(const gguf *g, const gguf_tensor *t, size_t at, void *out, size_t n, err *e);

/* Metadata. has: present at all. The typed getters fail when the key is missing or of another type (any integer type
 * that holds the value is fine for int; f32/f64 for float). */
bool gguf_has(const gguf *g, const char *key);
bool gguf_int(const gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, err *e);
bool gguf_float(const gguf *g, const char *key, double *out, err *e);
bool gguf_bool(const gguf *g, const char *key, bool *out, err *e);
bool gguf_string(const gguf *g, const char *key, gguf_str *out, err *e);

/* Arrays. count and kind of the elements; strings and numbers by index (O(1)). */
bool     gguf_array(const gguf *g, const char *key, gguf_kind *kind, size_t *count, err *e);
gguf_str gguf_array_string(const gguf *g, const char *key, size_t i);
double   gguf_array_number(const gguf *g, const char *key, size_t i);
/* Whole arrays into caller memory, for speed; the count must match the array's. */
bool     gguf_array_strings(const gguf *g, const char *key, gguf_str *out, size_t count, err *e);
bool     gguf_array_ints(const gguf *g, const char *key, int32_t *out, size_t count, err *e);
bool     gguf_array_floats(const gguf *g, const char *key, float *out, size_t count, err *e);

/* The i-th key's value as it lies in the file, for copies that are exact in every kind and bit. */
typedef struct gguf_value {
    gguf_kind       kind, element; /* element: of an array */
    size_t          count;         /* bytes of a string, elements of an array */
    const void     *bytes;         /* the number, the string or the array's elements; need not be aligned */
    const gguf_str *strings;       /* of an array of strings */
} gguf_value;
bool gguf_value_at(const gguf *g, size_t i, gguf_value *out);

size_t             gguf_key_count(const gguf *g);
const char        *gguf_key_at(const gguf *g, size_t i, gguf_kind *kind);
size_t             gguf_tensor_count(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);
const gguf_tensor *gguf_tensor_named(const gguf *g, const char *name); /* NULL when absent */

#endif
