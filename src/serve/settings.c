#include "serve/settings_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/assets.h"
#include "store/keys.h"
#include "store/models.h"

/* ---- what the files of the settings share ---- */

void *settings_more(settings *s, void *rows, int count, size_t size) {
    char *grown = arena_zero(s->memory, (size_t)count + 1, size);
    if (grown && count > 0) {
        memcpy(grown, rows, (size_t)count * size);
    }
    return grown;
}

bool settings_no_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while reading the configuration.");
}

char *settings_keep(settings *s, const char *text) {
    return text ? arena_strdup(s->memory, text) : NULL;
}

bool settings_string(settings *s, const config *c, const config_node *n, const char *key, const char **out, err *e) {
    const char *text = NULL;
    if (!config_string(c, n, key, &text, e)) {
        return false;
    }
    if (text) {
        *out = settings_keep(s, text); /* the config tree is freed when reading is done */
        return *out || settings_no_memory(e);
    }
    return true;
}

bool settings_mapping(settings *s, const config *c, const config_node *root, const char *key, settings_read_entry read,
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

/* ---- cache, ledger ---- */

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

static bool read_ledger(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"keep", NULL};
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !config_duration(c, n, "keep", &s->ledger_keep_us, e)) {
        return false;
    }
    return s->ledger_keep_us >= 0 || config_fail(c, n, e, "ledger.keep must be a time like 400d, or 0 for ever");
}

/* ---- the whole ---- */

static bool read_root(settings *s, const config *c, const config_node *root, err *e) {
    static const char *const known[] = {
        "listen", "data",      "loops", "threads", "log",  "models", "backends", "prices",           "keys",
        "cache",  "memory",    "idle",  "tls",     "cors", "drain",  "ledger",   "drop_unsupported", "groups",
        "shared", "telemetry", NULL};
    const char *listen = NULL;
    int64_t     loops = s->loops, threads = s->threads;
    if (!root) {
        return true;
    }
    if (!config_known(c, root, known, e) || !config_string(c, root, "listen", &listen, e) ||
        (listen && !settings_listen(s, listen, e)) || !settings_string(s, c, root, "data", &s->data, e) ||
        !config_int(c, root, "loops", 0, 64, &loops, e) || !config_int(c, root, "threads", 0, 512, &threads, e)) {
        return false;
    }
    s->loops = (int)loops;
    s->threads = (int)threads;
    if (!config_size(c, root, "memory", &s->memory_bytes, e) || !config_duration(c, root, "idle", &s->idle_us, e)) {
        return false;
    }
    return settings_read_serve(s, c, root, e) && settings_read_log(s, c, config_get(root, "log"), e) &&
           settings_read_telemetry(s, c, config_get(root, "telemetry"), e) &&
           read_cache(s, c, config_get(root, "cache"), e) && read_ledger(s, c, config_get(root, "ledger"), e) &&
           settings_read_prices(s, c, config_get(root, "prices"), e) &&
           settings_read_keys(s, c, config_get(root, "keys"), e) &&
           settings_mapping(s, c, root, "groups", settings_read_group, e) &&
           settings_read_shared(s, c, config_get(root, "shared"), e) &&
           settings_mapping(s, c, root, "backends", settings_read_backend, e) &&
           settings_mapping(s, c, root, "models", settings_read_model, e);
}

settings *settings_new(err *e) {
    arena    *memory = arena_new(16 << 10);
    settings *s = memory ? arena_zero(memory, 1, sizeof *s) : NULL;
    if (!s) {
        arena_free(memory);
        settings_no_memory(e);
        return NULL;
    }
    *s = (settings){.memory = memory,
                    .address = "127.0.0.1",
                    .port = 7273,
                    .log_level = LOG_INFO,
                    .cache = true,
                    .cache_bytes = 256LL << 20,
                    .idle_us = 600LL * 1000000,
                    .drain_us = 30LL * 1000000,
                    .shared = {.share = 0.25},
                    .cache_ttl_us = 24LL * 3600 * 1000000};
    const asset *table = asset_find("prices.yaml");
    config      *c = table ? config_parse("prices.yaml", (const char *)table->data, table->size, e) : NULL;
    if (table && (!c || !settings_read_prices(s, c, config_root(c), e))) {
        config_free(c);
        settings_free(s);
        return NULL;
    }
    s->n_built_in = s->n_prices;
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
    return s->address || settings_no_memory(e);
}

bool settings_add_model(settings *s, const char *name, const char *file, err *e) {
    if (!*name || strlen(name) > 100) {
        return err_set(e, ERR_INVALID, "The model name \"%.120s\" must have 1 to 100 bytes.", name);
    }
    setting_model *m = settings_model(s, name, e);
    if (!m) {
        return false;
    }
    m->file = settings_keep(s, file);
    m->backend = NULL;
    return m->file || settings_no_memory(e);
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
    return s->data || settings_no_memory(e);
}

static bool is_loopback(const char *address) {
    return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 || strcmp(address, "localhost") == 0;
}

bool settings_check(settings *s, err *e) {
    if (!default_data(s, e)) {
        return false;
    }
    if (s->n_models == 0) {
        setting_model *m = settings_model(s, "storyteller", e);
        if (!m) {
            return false;
        }
        m->file = "bundled";
        m->stands_in_for = "gpt-4o-mini";
    }
    for (int i = 0; i < s->n_models; i++) {
        if (!settings_check_model(s, &s->models[i], e)) {
            return false;
        }
    }
    if (!settings_local_check(s, e)) {
        return false;
    }
    /* While the database holds any key, also a revoked one, only keys let in; so it stays true once pare runs. */
    if (!is_loopback(s->address) && s->n_keys == 0 && !keys_any(s->data)) {
        return err_set(e, ERR_INVALID,
                       "Listening on %s would let anybody in; make a client key with `pare key create NAME` or under "
                       "keys in pare.yaml, or listen on 127.0.0.1.",
                       s->address);
    }
    return true;
}
