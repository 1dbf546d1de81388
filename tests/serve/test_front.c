/* The door: TLS and clients' certificates, pages of other sites, bodies whose length has two readings, connections that
 * are many, idle, or slow on purpose. */
#include "bed.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <sys/resource.h>

#include "serve/front.h"

static void run_soon(upstream *u, int fd) {
    (void)u;
    str out = {0};
    nap(500);
    str_addf(&out, "HTTP/1.1 " JSON_HEAD "\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", strlen(WHOLE));
    str_adds(&out, WHOLE);
    send_all(fd, out.data, out.len);
    str_free(&out);
}

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
                                 {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
                                 {"stalls", SSE_HEAD, EVENT(DELTA("hel")), UNENDED, HANG, NULL},
                                 {"soon", NULL, NULL, RAW, CLOSE, run_soon},
                                 {0}};

static bed   the;
static reply r;
static char  certificates[64];

static int open_bed(void **state) {
    (void)state;
    the = (bed){0};
    bed_open(&the, scripts);
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    bed_close(&the);
    return 0;
}

static void raw(const char *bytes) {
    int fd = client_connect(the.port);
    assert_true(fd >= 0);
    reply_free(&r);
    say(fd, bytes);
    read_reply(fd, &r, false);
    close(fd);
}

/* ---- framing ---- */

/* What hides behind the first request must not be answered: one reply, and the connection is closed. */
static void test_smuggling(void **state) {
    (void)state;
    static const char *const heads[] = {"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
                                        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
                                        "Content-Length: 5\r\nContent-Length: 6\r\n",
                                        "Content-Length: 5\r\nContent-Length: 5\r\n",
                                        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
                                        "Transfer-Encoding: xchunked\r\n",
                                        "Transfer-Encoding: gzip, chunked\r\n",
                                        "Content-Length: +5\r\n",
                                        "Content-Length: 5, 5\r\n",
                                        "Content-Length: 0x5\r\n",
                                        "Content-Length: -5\r\n",
                                        "Content-Length : 5\r\n",
                                        "Content-Length:\r\n",
                                        "Transfer-Encoding: \013chunked\r\n"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n%s\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: "
                 "x\r\n\r\n",
                 heads[i]);
        int fd = client_connect(the.port);
        say(fd, text);
        str all = {0};
        while (receive(fd, &all)) {
        }
        close(fd);
        if (all.data && (strstr(all.data, "pare_requests") || strstr(all.data, "200 OK"))) {
            fail_msg("%s: the hidden request was answered:\n%s", heads[i], all.data);
        }
        str_free(&all);
    }
    assert_int_equal(atomic_load(&the.up.requests), 0);
}

/* What was sent behind `text` on the same connection, and all that came back until the server closed. */
static void exchange_raw(const char *text, str *all) {
    int fd = client_connect(the.port);
    str_clear(all);
    say(fd, text);
    while (receive(fd, all)) {
    }
    close(fd);
}

/* Here the hidden request begins where the body would: a server that takes the length for none reads it as the next one. */
static void test_hidden_behind_a_body(void **state) {
    (void)state;
    static const char *const heads[] = {"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n",
                                        "HEAD /health HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n",
                                        "DELETE /api/cache?key=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n",
                                        "OPTIONS / HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n",
                                        "GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n",
                                        "POST /api/none HTTP/1.1\r\nHost: x\r\nContent-Length : 35\r\n",
                                        "POST /api/none HTTP/1.1\r\nHost: x\r\nContent-Length\t: 35\r\n",
                                        "POST /api/none HTTP/1.1\r\nHost: x\r\n\x0b"
                                        "Content-Length: 35\r\n",
                                        "POST /api/none HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n",
                                        "POST /api/none HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n"
                                        "Transfer-Encoding: chunked\r\n"};
    str                      all = {0};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        char text[1024];
        bool old = strstr(heads[i], "HTTP/1.0") != NULL; /* its chunks end at once */
        snprintf(text, sizeof text, "%s\r\n%sGET /metrics HTTP/1.1\r\nHost: xxx\r\n\r\n", heads[i],
                 old ? "0\r\n\r\n" : "");
        exchange_raw(text, &all);
        if (all.data && strstr(all.data, "pare_requests")) {
            fail_msg("%s: the hidden request was answered:\n%.600s", heads[i], all.data);
        }
        assert_true(all.len > 0); /* but the first one is */
    }
    /* A length of nothing hides nothing: the connection goes on. */
    exchange_raw("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
                 "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                 &all);
    assert_non_null(strstr(all.data, "pare_requests"));
    str_free(&all);
}

/* ---- pages of other sites ---- */

static void test_cors(void **state) {
    (void)state;
    char path[128];
    raw("GET /health HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n\r\n");
    assert_false(has_header(&r, "Access-Control-Allow-Origin", "https://app.example.com")); /* nobody by default */
    snprintf(path, sizeof path, "%s/pare.yaml", the.dir);
    bed_write_config(&the, path, "cors: {origins: [https://app.example.com]}\n");
    post(the.port, "/api/reload", "", "{}", &r);
    assert_int_equal(r.status, 200);
    until((raw("GET /health HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n\r\n"),
           has_header(&r, "Access-Control-Allow-Origin", "https://app.example.com")));
    assert_true(has_header(&r, "Access-Control-Allow-Origin", "https://app.example.com"));
    assert_true(has_header(&r, "Vary", "Origin"));
    raw("GET /health HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example.com\r\n\r\n");
    char value[256];
    assert_false(header_of(&r, "Access-Control-Allow-Origin", value, sizeof value));
    raw("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://app.example.com\r\n"
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n");
    assert_int_equal(r.status, 204);
    assert_true(has_header(&r, "Access-Control-Allow-Headers", "authorization,x-stainless-os"));
    raw("OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example.com\r\n\r\n");
    assert_false(header_of(&r, "Access-Control-Allow-Origin", value, sizeof value));
}

/* Without keys a page that its reader visits could spend money here: browsers say where it comes from. */
static void test_strange_pages(void **state) {
    (void)state;
    static const struct {
        const char *host, *origin;
        int         status;
    } asks[] = {{"127.0.0.1:7273", "http://127.0.0.1:7273", 200},
                {"localhost:7273", "http://localhost:7273", 200},
                {"[::1]:7273", "http://[::1]:7273", 200},
                {"127.0.0.1:7273", "https://evil.example.com", 403},
                {"127.0.0.1:7273", "null", 403},
                {"evil.example.com:7273", "http://evil.example.com:7273", 403},
                {"127.0.0.1:7273", "http://127.0.0.1:8080", 403},
                {"localhost.evil.com", "http://localhost.evil.com", 403}};
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        char text[512], body[256];
        chat_body(body, sizeof body, "whole", "strange", false);
        snprintf(text, sizeof text,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nContent-Type: text/plain\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 asks[i].host, asks[i].origin, strlen(body), body);
        raw(text);
        if (r.status != asks[i].status) {
            fail_msg("%s at %s: %d", asks[i].origin, asks[i].host, r.status);
        }
    }
}

/* ---- TLS ---- */

static void say_to_pipe(int fd, const char *text) {
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...) {
    char    text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (system(text) != 0) {
        fail_msg("%s", text);
    }
}

/* ca.pem signs server.pem and client.pem; other.pem stands for itself. */
static void make_certificates(void) {
    snprintf(certificates, sizeof certificates, "/tmp/pare-tls-XXXXXX");
    assert_non_null(mkdtemp(certificates));
    const char *d = certificates, *curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    shell("openssl req -x509 %s -days 2 -subj /CN=test-ca -keyout %s/ca.key -out %s/ca.pem 2>/dev/null", curve, d, d);
    shell("openssl req -x509 %s -days 2 -subj /CN=other -keyout %s/other.key -out %s/other.pem 2>/dev/null", curve, d,
          d);
    static const char *const names[] = {"server", "second", "client"};
    for (int i = 0; i < 3; i++) {
        shell("openssl req %s -subj /CN=%s -keyout %s/%s.key -out %s/%s.csr 2>/dev/null", curve, names[i], d, names[i],
              d, names[i]);
        shell("printf 'subjectAltName=IP:127.0.0.1\\n' > %s/ext; openssl x509 -req -days 2 -in %s/%s.csr -CA %s/ca.pem "
              "-CAkey %s/ca.key -CAcreateserial -extfile %s/ext -out %s/%s.pem 2>/dev/null",
              d, d, names[i], d, d, d, d, names[i]);
    }
}

static size_t keep(char *bytes, size_t size, size_t n, void *arg) {
    return str_add(arg, bytes, size * n) ? size * n : 0;
}

typedef struct fetched {
    CURLcode code;
    long     status;
    str      body;
    char     subject[128]; /* of the server's certificate */
} fetched;

static fetched fetch(const char *path, const char *body, const char *client) {
    fetched f = {0};
    char    url[128], file[160];
    CURL   *c = curl_easy_init();
    snprintf(url, sizeof url, "https://127.0.0.1:%d%s", the.port, path);
    snprintf(file, sizeof file, "%s/ca.pem", certificates);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_CAINFO, file);
    curl_easy_setopt(c, CURLOPT_CERTINFO, 1L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &f.body);
    if (body) {
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
    }
    if (client) {
        snprintf(file, sizeof file, "%s/%s.pem", certificates, client);
        curl_easy_setopt(c, CURLOPT_SSLCERT, file);
        snprintf(file, sizeof file, "%s/%s.key", certificates, client);
        curl_easy_setopt(c, CURLOPT_SSLKEY, file);
    }
    f.code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &f.status);
    struct curl_certinfo *info = NULL;
    if (curl_easy_getinfo(c, CURLINFO_CERTINFO, &info) == CURLE_OK && info && info->num_of_certs > 0) {
        for (struct curl_slist *line = info->certinfo[0]; line; line = line->next) {
            if (strncmp(line->data, "Subject:", 8) == 0) {
                snprintf(f.subject, sizeof f.subject, "%s", line->data);
            }
        }
    }
    curl_easy_cleanup(c);
    return f;
}

static void tls_lines(char *out, size_t size, const char *name, bool mutual) {
    snprintf(out, size, "tls: {certificate: %s/%s.pem, key: %s/%s.key%s%s%s}\n", certificates, name, certificates, name,
             mutual ? ", client_ca: " : "", mutual ? certificates : "", mutual ? "/ca.pem" : "");
}

static int open_tls(void **state) {
    (void)state;
    char lines[512];
    make_certificates();
    the = (bed){0};
    tls_lines(lines, sizeof lines, "server", false);
    bed_open_with(&the, scripts, lines);
    return 0;
}

static int close_tls(void **state) {
    close_bed(state);
    nftw(certificates, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static void test_tls(void **state) {
    (void)state;
    char    body[512], lines[512], path[128];
    fetched f = fetch("/v1/chat/completions", chat_body(body, sizeof body, "whole", "1", false), NULL);
    assert_int_equal(f.code, CURLE_OK);
    assert_int_equal(f.status, 200);
    assert_non_null(strstr(f.body.data, "hello"));
    assert_non_null(strstr(f.subject, "server"));
    str_free(&f.body);
    f = fetch("/v1/chat/completions", chat_body(body, sizeof body, "stream", "1", true), NULL);
    assert_int_equal(f.status, 200);
    assert_non_null(strstr(f.body.data, "[DONE]"));
    str_free(&f.body);
    raw("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); /* not TLS: no answer, and nothing falls over */
    assert_int_equal(r.status, 0);
    /* A new certificate, without a restart; then only known clients. */
    snprintf(path, sizeof path, "%s/pare.yaml", the.dir);
    tls_lines(lines, sizeof lines, "second", false);
    bed_write_config(&the, path, lines);
    f = fetch("/api/reload", "{}", NULL);
    assert_int_equal(f.status, 200);
    str_free(&f.body);
    until((f = fetch("/health", NULL, NULL), str_free(&f.body), strstr(f.subject, "second") != NULL));
    assert_non_null(strstr(f.subject, "second"));
    tls_lines(lines, sizeof lines, "server", true);
    bed_write_config(&the, path, lines);
    f = fetch("/api/reload", "{}", NULL);
    assert_int_equal(f.status, 200);
    str_free(&f.body);
    until((f = fetch("/health", NULL, NULL), str_free(&f.body), f.code != CURLE_OK));
    assert_int_not_equal(f.code, CURLE_OK);
    f = fetch("/health", NULL, "other");
    assert_int_not_equal(f.code, CURLE_OK);
    str_free(&f.body);
    f = fetch("/health", NULL, "client");
    assert_int_equal(f.code, CURLE_OK);
    assert_int_equal(f.status, 200);
    str_free(&f.body);
}

static int open_quick_tls(void **state) {
    open_tls(state);
    generation *g = the.house->now; /* no request has come yet: the loops are asleep */
    err         e = {0};
    tls_options o = the.settings->tls;
    o.handshake_us = 500000;
    tls *quick = tls_open(&o, &e);
    assert_ok(quick, e);
    tls_release(g->tls);
    g->tls = quick;
    return 0;
}

static bool is_closed(int fd, int ms) {
    char          bytes[4096];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t       end = clock_us() + (int64_t)ms * 1000;
    while (clock_us() < end) {
        if (poll(&p, 1, 20) > 0 && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) <= 0) {
            return true;
        }
    }
    return false;
}

/* A handshake that comes byte by byte: each one begins evhttp's own time limit anew. */
static void test_dripped_handshake(void **state) {
    (void)state;
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"; /* of 512 bytes */
    int               fd = client_connect(the.port), silent = client_connect(the.port);
    send_all(fd, hello, sizeof hello - 1);
    int64_t began = clock_us();
    while (clock_us() - began < 8000000 && send_all(fd, "a", 1) && !is_closed(fd, 40)) {
    }
    assert_in_range((clock_us() - began) / 1000, 400, 5000);
    assert_true(is_closed(silent, 5000));
    close(fd);
    close(silent);
    /* Who is through stays, idle or not. */
    CURL *c = curl_easy_init();
    char  url[128];
    str   body = {0};
    long  connections = 0;
    snprintf(url, sizeof url, "https://127.0.0.1:%d/health", the.port);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &body);
    assert_int_equal(curl_easy_perform(c), CURLE_OK);
    nap(1200);
    assert_int_equal(curl_easy_perform(c), CURLE_OK);
    assert_int_equal(curl_easy_getinfo(c, CURLINFO_NUM_CONNECTS, &connections), CURLE_OK);
    assert_int_equal(connections, 0); /* the same one */
    curl_easy_cleanup(c);
    str_free(&body);
}

static size_t take_some(char *bytes, size_t size, size_t n, void *arg) {
    (void)bytes;
    (void)size;
    (void)n;
    (void)arg;
    return 0; /* that was enough */
}

/* A stream whose reader has gone is cancelled, and its provider's too. */
static void test_tls_reader_leaves(void **state) {
    (void)state;
    char body[512], url[128];
    for (int i = 1; i <= 4; i++) {
        CURL *c = curl_easy_init();
        snprintf(url, sizeof url, "https://127.0.0.1:%d" CHAT, the.port);
        curl_easy_setopt(c, CURLOPT_URL, url);
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_some);
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, chat_body(body, sizeof body, "stalls", i % 2 ? "1" : "2", true));
        assert_int_equal(curl_easy_perform(c), CURLE_WRITE_ERROR);
        curl_easy_cleanup(c);
        until(in_flight(&the) == 0 && atomic_load(&the.up.left) == i);
        assert_int_equal(in_flight(&the), 0);
        assert_int_equal(atomic_load(&the.up.left), i);
    }
}

static bool tls_receive(SSL *s, str *in) {
    char bytes[4096];
    int  n = SSL_read(s, bytes, sizeof bytes);
    return n > 0 && str_add(in, bytes, (size_t)n);
}

/* Bytes of the next request wait in OpenSSL as well as in our buffer while an answer is made; none is forgotten there. */
static void test_tls_next_request(void **state) {
    (void)state;
    enum { FIRST_PIECE = 1000, ALL = UNREAD_READ + 464 }; /* a record's middle is at the buffer's mark */
    char           body[512], *next = malloc(ALL + 1), *rest = malloc(ALL + 1);
    int            fd = client_connect(the.port);
    struct timeval tv = {.tv_sec = 8};
    str            in = {0}, first = {0};
    SSL_CTX       *context = SSL_CTX_new(TLS_client_method());
    SSL           *s = SSL_new(context);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    SSL_set_fd(s, fd);
    assert_int_equal(SSL_connect(s), 1);
    chat_body(body, sizeof body, "soon", "tls", false);
    str_addf(&first, "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    SSL_write(s, first.data, (int)first.len);
    until(in_flight(&the) == 1);
    int head = snprintf(next, ALL, "POST /v1/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ");
    int digits = snprintf(rest, ALL, "%d\r\n\r\n", ALL - head - 9); /* five digits and two line ends */
    assert_int_equal(digits, 9);
    memset(next, 'b', ALL);
    snprintf(next, ALL, "POST /v1/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %s", rest);
    next[head + digits] = 'b';
    SSL_write(s, next, FIRST_PIECE);
    nap(50);
    SSL_write(s, next + FIRST_PIECE, ALL - FIRST_PIECE);
    while (tls_receive(s, &in)) {
    }
    assert_true(in.data && strstr(in.data, "200 OK"));
    assert_non_null(strstr(in.data, "404 Not Found"));
    SSL_free(s);
    SSL_CTX_free(context);
    close(fd);
    str_free(&in);
    str_free(&first);
    free(next);
    free(rest);
}

/* OpenSSL's memory, which can be told to run out. */
static atomic_bool starved;

static void *get_memory(size_t n, const char *file, int line) {
    (void)file;
    (void)line;
    return atomic_load(&starved) ? NULL : malloc(n);
}

static void *more_memory(void *old, size_t n, const char *file, int line) {
    (void)file;
    (void)line;
    return atomic_load(&starved) ? NULL : realloc(old, n);
}

static void give_memory(void *old, const char *file, int line) {
    (void)file;
    (void)line;
    free(old);
}

/* A connection for which TLS cannot be set up is not spoken to in the clear. */
static void test_no_memory_for_tls(void **state) {
    (void)state;
    atomic_store(&starved, true);
    raw("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    atomic_store(&starved, false);
    assert_false(body_has(&r, "pare_requests"));
    assert_int_not_equal(r.status, 200);
    fetched f = fetch("/health", NULL, NULL);
    assert_int_equal(f.status, 200);
    str_free(&f.body);
}

/* Nobody is there to be asked for the password. */
static void test_encrypted_key(void **state) {
    (void)state;
    err         e = {0};
    char        a[160], b[160];
    tls_options o = {.certificate = a, .key = b};
    make_certificates();
    shell("openssl ec -in %s/server.key -aes128 -passout pass:secret -out %s/locked.key 2>/dev/null", certificates,
          certificates);
    snprintf(a, sizeof a, "%s/server.pem", certificates);
    snprintf(b, sizeof b, "%s/locked.key", certificates);
    int ends[2], was = dup(STDIN_FILENO); /* where OpenSSL asks when there is no terminal */
    assert_int_equal(pipe(ends), 0);
    say_to_pipe(ends[1], "secret\n");
    dup2(ends[0], STDIN_FILENO);
    tls *opened = tls_open(&o, &e);
    dup2(was, STDIN_FILENO);
    close(was);
    close(ends[0]);
    close(ends[1]);
    assert_null(opened);
    assert_non_null(strstr(e.text, "locked.key"));
    nftw(certificates, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_tls_settings(void **state) {
    (void)state;
    err         e = {0};
    char        a[160], b[160];
    tls_options o = {.certificate = a, .key = b};
    make_certificates();
    snprintf(a, sizeof a, "%s/server.pem", certificates);
    snprintf(b, sizeof b, "%s/client.key", certificates);
    assert_null(tls_open(&o, &e)); /* not its key */
    assert_non_null(strstr(e.text, "client.key"));
    snprintf(b, sizeof b, "%s/none.key", certificates);
    assert_null(tls_open(&o, &e));
    o.key = NULL;
    assert_null(tls_open(&o, &e));
    nftw(certificates, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- many, idle ---- */

#define IDLE_CONNECTIONS 10000

static int64_t resident_kib(void) {
    int64_t pages = 0;
    FILE   *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*d %" SCNd64, &pages) != 1) {
            pages = 0;
        }
        fclose(f);
    }
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Client and server sit in one process here: two descriptors a connection. */
static void test_idle_connections(void **state) {
    (void)state;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    int wanted = files.rlim_cur > 2 * IDLE_CONNECTIONS + 200 ? IDLE_CONNECTIONS : (int)(files.rlim_cur / 2) - 200;
    if (wanted < 100) {
        skip();
    }
    int    *fds = calloc((size_t)wanted, sizeof *fds);
    int64_t before = resident_kib(), began = clock_us();
    for (int i = 0; i < wanted; i++) {
        fds[i] = client_connect(the.port);
        assert_true(fds[i] >= 0);
        if (i % 2) {
            say(fds[i], "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le"); /* half a head, and silence */
        }
    }
    ask(&the, "whole", "idle", false, &r);
    assert_int_equal(r.status, 200);
    int64_t answered = clock_us();
    ask(&the, "whole", "idle", false, &r);
    assert_true(answered_by(&r, "recall.exact"));
    print_message("%d idle connections in %.1f s, %.1f KiB each on both sides; a hit among them in %.2f ms\n", wanted,
                  (double)(answered - began) / 1e6, (double)(resident_kib() - before) / wanted,
                  (double)(clock_us() - answered) / 1e3);
    for (int i = 0; i < wanted; i++) {
        close(fds[i]);
    }
    free(fds);
}

static int64_t cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* No descriptor is left for the connections that wait: the loops must rest meanwhile, and take them afterwards. */
static void test_no_descriptors(void **state) {
    (void)state;
    enum { MANY = 8 };
    struct rlimit files, few;
    int           fds[MANY], held = client_connect(the.port); /* one that is there already goes on */
    char          body[256];
    say(held, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    read_reply(held, &r, false);
    assert_int_equal(r.status, 200);
    ask(&the, "whole", "before", false, &r);
    for (int i = 0; i < MANY; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fds[i] >= 0);
    }
    getrlimit(RLIMIT_NOFILE, &files);
    few = files;
    int next = dup(STDIN_FILENO); /* the lowest that is free */
    close(next);
    few.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    a.sin_port = htons((uint16_t)the.port);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(connect(fds[i], (struct sockaddr *)&a, sizeof a), 0);
        say(fds[i], "GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    int64_t began = cpu_us();
    nap(1500);
    int64_t spent = cpu_us() - began;
    send_post(held, CHAT, "", chat_body(body, sizeof body, "whole", "before", false)); /* from the cache */
    read_reply(held, &r, false);
    setrlimit(RLIMIT_NOFILE, &files);
    assert_int_equal(r.status, 200);
    assert_true(spent < 400000);
    for (int i = 0; i < MANY; i++) {
        reply_free(&r);
        read_reply(fds[i], &r, false);
        assert_int_equal(r.status, 200);
        close(fds[i]);
    }
    close(held);
}

int main(void) {
    CRYPTO_set_mem_functions(get_memory, more_memory, give_memory); /* before anybody uses OpenSSL */
#define T(f) cmocka_unit_test_setup_teardown(f, open_bed, close_bed)
    const struct CMUnitTest tests[] = {
        T(test_smuggling),
        T(test_hidden_behind_a_body),
        T(test_cors),
        T(test_strange_pages),
        T(test_no_descriptors),
        T(test_idle_connections),
        cmocka_unit_test_setup_teardown(test_tls, open_tls, close_tls),
        cmocka_unit_test_setup_teardown(test_dripped_handshake, open_quick_tls, close_tls),
        cmocka_unit_test_setup_teardown(test_tls_reader_leaves, open_tls, close_tls),
        cmocka_unit_test_setup_teardown(test_tls_next_request, open_tls, close_tls),
        cmocka_unit_test_setup_teardown(test_no_memory_for_tls, open_tls, close_tls),
        cmocka_unit_test(test_encrypted_key),
        cmocka_unit_test(test_tls_settings)};
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
