/* openai_splice.c - the client's request for a provider: its own bytes, with the model's name (and the wish for usage)
 * put in. Nothing is parsed again: a scan over the validated bytes finds the members of the top level.               */
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

bool openai_write_request(const request *r, const char *model, bool ask_usage, str *out) {
    bool       add_usage = ask_usage && r->stream && !r->include_usage;
    size_t     at = 0;
    size_t     copied = 0; /* the raw bytes before this are in `out` */
    raw_member m;
    str_reserve(out, r->raw_len + strlen(model) + 64);
    while (raw_next(r->raw, r->raw_len, &at, &m)) {
        bool is_model = raw_key_is(&m, "model");
        bool is_options = !is_model && add_usage && raw_key_is(&m, "stream_options");
        if (!is_model && !is_options) {
            continue;
        }
        size_t value = (size_t)(m.value - r->raw);
        str_add(out, r->raw + copied, value - copied);
        copied = value + m.value_len;
        if (is_model) {
            str_jsons(out, model);
        } else {
            write_stream_options(r, out);
            add_usage = false;
        }
    }
    if (add_usage) { /* behind the last member: a request has at least its model */
        str_add(out, r->raw + copied, at - copied);
        copied = at;
        str_adds(out, ",\"stream_options\":");
        write_stream_options(r, out);
    }
    return str_add(out, r->raw + copied, r->raw_len - copied);
}
