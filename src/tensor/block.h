/* block.h - the block formats of GGUF tensors: sizes, and conversion to and from float32.
 *
 * A row of a quantised tensor is a run of blocks; each block holds `values` consecutive values in `bytes` bytes.
 * Conversions here are the plain reference that every fast path is tested against.                                   */
#ifndef PARE_TENSOR_BLOCK_H
#define PARE_TENSOR_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numbers are GGUF's. */
typedef enum block_type {
    BLOCK_F32 = 0,
    BLOCK_F16 = 1,
    BLOCK_Q4_0 = 2,
    BLOCK_Q4_1 = 3,
    BLOCK_Q5_0 = 6,
    BLOCK_Q5_1 = 7,
    BLOCK_Q8_0 = 8,
    BLOCK_Q2_K = 10,
    BLOCK_Q3_K = 11,
    BLOCK_Q4_K = 12,
    BLOCK_Q5_K = 13,
    BLOCK_Q6_K = 14,
    BLOCK_IQ4_NL = 20,
    BLOCK_IQ4_XS = 23,
    BLOCK_BF16 = 30,
    BLOCK_MXFP4 = 39
} block_type;

typedef struct block_format {
    block_type  type;
    const char *name; /* "q4_0" */
    int         values;
    int         bytes;
} block_format;

const block_format *block_format_of(int gguf_type);       /* NULL when pare does not know it */
const block_format *block_format_named(const char *name); /* "Q4_0" and "q4_0" */

/* Bytes of a row of n values; false when n is not a multiple of the block or the product overflows. */
bool block_row_bytes(const block_format *f, int64_t n, size_t *bytes);

/* n must be a multiple of the format's values. From float32, whatever it holds, come blocks that stand for finite values:
 * NaN counts as 0, and what is too large saturates. F32, F16 and BF16 hold each value by itself and differ in that NaN
 * and infinities stay what they are. Formats of one plain rounding (F16, BF16, Q4_0 to Q8_0) give the reference's blocks
 * for all values of reasonable size; the others search for a small sum of squared errors. A block does not depend on the
 * blocks beside it, so rows and pieces of rows can be converted by several threads. */
void block_to_f32(block_type type, const void *blocks, float *out, int64_t n);
void block_from_f32(block_type type, const float *in, void *blocks, int64_t n);

float    f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest even */

#endif
