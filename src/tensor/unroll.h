/* unroll.h - how tiles are written: inlined with constant sizes and unrolled in full, so that their accumulators are
 * registers. The attribute and the pragmas are extensions; without them the compilers keep the tiles in memory.       */
#ifndef PARE_TENSOR_UNROLL_H
#define PARE_TENSOR_UNROLL_H

#define TILE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define PREFETCH(p)     __builtin_prefetch((p), 0, 3)
#define PREFETCH_FAR(p) __builtin_prefetch((p), 0, 2) /* into the second-level cache */

#endif
