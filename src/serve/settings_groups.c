/* settings_groups.c - limits of keys and of groups of keys, and the Redis by which several nodes share them. */
#include <math.h>
#include <string.h>

#include "base/date.h"
#include "base/money.h"
#include "serve/settings_parts.h"
#include "store/redis.h"

#define MOST_COUNT 1000000000000
#define MOST_USD   1e6

const char *const settings_rule_names[] = {"models",    "requests_minute", "tokens_minute", "streams",
                                           "money_day", "money_month",     "expires",       NULL};

static bool read_models(settings *s, const config *c, const config_node *n, limit_rules *out, err *e) {
    const config_node *list = config_get(n, "models");
    if (!list) {
        return true;
    }
    const char **names = arena_zero(s->memory, config_count(list) + 1, sizeof *names);
    if (!names) {
        return settings_no_memory(e);
    }
    if (config_kind_of(list) != CONFIG_SEQUENCE || config_count(list) == 0) {
        return config_fail(c, list, e, "models must be a list of names, in which * stands for any part");
    }
    for (size_t i = 0; i < config_count(list); i++) {
        const char *text = config_scalar(config_item(list, i));
        if (!text || !*text) {
            return config_fail(c, list, e, "models must be a list of names, in which * stands for any part");
        }
        names[i] = settings_keep(s, text);
        if (!names[i]) {
            return settings_no_memory(e);
        }
    }
    out->models = names;
    return true;
}

/* Dollars; none is not the same as 0, which forbids all that costs. */
static bool read_money(const config *c, const config_node *n, const char *key, int64_t *nano, err *e) {
    double usd = -1;
    *nano = -1;
    if (!config_number(c, n, key, 0, MOST_USD, &usd, e)) {
        return false;
    }
    *nano = usd < 0 ? -1 : llround(usd * MONEY_USD);
    return true;
}

static bool read_expires(const config *c, const config_node *n, int64_t *us, err *e) {
    const char *text = NULL;
    return config_string(c, n, "expires", &text, e) &&
           (!text || parse_date(text, us) ||
            config_fail(c, n, e, "expires is \"%s\"; write a date like 2027-01-31 or 2027-01-31T18:00:00Z", text));
}

bool settings_read_rules(settings *s, const config *c, const config_node *n, limit_rules *out, err *e) {
    *out = (limit_rules){0};
    return read_models(s, c, n, out, e) &&
           config_int(c, n, "requests_minute", 1, MOST_COUNT, &out->requests_minute, e) &&
           config_int(c, n, "tokens_minute", 1, MOST_COUNT, &out->tokens_minute, e) &&
           config_int(c, n, "streams", 1, MOST_COUNT, &out->streams, e) &&
           read_money(c, n, "money_day", &out->nano_day, e) && read_money(c, n, "money_month", &out->nano_month, e) &&
           read_expires(c, n, &out->expires_us, e);
}

bool settings_read_group(settings *s, const config *c, const char *name, const config_node *n, err *e) {
    setting_group g = {.name = settings_keep(s, name)};
    if (!config_known(c, n, settings_rule_names, e) || !settings_read_rules(s, c, n, &g.rules, e)) {
        return false;
    }
    if (!*name || strlen(name) > 60) {
        return config_fail(c, n, e, "the name of a group has 1 to 60 bytes");
    }
    s->groups = settings_more(s, s->groups, s->n_groups, sizeof *s->groups);
    if (!s->groups || !g.name) {
        return settings_no_memory(e);
    }
    s->groups[s->n_groups++] = g;
    return true;
}

bool settings_read_shared(settings *s, const config *c, const config_node *n, err *e) {
    static const char *const known[] = {"redis", "share", NULL};
    err                      why = {0};
    if (!n) {
        return true;
    }
    if (!config_known(c, n, known, e) || !settings_string(s, c, n, "redis", &s->shared.redis, e) ||
        !config_number(c, n, "share", 0.001, 1, &s->shared.share, e)) {
        return false;
    }
    if (!s->shared.redis) {
        return config_fail(c, n, e, "shared needs redis, like redis://127.0.0.1:6379/0");
    }
    redis_place place;
    return redis_place_of(s->shared.redis, &place, &why) || config_fail(c, n, e, "shared.redis: %s", why.text);
}
