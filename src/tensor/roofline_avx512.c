/* roofline_avx512.c - the longest reads and fullest pipes of AVX-512 with VNNI and BF16. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "tensor/roofline.h"

#define LINE           64
#define PREFETCH_BYTES 6912 /* as in kernels_avx512.c */

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The chains are variables and not an array, which gcc would keep in memory once an asm names its elements. */
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

/* Hides from the compiler what a register holds, so that it neither folds or hoists a product of ones nor makes one
 * chain of several that look alike. Costs nothing. */
#define OPAQUE(x) __asm__ volatile("" : "+v"(x))

static uint64_t read_words(const void *from, size_t bytes) {
    const char *p = from;
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (const char *end = p + bytes; p < end; p += 4 * LINE)
        UNROLL for (int i = 0; i < 4; i++) {
            __builtin_prefetch(p + PREFETCH_BYTES + i * LINE, 0, 3);
            sum[i] = _mm512_add_epi64(sum[i], _mm512_load_si512(p + i * LINE));
        }
    __m512i  all = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
    uint64_t words[8], wrapped = 0; /* unsigned: it may */
    _mm512_storeu_si512(words, all);
    for (int i = 0; i < 8; i++)
        wrapped += words[i];
    return wrapped;
}

/* Twelve chains fill two units with a latency of up to six. */
#define ADD_INT8(i)  total += _mm512_reduce_add_epi32(sum##i);
#define ADD_FLOAT(i) total += (double)_mm512_reduce_add_ps(sum##i);

static double int8_chains(int rounds) {
    const __m512i ones = _mm512_set1_epi8(1);
    double        total = 0;
#define BEGIN(i) __m512i sum##i = _mm512_setzero_si512();
#define STEP(i)                                                                                                        \
    sum##i = _mm512_dpbusd_epi32(sum##i, ones, ones);                                                                  \
    OPAQUE(sum##i);
    EACH_CHAIN(BEGIN)
    for (int r = 0; r < rounds; r++) {
        EACH_CHAIN(STEP)
    }
    EACH_CHAIN(ADD_INT8)
#undef BEGIN
#undef STEP
    return total;
}

static double bf16_chains(int rounds) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80); /* 1.0 */
    double         total = 0;
#define BEGIN(i) __m512 sum##i = _mm512_setzero_ps();
#define STEP(i)                                                                                                        \
    sum##i = _mm512_dpbf16_ps(sum##i, ones, ones);                                                                     \
    OPAQUE(sum##i);
    EACH_CHAIN(BEGIN)
    for (int r = 0; r < rounds; r++) {
        EACH_CHAIN(STEP)
    }
    EACH_CHAIN(ADD_FLOAT)
#undef STEP
    return total;
}

static double f32_chains(int rounds) {
    const __m512 ones = _mm512_set1_ps(1);
    double       total = 0;
#define STEP(i)                                                                                                        \
    sum##i = _mm512_fmadd_ps(ones, ones, sum##i);                                                                      \
    OPAQUE(sum##i);
    EACH_CHAIN(BEGIN)
    for (int r = 0; r < rounds; r++) {
        EACH_CHAIN(STEP)
    }
    EACH_CHAIN(ADD_FLOAT)
#undef BEGIN
#undef STEP
    return total;
}

const roofline_kernels roofline_avx512 = {"avx512", read_words, int8_chains, bf16_chains, f32_chains};
#else
typedef int pare_no_avx512_roofline;
#endif
