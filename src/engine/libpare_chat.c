/* libpare_chat.c - conversations: messages through the model's chat template.
 *
 * Messages are kept as the JSON that templates see. All that they hold is a stranger's: the guard keeps it from becoming
 * control tokens.                                                                                                    */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"
#include "engine/libpare_parts.h"

struct pare_chat {
    pare_model *m;
    cJSON      *messages;  /* [{"role", "content", ...}] */
    cJSON      *variables; /* NULL: none */
};

static bool no_memory(err *e) {
    return err_set(e, ERR_MEMORY, "out of memory for the messages");
}

/* ---- a chat ---- */

static pare_chat *new_chat(pare_model *m, err *e) {
    const model *w = m->weights;
    if (!m->guard) {
        err_set(e, ERR_UNSUPPORTED, "%s cannot chat: %s", w->name,
                w->shape.headless  ? "it embeds, and does not generate"
                : !w->tokens       ? "it has no vocabulary"
                : w->chat_error[0] ? w->chat_error
                                   : "its file has no chat template");
        return NULL;
    }
    pare_chat *c = calloc(1, sizeof(*c));
    cJSON     *messages = c ? cJSON_CreateArray() : NULL;
    if (!messages) {
        free(c);
        no_memory(e);
        return NULL;
    }
    c->m = m;
    c->messages = messages;
    return c;
}

pare_chat *pare_chat_new(pare_model *m, char *error, size_t error_size) {
    err        e = {0};
    pare_chat *c = new_chat(m, &e);
    if (!c) {
        libpare_tell(&e, error, error_size);
    }
    return c;
}

void pare_chat_free(pare_chat *c) {
    if (c) {
        cJSON_Delete(c->messages);
        cJSON_Delete(c->variables);
        free(c);
    }
}

/* ---- messages ---- */

static bool check_text(const char *what, const char *text, err *e) {
    size_t bad = 0;
    return utf8_valid(text, strlen(text), &bad) ||
           err_set(e, ERR_INVALID, "the %s is not UTF-8 at byte %zu", what, bad);
}

/* An object of the caller's as a tree; `reserved` ends with NULL. */
static cJSON *parse_object(const char *what, const char *json, const char *const *reserved, err *e) {
    cJSON *tree = json_parse(json, strlen(json), JSON_MAX_DEPTH, e);
    bool   ok = tree ? cJSON_IsObject(tree) || err_set(e, ERR_INVALID, "%s, not an object", json_kind(tree)) : false;
    for (; ok && *reserved; reserved++) {
        ok = !cJSON_GetObjectItemCaseSensitive(tree, *reserved) ||
             err_set(e, ERR_INVALID, "\"%s\" is set by pare; leave it out", *reserved);
    }
    if (!ok) {
        cJSON_Delete(tree);
        err_prefix(e, "%s", what);
        return NULL;
    }
    return tree;
}

static bool add_message(pare_chat *c, const char *role, const char *content, const char *more, err *e) {
    static const char *const ours[] = {"role", "content", NULL};
    if (!role || !role[0]) {
        return err_set(e, ERR_INVALID, "a message needs a role: system, user or assistant");
    }
    if (!content && !more) {
        return err_set(e, ERR_INVALID, "the message has neither content nor more");
    }
    if (!check_text("role", role, e) || (content && !check_text("content", content, e))) {
        return false;
    }
    cJSON *rest = more ? parse_object("more", more, ours, e) : NULL;
    if (more && !rest) {
        return false;
    }
    cJSON *message = cJSON_CreateObject();
    bool   ok =
        cJSON_AddStringToObject(message, "role", role) &&
        (content ? cJSON_AddStringToObject(message, "content", content) : cJSON_AddNullToObject(message, "content"));
    while (ok && rest && rest->child) {
        cJSON *member = cJSON_DetachItemViaPointer(rest, rest->child);
        ok = cJSON_AddItemToObject(message, member->string, member);
        if (!ok) {
            cJSON_Delete(member);
        }
    }
    cJSON_Delete(rest);
    if (!ok || !cJSON_AddItemToArray(c->messages, message)) {
        cJSON_Delete(message);
        return no_memory(e);
    }
    return true;
}

int pare_chat_add(pare_chat *c, const char *role, const char *content, const char *more, char *error,
                  size_t error_size) {
    err e = {0};
    return add_message(c, role, content, more, &e) || libpare_tell(&e, error, error_size);
}

int pare_chat_variables(pare_chat *c, const char *json, char *error, size_t error_size) {
    static const char *const ours[] = {"messages", "add_generation_prompt", "bos_token", "eos_token", NULL};
    err                      e = {0};
    cJSON                   *tree = json ? parse_object("the variables", json, ours, &e) : NULL;
    if (json && !tree) {
        return libpare_tell(&e, error, error_size);
    }
    cJSON_Delete(c->variables);
    c->variables = tree;
    return 1;
}

int pare_chat_count(const pare_chat *c) {
    return cJSON_GetArraySize(c->messages);
}

static const char *member_of(const pare_chat *c, int index, const char *name) {
    const cJSON *message = index >= 0 ? cJSON_GetArrayItem(c->messages, index) : NULL;
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, name));
}

const char *pare_chat_role(const pare_chat *c, int index) {
    return member_of(c, index, "role");
}

const char *pare_chat_content(const pare_chat *c, int index) {
    return member_of(c, index, "content");
}

int pare_chat_drop(pare_chat *c, int first, int count) {
    int all = pare_chat_count(c);
    if (first < 0 || count < 0 || first > all || count > all - first) {
        return 0;
    }
    for (int i = 0; i < count; i++) {
        cJSON_DeleteItemFromArray(c->messages, first);
    }
    return 1;
}

/* ---- the prompt ---- */

static const char *text_of(const tokenizer *t, int32_t id) {
    const char *text = id >= 0 ? tokenizer_text(t, id) : NULL;
    return text ? text : "";
}

/* What the template sees, with marks where the messages hold a control token's text. */
static cJSON *template_input(const pare_chat *c, guard_mark *mark, err *e) {
    const tokenizer *t = c->m->weights->tokens;
    cJSON           *input = c->variables ? cJSON_Duplicate(c->variables, true) : cJSON_CreateObject();
    cJSON           *messages = input ? cJSON_Duplicate(c->messages, true) : NULL;
    *mark = (guard_mark){0};
    if (!messages || !cJSON_AddItemToObject(input, "messages", messages)) {
        cJSON_Delete(messages);
        cJSON_Delete(input);
        no_memory(e);
        return NULL;
    }
    guard_look(mark, input);
    bool ok = guard_choose(mark, e) && guard_tree(c->m->guard, mark, input, e);
    if (ok) {
        ok = (cJSON_AddTrueToObject(input, "add_generation_prompt") &&
              cJSON_AddStringToObject(input, "bos_token", text_of(t, tokenizer_bos(t))) &&
              cJSON_AddStringToObject(input, "eos_token", text_of(t, tokenizer_eos(t)))) ||
             no_memory(e);
    }
    if (!ok) {
        cJSON_Delete(input);
        return NULL;
    }
    return input;
}

static bool prompt_of(const pare_chat *c, token_ids *out, err *e) {
    const model *w = c->m->weights;
    guard_mark   mark;
    str          text = {0};
    cJSON       *input = template_input(c, &mark, e);
    bool         ok = input && template_render(w->chat, input, clock_wall_us() / 1000000, &text, e) &&
              guard_encode(c->m->guard, &mark, text.data ? text.data : "", text.len, out, e) &&
              tokenizer_begin(w->tokens, out, e) &&
              (out->count <= INT_MAX || err_set(e, ERR_LIMIT, "the messages have %zu tokens", out->count));
    cJSON_Delete(input);
    str_free(&text);
    return ok;
}

int pare_chat_tokens(const pare_chat *c, char *error, size_t error_size) {
    err       e = {0};
    token_ids ids = {0};
    bool      ok = prompt_of(c, &ids, &e) || libpare_tell(&e, error, error_size);
    int       count = ok ? (int)ids.count : -1;
    token_ids_free(&ids);
    return count;
}

/* ---- the answer ---- */

static bool answer(pare_chat *c, const pare_request *request, pare_piece piece, void *user, pare_usage *usage, err *e) {
    pare_request r;
    token_ids    ids = {0};
    str          whole = {0};
    if (!libpare_read(&libpare_request, request, &r, e) || !libpare_may_write(&libpare_usage, usage, e)) {
        return false;
    }
    bool ok = prompt_of(c, &ids, e);
    if (ok) {
        asking q = {&r, ids.ids, (int)ids.count, true, piece, user, &whole};
        ok = libpare_ask(c->m, &q, usage, e) && add_message(c, "assistant", whole.data ? whole.data : "", NULL, e);
    }
    token_ids_free(&ids);
    str_free(&whole);
    return ok;
}

int pare_chat_answer(pare_chat *c, const pare_request *request, pare_piece piece, void *user, pare_usage *usage,
                     char *error, size_t error_size) {
    err e = {0};
    return answer(c, request, piece, user, usage, &e) || libpare_tell(&e, error, error_size);
}
