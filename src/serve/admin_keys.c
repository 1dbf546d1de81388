/* admin_keys.c - /api/keys, /api/groups and /api/limits: client keys made, limited and revoked, and what they use.
 *
 * The keeper's thread writes and takes the keys over before the answer goes out. A key's secret is in the answer to its
 * making and nowhere else.                                                                                           */
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/money.h"
#include "serve/keeper.h"
#include "serve/later.h"
#include "stage/shared.h"
#include "store/keys.h"

#define MAX_CHANGE 65536

/* ---- lists ---- */

static bool query_keys(struct sqlite3 *db, const void *arg, str *json, err *e) {
    (void)arg;
    return keys_list_json(db, clock_wall_us(), json, e);
}

static void write_rules(const limit_rules *r, str *out) {
    key_rules same = {.requests_minute = r->requests_minute,
                      .tokens_minute = r->tokens_minute,
                      .streams = r->streams,
                      .nano_day = r->nano_day,
                      .nano_month = r->nano_month,
                      .expires_us = r->expires_us};
    size_t    at = 0;
    for (const char *const *m = r->models; m && *m && at + strlen(*m) + 2 < sizeof same.models; m++) {
        same.models[at] = ',';
        at += at > 0;
        memcpy(same.models + at, *m, strlen(*m) + 1);
        at += strlen(*m);
    }
    rules_to_json(&same, out);
}

/* Those of pare.yaml, which only an editor changes. */
static void write_configured(const settings *s, str *out) {
    str_adds(out, ",\"configured\":{\"keys\":[");
    for (int i = 0; i < s->n_keys; i++) {
        const setting_key *k = &s->keys[i];
        str_adds(out, i ? ",{\"name\":" : "{\"name\":");
        str_jsons(out, k->name);
        str_adds(out, ",\"group\":");
        str_jsons(out, k->group);
        str_addf(out, ",\"admin\":%s", k->admin ? "true" : "false");
        write_rules(&k->rules, out);
        str_addc(out, '}');
    }
    str_adds(out, "],\"groups\":[");
    for (int i = 0; i < s->n_groups; i++) {
        str_adds(out, i ? ",{\"name\":" : "{\"name\":");
        str_jsons(out, s->groups[i].name);
        write_rules(&s->groups[i].rules, out);
        str_addc(out, '}');
    }
    str_adds(out, "]}");
}

/* On the database's reader thread, since there may be ten thousand. */
static bool query_limits(struct sqlite3 *db, const void *arg, str *json, err *e) {
    const house   *h = *(const house *const *)arg;
    int64_t        now = clock_wall_us();
    account_state *all = NULL;
    int            n = 0;
    (void)db;
    for (int room = 256; n == room || !all; room *= 4) {
        free(all);
        all = calloc((size_t)room, sizeof *all);
        if (!all) {
            return err_set(e, ERR_MEMORY, "Out of memory.");
        }
        n = limits_states(h->limits, all, room, now);
        if (n < room) {
            break;
        }
    }
    str_addf(json, "{\"shared\":%s,\"accounts\":[", !h->shared ? "null" : shared_up(h->shared) ? "true" : "false");
    for (int i = 0; i < n; i++) {
        const account_state *a = &all[i];
        str_addf(json, "%s{\"kind\":\"%s\",\"name\":", i ? "," : "", a->kind == 'g' ? "group" : "key");
        str_jsons(json, a->name);
        str_adds(json, ",\"spent_day\":");
        str_usd(json, money_micro(a->nano_day));
        str_adds(json, ",\"spent_month\":");
        str_usd(json, money_micro(a->nano_month));
        str_adds(json, ",\"held\":");
        str_usd(json, money_micro(a->held));
        str_addf(json, ",\"requests\":%lld,\"tokens\":%lld,\"streams\":%lld}", (long long)a->requests,
                 (long long)a->tokens, (long long)a->streams);
    }
    str_adds(json, "]}");
    free(all);
    return true;
}

void admin_limits(front *f, struct evhttp_request *r) {
    const house *h = f->house; /* which outlives the database's threads */
    admin_ask(f, r, query_limits, &h, sizeof h, (str){0});
}

/* ---- changes ---- */

typedef enum change_kind { KEY_CREATE, KEY_LIMIT, KEY_REVOKE, GROUP_LIMIT } change_kind;

typedef struct change {
    change_kind kind;
    key_row     row;
    unsigned    mask;
} change;

static bool create(struct sqlite3 *c, const change *what, str *json, err *e) {
    char    secret[KEY_SECRET];
    key_row row = what->row;
    row.created_us = clock_wall_us();
    if (!key_make_secret(&row, secret, e) || !keys_create(c, &row, e)) {
        return false;
    }
    str_adds(json, "{\"name\":");
    str_jsons(json, row.name);
    str_addf(json, ",\"key\":\"%s\"", secret);
    rules_to_json(&row.rules, json);
    return str_addc(json, '}') || err_set(e, ERR_MEMORY, "Out of memory: the key %s is made, but not shown.", row.name);
}

/* On the keeper's thread. */
static bool apply(struct sqlite3 *c, const void *arg, str *json, err *e) {
    const change *what = arg;
    const char   *name = what->row.name;
    bool          good = false;
    switch (what->kind) {
    case KEY_CREATE:
        return create(c, what, json, e);
    case KEY_LIMIT:
        good = keys_limit(c, name, &what->row.rules, what->mask, e);
        break;
    case KEY_REVOKE:
        good = keys_revoke(c, name, clock_wall_us(), e);
        break;
    case GROUP_LIMIT:
        good = groups_limit(c, name, &what->row.rules, what->mask, e);
        break;
    }
    str_adds(json, "{\"name\":");
    str_jsons(json, name);
    str_adds(json, what->kind == KEY_REVOKE ? ",\"state\":\"revoked\"" : "");
    rules_to_json(&what->row.rules, json);
    str_addc(json, '}');
    return good;
}

static void changed(void *ctx, const str *json, const err *e) {
    later_send(ctx, 0, json, e);
}

static void start(front *f, struct evhttp_request *r, const change *what) {
    evhttp_add_header(evhttp_request_get_output_headers(r), "Cache-Control", "no-store");
    later *l = later_begin(f, r);
    if (l && !keeper_change_keys(server_keeper(f->server), apply, what, sizeof *what, changed, l)) {
        err why = {0};
        err_set(&why, ERR_MEMORY, "Out of memory.");
        later_reply(l, 500, NULL, &why);
    }
}

static bool take_text(const cJSON *root, const char *key, char out[KEY_NAME], err *e) {
    const char *text = NULL;
    if (!json_get_string(root, "", key, &text, e)) {
        return false;
    }
    size_t n = text ? strlen(text) : 0;
    if (n > 60) {
        return err_at(e, ERR_INVALID, key, "%s has at most 60 bytes.", key);
    }
    memcpy(out, n ? text : "", n + (n > 0));
    return true;
}

static bool known_members(const cJSON *root, bool creates, err *e) {
    static const char *const known[] = {"models",    "requests_minute", "tokens_minute", "streams",
                                        "money_day", "money_month",     "expires",       "name",
                                        "group",     "space",           "admin",         NULL};
    for (const cJSON *i = root->child; i; i = i->next) {
        bool found = false;
        for (int k = 0; known[k] && (creates || k < 7) && !found; k++) {
            found = strcmp(known[k], i->string) == 0;
        }
        if (!found) {
            const char *near = nearest_name(i->string, known);
            return err_at(e, ERR_INVALID, i->string, "There is no member \"%.80s\" here%s%s%s.", i->string,
                          near && creates ? "; did you mean " : "", near && creates ? near : "",
                          near && creates ? "?" : "");
        }
    }
    return true;
}

static bool read_members(const cJSON *root, bool creates, change *out, err *e) {
    if (!cJSON_IsObject(root)) {
        return err_set(e, ERR_INVALID, "The body must be a JSON object.");
    }
    return known_members(root, creates, e) && rules_from_json(root, &out->row.rules, &out->mask, e) &&
           (!creates ||
            (take_text(root, "name", out->row.name, e) && take_text(root, "group", out->row.group, e) &&
             take_text(root, "space", out->row.space, e) && json_get_bool(root, "", "admin", &out->row.admin, e)));
}

/* Without this header a browser would send other sites' bodies here unasked; with it, it asks first (cors.c). */
static bool says_json(struct evhttp_request *r) {
    const char *type = evhttp_find_header(evhttp_request_get_input_headers(r), "Content-Type");
    return type && strncasecmp(type, "application/json", 16) == 0;
}

static bool read_body(struct evhttp_request *r, bool creates, change *out, err *e) {
    struct evbuffer *in = evhttp_request_get_input_buffer(r);
    size_t           n = evbuffer_get_length(in);
    if (!says_json(r)) {
        return err_set(e, ERR_INVALID, "The body needs Content-Type: application/json.");
    }
    if (n > MAX_CHANGE) {
        return err_set(e, ERR_LIMIT, "The body is larger than %d bytes.", MAX_CHANGE);
    }
    cJSON *root = json_parse(n ? (const char *)evbuffer_pullup(in, -1) : "", n, JSON_MAX_DEPTH, e);
    bool   good = root && read_members(root, creates, out, e);
    cJSON_Delete(root);
    return good;
}

static bool configured(const settings *s, const char *name) {
    for (int i = 0; i < s->n_keys; i++) {
        if (strcmp(s->keys[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool configured_group(const settings *s, const char *name) {
    for (int i = 0; i < s->n_groups; i++) {
        if (strcmp(s->groups[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool not_of_file(const front *f, const change *c, err *e) {
    const settings *s = f->now->settings;
    bool            of_file = c->kind == GROUP_LIMIT ? configured_group(s, c->row.name) : configured(s, c->row.name);
    return !of_file || err_set(e, ERR_INVALID, "%s %s stands in pare.yaml: change it there and reload.",
                               c->kind == GROUP_LIMIT ? "The group" : "The key", c->row.name);
}

static bool take_name(const char *path, change *out, err *e) {
    char *plain = evhttp_uridecode(path, 0, NULL);
    bool  good = plain && key_name_good("key or group", plain, e);
    if (good) {
        memcpy(out->row.name, plain, strlen(plain) + 1);
    }
    free(plain);
    return good;
}

void admin_keys(front *f, struct evhttp_request *r, const char *name, bool group) {
    err    why = {0};
    int    method = evhttp_request_get_command(r);
    change c = {.kind = !name                         ? KEY_CREATE
                        : group                       ? GROUP_LIMIT
                        : method == EVHTTP_REQ_DELETE ? KEY_REVOKE
                                                      : KEY_LIMIT};
    c.row.rules = rules_none();
    if (!name && method != EVHTTP_REQ_POST) {
        str more = {0};
        write_configured(f->now->settings, &more);
        admin_ask(f, r, query_keys, NULL, 0, more);
        return;
    }
    bool good = !name || take_name(name, &c, &why);
    good = good && (c.kind == KEY_REVOKE || read_body(r, !name, &c, &why));
    good = good && (name || key_name_good("key", c.row.name, &why)) && not_of_file(f, &c, &why);
    if (!good) {
        reply_error(r, error_status(why.code), why.code, why.param, "%s", why.text);
        return;
    }
    start(f, r, &c);
}
