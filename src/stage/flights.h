/* flights.h - identical requests in flight share one backend call.
 *
 * The first to ask for a key leads and goes on to the backend; the others wait and get what it brought. They may sit
 * on other loops: a follower is reached by loop_post only. A shard's lock covers table look-ups and list links, no
 * calls.                                                                                                            */
#ifndef PARE_STAGE_FLIGHTS_H
#define PARE_STAGE_FLIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/loop.h"
#include "store/cache.h"

typedef struct flights flights;
typedef struct flight  flight;

/* One waiting request; lives in its exchange's arena. `landed` runs on `home`, exactly once, unless flight_leave
 * returned true. `result` is NULL (the leader brought nothing that can be shared) or a reference to take over. */
typedef struct follower {
    loop_task task;
    loop     *home;
    void     *ctx;
    void (*landed)(void *ctx, const cached *result);
    const cached    *result;
    flight          *of;
    int              shard; /* flights.c's own, as of */
    struct follower *prev, *next;
} follower;

flights *flights_new(void);
void     flights_free(flights *f);

/* Leads (returns the flight) or follows (returns NULL; f->landed comes later). `abandoned` runs on the leader's loop when
 * the leader's client has gone (flight_keep said true) and then the last follower left too. NULL and *out_of_memory when
 * neither could be done. */
flight *flight_join(flights *all, const sha256 *key, follower *f, loop *leader_loop, void (*abandoned)(void *),
                    void *leader_ctx, bool *out_of_memory);
/* The leader is done; hands `result` (may be NULL; one reference is taken for each follower). The flight is gone. */
void    flight_land(flights *all, flight *f, const cached *result);
/* The leader's client is gone: true when others wait, and the leader should go on for them. */
bool    flight_keep(flights *all, flight *f);
/* A follower's client is gone. True: it was taken off the list and nothing comes. False: `landed` is on its way. */
bool    flight_leave(flights *all, follower *f);

/* How many have landed so far. The same number before a look into the cache and after flight_join: none has landed in
 * between, and a second look would find nothing new. */
uint64_t flights_landed(const flights *all);

#endif
