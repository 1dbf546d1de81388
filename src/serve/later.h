/* later.h - a reply that waits for another thread. The client may leave meanwhile; the server's end waits for it. */
#ifndef PARE_SERVE_LATER_H
#define PARE_SERVE_LATER_H

#include "serve/front.h"

typedef struct later later;

/* On the request's loop. NULL: out of memory, and the request has been answered so. */
later *later_begin(front *f, struct evhttp_request *r);
front *later_front(const later *l);

/* The reply, on the loop; ends it. e NULL: `json` with 200; else e's sentence with `status` (0: as e->code says). */
void later_reply(later *l, int status, const str *json, const err *e);

/* The same from any thread; what it is given is copied. */
void later_send(later *l, int status, const str *json, const err *e);

#endif
