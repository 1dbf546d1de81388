/* kernels.c - which table this CPU can use. */
#include "tensor/kernels.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_avx2(void) {
    unsigned a, b, c = 0, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) &&
           (c & bit_F16C);
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool has_bf16(void) {
    unsigned a = 0, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16);
}

/* Where bfloat16 dot products are twice as fast as float32 products (0.96 against 0.50 TFLOPS on two Zen 5 cores). On Intel
 * they are half as fast (0.17 against 0.35, Emerald Rapids: `pare bench --roofline`). */
static bool has_fast_bf16(void) {
    return has_bf16() && __builtin_cpu_is("amd");
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

static bool has_dotprod(void) {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}
#endif

static bool always(void) {
    return true;
}

#if defined(__x86_64__)
#define NAMES "scalar, avx2, avx512 or avx512bf16"
#elif defined(__aarch64__)
#define NAMES "scalar, neon or dotprod"
#else
#define NAMES "only scalar"
#endif

/* Best first. */
static const struct {
    const kernels *table;
    bool (*usable)(void);
    bool (*preferred)(void); /* where not asked for by name; NULL: where usable */
} choices[] = {
#if defined(__x86_64__)
    {&kernels_avx512bf16, has_bf16, has_fast_bf16},
    {&kernels_avx512, has_avx512, NULL},
    {&kernels_avx2, has_avx2, NULL},
#elif defined(__aarch64__)
    {&kernels_dotprod, has_dotprod, NULL},
    {&kernels_neon, always, NULL}, /* every armv8-a has it */
#endif
    {&kernels_scalar, always, NULL},
};

#define CHOICES (sizeof choices / sizeof *choices)

const kernels *kernels_named(const char *name) {
    for (size_t i = 0; name && i < CHOICES; i++)
        if (strcmp(choices[i].table->name, name) == 0)
            return choices[i].usable() ? choices[i].table : NULL;
    return NULL;
}

static const kernels *choose(void) {
    const char *wish = getenv("PARE_ISA");
    if (wish && *wish) {
        const kernels *k = kernels_named(wish);
        if (k)
            return k;
        log_warn("PARE_ISA=%s: this machine has no such kernels (" NAMES "); choosing the best it has", wish);
    }
    for (size_t i = 0; i < CHOICES; i++)
        if ((choices[i].preferred ? choices[i].preferred : choices[i].usable)())
            return choices[i].table;
    return &kernels_scalar;
}

const kernels *kernels_get(void) {
    static _Atomic(const kernels *) chosen;
    const kernels                  *k = atomic_load_explicit(&chosen, memory_order_acquire);
    if (!k) { /* two threads that come here at once choose the same */
        k = choose();
        atomic_store_explicit(&chosen, k, memory_order_release);
    }
    return k;
}
