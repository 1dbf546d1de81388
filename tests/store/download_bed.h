/* download_bed.h - a download into a folder of its own from a server of the rules below, and what must be true after. */
#ifndef PARE_TESTS_DOWNLOAD_BED_H
#define PARE_TESTS_DOWNLOAD_BED_H

#include <fcntl.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "check.h"
#include "store/download_parts.h"
#include "store/download_server.h"

#define SIZE     3000001
#define PARALLEL 262144 /* above this size in parts */

static const rule rules[] = {
    {.path = "/good", .etag = "\"one\""},
    {.path = "/dated", .extra = "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n"},
    {.path = "/bare_good"},
    {.path = "/slow", .etag = "\"one\"", .slow_us = 2000},
    {.path = "/slower", .etag = "\"one\"", .slow_us = 10000},
    {.path = "/rationed", .etag = "\"one\"", .rationed = true},
    {.path = "/breaks", .etag = "\"one\"", .cut = 120000},
    {.path = "/capped", .etag = "\"one\"", .cap = 200000},
    {.path = "/no_range", .etag = "\"one\"", .no_range = true},
    {.path = "/no_range_breaks", .no_range = true, .cut = 100000, .cut_times = 2},
    {.path = "/claims", .etag = "\"one\"", .no_range = true, .claims_range = true},
    {.path = "/shifted", .etag = "\"one\"", .shift = 7},
    {.path = "/total_lies", .etag = "\"one\"", .total_add = 1000, .total_after = 2, .cut = 50000},
    {.path = "/too_long", .no_range = true, .length_add = 100},
    {.path = "/part_too_long", .etag = "\"one\"", .length_add = 100},
    {.path = "/listed_wrong", .etag = "\"one\""},
    {.path = "/chunked", .no_range = true, .chunked = true},
    {.path = "/chunked_cut", .no_range = true, .chunked = true, .chunked_cut = true},
    {.path = "/chunked_more", .no_range = true, .chunked = true, .too_much = true},
    {.path = "/by_close", .no_range = true, .bare = true},
    {.path = "/here", .status = 302, .location = "/good"},
    {.path = "/away", .status = 307, .location = "http://localhost:#/good"},
    {.path = "/round", .status = 302, .location = "/round"},
    {.path = "/to_file", .status = 301, .location = "file:///etc/passwd"},
    {.path = "/nowhere", .status = 302},
    {.path = "/denied", .status = 401},
    {.path = "/gated", .status = 403, .extra = "X-Error-Message: Access to this model is restricted\r\n"},
    {.path = "/busy_once", .etag = "\"one\"", .status = 429, .status_times = 1, .extra = "Retry-After: 0\r\n"},
    {.path = "/busy_long", .status = 429, .extra = "Retry-After: 7200\r\n"},
    {.path = "/ill", .status = 500, .status_times = 2, .etag = "\"one\""},
    {.path = "/dead", .status = 503},
    {.path = "/page", .text = "<!DOCTYPE html><title>Log in</title>"},
    {.path = "/empty", .text = ""},
    {.path = "/changes", .etag = "\"one\"", .cut = 500000, .cut_times = 1, .second_after = 2},
    {.path = "/huge", .etag = "\"one\"", .total_add = INT64_C(1) << 50},
    {.path = "/coded", .extra = "Content-Encoding: gzip\r\n", .no_range = true},
    {.path = "/odd_length", .bare = true, .no_range = true, .extra = "Content-Length: 99999999999999999999999\r\n"},
    {.path = "/odd_range", .status = 206, .extra = "Content-Range: bytes 5-1/3\r\n"},
    {.path = "/silent", .silent = true},
    {0}};

static server web;
static char   folder[64], path[96], part[112], state[120];

typedef struct bed {
    download_options o;
    download_result  out;
    char             url[160];
    int64_t          stop_at; /* cancel when so many bytes are there */
    int              checked;
    int              most_connections;
} bed;

static inline bool on_progress(void *ctx, const download_progress *p) {
    bed *b = ctx;
    b->most_connections = p->connections > b->most_connections ? p->connections : b->most_connections;
    return !b->stop_at || p->done < b->stop_at;
}

static inline bed bed_of(const char *what) {
    bed b = {.o = {.path = path,
                   .magic = "GGUF",
                   .parallel_above = INT64_C(1) << 40,
                   .retries = 4,
                   .retry_us = 1000,
                   .stall_s = 2,
                   .save_us = 1000,
                   .progress = on_progress}};
    snprintf(b.url, sizeof b.url, "http://127.0.0.1:%d%s", web.port, what);
    return b;
}

static inline bool get(bed *b, err *e) {
    *e = (err){0};
    b->o.url = b->url;
    b->o.ctx = b;
    return download_file(&b->o, &b->out, e);
}

static inline bool there(const char *name) {
    return access(name, F_OK) == 0;
}

static inline void assert_file(const char *want) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *got = malloc(SIZE + 1);
    assert_int_equal(fread(got, 1, SIZE + 1, f), SIZE);
    assert_memory_equal(got, want, SIZE);
    free(got);
    fclose(f);
    assert_false(there(part));
    assert_false(there(state));
}

static inline void assert_nothing(void) {
    assert_false(there(path));
    assert_false(there(part));
    assert_false(there(state));
}

static inline int begin(void **unused) {
    (void)unused;
    unlink(path);
    unlink(part);
    unlink(state);
    server_clear(&web);
    return 0;
}

static inline void good_digest(char hex[65]) {
    sha256 d = sha256_of(web.file, SIZE);
    hex_encode(d.bytes, sizeof d.bytes, hex);
}

static inline int open_bed(void **unused) {
    (void)unused;
    snprintf(folder, sizeof folder, "/tmp/pare-test-download-XXXXXX");
    if (!mkdtemp(folder) || !server_start(&web, rules, SIZE)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    snprintf(part, sizeof part, "%s.part", path);
    snprintf(state, sizeof state, "%s.json", part);
    return 0;
}

static inline int close_bed(void **unused) {
    begin(unused);
    server_stop(&web);
    return rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

static inline void forget_proxies(void) {
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
}

#endif
