/* int8_neon.c - quantised panels with what every armv8-a has. */
#if defined(__aarch64__)
#include "tensor/int8_neon.h"

#define NEON_PANEL(name, type) INT8_FUNCTION(name, type, neon, MOST_COLUMNS)
INT8_TYPES(NEON_PANEL)
#else
typedef int pare_no_neon_int8;
#endif
