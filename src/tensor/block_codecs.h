/* block_codecs.h - the conversions that the table in block.c gathers, and what they share. `n` is a multiple of the
 * format's block. GGUF is little-endian, and so are the machines pare runs on: multi-byte fields are copied as they lie.
 *
 * Products and sums that must round alike everywhere are statements of their own, so that no compiler fuses them. */
#ifndef PARE_TENSOR_BLOCK_CODECS_H
#define PARE_TENSOR_BLOCK_CODECS_H

#include <stdint.h>
#include <string.h>

#include "tensor/block.h"

enum {
    BLOCK_VALUES = 32, /* of Q4_0 to Q8_0, IQ4_NL and MXFP4 */
    Q4_0_BYTES = 18,
    Q4_1_BYTES = 20,
    Q5_0_BYTES = 22,
    Q5_1_BYTES = 24,
    Q8_0_BYTES = 34,
    IQ4_NL_BYTES = 18,
    MXFP4_BYTES = 17,
    SUPER_VALUES = 256, /* of the K-quants and IQ4_XS */
    IQ4_XS_BYTES = 136,
    Q2_K_BYTES = 84,
    Q3_K_BYTES = 110,
    Q4_K_BYTES = 144,
    Q5_K_BYTES = 176,
    Q6_K_BYTES = 210
};

#define HALF_LARGEST 0x7bff /* 65504 */

void q4_0_out(const uint8_t *in, float *out, int64_t n);
void q4_0_in(const float *in, uint8_t *out, int64_t n);
void q4_1_out(const uint8_t *in, float *out, int64_t n);
void q4_1_in(const float *in, uint8_t *out, int64_t n);
void q5_0_out(const uint8_t *in, float *out, int64_t n);
void q5_0_in(const float *in, uint8_t *out, int64_t n);
void q5_1_out(const uint8_t *in, float *out, int64_t n);
void q5_1_in(const float *in, uint8_t *out, int64_t n);
void q8_0_out(const uint8_t *in, float *out, int64_t n);
void q8_0_in(const float *in, uint8_t *out, int64_t n);
void iq4_nl_out(const uint8_t *in, float *out, int64_t n);
void iq4_nl_in(const float *in, uint8_t *out, int64_t n);
void iq4_xs_out(const uint8_t *in, float *out, int64_t n);
void iq4_xs_in(const float *in, uint8_t *out, int64_t n);
void mxfp4_out(const uint8_t *in, float *out, int64_t n);
void mxfp4_in(const float *in, uint8_t *out, int64_t n);

void q2_k_out(const uint8_t *in, float *out, int64_t n);
void q2_k_in(const float *in, uint8_t *out, int64_t n);
void q3_k_out(const uint8_t *in, float *out, int64_t n);
void q3_k_in(const float *in, uint8_t *out, int64_t n);
void q4_k_out(const uint8_t *in, float *out, int64_t n);
void q4_k_in(const float *in, uint8_t *out, int64_t n);
void q5_k_out(const uint8_t *in, float *out, int64_t n);
void q5_k_in(const float *in, uint8_t *out, int64_t n);
void q6_k_out(const uint8_t *in, float *out, int64_t n);
void q6_k_in(const float *in, uint8_t *out, int64_t n);

static inline uint16_t load_u16(const uint8_t *p) {
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static inline void store_u16(uint8_t *p, uint16_t u) {
    memcpy(p, &u, sizeof u);
}

#endif
