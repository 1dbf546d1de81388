/* answer.c - hands the request to its backend and the backend's events to the pipeline. */
#include <string.h>

#include "base/clock.h"
#include "stage/estimate.h"
#include "stage/stage.h"

/* As snprintf with "%s%s%s" would, for words that every request needs. */
static void put_words(char *out, size_t size, const char *a, const char *b, const char *c) {
    const char *const words[] = {a, b, c};
    size_t            at = 0;
    for (int i = 0; i < 3; i++) {
        size_t n = strnlen(words[i], size - 1 - at);
        memcpy(out + at, words[i], n);
        at += n;
    }
    out[at] = '\0';
}

static void take_usage(exchange *x, const usage *u) {
    if (u && u->known) {
        x->answer.usage = *u;
    }
}

static void fail(exchange *x, const event *ev) {
    if (ev->error) {
        x->failed = *ev->error;
    }
    if (x->failed.code == ERR_NONE) {
        err_set(&x->failed, ERR_INTERNAL, "The backend %s failed without saying why.", x->backend->name);
    }
    x->status = ev->status ? ev->status : error_status(x->failed.code);
    x->cut = true;
    if (ev->body && dialect_same(ev->raw_dialect, x->speaks)) {
        x->error_body = arena_memdup(x->memory, ev->body, ev->body_len);
        x->error_body_len = x->error_body ? ev->body_len : 0;
        x->error_type = arena_strdup(x->memory, ev->body_type);
    }
    x->retry_after = arena_strdup(x->memory, ev->retry_after);
}

/* Who of a group speaks. The names live as long as the backends; the tries, which do not, are copied. */
static void take_speaker(exchange *x, const event *ev) {
    if (ev->by && (x->by != ev->by || x->by_model != ev->by_model)) {
        x->by = ev->by;
        x->by_model = ev->by_model;
        put_words(x->answered_by, sizeof x->answered_by, ev->by_kind, ":", ev->by);
    }
    if (ev->n_attempts > 0) {
        x->attempts = (const attempt *)(const void *)arena_memdup(x->memory, ev->attempts,
                                                                  (size_t)ev->n_attempts * sizeof *ev->attempts);
        x->n_attempts = x->attempts ? ev->n_attempts : 0;
    }
}

/* A clean end, however the call came to its own. */
static void end_at_budget(exchange *x) {
    budget_end_stream(x);
    pipeline_resume(x, STAGE_ANSWERED);
}

static void take_names(exchange *x, const event *ev) {
    const char *model = ev->whole ? ev->whole->model : ev->model, *id = ev->whole ? ev->whole->id : ev->id;
    if (!x->said_model && model && *model) {
        x->said_model = arena_strdup(x->memory, model);
    }
    if (!x->said_id && id && *id) {
        x->said_id = arena_strdup(x->memory, id);
    }
}

static void on_event(void *ctx, const event *ev) {
    exchange *x = ctx;
    take_speaker(x, ev);
    take_names(x, ev);
    switch (ev->kind) {
    case EVENT_DELTA:
    case EVENT_WHOLE:
        if (x->over_budget) {
            return;
        }
        if (ev->kind == EVENT_DELTA && !budget_passes(x, ev)) {
            x->backend->ops->cancel(x->call); /* its final event ends the stream */
            return;
        }
        pipeline_event(x, ev);
        if (ev->kind == EVENT_DELTA) {
            take_usage(x, ev->usage);
        }
        return;
    case EVENT_DONE:
        x->call = NULL;
        if (x->over_budget) {
            end_at_budget(x);
            return;
        }
        take_usage(x, ev->usage);
        x->queue_us = ev->queued_us;
        x->has_kv = ev->kv != NULL;
        x->kv = ev->kv ? *ev->kv : x->kv;
        if (x->cut && x->sink->lacks &&
            x->sink->lacks(x)) { /* a part must not be taken for all, here or in the ledger */
            pipeline_resume(
                x, exchange_fail(x, 502, ERR_UPSTREAM, "", "The answer is larger than pare keeps: ask for less."));
            return;
        }
        pipeline_resume(x, STAGE_ANSWERED);
        return;
    case EVENT_ERROR:
        x->call = NULL;
        if (x->over_budget) {
            end_at_budget(x);
            return;
        }
        take_usage(x, ev->usage);
        fail(x, ev);
        pipeline_resume(x, STAGE_FAILED);
        return;
    }
}

static stage_verdict answer_down(stage *s, exchange *x) {
    (void)s;
    backend *b = x->backend;
    x->answered_stage = "answer";
    put_words(x->answered_by, sizeof x->answered_by, b->ops->kind, ":", b->name);
    put_words(x->answer.id, sizeof x->answer.id, x->kind == REQUEST_CHAT ? "chatcmpl" : "cmpl", "-", x->id);
    put_words(x->answer.model, sizeof x->answer.model, x->target->name, "", "");
    x->answer.created = x->arrived_wall_us / 1000000;
    x->request.traceparent = x->traceparent;
    x->request.tracestate = x->tracestate;
    x->asked_us = clock_us();
    x->call = b->ops->start(b, x->loop, &x->request, x->target->upstream, on_event, x, &x->failed);
    if (!x->call) {
        x->status = error_status(x->failed.code);
        return STAGE_FAILED;
    }
    return STAGE_WAIT;
}

/* What the provider did not count, we count, and say so: also for an answer that was cut short, since its tokens were
 * made and will be on the invoice. An upstream that refused with a status of its own made none. */
static void answer_up(stage *s, exchange *x) {
    (void)s;
    usage *u = &x->answer.usage;
    bool   produced = x->result == OUTCOME_OK || x->answer.n_choices > 0 || x->result == OUTCOME_CANCELLED;
    if (!u->known && produced && x->target) {
        u->prompt = estimate_prompt(&x->request);
        u->completion = estimate_answer(&x->answer);
        u->cached = u->reasoning = 0;
        u->known = u->counted = true;
    }
}

static void answer_cancel(stage *s, exchange *x) {
    (void)s;
    if (x->call) {
        x->backend->ops->cancel(x->call); /* its final event resumes the walk */
    }
}

stage stage_answer = {.name = "answer", .down = answer_down, .up = answer_up, .cancel = answer_cancel};
