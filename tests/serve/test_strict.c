/* OpenAI's own API, which refuses what compatible providers take: what goes out to it, and what is refused before. */
#include "bed.h"

static pthread_mutex_t asked_lock = PTHREAD_MUTEX_INITIALIZER;
static char            asked[4096];

static void run_tell(upstream *u, int fd) {
    (void)u;
    char head[128];
    pthread_mutex_lock(&asked_lock);
    snprintf(asked, sizeof asked, "%s", upstream_asked->data);
    pthread_mutex_unlock(&asked_lock);
    snprintf(head, sizeof head, "HTTP/1.1 " JSON_HEAD "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
             strlen(WHOLE));
    say(fd, head);
    say(fd, WHOLE);
}

static const script scripts[] = {{"tell", NULL, NULL, RAW, CLOSE, run_tell}, {0}};

static bed      the;
static upstream up; /* of this test: the bed's own is asked by nobody */
static reply    r;

static void open_with(bool drop) {
    char more[512];
    assert_true(upstream_start(&up, scripts));
    snprintf(more, sizeof more,
             "  own: {base_url: 'http://127.0.0.1:%d/v1', strict: true}\n"
             "  like: {base_url: 'http://127.0.0.1:%d/v1'}\n%s",
             up.port, up.port,
             drop ? "drop_unsupported: true\n"
                  : "keys:\n  - {name: k, key: secret-k-1, money_day: 0.0002}\n  - {name: r, key: secret-r-1}\n");
    the = (bed){.model_line = "  strict: {backend: own, model: gpt, retries: 0}\n"
                              "  loose: {backend: like, model: gpt, retries: 0}\n"};
    bed_open_with(&the, scripts, more);
}

static int close_bed(void **state) {
    (void)state;
    bed_close(&the);
    upstream_stop(&up);
    reply_free(&r);
    return 0;
}

static int ask_at(const char *path, const char *key, const char *body) {
    char headers[128];
    asked[0] = '\0';
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nCache-Control: no-cache\r\n", key);
    post(the.port, path, headers, body, &r);
    return r.status;
}

#define SAYS "\"messages\":[{\"role\":\"user\",\"content\":\"@tell\"}]"

/* Its reasoning models refuse max_tokens, which Anthropic's clients have to send. */
static void test_max_tokens(void **state) {
    (void)state;
    open_with(false);
    assert_int_equal(ask_at("/v1/messages", "secret-r-1", "{\"model\":\"strict\",\"max_tokens\":50," SAYS "}"), 200);
    assert_non_null(strstr(asked, "\"max_completion_tokens\":50"));
    assert_null(strstr(asked, "\"max_tokens\""));
    assert_int_equal(ask_at("/v1/messages", "secret-r-1", "{\"model\":\"loose\",\"max_tokens\":50," SAYS "}"), 200);
    assert_non_null(strstr(asked, "\"max_tokens\":50"));
    assert_null(strstr(asked, "\"max_completion_tokens\""));
    /* A client of OpenAI's: one name is another, and nothing else is touched. */
    assert_int_equal(
        ask_at(CHAT, "secret-r-1", "{ \"x\" : [1, 2],\"max_tokens\" : 5e1 ,\"model\":\"strict\", " SAYS "}"), 200);
    assert_string_equal(asked, "{ \"x\" : [1, 2],\"max_completion_tokens\":5e1 ,\"model\":\"gpt\", " SAYS "}");
    assert_int_equal(ask_at(CHAT, "secret-r-1", "{\"max_tokens\":50,\"model\":\"loose\"," SAYS "}"), 200);
    assert_string_equal(asked, "{\"max_tokens\":50,\"model\":\"gpt\"," SAYS "}");
    assert_int_equal(
        ask_at(CHAT, "secret-r-1", "{\"max_tokens\":50,\"max_completion_tokens\":40,\"model\":\"strict\"," SAYS "}"),
        200);
    assert_string_equal(asked, "{\"max_tokens\":50,\"max_completion_tokens\":40,\"model\":\"gpt\"," SAYS "}");
    /* Completions know the older name only. */
    assert_int_equal(
        ask_at("/v1/completions", "secret-r-1", "{\"max_tokens\":50,\"model\":\"strict\",\"prompt\":\"@tell\"}"), 200);
    assert_non_null(strstr(asked, "\"max_tokens\":50"));
    /* A budget that ends sooner. */
    assert_int_equal(ask_at(CHAT, "secret-k-1", "{\"max_tokens\":500,\"model\":\"strict\"," SAYS "}"), 200);
    const char *at = strstr(asked, "\"max_completion_tokens\":");
    assert_non_null(at);
    assert_in_range(atoi(at + 24), 16, 99);
    assert_null(strstr(asked, "\"max_tokens\""));
}

/* Anthropic's top_k, which OpenAI's API does not know. */
static void test_top_k(void **state) {
    (void)state;
    static const char strict[] = "{\"model\":\"strict\",\"max_tokens\":50,\"top_k\":7," SAYS "}";
    open_with(false);
    assert_int_equal(ask_at("/v1/messages", "secret-r-1", strict), 400);
    assert_true(body_has(&r, "top_k") && body_has(&r, "OpenAI's API"));
    assert_int_equal(
        ask_at("/v1/messages", "secret-r-1", "{\"model\":\"loose\",\"max_tokens\":50,\"top_k\":7," SAYS "}"), 200);
    assert_non_null(strstr(asked, "\"top_k\":7"));
    close_bed(state);
    open_with(true);
    assert_int_equal(ask_at("/v1/messages", "", strict), 200);
    assert_true(has_header(&r, "x-pare-dropped", "top_k"));
    assert_null(strstr(asked, "top_k"));
    assert_non_null(strstr(asked, "\"max_completion_tokens\":50"));
}

/* Which providers are taken for OpenAI's own. */
static void test_settings(void **state) {
    (void)state;
    static const struct {
        const char    *backend, *said;
        const dialect *speaks;
    } rows[] = {{"base_url: https://api.openai.com/v1", NULL, &dialect_openai_own},
                {"base_url: https://eu.API.openai.com:443/v1", NULL, &dialect_openai_own},
                {"base_url: https://api.openai.com/v1, strict: false", NULL, NULL},
                {"base_url: https://api.openai.com/v1, dialect: openai, strict: false", NULL, &dialect_openai},
                {"base_url: https://api.openai.com.example/v1", NULL, NULL},
                {"base_url: https://myapi.openai.com/v1", NULL, NULL},
                {"base_url: https://example.com/api.openai.com", NULL, NULL},
                {"base_url: https://example.com/v1, strict: true", NULL, &dialect_openai_own},
                {"base_url: https://me.openai.azure.com, dialect: azure", NULL, &dialect_azure},
                {"base_url: https://me.openai.azure.com, dialect: azure, strict: true", NULL, &dialect_azure_own},
                {"base_url: https://example.com, dialect: anthropic, strict: true", "strict is of the dialects", NULL}};
    open_with(true);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        err       e = {0};
        char      path[128], more[256];
        settings *s = settings_new(&e);
        snprintf(path, sizeof path, "%s/other.yaml", the.dir);
        snprintf(more, sizeof more, "  it: {%s}\n", rows[i].backend);
        bed_write_config(&the, path, more);
        FILE *f = fopen(path, "a"); /* the bed's models name backends that this file has not */
        fprintf(f, "  own: {base_url: 'http://127.0.0.1:1/v1'}\n  like: {base_url: 'http://127.0.0.1:1/v1'}\n");
        fclose(f);
        bool good = settings_read(s, path, &e);
        if (good != !rows[i].said || (rows[i].said && !strstr(e.text, rows[i].said))) {
            fail_msg("%s: %s", rows[i].backend, e.text);
        }
        for (int k = 0; good && k < s->n_backends; k++) {
            if (strcmp(s->backends[k].name, "it") == 0 && s->backends[k].remote.speaks != rows[i].speaks) {
                fail_msg("%s", rows[i].backend);
            }
        }
        settings_free(s);
    }
}

int main(void) {
#define T(f) cmocka_unit_test_teardown(f, close_bed)
    const struct CMUnitTest tests[] = {T(test_max_tokens), T(test_top_k), T(test_settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
