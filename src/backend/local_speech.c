/* local_speech.c - what a model says, from the engine's pieces to events: text, reasoning and tool calls. */
#include <stdlib.h>
#include <string.h>

#include "backend/local.h"
#include "base/hash.h"

struct local_speech {
    speech          *s;
    event            next; /* choice and logprobs of the next event */
    backend_event_fn fn;
    void            *ctx;
    int64_t          reasoned;
    const char      *expected;   /* see local_speech_expect; NULL: none, or it was said */
    bool             only_calls; /* the answer is held to them: what else is left of it is a mark that was cut off */
    bool             failed;
};

/* ---- events ---- */

static void send(local_speech *s, event ev) {
    ev.kind = EVENT_DELTA;
    ev.choice = s->next.choice;
    ev.logprobs = s->next.logprobs;
    s->next.logprobs = NULL;
    s->fn(s->ctx, &ev);
}

/* [{"index": 0, "id": ..., "type": "function", "function": {"name": ..., "arguments": ""}}], and then
 * [{"index": 0, "function": {"arguments": "a piece"}}]. */
static void send_call(local_speech *s, const speech_delta *d) {
    bool   begins = d->kind == SPEECH_CALL;
    cJSON *list = cJSON_CreateArray(), *call = cJSON_CreateObject();
    bool   ok = cJSON_AddItemToArray(list, call);
    if (!ok) {
        cJSON_Delete(call);
        call = NULL;
    }
    ok = ok && cJSON_AddNumberToObject(call, "index", d->index);
    if (begins) {
        ok = ok && cJSON_AddStringToObject(call, "id", d->id) && cJSON_AddStringToObject(call, "type", "function");
    }
    cJSON *function = cJSON_AddObjectToObject(call, "function");
    ok = ok && (!begins || cJSON_AddStringToObject(function, "name", d->name)) &&
         cJSON_AddStringToObject(function, "arguments", begins ? "" : d->text);
    if (ok) {
        send(s, (event){.tool_calls = list});
    }
    s->failed = s->failed || !ok;
    cJSON_Delete(list);
}

static void on_delta(void *ctx, const speech_delta *d) {
    local_speech *s = ctx;
    if (d->kind == SPEECH_TEXT && s->only_calls) {
        return;
    }
    if (d->kind == SPEECH_TEXT) {
        send(s, (event){.text = d->text, .text_len = d->len});
    } else if (d->kind == SPEECH_REASONING) {
        send(s, (event){.reasoning = d->text, .reasoning_len = d->len});
    } else {
        send_call(s, d);
    }
}

/* ---- a choice ---- */

bool local_speech_open(const local_backend *b, const request *r, bool thinks, int *shown, local_speech **out, err *e) {
    speech_format  f = local_must_call(r) ? speech_format_held(&b->speech) : b->speech;
    speech_options o = {.tools = local_tools(r), .thinks = thinks, .tell = on_delta};
    *shown = 0;
    *out = NULL;
    if (r->kind != REQUEST_CHAT || (!f.think_open && !(o.tools && f.calls))) {
        return true;
    }
    local_speech *s = calloc(1, sizeof(*s));
    random_bytes(&o.salt, sizeof(o.salt));
    o.ctx = s;
    s = s && (s->s = speech_new(&f, &o)) ? s : (free(s), NULL);
    if (!s) {
        return err_set(e, ERR_MEMORY, "out of memory for an answer");
    }
    s->only_calls = local_must_call(r);
    *shown = o.tools ? b->n_shown : b->n_shown_thoughts;
    *out = s;
    return true;
}

void local_speech_expect(local_speech *s, const char *mark) {
    s->expected = mark;
}

/* The mark stands right behind the reasoning, wherever tokens end. */
static void add(local_speech *s, const char *bytes, size_t n) {
    while (s->expected && speech_thinking(s->s) && n > 0) {
        speech_add(s->s, bytes++, 1);
        n--;
    }
    if (s->expected && !speech_thinking(s->s)) {
        speech_add(s->s, s->expected, strlen(s->expected));
        s->expected = NULL;
    }
    speech_add(s->s, bytes, n);
}

/* Of `text` the bytes between two ends are one token's. */
static void take_tokens(local_speech *s, const str *text, const str *ends) {
    size_t at = 0;
    for (size_t i = 0; i + sizeof(uint32_t) <= ends->len; i += sizeof(uint32_t)) {
        uint32_t end;
        memcpy(&end, ends->data + i, sizeof(end));
        s->reasoned += speech_thinking(s->s);
        if (end > at && end <= text->len) {
            add(s, text->data + at, end - at);
            at = end;
        }
    }
    if (at < text->len) {
        add(s, text->data + at, text->len - at);
    }
    speech_flush(s->s);
}

bool local_speech_say(local_speech *s, const str *text, const str *ends, event ev, backend_event_fn fn, void *ctx) {
    s->next = ev;
    s->fn = fn;
    s->ctx = ctx;
    take_tokens(s, text, ends);
    bool ok = !ev.finish || speech_end(s->s);
    if (ev.finish && speech_count(s->s) > 0 && strcmp(ev.finish, "stop") == 0) {
        ev.finish = "tool_calls";
    }
    if (ev.finish || s->next.logprobs) {
        send(s, (event){.finish = ev.finish});
    }
    return ok && !s->failed && speech_add(s->s, "", 0);
}

int64_t local_speech_reasoned(const local_speech *s) {
    return s->reasoned;
}

void local_speech_close(local_speech *s) {
    if (s) {
        speech_free(s->s);
        free(s);
    }
}
