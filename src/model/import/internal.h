/* internal.h - what the files of import/ share: one import from the folder to the file. */
#ifndef PARE_MODEL_IMPORT_INTERNAL_H
#define PARE_MODEL_IMPORT_INTERNAL_H

#include "model/gguf_write.h"
#include "model/import/archs.h"
#include "model/import/config.h"
#include "model/import/import.h"
#include "model/import/shards.h"

/* Rows of a source, seen as a matrix: all dimensions but the last are rows. */
typedef struct tensor_part {
    const shard_tensor *from;
    int64_t             row, rows;
} tensor_part;

typedef struct out_tensor {
    const char         *name;
    const block_format *format;
    int                 dims;
    int64_t             shape[4]; /* shape[0] is the row length, as in GGUF */
    tensor_change       change;
    int64_t             heads; /* of PAIR_Q and PAIR_K */
    tensor_part        *parts; /* in order of the outermost dimension */
    int                 part_count;
    const float        *values; /* computed here instead: no parts */
    uint8_t             digest[32];
} out_tensor;

typedef struct hyper {
    int64_t layers, dim, ffn, heads, kv_heads, head_dim, context, experts, rope_dim;
    double  rope_base;
    bool    head_dim_said, kv_heads_said;
    bool    tied, tied_said;
} hyper;

typedef struct kept_key {
    const char *key;
    gguf_kind   kind; /* U32, F32, BOOL or STRING */
    int64_t     whole;
    double      number;
    const char *text;
} kept_key;

enum { MAX_KEPT = 64 };

typedef struct importer {
    const import_options *o;
    import_report        *r;
    arena                *memory;
    const import_arch    *arch;
    config                config;
    hyper                 h;
    kept_key              kept[MAX_KEPT];
    int                   kept_count;
    shards               *weights;
    map                  *names; /* a tensor's name without prefixes -> its place in weights */
    out_tensor           *tensors;
    size_t                tensor_count, tensor_cap;
    const block_format   *format; /* of matrices */
    int64_t               rows;   /* of the embedding: tokens of the file */
    gguf_writer          *w;
    int64_t               done, told, total; /* bytes */
    err                  *e;
} importer;

__attribute__((format(printf, 2, 3))) void import_note(importer *m, const char *format, ...);
void                                       import_tell_no_memory(importer *m);
/* A macro for the same reason as err_set: the compiler sees the false. */
#define import_no_memory(m) (import_tell_no_memory(m), err_false())

/* Keeps a key "ARCH.suffix" for the file. */
void import_put_int(importer *m, const char *suffix, int64_t value);
void import_put_float(importer *m, const char *suffix, double value);
void import_put_bool(importer *m, const char *suffix, bool value);
void import_put_text(importer *m, const char *suffix, const char *value);
bool import_write_keys(importer *m);

/* These three read config.json, refuse what GGUF cannot say for the architecture, and keep the keys. */
bool hyper_read(importer *m);  /* sizes, norms, activations, experts, scales */
bool rope_read(importer *m);   /* rope_scaling and its kin; may keep a tensor of factors */
bool window_read(importer *m); /* attention windows, kinds of layers; may shorten or refuse the context */

/* sentence-transformers' modules.json: pooling_type. */
bool pooling_read(importer *m);

/* tensors.c: which tensors the file has and where they come from. */
bool tensors_plan(importer *m);
bool tensors_add_values(importer *m, const char *name, const float *values, int64_t n);
bool tensors_declare(importer *m);

/* stream.c: their data. */
bool tensors_stream(importer *m);
bool tensors_verify(importer *m, const char *path);

/* tokenizer.c and the files beside it. Writes the tokenizer.* keys. */
bool tokenizer_import(importer *m);

#endif
