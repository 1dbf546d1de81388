/* account.c - what it cost, what it saved, how long it took: into the counters, the ledger and the live tail.
 *
 * The first stage on the way down, so that it is the last on the way up and sees every exchange, refused ones too. The
 * ledger gets one row for the answer and one for each further try that may be on the invoice (a hedge that lost, a stream
 * that broke): all of one request have its id. x->cost_nano is their sum.                                            */
#include <stdio.h>
#include <string.h>

#include "base/money.h"
#include "base/utf8.h"
#include "stage/counters.h"
#include "stage/estimate.h"
#include "stage/stage.h"

static stage_verdict account_down(stage *s, exchange *x) {
    (void)s;
    counters_begin(x->gateway->counters);
    return STAGE_NEXT;
}

static counted_by who(const exchange *x) {
    if (x->hit) {
        return BY_RECALL_EXACT;
    }
    if (!x->backend || !x->answered_stage) {
        return BY_NOBODY;
    }
    return strcmp(x->backend->ops->kind, "local") == 0 ? BY_LOCAL : BY_REMOTE;
}

/* A stream that was cut off: what the provider had said of the answer by then (Anthropic's message_start says a token or
 * two) is less than what had come, and what had come is on the invoice. */
static void count_what_came(exchange *x) {
    usage *u = &x->answer.usage;
    if (!u->known || u->counted || (x->result == OUTCOME_OK && !x->cut) || x->hit) {
        return;
    }
    int64_t came = estimate_answer(&x->answer);
    if (came > u->completion) {
        u->completion = came;
        u->counted = true;
    }
}

/* An attempt whose usage nobody told: a provider that had begun to answer, or was asked a second time while the first was
 * at work, has read the prompt and bills it; one that refused or was not reached has not. */
static void count_attempt(const exchange *x, const attempt *a, usage *u) {
    *u = a->usage;
    bool began = (a->status >= 200 && a->status < 300) || (a->status == 0 && a->why && strcmp(a->why, "hedge") == 0);
    if (!u->known && began) {
        *u = (usage){.prompt = estimate_prompt(&x->request), .known = true, .counted = true};
    }
}

static int64_t cost_of_attempts(const exchange *x) {
    int64_t nano = 0;
    for (int i = 0; x->target && i < x->n_attempts; i++) {
        usage u;
        count_attempt(x, &x->attempts[i], &u);
        nano = money_add(nano, price_of(gateway_price(x->target, x->attempts[i].backend, x->attempts[i].model), &u));
    }
    return nano;
}

/* Of the answer alone. */
static int64_t cost_of_answer(const exchange *x) {
    const usage *u = &x->answer.usage;
    return x->target && u->known && !x->hit ? price_of(gateway_price(x->target, x->by, x->by_model), u) : 0;
}

/* What the answer would have cost: a provider's own cache (its lower prices, and what it asks for writing there) counts
 * only where it was the provider that answered, not where we had the tokens. */
static int64_t cost_without(const exchange *x) {
    usage u = x->answer.usage;
    if (!x->target || !u.known) {
        return 0;
    }
    if (who(x) != BY_REMOTE) {
        u = (usage){.prompt = u.prompt, .completion = u.completion, .reasoning = u.reasoning, .known = true};
    }
    return price_of(&x->target->baseline, &u);
}

/* Returns the cost of the answer alone. */
static int64_t settle(exchange *x) {
    int64_t whole = cost_without(x), of_answer = cost_of_answer(x);
    x->cost_nano = money_add(of_answer, cost_of_attempts(x));
    x->saved_nano = whole > x->cost_nano ? whole - x->cost_nano : 0;
    if (x->result != OUTCOME_OK) {
        x->saved_nano = 0; /* half an answer saved nobody anything; what it cost stays */
    }
    return of_answer;
}

static const char *tier_word(usage_tier t) {
    static const char *const words[] = {"standard", "batch", "flex", "priority"};
    return (unsigned)t < sizeof words / sizeof words[0] ? words[t] : "standard";
}

static void fill_usage(const usage *u, ledger_row *row) {
    row->prompt_tokens = u->prompt;
    row->completion_tokens = u->completion;
    row->cached_tokens = u->cached;
    row->reasoning_tokens = u->reasoning;
    row->write_5m = u->write_5m;
    row->write_1h = u->write_1h;
    row->audio_in = u->audio_in;
    row->audio_out = u->audio_out;
    row->image_in = u->image_in;
    row->searches = u->searches;
    row->counted = u->counted;
    utf8_copy(row->tier, sizeof row->tier, u->known ? tier_word(u->tier) : "");
}

/* What all rows of an exchange have in common. */
static void fill_head(const exchange *x, ledger_row *row) {
    row->time_us = x->arrived_wall_us;
    utf8_copy(row->id, sizeof row->id, x->id);
    utf8_copy(row->key, sizeof row->key, x->key ? x->key->name : "");
    utf8_copy(row->group, sizeof row->group, x->key ? x->key->group : "");
    utf8_copy(row->model, sizeof row->model, x->request.model);
    row->stream = x->request.stream;
}

/* The answer's row: its own cost. What else was tried has rows of its own, so that their sum is the invoice. */
static void fill_row(const exchange *x, int64_t cost_nano, ledger_row *row) {
    fill_head(x, row);
    fill_usage(&x->answer.usage, row);
    utf8_copy(row->stage, sizeof row->stage, x->answered_stage);
    utf8_copy(row->backend, sizeof row->backend, x->hit ? "" : x->answered_by);
    if (!x->hit && x->backend && x->target) {
        utf8_copy(row->upstream, sizeof row->upstream, x->by_model ? x->by_model : x->target->upstream);
    }
    row->cost_nano = cost_nano;
    row->saved_nano = x->saved_nano;
    row->queue_us = x->queue_us;
    row->first_us = x->first_us ? x->first_us - x->arrived_us : -1;
    row->total_us = x->done_us - x->arrived_us;
    utf8_copy(row->outcome, sizeof row->outcome, counted_outcome_word((int)x->result));
    row->status = x->failed.code == ERR_NONE ? 200 : x->status;
}

static const char *kind_of(const gateway *g, const char *name) {
    for (int i = 0; name && i < g->n_backends; i++) {
        if (strcmp(g->backends[i]->name, name) == 0) {
            return g->backends[i]->ops->kind;
        }
    }
    return "remote";
}

static void fill_attempt(const exchange *x, const attempt *a, ledger_row *row) {
    usage u;
    char  backend[sizeof row->backend];
    count_attempt(x, a, &u);
    fill_head(x, row);
    fill_usage(&u, row);
    row->attempt = true;
    utf8_copy(row->stage, sizeof row->stage, "attempt");
    snprintf(backend, sizeof backend, "%s:%s", kind_of(x->gateway, a->backend), a->backend ? a->backend : "");
    utf8_copy(row->backend, sizeof row->backend, backend);
    utf8_copy(row->upstream, sizeof row->upstream, a->model);
    row->cost_nano = price_of(gateway_price(x->target, a->backend, a->model), &u);
    row->first_us = -1;
    utf8_copy(row->outcome, sizeof row->outcome, a->why ? a->why : "retry");
    row->status = a->status;
}

static void book_attempts(exchange *x, counted *c) {
    for (int i = 0; x->target && i < x->n_attempts; i++) {
        ledger_row row = {0};
        fill_attempt(x, &x->attempts[i], &row);
        c->attempts++;
        c->prompt_tokens += row.prompt_tokens;
        c->completion_tokens += row.completion_tokens;
        c->cached_tokens += row.cached_tokens;
        if (x->gateway->db) {
            db_ledger(x->gateway->db, &row);
        }
    }
}

static void account_up(stage *s, exchange *x) {
    (void)s;
    count_what_came(x);
    int64_t cost = settle(x);
    budget_settle(x);
    gateway   *g = x->gateway;
    ledger_row row = {0};
    fill_row(x, cost, &row);
    counted c = {.by = who(x),
                 .outcome = (int)x->result,
                 .model = x->target ? x->target->counted : NULL,
                 .reason = (int)x->failed.code,
                 .stream = row.stream,
                 .prompt_tokens = row.prompt_tokens,
                 .completion_tokens = row.completion_tokens,
                 .cached_tokens = row.cached_tokens,
                 .cost_nano = x->cost_nano,
                 .saved_nano = x->saved_nano,
                 .first_us = row.first_us,
                 .total_us = row.total_us};
    if (g->db) {
        db_ledger(g->db, &row);
    }
    book_attempts(x, &c);
    counters_end(g->counters, &c);
    if (g->live) {
        g->live(g->live_ctx, &row);
    }
    if (g->finished) {
        g->finished(g->finished_ctx, x);
    }
}

stage stage_account = {.name = "account", .down = account_down, .up = account_up};
