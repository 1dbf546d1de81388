/* attend_scalar.c - attention in plain C: the reference for the other instruction sets, and the fallback. A group's keys
 * and values become floats first, whatever their type.                                                                */
#include <math.h>
#include <string.h>

#include "tensor/attend_parts.h"

#define PIECE 16 /* values of a row that are summed at a time */

/* Quantised keys meet queries that are rounded too; here each is turned back into the float that it stands for. */
static void round_queries(const attend_span *s, attend_parts *p) {
    int8_t  q[KV_GROUP];
    float   scale;
    int32_t sum;
    for (size_t r = 0; r < (size_t)s->rows; r++)
        for (int d = 0; d < s->layout->dim; d += KV_GROUP) {
            attend_round(s->q + r * (size_t)s->layout->dim + d, KV_GROUP, q, &scale, &sum);
            for (int i = 0; i < KV_GROUP; i++)
                p->queries[r * p->ld + (size_t)(d + i)] = (float)q[i] * scale;
        }
}

static void copy_queries(const attend_span *s, attend_parts *p) {
    size_t dim = (size_t)s->layout->dim;
    for (size_t r = 0; r < (size_t)s->rows; r++)
        memcpy(p->queries + r * p->ld, s->q + r * dim, dim * sizeof *s->q);
}

/* The positions start .. start + n as rows of floats. */
static void unpack(const attend_span *s, const attend_parts *p, int start, int n) {
    for (int t = 0; t < n; t++) {
        const char *block = s->blocks + (size_t)s->table[(start + t) / KV_TOKENS] * s->block_bytes;
        kv_get_key(s->layout, block, t % KV_TOKENS, p->keys + (size_t)t * p->ld);
        kv_get_value(s->layout, block + s->values_at, t % KV_TOKENS, p->values + (size_t)t * p->ld);
    }
}

/* One row and the positions [begin, n) of a group. */
static void attend_row(const attend_span *s, const attend_parts *p, int row, int begin, int n) {
    const size_t dim = (size_t)s->layout->dim;
    const float *q = p->queries + (size_t)row * p->ld;
    float       *acc = s->acc + (size_t)row * dim, weights[ATTEND_GROUP], peak = s->peak[row], sum = 0;
    for (int t = begin; t < n; t++) {
        weights[t] = 0;
        for (size_t d = 0; d < dim; d++)
            weights[t] += q[d] * p->keys[(size_t)t * p->ld + d];
        if (s->cap > 0)
            weights[t] = s->cap * tanhf(weights[t] / s->cap);
        peak = weights[t] > peak ? weights[t] : peak;
    }
    float factor = expf(s->peak[row] - peak);
    for (int t = begin; t < n; t++)
        sum += weights[t] = expf(weights[t] - peak);
    s->peak[row] = peak;
    s->sum[row] = s->sum[row] * factor + sum;
    for (size_t d = 0; d < dim; d += PIECE) {
        float  values[PIECE] = {0};
        size_t some = dim - d < PIECE ? dim - d : PIECE;
        for (int t = begin; t < n; t++)
            for (size_t i = 0; i < some; i++)
                values[i] += weights[t] * p->values[(size_t)t * p->ld + d + i];
        for (size_t i = 0; i < some; i++)
            acc[d + i] = acc[d + i] * factor + values[i];
    }
}

void attend_scalar(const attend_span *s) {
    attend_parts p;
    int          end = 0;
    attend_divide(s->scratch, s->rows, s->layout->dim, &p);
    for (int r = 0; r < s->rows; r++)
        end = s->limit[r] > end ? s->limit[r] : end;
    end = end < s->to ? end : s->to;
    if (s->layout->type == KV_Q8_0 || s->layout->type == KV_Q4_0)
        round_queries(s, &p);
    else
        copy_queries(s, &p);
    for (int start = s->from; start < end; start += ATTEND_GROUP) {
        int most = end - start < ATTEND_GROUP ? end - start : ATTEND_GROUP;
        unpack(s, &p, start, most);
        for (int r = 0; r < s->rows; r++) {
            int n = s->limit[r] - start < most ? s->limit[r] - start : most;
            int begin = s->low && s->low[r] > start ? s->low[r] - start : 0;
            if (n > begin)
                attend_row(s, &p, r, begin, n);
        }
    }
}
