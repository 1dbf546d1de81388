/* openai.h - what the files of the OpenAI dialect share; not for other rooms. */
#ifndef PARE_DIALECT_OPENAI_H
#define PARE_DIALECT_OPENAI_H

#include "dialect/dialect.h"

/* openai_request.c, openai_local.c, openai_canonical.c, openai_splice.c: see the members of struct dialect. */
bool openai_read_request(request_kind kind, const char *body, size_t n, arena *memory, request *out, err *e);
bool openai_read_local(request *r, err *e);
bool openai_canonical(const request *r, str *out);
bool openai_write_request(const request *r, const char *model, bool ask_usage, str *out, err *e);
/* The same for OpenAI's own API: without what others have added to it (top_k), and with the present names of members. */
bool openai_write_own(const request *r, const char *model, bool ask_usage, str *out, err *e);
bool openai_read_fields(request *r, arena *memory, err *e); /* r->body, which is in the neutral form */
bool openai_is_default(const cJSON *member);                /* says what the API does anyway */
/* openai_neutral.c: for a client of another dialect: the body without what OpenAI's API has not. */
bool openai_write_neutral(const request *r, const char *model, bool ask_usage, bool own, str *out, err *e);

/* openai_embeddings.c, openai_rerank.c, openai_values.c: what they have instead of messages and sampling. */
bool openai_read_embeddings(request *r, arena *memory, err *e);
bool openai_read_rerank(request *r, arena *memory, err *e);
bool openai_write_values(const request *r, const answer *head, const float *values, int width, str *out);
/* A provider's answer: kept as it is, with its usage read out of it. */
bool openai_read_values(const char *body, size_t n, answer *out, err *e);

void openai_end_sentence(err *e); /* adds the full stop that sentences of base/json.h lack */

/* openai_write.c */
bool openai_write_answer(const request *r, const answer *a, str *out);
bool openai_write_error(const err *e, int status, str *out);
/* One chunk as the JSON after "data: "; first: the first of this choice (the role is sent there). */
bool openai_write_chunk(request_kind kind, const answer *head, const event *ev, bool first, str *out);
/* The chunk that holds usage alone. */
bool openai_write_usage(request_kind kind, const answer *head, const usage *u, str *out);

/* openai_stream.c */
typedef struct openai_writing {
    uint64_t begun[2]; /* bit: the choice's first chunk is out */
    bool     usage_sent;
} openai_writing;
bool openai_write_event(const request *r, void *state, const answer *head, const event *ev, str *out);
bool openai_write_raw(const request *r, void *state, const event *ev, str *out);
bool openai_write_end(const request *r, void *state, const answer *head, bool passed, const char *comments, str *out);
bool openai_write_break(const request *r, void *state, const err *e, int status, str *out);

/* openai_read.c */
#define OPENAI_MAX_CHOICES 128
bool openai_read_answer(request_kind kind, const char *body, size_t n, answer *out, err *e);
bool openai_read_chunk(request_kind kind, void *state, const char *data, size_t n, void (*emit)(void *, const event *),
                       void *ctx, bool *done, err *e);
/* With a tree, whatever is in it. */
bool openai_read_any(request_kind kind, const char *data, size_t n, void (*emit)(void *, const event *), void *ctx,
                     err *e);

/* openai_chunk.c: the same for an ordinary chunk of a chat, many times quicker; false: it is not one, and nothing was said. */
bool openai_read_ordinary(const char *data, size_t n, void (*emit)(void *, const event *), void *ctx);

/* One member of the top level of a JSON object in its own bytes. */
typedef struct raw_member {
    const char *key; /* between the quotes, escapes as they stand */
    size_t      key_len;
    const char *value;
    size_t      value_len;
} raw_member;

/* Walks the members of an object that json_parse has accepted: *at starts at 0; false at the end. */
bool raw_next(const char *raw, size_t n, size_t *at, raw_member *out);
bool raw_key_is(const raw_member *m, const char *name); /* escapes in the key are looked through */

/* openai_logprobs.c: log probabilities in the two forms of the API. The neutral form is chat's: an array of
 * {token, logprob, bytes, top_logprobs}. */
/* From completions' {tokens, token_logprobs, top_logprobs}; the caller owns the array; NULL: none or no memory. */
cJSON *logprobs_from_completion(const cJSON *old);
/* Adds the value of "logprobs" (null when there are none); `offset` is the text's characters before the first token. */
bool   logprobs_write(request_kind kind, const cJSON *logprobs, size_t offset, str *out);

#endif
