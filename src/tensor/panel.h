/* panel.h - how weights lie in a panel of 16 rows: written by pack.c, read by the kernels.
 *
 * F32, F16, BF16: for each input k one line of 16 values, one a row.
 *
 * The other formats come in stretches of 256 inputs (the last of a panel may be shorter, by whole blocks): first what
 * scales the stretch, then its lines of 64 bytes. Lines begin on 64 bytes where the inputs are a multiple of 64.
 *
 *   Q4_0  for each 32 inputs 16 f16 scales; then lines of 4-bit values plus 8, four for each 32 inputs
 *   Q8_0  the same scales; then lines of bytes, plus 128, eight for each 32 inputs
 *   Q4_K  16 f16 scales, 16 f16 minimum scales; for each 32 inputs 16 uint8 scales; for each 64 inputs 16 pairs of uint8
 *         minimums, of the first 32 and of the next; then lines of 4-bit values
 *   Q6_K  16 f16 scales, 32 bytes of nothing; for each 16 inputs 16 int8 scales; then for each 16 inputs two lines with
 *         the low four bits and one with the high two bits of the values, which are plus 32
 *
 * Line of bytes:        byte 4r + t of line j: of row r the value of input 4j + t.
 * Line of 4-bit values: byte 4r + t of line j: of row r the values of input 8j + t (low nibble) and 8j + 4 + t (high).
 * Line of 2-bit values: byte 4r + t, bits 2k and 2k + 1: of row r the value of input 4k + t of the 16.
 *
 * So a 512-bit line meets four activation bytes, repeated 16 times, in one dot product of unsigned by signed bytes
 * (VNNI), and each 32-bit lane adds up one row. What was added to the weights comes off through sums of activations,
 * which are made once for all rows (columns.h); wide_avx512.c has it the other way round. The layout follows the
 * interleaved formats of ik_llama.cpp (its _R8 types), widened to 16 rows.
 *
 * The order of the float operations of one output is the same in every kernel, for every number of columns:
 *   int8: y = 0; for each stretch: s = 0; for each block (32 inputs; 16 of Q6_K):
 *         s = fma((float)integer_sum, weight_scale * activation_share, s); for Q4_K then
 *         s = fma(-weight_minimum_scale / 8, (float)(integer sum of minimums times activation sums), s);
 *         y = fma(s, activation_scale, y)
 *   float: y = 0; for each SUM_SPAN inputs: s = 0; for each input: s = fma(w, x, s); then y = y + s
 * (kernels_scalar.c multiplies and adds in two steps where it sums floats.)                                          */
#ifndef PARE_TENSOR_PANEL_H
#define PARE_TENSOR_PANEL_H

#define STRETCH_INPUTS 256 /* Q8_STRETCH: activations of a stretch share a scale */
#define BLOCK_INPUTS   32
#define SCALE_BYTES    32 /* 16 f16 */
#define LINE_BYTES     64
#define Q4_0_OFFSET    8
#define Q8_0_OFFSET    128
#define Q6_K_OFFSET    32
#define Q6_K_INPUTS    16 /* of a scale */
#define Q4_0_LINES     4  /* of 32 inputs */
#define Q8_0_LINES     8
#define Q4_0_BLOCK     (SCALE_BYTES + Q4_0_LINES * LINE_BYTES)
#define Q8_0_BLOCK     (SCALE_BYTES + Q8_0_LINES * LINE_BYTES)
#define Q6_K_LINES     3 /* of 16 inputs */
#define Q4_K_HEAD      (2 * SCALE_BYTES + 2 * 8 * 16)
#define Q4_K_MINS      (2 * SCALE_BYTES + 8 * 16) /* where the minimums begin */
#define Q4_K_STRETCH   (Q4_K_HEAD + 8 * Q4_0_LINES * LINE_BYTES)
#define Q6_K_HEAD      (2 * SCALE_BYTES + 16 * 16)
#define Q6_K_STRETCH   (Q6_K_HEAD + 16 * Q6_K_LINES * LINE_BYTES)

/* Short spans keep the rounding error of long sums small and let a kernel with few columns work on several at once. */
#define SUM_SPAN 64

/* Activations of a stretch whose largest is below this count as zero: 127 / peak must stay finite. */
#define Q8_TINY 1e-30f

#endif
