/* http_answer.h - reads an HTTP/1 answer as its bytes come, however they are cut. Source: RFC 9112.
 *
 * Nothing in it is trusted: heads are bounded in size and number, a length that is said twice must be the same, and what
 * is not HTTP/1 is an error with a sentence. Zero-initialise; http_answer_clear when done. Not thread safe.           */
#ifndef PARE_BACKEND_HTTP_ANSWER_H
#define PARE_BACKEND_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

#define HTTP_ANSWER_MAX_LINE (64 << 10)
#define HTTP_ANSWER_MAX_HEAD (256 << 10) /* with all lines before the body, and likewise the trailers */
#define HTTP_ANSWER_MAX_1XX  16

typedef struct http_answer {
    int  status; /* of the final head; 0: not yet read */
    bool keep;   /* the connection may carry another request once this has ended */
    char type[96], retry_after[64];

    /* the reader's own */
    int      state;
    bool     http10, said_close, said_keep, chunked, has_length;
    bool     frames; /* the last header says where the body ends */
    char    *text;   /* where the last header's text is kept; NULL: nowhere */
    size_t   text_size;
    int      informational;
    uint64_t left;       /* of the body or of this chunk */
    size_t   head_bytes; /* of heads or trailers so far */
    str      line;       /* one that has not ended yet */
} http_answer;

typedef enum http_step {
    HTTP_MORE, /* all bytes are used */
    HTTP_BODY, /* *body points at a piece of it, within the bytes given */
    HTTP_END,  /* the answer is complete; what is left of the bytes does not belong to it */
    HTTP_BAD   /* `e` says why */
} http_step;

/* One step; moves *bytes and *n on. Call it until HTTP_MORE, HTTP_END or HTTP_BAD. */
http_step http_answer_step(http_answer *a, const char **bytes, size_t *n, const char **body, size_t *body_n, err *e);

/* The other side has closed: HTTP_END where that is how the body ends, else HTTP_BAD. */
http_step http_answer_closed(http_answer *a, err *e);

void http_answer_clear(http_answer *a); /* ready for the next answer */

#endif
