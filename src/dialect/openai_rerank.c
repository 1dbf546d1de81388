/* openai_rerank.c - reads POST /v1/rerank, which Cohere and Jina have in about the same form: {model, query, documents:
 * [text or {text}], top_n, return_documents}.                                                                       */
#include <stdio.h>

#include "dialect/openai.h"

#define MAX_DOCUMENTS 2048

static bool read_document(const cJSON *json, int i, prompt *out, err *e) {
    char         place[40];
    const cJSON *text = cJSON_IsObject(json) ? cJSON_GetObjectItemCaseSensitive(json, "text") : json;
    snprintf(place, sizeof place, "documents[%d]%s", i, cJSON_IsObject(json) ? ".text" : "");
    if (!cJSON_IsString(text)) {
        return err_at(e, ERR_INVALID, place, "%s must be a string%s, not %s.", place,
                      cJSON_IsObject(json) ? "" : " or an object with a text", text ? json_kind(text) : "missing");
    }
    out->text = text->valuestring;
    return out->text[0] || err_at(e, ERR_INVALID, place, "%s is an empty string.", place);
}

static bool read_documents(request *r, arena *memory, err *e) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(r->body, "documents"), *item;
    if (!cJSON_IsArray(list)) {
        return err_at(e, ERR_INVALID, "documents", "documents must be an array of texts, not %s.",
                      list ? json_kind(list) : "missing");
    }
    int count = cJSON_GetArraySize(list);
    if (count == 0) {
        return err_at(e, ERR_INVALID, "documents", "documents is an empty array: send at least one.");
    }
    if (count > MAX_DOCUMENTS) {
        return err_at(e, ERR_LIMIT, "documents", "documents holds %d texts; one request takes %d at most.", count,
                      MAX_DOCUMENTS);
    }
    r->prompts = arena_zero(memory, (size_t)count, sizeof *r->prompts);
    if (!r->prompts) {
        return err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
    }
    cJSON_ArrayForEach(item, list) {
        if (!read_document(item, r->n_prompts, &r->prompts[r->n_prompts], e)) {
            return false;
        }
        r->n_prompts++;
    }
    return true;
}

bool openai_read_rerank(request *r, arena *memory, err *e) {
    if (!json_get_string(r->body, "", "query", &r->query, e) ||
        !json_get_int(r->body, "", "top_n", 1, INT32_MAX, &r->top_n, e) ||
        !json_get_bool(r->body, "", "return_documents", &r->return_documents, e)) {
        return false;
    }
    if (!r->query || !r->query[0]) {
        return err_at(e, ERR_INVALID, "query", "query is %s: it must be a text.", r->query ? "empty" : "missing");
    }
    return read_documents(r, memory, e);
}
