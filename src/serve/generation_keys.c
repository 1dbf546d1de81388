/* generation_keys.c - who may ask: the keys of pare.yaml and those of pare.db in one list, with their accounts.
 *
 * Keys come and go far more often than settings, so a generation may stand on another one: it has keys of its own, and
 * models, backends and settings of the one below, which lives as long.                                               */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/date.h"
#include "base/log.h"
#include "base/map.h"
#include "serve/generation.h"
#include "serve/house.h"
#include "store/keys.h"

typedef struct newcomer { /* an account whose spending has to be read from the ledger */
    account *account;
    int64_t  day, month;
} newcomer;

typedef struct making {
    generation *n;
    key_list    stored;
    newcomer   *newcomers;
    int         n_newcomers;
    map        *by_name;  /* newcomers by kind and name */
    map        *accounts; /* groups: name to account; 0: it has no rules */
    map        *expiries; /* groups: name to when they expire */
} making;

static bool no_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory for the client keys.");
}

static bool any_rule(const limit_rules *r) {
    return r->models || r->requests_minute || r->tokens_minute || r->streams || r->nano_day >= 0 ||
           r->nano_month >= 0 || r->expires_us;
}

/* ---- rules as they are stored ---- */

static bool split_models(arena *memory, const char *text, const char *const **out) {
    size_t count = 1, n = 0;
    for (const char *p = text; *p; p++) {
        count += *p == ',';
    }
    const char **names = arena_zero(memory, count + 1, sizeof *names);
    for (const char *p = text; names && *p;) {
        size_t length = strcspn(p, ",");
        if (length > 0 && !(names[n++] = arena_memdup(memory, p, length))) {
            return false;
        }
        p += length + (p[length] == ',');
    }
    *out = names;
    return names != NULL;
}

static bool rules_of(arena *memory, const key_rules *from, limit_rules *to) {
    *to = (limit_rules){.requests_minute = from->requests_minute,
                        .tokens_minute = from->tokens_minute,
                        .streams = from->streams,
                        .nano_day = from->nano_day,
                        .nano_month = from->nano_month,
                        .expires_us = from->expires_us};
    return !from->models[0] || split_models(memory, from->models, &to->models);
}

/* ---- accounts ---- */

static size_t label(char kind, const char *name, char out[KEY_NAME + 1]) {
    size_t n = strnlen(name, KEY_NAME - 1);
    out[0] = kind;
    memcpy(out + 1, name, n);
    return n + 1;
}

static bool remember(making *m, char kind, const char *name, account *a, err *e) {
    char text[KEY_NAME + 1];
    if (!account_is_new(a)) {
        return true;
    }
    m->newcomers[m->n_newcomers] = (newcomer){.account = a};
    return map_put(m->by_name, text, label(kind, name, text), m->n_newcomers++) || no_memory(e);
}

/* Who had limits once goes on being counted, so that new limits find what was spent. */
static bool open_account(making *m, char kind, const char *name, const limit_rules *rules, account **out, err *e) {
    limits *all = m->n->house->limits;
    *out = NULL;
    if (!any_rule(rules) && !limits_has(all, kind, name)) {
        return true;
    }
    *out = limits_account(all, kind, name, rules, e);
    return *out && remember(m, kind, name, *out, e);
}

static bool open_group(making *m, const char *name, const limit_rules *rules, err *e) {
    account *a;
    int64_t  there;
    size_t   n = strlen(name);
    if (map_get(m->accounts, name, n, &there)) { /* of the file: it wins over the database's */
        return true;
    }
    return open_account(m, 'g', name, rules, &a, e) &&
           ((map_put(m->accounts, name, n, (int64_t)(intptr_t)a) && map_put(m->expiries, name, n, rules->expires_us)) ||
            no_memory(e));
}

static bool open_groups(making *m, err *e) {
    const settings *s = m->n->settings;
    for (int i = 0; i < s->n_groups; i++) {
        if (!open_group(m, s->groups[i].name, &s->groups[i].rules, e)) {
            return false;
        }
    }
    for (int i = 0; i < m->stored.n_groups; i++) {
        const group_row *g = &m->stored.groups[i];
        limit_rules      rules;
        if (!rules_of(m->n->memory, &g->rules, &rules)) {
            return no_memory(e);
        }
        if (!open_group(m, g->name, &rules, e)) {
            return false;
        }
    }
    return true;
}

static bool no_group(const making *m, const char *key, const char *group, err *e) {
    const settings *s = m->n->settings;
    size_t          most = (size_t)s->n_groups + (size_t)m->stored.n_groups;
    const char    **names = calloc(most + 1, sizeof *names);
    const char     *near = NULL;
    for (size_t i = 0; names && i < most; i++) {
        names[i] = i < (size_t)s->n_groups ? s->groups[i].name : m->stored.groups[i - (size_t)s->n_groups].name;
    }
    near = names ? nearest_name(group, names) : NULL;
    err_set(e, ERR_INVALID, "The key %s is of the group \"%s\", which does not exist%s%s%s.", key, group,
            near ? "; did you mean " : "", near ? near : "", near ? "?" : "; add it under groups in pare.yaml");
    free(names);
    return false;
}

/* ---- keys ---- */

static bool add_key(making *m, client_key k, const limit_rules *rules, err *e) {
    gateway *g = &m->n->gateway;
    int64_t  at = 0, expires = 0;
    if (k.group[0] && !map_get(m->accounts, k.group, strlen(k.group), &at)) {
        return no_group(m, k.name, k.group, e);
    }
    if (!k.revoked && !open_account(m, 'k', k.name, rules, &k.account, e)) {
        return false;
    }
    k.group_account = (account *)(intptr_t)at;
    k.expires_us = rules->expires_us;
    if (k.group[0] && map_get(m->expiries, k.group, strlen(k.group), &expires) && expires > 0 &&
        (k.expires_us == 0 || expires < k.expires_us)) {
        k.expires_us = expires;
    }
    g->keys[g->n_keys++] = k;
    return true;
}

static bool add_stored(making *m, const key_row *row, const map *of_file, err *e) {
    arena      *memory = m->n->memory;
    int64_t     ignored;
    limit_rules rules;
    client_key  k = {.name = arena_strdup(memory, row->name),
                     .hash = row->hash,
                     .space = arena_strdup(memory, row->space),
                     .group = arena_strdup(memory, row->group),
                     .admin = row->admin,
                     .revoked = row->revoked_us > 0};
    if (!k.name || !k.space || !k.group || !rules_of(memory, &row->rules, &rules)) {
        return no_memory(e);
    }
    if (map_get(of_file, row->name, strlen(row->name), &ignored)) {
        log_warn("the key %s of the database is left out: pare.yaml has one of that name", row->name);
        return true;
    }
    return add_key(m, k, &rules, e);
}

static bool add_keys(making *m, err *e) {
    const settings *s = m->n->settings;
    map            *of_file = map_new((size_t)s->n_keys + 1);
    bool            good = of_file || no_memory(e);
    for (int i = 0; good && i < s->n_keys; i++) {
        const setting_key *k = &s->keys[i];
        client_key made = {.name = k->name, .hash = k->hash, .space = k->space, .group = k->group, .admin = k->admin};
        good = (map_put(of_file, k->name, strlen(k->name), 1) || no_memory(e)) && add_key(m, made, &k->rules, e);
    }
    for (int i = 0; good && i < m->stored.n_keys; i++) {
        good = add_stored(m, &m->stored.keys[i], of_file, e);
    }
    map_free(of_file);
    return good;
}

/* ---- what was spent before ---- */

typedef struct summing {
    making *m;
    bool    day;
} summing;

static void add_spent(const summing *s, char kind, const char *name, int64_t nano) {
    char    text[KEY_NAME + 1];
    int64_t at;
    if (name && name[0] && map_get(s->m->by_name, text, label(kind, name, text), &at)) {
        int64_t *sum = s->day ? &s->m->newcomers[at].day : &s->m->newcomers[at].month;
        *sum += nano;
    }
}

static void take_spent(void *ctx, const char *key, const char *group, int64_t nano, int64_t requests, int64_t tokens) {
    (void)requests;
    (void)tokens;
    add_spent(ctx, 'k', key, nano);
    add_spent(ctx, 'g', group, nano);
}

static bool read_spent(making *m, err *e) {
    int64_t now = clock_wall_us();
    db     *d = m->n->house->db;
    summing of_day = {m, true}, of_month = {m, false};
    if (m->n_newcomers == 0) {
        return true;
    }
    if (!db_spend(d, day_begin(now), take_spent, &of_day, e) ||
        !db_spend(d, month_begin(now), take_spent, &of_month, e)) {
        return err_prefix(e, "The budgets cannot be read from the ledger");
    }
    for (int i = 0; i < m->n_newcomers; i++) {
        account_spent(m->newcomers[i].account, now, m->newcomers[i].day, m->newcomers[i].month);
    }
    return true;
}

/* ---- the whole ---- */

static bool read_stored(making *m, err *e) {
    struct sqlite3 *c = keys_connect(m->n->settings->data, false, e);
    bool            good = c && keys_read(c, &m->stored, e);
    keys_disconnect(c);
    m->n->keys_change = m->stored.change;
    return good;
}

bool generation_open_keys(generation *n, err *e) {
    const settings *s = n->settings;
    making          m = {.n = n};
    bool            good = read_stored(&m, e);
    size_t          most = good ? (size_t)(s->n_keys + m.stored.n_keys) : 0;
    size_t          groups = good ? (size_t)(s->n_groups + m.stored.n_groups) : 0;
    if (good) {
        n->memory = arena_new(4096);
        n->gateway.keys = calloc(most + 1, sizeof *n->gateway.keys);
        m.newcomers = calloc(most + groups + 1, sizeof *m.newcomers);
        m.by_name = map_new(most + groups + 1);
        m.accounts = map_new(groups + 1);
        m.expiries = map_new(groups + 1);
        good = (n->memory && n->gateway.keys && m.newcomers && m.by_name && m.accounts && m.expiries) || no_memory(e);
    }
    good = good && open_groups(&m, e) && add_keys(&m, e) && read_spent(&m, e);
    gateway_sort_keys(n->gateway.keys, n->gateway.n_keys);
    key_list_free(&m.stored);
    free(m.newcomers);
    map_free(m.by_name);
    map_free(m.accounts);
    map_free(m.expiries);
    return good;
}

generation *generation_rekey(generation *was, err *e) {
    generation *root = was->root ? was->root : was;
    generation *n = calloc(1, sizeof *n);
    if (!n) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    *n = (generation){.gateway = root->gateway,
                      .house = root->house,
                      .settings = root->settings,
                      .tls = root->tls,
                      .root = generation_hold(root),
                      .users = 1};
    n->gateway.keys = NULL;
    n->gateway.n_keys = 0;
    if (!generation_open_keys(n, e)) {
        generation_free(n);
        return NULL;
    }
    return n;
}

void generation_free_keys(generation *n) {
    free(n->gateway.keys);
    n->gateway.keys = NULL;
    n->gateway.n_keys = 0;
    arena_free(n->memory);
}
