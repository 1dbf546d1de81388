/* heads.c - the headers of requests and of answers, at little cost.
 *
 * evhttp keeps headers in a list of pairs, which evhttp_find_header walks for every question, and writes each pair of an
 * answer with a printf of its own. Here a request's list is walked once for all that every request is asked for, and what
 * pare adds to an answer is one entry of its list.                                                                      */
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/util.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "serve/front.h"

/* ---- of requests ---- */

#define WANTED(name, field)                                                                                            \
    { (name), sizeof(name) - 1, offsetof(heads, field) }

static const struct {
    const char *name;
    size_t      length, at;
} wanted[] = {
    WANTED("Authorization", authorization),
    WANTED("Cache-Control", cache_control),
    WANTED("Content-Length", content_length),
    WANTED("Host", host),
    WANTED("Origin", origin),
    WANTED("Transfer-Encoding", transfer_encoding),
    WANTED("x-api-key", api_key),
    WANTED("x-pare-debug", debug),
};

static void take(heads *h, const struct evkeyval *of, size_t length) {
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (wanted[i].length == length && strcasecmp(wanted[i].name, of->key) == 0) {
            const char **value = (const char **)((char *)h + wanted[i].at);
            *value = *value ? *value : of->value;
            h->lengths += value == &h->content_length;
            h->encodings += value == &h->transfer_encoding;
            return;
        }
    }
}

void heads_read(struct evhttp_request *r, heads *h) {
    *h = (heads){0};
    for (const struct evkeyval *of = evhttp_request_get_input_headers(r)->tqh_first; of; of = of->next.tqe_next) {
        const unsigned char *p = (const unsigned char *)of->key;
        for (; *p; p++) {
            h->strange |= (unsigned char)(*p - '!') > '~' - '!';
        }
        take(h, of, (size_t)((const char *)p - of->key));
    }
}

const char *heads_bearer(const heads *h) {
    const char *value = h->authorization;
    if (value && strncasecmp(value, "Bearer ", 7) == 0) {
        value += 7;
        while (*value == ' ') {
            value++;
        }
        return *value ? value : NULL;
    }
    return h->api_key && *h->api_key ? h->api_key : NULL;
}

const char *bearer_of(struct evhttp_request *r) {
    heads h;
    heads_read(r, &h);
    return heads_bearer(&h);
}

/* ---- of answers ---- */

/* Stands where a line ends, twice, until evhttp has taken the text: it takes none with line breaks. */
#define BREAK '\1'

/* A line that begins behind a value is another header. */
static bool is_one_line(const char *value) {
    const char never[] = {BREAK, '\r', '\n', '\0'};
    return !value[strcspn(value, never)];
}

static void add_name(str *head, const char *name) {
    const char end[2] = {BREAK, BREAK};
    str_add(head, end, sizeof end);
    str_adds(head, name);
    str_add(head, ": ", 2);
}

/* The entry's own name is Date, for which evhttp looks before it formats one. */
str *head_begin(front *f, const char *type) {
    str   *head = &f->text;
    time_t now = (time_t)(clock_wall_us() / 1000000);
    if (now != f->date_s) {
        f->date_s = now;
        struct tm utc;
        gmtime_r(&now, &utc);
        evutil_date_rfc1123(f->date, sizeof f->date, &utc);
    }
    str_clear(head);
    str_adds(head, f->date);
    head_add(head, "Content-Type", is_one_line(type) ? type : "application/json");
    return head;
}

void head_add(str *head, const char *name, const char *value) {
    if (is_one_line(value)) {
        add_name(head, name);
        str_adds(head, value);
    }
}

void head_add_usd(str *head, const char *name, int64_t micro) {
    add_name(head, name);
    str_usd(head, micro);
}

void head_end(const str *head, struct evhttp_request *r) {
    struct evkeyvalq *headers = evhttp_request_get_output_headers(r);
    if (head->failed || evhttp_add_header(headers, "Date", head->data) != 0) {
        return; /* out of memory: the answer goes without */
    }
    char *p = (char *)evhttp_find_header(headers, "Date"); /* evhttp's own copy, and the only one of that name */
    while ((p = strchr(p, BREAK))) {
        *p++ = '\r';
        *p++ = '\n';
    }
}

void head_length(struct evhttp_request *r, size_t n) {
    char digits[24], *p = digits + sizeof digits - 1;
    *p = '\0';
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    evhttp_add_header(evhttp_request_get_output_headers(r), "Content-Length", p);
}
