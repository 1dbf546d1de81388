/* Kept conversations: a turn is found at once by whom it belongs to and by nobody else, chains are bounded, and what is
 * old, deleted or damaged is said so. */
#include "check.h"

#include <sqlite3.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/conversations.h"

static char directory[64];
static char path[96];
static db  *d;

static int setup(void **state) {
    (void)state;
    err e = {0};
    log_setup(LOG_OFF, false);
    snprintf(directory, sizeof directory, "/tmp/pare-test-turns-XXXXXX");
    if (!mkdtemp(directory)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/pare.db", directory);
    d = db_open(path, &e);
    return d ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    static const char *const names[] = {"", "-wal", "-shm", "-journal"};
    char                     file[128];
    db_close(d);
    d = NULL;
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s%s", path, names[i]);
        unlink(file);
    }
    return rmdir(directory);
}

static conversation_name name_of(const char *id, const char *space, const char *key) {
    conversation_name name;
    assert_true(conversation_name_of(&name, id, space, key));
    return name;
}

static void put(const char *id, const char *previous, const char *input, const char *output) {
    char response[512];
    err  e = {0};
    snprintf(response, sizeof response, "{\"id\":\"%s\",\"output\":%s,\"x\":1}", id, output);
    conversation_turn t = {.name = name_of(id, "s", "k"),
                           .previous = previous,
                           .input = input,
                           .input_len = strlen(input),
                           .response = response,
                           .response_len = strlen(response)};
    assert_ok(db_conversation_put(d, &t, &e), e);
}

/* Another connection, as another process would have it. */
static void change(const char *sql) {
    sqlite3 *c;
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    sqlite3_busy_timeout(c, 5000);
    assert_int_equal(sqlite3_exec(c, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(c);
}

static int64_t number(const char *sql) {
    sqlite3      *c;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open_v2(path, &c, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(c, sql, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(c);
    return value;
}

/* ---- asking ---- */

typedef struct reply {
    loop *loop;
    str   json;
    err   why;
    int   left;
} reply;

static void on_answer(void *ctx, const str *json, const err *e) {
    reply *r = ctx;
    r->why = e ? *e : (err){0};
    str_clear(&r->json);
    str_add(&r->json, json->data ? json->data : "", json->len);
    if (--r->left == 0) {
        loop_stop(r->loop);
    }
}

static bool ask(reply *r, db_query_fn query, const void *arg, size_t n) {
    err e = {0};
    *r = (reply){.loop = loop_new(0, &e), .left = 1};
    assert_non_null(r->loop);
    db_conversation_ask(d, r->loop, query, arg, n, on_answer, r);
    assert_ok(loop_run(r->loop, &e), e);
    loop_free(r->loop);
    return r->why.code == ERR_NONE;
}

static void history_is(const char *id, const char *wanted) {
    reply             r;
    conversation_name name = name_of(id, "s", "k");
    assert_ok(ask(&r, conversation_history, &name, sizeof name), r.why);
    assert_string_equal(r.json.data, wanted);
    str_free(&r.json);
}

static void history_fails(conversation_name name, err_code code, const char *part) {
    reply r;
    assert_false(ask(&r, conversation_history, &name, sizeof name));
    assert_int_equal(r.why.code, code);
    assert_says(r.why, part);
    if (code != ERR_IO) {
        assert_string_equal(r.why.param, "previous_response_id");
    }
    str_free(&r.json);
}

/* ---- tests ---- */

static void test_a_chain(void **state) {
    (void)state;
    int64_t begin = clock_us();
    put("resp_1", NULL, "[1]", "[2]");
    history_is("resp_1", "[[1],[2]]"); /* at once: the question waits for the row */
    assert_true(clock_us() - begin < 3000000);
    put("resp_2", "resp_1", "[3]", "[]");
    put("resp_3", "resp_2", "[5]", "[{\"a\":\"\\u00e4\"}]");
    put("resp_3b", "resp_2", "[7]", "[8]"); /* a fork */
    history_is("resp_3", "[[1],[2],[3],[],[5],[{\"a\":\"\xc3\xa4\"}]]");
    history_is("resp_3b", "[[1],[2],[3],[],[7],[8]]");
    history_is("resp_1", "[[1],[2]]");
}

static void test_owners(void **state) {
    (void)state;
    put("resp_1", NULL, "[1]", "[2]");
    history_fails(name_of("resp_1", "s", "other"), ERR_NOT_FOUND, "resp_1");
    history_fails(name_of("resp_1", "other", "k"), ERR_NOT_FOUND, "resp_1");
    history_fails(name_of("resp_1", "sk", ""), ERR_NOT_FOUND, "resp_1"); /* the border between the two counts */
    history_fails(name_of("resp_2", "s", "k"), ERR_NOT_FOUND, "resp_2");
    /* Nobody deletes or replaces another's. */
    conversation_name thief = name_of("resp_1", "s", "other");
    db_conversation_delete(d, &thief);
    conversation_turn t = {.name = thief, .input = "[9]", .input_len = 3, .response = "{}", .response_len = 2};
    err               e = {0};
    assert_ok(db_conversation_put(d, &t, &e), e);
    history_is("resp_1", "[[1],[2]]");
    /* Nor does a chain lead into another's turns. */
    t = (conversation_turn){.name = name_of("resp_x", "s", "other"), .previous = "resp_1"};
    t.input = "[9]", t.input_len = 3, t.response = "{\"output\":[]}", t.response_len = 13;
    assert_ok(db_conversation_put(d, &t, &e), e);
    history_fails(t.name, ERR_NOT_FOUND, "has been deleted");
    conversation_name none;
    char              longest[CONVERSATION_ID_SIZE + 1];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_false(conversation_name_of(&none, "", "s", "k"));
    assert_false(conversation_name_of(&none, longest, "s", "k"));
}

static void test_deleted(void **state) {
    (void)state;
    put("resp_1", NULL, "[1]", "[2]");
    put("resp_2", "resp_1", "[3]", "[4]");
    conversation_name first = name_of("resp_1", "s", "k");
    db_conversation_delete(d, &first);
    history_fails(first, ERR_NOT_FOUND, "resp_1"); /* at once, too */
    history_fails(name_of("resp_2", "s", "k"), ERR_NOT_FOUND, "has been deleted");
    reply r;
    assert_false(ask(&r, conversation_response, &first, sizeof first));
    assert_int_equal(r.why.code, ERR_NOT_FOUND);
    assert_string_equal(r.why.param, "");
    str_free(&r.json);
}

static void test_response_and_items(void **state) {
    (void)state;
    put("resp_1", NULL, "[{\"id\":\"a\"},{\"id\":\"b\"},{\"id\":\"c\"}]", "[2]");
    reply             r;
    conversation_page page = {.name = name_of("resp_1", "s", "k"), .limit = 2};
    assert_ok(ask(&r, conversation_response, &page.name, sizeof page.name), r.why);
    assert_string_equal(r.json.data, "{\"id\":\"resp_1\",\"output\":[2],\"x\":1}");
    str_free(&r.json);
    static const struct {
        int         limit;
        bool        oldest_first;
        const char *after, *wanted;
    } pages[] = {
        {2, false, "", "[{\"id\":\"c\"},{\"id\":\"b\"}],\"first_id\":\"c\",\"last_id\":\"b\",\"has_more\":true}"},
        {2, false, "b", "[{\"id\":\"a\"}],\"first_id\":\"a\",\"last_id\":\"a\",\"has_more\":false}"},
        {3, true, "",
         "[{\"id\":\"a\"},{\"id\":\"b\"},{\"id\":\"c\"}],\"first_id\":\"a\",\"last_id\":\"c\","
         "\"has_more\":false}"},
        {1, true, "a", "[{\"id\":\"b\"}],\"first_id\":\"b\",\"last_id\":\"b\",\"has_more\":true}"},
        {1, true, "c", "[],\"first_id\":null,\"last_id\":null,\"has_more\":false}"},
    };
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        page.limit = pages[i].limit;
        page.oldest_first = pages[i].oldest_first;
        snprintf(page.after, sizeof page.after, "%s", pages[i].after);
        assert_ok(ask(&r, conversation_items, &page, sizeof page), r.why);
        char wanted[256];
        snprintf(wanted, sizeof wanted, "{\"object\":\"list\",\"data\":%s", pages[i].wanted);
        assert_string_equal(r.json.data, wanted);
        str_free(&r.json);
    }
    strcpy(page.after, "zz");
    assert_false(ask(&r, conversation_items, &page, sizeof page));
    assert_int_equal(r.why.code, ERR_INVALID);
    assert_string_equal(r.why.param, "after");
    str_free(&r.json);
}

static void test_limits(void **state) {
    (void)state;
    char id[32], previous[32];
    for (int i = 0; i <= CONVERSATION_MAX_TURNS; i++) {
        snprintf(id, sizeof id, "resp_%d", i);
        snprintf(previous, sizeof previous, "resp_%d", i - 1);
        put(id, i ? previous : NULL, "[]", "[]");
    }
    reply             r;
    conversation_name name = name_of("resp_999", "s", "k"); /* the thousandth */
    assert_ok(ask(&r, conversation_history, &name, sizeof name), r.why);
    str_free(&r.json);
    history_fails(name_of("resp_1000", "s", "k"), ERR_LIMIT, "1000 turns");
    /* Two turns that fit one by one and not together. */
    size_t            half = CONVERSATION_MAX_BYTES / 2;
    char             *big = malloc(half + 1);
    err               e = {0};
    conversation_turn t = {.name = name_of("big_1", "s", "k"), .input = big, .input_len = half};
    assert_non_null(big);
    memset(big, ' ', half);
    memcpy(big, "[]", 2);
    t.response = "{\"output\":[]}";
    t.response_len = 13;
    assert_ok(db_conversation_put(d, &t, &e), e);
    assert_ok(ask(&r, conversation_history, &t.name, sizeof t.name), r.why);
    str_free(&r.json);
    t.name = name_of("big_2", "s", "k");
    t.previous = "big_1";
    assert_ok(db_conversation_put(d, &t, &e), e);
    history_fails(t.name, ERR_LIMIT, "32 MiB");
    t.input_len = CONVERSATION_MAX_BYTES;
    assert_false(db_conversation_put(d, &t, &e));
    assert_int_equal(e.code, ERR_LIMIT);
    free(big);
}

static void test_age(void **state) {
    (void)state;
    put("resp_1", NULL, "[1]", "[2]");
    put("resp_2", "resp_1", "[3]", "[4]");
    put("resp_old", NULL, "[5]", "[6]");
    history_is("resp_2", "[[1],[2],[3],[4]]");
    history_is("resp_old", "[[5],[6]]");
    /* Ten days pass. */
    change("UPDATE conversations SET expires_us = expires_us - 864000000000");
    int64_t old = number("SELECT expires_us FROM conversations WHERE id = 'resp_old'");
    put("resp_3", "resp_2", "[7]", "[8]");
    history_is("resp_3", "[[1],[2],[3],[4],[7],[8]]");
    /* The conversation that is used lives 30 days from now on, the other one does not. */
    assert_int_equal(
        number("SELECT count(*) FROM conversations WHERE expires_us > (SELECT expires_us FROM conversations "
               "WHERE id = 'resp_old') + 800000000000"),
        3);
    assert_int_equal(number("SELECT expires_us FROM conversations WHERE id = 'resp_old'"), old);
    change("UPDATE conversations SET expires_us = 1 WHERE id = 'resp_old'");
    history_fails(name_of("resp_old", "s", "k"), ERR_NOT_FOUND, "30 days");
    /* And the writer takes it away when it next opens. */
    err e = {0};
    db_close(d);
    d = db_open(path, &e);
    assert_ok(d, e);
    for (int i = 0; i < 500 && number("SELECT count(*) FROM conversations") > 3; i++) {
        usleep(10000);
    }
    assert_int_equal(number("SELECT count(*) FROM conversations"), 3);
    history_is("resp_3", "[[1],[2],[3],[4],[7],[8]]"); /* and it is all there after a restart */
}

static void test_damage(void **state) {
    (void)state;
    put("resp_1", NULL, "[1]", "[2]");
    put("resp_2", "resp_1", "[3]", "[4]");
    history_is("resp_2", "[[1],[2],[3],[4]]");
    change("UPDATE conversations SET response = x'00ff', input = '[' WHERE id = 'resp_1'");
    history_fails(name_of("resp_2", "s", "k"), ERR_IO, "damaged");
    reply             r;
    conversation_page page = {.name = name_of("resp_1", "s", "k"), .limit = 2};
    assert_false(ask(&r, conversation_response, &page.name, sizeof page.name));
    assert_says(r.why, "damaged");
    str_free(&r.json);
    assert_false(ask(&r, conversation_items, &page, sizeof page));
    assert_says(r.why, "damaged");
    str_free(&r.json);
    change("UPDATE conversations SET input = '{\"a\":1}', response = '{\"output\":7}'");
    assert_false(ask(&r, conversation_items, &page, sizeof page));
    str_free(&r.json);
    history_fails(page.name, ERR_IO, "damaged");
    /* A circle, which pare never writes, has an end. */
    change("UPDATE conversations SET previous = 'resp_2', input = '[]', response = '{\"output\":[]}'");
    history_fails(name_of("resp_2", "s", "k"), ERR_LIMIT, "turns");
    put("resp_3", "resp_2", "[]", "[]");
    history_fails(name_of("resp_3", "s", "k"), ERR_LIMIT, "turns");
}

/* Another process holds the file: a question is answered from what there is and does not wait for the row. */
static void test_locked(void **state) {
    (void)state;
    sqlite3 *c;
    put("resp_1", NULL, "[1]", "[2]");
    history_is("resp_1", "[[1],[2]]");
    assert_int_equal(sqlite3_open(path, &c), SQLITE_OK);
    assert_int_equal(sqlite3_exec(c, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    put("resp_2", "resp_1", "[3]", "[4]");
    history_fails(name_of("resp_2", "s", "k"), ERR_NOT_FOUND, "resp_2");
    assert_int_equal(sqlite3_exec(c, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(c);
    history_is("resp_2", "[[1],[2],[3],[4]]");
}

/* Every question is answered, also one that comes with the end. */
static void test_closing(void **state) {
    (void)state;
    err               e = {0};
    reply             r = {.loop = loop_new(0, &e), .left = 20};
    conversation_name name = name_of("resp_1", "s", "k");
    for (int i = 0; i < 20; i++) {
        if (i % 3 == 0) {
            put("resp_1", NULL, "[1]", "[2]");
        }
        db_conversation_ask(d, r.loop, conversation_history, &name, sizeof name, on_answer, &r);
    }
    db_close(d);
    d = NULL;
    assert_ok(loop_run(r.loop, &e), e);
    assert_int_equal(r.left, 0);
    loop_free(r.loop);
    str_free(&r.json);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owners, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_response_and_items, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
