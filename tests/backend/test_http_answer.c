/* HTTP/1 answers as they come: every way of cutting them, every way of ending them, and what is refused. */
#include "../check.h"

#include "backend/http_answer.h"

typedef struct heard {
    str       body;
    http_step end;
    err       why;
    size_t    left; /* of what was given */
} heard;

/* Gives the text in pieces of `piece` bytes, then closes if asked to. */
static heard listen_to(http_answer *a, const char *text, size_t n, size_t piece, bool closes) {
    heard h = {.end = HTTP_MORE};
    for (size_t at = 0; at < n && h.end == HTTP_MORE; at += piece) {
        const char *bytes = text + at, *body = NULL;
        size_t      left = n - at < piece ? n - at : piece, body_n = 0;
        while ((h.end = http_answer_step(a, &bytes, &left, &body, &body_n, &h.why)) == HTTP_BODY) {
            assert_true(body >= text && body + body_n <= text + n && body_n > 0);
            str_add(&h.body, body, body_n);
        }
        h.left = left;
    }
    if (closes && h.end == HTTP_MORE) {
        h.end = http_answer_closed(a, &h.why);
    }
    return h;
}

typedef struct good {
    const char *text, *body;
    int         status;
    bool        keep, by_close;
    const char *type, *retry_after;
} good;

#define H "HTTP/1.1 200 OK\r\n"

static const good goods[] = {
    {H "Content-Length: 5\r\n\r\nhello", "hello", 200, true, false, "", ""},
    {H "content-length:5\r\ncontent-type:  text/plain \r\n\r\nhello", "hello", 200, true, false, "text/plain", ""},
    {"HTTP/1.1 200\nContent-Length: 5\n\nhello", "hello", 200, true, false, "", ""},
    {H "Content-Length: 0\r\n\r\n", "", 200, true, false, "", ""},
    {H "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "abc", 200, true, false, "", ""},
    {H "Connection: keep-alive, Close\r\nContent-Length: 1\r\n\r\nx", "x", 200, false, false, "", ""},
    {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", 200, false, false, "", ""},
    {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", "x", 200, true, false, "", ""},
    {H "\r\nall of it", "all of it", 200, false, true, "", ""},
    {H "\r\n", "", 200, false, true, "", ""},
    {"HTTP/1.1 204 No Content\r\n\r\n", "", 204, true, false, "", ""},
    {"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}", "{}", 429, true, false, "", "7"},
    {H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde", 200, true, false, "", ""},
    {H "Transfer-Encoding: Chunked\r\n\r\nA \r\n0123456789\r\n00\r\nX-Sum: 1\r\n\r\n", "0123456789", 200, true, false,
     "", ""},
    {H "Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n1\r\na\r\n0\r\n\r\n", "a", 200, false, false, "", ""},
    {"HTTP/1.1 100 Continue\r\nContent-Type: a/b\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n" H "Content-Length: 1\r\n\r\nx", "x",
     200, true, false, "", ""},
    {H "Content-Type:\r\n text/html;\r\n\tcharset=x \r\nContent-Length: 1\r\n\r\nx", "x", 200, true, false,
     "text/html;charset=x", ""},
    {H "X-Long: a\r\n b\r\nContent-Length: 1\r\n\r\nx", "x", 200, true, false, "", ""},
};

static void check_good(const good *g, const http_answer *a, const heard *h, size_t piece) {
    if (h->end != HTTP_END || a->status != g->status || a->keep != g->keep || strcmp(a->type, g->type) != 0 ||
        strcmp(a->retry_after, g->retry_after) != 0 || strcmp(h->body.data ? h->body.data : "", g->body) != 0) {
        fail_msg("in pieces of %zu: %s\n-> %d %s keep %d: %s", piece, g->text, a->status, a->type, a->keep,
                 h->why.text);
    }
}

static void test_good(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof goods / sizeof goods[0]; i++) {
        size_t n = strlen(goods[i].text);
        for (size_t piece = 1; piece <= n; piece++) {
            http_answer a = {0};
            heard       h = listen_to(&a, goods[i].text, n, piece, goods[i].by_close);
            check_good(&goods[i], &a, &h, piece);
            assert_int_equal(h.left, 0);
            str_free(&h.body);
            http_answer_clear(&a);
        }
        /* Cut short, it is either broken or waits for more; it is never an end. */
        for (size_t cut = 0; cut < n && !goods[i].by_close; cut++) {
            http_answer a = {0};
            heard       h = listen_to(&a, goods[i].text, cut, cut ? cut : 1, true);
            if (h.end != HTTP_BAD) {
                fail_msg("cut at %zu: %s", cut, goods[i].text);
            }
            str_free(&h.body);
            http_answer_clear(&a);
        }
    }
}

/* What follows the end is left alone, so that the caller sees it. */
static void test_behind_the_end(void **state) {
    (void)state;
    static const char text[] = H "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    http_answer       a = {0};
    heard             h = listen_to(&a, text, sizeof text - 1, sizeof text, false);
    assert_int_equal(h.end, HTTP_END);
    assert_string_equal(h.body.data, "ok");
    assert_int_equal(h.left, strlen("HTTP/1.1 200 OK\r\n"));
    str_free(&h.body);
    http_answer_clear(&a);
}

static const char *const bads[] = {
    "SSH-2.0-OpenSSH_9\r\n\r\n",
    "HTTP/2 200\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.1 101 Switching\r\n\r\n",
    "\r\n" H "\r\n",
    H "Content-Length: -1\r\n\r\n",
    H "Content-Length: 1 2\r\n\r\n",
    H "Content-Length: 0x5\r\n\r\nhello",
    H "Content-Length: 3, 3\r\n\r\nabc",
    H "Content-Length:\r\n\r\n",
    H "Content-Length: 99999999999999999999\r\n\r\n",
    H "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    H "Content-Length: 1\r\n 5\r\n\r\nx",
    H "Content-Length : 1\r\n\r\nx",
    H ": nobody\r\n\r\n",
    H "no colon\r\n\r\n",
    H "Transfer-Encoding: gzip, chunked\r\n\r\n",
    H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    H "Transfer-Encoding: chunked\r\n\r\nx\r\n",
    H "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    H "Transfer-Encoding: chunked\r\n\r\n\r\n",
    H "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    H "Transfer-Encoding: chunked\r\n\r\n1000000000000000\r\n",
};

static void test_bad(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof bads[0]; i++) {
        for (size_t piece = 1; piece < 40; piece++) {
            http_answer a = {0};
            heard       h = listen_to(&a, bads[i], strlen(bads[i]), piece, false);
            if (h.end != HTTP_BAD || !h.why.text[0]) {
                fail_msg("taken in pieces of %zu: %s", piece, bads[i]);
            }
            str_free(&h.body);
            http_answer_clear(&a);
        }
    }
    http_answer a = {0};
    heard       h = listen_to(&a, H "X: \0\r\n\r\n", sizeof(H "X: \0\r\n\r\n") - 1, 7, false);
    assert_int_equal(h.end, HTTP_BAD);
    http_answer_clear(&a);
}

/* Headers, early heads, trailers and lines without end. */
static void test_endless(void **state) {
    (void)state;
    static const struct {
        const char *first, *again;
    } floods[] = {{H, "X-More: and more\r\n"},
                  {H "X-Long: ", "and more "},
                  {"", "HTTP/1.1 100 Continue\r\n\r\n"},
                  {"HTTP/1.1 200 ", "OK"},
                  {H "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-More: and more\r\n"},
                  {H "Transfer-Encoding: chunked\r\n\r\n5;", "x"}};
    for (size_t i = 0; i < sizeof floods / sizeof floods[0]; i++) {
        http_answer a = {0};
        size_t      given = strlen(floods[i].first), n = strlen(floods[i].again);
        heard       h = listen_to(&a, floods[i].first, given, given ? given : 1, false);
        while (h.end == HTTP_MORE) {
            h = listen_to(&a, floods[i].again, n, n, false);
            given += n;
            assert_true(given <= HTTP_ANSWER_MAX_HEAD + HTTP_ANSWER_MAX_LINE);
        }
        assert_int_equal(h.end, HTTP_BAD);
        assert_true(a.line.cap <= 2 * HTTP_ANSWER_MAX_LINE);
        http_answer_clear(&a);
    }
}

/* Random bytes and random damage: any piece size gives the same verdict and the same body. */
static void test_damage(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < 4000; round++) {
        const char *from = goods[test_random(&seed) % (sizeof goods / sizeof goods[0])].text;
        char        text[256];
        size_t      n = strlen(from);
        memcpy(text, from, n);
        for (int k = 0; k < 3; k++) {
            text[test_random(&seed) % n] = "\r\n :,0129afHx\0\x80"[test_random(&seed) % 15];
        }
        http_answer one = {0}, many = {0};
        heard a = listen_to(&one, text, n, n, true), b = listen_to(&many, text, n, 1 + test_random(&seed) % 5, true);
        assert_int_equal(a.end, b.end);
        assert_int_equal(a.body.len, b.body.len);
        assert_memory_equal(a.body.data ? a.body.data : "", b.body.data ? b.body.data : "", a.body.len);
        assert_true(a.end != HTTP_END || (one.status == many.status && one.keep == many.keep));
        str_free(&a.body);
        str_free(&b.body);
        http_answer_clear(&one);
        http_answer_clear(&many);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_behind_the_end),
                                       cmocka_unit_test(test_bad), cmocka_unit_test(test_endless),
                                       cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
