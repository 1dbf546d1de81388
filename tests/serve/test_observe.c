/* What an operator reads of requests: lines of the log and /metrics; and the settings of both and of telemetry. */
#include "collector.h"

#include <fcntl.h>

#include "serve/settings_parts.h"

/* ---- settings ---- */

static settings *read_yaml(const char *yaml, bool good, err *e) {
    char  path[] = "/tmp/pare-otlp-XXXXXX";
    int   fd = mkstemp(path);
    FILE *f = fdopen(fd, "w");
    fputs(yaml, f);
    fclose(f);
    *e = (err){0};
    settings *s = settings_new(e);
    bool      ok = settings_read(s, path, e);
    unlink(path);
    if (ok != good) {
        fail_msg("%s: %s", yaml, e->text);
    }
    if (!ok) {
        settings_free(s);
    }
    return ok ? s : NULL;
}

static void test_settings(void **state) {
    (void)state;
    err e;
    unsetenv("OTEL_EXPORTER_OTLP_ENDPOINT");
    settings *s = read_yaml("telemetry: {}\n", true, &e);
    assert_string_equal(s->otlp.endpoint, "http://localhost:4318");
    assert_string_equal(s->otlp.service_name, "pare");
    assert_true(s->otlp.traces && s->otlp.metrics && s->otlp.interval_us == 60000000);
    settings_free(s);
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example:4318/", 1);
    setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-b = c ,", 1);
    setenv("OTEL_SERVICE_NAME", "door", 1);
    s = read_yaml("drain: 1s\n", true, &e); /* the environment alone switches nothing on */
    assert_null(s->otlp.endpoint);
    settings_free(s);
    s = read_yaml("telemetry: {sample: 0.5}\n", true, &e);
    assert_string_equal(s->otlp.endpoint, "https://otel.example:4318/");
    assert_string_equal(s->otlp.service_name, "door");
    assert_int_equal(s->otlp.n_headers, 2);
    assert_string_equal(s->otlp.headers[0], "authorization: Bearer abc");
    assert_string_equal(s->otlp.headers[1], "x-b: c");
    settings_free(s);
    s = read_yaml("telemetry: {endpoint: \"http://h\", headers: {k: v}, service_name: n}\n", true, &e);
    assert_string_equal(s->otlp.endpoint, "http://h");
    assert_int_equal(s->otlp.n_headers, 1);
    settings *other = read_yaml("telemetry: {endpoint: \"http://h\", headers: {k: w}, service_name: n}\n", true, &e);
    assert_true(otlp_same(&s->otlp, &s->otlp)); /* what a reload asks */
    assert_false(otlp_same(&s->otlp, &other->otlp));
    settings_free(other);
    settings_free(s);
    setenv("OTEL_EXPORTER_OTLP_HEADERS", "nonsense", 1);
    read_yaml("telemetry: {}\n", false, &e);
    assert_says(e, "OTEL_EXPORTER_OTLP_HEADERS");
    unsetenv("OTEL_EXPORTER_OTLP_HEADERS");
    unsetenv("OTEL_EXPORTER_OTLP_ENDPOINT");
    unsetenv("OTEL_SERVICE_NAME");
    read_yaml("telemetry: {endpoint: \"ftp://u:secret@h\"}\n", false, &e);
    assert_says(e, "telemetry.endpoint");
    assert_null(strstr(e.text, "secret"));
    read_yaml("telemetry: {headers: {\"a b\": c}}\n", false, &e);
    read_yaml("telemetry: {headers: {a: \"c\\r\\nd: e\"}}\n", false, &e);
    read_yaml("telemetry: {sample: 2}\n", false, &e);
    read_yaml("telemetry: {interval: 1ms}\n", false, &e);
    read_yaml("telemetry: {endpoit: x}\n", false, &e);
    assert_says(e, "endpoint");
    s = read_yaml("log: {format: json}\n", true, &e);
    assert_true(s->log_requests && !s->log_prompts && !s->log_addresses);
    settings_free(s);
    s = read_yaml("log: {format: json, requests: false}\n", true, &e);
    assert_false(s->log_requests);
    settings_free(s);
    s = read_yaml("log: {requests: true, prompts: true, addresses: true}\n", true, &e);
    assert_true(s->log_requests && s->log_prompts && s->log_addresses && !s->log_json);
    settings_free(s);
}

/* ---- the log ---- */

static char said[1 << 20];

/* What stderr gets while these are asked. */
static void listen_to(void (*run)(void)) {
    int    ends[2], kept = dup(STDERR_FILENO);
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    run();
    dup2(kept, STDERR_FILENO);
    close(kept);
    for (ssize_t k; (k = read(ends[0], said + n, sizeof said - 1 - n)) > 0;) {
        n += (size_t)k;
    }
    said[n] = '\0';
    close(ends[0]);
}

static void ask_some(void) {
    char long_body[8192], *p = long_body;
    ask(&the, "whole", "private-prompt", false, &r);
    ask(&the, "stream", "private-stream", true, &r);
    post(the.port, CHAT, "Authorization: Bearer sk-very-secret\r\n",
         "{\"model\":\"evil\\nlevel=error\\u001b[31m\",\"messages\":[]}", &r);
    p += sprintf(p, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"@whole ");
    for (int i = 0; i < 2500; i++) {
        p += sprintf(p, "\xc3\xa9");
    }
    sprintf(p, "\"}]}");
    post(the.port, CHAT, "", long_body, &r);
    bed_stop(&the, 5000000);
}

static void open_logged(const char *log, const char *more) {
    open_bed("", more);
    the.settings->log_requests = true;
    the.settings->log_prompts = strstr(log, "prompts") != NULL;
    the.settings->log_addresses = strstr(log, "addresses") != NULL;
    log_setup(LOG_INFO, strstr(log, "json") != NULL);
}

static int lines_of(const char *text, const char *part) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part)) {
        n++;
    }
    return n;
}

static void test_request_log_json(void **state) {
    (void)state;
    open_logged("json addresses", "");
    listen_to(ask_some);
    log_setup(LOG_OFF, false);
    assert_null(strstr(said, "private"));
    assert_null(strstr(said, "secret"));
    assert_null(strstr(said, "hello"));
    assert_int_equal(lines_of(said, "\"message\":\"request\""), 4);
    int n = 0;
    for (char *line = said, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        cJSON *root = cJSON_Parse(line);
        assert_non_null(root);
        if (strcmp(text_at(root, "message"), "request") != 0) {
            cJSON_Delete(root);
            continue;
        }
        assert_string_equal(text_at(root, "address"), "127.0.0.1");
        if (n == 0) {
            assert_string_equal(text_at(root, "model"), "m");
            assert_string_equal(text_at(root, "stage"), "answer");
            assert_string_equal(text_at(root, "backend"), "remote:up");
            assert_string_equal(text_at(root, "upstream"), "gpt");
            assert_string_equal(text_at(root, "outcome"), "ok");
            assert_int_equal(at(root, "status")->valueint, 200);
            assert_int_equal(at(root, "prompt_tokens")->valueint, 7);
            assert_int_equal(at(root, "completion_tokens")->valueint, 3);
            assert_true(at(root, "total_ms")->valuedouble > 0);
            assert_non_null(strstr(line, "\"cost_usd\":0.000013,"));
            assert_true(is_hex(text_at(root, "trace_id"), 32));
        }
        if (n == 2) {
            assert_string_equal(text_at(root, "outcome"), "refused");
            assert_int_equal(at(root, "status")->valueint, 400 + (at(root, "status")->valueint == 404 ? 4 : 0));
        }
        cJSON_Delete(root);
        n++;
    }
    assert_int_equal(n, 4);
}

static void test_request_log_text(void **state) {
    (void)state;
    open_logged("text prompts", "");
    listen_to(ask_some);
    log_setup(LOG_OFF, false);
    assert_int_equal(lines_of(said, " request id="), 4);
    assert_int_equal(lines_of(said, "\n"), lines_of(said, "Z info ") + lines_of(said, "Z warn "));
    assert_null(strchr(said, '\x1b'));
    assert_null(strstr(said, "secret"));
    assert_null(strstr(said, "address="));
    assert_non_null(strstr(said, " prompt=\"user: @whole private-prompt\" answer=hello\n"));
    assert_non_null(strstr(said, " prompt=\"user: @stream private-stream\" answer=hello\n"));
    const char *text = strstr(said, "@whole \xc3\xa9");
    assert_non_null(text);
    assert_int_equal(strcspn(text + 7, "\""), 2 * (2000 - strlen("user: @whole ")));
}

/* /metrics: times by model, and why there was no answer. */
static void test_prometheus(void **state) {
    (void)state;
    open_bed("", "");
    ask(&the, "whole", "a", false, &r);
    ask(&the, "whole", "a", false, &r);
    ask(&the, "wrong", "b", false, &r);
    post(the.port, CHAT, "", "{\"model\":\"evil\\\"}\\n\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", &r);
    assert_int_equal(r.status, 404);
    int fd = client_connect(the.port);
    say(fd, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    reply_free(&r);
    read_reply(fd, &r, false);
    close(fd);
    static const char *const lines[] = {
        "\npare_model_request_seconds_count{model=\"m\",answered_by=\"remote\"} 2\n",
        "\npare_model_request_seconds_count{model=\"m\",answered_by=\"recall.exact\"} 1\n",
        "\npare_model_request_seconds_bucket{model=\"m\",answered_by=\"remote\",le=\"+Inf\"} 2\n",
        "\npare_model_first_token_seconds_count{model=\"m\",answered_by=\"remote\"} 1\n",
        "\npare_request_seconds_count{answered_by=\"remote\"} 2\n",
        "\npare_request_seconds_count{answered_by=\"none\"} 1\n",
        "\npare_unanswered_total{outcome=\"refused\",reason=\"not_found\"} 1\n",
        "\npare_unanswered_total{outcome=\"error\",reason=\"upstream\"} 1\n",
        "\npare_log_dropped_total 0\n",
        "\npare_build_info{version=\""};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (!body_has(&r, lines[i])) {
            fail_msg("missing: %s", lines[i]);
        }
    }
    assert_false(body_has(&r, "evil"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test_teardown(test_request_log_json, close_all),
        cmocka_unit_test_teardown(test_request_log_text, close_all),
        cmocka_unit_test_teardown(test_prometheus, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
