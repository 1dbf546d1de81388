/* int8_dotprod.c - quantised panels with SDOT. */
#if defined(__aarch64__)
#include "tensor/int8_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile the *_dotprod.c files with -march=armv8.2-a+dotprod"
#endif

INT8_FUNCTIONS(dotprod, MOST_COLUMNS, MOST_COLUMNS)
#else
typedef int pare_no_dotprod_int8;
#endif
