/* check.h - what every cmocka test includes, in the order cmocka wants it. */
#ifndef PARE_TESTS_CHECK_H
#define PARE_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

/* Shows the sentence when something failed that should not have. */
#define assert_ok(expression, e)                                                                                       \
    do {                                                                                                               \
        if (!(expression)) {                                                                                           \
            fail_msg("%s: %s", #expression, (e).text);                                                                 \
        }                                                                                                              \
    } while (0)

/* The sentence must hold this part. */
#define assert_says(e, part)                                                                                           \
    do {                                                                                                               \
        if (!strstr((e).text, (part))) {                                                                               \
            fail_msg("\"%s\" does not say \"%s\"", (e).text, (part));                                                  \
        }                                                                                                              \
    } while (0)

/* A small generator for tests: the same numbers everywhere. Source: splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

#endif
