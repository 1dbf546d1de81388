/* responses.h - what the files of OpenAI's responses share, and what keeping a conversation needs of them.
 *
 * Responses are chat completions with other names: the conversation is a list of items (messages, reasoning, calls and
 * their outputs), the answer is an object with a list of items, and the server keeps both by default.
 * Source: the reference at platform.openai.com/docs/api-reference/responses.                                         */
#ifndef PARE_DIALECT_RESPONSES_H
#define PARE_DIALECT_RESPONSES_H

#include "dialect/dialect.h"

/* ---- conversations that are kept; for stage/ and serve/ ---- */

#define RESPONSES_ID_SIZE 96

/* The answer's name, "resp_...": r->answer_id, or made from the answer's own id. */
void responses_id(const request *r, const answer *a, char out[RESPONSES_ID_SIZE]);

/* The client's input as a JSON array of items, each with an id and a type, texts as parts: what is kept of it. */
bool responses_input(const request *r, str *out);

/* Puts what came before into the request: `json` is an array of arrays of items, oldest first. They stand behind this
 * request's instructions and before its input. r->messages is read anew; everything else in r stays as it is. After a
 * failure r can only be freed. */
bool responses_join(request *r, const char *json, size_t n, arena *memory, err *e);

/* ---- within the dialect ---- */

bool responses_read_request(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e);
bool responses_write_answer(const request *r, const answer *a, str *out);
bool responses_write_event(const request *r, void *state, const answer *head, const event *ev, str *out);
bool responses_write_end(const request *r, void *state, const answer *head, bool passed, const char *comments,
                         str *out);
bool responses_write_break(const request *r, void *state, const err *e, int status, str *out);

/* A tree that is built; `failed` stays set when memory runs out, so that a build needs one check at its end. */
typedef struct builder {
    bool copy; /* what comes from the source is copied; else it is referred to, and must outlive what is built */
    bool failed;
} builder;

bool build_put(builder *b, cJSON *object, const char *key, cJSON *value); /* takes value over */
bool build_text(builder *b, cJSON *object, const char *key, const char *text);
/* A value of the source: copied or referred to. */
bool build_give(builder *b, cJSON *object, const char *key, const cJSON *value); /* NULL: nothing is put */
bool build_append(builder *b, cJSON *array, cJSON *value);                       /* takes value over */

/* Appends the messages that these items are. `where`: what the list is called in sentences ("input"). */
bool responses_read_items(builder *b, const cJSON *items, const char *where, cJSON *messages, err *e);

/* One item of an answer's output: a whole choice as it came whole, or a stretch of it as it came in a stream. */
typedef enum item_kind { ITEM_REASONING, ITEM_TEXT, ITEM_REFUSAL, ITEM_CALL } item_kind;

typedef struct output_item {
    item_kind kind;
    bool      closed;             /* all of it has been said */
    bool      part;               /* its part has been begun */
    int       call;               /* ITEM_CALL: which of the choice's */
    size_t    from, to;           /* bytes of the choice's text of this kind; of a call: `to` bytes of arguments */
    size_t    sign_from, sign_to; /* ITEM_REASONING: bytes of the signature */
    size_t    prob_from, prob_to; /* ITEM_TEXT: entries of the logprobs */
} output_item;

/* Calls are at most 256 (answer.c); the rest are stretches of text and reasoning that take turns. */
#define RESPONSES_MAX_ITEMS     320
#define RESPONSES_MAX_STRETCHES 60

void        responses_item_id(const char *response_id, item_kind kind, int index, char out[RESPONSES_ID_SIZE]);
/* The text of an item, which lies in `c` or its tool calls; never NULL. */
const char *responses_item_text(const choice *c, const output_item *item, size_t *n);
const char *responses_call_id(const choice *c, const output_item *item);
const char *responses_call_name(const choice *c, const output_item *item);
bool        responses_write_logprobs(const choice *c, const output_item *item, str *out);
/* One part, {"type": "output_text"...} and so on. */
bool        responses_write_part(const choice *c, const output_item *item, str *out);
/* status: "in_progress" writes an item that is empty yet. */
bool responses_write_item(const choice *c, const output_item *item, const char *id, const char *status, str *out);

typedef struct response_head {
    const char        *id, *model, *status;
    int64_t            created;
    const output_item *items; /* NULL: none */
    int                n_items;
    const choice      *choice;
    const usage       *usage;      /* NULL: not known yet */
    const char        *error;      /* the value of "error": JSON; NULL: null */
    const char        *incomplete; /* the reason; NULL: none */
} response_head;
bool        responses_write_object(const request *r, const response_head *h, str *out);
/* "completed" or "incomplete" by the choice's finish; *reason is set for the latter. */
const char *responses_status(const choice *c, const char **reason);

#endif
