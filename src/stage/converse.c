/* converse.c - conversations that pare keeps for its clients: what came before is put in front of the request, and the
 * turn that this exchange is gets stored when it went well.
 *
 * Only OpenAI's responses have them. A stream's last event is written behind the way up, so a client that has seen its
 * answer's end can ask on at once: the question for it passes behind the row (db_conversation_ask).                    */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "dialect/responses.h"
#include "stage/stage.h"
#include "store/conversations.h"

typedef struct converse_state {
    exchange         *x;
    conversation_name previous;
    bool              inside, answered, left; /* inside: within db_conversation_ask, which may answer at once */
    stage_verdict     verdict;
    const char       *input; /* as it is kept; in the arena */
    size_t            input_len;
} converse_state;

static const char *key_of(const exchange *x) {
    return x->key ? x->key->name : "";
}

/* ---- what came before ---- */

static int status_of(err_code code) {
    switch (code) {
    case ERR_NOT_FOUND:
        return 404;
    case ERR_LIMIT:
    case ERR_INVALID:
    case ERR_UNSUPPORTED:
        return 400;
    case ERR_TIMEOUT:
    case ERR_BUSY:
        return 503;
    default:
        return 500;
    }
}

static stage_verdict unknown(exchange *x) {
    return exchange_fail(x, 404, ERR_NOT_FOUND, "previous_response_id",
                         "There is no answer \"%.100s\" here. Answers are kept for %d days, and not with store: false.",
                         x->request.previous, CONVERSATION_DAYS);
}

static stage_verdict take(exchange *x, const str *json, const err *e) {
    if (e && e->code == ERR_TIMEOUT) {
        return exchange_fail(x, 503, ERR_TIMEOUT, "",
                             "Reading the conversation took too long; send the request again.");
    }
    if (e) {
        return exchange_fail(x, status_of(e->code), e->code, e->param, "%s", e->text);
    }
    if (!responses_join(&x->request, json->data, json->len, x->memory, &x->failed)) {
        x->status = status_of(x->failed.code);
        return STAGE_FAILED;
    }
    return STAGE_NEXT;
}

static void answered(void *ctx, const str *json, const err *e) {
    converse_state *c = ctx;
    exchange       *x = c->x;
    c->answered = true;
    c->verdict = c->left ? exchange_fail(x, 499, ERR_CANCELLED, "", "The client went away.") : take(x, json, e);
    if (!c->inside) {
        pipeline_resume(x, c->verdict);
    }
}

static stage_verdict ask(converse_state *c, exchange *x) {
    if (!conversation_name_of(&c->previous, x->request.previous, x->space, key_of(x))) {
        return unknown(x);
    }
    c->inside = true;
    db_conversation_ask(x->gateway->db, x->loop, conversation_history, &c->previous, sizeof c->previous, answered, c);
    c->inside = false;
    return c->answered ? c->verdict : STAGE_WAIT;
}

/* ---- this turn ---- */

/* Before what came before it is joined to it. */
static bool remember_input(converse_state *c, exchange *x) {
    str input = {0};
    if (responses_input(&x->request, &input)) {
        c->input = arena_memdup(x->memory, input.data, input.len);
        c->input_len = input.len;
    }
    str_free(&input);
    return c->input != NULL;
}

static stage_verdict converse_down(stage *s, exchange *x) {
    request *r = &x->request;
    if (x->speaks != &dialect_responses) {
        return STAGE_NEXT;
    }
    if (!x->gateway->db && r->previous) {
        return exchange_fail(x, 400, ERR_UNSUPPORTED, "previous_response_id",
                             "No answers are kept here: send the whole conversation as input.");
    }
    r->keep = r->keep && x->gateway->db;
    r->answer_id = arena_printf(x->memory, "resp_%s", x->id);
    converse_state *c = arena_zero(x->memory, 1, sizeof *c);
    if (c) {
        c->x = x;
        x->state[s->index] = c;
    }
    if (!c || !r->answer_id || (r->keep && !remember_input(c, x))) {
        return exchange_fail(x, 500, ERR_MEMORY, "", "Out of memory while reading the request.");
    }
    return r->previous ? ask(c, x) : STAGE_NEXT;
}

static void put(const exchange *x, const converse_state *c, const answer *a) {
    const request    *r = &x->request;
    str               response = {0};
    err               why = {0};
    conversation_turn turn = {.previous = r->previous, .input = c->input, .input_len = c->input_len};
    bool              good = x->speaks->write_answer(r, a, &response) && !response.failed &&
                conversation_name_of(&turn.name, r->answer_id, x->space, key_of(x));
    turn.response = response.data;
    turn.response_len = response.len;
    if (!good || !db_conversation_put(x->gateway->db, &turn, &why)) {
        log_warn("the answer %s is not kept: %s", r->answer_id, why.code ? why.text : "out of memory");
    }
    str_free(&response);
}

static void converse_up(stage *s, exchange *x) {
    const converse_state *c = x->state[s->index];
    if (!c || !x->request.keep || x->result != OUTCOME_OK || x->cut) {
        return;
    }
    if (!x->hit) {
        put(x, c, &x->answer);
        return;
    }
    answer stored = {0};
    err    why = {0};
    if (dialect_openai.read_answer(x->kind, x->hit->body, x->hit->len, &stored, &why)) {
        stored.usage = stored.usage.known ? stored.usage : x->answer.usage;
        put(x, c, &stored);
        answer_clear(&stored);
    }
}

static void converse_cancel(stage *s, exchange *x) {
    converse_state *c = x->state[s->index];
    c->left = true; /* the question's answer, which is on its way, ends the walk */
}

stage stage_converse = {.name = "converse", .down = converse_down, .up = converse_up, .cancel = converse_cancel};
