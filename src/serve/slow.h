/* slow.h - connections that are slow on purpose: a request must come at a rate, not only now and then.
 *
 * evhttp closes a connection that says nothing for IDLE_S. One that sends a byte a second would stay for ever, and ten
 * thousand of them take the server. So a request has SLOW_GRACE_S; after that its bytes must have come at SLOW_RATE a
 * second on average, or the connection is closed. One table a loop, fixed in size: an entry that makes room for another one
 * starts anew, which only gives more time. libevent does not say when a connection's buffers are freed, so entries are
 * found by address and a new connection takes over what an old one left at the same place.                           */
#ifndef PARE_SERVE_SLOW_H
#define PARE_SERVE_SLOW_H

#include <stdbool.h>
#include <stdint.h>

#define SLOW_GRACE_S 30
#define SLOW_RATE    1024 /* bytes a second */

typedef struct slow_table slow_table;
struct bufferevent;

slow_table *slow_new(int64_t grace_us); /* 0: SLOW_GRACE_S */
void        slow_free(slow_table *t);
void        slow_here(slow_table *t);              /* the calling thread's table from now on */
void        slow_watch(struct bufferevent *b);     /* a new connection */
void        slow_answering(struct bufferevent *b); /* its request is whole: until slow_idle nothing is asked of it */
void        slow_idle(struct bufferevent *b);

#endif
