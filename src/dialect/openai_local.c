/* openai_local.c - the members of a request that only models of our own obey; providers get them as they stand. */
#include <stdio.h>
#include <string.h>

#include "dialect/openai.h"

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

static const char *text(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static bool must_be(const char *param, const char *wanted, const cJSON *value, err *e) {
    return err_at(e, ERR_INVALID, param, "%s must be %s, not %s.", param, wanted, value ? json_kind(value) : "missing");
}

/* ---- which tools ---- */

/* tools[i] and what stands in it. */
typedef struct place {
    char text[64];
} place;

static place place_in(int i, const char *rest) {
    place p;
    snprintf(p.text, sizeof(p.text), "tools[%d]%s", i, rest);
    return p;
}

static bool check_tool(const cJSON *tool, int i, err *e) {
    const cJSON *function = member(tool, "function"), *parameters = member(function, "parameters");
    const cJSON *name = member(function, "name");
    const char  *type = text(tool, "type");
    place        p = place_in(i, ".type");
    if (type && strcmp(type, "function") != 0) {
        return err_at(e, ERR_UNSUPPORTED, p.text, "%s must be \"function\", not \"%.40s\".", p.text, type);
    }
    p = place_in(i, ".function");
    if (!cJSON_IsObject(function)) {
        return must_be(p.text, "an object with a name", function, e);
    }
    p = place_in(i, ".function.name");
    if (!cJSON_IsString(name) || !name->valuestring[0]) {
        return must_be(p.text, "the name by which the tool is called", name, e);
    }
    p = place_in(i, ".function.parameters");
    return !parameters || cJSON_IsObject(parameters) || must_be(p.text, "a JSON schema", parameters, e);
}

static bool check_tools(const request *r, err *e) {
    const cJSON *tool;
    int          i = 0;
    cJSON_ArrayForEach(tool, r->tools) {
        if (!check_tool(tool, i++, e)) {
            return false;
        }
    }
    return true;
}

static bool has_tool(const request *r, const char *name) {
    const cJSON *tool;
    cJSON_ArrayForEach(tool, r->tools) {
        const char *its = text(cJSON_GetObjectItemCaseSensitive(tool, "function"), "name");
        if (its && strcmp(its, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool read_named(request *r, const cJSON *choice, err *e) {
    const char *type = text(choice, "type");
    const char *name = text(cJSON_GetObjectItemCaseSensitive(choice, "function"), "name");
    if (!type || strcmp(type, "function") != 0) {
        return err_at(e, ERR_UNSUPPORTED, "tool_choice.type", "tool_choice.type must be \"function\"%s%.40s%s.",
                      type ? ", not \"" : "", type ? type : "", type ? "\"" : "");
    }
    if (!name) {
        return err_at(e, ERR_INVALID, "tool_choice.function.name",
                      "tool_choice.function.name is missing: it names the tool to call.");
    }
    if (!has_tool(r, name)) {
        return err_at(e, ERR_INVALID, "tool_choice.function.name",
                      "tool_choice names \"%.60s\", which is none of the tools.", name);
    }
    r->choice = TOOLS_NAMED;
    r->tool = name;
    return true;
}

static bool read_choice(request *r, err *e) {
    static const struct {
        const char *name;
        tool_choice choice;
    } words[] = {{"auto", TOOLS_AUTO}, {"none", TOOLS_NONE}, {"required", TOOLS_REQUIRED}};
    const cJSON *choice = member(r->body, "tool_choice");
    bool         parallel = true;
    if (!json_get_bool(r->body, "", "parallel_tool_calls", &parallel, e)) {
        return false;
    }
    r->one_tool = !parallel;
    if (!choice) {
        return true;
    }
    if (cJSON_IsObject(choice)) {
        return read_named(r, choice, e);
    }
    if (!cJSON_IsString(choice)) {
        return must_be("tool_choice", "a string or an object", choice, e);
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(choice->valuestring, words[i].name) == 0) {
            r->choice = words[i].choice;
            return r->choice != TOOLS_REQUIRED || r->tools ||
                   err_at(e, ERR_INVALID, "tool_choice", "tool_choice is \"required\", but there are no tools.");
        }
    }
    return err_at(e, ERR_INVALID, "tool_choice",
                  "tool_choice must be \"none\", \"auto\", \"required\" or name a function, not \"%.40s\".",
                  choice->valuestring);
}

/* ---- which form ---- */

static bool take_schema(request *r, const cJSON *schema, const char *where, err *e) {
    if (!cJSON_IsObject(schema) && !cJSON_IsBool(schema)) {
        return must_be(where, "a JSON schema", schema, e);
    }
    r->form = RESPONSE_SCHEMA;
    r->schema = schema;
    r->schema_place = where;
    return true;
}

/* {"type": "json_schema", "json_schema": {"schema": ...}} is OpenAI's; llama.cpp also takes {"type": "json_object",
 * "schema": ...}. */
static bool read_response_format(request *r, err *e) {
    const cJSON *format = member(r->body, "response_format");
    if (!format) {
        return true;
    }
    if (!cJSON_IsObject(format)) {
        return must_be("response_format", "an object", format, e);
    }
    const char  *type = text(format, "type");
    const cJSON *schema = member(format, "schema");
    if (type && strcmp(type, "text") == 0) {
        return true;
    }
    if (type && strcmp(type, "json_object") == 0) {
        r->form = RESPONSE_JSON;
        return !schema || take_schema(r, schema, "response_format.schema", e);
    }
    if (!type || strcmp(type, "json_schema") != 0) {
        return err_at(e, ERR_INVALID, "response_format.type",
                      "response_format.type must be \"text\", \"json_object\" or \"json_schema\".");
    }
    const cJSON *inner = member(format, "json_schema");
    if (!cJSON_IsObject(inner)) {
        return must_be("response_format.json_schema", "an object", inner, e);
    }
    return take_schema(r, member(inner, "schema"), "response_format.json_schema.schema", e);
}

static bool read_grammar(request *r, err *e) {
    const char *grammar = "";
    if (!json_get_string(r->body, "", "grammar", &grammar, e)) {
        return false;
    }
    r->grammar = grammar[0] ? grammar : NULL;
    return !r->grammar || r->form == RESPONSE_TEXT ||
           err_at(e, ERR_INVALID, "grammar", "grammar and response_format exclude each other: leave one out.");
}

/* ---- what the template sees ---- */

static bool read_template_input(request *r, err *e) {
    const cJSON *input = member(r->body, "chat_template_kwargs");
    if (input && !cJSON_IsObject(input)) {
        return must_be("chat_template_kwargs", "an object", input, e);
    }
    r->template_input = input;
    return json_get_string(r->body, "", "reasoning_effort", &r->effort, e);
}

static bool read_chat(request *r, err *e) {
    if (r->kind != REQUEST_CHAT) {
        return true;
    }
    if (!check_tools(r, e) || !read_choice(r, e) || !read_template_input(r, e)) {
        return false;
    }
    return !r->grammar || r->choice == TOOLS_AUTO || r->choice == TOOLS_NONE ||
           err_at(e, ERR_INVALID, "grammar", "grammar and a tool_choice that asks for a call exclude each other.");
}

bool openai_read_local(request *r, err *e) {
    int64_t priority = 0;
    bool    cache = true;
    if (r->n != 1) {
        return err_at(e, ERR_UNSUPPORTED, "n",
                      "n must be 1: a model of pare's own gives one answer a request; send it %lld times.",
                      (long long)r->n);
    }
    if (json_get_int(r->body, "", "priority", -REQUEST_MAX_PRIORITY, REQUEST_MAX_PRIORITY, &priority, e) &&
        json_get_bool(r->body, "", "cache_prompt", &cache, e) && read_response_format(r, e) && read_grammar(r, e) &&
        read_chat(r, e)) {
        r->priority = (int)priority;
        r->no_reuse = !cache;
        return true;
    }
    openai_end_sentence(e);
    return false;
}
