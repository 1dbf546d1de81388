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
#endif

static bool always(void) {
    return true;
}

/* Best first. */
static const struct {
    const kernels *table;
    bool (*usable)(void);
} choices[] = {
#if defined(__x86_64__)
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#endif
    {&kernels_scalar, always},
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
        log_warn("PARE_ISA=%s: this machine has no such kernels (scalar, avx2 or avx512); choosing the best it has",
                 wish);
    }
    for (size_t i = 0; i < CHOICES; i++)
        if (choices[i].usable())
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
