/* responses_stream.c - a stream of OpenAI's responses.
 *
 * What is said follows from the answer as far as it has grown and from how much of it is out already. Text and reasoning
 * that take turns become one item a stretch; calls stay open to the end, for their arguments may come interleaved.     */
#include "dialect/responses_stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"

typedef struct saying { /* one call of the dialect */
    const request     *r;
    responses_writing *w;
    const answer      *head;
    const choice      *c;
    str               *out;
} saying;

static const choice nothing;

static const choice *choice_of(const answer *head) {
    return head->n_choices > 0 ? &head->choices[0] : &nothing;
}

/* ---- events ---- */

static void begin(const saying *s, const char *type) {
    str_addf(s->out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%" PRIu64, type, type, s->w->sequence++);
}

static void end(const saying *s) {
    str_adds(s->out, "}\n\n");
}

static void say_response(const saying *s, const char *type, const char *status, const char *incomplete, bool whole) {
    responses_writing *w = s->w;
    response_head      h = {.id = w->id,
                            .model = s->head && s->head->model[0] ? s->head->model : s->r->model,
                            .status = status,
                            .created = w->created,
                            .items = w->items,
                            .n_items = whole ? w->n_items : 0,
                            .choice = s->c,
                            .usage = whole && s->head->usage.known ? &s->head->usage : NULL,
                            .incomplete = incomplete};
    begin(s, type);
    str_adds(s->out, ",\"response\":");
    responses_write_object(s->r, &h, s->out);
    end(s);
}

static void say_begin(const saying *s) {
    if (s->w->begun) {
        return;
    }
    s->w->begun = true;
    s->w->created = s->head->created;
    responses_id(s->r, s->head, s->w->id);
    say_response(s, "response.created", "in_progress", NULL, false);
    say_response(s, "response.in_progress", "in_progress", NULL, false);
}

/* ,"item_id":...,"output_index":n and the part's own index. */
static void say_place(const saying *s, int i, bool with_part) {
    const output_item *item = &s->w->items[i];
    char               id[RESPONSES_ID_SIZE];
    responses_item_id(s->w->id, item->kind, i, id);
    str_addf(s->out, ",\"item_id\":\"%s\",\"output_index\":%d", id, i);
    if (with_part && item->kind != ITEM_CALL) {
        str_addf(s->out, ",\"%s\":0", item->kind == ITEM_REASONING ? "summary_index" : "content_index");
    }
}

static void say_item(const saying *s, int i, const char *type, const char *status) {
    char id[RESPONSES_ID_SIZE];
    responses_item_id(s->w->id, s->w->items[i].kind, i, id);
    begin(s, type);
    str_addf(s->out, ",\"output_index\":%d,\"item\":", i);
    responses_write_item(s->c, &s->w->items[i], id, status, s->out);
    end(s);
}

static void say_part(const saying *s, int i, const output_item *as, const char *verb) {
    char type[64];
    snprintf(type, sizeof type, "response.%s_part.%s",
             s->w->items[i].kind == ITEM_REASONING ? "reasoning_summary" : "content", verb);
    begin(s, type);
    say_place(s, i, true);
    str_adds(s->out, ",\"part\":");
    responses_write_part(s->c, as, s->out);
    end(s);
}

static const char *const delta_types[] = {[ITEM_REASONING] = "response.reasoning_summary_text.delta",
                                          [ITEM_TEXT] = "response.output_text.delta",
                                          [ITEM_REFUSAL] = "response.refusal.delta",
                                          [ITEM_CALL] = "response.function_call_arguments.delta"};
static const char *const done_types[] = {[ITEM_REASONING] = "response.reasoning_summary_text.done",
                                         [ITEM_TEXT] = "response.output_text.done",
                                         [ITEM_REFUSAL] = "response.refusal.done",
                                         [ITEM_CALL] = "response.function_call_arguments.done"};
static const char *const done_names[] = {
    [ITEM_REASONING] = "text", [ITEM_TEXT] = "text", [ITEM_REFUSAL] = "refusal", [ITEM_CALL] = "arguments"};

/* ---- items ---- */

static void begin_part(const saying *s, int i) {
    output_item *item = &s->w->items[i];
    if (!item->part && item->kind != ITEM_CALL) {
        output_item empty = {.kind = item->kind};
        say_part(s, i, &empty, "added");
        item->part = true;
    }
}

static void close_item(const saying *s, int i, const char *status) {
    output_item *item = &s->w->items[i];
    if (item->part || item->kind == ITEM_CALL) {
        size_t      n;
        const char *text = responses_item_text(s->c, item, &n);
        begin(s, done_types[item->kind]);
        say_place(s, i, true);
        if (item->kind == ITEM_CALL) {
            str_adds(s->out, ",\"name\":");
            str_jsons(s->out, responses_call_name(s->c, item));
        }
        str_addf(s->out, ",\"%s\":", done_names[item->kind]);
        str_json(s->out, text, n);
        if (item->kind == ITEM_TEXT) {
            str_adds(s->out, ",\"logprobs\":");
            responses_write_logprobs(s->c, item, s->out);
        }
        end(s);
    }
    if (item->part) {
        say_part(s, i, item, "done");
    }
    say_item(s, i, "response.output_item.done", status);
    item->closed = true;
}

static int open_of(const responses_writing *w, item_kind kind) {
    for (int i = w->n_items - 1; i >= 0; i--) {
        if (w->items[i].kind == kind && !w->items[i].closed) {
            return i;
        }
    }
    return -1;
}

/* Ends the stretches before another begins. When there are too many, they stay open together and grow on. */
static void close_stretches(const saying *s) {
    responses_writing *w = s->w;
    for (int i = 0; i < w->n_items && w->n_stretches < RESPONSES_MAX_STRETCHES - ITEM_CALL; i++) {
        if (w->items[i].kind != ITEM_CALL && !w->items[i].closed) {
            close_item(s, i, "completed");
        }
    }
}

static int open_item(const saying *s, item_kind kind, int call) {
    responses_writing *w = s->w;
    close_stretches(s);
    if (w->n_items == RESPONSES_MAX_ITEMS) { /* cannot be: see RESPONSES_MAX_ITEMS */
        return -1;
    }
    int at = w->n_items++;
    w->items[at] = (output_item){.kind = kind, .call = call};
    if (kind != ITEM_CALL) {
        w->n_stretches++;
        w->items[at].from = w->items[at].to = w->said[kind];
        w->items[at].sign_from = w->items[at].sign_to = w->signed_to;
        w->items[at].prob_from = w->items[at].prob_to = w->probs;
    }
    say_item(s, at, "response.output_item.added", "in_progress");
    if (kind != ITEM_REASONING) { /* of reasoning there may be the signature alone */
        begin_part(s, at);
    }
    return at;
}

static int stretch(const saying *s, item_kind kind) {
    int at = open_of(s->w, kind);
    return at >= 0 ? at : open_item(s, kind, 0);
}

static void say_delta(const saying *s, int i, const char *text, size_t n, const cJSON *logprobs) {
    output_item *item = &s->w->items[i];
    begin_part(s, i);
    begin(s, delta_types[item->kind]);
    say_place(s, i, true);
    str_adds(s->out, ",\"delta\":");
    str_json(s->out, text, n);
    if (item->kind == ITEM_TEXT) {
        str_adds(s->out, ",\"logprobs\":");
        logprobs ? json_write(logprobs, s->out) : str_adds(s->out, "[]");
    }
    end(s);
}

/* ---- what has grown ---- */

static void follow_text(const saying *s, item_kind kind, const str *text, const cJSON *logprobs) {
    responses_writing *w = s->w;
    if (text->len <= w->said[kind]) {
        return;
    }
    int at = stretch(s, kind);
    if (at < 0) {
        return;
    }
    size_t from = w->said[kind];
    w->said[kind] = w->items[at].to = text->len;
    if (kind == ITEM_TEXT) {
        w->probs += (size_t)cJSON_GetArraySize(logprobs);
        w->items[at].prob_to = w->probs;
    }
    say_delta(s, at, text->data + from, text->len - from, logprobs);
}

static void follow_signature(const saying *s) {
    responses_writing *w = s->w;
    if (s->c->signature.len > w->signed_to) {
        int at = stretch(s, ITEM_REASONING);
        w->signed_to = s->c->signature.len;
        if (at >= 0) {
            w->items[at].sign_to = w->signed_to;
        }
    }
}

static int item_of_call(const responses_writing *w, int call) {
    for (int i = 0; i < w->n_items; i++) {
        if (w->items[i].kind == ITEM_CALL && w->items[i].call == call) {
            return i;
        }
    }
    return -1;
}

static void follow_calls(const saying *s) {
    const cJSON *call;
    int          number = 0;
    cJSON_ArrayForEach(call, s->c->tool_calls) {
        int at = item_of_call(s->w, number);
        if (at < 0) {
            at = open_item(s, ITEM_CALL, number);
        }
        number++;
        if (at < 0) {
            return;
        }
        output_item *item = &s->w->items[at];
        size_t       n;
        const char  *arguments = responses_item_text(s->c, item, &n);
        if (n > item->to) {
            size_t from = item->to;
            item->to = n;
            say_delta(s, at, arguments + from, n - from, NULL);
        }
    }
}

static void follow(const saying *s, const cJSON *logprobs, bool calls) {
    follow_text(s, ITEM_REASONING, &s->c->reasoning, NULL);
    follow_signature(s);
    follow_text(s, ITEM_TEXT, &s->c->text, logprobs);
    follow_text(s, ITEM_REFUSAL, &s->c->refusal, NULL);
    if (calls) {
        follow_calls(s);
    }
}

bool responses_write_event(const request *r, void *state, const answer *head, const event *ev, str *out) {
    saying s = {.r = r, .w = state, .head = head, .c = choice_of(head), .out = out};
    say_begin(&s);
    if (ev->choice == 0) {
        follow(&s, ev->logprobs, ev->tool_calls != NULL);
    }
    return !out->failed;
}

/* ---- the end ---- */

/* As in a whole answer: one without a word is an empty message. */
static bool lacks_message(const saying *s) {
    const choice *c = s->c;
    bool          spoke = c->text.len > 0 || c->refusal.len > 0 || cJSON_GetArraySize(c->tool_calls) > 0;
    return !spoke && (s->w->n_items == 0 || strcmp(c->finish, "stop") == 0);
}

bool responses_write_end(const request *r, void *state, const answer *head, bool passed, const char *comments,
                         str *out) {
    (void)passed; /* no provider speaks this dialect to us */
    saying      s = {.r = r, .w = state, .head = head, .c = choice_of(head), .out = out};
    const char *reason = NULL, *status = responses_status(s.c, &reason);
    say_begin(&s);
    follow(&s, NULL, true);
    if (lacks_message(&s)) {
        stretch(&s, ITEM_TEXT);
    }
    for (int i = 0; i < s.w->n_items; i++) {
        if (!s.w->items[i].closed) {
            close_item(&s, i, i == s.w->n_items - 1 ? status : "completed");
        }
    }
    str_adds(out, comments);
    say_response(&s, reason ? "response.incomplete" : "response.completed", status, reason, true);
    return !out->failed;
}

/* The provider's word for why it failed, from those that the API has. */
static const char *failure_code(int status) {
    return status == 429 ? "rate_limit_exceeded" : status >= 400 && status < 500 ? "invalid_prompt" : "server_error";
}

/* Twice: response.failed is the answer's end for those who follow its state; the event "error", with an object of that
 * name as OpenAI's servers send it, is what makes its clients raise an error. */
bool responses_write_break(const request *r, void *state, const err *e, int status, str *out) {
    saying s = {.r = r, .w = state, .c = &nothing, .out = out};
    str    error = {0}, brief = {0};
    cJSON *tree = NULL;
    err    ignored = {0};
    if (openai_write_error(e, status, &error) && !error.failed) {
        tree = json_parse(error.data, error.len, 8, &ignored);
    }
    const cJSON *inner = neutral_get(tree, "error");
    const char  *message = neutral_text(inner, "message");
    if (s.w->begun) {
        str_addf(&brief, "{\"code\":\"%s\",\"message\":", failure_code(status ? status : error_status(e->code)));
        str_jsons(&brief, message ? message : "");
        str_addc(&brief, '}');
        response_head h = {.id = s.w->id, .model = r->model, .status = "failed", .created = s.w->created};
        h.error = brief.failed ? NULL : brief.data;
        begin(&s, "response.failed");
        str_adds(out, ",\"response\":");
        responses_write_object(r, &h, out);
        end(&s);
    }
    begin(&s, "error");
    str_adds(out, ",\"code\":");
    str_jsons(out, neutral_text(inner, "code"));
    str_adds(out, ",\"message\":");
    str_jsons(out, message ? message : "Out of memory.");
    str_adds(out, ",\"param\":");
    str_jsons(out, neutral_text(inner, "param"));
    str_adds(out, ",\"error\":");
    inner ? json_write(inner, out) : str_adds(out, "{}");
    end(&s);
    cJSON_Delete(tree);
    str_free(&error);
    str_free(&brief);
    return !out->failed;
}
