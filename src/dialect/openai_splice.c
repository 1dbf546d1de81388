/* openai_splice.c - the client's request for a provider: its own bytes, with the model's name (and the wish for usage)
 * put in. Nothing is parsed again: a scan over the validated bytes finds the members of the top level.               */
#include <inttypes.h>
#include <string.h>

#include "dialect/openai.h"

static bool blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* p is behind the opening quote; returns the place behind the closing one. memchr runs many bytes a cycle, and the run
 * of backslashes before each quote is walked once, so this is linear. */
static const char *skip_string(const char *p, const char *end) {
    const char *start = p;
    for (;;) {
        const char *quote = memchr(p, '"', (size_t)(end - p));
        if (!quote) {
            return end;
        }
        const char *slash = quote;
        while (slash > start && slash[-1] == '\\') {
            slash--;
        }
        if ((quote - slash) % 2 == 0) {
            return quote + 1;
        }
        p = quote + 1;
    }
}

static const char *skip_nested(const char *p, const char *end) {
    int depth = 0;
    while (p < end) {
        switch (*p++) {
        case '"':
            p = skip_string(p, end);
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (--depth == 0) {
                return p;
            }
            break;
        default:
            break;
        }
    }
    return end;
}

static const char *skip_value(const char *p, const char *end) {
    if (p < end && *p == '"') {
        return skip_string(p + 1, end);
    }
    if (p < end && (*p == '{' || *p == '[')) {
        return skip_nested(p, end);
    }
    while (p < end && *p != ',' && *p != '}' && !blank(*p)) {
        p++;
    }
    return p;
}

static const char *skip_blanks(const char *p, const char *end) {
    while (p < end && blank(*p)) {
        p++;
    }
    return p;
}

bool raw_next(const char *raw, size_t n, size_t *at, raw_member *out) {
    const char *end = raw + n;
    const char *p = skip_blanks(raw + *at, end);
    if (p < end && (*p == '{' || *p == ',')) {
        p = skip_blanks(p + 1, end);
    }
    if (p >= end || *p != '"') {
        return false;
    }
    out->key = p + 1;
    p = skip_string(p + 1, end);
    out->key_len = (size_t)(p - out->key) - 1;
    p = skip_blanks(p, end);
    if (p >= end || *p != ':') {
        return false;
    }
    out->value = skip_blanks(p + 1, end);
    p = skip_value(out->value, end);
    out->value_len = (size_t)(p - out->value);
    *at = (size_t)(p - raw);
    return true;
}

bool raw_key_is(const raw_member *m, const char *name) {
    if (!memchr(m->key, '\\', m->key_len)) {
        return m->key_len == strlen(name) && memcmp(m->key, name, m->key_len) == 0;
    }
    cJSON *key = cJSON_ParseWithLength(m->key - 1, m->key_len + 2);
    bool   same = cJSON_IsString(key) && strcmp(key->valuestring, name) == 0;
    cJSON_Delete(key);
    return same;
}

/* The client's stream options, if any, with include_usage set. */
static bool write_stream_options(const request *r, str *out) {
    const cJSON *options = cJSON_GetObjectItemCaseSensitive(r->body, "stream_options");
    str_adds(out, "{\"include_usage\":true");
    const cJSON *m;
    cJSON_ArrayForEach(m, options) {
        if (m->string && strcmp(m->string, "include_usage") != 0) {
            str_addc(out, ',');
            str_jsons(out, m->string);
            str_addc(out, ':');
            json_write(m, out);
        }
    }
    return str_addc(out, '}');
}

/* What replaces a member's value, or NULL: it stays. */
typedef enum replaced { KEEP, MODEL, OPTIONS, LIMIT, NAME } replaced;

typedef struct wishes { /* for what goes out */
    bool usage, limit;
    bool renamed; /* max_tokens is called max_completion_tokens there */
} wishes;

static replaced of_member(const raw_member *m, const wishes *w) {
    return raw_key_is(m, "model")                                                                ? MODEL
           : w->usage && raw_key_is(m, "stream_options")                                         ? OPTIONS
           : w->renamed && raw_key_is(m, "max_tokens")                                           ? NAME
           : w->limit && (raw_key_is(m, "max_tokens") || raw_key_is(m, "max_completion_tokens")) ? LIMIT
                                                                                                 : KEEP;
}

/* OpenAI's own reasoning models refuse the older name, and its other chat models take both. A request with both goes as it
 * is: the provider says which it means. Source: OpenAI's API reference, chat completions, max_tokens. */
static bool is_renamed(const request *r, bool own) {
    return own && r->kind == REQUEST_CHAT && cJSON_GetObjectItemCaseSensitive(r->body, "max_tokens") &&
           !cJSON_GetObjectItemCaseSensitive(r->body, "max_completion_tokens");
}

static void write_limit(const request *r, str *out) {
    str_addf(out, "%" PRId64, request_most(r));
}

/* The client's own bytes with some members in their places replaced, and those that lack behind the last one: a request
 * has at least its model. */
static bool splice(const request *r, const char *model, bool ask_usage, bool own, str *out) {
    wishes     w = {.usage = ask_usage && r->stream && !r->include_usage,
                    .limit = r->most_tokens > 0 && request_most(r) != r->max_tokens,
                    .renamed = is_renamed(r, own)};
    size_t     at = 0, copied = 0; /* the raw bytes before `copied` are in `out` */
    bool       wrote_usage = !w.usage, wrote_limit = !w.limit;
    raw_member m;
    str_reserve(out, r->raw_len + strlen(model) + 96);
    while (raw_next(r->raw, r->raw_len, &at, &m)) {
        replaced what = of_member(&m, &w);
        if (what == KEEP) {
            continue;
        }
        size_t value = (size_t)(m.value - r->raw);
        if (what == NAME) {
            size_t key = (size_t)(m.key - r->raw);
            str_add(out, r->raw + copied, key - copied);
            str_adds(out, "max_completion_tokens\":");
            copied = value;
            what = w.limit ? LIMIT : KEEP;
            if (what == KEEP) {
                continue;
            }
        }
        str_add(out, r->raw + copied, value - copied);
        copied = value + m.value_len;
        if (what == MODEL) {
            str_jsons(out, model);
        } else if (what == OPTIONS) {
            write_stream_options(r, out);
            wrote_usage = true;
        } else {
            write_limit(r, out);
            wrote_limit = true;
        }
    }
    str_add(out, r->raw + copied, at - copied);
    if (!wrote_usage) {
        str_adds(out, ",\"stream_options\":");
        write_stream_options(r, out);
    }
    if (!wrote_limit) {
        str_adds(out, r->kind == REQUEST_CHAT ? ",\"max_completion_tokens\":" : ",\"max_tokens\":");
        write_limit(r, out);
    }
    return str_add(out, r->raw + at, r->raw_len - at);
}

static bool write_request(const request *r, const char *model, bool ask_usage, bool own, str *out, err *e) {
    if (r->from && r->from != &dialect_openai) {
        return openai_write_neutral(r, model, ask_usage, own, out, e);
    }
    return splice(r, model, ask_usage, own, out) ||
           err_set(e, ERR_MEMORY, "The request could not be written: out of memory.");
}

bool openai_write_request(const request *r, const char *model, bool ask_usage, str *out, err *e) {
    return write_request(r, model, ask_usage, false, out, e);
}

bool openai_write_own(const request *r, const char *model, bool ask_usage, str *out, err *e) {
    return write_request(r, model, ask_usage, true, out, e);
}
