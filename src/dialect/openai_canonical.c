/* openai_canonical.c - the request as a cache key sees it: the same bytes for every way of writing the same question.
 *
 * "chat {...}", "completion {...}" and so on: members sorted where their order says nothing, no blanks, numbers in one
 * spelling. Left out is what cannot change the answer (who asks, how it is delivered, how the provider files it) and what
 * only states the API's default. Nulls inside messages stay: a chat template can tell a null member from a missing one.
 * Unknown members stay.                                                                                              */
#include <stdlib.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"

static const char *const kinds[] = {[REQUEST_CHAT] = "chat",
                                    [REQUEST_COMPLETION] = "completion",
                                    [REQUEST_EMBEDDINGS] = "embeddings",
                                    [REQUEST_RERANK] = "rerank"};

typedef enum rule { DROP_ALWAYS, DROP_NUMBER, DROP_FALSE, DROP_TRUE, DROP_EMPTY, DROP_AUTO, DROP_TEXT } rule;

static const struct {
    const char *name;
    rule        rule;
    double      number;
} defaults[] = {
    {"best_of", DROP_NUMBER, 1},
    {"cache_prompt", DROP_ALWAYS, 0},
    {"echo", DROP_FALSE, 0},
    {"frequency_penalty", DROP_NUMBER, 0},
    {"ignore_eos", DROP_FALSE, 0},
    {"logit_bias", DROP_EMPTY, 0},
    {"logprobs", DROP_FALSE, 0},
    {"max_completion_tokens", DROP_ALWAYS, 0}, /* both are written as max_tokens */
    {"max_tokens", DROP_ALWAYS, 0},
    {"metadata", DROP_ALWAYS, 0},
    {"n", DROP_NUMBER, 1},
    {"parallel_tool_calls", DROP_TRUE, 0},
    {"presence_penalty", DROP_NUMBER, 0},
    {"priority", DROP_ALWAYS, 0},
    {"prompt_cache_key", DROP_ALWAYS, 0},
    {"response_format", DROP_TEXT, 0},
    {"safety_identifier", DROP_ALWAYS, 0},
    {"service_tier", DROP_ALWAYS, 0},
    {"stop", DROP_EMPTY, 0},
    {"store", DROP_ALWAYS, 0},
    {"stream", DROP_ALWAYS, 0},
    {"stream_options", DROP_ALWAYS, 0},
    {"suffix", DROP_EMPTY, 0},
    {"temperature", DROP_NUMBER, 1},
    {"tool_choice", DROP_AUTO, 0},
    {"tools", DROP_EMPTY, 0},
    {"top_logprobs", DROP_NUMBER, 0},
    {"top_p", DROP_NUMBER, 1},
    {"user", DROP_ALWAYS, 0},
};

/* `always`: what is to be said of DROP_ALWAYS. */
static bool dropped(const cJSON *m, bool always) {
    if (cJSON_IsNull(m)) {
        return true;
    }
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        if (defaults[i].name[0] != m->string[0] || strcmp(m->string, defaults[i].name) != 0) {
            continue;
        }
        switch (defaults[i].rule) {
        case DROP_ALWAYS:
            return always;
        case DROP_NUMBER:
            return cJSON_IsNumber(m) && m->valuedouble == defaults[i].number;
        case DROP_FALSE:
            return cJSON_IsFalse(m);
        case DROP_TRUE:
            return cJSON_IsTrue(m);
        case DROP_AUTO:
            return cJSON_IsString(m) && strcmp(m->valuestring, "auto") == 0;
        case DROP_TEXT: /* {"type": "text"} */
            return cJSON_IsObject(m) && cJSON_GetArraySize(m) == 1 && cJSON_IsString(m->child) &&
                   strcmp(m->child->string, "type") == 0 && strcmp(m->child->valuestring, "text") == 0;
        case DROP_EMPTY:
            return cJSON_IsString(m) ? !m->valuestring[0] : (cJSON_IsArray(m) || cJSON_IsObject(m)) && !m->child;
        }
    }
    return false;
}

bool openai_is_default(const cJSON *m) {
    return dropped(m, false);
}

/* ---- values that have more than one spelling ---- */

/* {"type":"text","text":...} with nothing else in it: the text; else NULL. */
static const cJSON *only_text_part(const cJSON *content) {
    const cJSON *part = cJSON_IsArray(content) ? content->child : NULL;
    if (!part || !cJSON_IsObject(part) || part->next) {
        return NULL;
    }
    const char  *type = neutral_text(part, "type");
    const cJSON *text = json_member(part, "text");
    bool         plain = type && strcmp(type, "text") == 0 && cJSON_IsString(text) && cJSON_GetArraySize(part) == 2;
    return plain ? text : NULL;
}

typedef struct member {
    const char  *name;
    const cJSON *value;
} member;

static int by_name(const void *a, const void *b) {
    return strcmp(((const member *)a)->name, ((const member *)b)->name);
}

#define FEW 48 /* members that are sorted where they stand; whoever sends more pays for memory and a real sort */

static void sort_members(member *members, size_t count) {
    if (count > FEW) {
        qsort(members, count, sizeof *members, by_name);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        member m = members[i];
        size_t at = i;
        while (at > 0 && strcmp(members[at - 1].name, m.name) > 0) {
            members[at] = members[at - 1];
            at--;
        }
        members[at] = m;
    }
}

static void write_name(const char *name, bool first, str *out) {
    if (!first) {
        str_addc(out, ',');
    }
    str_jsons(out, name);
    str_addc(out, ':');
}

static bool write_message(const cJSON *message, str *out) {
    const cJSON *text = only_text_part(json_member(message, "content"));
    if (!text) {
        return json_canonical(message, out);
    }
    member  few[FEW];
    size_t  count = (size_t)cJSON_GetArraySize(message);
    member *members = count > FEW ? malloc(count * sizeof *members) : few;
    if (!members) {
        out->failed = true;
        return false;
    }
    size_t       i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, message) {
        members[i++] = (member){m->string, strcmp(m->string, "content") == 0 ? text : m};
    }
    sort_members(members, count);
    str_addc(out, '{');
    for (i = 0; i < count; i++) {
        write_name(members[i].name, i == 0, out);
        json_canonical(members[i].value, out);
    }
    if (members != few) {
        free(members);
    }
    return str_addc(out, '}');
}

static bool write_messages(const cJSON *messages, str *out) {
    str_addc(out, '[');
    const cJSON *message;
    cJSON_ArrayForEach(message, messages) {
        if (message != messages->child) {
            str_addc(out, ',');
        }
        write_message(message, out);
    }
    return str_addc(out, ']');
}

/* The order of their members reaches the answer: an answer's come as its schema has them, and templates print tools and
 * variables as they stand. */
static bool is_ordered(const char *name) {
    return strcmp(name, "response_format") == 0 || strcmp(name, "tools") == 0 ||
           strcmp(name, "chat_template_kwargs") == 0;
}

static bool write_value(const request *r, const member *m, str *out) {
    if (!m->value) {
        return str_addi(out, r->max_tokens);
    }
    if (strcmp(m->name, "messages") == 0 && r->kind == REQUEST_CHAT) {
        return write_messages(m->value, out);
    }
    if (strcmp(m->name, "seed") == 0) {
        return str_addi(out, r->seed);
    }
    if (strcmp(m->name, "stop") == 0 && cJSON_IsString(m->value)) {
        str_addc(out, '[');
        json_canonical(m->value, out);
        return str_addc(out, ']');
    }
    /* One prompt in a list is the prompt by itself. */
    if (strcmp(m->name, "prompt") == 0 && r->n_prompts == 1 && cJSON_IsArray(m->value) &&
        !cJSON_IsNumber(m->value->child)) {
        return json_canonical(m->value->child, out);
    }
    return is_ordered(m->name) ? json_write(m->value, out) : json_canonical(m->value, out);
}

static bool write_canonical(const request *r, str *out) {
    member       few[FEW];
    member      *members = few;
    size_t       room = (size_t)cJSON_GetArraySize(r->body) + 1;
    size_t       count = 0;
    const cJSON *m;
    if (room > FEW) {
        members = malloc(room * sizeof *members);
        if (!members) {
            out->failed = true;
            return false;
        }
    }
    cJSON_ArrayForEach(m, r->body) {
        if (!dropped(m, true)) {
            members[count++] = (member){m->string, m};
        }
    }
    if (r->max_tokens >= 0) {
        members[count++] = (member){"max_tokens", NULL};
    }
    sort_members(members, count);
    str_reserve(out, r->raw_len + 32);
    str_adds(out, kinds[r->kind]);
    str_adds(out, " {");
    for (size_t i = 0; i < count; i++) {
        write_name(members[i].name, i == 0, out);
        write_value(r, &members[i], out);
    }
    if (members != few) {
        free(members);
    }
    return str_addc(out, '}');
}

/* Where a provider is to cache a prompt changes no answer. */
static void drop_marks(cJSON *value, int depth) {
    cJSON_DeleteItemFromObjectCaseSensitive(value, "cache_control");
    cJSON *child;
    cJSON_ArrayForEach(child, value) {
        if (depth > 0) {
            drop_marks(child, depth - 1);
        }
    }
}

/* What the client said where the neutral form is narrower. Marks of its own cache may stand at any depth there. */
static bool write_client(const request *r, str *out) {
    static const char *const names[] = {"system", "messages"};
    for (size_t i = 0; r->narrowed && i < sizeof names / sizeof names[0]; i++) {
        const cJSON *said = cJSON_GetObjectItemCaseSensitive(r->client, names[i]);
        cJSON       *copy = cJSON_Duplicate(said, true);
        if (copy) {
            drop_marks(copy, 5); /* messages, a message, its content, a tool's result, its content, a part */
            str_addf(out, " %s ", names[i]);
            json_canonical(copy, out);
        }
        out->failed = out->failed || (said && !copy);
        cJSON_Delete(copy);
    }
    return !out->failed;
}

/* A header that passes on changes what is asked (a beta of the API, say), unless it is what the provider gets anyway. */
static bool write_headers(const request *r, str *out) {
    for (int i = 0; i < r->n_passed; i++) {
        const char        *name = r->passed[i].name, *value = r->passed[i].value;
        size_t             n = strlen(name);
        const char *const *line = r->from && r->from->headers ? r->from->headers : (const char *const[]){NULL};
        while (*line && !(strncmp(*line, name, n) == 0 && (*line)[n] == ':' && strcmp(*line + n + 2, value) == 0)) {
            line++;
        }
        if (!*line) {
            str_addf(out, " %s: ", name);
            str_jsons(out, value);
        }
    }
    return !out->failed;
}

bool openai_canonical(const request *r, str *out) {
    if (!r->from || !memmem(r->raw, r->raw_len, "cache_control", sizeof "cache_control" - 1)) {
        return write_canonical(r, out) && write_client(r, out) && write_headers(r, out);
    }
    request plain = *r;
    plain.body = cJSON_Duplicate(r->body, true);
    if (!plain.body) {
        out->failed = true;
        return false;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(plain.body, "cache_control");
    drop_marks(cJSON_GetObjectItemCaseSensitive(plain.body, "tools"), 1);
    drop_marks(cJSON_GetObjectItemCaseSensitive(plain.body, "messages"), 3); /* a message, its content, a part */
    bool good = write_canonical(&plain, out) && write_client(r, out) && write_headers(r, out);
    cJSON_Delete(plain.body);
    return good;
}
