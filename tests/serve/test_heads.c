/* heads.c: what is read of a request's headers, and how an answer's are given to evhttp. */
#include "check.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "base/clock.h"
#include "serve/front.h"

static struct evhttp_request *asked(const char *const *pairs) {
    struct evhttp_request *r = evhttp_request_new(NULL, NULL);
    assert_non_null(r);
    for (; pairs[0]; pairs += 2) {
        assert_int_equal(evhttp_add_header(evhttp_request_get_input_headers(r), pairs[0], pairs[1]), 0);
    }
    return r;
}

/* The plain reference: evhttp's own look-up. */
static void assert_as_evhttp(struct evhttp_request *r, const char *name, const char *found) {
    assert_ptr_equal(found, evhttp_find_header(evhttp_request_get_input_headers(r), name));
}

static void test_read(void **state) {
    (void)state;
    const char *const      pairs[] = {"hOST",
                                      "example.org",
                                      "content-length",
                                      "5",
                                      "Content-Type",
                                      "application/json",
                                      "AUTHORIZATION",
                                      "Bearer first",
                                      "Authorization",
                                      "Bearer second",
                                      "Content-Length",
                                      "6",
                                      "x-pare-debu",
                                      "no",
                                      "X-Pare-Debug",
                                      "1",
                                      "Cache-Controls",
                                      "no",
                                      NULL};
    struct evhttp_request *r = asked(pairs);
    heads                  h;
    heads_read(r, &h);
    assert_as_evhttp(r, "Authorization", h.authorization);
    assert_as_evhttp(r, "Cache-Control", h.cache_control);
    assert_as_evhttp(r, "Content-Length", h.content_length);
    assert_as_evhttp(r, "Host", h.host);
    assert_as_evhttp(r, "Origin", h.origin);
    assert_as_evhttp(r, "Transfer-Encoding", h.transfer_encoding);
    assert_as_evhttp(r, "x-api-key", h.api_key);
    assert_as_evhttp(r, "x-pare-debug", h.debug);
    assert_string_equal(h.content_length, "5");
    assert_null(h.cache_control);
    assert_int_equal(h.lengths, 2);
    assert_int_equal(h.encodings, 0);
    assert_false(h.strange);
    assert_string_equal(heads_bearer(&h), "first");
    evhttp_request_free(r);
}

static bool is_strange(const char *name) {
    const char *const      pairs[] = {"Host", "a", name, "b", NULL};
    struct evhttp_request *r = asked(pairs);
    heads                  h;
    heads_read(r, &h);
    evhttp_request_free(r);
    return h.strange;
}

static void test_strange(void **state) {
    (void)state;
    assert_false(is_strange("x!#$%&'*+-.^_`|~09azAZ"));
    assert_true(is_strange("Content-Length "));
    assert_true(is_strange("Content\tLength"));
    assert_true(is_strange("a\x7f"));
    assert_true(is_strange("\xc3\xa9"));
    assert_true(is_strange("\1"));
}

static void test_bearer(void **state) {
    (void)state;
    static const struct {
        const char *authorization, *api_key, *bearer;
    } cases[] = {
        {"Bearer a", NULL, "a"}, {"bearer   a b", "c", "a b"}, {"Bearer ", "c", NULL},
        {"Basic a", "c", "c"},   {"Basic a", NULL, NULL},      {NULL, "c", "c"},
        {NULL, "", NULL},        {NULL, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        heads       h = {.authorization = cases[i].authorization, .api_key = cases[i].api_key};
        const char *bearer = heads_bearer(&h);
        if (cases[i].bearer) {
            assert_non_null(bearer);
            assert_string_equal(bearer, cases[i].bearer);
        } else {
            assert_null(bearer);
        }
    }
}

/* One entry, which begins with the Date and holds every line, and none that a value would have added. */
static void test_answer(void **state) {
    (void)state;
    const char *const      none[] = {NULL};
    struct evhttp_request *r = asked(none);
    struct evkeyvalq      *out = evhttp_request_get_output_headers(r);
    front                  f = {0};
    char                   expected[400], date[2][64];
    int64_t                began = clock_wall_us() / 1000000;
    str                   *head = head_begin(&f, "text/plain\r\nx-evil: 1");
    time_t                 seconds[2] = {(time_t)began, (time_t)(clock_wall_us() / 1000000)};
    head_add(head, "x-request-id", "77");
    head_add(head, "x-evil", "1\r\nSet-Cookie: a");
    head_add(head, "x-evil", "1\nSet-Cookie: a");
    head_add(head, "x-evil", "1\1\1Set-Cookie: a");
    head_add_usd(head, "x-pare-cost-usd", 1234567);
    head_add_usd(head, "x-pare-saved-usd", 42);
    head_end(head, r);
    head_length(r, 0);
    assert_ptr_equal(out->tqh_first->next.tqe_next->next.tqe_next, NULL);
    assert_string_equal(out->tqh_first->key, "Date");
    const char *value = evhttp_find_header(out, "Date");
    for (int i = 0; i < 2; i++) {
        struct tm utc;
        strftime(date[i], sizeof date[i], "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&seconds[i], &utc));
    }
    snprintf(expected, sizeof expected,
             "%s\r\nContent-Type: application/json\r\nx-request-id: 77\r\nx-pare-cost-usd: 1.234567\r\n"
             "x-pare-saved-usd: 0.000042",
             strncmp(value, date[0], strlen(date[0])) == 0 ? date[0] : date[1]);
    assert_string_equal(value, expected);
    assert_string_equal(evhttp_find_header(out, "Content-Length"), "0");
    str_free(&f.text);
    evhttp_request_free(r);
}

static void test_length(void **state) {
    (void)state;
    static const size_t lengths[] = {1, 9, 10, 4294967296u, SIZE_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const char *const      none[] = {NULL};
        struct evhttp_request *r = asked(none);
        char                   expected[32];
        head_length(r, lengths[i]);
        snprintf(expected, sizeof expected, "%zu", lengths[i]);
        assert_string_equal(evhttp_find_header(evhttp_request_get_output_headers(r), "Content-Length"), expected);
        evhttp_request_free(r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),   cmocka_unit_test(test_strange), cmocka_unit_test(test_bearer),
        cmocka_unit_test(test_answer), cmocka_unit_test(test_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
