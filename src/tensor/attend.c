/* attend.c - the division of the scratch memory and the rounding of queries, the same for every instruction set. */
#include "tensor/attend.h"

#include <math.h>
#include <string.h>

#include "tensor/attend_parts.h"

/* Takes `floats` floats off the memory, to the next multiple of 64 bytes. */
static float *take(char *memory, size_t *used, size_t floats) {
    float *part = memory ? (float *)(void *)(memory + *used) : NULL;
    *used += (floats + 15) / 16 * 16 * sizeof(float);
    return part;
}

size_t attend_divide(void *memory, int rows, int dim, attend_parts *out) {
    size_t n = (size_t)rows, ld = ((size_t)dim + 15) / 16 * 16, groups = (size_t)dim / KV_GROUP, used = 0;
    out->ld = ld;
    out->scores = take(memory, &used, n * ATTEND_GROUP);
    out->factor = take(memory, &used, n);
    out->keys = take(memory, &used, ATTEND_GROUP * ld);
    out->values = take(memory, &used, ATTEND_GROUP * ld);
    size_t queries_at = used;
    out->queries = take(memory, &used, n * ld);
    size_t float_end = used;
    used = queries_at;
    out->q = (int8_t *)take(memory, &used, n * ld / 4);
    out->q_scale = take(memory, &used, n * groups);
    out->q_sum = (int32_t *)(void *)take(memory, &used, n * groups);
    return used > float_end ? used : float_end;
}

size_t attend_scratch(int rows, int dim) {
    attend_parts parts;
    return attend_divide(NULL, rows, dim, &parts);
}

/* The sizes of floats order like their bits, a NaN after everything; and integers the compiler turns into vectors. */
static float largest_of(const float *x) {
    uint32_t largest = 0;
    float    peak;
    for (int i = 0; i < KV_GROUP; i++) {
        uint32_t size;
        memcpy(&size, x + i, sizeof size);
        size &= 0x7fffffffu;
        largest = size > largest ? size : largest;
    }
    memcpy(&peak, &largest, sizeof peak);
    return peak;
}

void attend_round(const float *x, int n, int8_t *q, float *scales, int32_t *sums) {
    const float nearest = 0x1.8p23f; /* adding it leaves a float no places after the point */
    for (int b = 0; b < n / KV_GROUP; b++, x += KV_GROUP, q += KV_GROUP) {
        float   peak = largest_of(x), inverse = 127.0f / peak;
        int32_t sum = 0;
        sums[b] = 0;
        if (!(isfinite(peak) && peak > KV_TINY)) {
            scales[b] = isfinite(peak) ? 0.0f : NAN;
            memset(q, 0, KV_GROUP);
            continue;
        }
        scales[b] = peak / 127.0f;
        for (int i = 0; i < KV_GROUP; i++) {
            float scaled = x[i] * inverse; /* a statement of its own, so that no compiler fuses it with the addition */
            float whole = scaled + nearest;
            int32_t rounded = (int32_t)(whole - nearest);
            q[i] = (int8_t)rounded;
            sum += rounded;
        }
        sums[b] = sum;
    }
}
