/* Several blocks of signed thinking: from an answer of Anthropic's API through OpenAI's form and back, whole and in streams. */
#include "check.h"

#include "dialect/dialect.h"

/* Thoughts, a redacted one, one that is not shown, text and a call, as the API sends them. */
#define THOUGHTS                                                                                                       \
    "{\"type\":\"thinking\",\"thinking\":\"Grüße \",\"signature\":\"EqQB+/==\"},"                                    \
    "{\"type\":\"redacted_thinking\",\"data\":\"Emw=\"},"                                                              \
    "{\"type\":\"thinking\",\"thinking\":\"an alle 12:\",\"signature\":\"Zz9/\"},"                                     \
    "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"hidden==\"}"
#define REST                                                                                                           \
    ",{\"type\":\"text\",\"text\":\"Now.\"},{\"type\":\"tool_use\",\"id\":\"c1\",\"name\":\"f\",\"input\":{\"a\":1}}"

static const char *const contents[] = {
    THOUGHTS, "{\"type\":\"redacted_thinking\",\"data\":\"Emw=\"},{\"type\":\"redacted_thinking\",\"data\":\"Enw=\"}",
    "{\"type\":\"redacted_thinking\",\"data\":\"Emw=\"},{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"}",
    "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"}",
    ("{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"thinking\",\"thinking\":\"u\","
     "\"signature\":\"v\"}")};

static char *part(const char *text, const char *from, const char *to) {
    const char *a = strstr(text, from), *b = a ? strstr(a + strlen(from), to) : NULL;
    assert_non_null(b);
    return strndup(a + strlen(from), (size_t)(b - a) - strlen(from));
}

/* The assistant's message, as a client of OpenAI's API has it, goes back with the result of its call; what Anthropic's API
 * gets of the assistant's turn. */
static char *sent_back(const char *message, drops *d) {
    err     e = {0};
    str     body = {0}, out = {0};
    request r = {0};
    arena  *memory = arena_new(4096);
    str_addf(&body,
             "{\"model\":\"m\",\"max_tokens\":9000,\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},%s,{\"role\":"
             "\"tool\",\"tool_call_id\":\"c1\",\"content\":\"R\"}]}",
             message);
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, body.data, body.len, memory, &r, &e), e);
    r.drops = d;
    assert_ok(dialect_anthropic.write_request(&r, "claude-sonnet-4-5", false, &out, &e), e);
    char *turn = part(out.data, "{\"role\":\"assistant\",\"content\":[", "]},{\"role\":\"user\"");
    str_free(&out);
    str_free(&body);
    request_free(&r);
    arena_free(memory);
    return turn;
}

static void read_whole(const char *content, answer *a) {
    err e = {0};
    str body = {0};
    str_addf(&body, "{\"id\":\"m1\",\"model\":\"m\",\"content\":[%s" REST "],\"stop_reason\":\"tool_use\"}", content);
    assert_ok(dialect_anthropic.read_answer(REQUEST_CHAT, body.data, body.len, a, &e), e);
    str_free(&body);
}

static char *message_of(const answer *a) {
    str     out = {0};
    request r = {.kind = REQUEST_CHAT};
    assert_true(dialect_openai.write_answer(&r, a, &out));
    char *message = part(out.data, "\"message\":", ",\"logprobs\"");
    str_free(&out);
    return message;
}

static void test_whole(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        answer a;
        drops  d = {0};
        str    wanted = {0};
        read_whole(contents[i], &a);
        char *message = message_of(&a), *turn = sent_back(message, &d);
        str_addf(&wanted, "%s" REST, contents[i]);
        assert_string_equal(turn, wanted.data);
        assert_string_equal(d.names, "");
        free(turn);
        free(message);
        str_free(&wanted);
        answer_clear(&a);
    }
}

typedef struct collected {
    answer a;
} collected;

static void collect(void *ctx, const event *ev) {
    err        e = {0};
    collected *c = ctx;
    assert_ok(answer_add(&c->a, ev, &e), e);
}

static void payload(void *state, collected *c, const char *format, int index, const char *value) {
    str  text = {0};
    bool done;
    err  e = {0};
    str_addf(&text, format, index, value);
    assert_ok(dialect_anthropic.read_chunk(REQUEST_CHAT, state, text.data, text.len, collect, c, &done, &e), e);
    str_free(&text);
}

/* A block as the API streams it, its text in two pieces. */
static void stream_block(void *state, collected *c, int i, const cJSON *block) {
    const char *type = cJSON_GetObjectItem(block, "type")->valuestring;
    str         json = {0};
    if (strcmp(type, "thinking") == 0) {
        const char *text = cJSON_GetObjectItem(block, "thinking")->valuestring;
        payload(state, c, "{\"type\":\"content_block_start\",\"index\":%d,\"content_block\":%s}", i,
                "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
        for (int k = 0; k < 2; k++) {
            size_t half = strlen(text) / 2 & ~(size_t)3; /* not inside of a character here */
            str_clear(&json);
            k ? str_json(&json, text + half, strlen(text) - half) : str_json(&json, text, half);
            payload(state, c,
                    "{\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"type\":\"thinking_delta\","
                    "\"thinking\":%s}}",
                    i, json.data);
        }
        str_clear(&json);
        str_jsons(&json, cJSON_GetObjectItem(block, "signature")->valuestring);
        payload(
            state, c,
            "{\"type\":\"content_block_delta\",\"index\":%d,\"delta\":{\"type\":\"signature_delta\",\"signature\":%s}}",
            i, json.data);
    } else {
        json_write(block, &json);
        payload(state, c, "{\"type\":\"content_block_start\",\"index\":%d,\"content_block\":%s}", i, json.data);
    }
    payload(state, c, "{\"type\":\"content_block_stop\",\"index\":%d}%s", i, "");
    str_free(&json);
}

/* What a client adds up of the stream's deltas is what the whole answer has. */
static void test_streams(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        err       e = {0};
        answer    whole;
        collected c = {0};
        str       list = {0};
        int       k = 0;
        void     *reading = calloc(1, dialect_anthropic.reading);
        read_whole(contents[i], &whole);
        str_addf(&list, "[%s]", contents[i]);
        cJSON       *tree = json_parse(list.data, list.len, 9, &e);
        const cJSON *block;
        cJSON_ArrayForEach(block, tree) {
            stream_block(reading, &c, k++, block);
        }
        assert_string_equal(c.a.choices[0].reasoning.data ? c.a.choices[0].reasoning.data : "",
                            whole.choices[0].reasoning.data ? whole.choices[0].reasoning.data : "");
        assert_string_equal(c.a.choices[0].signature.data, whole.choices[0].signature.data);
        cJSON_Delete(tree);
        free(reading);
        str_free(&list);
        answer_clear(&c.a);
        answer_clear(&whole);
    }
}

/* To clients of Anthropic's API: whole, and a whole answer told as a stream. */
static void test_told(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        answer  a;
        str     out = {0};
        request r = {.kind = REQUEST_CHAT, .stream = true};
        read_whole(contents[i], &a);
        free(a.raw);
        a.raw = NULL;
        assert_true(dialect_anthropic.write_answer(&r, &a, &out));
        assert_non_null(strstr(out.data, contents[i]));
        void *writing = calloc(1, dialect_anthropic.writing), *reading = calloc(1, dialect_anthropic.reading);
        event ev = {.kind = EVENT_DELTA};
        str_clear(&out);
        assert_true(dialect_anthropic.write_event(&r, writing, &a, &ev, &out));
        collected c = {0};
        for (char *at = out.data; (at = strstr(at, "data: "));) { /* read again as a provider's */
            char *line = strndup(at + 6, strcspn(at + 6, "\n"));
            bool  done;
            err   e = {0};
            assert_ok(dialect_anthropic.read_chunk(REQUEST_CHAT, reading, line, strlen(line), collect, &c, &done, &e),
                      e);
            free(line);
            at += 6;
        }
        assert_string_equal(c.a.choices[0].signature.data, a.choices[0].signature.data);
        free(writing);
        free(reading);
        str_free(&out);
        answer_clear(&a);
        answer_clear(&c.a);
    }
}

/* What does not fit is not sent: the API would refuse the turn. A blank in another provider's signature is its own. */
static void test_others(void **state) {
    (void)state;
    static const struct {
        const char *text, *signature, *blocks;
    } rows[] = {
        {"abcdef", "s 3:t",
         "{\"type\":\"thinking\",\"thinking\":\"abc\",\"signature\":\"s\"},{\"type\":\"thinking\","
         "\"thinking\":\"def\",\"signature\":\"t\"}"},
        {"def", " 3:t", "{\"type\":\"thinking\",\"thinking\":\"def\",\"signature\":\"t\"}"}, /* a part of it */
        {"ab", "s 3:t", ""},
        {"abcdef", "s 4:t 3:u", ""},
        {"aü", "s 2:t", ""}, /* inside of a character */
        {"abc", "s 3!r",
         "{\"type\":\"thinking\",\"thinking\":\"abc\",\"signature\":\"s\"},{\"type\":"
         "\"redacted_thinking\",\"data\":\"r\"}"},
        {"abcd", "s 3!r", ""},
        {"abc", "s 99999999999:t", "{\"type\":\"thinking\",\"thinking\":\"abc\",\"signature\":\"s 99999999999:t\"}"},
        {"abc", "one two", "{\"type\":\"thinking\",\"thinking\":\"abc\",\"signature\":\"one two\"}"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        str   message = {0}, wanted = {0};
        drops d = {0};
        str_addf(
            &message,
            "{\"role\":\"assistant\",\"content\":\"Now.\",\"reasoning_content\":\"%s\",\"reasoning_signature\":\"%s\","
            "\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
            "\"{\\\"a\\\":1}\"}}]}",
            rows[i].text, rows[i].signature);
        char *turn = sent_back(message.data, &d);
        str_addf(&wanted, "%s%s", rows[i].blocks, rows[i].blocks[0] ? REST : &REST[1]);
        assert_string_equal(turn, wanted.data);
        assert_string_equal(d.names, rows[i].blocks[0] ? "" : "reasoning_content");
        free(turn);
        str_free(&message);
        str_free(&wanted);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_streams),
                                       cmocka_unit_test(test_told), cmocka_unit_test(test_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
