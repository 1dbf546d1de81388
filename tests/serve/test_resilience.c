/* Groups the whole way: pare.yaml, client, provider, headers and ledger. */
#include "bed.h"

#define SAYS(text) "{\"error\":{\"message\":\"" text "\",\"type\":\"t\",\"code\":null}}"

static const script scripts[] = {
    {"good", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
    {"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
    {"e500", "500 Oops\r\nContent-Type: application/json", SAYS("oops"), LENGTH, KEEP, NULL},
    {"busy", "429 Too Many\r\nContent-Type: application/json\r\nRetry-After: 30", SAYS("later"), LENGTH, KEEP, NULL},
    {"cut", SSE_HEAD, EVENT(DELTA("hel")), CHUNKED, CLOSE, NULL},
    {"half_whole", JSON_HEAD, WHOLE, TOO_LONG, CLOSE, NULL},
    {"silent", "", NULL, RAW, HANG, NULL},
    {0}};

static const char models[] =
    "  saved: {targets: [{backend: up, model: '@e500'}], fallbacks: [{backend: second, model: '@whole'}], pause: "
    "10ms}\n"
    "  saved_stream: {targets: [{backend: up, model: '@e500'}], fallbacks: [{backend: second, model: '@good'}]}\n"
    "  keyed: {backend: two_keys, model: '@whole'}\n"
    "  busy: {backend: up, model: '@busy'}\n"
    "  cut: {backend: up, model: '@cut', fallbacks: [{backend: second, model: '@good'}]}\n"
    "  half: {backend: up, model: '@half_whole', fallbacks: [{backend: second, model: '@whole'}]}\n"
    "  hedged: {targets: [{backend: up, model: '@silent', weight: 1000}, {backend: second, model: '@good'}],\n"
    "           hedge: {percent: 100, after: 50ms}}\n"
    "  down: {backend: up, model: '@e500', retries: 1, pause: 1ms, circuit: {failures: 2, open: 1m}}\n";

static bed the;

static int setup(void **state) {
    (void)state;
    the.model_line = models;
    the.price_lines = "  '@silent': {input: 10, output: 10}\n  '@half_whole': {input: 10, output: 10}\n"
                      "  '@good': {input: 1, output: 1}\n  '@whole': {input: 1, output: 1}\n";
    bed_open(&the, scripts);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_close(&the);
    return 0;
}

static void ask_model(const char *model, const char *salt, bool stream, reply *r) {
    char body[256];
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"hi %s\"}]%s}", model,
             salt, stream ? ",\"stream\":true" : "");
    post(the.port, "/v1/chat/completions", "", body, r);
}

static void test_fallback(void **state) {
    (void)state;
    reply r = {0};
    ask_model("saved", "1", false, &r);
    assert_int_equal(r.status, 200);
    assert_true(body_has(&r, "hello") && has_header(&r, "x-pare-answered-by", "remote:second"));
    reply_free(&r);
    ask_model("saved_stream", "1", true, &r);
    assert_int_equal(r.status, 200);
    assert_true(body_has(&r, "[DONE]") && !body_has(&r, "oops"));
    assert_true(has_header(&r, "x-pare-answered-by", "remote:second"));
    reply_free(&r);
}

static void test_keys(void **state) {
    (void)state;
    int seen[3] = {0};
    for (int i = 0; i < 30; i++) {
        reply r = {0};
        char  salt[16], who[80];
        snprintf(salt, sizeof salt, "%d", i);
        ask_model("keyed", salt, false, &r);
        assert_int_equal(r.status, 200);
        assert_true(header_of(&r, "x-pare-answered-by", who, sizeof who));
        assert_memory_equal(who, "remote:two_keys#", 16);
        assert_true(who[16] == '1' || who[16] == '2');
        seen[who[16] - '0']++;
        reply_free(&r);
    }
    assert_true(seen[1] > 3 && seen[2] > seen[1]); /* weights 1 and 2 */
}

static void test_busy(void **state) {
    (void)state;
    reply r = {0};
    ask_model("busy", "1", false, &r);
    assert_int_equal(r.status, 429);
    assert_true(has_header(&r, "retry-after", "30") && body_has(&r, "later"));
    reply_free(&r);
}

/* The client has some of it: then it ends with an error event, and nobody else is asked. */
static void test_cut(void **state) {
    (void)state;
    reply r = {0};
    ask_model("cut", "1", true, &r);
    assert_int_equal(r.status, 200);
    assert_true(body_has(&r, "hel") && body_has(&r, "data: {\"error\":") && !body_has(&r, "[DONE]"));
    assert_true(has_header(&r, "x-pare-answered-by", "remote:up"));
    reply_free(&r);
}

static void test_circuit(void **state) {
    (void)state;
    reply r = {0};
    int   before;
    ask_model("down", "1", false, &r);
    assert_int_equal(r.status, 500);
    reply_free(&r);
    before = atomic_load(&the.up.requests);
    ask_model("down", "2", false, &r);
    assert_int_equal(r.status, 503);
    assert_true(body_has(&r, "keeps failing"));
    assert_int_equal(atomic_load(&the.up.requests), before);
    reply_free(&r);
}

/* Both the answer and the one that lost, or broke, are in the ledger, each with its price. Last: it ends the bed. */
static void test_ledger(void **state) {
    (void)state;
    reply r = {0};
    int   hedged = 0;
    for (int i = 0; i < 10 && !hedged; i++) { /* chance may name the quick one first */
        char salt[16];
        snprintf(salt, sizeof salt, "%d", i);
        int before = atomic_load(&the.up.requests);
        ask_model("hedged", salt, true, &r);
        assert_int_equal(r.status, 200);
        assert_true(body_has(&r, "[DONE]") && has_header(&r, "x-pare-answered-by", "remote:second"));
        hedged = atomic_load(&the.up.requests) == before + 2;
        reply_free(&r);
    }
    assert_true(hedged);
    ask_model("half", "1", false, &r);
    assert_int_equal(r.status, 200);
    assert_true(has_header(&r, "x-pare-answered-by", "remote:second"));
    reply_free(&r);
    until(atomic_load(&the.up.left) > 0); /* the loser's connection was closed */
    assert_int_equal(atomic_load(&the.up.left), 1);
    bed_stop(&the, 5000000);
    static const char *const rows[] = {"hedged' AND outcome = 'hedge", "half' AND outcome = 'fallback"};
    for (int i = 0; i < 2; i++) {
        char sql[512];
        snprintf(sql, sizeof sql,
                 "SELECT count(*) FROM ledger WHERE model = '%s' AND backend = 'remote:up' AND attempt > 0 AND counted "
                 "AND prompt_tokens > 0 AND cost_nano = prompt_tokens * 10000",
                 rows[i]);
        assert_int_equal(ledger_number(&the, sql), 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fallback), cmocka_unit_test(test_keys),    cmocka_unit_test(test_busy),
        cmocka_unit_test(test_cut),      cmocka_unit_test(test_circuit), cmocka_unit_test(test_ledger),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
