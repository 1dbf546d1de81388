#include "serve/observe.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <string.h>
#include <strings.h>

#include "serve/house.h"

/* The only header of that name; NULL: none, or several, which say nothing that could be relied on. */
static const char *only_header(const struct evkeyvalq *headers, const char *name) {
    const char *value = NULL;
    for (const struct evkeyval *h = headers->tqh_first; h; h = h->next.tqe_next) {
        if (strcasecmp(h->key, name) == 0) {
            if (value) {
                return NULL;
            }
            value = h->value;
        }
    }
    return value;
}

void observe_begin(const generation *g, exchange *x, struct evhttp_request *r) {
    const otlp *t = g->house->otlp;
    if (t) {
        const struct evkeyvalq *headers = evhttp_request_get_input_headers(r);
        otlp_begin(t, x, only_header(headers, "traceparent"), only_header(headers, "tracestate"));
    }
    if (g->settings->log_addresses) {
        char    *address = NULL;
        uint16_t port = 0;
        evhttp_connection_get_peer(evhttp_request_get_connection(r), &address, &port);
        x->address = arena_strdup(x->memory, address); /* the connection may be gone before the exchange is */
    }
}

static const setting_backend *find_backend(const settings *s, const char *name) {
    for (int i = 0; name && i < s->n_backends; i++) {
        if (strcmp(s->backends[i].name, name) == 0) {
            return &s->backends[i];
        }
    }
    return NULL;
}

/* Who was asked, or would have been. */
static otlp_peer peer_of(const settings *s, const exchange *x) {
    const model_entry *m = x->target;
    if (!m) {
        return (otlp_peer){.provider = "pare"};
    }
    const setting_backend *b = find_backend(s, x->by);
    b = b ? b : find_backend(s, m->n_targets > 0 ? m->targets[0].backend : m->backend->name);
    if (!b) {
        return (otlp_peer){.provider = "pare"};
    }
    const char *dialect = b->remote.speaks ? b->remote.speaks->name : "openai";
    return (otlp_peer){.provider = otlp_provider(dialect, b->remote.base_url), .base_url = b->remote.base_url};
}

bool observe_wanted(const generation *g) {
    return g->settings->log_requests || g->house->otlp;
}

void observe_finished(void *ctx, const exchange *x) {
    const generation *g = ctx;
    if (g->settings->log_requests) {
        request_log(g->settings, x);
    }
    if (g->house->otlp) {
        otlp_peer peer = peer_of(g->settings, x);
        otlp_finished(g->house->otlp, x, &peer);
    }
}
