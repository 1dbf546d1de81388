/* block_sets.h - what the tests of block formats share: ../shared/conformance/quants, read whole. */
#ifndef PARE_TESTS_BLOCK_SETS_H
#define PARE_TESTS_BLOCK_SETS_H

#include "check.h"

#include "tensor/block.h"

#define QUANTS "../shared/conformance/quants/"

/* Those that round plainly give the reference's very blocks; the rest search, and are held to its error. */
static const char *const types[] = {"F16",  "BF16", "Q4_0", "Q4_1", "Q5_0",   "Q5_1",   "Q8_0", "Q2_K",
                                    "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"};

enum { TYPES = sizeof types / sizeof *types, PLAIN = 7, ROWS = 16, COLS = 1024 };

/* NAME, or KIND.SET.ENDING where there is a kind. A zero byte follows the data. NULL when it is absent. */
static inline void *read_set(const char *kind, const char *set, const char *ending, size_t *n) {
    char path[256];
    snprintf(path, sizeof path, QUANTS "%s%s%s%s", kind, *kind ? "." : "", set, ending);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    char *data = malloc(*n + 1);
    rewind(f);
    if (fread(data, 1, *n, f) != *n)
        fail_msg("cannot read %s", path);
    fclose(f);
    data[*n] = 0;
    return data;
}

static inline void need_conformance(void) {
    size_t n;
    void  *data = read_set("", "normal", ".source.f32", &n);
    if (!data) {
        print_message("skipped: no %s here\n", QUANTS);
        skip();
    }
    free(data);
}

#endif
