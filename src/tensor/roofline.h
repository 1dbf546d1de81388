/* roofline.h - what this machine can do at most: the two roofs that every measurement is held against.
 *
 * Read bandwidth bounds a step with few tokens, arithmetic one with many (Williams, Waterman, Patterson: Roofline,
 * CACM 52(4), 2009). Measured with the instructions of the kernels in use, over the threads of the pool, in about half
 * a second; the best of several short passes counts, because a neighbour can only take away.                         */
#ifndef PARE_TENSOR_ROOFLINE_H
#define PARE_TENSOR_ROOFLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tensor/pool.h"

typedef struct roofline {
    double      read_bytes_s; /* one long read by all threads, beyond any cache */
    double      int8_ops_s;   /* multiply and add count as two, here and below */
    double      bf16_flops_s; /* 0: the CPU has no bf16 dot product, or the kernels in use do not take it */
    double      f32_flops_s;
    int         threads;
    const char *isa; /* the kernels' name */
} roofline;

/* Takes up to 512 MiB for the time it runs. Nothing else may use the pool meanwhile. */
bool roofline_measure(pool *p, roofline *out, err *e);

/* ---- for roofline.c and its test ---- */

#define ROOFLINE_READ_BYTES 4096      /* reads are multiples of it */
#define ROOFLINE_ROUNDS     (1 << 14) /* most rounds of one call: the accumulators count exactly so far */

/* The chains multiply ones and return the sum of their accumulators, which is the number of multiply-adds done: the
 * arithmetic counts itself. */
typedef struct roofline_kernels {
    const char *name;
    uint64_t (*read)(const void *from, size_t bytes); /* sum of the 64-bit words; `from` is on 64 */
    double (*int8)(int rounds);
    double (*bf16)(int rounds); /* NULL: none */
    double (*f32)(int rounds);
} roofline_kernels;

/* By the kernels' name; NULL when this CPU lacks it. */
const roofline_kernels *roofline_kernels_named(const char *name);
bool                    roofline_has_bf16(const roofline_kernels *k); /* and this CPU can run it */

extern const roofline_kernels roofline_scalar, roofline_avx2, roofline_avx512, roofline_neon, roofline_dotprod;

#endif
