/* safetensors: what is read, what is refused and with which sentence, and thousands of damaged headers. */
#include "model/safetensors.h"
#include "model/test_import_bed.h"

static str with_header(const char *header, size_t data) {
    str      s = {0};
    uint64_t n = strlen(header);
    str_add(&s, &n, 8);
    str_add(&s, header, n);
    for (size_t i = 0; i < data; i++)
        str_addc(&s, (char)i);
    return s;
}

static void refused(const char *header, size_t data, const char *says) {
    err          e = {0};
    str          s = with_header(header, data);
    safetensors *f = safetensors_open_memory("hostile", s.data, s.len, &e);
    if (f)
        fail_msg("%s was taken", header);
    assert_says(e, says);
    str_free(&s);
}

static void read_back(void **state) {
    (void)state;
    err           e = {0};
    st_file       s = {0};
    const float   a[6] = {1, -2, 3, 4, 5, 0.5f};
    const int64_t shape[2] = {2, 3}, none[1] = {0};
    uint16_t      half = f32_to_f16(1.5f);
    st_add(&s, "a.weight", "F32", 2, shape, a, sizeof a);
    st_add(&s, "empty", "I64", 1, none, NULL, 0);
    st_add(&s, "scalar", "F16", 0, shape, &half, 2);
    str_adds(&s.header, ",\"__metadata__\":{\"format\":\"pt\"}");
    str          bytes = st_bytes(&s);
    safetensors *f = safetensors_open_memory("good", bytes.data, bytes.len, &e);
    assert_ok(f, e);
    assert_int_equal(safetensors_count(f), 3);
    const st_tensor *t = safetensors_named(f, "a.weight");
    assert_int_equal(t->dims, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->type, BLOCK_F32);
    float got[2];
    assert_ok(safetensors_read(f, t, 16, got, sizeof got, &e), e);
    assert_true(got[0] == 5 && got[1] == 0.5f);
    assert_false(safetensors_read(f, t, 20, got, sizeof got, &e)); /* past its end */
    assert_int_equal(safetensors_named(f, "scalar")->dims, 0);
    assert_int_equal(safetensors_named(f, "empty")->type, -1);
    assert_null(safetensors_named(f, "other"));
    safetensors_close(f);
    str_free(&bytes);
}

#define T(dtype, shape, offsets) "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void refusals(void **state) {
    (void)state;
    err e = {0};
    assert_null(safetensors_open_memory("short", "1234", 4, &e));
    assert_says(e, "too few for a safetensors file");
    assert_null(safetensors_open_memory("GGUF?", "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, &e));
    assert_says(e, "is it a safetensors file?");
    assert_null(safetensors_open_memory("cut", "\x64\0\0\0\0\0\0\0{}", 10, &e));
    assert_says(e, "does not fit the file");
    refused("[]", 0, "does not begin with");
    refused("{\"a\":1", 0, "not JSON");
    refused("{\"t\":3}", 0, "must be an object");
    refused(T("F32", "[2]", "[0,8]"), 7, "truncated download?");
    refused(T("F32", "[2]", "[0,8]"), 9, "1 bytes after the last tensor belong to nothing");
    refused(T("F32", "[2]", "[4,12]"), 12, "leaves a hole");
    refused(T("F32", "[3]", "[0,8]"), 8, "its shape as F32 takes 12");
    refused(T("F32", "[-1]", "[0,8]"), 8, "no whole number from 0 on");
    refused(T("F32", "[1.5]", "[0,8]"), 8, "no whole number from 0 on");
    refused(T("F32", "[4294967296,4294967296]", "[0,8]"), 8, "larger than any file");
    refused(T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "9 dimensions");
    refused(T("F32", "[2]", "[8,0]"), 8, "data_offsets are 8 to 0");
    refused(T("F32", "[2]", "[0]"), 8, "two whole numbers");
    refused(T("F32", "[2]", "[0,\"8\"]"), 8, "two whole numbers");
    refused(T("F32", "2", "[0,8]"), 8, "must be an array");
    refused(T("Q4", "[2]", "[0,8]"), 8, "\"Q4\", which pare does not know");
    refused("{\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2],\"x\":1}}", 2, "unknown member \"x\"");
    refused("{\"\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, "name has 0 bytes");
    refused("{\"a\\u0000b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, "control character");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "strings only");
    refused("{\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
            "\"t\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
            4, "stands twice");
    refused("{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
            "\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[2,6]}}",
            6, "tensor b begins at byte 2 of the data, but the tensor before ends at 4");
    str deep = {0};
    for (int i = 0; i < 100; i++)
        str_adds(&deep, "{\"a\":");
    refused(deep.data, 0, "nested deeper than 64");
    str_free(&deep);
}

/* A file that becomes shorter while it is open. */
static void shrinks(void **state) {
    (void)state;
    bed     b;
    err     e = {0};
    st_file s = {0};
    char    path[100], got[8];
    bed_open(&b);
    st_numbers(&s, "t", "F32", 16, 64, 1);
    st_save(&s, &b, "model.safetensors");
    snprintf(path, sizeof path, "%s/model.safetensors", b.dir);
    safetensors *f = safetensors_open(path, &e);
    assert_ok(f, e);
    assert_int_equal(truncate(path, 500), 0);
    const st_tensor *t = safetensors_at(f, 0);
    assert_ok(safetensors_read(f, t, 0, got, 8, &e), e);
    assert_false(safetensors_read(f, t, t->bytes - 8, got, 8, &e));
    assert_says(e, "has become shorter");
    safetensors_close(f);
    assert_null(safetensors_open(b.dir, &e));
    assert_null(safetensors_open("/nowhere/model.safetensors", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    bed_close(&b);
}

static void mutations(void **state) {
    (void)state;
    enum { ROUNDS = 20000 };
    static const char parts[] = "{}[]\",:0123456789-eE.\\u";
    st_file           s = {0};
    uint64_t          random = 7;
    int               bad = 0;
    st_numbers(&s, "model.embed_tokens.weight", "BF16", 8, 16, 1);
    st_numbers(&s, "model.norm.weight", "F32", 0, 16, 2);
    st_numbers(&s, "lm_head.weight", "F16", 8, 16, 3);
    str    whole = st_bytes(&s);
    size_t header = 8 + (size_t)(uint8_t)whole.data[0] + 256u * (uint8_t)whole.data[1];
    for (int i = 0; i < ROUNDS; i++) {
        err    e = {0};
        size_t n = whole.len;
        char  *copy = malloc(n);
        memcpy(copy, whole.data, n);
        for (int k = 1 + (int)(test_random(&random) % 3); k > 0; k--) {
            size_t at = test_random(&random) % header;
            switch (test_random(&random) % 4) {
            case 0:
                copy[at] = (char)test_random(&random);
                break;
            case 1:
                copy[at] = parts[test_random(&random) % (sizeof parts - 1)];
                break;
            case 2:
                copy[at] ^= (char)(1 << test_random(&random) % 8);
                break;
            default:
                if (test_random(&random) % 8 == 0)
                    n = test_random(&random) % whole.len;
            }
        }
        char *exact = malloc(n ? n : 1);
        memcpy(exact, copy, n < whole.len ? n : whole.len);
        free(copy);
        safetensors *f = safetensors_open_memory("mutated", exact, n, &e);
        for (size_t k = 0; f && k < safetensors_count(f); k++) {
            const st_tensor *t = safetensors_at(f, k);
            char             byte;
            if (t->bytes)
                assert_true(safetensors_read(f, t, t->bytes - 1, &byte, 1, &e));
        }
        if (!f) {
            bad++;
            assert_true(strlen(e.text) > 10);
            assert_int_not_equal(e.code, ERR_NONE);
            assert_int_not_equal(e.code, ERR_INTERNAL);
        }
        safetensors_close(f);
        free(exact);
    }
    print_message("%d of %d mutations refused\n", bad, ROUNDS);
    assert_true(bad > ROUNDS / 2 && bad < ROUNDS);
    str_free(&whole);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(read_back), cmocka_unit_test(refusals),
                                       cmocka_unit_test(shrinks), cmocka_unit_test(mutations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
