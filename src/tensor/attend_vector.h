/* attend_vector.h - attention, as it reads for every vector instruction set. attend_avx2.c and attend_avx512.c include a
 * vector_*.h, define the operations on int8 below and then include this.
 *
 *   ROW_TILE                                            rows that share the registers of a tile: 8 or 4
 *   ivec                                                LANES sums of 32 bits
 *   dot_q8_0, dot_q4_0(dot, lines, x, ldx, sums, ldsum, rows)   LANES positions by 32 int8 of each row
 *   v_from_int(ivec)
 *   v_load_i8(p)                                        LANES int8
 *   v_load_i4(row, at)                                  LANES values of a Q4_0 value row (kvblock.h) from value `at` on
 *
 * A group of 64 positions passes in three phases: scores of all rows, weights of all rows, sums of all rows. Tiles only
 * share loads: what is added up for one row is the same in each, in the same order.                                  */
#ifndef PARE_TENSOR_ATTEND_VECTOR_H
#define PARE_TENSOR_ATTEND_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "tensor/attend_parts.h"
#include "tensor/block.h"
#include "tensor/vector_math.h"

#define GROUP_VECS (ATTEND_GROUP / LANES)
#define BLOCK_VECS (KV_TOKENS / LANES)
#define WIDE       4 /* registers of positions or values that a tile of few rows takes */
#define NARROW     2 /* the same, of many rows */

/* One group of positions, as the tiles read it: in the cache's own type, or unpacked into scratch as F32. */
typedef struct group {
    int            start;  /* its first position */
    int            seen;   /* positions that some row sees, 1 .. ATTEND_GROUP */
    int            blocks; /* that hold them */
    kv_type        key_type, value_type;
    const uint8_t *keys[GROUP_BLOCKS], *values[GROUP_BLOCKS]; /* past `blocks` the last block again */
    size_t         value_row;                                 /* bytes from one position's values to the next's */
    const float   *value_scale;                               /* [dim / 32][ATTEND_GROUP], of Q8_0 and Q4_0 */
    /* What is wanted soon, and is asked for while the arithmetic runs: blocks lie anywhere, so that the processor does
     * not guess the next. The values while keys are read, the next group's keys while values are. */
    const uint8_t *next[GROUP_BLOCKS];
    size_t         half_bytes; /* of a number */
} group;

typedef struct work {
    const attend_span *s;
    attend_parts       p;
    int                dim, end; /* end: the first position that no row sees */
    bool               quantised, unpack_keys, unpack_values;
} work;

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Positions of the group that one of the rows sees; 0 or less when none is. */
static int seen_by(const work *w, const group *g, int row, int rows) {
    int most = 0;
    for (int r = row; r < row + rows; r++)
        most = w->s->limit[r] > most ? w->s->limit[r] : most;
    return least(most - g->start, g->seen);
}

/* The group's positions that a row does not see because they lie before its window. */
static int hidden(const work *w, const group *g, int row) {
    return w->s->low ? w->s->low[row] - g->start : 0;
}

static bool sees(const work *w, const group *g, int row) {
    return w->s->limit[row] > g->start && hidden(w, g, row) < ATTEND_GROUP;
}

/* ---- scores ---- */

/* s[r][0 .. vecs * LANES) for the positions from register `at` of the group on. */
TILE void score_tile(kv_type type, const group *g, int at, const float *q, int dim, float *s, const int rows,
                     const int vecs) {
    const size_t   bytes = type == KV_F16 ? 2 : 4;
    const uint8_t *keys[WIDE];
    vec            sum[ROW_TILE * NARROW];
    UNROLL for (int v = 0; v < vecs; v++) keys[v] =
        g->keys[(at + v) / BLOCK_VECS] + (size_t)((at + v) % BLOCK_VECS) * LANES * bytes;
    UNROLL for (int i = 0; i < rows * vecs; i++) sum[i] = v_zero();
    for (size_t d = 0; d < (size_t)dim; d++) {
        vec key[WIDE];
        UNROLL for (int v = 0; v < vecs; v += BLOCK_VECS)
            PREFETCH(g->values[(at + v) / BLOCK_VECS] + d * KV_TOKENS * g->half_bytes / 2);
        UNROLL for (int v = 0; v < vecs; v++) {
            const uint8_t *p = keys[v] + d * KV_TOKENS * bytes;
            key[v] = type == KV_F16 ? v_load_f16(p) : v_load(p);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            vec query = v_set1(q[(size_t)r * (size_t)dim + d]);
            UNROLL for (int v = 0; v < vecs; v++) sum[r * vecs + v] = v_fma(key[v], query, sum[r * vecs + v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < vecs; v++)
        v_store(s + (size_t)r * ATTEND_GROUP + (at + v) * LANES, sum[r * vecs + v]);
}

/* One register of positions; the same float operations as a panel's (panel.h). */
TILE void score_tile_int8(kv_type type, const group *g, int at, const work *w, int row, float *s, const int rows) {
    const size_t   dim = (size_t)w->dim, groups = dim / KV_GROUP;
    const size_t   lines = type == KV_Q8_0 ? KV_Q8_LINES : KV_Q4_LINES;
    const size_t   lane = (size_t)(at % BLOCK_VECS) * LANES;
    const uint8_t *scales = g->keys[at / BLOCK_VECS] + 2 * lane;
    const uint8_t *numbers = g->keys[at / BLOCK_VECS] + kv_numbers_at(w->dim) + 4 * lane;
    const uint8_t *values = g->values[at / BLOCK_VECS] + (size_t)(at % BLOCK_VECS) * KV_LINE;
    const int8_t  *x = w->p.q + (size_t)row * dim;
    const float   *x_scale = w->p.q_scale + (size_t)row * groups;
    const int32_t *x_sum = w->p.q_sum + (size_t)row * groups;
    vec            sum[ROW_TILE];
    UNROLL for (int r = 0; r < rows; r++) sum[r] = v_zero();
    for (size_t b = 0; b < groups; b++) {
        ivec dot[ROW_TILE];
        vec  scale = v_load_f16(scales + b * KV_SCALES);
        UNROLL for (size_t j = 0; j < lines; j += BLOCK_VECS) PREFETCH(values + (b * lines + j) * KV_LINE);
        if (type == KV_Q8_0)
            dot_q8_0(dot, numbers + b * lines * KV_LINE, x + b * KV_GROUP, dim, x_sum + b, groups, rows);
        else
            dot_q4_0(dot, numbers + b * lines * KV_LINE, x + b * KV_GROUP, dim, x_sum + b, groups, rows);
        UNROLL for (int r = 0; r < rows; r++) sum[r] =
            v_fma(v_from_int(dot[r]), v_mul(scale, v_set1(x_scale[(size_t)r * groups + b])), sum[r]);
    }
    UNROLL for (int r = 0; r < rows; r++) v_store(s + (size_t)r * ATTEND_GROUP + at * LANES, sum[r]);
}

/* The scores of `rows` rows with `vecs` registers of positions; with fewer positions than that, some for nothing. */
TILE void score_rows(const work *w, const group *g, int at, int row, const int rows, const int vecs) {
    const float *q = w->s->q + (size_t)row * (size_t)w->dim;
    float       *s = w->p.scores + (size_t)row * ATTEND_GROUP;
    if (g->key_type == KV_F32)
        score_tile(KV_F32, g, at, q, w->dim, s, rows, vecs);
    else if (g->key_type == KV_F16)
        score_tile(KV_F16, g, at, q, w->dim, s, rows, vecs);
    else
        for (int v = at; v < at + vecs; v++) /* one at a time: the int8 sums take as many registers as the float ones */
            if (g->key_type == KV_Q8_0)
                score_tile_int8(KV_Q8_0, g, v, w, row, s, rows);
            else
                score_tile_int8(KV_Q4_0, g, v, w, row, s, rows);
}

/* ---- weights ---- */

/* cap tanh(s / cap) = cap - 2 cap / (exp(2 s / cap) + 1) */
static void cap_scores(const work *w, float *s) {
    const vec cap = v_set1(w->s->cap), twice = v_set1(2 * w->s->cap), inverse = v_set1(2 / w->s->cap);
    for (int v = 0; v < GROUP_VECS; v++) {
        vec e = v_add(v_exp(v_mul(v_load(s + v * LANES), inverse)), v_set1(1.0f));
        v_store(s + v * LANES, v_sub(cap, v_div(twice, e)));
    }
}

/* new peaks, and exp(old peak - new peak) of all rows. */
static void peaks(const work *w, const group *g) {
    for (int r = 0; r < w->s->rows; r++) {
        float *s = w->p.scores + (size_t)r * ATTEND_GROUP, old = w->s->peak[r];
        int    seen = least(w->s->limit[r] - g->start, g->seen);
        w->p.factor[r] = 0;
        if (!sees(w, g, r))
            continue;
        if (w->s->cap > 0)
            cap_scores(w, s);
        for (int t = 0; t < hidden(w, g, r); t++) /* exp makes a 0 of it */
            s[t] = -INFINITY;
        for (int t = seen; t < ATTEND_GROUP; t++)
            s[t] = -INFINITY;
        vec best = v_set1(old);
        UNROLL for (int v = 0; v < GROUP_VECS; v++) best = v_max(v_load(s + v * LANES), best);
        w->s->peak[r] = v_peak(best);
        w->p.factor[r] = old - w->s->peak[r];
    }
    for (int r = 0; r < w->s->rows; r += LANES) {
        int n = least(w->s->rows - r, LANES);
        v_store_n(w->p.factor + r, v_exp_down(v_load_n(w->p.factor + r, n)), n);
    }
}

static void weights(const work *w, const group *g) {
    for (int r = 0; r < w->s->rows; r++) {
        float *s = w->p.scores + (size_t)r * ATTEND_GROUP;
        vec    peak = v_set1(w->s->peak[r]), sum = v_zero();
        if (!sees(w, g, r))
            continue;
        UNROLL for (int v = 0; v < GROUP_VECS; v++) {
            vec p = v_exp_down(v_sub(v_load(s + v * LANES), peak));
            v_store(s + v * LANES, p);
            sum = v_add(sum, p);
        }
        w->s->sum[r] = w->s->sum[r] * w->p.factor[r] + v_sum(sum);
    }
}

/* ---- sums of values ---- */

/* n: values left in the row; fewer than LANES only with F32. */
TILE vec value_piece(kv_type type, const group *g, const uint8_t *row, size_t at, int t, int n) {
    if (type == KV_F32)
        return v_load_n((const float *)(const void *)row + at, n);
    if (type == KV_F16)
        return v_load_f16(row + 2 * at);
    vec scale = v_set1(g->value_scale[at / KV_GROUP * ATTEND_GROUP + (size_t)t]);
    return v_mul(type == KV_Q8_0 ? v_load_i8(row + at) : v_load_i4(row, at), scale);
}

/* acc[r][d ..] = acc * factor + sum of p[t] v[t][d ..], for `vecs` registers of values. */
TILE void sum_tile(kv_type type, const work *w, const group *g, int d, int row, const int rows, const int vecs) {
    const float *p = w->p.scores + (size_t)row * ATTEND_GROUP;
    const size_t dim = (size_t)w->dim;
    const int    left = vecs > 1 ? vecs * LANES : w->dim - d, seen = seen_by(w, g, row, rows);
    vec          sum[ROW_TILE * NARROW];
    UNROLL for (int i = 0; i < rows * vecs; i++) sum[i] = v_zero();
    for (int b = 0, t = 0; t < seen; b++) {
        const uint8_t *values = g->values[b];
        for (int end = least(t + KV_TOKENS, seen); t < end; t++, values += g->value_row) {
            vec value[WIDE];
            PREFETCH(g->next[b] + (size_t)(d * KV_TOKENS + t % KV_TOKENS * vecs * LANES) * g->half_bytes / 2);
            UNROLL for (int v = 0; v < vecs; v++) value[v] =
                value_piece(type, g, values, (size_t)d + (size_t)v * LANES, t, left - v * LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                vec weight = v_set1(p[r * ATTEND_GROUP + t]);
                UNROLL for (int v = 0; v < vecs; v++) sum[r * vecs + v] = v_fma(weight, value[v], sum[r * vecs + v]);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        float *acc = w->s->acc + (size_t)(row + r) * dim + d;
        vec    factor = v_set1(w->p.factor[row + r]);
        if (sees(w, g, row + r))
            UNROLL for (int v = 0; v < vecs; v++) v_store_n(
                acc + v * LANES, v_fma(v_load_n(acc + v * LANES, left - v * LANES), factor, sum[r * vecs + v]),
                left - v * LANES);
    }
}

TILE void sum_rows(const work *w, const group *g, int d, int row, const int rows, const int vecs) {
    if (g->value_type == KV_F32)
        sum_tile(KV_F32, w, g, d, row, rows, vecs);
    else if (g->value_type == KV_F16)
        sum_tile(KV_F16, w, g, d, row, rows, vecs);
    else if (g->value_type == KV_Q8_0)
        sum_tile(KV_Q8_0, w, g, d, row, rows, vecs);
    else
        sum_tile(KV_Q4_0, w, g, d, row, rows, vecs);
}

/* ---- tiles ---- */

/* One kind of tile: its rows, the registers of positions or values that it takes at once, and its work. */
typedef void tile_fn(const work *w, const group *g, int at, int row);
typedef struct tile {
    int      rows, vecs;
    tile_fn *score, *sum, *sum_one; /* sum_one: a single register of values, or what is left of one */
} tile;

#define TILE_OF(ROWS, VECS)                                                                                            \
    static void score_##ROWS(const work *w, const group *g, int at, int row) {                                         \
        score_rows(w, g, at, row, ROWS, VECS);                                                                         \
    }                                                                                                                  \
    static void sum_##ROWS(const work *w, const group *g, int d, int row) {                                            \
        sum_rows(w, g, d, row, ROWS, VECS);                                                                            \
    }                                                                                                                  \
    static void sum_one_##ROWS(const work *w, const group *g, int d, int row) {                                        \
        sum_rows(w, g, d, row, ROWS, 1);                                                                               \
    }
#define TILE_ROW(ROWS, VECS)                                                                                           \
    { ROWS, VECS, score_##ROWS, sum_##ROWS, sum_one_##ROWS }

#if ROW_TILE == 8
TILE_OF(8, NARROW)
#endif
TILE_OF(4, NARROW)
TILE_OF(2, WIDE)
TILE_OF(1, WIDE)

static const tile tiles[] = {
#if ROW_TILE == 8
    TILE_ROW(8, NARROW),
#endif
    TILE_ROW(4, NARROW), TILE_ROW(2, WIDE), TILE_ROW(1, WIDE)};

/* Rows are the inner loop: the keys or values that a tile reads stay in the first-level cache for all of them. */
static void score_run(const work *w, const group *g, const tile *t, int begin, int end) {
    for (int at = 0; at < g->blocks * BLOCK_VECS; at += t->vecs)
        for (int row = begin; row < end; row += t->rows)
            if (seen_by(w, g, row, t->rows) > at * LANES)
                t->score(w, g, at, row);
}

static void sum_run(const work *w, const group *g, const tile *t, int begin, int end) {
    int d = 0;
    for (; d + t->vecs * LANES <= w->dim; d += t->vecs * LANES)
        for (int row = begin; row < end; row += t->rows)
            if (seen_by(w, g, row, t->rows) > 0)
                t->sum(w, g, d, row);
    for (; d < w->dim; d += LANES)
        for (int row = begin; row < end; row += t->rows)
            if (seen_by(w, g, row, t->rows) > 0)
                t->sum_one(w, g, d, row);
}

typedef void run_fn(const work *w, const group *g, const tile *t, int begin, int end);

/* All rows in runs of the widest tile that fits. */
static void each_run(const work *w, const group *g, run_fn *run) {
    const tile *t = tiles;
    for (int row = 0, end; row < w->s->rows; row = end) {
        while (w->s->rows - row < t->rows)
            t++;
        end = w->s->rows - (w->s->rows - row) % t->rows;
        run(w, g, t, row, end);
    }
}

/* ---- groups ---- */

/* [dim][16] halves of each block as floats. */
static void unpack_keys(const work *w, group *g) {
    const size_t n = (size_t)w->dim * KV_TOKENS;
    for (int b = 0; b < g->blocks; b++) {
        float *out = w->p.keys + (size_t)b * n;
        for (size_t i = 0; i < n; i += LANES)
            v_store(out + i, v_load_f16(g->keys[b] + 2 * i));
        g->keys[b] = (const uint8_t *)out;
    }
    g->key_type = KV_F32;
}

static void unpack_value(const work *w, const group *g, const uint8_t *row, int t, float *out) {
    int d = 0;
    for (; d + LANES <= w->dim; d += LANES)
        v_store(out + d, g->value_type == KV_F16    ? value_piece(KV_F16, g, row, (size_t)d, t, LANES)
                         : g->value_type == KV_Q8_0 ? value_piece(KV_Q8_0, g, row, (size_t)d, t, LANES)
                                                    : value_piece(KV_Q4_0, g, row, (size_t)d, t, LANES));
    for (; d < w->dim; d++) { /* only of F16: the others have multiples of 32 */
        uint16_t half;
        memcpy(&half, row + 2 * d, sizeof half);
        out[d] = f16_to_f32(half);
    }
}

/* The seen positions as rows of floats: what is not seen may not even have been written. */
static void unpack_values(const work *w, group *g) {
    for (int b = 0, t = 0; b < g->blocks; b++) {
        const uint8_t *row = g->values[b];
        for (int end = least(t + KV_TOKENS, g->seen); t < end; t++, row += g->value_row)
            unpack_value(w, g, row, t, w->p.values + (size_t)t * w->p.ld);
        g->values[b] = (const uint8_t *)(w->p.values + (size_t)b * KV_TOKENS * w->p.ld);
    }
    g->value_type = KV_F32;
    g->value_row = w->p.ld * sizeof(float);
}

/* The scales of the values as floats, and the values themselves begin behind them. They lie in the scratch of the keys,
 * which quantised keys do not use. */
static void unpack_scales(const work *w, group *g) {
    const int groups = w->dim / KV_GROUP;
    for (int b = 0; b < g->blocks; b++) {
        for (int i = 0; i < groups; i++)
            for (int v = 0; v < KV_TOKENS; v += LANES)
                v_store(w->p.keys + i * ATTEND_GROUP + b * KV_TOKENS + v,
                        v_load_f16(g->values[b] + i * KV_SCALES + 2 * v));
        g->values[b] += kv_numbers_at(w->dim);
    }
    g->value_scale = w->p.keys;
}

static size_t half_bytes_of(kv_type type) {
    return type == KV_F32 ? 8 : type == KV_F16 ? 4 : type == KV_Q8_0 ? 2 : 1;
}

static void group_at(const work *w, int start, group *g) {
    const attend_span *s = w->s;
    g->start = start;
    g->seen = least(w->end - start, ATTEND_GROUP);
    g->blocks = (g->seen + KV_TOKENS - 1) / KV_TOKENS;
    g->key_type = g->value_type = s->layout->type;
    g->half_bytes = half_bytes_of(s->layout->type);
    g->value_row = (size_t)w->dim * g->half_bytes / 2;
    for (int b = 0; b < g->blocks; b++) {
        size_t block = (size_t)s->table[start / KV_TOKENS + b];
        g->keys[b] = (const uint8_t *)s->blocks + block * s->block_bytes;
        g->values[b] = g->keys[b] + s->values_at;
    }
    if (w->quantised)
        unpack_scales(w, g);
    if (w->unpack_keys)
        unpack_keys(w, g);
    for (int b = g->blocks; b < GROUP_BLOCKS; b++) {
        g->keys[b] = g->keys[g->blocks - 1];
        g->values[b] = g->values[g->blocks - 1];
    }
    for (int b = 0; b < GROUP_BLOCKS; b++) {
        int at = start + ATTEND_GROUP + b * KV_TOKENS;
        g->next[b] =
            at < w->end ? (const uint8_t *)s->blocks + (size_t)s->table[at / KV_TOKENS] * s->block_bytes : g->keys[b];
    }
}

/* Many tiles of rows would unpack the same keys and values again and again: then it is done once, into scratch. */
static void attend(const attend_span *s) {
    const kv_type type = s->layout->type;
    const int     dim = s->layout->dim;
    const bool    many = s->rows > 2 * ROW_TILE;
    work          w = {.s = s, .dim = dim, .quantised = type == KV_Q8_0 || type == KV_Q4_0};
    w.unpack_keys = type == KV_F16 && many;
    w.unpack_values = type != KV_F32 && (many || dim % LANES);
    attend_divide(s->scratch, s->rows, dim, &w.p);
    for (int r = 0; r < s->rows; r++)
        w.end = s->limit[r] > w.end ? s->limit[r] : w.end;
    w.end = least(w.end, s->to);
    if (w.quantised)
        attend_round(s->q, s->rows * dim, w.p.q, w.p.q_scale, w.p.q_sum);
    for (int start = s->from; start < w.end; start += ATTEND_GROUP) {
        group g;
        group_at(&w, start, &g);
        each_run(&w, &g, score_run);
        peaks(&w, &g);
        weights(&w, &g);
        if (w.unpack_values)
            unpack_values(&w, &g);
        each_run(&w, &g, sum_run);
    }
}

#endif
