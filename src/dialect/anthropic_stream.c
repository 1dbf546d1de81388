/* anthropic_stream.c - a stream towards a client, as server-sent events of the Messages API.
 *
 * The API tells one block after another; OpenAI's deltas may mix them. So what is written follows the answer as it has
 * grown (`head`), and the state is how much of it has been said: nothing is buffered here. A block ends when another one
 * begins, with one exception: a call whose arguments are not a whole JSON object yet stays open, and what comes for other
 * calls meanwhile waits in `head` until it is whole, or until the end. Deltas of calls that come one after another, as
 * all large providers send them, are therefore passed on at once; of calls whose deltas are mixed, the first is, and the
 * others come each in one piece.                                                                                     */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"
#include "dialect/openai.h"

/* ---- frames ---- */

static void begin_event(const char *name, str *out) {
    str_addf(out, "event: %s\ndata: {\"type\":\"%s\"", name, name);
}

static void end_event(str *out) {
    str_adds(out, "}\n\n");
}

/* Clients take the prompt's length from here, and replace it by what message_delta says at the end. */
static void write_start(anthropic_writing *w, const request *r, const answer *head, str *out) {
    usage u = head->usage;
    if (!u.known && r) {
        u.prompt = r->prompt_estimate;
    }
    w->started = true;
    begin_event("message_start", out);
    str_adds(out, ",\"message\":{\"id\":");
    str_jsons(out, head->id[0] ? head->id : "msg_0");
    str_adds(out, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    str_jsons(out, head->model);
    str_adds(out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
    anthropic_write_usage(&u, out);
    str_addc(out, '}');
    end_event(out);
}

static void write_delta(const anthropic_writing *w, const char *type, const char *key, const char *text, size_t n,
                        str *out) {
    begin_event("content_block_delta", out);
    str_addf(out, ",\"index\":%d,\"delta\":{\"type\":\"%s\",\"%s\":", w->blocks - 1, type, key);
    str_json(out, text, n);
    str_addc(out, '}');
    end_event(out);
}

/* What of `text` has not been said. */
static size_t news(const str *text, size_t said) {
    return text->len > said ? text->len - said : 0;
}

/* ---- blocks ---- */

/* The signature is told whole, at its block's end: clients replace it, they do not add to it. */
static void close_block(anthropic_writing *w, const choice *c, str *out) {
    if (!w->open) {
        return;
    }
    if (w->open == 't' && news(&c->signature, w->signature) > 0) {
        write_delta(w, "signature_delta", "signature", c->signature.data + w->signature,
                    c->signature.len - w->signature, out);
        w->signature = c->signature.len;
    }
    begin_event("content_block_stop", out);
    str_addf(out, ",\"index\":%d", w->blocks - 1);
    end_event(out);
    w->open = 0;
}

static void open_block(anthropic_writing *w, char kind, const choice *c, str *out) {
    close_block(w, c, out);
    w->open = kind;
    begin_event("content_block_start", out);
    str_addf(out, ",\"index\":%d,\"content_block\":", w->blocks++);
    if (kind != 'c') {
        str_adds(out, kind == 't' ? "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"
                                  : "{\"type\":\"text\",\"text\":\"\"}");
        end_event(out);
    }
}

static void say(anthropic_writing *w, char kind, const choice *c, const str *text, size_t *said, str *out) {
    size_t n = news(text, *said);
    if (n == 0) {
        return;
    }
    if (w->open != kind) {
        open_block(w, kind, c, out);
    }
    if (kind == 't') {
        write_delta(w, "thinking_delta", "thinking", text->data + *said, n, out);
    } else {
        write_delta(w, "text_delta", "text", text->data + *said, n, out);
    }
    *said = text->len;
}

static void say_thought(anthropic_writing *w, const anthropic_thought *t, const choice *c, str *out) {
    if (t->redacted) {
        close_block(w, c, out);
        begin_event("content_block_start", out);
        str_addf(out, ",\"index\":%d,\"content_block\":", w->blocks++);
        anthropic_write_thought(t, out);
        end_event(out);
    } else {
        open_block(w, 't', c, out);
        write_delta(w, "thinking_delta", "thinking", t->text, t->text_len, out);
        write_delta(w, "signature_delta", "signature", t->signature, t->signature_len, out);
    }
    w->open = 't';
    close_block(w, c, out);
}

/* A whole answer that is told as a stream may have several blocks of thinking at once. */
static void say_thoughts(anthropic_writing *w, const choice *c, str *out) {
    anthropic_thought all[ANTHROPIC_MAX_THOUGHTS];
    if (w->reasoning > 0 || w->signature > 0 || c->signature.len == 0 ||
        !memchr(c->signature.data, ' ', c->signature.len)) {
        return;
    }
    int n = anthropic_thoughts(c->reasoning.data ? c->reasoning.data : "", c->reasoning.len, c->signature.data,
                               c->signature.len, all);
    if (n > 1 || (n == 1 && all[0].redacted)) {
        w->reasoning = c->reasoning.len;
        w->signature = c->signature.len;
        for (int i = 0; i < n; i++) {
            say_thought(w, &all[i], c, out);
        }
    }
}

/* ---- calls ---- */

static const cJSON *call_at(const choice *c, int i) {
    return c->tool_calls ? cJSON_GetArrayItem(c->tool_calls, i) : NULL;
}

static const char *name_of(const cJSON *call) {
    const char *name = neutral_text(neutral_get(call, "function"), "name");
    return name ? name : "";
}

static void open_call(anthropic_writing *w, const answer *head, const choice *c, const cJSON *call, str *out) {
    open_block(w, 'c', c, out);
    str_adds(out, "{\"type\":\"tool_use\",\"id\":");
    anthropic_write_call_id(head, call, w->calls, out);
    str_adds(out, ",\"name\":");
    str_jsons(out, name_of(call));
    str_adds(out, ",\"input\":{}}");
    end_event(out);
    w->calls++;
    w->arguments = 0;
    w->depth = 0;
    w->in_string = w->escaped = w->complete = false;
}

/* Follows brackets and strings to see where the object ends; that it is JSON is the client's to check. */
static void scan(anthropic_writing *w, const char *text) {
    for (; *text; text++) {
        if (w->in_string) {
            w->in_string = w->escaped || *text != '"';
            w->escaped = !w->escaped && *text == '\\';
        } else if (*text == '"') {
            w->in_string = true;
        } else if (*text == '{' || *text == '[') {
            w->depth++;
        } else if ((*text == '}' || *text == ']') && --w->depth == 0) {
            w->complete = true;
        }
    }
}

static void say_arguments(anthropic_writing *w, const choice *c, str *out) {
    const char *text = neutral_text(neutral_get(call_at(c, w->calls - 1), "function"), "arguments");
    if (!text || !text[w->arguments]) {
        return;
    }
    const char *piece = text + w->arguments;
    size_t      n = strlen(piece);
    write_delta(w, "input_json_delta", "partial_json", piece, n, out);
    scan(w, piece);
    w->arguments += n;
}

static bool open_call_waits(const anthropic_writing *w, bool last) {
    return w->open == 'c' && !w->complete && !last;
}

/* `last`: no more will come, so nothing waits any longer. */
static void say_calls(anthropic_writing *w, const answer *head, const choice *c, bool last, str *out) {
    for (;;) {
        if (w->open == 'c') {
            say_arguments(w, c, out);
        }
        const cJSON *next = call_at(c, w->calls);
        if (open_call_waits(w, last) || !next || (!last && !name_of(next)[0])) {
            return;
        }
        open_call(w, head, c, next, out);
    }
}

static void follow(anthropic_writing *w, const request *r, const answer *head, bool last, str *out) {
    static const choice none = {0};
    const choice       *c = head->n_choices > 0 ? &head->choices[0] : &none;
    if (!w->started) {
        write_start(w, r, head, out);
    }
    if (w->open == 'c') {
        say_arguments(w, c, out);
    }
    if (!open_call_waits(w, last)) {
        say_thoughts(w, c, out);
        say(w, 't', c, &c->reasoning, &w->reasoning, out);
        if (w->open != 't' && news(&c->signature, w->signature) > 0) {
            open_block(w, 't', c, out); /* some providers sign later, or thoughts that they do not show */
        }
        say(w, 'm', c, &c->text, &w->text, out);
        say(w, 'r', c, &c->refusal, &w->refusal, out);
    }
    say_calls(w, head, c, last, out);
    if (last) {
        close_block(w, c, out);
    }
}

bool anthropic_write_event(const request *r, void *state, const answer *head, const event *ev, str *out) {
    (void)ev; /* is in `head` */
    anthropic_writing *w = state;
    if (!w->raw) { /* else it is the end that pare gives to a provider's stream; write_end says it */
        follow(w, r, head, false, out);
    }
    return !out->failed;
}

/* ---- what a provider said itself ---- */

/* The event's name is the payload's type. */
static bool type_of(const event *ev, char *name, size_t size) {
    size_t     at = 0;
    raw_member m;
    while (raw_next(ev->raw, ev->raw_len, &at, &m)) {
        if (!raw_key_is(&m, "type")) {
            continue;
        }
        size_t n = m.value_len >= 2 ? m.value_len - 2 : 0;
        if (n == 0 || n >= size || m.value[0] != '"') {
            return false;
        }
        memcpy(name, m.value + 1, n);
        name[n] = '\0';
        return strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789.") == n;
    }
    return false;
}

/* A provider may spread one payload over several data lines; it came joined by LF, and is parted there again. */
static void write_payload(const char *name, const char *json, size_t n, str *out) {
    str_addf(out, "event: %s\n", name);
    for (const char *end = json + n, *line_end; json <= end; json = line_end + 1) {
        line_end = json < end ? memchr(json, '\n', (size_t)(end - json)) : NULL;
        line_end = line_end ? line_end : end;
        str_adds(out, "data: ");
        str_add(out, json, (size_t)(line_end - json));
        str_addc(out, '\n');
    }
    str_addc(out, '\n');
}

/* Which block is open, for a stream that pare ends before the provider does. */
static void watch_blocks(anthropic_writing *w, const char *name, const event *ev) {
    size_t     at = 0;
    raw_member m;
    w->raw = true;
    if (strcmp(name, "content_block_stop") == 0) {
        w->raw_open = false;
    } else if (strcmp(name, "content_block_start") == 0) {
        w->raw_open = true;
        while (raw_next(ev->raw, ev->raw_len, &at, &m)) {
            if (raw_key_is(&m, "index") && m.value_len < 10) {
                w->blocks =
                    (int)strtol(m.value, NULL, 10) + 1; /* the payload is JSON: a number ends at what follows it */
            }
        }
    }
}

/* The last payload is kept back for write_end, so that comments stand before it; where it is longer than the room for it,
 * they stand behind. */
bool anthropic_write_raw(const request *r, void *state, const event *ev, str *out) {
    anthropic_writing *w = state;
    char               name[64];
    (void)r;
    if (!type_of(ev, name, sizeof name)) {
        strcpy(name, "message");
    }
    watch_blocks(w, name, ev);
    if (strcmp(name, "message_stop") == 0 && ev->raw_len <= sizeof w->stop) {
        memcpy(w->stop, ev->raw, ev->raw_len);
        w->n_stop = ev->raw_len;
        return true;
    }
    w->n_stop = strcmp(name, "message_stop") == 0 ? SIZE_MAX : w->n_stop;
    write_payload(name, ev->raw, ev->raw_len, out);
    return !out->failed;
}

/* ---- the end ---- */

static void write_comments(const char *comments, str *out) {
    str_adds(out, comments);
    str_adds(out, comments[0] ? "\n" : "");
}

bool anthropic_write_end(const request *r, void *state, const answer *head, bool passed, const char *comments,
                         str *out) {
    anthropic_writing *w = state;
    (void)r;
    if (!passed) {
        const choice *c = head->n_choices > 0 ? &head->choices[0] : NULL;
        const char   *stop = anthropic_stop_reason(c);
        if (!w->raw) {
            follow(w, r, head, true, out);
        } else if (w->raw_open) {
            begin_event("content_block_stop", out);
            str_addf(out, ",\"index\":%d", w->blocks - 1);
            end_event(out);
        }
        begin_event("message_delta", out);
        str_addf(out,
                 ",\"delta\":{\"stop_reason\":\"%s\",\"stop_sequence\":null},\"usage\":", stop ? stop : "end_turn");
        anthropic_write_usage(&head->usage, out);
        end_event(out);
    }
    write_comments(comments, out);
    if (passed && w->n_stop == SIZE_MAX) {
        return !out->failed;
    }
    if (passed && w->n_stop > 0) {
        write_payload("message_stop", w->stop, w->n_stop, out);
    } else {
        begin_event("message_stop", out);
        end_event(out);
    }
    return !out->failed;
}

bool anthropic_write_break(const request *r, void *state, const err *e, int status, str *out) {
    (void)r;
    (void)state;
    str_adds(out, "event: error\ndata: ");
    anthropic_write_error(e, status, out);
    return str_adds(out, "\n\n");
}
