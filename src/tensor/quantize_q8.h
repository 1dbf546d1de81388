/* quantize_q8.h - activations to int8, the same for every instruction set: one scale for a stretch, a share of it for each
 * block of 32 (columns.h). A file that includes it defines before:
 *
 *   float block_peak(const float *x)                                                   largest |x|, nothing that is NaN
 *   void quantize_block(const float *x, float inverse, int8_t *q, int32_t *halves)     q = round(x * inverse)
 *
 * The share is rounded up, so that nothing is cut off. A stretch too small for 127 / peak to be finite counts as zero.    */
#ifndef PARE_TENSOR_QUANTIZE_Q8_H
#define PARE_TENSOR_QUANTIZE_Q8_H

#include <math.h>

#include "tensor/kernels.h"
#include "tensor/panel.h"

static inline float q8_share(float peak, float stretch_peak) {
    float eighths = ceilf(peak * (Q8_SHARES / stretch_peak));
    if (!(eighths >= 1)) /* and where infinity met infinity */
        eighths = 1;
    return (eighths < Q8_SHARES ? eighths : Q8_SHARES) / Q8_SHARES;
}

static void quantize_q8(const float *x, int8_t *q, float *scales, float *shares, int32_t *halves, int n) {
    for (int k = 0; k < n; k += Q8_STRETCH) {
        int   blocks = (n - k < Q8_STRETCH ? n - k : Q8_STRETCH) / BLOCK_INPUTS;
        float peaks[Q8_STRETCH / BLOCK_INPUTS], peak = 0;
        for (int b = 0; b < blocks; b++) {
            peaks[b] = block_peak(x + k + b * BLOCK_INPUTS);
            peak = peaks[b] > peak ? peaks[b] : peak;
        }
        bool  zero = !(peak > Q8_TINY);
        float inverse = zero ? 0.0f : 127.0f / peak;
        *scales++ = zero ? 0.0f : peak / 127.0f;
        for (int b = 0; b < blocks; b++, shares++, halves += 2) {
            *shares = zero ? 1.0f : q8_share(peaks[b], peak);
            quantize_block(x + k + b * BLOCK_INPUTS, inverse / *shares, q + k + b * BLOCK_INPUTS, halves);
        }
    }
}

#endif
