/* answer.c - hands the request to its backend and the backend's events to the pipeline. */
#include <stdio.h>
#include <string.h>

#include "stage/estimate.h"
#include "stage/stage.h"

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
    if (ev->body) {
        x->error_body = arena_memdup(x->memory, ev->body, ev->body_len);
        x->error_body_len = x->error_body ? ev->body_len : 0;
        x->error_type = arena_strdup(x->memory, ev->body_type);
    }
    x->retry_after = arena_strdup(x->memory, ev->retry_after);
}

static void on_event(void *ctx, const event *ev) {
    exchange *x = ctx;
    switch (ev->kind) {
    case EVENT_DELTA:
    case EVENT_WHOLE:
        pipeline_event(x, ev);
        if (ev->kind == EVENT_DELTA) {
            take_usage(x, ev->usage);
        }
        return;
    case EVENT_DONE:
        x->call = NULL;
        take_usage(x, ev->usage);
        x->queue_us = ev->queued_us;
        x->has_kv = ev->kv != NULL;
        x->kv = ev->kv ? *ev->kv : x->kv;
        pipeline_resume(x, STAGE_ANSWERED);
        return;
    case EVENT_ERROR:
        x->call = NULL;
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
    snprintf(x->answered_by, sizeof x->answered_by, "%s:%s", b->ops->kind, b->name);
    snprintf(x->answer.id, sizeof x->answer.id, "%s-%s", x->kind == REQUEST_CHAT ? "chatcmpl" : "cmpl", x->id);
    snprintf(x->answer.model, sizeof x->answer.model, "%s", x->target->name);
    x->answer.created = x->arrived_wall_us / 1000000;
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
