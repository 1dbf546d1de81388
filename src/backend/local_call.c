/* local_call.c - one request on its way through the engine.
 *
 * Three threads know a call: its loop (start, cancel, events), the worker (prompts, jobs) and the engine's scheduler
 * (pieces, ends). They meet under the call's lock, held for a few instructions. Text gathers in the choices until the
 * loop comes for it, so a loop that is behind gets several tokens at once. The call ends on the loop, when the worker
 * is through with it and no job is open; at that moment nobody else holds it.                                        */
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "backend/local.h"
#include "base/hash.h"
#include "base/utf8.h"

#define LEAST_LOGPROB (-9999.0) /* what OpenAI writes for impossible tokens; JSON has no infinity */

typedef struct local_choice {
    backend_call        *call;
    int                  index;
    token_ids            prompt; /* the worker's, until it is submitted */
    engine_job          *job;    /* while it may be cancelled */
    bool                 over;
    str                  text; /* not fetched by the loop yet */
    str                  ends; /* where in it each token ended, as uint32_t; with a speech only */
    cJSON               *logprobs;
    const char          *finish;
    bool                 fresh; /* in call->fresh */
    struct local_choice *next_fresh;
    str                  shown, shown_ends; /* the loop's: it swaps them with `text` and `ends` */
    local_speech        *speech;            /* made by the worker, then the loop's; NULL: all is text */
    local_rule           rule;              /* the worker's */
    int                  n_marks;           /* control tokens that the engine shows */
} local_choice;

struct backend_call {
    loop_task        task; /* first */
    queue_item       work; /* in the worker's queue */
    local_backend   *b;
    loop            *l;
    backend_event_fn fn;
    void            *ctx;
    const request   *r; /* lives until the final event */

    pthread_mutex_t lock;
    bool            posted; /* the task is in the loop's mailbox */
    bool            cancelled;
    bool            submitted; /* the worker is through */
    int             open;      /* jobs without their `done` */
    err             failed;    /* code ERR_NONE: not */
    usage           used;
    kv_report       kv;
    int             most_computed; /* tokens of the prompt that kv.miss speaks of */
    int64_t         queued_us;
    local_choice   *fresh; /* choices with something for the loop */

    int          n_choices;
    local_choice choices[];
};

/* ---- the loop's side ---- */

static void free_call(backend_call *c) {
    for (int i = 0; i < c->n_choices; i++) {
        token_ids_free(&c->choices[i].prompt);
        str_free(&c->choices[i].text);
        str_free(&c->choices[i].ends);
        str_free(&c->choices[i].shown);
        str_free(&c->choices[i].shown_ends);
        local_speech_close(c->choices[i].speech);
        grammar_free(c->choices[i].rule.g);
        cJSON_Delete(c->choices[i].logprobs);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void end_call(backend_call *c) {
    event ev = {.kind = EVENT_DONE, .usage = &c->used, .queued_us = c->queued_us, .kv = &c->kv};
    if (c->cancelled) {
        err_set(&c->failed, ERR_CANCELLED, "the request was cancelled");
    }
    if (c->failed.code != ERR_NONE) {
        ev.kind = EVENT_ERROR;
        ev.error = &c->failed;
    }
    for (int i = 0; i < c->n_choices; i++) {
        c->used.reasoning += c->choices[i].speech ? local_speech_reasoned(c->choices[i].speech) : 0;
    }
    c->used.known = ev.kind == EVENT_DONE || c->used.prompt > 0;
    c->fn(c->ctx, &ev);
    free_call(c);
}

typedef struct fetched { /* what a choice had when the loop came */
    local_choice *choice;
    cJSON        *logprobs;
    const char   *finish;
} fetched;

/* With the lock held. */
static bool fetch(backend_call *c, fetched *out) {
    local_choice *choice = c->fresh;
    if (!choice) {
        return false;
    }
    c->fresh = choice->next_fresh;
    choice->fresh = false;
    str empty = choice->shown, no_ends = choice->shown_ends;
    choice->shown = choice->text;
    choice->text = empty;
    choice->shown_ends = choice->ends;
    choice->ends = no_ends;
    *out = (fetched){choice, choice->logprobs, choice->finish};
    choice->logprobs = NULL;
    choice->finish = NULL;
    return true;
}

static void fail(backend_call *c, const err *why);

/* An event may make the receiver cancel the call; only the loop sets `cancelled`. */
static void tell(void *ctx, const event *ev) {
    backend_call *c = ctx;
    if (!c->cancelled) {
        c->fn(c->ctx, ev);
    }
}

static void show_speech(backend_call *c, local_choice *choice, const event *ev) {
    if (!local_speech_say(choice->speech, &choice->shown, &choice->shown_ends, *ev, tell, c)) {
        err why = {0};
        err_set(&why, ERR_MEMORY, "out of memory for the text of an answer");
        pthread_mutex_lock(&c->lock);
        fail(c, &why);
        pthread_mutex_unlock(&c->lock);
    }
}

static void show(backend_call *c, const fetched *f) {
    local_choice *choice = f->choice;
    event         ev = {.kind = EVENT_DELTA, .choice = choice->index, .logprobs = f->logprobs, .finish = f->finish};
    if (choice->speech) {
        show_speech(c, choice, &ev);
    } else {
        ev.text = choice->shown.len > 0 ? choice->shown.data : NULL;
        ev.text_len = choice->shown.len;
        if (ev.text || ev.logprobs || ev.finish) {
            tell(c, &ev);
        }
    }
    str_clear(&choice->shown);
    str_clear(&choice->shown_ends);
    cJSON_Delete(f->logprobs);
}

static void on_loop(loop_task *task) {
    backend_call *c = (backend_call *)task;
    fetched       f;
    pthread_mutex_lock(&c->lock);
    c->posted = false;
    bool last = c->submitted && c->open == 0;
    while (fetch(c, &f)) {
        pthread_mutex_unlock(&c->lock);
        show(c, &f);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    if (last) {
        end_call(c);
    }
}

/* ---- the other threads' side; `with the lock held` unless said otherwise ---- */

static void freshen(local_choice *choice) {
    if (!choice->fresh) {
        choice->fresh = true;
        choice->next_fresh = choice->call->fresh;
        choice->call->fresh = choice;
    }
}

/* Unlocks, and lets the loop know. Once it knows, the call may be gone. */
static void unlock_and_post(backend_call *c) {
    bool post = !c->posted;
    c->posted = true;
    pthread_mutex_unlock(&c->lock);
    if (post) {
        loop_post(c->l, &c->task);
    }
}

static void cancel_jobs(backend_call *c) {
    for (int i = 0; i < c->n_choices; i++) {
        if (c->choices[i].job) {
            engine_cancel(c->choices[i].job);
        }
    }
}

static void fail(backend_call *c, const err *why) {
    if (c->failed.code == ERR_NONE) {
        c->failed = *why;
    }
    cancel_jobs(c);
}

/* ---- log-probabilities, in OpenAI's form ---- */

/* The bytes as text: what is not UTF-8, and NUL, which cJSON's strings cannot hold, becomes U+FFFD. */
static cJSON *token_string(const char *bytes, size_t n) {
    str text = {0};
    str_reserve(&text, 3 * n + 1);
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        char     out[4];
        at += utf8_decode(bytes + at, n - at, &cp);
        str_add(&text, out, utf8_encode(cp ? cp : 0xFFFD, out));
    }
    cJSON *string = cJSON_CreateString(text.data && text.len ? text.data : "");
    str_free(&text);
    return string;
}

static cJSON *logprob_entry(const model *m, const token_logprob *p) {
    const char *bytes = "";
    size_t      n = m->tokens ? tokenizer_piece(m->tokens, p->id, true, &bytes) : 0;
    cJSON      *entry = cJSON_CreateObject();
    cJSON_AddItemToObject(entry, "token", token_string(bytes, n));
    cJSON_AddNumberToObject(entry, "logprob", (double)p->logprob > LEAST_LOGPROB ? (double)p->logprob : LEAST_LOGPROB);
    cJSON *list = cJSON_AddArrayToObject(entry, "bytes");
    for (size_t i = 0; i < n; i++) {
        cJSON_AddItemToArray(list, cJSON_CreateNumber((unsigned char)bytes[i]));
    }
    return entry;
}

static cJSON *logprobs_of(const model *m, const sampled *s) {
    cJSON *entry = logprob_entry(m, &s->token);
    cJSON *top = cJSON_AddArrayToObject(entry, "top_logprobs");
    for (int i = 0; i < s->n_top; i++) {
        cJSON_AddItemToArray(top, logprob_entry(m, &s->top[i]));
    }
    return entry;
}

/* ---- on the scheduler's thread ---- */

static void on_piece(void *ctx, const engine_piece *p) {
    local_choice *choice = ctx;
    backend_call *c = choice->call;
    cJSON        *logprob = c->r->logprobs ? logprobs_of(c->b->m, p->choice) : NULL;
    if (p->text_len == 0 && !logprob && !choice->speech) {
        return;
    }
    pthread_mutex_lock(&c->lock);
    str_add(&choice->text, p->text, p->text_len);
    if (choice->speech) {
        uint32_t end = (uint32_t)choice->text.len;
        str_add(&choice->ends, &end, sizeof(end));
    }
    if (logprob) {
        if (!choice->logprobs) {
            choice->logprobs = cJSON_CreateArray();
        }
        if (!cJSON_AddItemToArray(choice->logprobs, logprob)) {
            cJSON_Delete(logprob);
        }
    }
    freshen(choice);
    unlock_and_post(c);
}

static void report(backend_call *c, const engine_result *r) {
    static const char *const misses[] = {[KV_MISS_NONE] = "none",
                                         [KV_MISS_NEW] = "new",
                                         [KV_MISS_DIVERGE] = "diverge",
                                         [KV_MISS_EVICTED] = "evicted",
                                         [KV_MISS_OFF] = "off"};
    int                      computed = r->prompt_tokens - r->cached_tokens;
    if (computed > c->most_computed || !c->kv.miss) {
        c->most_computed = computed;
        c->kv.miss = misses[r->miss];
    }
    c->kv.prompt += r->prompt_tokens;
    c->kv.cached += r->cached_tokens;
    c->kv.preempted += r->preempted;
    c->kv.slid += r->slid;
}

static void on_done(void *ctx, const engine_result *r) {
    local_choice *choice = ctx;
    backend_call *c = choice->call;
    pthread_mutex_lock(&c->lock);
    choice->job = NULL;
    choice->over = true;
    str_add(&choice->text, r->text, r->text_len);
    c->used.prompt += r->prompt_tokens;
    c->used.completion += r->completion_tokens;
    c->used.cached += r->cached_tokens;
    report(c, r);
    c->queued_us = r->queued_us > c->queued_us ? r->queued_us : c->queued_us;
    err why = {0};
    if (r->finish == FINISH_ERROR && r->error) {
        fail(c, r->error);
    } else if (r->finish == FINISH_CANCELLED || r->finish == FINISH_ERROR) {
        err_set(&why, ERR_CANCELLED, "%s stopped before the answer was complete", c->b->base.name);
        fail(c, &why);
    } else if (choice->text.failed || choice->ends.failed) {
        err_set(&why, ERR_MEMORY, "out of memory for the text of an answer");
        fail(c, &why);
    } else {
        choice->finish = r->finish == FINISH_STOP ? "stop" : "length";
    }
    freshen(choice);
    c->open--;
    unlock_and_post(c);
}

/* ---- on the worker's thread ---- */

static float in_float(double x) {
    return (float)x;
}

static sampling sampling_of(const request *r) {
    sampling s = {.temperature = in_float(r->temperature),
                  .top_k = r->top_k > INT_MAX ? INT_MAX : (int)r->top_k,
                  .top_p = in_float(r->top_p),
                  .min_p = in_float(r->min_p),
                  .presence_penalty = in_float(r->presence_penalty),
                  .frequency_penalty = in_float(r->frequency_penalty),
                  .repeat_penalty = in_float(r->repeat_penalty),
                  .seed = (uint64_t)r->seed,
                  .top_logprobs = r->logprobs ? r->top_logprobs : -1};
    if (!r->has_seed) {
        random_bytes(&s.seed, sizeof(s.seed));
    }
    return s;
}

/* Hit timing tells what others have asked: prefixes are shared within a request's space only, unless configured. The
 * hash has no seed, since blocks on disk outlive the process. */
static kv_scope scope_of(const local_backend *b, const char *space) {
    kv_scope scope;
    str      text = {0};
    str_addf(&text, "%s:%s", b->share_all ? "all" : "space", b->share_all ? "" : space);
    sha256 sum = sha256_of(text.data ? text.data : "", text.len);
    memcpy(scope.bytes, sum.bytes, sizeof(scope.bytes));
    if (text.failed) { /* nobody's */
        random_bytes(scope.bytes, sizeof(scope.bytes));
    }
    str_free(&text);
    return scope;
}

/* With a sliding context nothing else would end an answer. */
static int most_tokens(const backend_call *c) {
    int64_t asked = c->r->max_tokens;
    if (asked < 0 && c->b->slide) {
        return engine_context(c->b->engine);
    }
    return asked > INT_MAX ? INT_MAX : (int)asked;
}

static bool submit(backend_call *c, local_choice *choice, err *e) {
    const request *r = c->r;
    const char    *space = r->space ? r->space : "";
    engine_request ask = {.tokens = choice->prompt.ids,
                          .n_tokens = (int)choice->prompt.count,
                          .max_tokens = most_tokens(c),
                          .ignore_eos = r->ignore_eos,
                          .sampling = sampling_of(r),
                          .stop = r->stop,
                          .n_stop = r->n_stop,
                          .scope = scope_of(c->b, space),
                          .no_reuse = r->no_reuse,
                          .client = hash64(space, strlen(space), hash_seed()),
                          .priority = r->priority,
                          .slide = c->b->slide,
                          .slide_keep = c->b->slide ? local_prompt_keep(c->b, r, &choice->prompt) : 0,
                          .fresh_text = r->kind == REQUEST_CHAT,
                          .shown = c->b->shown,
                          .n_shown = choice->n_marks,
                          .grammar = choice->rule.g,
                          .trigger = choice->rule.trigger,
                          .piece = on_piece,
                          .done = on_done,
                          .ctx = choice};
    pthread_mutex_lock(&c->lock);
    c->open++; /* before the engine can be done with it */
    pthread_mutex_unlock(&c->lock);
    engine_job *job = engine_submit(c->b->engine, &ask, e);
    pthread_mutex_lock(&c->lock);
    c->open -= job == NULL;
    if (job && !choice->over) {
        choice->job = job;
        if (c->cancelled || c->failed.code != ERR_NONE) {
            engine_cancel(job);
        }
    }
    pthread_mutex_unlock(&c->lock);
    token_ids_free(&choice->prompt);
    return job != NULL;
}

static bool wanted(backend_call *c) {
    pthread_mutex_lock(&c->lock);
    bool yes = !c->cancelled && c->failed.code == ERR_NONE && !atomic_load(&c->b->closing);
    pthread_mutex_unlock(&c->lock);
    return yes;
}

static bool add_mark(local_choice *choice, err *e) {
    if (choice->rule.mark) {
        local_speech_expect(choice->speech, choice->rule.mark);
    }
    return choice->rule.prefix < 0 || token_ids_add(&choice->prompt, choice->rule.prefix) ||
           err_set(e, ERR_MEMORY, "out of memory for a prompt");
}

/* All prompts first: a bad one costs no computation. */
static bool prepare(backend_call *c, err *e) {
    for (int i = 0; i < c->n_choices; i++) {
        if (!wanted(c)) {
            return err_set(e, ERR_CANCELLED, "%s is shutting down", c->b->base.name);
        }
        local_choice *choice = &c->choices[i];
        bool          thinks = false;
        if (!local_prompt_make(c->b, c->r, i, &choice->prompt, &thinks, e) ||
            !local_speech_open(c->b, c->r, thinks, &choice->n_marks, &choice->speech, e) ||
            !local_rule_make(c->b, c->r, thinks, &choice->rule, e) || !add_mark(choice, e)) {
            return false;
        }
    }
    for (int i = 0; i < c->n_choices && c->r->count_only; i++) {
        c->used.prompt += (int64_t)c->choices[i].prompt.count; /* no job is open: nobody else writes there */
    }
    for (int i = 0; i < c->n_choices && !c->r->count_only && wanted(c); i++) {
        if (!submit(c, &c->choices[i], e)) {
            return false;
        }
    }
    return true;
}

void local_call_prepare(queue_item *item) {
    backend_call *c = (backend_call *)(void *)((char *)item - offsetof(backend_call, work));
    err           e = {0};
    bool          ok = prepare(c, &e);
    pthread_mutex_lock(&c->lock);
    if (!ok) {
        fail(c, &e);
    }
    c->submitted = true;
    unlock_and_post(c);
}

/* ---- backend_ops ---- */

backend_call *local_call_start(backend *b, loop *l, const request *r, const char *model, backend_event_fn fn, void *ctx,
                               err *e) {
    (void)model; /* the backend holds one */
    local_backend *local = (local_backend *)b;
    int            n = local_prompt_count(r);
    if (n < 1) {
        err_set(e, ERR_INVALID, "the request has no prompt");
        return NULL;
    }
    if (r->max_tokens == 0) {
        err_at(e, ERR_INVALID, "max_tokens", "max_tokens is 0; ask for at least 1 token");
        return NULL;
    }
    backend_call *c = calloc(1, sizeof(*c) + (size_t)n * sizeof(c->choices[0]));
    if (!c) {
        err_set(e, ERR_MEMORY, "out of memory for a request");
        return NULL;
    }
    c->task.run = on_loop;
    c->b = local;
    c->l = l;
    c->fn = fn;
    c->ctx = ctx;
    c->r = r;
    c->n_choices = n;
    pthread_mutex_init(&c->lock, NULL);
    for (int i = 0; i < n; i++) {
        c->choices[i].call = c;
        c->choices[i].index = i;
    }
    queue_put(local->work, &c->work);
    return c;
}

void local_call_cancel(backend_call *c) {
    pthread_mutex_lock(&c->lock);
    c->cancelled = true;
    cancel_jobs(c);
    pthread_mutex_unlock(&c->lock);
}
