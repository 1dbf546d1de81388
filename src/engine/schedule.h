/* schedule.h - what an engine and its jobs are, for the files that make it run.
 *
 * engine.c opens, submits and tells; schedule.c is the thread and its step; admission.c decides who has memory. The
 * lock guards the waiting line and `closing`; the rest belongs to the thread, but for the atomics.                   */
#ifndef PARE_ENGINE_SCHEDULE_H
#define PARE_ENGINE_SCHEDULE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "engine/engine.h"
#include "engine/fairness.h"
#include "engine/forward.h"
#include "engine/histogram.h"
#include "engine/kv.h"
#include "engine/mask_ahead.h"
#include "engine/pace.h"
#include "engine/text.h"

#define MOST_PRIORITY (1 << 20) /* either way; beyond it all are the same */

typedef enum job_state {
    JOB_PAUSED,  /* in line, or in a slot without memory */
    JOB_LOADING, /* begun in the cache; blocks are on their way from disk */
    JOB_RUNNING  /* may take tokens */
} job_state;

struct engine_job {
    fair_ticket    place; /* first, so that a ticket is its job */
    engine        *g;
    arena         *memory; /* holds the job itself */
    engine_request ask;    /* its pointers are the caller's and, but for `shown`, are not used after submit */
    text_out       text;
    atomic_bool    cancelled;

    int32_t   *tokens; /* prompt and answer; room for all that may come */
    int        n;      /* known; those at [position, n) are to be computed */
    int        generated;
    mask_next *mask;   /* NULL: no grammar */
    int        forced; /* of the newest tokens: those that the grammar forced after the last one drawn */

    job_state state;
    int       slot;
    int64_t   rank;             /* by priority, then admission: smaller goes first and keeps its memory longer */
    int       position;         /* tokens in the cache */
    int       reserved;         /* positions that have blocks */
    int64_t   try_at, try_step; /* the memory was short: not again before so many blocks are spare, or this step */

    int  want; /* tokens in this step */
    bool planned;
    bool late; /* its mask was not there when its logits were: its last token is computed again in the next step */

    int64_t standing;   /* tokens its client had when this step began */
    int64_t unpaid;     /* tokens to be charged to the client */
    int     charged_to; /* position; what is computed again after a preemption was charged before */

    int     cached, preempted, slid;
    kv_miss miss;
    int64_t submitted_us, started_us, first_us, newest_us;
};

typedef struct wanted { /* a row of logits */
    int     index;      /* in jobs[]: whom it is for */
    int     slot;
    sampled choice;
} wanted;

typedef struct telling { /* written by the thread (jobs, line_tokens and last_step_us under the lock), read by any */
    _Atomic int64_t steps, prompt_tokens, completion_tokens, jobs, cancelled, preempted;
    _Atomic int64_t last_token_us, last_step_us;
    _Atomic int64_t line_tokens, begun_tokens; /* prompt tokens to be computed, of the line and of those in slots */
    _Atomic int64_t token_ns;                  /* of step time a prompt token */
    atomic_int      waiting, running, decoding;
    _Atomic int64_t masks_late, mask_wait_us; /* masks that were not there in time, and the time they were waited for */
    histogram       first_token, inter_token, queued, step, batch;
} telling;

struct engine {
    const model *m;
    pool        *p;
    int          sequences, context, queue, step_tokens;

    kv_cache *kv;
    forward  *pass;
    sampler **samplers; /* one a slot */
    pace     *pace;
    pthread_t thread;
    bool      started;

    pthread_mutex_t lock;
    pthread_cond_t  work;
    fair_line      *line;
    bool            closing;
    atomic_bool     cancel_seen; /* somebody cancelled: look through the line */
    telling         told;
    pthread_mutex_t tree_lock; /* guards what is made for the first grammar, on its submitter's thread */
    vocab_tree     *tree;
    mask_ahead     *ahead;

    /* The scheduler thread's own. */
    engine_job   **jobs; /* in slots, by rank */
    int            n_jobs;
    int64_t        admitted;
    int           *free_slots;
    int            n_free;
    bool           stuck; /* nothing could be computed in the last step: wait a little for the disk */
    forward_token *batch;
    int            n_batch, n_decoding, n_forced;
    wanted        *rows;
    int            n_rows;
    const float   *logits;
};

void *schedule_thread(void *engine);
void  job_free(engine_job *j);

/* ---- admission.c ---- */

/* Lets those go on whose memory was taken or has come from disk, older ones first, then jobs of the line. */
void admission_run(engine *g);
/* Blocks for the job's next `want` tokens, if need be those of the youngest; lowers `want` when there are fewer. */
void admission_secure(engine *g, int index);
/* Gives the blocks back; what it has computed may stay in the cache. */
void admission_release(engine *g, engine_job *j);

static inline void told_add(_Atomic int64_t *to, int64_t n) {
    atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

static inline void told_set(_Atomic int64_t *to, int64_t n) {
    atomic_store_explicit(to, n, memory_order_relaxed);
}

#endif
