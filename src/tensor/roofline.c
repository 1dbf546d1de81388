/* roofline.c - measures the roofs, and the plain C kernels for machines without vector ones. */
#include "tensor/roofline.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tensor/kernels.h"

#define MOST_BYTES   ((size_t)512 << 20) /* beyond the last-level cache of any machine but the largest */
#define LEAST_BYTES  ((size_t)32 << 20)
#define PIECE_BYTES  ((size_t)1 << 20) /* of which threads claim some at a time */
#define PIECE_GRAIN  4
#define READ_PASSES  5
#define CHAIN_PASSES 5
#define PASS_S       0.012 /* a pass of arithmetic: short enough to slip between a neighbour's turns */
#define MOST_READ_S  0.35
#define WARM_S       0.02 /* cores that slept take a while to come to speed */

/* ---- plain C ---- */

#define LANES 64

static uint64_t read_words(const void *from, size_t bytes) {
    const uint64_t *p = from;
    uint64_t        sum = 0;
    for (size_t words = bytes / sizeof *p, i = 0; i < words; i += 8) {
        __builtin_prefetch(p + i + 512);
        for (size_t k = 0; k < 8; k++)
            sum += p[i + k];
    }
    return sum;
}

/* Hides from the compiler what an array holds: it may use vectors, but must do each product. Costs nothing. */
#define OPAQUE(array) __asm__ volatile("" : : "r"(array) : "memory")

static double int8_chains(int rounds) {
    static volatile int8_t one = 1;
    int32_t                sum[LANES] = {0};
    int8_t                 a[LANES];
    double                 total = 0;
    memset(a, 1, sizeof a);
    OPAQUE(a);
    OPAQUE(sum);
    for (int r = 0; r < rounds; r++) {
        int8_t b = one; /* read again each round */
        for (int i = 0; i < LANES; i++)
            sum[i] += a[i] * b;
    }
    for (int i = 0; i < LANES; i++)
        total += sum[i];
    return total;
}

static double f32_chains(int rounds) {
    static volatile float one = 1;
    float                 sum[LANES] = {0}, a[LANES];
    double                total = 0;
    for (int i = 0; i < LANES; i++)
        a[i] = one;
    OPAQUE(a);
    OPAQUE(sum);
    for (int r = 0; r < rounds; r++) {
        float b = one;
        for (int i = 0; i < LANES; i++)
            sum[i] += a[i] * b;
    }
    for (int i = 0; i < LANES; i++)
        total += (double)sum[i];
    return total;
}

const roofline_kernels roofline_scalar = {"scalar", read_words, int8_chains, NULL, f32_chains};

const roofline_kernels *roofline_kernels_named(const char *name) {
    static const roofline_kernels *const all[] = {
#if defined(__x86_64__)
        &roofline_avx512,
        &roofline_avx2,
#elif defined(__aarch64__)
        &roofline_dotprod,
        &roofline_neon,
#endif
        &roofline_scalar
    };
    if (!kernels_named(name))
        return NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

bool roofline_has_bf16(const roofline_kernels *k) {
#if defined(__x86_64__)
    return k->bf16 && __builtin_cpu_supports("avx512bf16");
#else
    return k->bf16;
#endif
}

/* ---- measuring ---- */

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct reading {
    const roofline_kernels *k;
    char                   *bytes;
    double (*chains)(int rounds);
    _Atomic uint64_t sum; /* of words or of multiply-adds: who uses what was computed keeps it from being left out */
} reading;

static void fill_pieces(void *arg, int begin, int end, int thread) {
    (void)thread;
    reading *r = arg;
    memset(r->bytes + (size_t)begin * PIECE_BYTES, 1, (size_t)(end - begin) * PIECE_BYTES);
}

static void read_pieces(void *arg, int begin, int end, int thread) {
    (void)thread;
    reading *r = arg;
    atomic_fetch_add(&r->sum, r->k->read(r->bytes + (size_t)begin * PIECE_BYTES, (size_t)(end - begin) * PIECE_BYTES));
}

/* A machine short of memory is read in a smaller stretch rather than pushed into swap. */
static size_t stretch(void) {
    long   pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t bytes = MOST_BYTES;
    while (pages > 0 && page > 0 && bytes > LEAST_BYTES && bytes / (size_t)page > (size_t)pages / 2)
        bytes /= 2;
    return bytes;
}

static bool read_bandwidth(pool *p, const roofline_kernels *k, double *out, err *e) {
    size_t  bytes = stretch();
    int     pieces = (int)(bytes / PIECE_BYTES);
    reading r = {.k = k};
    void   *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return err_set(e, ERR_MEMORY, "no memory to measure the read bandwidth (%zu MiB)", bytes >> 20);
    madvise(memory, bytes, MADV_HUGEPAGE); /* where it is refused the figure is the one of small pages */
    r.bytes = memory;
    pool_run(p, pieces, PIECE_GRAIN, fill_pieces, &r);
    double began = now_s(), best = 0;
    for (int i = 0; i < READ_PASSES && (i == 0 || now_s() - began < MOST_READ_S); i++) {
        double start = now_s();
        pool_run(p, pieces, PIECE_GRAIN, read_pieces, &r);
        double rate = (double)bytes / (now_s() - start);
        best = rate > best ? rate : best;
    }
    munmap(memory, bytes);
    *out = best;
    return true;
}

static void run_chains(void *arg, int begin, int end, int thread) {
    (void)thread;
    reading *r = arg;
    for (int i = begin; i < end; i++)
        atomic_fetch_add(&r->sum, (uint64_t)r->chains(ROOFLINE_ROUNDS));
}

/* Multiply-adds a second in a pass of `pieces`; *seconds is how long it took. */
static double chain_rate(pool *p, reading *r, int pieces, double *seconds) {
    atomic_store(&r->sum, 0);
    double start = now_s();
    pool_run(p, pieces, 1, run_chains, r);
    *seconds = now_s() - start;
    return (double)atomic_load(&r->sum) / *seconds;
}

static double arithmetic(pool *p, double (*chains)(int rounds)) {
    reading r = {.chains = chains};
    double  best = 0, seconds = 0;
    int     pieces = 4 * pool_threads(p);
    for (double began = now_s(); now_s() - began < WARM_S;)
        chain_rate(p, &r, pieces, &seconds);
    while (seconds < PASS_S && pieces < 1 << 24) {
        pieces *= 2;
        chain_rate(p, &r, pieces, &seconds);
    }
    for (int i = 0; i < CHAIN_PASSES; i++) {
        double rate = chain_rate(p, &r, pieces, &seconds);
        best = rate > best ? rate : best;
    }
    return 2 * best;
}

bool roofline_measure(pool *p, roofline *out, err *e) {
    const roofline_kernels *k = roofline_kernels_named(kernels_get()->name);
    if (!k)
        return err_set(e, ERR_INTERNAL, "there is no roofline for the kernels \"%s\"", kernels_get()->name);
    *out = (roofline){.threads = pool_threads(p), .isa = k->name};
    out->int8_ops_s = arithmetic(p, k->int8);
    out->bf16_flops_s = roofline_has_bf16(k) ? arithmetic(p, k->bf16) : 0;
    out->f32_flops_s = arithmetic(p, k->f32);
    return read_bandwidth(p, k, &out->read_bytes_s, e);
}
