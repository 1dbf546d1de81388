#include "model/vocab_files.h"

#include <pthread.h>

#include "base/json.h"
#include "base/utf8.h"

static bool same_ids(const token_ids *ids, const cJSON *list) {
    if (!list || (size_t)cJSON_GetArraySize(list) != ids->count) {
        return false;
    }
    size_t       i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        if (item->valueint != ids->ids[i++]) {
            return false;
        }
    }
    return true;
}

static void show_ids(const char *label, const token_ids *ids) {
    printf("   %s", label);
    for (size_t i = 0; i < ids->count && i < 60; i++) {
        printf(" %d", ids->ids[i]);
    }
    printf("\n");
}

/* One line of a .jsonl. A case disputed by `own` may also give ids_alt; one disputed by `ik` alone need not agree. */
static bool run_case(const tokenizer *t, const char *line, size_t n) {
    err    e = {0};
    cJSON *c = json_parse(line, n, 8, &e);
    assert_ok(c, e);
    const char  *text = cJSON_GetObjectItem(c, "text")->valuestring;
    const cJSON *disputed = cJSON_GetObjectItem(c, "disputed_by");
    token_ids    ids = encode(t, text, strlen(text), (encode_options){0});
    bool good = same_ids(&ids, cJSON_GetObjectItem(c, "ids")) || same_ids(&ids, cJSON_GetObjectItem(c, "ids_alt"));
    if (!good && cJSON_GetArraySize(disputed) == 1) {
        good = strcmp(cJSON_GetArrayItem(disputed, 0)->valuestring, "ik") == 0;
    }
    if (!good) {
        printf("   differs: %.*s\n", (int)(n < 600 ? n : 600), line);
        show_ids("got", &ids);
    }
    token_ids_free(&ids);
    cJSON_Delete(c);
    return good;
}

static void run_cases(const char *name, const tokenizer *t, int *good, int *total) {
    char   path[256];
    size_t n = 0;
    snprintf(path, sizeof(path), VOCAB_FOLDER "%s.jsonl", name);
    char *data = read_file(path, &n);
    for (char *line = data; line && line < data + n;) {
        char  *stop = memchr(line, '\n', (size_t)(data + n - line));
        size_t len = stop ? (size_t)(stop - line) : (size_t)(data + n - line);
        if (len > 0) {
            *good += run_case(t, line, len);
            ++*total;
        }
        line += len + 1;
    }
    free(data);
}

/* One line of a .out: ids with a blank before each. Moves *at past it. */
static bool run_golden(const tokenizer *t, const char *text, size_t n, const char **at) {
    token_ids   ids = encode(t, text, n, (encode_options){0});
    const char *p = *at;
    size_t      i = 0;
    bool        good = true;
    while (*p && *p != '\n') {
        char *stop;
        long  id = strtol(p, &stop, 10);
        if (stop == p) {
            break;
        }
        good = good && i < ids.count && ids.ids[i] == id;
        i++;
        p = stop;
        while (*p == ' ' && (p[1] == '\n' || !p[1])) {
            p++;
        }
    }
    good = good && i == ids.count;
    if (!good) {
        printf("   golden differs: %.*s\n   want%.*s\n", (int)n, text, (int)strcspn(*at, "\n"), *at);
        show_ids("got", &ids);
    }
    *at = *p ? p + 1 : p;
    token_ids_free(&ids);
    return good;
}

static void run_goldens(const char *name, const tokenizer *t, int *good, int *total) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char              path[256];
    size_t            n = 0, m = 0;
    snprintf(path, sizeof(path), VOCAB_FOLDER "ggml-vocab-%s.gguf.inp", name);
    char *texts = read_file(path, &n);
    snprintf(path, sizeof(path), VOCAB_FOLDER "ggml-vocab-%s.gguf.out", name);
    char *lines = read_file(path, &m);
    if (texts && lines) {
        const char *at = lines;
        for (char *text = texts; text;) {
            char  *stop = strstr(text, mark);
            size_t len = stop ? (size_t)(stop - text) : (size_t)(texts + n - text);
            *good += run_golden(t, text, len, &at);
            ++*total;
            text = stop ? stop + sizeof(mark) - 1 : NULL;
        }
    }
    free(texts);
    free(lines);
}

static const char *const vocabs[] = {"llama-spm", "phi-3",        "baichuan",       "gpt-2",   "falcon",
                                     "starcoder", "deepseek-llm", "deepseek-coder", "refact",  "mpt",
                                     "gpt-neox",  "llama-bpe",    "qwen2",          "bert-bge"};

static void test_conformance(void **state) {
    (void)state;
    int wrong = 0;
    int seen = 0;
    for (size_t i = 0; i < sizeof(vocabs) / sizeof(vocabs[0]); i++) {
        vocab_file o = {0};
        if (!vocab_file_open(vocabs[i], &o)) {
            continue;
        }
        int cases = 0, all_cases = 0, golden = 0, all_golden = 0;
        run_cases(vocabs[i], o.t, &cases, &all_cases);
        run_goldens(vocabs[i], o.t, &golden, &all_golden);
        printf("   %s: %d/%d cases, %d/%d golden\n", vocabs[i], cases, all_cases, golden, all_golden);
        wrong += all_cases - cases + all_golden - golden;
        seen++;
        vocab_file_close(&o);
    }
    if (seen == 0) {
        print_message("skipped: no " VOCAB_FOLDER "\n");
        skip();
    }
    assert_int_equal(wrong, 0);
}

/* The bundled model's own tokenizer against the Python one that trained it. */
static void test_storyteller(void **state) {
    (void)state;
    vocab_file o = {0};
    size_t     n;
    err        e = {0};
    char      *data = read_file("models/storyteller.test.json", &n);
    if (!data || !vocab_file_path("models/storyteller.gguf", &o)) {
        free(data);
        print_message("skipped: no models/storyteller.gguf with its .test.json\n");
        skip();
    }
    cJSON *file = json_parse(data, n, JSON_MAX_DEPTH, &e);
    assert_ok(file, e);
    int          good = 0, total = 0;
    const cJSON *c;
    cJSON_ArrayForEach(c, cJSON_GetObjectItem(file, "tokenizer")) {
        const char *text = cJSON_GetObjectItem(c, "text")->valuestring;
        token_ids   ids = encode(o.t, text, strlen(text), (encode_options){0});
        good += same_ids(&ids, cJSON_GetObjectItem(c, "ids"));
        total++;
        token_ids_free(&ids);
    }
    printf("   storyteller: %d/%d cases\n", good, total);
    cJSON_Delete(file);
    free(data);
    vocab_file_close(&o);
    assert_true(total > 0);
    assert_int_equal(good, total);
}

/* ---- There and back ---- */

static void check_round_trip(const char *name, const tokenizer *t, const char *text, size_t n) {
    token_ids ids = encode(t, text, n, (encode_options){0});
    str       back = decode(t, &ids, true);
    size_t    skip_space = tokenizer_strips_first_space(t) && n > 0 ? 1 : 0;
    if (back.len != n + skip_space || memcmp(back.data + skip_space, text, n) != 0) {
        fail_msg("%s: %zu bytes come back as %zu: \"%.*s\" -> \"%.*s\"", name, n, back.len, (int)n, text, (int)back.len,
                 back.data);
    }
    str_free(&back);
    token_ids_free(&ids);
}

/* Characters of all kinds, and (when `bytes`) arbitrary ones. U+2581
 * stands for a space in SPM and would come back as one. */
static size_t random_text(uint64_t *seed, bool bytes, char *out, size_t most) {
    static const char *const bits[] = {" ",    "  ",  "\n", "\r\n",     "\t", "the", "a",    "Zz",
                                       "'s",   "'LL", "12", "3456",     "é",  "ß",   "日本", "กำ",
                                       "🙂", "...", "!?", "\xC2\xA0", "़",   "Ⅷ",   "<s>",  "한"};
    size_t                   want = test_random(seed) % (most - 8);
    size_t                   n = 0;
    while (n < want) {
        uint64_t r = test_random(seed);
        if (r % 4 == 0 && bytes) {
            out[n++] = (char)(r >> 8);
        } else if (r % 4 == 1) {
            uint32_t cp = (uint32_t)(r >> 8) % (r % 8 < 4 ? 0x3000 : 0x110000);
            n += cp == 0x2581 ? 0 : utf8_encode(cp, out + n);
        } else {
            const char *bit = bits[(r >> 8) % (sizeof(bits) / sizeof(bits[0]))];
            memcpy(out + n, bit, strlen(bit));
            n += strlen(bit);
        }
    }
    return n;
}

static void test_round_trip(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool        bytes; /* every byte has a token of its own, not only those of valid UTF-8 */
    } from[] = {{"gpt-2", true}, {"llama-spm", true}, {"llama-bpe", true},     {"qwen2", true},
                {"mpt", false},  {"phi-3", true},     {"deepseek-llm", false}, {"deepseek-coder", false}};
    char   text[512];
    size_t n;
    char  *book = read_file("../shared/data/corpus/peter-pan.txt", &n);
    for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        vocab_file o = {0};
        if (!vocab_file_open(from[i].name, &o)) {
            continue;
        }
        uint64_t seed = i;
        for (int k = 0; k < 400; k++) {
            check_round_trip(from[i].name, o.t, text, random_text(&seed, k % 2 && from[i].bytes, text, sizeof(text)));
        }
        if (book) {
            check_round_trip(from[i].name, o.t, book, n < 200000 ? n : 200000);
        }
        vocab_file_close(&o);
    }
    free(book);
}

/* ---- Special tokens ---- */

/* The ids of `text` must be those named: a token's text, or =TEXT for the ids of TEXT alone. Ends with NULL. */
static void check_ids(const tokenizer *t, const char *text, encode_options o, const char *const *want) {
    token_ids got = encode(t, text, strlen(text), o);
    token_ids wanted = {0};
    for (; *want; want++) {
        if (**want == '=') {
            token_ids part = encode(t, *want + 1, strlen(*want) - 1, (encode_options){0});
            for (size_t i = 0; i < part.count; i++) {
                token_ids_add(&wanted, part.ids[i]);
            }
            token_ids_free(&part);
        } else {
            assert_true(tokenizer_find(t, *want, strlen(*want)) >= 0);
            token_ids_add(&wanted, tokenizer_find(t, *want, strlen(*want)));
        }
    }
    if (got.count != wanted.count || memcmp(got.ids, wanted.ids, got.count * sizeof(*got.ids)) != 0) {
        show_ids("want", &wanted);
        show_ids("got ", &got);
        fail_msg("\"%s\" gives other ids", text);
    }
    token_ids_free(&got);
    token_ids_free(&wanted);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static const encode_options plain = {0};
static const encode_options parse = {.parse_special = true};
static const encode_options both = {true, true};

static void test_special_spm(void **state) {
    (void)state;
    vocab_file o = {0};
    if (!vocab_file_open("llama-spm", &o)) {
        skip();
    }
    check_ids(o.t, "<s>a</s>b", parse, LIST("<s>", "=a", "</s>", "=b"));
    check_ids(o.t, "a", both, LIST("<s>", "=a"));
    check_ids(o.t, "", both, LIST("<s>"));
    check_ids(o.t, "<s>a", plain, LIST("=<s>a"));
    assert_int_equal(tokenizer_bos(o.t), 1);
    assert_int_equal(tokenizer_eos(o.t), 2);
    assert_true(tokenizer_adds_bos(o.t));
    assert_true(tokenizer_ends(o.t, 2));
    assert_false(tokenizer_ends(o.t, 1));
    assert_true(tokenizer_strips_first_space(o.t));
    const char *piece;
    assert_int_equal(tokenizer_piece(o.t, 2, false, &piece), 0);
    assert_int_equal(tokenizer_piece(o.t, 2, true, &piece), 4);
    assert_memory_equal(piece, "</s>", 4);
    assert_int_equal(tokenizer_piece(o.t, tokenizer_find(o.t, "<0x0A>", 6), false, &piece), 1);
    assert_int_equal(*piece, '\n');
    assert_int_equal(tokenizer_piece(o.t, tokenizer_find(o.t, "▁the", 6), false, &piece), 4);
    assert_memory_equal(piece, " the", 4);
    assert_int_equal(tokenizer_piece(o.t, -1, true, &piece), 0);
    assert_int_equal(tokenizer_piece(o.t, tokenizer_vocab(o.t), true, &piece), 0);
    assert_null(tokenizer_text(o.t, tokenizer_vocab(o.t)));
    assert_string_equal(tokenizer_text(o.t, 1), "<s>");
    assert_int_equal(tokenizer_kind(o.t, 1), TOKEN_CONTROL);
    vocab_file_close(&o);
}

static void test_special_phi3(void **state) {
    (void)state;
    vocab_file o = {0};
    if (!vocab_file_open("phi-3", &o)) {
        skip();
    }
    /* Its special tokens take the white space behind them along, except <s> and <|endoftext|>. */
    check_ids(o.t, "<|user|>\nhi<|end|>\n \t<|assistant|>\n", parse,
              LIST("<|user|>", "=hi", "<|end|>", "<|assistant|>"));
    check_ids(o.t, "<|endoftext|>\n", parse, LIST("<|endoftext|>", "=\n"));
    check_ids(o.t, "a</s>  b", plain, LIST("=a", "</s>", "=b")); /* user-defined: always */
    assert_true(tokenizer_ends(o.t, 32000));
    assert_true(tokenizer_ends(o.t, tokenizer_find(o.t, "<|end|>", 7)));
    vocab_file_close(&o);
}

static void test_special_bpe(void **state) {
    (void)state;
    vocab_file o = {0};
    if (!vocab_file_open("qwen2", &o)) {
        skip();
    }
    check_ids(o.t, "<|im_start|>user\nhi<|im_end|>\n", parse, LIST("<|im_start|>", "=user\nhi", "<|im_end|>", "=\n"));
    check_ids(o.t, "<think>a</think>", plain, LIST("<think>", "=a", "</think>"));
    check_ids(o.t, "<|im_<|im_end|>", parse, LIST("=<|im_", "<|im_end|>"));
    check_ids(o.t, "x", both, LIST("=x")); /* add_bos_token is false */
    assert_false(tokenizer_adds_bos(o.t));
    assert_true(tokenizer_ends(o.t, tokenizer_find(o.t, "<|im_end|>", 10)));
    assert_true(tokenizer_ends(o.t, tokenizer_find(o.t, "<|endoftext|>", 13)));
    assert_false(tokenizer_ends(o.t, tokenizer_find(o.t, "<|im_start|>", 12)));
    vocab_file_close(&o);
    assert_true(vocab_file_open("llama-bpe", &o));
    check_ids(o.t, "a<|eot_id|>", both, LIST("<|begin_of_text|>", "=a", "<|eot_id|>"));
    assert_true(tokenizer_ends(o.t, 128008) && tokenizer_ends(o.t, 128009) && tokenizer_ends(o.t, 128001));
    vocab_file_close(&o);
    assert_true(vocab_file_open("gpt-neox", &o)); /* user-defined runs of 2 to 24 spaces: the longest first */
    check_ids(o.t, "                            x", plain, LIST("                        ", "    ", "=x"));
    vocab_file_close(&o);
}

/* ---- Threads share one tokenizer, which remembers what it found out ---- */

static const tokenizer *shared;
static char            *shared_text;
static size_t           shared_bytes;

static void *encode_shared(void *arg) {
    token_ids *ids = arg;
    err        e;
    return tokenizer_encode(shared, shared_text, shared_bytes, plain, ids, &e) ? ids : NULL;
}

static void test_threads(void **state) {
    (void)state;
    vocab_file o = {0};
    shared_text = read_file("../shared/data/corpus/peter-pan.txt", &shared_bytes);
    if (!shared_text || !vocab_file_open("gpt-2", &o)) {
        free(shared_text);
        skip();
    }
    shared = o.t;
    pthread_t threads[4];
    token_ids ids[4] = {0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, encode_shared, &ids[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *done;
        pthread_join(threads[i], &done);
        assert_non_null(done);
        assert_int_equal(ids[i].count, ids[0].count);
        assert_memory_equal(ids[i].ids, ids[0].ids, ids[0].count * sizeof(int32_t));
    }
    for (int i = 0; i < 4; i++) {
        token_ids_free(&ids[i]);
    }
    free(shared_text);
    vocab_file_close(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conformance), cmocka_unit_test(test_storyteller),  cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_special_spm), cmocka_unit_test(test_special_phi3), cmocka_unit_test(test_special_bpe),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
