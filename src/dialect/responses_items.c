/* responses_items.c - the items of a conversation as messages.
 *
 * Reasoning, the assistant's words and its calls are items of their own; in the neutral form they are one message, which
 * ends where somebody else speaks.                                                                                   */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/responses.h"

typedef struct place { /* "input[2].content[0].text" */
    char text[112];
} place;

static __attribute__((format(printf, 1, 2))) place place_at(const char *format, ...) {
    place   p;
    va_list args;
    va_start(args, format);
    vsnprintf(p.text, sizeof p.text, format, args);
    va_end(args);
    return p;
}

static bool must_be(place p, const char *wanted, const cJSON *value, err *e) {
    return value ? err_at(e, ERR_INVALID, p.text, "%s must be %s, not %s.", p.text, wanted, json_kind(value))
                 : err_at(e, ERR_INVALID, p.text, "%s is missing: it must be %s.", p.text, wanted);
}

/* ---- building ---- */

bool build_put(builder *b, cJSON *object, const char *key, cJSON *value) {
    if (!value || !object || !cJSON_AddItemToObject(object, key, value)) {
        cJSON_Delete(value);
        b->failed = true;
    }
    return !b->failed;
}

bool build_append(builder *b, cJSON *array, cJSON *value) {
    if (!value || !array || !cJSON_AddItemToArray(array, value)) {
        cJSON_Delete(value);
        b->failed = true;
    }
    return !b->failed;
}

bool build_text(builder *b, cJSON *object, const char *key, const char *text) {
    return build_put(b, object, key, cJSON_CreateString(text));
}

bool build_give(builder *b, cJSON *object, const char *key, const cJSON *value) {
    if (!value) {
        return !b->failed;
    }
    if (b->copy) {
        return build_put(b, object, key, cJSON_Duplicate(value, true));
    }
    /* cJSON does not change what it refers to; its signature only lacks the const. */
    if (!object || !cJSON_AddItemReferenceToObject(object, key, (cJSON *)(uintptr_t)value)) {
        b->failed = true;
    }
    return !b->failed;
}

typedef struct reader {
    builder    *b;
    cJSON      *messages;
    cJSON      *open;  /* the assistant's message that grows; NULL: none */
    const char *where; /* "input" */
    err        *e;
} reader;

/* ---- parts ---- */

static cJSON *new_part(reader *r, const char *type) {
    cJSON *part = cJSON_CreateObject();
    build_text(r->b, part, "type", type);
    return part;
}

static cJSON *text_part(reader *r, const cJSON *json, const char *key, place where) {
    const cJSON *text = neutral_get(json, key);
    if (!cJSON_IsString(text)) {
        place p = place_at("%.90s.%s", where.text, key);
        must_be(p, "a string", text, r->e);
        return NULL;
    }
    cJSON *part = new_part(r, "text");
    build_give(r->b, part, "text", text);
    return part;
}

static cJSON *image_part(reader *r, const cJSON *json, place where) {
    const cJSON *url = neutral_get(json, "image_url");
    if (!cJSON_IsString(url)) {
        bool  file = !url && neutral_get(json, "file_id");
        place p = place_at("%.90s.%s", where.text, file ? "file_id" : "image_url");
        if (file) {
            err_at(r->e, ERR_UNSUPPORTED, p.text,
                   "%s is not supported: pare keeps no files; send the image as image_url.", p.text);
        } else {
            must_be(p, "a URL or a data: URL", url, r->e);
        }
        return NULL;
    }
    cJSON *part = new_part(r, "image_url"), *image = cJSON_CreateObject();
    build_give(r->b, image, "url", url);
    build_give(r->b, image, "detail", neutral_get(json, "detail"));
    build_put(r->b, part, "image_url", image);
    return part;
}

static cJSON *file_part(reader *r, const cJSON *json, place where) {
    static const char *const names[] = {"filename", "file_data", "file_id"};
    place                    p = place_at("%.90s.file_url", where.text);
    if (neutral_get(json, "file_url")) {
        err_at(r->e, ERR_UNSUPPORTED, p.text, "%s is not supported: send the file itself as file_data.", p.text);
        return NULL;
    }
    if (!neutral_text(json, "file_data") && !neutral_text(json, "file_id")) {
        p = place_at("%.90s.file_data", where.text);
        must_be(p, "a data: URL with the file", neutral_get(json, "file_data"), r->e);
        return NULL;
    }
    cJSON *part = new_part(r, "file"), *file = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        build_give(r->b, file, names[i], neutral_get(json, names[i]));
    }
    build_put(r->b, part, "file", file);
    return part;
}

static cJSON *audio_part(reader *r, const cJSON *json, place where) {
    const cJSON *audio = neutral_get(json, "input_audio");
    if (!cJSON_IsObject(audio)) {
        place p = place_at("%.90s.input_audio", where.text);
        must_be(p, "an object with data and format", audio, r->e);
        return NULL;
    }
    cJSON *part = new_part(r, "input_audio");
    build_give(r->b, part, "input_audio", audio);
    return part;
}

/* NULL with the reason: not one that can be translated. */
static cJSON *read_part(reader *r, const cJSON *json, place where) {
    const char *type = neutral_text(json, "type");
    cJSON      *part = NULL;
    if (!type) {
        place p = cJSON_IsObject(json) ? place_at("%.90s.type", where.text) : where;
        must_be(p, cJSON_IsObject(json) ? "a string" : "an object with a type",
                cJSON_IsObject(json) ? neutral_get(json, "type") : json, r->e);
        return NULL;
    }
    if (strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0 || strcmp(type, "text") == 0) {
        part = text_part(r, json, "text", where);
    } else if (strcmp(type, "refusal") == 0) { /* what the assistant said then */
        part = text_part(r, json, "refusal", where);
    } else if (strcmp(type, "input_image") == 0) {
        part = image_part(r, json, where);
    } else if (strcmp(type, "input_file") == 0) {
        part = file_part(r, json, where);
    } else if (strcmp(type, "input_audio") == 0) {
        part = audio_part(r, json, where);
    } else {
        place p = place_at("%.90s.type", where.text);
        err_at(r->e, ERR_UNSUPPORTED, p.text,
               "%s is \"%.40s\"; pare knows input_text, input_image, input_file, input_audio, output_text and refusal.",
               p.text, type);
    }
    if (part) {
        build_give(r->b, part, "cache_control", neutral_get(json, "cache_control"));
    }
    return part;
}

static bool only_text(const cJSON *parts) {
    const cJSON *part = parts->child;
    return part && !part->next && cJSON_GetArraySize(part) == 2 && strcmp(neutral_text(part, "type"), "text") == 0;
}

/* A string, or an array of parts; one text by itself is a string. Into to[key]. */
static bool read_content(reader *r, const cJSON *content, place where, cJSON *to, const char *key) {
    if (cJSON_IsString(content)) {
        return build_give(r->b, to, key, content);
    }
    if (!cJSON_IsArray(content)) {
        return must_be(where, "a string or an array of parts", content, r->e);
    }
    cJSON       *parts = cJSON_CreateArray();
    int          i = 0;
    const cJSON *json;
    cJSON_ArrayForEach(json, content) {
        cJSON *part = read_part(r, json, place_at("%.90s[%d]", where.text, i++));
        if (!part) {
            cJSON_Delete(parts);
            return false;
        }
        build_append(r->b, parts, part);
    }
    if (!r->b->failed && only_text(parts)) {
        build_put(r->b, to, key, cJSON_DetachItemFromObjectCaseSensitive(parts->child, "text"));
        cJSON_Delete(parts);
        return true;
    }
    build_put(r->b, to, key, parts);
    return true;
}

/* ---- the assistant's message ---- */

static cJSON *new_message(reader *r, const char *role) {
    cJSON *message = cJSON_CreateObject();
    build_text(r->b, message, "role", role);
    build_append(r->b, r->messages, message);
    return r->b->failed ? NULL : message;
}

static void close_open(reader *r) {
    if (r->open && !cJSON_HasObjectItem(r->open, "content")) {
        build_put(r->b, r->open, "content", cJSON_CreateNull());
    }
    r->open = NULL;
}

/* The message to which the next of the assistant's items belongs; `begins`: not to the one that is open. */
static cJSON *open_message(reader *r, bool begins) {
    if (begins) {
        close_open(r);
    }
    if (!r->open) {
        r->open = new_message(r, "assistant");
    }
    return r->open;
}

static bool has(const reader *r, const char *key) {
    return r->open && cJSON_GetObjectItemCaseSensitive(r->open, key);
}

/* The open message's content as an array of parts, to which more can be added; NULL: out of memory. */
static cJSON *open_parts(reader *r) {
    cJSON *content = cJSON_GetObjectItemCaseSensitive(r->open, "content");
    if (cJSON_IsArray(content)) {
        return content;
    }
    cJSON *parts = cJSON_CreateArray(), *part = new_part(r, "text");
    build_put(r->b, part, "text", cJSON_DetachItemFromObjectCaseSensitive(r->open, "content"));
    build_append(r->b, parts, part);
    return build_put(r->b, r->open, "content", parts) ? parts : NULL;
}

/* Words behind a call belong to the message with the call, whose outputs must follow it at once. There may be many such
 * words: each is added to what is there. */
static bool add_words(reader *r, const cJSON *content, place where) {
    cJSON *words = cJSON_CreateObject(), *parts = open_parts(r);
    if (!read_content(r, content, where, words, "content")) {
        cJSON_Delete(words);
        return false;
    }
    cJSON *more = cJSON_DetachItemFromObjectCaseSensitive(words, "content");
    cJSON_Delete(words);
    if (!parts || cJSON_IsArray(more)) {
        while (parts && more->child) {
            build_append(r->b, parts, cJSON_DetachItemFromArray(more, 0));
        }
        cJSON_Delete(more);
        return true;
    }
    cJSON *part = new_part(r, "text");
    build_put(r->b, part, "text", more);
    build_append(r->b, parts, part);
    return true;
}

static bool read_message(reader *r, const cJSON *item, int i) {
    static const char *const roles[] = {"user", "system", "developer", "assistant"};
    const char              *role = neutral_text(item, "role");
    const cJSON             *content = neutral_get(item, "content");
    place                    where = place_at("%s[%d].content", r->where, i), p = place_at("%s[%d].role", r->where, i);
    size_t                   k = 0;
    if (!role) {
        return must_be(p, "a string", neutral_get(item, "role"), r->e);
    }
    while (k < 4 && strcmp(role, roles[k]) != 0) {
        k++;
    }
    if (k == 4) {
        return err_at(r->e, ERR_INVALID, p.text, "%s must be user, system, developer or assistant, not \"%.40s\".",
                      p.text, role);
    }
    if (k < 3) {
        close_open(r);
        cJSON *message = new_message(r, roles[k]);
        return read_content(r, content, where, message, "content");
    }
    if (has(r, "content") && has(r, "tool_calls")) {
        return add_words(r, content, where);
    }
    return read_content(r, content, where, open_message(r, has(r, "content")), "content");
}

/* ---- the other items ---- */

static const cJSON *needed(reader *r, const cJSON *item, int i, const char *key, const char *wanted) {
    const cJSON *value = neutral_get(item, key);
    if (cJSON_IsString(value) && (value->valuestring[0] || strcmp(key, "arguments") == 0)) {
        return value;
    }
    must_be(place_at("%s[%d].%s", r->where, i, key), wanted, value, r->e);
    return NULL;
}

static bool read_call(reader *r, const cJSON *item, int i) {
    const cJSON *id = needed(r, item, i, "call_id", "the id of the call"), *name = NULL, *arguments = NULL;
    if (!id || !(name = needed(r, item, i, "name", "the name of the function")) ||
        !(arguments = needed(r, item, i, "arguments", "a string of JSON"))) {
        return false;
    }
    cJSON *message = open_message(r, false);
    cJSON *calls = cJSON_GetObjectItemCaseSensitive(message, "tool_calls");
    if (!calls) {
        calls = cJSON_CreateArray();
        build_put(r->b, message, "tool_calls", calls);
    }
    cJSON *call = cJSON_CreateObject(), *function = cJSON_CreateObject();
    build_give(r->b, call, "id", id);
    build_text(r->b, call, "type", "function");
    build_give(r->b, function, "name", name);
    build_give(r->b, function, "arguments", arguments);
    build_put(r->b, call, "function", function);
    return r->b->failed ? (cJSON_Delete(call), false) : build_append(r->b, calls, call);
}

static bool read_output(reader *r, const cJSON *item, int i) {
    const cJSON *id = needed(r, item, i, "call_id", "the id of the call that it answers");
    if (!id) {
        return false;
    }
    close_open(r);
    cJSON *message = new_message(r, "tool");
    build_give(r->b, message, "tool_call_id", id);
    return read_content(r, neutral_get(item, "output"), place_at("%s[%d].output", r->where, i), message, "content");
}

static bool add_texts(reader *r, const cJSON *list, int i, const char *key, str *out) {
    const cJSON *part;
    int          k = 0;
    if (list && !cJSON_IsArray(list)) {
        return must_be(place_at("%s[%d].%s", r->where, i, key), "an array", list, r->e);
    }
    cJSON_ArrayForEach(part, list) {
        const char *text = neutral_text(part, "text");
        if (!text) {
            return must_be(place_at("%s[%d].%s[%d].text", r->where, i, key, k), "a string", neutral_get(part, "text"),
                           r->e);
        }
        str_adds(out, out->len ? "\n\n" : "");
        str_adds(out, text);
        k++;
    }
    return true;
}

/* The reasoning itself where it is given, else its summary. encrypted_content is what the provider signed it with. */
static bool read_reasoning(reader *r, const cJSON *item, int i) {
    const cJSON *sign = neutral_get(item, "encrypted_content");
    str          text = {0};
    if (sign && !cJSON_IsString(sign)) {
        return must_be(place_at("%s[%d].encrypted_content", r->where, i), "a string", sign, r->e);
    }
    bool good = add_texts(r, neutral_get(item, "content"), i, "content", &text) &&
                (text.len > 0 || add_texts(r, neutral_get(item, "summary"), i, "summary", &text));
    if (!good || (text.len == 0 && !sign)) { /* by its id alone: says nothing */
        str_free(&text);
        return good;
    }
    bool   begins = has(r, "content") || has(r, "tool_calls") || has(r, "reasoning_content");
    cJSON *message = open_message(r, begins);
    r->b->failed = r->b->failed || text.failed;
    build_text(r->b, message, "reasoning_content", text.data ? text.data : "");
    build_give(r->b, message, "reasoning_signature", sign);
    str_free(&text);
    return true;
}

static bool read_item(reader *r, const cJSON *item, int i) {
    place p = place_at("%s[%d]", r->where, i);
    if (!cJSON_IsObject(item)) {
        return must_be(p, "an object", item, r->e);
    }
    const cJSON *type = neutral_get(item, "type");
    p = place_at("%s[%d].type", r->where, i);
    if (type && !cJSON_IsString(type)) {
        return must_be(p, "a string", type, r->e);
    }
    const char *name = type ? type->valuestring : neutral_get(item, "role") ? "message" : "item_reference";
    if (strcmp(name, "message") == 0) {
        return read_message(r, item, i);
    }
    if (strcmp(name, "function_call") == 0) {
        return read_call(r, item, i);
    }
    if (strcmp(name, "function_call_output") == 0) {
        return read_output(r, item, i);
    }
    if (strcmp(name, "reasoning") == 0) {
        return read_reasoning(r, item, i);
    }
    if (strcmp(name, "item_reference") == 0) {
        return err_at(
            r->e, ERR_UNSUPPORTED, p.text,
            "%s is item_reference, which is not supported: send the item itself, or name the answer before it "
            "with previous_response_id.",
            p.text);
    }
    return err_at(
        r->e, ERR_UNSUPPORTED, p.text,
        "%s is \"%.40s\", which is not supported: pare knows message, function_call, function_call_output and "
        "reasoning.",
        p.text, name);
}

bool responses_read_items(builder *b, const cJSON *items, const char *where, cJSON *messages, err *e) {
    reader       r = {.b = b, .messages = messages, .where = where, .e = e};
    int          i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, items) {
        bool good = read_item(&r, item, i++);
        if (b->failed) {
            break;
        }
        if (!good) {
            return false;
        }
    }
    close_open(&r);
    return !b->failed || err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
}
