#include "base/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

/* Held by the thread until it has looked, and by the loop until it has heard; the later of them frees it. */
struct resolve {
    loop_task       heard; /* first: what the thread posts */
    pthread_mutex_t lock;
    loop           *home; /* NULL: cancelled */
    resolve_fn      fn;
    void           *ctx;
    char            port[8];
    addresses       found;
    err             why;
    char            host[];
};

bool resolve_digits(const char *host, int port, addresses *out) {
    struct sockaddr_in  four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    out->n = 1;
    if (inet_pton(AF_INET, host, &four.sin_addr) == 1) {
        memcpy(&out->of[0].at, &four, sizeof four);
        out->of[0].len = sizeof four;
    } else if (inet_pton(AF_INET6, host, &six.sin6_addr) == 1) {
        memcpy(&out->of[0].at, &six, sizeof six);
        out->of[0].len = sizeof six;
    } else {
        out->n = 0;
    }
    return out->n > 0;
}

static void release(resolve *r) {
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void on_heard(loop_task *task) {
    resolve *r = (resolve *)task;
    pthread_mutex_lock(&r->lock); /* until the thread has let go of it */
    pthread_mutex_unlock(&r->lock);
    if (r->home) { /* only the loop itself clears it */
        r->fn(r->ctx, r->found.n > 0 ? &r->found : NULL, &r->why);
    }
    release(r);
}

static void look(resolve *r) {
    struct addrinfo  hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    int              code = getaddrinfo(r->host, r->port, &hints, &list);
    if (code != 0) {
        err_set(&r->why, ERR_IO, "no address for %.200s: %s", r->host, gai_strerror(code));
        return;
    }
    for (const struct addrinfo *a = list; a && r->found.n < RESOLVE_MAX; a = a->ai_next) {
        if (a->ai_addrlen <= sizeof r->found.of[0].at) {
            address *to = &r->found.of[r->found.n++];
            memcpy(&to->at, a->ai_addr, a->ai_addrlen);
            to->len = a->ai_addrlen;
        }
    }
    freeaddrinfo(list);
}

static void *run(void *arg) {
    resolve *r = arg;
    look(r);
    pthread_mutex_lock(&r->lock);
    loop *home = r->home;
    if (home) { /* under the lock: after a cancel the loop may be gone */
        loop_post(home, &r->heard);
    }
    pthread_mutex_unlock(&r->lock);
    if (!home) {
        release(r);
    }
    return NULL;
}

resolve *resolve_start(loop *l, const char *host, int port, resolve_fn fn, void *ctx, err *e) {
    size_t   n = strlen(host) + 1;
    resolve *r = calloc(1, sizeof *r + n);
    if (!r) {
        err_set(e, ERR_MEMORY, "out of memory to look up %.200s", host);
        return NULL;
    }
    r->heard.run = on_heard;
    r->home = l;
    r->fn = fn;
    r->ctx = ctx;
    snprintf(r->port, sizeof r->port, "%d", port & 0xFFFF);
    memcpy(r->host, host, n);
    pthread_mutex_init(&r->lock, NULL);
    pthread_t thread;
    if (!thread_start(&thread, run, r, "a thread to look up a host's name", e)) {
        release(r);
        return NULL;
    }
    pthread_detach(thread);
    return r;
}

void resolve_cancel(resolve *r) {
    pthread_mutex_lock(&r->lock);
    r->home = NULL;
    pthread_mutex_unlock(&r->lock);
}
