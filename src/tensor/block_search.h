/* block_search.h - what the searches for good scales share.
 *
 * They try several scales at a time, each in a lane of a vector. Loops over arrays say the same, but of those the
 * compilers turn one into vectors and the next into hundreds of branches; hence the vector type, an extension that gcc
 * and clang share on every machine.
 *
 * Searches meet finite numbers between 2^-26 and 1e8 only, or zeros; so no product or square leaves a float.         */
#ifndef PARE_TENSOR_BLOCK_SEARCH_H
#define PARE_TENSOR_BLOCK_SEARCH_H

#include <math.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "tensor/block_codecs.h"

typedef float   lanes __attribute__((vector_size(16)));
typedef int32_t masks __attribute__((vector_size(16)));

enum { LANES = 4 };

#define REACH 1e8f     /* more than a superblock holds; squares of 256 such values stay finite */
#define FLAT  0x1p-26f /* all that a block expresses is a multiple of 2^-24, so that this is nearest to nothing */

/* NaN counts as 0, what is out of reach saturates. */
static inline void take_values(const float *in, float *x, int n) {
    for (int i = 0; i < n; i++) {
        float v = in[i] < REACH ? in[i] : REACH;
        v = v > -REACH ? v : -REACH;
        x[i] = fabsf(in[i]) > FLAT ? v : 0; /* also for NaN */
    }
}

static inline lanes all(float v) {
    return (lanes){v, v, v, v};
}

static inline lanes pick(masks where, lanes a, lanes b) {
    return (lanes)(((masks)a & where) | ((masks)b & ~where));
}

static inline lanes lesser(lanes a, lanes b) {
#ifdef __SSE2__
    return _mm_min_ps(a, b); /* of the lines below the compilers do not make it */
#else
    return pick(a < b, a, b);
#endif
}

static inline lanes greater(lanes a, lanes b) {
#ifdef __SSE2__
    return _mm_max_ps(a, b);
#else
    return pick(a > b, a, b);
#endif
}

/* 1 / v, and 0 for 0. */
static inline lanes inverse_of(lanes v) {
    return pick(v != 0, 1 / pick(v != 0, v, all(1)), all(0));
}

/* The integer in low..high nearest to v, ties to even; low and high are less than 2^22: adding 1.5 2^23 leaves no place
 * for a fraction. */
static inline lanes nearest(lanes v, float low, float high) {
    lanes moved = lesser(greater(v, all(low)), all(high)) + 0x1.8p23f;
    return moved - 0x1.8p23f;
}

static inline float peak_of(const float *x, int n) {
    float peak = 0;
    for (int i = 0; i < n; i++)
        peak = fabsf(x[i]) > fabsf(peak) ? x[i] : peak;
    return peak;
}

/* The finite half nearest to a step, and not zero for what is not zero. */
static inline uint16_t half_step(float step) {
    uint16_t h = f32_to_f16(step), place = h & 0x7fff;
    if (step == 0)
        return 0;
    place = place < 1 ? 1 : place < HALF_LARGEST ? place : HALF_LARGEST;
    return (uint16_t)((h & 0x8000) | place);
}

#endif
