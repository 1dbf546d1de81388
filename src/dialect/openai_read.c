/* openai_read.c - what a provider says: a whole answer or one chunk of a stream. Servers that call themselves
 * compatible differ in small things, so this reads generously: what is absent or odd is taken as not said.           */
#include <stdlib.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"

static usage_tier tier_of(const char *name) {
    return !name                           ? TIER_STANDARD
           : strcmp(name, "flex") == 0     ? TIER_FLEX
           : strcmp(name, "priority") == 0 ? TIER_PRIORITY
           : strcmp(name, "batch") == 0    ? TIER_BATCH
                                           : TIER_STANDARD;
}

static bool read_usage(const cJSON *root, usage *out) {
    const cJSON *u = json_member(root, "usage");
    if (!cJSON_IsObject(u)) {
        return false;
    }
    const cJSON *in = json_member(u, "prompt_tokens_details");
    const cJSON *made = json_member(u, "completion_tokens_details");
    *out = (usage){.prompt = neutral_count(u, "prompt_tokens"),
                   .completion = neutral_count(u, "completion_tokens"),
                   .cached = neutral_count(in, "cached_tokens"),
                   .reasoning = neutral_count(made, "reasoning_tokens"),
                   .audio_in = neutral_count(in, "audio_tokens"),
                   .image_in = neutral_count(in, "image_tokens"),
                   .write_5m = neutral_count(in, "cache_write_tokens"),
                   .audio_out = neutral_count(made, "audio_tokens"),
                   .tier = tier_of(neutral_text(root, "service_tier")),
                   .known = true};
    if (out->cached == 0) {
        out->cached = neutral_count(u, "prompt_cache_hit_tokens"); /* as DeepSeek says it */
    }
    return true;
}

/* The provider's own sentence, when this is an error and not an answer. */
static bool refuse_error(const cJSON *root, const char *when, err *e) {
    const cJSON *error = json_member(root, "error");
    if (!error || cJSON_IsNull(error)) {
        return true;
    }
    const char *sentence = cJSON_IsString(error) ? error->valuestring : neutral_text(error, "message");
    return err_set(e, ERR_UPSTREAM, "The provider reported an error%s: %.400s", when,
                   sentence && sentence[0] ? sentence : "it did not say which.");
}

static int index_of(const cJSON *choice, int otherwise) {
    const cJSON *index = json_member(choice, "index");
    return cJSON_IsNumber(index) ? index->valueint : otherwise;
}

/* ---- one choice, whole or a delta, as an event ---- */

static void set_text(const char *text, const char **to, size_t *n) {
    *to = text;
    *n = text ? strlen(text) : 0;
}

/* `owned` takes what must be freed behind the event. */
static void read_choice(request_kind kind, const cJSON *json, const char *message, event *ev, cJSON **owned) {
    const cJSON *m = kind == REQUEST_CHAT ? json_member(json, message) : json;
    const cJSON *logprobs = json_member(json, "logprobs");
    const cJSON *calls = json_member(m, "tool_calls");
    set_text(neutral_text(m, kind == REQUEST_CHAT ? "content" : "text"), &ev->text, &ev->text_len);
    const char *reasoning = neutral_text(m, "reasoning_content");
    set_text(reasoning ? reasoning : neutral_text(m, "reasoning"), &ev->reasoning, &ev->reasoning_len);
    set_text(neutral_text(m, "refusal"), &ev->refusal, &ev->refusal_len);
    set_text(neutral_text(m, "reasoning_signature"), &ev->signature, &ev->signature_len);
    ev->tool_calls = cJSON_IsArray(calls) ? calls : NULL;
    const char *finish = neutral_text(json, "finish_reason");
    ev->finish = finish && finish[0] ? finish : NULL;
    const cJSON *content = json_member(logprobs, "content");
    if (cJSON_IsArray(content)) {
        ev->logprobs = content;
    } else if (json_member(logprobs, "tokens")) {
        *owned = logprobs_from_completion(logprobs);
        ev->logprobs = *owned;
    }
}

static void read_head(const cJSON *root, event *ev) {
    ev->kind = EVENT_DELTA;
    ev->id = neutral_text(root, "id");
    ev->model = neutral_text(root, "model");
    ev->created = neutral_count(root, "created");
}

/* ---- a whole answer ---- */

/* A message's content as a list of parts (some servers): the texts one after another. */
static bool join_parts(const cJSON *content, str *out) {
    const cJSON *part;
    cJSON_ArrayForEach(part, content) {
        const char *text = neutral_text(part, "text");
        if (text) {
            str_adds(out, text);
        }
    }
    return !out->failed;
}

/* Deltas of tool calls carry an index, whole calls do not: let them differ by their place. */
static void number_calls(cJSON *calls) {
    int    i = 0;
    cJSON *call;
    cJSON_ArrayForEach(call, calls) {
        if (cJSON_IsObject(call)) {
            cJSON_DeleteItemFromObjectCaseSensitive(call, "index");
            cJSON_AddNumberToObject(call, "index", i++);
        }
    }
}

/* `json` is a part of a tree that nobody reads afterwards. */
static bool read_answer_choice(request_kind kind, cJSON *json, int position, const event *head, answer *out, err *e) {
    event  ev = *head;
    cJSON *owned = NULL;
    str    joined = {0};
    ev.choice = index_of(json, position);
    read_choice(kind, json, "message", &ev, &owned);
    const cJSON *content = json_member(json_member(json, "message"), "content");
    if (cJSON_IsArray(content) && join_parts(content, &joined) && joined.data) {
        ev.text = joined.data;
        ev.text_len = joined.len;
    }
    if (!ev.text && !ev.finish) {
        ev.text = ""; /* an empty choice is a choice */
    }
    if (ev.tool_calls) {
        cJSON *holder = kind == REQUEST_CHAT ? cJSON_GetObjectItemCaseSensitive(json, "message") : json;
        number_calls(cJSON_GetObjectItemCaseSensitive(holder, "tool_calls"));
    }
    bool good = answer_add(out, &ev, e);
    cJSON_Delete(owned);
    str_free(&joined);
    return good;
}

static bool read_choices(request_kind kind, const cJSON *root, answer *out, err *e) {
    const cJSON *choices = json_member(root, "choices");
    if (!refuse_error(root, "", e)) {
        return false;
    }
    if (!cJSON_IsArray(choices) || !choices->child) {
        return err_set(e, ERR_UPSTREAM, "The provider's answer has no choices: it is not an answer of the OpenAI API.");
    }
    event head = {0};
    read_head(root, &head);
    usage u;
    head.usage = read_usage(root, &u) ? &u : NULL;
    int    position = 0;
    cJSON *json;
    cJSON_ArrayForEach(json, choices) {
        if (!read_answer_choice(kind, json, position++, &head, out, e)) {
            return false;
        }
    }
    return true;
}

bool openai_read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e) {
    if (kind == REQUEST_EMBEDDINGS || kind == REQUEST_RERANK) {
        return openai_read_values(body, n, out, e);
    }
    *out = (answer){0};
    cJSON *root = neutral_parse(body, n, "The provider's answer", e);
    if (!root) {
        return false;
    }
    bool good = read_choices(kind, root, out, e);
    cJSON_Delete(root);
    if (!good || !answer_keep_raw(out, body, n, &dialect_openai, e)) {
        answer_clear(out);
        return false;
    }
    return true;
}

/* ---- one chunk ---- */

static bool is_done(const char *data, size_t n) {
    while (n > 0 && (data[n - 1] == ' ' || data[n - 1] == '\t')) {
        n--;
    }
    return n == 6 && memcmp(data, "[DONE]", 6) == 0;
}

static bool emit_chunk(request_kind kind, const cJSON *root, const char *data, size_t n,
                       void (*emit)(void *, const event *), void *ctx, err *e) {
    usage        u;
    bool         has_usage = read_usage(root, &u);
    event        head = {.raw = data, .raw_len = n, .raw_dialect = &dialect_openai};
    const cJSON *choices = json_member(root, "choices");
    const cJSON *json = cJSON_IsArray(choices) ? choices->child : NULL;
    read_head(root, &head);
    if (!json) { /* usage alone, or a frame that only passes through */
        head.usage = has_usage ? &u : NULL;
        emit(ctx, &head);
        return true;
    }
    for (int position = 0; json; json = json->next, position++) {
        event  ev = head;
        cJSON *owned = NULL;
        ev.choice = index_of(json, position);
        if (ev.choice < 0 || ev.choice >= OPENAI_MAX_CHOICES) {
            return err_set(e, ERR_UPSTREAM, "The provider's stream has a choice with the number %d.", ev.choice);
        }
        read_choice(kind, json, "delta", &ev, &owned);
        ev.usage = has_usage && !json->next ? &u : NULL;
        emit(ctx, &ev);
        cJSON_Delete(owned);
        head.raw = NULL; /* raw_dialect stays: the bytes of this payload have been passed on with its first event */
        head.raw_len = 0;
    }
    return true;
}

bool openai_read_any(request_kind kind, const char *data, size_t n, void (*emit)(void *, const event *), void *ctx,
                     err *e) {
    cJSON *root = neutral_parse(data, n, "A chunk of the provider's stream", e);
    if (!root) {
        return false;
    }
    bool good = refuse_error(root, " in the middle of the stream", e) && emit_chunk(kind, root, data, n, emit, ctx, e);
    cJSON_Delete(root);
    return good;
}

bool openai_read_chunk(request_kind kind, void *state, const char *data, size_t n, void (*emit)(void *, const event *),
                       void *ctx, bool *done, err *e) {
    (void)state;
    *done = is_done(data, n);
    return *done || (kind == REQUEST_CHAT && openai_read_ordinary(data, n, emit, ctx)) ||
           openai_read_any(kind, data, n, emit, ctx, e);
}
