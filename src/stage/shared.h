/* shared.h - limits that several nodes keep together, in a Redis.
 *
 * A request's money, requests, tokens and streams are taken there for its key and its group by one script, all or none, so
 * that two nodes never pass a limit together. What each node has spent today and this month stands there under the node's
 * name as a whole number that only grows: a Redis that forgot it all learns it again from the next request of each node.
 * What is held for running requests stands under the name of the connection that took it, which has to be renewed; so what
 * a dead node held, or what was taken by a call whose answer never came, is free again after 90 s.
 *
 * While Redis is away, or slower than its limit, a node decides by itself, with its share of every limit (limits.h).   */
#ifndef PARE_STAGE_SHARED_H
#define PARE_STAGE_SHARED_H

#include "base/loop.h"
#include "base/str.h"
#include "stage/limits.h"

typedef struct shared shared;

shared *shared_new(const char *url, const char *node, double share, err *e);
void    shared_free(shared *s);                   /* when the loops have been freed; NULL is fine */
bool    shared_begin(shared *s, loop *l, err *e); /* before the loop runs; NULL is fine */
double  shared_share(const shared *s);
bool    shared_up(const shared *s);
bool    shared_metrics(const shared *s, str *out); /* Prometheus text */

typedef struct shared_answer {
    bool          away;    /* it did not say: decide here */
    bool          granted; /* `grant` is filled, and held in the accounts of this node too */
    limit_grant   grant;
    limit_refusal why;
    err           refused;
} shared_answer;

/* `done` comes on the loop, once, never from within. False: Redis is away, nothing comes. The ask's price lives until
 * then. */
typedef void (*shared_done)(void *ctx, const shared_answer *a);
bool shared_take(shared *s, loop *l, account *key, account *group, const limit_ask *ask, shared_done done, void *ctx);

/* Money for one more try of a request that Redis has granted: counts no request, tokens or stream. `answered` as in
 * shared_done, of which it has away and granted alone: the caller holds it (limits_hold_more). */
bool shared_take_more(shared *s, loop *l, const limit_grant *g, int64_t nano, shared_done done, void *ctx);

/* Behind limits_settle, whatever decided; on the grant's loop. */
void shared_settle(shared *s, loop *l, const limit_grant *g, int64_t tokens);

#endif
