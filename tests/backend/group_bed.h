/* group_bed.h - groups of real remote backends over providers that follow scripts, and a caller that writes down what it
 * hears.
 *
 * A member's name for the model is its script: "@good" answers well, "@e500" fails. Each upstream is a host of its own. */
#ifndef PARE_TESTS_GROUP_BED_H
#define PARE_TESTS_GROUP_BED_H

#include "check.h"

#include <event2/event.h>
#include <signal.h>

#include "backend/group_parts.h"
#include "base/clock.h"
#include "base/log.h"
#include "serve/upstream.h"

#define HOSTS 4

/* A first chunk that says nothing yet, as OpenAI sends it. */
#define ROLE                                                                                                           \
    "{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\",\"choices\":[{\"index\":0,"   \
    "\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}"
#define SAYS(text) "{\"error\":{\"message\":\"" text "\",\"type\":\"t\",\"code\":null}}"
#define FAIL(code) code "\r\nContent-Type: application/json"

typedef struct group_bed {
    upstream up[HOSTS];
    backend *hosts[HOSTS]; /* one remote each */
    loop    *l;
    int      waiting; /* calls that have not ended */
} group_bed;

static group_bed the;

typedef struct caller {
    backend_call *call;
    str           text;
    int           deltas, wholes, finals;
    bool          cancel_on_delta, signed_all;
    event_kind    last;
    int           status;
    err_code      code;
    char          sentence[512], by[64], by_kind[16], by_model[64], retry_after[64];
    usage         usage;
    bool          with_body;
    attempt       attempts[8];
    int           n_attempts;
    int64_t       begun_us, done_us;
    backend      *of;
    int          *waiting; /* the loop stops when it is 0 */
    loop         *l;
} caller;

static inline void note(char *to, size_t size, const char *text) {
    snprintf(to, size, "%s", text ? text : "");
}

static inline void hear_final(caller *c, const event *ev) {
    c->finals++;
    c->call = NULL;
    c->last = ev->kind;
    c->status = ev->status;
    c->code = ev->error ? ev->error->code : ERR_NONE;
    c->with_body = ev->body_len > 0;
    c->done_us = clock_us();
    c->n_attempts = ev->n_attempts;
    note(c->sentence, sizeof c->sentence, ev->error ? ev->error->text : "");
    note(c->retry_after, sizeof c->retry_after, ev->retry_after);
    for (int i = 0; i < ev->n_attempts && i < 8; i++) {
        c->attempts[i] = ev->attempts[i];
    }
    if (ev->usage) {
        c->usage = *ev->usage;
    }
    if (--*c->waiting == 0) {
        loop_stop(c->l);
    }
}

static inline void hear(void *ctx, const event *ev) {
    caller *c = ctx;
    c->signed_all = c->signed_all && ev->by;
    note(c->by, sizeof c->by, ev->by);
    note(c->by_kind, sizeof c->by_kind, ev->by_kind);
    note(c->by_model, sizeof c->by_model, ev->by_model);
    assert_int_equal(c->finals, 0); /* nothing comes behind the final event */
    if (ev->kind == EVENT_DONE || ev->kind == EVENT_ERROR) {
        hear_final(c, ev);
        return;
    }
    c->deltas += ev->kind == EVENT_DELTA;
    c->wholes += ev->kind == EVENT_WHOLE;
    str_add(&c->text, ev->text ? ev->text : "", ev->text_len);
    if (ev->kind == EVENT_WHOLE) {
        str_add(&c->text, ev->whole->choices[0].text.data, ev->whole->choices[0].text.len);
        c->usage = ev->whole->usage;
    }
    if (c->cancel_on_delta && c->call) {
        c->of->ops->cancel(c->call);
    }
}

/* ---- a request ---- */

typedef struct asked {
    arena  *memory;
    request r;
    drops   drops;
} asked;

static inline void ask_for(asked *a, bool stream, const char *more) {
    err   e = {0};
    char *body = NULL;
    *a = (asked){.memory = arena_new(4096)};
    body = arena_printf(a->memory, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s%s}",
                        stream ? ",\"stream\":true" : "", more);
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, body, strlen(body), a->memory, &a->r, &e), e);
    a->r.drops = &a->drops;
}

static inline void asked_free(asked *a) {
    request_free(&a->r);
    arena_free(a->memory);
}

/* ---- the bed ---- */

static inline backend *host_named(const char *name, int port, const remote_options *more) {
    char           url[64];
    err            e = {0};
    remote_options o = more ? *more : (remote_options){.connect_us = 2000000, .first_us = 2000000};
    snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", port);
    o.base_url = url;
    o.api_key = name;
    backend *b = backend_remote(name, &o, &e);
    assert_ok(b, e);
    return b;
}

static inline void bed_open(const script *scripts) {
    err e = {0};
    signal(SIGPIPE, SIG_IGN);
    log_setup(LOG_OFF, false);
    for (int i = 0; i < HOSTS; i++) {
        char name[8];
        snprintf(name, sizeof name, "h%d", i);
        assert_true(upstream_start(&the.up[i], scripts));
        the.hosts[i] = host_named(name, the.up[i].port, NULL);
    }
    the.l = loop_new(0, &e);
    assert_ok(the.l, e);
}

static inline void bed_close(void) {
    for (int i = 0; i < HOSTS; i++) {
        the.hosts[i]->ops->close(the.hosts[i]);
    }
    loop_free(the.l);
    for (int i = 0; i < HOSTS; i++) {
        upstream_stop(&the.up[i]);
    }
}

static inline backend *group_of(const group_target *t, int n, const group_options *o) {
    err      e = {0};
    backend *b = backend_group("m", t, n, o, &e);
    assert_ok(b, e);
    return b;
}

static inline void start_call(caller *c, backend *b, const request *r) {
    err e = {0};
    *c = (caller){.of = b, .waiting = &the.waiting, .l = the.l, .signed_all = true, .begun_us = clock_us()};
    c->call = b->ops->start(b, the.l, r, "ignored", hear, c, &e);
    assert_ok(c->call, e);
    assert_int_equal(c->finals + c->deltas, 0); /* never from within start */
    the.waiting++;
}

static inline void run_loop(void) {
    err e = {0};
    if (the.waiting > 0) {
        assert_ok(loop_run(the.l, &e), e);
    }
    assert_int_equal(the.waiting, 0);
}

/* One request from beginning to end. */
static inline void call_once(caller *c, backend *b, bool stream) {
    asked a;
    ask_for(&a, stream, "");
    start_call(c, b, &a.r);
    run_loop();
    asked_free(&a);
    assert_int_equal(c->finals, 1);
}

static inline void caller_free(caller *c) {
    str_free(&c->text);
}

static inline int requests(int host) {
    return atomic_load(&the.up[host].requests);
}

static inline int64_t took_ms(const caller *c) {
    return (c->done_us - c->begun_us) / 1000;
}

#define assert_answer(c, words, who)                                                                                   \
    do {                                                                                                               \
        if ((c)->last != EVENT_DONE || !(c)->text.data || strcmp((c)->text.data, (words)) != 0 ||                      \
            strcmp((c)->by, (who)) != 0) {                                                                             \
            fail_msg("\"%s\" by %s, status %d: %s", (c)->text.data ? (c)->text.data : "", (c)->by, (c)->status,        \
                     (c)->sentence);                                                                                   \
        }                                                                                                              \
        assert_true((c)->signed_all);                                                                                  \
    } while (0)

/* Runs the loop for so long, whatever happens on it. */
static inline void on_rest(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    loop_stop(arg);
}

static inline void rest(int ms) {
    err            e = {0};
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    struct event  *timer = evtimer_new(loop_base(the.l), on_rest, the.l);
    evtimer_add(timer, &tv);
    assert_ok(loop_run(the.l, &e), e);
    event_free(timer);
}

#endif
