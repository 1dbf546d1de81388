/* Files that are quantised and read again: every tensor's bits, the metadata, what stays precise, what is refused. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "learn/quantize.h"
#include "model/gguf_write.h"
#include "tensor/block.h"

enum { DIM = 256, FFN = 512, VOCAB = 40, LAYERS = 8, ODD = 96 };

static char in_path[128], out_path[128];

static int setup(void **state) {
    (void)state;
    snprintf(in_path, sizeof in_path, "/tmp/pare-quantize-%ld-in.gguf", (long)getpid());
    snprintf(out_path, sizeof out_path, "/tmp/pare-quantize-%ld-out.gguf", (long)getpid());
    return 0;
}

static int teardown(void **state) {
    (void)state;
    unlink(in_path);
    unlink(out_path);
    return 0;
}

/* ---- a model of F16 with a bit of everything ---- */

typedef struct made {
    const char *name;
    block_type  type;
    int         dims;
    int64_t     shape[4];
} made;

static const made beside[] = {
    {"token_embd.weight", BLOCK_F16, 2, {DIM, VOCAB, 1, 1}}, {"output_norm.weight", BLOCK_F32, 1, {DIM, 1, 1, 1}},
    {"output.weight", BLOCK_F16, 2, {DIM, 520, 1, 1}},       {"position_embd.weight", BLOCK_F16, 2, {DIM, 16, 1, 1}},
    {"odd.weight", BLOCK_F16, 2, {ODD, 40, 1, 1}},           {"odder.weight", BLOCK_F16, 2, {50, 40, 1, 1}},
    {"small.weight", BLOCK_F16, 2, {256, 2, 1, 1}},          {"half_bias", BLOCK_F16, 1, {DIM, 1, 1, 1}},
};
static const made layer[] = {
    {"attn_norm.weight", BLOCK_F32, 1, {DIM, 1, 1, 1}},   {"attn_q.weight", BLOCK_F16, 2, {DIM, 24, 1, 1}},
    {"attn_v.weight", BLOCK_BF16, 2, {DIM, 8, 1, 1}},     {"ffn_gate_inp.weight", BLOCK_F32, 2, {DIM, 4, 1, 1}},
    {"ffn_up_exps.weight", BLOCK_F16, 3, {DIM, 6, 4, 1}}, {"ffn_up_exps.bias", BLOCK_F32, 2, {512, 4, 1, 1}},
    {"ffn_down.weight", BLOCK_F32, 2, {FFN, 10, 1, 1}},
};
enum { BESIDE = sizeof beside / sizeof *beside, LAYER = sizeof layer / sizeof *layer };

static void put_tensor(gguf_writer *w, const made *t, uint64_t *seed, bool declare, int number) {
    char name[80];
    if (number < 0)
        snprintf(name, sizeof name, "%s", t->name);
    else
        snprintf(name, sizeof name, "blk.%d.%s", number, t->name);
    const block_format *f = block_format_of((int)t->type);
    if (declare) {
        gguf_write_tensor(w, name, f, t->dims, t->shape);
        return;
    }
    int64_t n = t->shape[0] * t->shape[1] * t->shape[2];
    float  *x = malloc((size_t)n * sizeof *x);
    char   *blocks = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(int32_t)(test_random(seed) >> 32) * 0x1p-33f * (1 + (float)(i % 7));
    size_t bytes = 0;
    block_row_bytes(f, n, &bytes);
    block_from_f32(t->type, x, blocks, n);
    gguf_write_data(w, blocks, bytes);
    free(blocks);
    free(x);
}

static void put_keys(gguf_writer *w) {
    static const uint64_t large[] = {UINT64_MAX, 1, 0};
    static const int8_t   small[] = {-1, 2};
    static const uint8_t  flags[] = {1, 0, 1};
    static const double   doubles[] = {0.1, -1e300};
    static const gguf_str words[] = {{"a", 1}, {"", 0}, {"b\0c", 3}};
    gguf_write_text(w, "general.architecture", "made-up");
    gguf_write_int(w, "made-up.block_count", GGUF_U32, LAYERS);
    gguf_write_int(w, "general.file_type", GGUF_U32, 1);
    gguf_write_int(w, "k.i8", GGUF_I8, -5);
    gguf_write_int(w, "k.u64", GGUF_U64, -1);
    gguf_write_int(w, "k.i64", GGUF_I64, INT64_MIN);
    gguf_write_int(w, "k.u16", GGUF_U16, 65535);
    gguf_write_float(w, "k.f64", GGUF_F64, 0.1);
    gguf_write_float(w, "k.f32", GGUF_F32, -0.0);
    gguf_write_bool(w, "k.bool", true);
    gguf_write_string(w, "k.text", "x\0y", 3);
    gguf_write_array(w, "k.u64s", GGUF_U64, large, 3);
    gguf_write_array(w, "k.i8s", GGUF_I8, small, 2);
    gguf_write_array(w, "k.bools", GGUF_BOOL, flags, 3);
    gguf_write_array(w, "k.f64s", GGUF_F64, doubles, 2);
    gguf_write_array(w, "k.none", GGUF_F32, NULL, 0);
    gguf_write_strings(w, "k.words", words, 3);
    gguf_write_alignment(w, 64);
}

static gguf *make_model(void) {
    err          e = {0};
    uint64_t     seed = 1;
    gguf_writer *w = gguf_write_open(in_path, &e);
    assert_ok(w, e);
    put_keys(w);
    for (int declare = 1; declare >= 0; declare--) {
        for (int i = 0; i < BESIDE; i++)
            put_tensor(w, &beside[i], &seed, declare, -1);
        for (int l = 0; l < LAYERS; l++)
            for (int i = 0; i < LAYER; i++)
                put_tensor(w, &layer[i], &seed, declare, l);
    }
    assert_ok(gguf_write_finish(w, &e), e);
    gguf *g = gguf_open(in_path, &e);
    assert_ok(g, e);
    return g;
}

/* ---- what must come out ---- */

/* The tensor's bits are those of block_from_f32 of the whole source; where the type is the same, the source's. */
static void check_bits(const gguf *source, const gguf *out, const char *name, const char *type) {
    const gguf_tensor *a = gguf_tensor_named(source, name), *b = gguf_tensor_named(out, name);
    assert_non_null(a);
    assert_non_null(b);
    if (strcmp(b->format->name, type) != 0)
        fail_msg("%s is %s, not %s", name, b->format->name, type);
    assert_memory_equal(a->shape, b->shape, sizeof a->shape);
    assert_int_equal(a->dims, b->dims);
    int64_t n = a->shape[0] * a->shape[1] * a->shape[2] * a->shape[3];
    float  *x = malloc((size_t)n * sizeof *x);
    char   *blocks = malloc((size_t)n * 4);
    block_to_f32(a->format->type, a->data, x, n);
    memset(blocks, 0xa5, (size_t)n * 4); /* a quantiser that writes nothing is seen */
    block_from_f32(b->format->type, x, blocks, n);
    assert_memory_equal(a->format == b->format ? a->data : blocks, b->data, b->bytes);
    free(blocks);
    free(x);
}

static void check_keys(const gguf *source, const gguf *out, int file_type) {
    assert_int_equal(gguf_key_count(out), gguf_key_count(source) + 1);
    for (size_t i = 0; i < gguf_key_count(source); i++) {
        gguf_value  a, b;
        const char *key = gguf_key_at(source, i, NULL);
        assert_string_equal(gguf_key_at(out, i, NULL), key);
        assert_true(gguf_value_at(source, i, &a) && gguf_value_at(out, i, &b));
        assert_int_equal(a.kind, b.kind);
        assert_int_equal(a.count, b.count);
        if (strcmp(key, "general.file_type") == 0)
            continue;
        if (a.strings) {
            for (size_t k = 0; k < a.count; k++) {
                assert_int_equal(a.strings[k].len, b.strings[k].len);
                assert_memory_equal(a.strings[k].data, b.strings[k].data, a.strings[k].len);
            }
            continue;
        }
        static const size_t each[] = {1, 1, 2, 2, 4, 4, 4, 1, 1, 0, 8, 8, 8};
        size_t              bytes = a.kind == GGUF_ARRAY    ? a.count * each[a.element]
                                    : a.kind == GGUF_STRING ? a.count
                                                            : each[a.kind];
        if (a.kind == GGUF_ARRAY)
            assert_int_equal(a.element, b.element);
        assert_memory_equal(a.bytes, b.bytes, bytes);
    }
    int64_t value;
    err     e = {0};
    assert_ok(gguf_int(out, "general.file_type", 0, 99, &value, &e), e);
    assert_int_equal(value, file_type);
    assert_ok(gguf_int(out, "general.quantization_version", 2, 2, &value, &e), e);
}

static gguf *quantized(const gguf *g, const quantize_options *o, quantize_error *errors, pool *p) {
    err            e = {0};
    quantize_plan *plan = quantize_plan_new(g, o, &e);
    assert_ok(plan, e);
    quantize_job job = {.p = p, .errors = errors};
    assert_ok(quantize_write(plan, out_path, &job, &e), e);
    quantize_plan_free(plan);
    gguf *out = gguf_open(out_path, &e);
    assert_ok(out, e);
    return out;
}

static void test_every_format(void **state) {
    (void)state;
    static const struct {
        const char *type, *odd; /* rows of 96 */
        int         file_type;
    } cases[] = {{"f32", "f32", 0},        {"f16", "f16", 1},        {"bf16", "bf16", 32},  {"q8_0", "q8_0", 7},
                 {"q4_0", "q4_0", 2},      {"q4_1", "q4_1", 3},      {"q5_0", "q5_0", 8},   {"q5_1", "q5_1", 9},
                 {"q3_k", "iq4_nl", 11},   {"q4_k", "q5_0", 14},     {"q5_k", "q5_1", 16},  {"q6_k", "q8_0", 18},
                 {"IQ4_NL", "iq4_nl", 25}, {"iq4_xs", "iq4_nl", 30}, {"mxfp4", "mxfp4", 38}};
    gguf          *g = make_model();
    err            e = {0};
    pool          *p = pool_new(2, &e);
    quantize_error errors[BESIDE + LAYERS * LAYER];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        quantize_options o = {.type = cases[i].type};
        gguf            *out = quantized(g, &o, errors, p);
        const char      *t = block_format_named(cases[i].type)->name;
        bool             f32 = strcmp(t, "f32") == 0;
        check_keys(g, out, cases[i].file_type);
        check_bits(g, out, "token_embd.weight", t);
        check_bits(g, out, "output.weight", t);
        check_bits(g, out, "odd.weight", cases[i].odd);
        check_bits(g, out, "odder.weight", f32 ? "f32" : strcmp(t, "bf16") == 0 ? "bf16" : "f16");
        check_bits(g, out, "blk.3.attn_q.weight", t);
        check_bits(g, out, "blk.3.attn_v.weight", t);
        check_bits(g, out, "blk.3.ffn_up_exps.weight", t);
        check_bits(g, out, "blk.7.ffn_down.weight", t);
        check_bits(g, out, "output_norm.weight", "f32");
        check_bits(g, out, "half_bias", "f32");
        check_bits(g, out, "position_embd.weight", f32 ? "f32" : "f16");
        check_bits(g, out, "small.weight", f32 ? "f32" : "f16");
        check_bits(g, out, "blk.0.ffn_gate_inp.weight", "f32");
        check_bits(g, out, "blk.0.ffn_up_exps.bias", "f32");
        gguf_close(out);
    }
    pool_free(p);
    gguf_close(g);
}

static void test_mixtures(void **state) {
    (void)state;
    gguf            *g = make_model();
    quantize_options o = {.type = "Q4_K_M"};
    gguf            *out = quantized(g, &o, NULL, NULL);
    check_bits(g, out, "output.weight", "q6_k");
    check_bits(g, out, "token_embd.weight", "q4_k");
    check_bits(g, out, "blk.0.attn_q.weight", "q4_k");
    static const char *const down[] = {"q6_k", "q4_k", "q4_k", "q6_k", "q4_k", "q4_k", "q6_k", "q6_k"};
    for (int l = 0; l < LAYERS; l++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.ffn_down.weight", l);
        check_bits(g, out, name, down[l]);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", l);
        check_bits(g, out, name, down[l]);
    }
    gguf_close(out);
    o.type = "q2_k";
    out = quantized(g, &o, NULL, NULL);
    check_bits(g, out, "output.weight", "q6_k");
    check_bits(g, out, "blk.4.attn_q.weight", "q2_k");
    check_bits(g, out, "blk.4.attn_v.weight", "q3_k");
    check_bits(g, out, "blk.4.ffn_down.weight", "q3_k");
    gguf_close(out);
    o.type = "q3_k_m";
    out = quantized(g, &o, NULL, NULL);
    check_bits(g, out, "blk.1.attn_v.weight", "q5_k");
    check_bits(g, out, "blk.2.attn_v.weight", "q4_k");
    check_bits(g, out, "blk.0.ffn_down.weight", "q4_k");
    gguf_close(out);
    o.type = "mxfp4_moe";
    out = quantized(g, &o, NULL, NULL);
    check_bits(g, out, "blk.1.ffn_up_exps.weight", "mxfp4");
    check_bits(g, out, "blk.1.attn_q.weight", "q8_0");
    gguf_close(out);
    gguf_close(g);
}

static void test_rules(void **state) {
    (void)state;
    gguf               *g = make_model();
    const quantize_rule rules[] = {{"blk.*", block_format_named("q5_0")},
                                   {"blk.2.*", block_format_named("q8_0")},
                                   {"position_embd.weight", block_format_named("q4_0")},
                                   {"blk.3.attn_q.weight", NULL}};
    quantize_options    o = {.type = "q4_k",
                             .rules = rules,
                             .rule_count = 4,
                             .output = block_format_named("q6_k"),
                             .embedding = block_format_named("f16")};
    gguf               *out = quantized(g, &o, NULL, NULL);
    check_bits(g, out, "blk.1.attn_q.weight", "q5_0");
    check_bits(g, out, "blk.2.attn_q.weight", "q8_0");
    check_bits(g, out, "blk.2.attn_norm.weight", "f32"); /* a pattern spares it */
    check_bits(g, out, "blk.2.ffn_gate_inp.weight", "f32");
    check_bits(g, out, "position_embd.weight", "q4_0"); /* a full name does not */
    check_bits(g, out, "blk.3.attn_q.weight", "f16");
    check_bits(g, out, "output.weight", "q6_k");
    check_bits(g, out, "token_embd.weight", "f16");
    gguf_close(out);
    gguf_close(g);
}

static void test_errors_are_true(void **state) {
    (void)state;
    gguf            *g = make_model();
    quantize_error   errors[BESIDE + LAYERS * LAYER];
    quantize_options o = {.type = "q4_0"};
    gguf            *out = quantized(g, &o, errors, NULL);
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const gguf_tensor *a = gguf_tensor_at(g, i), *b = gguf_tensor_at(out, i);
        int64_t            n = a->shape[0] * a->shape[1] * a->shape[2];
        float             *x = malloc((size_t)n * sizeof *x), *y = malloc((size_t)n * sizeof *y);
        double             error = 0, source = 0;
        block_to_f32(a->format->type, a->data, x, n);
        block_to_f32(b->format->type, b->data, y, n);
        for (int64_t k = 0; k < n; k++) {
            error += ((double)x[k] - (double)y[k]) * ((double)x[k] - (double)y[k]);
            source += (double)x[k] * (double)x[k];
        }
        assert_true(fabs(quantize_relative(&errors[i]) - sqrt(error / source)) < 1e-9);
        assert_true(a->format == b->format || errors[i].rms > 0 || b->format->type == BLOCK_F32);
        free(x);
        free(y);
    }
    gguf_close(out);
    gguf_close(g);
}

static void test_refusals(void **state) {
    (void)state;
    gguf            *g = make_model();
    err              e = {0};
    quantize_options o = {.type = "q4_x"};
    assert_null(quantize_plan_new(g, &o, &e));
    assert_says(e, "q4_x");
    assert_says(e, "q4_k_m");
    quantize_rule none = {"blk.99.*", block_format_named("q8_0")};
    o = (quantize_options){.type = "q4_0", .rules = &none, .rule_count = 1};
    assert_null(quantize_plan_new(g, &o, &e));
    assert_says(e, "blk.99.*");

    o = (quantize_options){.type = "q8_0"};
    gguf *q8 = quantized(g, &o, NULL, NULL);
    assert_int_equal(rename(out_path, in_path), 0); /* g keeps its mapping */
    o.type = "q4_0";
    assert_null(quantize_plan_new(q8, &o, &e));
    assert_says(e, "worse");
    assert_says(e, "--allow-requantize");
    o.allow_requantize = true;
    gguf *q4 = quantized(q8, &o, NULL, NULL);
    check_bits(q8, q4, "blk.0.attn_q.weight", "q4_0");
    gguf_close(q4);
    o = (quantize_options){.type = "q8_0"}; /* the same type again loses nothing */
    q4 = quantized(q8, &o, NULL, NULL);
    check_bits(q8, q4, "blk.0.attn_q.weight", "q8_0");
    gguf_close(q4);
    gguf_close(q8);
    gguf_close(g);
}

/* ---- what goes wrong leaves nothing ---- */

static int files_here(void) {
    char command[200], line[16] = "";
    snprintf(command, sizeof command, "ls %s* 2>/dev/null | wc -l", out_path);
    FILE *f = popen(command, "r");
    assert_non_null(fgets(line, sizeof line, f));
    pclose(f);
    return atoi(line);
}

static bool stop_at(void *arg, const char *what, double done) {
    (void)done;
    return strcmp(what, arg) != 0;
}

static void test_stopped(void **state) {
    (void)state;
    err              e = {0};
    gguf            *g = make_model();
    quantize_options o = {.type = "q4_0"};
    quantize_error   errors[BESIDE + LAYERS * LAYER];
    quantize_plan   *plan = quantize_plan_new(g, &o, &e);
    const char      *at[] = {"quantizing", "verifying"};
    for (int i = 0; i < 2; i++) {
        quantize_job job = {.progress = stop_at, .arg = (void *)at[i], .errors = errors};
        e = (err){0};
        unlink(out_path);
        assert_false(quantize_write(plan, out_path, &job, &e));
        assert_int_equal(e.code, ERR_CANCELLED);
        assert_int_equal(files_here(), 0);
    }
    quantize_plan_free(plan);
    gguf_close(g);
}

static gguf *one_tensor(float value) {
    err          e = {0};
    gguf_writer *w = gguf_write_open(in_path, &e);
    int64_t      shape[2] = {64, 64};
    static float x[64 * 64];
    for (int i = 0; i < 64 * 64; i++)
        x[i] = (float)(i % 11) - 5;
    x[77] = value;
    gguf_write_text(w, "general.architecture", "none");
    gguf_write_tensor(w, "a.weight", block_format_of(BLOCK_F32), 2, shape);
    gguf_write_data(w, x, sizeof x);
    assert_ok(gguf_write_finish(w, &e), e);
    gguf *g = gguf_open(in_path, &e);
    assert_ok(g, e);
    return g;
}

static void refused_write(float value, const char *type, const char *says) {
    err              e = {0};
    gguf            *g = one_tensor(value);
    quantize_options o = {.type = type};
    quantize_error   errors[1];
    quantize_job     job = {.errors = errors};
    quantize_plan   *plan = quantize_plan_new(g, &o, &e);
    assert_ok(plan, e);
    unlink(out_path);
    assert_false(quantize_write(plan, out_path, &job, &e));
    assert_says(e, says);
    assert_int_equal(files_here(), 0);
    quantize_plan_free(plan);
    gguf_close(g);
}

static void test_bad_values(void **state) {
    (void)state;
    refused_write(NAN, "q8_0", "finite");
    refused_write(-INFINITY, "f16", "finite");
    refused_write(1e6f, "f16", "cannot be f16"); /* past 65504 */
}

/* A bit that changes on the disk between writing and reading back is found. */
static void test_verify_finds(void **state) {
    (void)state;
    err              e = {0};
    gguf            *g = one_tensor(3);
    quantize_options o = {.type = "q8_0"};
    quantize_error   errors[1];
    quantize_job     job = {.errors = errors};
    quantize_plan   *plan = quantize_plan_new(g, &o, &e);
    assert_ok(quantize_write(plan, out_path, &job, &e), e);
    assert_ok(quantize_verify(plan, out_path, &job, &e), e);
    FILE       *f = fopen(out_path, "r+b");
    struct stat s;
    assert_int_equal(stat(out_path, &s), 0);
    fseek(f, s.st_size - 33, SEEK_SET); /* the high byte of the last block's scale */
    fputc(0x7b, f);
    fclose(f);
    assert_false(quantize_verify(plan, out_path, &job, &e));
    assert_says(e, "a.weight");
    quantize_plan_free(plan);
    gguf_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_format),    cmocka_unit_test(test_mixtures),     cmocka_unit_test(test_rules),
        cmocka_unit_test(test_errors_are_true), cmocka_unit_test(test_refusals),     cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_bad_values),      cmocka_unit_test(test_verify_finds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
