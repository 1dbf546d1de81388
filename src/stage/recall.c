/* recall.c - the same question before? Then the same answer, at once and for nothing.
 *
 * The key is the SHA-256 of the client's namespace, the fingerprint of the backend and the canonical request. What is
 * remembered is complete: a stream that broke, an error, a refusal or an answer that was cut off upstream is not; one
 * that ended at the request's own max_tokens is what was asked for.                                                  */
#include <string.h>

#include "base/clock.h"
#include "stage/flights.h"
#include "stage/stage.h"

typedef struct recall_state {
    sha256    key;
    bool      keyed;
    exchange *x;
    flight   *leads;
    follower  follows;
    bool      following, left;
} recall_state;

static bool make_key(exchange *x, sha256 *out) {
    str text = {0};
    str_reserve(&text, x->body_len + 256);
    /* Each part ends in a NUL, which none of them contains: no two different lists of parts give the same bytes. */
    str_add(&text, x->space, strlen(x->space) + 1);
    str_add(&text, x->target->backend->fingerprint, strlen(x->target->backend->fingerprint) + 1);
    str_add(&text, x->target->upstream, strlen(x->target->upstream) + 1);
    bool good = x->speaks->canonical(&x->request, &text) && !text.failed;
    if (good) {
        *out = sha256_of(text.data, text.len);
    }
    str_free(&text);
    return good;
}

static void hit(exchange *x, const cached *found) {
    x->hit = found;
    x->answered_stage = "recall.exact";
    memcpy(x->answered_by, "recall.exact", sizeof "recall.exact");
    x->first_us = clock_us();
    x->answer.usage = (usage){.prompt = found->prompt_tokens, .completion = found->completion_tokens, .known = true};
}

static void landed(void *ctx, const cached *result) {
    recall_state *r = ctx;
    exchange     *x = r->x;
    r->following = false;
    if (r->left) {
        if (result) {
            cached_release(result);
        }
        pipeline_resume(x, exchange_fail(x, 499, ERR_CANCELLED, "", "The client went away."));
    } else if (result) {
        hit(x, result);
        pipeline_resume(x, STAGE_ANSWERED);
    } else {
        pipeline_resume(x, STAGE_NEXT); /* the leader brought nothing to share: each asks for itself */
    }
}

static void abandoned(void *ctx) {
    recall_state *r = ctx;
    r->x->detached = false;
    pipeline_cancel(r->x);
}

static stage_verdict recall_down(stage *s, exchange *x) {
    gateway *g = x->gateway;
    if (!g->cache) {
        return STAGE_NEXT;
    }
    recall_state *r = arena_zero(x->memory, 1, sizeof *r);
    if (!r) {
        return STAGE_NEXT; /* no memory to remember with is no reason not to answer */
    }
    x->state[s->index] = r;
    r->x = x;
    r->keyed = make_key(x, &r->key);
    if (!r->keyed) {
        return STAGE_NEXT;
    }
    uint64_t      landed_before = flights_landed(g->flights);
    int64_t       now = x->arrived_wall_us;
    const cached *found = x->no_cache ? NULL : cache_get(g->cache, &r->key, now);
    if (found) {
        hit(x, found);
        return STAGE_ANSWERED;
    }
    if (x->no_cache || x->no_store) {
        return STAGE_NEXT; /* asked for an answer of its own */
    }
    r->follows = (follower){.home = x->loop, .ctx = r, .landed = landed};
    bool out_of_memory = false;
    r->leads = flight_join(g->flights, &r->key, &r->follows, x->loop, abandoned, r, &out_of_memory);
    if (!r->leads && !out_of_memory) {
        r->following = true;
        return STAGE_WAIT;
    }
    /* Between the look-up and the join another leader may have landed: its answer is in the cache by now. */
    bool again = r->leads && flights_landed(g->flights) != landed_before;
    found = again ? cache_get(g->cache, &r->key, now) : NULL;
    if (found) {
        hit(x, found);
        return STAGE_ANSWERED;
    }
    return STAGE_NEXT;
}

static bool worth_keeping(const exchange *x) {
    const answer *a = &x->answer;
    if (x->kind == REQUEST_EMBEDDINGS || x->kind == REQUEST_RERANK) { /* has no choices, and is whole or an error */
        return x->result == OUTCOME_OK && !x->cut && !x->no_store && a->raw;
    }
    if (x->result != OUTCOME_OK || x->cut || x->no_store || a->n_choices == 0 || !answer_complete(a)) {
        return false;
    }
    if (a->narrowed) { /* who asks again would get less than who asked first */
        return false;
    }
    for (int i = 0; i < a->n_choices; i++) {
        const choice *c = &a->choices[i];
        if (c->refusal.len > 0 || strcmp(c->finish, "content_filter") == 0) {
            return false;
        }
        if (strcmp(c->finish, "length") == 0) {
            int64_t asked = x->request.max_tokens;
            /* Ended early all the same: the context was full, or the provider has a lower limit. */
            bool short_of_it = a->n_choices == 1 && a->usage.known && !a->usage.counted && a->usage.completion < asked;
            if (asked < 0 || short_of_it || request_most(&x->request) < asked) { /* or the budget had one */
                return false;
            }
        }
    }
    return true;
}

static cached *entry_of(const exchange *x, const recall_state *r) {
    const answer *a = &x->answer;
    str           text = {0};
    const char   *body = a->raw;
    size_t        len = a->raw_len;
    if (!a->raw || !dialect_same(a->raw_dialect, &dialect_openai)) {
        if (!dialect_openai.write_answer(&x->request, a, &text) || text.failed) {
            str_free(&text);
            return NULL;
        }
        body = text.data;
        len = text.len;
    }
    cached *e = cached_new(len);
    if (e) {
        memcpy(e->body, body, len);
        e->key = r->key;
        e->created_us = clock_wall_us();
        e->expires_us = e->created_us + x->gateway->cache_ttl_us;
        e->prompt_tokens = a->usage.prompt;
        e->completion_tokens = a->usage.completion;
        /* Zeroed before, and cut where they are too long; strncpy would zero them once more. */
        memcpy(e->model, x->target->name, strnlen(x->target->name, sizeof e->model - 1));
        memcpy(e->space, x->space, strnlen(x->space, sizeof e->space - 1));
    }
    str_free(&text);
    return e;
}

static void recall_up(stage *s, exchange *x) {
    recall_state *r = x->state[s->index];
    if (!r || !r->keyed) {
        return;
    }
    const cached *share = x->hit;
    cached       *made = NULL;
    if (!x->hit && worth_keeping(x)) {
        made = entry_of(x, r);
        if (made) {
            cache_put(x->gateway->cache, made);
            if (x->gateway->db) {
                db_cache_put(x->gateway->db, made);
            }
            share = made;
        }
    }
    if (r->leads) {
        flight_land(x->gateway->flights, r->leads, share);
        r->leads = NULL;
    }
    if (made) {
        cached_release(made);
    }
}

static void recall_cancel(stage *s, exchange *x) {
    recall_state *r = x->state[s->index];
    if (!r->following) {
        return;
    }
    r->left = true;
    if (flight_leave(x->gateway->flights, &r->follows)) {
        landed(r, NULL);
    }
}

static bool recall_keep(stage *s, exchange *x) {
    recall_state *r = x->state[s->index];
    return r && r->leads && flight_keep(x->gateway->flights, r->leads);
}

stage stage_recall = {
    .name = "recall", .down = recall_down, .up = recall_up, .cancel = recall_cancel, .keep = recall_keep};
