/* HTTP as clients speak it, well or oddly: methods, versions, framing, keep-alive, limits, keys. */
#include "bed.h"

static void run_slow_whole(upstream *u, int fd) {
    peer_left(u, fd, 150);
    say(fd, "HTTP/1.1 " JSON_HEAD "\r\nConnection: close\r\n\r\n" WHOLE);
}

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"slow", NULL, NULL, RAW, CLOSE, run_slow_whole},
                                 {0}};

static bed   the;
static reply r;

static int open_bed(void **state) {
    (void)state;
    bed_open(&the, scripts);
    return 0;
}

static int open_bed_with_keys(void **state) {
    (void)state;
    bed_open_with(&the, scripts,
                  "keys:\n  - {name: user, key: user-secret}\n  - {name: boss, key: boss-secret, admin: true}\n");
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    bed_close(&the);
    return 0;
}

/* One request as these bytes, on a connection of its own. */
static void raw(const char *bytes) {
    int fd = client_connect(the.port);
    assert_true(fd >= 0);
    reply_free(&r);
    say(fd, bytes);
    read_reply(fd, &r, strncmp(bytes, "HEAD", 4) == 0);
    close(fd);
}

static void test_methods(void **state) {
    (void)state;
    raw("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 200);
    assert_true(body_has(&r, "\"status\":\"ok\""));
    raw("GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 405);
    assert_true(has_header(&r, "Allow", "POST"));
    raw("DELETE /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 405);
    raw("OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 405);
    raw("POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(r.status, 404);
    raw("BREW / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_in_range(r.status, 400, 599);
    raw("hello\r\n\r\n");
    assert_in_range(r.status, 400, 599);
    raw("GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(r.status == 200 && body_has(&r, "\"id\":\"m\""));
    raw("GET /v1/models/%6D HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 200);
    raw("GET /v1/models/nope%2Fnope HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(r.status == 404 && body_has(&r, "nope/nope"));
    raw("GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 404);
}

/* The head of a GET, no body, and the connection goes on. */
static void test_head(void **state) {
    (void)state;
    static const char *const paths[] = {"/health",    "/v1/models", "/metrics",  "/",
                                        "/api/stats", "/api/live",  "/api/cache"};
    int                      fd = client_connect(the.port);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "HEAD %s HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
                 paths[i]);
        say(fd, text);
        read_reply(fd, &r, true);
        if (r.status != 200) {
            fail_msg("HEAD %s: %d", paths[i], r.status);
        }
        char length[32];
        assert_true(header_of(&r, "Content-Length", length, sizeof length));
        read_reply(fd, &r, false);
        if (r.status != 200 || !body_has(&r, "uptime") || r.rest.len > 0) {
            fail_msg("behind HEAD %s: %d %s", paths[i], r.status, r.body.data ? r.body.data : "");
        }
    }
    close(fd);
}

static void old_client(const char *version, const char *headers, const char *name, bool stream) {
    char body[256], text[1024];
    chat_body(body, sizeof body, name, version, stream);
    snprintf(text, sizeof text, "POST " CHAT " %s\r\nContent-Length: %zu\r\n%s\r\n%s", version, strlen(body), headers,
             body);
    raw(text);
}

static void test_old_clients(void **state) {
    (void)state;
    old_client("HTTP/1.0", "", "whole", false);
    assert_true(r.status == 200 && r.complete && body_has(&r, "hello"));
    old_client("HTTP/1.0", "Connection: keep-alive\r\n", "whole", false);
    assert_true(r.status == 200 && r.complete && !r.closed && body_has(&r, "hello"));
    static const char *const connection[] = {"", "Connection: keep-alive\r\n", "Connection: Keep-Alive\r\n"};
    for (int i = 0; i < 3; i++) { /* live, and from memory */
        old_client("HTTP/1.0", connection[i], "stream", true);
        if (r.status != 200 || !r.complete || !r.closed || !body_has(&r, DONE) || strstr(r.head.data, "chunked") ||
            strcasestr(r.head.data, "content-length")) {
            fail_msg("HTTP/1.0 stream %d: %d %s%s", i, r.status, r.head.data, r.body.data ? r.body.data : "");
        }
    }
    old_client("HTTP/1.1", "Host: x\r\nConnection: close\r\n", "stream", true);
    assert_true(r.status == 200 && r.complete && body_has(&r, DONE));
}

static void test_keep_alive(void **state) {
    (void)state;
    char body[256];
    int  fd = client_connect(the.port);
    for (int i = 0; i < 20; i++) {
        char salt[16];
        snprintf(salt, sizeof salt, "%d", i / 2);
        send_post(fd, CHAT, "", chat_body(body, sizeof body, i % 3 ? "stream" : "whole", salt, i % 3 == 1));
        read_reply(fd, &r, false);
        assert_true(r.status == 200 && r.complete && !r.closed && r.rest.len == 0);
    }
    close(fd);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), 20);
}

/* Requests that come behind a running one wait their turn, also large ones, and are answered in order. */
static void test_pipelining(void **state) {
    (void)state;
    char  first[256], second[256];
    char *large = malloc(300001);
    memset(large, ' ', 300000);
    large[300000] = '\0';
    chat_body(first, sizeof first, "slow", "1", false);
    chat_body(second, sizeof second, "whole", "pipe", true);
    memcpy(large, second, strlen(second)); /* blanks behind the JSON */
    int fd = client_connect(the.port);
    for (int round = 0; round < 3; round++) {
        send_post(fd, CHAT, "Cache-Control: no-cache\r\n", first);
        send_post(fd, CHAT, "", second);
        send_post(fd, CHAT, "", large);
        say(fd, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        read_reply(fd, &r, false);
        assert_true(r.status == 200 && body_has(&r, "hello") && !body_has(&r, "data:"));
        for (int i = 0; i < 2; i++) {
            read_reply(fd, &r, false);
            assert_true(r.status == 200 && body_has(&r, DONE));
        }
        read_reply(fd, &r, false);
        assert_true(r.status == 200 && body_has(&r, "uptime"));
    }
    close(fd);
    free(large);
}

/* The time limits and the read mark of a running request are taken back when it is done. */
static void test_large_behind_small(void **state) {
    (void)state;
    static const size_t sizes[] = {10, 70000, 2000000, 10, 9000000};
    int                 fd = client_connect(the.port);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char  start[256];
        char *body = malloc(sizes[i] + 256);
        chat_body(start, sizeof start, "whole", "large", false);
        memset(body, ' ', sizes[i] + 255);
        body[sizes[i] + 255] = '\0';
        memcpy(body, start, strlen(start));
        send_post(fd, CHAT, "", body);
        read_reply(fd, &r, false);
        if (r.status != 200) {
            fail_msg("%zu bytes: %d", sizes[i], r.status);
        }
        free(body);
    }
    close(fd);
}

static void test_chunked_body(void **state) {
    (void)state;
    char body[256];
    str  out = {0};
    int  fd = client_connect(the.port);
    chat_body(body, sizeof body, "whole", "chunked", false);
    str_adds(&out, "POST " CHAT " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (size_t i = 0; body[i]; i += 10) {
        size_t n = strlen(body + i) < 10 ? strlen(body + i) : 10;
        str_addf(&out, "%zx\r\n%.*s\r\n", n, (int)n, body + i);
    }
    str_adds(&out, "0\r\nTrailer: x\r\n\r\n");
    for (int i = 0; i < 2; i++) {
        send_all(fd, out.data, out.len);
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 200);
    }
    str_free(&out);
    close(fd);
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n");
    assert_in_range(r.status, 400, 499);
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
    assert_int_equal(r.status, 501);
    assert_true(has_header(&r, "Connection", "close"));
}

static void test_no_body(void **state) {
    (void)state;
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 400);
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(r.status, 400);
    static const char *const lengths[] = {"-1", "abc", "99999999999999999999999999", "1e3", "0x10", "12 13"};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n{}", lengths[i]);
        raw(text);
        if (r.status < 400 || r.status > 499) {
            fail_msg("Content-Length %s: %d", lengths[i], r.status);
        }
    }
}

static void test_expect(void **state) {
    (void)state;
    char body[256], text[512];
    int  fd = client_connect(the.port);
    chat_body(body, sizeof body, "whole", "expect", false);
    snprintf(text, sizeof text,
             "POST " CHAT " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %zu\r\n\r\n", strlen(body));
    for (int i = 0; i < 2; i++) {
        str in = {0};
        say(fd, text);
        assert_true(receive(fd, &in)); /* before a byte of the body was sent */
        assert_non_null(strstr(in.data, "HTTP/1.1 100"));
        str_free(&in);
        say(fd, body);
        read_reply(fd, &r, false);
        assert_true(r.status == 200 && body_has(&r, "hello"));
    }
    close(fd);
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999999\r\n\r\n");
    assert_int_equal(r.status, 413); /* and no 100 before it */
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\nContent-Length: 2\r\n\r\n{}");
    assert_int_equal(r.status, 417);
}

static void post_bytes(size_t n) {
    char *body = malloc(n + 1);
    memset(body, ' ', n);
    body[n] = '\0';
    post(the.port, CHAT, "", body, &r);
    free(body);
}

static void test_large_bodies(void **state) {
    (void)state;
    post_bytes((32u << 20) - 10);
    assert_int_equal(r.status, 400); /* read, and no JSON */
    post_bytes((32u << 20) + 1);
    assert_int_equal(r.status, 413);
    assert_true(body_has(&r, "32 MiB") && body_has(&r, "\"error\""));
    raw("POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n{");
    assert_int_equal(r.status, 413); /* at once: evhttp's own */
    assert_int_equal(in_flight(&the), 0);
}

static void test_large_headers(void **state) {
    (void)state;
    static char text[200000];
    for (int i = 0; i < 2; i++) {
        size_t n = i ? 100000 : 40000;
        int    at = snprintf(text, sizeof text, "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ");
        memset(text + at, 'a', n);
        memcpy(text + (size_t)at + n, "\r\n\r\n", 5);
        raw(text);
        if (i == 0) {
            assert_int_equal(r.status, 200);
        } else {
            assert_in_range(r.status, 400, 499);
        }
    }
}

/* Nothing that a client or a provider says becomes a header line of its own. */
static void test_no_header_injection(void **state) {
    (void)state;
    post(the.port, CHAT, "",
         "{\"model\":\"x\\r\\nX-Evil: 1\\r\\n\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", &r);
    assert_int_equal(r.status, 404);
    assert_null(strstr(r.head.data, "X-Evil"));
    raw("GET /nothing%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 404);
    assert_null(strstr(r.head.data, "X-Evil"));
    raw("GET /v1/models/a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(r.status, 404);
    assert_null(strstr(r.head.data, "X-Evil"));
}

static void get(const char *path, const char *headers) {
    char text[512];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, headers);
    raw(text);
}

static void test_keys(void **state) {
    (void)state;
    static const char *const pages[] = {"/metrics", "/api/stats", "/api/cache", "/api/cache?list=5", "/api/live"};
    char                     body[256];
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        get(pages[i], "");
        assert_int_equal(r.status, 401);
        get(pages[i], "Authorization: Bearer wrong-secret\r\n");
        assert_int_equal(r.status, 401);
        get(pages[i], "Authorization: Bearer user-secret\r\n");
        assert_int_equal(r.status, 403);
        if (i < 4) { /* the last does not end */
            get(pages[i], "x-api-key: boss-secret\r\n");
            assert_int_equal(r.status, 200);
        }
    }
    raw("DELETE /api/cache HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user-secret\r\n\r\n");
    assert_int_equal(r.status, 403);
    get("/v1/models", "");
    assert_int_equal(r.status, 401);
    get("/v1/models", "Authorization: bearer   user-secret\r\n");
    assert_int_equal(r.status, 200);
    get("/health", "");
    assert_int_equal(r.status, 200);
    chat_body(body, sizeof body, "whole", "keys", false);
    post(the.port, CHAT, "", body, &r);
    assert_int_equal(r.status, 401);
    assert_int_equal(atomic_load(&the.up.requests), 0);
    post(the.port, CHAT, "Authorization: Bearer user-secret\r\n", body, &r);
    assert_int_equal(r.status, 200);
    post(the.port, CHAT, "Authorization: Bearer boss-secret\r\n", body, &r); /* not from the other key's memory */
    assert_true(answered_by(&r, "remote:up"));
    post(the.port, CHAT, "Authorization: Bearer user-secret\r\n", body, &r);
    assert_true(answered_by(&r, "recall.exact"));
}

static int64_t cached_answers(void) {
    cache_stats s;
    cache_stats_read(the.house->cache, &s);
    return (int64_t)s.entries;
}

static void drop(const char *query) {
    char text[1024];
    snprintf(text, sizeof text, "DELETE /api/cache%s HTTP/1.1\r\nHost: x\r\n\r\n", query);
    raw(text);
}

static void test_purge(void **state) {
    (void)state;
    char        long_name[400] = "?model=";
    cache_stats s;
    memset(long_name + 7, 'm', 300);
    ask(&the, "whole", "1", false, &r);
    ask(&the, "whole", "2", false, &r);
    assert_int_equal(cached_answers(), 2);
    static const char *const wrong[] = {"?model", "?key=12", "?key=zz&model=m", "?model=%zz=&=", "?=&"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        drop(wrong[i]);
        if (r.status == 200 && cached_answers() == 0) {
            fail_msg("%s emptied the cache", wrong[i]);
        }
    }
    drop(long_name); /* never all by mistake */
    assert_int_equal(r.status, 400);
    drop("?model=other");
    assert_int_equal(cached_answers(), 2);
    drop("?model=m");
    assert_true(r.status == 200 && body_has(&r, "\"purged\":2"));
    assert_int_equal(cached_answers(), 0);
    ask(&the, "whole", "3", false, &r);
    cache_stats_read(the.house->cache, &s);
    assert_int_equal(s.misses, 3); /* one look a question */
    drop("");
    assert_int_equal(cached_answers(), 0);
}

static void test_windows(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "soon", "", "-1h", "0s", "9999999999999999d", "1h1h", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "/api/stats?window=%s", wrong[i]);
        get(path, "");
        if (r.status != 400) {
            fail_msg("window %s: %d", wrong[i], r.status);
        }
        snprintf(path, sizeof path, "/api/live?window=%s", wrong[i]);
        get(path, "");
        assert_int_equal(r.status, 400);
    }
    get("/api/stats?window=15m", "");
    assert_int_equal(r.status, 200);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_bed, close_bed)
    const struct CMUnitTest tests[] = {T(test_methods),
                                       T(test_head),
                                       T(test_old_clients),
                                       T(test_keep_alive),
                                       T(test_pipelining),
                                       T(test_large_behind_small),
                                       T(test_chunked_body),
                                       T(test_no_body),
                                       T(test_expect),
                                       T(test_large_bodies),
                                       T(test_large_headers),
                                       T(test_no_header_injection),
                                       T(test_purge),
                                       T(test_windows),
                                       cmocka_unit_test_setup_teardown(test_keys, open_bed_with_keys, close_bed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
