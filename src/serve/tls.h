/* tls.h - the server's certificate: HTTPS, with clients' certificates where they are asked for (mTLS).
 *
 * A `tls` is immutable: a new one takes its place when the files change, and connections that are open keep what they
 * have of theirs. Versions below TLS 1.2 are refused. Any thread.                                                            */
#ifndef PARE_SERVE_TLS_H
#define PARE_SERVE_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

typedef struct tls tls;

typedef struct tls_options {
    const char *certificate;  /* PEM file: the server's, then the chain; NULL: no TLS */
    const char *key;          /* PEM file of its private key */
    const char *client_ca;    /* PEM file: only clients with a certificate of these are let in; NULL: all are */
    int64_t     handshake_us; /* may take so long; 0: 30 s */
} tls_options;

tls *tls_open(const tls_options *o, err *e); /* reads the files, and that they belong together */
void tls_release(tls *t);                    /* NULL is fine */

struct event_base;
struct bufferevent;
struct bufferevent *tls_accept(tls *t, struct event_base *base); /* for a connection that evhttp is about to take */
bool                tls_spoken(struct bufferevent *b);           /* it came from tls_accept */

#endif
