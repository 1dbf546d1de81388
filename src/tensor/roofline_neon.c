/* roofline_neon.c - the roofs with what every armv8-a has. */
#if defined(__aarch64__)
#include "tensor/roofline_neon.h"

const roofline_kernels roofline_neon = {"neon", read_words, int8_chains, NULL, f32_chains};
#else
typedef int pare_no_neon_roofline;
#endif
