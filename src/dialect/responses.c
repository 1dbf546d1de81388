/* responses.c - OpenAI's responses as a dialect of clients; and what is kept of a request. */
#include "dialect/responses.h"

#include <stdio.h>
#include <string.h>

#include "dialect/neutral.h"
#include "dialect/openai.h"
#include "dialect/responses_stream.h"

const dialect dialect_responses = {
    .name = "responses",
    .read_request = responses_read_request,
    .read_local = openai_read_local,
    .canonical = openai_canonical,
    .write_answer = responses_write_answer,
    .write_error = openai_write_error,
    .writing = sizeof(responses_writing),
    .write_event = responses_write_event,
    .write_end = responses_write_end,
    .write_break = responses_write_break,
};

/* ---- names ---- */

/* Of a provider's id only what needs no escape anywhere: it becomes part of the items' ids. */
void responses_id(const request *r, const answer *a, char out[RESPONSES_ID_SIZE]) {
    if (r->answer_id) {
        snprintf(out, RESPONSES_ID_SIZE, "%s", r->answer_id);
        return;
    }
    const char *dash = strchr(a->id, '-');
    size_t      n = strlen(memcpy(out, "resp_", sizeof "resp_"));
    for (const char *from = dash ? dash + 1 : a->id; *from && n < RESPONSES_ID_SIZE - 1; from++) {
        bool plain = (*from >= '0' && *from <= '9') || (*from >= 'A' && *from <= 'Z') || (*from >= 'a' && *from <= 'z');
        if (plain || *from == '_' || *from == '-') {
            out[n++] = *from;
        }
    }
    out[n] = '\0';
}

/* "msg_", the answer's own part of its name, and a number: the same for one item in every event that names it. */
void responses_item_id(const char *response_id, item_kind kind, int index, char out[RESPONSES_ID_SIZE]) {
    static const char *const prefixes[] = {
        [ITEM_REASONING] = "rs", [ITEM_TEXT] = "msg", [ITEM_REFUSAL] = "msg", [ITEM_CALL] = "fc"};
    const char *own = strchr(response_id, '_');
    snprintf(out, RESPONSES_ID_SIZE, "%s_%.80s%03x", prefixes[kind], own ? own + 1 : response_id, (unsigned)index);
}

/* ---- the input as it is kept ---- */

static const char *prefix_of(const char *type) {
    static const char *const prefixes[][2] = {
        {"message", "msg"}, {"function_call", "fc"}, {"function_call_output", "fco"}, {"reasoning", "rs"}};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (strcmp(type, prefixes[i][0]) == 0) {
            return prefixes[i][1];
        }
    }
    return "item";
}

static void write_id(const request *r, const char *type, const char *given, int i, str *out) {
    const char *own = r->answer_id ? strchr(r->answer_id, '_') : NULL;
    str_adds(out, "{\"id\":");
    if (given) {
        str_jsons(out, given);
    } else {
        str_addf(out, "\"%s_%.80si%03x\"", prefix_of(type), own ? own + 1 : "", (unsigned)i);
    }
    str_adds(out, ",\"type\":");
    str_jsons(out, type);
}

static void write_text(const char *role, const char *text, str *out) {
    bool own = role && strcmp(role, "assistant") == 0;
    str_addf(out, ",\"content\":[{\"type\":\"%s\",\"text\":", own ? "output_text" : "input_text");
    str_jsons(out, text);
    str_adds(out, own ? ",\"annotations\":[]}]" : "}]");
}

static void write_item(const request *r, const cJSON *item, int i, str *out) {
    const char  *type = neutral_text(item, "type");
    const cJSON *m;
    write_id(r, type ? type : "message", neutral_text(item, "id"), i, out);
    cJSON_ArrayForEach(m, item) {
        if (strcmp(m->string, "id") == 0 || strcmp(m->string, "type") == 0 || cJSON_IsNull(m)) {
            continue;
        }
        if (strcmp(m->string, "content") == 0 && cJSON_IsString(m)) {
            write_text(neutral_text(item, "role"), m->valuestring, out);
            continue;
        }
        str_addc(out, ',');
        str_jsons(out, m->string);
        str_addc(out, ':');
        json_write(m, out);
    }
    str_addc(out, '}');
}

bool responses_input(const request *r, str *out) {
    const cJSON *input = neutral_get(r->client, "input"), *item;
    int          i = 0;
    str_addc(out, '[');
    if (cJSON_IsString(input)) {
        write_id(r, "message", NULL, 0, out);
        str_adds(out, ",\"role\":\"user\"");
        write_text("user", input->valuestring, out);
        str_addc(out, '}');
    } else {
        cJSON_ArrayForEach(item, input) {
            str_adds(out, i ? "," : "");
            write_item(r, item, i++, out);
        }
    }
    return str_addc(out, ']');
}
