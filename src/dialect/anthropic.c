/* anthropic.c - Anthropic's Messages API as a dialect; the work is in anthropic_*.c. */
#include "dialect/anthropic.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"

/* ---- small things the readers share ---- */

anthropic_place anthropic_at(const char *format, ...) {
    anthropic_place p;
    va_list         args;
    va_start(args, format);
    vsnprintf(p.text, sizeof p.text, format, args);
    va_end(args);
    return p;
}

bool anthropic_wrong(const char *param, const char *wanted, const cJSON *value, err *e) {
    if (!value) {
        return err_at(e, ERR_INVALID, param, "%s is missing: it must be %s.", param, wanted);
    }
    return err_at(e, ERR_INVALID, param, "%s must be %s, not %s.", param, wanted, json_kind(value));
}

static bool out_of_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
}

bool anthropic_put(cJSON *object, const char *key, cJSON *value, err *e) {
    if (!object || !value || !cJSON_AddItemToObject(object, key, value)) {
        cJSON_Delete(value);
        return out_of_memory(e);
    }
    return true;
}

bool anthropic_append(cJSON *array, cJSON *value, err *e) {
    if (!array || !value || !cJSON_AddItemToArray(array, value)) {
        cJSON_Delete(value);
        return out_of_memory(e);
    }
    return true;
}

bool anthropic_copy(cJSON *object, const char *key, const cJSON *value, err *e) {
    return !value || anthropic_put(object, key, cJSON_Duplicate(value, true), e);
}

/* ---- the dialect ---- */

/* A base with or without the version: "https://api.anthropic.com" and "https://api.anthropic.com/v1" are the same. */
static bool write_url(const place_of *p, str *out) {
    size_t n = strlen(p->base);
    bool   versioned = n >= 3 && strcmp(p->base + n - 3, "/v1") == 0;
    if (p->kind != REQUEST_CHAT) {
        return false;
    }
    str_add(out, p->base, n);
    return str_adds(out, versioned ? "/messages" : "/v1/messages");
}

/* Threads are conversations that Anthropic keeps: only what is new comes with the request. */
static bool read_local(request *r, err *e) {
    const cJSON *thread = neutral_get(r->body, "thread");
    return (!thread || drop_member(NULL, "thread", "a model of our own", e)) && openai_read_local(r, e);
}

static const char *const headers[] = {"anthropic-version: 2023-06-01", NULL};
static const char *const passed[] = {"anthropic-beta", "anthropic-version", NULL};

const dialect dialect_anthropic = {
    .name = "anthropic",
    .read_request = anthropic_read_request,
    .read_local = read_local,
    .canonical = openai_canonical, /* of the neutral form */
    .write_answer = anthropic_write_answer,
    .write_error = anthropic_write_error,
    .writing = sizeof(anthropic_writing),
    .write_event = anthropic_write_event,
    .write_raw = anthropic_write_raw,
    .write_end = anthropic_write_end,
    .write_break = anthropic_write_break,
    .write_url = write_url,
    .key_header = "x-api-key: ",
    .headers = headers,
    .passed = passed,
    .write_request = anthropic_write_request,
    .read_answer = anthropic_read_answer,
    .reading = sizeof(anthropic_reading),
    .read_chunk = anthropic_read_chunk,
};
