/* download_server.h - a server of files that behaves as its rules say, well or badly: plain sockets, one thread a
 * connection, one request a connection. Counters may be read at any time.                                            */
#ifndef PARE_TESTS_DOWNLOAD_SERVER_H
#define PARE_TESTS_DOWNLOAD_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

typedef struct rule {
    const char *path;                 /* a last '*' stands for anything */
    const char *etag;                 /* with its quotes */
    const char *text;                 /* the body, instead of the server's file */
    const char *extra;                /* header lines, each with its \r\n */
    const char *location;             /* '#' stands for the port */
    int         status, status_times; /* so often instead of the body; 0 times: always */
    int64_t     cut;                  /* the connection closes after so many bytes of a body ... */
    int         cut_times;            /* ... so often; 0: always */
    int64_t     shift;                /* Content-Range begins so much later than asked */
    int64_t     total_add;            /* Content-Range's size is so much too large, times the request's number, ... */
    int         total_after;          /* ... from this request on */
    int64_t     length_add;           /* Content-Length is so much too large (or too small) */
    int64_t     cap;                  /* no part is longer */
    int         second_after;         /* from this request on the server's second file, under another ETag */
    int         slow_us;              /* a pause after every 16 KiB */
    bool        no_range, claims_range, bare, chunked, chunked_cut, too_much, silent;
    bool        rationed; /* connections close when the server's ration is used up */
} rule;

typedef struct server {
    const rule  *rules; /* the last has no path */
    int          fd, port;
    char        *file, *second;
    int64_t      size;
    pthread_t    thread;
    atomic_int   stop, requests, open, most_open, authorized, ranged, if_ranged;
    atomic_int   seen[64];                     /* requests by rule */
    atomic_llong ration, sent;                 /* bytes of bodies */
    char         authorization[128], host[64]; /* of the last request that had one */
} server;

typedef struct http_request {
    char    path[1024], if_range[256];
    int64_t from, to; /* -1: not said */
} http_request;

static inline void nap_us(int us) {
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

static inline bool send_all(int fd, const char *bytes, size_t n) {
    while (n > 0) {
        ssize_t k = send(fd, bytes, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return false;
        }
        bytes += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool head_value(const char *head, const char *name, char *out, size_t size) {
    const char *p = strcasestr(head, name);
    out[0] = '\0';
    if (p) {
        p += strlen(name);
        p += strspn(p, " ");
        snprintf(out, size, "%.*s", (int)strcspn(p, "\r\n"), p);
    }
    return p != NULL;
}

static inline bool read_head(server *v, int fd, http_request *q) {
    char   head[8192] = "", value[256];
    size_t n = 0;
    while (!strstr(head, "\r\n\r\n")) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (atomic_load(&v->stop) || n + 1 >= sizeof head) {
            return false;
        }
        if (poll(&p, 1, 20) > 0) {
            ssize_t k = recv(fd, head + n, sizeof head - n - 1, 0);
            if (k <= 0) {
                return false;
            }
            n += (size_t)k;
            head[n] = '\0';
        }
    }
    *q = (http_request){.from = -1, .to = -1};
    if (sscanf(head, "GET %1023s HTTP/1.1", q->path) != 1) {
        return false;
    }
    if (head_value(head, "\r\nrange:", value, sizeof value)) {
        long long from = -1, to = -1;
        sscanf(value, "bytes=%lld-%lld", &from, &to);
        q->from = from;
        q->to = to;
        atomic_fetch_add(&v->ranged, 1);
    }
    if (head_value(head, "\r\nif-range:", q->if_range, sizeof q->if_range)) {
        atomic_fetch_add(&v->if_ranged, 1);
    }
    if (head_value(head, "\r\nauthorization:", value, sizeof value)) {
        atomic_fetch_add(&v->authorized, 1);
        snprintf(v->authorization, sizeof v->authorization, "%.120s", value);
        head_value(head, "\r\nhost:", v->host, sizeof v->host);
    }
    return true;
}

static inline const rule *rule_of(const server *v, const char *path) {
    for (const rule *r = v->rules; r->path; r++) {
        size_t n = strlen(r->path);
        bool   any = n > 0 && r->path[n - 1] == '*';
        if (any ? strncmp(r->path, path, n - 1) == 0 : strcmp(r->path, path) == 0) {
            return r;
        }
    }
    return NULL;
}

static inline void send_body(server *v, int fd, const rule *r, const char *bytes, int64_t n, bool cut) {
    int64_t end = cut && r->cut < n ? r->cut : n;
    for (int64_t at = 0; at < end && !atomic_load(&v->stop);) {
        char    size[32];
        int64_t part = end - at < 16384 ? end - at : 16384;
        if (r->rationed && atomic_fetch_sub(&v->ration, part) < part) {
            return;
        }
        if (r->chunked) {
            snprintf(size, sizeof size, "%llx\r\n", (long long)part);
            send_all(fd, size, strlen(size));
        }
        if (!send_all(fd, bytes + at, (size_t)part)) {
            return;
        }
        if (r->chunked) {
            send_all(fd, "\r\n", 2);
        }
        at += part;
        atomic_fetch_add(&v->sent, part);
        if (r->slow_us) {
            nap_us(r->slow_us);
        }
    }
    if (r->too_much) {
        send_all(fd, r->chunked ? "4\r\nmore\r\n" : "more", r->chunked ? 9 : 4);
    }
    if (r->chunked && !cut && !r->chunked_cut) {
        send_all(fd, "0\r\n\r\n", 5);
    }
}

static inline void answer_file(server *v, int fd, const rule *r, const http_request *q, int nth) {
    bool        second = r->second_after && nth >= r->second_after;
    const char *file = r->text ? r->text : second ? v->second : v->file, *etag = second ? "\"second\"" : r->etag;
    int64_t     size = r->text ? (int64_t)strlen(r->text) : v->size, first = 0, last = size - 1;
    bool        same = !q->if_range[0] || (etag && strcmp(q->if_range, etag) == 0);
    bool        part = q->from >= 0 && !r->no_range && same && !r->text;
    char        head[2048];
    int         n;
    if (part) {
        first = q->from;
        last = q->to >= 0 && q->to < size ? q->to : size - 1;
        if (first >= size) {
            n = snprintf(
                head, sizeof head,
                "HTTP/1.1 416 No\r\nContent-Range: bytes */%lld\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                (long long)size);
            send_all(fd, head, (size_t)n);
            return;
        }
        last = r->cap && last - first >= r->cap ? first + r->cap - 1 : last;
    }
    n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nConnection: close\r\n%s", part ? "206 Part" : "200 OK",
                 r->extra ? r->extra : "");
    if (etag) {
        n += snprintf(head + n, sizeof head - (size_t)n, "ETag: %s\r\n", etag);
    }
    if (!r->bare && !r->chunked) {
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %lld\r\n",
                      (long long)(last - first + 1 + r->length_add));
    }
    if (r->chunked) {
        n += snprintf(head + n, sizeof head - (size_t)n, "Transfer-Encoding: chunked\r\n");
    }
    if (part) {
        int64_t total = size + (nth >= r->total_after ? r->total_add * nth : 0);
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Range: bytes %lld-%lld/%lld\r\n",
                      (long long)(first + r->shift), (long long)(last + r->shift), (long long)total);
    }
    if (r->claims_range) {
        n += snprintf(head + n, sizeof head - (size_t)n, "Accept-Ranges: bytes\r\n");
    }
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    send_all(fd, head, (size_t)n);
    send_body(v, fd, r, file + first, last - first + 1, r->cut && (!r->cut_times || nth <= r->cut_times));
}

static inline void answer(server *v, int fd, const http_request *q) {
    const rule *r = rule_of(v, q->path);
    char        head[2048];
    int         nth = r && r - v->rules < 64 ? atomic_fetch_add(&v->seen[r - v->rules], 1) + 1 : 1;
    if (r && r->silent) {
        while (!atomic_load(&v->stop)) {
            char          byte;
            struct pollfd p = {.fd = fd, .events = POLLIN};
            if (poll(&p, 1, 20) > 0 && recv(fd, &byte, 1, MSG_PEEK) <= 0) {
                return;
            }
        }
        return;
    }
    int status = !r ? 404 : r->status && (!r->status_times || nth <= r->status_times) ? r->status : 200;
    if (status == 200) {
        answer_file(v, fd, r, q, nth);
        return;
    }
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d Said\r\nConnection: close\r\nContent-Length: 6\r\n%s", status,
                     r && r->extra ? r->extra : "");
    if (r && r->location) {
        int         prefix = (int)strcspn(r->location, "#");
        const char *rest = r->location + prefix;
        char        port[16] = "";
        if (*rest == '#') {
            snprintf(port, sizeof port, "%d", v->port);
            rest++;
        }
        n += snprintf(head + n, sizeof head - (size_t)n, "Location: %.*s%s%s\r\n", prefix, r->location, port, rest);
    }
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\nsorry\n");
    send_all(fd, head, (size_t)n);
}

typedef struct server_connection {
    server *of;
    int     fd;
} server_connection;

static inline void *serve_connection(void *arg) {
    server_connection *c = arg;
    server            *v = c->of;
    http_request       q;
    if (read_head(v, c->fd, &q)) {
        atomic_fetch_add(&v->requests, 1);
        answer(v, c->fd, &q);
    }
    shutdown(c->fd, SHUT_WR);
    close(c->fd);
    free(c);
    atomic_fetch_sub(&v->open, 1);
    return NULL;
}

static inline void *accept_connections(void *arg) {
    server *v = arg;
    while (!atomic_load(&v->stop)) {
        struct pollfd p = {.fd = v->fd, .events = POLLIN};
        int           fd = poll(&p, 1, 20) > 0 ? accept4(v->fd, NULL, NULL, SOCK_CLOEXEC) : -1;
        pthread_t     t;
        if (fd < 0) {
            continue;
        }
        server_connection *c = malloc(sizeof *c);
        *c = (server_connection){v, fd};
        int open = atomic_fetch_add(&v->open, 1) + 1, most = atomic_load(&v->most_open);
        while (open > most && !atomic_compare_exchange_weak(&v->most_open, &most, open)) {
        }
        if (pthread_create(&t, NULL, serve_connection, c) == 0) {
            pthread_detach(t);
        } else {
            atomic_fetch_sub(&v->open, 1);
            close(fd);
            free(c);
        }
    }
    return NULL;
}

static inline void fill_file(char *file, int64_t size, uint64_t seed) {
    for (int64_t i = 0; i < size; i++) {
        file[i] = (char)test_random(&seed);
    }
    memcpy(file, "GGUF", 4);
}

static inline bool server_start(server *v, const rule *rules, int64_t size) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof a;
    memset(v, 0, sizeof *v);
    v->rules = rules;
    v->size = size;
    v->file = malloc((size_t)size);
    v->second = malloc((size_t)size);
    fill_file(v->file, size, 1);
    fill_file(v->second, size, 2);
    v->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(v->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(v->fd, 256) != 0 ||
        getsockname(v->fd, (struct sockaddr *)&a, &n) != 0) {
        return false;
    }
    v->port = ntohs(a.sin_port);
    return pthread_create(&v->thread, NULL, accept_connections, v) == 0;
}

/* Waits until all connections have ended: then the texts may be read. */
static inline void server_quiet(server *v) {
    while (atomic_load(&v->open) > 0) {
        nap_us(1000);
    }
}

/* Forgets what was counted. */
static inline void server_clear(server *v) {
    server_quiet(v);
    for (int i = 0; i < 64; i++) {
        atomic_store(&v->seen[i], 0);
    }
    atomic_store(&v->requests, 0);
    atomic_store(&v->most_open, 0);
    atomic_store(&v->authorized, 0);
    atomic_store(&v->ranged, 0);
    atomic_store(&v->if_ranged, 0);
    atomic_store(&v->sent, 0);
    v->authorization[0] = v->host[0] = '\0';
}

static inline void server_stop(server *v) {
    atomic_store(&v->stop, 1);
    pthread_join(v->thread, NULL);
    server_quiet(v);
    close(v->fd);
    free(v->file);
    free(v->second);
}

#endif
