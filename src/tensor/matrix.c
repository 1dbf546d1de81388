/* matrix.c - matrices of panels, activations made ready for them, and the product spread over the pool. */
#include "tensor/matrix.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/kernels.h"
#include "tensor/pack.h"
#include "tensor/panel.h"

/* From so many columns on, two panels at a time are opened to bytes and meet all columns, where the kernels can. */
#define WIDE_COLUMNS   16
#define SINGLE_COLUMNS 24 /* columns a call for the last panel, when it has fewer rows */

/* How work is shared out: a claim is some microseconds of reading, and what takes no longer than waking a thread is done
 * alone. */
#define GRAIN_BYTES  (32 << 10)
#define ALONE_BYTES  (96 << 10)
#define SMALL_SET    (16 << 10) /* activations */
#define MOST_SHARING 4          /* matrices of one call that share their input */

struct activations {
    int          max_n, max_cols;
    columns      now;    /* what activations_set made ready; it points into the memory below */
    char        *memory; /* one piece */
    int8_t      *q;
    uint16_t    *rounded;
    unsigned     forms;
    float       *scales, *shares;
    int16_t     *sums, *half_sums;
    int32_t     *minus8, *minus16, *minus128, *minus4, *minus32;
    column_tile *tiles;
};

bool matrix_size(block_type type, int64_t rows, int64_t cols, size_t *bytes, err *e) {
    const block_format *f = block_format_of((int)type);
    size_t              row;
    if (!f)
        return err_set(e, ERR_UNSUPPORTED, "tensor type %d is not one that pare computes with", (int)type);
    if (rows < 1 || cols < 1 || rows > INT_MAX - PANEL_ROWS || cols > INT_MAX - BLOCK_INPUTS)
        return err_set(e, ERR_INVALID, "a matrix of %lld x %lld is out of range", (long long)rows, (long long)cols);
    if (!block_row_bytes(f, cols, &row))
        return err_set(e, ERR_INVALID, "rows of %lld values do not divide into %s blocks of %d", (long long)cols,
                       f->name, f->values);
    size_t panel, panels = ((size_t)rows + PANEL_ROWS - 1) / PANEL_ROWS;
    if (!pack_panel_bytes(type, (int)cols, &panel))
        return err_set(e, ERR_UNSUPPORTED, "pare does not compute with the tensor type %s", f->name);
    if (panel > SIZE_MAX / 2 / panels)
        return err_set(e, ERR_LIMIT, "a matrix of %lld x %lld does not fit in memory", (long long)rows,
                       (long long)cols);
    *bytes = panel * panels;
    return true;
}

unsigned matrix_form(const matrix *m) {
    if (m->type == BLOCK_BF16)
        return kernels_get()->rounds_bf16 ? FORM_BF16 : 0;
    return block_format_of((int)m->type)->values > 1 ? FORM_INT8 : 0;
}

/* ---- packing ---- */

void matrix_pack(matrix *m, block_type type, int rows, int cols, const void *blocks, void *data) {
    size_t row_bytes = 0, panel_bytes = 0;
    block_row_bytes(block_format_of((int)type), cols, &row_bytes);
    pack_panel_bytes(type, cols, &panel_bytes);
    *m = (matrix){.type = type,
                  .rows = rows,
                  .cols = cols,
                  .panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS,
                  .panel_bytes = panel_bytes,
                  .data = data};
    for (int p = 0; p < m->panels; p++) {
        int left = rows - p * PANEL_ROWS;
        pack_panel(type, (const uint8_t *)blocks + (size_t)p * PANEL_ROWS * row_bytes, row_bytes,
                   left < PANEL_ROWS ? left : PANEL_ROWS, cols, m->data + (size_t)p * panel_bytes);
    }
}

void matrix_row(const matrix *m, int row, float *out) {
    unpack_row(m->type, m->data + (size_t)(row / PANEL_ROWS) * m->panel_bytes, row % PANEL_ROWS, m->cols, out);
}

/* ---- activations ---- */

typedef struct carve { /* counts first, hands out then */
    char  *base;
    size_t at;
} carve;

static void *take(carve *c, size_t n, size_t size) {
    void *given = c->base ? c->base + c->at : NULL;
    c->at += (n * size + 63) / 64 * 64;
    return given;
}

/* Are n columns made ready for the wide kernels of int8 too? */
static bool has_tiles(int n) {
    return n >= WIDE_COLUMNS && kernels_get()->wide[BLOCK_Q8_0];
}

static void lay_out(activations *a, carve *c) {
    size_t values = (size_t)a->max_n * (size_t)a->max_cols, groups = values / BLOCK_INPUTS;
    a->q = take(c, values, sizeof *a->q);
    a->scales = take(c, Q8_STRETCHES(a->max_cols) * (size_t)a->max_n, sizeof *a->scales);
    a->shares = take(c, groups, sizeof *a->shares);
    a->sums = take(c, groups, sizeof *a->sums);
    a->half_sums = take(c, 2 * groups, sizeof *a->half_sums);
    a->minus8 = take(c, groups, sizeof *a->minus8);
    a->minus16 = take(c, groups, sizeof *a->minus16);
    a->minus128 = take(c, groups, sizeof *a->minus128);
    a->minus4 = take(c, 2 * groups, sizeof *a->minus4);
    a->minus32 = take(c, 2 * groups, sizeof *a->minus32);
    a->rounded = take(c, kernels_get()->rounds_bf16 ? values : 0, sizeof *a->rounded);
    a->tiles =
        take(c, has_tiles(a->max_n) ? Q8_STRETCHES(a->max_cols) * (size_t)column_tiles(a->max_n) : 0, sizeof *a->tiles);
}

activations *activations_new(int max_n, int max_cols, err *e) {
    if (max_n < 1 || max_cols < 1 || (size_t)max_n > SIZE_MAX / 32 / (size_t)max_cols) {
        err_set(e, ERR_INVALID, "room for %d columns of %d activations is out of range", max_n, max_cols);
        return NULL;
    }
    activations *a = calloc(1, sizeof *a);
    if (!a) {
        err_set(e, ERR_MEMORY, "out of memory for activations");
        return NULL;
    }
    a->max_n = max_n;
    a->max_cols = max_cols;
    carve c = {0};
    lay_out(a, &c);
    a->memory = c.base = aligned_alloc(64, c.at ? c.at : 64);
    if (!a->memory) {
        activations_free(a);
        err_set(e, ERR_MEMORY, "out of memory for %d columns of %d activations", max_n, max_cols);
        return NULL;
    }
    c.at = 0;
    lay_out(a, &c);
    return a;
}

void activations_free(activations *a) {
    if (!a)
        return;
    free(a->memory);
    free(a);
}

/* From the sums of halves, in minus32, to what the products need: see struct columns. */
static void set_sums(activations *a, size_t c) {
    size_t groups = (size_t)a->now.cols / BLOCK_INPUTS;
    for (size_t g = c * groups; g < (c + 1) * groups; g++) {
        int32_t *halves = a->minus32 + 2 * g, sum = halves[0] + halves[1];
        int      eighths = (int)(a->shares[g] * Q8_SHARES);
        a->sums[g] = (int16_t)(eighths * sum);
        a->minus8[g] = -8 * sum;
        a->minus16[g] = -16 * sum;
        a->minus128[g] = -128 * sum;
        for (size_t h = 0; h < 2; h++) {
            a->half_sums[2 * g + h] = (int16_t)(eighths * halves[h]);
            a->minus4[2 * g + h] = -4 * halves[h];
            halves[h] *= -32;
        }
    }
}

static void set_columns(void *arg, int begin, int end, int thread) {
    (void)thread;
    activations   *a = arg;
    const kernels *k = kernels_get();
    size_t         cols = (size_t)a->now.cols;
    for (size_t c = (size_t)begin; c < (size_t)end; c++) {
        if (a->forms & FORM_BF16)
            block_from_f32(BLOCK_BF16, a->now.x + c * cols, a->rounded + c * cols, a->now.cols);
        if (!(a->forms & FORM_INT8))
            continue;
        k->quantize_q8(a->now.x + c * cols, a->q + c * cols, a->scales + c * Q8_STRETCHES(cols),
                       a->shares + c * (cols / BLOCK_INPUTS), a->minus32 + 2 * c * (cols / BLOCK_INPUTS), a->now.cols);
        set_sums(a, c);
    }
}

static void set_tiles(void *arg, int begin, int end, int thread) {
    (void)thread;
    activations *a = arg;
    const int    tiles = column_tiles(a->now.n);
    for (int i = begin; i < end; i++)
        column_tile_fill(&a->now, (size_t)(i / tiles), i % tiles, a->tiles + i);
}

void activations_set(activations *a, pool *p, const float *x, int n, int cols, unsigned forms) {
    a->forms = forms;
    a->now = (columns){.n = n,
                       .cols = cols,
                       .x = x,
                       .q = a->q,
                       .scales = a->scales,
                       .shares = a->shares,
                       .sums = a->sums,
                       .half_sums = a->half_sums,
                       .minus8 = a->minus8,
                       .minus16 = a->minus16,
                       .minus128 = a->minus128,
                       .minus4 = a->minus4,
                       .minus32 = a->minus32,
                       .rounded = a->rounded,
                       .tiles = a->tiles};
    if (!forms)
        return;
    if ((size_t)n * (size_t)cols < SMALL_SET)
        set_columns(a, 0, n, 0);
    else
        pool_run(p, n, 1 + SMALL_SET / 4 / cols, set_columns, a);
    if ((forms & FORM_INT8) && has_tiles(n))
        pool_run(p, (int)Q8_STRETCHES(cols) * column_tiles(n), 8, set_tiles, a);
}

/* ---- the product ---- */

typedef struct product {
    int                count;
    const matrix_part *parts;
    const int         *ldy; /* of each part; NULL: its rows */
    const activations *x;
    const kernels     *k;
} product;

/* A part of the columns goes without tiles, which were made for all of them. */
static columns columns_of(const product *job, int i) {
    const matrix_part *part = &job->parts[i];
    return part->n == job->x->now.n ? job->x->now : columns_from(&job->x->now, part->first, part->n);
}

static int ldy_of(const product *job, int i) {
    return job->ldy ? job->ldy[i] : job->parts[i].w->rows;
}

/* The last panel may have rows that the matrix has not: those must not reach y. */
static void multiply_partial(const product *job, int i, const columns *x) {
    const matrix *m = job->parts[i].w;
    int           first = (m->panels - 1) * PANEL_ROWS;
    float         out[SINGLE_COLUMNS * PANEL_ROWS];
    for (int c = 0; c < x->n; c += SINGLE_COLUMNS) {
        columns now = columns_from(x, c, x->n - c < SINGLE_COLUMNS ? x->n - c : SINGLE_COLUMNS);
        job->k->panel[m->type](m->data + (size_t)(m->panels - 1) * m->panel_bytes, &now, out, PANEL_ROWS);
        for (int o = 0; o < now.n; o++)
            memcpy(job->parts[i].y + (size_t)(c + o) * (size_t)ldy_of(job, i) + first, out + o * PANEL_ROWS,
                   (size_t)(m->rows - first) * sizeof *out);
    }
}

/* Panels [begin, end) of part i. */
static void multiply_panels(const product *job, int i, int begin, int end) {
    const matrix *m = job->parts[i].w;
    const columns x = columns_of(job, i);
    int           whole = m->rows / PANEL_ROWS;
    panel_fn      one = job->k->panel[m->type], two = job->k->wide[m->type];
    if (x.n < WIDE_COLUMNS || !x.tiles)
        two = NULL;
    for (int p = begin; p < end;) {
        const uint8_t *panel = m->data + (size_t)p * m->panel_bytes;
        float         *y = job->parts[i].y + (size_t)p * PANEL_ROWS;
        bool           pair = two && p + 2 <= end && p + 2 <= whole;
        if (p >= whole)
            multiply_partial(job, i, &x);
        else
            (pair ? two : one)(panel, &x, y, ldy_of(job, i));
        p += pair ? 2 : 1;
    }
}

static void product_chunk(void *arg, int begin, int end, int thread) {
    (void)thread;
    const product *job = arg;
    int            first = 0;
    for (int i = 0; i < job->count && first < end; i++) {
        int last = first + job->parts[i].w->panels;
        if (last > begin)
            multiply_panels(job, i, begin > first ? begin - first : 0, (end < last ? end : last) - first);
        first = last;
    }
}

static void run_product(pool *p, product *job) {
    int    panels = 0, most = 0;
    size_t largest = 1, all = 0;
    for (int i = 0; i < job->count; i++) {
        const matrix_part *part = &job->parts[i];
        size_t             bytes = part->w->panel_bytes;
        panels += part->w->panels;
        all += bytes * (size_t)part->w->panels * (size_t)part->n;
        largest = bytes > largest ? bytes : largest;
        most = part->n > most ? part->n : most;
    }
    int grain = 1 + (int)(GRAIN_BYTES / largest);
    if (most >= WIDE_COLUMNS)
        grain = (grain + 1) & ~1; /* pairs stay together */
    else if (all <= ALONE_BYTES)
        grain = panels;
    pool_run(p, panels, grain, product_chunk, job);
}

void matrix_multiply(pool *p, int count, const matrix *const *w, const activations *x, float *const *y,
                     const int *ldy) {
    matrix_part parts[MOST_SHARING];
    for (int i = 0; i < count; i += MOST_SHARING) {
        product job = {count - i < MOST_SHARING ? count - i : MOST_SHARING, parts, ldy + i, x, kernels_get()};
        for (int j = 0; j < job.count; j++)
            parts[j] = (matrix_part){w[i + j], 0, x->now.n, y[i + j]};
        run_product(p, &job);
    }
}

void matrix_multiply_parts(pool *p, int count, const matrix_part *parts, const activations *x) {
    product job = {count, parts, NULL, x, kernels_get()};
    run_product(p, &job);
}
