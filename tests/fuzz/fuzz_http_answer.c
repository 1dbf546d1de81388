/* An HTTP/1 answer in random pieces: never a crash, and the same verdict and body as in one piece. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend/http_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

/* seed 0: in one piece */
static http_step run(http_answer *a, const char *text, size_t n, uint32_t seed, str *all) {
    http_step step = HTTP_MORE;
    for (size_t at = 0; at < n && step == HTTP_MORE;) {
        seed = seed ? seed * 1664525 + 1013904223 : 0;
        size_t      piece = seed ? 1 + (seed >> 24) % 9 : n;
        const char *bytes = text + at, *body = NULL;
        size_t      left = piece < n - at ? piece : n - at, body_n = 0;
        err         e = {0};
        at += left;
        while ((step = http_answer_step(a, &bytes, &left, &body, &body_n, &e)) == HTTP_BODY) {
            must(body >= text && body_n > 0 && body + body_n <= text + n);
            must(str_add(all, body, body_n));
        }
        must(step != HTTP_MORE || left == 0);
        must(step != HTTP_BAD || e.text[0]);
    }
    err e = {0};
    return step == HTTP_MORE ? http_answer_closed(a, &e) : step;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    http_answer one = {0}, many = {0};
    str         whole = {0}, pieces = {0};
    uint32_t    seed = n ? data[0] + 1u : 1;
    http_step   a = run(&one, (const char *)data, n, 0, &whole);
    http_step   b = run(&many, (const char *)data, n, seed, &pieces);
    must(a == b && whole.len == pieces.len && (whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0));
    must(a != HTTP_END || (one.status == many.status && one.keep == many.keep && strcmp(one.type, many.type) == 0));
    str_free(&whole);
    str_free(&pieces);
    http_answer_clear(&one);
    http_answer_clear(&many);
    return 0;
}
