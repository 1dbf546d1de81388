/* intake.h - large bodies, read in large pieces.
 *
 * libevent 2.1 reads at most 4 KiB of a connection each time it is ready (EVBUFFER_MAX_READ), which makes a turn of the
 * event loop and three system calls of each 4 KiB of a body.                                                          */
#ifndef PARE_SERVE_INTAKE_H
#define PARE_SERVE_INTAKE_H

struct bufferevent;

/* Of a new connection without TLS. Others who watch its input must be added behind this: evbuffer calls the last one
 * first, and they must have seen the first bytes before this one adds what follows them. */
void intake_watch(struct bufferevent *b);

#endif
