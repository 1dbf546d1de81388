/* gemini_read.c - answers, whole and as a stream.
 *
 * A chunk of a stream has the form of a whole answer with a piece of the content in it; calls come whole. There is no end
 * mark: the last chunk of a candidate has its finishReason, and a stream that ends without it was cut. Counts of usage are
 * of the whole so far and stand in each chunk. What is absent or odd is taken as not said.                             */
#include "dialect/gemini.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

typedef struct reading {
    gemini_reading *state;
    void (*emit)(void *, const event *);
    void *ctx;
    event head; /* what the next event begins as */
    bool  whole, blocked;
    err  *e;
} reading;

typedef struct gathered { /* of one candidate */
    str         text, thought, refusal;
    cJSON      *calls, *logprobs;
    const char *signature;
} gathered;

static bool out_of_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while reading an answer.");
}

static bool is(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

/* ---- parts ---- */

/* Older models give calls no ids. One made of the answer's own id and the call's place is the same whenever the answer is
 * read, differs between answers, and is short enough for every other API (40 characters). */
static void make_id(const reading *rd, int candidate, int place, char out[48]) {
    const char *id = rd->head.id ? rd->head.id : "";
    uint64_t    seed = 0;
    if (!id[0]) {
        random_bytes(&seed, sizeof seed);
    }
    snprintf(out, 48, "call_%016" PRIx64 "%02x%03x", hash64(id, strlen(id), seed), (unsigned)candidate & 255,
             (unsigned)place & 4095);
}

static bool read_call(reading *rd, int candidate, const cJSON *call, gathered *g) {
    char         made[48];
    const char  *id = neutral_text(call, "id"), *name = neutral_text(call, "name");
    const cJSON *args = neutral_get(call, "args");
    int          place = rd->state->calls[candidate];
    str          arguments = {0};
    if (!id || !id[0]) {
        make_id(rd, candidate, place, made);
        id = made;
    }
    if (cJSON_IsObject(args)) {
        json_write(args, &arguments);
    } else {
        str_adds(&arguments, "{}");
    }
    g->calls = g->calls ? g->calls : cJSON_CreateArray();
    cJSON *out = cJSON_CreateObject(), *function;
    bool   good = !arguments.failed && cJSON_AddNumberToObject(out, "index", place) &&
                cJSON_AddStringToObject(out, "id", id) && cJSON_AddStringToObject(out, "type", "function") &&
                (function = cJSON_AddObjectToObject(out, "function")) &&
                cJSON_AddStringToObject(function, "name", name ? name : "") &&
                cJSON_AddStringToObject(function, "arguments", arguments.data) && cJSON_AddItemToArray(g->calls, out);
    str_free(&arguments);
    if (!good) {
        cJSON_Delete(out);
        return out_of_memory(rd->e);
    }
    rd->state->calls[candidate] = (uint16_t)(place < UINT16_MAX ? place + 1 : place);
    return true;
}

/* An answer has no place for bytes but its text, where Markdown shows an image. */
static void read_bytes(const cJSON *data, str *out) {
    const char *type = neutral_text(data, "mimeType"), *base64 = neutral_text(data, "data");
    if (type && base64) {
        bool image = strncmp(type, "image/", 6) == 0;
        str_adds(out, image ? "![image](data:" : "[data](data:");
        str_adds(out, type);
        str_adds(out, ";base64,");
        str_adds(out, base64);
        str_addc(out, ')');
    }
}

/* Of several signatures that of the calls counts: it is the one that must come back. */
static void read_signature(const cJSON *part, bool call, gathered *g) {
    const char *signature = neutral_text(part, "thoughtSignature");
    if (signature && signature[0] && (call ? !g->calls || !g->calls->child->next : !g->calls)) {
        g->signature = signature;
    }
}

static bool read_parts(reading *rd, int candidate, const cJSON *json, gathered *g) {
    const cJSON *part;
    cJSON_ArrayForEach(part, neutral_get(neutral_get(json, "content"), "parts")) {
        const char  *text = neutral_text(part, "text");
        const cJSON *call = neutral_get(part, "functionCall");
        if (text) {
            str_adds(cJSON_IsTrue(neutral_get(part, "thought")) ? &g->thought : &g->text, text);
        }
        read_bytes(neutral_get(part, "inlineData"), &g->text);
        if (cJSON_IsObject(call) && !read_call(rd, candidate, call, g)) {
            return false;
        }
        read_signature(part, cJSON_IsObject(call), g);
    }
    return (!g->text.failed && !g->thought.failed) || out_of_memory(rd->e);
}

/* ---- the end ---- */

/* The word for the reason; *refused: the answer is not what the model would have said, and the client is told why. */
static const char *finish_of(const char *reason, bool called, bool *refused) {
    static const char *const filters[] = {"SAFETY", "RECITATION",   "BLOCKLIST",        "PROHIBITED_CONTENT",
                                          "SPII",   "IMAGE_SAFETY", "IMAGE_RECITATION", "IMAGE_PROHIBITED_CONTENT"};
    *refused = false;
    if (is(reason, "STOP")) {
        return called ? "tool_calls" : "stop";
    }
    if (is(reason, "MAX_TOKENS")) {
        return "length";
    }
    *refused = true;
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        if (is(reason, filters[i])) {
            return "content_filter";
        }
    }
    return "stop"; /* MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, LANGUAGE, OTHER, ... */
}

static void tell(str *out, const char *what, const char *reason, const char *message) {
    str_addf(out, "%s (%s)%s%s", what, reason, message ? ": " : ".", message ? message : "");
}

/* A reason that has no name in OpenAI's API is said in the refusal, so that an empty answer does not pass for one. */
static void read_finish(reading *rd, int candidate, const cJSON *json, gathered *g, event *ev) {
    const char *reason = neutral_text(json, "finishReason"), *message = neutral_text(json, "finishMessage");
    bool        refused;
    if (!reason || is(reason, "FINISH_REASON_UNSPECIFIED") || rd->state->finished[candidate]) {
        return;
    }
    ev->finish = finish_of(reason, rd->state->calls[candidate] > 0, &refused);
    rd->state->finished[candidate] = true;
    if (refused && (message || !is(ev->finish, "content_filter") || g->text.len == 0)) {
        tell(&g->refusal, "The provider ended the answer", reason, message);
        ev->refusal = g->refusal.data;
        ev->refusal_len = g->refusal.len;
    }
}

/* ---- one candidate ---- */

static void fill(const reading *rd, const gathered *g, event *ev) {
    if (g->text.len > 0 || (rd->whole && !g->calls)) { /* an empty choice is a choice */
        ev->text = g->text.data ? g->text.data : "";
        ev->text_len = g->text.len;
    }
    if (g->thought.len > 0) {
        ev->reasoning = g->thought.data;
        ev->reasoning_len = g->thought.len;
    }
    ev->signature = g->signature;
    ev->signature_len = g->signature ? strlen(g->signature) : 0;
    ev->tool_calls = g->calls;
    ev->logprobs = g->logprobs;
}

static bool read_candidate(reading *rd, const cJSON *json, int position, const usage *u) {
    const cJSON *index = neutral_get(json, "index");
    int          candidate = cJSON_IsNumber(index) ? index->valueint : position;
    gathered     g = {0};
    event        ev = rd->head;
    if (candidate < 0 || candidate >= GEMINI_MAX_CANDIDATES) {
        return err_set(rd->e, ERR_UPSTREAM, "The provider's answer has a candidate with the number %d.", candidate);
    }
    bool good = read_parts(rd, candidate, json, &g);
    if (good) {
        g.logprobs = gemini_read_logprobs(json);
        g.signature = rd->state->has_signature[candidate] ? NULL : g.signature;
        rd->state->has_signature[candidate] = rd->state->has_signature[candidate] || g.signature;
        ev.choice = candidate;
        ev.usage = u;
        fill(rd, &g, &ev);
        read_finish(rd, candidate, json, &g, &ev);
        rd->emit(rd->ctx, &ev);
        rd->head.raw = NULL; /* the payload's bytes go with its first event */
        rd->head.raw_len = 0;
    }
    str_free(&g.text);
    str_free(&g.thought);
    str_free(&g.refusal);
    cJSON_Delete(g.calls);
    cJSON_Delete(g.logprobs);
    return good;
}

/* A prompt that the provider's filter stopped has no candidates. */
static bool read_block(reading *rd, const cJSON *root, const usage *u) {
    const cJSON *feedback = neutral_get(root, "promptFeedback");
    const char *reason = neutral_text(feedback, "blockReason"), *message = neutral_text(feedback, "blockReasonMessage");
    event       ev = rd->head;
    str         said = {0};
    if (reason && !rd->state->finished[0]) {
        tell(&said, "The provider stopped the prompt", reason, message);
        ev.refusal = said.data;
        ev.refusal_len = said.len;
        ev.finish = "content_filter";
        rd->state->finished[0] = rd->blocked = true;
    }
    ev.usage = u;
    rd->emit(rd->ctx, &ev);
    bool good = !said.failed;
    str_free(&said);
    return good || out_of_memory(rd->e);
}

/* One object of the API: a whole answer or a chunk. */
static bool read_object(reading *rd, const cJSON *root, const char *when) {
    const char  *error = neutral_error(root);
    const cJSON *candidates = neutral_get(root, "candidates"), *json;
    usage        u;
    bool         told = gemini_read_usage(root, &u);
    if (error) {
        return err_set(rd->e, ERR_UPSTREAM, "The provider reported an error%s: %.400s", when, error);
    }
    rd->head.kind = EVENT_DELTA;
    rd->head.id = neutral_text(root, "responseId");
    rd->head.model = neutral_text(root, "modelVersion");
    if (!cJSON_IsArray(candidates) || !candidates->child) {
        return read_block(rd, root, told ? &u : NULL);
    }
    int position = 0;
    cJSON_ArrayForEach(json, candidates) {
        if (!read_candidate(rd, json, position++, told && !json->next ? &u : NULL)) {
            return false;
        }
    }
    return true;
}

/* ---- whole answers ---- */

typedef struct adding {
    answer *to;
    bool    good;
    err    *e;
} adding;

static void add(void *ctx, const event *ev) {
    adding *a = ctx;
    a->good = a->good && answer_add(a->to, ev, a->e);
}

/* An array is what streamGenerateContent answers where nobody asked for server-sent events: chunk after chunk. */
static cJSON *parse(const char *body, size_t n, err *e) {
    const char *at = body, *end = body + n;
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) {
        at++;
    }
    if (at >= end || *at != '[') {
        return neutral_parse(body, n, "The provider's answer", e);
    }
    cJSON *list = json_parse(body, n, JSON_MAX_DEPTH, e);
    if (!list) {
        err_prefix(e, "The provider's answer cannot be read");
        if (e && e->code != ERR_MEMORY) {
            e->code = ERR_UPSTREAM;
        }
    }
    return list;
}

static bool read_chat(const cJSON *root, answer *out, err *e) {
    gemini_reading *state = calloc(1, sizeof *state);
    adding          a = {.to = out, .good = true, .e = e};
    reading         rd = {.state = state, .emit = add, .ctx = &a, .whole = true, .e = e};
    const cJSON    *item = cJSON_IsArray(root) ? root->child : root;
    bool            good = state || out_of_memory(e);
    for (; good && item; item = item->next) {
        good = read_object(&rd, item, "") && a.good;
    }
    free(state);
    return good && (out->n_choices > 0 ||
                    err_set(e, ERR_UPSTREAM,
                            "The provider's answer has no candidates: it is not an answer of " GEMINI_TARGET "."));
}

bool gemini_read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e) {
    *out = (answer){0};
    if (kind == REQUEST_EMBEDDINGS) {
        return gemini_read_embed(body, n, out, e);
    }
    cJSON *root = parse(body, n, e);
    bool   good = root && read_chat(root, out, e);
    cJSON_Delete(root);
    if (!good || !answer_keep_raw(out, body, n, &dialect_gemini, e)) {
        answer_clear(out);
        return false;
    }
    return true;
}

/* *done stays false: each candidate's finish says that it is complete, and another may follow; but none follows a prompt
 * that was stopped. */
bool gemini_read_chunk(request_kind kind, void *state, const char *data, size_t n, void (*emit)(void *, const event *),
                       void *ctx, bool *done, err *e) {
    (void)kind;
    *done = false;
    cJSON *root = neutral_parse(data, n, "A chunk of the provider's stream", e);
    if (!root) {
        return false;
    }
    reading rd = {.state = state, .emit = emit, .ctx = ctx, .e = e};
    rd.head = (event){.raw = data, .raw_len = n, .raw_dialect = &dialect_gemini};
    bool good = read_object(&rd, root, " in the middle of the stream");
    *done = good && rd.blocked;
    cJSON_Delete(root);
    return good;
}
