/* kvblock.h - how the keys and values of KV_TOKENS consecutive positions of one K/V head lie in memory.
 *
 * Keys lie as in a panel (panel.h): the positions are its 16 rows, the values of the head its inputs, so that a score is
 * one lane of a vector. F16 and F32: for each value d one line of 16 positions. Q8_0 and Q4_0: for each 32 values 16 f16
 * scales, one a position; from kv_numbers_at on, for each 32 values, the numbers. Q8_0: 8 lines of 64 bytes; byte 4r + t
 * of line j holds, of position r, value 4j + t plus 128. Q4_0: 4 lines; byte 4r + t of line j holds, of position r, value
 * 8j + t in its low and 8j + 4 + t in its high nibble, both plus 8.
 *
 * Values lie as rows, because their sum runs over positions: F16 and F32 [KV_TOKENS][dim]. Q8_0: the same scales, and from
 * kv_numbers_at on the int8 as [KV_TOKENS][dim]. Q4_0: the same scales, then [KV_TOKENS][dim / 2] bytes; byte 16g + i of a
 * row holds value 32g + i in its low and value 32g + 16 + i in its high nibble, both plus 8.
 *
 * A block's keys and values are each a multiple of 64 bytes and begin on 64. Positions may be put in any order and
 * again; nothing else may read the block meanwhile. F16 saturates at +-65504 and what is not a number becomes 0, so that
 * what is stored is finite.                                                                                           */
#ifndef PARE_TENSOR_KVBLOCK_H
#define PARE_TENSOR_KVBLOCK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define KV_TOKENS    16
#define KV_GROUP     32              /* values that share a scale, in Q8_0 and Q4_0 */
#define KV_SCALES    (KV_TOKENS * 2) /* bytes: of one group the f16 scales of all positions */
#define KV_LINE      (KV_TOKENS * 4) /* bytes: 4 or 8 values of a key, of all positions */
#define KV_Q8_LINES  8               /* of a group of keys */
#define KV_Q4_LINES  4
#define KV_Q8_OFFSET 128
#define KV_Q4_OFFSET 8
#define KV_TINY      1e-30f /* a group whose largest is below this counts as zero: 127 / it must stay finite */

typedef enum kv_type { KV_F16, KV_F32, KV_Q8_0, KV_Q4_0 } kv_type;

bool        kv_type_named(const char *name, kv_type *out); /* "f16", "Q8_0" */
const char *kv_type_name(kv_type type);                    /* "f16" */

typedef struct kv_layout {
    kv_type type;
    int     dim;                    /* values of a head */
    size_t  key_bytes, value_bytes; /* of a block */
} kv_layout;

/* Q8_0 and Q4_0 need a dim that is a multiple of 32; the sentence says so. dim 1..4096. */
bool kv_layout_of(kv_type type, int dim, kv_layout *out, err *e);

/* Bytes before the numbers of Q8_0 and Q4_0, in keys and in values: the scales, to the next multiple of 64. */
static inline size_t kv_numbers_at(int dim) {
    return ((size_t)dim / KV_GROUP + 1) / 2 * (2 * KV_SCALES);
}

/* place: 0 .. KV_TOKENS-1; x [dim]. */
void kv_put_key(const kv_layout *l, void *keys, int place, const float *x);
void kv_put_value(const kv_layout *l, void *values, int place, const float *x);
void kv_get_key(const kv_layout *l, const void *keys, int place, float *out);
void kv_get_value(const kv_layout *l, const void *values, int place, float *out);

#endif
