/* safetensors.h - one .safetensors file, its header checked before anything else.
 *
 * The file is u64 header length, JSON header, data (specification: the safetensors README). Everything in the header
 * is hostile until checked: lengths, names, shapes, and that the tensors tile the data without hole or overlap. Data is
 * read with pread, so a file that shrinks while it is open costs a sentence and not a SIGBUS. Read-only after opening:
 * any thread.                                                                                                        */
#ifndef PARE_MODEL_SAFETENSORS_H
#define PARE_MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct safetensors safetensors;

typedef struct st_tensor {
    const char *name;  /* NUL-terminated; holds no control character */
    const char *dtype; /* "BF16" */
    int         type;  /* BLOCK_F32, BLOCK_F16, BLOCK_BF16; -1: a type whose values pare does not read */
    int         width; /* bytes of a value */
    int         dims;
    int64_t     shape[SAFETENSORS_MAX_DIMS]; /* shape[dims - 1] is the row length; unused ones are 1 */
    uint64_t    at;                          /* in the file */
    uint64_t    bytes;
} st_tensor;

safetensors *safetensors_open(const char *path, err *e);
safetensors *safetensors_open_memory(const char *name, const void *data, size_t n, err *e); /* the caller keeps it */
void         safetensors_close(safetensors *s);

const char      *safetensors_name(const safetensors *s);
size_t           safetensors_count(const safetensors *s);
const st_tensor *safetensors_at(const safetensors *s, size_t i); /* in the order of their data */
const st_tensor *safetensors_named(const safetensors *s, const char *name);

/* n bytes of a tensor from its byte `at`. */
bool safetensors_read(const safetensors *s, const st_tensor *t, uint64_t at, void *out, size_t n, err *e);

#endif
