/* redis.c - connections, calls in their order, and giving up. */
#include "store/redis.h"

#include <event2/event.h>
#include <hiredis/adapters/libevent.h>
#include <netdb.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

#define MAX_LOOPS    64
#define FIRST_WAIT_S 0.1
#define LONGEST_S    5.0
#define LATE_US      5000

typedef enum stand { AWAY, FIRST, AGAIN, UP } stand; /* FIRST, AGAIN: connecting */

typedef struct call {
    struct call *next;
    struct line *of;
    int64_t      until_us;
    redis_done   done; /* NULL: of the connection itself */
    void        *ctx;
} call;

typedef struct line { /* one loop's connection; on that loop only */
    redis             *redis;
    loop              *loop;
    redisAsyncContext *context; /* NULL while it is away */
    struct event      *timer;   /* the first call's limit, or the next try */
    int64_t            due_us;  /* the timer */
    call              *first, *last;
    stand              stand;
    double             wait_s;
    int64_t            number;
    char               why[160];
} line;

struct redis {
    redis_place   place;
    redis_options options;
    char          address[64];
    char          sha1[REDIS_MAX_SCRIPTS][41];
    line         *links[MAX_LOOPS]; /* by the loop's index */
    _Atomic int   begun, standing;
};

/* ---- where it is ---- */

static int hex_of(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool take_password(const char *from, size_t n, char *out, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < n && at + 1 < size; i++) {
        bool coded = from[i] == '%' && i + 2 < n && hex_of(from[i + 1]) >= 0 && hex_of(from[i + 2]) >= 0;
        out[at++] = coded ? (char)(hex_of(from[i + 1]) * 16 + hex_of(from[i + 2])) : from[i];
        i += coded ? 2 : 0;
    }
    out[at] = '\0';
    return at + 1 < size;
}

static bool take_number(const char *text, size_t n, int most, int *out) {
    int value = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9' || (value = value * 10 + (text[i] - '0')) > most) {
            return false;
        }
    }
    *out = n ? value : *out;
    return true;
}

/* The sentence never shows the URL, which may hold a password. */
bool redis_place_of(const char *url, redis_place *out, err *e) {
    static const char scheme[] = "redis://";
    *out = (redis_place){.port = 6379};
    bool        good = strncmp(url, scheme, sizeof scheme - 1) == 0;
    const char *rest = good ? url + sizeof scheme - 1 : "";
    size_t      end = strcspn(rest, "/");
    const char *at = memrchr(rest, '@', end);
    if (at) {
        const char *colon = memchr(rest, ':', (size_t)(at - rest));
        good = good && colon && take_password(colon + 1, (size_t)(at - colon) - 1, out->password, sizeof out->password);
        end -= (size_t)(at + 1 - rest);
        rest = at + 1;
    }
    const char *colon = memrchr(rest, ':', end);
    if (rest[0] == '[') { /* an IPv6 address holds colons */
        const char *bracket = memchr(rest, ']', end);
        colon = bracket && bracket + 1 < rest + end && bracket[1] == ':' ? bracket + 1 : NULL;
    }
    size_t n = colon ? (size_t)(colon - rest) : end;
    bool   bare = n >= 2 && rest[0] == '[' && rest[n - 1] == ']';
    good = good && n - 2 * bare > 0 && n - 2 * bare < sizeof out->host;
    if (good) {
        memcpy(out->host, rest + bare, n - 2 * bare);
        good = (!colon || take_number(colon + 1, end - n - 1, 65535, &out->port)) &&
               (!rest[end] || take_number(rest + end + 1, strlen(rest + end + 1), 1000000, &out->database));
    }
    return good || err_set(e, ERR_INVALID, "write it like redis://:PASSWORD@127.0.0.1:6379/0");
}

/* hiredis would look it up on the loop, each time. */
static bool look_up(redis *r, err *e) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int             code = getaddrinfo(r->place.host, NULL, &hints, &found);
    if (code == 0) {
        code = getnameinfo(found->ai_addr, found->ai_addrlen, r->address, sizeof r->address, NULL, 0, NI_NUMERICHOST);
        freeaddrinfo(found);
    }
    return code == 0 ||
           err_set(e, ERR_INVALID, "The address of Redis, %s, cannot be found: %s.", r->place.host, gai_strerror(code));
}

/* What EVALSHA calls a script. */
static bool name_script(const char *text, char out[41]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int  n = 0;
    bool          good = EVP_Digest(text, strlen(text), digest, &n, EVP_sha1(), NULL) == 1 && n == 20;
    if (good) {
        hex_encode(digest, n, out);
    }
    return good;
}

redis *redis_new(const redis_place *p, const redis_options *o, err *e) {
    redis *r = calloc(1, sizeof *r);
    if (!r) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    r->place = *p;
    r->options = *o;
    bool good = look_up(r, e);
    for (int i = 0; good && o->scripts[i]; i++) {
        good = (i < REDIS_MAX_SCRIPTS && name_script(o->scripts[i], r->sha1[i])) ||
               err_set(e, ERR_INTERNAL, "A script for Redis cannot be named.");
    }
    if (!good) {
        free(r);
        return NULL;
    }
    return r;
}

void redis_free(redis *r) {
    free(r);
}

/* ---- up and away ---- */

static void connect_now(line *l);

static void set_timer(line *l, int64_t us) {
    l->due_us = clock_us() + us;
    struct timeval t = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    event_add(l->timer, &t);
}

static void stand_now(line *l) {
    redis *r = l->redis;
    l->stand = UP;
    l->wait_s = FIRST_WAIT_S;
    if (atomic_fetch_add(&r->standing, 1) + 1 == atomic_load(&r->begun) && r->options.changed) {
        r->options.changed(r->options.ctx, true, "");
    }
}

/* All who wait get their answer, which is none. */
static void give_up(line *l, const char *why) {
    redis             *r = l->redis;
    redisAsyncContext *c = l->context;
    bool               was_up = l->stand == UP;
    if (l->stand == AWAY) {
        return;
    }
    if (why != l->why) {
        snprintf(l->why, sizeof l->why, "%s", why);
    }
    l->stand = AWAY;
    l->context = NULL;
    if (was_up) {
        atomic_fetch_sub(&r->standing, 1);
    }
    if (r->options.changed) {
        r->options.changed(r->options.ctx, false, l->why);
    }
    event_del(l->timer);
    set_timer(l, (int64_t)(l->wait_s * 1e6));
    l->wait_s = l->wait_s * 2 < LONGEST_S ? l->wait_s * 2 : LONGEST_S;
    if (c) {
        redisAsyncFree(c); /* calls back everybody */
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    line *l = arg;
    if (l->stand == AWAY) {
        connect_now(l);
    } else if (l->first && clock_us() - l->due_us > LATE_US) {
        set_timer(l, l->redis->options.limit_us); /* this loop was busy: what came, or was to go out, comes first */
    } else if (l->first && clock_us() >= l->first->until_us) {
        give_up(l, "it did not answer in time");
    } else if (l->first) {
        set_timer(l, l->first->until_us - clock_us());
    }
}

/* ---- calls ---- */

static void take_out(line *l, call *c) {
    call **at = &l->first, *before = NULL;
    while (*at && *at != c) { /* the first but when several end at once */
        before = *at;
        at = &before->next;
    }
    if (*at) {
        *at = c->next;
        l->last = l->last == c ? before : l->last;
    }
}

static int values_of(const redisReply *r, int64_t *out) {
    if (r->type == REDIS_REPLY_INTEGER) {
        out[0] = r->integer;
        return 1;
    }
    int n = 0;
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements && n < REDIS_MAX_VALUES; i++) {
        if (r->element[i]->type != REDIS_REPLY_INTEGER) {
            return -1;
        }
        out[n++] = r->element[i]->integer;
    }
    return r->type == REDIS_REPLY_ARRAY ? n : -1;
}

static void on_reply(redisAsyncContext *context, void *reply, void *arg) {
    call       *c = arg;
    line       *l = c->of;
    redisReply *r = reply;
    int64_t     values[REDIS_MAX_VALUES] = {0};
    int         n = r ? values_of(r, values) : -1;
    bool        wrong = r && r->type == REDIS_REPLY_ERROR;
    take_out(l, c);
    if (c->done) {
        c->done(c->ctx, values, n);
    } else if (!wrong && r && c->ctx && l->context == context) { /* the last of those that begin a connection */
        stand_now(l);
    }
    free(c);
    if (wrong && l->context == context) {
        /* No such script any more, a wrong password, a server that is loading: from the beginning. Not from within. */
        snprintf(l->why, sizeof l->why, "%.150s", r->str);
        redisAsyncDisconnect(context);
    }
}

static bool send_call(line *l, int argc, const char **argv, redis_done done, void *ctx, int64_t limit_us) {
    call *c = calloc(1, sizeof *c);
    if (!c) {
        return false;
    }
    *c = (call){.of = l, .until_us = clock_us() + limit_us, .done = done, .ctx = ctx};
    if (redisAsyncCommandArgv(l->context, on_reply, c, argc, argv, NULL) != REDIS_OK) {
        free(c);
        return false;
    }
    if (l->last) {
        l->last->next = c;
    } else {
        l->first = c;
    }
    l->last = c;
    if (!event_pending(l->timer, EV_TIMEOUT, NULL)) {
        set_timer(l, limit_us);
    }
    return true;
}

bool redis_run(redis *r, loop *at, int script, int n_keys, int argc, const char **argv, redis_done done, void *ctx) {
    const char *all[64] = {"EVALSHA", r->sha1[script]};
    char        count[12];
    line       *l = r->links[loop_index(at)];
    if (!l || !l->context || l->stand == AWAY || (l->stand == AGAIN && done) || argc + 3 > 64) {
        return false;
    }
    snprintf(count, sizeof count, "%d", n_keys);
    all[2] = count;
    memcpy(all + 3, argv, (size_t)argc * sizeof *argv);
    return send_call(l, argc + 3, all, done, ctx, r->options.limit_us);
}

/* ---- connections ---- */

static void on_connect(const redisAsyncContext *c, int status) {
    line *l = c->data;
    if (status != REDIS_OK && l->context == c) { /* hiredis frees it */
        l->context = NULL;
        give_up(l, c->errstr ? c->errstr : "no connection");
    }
}

static void on_disconnect(const redisAsyncContext *c, int status) {
    line *l = c->data;
    if (l->context == c) {
        l->context = NULL;
        give_up(l, status == REDIS_OK && l->why[0] ? l->why
                   : c->errstr && *c->errstr       ? c->errstr
                                                   : "it closed the connection");
    }
}

static bool greet(line *l) {
    redis      *r = l->redis;
    char        number[16];
    const char *auth[] = {"AUTH", r->place.password}, *select[] = {"SELECT", number};
    int64_t     limit = r->options.limit_us;
    bool        good = !r->place.password[0] || send_call(l, 2, auth, NULL, NULL, limit);
    snprintf(number, sizeof number, "%d", r->place.database);
    good = good && (r->place.database == 0 || send_call(l, 2, select, NULL, NULL, limit));
    for (int i = 0; good && r->options.scripts[i]; i++) {
        const char *load[] = {"SCRIPT", "LOAD", r->options.scripts[i]};
        bool        last = !r->options.scripts[i + 1];
        good = send_call(l, 3, load, NULL, last ? l : NULL, limit);
    }
    return good;
}

static void connect_now(line *l) {
    redis *r = l->redis;
    l->stand = l->number ? AGAIN : FIRST;
    l->number++;
    l->why[0] = '\0';
    l->context = redisAsyncConnect(r->address, r->place.port);
    if (!l->context || l->context->err) {
        give_up(l, l->context ? l->context->errstr : "out of memory");
        return;
    }
    l->context->data = l;
    if (redisLibeventAttach(l->context, loop_base(l->loop)) != REDIS_OK) {
        give_up(l, "out of memory");
        return;
    }
    redisAsyncSetConnectCallback(l->context, on_connect);
    redisAsyncSetDisconnectCallback(l->context, on_disconnect);
    if (!greet(l)) {
        give_up(l, "out of memory");
    } else if (r->options.renewed) {
        r->options.renewed(r->options.ctx, l->loop);
    }
}

/* The loop is gone in a moment: nobody is told any more. */
static void end_link(void *arg) {
    line              *l = arg;
    redisAsyncContext *c = l->context;
    l->context = NULL;
    l->stand = AWAY;
    for (call *i = l->first; i; i = i->next) {
        if (i->done) {
            i->done(i->ctx, NULL, REDIS_ENDED);
            i->done = NULL;
        }
    }
    l->redis->links[loop_index(l->loop)] = NULL;
    if (c) {
        redisAsyncFree(c);
    }
    event_free(l->timer);
    free(l);
}

bool redis_begin(redis *r, loop *at, err *e) {
    int   i = loop_index(at);
    line *l = i < MAX_LOOPS && !r->links[i] ? calloc(1, sizeof *l) : NULL;
    if (!l || !(l->timer = event_new(loop_base(at), -1, 0, on_timer, l)) || !loop_at_end(at, end_link, l)) {
        if (l && l->timer) {
            event_free(l->timer);
        }
        free(l);
        return err_set(e, ERR_MEMORY, "Out of memory for a connection to Redis.");
    }
    l->redis = r;
    l->loop = at;
    l->wait_s = FIRST_WAIT_S;
    r->links[i] = l;
    atomic_fetch_add(&r->begun, 1);
    connect_now(l);
    return true;
}

int64_t redis_connection(const redis *r, const loop *at) {
    const line *l = r->links[loop_index(at)];
    return l ? l->number : 0;
}

bool redis_up(const redis *r) {
    return atomic_load(&r->standing) == atomic_load(&r->begun);
}
