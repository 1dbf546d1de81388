/* panel.h - how weights lie in a panel of 16 rows: written by matrix.c, read by the kernels.
 *
 * F32, F16, BF16: for each input k one line of 16 values, one a row.
 *
 * Q4_0: for each 32 inputs 16 f16 scales, then 4 lines of 64 bytes. Byte 4r + t of line j holds, of row r, the value of
 * input 8j + t in its low nibble and of input 8j + 4 + t in its high nibble, both plus 8.
 *
 * Q8_0: for each 32 inputs 16 f16 scales, then 8 lines of 64 bytes. Byte 4r + t of line j holds, of row r, the value of
 * input 4j + t plus 128.
 *
 * So a 512-bit line meets four activation bytes, repeated 16 times, in one dot product of unsigned by signed bytes
 * (VNNI), and each 32-bit lane adds up one row. The offsets 8 and 128 come off once a block, through the sum of its
 * activations. The layout follows the interleaved formats of ik_llama.cpp (its _R8 types), widened to 16 rows.
 *
 * The order of the float operations of one output is the same in every kernel, for every number of columns:
 *   int8: y = 0; for each block: y = fma((float)integer_sum, weight_scale * activation_scale, y)
 *   float: y = 0; for each SUM_SPAN inputs: s = 0; for each input: s = fma(w, x, s); then y = y + s
 * (kernels_scalar.c multiplies and adds in two steps where it sums floats.)                                          */
#ifndef PARE_TENSOR_PANEL_H
#define PARE_TENSOR_PANEL_H

#define BLOCK_INPUTS 32
#define SCALE_BYTES  32 /* 16 f16 */
#define LINE_BYTES   64
#define Q4_0_LINES   4
#define Q8_0_LINES   8
#define Q4_0_OFFSET  8
#define Q8_0_OFFSET  128
#define Q4_0_BLOCK   (SCALE_BYTES + Q4_0_LINES * LINE_BYTES)
#define Q8_0_BLOCK   (SCALE_BYTES + Q8_0_LINES * LINE_BYTES)

/* Short spans keep the rounding error of long sums small and let a kernel with few columns work on several at once. */
#define SUM_SPAN 64

/* Activations of a group whose largest is below this count as zero: 127 / peak must stay finite. */
#define Q8_TINY 1e-30f

#endif
