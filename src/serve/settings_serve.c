/* settings_serve.c - how the server is reached: TLS, other sites' pages, and how long it takes to end. */
#include <string.h>

#include "serve/settings_parts.h"

static bool read_tls(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"certificate", "key", "client_ca", NULL};
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !settings_string(s, c, n, "certificate", &s->tls.certificate, e) ||
        !settings_string(s, c, n, "key", &s->tls.key, e) ||
        !settings_string(s, c, n, "client_ca", &s->tls.client_ca, e)) {
        return false;
    }
    if (!s->tls.certificate || !s->tls.key) {
        return config_fail(c, n, e, "tls needs certificate and key (PEM files)");
    }
    return true;
}

static bool read_origin(settings *s, const config *c, const config_node *n, int i, err *e) {
    const config_node *item = config_item(n, (size_t)i);
    const char        *text = config_scalar(item);
    if (!text || (strcmp(text, "*") != 0 && !strstr(text, "://"))) {
        return config_fail(c, item, e, "an origin is \"*\" or like https://app.example.com");
    }
    s->origins[s->n_origins] = settings_keep(s, text);
    return s->origins[s->n_origins++] || settings_no_memory(e);
}

static bool read_cors(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"origins", NULL};
    if (!n) {
        return true;
    }
    const config_node *list = config_get(n, "origins");
    if (!config_known(c, n, known, e)) {
        return false;
    }
    if (!list || config_kind_of(list) != CONFIG_SEQUENCE) {
        return config_fail(c, n, e, "cors needs origins, a list like [https://app.example.com]");
    }
    s->origins = arena_zero(s->memory, config_count(list) + 1, sizeof *s->origins);
    if (!s->origins) {
        return settings_no_memory(e);
    }
    for (size_t i = 0; i < config_count(list); i++) {
        if (!read_origin(s, c, list, (int)i, e)) {
            return false;
        }
    }
    return true;
}

bool settings_read_serve(settings *s, const config *c, const config_node *root, err *e) {
    return read_tls(s, c, config_get(root, "tls"), e) && read_cors(s, c, config_get(root, "cors"), e) &&
           config_duration(c, root, "drain", &s->drain_us, e) &&
           config_bool(c, root, "drop_unsupported", &s->drop_unsupported, e);
}
