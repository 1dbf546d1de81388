/* roofline_dotprod.c - the roofs with SDOT. */
#if defined(__aarch64__)
#include "tensor/roofline_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile the *_dotprod.c files with -march=armv8.2-a+dotprod"
#endif

const roofline_kernels roofline_dotprod = {"dotprod", read_words, int8_chains, NULL, f32_chains};
#else
typedef int pare_no_dotprod_roofline;
#endif
