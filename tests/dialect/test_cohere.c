/* Cohere's rerank and embed: what is sent, what is read, and the shape that the client asked for. */
#include "foreign.h"

#include <math.h>

#include "dialect/values.h"

static void rerank_is_written(void **state) {
    (void)state;
    assert_carried(&dialect_cohere, REQUEST_RERANK, "rerank-v3.5",
                   "{'model':'r','query':'q \\'x','documents':['a',{'text':'b'}],'top_n':1,'return_documents':true}",
                   "{'model':'rerank-v3.5','query':'q \\'x','documents':['a','b'],'top_n':1}");
    assert_carried(&dialect_cohere, REQUEST_RERANK, "rerank-v3.5",
                   "{'model':'r','query':'q','documents':['a'],'max_tokens_per_doc':512}",
                   "{'model':'rerank-v3.5','query':'q','documents':['a'],'max_tokens_per_doc':512}");
    assert_dropped(&dialect_cohere, REQUEST_RERANK, "m",
                   "{'model':'r','query':'q','documents':['a'],'rank_fields':['t']}", "rank_fields",
                   "{'model':'m','query':'q','documents':['a']}");
}

static void embed_is_written(void **state) {
    (void)state;
    assert_carried(&dialect_cohere, REQUEST_EMBEDDINGS, "embed-v4.0",
                   "{'model':'r','input':['a','b'],'dimensions':256,'encoding_format':'base64'}",
                   "{'model':'embed-v4.0','texts':['a','b'],'input_type':'search_document','embedding_types':['float'],"
                   "'output_dimension':256}");
    assert_carried(&dialect_cohere, REQUEST_EMBEDDINGS, "embed-v4.0",
                   "{'model':'r','input':'a','input_type':'search_query'}",
                   "{'model':'embed-v4.0','texts':['a'],'input_type':'search_query','embedding_types':['float']}");
    carried c;
    assert_false(carry(&c, &dialect_cohere, REQUEST_EMBEDDINGS, "m", "{'model':'r','input':[1,2]}", false));
    assert_string_equal(c.e.param, "input");
    carried_free(&c);
    assert_false(carry(&c, &dialect_cohere, REQUEST_CHAT, "m",
                       "{'model':'r','messages':[{'role':'user','content':'a'}]}", false));
    assert_int_equal(c.e.code, ERR_UNSUPPORTED);
    carried_free(&c);
}

static void rerank_is_read(void **state) {
    (void)state;
    char *body =
        quoted("{'id':'07734bd2','results':[{'index':1,'relevance_score':0.999071},{'index':0,"
               "'relevance_score':0.327}],'meta':{'api_version':{'version':'2'},'billed_units':{'search_units':3}}}");
    answer a;
    err    e = {0};
    assert_ok(dialect_cohere.read_answer(REQUEST_RERANK, body, strlen(body), &a, &e), e);
    assert_true(a.usage.known);
    assert_int_equal(a.usage.searches, 3);
    assert_ptr_equal(a.raw_dialect, &dialect_openai);
    assert_int_equal(a.raw_len, strlen(a.raw));
    assert_json(a.raw, "{'id':'07734bd2','object':'list','model':'','results':[{'index':1,'relevance_score':0.999071},"
                       "{'index':0,'relevance_score':0.327}],'meta':{'api_version':{'version':'2'},'billed_units':"
                       "{'search_units':3}},'usage':{'prompt_tokens':0,'total_tokens':0}}");

    carried c; /* the documents' texts, which the provider does not repeat */
    str     shaped = {0};
    assert_ok(carry(&c, &dialect_cohere, REQUEST_RERANK, "m",
                    "{'model':'mine','query':'q','documents':['zero','\\'one\\''],'return_documents':true}", false),
              c.e);
    assert_true(values_adapt(&c.r, a.raw, a.raw_len, &shaped));
    assert_json(shaped.data,
                "{'id':'07734bd2','object':'list','model':'mine','results':[{'index':1,'relevance_score':0.999071,"
                "'document':{'text':'\\'one\\''}},{'index':0,'relevance_score':0.327,'document':{'text':'zero'}}],"
                "'meta':{'api_version':{'version':'2'},'billed_units':{'search_units':3}},"
                "'usage':{'prompt_tokens':0,'total_tokens':0}}");
    str again = {0}; /* a second time changes nothing */
    assert_true(values_adapt(&c.r, shaped.data, shaped.len, &again));
    assert_string_equal(again.data, shaped.data);
    str_free(&again);
    str_free(&shaped);
    carried_free(&c);
    answer_clear(&a);
    free(body);
}

static void embed_is_read(void **state) {
    (void)state;
    char *body =
        quoted("{'id':'5807ee2e','embeddings':{'int8':[[1]],'float':[[0.25,-1.5e-3, 3],[1,2,4]]},'texts':['a','b'],"
               "'meta':{'billed_units':{'input_tokens':12}},'response_type':'embeddings_by_type'}");
    answer a;
    err    e = {0};
    assert_ok(dialect_cohere.read_answer(REQUEST_EMBEDDINGS, body, strlen(body), &a, &e), e);
    assert_int_equal(a.usage.prompt, 12);
    assert_json(a.raw, "{'object':'list','data':[{'object':'embedding','index':0,'embedding':[0.25,-0.0015,3]},"
                       "{'object':'embedding','index':1,'embedding':[1,2,4]}],'model':'','usage':{'prompt_tokens':12,"
                       "'total_tokens':12}}");

    carried c; /* as base64: 0.25, -0.0015, 3 as little-endian float32 */
    str     shaped = {0};
    assert_ok(carry(&c, &dialect_cohere, REQUEST_EMBEDDINGS, "m",
                    "{'model':'mine','input':['a','b'],'encoding_format':'base64'}", false),
              c.e);
    assert_true(values_adapt(&c.r, a.raw, a.raw_len, &shaped));
    assert_json(shaped.data, "{'object':'list','data':[{'object':'embedding','index':0,'embedding':'AACAPqabxLoAAEBA'},"
                             "{'object':'embedding','index':1,'embedding':'AACAPwAAAEAAAIBA'}],'model':'mine',"
                             "'usage':{'prompt_tokens':12,'total_tokens':12}}");
    assert_ok(values_finish(&c.r, &a, &e), e); /* the same in place */
    assert_string_equal(a.raw, shaped.data);
    assert_int_equal(a.raw_len, shaped.len);
    assert_int_equal(a.usage.prompt, 12);
    str_free(&shaped);
    carried_free(&c);
    answer_clear(&a);
    free(body);
}

static void what_is_no_answer_is_refused(void **state) {
    (void)state;
    static const char *const cases[] = {
        "",
        "[]",
        "{}",
        "{'results':{}}",
        "{'results':[{'index':0,}]}",
        "{'embeddings':{'float':[[1,2],[3,x]]}}",
        "{'embeddings':{'float':[[1 2]]}}",
        "{'embeddings':{'float':[[1,,2]]}}",
        "{'embeddings':{'float':[[01]]}}",
        "{'embeddings':{'float':[[1e400]]}}",
        "{'embeddings':{'float':[[1,2]",
        "{'embeddings':{'float':{}}}",
        "{'message':'invalid api token'}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *body = quoted(cases[i]);
        for (request_kind kind = REQUEST_EMBEDDINGS; kind <= REQUEST_RERANK; kind++) {
            answer a;
            err    e = {0};
            if (dialect_cohere.read_answer(kind, body, strlen(body), &a, &e)) {
                fail_msg("read: %s", body);
            }
            assert_int_equal(e.code, ERR_UPSTREAM);
            if (strstr(body, "message")) {
                assert_says(e, "invalid api token");
            }
            answer_clear(&a);
        }
        free(body);
    }
}

/* The quick way of reading numbers against the library's. */
static void numbers_are_the_nearest(void **state) {
    (void)state;
    static const char *const odd[] = {"0",
                                      "-0",
                                      "-0.0",
                                      "1e22",
                                      "1e23",
                                      "123456789012345678901234567890",
                                      "0.000000000000000000000000000001234567890123456789",
                                      "1.7976931348623157e308",
                                      "4.9e-324",
                                      "1e-400",
                                      "9007199254740993",
                                      "0.1000000000000000055511151231257827021181583404541015625",
                                      "1E+05",
                                      "12345678901234567890123e-25"};
    uint64_t                 seed = 7;
    for (int i = 0; i < 20000; i++) {
        char text[160], array[200];
        if ((size_t)i < sizeof odd / sizeof odd[0]) {
            snprintf(text, sizeof text, "%s", odd[i]);
        } else {
            double x = (double)(int64_t)test_random(&seed) * pow(10, (double)(test_random(&seed) % 60) - 45);
            snprintf(text, sizeof text, "%.*g", (int)(1 + test_random(&seed) % 20), x);
        }
        snprintf(array, sizeof array, "[%s]", text);
        values_reader v = {.at = array, .end = array + strlen(array)};
        double        x = -1, wanted = strtod(text, NULL);
        assert_true(values_enter(&v, '['));
        if (!values_number(&v, &x)) {
            fail_msg("not read: %s", text);
        }
        if (memcmp(&x, &wanted, sizeof x) != 0) {
            fail_msg("%s is read as %.17g", text, x);
        }
        assert_false(values_number(&v, &x));
        assert_false(v.bad);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rerank_is_written),
        cmocka_unit_test(embed_is_written),
        cmocka_unit_test(rerank_is_read),
        cmocka_unit_test(embed_is_read),
        cmocka_unit_test(what_is_no_answer_is_refused),
        cmocka_unit_test(numbers_are_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
