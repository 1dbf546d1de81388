#include "stage/stage.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

exchange *exchange_new(size_t first_block) {
    arena *memory = arena_new(first_block);
    if (!memory) {
        return NULL;
    }
    exchange *x = arena_alloc(memory, sizeof *x);
    if (!x) {
        arena_free(memory);
        return NULL;
    }
    memset(x, 0, offsetof(exchange, failed)); /* a fourth of it are the texts of an error that seldom comes */
    x->failed.code = ERR_NONE;
    x->failed.text[0] = x->failed.param[0] = '\0';
    x->memory = memory;
    return x;
}

void exchange_free(exchange *x) {
    request_free(&x->request);
    answer_clear(&x->answer);
    if (x->hit) {
        cached_release(x->hit);
    }
    arena_free(x->memory);
}

stage_verdict exchange_fail(exchange *x, int status, err_code code, const char *param, const char *format, ...) {
    char    text[sizeof x->failed.text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_at(&x->failed, code, param, "%s", text);
    x->status = status;
    return STAGE_FAILED;
}

bool pipeline_add(pipeline *p, stage *s) {
    if (p->count == PIPELINE_MAX_STAGES) {
        return false;
    }
    s->index = p->count;
    p->stages[p->count++] = s;
    return true;
}

/* The walk turns round: every stage that was entered sees the exchange once more, the innermost first. */
static void turn(exchange *x) {
    x->done_us = clock_us();
    if (x->result == OUTCOME_OPEN) {
        switch (x->failed.code) {
        case ERR_NONE:
            x->result = OUTCOME_OK;
            break;
        case ERR_CANCELLED:
            x->result = OUTCOME_CANCELLED;
            break;
        case ERR_INVALID:
        case ERR_NOT_FOUND:
        case ERR_DENIED:
        case ERR_LIMIT:
        case ERR_CONTEXT:
        case ERR_UNSUPPORTED:
            x->result = OUTCOME_REFUSED;
            break;
        default:
            x->result = OUTCOME_ERROR;
        }
    }
    for (int i = x->depth - 1; i >= 0; i--) {
        stage *s = x->pipeline->stages[i];
        if (s->up) {
            s->up(s, x);
        }
    }
    x->sink->finish(x);
}

static void walk(exchange *x) {
    const pipeline *p = x->pipeline;
    while (x->depth < p->count) {
        stage *s = p->stages[x->depth++];
        switch (s->down(s, x)) {
        case STAGE_NEXT:
            break;
        case STAGE_WAIT:
            x->waiting = true;
            return;
        case STAGE_ANSWERED:
            turn(x);
            return;
        case STAGE_FAILED:
            if (x->failed.code == ERR_NONE) {
                exchange_fail(x, 500, ERR_INTERNAL, "", "The %s stage failed without saying why; this is a bug.",
                              s->name);
            }
            turn(x);
            return;
        }
    }
    exchange_fail(x, 500, ERR_INTERNAL, "", "No stage answered this request; this is a bug.");
    turn(x);
}

void pipeline_start(const pipeline *p, exchange *x) {
    x->pipeline = p;
    x->depth = 0;
    walk(x);
}

void pipeline_resume(exchange *x, stage_verdict v) {
    if (!x->waiting) {
        return;
    }
    x->waiting = false;
    if (v == STAGE_NEXT) {
        walk(x);
    } else {
        turn(x);
    }
}

void pipeline_cancel(exchange *x) {
    if (!x->waiting || x->detached) {
        return; /* nothing waits: finish is on its way or has been called */
    }
    for (int i = 0; i < x->depth; i++) {
        stage *s = x->pipeline->stages[i];
        if (s->keep && s->keep(s, x)) {
            x->detached = true;
            return;
        }
    }
    stage *s = x->pipeline->stages[x->depth - 1];
    s->cancel(s, x);
}

void pipeline_event(exchange *x, const event *ev) {
    if (x->first_us == 0 && ev->kind != EVENT_DONE) {
        x->first_us = clock_us();
    }
    if (ev->kind == EVENT_WHOLE) {
        answer_clear(&x->answer);
        x->answer = *ev->whole;
        memset(ev->whole, 0, sizeof *ev->whole);
        return;
    }
    err why = {0};
    if (!answer_add(&x->answer, ev, &why)) {
        x->cut = true; /* too large to keep; the client still gets its stream, where it is told from the events */
    }
    if (!x->detached && x->sink->event) {
        x->sink->event(x, ev);
    }
}
