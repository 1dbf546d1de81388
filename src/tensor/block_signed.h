/* block_signed.h - the search for the scales of formats whose values are d scale level, the scale a small integer with a
 * sign.
 *
 * Rounding looks for a small sum of squared errors, all values alike: (1) for each part the step that least squares
 * fits best, out of a range of roundings, (2) d near what the largest step asks for, and for each part the best of the
 * scales near its own step, (3) d once more by least squares over the superblock, as long as that helps.            */
#ifndef PARE_TENSOR_BLOCK_SIGNED_H
#define PARE_TENSOR_BLOCK_SIGNED_H

#include "tensor/block_search.h"

enum { UNEVEN = 16, SIGNED_PARTS = 16 /* at most */ };

typedef struct signed_grid {
    int   part;            /* values with one scale: 16 or 32 */
    bool  uneven;          /* levels are those of IQ4_NL, not all integers of low..high */
    float low, high;       /* the outermost levels */
    float scale_low;       /* of the scales; the highest is one nearer to 0 */
    bool  all_scales;      /* they are few enough to try each in the end */
    float nearer, further; /* tried: steps with which the peak is an end of the levels and this far beyond it */
} signed_grid;

typedef struct signed_block {
    uint16_t d;
    int      scale[SIGNED_PARTS];
    int8_t   q[SUPER_VALUES]; /* the levels */
    float    error;
} signed_block;

extern const int8_t uneven_levels[UNEVEN];

void signed_search(const float *in, const signed_grid *g, signed_block *best);

/* For one part by itself, its step a half: returns the half. */
uint16_t signed_search_part(const float *in, const signed_grid *g, int8_t *q);

#endif
