/* stage.h - a stage and the pipeline that walks an exchange through the stages.
 *
 * down: towards the backend. A stage passes on (NEXT), answers (ANSWERED: x->hit or x->answer is set and the walk turns
 * round here), waits for something (WAIT: it calls pipeline_resume later, on the loop, once) or fails (FAILED: x->failed).
 * up: on the way back, for every stage that was entered, in reverse order, whatever the outcome.
 * cancel: the client went away while this stage waits; it must call pipeline_resume with STAGE_FAILED soon.
 * keep: asked before a cancel: true when others wait for this answer too, so the work goes on without its client.     */
#ifndef PARE_STAGE_STAGE_H
#define PARE_STAGE_STAGE_H

#include "stage/exchange.h"

typedef enum { STAGE_NEXT, STAGE_ANSWERED, STAGE_WAIT, STAGE_FAILED } stage_verdict;

typedef struct stage {
    const char *name; /* "recall", as it appears in metrics and headers */
    stage_verdict (*down)(struct stage *, exchange *);
    void (*up)(struct stage *, exchange *);
    void (*cancel)(struct stage *, exchange *);
    bool (*keep)(struct stage *, exchange *);
    int index; /* place in the pipeline; x->state[index] is this stage's */
} stage;

#define PIPELINE_MAX_STAGES 8

typedef struct pipeline {
    stage *stages[PIPELINE_MAX_STAGES];
    int    count;
} pipeline;

bool pipeline_add(pipeline *p, stage *s);

void pipeline_start(const pipeline *p, exchange *x);
void pipeline_resume(exchange *x, stage_verdict v);
/* The client is gone. sink->finish is still called, once, when the work has stopped. */
void pipeline_cancel(exchange *x);

/* For the answer stage: a delta or a whole answer on its way to the client. */
void pipeline_event(exchange *x, const event *ev);

exchange     *exchange_new(size_t first_block); /* zeroed, with its arena */
void          exchange_free(exchange *x);
/* Sets failed and status; for a stage that then returns STAGE_FAILED. */
stage_verdict exchange_fail(exchange *x, int status, err_code code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- budget.c: for the account and the answer stage ---- */

/* What is held of the client's budget becomes what it has cost. Once the cost is known; whatever the outcome. */
void budget_settle(exchange *x);
/* Counts a delta of a stream before it is passed on. False: it would pass the budget, and x->over_budget is set. */
bool budget_passes(exchange *x, const event *ev);
/* Behind the last delta that was passed on: the ends that the client must see, and the tokens that are billed. */
void budget_end_stream(exchange *x);

/* The stages of this house; each takes what it needs from the gateway. */
extern stage stage_account, stage_admit, stage_converse, stage_recall, stage_budget, stage_route, stage_answer;

#endif
