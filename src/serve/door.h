/* door.h - a client whose key is not known may send little: a body is as long as DOOR_BODY, or it is not taken.
 *
 * evhttp (2.1) calls nobody between the headers of a request and the end of its body, and would keep 64 MiB of a stranger's.
 * So the bytes are looked at as they come into a connection's buffer, before evhttp has them: where a body is longer than
 * DOOR_BODY, or comes in chunks and grows longer, its headers must have a key that is known. Else the connection is
 * answered 401 here, and closed. Shorter bodies are refused in the usual way, by the exchange.
 *
 * One table a loop, as in slow.h and for the same reason: entries are found by the connection's address, and one that makes
 * room for another asks no more of the request that is on its way.                                                      */
#ifndef PARE_SERVE_DOOR_H
#define PARE_SERVE_DOOR_H

#include <stddef.h>

#define DOOR_BODY ((size_t)1 << 20) /* bytes */

typedef struct door_table door_table;
struct bufferevent;
struct front;

door_table *door_new(struct front *f); /* whose keys are in force */
void        door_free(door_table *t);
void        door_here(door_table *t);              /* the calling thread's table from now on */
void        door_watch(struct bufferevent *b);     /* a new connection */
void        door_idle(struct bufferevent *b);      /* a request is whole; what comes next is another one */
void        door_answering(struct bufferevent *b); /* until door_answered what comes waits, and is not answered here */
void        door_answered(struct bufferevent *b);

#endif
