/* What Gemini answers, whole and as a stream. The bodies follow the documented form of generateContent's answers. */
#include "foreign.h"

#include <math.h>

static answer read_whole(const char *text) {
    char  *body = quoted(text);
    answer a;
    err    e = {0};
    assert_ok(dialect_gemini.read_answer(REQUEST_CHAT, body, strlen(body), &a, &e), e);
    assert_ptr_equal(a.raw_dialect, &dialect_gemini);
    assert_string_equal(a.raw, body);
    free(body);
    return a;
}

static void refused(request_kind kind, const char *text, const char *says) {
    char  *body = quoted(text);
    answer a;
    err    e = {0};
    if (dialect_gemini.read_answer(kind, body, strlen(body), &a, &e)) {
        fail_msg("read: %s", body);
    }
    assert_int_equal(e.code, ERR_UPSTREAM);
    assert_says(e, says);
    answer_clear(&a);
    free(body);
}

/* What a client of OpenAI's API gets of it: choices[0], and usage. */
static void assert_choice(const answer *a, const char *message, const char *finish) {
    str     out = {0};
    request r = {.kind = REQUEST_CHAT};
    assert_true(dialect_openai.write_answer(&r, a, &out));
    cJSON       *tree = cJSON_Parse(out.data);
    const cJSON *choice = cJSON_GetObjectItem(tree, "choices")->child;
    char        *written = cJSON_PrintUnformatted(cJSON_GetObjectItem(choice, "message"));
    assert_json(written, message);
    assert_string_equal(cJSON_GetObjectItem(choice, "finish_reason")->valuestring, finish);
    cJSON_free(written);
    cJSON_Delete(tree);
    str_free(&out);
}

static void texts_thoughts_and_usage(void **state) {
    (void)state;
    answer a = read_whole(
        "{'candidates':[{'content':{'parts':[{'text':'Let me see.','thought':true},{'text':'The sky '},"
        "{'text':'is blue.','thoughtSignature':'c2ln'}],'role':'model'},'finishReason':'STOP','index':0,"
        "'safetyRatings':[{'category':'HARM_CATEGORY_HARASSMENT','probability':'NEGLIGIBLE'}]}],"
        "'usageMetadata':{'promptTokenCount':120,'candidatesTokenCount':7,'totalTokenCount':160,'thoughtsTokenCount':"
        "23,"
        "'cachedContentTokenCount':40,'toolUsePromptTokenCount':10,"
        "'promptTokensDetails':[{'modality':'TEXT','tokenCount':50},{'modality':'AUDIO','tokenCount':30},"
        "{'modality':'IMAGE','tokenCount':40}],'toolUsePromptTokensDetails':[{'modality':'IMAGE','tokenCount':2}],"
        "'cacheTokensDetails':[{'modality':'AUDIO','tokenCount':5},{'modality':'TEXT','tokenCount':35}],"
        "'candidatesTokensDetails':[{'modality':'AUDIO','tokenCount':1}],'serviceTier':'priority'},"
        "'modelVersion':'gemini-2.5-flash','responseId':'abcDEF'}");
    assert_choice(&a,
                  "{'role':'assistant','content':'The sky is blue.','reasoning_content':'Let me see.',"
                  "'reasoning_signature':'c2ln','refusal':null}",
                  "stop");
    assert_string_equal(a.id, "abcDEF");
    assert_string_equal(a.model, "gemini-2.5-flash");
    assert_true(a.usage.known);
    assert_int_equal(a.usage.prompt, 130);
    assert_int_equal(a.usage.completion, 30);
    assert_int_equal(a.usage.reasoning, 23);
    assert_int_equal(a.usage.cached, 40);
    assert_int_equal(a.usage.audio_in, 30);
    assert_int_equal(a.usage.image_in, 42);
    assert_int_equal(a.usage.audio_cached, 5);
    assert_int_equal(a.usage.audio_out, 1);
    assert_int_equal(a.usage.tier, TIER_PRIORITY);
    answer_clear(&a);
}

static const char *id_of(const cJSON *calls, int i) {
    return cJSON_GetObjectItem(cJSON_GetArrayItem(calls, i), "id")->valuestring;
}

static void calls(void **state) {
    (void)state;
    answer       a = read_whole("{'candidates':[{'content':{'parts':[{'text':'I look.'},"
                                      "{'functionCall':{'id':'fc-1','name':'weather','args':{'city':'Rome','days':[1,2.5]}},"
                                      "'thoughtSignature':'c2ln'},{'functionCall':{'name':'time'}}],'role':'model'},"
                                      "'finishReason':'STOP'}],'responseId':'r1'}");
    const cJSON *list = a.choices[0].tool_calls;
    char         wanted[512];
    assert_int_equal(cJSON_GetArraySize(list), 2);
    assert_true(strlen(id_of(list, 1)) > 8 && strlen(id_of(list, 1)) <= 40);
    snprintf(wanted, sizeof wanted,
             "{'role':'assistant','content':'I look.','reasoning_signature':'c2ln','refusal':null,'tool_calls':["
             "{'id':'fc-1','type':'function','function':{'name':'weather','arguments':"
             "'{\\\\'city\\\\':\\\\'Rome\\\\',\\\\'days\\\\':[1,2.5]}'}},"
             "{'id':'%s','type':'function','function':{'name':'time','arguments':'{}'}}]}",
             id_of(list, 1));
    for (char *p = wanted; (p = strstr(p, "\\\\'"));) { /* \\' -> \' */
        memmove(p, p + 1, strlen(p));
        p += 2;
    }
    assert_choice(&a, wanted, "tool_calls");
    answer_clear(&a);

    /* Made ids differ within an answer and between answers, and are the same for the same answer. */
    static const char form[] = "{'candidates':[{'content':{'parts':[{'functionCall':{'name':'a'}},{'functionCall':"
                               "{'name':'a'}}]},'finishReason':'STOP'}],'responseId':'%s'}";
    char              body[256];
    answer            one, same, other;
    snprintf(body, sizeof body, form, "r1");
    one = read_whole(body);
    same = read_whole(body);
    snprintf(body, sizeof body, form, "r2");
    other = read_whole(body);
    assert_string_not_equal(id_of(one.choices[0].tool_calls, 0), id_of(one.choices[0].tool_calls, 1));
    assert_string_equal(id_of(one.choices[0].tool_calls, 1), id_of(same.choices[0].tool_calls, 1));
    assert_string_not_equal(id_of(one.choices[0].tool_calls, 0), id_of(other.choices[0].tool_calls, 0));
    answer_clear(&one);
    answer_clear(&same);
    answer_clear(&other);
}

static void reasons(void **state) {
    (void)state;
    static const struct {
        const char *reason, *finish;
        bool        told;
    } cases[] = {{"STOP", "stop", false},
                 {"MAX_TOKENS", "length", false},
                 {"SAFETY", "content_filter", false},
                 {"RECITATION", "content_filter", false},
                 {"BLOCKLIST", "content_filter", false},
                 {"PROHIBITED_CONTENT", "content_filter", false},
                 {"SPII", "content_filter", false},
                 {"IMAGE_SAFETY", "content_filter", false},
                 {"MALFORMED_FUNCTION_CALL", "stop", true},
                 {"OTHER", "stop", true},
                 {"A_REASON_OF_TOMORROW", "stop", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[256];
        snprintf(body, sizeof body, "{'candidates':[{'content':{'parts':[{'text':'a'}]},'finishReason':'%s'}]}",
                 cases[i].reason);
        answer a = read_whole(body);
        assert_string_equal(a.choices[0].finish, cases[i].finish);
        assert_int_equal(a.choices[0].refusal.len > 0, cases[i].told);
        assert_true(answer_complete(&a));
        answer_clear(&a);
        snprintf(body, sizeof body, "{'candidates':[{'finishReason':'%s','finishMessage':'because'}]}",
                 cases[i].reason);
        a = read_whole(body);
        bool good = strcmp(cases[i].reason, "STOP") == 0 || strcmp(cases[i].reason, "MAX_TOKENS") == 0;
        assert_int_equal(a.choices[0].refusal.len > 0, !good);
        assert_true(good || strstr(a.choices[0].refusal.data, "because"));
        answer_clear(&a);
    }
    answer a =
        read_whole("{'promptFeedback':{'blockReason':'PROHIBITED_CONTENT'},'usageMetadata':{'promptTokenCount':9}}");
    assert_choice(
        &a, "{'role':'assistant','content':null,'refusal':'The provider stopped the prompt (PROHIBITED_CONTENT).'}",
        "content_filter");
    assert_int_equal(a.usage.prompt, 9);
    answer_clear(&a);
}

static void logprobs(void **state) {
    (void)state;
    answer a = read_whole(
        "{'candidates':[{'content':{'parts':[{'text':'Hi!'}]},'finishReason':'STOP','avgLogprobs':-0.2,'logprobsResult'"
        ":"
        "{'topCandidates':[{'candidates':[{'token':'Hi','tokenId':5,'logProbability':-0.25},{'token':'Yo','tokenId':6,"
        "'logProbability':-2}]},{'candidates':[{'token':'!','tokenId':7}]}],"
        "'chosenCandidates':[{'token':'Hi','tokenId':5,'logProbability':-0.25},{'token':'!','tokenId':7}]}}]}");
    char *written = cJSON_PrintUnformatted(a.choices[0].logprobs);
    assert_json(written,
                "[{'token':'Hi','logprob':-0.25,'bytes':[72,105],'top_logprobs':["
                "{'token':'Hi','logprob':-0.25,'bytes':[72,105]},{'token':'Yo','logprob':-2,'bytes':[89,111]}]},"
                "{'token':'!','logprob':0,'bytes':[33],'top_logprobs':[{'token':'!','logprob':0,'bytes':[33]}]}]");
    cJSON_free(written);
    answer_clear(&a);
}

static void odd_answers(void **state) {
    (void)state;
    answer a =
        read_whole("[{'candidates':[{'content':{'parts':[{'text':'a'}]}}]},\n{'candidates':[{'content':{'parts':"
                   "[{'text':'b'}]},'finishReason':'STOP'}]}]"); /* a stream that nobody asked to be one of events */
    assert_string_equal(a.choices[0].text.data, "ab");
    answer_clear(&a);
    a = read_whole(
        "{'candidates':[{'content':{'parts':[{'text':'see '},{'inlineData':{'mimeType':'image/png','data':'AAAA'}}]"
        "},'finishReason':'STOP'}]}");
    assert_string_equal(a.choices[0].text.data, "see ![image](data:image/png;base64,AAAA)");
    answer_clear(&a);
    a = read_whole("{'candidates':[{'index':0,'finishReason':'STOP'},{'index':1,'content':{'parts':[{'text':'b'}]},"
                   "'finishReason':'MAX_TOKENS'}]}");
    assert_int_equal(a.n_choices, 2);
    assert_string_equal(a.choices[1].text.data, "b");
    assert_string_equal(a.choices[1].finish, "length");
    answer_clear(&a);
    refused(REQUEST_CHAT, "{'candidates':[{'index':999}]}", "999");
    refused(REQUEST_CHAT, "{'candidates':[{'index':-1}]}", "-1");
    refused(REQUEST_CHAT, "{'candidates':[]}", "no candidates");
    refused(REQUEST_CHAT, "{}", "no candidates");
    refused(REQUEST_CHAT, "[]", "no candidates");
    refused(REQUEST_CHAT, "", "cannot be read");
    refused(REQUEST_CHAT, "[{", "cannot be read");
    refused(REQUEST_CHAT, "{'error':{'code':400,'message':'API key not valid.','status':'INVALID_ARGUMENT'}}",
            "API key not valid.");
    refused(REQUEST_CHAT, "[{'error':{'code':429,'message':'Quota.','status':'RESOURCE_EXHAUSTED'}}]", "Quota.");
}

/* ---- streams ---- */

typedef struct stream {
    answer grown;
    void  *state;
    int    events, finishes, payloads;
    usage  last;
    err    e;
} stream;

static void take(void *ctx, const event *ev) {
    stream *s = ctx;
    assert_int_equal(ev->kind, EVENT_DELTA);
    assert_ptr_equal(ev->raw_dialect, &dialect_gemini);
    s->events++;
    s->payloads += ev->raw != NULL;
    s->finishes += ev->finish != NULL;
    if (ev->usage) {
        s->last = *ev->usage;
    }
    assert_ok(answer_add(&s->grown, ev, &s->e), s->e);
}

static bool feed(stream *s, const char *text) {
    char *data = quoted(text);
    bool  done = true;
    bool  good = dialect_gemini.read_chunk(REQUEST_CHAT, s->state, data, strlen(data), take, s, &done, &s->e);
    /* Nothing but the finish says that it is complete, and that the prompt was stopped. */
    if (good) {
        assert_int_equal(done, strstr(data, "blockReason") != NULL);
    }
    free(data);
    return good;
}

static stream open_stream(void) {
    stream s = {.state = calloc(1, dialect_gemini.reading)};
    assert_non_null(s.state);
    return s;
}

static void close_stream(stream *s) {
    free(s->state);
    answer_clear(&s->grown);
}

static void a_stream(void **state) {
    (void)state;
    stream s = open_stream();
    assert_ok(feed(&s, "{'candidates':[{'content':{'parts':[{'text':'hm','thought':true}],'role':'model'},'index':0}],"
                       "'usageMetadata':{'promptTokenCount':5,'totalTokenCount':9,'thoughtsTokenCount':4},"
                       "'modelVersion':'g','responseId':'r'}"),
              s.e);
    assert_false(answer_complete(&s.grown));
    assert_ok(
        feed(&s, "{'candidates':[{'content':{'parts':[{'text':'Let'},{'text':' me'}]},'index':0}],'responseId':'r'}"),
        s.e);
    assert_ok(feed(&s, "{'candidates':[{'content':{'parts':[{'functionCall':{'name':'f','args':{'a':1}},"
                       "'thoughtSignature':'c2ln'}]},'index':0}],'responseId':'r'}"),
              s.e);
    assert_ok(feed(&s, "{'candidates':[{'content':{'parts':[{'functionCall':{'name':'g','args':{}}}]},'index':0}],"
                       "'responseId':'r'}"),
              s.e);
    assert_ok(
        feed(&s,
             "{'candidates':[{'content':{'parts':[{'text':'','thoughtSignature':'bGF0ZXI='}]},'finishReason':'STOP',"
             "'index':0}],'usageMetadata':{'promptTokenCount':5,'candidatesTokenCount':6,'thoughtsTokenCount':4},"
             "'responseId':'r'}"),
        s.e);
    assert_ok(feed(&s, "{'candidates':[{'finishReason':'STOP','index':0}],'usageMetadata':{'promptTokenCount':5,"
                       "'candidatesTokenCount':8,'thoughtsTokenCount':4},'responseId':'r'}"),
              s.e);
    const choice *c = &s.grown.choices[0];
    assert_int_equal(s.events, 6);
    assert_int_equal(s.payloads, 6);
    assert_int_equal(s.finishes, 1); /* told once */
    assert_true(answer_complete(&s.grown));
    assert_string_equal(c->text.data, "Let me");
    assert_string_equal(c->reasoning.data, "hm");
    assert_string_equal(c->signature.data, "c2ln"); /* that of the calls, and no other behind it */
    assert_string_equal(c->finish, "tool_calls");
    assert_int_equal(cJSON_GetArraySize(c->tool_calls), 2);
    assert_string_not_equal(id_of(c->tool_calls, 0), id_of(c->tool_calls, 1));
    assert_int_equal(s.last.prompt, 5);
    assert_int_equal(s.last.completion, 12); /* the last count, not the sum of them */
    assert_string_equal(s.grown.id, "r");
    close_stream(&s);
}

static void streams_that_end_otherwise(void **state) {
    (void)state;
    stream s = open_stream();
    assert_ok(feed(&s, "{'promptFeedback':{'blockReason':'SAFETY','blockReasonMessage':'No.'},'usageMetadata':"
                       "{'promptTokenCount':5}}"),
              s.e);
    assert_string_equal(s.grown.choices[0].finish, "content_filter");
    assert_string_equal(s.grown.choices[0].refusal.data, "The provider stopped the prompt (SAFETY): No.");
    close_stream(&s);

    s = open_stream();
    assert_ok(feed(&s, "{'candidates':[{'content':{'parts':[{'text':'a'}]}}]}"), s.e);
    assert_false(feed(&s, "{'error':{'code':503,'message':'Overloaded.','status':'UNAVAILABLE'}}"));
    assert_int_equal(s.e.code, ERR_UPSTREAM);
    assert_says(s.e, "Overloaded.");
    assert_false(answer_complete(&s.grown));
    close_stream(&s);

    s = open_stream();
    assert_ok(feed(&s, "{'usageMetadata':{'promptTokenCount':5}}"), s.e);
    assert_int_equal(s.grown.n_choices, 0);
    assert_int_equal(s.last.prompt, 5);
    assert_false(feed(&s, "[DONE]"));
    assert_false(feed(&s, "{'candidates':[{'index':128}]}"));
    close_stream(&s);
}

/* ---- embeddings ---- */

static void embeddings(void **state) {
    (void)state;
    char  *body = quoted("{'embeddings':[{'values':[0.6,-0.8]},{'shape':[2],'values':[6e-1, 8e-1]}],"
                          "'usageMetadata':{'promptTokenCount':4}}");
    answer a;
    err    e = {0};
    assert_ok(dialect_gemini.read_answer(REQUEST_EMBEDDINGS, body, strlen(body), &a, &e), e);
    assert_json(a.raw, "{'object':'list','data':[{'object':'embedding','index':0,'embedding':[0.6,-0.8]},"
                       "{'object':'embedding','index':1,'embedding':[0.6,0.8]}],'model':'','usage':{'prompt_tokens':4,"
                       "'total_tokens':4}}");
    assert_ptr_equal(a.raw_dialect, &dialect_openai);
    assert_true(a.usage.known);
    assert_int_equal(a.usage.prompt, 4);
    answer_clear(&a);
    free(body);
    refused(REQUEST_EMBEDDINGS, "{'embeddings':[{}]}", "embeddings");
    refused(REQUEST_EMBEDDINGS, "{'embeddings':[{'values':[1,true]}]}", "embeddings");
    refused(REQUEST_EMBEDDINGS, "{'embeddings':[{'values':[1]}", "embeddings");
    refused(REQUEST_EMBEDDINGS, "{'error':{'code':400,'message':'Too long.'}}", "Too long.");
}

/* A vector that was cut gets length 1 again; one that has it keeps its digits. */
static void cut_vectors(void **state) {
    (void)state;
    enum { WIDTH = 256 };
    uint64_t seed = 3;
    double   values[WIDTH], sum = 0;
    str      body = {0};
    str_adds(&body, "{\"embeddings\":[{\"values\":[");
    for (int i = 0; i < WIDTH; i++) {
        values[i] = ((double)(test_random(&seed) % 2000001) - 1000000) / 3e7;
        char text[40];
        snprintf(text, sizeof text, "%.9g", values[i]);
        values[i] = strtod(text, NULL);
        sum += values[i] * values[i];
        str_addf(&body, "%s%s", i ? "," : "", text);
    }
    str_adds(&body, "]}]}");
    answer a;
    err    e = {0};
    assert_ok(dialect_gemini.read_answer(REQUEST_EMBEDDINGS, body.data, body.len, &a, &e), e);
    assert_false(a.usage.known);
    cJSON       *tree = cJSON_Parse(a.raw);
    const cJSON *vector = cJSON_GetObjectItem(cJSON_GetObjectItem(tree, "data")->child, "embedding"), *x;
    int          i = 0;
    assert_int_equal(cJSON_GetArraySize(vector), WIDTH);
    cJSON_ArrayForEach(x, vector) {
        assert_true(fabs(x->valuedouble - values[i] / sqrt(sum)) < 1e-11);
        i++;
    }
    cJSON_Delete(tree);
    answer_clear(&a);
    str_free(&body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_thoughts_and_usage),
        cmocka_unit_test(calls),
        cmocka_unit_test(reasons),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(odd_answers),
        cmocka_unit_test(a_stream),
        cmocka_unit_test(streams_that_end_otherwise),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(cut_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
