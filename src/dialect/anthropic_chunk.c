/* anthropic_chunk.c - one payload of a provider's stream as events.
 *
 * message_start, then per block content_block_start, deltas and content_block_stop, then message_delta and message_stop;
 * ping and errors anywhere, and other events and blocks in time, which only pass through.                          */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

typedef struct chunk {
    anthropic_reading *state;
    const cJSON       *root;
    event              ev; /* bears the payload's bytes */
    void (*emit)(void *, const event *);
    void *ctx;
} chunk;

static void set_text(const char *text, const char **to, size_t *n) {
    *to = text;
    *n = text ? strlen(text) : 0;
}

/* The block's number; -1: one that is out of reach. */
static int block_of(const cJSON *root) {
    const cJSON *index = neutral_get(root, "index");
    bool         sane = cJSON_IsNumber(index) && index->valuedouble >= 0 && index->valuedouble < ANTHROPIC_MAX_BLOCKS;
    return sane ? index->valueint : -1;
}

static void emit_start(chunk *c) {
    const cJSON *message = neutral_get(c->root, "message");
    anthropic_add_usage(neutral_get(message, "usage"), &c->state->usage);
    usage u = anthropic_neutral_usage(&c->state->usage);
    c->ev.id = neutral_text(message, "id");
    c->ev.model = neutral_text(message, "model");
    c->ev.usage = u.known ? &u : NULL;
    c->emit(c->ctx, &c->ev);
    c->ev.usage = NULL;
}

/* A piece of one call in OpenAI's form. `id` and `name` with the first one only. */
static bool emit_call(chunk *c, int call, const char *id, const char *name, const char *arguments, err *e) {
    cJSON *calls = cJSON_CreateArray(), *delta = cJSON_CreateObject();
    bool   good = anthropic_append(calls, delta, e);
    cJSON *function = good ? cJSON_AddObjectToObject(delta, "function") : NULL;
    good = function && cJSON_AddNumberToObject(delta, "index", call) &&
           (!id || cJSON_AddStringToObject(delta, "id", id)) &&
           (!id || cJSON_AddStringToObject(delta, "type", "function")) &&
           (!name || cJSON_AddStringToObject(function, "name", name)) &&
           cJSON_AddStringToObject(function, "arguments", arguments);
    if (good) {
        c->ev.tool_calls = calls;
        c->emit(c->ctx, &c->ev);
        c->ev.tool_calls = NULL;
    }
    cJSON_Delete(calls);
    return good || err_set(e, ERR_MEMORY, "Out of memory while reading a stream.");
}

static bool start_call(chunk *c, const cJSON *block, int at, err *e) {
    const char  *id = neutral_text(block, "id"), *name = neutral_text(block, "name");
    const cJSON *input = neutral_get(block, "input");
    str          whole = {0};
    if (at < 0) {
        return err_set(e, ERR_LIMIT, "The provider's stream has more than %d blocks.", ANTHROPIC_MAX_BLOCKS);
    }
    if (cJSON_IsObject(input) && input->child) { /* some compatible servers send it whole at the start */
        json_write(input, &whole);
    }
    c->state->said[at] = whole.len > 0;
    c->state->call[at] = (uint16_t)++c->state->n_calls;
    bool good = emit_call(c, c->state->n_calls - 1, id ? id : "", name ? name : "", whole.len > 0 ? whole.data : "", e);
    str_free(&whole);
    return good;
}

/* The mark in front of a further block's signature goes out with its start; what is redacted comes whole. */
static bool start_thought(chunk *c, const cJSON *block, bool redacted, err *e) {
    const char *signature = neutral_text(block, redacted ? "data" : "signature");
    str         marked = {0};
    if (c->state->thought || redacted) {
        anthropic_mark_thought(c->state->thinking, redacted, signature, &marked);
        set_text(marked.data, &c->ev.signature, &c->ev.signature_len);
    } else {
        set_text(signature, &c->ev.signature, &c->ev.signature_len);
    }
    set_text(redacted ? NULL : neutral_text(block, "thinking"), &c->ev.reasoning, &c->ev.reasoning_len);
    c->state->thought = true;
    c->state->thinking += c->ev.reasoning_len;
    bool good = !marked.failed || err_set(e, ERR_MEMORY, "Out of memory while reading a stream.");
    if (good) {
        c->emit(c->ctx, &c->ev);
    }
    str_free(&marked);
    return good;
}

/* Text that stands in the start already (empty in Anthropic's own streams). */
static bool emit_block_start(chunk *c, err *e) {
    const cJSON *block = neutral_get(c->root, "content_block");
    const char  *type = neutral_text(block, "type");
    int          at = block_of(c->root);
    c->ev.narrowed = anthropic_narrows(type, c->state->begun);
    c->state->begun = true;
    if (type && strcmp(type, "tool_use") == 0) {
        return start_call(c, block, at, e);
    }
    if (at >= 0) {
        c->state->call[at] = 0;
    }
    if (type && strcmp(type, "text") == 0) {
        set_text(neutral_text(block, "text"), &c->ev.text, &c->ev.text_len);
    } else if (type && (strcmp(type, "thinking") == 0 || strcmp(type, "redacted_thinking") == 0)) {
        return start_thought(c, block, type[0] == 'r', e);
    }
    c->emit(c->ctx, &c->ev);
    return true;
}

static bool emit_delta(chunk *c, err *e) {
    const cJSON *delta = neutral_get(c->root, "delta");
    const char  *type = neutral_text(delta, "type");
    int          at = block_of(c->root);
    type = type ? type : "";
    if (strcmp(type, "text_delta") == 0) {
        set_text(neutral_text(delta, "text"), &c->ev.text, &c->ev.text_len);
    } else if (strcmp(type, "thinking_delta") == 0) {
        set_text(neutral_text(delta, "thinking"), &c->ev.reasoning, &c->ev.reasoning_len);
        c->state->thinking += c->ev.reasoning_len;
    } else if (strcmp(type, "signature_delta") == 0) {
        set_text(neutral_text(delta, "signature"), &c->ev.signature, &c->ev.signature_len);
    } else if (strcmp(type, "input_json_delta") == 0 && at >= 0 && c->state->call[at] > 0) {
        const char *piece = neutral_text(delta, "partial_json");
        c->state->said[at] = c->state->said[at] || (piece && piece[0]);
        return emit_call(c, c->state->call[at] - 1, NULL, NULL, piece ? piece : "", e);
    }
    c->ev.narrowed = strcmp(type, "citations_delta") == 0;
    c->emit(c->ctx, &c->ev);
    return true;
}

/* A call without arguments is one with none: OpenAI's clients parse the text. */
static bool emit_block_stop(chunk *c, err *e) {
    int at = block_of(c->root);
    if (at >= 0 && c->state->call[at] > 0 && !c->state->said[at]) {
        c->state->said[at] = true;
        return emit_call(c, c->state->call[at] - 1, NULL, NULL, "{}", e);
    }
    c->emit(c->ctx, &c->ev);
    return true;
}

/* The end and the tokens, as two events: a chunk of OpenAI's stream says one of them. */
static void emit_message_delta(chunk *c) {
    const cJSON *delta = neutral_get(c->root, "delta");
    anthropic_add_usage(neutral_get(c->root, "usage"), &c->state->usage);
    usage       u = anthropic_neutral_usage(&c->state->usage);
    const char *reason = neutral_text(delta, "stop_reason");
    c->ev.finish = anthropic_finish(reason);
    c->ev.narrowed = reason && strcmp(reason, "stop_sequence") == 0;
    set_text(neutral_text(neutral_get(delta, "stop_details"), "explanation"), &c->ev.refusal, &c->ev.refusal_len);
    c->emit(c->ctx, &c->ev);
    if (u.known) {
        event more = {.kind = EVENT_DELTA, .raw_dialect = &dialect_anthropic, .usage = &u};
        c->emit(c->ctx, &more);
    }
}

bool anthropic_read_chunk(request_kind kind, void *state, const char *data, size_t n,
                          void (*emit)(void *, const event *), void *ctx, bool *done, err *e) {
    (void)kind;
    cJSON *root = neutral_parse(data, n, "A chunk of the provider's stream", e);
    *done = false;
    if (!root) {
        return false;
    }
    chunk       c = {.state = state,
                     .root = root,
                     .emit = emit,
                     .ctx = ctx,
                     .ev = {.kind = EVENT_DELTA, .raw = data, .raw_len = n, .raw_dialect = &dialect_anthropic}};
    const char *type = neutral_text(root, "type"), *error = neutral_error(root);
    bool        good = true;
    type = type ? type : "";
    if (error || strcmp(type, "error") == 0) {
        good = err_set(e, ERR_UPSTREAM, "The provider reported an error in the middle of the stream: %.400s",
                       error ? error : "it did not say which.");
    } else if (strcmp(type, "message_start") == 0) {
        emit_start(&c);
    } else if (strcmp(type, "content_block_start") == 0) {
        good = emit_block_start(&c, e);
    } else if (strcmp(type, "content_block_delta") == 0) {
        good = emit_delta(&c, e);
    } else if (strcmp(type, "content_block_stop") == 0) {
        good = emit_block_stop(&c, e);
    } else if (strcmp(type, "message_delta") == 0) {
        emit_message_delta(&c);
    } else {
        *done = strcmp(type, "message_stop") == 0;
        emit(ctx, &c.ev);
    }
    cJSON_Delete(root);
    return good;
}
