/* wide_avx512.c - two quantised panels with many columns, as in prefill.
 *
 * A stretch of both panels is opened once: lines of signed bytes, and each scale times the eight shares that activations may
 * have of theirs, small enough for the first-level cache. Then tiles of 2 panels x 6 columns pass over it; two lines of
 * weights meet each broadcast activation, so that eight loads feed twelve dot products, and a column finds its scales
 * multiplied already. Here the activations are the unsigned factor (column_tile): what is too much then is the same for all
 * columns, and is where the integer sums begin. Between stretches the totals rest in memory of their own (in y the columns
 * lie whole pages apart, and would all want the same few places of the cache); the order of additions is that of the other
 * kernels, and so are the bits.                                                                                       */
#if defined(__x86_64__)
#include "tensor/int8_avx512.h"

#define PANELS     2  /* with TILE_COLUMNS: 12 sums and 12 dot products of 32 registers */
#define MOST_TILES 43 /* for which the totals are kept: 33 KB; more columns open the panels again */
#define MOST_PARTS (STRETCH_INPUTS / HALF_INPUTS) /* what has a scale of its own: a block, or half of one */

typedef struct opened {
    _Alignas(64) uint8_t lines[PANELS][STRETCH_INPUTS / 4][LINE_BYTES];   /* 8 KB */
    _Alignas(64) float scales[PANELS][MOST_PARTS][Q8_SHARES][PANEL_ROWS]; /* 16 KB, half of it with one part a block */
    _Alignas(64) int32_t starts[PANELS][MOST_PARTS][PANEL_ROWS];          /* 2 KB: -128 times the weights of a part */
    const uint8_t *from[PANELS];
} opened;

/* `n` lines of bytes that are plus `offset`; 128 times their values are added to the sums of their part. */
TILE void put_lines(uint8_t *to, const __m512i *lines, const int n, const int offset, __m512i *sum) {
    UNROLL for (int i = 0; i < n; i++) {
        __m512i line = offset ? _mm512_sub_epi8(lines[i], _mm512_set1_epi8((char)offset)) : lines[i];
        _mm512_store_si512(to + i * LINE_BYTES, line);
        *sum = _mm512_dpbusd_epi32(*sum, _mm512_set1_epi8((char)128), line);
    }
}

TILE void put_part(opened *to, const int p, size_t part, __m512i sum, vec scale) {
    _mm512_store_si512(to->starts[p][part], _mm512_sub_epi32(_mm512_setzero_si512(), sum));
    UNROLL for (int i = 0; i < Q8_SHARES; i++)
        v_store(to->scales[p][part][i], v_mul(scale, v_set1((float)(i + 1) / Q8_SHARES)));
}

/* Block b (32 inputs) of a stretch of `blocks` becomes 8 lines. */
TILE void open_block(const panel_form f, const uint8_t *w, size_t blocks, size_t b, opened *to, const int p) {
    const uint8_t *lines = block_lines(f, w, blocks, b);
    const int      pairs = 4 / f.parts;
    UNROLL for (int part = 0; part < f.parts; part++) {
        __m512i two[2], sum = _mm512_setzero_si512();
        UNROLL for (int j = part * pairs; j < (part + 1) * pairs; j++) {
            open_pair(f, lines, j, two);
            put_lines(to->lines[p][b * 8 + 2 * (size_t)j], two, 2, f.offset, &sum);
        }
        put_part(to, p, b * f.parts + (size_t)part, sum, scales_of(f, w, b, part));
    }
}

TILE void open_stretch(const panel_form f, const uint8_t *w, size_t blocks, opened *to, const int p) {
    to->from[p] = w;
    for (size_t b = 0; b < blocks; b++)
        open_block(f, w, blocks, b, to, p);
}

/* What the next stretch will read, fetched into the second-level cache while this one is computed: so many lines a tile. */
typedef struct ahead {
    const uint8_t *at[PANELS];
    size_t         lines, left;
} ahead;

TILE void prefetch(ahead *next) {
    for (size_t i = 0; i < next->lines && next->left; i++, next->left--)
        UNROLL for (int p = 0; p < PANELS; p++) {
            PREFETCH_FAR(next->at[p]);
            next->at[p] += LINE_BYTES;
        }
}

typedef struct tile_sums {
    _Alignas(64) float of[PANELS][TILE_COLUMNS][PANEL_ROWS];
} tile_sums;

/* The dot products of one part of a block, 2 panels x n columns; q begins at the part. */
TILE void dot_part(__m512i dot[PANELS][TILE_COLUMNS], const uint8_t *const line[PANELS], const int lines,
                   const uint8_t *q, const int n) {
    UNROLL for (int j = 0; j < lines; j++) {
        __m512i w[PANELS];
        UNROLL for (int p = 0; p < PANELS; p++) w[p] = _mm512_load_si512(line[p] + j * LINE_BYTES);
        UNROLL for (int c = 0; c < n; c++) {
            __m512i four = four_bytes(q + c * BLOCK_INPUTS + 4 * j);
            UNROLL for (int p = 0; p < PANELS; p++) dot[p][c] = _mm512_dpbusd_epi32(dot[p][c], four, w[p]);
        }
    }
}

TILE void take_minimums(const panel_form f, vec sum[PANELS][TILE_COLUMNS], const opened *w, const column_tile *x,
                        const int n) {
    __m512i of[PANELS][TILE_COLUMNS];
    UNROLL for (int p = 0; p < PANELS; p++) UNROLL for (int c = 0; c < n; c++) of[p][c] = _mm512_setzero_si512();
    UNROLL for (size_t pair = 0; pair < minimum_pairs(f); pair++) UNROLL for (int p = 0; p < PANELS; p++) {
        __m512i two = minimums_of(f, w->from[p], pair);
        UNROLL for (int c = 0; c < n; c++) of[p][c] = _mm512_dpwssd_epi32(
            of[p][c], two, four_bytes(f.least == LEAST_U4 ? x->half_sums[pair][c] : x->sums[pair][c]));
    }
    UNROLL for (int p = 0; p < PANELS; p++) {
        vec scale = minimum_scale(w->from[p]);
        UNROLL for (int c = 0; c < n; c++) sum[p][c] = _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(of[p][c]), sum[p][c]);
    }
}

TILE void add_lows(vec sum[PANELS][TILE_COLUMNS], const opened *w, size_t blocks, size_t b, const column_tile *x,
                   const int n) {
    const size_t pair = b / 2;
    vec          low[PANELS];
    UNROLL for (int p = 0; p < PANELS; p++) low[p] = lows_of(w->from[p], blocks, b);
    UNROLL for (int c = 0; c < n; c++) {
        vec of = v_set1((float)x->sums[pair][c][b % 2]);
        UNROLL for (int p = 0; p < PANELS; p++) sum[p][c] = v_fma(low[p], of, sum[p][c]);
    }
}

/* The sums of 2 panels x n columns over one stretch. */
TILE void wide_tile(const panel_form f, const opened *w, size_t blocks, const column_tile *x,
                    vec sum[PANELS][TILE_COLUMNS], const int n) {
    const size_t parts = f.parts;     /* of a block */
    const int    lines = 8 / f.parts; /* of a part */
    UNROLL for (int p = 0; p < PANELS; p++) UNROLL for (int c = 0; c < n; c++) sum[p][c] = v_zero();
    for (size_t part = 0; part < blocks * parts; part++) {
        const uint8_t *line[PANELS] = {w->lines[0][part * (size_t)lines], w->lines[1][part * (size_t)lines]};
        __m512i        dot[PANELS][TILE_COLUMNS];
        UNROLL for (int p = 0; p < PANELS; p++) UNROLL for (int c = 0; c < n; c++) dot[p][c] =
            _mm512_load_si512(w->starts[p][part]);
        dot_part(dot, line, lines, x->q[part / parts][0] + part % parts * HALF_INPUTS, n);
        UNROLL for (int c = 0; c < n; c++) UNROLL for (int p = 0; p < PANELS; p++) {
            vec scale = _mm512_load_ps((const char *)w->scales[p][part] + x->places[part / parts][c]);
            sum[p][c] = v_fma(_mm512_cvtepi32_ps(dot[p][c]), scale, sum[p][c]);
        }
        if (f.least == LEAST_F16)
            add_lows(sum, w, blocks, part, x, n);
    }
    if (f.least == LEAST_U8 || f.least == LEAST_U4)
        take_minimums(f, sum, w, x, n);
}

/* Adds a stretch to a tile's totals; the first clears them, the last has them written to y. */
TILE void add_tile(const panel_form f, const opened *w, size_t blocks, const column_tile *x, tile_sums *totals,
                   bool first, bool last, float *y, int ldy, const int n) {
    vec sum[PANELS][TILE_COLUMNS];
    wide_tile(f, w, blocks, x, sum, n);
    UNROLL for (int c = 0; c < n; c++) UNROLL for (int p = 0; p < PANELS; p++) {
        vec total = v_fma(sum[p][c], v_set1(x->scales[c]), first ? v_zero() : _mm512_load_ps(totals->of[p][c]));
        if (last)
            v_store(y + (size_t)c * (size_t)ldy + p * PANEL_ROWS, total);
        else
            _mm512_store_ps(totals->of[p][c], total);
    }
}

/* Tiles [from, to), at most MOST_TILES, of all columns. */
TILE void wide_group(const panel_form f, const uint8_t *panels, size_t panel_bytes, const columns *x, int from, int to,
                     float *y, int ldy) {
    const size_t   all = (size_t)(x->cols / BLOCK_INPUTS), most = STRETCH_INPUTS / BLOCK_INPUTS;
    const int      tiles = column_tiles(x->n);
    const uint8_t *w = panels;
    opened         open;
    tile_sums      totals[MOST_TILES];
    for (size_t at = 0; at < all; at += most) {
        const size_t       blocks = all - at < most ? all - at : most, bytes = stretch_bytes(f, blocks);
        const column_tile *tile = x->tiles + at / most * (size_t)tiles + from;
        const uint8_t     *following = at + blocks < all ? w + bytes : panels + PANELS * panel_bytes;
        const size_t       lines = bytes / LINE_BYTES;
        ahead              next = {{following, following + panel_bytes}, lines / (size_t)(to - from) + 1, lines};
        UNROLL for (int p = 0; p < PANELS; p++) open_stretch(f, w + (size_t)p * panel_bytes, blocks, &open, p);
        for (int t = from; t < to; t++, tile++) {
            const int  c = column_tile_begin(x->n, t), n = column_tile_begin(x->n, t + 1) - c;
            const bool first = at == 0, last = at + blocks == all;
            float     *out = y + (size_t)c * (size_t)ldy;
            tile_sums *sums = &totals[t - from];
            prefetch(&next);
            if (n == 6)
                add_tile(f, &open, blocks, tile, sums, first, last, out, ldy, 6);
            else if (n == 5)
                add_tile(f, &open, blocks, tile, sums, first, last, out, ldy, 5);
            else if (n == 4)
                add_tile(f, &open, blocks, tile, sums, first, last, out, ldy, 4);
            else if (n == 3)
                add_tile(f, &open, blocks, tile, sums, first, last, out, ldy, 3);
            else if (n == 2)
                add_tile(f, &open, blocks, tile, sums, first, last, out, ldy, 2);
            else
                add_tile(f, &open, blocks, tile, sums, first, last, out, ldy, 1);
        }
        w += bytes;
    }
}

TILE void wide_panels(const panel_form f, const uint8_t *panels, const columns *x, float *y, int ldy) {
    const size_t blocks = (size_t)(x->cols / BLOCK_INPUTS), whole = blocks / 8, rest = blocks % 8;
    const size_t panel_bytes = whole * stretch_bytes(f, 8) + (rest ? stretch_bytes(f, rest) : 0);
    const int    tiles = column_tiles(x->n);
    for (int t = 0; t < tiles; t += MOST_TILES)
        wide_group(f, panels, panel_bytes, x, t, t + MOST_TILES < tiles ? t + MOST_TILES : tiles, y, ldy);
}

#define WIDE_PANELS(name, type)                                                                                        \
    void wide_##name##_avx512(const uint8_t *panels, const columns *x, float *y, int ldy) {                            \
        wide_panels(form_of(BLOCK_##type), panels, x, y, ldy);                                                         \
    }
INT8_TYPES(WIDE_PANELS)
#else
typedef int pare_no_avx512_wide;
#endif
