/* attend_neon.c - attention with what every armv8-a has. */
#if defined(__aarch64__)
#include "tensor/attend_neon.h"

void attend_neon(const attend_span *s) {
    attend(s);
}
#else
typedef int pare_no_attend_neon;
#endif
