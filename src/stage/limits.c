#include "stage/limits.h"

#include <fnmatch.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/map.h"

#define DAY_US    (86400LL * 1000000)
#define MINUTE_US (60LL * 1000000)

struct account {
    account        *next;
    char            kind, name[64];
    pthread_mutex_t lock;
    limit_rules     rules;
    char **_Atomic  models;             /* owned; rules.models. Changed under the lock */
    int64_t         minute, day, month; /* which ones the counts are of */
    int64_t         requests, tokens;
    int64_t         nano_day, nano_month, held;
    int64_t         streams;
    bool            told; /* what was spent before it was made */
};

struct limits {
    pthread_mutex_t lock; /* of the list */
    account        *first;
    map            *by_name; /* kind and name: the account's address */
};

limits *limits_new(err *e) {
    limits *l = calloc(1, sizeof *l);
    if (!l || !(l->by_name = map_new(64))) {
        free(l);
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    pthread_mutex_init(&l->lock, NULL);
    return l;
}

static void free_models(char **models) {
    for (char **m = models; m && *m; m++) {
        free(*m);
    }
    free(models);
}

void limits_free(limits *l) {
    for (account *a = l ? l->first : NULL, *next; a; a = next) {
        next = a->next;
        free_models(a->models);
        pthread_mutex_destroy(&a->lock);
        free(a);
    }
    if (l) {
        pthread_mutex_destroy(&l->lock);
        map_free(l->by_name);
        free(l);
    }
}

/* ---- rules ---- */

static bool copy_models(const char *const *from, char ***out) {
    size_t n = 0;
    while (from && from[n]) {
        n++;
    }
    *out = from ? calloc(n + 1, sizeof **out) : NULL;
    for (size_t i = 0; *out && i < n; i++) {
        (*out)[i] = strdup(from[i]);
        if (!(*out)[i]) {
            free_models(*out);
            *out = NULL;
        }
    }
    return !from || *out;
}

/* In a map, since a server may have ten thousand. */
static size_t label(char kind, const char *name, char out[72]) {
    size_t n = strnlen(name, 63);
    out[0] = kind;
    memcpy(out + 1, name, n);
    return n + 1;
}

static account *find(const limits *l, char kind, const char *name) {
    char    text[72];
    int64_t at = 0;
    size_t  n = label(kind, name, text);
    return map_get(l->by_name, text, n, &at) ? (account *)(intptr_t)at : NULL;
}

static account *make(limits *l, char kind, const char *name) {
    account *a = calloc(1, sizeof *a);
    char     text[72];
    if (a && !map_put(l->by_name, text, label(kind, name, text), (int64_t)(intptr_t)a)) {
        free(a);
        a = NULL;
    }
    if (a) {
        a->kind = kind;
        strncpy(a->name, name, sizeof a->name - 1);
        pthread_mutex_init(&a->lock, NULL);
        a->next = l->first;
        l->first = a;
    }
    return a;
}

bool limits_has(limits *l, char kind, const char *name) {
    pthread_mutex_lock(&l->lock);
    bool there = find(l, kind, name) != NULL;
    pthread_mutex_unlock(&l->lock);
    return there;
}

account *limits_account(limits *l, char kind, const char *name, const limit_rules *rules, err *e) {
    char **models = NULL, **old = NULL;
    if (!copy_models(rules->models, &models)) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    pthread_mutex_lock(&l->lock);
    account *a = find(l, kind, name);
    a = a ? a : make(l, kind, name);
    pthread_mutex_unlock(&l->lock);
    if (!a) {
        free_models(models);
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    pthread_mutex_lock(&a->lock);
    old = a->models;
    a->rules = *rules;
    a->models = models;
    a->rules.models = (const char *const *)models;
    pthread_mutex_unlock(&a->lock);
    free_models(old);
    return a;
}

bool account_allows(const account *a, const char *model) {
    account *it = (account *)a; /* its lock */
    if (!atomic_load_explicit(&it->models, memory_order_acquire)) {
        return true; /* the usual rules: nothing to read under the lock */
    }
    pthread_mutex_lock(&it->lock);
    char **models = it->models;
    bool   allowed = !models;
    for (char **m = models; m && *m && !allowed; m++) {
        allowed = fnmatch(*m, model, 0) == 0;
    }
    pthread_mutex_unlock(&it->lock);
    return allowed;
}

/* ---- time ---- */

/* Months since January 1900, of a time since 1970. gmtime_r costs as much as the rest of a taking. In years that begin in
 * March a leap day is the last. Source: Hinnant, chrono-Compatible Low-Level Date Algorithms (2013), civil_from_days. */
static int64_t month_of(int64_t now_us) {
    int64_t day = now_us / DAY_US + 719468; /* since the first of March of the year 0 */
    int64_t era = day / 146097, of_era = day % 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t from_march = (5 * of_year + 2) / 153;
    return (era * 400 + year - 1900) * 12 + from_march + 2;
}

static int64_t seconds_to_month(int64_t now_us) {
    time_t    seconds = (time_t)(now_us / 1000000);
    struct tm t;
    gmtime_r(&seconds, &t);
    struct tm next = {.tm_year = t.tm_year, .tm_mon = t.tm_mon + 1, .tm_mday = 1};
    return (int64_t)(timegm(&next) - seconds);
}

/* A request that arrived before midnight may be looked at behind one that came after: it must not turn time back, and
 * only a clock that was set does. */
static bool is_later(int64_t now, int64_t was) {
    return now > was || now < was - 1;
}

/* Counts of a minute, day or month that is over begin anew. What is held is of running requests and stays until they
 * end. */
static void turn(account *a, int64_t now_us) {
    int64_t minute = now_us / MINUTE_US, day = now_us / DAY_US, month = month_of(now_us);
    if (is_later(minute, a->minute)) {
        a->minute = minute;
        a->requests = a->tokens = 0;
    }
    if (is_later(day, a->day)) {
        a->day = day;
        a->nano_day = 0;
    }
    if (is_later(month, a->month)) {
        a->month = month;
        a->nano_month = 0;
    }
}

void account_spent(account *a, int64_t now_us, int64_t nano_day, int64_t nano_month) {
    pthread_mutex_lock(&a->lock);
    turn(a, now_us);
    a->nano_day = nano_day;
    a->nano_month = nano_month;
    a->told = true;
    pthread_mutex_unlock(&a->lock);
}

bool account_is_new(account *a) {
    pthread_mutex_lock(&a->lock);
    bool is_new = !a->told;
    pthread_mutex_unlock(&a->lock);
    return is_new;
}

account_view account_look(account *a, int64_t now_us) {
    pthread_mutex_lock(&a->lock);
    turn(a, now_us);
    account_view v = {.kind = a->kind,
                      .name = a->name,
                      .rules = a->rules,
                      .day = a->day,
                      .month = a->month,
                      .nano_day = a->nano_day,
                      .nano_month = a->nano_month};
    pthread_mutex_unlock(&a->lock);
    v.rules.models = NULL;
    return v;
}

/* ---- taking ---- */

static int64_t seconds_to_minute(int64_t now_us) {
    return 60 - now_us / 1000000 % 60;
}

void limits_refuse(char kind, const char *name, refused_by by, int64_t limit, int64_t now_us, limit_refusal *why,
                   err *e) {
    const char *what = kind == 'g' ? "group" : "key";
    int64_t     wait = seconds_to_minute(now_us);
    switch (by) {
    case REFUSED_EXPIRED:
        *why = (limit_refusal){.status = 403};
        err_set(e, ERR_DENIED, "The %s %s has expired.", what, name);
        return;
    case REFUSED_REQUESTS:
        *why = (limit_refusal){.status = 429, .retry_after = wait};
        err_set(e, ERR_BUSY, "The %s %s may send %lld requests a minute; try again in %lld s.", what, name,
                (long long)limit, (long long)wait);
        return;
    case REFUSED_TOKENS:
        *why = (limit_refusal){.status = 429, .retry_after = wait};
        err_set(e, ERR_BUSY, "The %s %s may use %lld tokens a minute; try again in %lld s.", what, name,
                (long long)limit, (long long)wait);
        return;
    case REFUSED_STREAMS:
        *why = (limit_refusal){.status = 429, .retry_after = 1};
        err_set(e, ERR_BUSY, "The %s %s may have %lld streams at once, and has them.", what, name, (long long)limit);
        return;
    case REFUSED_DAY:
    case REFUSED_MONTH:
        break;
    }
    bool day = by == REFUSED_DAY;
    *why = (limit_refusal){.status = 402};
    why->retry_after = day ? (DAY_US - now_us % DAY_US) / 1000000 : seconds_to_month(now_us);
    err_set(e, ERR_LIMIT,
            "The budget of the %s %s, $%.6g a %s, does not cover this request beside what is spent and "
            "what runs.",
            what, name, (double)limit / 1e9, day ? "day" : "month");
}

/* This node's part of a limit, rounded down; of a count that is limited it is at least one. */
static int64_t part(int64_t limit, double share, int64_t least) {
    int64_t mine = share > 0 && share < 1 && limit > 0 ? (int64_t)((double)limit * share) : limit;
    return mine < least && limit >= least ? least : mine;
}

static int64_t day_left(const account *a, double share) {
    return part(a->rules.nano_day, share, 0) - a->nano_day - a->held;
}

static int64_t month_left(const account *a, double share) {
    return part(a->rules.nano_month, share, 0) - a->nano_month - a->held;
}

/* The smaller of what is left of the day's and the month's money; INT64_MAX: no budget. */
static int64_t money_left(const account *a, double share) {
    int64_t left = a->rules.nano_day >= 0 ? day_left(a, share) : INT64_MAX;
    int64_t month = a->rules.nano_month >= 0 ? month_left(a, share) : INT64_MAX;
    return month < left ? month : left;
}

static bool over_budget(const account *a, const limit_ask *q, limit_refusal *why, err *e) {
    bool day = a->rules.nano_day >= 0 && day_left(a, q->share) <= money_left(a, q->share);
    limits_refuse(a->kind, a->name, day ? REFUSED_DAY : REFUSED_MONTH, day ? a->rules.nano_day : a->rules.nano_month,
                  q->now_us, why, e);
    return false;
}

int64_t limits_cover(const limit_ask *q, int64_t nano) {
    int64_t most = price_most(q->price, q->prompt, q->output);
    if (most == 0 || most <= nano) { /* what costs nothing is covered also when more has been spent than there was */
        return q->output;
    }
    /* The price grows with the tokens: by halving. */
    int64_t low = 0, high = q->output;
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (price_most(q->price, q->prompt, middle) <= nano) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return price_most(q->price, q->prompt, low) <= nano ? low : -1;
}

/* How much of the wanted output this account's money and minute allow; below 0: refused. */
static int64_t output_allowed(account *a, const limit_ask *q, limit_refusal *why, err *e) {
    const limit_rules *r = &a->rules;
    int64_t            requests = part(r->requests_minute, q->share, 1), tokens = part(r->tokens_minute, q->share, 1),
            streams = part(r->streams, q->share, 1);
    if (r->expires_us > 0 && q->now_us >= r->expires_us) {
        limits_refuse(a->kind, a->name, REFUSED_EXPIRED, 0, q->now_us, why, e);
        return -1;
    }
    if (requests > 0 && a->requests >= requests) {
        limits_refuse(a->kind, a->name, REFUSED_REQUESTS, requests, q->now_us, why, e);
        return -1;
    }
    if (q->stream && streams > 0 && a->streams >= streams) {
        limits_refuse(a->kind, a->name, REFUSED_STREAMS, streams, q->now_us, why, e);
        return -1;
    }
    /* A request that is larger than a minute's tokens would never pass: it may when the minute is its own. */
    if (tokens > 0 && a->tokens > 0 && a->tokens + q->prompt + q->output > tokens) {
        limits_refuse(a->kind, a->name, REFUSED_TOKENS, tokens, q->now_us, why, e);
        return -1;
    }
    int64_t left = money_left(a, q->share), output = left == INT64_MAX ? q->output : limits_cover(q, left);
    if (output < q->least) {
        over_budget(a, q, why, e);
        return -1;
    }
    return output;
}

static void hold(account *a, const limit_grant *g) {
    a->requests++;
    a->tokens += g->tokens;
    a->held += g->nano;
    a->streams += g->stream;
}

/* Always the key first, then its group: two accounts are never locked in two orders. */
static bool has_budget(const account *a) {
    return a && (a->rules.nano_day >= 0 || a->rules.nano_month >= 0);
}

static void lock_both(account *const of[2], int64_t now_us) {
    for (int i = 0; i < 2; i++) {
        if (of[i]) {
            pthread_mutex_lock(&of[i]->lock);
            turn(of[i], now_us);
        }
    }
}

static void unlock_both(account *const of[2]) {
    for (int i = 1; i >= 0; i--) {
        if (of[i]) {
            pthread_mutex_unlock(&of[i]->lock);
        }
    }
}

/* Under both locks. */
static void grant(account *const of[2], const limit_ask *q, int64_t nano, int64_t output, limit_grant *out) {
    bool budget = has_budget(of[0]) || has_budget(of[1]);
    *out = (limit_grant){.of = {of[0], of[1]},
                         .nano = nano,
                         .tokens = q->prompt + output,
                         .output = output,
                         .now_us = q->now_us,
                         .minute = q->now_us / MINUTE_US,
                         .day = q->now_us / DAY_US,
                         .month = month_of(q->now_us),
                         .stream = q->stream,
                         .held = true,
                         .bounded = budget && output > 0 && price_most(q->price, 0, output) > 0};
    for (int i = 0; i < 2; i++) {
        if (of[i]) {
            hold(of[i], out);
        }
    }
}

/* Keys are locked before groups, and there is one of each: no two requests wait for each other. */
bool limits_take(account *key, account *group, const limit_ask *q, limit_grant *out, limit_refusal *why, err *e) {
    account *const of[] = {key, group};
    int64_t        output = q->output;
    *out = (limit_grant){.of = {key, group}};
    lock_both(of, q->now_us);
    for (int i = 0; i < 2 && output >= 0; i++) {
        int64_t allowed = of[i] ? output_allowed(of[i], q, why, e) : output;
        output = allowed < output ? allowed : output;
    }
    if (output >= 0) {
        grant(of, q, price_most(q->price, q->prompt, output), output, out);
    }
    unlock_both(of);
    return output >= 0;
}

void limits_hold(account *key, account *group, const limit_ask *q, int64_t nano, int64_t output, limit_grant *out) {
    account *const of[] = {key, group};
    lock_both(of, q->now_us);
    grant(of, q, nano, output, out);
    unlock_both(of);
}

/* Under both locks. */
static void grant_more(limit_grant *g, int64_t nano) {
    for (int i = 0; i < 2; i++) {
        if (g->of[i]) {
            g->of[i]->held += nano;
        }
    }
    g->nano += nano;
}

bool limits_take_more(limit_grant *g, int64_t nano, int64_t now_us, double share) {
    bool enough = true;
    if (!g->held || nano == 0) {
        return true;
    }
    lock_both(g->of, now_us);
    for (int i = 0; i < 2; i++) {
        enough = enough && (!g->of[i] || money_left(g->of[i], share) >= nano);
    }
    if (enough) {
        grant_more(g, nano);
    }
    unlock_both(g->of);
    return enough;
}

void limits_hold_more(limit_grant *g, int64_t nano, int64_t now_us) {
    lock_both(g->of, now_us);
    grant_more(g, nano);
    unlock_both(g->of);
}

void limits_settle(limit_grant *g, int64_t nano, int64_t tokens) {
    for (int i = 0; i < 2 && g->held; i++) {
        account *a = g->of[i];
        if (!a) {
            continue;
        }
        pthread_mutex_lock(&a->lock);
        if (a->minute == g->minute) {
            a->tokens += tokens - g->tokens;
        }
        a->held -= g->nano;
        /* The ledger books it at its arrival: yesterday's request is not in today's budget. */
        a->nano_day += a->day == g->day ? nano : 0;
        a->nano_month += a->month == g->month ? nano : 0;
        a->streams -= g->stream;
        pthread_mutex_unlock(&a->lock);
    }
    g->held = false;
}

int limits_states(limits *l, account_state *out, int room, int64_t now_us) {
    int n = 0;
    pthread_mutex_lock(&l->lock);
    for (account *a = l->first; a; a = a->next) {
        if (n < room) {
            pthread_mutex_lock(&a->lock);
            turn(a, now_us);
            account_state *s = &out[n];
            *s = (account_state){.kind = a->kind,
                                 .nano_day = a->nano_day,
                                 .nano_month = a->nano_month,
                                 .held = a->held,
                                 .requests = a->requests,
                                 .tokens = a->tokens,
                                 .streams = a->streams};
            memcpy(s->name, a->name, sizeof s->name);
            pthread_mutex_unlock(&a->lock);
        }
        n++;
    }
    pthread_mutex_unlock(&l->lock);
    return n < room ? n : room;
}
