/* Connections that are slow on purpose, with a grace that a test can wait for: who sends at the rate stays, however long it
 * takes; who drips is closed; and nobody is hurried while the server is the one that works. */
#include "bed.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>

#include "serve/slow.h"

#define GRACE_US 300000
#define ANSWER   700 /* ms that /later takes */

typedef struct door {
    struct event_base *base;
    struct evhttp     *http;
    struct event      *stop;
    slow_table        *table;
    pthread_t          thread;
    int                port, ends[2];
    atomic_int         asked;
} door;

static door  the;
static reply r;

static struct bufferevent *take_connection(struct event_base *base, void *arg) {
    (void)arg;
    struct bufferevent *b = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    slow_watch(b);
    return b;
}

static void answer_now(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    struct evhttp_request *q = arg;
    slow_idle(evhttp_connection_get_bufferevent(evhttp_request_get_connection(q)));
    evhttp_send_reply(q, 200, "OK", NULL);
}

/* As routes.c and reply.c do it. */
static void on_request(struct evhttp_request *q, void *arg) {
    door               *d = arg;
    struct bufferevent *b = evhttp_connection_get_bufferevent(evhttp_request_get_connection(q));
    struct timeval      tv = {.tv_usec = ANSWER * 1000};
    atomic_fetch_add(&d->asked, 1);
    slow_idle(b);
    if (strcmp(evhttp_request_get_uri(q), "/later") == 0) {
        bufferevent_data_cb  on_read, on_write;
        bufferevent_event_cb on_event;
        void                *own;
        slow_answering(b);
        bufferevent_getcb(b, &on_read, &on_write, &on_event, &own);
        bufferevent_setcb(b, NULL, on_write, on_event, own);
        bufferevent_enable(b, EV_READ);
        event_base_once(d->base, -1, EV_TIMEOUT, answer_now, q, &tv);
        return;
    }
    evbuffer_add_printf(evhttp_request_get_output_buffer(q), "%zu",
                        evbuffer_get_length(evhttp_request_get_input_buffer(q)));
    evhttp_send_reply(q, 200, "OK", NULL);
}

static void on_stop(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

static void *run(void *arg) {
    door *d = arg;
    slow_here(d->table);
    event_base_dispatch(d->base);
    return NULL;
}

static int open_door(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    the = (door){.base = event_base_new(), .table = slow_new(GRACE_US)};
    the.http = evhttp_new(the.base);
    evhttp_set_bevcb(the.http, take_connection, NULL);
    evhttp_set_gencb(the.http, on_request, &the);
    struct evhttp_bound_socket *s = evhttp_bind_socket_with_handle(the.http, "127.0.0.1", 0);
    assert_non_null(s);
    struct sockaddr_in a;
    socklen_t          n = sizeof a;
    getsockname(evhttp_bound_socket_get_fd(s), (struct sockaddr *)&a, &n);
    the.port = ntohs(a.sin_port);
    assert_int_equal(pipe(the.ends), 0);
    the.stop = event_new(the.base, the.ends[0], EV_READ, on_stop, the.base);
    event_add(the.stop, NULL);
    return pthread_create(&the.thread, NULL, run, &the);
}

static int close_door(void **state) {
    (void)state;
    if (write(the.ends[1], "", 1) != 1) {
        return 1;
    }
    pthread_join(the.thread, NULL);
    event_free(the.stop);
    evhttp_free(the.http);
    event_base_free(the.base);
    slow_free(the.table);
    close(the.ends[0]);
    close(the.ends[1]);
    reply_free(&r);
    return 0;
}

/* Pieces of `n` bytes each `ms`, as long as the peer takes them: how long that was, in ms. */
static int64_t drip(int fd, const char *text, size_t n, int ms, int64_t most_ms) {
    int64_t began = clock_us();
    size_t  all = strlen(text);
    for (size_t at = 0; (clock_us() - began) / 1000 < most_ms; at = (at + n) % (all - n + 1)) {
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
        if (poll(&p, 1, ms) > 0 || !send_all(fd, text + at, n)) {
            break;
        }
    }
    return (clock_us() - began) / 1000;
}

static void test_dripped_head(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    say(fd, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: ");
    int64_t took = drip(fd, "aaaaaaaaaaaaaaaaaaaaaaaa", 1, 20, 5000);
    assert_in_range(took, GRACE_US / 1000 - 20, 3000);
    assert_int_equal(atomic_load(&the.asked), 0);
    close(fd);
}

static void test_dripped_body(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    assert_in_range(drip(fd, "0123456789", 1, 20, 5000), GRACE_US / 1000 - 20, 3000);
    close(fd);
    fd = client_connect(the.port); /* chunks of one byte */
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_in_range(drip(fd, "1\r\na\r\n", 6, 50, 5000), GRACE_US / 1000 - 50, 3000);
    close(fd);
    assert_int_equal(atomic_load(&the.asked), 0);
}

/* 2 KB/s: slow, but at the rate. */
static void test_slow_upload(void **state) {
    (void)state;
    char piece[103];
    int  fd = client_connect(the.port), pieces = 40;
    memset(piece, 'u', sizeof piece);
    piece[sizeof piece - 1] = '\0';
    str head = {0};
    str_addf(&head, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", (sizeof piece - 1) * (size_t)pieces);
    say(fd, head.data);
    str_free(&head);
    for (int i = 0; i < pieces; i++) {
        nap(50);
        assert_true(say(fd, piece));
    }
    read_reply(fd, &r, false);
    assert_int_equal(r.status, 200);
    assert_true(body_has(&r, "4080"));
    close(fd);
}

/* The time begins with a request's first byte: not with the connection, nor with the request before. */
static void test_pauses_between_requests(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    nap(2 * GRACE_US / 1000);
    for (int i = 0; i < 3; i++) {
        say(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        read_reply(fd, &r, false);
        assert_int_equal(r.status, 200);
        nap(2 * GRACE_US / 1000);
    }
    close(fd);
}

/* What comes while the answer is being made is not asked to hurry, and the next request has a grace of its own. */
static void test_next_request_during_an_answer(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    static const char next[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    for (size_t i = 0; i < sizeof next - 1; i++) { /* for longer than the grace, byte by byte */
        nap(24);
        assert_true(send_all(fd, next + i, 1));
    }
    read_reply(fd, &r, false);
    assert_int_equal(r.status, 200);
    read_reply(fd, &r, false);
    assert_int_equal(r.status, 200);
    close(fd);
}

/* More connections than the table has entries: they push each other out, which gives time and takes none. */
static void test_full_table(void **state) {
    (void)state;
    enum { MANY = 20000 };
    slow_table          *t = slow_new(1);
    struct event_base   *base = event_base_new();
    struct bufferevent **b = calloc(MANY, sizeof(struct bufferevent *));
    slow_here(t);
    for (int i = 0; i < MANY; i++) {
        b[i] = bufferevent_socket_new(base, -1, 0);
        slow_watch(b[i]);
        evbuffer_unfreeze(bufferevent_get_input(b[i]), 0); /* only the socket may add to it, as a rule */
        evbuffer_add(bufferevent_get_input(b[i]), "x", 1);
    }
    for (int i = 0; i < MANY; i++) {
        slow_answering(b[i]);
        evbuffer_add(bufferevent_get_input(b[i]), "x", 1);
        slow_idle(b[i]);
    }
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(evbuffer_get_length(bufferevent_get_input(b[i])), 2);
        bufferevent_free(b[i]);
    }
    slow_here(NULL);
    event_base_free(base);
    free(b);
    slow_free(t);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_door, close_door)
    const struct CMUnitTest tests[] = {T(test_dripped_head),
                                       T(test_dripped_body),
                                       T(test_slow_upload),
                                       T(test_pauses_between_requests),
                                       T(test_next_request_during_an_answer),
                                       cmocka_unit_test(test_full_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
