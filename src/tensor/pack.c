/* pack.c - one packer and one unpacker a format. The blocks of GGUF are described in block.c and block_k.c. */
#include "tensor/pack.h"

#include <string.h>

#include "tensor/matrix.h"
#include "tensor/panel.h"

#define K_BLOCKS 8 /* blocks of 32 in a stretch */

static uint32_t load_u32(const uint8_t *p) {
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static void store_u32(uint8_t *p, uint32_t u) {
    memcpy(p, &u, sizeof u);
}

static float load_half(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}

/* Two lines of 4-bit values: 8 inputs low, the 8 that GGUF keeps in the same bytes' high nibbles 16 or 32 further. */
static void store_nibbles(uint8_t *line, uint32_t first, uint32_t next) {
    store_u32(line, (first & 0x0f0f0f0fu) | (next & 0x0f0f0f0fu) << 4);
}

/* ---- Q4_0 and Q8_0: `n` blocks of a stretch ---- */

/* In a GGUF block byte i holds value i low and value 16 + i high; a line wants values 8j.. low and 8j + 4.. high. */
static void pack_q4_0(uint8_t *to, const uint8_t *row, int r, int n) {
    uint8_t *line = to + n * SCALE_BYTES + 4 * r;
    for (int b = 0; b < n; b++, row += 18, line += Q4_0_LINES * LINE_BYTES) {
        memcpy(to + b * SCALE_BYTES + 2 * r, row, 2);
        uint32_t v[4];
        memcpy(v, row + 2, sizeof v);
        store_nibbles(line, v[0], v[1]);
        store_nibbles(line + LINE_BYTES, v[2], v[3]);
        store_nibbles(line + 2 * LINE_BYTES, v[0] >> 4, v[1] >> 4);
        store_nibbles(line + 3 * LINE_BYTES, v[2] >> 4, v[3] >> 4);
    }
}

static void pack_q8_0(uint8_t *to, const uint8_t *row, int r, int n) {
    uint8_t *line = to + n * SCALE_BYTES + 4 * r;
    for (int b = 0; b < n; b++, row += 34) {
        memcpy(to + b * SCALE_BYTES + 2 * r, row, 2);
        for (int j = 0; j < Q8_0_LINES; j++, line += LINE_BYTES)
            store_u32(line, load_u32(row + 2 + 4 * j) ^ 0x80808080u);
    }
}

static int nibble(const uint8_t *lines, int r, int i) {
    return lines[i / 8 * LINE_BYTES + 4 * r + i % 4] >> (i & 4) & 15;
}

static void unpack_q4_0(const uint8_t *from, int r, float *out, int n) {
    for (int b = 0; b < n; b++) {
        float scale = load_half(from + b * SCALE_BYTES + 2 * r);
        for (int i = 0; i < BLOCK_INPUTS; i++)
            *out++ = (float)(nibble(from + n * SCALE_BYTES + b * Q4_0_LINES * LINE_BYTES, r, i) - Q4_0_OFFSET) * scale;
    }
}

static void unpack_q8_0(const uint8_t *from, int r, float *out, int n) {
    const uint8_t *lines = from + n * SCALE_BYTES + 4 * r;
    for (int i = 0; i < n * BLOCK_INPUTS; i++) {
        float scale = load_half(from + i / BLOCK_INPUTS * SCALE_BYTES + 2 * r);
        int   byte = lines[i / 4 * LINE_BYTES + i % 4];
        *out++ = (float)(byte - Q8_0_OFFSET) * scale;
    }
}

/* ---- Q4_K: f16 d, f16 dmin, 12 bytes of 6-bit scales and minimums, 128 bytes of nibbles ---- */

/* The eight 6-bit scales lie in bytes 0..3 (low six bits) and, of blocks 4..7, in the nibbles of bytes 8..11 with their
 * two high bits on top of bytes 0..3; the minimums the same in bytes 4..7 and the high nibbles. */
static void scales_of_q4_k(const uint8_t *packed, uint8_t scale[K_BLOCKS], uint8_t minimum[K_BLOCKS]) {
    for (int b = 0; b < 4; b++) {
        scale[b] = packed[b] & 63;
        minimum[b] = packed[4 + b] & 63;
        scale[4 + b] = (uint8_t)((packed[8 + b] & 15) | (packed[b] >> 6) << 4);
        minimum[4 + b] = (uint8_t)(packed[8 + b] >> 4 | (packed[4 + b] >> 6) << 4);
    }
}

/* Of row r and block b: pairs of blocks lie together. */
static int minimum_place(int b, int r) {
    return Q4_K_MINS + b / 2 * 32 + 2 * r + b % 2;
}

static void pack_q4_k(uint8_t *to, const uint8_t *row, int r, int n) {
    uint8_t scale[K_BLOCKS], minimum[K_BLOCKS];
    memcpy(to + 2 * r, row, 2);
    memcpy(to + SCALE_BYTES + 2 * r, row + 2, 2);
    scales_of_q4_k(row + 4, scale, minimum);
    row += 16;
    for (int b = 0; b < n; b++) {
        to[2 * SCALE_BYTES + 16 * b + r] = scale[b];
        to[minimum_place(b, r)] = minimum[b];
        /* 32 bytes hold two blocks: the even one low, the odd one high */
        uint8_t *line = to + Q4_K_HEAD + b * Q4_0_LINES * LINE_BYTES + 4 * r;
        for (int j = 0; j < Q4_0_LINES; j++, line += LINE_BYTES) {
            const uint8_t *bytes = row + b / 2 * 32 + 8 * j;
            store_nibbles(line, load_u32(bytes) >> b % 2 * 4, load_u32(bytes + 4) >> b % 2 * 4);
        }
    }
}

static void unpack_q4_k(const uint8_t *from, int r, float *out, int n) {
    float d = load_half(from + 2 * r), d_min = load_half(from + SCALE_BYTES + 2 * r);
    for (int b = 0; b < n; b++) {
        float scale = d * from[2 * SCALE_BYTES + 16 * b + r];
        float minimum = d_min * from[minimum_place(b, r)];
        for (int i = 0; i < BLOCK_INPUTS; i++) {
            float scaled = scale * (float)nibble(from + Q4_K_HEAD + b * Q4_0_LINES * LINE_BYTES, r, i);
            *out++ = scaled - minimum; /* in two steps, as the reference */
        }
    }
}

/* ---- Q6_K: 128 bytes of low nibbles, 64 of high bits, 16 int8 scales, f16 d ---- */

/* Halves of 128 values; within one, value 32 q + l has its low bits in byte 32 (q % 2) + l (high nibble for q >= 2) and
 * its high bits in bits 2q of byte l. A group of 16 lies within one q; four values are taken at a time. */
static void pack_q6_k(uint8_t *to, const uint8_t *row, int r, int n) {
    memcpy(to + 2 * r, row + 208, 2);
    for (int g = 0; g < 2 * n; g++) {
        int            half = g / 8, q = g % 8 / 2;
        const uint8_t *low = row + 64 * half + 32 * (q % 2) + 16 * (g % 2);
        const uint8_t *high = row + 128 + 32 * half + 16 * (g % 2);
        uint32_t       v[4], top = 0;
        for (int k = 0; k < 4; k++) {
            v[k] = load_u32(low + 4 * k) >> q / 2 * 4;
            top |= (load_u32(high + 4 * k) >> 2 * q & 0x03030303u) << 2 * k;
        }
        uint8_t *lines = to + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES + 4 * r;
        to[2 * SCALE_BYTES + 16 * g + r] = row[192 + g];
        store_nibbles(lines, v[0], v[1]);
        store_nibbles(lines + LINE_BYTES, v[2], v[3]);
        store_u32(lines + 2 * LINE_BYTES, top);
    }
}

static void unpack_q6_k(const uint8_t *from, int r, float *out, int n) {
    float d = load_half(from + 2 * r);
    for (int i = 0; i < n * BLOCK_INPUTS; i++) {
        int            g = i / Q6_K_INPUTS, k = i % Q6_K_INPUTS / 4;
        const uint8_t *lines = from + Q6_K_HEAD + g * Q6_K_LINES * LINE_BYTES;
        int            low = nibble(lines, r, i % Q6_K_INPUTS);
        int            high = lines[2 * LINE_BYTES + 4 * r + i % 4] >> (2 * k) & 3;
        float          scale = d * (int8_t)from[2 * SCALE_BYTES + 16 * g + r];
        *out++ = scale * (float)((low | high << 4) - Q6_K_OFFSET);
    }
}

/* ---- the table ---- */

typedef struct packer {
    block_type type;
    int        block, block_bytes; /* GGUF: values and bytes */
    int        head, lines;        /* panel: bytes for each 32 inputs; head of a whole stretch for K-quants */
    void (*pack)(uint8_t *stretch, const uint8_t *row, int r, int blocks_of_32);
    void (*unpack)(const uint8_t *stretch, int r, float *out, int blocks_of_32);
} packer;

static const packer packers[] = {
    {BLOCK_Q4_0, 32, 18, SCALE_BYTES, Q4_0_LINES *LINE_BYTES, pack_q4_0, unpack_q4_0},
    {BLOCK_Q8_0, 32, 34, SCALE_BYTES, Q8_0_LINES *LINE_BYTES, pack_q8_0, unpack_q8_0},
    {BLOCK_Q4_K, 256, 144, Q4_K_HEAD / K_BLOCKS, Q4_0_LINES *LINE_BYTES, pack_q4_k, unpack_q4_k},
    {BLOCK_Q6_K, 256, 210, Q6_K_HEAD / K_BLOCKS, 2 * Q6_K_LINES *LINE_BYTES, pack_q6_k, unpack_q6_k},
};

static const packer *packer_of(block_type type) {
    for (size_t i = 0; i < sizeof packers / sizeof *packers; i++)
        if (packers[i].type == type)
            return &packers[i];
    return NULL;
}

static size_t bytes_of_float(block_type type) {
    return type == BLOCK_F32 ? 4 : type == BLOCK_F16 || type == BLOCK_BF16 ? 2 : 0;
}

bool pack_panel_bytes(block_type type, int cols, size_t *bytes) {
    const packer *p = packer_of(type);
    size_t        of_float = bytes_of_float(type);
    if (p)
        *bytes = (size_t)cols / BLOCK_INPUTS * (size_t)(p->head + p->lines);
    else
        *bytes = (size_t)cols * PANEL_ROWS * of_float;
    return p || of_float;
}

static void pack_floats(size_t size, const uint8_t *row, int r, int from, int to, uint8_t *panel) {
    for (int k = from; k < to; k++)
        memcpy(panel + ((size_t)k * PANEL_ROWS + (size_t)r) * size, row + size * (size_t)k, size);
}

/* All 16 rows take a stretch before the next, so that reads and writes stay in cache. */
void pack_panel(block_type type, const uint8_t *rows_at, size_t row_bytes, int rows, int cols, uint8_t *panel) {
    const packer *p = packer_of(type);
    size_t        size = bytes_of_float(type), bytes = 0;
    if (rows < PANEL_ROWS && pack_panel_bytes(type, cols, &bytes))
        memset(panel, 0, bytes); /* a scale of 0 makes any quantised value 0 */
    for (int k = 0; k < cols; k += STRETCH_INPUTS) {
        int to = cols - k < STRETCH_INPUTS ? cols : k + STRETCH_INPUTS;
        int n = (to - k) / BLOCK_INPUTS;
        for (int r = 0; r < rows; r++) {
            const uint8_t *row = rows_at + (size_t)r * row_bytes;
            if (p)
                p->pack(panel, row + (size_t)k / (size_t)p->block * (size_t)p->block_bytes, r, n);
            else
                pack_floats(size, row, r, k, to, panel);
        }
        if (p)
            panel += (size_t)n * (size_t)(p->head + p->lines);
    }
}

void unpack_row(block_type type, const uint8_t *panel, int r, int cols, float *out) {
    const packer *p = packer_of(type);
    size_t        size = bytes_of_float(type);
    for (size_t k = 0; !p && k < (size_t)cols; k++)
        block_to_f32(type, panel + (k * PANEL_ROWS + (size_t)r) * size, out + k, 1);
    for (int k = 0; p && k < cols; k += STRETCH_INPUTS) {
        int n = (cols - k < STRETCH_INPUTS ? cols - k : STRETCH_INPUTS) / BLOCK_INPUTS;
        p->unpack(panel, r, out + k, n);
        panel += (size_t)n * (size_t)(p->head + p->lines);
    }
}
