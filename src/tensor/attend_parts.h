/* attend_parts.h - what the instruction sets share: how the scratch memory is divided, and how queries are rounded. */
#ifndef PARE_TENSOR_ATTEND_PARTS_H
#define PARE_TENSOR_ATTEND_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/attend.h"

#define GROUP_BLOCKS (ATTEND_GROUP / KV_TOKENS)

/* Every part begins on 64 bytes. */
typedef struct attend_parts {
    size_t   ld;      /* floats from one row to the next: dim, rounded up to 16 */
    float   *scores;  /* [rows][ATTEND_GROUP], later the weights p */
    float   *factor;  /* [rows, rounded up to 16] */
    float   *keys;    /* one group's, ATTEND_GROUP * ld */
    float   *values;  /* the same */
    float   *queries; /* [rows][ld], for a scalar kernel; the int8 ones below lie in the same memory */
    int8_t  *q;       /* [rows][dim] */
    float   *q_scale; /* [rows][dim / 32] */
    int32_t *q_sum;   /* [rows][dim / 32] */
} attend_parts;

/* Returns the bytes; memory may be NULL when only they are wanted. */
size_t attend_divide(void *memory, int rows, int dim, attend_parts *out);

/* n values, a multiple of 32: each 32 become int8, a scale (their largest magnitude / 127) and the sum of the int8, which
 * takes off the offset of unsigned keys. A group that is not finite gets zeros and the scale NaN. */
void attend_round(const float *x, int n, int8_t *q, float *scales, int32_t *sums);

#endif
