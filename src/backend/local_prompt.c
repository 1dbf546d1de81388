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

static place place_in(const request *r, int which) {
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

static bool chat_prompt(const local_backend *b, const request *r, const place *where, token_ids *out, bool *thinks,
                        err *e) {
    if (!can_chat(b, e)) {
        return false;
    }
    guard_mark mark;
    str        text = {0};
    cJSON     *input = local_template_input(b, r, &mark, e);
    bool       ok = input && template_render(b->m->chat, input, clock_wall_us() / 1000000, &text, e) &&
              may_fit(b, text.len, where, e) &&
              guard_encode(b->guard, &mark, text.data ? text.data : "", text.len, out, e) &&
              tokenizer_begin(b->m->tokens, out, e);
    if (ok && thinks) {
        *thinks = speech_prompt_thinks(&b->speech, text.data ? text.data : "", text.len);
    }
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

bool local_prompt_make(const local_backend *b, const request *r, int which, token_ids *out, bool *thinks, err *e) {
    place where = place_in(r, which);
    bool  ok = r->kind == REQUEST_CHAT ? chat_prompt(b, r, &where, out, thinks, e)
                                       : completion_prompt(b, &r->prompts[which], &where, out, e);
    if (ok && out->count > INT_MAX) {
        return err_set(e, ERR_LIMIT, "the prompt has %zu tokens", out->count);
    }
    return ok && (r->count_only || fits(b, out->count, &where, e));
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
    place     where = place_in(r, 0);
    size_t    same = 0;
    head.n_messages = 0;
    while (head.n_messages < r->n_messages && is_system(&r->messages[head.n_messages])) {
        head.n_messages++;
    }
    if (r->kind == REQUEST_CHAT && head.n_messages > 0 && chat_prompt(b, &head, &where, &ids, NULL, NULL)) {
        while (same < ids.count && same < made->count && ids.ids[same] == made->ids[same]) {
            same++;
        }
    }
    token_ids_free(&ids);
    size_t half = (size_t)engine_context(b->engine) / 2; /* a conversation needs room, too */
    return same < 1 ? 1 : same < half ? (int)same : (int)half;
}
