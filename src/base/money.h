/* money.h - nano-dollars, as money is kept inside, and the micro-dollars that people are shown.
 *
 * One token at $1 per million is 1000 nano-dollars. Sums are made of nano-dollars and rounded once, where they are
 * printed: rounding each small request first would drift by up to half a micro-dollar a request.                     */
#ifndef PARE_BASE_MONEY_H
#define PARE_BASE_MONEY_H

#include <stdint.h>

#define MONEY_USD 1000000000LL /* nano-dollars in a dollar */

/* Rounded half up, away from zero; for str_usd. */
static inline int64_t money_micro(int64_t nano) {
    return nano / 1000 + (nano % 1000 >= 500) - (nano % 1000 <= -500);
}

/* A sum that stays at the end of its range instead of wrapping: providers' counts are not to be trusted. */
static inline int64_t money_add(int64_t a, int64_t b) {
    return b > 0 && a > INT64_MAX - b ? INT64_MAX : b < 0 && a < INT64_MIN - b ? INT64_MIN : a + b;
}

#endif
