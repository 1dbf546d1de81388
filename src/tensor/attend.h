/* attend.h - attention of many query rows over a run of positions of one K/V head, block by block.
 *
 * Each row keeps a running peak, sum and weighted sum of values (online softmax: FlashAttention, arXiv:2205.14135), so a
 * history may be taken in several spans, and rows of many sequences may share the span that they have in common. The
 * positions pass in groups of ATTEND_GROUP, counted from position 0 of the history. What happens to a row depends only
 * on its own query, its limit and the positions: its bits are the same alone and among others, in one span or in
 * several, as long as spans meet at multiples of ATTEND_GROUP.
 *
 * For each group: s[t] = q . k[t] for the positions that the row sees, with a cap s = cap tanh(s / cap);
 * new_peak = max(peak, max s); factor = exp(peak - new_peak); p[t] = exp(s[t] - new_peak); sum = sum * factor + sum of p;
 * acc = acc * factor + sum of p[t] v[t] in the order of t. A row that sees nothing of the group is left as it was.    */
#ifndef PARE_TENSOR_ATTEND_H
#define PARE_TENSOR_ATTEND_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/kvblock.h"

#define ATTEND_GROUP 64 /* positions; KV_TOKENS divides it */

typedef struct attend_span {
    const kv_layout *layout;
    const char      *blocks;      /* where block number 0 of this layer and head has its keys */
    size_t           block_bytes; /* from one block number to the next */
    size_t           values_at;   /* from a block's keys to its values */
    const int32_t   *table;       /* table[i]: number of the block with positions [i * KV_TOKENS, (i+1) * KV_TOKENS) */
    int from, to; /* positions; `from` is a multiple of ATTEND_GROUP, `to` at least every limit that counts */

    int          rows;
    const float *q;     /* [rows][dim], already times the model's scale */
    const int   *limit; /* [rows] a row sees the positions [low, limit), in this span those below `to` */
    const int   *low;   /* [rows]; NULL: all 0 */
    float        cap;   /* of the scores (gemma2's soft cap); 0: none */

    float *peak, *sum; /* [rows]; at first -INFINITY and 0 */
    float *acc;        /* [rows][dim]; at first 0. acc / sum is the answer when the last span is through */
    void  *scratch;    /* attend_scratch(rows, dim) bytes, 64-byte aligned */
} attend_span;

size_t attend_scratch(int rows, int dim);

typedef void (*attend_fn)(const attend_span *s);

/* One an instruction set; kernels.h has the table. */
void attend_scalar(const attend_span *s);
void attend_avx2(const attend_span *s);
void attend_avx512(const attend_span *s);
void attend_neon(const attend_span *s);
void attend_dotprod(const attend_span *s);

#endif
