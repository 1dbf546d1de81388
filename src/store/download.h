/* download.h - a large file over HTTP, whole under its final name or not there at all.
 *
 * The data grows in PATH.part with PATH.part.json beside it, which says what is in it; both survive a kill at any
 * moment, and the next call goes on from there when the remote file is still the same (If-Range, ETag, checksum).
 * Large files come in parts over several connections. At the end the checksum is compared, the file synced and renamed.
 * One call runs in the calling thread; nothing is shared between calls.                                              */
#ifndef PARE_STORE_DOWNLOAD_H
#define PARE_STORE_DOWNLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* A bearer token and the server that may see it: it goes to URLs of this origin (scheme, host, port) only, and in the
 * clear to this machine only. */
typedef struct download_token {
    const char *token;  /* NULL: none */
    const char *origin; /* any URL of the server */
} download_token;

typedef struct download_progress {
    bool    verifying;   /* the checksum's pass over the file, rather than the network */
    int64_t done, total; /* bytes; total -1: not known */
    int     connections;
} download_progress;

#define DOWNLOAD_MAX_PARTS 16

typedef struct download_options {
    const char    *url;
    const char    *path;   /* the final name */
    const char    *source; /* names the file for the resumed call; default: the URL */
    const char    *denied; /* what to do about 401 and 403, a sentence; may be NULL */
    download_token token;
    int64_t        size;      /* known beforehand; 0: not */
    const char    *sha256;    /* 64 hex digits; NULL: not known */
    const char    *magic;     /* the first bytes; NULL: any */
    const char    *have_etag; /* of the file under the final name: when the server still has that, nothing is fetched */
    int64_t        have_size;

    /* 0: the default */
    int     parts;          /* 4 */
    int64_t parallel_above; /* files up to this size come in one part; 64 MiB */
    int     retries;        /* in a row, of one part, without getting ahead; 8 */
    int64_t retry_us;       /* before the first; doubles; 500 ms */
    int64_t stall_s;        /* without a byte, before the connection counts as broken; 30 */
    int64_t save_us;        /* between two looks at what would survive a power cut; 1 s */

    /* Called ten times a second at most; false: stop, keeping what is there (ERR_CANCELLED). */
    bool (*progress)(void *ctx, const download_progress *p);
    /* The last look before the file gets its name; `verified`: its checksum was known and is right. */
    bool (*check)(void *ctx, const char *path, bool verified, err *e);
    void *ctx;
} download_options;

typedef struct download_result {
    int64_t size;
    int64_t fetched; /* over the network, by this call */
    int64_t resumed; /* was there when it began */
    char    sha256[65];
    char    etag[200];
    bool    unchanged; /* have_etag and have_size are still right: nothing was fetched */
} download_result;

bool download_file(const download_options *o, download_result *out, err *e);

/* A short answer (at most 32 MiB) into `out`, by GET. `accept` and `denied` may be NULL. */
bool download_text(const char *url, const char *accept, const download_token *token, const char *denied, str *out,
                   err *e);

/* Removes what an unfinished download left beside `path`. */
void download_forget(const char *path);

#endif
