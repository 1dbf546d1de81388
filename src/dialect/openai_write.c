/* openai_write.c - answers, chunks and errors as the OpenAI API spells them. */
#include <inttypes.h>
#include <string.h>

#include "base/utf8.h"
#include "dialect/openai.h"

/* An id is passed on as the provider or pare made it. */
static bool write_head(request_kind kind, bool chunk, const answer *a, str *out) {
    const char *object = kind == REQUEST_COMPLETION ? "text_completion"
                         : chunk                    ? "chat.completion.chunk"
                                                    : "chat.completion";
    str_adds(out, "{\"id\":");
    str_jsons(out, a->id[0] ? a->id : kind == REQUEST_COMPLETION ? "cmpl-0" : "chatcmpl-0");
    str_addf(out, ",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", object, a->created);
    return str_jsons(out, a->model);
}

static void write_count(const char *name, int64_t count, str *out) {
    if (count > 0) {
        str_addf(out, ",\"%s\":%" PRId64, name, count);
    }
}

static bool write_usage_object(const usage *u, str *out) {
    str_addf(out,
             "{\"prompt_tokens\":%" PRId64 ",\"completion_tokens\":%" PRId64 ",\"total_tokens\":%" PRId64
             ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRId64,
             u->prompt, u->completion, u->prompt + u->completion, u->cached);
    write_count("audio_tokens", u->audio_in, out);
    write_count("image_tokens", u->image_in, out);
    write_count("cache_write_tokens", u->write_5m + u->write_1h, out);
    str_addf(out, "},\"completion_tokens_details\":{\"reasoning_tokens\":%" PRId64, u->reasoning);
    write_count("audio_tokens", u->audio_out, out);
    return str_adds(out, "}}");
}

static bool write_text(str *out, const char *bytes, size_t n) {
    return str_json(out, bytes ? bytes : "", n);
}

static bool write_finish(const char *finish, str *out) {
    str_adds(out, ",\"finish_reason\":");
    return str_jsons(out, finish && finish[0] ? finish : NULL);
}

/* ---- a whole answer ---- */

static bool write_message(const choice *c, str *out) {
    str_adds(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    bool silent = c->text.len == 0 && (c->tool_calls || c->refusal.len > 0);
    if (silent) {
        str_adds(out, "null");
    } else {
        write_text(out, c->text.data, c->text.len);
    }
    if (c->reasoning.len > 0) {
        str_adds(out, ",\"reasoning_content\":");
        write_text(out, c->reasoning.data, c->reasoning.len);
    }
    str_adds(out, ",\"refusal\":");
    if (c->refusal.len > 0) {
        write_text(out, c->refusal.data, c->refusal.len);
    } else {
        str_adds(out, "null");
    }
    if (c->signature.len > 0) {
        str_adds(out, ",\"reasoning_signature\":");
        write_text(out, c->signature.data, c->signature.len);
    }
    if (c->tool_calls) {
        str_adds(out, ",\"tool_calls\":");
        json_write(c->tool_calls, out);
    }
    return str_addc(out, '}');
}

bool openai_write_answer(const request *r, const answer *a, str *out) {
    request_kind kind = r->kind;
    write_head(kind, false, a, out);
    str_adds(out, ",\"choices\":[");
    for (int i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        str_addf(out, i > 0 ? ",{\"index\":%d," : "{\"index\":%d,", i);
        if (kind == REQUEST_CHAT) {
            write_message(c, out);
        } else {
            str_adds(out, "\"text\":");
            write_text(out, c->text.data, c->text.len);
        }
        str_adds(out, ",\"logprobs\":");
        logprobs_write(kind, c->logprobs, 0, out);
        write_finish(c->finish, out);
        str_addc(out, '}');
    }
    str_addc(out, ']');
    if (a->usage.known) {
        str_adds(out, ",\"usage\":");
        write_usage_object(&a->usage, out);
    }
    return str_addc(out, '}');
}

/* ---- a stream ---- */

/* A delta of a tool call needs its index; the calls of a whole answer that is told as a stream have none. */
static bool write_call_deltas(const cJSON *calls, str *out) {
    int          i = 0;
    const cJSON *call;
    str_addc(out, '[');
    cJSON_ArrayForEach(call, calls) {
        str_adds(out, i > 0 ? "," : "");
        if (cJSON_IsObject(call) && !cJSON_HasObjectItem(call, "index")) {
            str_addf(out, "{\"index\":%d", i);
            const cJSON *m;
            cJSON_ArrayForEach(m, call) {
                str_addc(out, ',');
                str_jsons(out, m->string);
                str_addc(out, ':');
                json_write(m, out);
            }
            str_addc(out, '}');
        } else {
            json_write(call, out);
        }
        i++;
    }
    return str_addc(out, ']');
}

static bool write_delta(const event *ev, bool first, str *out) {
    const char *comma = "";
    str_adds(out, "\"delta\":{");
    if (first) {
        str_adds(out, "\"role\":\"assistant\"");
        comma = ",";
    }
    if (ev->text || (first && !ev->reasoning && !ev->tool_calls && !ev->refusal)) {
        str_addf(out, "%s\"content\":", comma);
        write_text(out, ev->text, ev->text ? ev->text_len : 0);
        comma = ",";
    }
    if (ev->reasoning) {
        str_addf(out, "%s\"reasoning_content\":", comma);
        write_text(out, ev->reasoning, ev->reasoning_len);
        comma = ",";
    }
    if (ev->refusal) {
        str_addf(out, "%s\"refusal\":", comma);
        write_text(out, ev->refusal, ev->refusal_len);
        comma = ",";
    }
    if (ev->signature) {
        str_addf(out, "%s\"reasoning_signature\":", comma);
        write_text(out, ev->signature, ev->signature_len);
        comma = ",";
    }
    if (ev->tool_calls) {
        str_addf(out, "%s\"tool_calls\":", comma);
        write_call_deltas(ev->tool_calls, out);
    }
    return str_addc(out, '}');
}

/* Characters of the choice's text before this event. `head` is the answer as far as it has grown, with the event in it,
 * or a bare head, and then the count begins at the event. */
static size_t text_offset(const answer *head, const event *ev) {
    if (!ev->logprobs || ev->choice < 0 || ev->choice >= head->n_choices) {
        return 0;
    }
    const str *text = &head->choices[ev->choice].text;
    size_t     before = text->len > ev->text_len ? text->len - ev->text_len : 0;
    size_t     count = 0;
    for (size_t i = 0; i < before; i++) {
        count += ((unsigned char)text->data[i] & 0xC0) != 0x80;
    }
    return count;
}

bool openai_write_chunk(request_kind kind, const answer *head, const event *ev, bool first, str *out) {
    write_head(kind, true, head, out);
    str_addf(out, ",\"choices\":[{\"index\":%d,", ev->choice);
    if (kind == REQUEST_CHAT) {
        write_delta(ev, first, out);
    } else {
        str_adds(out, "\"text\":");
        write_text(out, ev->text, ev->text ? ev->text_len : 0);
    }
    str_adds(out, ",\"logprobs\":");
    logprobs_write(kind, ev->logprobs, kind == REQUEST_COMPLETION ? text_offset(head, ev) : 0, out);
    write_finish(ev->finish, out);
    return str_adds(out, "}]}");
}

bool openai_write_usage(request_kind kind, const answer *head, const usage *u, str *out) {
    write_head(kind, true, head, out);
    str_adds(out, ",\"choices\":[],\"usage\":");
    write_usage_object(u, out);
    return str_addc(out, '}');
}

/* ---- an error ---- */

static const char *type_of(int status) {
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return status < 500 ? "invalid_request_error" : "api_error";
    }
}

static const char *code_of(const err *e, int status) {
    if (status == 404 && strcmp(e->param, "model") == 0) {
        return "model_not_found";
    }
    if (e->code == ERR_CONTEXT) {
        return "context_length_exceeded";
    }
    switch (status) {
    case 401:
        return "invalid_api_key";
    case 429:
        return "rate_limit_exceeded";
    default:
        return NULL;
    }
}

/* A sentence may quote bytes of a provider or of a path: what is not UTF-8 becomes U+FFFD. */
static bool write_sentence(const char *text, str *out) {
    size_t n = strlen(text);
    if (utf8_valid(text, n, NULL)) {
        return str_json(out, text, n);
    }
    str clean = {0};
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char     bytes[4];
        i += utf8_decode(text + i, n - i, &c);
        str_add(&clean, bytes, utf8_encode(c, bytes));
    }
    str_json(out, clean.data ? clean.data : "", clean.len);
    out->failed = out->failed || clean.failed;
    str_free(&clean);
    return !out->failed;
}

bool openai_write_error(const err *e, int status, str *out) {
    if (status == 0) {
        status = error_status(e->code);
    }
    str_adds(out, "{\"error\":{\"message\":");
    write_sentence(e->text, out);
    str_addf(out, ",\"type\":\"%s\",\"param\":", type_of(status));
    if (e->param[0]) {
        write_sentence(e->param, out);
    } else {
        str_adds(out, "null");
    }
    str_adds(out, ",\"code\":");
    str_jsons(out, code_of(e, status));
    return str_adds(out, "}}");
}
