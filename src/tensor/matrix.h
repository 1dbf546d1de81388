/* matrix.h - weights laid out for the kernels, and the product with a few or many columns.
 *
 * A matrix has `rows` outputs and `cols` inputs. Rows lie in panels of 16 so that one 64-byte line feeds one register;
 * the last panel is padded with zero rows. Quantised formats multiply with activations rounded to int8 (columns.h
 * says how); F32, F16 and BF16 multiply with float32 activations.
 *
 * y = W x for `n` columns: x is [n][cols] float32, y is [n][ldy] float32 with rows written at y[c*ldy + r]. Whatever n
 * is, and whichever thread takes which panel, each output has the same bits: the order of additions within a row never
 * depends on n. Greedy output is therefore the same alone and in a batch.                                            */
#ifndef PARE_TENSOR_MATRIX_H
#define PARE_TENSOR_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tensor/block.h"
#include "tensor/pool.h"

#define PANEL_ROWS 16

typedef struct matrix {
    block_type type;
    int        rows, cols;
    int        panels;      /* (rows + 15) / 16 */
    size_t     panel_bytes; /* of one panel */
    uint8_t   *data;        /* panels * panel_bytes, 64-byte aligned, owned by whoever allocated it */
} matrix;

/* Bytes that `data` needs for such a matrix; false with a sentence when the type or shape cannot be packed. */
bool matrix_size(block_type type, int64_t rows, int64_t cols, size_t *bytes, err *e);

/* Packs `rows` rows of GGUF blocks (row-major) into m->data (64-byte aligned, matrix_size bytes). */
void matrix_pack(matrix *m, block_type type, int rows, int cols, const void *blocks, void *data);

/* One row back as float32, for embeddings look-up and tests. */
void matrix_row(const matrix *m, int row, float *out);

/* Activations made ready once and used by all matrices with the same input (Q, K and V; gate and up). x must stay as it
 * is until the products are through; it is rounded to the forms asked for; FORM_INT8 needs cols that 32 divides. */
typedef struct activations activations; /* room for up to max_n columns of up to max_cols values, rounded */
activations               *activations_new(int max_n, int max_cols, err *e);
void                       activations_free(activations *a);
void                       activations_set(activations *a, pool *p, const float *x, int n, int cols, unsigned forms);
/* The forms of activations that products with m need beside float32; put together for several matrices by |. */
enum { FORM_INT8 = 1, FORM_BF16 = 2 };
unsigned matrix_form(const matrix *m);

/* Y_i = W_i X for `count` matrices that share the input, in one pass over the pool. */
void matrix_multiply(pool *p, int count, const matrix *const *w, const activations *x, float *const *y, const int *ldy);

/* The columns [first, first + n) times one matrix, to y[n][w->rows]. */
typedef struct matrix_part {
    const matrix *w;
    int           first, n;
    float        *y;
} matrix_part;

/* Each part with its own columns, in one pass over the pool. */
void matrix_multiply_parts(pool *p, int count, const matrix_part *parts, const activations *x);

#endif
