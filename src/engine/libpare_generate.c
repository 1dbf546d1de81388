/* libpare_generate.c - from a request to its answer, told on the caller's thread.
 *
 * The engine's thread only puts text into a buffer. The caller, who waits, takes what has gathered and calls back with
 * it, so that a callback may wait for a terminal or a socket and no other request stands still.                      */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "engine/libpare_parts.h"

typedef struct answer {
    waiting             w;
    str                 text, taken; /* under w.lock; the caller's own */
    bool                no_memory;
    int                 stop;
    int64_t             begun_us;
    const pare_request *request;
    engine_result       result;
    err                 failed;
} answer;

/* ---- on the engine's thread ---- */

static void stop_job(void *job) {
    engine_cancel(job);
}

static void on_piece(void *ctx, const engine_piece *p) {
    answer *a = ctx;
    if (p->text_len == 0) {
        return;
    }
    pthread_mutex_lock(&a->w.lock);
    if (!str_add(&a->text, p->text, p->text_len)) {
        a->no_memory = true;
        stop_job(a->w.job);
    }
    pthread_cond_signal(&a->w.change);
    pthread_mutex_unlock(&a->w.lock);
}

static int number_of(const pare_request *r, const char *stop) {
    for (int i = 0; stop && i < r->stop_count; i++) {
        if (strcmp(r->stop[i], stop) == 0) {
            return i;
        }
    }
    return -1;
}

static void on_done(void *ctx, const engine_result *r) {
    answer *a = ctx;
    pthread_mutex_lock(&a->w.lock);
    a->result = *r;
    a->stop = number_of(a->request, r->stop_text);
    if (r->text_len > 0 && !str_add(&a->text, r->text, r->text_len)) {
        a->no_memory = true;
    }
    if (r->error) {
        a->failed = *r->error;
    }
    pthread_mutex_unlock(&a->w.lock);
    waiting_done(&a->w);
}

/* ---- on the caller's ---- */

/* Calls back until all is told. True when the callback stopped it. */
static bool tell_pieces(answer *a, const asking *q) {
    bool stopped = false;
    pthread_mutex_lock(&a->w.lock);
    for (;;) {
        while (!a->w.done && a->text.len == 0) {
            pthread_cond_wait(&a->w.change, &a->w.lock);
        }
        if (a->text.len == 0) {
            break;
        }
        str empty = a->taken;
        a->taken = a->text;
        a->text = empty;
        pthread_mutex_unlock(&a->w.lock);
        bool kept = stopped || !q->whole || str_add(q->whole, a->taken.data, a->taken.len);
        if (!stopped && q->piece && q->piece(q->user, a->taken.data, a->taken.len) != 0) {
            stopped = true;
            waiting_cancel(&a->w);
        }
        str_clear(&a->taken);
        pthread_mutex_lock(&a->w.lock);
        a->no_memory = a->no_memory || !kept;
    }
    pthread_mutex_unlock(&a->w.lock);
    return stopped;
}

/* *ran: the engine has had it; it has not when it was cancelled before. */
static bool run(engine *g, answer *a, const engine_request *r, const asking *q, bool *ran, err *e) {
    pthread_mutex_lock(&a->w.lock); /* pieces wait until the job is known */
    *ran = !a->w.cancelled;
    engine_job *job = *ran ? engine_submit(g, r, e) : NULL;
    if (job) {
        waiting_started(&a->w, job);
    }
    pthread_mutex_unlock(&a->w.lock);
    if (!job) {
        a->result.finish = FINISH_CANCELLED;
        return !*ran;
    }
    if (tell_pieces(a, q)) {
        a->result.finish = FINISH_CANCELLED;
    }
    if (a->failed.code != ERR_NONE) {
        *e = a->failed;
        return false;
    }
    return !a->no_memory || err_set(e, ERR_MEMORY, "out of memory for an answer");
}

static void tell_usage(const answer *a, bool ran, pare_usage *out) {
    static const int finish[] = {[FINISH_STOP] = PARE_FINISH_STOP,
                                 [FINISH_LENGTH] = PARE_FINISH_LENGTH,
                                 [FINISH_CANCELLED] = PARE_FINISH_CANCELLED,
                                 [FINISH_ERROR] = PARE_FINISH_CANCELLED};
    pare_usage       told = {.finish = finish[a->result.finish],
                             .stop = a->result.finish == FINISH_STOP ? a->stop : -1,
                             .total_us = clock_us() - a->begun_us};
    if (ran) {
        told.prompt_tokens = a->result.prompt_tokens;
        told.cached_tokens = a->result.cached_tokens;
        told.completion_tokens = a->result.completion_tokens;
        told.first_us = a->result.first_us;
    }
    libpare_write(&libpare_usage, out, &told);
}

/* ---- the request ---- */

static bool within(const char *name, double value, double least, double most, err *e) {
    return (value >= least && value <= most) ||
           err_set(e, ERR_INVALID, "%s is %g; it goes from %g to %g", name, value, least, most);
}

static bool check_request(const pare_request *r, err *e) {
    if (r->max_tokens < 0 || r->top_k < 0 || r->stop_count < 0) {
        return err_set(e, ERR_INVALID, "max_tokens, top_k and stop_count must not be negative; 0 is the default");
    }
    if (r->stop_count > 0 && !r->stop) {
        return err_set(e, ERR_INVALID, "stop_count is %d, and stop is NULL", r->stop_count);
    }
    for (int i = 0; i < r->stop_count; i++) {
        if (!r->stop[i] || !r->stop[i][0]) {
            return err_set(e, ERR_INVALID, "stop[%d] is %s; leave it out", i, r->stop[i] ? "empty" : "NULL");
        }
    }
    if (r->grammar && r->json_schema) {
        return err_set(e, ERR_INVALID, "a request has a grammar or a json_schema, not both");
    }
    if (r->grammar_after && !r->grammar && !r->json_schema) {
        return err_set(e, ERR_INVALID, "grammar_after is set, but neither grammar nor json_schema");
    }
    return within("temperature", r->temperature, 0, 2, e) && within("top_p", r->top_p, 0, 1, e) &&
           within("min_p", r->min_p, 0, 1, e) && within("repeat_penalty", r->repeat_penalty, 0, 100, e) &&
           within("presence_penalty", r->presence_penalty, -2, 2, e) &&
           within("frequency_penalty", r->frequency_penalty, -2, 2, e);
}

static sampling sampling_of(const pare_request *r) {
    sampling s = sampling_default();
    s.temperature = r->temperature;
    s.top_k = r->top_k;
    s.top_p = r->top_p > 0 ? r->top_p : 1;
    s.min_p = r->min_p;
    s.repeat_penalty = r->repeat_penalty > 0 ? r->repeat_penalty : 1;
    s.presence_penalty = r->presence_penalty;
    s.frequency_penalty = r->frequency_penalty;
    s.seed = r->seed;
    return s;
}

/* *out stays NULL where none is asked for. */
static bool grammar_of(const pare_request *r, grammar **out, err *e) {
    *out = NULL;
    if (r->grammar) {
        *out = grammar_from_gbnf(r->grammar, strlen(r->grammar), e);
        return *out || err_prefix(e, "grammar");
    }
    if (r->json_schema) {
        cJSON *schema = json_parse(r->json_schema, strlen(r->json_schema), JSON_MAX_DEPTH, e);
        *out = schema ? grammar_from_schema(schema, &(schema_options){.space = JSON_SPACE_OPTIONAL}, e) : NULL;
        cJSON_Delete(schema);
        return *out || err_prefix(e, "json_schema");
    }
    return true;
}

bool libpare_ask(pare_model *m, const asking *q, pare_usage *usage, err *e) {
    const pare_request *r = q->request;
    answer              a = {.request = r, .stop = -1, .begun_us = clock_us()};
    grammar            *rule;
    bool                ran = false;
    engine             *g = check_request(r, e) ? libpare_engine(m, e) : NULL;
    if (!g || !grammar_of(r, &rule, e)) {
        return false;
    }
    engine_request ask = {.tokens = q->tokens,
                          .n_tokens = q->n_tokens,
                          .max_tokens = r->max_tokens > 0 ? r->max_tokens : -1,
                          .sampling = sampling_of(r),
                          .stop = r->stop,
                          .n_stop = r->stop_count,
                          .priority = r->priority,
                          .fresh_text = q->fresh,
                          .shown = m->controls,
                          .n_shown = r->control_text ? m->n_controls : 0,
                          .grammar = rule,
                          .trigger = r->grammar_after,
                          .piece = on_piece,
                          .done = on_done,
                          .ctx = &a};
    waiting_begin(&a.w, r->canceller, stop_job);
    bool ok = run(g, &a, &ask, q, &ran, e);
    waiting_end(&a.w);
    grammar_free(rule);
    str_free(&a.text);
    str_free(&a.taken);
    if (ok) {
        tell_usage(&a, ran, usage);
    }
    return ok;
}

/* ---- pare.h ---- */

static bool generate(pare_model *m, const char *prompt, const pare_request *request, pare_piece piece, void *user,
                     str *whole, pare_usage *usage, err *e) {
    pare_request r;
    token_ids    ids = {0};
    if (!libpare_read(&libpare_request, request, &r, e) || !libpare_may_write(&libpare_usage, usage, e)) {
        return false;
    }
    if (!prompt) {
        return err_set(e, ERR_INVALID, "there is no prompt");
    }
    if (!m->weights->tokens) {
        return err_set(e, ERR_UNSUPPORTED, "%s has no vocabulary, so it can read no text", m->weights->name);
    }
    encode_options o = {.add_special = true, .parse_special = r.control_prompt != 0};
    bool           ok = tokenizer_encode(m->weights->tokens, prompt, strlen(prompt), o, &ids, e) &&
              (ids.count <= INT_MAX || err_set(e, ERR_LIMIT, "the prompt has %zu tokens", ids.count));
    asking q = {&r, ids.ids, (int)ids.count, false, piece, user, whole};
    ok = ok && libpare_ask(m, &q, usage, e);
    token_ids_free(&ids);
    return ok;
}

int pare_generate(pare_model *m, const char *prompt, const pare_request *request, pare_piece piece, void *user,
                  pare_usage *usage, char *error, size_t error_size) {
    err e = {0};
    return generate(m, prompt, request, piece, user, NULL, usage, &e) || libpare_tell(&e, error, error_size);
}

char *pare_generate_text(pare_model *m, const char *prompt, const pare_request *request, pare_usage *usage, char *error,
                         size_t error_size) {
    err   e = {0};
    str   whole = {0};
    char *text = NULL;
    if (generate(m, prompt, request, NULL, NULL, &whole, usage, &e)) {
        text = whole.len > 0 ? str_take(&whole) : calloc(1, 1); /* an empty answer is a text, too */
        if (!text) {
            err_set(&e, ERR_MEMORY, "out of memory for an answer");
        }
    }
    if (!text) {
        libpare_tell(&e, error, error_size);
    }
    str_free(&whole);
    return text;
}
