/* openai_logprobs.c - log probabilities: chat's form, which is the neutral one, and the older form of completions. */
#include <string.h>

#include "dialect/openai.h"

/* ---- read ---- */

/* A token's text is not always whole UTF-8; `bytes` is what counts. The old form has no bytes: those of the text. */
static cJSON *bytes_of(const char *token) {
    cJSON *bytes = cJSON_CreateArray();
    for (const unsigned char *p = (const unsigned char *)token; *p; p++) {
        cJSON_AddItemToArray(bytes, cJSON_CreateNumber(*p));
    }
    return bytes;
}

static cJSON *new_entry(const char *token, const cJSON *logprob) {
    cJSON *entry = cJSON_CreateObject();
    cJSON_AddStringToObject(entry, "token", token);
    if (logprob && cJSON_IsNumber(logprob)) {
        cJSON_AddNumberToObject(entry, "logprob", logprob->valuedouble);
    } else {
        cJSON_AddNullToObject(entry, "logprob"); /* the first token of an echoed prompt has none */
    }
    cJSON_AddItemToObject(entry, "bytes", bytes_of(token));
    return entry;
}

cJSON *logprobs_from_completion(const cJSON *old) {
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(old, "tokens");
    const cJSON *logprobs = cJSON_GetObjectItemCaseSensitive(old, "token_logprobs");
    const cJSON *tops = cJSON_GetObjectItemCaseSensitive(old, "top_logprobs");
    if (!cJSON_IsArray(tokens)) {
        return NULL;
    }
    /* Three lists that walk side by side; a list that ends early leaves nulls. */
    const cJSON *logprob = logprobs ? logprobs->child : NULL;
    const cJSON *top = tops ? tops->child : NULL;
    cJSON       *out = cJSON_CreateArray();
    const cJSON *token;
    cJSON_ArrayForEach(token, tokens) {
        cJSON *entry = new_entry(cJSON_IsString(token) ? token->valuestring : "", logprob);
        cJSON *list = cJSON_AddArrayToObject(entry, "top_logprobs");
        if (cJSON_IsObject(top)) {
            const cJSON *candidate;
            cJSON_ArrayForEach(candidate, top) {
                cJSON_AddItemToArray(list, new_entry(candidate->string, candidate));
            }
        }
        cJSON_AddItemToArray(out, entry);
        logprob = logprob ? logprob->next : NULL;
        top = top ? top->next : NULL;
    }
    return out;
}

/* ---- write ---- */

static const char *token_of(const cJSON *entry) {
    const cJSON *token = cJSON_GetObjectItemCaseSensitive(entry, "token");
    return cJSON_IsString(token) ? token->valuestring : "";
}

static void write_logprob(const cJSON *entry, str *out) {
    const cJSON *logprob = cJSON_GetObjectItemCaseSensitive(entry, "logprob");
    if (cJSON_IsNumber(logprob)) {
        json_write(logprob, out);
    } else {
        str_adds(out, "null");
    }
}

/* {"token": logprob, ...}; a second candidate that reads the same (other bytes) would be a second equal key. */
static void write_top(const cJSON *entry, str *out) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(entry, "top_logprobs");
    const cJSON *a;
    str_addc(out, '{');
    bool first = true;
    cJSON_ArrayForEach(a, list) {
        const cJSON *b = list->child;
        while (b != a && strcmp(token_of(a), token_of(b)) != 0) {
            b = b->next;
        }
        if (b != a) {
            continue;
        }
        if (!first) {
            str_addc(out, ',');
        }
        first = false;
        str_jsons(out, token_of(a));
        str_addc(out, ':');
        write_logprob(a, out);
    }
    str_addc(out, '}');
}

static size_t characters(const char *text) {
    size_t count = 0;
    for (; *text; text++) {
        count += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return count;
}

static bool write_old(const cJSON *logprobs, size_t offset, str *out) {
    const cJSON *entry;
    bool         tops = false;
    str_adds(out, "{\"tokens\":[");
    cJSON_ArrayForEach(entry, logprobs) {
        str_adds(out, entry == logprobs->child ? "" : ",");
        str_jsons(out, token_of(entry));
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(entry, "top_logprobs");
        tops = tops || (list && list->child);
    }
    str_adds(out, "],\"token_logprobs\":[");
    cJSON_ArrayForEach(entry, logprobs) {
        str_adds(out, entry == logprobs->child ? "" : ",");
        write_logprob(entry, out);
    }
    str_adds(out, "],\"top_logprobs\":");
    str_adds(out, tops ? "[" : "null");
    if (tops) {
        cJSON_ArrayForEach(entry, logprobs) {
            str_adds(out, entry == logprobs->child ? "" : ",");
            write_top(entry, out);
        }
        str_addc(out, ']');
    }
    str_adds(out, ",\"text_offset\":[");
    cJSON_ArrayForEach(entry, logprobs) {
        str_addf(out, entry == logprobs->child ? "%zu" : ",%zu", offset);
        offset += characters(token_of(entry));
    }
    return str_adds(out, "]}");
}

bool logprobs_write(request_kind kind, const cJSON *logprobs, size_t offset, str *out) {
    if (!logprobs) {
        return str_adds(out, "null");
    }
    if (kind == REQUEST_COMPLETION) {
        return write_old(logprobs, offset, out);
    }
    str_adds(out, "{\"content\":");
    json_write(logprobs, out);
    return str_adds(out, ",\"refusal\":null}");
}
