/* random_blocks.h - blocks of random bits with scales that keep products finite, for every format with blocks of several
 * values: no codec stands between a test and the values it wants to see. */
#ifndef PARE_TESTS_RANDOM_BLOCKS_H
#define PARE_TESTS_RANDOM_BLOCKS_H

#include <string.h>

#include "check.h"
#include "tensor/block.h"

static const struct {
    block_type type;
    int        halves[2]; /* where the f16 of a block lie */
    int        n_halves;
} random_block_types[] = {
    {BLOCK_Q4_0, {0}, 1},   {BLOCK_Q4_1, {0, 2}, 2}, {BLOCK_Q5_0, {0}, 1},    {BLOCK_Q5_1, {0, 2}, 2},
    {BLOCK_Q8_0, {0}, 1},   {BLOCK_IQ4_NL, {0}, 1},  {BLOCK_MXFP4, {0}, 0},   {BLOCK_Q2_K, {80, 82}, 2},
    {BLOCK_Q3_K, {108}, 1}, {BLOCK_Q4_K, {0, 2}, 2}, {BLOCK_Q5_K, {0, 2}, 2}, {BLOCK_Q6_K, {208}, 1},
    {BLOCK_IQ4_XS, {0}, 1},
};

#define RANDOM_BLOCK_TYPES (sizeof random_block_types / sizeof *random_block_types)

typedef enum random_bits {
    RANDOM_BITS,
    ALL_ONES_OR_ZERO, /* the largest values, or the least */
    WILD_SCALES       /* any finite half: from 2^-24 to 65504, with its sign */
} random_bits;

static inline uint16_t random_half(uint64_t *seed, random_bits how) {
    uint16_t bits = (uint16_t)(test_random(seed) >> 20);
    if (how == WILD_SCALES)
        return (bits & 0x7c00) == 0x7c00 ? bits & 0xbfff : bits;
    return f32_to_f16((float)((int)bits - 32768) / (32768 * 16));
}

/* `ones`: which of ALL_ONES_OR_ZERO. */
static inline void random_block(size_t type, random_bits how, bool ones, uint64_t *seed, uint8_t *block) {
    const block_format *f = block_format_of((int)random_block_types[type].type);
    for (int i = 0; i < f->bytes; i++)
        block[i] = (uint8_t)(how == ALL_ONES_OR_ZERO ? (ones ? 0xff : 0) : test_random(seed) >> 20);
    for (int h = 0; h < random_block_types[type].n_halves; h++) {
        uint16_t half = random_half(seed, how);
        memcpy(block + random_block_types[type].halves[h], &half, sizeof half);
    }
    if (f->type == BLOCK_MXFP4) /* an exponent: 2^-17 .. 2^-2, or far out but for what overflows with many values */
        block[0] = (uint8_t)(how == WILD_SCALES ? test_random(seed) % 216 : 110 + test_random(seed) % 16);
}

#endif
