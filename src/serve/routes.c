/* routes.c - which path is answered by what. */
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/assets.h"
#include "serve/door.h"
#include "serve/front.h"
#include "serve/slow.h"
#include "stage/shared.h"

/* Operators' pages show every client's requests: with keys in use they need a key that is marked admin. */
static bool may_administer(front *f, struct evhttp_request *r) {
    const gateway *g = &f->now->gateway;
    if (g->n_keys == 0) {
        return true;
    }
    const char       *bearer = bearer_of(r);
    const client_key *key = bearer ? gateway_key(g, bearer) : NULL;
    if (key && key->admin) {
        return true;
    }
    if (key) {
        reply_error(r, 403, ERR_DENIED, "", "This key may not see the operator's pages; use one with admin: true.");
    } else {
        reply_error(r, 401, ERR_DENIED, "",
                    "The operator's pages need a key with admin: true (Authorization: Bearer KEY).");
    }
    return false;
}

static void health(front *f, struct evhttp_request *r) {
    const gateway *g = &f->now->gateway;
    str            out = {0}, ill = {0};
    bool           draining = server_draining(f->server);
    int            well = 0;
    for (int i = 0; i < g->n_models; i++) {
        backend *b = g->models[i].backend;
        err      why = {0};
        if (!b->ops->healthy || b->ops->healthy(b, &why)) {
            well++;
            continue;
        }
        str_adds(&ill, ill.len ? ",{\"model\":" : "{\"model\":");
        str_jsons(&ill, g->models[i].name);
        str_adds(&ill, ",\"reason\":");
        str_jsons(&ill, why.text);
        str_addc(&ill, '}');
    }
    bool        serves = !draining && (well > 0 || g->n_models == 0);
    const char *status = !serves ? "unavailable" : ill.len > 0 ? "degraded" : "ok";
    str_addf(&out, "{\"status\":\"%s\",\"version\":\"" PARE_VERSION "\",\"uptime_s\":%.1f", status,
             server_uptime(f->server));
    if (draining) {
        str_adds(&out, ",\"reason\":\"shutting down\"");
    }
    if (g->shared) { /* no reason to be called unwell: requests are answered */
        str_addf(&out, ",\"limits\":\"%s\"", shared_up(g->shared) ? "shared" : "local");
    }
    if (ill.len > 0) {
        str_addf(&out, ",\"unavailable\":[%s]", ill.data);
    }
    str_adds(&out, "}");
    reply_json(r, serves ? 200 : 503, out.data, out.len);
    str_free(&out);
    str_free(&ill);
}

static void page(struct evhttp_request *r, const char *path) {
    const asset *a = asset_find(path);
    if (!a) {
        reply_error(r, 404, ERR_NOT_FOUND, "", "There is no page %.100s here.", path);
        return;
    }
    struct evkeyvalq *headers = evhttp_request_get_output_headers(r);
    evhttp_add_header(headers, "Content-Type", a->type);
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(
        headers, "Content-Security-Policy",
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'");
    evbuffer_add_reference(evhttp_request_get_output_buffer(r), a->data, a->size, NULL, NULL);
    reply_send(r, 200);
}

typedef enum verb { GET = 1, POST = 2, DELETE = 4, PATCH = 8 } verb;

static bool is(struct evhttp_request *r, int allowed) {
    int method = 0;
    switch (evhttp_request_get_command(r)) {
    case EVHTTP_REQ_GET:
    case EVHTTP_REQ_HEAD:
        method = GET;
        break;
    case EVHTTP_REQ_POST:
        method = POST;
        break;
    case EVHTTP_REQ_DELETE:
        method = DELETE;
        break;
    case EVHTTP_REQ_PATCH:
        method = PATCH;
        break;
    default:
        break;
    }
    if (method & allowed) {
        return true;
    }
    char allow[48];
    snprintf(allow, sizeof allow, "%s%s%s%s", allowed & GET ? ", GET, HEAD" : "", allowed & POST ? ", POST" : "",
             allowed & PATCH ? ", PATCH" : "", allowed & DELETE ? ", DELETE" : "");
    evhttp_add_header(evhttp_request_get_output_headers(r), "Allow", allow + 2);
    reply_error(r, 405, ERR_UNSUPPORTED, "", "This path does not take that method; allowed: %s.", allow + 2);
    return false;
}

static bool begins(const char *path, const char *with) {
    return strncmp(path, with, strlen(with)) == 0;
}

static void admin(front *f, struct evhttp_request *r, const char *path) {
    if (strcmp(path, "/api/cache") == 0) {
        if (is(r, GET | DELETE) && may_administer(f, r)) {
            admin_cache(f, r);
        }
        return;
    }
    bool key = begins(path, "/api/keys/"), group = begins(path, "/api/groups/");
    if (key || group || strcmp(path, "/api/keys") == 0) {
        int allowed = key ? PATCH | POST | DELETE : group ? PATCH | POST : GET | POST;
        if (is(r, allowed) && may_administer(f, r)) {
            admin_keys(f, r, key ? path + 10 : group ? path + 12 : NULL, group);
        }
        return;
    }
    if (strcmp(path, "/api/reload") == 0) {
        if (is(r, POST) && may_administer(f, r)) {
            admin_reload(f, r);
        }
        return;
    }
    if (!is(r, GET) || !may_administer(f, r)) {
        return;
    }
    if (strcmp(path, "/metrics") == 0) {
        admin_metrics(f, r);
    } else if (strcmp(path, "/api/stats") == 0) {
        admin_stats(f, r);
    } else if (strcmp(path, "/api/limits") == 0) {
        admin_limits(f, r);
    } else if (strcmp(path, "/api/live") == 0) {
        live_begin(f, r);
    } else {
        reply_error(r, 404, ERR_NOT_FOUND, "", "There is nothing at %.200s.", path);
    }
}

/* Behind some of these methods evhttp reads no body, whatever the headers say, and takes it for the next request. */
static bool has_unread_body(struct evhttp_request *r, const heads *h) {
    const char *length = h->content_length;
    switch (evhttp_request_get_command(r)) {
    case EVHTTP_REQ_POST:
    case EVHTTP_REQ_PUT:
    case EVHTTP_REQ_PATCH:
        return false;
    default:
        return h->transfer_encoding || (length && strspn(length, "0") != strlen(length));
    }
}

/* A body whose length can be read in two ways is read differently by whoever stands in front of us: refused, and the
 * connection with what may be hidden in it is closed (RFC 9112, 6.1, 6.3 and 11.2). evhttp takes any encoding but chunked
 * for no body, and the body for the next request. */
static bool strange_framing(struct evhttp_request *r, const heads *h) {
    const char *encoding = h->transfer_encoding, *length = h->content_length;
    bool        digits = !length || (length[0] && strspn(length, "0123456789") == strlen(length));
    bool        old = r->major < 1 || (r->major == 1 && r->minor == 0); /* knows no encodings */
    bool        strange = (old && encoding) || h->strange;
    if (!strange && h->encodings <= 1 && h->lengths + h->encodings <= 1 && digits &&
        (!encoding || strcasecmp(encoding, "chunked") == 0)) {
        if (has_unread_body(r, h)) { /* answered, and nothing behind it is */
            evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
        }
        return false;
    }
    evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
    if (!strange && h->encodings == 1 && h->lengths == 0) {
        reply_error(r, 501, ERR_UNSUPPORTED, "",
                    "This Transfer-Encoding is not supported; send chunked or a Content-Length.");
    } else {
        reply_error(r, 400, ERR_INVALID, "",
                    "The length of the body can be read in more than one way: send one Content-Length, or chunked.");
    }
    return true;
}

/* What an exchange answers. */
static const struct {
    const char    *path;
    request_kind   kind;
    const dialect *speaks;
} asked[] = {
    {"/v1/chat/completions", REQUEST_CHAT, &dialect_openai}, {"/v1/completions", REQUEST_COMPLETION, &dialect_openai},
    {"/v1/embeddings", REQUEST_EMBEDDINGS, &dialect_openai}, {"/v1/rerank", REQUEST_RERANK, &dialect_openai},
    {"/v1/messages", REQUEST_CHAT, &dialect_anthropic},      {"/v1/responses", REQUEST_CHAT, &dialect_responses},
};

void routes_handle(struct evhttp_request *r, void *arg) {
    front                   *f = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r);
    const char              *path = uri ? evhttp_uri_get_path(uri) : NULL;
    if (!path || !*path) {
        path = "/";
    }
    struct evhttp_connection *connection = evhttp_request_get_connection(r);
    slow_idle(evhttp_connection_get_bufferevent(connection)); /* the request is whole; its time begins anew */
    door_idle(evhttp_connection_get_bufferevent(connection));
    if (f->now->tls && !tls_spoken(evhttp_connection_get_bufferevent(connection))) {
        /* There was no memory for TLS, and evhttp has taken the connection over as it is. */
        evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
        reply_error(r, 503, ERR_MEMORY, "", "Out of memory.");
        return;
    }
    heads h;
    heads_read(r, &h);
    if (strange_framing(r, &h)) {
        return;
    }
    if (evhttp_request_get_command(r) == EVHTTP_REQ_OPTIONS && f->now->settings->n_origins > 0) {
        cors_preflight(f->now->settings, r);
        return;
    }
    cors_allow(f->now->settings, r);
    if (f->now->gateway.n_keys == 0 && cors_is_stranger(f->now->settings, &h)) {
        reply_error(r, 403, ERR_DENIED, "",
                    "Pages of other sites may not ask here: list their origin under cors.origins, or use client keys.");
        return;
    }
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        if (strcmp(path, asked[i].path) == 0) {
            if (is(r, POST)) {
                client_begin(f, r, &h, asked[i].kind, asked[i].speaks);
            }
            return;
        }
    }
    if (begins(path, "/v1/responses/")) {
        if (is(r, GET | DELETE)) {
            stored_response(f, r, path + strlen("/v1/responses/"));
        }
        return;
    }
    if (strcmp(path, "/v1/messages/count_tokens") == 0) {
        if (is(r, POST)) {
            count_tokens(f, r);
        }
        return;
    }
    if (strcmp(path, "/metrics") == 0 || begins(path, "/api/")) {
        admin(f, r, path);
    } else if (strcmp(path, "/v1/models") == 0 || begins(path, "/v1/models/")) {
        if (is(r, GET)) {
            models_answer(f, r, path[10] ? path + 11 : NULL);
        }
    } else if (strcmp(path, "/health") == 0) {
        if (is(r, GET)) {
            health(f, r);
        }
    } else if (strcmp(path, "/") == 0 || begins(path, "/web/")) {
        if (is(r, GET)) {
            page(r, path[1] ? path + 1 : "web/index.html");
        }
    } else {
        reply_error(r, 404, ERR_NOT_FOUND, "",
                    "There is nothing at %.200s. pare answers /v1/chat/completions, /v1/completions, /v1/responses, "
                    "/v1/messages, /v1/embeddings, /v1/rerank, /v1/models, /health, /metrics and /.",
                    path);
    }
}
