/* gguf_write.h - writing a GGUF v3 file, tensor data streamed.
 *
 * First all keys and tensor declarations in any order, then the data of the tensors in the order of their declaration,
 * then gguf_write_finish. The header is gathered in memory; data goes out as it comes. The file appears under its name
 * only when it is whole: it is written beside as PATH.partPID, synced and renamed.
 *
 * The first failure (memory, disk, wrong order, too little or too much data) stays, later calls do nothing, and finish
 * tells it, so that a long run of calls needs one check. One thread at a time.                                       */
#ifndef PARE_MODEL_GGUF_WRITE_H
#define PARE_MODEL_GGUF_WRITE_H

#include "base/err.h"
#include "base/str.h"
#include "model/gguf.h"

typedef struct gguf_writer gguf_writer;

gguf_writer *gguf_write_open(const char *path, err *e);
gguf_writer *gguf_write_open_memory(str *out, err *e); /* the whole file is added to *out */

void gguf_write_int(gguf_writer *w, const char *key, gguf_kind kind, int64_t value);  /* an integer kind */
void gguf_write_float(gguf_writer *w, const char *key, gguf_kind kind, double value); /* F32 or F64 */
void gguf_write_bool(gguf_writer *w, const char *key, bool value);
void gguf_write_string(gguf_writer *w, const char *key, const char *data, size_t n);
void gguf_write_text(gguf_writer *w, const char *key, const char *text);
/* `values`: `count` numbers as they lie in memory, of the width of `kind` (not STRING, not ARRAY). */
void gguf_write_array(gguf_writer *w, const char *key, gguf_kind kind, const void *values, size_t count);
void gguf_write_strings(gguf_writer *w, const char *key, const gguf_str *values, size_t count);
/* A value of another file, in every kind and bit the same. */
void gguf_write_value(gguf_writer *w, const char *key, const gguf_value *v);
/* general.alignment as well; a power of two, 8 to 65536. 32 when never called. */
void gguf_write_alignment(gguf_writer *w, uint32_t alignment);

/* shape[0] is the row length, as in gguf_tensor. */
void gguf_write_tensor(gguf_writer *w, const char *name, const block_format *format, int dims, const int64_t *shape);

/* The next bytes of the current tensor, in pieces of any size; padding between tensors is added here. False once
 * something failed, so that a producer can stop early. */
bool gguf_write_data(gguf_writer *w, const void *data, size_t n);

/* Frees the writer in any case. False with a sentence when the file is not there. */
bool gguf_write_finish(gguf_writer *w, err *e);
void gguf_write_abandon(gguf_writer *w); /* gives up: removes what was written; NULL is fine */

#endif
