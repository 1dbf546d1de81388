/* client.c - one exchange over HTTP: reads the request, starts the walk, writes the answer whole or as a stream.
 *
 * A connection that closes while its exchange works cancels it. evhttp (2.1) then takes the request out of its list, sets
 * its connection to NULL and leaves it to us: it is freed in finish.                                                 */
#include <endian.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/money.h"
#include "serve/front.h"
#include "serve/observe.h"
#include "serve/server.h"
#include "serve/tls.h"

#define MAX_UNREAD (16u << 20)  /* a client that does not read its stream is let go */
#define MAX_KEPT   (256u << 10) /* of the memory in which a chunk is put together */
#define CHUNK_HEAD 10           /* eight digits of a size and the end of their line: RFC 9112, 7.1 */

typedef struct client {
    struct client         *next, **link; /* in the front's list */
    front                 *front;
    generation            *of; /* of its time: settings, models, keys; held */
    struct evhttp_request *request;
    exchange              *exchange;
    bool                   gone;    /* the connection has closed */
    bool                   stopped; /* pare itself ends the work */
    bool                   started; /* the stream's headers are out */
    bool                   passed;  /* the provider's own payloads went out */
    bool                   lost;    /* out of memory: something of the stream did not go out */
    void                  *writing; /* the dialect's, of the stream */
} client;

/* ---- headers ---- */

/* How the model's cache was used: "cached=1984/2010 miss=diverge"; false when there is nothing to say. */
static bool kv_text(const exchange *x, char *out, size_t size) {
    const kv_report *k = &x->kv;
    bool             usual = strcmp(k->miss ? k->miss : "none", "none") == 0 && k->preempted == 0 && k->slid == 0;
    if (!x->has_kv || !k->miss || (usual && !x->debug)) {
        return false;
    }
    int n = snprintf(out, size, "cached=%lld/%lld miss=%s", (long long)k->cached, (long long)k->prompt, k->miss);
    if (k->preempted > 0) {
        n += snprintf(out + n, size - (size_t)n, " preempted=%d", k->preempted);
    }
    if (k->slid > 0) {
        snprintf(out + n, size - (size_t)n, " slid=%lld", (long long)k->slid);
    }
    return true;
}

/* The answer's headers but the last ones, which the caller may add before head_end. */
static str *begin_head(const client *c, const char *type, bool money) {
    const exchange *x = c->exchange;
    str            *head = head_begin(c->front, type);
    head_add(head, "x-request-id", x->id);
    if (x->answered_by[0]) {
        head_add(head, "x-pare-answered-by", x->answered_by);
    }
    if (money) {
        head_add_usd(head, "x-pare-cost-usd", money_micro(x->cost_nano));
        head_add_usd(head, "x-pare-saved-usd", money_micro(x->saved_nano));
    }
    char kv[160];
    if (kv_text(x, kv, sizeof kv)) {
        head_add(head, "x-pare-kv", kv);
    }
    if (x->request.drops && x->request.drops->names[0]) {
        head_add(head, "x-pare-dropped", x->request.drops->names);
    }
    if (x->retry_after) {
        head_add(head, "Retry-After", x->retry_after);
    }
    return head;
}

/* Sends what is in the request's output buffer. */
static void send_whole(const client *c, int status, const char *type, bool money) {
    head_end(begin_head(c, type, money), c->request);
    head_length(c->request, evbuffer_get_length(evhttp_request_get_output_buffer(c->request)));
    evhttp_send_reply(c->request, status, reason_of(status), NULL);
    loop_write_soon(evhttp_connection_get_bufferevent(evhttp_request_get_connection(c->request)));
}

/* ---- the end of a client ---- */

static void release(client *c) {
    *c->link = c->next;
    if (c->next) {
        c->next->link = c->link;
    }
    front      *f = c->front;
    generation *of = c->of;
    exchange_free(c->exchange); /* the client lives in its arena */
    front_drop(f, of);
}

static void on_close(struct evhttp_connection *connection, void *arg) {
    (void)connection;
    client *c = arg;
    c->gone = true;
    if (request_is_ours(c->request)) {
        pipeline_cancel(c->exchange); /* may call finish, and c is gone then */
    } else {
        c->request = NULL; /* the server closes; client_drop_all comes next */
    }
}

/* The answer is out, or its reader has left before it was. */
static void on_sent(struct evhttp_request *r, void *arg) {
    front *f = arg;
    connection_unwatch(evhttp_request_get_connection(r));
    atomic_fetch_sub(&f->open, 1);
}

static void on_unsent(struct evhttp_connection *connection, void *arg) {
    (void)connection;
    front *f = arg;
    atomic_fetch_sub(&f->open, 1);
}

/* From here on the connection is about to send; only then it goes back to reading requests. An answer may take long to
 * read, but must get on. */
static void let_go(const client *c) {
    struct evhttp_connection *connection = evhttp_request_get_connection(c->request);
    struct timeval            limit = {.tv_sec = IDLE_S};
    evhttp_connection_set_closecb(connection, on_unsent, c->front);
    evhttp_request_set_on_complete_cb(c->request, on_sent, c->front);
    bufferevent_set_timeouts(evhttp_connection_get_bufferevent(connection), NULL, &limit);
}

/* ---- streams ---- */

/* The events of one chunk are put together in the front's text, behind room for the chunk's size. */
static void begin_chunk(const client *c) {
    str *text = &c->front->text;
    str_clear(text);
    str_add(text, "00000000\r\n", CHUNK_HEAD);
}

/* In one piece, which is what evhttp_send_reply_chunk takes three for. HTTP/1.0 gets the bytes alone. */
static bool frame_chunk(str *text, bool chunked, size_t *from) {
    static const char hex[] = "0123456789abcdef";
    *from = CHUNK_HEAD;
    if (!chunked) {
        return !text->failed;
    }
    size_t at = CHUNK_HEAD - 2;
    for (size_t n = text->len - CHUNK_HEAD; n > 0 && at > 0; n >>= 4) {
        text->data[--at] = hex[n & 15];
    }
    *from = at;
    return str_add(text, "\r\n", 2);
}

/* Where nothing waits before it, what the socket takes goes out from here, which for the small chunks of a stream costs a
 * third of the way through the output buffer and its events. That has the rest, and errors: it meets them again. */
static bool write_out(const client *c, const char *bytes, size_t n) {
    struct bufferevent *b = evhttp_connection_get_bufferevent(evhttp_request_get_connection(c->request));
    struct evbuffer    *out = bufferevent_get_output(b);
    ssize_t             sent = 0;
    if (evbuffer_get_length(out) == 0 && c->request->chunked && !tls_spoken(b)) {
        sent = send(bufferevent_getfd(b), bytes, n, MSG_NOSIGNAL);
        sent = sent > 0 ? sent : 0;
        if ((size_t)sent == n) {
            return true;
        }
    }
    if (evbuffer_add(out, bytes + sent, n - (size_t)sent) != 0) {
        if (sent > 0) { /* half a chunk is out: nothing that could follow would be understood */
            bufferevent_trigger_event(b, BEV_EVENT_ERROR | BEV_EVENT_WRITING, BEV_TRIG_DEFER_CALLBACKS);
        }
        return false;
    }
    loop_write_soon(b);
    return true;
}

static void send_chunk(client *c) {
    str   *text = &c->front->text;
    size_t from;
    if (text->failed) {
        c->lost = true;
    } else if (text->len > CHUNK_HEAD) {
        bool good = frame_chunk(text, c->request->chunked, &from) && write_out(c, text->data + from, text->len - from);
        c->lost = c->lost || !good;
    }
    if (text->cap > MAX_KEPT) {
        str_free(text);
    }
}

static void start_stream(client *c) {
    exchange *x = c->exchange;
    if (x->speaks == &dialect_anthropic && !x->answer.usage.known) { /* its first event says how long the prompt is */
        x->request.prompt_estimate = count_tokens_estimate(&x->request);
    }
    str *head = begin_head(c, "text/event-stream; charset=utf-8", x->hit != NULL);
    head_add(head, "Cache-Control", "no-cache");
    head_add(head, "X-Accel-Buffering", "no"); /* an nginx in front must not collect the stream */
    head_end(head, c->request);
    reply_start_stream(c->request);
    c->writing = arena_zero(x->memory, 1, x->speaks->writing ? x->speaks->writing : 1);
    c->started = true;
}

static void put_event(client *c, const event *ev) {
    const exchange *x = c->exchange;
    str            *text = &c->front->text;
    if (!c->writing) {
        c->lost = true;
        return;
    }
    if (!ev->raw_dialect || !dialect_same(ev->raw_dialect, x->speaks)) {
        c->passed = false; /* behind payloads: the end that a budget gives to a provider's stream */
        x->speaks->write_event(&x->request, c->writing, &x->answer, ev, text);
    } else if (ev->raw) { /* else a further event of a payload that has been passed on whole */
        c->passed = true;
        x->speaks->write_raw(&x->request, c->writing, ev, text);
    }
    c->lost = c->lost || text->failed;
}

static void on_event(exchange *x, const event *ev) {
    client *c = x->client;
    if (c->gone || !x->request.stream || ev->kind != EVENT_DELTA) {
        return;
    }
    if (!c->started) {
        start_stream(c);
    }
    begin_chunk(c);
    put_event(c, ev);
    send_chunk(c);
    struct bufferevent *b = evhttp_connection_get_bufferevent(evhttp_request_get_connection(c->request));
    if (evbuffer_get_length(bufferevent_get_output(b)) > MAX_UNREAD) {
        bufferevent_trigger_event(b, BEV_EVENT_ERROR | BEV_EVENT_WRITING, BEV_TRIG_DEFER_CALLBACKS);
    }
}

/* A whole answer told as a stream: one delta and one end for each choice. */
static void replay(client *c, const answer *a) {
    for (int i = 0; i < a->n_choices; i++) {
        const choice *k = &a->choices[i];
        event         ev = {.kind = EVENT_DELTA, .choice = i, .tool_calls = k->tool_calls, .logprobs = k->logprobs};
        ev.text = k->text.len || (!k->reasoning.len && !k->refusal.len && !k->tool_calls)
                      ? (k->text.data ? k->text.data : "")
                      : NULL;
        ev.text_len = k->text.len;
        ev.reasoning = k->reasoning.len ? k->reasoning.data : NULL;
        ev.reasoning_len = k->reasoning.len;
        ev.refusal = k->refusal.len ? k->refusal.data : NULL;
        ev.refusal_len = k->refusal.len;
        ev.signature = k->signature.len ? k->signature.data : NULL;
        ev.signature_len = k->signature.len;
        put_event(c, &ev);
        event end = {.kind = EVENT_DELTA, .choice = i, .finish = k->finish[0] ? k->finish : "stop"};
        put_event(c, &end);
    }
}

/* A stored answer, which is in OpenAI's whole form, becomes the exchange's own. */
static bool read_hit(exchange *x) {
    err   why = {0};
    usage kept = x->answer.usage;
    answer_clear(&x->answer);
    if (!dialect_openai.read_answer(x->kind, x->hit->body, x->hit->len, &x->answer, &why)) {
        return false;
    }
    if (!x->answer.usage.known) {
        x->answer.usage = kept;
    }
    return true;
}

static bool replay_hit(client *c) {
    if (!read_hit(c->exchange)) {
        return false;
    }
    replay(c, &c->exchange->answer);
    return true;
}

/* Price and tokens are known only now, after the headers: as comments, which SSE readers pass over. */
static void write_comments(const exchange *x, str *out) {
    int64_t cost = money_micro(x->cost_nano), saved = money_micro(x->saved_nano);
    str_addf(out, ": x-pare-cost-usd %lld.%06lld\n: x-pare-saved-usd %lld.%06lld\n: x-pare-tokens %lld %lld\n",
             (long long)(cost / 1000000), (long long)(cost % 1000000), (long long)(saved / 1000000),
             (long long)(saved % 1000000), (long long)x->answer.usage.prompt, (long long)x->answer.usage.completion);
    char kv[160];
    if (kv_text(x, kv, sizeof kv)) {
        str_addf(out, ": x-pare-kv %s\n", kv);
    }
}

static void end_stream(client *c) {
    exchange *x = c->exchange;
    str       comments = {0};
    write_comments(x, &comments);
    x->speaks->write_end(&x->request, c->writing, &x->answer, c->passed,
                         comments.data && !comments.failed ? comments.data : "", &c->front->text);
    str_free(&comments);
    send_chunk(c);
    evhttp_send_reply_end(c->request);
}

/* An error event, and no end mark: never a clean stop. */
static void break_stream(client *c, const err *why, int status) {
    exchange *x = c->exchange;
    begin_chunk(c);
    if (c->writing) {
        x->speaks->write_break(&x->request, c->writing, why, status, &c->front->text);
    }
    send_chunk(c);
    evhttp_send_reply_end(c->request);
}

static void finish_stream(client *c) {
    exchange *x = c->exchange;
    bool      live = c->started;
    if (!c->started) {
        start_stream(c);
    }
    begin_chunk(c);
    if (x->hit && !replay_hit(c)) { /* cannot happen with what recall stores; say so rather than end cleanly */
        err why = {0};
        err_set(&why, ERR_INTERNAL, "The stored answer cannot be read; retry with Cache-Control: no-cache.");
        break_stream(c, &why, 500);
        return;
    }
    if (!x->hit && !live) {
        replay(c, &x->answer); /* the backend gave it whole */
    }
    if (c->lost || !c->writing) {
        err why = {0};
        err_set(&why, ERR_MEMORY, "Out of memory: a part of this answer is missing.");
        break_stream(c, &why, 500);
        return;
    }
    end_stream(c);
}

/* ---- whole answers and errors ---- */

static void finish_error(client *c) {
    exchange *x = c->exchange;
    str       json = {0};
    /* The provider's own words, untouched: kept only where client and provider speak the same dialect. */
    if (x->error_body && !c->started) {
        evbuffer_add(evhttp_request_get_output_buffer(c->request), x->error_body, x->error_body_len);
        send_whole(c, x->status, x->error_type ? x->error_type : "application/json", false);
        return;
    }
    if (c->started) {
        break_stream(c, &x->failed, x->status);
        return;
    }
    if (!x->speaks->write_error(&x->failed, x->status, &json) || json.failed) {
        str_free(&json);
        str_adds(&json,
                 "{\"error\":{\"message\":\"Out of memory.\",\"type\":\"api_error\",\"param\":null,\"code\":null}}");
    }
    evbuffer_add(evhttp_request_get_output_buffer(c->request), json.data, json.len);
    send_whole(c, x->status, "application/json", false);
    str_free(&json);
}

static void release_hit(const void *data, size_t n, void *entry) {
    (void)data;
    (void)n;
    cached_release(entry);
}

/* The answer's bytes into the reply; false: out of memory, or a stored answer that cannot be read. */
static bool put_whole(exchange *x, struct evbuffer *out) {
    bool openai = x->speaks == &dialect_openai;
    if (x->hit && openai) { /* the bytes go out from the cache itself; the reference moves to the buffer */
        if (evbuffer_add_reference(out, x->hit->body, x->hit->len, release_hit, (void *)x->hit) == 0) {
            x->hit = NULL;
            return true;
        }
        return false;
    }
    if (x->hit && !read_hit(x)) {
        return false;
    }
    if (!x->hit && x->answer.raw && dialect_same(x->answer.raw_dialect, x->speaks)) {
        return evbuffer_add(out, x->answer.raw, x->answer.raw_len) == 0;
    }
    str  json = {0};
    bool good = x->speaks->write_answer(&x->request, &x->answer, &json) && !json.failed &&
                evbuffer_add(out, json.data, json.len) == 0;
    str_free(&json);
    return good;
}

static void finish_whole(client *c) {
    exchange *x = c->exchange;
    if (!put_whole(x, evhttp_request_get_output_buffer(c->request))) {
        exchange_fail(x, 500, ERR_MEMORY, "", "The answer could not be written: out of memory.");
        finish_error(c);
        return;
    }
    send_whole(c, 200, "application/json", true);
}

/* Part of an answer that was larger than pare keeps (answer.c) is missing from what it has. Only a stream that was told
 * from the events themselves is whole all the same. */
static bool lacks(exchange *x) {
    const client *c = x->client;
    return !(x->request.stream && c->started && (c->passed || x->speaks == &dialect_openai));
}

static void on_finish(exchange *x) {
    client *c = x->client;
    if (c->gone) {
        evhttp_request_free(c->request);
        atomic_fetch_sub(&c->front->open, 1);
    } else {
        if (c->stopped && x->failed.code == ERR_CANCELLED) {
            exchange_fail(x, 503, ERR_BUSY, "", "pare is being shut down; send the request again.");
        }
        let_go(c);
        if (x->failed.code != ERR_NONE) {
            finish_error(c);
        } else if (x->request.stream) {
            finish_stream(c);
        } else {
            finish_whole(c);
        }
    }
    release(c);
}

static const exchange_sink sink = {.event = on_event, .finish = on_finish, .lacks = lacks};

/* ---- the start ---- */

static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; p && (p = strcasestr(p, word)); p += n) {
        bool left = p == list || strchr(", \t", p[-1]), right = !p[n] || strchr(", \t;=", p[n]);
        if (left && right) {
            return true;
        }
    }
    return false;
}

static void read_headers(exchange *x, struct evhttp_request *r, const heads *h) {
    struct evkeyvalq *headers = evhttp_request_get_input_headers(r);
    const char       *control = h->cache_control;
    x->bearer = heads_bearer(h);
    x->no_cache = control && has_word(control, "no-cache");
    x->no_store = control && has_word(control, "no-store");
    for (const char *const *name = x->speaks->passed; name && *name && x->n_passed < REQUEST_MAX_PASSED; name++) {
        const char *value = evhttp_find_header(headers, *name);
        if (value && !strpbrk(value, "\r\n")) {
            x->passed[x->n_passed++] = (passed_header){*name, value}; /* the request's, which lives until finish */
        }
    }
    x->debug = h->debug && strcmp(h->debug, "1") == 0;
}

/* Its number, and before it what nobody can guess from another one's. */
static void name_exchange(front *f, exchange *x) {
    uint64_t hash = htobe64(hash64(&f->next_id, sizeof f->next_id, hash_seed()));
    uint32_t number = htobe32((uint32_t)f->next_id++);
    hex_encode(&hash, sizeof hash, x->id);
    hex_encode(&number, sizeof number, x->id + 2 * sizeof hash);
}

void client_begin(front *f, struct evhttp_request *r, const heads *h, request_kind kind, const dialect *speaks) {
    struct evbuffer *in = evhttp_request_get_input_buffer(r);
    size_t           n = evbuffer_get_length(in);
    if (n > REQUEST_MAX_BODY) {
        reply_error(r, 413, ERR_LIMIT, "", "The body has %zu bytes; the limit is %u (32 MiB).", n, REQUEST_MAX_BODY);
        return;
    }
    const char *body = n ? (const char *)evbuffer_pullup(in, -1) : "";
    exchange   *x = body ? exchange_new(4096) : NULL;
    client     *c = x ? arena_zero(x->memory, 1, sizeof *c) : NULL;
    if (!c) {
        if (x) {
            exchange_free(x);
        }
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
        return;
    }
    generation *of = generation_hold(f->now);
    *c = (client){.next = f->clients, .link = &f->clients, .front = f, .of = of, .request = r, .exchange = x};
    if (f->clients) {
        f->clients->link = &c->next;
    }
    f->clients = c;
    x->arrived_us = clock_us();
    x->arrived_wall_us = clock_wall_us();
    x->loop = f->loop;
    x->gateway = &of->gateway;
    x->speaks = speaks;
    x->kind = kind;
    x->body = body; /* lives as long as the request, which is until finish */
    x->body_len = n;
    x->sink = &sink;
    x->client = c;
    name_exchange(f, x);
    read_headers(x, r, h);
    observe_begin(of, x, r);
    atomic_fetch_add(&f->open, 1);
    if (server_draining(f->server)) {
        evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
    }
    connection_watch(evhttp_request_get_connection(r), on_close, c);
    pipeline_start(&f->house->pipeline, x);
}

/* ---- the end of the server ---- */

void client_stop_all(front *f) {
    for (client *c = f->clients, *next; c; c = next) {
        next = c->next; /* a cancel may finish at once, which frees this one and no other */
        c->stopped = true;
        pipeline_cancel(c->exchange);
    }
}

void client_drop_all(front *f) {
    while (f->clients) {
        client *c = f->clients;
        if (c->gone && c->request) {
            evhttp_request_free(c->request);
        }
        release(c);
    }
}
