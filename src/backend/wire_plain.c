/* wire_plain.c - requests over sockets of our own, for http:// without a proxy.
 *
 * A connection stays registered for reading as long as it lives, so that a request on one that rests costs a write and a
 * read and no other system call. What rests is kept in a pool, one a loop and provider, the latest used first. A
 * connection that rested and breaks before a byte of the answer came was closed by the provider meanwhile: the request
 * goes out once more, over a new one (RFC 9110, section 9.2.2 leaves that to the client).                              */
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/http_answer.h"
#include "backend/wire.h"
#include "base/clock.h"
#include "base/resolve.h"

#define MAX_LOOPS   256
#define MAX_RESTING 1024
#define REST_US     50000000 /* servers close what rests after 5 to 75 s; one that did is noticed at once */
#define NAME_US     30000000 /* how long a look-up is believed */
#define BUFFER      (64 << 10)
#define READS       8 /* of one connection in a row, before others have their turn */

typedef struct connection connection;

typedef struct plain {
    wire         base;
    char        *host, *authority, *headers; /* headers: lines with their ends, of every request */
    size_t       prefix;                     /* of a URL, up to the path */
    int          port;
    int64_t      connect_us;
    addresses    digits;           /* of a host that is no name; else none */
    struct pool *pools[MAX_LOOPS]; /* made, used and freed on their loop */
} plain;

/* What one loop has of one provider. */
typedef struct pool {
    loop       *home;
    plain      *of;     /* NULL: the wire has been closed; under `links` */
    loop_task   retire; /* posted then: the pool ends on its loop */
    connection *resting, *oldest;
    int         count;
    wire_call  *calls; /* that run, or wait for an address */
    addresses   known; /* of the host */
    int         first; /* of these: the one that answered last */
    int64_t     known_us;
    resolve    *asked;
    char        buffer[BUFFER];
} pool;

/* A wire may end on another thread and before its loops, or after them. */
static pthread_mutex_t links = PTHREAD_MUTEX_INITIALIZER;

struct connection {
    connection   *next, *prev; /* of those that rest */
    pool         *of;
    wire_call    *call; /* NULL: rests */
    struct event *readable, *writable;
    int           fd;
    bool          connected, used;
    int64_t       rests_us;
};

struct wire_call {
    loop_task          failed; /* posted for what goes wrong within wire_start */
    wire_call         *next, *prev;
    plain             *of;
    pool              *in;
    connection        *on; /* NULL: waits for an address, or has failed */
    const wire_events *events;
    void              *ctx;
    str                head;
    const char        *body;
    size_t             body_len, sent; /* of head and body */
    http_answer        answer;
    bool               heard, told, posted, aborted, again; /* again: over a new connection already */
    int                from, attempt; /* which address is tried: the attempt-th behind the from-th */
    wire_end           end;
    char               reason[sizeof((err *)0)->text];
};

/* ---- connections ---- */

static void connection_close(connection *k) {
    if (k->readable) {
        event_free(k->readable);
    }
    if (k->writable) {
        event_free(k->writable);
    }
    if (k->fd >= 0) {
        close(k->fd);
    }
    free(k);
}

static void leave_rest(connection *k) {
    pool *p = k->of;
    if (k->prev) {
        k->prev->next = k->next;
    } else {
        p->resting = k->next;
    }
    if (k->next) {
        k->next->prev = k->prev;
    } else {
        p->oldest = k->prev;
    }
    k->next = k->prev = NULL;
    p->count--;
}

/* Those behind the latest ones are not met again when there is less to do: they are looked at from the other end. */
static void close_old(pool *p, int64_t now_us) {
    for (connection *k = p->oldest, *before; k && now_us - k->rests_us >= REST_US; k = before) {
        before = k->prev;
        leave_rest(k);
        connection_close(k);
    }
}

/* The latest first. */
static connection *wake(pool *p) {
    if (p->resting) {
        close_old(p, clock_us());
    }
    connection *k = p->resting;
    if (k) {
        leave_rest(k);
    }
    return k;
}

static void rest(connection *k) {
    pool *p = k->of;
    if (p->count >= MAX_RESTING) {
        connection_close(k);
        return;
    }
    k->used = true;
    k->call = NULL;
    k->rests_us = clock_us();
    k->next = p->resting;
    if (k->next) {
        k->next->prev = k;
    } else {
        p->oldest = k;
    }
    p->resting = k;
    p->count++;
    close_old(p, k->rests_us);
}

/* ---- calls ---- */

static void unlink_call(wire_call *c) {
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        c->in->calls = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
}

static void call_free(wire_call *c) {
    str_free(&c->head);
    http_answer_clear(&c->answer);
    free(c);
}

static void finish(wire_call *c, wire_end end, const char *reason) {
    connection *k = c->on;
    if (k && end == WIRE_OK && c->answer.keep && c->sent == c->head.len + c->body_len) {
        rest(k);
    } else if (k) {
        connection_close(k);
    }
    c->on = NULL;
    unlink_call(c);
    c->events->done(c->ctx, end, reason);
    call_free(c);
}

static void on_failed(loop_task *task) {
    wire_call *c = (wire_call *)task;
    if (c->aborted) {
        call_free(c);
    } else {
        finish(c, c->end, c->reason);
    }
}

/* From within wire_start, where no event may come: soon. */
static void fail_soon(wire_call *c, wire_end end, const char *reason) {
    c->end = end;
    snprintf(c->reason, sizeof c->reason, "%s", reason);
    c->posted = true;
    c->failed.run = on_failed;
    loop_post(c->in->home, &c->failed);
}

static void drop_connection(wire_call *c) {
    if (c->on) {
        connection_close(c->on);
        c->on = NULL;
    }
}

static void dial(wire_call *c);

/* The connection is no more. Returns whether the call goes on over another one. */
static bool go_on_anew(wire_call *c) {
    bool again = c->on && c->on->used && !c->heard && !c->again;
    if (again) {
        c->again = true;
        c->sent = 0;
        drop_connection(c);
        dial(c);
    }
    return again;
}

static void broken(wire_call *c, wire_end end, const char *reason) {
    if (!go_on_anew(c)) {
        fail_soon(c, end, reason);
        drop_connection(c);
    }
}

/* ---- what comes in ---- */

static void tell_head(wire_call *c) {
    if (!c->told) {
        c->told = true;
        c->events->head(c->ctx, c->answer.status, c->answer.type, c->answer.retry_after);
    }
}

/* False: the call has ended, and the connection may be gone. */
static bool feed(wire_call *c, const char *bytes, size_t n) {
    const char *body = NULL;
    size_t      body_n = 0;
    http_step   step;
    err         why; /* set with HTTP_BAD */
    c->heard = true;
    do {
        step = http_answer_step(&c->answer, &bytes, &n, &body, &body_n, &why);
        if (step == HTTP_BODY || step == HTTP_END) {
            tell_head(c);
        }
        if (step == HTTP_BODY && !c->events->body(c->ctx, body, body_n)) {
            finish(c, WIRE_STOPPED, "");
            return false;
        }
    } while (step == HTTP_BODY);
    if (step == HTTP_END) {
        c->answer.keep = c->answer.keep && n == 0; /* bytes behind the end belong to nobody */
        finish(c, WIRE_OK, "");
    } else if (step == HTTP_BAD) {
        finish(c, WIRE_BROKEN, why.text);
    }
    return step == HTTP_MORE;
}

static void peer_closed(connection *k, int code) {
    wire_call *c = k->call;
    err        why = {0};
    if (!c) {
        leave_rest(k);
        connection_close(k);
        return;
    }
    if (go_on_anew(c)) {
        return;
    }
    if (code == 0 && http_answer_closed(&c->answer, &why) == HTTP_END) {
        tell_head(c);
        finish(c, WIRE_OK, "");
        return;
    }
    finish(c, WIRE_BROKEN, code ? strerror(code) : why.text);
}

static void on_readable(evutil_socket_t fd, short what, void *arg) {
    (void)what;
    connection *k = arg;
    pool       *p = k->of;
    for (int i = 0; i < READS; i++) {
        ssize_t n = recv(fd, p->buffer, sizeof p->buffer, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (n <= 0) {
            peer_closed(k, n < 0 ? errno : 0);
            return;
        }
        if (!k->call) { /* nobody asked */
            leave_rest(k);
            connection_close(k);
            return;
        }
        if (!feed(k->call, p->buffer, (size_t)n) || (size_t)n < sizeof p->buffer) {
            return;
        }
    }
}

/* ---- what goes out ---- */

static void on_writable(evutil_socket_t fd, short what, void *arg);

static bool await_writable(connection *k, int64_t limit_us) {
    if (!k->writable) {
        k->writable = event_new(loop_base(k->of->home), k->fd, EV_WRITE, on_writable, k);
    }
    struct timeval tv = {.tv_sec = limit_us / 1000000, .tv_usec = limit_us % 1000000};
    return k->writable && event_add(k->writable, limit_us > 0 ? &tv : NULL) == 0;
}

static void send_rest(wire_call *c) {
    connection *k = c->on;
    size_t      all = c->head.len + c->body_len;
    while (c->sent < all) {
        struct iovec parts[2];
        int          n = 0;
        if (c->sent < c->head.len) {
            parts[n++] = (struct iovec){.iov_base = c->head.data + c->sent, .iov_len = c->head.len - c->sent};
        }
        size_t from = c->sent > c->head.len ? c->sent - c->head.len : 0;
        if (from < c->body_len) { /* sendmsg only reads it */
            parts[n++] = (struct iovec){.iov_base = (char *)(uintptr_t)(c->body + from), .iov_len = c->body_len - from};
        }
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)n};
        ssize_t       sent = sendmsg(k->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!await_writable(k, 0)) {
                broken(c, WIRE_BROKEN, "out of memory");
            }
            return;
        }
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET) && (!k->used || c->heard)) {
            return; /* it may have answered before it closed (413, 401): what it said is read, then the end */
        }
        if (sent < 0) {
            broken(c, WIRE_BROKEN, strerror(errno));
            return;
        }
        c->sent += (size_t)sent;
    }
}

/* ---- making a connection ---- */

static bool try_address(wire_call *c, const address *to) {
    plain      *w = c->of;
    connection *k = calloc(1, sizeof *k);
    int         one = 1;
    if (!k) {
        return false;
    }
    k->of = c->in;
    k->fd = socket(to->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (k->fd < 0) {
        int code = errno;
        connection_close(k);
        errno = code;
        return false;
    }
    setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    bool now = connect(k->fd, (const struct sockaddr *)&to->at, to->len) == 0;
    bool soon = !now && errno == EINPROGRESS;
    int  code = errno;
    c->on = k;
    k->call = c;
    k->connected = now;
    k->readable = event_new(loop_base(c->in->home), k->fd, EV_READ | EV_PERSIST, on_readable, k);
    if ((!now && !soon) || !k->readable || (now && event_add(k->readable, NULL) != 0) ||
        (soon && !await_writable(k, w->connect_us / c->in->known.n))) {
        drop_connection(c);
        errno = now || soon ? ENOMEM : code;
        return false;
    }
    if (now) {
        send_rest(c);
    }
    return true;
}

static int place_of(const wire_call *c) {
    return (c->from + c->attempt) % c->in->known.n;
}

/* The addresses in their order, from where we are. */
static void connect_next(wire_call *c) {
    int code = EADDRNOTAVAIL;
    c->from = c->attempt == 0 ? c->in->first : c->from;
    while (c->attempt < c->in->known.n) {
        if (try_address(c, &c->in->known.of[place_of(c)])) {
            return;
        }
        code = errno;
        c->attempt++;
    }
    c->in->known_us = 0; /* it may have moved: the next call asks for its address again */
    fail_soon(c, WIRE_UNREACHABLE, strerror(code));
}

static void on_writable(evutil_socket_t fd, short what, void *arg) {
    connection *k = arg;
    wire_call  *c = k->call;
    if (k->connected) {
        send_rest(c);
        return;
    }
    int       code = 0;
    socklen_t len = sizeof code;
    bool      late = what & EV_TIMEOUT;
    if (late || getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) != 0 || code != 0) {
        drop_connection(c);
        c->attempt++;
        if (c->attempt < c->in->known.n) {
            connect_next(c);
        } else {
            c->in->known_us = 0;
            finish(c, late ? WIRE_TIMEOUT : WIRE_UNREACHABLE, late ? "no connection in time" : strerror(code));
        }
        return;
    }
    k->connected = true;
    c->in->first = place_of(c);
    if (event_add(k->readable, NULL) != 0) {
        broken(c, WIRE_BROKEN, "out of memory");
        return;
    }
    send_rest(c);
}

/* The one that answered last stays the first to be tried. */
static void learn(pool *p, const addresses *found) {
    const address *was = p->known.n > 0 ? &p->known.of[p->first] : NULL;
    int            first = 0;
    for (int i = 0; was && i < found->n; i++) {
        if (found->of[i].len == was->len && memcmp(&found->of[i].at, &was->at, was->len) == 0) {
            first = i;
        }
    }
    p->known = *found;
    p->first = first;
    p->known_us = clock_us();
}

/* All calls that wait get the answer of the one look-up. */
static void on_addresses(void *ctx, const addresses *found, const err *e) {
    pool *p = ctx;
    p->asked = NULL;
    if (found) {
        learn(p, found);
    }
    for (wire_call *c = p->calls, *next; c; c = next) {
        next = c->next;
        if (c->on || c->posted) {
            continue;
        }
        if (p->known.n > 0) {
            connect_next(c);
        } else {
            fail_soon(c, WIRE_UNREACHABLE, e->text);
        }
    }
}

static bool ask_address(wire_call *c, err *e) {
    pool *p = c->in;
    if (!p->asked) {
        p->asked = resolve_start(p->home, c->of->host, c->of->port, on_addresses, p, e);
    }
    return p->asked != NULL;
}

/* A new connection for this call. An address that is known and old is used, and asked for again meanwhile. */
static void dial(wire_call *c) {
    pool *p = c->in;
    err   e = {0};
    c->attempt = 0;
    if (c->of->digits.n > 0) {
        p->known = c->of->digits;
    } else if (p->known_us == 0 || clock_us() - p->known_us > NAME_US) {
        bool asked = ask_address(c, &e);
        if (p->known_us == 0) {
            if (!asked) {
                fail_soon(c, WIRE_UNREACHABLE, e.text);
            }
            return; /* on_addresses goes on */
        }
    }
    connect_next(c);
}

/* ---- start and end ---- */

static void pool_empty(pool *p) {
    for (connection *k = p->resting, *next; k; k = next) {
        next = k->next;
        leave_rest(k);
        connection_close(k);
    }
    if (p->asked) {
        resolve_cancel(p->asked);
        p->asked = NULL;
    }
}

static void pool_free(void *arg) {
    pool *p = arg;
    pthread_mutex_lock(&links);
    if (p->of) {
        p->of->pools[loop_index(p->home)] = NULL;
    }
    pthread_mutex_unlock(&links);
    pool_empty(p);
    free(p);
}

/* Else every wire of a server that reads its settings again and again would leave a pool behind. */
static void on_retire(loop_task *task) {
    pool *p = (pool *)((char *)task - offsetof(pool, retire));
    loop_not_at_end(p->home, pool_free, p);
    pool_free(p);
}

static pool *pool_of(plain *w, loop *l, err *e) {
    pool **slot = &w->pools[loop_index(l)];
    if (!*slot) {
        pool *p = calloc(1, sizeof *p);
        if (!p || !loop_at_end(l, pool_free, p)) {
            free(p);
            err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
            return NULL;
        }
        p->home = l;
        p->of = w;
        *slot = p;
    }
    return *slot;
}

static bool write_head(wire_call *c, const wire_request *q) {
    str        *h = &c->head;
    const char *path = q->url + c->of->prefix;
    char        length[48];
    str_reserve(h, 512);
    str_adds(h, "POST ");
    str_adds(h, path[0] ? path : "/");
    str_adds(h, " HTTP/1.1\r\nHost: ");
    str_adds(h, c->of->authority);
    str_adds(h, "\r\nAccept: */*\r\n");
    if (q->headers) {
        for (const char *const *line = q->headers; *line; line++) {
            str_adds(h, *line);
            str_add(h, "\r\n", 2);
        }
    } else if (c->of->headers) {
        str_adds(h, c->of->headers);
    }
    int n = snprintf(length, sizeof length, "Content-Length: %zu\r\n\r\n", q->body_len);
    return str_add(h, length, (size_t)n);
}

static wire_call *plain_start(wire *base, loop *l, const wire_request *q, const wire_events *events, void *ctx,
                              err *e) {
    plain     *w = (plain *)base;
    pool      *p = pool_of(w, l, e);
    wire_call *c = p ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        if (p) {
            err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        }
        return NULL;
    }
    c->of = w;
    c->in = p;
    c->events = events;
    c->ctx = ctx;
    c->body = q->body;
    c->body_len = q->body_len;
    if (!write_head(c, q)) {
        call_free(c);
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        return NULL;
    }
    c->next = p->calls;
    if (c->next) {
        c->next->prev = c;
    }
    p->calls = c;
    c->on = wake(p);
    if (c->on) {
        c->on->call = c;
        send_rest(c);
    } else {
        dial(c);
    }
    return c;
}

static void plain_abort(wire_call *c) {
    drop_connection(c);
    unlink_call(c);
    if (c->posted) {
        c->aborted = true; /* its task frees it */
    } else {
        call_free(c);
    }
}

static void plain_free(plain *w) {
    free(w->host);
    free(w->authority);
    free(w->headers);
    free(w);
}

static void plain_close(wire *base) {
    plain *w = (plain *)base;
    pthread_mutex_lock(&links);
    for (int i = 0; i < MAX_LOOPS; i++) {
        pool *p = w->pools[i];
        if (p) {
            p->of = NULL;
            p->retire.run = on_retire;
            loop_post(p->home, &p->retire);
        }
    }
    pthread_mutex_unlock(&links);
    plain_free(w);
}

static const wire_ops ops = {.start = plain_start, .abort = plain_abort, .close = plain_close};

/* ---- making ---- */

static bool proxy_is_set(void) {
    static const char *const names[] = {"http_proxy", "all_proxy",
                                        "ALL_PROXY"}; /* HTTP_PROXY is not looked at: httpoxy */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0]) {
            return true;
        }
    }
    return false;
}

bool wire_plain_fits(const wire_options *o) {
    if (strncasecmp(o->base_url, "http://", 7) != 0 || proxy_is_set()) {
        return false;
    }
    const char *from = o->base_url + 7;
    return !memchr(from, '@', strcspn(from, "/"));
}

/* "host", "host:port", "[v6]:port". */
static bool read_authority(plain *w, const char *base_url, err *e) {
    const char *from = base_url + 7;
    size_t      n = strcspn(from, "/");
    const char *end = from + n;
    const char *host_end;
    w->prefix = 7 + n;
    w->port = 80;
    bool bracket = *from == '[';
    if (bracket) {
        const char *close = memchr(from, ']', n);
        host_end = close ? close : from;
    } else {
        const char *colon = memchr(from, ':', n);
        host_end = colon ? colon : end;
    }
    const char *port = host_end + bracket;
    if (host_end <= from + bracket || (port != end && *port != ':')) {
        return err_set(e, ERR_INVALID, "%s: there is no host in this URL.", base_url);
    }
    if (port != end) {
        char *stop = NULL;
        long  number = port[1] >= '0' && port[1] <= '9' ? strtol(port + 1, &stop, 10) : 0;
        if (stop != end || number < 1 || number > 65535) {
            return err_set(e, ERR_INVALID, "%s: its port is not a number from 1 to 65535.", base_url);
        }
        w->port = (int)number;
    }
    w->host = strndup(from + bracket, (size_t)(host_end - from) - bracket);
    w->authority = strndup(from, n);
    if (w->host) {
        resolve_digits(w->host, w->port, &w->digits);
    }
    return (w->host && w->authority) || err_set(e, ERR_MEMORY, "out of memory");
}

wire *wire_plain(const wire_options *o, err *e) {
    plain *w = calloc(1, sizeof *w);
    if (!w) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    w->base.ops = &ops;
    w->connect_us = o->connect_us;
    str headers = {0};
    for (const char *const *line = o->headers; line && *line; line++) {
        str_adds(&headers, *line);
        str_add(&headers, "\r\n", 2);
    }
    str_add(&headers, "", 0);
    w->headers = headers.failed ? NULL : str_take(&headers);
    str_free(&headers);
    if (!read_authority(w, o->base_url, e)) {
        plain_free(w);
        return NULL;
    }
    if (!w->headers && o->headers && o->headers[0]) {
        plain_free(w);
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    return &w->base;
}

wire *wire_new(const wire_options *o, err *e) {
    return wire_plain_fits(o) ? wire_plain(o, e) : wire_curl(o, e);
}
