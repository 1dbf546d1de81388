/* responses_write.c - the response object and the items in it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/responses.h"

/* ---- an item's own ---- */

static const cJSON *call_at(const choice *c, const output_item *item) {
    const cJSON *call = c->tool_calls ? c->tool_calls->child : NULL;
    for (int i = 0; call && i < item->call; i++) {
        call = call->next;
    }
    return call;
}

static const char *call_text(const choice *c, const output_item *item, const char *key) {
    const char *text = neutral_text(cJSON_GetObjectItemCaseSensitive(call_at(c, item), "function"), key);
    return text ? text : "";
}

const char *responses_call_id(const choice *c, const output_item *item) {
    const char *id = neutral_text(call_at(c, item), "id");
    return id ? id : "";
}

const char *responses_call_name(const choice *c, const output_item *item) {
    return call_text(c, item, "name");
}

const char *responses_item_text(const choice *c, const output_item *item, size_t *n) {
    const str *texts[] = {[ITEM_REASONING] = &c->reasoning, [ITEM_TEXT] = &c->text, [ITEM_REFUSAL] = &c->refusal};
    if (item->kind == ITEM_CALL) {
        const char *arguments = call_text(c, item, "arguments");
        *n = strlen(arguments);
        return arguments;
    }
    const str *text = texts[item->kind];
    size_t     to = item->to < text->len ? item->to : text->len;
    *n = item->from < to ? to - item->from : 0;
    return *n ? text->data + item->from : "";
}

static void write_text(const choice *c, const output_item *item, str *out) {
    size_t      n;
    const char *text = responses_item_text(c, item, &n);
    str_json(out, text, n);
}

bool responses_write_logprobs(const choice *c, const output_item *item, str *out) {
    const cJSON *entry = c->logprobs ? c->logprobs->child : NULL;
    bool         first = true;
    str_addc(out, '[');
    for (size_t i = 0; entry && i < item->prob_to; i++, entry = entry->next) {
        if (i < item->prob_from) {
            continue;
        }
        str_adds(out, first ? "" : ",");
        json_write(entry, out);
        first = false;
    }
    return str_addc(out, ']');
}

bool responses_write_part(const choice *c, const output_item *item, str *out) {
    static const char *const heads[] = {[ITEM_REASONING] = "{\"type\":\"summary_text\",\"text\":",
                                        [ITEM_TEXT] = "{\"type\":\"output_text\",\"text\":",
                                        [ITEM_REFUSAL] = "{\"type\":\"refusal\",\"refusal\":"};
    str_adds(out, heads[item->kind]);
    write_text(c, item, out);
    if (item->kind == ITEM_TEXT) {
        str_adds(out, ",\"annotations\":[],\"logprobs\":");
        responses_write_logprobs(c, item, out);
    }
    return str_addc(out, '}');
}

static void write_signature(const choice *c, const output_item *item, str *out) {
    size_t to = item->sign_to < c->signature.len ? item->sign_to : c->signature.len;
    if (item->sign_from < to) {
        str_adds(out, ",\"encrypted_content\":");
        str_json(out, c->signature.data + item->sign_from, to - item->sign_from);
    }
}

bool responses_write_item(const choice *c, const output_item *item, const char *id, const char *status, str *out) {
    static const char *const types[] = {[ITEM_REASONING] = "reasoning",
                                        [ITEM_TEXT] = "message",
                                        [ITEM_REFUSAL] = "message",
                                        [ITEM_CALL] = "function_call"};
    bool                     empty = strcmp(status, "in_progress") == 0;
    str_addf(out, "{\"id\":\"%s\",\"type\":\"%s\",\"status\":\"%s\"", id, types[item->kind], status);
    if (item->kind == ITEM_CALL) {
        const char *call = responses_call_id(c, item);
        str_adds(out, ",\"call_id\":");
        str_jsons(out, call[0] ? call : id); /* some servers give calls no ids; the output of one must name it */
        str_adds(out, ",\"name\":");
        str_jsons(out, responses_call_name(c, item));
        str_adds(out, ",\"arguments\":");
        empty ? str_adds(out, "\"\"") : (write_text(c, item, out), true);
        return str_addc(out, '}');
    }
    size_t n;
    responses_item_text(c, item, &n);
    empty = empty || (item->kind == ITEM_REASONING && n == 0);
    str_adds(out, item->kind == ITEM_REASONING ? ",\"summary\":[" : ",\"role\":\"assistant\",\"content\":[");
    if (!empty) {
        responses_write_part(c, item, out);
    }
    str_addc(out, ']');
    if (item->kind == ITEM_REASONING) {
        write_signature(c, item, out);
    }
    return str_addc(out, '}');
}

/* ---- the response ---- */

/* What the client asked for, or what the API takes when it did not say. */
static void echo(const request *r, const char *key, const char *otherwise, str *out) {
    const cJSON *value = neutral_get(r->client, key);
    str_addf(out, ",\"%s\":", key);
    if (value) {
        json_write(value, out);
    } else {
        str_adds(out, otherwise);
    }
}

static void echo_text(const request *r, str *out) {
    const cJSON *text = neutral_get(r->client, "text");
    const cJSON *format = neutral_get(text, "format"), *verbosity = neutral_get(text, "verbosity");
    str_adds(out, ",\"text\":{\"format\":");
    if (format) {
        json_write(format, out);
    } else {
        str_adds(out, "{\"type\":\"text\"}");
    }
    if (verbosity) {
        str_adds(out, ",\"verbosity\":");
        json_write(verbosity, out);
    }
    str_addc(out, '}');
}

static void echo_reasoning(const request *r, str *out) {
    static const char *const names[] = {"effort", "summary"};
    const cJSON             *reasoning = neutral_get(r->client, "reasoning");
    for (int i = 0; i < 2; i++) {
        const cJSON *value = neutral_get(reasoning, names[i]);
        str_addf(out, i ? ",\"%s\":" : ",\"reasoning\":{\"%s\":", names[i]);
        value ? json_write(value, out) : str_adds(out, "null");
    }
    str_addc(out, '}');
}

static void write_usage(const usage *u, str *out) {
    if (!u) {
        str_adds(out, ",\"usage\":null");
        return;
    }
    str_addf(out,
             ",\"usage\":{\"input_tokens\":%" PRId64 ",\"input_tokens_details\":{\"cached_tokens\":%" PRId64
             "},\"output_tokens\":%" PRId64 ",\"output_tokens_details\":{\"reasoning_tokens\":%" PRId64
             "},\"total_tokens\":%" PRId64 "}",
             u->prompt, u->cached, u->completion, u->reasoning, u->prompt + u->completion);
}

static const char *tier_of(const usage *u) {
    return u && u->tier == TIER_FLEX ? "flex" : u && u->tier == TIER_PRIORITY ? "priority" : "default";
}

static void write_output(const response_head *h, str *out) {
    static const choice nothing;
    str_adds(out, ",\"output\":[");
    for (int i = 0; i < h->n_items; i++) {
        char id[RESPONSES_ID_SIZE];
        bool last = i == h->n_items - 1;
        responses_item_id(h->id, h->items[i].kind, i, id);
        str_adds(out, i ? "," : "");
        responses_write_item(h->choice ? h->choice : &nothing, &h->items[i], id, last ? h->status : "completed", out);
    }
    str_addc(out, ']');
}

bool responses_write_object(const request *r, const response_head *h, str *out) {
    str_adds(out, "{\"id\":");
    str_jsons(out, h->id);
    str_addf(out, ",\"object\":\"response\",\"created_at\":%" PRId64 ",\"status\":\"%s\",\"background\":false",
             h->created, h->status);
    str_addf(out, ",\"error\":%s,\"incomplete_details\":", h->error ? h->error : "null");
    str_addf(out, h->incomplete ? "{\"reason\":\"%s\"}" : "null", h->incomplete);
    echo(r, "instructions", "null", out);
    echo(r, "max_output_tokens", "null", out);
    echo(r, "max_tool_calls", "null", out);
    str_adds(out, ",\"model\":");
    str_jsons(out, h->model);
    write_output(h, out);
    echo(r, "parallel_tool_calls", "true", out);
    str_adds(out, ",\"previous_response_id\":");
    str_jsons(out, r->previous);
    echo(r, "prompt_cache_key", "null", out);
    echo_reasoning(r, out);
    echo(r, "safety_identifier", "null", out);
    str_addf(out, ",\"service_tier\":\"%s\",\"store\":%s", tier_of(h->usage), r->keep ? "true" : "false");
    echo(r, "temperature", "1", out);
    echo_text(r, out);
    echo(r, "tool_choice", "\"auto\"", out);
    echo(r, "tools", "[]", out);
    echo(r, "top_logprobs", "0", out);
    echo(r, "top_p", "1", out);
    str_adds(out, ",\"truncation\":\"disabled\"");
    write_usage(h->usage, out);
    echo(r, "user", "null", out);
    echo(r, "metadata", "{}", out);
    return str_addc(out, '}');
}

const char *responses_status(const choice *c, const char **reason) {
    const char *finish = c ? c->finish : "";
    *reason = strcmp(finish, "length") == 0           ? "max_output_tokens"
              : strcmp(finish, "content_filter") == 0 ? "content_filter"
                                                      : NULL;
    return *reason ? "incomplete" : "completed";
}

/* ---- a whole answer ---- */

static int items_of(const choice *c, output_item *items) {
    int n = 0;
    if (c->reasoning.len > 0 || c->signature.len > 0) {
        items[n++] = (output_item){.kind = ITEM_REASONING, .to = c->reasoning.len, .sign_to = c->signature.len};
    }
    int  calls = cJSON_GetArraySize(c->tool_calls);
    /* An answer without a word is an empty one, unless it was cut off while the model reasoned. */
    bool silent = c->text.len == 0 && (c->refusal.len > 0 || calls > 0 || (n > 0 && strcmp(c->finish, "stop") != 0));
    if (!silent) {
        items[n++] = (output_item){.kind = ITEM_TEXT, .to = c->text.len, .prob_to = SIZE_MAX};
    }
    if (c->refusal.len > 0) {
        items[n++] = (output_item){.kind = ITEM_REFUSAL, .to = c->refusal.len};
    }
    for (int i = 0; i < calls && n < RESPONSES_MAX_ITEMS; i++) {
        items[n++] = (output_item){.kind = ITEM_CALL, .call = i};
    }
    return n;
}

bool responses_write_answer(const request *r, const answer *a, str *out) {
    static const choice nothing;
    const choice       *c = a->n_choices > 0 ? &a->choices[0] : &nothing;
    output_item         items[RESPONSES_MAX_ITEMS];
    char                id[RESPONSES_ID_SIZE];
    response_head       h = {.id = id, .model = a->model, .created = a->created, .items = items, .choice = c};
    responses_id(r, a, id);
    h.n_items = items_of(c, items);
    h.status = responses_status(c, &h.incomplete);
    h.usage = a->usage.known ? &a->usage : NULL;
    return responses_write_object(r, &h, out);
}
