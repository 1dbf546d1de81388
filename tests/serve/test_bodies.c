/* Bodies that are wrong: every one is refused with 4xx, a sentence and its place; none reaches the provider, none stays
 * in flight, each has its row.                                                                                       */
#include "bed.h"

static const script scripts[] = {{"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL}, {0}};

static bed   the;
static reply r;
static int   asked;

static int open_bed(void **state) {
    (void)state;
    asked = 0;
    bed_open(&the, scripts);
    return 0;
}

static int close_bed(void **state) {
    (void)state;
    reply_free(&r);
    bed_close(&the);
    return 0;
}

#define M    "\"model\":\"m\""
#define USER "{\"role\":\"user\",\"content\":\"@whole\"}"
#define MSGS "\"messages\":[" USER "]"
#define BASE M "," MSGS
#define TEXT M ",\"prompt\":\"@whole\""

/* The reply to `n` bytes at `path`, on one connection for all of them. */
static void send_bytes(int fd, const char *path, const char *body, size_t n) {
    str out = {0};
    str_addf(&out, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", path, n);
    str_add(&out, body, n);
    send_all(fd, out.data, out.len);
    str_free(&out);
    read_reply(fd, &r, false);
    asked++;
}

/* 4xx in OpenAI's form, with this param (NULL: null). */
static void check_refused(int status, const char *param, const char *shown) {
    cJSON *json = r.body.data ? cJSON_Parse(r.body.data) : NULL;
    cJSON *error = cJSON_GetObjectItem(json, "error");
    cJSON *said = cJSON_GetObjectItem(error, "param"), *message = cJSON_GetObjectItem(error, "message");
    bool   same = param ? cJSON_IsString(said) && strcmp(said->valuestring, param) == 0 : cJSON_IsNull(said);
    size_t n = cJSON_IsString(message) ? strlen(message->valuestring) : 0;
    if (r.status != status || !same || n < 15 || message->valuestring[n - 1] != '.') {
        fail_msg("%.200s: %d %s (wanted %d, %s)", shown, r.status, r.body.data ? r.body.data : "nothing", status,
                 param ? param : "null");
    }
    cJSON_Delete(json);
}

typedef struct wrong {
    const char *body, *param;
} wrong;

static const wrong chat[] = {
    {"", NULL},
    {"   ", NULL},
    {"null", NULL},
    {"[]", NULL},
    {"5", NULL},
    {"\"text\"", NULL},
    {"{", NULL},
    {"{}", "model"},
    {"{" BASE, NULL},
    {"{" BASE "}}", NULL},
    {"{" BASE ",}", NULL},
    {"{" BASE ",\"a\":NaN}", NULL},
    {"{" BASE ",\"a\":1e999}", NULL},
    {"{" BASE ",\"a\":01}", NULL},
    {"{" BASE ",\"a\":+1}", NULL},
    {"{" BASE ",\"a\":'x'}", NULL},
    {"{" BASE ",\"a\":\"\x01\"}", NULL},
    {"{" BASE ",\"a\":\"\\u0000\"}", NULL},
    {"{" BASE ",\"a\":\"\\ud800\"}", NULL},
    {"{" BASE ",\"a\":\"\\x\"}", NULL},
    {"{" BASE ",\"a\":tru}", NULL},
    {"\xef\xbb\xbf\xef\xbb\xbf{" BASE "}", NULL},
    {"{" BASE ",\"a\":\"\xc3\x28\"}", NULL},         /* broken UTF-8 */
    {"{" BASE ",\"a\":\"\xed\xa0\x80\"}", NULL},     /* a surrogate */
    {"{" BASE ",\"a\":\"\xc0\xaf\"}", NULL},         /* overlong */
    {"{" BASE ",\"a\":\"\xf5\x80\x80\x80\"}", NULL}, /* past U+10FFFF */
    {"{" BASE ",\"\xff\":1}", NULL},
    {"{\"model\":5," MSGS "}", "model"},
    {"{\"model\":null," MSGS "}", "model"},
    {"{\"model\":\"\"," MSGS "}", "model"},
    {"{\"model\":[\"m\"]," MSGS "}", "model"},
    {"{" M "}", "messages"},
    {"{" M ",\"messages\":null}", "messages"},
    {"{" M ",\"messages\":{}}", "messages"},
    {"{" M ",\"messages\":\"hi\"}", "messages"},
    {"{" M ",\"messages\":[]}", "messages"},
    {"{" M ",\"messages\":[null]}", "messages[0]"},
    {"{" M ",\"messages\":[" USER ",[]]}", "messages[1]"},
    {"{" M ",\"messages\":[{}]}", "messages[0].role"},
    {"{" M ",\"messages\":[{\"role\":5,\"content\":\"a\"}]}", "messages[0].role"},
    {"{" M ",\"messages\":[{\"role\":\"pirate\",\"content\":\"a\"}]}", "messages[0].role"},
    {"{" M ",\"messages\":[{\"role\":\"user\"}]}", "messages[0].content"},
    {"{" M ",\"messages\":[" USER "," USER ",{\"role\":\"user\",\"content\":5}]}", "messages[2].content"},
    {"{" M ",\"messages\":[{\"role\":\"user\",\"content\":{\"a\":1}}]}", "messages[0].content"},
    {"{" M ",\"messages\":[{\"role\":\"user\",\"content\":[5]}]}", "messages[0].content[0]"},
    {"{" M ",\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"a\"}]}]}", "messages[0].content[0].type"},
    {"{" M ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":5}]}]}",
     "messages[0].content[0].text"},
    {"{" BASE ",\"temperature\":\"hot\"}", "temperature"},
    {"{" BASE ",\"temperature\":2.1}", "temperature"},
    {"{" BASE ",\"temperature\":-0.1}", "temperature"},
    {"{" BASE ",\"top_p\":0}", "top_p"},
    {"{" BASE ",\"top_p\":1.5}", "top_p"},
    {"{" BASE ",\"top_p\":[]}", "top_p"},
    {"{" BASE ",\"min_p\":2}", "min_p"},
    {"{" BASE ",\"top_k\":1.5}", "top_k"},
    {"{" BASE ",\"top_k\":-2}", "top_k"},
    {"{" BASE ",\"presence_penalty\":3}", "presence_penalty"},
    {"{" BASE ",\"frequency_penalty\":\"1\"}", "frequency_penalty"},
    {"{" BASE ",\"repetition_penalty\":0}", "repetition_penalty"},
    {"{" BASE ",\"max_tokens\":0}", "max_tokens"},
    {"{" BASE ",\"max_tokens\":-1}", "max_tokens"},
    {"{" BASE ",\"max_tokens\":1.5}", "max_tokens"},
    {"{" BASE ",\"max_tokens\":1e300}", "max_tokens"},
    {"{" BASE ",\"max_tokens\":\"5\"}", "max_tokens"},
    {"{" BASE ",\"max_completion_tokens\":99999999999}", "max_completion_tokens"},
    {"{" BASE ",\"seed\":1.5}", "seed"},
    {"{" BASE ",\"seed\":\"1\"}", "seed"},
    {"{" BASE ",\"seed\":99999999999999999999}", "seed"},
    {"{" BASE ",\"stop\":5}", "stop"},
    {"{" BASE ",\"stop\":\"\"}", "stop"},
    {"{" BASE ",\"stop\":[\"a\",5]}", "stop[1]"},
    {"{" BASE ",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"0\",\"a\",\"b\",\"c\",\"d\",\"e\","
     "\"f\",\"g\"]}",
     "stop"},
    {"{" BASE ",\"n\":0}", "n"},
    {"{" BASE ",\"n\":129}", "n"},
    {"{" BASE ",\"n\":true}", "n"},
    {"{" BASE ",\"stream\":1}", "stream"},
    {"{" BASE ",\"stream\":\"true\"}", "stream"},
    {"{" BASE ",\"stream_options\":{}}", "stream_options"},
    {"{" BASE ",\"stream\":true,\"stream_options\":5}", "stream_options"},
    {"{" BASE ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}", "stream_options.include_usage"},
    {"{" BASE ",\"logprobs\":2}", "logprobs"},
    {"{" BASE ",\"top_logprobs\":2}", "top_logprobs"},
    {"{" BASE ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs"},
    {"{" BASE ",\"tools\":5}", "tools"},
    {"{" BASE ",\"tools\":[{},5]}", "tools[1]"},
    {"{" BASE ",\"user\":5}", "user"},
    {"{" BASE ",\"ignore_eos\":0}", "ignore_eos"},
    {"{" BASE ",\"stream\":false,\"stream\":true}", NULL}, /* which one? */
    {"{" BASE ",\"\\u006dodel\":\"other\"}", NULL},        /* the same key, written otherwise */
    {"{" M ",\"messages\":[{\"role\":\"user\",\"role\":\"system\",\"content\":\"a\"}]}", NULL},
};

static const wrong completions[] = {
    {"{" M "}", "prompt"},
    {"{" M ",\"prompt\":5}", "prompt"},
    {"{" M ",\"prompt\":{}}", "prompt"},
    {"{" M ",\"prompt\":[]}", "prompt"},
    {"{" M ",\"prompt\":[\"a\",5]}", "prompt[1]"},
    {"{" M ",\"prompt\":[[1],\"a\"]}", "prompt[1]"},
    {"{" M ",\"prompt\":[[]]}", "prompt[0]"},
    {"{" M ",\"prompt\":[1,-1]}", "prompt[1]"},
    {"{" M ",\"prompt\":[1,2.5]}", "prompt[1]"},
    {"{" M ",\"prompt\":[1,99999999999]}", "prompt[1]"},
    {"{" M ",\"prompt\":[[1],[1,\"a\"]]}", "prompt[1][1]"},
    {"{" TEXT ",\"echo\":true}", "echo"},
    {"{" TEXT ",\"best_of\":2}", "best_of"},
    {"{" TEXT ",\"suffix\":\"x\"}", "suffix"},
    {"{" TEXT ",\"logprobs\":6}", "logprobs"},
    {"{" TEXT ",\"logprobs\":true}", "logprobs"},
    {"{" BASE "}", "prompt"},
};

static void nothing_reached(void) {
    assert_int_equal(atomic_load(&the.up.requests), 0);
    until(in_flight(&the) == 0);
    assert_int_equal(in_flight(&the), 0);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), asked);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger WHERE outcome = 'refused'"), asked);
}

static void test_fields(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    for (size_t i = 0; i < sizeof chat / sizeof chat[0]; i++) {
        send_bytes(fd, CHAT, chat[i].body, strlen(chat[i].body));
        check_refused(400, chat[i].param, chat[i].body);
    }
    for (size_t i = 0; i < sizeof completions / sizeof completions[0]; i++) {
        send_bytes(fd, "/v1/completions", completions[i].body, strlen(completions[i].body));
        check_refused(400, completions[i].param, completions[i].body);
    }
    send_bytes(fd, CHAT, "{\"model\":\"other\"," MSGS "}", strlen("{\"model\":\"other\"," MSGS "}"));
    check_refused(404, "model", "other model");
    close(fd);
    nothing_reached();
}

/* `count` times `piece` between `head` and `tail`. */
static void send_many(int fd, const char *head, const char *piece, size_t count, const char *tail) {
    str body = {0};
    str_adds(&body, head);
    for (size_t i = 0; i < count; i++) {
        str_adds(&body, piece);
    }
    str_adds(&body, tail);
    send_bytes(fd, CHAT, body.data, body.len);
    str_free(&body);
}

static void test_depth_and_number(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    send_many(fd, "{" BASE ",\"a\":", "[", 64, "");
    check_refused(400, NULL, "64 deep, unended");
    send_many(fd, "{" BASE ",\"a\":", "[", 1000000, "");
    check_refused(400, NULL, "a million deep");
    send_many(fd, "", "{\"a\":", 500000, "");
    check_refused(400, NULL, "half a million objects deep");
    send_many(fd, "{" M ",\"messages\":[", "[],", 3000000, "[]]}");
    check_refused(400, NULL, "three million values");
    send_many(fd, "{" M ",\"messages\":[", "1,", 400000, "1]}");
    check_refused(400, "messages[0]", "400,000 numbers");
    send_many(fd, "{" BASE ",\"a\":\"", "\\u00e9", 1000000, "");
    check_refused(400, NULL, "an open string");
    close(fd);
    nothing_reached();
}

/* A name longer than the ledger's column is cut between characters there, and told in the answer. */
static void test_long_model_name(void **state) {
    (void)state;
    int fd = client_connect(the.port);
    send_many(fd, "{" MSGS ",\"model\":\"", "\xc3\xa9", 100000, "\"}");
    check_refused(404, "model", "a long name");
    close(fd);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT length(CAST(model AS BLOB)) FROM ledger"), 126);
    assert_int_equal(ledger_number(&the, "SELECT hex(model) LIKE '%C3A9' FROM ledger"), 1);
}

/* Bytes turned over at random in a good body: an answer or 4xx, never anything else. */
static void test_mutations(void **state) {
    (void)state;
    static const char good[] =
        "{" BASE ",\"temperature\":0.5,\"stop\":[\"a\"],\"seed\":7,\"stream\":false,\"tools\":[{\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}]}";
    uint64_t seed = 3;
    int      fd = client_connect(the.port);
    for (int i = 0; i < 1500; i++) {
        char   body[sizeof good];
        size_t n = sizeof good - 1;
        memcpy(body, good, sizeof good);
        for (uint64_t k = test_random(&seed) % 4; k < 4; k++) {
            body[test_random(&seed) % n] = (char)test_random(&seed);
        }
        if (test_random(&seed) % 8 == 0) {
            n = test_random(&seed) % n;
        }
        send_bytes(fd, CHAT, body, n);
        bool fine = r.status == 200 || r.status == 400 || r.status == 404 || r.status == 418;
        if (!fine || !r.complete) {
            fail_msg("%d for %.*s", r.status, (int)n, body);
        }
    }
    close(fd);
    until(in_flight(&the) == 0);
    bed_stop(&the, 1000000);
    assert_int_equal(ledger_number(&the, "SELECT count(*) FROM ledger"), asked);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, open_bed, close_bed)
    const struct CMUnitTest tests[] = {T(test_fields), T(test_depth_and_number), T(test_long_model_name),
                                       T(test_mutations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
