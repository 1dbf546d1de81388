/* local_prompt.c - from a request to the tokens of its prompts. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "backend/local.h"
#include "base/clock.h"

int local_prompt_count(const request *r) {
    return r->kind == REQUEST_CHAT ? 1 : r->n_prompts;
}

/* The place of a prompt in its request, for errors. */
typedef struct place {
    char text[32];
} place;

static place place_of(const request *r, int which) {
    place p = {"messages"};
    if (r->kind != REQUEST_CHAT) {
        snprintf(p.text, sizeof(p.text), r->n_prompts > 1 ? "prompt[%d]" : "prompt", which);
    }
    return p;
}

#define SLIDE_CONTEXTS 16 /* a longer prompt is refused even where the context slides: nearly all would be dropped */

/* Refuses early what cannot fit even if every token were the longest of all: tokenising megabytes takes seconds. */
static bool may_fit(const local_backend *b, size_t bytes, const place *where, err *e) {
    size_t least = bytes / b->longest_token;
    size_t context = (size_t)engine_context(b->engine);
    return least < context * (b->slide ? SLIDE_CONTEXTS : 1) ||
           err_at(e, ERR_CONTEXT, where->text, "the prompt has more than %zu tokens, the context of %s holds %zu",
                  least, b->base.name, context);
}

static bool fits(const local_backend *b, size_t tokens, const place *where, err *e) {
    size_t context = (size_t)engine_context(b->engine);
    return tokens < context || b->slide ||
           err_at(e, ERR_CONTEXT, where->text,
                  "the prompt has %zu tokens, the context of %s holds %zu with the answer; shorten it, or let the "
                  "operator set overflow: slide",
                  tokens, b->base.name, context);
}

/* ---- chat ---- */

/* Arguments come as a string of JSON; templates print them as the object they are. */
static void open_arguments(cJSON *message) {
    cJSON *call;
    cJSON_ArrayForEach(call, cJSON_GetObjectItemCaseSensitive(message, "tool_calls")) {
        cJSON *function = cJSON_GetObjectItemCaseSensitive(call, "function");
        cJSON *arguments = cJSON_GetObjectItemCaseSensitive(function, "arguments");
        if (!cJSON_IsString(arguments)) {
            continue;
        }
        cJSON *opened = json_parse(arguments->valuestring, strlen(arguments->valuestring), JSON_MAX_DEPTH, NULL);
        if (cJSON_IsObject(opened)) {
            cJSON_ReplaceItemInObjectCaseSensitive(function, "arguments", opened);
        } else {
            cJSON_Delete(opened);
        }
    }
}

static bool only_text(const local_backend *b, const cJSON *parts, int i, err *e) {
    int          k = 0;
    const cJSON *part;
    cJSON_ArrayForEach(part, parts) {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(part, "type");
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0) {
            char where[64];
            snprintf(where, sizeof(where), "messages[%d].content[%d]", i, k);
            return err_at(e, ERR_UNSUPPORTED, where, "%s is not text; %s reads nothing else", where, b->base.name);
        }
        k++;
    }
    return true;
}

/* The message as templates know it: content is one string, and a developer is a system. */
static cJSON *plain_message(const local_backend *b, const message *m, int i, err *e) {
    cJSON       *copy = m->json ? cJSON_Duplicate(m->json, true) : cJSON_CreateObject();
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(copy, "content");
    bool         ok = copy != NULL;
    if (ok && !m->json) {
        ok = cJSON_AddStringToObject(copy, "role", m->role) &&
             cJSON_AddStringToObject(copy, "content", m->content ? m->content : "");
    } else if (ok && cJSON_IsArray(content)) {
        if (!only_text(b, content, i, e)) {
            cJSON_Delete(copy);
            return NULL;
        }
        ok = cJSON_ReplaceItemInObjectCaseSensitive(copy, "content", cJSON_CreateString(m->content ? m->content : ""));
    }
    if (ok && m->role && strcmp(m->role, "developer") == 0) {
        ok = cJSON_ReplaceItemInObjectCaseSensitive(copy, "role", cJSON_CreateString("system"));
    }
    if (!ok) {
        cJSON_Delete(copy);
        err_set(e, ERR_MEMORY, "out of memory for the messages");
        return NULL;
    }
    open_arguments(copy);
    return copy;
}

static const char *text_of(const tokenizer *t, int32_t id) {
    const char *text = id >= 0 ? tokenizer_text(t, id) : NULL;
    return text ? text : "";
}

/* What the template sees. */
static cJSON *template_input(const local_backend *b, const request *r, err *e) {
    cJSON *input = cJSON_CreateObject();
    cJSON *messages = cJSON_AddArrayToObject(input, "messages");
    bool   ok = messages != NULL;
    for (int i = 0; ok && i < r->n_messages; i++) {
        cJSON *copy = plain_message(b, &r->messages[i], i, e);
        if (!copy) {
            cJSON_Delete(input);
            return NULL;
        }
        ok = cJSON_AddItemToArray(messages, copy);
    }
    if (ok && r->tools) {
        cJSON *tools = cJSON_Duplicate(r->tools, true);
        ok = tools && cJSON_AddItemToObject(input, "tools", tools);
    }
    ok = ok && cJSON_AddTrueToObject(input, "add_generation_prompt") &&
         cJSON_AddStringToObject(input, "bos_token", text_of(b->m->tokens, tokenizer_bos(b->m->tokens))) &&
         cJSON_AddStringToObject(input, "eos_token", text_of(b->m->tokens, tokenizer_eos(b->m->tokens)));
    if (!ok) {
        cJSON_Delete(input);
        err_set(e, ERR_MEMORY, "out of memory for the messages");
        return NULL;
    }
    return input;
}

static bool mark_input(const local_backend *b, cJSON *input, guard_mark *mark, err *e) {
    cJSON *messages = cJSON_GetObjectItemCaseSensitive(input, "messages");
    cJSON *tools = cJSON_GetObjectItemCaseSensitive(input, "tools");
    *mark = (guard_mark){0};
    guard_look(mark, messages);
    guard_look(mark, tools);
    return guard_choose(mark, e) && guard_tree(b->guard, mark, messages, e) && guard_tree(b->guard, mark, tools, e);
}

/* The template usually writes BOS itself; where it does not and the model wants one, it comes first. */
static bool begin_with_bos(const tokenizer *t, token_ids *out, err *e) {
    int32_t bos = tokenizer_bos(t);
    if (!tokenizer_adds_bos(t) || bos < 0 || (out->count > 0 && out->ids[0] == bos)) {
        return true;
    }
    if (!token_ids_add(out, bos)) {
        return err_set(e, ERR_MEMORY, "out of memory for a prompt");
    }
    memmove(out->ids + 1, out->ids, (out->count - 1) * sizeof(*out->ids));
    out->ids[0] = bos;
    return true;
}

static bool can_chat(const local_backend *b, err *e) {
    const model *m = b->m;
    if (!m->tokens) {
        return err_set(e, ERR_INVALID, "%s has no tokenizer; send token ids to /v1/completions", b->base.name);
    }
    if (!m->chat && m->chat_error[0]) {
        return err_set(e, ERR_INVALID, "the chat template of %s cannot be used: %s", b->base.name, m->chat_error);
    }
    return m->chat ||
           err_set(e, ERR_INVALID, "%s has no chat template; send a prompt to /v1/completions", b->base.name);
}

static bool chat_prompt(const local_backend *b, const request *r, const place *where, token_ids *out, err *e) {
    if (!can_chat(b, e)) {
        return false;
    }
    guard_mark mark;
    str        text = {0};
    cJSON     *input = template_input(b, r, e);
    bool       ok = input && mark_input(b, input, &mark, e) &&
              template_render(b->m->chat, input, clock_wall_us() / 1000000, &text, e) &&
              may_fit(b, text.len, where, e) &&
              guard_encode(b->guard, &mark, text.data ? text.data : "", text.len, out, e) &&
              begin_with_bos(b->m->tokens, out, e);
    cJSON_Delete(input);
    str_free(&text);
    return ok;
}

/* ---- completions ---- */

static bool completion_prompt(const local_backend *b, const prompt *p, const place *where, token_ids *out, err *e) {
    if (!p->text) {
        for (int i = 0; i < p->n_ids; i++) {
            if (!token_ids_add(out, p->ids[i])) {
                return err_set(e, ERR_MEMORY, "out of memory for a prompt");
            }
        }
        return true;
    }
    if (!b->m->tokens) {
        return err_set(e, ERR_INVALID, "%s has no tokenizer; send the prompt as token ids", b->base.name);
    }
    size_t n = strlen(p->text);
    return may_fit(b, n, where, e) &&
           tokenizer_encode(b->m->tokens, p->text, n, (encode_options){.add_special = true}, out, e);
}

bool local_prompt_make(const local_backend *b, const request *r, int which, token_ids *out, err *e) {
    place where = place_of(r, which);
    bool  ok = r->kind == REQUEST_CHAT ? chat_prompt(b, r, &where, out, e)
                                       : completion_prompt(b, &r->prompts[which], &where, out, e);
    if (ok && out->count > INT_MAX) {
        return err_set(e, ERR_LIMIT, "the prompt has %zu tokens", out->count);
    }
    return ok && fits(b, out->count, &where, e);
}

/* ---- what stays when the context slides ---- */

static bool is_system(const message *m) {
    return m->role && (strcmp(m->role, "system") == 0 || strcmp(m->role, "developer") == 0);
}

/* The template decides how system messages look: they are rendered alone, and what both begin with is theirs. Templates
 * that refuse a chat without a user keep their first token alone, which models lean on: StreamingLLM,
 * arXiv:2309.17453. */
int local_prompt_keep(const local_backend *b, const request *r, const token_ids *made) {
    request   head = *r;
    token_ids ids = {0};
    place     where = place_of(r, 0);
    size_t    same = 0;
    head.n_messages = 0;
    while (head.n_messages < r->n_messages && is_system(&r->messages[head.n_messages])) {
        head.n_messages++;
    }
    if (r->kind == REQUEST_CHAT && head.n_messages > 0 && chat_prompt(b, &head, &where, &ids, NULL)) {
        while (same < ids.count && same < made->count && ids.ids[same] == made->ids[same]) {
            same++;
        }
    }
    token_ids_free(&ids);
    size_t half = (size_t)engine_context(b->engine) / 2; /* a conversation needs room, too */
    return same < 1 ? 1 : same < half ? (int)same : (int)half;
}
