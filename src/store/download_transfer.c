/* download_transfer.c - one connection that fetches one segment: what it asks for, whether the answer is what was asked
 * for, and what to do when it is not.                                                                                */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/download_parts.h"

#define BODY_IGNORED 16384 /* of an error or redirect: swallowed, so that the connection can be used again */
#define GOT_AHEAD    65536 /* an attempt that brought this much does not count as a failure in a row */
#define MAX_WAIT_US  30000000

static const char *url_of(const transfer *t) {
    return t->url ? t->url : t->d->o->url;
}

/* ---- asking ---- */

/* If-Range takes a strong validator only; without it a changed file would be glued to the one before. */
static const char *validator(const download_state *s) {
    if (s->etag[0] == '"') {
        return s->etag;
    }
    return s->modified[0] ? s->modified : NULL;
}

static bool range_header(const transfer *t, str *out) {
    const download *d = t->d;
    const segment  *s = t->segment;
    if (d->no_ranges) {
        return true;
    }
    /* The first question leaves the end open: it finds out the size as well. */
    if (d->known && d->state.size > 0) {
        str_addf(out, "Range: bytes=%lld-%lld", (long long)s->at, (long long)s->end - 1);
    } else {
        str_addf(out, "Range: bytes=%lld-", (long long)s->at);
    }
    return !out->failed;
}

static bool if_range(transfer *t) {
    const char *v = t->d->known && !t->d->no_ranges ? validator(&t->d->state) : NULL;
    if (!v) {
        return true;
    }
    str line = {0};
    str_addf(&line, "If-Range: %s", v);
    struct curl_slist *longer = line.failed ? NULL : curl_slist_append(t->headers, line.data);
    str_free(&line);
    t->headers = longer ? longer : t->headers;
    return longer != NULL;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg);

bool transfer_start(transfer *t, err *e) {
    download *d = t->d;
    str       range = {0};
    bool      ok = range_header(t, &range);
    t->easy = ok ? http_handle(url_of(t), NULL, &d->o->token, range.data, &t->r, t->curl_error, &t->headers, e) : NULL;
    str_free(&range);
    if (!t->easy) {
        return ok ? false : err_set(e, ERR_MEMORY, "Out of memory.");
    }
    if (!if_range(t)) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    t->verdict = VERDICT_NONE;
    t->why = (err){0};
    t->got = t->ignored = 0;
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, 262144L);
    curl_easy_setopt(t->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(t->easy, CURLOPT_LOW_SPEED_TIME, (long)(d->o->stall_s > 0 ? d->o->stall_s : 30));
    CURLMcode code = curl_multi_add_handle(d->multi, t->easy);
    return code == CURLM_OK || err_set(e, ERR_INTERNAL, "The transfer cannot start: %s.", curl_multi_strerror(code));
}

void transfer_drop(transfer *t) {
    if (t->easy) {
        curl_multi_remove_handle(t->d->multi, t->easy);
        curl_easy_cleanup(t->easy);
    }
    curl_slist_free_all(t->headers);
    t->easy = NULL;
    t->headers = NULL;
}

/* ---- judging the headers ---- */

static verdict fail(transfer *t, err_code code, const char *what) {
    char here[200];
    url_shown(url_of(t), here, sizeof here);
    err_set(&t->why, code, "%s: %s", here, what);
    return VERDICT_FAILED;
}

static verdict wrong_size(transfer *t, int64_t said) {
    char here[200];
    url_shown(url_of(t), here, sizeof here);
    err_set(&t->why, ERR_UPSTREAM, "%s: the server says the file has %lld bytes, its listing says %lld.", here,
            (long long)said, (long long)t->d->o->size);
    return VERDICT_FAILED;
}

static verdict changed(transfer *t) {
    char here[200];
    url_shown(url_of(t), here, sizeof here);
    err_set(&t->why, ERR_UPSTREAM,
            "%s: the file keeps changing while it is fetched, or the server lies about its "
            "length (%lld bytes at first, then %lld).",
            here, (long long)t->d->state.size, (long long)(t->r.total >= 0 ? t->r.total : t->r.length));
    return VERDICT_CHANGED;
}

static bool differs(const char *a, const char *b) {
    return a[0] && b[0] && strcmp(a, b) != 0;
}

/* What the first answer says is what all others are held against. */
static verdict learn(transfer *t, int64_t size, bool ranges) {
    download *d = t->d;
    if (d->o->size > 0 && size >= 0 && size != d->o->size) {
        return wrong_size(t, size);
    }
    if (size == 0) {
        return fail(t, ERR_INVALID, "the file is empty.");
    }
    if (size < 0) {
        size = d->o->size > 0 ? d->o->size : -1;
    }
    if (d->o->have_etag && d->o->have_etag[0] && strcmp(d->o->have_etag, t->r.etag) == 0 && size == d->o->have_size) {
        return VERDICT_SAME;
    }
    d->state.size = size;
    d->state.segments[0].end = size >= 0 ? size : INT64_MAX;
    memcpy(d->state.etag, t->r.etag, sizeof d->state.etag);
    memcpy(d->state.modified, t->r.modified, sizeof d->state.modified);
    d->known = true;
    d->ranges = ranges && size > 0;
    return download_room(d, &t->why) ? VERDICT_TAKE : VERDICT_FAILED;
}

static verdict judge_part(transfer *t) {
    download   *d = t->d;
    response   *r = &t->r;
    const char *etag = d->state.etag;
    bool        honest = r->range && (r->length < 0 || r->chunked || r->length == r->last - r->first + 1);
    if (d->no_ranges || !honest || r->first != t->segment->at) {
        return d->no_ranges ? fail(t, ERR_UPSTREAM, "the server sends a part where the whole was asked for.")
                            : VERDICT_NO_RANGE;
    }
    if (!d->known) {
        return r->total < 0 ? VERDICT_NO_RANGE : learn(t, r->total, true);
    }
    if (differs(r->etag, etag) || (r->total >= 0 && r->total != d->state.size)) {
        return d->o->size > 0 && r->total >= 0 && r->total != d->o->size ? wrong_size(t, r->total) : changed(t);
    }
    return VERDICT_TAKE;
}

static verdict judge_whole(transfer *t) {
    download *d = t->d;
    response *r = &t->r;
    int64_t   size = r->chunked ? -1 : r->length;
    if (!d->known) {
        return learn(t, size, r->accepts && size > 0);
    }
    if (differs(r->etag, d->state.etag) || differs(r->modified, d->state.modified) ||
        (size >= 0 && d->state.size >= 0 && size != d->state.size)) {
        return changed(t);
    }
    bool all = t->segment->at == 0 && t->segment->end == d->state.size;
    return all ? VERDICT_TAKE : VERDICT_NO_RANGE;
}

static verdict judge(transfer *t) {
    response *r = &t->r;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &r->status);
    if (r->status >= 300 && r->status < 400 && r->status != 304) {
        return VERDICT_REDIRECT;
    }
    if (r->status == 416 && t->d->known) {
        return changed(t);
    }
    if (r->status != 200 && r->status != 206) {
        http_refused(r, url_of(t), t->d->o->denied, &t->why);
        return http_status_passes(r) ? VERDICT_AGAIN : VERDICT_FAILED;
    }
    if (r->coded) {
        return fail(t, ERR_UPSTREAM,
                    "the server sends the file in a coding (gzip or the like) that was not asked for.");
    }
    return r->status == 206 ? judge_part(t) : judge_whole(t);
}

/* ---- the body ---- */

/* A web page instead of a model shows in its first bytes. */
static bool right_magic(transfer *t, const char *bytes, size_t n) {
    const char *magic = t->d->o->magic;
    int64_t     at = t->segment->at;
    size_t      len = magic ? strlen(magic) : 0;
    if (!magic || at >= (int64_t)len) {
        return true;
    }
    size_t look = n < len - (size_t)at ? n : len - (size_t)at;
    if (memcmp(bytes, magic + at, look) == 0) {
        return true;
    }
    char here[200], start[25];
    url_shown(url_of(t), here, sizeof here);
    size_t shown = n < sizeof start - 1 ? n : sizeof start - 1;
    for (size_t i = 0; i < shown; i++) {
        start[i] = bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '.';
    }
    start[shown] = '\0';
    err_set(&t->why, ERR_INVALID, "%s: this is not a %s file: it begins with \"%s\"%s.", here, magic, start,
            start[0] == '<' ? ", like a web page" : "");
    return false;
}

static size_t take(transfer *t, const char *bytes, size_t n) {
    segment *s = t->segment;
    size_t   use = (int64_t)n < s->end - s->at ? n : (size_t)(s->end - s->at);
    if (use > 0 && (!right_magic(t, bytes, use) || !download_put(t->d, s, bytes, use, &t->why))) {
        t->verdict = VERDICT_FAILED;
        return CURL_WRITEFUNC_ERROR;
    }
    t->got += (int64_t)use;
    if (use < n && t->r.status == 200 && s->end == t->d->state.size) {
        t->verdict = fail(t, ERR_UPSTREAM, "the server sends more bytes than the file has.");
        return CURL_WRITEFUNC_ERROR;
    }
    return use == n ? n : CURL_WRITEFUNC_ERROR; /* the segment was cut meanwhile and is full: enough */
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg) {
    transfer *t = arg;
    size_t    n = size * count;
    if (t->verdict == VERDICT_NONE) {
        t->verdict = judge(t);
    }
    if (t->verdict == VERDICT_TAKE) {
        return take(t, bytes, n);
    }
    t->ignored += (int64_t)n;
    bool short_answer = t->verdict == VERDICT_REDIRECT || t->verdict == VERDICT_AGAIN;
    return short_answer && t->ignored <= BODY_IGNORED ? n : CURL_WRITEFUNC_ERROR;
}

/* ---- what came of it ---- */

static verdict end_of_body(transfer *t, CURLcode code) {
    segment *s = t->segment;
    if (s->at < s->end && code == CURLE_OK && s->end == INT64_MAX && s->at > 0) {
        t->d->state.size = s->end = s->at; /* a body without a length ended as it should */
    }
    if (s->at >= s->end) {
        t->failures = 0;
        return VERDICT_TAKE;
    }
    if (code != CURLE_OK) {
        http_broken(code, t->curl_error, url_of(t), &t->why);
        return http_broken_passes(code) ? VERDICT_AGAIN : VERDICT_FAILED;
    }
    char here[200];
    url_shown(url_of(t), here, sizeof here);
    err_set(&t->why, ERR_UPSTREAM, "%s: the answer ended after %lld of %lld bytes.", here, (long long)s->at,
            (long long)s->end);
    return VERDICT_AGAIN;
}

static verdict follow(transfer *t) {
    char *next = http_redirect(t->easy, url_of(t), t->hops, &t->why);
    if (!next) {
        return VERDICT_FAILED;
    }
    free(t->url);
    t->url = next;
    t->hops++;
    return VERDICT_REDIRECT;
}

static void back_off(transfer *t, bool broken) {
    const download_options *o = t->d->o;
    int64_t                 wait = o->retry_us > 0 ? o->retry_us : 500000;
    if (t->got >= GOT_AHEAD && t->d->ranges) {
        t->failures = 0;
    }
    t->failures++;
    if (!broken && t->failures == 1) {
        return; /* a server that gives so much at a time and no more: ask on at once */
    }
    for (int i = 1; i < t->failures && wait < MAX_WAIT_US; i++) {
        wait *= 2;
    }
    wait = wait < MAX_WAIT_US ? wait : MAX_WAIT_US;
    wait += wait / 4 * (clock_us() & 255) / 256; /* so that parts that broke together do not come back together */
    if (t->r.retry_after_s > 0 && t->r.retry_after_s * 1000000 > wait) {
        wait = t->r.retry_after_s * 1000000;
    }
    t->wait_until_us = clock_us() + wait;
}

verdict transfer_end(transfer *t, CURLcode code) {
    if (t->verdict == VERDICT_NONE && code == CURLE_OK) {
        t->verdict = judge(t); /* no body came */
    }
    verdict v = t->verdict;
    if (v == VERDICT_TAKE) {
        v = end_of_body(t, code);
    } else if (v == VERDICT_NONE) {
        http_broken(code, t->curl_error, url_of(t), &t->why);
        v = http_broken_passes(code) ? VERDICT_AGAIN : VERDICT_FAILED;
    } else if (v == VERDICT_REDIRECT) {
        v = follow(t);
    }
    if (v != VERDICT_REDIRECT) { /* signed addresses run out: the next attempt begins at the first one */
        free(t->url);
        t->url = NULL;
        t->hops = 0;
    }
    if (v == VERDICT_AGAIN) {
        back_off(t, code != CURLE_OK || t->r.status != 206);
    }
    transfer_drop(t);
    return v;
}
