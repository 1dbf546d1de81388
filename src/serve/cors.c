/* cors.c - pages of other sites that may ask from a browser (https://fetch.spec.whatwg.org/#http-cors-protocol). */
#include <event2/http.h>
#include <string.h>
#include <strings.h>

#include "serve/front.h"

static bool listed(const settings *s, const char *origin) {
    for (int i = 0; i < s->n_origins; i++) {
        if (strcmp(s->origins[i], "*") == 0 || strcmp(s->origins[i], origin) == 0) {
            return true;
        }
    }
    return false;
}

bool cors_allow(const settings *s, struct evhttp_request *r) {
    if (s->n_origins == 0) {
        return false;
    }
    const char       *origin = evhttp_find_header(evhttp_request_get_input_headers(r), "Origin");
    struct evkeyvalq *out = evhttp_request_get_output_headers(r);
    if (!origin) {
        return false;
    }
    evhttp_add_header(out, "Vary", "Origin");
    if (!listed(s, origin)) {
        return false;
    }
    evhttp_add_header(out, "Access-Control-Allow-Origin", origin); /* evhttp refuses line breaks */
    evhttp_add_header(out, "Access-Control-Expose-Headers",
                      "x-request-id, x-pare-answered-by, x-pare-cost-usd, x-pare-saved-usd, x-pare-dropped, x-pare-kv, "
                      "Retry-After");
    return true;
}

/* The browser asks first. Credentials are keys in headers, which pages send themselves; cookies are not in use. */
void cors_preflight(const settings *s, struct evhttp_request *r) {
    struct evkeyvalq *in = evhttp_request_get_input_headers(r);
    struct evkeyvalq *out = evhttp_request_get_output_headers(r);
    const char       *headers = evhttp_find_header(in, "Access-Control-Request-Headers");
    if (cors_allow(s, r)) {
        evhttp_add_header(out, "Access-Control-Allow-Methods", "GET, POST, DELETE");
        evhttp_add_header(out, "Access-Control-Allow-Headers",
                          headers ? headers : "authorization, content-type, x-api-key");
        evhttp_add_header(out, "Access-Control-Max-Age", "600");
    }
    evhttp_send_reply(r, 204, "No Content", NULL);
}

/* "127.0.0.1:7273", "[::1]:7273", "localhost": names that no other site can give to its own pages. */
static bool is_own_name(const char *host) {
    size_t n = strcspn(host, ":");
    return host[0] == '[' || strspn(host, "0123456789.:") == strlen(host) ||
           (n == strlen("localhost") && strncasecmp(host, "localhost", n) == 0);
}

bool cors_is_stranger(const settings *s, const heads *h) {
    const char *origin = h->origin, *host = h->host;
    if (!origin || listed(s, origin)) {
        return false; /* not a browser's request of another site's page, or one that is let in */
    }
    const char *name = strstr(origin, "://");
    return !name || !host || strcasecmp(name + 3, host) != 0 || !is_own_name(host);
}
