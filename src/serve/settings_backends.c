/* settings_backends.c - the providers: where they are, what they speak, and the keys to them. */
#include <string.h>
#include <strings.h>

#include "serve/settings_parts.h"

#define MAX_KEYS   32
#define MAX_WEIGHT 1000

bool settings_has_backend(const settings *s, const char *name) {
    for (int i = 0; i < s->n_backends; i++) {
        if (strcmp(s->backends[i].of, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool read_dialect(const config *c, const config_node *n, remote_options *r, err *e) {
    static const char *const names[] = {"openai", "azure", "anthropic", "gemini", "cohere", NULL};
    const char              *name = NULL;
    if (!config_string(c, n, "dialect", &name, e) || !name) {
        return e->code == ERR_NONE;
    }
    r->speaks = dialect_named(name);
    if (r->speaks) {
        return true;
    }
    const char *near = nearest_name(name, names);
    return config_fail(c, config_get(n, "dialect"), e,
                       "dialect must be openai, azure, anthropic, gemini or cohere, not \"%s\"%s%s%s", name,
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

/* OpenAI's API at its own hosts, the regional ones too: api.openai.com, eu.api.openai.com. */
static bool is_openais(const char *base_url) {
    static const char host[] = "api.openai.com";
    const char       *at = strstr(base_url, "://");
    at = at ? at + 3 : base_url;
    size_t n = strcspn(at, ":/?#");
    return n >= sizeof host - 1 && strncasecmp(at + n - (sizeof host - 1), host, sizeof host - 1) == 0 &&
           (n == sizeof host - 1 || at[n - sizeof host] == '.');
}

/* Whether the provider takes no more than OpenAI's own API does. */
static bool read_strict(const config *c, const config_node *n, remote_options *r, err *e) {
    bool strict = (!r->speaks || r->speaks == &dialect_openai) && is_openais(r->base_url);
    if (!config_bool(c, n, "strict", &strict, e)) {
        return false;
    }
    const dialect *own = strict ? dialect_own(r->speaks) : NULL;
    if (strict && !own) {
        return config_fail(c, config_get(n, "strict"), e, "strict is of the dialects openai and azure");
    }
    r->speaks = own ? own : r->speaks;
    return true;
}

static bool read_times(const config *c, const config_node *n, remote_options *r, err *e) {
    static const char *const times[] = {"connect", "first", "between", "total", NULL};
    return !n ||
           (config_known(c, n, times, e) && config_duration(c, n, "connect", &r->connect_us, e) &&
            config_duration(c, n, "first", &r->first_us, e) && config_duration(c, n, "between", &r->between_us, e) &&
            config_duration(c, n, "total", &r->total_us, e));
}

static bool add_backend(settings *s, const char *name, const setting_backend *b, err *e) {
    s->backends = settings_more(s, s->backends, s->n_backends, sizeof *s->backends);
    if (!s->backends || !name) {
        return settings_no_memory(e);
    }
    s->backends[s->n_backends] = *b;
    s->backends[s->n_backends++].name = name;
    return true;
}

/* One of api_keys: the key, or {key, weight}. */
static bool read_key(settings *s, const config *c, const config_node *item, setting_backend *b, err *e) {
    static const char *const known[] = {"key", "weight", NULL};
    int64_t                  weight = 1;
    const char              *text = config_scalar(item);
    b->remote.api_key = text && *text ? settings_keep(s, text) : NULL;
    if (config_kind_of(item) == CONFIG_MAPPING &&
        (!config_known(c, item, known, e) || !settings_string(s, c, item, "key", &b->remote.api_key, e) ||
         !config_int(c, item, "weight", 1, MAX_WEIGHT, &weight, e))) {
        return false;
    }
    b->weight = (int)weight;
    return b->remote.api_key || config_fail(c, item, e, "each of api_keys is a key, or {key: KEY, weight: 2}");
}

/* Several keys are several backends, NAME#1 and so on, which a model that names the backend has in its row. */
static bool read_keys(settings *s, const config *c, const config_node *n, setting_backend *b, err *e) {
    const config_node *list = config_get(n, "api_keys");
    if (!list) {
        return add_backend(s, b->of, b, e);
    }
    if (b->remote.api_key) {
        return config_fail(c, list, e, "the backend %s has both api_key and api_keys", b->of);
    }
    if (config_kind_of(list) != CONFIG_SEQUENCE || config_count(list) < 1 || config_count(list) > MAX_KEYS) {
        return config_fail(c, list, e, "api_keys must be a list of 1 to %d keys", MAX_KEYS);
    }
    for (size_t i = 0; i < config_count(list); i++) {
        if (!read_key(s, c, config_item(list, i), b, e) ||
            !add_backend(s, arena_printf(s->memory, "%s#%zu", b->of, i + 1), b, e)) {
            return false;
        }
    }
    return true;
}

bool settings_read_backend(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    static const char *const known[] = {"base_url", "dialect", "api_version", "api_key",  "api_keys",
                                        "strict",   "ca_file", "http2",       "timeouts", NULL};
    setting_backend          b = {.of = settings_keep(s, name), .weight = 1, .remote.http2 = true};
    remote_options          *r = &b.remote;
    err                      why = {0};
    if (!config_known(c, n, known, e)) {
        return false;
    }
    if (strlen(name) > 60) {
        return config_fail(c, n, e, "the backend name is longer than 60 bytes");
    }
    if (!settings_string(s, c, n, "base_url", &r->base_url, e) ||
        !settings_string(s, c, n, "api_key", &r->api_key, e) ||
        !settings_string(s, c, n, "api_version", &r->api_version, e) ||
        !settings_string(s, c, n, "ca_file", &r->ca_file, e) || !config_bool(c, n, "http2", &r->http2, e) ||
        !read_times(c, config_get(n, "timeouts"), r, e)) {
        return false;
    }
    if (!read_dialect(c, n, r, &why)) {
        *e = why;
        return false;
    }
    if (!r->base_url) {
        return config_fail(c, n, e, "the backend %s needs a base_url", name);
    }
    if (!read_strict(c, n, r, e)) {
        return false;
    }
    return b.of ? read_keys(s, c, n, &b, e) : settings_no_memory(e);
}
