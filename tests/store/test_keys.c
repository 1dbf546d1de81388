/* Client keys in pare.db: what is kept of a secret, names, limits one by one, two processes at once; dates; and where a
 * Redis is. */
#include "check.h"

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/date.h"
#include "base/json.h"
#include "base/log.h"
#include "store/db.h"
#include "store/keys.h"
#include "store/redis.h"

static char            directory[64];
static struct sqlite3 *c;

static int setup(void **state) {
    (void)state;
    err e = {0};
    log_setup(LOG_OFF, false);
    snprintf(directory, sizeof directory, "/tmp/pare-test-keys-XXXXXX");
    if (!mkdtemp(directory)) {
        return -1;
    }
    c = keys_connect(directory, true, &e);
    return c ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    static const char *const names[] = {"", "-wal", "-shm", "-journal"};
    char                     file[128];
    keys_disconnect(c);
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s/pare.db%s", directory, names[i]);
        unlink(file);
    }
    return rmdir(directory);
}

static bool create(const char *name, const char *group, key_rules rules, char secret[KEY_SECRET], err *e) {
    key_row row = {.rules = rules, .created_us = 1000000};
    snprintf(row.name, sizeof row.name, "%s", name);
    snprintf(row.group, sizeof row.group, "%s", group);
    return key_make_secret(&row, secret, e) && keys_create(c, &row, e);
}

static void read_all(key_list *l) {
    err e = {0};
    assert_ok(keys_read(c, l, &e), e);
}

static void test_secrets(void **state) {
    (void)state;
    err      e = {0};
    key_list l;
    char     one[KEY_SECRET], two[KEY_SECRET];
    assert_false(keys_any(directory));
    assert_ok(create("ann", "", rules_none(), one, &e), e);
    assert_ok(create("bob", "", rules_none(), two, &e), e);
    assert_true(keys_any(directory));
    assert_int_equal(strlen(one), 69);
    assert_int_equal(strspn(one + 5, "0123456789abcdef"), 64);
    assert_memory_equal(one, "pare-", 5);
    assert_string_not_equal(one, two);
    read_all(&l);
    assert_int_equal(l.n_keys, 2);
    sha256 hash = sha256_of(one, strlen(one));
    assert_memory_equal(l.keys[0].hash.bytes, hash.bytes, 32);
    assert_string_equal(l.keys[0].space, "ann");
    key_list_free(&l);
}

static void test_names(void **state) {
    (void)state;
    err         e = {0};
    char        secret[KEY_SECRET], longest[62];
    const char *bad[] = {"", "two words", "a,b", "a/b", "a\"b", "a\nb", longest};
    memset(longest, 'x', 61);
    longest[61] = '\0';
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(create(bad[i], "", rules_none(), secret, &e));
        assert_int_equal(e.code, ERR_INVALID);
    }
    assert_false(create("a", "no such", rules_none(), secret, &e));
    longest[60] = '\0';
    assert_ok(create(longest, "", rules_none(), secret, &e), e);
    assert_ok(create("Zo\xC3\xAB", "", rules_none(), secret, &e), e);
    assert_false(create("Zo\xC3\xAB", "", rules_none(), secret, &e)); /* taken */
    assert_ok(keys_revoke(c, "Zo\xC3\xAB", 5, &e), e);
    assert_false(create("Zo\xC3\xAB", "", rules_none(), secret, &e)); /* a revoked one keeps it */
    assert_int_equal(e.code, ERR_INVALID);
    assert_ok(keys_revoke(c, "Zo\xC3\xAB", 9, &e), e);
    key_list l;
    read_all(&l);
    assert_int_equal(l.keys[0].revoked_us, 5); /* the first time counts */
    key_list_free(&l);
    assert_false(keys_revoke(c, "none", 5, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void test_limits_one_by_one(void **state) {
    (void)state;
    err       e = {0};
    char      secret[KEY_SECRET];
    key_rules r = {.models = "a,b*",
                   .requests_minute = 1,
                   .tokens_minute = 2,
                   .streams = 3,
                   .nano_day = 4,
                   .nano_month = 5,
                   .expires_us = 6};
    key_list  l;
    assert_ok(create("ann", "team", r, secret, &e), e);
    key_rules other = {.models = "c",
                       .requests_minute = 10,
                       .tokens_minute = 20,
                       .streams = 30,
                       .nano_day = 40,
                       .nano_month = 50,
                       .expires_us = 60};
    for (unsigned bit = 1; bit <= RULE_EXPIRES; bit *= 2) {
        int64_t before = keys_change(c);
        assert_ok(keys_limit(c, "ann", &other, bit, &e), e);
        assert_int_equal(keys_change(c), before + 1);
        read_all(&l);
        const key_rules *k = &l.keys[0].rules;
        assert_string_equal(k->models, "c");
        assert_int_equal(k->requests_minute, bit >= RULE_REQUESTS ? 10 : 1);
        assert_int_equal(k->tokens_minute, bit >= RULE_TOKENS ? 20 : 2);
        assert_int_equal(k->streams, bit >= RULE_STREAMS ? 30 : 3);
        assert_int_equal(k->nano_day, bit >= RULE_DAY ? 40 : 4);
        assert_int_equal(k->nano_month, bit >= RULE_MONTH ? 50 : 5);
        assert_int_equal(k->expires_us, bit >= RULE_EXPIRES ? 60 : 6);
        key_list_free(&l);
    }
    assert_false(keys_limit(c, "none", &other, RULE_DAY, &e));
    assert_ok(groups_limit(c, "team", &other, RULE_DAY | RULE_STREAMS, &e), e);
    assert_ok(groups_limit(c, "new", &other, RULE_MODELS, &e), e);
    read_all(&l);
    assert_int_equal(l.n_groups, 2);
    assert_string_equal(l.groups[0].name, "new");
    assert_int_equal(l.groups[0].rules.nano_day, -1);
    assert_int_equal(l.groups[1].rules.nano_day, 40);
    assert_int_equal(l.groups[1].rules.nano_month, -1);
    key_list_free(&l);
}

/* A failed change changes nothing, and does not wake the server. */
static void test_nothing_by_halves(void **state) {
    (void)state;
    err     e = {0};
    char    secret[KEY_SECRET];
    int64_t before = keys_change(c);
    assert_ok(create("ann", "", rules_none(), secret, &e), e);
    assert_false(create("ann", "fresh", rules_none(), secret, &e));
    assert_int_equal(keys_change(c), before + 1);
    key_list l;
    read_all(&l);
    assert_int_equal(l.n_groups, 0);
    key_list_free(&l);
}

/* Four processes at once, as scripts may run it. */
static void test_side_by_side(void **state) {
    (void)state;
    enum { PROCESSES = 4, EACH = 10 };
    pid_t pids[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork();
        if (pids[p] == 0) {
            err             e = {0};
            struct sqlite3 *own = keys_connect(directory, true, &e);
            bool            good = own != NULL;
            for (int i = 0; good && i < EACH; i++) {
                char    secret[KEY_SECRET];
                key_row row = {.rules = rules_none()};
                snprintf(row.name, sizeof row.name, "key-%d-%d", p, i);
                good = key_make_secret(&row, secret, &e) && keys_create(own, &row, &e);
            }
            _exit(good ? 0 : 1);
        }
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = 1;
        waitpid(pids[p], &status, 0);
        assert_int_equal(status, 0);
    }
    key_list l;
    read_all(&l);
    assert_int_equal(l.n_keys, PROCESSES * EACH);
    assert_int_equal(l.change, 1 + PROCESSES * EACH);
    key_list_free(&l);
}

/* A database that another hand has changed: what is no key is left out, nothing is read past its end. */
static void test_damaged_rows(void **state) {
    (void)state;
    err      e = {0};
    char     secret[KEY_SECRET];
    key_list l;
    assert_ok(create("ann", "", rules_none(), secret, &e), e);
    assert_int_equal(
        sqlite3_exec(c,
                     "INSERT INTO client_keys SELECT 'short', x'00', '', '', 0, '', 0, 0, 0, 0, 0, 0, 0, 0;"
                     "INSERT INTO client_keys SELECT hex(zeroblob(5000)), randomblob(32), hex(zeroblob(500)), '', 0,"
                     " hex(zeroblob(90000)), 'x', NULL IS NULL, 0, 0, 0, 0, 0, 0;",
                     NULL, NULL, NULL),
        SQLITE_OK);
    read_all(&l);
    assert_int_equal(l.n_keys, 2);
    assert_int_equal(strlen(l.keys[0].name), KEY_NAME - 1);
    assert_int_equal(strlen(l.keys[0].rules.models), KEY_MODELS - 1);
    key_list_free(&l);
    assert_int_equal(sqlite3_exec(c, "DROP TABLE client_keys", NULL, NULL, NULL), SQLITE_OK);
    assert_false(keys_read(c, &l, &e));
}

static void test_node(void **state) {
    (void)state;
    err  e = {0};
    char name[20], again[20];
    assert_ok(keys_node(c, name, &e), e);
    assert_int_equal(strspn(name, "0123456789abcdef"), 16);
    struct sqlite3 *other = keys_connect(directory, true, &e);
    assert_ok(keys_node(other, again, &e), e);
    assert_string_equal(name, again);
    keys_disconnect(other);
}

static void test_list(void **state) {
    (void)state;
    err     e = {0};
    char    secret[KEY_SECRET];
    int64_t now = 1800000000000000, day = day_begin(now);
    str     json = {0};
    db     *d = db_open(directory, &e);
    assert_ok(d, e);
    key_rules r = rules_none();
    r.nano_day = 2500000;
    snprintf(r.models, sizeof r.models, "a,b\\*");
    assert_ok(create("ann", "team", r, secret, &e), e);
    const int64_t times[] = {day + 5, day - 5, month_begin(now) - 5};
    for (int i = 0; i < 3; i++) {
        ledger_row row = {
            .time_us = times[i], .key = "ann", .group = "team", .cost_nano = 1000000LL << i, .outcome = "ok"};
        db_ledger(d, &row);
    }
    db_close(d);
    assert_ok(keys_list_json(c, now, &json, &e), e);
    cJSON *root = json_parse(json.data, json.len, JSON_MAX_DEPTH, &e);
    assert_ok(root, e);
    assert_null(strstr(json.data, secret));
    assert_non_null(strstr(json.data, "\"models\":[\"a\",\"b\\\\*\"],\"money_day\":0.002500"));
    bool same_month = month_begin(day - 5) == month_begin(now);
    assert_true(same_month);
    assert_non_null(strstr(json.data, "\"spent_day\":0.001000,\"spent_month\":0.003000}],\"groups\""));
    assert_non_null(strstr(json.data, "{\"name\":\"team\",\"spent_day\":0.001000,\"spent_month\":0.003000}"));
    cJSON_Delete(root);
    str_free(&json);
}

static void test_rules_from_json(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned    mask;
        const char *param; /* of the refusal */
    } rows[] = {{"{}", 0, NULL},
                {"{\"money_day\":0.5,\"models\":[\"a\",\"b\"],\"expires\":\"2027-01-31\"}",
                 RULE_DAY | RULE_MODELS | RULE_EXPIRES, NULL},
                {"{\"money_day\":null,\"models\":null,\"streams\":null}", RULE_DAY | RULE_MODELS | RULE_STREAMS, NULL},
                {"{\"models\":\"a,b\"}", RULE_MODELS, NULL},
                {"{\"models\":[1]}", 0, "models"},
                {"{\"models\":[\"a,b\"]}", 0, "models"},
                {"{\"models\":7}", 0, "models"},
                {"{\"money_day\":-0.5}", 0, "money_day"},
                {"{\"money_month\":1e300}", 0, "money_month"},
                {"{\"streams\":1.5}", 0, "streams"},
                {"{\"requests_minute\":-1}", 0, "requests_minute"},
                {"{\"expires\":\"soon\"}", 0, "expires"},
                {"{\"expires\":5}", 0, "expires"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        err       e = {0};
        key_rules r;
        unsigned  mask = 0;
        cJSON    *root = json_parse(rows[i].text, strlen(rows[i].text), JSON_MAX_DEPTH, &e);
        bool      good = rules_from_json(root, &r, &mask, &e);
        assert_int_equal(good, rows[i].param == NULL);
        if (good) {
            assert_int_equal(mask, rows[i].mask);
        } else {
            assert_string_equal(e.param, rows[i].param);
        }
        if (i == 1) {
            assert_int_equal(r.nano_day, 500000000);
            assert_string_equal(r.models, "a,b");
            assert_int_equal(r.expires_us, 1801353600000000);
        }
        if (i == 2) {
            assert_int_equal(r.nano_day, -1);
        }
        cJSON_Delete(root);
    }
}

/* ---- dates ---- */

static void test_dates(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t     us; /* below 0: refused */
    } rows[] = {{"1970-01-01", 0},
                {"2027-01-31", 1801353600000000},
                {"2027-01-31T00:00:00Z", 1801353600000000},
                {"2027-01-31t02:00:00+02:00", 1801353600000000},
                {"2027-01-30 23:30:00.25-00:30", 1801353600250000},
                {"2024-02-29", 1709164800000000},
                {"2000-02-29", 951782400000000},
                {"2023-02-29", -1},
                {"1900-02-28", -1},
                {"2027-13-01", -1},
                {"2027-00-01", -1},
                {"2027-01-00", -1},
                {"2027-04-31", -1},
                {"2027-1-1", -1},
                {"2027-01-31T18:00", -1},
                {"2027-01-31T18:00:00", -1},
                {"2027-01-31T24:00:00Z", -1},
                {"2027-01-31T18:60:00Z", -1},
                {"2027-01-31T18:00:00.Z", -1},
                {"2027-01-31T18:00:00Zx", -1},
                {"2027-01-31T18:00:00+2", -1},
                {"2027-01-31T18:00:00+02:60", -1},
                {"2027-01-31x", -1},
                {"20270131", -1},
                {"", -1},
                {"soon", -1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t us = -7;
        bool    good = parse_date(rows[i].text, &us);
        if (good != (rows[i].us >= 0) || us != (good ? rows[i].us : -7)) {
            fail_msg("%s: %d %lld", rows[i].text, good, (long long)us);
        }
        if (good && us % 1000000 == 0) {
            char    text[DATE_TEXT];
            int64_t again;
            date_text(us, text);
            assert_true(parse_date(text, &again) && again == us);
        }
    }
    assert_int_equal(day_begin(1801353600000001), 1801353600000000);
    assert_int_equal(month_begin(1801353600000000), 1798761600000000);
}

/* ---- where a Redis is ---- */

static void test_redis_place(void **state) {
    (void)state;
    static const struct {
        const char *url, *host;
        int         port, database;
        const char *password;
    } rows[] = {{"redis://127.0.0.1", "127.0.0.1", 6379, 0, ""},
                {"redis://cache:7000/12", "cache", 7000, 12, ""},
                {"redis://:pa%20ss:w@cache/3", "cache", 6379, 3, "pa ss:w"},
                {"redis://user:p@ss@cache:1/", "cache", 1, 0, "p@ss"},
                {"redis://[::1]:6380/1", "::1", 6380, 1, ""},
                {"redis://[fe80::1]", "fe80::1", 6379, 0, ""},
                {"rediss://cache", NULL, 0, 0, NULL},
                {"cache:6379", NULL, 0, 0, NULL},
                {"redis://", NULL, 0, 0, NULL},
                {"redis://:6379", NULL, 0, 0, NULL},
                {"redis://[]:1", NULL, 0, 0, NULL},
                {"redis://cache:99999", NULL, 0, 0, NULL},
                {"redis://cache:x", NULL, 0, 0, NULL},
                {"redis://cache/one", NULL, 0, 0, NULL},
                {"redis://secret@cache", NULL, 0, 0, NULL},
                {"", NULL, 0, 0, NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        err         e = {0};
        redis_place p;
        bool        good = redis_place_of(rows[i].url, &p, &e);
        if (good != (rows[i].host != NULL)) {
            fail_msg("%s: %d", rows[i].url, good);
        }
        if (good) {
            assert_string_equal(p.host, rows[i].host);
            assert_string_equal(p.password, rows[i].password);
            assert_int_equal(p.port, rows[i].port);
            assert_int_equal(p.database, rows[i].database);
        } else {
            assert_null(strstr(e.text, "secret")); /* a URL may hold a password */
        }
    }
    char long_one[600] = "redis://";
    memset(long_one + 8, 'h', 500);
    redis_place p;
    err         e = {0};
    assert_false(redis_place_of(long_one, &p, &e));
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_secrets),
                                       T(test_names),
                                       T(test_limits_one_by_one),
                                       T(test_nothing_by_halves),
                                       T(test_side_by_side),
                                       T(test_damaged_rows),
                                       T(test_node),
                                       T(test_list),
                                       cmocka_unit_test(test_rules_from_json),
                                       cmocka_unit_test(test_dates),
                                       cmocka_unit_test(test_redis_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
