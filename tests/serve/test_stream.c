/* What goes out of a stream when its reader is slow: every byte of the provider's, once and in its order, in whole chunks,
 * however little of it the socket takes at a time.                                                                    */
#include "bed.h"

#define EVENTS                                                                                                         \
    1600 /* some 9 MB: more than the kernel keeps of a connection, less than pare keeps of what is not read */

/* Between a few bytes and 40 KB, so that some chunks fill the socket's buffer and small ones come behind them. */
static void add_event(str *out, int i) {
    int letters = i % 7 == 3 ? 40000 - i : i % 50;
    str_addf(out, "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%d:", i);
    for (int k = 0; k < letters; k++) {
        str_addc(out, (char)('a' + (i + k) % 26));
    }
    str_adds(out, "\"}}]}\n\n");
}

static void run_mixed(upstream *u, int fd) {
    (void)u;
    str event = {0};
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < EVENTS; i++) {
        str_clear(&event);
        add_event(&event, i);
        send_all(fd, event.data, event.len);
    }
    say(fd, EVENT(END_DELTA) DONE);
    str_free(&event);
}

static const script scripts[] = {{"mixed", NULL, NULL, RAW, CLOSE, run_mixed}, {0}};

static bed   the;
static reply r;

static int open_bed(void **state) {
    (void)state;
    bed_open(&the, scripts);
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    bed_close(&the);
    return 0;
}

/* Reads nothing for `wait_ms`, then a little at a time. */
static void read_slowly(const char *version, int buffer, int wait_ms) {
    char body[256], text[1024];
    int  fd = client_connect(the.port);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    chat_body(body, sizeof body, "mixed", version, true);
    snprintf(text, sizeof text,
             "POST " CHAT " %s\r\nHost: x\r\nCache-Control: no-cache\r\nContent-Length: %zu\r\n\r\n%s", version,
             strlen(body), body);
    assert_true(say(fd, text));
    nap(wait_ms);
    read_reply(fd, &r, false);
    close(fd);
}

static void check_body(void) {
    str wanted = {0};
    for (int i = 0; i < EVENTS; i++) {
        add_event(&wanted, i);
    }
    str_adds(&wanted, EVENT(END_DELTA));
    assert_int_equal(r.status, 200);
    assert_true(r.complete);
    assert_true(r.body.len > wanted.len);
    assert_memory_equal(r.body.data, wanted.data, wanted.len);
    assert_int_equal(strncmp(r.body.data + wanted.len, ": x-pare-cost-usd ", 18), 0);
    assert_string_equal(r.body.data + r.body.len - strlen(DONE), DONE);
    str_free(&wanted);
}

static void test_slow_readers(void **state) {
    (void)state;
    static const int buffers[] = {100000, 200000, 4 << 20};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        read_slowly("HTTP/1.1", buffers[i], i < 2 ? 300 : 0);
        check_body();
        read_slowly("HTTP/1.0", buffers[i], i < 2 ? 300 : 0); /* no chunks: the bytes alone */
        check_body();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slow_readers, open_bed, close_bed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
