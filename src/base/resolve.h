/* resolve.h - the addresses behind a host's name, looked up on a thread so that no loop waits for a name server.
 *
 * One short thread a look-up: callers keep what they learn for a while. Addresses in digits need no look-up
 * (resolve_digits).                                                                                                 */
#ifndef PARE_BASE_RESOLVE_H
#define PARE_BASE_RESOLVE_H

#include <sys/socket.h>

#include "base/loop.h"

#define RESOLVE_MAX 8

typedef struct address {
    struct sockaddr_storage at; /* with its port */
    socklen_t               len;
} address;

typedef struct addresses {
    address of[RESOLVE_MAX]; /* in the order to try them (RFC 6724, as the system sorts them) */
    int     n;
} addresses;

/* "127.0.0.1" or "::1", without brackets. False: a name. */
bool resolve_digits(const char *host, int port, addresses *out);

typedef struct resolve resolve;
/* `found` is NULL when there is no such name; `e` says why. Comes on the loop, once, unless cancelled. */
typedef void (*resolve_fn)(void *ctx, const addresses *found, const err *e);

resolve *resolve_start(loop *l, const char *host, int port, resolve_fn fn, void *ctx, err *e);
void     resolve_cancel(resolve *r); /* on the loop, or when it has ended for good: `fn` will not come */

#endif
