/* keys_text.c - keys and their rules as JSON, for the admin API and `pare key list`. */
#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "base/json.h"
#include "base/map.h"
#include "base/money.h"
#include "store/keys.h"
#include "store/ledger.h"

/* ---- reading rules ---- */

static bool given(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key) != NULL;
}

/* An array of names, or one text with commas. */
static bool read_models(const cJSON *object, key_rules *out, err *e) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, "models");
    str          all = {0};
    bool         good = true;
    if (cJSON_IsString(value)) {
        str_adds(&all, value->valuestring);
    } else if (cJSON_IsArray(value)) {
        for (const cJSON *i = value->child; i && good; i = i->next) {
            good = cJSON_IsString(i) && i->valuestring[0] && !strchr(i->valuestring, ',');
            str_adds(&all, all.len ? "," : "");
            str_adds(&all, good ? i->valuestring : "");
        }
    } else {
        good = cJSON_IsNull(value);
    }
    if (!good || all.failed || all.len >= sizeof out->models) {
        str_free(&all);
        return err_at(e, ERR_INVALID, "models",
                      "models must be a list of names (with * for any part), %zu bytes at most.",
                      sizeof out->models - 1);
    }
    memcpy(out->models, all.data ? all.data : "", all.len + (all.data != NULL));
    out->models[all.len] = '\0';
    str_free(&all);
    return true;
}

static bool read_money(const cJSON *object, const char *key, int64_t *nano, err *e) {
    double usd = -1;
    if (!json_get_number(object, "", key, 0, KEY_MOST_USD, &usd, e)) {
        return false;
    }
    *nano = usd < 0 ? -1 : llround(usd * MONEY_USD);
    return true;
}

static bool read_expires(const cJSON *object, key_rules *out, err *e) {
    const char *text = NULL;
    out->expires_us = 0;
    if (!json_get_string(object, "", "expires", &text, e)) {
        return false;
    }
    return !text || parse_date(text, &out->expires_us) ||
           err_at(e, ERR_INVALID, "expires", "expires must be a date like 2027-01-31 or 2027-01-31T18:00:00Z.");
}

static bool read_count(const cJSON *object, const char *key, int64_t *out, err *e) {
    *out = 0;
    return json_get_int(object, "", key, 0, 1000000000000, out, e);
}

bool rules_from_json(const cJSON *object, key_rules *out, unsigned *mask, err *e) {
    static const char *const names[] = {"models",    "requests_minute", "tokens_minute", "streams",
                                        "money_day", "money_month",     "expires"};
    *out = rules_none();
    *mask = 0;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        *mask |= given(object, names[i]) ? 1U << i : 0;
    }
    return (!(*mask & RULE_MODELS) || read_models(object, out, e)) &&
           read_count(object, "requests_minute", &out->requests_minute, e) &&
           read_count(object, "tokens_minute", &out->tokens_minute, e) &&
           read_count(object, "streams", &out->streams, e) && read_money(object, "money_day", &out->nano_day, e) &&
           read_money(object, "money_month", &out->nano_month, e) && read_expires(object, out, e);
}

/* ---- writing ---- */

static void add_usd(str *out, const char *key, int64_t nano) {
    str_addf(out, ",\"%s\":", key);
    str_usd(out, money_micro(nano));
}

static void add_date(str *out, const char *key, int64_t us) {
    char text[DATE_TEXT];
    if (us > 0) {
        date_text(us, text);
        str_addf(out, ",\"%s\":\"%s\"", key, text);
    }
}

static void add_count(str *out, const char *key, int64_t n) {
    if (n > 0) {
        str_addf(out, ",\"%s\":%lld", key, (long long)n);
    }
}

void rules_to_json(const key_rules *r, str *out) {
    if (r->models[0]) {
        str_adds(out, ",\"models\":[");
        for (const char *at = r->models; *at;) {
            size_t n = strcspn(at, ",");
            str_adds(out, at == r->models ? "" : ",");
            str_json(out, at, n);
            at += n + (at[n] == ',');
        }
        str_addc(out, ']');
    }
    add_count(out, "requests_minute", r->requests_minute);
    add_count(out, "tokens_minute", r->tokens_minute);
    add_count(out, "streams", r->streams);
    if (r->nano_day >= 0) {
        add_usd(out, "money_day", r->nano_day);
    }
    if (r->nano_month >= 0) {
        add_usd(out, "money_month", r->nano_month);
    }
    add_date(out, "expires", r->expires_us);
}

/* What a key, or a group, has spent today and this month. */
typedef struct spending {
    const ledger_spender *all;
    size_t                n;
    map                  *keys, *groups; /* names to places in the sums */
    struct {
        int64_t day, month;
    } * sums; /* two of each spender: of its key and of its group, unless it stood there before */
} spending;

static bool add_sum(spending *s, map *names, const char *name, const ledger_spender *of, int64_t place) {
    int64_t at = place;
    if (!map_get(names, name, strlen(name), &at) && !map_put(names, name, strlen(name), at)) {
        return false;
    }
    s->sums[at].day = money_add(s->sums[at].day, of->late_nano);
    s->sums[at].month = money_add(s->sums[at].month, of->nano);
    return true;
}

static bool sum_up(spending *s) {
    s->keys = map_new(s->n);
    s->groups = map_new(s->n);
    s->sums = calloc(s->n * 2 + 1, sizeof *s->sums);
    bool good = s->keys && s->groups && s->sums;
    for (size_t i = 0; good && i < s->n; i++) {
        good = add_sum(s, s->keys, s->all[i].key, &s->all[i], (int64_t)(2 * i)) &&
               add_sum(s, s->groups, s->all[i].group, &s->all[i], (int64_t)(2 * i + 1));
    }
    return good;
}

static void add_spent(const spending *s, const map *names, const char *name, str *out) {
    int64_t at = 0;
    bool    any = map_get(names, name, strlen(name), &at);
    str_adds(out, ",\"spent_day\":");
    str_usd(out, any ? money_micro(s->sums[at].day) : 0);
    str_adds(out, ",\"spent_month\":");
    str_usd(out, any ? money_micro(s->sums[at].month) : 0);
}

static void add_key(const key_row *k, int64_t now_us, str *out) {
    str_adds(out, "{\"name\":");
    str_jsons(out, k->name);
    bool expired = k->rules.expires_us > 0 && k->rules.expires_us <= now_us;
    str_addf(out, ",\"state\":\"%s\"", k->revoked_us ? "revoked" : expired ? "expired" : "active");
    if (k->group[0]) {
        str_adds(out, ",\"group\":");
        str_jsons(out, k->group);
    }
    str_addf(out, ",\"admin\":%s", k->admin ? "true" : "false");
    rules_to_json(&k->rules, out);
    add_date(out, "created", k->created_us);
    add_date(out, "revoked", k->revoked_us);
}

static void write_list(const key_list *l, const spending *of, int64_t now_us, str *json) {
    str_adds(json, "{\"keys\":[");
    for (int i = 0; i < l->n_keys; i++) {
        str_adds(json, i ? "," : "");
        add_key(&l->keys[i], now_us, json);
        add_spent(of, of->keys, l->keys[i].name, json);
        str_addc(json, '}');
    }
    str_adds(json, "],\"groups\":[");
    for (int i = 0; i < l->n_groups; i++) {
        str_adds(json, i ? ",{\"name\":" : "{\"name\":");
        str_jsons(json, l->groups[i].name);
        rules_to_json(&l->groups[i].rules, json);
        add_spent(of, of->groups, l->groups[i].name, json);
        str_addc(json, '}');
    }
    str_adds(json, "]}");
}

bool keys_list_json(sqlite3 *c, int64_t now_us, str *json, err *e) {
    key_list        l;
    ledger_spender *all = NULL;
    spending        of = {0};
    if (!keys_read(c, &l, e)) {
        return false;
    }
    bool good = ledger_spenders(c, month_begin(now_us), day_begin(now_us), &all, &of.n, e);
    if (good) {
        of.all = all;
        good = sum_up(&of) || err_set(e, ERR_MEMORY, "Out of memory for the keys and what they have spent.");
    }
    if (good) {
        write_list(&l, &of, now_us, json);
    }
    map_free(of.keys);
    map_free(of.groups);
    free(of.sums);
    free(all);
    key_list_free(&l);
    return good;
}
