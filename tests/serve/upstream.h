/* upstream.h - a provider that does what its script says, well or badly: plain sockets, one thread a connection.
 *
 * A request names its script: "@name" anywhere in the body. Counters may be read at any time.                         */
#ifndef PARE_TESTS_UPSTREAM_H
#define PARE_TESTS_UPSTREAM_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/str.h"

typedef enum framing {
    LENGTH,     /* Content-Length */
    CHUNKED,    /* chunks of 50 bytes and the last one */
    UNENDED,    /* chunks without the last one */
    HALF_CHUNK, /* a chunk that promises more than comes */
    TOO_LONG,   /* a Content-Length that promises more than comes */
    BY_CLOSE,   /* the body ends with the connection */
    RAW         /* `head` is all that is sent */
} framing;

typedef enum ending { KEEP, CLOSE, RESET, HANG } ending; /* HANG: wait until the peer has closed */

struct upstream;

typedef struct script {
    const char *name;
    const char *head; /* "200 OK\r\nContent-Type: application/json" */
    const char *body;
    framing     framing;
    ending      ending;
    void (*run)(struct upstream *, int fd); /* instead of all that; then the connection closes */
} script;

typedef struct upstream {
    const script *scripts; /* the last has no name */
    int           fd, port;
    pthread_t     thread;
    atomic_int    stop, requests, connections, open;
    atomic_int    left; /* peers that closed while HANG or a run waited or wrote */
    atomic_int    sent; /* by runs: tokens */
} upstream;

static inline void nap(int ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
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

static inline bool say(int fd, const char *text) {
    return send_all(fd, text, strlen(text));
}

/* True as soon as the peer has closed; false after `ms`. */
static inline bool peer_left(const upstream *u, int fd, int ms) {
    for (int waited = 0; waited <= ms && !atomic_load(&u->stop); waited += 5) {
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
        if (poll(&p, 1, 5) > 0) {
            char byte;
            if (p.revents & (POLLHUP | POLLERR | POLLRDHUP) || recv(fd, &byte, 1, MSG_PEEK) <= 0) {
                return true;
            }
        }
    }
    return false;
}

static inline void reset_connection(int fd) {
    struct linger hard = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

static inline bool send_script(int fd, const script *s) {
    str    out = {0};
    size_t n = s->body ? strlen(s->body) : 0;
    if (s->framing == RAW) {
        return say(fd, s->head);
    }
    str_addf(&out, "HTTP/1.1 %s\r\n", s->head);
    if (s->framing == LENGTH || s->framing == TOO_LONG) {
        str_addf(&out, "Content-Length: %zu\r\n\r\n", s->framing == LENGTH ? n : n + 100);
        str_add(&out, s->body, n);
    } else if (s->framing == BY_CLOSE) {
        str_adds(&out, "Connection: close\r\n\r\n");
        str_add(&out, s->body, n);
    } else {
        str_adds(&out, "Transfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0; at < n; at += 50) {
            size_t part = n - at < 50 ? n - at : 50;
            bool   half = s->framing == HALF_CHUNK && at + part == n;
            str_addf(&out, "%zx\r\n", half ? part + 10 : part);
            str_add(&out, s->body + at, part);
            str_adds(&out, half ? "" : "\r\n");
        }
        str_adds(&out, s->framing == CHUNKED ? "0\r\n\r\n" : "");
    }
    bool ok = send_all(fd, out.data, out.len);
    str_free(&out);
    return ok;
}

/* The next request's body into `body`, which begins with what was left of the bytes before. */
static inline bool read_request(const upstream *u, int fd, str *in, str *body) {
    char   bytes[65536];
    size_t need = 0, head = 0;
    str_clear(body);
    for (;;) {
        char *end = in->data && !head ? memmem(in->data, in->len, "\r\n\r\n", 4) : NULL;
        if (end) {
            char *length = strcasestr(in->data, "content-length:");
            head = (size_t)(end - in->data) + 4;
            need = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
        }
        if (head && in->len >= head + need) {
            str rest = {0};
            str_add(body, in->data + head, need);
            str_add(&rest, in->data + head + need, in->len - head - need);
            str_free(in);
            *in = rest;
            return true;
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (atomic_load(&u->stop)) {
            return false;
        }
        if (poll(&p, 1, 20) > 0) {
            ssize_t k = recv(fd, bytes, sizeof bytes, 0);
            if (k <= 0) {
                return false;
            }
            str_add(in, bytes, (size_t)k);
        }
    }
}

static inline const script *script_of(const upstream *u, const str *body) {
    const char *name = body->data ? strchr(body->data, '@') : NULL;
    size_t      n = name ? strspn(name + 1, "abcdefghijklmnopqrstuvwxyz_0123456789") : 0;
    for (const script *s = u->scripts; name && s->name; s++) {
        if (strlen(s->name) == n && memcmp(s->name, name + 1, n) == 0) {
            return s;
        }
    }
    return NULL;
}

typedef struct upstream_connection {
    upstream *of;
    int       fd;
} upstream_connection;

/* The body of the request that a run answers. */
static _Thread_local const str *upstream_asked;

static inline void *serve_connection(void *arg) {
    upstream_connection *c = arg;
    upstream            *u = c->of;
    str                  in = {0}, body = {0};
    while (read_request(u, c->fd, &in, &body)) {
        const script *s = script_of(u, &body);
        atomic_fetch_add(&u->requests, 1);
        if (!s) {
            say(c->fd, "HTTP/1.1 418 No such script\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            break;
        }
        if (s->run) {
            upstream_asked = &body;
            s->run(u, c->fd);
            break;
        }
        send_script(c->fd, s);
        if (s->ending == RESET) {
            reset_connection(c->fd);
        } else if (s->ending == HANG && peer_left(u, c->fd, 1 << 30)) {
            atomic_fetch_add(&u->left, 1);
        }
        if (s->ending != KEEP) {
            break;
        }
    }
    str_free(&in);
    str_free(&body);
    close(c->fd);
    free(c);
    atomic_fetch_sub(&u->open, 1);
    return NULL;
}

static inline void *accept_connections(void *arg) {
    upstream *u = arg;
    while (!atomic_load(&u->stop)) {
        struct pollfd p = {.fd = u->fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) {
            continue;
        }
        int fd = accept(u->fd, NULL, NULL), one = 1;
        if (fd < 0) {
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        upstream_connection *c = calloc(1, sizeof *c);
        pthread_t            t;
        *c = (upstream_connection){.of = u, .fd = fd};
        atomic_fetch_add(&u->connections, 1);
        atomic_fetch_add(&u->open, 1);
        if (pthread_create(&t, NULL, serve_connection, c) == 0) {
            pthread_detach(t);
        } else {
            atomic_fetch_sub(&u->open, 1);
            close(fd);
            free(c);
        }
    }
    return NULL;
}

static inline bool upstream_start(upstream *u, const script *scripts) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof a;
    *u = (upstream){.scripts = scripts};
    u->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(u->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(u->fd, 1024) != 0 ||
        getsockname(u->fd, (struct sockaddr *)&a, &n) != 0) {
        return false;
    }
    u->port = ntohs(a.sin_port);
    return pthread_create(&u->thread, NULL, accept_connections, u) == 0;
}

static inline void upstream_stop(upstream *u) {
    atomic_store(&u->stop, 1);
    pthread_join(u->thread, NULL);
    while (atomic_load(&u->open) > 0) {
        nap(5);
    }
    close(u->fd);
}

/* ---- words that scripts say ---- */

#define JSON_HEAD "200 OK\r\nContent-Type: application/json"
#define SSE_HEAD  "200 OK\r\nContent-Type: text/event-stream"
#define WHOLE                                                                                                          \
    "{\"id\":\"c1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"gpt\",\"choices\":[{\"index\":0,"         \
    "\"message\":{\"role\":\"assistant\",\"content\":\"hello\"},\"finish_reason\":\"stop\"}],\"usage\":"               \
    "{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}"
#define DELTA(text)                                                                                                    \
    "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\",\"choices\":[{\"index\":0,"   \
    "\"delta\":{\"content\":\"" text "\"},\"finish_reason\":null}]}"
#define END_DELTA                                                                                                      \
    "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\",\"choices\":[{\"index\":0,"   \
    "\"delta\":{},\"finish_reason\":\"stop\"}]}"
#define USAGE_CHUNK                                                                                                    \
    "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\",\"choices\":[],\"usage\":"    \
    "{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}"
#define EVENT(json) "data: " json "\n\n"
#define DONE        "data: [DONE]\n\n"
#define GOOD_STREAM EVENT(DELTA("hel")) EVENT(DELTA("lo")) EVENT(END_DELTA) EVENT(USAGE_CHUNK) DONE

/* A token every 5 ms until the peer has closed. */
static inline void run_trickle(upstream *u, int fd) {
    say(fd, "HTTP/1.1 " SSE_HEAD "\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 4000 && !atomic_load(&u->stop); i++) {
        if (!say(fd, EVENT(DELTA("tok"))) || peer_left(u, fd, 0)) {
            atomic_fetch_add(&u->left, 1);
            return;
        }
        atomic_fetch_add(&u->sent, 1);
    }
}

#endif
