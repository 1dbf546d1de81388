#include "model/weights.h"

#include "model/slots.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SLOT_ALIGN = 64,       /* matrix.h asks for it; a cache line */
    HUGE_PAGE = 2 << 20,   /* decode reads all weights each step: fewer TLB misses */
    CHUNK_BYTES = 1 << 16, /* of file data that a thread reads and packs at a time: stays in its second-level cache */
    TURN_CHUNKS = 1024     /* chunks that are packed before other engines get the pool: some tens of milliseconds */
};

/* A run of rows of one slot: what a thread does at a time. */
typedef struct chunk {
    const slot *slot;
    int64_t     row, rows;
} chunk;

/* ---- does the file have them ---- */

static void shape_text(char *out, size_t size, int dims, const int64_t *shape) {
    size_t n = 0;
    for (int d = 0; d < dims && n < size; d++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", d ? ", " : "", (long long)shape[d]);
}

static bool check_slot(slot *x, const gguf *g, err *e) {
    const gguf_tensor *t = x->tensor = gguf_tensor_named(g, x->name);
    if (!t)
        return x->optional || err_set(e, ERR_INVALID, "tensor %s is missing", x->name);
    int64_t wanted[3] = {x->cols, x->all, 1};
    int     dims = 2;
    if (x->planes) {
        dims = 3;
        wanted[1] = x->all / x->planes;
        wanted[2] = x->planes;
    } else if (!x->m) {
        dims = 1;
        wanted[0] = x->all;
        wanted[1] = 1;
    }
    /* dimensions of 1 behind the others may be there or not */
    if (t->shape[3] != 1 || t->shape[0] != wanted[0] || t->shape[1] != wanted[1] || t->shape[2] != wanted[2]) {
        char is[96], must[72];
        shape_text(is, sizeof is, t->dims, t->shape);
        shape_text(must, sizeof must, dims, wanted);
        return err_set(e, ERR_INVALID, "tensor %s has the shape [%s], must have [%s]", x->name, is, must);
    }
    if (!t->format)
        return err_set(e, ERR_UNSUPPORTED, "tensor %s is of the GGUF type %d, which pare does not know", x->name,
                       t->type);
    if (!x->m) {
        if (t->format->values > 1 && x->cols != x->all)
            return err_set(e, ERR_UNSUPPORTED, "tensor %s is quantised, which pare does not cut apart", x->name);
        x->bytes = (size_t)x->cols * sizeof(float);
        return true;
    }
    return matrix_size(t->format->type, x->rows, x->cols, &x->bytes, e) || err_prefix(e, "tensor %s", x->name);
}

/* A tensor that nothing reads means that the model is not what its architecture says. */
static bool check_extra(const slots *s, const gguf *g, err *e) {
    size_t             count = gguf_tensor_count(g);
    const gguf_tensor *first = gguf_tensor_at(g, 0);
    bool              *known = calloc(count ? count : 1, 1);
    if (!known)
        return err_set(e, ERR_MEMORY, "out of memory for the list of tensors");
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].tensor)
            known[s->list[i].tensor - first] = true;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        if (!known[i])
            ok = err_set(e, ERR_UNSUPPORTED, "tensor %s is none that this architecture has; pare will not leave it out",
                         first[i].name);
    free(known);
    return ok;
}

/* Checks all slots and gives each its place in the mapping. */
static bool lay_out(slots *s, const gguf *g, size_t *total, err *e) {
    *total = 0;
    for (size_t i = 0; i < s->count; i++) {
        slot *x = &s->list[i];
        if (!check_slot(x, g, e))
            return false;
        if (!x->tensor)
            continue;
        if (x->bytes > SIZE_MAX / 2 - *total - SLOT_ALIGN)
            return err_set(e, ERR_LIMIT, "the weights need more memory than an address counts");
        x->at = *total;
        *total += (x->bytes + SLOT_ALIGN - 1) / SLOT_ALIGN * SLOT_ALIGN;
    }
    return check_extra(s, g, e);
}

/* ---- memory ---- */

/* Anonymous memory that begins on a huge page; zeroed. */
static bool take_memory(model *m, size_t bytes, err *e) {
    size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char  *p = mmap(NULL, whole + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return err_set(e, ERR_MEMORY, "the weights need %zu MiB of memory, which the system does not give",
                       bytes >> 20);
    size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before)
        munmap(p, before);
    munmap(p + before + whole, HUGE_PAGE - before);
    m->memory = p + before;
    m->memory_bytes = whole;
    madvise(m->memory, whole, MADV_HUGEPAGE); /* advice only: it may fail */
    return true;
}

/* ---- packing ---- */

typedef struct packing {
    model             *m;
    const gguf        *g;
    const chunk       *chunks;
    uint8_t          **scratch; /* one a thread */
    const atomic_bool *stop;    /* NULL: nobody will */
    atomic_bool        failed;
    err                why; /* written by the thread that sets `failed` first */
} packing;

/* Of a matrix; of a vector all that the slot takes, whose values stand alone unless it takes the whole tensor. */
static size_t row_bytes(const slot *x) {
    size_t each = x->tensor->bytes / (size_t)x->all;
    return x->m ? each : x->cols == x->all ? x->tensor->bytes : each * (size_t)x->cols;
}

static size_t begin_of(const slot *x) {
    return x->tensor->bytes / (size_t)x->all * (size_t)x->first;
}

/* Rows of a slot that one chunk takes: whole panels. */
static int64_t chunk_rows(const slot *x) {
    int64_t rows = (int64_t)(CHUNK_BYTES / row_bytes(x)) / PANEL_ROWS * PANEL_ROWS;
    if (rows < PANEL_ROWS)
        rows = PANEL_ROWS;
    return rows < x->rows ? rows : x->rows;
}

static bool stopped(packing *job) {
    if (job->stop && atomic_load(job->stop) && !atomic_exchange(&job->failed, true))
        err_set(&job->why, ERR_CANCELLED, "loading was stopped");
    return atomic_load(&job->failed);
}

static void pack_chunk(packing *job, const chunk *c, uint8_t *scratch) {
    const slot *x = c->slot;
    size_t      row = row_bytes(x);
    err         e = {0};
    if (!gguf_read(job->g, x->tensor, begin_of(x) + (size_t)c->row * row, scratch, (size_t)c->rows * row, &e)) {
        if (!atomic_exchange(&job->failed, true))
            job->why = e;
        return;
    }
    uint8_t *to = (uint8_t *)job->m->memory + x->at;
    if (x->m) {
        matrix part; /* these rows as a matrix of their own: panels lie one after another */
        matrix_pack(&part, x->tensor->format->type, (int)c->rows, (int)x->cols, scratch,
                    to + (size_t)(c->row / PANEL_ROWS) * x->m->panel_bytes);
    } else {
        block_to_f32(x->tensor->format->type, scratch, (float *)(void *)to, x->cols);
    }
}

static void pack_some(void *arg, int begin, int end, int thread) {
    packing *job = arg;
    for (int i = begin; i < end && !stopped(job); i++)
        pack_chunk(job, &job->chunks[i], job->scratch[thread]);
}

/* Points the model at the slots' places. */
static bool place(model *m, slots *s, err *e) {
    for (size_t i = 0; i < s->count; i++) {
        slot *x = &s->list[i];
        if (!x->tensor)
            continue;
        uint8_t *to = (uint8_t *)m->memory + x->at;
        if (x->vector) {
            *x->vector = (float *)(void *)to;
            continue;
        }
        size_t panel;
        if (!matrix_size(x->tensor->format->type, PANEL_ROWS, x->cols, &panel, e))
            return err_prefix(e, "tensor %s", x->name);
        *x->m = (matrix){.type = x->tensor->format->type,
                         .rows = (int)x->rows,
                         .cols = (int)x->cols,
                         .panels = (int)((x->rows + PANEL_ROWS - 1) / PANEL_ROWS),
                         .panel_bytes = panel,
                         .data = to};
    }
    if (m->shape.tied)
        m->output = m->embedding;
    return true;
}

static chunk *list_chunks(const slots *s, int *count, size_t *largest, err *e) {
    size_t n = 0, k = 0;
    *largest = 0;
    for (size_t i = 0; i < s->count; i++)
        if (s->list[i].tensor)
            n += (size_t)((s->list[i].rows - 1) / chunk_rows(&s->list[i]) + 1);
    chunk *chunks = n <= INT32_MAX ? calloc(n, sizeof *chunks) : NULL;
    if (!chunks) {
        err_set(e, ERR_MEMORY, "out of memory for loading the weights");
        return NULL;
    }
    for (size_t i = 0; i < s->count; i++) {
        const slot *x = &s->list[i];
        if (!x->tensor)
            continue;
        int64_t step = chunk_rows(x);
        size_t  bytes = (size_t)step * row_bytes(x);
        *largest = bytes > *largest ? bytes : *largest;
        for (int64_t row = 0; row < x->rows; row += step)
            chunks[k++] = (chunk){x, row, x->rows - row < step ? x->rows - row : step};
    }
    *count = (int)n;
    return chunks;
}

/* Engines that run at the same time get their turns between the batches. */
static void pack_in_turns(packing *job, int count, pool *p) {
    if (!p) {
        pack_some(job, 0, count, 0);
        return;
    }
    for (; count > 0 && !stopped(job); job->chunks += TURN_CHUNKS, count -= TURN_CHUNKS) {
        pool_take(p);
        pool_run(p, count < TURN_CHUNKS ? count : TURN_CHUNKS, 1, pack_some, job);
        pool_give(p);
    }
}

static bool pack_all(model *m, const gguf *g, const slots *s, pool *p, const atomic_bool *stop, err *e) {
    int    threads = p ? pool_threads(p) : 1, count;
    size_t largest;
    chunk *chunks = list_chunks(s, &count, &largest, e);
    if (!chunks)
        return false;
    packing   job = {.m = m, .g = g, .chunks = chunks, .stop = stop};
    uint8_t **scratch = calloc((size_t)threads, sizeof *scratch);
    bool      ok = scratch != NULL;
    for (int t = 0; ok && t < threads; t++)
        ok = (scratch[t] = malloc(largest)) != NULL;
    job.scratch = scratch;
    if (!ok) {
        err_set(e, ERR_MEMORY, "out of memory for loading the weights");
    } else {
        pack_in_turns(&job, count, p);
        ok = !atomic_load(&job.failed);
        if (!ok && e)
            *e = job.why;
    }
    for (int t = 0; scratch && t < threads; t++)
        free(scratch[t]);
    free(scratch);
    free(chunks);
    return ok;
}

/* The factors divide: a zero or a NaN among them would spread through every position. */
static bool check_factors(const model *m, const float *factors, const char *name, err *e) {
    for (int i = 0; factors && i < m->shape.rope_dim / 2; i++)
        if (!(factors[i] > 0) || !isfinite(factors[i]))
            return err_set(e, ERR_INVALID, "%s holds %g; its values divide and must be above 0", name,
                           (double)factors[i]);
    return true;
}

static bool check_rope_factors(const model *m, err *e) {
    if (!m->rope_long != !m->rope_short)
        return err_set(e, ERR_INVALID, "rope_factors_long.weight and rope_factors_short.weight need each other");
    return check_factors(m, m->rope_factors, "rope_freqs.weight", e) &&
           check_factors(m, m->rope_long, "rope_factors_long.weight", e) &&
           check_factors(m, m->rope_short, "rope_factors_short.weight", e);
}

static bool load(model *m, const gguf *g, slots *s, pool *p, const atomic_bool *stop, err *e) {
    return slots_list(m, g, s, e) && lay_out(s, g, &m->weight_bytes, e) && take_memory(m, m->weight_bytes, e) &&
           place(m, s, e) && pack_all(m, g, s, p, stop, e) && check_rope_factors(m, e);
}

bool weights_load(model *m, const gguf *g, pool *p, const atomic_bool *stop, err *e) {
    slots s = {0};
    bool  ok = load(m, g, &s, p, stop, e);
    free(s.list);
    return ok;
}

void weights_free(model *m) {
    if (m->memory)
        munmap(m->memory, m->memory_bytes);
    free(m->layers);
    free(m->experts);
    m->memory = NULL;
    m->layers = NULL;
    m->experts = NULL;
}
