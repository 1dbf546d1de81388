#include "serve/later.h"

#include <stdlib.h>

struct later {
    loop_task              task;
    front                 *front;
    struct evhttp_request *request; /* NULL once the client has gone */
    int                    status;
    str                    json;
    err                    failed;
};

static void gone(struct evhttp_connection *connection, void *arg) {
    (void)connection;
    later *l = arg;
    if (request_is_ours(l->request)) {
        evhttp_request_free(l->request);
    }
    l->request = NULL;
}

later *later_begin(front *f, struct evhttp_request *r) {
    later *l = calloc(1, sizeof *l);
    if (!l) {
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
        return NULL;
    }
    l->front = f;
    l->request = r;
    atomic_fetch_add(&f->open, 1);
    connection_watch(evhttp_request_get_connection(r), gone, l);
    return l;
}

front *later_front(const later *l) {
    return l->front;
}

void later_reply(later *l, int status, const str *json, const err *e) {
    if (l->request) {
        connection_unwatch(evhttp_request_get_connection(l->request));
        if (e && e->code != ERR_NONE) {
            reply_error(l->request, status ? status : error_status(e->code), e->code, e->param, "%s", e->text);
        } else if (!json || json->failed) {
            reply_error(l->request, 500, ERR_MEMORY, "", "Out of memory.");
        } else {
            reply_json(l->request, 200, json->data ? json->data : "", json->len);
        }
    }
    atomic_fetch_sub(&l->front->open, 1);
    str_free(&l->json);
    free(l);
}

static void run(loop_task *task) {
    later *l = (later *)task;
    later_reply(l, l->status, &l->json, &l->failed);
}

void later_send(later *l, int status, const str *json, const err *e) {
    l->status = status;
    if (json) {
        str_add(&l->json, json->data ? json->data : "", json->len);
    }
    if (e) {
        l->failed = *e;
    }
    l->task.run = run;
    loop_post(l->front->loop, &l->task);
}
