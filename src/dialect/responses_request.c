/* responses_request.c - a request of OpenAI's responses in the neutral form, and what came before it put in front. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"
#include "dialect/responses.h"

typedef struct translation {
    builder      b;
    request     *r;
    const cJSON *from; /* the client's */
    cJSON       *body; /* grows */
    err         *e;
} translation;

static bool must_be(const char *param, const char *wanted, const cJSON *value, err *e) {
    return value ? err_at(e, ERR_INVALID, param, "%s must be %s, not %s.", param, wanted, json_kind(value))
                 : err_at(e, ERR_INVALID, param, "%s is missing: it must be %s.", param, wanted);
}

static bool is_text(const cJSON *object, const char *key, const char *text) {
    const char *value = neutral_text(object, key);
    return value && strcmp(value, text) == 0;
}

/* ---- what pare does not do ---- */

/* Members that change what is asked for in a way that no target has. */
static bool refuse_members(translation *t) {
    static const struct {
        const char *name, *advice;
    } refused[] = {
        {"conversation", "name the answer before this one with previous_response_id"},
        {"prompt", "send the prompt's text as instructions and input"},
        {"context_management", "leave it out"},
    };
    bool background = false;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (neutral_get(t->from, refused[i].name)) {
            return err_at(t->e, ERR_UNSUPPORTED, refused[i].name, "%s is not supported: %s.", refused[i].name,
                          refused[i].advice);
        }
    }
    if (!json_get_bool(t->from, "", "background", &background, t->e)) {
        return false;
    }
    return !background || err_at(t->e, ERR_UNSUPPORTED, "background",
                                 "background is not supported: leave it out and read the answer, or its stream.");
}

/* Members of chat completions that have another name here: both at once would contradict each other. */
static bool refuse_other_names(translation *t) {
    static const struct {
        const char *chats, *ours;
    } names[] = {
        {"messages", "input"},
        {"max_tokens", "max_output_tokens"},
        {"max_completion_tokens", "max_output_tokens"},
        {"response_format", "text.format"},
        {"reasoning_effort", "reasoning.effort"},
        {"verbosity", "text.verbosity"},
        {"logprobs", "include: [\"message.output_text.logprobs\"]"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (neutral_get(t->from, names[i].chats)) {
            return err_at(t->e, ERR_INVALID, names[i].chats, "%s belongs to /v1/chat/completions; here it is %s.",
                          names[i].chats, names[i].ours);
        }
    }
    double n = 1;
    if (!json_get_number(t->from, "", "n", 0, INT32_MAX, &n, t->e)) {
        return false;
    }
    return n == 1 || err_at(t->e, ERR_UNSUPPORTED, "n", "n is not supported: a response has one answer.");
}

/* "auto" lets OpenAI drop items from the middle of an input that is too long; pare never does, and says so in the
 * answer. What fits is answered alike. */
static bool check_truncation(translation *t) {
    const cJSON *truncation = neutral_get(t->from, "truncation");
    return !truncation || is_text(t->from, "truncation", "auto") || is_text(t->from, "truncation", "disabled") ||
           err_at(t->e, ERR_INVALID, "truncation", "truncation must be \"auto\" or \"disabled\".");
}

/* ---- the conversation ---- */

static bool put_input(translation *t) {
    const cJSON *input = neutral_get(t->from, "input"), *instructions = neutral_get(t->from, "instructions");
    cJSON       *messages = cJSON_CreateArray();
    build_put(&t->b, t->body, "messages", messages);
    if (instructions && !cJSON_IsString(instructions)) {
        return must_be("instructions", "a string", instructions, t->e);
    }
    if (t->b.failed || (!cJSON_IsString(input) && !cJSON_IsArray(input))) {
        return t->b.failed || must_be("input", "a string or an array of items", input, t->e);
    }
    if (instructions) {
        cJSON *message = cJSON_CreateObject();
        build_text(&t->b, message, "role", "system");
        build_give(&t->b, message, "content", instructions);
        build_append(&t->b, messages, message);
    }
    if (cJSON_IsString(input)) {
        cJSON *message = cJSON_CreateObject();
        build_text(&t->b, message, "role", "user");
        build_give(&t->b, message, "content", input);
        return build_append(&t->b, messages, message) || true;
    }
    if (!input->child) {
        return err_at(t->e, ERR_INVALID, "input", "input is empty: send at least one item.");
    }
    if (!responses_read_items(&t->b, input, "input", messages, t->e)) {
        return false;
    }
    return messages->child || err_at(t->e, ERR_INVALID, "input", "input says nothing: send at least one message.");
}

/* ---- tools ---- */

static bool put_tool(translation *t, const cJSON *tool, int i, cJSON *tools) {
    static const char *const names[] = {"name", "description", "parameters", "strict"};
    char                     place[48];
    snprintf(place, sizeof place, "tools[%d]", i);
    if (!cJSON_IsObject(tool)) {
        return must_be(place, "an object", tool, t->e);
    }
    if (!is_text(tool, "type", "function")) { /* the provider's own: whoever writes the request names it */
        if (!neutral_text(tool, "type")) {
            snprintf(place, sizeof place, "tools[%d].type", i);
            return must_be(place, "a string", neutral_get(tool, "type"), t->e);
        }
        cJSON *holder = cJSON_CreateObject();
        build_give(&t->b, holder, "tool", tool);
        build_append(&t->b, tools, cJSON_DetachItemFromObjectCaseSensitive(holder, "tool"));
        cJSON_Delete(holder);
        return true;
    }
    if (!neutral_text(tool, "name") || !neutral_text(tool, "name")[0]) {
        snprintf(place, sizeof place, "tools[%d].name", i);
        return must_be(place, "the name of the function, beside its type", neutral_get(tool, "name"), t->e);
    }
    cJSON *out = cJSON_CreateObject(), *function = cJSON_CreateObject();
    build_text(&t->b, out, "type", "function");
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        build_give(&t->b, function, names[k], neutral_get(tool, names[k]));
    }
    build_put(&t->b, out, "function", function);
    build_give(&t->b, out, "cache_control", neutral_get(tool, "cache_control"));
    build_append(&t->b, tools, out);
    return true;
}

static bool put_tools(translation *t) {
    const cJSON *from = neutral_get(t->from, "tools"), *tool;
    int          i = 0;
    if (!from) {
        return true;
    }
    if (!cJSON_IsArray(from)) {
        return must_be("tools", "an array", from, t->e);
    }
    cJSON *tools = cJSON_CreateArray();
    build_put(&t->b, t->body, "tools", tools);
    cJSON_ArrayForEach(tool, from) {
        if (t->b.failed || !put_tool(t, tool, i++, tools)) {
            return t->b.failed;
        }
    }
    return true;
}

static bool put_choice(translation *t) {
    const cJSON *from = neutral_get(t->from, "tool_choice");
    if (!from || cJSON_IsString(from)) {
        return build_give(&t->b, t->body, "tool_choice", from) || true;
    }
    if (!cJSON_IsObject(from)) {
        return must_be("tool_choice", "a string or an object", from, t->e);
    }
    const char *type = neutral_text(from, "type"), *name = neutral_text(from, "name");
    if (!type || strcmp(type, "function") != 0) {
        return err_at(t->e, ERR_UNSUPPORTED, "tool_choice.type",
                      "tool_choice.type is \"%.40s\", which is not supported: name a function, or send \"auto\", "
                      "\"required\" or \"none\".",
                      type ? type : "");
    }
    if (!name) {
        return must_be("tool_choice.name", "the name of the function to call", neutral_get(from, "name"), t->e);
    }
    cJSON *choice = cJSON_CreateObject(), *function = cJSON_CreateObject();
    build_text(&t->b, choice, "type", "function");
    build_text(&t->b, function, "name", name);
    build_put(&t->b, choice, "function", function);
    build_put(&t->b, t->body, "tool_choice", choice);
    return true;
}

/* ---- the answer's form ---- */

static bool put_format(translation *t, const cJSON *format) {
    static const char *const names[] = {"name", "description", "schema", "strict"};
    if (!cJSON_IsObject(format)) {
        return must_be("text.format", "an object", format, t->e);
    }
    if (is_text(format, "type", "text")) {
        return true;
    }
    if (!is_text(format, "type", "json_object") && !is_text(format, "type", "json_schema")) {
        return err_at(t->e, ERR_INVALID, "text.format.type",
                      "text.format.type must be \"text\", \"json_object\" or \"json_schema\".");
    }
    cJSON *out = cJSON_CreateObject();
    build_put(&t->b, t->body, "response_format", out);
    build_text(&t->b, out, "type", neutral_text(format, "type"));
    if (is_text(format, "type", "json_object")) {
        return true;
    }
    const cJSON *schema = neutral_get(format, "schema");
    if (!cJSON_IsObject(schema) && !cJSON_IsBool(schema)) {
        return must_be("text.format.schema", "a JSON schema", schema, t->e);
    }
    cJSON *inner = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        build_give(&t->b, inner, names[i], neutral_get(format, names[i]));
    }
    build_put(&t->b, out, "json_schema", inner);
    return true;
}

static bool put_text(translation *t) {
    const cJSON *text = neutral_get(t->from, "text");
    const char  *verbosity = NULL;
    if (!text) {
        return true;
    }
    if (!cJSON_IsObject(text)) {
        return must_be("text", "an object", text, t->e);
    }
    if (!json_get_string(text, "text", "verbosity", &verbosity, t->e)) {
        return false;
    }
    build_give(&t->b, t->body, "verbosity", neutral_get(text, "verbosity"));
    const cJSON *format = neutral_get(text, "format");
    return !format || put_format(t, format);
}

/* reasoning.summary says whether the client wants to see it: it does not change the answer. */
static bool put_reasoning(translation *t) {
    const cJSON *reasoning = neutral_get(t->from, "reasoning");
    const char  *ignored = NULL;
    if (!reasoning) {
        return true;
    }
    if (!cJSON_IsObject(reasoning)) {
        return must_be("reasoning", "an object", reasoning, t->e);
    }
    if (!json_get_string(reasoning, "reasoning", "effort", &ignored, t->e) ||
        !json_get_string(reasoning, "reasoning", "summary", &ignored, t->e)) {
        return false;
    }
    build_give(&t->b, t->body, "reasoning_effort", neutral_get(reasoning, "effort"));
    return true;
}

/* The others belong to tools of OpenAI's own, or ask for what is sent anyway. */
static const char *const includes[] = {"message.output_text.logprobs",
                                       "reasoning.encrypted_content",
                                       "file_search_call.results",
                                       "web_search_call.results",
                                       "web_search_call.action.sources",
                                       "message.input_image.image_url",
                                       "computer_call_output.output.image_url",
                                       "code_interpreter_call.outputs"};

static bool put_logprobs(translation *t) {
    const cJSON *include = neutral_get(t->from, "include"), *item;
    bool         wanted = false;
    int64_t      top = 0;
    if (include && !cJSON_IsArray(include)) {
        return must_be("include", "an array of strings", include, t->e);
    }
    cJSON_ArrayForEach(item, include) {
        size_t k = 0, n = sizeof includes / sizeof includes[0];
        while (k < n && !(cJSON_IsString(item) && strcmp(item->valuestring, includes[k]) == 0)) {
            k++;
        }
        if (k == n) {
            return err_at(t->e, ERR_INVALID, "include", "include holds \"%.60s\", which pare does not know.",
                          cJSON_IsString(item) ? item->valuestring : json_kind(item));
        }
        wanted = wanted || k == 0;
    }
    if (!json_get_int(t->from, "", "top_logprobs", 0, 20, &top, t->e)) {
        return false;
    }
    if (wanted || top > 0) {
        build_put(&t->b, t->body, "logprobs", cJSON_CreateTrue());
    }
    if (top > 0) {
        build_give(&t->b, t->body, "top_logprobs", neutral_get(t->from, "top_logprobs"));
    }
    return true;
}

static bool put_rest(translation *t) {
    int64_t most = -1;
    bool    stream = false;
    if (!json_get_int(t->from, "", "max_output_tokens", 1, INT32_MAX, &most, t->e) ||
        !json_get_bool(t->from, "", "stream", &stream, t->e)) {
        return false;
    }
    build_give(&t->b, t->body, "max_completion_tokens", neutral_get(t->from, "max_output_tokens"));
    if (stream) { /* the last event always tells the usage */
        cJSON *options = cJSON_CreateObject();
        build_put(&t->b, options, "include_usage", cJSON_CreateTrue());
        build_put(&t->b, t->body, "stream_options", options);
    }
    return true;
}

/* ---- all of it ---- */

/* Members that are read here; all others have the same name in the neutral form, or are unknown and pass on. */
static bool is_ours(const char *name) {
    static const char *const ours[] = {"input",
                                       "instructions",
                                       "tools",
                                       "tool_choice",
                                       "text",
                                       "reasoning",
                                       "include",
                                       "top_logprobs",
                                       "truncation",
                                       "store",
                                       "background",
                                       "max_output_tokens",
                                       "stream_options",
                                       "conversation",
                                       "prompt",
                                       "n",
                                       "previous_response_id",
                                       "max_tool_calls",
                                       "context_management"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        if (strcmp(name, ours[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool read_keep(translation *t, bool *keep, const char **previous) {
    *keep = true;
    *previous = NULL;
    if (!json_get_bool(t->from, "", "store", keep, t->e) ||
        !json_get_string(t->from, "", "previous_response_id", previous, t->e)) {
        return false;
    }
    if (*previous && (!(*previous)[0] || strlen(*previous) >= RESPONSES_ID_SIZE)) {
        return err_at(t->e, ERR_INVALID, "previous_response_id", "previous_response_id must be the id of an answer.");
    }
    return true;
}

static bool translate(translation *t) {
    if (!cJSON_IsObject(t->from)) {
        return err_set(t->e, ERR_INVALID, "The body must be a JSON object, not %s.", json_kind(t->from));
    }
    if (!refuse_members(t) || !refuse_other_names(t) || !check_truncation(t)) {
        return false;
    }
    const cJSON *m;
    cJSON_ArrayForEach(m, t->from) {
        if (!cJSON_IsNull(m) && !is_ours(m->string)) {
            build_give(&t->b, t->body, m->string, m);
        }
    }
    if (!put_input(t) || !put_tools(t) || !put_choice(t) || !put_text(t) || !put_reasoning(t) || !put_logprobs(t) ||
        !put_rest(t)) {
        return false;
    }
    return !t->b.failed || err_set(t->e, ERR_MEMORY, "Out of memory while reading the request.");
}

bool responses_read_request(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e) {
    neutral_begin(kind, body, n, &dialect_responses, out);
    out->client = json_parse(body, n, JSON_MAX_DEPTH, e);
    if (!out->client) {
        neutral_fail(out, NULL, memory, e);
        return false;
    }
    translation t = {.r = out, .from = out->client, .body = cJSON_CreateObject(), .e = e};
    bool        keep = false;
    const char *previous = NULL;
    out->body = t.body;
    t.b.failed = !t.body;
    if (!translate(&t) || !read_keep(&t, &keep, &previous) || !neutral_read(out, memory, e)) {
        neutral_fail(out, neutral_text(out->client, "model"), memory, e);
        return false;
    }
    out->keep = keep;
    out->previous = previous;
    return true;
}

/* ---- what came before ---- */

/* Where the messages before this request's own input belong: behind its instructions. */
static cJSON *joined(const request *r, cJSON *own, cJSON *before, builder *b) {
    cJSON *all = cJSON_CreateArray();
    if (neutral_get(r->client, "instructions")) {
        build_append(b, all, cJSON_DetachItemFromArray(own, 0));
    }
    while (before->child) {
        build_append(b, all, cJSON_DetachItemFromArray(before, 0));
    }
    while (own->child) {
        build_append(b, all, cJSON_DetachItemFromArray(own, 0));
    }
    return all;
}

static bool read_stored(const cJSON *turns, builder *b, cJSON *before, err *e) {
    const cJSON *items;
    cJSON_ArrayForEach(items, turns) {
        if (!cJSON_IsArray(items) || !responses_read_items(b, items, "stored", before, e)) {
            err_prefix(e, "The conversation before this request cannot be read");
            return cJSON_IsArray(items) ? false : err_set(e, ERR_INTERNAL, "The stored conversation is damaged.");
        }
    }
    return true;
}

bool responses_join(request *r, const char *json, size_t n, arena *memory, err *e) {
    builder b = {.copy = true};
    cJSON  *turns = json_parse(json, n, JSON_MAX_DEPTH, e);
    cJSON  *own = cJSON_GetObjectItemCaseSensitive(r->body, "messages");
    cJSON  *before = cJSON_CreateArray();
    bool    good = turns && before && read_stored(turns, &b, before, e);
    if (good) {
        cJSON *all = joined(r, own, before, &b);
        if (!all || !cJSON_ReplaceItemInObjectCaseSensitive(r->body, "messages", all)) {
            cJSON_Delete(all);
            b.failed = true;
        }
        good = !b.failed;
    }
    cJSON_Delete(turns);
    cJSON_Delete(before);
    if (!good) {
        return e->code ? false : err_set(e, ERR_MEMORY, "Out of memory while reading the conversation.");
    }
    request again;
    neutral_begin(r->kind, r->raw, r->raw_len, r->from, &again);
    again.body = r->body;
    good = neutral_read(&again, memory, e);
    r->messages = again.messages;
    r->n_messages = again.n_messages;
    return good;
}
