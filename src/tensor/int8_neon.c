/* int8_neon.c - quantised panels with what every armv8-a has. */
#if defined(__aarch64__)
#include "tensor/int8_neon.h"

INT8_FUNCTIONS(neon, MOST_COLUMNS, MOST_COLUMNS)
#else
typedef int pare_no_neon_int8;
#endif
