/* int8.h - the products of quantised panels, one set of functions an instruction set; kernels.h has the tables. */
#ifndef PARE_TENSOR_INT8_H
#define PARE_TENSOR_INT8_H

#include "tensor/kernels.h"
#include "tensor/panel.h"

/* The formats that multiply as integers: X(the end of a function's name, the end of the type's). */
#define INT8_TYPES_32(X)                                                                                               \
    X(q4_0, Q4_0) X(q4_1, Q4_1) X(q5_0, Q5_0) X(q5_1, Q5_1) X(q8_0, Q8_0) X(iq4_nl, IQ4_NL) X(mxfp4, MXFP4)
#define INT8_TYPES_K(X) X(q2_k, Q2_K) X(q3_k, Q3_K) X(q4_k, Q4_K) X(q5_k, Q5_K) X(q6_k, Q6_K) X(iq4_xs, IQ4_XS)
#define INT8_TYPES(X)   INT8_TYPES_32(X) INT8_TYPES_K(X)

#define INT8_PANEL(name, isa) void panel_##name##_##isa(const uint8_t *panel, const columns *x, float *y, int ldy);
#define INT8_WIDE(name, isa)  void wide_##name##_##isa(const uint8_t *panels, const columns *x, float *y, int ldy);

#define INT8_PANEL_AVX2(name, type)    INT8_PANEL(name, avx2)
#define INT8_PANEL_AVX512(name, type)  INT8_PANEL(name, avx512)
#define INT8_PANEL_NEON(name, type)    INT8_PANEL(name, neon)
#define INT8_PANEL_DOTPROD(name, type) INT8_PANEL(name, dotprod)
#define INT8_WIDE_AVX512(name, type)   INT8_WIDE(name, avx512)
INT8_TYPES(INT8_PANEL_AVX2)
INT8_TYPES(INT8_PANEL_AVX512)
INT8_TYPES(INT8_PANEL_NEON)
INT8_TYPES(INT8_PANEL_DOTPROD)
INT8_TYPES(INT8_WIDE_AVX512)

/* For the tables of kernels.h: INT8_TYPES(INT8_ENTRY_AVX2). */
#define INT8_ENTRY_AVX2(name, type)        [BLOCK_##type] = panel_##name##_avx2,
#define INT8_ENTRY_AVX512(name, type)      [BLOCK_##type] = panel_##name##_avx512,
#define INT8_ENTRY_NEON(name, type)        [BLOCK_##type] = panel_##name##_neon,
#define INT8_ENTRY_DOTPROD(name, type)     [BLOCK_##type] = panel_##name##_dotprod,
#define INT8_WIDE_ENTRY_AVX512(name, type) [BLOCK_##type] = wide_##name##_avx512,

/* What takes the offset off the integer sums of a part of block `at`, `*ld` apart for the next column. */
TILE const int32_t *offset_sums(const panel_form f, const columns *x, size_t at, size_t part, size_t *ld) {
    *ld = (size_t)x->cols / BLOCK_INPUTS * f.parts;
    switch (f.offset) {
    case 4:
        return x->minus4 + 2 * at + part;
    case 8:
        return x->minus8 + at;
    case 16:
        return x->minus16 + at;
    case 32:
        return x->minus32 + 2 * at + part;
    case 128:
        return x->minus128 + at;
    default:
        return NULL;
    }
}

/* Pairs of sums of activations that meet the pairs of minimums in a stretch: of two blocks, or of the halves of one. */
TILE size_t minimum_pairs(const panel_form f) {
    return f.least == LEAST_U4 ? STRETCH_BLOCKS : STRETCH_BLOCKS / 2;
}
TILE const int16_t *minimum_sums(const panel_form f, const columns *x, size_t at, size_t *ld) {
    *ld = (size_t)x->cols / (f.least == LEAST_U4 ? HALF_INPUTS : BLOCK_INPUTS);
    return f.least == LEAST_U4 ? x->half_sums + 2 * at : x->sums + at;
}

void panel_bf16_dot(const uint8_t *panel, const columns *x, float *y, int ldy);
void wide_bf16_dot(const uint8_t *panels, const columns *x, float *y, int ldy);

#endif
