/* block.c - the table of block formats, and the formats that hold each value by itself. */
#include "tensor/block.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "tensor/block_codecs.h"

typedef struct codec {
    block_format format;
    void (*to_f32)(const uint8_t *in, float *out, int64_t n);
    void (*from_f32)(const float *in, uint8_t *out, int64_t n);
} codec;

static uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The half's exponent and fraction moved into a float's place are 2^112 too small; one exact multiplication mends that
 * for normal and subnormal halves alike. */
float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t shape = (uint32_t)(h & 0x7fff) << 13;
    if ((h & 0x7c00) == 0x7c00) /* infinity, NaN (made quiet, as the hardware does) */
        return bits_float(sign | 0x7f800000u | shape | ((h & 0x3ff) ? 0x400000u : 0));
    return bits_float(sign | float_bits(bits_float(shape) * 0x1p112f));
}

uint16_t f32_to_f16(float f) {
    uint32_t u = float_bits(f);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x1ff));
    if (u >= 0x477ff000u) /* 65520 and above rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000u) /* subnormal half: adding 0.5 lets the float adder round at the half's last place, 2^-24 */
        return (uint16_t)(sign | (float_bits(bits_float(u) + 0.5f) - 0x3f000000u));
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | (u - 0x38000000u) >> 13);
}

static uint16_t f32_to_bf16(float f) {
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void f32_copy_out(const uint8_t *in, float *out, int64_t n) {
    memcpy(out, in, (size_t)n * sizeof *out);
}

static void f32_copy_in(const float *in, uint8_t *out, int64_t n) {
    memcpy(out, in, (size_t)n * sizeof *in);
}

static void f16_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        out[i] = f16_to_f32(load_u16(in + 2 * i));
}

/* What is finite stays finite: the largest of the format instead of infinity. */
static void f16_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = f32_to_f16(in[i]);
        bool     beyond = (h & 0x7fff) == 0x7c00 && fabsf(in[i]) <= FLT_MAX;
        store_u16(out + 2 * i, (uint16_t)(h - beyond));
    }
}

static void bf16_out(const uint8_t *in, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        out[i] = bits_float((uint32_t)load_u16(in + 2 * i) << 16);
}

static void bf16_in(const float *in, uint8_t *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = f32_to_bf16(in[i]);
        bool     beyond = (h & 0x7fff) == 0x7f80 && fabsf(in[i]) <= FLT_MAX;
        store_u16(out + 2 * i, (uint16_t)(h - beyond));
    }
}

static const codec codecs[] = {
    {{BLOCK_F32, "f32", 1, 4}, f32_copy_out, f32_copy_in},
    {{BLOCK_F16, "f16", 1, 2}, f16_out, f16_in},
    {{BLOCK_BF16, "bf16", 1, 2}, bf16_out, bf16_in},
    {{BLOCK_Q4_0, "q4_0", BLOCK_VALUES, Q4_0_BYTES}, q4_0_out, q4_0_in},
    {{BLOCK_Q4_1, "q4_1", BLOCK_VALUES, Q4_1_BYTES}, q4_1_out, q4_1_in},
    {{BLOCK_Q5_0, "q5_0", BLOCK_VALUES, Q5_0_BYTES}, q5_0_out, q5_0_in},
    {{BLOCK_Q5_1, "q5_1", BLOCK_VALUES, Q5_1_BYTES}, q5_1_out, q5_1_in},
    {{BLOCK_Q8_0, "q8_0", BLOCK_VALUES, Q8_0_BYTES}, q8_0_out, q8_0_in},
    {{BLOCK_IQ4_NL, "iq4_nl", BLOCK_VALUES, IQ4_NL_BYTES}, iq4_nl_out, iq4_nl_in},
    {{BLOCK_IQ4_XS, "iq4_xs", SUPER_VALUES, IQ4_XS_BYTES}, iq4_xs_out, iq4_xs_in},
    {{BLOCK_MXFP4, "mxfp4", BLOCK_VALUES, MXFP4_BYTES}, mxfp4_out, mxfp4_in},
    {{BLOCK_Q2_K, "q2_k", SUPER_VALUES, Q2_K_BYTES}, q2_k_out, q2_k_in},
    {{BLOCK_Q3_K, "q3_k", SUPER_VALUES, Q3_K_BYTES}, q3_k_out, q3_k_in},
    {{BLOCK_Q4_K, "q4_k", SUPER_VALUES, Q4_K_BYTES}, q4_k_out, q4_k_in},
    {{BLOCK_Q5_K, "q5_k", SUPER_VALUES, Q5_K_BYTES}, q5_k_out, q5_k_in},
    {{BLOCK_Q6_K, "q6_k", SUPER_VALUES, Q6_K_BYTES}, q6_k_out, q6_k_in},
};

#define CODECS (sizeof codecs / sizeof *codecs)

static const codec *codec_of(int type) {
    for (size_t i = 0; i < CODECS; i++)
        if ((int)codecs[i].format.type == type)
            return &codecs[i];
    return NULL;
}

const block_format *block_format_of(int gguf_type) {
    const codec *c = codec_of(gguf_type);
    return c ? &c->format : NULL;
}

const block_format *block_format_named(const char *name) {
    for (size_t i = 0; name && i < CODECS; i++)
        if (strcasecmp(codecs[i].format.name, name) == 0)
            return &codecs[i].format;
    return NULL;
}

bool block_row_bytes(const block_format *f, int64_t n, size_t *bytes) {
    if (n < 0 || n % f->values)
        return false;
    uint64_t blocks = (uint64_t)n / (uint64_t)f->values;
    if (blocks > SIZE_MAX / 2 / (size_t)f->bytes)
        return false;
    *bytes = (size_t)blocks * (size_t)f->bytes;
    return true;
}

void block_to_f32(block_type type, const void *blocks, float *out, int64_t n) {
    const codec *c = codec_of((int)type);
    if (c)
        c->to_f32(blocks, out, n);
}

void block_from_f32(block_type type, const float *in, void *blocks, int64_t n) {
    const codec *c = codec_of((int)type);
    if (c)
        c->from_f32(in, blocks, n);
}
