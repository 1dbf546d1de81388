/* The ordinary chunk, read without a tree: what is read so is said as the reader with the tree says it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dialect/openai.h"
#include "dialect/sse.h"

/* ---- what a reader said ---- */

static void put(str *s, const char *name, const char *text, size_t n) {
    if (text) {
        str_addf(s, "%s=", name);
        str_json(s, text, n);
        str_addc(s, ';');
    }
}

static void put_name(str *s, const char *name, const char *text) {
    put(s, name, text, text ? strlen(text) : 0);
}

/* Every member of the event that an ordinary chunk can set; that it sets no other is asserted. */
static void describe(void *ctx, const event *ev) {
    str *s = ctx;
    str_addf(s, "<%d:%d:%lld;", (int)ev->kind, ev->choice, (long long)ev->created);
    put_name(s, "id", ev->id);
    put_name(s, "model", ev->model);
    put_name(s, "finish", ev->finish);
    put(s, "text", ev->text, ev->text_len);
    put(s, "reasoning", ev->reasoning, ev->reasoning_len);
    put(s, "refusal", ev->refusal, ev->refusal_len);
    put(s, "signature", ev->signature, ev->signature_len);
    put(s, "raw", ev->raw, ev->raw_len);
    str_addf(s, "%s%s%s%s>", ev->tool_calls ? "tools;" : "", ev->logprobs ? "logprobs;" : "", ev->usage ? "usage;" : "",
             ev->raw_dialect == &dialect_openai ? "openai" : "another");
    assert_null(ev->whole);
    assert_null(ev->error);
    assert_false(ev->narrowed);
}

static int n_ordinary, n_read; /* of those compared: how many each reader took */

/* From memory of exactly this size, so that a sanitizer sees a step too far. */
static bool compare(const char *data, size_t n) {
    char *copy = malloc(n ? n : 1);
    str   quick = {0}, whole = {0};
    err   e = {0};
    assert_non_null(copy);
    memcpy(copy, data, n);
    bool ordinary = openai_read_ordinary(copy, n, describe, &quick);
    bool read = openai_read_any(REQUEST_CHAT, copy, n, describe, &whole, &e);
    n_ordinary += ordinary;
    n_read += read;
    if (ordinary && (!read || strcmp(quick.data, whole.data) != 0)) {
        fail_msg("%.*s\nwithout a tree %s\nwith a tree    %s", (int)n, data, quick.data, read ? whole.data : e.text);
    }
    assert_true(ordinary || !quick.data); /* nothing is said of what is left to the other */
    free(copy);
    str_free(&quick);
    str_free(&whole);
    return ordinary;
}

/* ---- chunks as providers send them ---- */

#define HEAD                                                                                                           \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1716153600,\"model\":\"gpt-4o-mini\","
#define SAYS(text)                                                                                                     \
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":" text "},\"logprobs\":null,\"finish_reason\":null}]}"

static const char *const ordinary[] = {
    SAYS("\"Hello\""),
    SAYS("\"\""),
    SAYS("null"),
    SAYS("\"Gr\xC3\xBC\xC3\x9F"
         "e, \xF0\x9F\x98\x80 \xE4\xBD\xA0\""),
    SAYS("\"a line\\n\\tand \\\"more\\\" \\\\ \\/ \\b\\f\\r\""),
    SAYS("\"\\n\""),
    HEAD "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
         "\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null,"
         "\"obfuscation\":\"yEbYT9H\"}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}",
    HEAD "\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"\"}]}",
    "{\"choices\": [{\"content_filter_results\": {\"hate\": {\"filtered\": false, \"severity\": \"safe\"}, "
    "\"violence\":"
    " {\"filtered\": false, \"severity\": \"safe\"}}, \"delta\": {\"content\": \"a\"}, \"finish_reason\": null, "
    "\"index\": 0, \"logprobs\": null}], \"created\": 17, \"id\": \"c\", \"model\": \"m\", \"object\": \"x\"}",
    HEAD
    "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"Let\"}}]}",
    HEAD "\"provider\":\"X\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\",\"reasoning\":\"so\",\"reasoning_"
         "details\":[{\"type\":\"text\",\"text\":\"so\",\"index\":0}]},\"native_finish_reason\":null}]}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"a\",\"reasoning_content\":\"b\",\"refusal\":\"c\"}}]}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"a\",\"reasoning_content\":\"\"},\"x\":[ 1 , -2.5 ]}]}",
    HEAD "\"timings\":{\"n\":12,\"ms\":-3.25,\"a\":[],\"o\":{},\"t\":true,\"f\":false},\"choices\":[{\"delta\":{}}]}",
    "{\"choices\":[{}]}",
    "{\"id\":null,\"model\":\"\",\"error\":null,\"choices\":[{\"index\":127}]}  ",
};

static const char *const other[] = {
    "",
    "{",
    "{}",
    "[]",
    "{\"choices\":[]}",
    "{\"choices\":[{}],}",
    "{\"choices\":[{},{}]}",
    "{\"choices\":[{\"index\":128}]}",
    "{\"choices\":[{\"index\":1.5}]}",
    "{\"choices\":[{\"index\":-1}]}",
    "{\"choices\":[{}],\"choices\":[{}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\",\"content\":\"b\"}}]}",
    "{\"choices\":[{\"delta\":{\"x\":{\"a\":1,\"a\":2}}}]}",
    "{\"choices\":[{}],\"n\":01}",
    "{\"choices\":[{}],\"n\":1.}",
    "{\"choices\":[{}],\"n\":1e400}",
    "{\"choices\":[{}],\"n\":12345678901234567890}",
    "{\"choices\":[{}],\"n\":tru}",
    "{\"choices\":[{}]} x",
    "{\"choices\":[{}] \"id\":\"a\"}",
    "{\"cho\\u0069ces\":[{}]}",
    "{\"choices\":[{}],\"error\":{\"message\":\"no\"}}",
    SAYS("\"\\u00e9\""),
    SAYS("\"\\u0000\""),
    SAYS("\"a\\"),
    SAYS("\"\\x\""),
    SAYS("\"a\nb\""),
    SAYS("\"\xC3\""),
    SAYS("[{\"type\":\"text\",\"text\":\"a\"}]"),
    HEAD "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":3}}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\"}}]}}]}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[]}}]}",
    HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\",\"reasoning_signature\":\"s\"}}]}",
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static void test_which_are_ordinary(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ordinary); i++) {
        if (!compare(ordinary[i], strlen(ordinary[i]))) {
            fail_msg("not read: %s", ordinary[i]);
        }
    }
    for (size_t i = 0; i < COUNT(other); i++) {
        if (compare(other[i], strlen(other[i]))) {
            fail_msg("read: %s", other[i]);
        }
    }
}

/* Cut off anywhere, it is no chunk; blanks behind it are none of it. */
static void test_every_end(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ordinary); i++) {
        size_t n = strlen(ordinary[i]);
        for (size_t k = 0; k < n; k++) {
            compare(ordinary[i], k);
        }
    }
}

static void wrap(str *s, const char *before, size_t n, char c, const char *behind) {
    str_clear(s);
    str_adds(s, before);
    for (size_t i = 0; i < n; i++) {
        str_addc(s, c);
    }
    str_adds(s, behind);
}

/* Around each bound: names, texts with escapes, numbers, depth, members. */
static void test_bounds(void **state) {
    (void)state;
    str s = {0};
    for (size_t n = 0; n < 140; n++) {
        wrap(&s, "{\"choices\":[{}],\"id\":\"", n, 'i', "\"}");
        assert_int_equal(compare(s.data, s.len), n <= 127);
        wrap(&s, "{\"choices\":[{\"finish_reason\":\"", n, 'f', "\"}]}");
        assert_int_equal(compare(s.data, s.len), n <= 23);
        wrap(&s, "{\"choices\":[{}],\"n\":1", n, '0', "}");
        assert_int_equal(compare(s.data, s.len), n < 15);
        wrap(&s, "{\"choices\":[{}],\"created\":1", n, '0', "}");
        compare(s.data, s.len);
    }
    for (size_t n = 980; n < 1100; n++) {
        wrap(&s, "{\"choices\":[{\"delta\":{\"reasoning\":\"\\\"\",\"content\":\"\\n", n, 't', "\\n\"}}]}");
        assert_int_equal(compare(s.data, s.len), n < 1021);
        wrap(&s, "{\"choices\":[{\"delta\":{\"content\":\"", n, 't', "\"}}]}");
        assert_true(compare(s.data, s.len));
    }
    for (size_t n = 1; n < 80; n++) {
        wrap(&s, "{\"choices\":[{}],\"x\":", n, '[', "");
        for (size_t i = 0; i < n; i++) {
            str_addc(&s, ']');
        }
        str_addc(&s, '}');
        assert_int_equal(compare(s.data, s.len), n <= 8);
    }
    for (int n = 0; n < 40; n++) {
        wrap(&s, "{\"choices\":[{}]", 0, ' ', "");
        for (int i = 0; i < n; i++) {
            str_addf(&s, ",\"key%d\":%d", i, i);
        }
        str_addc(&s, '}');
        assert_int_equal(compare(s.data, s.len), n < 16);
    }
    str_free(&s);
}

/* ---- chunks as nobody sends them ---- */

static uint64_t seed = 88172645463325252u;

static size_t below(size_t n) { /* xorshift64 (Marsaglia 2003) */
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed % n);
}

static const char *const bits[] = {"\"",
                                   "\\",
                                   "\\n",
                                   "\\u0041",
                                   "{",
                                   "}",
                                   "[",
                                   "]",
                                   ",",
                                   ":",
                                   "null",
                                   "true",
                                   "0",
                                   "-1.5",
                                   "1e3",
                                   " ",
                                   "\n",
                                   "\xC3\xA9",
                                   "\xC3",
                                   "\x7F",
                                   "\x01",
                                   "\"a\":1,",
                                   "\"id\":",
                                   "\"usage\":{},",
                                   "\"error\":\"x\",",
                                   "\"index\":2,",
                                   "{},",
                                   "[{}],",
                                   "\"text\":\"t\",",
                                   "\"content\":\"c\",",
                                   "\"delta\":{},",
                                   "\"finish_reason\":\"stop\","};

/* One change: a piece taken out, written twice, put somewhere else, or something else in its place. */
static void mutate(str *s) {
    size_t      at = below(s->len + 1), n = below(s->len - at + 1), to = below(s->len + 1);
    const char *bit = bits[below(COUNT(bits))];
    str         out = {0};
    n = below(4) ? (n < 12 ? n : below(12)) : n;
    switch (below(4)) {
    case 0:
        str_add(&out, s->data, at);
        str_add(&out, s->data + at + n, s->len - at - n);
        break;
    case 1:
        str_add(&out, s->data, to);
        str_add(&out, s->data + at, n);
        str_add(&out, s->data + to, s->len - to);
        break;
    case 2:
        str_add(&out, s->data, at);
        str_adds(&out, bit);
        str_add(&out, s->data + at, s->len - at);
        break;
    default:
        str_add(&out, s->data, at);
        str_adds(&out, bit);
        str_add(&out, s->data + at + n, s->len - at - n);
    }
    str_free(s);
    *s = out;
}

static void test_mutations(void **state) {
    (void)state;
    n_ordinary = n_read = 0;
    for (int round = 0; round < 200000; round++) {
        bool        plain = below(4) > 0;
        const char *from = plain ? ordinary[below(COUNT(ordinary))] : other[1 + below(COUNT(other) - 1)];
        str         s = {0};
        str_adds(&s, from);
        for (size_t changes = 1 + below(3); changes > 0 && s.len > 0; changes--) {
            mutate(&s);
        }
        compare(s.data ? s.data : "", s.len);
        str_free(&s);
    }
    assert_true(n_ordinary > 5000); /* or this compares nothing */
    assert_true(n_read > n_ordinary);
}

/* ---- in a stream, however it is cut ---- */

typedef struct stream {
    str  said;
    err  e;
    bool done;
} stream;

static bool payload(void *ctx, const char *data, size_t n) {
    stream *s = ctx;
    return dialect_openai.read_chunk(REQUEST_CHAT, NULL, data, n, describe, &s->said, &s->done, &s->e);
}

static void feed(sse_reader *r, stream *s, const char *bytes, size_t n) {
    if (!sse_feed(r, bytes, n, payload, s, &s->e)) {
        fail_msg("%s", s->e.text);
    }
}

static void test_every_cut(void **state) {
    (void)state;
    str bytes = {0}, wanted = {0};
    for (size_t i = 0; i < 8; i++) {
        err e = {0};
        str_addf(&bytes, "data: %s\n\n", ordinary[i]);
        assert_true(openai_read_any(REQUEST_CHAT, ordinary[i], strlen(ordinary[i]), describe, &wanted, &e));
    }
    str_adds(&bytes, "data: [DONE]\n\n");
    for (size_t cut = 0; cut <= bytes.len; cut++) {
        sse_reader r = {0};
        stream     s = {0};
        feed(&r, &s, bytes.data, cut);
        feed(&r, &s, bytes.data + cut, bytes.len - cut);
        assert_true(s.done);
        assert_string_equal(s.said.data, wanted.data);
        sse_clear(&r);
        str_free(&s.said);
    }
    for (int round = 0; round < 300; round++) {
        sse_reader r = {0};
        stream     s = {0};
        for (size_t at = 0, n; at < bytes.len; at += n) {
            n = 1 + below(round % 2 ? 3 : 400);
            n = n < bytes.len - at ? n : bytes.len - at;
            feed(&r, &s, bytes.data + at, n);
        }
        assert_string_equal(s.said.data, wanted.data);
        sse_clear(&r);
        str_free(&s.said);
    }
    str_free(&bytes);
    str_free(&wanted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_are_ordinary), cmocka_unit_test(test_every_end), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_mutations),          cmocka_unit_test(test_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
