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

/* ---- a request ----
 *
 * Whatever dialect a client speaks, `body` is the neutral form: a request of OpenAI's chat completions (or completions,
 * embeddings, rerank), with these members besides, which other dialects have and OpenAI's has not:
 *   on a part of a content, and on a tool   cache_control: {"type": "ephemeral", "ttl": "5m" or "1h"}
 *   on an assistant's message               reasoning_content: text; reasoning_signature: text that goes back with it (of
 *                                           several blocks too: dialect/anthropic_thoughts.c);
 *                                           reasoning_redacted: text that only the provider reads
 *   on a tool's message                     is_error: true; content may be an array of parts, images too
 *   at the top                              top_k; thinking: {"type": "enabled" | "adaptive" | "disabled", "budget_tokens"}
 * Images are image_url parts (data: URLs hold bytes), sounds input_audio, documents file: as OpenAI has them.
 * A dialect that cannot carry a member names it: see `drops`.                                                        */

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

/* What a provider's dialect cannot carry. Where dropping is allowed it is left out and listed, else the request fails with
 * its name. Hints (cache_control, metadata) change no answer: they are always left out, and listed. */
typedef struct drops {
    bool allowed;
    char names[256]; /* "logit_bias, seed", for x-pare-dropped */
} drops;
/* False with ERR_UNSUPPORTED and e->param = name, when it must not be dropped. `target`: "Anthropic's API". d may be NULL:
 * not allowed. */
bool drop_member(drops *d, const char *name, const char *target, err *e);
void drop_hint(drops *d, const char *name);

#define REQUEST_MAX_STOP     16
#define REQUEST_MAX_PRIORITY 100 /* either way */
#define REQUEST_MAX_PASSED   4

/* Who pays is asked before a request is tried once more while, or after, a try of it that may be billed. TRY_LATER: `later`
 * comes once, on the loop, never from within; until then the request must live. */
typedef enum try_verdict { TRY_NO, TRY_YES, TRY_LATER } try_verdict;

typedef struct try_leave {
    try_verdict (*ask)(void *ctx, void (*later)(void *of, bool granted), void *of);
    void *ctx;
} try_leave;

typedef struct passed_header { /* a client's header that goes on to a provider of the same dialect */
    const char *name, *value;
} passed_header;

typedef struct request {
    request_kind kind;
    const char  *model;
    message     *messages; /* chat */
    int          n_messages;
    prompt      *prompts; /* completion: one answer choice each; embeddings: the inputs; rerank: the documents */
    int          n_prompts;
    const cJSON *tools; /* array or NULL */

    int64_t     max_tokens; /* -1: not given */
    int64_t     n;          /* answers asked for; 1 */
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
    int  priority;     /* smaller goes first; by read_local */
    bool no_reuse;     /* computes the whole prompt again; by read_local */
    bool count_only;   /* the prompt's tokens are counted (usage.prompt) and none is made; models of our own alone */
    const char *space; /* whose stored prefixes it may share; NULL: nobody's name. Set by who admits the request */

    /* A conversation that is kept (OpenAI's responses): what comes before, and whether this one is kept as well. */
    const char *previous; /* id of the answer that this one follows; NULL: none */
    bool        keep;
    const char *answer_id; /* what this answer is called then; NULL: made from the answer's own. A stored answer that is
                              given again must not keep the name of the first one. Set by the stage that keeps it */

    int64_t       most_tokens;     /* what the budget still allows to be made; goes to the provider where it is below
                                  max_tokens. 0: no limit. Set by the budget's stage */
    int64_t       prompt_estimate; /* tokens, for a dialect whose stream begins with them; 0: not known */
    drops        *drops;           /* NULL: nothing may be dropped */
    passed_header passed[REQUEST_MAX_PASSED];
    int           n_passed;
    const char   *traceparent, *tracestate; /* headers that go to every provider (W3C Trace Context); NULL: none */

    const try_leave *leave; /* NULL: further tries cost nobody what may not be spent */

    cJSON                *body; /* in the neutral form; freed by request_free */
    const char           *raw;  /* the client's bytes, in the dialect `from` */
    size_t                raw_len;
    const struct dialect *from;   /* NULL: OpenAI's */
    cJSON                *client; /* the client's own tree, where body is not it; freed by request_free; may be NULL */
    bool                  narrowed; /* body has no place for some of what `messages` and `system` in `client` say */
} request;

/* The most tokens that may be made: max_tokens and most_tokens; -1: nobody says. */
static inline int64_t request_most(const request *r) {
    return r->most_tokens > 0 && (r->max_tokens < 0 || r->most_tokens < r->max_tokens) ? r->most_tokens : r->max_tokens;
}

void request_free(request *r); /* the cJSON trees; the rest dies with the arena */

/* ---- an answer ---- */

typedef enum usage_tier { TIER_STANDARD, TIER_BATCH, TIER_FLEX, TIER_PRIORITY } usage_tier;

/* Tokens as the invoice has them. Parts of prompt that do not overlap: cached, write_5m, write_1h; audio_in and image_in
 * may be cached as well (audio_cached says how many of the audio ones). Parts of completion: reasoning, audio_out. */
typedef struct usage {
    int64_t    prompt, completion, cached, reasoning;
    int64_t    write_5m, write_1h; /* written to the provider's cache, for five minutes or an hour */
    int64_t    audio_in, audio_cached, image_in, audio_out;
    int64_t    searches; /* of the provider's own tools, billed by the piece; also rerank's search units */
    usage_tier tier;
    bool       known;   /* somebody told us */
    bool       counted; /* pare counted, because the provider did not say */
} usage;

typedef struct choice {
    str    text, reasoning, refusal;
    str    signature;  /* of the reasoning: goes back with it in the next request; opaque */
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
    bool                  narrowed; /* the provider said what has no place here and is in its own bytes alone */
} answer;

void answer_clear(answer *a);
/* Keeps a copy of the provider's own bytes, which pass on to clients of the same dialect. */
bool answer_keep_raw(answer *a, const char *body, size_t n, const struct dialect *of, err *e);
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

/* One try at a provider that was not the answer and may be on the invoice: a hedge that lost, a stream that broke. */
typedef struct attempt {
    const char *backend, *model; /* names as in the configuration, and the provider's */
    usage       usage;           /* known, or counted by who made the attempt's events into an answer */
    int         status;          /* HTTP; 0: none came */
    const char *why;             /* "hedge", "retry", "fallback" */
} attempt;

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
    const char           *signature; /* of the reasoning */
    size_t                signature_len;
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
    bool                  narrowed; /* see answer */
    answer               *whole;
    const err            *error;
    int                   status; /* HTTP status to hand on; 0: by error->code */
    const char           *body;   /* the provider's own error body, or NULL */
    size_t                body_len;
    const char           *body_type;   /* its content type */
    const char           *retry_after; /* header to hand on, or NULL */
    bool                  begun;       /* EVENT_ERROR: an answer had begun to come, and may be on the invoice */
    int64_t               queued_us;   /* EVENT_DONE of a local backend: time before its first step */
    const kv_report      *kv;          /* EVENT_DONE of a local backend, else NULL */
    /* Of a backend that stands for several (backend/group.h), on each event: who of them speaks, and what he calls the
     * model; NULL: the backend that was asked. With the final event also what else was tried. */
    const char           *by, *by_kind, *by_model;
    const attempt        *attempts;
    int                   n_attempts;
} event;

/* Adds a delta to the answer (any order of choices, bounded). */
bool answer_add(answer *a, const event *ev, err *e);

/* The HTTP status that says this, where no provider gave one. */
int error_status(err_code code);

/* ---- a dialect ---- */

/* Where a request goes. Texts are the configuration's; `model` is written into paths percent-encoded. */
typedef struct place_of {
    request_kind kind;
    const char  *base;        /* base_url without a slash at its end */
    const char  *model;       /* the provider's name */
    const char  *api_version; /* Azure's; NULL: the dialect's own */
    bool         stream;
} place_of;

typedef struct dialect {
    const char           *name; /* "openai" */
    const struct dialect *as;   /* whose bodies these are, where only addresses differ (Azure); NULL: its own */

    /* ---- the client's side; NULL where a dialect is spoken to providers alone ---- */

    /* The client's body into the neutral form. */
    bool (*read_request)(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e);
    /* The members that only models of our own obey; for others they are unknown ones, which pass on unread. */
    bool (*read_local)(request *r, err *e);
    /* Everything that can change the answer and nothing that cannot, always in the same bytes; for the cache key. Of the
     * neutral form: the same question has the same key in every dialect. */
    bool (*canonical)(const request *r, str *out);
    bool (*write_answer)(const request *r, const answer *a, str *out);
    /* The answer to embeddings or rerank, whose request and usage (in `head`) it needs. values: [n_prompts][width], the
     * vectors, or with width 1 the documents' scores. Such an answer has no choices: it lives on as answer.raw. */
    bool (*write_values)(const request *r, const answer *head, const float *values, int width, str *out);
    bool (*write_error)(const err *e, int status, str *out);

    /* A stream, as whole server-sent events with their empty lines. `state`: `writing` bytes, zeroed before the first call;
     * owns nothing. head: the answer as far as it has grown, this event included. */
    size_t writing;
    bool (*write_event)(const request *r, void *state, const answer *head, const event *ev, str *out);
    /* An event whose `raw` is a payload of this dialect: passed on. */
    bool (*write_raw)(const request *r, void *state, const event *ev, str *out);
    /* The clean end: what is still to be said (usage, if it was asked for) and the end mark. `passed`: the provider's
     * payloads were passed on, with their end; only what is lacking is written. comments: whole SSE comment lines, or "". */
    bool (*write_end)(const request *r, void *state, const answer *head, bool passed, const char *comments, str *out);
    /* In place of the end: the error, and never an end mark. */
    bool (*write_break)(const request *r, void *state, const err *e, int status, str *out);

    /* ---- the provider's side; NULL where clients alone speak it ---- */

    bool (*write_url)(const place_of *p, str *out); /* false: there is no such kind of request there */
    const char        *key_header;                  /* what stands before the key: "Authorization: Bearer " */
    const char *const *headers;                     /* further constant lines, NULL at the end; may be NULL */
    const char *const *passed; /* names of clients' headers that pass on (both sides); may be NULL */

    /* What the provider gets. Of a client of the same dialect: its bytes, with model, most_tokens and the wish for usage put
     * in and everything else untouched; otherwise written anew from the neutral form. Fails by drop_member. */
    bool (*write_request)(const request *r, const char *model, bool ask_usage, str *out, err *e);
    /* Keeps a copy of the body in out->raw. */
    bool (*read_answer)(request_kind kind, const char *body, size_t n, answer *out, err *e);
    /* One "data:" payload into zero or more events. *done: the stream said it is complete ("[DONE]"). An error inside
     * a stream fails with the provider's sentence. `state`: `reading` bytes, zeroed at the start; owns nothing. */
    size_t reading;
    bool (*read_chunk)(request_kind kind, void *state, const char *data, size_t n, void (*emit)(void *, const event *),
                       void *ctx, bool *done, err *e);
} dialect;

extern const dialect dialect_openai, dialect_azure; /* chat completions, completions, embeddings, rerank */
/* The same for providers that take what OpenAI's own API takes, and no more. */
extern const dialect dialect_openai_own, dialect_azure_own;
extern const dialect dialect_responses; /* OpenAI's responses; of clients alone */
extern const dialect dialect_anthropic; /* messages */
extern const dialect dialect_gemini;    /* generateContent, embedContent; of providers alone */
extern const dialect dialect_cohere;    /* rerank (v2) and embed; of providers alone */

/* Bodies of `a` may go on as bodies of `b`. NULL is OpenAI's. */
bool dialect_same(const dialect *a, const dialect *b);

/* The one of the two above for a provider that speaks `d` (NULL: OpenAI's); NULL: there is none. */
const dialect *dialect_own(const dialect *d);

/* The sentence in a provider's error body, {"error": {"message"...}} or {"error": "..."} or {"message": "..."}; NULL: none. */
const char *dialect_error_text(const cJSON *root);

const dialect *dialect_named(const char *name); /* a provider's: "openai", "azure", ...; NULL: none */

#endif
