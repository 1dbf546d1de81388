/* stream.c - tensor data from the folder to the file, some rows at a time, and back from the file to be compared. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "model/gguf.h"
#include "model/import/internal.h"

enum { PIECE_BYTES = 1 << 20, TOLD_BYTES = 32 << 20 };

static void progress(importer *m, const char *what, size_t n) {
    m->done += (int64_t)n;
    if (m->o->progress && (m->done - m->told >= TOLD_BYTES || m->done == m->total)) {
        m->told = m->done;
        m->o->progress(m->o->arg, what, m->done, m->total);
    }
}

/* Some rows on their way: as read, rearranged, as floats and as written. */
typedef struct batch {
    uint8_t *raw, *moved, *out;
    float   *floats;
    size_t   raw_cap, out_cap; /* bytes */
} batch;

/* Memory of the import's own arena, freed with it: a batch grows a few times at most. */
static bool room(importer *m, batch *b, size_t raw, size_t out) {
    if (raw > SIZE_MAX / 2)
        return import_no_memory(m);
    if (raw > b->raw_cap) {
        b->raw = arena_alloc(m->memory, raw);
        b->moved = arena_alloc(m->memory, raw);
        b->floats = arena_alloc(m->memory, 2 * raw); /* a value takes two bytes at least and becomes four */
        b->raw_cap = raw;
    }
    if (out > b->out_cap) {
        b->out = arena_alloc(m->memory, out);
        b->out_cap = out;
    }
    return (b->raw && b->moved && b->floats && b->out) || import_no_memory(m);
}

/* The writer remembers why; it is gone afterwards. */
static bool writer_failed(importer *m) {
    gguf_write_finish(m->w, m->e);
    m->w = NULL;
    return false;
}

/* Moves elements of `width` bytes. One head: row i of the first half goes to 2i, row i of the second to 2i + 1. */
static void pair_rows(const uint8_t *in, uint8_t *out, int64_t rows, size_t row_bytes) {
    for (int64_t i = 0; i < rows / 2; i++) {
        memcpy(out + (size_t)(2 * i) * row_bytes, in + (size_t)i * row_bytes, row_bytes);
        memcpy(out + (size_t)(2 * i + 1) * row_bytes, in + (size_t)(rows / 2 + i) * row_bytes, row_bytes);
    }
}

static void transpose(const uint8_t *in, uint8_t *out, int64_t rows, int64_t cols, size_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            memcpy(out + (size_t)(c * rows + r) * width, in + (size_t)(r * cols + c) * width, width);
}

/* f16 ends at 65504; a block's scale must be finite. */
static bool fits(importer *m, const out_tensor *t, const float *values, int64_t n) {
    const bool half = t->format->type == BLOCK_F16, blocks = t->format->type == BLOCK_Q8_0;
    if (!half && !blocks)
        return true;
    for (int64_t i = 0; i < n; i++)
        if ((isfinite(values[i]) && half && fabsf(values[i]) > 65504.0f) || (blocks && !(fabsf(values[i]) <= 8e6f)))
            return err_set(m->e, ERR_UNSUPPORTED, "tensor %s holds %g, which %s cannot say; import as bf16 or f32",
                           t->name, (double)values[i], t->format->name);
    return true;
}

/* n values of the source's type become bytes of the file. */
static bool put(importer *m, out_tensor *t, batch *b, const uint8_t *raw, const st_tensor *s, int64_t n,
                sha256_state *digest) {
    size_t         bytes = 0;
    const uint8_t *out = raw;
    if (!block_row_bytes(t->format, n, &bytes))
        return err_set(m->e, ERR_INTERNAL, "a piece of tensor %s is no whole number of blocks", t->name);
    if (s->type != (int)t->format->type || t->change == PLUS_ONE) {
        block_to_f32((block_type)s->type, raw, b->floats, n);
        if (t->change == PLUS_ONE)
            for (int64_t i = 0; i < n; i++)
                b->floats[i] += 1;
        if (!fits(m, t, b->floats, n))
            return false;
        block_from_f32(t->format->type, b->floats, b->out, n);
        out = b->out;
    }
    if (digest)
        sha256_add(digest, out, bytes);
    if (!gguf_write_data(m->w, out, bytes))
        return writer_failed(m);
    progress(m, "writing", bytes);
    return true;
}

/* How many rows go together. */
static int64_t rows_together(const out_tensor *t, int64_t rows, size_t row_bytes) {
    if (t->change == TRANSPOSE)
        return rows;
    if (t->change == PAIR_Q || t->change == PAIR_K)
        return rows / t->heads;
    int64_t some = (int64_t)(PIECE_BYTES / row_bytes);
    return some < 1 ? 1 : some > rows ? rows : some;
}

static bool stream_part(importer *m, out_tensor *t, const tensor_part *p, batch *b, sha256_state *digest) {
    const st_tensor *s = p->from->t;
    const bool       vector = s->dims == 1;
    const bool       paired = t->change == PAIR_Q || t->change == PAIR_K;
    int64_t          cols = vector && paired ? 1 : s->shape[s->dims - 1];
    int64_t          rows = vector && paired ? s->shape[0] : p->rows;
    size_t           row_bytes = (size_t)cols * (size_t)s->width;
    int64_t          together = rows_together(t, rows, row_bytes);
    for (int64_t r = 0; r < rows; r += together) {
        int64_t now = rows - r < together ? rows - r : together;
        size_t  raw = (size_t)now * row_bytes;
        if (!room(m, b, raw, (size_t)(now * cols) * sizeof(float)) ||
            !safetensors_read(p->from->file, s, (uint64_t)(p->row + r) * row_bytes, b->raw, raw, m->e))
            return false;
        if (paired)
            pair_rows(b->raw, b->moved, now, row_bytes);
        if (t->change == TRANSPOSE)
            transpose(b->raw, b->moved, now, cols, (size_t)s->width);
        if (!put(m, t, b, paired || t->change == TRANSPOSE ? b->moved : b->raw, s, now * cols, digest))
            return false;
    }
    return true;
}

static bool stream_tensor(importer *m, out_tensor *t, batch *b) {
    sha256_state *digest = sha256_begin();
    bool          ok = digest != NULL || import_no_memory(m);
    if (ok && t->values) {
        size_t bytes = (size_t)t->shape[0] * sizeof(float);
        sha256_add(digest, t->values, bytes);
        ok = gguf_write_data(m->w, t->values, bytes) || writer_failed(m);
        progress(m, "writing", bytes);
    }
    for (int i = 0; ok && i < t->part_count; i++)
        ok = stream_part(m, t, &t->parts[i], b, digest);
    if (digest) {
        sha256 sum = sha256_end(digest);
        memcpy(t->digest, sum.bytes, sizeof t->digest);
    }
    return ok;
}

bool tensors_stream(importer *m) {
    batch b = {0};
    bool  ok = true;
    for (size_t i = 0; ok && i < m->tensor_count; i++)
        ok = stream_tensor(m, &m->tensors[i], &b);
    return ok;
}

/* ---- reading back ---- */

static bool verify_tensor(importer *m, const gguf *g, const out_tensor *t, uint8_t *buffer) {
    const gguf_tensor *got = gguf_tensor_named(g, t->name);
    if (!got || got->format != t->format || got->dims != t->dims ||
        memcmp(got->shape, t->shape, (size_t)t->dims * sizeof *t->shape) != 0)
        return err_set(m->e, ERR_INTERNAL, "%.200s: tensor %s is not in the file as it was written", gguf_name(g),
                       t->name);
    sha256_state *digest = sha256_begin();
    bool          ok = digest != NULL || import_no_memory(m);
    for (size_t at = 0; ok && at < got->bytes;) {
        size_t n = got->bytes - at < PIECE_BYTES ? got->bytes - at : PIECE_BYTES;
        ok = gguf_read(g, got, at, buffer, n, m->e);
        if (ok)
            sha256_add(digest, buffer, n);
        at += n;
        progress(m, "verifying", n);
    }
    if (!digest)
        return false;
    sha256 sum = sha256_end(digest);
    if (ok && memcmp(sum.bytes, t->digest, sizeof t->digest) != 0)
        ok = err_set(m->e, ERR_IO, "%.200s: tensor %s reads back other than it was written (a failing disk?)",
                     gguf_name(g), t->name);
    return ok;
}

bool tensors_verify(importer *m, const char *path) {
    uint8_t *buffer = malloc(PIECE_BYTES);
    gguf    *g = buffer ? gguf_open(path, m->e) : NULL;
    bool     ok =
        g != NULL && (gguf_tensor_count(g) == m->tensor_count ||
                      err_set(m->e, ERR_INTERNAL, "%.200s: holds another number of tensors than were written", path));
    if (!buffer)
        import_no_memory(m);
    m->done = m->told = 0;
    for (size_t i = 0; ok && i < m->tensor_count; i++)
        ok = verify_tensor(m, g, &m->tensors[i], buffer);
    gguf_close(g);
    free(buffer);
    return ok;
}
