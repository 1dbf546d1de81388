/* gemini_contents.c - a conversation as turns of "user" and "model" with parts.
 *
 * Instructions (system, developer) stand in a place of their own before the conversation, wherever they stood. Results of
 * tools that follow each other are one turn, because the API wants as many results in the turn after the calls as there
 * were calls. A turn without parts would be refused and is left out.                                                   */
#include "dialect/gemini.h"

#include <string.h>

typedef struct turns {
    bool any, results; /* one is written; the last one holds results and is still open */
} turns;

static bool is(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

static bool instructs(const message *m) {
    return is(m->role, "system") || is(m->role, "developer");
}

/* ---- members that have no place ---- */

/* What answers of some providers have and nobody who reads the conversation needs, or can read. */
static bool is_decoration(const char *name) {
    static const char *const names[] = {"cache_control", "annotations", "reasoning_redacted", "reasoning",
                                        "reasoning_details"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (is(name, names[i])) {
            return true;
        }
    }
    return false;
}

static bool empty(const cJSON *m) {
    return cJSON_IsNull(m) || cJSON_IsFalse(m) || ((cJSON_IsArray(m) || cJSON_IsObject(m)) && !m->child);
}

static const char *const of_any[] = {"role", "content", NULL};
static const char *const of_model[] = {"role",    "content", "tool_calls", "reasoning_content", "reasoning_signature",
                                       "refusal", NULL};
static const char *const of_result[] = {"role", "content", "tool_call_id", "is_error", "name", NULL};

static bool check_members(gemini_writer *w, int i, const char *const *carried) {
    const cJSON *m;
    cJSON_ArrayForEach(m, w->r->messages[i].json) {
        bool known = empty(m);
        for (int k = 0; carried[k]; k++) {
            known = known || is(m->string, carried[k]);
        }
        if (known) {
            continue;
        }
        if (is_decoration(m->string)) {
            drop_hint(w->r->drops, m->string);
        } else if (!gemini_drop(w, gemini_at("messages[%d].%.60s", i, m->string).text)) {
            return false;
        }
    }
    return true;
}

/* ---- parts of a message ---- */

/* signature: goes with a text that is the whole content, as it came; with parts it follows in one of its own, as it comes
 * in a stream. */
static bool write_content(gemini_writer *w, int i, const char *signature, const char **comma) {
    const cJSON *content = neutral_get(w->r->messages[i].json, "content"), *part;
    int          k = 0;
    if (cJSON_IsString(content) && content->valuestring[0]) {
        return gemini_write_text(w, content->valuestring, false, signature, comma);
    }
    cJSON_ArrayForEach(part, content) {
        gemini_place place = gemini_at("messages[%d].content[%d]", i, k++);
        if (!gemini_write_part(w, part, &place, comma)) {
            return false;
        }
    }
    return !signature || gemini_write_text(w, "", false, signature, comma);
}

/* ---- calls ---- */

/* Gemini 3 refuses a call without the signature it came with. Where a conversation began elsewhere, or a client does not
 * keep signatures, this text is what the guide on thought signatures gives for such calls. */
#define NO_SIGNATURE "skip_thought_signature_validator"

/* As the same API in OpenAI's form has it: {"extra_content": {"google": {"thought_signature"}}}. */
static const char *signature_of(const cJSON *call) {
    return neutral_text(neutral_get(neutral_get(call, "extra_content"), "google"), "thought_signature");
}

static bool write_call(gemini_writer *w, const cJSON *call, const gemini_place *place, const char *signature,
                       const char **comma) {
    const cJSON *function = neutral_get(call, "function");
    const char  *id = neutral_text(call, "id"), *name = neutral_text(function, "name");
    const char  *arguments = neutral_text(function, "arguments");
    if (!name) {
        return gemini_drop(w, place->text); /* a tool of another provider */
    }
    cJSON *tree = neutral_arguments(arguments);
    cJSON_Delete(tree);
    if (!tree) {
        gemini_place p = gemini_at("%.60s.function.arguments", place->text);
        return err_at(w->e, ERR_INVALID, p.text,
                      "%s must be the text of a JSON object: " GEMINI_TARGET " has no other.", p.text);
    }
    if (id && !map_put(w->names, id, strlen(id), (int64_t)(intptr_t)name)) {
        return err_set(w->e, ERR_MEMORY, "The request could not be written: out of memory.");
    }
    str_addf(w->out, "%s{\"functionCall\":{", *comma);
    if (id && id[0]) {
        str_adds(w->out, "\"id\":");
        str_jsons(w->out, id);
        str_addc(w->out, ',');
    }
    str_adds(w->out, "\"name\":");
    str_jsons(w->out, name);
    str_adds(w->out, ",\"args\":");
    str_adds(w->out, arguments && arguments[0] ? arguments : "{}"); /* as they stand: no number is rounded */
    str_addc(w->out, '}');
    if (signature) {
        str_adds(w->out, ",\"thoughtSignature\":");
        str_jsons(w->out, signature);
    }
    *comma = ",";
    return str_addc(w->out, '}');
}

/* The first call of a turn has the signature of all. */
static bool write_calls(gemini_writer *w, int i, const char *signature, const char **comma) {
    const cJSON *call;
    int          k = 0;
    cJSON_ArrayForEach(call, neutral_get(w->r->messages[i].json, "tool_calls")) {
        const char  *own = signature_of(call);
        gemini_place place = gemini_at("messages[%d].tool_calls[%d]", i, k);
        const char  *other = k > 0 ? NULL : signature ? signature : w->modern ? NO_SIGNATURE : NULL;
        if (!write_call(w, call, &place, own ? own : other, comma)) {
            return false;
        }
        k++;
    }
    return true;
}

static bool write_model(gemini_writer *w, int i, const char **comma) {
    const cJSON *json = w->r->messages[i].json;
    const char  *thought = neutral_text(json, "reasoning_content"), *refusal = neutral_text(json, "refusal");
    const char  *signature = neutral_text(json, "reasoning_signature");
    const cJSON *calls = neutral_get(json, "tool_calls");
    bool         called = cJSON_IsArray(calls) && calls->child;
    signature = signature && signature[0] ? signature : NULL;
    if (!check_members(w, i, of_model)) {
        return false;
    }
    if (thought && thought[0] && signature) {
        gemini_write_text(w, thought, true, NULL, comma);
    } else if (thought &&
               thought[0]) { /* of another model; the API asks for its own thoughts only when they are signed */
        drop_hint(w->r->drops, "reasoning_content");
    }
    if (refusal && refusal[0]) {
        gemini_write_text(w, refusal, false, NULL, comma);
    }
    return write_content(w, i, called ? NULL : signature, comma) && write_calls(w, i, signature, comma);
}

/* ---- results ---- */

/* The name of the function that this is the result of. */
static const char *function_of(gemini_writer *w, int i) {
    const cJSON *json = w->r->messages[i].json;
    const char  *id = neutral_text(json, "tool_call_id"), *name = neutral_text(json, "name");
    int64_t      found;
    if (id && map_get(w->names, id, strlen(id), &found)) {
        return (const char *)(intptr_t)found;
    }
    if (name) {
        return name;
    }
    gemini_place p = gemini_at("messages[%d].tool_call_id", i);
    if (id) {
        err_at(w->e, ERR_INVALID, p.text, "%s is \"%.60s\", which no call before it has.", p.text, id);
    } else {
        err_at(w->e, ERR_INVALID, p.text, "%s is missing: it says which call this is the result of.", p.text);
    }
    return NULL;
}

/* "output" and "error" are the API's own names for a result that is no object. */
static void write_result(gemini_writer *w, const char *text, bool failed) {
    cJSON *tree = !failed && text[0] ? neutral_arguments(text) : NULL;
    if (tree) {
        str_adds(w->out, text);
    } else {
        str_adds(w->out, failed ? "{\"error\":" : "{\"output\":");
        str_jsons(w->out, text);
        str_addc(w->out, '}');
    }
    cJSON_Delete(tree);
}

/* The parts of a result that are no text: `within` the result, or those that stand beside it. From Gemini 3 on bytes may
 * stand within; addresses never. */
static bool write_media(gemini_writer *w, int i, bool within, const char **comma) {
    const cJSON *content = neutral_get(w->r->messages[i].json, "content"), *part;
    int          k = 0;
    if (!cJSON_IsArray(content)) {
        return true;
    }
    cJSON_ArrayForEach(part, content) {
        gemini_place place = gemini_at("messages[%d].content[%d]", i, k++);
        bool         inside = w->modern && gemini_is_bytes(part);
        if (within && gemini_is_text(part) && neutral_get(part, "cache_control")) {
            drop_hint(w->r->drops, "cache_control");
        }
        if (!gemini_is_text(part) && inside == within && !gemini_write_part(w, part, &place, comma)) {
            return false;
        }
    }
    return true;
}

static bool write_tool(gemini_writer *w, int i, const char **comma) {
    const message *m = &w->r->messages[i];
    const char    *id = neutral_text(m->json, "tool_call_id"), *name = function_of(w, i);
    const char    *open = ",\"parts\":[", *inner = open;
    if (!name || !check_members(w, i, of_result)) {
        return false;
    }
    str_addf(w->out, "%s{\"functionResponse\":{", *comma);
    *comma = ",";
    if (id && id[0]) {
        str_adds(w->out, "\"id\":");
        str_jsons(w->out, id);
        str_addc(w->out, ',');
    }
    str_adds(w->out, "\"name\":");
    str_jsons(w->out, name);
    str_adds(w->out, ",\"response\":");
    write_result(w, m->content ? m->content : "", cJSON_IsTrue(neutral_get(m->json, "is_error")));
    if (!write_media(w, i, true, &inner)) {
        return false;
    }
    str_adds(w->out, inner != open ? "]}}" : "}}");
    return write_media(w, i, false, comma);
}

/* ---- turns ---- */

static bool write_turn(gemini_writer *w, turns *t, int i) {
    const char *role = w->r->messages[i].role;
    bool        result = is(role, "tool") || is(role, "function");
    if (t->results && result) {
        const char *comma = ",";
        return write_tool(w, i, &comma);
    }
    if (t->results) {
        str_adds(w->out, "]}");
        t->results = false;
    }
    gemini_place open =
        gemini_at("%s{\"role\":\"%s\",\"parts\":[", t->any ? "," : "", is(role, "assistant") ? "model" : "user");
    const char *comma = open.text;
    bool        good = result                  ? write_tool(w, i, &comma)
                       : is(role, "assistant") ? write_model(w, i, &comma)
                                               : check_members(w, i, of_any) && write_content(w, i, NULL, &comma);
    if (good && comma != open.text) {
        t->any = true;
        t->results = result;
        str_adds(w->out, result ? "" : "]}");
    }
    return good;
}

static bool write_instructions(gemini_writer *w) {
    static const char open[] = "\"systemInstruction\":{\"parts\":[";
    const char       *comma = open;
    for (int i = 0; i < w->r->n_messages; i++) {
        if (instructs(&w->r->messages[i]) && !(check_members(w, i, of_any) && write_content(w, i, NULL, &comma))) {
            return false;
        }
    }
    return str_adds(w->out, comma != open ? "]}," : "");
}

bool gemini_write_contents(gemini_writer *w) {
    turns t = {0};
    bool  all = true;
    for (int i = 0; i < w->r->n_messages; i++) {
        all = all && instructs(&w->r->messages[i]);
    }
    /* A conversation of instructions alone has nobody who says anything, which the API refuses: then they are said. */
    if (!all && !write_instructions(w)) {
        return false;
    }
    str_adds(w->out, "\"contents\":[");
    for (int i = 0; i < w->r->n_messages; i++) {
        if ((all || !instructs(&w->r->messages[i])) && !write_turn(w, &t, i)) {
            return false;
        }
    }
    return str_adds(w->out, t.results ? "]}]" : "]");
}
