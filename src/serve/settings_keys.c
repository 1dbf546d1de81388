/* settings_keys.c - clients' keys. */
#include <string.h>

#include "serve/settings_parts.h"

static bool read_secret(const config *c, const config_node *n, const char *key, const char *hash, setting_key *k,
                        err *e) {
    if (!key == !hash) {
        return config_fail(c, n, e, "the key %s needs either key (best as ${NAME}) or sha256 (64 hex digits)", k->name);
    }
    if (key && strlen(key) < 8) {
        return config_fail(c, n, e, "the key %s is shorter than 8 characters", k->name);
    }
    if (key) {
        k->hash = sha256_of(key, strlen(key));
        return true;
    }
    return (strlen(hash) == 64 && hex_decode(hash, k->hash.bytes, sizeof k->hash.bytes)) ||
           config_fail(c, n, e, "the sha256 of key %s must be 64 hex digits", k->name);
}

static bool read_known(const config *c, const config_node *n, err *e) {
    const char *known[24] = {"name", "key", "sha256", "space", "admin", "group"};
    int         count = 6;
    for (int i = 0; settings_rule_names[i]; i++) {
        known[count++] = settings_rule_names[i];
    }
    known[count] = NULL;
    return config_known(c, n, known, e);
}

static bool read_key(settings *s, const config *c, const config_node *n, err *e) {
    const char *key = NULL, *hash = NULL;
    setting_key k = {.group = ""};
    if (!read_known(c, n, e) || !settings_string(s, c, n, "name", &k.name, e) ||
        !settings_string(s, c, n, "key", &key, e) || !settings_string(s, c, n, "sha256", &hash, e) ||
        !settings_string(s, c, n, "space", &k.space, e) || !settings_string(s, c, n, "group", &k.group, e) ||
        !config_bool(c, n, "admin", &k.admin, e) || !settings_read_rules(s, c, n, &k.rules, e)) {
        return false;
    }
    if (!k.name || strlen(k.name) > 60 || strlen(k.group) > 60 || (k.space && strlen(k.space) > 60)) {
        return config_fail(c, n, e, "a key needs a name; names, groups and spaces have at most 60 bytes");
    }
    if (!read_secret(c, n, key, hash, &k, e)) {
        return false;
    }
    k.space = k.space ? k.space : k.name; /* caches never cross keys unless the file says so */
    s->keys = settings_more(s, s->keys, s->n_keys, sizeof *s->keys);
    if (!s->keys) {
        return settings_no_memory(e);
    }
    s->keys[s->n_keys++] = k;
    return true;
}

bool settings_read_keys(settings *s, const config *c, const config_node *n, err *e) {
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
