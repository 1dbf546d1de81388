/* libpare: opening, telling, generating, tokens, and structs of other sizes. */
#include "libpare_bed.h"

#include <math.h>

#include "base/json.h"

static pare_model *shared;

static int open_shared(void **state) {
    (void)state;
    shared = open_storyteller(NULL);
    return 0;
}

static int close_shared(void **state) {
    (void)state;
    pare_close(shared);
    return 0;
}

/* ---- opening ---- */

static void test_describe(void **state) {
    (void)state;
    told      why = {""};
    pare_info info = {0};
    assert_done(pare_describe(shared, &info, TELL(why)), why);
    assert_string_equal(info.name, "storyteller");
    assert_string_equal(info.architecture, "llama");
    assert_null(info.pooling);
    assert_null(info.chat_problem);
    assert_int_equal(info.context, 512);
    assert_int_equal(info.model_context, 512);
    assert_int_equal(info.vocabulary, 4096);
    assert_int_equal(info.dimension, 256);
    assert_int_equal(info.layers, 5);
    assert_int_equal(info.can_generate, 1);
    assert_int_equal(info.can_chat, 1);
    assert_int_equal(info.can_embed, 0);
    assert_int_equal(info.can_tokenize, 1);
    assert_true(info.weight_bytes > 4000000);
    assert_string_equal(pare_version(), PARE_VERSION);

    pare_model *m = open_storyteller(&(pare_options){.context = 64, .threads = 1, .sequences = 2, .pooling = "last"});
    assert_done(pare_describe(m, &info, TELL(why)), why);
    assert_int_equal(info.context, 64);
    assert_string_equal(info.pooling, "last");
    assert_int_equal(info.can_embed, 1);
    pare_close(m);
}

static void refused(const char *path, const pare_options *o, const char *part) {
    told why = {""};
    assert_null(pare_open(path, o, TELL(why)));
    assert_says(why, part);
    assert_null(pare_open(path, o, NULL, 0));
}

static void test_refused(void **state) {
    (void)state;
    refused(NULL, NULL, "no path");
    refused("models/nothing.gguf", NULL, "models/nothing.gguf");
    refused("CMakeLists.txt", NULL, "CMakeLists.txt");
    refused(STORYTELLER, &(pare_options){.threads = -1}, "negative");
    refused(STORYTELLER, &(pare_options){.context = 513}, "513");
    refused(STORYTELLER, &(pare_options){.sequences = 100000}, "100000");
    refused(STORYTELLER, &(pare_options){.kv = "q3"}, "q3");
    refused(STORYTELLER, &(pare_options){.pooling = "rank"}, "rank");
    told why = {""};
    assert_null(pare_open_memory(NULL, 0, NULL, TELL(why)));
    assert_says(why, "no bytes");
    assert_null(pare_open_memory("GGUF", 4, NULL, TELL(why)));
    char small[8] = "1234567";
    assert_null(pare_open(NULL, NULL, small, sizeof(small)));
    assert_string_equal(small, "there i");
    assert_null(pare_open(NULL, NULL, small, 0));
    assert_string_equal(small, "there i");
}

static void test_memory(void **state) {
    (void)state;
    told           why = {""};
    size_t         n;
    unsigned char *bytes = changed_storyteller("storyteller", "storyteller", &n);
    pare_model    *m = pare_open_memory(bytes, n, NULL, TELL(why));
    assert_done(m, why);
    memset(bytes, 0xAA, n);
    free(bytes);
    const pare_request r = {.max_tokens = 20};
    char              *a = pare_generate_text(shared, "One day", &r, NULL, TELL(why));
    char              *b = pare_generate_text(m, "One day", &r, NULL, TELL(why));
    assert_done(a && b, why);
    assert_string_equal(a, b);
    pare_free(a);
    pare_free(b);
    pare_close(m);
}

/* ---- generating ---- */

static void test_generate(void **state) {
    (void)state;
    told         why = {""};
    heard        h = {.stop_after = 0};
    pare_usage   usage = {0};
    pare_request r = {.max_tokens = 30};
    assert_done(pare_generate(shared, "Once upon a time", &r, hear, &h, &usage, TELL(why)), why);
    assert_int_equal(usage.finish, PARE_FINISH_LENGTH);
    assert_int_equal(usage.completion_tokens, 30);
    assert_int_equal(usage.stop, -1);
    assert_true(usage.first_us > 0 && usage.total_us >= usage.first_us);
    int32_t ids[64];
    assert_int_equal(usage.prompt_tokens,
                     pare_tokenize(shared, "Once upon a time", PARE_TOKENS_SPECIAL, ids, 64, TELL(why)));
    assert_true(h.pieces > 0 && h.text.len > 30);

    char *text = pare_generate_text(shared, "Once upon a time", &r, NULL, TELL(why));
    assert_done(text, why);
    assert_string_equal(text, h.text.data);

    /* a stop text, the second of two, ends it before the word */
    const char *stops[] = {"no such text", NULL};
    char        word[8] = {0};
    memcpy(word, h.text.data + 20, 6);
    stops[1] = word;
    r.stop = stops;
    r.stop_count = 2;
    char *cut = pare_generate_text(shared, "Once upon a time", &r, &usage, TELL(why));
    assert_done(cut, why);
    assert_int_equal(usage.finish, PARE_FINISH_STOP);
    assert_int_equal(usage.stop, 1);
    assert_int_equal(strlen(cut), strstr(text, word) - text);
    assert_memory_equal(cut, text, strlen(cut));
    pare_free(cut);
    pare_free(text);
    str_free(&h.text);
    assert_done(pare_generate(shared, "Nobody listens", &(pare_request){.max_tokens = 2}, NULL, NULL, NULL, TELL(why)),
                why);
}

/* The markup of a chat, written by hand: three tokens with control_prompt, many without. */
static void test_control_prompt(void **state) {
    (void)state;
    told         why = {""};
    pare_usage   usage = {0};
    pare_request r = {.max_tokens = 1, .control_prompt = 1};
    assert_done(pare_generate(shared, "<|user|><|end|><|assistant|>", &r, NULL, NULL, &usage, TELL(why)), why);
    assert_int_equal(usage.prompt_tokens, 3);
    r.control_prompt = 0;
    assert_done(pare_generate(shared, "<|user|><|end|><|assistant|>", &r, NULL, NULL, &usage, TELL(why)), why);
    assert_true(usage.prompt_tokens > 9);
}

static void test_no_vocabulary(void **state) {
    (void)state;
    const char *path = "../shared/conformance/logits/llama/model.gguf";
    if (access(path, R_OK) != 0) {
        print_message("%s is not here; skipped\n", path);
        skip();
    }
    told        why = {""};
    pare_info   info = {0};
    int32_t     id;
    pare_model *m = pare_open(path, &(pare_options){.pooling = "mean"}, TELL(why));
    assert_done(m, why);
    assert_done(pare_describe(m, &info, TELL(why)), why);
    assert_int_equal(info.can_generate + info.can_chat + info.can_embed + info.can_tokenize, 0);
    assert_int_equal(pare_generate(m, "a", NULL, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "no vocabulary");
    assert_int_equal(pare_tokenize(m, "a", 0, &id, 1, TELL(why)), -1);
    assert_int_equal(pare_embed(m, &path, 1, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "no vocabulary");
    pare_close(m);
}

static void test_seed(void **state) {
    (void)state;
    told         why = {""};
    pare_request r = {.max_tokens = 24, .temperature = 1, .top_p = 0.9f, .top_k = 50, .min_p = 0.01f, .seed = 1};
    r.repeat_penalty = 1.1f;
    r.presence_penalty = r.frequency_penalty = 0.2f;
    char *a = pare_generate_text(shared, "The king", &r, NULL, TELL(why));
    char *b = pare_generate_text(shared, "The king", &r, NULL, TELL(why));
    r.seed = 2;
    char *c = pare_generate_text(shared, "The king", &r, NULL, TELL(why));
    assert_done(a && b && c, why);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    pare_free(a);
    pare_free(b);
    pare_free(c);
}

static void test_form(void **state) {
    (void)state;
    told         why = {""};
    pare_usage   usage = {0};
    pare_request r = {.grammar = "root ::= \"yes\" | \"no\" \"body\"?"};
    char        *text = pare_generate_text(shared, "Is it?", &r, &usage, TELL(why));
    assert_done(text, why);
    assert_true(!strcmp(text, "yes") || !strcmp(text, "no") || !strcmp(text, "nobody"));
    assert_int_equal(usage.finish, PARE_FINISH_STOP);
    pare_free(text);

    r = (pare_request){.json_schema =
                           "{\"type\":\"object\",\"properties\":{\"age\":{\"type\":\"integer\",\"minimum\":0,"
                           "\"maximum\":9},\"wolf\":{\"type\":\"boolean\"}},\"required\":[\"age\",\"wolf\"]}"};
    text = pare_generate_text(shared, "Who is it?", &r, &usage, TELL(why));
    assert_done(text, why);
    cJSON *json = json_parse(text, strlen(text), 8, NULL);
    assert_non_null(json);
    assert_true(cJSON_IsNumber(cJSON_GetObjectItem(json, "age")) && cJSON_IsBool(cJSON_GetObjectItem(json, "wolf")));
    cJSON_Delete(json);
    pare_free(text);

    /* it begins after a text of the model's own: the first words are as without it */
    char *plain = pare_generate_text(shared, "Once", &(pare_request){.max_tokens = 8}, NULL, TELL(why));
    assert_done(plain, why);
    char mark[4] = {0};
    memcpy(mark, plain + strlen(plain) - 3, 3);
    r = (pare_request){.grammar = "root ::= \"<\" [0-9] [0-9] \">\"", .grammar_after = mark, .max_tokens = 60};
    text = pare_generate_text(shared, "Once", &r, &usage, TELL(why));
    assert_done(text, why);
    char *at = strstr(text, mark);
    assert_non_null(at);
    assert_memory_equal(text, plain, (size_t)(at - text));
    assert_int_equal(strlen(at + 3), 4);
    assert_true(at[3] == '<' && at[6] == '>');
    pare_free(text);
    pare_free(plain);
}

/* A file in which the comma is a control token: its text belongs to the answer only where that is asked for. */
static void test_control_text(void **state) {
    (void)state;
    static const char key[] = "tokenizer.ggml.token_type";
    static const char start[] = "Once upon a time there was a king of";
    told              why = {""};
    int32_t           comma, control = TOKEN_CONTROL;
    size_t            n;
    assert_int_equal(pare_tokenize(shared, ",", 0, &comma, 1, TELL(why)), 1);
    unsigned char *bytes = changed_storyteller(key, key, &n);
    unsigned char *array = (unsigned char *)memmem(bytes, n, key, strlen(key)) + strlen(key) + 4 + 4 + 8;
    memcpy(array + (size_t)comma * sizeof(comma), &control, sizeof(control));
    pare_model *m = pare_open_memory(bytes, n, NULL, TELL(why));
    free(bytes);
    assert_done(m, why);
    pare_request r = {.max_tokens = 40};
    char        *plain = pare_generate_text(shared, start, &r, NULL, TELL(why));
    char        *without = pare_generate_text(m, start, &r, NULL, TELL(why));
    r.control_text = 1;
    char *with = pare_generate_text(m, start, &r, NULL, TELL(why));
    assert_done(plain && without && with, why);
    assert_true(strlen(without) < strlen(plain));
    assert_string_equal(with, plain);
    pare_free(plain);
    pare_free(without);
    pare_free(with);
    pare_close(m);
}

static void bad(pare_request r, const char *part) {
    told why = {""};
    assert_int_equal(pare_generate(shared, "A", &r, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, part);
    assert_null(pare_generate_text(shared, "A", &r, NULL, NULL, 0));
}

static void test_bad_requests(void **state) {
    (void)state;
    static const char *const many[17] = {"a", "b", "c", "d", "e", "f", "g", "h", "i",
                                         "j", "k", "l", "m", "n", "o", "p", "q"};
    bad((pare_request){.max_tokens = -1}, "max_tokens");
    bad((pare_request){.top_k = -1}, "top_k");
    bad((pare_request){.temperature = NAN}, "temperature");
    bad((pare_request){.temperature = -0.1f}, "temperature");
    bad((pare_request){.top_p = 1.5f}, "top_p");
    bad((pare_request){.min_p = INFINITY}, "min_p");
    bad((pare_request){.repeat_penalty = -1}, "repeat_penalty");
    bad((pare_request){.presence_penalty = 3}, "presence_penalty");
    bad((pare_request){.frequency_penalty = -3}, "frequency_penalty");
    bad((pare_request){.stop_count = 1}, "stop");
    bad((pare_request){.stop_count = 1, .stop = (const char *[]){""}}, "stop[0]");
    bad((pare_request){.stop_count = 17, .stop = many}, "17");
    bad((pare_request){.grammar = "root ::= x"}, "grammar");
    bad((pare_request){.json_schema = "{"}, "json_schema");
    bad((pare_request){.grammar = "root ::= \"x\"", .json_schema = "{}"}, "not both");
    bad((pare_request){.grammar_after = "x"}, "grammar_after");
    told why = {""};
    assert_int_equal(pare_generate(shared, NULL, NULL, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "prompt");
    char *book = calloc(1, 20000);
    assert_non_null(book);
    memset(book, 'x', 19999);
    assert_int_equal(pare_generate(shared, book, NULL, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "512");
    free(book);
}

static void test_callback_stops(void **state) {
    (void)state;
    told       why = {""};
    heard      h = {.stop_after = 3};
    pare_usage usage = {0};
    assert_done(pare_generate(shared, "There was", NULL, hear, &h, &usage, TELL(why)), why);
    assert_int_equal(h.pieces, 3);
    assert_int_equal(usage.finish, PARE_FINISH_CANCELLED);
    str_free(&h.text);
}

/* A callback runs on the caller's thread, so it may ask the same model. */
static int ask_again(void *user, const char *text, size_t length) {
    (void)text, (void)length;
    told   why = {""};
    char **inner = user;
    if (!*inner) {
        *inner = pare_generate_text(shared, "The queen", &(pare_request){.max_tokens = 12}, NULL, TELL(why));
        assert_done(*inner, why);
    }
    return 0;
}

static void test_nested(void **state) {
    (void)state;
    told  why = {""};
    char *inner = NULL;
    assert_done(
        pare_generate(shared, "The king", &(pare_request){.max_tokens = 12}, ask_again, &inner, NULL, TELL(why)), why);
    char *alone = pare_generate_text(shared, "The queen", &(pare_request){.max_tokens = 12}, NULL, TELL(why));
    assert_done(alone, why);
    assert_string_equal(inner, alone);
    pare_free(inner);
    pare_free(alone);
}

static void test_kv_types(void **state) {
    (void)state;
    static const char *const types[] = {"f32", "q8_0", "q4_0"};
    for (int i = 0; i < 3; i++) {
        told        why = {""};
        pare_model *m = open_storyteller(&(pare_options){.kv = types[i], .context = 128, .sequences = 1});
        assert_done(pare_generate(m, "A", &(pare_request){.max_tokens = 5}, NULL, NULL, NULL, TELL(why)), why);
        pare_close(m);
    }
}

/* ---- tokens ---- */

static void test_tokens(void **state) {
    (void)state;
    static const char text[] = "An old caf\xc3\xa9; 12 <|end|> \xe4\xb8\xad\n";
    told              why = {""};
    int32_t           ids[64], few[2];
    char              back[128];
    int               n = pare_tokenize(shared, text, 0, ids, 64, TELL(why));
    assert_true(n > 8 && n < 64);
    assert_int_equal(pare_tokenize(shared, text, 0, NULL, 0, TELL(why)), n);
    assert_int_equal(pare_tokenize(shared, text, 0, few, 2, TELL(why)), n);
    assert_memory_equal(few, ids, sizeof(few));
    int length = pare_detokenize(shared, ids, n, 0, back, sizeof(back), TELL(why));
    assert_int_equal(length, strlen(text));
    assert_string_equal(back, text);
    assert_int_equal(pare_detokenize(shared, ids, n, 0, NULL, 0, TELL(why)), length);
    assert_int_equal(pare_detokenize(shared, ids, n, 0, back, 4, TELL(why)), length);
    assert_string_equal(back, "An ");

    int parsed = pare_tokenize(shared, "<|end|>", PARE_TOKENS_CONTROL, ids, 64, TELL(why));
    assert_int_equal(parsed, 1);
    assert_int_equal(pare_detokenize(shared, ids, 1, 0, back, sizeof(back), TELL(why)), 0);
    assert_string_equal(back, "");
    assert_int_equal(pare_detokenize(shared, ids, 1, PARE_TOKENS_CONTROL, back, sizeof(back), TELL(why)), 7);
    assert_string_equal(back, "<|end|>");

    ids[0] = 4096;
    assert_int_equal(pare_detokenize(shared, ids, 1, 0, back, sizeof(back), TELL(why)), -1);
    assert_says(why, "4096");
    assert_int_equal(pare_tokenize(shared, NULL, 0, ids, 64, TELL(why)), -1);
    assert_int_equal(pare_detokenize(shared, ids, -1, 0, back, sizeof(back), TELL(why)), -1);
}

/* ---- structs of other versions ---- */

typedef struct later_request {
    pare_request r;
    int64_t      later;
} later_request;

typedef struct later_usage {
    pare_usage u;
    int64_t    later;
} later_usage;

static void test_structs(void **state) {
    (void)state;
    told          why = {""};
    later_request newer = {.r = {.size = sizeof(newer), .max_tokens = 3}};
    assert_done(pare_generate(shared, "A", &newer.r, NULL, NULL, NULL, TELL(why)), why);
    newer.later = 1;
    assert_int_equal(pare_generate(shared, "A", &newer.r, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "newer");

    pare_request short_one = {.size = 40, .max_tokens = 3}, wild = {.size = (size_t)1 << 40};
    assert_int_equal(pare_generate(shared, "A", &short_one, NULL, NULL, NULL, TELL(why)), 0);
    assert_says(why, "pare_request");
    assert_int_equal(pare_generate(shared, "A", &wild, NULL, NULL, NULL, TELL(why)), 0);

    later_usage usage = {.u = {.size = sizeof(pare_usage)}, .later = 77};
    newer.later = 0;
    assert_done(pare_generate(shared, "A", &newer.r, NULL, NULL, &usage.u, TELL(why)), why);
    assert_int_equal(usage.u.completion_tokens, 3);
    assert_int_equal(usage.u.size, sizeof(pare_usage));
    assert_int_equal(usage.later, 77);
    usage.u.size = sizeof(usage);
    assert_done(pare_generate(shared, "A", &newer.r, NULL, NULL, &usage.u, TELL(why)), why);
    assert_int_equal(usage.later, 0); /* what this library does not tell is zero */
    usage.u.size = 9;
    assert_int_equal(pare_generate(shared, "A", &newer.r, NULL, NULL, &usage.u, TELL(why)), 0);
    assert_says(why, "pare_usage");

    pare_info info;
    memset(&info, 0x55, sizeof(info));
    assert_int_equal(pare_describe(shared, &info, TELL(why)), 0);
    assert_says(why, "pare_info");
    assert_int_equal(pare_describe(shared, NULL, TELL(why)), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_seed),          cmocka_unit_test(test_form),
        cmocka_unit_test(test_bad_requests),  cmocka_unit_test(test_callback_stops),
        cmocka_unit_test(test_nested),        cmocka_unit_test(test_kv_types),
        cmocka_unit_test(test_tokens),        cmocka_unit_test(test_structs),
        cmocka_unit_test(test_control_text),  cmocka_unit_test(test_control_prompt),
        cmocka_unit_test(test_no_vocabulary),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
