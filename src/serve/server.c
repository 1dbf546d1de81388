#include "serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
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
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/door.h"
#include "serve/front.h"
#include "serve/intake.h"
#include "serve/slow.h"
#include "stage/shared.h"

#define STOP_US       3000000    /* for what is cancelled when that time is over */
#define MAX_BODY_READ (64 << 20) /* evhttp's bound; above 32 MiB client.c answers in JSON */

#define PAUSE_US    100000   /* before a listener tries again that got no descriptor */
#define COMPLAIN_US 10000000 /* between two words about that */

#define MAX_LOOPS 64

typedef struct flush {
    loop_task    task;
    _Atomic int *left;
} flush;

struct server {
    house       *house;
    front       *fronts;
    int         *sockets;
    pthread_t   *threads;
    int          loops, running, port;
    keeper      *keeper;
    int64_t      started_us;
    _Atomic bool draining;
    _Atomic bool looping;            /* the loops run what is posted to them */
    flush        flushes[MAX_LOOPS]; /* here, because a loop that ends may leave them in its mailbox */
    _Atomic int  unflushed;
};

typedef struct front_task {
    loop_task task;
    front    *front;
    void (*run)(front *);
} front_task;

bool server_draining(const server *v) {
    return atomic_load_explicit((_Atomic bool *)&v->draining, memory_order_relaxed);
}

struct keeper *server_keeper(const server *v) {
    return v->keeper;
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

/* A new connection, of which evhttp sets the socket. */
static struct bufferevent *accept_connection(struct event_base *base, void *arg) {
    front              *f = arg;
    tls                *t = f->now->tls;
    struct bufferevent *b = t ? tls_accept(t, base) : bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (b && !t) {
        intake_watch(b);
    }
    if (b) {
        slow_watch(b);
        door_watch(b);
    }
    return b;
}

/* ---- when the system gives no more descriptors ---- */

/* libevent's callback carries evhttp's own pointer. */
static _Thread_local front *mine;

/* The connection that could not be accepted is still there, and so the listener would be called again and again. */
static void on_accept_error(struct evconnlistener *listener, void *arg) {
    (void)arg;
    int            why = errno;
    struct timeval tv = {.tv_usec = PAUSE_US};
    front         *f = mine;
    if (!f) {
        return;
    }
    evconnlistener_disable(listener);
    evtimer_add(f->pause, &tv);
    int64_t now = clock_us();
    if (f->complained_us == 0 || now - f->complained_us >= COMPLAIN_US) {
        f->complained_us = now;
        log_error("connections cannot be accepted: %s; those that wait are tried again%s", strerror(why),
                  why == EMFILE || why == ENFILE ? " (raise the limit of open files?)" : "");
    }
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    front *f = arg;
    if (f->listener) {
        evconnlistener_enable(evhttp_bound_socket_get_listener(f->listener));
    }
}

static bool open_front(server *v, int i, err *e) {
    front *f = &v->fronts[i];
    f->server = v;
    f->house = v->house;
    f->now = house_now(v->house);
    f->slow = slow_new(0);
    f->door = door_new(f);
    f->next_id = (uint64_t)i << 56;
    f->loop = loop_new(i, e);
    if (!f->loop) {
        return false;
    }
    if (!shared_begin(v->house->shared, f->loop, e)) {
        return false;
    }
    f->http = evhttp_new(loop_base(f->loop));
    f->scratch = evbuffer_new();
    f->pause = evtimer_new(loop_base(f->loop), on_pause_over, f);
    if (!f->http || !f->scratch || !f->slow || !f->door || !f->pause) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    evhttp_set_max_body_size(f->http, MAX_BODY_READ);
    evhttp_set_max_headers_size(f->http, 64 << 10);
    evhttp_set_timeout(f->http, IDLE_S);
    evhttp_set_allowed_methods(f->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
                                            EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
    evhttp_set_default_content_type(f->http, NULL); /* every answer with a body says its own */
    evhttp_set_gencb(f->http, routes_handle, f);
    evhttp_set_bevcb(f->http, accept_connection, f);
    f->listener = evhttp_accept_socket_with_handle(f->http, v->sockets[i]);
    if (!f->listener) {
        return err_set(e, ERR_IO, "The listening socket could not be watched.");
    }
    evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(f->listener), on_accept_error);
    v->sockets[i] = -1; /* evhttp closes it */
    return true;
}

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* As many connections as the system lets us have. */
static void raise_files(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

server *server_open(house *h, settings_reader read, void *ctx, err *e) {
    const settings *s = h->now->settings; /* nobody changes it before the server runs */
    server         *v = calloc(1, sizeof *v);
    if (!v) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    v->house = h;
    v->started_us = clock_us();
    raise_files();
    v->loops = s->loops > 0 ? s->loops : cores();
    v->loops = v->loops > MAX_LOOPS ? MAX_LOOPS : v->loops;
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
    ok = ok && (v->keeper = keeper_start(v, h, read, ctx, e)) != NULL;
    if (!ok) {
        server_close(v);
        return NULL;
    }
    h->live = h->now->gateway.live = live_row;
    return v;
}

static void *run_loop(void *arg) {
    front *f = arg;
    err    why = {0};
    mine = f;
    slow_here(f->slow);
    door_here(f->door);
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

void front_drop(front *f, generation *g) {
    if (!generation_drop(g)) {
        return;
    }
    if (f->server->keeper) {
        keeper_retire(f->server->keeper, g);
    } else { /* the server is being closed: nothing runs any more */
        generation_free(g);
    }
}

typedef struct adoption {
    loop_task   task;
    front      *front;
    generation *next;
} adoption;

static void run_adoption(loop_task *task) {
    adoption   *a = (adoption *)task;
    generation *was = a->front->now;
    a->front->now = a->next;
    front_drop(a->front, was);
    free(a);
}

void server_adopt(server *v, generation *g) {
    for (int i = 0; i < v->loops; i++) {
        adoption *a = malloc(sizeof *a);
        if (a) { /* else this loop goes on with the one before */
            *a = (adoption){.task.run = run_adoption, .front = &v->fronts[i], .next = generation_hold(g)};
            loop_post(v->fronts[i].loop, &a->task);
        }
    }
    front_drop(&v->fronts[0], g);
}

static void run_flush(loop_task *task) {
    atomic_fetch_sub(((flush *)task)->left, 1);
}

void server_flush(server *v) {
    if (!atomic_load(&v->looping)) {
        return;
    }
    atomic_store(&v->unflushed, v->loops);
    for (int i = 0; i < v->loops; i++) {
        v->flushes[i] = (flush){.task.run = run_flush, .left = &v->unflushed};
        loop_post(v->fronts[i].loop, &v->flushes[i].task);
    }
    while (atomic_load(&v->unflushed) > 0 && atomic_load(&v->looping)) {
        usleep(1000);
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
    sigaddset(&signals, SIGHUP);
    return signals;
}

void server_block_signals(void) {
    sigset_t signals = end_signals();
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

/* `looping` is true until the last thread has ended: the keeper, which frees what a loop has let go of, waits that long. */
static void end_loops(server *v) {
    for (int i = 0; i < v->running; i++) {
        loop_stop(v->fronts[i].loop);
    }
    for (int i = 0; i < v->running; i++) {
        pthread_join(v->threads[i], NULL);
    }
    v->running = 0;
    atomic_store(&v->looping, false);
    atomic_store(&v->house->closing, true);
    keeper_stop(v->keeper);
    v->keeper = NULL;
}

bool server_start(server *v, err *e) {
    atomic_store(&v->looping, true);
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
    while (sigwait(&signals, &which) != 0 || which == SIGHUP) {
        keeper_reload(v->keeper, NULL, NULL);
    }
    log_info("%s: finishing what runs", which == SIGINT ? "interrupted" : "asked to end");
    sigdelset(&signals, SIGHUP);                  /* which would end us too, and means something else */
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* a second one ends at once */
    generation *now = house_now(v->house);
    int64_t     drain_us = now->settings->drain_us;
    front_drop(&v->fronts[0], now);
    server_stop(v, drain_us);
    return true;
}

/* The loops' memory stays for now: what an older generation has left there (a group's timers) is freed by whichever loop
 * drops it last. */
static void close_front(front *f) {
    if (f->live_timer) {
        event_free(f->live_timer);
    }
    if (f->pause) {
        event_free(f->pause);
    }
    if (f->http) {
        evhttp_free(f->http);
    }
    client_drop_all(f);
    str_free(&f->text);
    if (f->scratch) {
        evbuffer_free(f->scratch);
    }
    slow_free(f->slow);
    door_free(f->door);
    if (f->now && generation_drop(f->now)) {
        generation_free(f->now);
    }
}

void server_close(server *v) {
    if (!v) {
        return;
    }
    keeper_stop(v->keeper);
    v->keeper = NULL;
    for (int i = 0; v->fronts && i < v->loops; i++) {
        close_front(&v->fronts[i]);
    }
    for (int i = 0; v->fronts && i < v->loops; i++) {
        loop_free(v->fronts[i].loop);
        if (v->sockets[i] >= 0) {
            close(v->sockets[i]);
        }
    }
    free(v->fronts);
    free(v->sockets);
    free(v->threads);
    free(v);
}
