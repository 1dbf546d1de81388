/* wide_avx512.c - two quantised panels with many columns, as in prefill.
 *
 * A piece of both panels is opened once: lines of bytes and float scales, small enough for the first-level cache. Then
 * tiles of 2 panels x 6 columns pass over it; two lines of weights share each broadcast activation, so that eight loads
 * feed twelve dot products. Between pieces the sums rest in memory of their own (in y the columns lie whole pages apart, and
 * would all want the same few places of the cache); the order of additions is that of the other kernels.             */
#if defined(__x86_64__)
#include "tensor/int8_avx512.h"

#define PANELS       2
#define TILE_COLUMNS 6   /* 12 sums and 12 dot products of 32 registers */
#define MOST_TILES   43  /* for which the sums are kept: 33 KB; more columns open the panels again */
#define PIECE        512 /* inputs: 16 KB of lines, 4 KB of scales at most */

typedef struct piece {
    _Alignas(64) uint8_t lines[PANELS][PIECE / 4][LINE_BYTES];
    _Alignas(64) float scales[PANELS][PIECE / Q6_K_INPUTS][PANEL_ROWS];
    _Alignas(64) float minimums[PANELS][PIECE / BLOCK_INPUTS][PANEL_ROWS];
} piece;

TILE void put_lines(uint8_t *to, const __m512i *lines, const int n) {
    UNROLL for (int i = 0; i < n; i++) _mm512_store_si512(to + i * LINE_BYTES, lines[i]);
}

/* One block of 32 inputs of a stretch, opened to 8 lines. */
TILE void open_block(block_type type, const uint8_t *w, size_t blocks, size_t b, uint8_t *lines, float *scales,
                     float *minimums) {
    __m512i four[4];
    if (type == BLOCK_Q6_K) {
        UNROLL for (size_t half = 0; half < 2; half++) {
            open_q6_k(w + Q6_K_HEAD + (2 * b + half) * Q6_K_LINES * LINE_BYTES, four);
            put_lines(lines + half * 4 * LINE_BYTES, four, 4);
            v_store(scales + half * PANEL_ROWS, scale_i8(w + 2 * SCALE_BYTES + 16 * (2 * b + half), v_load_f16(w)));
        }
        return;
    }
    if (type == BLOCK_Q8_0) {
        const uint8_t *from = w + blocks * SCALE_BYTES + b * Q8_0_LINES * LINE_BYTES;
        UNROLL for (int j = 0; j < Q8_0_LINES; j++)
            _mm512_store_si512(lines + j * LINE_BYTES, load_line(from + j * LINE_BYTES));
    } else {
        const uint8_t *from =
            w + (type == BLOCK_Q4_K ? (size_t)Q4_K_HEAD : blocks * SCALE_BYTES) + b * Q4_0_LINES * LINE_BYTES;
        UNROLL for (int j = 0; j < Q4_0_LINES; j++) {
            open_nibbles(from + j * LINE_BYTES, four);
            put_lines(lines + 2 * j * LINE_BYTES, four, 2);
        }
    }
    if (type == BLOCK_Q4_K) {
        v_store(scales, scale_u8(w + 2 * SCALE_BYTES + 16 * b, v_load_f16(w)));
        v_store(minimums, scale_u8(w + Q4_K_MINS + 16 * b, v_load_f16(w + SCALE_BYTES)));
    } else {
        v_store(scales, v_load_f16(w + b * SCALE_BYTES));
    }
}

/* Opens `blocks` blocks from a stretch's beginning on. */
TILE void open_piece(block_type type, const uint8_t *w, size_t blocks, size_t scales_a_block, const int p, piece *to) {
    for (size_t done = 0; done < blocks; done += 8) {
        size_t now = blocks - done < 8 ? blocks - done : 8;
        for (size_t b = 0; b < now; b++)
            open_block(type, w, now, b, to->lines[p][(done + b) * 8], to->scales[p][(done + b) * scales_a_block],
                       to->minimums[p][done + b]);
        w += stretch_bytes(type, now);
    }
}

/* What the next piece will read, fetched into the second-level cache while this one is computed. */
typedef struct ahead {
    const uint8_t *at[PANELS];
    size_t         lines; /* for each part of a block */
} ahead;

TILE void prefetch(const ahead *next, size_t part) {
    for (size_t i = 0; i < next->lines; i++)
        UNROLL for (int p = 0; p < PANELS; p++) PREFETCH_FAR(next->at[p] + (part * next->lines + i) * LINE_BYTES);
}

typedef struct tile_sums {
    _Alignas(64) float of[PANELS][TILE_COLUMNS][PANEL_ROWS];
} tile_sums;

/* Sums of 2 panels x n columns over one piece; x begins at the tile's first column, `at` is the piece's first block. With
 * the last piece they go to y. */
TILE void wide_tile(block_type type, const piece *w, size_t at, size_t blocks, const ahead *next, const columns *x,
                    tile_sums *sums, float *y, int ldy, const int n) {
    const size_t   parts = type == BLOCK_Q6_K ? 2 : 1; /* of a block, each with scales of its own */
    const int      lines = type == BLOCK_Q6_K ? 4 : 8; /* of a part */
    const size_t   cols = (size_t)x->cols, ld = cols / BLOCK_INPUTS;
    const int32_t *minus = type == BLOCK_Q4_0   ? x->minus8
                           : type == BLOCK_Q8_0 ? x->minus128
                           : type == BLOCK_Q6_K ? x->minus32
                                                : NULL;
    vec            sum[PANELS][TILE_COLUMNS];
    UNROLL for (int p = 0; p < PANELS; p++) UNROLL for (int c = 0; c < n; c++) sum[p][c] =
        at ? _mm512_load_ps(sums->of[p][c]) : v_zero();
    for (size_t part = 0; part < blocks * parts; part++) {
        const size_t  block = at + part / parts;
        const int8_t *q = x->q + at * BLOCK_INPUTS + part * (size_t)(lines * 4);
        __m512i       dot[PANELS][TILE_COLUMNS];
        prefetch(next, part);
        UNROLL for (int c = 0; c < n; c++) {
            __m512i from =
                minus ? _mm512_set1_epi32(minus[((size_t)c * ld + at) * parts + part]) : _mm512_setzero_si512();
            UNROLL for (int p = 0; p < PANELS; p++) dot[p][c] = from;
        }
        UNROLL for (int j = 0; j < lines; j++) {
            __m512i line[PANELS];
            UNROLL for (int p = 0; p < PANELS; p++) line[p] =
                _mm512_load_si512(w->lines[p][part * (size_t)lines + (size_t)j]);
            UNROLL for (int c = 0; c < n; c++) {
                __m512i four = four_inputs(q + (size_t)c * cols + 4 * j);
                UNROLL for (int p = 0; p < PANELS; p++) dot[p][c] = _mm512_dpbusd_epi32(dot[p][c], line[p], four);
            }
        }
        UNROLL for (int p = 0; p < PANELS; p++) {
            vec scale = _mm512_load_ps(w->scales[p][part]);
            UNROLL for (int c = 0; c < n; c++) {
                vec both = v_mul(scale, v_set1(x->scales[(size_t)c * ld + block]));
                sum[p][c] = v_fma(_mm512_cvtepi32_ps(dot[p][c]), both, sum[p][c]);
            }
            if (type == BLOCK_Q4_K) {
                vec minimum = _mm512_load_ps(w->minimums[p][part]);
                UNROLL for (int c = 0; c < n; c++) sum[p][c] =
                    _mm512_fnmadd_ps(minimum, v_set1(x->sums[(size_t)c * ld + block]), sum[p][c]);
            }
        }
    }
    if (at + blocks < ld) {
        UNROLL for (int p = 0; p < PANELS; p++) UNROLL for (int c = 0; c < n; c++)
            _mm512_store_ps(sums->of[p][c], sum[p][c]);
    } else {
        UNROLL for (int p = 0; p < PANELS; p++) UNROLL for (int c = 0; c < n; c++)
            v_store(y + (size_t)c * (size_t)ldy + p * PANEL_ROWS, sum[p][c]);
    }
}

/* One tile of a number of columns known at run time. */
TILE void any_tile(block_type type, const piece *w, size_t at, size_t blocks, const ahead *next, const columns *x,
                   tile_sums *sums, float *y, int ldy) {
    if (x->n == 6)
        wide_tile(type, w, at, blocks, next, x, sums, y, ldy, 6);
    else if (x->n == 5)
        wide_tile(type, w, at, blocks, next, x, sums, y, ldy, 5);
    else if (x->n == 4)
        wide_tile(type, w, at, blocks, next, x, sums, y, ldy, 4);
    else if (x->n == 3)
        wide_tile(type, w, at, blocks, next, x, sums, y, ldy, 3);
    else if (x->n == 2)
        wide_tile(type, w, at, blocks, next, x, sums, y, ldy, 2);
    else
        wide_tile(type, w, at, blocks, next, x, sums, y, ldy, 1);
}

/* At most MOST_TILES tiles, of nearly equal width: 13 columns are 5 + 4 + 4, not 6 + 6 + 1. */
TILE void wide_group(block_type type, const uint8_t *panels, size_t panel_bytes, const columns *x, float *y, int ldy) {
    const size_t   blocks = (size_t)(x->cols / BLOCK_INPUTS), piece_blocks = PIECE / BLOCK_INPUTS;
    const size_t   piece_bytes = piece_blocks / 8 * stretch_bytes(type, 8), lines = piece_bytes / LINE_BYTES;
    const int      tiles = (x->n + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const uint8_t *w = panels;
    piece          opened;
    tile_sums      sums[MOST_TILES];
    for (size_t at = 0; at < blocks; at += piece_blocks, w += piece_bytes) {
        const size_t   now = blocks - at < piece_blocks ? blocks - at : piece_blocks;
        const size_t   parts = now * (type == BLOCK_Q6_K ? 2 : 1);
        const uint8_t *following = at + now < blocks ? w + piece_bytes : panels + PANELS * panel_bytes;
        ahead          next = {{following, following + panel_bytes}, (lines - 1) / (parts * (size_t)tiles) + 1};
        UNROLL for (int p = 0; p < PANELS; p++)
            open_piece(type, w + (size_t)p * panel_bytes, now, type == BLOCK_Q6_K ? 2 : 1, p, &opened);
        for (int t = 0, c = 0; t < tiles; t++) {
            int     end = (int)((int64_t)x->n * (t + 1) / tiles);
            columns part = columns_from(x, c, end - c);
            any_tile(type, &opened, at, now, &next, &part, &sums[t], y + (size_t)c * (size_t)ldy, ldy);
            c = end;
            UNROLL for (int p = 0; p < PANELS; p++) next.at[p] += parts * next.lines * LINE_BYTES;
            if ((size_t)(t + 1) * parts * next.lines >= lines)
                next.lines = 0;
        }
    }
}

TILE void wide_panels(block_type type, const uint8_t *panels, const columns *x, float *y, int ldy) {
    const size_t blocks = (size_t)(x->cols / BLOCK_INPUTS), whole = blocks / 8, rest = blocks % 8;
    const size_t panel_bytes = whole * stretch_bytes(type, 8) + (rest ? stretch_bytes(type, rest) : 0);
    for (int c = 0; c < x->n; c += MOST_TILES * TILE_COLUMNS) {
        columns part = columns_from(x, c, x->n - c < MOST_TILES * TILE_COLUMNS ? x->n - c : MOST_TILES * TILE_COLUMNS);
        wide_group(type, panels, panel_bytes, &part, y + (size_t)c * (size_t)ldy, ldy);
    }
}

void wide_q4_0_avx512(const uint8_t *panels, const columns *x, float *y, int ldy) {
    wide_panels(BLOCK_Q4_0, panels, x, y, ldy);
}

void wide_q8_0_avx512(const uint8_t *panels, const columns *x, float *y, int ldy) {
    wide_panels(BLOCK_Q8_0, panels, x, y, ldy);
}

void wide_q4_k_avx512(const uint8_t *panels, const columns *x, float *y, int ldy) {
    wide_panels(BLOCK_Q4_K, panels, x, y, ldy);
}

void wide_q6_k_avx512(const uint8_t *panels, const columns *x, float *y, int ldy) {
    wide_panels(BLOCK_Q6_K, panels, x, y, ldy);
}
#else
typedef int pare_no_avx512_wide;
#endif
