/* A whole small model, damaged in thousands of ways: opened as a file and as a model, it either works or says why not.
 * Deterministic; built with -DPARE_ASAN=ON this is where a read past the end shows.                                  */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "model/model.h"
#include "model/tiny_model.h"

enum { ROUNDS = 4000 };

static uint64_t random_state = 0x243f6a8885a308d3ULL;

static uint64_t random64(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static const uint64_t extremes[] = {0,          1,          2,          3,         7,          32,
                                    0xff,       0x100,      0xffff,     1u << 31,  INT32_MAX,  UINT32_MAX,
                                    1ull << 32, 1ull << 60, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX};

/* Bytes before the data: where a change means something. */
static size_t header_bytes(const str *file) {
    err    e = {0};
    gguf  *g = gguf_open_memory("whole", file->data, file->len, &e);
    size_t n = (size_t)((const char *)gguf_tensor_at(g, 0)->data - file->data);
    gguf_close(g);
    return n;
}

static void damage(char *data, size_t *n, size_t header) {
    size_t span = random64() % 8 ? header : *n; /* mostly the header */
    for (int left = 1 + (int)(random64() % 3); left > 0; left--) {
        size_t at = random64() % span;
        size_t width = random64() & 1 ? 4 : 8;
        switch (random64() % 5) {
        case 0:
            *n = random64() % 4 ? at : *n - random64() % (*n / 8);
            return;
        case 1:
            data[at] ^= (char)(1 << random64() % 8);
            break;
        case 2:
            data[at] = (char)random64();
            break;
        case 3: /* lengths and counts are near names: aim at their places too */
            at &= ~(size_t)3;
            /* fall through */
        default:
            if (at + width <= *n)
                memcpy(data + at, &extremes[random64() % (sizeof extremes / sizeof *extremes)], width);
        }
    }
}

/* Reads what there is, so that a sanitizer sees every pointer that was handed out. */
static uint64_t read_all(const gguf *g) {
    uint64_t sum = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        for (size_t k = 0; k < t->bytes; k++)
            sum += ((const uint8_t *)t->data)[k];
    }
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        gguf_kind   kind;
        size_t      count;
        gguf_str    s;
        const char *key = gguf_key_at(g, i, &kind);
        if (gguf_string(g, key, &s, NULL))
            sum += s.len ? (uint64_t)s.data[s.len - 1] : 0;
        if (!gguf_array(g, key, &kind, &count, NULL))
            continue;
        for (size_t k = 0; k < count; k++) {
            s = gguf_array_string(g, key, k);
            sum += (s.len ? (uint64_t)s.data[s.len - 1] : 0) + (gguf_array_number(g, key, k) > 0);
        }
    }
    return sum;
}

/* Returns whether it was refused as a file and as a model. */
static void try(const char *data, size_t n, int *bad_files, int *bad_models) {
    err   e = {0};
    gguf *g = gguf_open_memory("mutated", data, n, &e);
    if (g) {
        volatile uint64_t sum = read_all(g);
        (void)sum;
    } else {
        ++*bad_files;
        assert_int_not_equal(e.code, ERR_NONE);
        assert_int_not_equal(e.code, ERR_INTERNAL);
        assert_true(strlen(e.text) > 10);
    }
    gguf_close(g);
    e = (err){0};
    model *m = model_open("mutated", data, n, NULL, &e);
    if (m) {
        /* Never more memory than the file accounts for: 16 rows for one, 4 bytes for a half. */
        assert_true(m->weight_bytes < n * 40);
    } else {
        ++*bad_models;
        assert_int_not_equal(e.code, ERR_NONE);
        assert_int_not_equal(e.code, ERR_INTERNAL);
        assert_true(strlen(e.text) > 10);
    }
    model_close(m);
}

static void mutations(void **state) {
    (void)state;
    str  file = {0};
    err  e = {0};
    tiny t = {0};
    assert_true(tiny_build(&t, &file, &e));
    int bad_files = 0, bad_models = 0;
    try(file.data, file.len, &bad_files, &bad_models);
    assert_int_equal(bad_files, 0);
    assert_int_equal(bad_models, 0);
    size_t header = header_bytes(&file);
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = file.len;
        char  *copy = malloc(n);
        memcpy(copy, file.data, n);
        damage(copy, &n, header);
        char *exact = malloc(n ? n : 1); /* no slack behind it */
        memcpy(exact, copy, n);
        free(copy);
        try(exact, n, &bad_files, &bad_models);
        free(exact);
    }
    print_message("%d mutations of %zu bytes (header %zu): %d refused as files, %d as models\n", ROUNDS, file.len,
                  header, bad_files, bad_models);
    assert_true(bad_files > ROUNDS / 4); /* the damage does damage */
    assert_true(bad_models < ROUNDS);    /* and not only */
    str_free(&file);
}

/* Every aligned or unaligned place of the header takes every extreme, in a file without the long vocabulary. */
static void every_place(void **state) {
    (void)state;
    str  file = {0};
    err  e = {0};
    tiny t = {.no_tokenizer = true};
    assert_true(tiny_build(&t, &file, &e));
    int    bad_files = 0, bad_models = 0;
    size_t header = header_bytes(&file);
    for (size_t at = 4; at + 8 <= header; at++) {
        uint64_t before, extreme = extremes[at % (sizeof extremes / sizeof *extremes)];
        memcpy(&before, file.data + at, 8);
        memcpy(file.data + at, &extreme, at % 3 ? 8 : 4);
        try(file.data, file.len, &bad_files, &bad_models);
        memcpy(file.data + at, &before, 8);
    }
    assert_true(bad_files > 0 && bad_models > 0);
    str_free(&file);
}

int main(void) {
    log_setup(LOG_OFF, false); /* the tokenizer warns of odd ids, here thousands of times */
    const struct CMUnitTest tests[] = {cmocka_unit_test(mutations), cmocka_unit_test(every_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
