/* anthropic_narrow.c - does the neutral form hold all that a client's conversation says?
 *
 * It has one order: of a user's turn the tools' results first; of an assistant's turn reasoning, other blocks, calls. It has
 * no place for citations of a text, for a document of plain text beside a text, and for members of known blocks that pare
 * does not know. Nothing of it is lost on the way to Anthropic, who gets the client's own bytes; but two conversations that
 * differ in it alone must not share a cache key.                                                                      */
#include <string.h>

#include "dialect/anthropic.h"
#include "dialect/neutral.h"

static bool is(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

/* Members of an object that say something, beside those of `known`. */
static bool has_others(const cJSON *object, const char *const *known) {
    const cJSON *m;
    cJSON_ArrayForEach(m, object) {
        bool found = cJSON_IsNull(m) || ((cJSON_IsArray(m) || cJSON_IsObject(m)) && !m->child);
        for (int i = 0; !found && known[i]; i++) {
            found = strcmp(m->string, known[i]) == 0;
        }
        if (!found) {
            return true;
        }
    }
    return false;
}

static bool narrows_source(const cJSON *block, const char *const *known) {
    static const char *const of_source[] = {"type", "media_type", "data", "url", NULL};
    const char              *type = neutral_text(neutral_get(block, "source"), "type");
    bool                     whole = !is(type, "base64") && !is(type, "url"); /* such a block stays as it is */
    return !whole && (has_others(block, known) || has_others(neutral_get(block, "source"), of_source));
}

static bool narrows_content(const cJSON *content);

/* One block by itself. Blocks of other types stay as they are. */
static bool narrows(const cJSON *block) {
    static const char *const of_text[] = {"type", "text", "cache_control", NULL};
    static const char *const of_image[] = {"type", "source", "cache_control", NULL};
    static const char *const of_document[] = {"type", "source", "title", "context", "citations", "cache_control", NULL};
    static const char *const of_call[] = {"type", "id", "name", "input", "cache_control", NULL};
    static const char *const of_result[] = {"type", "tool_use_id", "content", "is_error", "cache_control", NULL};
    static const char *const of_thinking[] = {"type", "thinking", "signature", "data", NULL};
    const char              *type = neutral_text(block, "type");
    if (is(type, "document")) {
        return is(neutral_text(neutral_get(block, "source"), "type"), "text") || narrows_source(block, of_document);
    }
    if (is(type, "tool_result")) {
        return has_others(block, of_result) || narrows_content(neutral_get(block, "content"));
    }
    return is(type, "text")                                        ? has_others(block, of_text)
           : is(type, "image")                                     ? narrows_source(block, of_image)
           : is(type, "tool_use")                                  ? has_others(block, of_call)
           : is(type, "thinking") || is(type, "redacted_thinking") ? has_others(block, of_thinking)
                                                                   : false;
}

/* Where a block belongs in the one order; thinking but once. */
static int rank_of(const cJSON *block) {
    const char *type = neutral_text(block, "type");
    return is(type, "tool_result") || is(type, "thinking") ? 0
           : is(type, "redacted_thinking")                 ? 1
           : is(type, "tool_use")                          ? 3
                                                           : 2;
}

static bool narrows_content(const cJSON *content) {
    const cJSON *block;
    int          rank = 0;
    bool         thought = false;
    cJSON_ArrayForEach(block, content) {
        bool thinks = is(neutral_text(block, "type"), "thinking");
        if (rank_of(block) < rank || (thinks && thought) || narrows(block)) {
            return true;
        }
        rank = rank_of(block);
        thought = thought || thinks;
    }
    return false;
}

bool anthropic_narrow(const cJSON *client) {
    static const char *const of_message[] = {"role", "content", NULL};
    const cJSON             *message;
    cJSON_ArrayForEach(message, neutral_get(client, "messages")) {
        if (has_others(message, of_message) || narrows_content(neutral_get(message, "content"))) {
            return true;
        }
    }
    return narrows_content(neutral_get(client, "system"));
}
