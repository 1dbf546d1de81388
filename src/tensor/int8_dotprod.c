/* int8_dotprod.c - quantised panels with SDOT. */
#if defined(__aarch64__)
#include "tensor/int8_neon.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile the *_dotprod.c files with -march=armv8.2-a+dotprod"
#endif

#define DOTPROD_PANEL(name, type) INT8_FUNCTION(name, type, dotprod, MOST_COLUMNS)
INT8_TYPES(DOTPROD_PANEL)
#else
typedef int pare_no_dotprod_int8;
#endif
