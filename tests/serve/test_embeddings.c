/* Embeddings and rerank over HTTP: of a model of our own, of a provider, and when a client leaves. */
#include "bed.h"

#include "model/synth.h"

#define EMBEDDINGS "/v1/embeddings"
#define RERANK     "/v1/rerank"
#define LIST                                                                                                           \
    "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[ 0.5, -0.25 ]}],"             \
    "\"model\":\"gpt\",\"usage\":{\"prompt_tokens\":40,\"total_tokens\":40}}"
#define RANKED "{\"id\":\"1\",\"results\":[{\"index\":0,\"relevance_score\":0.9}],\"usage\":{\"total_tokens\":30}}"

static const script scripts[] = {{"list", JSON_HEAD, LIST, LENGTH, KEEP, NULL},
                                 {"ranked", JSON_HEAD, RANKED, CHUNKED, KEEP, NULL},
                                 {"strange", JSON_HEAD, "{\"object\":\"list\"}", LENGTH, KEEP, NULL},
                                 {"half", JSON_HEAD, LIST, TOO_LONG, CLOSE, NULL},
                                 {"none", "404 Not Found\r\nContent-Type: application/json",
                                  "{\"error\":{\"message\":\"no embeddings here\",\"type\":\"t\",\"code\":null}}",
                                  LENGTH, KEEP, NULL},
                                 {NULL, NULL, NULL, LENGTH, KEEP, NULL}};

static bed  the;
static char encoder[64], writer[64], lines[400];

static int setup(void **state) {
    (void)state;
    err e = {0};
    snprintf(encoder, sizeof encoder, "/tmp/pare-serve-e-%d.gguf", (int)getpid());
    snprintf(writer, sizeof writer, "/tmp/pare-serve-w-%d.gguf", (int)getpid());
    if (!synth_write("bert-tiny", "q8_0", 1, encoder, NULL, NULL, &e) ||
        !synth_write("llama-tiny", "q8_0", 1, writer, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return 1;
    }
    snprintf(lines, sizeof lines, "  e: {file: %s}\n  w: {file: %s, pooling: last}\n  plain: {file: %s}\n", encoder,
             writer, writer);
    the.model_line = lines;
    bed_open(&the, scripts);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_close(&the);
    unlink(encoder);
    unlink(writer);
    return 0;
}

static void asked(const char *path, const char *body, int status, reply *r) {
    post(the.port, path, "", body, r);
    if (r->status != status) {
        fail_msg("%s: %d %s", body, r->status, r->body.data ? r->body.data : "");
    }
}

/* ---- a provider ---- */

static void a_providers_answer_goes_through_untouched(void **state) {
    (void)state;
    reply r = {0};
    asked(EMBEDDINGS, "{\"model\":\"m\",\"input\":\"@list one\"}", 200, &r);
    assert_string_equal(r.body.data, LIST);
    assert_true(answered_by(&r, "remote:up"));
    assert_true(has_header(&r, "x-pare-cost-usd", "0.000040")); /* 40 tokens at $1 a million */
    asked(RERANK, "{\"model\":\"m\",\"query\":\"@ranked\",\"documents\":[\"a\"]}", 200, &r);
    assert_string_equal(r.body.data, RANKED);
    assert_true(has_header(&r, "x-pare-cost-usd", "0.000030"));
    int before = atomic_load(&the.up.requests);
    asked(EMBEDDINGS, "{\"model\":\"m\",\"input\":\"@list one\",\"user\":\"another\"}", 200, &r);
    assert_true(answered_by(&r, "recall.exact"));
    assert_string_equal(r.body.data, LIST);
    assert_int_equal(atomic_load(&the.up.requests), before);
    reply_free(&r);
}

static void a_providers_failures_are_told_and_not_kept(void **state) {
    (void)state;
    reply r = {0};
    for (int i = 0; i < 2; i++) {
        asked(EMBEDDINGS, "{\"model\":\"m\",\"input\":\"@none\"}", 404, &r);
        assert_true(body_has(&r, "no embeddings here"));
        asked(EMBEDDINGS, "{\"model\":\"m\",\"input\":\"@strange\"}", 502, &r);
        assert_true(body_has(&r, "not an answer"));
        asked(EMBEDDINGS, "{\"model\":\"m\",\"input\":\"@half\"}", 502, &r);
    }
    reply_free(&r);
}

/* ---- models of our own ---- */

static void a_model_of_our_own_answers(void **state) {
    (void)state;
    reply r = {0};
    asked(EMBEDDINGS, "{\"model\":\"e\",\"input\":[\"a\",\"b\"]}", 200, &r);
    assert_true(answered_by(&r, "local:e"));
    assert_true(body_has(&r, "\"index\":1") && body_has(&r, "\"model\":\"e\""));
    asked(EMBEDDINGS, "{\"model\":\"w\",\"input\":\"told to pool\"}", 200, &r);
    asked("/v1/completions", "{\"model\":\"w\",\"prompt\":\"and writes\",\"max_tokens\":2}", 200, &r);
    asked(RERANK, "{\"model\":\"e\",\"query\":\"a\",\"documents\":[\"b\",\"a\"],\"top_n\":1}", 200, &r);
    assert_true(body_has(&r, "\"results\":[{\"index\":1,"));
    asked(EMBEDDINGS, "{\"model\":\"plain\",\"input\":\"a\"}", 400, &r);
    assert_true(body_has(&r, "names no pooling"));
    asked("/v1/completions", "{\"model\":\"e\",\"prompt\":\"a\"}", 400, &r);
    assert_true(body_has(&r, "writes no text"));
    asked(RERANK, "{\"model\":\"e\",\"query\":[],\"documents\":[\"b\"]}", 400, &r);
    asked(EMBEDDINGS, "{\"model\":\"nobody\",\"input\":\"a\"}", 404, &r);
    reply_free(&r);
    post(the.port, EMBEDDINGS, "", "", &r);
    assert_int_equal(r.status, 400);
    reply_free(&r);
}

static char *long_list(int texts) {
    str body = {0};
    str_adds(&body, "{\"model\":\"e\",\"input\":[");
    for (int i = 0; i < texts; i++) {
        str_addf(&body, "%s\"text %d of many, which takes its time %d\"", i ? "," : "", i, i * 7);
    }
    str_adds(&body, "]}");
    return str_take(&body);
}

static void who_leaves_is_forgotten(void **state) {
    (void)state;
    char *body = long_list(2000);
    for (int i = 0; i < 6; i++) {
        int fd = client_connect(the.port);
        assert_true(fd >= 0 && send_post(fd, EMBEDDINGS, "Cache-Control: no-cache, no-store\r\n", body));
        nap(i * 7);
        close(fd);
    }
    until(in_flight(&the) == 0);
    assert_int_equal(in_flight(&the), 0);
    reply r = {0};
    asked(EMBEDDINGS, "{\"model\":\"e\",\"input\":\"still here\"}", 200, &r);
    reply_free(&r);
    free(body);
}

/* With work of every stage in the house. */
static void the_house_closes_with_work_in_it(void **state) {
    (void)state;
    bed   other = {.model_line = lines};
    char *body = long_list(2000);
    bed_open(&other, scripts);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = client_connect(other.port);
        assert_true(fds[i] >= 0 && send_post(fds[i], EMBEDDINGS, "Cache-Control: no-cache, no-store\r\n", body));
    }
    nap(20);
    bed_stop(&other, 0);
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    bed_close(&other);
    free(body);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_providers_answer_goes_through_untouched),
        cmocka_unit_test(a_providers_failures_are_told_and_not_kept),
        cmocka_unit_test(a_model_of_our_own_answers),
        cmocka_unit_test(who_leaves_is_forgotten),
        cmocka_unit_test(the_house_closes_with_work_in_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
