/* panel.h - how weights lie in a panel of 16 rows: written by pack.c, read by the kernels.
 *
 * F32, F16, BF16: for each input k one line of 16 values, one a row.
 *
 * The other formats come in stretches of 256 inputs (the last of a panel may be shorter, by whole blocks of 32): first a
 * head with what scales the stretch, then its lines of 64 bytes. Lines begin on 64 bytes where the inputs are a multiple of
 * 128. form_of() has a format as four answers:
 *
 *   bits     of a stored value, and so the lines of a block of 32 inputs:
 *              2, 8   lines of 2-bit values, of bytes
 *              4      lines of 4-bit values
 *              3, 5   lines of 2-bit (4-bit) values, then a line of bits, which are worth 4 (16)
 *              6      for each 16 inputs two lines of 4-bit values, then one of 2-bit values, which are worth 16
 *   offset   what was added to the weights. Where there are levels, values number them, and it is in them.
 *   parts    of a block that have a scale of their own: one, or two of 16 inputs
 *   scales   with, where weights are scale * value + low or scale * value - minimum, what is least:
 *              F16    16 f16 for each block; then, of LEAST_F16, as many f16 lows
 *              E8M0   16 bytes for each block: exponents (OCP Microscaling Formats 1.0, 2023), halved as the levels double
 *              U8     16 f16 d, 16 f16 d_min; for each block 16 uint8 scales; for each two blocks 16 pairs of uint8 minimums
 *              I8     16 f16 d, 32 bytes of nothing; for each part 16 int8 scales
 *              U4     16 f16 d, 16 f16 d_min; for each block 16 pairs, of its two parts, with the scale in the low nibble and
 *                     the minimum in the high one
 *            The last three are for K-quants, whose stretches are whole; integers are times d or d_min.
 *
 * Line of bytes:        byte 4r + t of line j: of row r the value of input 4j + t.
 * Line of 4-bit values: byte 4r + t of line j: of row r the values of input 8j + t (low nibble) and 8j + 4 + t (high).
 * Line of 2-bit values: byte 4r + t, bits 2k and 2k + 1: of row r the value of input 4k + t of the 16.
 * Line of bits:         byte 4r + t, bit k: of row r the value of input 4k + t of the 32.
 *
 * So a 512-bit line meets four activation bytes, repeated 16 times, in one dot product of unsigned by signed bytes
 * (VNNI), and each 32-bit lane adds up one row. What was added to the weights comes off through sums of activations,
 * which are made once for all rows (columns.h); wide_avx512.c has it the other way round. The layout follows the
 * interleaved formats of ik_llama.cpp (its _R8 types), widened to 16 rows.
 *
 * The order of the float operations of one output is the same in every kernel, for every number of columns:
 *   int8: y = 0; for each stretch: s = 0; for each part of each block:
 *         s = fma((float)integer_sum, weight_scale * activation_share, s); with lows then
 *         s = fma(low / 8, (float)(8 times the share times the sum of activations), s); and with minimums, at the end,
 *         s = fma(-d_min / 8, (float)(integer sum of minimums times activation sums), s);
 *         y = fma(s, activation_scale, y)
 *   float: y = 0; for each SUM_SPAN inputs: s = 0; for each input: s = fma(w, x, s); then y = y + s
 * (kernels_scalar.c multiplies and adds in two steps where it sums floats.)                                          */
#ifndef PARE_TENSOR_PANEL_H
#define PARE_TENSOR_PANEL_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/block.h"
#include "tensor/matrix.h"
#include "tensor/unroll.h"

#define STRETCH_INPUTS 256 /* Q8_STRETCH: activations of a stretch share a scale */
#define STRETCH_BLOCKS 8
#define BLOCK_INPUTS   32
#define HALF_INPUTS    16 /* of a block: a part, where it has two */
#define SCALE_BYTES    32 /* 16 f16 */
#define LINE_BYTES     64
#define K_SCALES       (2 * SCALE_BYTES)                        /* where the integer scales begin */
#define K_MINIMUMS     (K_SCALES + STRETCH_BLOCKS * PANEL_ROWS) /* and the minimums of SCALES_U8 */

/* What the values of formats with levels stand for. IQ4_NL and IQ4_XS: denser about zero, where weights are. MXFP4: twice
 * the numbers of E2M1. */
#define LEVELS_IQ4 -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define LEVELS_FP4 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

typedef struct panel_form {
    uint8_t bits, parts, offset;
    enum { SCALES_F16, SCALES_E8M0, SCALES_U8, SCALES_I8, SCALES_U4 } scales;
    enum { LEAST_NONE, LEAST_F16, LEAST_U8, LEAST_U4 } least;
    enum { NO_LEVELS, OF_IQ4, OF_FP4 } levels;
} panel_form;

/* Each product is compiled for one type and sees its form as constants. All zero for a type that has no such panels. */
TILE panel_form form_of(const block_type type) {
    switch ((int)type) {
    case BLOCK_Q4_0:
        return (panel_form){4, 1, 8, SCALES_F16, LEAST_NONE, NO_LEVELS};
    case BLOCK_Q4_1:
        return (panel_form){4, 1, 0, SCALES_F16, LEAST_F16, NO_LEVELS};
    case BLOCK_Q5_0:
        return (panel_form){5, 1, 16, SCALES_F16, LEAST_NONE, NO_LEVELS};
    case BLOCK_Q5_1:
        return (panel_form){5, 1, 0, SCALES_F16, LEAST_F16, NO_LEVELS};
    case BLOCK_Q8_0:
        return (panel_form){8, 1, 128, SCALES_F16, LEAST_NONE, NO_LEVELS};
    case BLOCK_IQ4_NL:
        return (panel_form){4, 1, 128, SCALES_F16, LEAST_NONE, OF_IQ4};
    case BLOCK_MXFP4:
        return (panel_form){4, 1, 128, SCALES_E8M0, LEAST_NONE, OF_FP4};
    case BLOCK_Q2_K:
        return (panel_form){2, 2, 0, SCALES_U4, LEAST_U4, NO_LEVELS};
    case BLOCK_Q3_K:
        return (panel_form){3, 2, 4, SCALES_I8, LEAST_NONE, NO_LEVELS};
    case BLOCK_Q4_K:
        return (panel_form){4, 1, 0, SCALES_U8, LEAST_U8, NO_LEVELS};
    case BLOCK_Q5_K:
        return (panel_form){5, 1, 0, SCALES_U8, LEAST_U8, NO_LEVELS};
    case BLOCK_Q6_K:
        return (panel_form){6, 2, 32, SCALES_I8, LEAST_NONE, NO_LEVELS};
    case BLOCK_IQ4_XS:
        return (panel_form){4, 1, 128, SCALES_I8, LEAST_NONE, OF_IQ4};
    default:
        return (panel_form){0};
    }
}

/* Bytes of the head of a stretch of `blocks`. */
TILE size_t head_bytes(const panel_form f, size_t blocks) {
    switch (f.scales) {
    case SCALES_F16:
        return blocks * SCALE_BYTES * (f.least == LEAST_F16 ? 2 : 1);
    case SCALES_E8M0:
        return blocks * PANEL_ROWS;
    case SCALES_I8:
        return K_SCALES + (size_t)f.parts * STRETCH_BLOCKS * PANEL_ROWS;
    default:
        return K_SCALES + (size_t)2 * STRETCH_BLOCKS * PANEL_ROWS;
    }
}

TILE size_t stretch_bytes(const panel_form f, size_t blocks) {
    return head_bytes(f, blocks) + blocks * f.bits * LINE_BYTES;
}

/* The lines of block b in a stretch of `blocks`. */
TILE const uint8_t *block_lines(const panel_form f, const uint8_t *stretch, size_t blocks, size_t b) {
    return stretch + head_bytes(f, blocks) + b * f.bits * LINE_BYTES;
}

/* Short spans keep the rounding error of long sums small and let a kernel with few columns work on several at once. */
#define SUM_SPAN 64

/* Activations of a stretch whose largest is below this count as zero: 127 / peak must stay finite. */
#define Q8_TINY 1e-30f

#endif
