/* quantize.h - a GGUF file written again with its matrices in smaller types.
 *
 * First a plan says what becomes of each tensor; then the file is written tensor by tensor in bounded memory and, unless
 * the caller does not want it, read back and compared with the source before it appears under its name.
 *
 * What stays precise: tensors of one dimension (F32), norms, the routers of experts, positions and token types, the small
 * recurrent parts of state space models, and tensors of fewer than 1024 values (as they are in the source). Rows that a
 * type's block does not divide go into the nearest type whose block does. A tensor of three dimensions (experts) is so
 * many matrices one after another. Metadata is copied bit for bit but for general.file_type and
 * general.quantization_version.                                                                                      */
#ifndef PARE_LEARN_QUANTIZE_H
#define PARE_LEARN_QUANTIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/gguf.h"
#include "tensor/pool.h"

typedef struct quantize_rule { /* for the tensors whose name matches; * ? and [] as in a shell */
    const char         *pattern;
    const block_format *to; /* NULL: as it is in the source */
} quantize_rule;

typedef struct quantize_options {
    const char          *type;               /* of quantize_type_name, or a block format's name */
    const block_format  *output, *embedding; /* of output.weight and token_embd.weight; NULL: by the type */
    const quantize_rule *rules;              /* the last one that matches counts */
    size_t               rule_count;
    bool                 allow_requantize; /* of tensors that are quantised already */
} quantize_options;

typedef struct quantize_item {
    const gguf_tensor  *from;
    const block_format *to;
    const block_format *wanted; /* by type or rule; differs from `to` where the block does not divide the rows */
    size_t              bytes;
    const char         *why; /* "" when the type decides, else "rule", "one dimension", "router of experts", ... */
} quantize_item;

typedef struct quantize_plan {
    const gguf    *g; /* the caller keeps it open */
    quantize_item *items;
    size_t         count;
    int            file_type;  /* GGUF's number for general.file_type */
    uint64_t       from_bytes; /* of all tensors in the source */
    uint64_t       bytes;      /* and as planned */
    int64_t        values;
    size_t         fallbacks;
} quantize_plan;

/* Refuses, with a sentence: unknown types, rules that match no tensor, tensors of a type that pare does not know, parts of
 * a split file, and quantised sources without allow_requantize. */
quantize_plan *quantize_plan_new(const gguf *g, const quantize_options *o, err *e);
void           quantize_plan_free(quantize_plan *plan);

/* The i-th mixture and what it is; NULL past the last. */
const char *quantize_type_name(int i);
const char *quantize_type_about(int i);

/* Called now and then from the calling thread; `done` from 0 to 1. False stops the work: then it fails with ERR_CANCELLED
 * and nothing is left behind. */
typedef bool (*quantize_progress)(void *arg, const char *what, double done);

typedef struct quantize_error { /* of one tensor of the written file against the source */
    double rms;                 /* root mean square of the differences */
    double source_rms;          /* and of the source's values */
    double largest;             /* difference */
} quantize_error;

typedef struct quantize_job {
    pool             *p;        /* NULL: the calling thread alone */
    quantize_progress progress; /* may be NULL */
    void             *arg;
    quantize_error   *errors; /* [plan->count], filled when verified; NULL: the file is not read back */
} quantize_job;

/* rms / source_rms; 0 when both are 0. */
double quantize_relative(const quantize_error *q);

bool quantize_write(const quantize_plan *plan, const char *path, const quantize_job *job, err *e);

/* Compares the file at `path` with the plan and its source: shapes, types, metadata and every value. */
bool quantize_verify(const quantize_plan *plan, const char *path, const quantize_job *job, err *e);

#endif
