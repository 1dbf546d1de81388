/* openai_neutral.c - the request of a client that speaks another dialect, for a provider of OpenAI's API: the neutral form
 * without the members that this API has not. */
#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"

#define TARGET "OpenAI's API"

static void drop_control(cJSON *object, drops *d) {
    if (cJSON_HasObjectItem(object, "cache_control")) {
        cJSON_DeleteItemFromObjectCaseSensitive(object, "cache_control");
        drop_hint(d, "cache_control");
    }
}

/* What a model thought stays with the provider that made it. */
static const char *const of_thought[] = {"reasoning_content", "reasoning_signature", "reasoning_redacted", NULL};

static void clean_message(cJSON *message, drops *d) {
    for (int i = 0; of_thought[i]; i++) {
        if (cJSON_HasObjectItem(message, of_thought[i])) {
            cJSON_DeleteItemFromObjectCaseSensitive(message, of_thought[i]);
            drop_hint(d, of_thought[i]);
        }
    }
    if (cJSON_HasObjectItem(message, "is_error")) {
        cJSON_DeleteItemFromObjectCaseSensitive(message, "is_error");
        drop_hint(d, "is_error");
    }
    cJSON *part;
    drop_control(message, d);
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(message, "content")) {
        drop_control(part, d);
    }
}

static bool known_part(const char *type, bool of_tool) {
    static const char *const parts[] = {"text", "image_url", "input_audio", "file", "refusal"};
    for (size_t i = 0; type && i < (of_tool ? 1 : sizeof parts / sizeof parts[0]); i++) {
        if (strcmp(type, parts[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The result of a tool takes texts there; other parts are those that the API has. */
static bool check_parts(const cJSON *message, int i, err *e) {
    const char  *role = neutral_text(message, "role");
    bool         of_tool = role && strcmp(role, "tool") == 0;
    int          k = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, neutral_get(message, "content")) {
        const char *type = neutral_text(part, "type");
        char        place[80];
        if (!known_part(type, of_tool)) {
            snprintf(place, sizeof place, "messages[%d].content[%d].type", i, k);
            return err_at(e, ERR_UNSUPPORTED, place, "%s: \"%.30s\" cannot be carried %s" TARGET ".", place,
                          type ? type : "", of_tool ? "in a tool's result to " : "to ");
        }
        k++;
    }
    return true;
}

/* What another API's tools have beside their function: how its arguments are streamed, examples, where it is loaded. */
static bool drop_rest(cJSON *tool, int i, drops *d, err *e) {
    for (cJSON *m = tool->child, *next; m; m = next) {
        bool hint = strcmp(m->string, "eager_input_streaming") == 0 || strcmp(m->string, "input_examples") == 0;
        char place[80];
        next = m->next;
        if (strcmp(m->string, "type") == 0 || strcmp(m->string, "function") == 0) {
            continue;
        }
        snprintf(place, sizeof place, "tools[%d].%.40s", i, m->string);
        if (hint) {
            drop_hint(d, m->string);
        } else if (!drop_member(d, place, TARGET, e)) {
            return false;
        }
        cJSON_Delete(cJSON_DetachItemViaPointer(tool, m));
    }
    return true;
}

/* Tools that another provider runs itself have no place here, and where none is left there is none to choose. */
static bool keep_functions(cJSON *body, drops *d, err *e) {
    cJSON *tools = cJSON_GetObjectItemCaseSensitive(body, "tools");
    int    i = 0;
    for (cJSON *tool = cJSON_IsArray(tools) ? tools->child : NULL, *next; tool; tool = next) {
        char place[40];
        next = tool->next;
        snprintf(place, sizeof place, "tools[%d].type", i++);
        if (neutral_function(tool)) {
            if (!drop_rest(tool, i - 1, d, e)) {
                return false;
            }
            continue;
        }
        if (!drop_member(d, place, TARGET, e)) {
            return false;
        }
        cJSON_Delete(cJSON_DetachItemViaPointer(tools, tool));
    }
    if (tools && !tools->child) {
        cJSON_DeleteItemFromObjectCaseSensitive(body, "tools");
        cJSON_DeleteItemFromObjectCaseSensitive(body, "tool_choice");
        cJSON_DeleteItemFromObjectCaseSensitive(body, "parallel_tool_calls");
    }
    return true;
}

/* How hard to think, from a number of tokens: a quarter and the whole of what is usual. */
static bool write_effort(cJSON *body, const cJSON *thinking) {
    const char *type = neutral_text(thinking, "type");
    int64_t     budget = neutral_count(thinking, "budget_tokens");
    bool        wanted = type && strcmp(type, "enabled") == 0 && !cJSON_HasObjectItem(body, "reasoning_effort");
    if (wanted) {
        const char *effort = budget < 4096 ? "low" : budget < 16384 ? "medium" : "high";
        if (!cJSON_AddStringToObject(body, "reasoning_effort", effort)) {
            return false;
        }
    }
    cJSON_DeleteItemFromObjectCaseSensitive(body, "thinking");
    return true;
}

static bool clean(cJSON *body, drops *d, err *e) {
    int    i = 0;
    cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(body, "messages")) {
        clean_message(item, d);
        if (!check_parts(item, i++, e)) {
            return false;
        }
    }
    cJSON *tools = cJSON_GetObjectItemCaseSensitive(body, "tools");
    cJSON_ArrayForEach(item, tools) {
        drop_control(item, d);
    }
    const cJSON *thinking = neutral_get(body, "thinking");
    return keep_functions(body, d, e) &&
           (!thinking || write_effort(body, thinking) || err_set(e, ERR_MEMORY, "Out of memory."));
}

static bool set_member(cJSON *body, const char *name, cJSON *value) {
    if (!value) {
        return false;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(body, name);
    if (cJSON_AddItemToObject(body, name, value)) {
        return true;
    }
    cJSON_Delete(value);
    return false;
}

/* max_completion_tokens is what the API has today, and all that its reasoning models take; many compatible providers know
 * max_tokens alone, which stays there where the client said it so. */
static bool set_limit(cJSON *body, const request *r, bool own) {
    int64_t     most = request_most(r);
    bool        older = cJSON_HasObjectItem(body, "max_tokens") && !(own && r->kind == REQUEST_CHAT);
    const char *name = older ? "max_tokens" : "max_completion_tokens";
    if (!older) {
        cJSON_DeleteItemFromObjectCaseSensitive(body, "max_tokens");
    }
    return most <= 0 || set_member(body, name, cJSON_CreateNumber((double)most));
}

/* OpenAI's own API has no top_k: it is the first of the list. */
bool openai_write_neutral(const request *r, const char *model, bool ask_usage, bool own, str *out, err *e) {
    static const char *const known[] = {"top_k",
                                        "model",
                                        "messages",
                                        "tools",
                                        "tool_choice",
                                        "response_format",
                                        "stream",
                                        "max_tokens",
                                        "stop",
                                        "temperature",
                                        "top_p",
                                        "max_completion_tokens",
                                        "seed",
                                        "logprobs",
                                        "thinking",
                                        "n",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "user",
                                        "verbosity",
                                        "metadata",
                                        "top_logprobs",
                                        "reasoning_effort",
                                        "parallel_tool_calls",
                                        "prompt",
                                        "service_tier",
                                        "stream_options",
                                        "logit_bias",
                                        NULL};
    if (!neutral_carried(r, own ? known + 1 : known, TARGET, e)) {
        return false;
    }
    cJSON *body = cJSON_Duplicate(r->body, true);
    bool   good = body && clean(body, r->drops, e);
    if (good) {
        if (own) { /* what may be dropped has been listed */
            cJSON_DeleteItemFromObjectCaseSensitive(body, "top_k");
        }
        good = set_member(body, "model", cJSON_CreateString(model)) && set_limit(body, r, own);
        if (good && ask_usage && r->stream) {
            cJSON *options = cJSON_CreateObject();
            good = cJSON_AddTrueToObject(options, "include_usage") && set_member(body, "stream_options", options);
        }
        good = good && json_write(body, out);
        good = good || err_set(e, ERR_MEMORY, "The request could not be written: out of memory.");
    } else if (!body) {
        err_set(e, ERR_MEMORY, "The request could not be written: out of memory.");
    }
    cJSON_Delete(body);
    return good;
}
