/* kvblock.c - the places of keys and values in a block, and their rounding. Written once a token, layer and head, so the
 * loops over values are kept free of branches and calls and the compiler turns them into vectors.                     */
#include "tensor/kvblock.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "tensor/block.h"

#define MAX_DIM     4096
#define ALIGNMENT   64
#define F16_LARGEST 0x477fe000 /* 65504.0f */
#define F32_LARGEST 0x7f7fffff

static const char *const type_names[] = {[KV_F16] = "f16", [KV_F32] = "f32", [KV_Q8_0] = "q8_0", [KV_Q4_0] = "q4_0"};

#define TYPES (sizeof type_names / sizeof *type_names)

bool kv_type_named(const char *name, kv_type *out) {
    for (size_t i = 0; name && i < TYPES; i++)
        if (strcasecmp(type_names[i], name) == 0) {
            *out = (kv_type)i;
            return true;
        }
    return false;
}

const char *kv_type_name(kv_type type) {
    return (size_t)type < TYPES ? type_names[type] : "unknown";
}

static size_t rounded_up(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

bool kv_layout_of(kv_type type, int dim, kv_layout *out, err *e) {
    if ((size_t)type >= TYPES)
        return err_set(e, ERR_INVALID, "there is no K/V cache type number %d", (int)type);
    if (dim < 1 || dim > MAX_DIM)
        return err_set(e, ERR_UNSUPPORTED, "heads of %d values: the K/V cache holds heads of 1 to %d", dim, MAX_DIM);
    size_t n = (size_t)dim;
    *out = (kv_layout){.type = type, .dim = dim};
    if (type == KV_F16 || type == KV_F32) {
        out->key_bytes = out->value_bytes = rounded_up(n * KV_TOKENS * (type == KV_F16 ? 2 : 4));
        return true;
    }
    if (n % KV_GROUP)
        return err_set(
            e, ERR_UNSUPPORTED,
            "a %s K/V cache needs heads of a multiple of %d values, and this model's have %d; use f16 or f32",
            kv_type_name(type), KV_GROUP, dim);
    out->key_bytes = out->value_bytes = kv_numbers_at(dim) + n * KV_TOKENS / (type == KV_Q8_0 ? 1 : 2);
    return true;
}

/* ---- rounding ---- */

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* A row may read past its own limit as far as another row's, with weight 0: nothing there may be other than finite.
 * `largest` as bits: integers compare without the traps that keep a compiler from making vectors of it. */
static float finite(float f, int32_t largest) {
    int32_t u = (int32_t)bits_of(f), size = u & 0x7fffffff;
    size = size > 0x7f800000 ? 0 : size;
    size = size > largest ? largest : size;
    return float_of((uint32_t)(size | (u & INT32_MIN)));
}

/* f32_to_f16 without its branches, for what is finite. */
static uint16_t half_of(float f) {
    int32_t u = (int32_t)bits_of(finite(f, F16_LARGEST)), size = u & 0x7fffffff;
    int32_t normal = (size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13;
    int32_t subnormal = (int32_t)bits_of(float_of((uint32_t)size) + 0.5f) - 0x3f000000;
    return (uint16_t)((u >> 16 & 0x8000) | (size < 0x38800000 ? subnormal : normal));
}

static void store_u16(uint8_t *p, uint16_t u) {
    memcpy(p, &u, sizeof u);
}

static float load_f16(const uint8_t *p) {
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return f16_to_f32(u);
}

/* The value whose magnitude is largest; of two that are opposite, the positive one. */
static float peak_of(const float *x) {
    int32_t largest = 0, lowest = 0; /* the sizes of floats order like their bits */
    for (int i = 0; i < KV_GROUP; i++) {
        int32_t u = (int32_t)bits_of(x[i]), size = u & 0x7fffffff;
        largest = u > largest ? u : largest;
        lowest = u < 0 && size > lowest ? size : lowest;
    }
    return largest >= lowest ? float_of((uint32_t)largest) : -float_of((uint32_t)lowest);
}

/* 32 values become numbers -127 .. 127, plus `offset`; returns the scale. */
static uint16_t round_q8(const float *in, uint8_t *out, int offset) {
    const float nearest = 0x1.8p23f; /* adding it leaves a float no places after the point */
    float       x[KV_GROUP], peak, inverse;
    for (int i = 0; i < KV_GROUP; i++)
        x[i] = finite(in[i], F16_LARGEST);
    peak = float_of(bits_of(peak_of(x)) & 0x7fffffffu);
    inverse = peak > KV_TINY ? 127.0f / peak : 0.0f;
    for (int i = 0; i < KV_GROUP; i++) {
        float scaled = x[i] * inverse; /* a statement of its own, so that no compiler fuses it with the addition */
        float whole = scaled + nearest;
        out[i] = (uint8_t)((int32_t)(whole - nearest) + offset);
    }
    return half_of(peak / 127.0f);
}

/* 32 values become numbers 0 .. 15: the one of largest magnitude 0, and 8 stands for zero (block.c, q4_0_in). */
static uint16_t round_q4(const float *in, uint8_t *out) {
    float x[KV_GROUP], scale;
    for (int i = 0; i < KV_GROUP; i++)
        x[i] = finite(in[i], F16_LARGEST);
    scale = peak_of(x) / -8.0f;
    float inverse = scale > KV_TINY || scale < -KV_TINY ? 1.0f / scale : 0.0f;
    for (int i = 0; i < KV_GROUP; i++) {
        float scaled = x[i] * inverse;
        float moved = scaled + 8.5f; /* at least 0.49: the largest magnitude is 8 */
        out[i] = (uint8_t)(int32_t)(moved < 15.0f ? moved : 15.0f);
    }
    return half_of(scale);
}

/* ---- putting ---- */

static void put_key_q8(uint8_t *keys, int place, const float *x, int dim) {
    uint8_t *lines = keys + kv_numbers_at(dim) + 4 * place;
    for (int k = 0; k < dim; k += KV_GROUP, keys += KV_SCALES, lines += KV_Q8_LINES * KV_LINE) {
        uint8_t q[KV_GROUP];
        store_u16(keys + 2 * place, round_q8(x + k, q, KV_Q8_OFFSET));
        for (int j = 0; j < KV_Q8_LINES; j++)
            memcpy(lines + j * KV_LINE, q + 4 * j, 4);
    }
}

static void put_key_q4(uint8_t *keys, int place, const float *x, int dim) {
    uint8_t *lines = keys + kv_numbers_at(dim) + 4 * place;
    for (int k = 0; k < dim; k += KV_GROUP, keys += KV_SCALES, lines += KV_Q4_LINES * KV_LINE) {
        uint8_t q[KV_GROUP];
        store_u16(keys + 2 * place, round_q4(x + k, q));
        for (int j = 0; j < KV_Q4_LINES; j++)
            for (int t = 0; t < 4; t++)
                lines[j * KV_LINE + t] = (uint8_t)(q[8 * j + t] | q[8 * j + 4 + t] << 4);
    }
}

void kv_put_key(const kv_layout *l, void *keys, int place, const float *x) {
    size_t at = (size_t)place;
    if (l->type == KV_F16) {
        uint16_t half[MAX_DIM]; /* first all at once, as vectors, then each to its line */
        for (int d = 0; d < l->dim; d++)
            half[d] = half_of(x[d]);
        for (int d = 0; d < l->dim; d++)
            ((uint16_t *)keys)[(size_t)d * KV_TOKENS + at] = half[d];
    } else if (l->type == KV_F32)
        for (int d = 0; d < l->dim; d++)
            ((float *)keys)[(size_t)d * KV_TOKENS + at] = finite(x[d], F32_LARGEST);
    else if (l->type == KV_Q8_0)
        put_key_q8(keys, place, x, l->dim);
    else
        put_key_q4(keys, place, x, l->dim);
}

void kv_put_value(const kv_layout *l, void *values, int place, const float *x) {
    size_t   dim = (size_t)l->dim, row = (size_t)place * dim;
    uint8_t *scales = values, *numbers = scales + kv_numbers_at(l->dim);
    if (l->type == KV_F16) {
        for (size_t d = 0; d < dim; d++)
            ((uint16_t *)values)[row + d] = half_of(x[d]);
        return;
    }
    if (l->type == KV_F32) {
        for (size_t d = 0; d < dim; d++)
            ((float *)values)[row + d] = finite(x[d], F32_LARGEST);
        return;
    }
    for (size_t k = 0; k < dim; k += KV_GROUP, scales += KV_SCALES) {
        uint8_t q[KV_GROUP];
        if (l->type == KV_Q8_0) {
            store_u16(scales + 2 * place, round_q8(x + k, numbers + row + k, 0));
            continue;
        }
        store_u16(scales + 2 * place, round_q4(x + k, q));
        for (size_t i = 0; i < KV_GROUP / 2; i++)
            numbers[(row + k) / 2 + i] = (uint8_t)(q[i] | q[KV_GROUP / 2 + i] << 4);
    }
}

/* ---- getting ---- */

/* Value d of a key in Q8_0 or Q4_0, before its scale. */
static int key_number(kv_type type, const uint8_t *lines, int place, int d) {
    if (type == KV_Q8_0)
        return lines[d / 4 * KV_LINE + 4 * place + d % 4] - KV_Q8_OFFSET;
    uint8_t two = lines[d / 8 * KV_LINE + 4 * place + d % 4];
    return (d % 8 < 4 ? two & 15 : two >> 4) - KV_Q4_OFFSET;
}

void kv_get_key(const kv_layout *l, const void *keys, int place, float *out) {
    const uint8_t *scales = keys, *lines = scales + kv_numbers_at(l->dim);
    for (int d = 0; d < l->dim; d++) {
        size_t at = (size_t)d * KV_TOKENS + (size_t)place;
        if (l->type == KV_F16)
            out[d] = f16_to_f32(((const uint16_t *)keys)[at]);
        else if (l->type == KV_F32)
            out[d] = ((const float *)keys)[at];
        else
            out[d] =
                (float)key_number(l->type, lines, place, d) * load_f16(scales + d / KV_GROUP * KV_SCALES + 2 * place);
    }
}

void kv_get_value(const kv_layout *l, const void *values, int place, float *out) {
    size_t         dim = (size_t)l->dim, row = (size_t)place * dim;
    const uint8_t *scales = values, *numbers = scales + kv_numbers_at(l->dim);
    for (size_t d = 0; d < dim; d++) {
        size_t group = d / KV_GROUP, i = d % KV_GROUP;
        if (l->type == KV_F16)
            out[d] = f16_to_f32(((const uint16_t *)values)[row + d]);
        else if (l->type == KV_F32)
            out[d] = ((const float *)values)[row + d];
        else if (l->type == KV_Q8_0)
            out[d] = (float)(int8_t)numbers[row + d] * load_f16(scales + group * KV_SCALES + 2 * place);
        else {
            uint8_t two = numbers[row / 2 + group * (KV_GROUP / 2) + i % (KV_GROUP / 2)];
            out[d] = (float)((i < KV_GROUP / 2 ? two & 15 : two >> 4) - KV_Q4_OFFSET) *
                     load_f16(scales + group * KV_SCALES + 2 * place);
        }
    }
}
