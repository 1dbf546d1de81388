/* The download against a server that breaks off, lies about lengths and ranges, redirects, refuses and goes silent:
 * the file is whole under its name, or there is no such file. */
#include "store/download_bed.h"

/* ---- it works ---- */

static void whole_file(void **unused) {
    (void)unused;
    static const char *const ways[] = {"/good", "/dated",    "/bare_good", "/no_range", "/chunked", "/odd_length",
                                       "/here", "/by_close", "/claims",    "/capped",   NULL};
    char                     hex[65];
    good_digest(hex);
    for (int i = 0; ways[i]; i++) {
        err e;
        bed b = bed_of(ways[i]);
        begin(NULL);
        assert_ok(get(&b, &e), e);
        assert_file(web.file);
        assert_string_equal(b.out.sha256, hex);
        assert_int_equal(b.out.size, SIZE);
        assert_int_equal(b.out.fetched, SIZE);
    }
}

static void several_parts(void **unused) {
    (void)unused;
    err  e;
    bed  b = bed_of("/slower");
    char hex[65];
    good_digest(hex);
    b.o.parallel_above = PARALLEL;
    b.o.parts = 4;
    b.o.sha256 = hex;
    assert_ok(get(&b, &e), e);
    assert_file(web.file);
    assert_true(b.most_connections <= 4);
    assert_true(atomic_load(&web.most_open) >= 4); /* and the ends of some that were cut */
    assert_in_range(b.out.fetched, SIZE, SIZE);
    /* A file that is not large comes in one. */
    begin(NULL);
    b.o.parallel_above = SIZE;
    assert_ok(get(&b, &e), e);
    assert_file(web.file);
    assert_int_equal(atomic_load(&web.requests), 1);
}

static void parts_that_break(void **unused) {
    (void)unused;
    for (int parts = 1; parts <= 8; parts *= 2) {
        err e;
        bed b = bed_of("/breaks");
        begin(NULL);
        b.o.parallel_above = PARALLEL;
        b.o.parts = parts;
        assert_ok(get(&b, &e), e);
        assert_file(web.file);
        assert_int_equal(b.out.fetched, SIZE); /* nothing twice */
        assert_true(atomic_load(&web.requests) >= SIZE / 120000);
        assert_true(atomic_load(&web.if_ranged) > 0);
    }
}

static void unchanged_file(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/good");
    b.o.have_etag = "\"one\"";
    b.o.have_size = SIZE;
    assert_ok(get(&b, &e), e);
    assert_true(b.out.unchanged);
    assert_nothing();
    b.o.have_size = SIZE - 1;
    assert_ok(get(&b, &e), e);
    assert_false(b.out.unchanged);
    assert_file(web.file);
}

/* ---- the server does ranges badly, or not at all ---- */

static void ranges_that_lie(void **unused) {
    (void)unused;
    static const char *const ways[] = {"/no_range", "/claims", "/no_range_breaks", "/shifted", "/part_too_long", NULL};
    for (int i = 0; ways[i]; i++) {
        err e;
        bed b = bed_of(ways[i]);
        begin(NULL);
        b.o.parallel_above = PARALLEL;
        bool ok = get(&b, &e);
        if (strcmp(ways[i], "/shifted") == 0 || strcmp(ways[i], "/part_too_long") == 0) {
            /* asked for the whole, the second of these still promises 100 bytes too many */
            assert_int_equal(ok, strcmp(ways[i], "/shifted") == 0);
            if (!ok) {
                assert_nothing();
                continue;
            }
        }
        assert_ok(ok, e);
        assert_file(web.file);
    }
}

static void length_that_lies(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/too_long");
    assert_false(get(&b, &e));
    assert_nothing();
    assert_int_equal(atomic_load(&web.requests), 5); /* the first and four more */
    b = bed_of("/total_lies");
    assert_false(get(&b, &e));
    assert_says(e, "lies about its length");
    assert_false(there(path));
    begin(NULL);
    b = bed_of("/listed_wrong");
    b.o.size = SIZE + 5;
    assert_false(get(&b, &e));
    assert_says(e, "3000001 bytes");
    assert_says(e, "3000006");
    assert_nothing();
    b = bed_of("/chunked_more");
    b.o.size = SIZE;
    assert_false(get(&b, &e));
    assert_says(e, "more bytes than the file has");
    assert_nothing();
    b = bed_of("/chunked_cut");
    assert_false(get(&b, &e));
    assert_nothing();
}

static void odd_headers(void **unused) {
    (void)unused;
    static const char *const ways[] = {"/coded", "/odd_range", "/empty", NULL};
    for (int i = 0; ways[i]; i++) {
        err e;
        bed b = bed_of(ways[i]);
        assert_false(get(&b, &e));
        assert_true(strlen(e.text) > 20);
        assert_nothing();
    }
}

static void header_lines(void **unused) {
    (void)unused;
    static const struct {
        const char *line;
        int64_t     length, first, last, total;
        bool        range;
    } lines[] = {
        {"Content-Length: 12\r\n", 12, -1, -1, -1, false},
        {"Content-Length: -12\r\n", -1, -1, -1, -1, false},
        {"Content-Length: 9223372036854775808\r\n", -1, -1, -1, -1, false},
        {"content-range: bytes 0-9/10\r\n", -1, 0, 9, 10, true},
        {"Content-Range: bytes 0-9/*\r\n", -1, 0, 9, -1, true},
        {"Content-Range: bytes */10\r\n", -1, -1, -1, 10, false},
        {"Content-Range: bytes 0-10/10\r\n", -1, 0, 10, 10, false},
        {"Content-Range: bytes 9-0/10\r\n", -1, 9, 0, 10, false},
        {"Content-Range: items 0-9/10\r\n", -1, -1, -1, -1, false},
        {"Content-Range: bytes 0--9/10\r\n", -1, 0, -1, -1, false},
        {"Content-Range: bytes\r\n", -1, -1, -1, -1, false},
        {"Content-Range:\r\n", -1, -1, -1, -1, false},
        {"Content-Range: bytes 1-99999999999999999999/10\r\n", -1, 1, -1, -1, false},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        response r;
        char     status[] = "HTTP/1.1 206 Part\r\n", line[128];
        snprintf(line, sizeof line, "%s", lines[i].line);
        http_header(status, 1, strlen(status), &r);
        assert_int_equal(http_header(line, 1, strlen(line), &r), strlen(line));
        assert_int_equal(r.length, lines[i].length);
        assert_int_equal(r.range, lines[i].range);
        if (r.range) {
            assert_int_equal(r.first, lines[i].first);
            assert_int_equal(r.last, lines[i].last);
        }
    }
}

/* ---- redirects and tokens ---- */

static void redirects(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/away");
    assert_ok(get(&b, &e), e);
    assert_file(web.file);
    begin(NULL);
    b = bed_of("/round");
    assert_false(get(&b, &e));
    assert_says(e, "after 10 redirects");
    assert_int_equal(atomic_load(&web.requests), 11);
    b = bed_of("/to_file");
    assert_false(get(&b, &e));
    assert_says(e, "not http or https");
    b = bed_of("/nowhere");
    assert_false(get(&b, &e));
    assert_says(e, "does not say where to");
    assert_nothing();
    assert_false(http_may_follow("https://a.example/x?sig=secret", "http://a.example/y", 0, &e));
    assert_says(e, "plain http");
    assert_null(strstr(e.text, "secret"));
    assert_true(http_may_follow("http://a.example/x", "https://b.example/y", 9, &e));
    assert_false(http_may_follow("http://a.example/x", "https://b.example/y", 10, &e));
}

static void tokens_stay_home(void **unused) {
    (void)unused;
    err  e;
    char home[64];
    bed  b = bed_of("/away");
    snprintf(home, sizeof home, "http://127.0.0.1:%d", web.port);
    b.o.token = (download_token){.token = "hf_secret", .origin = home};
    assert_ok(get(&b, &e), e);
    assert_file(web.file);
    assert_int_equal(atomic_load(&web.requests), 2);
    assert_int_equal(atomic_load(&web.authorized), 1); /* /away, not where it sent to */
    server_quiet(&web);
    assert_string_equal(web.authorization, "Bearer hf_secret");
    assert_non_null(strstr(web.host, "127.0.0.1"));
    begin(NULL);
    b = bed_of("/here"); /* the same server: it goes along */
    b.o.token = (download_token){.token = "hf_secret", .origin = home};
    assert_ok(get(&b, &e), e);
    assert_int_equal(atomic_load(&web.authorized), 2);
    b = bed_of("/denied");
    b.o.token = (download_token){.token = "hf_secret", .origin = home};
    assert_false(get(&b, &e));
    assert_null(strstr(e.text, "hf_secret"));
    b.o.token.token = "two\r\nlines";
    assert_false(get(&b, &e));
    assert_says(e, "no token has");
    snprintf(b.url, sizeof b.url, "http://models.example/x");
    b.o.token = (download_token){.token = "hf_secret", .origin = "http://models.example"};
    assert_false(get(&b, &e));
    assert_says(e, "does not send a token");
    assert_true(url_same_origin("https://h.example/a", "https://H.example:443/b"));
    assert_false(url_same_origin("https://h.example/a", "http://h.example/a"));
    assert_false(url_same_origin("https://h.example/a", "https://h.example:8443/a"));
    assert_false(url_same_origin("https://h.example/a", "https://h.example.evil.example/a"));
    assert_false(url_same_origin("https://h.example/a", "https://h.example@evil.example/a"));
}

static void shown_addresses(void **unused) {
    (void)unused;
    char out[64];
    url_shown("https://user:word@h.example/a/b?token=t#f", out, sizeof out);
    assert_string_equal(out, "https://h.example/a/b");
    url_shown("nonsense \x1b[31m", out, sizeof out);
    assert_null(strchr(out, 0x1b));
}

/* ---- refusals ---- */

static void refusals(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/denied");
    b.o.denied = "Set HF_TOKEN.";
    assert_false(get(&b, &e));
    assert_says(e, "401");
    assert_says(e, "Set HF_TOKEN.");
    assert_int_equal(e.code, ERR_DENIED);
    b = bed_of("/gated");
    assert_false(get(&b, &e));
    assert_says(e, "Access to this model is restricted");
    b = bed_of("/missing");
    assert_false(get(&b, &e));
    assert_says(e, "404");
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(atomic_load(&web.requests), 3); /* none of these is asked twice */
    b = bed_of("/busy_long");
    assert_false(get(&b, &e));
    assert_says(e, "120 minutes");
    b = bed_of("/dead");
    assert_false(get(&b, &e));
    assert_says(e, "503");
    assert_nothing();
    static const char *const ways[] = {"/busy_once", "/ill", NULL};
    for (int i = 0; ways[i]; i++) {
        begin(NULL);
        b = bed_of(ways[i]);
        assert_ok(get(&b, &e), e);
        assert_file(web.file);
    }
    begin(NULL);
    b = bed_of("/good");
    snprintf(b.url, sizeof b.url, "http://127.0.0.1:1/x");
    assert_false(get(&b, &e));
    assert_says(e, "nothing answers");
    snprintf(b.url, sizeof b.url, "ftp://127.0.0.1/x");
    assert_false(get(&b, &e));
    assert_nothing();
}

static void silence(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/silent");
    b.o.stall_s = 1;
    b.o.retries = 1;
    assert_false(get(&b, &e));
    assert_says(e, "silent");
    assert_int_equal(atomic_load(&web.requests), 2);
    assert_nothing();
}

static void not_a_model(void **unused) {
    (void)unused;
    err e;
    bed b = bed_of("/page");
    assert_false(get(&b, &e));
    assert_says(e, "<!DOCTYPE html>");
    assert_says(e, "web page");
    assert_nothing();
}

static bool on_check(void *ctx, const char *name, bool verified, err *e) {
    bed *b = ctx;
    b->checked++;
    assert_string_equal(name, part);
    assert_false(there(path));
    return verified || err_set(e, ERR_INVALID, "cut short");
}

static void wrong_checksum(void **unused) {
    (void)unused;
    err  e;
    char hex[65];
    bed  b = bed_of("/good");
    good_digest(hex);
    b.o.check = on_check;
    b.o.sha256 = hex;
    assert_ok(get(&b, &e), e);
    assert_int_equal(b.checked, 1);
    assert_file(web.file);
    begin(NULL);
    hex[0] = hex[0] == '0' ? '1' : '0';
    for (int parts = 1; parts <= 4; parts += 3) {
        b.o.parallel_above = PARALLEL;
        b.o.parts = parts;
        assert_false(get(&b, &e));
        assert_says(e, hex);
        assert_nothing();
    }
    b.o.sha256 = NULL; /* the caller's last look says no */
    assert_false(get(&b, &e));
    assert_says(e, "cut short");
    assert_nothing();
    b.o.sha256 = "12";
    assert_false(get(&b, &e));
    assert_says(e, "64 hex digits");
}

/* ---- the table of segments ---- */

static void splitting(void **unused) {
    (void)unused;
    download_state s;
    state_begin(&s, 1000);
    state_split(&s, 4, 100);
    assert_int_equal(s.n, 4);
    state_split(&s, 64, 100);
    int64_t sum = 0;
    for (int i = 0; i < s.n; i++) {
        assert_int_equal(s.segments[i].at, s.segments[i].begin);
        assert_true(s.segments[i].end - s.segments[i].begin >= 100);
        sum += s.segments[i].end - s.segments[i].begin;
    }
    assert_int_equal(sum, 1000);
    assert_true(s.n >= 5 && s.n <= 10);
    state_begin(&s, INT64_C(1) << 40);
    state_split(&s, 1000, 1);
    assert_int_equal(s.n, DOWNLOAD_SEGMENTS);
    state_begin(&s, 0);
    assert_int_equal(s.size, -1);
    assert_false(state_complete(&s));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(whole_file),      TEST(several_parts),    TEST(parts_that_break), TEST(unchanged_file),
        TEST(ranges_that_lie), TEST(length_that_lies), TEST(odd_headers),      TEST(header_lines),
        TEST(redirects),       TEST(tokens_stay_home), TEST(shown_addresses),  TEST(refusals),
        TEST(silence),         TEST(not_a_model),      TEST(wrong_checksum),   TEST(splitting)};
    forget_proxies();
    return cmocka_run_group_tests(tests, open_bed, close_bed);
}
