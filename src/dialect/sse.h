/* sse.h - server-sent events, read: bytes in as they come, payloads out.
 *
 * Lines may be split anywhere and end in LF, CRLF or CR; several data lines of one event join with LF; comments and other
 * fields pass by. One event's payload is bounded.                                                                    */
#ifndef PARE_DIALECT_SSE_H
#define PARE_DIALECT_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/str.h"

typedef struct sse_reader {
    str    line, data;
    bool   started, after_cr, has_data; /* started: past the place where a byte order mark may stand */
    size_t limit;                       /* bytes of one event; 0: 16 MiB */
} sse_reader;

/* Calls payload(ctx, data, n) for each complete event; a false from it stops the reading and is passed on. */
bool sse_feed(sse_reader *r, const char *bytes, size_t n, bool (*payload)(void *, const char *, size_t), void *ctx,
              err *e);
bool sse_partial(const sse_reader *r); /* something unfinished is held: the stream broke inside an event */
void sse_clear(sse_reader *r);

#endif
