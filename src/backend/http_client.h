/* http_client.h - libcurl's multi interface on an event loop: one client a loop, made at its first use.
 *
 * Only on its loop. Connections are pooled and reused by libcurl, over HTTP/2 where the server speaks it.           */
#ifndef PARE_BACKEND_HTTP_CLIENT_H
#define PARE_BACKEND_HTTP_CLIENT_H

#include <curl/curl.h>

#include "base/err.h"
#include "base/loop.h"

typedef struct http_client http_client;

http_client *http_client_of(loop *l, err *e);

/* The easy handle's CURLOPT_PRIVATE must point at one of these. `done` is called from the loop, when the handle has been
 * removed and may be reused. */
typedef struct http_transfer {
    void (*done)(struct http_transfer *t, CURLcode result);
} http_transfer;

bool http_client_add(http_client *c, CURL *easy, err *e);
void http_client_remove(http_client *c, CURL *easy); /* not from within a libcurl callback; `done` will not come */

#endif
