/* openai_embeddings.c - reads POST /v1/embeddings: {model, input, encoding_format, dimensions, user}. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dialect/openai.h"

#define MAX_INPUTS     2048 /* as OpenAI's */
#define MAX_DIMENSIONS (1 << 20)

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(value) ? NULL : value;
}

static bool read_ids(const cJSON *list, const char *where, arena *memory, prompt *out, err *e) {
    int count = cJSON_GetArraySize(list);
    if (count == 0) {
        return err_at(e, ERR_INVALID, where, "%s is an empty array: it needs at least one token.", where);
    }
    out->ids = arena_zero(memory, (size_t)count, sizeof *out->ids);
    if (!out->ids) {
        return err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
    }
    const cJSON *id;
    cJSON_ArrayForEach(id, list) {
        double d = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (d < 0 || d > INT32_MAX || d != floor(d)) {
            char place[64];
            snprintf(place, sizeof place, "%s[%d]", where, out->n_ids);
            return err_at(e, ERR_INVALID, place, "%s must be a token id, an integer from 0 to %d.", place, INT32_MAX);
        }
        out->ids[out->n_ids++] = (int32_t)d;
    }
    return true;
}

static bool read_input(const cJSON *json, const char *where, arena *memory, prompt *out, err *e) {
    if (cJSON_IsArray(json)) {
        return read_ids(json, where, memory, out, e);
    }
    if (!cJSON_IsString(json)) {
        return err_at(e, ERR_INVALID, where, "%s must be a string or an array of token ids, not %s.", where,
                      json_kind(json));
    }
    out->text = json->valuestring;
    return out->text[0] || err_at(e, ERR_INVALID, where, "%s is an empty string, which has no embedding.", where);
}

static bool read_list(request *r, const cJSON *list, arena *memory, err *e) {
    int count = cJSON_GetArraySize(list);
    if (count == 0) {
        return err_at(e, ERR_INVALID, "input", "input is an empty array: send at least one text.");
    }
    if (count > MAX_INPUTS) {
        return err_at(e, ERR_LIMIT, "input", "input holds %d texts; one request takes %d at most.", count, MAX_INPUTS);
    }
    r->prompts = arena_zero(memory, (size_t)count, sizeof *r->prompts);
    if (!r->prompts) {
        return err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        char place[32];
        snprintf(place, sizeof place, "input[%d]", r->n_prompts);
        if (!read_input(item, place, memory, &r->prompts[r->n_prompts], e)) {
            return false;
        }
        r->n_prompts++;
    }
    return true;
}

static bool read_format(request *r, err *e) {
    const char *format = "float";
    if (!json_get_string(r->body, "", "encoding_format", &format, e) ||
        !json_get_int(r->body, "", "dimensions", 1, MAX_DIMENSIONS, &r->dimensions, e)) {
        return false;
    }
    r->base64 = strcmp(format, "base64") == 0;
    return r->base64 || strcmp(format, "float") == 0 ||
           err_at(e, ERR_INVALID, "encoding_format", "encoding_format must be \"float\" or \"base64\", not \"%.40s\".",
                  format);
}

bool openai_read_embeddings(request *r, arena *memory, err *e) {
    const cJSON *input = member(r->body, "input");
    if (!input || (!cJSON_IsString(input) && !cJSON_IsArray(input))) {
        return err_at(e, ERR_INVALID, "input", "input %s%s: it must be a string, an array of strings or token ids.",
                      input ? "must not be " : "is missing", input ? json_kind(input) : "");
    }
    if (!read_format(r, e)) {
        return false;
    }
    if (cJSON_IsArray(input) && !cJSON_IsNumber(input->child)) {
        return read_list(r, input, memory, e);
    }
    r->prompts = arena_zero(memory, 1, sizeof *r->prompts);
    r->n_prompts = 1;
    return r->prompts ? read_input(input, "input", memory, r->prompts, e)
                      : err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
}
