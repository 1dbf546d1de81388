/* roofline_avx2.c - the longest reads and fullest pipes of AVX2 with FMA. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "tensor/roofline.h"

#define LINE           64
#define PREFETCH_BYTES 6912 /* as in kernels_avx2.c */
#define WIDEN_ROUNDS   4096 /* a 16-bit sum grows by two a round */

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The chains are variables and not an array, which gcc would keep in memory once an asm names its elements. */
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)

/* Hides from the compiler what a register holds, so that it neither folds or hoists a product of ones nor makes one
 * chain of several that look alike. Costs nothing. */
#define OPAQUE(x) __asm__ volatile("" : "+x"(x))

static uint64_t read_words(const void *from, size_t bytes) {
    const char *p = from;
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (const char *end = p + bytes; p < end; p += 2 * LINE) {
        __builtin_prefetch(p + PREFETCH_BYTES, 0, 3);
        __builtin_prefetch(p + PREFETCH_BYTES + LINE, 0, 3);
        UNROLL for (int i = 0; i < 4; i++) sum[i] =
            _mm256_add_epi64(sum[i], _mm256_load_si256((const void *)(p + i * LINE / 2)));
    }
    uint64_t words[4];
    _mm256_storeu_si256((void *)words,
                        _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3])));
    return words[0] + words[1] + words[2] + words[3];
}

static double sum_epi32(__m256i v) {
    int32_t lanes[8];
    double  total = 0;
    _mm256_storeu_si256((void *)lanes, v);
    for (int i = 0; i < 8; i++)
        total += lanes[i];
    return total;
}

#define BEGIN(i) __m256i sum##i = _mm256_setzero_si256();
#define ADD(i)   total += sum_epi32(_mm256_madd_epi16(sum##i, _mm256_set1_epi16(1)));
#define STEP(i)                                                                                                        \
    OPAQUE(a); /* each time: otherwise one product would serve all */                                                  \
    sum##i = _mm256_add_epi16(sum##i, _mm256_maddubs_epi16(a, ones));                                                  \
    OPAQUE(sum##i);

/* Pairs of products are added up in 16 bits, as the kernels do: maddubs and paddw for 32 multiply-adds. */
static double int8_chains(int rounds) {
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i       a = ones;
    double        total = 0;
    for (int now; rounds > 0; rounds -= now) {
        EACH_CHAIN(BEGIN)
        now = rounds < WIDEN_ROUNDS ? rounds : WIDEN_ROUNDS;
        for (int r = 0; r < now; r++) {
            EACH_CHAIN(STEP)
        }
        EACH_CHAIN(ADD)
    }
    return total;
}
#undef BEGIN
#undef ADD
#undef STEP

#define BEGIN(i) __m256 sum##i = _mm256_setzero_ps();
#define ADD(i)   total += sum_epi32(_mm256_cvtps_epi32(sum##i));
#define STEP(i)                                                                                                        \
    sum##i = _mm256_fmadd_ps(ones, ones, sum##i);                                                                      \
    OPAQUE(sum##i);

static double f32_chains(int rounds) {
    const __m256 ones = _mm256_set1_ps(1);
    double       total = 0;
    EACH_CHAIN(BEGIN)
    for (int r = 0; r < rounds; r++) {
        EACH_CHAIN(STEP)
    }
    EACH_CHAIN(ADD)
    return total;
}

const roofline_kernels roofline_avx2 = {"avx2", read_words, int8_chains, NULL, f32_chains};
#else
typedef int pare_no_avx2_roofline;
#endif
