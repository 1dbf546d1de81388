/* vocab_files.h - the conformance set's vocabularies, and encoding with a failure message. */
#ifndef TESTS_MODEL_VOCAB_FILES_H
#define TESTS_MODEL_VOCAB_FILES_H

#include <sys/stat.h>
#include <time.h>

#include "check.h"

#include "base/str.h"
#include "model/tokenizer/tokenizer.h"

#define VOCAB_FOLDER "../shared/conformance/tokenizers/"

/* Memory of another program shares the processor: tests that bound time look at their own thread's. */
static inline double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* The file with a NUL behind it, malloc'd; NULL when there is none. */
static inline char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    *n = 0;
    if (!f) {
        return NULL;
    }
    str  s = {0};
    char part[65536];
    for (size_t got; (got = fread(part, 1, sizeof(part), f)) > 0;) {
        str_add(&s, part, got);
    }
    fclose(f);
    str_add(&s, "", 0);
    *n = s.len;
    return str_take(&s);
}

typedef struct vocab_file {
    gguf      *file;
    tokenizer *t;
} vocab_file;

static inline bool vocab_file_path(const char *path, vocab_file *o) {
    struct stat is;
    err         e = {0};
    if (stat(path, &is) != 0) {
        return false;
    }
    o->file = gguf_open(path, &e);
    assert_ok(o->file, e);
    o->t = tokenizer_open(o->file, &e);
    assert_ok(o->t, e);
    return true;
}

static inline bool vocab_file_open(const char *name, vocab_file *o) {
    char path[256];
    snprintf(path, sizeof(path), VOCAB_FOLDER "ggml-vocab-%s.gguf", name);
    return vocab_file_path(path, o);
}

static inline void vocab_file_close(vocab_file *o) {
    tokenizer_close(o->t);
    gguf_close(o->file);
}

static inline token_ids encode(const tokenizer *t, const char *text, size_t n, encode_options o) {
    token_ids ids = {0};
    err       e = {0};
    char     *exact = malloc(n ? n : 1); /* nothing behind it: the sanitizer sees a read too far */
    memcpy(exact, text, n);
    assert_ok(tokenizer_encode(t, exact, n, o, &ids, &e), e);
    free(exact);
    for (size_t i = 0; i < ids.count; i++) {
        assert_in_range(ids.ids[i], 0, tokenizer_vocab(t) - 1);
    }
    return ids;
}

static inline str decode(const tokenizer *t, const token_ids *ids, bool special) {
    str out = {0};
    str_add(&out, "", 0);
    for (size_t i = 0; i < ids->count; i++) {
        const char *piece;
        size_t      n = tokenizer_piece(t, ids->ids[i], special, &piece);
        str_add(&out, piece, n);
    }
    return out;
}

#endif
