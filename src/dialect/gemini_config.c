/* gemini_config.c - tools, how the next tokens are chosen, how the answer looks, and how hard the model thinks. */
#include "dialect/gemini.h"

#include <inttypes.h>
#include <string.h>

#define MAX_STOPS 5 /* as the API has it */

static bool is(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

/* ---- tools ---- */

static bool check_function(gemini_writer *w, const cJSON *function, int i) {
    static const char *const carried[] = {"name", "description", "parameters", "strict"};
    const cJSON             *m;
    cJSON_ArrayForEach(m, function) {
        bool known = cJSON_IsNull(m);
        for (size_t k = 0; k < sizeof carried / sizeof carried[0]; k++) {
            known = known || is(m->string, carried[k]);
        }
        if (is(m->string, "cache_control")) {
            drop_hint(w->r->drops, "cache_control");
        } else if (!known && !gemini_drop(w, gemini_at("tools[%d].function.%.40s", i, m->string).text)) {
            return false;
        }
    }
    return true;
}

/* parametersJsonSchema takes JSON Schema as it stands; "parameters" would take a part of OpenAPI 3.0's schemas, without
 * $ref, $defs, const, or lists of types, which clients do send. */
static bool write_function(gemini_writer *w, const cJSON *function, const char **comma) {
    const char  *description = neutral_text(function, "description");
    const cJSON *parameters = neutral_get(function, "parameters");
    str_addf(w->out, "%s{\"name\":", *comma);
    str_jsons(w->out, neutral_text(function, "name"));
    if (description) {
        str_adds(w->out, ",\"description\":");
        str_jsons(w->out, description);
    }
    if (parameters) {
        str_adds(w->out, ",\"parametersJsonSchema\":");
        json_write(parameters, w->out);
    }
    *comma = ",";
    return str_addc(w->out, '}');
}

/* {"type": "allowed_tools", "allowed_tools": {"mode", "tools": [{"type", "name"} or {"type", "function": {"name"}}]}} */
static bool write_allowed(gemini_writer *w, const cJSON *allowed) {
    const char  *mode = neutral_text(allowed, "mode"), *comma = "";
    const cJSON *tool;
    str_addf(w->out, "\"mode\":\"%s\",\"allowedFunctionNames\":[", is(mode, "required") ? "ANY" : "VALIDATED");
    cJSON_ArrayForEach(tool, neutral_get(allowed, "tools")) {
        const cJSON *function = neutral_get(tool, "function");
        const char  *name = neutral_text(function ? function : tool, "name");
        if (!name) {
            return gemini_drop(w, "tool_choice.allowed_tools.tools");
        }
        str_adds(w->out, comma);
        str_jsons(w->out, name);
        comma = ",";
    }
    return str_addc(w->out, ']');
}

/* strict: calls that hold to their schema, which is the mode VALIDATED here (text or such a call). */
static bool write_choice(gemini_writer *w, bool strict) {
    const cJSON *choice = neutral_get(w->r->body, "tool_choice");
    const char  *word = cJSON_IsString(choice) ? choice->valuestring : choice ? neutral_text(choice, "type") : "auto";
    const char  *name = neutral_text(neutral_get(choice, "function"), "name");
    const char  *mode = is(word, "none")       ? "NONE"
                        : is(word, "required") ? "ANY"
                        : is(word, "auto")     ? (strict ? "VALIDATED" : "AUTO")
                                               : NULL;
    if (mode) {
        if (choice || strict) {
            str_addf(w->out, ",\"toolConfig\":{\"functionCallingConfig\":{\"mode\":\"%s\"}}", mode);
        }
        return true;
    }
    bool named = is(word, "function") && name, allowed = is(word, "allowed_tools");
    if (!named && !allowed) {
        return gemini_drop(w, "tool_choice");
    }
    str_adds(w->out, ",\"toolConfig\":{\"functionCallingConfig\":{");
    if (named) {
        str_adds(w->out, "\"mode\":\"ANY\",\"allowedFunctionNames\":[");
        str_jsons(w->out, name);
        str_addc(w->out, ']');
    } else if (!write_allowed(w, neutral_get(choice, "allowed_tools"))) {
        return false;
    }
    return str_adds(w->out, "}}");
}

bool gemini_write_tools(gemini_writer *w) {
    static const char open[] = ",\"tools\":[{\"functionDeclarations\":[";
    const char       *comma = open;
    const cJSON      *tool;
    bool              strict = false;
    int               i = 0;
    cJSON_ArrayForEach(tool, w->r->tools) {
        const cJSON *function = neutral_function(tool);
        bool         good = function ? check_function(w, function, i) && write_function(w, function, &comma)
                                     : gemini_drop(w, gemini_at("tools[%d]", i).text);
        if (!good) {
            return false;
        }
        if (neutral_get(tool, "cache_control")) {
            drop_hint(w->r->drops, "cache_control");
        }
        strict = strict || (function && cJSON_IsTrue(neutral_get(function, "strict")));
        i++;
    }
    if (comma == open) { /* nothing to choose from */
        const cJSON *choice = neutral_get(w->r->body, "tool_choice");
        const char  *word = cJSON_IsString(choice) ? choice->valuestring : "";
        return !choice || is(word, "none") || is(word, "auto") || gemini_drop(w, "tool_choice");
    }
    str_adds(w->out, "]}]");
    return write_choice(w, strict);
}

/* ---- thinking ---- */

/* Up to 2.5 models think by a number of tokens, which the API in OpenAI's form takes for these words. */
static int64_t budget_of(const char *effort) {
    return is(effort, "none")                           ? 0
           : is(effort, "minimal") || is(effort, "low") ? 1024
           : is(effort, "medium")                       ? 8192
                                                        : 24576;
}

/* From 3 on they have levels and cannot be told not to think. The lowest is for Flash models alone. */
static const char *level_of(const char *effort, const char *model) {
    bool least = is(effort, "none") || is(effort, "minimal");
    return least                  ? (strstr(model, "-pro") ? "low" : "minimal")
           : is(effort, "low")    ? "low"
           : is(effort, "medium") ? "medium"
                                  : "high";
}

static bool is_effort(const char *effort) {
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (is(effort, words[i])) {
            return true;
        }
    }
    return false;
}

/* Thoughts are shown to who asks for thinking: their tokens are paid either way. A budget says more than a word. */
static bool write_thinking(gemini_writer *w, const char **comma) {
    const cJSON *thinking = neutral_get(w->r->body, "thinking"), *said = neutral_get(w->r->body, "reasoning_effort");
    const char  *type = neutral_text(thinking, "type"), *effort = cJSON_GetStringValue(said);
    int64_t      budget = neutral_count(thinking, "budget_tokens");
    bool         off = is(type, "disabled"), on = is(type, "enabled") || is(type, "adaptive");
    if ((said && !is_effort(effort) && !gemini_drop(w, "reasoning_effort")) ||
        (thinking && !off && !on && !gemini_drop(w, "thinking"))) {
        return false;
    }
    effort = off ? "none" : is_effort(effort) ? effort : NULL;
    if (!effort && !on) {
        return true;
    }
    str_addf(w->out, "%s\"thinkingConfig\":{\"includeThoughts\":%s", *comma, is(effort, "none") ? "false" : "true");
    if (on && budget > 0) {
        str_addf(w->out, ",\"thinkingBudget\":%" PRId64, budget);
    } else if (effort && w->modern) {
        str_addf(w->out, ",\"thinkingLevel\":\"%s\"", level_of(effort, w->model));
    } else if (effort) {
        str_addf(w->out, ",\"thinkingBudget\":%" PRId64, budget_of(effort));
    }
    *comma = ",";
    return str_addc(w->out, '}');
}

/* ---- the answer's form ---- */

static bool check_format(gemini_writer *w, const cJSON *object, const char *where, const char *const *carried) {
    const cJSON *m;
    cJSON_ArrayForEach(m, object) {
        bool known = cJSON_IsNull(m);
        for (int i = 0; carried[i]; i++) {
            known = known || is(m->string, carried[i]);
        }
        if (!known && !gemini_drop(w, gemini_at("%s.%.40s", where, m->string).text)) {
            return false;
        }
    }
    return true;
}

/* responseJsonSchema for the reason given at write_function. It is held to always; "strict" changes nothing, and the name
 * is a label that the API in OpenAI's form demands. {"type": "json_object", "schema"} is llama.cpp's way of saying it. */
static bool write_schema(gemini_writer *w, const cJSON *format, bool named) {
    static const char *const inner_carried[] = {"schema", "name", "strict", NULL};
    static const char *const object_carried[] = {"type", "schema", NULL};
    const char              *where = named ? "response_format.json_schema" : "response_format";
    const cJSON             *holder = named ? neutral_get(format, "json_schema") : format;
    const cJSON             *schema = neutral_get(holder, "schema");
    if (!check_format(w, holder, where, named ? inner_carried : object_carried)) {
        return false;
    }
    if (!named && !schema) {
        return true;
    }
    if (!cJSON_IsObject(schema) && !cJSON_IsBool(schema)) {
        gemini_place p = gemini_at("%s.schema", where);
        return err_at(w->e, ERR_INVALID, p.text, "%s must be a JSON schema, not %s.", p.text,
                      schema ? json_kind(schema) : "missing");
    }
    str_adds(w->out, ",\"responseJsonSchema\":");
    return json_write(schema, w->out);
}

static bool write_format(gemini_writer *w, const char **comma) {
    const cJSON *format = neutral_get(w->r->body, "response_format");
    const char  *type = neutral_text(format, "type");
    if (!format || is(type, "text")) {
        return true;
    }
    if (!is(type, "json_object") && !is(type, "json_schema")) {
        return gemini_drop(w, "response_format");
    }
    str_addf(w->out, "%s\"responseMimeType\":\"application/json\"", *comma);
    *comma = ",";
    return write_schema(w, format, is(type, "json_schema"));
}

/* Text is all that answers hold. */
static bool check_modalities(gemini_writer *w) {
    const cJSON *m;
    cJSON_ArrayForEach(m, neutral_get(w->r->body, "modalities")) {
        if (!cJSON_IsString(m) || !is(m->valuestring, "text")) {
            return gemini_drop(w, "modalities");
        }
    }
    return true;
}

/* ---- sampling ---- */

static void write_number(gemini_writer *w, const char *from, const char *to, const char **comma) {
    const cJSON *value = neutral_get(w->r->body, from);
    if (cJSON_IsNumber(value)) {
        str_addf(w->out, "%s\"%s\":", *comma, to);
        json_write(value, w->out);
        *comma = ",";
    }
}

static void write_integer(gemini_writer *w, const char *name, int64_t value, const char **comma) {
    str_addf(w->out, "%s\"%s\":%" PRId64, *comma, name, value);
    *comma = ",";
}

static bool write_stops(gemini_writer *w, const char **comma) {
    const request *r = w->r;
    int            count = r->n_stop < MAX_STOPS ? r->n_stop : MAX_STOPS;
    if (r->n_stop > MAX_STOPS && !gemini_drop(w, gemini_at("stop[%d]", MAX_STOPS).text)) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        if (i == 0) {
            str_addf(w->out, "%s\"stopSequences\":[", *comma);
        }
        str_adds(w->out, i ? "," : "");
        str_jsons(w->out, r->stop[i]);
    }
    if (count > 0) {
        str_addc(w->out, ']');
        *comma = ",";
    }
    return true;
}

static bool write_sampling(gemini_writer *w, const char **comma) {
    const request *r = w->r;
    write_number(w, "temperature", "temperature", comma);
    write_number(w, "top_p", "topP", comma);
    if (r->top_k > 0) {
        write_integer(w, "topK", r->top_k, comma);
    }
    if (request_most(r) >= 0) {
        write_integer(w, "maxOutputTokens", request_most(r), comma);
    }
    if (r->n > 1) {
        write_integer(w, "candidateCount", r->n, comma);
    }
    write_number(w, "presence_penalty", "presencePenalty", comma);
    write_number(w, "frequency_penalty", "frequencyPenalty", comma);
    if (r->has_seed && (r->seed < INT32_MIN || r->seed > INT32_MAX)) { /* 32 bits there */
        if (!gemini_drop(w, "seed")) {
            return false;
        }
    } else if (r->has_seed) {
        write_integer(w, "seed", r->seed, comma);
    }
    if (r->logprobs) {
        str_addf(w->out, "%s\"responseLogprobs\":true", *comma);
        *comma = ",";
        if (r->top_logprobs > 0) {
            write_integer(w, "logprobs", r->top_logprobs, comma);
        }
    }
    return write_stops(w, comma);
}

bool gemini_write_config(gemini_writer *w) {
    static const char open[] = ",\"generationConfig\":{";
    const char       *comma = open;
    if (!check_modalities(w) || !write_sampling(w, &comma) || !write_format(w, &comma) || !write_thinking(w, &comma)) {
        return false;
    }
    if (w->detail) {
        str_addf(w->out, "%s\"mediaResolution\":\"MEDIA_RESOLUTION_%s\"", comma, is(w->detail, "low") ? "LOW" : "HIGH");
        comma = ",";
    }
    return str_adds(w->out, comma != open ? "}" : "");
}
