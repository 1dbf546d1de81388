/* Traces and metrics: what a real collector gets, field by field; traces that go on; sampling; a collector that is away,
 * hangs or refuses. */
#include "collector.h"

/* The only resource and scope of a body, checked; returns the list of `what`. */
static const cJSON *unpack(const cJSON *body, const char *outer, const char *inner, const char *what) {
    const cJSON *resources = at(body, outer), *resource = cJSON_GetArrayItem(resources, 0);
    assert_int_equal(cJSON_GetArraySize(resources), 1);
    const cJSON *attributes = at(at(resource, "resource"), "attributes");
    has_string(attributes, "service.name", "pare");
    assert_non_null(string_of(attributes, "service.version"));
    assert_int_equal(strlen(string_of(attributes, "service.instance.id")), 32);
    assert_string_equal(text_at(resource, "schemaUrl"), OTLP_SCHEMA);
    const cJSON *scope = cJSON_GetArrayItem(at(resource, inner), 0);
    assert_string_equal(text_at(at(scope, "scope"), "name"), "pare");
    assert_string_equal(text_at(scope, "schemaUrl"), OTLP_SCHEMA);
    return at(scope, what);
}

/* All spans so far of that kind (2 server, 3 client); a copy, which the caller deletes. */
static cJSON *spans_of(int kind) {
    cJSON *all = cJSON_CreateArray();
    pthread_mutex_lock(&col.lock);
    for (int i = 0; i < col.n; i++) {
        if (strcmp(col.paths[i], "/v1/traces") == 0) {
            const cJSON *s;
            cJSON_ArrayForEach(s, unpack(col.bodies[i], "resourceSpans", "scopeSpans", "spans")) {
                if (at(s, "kind")->valueint == kind) {
                    cJSON_AddItemToArray(all, cJSON_Duplicate(s, true));
                }
            }
        }
    }
    pthread_mutex_unlock(&col.lock);
    return all;
}

static int count_spans(int kind) {
    cJSON *all = spans_of(kind);
    int    n = cJSON_GetArraySize(all);
    cJSON_Delete(all);
    return n;
}

static void check_span(const cJSON *s) {
    assert_true(is_hex(text_at(s, "traceId"), 32));
    assert_true(is_hex(text_at(s, "spanId"), 16));
    assert_true(strlen(text_at(s, "startTimeUnixNano")) == 19);
    assert_true(int64_at(s, "startTimeUnixNano") <= int64_at(s, "endTimeUnixNano"));
    assert_true(int64_at(s, "endTimeUnixNano") <= clock_wall_us() * 1000 + 1000000000);
    assert_true(cJSON_IsNumber(at(s, "flags")) && (at(s, "flags")->valueint & 1));
}

static void check_attributes(const cJSON *a, const char *model) {
    has_string(a, "gen_ai.operation.name", "chat");
    has_string(a, "gen_ai.provider.name", "openai");
    has_string(a, "gen_ai.request.model", model);
    has_string(a, "gen_ai.response.model", "gpt");
    has_string(a, "gen_ai.response.id", "c1");
    has_int(a, "gen_ai.usage.input_tokens", 7);
    has_int(a, "gen_ai.usage.output_tokens", 3);
    const cJSON *reasons = at(at(value_of(a, "gen_ai.response.finish_reasons"), "arrayValue"), "values");
    assert_int_equal(cJSON_GetArraySize(reasons), 1);
    assert_string_equal(text_at(cJSON_GetArrayItem(reasons, 0), "stringValue"), "stop");
    assert_null(value_of(a, "error.type"));
}

#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static void test_spans(void **state) {
    (void)state;
    char body[512];
    open_bed(", headers: {x-token: \"${PATH}\"}", "");
    post(the.port, CHAT, "traceparent: " PARENT "\r\ntracestate: vendor=opaque,b=c\r\n",
         chat_body(body, sizeof body, "stream", "my-private-words", true), &r);
    assert_int_equal(r.status, 200);
    until(count_spans(2) == 1);
    cJSON       *servers = spans_of(2), *calls = spans_of(3);
    const cJSON *s = cJSON_GetArrayItem(servers, 0), *c = cJSON_GetArrayItem(calls, 0);
    assert_int_equal(cJSON_GetArraySize(servers), 1);
    assert_int_equal(cJSON_GetArraySize(calls), 1);
    check_span(s);
    check_span(c);
    assert_string_equal(text_at(s, "name"), "chat m");
    assert_string_equal(text_at(c, "name"), "chat m");
    assert_string_equal(text_at(s, "traceId"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_string_equal(text_at(s, "parentSpanId"), "00f067aa0ba902b7");
    assert_string_equal(text_at(s, "traceState"), "vendor=opaque,b=c");
    assert_int_equal(at(s, "flags")->valueint, 0x301);
    assert_string_equal(text_at(c, "traceId"), text_at(s, "traceId"));
    assert_string_equal(text_at(c, "parentSpanId"), text_at(s, "spanId"));
    assert_string_not_equal(text_at(c, "spanId"), text_at(s, "spanId"));
    assert_int_equal(at(c, "flags")->valueint, 0x101);
    assert_true(int64_at(s, "startTimeUnixNano") <= int64_at(c, "startTimeUnixNano"));
    assert_true(int64_at(c, "endTimeUnixNano") <= int64_at(s, "endTimeUnixNano"));
    const cJSON *sa = at(s, "attributes"), *ca = at(c, "attributes");
    check_attributes(sa, "m");
    check_attributes(ca, "gpt");
    has_int(sa, "http.response.status_code", 200);
    has_string(sa, "pare.stage", "answer");
    has_string(sa, "pare.answered_by", "remote:up");
    assert_true(double_of(sa, "pare.cost_usd") > 12.9e-6 && double_of(sa, "pare.cost_usd") < 13.1e-6);
    assert_true(double_of(sa, "gen_ai.response.time_to_first_chunk") > 0);
    has_string(ca, "server.address", "127.0.0.1");
    has_int(ca, "server.port", the.up.port);
    assert_null(value_of(sa, "server.address"));
    assert_int_equal(cJSON_GetArraySize(at(s, "status")), 0);
    cJSON_Delete(servers);
    cJSON_Delete(calls);
    pthread_mutex_lock(&col.lock);
    char *all = cJSON_PrintUnformatted(col.bodies[0]);
    assert_null(strstr(all, "my-private-words"));
    assert_non_null(strcasestr(col.heads[0], "content-type: application/json\r\n"));
    assert_non_null(strstr(col.heads[0], "\r\nx-token: /"));
    free(all);
    pthread_mutex_unlock(&col.lock);
    assert_int_equal(col.unreadable, 0);
}

/* A stored answer and a refusal: one span each, no call; a failure: both, with its word. */
static void test_span_kinds(void **state) {
    (void)state;
    open_bed("", "");
    ask(&the, "whole", "a", false, &r);
    ask(&the, "whole", "a", false, &r);
    assert_true(answered_by(&r, "recall.exact"));
    post(the.port, CHAT, "", "{\"model\":\"nobody\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", &r);
    assert_int_equal(r.status, 404);
    ask(&the, "wrong", "b", false, &r);
    assert_int_equal(r.status, 500);
    until(count_spans(2) == 4);
    cJSON *servers = spans_of(2), *calls = spans_of(3);
    assert_int_equal(cJSON_GetArraySize(servers), 4);
    assert_int_equal(cJSON_GetArraySize(calls), 2);
    const cJSON *hit = cJSON_GetArrayItem(servers, 1), *unknown = cJSON_GetArrayItem(servers, 2);
    const cJSON *failed = cJSON_GetArrayItem(servers, 3), *call = cJSON_GetArrayItem(calls, 1);
    has_string(at(hit, "attributes"), "pare.stage", "recall.exact");
    has_string(at(hit, "attributes"), "gen_ai.provider.name", "openai");
    assert_null(cJSON_GetObjectItem(hit, "parentSpanId"));
    assert_int_equal(at(hit, "flags")->valueint, 0x101);
    assert_true(double_of(at(hit, "attributes"), "pare.saved_usd") > 0);
    assert_string_equal(text_at(unknown, "name"), "chat"); /* names of strangers are no names of spans */
    has_string(at(unknown, "attributes"), "error.type", "not_found");
    has_int(at(unknown, "attributes"), "http.response.status_code", 404);
    assert_int_equal(cJSON_GetArraySize(at(unknown, "status")), 0);
    has_string(at(failed, "attributes"), "error.type", "upstream");
    assert_int_equal(at(at(failed, "status"), "code")->valueint, 2);
    has_string(at(call, "attributes"), "error.type", "upstream");
    assert_int_equal(at(at(call, "status"), "code")->valueint, 2);
    assert_null(value_of(at(call, "attributes"), "gen_ai.response.model"));
    cJSON_Delete(servers);
    cJSON_Delete(calls);
}

/* ---- metrics ---- */

static const cJSON *metric(const cJSON *metrics, const char *name) {
    const cJSON *m, *found = NULL;
    cJSON_ArrayForEach(m, metrics) {
        if (strcmp(text_at(m, "name"), name) == 0) {
            assert_null(found); /* one metric a name */
            found = m;
        }
    }
    return found;
}

static double bound_of(const cJSON *p, int i) {
    return cJSON_GetArrayItem(at(p, "explicitBounds"), i)->valuedouble;
}

static void check_point(const cJSON *p, int bounds) {
    const cJSON *buckets = at(p, "bucketCounts"), *b;
    long long    sum = 0;
    assert_int_equal(cJSON_GetArraySize(at(p, "explicitBounds")), bounds);
    assert_int_equal(cJSON_GetArraySize(buckets), bounds + 1);
    cJSON_ArrayForEach(b, buckets) {
        assert_non_null(cJSON_GetStringValue(b));
        sum += strtoll(cJSON_GetStringValue(b), NULL, 10);
    }
    assert_int_equal(sum, int64_at(p, "count"));
    assert_true(sum > 0 && cJSON_IsNumber(at(p, "sum")));
    assert_true(int64_at(p, "startTimeUnixNano") < int64_at(p, "timeUnixNano"));
    for (int i = 1; i < bounds; i++) {
        assert_true(bound_of(p, i - 1) < bound_of(p, i));
    }
}

/* The point whose attribute `key` is `value` (NULL: the only one), of a histogram. */
static const cJSON *point_of(const cJSON *metrics, const char *name, const char *key, const char *value, int bounds) {
    const cJSON *h = at(metric(metrics, name), "histogram"), *p, *found = NULL;
    assert_int_equal(at(h, "aggregationTemporality")->valueint, 2);
    cJSON_ArrayForEach(p, at(h, "dataPoints")) {
        const char *has = key ? string_of(at(p, "attributes"), key) : NULL;
        check_point(p, bounds);
        if (!key || (has && strcmp(has, value) == 0)) {
            assert_null(found);
            found = p;
        }
    }
    assert_non_null(found);
    return found;
}

static cJSON *last_metrics(void) {
    cJSON *copy = NULL;
    pthread_mutex_lock(&col.lock);
    for (int i = 0; i < col.n; i++) {
        if (strcmp(col.paths[i], "/v1/metrics") == 0) {
            cJSON_Delete(copy);
            copy = cJSON_Duplicate(col.bodies[i], true);
        }
    }
    pthread_mutex_unlock(&col.lock);
    return copy;
}

static long long sum_of(const cJSON *metrics, const char *name, const char *by, const char *outcome) {
    const cJSON *s = at(metric(metrics, name), "sum"), *p;
    assert_int_equal(at(s, "aggregationTemporality")->valueint, 2);
    assert_true(cJSON_IsBool(at(s, "isMonotonic")));
    cJSON_ArrayForEach(p, at(s, "dataPoints")) {
        const cJSON *a = cJSON_GetObjectItem(p, "attributes");
        if (!by ||
            (strcmp(string_of(a, "pare.answered_by"), by) == 0 && strcmp(string_of(a, "pare.outcome"), outcome) == 0)) {
            return int64_at(p, "asInt");
        }
    }
    return -1;
}

static void test_metrics(void **state) {
    (void)state;
    open_bed(", traces: false", "");
    for (int i = 0; i < 5; i++) {
        char salt[8];
        snprintf(salt, sizeof salt, "%d", i);
        ask(&the, "stream", salt, true, &r);
        assert_true(body_has(&r, "[DONE]"));
    }
    ask(&the, "stream", "0", true, &r); /* recalled */
    ask(&the, "wrong", "x", false, &r);
    nap(300);
    bed_stop(&the, 5000000); /* the last report comes at the end */
    cJSON       *body = last_metrics();
    const cJSON *m = unpack(body, "resourceMetrics", "scopeMetrics", "metrics");
    static const struct {
        const char *name, *unit;
    } units[] = {{"gen_ai.client.token.usage", "{token}"},
                 {"gen_ai.client.operation.duration", "s"},
                 {"gen_ai.server.request.duration", "s"},
                 {"gen_ai.server.time_to_first_token", "s"},
                 {"gen_ai.server.time_per_output_token", "s"}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        assert_string_equal(text_at(metric(m, units[i].name), "unit"), units[i].unit);
    }
    const cJSON *in = point_of(m, "gen_ai.client.token.usage", "gen_ai.token.type", "input", 14);
    assert_int_equal(int64_at(in, "count"), 5); /* what was recalled bought no tokens */
    assert_int_equal((int)at(in, "sum")->valuedouble, 35);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(at(in, "bucketCounts"), 2)), "5"); /* 4 < 7 <= 16 */
    const cJSON *out = point_of(m, "gen_ai.client.token.usage", "gen_ai.token.type", "output", 14);
    assert_int_equal((int)at(out, "sum")->valuedouble, 15);
    has_string(at(out, "attributes"), "gen_ai.request.model", "m");
    has_string(at(out, "attributes"), "gen_ai.response.model", "gpt");
    has_string(at(out, "attributes"), "server.address", "127.0.0.1");
    has_int(at(out, "attributes"), "server.port", the.up.port);
    const cJSON *failed = point_of(m, "gen_ai.client.operation.duration", "error.type", "upstream", 14);
    assert_int_equal(int64_at(failed, "count"), 1);
    const cJSON *first = point_of(m, "gen_ai.server.time_to_first_token", "gen_ai.response.model", "gpt", 16);
    assert_int_equal(int64_at(first, "count"), 5);
    assert_true(bound_of(first, 0) > 0.00099 && bound_of(first, 15) > 9.99);
    assert_int_equal(sum_of(m, "pare.requests", "remote", "ok"), 5);
    assert_int_equal(sum_of(m, "pare.requests", "recall.exact", "ok"), 1);
    assert_int_equal(sum_of(m, "pare.requests", "remote", "error"), 1);
    assert_int_equal(sum_of(m, "pare.streams", NULL, NULL), 6);
    assert_int_equal(sum_of(m, "pare.telemetry.dropped", NULL, NULL), 0);
    assert_int_equal(count_spans(2), 0);
    cJSON_Delete(body);
}

/* A model of our own: an internal span, and a first token that is known without a stream. */
static void test_local(void **state) {
    (void)state;
    char lines[256];
    collector_start(&col);
    snprintf(lines, sizeof lines, "telemetry: {endpoint: \"http://127.0.0.1:%d\", interval: 100ms}\n", col.port);
    the = (bed){.with_model = true};
    bed_open_with(&the, scripts, lines);
    post(the.port, CHAT, "",
         "{\"model\":\"storyteller\",\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":\"Tell\"}]}", &r);
    assert_int_equal(r.status, 200);
    bed_stop(&the, 5000000);
    cJSON       *calls = spans_of(1), *body = last_metrics();
    const cJSON *c = cJSON_GetArrayItem(calls, 0), *a = at(c, "attributes");
    check_span(c);
    has_string(a, "gen_ai.provider.name", "pare");
    has_string(a, "gen_ai.response.model", "storyteller");
    has_int(a, "gen_ai.request.max_tokens", 8);
    assert_null(value_of(a, "server.address"));
    assert_true(double_of(a, "pare.queue_seconds") >= 0);
    const cJSON *m = unpack(body, "resourceMetrics", "scopeMetrics", "metrics");
    point_of(m, "gen_ai.server.time_to_first_token", NULL, NULL, 16);
    point_of(m, "gen_ai.server.time_per_output_token", NULL, NULL, 13);
    cJSON_Delete(calls);
    cJSON_Delete(body);
}

static int64_t cpu_ns(void) { /* of this thread */
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What a loop pays for an exchange: a bound that only a mistake exceeds. */
static void test_cost(void **state) {
    (void)state;
    open_bed("", "");
    model_entry     target = {.name = "m", .upstream = "gpt"};
    const otlp_peer peer = {.provider = "openai", .base_url = "https://api.openai.com/v1"};
    int64_t         spent = 0, n = 20000;
    for (int64_t i = 0; i < n; i++) {
        exchange *x = exchange_new(4096);
        x->target = &target;
        x->arrived_wall_us = clock_wall_us();
        x->arrived_us = x->asked_us = x->done_us = clock_us();
        x->result = OUTCOME_OK;
        int64_t began = cpu_ns();
        otlp_begin(the.house->otlp, x, PARENT, "a=b");
        otlp_finished(the.house->otlp, x, &peer);
        spent += cpu_ns() - began;
        exchange_free(x);
    }
    printf("telemetry costs a loop %.2f us an exchange\n", (double)spent / (double)n / 1e3);
    assert_true(spent < 200000 * n);
}

/* A provider that names its model anew each time cannot fill the memory. */
static void test_many_series(void **state) {
    (void)state;
    otlp_series *s = otlp_series_new();
    counters    *c = counters_new();
    otlp_span    x = {
           .operation = "chat", .provider = "openai", .model = "m", .begun_ns = 1, .ended_ns = 1000, .first_us = -1};
    for (int i = 0; i < 5000; i++) {
        snprintf(x.response_model, sizeof x.response_model, "made-up-%d", i);
        otlp_series_record(s, &x);
    }
    otlp_report r1 = {
        .service = "pare", .instance = "0123456789abcdef0123456789abcdef", .counters = c, .begun_ns = 1, .now_ns = 2};
    str body = {0};
    otlp_series_write(s, &r1, &body);
    cJSON *root = cJSON_Parse(body.data);
    assert_non_null(root);
    const cJSON *m =
        metric(unpack(root, "resourceMetrics", "scopeMetrics", "metrics"), "gen_ai.server.request.duration");
    const cJSON *points = at(at(m, "histogram"), "dataPoints"), *p;
    long long    all = 0, over = 0;
    cJSON_ArrayForEach(p, points) {
        all += int64_at(p, "count");
        over += value_of(at(p, "attributes"), "otel.metric.overflow") ? int64_at(p, "count") : 0;
    }
    assert_int_equal(cJSON_GetArraySize(points), 1001);
    assert_int_equal(all, 5000);
    assert_int_equal(over, 4000);
    cJSON_Delete(root);
    str_free(&body);
    otlp_series_free(s);
    counters_free(c);
}

/* ---- context ---- */

static void test_traceparent(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool        good;
    } rows[] = {{PARENT, true},
                {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true},
                {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true},
                {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true},
                {"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more", false},
                {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false},
                {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
                {"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false},
                {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
                {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false},
                {"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false},
                {"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false},
                {"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", false},
                {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", false},
                {"0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001", false},
                {" " PARENT, false},
                {"", false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t id[16], parent[8], flags = 0;
        if (trace_parent_read(rows[i].text, id, parent, &flags) != rows[i].good) {
            fail_msg("%s", rows[i].text);
        }
    }
}

static void test_hosts(void **state) {
    (void)state;
    static const struct {
        const char *url, *host;
        int         port;
    } rows[] = {{"https://api.openai.com/v1", "api.openai.com", 443},
                {"http://h", "h", 80},
                {"http://u:secret@h:81/x", "h", 81},
                {"https://[::1]:8443/v1", "::1", 8443},
                {"https://[::1]/v1", "::1", 443},
                {"http://h:99999/", NULL, 0},
                {"http://h:8x/", NULL, 0},
                {"h:80", NULL, 0},
                {"http:///x", NULL, 0},
                {"http://[::1/x", NULL, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char host[64] = "";
        int  port = 0;
        bool good = otlp_host(rows[i].url, host, sizeof host, &port);
        if (good != (rows[i].host != NULL) || (good && (strcmp(host, rows[i].host) != 0 || port != rows[i].port))) {
            fail_msg("%s: %s %d", rows[i].url, host, port);
        }
    }
    assert_string_equal(otlp_provider("openai", "https://api.groq.com/openai/v1"), "groq");
    assert_string_equal(otlp_provider("openai", "https://proxy.example/api.groq.com"), "openai");
    assert_string_equal(otlp_provider("anthropic", "https://api.anthropic.com"), "anthropic");
    assert_string_equal(otlp_provider("azure", "https://me.openai.azure.com"), "azure.ai.openai");
    assert_string_equal(otlp_provider("gemini", "https://generativelanguage.googleapis.com/v1beta"), "gcp.gemini");
}

/* The client's word counts: not sampled is not recorded, and the provider is told so. */
static void test_sampling(void **state) {
    (void)state;
    char body[512];
    open_bed(", metrics: false, sample: 0", "");
    ask(&the, "whole", "own", false, &r);
    post(the.port, CHAT, "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n",
         chat_body(body, sizeof body, "whole", "not", false), &r);
    post(the.port, CHAT, "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-zzf067aa0ba902b7-01\r\n",
         chat_body(body, sizeof body, "whole", "invalid", false), &r);
    post(the.port, CHAT, "traceparent: " PARENT "\r\ntraceparent: " PARENT "\r\n",
         chat_body(body, sizeof body, "whole", "twice", false), &r);
    post(the.port, CHAT, "traceparent: " PARENT "\r\n", chat_body(body, sizeof body, "whole", "yes", false), &r);
    assert_int_equal(r.status, 200);
    bed_stop(&the, 5000000);
    assert_int_equal(count_spans(2), 1);
    cJSON *servers = spans_of(2);
    assert_string_equal(text_at(cJSON_GetArrayItem(servers, 0), "parentSpanId"), "00f067aa0ba902b7");
    cJSON_Delete(servers);

    otlp_options o = {.sample = 0.25};
    int          taken = 0;
    for (int i = 0; i < 4000; i++) {
        exchange *x = exchange_new(1024);
        trace_begin(&o, x, NULL, NULL);
        taken += x->trace->sampled;
        exchange_free(x);
    }
    assert_true(taken > 850 && taken < 1150);
}

/* ---- what the provider gets ---- */

static char       echoed[2][128];
static atomic_int n_echoed;

static void *echo_once(void *arg) {
    int  fd = accept(*(int *)arg, NULL, NULL);
    str  in = {0};
    char bytes[4096];
    while (!in.data || !strstr(in.data, "\r\n\r\n") || !strstr(in.data, "messages")) {
        ssize_t k = recv(fd, bytes, sizeof bytes, 0);
        if (k <= 0) {
            break;
        }
        str_add(&in, bytes, (size_t)k);
    }
    static const char *const names[] = {"\r\ntraceparent: ", "\r\ntracestate: "};
    for (int i = 0; i < 2; i++) {
        const char *h = in.data ? strcasestr(in.data, names[i]) : NULL;
        snprintf(echoed[i], sizeof echoed[i], "%.*s", h ? (int)strcspn(h + strlen(names[i]), "\r") : 0,
                 h ? h + strlen(names[i]) : "");
    }
    str out = {0};
    str_addf(&out, "HTTP/1.1 " JSON_HEAD "\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n" WHOLE, strlen(WHOLE));
    send_all(fd, out.data, out.len);
    str_free(&out);
    str_free(&in);
    close(fd);
    atomic_fetch_add(&n_echoed, 1);
    return NULL;
}

static void ask_echo(const char *telemetry, const char *headers) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof a;
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t          t;
    char               lines[512], body[256], root[128];
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 4), 0);
    getsockname(fd, (struct sockaddr *)&a, &n);
    assert_int_equal(pthread_create(&t, NULL, echo_once, &fd), 0);
    collector_start(&col);
    the = (bed){0};
    snprintf(lines, sizeof lines, "  echo: {base_url: \"http://127.0.0.1:%d/v1\"}\n%s", ntohs(a.sin_port),
             telemetry ? "" : "drain: 1s\n");
    if (telemetry) {
        snprintf(root, sizeof root, "telemetry: {endpoint: \"http://127.0.0.1:%d\", interval: 100ms%s}\n", col.port,
                 telemetry);
        strcat(lines, root);
    }
    the.model_line = "  e: {backend: echo, model: gpt, retries: 0}\n";
    bed_open_with(&the, scripts, lines);
    snprintf(body, sizeof body, "{\"model\":\"e\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    post(the.port, CHAT, headers, body, &r);
    assert_int_equal(r.status, 200);
    pthread_join(t, NULL);
    close(fd);
}

static void test_passed_on(void **state) {
    ask_echo("", "traceparent: " PARENT "\r\ntracestate: a=b\r\n");
    until(count_spans(3) == 1);
    cJSON      *calls = spans_of(3);
    const char *span = text_at(cJSON_GetArrayItem(calls, 0), "spanId");
    char        want[64];
    snprintf(want, sizeof want, "00-4bf92f3577b34da6a3ce929d0e0e4736-%s-01", span);
    assert_string_equal(echoed[0], want); /* the provider's spans hang below our call */
    assert_string_equal(echoed[1], "a=b");
    cJSON_Delete(calls);
    close_all(state);

    ask_echo("", "tracestate: a=b\r\n"); /* a state without its parent means nothing */
    assert_int_equal(strlen(echoed[0]), 55);
    assert_string_equal(echoed[1], "");
    close_all(state);

    ask_echo(", propagate: false", "traceparent: " PARENT "\r\n");
    assert_string_equal(echoed[0], "");
    close_all(state);

    ask_echo(NULL, "traceparent: " PARENT "\r\n");
    assert_string_equal(echoed[0], "");
}

/* ---- a collector in trouble ---- */

static double asks(int n, const char *salt) {
    int64_t began = clock_us();
    for (int i = 0; i < n; i++) {
        char words[32];
        snprintf(words, sizeof words, "%s%d", salt, i);
        ask(&the, "whole", words, false, &r);
        assert_int_equal(r.status, 200);
    }
    return (double)(clock_us() - began) / n;
}

static void test_hanging(void **state) {
    (void)state;
    open_bed("", "");
    double well = asks(200, "well");
    atomic_store(&col.hang, 1);
    int before = atomic_load(&col.requests);
    until(atomic_load(&col.requests) > before);
    double hangs = asks(200, "hangs");
    printf("a request takes %.0f us with a collector that answers, %.0f us with one that hangs\n", well, hangs);
    assert_true(hangs < well * 3 + 2000);
    int64_t began = clock_us();
    otlp_stop(the.house->otlp);
    int64_t took = clock_us() - began;
    printf("the sender's end took %.0f ms\n", (double)took / 1e3);
    assert_true(took > 1900000 && took < 2300000);
    ask(&the, "whole", "later", false, &r); /* and nothing minds that it is gone */
    assert_int_equal(r.status, 200);
}

static void test_away_and_back(void **state) {
    (void)state;
    open_bed("", "");
    ask(&the, "whole", "first", false, &r);
    until(count_spans(2) == 1);
    atomic_store(&col.status, 503);
    int before = atomic_load(&col.requests);
    asks(20, "away");
    until(atomic_load(&col.requests) > before);
    assert_int_equal(count_spans(2), 1);
    atomic_store(&col.status, 200);
    until(count_spans(2) == 21); /* none is lost, none comes twice */
    nap(300);
    assert_int_equal(count_spans(2), 21);
    str text = {0};
    otlp_metrics(the.house->otlp, &text);
    assert_non_null(strstr(text.data, "pare_telemetry_sent_total 21\n"));
    assert_non_null(strstr(text.data, "pare_telemetry_dropped_total 0\n"));
    assert_null(strstr(text.data, "pare_telemetry_failures_total 0\n"));
    str_free(&text);
}

/* A collector that says when it wants to be asked again, and one that takes a message without some of its spans. */
static void test_told(void **state) {
    (void)state;
    open_bed(", metrics: false", "");
    atomic_store(&col.retry_after, 2);
    atomic_store(&col.status, 429);
    ask(&the, "whole", "a", false, &r);
    until(atomic_load(&col.requests) == 1);
    int64_t began = clock_us();
    atomic_store(&col.partial, 1);
    atomic_store(&col.status, 200);
    until(atomic_load(&col.requests) == 2);
    int64_t waited = clock_us() - began;
    assert_int_equal(atomic_load(&col.requests), 2);
    assert_true(waited > 1800000 && waited < 6000000); /* by itself it would come after a second at most */
    str text = {0};
    until((str_clear(&text), otlp_metrics(the.house->otlp, &text), strstr(text.data, "sent_total 1\n")));
    assert_non_null(strstr(text.data, "pare_telemetry_refused_total 2\n"));
    assert_non_null(strstr(text.data, "pare_telemetry_failures_total 1\n"));
    str_free(&text);
}

/* 400: the same bytes would be refused again. And with nobody there the queue holds the newest. */
static void test_refused_and_gone(void **state) {
    (void)state;
    open_bed(", metrics: false", "");
    atomic_store(&col.status, 400);
    ask(&the, "whole", "a", false, &r);
    str text = {0};
    until((str_clear(&text), otlp_metrics(the.house->otlp, &text), strstr(text.data, "dropped_total 1\n")));
    assert_non_null(strstr(text.data, "dropped_total 1\n"));
    atomic_store(&col.status, 200);
    int port = col.port;
    collector_stop(&col);
    asks(2600, "gone"); /* more than may wait: 2048, and a message that is being tried */
    str_clear(&text);
    otlp_metrics(the.house->otlp, &text);
    assert_non_null(strstr(text.data, "pare_telemetry_waiting 2048\n"));
    col = (collector){.port = port};
    collector_start(&col);
    long sent = 0, dropped = 0; /* it may be half a minute until it is asked again: the pauses have grown */
    for (int64_t end = clock_us() + 60000000; sent + dropped < 2601 && clock_us() < end; nap(20)) {
        str_clear(&text);
        otlp_metrics(the.house->otlp, &text);
        sent = atol(strstr(text.data, "\npare_telemetry_sent_total ") + strlen("\npare_telemetry_sent_total "));
        dropped =
            atol(strstr(text.data, "\npare_telemetry_dropped_total ") + strlen("\npare_telemetry_dropped_total "));
    }
    assert_int_equal(sent + dropped, 2601);
    assert_true(sent >= 2048 && sent <= 2048 + 256);
    str_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_spans, close_all),
        cmocka_unit_test_teardown(test_span_kinds, close_all),
        cmocka_unit_test_teardown(test_metrics, close_all),
        cmocka_unit_test_teardown(test_local, close_all),
        cmocka_unit_test_teardown(test_cost, close_all),
        cmocka_unit_test(test_many_series),
        cmocka_unit_test(test_traceparent),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test_teardown(test_sampling, close_all),
        cmocka_unit_test_teardown(test_passed_on, close_all),
        cmocka_unit_test_teardown(test_hanging, close_all),
        cmocka_unit_test_teardown(test_away_and_back, close_all),
        cmocka_unit_test_teardown(test_told, close_all),
        cmocka_unit_test_teardown(test_refused_and_gone, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
