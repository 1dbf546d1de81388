/* download_http.c - one HTTP exchange: its headers, where it may be sent on to, and sentences for what went wrong.
 *
 * Redirects are followed by hand, because a token must not go to another server and https must stay https.           */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/download_parts.h"

#define MAX_TEXT   ((size_t)32 << 20)
#define TEXT_TRIES 3
#define MAX_WAIT_S 300 /* a server that asks for more is not waited for */
#define LINE_SHOWN 200
#define USER_AGENT "pare/" PARE_VERSION

/* ---- URLs ---- */

static char *url_part(const char *url, CURLUPart part, unsigned flags) {
    CURLU *u = curl_url();
    char  *found = NULL, *copy = NULL;
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_get(u, part, &found, flags) == CURLUE_OK) {
        copy = strdup(found);
    }
    curl_free(found);
    curl_url_cleanup(u);
    return copy;
}

static bool same_part(const char *a, const char *b, CURLUPart part) {
    char *x = url_part(a, part, CURLU_DEFAULT_PORT), *y = url_part(b, part, CURLU_DEFAULT_PORT);
    bool  same = x && y && strcasecmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

bool url_same_origin(const char *a, const char *b) {
    return same_part(a, b, CURLUPART_SCHEME) && same_part(a, b, CURLUPART_HOST) && same_part(a, b, CURLUPART_PORT);
}

static bool has_scheme(const char *url, const char *scheme) {
    char *found = url_part(url, CURLUPART_SCHEME, 0);
    bool  is = found && strcasecmp(found, scheme) == 0;
    free(found);
    return is;
}

bool url_plain_or_tls(const char *url) {
    return has_scheme(url, "http") || has_scheme(url, "https");
}

static bool on_this_machine(const char *url) {
    char   *host = url_part(url, CURLUPART_HOST, 0);
    uint8_t bytes[4];
    bool    is = host && ((inet_pton(AF_INET, host, bytes) == 1 && bytes[0] == 127) ||
                       strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0);
    free(host);
    return is;
}

void url_shown(const char *url, char *out, size_t size) {
    CURLU *u = curl_url();
    char  *text = NULL;
    bool   ok = u && curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_USER, NULL, 0) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_PASSWORD, NULL, 0) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_QUERY, NULL, 0) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_URL, &text, 0) == CURLUE_OK;
    size_t n = (size_t)snprintf(out, size, "%s", ok ? text : "the address");
    for (size_t i = 0; i < n && i + 1 < size; i++) {
        out[i] = out[i] > 0x20 && out[i] < 0x7f ? out[i] : '?';
    }
    curl_free(text);
    curl_url_cleanup(u);
}

bool http_may_follow(const char *from, const char *to, int hops, err *e) {
    char here[LINE_SHOWN], there[LINE_SHOWN];
    url_shown(from, here, sizeof here);
    url_shown(to, there, sizeof there);
    if (hops >= DOWNLOAD_HOPS) {
        return err_set(e, ERR_UPSTREAM, "%s was reached after %d redirects and sends on again; pare stops there.", here,
                       hops);
    }
    if (!url_plain_or_tls(to)) {
        return err_set(e, ERR_UPSTREAM, "%s redirects to %s, which is not http or https.", here, there);
    }
    if (has_scheme(from, "https") && !has_scheme(to, "https")) {
        return err_set(e, ERR_UPSTREAM,
                       "%s redirects from https to plain http (%s), where anybody on the way could change the file; "
                       "pare does not follow.",
                       here, there);
    }
    return true;
}

char *http_redirect(CURL *easy, const char *from, int hops, err *e) {
    char *to = NULL;
    if (curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &to) != CURLE_OK || !to) {
        char here[LINE_SHOWN];
        url_shown(from, here, sizeof here);
        err_set(e, ERR_UPSTREAM, "%s answers with a redirect that does not say where to.", here);
        return NULL;
    }
    if (!http_may_follow(from, to, hops, e)) {
        return NULL;
    }
    char *copy = strdup(to);
    if (!copy) {
        err_set(e, ERR_MEMORY, "Out of memory.");
    }
    return copy;
}

/* ---- headers ---- */

/* Digits only, as HTTP has them; -1 for anything else. */
static int64_t whole_number(const char **p) {
    int64_t value = 0;
    if (!isdigit((unsigned char)**p)) {
        return -1;
    }
    for (; isdigit((unsigned char)**p); ++*p) {
        if (value > (INT64_MAX - 9) / 10) {
            return -1;
        }
        value = value * 10 + (**p - '0');
    }
    return value;
}

/* "bytes 0-9/10", "bytes 0-9" followed by "/" and a star, or "bytes", a star and "/10" (RFC 9110, 14.4). */
static void read_range(response *r, const char *v) {
    r->range = false;
    r->first = r->last = r->total = -1;
    if (strncasecmp(v, "bytes", 5) != 0 || !isspace((unsigned char)v[5])) {
        return;
    }
    v += 6;
    if (v[0] == '*') {
        v++;
    } else {
        r->first = whole_number(&v);
        if (r->first < 0 || *v++ != '-') {
            return;
        }
        r->last = whole_number(&v);
    }
    if (*v++ != '/') {
        return;
    }
    bool star = *v == '*';
    r->total = star ? -1 : whole_number(&v);
    r->range = r->first >= 0 && r->last >= r->first && (star || r->total > r->last);
}

static void copy_printable(const char *v, char *out, size_t size) {
    size_t n = 0;
    for (; *v && n + 1 < size; v++) {
        out[n++] = *v >= 0x20 && *v < 0x7f ? *v : '?';
    }
    out[n] = '\0';
}

/* A validator that had to be cut or mended is none. */
static void copy_validator(const char *v, char *out, size_t size) {
    copy_printable(v, out, size);
    if (strcmp(out, v) != 0) {
        out[0] = '\0';
    }
}

static void read_header(response *r, const char *name, const char *v) {
    if (strcasecmp(name, "content-length") == 0) {
        const char *p = v;
        r->length = whole_number(&p);
    } else if (strcasecmp(name, "content-range") == 0) {
        read_range(r, v);
    } else if (strcasecmp(name, "accept-ranges") == 0) {
        r->accepts = strcasecmp(v, "bytes") == 0;
    } else if (strcasecmp(name, "content-encoding") == 0) {
        r->coded = v[0] && strcasecmp(v, "identity") != 0;
    } else if (strcasecmp(name, "transfer-encoding") == 0) {
        r->chunked = true;
    } else if (strcasecmp(name, "etag") == 0) {
        copy_validator(v, r->etag, sizeof r->etag);
    } else if (strcasecmp(name, "last-modified") == 0) {
        copy_validator(v, r->modified, sizeof r->modified);
    } else if (strcasecmp(name, "x-error-message") == 0) {
        copy_printable(v, r->message, sizeof r->message);
    } else if (strcasecmp(name, "retry-after") == 0) {
        const char *p = v;
        r->retry_after_s = whole_number(&p); /* a date is not read: then the usual wait is taken */
    }
}

static void clear_response(response *r) {
    *r = (response){.length = -1, .first = -1, .last = -1, .total = -1, .retry_after_s = -1};
}

size_t http_header(char *line, size_t size, size_t count, void *arg) {
    response *r = arg;
    size_t    n = size * count;
    char      text[1024];
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        clear_response(r); /* one of several: 100 Continue, a proxy's own answer */
        return n;
    }
    if (n >= sizeof text || memchr(line, '\0', n)) {
        return n; /* none of those that are read is so long */
    }
    memcpy(text, line, n);
    text[n] = '\0';
    char *end = text + n;
    while (end > text && isspace((unsigned char)end[-1])) {
        *--end = '\0';
    }
    char *colon = strchr(text, ':');
    if (colon) {
        *colon++ = '\0';
        colon += strspn(colon, " \t");
        read_header(r, text, colon);
    }
    return n;
}

/* ---- a request ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode       started;

static void start_curl(void) {
    started = curl_global_init(CURL_GLOBAL_ALL);
}

static bool add_header(struct curl_slist **list, const char *name, const char *value) {
    str line = {0};
    str_addf(&line, "%s%s", name, value);
    struct curl_slist *longer = line.failed ? NULL : curl_slist_append(*list, line.data);
    str_free(&line);
    *list = longer ? longer : *list;
    return longer != NULL;
}

/* A token in the clear, over a network, is everybody's. */
static bool add_token(struct curl_slist **list, const char *url, const download_token *token, err *e) {
    if (!token || !token->token || !url_same_origin(url, token->origin)) {
        return true;
    }
    for (const char *p = token->token; *p; p++) {
        if (*p <= 0x20 || *p >= 0x7f) {
            return err_set(e, ERR_INVALID, "The token holds a character that no token has (a blank or a line's end?).");
        }
    }
    if (!has_scheme(url, "https") && !on_this_machine(url)) {
        char here[LINE_SHOWN];
        url_shown(url, here, sizeof here);
        return err_set(e, ERR_DENIED,
                       "%s is plain http: pare does not send a token there. Use https, or unset the token.", here);
    }
    return add_header(list, "Authorization: Bearer ", token->token) || err_set(e, ERR_MEMORY, "Out of memory.");
}

CURL *http_handle(const char *url, const char *accept, const download_token *token, const char *extra_header,
                  response *r, char *curl_error, struct curl_slist **headers, err *e) {
    pthread_once(&once, start_curl);
    clear_response(r);
    curl_error[0] = '\0';
    *headers = NULL;
    CURL *easy = started == CURLE_OK ? curl_easy_init() : NULL;
    bool  ok = easy && add_header(headers, "Accept: ", accept ? accept : "*/*") &&
              (!extra_header || add_header(headers, extra_header, ""));
    if (!ok) {
        err_set(e, ERR_MEMORY, "Out of memory for an HTTP request.");
    }
    if (!ok || !add_token(headers, url, token, e)) {
        curl_slist_free_all(*headers);
        *headers = NULL;
        curl_easy_cleanup(easy);
        return NULL;
    }
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, USER_AGENT);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, http_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, curl_error);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 20000L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* Over HTTP/2 all parts would share one connection, which is what parts are there to avoid. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    return easy;
}

/* ---- sentences ---- */

bool http_status_passes(const response *r) {
    long s = r->status;
    return (s == 408 || s == 425 || s == 429 || s == 500 || s == 502 || s == 503 || s == 504) &&
           r->retry_after_s <= MAX_WAIT_S;
}

bool http_refused(const response *r, const char *url, const char *denied, err *e) {
    char here[LINE_SHOWN], why[sizeof r->message + 8] = "";
    url_shown(url, here, sizeof here);
    if (r->message[0]) {
        snprintf(why, sizeof why, " (%s)", r->message);
    }
    switch (r->status) {
    case 401:
    case 403:
        return err_set(e, ERR_DENIED, "%s: the server does not let pare in, %ld%s.%s%s", here, r->status, why,
                       denied ? " " : "", denied ? denied : "");
    case 404:
    case 410:
        return err_set(e, ERR_NOT_FOUND, "%s: there is nothing of that name, %ld%s. Look at the spelling.", here,
                       r->status, why);
    case 416:
        return err_set(e, ERR_UPSTREAM,
                       "%s: the file is empty, or the server cannot find the part that was asked for "
                       "(416).",
                       here);
    case 429:
        if (r->retry_after_s > MAX_WAIT_S) {
            return err_set(e, ERR_BUSY, "%s: too many requests (429); the server asks to come back in %lld minutes.",
                           here, (long long)(r->retry_after_s + 59) / 60);
        }
        return err_set(e, ERR_BUSY, "%s: too many requests (429)%s; try again later.", here, why);
    default:
        return err_set(e, ERR_UPSTREAM, "%s: the server answers %ld%s%s.", here, r->status, why,
                       r->status >= 500 ? "; the fault is on its side, try again later" : "");
    }
}

bool http_broken_passes(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_AGAIN:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

bool http_broken(CURLcode code, const char *detail, const char *url, err *e) {
    char here[LINE_SHOWN];
    url_shown(url, here, sizeof here);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return err_set(e, ERR_IO, "%s: no address is known for that host. Is there a network?", here);
    case CURLE_COULDNT_CONNECT:
        return err_set(e, ERR_IO, "%s: nothing answers there.", here);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(e, ERR_TIMEOUT, "%s: the server went silent.", here);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return err_set(e, ERR_IO,
                       "%s: the server cannot prove that it is the one (%.120s); pare does not go on without.", here,
                       detail[0] ? detail : curl_easy_strerror(code));
    default:
        return err_set(e, ERR_IO, "%s: the connection broke (%.160s).", here,
                       detail[0] ? detail : curl_easy_strerror(code));
    }
}

/* ---- short answers ---- */

static size_t on_text(char *bytes, size_t size, size_t count, void *arg) {
    str   *out = arg;
    size_t n = size * count;
    return out->len + n <= MAX_TEXT && str_add(out, bytes, n) ? n : CURL_WRITEFUNC_ERROR;
}

/* One request. 1: an answer of any status, 0: none but another try may help, -1: none. */
static int ask(const char *url, const char *accept, const download_token *token, str *out, response *r, char **next,
               int hops, err *e) {
    char               detail[CURL_ERROR_SIZE];
    struct curl_slist *headers;
    CURL              *easy = http_handle(url, accept, token, NULL, r, detail, &headers, e);
    if (!easy) {
        return -1;
    }
    str_clear(out);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_text);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, out);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 60000L);
    CURLcode code = curl_easy_perform(easy);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &r->status);
    int result = 1;
    if (code == CURLE_OK && r->status >= 300 && r->status < 400) {
        *next = http_redirect(easy, url, hops, e);
        result = *next ? 1 : -1;
    } else if (code == CURLE_WRITE_ERROR) {
        char here[LINE_SHOWN];
        url_shown(url, here, sizeof here);
        err_set(e, ERR_LIMIT, "%s: the answer is larger than %zu MiB.", here, MAX_TEXT >> 20);
        result = -1;
    } else if (code != CURLE_OK) {
        http_broken(code, detail, url, e);
        result = http_broken_passes(code) ? 0 : -1;
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
    return result;
}

static void wait_before(int failures, const response *r) {
    int64_t         ms = r->retry_after_s > 0 ? r->retry_after_s * 1000 : INT64_C(500) << failures;
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

bool download_text(const char *url, const char *accept, const download_token *token, const char *denied, str *out,
                   err *e) {
    response r;
    int      failures = 0, hops = 0;
    char    *at = strdup(url);
    bool     ok = false;
    while (at) {
        char *next = NULL;
        int   got = ask(at, accept, token, out, &r, &next, hops, e);
        if (got > 0 && r.status == 200) {
            ok = true;
            break;
        }
        if (next) {
            free(at);
            at = next;
            hops++;
            continue;
        }
        if (got > 0) {
            http_refused(&r, at, denied, e);
            got = http_status_passes(&r) ? 0 : -1;
        }
        if (got < 0 || ++failures == TEXT_TRIES) {
            break;
        }
        wait_before(failures, &r);
    }
    if (!at) {
        err_set(e, ERR_MEMORY, "Out of memory.");
    }
    free(at);
    return ok;
}
