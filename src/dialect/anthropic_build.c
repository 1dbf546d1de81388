/* anthropic_build.c - a request of another dialect, from the neutral form, as Anthropic's API has it. */
#include <inttypes.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

/* Said by other providers for who reads along, or to a cache of theirs. */
static bool is_decoration(const char *name) {
    static const char *const names[] = {"cache_control", "annotations", "reasoning", "reasoning_details"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool anthropic_rest(const cJSON *object, const char *const *carried, const char *where, drops *d, err *e) {
    const cJSON *m;
    cJSON_ArrayForEach(m, object) {
        bool empty = cJSON_IsNull(m) || cJSON_IsFalse(m) || ((cJSON_IsArray(m) || cJSON_IsObject(m)) && !m->child);
        for (int i = 0; !empty && carried[i]; i++) {
            empty = strcmp(m->string, carried[i]) == 0;
        }
        if (empty) {
            continue;
        }
        if (is_decoration(m->string)) {
            drop_hint(d, m->string);
        } else if (!drop_member(d, anthropic_at("%.60s.%.40s", where, m->string).text, ANTHROPIC_TARGET, e)) {
            return false;
        }
    }
    return true;
}

/* ---- tools ---- */

/* The API wants the schema of an object, and says so by its type. */
static bool write_schema(const cJSON *given, str *out) {
    const cJSON *schema = cJSON_IsObject(given) ? given : NULL;
    if (neutral_get(schema, "type")) {
        return json_write(schema, out);
    }
    str_adds(out, "{\"type\":\"object\"");
    if (!neutral_get(schema, "properties")) {
        str_adds(out, ",\"properties\":{}");
    }
    const cJSON *m;
    cJSON_ArrayForEach(m, schema) {
        if (strcmp(m->string, "type") != 0) {
            str_addc(out, ',');
            str_jsons(out, m->string);
            str_addc(out, ':');
            json_write(m, out);
        }
    }
    return str_addc(out, '}');
}

static bool write_tool(const cJSON *tool, int i, drops *d, bool *first, str *out, err *e) {
    static const char *const of_function[] = {"name", "description", "parameters", "strict", NULL};
    static const char *const of_tool[] = {"type", "function", "cache_control", NULL};
    const cJSON             *function = neutral_function(tool);
    const char              *description = neutral_text(function, "description");
    const cJSON             *mark = neutral_get(tool, "cache_control");
    if (!function) {
        anthropic_place p = anthropic_at("tools[%d].type", i);
        return drop_member(d, p.text, ANTHROPIC_TARGET, e);
    }
    anthropic_place p = anthropic_at("tools[%d].function", i);
    if (!anthropic_rest(function, of_function, p.text, d, e) ||
        !anthropic_rest(tool, of_tool, anthropic_at("tools[%d]", i).text, d, e)) {
        return false;
    }
    str_adds(out, *first ? "{\"name\":" : ",{\"name\":");
    *first = false;
    str_jsons(out, neutral_text(function, "name"));
    if (description) {
        str_adds(out, ",\"description\":");
        str_jsons(out, description);
    }
    str_adds(out, ",\"input_schema\":");
    write_schema(neutral_get(function, "parameters"), out);
    if (cJSON_IsTrue(neutral_get(function, "strict"))) {
        str_adds(out, ",\"strict\":true");
    }
    if (mark) {
        str_adds(out, ",\"cache_control\":");
        json_write(mark, out);
    }
    return str_addc(out, '}');
}

/* Which word, and of a named tool its name; NULL: none is to be written. */
static const char *choice_word(const request *r, const char **name, err *e) {
    static const char *const words[][2] = {{"auto", "auto"}, {"required", "any"}, {"none", "none"}};
    const cJSON             *choice = neutral_get(r->body, "tool_choice");
    const char              *type = neutral_text(choice, "type");
    *name = NULL;
    for (size_t i = 0; cJSON_IsString(choice) && i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(words[i][0], choice->valuestring) == 0) {
            return words[i][1];
        }
    }
    if (type && strcmp(type, "function") == 0) {
        *name = neutral_text(neutral_get(choice, "function"), "name");
    }
    if (choice && !*name) {
        drop_member(r->drops, "tool_choice", ANTHROPIC_TARGET, e);
    }
    return *name ? "tool" : NULL;
}

static bool write_choice(const request *r, str *out, err *e) {
    err         why = {0};
    bool        one = cJSON_IsFalse(neutral_get(r->body, "parallel_tool_calls"));
    const char *name, *word = choice_word(r, &name, &why);
    if (why.code != ERR_NONE) {
        if (e) {
            *e = why;
        }
        return false;
    }
    if (!word && one) {
        word = "auto";
    }
    if (!word) {
        return true;
    }
    str_addf(out, ",\"tool_choice\":{\"type\":\"%s\"", word);
    if (name) {
        str_adds(out, ",\"name\":");
        str_jsons(out, name);
    }
    str_adds(out, one && strcmp(word, "none") != 0 ? ",\"disable_parallel_tool_use\":true" : "");
    return str_addc(out, '}');
}

bool anthropic_build_tools(const request *r, str *out, err *e) {
    const cJSON *tool;
    int          i = 0;
    bool         first = true;
    if (!r->tools) {
        return true; /* and then there is nothing to choose */
    }
    str_adds(out, ",\"tools\":[");
    cJSON_ArrayForEach(tool, r->tools) {
        if (!write_tool(tool, i++, r->drops, &first, out, e)) {
            return false;
        }
    }
    str_addc(out, ']');
    return first || write_choice(r, out, e); /* no tool is left: none to choose */
}

/* ---- sampling and the rest ---- */

static bool write_number(const cJSON *body, const char *key, str *out) {
    const cJSON *value = neutral_get(body, key);
    if (!cJSON_IsNumber(value)) {
        return true;
    }
    str_addf(out, ",\"%s\":", key);
    return json_write(value, out);
}

static bool write_sampling(const request *r, str *out, err *e) {
    if (r->temperature > 1) { /* the API's scale ends at 1 */
        if (!drop_member(r->drops, "temperature", ANTHROPIC_TARGET, e)) {
            return false;
        }
    } else {
        write_number(r->body, "temperature", out);
    }
    write_number(r->body, "top_p", out);
    if (r->top_k > 0) {
        str_addf(out, ",\"top_k\":%" PRId64, r->top_k);
    }
    for (int i = 0; i < r->n_stop; i++) {
        str_adds(out, i > 0 ? "," : ",\"stop_sequences\":[");
        str_jsons(out, r->stop[i]);
    }
    return str_adds(out, r->n_stop > 0 ? "]" : "");
}

/* {"type": "json_schema", "json_schema": {"schema"}}, and the {"type": "json_object", "schema"} of llama.cpp. JSON without
 * a schema is a promise that the API does not give. */
static bool find_schema(const request *r, const cJSON **schema, err *e) {
    const cJSON *format = neutral_get(r->body, "response_format");
    const char  *type = neutral_text(format, "type");
    *schema = NULL;
    if (!format || (type && strcmp(type, "text") == 0)) {
        return true;
    }
    bool named = type && strcmp(type, "json_schema") == 0;
    *schema = named ? neutral_get(neutral_get(format, "json_schema"), "schema") : neutral_get(format, "schema");
    if (cJSON_IsObject(*schema)) {
        return true;
    }
    if (named) {
        return anthropic_wrong("response_format.json_schema.schema", "a JSON schema", *schema, e);
    }
    *schema = NULL;
    return drop_member(r->drops, "response_format", ANTHROPIC_TARGET, e);
}

static bool write_output(const request *r, const anthropic_thinking *t, str *out, err *e) {
    const cJSON *schema;
    if (!find_schema(r, &schema, e)) {
        return false;
    }
    if (t->type) {
        str_addf(out, ",\"thinking\":{\"type\":\"%s\"", t->type);
        if (t->budget > 0) {
            str_addf(out, ",\"budget_tokens\":%" PRId64, t->budget);
        }
        str_addc(out, '}');
    }
    if (t->effort || schema) {
        str_adds(out, ",\"output_config\":{");
        if (t->effort) {
            str_adds(out, "\"effort\":");
            str_jsons(out, t->effort);
        }
        if (schema) {
            str_adds(out, t->effort ? "," : "");
            str_adds(out, "\"format\":{\"type\":\"json_schema\",\"schema\":");
            json_write(schema, out);
            str_addc(out, '}');
        }
        str_addc(out, '}');
    }
    return true;
}

/* The API has the normal queue and the one that is paid in advance, and picks between them. */
static bool write_tier(const request *r, str *out, err *e) {
    const char *tier = neutral_text(r->body, "service_tier");
    if (!tier) {
        return true;
    }
    if (strcmp(tier, "auto") == 0 || strcmp(tier, "priority") == 0) {
        return str_adds(out, ",\"service_tier\":\"auto\"");
    }
    if (strcmp(tier, "default") == 0) {
        return str_adds(out, ",\"service_tier\":\"standard_only\"");
    }
    return drop_member(r->drops, "service_tier", ANTHROPIC_TARGET, e);
}

static bool write_rest(const request *r, str *out) {
    const char  *user = neutral_text(r->body, "user");
    const cJSON *mark = neutral_get(r->body, "cache_control");
    if (user) {
        str_adds(out, ",\"metadata\":{\"user_id\":");
        str_jsons(out, user);
        str_addc(out, '}');
    }
    if (mark) {
        str_adds(out, ",\"cache_control\":");
        json_write(mark, out);
    }
    return str_adds(out, r->stream ? ",\"stream\":true}" : "}");
}

static const char *const carried[] = {"model",
                                      "messages",
                                      "max_tokens",
                                      "max_completion_tokens",
                                      "stream",
                                      "stream_options",
                                      "temperature",
                                      "top_p",
                                      "top_k",
                                      "stop",
                                      "tools",
                                      "tool_choice",
                                      "user",
                                      "thinking",
                                      "cache_control",
                                      "parallel_tool_calls",
                                      "service_tier",
                                      "response_format",
                                      "reasoning_effort",
                                      NULL};

/* A stream's usage comes without being asked for. */
bool anthropic_write_request(const request *r, const char *model, bool ask_usage, str *out, err *e) {
    (void)ask_usage;
    anthropic_thinking t;
    if (r->kind != REQUEST_CHAT) {
        return err_set(e, ERR_UNSUPPORTED, ANTHROPIC_TARGET " has chat alone: no completions, embeddings or rerank.");
    }
    if (r->from == &dialect_anthropic) {
        return anthropic_splice(r, model, out) || err_set(e, ERR_MEMORY, "Out of memory while writing a request.");
    }
    if (!neutral_carried(r, carried, ANTHROPIC_TARGET, e) || !anthropic_plan_thinking(r, model, &t, e)) {
        return false;
    }
    str_adds(out, "{\"model\":");
    str_jsons(out, model);
    str_addf(out, ",\"max_tokens\":%" PRId64 ",", t.max_tokens);
    if (!anthropic_build_messages(r, out, e) || !anthropic_build_tools(r, out, e) || !write_sampling(r, out, e) ||
        !write_output(r, &t, out, e) || !write_tier(r, out, e)) {
        return false;
    }
    return write_rest(r, out) || err_set(e, ERR_MEMORY, "Out of memory while writing a request.");
}
