#include "serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/http.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/front.h"

#define DRAIN_US      10000000
#define STOP_US       3000000    /* for what is cancelled when that time is over */
#define MAX_BODY_READ (64 << 20) /* evhttp's bound; above 32 MiB client.c answers in JSON */

struct server {
    house       *house;
    front       *fronts;
    int         *sockets;
    pthread_t   *threads;
    int          loops, running, port;
    int64_t      started_us;
    _Atomic bool draining;
};

typedef struct front_task {
    loop_task task;
    front    *front;
    void (*run)(front *);
} front_task;

bool server_draining(const server *v) {
    return atomic_load_explicit((_Atomic bool *)&v->draining, memory_order_relaxed);
}

double server_uptime(const server *v) {
    return (double)(clock_us() - v->started_us) / 1e6;
}

int server_port(const server *v) {
    return v->port;
}

/* ---- sockets ---- */

static int open_socket(const struct addrinfo *ai) {
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* accepted sockets inherit it: tokens go out at once */
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static int port_of(int fd) {
    union {
        struct sockaddr     any;
        struct sockaddr_in  v4;
        struct sockaddr_in6 v6;
    } a = {.v6 = {0}};
    socklen_t n = sizeof a;
    if (getsockname(fd, &a.any, &n) != 0) {
        return 0;
    }
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

/* SO_REUSEPORT would let a second pare of the same user share the port silently: look first without it. */
static bool port_is_free(const struct addrinfo *ai) {
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) {
        return true;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bool is_free = bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 || errno != EADDRINUSE;
    close(fd);
    return is_free;
}

static bool open_sockets(server *v, const settings *s, err *e) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    char            port[16];
    snprintf(port, sizeof port, "%d", s->port);
    int code = getaddrinfo(s->address, port, &hints, &found);
    if (code != 0) {
        return err_set(e, ERR_INVALID, "The address %s cannot be used: %s.", s->address, gai_strerror(code));
    }
    bool ok =
        s->port == 0 || port_is_free(found) ||
        err_set(e, ERR_BUSY, "Port %d of %s is in use; stop the other program or choose another with --listen %s:PORT.",
                s->port, s->address, s->address);
    for (int i = 0; ok && i < v->loops; i++) {
        v->sockets[i] = open_socket(found);
        if (v->sockets[i] < 0) {
            ok = err_set(e, ERR_IO, "Cannot listen on %s:%d: %s.", s->address, s->port, strerror(errno));
        } else if (v->port == 0) {
            v->port = port_of(v->sockets[i]);
            if (found->ai_family == AF_INET6) { /* the other loops share the port that this one got */
                ((struct sockaddr_in6 *)found->ai_addr)->sin6_port = htons((uint16_t)v->port);
            } else {
                ((struct sockaddr_in *)found->ai_addr)->sin_port = htons((uint16_t)v->port);
            }
        }
    }
    freeaddrinfo(found);
    return ok;
}

/* ---- loops ---- */

static bool open_front(server *v, int i, err *e) {
    front *f = &v->fronts[i];
    f->server = v;
    f->house = v->house;
    f->next_id = (uint64_t)i << 56;
    f->loop = loop_new(i, e);
    if (!f->loop) {
        return false;
    }
    f->http = evhttp_new(loop_base(f->loop));
    f->scratch = evbuffer_new();
    if (!f->http || !f->scratch) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    evhttp_set_max_body_size(f->http, MAX_BODY_READ);
    evhttp_set_max_headers_size(f->http, 64 << 10);
    evhttp_set_timeout(f->http, IDLE_S);
    evhttp_set_allowed_methods(f->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
                                            EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
    evhttp_set_default_content_type(f->http, "application/json");
    evhttp_set_gencb(f->http, routes_handle, f);
    f->listener = evhttp_accept_socket_with_handle(f->http, v->sockets[i]);
    if (!f->listener) {
        return err_set(e, ERR_IO, "The listening socket could not be watched.");
    }
    v->sockets[i] = -1; /* evhttp closes it */
    return true;
}

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

server *server_open(house *h, const settings *s, err *e) {
    server *v = calloc(1, sizeof *v);
    if (!v) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    v->house = h;
    v->started_us = clock_us();
    v->loops = s->loops > 0 ? s->loops : cores();
    v->loops = v->loops > 64 ? 64 : v->loops;
    v->fronts = calloc((size_t)v->loops, sizeof *v->fronts);
    v->sockets = calloc((size_t)v->loops, sizeof *v->sockets);
    v->threads = calloc((size_t)v->loops, sizeof *v->threads);
    if (!v->fronts || !v->sockets || !v->threads) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        v->loops = 0;
        server_close(v);
        return NULL;
    }
    for (int i = 0; i < v->loops; i++) {
        v->sockets[i] = -1;
    }
    bool ok = open_sockets(v, s, e);
    for (int i = 0; ok && i < v->loops; i++) {
        ok = open_front(v, i, e);
    }
    if (!ok) {
        server_close(v);
        return NULL;
    }
    h->gateway.live = live_row;
    return v;
}

static void *run_loop(void *arg) {
    front *f = arg;
    err    why = {0};
    if (!loop_run(f->loop, &why)) {
        log_error("an event loop ended: %s", why.text);
    }
    return NULL;
}

static void run_front_task(loop_task *task) {
    front_task *t = (front_task *)task;
    t->run(t->front);
    free(t);
}

static void on_every_loop(server *v, void (*run)(front *)) {
    for (int i = 0; i < v->loops; i++) {
        front_task *t = calloc(1, sizeof *t);
        if (t) {
            *t = (front_task){.task.run = run_front_task, .front = &v->fronts[i], .run = run};
            loop_post(v->fronts[i].loop, &t->task);
        }
    }
}

static void drain_front(front *f) {
    evhttp_del_accept_socket(f->http, f->listener);
    f->listener = NULL;
    live_close_all(f);
}

static int open_exchanges(const server *v) {
    int n = 0;
    for (int i = 0; i < v->loops; i++) {
        n += atomic_load(&v->fronts[i].open);
    }
    return n;
}

static void wait_until_quiet(const server *v, int64_t limit_us) {
    int64_t until = clock_us() + limit_us;
    while (open_exchanges(v) > 0 && clock_us() < until) {
        usleep(10000);
    }
}

static void drain(server *v, int64_t limit_us) {
    atomic_store(&v->draining, true);
    on_every_loop(v, drain_front);
    wait_until_quiet(v, limit_us);
    if (open_exchanges(v) > 0) {
        on_every_loop(v, client_stop_all);
        wait_until_quiet(v, STOP_US);
    }
    usleep(20000); /* the small answers that nobody counts */
}

static sigset_t end_signals(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    return signals;
}

void server_block_signals(void) {
    sigset_t signals = end_signals();
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

static void end_loops(server *v) {
    for (int i = 0; i < v->running; i++) {
        loop_stop(v->fronts[i].loop);
    }
    for (int i = 0; i < v->running; i++) {
        pthread_join(v->threads[i], NULL);
    }
    v->running = 0;
}

bool server_start(server *v, err *e) {
    while (v->running < v->loops) {
        if (pthread_create(&v->threads[v->running], NULL, run_loop, &v->fronts[v->running]) != 0) {
            end_loops(v);
            return err_set(e, ERR_IO, "A thread could not be started.");
        }
        v->running++;
    }
    return true;
}

void server_stop(server *v, int64_t drain_us) {
    if (v->running > 0) {
        if (drain_us >= 0) {
            drain(v, drain_us);
        }
        end_loops(v);
    }
}

bool server_run(server *v, err *e) {
    sigset_t signals = end_signals();
    int      which = 0;
    if (!server_start(v, e)) {
        return false;
    }
    sigwait(&signals, &which);
    log_info("%s: finishing what runs", which == SIGINT ? "interrupted" : "asked to end");
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* a second one ends at once */
    server_stop(v, DRAIN_US);
    return true;
}

void server_close(server *v) {
    if (!v) {
        return;
    }
    for (int i = 0; v->fronts && i < v->loops; i++) {
        front *f = &v->fronts[i];
        if (f->live_timer) {
            event_free(f->live_timer);
        }
        if (f->http) {
            evhttp_free(f->http);
        }
        client_drop_all(f);
        str_free(&f->text);
        if (f->scratch) {
            evbuffer_free(f->scratch);
        }
        if (f->loop) {
            loop_free(f->loop);
        }
        if (v->sockets[i] >= 0) {
            close(v->sockets[i]);
        }
    }
    free(v->fronts);
    free(v->sockets);
    free(v->threads);
    free(v);
}
