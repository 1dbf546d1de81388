#include "serve/intake.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define FULL_READ 4096       /* libevent's: there may be more */
#define MOST      (1u << 20) /* in one go; other connections of the loop wait meanwhile */

/* What the socket holds. An error or the end of the stream is left to libevent, which will be told that there is
 * something to read. */
static void take_rest(struct evbuffer *in, evutil_socket_t fd) {
    struct evbuffer_iovec room;
    int                   ready = 0;
    if (ioctl(fd, FIONREAD, &ready) != 0 || ready <= 0) {
        return;
    }
    size_t n = (unsigned)ready < MOST ? (size_t)ready : MOST;
    if (evbuffer_reserve_space(in, (ev_ssize_t)n, &room, 1) != 1) {
        return;
    }
    ssize_t got = recv(fd, room.iov_base, n, MSG_DONTWAIT);
    room.iov_len = got > 0 ? (size_t)got : 0;
    evbuffer_commit_space(in, &room, 1);
}

static void on_bytes(struct evbuffer *in, const struct evbuffer_cb_info *info, void *arg) {
    static _Thread_local bool here; /* take_rest adds bytes too */
    struct bufferevent       *b = arg;
    size_t                    most = 0;
    if (info->n_added < FULL_READ || here) {
        return;
    }
    bufferevent_getwatermark(b, EV_READ, NULL, &most);
    if (most == 0) { /* else somebody limits what is read ahead */
        here = true;
        take_rest(in, bufferevent_getfd(b));
        here = false;
    }
}

void intake_watch(struct bufferevent *b) {
    evbuffer_add_cb(bufferevent_get_input(b), on_bytes, b);
}
