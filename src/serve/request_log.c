/* request_log.c - a line of the log for every exchange that has ended.
 *
 * Without `prompts` there is nothing in it of what clients and models say, not even the sentence of an error, which may
 * quote them. Keys are never in it.                                                                                   */
#include <string.h>

#include "base/hash.h"
#include "base/money.h"
#include "base/utf8.h"
#include "serve/observe.h"
#include "serve/otlp_parts.h"
#include "stage/counters.h"

#define MOST_CHARACTERS 2000 /* of a prompt and of an answer */
#define MOST_NAME       200  /* bytes of the model's name, which is the client's to write */

static const char *kind_word(request_kind kind) {
    static const char *const words[] = {"chat", "completion", "embeddings", "rerank"};
    return (size_t)kind < sizeof words / sizeof words[0] ? words[kind] : "other";
}

/* As many characters as there is still room for. */
static void add_text(str *out, size_t *room, const char *text) {
    size_t n = text ? strlen(text) : 0, at = 0;
    while (at<n && * room> 0) {
        uint32_t c;
        at += utf8_decode(text + at, n - at, &c);
        (*room)--;
    }
    str_add(out, text ? text : "", at);
}

static void add_prompt(const request *q, str *out) {
    size_t room = MOST_CHARACTERS;
    for (int i = 0; i < q->n_messages && room > 0; i++) {
        add_text(out, &room, i ? "\n" : "");
        add_text(out, &room, q->messages[i].role);
        add_text(out, &room, ": ");
        add_text(out, &room, q->messages[i].content);
    }
    add_text(out, &room, q->query);
    for (int i = 0; i < q->n_prompts && room > 0; i++) {
        add_text(out, &room, out->len ? "\n" : "");
        add_text(out, &room, q->prompts[i].text);
    }
}

static void add_answer(const exchange *x, str *out) {
    size_t room = MOST_CHARACTERS;
    if (x->hit) {
        str whole = {0}; /* a stored answer: JSON as it goes out */
        str_add(&whole, x->hit->body, x->hit->len < 4 * MOST_CHARACTERS ? x->hit->len : 4 * MOST_CHARACTERS);
        add_text(out, &room, whole.failed ? NULL : whole.data);
        str_free(&whole);
    }
    for (int i = 0; !x->hit && i < x->answer.n_choices && room > 0; i++) {
        add_text(out, &room, i ? "\n" : "");
        add_text(out, &room, x->answer.choices[i].text.data);
    }
}

static log_field text(const char *name, const char *value) {
    return (log_field){.name = name, .kind = LOG_TEXT, .text = value && *value ? value : NULL};
}

static log_field number(const char *name, log_kind kind, int64_t n) {
    return (log_field){.name = name, .kind = kind, .number = n};
}

/* How many fields. */
static int fill(const exchange *x, const char *model, log_field f[32]) {
    const usage *u = &x->answer.usage;
    bool         failed = x->failed.code != ERR_NONE;
    int          n = 0;
    f[n++] = text("id", x->id);
    f[n++] = text("kind", kind_word(x->kind));
    f[n++] = text("key", x->key ? x->key->name : NULL);
    f[n++] = text("address", x->address);
    f[n++] = text("model", model);
    f[n++] = text("stage", x->answered_stage);
    f[n++] = text("backend", x->answered_by);
    f[n++] = text("upstream", !x->asked_us || !x->target ? NULL : x->by_model ? x->by_model : x->target->upstream);
    f[n++] = number("stream", LOG_FLAG, x->request.stream);
    f[n++] = number("status", LOG_NUMBER, failed ? x->status : 200);
    f[n++] = text("outcome", counted_outcome_word((int)x->result));
    f[n++] = text("error", failed ? err_word(x->failed.code) : NULL);
    f[n++] = number("prompt_tokens", LOG_NUMBER, u->prompt);
    f[n++] = number("completion_tokens", LOG_NUMBER, u->completion);
    f[n++] = number("cached_tokens", LOG_NUMBER, u->cached);
    f[n++] = number("cost_usd", LOG_MICRO, money_micro(x->cost_nano));
    f[n++] = number("saved_usd", LOG_MICRO, money_micro(x->saved_nano));
    f[n++] = number("attempts", LOG_NUMBER, x->n_attempts);
    if (x->first_us) {
        f[n++] = number("first_ms", LOG_MILLI, x->first_us - x->arrived_us);
    }
    f[n++] = number("total_ms", LOG_MILLI, x->done_us - x->arrived_us);
    f[n++] = number("request_bytes", LOG_NUMBER, (int64_t)x->body_len);
    return n;
}

void request_log(const settings *s, const exchange *x) {
    log_level level = x->result == OUTCOME_ERROR ? LOG_WARN : LOG_INFO;
    if (!log_wants(level)) {
        return;
    }
    log_field   f[32];
    char        model[MOST_NAME + 1] = "", trace_id[33] = "";
    const char *named = x->request.model ? x->request.model : "";
    size_t      length = strnlen(named, MOST_NAME);
    memcpy(model, named, named[length] ? utf8_whole(named, length) : length);
    int n = fill(x, model, f);
    if (x->trace) { /* so that a line leads to its trace */
        hex_encode(x->trace->id, sizeof x->trace->id, trace_id);
        f[n++] = text("trace_id", trace_id);
    }
    str prompt = {0}, answer = {0};
    if (s->log_prompts) {
        add_prompt(&x->request, &prompt);
        add_answer(x, &answer);
        f[n++] = text("prompt", prompt.failed ? NULL : prompt.data);
        f[n++] = text("answer", answer.failed ? NULL : answer.data);
        f[n++] = text("error_text", x->failed.code != ERR_NONE ? x->failed.text : NULL);
    }
    log_event(level, "request", f, n);
    str_free(&prompt);
    str_free(&answer);
}
