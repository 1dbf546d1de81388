/* What a good GGUF file says, and the sentence for each way in which one can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "model/gguf_write.h"

/* ---- a good file ---- */

static void build_good(str *out) {
    err          e = {0};
    gguf_writer *w = gguf_write_open_memory(out, &e);
    assert_non_null(w);
    const int32_t  ints[] = {-3, 0, 7};
    const float    floats[] = {0.5f, -2, 1e10f};
    const double   doubles[] = {0.25, -1e300};
    const uint64_t large[] = {1, UINT64_MAX};
    const gguf_str texts[] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    gguf_write_alignment(w, 64);
    gguf_write_int(w, "u8", GGUF_U8, 255);
    gguf_write_int(w, "i8", GGUF_I8, -128);
    gguf_write_int(w, "u16", GGUF_U16, 65535);
    gguf_write_int(w, "i16", GGUF_I16, -32768);
    gguf_write_int(w, "u32", GGUF_U32, UINT32_MAX);
    gguf_write_int(w, "i32", GGUF_I32, INT32_MIN);
    gguf_write_int(w, "u64", GGUF_U64, -1); /* all ones */
    gguf_write_int(w, "i64", GGUF_I64, INT64_MIN);
    gguf_write_float(w, "f32", GGUF_F32, 1.5);
    gguf_write_float(w, "f64", GGUF_F64, 1e-300);
    gguf_write_bool(w, "yes", true);
    gguf_write_bool(w, "no", false);
    gguf_write_text(w, "text", "hello");
    gguf_write_text(w, "empty", "");
    gguf_write_array(w, "ints", GGUF_I32, ints, 3);
    gguf_write_array(w, "floats", GGUF_F32, floats, 3);
    gguf_write_array(w, "doubles", GGUF_F64, doubles, 2);
    gguf_write_array(w, "large", GGUF_U64, large, 2);
    gguf_write_array(w, "nothing", GGUF_U8, NULL, 0);
    gguf_write_strings(w, "texts", texts, 3);
    gguf_write_tensor(w, "a", block_format_of(BLOCK_F32), 1, (int64_t[]){3});
    gguf_write_tensor(w, "b", block_format_of(BLOCK_Q4_0), 3, (int64_t[]){64, 2, 3});
    uint8_t data[36 * 6];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)i;
    assert_true(gguf_write_data(w, floats, 12));
    assert_true(gguf_write_data(w, data, 100)); /* in pieces */
    assert_true(gguf_write_data(w, data + 100, sizeof data - 100));
    assert_true(gguf_write_finish(w, &e));
}

static void check_numbers(const gguf *g) {
    err     e = {0};
    int64_t i;
    double  d;
    bool    b;
    assert_true(gguf_int(g, "u8", 0, 255, &i, &e) && i == 255);
    assert_true(gguf_int(g, "i8", -128, 0, &i, &e) && i == -128);
    assert_true(gguf_int(g, "u16", 0, 65535, &i, &e) && i == 65535);
    assert_true(gguf_int(g, "i16", INT64_MIN, 0, &i, &e) && i == -32768);
    assert_true(gguf_int(g, "u32", 0, INT64_MAX, &i, &e) && i == UINT32_MAX);
    assert_true(gguf_int(g, "i32", INT64_MIN, 0, &i, &e) && i == INT32_MIN);
    assert_true(gguf_int(g, "i64", INT64_MIN, 0, &i, &e) && i == INT64_MIN);
    assert_true(gguf_float(g, "f32", &d, &e) && d == 1.5);
    assert_true(gguf_float(g, "f64", &d, &e) && d == 1e-300);
    assert_true(gguf_bool(g, "yes", &b, &e) && b);
    assert_true(gguf_bool(g, "no", &b, &e) && !b);
    assert_int_equal(e.code, ERR_NONE);

    assert_false(gguf_int(g, "u64", 0, INT64_MAX, &i, &e));
    assert_non_null(strstr(e.text, "u64 is 18446744073709551615, must be 0 to "));
    assert_false(gguf_int(g, "u8", 1, 9, &i, &e));
    assert_string_equal(e.text, "good: u8 is 255, must be 1 to 9");
    assert_false(gguf_int(g, "gone", 1, 9, &i, &e));
    assert_string_equal(e.text, "good: the key gone is missing");
    assert_false(gguf_int(g, "f32", 1, 9, &i, &e));
    assert_string_equal(e.text, "good: f32 is a 32-bit float, must be an integer");
    assert_false(gguf_int(g, "yes", 0, 1, &i, &e));
    assert_false(gguf_float(g, "u8", &d, &e));
    assert_false(gguf_bool(g, "u8", &b, &e));
}

static void check_arrays(const gguf *g) {
    err       e = {0};
    gguf_str  s, texts[3];
    gguf_kind kind;
    size_t    count;
    int32_t   ints[3];
    float     floats[3];
    assert_true(gguf_string(g, "text", &s, &e) && s.len == 5 && memcmp(s.data, "hello", 5) == 0);
    assert_true(gguf_string(g, "empty", &s, &e) && s.len == 0);
    assert_false(gguf_string(g, "ints", &s, &e));
    assert_true(gguf_array(g, "ints", &kind, &count, &e) && kind == GGUF_I32 && count == 3);
    assert_true(gguf_array(g, "nothing", &kind, &count, &e) && kind == GGUF_U8 && count == 0);
    assert_false(gguf_array(g, "text", &kind, &count, &e));
    assert_true(gguf_array_ints(g, "ints", ints, 3, &e) && ints[0] == -3 && ints[2] == 7);
    assert_true(gguf_array_ints(g, "nothing", ints, 0, &e));
    assert_true(gguf_array_floats(g, "floats", floats, 3, &e) && floats[1] == -2);
    assert_true(gguf_array_floats(g, "doubles", floats, 2, &e) && floats[0] == 0.25f);
    assert_true(gguf_array_strings(g, "texts", texts, 3, &e));
    assert_true(texts[1].len == 0 && texts[2].len == 3 && memcmp(texts[2].data, "a\0b", 3) == 0);
    s = gguf_array_string(g, "texts", 0);
    assert_true(s.len == 3 && memcmp(s.data, "one", 3) == 0);
    assert_true(gguf_array_number(g, "ints", 0) == -3);
    assert_true(gguf_array_number(g, "large", 1) == 18446744073709551615.0);
    assert_true(gguf_array_number(g, "doubles", 1) == -1e300);
    /* Out of range or of another type: nothing, and no crash. */
    assert_int_equal(gguf_array_string(g, "texts", 3).len, 0);
    assert_int_equal(gguf_array_string(g, "ints", 0).len, 0);
    assert_int_equal(gguf_array_string(g, "gone", 0).len, 0);
    assert_true(gguf_array_number(g, "ints", SIZE_MAX) == 0);
    assert_true(gguf_array_number(g, "texts", 0) == 0);
    assert_true(gguf_array_number(g, "u8", 0) == 0);

    assert_false(gguf_array_ints(g, "ints", ints, 2, &e));
    assert_string_equal(e.text, "good: the array ints has 3 elements, must have 2");
    assert_false(gguf_array_ints(g, "large", ints, 2, &e));
    assert_string_equal(e.text, "good: element 1 of the array large is past 32 bits");
    assert_false(gguf_array_ints(g, "floats", ints, 3, &e));
    assert_false(gguf_array_floats(g, "ints", floats, 3, &e));
    assert_false(gguf_array_strings(g, "ints", texts, 3, &e));
    assert_string_equal(e.text, "good: an element of the array ints is a 32-bit integer, must be a string");
}

static void check_tensors(const gguf *g) {
    assert_int_equal(gguf_tensor_count(g), 2);
    const gguf_tensor *a = gguf_tensor_named(g, "a"), *b = gguf_tensor_named(g, "b");
    assert_ptr_equal(a, gguf_tensor_at(g, 0));
    assert_ptr_equal(b, gguf_tensor_at(g, 1));
    assert_null(gguf_tensor_at(g, 2));
    assert_null(gguf_tensor_named(g, "c"));
    assert_true(a->dims == 1 && a->shape[0] == 3 && a->shape[1] == 1 && a->bytes == 12);
    assert_true(b->dims == 3 && b->shape[0] == 64 && b->shape[1] == 2 && b->shape[2] == 3 && b->shape[3] == 1);
    assert_int_equal(b->bytes, 36 * 6);
    assert_int_equal((const char *)b->data - (const char *)a->data, 64); /* the alignment */
    assert_int_equal(((const uint8_t *)b->data)[215], 215);
    uint8_t two[2];
    err     e = {0};
    assert_true(gguf_read(g, b, 100, two, 2, &e) && two[0] == 100 && two[1] == 101);
    assert_false(gguf_read(g, b, 215, two, 2, &e));
    assert_false(gguf_read(g, b, SIZE_MAX, two, 2, &e));
}

static void good_in_memory(void **state) {
    (void)state;
    str file = {0};
    build_good(&file);
    err   e = {0};
    gguf *g = gguf_open_memory("good", file.data, file.len, &e);
    if (!g)
        fail_msg("%s", e.text);
    assert_string_equal(gguf_name(g), "good");
    assert_int_equal(gguf_bytes(g), file.len);
    assert_int_equal(gguf_key_count(g), 21);
    gguf_kind kind;
    assert_string_equal(gguf_key_at(g, 1, &kind), "u8");
    assert_int_equal(kind, GGUF_U8);
    assert_null(gguf_key_at(g, 21, &kind));
    check_numbers(g);
    check_arrays(g);
    check_tensors(g);
    gguf_close(g);

    file.data[4] = 2; /* version 2 has the same layout */
    g = gguf_open_memory("good", file.data, file.len, &e);
    assert_non_null(g);
    check_tensors(g);
    gguf_close(g);

    /* Nothing asks memory to be aligned. */
    char *odd = malloc(file.len + 1);
    memcpy(odd + 1, file.data, file.len);
    g = gguf_open_memory("good", odd + 1, file.len, &e);
    assert_non_null(g);
    check_numbers(g);
    check_arrays(g);
    check_tensors(g);
    gguf_close(g);
    free(odd);
    str_free(&file);
}

/* Each shorter version of the file is refused, with a sentence. */
static void every_truncation(void **state) {
    (void)state;
    str file = {0};
    build_good(&file);
    size_t whole = file.len - (64 - 216 % 64) % 64; /* the padding at the end holds nothing */
    for (size_t n = 0; n < whole; n++) {
        char *copy = malloc(n ? n : 1); /* of the exact size, for AddressSanitizer */
        memcpy(copy, file.data, n);
        err   e = {0};
        gguf *g = gguf_open_memory("cut", copy, n, &e);
        if (g)
            fail_msg("a file cut to %zu of %zu bytes was opened", n, file.len);
        assert_true(strlen(e.text) > 10);
        free(copy);
    }
    str_free(&file);
}

static void files(void **state) {
    (void)state;
    char path[64], part[80];
    err  e = {0};
    snprintf(path, sizeof path, "/tmp/pare-test-gguf-%ld.gguf", (long)getpid());
    gguf_writer *w = gguf_write_open(path, &e);
    assert_non_null(w);
    gguf_write_text(w, "general.name", "on disk");
    gguf_write_tensor(w, "t", block_format_of(BLOCK_F32), 2, (int64_t[]){1024, 1024});
    float row[1024] = {0};
    for (int i = 0; i < 1024; i++) {
        row[0] = (float)i;
        assert_true(gguf_write_data(w, row, sizeof row));
    }
    assert_int_not_equal(access(path, F_OK), 0); /* not before it is whole */
    assert_true(gguf_write_finish(w, &e));
    snprintf(part, sizeof part, "%s.part%ld", path, (long)getpid());
    assert_int_not_equal(access(part, F_OK), 0);

    gguf *g = gguf_open(path, &e);
    if (!g)
        fail_msg("%s", e.text);
    const gguf_tensor *t = gguf_tensor_named(g, "t");
    assert_true(t && t->bytes == 4 << 20 && ((const float *)t->data)[1023 * 1024] == 1023);
    assert_true(gguf_read(g, t, (size_t)7 * 4096, row, sizeof row, &e) && row[0] == 7);
    /* The file is cut while it is open. */
    assert_int_equal(truncate(path, 1 << 20), 0);
    assert_false(gguf_read(g, t, (size_t)1000 * 4096, row, sizeof row, &e));
    assert_non_null(strstr(e.text, "the file became shorter while it was read"));
    gguf_close(g);

    assert_null(gguf_open(path, &e));
    assert_non_null(strstr(e.text, "tensor t ends "));
    assert_non_null(strstr(e.text, " bytes past the end of the file (truncated download?)"));
    assert_int_equal(truncate(path, 0), 0);
    assert_null(gguf_open(path, &e));
    assert_non_null(strstr(e.text, "the file is empty"));
    unlink(path);
    assert_null(gguf_open(path, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_null(gguf_open("/tmp", &e));
    assert_non_null(strstr(e.text, "a directory"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_null(gguf_open(path, &e)); /* and does not wait for a writer */
    unlink(path);
}

static void writer_mistakes(void **state) {
    (void)state;
    err          e = {0};
    str          out = {0};
    gguf_writer *w = gguf_write_open_memory(&out, &e);
    gguf_write_tensor(w, "t", block_format_of(BLOCK_F32), 1, (int64_t[]){4});
    assert_true(gguf_write_data(w, "abcd", 4));
    assert_false(gguf_write_finish(w, &e));
    assert_non_null(strstr(e.text, "tensor 0 lacks data"));
    w = gguf_write_open_memory(&out, &e);
    gguf_write_tensor(w, "t", block_format_of(BLOCK_Q8_0), 1, (int64_t[]){33});
    assert_false(gguf_write_finish(w, &e));
    assert_non_null(strstr(e.text, "tensor t cannot have this shape as q8_0"));
    w = gguf_write_open_memory(&out, &e);
    assert_false(gguf_write_data(w, "x", 1));
    assert_false(gguf_write_finish(w, &e));
    assert_non_null(strstr(e.text, "more data than tensor"));
    assert_null(gguf_write_open("/nowhere/at/all.gguf", &e));
    assert_int_equal(e.code, ERR_IO);
    if (access("/dev/full", W_OK) == 0) { /* a full disk */
        int64_t shape[] = {1 << 20};
        char   *data = calloc(1, 4 << 20);
        char    path[64], link_path[80];
        snprintf(path, sizeof path, "/tmp/pare-test-full-%ld", (long)getpid());
        snprintf(link_path, sizeof link_path, "%s.part%ld", path, (long)getpid());
        /* A link in the way is not followed. */
        assert_int_equal(symlink("/dev/full", link_path), 0);
        assert_null(gguf_write_open(path, &e));
        unlink(link_path);
        w = gguf_write_open(path, &e);
        assert_non_null(w);
        gguf_write_tensor(w, "t", block_format_of(BLOCK_F32), 1, shape);
        gguf_write_data(w, data, 4 << 20);
        gguf_write_abandon(w);
        assert_int_not_equal(access(link_path, F_OK), 0);
        free(data);
    }
    str_free(&out);
}

/* ---- hostile files, byte by byte ---- */

static void u8(str *s, uint8_t v) {
    str_add(s, &v, 1);
}
static void u32(str *s, uint32_t v) {
    str_add(s, &v, 4);
}
static void u64(str *s, uint64_t v) {
    str_add(s, &v, 8);
}
static void text(str *s, const char *t) {
    u64(s, strlen(t));
    str_adds(s, t);
}
static void header(str *s, uint32_t version, uint64_t tensors, uint64_t keys) {
    str_add(s, "GGUF", 4);
    u32(s, version);
    u64(s, tensors);
    u64(s, keys);
}
static void tensor(str *s, const char *name, uint32_t dims, const uint64_t *shape, uint32_t type, uint64_t offset) {
    text(s, name);
    u32(s, dims);
    for (uint32_t d = 0; d < dims && d < 8; d++)
        u64(s, shape[d]);
    u32(s, type);
    u64(s, offset);
}
static void fill(str *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        str_addc(s, 0);
}

/* Opens a copy of the exact size, frees `s`, and wants `part` in the sentence. Nothing hostile takes long. */
static void refused(str *s, const char *part) {
    char *copy = malloc(s->len ? s->len : 1);
    if (s->len)
        memcpy(copy, s->data, s->len);
    err     e = {0};
    clock_t begin = clock();
    gguf   *g = gguf_open_memory("hostile", copy, s->len, &e);
    assert_true(clock() - begin < CLOCKS_PER_SEC / 2);
    if (g)
        fail_msg("was opened; expected: %s", part);
    if (!strstr(e.text, part))
        fail_msg("\"%s\" does not say \"%s\"", e.text, part);
    free(copy);
    str_free(s);
    *s = (str){0};
}

static void bad_beginnings(void **state) {
    (void)state;
    str s = {0};
    refused(&s, "not a GGUF file");
    str_adds(&s, "GGU");
    refused(&s, "not a GGUF file");
    str_adds(&s, "version https://git-lfs.github.com/spec/v1\n");
    refused(&s, "Git LFS pointer");
    str_adds(&s, "<!DOCTYPE html><html>");
    refused(&s, "web page");
    str_adds(&s, "tjgg\3\0\0\0");
    refused(&s, "older or byte-swapped ggml format");
    str_adds(&s, "GGUF");
    refused(&s, "the file ends at byte 4, inside the header");
    header(&s, 1, 0, 0);
    refused(&s, "GGUF version 1 is not read any more");
    header(&s, 0, 0, 0);
    refused(&s, "GGUF version 0; pare reads versions 2 and 3");
    header(&s, 4, 0, 0);
    refused(&s, "GGUF version 4");
    header(&s, 0x03000000, 0, 0);
    refused(&s, "big-endian");
}

static void bad_counts(void **state) {
    (void)state;
    str            s = {0};
    const uint64_t extremes[] = {65537, 1ull << 31, 1ull << 32, 1ull << 60, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
        header(&s, 3, extremes[i], 0);
        refused(&s, "tensors, pare reads at most 65536");
        header(&s, 3, 0, extremes[i]);
        fill(&s, 76);
        refused(&s, "keys, pare reads at most 65536");
        /* Lengths of names, texts and arrays. */
        header(&s, 3, 0, 1);
        u64(&s, extremes[i]);
        fill(&s, 100);
        refused(&s, "key 1 of 1 claims a string of ");
        header(&s, 3, 0, 1);
        text(&s, "k");
        u32(&s, GGUF_STRING);
        u64(&s, extremes[i]);
        fill(&s, 100);
        refused(&s, "the value of k claims a string of ");
        for (uint32_t kind = 0; kind <= GGUF_F64; kind++) {
            if (kind == GGUF_ARRAY)
                continue;
            header(&s, 3, 0, 1);
            text(&s, "k");
            u32(&s, GGUF_ARRAY);
            u32(&s, kind);
            u64(&s, extremes[i]);
            fill(&s, 100);
            refused(&s, "elements, more than the file holds");
        }
    }
    header(&s, 3, 10, 0);
    fill(&s, 100);
    refused(&s, "claims 10 tensors, more than a file of 124 bytes holds");
    header(&s, 3, 0, 10);
    fill(&s, 100);
    refused(&s, "claims 10 keys, more than a file of 124 bytes holds");
}

static void bad_keys(void **state) {
    (void)state;
    str s = {0};
    header(&s, 3, 0, 1);
    text(&s, "");
    fill(&s, 50);
    refused(&s, "the name of key 1 of 1 has 0 bytes");
    header(&s, 3, 0, 1);
    u64(&s, 65536);
    fill(&s, 70000);
    refused(&s, "has 65536 bytes, must have 1 to 65535");
    header(&s, 3, 0, 1);
    text(&s, "a\33[2J"); /* would clear the screen of whoever reads the log */
    fill(&s, 50);
    refused(&s, "holds the byte 0x1b");
    header(&s, 3, 0, 1);
    text(&s, "k");
    u32(&s, 13);
    fill(&s, 50);
    refused(&s, "k is of the unknown kind 13");
    header(&s, 3, 0, 1);
    text(&s, "k");
    u32(&s, GGUF_BOOL);
    u8(&s, 2);
    refused(&s, "k is a boolean with the value 2");
    header(&s, 3, 0, 1);
    text(&s, "k");
    u32(&s, GGUF_ARRAY);
    u32(&s, 99);
    u64(&s, 1);
    fill(&s, 50);
    refused(&s, "elements of the unknown kind 99");
    header(&s, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        text(&s, "k");
        u32(&s, GGUF_U32);
        u32(&s, 1);
    }
    refused(&s, "the key k appears twice");
    header(&s, 3, 0, 1); /* 10000 arrays, each in the one before */
    text(&s, "k");
    u32(&s, GGUF_ARRAY);
    for (int i = 0; i < 10000; i++) {
        u32(&s, GGUF_ARRAY);
        u64(&s, 1);
    }
    refused(&s, "k is an array of arrays");
    header(&s, 3, 0, 1); /* the second string ends past the file */
    text(&s, "k");
    u32(&s, GGUF_ARRAY);
    u32(&s, GGUF_STRING);
    u64(&s, 2);
    text(&s, "abc");
    u64(&s, 4);
    str_adds(&s, "abc");
    refused(&s, "the value of k claims a string of 4 bytes");
}

/* One tensor after no keys, then `data` bytes. */
static void one_tensor(str *s, uint32_t dims, const uint64_t *shape, uint32_t type, uint64_t offset, size_t data) {
    header(s, 3, 1, 0);
    tensor(s, "t", dims, shape, type, offset);
    fill(s, (32 - s->len % 32) % 32 + data);
}

static void bad_tensors(void **state) {
    (void)state;
    str            s = {0};
    const uint64_t one[8] = {32, 1, 1, 1, 1, 1, 1, 1};
    one_tensor(&s, 0, one, 0, 0, 128);
    refused(&s, "tensor t has 0 dimensions");
    one_tensor(&s, 5, one, 0, 0, 128);
    refused(&s, "tensor t has 5 dimensions");
    one_tensor(&s, UINT32_MAX, one, 0, 0, 128);
    refused(&s, "tensor t has 4294967295 dimensions");
    one_tensor(&s, 2, (const uint64_t[]){0, 4}, 0, 0, 128);
    refused(&s, "tensor t has 0 values in dimension 0");
    one_tensor(&s, 2, (const uint64_t[]){4, 0}, 0, 0, 128);
    refused(&s, "tensor t has 0 values in dimension 1");
    one_tensor(&s, 1, (const uint64_t[]){UINT64_MAX}, 0, 0, 128);
    refused(&s, "tensor t claims 18446744073709551615 values in dimension 0");
    one_tensor(&s, 4, (const uint64_t[]){1ull << 32, 1ull << 32, 2, 1}, 0, 0, 128);
    refused(&s, "more values than 64 bits count");
    one_tensor(&s, 1, (const uint64_t[]){1ull << 62}, 0, 0, 128); /* times 4 bytes wraps to 0 */
    refused(&s, "tensor t ");
    one_tensor(&s, 2, (const uint64_t[]){1ull << 31, 1ull << 31}, 0, 0, 128);
    refused(&s, "tensor t ");
    one_tensor(&s, 1, (const uint64_t[]){33}, BLOCK_Q4_0, 0, 128);
    refused(&s, "tensor t has rows of 33 values, not a multiple of q4_0's block of 32");
    one_tensor(&s, 1, one, UINT32_MAX, 0, 128);
    refused(&s, "tensor t is of the type 4294967295");
    one_tensor(&s, 1, one, 0, 8, 256);
    refused(&s, "begins at offset 8, not a multiple of the alignment 32");
    one_tensor(&s, 1, one, 0, 1ull << 63, 128);
    refused(&s, "tensor t begins past the end of the file");
    one_tensor(&s, 1, one, 0, UINT64_MAX - 31, 128); /* the place of the data plus this wraps */
    refused(&s, "tensor t begins past the end of the file");
    one_tensor(&s, 1, one, 0, 0, 127);
    refused(&s, "tensor t ends 1 bytes past the end of the file (truncated download?)");
    header(&s, 3, 2, 0);
    tensor(&s, "t", 1, one, 0, 0);
    tensor(&s, "t", 1, one, 0, 128);
    fill(&s, 400);
    refused(&s, "the tensor t appears twice");
    header(&s, 3, 2, 0);
    tensor(&s, "t", 1, one, 0, 128);
    tensor(&s, "u", 1, one, 0, 64);
    fill(&s, 400);
    refused(&s, "the tensors u and t overlap");
    header(&s, 3, 1, 0);
    u64(&s, 256);
    fill(&s, 400);
    refused(&s, "the name of tensor 1 of 1 has 256 bytes");
}

static void alignment(str *s, uint32_t kind, uint64_t value, size_t bytes) {
    header(s, 3, 0, 1);
    text(s, "general.alignment");
    u32(s, kind);
    str_add(s, &value, bytes);
}

static void bad_alignments(void **state) {
    (void)state;
    str s = {0};
    alignment(&s, GGUF_U32, 0, 4);
    refused(&s, "general.alignment is 0, must be 8 to 65536");
    alignment(&s, GGUF_U32, 4, 4);
    refused(&s, "general.alignment is 4");
    alignment(&s, GGUF_U32, 24, 4);
    refused(&s, "general.alignment is 24, must be a power of two");
    alignment(&s, GGUF_U32, UINT32_MAX, 4);
    refused(&s, "general.alignment is 4294967295");
    alignment(&s, GGUF_U64, 1ull << 63, 8);
    refused(&s, "general.alignment is 9223372036854775808");
    alignment(&s, GGUF_F32, 0, 4);
    refused(&s, "general.alignment is a 32-bit float");
    err e = {0};
    alignment(&s, GGUF_U32, 65536, 4);
    gguf *g = gguf_open_memory("hostile", s.data, s.len, &e);
    assert_non_null(g);
    gguf_close(g);
    str_free(&s);
}

/* A type that pare does not know stays in the list, without a size; nobody computes with it. */
static void unknown_type(void **state) {
    (void)state;
    str            s = {0};
    err            e = {0};
    const uint64_t shape[] = {INT64_MAX, 1};
    one_tensor(&s, 2, shape, 12345, 0, 0);
    gguf *g = gguf_open_memory("future", s.data, s.len, &e);
    if (!g)
        fail_msg("%s", e.text);
    const gguf_tensor *t = gguf_tensor_named(g, "t");
    assert_true(t && !t->format && t->type == 12345 && !t->data && t->bytes == 0);
    char c;
    assert_false(gguf_read(g, t, 0, &c, 1, &e));
    gguf_close(g);
    str_free(&s);
}

/* 65536 keys and tensors open in the time that their bytes take, not the square of their number. */
static void many_names(void **state) {
    (void)state;
    str s = {0};
    err e = {0};
    header(&s, 3, 65536, 65536);
    for (uint32_t i = 0; i < 65536; i++) {
        char name[16];
        snprintf(name, sizeof name, "k%u", i);
        text(&s, name);
        u32(&s, GGUF_U32);
        u32(&s, i);
    }
    for (uint64_t i = 0; i < 65536; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", (unsigned)i);
        tensor(&s, name, 1, (const uint64_t[]){8}, 0, (65535 - i) * 32); /* backwards */
    }
    fill(&s, (32 - s.len % 32) % 32 + 65536 * 32);
    clock_t begin = clock();
    gguf   *g = gguf_open_memory("many", s.data, s.len, &e);
    double  seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (!g)
        fail_msg("%s", e.text);
    assert_true(seconds < 2);
    assert_int_equal(gguf_tensor_count(g), 65536);
    assert_non_null(gguf_tensor_named(g, "t65535"));
    gguf_close(g);
    str_free(&s);
}

static void every_type(void **state) {
    (void)state;
    const char *path = "../shared/conformance/quants/all-types.gguf";
    if (access(path, R_OK) != 0) {
        print_message("%s is absent: skipped\n", path);
        skip();
    }
    err   e = {0};
    gguf *g = gguf_open(path, &e);
    if (!g)
        fail_msg("%s", e.text);
    assert_int_equal(gguf_tensor_count(g), 16);
    for (size_t i = 0; i < 16; i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        assert_true(t->dims == 2 && t->shape[0] == 1024 && t->shape[1] == 16);
        assert_ptr_equal(t->format, block_format_named(t->name + strlen("normal.")));
        char expected_path[128];
        bool plain = t->type == BLOCK_F32; /* the values themselves */
        snprintf(expected_path, sizeof expected_path, "../shared/conformance/quants/%s%s", plain ? "" : t->name + 7,
                 plain ? "normal.source.f32" : ".normal.bin");
        uint8_t *expected = malloc(t->bytes);
        FILE    *f = fopen(expected_path, "rb");
        assert_non_null(f);
        assert_int_equal(fread(expected, 1, t->bytes, f), t->bytes);
        assert_int_equal(fgetc(f), EOF); /* as many bytes as the tensor has */
        assert_memory_equal(expected, t->data, t->bytes);
        fclose(f);
        free(expected);
    }
    assert_int_equal(gguf_tensor_named(g, "normal.F32")->bytes, 65536);
    assert_int_equal(gguf_tensor_named(g, "normal.Q4_0")->bytes, 1024 / 32 * 18 * 16);
    gguf_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_in_memory),  cmocka_unit_test(every_truncation), cmocka_unit_test(files),
        cmocka_unit_test(writer_mistakes), cmocka_unit_test(bad_beginnings),   cmocka_unit_test(bad_counts),
        cmocka_unit_test(bad_keys),        cmocka_unit_test(bad_tensors),      cmocka_unit_test(bad_alignments),
        cmocka_unit_test(unknown_type),    cmocka_unit_test(many_names),       cmocka_unit_test(every_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
