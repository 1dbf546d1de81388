/* kernels.h - the table of functions that depend on the instruction set.
 *
 * Chosen once, at start, by CPUID: avx512 (F, BW, VL, DQ, VNNI), avx2 (with FMA and F16C) or scalar. PARE_ISA=scalar|
 * avx2|avx512 in the environment forces a lesser one. The scalar table is the reference for the other two.
 * All counts are in values; pointers need no alignment unless said.                                                  */
#ifndef PARE_TENSOR_KERNELS_H
#define PARE_TENSOR_KERNELS_H

#include <stdint.h>

#include "tensor/block.h"

typedef enum kv_type { KV_F16, KV_F32 } kv_type;

typedef struct kernels {
    const char *name;

    /* Matrix products of one panel of 16 rows with n columns, see matrix.c for the layouts. */
    void (*panel_f32)(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy);
    void (*panel_f16)(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy);
    void (*panel_bf16)(const uint8_t *panel, int cols, const float *x, int n, float *y, int ldy);
    /* xq [n][cols] int8, xs [n][cols/32] scales, xsum [n][cols/32] sums of 32 int8 (for the offset of unsigned weights) */
    void (*panel_q8_0)(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy);
    void (*panel_q4_0)(const uint8_t *panel, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                       float *y, int ldy);
    /* The same for two panels that lie one after the other and many columns: two registers of weights share each
     * activation. NULL where an instruction set gains nothing by it. The outputs have the same bits. */
    void (*pair_q8_0)(const uint8_t *panels, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                      float *y, int ldy);
    void (*pair_q4_0)(const uint8_t *panels, int cols, const int8_t *xq, const float *xs, const int32_t *xsum, int n,
                      float *y, int ldy);
    void (*quantize_q8)(const float *x, int8_t *q, float *scales, int32_t *sums, int n); /* groups of 32 */

    /* Norms and element-wise work. */
    void (*rms_norm)(const float *x, const float *weight, float eps, float *out, int n); /* weight may be NULL */
    void (*add)(float *x, const float *y, int n);
    void (*silu_mul)(float *gate, const float *up, int n); /* gate = silu(gate) * up */
    void (*softmax)(float *x, int n);
    int (*argmax)(const float *x, int n); /* the first of equals */

    /* Attention of `heads` query heads that share one K/V head, over the positions [0, length) of one sequence.
     * q [heads][dim]; k and v point at position 0 of this K/V head, `stride` values apart per position; scores is
     * scratch of heads * length; out [heads][dim]. Each sequence is computed alone, in a fixed order. */
    void (*attend)(kv_type type, const float *q, int heads, int dim, const void *k, const void *v, int64_t stride,
                   int length, float scale, float *scores, float *out);
    void (*to_f16)(const float *x, uint16_t *out, int n);
} kernels;

const kernels *kernels_get(void);               /* the chosen one */
const kernels *kernels_named(const char *name); /* for tests; NULL when this CPU lacks it */

/* The tables themselves; use the two functions above. */
extern const kernels kernels_scalar, kernels_avx2, kernels_avx512;

#endif
