/* Conversations that pare keeps, on the walk of an exchange: with a database, a cache and a backend that answers at
 * once. */
#include "check.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "stage/counters.h"
#include "stage/flights.h"
#include "stage/stage.h"
#include "store/conversations.h"

extern stage stage_converse;

/* ---- a backend that says what the test wants, and remembers what it was asked ---- */

struct backend_call {
    loop_task        task;
    backend_event_fn fn;
    void            *ctx;
};

static const char *next_text;   /* what it says */
static bool        next_fails;  /* it fails behind that */
static bool        next_calls;  /* it calls a tool besides */
static char        asked[4096]; /* the messages it was sent */
static int         started;

static void speak(loop_task *t) {
    backend_call *c = (backend_call *)t;
    usage         u = {.prompt = 10, .completion = 2, .known = true};
    cJSON        *calls = NULL;
    event ev = {.kind = EVENT_DELTA, .reasoning = "hm", .reasoning_len = 2, .signature = "sig", .signature_len = 3};
    c->fn(c->ctx, &ev);
    if (next_calls) {
        calls = cJSON_Parse("[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]");
    }
    ev = (event){.kind = EVENT_DELTA, .text = next_text, .text_len = strlen(next_text), .tool_calls = calls};
    ev.finish = next_fails ? NULL : calls ? "tool_calls" : "stop";
    c->fn(c->ctx, &ev);
    err why = {0};
    err_set(&why, ERR_UPSTREAM, "scripted failure");
    event end = next_fails ? (event){.kind = EVENT_ERROR, .error = &why} : (event){.kind = EVENT_DONE, .usage = &u};
    c->fn(c->ctx, &end);
    cJSON_Delete(calls);
    free(c);
}

static backend_call *start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                           err *e) {
    (void)b;
    (void)model;
    (void)e;
    backend_call *c = calloc(1, sizeof *c);
    *c = (backend_call){.task = {.run = speak}, .fn = fn, .ctx = ctx};
    str text = {0};
    json_write(cJSON_GetObjectItem(r->body, "messages"), &text);
    snprintf(asked, sizeof asked, "%s", text.data);
    str_free(&text);
    started++;
    loop_post(l, &c->task);
    return c;
}

static void cancel(backend_call *c) {
    (void)c; /* what it says is on its way */
}

static const backend_ops ops = {.kind = "remote", .start = start, .cancel = cancel};

/* ---- a house ---- */

typedef struct bed {
    char        directory[64];
    gateway     g;
    pipeline    p;
    backend     backend;
    backend    *backends[1];
    model_entry models[1];
    client_key  keys[2];
    loop       *loop;
    exchange   *last;
} bed;

static bed *the_bed;

static void finish(exchange *x) {
    the_bed->last = x;
    loop_stop(the_bed->loop);
}

static const exchange_sink sink = {.finish = finish};

static int setup(void **state) {
    err  e = {0};
    bed *b = calloc(1, sizeof *b);
    log_setup(LOG_OFF, false);
    the_bed = b;
    *state = b;
    strcpy(b->directory, "/tmp/pare-converse-XXXXXX");
    if (!mkdtemp(b->directory)) {
        return -1;
    }
    b->backend = (backend){.ops = &ops, .name = "up", .fingerprint = "f"};
    b->backends[0] = &b->backend;
    b->models[0] = (model_entry){.name = "m", .backend = b->backends[0], .upstream = "m"};
    b->g = (gateway){.models = b->models, .n_models = 1, .backends = b->backends, .n_backends = 1};
    for (int i = 0; i < 2; i++) { /* two keys that share a cache */
        b->keys[i] = (client_key){.name = i ? "bob" : "ann", .space = "team"};
        b->keys[i].hash = sha256_of(b->keys[i].name, 3);
    }
    b->g.keys = b->keys;
    b->g.n_keys = 2;
    gateway_sort_keys(b->keys, 2);
    b->g.cache = cache_new(1 << 20, &e);
    b->g.cache_ttl_us = 60 * 1000000;
    b->g.flights = flights_new();
    b->g.counters = counters_new();
    b->g.db = db_open(b->directory, &e);
    stage *const row[] = {&stage_account, &stage_admit, &stage_converse, &stage_recall, &stage_route, &stage_answer};
    for (size_t i = 0; i < 6; i++) {
        pipeline_add(&b->p, row[i]);
    }
    next_text = "hello";
    next_fails = next_calls = false;
    started = 0;
    return b->g.cache && b->g.db ? 0 : -1;
}

static int teardown(void **state) {
    bed                     *b = *state;
    static const char *const names[] = {"", "-wal", "-shm"};
    char                     file[128];
    if (b->last) {
        exchange_free(b->last);
    }
    db_close(b->g.db);
    loop_free(b->loop);
    cache_free(b->g.cache);
    flights_free(b->g.flights);
    counters_free(b->g.counters);
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "%s/pare.db%s", b->directory, names[i]);
        unlink(file);
    }
    int code = rmdir(b->directory);
    free(b);
    return code;
}

static const char *body_of(const char *format, const char *id) {
    static char body[1024];
    snprintf(body, sizeof body, format, id);
    return body;
}

/* Sends one request and runs until it is finished; `leave`: the client goes away while it waits. */
static exchange *send_with(bed *b, const char *key, const char *body, bool leave) {
    static uint64_t count = 100;
    err             e = {0};
    if (b->last) {
        exchange_free(b->last);
        b->last = NULL;
    }
    loop_free(b->loop);
    b->loop = loop_new(0, &e);
    exchange *x = exchange_new(4096);
    x->loop = b->loop;
    x->gateway = &b->g;
    x->speaks = &dialect_responses;
    x->kind = REQUEST_CHAT;
    x->body = arena_strdup(x->memory, body);
    x->body_len = strlen(body);
    x->bearer = key;
    x->sink = &sink;
    x->arrived_us = clock_us();
    x->arrived_wall_us = clock_wall_us();
    snprintf(x->id, sizeof x->id, "%024llx", (unsigned long long)count++);
    pipeline_start(&b->p, x);
    if (leave) {
        pipeline_cancel(x);
    }
    assert_ok(loop_run(b->loop, &e), e);
    assert_ptr_equal(b->last, x);
    return x;
}

static exchange *send(bed *b, const char *key, const char *body) {
    return send_with(b, key, body, false);
}

static void id_of(const exchange *x, char *out) {
    snprintf(out, 64, "resp_%s", x->id);
}

static void went_well(const exchange *x) {
    if (x->result != OUTCOME_OK) {
        fail_msg("%d: %s", x->status, x->failed.text);
    }
}

/* ---- tests ---- */

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define SAID(text)                                                                                                     \
    "{\"role\":\"assistant\",\"reasoning_content\":\"hm\",\"reasoning_signature\":\"sig\",\"content\":\"" text "\"}"

static void test_three_turns(void **state) {
    bed *b = *state;
    char first[64], second[64];
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"one\",\"instructions\":\"be brief\"}"), first);
    went_well(b->last);
    assert_string_equal(asked, "[{\"role\":\"system\",\"content\":\"be brief\"}," USER("one") "]");
    next_text = "world";
    id_of(send(b, "ann", body_of("{\"model\":\"m\",\"input\":\"two\",\"previous_response_id\":\"%s\"}", first)),
          second);
    went_well(b->last);
    /* The instructions of the answer before do not carry over. */
    assert_string_equal(asked, "[" USER("one") "," SAID("hello") "," USER("two") "]");
    send(b, "ann",
         body_of("{\"model\":\"m\",\"instructions\":\"now long\",\"input\":[{\"role\":\"user\",\"content\":\"three\"}],"
                 "\"previous_response_id\":\"%s\"}",
                 second));
    went_well(b->last);
    assert_string_equal(asked, "[{\"role\":\"system\",\"content\":\"now long\"}," USER("one") "," SAID(
                                   "hello") "," USER("two") "," SAID("world") "," USER("three") "]");
    assert_int_equal(b->last->request.n_messages, 6);
}

static void test_calls_go_on(void **state) {
    bed *b = *state;
    char first[64];
    next_calls = true;
    next_text = "";
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"weather?\",\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]}"),
          first);
    went_well(b->last);
    send(b, "ann",
         body_of(
             "{\"model\":\"m\",\"input\":[{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"sun\"}],"
             "\"previous_response_id\":\"%s\"}",
             first));
    went_well(b->last);
    assert_string_equal(
        asked,
        "[" USER("weather?") ",{\"role\":\"assistant\",\"reasoning_content\":\"hm\",\"reasoning_signature\":\"sig\","
                             "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                             "\"arguments\":\"{}\"}}],\"content\":null},{\"role\":\"tool\",\"tool_call_id\":\"c1\","
                             "\"content\":\"sun\"}]");
}

static void not_found(bed *b, const char *key, const char *id) {
    int before = started;
    send(b, key, body_of("{\"model\":\"m\",\"input\":\"x\",\"previous_response_id\":\"%s\"}", id));
    assert_int_equal(b->last->result, OUTCOME_REFUSED);
    assert_int_equal(b->last->status, 404);
    assert_string_equal(b->last->failed.param, "previous_response_id");
    assert_int_equal(started, before);
}

static void test_nobody_elses(void **state) {
    bed *b = *state;
    char first[64];
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"one\"}"), first);
    not_found(b, "bob", first); /* though the two share their cache */
    not_found(b, "ann", "resp_nobody");
    send(b, "ann", body_of("{\"model\":\"m\",\"input\":\"x\",\"previous_response_id\":\"%s\"}", first));
    went_well(b->last);
}

static void test_not_kept(void **state) {
    bed *b = *state;
    char id[64];
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"one\",\"store\":false}"), id);
    went_well(b->last);
    not_found(b, "ann", id);
    next_fails = true;
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"fails\"}"), id);
    assert_int_equal(b->last->result, OUTCOME_ERROR);
    not_found(b, "ann", id);
    /* Without a database there is nothing to go on from, and nothing is promised. */
    db *kept = b->g.db;
    b->g.db = NULL;
    next_fails = false;
    send(b, "ann", "{\"model\":\"m\",\"input\":\"two\"}");
    went_well(b->last);
    assert_false(b->last->request.keep);
    send(b, "ann", "{\"model\":\"m\",\"input\":\"two\",\"previous_response_id\":\"resp_1\"}");
    assert_int_equal(b->last->status, 400);
    b->g.db = kept;
}

/* The same question twice: the answer comes from the cache, and each client can go on from its own. */
static void test_from_the_cache(void **state) {
    bed *b = *state;
    char first[64], second[64];
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"one\"}"), first);
    id_of(send(b, "bob", "{\"model\":\"m\",\"input\":\"one\"}"), second);
    went_well(b->last);
    assert_non_null(b->last->hit);
    assert_int_equal(started, 1);
    assert_string_not_equal(first, second);
    send(b, "bob", body_of("{\"model\":\"m\",\"input\":\"two\",\"previous_response_id\":\"%s\"}", second));
    went_well(b->last);
    assert_non_null(strstr(asked, "\"content\":\"hello\""));
    assert_non_null(strstr(asked, USER("two")));
    assert_int_equal(started, 2);
    /* What came before is part of the question. */
    send(b, "ann", "{\"model\":\"m\",\"input\":\"two\"}");
    went_well(b->last);
    assert_int_equal(started, 3);
    assert_string_equal(asked, "[" USER("two") "]");
}

static void test_leaves_while_it_is_read(void **state) {
    bed *b = *state;
    char first[64];
    id_of(send(b, "ann", "{\"model\":\"m\",\"input\":\"one\"}"), first);
    int before = started;
    send_with(b, "ann", body_of("{\"model\":\"m\",\"input\":\"x\",\"previous_response_id\":\"%s\"}", first), true);
    assert_int_equal(b->last->result, OUTCOME_CANCELLED);
    assert_int_equal(started, before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_three_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_elses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_the_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leaves_while_it_is_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
