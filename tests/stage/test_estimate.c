/* The estimate against its rule as it is written in the header, run by run. */
#include "check.h"

#include <ctype.h>

#include "base/clock.h"
#include "stage/estimate.h"

static int class_of(unsigned char c) {
    if (c >= 0x80) {
        return 4;
    }
    if (isalpha(c)) {
        return 1;
    }
    if (isdigit(c)) {
        return 2;
    }
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' ? 0 : 3;
}

static int64_t plain(const char *text, size_t n) {
    int64_t tokens = 0;
    for (size_t i = 0; i < n;) {
        int    kind = class_of((unsigned char)text[i]);
        size_t begin = i;
        while (i < n && class_of((unsigned char)text[i]) == kind) {
            i++;
        }
        int64_t run = (int64_t)(i - begin);
        tokens += kind == 0   ? run > 1
                  : kind == 1 ? (run <= 7 ? 1 : 1 + (run - 7 + 4) / 5)
                  : kind == 3 ? run
                              : (run + 2) / 3;
    }
    return tokens;
}

static void test_against_the_rule(void **state) {
    (void)state;
    static char text[20000];
    uint64_t    seed = 3;
    for (int round = 0; round < 3000; round++) {
        size_t n = 0, length = round < 2500 ? (size_t)round : sizeof text - (size_t)round;
        while (n < length) {
            static const char *const from[] = {" \n\t\r", "abcXYZ", "0123456789", ".,;!?-\x01", "\xC3\xA9\xF0\x9F"};
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            const char *set = from[(seed >> 33) % 5];
            size_t      run = 1 + (seed >> 40) % (round % 7 == 0 ? 5000 : 24), many = strlen(set);
            for (size_t i = 0; i < run && n < length; i++) {
                text[n++] = set[(seed >> 20) * (i + 1) % many];
            }
        }
        assert_int_equal(estimate_text(text, n), plain(text, n));
    }
    assert_int_equal(estimate_text("", 0), 0);
    assert_int_equal(estimate_text("The order of 1234 books", 23), 6);
}

static void test_speed(void **state) {
    (void)state;
    size_t n = 450 << 10;
    char  *text = malloc(n);
    for (size_t i = 0; i < n; i++) {
        text[i] = "Where is the order 001234 that left this morning? "[i % 50];
    }
    int64_t best = INT64_MAX, tokens = 0;
    for (int i = 0; i < 20; i++) {
        int64_t began = clock_us();
        tokens += estimate_text(text, n);
        best = clock_us() - began < best ? clock_us() - began : best;
    }
    print_message("450 KB: %lld us, %lld tokens\n", (long long)best, (long long)(tokens / 20));
    assert_true(best < 20000);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_the_rule), cmocka_unit_test(test_speed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
