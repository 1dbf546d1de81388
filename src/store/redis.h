/* redis.h - scripts run on a Redis (or Valkey), from event loops.
 *
 * One connection a loop; a call is one script (EVALSHA), loaded when the connection is made. A server that does not answer
 * within the time limit is as good as one that is away: the connection is given up and tried again with growing pauses,
 * and until it stands nobody waits for it. Source: the Redis documentation of EVALSHA, and hiredis' asynchronous API.  */
#ifndef PARE_STORE_REDIS_H
#define PARE_STORE_REDIS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"

typedef struct redis redis;

typedef struct redis_place {
    char host[128], password[256]; /* "": none */
    int  port, database;
} redis_place;

/* redis://[:password@]host[:port][/database]; a password may be percent-encoded. */
bool redis_place_of(const char *url, redis_place *out, err *e);

#define REDIS_MAX_VALUES  4
#define REDIS_MAX_SCRIPTS 4

typedef struct redis_options {
    const char *const *scripts; /* NULL at the end; live as long as the redis */
    int64_t            limit_us;
    /* All connections stand (again), or one is lost: on a loop. */
    void (*changed)(void *ctx, bool up, const char *why);
    /* This loop's connection is new: what was asked before may or may not have happened. On the loop. */
    void (*renewed)(void *ctx, loop *l);
    void *ctx;
} redis_options;

/* Looks the host's address up, which may take long: not on a loop. The server need not be there. */
redis *redis_new(const redis_place *p, const redis_options *o, err *e);
void   redis_free(redis *r); /* when the loops have been freed; NULL is fine */

/* Begins to connect; before the loop runs, or on it. What is asked meanwhile for the first time waits. */
bool redis_begin(redis *r, loop *l, err *e);

/* Runs script i with these keys and arguments; argv[0..n_keys) are the keys. `done` comes on the loop, once, never from
 * within: with the integers that the script returned, or with n < 0 when the server did not say in time. False: it is
 * away, and nothing comes. */
#define REDIS_ENDED (-2) /* n: the loop is being freed. Nothing but `ctx` itself may be touched */
typedef void (*redis_done)(void *ctx, const int64_t *values, int n);
bool redis_run(redis *r, loop *l, int script, int n_keys, int argc, const char **argv, redis_done done, void *ctx);

/* Another number for every connection of a loop; of the last one that was begun. */
int64_t redis_connection(const redis *r, const loop *l);
bool    redis_up(const redis *r);

#endif
