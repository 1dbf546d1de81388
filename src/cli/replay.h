/* replay.h - the pieces of `pare replay`: the requests of a file, the transfers, the report. Not for other rooms. */
#ifndef PARE_CLI_REPLAY_H
#define PARE_CLI_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

typedef struct replay_request {
    char *body; /* JSON; a chat or a completion request */
    bool  completion, stream;
} replay_request;

typedef struct replay_plan {
    replay_request *requests;
    int             count;
} replay_plan;

/* One request a line; blank lines are passed over. `model` replaces each request's own when given. */
bool replay_read(const char *path, const char *model, replay_plan *out, err *e);
void replay_free(replay_plan *p);

#define REPLAY_ANSWERERS 16

typedef struct replay_result { /* one finished request */
    bool    ok;
    int     status;
    char    answered_by[80], error[160];
    int64_t first_us, total_us; /* first: to the first byte of the body */
    int64_t prompt_tokens, completion_tokens, cost_micro, saved_micro;
    bool    stream;
} replay_result;

typedef struct replay_run {
    const char    *url, *key;
    int            concurrency;
    double         rate; /* requests a second; 0: as fast as it goes */
    bool           quiet;
    replay_result *results; /* [count] */
    int64_t        wall_us;
} replay_run;

bool replay_go(const replay_plan *p, replay_run *r, err *e);

void replay_report(const replay_plan *p, const replay_run *r, bool json);

#endif
