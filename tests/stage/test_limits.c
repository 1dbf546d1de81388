/* What a client may use: money is held before and settled after, and never passed, whatever runs at once. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "stage/limits.h"

#define DAY    (86400LL * 1000000)
#define DOLLAR 1000000000LL

static limits *all;
static price   cheap = {.standard = {.input = 1 * DOLLAR, .output = 10 * DOLLAR}, .known = true};

static int start(void **state) {
    (void)state;
    err e = {0};
    all = limits_new(&e);
    price_rates *r[] = {&cheap.standard, &cheap.batch, &cheap.flex, &cheap.priority, &cheap.longer};
    for (size_t i = 0; i < sizeof r / sizeof r[0]; i++) {
        *r[i] = (price_rates){.input = DOLLAR,
                              .output = 10 * DOLLAR,
                              .cached = DOLLAR,
                              .write_5m = DOLLAR,
                              .write_1h = DOLLAR,
                              .reasoning = 10 * DOLLAR,
                              .audio_in = DOLLAR,
                              .audio_cached = DOLLAR,
                              .image_in = DOLLAR,
                              .audio_out = 10 * DOLLAR};
    }
    return all == NULL;
}

static int finish(void **state) {
    (void)state;
    limits_free(all);
    return 0;
}

static account *make(char kind, const char *name, limit_rules rules) {
    err      e = {0};
    account *a = limits_account(all, kind, name, &rules, &e);
    assert_ok(a, e);
    return a;
}

#define FREE ((limit_rules){.nano_day = -1, .nano_month = -1})

static limit_ask ask_at(int64_t now, int64_t prompt, int64_t output) {
    return (limit_ask){.now_us = now, .price = &cheap, .prompt = prompt, .output = output, .least = 16};
}

static int take(account *key, account *group, limit_ask q, limit_grant *g, err *e) {
    limit_refusal why = {0};
    *e = (err){0};
    return limits_take(key, group, &q, g, &why, e) ? 200 : why.status;
}

static void test_money(void **state) {
    (void)state;
    limit_rules rules = FREE;
    rules.nano_day = DOLLAR / 100; /* a cent: 1000 tokens out, or 10000 in */
    account    *a = make('k', "money", rules);
    limit_grant g, h;
    err         e;
    assert_int_equal(take(a, NULL, ask_at(DAY, 1000, 500), &g, &e), 200); /* 0.1 + 0.5 cents */
    assert_int_equal(g.nano, price_most(&cheap, 1000, 500));
    assert_true(g.bounded && g.output == 500);
    assert_int_equal(take(a, NULL, ask_at(DAY, 1000, 500), &h, &e), 200); /* 0.4 are left: 0.1 and 300 tokens */
    assert_int_equal(h.output, 300);
    limit_grant none;
    assert_int_equal(take(a, NULL, ask_at(DAY, 0, 500), &none, &e), 402);
    assert_non_null(strstr(e.text, "money"));
    limits_settle(&g, 0, 0); /* it failed and cost nothing */
    limits_settle(&g, DOLLAR, 0);
    assert_int_equal(take(a, NULL, ask_at(DAY, 1000, 500), &g, &e), 200);
    limits_settle(&g, price_most(&cheap, 1000, 500), 1500);
    limits_settle(&h, price_most(&cheap, 1000, 300), 1300);
    assert_int_equal(take(a, NULL, ask_at(DAY, 0, 500), &g, &e), 402);
    assert_int_equal(take(a, NULL, ask_at(2 * DAY, 0, 500), &g, &e), 200); /* another day */
    limits_settle(&g, 0, 0);
    account_spent(a, 3 * DAY, DOLLAR / 100, 0); /* as the ledger says after a restart */
    assert_int_equal(take(a, NULL, ask_at(3 * DAY, 0, 500), &g, &e), 402);
    assert_int_equal(take(a, NULL, ask_at(4 * DAY, 0, 500), &g, &e), 200);
    limits_settle(&g, 0, 0);
}

/* The month of every day, against the C library's. */
static void test_month_of_a_day(void **state) {
    (void)state;
    account *a = make('k', "calendar", FREE);
    for (int64_t day = 1; day < 366 * 200; day++) {
        time_t    seconds = (time_t)day * 86400 - 1; /* the last second of the day before, then the day's first */
        struct tm t;
        for (int i = 0; i < 2; i++, seconds++) {
            gmtime_r(&seconds, &t);
            account_view v = account_look(a, (int64_t)seconds * 1000000);
            assert_int_equal(v.month, (int64_t)t.tm_year * 12 + t.tm_mon);
        }
    }
}

static void test_month_and_midnight(void **state) {
    (void)state;
    limit_rules rules = FREE;
    rules.nano_month = DOLLAR / 100;
    account    *a = make('k', "month", rules);
    limit_grant g, h;
    err         e;
    int64_t     end = 1796083200LL * 1000000 - 1; /* 2026-11-30 23:59:59.999999 UTC */
    assert_int_equal(take(a, NULL, ask_at(end, 0, 1000), &g, &e), 200);
    assert_int_equal(take(a, NULL, ask_at(end, 0, 100), &h, &e), 402);
    assert_int_equal(take(a, NULL, ask_at(end + 1, 0, 100), &h, &e), 402); /* what runs is held in the new month too */
    limits_settle(&g, DOLLAR / 100, 1000);
    assert_int_equal(take(a, NULL, ask_at(end + 1, 0, 1000), &h, &e), 200); /* but it was spent in the old one */
    limits_settle(&h, 0, 0);
}

static void test_rates(void **state) {
    (void)state;
    limit_rules rules = FREE;
    rules.requests_minute = 3;
    rules.tokens_minute = 1000;
    rules.streams = 1;
    account      *a = make('k', "rates", rules);
    limit_grant   g[4];
    err           e;
    limit_refusal why = {0};
    limit_ask     q = ask_at(30000000, 100, 100);
    assert_int_equal(take(a, NULL, q, &g[0], &e), 200);
    q.stream = true;
    assert_int_equal(take(a, NULL, q, &g[1], &e), 200);
    assert_int_equal(take(a, NULL, q, &g[2], &e), 429); /* a second stream */
    q.stream = false;
    assert_int_equal(take(a, NULL, q, &g[2], &e), 200);
    assert_false(limits_take(a, NULL, &q, &g[3], &why, &e)); /* a fourth request */
    assert_int_equal(why.status, 429);
    assert_int_equal(why.retry_after, 30);
    q.now_us = 60000000;
    limits_settle(&g[0], 0, 50);
    limits_settle(&g[1], 0, 50);
    limits_settle(&g[2], 0, 50);
    q.output = 700;
    assert_int_equal(take(a, NULL, q, &g[0], &e), 200); /* 800 of 1000 */
    assert_int_equal(take(a, NULL, q, &g[1], &e), 429);
    limits_settle(&g[0], 0, 150);
    assert_int_equal(take(a, NULL, q, &g[1], &e), 200);
    limits_settle(&g[1], 0, 0);
    q.output = 100000; /* more than a minute has: alone in its minute it may */
    q.now_us = 120000000;
    assert_int_equal(take(a, NULL, q, &g[0], &e), 200);
    limits_settle(&g[0], 0, 0);
    rules.expires_us = 120000000;
    make('k', "rates", rules);
    assert_int_equal(take(a, NULL, q, &g[0], &e), 403);
}

static void test_groups(void **state) {
    (void)state;
    limit_rules cent = FREE, lot = FREE;
    cent.nano_day = DOLLAR / 100;
    lot.nano_day = DOLLAR;
    account    *group = make('g', "team", cent), *one = make('k', "one", lot), *two = make('k', "two", lot);
    limit_grant g, h;
    err         e;
    assert_int_equal(take(one, group, ask_at(DAY, 0, 600), &g, &e), 200);
    assert_int_equal(take(two, group, ask_at(DAY, 0, 600), &h, &e), 200);
    assert_int_equal(h.output, 400);
    limit_grant none;
    assert_int_equal(take(one, group, ask_at(DAY, 0, 600), &none, &e), 402);
    assert_non_null(strstr(e.text, "group team"));
    account_state s[8];
    int           n = limits_states(all, s, 8, DAY);
    for (int i = 0; i < n; i++) { /* the refused one left nothing behind in the key's account */
        if (strcmp(s[i].name, "one") == 0) {
            assert_int_equal(s[i].held, g.nano);
        }
    }
    limits_settle(&g, 0, 0);
    limits_settle(&h, 0, 0);
}

static void test_models(void **state) {
    (void)state;
    static const char *const some[] = {"gpt-4o-mini", "claude-*", NULL};
    limit_rules              rules = FREE;
    assert_true(account_allows(make('k', "all", rules), "anything"));
    rules.models = some;
    account *a = make('k', "some", rules);
    assert_true(account_allows(a, "gpt-4o-mini"));
    assert_true(account_allows(a, "claude-opus"));
    assert_false(account_allows(a, "gpt-4o"));
    static const char *const none[] = {NULL};
    rules.models = none;
    assert_false(account_allows(make('k', "some", rules), "gpt-4o-mini"));
}

/* Who has spent more than there was (an estimate was too low) may still ask what costs nothing. */
static void test_free_when_overspent(void **state) {
    (void)state;
    limit_rules rules = FREE;
    rules.nano_day = DOLLAR / 100;
    account    *a = make('k', "overspent", rules);
    price       free_of_charge = {.known = true};
    limit_grant g;
    err         e;
    limit_ask   q = ask_at(DAY, 10, 100);
    assert_int_equal(take(a, NULL, q, &g, &e), 200);
    limits_settle(&g, DOLLAR, 110);
    assert_int_equal(take(a, NULL, q, &g, &e), 402);
    q.price = &free_of_charge;
    assert_int_equal(take(a, NULL, q, &g, &e), 200);
    assert_int_equal(g.output, 100);
    assert_false(g.bounded);
    limits_settle(&g, 0, 110);
}

/* Numbers as large as a request can say them. */
static void test_huge(void **state) {
    (void)state;
    limit_rules rules = FREE;
    rules.nano_day = DOLLAR;
    rules.nano_month = DOLLAR;
    rules.tokens_minute = 1000000;
    account    *a = make('k', "huge", rules), *b = make('g', "huge", rules);
    limit_grant g, h;
    err         e;
    limit_ask   q = ask_at(DAY, 1000, INT64_MAX / 2);
    assert_int_equal(take(a, b, q, &g, &e), 200); /* cut down to the money: 0.999 dollars of output */
    assert_int_equal(g.output, 99900);
    assert_true(g.nano <= DOLLAR);
    assert_int_equal(take(a, b, q, &h, &e), 429);
    limits_settle(&g, 0, 0);
    q.prompt = INT64_MAX / 2;
    assert_int_equal(take(a, b, q, &g, &e), 402);
    q.prompt = 1;
    q.output = 0;
    q.least = 0;
    assert_int_equal(take(a, b, q, &g, &e), 200);
    limits_settle(&g, 1000, 1);
}

#define THREADS 16
#define ROUNDS  4000

static account        *shared_key, *shared_group;
static _Atomic int64_t spent, refused;

/* Each request costs what it was granted, or less. */
static void *spend(void *arg) {
    uint64_t seed = (uint64_t)(uintptr_t)arg * 77 + 1;
    for (int i = 0; i < ROUNDS; i++) {
        limit_grant g;
        err         e = {0};
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int64_t prompt = (int64_t)(seed >> 40) % 200, output = (int64_t)(seed >> 50) % 300;
        if (take(shared_key, shared_group, ask_at(DAY, prompt, output), &g, &e) != 200) {
            atomic_fetch_add(&refused, 1);
            continue;
        }
        int64_t cost = price_most(&cheap, prompt, g.output);
        cost = seed >> 20 & 1 ? cost : cost / 2;
        atomic_fetch_add(&spent, cost);
        limits_settle(&g, cost, prompt + g.output);
    }
    return NULL;
}

static void test_never_passed(void **state) {
    (void)state;
    limit_rules rules = FREE;
    rules.nano_day = 20 * DOLLAR;
    shared_group = make('g', "crowd", rules);
    rules.nano_day = 1000 * DOLLAR;
    shared_key = make('k', "member", rules);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, spend, (void *)(uintptr_t)(i + 1)), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    account_state s[32];
    int           n = limits_states(all, s, 32, DAY);
    for (int i = 0; i < n; i++) {
        if (strcmp(s[i].name, "crowd") == 0) {
            assert_int_equal(s[i].nano_day, atomic_load(&spent));
            assert_int_equal(s[i].held, 0);
        }
    }
    assert_true(atomic_load(&spent) <= 20 * DOLLAR);
    assert_true(atomic_load(&spent) > 20 * DOLLAR - DOLLAR / 100 || atomic_load(&refused) == 0);
}

/* A node that is alone for a while: its share of each limit, and of what is counted at least one. */
static void test_shares(void **state) {
    (void)state;
    limit_grant g[4];
    err         e = {0};
    account    *a = make('k', "share", (limit_rules){.requests_minute = 3, .nano_day = 1000 * 1000, .nano_month = -1});
    limit_ask   q = ask_at(5 * DAY, 0, 16);
    q.share = 0.5; /* half of a million: 16 tokens cost 160000 */
    assert_int_equal(take(a, NULL, q, &g[0], &e), 200);
    assert_int_equal(take(a, NULL, q, &g[1], &e), 429); /* 3 * 0.5 is one */
    q.now_us += 60000000;
    assert_int_equal(take(a, NULL, q, &g[1], &e), 200);
    q.now_us += 60000000;
    q.least = 1;
    assert_int_equal(take(a, NULL, q, &g[2], &e), 200);
    q.now_us += 60000000;
    assert_int_equal(take(a, NULL, q, &g[3], &e), 200);
    assert_int_equal(g[3].output, 2); /* of 500000: 3 * 160000 are held */
    limits_settle(&g[0], 160000, 16);
    limits_settle(&g[1], 160000, 16);
    limits_settle(&g[2], 160000, 16);
    limits_settle(&g[3], 20000, 2);
    q.now_us += 60000000;
    assert_int_equal(take(a, NULL, q, &g[0], &e), 402);
    q.share = 0;
    assert_int_equal(take(a, NULL, q, &g[0], &e), 200);
    limits_settle(&g[0], 0, 0);
    q.share = 0.01;
    account *one = make('k', "one", (limit_rules){.streams = 2, .nano_day = -1, .nano_month = -1});
    q.stream = true;
    assert_int_equal(take(one, NULL, q, &g[0], &e), 200);
    assert_int_equal(take(one, NULL, q, &g[1], &e), 429);
    limits_settle(&g[0], 0, 0);
}

/* What somebody else has granted is held here whatever there is left. */
static void test_held_from_elsewhere(void **state) {
    (void)state;
    limit_grant   g;
    account_state s[1];
    account      *a = make('k', "elsewhere", (limit_rules){.nano_day = 10, .nano_month = -1});
    limit_ask     q = ask_at(5 * DAY, 100, 50);
    assert_int_equal(limits_cover(&q, price_most(&cheap, 100, 50)), 50);
    assert_int_equal(limits_cover(&q, price_most(&cheap, 100, 50) - 1), 49);
    assert_int_equal(limits_cover(&q, price_most(&cheap, 100, 0)), 0);
    assert_int_equal(limits_cover(&q, price_most(&cheap, 100, 0) - 1), -1);
    limits_hold(a, NULL, &q, 5000, 30, &g);
    assert_true(g.held && g.bounded && g.output == 30 && g.tokens == 130);
    assert_true(limits_states(all, s, 1, 5 * DAY) == 1 && s[0].held == 5000 && s[0].tokens == 130);
    limits_settle(&g, 4000, 120);
    assert_true(limits_states(all, s, 1, 5 * DAY) == 1 && s[0].held == 0 && s[0].nano_day == 4000 &&
                s[0].tokens == 120);
    account_view v = account_look(a, 5 * DAY);
    assert_true(v.kind == 'k' && v.nano_day == 4000 && v.nano_month == 4000 && v.day == 5 && v.rules.nano_day == 10);
}

/* Requests that come late over midnight do not open yesterday again; a clock that is set back by more does. */
static void test_time_goes_on(void **state) {
    (void)state;
    limit_grant g;
    err         e = {0};
    account    *a = make('k', "late", (limit_rules){.nano_day = 1000 * 1000, .nano_month = -1});
    assert_int_equal(take(a, NULL, ask_at(7 * DAY, 0, 16), &g, &e), 200);
    limits_settle(&g, 900 * 1000, 16);
    assert_int_equal(take(a, NULL, ask_at(7 * DAY - 5, 0, 16), &g, &e), 402);
    assert_int_equal(take(a, NULL, ask_at(7 * DAY, 0, 16), &g, &e), 402);
    assert_int_equal(take(a, NULL, ask_at(2 * DAY, 0, 16), &g, &e), 200);
    limits_settle(&g, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_money),
                                       cmocka_unit_test(test_month_of_a_day),
                                       cmocka_unit_test(test_month_and_midnight),
                                       cmocka_unit_test(test_rates),
                                       cmocka_unit_test(test_groups),
                                       cmocka_unit_test(test_models),
                                       cmocka_unit_test(test_free_when_overspent),
                                       cmocka_unit_test(test_huge),
                                       cmocka_unit_test(test_never_passed),
                                       cmocka_unit_test(test_shares),
                                       cmocka_unit_test(test_held_from_elsewhere),
                                       cmocka_unit_test(test_time_goes_on)};
    return cmocka_run_group_tests(tests, start, finish);
}
