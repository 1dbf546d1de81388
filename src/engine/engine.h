/* engine.h - a running model: jobs in, text out.
 *
 * One scheduler thread an engine; each step serves all running sequences and chunks of waiting prompts. Jobs may be
 * submitted and cancelled from any thread. Callbacks run on the scheduler's thread: they must be short and never wait.
 * After a successful submit exactly one `done` comes, cancelled or not.                                             */
#ifndef PARE_ENGINE_ENGINE_H
#define PARE_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/grammar.h"
#include "engine/kv.h"
#include "engine/sample.h"
#include "model/model.h"
#include "tensor/pool.h"

typedef struct engine     engine;
typedef struct engine_job engine_job;

typedef struct engine_options {
    int         sequences;   /* running at once; 0: 16 */
    int         context;     /* tokens a sequence, prompt and answer; 0: the model's, at most 8192 */
    int         queue;       /* waiting jobs at most; 0: 1024 */
    int         step_tokens; /* most tokens in one step; 0: 128 */
    int64_t     step_us; /* a step that serves decoding sequences takes no chunk of prefill that would make it longer;
                                0: 1.8 times what the same step takes without one, at least 20 ms; see pace.h */
    kv_type     kv;
    size_t      kv_bytes;      /* 0: see kv.h */
    const char *kv_disk;       /* directory; NULL: none */
    size_t      kv_disk_bytes; /* 0: see kv.h */
    const char *fingerprint;   /* of the model's file; needed for kv_disk */
} engine_options;

typedef struct engine_size { /* what the options and their defaults come to */
    int sequences, context, queue, step_tokens;
} engine_size;

/* False with a sentence when they are out of range for a model of this shape. */
bool engine_size_of(const model_shape *m, const char *name, const engine_options *o, engine_size *out, err *e);

/* The model and the pool outlive the engine. */
engine *engine_open(const model *m, pool *p, const engine_options *o, err *e);
void    engine_close(engine *g); /* cancels what runs, waits for its thread */
int     engine_context(const engine *g);

typedef struct engine_piece { /* one generated token; the one that ends the answer (EOS) comes without a piece */
    const char    *text;      /* whole characters that no stop string can take back; may be empty */
    size_t         text_len;
    const sampled *choice; /* the token and, where asked for, its alternatives */
} engine_piece;

typedef enum engine_finish { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_ERROR } engine_finish;

typedef struct engine_result {
    engine_finish finish;
    const char   *stop_text;                        /* the stop string that ended it, or NULL */
    int           prompt_tokens, completion_tokens; /* of the prompt as it was sent */
    int           cached_tokens; /* of the prompt, taken from the cache and not computed, up to the first preemption */
    kv_miss       miss;          /* why not more */
    int           preempted;     /* how often its memory was taken for older jobs and computed again */
    int           slid;          /* tokens dropped from the middle because `slide` was asked for */
    int64_t       queued_us;     /* submit to first prefill */
    int64_t       first_us;      /* submit to first token */
    int64_t       total_us;
    const char   *text; /* what was still held back; may be empty */
    size_t        text_len;
    const err    *error; /* FINISH_ERROR */
} engine_result;

typedef struct engine_request {
    const int32_t     *tokens; /* copied */
    int                n_tokens;
    int                max_tokens; /* < 0: as many as the context holds; with `slide` without end */
    bool               ignore_eos;
    sampling           sampling;
    const char *const *stop; /* copied; n_stop <= 16 */
    int                n_stop;
    kv_scope           scope;    /* prefixes are shared within it */
    bool               no_reuse; /* neither take stored prefixes nor wait for one */
    uint64_t           client;   /* fairness: waiting clients are served by tokens had, not by requests sent */
    int                priority; /* smaller goes first; 0 is usual */
    bool               slide;    /* a full context drops its older half (but for the first slide_keep tokens) and goes
                                    on, computing the rest again; without it the answer ends with FINISH_LENGTH */
    int                slide_keep;
    bool               fresh_text; /* the answer is a text of its own, as in a chat: SPM's first space is dropped */
    const int32_t *shown; /* control tokens whose text belongs to the answer, as marks of tool calls and reasoning do;
                                 others have none. Not copied: they outlive the job */
    int            n_shown;
    grammar *grammar; /* NULL: none; held. The answer is one that it allows, or ends with FINISH_LENGTH. What it forces
                            comes without a forward pass of its own (log-probability 0), unless logprobs were asked for */
    const char *trigger; /* NULL, or copied: anything may come until the text holds it, and then the grammar begins */
    void (*piece)(void *ctx, const engine_piece *p);
    void (*done)(void *ctx, const engine_result *r);
    void *ctx;
} engine_request;

/* Fails with ERR_INVALID when the prompt is empty, an id is out of range or (without `slide`) the prompt leaves no room in
 * the context (the sentence names both numbers), with ERR_UNSUPPORTED for a grammar without a tokenizer, with ERR_BUSY when the queue is full. The job belongs to the engine: it is gone after
 * its `done` has returned, and must not be used from then on. */
engine_job *engine_submit(engine *g, const engine_request *r, err *e);
/* Safe from any thread as long as `done` has not been called; the caller's own lock keeps that true. */
void        engine_cancel(engine_job *job);

#define ENGINE_BUCKETS 16

typedef struct engine_histogram { /* bucket i counts values <= its bound; the last one all */
    int64_t count[ENGINE_BUCKETS];
    double  sum;
} engine_histogram;

extern const double engine_time_bounds[ENGINE_BUCKETS];  /* seconds: 0.001 .. 60, +Inf */
extern const double engine_batch_bounds[ENGINE_BUCKETS]; /* tokens: 1 .. 16384, +Inf */

typedef struct engine_stats { /* since the start; read without stopping the engine */
    int64_t          steps, prompt_tokens, completion_tokens, jobs, cancelled, preempted;
    int              running, decoding, waiting, sequences;
    int64_t          backlog_tokens; /* prompt tokens that wait to be computed */
    double           backlog_s;      /* the time that takes at the measured rate */
    int64_t          last_token_us;  /* monotonic; 0: none yet */
    int64_t          last_step_us; /* end of the last step, or when work last came to an idle engine; 0: neither yet */
    kv_usage         kv;
    engine_histogram first_token, inter_token, queued, step; /* seconds */
    engine_histogram batch;                                  /* tokens of a step */
} engine_stats;
void engine_stats_read(const engine *g, engine_stats *out);

#endif
