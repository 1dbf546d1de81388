/* anthropic_build_messages.c - the neutral messages as a system prompt and turns.
 *
 * Messages of system and developer go to the top, one block each in their order, also those from the middle of a
 * conversation: the place keeps their authority, which a turn of the user would not have, and every model takes it (only
 * the newest know system messages between the turns). Anthropic's own endpoint for OpenAI's clients does the same. Tool
 * results are blocks of the user's turn; neighbours of one role are one turn.
 * Source: docs.claude.com, "OpenAI SDK compatibility" and "Mid-conversation system messages".                       */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

typedef struct turns {
    str        *out;
    drops      *drops;
    const char *role;  /* of the turn that is open; NULL: none is */
    bool        block; /* it has one already */
    bool        any;
} turns;

static bool is_system(const message *m) {
    return strcmp(m->role, "system") == 0 || strcmp(m->role, "developer") == 0;
}

/* Makes room for a block of this role. */
static void open_block(turns *t, const char *role) {
    if (t->role && strcmp(t->role, role) == 0) {
        str_adds(t->out, t->block ? "," : "");
    } else {
        str_addf(t->out, "%s{\"role\":\"%s\",\"content\":[", !t->role ? "" : "]},", role);
        t->role = role;
    }
    t->block = t->any = true;
}

/* A part may turn out to be nothing, so it is written aside first. Images are copied once more for it. */
static bool add_part(turns *t, const char *role, const cJSON *part, const char *where, err *e) {
    str  block = {0};
    bool good = anthropic_build_part(part, where, t->drops, &block, e);
    if (good && block.len > 0) {
        open_block(t, role);
        str_add(t->out, block.data, block.len);
    }
    str_free(&block);
    return good;
}

static void add_text(turns *t, const char *role, const char *text) {
    if (text && text[0]) {
        open_block(t, role);
        str_adds(t->out, "{\"type\":\"text\",\"text\":");
        str_jsons(t->out, text);
        str_addc(t->out, '}');
    }
}

static bool add_content(turns *t, const char *role, const cJSON *json, int i, err *e) {
    const cJSON *content = neutral_get(json, "content");
    if (!cJSON_IsArray(content)) {
        add_text(t, role, cJSON_GetStringValue(content));
        return true;
    }
    int          k = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, content) {
        anthropic_place p = anthropic_at("messages[%d].content[%d]", i, k++);
        if (!add_part(t, role, part, p.text, e)) {
            return false;
        }
    }
    return true;
}

/* What messages may hold that has no place here. */
static bool check_rest(const turns *t, const cJSON *json, int i, err *e) {
    static const char *const of_model[] = {
        "role", "content", "tool_calls", "refusal", "reasoning_content", "reasoning_signature", "reasoning_redacted",
        NULL};
    /* A result's name is that of the tool, which its call has. */
    static const char *const of_result[] = {"role", "content", "tool_call_id", "is_error", "name", NULL};
    static const char *const of_any[] = {"role", "content", NULL};
    const char              *role = neutral_text(json, "role");
    bool                     model = role && strcmp(role, "assistant") == 0, result = role && strcmp(role, "tool") == 0;
    anthropic_place          p = anthropic_at("messages[%d]", i);
    return anthropic_rest(json, model ? of_model : result ? of_result : of_any, p.text, t->drops, e);
}

/* ---- calls and their results ---- */

/* The API takes letters, digits, '_' and '-' in an id; what is something else in a call's id is so in its result's too. */
static void write_id(const char *id, str *out) {
    str_addc(out, '"');
    for (; *id; id++) {
        bool plain = (*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z') || (*id >= '0' && *id <= '9');
        str_addc(out, plain || *id == '-' ? *id : '_');
    }
    str_addc(out, '"');
}

static bool add_call(turns *t, const cJSON *call, const char *where, err *e) {
    const cJSON    *function = neutral_get(call, "function");
    const char     *id = neutral_text(call, "id"), *name = neutral_text(function, "name");
    const char     *text = neutral_text(function, "arguments");
    anthropic_place p = anthropic_at("%s.%s", where, id && id[0] ? "function.name" : "id");
    if (!id || !id[0] || !name || !name[0]) {
        return err_at(e, ERR_INVALID, p.text, "%s is missing: it must be a string.", p.text);
    }
    cJSON *input = neutral_arguments(text);
    if (!input) {
        p = anthropic_at("%s.function.arguments", where);
        return err_at(e, ERR_INVALID, p.text, "%s must be the text of a JSON object.", p.text);
    }
    open_block(t, "assistant");
    str_adds(t->out, "{\"type\":\"tool_use\",\"id\":");
    write_id(id, t->out);
    str_adds(t->out, ",\"name\":");
    str_jsons(t->out, name);
    str_adds(t->out, ",\"input\":");
    str_adds(t->out, text && text[0] ? text : "{}"); /* as it stands: no number is rounded */
    cJSON_Delete(input);
    return str_addc(t->out, '}');
}

static bool add_calls(turns *t, const cJSON *json, int i, err *e) {
    const cJSON *calls = neutral_get(json, "tool_calls"), *call;
    int          k = 0;
    cJSON_ArrayForEach(call, calls) {
        anthropic_place p = anthropic_at("messages[%d].tool_calls[%d]", i, k++);
        if (!add_call(t, call, p.text, e)) {
            return false;
        }
    }
    return true;
}

/* A result's parts are an array within its block. */
static bool write_parts(turns *t, const cJSON *content, int i, err *e) {
    int          k = 0;
    bool         first = true;
    const cJSON *part;
    cJSON_ArrayForEach(part, content) {
        anthropic_place p = anthropic_at("messages[%d].content[%d]", i, k++);
        str             block = {0};
        bool            good = anthropic_build_part(part, p.text, t->drops, &block, e);
        if (good && block.len > 0) {
            str_adds(t->out, first ? "" : ",");
            str_add(t->out, block.data, block.len);
            first = false;
        }
        str_free(&block);
        if (!good) {
            return false;
        }
    }
    return true;
}

static bool add_result(turns *t, const cJSON *json, int i, err *e) {
    const cJSON    *content = neutral_get(json, "content");
    const char     *id = neutral_text(json, "tool_call_id");
    anthropic_place p = anthropic_at("messages[%d].tool_call_id", i);
    if (!id || !id[0]) {
        return anthropic_wrong(p.text, "the id of the call that this is the result of", NULL, e);
    }
    open_block(t, "user");
    str_adds(t->out, "{\"type\":\"tool_result\",\"tool_use_id\":");
    write_id(id, t->out);
    if (cJSON_IsArray(content)) {
        str_adds(t->out, ",\"content\":[");
        if (!write_parts(t, content, i, e)) {
            return false;
        }
        str_addc(t->out, ']');
    } else if (cJSON_IsString(content)) {
        str_adds(t->out, ",\"content\":");
        str_jsons(t->out, content->valuestring);
    }
    str_adds(t->out, cJSON_IsTrue(neutral_get(json, "is_error")) ? ",\"is_error\":true" : "");
    return str_addc(t->out, '}');
}

/* ---- reasoning that goes back ---- */

static void add_redacted(turns *t, const char *lines) {
    while (lines && *lines) { /* one block a line */
        size_t n = strcspn(lines, "\n");
        if (n > 0) {
            open_block(t, "assistant");
            str_adds(t->out, "{\"type\":\"redacted_thinking\",\"data\":");
            str_json(t->out, lines, n);
            str_addc(t->out, '}');
        }
        lines += n + (lines[n] == '\n');
    }
}

/* The API takes its own thinking back, which its signature proves, and no other. */
static void add_reasoning(turns *t, const cJSON *json) {
    const char *text = neutral_text(json, "reasoning_content"), *signature = neutral_text(json, "reasoning_signature");
    if (signature && signature[0]) {
        anthropic_thought all[ANTHROPIC_MAX_THOUGHTS];
        text = text ? text : "";
        int n = anthropic_thoughts(text, strlen(text), signature, strlen(signature), all);
        for (int i = 0; i < n; i++) {
            if (all[i].signature_len > 0) {
                open_block(t, "assistant");
                anthropic_write_thought(&all[i], t->out);
            }
        }
        if (n < 0) { /* the client has changed it: no signature fits any more */
            drop_hint(t->drops, "reasoning_content");
        }
    } else if (text && text[0]) {
        drop_hint(t->drops, "reasoning_content");
    }
    add_redacted(t, neutral_text(json, "reasoning_redacted"));
}

/* ---- all of them ---- */

static bool add_message(turns *t, const message *m, int i, err *e) {
    if (!check_rest(t, m->json, i, e)) {
        return false;
    }
    if (strcmp(m->role, "user") == 0) {
        return add_content(t, "user", m->json, i, e);
    }
    if (strcmp(m->role, "tool") == 0) {
        return add_result(t, m->json, i, e);
    }
    if (strcmp(m->role, "assistant") == 0) {
        add_reasoning(t, m->json);
        if (!add_content(t, "assistant", m->json, i, e)) {
            return false;
        }
        add_text(t, "assistant", neutral_text(m->json, "refusal"));
        return add_calls(t, m->json, i, e);
    }
    anthropic_place p = anthropic_at("messages[%d].role", i); /* "function", which "tool" has replaced */
    return drop_member(t->drops, p.text, ANTHROPIC_TARGET, e);
}

static bool write_system(const request *r, str *out, err *e) {
    turns  t = {.out = out, .drops = r->drops, .role = "system"};
    size_t start = out->len;
    str_adds(out, "\"system\":[");
    for (int i = 0; i < r->n_messages; i++) {
        const message *m = &r->messages[i];
        if (is_system(m) && (!check_rest(&t, m->json, i, e) || !add_content(&t, "system", m->json, i, e))) {
            return false;
        }
    }
    if (!t.any && !out->failed) { /* the API refuses none as much as an empty one: take the key back */
        out->len = start;
        out->data[start] = '\0';
        return true;
    }
    return str_adds(out, "],");
}

bool anthropic_build_messages(const request *r, str *out, err *e) {
    turns t = {.out = out, .drops = r->drops};
    if (!write_system(r, out, e)) {
        return false;
    }
    str_adds(out, "\"messages\":[");
    for (int i = 0; i < r->n_messages; i++) {
        if (!is_system(&r->messages[i]) && !add_message(&t, &r->messages[i], i, e)) {
            return false;
        }
    }
    if (!t.any) {
        return err_at(e, ERR_INVALID, "messages",
                      "messages holds no words of the user, and " ANTHROPIC_TARGET " does not answer without them.");
    }
    return str_adds(out, "]}]") || err_set(e, ERR_MEMORY, "Out of memory while writing a request.");
}
