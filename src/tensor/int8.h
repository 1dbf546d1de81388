/* int8.h - the products of quantised panels, one set of functions an instruction set; kernels.h has the tables. */
#ifndef PARE_TENSOR_INT8_H
#define PARE_TENSOR_INT8_H

#include "tensor/kernels.h"
#include "tensor/panel.h"

/* Bytes of a stretch of `blocks` blocks of 32 inputs (panel.h); of K-quants, whose stretches are whole, 8. */
static inline size_t stretch_bytes(block_type type, size_t blocks) {
    return type == BLOCK_Q4_0   ? blocks * (size_t)Q4_0_BLOCK
           : type == BLOCK_Q8_0 ? blocks * (size_t)Q8_0_BLOCK
           : type == BLOCK_Q4_K ? (size_t)Q4_K_STRETCH
                                : (size_t)Q6_K_STRETCH;
}

/* The lines of block b (32 inputs) in a stretch of `blocks`; not of Q6_K, whose blocks have two parts. */
static inline const uint8_t *block_lines(block_type type, const uint8_t *stretch, size_t blocks, size_t b) {
    const size_t head = type == BLOCK_Q4_K ? (size_t)Q4_K_HEAD : blocks * SCALE_BYTES;
    return stretch + head + b * (type == BLOCK_Q8_0 ? Q8_0_LINES : Q4_0_LINES) * LINE_BYTES;
}

#define INT8_PANELS(isa)                                                                                               \
    void panel_q4_0_##isa(const uint8_t *panel, const columns *x, float *y, int ldy);                                  \
    void panel_q8_0_##isa(const uint8_t *panel, const columns *x, float *y, int ldy);                                  \
    void panel_q4_k_##isa(const uint8_t *panel, const columns *x, float *y, int ldy);                                  \
    void panel_q6_k_##isa(const uint8_t *panel, const columns *x, float *y, int ldy)

#define INT8_TABLE(isa)                                                                                                \
    [BLOCK_Q4_0] = panel_q4_0_##isa, [BLOCK_Q8_0] = panel_q8_0_##isa, [BLOCK_Q4_K] = panel_q4_k_##isa,                 \
    [BLOCK_Q6_K] = panel_q6_k_##isa

INT8_PANELS(avx2);
INT8_PANELS(avx512);
INT8_PANELS(neon);
INT8_PANELS(dotprod);

void panel_bf16_dot(const uint8_t *panel, const columns *x, float *y, int ldy);
void wide_bf16_dot(const uint8_t *panels, const columns *x, float *y, int ldy);

void wide_q4_0_avx512(const uint8_t *panels, const columns *x, float *y, int ldy);
void wide_q8_0_avx512(const uint8_t *panels, const columns *x, float *y, int ldy);
void wide_q4_k_avx512(const uint8_t *panels, const columns *x, float *y, int ldy);
void wide_q6_k_avx512(const uint8_t *panels, const columns *x, float *y, int ldy);

#endif
