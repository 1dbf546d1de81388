/* limits.h - what a client may use: which models, how many requests and tokens a minute, how many streams at once, how much
 * money a day and a month, and until when.
 *
 * An account is a client's key, or a group of keys; a request is held against both. Money is taken before the request goes
 * out: the most that it can cost (its prompt as estimated, with a margin, and all the tokens that may be made), and what it
 * did cost replaces that when it is over. Where the rest of a budget does not cover the whole answer but some of it, the
 * request gets a lower limit of tokens (request.most_tokens), which goes to the provider and at which its stream is ended;
 * so many streams at once spend no more than there is. Accounts live as long as the server and keep their counts when the
 * settings are read again; at start what is spent is read from the ledger.
 *
 * Any thread; an account's lock is held for some instructions. All amounts are nano-dollars, all times wall clock in UTC:
 * a day and a month begin at midnight.                                                                               */
#ifndef PARE_STAGE_LIMITS_H
#define PARE_STAGE_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "stage/price.h"

typedef struct limits  limits;  /* all accounts of a server */
typedef struct account account; /* lives as long as its limits */

typedef struct limit_rules {   /* 0 and NULL: no limit, but for money, where -1 is none */
    const char *const *models; /* names, or patterns with *; NULL at the end */
    int64_t            requests_minute, tokens_minute, streams;
    int64_t            nano_day, nano_month;
    int64_t            expires_us;
} limit_rules;

limits *limits_new(err *e);
void    limits_free(limits *l);
bool    limits_has(limits *l, char kind, const char *name);

/* The account of this kind ('k' a key, 'g' a group) and name, made when it is new; its rules are replaced. */
account *limits_account(limits *l, char kind, const char *name, const limit_rules *rules, err *e);
/* What it has spent since the beginning of the day and of the month, from the ledger. */
void     account_spent(account *a, int64_t now_us, int64_t nano_day, int64_t nano_month);
/* account_spent has not been called: the account is new. */
bool     account_is_new(account *a);

typedef struct limit_ask {
    int64_t      now_us; /* wall clock */
    const price *price;  /* the dearest of those who may answer */
    int64_t      prompt; /* tokens, estimated with its margin */
    int64_t      output; /* tokens that may be made at most; all choices together */
    int64_t      least;  /* tokens below which a lower limit is no use */
    bool         stream;
    double       share; /* of the limits that this node has alone; 0: all of them */
} limit_ask;

typedef struct limit_grant { /* zeroed: nothing is held */
    account *of[2];
    int64_t  nano;               /* held of each one's money */
    int64_t  tokens;             /* held of each one's minute */
    int64_t  output;             /* tokens that may be made: at most what was asked for */
    int64_t  minute, day, month; /* in which it was taken */
    bool     stream, held;
    int64_t  now_us;       /* when it was asked for */
    int64_t  lease;        /* shared.h's: under whose name it is held elsewhere; 0: nowhere */
    int64_t  lease_nano;   /* held there of each one's money */
    int64_t  lease_tokens; /* held there of each one's minute */
    bool     bounded;      /* money is limited and the answer costs some: no more than `output` may be made */
} limit_grant;

typedef struct limit_refusal {
    int     status;      /* 402: the budget is spent; 403: expired; 429: too many, come again */
    int64_t retry_after; /* seconds; 0: not said */
} limit_refusal;

typedef enum refused_by {
    REFUSED_EXPIRED,
    REFUSED_REQUESTS,
    REFUSED_TOKENS,
    REFUSED_STREAMS,
    REFUSED_DAY,
    REFUSED_MONTH
} refused_by;
/* The sentence and the status, for whoever refuses. */
void limits_refuse(char kind, const char *name, refused_by by, int64_t limit, int64_t now_us, limit_refusal *why,
                   err *e);

/* Takes from both accounts (either may be NULL) or from none. False: e says what is used up and when it is there again. */
bool    limits_take(account *key, account *group, const limit_ask *ask, limit_grant *out, limit_refusal *why, err *e);
/* Takes without asking: somebody who knows of all nodes (stage/shared.h) has granted `nano`, which covers `output`. */
void    limits_hold(account *key, account *group, const limit_ask *ask, int64_t nano, int64_t output, limit_grant *out);
/* The largest output, at most ask->output, that `nano` covers together with the prompt; -1: not even the prompt. */
int64_t limits_cover(const limit_ask *ask, int64_t nano);
/* One more try of the same request: takes `nano` of the money of both accounts or of neither, and counts no request. */
bool    limits_take_more(limit_grant *g, int64_t nano, int64_t now_us, double share);
/* The same without asking, as limits_hold. */
void    limits_hold_more(limit_grant *g, int64_t nano, int64_t now_us);
/* What it came to: replaces what was held. Once; a grant that holds nothing is fine. */
void    limits_settle(limit_grant *g, int64_t nano, int64_t tokens);

bool account_allows(const account *a, const char *model);

typedef struct account_view { /* for those who keep its counts elsewhere */
    char        kind;
    const char *name;                 /* the account's */
    limit_rules rules;                /* models NULL */
    int64_t     day, month;           /* since 1970, since 1900 */
    int64_t     nano_day, nano_month; /* spent by this node */
} account_view;
account_view account_look(account *a, int64_t now_us);

typedef struct account_state {
    char    kind;
    char    name[64];
    int64_t nano_day, nano_month, held; /* spent, and held for what runs */
    int64_t requests, tokens;           /* of this minute */
    int64_t streams;
} account_state;
/* All accounts, for the dashboard, metrics and the admin API. */
int limits_states(limits *l, account_state *out, int room, int64_t now_us);

#endif
