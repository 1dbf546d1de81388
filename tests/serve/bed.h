/* bed.h - a whole house and server in this process on a free port, and clients that speak HTTP byte by byte. */
#ifndef PARE_TESTS_BED_H
#define PARE_TESTS_BED_H

#include "check.h"

#include <ftw.h>
#include <signal.h>
#include <sqlite3.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/server.h"
#include "stage/counters.h"
#include "upstream.h"

typedef struct bed {
    char        dir[64];
    settings   *settings;
    house      *house;
    server     *server;
    upstream    up;
    int         port;
    bool        with_model;  /* the bundled one besides; set before bed_open */
    const char *model_line;  /* or models as these lines say; set before bed_open */
    const char *price_lines; /* further prices; NULL: none */
} bed;

/* Waits for `condition`, at most 10 seconds (sanitizers are slow); the assertion behind it tells. */
#define until(condition)                                                                                               \
    for (int64_t until_ = clock_us() + 10000000; !(condition) && clock_us() < until_;) {                               \
        nap(2);                                                                                                        \
    }

static inline void bed_write_config(const bed *b, const char *path, const char *more) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "listen: 127.0.0.1:0\ndata: %s\nloops: 2\nthreads: 1\nlog: {level: off}\n"
            "models:\n  m: {backend: up, model: gpt, retries: 0}\n%s"
            "prices:\n  gpt: {input: 1, output: 2}\n%s"
            "backends:\n  up:\n    base_url: http://127.0.0.1:%d/v1\n"
            "    timeouts: {connect: 2s, first: 1500ms, between: 1s, total: 4s}\n"
            "  second: {base_url: http://127.0.0.1:%d/v1}\n"
            "  two_keys: {base_url: http://127.0.0.1:%d/v1, api_keys: [k1, {key: k2, weight: 2}]}\n"
            "  anthropic: {dialect: anthropic, base_url: http://127.0.0.1:%d}\n"
            "  gemini: {dialect: gemini, base_url: http://127.0.0.1:%d/v1beta}\n"
            "  cohere: {dialect: cohere, base_url: http://127.0.0.1:%d}\n%s",
            b->dir,
            b->model_line   ? b->model_line
            : b->with_model ? "  storyteller: {file: bundled}\n"
                            : "",
            b->price_lines ? b->price_lines : "", b->up.port, b->up.port, b->up.port, b->up.port, b->up.port,
            b->up.port, more);
    fclose(f);
}

/* The settings from the bed's file again, for reloads. */
static inline settings *bed_read_again(void *ctx, err *e) {
    const bed *b = ctx;
    char       path[128];
    snprintf(path, sizeof path, "%s/pare.yaml", b->dir);
    settings *s = settings_new(e);
    if (s && (!settings_read(s, path, e) || !settings_check(s, e))) {
        settings_free(s);
        return NULL;
    }
    return s;
}

/* `more`: further YAML at the root. */
static inline void bed_open_with(bed *b, const script *scripts, const char *more) {
    err  e = {0};
    char path[128];
    *b = (bed){.dir = "/tmp/pare-serve-XXXXXX",
               .with_model = b->with_model,
               .model_line = b->model_line,
               .price_lines = b->price_lines};
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_OFF, false);
    assert_non_null(mkdtemp(b->dir));
    assert_true(upstream_start(&b->up, scripts));
    snprintf(path, sizeof path, "%s/pare.yaml", b->dir);
    bed_write_config(b, path, more);
    b->settings = settings_new(&e);
    assert_ok(b->settings, e);
    assert_ok(settings_read(b->settings, path, &e), e);
    assert_ok(settings_check(b->settings, &e), e);
    b->house = house_open(b->settings, NULL, &e);
    assert_ok(b->house, e);
    b->server = server_open(b->house, bed_read_again, b, &e);
    assert_ok(b->server, e);
    assert_ok(server_start(b->server, &e), e);
    b->port = server_port(b->server);
}

static inline void bed_open(bed *b, const script *scripts) {
    bed_open_with(b, scripts, "");
}

static inline void bed_stop(bed *b, int64_t drain_us) {
    if (b->server) {
        server_stop(b->server, drain_us);
        house_stop(b->house);
        server_close(b->server);
        house_close(b->house);
        upstream_stop(&b->up);
        b->server = NULL;
    }
}

static inline int remove_one(const char *path, const struct stat *s, int kind, struct FTW *at) {
    (void)s;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline void bed_close(bed *b) {
    bed_stop(b, 5000000);
    settings_free(b->settings);
    nftw(b->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline int64_t in_flight(const bed *b) {
    str out = {0};
    counters_write(b->house->counters, &out);
    const char *at = strstr(out.data, "\npare_requests_in_flight ");
    int64_t     n = at ? atoll(at + strlen("\npare_requests_in_flight ")) : -1;
    str_free(&out);
    return n;
}

static inline int64_t ledger_count(const bed *b) { /* written or about to be */
    db_stats s;
    db_stats_read(b->house->db, &s);
    return s.rows_written + s.rows_waiting;
}

/* One number from the ledger of a stopped bed. */
static inline int64_t ledger_number(const bed *b, const char *sql) {
    char          path[128];
    sqlite3      *c = NULL;
    sqlite3_stmt *s = NULL;
    int64_t       n = -1;
    snprintf(path, sizeof path, "%s/pare.db", b->dir);
    if (sqlite3_open_v2(path, &c, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(c, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW) {
        n = sqlite3_column_int64(s, 0);
    }
    sqlite3_finalize(s);
    sqlite3_close(c);
    return n;
}

/* ---- a client ---- */

typedef struct reply {
    int  status; /* 0: nothing that is HTTP came */
    str  head, body;
    str  rest;     /* bytes behind this reply */
    bool complete; /* ended as its framing says */
    bool closed;   /* the server has closed the connection */
} reply;

static inline void reply_free(reply *r) {
    str_free(&r->head);
    str_free(&r->body);
    str_free(&r->rest);
    *r = (reply){0};
}

static inline int client_connect(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    a.sin_port = htons((uint16_t)port);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* More bytes into `in`: false when the peer has closed or nothing came for 10 seconds. */
static inline bool receive(int fd, str *in) {
    static _Thread_local char bytes[65536];
    struct pollfd             p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 10000) <= 0) {
        return false;
    }
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    return n > 0 && str_add(in, bytes, (size_t)n);
}

/* A header of the reply into out; false when it is not there. */
static inline bool header_of(const reply *r, const char *name, char *out, size_t size) {
    size_t n = strlen(name);
    for (const char *line = r->head.data; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            snprintf(out, size, "%.*s", (int)strcspn(line + n + 2, "\r\n"), line + n + 2);
            return true;
        }
    }
    return false;
}

static inline bool has_header(const reply *r, const char *name, const char *value) {
    char found[512];
    return header_of(r, name, found, sizeof found) && strcasecmp(found, value) == 0;
}

/* Chunks from `in` at *at into the body: 1 ended, 0 more is needed, -1 malformed. */
static inline int take_chunks(str *body, const str *in, size_t *at) {
    for (;;) {
        char *line_end = memmem(in->data + *at, in->len - *at, "\r\n", 2);
        if (!line_end) {
            return 0;
        }
        char  *end;
        size_t n = strtoul(in->data + *at, &end, 16), from = (size_t)(line_end - in->data) + 2;
        if (end != line_end) {
            return -1;
        }
        if (in->len < from + n + 2) {
            return 0;
        }
        str_add(body, in->data + from, n);
        *at = from + n + 2;
        if (n == 0) {
            return 1;
        }
    }
}

static inline bool read_head(int fd, reply *r, str *in) {
    char *end;
    while (!in->data || !(end = memmem(in->data, in->len, "\r\n\r\n", 4))) {
        if (!receive(fd, in)) {
            r->closed = true;
            return false;
        }
    }
    size_t n = (size_t)(end - in->data) + 4;
    str_clear(&r->head);
    str_add(&r->head, in->data, n);
    memmove(in->data, in->data + n, in->len - n);
    in->len -= n;
    in->data[in->len] = '\0';
    return sscanf(r->head.data, "HTTP/1.%*d %d", &r->status) == 1;
}

/* Reads one reply; begins with r->rest, which holds what came behind the one before. `bodyless`: to a HEAD. */
static inline void read_reply(int fd, reply *r, bool bodyless) {
    str  in = r->rest;
    char value[64];
    str_free(&r->head);
    str_free(&r->body);
    *r = (reply){0};
    do { /* 100 Continue is not the reply */
        if (!read_head(fd, r, &in)) {
            r->rest = in;
            return;
        }
    } while (r->status == 100);
    size_t at = 0;
    if (bodyless || r->status == 204) {
        r->complete = true;
    } else if (has_header(r, "Transfer-Encoding", "chunked")) {
        int done;
        while ((done = take_chunks(&r->body, &in, &at)) == 0 && receive(fd, &in)) {
        }
        r->complete = done == 1;
        r->closed = done == 0;
    } else if (header_of(r, "Content-Length", value, sizeof value)) {
        size_t n = strtoul(value, NULL, 10);
        while (in.len < n && receive(fd, &in)) {
        }
        r->complete = in.len >= n;
        at = r->complete ? n : in.len;
        str_add(&r->body, in.data ? in.data : "", at);
    } else {
        while (receive(fd, &in)) {
        }
        at = in.len;
        str_add(&r->body, in.data ? in.data : "", at);
        r->complete = r->closed = true;
    }
    str_add(&r->rest, in.data ? in.data + at : "", in.len - at);
    str_free(&in);
}

static inline bool send_post(int fd, const char *path, const char *headers, const char *body) {
    str out = {0};
    str_addf(&out, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n",
             path, strlen(body), headers);
    str_adds(&out, body);
    bool ok = !out.failed && send_all(fd, out.data, out.len);
    str_free(&out);
    return ok;
}

#define CHAT "/v1/chat/completions"

/* A chat request that runs script @name at the upstream; `salt` makes it another question. */
static inline char *chat_body(char *out, size_t size, const char *name, const char *salt, bool stream) {
    snprintf(out, size, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"@%s %s\"}]%s}", name, salt,
             stream ? ",\"stream\":true" : "");
    return out;
}

static inline void post(int port, const char *path, const char *headers, const char *body, reply *r) {
    int fd = client_connect(port);
    reply_free(r);
    if (fd >= 0) {
        send_post(fd, path, headers, body);
        read_reply(fd, r, false);
        close(fd);
    }
}

static inline void ask(const bed *b, const char *name, const char *salt, bool stream, reply *r) {
    char body[1024];
    post(b->port, CHAT, "", chat_body(body, sizeof body, name, salt, stream), r);
}

static inline bool body_has(const reply *r, const char *part) {
    return r->body.data && strstr(r->body.data, part) != NULL;
}

static inline bool answered_by(const reply *r, const char *who) {
    return has_header(r, "x-pare-answered-by", who);
}

#endif
