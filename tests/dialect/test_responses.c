/* OpenAI's responses: requests become the neutral form, answers and streams become items and events. */
#include "check.h"

#include "base/clock.h"
#include "dialect/responses.h"

typedef struct bed {
    arena  *memory;
    request r;
    err     e;
} bed;

static bool read_into(bed *b, const char *body) {
    *b = (bed){.memory = arena_new(4096)};
    assert_non_null(b->memory);
    return dialect_responses.read_request(REQUEST_CHAT, body, strlen(body), b->memory, &b->r, &b->e);
}

static void done(bed *b) {
    request_free(&b->r);
    arena_free(b->memory);
}

static char *member_of(const bed *b, const char *key) {
    str text = {0};
    json_write(cJSON_GetObjectItemCaseSensitive(b->r.body, key), &text);
    return str_take(&text);
}

/* The member of the neutral body, which the request becomes. */
static void becomes(const char *body, const char *key, const char *wanted) {
    bed b;
    if (!read_into(&b, body)) {
        fail_msg("%s: %s", body, b.e.text);
    }
    char *have = member_of(&b, key);
    assert_non_null(have);
    assert_string_equal(have, wanted);
    free(have);
    done(&b);
}

static void lacks(const char *body, const char *key) {
    bed b;
    assert_ok(read_into(&b, body), b.e);
    assert_false(cJSON_HasObjectItem(b.r.body, key));
    done(&b);
}

static void refused(const char *body, const char *param, const char *part) {
    bed b;
    if (read_into(&b, body)) {
        fail_msg("accepted: %s", body);
    }
    assert_string_equal(b.e.param, param);
    assert_says(b.e, part);
    assert_null(b.r.body);
    assert_null(b.r.client);
    str json = {0};
    assert_true(dialect_responses.write_error(&b.e, 400, &json));
    str_free(&json);
    done(&b);
}

#define ASK(rest) "{\"model\":\"m\",\"input\":\"hi\"," rest "}"
#define IN(items) "{\"model\":\"m\",\"input\":[" items "]}"

static void test_text_is_a_message(void **state) {
    (void)state;
    becomes("{\"model\":\"m\",\"input\":\"hi\"}", "messages", "[{\"role\":\"user\",\"content\":\"hi\"}]");
    becomes(ASK("\"instructions\":\"be brief\""), "messages",
            "[{\"role\":\"system\",\"content\":\"be brief\"},{\"role\":\"user\",\"content\":\"hi\"}]");
    bed b;
    assert_ok(read_into(&b, "{\"model\":\"m\",\"input\":\"hi\"}"), b.e);
    assert_int_equal(b.r.n_messages, 1);
    assert_true(b.r.messages[0].plain);
    assert_string_equal(b.r.model, "m");
    assert_true(b.r.keep);
    assert_null(b.r.previous);
    assert_ptr_equal(b.r.from, &dialect_responses);
    assert_non_null(b.r.client);
    done(&b);
}

static void test_messages(void **state) {
    (void)state;
    becomes(
        IN("{\"role\":\"developer\",\"content\":\"d\"},{\"type\":\"message\",\"role\":\"user\",\"content\":"
           "[{\"type\":\"input_text\",\"text\":\"look\"},{\"type\":\"input_image\",\"detail\":\"low\",\"image_url\":"
           "\"data:image/png;base64,AAAA\"},{\"type\":\"input_file\",\"filename\":\"a.pdf\",\"file_data\":\"data:x\"}"
           ",{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AA\",\"format\":\"wav\"}}]}"),
        "messages",
        "[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
        "\"look\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AAAA\",\"detail\":\"low\"}},"
        "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":\"data:x\"}},{\"type\":\"input_audio\","
        "\"input_audio\":{\"data\":\"AA\",\"format\":\"wav\"}}]}]");
    /* One text by itself is a string; with a mark for the cache it is a part. */
    becomes(IN("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\"}]}"), "messages",
            "[{\"role\":\"user\",\"content\":\"a\"}]");
    becomes(IN("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"a\",\"cache_control\":{\"type\":"
               "\"ephemeral\"}}]}"),
            "messages",
            "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":"
            "\"ephemeral\"}}]}]");
    becomes(
        IN("{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"completed\",\"role\":\"assistant\",\"content\":"
           "[{\"type\":\"output_text\",\"text\":\"x\",\"annotations\":[]}]},{\"role\":\"assistant\",\"content\":"
           "[{\"type\":\"refusal\",\"refusal\":\"no\"}]},{\"role\":\"user\",\"content\":\"y\"}"),
        "messages",
        "[{\"role\":\"assistant\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"no\"},{\"role\":\"user\","
        "\"content\":\"y\"}]");
}

#define FC(id)   "{\"type\":\"function_call\",\"call_id\":\"" id "\",\"name\":\"f\",\"arguments\":\"{}\"}"
#define FCO(id)  "{\"type\":\"function_call_output\",\"call_id\":\"" id "\",\"output\":\"r\"}"
#define TC(id)   "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"
#define TOOL(id) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"r\"}"

static void test_calls_and_reasoning(void **state) {
    (void)state;
    becomes(
        IN("{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"a\"},{\"type\":"
           "\"summary_text\",\"text\":\"b\"}],\"encrypted_content\":\"sig\"},{\"role\":\"assistant\",\"content\":"
           "\"now\"}," FC("1") "," FC("2") "," FCO("1") "," FCO("2") "," FC("3") "," FCO("3")),
        "messages",
        "[{\"role\":\"assistant\",\"reasoning_content\":\"a\\n\\nb\",\"reasoning_signature\":\"sig\",\"content\":"
        "\"now\",\"tool_calls\":[" TC("1") "," TC("2") "]}," TOOL("1") "," TOOL(
            "2") ",{\"role\":\"assistant\","
                 "\"tool_calls\":[" TC("3") "],\"content\":null}," TOOL("3") "]");
    /* Words between a call and its output stay in the message of the call. */
    becomes(IN("{\"role\":\"assistant\",\"content\":\"a\"}," FC("1") ",{\"role\":\"assistant\",\"content\":\"b\"}," FCO(
                "1")),
            "messages",
            "[{\"role\":\"assistant\",\"tool_calls\":[" TC("1") "],\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                                                                "{\"type\":\"text\",\"text\":\"b\"}]}," TOOL("1") "]");
    /* Reasoning by its id alone says nothing; the reasoning itself goes before its summary. */
    becomes(IN("{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[]},{\"role\":\"user\",\"content\":\"a\"}"),
            "messages", "[{\"role\":\"user\",\"content\":\"a\"}]");
    becomes(
        IN("{\"type\":\"reasoning\",\"summary\":[{\"text\":\"s\"}],\"content\":[{\"type\":\"reasoning_text\",\"text\":"
           "\"whole\"}]},{\"role\":\"assistant\",\"content\":\"a\"}"),
        "messages", "[{\"role\":\"assistant\",\"reasoning_content\":\"whole\",\"content\":\"a\"}]");
    becomes(
        IN("{\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":[{\"type\":\"input_text\",\"text\":\"t\"},"
           "{\"type\":\"input_image\",\"image_url\":\"http://x\"}]}"),
        "messages",
        "[{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":[{\"type\":\"text\",\"text\":\"t\"},{\"type\":"
        "\"image_url\",\"image_url\":{\"url\":\"http://x\"}}]}]");
}

/* Very many words behind a call take no longer than they are long. */
static void test_many_words_behind_a_call(void **state) {
    (void)state;
    bed b;
    str body = {0};
    str_adds(&body,
             "{\"model\":\"m\",\"input\":[{\"role\":\"assistant\",\"content\":\"a\"},{\"type\":\"function_call\","
             "\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"}");
    for (int i = 0; i < 80000; i++) {
        str_adds(&body, ",{\"role\":\"assistant\",\"content\":\"b\"}");
    }
    str_adds(&body, "]}");
    int64_t begun = clock_us();
    assert_ok(read_into(&b, body.data), b.e);
    assert_true(clock_us() - begun < 10 * 1000000); /* all of them for each would be minutes */
    assert_int_equal(b.r.n_messages, 1);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(b.r.messages[0].json, "content")), 80001);
    done(&b);
    str_free(&body);
    becomes(
        IN("{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"a\"},"
           "{\"type\":\"output_text\",\"text\":\"b\"}]},{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\","
           "\"arguments\":\"{}\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"d\"},"
           "{\"type\":\"output_text\",\"text\":\"e\"}]},{\"role\":\"assistant\",\"content\":\"f\"}"),
        "messages",
        "[{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"},"
        "{\"type\":\"text\",\"text\":\"d\"},{\"type\":\"text\",\"text\":\"e\"},{\"type\":\"text\",\"text\":\"f\"}],"
        "\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]");
}

/* Some servers give calls no ids: the client gets some to name them by. */
static void test_calls_without_ids(void **state) {
    (void)state;
    static const char body[] =
        "{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{}\"}},{\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":"
        "\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}";
    bed    b;
    answer a;
    str    json = {0}, input = {0};
    assert_ok(read_into(&b, "{\"model\":\"m\",\"input\":\"hi\"}"), b.e);
    assert_ok(dialect_openai.read_answer(REQUEST_CHAT, body, sizeof body - 1, &a, &b.e), b.e);
    assert_true(dialect_responses.write_answer(&b.r, &a, &json));
    cJSON       *tree = json_parse(json.data, json.len, 20, &b.e);
    const cJSON *output = cJSON_GetObjectItem(tree, "output");
    const char  *first = cJSON_GetStringValue(cJSON_GetObjectItem(output->child, "call_id"));
    const char  *second = cJSON_GetStringValue(cJSON_GetObjectItem(output->child->next, "call_id"));
    assert_true(first[0] && second[0]);
    assert_string_not_equal(first, second);
    str_adds(&input, "{\"model\":\"m\",\"input\":");
    json_write(output, &input);
    str_addc(&input, '}');
    done(&b);
    assert_ok(read_into(&b, input.data), b.e); /* what was told is taken back */
    done(&b);
    cJSON_Delete(tree);
    answer_clear(&a);
    str_free(&json);
    str_free(&input);
}

static void test_parameters(void **state) {
    (void)state;
    becomes(ASK("\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"
                "\"object\"},\"strict\":true},{\"type\":\"web_search\"}]"),
            "tools",
            "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"
            "\"object\"},\"strict\":true}},{\"type\":\"web_search\"}]");
    becomes(ASK("\"tool_choice\":\"required\""), "tool_choice", "\"required\"");
    becomes(ASK("\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"}"), "tool_choice",
            "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}");
    becomes(ASK("\"max_output_tokens\":7"), "max_completion_tokens", "7");
    becomes(ASK("\"reasoning\":{\"effort\":\"low\",\"summary\":\"auto\"}"), "reasoning_effort", "\"low\"");
    becomes(ASK("\"text\":{\"verbosity\":\"low\"}"), "verbosity", "\"low\"");
    becomes(ASK("\"text\":{\"format\":{\"type\":\"json_object\"}}"), "response_format", "{\"type\":\"json_object\"}");
    becomes(
        ASK("\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\",\"strict\":true,\"schema\":{\"type\":"
            "\"object\"}}}"),
        "response_format",
        "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{\"type\":\"object\"},\"strict\":true}}");
    lacks(ASK("\"text\":{\"format\":{\"type\":\"text\"}}"), "response_format");
    becomes(ASK("\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":3"), "top_logprobs", "3");
    becomes(ASK("\"include\":[\"message.output_text.logprobs\"]"), "logprobs", "true");
    becomes(ASK("\"metadata\":{\"a\":\"b\"}"), "metadata", "{\"a\":\"b\"}");
    becomes(ASK("\"top_k\":4,\"x\":[1]"), "x", "[1]"); /* unknown members pass on */
    lacks(ASK("\"store\":false"), "store");
    lacks(ASK("\"previous_response_id\":\"resp_1\""), "previous_response_id");
    bed b;
    assert_ok(
        read_into(&b, ASK("\"store\":false,\"previous_response_id\":\"resp_1\",\"stream\":true,\"temperature\":0.5,"
                          "\"max_output_tokens\":9,\"truncation\":\"auto\"")),
        b.e);
    assert_false(b.r.keep);
    assert_string_equal(b.r.previous, "resp_1");
    assert_true(b.r.stream);
    assert_true(b.r.include_usage);
    assert_true(b.r.temperature == 0.5);
    assert_int_equal(b.r.max_tokens, 9);
    done(&b);
}

static void test_local_members(void **state) {
    (void)state;
    bed b;
    assert_ok(
        read_into(&b, ASK("\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}],"
                          "\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"},\"parallel_tool_calls\":false")),
        b.e);
    assert_ok(dialect_responses.read_local(&b.r, &b.e), b.e);
    assert_int_equal(b.r.choice, TOOLS_NAMED);
    assert_string_equal(b.r.tool, "f");
    assert_true(b.r.one_tool);
    done(&b);
    assert_ok(read_into(&b, ASK("\"tools\":[{\"type\":\"web_search\"}]")), b.e);
    assert_false(dialect_responses.read_local(&b.r, &b.e));
    assert_says(b.e, "web_search");
    done(&b);
}

static void test_same_key_as_chat(void **state) {
    (void)state;
    bed         b;
    str         ours = {0}, chats = {0};
    request     chat;
    const char *body = "{\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\","
                       "\"content\":\"hi\"}],\"model\":\"m\",\"response_format\":{\"type\":\"json_object\"}}";
    assert_ok(read_into(&b, ASK("\"instructions\":\"s\",\"max_output_tokens\":5,\"store\":true,\"text\":{\"format\":"
                                "{\"type\":\"json_object\"}}")),
              b.e);
    assert_ok(dialect_openai.read_request(REQUEST_CHAT, body, strlen(body), b.memory, &chat, &b.e), b.e);
    assert_true(dialect_responses.canonical(&b.r, &ours));
    assert_true(dialect_openai.canonical(&chat, &chats));
    assert_string_equal(ours.data, chats.data);
    request_free(&chat);
    str_free(&ours);
    str_free(&chats);
    done(&b);
}

static void test_refusals(void **state) {
    (void)state;
    refused("[]", "", "JSON object");
    refused("{", "", "");
    refused("{\"model\":\"m\"}", "input", "missing");
    refused("{\"input\":\"a\"}", "model", "missing");
    refused("{\"model\":\"m\",\"input\":[]}", "input", "empty");
    refused("{\"model\":\"m\",\"input\":7}", "input", "a number");
    refused(IN("7"), "input[0]", "an object");
    refused(IN("{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"item_reference\",\"id\":\"msg_1\"}"), "input[1].type",
            "item_reference");
    refused(IN("{\"id\":\"msg_1\"}"), "input[0].type", "item_reference");
    refused(IN("{\"type\":\"web_search_call\",\"id\":\"x\"}"), "input[0].type", "web_search_call");
    refused(IN("{\"role\":\"tool\",\"content\":\"a\"}"), "input[0].role", "tool");
    refused(IN("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\"}]}"), "input[0].content[0].text", "missing");
    refused(IN("{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}"), "input[0].content[0].type", "video");
    refused(IN("{\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"file_id\":\"f\"}]}"),
            "input[0].content[0].file_id", "no files");
    refused(IN("{\"role\":\"user\",\"content\":[{\"type\":\"input_file\",\"file_url\":\"f\"}]}"),
            "input[0].content[0].file_url", "file_data");
    refused(IN("{\"type\":\"function_call\",\"name\":\"f\",\"arguments\":\"\"}"), "input[0].call_id", "missing");
    refused(IN("{\"type\":\"function_call_output\",\"call_id\":\"1\"}"), "input[0].output", "missing");
    refused(IN("{\"type\":\"reasoning\",\"summary\":[1]}"), "input[0].summary[0].text", "string");
    refused(ASK("\"background\":true"), "background", "background");
    refused(ASK("\"conversation\":\"conv_1\""), "conversation", "previous_response_id");
    refused(ASK("\"prompt\":{\"id\":\"p\"}"), "prompt", "instructions");
    refused(ASK("\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[]}"), "tool_choice.type",
            "allowed_tools");
    refused(ASK("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"), "tools[0].name", "missing");
    refused(ASK("\"messages\":[]"), "messages", "input");
    refused(ASK("\"max_tokens\":5"), "max_tokens", "max_output_tokens");
    refused(ASK("\"max_output_tokens\":0"), "max_output_tokens", "");
    refused(ASK("\"n\":2"), "n", "one answer");
    refused(ASK("\"include\":[\"all\"]"), "include", "all");
    refused(ASK("\"truncation\":\"some\""), "truncation", "disabled");
    refused(ASK("\"text\":{\"format\":{\"type\":\"xml\"}}"), "text.format.type", "json_schema");
    refused(ASK("\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\"}}"), "text.format.schema", "missing");
    refused(ASK("\"previous_response_id\":\"\""), "previous_response_id", "id of an answer");
    refused(ASK("\"store\":\"yes\""), "store", "");
    refused(ASK("\"temperature\":3"), "temperature", "");
}

/* ---- answers ---- */

static void add(answer *a, event ev) {
    err e = {0};
    ev.kind = EVENT_DELTA;
    ev.text_len = ev.text ? strlen(ev.text) : 0;
    ev.reasoning_len = ev.reasoning ? strlen(ev.reasoning) : 0;
    ev.refusal_len = ev.refusal ? strlen(ev.refusal) : 0;
    ev.signature_len = ev.signature ? strlen(ev.signature) : 0;
    assert_ok(answer_add(a, &ev, &e), e);
}

static void start(answer *a) {
    *a = (answer){.created = 17};
    strcpy(a->id, "chatcmpl-abc");
    strcpy(a->model, "m");
}

static cJSON *calls(const char *json) {
    err    e = {0};
    cJSON *tree = json_parse(json, strlen(json), 16, &e);
    assert_ok(tree, e);
    return tree;
}

static cJSON *written(const bed *b, const answer *a) {
    str out = {0};
    err e = {0};
    assert_true(dialect_responses.write_answer(&b->r, a, &out));
    cJSON *tree = json_parse(out.data, out.len, JSON_MAX_DEPTH, &e);
    assert_ok(tree, e);
    str_free(&out);
    return tree;
}

static void has(const cJSON *object, const char *key, const char *wanted) {
    str text = {0};
    json_write(cJSON_GetObjectItemCaseSensitive(object, key), &text);
    assert_non_null(text.data);
    assert_string_equal(text.data, wanted);
    str_free(&text);
}

static void test_whole_answer(void **state) {
    (void)state;
    bed    b;
    answer a;
    assert_ok(read_into(&b, ASK("\"instructions\":\"s\",\"metadata\":{\"k\":\"v\"},\"temperature\":0.5,\"text\":"
                                "{\"verbosity\":\"low\"},\"previous_response_id\":\"resp_0\"")),
              b.e);
    start(&a);
    cJSON *tool_calls = calls("[{\"index\":0,\"id\":\"call_1\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]");
    usage  u = {.prompt = 5, .cached = 2, .completion = 7, .reasoning = 3, .known = true};
    add(&a, (event){.reasoning = "hm", .signature = "sig"});
    add(&a, (event){.text = "hello"});
    add(&a, (event){.tool_calls = tool_calls, .finish = "tool_calls", .usage = &u});
    cJSON *tree = written(&b, &a);
    has(tree, "id", "\"resp_abc\"");
    has(tree, "object", "\"response\"");
    has(tree, "created_at", "17");
    has(tree, "status", "\"completed\"");
    has(tree, "error", "null");
    has(tree, "incomplete_details", "null");
    has(tree, "instructions", "\"s\"");
    has(tree, "metadata", "{\"k\":\"v\"}");
    has(tree, "temperature", "0.5");
    has(tree, "top_p", "1");
    has(tree, "store", "true");
    has(tree, "previous_response_id", "\"resp_0\"");
    has(tree, "text", "{\"format\":{\"type\":\"text\"},\"verbosity\":\"low\"}");
    has(tree, "output",
        "[{\"id\":\"rs_abc000\",\"type\":\"reasoning\",\"status\":\"completed\",\"summary\":[{\"type\":\"summary_"
        "text\","
        "\"text\":\"hm\"}],\"encrypted_content\":\"sig\"},{\"id\":\"msg_abc001\",\"type\":\"message\",\"status\":"
        "\"completed\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"hello\","
        "\"annotations\":"
        "[],\"logprobs\":[]}]},{\"id\":\"fc_abc002\",\"type\":\"function_call\",\"status\":\"completed\",\"call_id\":"
        "\"call_1\",\"name\":\"f\",\"arguments\":\"{}\"}]");
    has(tree, "usage",
        "{\"input_tokens\":5,\"input_tokens_details\":{\"cached_tokens\":2},\"output_tokens\":7,\"output_tokens_"
        "details\":"
        "{\"reasoning_tokens\":3},\"total_tokens\":12}");
    cJSON_Delete(tree);
    cJSON_Delete(tool_calls);
    b.r.answer_id = "resp_other";
    tree = written(&b, &a);
    has(tree, "id", "\"resp_other\"");
    cJSON_Delete(tree);
    answer_clear(&a);
    done(&b);
}

static void test_cut_and_odd_answers(void **state) {
    (void)state;
    bed    b;
    answer a;
    assert_ok(read_into(&b, "{\"model\":\"m\",\"input\":\"hi\"}"), b.e);
    start(&a);
    add(&a, (event){.text = "hel", .finish = "length"});
    cJSON *tree = written(&b, &a);
    has(tree, "status", "\"incomplete\"");
    has(tree, "incomplete_details", "{\"reason\":\"max_output_tokens\"}");
    has(tree, "usage", "null");
    has(cJSON_GetObjectItem(tree, "output")->child, "status", "\"incomplete\"");
    cJSON_Delete(tree);
    answer_clear(&a);
    start(&a);
    add(&a, (event){.refusal = "no", .finish = "stop"});
    tree = written(&b, &a);
    has(cJSON_GetObjectItem(tree, "output")->child, "content", "[{\"type\":\"refusal\",\"refusal\":\"no\"}]");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "output")), 1);
    cJSON_Delete(tree);
    answer_clear(&a);
    start(&a);
    add(&a, (event){.text = "", .finish = "stop"}); /* without a word: an empty message */
    tree = written(&b, &a);
    has(cJSON_GetObjectItem(tree, "output")->child, "content",
        "[{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[],\"logprobs\":[]}]");
    cJSON_Delete(tree);
    answer_clear(&a);
    start(&a);
    strcpy(a.id, "\"},x\\"); /* a provider's id is not trusted */
    add(&a, (event){.text = "t", .finish = "content_filter"});
    tree = written(&b, &a);
    has(tree, "incomplete_details", "{\"reason\":\"content_filter\"}");
    cJSON_Delete(tree);
    answer_clear(&a);
    done(&b);
}

/* ---- streams ---- */

typedef struct stream {
    bed    b;
    answer a;
    void  *state;
    str    out;
} stream;

static void stream_open(stream *s, const char *body) {
    *s = (stream){0};
    assert_ok(read_into(&s->b, body), s->b.e);
    start(&s->a);
    s->state = calloc(1, dialect_responses.writing);
}

static void say(stream *s, event ev) {
    add(&s->a, ev);
    ev.kind = EVENT_DELTA;
    assert_true(dialect_responses.write_event(&s->b.r, s->state, &s->a, &ev, &s->out));
}

static void stream_close(stream *s) {
    answer_clear(&s->a);
    str_free(&s->out);
    free(s->state);
    done(&s->b);
}

/* The events' data as an array, after checking frames and sequence numbers. */
static cJSON *events_of(const stream *s) {
    cJSON *all = cJSON_CreateArray();
    for (const char *at = s->out.data; at && *at;) {
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        while (*at == ':') {
            at = strchr(at, '\n') + 1;
        }
        const char *data = strstr(at, "\ndata: ");
        assert_true(strncmp(at, "event: ", 7) == 0 && data && data < end);
        err    e = {0};
        cJSON *tree = json_parse(data + 7, (size_t)(end - data - 7), JSON_MAX_DEPTH, &e);
        assert_ok(tree, e);
        const char *type = cJSON_GetObjectItem(tree, "type")->valuestring;
        assert_int_equal(strlen(type), data - at - 7);
        assert_memory_equal(type, at + 7, strlen(type));
        assert_int_equal(cJSON_GetObjectItem(tree, "sequence_number")->valueint, cJSON_GetArraySize(all));
        cJSON_AddItemToArray(all, tree);
        at = end + 2;
    }
    return all;
}

static void types_are(const cJSON *all, const char *wanted) {
    str          have = {0};
    const cJSON *ev;
    cJSON_ArrayForEach(ev, all) {
        const char *type = cJSON_GetObjectItem(ev, "type")->valuestring;
        str_addf(&have, "%s%s", have.len ? " " : "", strncmp(type, "response.", 9) == 0 ? type + 9 : type);
    }
    assert_string_equal(have.data, wanted);
    str_free(&have);
}

static const cJSON *last_of(const cJSON *all) {
    return all->child->prev;
}

/* A follower of the stream that knows nothing but the events, as the official client does it: its items must come out as
 * the last event has them. */
static void follow(const cJSON *all) {
    const cJSON *ev, *final = cJSON_GetObjectItem(cJSON_GetObjectItem(last_of(all), "response"), "output");
    str          texts[8] = {{0}};
    int          items = 0;
    cJSON_ArrayForEach(ev, all) {
        const char  *type = cJSON_GetObjectItem(ev, "type")->valuestring;
        const cJSON *index = cJSON_GetObjectItem(ev, "output_index");
        if (strcmp(type, "response.output_item.added") == 0) {
            assert_int_equal(index->valueint, items++);
        } else if (strstr(type, ".delta")) {
            assert_true(index->valueint < items && items <= 8);
            str_adds(&texts[index->valueint], cJSON_GetObjectItem(ev, "delta")->valuestring);
        } else if (strcmp(type, "response.output_item.done") == 0) {
            assert_true(
                cJSON_Compare(cJSON_GetObjectItem(ev, "item"), cJSON_GetArrayItem(final, index->valueint), true));
        }
    }
    assert_int_equal(cJSON_GetArraySize(final), items);
    for (int i = 0; i < items; i++) {
        str all_of_it = {0};
        json_write(cJSON_GetArrayItem(final, i), &all_of_it);
        str quoted = {0};
        str_json(&quoted, texts[i].data ? texts[i].data : "", texts[i].len);
        assert_true(texts[i].len == 0 || strstr(all_of_it.data, quoted.data));
        str_free(&all_of_it);
        str_free(&quoted);
        str_free(&texts[i]);
    }
}

static void test_stream_of_text(void **state) {
    (void)state;
    stream s;
    stream_open(&s, ASK("\"stream\":true"));
    say(&s, (event){.text = "hel"});
    say(&s, (event){.text = "lo"});
    usage u = {.prompt = 5, .completion = 7, .known = true};
    say(&s, (event){.finish = "stop", .usage = &u});
    assert_true(dialect_responses.write_end(&s.b.r, s.state, &s.a, false, ": x-pare-cost-usd 0\n", &s.out));
    assert_non_null(strstr(s.out.data, "\n\n: x-pare-cost-usd 0\nevent: response.completed\n"));
    cJSON *all = events_of(&s);
    types_are(all, "created in_progress output_item.added content_part.added output_text.delta output_text.delta "
                   "output_text.done content_part.done output_item.done completed");
    follow(all);
    has(cJSON_GetObjectItem(all->child, "response"), "status", "\"in_progress\"");
    has(cJSON_GetObjectItem(all->child, "response"), "output", "[]");
    has(cJSON_GetArrayItem(all, 6), "text", "\"hello\"");
    /* What the stream ends with is what a whole answer is. */
    cJSON *whole = written(&s.b, &s.a);
    assert_true(cJSON_Compare(whole, cJSON_GetObjectItem(last_of(all), "response"), true));
    cJSON_Delete(whole);
    cJSON_Delete(all);
    stream_close(&s);
}

static void test_stream_of_calls(void **state) {
    (void)state;
    stream s;
    stream_open(&s, ASK("\"stream\":true"));
    cJSON *one = calls("[{\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]");
    cJSON *two = calls("[{\"index\":1,\"id\":\"c2\",\"function\":{\"name\":\"g\",\"arguments\":\"{\"}}]");
    cJSON *more = calls("[{\"index\":0,\"function\":{\"arguments\":\"{}\"}},{\"index\":1,\"function\":{\"arguments\":"
                        "\"}\"}}]");
    say(&s, (event){.reasoning = "think"});
    say(&s, (event){.signature = "sig"});
    say(&s, (event){.text = "ok"});
    say(&s, (event){.tool_calls = one});
    say(&s, (event){.tool_calls = two});
    say(&s, (event){.tool_calls = more, .finish = "tool_calls"});
    assert_true(dialect_responses.write_end(&s.b.r, s.state, &s.a, false, "", &s.out));
    cJSON *all = events_of(&s);
    types_are(all, "created in_progress output_item.added reasoning_summary_part.added reasoning_summary_text.delta "
                   "reasoning_summary_text.done reasoning_summary_part.done output_item.done output_item.added "
                   "content_part.added output_text.delta output_text.done content_part.done output_item.done "
                   "output_item.added output_item.added function_call_arguments.delta function_call_arguments.delta "
                   "function_call_arguments.delta function_call_arguments.done output_item.done "
                   "function_call_arguments.done output_item.done completed");
    follow(all);
    cJSON *whole = written(&s.b, &s.a);
    assert_true(cJSON_Compare(whole, cJSON_GetObjectItem(last_of(all), "response"), true));
    cJSON_Delete(whole);
    cJSON_Delete(all);
    cJSON_Delete(one);
    cJSON_Delete(two);
    cJSON_Delete(more);
    stream_close(&s);
}

/* Reasoning and text that take turns are an item each time, and nothing is said twice or lost. */
static void test_stream_takes_turns(void **state) {
    (void)state;
    stream s;
    stream_open(&s, ASK("\"stream\":true"));
    say(&s, (event){.reasoning = "r1"});
    say(&s, (event){.text = "t1"});
    say(&s, (event){.reasoning = "r2"});
    say(&s, (event){.text = "t2", .finish = "length"});
    assert_true(dialect_responses.write_end(&s.b.r, s.state, &s.a, false, "", &s.out));
    cJSON *all = events_of(&s);
    follow(all);
    const cJSON *output = cJSON_GetObjectItem(cJSON_GetObjectItem(last_of(all), "response"), "output");
    assert_int_equal(cJSON_GetArraySize(output), 4);
    has(last_of(all), "type", "\"response.incomplete\"");
    has(cJSON_GetArrayItem(output, 2), "summary", "[{\"type\":\"summary_text\",\"text\":\"r2\"}]");
    has(cJSON_GetArrayItem(output, 3), "status", "\"incomplete\"");
    cJSON_Delete(all);
    stream_close(&s);
    /* Very many turns: from some point on the stretches stay open together. */
    stream_open(&s, ASK("\"stream\":true"));
    for (int i = 0; i < 1000; i++) {
        say(&s, i % 2 ? (event){.text = "t"} : (event){.reasoning = "r"});
    }
    assert_true(dialect_responses.write_end(&s.b.r, s.state, &s.a, false, "", &s.out));
    all = events_of(&s);
    const cJSON *item;
    size_t       texts = 0, thoughts = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(cJSON_GetObjectItem(last_of(all), "response"), "output")) {
        const cJSON *content = cJSON_GetObjectItem(item, "content"), *summary = cJSON_GetObjectItem(item, "summary");
        texts += content ? strlen(cJSON_GetObjectItem(content->child, "text")->valuestring) : 0;
        thoughts += summary ? strlen(cJSON_GetObjectItem(summary->child, "text")->valuestring) : 0;
    }
    assert_int_equal(texts, 500);
    assert_int_equal(thoughts, 500);
    cJSON_Delete(all);
    stream_close(&s);
}

static void test_stream_of_logprobs_and_refusal(void **state) {
    (void)state;
    stream s;
    stream_open(&s, ASK("\"stream\":true"));
    cJSON *probs = calls("[{\"token\":\"a\",\"logprob\":-1,\"bytes\":[97],\"top_logprobs\":[]}]");
    say(&s, (event){.text = "a", .logprobs = probs});
    say(&s, (event){.refusal = "no"});
    say(&s, (event){.finish = "stop"});
    assert_true(dialect_responses.write_end(&s.b.r, s.state, &s.a, false, "", &s.out));
    cJSON *all = events_of(&s);
    types_are(all, "created in_progress output_item.added content_part.added output_text.delta output_text.done "
                   "content_part.done output_item.done output_item.added content_part.added refusal.delta refusal.done "
                   "content_part.done output_item.done completed");
    has(cJSON_GetArrayItem(all, 4), "logprobs",
        "[{\"token\":\"a\",\"logprob\":-1,\"bytes\":[97],\"top_logprobs\":[]}]");
    has(cJSON_GetArrayItem(all, 5), "logprobs",
        "[{\"token\":\"a\",\"logprob\":-1,\"bytes\":[97],\"top_logprobs\":[]}]");
    cJSON_Delete(all);
    cJSON_Delete(probs);
    stream_close(&s);
}

static void test_empty_and_broken_streams(void **state) {
    (void)state;
    stream s;
    stream_open(&s, ASK("\"stream\":true"));
    say(&s, (event){.finish = "stop"});
    assert_true(dialect_responses.write_end(&s.b.r, s.state, &s.a, false, "", &s.out));
    cJSON *all = events_of(&s);
    types_are(all, "created in_progress output_item.added content_part.added output_text.done content_part.done "
                   "output_item.done completed");
    cJSON_Delete(all);
    stream_close(&s);
    stream_open(&s, ASK("\"stream\":true"));
    say(&s, (event){.text = "hel"});
    err why = {0};
    err_set(&why, ERR_UPSTREAM, "The provider \"p\" went away.");
    assert_true(dialect_responses.write_break(&s.b.r, s.state, &why, 502, &s.out));
    all = events_of(&s);
    types_are(all, "created in_progress output_item.added content_part.added output_text.delta failed error");
    const cJSON *failed = cJSON_GetObjectItem(cJSON_GetArrayItem(all, 5), "response");
    has(failed, "status", "\"failed\"");
    has(failed, "id", "\"resp_abc\"");
    has(failed, "error", "{\"code\":\"server_error\",\"message\":\"The provider \\\"p\\\" went away.\"}");
    has(last_of(all), "message", "\"The provider \\\"p\\\" went away.\"");
    cJSON_Delete(all);
    stream_close(&s);
}

/* ---- conversations ---- */

static void test_join(void **state) {
    (void)state;
    bed         b;
    const char *before = "[[{\"type\":\"message\",\"id\":\"m\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\","
                         "\"text\":\"one\"}]}],[{\"type\":\"reasoning\",\"id\":\"r\",\"summary\":[{\"type\":"
                         "\"summary_text\",\"text\":\"hm\"}]}," FC("1") "]]";
    assert_ok(
        read_into(&b, "{\"model\":\"m\",\"instructions\":\"s\",\"input\":[" FCO(
                          "1") "],\"tools\":[{\"type\":"
                               "\"function\",\"name\":\"f\"}],\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"}}"),
        b.e);
    assert_ok(dialect_responses.read_local(&b.r, &b.e), b.e);
    str input = {0};
    assert_true(responses_input(&b.r, &input));
    assert_string_equal(input.data,
                        "[{\"id\":\"fco_i000\",\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":"
                        "\"r\"}]");
    str_free(&input);
    assert_ok(responses_join(&b.r, before, strlen(before), b.memory, &b.e), b.e);
    char *have = member_of(&b, "messages");
    assert_string_equal(
        have,
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"one\"},{\"role\":"
        "\"assistant\",\"reasoning_content\":\"hm\",\"tool_calls\":[" TC("1") "],\"content\":null}," TOOL("1") "]");
    free(have);
    assert_int_equal(b.r.n_messages, 4);
    assert_string_equal(b.r.messages[1].content, "one");
    assert_string_equal(b.r.tool, "f"); /* what was read before is still there */
    assert_int_equal(b.r.choice, TOOLS_NAMED);
    done(&b);
    static const char *const wrong[] = {"[[7]]", "[7]", "{", "[[{\"type\":\"message\",\"role\":\"user\"}]]", "\"a\""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_ok(read_into(&b, "{\"model\":\"m\",\"input\":\"hi\"}"), b.e);
        bool good = responses_join(&b.r, wrong[i], strlen(wrong[i]), b.memory, &b.e);
        assert_true(good ? i == 4 : b.e.text[0] != '\0'); /* a string has no turns in it */
        done(&b);
    }
}

static void test_input_is_kept_as_items(void **state) {
    (void)state;
    bed b;
    str input = {0};
    assert_ok(read_into(&b, "{\"model\":\"m\",\"input\":\"h\\\"i\"}"), b.e);
    b.r.answer_id = "resp_77";
    assert_true(responses_input(&b.r, &input));
    assert_string_equal(input.data,
                        "[{\"id\":\"msg_77i000\",\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":"
                        "\"input_text\",\"text\":\"h\\\"i\"}]}]");
    str_clear(&input);
    done(&b);
    assert_ok(
        read_into(&b, IN("{\"role\":\"assistant\",\"content\":\"a\"},{\"id\":\"own\",\"type\":\"message\",\"role\":"
                         "\"user\",\"content\":[]},{\"role\":\"user\",\"content\":\"x\"}")),
        b.e);
    b.r.answer_id = "resp_77";
    assert_true(responses_input(&b.r, &input));
    assert_string_equal(
        input.data,
        "[{\"id\":\"msg_77i000\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":"
        "\"output_text\",\"text\":\"a\",\"annotations\":[]}]},{\"id\":\"own\",\"type\":\"message\",\"role\":"
        "\"user\",\"content\":[]},{\"id\":\"msg_77i002\",\"type\":\"message\",\"role\":\"user\","
        "\"content\":[{\"type\":\"input_text\",\"text\":\"x\"}]}]");
    str_free(&input);
    done(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_a_message),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_calls_and_reasoning),
        cmocka_unit_test(test_many_words_behind_a_call),
        cmocka_unit_test(test_calls_without_ids),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_local_members),
        cmocka_unit_test(test_same_key_as_chat),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_whole_answer),
        cmocka_unit_test(test_cut_and_odd_answers),
        cmocka_unit_test(test_stream_of_text),
        cmocka_unit_test(test_stream_of_calls),
        cmocka_unit_test(test_stream_takes_turns),
        cmocka_unit_test(test_stream_of_logprobs_and_refusal),
        cmocka_unit_test(test_empty_and_broken_streams),
        cmocka_unit_test(test_join),
        cmocka_unit_test(test_input_is_kept_as_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
