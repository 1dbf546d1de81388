/* download_parts.h - what the files of the download share. */
#ifndef PARE_STORE_DOWNLOAD_PARTS_H
#define PARE_STORE_DOWNLOAD_PARTS_H

#include <curl/curl.h>
#include <stddef.h>

#include "base/hash.h"
#include "store/download.h"

/* ---- download_http.c: what any exchange needs ---- */

#define DOWNLOAD_HOPS 10 /* redirects */

/* What the headers said; -1 where they did not say. */
typedef struct response {
    long    status;
    int64_t length;             /* of this body */
    int64_t first, last, total; /* Content-Range */
    int64_t retry_after_s;
    bool    range;          /* a Content-Range that makes sense */
    bool    accepts, coded; /* Accept-Ranges: bytes; a Content-Encoding */
    bool    chunked;
    char    etag[200], modified[64];
    char    message[160]; /* X-Error-Message, which the Hugging Face hub sends */
} response;

CURL  *http_handle(const char *url, const char *accept, const download_token *token, const char *extra_header,
                   response *r, char *curl_error, struct curl_slist **headers, err *e);
size_t http_header(char *line, size_t size, size_t count, void *arg); /* arg: response */

bool  url_plain_or_tls(const char *url);
bool  url_same_origin(const char *a, const char *b);
void  url_shown(const char *url, char *out, size_t size); /* without what may be secret: user, query, fragment */
/* Where `to`, found at `from` after `hops` redirects, may be followed. */
bool  http_may_follow(const char *from, const char *to, int hops, err *e);
char *http_redirect(CURL *easy, const char *from, int hops, err *e); /* malloc'd */

bool http_refused(const response *r, const char *url, const char *denied, err *e); /* false, with a sentence */
bool http_broken(CURLcode code, const char *detail, const char *url, err *e);      /* false, with a sentence */
bool http_status_passes(const response *r);                                        /* may go well later */
bool http_broken_passes(CURLcode code);

/* ---- download_state.c: what is there of an unfinished file ---- */

#define DOWNLOAD_SEGMENTS 64

/* Bytes [begin, at) are there, [at, end) are not. Segments are in order and cover the file. */
typedef struct segment {
    int64_t begin, at, end;
} segment;

typedef struct download_state {
    int64_t size; /* -1: not known; then there is one segment, which ends at INT64_MAX */
    char    etag[200], modified[64];
    segment segments[DOWNLOAD_SEGMENTS];
    int     n;
} download_state;

/* False when there is none, or it does not belong to this source and checksum. */
bool    state_load(const char *path, const char *source, const char *sha256, download_state *out);
bool    state_save(const char *path, const char *source, const char *sha256, const download_state *s);
void    state_begin(download_state *s, int64_t size);
int64_t state_done(const download_state *s);
bool    state_complete(const download_state *s);
/* Halves the largest remainders until `wanted` segments are unfinished or none is worth two of `piece` bytes. */
void    state_split(download_state *s, int wanted, int64_t piece);

/* ---- download.c and download_transfer.c ---- */

typedef enum verdict {
    VERDICT_NONE,     /* no headers yet */
    VERDICT_TAKE,     /* the body belongs into the file */
    VERDICT_REDIRECT, /* somewhere else */
    VERDICT_SAME,     /* the file under the final name is this one */
    VERDICT_AGAIN,    /* may go well later */
    VERDICT_CHANGED,  /* not the file that was begun: from its start */
    VERDICT_NO_RANGE, /* the server does not do ranges, or not as it should: from the start, as one stream */
    VERDICT_FAILED    /* no use trying again */
} verdict;

typedef struct download download;

typedef struct transfer {
    download          *d;
    segment           *segment; /* NULL: idle */
    CURL              *easy;    /* NULL: not running */
    struct curl_slist *headers;
    char              *url; /* of this hop; NULL: the first one */
    int                hops, failures;
    int64_t            got, ignored; /* bytes of this attempt's body */
    int64_t            wait_until_us;
    response           r;
    verdict            verdict;
    err                why;
    char               curl_error[CURL_ERROR_SIZE];
} transfer;

struct download {
    const download_options *o;
    const char             *source;
    char                   *part_path, *state_path;
    int                     fd;
    CURLM                  *multi;
    download_state          state;
    bool                    known;     /* the state's size and validators are the server's */
    bool                    ranges;    /* as far as is known */
    bool                    no_ranges; /* found out: it does not do them */
    int                     restarts;
    transfer                slots[DOWNLOAD_MAX_PARTS];
    sha256_state           *hash; /* of the bytes up to `hashed` */
    int64_t                 hashed;
    int64_t                 fetched, saved_us, told_us;
    bool                    same;
};

bool download_put(download *d, segment *s, const char *bytes, size_t n, err *e);
bool download_room(const download *d, err *e); /* on the disk, for what is to come */

bool    transfer_start(transfer *t, err *e);
verdict transfer_end(transfer *t, CURLcode code); /* what came of it; t->why is set for AGAIN, CHANGED and FAILED */
void    transfer_drop(transfer *t);

#endif
