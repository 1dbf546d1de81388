/* local_template.c - from a chat request to what the chat template sees. */
#include <stdio.h>
#include <string.h>

#include "backend/local.h"

/* ---- tool calls of earlier answers ---- */

/* Clients send arguments as a string of JSON; most templates print them as the object they are. */
static bool open_arguments(cJSON *message) {
    cJSON *call;
    bool   ok = true;
    cJSON_ArrayForEach(call, cJSON_GetObjectItemCaseSensitive(message, "tool_calls")) {
        cJSON *function = cJSON_GetObjectItemCaseSensitive(call, "function");
        cJSON *arguments = cJSON_GetObjectItemCaseSensitive(function, "arguments");
        if (!cJSON_IsString(arguments)) {
            continue;
        }
        const char *text = arguments->valuestring[0] ? arguments->valuestring : "{}";
        cJSON      *opened = json_parse(text, strlen(text), JSON_MAX_DEPTH, NULL);
        if (cJSON_IsObject(opened)) {
            ok = cJSON_ReplaceItemInObjectCaseSensitive(function, "arguments", opened) && ok;
        } else {
            cJSON_Delete(opened);
        }
    }
    return ok;
}

/* And the other way round, for templates that only take text. */
static bool close_arguments(cJSON *message) {
    cJSON *call;
    bool   ok = true;
    cJSON_ArrayForEach(call, cJSON_GetObjectItemCaseSensitive(message, "tool_calls")) {
        cJSON *function = cJSON_GetObjectItemCaseSensitive(call, "function");
        cJSON *arguments = cJSON_GetObjectItemCaseSensitive(function, "arguments");
        str    text = {0};
        if (cJSON_IsObject(arguments)) {
            cJSON *closed = json_write(arguments, &text) ? cJSON_CreateString(text.data) : NULL;
            ok = closed && cJSON_ReplaceItemInObjectCaseSensitive(function, "arguments", closed) && ok;
        }
        str_free(&text);
    }
    return ok;
}

/* A template that takes an object prints its member's name as JSON or as markup of its own; one that takes text only
 * fails to join it to its own text, or prints it as Python does. With an answer's content, which OpenAI's clients send
 * as null beside tool calls, it is the same: most templates take null or "", some only one of them. */
#define PROBE "pare_probe"

typedef enum probed { PROBE_FAILS, PROBE_MISSES, PROBE_GOOD } probed;

static const char *const probe_arguments[] = {"{\"" PROBE "\": \"v\"}", "\"{\\\"" PROBE "\\\": \\\"v\\\"}\""};
static const char *const probe_content[] = {"null", "\"\""};
static const char *const probe_tool[] = {
    "", ",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}"};

static bool probe_render(const chat_template *t, const char *messages, const char *tool, str *out) {
    str input = {0};
    str_addf(
        &input,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}%s],\"tools\":[{\"type\":\"function\",\"function\":{%s}}],"
        "\"add_generation_prompt\":true,\"bos_token\":\"\",\"eos_token\":\"\"}",
        messages, tool);
    cJSON *json = input.failed ? NULL : json_parse(input.data, input.len, JSON_MAX_DEPTH, NULL);
    bool   ok = json && template_render(t, json, 0, out, NULL) && out->data;
    cJSON_Delete(json);
    str_free(&input);
    return ok;
}

static probed probe(const chat_template *t, bool text, bool empty, bool full_tool) {
    str messages = {0}, tool = {0}, out = {0};
    str_addf(&messages,
             ",{\"role\":\"assistant\",\"content\":%s,\"tool_calls\":[{\"id\":\"abc123def\",\"type\":\"function\","
             "\"function\":{\"name\":\"f\",\"arguments\":%s}}]},"
             "{\"role\":\"tool\",\"name\":\"f\",\"tool_call_id\":\"abc123def\",\"content\":\"a\"}",
             probe_content[empty], probe_arguments[text]);
    str_addf(&tool, "\"name\":\"f\"%s", probe_tool[full_tool]);
    probed found = PROBE_FAILS;
    if (!messages.failed && !tool.failed && probe_render(t, messages.data, tool.data, &out)) {
        bool good = strstr(out.data, PROBE) && !strstr(out.data, "'" PROBE "'") && !strstr(out.data, "\\\"" PROBE);
        found = good ? PROBE_GOOD : PROBE_MISSES;
    }
    str_free(&messages);
    str_free(&tool);
    str_free(&out);
    return found;
}

/* A prompt with a tool that does not name it. A template that fails says so when it is used. */
static bool has_no_tools(const chat_template *t) {
    str  tool = {0}, out = {0};
    bool none = str_addf(&tool, "\"name\":\"" PROBE "\"%s", probe_tool[true]) && probe_render(t, "", tool.data, &out) &&
                !strstr(out.data, PROBE);
    str_free(&tool);
    str_free(&out);
    return none;
}

static probed better(probed a, probed b) {
    return a > b ? a : b;
}

local_manners local_template_manners(const chat_template *t) {
    probed object[2] = {probe(t, false, false, true), probe(t, false, true, true)};
    probed text[2] = {probe(t, true, false, true), probe(t, true, true, true)};
    bool   wants_text = better(text[0], text[1]) > better(object[0], object[1]);
    probed null = wants_text ? text[0] : object[0], empty = wants_text ? text[1] : object[1];
    bool   takes_empty = empty > null;
    return (local_manners){.text_arguments = wants_text,
                           .empty_content = takes_empty,
                           .null_content = null > empty,
                           .full_tools = probe(t, wants_text, takes_empty, false) < better(null, empty),
                           .no_tools = has_no_tools(t)};
}

/* The content of an answer that calls tools, as the template takes it. */
static bool set_content(const local_backend *b, cJSON *message) {
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content");
    const cJSON *calls = cJSON_GetObjectItemCaseSensitive(message, "tool_calls");
    bool         none = !content || cJSON_IsNull(content);
    bool         empty = !none && cJSON_IsString(content) && !content->valuestring[0];
    bool         drop = empty && calls && calls->child && b->manners.null_content;
    if (!drop && !(none && b->manners.empty_content)) {
        return true;
    }
    cJSON *other = drop ? cJSON_CreateNull() : cJSON_CreateString("");
    bool   ok = content ? cJSON_ReplaceItemInObjectCaseSensitive(message, "content", other)
                        : cJSON_AddItemToObject(message, "content", other);
    if (!ok) {
        cJSON_Delete(other);
    }
    return ok;
}

/* ---- messages ---- */

static bool only_text(const local_backend *b, const cJSON *parts, int i, err *e) {
    int          k = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(part, "type");
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0) {
            char where[64];
            snprintf(where, sizeof(where), "messages[%d].content[%d]", i, k);
            return err_at(e, ERR_UNSUPPORTED, where, "%s is not text; %s reads nothing else", where, b->base.name);
        }
        k++;
    }
    return true;
}

/* The message as templates know it: content is one string, and a developer is a system. */
static cJSON *plain_message(const local_backend *b, const message *m, int i, err *e) {
    cJSON       *copy = m->json ? cJSON_Duplicate(m->json, true) : cJSON_CreateObject();
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(copy, "content");
    bool         ok = copy != NULL;
    if (ok && !m->json) {
        ok = cJSON_AddStringToObject(copy, "role", m->role) &&
             cJSON_AddStringToObject(copy, "content", m->content ? m->content : "");
    } else if (ok && cJSON_IsArray(content)) {
        if (!only_text(b, content, i, e)) {
            cJSON_Delete(copy);
            return NULL;
        }
        ok = cJSON_ReplaceItemInObjectCaseSensitive(copy, "content", cJSON_CreateString(m->content ? m->content : ""));
    }
    if (ok && m->role && strcmp(m->role, "developer") == 0) {
        ok = cJSON_ReplaceItemInObjectCaseSensitive(copy, "role", cJSON_CreateString("system"));
    }
    ok = ok && set_content(b, copy) && (b->manners.text_arguments ? close_arguments(copy) : open_arguments(copy));
    if (!ok) {
        cJSON_Delete(copy);
        err_set(e, ERR_MEMORY, "out of memory for the messages");
        return NULL;
    }
    return copy;
}

/* ---- the rest ---- */

static bool add_copy(cJSON *input, const char *name, const cJSON *value) {
    cJSON *copy = cJSON_Duplicate(value, true);
    if (!copy || !cJSON_AddItemToObject(input, name, copy)) {
        cJSON_Delete(copy);
        return false;
    }
    return true;
}

/* Further variables, such as enable_thinking. What the request says elsewhere counts there. */
static bool add_variables(cJSON *input, const request *r) {
    static const char *const ours[] = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "now"};
    const cJSON             *v;
    cJSON_ArrayForEach(v, r->template_input) {
        bool taken = false;
        for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
            taken = taken || strcmp(v->string, ours[i]) == 0;
        }
        if (!taken && !add_copy(input, v->string, v)) {
            return false;
        }
    }
    return !r->effort || cJSON_GetObjectItemCaseSensitive(input, "reasoning_effort") ||
           cJSON_AddStringToObject(input, "reasoning_effort", r->effort);
}

/* Takes `value` in any case. */
static bool fill(cJSON *object, const char *key, cJSON *value) {
    const cJSON *had = cJSON_GetObjectItemCaseSensitive(object, key);
    bool         ok = value && (!had || cJSON_IsNull(had));
    if (ok) {
        cJSON_DeleteItemFromObjectCaseSensitive(object, key);
        ok = cJSON_AddItemToObject(object, key, value);
    }
    if (!ok) {
        cJSON_Delete(value);
    }
    return value && (ok || had);
}

static bool add_tools(const local_backend *b, cJSON *input, const cJSON *tools) {
    static const char none[] = "{\"type\":\"object\",\"properties\":{}}";
    cJSON            *tool;
    if (!add_copy(input, "tools", tools)) {
        return false;
    }
    cJSON_ArrayForEach(tool, cJSON_GetObjectItemCaseSensitive(input, "tools")) {
        cJSON *function = cJSON_GetObjectItemCaseSensitive(tool, "function");
        if (b->manners.full_tools && cJSON_IsObject(function) &&
            !(fill(function, "description", cJSON_CreateString("")) &&
              fill(function, "parameters", json_parse(none, sizeof(none) - 1, JSON_MAX_DEPTH, NULL)))) {
            return false;
        }
    }
    return true;
}

/* All of it is the client's, so far: its words must not become control tokens. */
static bool mark_input(const local_backend *b, cJSON *input, guard_mark *mark, err *e) {
    *mark = (guard_mark){0};
    guard_look(mark, input);
    return guard_choose(mark, e) && guard_tree(b->guard, mark, input, e);
}

static const char *text_of(const tokenizer *t, int32_t id) {
    const char *text = id >= 0 ? tokenizer_text(t, id) : NULL;
    return text ? text : "";
}

static cJSON *out_of_memory(cJSON *input, err *e) {
    cJSON_Delete(input);
    err_set(e, ERR_MEMORY, "out of memory for the messages");
    return NULL;
}

cJSON *local_template_input(const local_backend *b, const request *r, guard_mark *mark, err *e) {
    cJSON       *input = cJSON_CreateObject();
    cJSON       *messages = cJSON_AddArrayToObject(input, "messages");
    const cJSON *tools = local_tools(r);
    if (!messages) {
        return out_of_memory(input, e);
    }
    for (int i = 0; i < r->n_messages; i++) {
        cJSON *copy = plain_message(b, &r->messages[i], i, e);
        if (!copy) {
            cJSON_Delete(input);
            return NULL;
        }
        cJSON_AddItemToArray(messages, copy);
    }
    if ((tools && !add_tools(b, input, tools)) || !add_variables(input, r)) {
        return out_of_memory(input, e);
    }
    if (!mark_input(b, input, mark, e)) {
        cJSON_Delete(input);
        return NULL;
    }
    const tokenizer *t = b->m->tokens;
    bool             ok = cJSON_AddTrueToObject(input, "add_generation_prompt") &&
              cJSON_AddStringToObject(input, "bos_token", text_of(t, tokenizer_bos(t))) &&
              cJSON_AddStringToObject(input, "eos_token", text_of(t, tokenizer_eos(t)));
    return ok ? input : out_of_memory(input, e);
}
