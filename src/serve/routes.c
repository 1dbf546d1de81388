/* routes.c - which path is answered by what. */
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/assets.h"
#include "serve/front.h"

/* Operators' pages show every client's requests: with keys in use they need a key that is marked admin. */
static bool may_administer(front *f, struct evhttp_request *r) {
    const gateway *g = &f->house->gateway;
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

static bool may_ask(front *f, struct evhttp_request *r) {
    const gateway *g = &f->house->gateway;
    const char    *bearer = bearer_of(r);
    if (g->n_keys == 0 || (bearer && gateway_key(g, bearer))) {
        return true;
    }
    reply_error(r, 401, ERR_DENIED, "", "This needs an API key: Authorization: Bearer KEY.");
    return false;
}

static void write_model(str *out, const model_entry *m) {
    str_adds(out, "{\"id\":");
    str_jsons(out, m->name);
    str_addf(out, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"%s:", m->backend->ops->kind);
    str quoted = {0};
    str_jsons(&quoted, m->backend->name);
    if (quoted.len >= 2) {
        str_add(out, quoted.data + 1, quoted.len - 2);
    }
    str_free(&quoted);
    str_adds(out, "\"}");
}

static void models(front *f, struct evhttp_request *r, const char *name) {
    const gateway *g = &f->house->gateway;
    if (!may_ask(f, r)) {
        return;
    }
    str out = {0};
    if (name) {
        char              *plain = evhttp_uridecode(name, 0, NULL); /* "meta/llama" comes as meta%2Fllama */
        const model_entry *m = gateway_model(g, plain ? plain : name);
        if (!m) {
            reply_error(r, 404, ERR_NOT_FOUND, "model", "The model \"%.100s\" does not exist here.",
                        plain ? plain : name);
            free(plain);
            return;
        }
        free(plain);
        write_model(&out, m);
    } else {
        str_adds(&out, "{\"object\":\"list\",\"data\":[");
        for (int i = 0; i < g->n_models; i++) {
            str_adds(&out, i ? "," : "");
            write_model(&out, &g->models[i]);
        }
        str_adds(&out, "]}");
    }
    reply_json(r, 200, out.data, out.len);
    str_free(&out);
}

static void health(front *f, struct evhttp_request *r) {
    const gateway *g = &f->house->gateway;
    str            out = {0};
    bool           well = !server_draining(f->server);
    err            why = {0};
    for (int i = 0; well && i < g->n_backends; i++) {
        const backend_ops *ops = g->backends[i]->ops;
        well = !ops->healthy || ops->healthy(g->backends[i], &why);
    }
    str_addf(&out, "{\"status\":\"%s\",\"version\":\"" PARE_VERSION "\",\"uptime_s\":%.1f", well ? "ok" : "unavailable",
             server_uptime(f->server));
    if (!well) {
        str_adds(&out, ",\"reason\":");
        str_jsons(&out, why.code ? why.text : "shutting down");
    }
    str_adds(&out, "}");
    reply_json(r, well ? 200 : 503, out.data, out.len);
    str_free(&out);
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

typedef enum verb { GET = 1, POST = 2, DELETE = 4 } verb;

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
    default:
        break;
    }
    if (method & allowed) {
        return true;
    }
    const char *allow = allowed & POST ? "POST" : allowed & DELETE ? "GET, HEAD, DELETE" : "GET, HEAD";
    evhttp_add_header(evhttp_request_get_output_headers(r), "Allow", allow);
    reply_error(r, 405, ERR_UNSUPPORTED, "", "This path does not take that method; allowed: %s.", allow);
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
    if (!is(r, GET) || !may_administer(f, r)) {
        return;
    }
    if (strcmp(path, "/metrics") == 0) {
        admin_metrics(f, r);
    } else if (strcmp(path, "/api/stats") == 0) {
        admin_stats(f, r);
    } else if (strcmp(path, "/api/live") == 0) {
        live_begin(f, r);
    } else {
        reply_error(r, 404, ERR_NOT_FOUND, "", "There is nothing at %.200s.", path);
    }
}

/* evhttp takes any other encoding for no body, and the body for the next request. */
static bool strange_encoding(struct evhttp_request *r) {
    const char *encoding = evhttp_find_header(evhttp_request_get_input_headers(r), "Transfer-Encoding");
    if (!encoding || strcasecmp(encoding, "chunked") == 0) {
        return false;
    }
    evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
    reply_error(r, 501, ERR_UNSUPPORTED, "",
                "This Transfer-Encoding is not supported; send chunked or a Content-Length.");
    return true;
}

void routes_handle(struct evhttp_request *r, void *arg) {
    front                   *f = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r);
    const char              *path = uri ? evhttp_uri_get_path(uri) : NULL;
    if (!path || !*path) {
        path = "/";
    }
    if (strange_encoding(r)) {
        return;
    }
    if (strcmp(path, "/v1/chat/completions") == 0) {
        if (is(r, POST)) {
            client_begin(f, r, REQUEST_CHAT);
        }
    } else if (strcmp(path, "/v1/completions") == 0) {
        if (is(r, POST)) {
            client_begin(f, r, REQUEST_COMPLETION);
        }
    } else if (strcmp(path, "/v1/embeddings") == 0) {
        if (is(r, POST)) {
            client_begin(f, r, REQUEST_EMBEDDINGS);
        }
    } else if (strcmp(path, "/v1/rerank") == 0) {
        if (is(r, POST)) {
            client_begin(f, r, REQUEST_RERANK);
        }
    } else if (strcmp(path, "/metrics") == 0 || begins(path, "/api/")) {
        admin(f, r, path);
    } else if (strcmp(path, "/v1/models") == 0 || begins(path, "/v1/models/")) {
        if (is(r, GET)) {
            models(f, r, path[10] ? path + 11 : NULL);
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
                    "There is nothing at %.200s. pare answers /v1/chat/completions, /v1/completions, /v1/embeddings, "
                    "/v1/rerank, /v1/models, /health, /metrics and /.",
                    path);
    }
}
