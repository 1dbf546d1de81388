/* anthropic_write.c - messages, usage and errors as Anthropic's API spells them. */
#include <inttypes.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "dialect/anthropic.h"
#include "dialect/neutral.h"

/* ---- usage ---- */

/* input_tokens is what was neither read from a cache nor written to one. */
bool anthropic_write_usage(const usage *u, str *out) {
    int64_t created = u->write_5m + u->write_1h;
    int64_t input = u->prompt - u->cached - created;
    str_addf(out,
             "{\"input_tokens\":%" PRId64 ",\"cache_creation_input_tokens\":%" PRId64
             ",\"cache_read_input_tokens\":%" PRId64 ",\"cache_creation\":{\"ephemeral_5m_input_tokens\":%" PRId64
             ",\"ephemeral_1h_input_tokens\":%" PRId64 "},\"output_tokens\":%" PRId64,
             input > 0 ? input : 0, created, u->cached, u->write_5m, u->write_1h, u->completion);
    if (u->reasoning > 0) {
        str_addf(out, ",\"output_tokens_details\":{\"thinking_tokens\":%" PRId64 "}", u->reasoning);
    }
    if (u->searches > 0) {
        str_addf(out, ",\"server_tool_use\":{\"web_search_requests\":%" PRId64 "}", u->searches);
    }
    return str_addf(out, ",\"service_tier\":\"%s\"}",
                    u->tier == TIER_PRIORITY ? "priority"
                    : u->tier == TIER_BATCH  ? "batch"
                                             : "standard");
}

bool anthropic_write_count(int64_t tokens, str *out) {
    return str_addf(out, "{\"input_tokens\":%" PRId64 "}", tokens);
}

/* ---- a whole answer ---- */

const char *anthropic_stop_reason(const choice *c) {
    if (!c || !c->finish[0]) {
        return NULL;
    }
    if (strcmp(c->finish, "length") == 0) {
        return "max_tokens";
    }
    if (strcmp(c->finish, "content_filter") == 0 || c->refusal.len > 0) {
        return "refusal";
    }
    return c->tool_calls && c->tool_calls->child ? "tool_use" : "end_turn";
}

static void write_text(const char *type, const char *key, const str *text, const char **comma, str *out) {
    if (text->len > 0) {
        str_addf(out, "%s{\"type\":\"%s\",\"%s\":", *comma, type, key);
        str_json(out, text->data, text->len);
        str_addc(out, '}');
        *comma = ",";
    }
}

static void write_thinking(const choice *c, const char **comma, str *out) {
    if (c->reasoning.len > 0 || c->signature.len > 0) {
        const anthropic_thought alone = {c->reasoning.data, c->reasoning.len, c->signature.data, c->signature.len,
                                         false};
        anthropic_thought       all[ANTHROPIC_MAX_THOUGHTS];
        int n = anthropic_thoughts(alone.text ? alone.text : "", alone.text_len, alone.signature ? alone.signature : "",
                                   alone.signature_len, all);
        for (int i = 0; i < n || i == 0; i++) {
            str_adds(out, *comma);
            anthropic_write_thought(n > 0 ? &all[i] : &alone, out);
            *comma = ",";
        }
    }
}

/* Arguments that are no object (a small model's, say) stand as the text they are, under a name that says so: the API has
 * no place for them, and a client shall see what was said. */
static void write_input(const char *arguments, str *out) {
    cJSON *input = neutral_arguments(arguments);
    cJSON_Delete(input);
    if (input) {
        str_adds(out, arguments && arguments[0] ? arguments : "{}"); /* as it stands: no number is rounded */
        return;
    }
    str_adds(out, "{\"invalid_json\":");
    str_jsons(out, arguments);
    str_addc(out, '}');
}

void anthropic_write_call_id(const answer *a, const cJSON *call, int i, str *out) {
    const char *id = neutral_text(call, "id");
    if (id && id[0]) {
        str_jsons(out, id);
    } else {
        str_addf(out, "\"toolu_%016" PRIx64 "%03x\"", hash64(a->id, strlen(a->id), 0), (unsigned)i & 4095);
    }
}

static void write_calls(const answer *a, const cJSON *calls, const char **comma, str *out) {
    const cJSON *call;
    int          i = 0;
    cJSON_ArrayForEach(call, calls) {
        const cJSON *function = neutral_get(call, "function");
        const char  *name = neutral_text(function, "name");
        str_addf(out, "%s{\"type\":\"tool_use\",\"id\":", *comma);
        anthropic_write_call_id(a, call, i++, out);
        str_adds(out, ",\"name\":");
        str_jsons(out, name ? name : "");
        str_adds(out, ",\"input\":");
        write_input(neutral_text(function, "arguments"), out);
        str_addc(out, '}');
        *comma = ",";
    }
}

bool anthropic_write_answer(const request *r, const answer *a, str *out) {
    const choice *c = a->n_choices > 0 ? &a->choices[0] : NULL;
    const char   *comma = "";
    (void)r;
    str_adds(out, "{\"id\":");
    str_jsons(out, a->id[0] ? a->id : "msg_0");
    str_adds(out, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    str_jsons(out, a->model);
    str_adds(out, ",\"content\":[");
    if (c) {
        write_thinking(c, &comma, out);
        write_text("text", "text", &c->text, &comma, out);
        write_text("text", "text", &c->refusal, &comma, out);
        write_calls(a, c->tool_calls, &comma, out);
    }
    str_adds(out, "],\"stop_reason\":");
    str_jsons(out, anthropic_stop_reason(c));
    str_adds(out, ",\"stop_sequence\":null,\"usage\":");
    anthropic_write_usage(&a->usage, out);
    return str_addc(out, '}');
}

/* ---- an error ---- */

static const char *type_of(int status) {
    static const struct {
        int         status;
        const char *type;
    } types[] = {{401, "authentication_error"}, {402, "billing_error"},    {403, "permission_error"},
                 {404, "not_found_error"},      {408, "timeout_error"},    {413, "request_too_large"},
                 {429, "rate_limit_error"},     {503, "overloaded_error"}, {504, "timeout_error"},
                 {529, "overloaded_error"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].status == status) {
            return types[i].type;
        }
    }
    return status < 500 ? "invalid_request_error" : "api_error";
}

/* A sentence may quote bytes of a provider or of a path: what is not UTF-8 becomes U+FFFD. */
static void write_sentence(const char *text, str *out) {
    size_t n = strlen(text);
    str    clean = {0};
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char     bytes[4];
        i += utf8_decode(text + i, n - i, &c);
        str_add(&clean, bytes, utf8_encode(c, bytes));
    }
    str_json(out, clean.data ? clean.data : "", clean.len);
    out->failed = out->failed || clean.failed;
    str_free(&clean);
}

bool anthropic_write_error(const err *e, int status, str *out) {
    str_addf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
             type_of(status ? status : error_status(e->code)));
    write_sentence(e->text, out);
    if (e->code == ERR_UNSUPPORTED && strcmp(e->param, "thread") == 0) { /* the SDKs then send the whole conversation */
        str_adds(out, ",\"details\":{\"error_code\":\"thread_unsupported_request\",\"unsupported\":[\"thread\"]}");
    }
    return str_adds(out, "}}");
}
