/* anthropic_request.c - a client's request in the Messages API, checked and put into the neutral form.
 *
 * Places in sentences are the client's. A member that no other API has stays at the top of the neutral body under its own
 * name, where a target that cannot carry it finds it; Anthropic itself gets the client's own bytes.                 */
#include <limits.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

/* max_tokens 0 asks the provider to fill its prompt cache and to answer nothing. The neutral form has no such number: it
 * becomes one token, and this member, which keeps the two questions apart and which other targets name. */
#define CACHE_ONLY "max_tokens=0"

static bool put_text(cJSON *body, const char *key, const char *text, err *e) {
    return anthropic_put(body, key, cJSON_CreateString(text), e);
}

static bool read_max_tokens(const cJSON *client, bool counting, cJSON *body, err *e) {
    const cJSON *given = neutral_get(client, "max_tokens");
    int64_t      most = -1;
    if (!json_get_int(client, "", "max_tokens", 0, INT32_MAX, &most, e)) {
        return false;
    }
    if (!given) {
        return counting || anthropic_wrong("max_tokens", "the most tokens that the answer may take", given, e);
    }
    if (most == 0 && !anthropic_put(body, CACHE_ONLY, cJSON_CreateTrue(), e)) {
        return false;
    }
    return anthropic_put(body, "max_tokens", cJSON_CreateNumber(most > 0 ? (double)most : 1), e);
}

static bool read_stop(const cJSON *client, cJSON *body, err *e) {
    const cJSON *stop = neutral_get(client, "stop_sequences");
    if (!stop) {
        return true;
    }
    if (!cJSON_IsArray(stop)) {
        return anthropic_wrong("stop_sequences", "an array of strings", stop, e);
    }
    if (cJSON_GetArraySize(stop) > REQUEST_MAX_STOP) {
        return err_at(e, ERR_LIMIT, "stop_sequences", "stop_sequences holds more than %d strings.", REQUEST_MAX_STOP);
    }
    int          i = 0;
    const cJSON *text;
    cJSON_ArrayForEach(text, stop) {
        anthropic_place p = anthropic_at("stop_sequences[%d]", i++);
        if (!cJSON_IsString(text)) {
            return anthropic_wrong(p.text, "a string", text, e);
        }
        if (!text->valuestring[0]) {
            return err_at(e, ERR_INVALID, p.text,
                          "%s is an empty string, at which everything would stop: leave it out.", p.text);
        }
    }
    return !stop->child || anthropic_copy(body, "stop", stop, e);
}

/* -1 is how clients say that they set nothing (LangChain always sends it), and the API takes it so. */
static bool is_unset(const cJSON *value) {
    return cJSON_IsNumber(value) && value->valuedouble == -1;
}

static bool read_sampling(const cJSON *client, cJSON *body, err *e) {
    static const char *const names[] = {"temperature", "top_p", "top_k"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const cJSON *value = neutral_get(client, names[i]);
        double       number;
        int64_t      k;
        if (!value || is_unset(value)) {
            continue;
        }
        bool good = strcmp(names[i], "top_k") == 0 ? json_get_int(client, "", names[i], 0, INT32_MAX, &k, e)
                                                   : json_get_number(client, "", names[i], 0, 1, &number, e);
        if (!good || !anthropic_copy(body, names[i], value, e)) {
            return false;
        }
    }
    return true;
}

/* A stream of this API always ends with its usage. */
static bool read_stream(const cJSON *client, cJSON *body, err *e) {
    bool stream = false;
    if (!json_get_bool(client, "", "stream", &stream, e)) {
        return false;
    }
    if (!stream) {
        return true;
    }
    cJSON *options = cJSON_CreateObject();
    if (!anthropic_put(body, "stream", cJSON_CreateTrue(), e)) {
        cJSON_Delete(options);
        return false;
    }
    return anthropic_put(body, "stream_options", options, e) &&
           anthropic_put(options, "include_usage", cJSON_CreateTrue(), e);
}

static bool read_metadata(const cJSON *client, cJSON *body, err *e) {
    const cJSON *metadata = neutral_get(client, "metadata");
    const char  *user = NULL;
    if (metadata && !cJSON_IsObject(metadata)) {
        return anthropic_wrong("metadata", "an object", metadata, e);
    }
    return json_get_string(metadata, "metadata", "user_id", &user, e) && (!user || put_text(body, "user", user, e));
}

static bool read_tier(const cJSON *client, cJSON *body, err *e) {
    const char *tier = NULL;
    if (!json_get_string(client, "", "service_tier", &tier, e)) {
        return false;
    }
    return !tier || put_text(body, "service_tier", strcmp(tier, "standard_only") == 0 ? "default" : tier, e);
}

/* ---- thinking, effort and the form of the answer ---- */

static bool read_thinking(const cJSON *client, cJSON *body, err *e) {
    const cJSON *thinking = neutral_get(client, "thinking"), *type = neutral_get(thinking, "type");
    int64_t      budget = 0;
    if (!thinking) {
        return true;
    }
    if (!cJSON_IsObject(thinking)) {
        return anthropic_wrong("thinking", "an object with a type", thinking, e);
    }
    if (!cJSON_IsString(type)) {
        return anthropic_wrong("thinking.type", "\"enabled\", \"adaptive\" or \"disabled\"", type, e);
    }
    if (!json_get_int(thinking, "thinking", "budget_tokens", ANTHROPIC_MIN_BUDGET, INT32_MAX, &budget, e)) {
        return false;
    }
    if (strcmp(type->valuestring, "enabled") == 0 && budget == 0) {
        return anthropic_wrong("thinking.budget_tokens", "the most tokens to think with", NULL, e);
    }
    return anthropic_copy(body, "thinking", thinking, e);
}

static bool read_format(const cJSON *format, const char *where, cJSON *body, err *e) {
    const cJSON    *schema = neutral_get(format, "schema");
    const char     *type = neutral_text(format, "type");
    anthropic_place p = anthropic_at("%s.type", where);
    if (!cJSON_IsObject(format)) {
        return anthropic_wrong(where, "an object with a type", format, e);
    }
    if (!type || strcmp(type, "json_schema") != 0) {
        return err_at(e, ERR_INVALID, p.text, "%s must be \"json_schema\".", p.text);
    }
    p = anthropic_at("%s.schema", where);
    if (!cJSON_IsObject(schema)) {
        return anthropic_wrong(p.text, "a JSON schema", schema, e);
    }
    cJSON *out = cJSON_CreateObject(), *inner = cJSON_CreateObject();
    if (!anthropic_put(body, "response_format", out, e)) {
        cJSON_Delete(inner);
        return false;
    }
    return anthropic_put(out, "json_schema", inner, e) && put_text(out, "type", "json_schema", e) &&
           put_text(inner, "name", "answer", e) && anthropic_copy(inner, "schema", schema, e) &&
           anthropic_put(inner, "strict", cJSON_CreateTrue(), e);
}

/* output_config: {effort, format}; what else it may hold is Anthropic's alone. output_format is its older place. */
static bool read_output(const cJSON *client, cJSON *body, err *e) {
    const cJSON *config = neutral_get(client, "output_config"), *older = neutral_get(client, "output_format");
    const cJSON *format = neutral_get(config, "format");
    const char  *effort = NULL;
    if (config && !cJSON_IsObject(config)) {
        return anthropic_wrong("output_config", "an object", config, e);
    }
    if (format && older) {
        return err_at(e, ERR_INVALID, "output_format",
                      "output_format is the older name of output_config.format: "
                      "leave one of them out.");
    }
    if (!json_get_string(config, "output_config", "effort", &effort, e) ||
        (effort && !put_text(body, "reasoning_effort", effort, e)) ||
        (format && !read_format(format, "output_config.format", body, e)) ||
        (older && !read_format(older, "output_format", body, e))) {
        return false;
    }
    const cJSON *m;
    cJSON       *rest = NULL;
    cJSON_ArrayForEach(m, config) {
        if (strcmp(m->string, "effort") == 0 || strcmp(m->string, "format") == 0 || cJSON_IsNull(m)) {
            continue;
        }
        if (!rest) {
            rest = cJSON_CreateObject();
            if (!anthropic_put(body, "output_config", rest, e)) {
                return false;
            }
        }
        if (!anthropic_copy(rest, m->string, m, e)) {
            return false;
        }
    }
    return true;
}

/* ---- all of it ---- */

static const char *const known[] = {"model",          "max_tokens",  "messages",      "system",
                                    "stop_sequences", "temperature", "top_p",         "top_k",
                                    "stream",         "metadata",    "service_tier",  "thinking",
                                    "tools",          "tool_choice", "output_config", "output_format"};

static bool is_known(const char *key) {
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i], key) == 0) {
            return true;
        }
    }
    return false;
}

/* One of the body's members up to and with `last`. */
static bool is_taken(const cJSON *body, const cJSON *last, const char *key) {
    const cJSON *m = body->child;
    while (strcmp(m->string, key) != 0 && m != last) {
        m = m->next;
    }
    return strcmp(m->string, key) == 0;
}

/* Only what the members above became is looked through, not what is added here: a client may send very many others, and
 * no two of one name (base/json.h). */
static bool keep_others(const cJSON *client, cJSON *body, err *e) {
    const cJSON *m, *last = body->child->prev; /* cJSON's first child knows the last; there is a model at least */
    cJSON_ArrayForEach(m, client) {
        if (is_known(m->string) || cJSON_IsNull(m)) {
            continue;
        }
        if (is_taken(body, last, m->string)) {
            return err_at(e, ERR_INVALID, m->string,
                          "%s is not a member of the Messages API, and says what another member says: leave it out.",
                          m->string);
        }
        if (!anthropic_copy(body, m->string, m, e)) {
            return false;
        }
    }
    return true;
}

static bool read_members(const cJSON *client, bool counting, cJSON *body, err *e) {
    const cJSON *model = neutral_get(client, "model");
    if (!cJSON_IsString(model) || !model->valuestring[0]) {
        return anthropic_wrong("model", "the name of a model (GET /v1/models lists them)", model, e);
    }
    cJSON *messages = cJSON_CreateArray();
    if (!anthropic_copy(body, "model", model, e)) {
        cJSON_Delete(messages);
        return false;
    }
    return anthropic_put(body, "messages", messages, e) && read_max_tokens(client, counting, body, e) &&
           anthropic_read_system(client, messages, e) && anthropic_read_messages(client, messages, e) &&
           anthropic_read_tools(client, body, e) && read_sampling(client, body, e) && read_stop(client, body, e) &&
           read_stream(client, body, e) && read_metadata(client, body, e) && read_tier(client, body, e) &&
           read_thinking(client, body, e) && read_output(client, body, e) && keep_others(client, body, e);
}

static bool read_any(request_kind kind, bool counting, const char *raw, size_t n, arena *memory, request *out, err *e) {
    neutral_begin(kind, raw, n, &dialect_anthropic, out);
    out->client = json_parse(raw, n, JSON_MAX_DEPTH, e);
    bool good = out->client != NULL;
    if (good && !cJSON_IsObject(out->client)) {
        good = err_set(e, ERR_INVALID, "The body must be a JSON object, not %s.", json_kind(out->client));
    }
    if (good && kind != REQUEST_CHAT) {
        good = err_set(e, ERR_UNSUPPORTED, "The Messages API has messages alone.");
    }
    if (good) {
        out->body = cJSON_CreateObject();
        good = out->body ? read_members(out->client, counting, out->body, e) && neutral_read(out, memory, e)
                         : err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
    }
    if (good && out->n > 1) { /* not a member of this API, and others would make and bill them */
        good = err_at(e, ERR_UNSUPPORTED, "n", "n must be 1: a message is one answer.");
    }
    if (!good) {
        neutral_fail(out, neutral_text(out->client, "model"), memory, e);
        return false;
    }
    out->narrowed = anthropic_narrow(out->client);
    return true;
}

bool anthropic_read_request(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e) {
    return read_any(kind, false, body, n, memory, out, e);
}

bool anthropic_read_count(const char *body, size_t n, arena *memory, request *out, err *e) {
    return read_any(REQUEST_CHAT, true, body, n, memory, out, e);
}
