/* remote.c - a provider behind a base URL, called through libcurl on the exchange's own loop.
 *
 * A stream is handed on as it comes, event by event, nothing held back. An error of the provider goes back with its
 * status and its body. A stream that ends without its end mark is an error, never a clean stop.                     */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backend/backend.h"
#include "backend/http_client.h"
#include "base/clock.h"
#include "base/hash.h"
#include "dialect/sse.h"
#include "dialect/values.h"

#define MAX_LOOPS      256
#define MAX_IDLE       128
#define MAX_ANSWER     (64u << 20)
#define MAX_ERROR_BODY (1u << 20)
#define LINGER_MS      250 /* for an upstream that has said its end mark and does not end the transfer */

typedef struct remote {
    backend            base;
    char              *name, *base_url, *api_version;
    const dialect     *speaks;
    struct curl_slist *headers;
    char              *ca_file;
    int64_t            connect_us, first_us, between_us, total_us;
    bool               http2;
    struct { /* easy handles that rest, by loop: options that never change are set once; and the calls that run */
        CURL         *idle[MAX_IDLE];
        int           count;
        backend_call *running;
    } handles[MAX_LOOPS];
} remote;

struct backend_call {
    http_transfer      transfer; /* first: libcurl's private pointer */
    loop_task          stop;     /* cancel, outside libcurl's callbacks */
    backend_call      *next, *prev;
    remote            *of;
    loop              *home;
    http_client       *client;
    const request     *request;
    struct curl_slist *headers; /* of this call, when a client's headers pass on; else NULL */
    void              *state;   /* the dialect's, of the stream */
    backend_event_fn   fn;
    void              *ctx;
    CURL              *easy;
    struct event      *timer;
    str                body; /* what we send, when it is not the client's own bytes */
    str                text; /* a whole answer or an error body */
    sse_reader         sse;
    char               type[96], retry_after[64];
    long               status;
    bool               heard, streaming, ended, too_large, cancelled, timed_out, lingered;
    int                open_choices, finished_choices;
    uint64_t           finished[2]; /* bit: the choice has its finish reason; some providers say it twice */
    usage              usage;
    int64_t            begun_us, heard_us;
    err                broken; /* what sse_feed or the dialect found */
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

static void first_bytes(backend_call *c) {
    c->heard = true;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &c->status);
    c->streaming = c->status < 300 && is_stream(c->type);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
    backend_call *c = arg;
    size_t        n = size * count;
    if (c->cancelled) {
        return 0;
    }
    if (!c->heard) {
        first_bytes(c);
    }
    c->heard_us = clock_us();
    if (c->streaming) {
        return sse_feed(&c->sse, bytes, n, on_payload, c, &c->broken) && !c->cancelled ? n : 0;
    }
    if (c->text.len + n > (c->status < 300 ? MAX_ANSWER : MAX_ERROR_BODY)) {
        c->too_large = true;
        return 0;
    }
    return str_add(&c->text, bytes, n) ? n : 0;
}

static void keep_header(const char *line, size_t n, const char *name, char *out, size_t size) {
    size_t length = strlen(name);
    if (n <= length + 1 || strncasecmp(line, name, length) != 0 || line[length] != ':') {
        return;
    }
    const char *from = line + length + 1;
    const char *end = line + n;
    while (from < end && (*from == ' ' || *from == '\t')) {
        from++;
    }
    while (end > from && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) {
        end--;
    }
    snprintf(out, size, "%.*s", (int)(end - from), from);
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg) {
    backend_call *c = arg;
    size_t        n = size * count;
    if (n > 5 && strncmp(bytes, "HTTP/", 5) == 0) { /* a new status line, after 100 or a proxy's own */
        c->type[0] = c->retry_after[0] = '\0';
    }
    keep_header(bytes, n, "content-type", c->type, sizeof c->type);
    keep_header(bytes, n, "retry-after", c->retry_after, sizeof c->retry_after);
    return n;
}

/* ---- the end ---- */

static void put_away(backend_call *c) {
    remote *r = c->of;
    int     i = loop_index(c->home);
    if (c->prev) {
        c->prev->next = c->next;
    } else if (r->handles[i].running == c) {
        r->handles[i].running = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    if (c->easy) {
        if (r->handles[i].count < MAX_IDLE) {
            r->handles[i].idle[r->handles[i].count++] = c->easy;
        } else {
            curl_easy_cleanup(c->easy);
        }
    }
    if (c->timer) {
        event_free(c->timer);
    }
    curl_slist_free_all(c->headers);
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

/* The sentence for a transfer that libcurl could not finish. What came of an error's body is not handed on: half of it
 * would be shown as if it were whole. */
static int explain(backend_call *c, CURLcode result, err *why) {
    const char *name = c->of->name;
    str_clear(&c->text);
    if (!c->timed_out && result == CURLE_OPERATION_TIMEDOUT && c->heard) {
        err_set(why, ERR_TIMEOUT, "%s did not come to the end of its answer in time (%.1f s).", name,
                (double)(clock_us() - c->begun_us) / 1e6);
        return 504;
    }
    if (c->timed_out || result == CURLE_OPERATION_TIMEDOUT) {
        err_set(why, ERR_TIMEOUT, "%s did not %s in time (%.1f s).", name,
                c->heard ? "go on with its answer" : "answer",
                (double)(clock_us() - (c->heard ? c->heard_us : c->begun_us)) / 1e6);
        return 504;
    }
    if (c->too_large) {
        err_set(why, ERR_UPSTREAM, "%s sent an answer larger than pare reads.", name);
        return c->status >= 400 ? (int)c->status : 502;
    }
    if (c->broken.code != ERR_NONE) {
        *why = c->broken;
        err_prefix(why, "%s", name);
        why->code = ERR_UPSTREAM;
    } else if (result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST) {
        err_set(why, ERR_UPSTREAM, "%s cannot be reached (%s). Is its base_url right, and is it up?", name,
                curl_easy_strerror(result));
    } else if (c->heard) {
        err_set(why, ERR_UPSTREAM, "%s broke off in the middle of its answer (%s).", name, curl_easy_strerror(result));
    } else {
        err_set(why, ERR_UPSTREAM, "%s did not answer (%s).", name, curl_easy_strerror(result));
    }
    return 502;
}

/* For clients of another dialect, who cannot read the provider's own body: its sentence. */
static void refused(backend_call *c, err *why) {
    cJSON      *root = c->text.len ? json_parse(c->text.data, c->text.len, JSON_MAX_DEPTH, NULL) : NULL;
    const char *sentence = dialect_error_text(root && cJSON_IsArray(root) ? root->child : root);
    err_set(why, ERR_UPSTREAM, "%s answered with status %ld%s%.300s", c->of->name, c->status, sentence ? ": " : ".",
            sentence ? sentence : "");
    cJSON_Delete(root);
}

static void on_done(http_transfer *t, CURLcode result) {
    backend_call *c = (backend_call *)t;
    err           why = {0};
    if (c->cancelled) {
        return; /* its stop task is on the way and finishes the call */
    }
    if (!c->heard && result == CURLE_OK) {
        first_bytes(c);
    }
    if (result == CURLE_OK && c->streaming && sse_partial(&c->sse)) { /* an end mark without its empty line */
        sse_feed(&c->sse, "\n\n", 2, on_payload, c, &c->broken);
        if (c->cancelled) { /* by who heard that */
            return;
        }
    }
    if (c->streaming && c->ended && c->broken.code == ERR_NONE) {
        finish_done(c); /* the end mark came; how the connection closed does not matter */
    } else if (result != CURLE_OK || c->broken.code != ERR_NONE) {
        int status = explain(c, result, &why);
        finish_error(c, &why, status);
    } else if (c->status >= 300) {
        refused(c, &why);
        finish_error(c, &why, c->status >= 400 ? (int)c->status : 502);
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
    http_client_remove(c->client, c->easy);
    err why = {0};
    if (c->lingered) {
        finish_done(c);
        return;
    }
    if (c->timed_out) {
        int status = explain(c, CURLE_OPERATION_TIMEDOUT, &why);
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
    int64_t left = (c->heard ? c->heard_us : c->begun_us) + limit - clock_us();
    if (left <= 0) {
        c->timed_out = true;
        stop(c);
        return;
    }
    struct timeval tv = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
    evtimer_add(c->timer, &tv);
}

/* ---- the start ---- */

static bool add_header(struct curl_slist **list, const char *line) {
    struct curl_slist *more = curl_slist_append(*list, line);
    if (more) {
        *list = more;
    }
    return more != NULL;
}

static CURL *handle_for(remote *r, loop *l) {
    int i = loop_index(l);
    if (r->handles[i].count > 0) {
        return r->handles[i].idle[--r->handles[i].count];
    }
    CURL *easy = curl_easy_init();
    if (!easy) {
        return NULL;
    }
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(r->connect_us / 1000));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(r->total_us / 1000));
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 64L << 10);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a cancel does not wait for the name resolver's thread */
#endif
    if (r->http2) {
        curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    }
    if (r->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, r->ca_file);
    }
    return easy;
}

static bool add_pair(backend_call *c, str *line, const char *name, const char *value) {
    str_clear(line);
    str_addf(line, "%s: %s", name, value);
    return !line->failed && add_header(&c->headers, line->data);
}

/* The headers of every call, the request's place in a trace, and those of this client that mean something to the same kind of provider. They are
 * checked when they are read: no line breaks. */
static bool pass_headers(backend_call *c) {
    const request *q = c->request;
    int            n_passed = dialect_same(q->from, c->of->speaks) ? q->n_passed : 0;
    if (n_passed == 0 && !q->traceparent) {
        curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->of->headers);
        return true;
    }
    bool ok = true;
    for (const struct curl_slist *h = c->of->headers; ok && h; h = h->next) {
        bool replaced = false;
        for (int i = 0; i < n_passed; i++) {
            size_t n = strlen(q->passed[i].name);
            replaced = replaced || (strncasecmp(h->data, q->passed[i].name, n) == 0 && h->data[n] == ':');
        }
        ok = replaced || add_header(&c->headers, h->data);
    }
    str line = {0};
    for (int i = 0; ok && i < n_passed; i++) {
        ok = add_pair(c, &line, q->passed[i].name, q->passed[i].value);
    }
    ok = ok && (!q->traceparent || add_pair(c, &line, "traceparent", q->traceparent)) &&
         (!q->traceparent || !q->tracestate || add_pair(c, &line, "tracestate", q->tracestate));
    str_free(&line);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
    return ok;
}

/* The client's own bytes will do: nothing is to be put in. */
static bool untouched(const remote *r, const request *q, const char *model, bool ask_usage) {
    return dialect_same(q->from, r->speaks) && !ask_usage && strcmp(model, q->model) == 0 &&
           request_most(q) == q->max_tokens;
}

static bool prepare(backend_call *c, const char *model, err *e) {
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
    bool known = r->speaks->write_url(&place, &url);
    bool good = known && !url.failed && curl_easy_setopt(c->easy, CURLOPT_URL, url.data) == CURLE_OK && pass_headers(c);
    str_free(&url);
    if (!known) {
        return err_set(e, ERR_UNSUPPORTED, "The backend %s (%s) does not answer requests of this kind.", r->name,
                       r->speaks->name);
    }
    if (!good) {
        return err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
    }
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, bytes);
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
    return true;
}

static backend_call *remote_start(backend *b, loop *l, const request *q, const char *model, backend_event_fn fn,
                                  void *ctx, err *e) {
    remote       *r = (remote *)b;
    http_client  *client = http_client_of(l, e);
    backend_call *c = client ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        if (client) {
            err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        }
        return NULL;
    }
    *c = (backend_call){
        .transfer.done = on_done, .of = r, .home = l, .client = client, .request = q, .fn = fn, .ctx = ctx};
    /* As many answers as were asked for must come to their end, where no end mark says that all have. */
    c->open_choices = (q->n_prompts > 1 ? q->n_prompts : 1) * (q->n > 1 ? (int)q->n : 1);
    c->begun_us = clock_us();
    c->easy = handle_for(r, l);
    c->state = r->speaks->reading ? calloc(1, r->speaks->reading) : NULL;
    c->timer = evtimer_new(loop_base(l), on_timer, c);
    struct timeval tv = {.tv_sec = r->first_us / 1000000, .tv_usec = r->first_us % 1000000};
    if (!c->easy || (!c->state && r->speaks->reading) || !c->timer || evtimer_add(c->timer, &tv) != 0) {
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
        put_away(c);
        return NULL;
    }
    if (!prepare(c, model, e) || !http_client_add(client, c->easy, e)) {
        put_away(c);
        return NULL;
    }
    c->next = r->handles[loop_index(l)].running;
    if (c->next) {
        c->next->prev = c;
    }
    r->handles[loop_index(l)].running = c;
    return c;
}

/* ---- making and ending ---- */

/* The loops have ended by now: what still runs ends without a word. */
static void remote_close(backend *b) {
    remote *r = (remote *)b;
    for (int i = 0; i < MAX_LOOPS; i++) {
        for (backend_call *c = r->handles[i].running, *next; c; c = next) {
            next = c->next;
            http_client_remove(c->client, c->easy);
            put_away(c);
        }
        for (int k = 0; k < r->handles[i].count; k++) {
            curl_easy_cleanup(r->handles[i].idle[k]);
        }
    }
    curl_slist_free_all(r->headers);
    free(r->name);
    free(r->base_url);
    free(r->api_version);
    free(r->ca_file);
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

static bool set_headers(remote *r, const char *api_key) {
    bool ok = add_header(&r->headers, "Content-Type: application/json") && add_header(&r->headers, "Expect:") &&
              add_header(&r->headers, "User-Agent: pare/" PARE_VERSION);
    if (ok && api_key) {
        str line = {0};
        str_addf(&line, "%s%s", r->speaks->key_header, api_key);
        ok = !line.failed && add_header(&r->headers, line.data);
        str_free(&line);
    }
    for (const char *const *more = r->speaks->headers; ok && more && *more; more++) {
        ok = add_header(&r->headers, *more);
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
    bool ok = r->name && r->base_url && !r->api_version == !o->api_version && set_headers(r, o->api_key);
    r->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
    r->connect_us = or_default(o->connect_us, 10);
    r->first_us = or_default(o->first_us, 120);
    r->between_us = or_default(o->between_us, 60);
    r->total_us = or_default(o->total_us, 600);
    r->http2 = o->http2;
    if (!ok) {
        remote_close(&r->base);
        err_set(e, ERR_MEMORY, "Backend %s: out of memory.", name);
        return NULL;
    }
    sha256 hash = sha256_of(r->base_url, strlen(r->base_url));
    hex_encode(hash.bytes, sizeof hash.bytes, r->base.fingerprint);
    return &r->base;
}
