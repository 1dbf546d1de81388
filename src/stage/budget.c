/* budget.c - holds the money and the tokens that a request may come to, before it goes out. account.c settles.
 *
 * Behind recall: what is recalled costs nothing. The prompt is estimated (stage/estimate.h), with a margin for providers
 * whose tokenizers make more of it.                                                                                  */
#include <string.h>

#include "base/money.h"
#include "stage/estimate.h"
#include "stage/shared.h"
#include "stage/stage.h"

#define USUAL_OUTPUT 4096 /* tokens, where neither the request nor the table of prices says how many there may be */
#define LEAST_OUTPUT 16   /* an answer that would end sooner helps nobody */
#define MARGIN       5    /* a fifth more than estimated */
#define PART_TOKENS  1600 /* of an image, sound or document: what a large image costs at OpenAI and Anthropic, about */

/* As dear as the dearest of those who may answer, rate by rate: which one it will be is not known yet. */
static const price *dearest(const exchange *x) {
    const model_entry *m = x->target;
    price             *most = m->n_targets > 0 ? arena_zero(x->memory, 1, sizeof *most) : NULL;
    if (most) {
        *most = m->targets[0].price;
    }
    for (int i = 1; most && i < m->n_targets; i++) {
        if (m->targets[i].price.known) {
            price_raise(most, &m->targets[i].price);
            most->known = true;
        }
    }
    return most ? most : &m->price;
}

/* Answers that one request asks for. */
static int64_t answers_of(const request *r) {
    int64_t n = r->kind == REQUEST_COMPLETION && r->n_prompts > 1 ? r->n_prompts * r->n : r->n;
    return n > 0 ? n : 1;
}

/* Tokens of one answer at most. */
static int64_t output_of(const exchange *x) {
    int64_t most = x->target->most_output, asked = x->request.max_tokens;
    if (x->kind == REQUEST_EMBEDDINGS || x->kind == REQUEST_RERANK) {
        return 0;
    }
    if (asked <= 0) {
        return most > 0 ? most : USUAL_OUTPUT;
    }
    return most > 0 && asked > most ? most : asked; /* the provider stops there */
}

/* ---- the prompt ---- */

static int64_t estimate_tree(const cJSON *value) {
    str     text = {0};
    int64_t tokens = value && json_write(value, &text) ? estimate_text(text.data, text.len) : 0;
    str_free(&text);
    return tokens;
}

/* What estimate_prompt does not see, and the providers bill: tools, calls, and parts that are no text. */
static int64_t estimate_rest(const request *r) {
    int64_t tokens = estimate_tree(r->tools);
    for (int i = 0; i < r->n_messages; i++) {
        const message *m = &r->messages[i];
        const cJSON   *content = m->plain ? NULL : cJSON_GetObjectItemCaseSensitive(m->json, "content");
        tokens += m->plain ? 0 : estimate_tree(cJSON_GetObjectItemCaseSensitive(m->json, "tool_calls"));
        for (const cJSON *part = content && cJSON_IsArray(content) ? content->child : NULL; part; part = part->next) {
            const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part, "type"));
            tokens += type && strcmp(type, "text") != 0 ? PART_TOKENS : 0;
        }
    }
    return tokens;
}

/* ---- what a request may come to ---- */

static limit_ask ask_of(const exchange *x) {
    const request *r = &x->request;
    limit_ask      ask = {.now_us = x->arrived_wall_us, .stream = r->stream};
    ask.prompt = estimate_prompt(r) + estimate_rest(r);
    ask.prompt += ask.prompt / MARGIN + 8;
    ask.output = output_of(x) * answers_of(r);
    ask.least = ask.output < LEAST_OUTPUT ? ask.output : LEAST_OUTPUT;
    /* The same margin: a stream is ended by our count, which may run ahead of that of a provider that keeps to its limit. */
    ask.output += ask.output / MARGIN;
    ask.price = dearest(x);
    return ask;
}

typedef struct asking {
    exchange *x;
    limit_ask ask;
    bool      left;                        /* the client has gone */
    try_leave leave;                       /* for further tries */
    void (*later)(void *of, bool granted); /* whoever waits for that */
    void *of;
} asking;

/* What one try can come to within the grant. */
static int64_t nano_of_try(const asking *w) {
    return price_most(w->ask.price, w->ask.prompt, w->x->grant.output);
}

static void more_answered(void *ctx, const shared_answer *a) {
    asking   *w = ctx;
    exchange *x = w->x;
    int64_t   nano = nano_of_try(w);
    bool      granted = a->granted;
    if (a->away) {
        granted = limits_take_more(&x->grant, nano, w->ask.now_us, shared_share(x->gateway->shared));
    } else if (granted) {
        limits_hold_more(&x->grant, nano, w->ask.now_us);
        x->grant.lease_nano += nano;
    }
    w->later(w->of, granted);
}

/* One more try may be billed beside those before it: it is held like the first, and is not made where it does not fit. */
static try_verdict ask_for_try(void *ctx, void (*later)(void *of, bool granted), void *of) {
    asking   *w = ctx;
    exchange *x = w->x;
    shared   *all = x->gateway->shared;
    w->later = later;
    w->of = of;
    if (all && shared_take_more(all, x->loop, &x->grant, nano_of_try(w), more_answered, w)) {
        return TRY_LATER;
    }
    return limits_take_more(&x->grant, nano_of_try(w), w->ask.now_us, all ? shared_share(all) : 0) ? TRY_YES : TRY_NO;
}

/* A budget that covers less than was asked for, or a request that sets no bound of its own: the provider is told, and the
 * stream is ended there. */
static stage_verdict take_grant(exchange *x) {
    request *r = &x->request;
    asking  *w = x->state[stage_budget.index];
    int64_t  answers = answers_of(r);
    w->leave = (try_leave){.ask = ask_for_try, .ctx = w};
    r->leave = &w->leave;
    if (x->grant.bounded) {
        r->most_tokens = x->grant.output / answers > 0 ? x->grant.output / answers : 1;
    }
    return STAGE_NEXT;
}

static stage_verdict refuse(exchange *x, const limit_refusal *why) {
    x->status = why->status;
    if (why->retry_after > 0) {
        x->retry_after = arena_printf(x->memory, "%lld", (long long)why->retry_after);
    }
    return STAGE_FAILED;
}

static stage_verdict take_here(exchange *x, limit_ask *ask) {
    limit_refusal why = {0};
    ask->share = x->gateway->shared ? shared_share(x->gateway->shared) : 0;
    return limits_take(x->key->account, x->key->group_account, ask, &x->grant, &why, &x->failed) ? take_grant(x)
                                                                                                 : refuse(x, &why);
}

/* ---- asking where all nodes ask ---- */

static void answered(void *ctx, const shared_answer *a) {
    asking   *w = ctx;
    exchange *x = w->x;
    x->grant = a->grant; /* given back by account.c when the client has gone */
    if (w->left) {
        pipeline_resume(x, exchange_fail(x, 499, ERR_CANCELLED, "", "The client went away."));
    } else if (a->away) {
        pipeline_resume(x, take_here(x, &w->ask));
    } else if (a->granted) {
        pipeline_resume(x, take_grant(x));
    } else {
        x->failed = a->refused;
        pipeline_resume(x, refuse(x, &a->why));
    }
}

static stage_verdict budget_down(stage *s, exchange *x) {
    account *key = x->key ? x->key->account : NULL, *group = x->key ? x->key->group_account : NULL;
    shared  *all = x->gateway->shared;
    if (!key && !group) {
        return STAGE_NEXT;
    }
    asking *w = arena_alloc(x->memory, sizeof *w);
    if (!w) {
        return exchange_fail(x, 500, ERR_MEMORY, "", "Out of memory.");
    }
    *w = (asking){.x = x, .ask = ask_of(x)};
    x->state[s->index] = w;
    if (all && shared_take(all, x->loop, key, group, &w->ask, answered, w)) {
        return STAGE_WAIT;
    }
    return take_here(x, &w->ask);
}

/* Redis answers within its time limit. */
static void budget_cancel(stage *s, exchange *x) {
    asking *w = x->state[s->index];
    w->left = true;
}

void budget_settle(exchange *x) {
    const usage *u = &x->answer.usage;
    limit_grant  g = x->grant;
    int64_t      tokens = u->known ? money_add(u->prompt, u->completion) : 0;
    if (!g.held) {
        return;
    }
    limits_settle(&x->grant, x->cost_nano, tokens);
    if (x->gateway->shared) {
        shared_settle(x->gateway->shared, x->loop, &g, tokens);
    }
}

/* ---- the end of a budget within a stream ---- */

static int64_t tokens_of(const event *ev) {
    int64_t tokens = estimate_text(ev->text, ev->text ? ev->text_len : 0) +
                     estimate_text(ev->reasoning, ev->reasoning ? ev->reasoning_len : 0) +
                     estimate_text(ev->refusal, ev->refusal ? ev->refusal_len : 0);
    for (const cJSON *call = ev->tool_calls ? ev->tool_calls->child : NULL; call; call = call->next) {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(call, "function");
        const char  *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(function, "name"));
        const char  *arguments = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(function, "arguments"));
        tokens += name ? estimate_text(name, strlen(name)) : 0;
        tokens += arguments ? estimate_text(arguments, strlen(arguments)) : 0;
    }
    bool says = ev->text_len > 0 || ev->reasoning_len > 0 || ev->refusal_len > 0 || ev->tool_calls;
    return says && tokens == 0 ? 1 : tokens;
}

bool budget_passes(exchange *x, const event *ev) {
    if (!x->grant.bounded || !x->request.stream) {
        return true;
    }
    int64_t tokens = tokens_of(ev);
    if (x->passed_tokens + tokens > x->grant.output) {
        x->over_budget = true;
        return false;
    }
    x->passed_tokens += tokens;
    return true;
}

void budget_end_stream(exchange *x) {
    usage *u = &x->answer.usage;
    int    n = x->answer.n_choices > 0 ? x->answer.n_choices : 1;
    for (int i = 0; i < n; i++) {
        event end = {.kind = EVENT_DELTA, .choice = i, .finish = "length"};
        if (i >= x->answer.n_choices || !x->answer.choices[i].finish[0]) {
            pipeline_event(x, &end);
        }
    }
    if (!u->known) {
        u->prompt = estimate_prompt(&x->request);
    }
    u->completion = x->passed_tokens;
    u->reasoning = u->reasoning < u->completion ? u->reasoning : u->completion;
    u->known = u->counted = true;
}

stage stage_budget = {.name = "budget", .down = budget_down, .cancel = budget_cancel};
