/* anthropic.h - Anthropic's Messages API: what its files share, and what serve/ needs to count tokens.
 *
 * Source of every shape here: the API's reference and guides at docs.claude.com (messages, count_tokens, streaming,
 * errors, prompt caching, structured outputs, effort, adaptive thinking) and the types of its official SDKs.         */
#ifndef PARE_DIALECT_ANTHROPIC_H
#define PARE_DIALECT_ANTHROPIC_H

#include "dialect/dialect.h"

/* POST /v1/messages/count_tokens: the body of a message without max_tokens, read like one (out->max_tokens stays -1). */
bool anthropic_read_count(const char *body, size_t n, arena *memory, request *out, err *e);
bool anthropic_write_count(int64_t tokens, str *out);

/* ---- for this room ---- */

typedef struct anthropic_place { /* "messages[2].content[0].source" */
    char text[112];
} anthropic_place;

anthropic_place anthropic_at(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool            anthropic_wrong(const char *param, const char *wanted, const cJSON *value, err *e); /* returns false */

/* Add to a tree under construction. The value is taken over, also when it fails or is NULL: out of memory. */
bool anthropic_put(cJSON *object, const char *key, cJSON *value, err *e);
bool anthropic_append(cJSON *array, cJSON *value, err *e);
bool anthropic_copy(cJSON *object, const char *key, const cJSON *value, err *e); /* a NULL value is left out */

/* anthropic_request.c */
bool anthropic_read_request(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e);

/* anthropic_messages.c, anthropic_blocks.c: the client's tree into neutral messages. */
bool   anthropic_read_system(const cJSON *client, cJSON *messages, err *e);
bool   anthropic_read_messages(const cJSON *client, cJSON *messages, err *e);
bool   anthropic_check_block(const cJSON *block, const char *where, err *e); /* an object with a type */
cJSON *anthropic_read_block(const cJSON *block, const char *where, err *e);  /* a part; the caller owns it */
cJSON *anthropic_read_blocks(const cJSON *blocks, const char *where, err *e);
cJSON *anthropic_fold(cJSON *parts); /* takes an array of parts; one that is plain text becomes a string */

/* anthropic_narrow.c: some of what the messages and the system prompt say has no place in the neutral form. */
bool anthropic_narrow(const cJSON *client);

/* anthropic_tools.c: tools, tool_choice. */
bool anthropic_read_tools(const cJSON *client, cJSON *body, err *e);

/* anthropic_build*.c, anthropic_splice.c: what the provider gets. */
#define ANTHROPIC_TARGET "Anthropic's API"
bool anthropic_write_request(const request *r, const char *model, bool ask_usage, str *out, err *e);
bool anthropic_splice(const request *r, const char *model, str *out);
bool anthropic_build_messages(const request *r, str *out, err *e); /* "system":[...],"messages":[...] */
bool anthropic_build_tools(const request *r, str *out, err *e);    /* ,"tools":[...],"tool_choice":{...} */
/* Members of `object`, which stands at `where`, beside those of `carried` (NULL at its end) have no place there. */
bool anthropic_rest(const cJSON *object, const char *const *carried, const char *where, drops *d, err *e);
bool anthropic_build_part(const cJSON *part, const char *where, drops *d, str *out, err *e); /* one content block */

/* anthropic_thinking.c: how the request's wish for reasoning is spelled for this model, and the most tokens that fit it. */
typedef struct anthropic_thinking {
    const char *type;   /* "enabled", "adaptive", "disabled"; NULL: nothing is said */
    int64_t     budget; /* with "enabled" */
    const char *effort; /* of output_config; NULL: none */
    int64_t     max_tokens;
} anthropic_thinking;
#define ANTHROPIC_MIN_BUDGET 1024 /* the API's least budget_tokens */
bool    anthropic_plan_thinking(const request *r, const char *model, anthropic_thinking *out, err *e);
int64_t anthropic_fit_budget(int64_t budget, int64_t max_tokens); /* 0: no budget fits */

/* anthropic_thoughts.c: thinking blocks, in the text and the signature of the neutral form. */
#define ANTHROPIC_MAX_THOUGHTS 256
typedef struct anthropic_thought {
    const char *text; /* "" of one that is redacted */
    size_t      text_len;
    const char *signature; /* or the redacted data */
    size_t      signature_len;
    bool        redacted;
} anthropic_thought;
/* What the signature of a further block (or of a redacted one) becomes, where `at` bytes of text are before it. */
bool anthropic_mark_thought(size_t at, bool redacted, const char *signature, str *out);
/* The blocks, at most ANTHROPIC_MAX_THOUGHTS; -1: the text is not the one that was signed. The texts are the arguments'. */
int  anthropic_thoughts(const char *text, size_t n, const char *signature, size_t m, anthropic_thought *out);
void anthropic_write_thought(const anthropic_thought *t, str *out);

/* anthropic_read.c */
typedef struct anthropic_usage { /* as the API counts; each event of a stream repeats what it knows */
    int64_t    input, read, created, created_1h, output, thinking, searches;
    usage_tier tier;
    bool       known;
} anthropic_usage;
void        anthropic_add_usage(const cJSON *u, anthropic_usage *sum);
usage       anthropic_neutral_usage(const anthropic_usage *u);
const char *anthropic_finish(const char *stop_reason); /* NULL in, NULL out */
/* A block of this type in an answer says more than the neutral form holds, which has one text, calls, and in front of both
 * one piece of reasoning. begun: it is not the answer's first block. See also citations, and which sequence stopped it. */
bool        anthropic_narrows(const char *type, bool begun);
bool        anthropic_read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e);

/* anthropic_chunk.c */
#define ANTHROPIC_MAX_BLOCKS 1024
typedef struct anthropic_reading {
    anthropic_usage usage;
    bool            begun;    /* a block has been */
    bool            thought;  /* one of thinking, or a redacted one */
    size_t          thinking; /* bytes of text in those */
    int             n_calls;
    uint16_t        call[ANTHROPIC_MAX_BLOCKS]; /* of a tool_use block: 1 + number of its call; 0: another block */
    bool            said[ANTHROPIC_MAX_BLOCKS]; /* some of its arguments came */
} anthropic_reading;
bool anthropic_read_chunk(request_kind kind, void *state, const char *data, size_t n,
                          void (*emit)(void *, const event *), void *ctx, bool *done, err *e);

/* anthropic_write.c */
bool        anthropic_write_answer(const request *r, const answer *a, str *out);
bool        anthropic_write_error(const err *e, int status, str *out);
bool        anthropic_write_usage(const usage *u, str *out); /* the object */
/* Of the answer's call number i. Some servers give calls no ids; the result of one must name it. */
void        anthropic_write_call_id(const answer *a, const cJSON *call, int i, str *out);
const char *anthropic_stop_reason(const choice *c); /* NULL: it has not stopped */

/* anthropic_stream.c. The content follows the grown answer, so the state is only how much of it has been said. */
typedef struct anthropic_writing {
    bool   started;
    char   open;   /* the block that is open: 't'hinking, 'm'essage text, 'r'efusal, 'c'all; 0: none */
    int    blocks; /* begun so far; the open one has the number blocks - 1 */
    int    calls;  /* begun so far */
    size_t reasoning, signature, text, refusal, arguments; /* bytes said; arguments: of the open call */
    int    depth;                                          /* of the open call's JSON */
    bool   in_string, escaped, complete;
    bool   raw, raw_open; /* the provider's payloads were passed on; and its block number blocks - 1 has not ended */
    size_t n_stop;        /* bytes of `stop`: the provider's last payload, kept back so that comments stand before it */
    char   stop[512];
} anthropic_writing;
bool anthropic_write_event(const request *r, void *state, const answer *head, const event *ev, str *out);
bool anthropic_write_raw(const request *r, void *state, const event *ev, str *out);
bool anthropic_write_end(const request *r, void *state, const answer *head, bool passed, const char *comments,
                         str *out);
bool anthropic_write_break(const request *r, void *state, const err *e, int status, str *out);

#endif
