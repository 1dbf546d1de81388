/* int8_tile.h - the walk of some columns over one quantised panel, the same for every vector instruction set. A file that
 * includes it has included vector_*.h and defines before:
 *
 *   MOST_COLUMNS, LINE_VECS              columns of a tile; vectors of 16 rows
 *   block_of(f, sum, w, blocks, b, x, at, n)
 *                                        sum[n][LINE_VECS] += block b of the stretch of `blocks` at w; it is block `at` of
 *                                        the columns x
 *   take_minimums(f, sum, w, x, at, n)   of a stretch that begins with block `at`, for forms with integer minimums       */
#ifndef PARE_TENSOR_INT8_TILE_H
#define PARE_TENSOR_INT8_TILE_H

#define FAR_BYTES  18432 /* ahead, into the second-level cache: a core has few slots for the first-level one */
#define NEAR_BYTES 2304  /* and from there into the first-level cache. Measured together: 33 GB/s, one alone 28 */

/* An eighth of a stretch, scales and all, for each block that is computed. (On ARM the distances are not measured.) */
TILE void prefetch_block(const panel_form f, const uint8_t *w, size_t b) {
    const size_t   bytes = stretch_bytes(f, STRETCH_BLOCKS) / STRETCH_BLOCKS;
    const uint8_t *at = w + b * bytes;
    UNROLL for (size_t i = 0; i < (bytes + LINE_BYTES - 1) / LINE_BYTES; i++) {
        PREFETCH_FAR(at + FAR_BYTES + i * LINE_BYTES);
        PREFETCH(at + NEAR_BYTES + i * LINE_BYTES);
    }
}

TILE void int8_tile(const panel_form f, const uint8_t *w, const columns *x, float *y, int ldy, const int n) {
    const size_t all = (size_t)x->cols / BLOCK_INPUTS, stretches = Q8_STRETCHES(x->cols);
    vec          total[MOST_COLUMNS * LINE_VECS]; /* rests in memory while a stretch is added up */
    UNROLL for (int i = 0; i < n * LINE_VECS; i++) total[i] = v_zero();
    for (size_t s = 0, at = 0; s < stretches; s++, at += STRETCH_INPUTS / BLOCK_INPUTS) {
        const size_t blocks = all - at < STRETCH_INPUTS / BLOCK_INPUTS ? all - at : STRETCH_INPUTS / BLOCK_INPUTS;
        vec          sum[MOST_COLUMNS * LINE_VECS];
        UNROLL for (int i = 0; i < n * LINE_VECS; i++) sum[i] = v_zero();
        for (size_t b = 0; b < blocks; b++) {
            prefetch_block(f, w, b);
            block_of(f, sum, w, blocks, b, x, at + b, n);
        }
        if (f.least == LEAST_U8 || f.least == LEAST_U4)
            take_minimums(f, sum, w, x, at, n);
        UNROLL for (int c = 0; c < n; c++) UNROLL for (int v = 0; v < LINE_VECS; v++) total[c * LINE_VECS + v] =
            v_fma(sum[c * LINE_VECS + v], v_set1(x->scales[(size_t)c * stretches + s]), total[c * LINE_VECS + v]);
        w += stretch_bytes(f, blocks);
    }
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int v = 0; v < LINE_VECS; v++)
        v_store(y + (size_t)c * (size_t)ldy + v * LANES, total[c * LINE_VECS + v]);
}

/* Any number of columns, in tiles of nearly equal width: 5 columns are 3 + 2, not 4 + 1. */
TILE void int8_panel(const panel_form f, const uint8_t *w, const columns *x, float *y, int ldy, const int widest) {
    for (int n = x->n, now, done = 0; n > 0; n -= now, done += now) {
        int tiles = (n + widest - 1) / widest;
        now = (n + tiles - 1) / tiles;
        const columns part = columns_from(x, done, now);
        float        *to = y + (size_t)done * (size_t)ldy;
        switch (now) {
#define WIDTH(N)                                                                                                       \
    case N:                                                                                                            \
        if ((N) <= widest)                                                                                             \
            int8_tile(f, w, &part, to, ldy, (N) <= MOST_COLUMNS ? (N) : 1);                                            \
        break
            WIDTH(1);
            WIDTH(2);
            WIDTH(3);
            WIDTH(4);
            WIDTH(5);
            WIDTH(6);
            WIDTH(7);
            WIDTH(8);
            WIDTH(9);
            WIDTH(10);
            WIDTH(11);
            WIDTH(12);
#undef WIDTH
        }
    }
}

#define INT8_FUNCTION(name, type, isa, widest)                                                                         \
    void panel_##name##_##isa(const uint8_t *panel, const columns *x, float *y, int ldy) {                             \
        int8_panel(form_of(BLOCK_##type), panel, x, y, ldy, widest);                                                   \
    }

#endif
