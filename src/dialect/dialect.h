/* dialect.h - how LLM APIs speak, and the neutral words between them.
 *
 * A dialect is one API in both directions: read a request, write a request, read an answer or a stream, write one.
 * serve/ uses it towards clients and backend/ towards providers; any dialect reaches any other through the neutral types
 * below. Nothing here does I/O. Strings and trees in a request live in the exchange's arena or in its parsed body.   */
#ifndef PARE_DIALECT_DIALECT_H
#define PARE_DIALECT_DIALECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

/* ---- a request ---- */

typedef enum request_kind { REQUEST_CHAT, REQUEST_COMPLETION, REQUEST_EMBEDDINGS, REQUEST_RERANK } request_kind;

typedef struct message {
    const char  *role;    /* "system", "developer", "user", "assistant", "tool" */
    const char  *content; /* text; text parts joined; NULL when there is none */
    const cJSON *json;    /* the whole message as the client sent it */
    bool         plain;   /* nothing but role and text */
} message;

typedef struct prompt { /* of a completion: text or ids */
    const char *text;
    int32_t    *ids;
    int         n_ids;
} prompt;

typedef enum tool_choice { TOOLS_AUTO, TOOLS_NONE, TOOLS_REQUIRED, TOOLS_NAMED } tool_choice;

typedef enum response_form { RESPONSE_TEXT, RESPONSE_JSON, RESPONSE_SCHEMA } response_form;

#define REQUEST_MAX_STOP     16
#define REQUEST_MAX_PRIORITY 100 /* either way */

typedef struct request {
    request_kind kind;
    const char  *model;
    message     *messages; /* chat */
    int          n_messages;
    prompt      *prompts; /* completion: one answer choice each; embeddings: the inputs; rerank: the documents */
    int          n_prompts;
    const cJSON *tools; /* array or NULL */

    int64_t     max_tokens; /* -1: not given */
    double      temperature, top_p, min_p, presence_penalty, frequency_penalty, repeat_penalty;
    int64_t     top_k;
    bool        has_seed;
    int64_t     seed;
    const char *stop[REQUEST_MAX_STOP];
    int         n_stop;
    bool        ignore_eos;
    bool        logprobs;
    int         top_logprobs; /* 0..20 */

    bool stream, include_usage;

    /* How the answer must look, and what else the chat template sees; by read_local. Trees and texts are the body's. */
    tool_choice   choice;   /* without tools: TOOLS_AUTO */
    const char   *tool;     /* TOOLS_NAMED: one of `tools` */
    bool          one_tool; /* at most one call: parallel_tool_calls is false */
    response_form form;
    const cJSON  *schema;         /* RESPONSE_SCHEMA */
    const char   *schema_place;   /* where in the request it stands */
    const char   *grammar;        /* GBNF; NULL: none. Never together with a form of JSON */
    const cJSON  *template_input; /* chat_template_kwargs: variables by name; NULL: none */
    const char   *effort;         /* reasoning_effort; NULL: not given */

    bool        base64;           /* embeddings: vectors as base64 of little-endian float32 */
    int64_t     dimensions;       /* embeddings: so many values of each, of length 1 again; 0: all */
    const char *query;            /* rerank */
    int64_t     top_n;            /* rerank: so many of the best; 0: all */
    bool        return_documents; /* rerank: the documents' texts stand in the answer */

    /* How a model of our own schedules it, never what it answers: in no cache key. */
    int         priority; /* smaller goes first; by read_local */
    bool        no_reuse; /* computes the whole prompt again; by read_local */
    const char *space;    /* whose stored prefixes it may share; NULL: nobody's name. Set by who admits the request */

    cJSON      *body; /* the parsed JSON; freed by request_free */
    const char *raw;  /* the client's bytes */
    size_t      raw_len;
} request;

void request_free(request *r); /* the cJSON tree; the rest dies with the arena */

/* ---- an answer ---- */

typedef struct usage {
    int64_t prompt, completion, cached, reasoning; /* tokens; cached is a part of prompt, reasoning of completion */
    bool    known;                                 /* somebody told us */
    bool    counted;                               /* pare counted, because the provider did not say */
} usage;

typedef struct choice {
    str    text, reasoning, refusal;
    cJSON *tool_calls; /* array in OpenAI's form, or NULL */
    cJSON *logprobs;   /* array of {token, logprob, bytes, top_logprobs}, or NULL */
    char   finish[24]; /* "stop", "length", "tool_calls", "content_filter"; "" while it is open */
} choice;

/* Assembled from events, or read whole. All of it is malloc'd: answer_clear frees. */
typedef struct answer {
    char                  id[64];
    char                  model[128];
    int64_t               created;
    choice               *choices;
    int                   n_choices;
    usage                 usage;
    char                 *raw; /* the provider's whole body in the dialect `raw_dialect`, when it came whole */
    size_t                raw_len;
    const struct dialect *raw_dialect;
} answer;

void answer_clear(answer *a);
bool answer_complete(const answer *a); /* every choice has a finish reason */

/* ---- what a backend says ---- */

/* How a model of our own came by its answer. Of several prompts the numbers are sums, and `miss` is that of the prompt
 * of which most had to be computed. */
typedef struct kv_report {
    int64_t     prompt, cached; /* tokens; cached: their keys and values were there */
    const char *miss;           /* why not more: "none", "new", "diverge", "evicted", "off" */
    int         preempted;      /* how often its memory went to older requests and was computed again */
    int64_t     slid;           /* tokens dropped from the middle of a full context */
} kv_report;

typedef enum event_kind {
    EVENT_DELTA, /* a piece of one choice; maybe its finish; maybe usage */
    EVENT_WHOLE, /* the whole answer at once: `whole`, which the receiver may move out of (and then must zero) */
    EVENT_DONE,  /* complete; usage as far as known. Final. */
    EVENT_ERROR  /* it failed: `error`, `status`. Final. */
} event_kind;

typedef struct event {
    event_kind            kind;
    int                   choice;
    const char           *text; /* NULL: none */
    size_t                text_len;
    const char           *reasoning;
    size_t                reasoning_len;
    const char           *refusal;
    size_t                refusal_len;
    const cJSON          *tool_calls; /* deltas in OpenAI's form: [{index, id, type, function: {name, arguments}}] */
    const cJSON          *logprobs;   /* array in the form of choice.logprobs */
    const char           *finish;     /* with the last delta of a choice */
    const usage          *usage;
    const char           *id, *model; /* as the provider names them; NULL: none */
    int64_t               created;
    /* The bytes this came from (the JSON after "data: "), so that the same dialect passes them on untouched. With the
     * first event of a payload only; further ones have raw_dialect alone. */
    const char           *raw;
    size_t                raw_len;
    const struct dialect *raw_dialect;
    answer               *whole;
    const err            *error;
    int                   status; /* HTTP status to hand on; 0: by error->code */
    const char           *body;   /* the provider's own error body, or NULL */
    size_t                body_len;
    const char           *body_type;   /* its content type */
    const char           *retry_after; /* header to hand on, or NULL */
    int64_t               queued_us;   /* EVENT_DONE of a local backend: time before its first step */
    const kv_report      *kv;          /* EVENT_DONE of a local backend, else NULL */
} event;

/* Adds a delta to the answer (any order of choices, bounded). */
bool answer_add(answer *a, const event *ev, err *e);

/* The HTTP status that says this, where no provider gave one. */
int error_status(err_code code);

/* ---- a dialect ---- */

typedef struct dialect {
    const char *name; /* "openai" */

    /* The client's side. */
    bool (*read_request)(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e);
    /* The members that only models of our own obey; for others they are unknown ones, which pass on unread. */
    bool (*read_local)(request *r, err *e);
    /* Everything that can change the answer and nothing that cannot, always in the same bytes; for the cache key. */
    bool (*canonical)(const request *r, str *out);
    bool (*write_answer)(request_kind kind, const answer *a, str *out);
    /* The answer to embeddings or rerank, whose request and usage (in `head`) it needs. values: [n_prompts][width], the
     * vectors, or with width 1 the documents' scores. Such an answer has no choices: it lives on as answer.raw. */
    bool (*write_values)(const request *r, const answer *head, const float *values, int width, str *out);
    /* One chunk as the JSON after "data: "; first: the first of this choice (OpenAI sends the role there). */
    bool (*write_chunk)(request_kind kind, const answer *head, const event *ev, bool first, str *out);
    /* The chunk that holds usage alone. */
    bool (*write_usage)(request_kind kind, const answer *head, const usage *u, str *out);
    bool (*write_error)(const err *e, int status, str *out);

    /* The provider's side. */
    /* The client's body with model and stream options replaced; everything else byte for byte where it can be. */
    bool (*write_request)(const request *r, const char *model, bool ask_usage, str *out);
    /* Keeps a copy of the body in out->raw. */
    bool (*read_answer)(request_kind kind, const char *body, size_t n, answer *out, err *e);
    /* One "data:" payload into zero or more events. *done: the stream said it is complete ("[DONE]"). An error inside
     * a stream fails with the provider's sentence. */
    bool (*read_chunk)(request_kind kind, const char *data, size_t n, void (*emit)(void *, const event *), void *ctx,
                       bool *done, err *e);
} dialect;

extern const dialect dialect_openai;

#endif
