/* count_tokens.c - POST /v1/messages/count_tokens: how many tokens a message would be read as, without asking for an answer.
 *
 * A model of our own counts with its template and tokenizer, on its own thread. For a provider's model the shape of the
 * text is all there is (stage/estimate.h); x-pare-answered-by says which of the two it was. Nothing is made and nothing is
 * billed, so there is no row in the ledger. Source: the API's reference at docs.claude.com, "Count tokens in a Message". */
#include <string.h>

#include "dialect/anthropic.h"
#include "serve/later.h"
#include "stage/estimate.h"

typedef struct counting {
    front      *front;
    generation *of; /* held: its backend is at work */
    arena      *memory;
    request     request;
    later      *reply;
    int64_t     tokens;
} counting;

static void release(counting *c) {
    front      *f = c->front;
    generation *of = c->of;
    request_free(&c->request);
    arena_free(c->memory); /* c is in it */
    front_drop(f, of);
}

static int64_t estimate_json(const cJSON *tree) {
    str     text = {0};
    int64_t tokens = tree && json_write(tree, &text) ? estimate_text(text.data, text.len) : 0;
    str_free(&text);
    return tokens;
}

/* What estimate_prompt counts, and what a provider reads besides: tools, and calls of earlier turns. */
int64_t count_tokens_estimate(const request *r) {
    int64_t tokens = estimate_prompt(r) + estimate_json(r->tools);
    for (int i = 0; i < r->n_messages; i++) {
        tokens += estimate_json(cJSON_GetObjectItemCaseSensitive(r->messages[i].json, "tool_calls"));
    }
    return tokens;
}

static void add_answered_by(struct evhttp_request *r, const model_entry *m, bool exact) {
    str name = {0};
    str_addf(&name, exact ? "%s:%s" : "estimate", m->backend->ops->kind, m->backend->name);
    if (!name.failed) {
        evhttp_add_header(evhttp_request_get_output_headers(r), "x-pare-answered-by", name.data);
    }
    str_free(&name);
}

/* The backend's events: no piece of an answer comes, usage with the last one. */
static void on_event(void *ctx, const event *ev) {
    counting *c = ctx;
    if (ev->usage) {
        c->tokens = ev->usage->prompt;
    }
    if (ev->kind != EVENT_DONE && ev->kind != EVENT_ERROR) {
        return;
    }
    str        json = {0};
    const err *why = ev->kind == EVENT_ERROR ? ev->error : NULL;
    anthropic_write_count(c->tokens, &json);
    later_reply(c->reply, ev->status, &json, why);
    str_free(&json);
    release(c);
}

static void reply_count(struct evhttp_request *r, int64_t tokens) {
    str json = {0};
    if (anthropic_write_count(tokens, &json)) {
        reply_json(r, 200, json.data, json.len);
    } else {
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
    }
    str_free(&json);
}

static void ask_model(counting *c, struct evhttp_request *r, const model_entry *m) {
    err e = {0};
    c->request.count_only = true;
    if (!dialect_anthropic.read_local(&c->request, &e)) {
        reply_error(r, 400, e.code, e.param, "%s", e.text);
        release(c);
        return;
    }
    c->reply = later_begin(c->front, r);
    if (!c->reply) {
        release(c);
        return;
    }
    add_answered_by(r, m, true);
    if (!m->backend->ops->start(m->backend, c->front->loop, &c->request, m->upstream, on_event, c, &e)) {
        later_reply(c->reply, 0, NULL, &e);
        release(c);
    }
}

static counting *begin(front *f, const char *body, size_t n) {
    arena    *memory = arena_new(4096);
    counting *c = memory ? arena_zero(memory, 1, sizeof *c) : NULL;
    char     *copy = c ? arena_memdup(memory, body, n) : NULL; /* the client's bytes go when it leaves */
    if (!copy) {
        arena_free(memory);
        return NULL;
    }
    *c = (counting){.front = f, .of = generation_hold(f->now), .memory = memory};
    c->request.raw = copy;
    return c;
}

static void count(counting *c, struct evhttp_request *r, size_t n) {
    err                e = {0};
    const model_entry *m;
    const char        *bearer = bearer_of(r); /* may_ask has found its key, where keys are in use */
    const client_key  *key = c->of->gateway.n_keys > 0 && bearer ? gateway_key(&c->of->gateway, bearer) : NULL;
    if (!anthropic_read_count(c->request.raw, n, c->memory, &c->request, &e)) {
        reply_error(r, e.code == ERR_MEMORY ? 500 : 400, e.code, e.param, "%s", e.text);
        release(c);
    } else if (!client_key_allows(key, c->request.model) || !(m = gateway_model(&c->of->gateway, c->request.model))) {
        reply_error(r, 404, ERR_NOT_FOUND, "model",
                    "The model \"%.100s\" does not exist here; GET /v1/models lists them.", c->request.model);
        release(c);
    } else if (strcmp(m->backend->ops->kind, "local") == 0) {
        ask_model(c, r, m);
    } else {
        add_answered_by(r, m, false);
        reply_count(r, count_tokens_estimate(&c->request));
        release(c);
    }
}

void count_tokens(front *f, struct evhttp_request *r) {
    struct evbuffer *in = evhttp_request_get_input_buffer(r);
    size_t           n = evbuffer_get_length(in);
    if (!may_ask(f, r)) {
        return;
    }
    if (n > REQUEST_MAX_BODY) {
        reply_error(r, 413, ERR_LIMIT, "", "The body has %zu bytes; the limit is %u (32 MiB).", n, REQUEST_MAX_BODY);
        return;
    }
    const char *body = n ? (const char *)evbuffer_pullup(in, -1) : "";
    counting   *c = body ? begin(f, body, n) : NULL;
    if (c) {
        count(c, r, n);
    } else {
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
    }
}
