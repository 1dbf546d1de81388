/* anthropic_messages.c - the system prompt and the turns of a client's request as messages of the neutral form.
 *
 * A turn of the user becomes its tool results, one message each (the API wants them first in their turn), and then what
 * else it holds. A turn of the assistant becomes one message: its texts, its calls, its reasoning; in which order texts
 * and calls stood is lost, which the neutral form cannot say. cache_control on a call is lost for the same reason: who
 * could use it reads the client's own bytes. Several thinking blocks of a turn become one text.                      */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

static bool no_memory(err *e) {
    return err_set(e, ERR_MEMORY, "Out of memory while reading the request.");
}

/* A new message at the end; NULL: out of memory. */
static cJSON *add_message(cJSON *messages, const char *role, err *e) {
    cJSON *message = cJSON_CreateObject();
    if (!anthropic_append(messages, message, e)) {
        return NULL;
    }
    return anthropic_put(message, "role", cJSON_CreateString(role), e) ? message : NULL;
}

static bool is_type(const cJSON *block, const char *type) {
    const char *its = neutral_text(block, "type");
    return its && strcmp(its, type) == 0;
}

static cJSON *new_text(const char *text, err *e) {
    cJSON *node = cJSON_CreateString(text);
    if (!node) {
        no_memory(e);
    }
    return node;
}

/* Text or an array of blocks, as content; NULL after an error. */
static cJSON *read_content(const cJSON *content, const char *where, err *e) {
    if (cJSON_IsString(content)) {
        return new_text(content->valuestring, e);
    }
    if (!cJSON_IsArray(content)) {
        anthropic_wrong(where, "a string or an array of content blocks", content, e);
        return NULL;
    }
    return anthropic_fold(anthropic_read_blocks(content, where, e));
}

bool anthropic_read_system(const cJSON *client, cJSON *messages, err *e) {
    const cJSON *system = neutral_get(client, "system");
    if (!system || (cJSON_IsString(system) && !system->valuestring[0]) || (cJSON_IsArray(system) && !system->child)) {
        return true;
    }
    const cJSON *block;
    int          i = 0;
    cJSON_ArrayForEach(block, system) {
        anthropic_place p = anthropic_at("system[%d]", i++);
        if (!anthropic_check_block(block, p.text, e)) {
            return false;
        }
        if (!is_type(block, "text")) {
            p = anthropic_at("%s.type", p.text);
            return err_at(e, ERR_INVALID, p.text, "%s must be \"text\": a system prompt holds nothing else.", p.text);
        }
    }
    cJSON *content = read_content(system, "system", e);
    if (!content) {
        return false;
    }
    cJSON *message = add_message(messages, "system", e);
    if (!message) {
        cJSON_Delete(content);
        return false;
    }
    return anthropic_put(message, "content", content, e);
}

/* ---- tool results ---- */

/* Where the client marked the result, the mark stands on its last part. */
static cJSON *mark_result(cJSON *content, const cJSON *cache_control, err *e) {
    if (!content || !cache_control) {
        return content;
    }
    if (cJSON_IsString(content)) {
        cJSON *parts = cJSON_CreateArray(), *part = cJSON_CreateObject();
        bool   good = anthropic_append(parts, part, e) && anthropic_put(part, "type", cJSON_CreateString("text"), e);
        if (!good || !anthropic_put(part, "text", content, e)) {
            cJSON_Delete(good ? NULL : content);
            cJSON_Delete(parts);
            return NULL;
        }
        content = parts;
    }
    cJSON *last = content->child ? content->child->prev : NULL; /* cJSON's first child knows the last */
    if (last && !neutral_get(last, "cache_control") && !anthropic_copy(last, "cache_control", cache_control, e)) {
        cJSON_Delete(content);
        return NULL;
    }
    return content;
}

static bool read_result(const cJSON *block, const char *where, cJSON *messages, err *e) {
    const cJSON    *id = neutral_get(block, "tool_use_id"), *content = neutral_get(block, "content");
    anthropic_place p = anthropic_at("%s.tool_use_id", where);
    bool            failed = false;
    if (!cJSON_IsString(id) || !id->valuestring[0]) {
        return anthropic_wrong(p.text, "the id of the tool_use block that this is the result of", id, e);
    }
    if (!json_get_bool(block, where, "is_error", &failed, e)) {
        return false;
    }
    p = anthropic_at("%s.content", where);
    bool   empty = !content || (cJSON_IsArray(content) && !content->child); /* an empty array is refused elsewhere */
    cJSON *said = empty ? new_text("", e) : read_content(content, p.text, e);
    said = mark_result(said, neutral_get(block, "cache_control"), e);
    cJSON *message = said ? add_message(messages, "tool", e) : NULL;
    if (!message) {
        cJSON_Delete(said);
        return false;
    }
    return anthropic_put(message, "content", said, e) &&
           anthropic_put(message, "tool_call_id", cJSON_CreateString(id->valuestring), e) &&
           (!failed || anthropic_put(message, "is_error", cJSON_CreateTrue(), e));
}

/* ---- the user's turn ---- */

static bool misplaced(const char *where, const char *type, const char *role, err *e) {
    anthropic_place p = anthropic_at("%s.type", where);
    return err_at(e, ERR_INVALID, p.text, "%s: a %s block has no place in a message of the %s.", p.text, type, role);
}

static bool is_assistants(const cJSON *block) {
    return is_type(block, "tool_use") || is_type(block, "thinking") || is_type(block, "redacted_thinking");
}

static bool read_user_blocks(const cJSON *content, int i, cJSON *messages, cJSON *parts, err *e) {
    int          k = 0;
    const cJSON *block;
    cJSON_ArrayForEach(block, content) {
        anthropic_place p = anthropic_at("messages[%d].content[%d]", i, k++);
        if (!anthropic_check_block(block, p.text, e)) {
            return false;
        }
        if (is_assistants(block)) {
            return misplaced(p.text, neutral_text(block, "type"), "user", e);
        }
        if (is_type(block, "tool_result")) {
            if (!read_result(block, p.text, messages, e)) {
                return false;
            }
            continue;
        }
        cJSON *part = anthropic_read_block(block, p.text, e);
        if (!part || !anthropic_append(parts, part, e)) {
            return false;
        }
    }
    return true;
}

static bool read_user(const cJSON *content, int i, cJSON *messages, err *e) {
    if (!content->child) {
        anthropic_place p = anthropic_at("messages[%d].content", i);
        return err_at(e, ERR_INVALID, p.text, "%s is empty: it needs at least one content block.", p.text);
    }
    cJSON *parts = cJSON_CreateArray();
    if (!parts) {
        return no_memory(e);
    }
    if (!read_user_blocks(content, i, messages, parts, e)) {
        cJSON_Delete(parts);
        return false;
    }
    if (!parts->child) { /* nothing but results */
        cJSON_Delete(parts);
        return true;
    }
    cJSON *message = add_message(messages, "user", e);
    if (!message) {
        cJSON_Delete(parts);
        return false;
    }
    return anthropic_put(message, "content", anthropic_fold(parts), e);
}

/* ---- the assistant's turn ---- */

typedef struct turn {
    cJSON *parts, *calls;
    str    reasoning, signature, redacted;
} turn;

static bool read_call(const cJSON *block, const char *where, cJSON *calls, err *e) {
    const cJSON    *id = neutral_get(block, "id"), *name = neutral_get(block, "name");
    const cJSON    *input = neutral_get(block, "input");
    anthropic_place p = anthropic_at("%s.id", where);
    if (!cJSON_IsString(id) || !id->valuestring[0]) {
        return anthropic_wrong(p.text, "the call's id", id, e);
    }
    p = anthropic_at("%s.name", where);
    if (!cJSON_IsString(name) || !name->valuestring[0]) {
        return anthropic_wrong(p.text, "the name of the tool", name, e);
    }
    p = anthropic_at("%s.input", where);
    if (!cJSON_IsObject(input)) {
        return anthropic_wrong(p.text, "an object", input, e);
    }
    str    arguments = {0};
    cJSON *call = cJSON_CreateObject(), *function = cJSON_CreateObject();
    json_write(input, &arguments);
    bool good = anthropic_append(calls, call, e);
    if (!good) {
        cJSON_Delete(function);
    }
    good = good && anthropic_put(call, "function", function, e) &&
           anthropic_put(call, "id", cJSON_CreateString(id->valuestring), e) &&
           anthropic_put(call, "type", cJSON_CreateString("function"), e) &&
           anthropic_put(function, "name", cJSON_CreateString(name->valuestring), e) &&
           anthropic_put(function, "arguments", arguments.failed ? NULL : cJSON_CreateString(arguments.data), e);
    str_free(&arguments);
    return good;
}

/* One more text behind the others, on a line of its own. */
static bool add_line(str *to, const char *text, err *e) {
    if (!text || !text[0]) {
        return true;
    }
    if (to->len > 0) {
        str_addc(to, '\n');
    }
    return str_adds(to, text) || no_memory(e);
}

static bool read_reasoning(const cJSON *block, const char *where, turn *t, err *e) {
    bool            open = is_type(block, "thinking");
    const char     *key = open ? "thinking" : "data";
    anthropic_place p = anthropic_at("%s.%s", where, key);
    const cJSON    *text = neutral_get(block, key);
    const char     *signature = "";
    if (!cJSON_IsString(text)) {
        return anthropic_wrong(p.text, "a string", text, e);
    }
    if (!open) {
        return add_line(&t->redacted, text->valuestring, e);
    }
    if (!json_get_string(block, where, "signature", &signature, e)) {
        return false;
    }
    str_clear(&t->signature); /* of several, the last: one text has one signature */
    return add_line(&t->reasoning, text->valuestring, e) && add_line(&t->signature, signature, e);
}

static bool read_turn(const cJSON *content, int i, turn *t, err *e) {
    int          k = 0;
    const cJSON *block;
    cJSON_ArrayForEach(block, content) {
        anthropic_place p = anthropic_at("messages[%d].content[%d]", i, k++);
        if (!anthropic_check_block(block, p.text, e)) {
            return false;
        }
        bool good;
        if (is_type(block, "tool_use")) {
            good = read_call(block, p.text, t->calls, e);
        } else if (is_type(block, "thinking") || is_type(block, "redacted_thinking")) {
            good = read_reasoning(block, p.text, t, e);
        } else if (is_type(block, "tool_result")) {
            good = misplaced(p.text, "tool_result", "assistant", e);
        } else {
            cJSON *part = anthropic_read_block(block, p.text, e);
            good = part && anthropic_append(t->parts, part, e);
        }
        if (!good) {
            return false;
        }
    }
    return true;
}

static bool put_str(cJSON *message, const char *key, const str *text, err *e) {
    return text->len == 0 || anthropic_put(message, key, text->failed ? NULL : cJSON_CreateString(text->data), e);
}

static bool add_turn(turn *t, cJSON *messages, err *e) {
    cJSON *message = add_message(messages, "assistant", e);
    if (!message) {
        return false;
    }
    cJSON *content = t->parts->child ? anthropic_fold(t->parts) : NULL;
    if (content) {
        t->parts = NULL;
    } else { /* calls alone have none; an empty turn is an empty text */
        content = t->calls->child ? cJSON_CreateNull() : cJSON_CreateString("");
    }
    if (!anthropic_put(message, "content", content, e) || !put_str(message, "reasoning_content", &t->reasoning, e) ||
        !put_str(message, "reasoning_signature", &t->signature, e) ||
        !put_str(message, "reasoning_redacted", &t->redacted, e)) {
        return false;
    }
    if (t->calls->child) {
        cJSON *calls = t->calls;
        t->calls = NULL;
        return anthropic_put(message, "tool_calls", calls, e);
    }
    return true;
}

static bool read_assistant(const cJSON *content, int i, cJSON *messages, err *e) {
    turn t = {.parts = cJSON_CreateArray(), .calls = cJSON_CreateArray()};
    bool good = t.parts && t.calls ? read_turn(content, i, &t, e) && add_turn(&t, messages, e) : no_memory(e);
    cJSON_Delete(t.parts);
    cJSON_Delete(t.calls);
    str_free(&t.reasoning);
    str_free(&t.signature);
    str_free(&t.redacted);
    return good;
}

/* ---- all of them ---- */

static bool read_message(const cJSON *json, int i, cJSON *messages, err *e) {
    anthropic_place p = anthropic_at("messages[%d]", i);
    if (!cJSON_IsObject(json)) {
        return anthropic_wrong(p.text, "an object with role and content", json, e);
    }
    const cJSON *role = neutral_get(json, "role"), *content = neutral_get(json, "content");
    p = anthropic_at("messages[%d].role", i);
    if (!cJSON_IsString(role)) {
        return anthropic_wrong(p.text, "\"user\" or \"assistant\"", role, e);
    }
    bool user = strcmp(role->valuestring, "user") == 0, assistant = strcmp(role->valuestring, "assistant") == 0;
    bool system = strcmp(role->valuestring, "system") == 0; /* instructions in the middle of a conversation */
    if (!user && !assistant && !system) {
        return err_at(e, ERR_INVALID, p.text, "%s must be \"user\" or \"assistant\", not \"%.40s\".", p.text,
                      role->valuestring);
    }
    p = anthropic_at("messages[%d].content", i);
    if (cJSON_IsArray(content) && !system) {
        return user ? read_user(content, i, messages, e) : read_assistant(content, i, messages, e);
    }
    cJSON *said = read_content(content, p.text, e);
    cJSON *message = said ? add_message(messages, role->valuestring, e) : NULL;
    if (!message) {
        cJSON_Delete(said);
        return false;
    }
    return anthropic_put(message, "content", said, e);
}

bool anthropic_read_messages(const cJSON *client, cJSON *messages, err *e) {
    const cJSON *list = neutral_get(client, "messages");
    if (!cJSON_IsArray(list)) {
        return anthropic_wrong("messages", "an array of messages", list, e);
    }
    if (!list->child) {
        return err_at(e, ERR_INVALID, "messages", "messages is empty: send at least one message.");
    }
    int          i = 0;
    const cJSON *json;
    cJSON_ArrayForEach(json, list) {
        if (!read_message(json, i++, messages, e)) {
            return false;
        }
    }
    return true;
}
