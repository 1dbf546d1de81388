/* matrix.c - packing rows of GGUF blocks into panels, and the product of panels with columns. */
#include "tensor/matrix.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/kernels.h"
#include "tensor/panel.h"

/* Inputs that all 16 rows of a panel take before the next, so that reads and writes stay in cache: of quantised values,
 * and an eighth of it of floats. */
#define PACK_STRETCH 2048

/* From MANY_COLUMNS on, panels pass two by two where the kernels can, PAIR_COLUMNS columns a tile. While all int8
 * activations stay in cache (RESIDENT_BYTES) each pair meets all columns at once; beyond, GROUP_BYTES of panels stay in
 * cache while the columns pass. Sizes for a second-level cache of 1 MB. */
#define MANY_COLUMNS   12
#define PAIR_COLUMNS   6
#define SINGLE_COLUMNS 24 /* columns a call when panels go one by one */
#define RESIDENT_BYTES (256 << 10)
#define GROUP_BYTES    (512 << 10)

/* How work is shared out: a claim is some microseconds of reading, and what takes no longer than waking a thread is done
 * alone. */
#define GRAIN_BYTES (32 << 10)
#define ALONE_BYTES (96 << 10)
#define SMALL_SET   (16 << 10) /* activations */

struct activations {
    int      max_n, max_cols;
    int      n, cols;
    float   *x;      /* [n][cols] */
    int8_t  *q;      /* [n][cols] */
    float   *scales; /* [n][cols / 32] */
    int32_t *sums;   /* [n][cols / 32] */
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
    size_t padded = ((size_t)rows + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
    if (row > SIZE_MAX / 2 / padded)
        return err_set(e, ERR_LIMIT, "a matrix of %lld x %lld does not fit in memory", (long long)rows,
                       (long long)cols);
    *bytes = row * padded;
    return true;
}

bool matrix_wants_int8(const matrix *m) {
    return m->type == BLOCK_Q4_0 || m->type == BLOCK_Q8_0;
}

/* ---- packing ---- */

static uint32_t load_u32(const uint8_t *p) {
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void store_u32(uint8_t *p, uint32_t u) {
    memcpy(p, &u, sizeof u);
}

/* In a GGUF block byte i holds value i low and value 16 + i high; a line wants values 8j.. low and 8j + 4.. high. */
static void pack_q4_0(uint8_t *panel, const uint8_t *row, int r, int cols) {
    const uint32_t low = 0x0f0f0f0f, high = 0xf0f0f0f0;
    for (int b = 0; b < cols / BLOCK_INPUTS; b++, row += 18, panel += Q4_0_BLOCK) {
        uint32_t v[4];
        memcpy(panel + 2 * r, row, 2);
        memcpy(v, row + 2, sizeof v);
        uint8_t *line = panel + SCALE_BYTES + 4 * r;
        store_u32(line, (v[0] & low) | (v[1] & low) << 4);
        store_u32(line + LINE_BYTES, (v[2] & low) | (v[3] & low) << 4);
        store_u32(line + 2 * LINE_BYTES, (v[0] & high) >> 4 | (v[1] & high));
        store_u32(line + 3 * LINE_BYTES, (v[2] & high) >> 4 | (v[3] & high));
    }
}

static void pack_q8_0(uint8_t *panel, const uint8_t *row, int r, int cols) {
    for (int b = 0; b < cols / BLOCK_INPUTS; b++, row += 34, panel += Q8_0_BLOCK) {
        memcpy(panel + 2 * r, row, 2);
        for (int j = 0; j < Q8_0_LINES; j++)
            store_u32(panel + SCALE_BYTES + j * LINE_BYTES + 4 * r, load_u32(row + 2 + 4 * j) ^ 0x80808080u);
    }
}

static void pack_16(uint8_t *panel, const uint8_t *row, int r, int cols) {
    for (int k = 0; k < cols; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + (size_t)r) * 2, row + 2 * (size_t)k, 2);
}

static void pack_32(uint8_t *panel, const uint8_t *row, int r, int cols) {
    for (int k = 0; k < cols; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + (size_t)r) * 4, row + 4 * (size_t)k, 4);
}

typedef void (*pack_fn)(uint8_t *panel, const uint8_t *row, int r, int cols);

static pack_fn pack_of(block_type type) {
    switch (type) {
    case BLOCK_Q4_0:
        return pack_q4_0;
    case BLOCK_Q8_0:
        return pack_q8_0;
    case BLOCK_F16:
    case BLOCK_BF16:
        return pack_16;
    default:
        return pack_32;
    }
}

void matrix_pack(matrix *m, block_type type, int rows, int cols, const void *blocks, void *data) {
    size_t row_bytes = 0, stretch_bytes = 0;
    int    stretch = block_format_of((int)type)->values > 1 ? PACK_STRETCH : PACK_STRETCH / 8;
    block_row_bytes(block_format_of((int)type), cols, &row_bytes);
    block_row_bytes(block_format_of((int)type), stretch, &stretch_bytes);
    *m = (matrix){.type = type,
                  .rows = rows,
                  .cols = cols,
                  .panels = (rows + PANEL_ROWS - 1) / PANEL_ROWS,
                  .panel_bytes = row_bytes * PANEL_ROWS,
                  .data = data};
    pack_fn pack = pack_of(type);
    for (int p = 0; p < m->panels; p++) {
        uint8_t       *panel = m->data + (size_t)p * m->panel_bytes;
        const uint8_t *row = (const uint8_t *)blocks + (size_t)p * PANEL_ROWS * row_bytes;
        int            n = rows - p * PANEL_ROWS < PANEL_ROWS ? rows - p * PANEL_ROWS : PANEL_ROWS;
        if (n < PANEL_ROWS)
            memset(panel, 0, m->panel_bytes); /* a scale of 0 makes any quantised value 0 */
        for (int k = 0; k < cols; k += stretch) {
            size_t done = (size_t)(k / stretch) * stretch_bytes;
            for (int r = 0; r < n; r++)
                pack(panel + done * PANEL_ROWS, row + (size_t)r * row_bytes + done, r,
                     cols - k < stretch ? cols - k : stretch);
        }
    }
}

static void unpack_q4_0(const uint8_t *panel, int r, float *out, int cols) {
    for (int b = 0; b < cols / BLOCK_INPUTS; b++, panel += Q4_0_BLOCK, out += BLOCK_INPUTS) {
        uint16_t h;
        memcpy(&h, panel + 2 * r, sizeof h);
        float          scale = f16_to_f32(h);
        const uint8_t *w = panel + SCALE_BYTES + 4 * r;
        for (int i = 0; i < BLOCK_INPUTS; i++)
            out[i] = (float)((w[i / 8 * LINE_BYTES + i % 4] >> (i & 4) & 15) - Q4_0_OFFSET) * scale;
    }
}

static void unpack_q8_0(const uint8_t *panel, int r, float *out, int cols) {
    for (int b = 0; b < cols / BLOCK_INPUTS; b++, panel += Q8_0_BLOCK, out += BLOCK_INPUTS) {
        uint16_t h;
        memcpy(&h, panel + 2 * r, sizeof h);
        float          scale = f16_to_f32(h);
        const uint8_t *w = panel + SCALE_BYTES + 4 * r;
        for (int i = 0; i < BLOCK_INPUTS; i++) {
            int line = i / 4, place = i % 4;
            out[i] = (float)(w[line * LINE_BYTES + place] - Q8_0_OFFSET) * scale;
        }
    }
}

void matrix_row(const matrix *m, int row, float *out) {
    const uint8_t *panel = m->data + (size_t)(row / PANEL_ROWS) * m->panel_bytes;
    int            r = row % PANEL_ROWS;
    if (m->type == BLOCK_Q4_0) {
        unpack_q4_0(panel, r, out, m->cols);
    } else if (m->type == BLOCK_Q8_0) {
        unpack_q8_0(panel, r, out, m->cols);
    } else {
        size_t bytes = m->type == BLOCK_F32 ? 4 : 2;
        for (size_t k = 0; k < (size_t)m->cols; k++)
            block_to_f32(m->type, panel + (k * PANEL_ROWS + (size_t)r) * bytes, out + k, 1);
    }
}

/* ---- activations ---- */

static void *take(size_t n, size_t size) {
    size_t bytes = (n * size + 63) / 64 * 64; /* the caller has checked n * size */
    return aligned_alloc(64, bytes ? bytes : 64);
}

activations *activations_new(int max_n, int max_cols, err *e) {
    if (max_n < 1 || max_cols < 1 || (size_t)max_n > SIZE_MAX / 16 / (size_t)max_cols) {
        err_set(e, ERR_INVALID, "room for %d columns of %d activations is out of range", max_n, max_cols);
        return NULL;
    }
    activations *a = calloc(1, sizeof *a);
    if (!a) {
        err_set(e, ERR_MEMORY, "out of memory for activations");
        return NULL;
    }
    size_t values = (size_t)max_n * (size_t)max_cols, groups = values / BLOCK_INPUTS;
    a->max_n = max_n;
    a->max_cols = max_cols;
    a->x = take(values, sizeof *a->x);
    a->q = take(values, sizeof *a->q);
    a->scales = take(groups, sizeof *a->scales);
    a->sums = take(groups, sizeof *a->sums);
    if (!a->x || !a->q || !a->scales || !a->sums) {
        activations_free(a);
        err_set(e, ERR_MEMORY, "out of memory for %d columns of %d activations", max_n, max_cols);
        return NULL;
    }
    return a;
}

void activations_free(activations *a) {
    if (!a)
        return;
    free(a->x);
    free(a->q);
    free(a->scales);
    free(a->sums);
    free(a);
}

typedef struct set_job {
    activations *to;
    const float *from;
    bool         int8;
} set_job;

static void set_columns(void *arg, int begin, int end, int thread) {
    (void)thread;
    set_job       *job = arg;
    activations   *a = job->to;
    const kernels *k = kernels_get();
    size_t         cols = (size_t)a->cols;
    size_t         groups = cols / BLOCK_INPUTS;
    memcpy(a->x + (size_t)begin * cols, job->from + (size_t)begin * cols, (size_t)(end - begin) * cols * sizeof *a->x);
    if (job->int8)
        for (size_t c = (size_t)begin; c < (size_t)end; c++)
            k->quantize_q8(job->from + c * cols, a->q + c * cols, a->scales + c * groups, a->sums + c * groups,
                           a->cols);
}

void activations_set(activations *a, pool *p, const float *x, int n, int cols, bool int8) {
    set_job job = {a, x, int8};
    a->n = n;
    a->cols = cols;
    if ((size_t)n * (size_t)cols < SMALL_SET)
        set_columns(&job, 0, n, 0);
    else
        pool_run(p, n, 1 + SMALL_SET / 4 / cols, set_columns, &job);
}

/* ---- the product ---- */

typedef struct product {
    int                  count;
    const matrix *const *w;
    const activations   *x;
    float *const        *y;
    const int           *ldy;
    const kernels       *k;
} product;

/* `panels` is 1, or 2 for the tile of two; columns [c, c + n). */
static void multiply(const kernels *k, const matrix *m, const uint8_t *panel, int panels, const activations *a, int c,
                     int n, float *y, int ldy) {
    size_t         cols = (size_t)m->cols, groups = cols / BLOCK_INPUTS;
    const float   *x = a->x + (size_t)c * cols;
    const int8_t  *q = a->q + (size_t)c * cols;
    const float   *s = a->scales + (size_t)c * groups;
    const int32_t *qs = a->sums + (size_t)c * groups;
    switch (m->type) {
    case BLOCK_F32:
        k->panel_f32(panel, m->cols, x, n, y, ldy);
        break;
    case BLOCK_F16:
        k->panel_f16(panel, m->cols, x, n, y, ldy);
        break;
    case BLOCK_BF16:
        k->panel_bf16(panel, m->cols, x, n, y, ldy);
        break;
    case BLOCK_Q4_0:
        (panels == 2 ? k->pair_q4_0 : k->panel_q4_0)(panel, m->cols, q, s, qs, n, y, ldy);
        break;
    case BLOCK_Q8_0:
        (panels == 2 ? k->pair_q8_0 : k->panel_q8_0)(panel, m->cols, q, s, qs, n, y, ldy);
        break;
    }
}

/* The last panel may have rows that the matrix has not: those must not reach y. */
static void multiply_partial(const product *job, int i, int c, int n) {
    const matrix  *m = job->w[i];
    const uint8_t *panel = m->data + (size_t)(m->panels - 1) * m->panel_bytes;
    int            first = (m->panels - 1) * PANEL_ROWS;
    float          out[SINGLE_COLUMNS * PANEL_ROWS];
    for (int done = 0; done < n; done += SINGLE_COLUMNS) {
        int now = n - done < SINGLE_COLUMNS ? n - done : SINGLE_COLUMNS;
        multiply(job->k, m, panel, 1, job->x, c + done, now, out, PANEL_ROWS);
        for (int o = 0; o < now; o++)
            memcpy(job->y[i] + (size_t)(c + done + o) * (size_t)job->ldy[i] + first, out + o * PANEL_ROWS,
                   (size_t)(m->rows - first) * sizeof *out);
    }
}

static bool has_pairs(const kernels *k, const matrix *m) {
    return (m->type == BLOCK_Q4_0 && k->pair_q4_0) || (m->type == BLOCK_Q8_0 && k->pair_q8_0);
}

/* Panels [begin, end) of matrix i with columns [c, c + n). */
static void multiply_span(const product *job, int i, int begin, int end, int c, int n, bool pairs) {
    const matrix *m = job->w[i];
    int           whole = m->rows / PANEL_ROWS;
    float        *y = job->y[i] + (size_t)c * (size_t)job->ldy[i];
    for (int p = begin; p < end;) {
        int two = pairs && p + 2 <= end && p + 2 <= whole ? 2 : 1;
        if (p < whole)
            multiply(job->k, m, m->data + (size_t)p * m->panel_bytes, two, job->x, c, n, y + (size_t)p * PANEL_ROWS,
                     job->ldy[i]);
        else
            multiply_partial(job, i, c, n);
        p += two;
    }
}

static void multiply_panels(const product *job, int i, int begin, int end) {
    int n = job->x->n;
    if (n < MANY_COLUMNS) {
        multiply_span(job, i, begin, end, 0, n, false);
        return;
    }
    bool pairs = has_pairs(job->k, job->w[i]);
    int  step = pairs ? PAIR_COLUMNS : SINGLE_COLUMNS;
    int  tiles = (n + step - 1) / step;
    int  group = (int)(GROUP_BYTES / job->w[i]->panel_bytes) & ~1;
    if (group < 2 || (size_t)n * (size_t)job->w[i]->cols <= RESIDENT_BYTES)
        group = 2;
    for (int p = begin; p < end; p += group) {
        int last = end - p < group ? end : p + group;
        for (int t = 0; t < tiles; t++) { /* tiles of nearly equal width: 13 columns are 5 + 4 + 4, not 6 + 6 + 1 */
            int c = (int)((int64_t)n * t / tiles);
            multiply_span(job, i, p, last, c, (int)((int64_t)n * (t + 1) / tiles) - c, pairs);
        }
    }
}

static void product_chunk(void *arg, int begin, int end, int thread) {
    (void)thread;
    const product *job = arg;
    int            first = 0;
    for (int i = 0; i < job->count && first < end; i++) {
        int last = first + job->w[i]->panels;
        if (last > begin)
            multiply_panels(job, i, begin > first ? begin - first : 0, (end < last ? end : last) - first);
        first = last;
    }
}

void matrix_multiply(pool *p, int count, const matrix *const *w, const activations *x, float *const *y,
                     const int *ldy) {
    product job = {count, w, x, y, ldy, kernels_get()};
    int     panels = 0;
    size_t  largest = 1, all = 0;
    for (int i = 0; i < count; i++) {
        size_t bytes = w[i]->panel_bytes;
        panels += w[i]->panels;
        all += bytes * (size_t)w[i]->panels;
        largest = bytes > largest ? bytes : largest;
    }
    int grain = 1 + (int)(GRAIN_BYTES / largest);
    if (x->n >= MANY_COLUMNS)
        grain = (grain + 1) & ~1; /* pairs stay together */
    else if (all * (size_t)x->n <= ALONE_BYTES)
        grain = panels;
    pool_run(p, panels, grain, product_chunk, &job);
}
