/* columns.h - activations as the kernels of products read them. matrix.c makes them ready. */
#ifndef PARE_TENSOR_COLUMNS_H
#define PARE_TENSOR_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

#define Q8_STRETCH         256
#define Q8_STRETCHES(cols) (((size_t)(cols) + Q8_STRETCH - 1) / Q8_STRETCH)
#define Q8_SHARES          8
#define TILE_COLUMNS       6

/* A stretch of some columns side by side, for kernels that take many columns: what they read next lies next. */
typedef struct column_tile {
    _Alignas(64) uint8_t q[Q8_STRETCH / 32][TILE_COLUMNS][32]; /* plus 128 */
    uint16_t places[Q8_STRETCH / 32]
                   [TILE_COLUMNS]; /* of the share among the eight: 0, 64 .. 448, bytes before its line */
    int16_t sums[Q8_STRETCH / 64][TILE_COLUMNS][2];
    int16_t half_sums[Q8_STRETCH / 32][TILE_COLUMNS][2];
    float   scales[TILE_COLUMNS];
} column_tile;

/* Activations, [n] columns of `cols` values, ready for the products: as they are and, for int8 products, rounded to int8:
 * value = q * share * scale. A stretch of 256 has one scale and each group of 32 in it a share of it, 1/8, 2/8 .. 1: nearly
 * as fine as a scale for each group, and a product can multiply weight scales by the eight shares once for all columns. `sums`
 * meet the minimums of weights; the minus sums take off what panel.h adds to them. */
typedef struct columns {
    int                n, cols;
    const float       *x;         /* [n][cols] */
    const int8_t      *q;         /* [n][cols] */
    const float       *scales;    /* [n][Q8_STRETCHES(cols)] */
    const float       *shares;    /* [n][cols/32] */
    const int16_t     *sums;      /* [n][cols/32]: 8 times the share times the sum of the group's q */
    const int16_t     *half_sums; /* [n][cols/16]: the same of half a group */
    const int32_t     *minus8;    /* [n][cols/32]: -8 times the sum of the group's q */
    const int32_t     *minus16;   /* [n][cols/32] */
    const int32_t     *minus128;  /* [n][cols/32] */
    const int32_t     *minus4;    /* [n][cols/16]: of half a group */
    const int32_t     *minus32;   /* [n][cols/16] */
    const uint16_t    *rounded;   /* [n][cols] bfloat16, for tables whose products want them */
    const column_tile *tiles;     /* [Q8_STRETCHES(cols)][column_tiles(n)]: the int8 ones again, for kernels.wide */
} columns;

/* Tiles have nearly equal widths: 13 columns are 4 + 4 + 5, not 6 + 6 + 1. Tile t ends where t + 1 begins. */
static inline int column_tiles(int n) {
    return (n + TILE_COLUMNS - 1) / TILE_COLUMNS;
}
static inline int column_tile_begin(int n, int t) {
    return (int)((int64_t)n * t / column_tiles(n));
}

/* Copies stretch s of tile t's columns; all else of x but the tiles is set. */
void column_tile_fill(const columns *x, size_t s, int t, column_tile *to);

/* Some of the columns, without the tiles. */
static inline columns columns_from(const columns *x, int first, int n) {
    size_t at = (size_t)first * (size_t)x->cols, group = (size_t)first * (size_t)(x->cols / 32);
    return (columns){.n = n,
                     .cols = x->cols,
                     .x = x->x + at,
                     .q = x->q + at,
                     .scales = x->scales + (size_t)first * Q8_STRETCHES(x->cols),
                     .shares = x->shares + group,
                     .sums = x->sums + group,
                     .half_sums = x->half_sums + 2 * group,
                     .minus8 = x->minus8 + group,
                     .minus16 = x->minus16 + group,
                     .minus128 = x->minus128 + group,
                     .minus4 = x->minus4 + 2 * group,
                     .minus32 = x->minus32 + 2 * group,
                     .rounded = x->rounded + at};
}

#endif
