/* quantize_write.c - a plan carried out: tensors are read, converted and written in pieces, and read back.
 *
 * A piece is a run of values that begins and ends between blocks of both types. The pool's threads convert the pieces of
 * a batch side by side; a batch is what is held in memory.                                                             */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "learn/quantize.h"
#include "model/gguf_write.h"

enum {
    PIECE_VALUES = 1 << 16,  /* a multiple of every block */
    VALUE_BYTES = 4,         /* of the widest type */
    MOST_PIECES = 64,        /* of a batch: 16 MiB as float32 */
    QUANTIZATION_VERSION = 2 /* ggml's GGML_QNT_VERSION: how the blocks of today are laid out */
};

/* More than this part of a tensor's own size is no rounding: a file of zeros would be as good, and of F16 and BF16 it
 * means that values lie outside their range. */
#define MOST_ERROR       1.0
#define MOST_ERROR_FLOAT 0.01

typedef struct lane { /* scratch of one thread */
    uint8_t *raw;     /* [PIECE_VALUES * 4] */
    float   *values;  /* [PIECE_VALUES] */
    float   *others;  /* [PIECE_VALUES] */
} lane;

typedef struct part { /* what comparing a piece gives */
    double error, source, largest;
} part;

typedef struct worker {
    const quantize_plan *plan;
    const quantize_job  *job;
    lane                *lanes;
    int                  threads;
    uint8_t             *out;   /* [MOST_PIECES * PIECE_VALUES * 4] of a batch, in the type to write */
    part                *parts; /* [MOST_PIECES] */
    uint64_t             done;  /* source bytes */

    /* The batch at hand. */
    const quantize_item *item;
    const gguf          *written; /* NULL while writing */
    const gguf_tensor   *there;   /* in the written file */
    int64_t              at, n;   /* values */
    atomic_bool          failed;
    err                  why; /* by the thread that sets `failed` first */
} worker;

/* ---- memory ---- */

static void worker_close(worker *w) {
    for (int i = 0; w->lanes && i < w->threads; i++) {
        free(w->lanes[i].raw);
        free(w->lanes[i].values);
        free(w->lanes[i].others);
    }
    free(w->lanes);
    free(w->out);
    free(w->parts);
}

static bool worker_open(worker *w, const quantize_plan *plan, const quantize_job *job, err *e) {
    *w = (worker){.plan = plan, .job = job, .threads = job->p ? pool_threads(job->p) : 1};
    w->lanes = calloc((size_t)w->threads, sizeof *w->lanes);
    w->out = malloc((size_t)MOST_PIECES * PIECE_VALUES * VALUE_BYTES);
    w->parts = calloc(MOST_PIECES, sizeof *w->parts);
    bool ok = w->lanes && w->out && w->parts;
    for (int i = 0; ok && i < w->threads; i++) {
        lane *l = &w->lanes[i];
        l->raw = malloc((size_t)PIECE_VALUES * VALUE_BYTES);
        l->values = malloc((size_t)PIECE_VALUES * sizeof(float));
        l->others = malloc((size_t)PIECE_VALUES * sizeof(float));
        ok = l->raw && l->values && l->others;
    }
    if (!ok)
        worker_close(w);
    return ok || err_set(e, ERR_MEMORY, "out of memory for converting tensors");
}

/* ---- pieces ---- */

static int64_t values_of(const gguf_tensor *t) {
    return t->shape[0] * t->shape[1] * t->shape[2] * t->shape[3];
}

/* Bytes of n values, which are whole blocks. */
static size_t bytes_of(const block_format *f, int64_t n) {
    return (size_t)(n / f->values) * (size_t)f->bytes;
}

static void give_up(worker *w, const err *e) {
    if (!atomic_exchange(&w->failed, true))
        w->why = *e;
}

/* The i-th piece of the batch. */
static int64_t piece(const worker *w, int i, int64_t *at) {
    int64_t left = w->n - (int64_t)i * PIECE_VALUES;
    *at = w->at + (int64_t)i * PIECE_VALUES;
    return left < PIECE_VALUES ? left : PIECE_VALUES;
}

static bool load(const gguf *g, const gguf_tensor *t, int64_t at, int64_t n, uint8_t *raw, float *out, err *e) {
    if (!gguf_read(g, t, bytes_of(t->format, at), raw, bytes_of(t->format, n), e))
        return false;
    block_to_f32(t->format->type, raw, out, n);
    return true;
}

static bool all_finite(const float *x, int64_t n) {
    float sum = 0; /* anything times zero is zero, but for what is not finite */
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * 0;
    return sum == 0;
}

static void convert_pieces(void *arg, int begin, int end, int thread) {
    worker              *w = arg;
    lane                *l = &w->lanes[thread];
    const quantize_item *x = w->item;
    err                  e = {0};
    for (int i = begin; i < end && !atomic_load(&w->failed); i++) {
        int64_t  at, n = piece(w, i, &at);
        uint8_t *to = w->out + bytes_of(x->to, at - w->at);
        bool     ok;
        if (x->to == x->from->format) {
            ok = gguf_read(w->plan->g, x->from, bytes_of(x->to, at), to, bytes_of(x->to, n), &e);
        } else {
            ok = load(w->plan->g, x->from, at, n, l->raw, l->values, &e);
            if (ok && !all_finite(l->values, n))
                ok = err_set(&e, ERR_INVALID,
                             "tensor %.80s holds values that are no finite numbers; the source is broken",
                             x->from->name);
            if (ok)
                block_from_f32(x->to->type, l->values, to, n);
        }
        if (!ok)
            give_up(w, &e);
    }
}

static void compare_pieces(void *arg, int begin, int end, int thread) {
    worker *w = arg;
    lane   *l = &w->lanes[thread];
    err     e = {0};
    for (int i = begin; i < end && !atomic_load(&w->failed); i++) {
        int64_t at, n = piece(w, i, &at);
        part    sum = {0};
        if (!load(w->plan->g, w->item->from, at, n, l->raw, l->values, &e) ||
            !load(w->written, w->there, at, n, l->raw, l->others, &e)) {
            give_up(w, &e);
            return;
        }
        for (int64_t k = 0; k < n; k++) {
            double was = (double)l->values[k], is = (double)l->others[k];
            double difference = was == is ? 0 : is - was; /* infinities of the source that were kept */
            sum.error += difference * difference;
            sum.source += was * was;
            sum.largest = fmax(sum.largest, fabs(difference));
        }
        w->parts[i] = sum;
    }
}

/* One batch through the pool; false once something failed. */
static bool run_batch(worker *w, pool_fn fn, err *e) {
    int pieces = (int)((w->n + PIECE_VALUES - 1) / PIECE_VALUES);
    if (w->job->p)
        pool_run(w->job->p, pieces, 1, fn, w);
    else
        fn(w, 0, pieces, 0);
    if (!atomic_load(&w->failed))
        return true;
    if (e)
        *e = w->why;
    return false;
}

/* Walks through the values of one tensor. `after` takes each batch that is done. */
static bool run_tensor(worker *w, const quantize_item *x, const char *what, pool_fn fn, bool (*after)(worker *, void *),
                       void *arg, err *e) {
    int64_t total = values_of(x->from), most = (int64_t)MOST_PIECES * PIECE_VALUES;
    w->item = x;
    for (w->at = 0; w->at < total; w->at += w->n) {
        w->n = total - w->at < most ? total - w->at : most;
        if (!run_batch(w, fn, e))
            return false;
        if (!after(w, arg))
            return true; /* who takes the batches knows why and tells it at the end */
        w->done += bytes_of(x->from->format, w->n);
        double share = w->plan->from_bytes ? (double)w->done / (double)w->plan->from_bytes : 1;
        if (w->job->progress && !w->job->progress(w->job->arg, what, share))
            return err_set(e, ERR_CANCELLED, "stopped; nothing was left behind");
    }
    return true;
}

/* ---- writing ---- */

static bool starts(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* The two keys that say what the file holds; everything else stays. Marks of a split go: the file is whole. */
static void copy_keys(gguf_writer *out, const quantize_plan *plan) {
    bool   type = false, version = false;
    size_t n = gguf_key_count(plan->g);
    for (size_t i = 0; i < n; i++) {
        gguf_value  v;
        int64_t     alignment;
        const char *key = gguf_key_at(plan->g, i, NULL);
        if (!gguf_value_at(plan->g, i, &v) || starts(key, "split."))
            continue;
        if (strcmp(key, "general.file_type") == 0) {
            gguf_write_int(out, key, GGUF_U32, plan->file_type);
            type = true;
        } else if (strcmp(key, "general.quantization_version") == 0) {
            gguf_write_int(out, key, GGUF_U32, QUANTIZATION_VERSION);
            version = true;
        } else if (strcmp(key, "general.alignment") == 0 && gguf_int(plan->g, key, 8, 65536, &alignment, NULL)) {
            gguf_write_alignment(out, (uint32_t)alignment);
        } else {
            gguf_write_value(out, key, &v);
        }
    }
    if (!type)
        gguf_write_int(out, "general.file_type", GGUF_U32, plan->file_type);
    if (!version)
        gguf_write_int(out, "general.quantization_version", GGUF_U32, QUANTIZATION_VERSION);
}

static bool write_batch(worker *w, void *arg) {
    return gguf_write_data(arg, w->out, bytes_of(w->item->to, w->n));
}

static bool write_file(const quantize_plan *plan, const char *path, const quantize_job *job, err *e) {
    worker w;
    if (!worker_open(&w, plan, job, e))
        return false;
    gguf_writer *out = gguf_write_open(path, e);
    bool         ok = out != NULL;
    if (ok) {
        copy_keys(out, plan);
        for (size_t i = 0; i < plan->count; i++)
            gguf_write_tensor(out, plan->items[i].from->name, plan->items[i].to, plan->items[i].from->dims,
                              plan->items[i].from->shape);
    }
    for (size_t i = 0; ok && i < plan->count; i++)
        ok = run_tensor(&w, &plan->items[i], "quantizing", convert_pieces, write_batch, out, e);
    worker_close(&w);
    if (ok)
        return gguf_write_finish(out, e);
    gguf_write_abandon(out);
    return false;
}

/* ---- reading back ---- */

static bool same_value(const gguf_value *a, const gguf_value *b) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 1, 0, 8, 8, 8}; /* a string's count is its bytes */
    if (a->kind != b->kind || a->count != b->count || (a->kind == GGUF_ARRAY && a->element != b->element))
        return false;
    if (a->kind == GGUF_ARRAY && a->element == GGUF_STRING) {
        for (size_t i = 0; i < a->count; i++)
            if (a->strings[i].len != b->strings[i].len ||
                memcmp(a->strings[i].data, b->strings[i].data, a->strings[i].len) != 0)
                return false;
        return true;
    }
    if (a->kind == GGUF_ARRAY)
        return memcmp(a->bytes, b->bytes, a->count * bytes[a->element]) == 0;
    return memcmp(a->bytes, b->bytes, a->kind == GGUF_STRING ? a->count : bytes[a->kind]) == 0;
}

/* Every key of the source but those that copy_keys changes is there, the same, in the same order. */
static bool check_keys(const quantize_plan *plan, const gguf *written, err *e) {
    size_t there = 0;
    for (size_t i = 0; i < gguf_key_count(plan->g); i++) {
        const char *key = gguf_key_at(plan->g, i, NULL);
        gguf_value  a, b;
        if (starts(key, "split."))
            continue;
        const char *other = gguf_key_at(written, there, NULL);
        if (!other || strcmp(other, key) != 0 || !gguf_value_at(plan->g, i, &a) || !gguf_value_at(written, there, &b))
            return err_set(e, ERR_IO, "%.200s lacks the key %.100s", gguf_name(written), key);
        there++;
        if (!starts(key, "general.file_type") && !starts(key, "general.quantization_version") &&
            !starts(key, "general.alignment") && !same_value(&a, &b))
            return err_set(e, ERR_IO, "%.200s: the key %.100s is not what was written", gguf_name(written), key);
    }
    return true;
}

static bool add_parts(worker *w, void *arg) {
    part *sum = arg;
    for (int64_t i = 0; i * PIECE_VALUES < w->n; i++) {
        sum->error += w->parts[i].error;
        sum->source += w->parts[i].source;
        sum->largest = fmax(sum->largest, w->parts[i].largest);
    }
    return true;
}

double quantize_relative(const quantize_error *q) {
    return q->rms == 0 ? 0 : q->source_rms == 0 ? INFINITY : q->rms / q->source_rms;
}

static bool compare_tensor(worker *w, size_t i, err *e) {
    const quantize_item *x = &w->plan->items[i];
    const gguf_tensor   *t = w->there = gguf_tensor_named(w->written, x->from->name);
    part                 sum = {0};
    if (!t || t->format != x->to || t->dims != x->from->dims || memcmp(t->shape, x->from->shape, sizeof t->shape) != 0)
        return err_set(e, ERR_IO, "%.200s: tensor %.80s is not what was written", gguf_name(w->written), x->from->name);
    if (!run_tensor(w, x, "verifying", compare_pieces, add_parts, &sum, e))
        return false;
    double          n = (double)values_of(t);
    quantize_error *q = &w->job->errors[i];
    *q = (quantize_error){sqrt(sum.error / n), sqrt(sum.source / n), sum.largest};
    if (x->to == x->from->format)
        return sum.error == 0 || isnan(sum.error) || /* a NaN that the source has too */
               err_set(e, ERR_IO, "%.200s: tensor %.80s was copied and differs", gguf_name(w->written), x->from->name);
    if (isfinite(sum.error) && quantize_relative(q) <= (x->to->values == 1 ? MOST_ERROR_FLOAT : MOST_ERROR))
        return true;
    return err_set(
        e, ERR_INVALID,
        "tensor %.80s cannot be %s: its values come back with an error of %.3g times their size; give it another "
        "type with --tensor %.80s=TYPE",
        x->from->name, x->to->name, quantize_relative(q), x->from->name);
}

bool quantize_verify(const quantize_plan *plan, const char *path, const quantize_job *job, err *e) {
    worker w;
    gguf  *written = gguf_open(path, e);
    if (!written)
        return false;
    bool ok = check_keys(plan, written, e) && worker_open(&w, plan, job, e);
    if (ok) {
        w.written = written;
        if (gguf_tensor_count(written) != plan->count)
            ok = err_set(e, ERR_IO, "%.200s does not hold %zu tensors", path, plan->count);
        for (size_t i = 0; ok && i < plan->count; i++)
            ok = compare_tensor(&w, i, e);
        worker_close(&w);
    }
    gguf_close(written);
    return ok;
}

/* A file that is to be verified has another name until it is found good. */
bool quantize_write(const quantize_plan *plan, const char *path, const quantize_job *job, err *e) {
    char *unproved = NULL;
    if (!job->errors)
        return write_file(plan, path, job, e);
    if (asprintf(&unproved, "%s.new%ld", path, (long)getpid()) < 0)
        return err_set(e, ERR_MEMORY, "out of memory");
    bool written = write_file(plan, unproved, job, e);
    bool ok = written && quantize_verify(plan, unproved, job, e);
    if (ok && rename(unproved, path) != 0)
        ok = err_set(e, ERR_IO, "%.300s: cannot be renamed: %s", path, strerror(errno));
    if (written && !ok)
        unlink(unproved);
    free(unproved);
    return ok;
}
