/* remote.c - a provider behind a base URL, called over a wire (wire.h) on the exchange's own loop.
 *
 * A stream is handed on as it comes, event by event, nothing held back. An error of the provider goes back with its
 * status and its body. A stream that ends without its end mark is an error, never a clean stop.                     */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backend/backend.h"
#include "backend/wire.h"
#include "base/clock.h"
#include "base/hash.h"
#include "dialect/sse.h"
#include "dialect/values.h"

#define MAX_LOOPS      256
#define MAX_HEADERS    15
#define MAX_LINES      48 /* headers of one call */
#define MAX_ANSWER     (64u << 20)
#define MAX_ERROR_BODY (1u << 20)
#define LINGER_MS      250 /* for an upstream that has said its end mark and does not end the transfer */

typedef struct remote {
    backend        base;
    char          *name, *base_url, *api_version;
    const dialect *speaks;
    char          *headers[MAX_HEADERS + 1]; /* lines; NULL at the end */
    int            n_headers;
    wire          *over;
    int64_t        first_us, between_us, total_us;
    backend_call  *running[MAX_LOOPS]; /* by loop */
} remote;

struct backend_call {
    loop_task        stop; /* cancel, outside the wire's events */
    backend_call    *next, *prev;
    remote          *of;
    loop            *home;
    const request   *request;
    str              headers; /* lines of this call, when a client's headers pass on */
    void            *state;   /* the dialect's, of the stream */
    backend_event_fn fn;
    void            *ctx;
    wire_call       *over; /* NULL: it has ended */
    struct event    *timer;
    str              body; /* what we send, when it is not the client's own bytes */
    str              text; /* a whole answer or an error body */
    sse_reader       sse;
    char             type[96], retry_after[64];
    int              status;
    bool             heard, streaming, ended, too_large, cancelled, timed_out, overdue, lingered;
    int              open_choices, finished_choices;
    uint64_t         finished[2]; /* bit: the choice has its finish reason; some providers say it twice */
    usage            usage;
    int64_t          begun_us, heard_us;
    err              broken; /* what sse_feed or the dialect found */
};

/* ---- what comes in ---- */

static void count_finishes(backend_call *c, const event *ev) {
    if (ev->choice + 1 > c->open_choices) {
        c->open_choices = ev->choice + 1;
    }
    if (ev->finish && ev->choice >= 0 && ev->choice < 128) {
        uint64_t *word = &c->finished[ev->choice / 64], bit = (uint64_t)1 << ev->choice % 64;
        c->finished_choices += !(*word & bit);
        *word |= bit;
    }
}

static void pass_on(void *arg, const event *ev) {
    backend_call *c = arg;
    if (c->cancelled) {
        return;
    }
    if (ev->kind == EVENT_DELTA) {
        count_finishes(c, ev);
        if (ev->usage && ev->usage->known) {
            c->usage = *ev->usage;
        }
    }
    c->fn(c->ctx, ev);
}

static bool on_payload(void *arg, const char *data, size_t n) {
    backend_call *c = arg;
    if (c->ended) {
        return true; /* whatever follows the end mark is not read */
    }
    if (!c->of->speaks->read_chunk(c->request->kind, c->state, data, n, pass_on, c, &c->ended, &c->broken)) {
        return false;
    }
    if (c->ended) { /* the connection is kept when the transfer ends by itself, which it does at once as a rule */
        struct timeval tv = {.tv_usec = LINGER_MS * 1000};
        evtimer_add(c->timer, &tv);
    }
    return true;
}

static bool is_stream(const char *type) {
    return strncasecmp(type, "text/event-stream", strlen("text/event-stream")) == 0;
}

static void on_head(void *arg, int status, const char *type, const char *retry_after) {
    backend_call *c = arg;
    c->heard = true;
    c->status = status;
    snprintf(c->type, sizeof c->type, "%s", type);
    snprintf(c->retry_after, sizeof c->retry_after, "%s", retry_after);
    c->streaming = status < 300 && is_stream(type);
}

static bool on_body(void *arg, const char *bytes, size_t n) {
    backend_call *c = arg;
    if (c->cancelled) {
        return false;
    }
    c->heard_us = clock_us();
    if (c->streaming) {
        return sse_feed(&c->sse, bytes, n, on_payload, c, &c->broken) && !c->cancelled;
    }
    if (c->text.len + n > (c->status < 300 ? MAX_ANSWER : MAX_ERROR_BODY)) {
        c->too_large = true;
        return false;
    }
    return str_add(&c->text, bytes, n);
}

/* ---- the end ---- */

static void put_away(backend_call *c) {
    remote *r = c->of;
    int     i = loop_index(c->home);
    if (c->prev) {
        c->prev->next = c->next;
    } else if (r->running[i] == c) {
        r->running[i] = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    if (c->timer) {
        event_free(c->timer);
    }
    str_free(&c->headers);
    free(c->state);
    str_free(&c->body);
    str_free(&c->text);
    sse_clear(&c->sse);
    free(c);
}

static void finish_error(backend_call *c, const err *why, int status) {
    event ev = {.kind = EVENT_ERROR,
                .error = why,
                .status = status,
                .usage = c->usage.known ? &c->usage : NULL,
                .begun = c->heard && c->status >= 200 && c->status < 300,
                .raw_dialect = c->of->speaks};
    if (c->retry_after[0]) {
        ev.retry_after = c->retry_after;
    }
    if (c->heard && c->status >= 400 && c->text.len > 0) {
        ev.body = c->text.data;
        ev.body_len = c->text.len;
        ev.body_type = c->type[0] ? c->type : "application/json";
    }
    backend_event_fn fn = c->fn;
    void            *ctx = c->ctx;
    fn(ctx, &ev);
    put_away(c);
}

static void finish_done(backend_call *c) {
    event ev = {.kind = EVENT_DONE, .usage = c->usage.known ? &c->usage : NULL};
    c->fn(c->ctx, &ev);
    put_away(c);
}

static void finish_whole(backend_call *c) {
    answer whole = {0};
    err    why = {0};
    if (!c->of->speaks->read_answer(c->request->kind, c->text.data ? c->text.data : "", c->text.len, &whole, &why) ||
        (!dialect_same(c->request->from, c->of->speaks) && !values_finish(c->request, &whole, &why))) {
        answer_clear(&whole);
        err_prefix(&why, "%s answered with something that is not an answer", c->of->name);
        why.code = ERR_UPSTREAM;
        finish_error(c, &why, 502);
        return;
    }
    if (!whole.raw) { /* the bytes themselves, so that the same dialect passes them on untouched */
        whole.raw_len = c->text.len;
        whole.raw = str_take(&c->text);
        whole.raw_dialect = c->of->speaks;
    }
    c->usage = whole.usage;
    event ev = {.kind = EVENT_WHOLE, .whole = &whole};
    c->fn(c->ctx, &ev);
    answer_clear(&whole);
    if (!c->cancelled) { /* else by who heard that: its stop task is on the way */
        finish_done(c);
    }
}

/* The sentence for a transfer that did not come to its end. What came of an error's body is not handed on: half of it
 * would be shown as if it were whole. */
static int explain(backend_call *c, wire_end end, const char *reason, err *why) {
    const char *name = c->of->name;
    str_clear(&c->text);
    if (c->overdue && c->heard) {
        err_set(why, ERR_TIMEOUT, "%s did not come to the end of its answer in time (%.1f s).", name,
                (double)(clock_us() - c->begun_us) / 1e6);
        return 504;
    }
    if (c->timed_out || end == WIRE_TIMEOUT) {
        err_set(why, ERR_TIMEOUT, "%s did not %s in time (%.1f s).", name,
                c->heard ? "go on with its answer" : "answer",
                (double)(clock_us() - (c->heard ? c->heard_us : c->begun_us)) / 1e6);
        return 504;
    }
    if (c->too_large) {
        err_set(why, ERR_UPSTREAM, "%s sent an answer larger than pare reads.", name);
        return c->status >= 400 ? c->status : 502;
    }
    if (c->broken.code != ERR_NONE) {
        *why = c->broken;
        err_prefix(why, "%s", name);
        why->code = ERR_UPSTREAM;
    } else if (end == WIRE_UNREACHABLE) {
        err_set(why, ERR_UPSTREAM, "%s cannot be reached (%s). Is its base_url right, and is it up?", name, reason);
    } else if (c->heard) {
        err_set(why, ERR_UPSTREAM, "%s broke off in the middle of its answer (%s).", name, reason);
    } else {
        err_set(why, ERR_UPSTREAM, "%s did not answer (%s).", name, reason);
    }
    return 502;
}

/* For clients of another dialect, who cannot read the provider's own body: its sentence. */
static void refused(backend_call *c, err *why) {
    cJSON      *root = c->text.len ? json_parse(c->text.data, c->text.len, JSON_MAX_DEPTH, NULL) : NULL;
    const char *sentence = dialect_error_text(root && cJSON_IsArray(root) ? root->child : root);
    err_set(why, ERR_UPSTREAM, "%s answered with status %d%s%.300s", c->of->name, c->status, sentence ? ": " : ".",
            sentence ? sentence : "");
    cJSON_Delete(root);
}

static void on_done(void *arg, wire_end end, const char *reason) {
    backend_call *c = arg;
    err           why = {0};
    c->over = NULL;
    if (c->cancelled) {
        return; /* its stop task is on the way and finishes the call */
    }
    if (end == WIRE_OK && c->streaming && sse_partial(&c->sse)) { /* an end mark without its empty line */
        sse_feed(&c->sse, "\n\n", 2, on_payload, c, &c->broken);
        if (c->cancelled) { /* by who heard that */
            return;
        }
    }
    if (c->streaming && c->ended && c->broken.code == ERR_NONE) {
        finish_done(c); /* the end mark came; how the connection closed does not matter */
    } else if (end != WIRE_OK || c->broken.code != ERR_NONE) {
        int status = explain(c, end, reason, &why);
        finish_error(c, &why, status);
    } else if (c->status >= 300) {
        refused(c, &why);
        finish_error(c, &why, c->status >= 400 ? c->status : 502);
    } else if (!c->streaming) {
        finish_whole(c);
    } else if (c->finished_choices >= c->open_choices) {
        finish_done(c); /* some providers leave the end mark out after the last finish reason */
    } else {
        err_set(&why, ERR_UPSTREAM, "%s ended its stream in the middle of the answer.", c->of->name);
        finish_error(c, &why, 502);
    }
}

static void run_stop(loop_task *task) {
    backend_call *c = (backend_call *)((char *)task - offsetof(backend_call, stop));
    if (c->over) {
        c->of->over->ops->abort(c->over);
        c->over = NULL;
    }
    err why = {0};
    if (c->lingered) {
        finish_done(c);
        return;
    }
    if (c->timed_out) {
        int status = explain(c, WIRE_TIMEOUT, "", &why);
        finish_error(c, &why, status);
        return;
    }
    str_clear(&c->text);
    err_set(&why, ERR_CANCELLED, "The client went away.");
    finish_error(c, &why, 499);
}

static void stop(backend_call *c) {
    if (!c->cancelled) {
        c->cancelled = true;
        c->stop.run = run_stop;
        loop_post(c->home, &c->stop);
    }
}

static void remote_cancel(backend_call *c) {
    stop(c);
}

/* One timer a call, not re-armed by every chunk: when it fires it looks at when we last heard something. */
static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    backend_call *c = arg;
    if (c->cancelled) {
        return;
    }
    if (c->ended) {
        c->lingered = true;
        stop(c);
        return;
    }
    int64_t limit = c->heard ? c->of->between_us : c->of->first_us;
    int64_t now = clock_us();
    int64_t left = (c->heard ? c->heard_us : c->begun_us) + limit - now;
    int64_t all = c->begun_us + c->of->total_us - now;
    if (left <= 0 || all <= 0) {
        c->timed_out = true;
        c->overdue = left > 0;
        stop(c);
        return;
    }
    left = left < all ? left : all;
    struct timeval tv = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
    evtimer_add(c->timer, &tv);
}

/* ---- the start ---- */

/* One line behind another, each with its NUL; the pointers are made when all have their place. */
static void add_line(str *lines, const char *name, const char *value) {
    str_adds(lines, name);
    if (value) {
        str_add(lines, ": ", 2);
        str_adds(lines, value);
    }
    str_addc(lines, '\0');
}

static bool is_replaced(const request *q, int n_passed, const char *line) {
    for (int i = 0; i < n_passed; i++) {
        size_t n = strlen(q->passed[i].name);
        if (strncasecmp(line, q->passed[i].name, n) == 0 && line[n] == ':') {
            return true;
        }
    }
    return false;
}

/* The headers of every call, the request's place in a trace, and those of this client that mean something to the same kind
 * of provider. They are checked when they are read: no line breaks. NULL in *out: those of every call alone. */
static bool pass_headers(backend_call *c, const char *lines[static MAX_LINES + 1], const char *const **out) {
    const request *q = c->request;
    int            n_passed = dialect_same(q->from, c->of->speaks) ? q->n_passed : 0;
    *out = NULL;
    if (n_passed == 0 && !q->traceparent) {
        return true;
    }
    for (char *const *h = c->of->headers; *h; h++) {
        if (!is_replaced(q, n_passed, *h)) {
            add_line(&c->headers, *h, NULL);
        }
    }
    for (int i = 0; i < n_passed; i++) {
        add_line(&c->headers, q->passed[i].name, q->passed[i].value);
    }
    if (q->traceparent) {
        add_line(&c->headers, "traceparent", q->traceparent);
    }
    if (q->traceparent && q->tracestate) {
        add_line(&c->headers, "tracestate", q->tracestate);
    }
    int n = 0;
    for (size_t at = 0; !c->headers.failed && at < c->headers.len && n < MAX_LINES; n++) {
        lines[n] = c->headers.data + at;
        at += strlen(lines[n]) + 1;
    }
    lines[n] = NULL;
    *out = lines;
    return !c->headers.failed;
}

/* The client's own bytes will do: nothing is to be put in. */
static bool untouched(const remote *r, const request *q, const char *model, bool ask_usage) {
    return dialect_same(q->from, r->speaks) && !ask_usage && strcmp(model, q->model) == 0 &&
           request_most(q) == q->max_tokens;
}

static const wire_events events = {.head = on_head, .body = on_body, .done = on_done};

static bool send_request(backend_call *c, const char *model, err *e) {
    remote        *r = c->of;
    const request *q = c->request;
    const char    *bytes = q->raw;
    size_t         n = q->raw_len;
    bool           ask_usage = q->stream && !q->include_usage;
    if (!untouched(r, q, model, ask_usage)) {
        if (!r->speaks->write_request(q, model, ask_usage, &c->body, e)) {
            return false;
        }
        if (c->body.failed) {
            return err_set(e, ERR_MEMORY, "The request could not be written: out of memory.");
        }
        bytes = c->body.data;
        n = c->body.len;
    }
    str      url = {0};
    place_of place = {
        .kind = q->kind, .base = r->base_url, .model = model, .api_version = r->api_version, .stream = q->stream};
    const char        *lines[MAX_LINES + 1];
    const char *const *headers = NULL;
    bool               known = r->speaks->write_url(&place, &url);
    bool               good = known && !url.failed && pass_headers(c, lines, &headers);
    if (!known) {
        err_set(e, ERR_UNSUPPORTED, "The backend %s (%s) does not answer requests of this kind.", r->name,
                r->speaks->name);
    } else if (!good) {
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
    } else {
        wire_request w = {.url = url.data, .headers = headers, .body = bytes, .body_len = n};
        c->over = r->over->ops->start(r->over, c->home, &w, &events, c, e);
    }
    str_free(&url);
    return c->over != NULL;
}

static backend_call *remote_start(backend *b, loop *l, const request *q, const char *model, backend_event_fn fn,
                                  void *ctx, err *e) {
    remote       *r = (remote *)b;
    backend_call *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        return NULL;
    }
    c->of = r;
    c->home = l;
    c->request = q;
    c->fn = fn;
    c->ctx = ctx;
    /* As many answers as were asked for must come to their end, where no end mark says that all have. */
    c->open_choices = (q->n_prompts > 1 ? q->n_prompts : 1) * (q->n > 1 ? (int)q->n : 1);
    c->begun_us = clock_us();
    c->state = r->speaks->reading ? calloc(1, r->speaks->reading) : NULL;
    c->timer = evtimer_new(loop_base(l), on_timer, c);
    int64_t        limit = r->first_us < r->total_us ? r->first_us : r->total_us;
    struct timeval tv = {.tv_sec = limit / 1000000, .tv_usec = limit % 1000000};
    if ((!c->state && r->speaks->reading) || !c->timer || evtimer_add(c->timer, &tv) != 0) {
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        put_away(c);
        return NULL;
    }
    if (!send_request(c, model, e)) {
        put_away(c);
        return NULL;
    }
    c->next = r->running[loop_index(l)];
    if (c->next) {
        c->next->prev = c;
    }
    r->running[loop_index(l)] = c;
    return c;
}

/* ---- making and ending ---- */

/* The loops have ended by now: what still runs ends without a word. */
static void remote_close(backend *b) {
    remote *r = (remote *)b;
    for (int i = 0; r->over && i < MAX_LOOPS; i++) { /* without a wire nothing has run */
        for (backend_call *c = r->running[i], *next; c; c = next) {
            next = c->next;
            if (c->over) {
                r->over->ops->abort(c->over);
            }
            put_away(c);
        }
    }
    if (r->over) {
        r->over->ops->close(r->over);
    }
    for (int i = 0; i < r->n_headers; i++) {
        free(r->headers[i]);
    }
    free(r->name);
    free(r->base_url);
    free(r->api_version);
    free(r);
}

static const backend_ops ops = {
    .kind = "remote", .start = remote_start, .cancel = remote_cancel, .close = remote_close};

/* Without slashes at its end. */
static char *trimmed(const char *base) {
    size_t n = strlen(base);
    while (n > 0 && base[n - 1] == '/') {
        n--;
    }
    return strndup(base, n);
}

static bool add_header(remote *r, const char *text, const char *more) {
    size_t n = strlen(text) + strlen(more) + 1;
    char  *line = r->n_headers < MAX_HEADERS ? malloc(n) : NULL;
    if (line) {
        snprintf(line, n, "%s%s", text, more);
        r->headers[r->n_headers++] = line;
    }
    return line != NULL;
}

static bool set_headers(remote *r, const char *api_key) {
    bool ok = add_header(r, "Content-Type: application/json", "") && add_header(r, "User-Agent: pare/", PARE_VERSION) &&
              (!api_key || add_header(r, r->speaks->key_header, api_key));
    for (const char *const *more = r->speaks->headers; ok && more && *more; more++) {
        ok = add_header(r, *more, "");
    }
    return ok;
}

static int64_t or_default(int64_t us, int64_t seconds) {
    return us > 0 ? us : seconds * 1000000;
}

static bool check_options(const char *name, const remote_options *o, err *e) {
    if (!o->base_url || (strncmp(o->base_url, "http://", 7) != 0 && strncmp(o->base_url, "https://", 8) != 0)) {
        return err_set(e, ERR_INVALID, "Backend %s: base_url must begin with http:// or https://.", name);
    }
    for (const char *p = o->base_url; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == '?' || *p == '#') {
            return err_set(e, ERR_INVALID, "Backend %s: base_url must not hold blanks, '?' or '#'.", name);
        }
    }
    if (o->api_key && strpbrk(o->api_key, "\r\n")) {
        return err_set(e, ERR_INVALID, "Backend %s: api_key must not hold a line break.", name);
    }
    return true;
}

backend *backend_remote(const char *name, const remote_options *o, err *e) {
    if (!check_options(name, o, e)) {
        return NULL;
    }
    remote *r = calloc(1, sizeof *r);
    if (!r) {
        err_set(e, ERR_MEMORY, "Backend %s: out of memory.", name);
        return NULL;
    }
    r->base.ops = &ops;
    r->name = strdup(name);
    r->base.name = r->name;
    r->speaks = o->speaks ? o->speaks : &dialect_openai;
    r->base_url = trimmed(o->base_url);
    r->api_version = o->api_version ? strdup(o->api_version) : NULL;
    r->first_us = or_default(o->first_us, 120);
    r->between_us = or_default(o->between_us, 60);
    r->total_us = or_default(o->total_us, 600);
    if (!r->name || !r->base_url || !r->api_version != !o->api_version || !set_headers(r, o->api_key)) {
        remote_close(&r->base);
        err_set(e, ERR_MEMORY, "Backend %s: out of memory.", name);
        return NULL;
    }
    wire_options over = {.base_url = r->base_url,
                         .headers = (const char *const *)r->headers,
                         .connect_us = or_default(o->connect_us, 10),
                         .http2 = o->http2,
                         .ca_file = o->ca_file};
    r->over = wire_new(&over, e);
    if (!r->over) {
        remote_close(&r->base);
        err_prefix(e, "Backend %s", name);
        return NULL;
    }
    sha256 hash = sha256_of(r->base_url, strlen(r->base_url));
    hex_encode(hash.bytes, sizeof hash.bytes, r->base.fingerprint);
    return &r->base;
}
