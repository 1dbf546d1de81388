/* A whole small folder, its files damaged in hundreds of ways: the import works or says why not, and never leaves a file
 * behind that it did not finish. Deterministic; with sanitizers this is where a read past an end shows. */
#include "model/test_import_bed.h"

enum { ROUNDS = 700, FILES = 4 };

static const char *const names[FILES] = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"};

static const char tokenizer[] =
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,\"rstrip\":true}],\"normalizer\":{\"type\":"
    "\"NFC\"},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]},\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":["
    "{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":"
    "0,\"b\":1,"
    "\"ab\":2},\"merges\":[\"a b\",[\"b\",\"a\"]]}}";
static const char settings[] =
    "{\"bos_token\":{\"content\":\"<s>\"},\"added_tokens_decoder\":{\"4\":{\"content\":\"<t>\"}},"
    "\"chat_template\":[{\"name\":\"default\",\"template\":\"x\"},{\"name\":\"b\",\"template\":\"y\"}]}";
static const char config[] = LLAMA_CONFIG
    ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0},"
    "\"layer_types\":[\"full_attention\",\"full_attention\"],\"eos_token_id\":[3,4]}";

static size_t damage(char *data, size_t n, size_t span, uint64_t *random) {
    static const char parts[] = "{}[]\",:0123456789-eE.\\u";
    for (int left = 1 + (int)(test_random(random) % 3); left > 0; left--) {
        size_t at = test_random(random) % span;
        switch (test_random(random) % 5) {
        case 0:
            data[at] = (char)test_random(random);
            break;
        case 1:
        case 2:
            data[at] = parts[test_random(random) % (sizeof parts - 1)];
            break;
        case 3:
            data[at] ^= (char)(1 << test_random(random) % 8);
            break;
        default:
            if (test_random(random) % 8 == 0)
                return test_random(random) % n;
        }
    }
    return n;
}

static void damaged_folders(void **state) {
    (void)state;
    bed      b;
    st_file  s = {0};
    uint64_t random = 11;
    int      bad = 0;
    bed_open(&b);
    st_llama(&s, "BF16", 16);
    str         weights = st_bytes(&s);
    const char *data[FILES] = {config, tokenizer, settings, weights.data};
    size_t      sizes[FILES] = {sizeof config - 1, sizeof tokenizer - 1, sizeof settings - 1, weights.len};
    size_t      header = 8 + (size_t)(uint8_t)weights.data[0] + 256u * (uint8_t)weights.data[1];
    for (int i = 0; i <= ROUNDS; i++) {
        import_report r;
        err           e = {0};
        int           hurt = (int)(test_random(&random) % FILES);
        for (int f = 0; f < FILES; f++) {
            char  *copy = malloc(sizes[f]);
            size_t n = sizes[f];
            memcpy(copy, data[f], n);
            if (i > 0 && f == hurt) /* round 0: the folder as it should be */
                n = damage(copy, n, f == 3 ? header : n, &random);
            bed_file(&b, names[f], copy, n);
            free(copy);
        }
        import_options o = {.dir = b.dir, .out = b.out};
        bool           ok = import_folder(&o, &r, &e);
        if (i == 0)
            assert_ok(ok, e);
        if (!ok) {
            bad++;
            assert_true(strlen(e.text) > 20);
            assert_int_not_equal(e.code, ERR_NONE);
            assert_int_not_equal(e.code, ERR_INTERNAL);
            assert_int_not_equal(access(b.out, F_OK), 0);
        }
        unlink(b.out);
        import_report_free(&r);
    }
    print_message("%d of %d damaged folders refused\n", bad, ROUNDS);
    assert_true(bad > ROUNDS / 4 && bad < ROUNDS);
    str_free(&weights);
    bed_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_folders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
