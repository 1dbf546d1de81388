/* anthropic_read.c - a provider's whole answer, and what both it and a stream say of tokens and of the end. */
#include <stdlib.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

/* ---- usage ---- */

static void take(const cJSON *u, const char *key, int64_t *to) {
    if (cJSON_IsNumber(neutral_get(u, key))) {
        *to = neutral_count(u, key);
    }
}

/* Counts are cumulative: a later event repeats or raises what it knows and leaves the rest out. */
void anthropic_add_usage(const cJSON *u, anthropic_usage *sum) {
    if (!cJSON_IsObject(u)) {
        return;
    }
    const char *tier = neutral_text(u, "service_tier");
    sum->known = true;
    take(u, "input_tokens", &sum->input);
    take(u, "cache_read_input_tokens", &sum->read);
    take(u, "cache_creation_input_tokens", &sum->created);
    take(neutral_get(u, "cache_creation"), "ephemeral_1h_input_tokens", &sum->created_1h);
    take(u, "output_tokens", &sum->output);
    take(neutral_get(u, "output_tokens_details"), "thinking_tokens", &sum->thinking);
    take(neutral_get(u, "server_tool_use"), "web_search_requests", &sum->searches);
    if (tier) {
        sum->tier = strcmp(tier, "priority") == 0 ? TIER_PRIORITY
                    : strcmp(tier, "batch") == 0  ? TIER_BATCH
                                                  : TIER_STANDARD;
    }
}

/* input_tokens leaves out what was read from the cache and written to it; the neutral prompt is all of them. What was
 * written is for five minutes where it does not say an hour. */
usage anthropic_neutral_usage(const anthropic_usage *u) {
    int64_t an_hour = u->created_1h < u->created ? u->created_1h : u->created;
    return (usage){.prompt = u->input + u->read + u->created,
                   .completion = u->output,
                   .cached = u->read,
                   .reasoning = u->thinking < u->output ? u->thinking : u->output,
                   .write_5m = u->created - an_hour,
                   .write_1h = an_hour,
                   .searches = u->searches,
                   .tier = u->tier,
                   .known = u->known};
}

/* ---- the end ---- */

/* A paused turn is not the end of the answer, nor is a full context: both were cut off, as by length. */
const char *anthropic_finish(const char *stop_reason) {
    static const char *const words[][2] = {
        {"max_tokens", "length"},      {"model_context_window_exceeded", "length"},
        {"pause_turn", "length"},      {"tool_use", "tool_calls"},
        {"refusal", "content_filter"},
    };
    for (size_t i = 0; stop_reason && i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(words[i][0], stop_reason) == 0) {
            return words[i][1];
        }
    }
    return stop_reason ? "stop" : NULL; /* end_turn, stop_sequence, and what is not known yet */
}

/* ---- a whole answer ---- */

/* [{index, id, type, function: {name, arguments}}]; NULL: out of memory. */
static cJSON *call_of(const cJSON *block, int index) {
    str          arguments = {0};
    const cJSON *input = neutral_get(block, "input");
    const char  *id = neutral_text(block, "id"), *name = neutral_text(block, "name");
    cJSON       *calls = cJSON_CreateArray(), *call = cJSON_CreateObject();
    if (cJSON_IsObject(input)) {
        json_write(input, &arguments);
    } else {
        str_adds(&arguments, "{}");
    }
    bool   good = anthropic_append(calls, call, NULL);
    cJSON *function = good ? cJSON_AddObjectToObject(call, "function") : NULL;
    good = function && !arguments.failed && cJSON_AddNumberToObject(call, "index", index) &&
           cJSON_AddStringToObject(call, "id", id ? id : "") && cJSON_AddStringToObject(call, "type", "function") &&
           cJSON_AddStringToObject(function, "name", name ? name : "") &&
           cJSON_AddStringToObject(function, "arguments", arguments.data);
    str_free(&arguments);
    if (!good) {
        cJSON_Delete(calls);
        return NULL;
    }
    return calls;
}

static void set_text(const char *text, const char **to, size_t *n) {
    *to = text;
    *n = text ? strlen(text) : 0;
}

bool anthropic_narrows(const char *type, bool begun) {
    bool thinking = type && strcmp(type, "thinking") == 0;
    return thinking ? begun : !type || (strcmp(type, "text") != 0 && strcmp(type, "tool_use") != 0);
}

static size_t reasoning_of(const answer *a) {
    return a->n_choices > 0 ? a->choices[0].reasoning.len : 0;
}

/* A thinking block, or a redacted one. The first of them alone has its signature as it is. */
static bool add_thought(const cJSON *block, bool redacted, bool first, answer *out, event *ev, err *e) {
    const char *text = redacted ? NULL : neutral_text(block, "thinking");
    const char *signature = neutral_text(block, redacted ? "data" : "signature");
    str         marked = {0};
    if (first && !redacted) {
        str_adds(&marked, signature ? signature : "");
    } else {
        anthropic_mark_thought(reasoning_of(out), redacted, signature, &marked);
    }
    set_text(text, &ev->reasoning, &ev->reasoning_len);
    set_text(signature ? marked.data : NULL, &ev->signature, &ev->signature_len);
    bool good =
        marked.failed ? err_set(e, ERR_MEMORY, "Out of memory while reading an answer.") : answer_add(out, ev, e);
    str_free(&marked);
    return good;
}

/* Blocks of other types (results of the provider's own tools) are the provider's affair: raw bytes keep them. */
static bool add_block(const cJSON *block, int *n_calls, bool *thought, answer *out, err *e) {
    const char  *type = neutral_text(block, "type");
    const cJSON *citations = neutral_get(block, "citations");
    event        ev = {.kind = EVENT_DELTA};
    cJSON       *calls = NULL;
    ev.narrowed = anthropic_narrows(type, out->n_choices > 0) || (citations && citations->child);
    type = type ? type : "";
    if (strcmp(type, "text") == 0) {
        set_text(neutral_text(block, "text"), &ev.text, &ev.text_len);
    } else if (strcmp(type, "thinking") == 0 || strcmp(type, "redacted_thinking") == 0) {
        bool first = !*thought;
        *thought = true;
        return add_thought(block, type[0] == 'r', first, out, &ev, e);
    } else if (strcmp(type, "tool_use") == 0) {
        calls = call_of(block, (*n_calls)++);
        if (!calls) {
            return err_set(e, ERR_MEMORY, "Out of memory while reading an answer.");
        }
        ev.tool_calls = calls;
    }
    bool good = answer_add(out, &ev, e);
    cJSON_Delete(calls);
    return good;
}

static bool read_message(const cJSON *root, answer *out, err *e) {
    const cJSON *content = neutral_get(root, "content"), *block;
    const char  *reason = neutral_text(root, "stop_reason");
    const char  *error = neutral_error(root), *finish = anthropic_finish(reason);
    if (error) {
        return err_set(e, ERR_UPSTREAM, "The provider reported an error: %.400s", error);
    }
    if (!cJSON_IsArray(content)) {
        return err_set(e, ERR_UPSTREAM,
                       "The provider's answer has no content: it is not a message of Anthropic's API.");
    }
    anthropic_usage sum = {0};
    anthropic_add_usage(neutral_get(root, "usage"), &sum);
    usage u = anthropic_neutral_usage(&sum);
    event head = {.kind = EVENT_DELTA,
                  .id = neutral_text(root, "id"),
                  .model = neutral_text(root, "model"),
                  .text = "", /* an empty answer is one */
                  .finish = finish ? finish : "stop",
                  .narrowed = reason && strcmp(reason, "stop_sequence") == 0,
                  .usage = u.known ? &u : NULL};
    set_text(neutral_text(neutral_get(root, "stop_details"), "explanation"), &head.refusal, &head.refusal_len);
    int  n_calls = 0;
    bool thought = false;
    cJSON_ArrayForEach(block, content) {
        if (!add_block(block, &n_calls, &thought, out, e)) {
            return false;
        }
    }
    return answer_add(out, &head, e);
}

bool anthropic_read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e) {
    (void)kind;
    *out = (answer){0};
    cJSON *root = neutral_parse(body, n, "The provider's answer", e);
    if (!root) {
        return false;
    }
    bool good = read_message(root, out, e);
    cJSON_Delete(root);
    if (!good || !answer_keep_raw(out, body, n, &dialect_anthropic, e)) {
        answer_clear(out);
        return false;
    }
    return true;
}
