/* local.h - the rooms of the local backend, for its own files only.
 *
 * local.c opens and closes it; local_tell.c says how it is; local_prompt.c turns requests into tokens; local_template.c
 * makes what the chat template sees; local_call.c carries one request through the engine; local_speech.c tells apart what
 * the model says; local_grammar.c says what it may say.                                                               */
#ifndef PARE_BACKEND_LOCAL_H
#define PARE_BACKEND_LOCAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "backend/backend.h"
#include "backend/local_embed.h"
#include "base/hash.h"
#include "dialect/speech.h"
#include "engine/engine.h"
#include "engine/guard.h"

/* How the chat template takes the tool calls of earlier answers; see local_template.c. */
typedef struct local_manners {
    bool text_arguments; /* as the text of an object, not as the object */
    bool empty_content;  /* "" where the client sent null or nothing beside them */
    bool null_content;   /* null where the client sent "" */
    bool full_tools;     /* with a description and parameters, where the client left them out */
    bool no_tools;       /* the template has no place for them */
} local_manners;

#define LOCAL_KEPT 16

typedef struct local_kept { /* the grammar of an earlier request */
    sha256   key;
    grammar *g; /* held; NULL: none */
    uint64_t used;
} local_kept;

typedef struct local_backend {
    backend       base; /* first */
    model        *m;
    engine       *engine;        /* NULL: the model writes no text */
    local_embeds *embeds;        /* NULL: it makes no embeddings */
    guard        *guard;         /* NULL without a tokenizer */
    size_t        longest_token; /* bytes; 0 without a tokenizer */
    bool          slide, share_all;
    speech_format speech;                  /* how the model marks reasoning and tool calls */
    int32_t       shown[SPEECH_MAX_MARKS]; /* control tokens that are such marks: those of reasoning first */
    int           n_shown_thoughts, n_shown;
    local_manners manners;
    local_kept    kept[LOCAL_KEPT]; /* the worker's */
    uint64_t      kept_clock;
    queue        *work;      /* calls whose prompts are to be made, for the worker thread */
    queue_item    last_work; /* tells the worker to end */
    pthread_t     worker;
    bool          started;
    atomic_bool   closing;
} local_backend;

/* What the engine takes of the options; its fingerprint is not among them. */
engine_options local_engine_options(const local_options *o);
/* As backend.fingerprint of a model that has this context, without loading it. */
bool local_fingerprint(const char *path, const void *data, size_t n, const local_options *o, int context, char out[65],
                       err *e);

/* The prompts of one request, on the worker thread. `which` is below local_prompt_count(r). *thinks, where it is asked
 * for: the answer begins inside the model's reasoning, which the template has opened. */
int  local_prompt_count(const request *r);
bool local_prompt_make(const local_backend *b, const request *r, int which, token_ids *out, bool *thinks, err *e);
/* How many of a made prompt's first tokens stay when the context slides: those of the system messages. */
int  local_prompt_keep(const local_backend *b, const request *r, const token_ids *made);

/* local_template.c */
cJSON        *local_template_input(const local_backend *b, const request *r, guard_mark *mark, err *e);
local_manners local_template_manners(const chat_template *t); /* found out by trying */

/* The answer must be a call of a tool. */
static inline bool local_must_call(const request *r) {
    return r->kind == REQUEST_CHAT && (r->choice == TOOLS_REQUIRED || r->choice == TOOLS_NAMED);
}

/* The tools that a request lets the model call; NULL: none. */
static inline const cJSON *local_tools(const request *r) {
    return r->choice == TOOLS_NONE ? NULL : r->tools;
}

/* local_grammar.c: what the answer must look like. On the worker's thread. */
typedef struct local_rule {
    grammar    *g;       /* held; NULL: anything */
    const char *trigger; /* from where on; NULL: from the beginning */
    const char *mark; /* opens the call, but a grammar cannot ask for it: the speech is told; NULL: none is missing */
    int32_t prefix;   /* the mark, a control token that is put behind the prompt, as if the model had said it. -1: none,
                            or the model reasons first */
} local_rule;
bool local_rule_make(local_backend *b, const request *r, bool thinks, local_rule *out, err *e);
void local_rules_free(local_backend *b); /* those that are kept */

/* local_speech.c: a choice's words on their way from the engine to the client, on the loop. `logprobs` goes with the
 * first event, `finish` with the last. */
typedef struct local_speech local_speech;

/* *out is NULL when text is all that the model can say to this request. Marks that are control tokens must be shown:
 * *shown says how many of b->shown. */
bool local_speech_open(const local_backend *b, const request *r, bool thinks, int *shown, local_speech **out, err *e);
/* `ends`: where in the text each token ended since the last time (reasoning tokens are counted by it). False: memory. */
bool local_speech_say(local_speech *s, const str *text, const str *ends, event ev, backend_event_fn fn, void *ctx);
/* The model calls, after its reasoning if it does that, but does not write the mark that opens a call. */
void local_speech_expect(local_speech *s, const char *mark);
int64_t local_speech_reasoned(const local_speech *s); /* tokens */
void    local_speech_close(local_speech *s);

/* backend_ops.metrics, .status and .healthy. */
bool local_metrics(backend *const *all, int n, str *out);
bool local_status(backend *b, str *out);
bool local_healthy(backend *b, err *why);
/* False, with a sentence, when work waits and nothing has come of it for long. */
bool local_gets_on(const char *name, const engine_stats *s, int64_t now_us, err *why);

/* backend_ops.start and .cancel. */
backend_call *local_call_start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                               err *e);
void          local_call_cancel(backend_call *call);

/* What the worker does with an item of `work`: makes the prompts, submits the jobs. */
void local_call_prepare(queue_item *item);

#endif
