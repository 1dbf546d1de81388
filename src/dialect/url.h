/* url.h - addresses of requests to providers; for this room. */
#ifndef PARE_DIALECT_URL_H
#define PARE_DIALECT_URL_H

#include "base/str.h"

/* Adds the text as one segment of a path or one value of a query: whatever is not unreserved in RFC 3986 is
 * percent-encoded, a slash too. */
bool url_segment(str *out, const char *text);

/* The base ends in this path ("/openai/v1"). */
bool url_ends(const char *base, const char *path);

#endif
