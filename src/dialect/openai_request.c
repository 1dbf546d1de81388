/* openai_request.c - reads a client's request: every field pare acts on is checked, and what is wrong is named with its
 * place and in a sentence. Fields that pare does not know stay in the body and pass on to the provider.              */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"

#define MAX_PROMPTS       64
#define MAX_OUTPUT_TOKENS INT32_MAX

typedef struct place { /* "messages[2].content[0].text" */
    char text[112];
} place;

static __attribute__((format(printf, 1, 2))) place place_at(const char *format, ...) {
    place   p;
    va_list args;
    va_start(args, format);
    vsnprintf(p.text, sizeof p.text, format, args);
    va_end(args);
    return p;
}

static bool wrong_kind(const char *param, const char *wanted, const cJSON *value, err *e) {
    if (!value) {
        return err_at(e, ERR_INVALID, param, "%s is missing: it must be %s.", param, wanted);
    }
    return err_at(e, ERR_INVALID, param, "%s must be %s, not %s.", param, wanted, json_kind(value));
}

static bool out_of_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
}

/* ---- messages ---- */

static bool read_role(const cJSON *json, int i, message *m, err *e) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function"};
    const char              *role = neutral_text(json, "role");
    for (size_t k = 0; role && k < sizeof roles / sizeof roles[0]; k++) {
        if (strcmp(role, roles[k]) == 0) {
            m->role = role;
            return true;
        }
    }
    place p = place_at("messages[%d].role", i);
    if (!role) {
        return wrong_kind(p.text, "a string", json_member(json, "role"), e);
    }
    return err_at(e, ERR_INVALID, p.text,
                  "%s must be system, developer, user, assistant, tool or function, not \"%.40s\".", p.text, role);
}

static bool check_part(const cJSON *part, int i, int k, message *m, size_t *bytes, err *e) {
    if (!cJSON_IsObject(part)) {
        place p = place_at("messages[%d].content[%d]", i, k);
        return wrong_kind(p.text, "an object with a type", part, e);
    }
    const cJSON *type = json_member(part, "type");
    if (!cJSON_IsString(type)) {
        place p = place_at("messages[%d].content[%d].type", i, k);
        return wrong_kind(p.text, "a string", type, e);
    }
    if (strcmp(type->valuestring, "text") != 0) {
        m->plain = false; /* an image, a file, ...: for those who read the JSON */
        return true;
    }
    const cJSON *text = json_member(part, "text");
    if (!cJSON_IsString(text)) {
        place p = place_at("messages[%d].content[%d].text", i, k);
        return wrong_kind(p.text, "a string", text, e);
    }
    m->plain = m->plain && cJSON_GetArraySize(part) == 2;
    *bytes += strlen(text->valuestring) + 1;
    return true;
}

/* Parts join with a line feed, as vLLM and llama.cpp join them. */
static bool read_parts(const cJSON *parts, int i, arena *memory, message *m, err *e) {
    size_t       bytes = 1;
    int          k = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) {
        if (!check_part(part, i, k++, m, &bytes, e)) {
            return false;
        }
    }
    char *joined = arena_alloc(memory, bytes);
    if (!joined) {
        return out_of_memory(e);
    }
    char *at = joined;
    cJSON_ArrayForEach(part, parts) {
        if (strcmp(neutral_text(part, "type"), "text") != 0) { /* a string: check_part has looked */
            continue;
        }
        const char *text = neutral_text(part, "text");
        size_t      n = strlen(text);
        if (at > joined) {
            *at++ = '\n';
        }
        memcpy(at, text, n);
        at += n;
    }
    *at = '\0';
    m->content = joined;
    return true;
}

static bool read_message(const cJSON *json, int i, arena *memory, message *m, err *e) {
    if (!cJSON_IsObject(json)) {
        place p = place_at("messages[%d]", i);
        return wrong_kind(p.text, "an object with role and content", json, e);
    }
    *m = (message){.json = json, .plain = cJSON_GetArraySize(json) == 2};
    if (!read_role(json, i, m, e) || !m->role) {
        return false;
    }
    const cJSON *content = json_member(json, "content");
    if (cJSON_IsString(content)) {
        m->content = content->valuestring;
        return true;
    }
    if (cJSON_IsArray(content)) {
        return read_parts(content, i, memory, m, e);
    }
    bool may_lack = strcmp(m->role, "assistant") == 0 || strcmp(m->role, "tool") == 0;
    if (may_lack && (!content || cJSON_IsNull(content))) {
        m->plain = false;
        return true;
    }
    place p = place_at("messages[%d].content", i);
    return wrong_kind(p.text, "a string or an array of parts", content, e);
}

static bool read_messages(request *r, arena *memory, err *e) {
    const cJSON *messages = neutral_get(r->body, "messages");
    if (!cJSON_IsArray(messages)) {
        return wrong_kind("messages", "an array of messages", messages, e);
    }
    int count = cJSON_GetArraySize(messages);
    if (count == 0) {
        return err_at(e, ERR_INVALID, "messages", "messages is empty: send at least one message.");
    }
    r->messages = arena_zero(memory, (size_t)count, sizeof *r->messages);
    if (!r->messages) {
        return out_of_memory(e);
    }
    const cJSON *json;
    cJSON_ArrayForEach(json, messages) {
        if (!read_message(json, r->n_messages, memory, &r->messages[r->n_messages], e)) {
            return false;
        }
        r->n_messages++;
    }
    return true;
}

static bool read_tools(request *r, err *e) {
    const cJSON *tools = neutral_get(r->body, "tools");
    if (!tools) {
        return true;
    }
    if (!cJSON_IsArray(tools)) {
        return wrong_kind("tools", "an array", tools, e);
    }
    int          i = 0;
    const cJSON *tool;
    cJSON_ArrayForEach(tool, tools) {
        if (!cJSON_IsObject(tool)) {
            place p = place_at("tools[%d]", i);
            return wrong_kind(p.text, "an object", tool, e);
        }
        i++;
    }
    r->tools = i > 0 ? tools : NULL;
    return true;
}

/* ---- prompts ---- */

static bool read_ids(const cJSON *array, const char *where, arena *memory, prompt *out, err *e) {
    int count = cJSON_GetArraySize(array);
    if (count == 0) {
        return err_at(e, ERR_INVALID, where, "%s is empty: it needs at least one token.", where);
    }
    out->ids = arena_zero(memory, (size_t)count, sizeof *out->ids);
    if (!out->ids) {
        return out_of_memory(e);
    }
    const cJSON *id;
    cJSON_ArrayForEach(id, array) {
        double d = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (d < 0 || d > INT32_MAX || d != floor(d)) {
            place p = place_at("%s[%d]", where, out->n_ids);
            return err_at(e, ERR_INVALID, p.text, "%s must be a token id, an integer from 0 to %d.", p.text, INT32_MAX);
        }
        out->ids[out->n_ids++] = (int32_t)d;
    }
    return true;
}

static bool read_prompt_list(request *r, const cJSON *list, arena *memory, err *e) {
    bool         texts = cJSON_IsString(list->child);
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        prompt *out = &r->prompts[r->n_prompts];
        if (texts && cJSON_IsString(item)) {
            out->text = item->valuestring;
            r->n_prompts++;
            continue;
        }
        place p = place_at("prompt[%d]", r->n_prompts);
        if (texts || !cJSON_IsArray(item)) {
            return wrong_kind(p.text, texts ? "a string, as the first one is" : "an array of token ids", item, e);
        }
        if (!read_ids(item, p.text, memory, out, e)) {
            return false;
        }
        r->n_prompts++;
    }
    return true;
}

static bool read_prompts(request *r, arena *memory, err *e) {
    const cJSON *json = neutral_get(r->body, "prompt");
    int          count = cJSON_IsArray(json) ? cJSON_GetArraySize(json) : 1;
    bool         ids = cJSON_IsArray(json) && cJSON_IsNumber(json->child);
    if (!json && neutral_get(r->body, "messages")) {
        return err_at(e, ERR_INVALID, "prompt",
                      "prompt is missing; a request with messages belongs to /v1/chat/completions.");
    }
    if (!json || (!cJSON_IsString(json) && !cJSON_IsArray(json))) {
        return wrong_kind("prompt", "a string, an array of strings or token ids", json, e);
    }
    if (count == 0) {
        return err_at(e, ERR_INVALID, "prompt", "prompt is an empty array: send a text or token ids.");
    }
    if (!ids && count > MAX_PROMPTS) {
        return err_at(e, ERR_LIMIT, "prompt", "prompt holds %d prompts; one request takes %d at most.", count,
                      MAX_PROMPTS);
    }
    r->prompts = arena_zero(memory, ids ? 1 : (size_t)count, sizeof *r->prompts);
    if (!r->prompts) {
        return out_of_memory(e);
    }
    if (cJSON_IsArray(json) && !ids) {
        return read_prompt_list(r, json, memory, e);
    }
    r->n_prompts = 1;
    r->prompts[0].text = json->valuestring; /* NULL of an array */
    return !ids || read_ids(json, "prompt", memory, &r->prompts[0], e);
}

/* What completions once had and pare does not do. */
static bool refuse_old_fields(const request *r, err *e) {
    bool        echo = false;
    int64_t     best_of = 1;
    const char *suffix = "";
    if (!json_get_bool(r->body, "", "echo", &echo, e) ||
        !json_get_int(r->body, "", "best_of", 1, INT32_MAX, &best_of, e) ||
        !json_get_string(r->body, "", "suffix", &suffix, e)) {
        return false;
    }
    if (echo) {
        return err_at(e, ERR_UNSUPPORTED, "echo",
                      "echo is not supported: leave it out and put the prompt before the text yourself.");
    }
    if (best_of > 1) {
        return err_at(e, ERR_UNSUPPORTED, "best_of", "best_of is not supported: leave it out or send 1.");
    }
    if (suffix[0]) {
        return err_at(e, ERR_UNSUPPORTED, "suffix", "suffix is not supported: leave it out.");
    }
    return true;
}

/* ---- sampling ---- */

static bool add_stop(request *r, const cJSON *text, bool in_list, err *e) {
    if (cJSON_IsString(text) && text->valuestring[0]) {
        r->stop[r->n_stop++] = text->valuestring;
        return true;
    }
    place p = in_list ? place_at("stop[%d]", r->n_stop) : place_at("stop");
    if (!cJSON_IsString(text)) {
        return wrong_kind(p.text, "a string", text, e);
    }
    return err_at(e, ERR_INVALID, p.text, "%s is an empty string, at which everything would stop: leave it out.",
                  p.text);
}

static bool read_stop(request *r, err *e) {
    const cJSON *stop = neutral_get(r->body, "stop");
    if (!stop) {
        return true;
    }
    if (!cJSON_IsArray(stop)) {
        return cJSON_IsString(stop) ? add_stop(r, stop, false, e)
                                    : wrong_kind("stop", "a string or an array of strings", stop, e);
    }
    if (cJSON_GetArraySize(stop) > REQUEST_MAX_STOP) {
        return err_at(e, ERR_LIMIT, "stop", "stop holds more than %d strings.", REQUEST_MAX_STOP);
    }
    const cJSON *text;
    cJSON_ArrayForEach(text, stop) {
        if (!add_stop(r, text, true, e)) {
            return false;
        }
    }
    return true;
}

static bool read_max_tokens(request *r, err *e) {
    int64_t older = -1;
    int64_t newer = -1;
    if (!json_get_int(r->body, "", "max_tokens", 1, MAX_OUTPUT_TOKENS, &older, e) ||
        !json_get_int(r->body, "", "max_completion_tokens", 1, MAX_OUTPUT_TOKENS, &newer, e)) {
        return false;
    }
    r->max_tokens = newer > 0 ? newer : older;
    return true;
}

/* The tree holds doubles; a seed past 2^53 is read from the client's own bytes, so that neighbours stay different. */
static bool read_seed(request *r, err *e) {
    const cJSON *seed = neutral_get(r->body, "seed");
    r->has_seed = seed != NULL;
    if (!seed || !cJSON_IsNumber(seed) || fabs(seed->valuedouble) < 0x1p53) {
        return json_get_int(r->body, "", "seed", INT64_MIN, INT64_MAX, &r->seed, e);
    }
    size_t     at = 0;
    raw_member m;
    while (!r->from && raw_next(r->raw, r->raw_len, &at, &m)) {
        char text[32];
        if (m.value_len >= sizeof text || !raw_key_is(&m, "seed")) {
            continue;
        }
        memcpy(text, m.value, m.value_len);
        text[m.value_len] = '\0';
        if (strspn(text, "-0123456789") == m.value_len) {
            errno = 0;
            r->seed = strtoll(text, NULL, 10);
            return errno == 0 || err_at(e, ERR_INVALID, "seed", "seed must be an integer of 64 bits, not %s.", text);
        }
    }
    return json_get_int(r->body, "", "seed", INT64_MIN, INT64_MAX, &r->seed, e);
}

static bool read_sampling(request *r, err *e) {
    const cJSON *b = r->body;
    if (!json_get_number(b, "", "temperature", 0, 2, &r->temperature, e) ||
        !json_get_number(b, "", "top_p", 0, 1, &r->top_p, e) || !json_get_number(b, "", "min_p", 0, 1, &r->min_p, e) ||
        !json_get_int(b, "", "top_k", -1, INT32_MAX, &r->top_k, e) ||
        !json_get_number(b, "", "presence_penalty", -2, 2, &r->presence_penalty, e) ||
        !json_get_number(b, "", "frequency_penalty", -2, 2, &r->frequency_penalty, e) ||
        !json_get_number(b, "", "repeat_penalty", 0, 100, &r->repeat_penalty, e) ||
        !json_get_bool(b, "", "ignore_eos", &r->ignore_eos, e)) {
        return false;
    }
    const char *penalty = neutral_get(b, "repetition_penalty") ? "repetition_penalty" : "repeat_penalty";
    if (!json_get_number(b, "", "repetition_penalty", 0, 100, &r->repeat_penalty, e)) {
        return false;
    }
    if (r->repeat_penalty <= 0) {
        return err_at(e, ERR_INVALID, penalty, "%s must be above 0; 1 means no penalty.", penalty);
    }
    if (r->top_p <= 0) {
        return err_at(e, ERR_INVALID, "top_p",
                      "top_p must be above 0; for the likeliest token every time set temperature to 0.");
    }
    if (r->top_k < 0) {
        r->top_k = 0; /* vLLM's -1: all tokens */
    }
    return read_seed(r, e) && read_stop(r, e) && read_max_tokens(r, e);
}

/* ---- what the answer looks like ---- */

static bool read_logprobs(request *r, err *e) {
    int64_t top = 0;
    if (r->kind == REQUEST_COMPLETION) { /* the older form: a number, which is also the wish */
        if (!json_get_int(r->body, "", "logprobs", 0, 5, &top, e)) {
            return false;
        }
        r->logprobs = neutral_get(r->body, "logprobs") != NULL;
    } else {
        if (!json_get_bool(r->body, "", "logprobs", &r->logprobs, e) ||
            !json_get_int(r->body, "", "top_logprobs", 0, 20, &top, e)) {
            return false;
        }
        if (top > 0 && !r->logprobs) {
            return err_at(e, ERR_INVALID, "top_logprobs", "top_logprobs needs \"logprobs\": true beside it.");
        }
    }
    r->top_logprobs = (int)top;
    return true;
}

static bool read_stream(request *r, err *e) {
    const cJSON *options = neutral_get(r->body, "stream_options");
    if (!json_get_bool(r->body, "", "stream", &r->stream, e)) {
        return false;
    }
    if (!options) {
        return true;
    }
    if (!cJSON_IsObject(options)) {
        return wrong_kind("stream_options", "an object", options, e);
    }
    if (!r->stream) {
        return err_at(e, ERR_INVALID, "stream_options", "stream_options needs \"stream\": true beside it.");
    }
    return json_get_bool(options, "stream_options", "include_usage", &r->include_usage, e);
}

static bool read_common(request *r, err *e) {
    if (!cJSON_IsObject(r->body)) {
        return err_set(e, ERR_INVALID, "The body must be a JSON object, not %s.", json_kind(r->body));
    }
    const cJSON *model = neutral_get(r->body, "model");
    if (!cJSON_IsString(model)) {
        return wrong_kind("model", "the name of a model (GET /v1/models lists them)", model, e);
    }
    if (!model->valuestring[0]) {
        return err_at(e, ERR_INVALID, "model", "model is empty: name one of those that GET /v1/models lists.");
    }
    r->model = model->valuestring;
    const char *user = NULL;
    r->n = 1;
    return json_get_int(r->body, "", "n", 1, 128, &r->n, e) && json_get_string(r->body, "", "user", &user, e);
}

bool openai_read_fields(request *r, arena *memory, err *e) {
    if (r->kind == REQUEST_EMBEDDINGS || r->kind == REQUEST_RERANK) {
        return read_common(r, e) &&
               (r->kind == REQUEST_RERANK ? openai_read_rerank(r, memory, e) : openai_read_embeddings(r, memory, e));
    }
    if (!read_common(r, e) || !read_stream(r, e) || !read_sampling(r, e) || !read_logprobs(r, e)) {
        return false;
    }
    if (r->kind == REQUEST_COMPLETION) {
        return refuse_old_fields(r, e) && read_prompts(r, memory, e);
    }
    return read_tools(r, e) && read_messages(r, memory, e);
}

/* The sentences of base/json.h have no full stop; those that reach a client have. */
void openai_end_sentence(err *e) {
    size_t n = e ? strlen(e->text) : 0;
    if (n > 0 && n + 1 < sizeof e->text && e->text[n - 1] != '.') {
        e->text[n] = '.';
        e->text[n + 1] = '\0';
    }
}

bool openai_read_request(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e) {
    neutral_begin(kind, body, n, NULL, out);
    out->body = json_parse(body, n, JSON_MAX_DEPTH, e);
    if (out->body && openai_read_fields(out, memory, e)) {
        return true;
    }
    neutral_fail(out, out->model, memory, e);
    return false;
}
