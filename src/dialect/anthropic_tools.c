/* anthropic_tools.c - the tools of a client's request, and which of them may be called, in the neutral form.
 *
 * Tools that the provider runs itself ("web_search_20250305" and the like) stay as they are: another target names their
 * type. What a tool of the client's own has besides its schema (input_examples, defer_loading) stays beside it.     */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

static bool is_own(const cJSON *tool) {
    const char *type = neutral_text(tool, "type");
    return !type || strcmp(type, "custom") == 0;
}

static bool is_function_member(const char *key) {
    return strcmp(key, "name") == 0 || strcmp(key, "description") == 0 || strcmp(key, "input_schema") == 0 ||
           strcmp(key, "strict") == 0 || strcmp(key, "type") == 0;
}

static bool check_own(const cJSON *tool, int i, err *e) {
    const cJSON    *name = neutral_get(tool, "name"), *schema = neutral_get(tool, "input_schema");
    const cJSON    *description = neutral_get(tool, "description");
    anthropic_place p = anthropic_at("tools[%d].name", i);
    if (!cJSON_IsString(name) || !name->valuestring[0]) {
        return anthropic_wrong(p.text, "the name by which the tool is called", name, e);
    }
    p = anthropic_at("tools[%d].description", i);
    if (description && !cJSON_IsString(description)) {
        return anthropic_wrong(p.text, "a string", description, e);
    }
    p = anthropic_at("tools[%d].input_schema", i);
    return cJSON_IsObject(schema) || anthropic_wrong(p.text, "a JSON schema of an object", schema, e);
}

static bool fill_own(const cJSON *tool, cJSON *out, err *e) {
    cJSON *function = cJSON_CreateObject();
    if (!anthropic_put(out, "type", cJSON_CreateString("function"), e)) {
        cJSON_Delete(function);
        return false;
    }
    if (!anthropic_put(out, "function", function, e) ||
        !anthropic_copy(function, "name", neutral_get(tool, "name"), e) ||
        !anthropic_copy(function, "description", neutral_get(tool, "description"), e) ||
        !anthropic_copy(function, "parameters", neutral_get(tool, "input_schema"), e) ||
        !anthropic_copy(function, "strict", neutral_get(tool, "strict"), e)) {
        return false;
    }
    const cJSON *m;
    cJSON_ArrayForEach(m, tool) {
        if (!is_function_member(m->string) && !cJSON_IsNull(m) && !anthropic_copy(out, m->string, m, e)) {
            return false;
        }
    }
    return true;
}

static bool read_tool(const cJSON *tool, int i, cJSON *list, err *e) {
    anthropic_place p = anthropic_at("tools[%d]", i);
    const cJSON    *type = neutral_get(tool, "type");
    if (!cJSON_IsObject(tool)) {
        return anthropic_wrong(p.text, "an object", tool, e);
    }
    if (type && !cJSON_IsString(type)) {
        p = anthropic_at("tools[%d].type", i);
        return anthropic_wrong(p.text, "a string", type, e);
    }
    if (!is_own(tool)) {
        return anthropic_append(list, cJSON_Duplicate(tool, true), e);
    }
    cJSON *out = cJSON_CreateObject();
    return check_own(tool, i, e) ? anthropic_append(list, out, e) && fill_own(tool, out, e)
                                 : (cJSON_Delete(out), false);
}

static bool read_named(const cJSON *choice, cJSON *body, err *e) {
    const cJSON *name = neutral_get(choice, "name");
    if (!cJSON_IsString(name) || !name->valuestring[0]) {
        return anthropic_wrong("tool_choice.name", "the name of the tool to call", name, e);
    }
    cJSON *out = cJSON_CreateObject(), *function = cJSON_CreateObject();
    if (!anthropic_put(body, "tool_choice", out, e)) {
        cJSON_Delete(function);
        return false;
    }
    return anthropic_put(out, "function", function, e) &&
           anthropic_put(out, "type", cJSON_CreateString("function"), e) &&
           anthropic_put(function, "name", cJSON_CreateString(name->valuestring), e);
}

static bool read_choice(const cJSON *client, cJSON *body, err *e) {
    static const char *const words[][2] = {{"auto", "auto"}, {"any", "required"}, {"none", "none"}};
    const cJSON             *choice = neutral_get(client, "tool_choice"), *type = neutral_get(choice, "type");
    bool                     one = false;
    if (!choice) {
        return true;
    }
    if (!cJSON_IsObject(choice)) {
        return anthropic_wrong("tool_choice", "an object with a type", choice, e);
    }
    if (!cJSON_IsString(type)) {
        return anthropic_wrong("tool_choice.type", "\"auto\", \"any\", \"tool\" or \"none\"", type, e);
    }
    if (!json_get_bool(choice, "tool_choice", "disable_parallel_tool_use", &one, e) ||
        (one && !anthropic_put(body, "parallel_tool_calls", cJSON_CreateFalse(), e))) {
        return false;
    }
    if (strcmp(type->valuestring, "tool") == 0) {
        return read_named(choice, body, e);
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(type->valuestring, words[i][0]) == 0) {
            return anthropic_put(body, "tool_choice", cJSON_CreateString(words[i][1]), e);
        }
    }
    return err_at(e, ERR_INVALID, "tool_choice.type",
                  "tool_choice.type must be \"auto\", \"any\", \"tool\" or \"none\", not \"%.40s\".",
                  type->valuestring);
}

bool anthropic_read_tools(const cJSON *client, cJSON *body, err *e) {
    const cJSON *tools = neutral_get(client, "tools");
    if (tools && !cJSON_IsArray(tools)) {
        return anthropic_wrong("tools", "an array", tools, e);
    }
    if (tools && tools->child) {
        cJSON *list = cJSON_CreateArray();
        if (!anthropic_put(body, "tools", list, e)) {
            return false;
        }
        int          i = 0;
        const cJSON *tool;
        cJSON_ArrayForEach(tool, tools) {
            if (!read_tool(tool, i++, list, e)) {
                return false;
            }
        }
    }
    return read_choice(client, body, e);
}
