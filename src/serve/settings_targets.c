/* settings_targets.c - who answers for a remote model, and what happens when they fail. */
#include <string.h>

#include "serve/settings_parts.h"

#define MAX_WEIGHT  1000
#define MAX_RETRIES 20

const char *const settings_target_names[] = {"targets",       "fallbacks", "balance", "retries", "pause",
                                             "longest_pause", "hedge",     "circuit", NULL};

static bool add_target(settings *s, setting_model *m, const setting_target *t, err *e) {
    m->targets = settings_more(s, m->targets, m->n_targets, sizeof *m->targets);
    if (!m->targets) {
        return settings_no_memory(e);
    }
    m->targets[m->n_targets++] = *t;
    return true;
}

static bool read_target(settings *s, const config *c, setting_model *m, const config_node *n, bool fallback, err *e) {
    static const char *const row[] = {"backend", "model", "price", "weight", NULL};
    static const char *const later[] = {"backend", "model", "price", NULL};
    setting_target           t = {.fallback = fallback};
    int64_t                  weight = 1;
    if (config_kind_of(n) != CONFIG_MAPPING) {
        return config_fail(c, n, e, "a target is like {backend: NAME, model: NAME}");
    }
    if (!config_known(c, n, fallback ? later : row, e) || !settings_string(s, c, n, "backend", &t.backend, e) ||
        !settings_string(s, c, n, "model", &t.upstream, e) || !settings_string(s, c, n, "price", &t.price_name, e) ||
        !config_int(c, n, "weight", 1, MAX_WEIGHT, &weight, e)) {
        return false;
    }
    if (!t.backend) {
        return config_fail(c, n, e, "a target of %s needs a backend", m->name);
    }
    t.weight = (int)weight;
    return add_target(s, m, &t, e);
}

static bool read_list(settings *s, const config *c, setting_model *m, const config_node *n, const char *key, err *e) {
    const config_node *list = config_get(n, key);
    if (!list) {
        return true;
    }
    if (config_kind_of(list) != CONFIG_SEQUENCE || config_count(list) == 0) {
        return config_fail(c, list, e, "%s must be a list of {backend: NAME, model: NAME}", key);
    }
    for (size_t i = 0; i < config_count(list); i++) {
        if (!read_target(s, c, m, config_item(list, i), strcmp(key, "fallbacks") == 0, e)) {
            return false;
        }
    }
    return true;
}

static bool read_balance(const config *c, const config_node *n, group_options *o, err *e) {
    const char *text = NULL;
    if (!config_string(c, n, "balance", &text, e)) {
        return false;
    }
    o->balance = text && strcmp(text, "latency") == 0 ? BALANCE_LATENCY : BALANCE_WEIGHTED;
    return !text || strcmp(text, "latency") == 0 || strcmp(text, "weighted") == 0 ||
           config_fail(c, config_get(n, "balance"), e, "balance must be weighted or latency, not \"%s\"", text);
}

/* `hedge: true`, or what of it differs from the defaults. */
static bool read_hedge(const config *c, const config_node *n, group_options *o, err *e) {
    static const char *const known[] = {"percent", "after", NULL};
    const config_node       *h = config_get(n, "hedge");
    int64_t                  percent = 0;
    if (!h || config_kind_of(h) == CONFIG_SCALAR) {
        return config_bool(c, n, "hedge", &o->hedge, e);
    }
    o->hedge = true;
    if (!config_known(c, h, known, e) || !config_int(c, h, "percent", 1, 100, &percent, e) ||
        !config_duration(c, h, "after", &o->hedge_after_us, e)) {
        return false;
    }
    o->hedge_percent = (int)percent;
    return true;
}

static bool read_circuit(const config *c, const config_node *n, group_options *o, err *e) {
    static const char *const known[] = {"failures", "open", NULL};
    int64_t                  failures = 0;
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !config_int(c, n, "failures", 1, 10000, &failures, e) ||
        !config_duration(c, n, "open", &o->break_us, e)) {
        return false;
    }
    o->break_failures = (int)failures;
    return true;
}

static bool read_options(const config *c, const config_node *n, setting_model *m, err *e) {
    group_options *o = &m->group;
    int64_t        retries = -1;
    *o = (group_options){0};
    if (!config_int(c, n, "retries", 0, MAX_RETRIES, &retries, e) || !config_duration(c, n, "pause", &o->pause_us, e) ||
        !config_duration(c, n, "longest_pause", &o->longest_us, e) || !read_balance(c, n, o, e) ||
        !read_hedge(c, n, o, e) || !read_circuit(c, config_get(n, "circuit"), o, e)) {
        return false;
    }
    o->retries = (int)retries;
    return true;
}

/* Each fallback gets its turn, unless the file says how often. */
static void set_retries(setting_model *m) {
    int fallbacks = 0;
    for (int i = 0; i < m->n_targets; i++) {
        fallbacks += m->targets[i].fallback;
    }
    if (m->group.retries < 0) {
        m->group.retries = fallbacks > GROUP_RETRIES ? fallbacks : GROUP_RETRIES;
    }
}

bool settings_read_targets(settings *s, const config *c, setting_model *m, const config_node *n, err *e) {
    if (m->backend) {
        setting_target only = {.backend = m->backend, .weight = 1};
        if (!add_target(s, m, &only, e)) {
            return false;
        }
    }
    if (!read_list(s, c, m, n, "targets", e) || !read_list(s, c, m, n, "fallbacks", e) || !read_options(c, n, m, e)) {
        return false;
    }
    m->alone = m->group.retries == 0 && m->n_targets == 1 && !m->group.hedge && !config_get(n, "circuit");
    set_retries(m);
    return true;
}

static const char *upstream_of(const setting_model *m, const setting_target *t) {
    return t->upstream ? t->upstream : m->upstream ? m->upstream : m->name;
}

bool settings_check_targets(const settings *s, const setting_model *m, err *e) {
    for (int i = 0; i < m->n_targets; i++) {
        const setting_target *t = &m->targets[i];
        if (!settings_has_backend(s, t->backend)) {
            return err_set(e, ERR_INVALID, "The model %s names the backend %s, which is not under backends.", m->name,
                           t->backend);
        }
        if (t->price_name && !settings_price(s, t->price_name)) {
            return err_set(e, ERR_INVALID, "The model %s asks for the price of %s, which is not under prices.", m->name,
                           t->price_name);
        }
        for (int k = 0; k < i; k++) {
            if (strcmp(m->targets[k].backend, t->backend) == 0 &&
                strcmp(upstream_of(m, &m->targets[k]), upstream_of(m, t)) == 0) {
                return err_set(e, ERR_INVALID, "The model %s has the target %s (%s) twice.", m->name, t->backend,
                               upstream_of(m, t));
            }
        }
    }
    return true;
}
