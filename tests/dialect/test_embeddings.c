/* Embeddings and rerank: what is read, what is refused and where, and numbers that come back the same. */
#include "check.h"

#include <math.h>

#include "dialect/dialect.h"

static arena *memory;

static bool read_as(request_kind kind, const char *body, request *r, err *e) {
    *e = (err){0};
    arena_free(memory);
    memory = arena_new(1024);
    return dialect_openai.read_request(kind, body, strlen(body), memory, r, e);
}

static void refused(request_kind kind, const char *body, const char *param, const char *says) {
    request r;
    err     e;
    if (read_as(kind, body, &r, &e)) {
        fail_msg("accepted: %s", body);
    }
    assert_string_equal(e.param, param);
    assert_says(e, says);
    assert_true(e.text[strlen(e.text) - 1] == '.');
}

static void inputs_of_all_four_kinds_are_read(void **state) {
    (void)state;
    request r;
    err     e;
    assert_ok(read_as(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":\"a\",\"user\":\"u\"}", &r, &e), e);
    assert_int_equal(r.n_prompts, 1);
    assert_string_equal(r.prompts[0].text, "a");
    assert_false(r.base64);
    assert_int_equal(r.dimensions, 0);
    request_free(&r);
    assert_ok(read_as(REQUEST_EMBEDDINGS,
                      "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"encoding_format\":\"base64\",\"dimensions\":7}", &r,
                      &e),
              e);
    assert_int_equal(r.n_prompts, 2);
    assert_string_equal(r.prompts[1].text, "b");
    assert_true(r.base64);
    assert_int_equal(r.dimensions, 7);
    request_free(&r);
    assert_ok(read_as(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[5,6,7]}", &r, &e), e);
    assert_int_equal(r.n_prompts, 1);
    assert_null(r.prompts[0].text);
    assert_int_equal(r.prompts[0].n_ids, 3);
    assert_int_equal(r.prompts[0].ids[2], 7);
    request_free(&r);
    assert_ok(read_as(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[[5],[6,7]]}", &r, &e), e);
    assert_int_equal(r.n_prompts, 2);
    assert_int_equal(r.prompts[1].n_ids, 2);
    request_free(&r);
}

static void wrong_inputs_are_named(void **state) {
    (void)state;
    refused(REQUEST_EMBEDDINGS, "{\"input\":\"a\"}", "model", "model is missing");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\"}", "input", "input is missing");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":{}}", "input", "an object");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":\"\"}", "input", "empty string");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[]}", "input", "empty array");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[[]]}", "input[0]", "empty array");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[\"a\",true]}", "input[1]", "string or an array");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[1,\"a\"]}", "input[1]", "token id");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[1,2.5]}", "input[1]", "token id");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":[[1],[4294967296]]}", "input[1][0]", "token id");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":\"a\",\"dimensions\":-1}", "dimensions", "dimensions");
    refused(REQUEST_EMBEDDINGS, "{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"f16\"}", "encoding_format",
            "not \"f16\"");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"documents\":[\"a\"]}", "query", "missing");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"query\":\"\",\"documents\":[\"a\"]}", "query", "empty");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"query\":\"q\"}", "documents", "missing");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"query\":\"q\",\"documents\":[]}", "documents", "empty array");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\",7]}", "documents[1]", "a number");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"query\":\"q\",\"documents\":[{\"body\":\"x\"}]}", "documents[0].text",
            "missing");
    refused(REQUEST_RERANK, "{\"model\":\"m\",\"query\":\"q\",\"documents\":[\"a\"],\"top_n\":0}", "top_n", "top_n");
}

/* ---- writing ---- */

static cJSON *written(const request *r, const float *values, int width) {
    answer head = {.id = "rerank-1", .model = "m", .usage = {.prompt = 12, .known = true}};
    str    out = {0};
    err    e = {0};
    assert_true(dialect_openai.write_values(r, &head, values, width, &out));
    cJSON *json = json_parse(out.data, out.len, JSON_MAX_DEPTH, &e);
    assert_ok(json, e);
    str_free(&out);
    return json;
}

static const cJSON *vector_at(const cJSON *json, int i) {
    return cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "data"), i), "embedding");
}

static float any_float(uint64_t *seed) {
    for (;;) {
        uint32_t bits = (uint32_t)test_random(seed);
        float    f;
        memcpy(&f, &bits, sizeof f);
        if (isfinite(f)) {
            return f;
        }
    }
}

static void every_float_is_read_back_the_same(void **state) {
    (void)state;
    enum { N = 60000 };
    static float values[N];
    uint64_t     seed = 1;
    const float  edges[] = {0,
                            -0.0f,
                            1,
                            -1,
                            0.1f,
                            9.99999905f,
                            10,
                            0.999999940f,
                            1e-6f,
                            1e-7f,
                            1.1755e-38f,
                            1.4e-45f,
                            3.4e38f,
                            0.5f,
                            1e-5f,
                            0.99999994f,
                            1e-4f,
                            2e-6f,
                            9.9999994e-7f,
                            1.0000001e-6f,
                            5.00000045e-5f};
    for (int i = 0; i < N; i++) { /* any bits; then what vectors hold */
        values[i] =
            i % 3 ? (float)(int64_t)test_random(&seed) * 0x1p-63f * powf(10, (float)-(i % 8)) : any_float(&seed);
    }
    memcpy(values, edges, sizeof edges);
    prompt       p = {.text = "x"};
    request      r = {.kind = REQUEST_EMBEDDINGS, .prompts = &p, .n_prompts = 1};
    cJSON       *json = written(&r, values, N);
    int          i = 0;
    const cJSON *number;
    cJSON_ArrayForEach(number, vector_at(json, 0)) {
        float back = (float)number->valuedouble;
        if (back != values[i]) {
            fail_msg("%.9g came back as %.9g", (double)values[i], (double)back);
        }
        i++;
    }
    assert_int_equal(i, N);
    assert_int_equal(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "usage"), "total_tokens")->valueint, 12);
    cJSON_Delete(json);
    values[N / 2] = NAN;
    str    out = {0};
    answer head = {0};
    assert_false(dialect_openai.write_values(&r, &head, values, N, &out));
    str_free(&out);
}

/* A decoder as slow and plain as can be. */
static size_t from_base64(const char *text, uint8_t *out) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t          bits = 0;
    size_t            n = 0, n_bits = 0;
    assert_int_equal(strlen(text) % 4, 0);
    for (; *text && *text != '='; text++) {
        bits = bits << 6 | (uint32_t)(strchr(letters, *text) - letters);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[n++] = (uint8_t)(bits >> n_bits);
        }
    }
    assert_true(strspn(text, "=") == strlen(text) && strlen(text) < 3);
    return n;
}

static void base64_holds_the_bytes(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int width = 1; width < 20; width++) { /* all lengths of the padding */
        float   values[40];
        uint8_t bytes[80];
        prompt  p[2] = {{.text = "x"}, {.text = "y"}};
        request r = {.kind = REQUEST_EMBEDDINGS, .prompts = p, .n_prompts = 2, .base64 = true};
        for (int i = 0; i < 2 * width; i++) {
            values[i] = any_float(&seed);
        }
        cJSON *json = written(&r, values, width);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(from_base64(vector_at(json, i)->valuestring, bytes), (size_t)width * 4);
            assert_memory_equal(bytes, values + i * width, (size_t)width * 4); /* little-endian machines */
        }
        cJSON_Delete(json);
    }
}

static void the_best_documents_come_first(void **state) {
    (void)state;
    const float scores[] = {0.25f, 0.75f, -0.5f, 0.75f};
    const int   order[] = {1, 3, 0, 2}; /* of two that are equal the earlier one */
    prompt      p[4] = {{.text = "a"}, {.text = "\"b\""}, {.text = "c"}, {.text = "d"}};
    request     r = {.kind = REQUEST_RERANK, .prompts = p, .n_prompts = 4, .return_documents = true};
    cJSON      *json = written(&r, scores, 1), *list = cJSON_GetObjectItem(json, "results");
    assert_int_equal(cJSON_GetArraySize(list), 4);
    for (int i = 0; i < 4; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, i), *text = cJSON_GetObjectItem(item, "document");
        assert_int_equal(cJSON_GetObjectItem(item, "index")->valueint, order[i]);
        assert_float_equal(cJSON_GetObjectItem(item, "relevance_score")->valuedouble, (double)scores[order[i]], 0);
        assert_string_equal(cJSON_GetObjectItem(text, "text")->valuestring, p[order[i]].text);
    }
    cJSON_Delete(json);
    r.top_n = 2;
    r.return_documents = false;
    json = written(&r, scores, 1);
    list = cJSON_GetObjectItem(json, "results");
    assert_int_equal(cJSON_GetArraySize(list), 2);
    assert_null(cJSON_GetObjectItem(list->child, "document"));
    cJSON_Delete(json);
}

/* ---- a provider's answers ---- */

static void a_providers_answer_is_kept_and_its_usage_read(void **state) {
    (void)state;
    static const char *const good[] = {
        "{\"object\":\"list\",\"data\":[{\"embedding\":[1,2]}],\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5}}",
        "{\"usage\":{\"total_tokens\":5},\"data\":[{\"usage\":{\"prompt_tokens\":9},\"x\":\"}]\\\"\\\\\"}]}",
        &" {\"a\":{\"usage\":{\"prompt_tokens\":7}},\"results\":[], \"usage\" : {\"prompt_tokens\" : 5 } }"[1],
    };
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "{}",
                                      "null",
                                      "{\"error\":{\"message\":\"no\"},\"data\":[]}",
                                      "\"",
                                      "{\"data\"",
                                      "{\"data\":[",
                                      "{\"data",
                                      "{\"data\\",
                                      "<html>",
                                      "{\"x\":{\"data\":[]}}"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        answer a = {0};
        err    e = {0};
        assert_ok(dialect_openai.read_answer(REQUEST_EMBEDDINGS, good[i], strlen(good[i]), &a, &e), e);
        assert_int_equal(a.usage.prompt, 5);
        assert_true(a.usage.known);
        assert_string_equal(a.raw, good[i]);
        answer_clear(&a);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        answer a = {0};
        err    e = {0};
        char  *exact = malloc(strlen(bad[i]) + 1); /* for sanitizers: nothing behind it */
        memcpy(exact, bad[i], strlen(bad[i]));
        if (dialect_openai.read_answer(REQUEST_RERANK, exact, strlen(bad[i]), &a, &e)) {
            fail_msg("accepted: %s", bad[i]);
        }
        free(exact);
        answer_clear(&a);
    }
}

static void kinds_have_keys_of_their_own(void **state) {
    (void)state;
    static const char body[] = "{\"model\":\"m\",\"input\":\"a\",\"query\":\"q\",\"documents\":[\"d\"],\"user\":\"u\"}";
    request           r;
    err               e;
    str               one = {0}, two = {0};
    assert_ok(read_as(REQUEST_EMBEDDINGS, body, &r, &e), e);
    assert_true(dialect_openai.canonical(&r, &one));
    request_free(&r);
    assert_ok(read_as(REQUEST_RERANK, body, &r, &e), e);
    assert_true(dialect_openai.canonical(&r, &two));
    request_free(&r);
    assert_string_not_equal(one.data, two.data);
    assert_null(strstr(one.data, "user"));
    str_free(&one);
    str_free(&two);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(inputs_of_all_four_kinds_are_read),
        cmocka_unit_test(wrong_inputs_are_named),
        cmocka_unit_test(every_float_is_read_back_the_same),
        cmocka_unit_test(base64_holds_the_bytes),
        cmocka_unit_test(the_best_documents_come_first),
        cmocka_unit_test(a_providers_answer_is_kept_and_its_usage_read),
        cmocka_unit_test(kinds_have_keys_of_their_own),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(memory);
    return failed;
}
