/* show.h - what `pare show` finds in a file. */
#ifndef PARE_CLI_SHOW_H
#define PARE_CLI_SHOW_H

#include "base/str.h"
#include "model/arch.h"
#include "model/gguf.h"
#include "tensor/kvblock.h"

typedef struct shown_type {
    int         number;
    const char *name; /* NULL: a type pare does not know */
    size_t      tensors;
    int64_t     values;
    size_t      bytes;
} shown_type;

typedef struct shown_model {
    const gguf *g;
    const char *path;
    gguf_str    architecture, name, license, size_label; /* data NULL: absent */
    int64_t     parameters;
    size_t      tensor_bytes; /* of known types */
    shown_type  types[64];
    int         n_types;
    int64_t     context, layers, dim, heads, kv_heads, ffn, experts, experts_used; /* 0: absent */
    gguf_str    tokenizer, pre;
    size_t      vocabulary;
    bool        tokenizer_works, chat_template, chat_works;
    bool        bundled; /* inside the program, whose memory then counts it */
    bool        runs;    /* pare computes this architecture; then `shape` is set */
    model_shape shape;
    char        why_not[300], tokenizer_why[300], chat_why[300];
} shown_model;

void show_read(const gguf *g, const char *path, shown_model *m);

/* A string of the file for people: at most `most` bytes, what a terminal would obey is replaced. */
void show_text(str *out, gguf_str s, size_t most);
/* The same as a JSON string, whole; bytes that are no UTF-8 become U+FFFD. */
void show_json_text(str *out, gguf_str s);

void show_metadata(const gguf *g, bool json, str *out);
void show_tensors(const gguf *g, bool json, str *out);

typedef struct show_need { /* bytes that one chat of `context` tokens takes in memory */
    size_t weights, kv, working;
} show_need;

/* Of a model that runs. False when this type of keys and values does not fit its heads. */
bool show_memory(const shown_model *m, kv_type type, int64_t context, show_need *need);

/* One tensor's values as little-endian float32; "-" is standard output. */
bool show_write_values(const gguf *g, const char *tensor, const char *out, err *e);

#endif
