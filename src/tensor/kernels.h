/* kernels.h - the table of functions that depend on the instruction set.
 *
 * Chosen once, at start. x86-64, by CPUID: avx512 (F, BW, VL, DQ, VNNI) or avx2 (with FMA and F16C). aarch64, by HWCAP:
 * dotprod (NEON with SDOT) or neon. Else scalar. PARE_ISA= one of these names in the environment forces a lesser one. The
 * scalar table is the reference for the others.
 * All counts are in values; pointers need no alignment unless said.                                                  */
#ifndef PARE_TENSOR_KERNELS_H
#define PARE_TENSOR_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/attend.h"
#include "tensor/block.h"
#include "tensor/columns.h"

/* y[c * ldy + r] for all columns c of x and the 16 rows of a panel (32 of two panels). */
typedef void (*panel_fn)(const uint8_t *panel, const columns *x, float *y, int ldy);

#define BLOCK_TYPES 40 /* GGUF's numbers are below */

/* silu(x) = x / (1 + e^-x); gelu(x) = x Phi(x) (arXiv:1606.08415), by erf or by the tanh approximation that many models
 * are trained with. */
typedef enum activation { ACT_SILU, ACT_GELU_TANH, ACT_GELU_ERF, ACT_RELU_SQUARED, ACTIVATIONS } activation;
typedef void (*activate_fn)(float *x, const float *up, int n); /* x = act(x) * up; up may be NULL: x = act(x) */

typedef struct kernels {
    const char *name;

    panel_fn panel[BLOCK_TYPES]; /* by block_type; NULL: not a type of panels */
    /* The same for two panels that lie one after the other, and many columns: opened to bytes once, they meet all of
     * them. The outputs have the same bits. NULL where nothing is gained by it. */
    panel_fn wide[BLOCK_TYPES];
    bool     rounds_bf16; /* panel[BLOCK_BF16] takes columns.rounded */

    /* n, a multiple of 32, values of a column; halves: the sums of 16 q, two a group. */
    void (*quantize_q8)(const float *x, int8_t *q, float *scales, float *shares, int32_t *halves, int n);

    /* Norms and element-wise work. */
    void (*rms_norm)(const float *x, const float *weight, float eps, float *out, int n); /* weight may be NULL */
    void (*layer_norm)(const float *x, const float *weight, const float *bias, float eps, float *out, int n);
    void (*add)(float *x, const float *y, int n);
    activate_fn activate[ACTIVATIONS];
    void (*cap)(float *x, float cap, int n); /* x = cap tanh(x / cap) */
    void (*softmax)(float *x, int n);
    int (*argmax)(const float *x, int n); /* the first of equals */

    attend_fn attend; /* attend.h */
} kernels;

const kernels *kernels_get(void);               /* the chosen one */
const kernels *kernels_named(const char *name); /* for tests; NULL when this CPU lacks it */

/* The tables themselves; use the two functions above. */
extern const kernels kernels_scalar, kernels_avx2, kernels_avx512, kernels_avx512bf16, kernels_neon, kernels_dotprod;

#endif
