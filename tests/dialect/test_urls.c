/* Where requests go: each provider's addresses, and names that do not belong in a path as they stand. */
#include "check.h"

#include "dialect/dialect.h"
#include "dialect/url.h"

static void goes_to(const dialect *d, place_of p, const char *wanted) {
    str out = {0};
    assert_true(d->write_url(&p, &out));
    assert_string_equal(out.data, wanted);
    str_free(&out);
}

static void goes_nowhere(const dialect *d, request_kind kind) {
    place_of p = {.kind = kind, .base = "https://example.org", .model = "m"};
    str      out = {0};
    assert_false(d->write_url(&p, &out));
    str_free(&out);
}

static void names_are_encoded(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"gemini-2.5-flash_001~x", "gemini-2.5-flash_001~x"},
                                           {"a/b", "a%2Fb"},
                                           {"a b?c=d&e#f%", "a%20b%3Fc%3Dd%26e%23f%25"},
                                           {"\xC3\xA9:1", "%C3%A9%3A1"},
                                           {"..", "%2E%2E"},
                                           {".", "%2E"},
                                           {"a..b", "a..b"},
                                           {"x\r\nHost: y", "x%0D%0AHost%3A%20y"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        str out = {0};
        assert_true(url_segment(&out, cases[i][0]));
        assert_string_equal(out.data, cases[i][1]);
        str_free(&out);
    }
    assert_true(url_ends("https://x/openai/v1", "/openai/v1"));
    assert_false(url_ends("/v1", "/openai/v1"));
}

static void geminis(void **state) {
    (void)state;
    const char *base = "https://generativelanguage.googleapis.com/v1beta";
    place_of    p = {.kind = REQUEST_CHAT, .base = base, .model = "gemini-2.5-flash"};
    goes_to(&dialect_gemini, p,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent");
    p.stream = true;
    goes_to(&dialect_gemini, p,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
    p = (place_of){.kind = REQUEST_EMBEDDINGS, .base = base, .model = "models/gemini-embedding-001"};
    goes_to(&dialect_gemini, p,
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents");
    p = (place_of){.kind = REQUEST_CHAT, .base = "http://h", .model = "tunedModels/my own"};
    goes_to(&dialect_gemini, p, "http://h/tunedModels/my%20own:generateContent");
    p.model = "../../v1/other";
    goes_to(&dialect_gemini, p, "http://h/models/..%2F..%2Fv1%2Fother:generateContent");
    goes_nowhere(&dialect_gemini, REQUEST_COMPLETION);
    goes_nowhere(&dialect_gemini, REQUEST_RERANK);
}

static void azures(void **state) {
    (void)state;
    place_of p = {.kind = REQUEST_CHAT, .base = "https://n.openai.azure.com", .model = "my gpt", .stream = true};
    goes_to(&dialect_azure, p,
            "https://n.openai.azure.com/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21");
    p.api_version = "2025-04-01-preview";
    p.kind = REQUEST_EMBEDDINGS;
    goes_to(&dialect_azure, p,
            "https://n.openai.azure.com/openai/deployments/my%20gpt/embeddings?api-version=2025-04-01-preview");
    p.base = "https://n.openai.azure.com/openai";
    p.kind = REQUEST_COMPLETION;
    goes_to(&dialect_azure, p,
            "https://n.openai.azure.com/openai/deployments/my%20gpt/completions?api-version=2025-04-01-preview");
    p = (place_of){.kind = REQUEST_CHAT, .base = "https://n.openai.azure.com/openai/v1", .model = "gpt"};
    goes_to(&dialect_azure, p, "https://n.openai.azure.com/openai/v1/chat/completions");
    p.api_version = "preview";
    goes_to(&dialect_azure, p, "https://n.openai.azure.com/openai/v1/chat/completions?api-version=preview");
    goes_nowhere(&dialect_azure, REQUEST_RERANK);
}

static void coheres(void **state) {
    (void)state;
    place_of p = {.kind = REQUEST_RERANK, .base = "https://api.cohere.com", .model = "rerank-v3.5"};
    goes_to(&dialect_cohere, p, "https://api.cohere.com/v2/rerank");
    p.base = "https://api.cohere.com/v2";
    goes_to(&dialect_cohere, p, "https://api.cohere.com/v2/rerank");
    p.kind = REQUEST_EMBEDDINGS;
    goes_to(&dialect_cohere, p, "https://api.cohere.com/v2/embed");
    goes_nowhere(&dialect_cohere, REQUEST_CHAT);
    goes_nowhere(&dialect_cohere, REQUEST_COMPLETION);
}

/* Azure's bodies are OpenAI's: a client's bytes pass on, and so do the provider's. */
static void azures_bodies_are_openais(void **state) {
    (void)state;
    static const char body[] =
        "{ \"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}], \"odd\": 1.50 }";
    arena  *memory = arena_new(1024);
    request r;
    str     out = {0};
    err     e = {0};
    answer  a;
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, body, strlen(body), memory, &r, &e), e);
    assert_true(dialect_same(r.from, &dialect_azure));
    assert_false(dialect_same(r.from, &dialect_gemini));
    assert_ok(dialect_azure.write_request(&r, "d", false, &out, &e), e);
    assert_string_equal(out.data,
                        "{ \"model\":\"d\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}], \"odd\": 1.50 }");
    static const char whole[] = "{\"id\":\"i\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"x\"},"
                                "\"finish_reason\":\"stop\"}]}";
    assert_ok(dialect_azure.read_answer(REQUEST_CHAT, whole, strlen(whole), &a, &e), e);
    assert_ptr_equal(a.raw_dialect, &dialect_openai);
    assert_int_equal(dialect_azure.reading, dialect_openai.reading);
    answer_clear(&a);
    str_free(&out);
    request_free(&r);
    arena_free(memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_encoded),
        cmocka_unit_test(geminis),
        cmocka_unit_test(azures),
        cmocka_unit_test(coheres),
        cmocka_unit_test(azures_bodies_are_openais),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
