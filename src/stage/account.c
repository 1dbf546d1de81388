/* account.c - what it cost, what it saved, how long it took: into the counters, the ledger and the live tail.
 *
 * The first stage on the way down, so that it is the last on the way up and sees every exchange, refused ones too.    */
#include <string.h>

#include "stage/counters.h"
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

/* What the answer would have cost: a provider's lower price for cached tokens counts only where it was the provider that
 * had them, not where we had. */
static void settle(exchange *x) {
    const usage *u = &x->answer.usage;
    if (!x->target || !u->known) {
        return;
    }
    const model_entry *m = x->target;
    int64_t            whole = price_of(&m->baseline, u->prompt, who(x) == BY_REMOTE ? u->cached : 0, u->completion);
    x->cost_micro = x->hit ? 0 : price_of(&m->price, u->prompt, u->cached, u->completion);
    x->saved_micro = whole > x->cost_micro ? whole - x->cost_micro : 0;
    if (x->result != OUTCOME_OK) {
        x->saved_micro = 0; /* half an answer saved nobody anything; what it cost stays */
    }
}

/* Cut between two characters, so that what is shown of it stays UTF-8. */
static void copy(char *to, size_t size, const char *from) {
    size_t n = from ? strlen(from) : 0;
    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((unsigned char)from[n] & 0xC0) == 0x80) {
            n--;
        }
    }
    memcpy(to, n ? from : "", n);
    to[n] = '\0';
}

static const char *word_of(outcome o) {
    switch (o) {
    case OUTCOME_OK:
        return "ok";
    case OUTCOME_ERROR:
        return "error";
    case OUTCOME_REFUSED:
        return "refused";
    case OUTCOME_CANCELLED:
        return "cancelled";
    case OUTCOME_OPEN:
        break;
    }
    return "open";
}

static void fill_row(const exchange *x, ledger_row *row) {
    const usage *u = &x->answer.usage;
    row->time_us = x->arrived_wall_us;
    copy(row->id, sizeof row->id, x->id);
    copy(row->key, sizeof row->key, x->key ? x->key->name : "");
    copy(row->model, sizeof row->model, x->request.model);
    copy(row->stage, sizeof row->stage, x->answered_stage);
    copy(row->backend, sizeof row->backend, x->hit ? "" : x->answered_by);
    row->prompt_tokens = u->prompt;
    row->completion_tokens = u->completion;
    row->cached_tokens = u->cached;
    row->counted = u->counted;
    row->cost_micro = x->cost_micro;
    row->saved_micro = x->saved_micro;
    row->queue_us = x->queue_us;
    row->first_us = x->first_us ? x->first_us - x->arrived_us : -1;
    row->total_us = x->done_us - x->arrived_us;
    row->stream = x->request.stream;
    copy(row->outcome, sizeof row->outcome, word_of(x->result));
    row->status = x->failed.code == ERR_NONE ? 200 : x->status;
}

static void account_up(stage *s, exchange *x) {
    (void)s;
    settle(x);
    gateway   *g = x->gateway;
    ledger_row row = {0};
    fill_row(x, &row);
    counted c = {.by = who(x),
                 .outcome = (int)x->result,
                 .stream = row.stream,
                 .prompt_tokens = row.prompt_tokens,
                 .completion_tokens = row.completion_tokens,
                 .cached_tokens = row.cached_tokens,
                 .cost_micro = row.cost_micro,
                 .saved_micro = row.saved_micro,
                 .first_us = row.first_us,
                 .total_us = row.total_us};
    counters_end(g->counters, &c);
    if (g->db) {
        db_ledger(g->db, &row);
    }
    if (g->live) {
        g->live(g->live_ctx, &row);
    }
}

stage stage_account = {.name = "account", .down = account_down, .up = account_up};
