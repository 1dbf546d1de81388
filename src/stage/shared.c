/* shared.c - two scripts, and what is told to them. */
#include "stage/shared.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "store/redis.h"

#define LIMIT_US   50000 /* a call to Redis; then the node decides by itself */
#define MAX_LOOPS  64
#define MAX_LEASES 16
#define RENEW_S    20 /* a lease lasts 90 s: it may be late three times */
#define NAME_SIZE  96

/* Per account, a prefix P of keys:
 *   P:d:DAY, P:m:MONTH   hash: node -> nano-dollars spent
 *   P:h, P:s             hash: lease -> nano-dollars held, streams that run
 *   P:r:MINUTE, P:t:MINUTE   requests, tokens
 * and a key pare:lease:LEASE that expires. Redis' numbers are doubles in Lua: exact to 9 million dollars. */

/* ARGV: day, month, minute, node, lease, the whole price, the least one, tokens, 1 for a stream, 1 for a request (0: one more
 * try of a request that has been counted); then of each account
 * requests and tokens a minute, streams, money a day and a month, spent by this node today and this month. Returns
 * {0, 0, granted} or {enum refused_by, which account, 0}. */
static const char take_script[] =
    "local day, month, minute, node, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] "
    "local whole, least, tokens, stream = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]) "
    "local first = ARGV[10] == '1' "
    "local function spent(key, mine, ttl)"
    "  local was = tonumber(redis.call('HGET', key, node) or '0')"
    "  if tonumber(mine) > was then redis.call('HSET', key, node, mine) redis.call('EXPIRE', key, ttl) end"
    "  local sum = 0"
    "  for _, v in ipairs(redis.call('HVALS', key)) do sum = sum + tonumber(v) end"
    "  return sum "
    "end "
    "local function leased(key)"
    "  local sum, all = 0, redis.call('HGETALL', key)"
    "  for i = 1, #all, 2 do"
    "    if all[i] == lease or redis.call('EXISTS', 'pare:lease:' .. all[i]) == 1 then sum = sum + tonumber(all[i + 1])"
    "    else redis.call('HDEL', key, all[i]) end"
    "  end"
    "  return sum "
    "end "
    "local costs = whole > 0 "
    "for j, p in ipairs(KEYS) do"
    "  local a = 10 + (j - 1) * 7"
    "  local requests, rate, streams = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])"
    "  local of_day, of_month = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5])"
    "  if requests > 0 and tonumber(redis.call('GET', p .. ':r:' .. minute) or '0') >= requests then return {1, j, 0} "
    "end"
    "  if stream == 1 and streams > 0 and leased(p .. ':s') >= streams then return {3, j, 0} end"
    "  local used = tonumber(redis.call('GET', p .. ':t:' .. minute) or '0')"
    "  if rate > 0 and used > 0 and used + tokens > rate then return {2, j, 0} end"
    "  local today, so_far = spent(p .. ':d:' .. day, ARGV[a + 6], 259200), spent(p .. ':m:' .. month, ARGV[a + 7], "
    "6048000)"
    "  if costs and (of_day >= 0 or of_month >= 0) then"
    "    local held = leased(p .. ':h')"
    "    local left_day = of_day >= 0 and of_day - today - held or whole"
    "    local left_month = of_month >= 0 and of_month - so_far - held or whole"
    "    local left = math.min(left_day, left_month)"
    "    if left < least then return {left_day <= left_month and of_day >= 0 and 4 or 5, j, 0} end"
    "    whole = math.min(whole, left)"
    "  end "
    "end "
    "for j, p in ipairs(KEYS) do"
    "  if first then"
    "    redis.call('INCR', p .. ':r:' .. minute) redis.call('EXPIRE', p .. ':r:' .. minute, 120)"
    "    redis.call('INCRBY', p .. ':t:' .. minute, ARGV[8]) redis.call('EXPIRE', p .. ':t:' .. minute, 120)"
    "  end"
    "  redis.call('HINCRBY', p .. ':h', lease, string.format('%.0f', whole)) redis.call('EXPIRE', p .. ':h', 86400)"
    "  redis.call('HINCRBY', p .. ':s', lease, stream) redis.call('EXPIRE', p .. ':s', 86400) "
    "end "
    "redis.call('SET', 'pare:lease:' .. lease, 1, 'EX', 90) "
    "return {0, 0, whole}";

/* ARGV: day, month, minute, node, lease or "", held, tokens to add, 1 for a stream; then of each account spent by this node
 * today and this month. */
static const char settle_script[] =
    "local function less(key, lease, by)"
    "  if lease == '' or by == '0' or redis.call('HEXISTS', key, lease) == 0 then return end"
    "  if redis.call('HINCRBY', key, lease, '-' .. by) <= 0 then redis.call('HDEL', key, lease) end "
    "end "
    "local function spent(key, mine, ttl)"
    "  if tonumber(mine) > tonumber(redis.call('HGET', key, ARGV[4]) or '0') then"
    "    redis.call('HSET', key, ARGV[4], mine) redis.call('EXPIRE', key, ttl) end "
    "end "
    "for j, p in ipairs(KEYS) do"
    "  local a = 8 + (j - 1) * 2"
    "  spent(p .. ':d:' .. ARGV[1], ARGV[a + 1], 259200) spent(p .. ':m:' .. ARGV[2], ARGV[a + 2], 6048000)"
    "  less(p .. ':h', ARGV[5], ARGV[6]) less(p .. ':s', ARGV[5], ARGV[8])"
    "  if ARGV[7] ~= '0' and redis.call('EXISTS', p .. ':t:' .. ARGV[3]) == 1 then"
    "    redis.call('INCRBY', p .. ':t:' .. ARGV[3], ARGV[7]) end "
    "end "
    "return 0";

/* KEYS: leases; ARGV: 1 renews, 0 ends it. */
static const char lease_script[] =
    "for i, k in ipairs(KEYS) do"
    "  if ARGV[i] == '1' then redis.call('SET', k, 1, 'EX', 90) else redis.call('DEL', k) end "
    "end "
    "return 0";

enum { TAKE, SETTLE, LEASE };
static const char *const scripts[] = {take_script, settle_script, lease_script, NULL};

/* ---- leases: what one connection of one loop has taken ---- */

typedef struct lease {
    int64_t number; /* the connection's */
    int     open;   /* grants that are not settled */
} lease;

typedef struct hand { /* of a loop, on it */
    shared       *shared;
    loop         *loop;
    struct event *timer;
    lease         leases[MAX_LEASES]; /* the last is the current connection's */
    int           n;
} hand;

struct shared {
    redis       *redis;
    char         node[40];
    double       share;
    hand         hands[MAX_LOOPS];
    _Atomic int  away;           /* it has been said */
    atomic_llong decided, alone; /* requests that Redis decided, and that this node did */
};

static void lease_name(const shared *s, const loop *l, int64_t number, char out[NAME_SIZE]) {
    snprintf(out, NAME_SIZE, "%s.%d.%lld", s->node, loop_index(l), (long long)number);
}

static lease *find_lease(hand *h, int64_t number) {
    for (int i = 0; i < h->n; i++) {
        if (h->leases[i].number == number) {
            return &h->leases[i];
        }
    }
    return NULL;
}

/* Renews those that have grants open and the current one, ends the others: what they still hold was taken by calls whose
 * answers never came. */
static void tend_leases(shared *s, loop *l) {
    hand       *h = &s->hands[loop_index(l)];
    char        names[MAX_LEASES][NAME_SIZE + 16];
    const char *argv[2 * MAX_LEASES];
    int         n = h->n, kept = 0;
    for (int i = 0; i < n; i++) {
        char name[NAME_SIZE];
        bool goes_on = h->leases[i].open > 0 || i == n - 1;
        lease_name(s, l, h->leases[i].number, name);
        snprintf(names[i], sizeof names[i], "pare:lease:%s", name);
        argv[i] = names[i];
        argv[n + i] = goes_on ? "1" : "0";
    }
    if (n == 0 || !redis_run(s->redis, l, LEASE, n, 2 * n, argv, NULL, NULL)) {
        return; /* they end by themselves */
    }
    for (int i = 0; i < n; i++) {
        if (argv[n + i][0] == '1') {
            h->leases[kept++] = h->leases[i];
        }
    }
    h->n = kept;
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    hand *h = arg;
    tend_leases(h->shared, h->loop);
}

/* A connection's lease is begun with it. */
static void on_renewed(void *ctx, loop *l) {
    shared *s = ctx;
    hand   *h = &s->hands[loop_index(l)];
    if (h->n == MAX_LEASES) { /* the oldest ends by itself */
        memmove(h->leases, h->leases + 1, (MAX_LEASES - 1) * sizeof *h->leases);
        h->n--;
    }
    h->leases[h->n++] = (lease){.number = redis_connection(s->redis, l)};
    tend_leases(s, l);
}

static void on_changed(void *ctx, bool up, const char *why) {
    shared *s = ctx;
    if (atomic_exchange(&s->away, !up) == (int)!up) {
        return; /* said already */
    }
    if (up) {
        log_info("Redis is back: limits are shared again");
    } else {
        log_warn("Redis is away (%s): this node goes on with %.0f %% of each limit", why, s->share * 100);
    }
}

/* ---- open, close ---- */

shared *shared_new(const char *url, const char *node, double share, err *e) {
    redis_place place;
    err         why = {0};
    shared     *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    redis_options o = {
        .scripts = scripts, .limit_us = LIMIT_US, .changed = on_changed, .renewed = on_renewed, .ctx = s};
    s->share = share;
    snprintf(s->node, sizeof s->node, "%s", node);
    s->redis = redis_place_of(url, &place, &why) ? redis_new(&place, &o, &why) : NULL;
    if (!s->redis) {
        err_set(e, why.code, "shared.redis: %s", why.text);
        free(s);
        return NULL;
    }
    return s;
}

void shared_free(shared *s) {
    if (s) {
        redis_free(s->redis);
        free(s);
    }
}

static void end_hand(void *arg) {
    hand *h = arg;
    event_free(h->timer);
    h->timer = NULL;
}

bool shared_begin(shared *s, loop *l, err *e) {
    static const struct timeval often = {.tv_sec = RENEW_S};
    if (!s) {
        return true;
    }
    hand *h = loop_index(l) < MAX_LOOPS ? &s->hands[loop_index(l)] : NULL;
    if (h) {
        *h = (hand){.shared = s, .loop = l, .timer = event_new(loop_base(l), -1, EV_PERSIST, on_timer, h)};
    }
    if (!h || !h->timer || event_add(h->timer, &often) != 0 || !loop_at_end(l, end_hand, h)) {
        return err_set(e, ERR_MEMORY, "Out of memory for limits that are shared.");
    }
    return redis_begin(s->redis, l, e);
}

double shared_share(const shared *s) {
    return s->share;
}

bool shared_up(const shared *s) {
    return redis_up(s->redis);
}

bool shared_metrics(const shared *s, str *out) {
    return str_addf(
        out,
        "# HELP pare_limits_shared Limits are kept with other nodes in Redis; 0: it is away.\n"
        "# TYPE pare_limits_shared gauge\npare_limits_shared %d\n"
        "# HELP pare_limits_decisions_total Requests with limits, by who decided: Redis, or this node by its "
        "share.\n# TYPE pare_limits_decisions_total counter\n"
        "pare_limits_decisions_total{by=\"redis\"} %lld\npare_limits_decisions_total{by=\"node\"} %lld\n",
        shared_up(s), (long long)atomic_load(&s->decided), (long long)atomic_load(&s->alone));
}

/* ---- arguments ---- */

typedef struct words { /* of one call; the texts live in it */
    const char *argv[40];
    char        texts[40][NAME_SIZE];
    int         n;
} words;

static void add_text(words *w, const char *text) {
    snprintf(w->texts[w->n], NAME_SIZE, "%s", text);
    w->argv[w->n] = w->texts[w->n];
    w->n++;
}

static void add_number(words *w, int64_t n) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)n);
    add_text(w, text);
}

/* The keys' prefixes come first. */
static int add_accounts(words *w, account *const of[2], int64_t now_us, account_view views[2]) {
    int n = 0;
    for (int i = 0; i < 2; i++) {
        if (of[i]) {
            char prefix[NAME_SIZE];
            views[n] = account_look(of[i], now_us);
            snprintf(prefix, sizeof prefix, "pare:%c:%s", views[n].kind, views[n].name);
            add_text(w, prefix);
            n++;
        }
    }
    return n;
}

/* ---- taking ---- */

typedef struct taking {
    shared     *shared;
    loop       *loop;
    account    *of[2];
    limit_ask   ask;
    int64_t     lease;
    int64_t     more; /* nano-dollars of one more try; 0: it is the first */
    shared_done done;
    void       *ctx;
} taking;

static void count_lease(shared *s, const loop *l, int64_t number, int by) {
    lease *it = find_lease(&s->hands[loop_index(l)], number);
    if (it) {
        it->open += by;
    }
}

static void refuse(const taking *t, refused_by by, int64_t which, shared_answer *a) {
    account     *of = which == 1 && t->of[0] ? t->of[0] : t->of[1] ? t->of[1] : t->of[0];
    account_view v = account_look(of, t->ask.now_us);
    int64_t      limit = by == REFUSED_REQUESTS  ? v.rules.requests_minute
                         : by == REFUSED_TOKENS  ? v.rules.tokens_minute
                         : by == REFUSED_STREAMS ? v.rules.streams
                         : by == REFUSED_DAY     ? v.rules.nano_day
                                                 : v.rules.nano_month;
    limits_refuse(v.kind, v.name, by, limit, t->ask.now_us, &a->why, &a->refused);
}

static void on_taken(void *ctx, const int64_t *values, int n) {
    taking *t = ctx;
    if (n == REDIS_ENDED) {
        free(t);
        return;
    }
    shared_answer a = {.away = n != 3 || values[0] < 0 || values[0] > REFUSED_MONTH || values[2] < 0};
    if (a.away) {
        atomic_fetch_add(&t->shared->alone, 1);
    } else if (values[0] != 0) {
        atomic_fetch_add(&t->shared->decided, 1);
        refuse(t, (refused_by)values[0], values[1], &a);
    } else if (t->more) {
        atomic_fetch_add(&t->shared->decided, 1);
        a.granted = true;
    } else {
        int64_t output = limits_cover(&t->ask, values[2]);
        atomic_fetch_add(&t->shared->decided, 1);
        a.granted = true;
        limits_hold(t->of[0], t->of[1], &t->ask, values[2], output < 0 ? 0 : output, &a.grant);
        a.grant.lease = t->lease;
        a.grant.lease_nano = values[2];
        a.grant.lease_tokens = t->ask.prompt + t->ask.output;
        count_lease(t->shared, t->loop, t->lease, 1);
    }
    t->done(t->ctx, &a);
    free(t);
}

static void take_words(const shared *s, const taking *t, words *w, int *n_keys) {
    account_view     views[2] = {{0}};
    const limit_ask *q = &t->ask;
    char             name[NAME_SIZE];
    *n_keys = add_accounts(w, t->of, q->now_us, views);
    lease_name(s, t->loop, t->lease, name);
    add_number(w, views[0].day);
    add_number(w, views[0].month);
    add_number(w, q->now_us / 60000000);
    add_text(w, s->node);
    add_text(w, name);
    add_number(w, t->more ? t->more : price_most(q->price, q->prompt, q->output));
    add_number(w, t->more ? t->more : price_most(q->price, q->prompt, q->least));
    add_number(w, q->prompt + q->output);
    add_number(w, q->stream);
    add_number(w, t->more == 0);
    for (int i = 0; i < *n_keys; i++) {
        const limit_rules *r = &views[i].rules;
        if (t->more) { /* of these the request has its part */
            views[i].rules.requests_minute = views[i].rules.tokens_minute = views[i].rules.streams = 0;
        }
        const int64_t numbers[] = {r->requests_minute, r->tokens_minute,  r->streams,         r->nano_day,
                                   r->nano_month,      views[i].nano_day, views[i].nano_month};
        for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
            add_number(w, numbers[k]);
        }
    }
}

static bool run_take(taking *t) {
    words w = {.n = 0};
    int   n_keys = 0;
    take_words(t->shared, t, &w, &n_keys);
    if (!redis_run(t->shared->redis, t->loop, TAKE, n_keys, w.n, w.argv, on_taken, t)) {
        atomic_fetch_add(&t->shared->alone, 1);
        free(t);
        return false;
    }
    return true;
}

bool shared_take(shared *s, loop *l, account *key, account *group, const limit_ask *ask, shared_done done, void *ctx) {
    taking *t = calloc(1, sizeof *t);
    if (!t) {
        return false;
    }
    *t = (taking){.shared = s,
                  .loop = l,
                  .of = {key, group},
                  .ask = *ask,
                  .lease = redis_connection(s->redis, l),
                  .done = done,
                  .ctx = ctx};
    return run_take(t);
}

/* Under the lease of the grant, so that both are given back together. */
bool shared_take_more(shared *s, loop *l, const limit_grant *g, int64_t nano, shared_done done, void *ctx) {
    taking *t = g->lease && nano > 0 ? calloc(1, sizeof *t) : NULL;
    if (!t) {
        return false;
    }
    *t = (taking){.shared = s,
                  .loop = l,
                  .of = {g->of[0], g->of[1]},
                  .ask.now_us = g->now_us,
                  .lease = g->lease,
                  .more = nano,
                  .done = done,
                  .ctx = ctx};
    return run_take(t);
}

/* ---- settling ---- */

void shared_settle(shared *s, loop *l, const limit_grant *g, int64_t tokens) {
    account_view views[2] = {{0}};
    words        w = {.n = 0};
    char         name[NAME_SIZE] = "";
    int          n_keys = add_accounts(&w, g->of, g->now_us, views);
    if (n_keys == 0) {
        return;
    }
    if (g->lease) {
        lease_name(s, l, g->lease, name);
        count_lease(s, l, g->lease, -1);
    }
    add_number(&w, views[0].day);
    add_number(&w, views[0].month);
    add_number(&w, g->minute);
    add_text(&w, s->node);
    add_text(&w, name);
    add_number(&w, g->lease_nano);
    add_number(&w, g->lease ? tokens - g->lease_tokens : tokens);
    add_number(&w, g->stream);
    for (int i = 0; i < n_keys; i++) {
        add_number(&w, views[i].nano_day);
        add_number(&w, views[i].nano_month);
    }
    redis_run(s->redis, l, SETTLE, n_keys, w.n, w.argv, NULL, NULL); /* away: the next call tells what was spent */
}
