/* client.c - one exchange over HTTP: reads the request, starts the walk, writes the answer whole or as a stream.
 *
 * A connection that closes while its exchange works cancels it. evhttp (2.1) then takes the request out of its list, sets
 * its connection to NULL and leaves it to us: it is freed in finish.                                                 */
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "serve/front.h"
#include "serve/server.h"

#define MAX_BODY   (32u << 20)
#define MAX_UNREAD (16u << 20) /* a client that does not read its stream is let go */

typedef struct client {
    struct client         *next, **link; /* in the front's list */
    front                 *front;
    struct evhttp_request *request;
    exchange              *exchange;
    bool                   gone;    /* the connection has closed */
    bool                   stopped; /* pare itself ends the work */
    bool                   started; /* the stream's headers are out */
    bool                   usage_sent;
    int                    choices_begun; /* highest choice index whose first chunk is out, plus one */
} client;

/* ---- headers ---- */

static void add_money(struct evkeyvalq *headers, const char *name, int64_t micro) {
    char text[32];
    snprintf(text, sizeof text, "%lld.%06lld", (long long)(micro / 1000000), (long long)(micro % 1000000));
    evhttp_add_header(headers, name, text);
}

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

static void add_headers(const client *c, const char *type, bool money) {
    const exchange   *x = c->exchange;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(c->request);
    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "x-request-id", x->id);
    if (x->answered_by[0]) {
        evhttp_add_header(headers, "x-pare-answered-by", x->answered_by);
    }
    if (money) {
        add_money(headers, "x-pare-cost-usd", x->cost_micro);
        add_money(headers, "x-pare-saved-usd", x->saved_micro);
    }
    char kv[160];
    if (kv_text(x, kv, sizeof kv)) {
        evhttp_add_header(headers, "x-pare-kv", kv);
    }
    if (x->retry_after) {
        evhttp_add_header(headers, "Retry-After", x->retry_after); /* evhttp refuses values with line breaks */
    }
}

/* ---- the end of a client ---- */

static void release(client *c) {
    *c->link = c->next;
    if (c->next) {
        c->next->link = c->link;
    }
    exchange_free(c->exchange); /* the client lives in its arena */
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
static void leave(const client *c) {
    struct evhttp_connection *connection = evhttp_request_get_connection(c->request);
    struct timeval            limit = {.tv_sec = IDLE_S};
    evhttp_connection_set_closecb(connection, on_unsent, c->front);
    evhttp_request_set_on_complete_cb(c->request, on_sent, c->front);
    bufferevent_set_timeouts(evhttp_connection_get_bufferevent(connection), NULL, &limit);
}

/* ---- streams ---- */

static void send_chunk(client *c) {
    struct evbuffer *out = c->front->scratch;
    evhttp_send_reply_chunk(c->request, out);
    evbuffer_drain(out, evbuffer_get_length(out));
}

static void start_stream(client *c) {
    const exchange   *x = c->exchange;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(c->request);
    add_headers(c, "text/event-stream; charset=utf-8", x->hit != NULL);
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    evhttp_add_header(headers, "X-Accel-Buffering", "no"); /* an nginx in front must not collect the stream */
    reply_start_stream(c->request);
    c->started = true;
}

/* A provider may spread one payload over several data lines; it came joined by LF, and is parted there again. */
static void put_data(client *c, const char *json, size_t n) {
    struct evbuffer *out = c->front->scratch;
    const char      *end = json + n, *line_end;
    for (const char *at = json; at <= end; at = line_end + 1) {
        line_end = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        line_end = line_end ? line_end : end;
        evbuffer_add(out, "data: ", 6);
        evbuffer_add(out, at, (size_t)(line_end - at));
        evbuffer_add(out, "\n", 1);
    }
    evbuffer_add(out, "\n", 1);
}

static bool only_usage(const event *ev) {
    return ev->usage && !ev->text && !ev->finish && !ev->tool_calls && !ev->reasoning && !ev->refusal;
}

static void put_event(client *c, const event *ev) {
    const exchange *x = c->exchange;
    bool            usage_alone = only_usage(ev);
    if (usage_alone && !x->request.include_usage) {
        return; /* pare asked the provider for it; this client did not */
    }
    c->usage_sent = c->usage_sent || (ev->usage && ev->usage->known);
    if (ev->raw_dialect && ev->raw_dialect == x->speaks) {
        if (ev->raw) { /* else a further event of a payload that has been passed on whole */
            put_data(c, ev->raw, ev->raw_len);
        }
        return;
    }
    str *text = &c->front->text;
    str_clear(text);
    bool first = ev->choice >= c->choices_begun;
    if (first) {
        c->choices_begun = ev->choice + 1;
    }
    bool ok = usage_alone ? x->speaks->write_usage(x->kind, &x->answer, ev->usage, text)
                          : x->speaks->write_chunk(x->kind, &x->answer, ev, first, text);
    if (ok && !text->failed) {
        put_data(c, text->data, text->len);
    }
}

static void on_event(exchange *x, const event *ev) {
    client *c = x->client;
    if (c->gone || !x->request.stream || ev->kind != EVENT_DELTA) {
        return;
    }
    if (!c->started) {
        start_stream(c);
    }
    put_event(c, ev);
    if (evbuffer_get_length(c->front->scratch) > 0) {
        send_chunk(c);
    }
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
        put_event(c, &ev);
        event end = {.kind = EVENT_DELTA, .choice = i, .finish = k->finish[0] ? k->finish : "stop"};
        put_event(c, &end);
    }
}

static bool replay_hit(client *c) {
    exchange *x = c->exchange;
    err       why = {0};
    usage     kept = x->answer.usage;
    answer_clear(&x->answer);
    if (!dialect_openai.read_answer(x->kind, x->hit->body, x->hit->len, &x->answer, &why)) {
        return false;
    }
    if (!x->answer.usage.known) {
        x->answer.usage = kept;
    }
    replay(c, &x->answer);
    return true;
}

static void end_stream(client *c) {
    exchange        *x = c->exchange;
    struct evbuffer *out = c->front->scratch;
    if (x->request.include_usage && !c->usage_sent && x->answer.usage.known) {
        event ev = {.kind = EVENT_DELTA, .usage = &x->answer.usage};
        put_event(c, &ev);
    }
    /* Price and tokens are known only now, after the headers: as comments, which SSE readers pass over. */
    evbuffer_add_printf(out,
                        ": x-pare-cost-usd %lld.%06lld\n: x-pare-saved-usd %lld.%06lld\n: x-pare-tokens %lld %lld\n",
                        (long long)(x->cost_micro / 1000000), (long long)(x->cost_micro % 1000000),
                        (long long)(x->saved_micro / 1000000), (long long)(x->saved_micro % 1000000),
                        (long long)x->answer.usage.prompt, (long long)x->answer.usage.completion);
    char kv[160];
    if (kv_text(x, kv, sizeof kv)) {
        evbuffer_add_printf(out, ": x-pare-kv %s\n", kv);
    }
    evbuffer_add(out, "\ndata: [DONE]\n\n", 15);
    send_chunk(c);
    evhttp_send_reply_end(c->request);
}

static void finish_stream(client *c) {
    exchange *x = c->exchange;
    bool      live = c->started;
    if (!c->started) {
        start_stream(c);
    }
    if (x->hit && !replay_hit(c)) { /* cannot happen with what recall stores; say so rather than end cleanly */
        static const char broken[] =
            "data: {\"error\":{\"message\":\"The stored answer cannot be read; retry with "
            "Cache-Control: no-cache.\",\"type\":\"api_error\",\"param\":null,\"code\":null}}\n\n";
        evbuffer_add(c->front->scratch, broken, sizeof broken - 1);
        send_chunk(c);
        evhttp_send_reply_end(c->request);
        return;
    }
    if (!x->hit && !live) {
        replay(c, &x->answer); /* the backend gave it whole */
    }
    end_stream(c);
}

/* ---- whole answers and errors ---- */

static void finish_error(client *c) {
    exchange *x = c->exchange;
    str       json = {0};
    /* The provider's own words, untouched, when client and provider speak the same dialect. */
    if (x->error_body && !c->started) {
        add_headers(c, x->error_type ? x->error_type : "application/json", false);
        evbuffer_add(evhttp_request_get_output_buffer(c->request), x->error_body, x->error_body_len);
        evhttp_send_reply(c->request, x->status, reason_of(x->status), NULL);
        return;
    }
    if (!x->speaks->write_error(&x->failed, x->status, &json) || json.failed) {
        str_free(&json);
        str_adds(&json,
                 "{\"error\":{\"message\":\"Out of memory.\",\"type\":\"api_error\",\"param\":null,\"code\":null}}");
    }
    if (c->started) { /* an error event, and no [DONE]: never a clean stop */
        put_data(c, json.data, json.len);
        send_chunk(c);
        evhttp_send_reply_end(c->request);
    } else {
        add_headers(c, "application/json", false);
        evbuffer_add(evhttp_request_get_output_buffer(c->request), json.data, json.len);
        evhttp_send_reply(c->request, x->status, reason_of(x->status), NULL);
    }
    str_free(&json);
}

static void release_hit(const void *data, size_t n, void *entry) {
    (void)data;
    (void)n;
    cached_release(entry);
}

static void finish_whole(client *c) {
    exchange        *x = c->exchange;
    struct evbuffer *out = evhttp_request_get_output_buffer(c->request);
    if (x->hit) { /* the bytes go out from the cache itself; the reference moves to the buffer */
        if (evbuffer_add_reference(out, x->hit->body, x->hit->len, release_hit, (void *)x->hit) == 0) {
            x->hit = NULL;
        }
    } else if (x->answer.raw && x->answer.raw_dialect == x->speaks) {
        evbuffer_add(out, x->answer.raw, x->answer.raw_len);
    } else {
        str json = {0};
        if (!x->speaks->write_answer(x->kind, &x->answer, &json) || json.failed) {
            str_free(&json);
            exchange_fail(x, 500, ERR_MEMORY, "", "The answer could not be written: out of memory.");
            finish_error(c);
            return;
        }
        evbuffer_add(out, json.data, json.len);
        str_free(&json);
    }
    add_headers(c, "application/json", true);
    evhttp_send_reply(c->request, 200, "OK", NULL);
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
        leave(c);
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

static const exchange_sink sink = {.event = on_event, .finish = on_finish};

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

static void read_headers(exchange *x, struct evhttp_request *r) {
    struct evkeyvalq *headers = evhttp_request_get_input_headers(r);
    const char       *control = evhttp_find_header(headers, "Cache-Control");
    x->bearer = bearer_of(r);
    x->no_cache = control && has_word(control, "no-cache");
    x->no_store = control && has_word(control, "no-store");
    const char *debug = evhttp_find_header(headers, "x-pare-debug");
    x->debug = debug && strcmp(debug, "1") == 0;
}

void client_begin(front *f, struct evhttp_request *r, request_kind kind) {
    struct evbuffer *in = evhttp_request_get_input_buffer(r);
    size_t           n = evbuffer_get_length(in);
    if (n > MAX_BODY) {
        reply_error(r, 413, ERR_LIMIT, "", "The body has %zu bytes; the limit is %u (32 MiB).", n, MAX_BODY);
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
    *c = (client){.next = f->clients, .link = &f->clients, .front = f, .request = r, .exchange = x};
    if (f->clients) {
        f->clients->link = &c->next;
    }
    f->clients = c;
    x->arrived_us = clock_us();
    x->arrived_wall_us = clock_wall_us();
    x->loop = f->loop;
    x->gateway = &f->house->gateway;
    x->speaks = &dialect_openai;
    x->kind = kind;
    x->body = body; /* lives as long as the request, which is until finish */
    x->body_len = n;
    x->sink = &sink;
    x->client = c;
    snprintf(x->id, sizeof x->id, "%016llx%08llx",
             (unsigned long long)hash64(&f->next_id, sizeof f->next_id, hash_seed()),
             (unsigned long long)(f->next_id & 0xffffffffu));
    f->next_id++;
    read_headers(x, r);
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
