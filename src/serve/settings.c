#include "serve/settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/assets.h"
#include "store/models.h"

static void *more(settings *s, void *rows, int count, size_t size) {
    char *grown = arena_zero(s->memory, (size_t)count + 1, size);
    if (grown && count > 0) {
        memcpy(grown, rows, (size_t)count * size);
    }
    return grown;
}

static bool no_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while reading the configuration.");
}

static char *keep(settings *s, const char *text) {
    return text ? arena_strdup(s->memory, text) : NULL;
}

static bool get_string(settings *s, const config *c, const config_node *n, const char *key, const char **out, err *e) {
    const char *text = NULL;
    if (!config_string(c, n, key, &text, e)) {
        return false;
    }
    if (text) {
        *out = keep(s, text); /* the config tree is freed when reading is done */
        return *out || no_memory(e);
    }
    return true;
}

/* ---- prices: dollars per million tokens in the file, micro-dollars inside ---- */

static bool read_money(const config *c, const config_node *n, const char *key, int64_t *micro, err *e) {
    double dollars = (double)*micro / 1e6;
    if (!config_number(c, n, key, 0, 1e6, &dollars, e)) {
        return false;
    }
    *micro = llround(dollars * 1e6);
    return true;
}

static bool read_price(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    static const char *const known[] = {"input", "cached_input", "output", "source", "date", NULL};
    if (!config_known(c, n, known, e)) {
        return false;
    }
    price p = {.cached_input = -1, .known = true};
    if (!config_get(n, "input") || !config_get(n, "output")) {
        return config_fail(c, n, e, "the price of %s needs input and output (dollars per million tokens)", name);
    }
    if (!read_money(c, n, "input", &p.input, e) || !read_money(c, n, "output", &p.output, e)) {
        return false;
    }
    if (config_get(n, "cached_input")) {
        p.cached_input = 0;
        if (!read_money(c, n, "cached_input", &p.cached_input, e)) {
            return false;
        }
    } else {
        p.cached_input = p.input;
    }
    s->prices = more(s, s->prices, s->n_prices, sizeof *s->prices);
    if (!s->prices) {
        return no_memory(e);
    }
    s->prices[s->n_prices++] = (setting_price){.name = keep(s, name), .price = p};
    return true;
}

static bool read_prices(settings *s, const config *c, const config_node *n, err *e) {
    if (n && config_kind_of(n) != CONFIG_MAPPING) {
        return config_fail(c, n, e, "prices must be a mapping of model names");
    }
    for (size_t i = 0; n && i < config_count(n); i++) {
        if (!read_price(s, c, config_key(n, i), config_item(n, i), e)) {
            return false;
        }
    }
    return true;
}

const setting_price *settings_price(const settings *s, const char *name) {
    for (int i = s->n_prices - 1; name && i >= 0; i--) {
        if (strcmp(s->prices[i].name, name) == 0) {
            return &s->prices[i];
        }
    }
    return NULL;
}

/* ---- models and backends ---- */

static setting_model *find_model(settings *s, const char *name) {
    for (int i = 0; i < s->n_models; i++) {
        if (strcmp(s->models[i].name, name) == 0) {
            return &s->models[i];
        }
    }
    return NULL;
}

static setting_model *add_model(settings *s, const char *name, err *e) {
    setting_model *m = find_model(s, name);
    if (m) {
        return m; /* the command line wins over the file */
    }
    s->models = more(s, s->models, s->n_models, sizeof *s->models);
    const char *copy = keep(s, name);
    if (!s->models || !copy) {
        no_memory(e);
        return NULL;
    }
    m = &s->models[s->n_models++];
    m->name = copy;
    return m;
}

static bool read_model(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    const char *known[5 + SETTINGS_LOCAL + 1] = {"file", "backend", "model", "stands_in_for", "price"};
    for (int i = 0; i < SETTINGS_LOCAL; i++) {
        known[5 + i] = settings_local_name(i);
    }
    if (!config_known(c, n, known, e)) {
        return false;
    }
    if (strlen(name) > 100) {
        return config_fail(c, n, e, "the model name is longer than 100 bytes");
    }
    setting_model *m = add_model(s, name, e);
    if (m) {
        m->file = m->backend = NULL;
    }
    if (!m || !get_string(s, c, n, "file", &m->file, e) || !get_string(s, c, n, "backend", &m->backend, e) ||
        !get_string(s, c, n, "model", &m->upstream, e) || !get_string(s, c, n, "price", &m->price_name, e) ||
        !get_string(s, c, n, "stands_in_for", &m->stands_in_for, e) || !settings_local_read(s, c, n, &m->local, e)) {
        return false;
    }
    if (!m->file == !m->backend) {
        return config_fail(c, n, e, "the model %s needs either file (a local GGUF) or backend (a remote one)", name);
    }
    for (int i = 0; m->backend && i < SETTINGS_LOCAL; i++) {
        const config_node *at = config_get(n, settings_local_name(i));
        if (at) {
            return config_fail(c, at, e, "%s is for models with a file; %s is answered by the backend %s",
                               settings_local_name(i), name, m->backend);
        }
    }
    return true;
}

static bool read_backend(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    static const char *const known[] = {"base_url", "api_key", "ca_file", "http2", "timeouts", NULL};
    static const char *const times[] = {"connect", "first", "between", "total", NULL};
    if (!config_known(c, n, known, e)) {
        return false;
    }
    if (strlen(name) > 60) {
        return config_fail(c, n, e, "the backend name is longer than 60 bytes");
    }
    remote_options     r = {.http2 = true};
    const config_node *t = config_get(n, "timeouts");
    if (!get_string(s, c, n, "base_url", &r.base_url, e) || !get_string(s, c, n, "api_key", &r.api_key, e) ||
        !get_string(s, c, n, "ca_file", &r.ca_file, e) || !config_bool(c, n, "http2", &r.http2, e)) {
        return false;
    }
    if (t && (!config_known(c, t, times, e) || !config_duration(c, t, "connect", &r.connect_us, e) ||
              !config_duration(c, t, "first", &r.first_us, e) || !config_duration(c, t, "between", &r.between_us, e) ||
              !config_duration(c, t, "total", &r.total_us, e))) {
        return false;
    }
    if (!r.base_url) {
        return config_fail(c, n, e, "the backend %s needs a base_url", name);
    }
    s->backends = more(s, s->backends, s->n_backends, sizeof *s->backends);
    if (!s->backends) {
        return no_memory(e);
    }
    s->backends[s->n_backends++] = (setting_backend){.name = keep(s, name), .remote = r};
    return true;
}

typedef bool (*read_entry)(settings *, const config *, const char *, const config_node *, err *);

static bool read_mapping(settings *s, const config *c, const config_node *root, const char *key, read_entry read,
                         err *e) {
    const config_node *n = config_get(root, key);
    if (n && config_kind_of(n) != CONFIG_MAPPING) {
        return config_fail(c, n, e, "%s must be a mapping of names", key);
    }
    for (size_t i = 0; n && i < config_count(n); i++) {
        if (config_kind_of(config_item(n, i)) != CONFIG_MAPPING) {
            return config_fail(c, n, e, "%s.%s must be a mapping", key, config_key(n, i));
        }
        if (!read(s, c, config_key(n, i), config_item(n, i), e)) {
            return false;
        }
    }
    return true;
}

/* ---- keys, cache, log ---- */

static bool read_key(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"name", "key", "sha256", "space", "admin", NULL};
    const char              *name = NULL, *key = NULL, *hash = NULL, *space = NULL;
    client_key               k = {0};
    if (!config_known(c, n, known, e) || !get_string(s, c, n, "name", &name, e) ||
        !get_string(s, c, n, "key", &key, e) || !get_string(s, c, n, "sha256", &hash, e) ||
        !get_string(s, c, n, "space", &space, e) || !config_bool(c, n, "admin", &k.admin, e)) {
        return false;
    }
    if (!name || strlen(name) > 60 || (space && strlen(space) > 60)) {
        return config_fail(c, n, e, "a key needs a name; names and spaces have at most 60 bytes");
    }
    if (!key == !hash) {
        return config_fail(c, n, e, "the key %s needs either key (best as ${NAME}) or sha256 (64 hex digits)", name);
    }
    if (key && strlen(key) < 8) {
        return config_fail(c, n, e, "the key %s is shorter than 8 characters", name);
    }
    if (key) {
        k.hash = sha256_of(key, strlen(key));
    } else if (strlen(hash) != 64 || !hex_decode(hash, k.hash.bytes, sizeof k.hash.bytes)) {
        return config_fail(c, n, e, "the sha256 of key %s must be 64 hex digits", name);
    }
    k.name = name;
    k.space = space ? space : name; /* caches never cross keys unless the file says so */
    s->keys = more(s, s->keys, s->n_keys, sizeof *s->keys);
    if (!s->keys) {
        return no_memory(e);
    }
    s->keys[s->n_keys++] = k;
    return true;
}

static bool read_keys(settings *s, const config *c, const config_node *n, err *e) {
    if (n && config_kind_of(n) != CONFIG_SEQUENCE) {
        return config_fail(c, n, e, "keys must be a list");
    }
    for (size_t i = 0; n && i < config_count(n); i++) {
        if (!read_key(s, c, config_item(n, i), e)) {
            return false;
        }
    }
    return true;
}

static bool read_cache(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"enabled", "size", "ttl", NULL};
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !config_bool(c, n, "enabled", &s->cache, e) ||
        !config_size(c, n, "size", &s->cache_bytes, e) || !config_duration(c, n, "ttl", &s->cache_ttl_us, e)) {
        return false;
    }
    if (s->cache_bytes < 1 << 20 || s->cache_ttl_us <= 0) {
        return config_fail(c, n, e, "the cache needs at least 1MiB and a ttl above 0 (or enabled: false)");
    }
    return true;
}

static bool read_log(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"level", "format", NULL};
    static const char *const levels[] = {"debug", "info", "warn", "error", "off", NULL};
    const char              *level = NULL, *format = NULL;
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !config_string(c, n, "level", &level, e) ||
        !config_string(c, n, "format", &format, e)) {
        return false;
    }
    for (int i = 0; level; i++) {
        if (!levels[i]) {
            return config_fail(c, n, e, "log.level is \"%s\"; it must be debug, info, warn, error or off", level);
        }
        if (strcmp(level, levels[i]) == 0) {
            s->log_level = (log_level)i;
            break;
        }
    }
    if (format && strcmp(format, "json") != 0 && strcmp(format, "text") != 0) {
        return config_fail(c, n, e, "log.format is \"%s\"; it must be text or json", format);
    }
    s->log_json = format && strcmp(format, "json") == 0;
    return true;
}

/* ---- the whole ---- */

static bool read_root(settings *s, const config *c, const config_node *root, err *e) {
    static const char *const known[] = {"listen", "data", "loops", "threads", "log",  "models", "backends",
                                        "prices", "keys", "cache", "memory",  "idle", NULL};
    const char              *listen = NULL;
    int64_t                  loops = s->loops, threads = s->threads;
    if (!root) {
        return true;
    }
    if (!config_known(c, root, known, e) || !config_string(c, root, "listen", &listen, e) ||
        (listen && !settings_listen(s, listen, e)) || !get_string(s, c, root, "data", &s->data, e) ||
        !config_int(c, root, "loops", 0, 64, &loops, e) || !config_int(c, root, "threads", 0, 512, &threads, e)) {
        return false;
    }
    s->loops = (int)loops;
    s->threads = (int)threads;
    if (!config_size(c, root, "memory", &s->memory_bytes, e) || !config_duration(c, root, "idle", &s->idle_us, e)) {
        return false;
    }
    return read_log(s, c, config_get(root, "log"), e) && read_cache(s, c, config_get(root, "cache"), e) &&
           read_prices(s, c, config_get(root, "prices"), e) && read_keys(s, c, config_get(root, "keys"), e) &&
           read_mapping(s, c, root, "backends", read_backend, e) && read_mapping(s, c, root, "models", read_model, e);
}

settings *settings_new(err *e) {
    arena    *memory = arena_new(16 << 10);
    settings *s = memory ? arena_zero(memory, 1, sizeof *s) : NULL;
    if (!s) {
        arena_free(memory);
        no_memory(e);
        return NULL;
    }
    *s = (settings){.memory = memory,
                    .address = "127.0.0.1",
                    .port = 7273,
                    .log_level = LOG_INFO,
                    .cache = true,
                    .cache_bytes = 256LL << 20,
                    .idle_us = 600LL * 1000000,
                    .cache_ttl_us = 24LL * 3600 * 1000000};
    const asset *table = asset_find("prices.yaml");
    config      *c = table ? config_parse("prices.yaml", (const char *)table->data, table->size, e) : NULL;
    if (table && (!c || !read_prices(s, c, config_root(c), e))) {
        config_free(c);
        settings_free(s);
        return NULL;
    }
    config_free(c);
    return s;
}

void settings_free(settings *s) {
    if (s) {
        arena_free(s->memory);
    }
}

bool settings_read(settings *s, const char *path, err *e) {
    config *c = config_load(path, e);
    if (!c) {
        return false;
    }
    bool ok = read_root(s, c, config_root(c), e);
    config_free(c);
    return ok;
}

bool settings_listen(settings *s, const char *text, err *e) {
    const char *colon = strrchr(text, ':');
    char       *end = NULL;
    long        port = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || end == colon + 1 || *end || port < 0 || port > 65535) {
        return err_set(e, ERR_INVALID,
                       "\"%s\" is not an address to listen on; write it like 127.0.0.1:7273 or [::1]:7273.", text);
    }
    size_t n = (size_t)(colon - text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    s->address = n ? arena_memdup(s->memory, text, n) : "127.0.0.1";
    s->port = (int)port;
    return s->address || no_memory(e);
}

bool settings_add_model(settings *s, const char *name, const char *file, err *e) {
    if (!*name || strlen(name) > 100) {
        return err_set(e, ERR_INVALID, "The model name \"%.120s\" must have 1 to 100 bytes.", name);
    }
    setting_model *m = add_model(s, name, e);
    if (!m) {
        return false;
    }
    m->file = keep(s, file);
    m->backend = NULL;
    return m->file || no_memory(e);
}

static bool default_data(settings *s, err *e) {
    const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (s->data) {
        return true;
    }
    if (xdg && xdg[0] == '/') {
        s->data = arena_printf(s->memory, "%s/pare", xdg);
    } else if (home && home[0] == '/') {
        s->data = arena_printf(s->memory, "%s/.local/share/pare", home);
    } else {
        return err_set(e, ERR_INVALID, "There is no HOME to keep data in; name a directory with --data DIR.");
    }
    return s->data || no_memory(e);
}

static bool is_loopback(const char *address) {
    return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 || strcmp(address, "localhost") == 0;
}

static bool check_model(const settings *s, const setting_model *m, err *e) {
    if (m->stands_in_for && !settings_price(s, m->stands_in_for)) {
        return err_set(e, ERR_INVALID, "The model %s stands in for %s, which has no price; add it under prices.",
                       m->name, m->stands_in_for);
    }
    if (m->price_name && !settings_price(s, m->price_name)) {
        return err_set(e, ERR_INVALID, "The model %s asks for the price of %s, which is not under prices.", m->name,
                       m->price_name);
    }
    if (!m->backend) {
        return true;
    }
    for (int i = 0; i < s->n_backends; i++) {
        if (strcmp(s->backends[i].name, m->backend) == 0) {
            return true;
        }
    }
    return err_set(e, ERR_INVALID, "The model %s names the backend %s, which is not under backends.", m->name,
                   m->backend);
}

/* A model's file may be the name of one that was pulled. One that is neither is told when it is opened. */
static bool find_pulled(settings *s, setting_model *m, err *e) {
    char path[4096];
    if (!m->file || strcmp(m->file, "bundled") == 0 || access(m->file, F_OK) == 0 ||
        !models_find(s->data, m->file, path, sizeof path, NULL)) {
        return true;
    }
    m->file = keep(s, path);
    return m->file || no_memory(e);
}

bool settings_check(settings *s, err *e) {
    if (!default_data(s, e)) {
        return false;
    }
    if (s->n_models == 0) {
        setting_model *m = add_model(s, "storyteller", e);
        if (!m) {
            return false;
        }
        m->file = "bundled";
        m->stands_in_for = "gpt-4o-mini";
    }
    for (int i = 0; i < s->n_models; i++) {
        if (!check_model(s, &s->models[i], e) || !find_pulled(s, &s->models[i], e)) {
            return false;
        }
    }
    if (!settings_local_check(s, e)) {
        return false;
    }
    if (!is_loopback(s->address) && s->n_keys == 0) {
        return err_set(
            e, ERR_INVALID,
            "Listening on %s would let anybody in; add client keys under keys in pare.yaml, or listen on 127.0.0.1.",
            s->address);
    }
    return true;
}
