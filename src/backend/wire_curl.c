/* wire_curl.c - requests through libcurl: TLS, HTTP/2, proxies.
 *
 * Easy handles rest by loop: options that never change are set once. Connections belong to the loop's multi handle.    */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backend/http_client.h"
#include "backend/wire.h"
#include "base/str.h"

#define MAX_LOOPS 256
#define MAX_IDLE  128

typedef struct curl_wire {
    wire               base;
    struct curl_slist *headers;
    char              *ca_file;
    long               connect_ms;
    bool               http2;
    struct {
        CURL *idle[MAX_IDLE];
        int   count;
    } handles[MAX_LOOPS];
} curl_wire;

struct wire_call {
    http_transfer      transfer; /* first: libcurl's private pointer */
    curl_wire         *of;
    loop              *home;
    http_client       *client;
    CURL              *easy;
    struct curl_slist *headers; /* of this call; NULL: the wire's */
    const wire_events *events;
    void              *ctx;
    bool               told;
    char               type[96], retry_after[64];
};

static void tell_head(wire_call *c) {
    long status = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    c->told = true;
    c->events->head(c->ctx, (int)status, c->type, c->retry_after);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
    wire_call *c = arg;
    size_t     n = size * count;
    if (!c->told) {
        tell_head(c);
    }
    return c->events->body(c->ctx, bytes, n) ? n : 0;
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
    size_t take = (size_t)(end - from) < size - 1 ? (size_t)(end - from) : size - 1;
    memcpy(out, from, take);
    out[take] = '\0';
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg) {
    wire_call *c = arg;
    size_t     n = size * count;
    if (n > 5 && strncmp(bytes, "HTTP/", 5) == 0) { /* a new status line, after 100 or a proxy's own */
        c->type[0] = c->retry_after[0] = '\0';
    }
    keep_header(bytes, n, "content-type", c->type, sizeof c->type);
    keep_header(bytes, n, "retry-after", c->retry_after, sizeof c->retry_after);
    return n;
}

static void call_free(wire_call *c) {
    curl_wire *w = c->of;
    int        i = loop_index(c->home);
    if (c->easy && w->handles[i].count < MAX_IDLE) {
        w->handles[i].idle[w->handles[i].count++] = c->easy;
    } else {
        curl_easy_cleanup(c->easy);
    }
    curl_slist_free_all(c->headers);
    free(c);
}

static wire_end end_of(CURLcode result) {
    switch (result) {
    case CURLE_OK:
        return WIRE_OK;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
        return WIRE_UNREACHABLE;
    case CURLE_OPERATION_TIMEDOUT:
        return WIRE_TIMEOUT;
    case CURLE_WRITE_ERROR:
        return WIRE_STOPPED;
    default:
        return WIRE_BROKEN;
    }
}

static void on_done(http_transfer *t, CURLcode result) {
    wire_call *c = (wire_call *)t;
    if (!c->told && result == CURLE_OK) {
        tell_head(c);
    }
    c->events->done(c->ctx, end_of(result), result == CURLE_OK ? "" : curl_easy_strerror(result));
    call_free(c);
}

static CURL *handle_for(curl_wire *w, loop *l) {
    int i = loop_index(l);
    if (w->handles[i].count > 0) {
        return w->handles[i].idle[--w->handles[i].count];
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
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, w->connect_ms);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 64L << 10);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* an abort does not wait for the name resolver's thread */
#endif
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, w->http2 ? (long)CURL_HTTP_VERSION_2TLS : (long)CURL_HTTP_VERSION_1_1);
    if (w->ca_file) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, w->ca_file);
    }
    return easy;
}

static bool add_header(struct curl_slist **list, const char *line) {
    struct curl_slist *more = curl_slist_append(*list, line);
    if (more) {
        *list = more;
    }
    return more != NULL;
}

static bool make_headers(struct curl_slist **list, const char *const *lines) {
    bool ok = add_header(list, "Expect:"); /* libcurl would ask before it sends a large body */
    for (; ok && lines && *lines; lines++) {
        ok = add_header(list, *lines);
    }
    return ok;
}

static wire_call *curl_start(wire *base, loop *l, const wire_request *q, const wire_events *events, void *ctx, err *e) {
    curl_wire   *w = (curl_wire *)base;
    http_client *client = http_client_of(l, e);
    wire_call   *c = client ? calloc(1, sizeof *c) : NULL;
    if (!client) {
        return NULL;
    }
    bool good = c != NULL;
    if (good) {
        *c = (wire_call){.transfer.done = on_done, .of = w, .home = l, .client = client, .events = events, .ctx = ctx};
        c->easy = handle_for(w, l);
        good = c->easy && curl_easy_setopt(c->easy, CURLOPT_URL, q->url) == CURLE_OK &&
               (!q->headers || make_headers(&c->headers, q->headers));
    }
    if (!good) {
        err_set(e, ERR_MEMORY, "The request could not be started: out of memory.");
    } else {
        curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers ? c->headers : w->headers);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, q->body);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
        curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
        curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
        curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
        good = http_client_add(client, c->easy, e);
    }
    if (!good && c) {
        call_free(c);
    }
    return good ? c : NULL;
}

static void curl_abort(wire_call *c) {
    http_client_remove(c->client, c->easy);
    call_free(c);
}

static void curl_close(wire *base) {
    curl_wire *w = (curl_wire *)base;
    for (int i = 0; i < MAX_LOOPS; i++) {
        for (int k = 0; k < w->handles[i].count; k++) {
            curl_easy_cleanup(w->handles[i].idle[k]);
        }
    }
    curl_slist_free_all(w->headers);
    free(w->ca_file);
    free(w);
}

static const wire_ops ops = {.start = curl_start, .abort = curl_abort, .close = curl_close};

wire *wire_curl(const wire_options *o, err *e) {
    curl_wire *w = calloc(1, sizeof *w);
    if (w) {
        w->base.ops = &ops;
        w->connect_ms = (long)(o->connect_us / 1000);
        w->http2 = o->http2;
        w->ca_file = o->ca_file ? strdup(o->ca_file) : NULL;
    }
    if (!w || !w->ca_file != !o->ca_file || !make_headers(&w->headers, o->headers)) {
        if (w) {
            curl_close(&w->base);
        }
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    return &w->base;
}
