/* loop.h - one event loop and its thread: libevent's base plus a mailbox.
 *
 * Everything of an exchange happens on its loop. Other threads reach a loop only by loop_post. A function that runs on
 * a loop never blocks and never computes for longer than a few hundred microseconds.                                */
#ifndef PARE_BASE_LOOP_H
#define PARE_BASE_LOOP_H

#include <stdbool.h>

#include "base/err.h"
#include "base/queue.h"

struct bufferevent;
struct event_base;

typedef struct loop loop;

typedef struct loop_task { /* embed first in what you post */
    queue_item item;
    void (*run)(struct loop_task *);
} loop_task;

loop *loop_new(int index, err *e);
void  loop_free(loop *l); /* after loop_run has returned; NULL is fine; tasks posted since then are dropped */

struct event_base *loop_base(const loop *l);
int                loop_index(const loop *l); /* 0 .. loops-1 */

bool loop_run(loop *l, err *e); /* until loop_stop; what was posted before it returns has run */
void loop_stop(loop *l);        /* from any thread */

/* Runs task->run(task) on the loop, soon; from any thread. The task stays the poster's memory until it runs. */
void loop_post(loop *l, loop_task *task);

/* Writes what waits in the output of `b` once the running callback has returned, where libevent would first ask the system
 * whether the socket can be written to. What the socket does not take then waits as ever. On b's loop only, behind the
 * call that has put something into the output; `b` may be freed meanwhile. */
void loop_write_soon(struct bufferevent *b);

/* A per-loop slot for a floor above (the HTTP client of backend/, for example): set once at start, read on the loop.
 * loop_free calls `release` (NULL is fine) while the event base still lives. */
void  loop_set_client(loop *l, void *client, void (*release)(void *));
void *loop_client(const loop *l);

/* For whoever keeps events on the loop's base: loop_free calls `release` while it still lives, the latest first. Before the
 * loop runs, or on it. False: out of memory. */
bool loop_at_end(loop *l, void (*release)(void *), void *arg);
void loop_not_at_end(loop *l, void (*release)(void *), void *arg); /* takes that back */

#endif
