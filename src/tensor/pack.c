/* pack.c - one packer a family of formats, and one unpacker for all. The blocks of GGUF are described in the block_*.c. */
#include "tensor/pack.h"

#include <string.h>

#include "tensor/matrix.h"
#include "tensor/panel.h"
#include "tensor/panel_row.h"

#define EACH_BYTE 0x01010101u
#define WORDS     (BLOCK_INPUTS / 4)

/* The stored values of a block of 32 inputs on their way: word j has inputs 4j .. 4j + 3, one a byte. */
typedef struct words {
    uint32_t of[WORDS];
} words;

static uint32_t load_u32(const uint8_t *p) {
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void store_u32(uint8_t *p, uint32_t u) {
    memcpy(p, &u, sizeof u);
}

/* ---- a row's part of lines (panel.h) ---- */

static void put_nibbles(uint8_t *line, const uint32_t *v) {
    store_u32(line, (v[0] & 0x0f0f0f0fu) | (v[1] & 0x0f0f0f0fu) << 4);
}

/* Four words with two bits each, the lowest of `from`. */
static void put_pairs(uint8_t *line, const uint32_t *v, int from) {
    uint32_t all = 0;
    for (int k = 0; k < 4; k++)
        all |= (v[k] >> from & 3 * EACH_BYTE) << 2 * k;
    store_u32(line, all);
}

static void put_bits(uint8_t *line, const uint32_t *v, int from) {
    uint32_t all = 0;
    for (int k = 0; k < WORDS; k++)
        all |= (v[k] >> from & EACH_BYTE) << k;
    store_u32(line, all);
}

static void put_block(int bits, uint8_t *lines, int r, const words *v) {
    lines += 4 * r;
    for (int j = 0; bits == 8 && j < WORDS; j++)
        store_u32(lines + j * LINE_BYTES, v->of[j]);
    for (int j = 0; (bits == 4 || bits == 5) && j < WORDS / 2; j++)
        put_nibbles(lines + j * LINE_BYTES, v->of + 2 * j);
    for (int half = 0; (bits == 2 || bits == 3) && half < 2; half++)
        put_pairs(lines + half * LINE_BYTES, v->of + 4 * half, 0);
    for (int half = 0; bits == 6 && half < 2; half++, lines += 3 * LINE_BYTES) {
        put_nibbles(lines, v->of + 4 * half);
        put_nibbles(lines + LINE_BYTES, v->of + 4 * half + 2);
        put_pairs(lines + 2 * LINE_BYTES, v->of + 4 * half, 4);
    }
    if (bits == 3 || bits == 5)
        put_bits(lines + (bits - 1) * LINE_BYTES, v->of, bits - 1);
}

static uint8_t *lines_of(const panel_form *f, uint8_t *stretch, int blocks, int b) {
    return stretch + head_bytes(*f, (size_t)blocks) + (size_t)b * f->bits * LINE_BYTES;
}

/* ---- blocks of 32 values: `n` of them make a stretch ---- */

/* Byte i holds value i low and value 16 + i high. */
static void take_nibbles(const uint8_t *bytes, words *v) {
    for (int j = 0; j < WORDS / 2; j++) {
        uint32_t both = load_u32(bytes + 4 * j);
        v->of[j] = both & 0x0f0f0f0fu;
        v->of[WORDS / 2 + j] = both >> 4 & 0x0f0f0f0fu;
    }
}

/* The fifth bit of value i at bit i. The product has bit i of the four at 7k + i for k = 0..3, so at 8i with k = i, and no
 * other bit there. */
static void take_fifths(uint32_t bits, words *v) {
    for (int j = 0; j < WORDS; j++)
        v->of[j] |= ((bits >> 4 * j & 15) * 0x00204081u & EACH_BYTE) << 4;
}

/* Scale (f16, or a byte with its exponent), f16 low of Q4_1 and Q5_1, fifth bits of Q5_0 and Q5_1, nibbles. */
static void pack_32(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    const int scale = f->scales == SCALES_E8M0 ? 1 : 2;
    for (int b = 0; b < n; b++) {
        words v;
        memcpy(to + (b * PANEL_ROWS + r) * scale, row, (size_t)scale);
        row += scale;
        if (f->least == LEAST_F16) {
            memcpy(to + (n + b) * SCALE_BYTES + 2 * r, row, 2);
            row += 2;
        }
        take_nibbles(row + (f->bits == 5 ? 4 : 0), &v);
        if (f->bits == 5) {
            take_fifths(load_u32(row), &v);
            row += 4;
        }
        row += 16;
        put_block(f->bits, lines_of(f, to, n, b), r, &v);
    }
}

static void pack_q8_0(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    for (int b = 0; b < n; b++, row += 34) {
        words v;
        memcpy(to + b * SCALE_BYTES + 2 * r, row, 2);
        for (int j = 0; j < WORDS; j++)
            v.of[j] = load_u32(row + 2 + 4 * j) ^ 128 * EACH_BYTE;
        put_block(8, lines_of(f, to, n, b), r, &v);
    }
}

/* ---- blocks of 256 values: a stretch ---- */

/* Q4_K and Q5_K: the eight 6-bit scales lie in bytes 0..3 (low six bits) and, of blocks 4..7, in the nibbles of bytes 8..11
 * with their two high bits on top of bytes 0..3; the minimums the same in bytes 4..7 and the high nibbles. */
static void pack_ranges_head(uint8_t *to, const uint8_t *row, int r) {
    const uint8_t *packed = row + 4;
    memcpy(to + 2 * r, row, 2);
    memcpy(to + SCALE_BYTES + 2 * r, row + 2, 2);
    for (int b = 0; b < 4; b++) {
        to[K_SCALES + PANEL_ROWS * b + r] = packed[b] & 63;
        to[K_SCALES + PANEL_ROWS * (4 + b) + r] = (uint8_t)((packed[8 + b] & 15) | (packed[b] >> 6) << 4);
        to[minimum_place(b, r)] = packed[4 + b] & 63;
        to[minimum_place(4 + b, r)] = (uint8_t)(packed[8 + b] >> 4 | (packed[4 + b] >> 6) << 4);
    }
}

/* After 16 bytes of head 32 bytes of fifth bits (Q5_K), of block b at bit b; then each 32 bytes of nibbles hold two blocks:
 * the even one low, the odd one high. */
static void pack_ranges(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    const uint8_t *fifths = row + 16, *nibbles = fifths + (f->bits == 5 ? 32 : 0);
    pack_ranges_head(to, row, r);
    for (int b = 0; b < n; b++) {
        words v;
        for (int j = 0; j < WORDS; j++) {
            v.of[j] = load_u32(nibbles + b / 2 * 32 + 4 * j) >> b % 2 * 4 & 0x0f0f0f0fu;
            if (f->bits == 5)
                v.of[j] |= (load_u32(fifths + 4 * j) >> b & EACH_BYTE) << 4;
        }
        put_block(f->bits, lines_of(f, to, n, b), r, &v);
    }
}

/* Halves of 128 values share 32 bytes: block b of 32 has its two bits at 2 (b % 4). */
static uint32_t take_pairs(const uint8_t *pairs, int b, int j) {
    return load_u32(pairs + b / 4 * 32 + 4 * j) >> b % 4 * 2 & 3 * EACH_BYTE;
}

/* 16 bytes of scales (low) and minimums (high), 64 of values, f16 d, f16 d_min. */
static void pack_q2_k(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    memcpy(to + 2 * r, row + 80, 2);
    memcpy(to + SCALE_BYTES + 2 * r, row + 82, 2);
    for (int b = 0; b < n; b++) {
        words v;
        memcpy(to + K_SCALES + 2 * (b * PANEL_ROWS + r), row + 2 * b, 2);
        for (int j = 0; j < WORDS; j++)
            v.of[j] = take_pairs(row + 16, b, j);
        put_block(2, lines_of(f, to, n, b), r, &v);
    }
}

/* 32 bytes of third bits, of block b at bit b, 64 of the lower two, 12 of 6-bit scales plus 32, f16 d. Scale g has its low
 * bits in the nibbles of byte g % 8 and its high bits in byte 8 + g % 4 at 2 (g / 4). */
static void pack_q3_k(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    const uint8_t *packed = row + 96;
    memcpy(to + 2 * r, row + 108, 2);
    for (int g = 0; g < 2 * n; g++) {
        int scale = (packed[g % 8] >> g / 8 * 4 & 15) | (packed[8 + g % 4] >> g / 4 * 2 & 3) << 4;
        to[K_SCALES + PANEL_ROWS * g + r] = (uint8_t)(scale - 32);
    }
    for (int b = 0; b < n; b++) {
        words v;
        for (int j = 0; j < WORDS; j++)
            v.of[j] = take_pairs(row + 32, b, j) | (load_u32(row + 4 * j) >> b & EACH_BYTE) << 2;
        put_block(3, lines_of(f, to, n, b), r, &v);
    }
}

/* 128 bytes of low nibbles, 64 of high bits, 16 int8 scales, f16 d. Of the four blocks of a half, b % 4 = 0 and 1 have their
 * low bits in the low nibbles of 32 bytes each, 2 and 3 in the high ones. */
static void pack_q6_k(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    memcpy(to + 2 * r, row + 208, 2);
    for (int g = 0; g < 2 * n; g++)
        to[K_SCALES + PANEL_ROWS * g + r] = row[192 + g];
    for (int b = 0; b < n; b++) {
        const uint8_t *low = row + b / 4 * 64 + b % 2 * 32;
        words          v;
        for (int j = 0; j < WORDS; j++)
            v.of[j] = (load_u32(low + 4 * j) >> b % 4 / 2 * 4 & 0x0f0f0f0fu) | take_pairs(row + 128, b, j) << 4;
        put_block(6, lines_of(f, to, n, b), r, &v);
    }
}

/* f16 d, two bytes with the high bits of the scales, four with their low nibbles, 16 of nibbles for each block. */
static void pack_iq4_xs(const panel_form *f, uint8_t *to, const uint8_t *row, int r, int n) {
    const unsigned high = row[2] | (unsigned)row[3] << 8;
    memcpy(to + 2 * r, row, 2);
    for (int b = 0; b < n; b++) {
        int   scale = (row[4 + b / 2] >> b % 2 * 4 & 15) | (int)(high >> 2 * b & 3) << 4;
        words v;
        to[K_SCALES + PANEL_ROWS * b + r] = (uint8_t)(scale - 32);
        take_nibbles(row + 8 + 16 * b, &v);
        put_block(4, lines_of(f, to, n, b), r, &v);
    }
}

typedef void (*pack_fn)(const panel_form *f, uint8_t *stretch, const uint8_t *row, int r, int blocks);

static pack_fn packer_of(block_type type) {
    switch ((int)type) {
    case BLOCK_Q8_0:
        return pack_q8_0;
    case BLOCK_Q4_K:
    case BLOCK_Q5_K:
        return pack_ranges;
    case BLOCK_Q2_K:
        return pack_q2_k;
    case BLOCK_Q3_K:
        return pack_q3_k;
    case BLOCK_Q6_K:
        return pack_q6_k;
    case BLOCK_IQ4_XS:
        return pack_iq4_xs;
    default:
        return pack_32;
    }
}

/* ---- and back ---- */

/* What is added to part `part` of block b. */
static float unpack_least(const panel_form *f, const uint8_t *from, int b, int part, int r, int n) {
    if (f->least == LEAST_F16)
        return row_f16(block_lows(from, (size_t)n, (size_t)b), r);
    return -(row_f16(from + SCALE_BYTES, r) * (float)row_minimum(*f, from, b, part, r));
}

/* The operations of the blocks' own codecs, one by one: the same bits. */
static void unpack(const panel_form *f, const uint8_t *from, int r, float *out, int n) {
    const int inputs = BLOCK_INPUTS / f->parts;
    for (int part = 0; part < n * f->parts; part++) {
        const int      b = part / f->parts, of_block = part % f->parts;
        const uint8_t *lines = block_lines(*f, from, (size_t)n, (size_t)b);
        const float    scale = row_scale(*f, from, b, of_block, r);
        for (int i = 0; i < inputs; i++)
            out[part * inputs + i] = scale * (float)row_weight(*f, lines, r, of_block * inputs + i);
        if (f->least == LEAST_NONE)
            continue;
        const float least = unpack_least(f, from, b, of_block, r, n);
        for (int i = 0; i < inputs; i++)
            out[part * inputs + i] += least;
    }
}

/* ---- panels ---- */

static size_t bytes_of_float(block_type type) {
    return type == BLOCK_F32 ? 4 : type == BLOCK_F16 || type == BLOCK_BF16 ? 2 : 0;
}

static int stretch_end(int k, int cols) {
    return cols - k < STRETCH_INPUTS ? cols : k + STRETCH_INPUTS;
}

bool pack_panel_bytes(block_type type, int cols, size_t *bytes) {
    const panel_form f = form_of(type);
    const size_t     of_float = bytes_of_float(type), blocks = (size_t)cols / BLOCK_INPUTS;
    if (f.bits)
        *bytes = blocks / STRETCH_BLOCKS * stretch_bytes(f, STRETCH_BLOCKS) +
                 (blocks % STRETCH_BLOCKS ? stretch_bytes(f, blocks % STRETCH_BLOCKS) : 0);
    else
        *bytes = (size_t)cols * PANEL_ROWS * of_float;
    return f.bits || of_float;
}

static void pack_floats(size_t size, const uint8_t *row, int r, int from, int to, uint8_t *panel) {
    for (int k = from; k < to; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + (size_t)r) * size, row + size * (size_t)k, size);
}

/* All 16 rows take a stretch before the next, so that reads and writes stay in cache. */
void pack_panel(block_type type, const uint8_t *rows_at, size_t row_bytes, int rows, int cols, uint8_t *panel) {
    const panel_form    f = form_of(type);
    const block_format *format = block_format_of((int)type);
    const pack_fn       pack = packer_of(type);
    size_t              bytes = 0;
    if (rows < PANEL_ROWS && pack_panel_bytes(type, cols, &bytes))
        memset(panel, 0, bytes); /* no scale makes anything but 0 of it, or of what no one reads */
    for (int k = 0, to; k < cols; k = to) {
        to = stretch_end(k, cols);
        int n = (to - k) / BLOCK_INPUTS;
        for (int r = 0; r < rows; r++) {
            const uint8_t *row = rows_at + (size_t)r * row_bytes;
            if (f.bits)
                pack(&f, panel, row + (size_t)(k / format->values) * (size_t)format->bytes, r, n);
            else
                pack_floats(bytes_of_float(type), row, r, k, to, panel);
        }
        if (f.bits)
            panel += stretch_bytes(f, (size_t)n);
    }
}

/* The floats of a row lie PANEL_ROWS apart: gathered some at a time, then turned together. */
static void unpack_floats(block_type type, const uint8_t *panel, int r, int cols, float *out) {
    enum { SOME = 128 };
    const size_t size = bytes_of_float(type);
    for (int k = 0; k < cols; k += SOME) {
        _Alignas(4) uint8_t raw[SOME * 4];
        const int           n = cols - k < SOME ? cols - k : SOME;
        const uint8_t      *from = panel + ((size_t)k * PANEL_ROWS + (size_t)r) * size;
        if (size == 4)
            for (size_t i = 0; i < (size_t)n; i++)
                memcpy(raw + 4 * i, from + 4 * PANEL_ROWS * i, 4);
        else
            for (size_t i = 0; i < (size_t)n; i++)
                memcpy(raw + 2 * i, from + 2 * PANEL_ROWS * i, 2);
        block_to_f32(type, raw, out + k, n);
    }
}

void unpack_row(block_type type, const uint8_t *panel, int r, int cols, float *out) {
    const panel_form f = form_of(type);
    if (!f.bits)
        unpack_floats(type, panel, r, cols, out);
    for (int k = 0, to; f.bits && k < cols; k = to) {
        to = stretch_end(k, cols);
        int n = (to - k) / BLOCK_INPUTS;
        unpack(&f, panel, r, out + k, n);
        panel += stretch_bytes(f, (size_t)n);
    }
}
