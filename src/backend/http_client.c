#include "backend/http_client.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>

struct http_client {
    struct event_base *base;
    CURLM             *multi;
    struct event      *timer;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode       global;

static void init_global(void) {
    global = curl_global_init(CURL_GLOBAL_ALL);
}

static void finish_ready(http_client *c) {
    CURLMsg *m;
    int      left;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        if (m->msg != CURLMSG_DONE) {
            continue;
        }
        CURL          *easy = m->easy_handle;
        CURLcode       result = m->data.result;
        http_transfer *t = NULL;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
        curl_multi_remove_handle(c->multi, easy);
        t->done(t, result);
    }
}

static void on_socket(evutil_socket_t fd, short what, void *arg) {
    http_client *c = arg;
    int          action = ((what & EV_READ) ? CURL_CSELECT_IN : 0) | ((what & EV_WRITE) ? CURL_CSELECT_OUT : 0);
    int          running;
    curl_multi_socket_action(c->multi, fd, action, &running);
    finish_ready(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    http_client *c = arg;
    int          running;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    finish_ready(c);
}

/* libcurl says which sockets it watches; each gets one libevent event, kept as the socket's own pointer. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg) {
    (void)easy;
    http_client  *c = arg;
    struct event *ev = socket_arg;
    if (what == CURL_POLL_REMOVE) {
        if (ev) {
            event_free(ev); /* libcurl 7.88 has closed a socket that was still connecting; see loop.c */
        }
        return 0;
    }
    short kind = (short)(((what & CURL_POLL_IN) ? EV_READ : 0) | ((what & CURL_POLL_OUT) ? EV_WRITE : 0) | EV_PERSIST);
    if (ev) {
        event_del(ev);
        event_assign(ev, c->base, fd, kind, on_socket, c);
    } else {
        ev = event_new(c->base, fd, kind, on_socket, c);
        if (!ev) {
            return -1;
        }
        curl_multi_assign(c->multi, fd, ev);
    }
    return event_add(ev, NULL);
}

static int watch_timer(CURLM *multi, long ms, void *arg) {
    (void)multi;
    http_client *c = arg;
    if (ms < 0) {
        return evtimer_del(c->timer);
    }
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    return evtimer_add(c->timer, &tv);
}

static void release(void *arg) {
    http_client *c = arg;
    curl_multi_cleanup(c->multi);
    event_free(c->timer);
    free(c);
}

http_client *http_client_of(loop *l, err *e) {
    http_client *c = loop_client(l);
    if (c) {
        return c;
    }
    pthread_once(&once, init_global);
    c = calloc(1, sizeof *c);
    if (global != CURLE_OK || !c) {
        free(c);
        err_set(e, ERR_MEMORY, "The HTTP client could not start: %s.",
                global == CURLE_OK ? "out of memory" : curl_easy_strerror(global));
        return NULL;
    }
    c->base = loop_base(l);
    c->multi = curl_multi_init();
    c->timer = evtimer_new(c->base, on_timer, c);
    if (!c->multi || !c->timer) {
        if (c->multi) {
            curl_multi_cleanup(c->multi);
        }
        free(c);
        err_set(e, ERR_MEMORY, "The HTTP client could not start: out of memory.");
        return NULL;
    }
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, watch_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, 1024L);
    loop_set_client(l, c, release);
    return c;
}

bool http_client_add(http_client *c, CURL *easy, err *e) {
    CURLMcode code = curl_multi_add_handle(c->multi, easy);
    return code == CURLM_OK ||
           err_set(e, ERR_INTERNAL, "The request could not be started: %s.", curl_multi_strerror(code));
}

void http_client_remove(http_client *c, CURL *easy) {
    curl_multi_remove_handle(c->multi, easy);
}
