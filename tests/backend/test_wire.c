/* Both ways to a provider, against a server that closes, hesitates and answers early. */
#include "../check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/wire.h"
#include "base/clock.h"
#include "base/str.h"

#define OK_5 "HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello"

/* ---- the server: one connection after another, each on a thread ---- */

typedef enum manner { ANSWERS, CLOSES_RESTING, CLOSES_UNHEARD, NEVER_HEARS, REFUSES_EARLY, SILENT } manner;

static struct {
    int          fd, port;
    manner       how;
    pthread_t    thread;
    atomic_bool  stop;
    atomic_int   connections, requests, closed;
    atomic_llong bytes; /* of bodies */
} server;

static bool wait_for_bytes(int fd) {
    while (!atomic_load(&server.stop)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 20) > 0) {
            return true;
        }
    }
    return false;
}

/* One request; false when the other side has closed. */
static bool hear(int fd) {
    char   head[65536];
    size_t n = 0;
    char  *end = NULL;
    while (!end) {
        ssize_t got = wait_for_bytes(fd) ? recv(fd, head + n, sizeof head - 1 - n, 0) : 0;
        if (got <= 0) {
            return false;
        }
        n += (size_t)got;
        head[n] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    char  *length = strcasestr(head, "\r\ncontent-length:");
    size_t body = length ? strtoul(length + 17, NULL, 10) : 0, have = n - (size_t)(end + 4 - head);
    if (server.how == REFUSES_EARLY) {
        return true;
    }
    while (have < body) {
        char    more[65536];
        ssize_t got = wait_for_bytes(fd) ? recv(fd, more, sizeof more, 0) : 0;
        if (got <= 0) {
            return false;
        }
        have += (size_t)got;
    }
    atomic_fetch_add(&server.bytes, (long long)body);
    atomic_fetch_add(&server.requests, 1);
    return true;
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void *serve_one(void *arg) {
    int  fd = (int)(intptr_t)arg;
    int  number = atomic_fetch_add(&server.connections, 1);
    bool open = server.how != NEVER_HEARS;
    for (int i = 0; open && hear(fd); i++) {
        switch (server.how) {
        case CLOSES_UNHEARD: /* the second request of the first connection gets no answer */
            open = !(number == 0 && i == 1);
            break;
        case SILENT:
            continue;
        case REFUSES_EARLY:
            say(fd, "HTTP/1.1 413 Too large\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
            shutdown(fd, SHUT_WR);
            usleep(50000); /* what it sends is not read: a reset may overtake the answer otherwise */
            for (char more[65536]; recv(fd, more, sizeof more, MSG_DONTWAIT) > 0;) {
            }
            open = false;
            continue;
        default:
            break;
        }
        if (open) {
            say(fd, OK_5);
        }
        open = open && server.how != CLOSES_RESTING;
    }
    close(fd);
    atomic_fetch_add(&server.closed, 1);
    return NULL;
}

static void *serve(void *arg) {
    (void)arg;
    pthread_t all[64];
    int       n = 0;
    while (wait_for_bytes(server.fd) && n < 64) {
        int fd = accept(server.fd, NULL, NULL);
        if (fd >= 0) {
            pthread_create(&all[n++], NULL, serve_one, (void *)(intptr_t)fd);
        }
    }
    for (int i = 0; i < n; i++) {
        pthread_join(all[i], NULL);
    }
    return NULL;
}

static void server_start(manner how) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof at;
    memset(&server, 0, sizeof server);
    server.how = how;
    server.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server.fd, 64), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&at, &n), 0);
    server.port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void server_stop(void) {
    atomic_store(&server.stop, true);
    pthread_join(server.thread, NULL);
    close(server.fd);
}

/* ---- one request at a time, its loop run until it has ended ---- */

typedef struct tried {
    loop    *on;
    int      status, heads, dones;
    char     type[32];
    str      body;
    bool     stops; /* wants no body */
    wire_end end;
    char     reason[128];
} tried;

static void on_head(void *ctx, int status, const char *type, const char *retry_after) {
    tried *t = ctx;
    (void)retry_after;
    t->status = status;
    t->heads++;
    snprintf(t->type, sizeof t->type, "%s", type);
}

static bool on_body(void *ctx, const char *bytes, size_t n) {
    tried *t = ctx;
    str_add(&t->body, bytes, n);
    return !t->stops;
}

static void on_done(void *ctx, wire_end end, const char *reason) {
    tried *t = ctx;
    t->dones++;
    t->end = end;
    snprintf(t->reason, sizeof t->reason, "%s", reason);
    loop_stop(t->on);
}

static const wire_events events = {.head = on_head, .body = on_body, .done = on_done};
static const char *const headers[] = {"Content-Type: application/json", NULL};

static wire *open_wire(bool curl, const char *host, int port, int64_t connect_us) {
    char url[128];
    err  e = {0};
    snprintf(url, sizeof url, "http://%s:%d/v1", host, port);
    wire_options o = {.base_url = url, .headers = headers, .connect_us = connect_us};
    wire        *w = curl ? wire_curl(&o, &e) : wire_plain(&o, &e);
    assert_ok(w != NULL, e);
    return w;
}

static wire_call *begin(wire *w, loop *l, tried *t, const char *url, const char *body, size_t n) {
    err          e = {0};
    wire_request q = {.url = url, .body = body, .body_len = n};
    t->on = l;
    wire_call *c = w->ops->start(w, l, &q, &events, t, &e);
    assert_ok(c != NULL, e);
    assert_int_equal(t->heads + t->dones, 0);
    return c;
}

static tried try_once(wire *w, loop *l, const char *host, const char *body, size_t n, bool stops) {
    char  url[128];
    err   e = {0};
    tried t = {.stops = stops};
    snprintf(url, sizeof url, "http://%s:%d/v1/chat/completions", host, server.port);
    begin(w, l, &t, url, body, n);
    assert_ok(loop_run(l, &e), e);
    assert_int_equal(t.dones, 1);
    return t;
}

static void run_for(loop *l, int64_t us) { /* a look-up that never ends would hang the test: its limit is ctest's */
    int64_t until = clock_us() + us;
    while (clock_us() < until) {
        err e = {0};
        loop_stop(l);
        assert_ok(loop_run(l, &e), e);
        usleep(1000);
    }
}

static void check_hello(tried *t) {
    if (t->end != WIRE_OK || t->status != 200 || t->heads != 1 || strcmp(t->type, "text/x") != 0 ||
        strcmp(t->body.data, "hello") != 0) {
        fail_msg("end %d, status %d, %s", t->end, t->status, t->reason);
    }
    str_free(&t->body);
}

typedef void (*scene)(wire *w, loop *l, bool curl);

static void play(manner how, scene run) {
    for (int curl = 0; curl < 2; curl++) {
        err e = {0};
        server_start(how);
        loop *l = loop_new(0, &e);
        assert_ok(l != NULL, e);
        wire *w = open_wire(curl, "127.0.0.1", server.port, 2000000);
        run(w, l, curl);
        w->ops->close(w);
        loop_free(l);
        server_stop();
        assert_int_equal(atomic_load(&server.connections), atomic_load(&server.closed));
    }
}

static void reuse(wire *w, loop *l, bool curl) {
    (void)curl;
    for (int i = 0; i < 5; i++) {
        tried t = try_once(w, l, "127.0.0.1", "{}", 2, false);
        check_hello(&t);
    }
    assert_int_equal(atomic_load(&server.connections), 1);
    assert_int_equal(atomic_load(&server.requests), 5);
}

static void test_reuse(void **state) {
    (void)state;
    play(ANSWERS, reuse);
}

static void closed_at_rest(wire *w, loop *l, bool curl) {
    (void)curl;
    for (int i = 0; i < 3; i++) {
        tried t = try_once(w, l, "127.0.0.1", "{}", 2, false);
        check_hello(&t);
        usleep(i * 20000); /* at once, it may be closed while we write; later we have heard of it */
    }
    assert_int_equal(atomic_load(&server.connections), 3);
}

static void test_closed_at_rest(void **state) {
    (void)state;
    play(CLOSES_RESTING, closed_at_rest);
}

/* A request that a connection at rest swallowed goes out once more, over a new one. */
static void swallowed(wire *w, loop *l, bool curl) {
    (void)curl;
    for (int i = 0; i < 3; i++) {
        tried t = try_once(w, l, "127.0.0.1", "{}", 2, false);
        check_hello(&t);
    }
    assert_int_equal(atomic_load(&server.connections), 2);
    assert_int_equal(atomic_load(&server.requests), 4);
}

static void test_swallowed(void **state) {
    (void)state;
    play(CLOSES_UNHEARD, swallowed);
}

/* A new connection that is closed is an error, and is not tried again and again. */
static void unheard(wire *w, loop *l, bool curl) {
    (void)curl;
    tried t = try_once(w, l, "127.0.0.1", "{}", 2, false);
    assert_int_equal(t.end, WIRE_BROKEN);
    assert_int_equal(t.heads, 0);
    assert_true(t.reason[0]);
    assert_int_equal(atomic_load(&server.connections), 1);
}

static void test_unheard(void **state) {
    (void)state;
    play(NEVER_HEARS, unheard);
}

static void large(wire *w, loop *l, bool curl) {
    (void)curl;
    size_t n = 24 << 20;
    char  *body = malloc(n);
    memset(body, ' ', n);
    tried t = try_once(w, l, "127.0.0.1", body, n, false);
    check_hello(&t);
    assert_int_equal(atomic_load(&server.bytes), n);
    free(body);
}

static void test_large_body(void **state) {
    (void)state;
    play(ANSWERS, large);
}

static void early(wire *w, loop *l, bool curl) {
    (void)curl;
    size_t n = 24 << 20;
    char  *body = malloc(n);
    memset(body, ' ', n);
    tried t = try_once(w, l, "127.0.0.1", body, n, false);
    assert_int_equal(t.status, 413);
    assert_int_equal(t.end, WIRE_OK);
    str_free(&t.body);
    free(body);
}

static void test_early_answer(void **state) {
    (void)state;
    play(REFUSES_EARLY, early);
}

static void stopped(wire *w, loop *l, bool curl) {
    (void)curl;
    tried t = try_once(w, l, "127.0.0.1", "{}", 2, true);
    assert_int_equal(t.end, WIRE_STOPPED);
    str_free(&t.body);
    t = try_once(w, l, "127.0.0.1", "{}", 2, false);
    check_hello(&t);
}

static void test_stopped(void **state) {
    (void)state;
    play(ANSWERS, stopped);
}

static void aborted(wire *w, loop *l, bool curl) {
    (void)curl;
    char  url[128];
    tried all[8] = {0};
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/x", server.port);
    for (int i = 0; i < 8; i++) { /* at once, or when the request is out */
        wire_call *c = begin(w, l, &all[i], url, "{}", 2);
        if (i % 2) {
            run_for(l, 30000);
        }
        w->ops->abort(c);
    }
    run_for(l, 50000);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(all[i].heads + all[i].dones, 0);
    }
}

static void test_aborted(void **state) {
    (void)state;
    play(SILENT, aborted);
}

/* Nobody there, and an abort before that is said. */
static void test_unreachable(void **state) {
    (void)state;
    for (int curl = 0; curl < 2; curl++) {
        err   e = {0};
        tried t = {0};
        loop *l = loop_new(0, &e);
        server_start(ANSWERS);
        server_stop();
        wire *w = open_wire(curl, "127.0.0.1", server.port, 2000000);
        t = try_once(w, l, "127.0.0.1", "{}", 2, false);
        assert_int_equal(t.end, WIRE_UNREACHABLE);
        char  url[128];
        tried gone = {0};
        snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/x", server.port);
        w->ops->abort(begin(w, l, &gone, url, "{}", 2));
        run_for(l, 20000);
        assert_int_equal(gone.dones, 0);
        w->ops->close(w);
        w = open_wire(curl, "no-such-host.invalid", server.port, 2000000);
        t = try_once(w, l, "no-such-host.invalid", "{}", 2, false);
        assert_int_equal(t.end, WIRE_UNREACHABLE);
        assert_true(t.reason[0]);
        w->ops->close(w);
        loop_free(l);
    }
}

/* By name: the look-up is on a thread, several calls wait for it, one of them is given up. */
static void test_by_name(void **state) {
    (void)state;
    err e = {0};
    server_start(ANSWERS);
    loop *l = loop_new(0, &e);
    wire *w = open_wire(false, "localhost", server.port, 2000000);
    char  url[128];
    tried waits = {0}, gone = {0};
    snprintf(url, sizeof url, "http://localhost:%d/v1/x", server.port);
    wire_call *c = begin(w, l, &gone, url, "{}", 2);
    begin(w, l, &waits, url, "{}", 2);
    w->ops->abort(c);
    assert_ok(loop_run(l, &e), e);
    check_hello(&waits);
    assert_int_equal(gone.dones, 0);
    w->ops->close(w);
    w = open_wire(false, "localhost", server.port, 2000000); /* closed with its question open */
    c = begin(w, l, &gone, url, "{}", 2);
    w->ops->abort(c);
    w->ops->close(w);
    run_for(l, 50000);
    loop_free(l);
    server_stop();
}

static void test_urls(void **state) {
    (void)state;
    static const char *const bad[] = {"http://",     "http://:80",  "http://a:",   "http://a:0/v1", "http://a:65536",
                                      "http://a:8x", "http://[::1", "http://[]:1", "http://[::1]8"};
    static const char *const good[] = {"http://a", "HTTP://a/v1", "http://a:1/v1", "http://[::1]:8/v1",
                                       "http://[::1]/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err          e = {0};
        wire_options o = {.base_url = bad[i]};
        if (wire_plain(&o, &e)) {
            fail_msg("taken: %s", bad[i]);
        }
        assert_true(e.text[0]);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        err          e = {0};
        wire_options o = {.base_url = good[i]};
        wire        *w = wire_plain(&o, &e);
        assert_ok(w != NULL, e);
        w->ops->close(w);
    }
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    assert_true(wire_plain_fits(&(wire_options){.base_url = "http://a/v1"}));
    assert_false(wire_plain_fits(&(wire_options){.base_url = "https://a/v1"}));
    assert_false(wire_plain_fits(&(wire_options){.base_url = "http://me:secret@a/v1"}));
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    assert_false(wire_plain_fits(&(wire_options){.base_url = "http://a/v1"}));
    unsetenv("http_proxy");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reuse),   cmocka_unit_test(test_closed_at_rest), cmocka_unit_test(test_swallowed),
        cmocka_unit_test(test_unheard), cmocka_unit_test(test_large_body),     cmocka_unit_test(test_early_answer),
        cmocka_unit_test(test_stopped), cmocka_unit_test(test_aborted),        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_by_name), cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
