/* Strangers and long bodies: who has no key that is known is told so at once, and holds none of the server's memory. */
#include "bed.h"

#include <inttypes.h>

#include "serve/door.h"

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL}, {0}};

static bed   the;
static reply r;

#define GOOD "Authorization: Bearer secret-k-1\r\n"
#define BAD  "Authorization: Bearer secret-x-1\r\n"

static int open_bed(void **state) {
    (void)state;
    the = (bed){0};
    bed_open_with(&the, scripts, "keys:\n  - {name: k, key: secret-k-1}\n");
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    bed_close(&the);
    return 0;
}

static int64_t resident_kib(void) {
    int64_t pages = 0;
    FILE   *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %" SCNd64, &pages), 1);
    fclose(f);
    return pages * sysconf(_SC_PAGESIZE) / 1024;
}

/* A head, in as many pieces as it has bytes where `dripped`. */
static int begin(const char *path, const char *headers, bool dripped) {
    char text[1024];
    int  fd = client_connect(the.port);
    snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n", path,
             headers);
    assert_true(fd >= 0);
    for (size_t i = 0; dripped && text[i]; i++) {
        assert_true(send_all(fd, &text[i], 1));
        nap(i % 16 == 0);
    }
    if (!dripped) {
        assert_true(say(fd, text));
    }
    return fd;
}

/* True when the server has closed; false after about five seconds of a KiB every 10 ms. */
static bool closes(int fd) {
    static const char some[1024];
    for (int i = 0; i < 500; i++) {
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
        if (send(fd, some, sizeof some, MSG_NOSIGNAL) < 0) {
            return true;
        }
        if (poll(&p, 1, 10) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR)) {
            return true;
        }
    }
    return false;
}

/* Refused before any of the body has been sent, and closed though it goes on coming. */
static void test_length(void **state) {
    (void)state;
    static const struct {
        const char *path, *key, *says;
        bool        dripped;
    } rows[] = {{CHAT, BAD, "\"error\":{\"message\"", false},
                {CHAT, "", "\"error\":{\"message\"", true},
                {CHAT, "x-api-key: secret-x-1\r\n", "\"error\":{\"message\"", false},
                {"/v1/messages", BAD, "{\"type\":\"error\"", true},
                {"/health", BAD, "\"error\":{\"message\"", false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char headers[256];
        snprintf(headers, sizeof headers, "Content-Length: %d\r\n%s", 60 << 20, rows[i].key);
        int fd = begin(rows[i].path, headers, rows[i].dripped);
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 401);
        assert_true(body_has(&r, "it was not read") && body_has(&r, rows[i].says));
        assert_true(has_header(&r, "Connection", "close"));
        assert_true(closes(fd));
        close(fd);
    }
}

/* A head of the shortest lines there are: evhttp counts them without their ends, and takes more of them than its limit. */
static void test_short_lines(void **state) {
    (void)state;
    enum { LINES = 30000 };
    char *lines = malloc(LINES * 4 + 1);
    for (int i = 0; i < LINES; i++) {
        memcpy(lines + (size_t)i * 4, "a:\r\n", 5);
    }
    for (int i = 0; i < 2; i++) {
        int fd = client_connect(the.port);
        assert_true(say(fd, "POST " CHAT " HTTP/1.1\r\nHost: x\r\n") && say(fd, lines));
        assert_true(say(fd, i ? "Content-Length: 60000000\r\n" BAD "\r\n{" : "Content-Length: 1\r\n" BAD "\r\n{"));
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 401);
        assert_int_equal(body_has(&r, "it was not read"), i == 1);
        close(fd);
    }
    free(lines);
}

/* A length is not told before: as much as it would be allowed to have is taken, and no more. */
static void test_chunks(void **state) {
    (void)state;
    static char chunk[(64 << 10) + 16];
    int         n = snprintf(chunk, sizeof chunk, "10000\r\n"), sent = 0;
    memset(chunk + n, 'x', 65536);
    memcpy(chunk + n + 65536, "\r\n", 2);
    int           fd = begin(CHAT, BAD "Transfer-Encoding: chunked\r\n", false);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (sent < 64 && poll(&p, 1, 5) == 0) {
        sent += send_all(fd, chunk, (size_t)n + 65538);
    }
    assert_in_range(sent, 15, 24);
    read_reply(fd, &r, false);
    assert_int_equal(r.status, 401);
    assert_true(closes(fd));
    close(fd);
}

/* The memory of 30 strangers who have sent 8 MiB each. */
static void test_memory(void **state) {
    (void)state;
    enum { MANY = 30 };
    static char mib[1 << 20];
    char        headers[128];
    int         fds[MANY];
    int64_t     before = resident_kib();
    snprintf(headers, sizeof headers, "Content-Length: %d\r\n" BAD, 60 << 20);
    for (int i = 0; i < MANY; i++) {
        fds[i] = begin(CHAT, headers, false);
        for (int k = 0; k < 8 && send_all(fds[i], mib, sizeof mib); k++) {
        }
    }
    nap(200);
    int64_t grown = resident_kib() - before;
    print_message("30 strangers with 60 MiB to say take %lld KiB each\n", (long long)grown / MANY);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep what is freed */
    assert_true(grown < MANY * 1024);
#endif
    for (int i = 0; i < MANY; i++) {
        close(fds[i]);
    }
}

/* Whoever has a key may send as much as before, however its head comes; and short bodies are refused in the usual way, on a
 * connection that stays. */
static void test_the_others(void **state) {
    (void)state;
    size_t n = 5u << 20;
    char  *body = malloc(n + 256), headers[128];
    int    at = snprintf(body, 256, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"@whole ");
    memset(body + at, 'x', n);
    strcpy(body + (size_t)at + n, "\"}]}");
    for (int i = 0; i < 4; i++) {
        snprintf(headers, sizeof headers, "Content-Length: %zu\r\n%s", strlen(body),
                 i % 2 ? GOOD : "X-Api-Key:   secret-k-1  \r\n");
        int fd = begin(CHAT, headers, i < 2);
        assert_true(send_all(fd, body, strlen(body)));
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 200);
        close(fd);
    }
    int fd = begin(CHAT, GOOD "Transfer-Encoding: chunked\r\n", false);
    snprintf(headers, sizeof headers, "%zx\r\n", strlen(body));
    assert_true(say(fd, headers) && say(fd, body) && say(fd, "\r\n0\r\n\r\n"));
    read_reply(fd, &r, false);
    assert_int_equal(r.status, 200);
    close(fd);
    free(body);
    fd = client_connect(the.port);
    for (int i = 0; i < 3; i++) {
        char small[256];
        send_post(fd, CHAT, i == 1 ? GOOD : BAD, chat_body(small, sizeof small, "whole", "", false));
        read_reply(fd, &r, false);
        assert_int_equal(r.status, i == 1 ? 200 : 401);
        assert_true(i == 1 || body_has(&r, "not known here. Check it"));
    }
    close(fd);
}

/* A stranger's long body behind a request with a key, in the same bytes and later: the first one is answered. */
static void test_behind_another(void **state) {
    (void)state;
    char first[256], text[1024];
    chat_body(first, sizeof first, "whole", "", false);
    for (int i = 0; i < 3; i++) {
        int    n = snprintf(text, sizeof text,
                            "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n" GOOD "\r\n%s"
                               "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n" BAD "\r\n{\"a\":",
                            strlen(first), first);
        size_t cut = i == 0 ? (size_t)n : i == 1 ? (size_t)(strstr(text + 10, "POST ") - text) : (size_t)n - 40;
        int    fd = client_connect(the.port);
        reply_free(&r);
        assert_true(send_all(fd, text, cut));
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 200);
        assert_true(send_all(fd, text + cut, (size_t)n - cut) && send_all(fd, "xxxx", 4));
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 401);
        assert_true(closes(fd));
        close(fd);
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_bed, close_bed)
    const struct CMUnitTest tests[] = {T(test_length), T(test_short_lines), T(test_chunks),
                                       T(test_memory), T(test_the_others),  T(test_behind_another)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
