/* neutral.h - what the files that translate between the neutral form (dialect.h) and another API share; for this room. */
#ifndef PARE_DIALECT_NEUTRAL_H
#define PARE_DIALECT_NEUTRAL_H

#include "dialect/dialect.h"

/* A member that is there and not null. */
const cJSON *neutral_get(const cJSON *object, const char *key);
const char  *neutral_text(const cJSON *object, const char *key);  /* NULL: no string */
int64_t      neutral_count(const cJSON *object, const char *key); /* tokens: 0 when it is absent or absurd */

/* Reads out->body, which is in the neutral form, into the other members of `out`. `out` is as neutral_begin made it, with
 * body set. What is wrong is named by its place in the neutral form. */
void neutral_begin(request_kind kind, const char *raw, size_t n, const dialect *from, request *out);
bool neutral_read(request *out, arena *memory, err *e);
/* After a failure: gives the trees back; the model's name stays (the ledger has a row for refused requests too). */
void neutral_fail(request *out, const char *model, arena *memory, err *e);

/* Goes through the top of r->body for a dialect that is to be written: each member must be one of `carried` (which the
 * caller writes), a hint, or the API's default; all others are dropped, or the request fails with the first one's name. */
bool neutral_carried(const request *r, const char *const *carried, const char *target, err *e);

/* "data:image/png;base64,AAAA" taken apart; false: another kind of URL. */
typedef struct data_url {
    const char *media; /* "image/png" */
    size_t      media_len;
    const char *base64;
    size_t      base64_len;
} data_url;
bool neutral_data_url(const char *url, data_url *out);

/* The arguments of a call (text of a JSON object, or empty) as a tree that the caller owns; NULL: something else. */
cJSON *neutral_arguments(const char *text);

/* A tool's own part: {"name", "description", "parameters", "strict"} of {"type": "function", "function": {...}}, or NULL. */
const cJSON *neutral_function(const cJSON *tool);

/* An error of a provider inside an otherwise good body: {"error": {"message"...}} or {"error": "..."}; NULL: none. */
const char *neutral_error(const cJSON *root);

/* A provider's body as a tree; the sentence says `what` it is and ERR_UPSTREAM. */
cJSON *neutral_parse(const char *body, size_t n, const char *what, err *e);

#endif
