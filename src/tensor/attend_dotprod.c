/* attend_dotprod.c - attention with SDOT for quantised keys. */
#if defined(__aarch64__)
#include "tensor/attend_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile the *_dotprod.c files with -march=armv8.2-a+dotprod"
#endif

void attend_dotprod(const attend_span *s) {
    attend(s);
}
#else
typedef int pare_no_attend_dotprod;
#endif
