/* vector_math.h - the exponential of vectors. Include it after a vector_*.h, which defines `vec` and its v_* operations. */
#ifndef PARE_TENSOR_VECTOR_MATH_H
#define PARE_TENSOR_VECTOR_MATH_H

#include "tensor/unroll.h"

/* e^x within 2 ulp: x = m ln 2 + r, |r| <= ln 2 / 2, Taylor's polynomial of degree 7 for e^r (next term 5e-9). ln 2 is
 * split in two so that m ln 2 is exact in its upper part. */
TILE vec v_exp(vec x) {
    x = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x)); /* where float32 ends; a NaN stays a NaN */
    vec m = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
    vec r = v_fma(m, v_set1(-0x1.62e4p-1f), x);
    r = v_fma(m, v_set1(-0x1.7f7d1cp-20f), r);
    vec p = v_set1(1.0f / 5040);
    p = v_fma(p, r, v_set1(1.0f / 720));
    p = v_fma(p, r, v_set1(1.0f / 120));
    p = v_fma(p, r, v_set1(1.0f / 24));
    p = v_fma(p, r, v_set1(1.0f / 6));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(p, r, v_set1(1.0f));
    p = v_fma(p, r, v_set1(1.0f));
    return v_scale(p, m);
}

/* e^x for x <= 0, and 0 where that is below 2^-125: a subnormal result takes the processor a hundred cycles and more. */
TILE vec v_exp_down(vec x) {
    const vec least = v_set1(-86.0f);
    return v_keep(v_exp(v_max(least, x)), x, least);
}

#endif
