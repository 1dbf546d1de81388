#include "serve/door.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "serve/front.h"

#define SLOTS     16384 /* a power of two */
#define PROBES    8
#define MAX_HEAD  (200u << 10)  /* evhttp takes 64 KiB (server.c) without the ends of its lines: two bytes of three */
#define LINGER_S  2             /* so long the rest of a refused body is read and dropped, so that the answer is read */
#define MAX_VALUE 1024          /* of a key */
#define STALE_S   (IDLE_S + 10) /* a head that has not gone on for so long is of a connection that has closed */
#define SWEPT     16            /* slots, with each new connection */

typedef enum doing {
    READS_HEAD,
    READS_BODY,  /* nothing is asked of it */
    COUNTS_BODY, /* of a stranger, in chunks: `left` may still come */
    IS_STRANGER, /* to be refused with its next bytes */
    WAS_REFUSED
} doing;

typedef struct slot {
    const struct bufferevent *of;
    str                       head;  /* what there is of one that is not whole */
    uint8_t                   doing; /* enum doing */
    bool                      answering, anthropic;
    size_t                    left;
    int64_t                   since_us; /* that it was refused; else that some of its head came */
} slot;

struct door_table {
    struct front        *front;
    bufferevent_event_cb on_evhttp_event; /* evhttp's, the same for all of its connections */
    uint64_t             swept;           /* slots, in their order */
    slot                 slots[SLOTS];
};

/* evbuffer's callbacks carry one pointer, which is the connection. */
static _Thread_local door_table *here;

door_table *door_new(struct front *f) {
    door_table *t = calloc(1, sizeof *t); /* pages are touched as connections come */
    if (t) {
        t->front = f;
    }
    return t;
}

void door_free(door_table *t) {
    for (size_t i = 0; t && i < SLOTS; i++) {
        str_free(&t->slots[i].head);
    }
    free(t);
}

void door_here(door_table *t) {
    here = t;
}

static void forget_head(slot *s) {
    str_free(&s->head);
}

/* Its own, else a free one, else the first, which starts anew in the middle of whatever it does. */
static slot *slot_of(const struct bufferevent *b) {
    uint64_t h = (uint64_t)(uintptr_t)b * 0x9E3779B97F4A7C15u >> 50;
    slot    *best = &here->slots[h % SLOTS];
    for (uint64_t i = 0; i < PROBES; i++) {
        slot *s = &here->slots[(h + i) % SLOTS];
        if (s->of == b) {
            return s;
        }
        if (!s->of) {
            best = s;
            break;
        }
    }
    forget_head(best);
    *best = (slot){.of = b, .doing = READS_BODY};
    return best;
}

/* ---- a head ---- */

typedef struct text {
    const char *at;
    size_t      n;
} text;

typedef struct seen {
    text authorization, api_key, length;
    int  lengths, encodings;
    bool folded, anthropic;
} seen;

static bool is_named(text name, const char *wanted) {
    return name.n == strlen(wanted) && strncasecmp(name.at, wanted, name.n) == 0;
}

static text trimmed(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    while (end > at && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) {
        end--;
    }
    return (text){at, (size_t)(end - at)};
}

static void see_line(seen *s, const char *at, const char *end) {
    const char *colon = memchr(at, ':', (size_t)(end - at));
    if (*at == ' ' || *at == '\t') {
        s->folded = true;
    }
    if (!colon) {
        return;
    }
    text name = {at, (size_t)(colon - at)}, value = trimmed(colon + 1, end);
    if (is_named(name, "Authorization")) {
        s->authorization = s->authorization.at ? s->authorization : value;
    } else if (is_named(name, "x-api-key")) {
        s->api_key = s->api_key.at ? s->api_key : value;
    } else if (is_named(name, "Content-Length")) {
        s->length = s->length.at ? s->length : value;
        s->lengths++;
    } else if (is_named(name, "Transfer-Encoding")) {
        s->encodings++;
    } else if (is_named(name, "anthropic-version")) {
        s->anthropic = true;
    }
}

static seen see_head(const char *head, size_t n) {
    static const char messages[] = "/v1/messages";
    seen              s = {0};
    const char       *end = head + n, *line = memchr(head, '\n', n);
    const char       *path = memchr(head, ' ', n);
    s.anthropic =
        path && (size_t)(end - path) > sizeof messages && memcmp(path + 1, messages, sizeof messages - 1) == 0;
    while (line && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        see_line(&s, line, next ? next : end);
        line = next;
    }
    return s;
}

static bool is_known(const seen *s) {
    char secret[MAX_VALUE];
    text value = s->api_key;
    if (s->authorization.n > 7 && strncasecmp(s->authorization.at, "Bearer ", 7) == 0) {
        value = trimmed(s->authorization.at + 7, s->authorization.at + s->authorization.n);
    }
    if (value.n == 0 || value.n >= sizeof secret) {
        return false;
    }
    memcpy(secret, value.at, value.n);
    secret[value.n] = '\0';
    return gateway_key(&here->front->now->gateway, secret) != NULL;
}

/* What can be read in more ways than one is taken for long; routes.c refuses it when it has come. */
static bool is_long(const seen *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->length.n; i++) {
        unsigned digit = (unsigned)((unsigned char)s->length.at[i] - '0');
        if (digit > 9 || n > DOOR_BODY) {
            return true;
        }
        n = 10 * n + digit;
    }
    return n > DOOR_BODY || s->lengths > 1 || s->folded;
}

static void judge(slot *s, const char *head, size_t n) {
    seen h = see_head(head, n);
    bool is_big = is_long(&h);
    s->doing = READS_BODY;
    s->anthropic = h.anthropic;
    if ((is_big || h.encodings > 0) && !is_known(&h)) {
        s->doing = is_big ? IS_STRANGER : COUNTS_BODY;
        s->left = DOOR_BODY;
    }
}

/* ---- refusing ---- */

static void end_connection(struct bufferevent *b, short what, void *connection) {
    (void)what;
    here->on_evhttp_event(b, BEV_EVENT_TIMEOUT | BEV_EVENT_READING, connection);
}

/* What still comes is dropped: a connection that is closed with bytes unread is reset, and its answer lost. */
static void drop(struct bufferevent *b, void *connection) {
    struct evbuffer *in = bufferevent_get_input(b);
    evbuffer_drain(in, evbuffer_get_length(in));
    if (clock_us() - slot_of(b)->since_us > LINGER_S * 1000000LL) {
        end_connection(b, 0, connection);
    }
}

static void put_answer(const slot *s, struct evbuffer *out) {
    const dialect *speaks = s->anthropic ? &dialect_anthropic : &dialect_openai;
    err            e = {0};
    str            json = {0};
    err_set(&e, ERR_DENIED,
            "No API key that is known here, and a body of more than %zu bytes: it was not read. Send the key as "
            "\"Authorization: Bearer KEY\".",
            DOOR_BODY);
    bool ok = speaks->write_error(&e, 401, &json) && !json.failed;
    evbuffer_add_printf(out,
                        "HTTP/1.1 401 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                        "Connection: close\r\n\r\n%s",
                        reason_of(401), ok ? json.len : 0, ok ? json.data : "");
    str_free(&json);
}

/* evhttp has not begun with this request, or waits for its body: it hears of a time-out when the answer is out. */
static void refuse(slot *s, struct bufferevent *b) {
    static const struct timeval linger = {.tv_sec = LINGER_S};
    bufferevent_data_cb         on_read, on_write;
    void                       *connection;
    bufferevent_getcb(b, &on_read, &on_write, &here->on_evhttp_event, &connection);
    s->doing = WAS_REFUSED;
    s->since_us = clock_us();
    put_answer(s, bufferevent_get_output(b));
    bufferevent_setcb(b, drop, NULL, end_connection, connection);
    bufferevent_set_timeouts(b, &linger, &linger);
    bufferevent_enable(b, EV_READ | EV_WRITE);
}

/* ---- bytes ---- */

/* Behind the empty line at a head's end; 0: it has not come. `from`: where to look, a head's last bytes before included. */
static size_t end_of_head(const char *at, size_t n, size_t from) {
    for (const char *p = at + from; (p = memchr(p, '\n', n - (size_t)(p - at)));) {
        size_t rest = n - (size_t)(++p - at);
        if (rest >= 1 && p[0] == '\n') {
            return (size_t)(p - at) + 1;
        }
        if (rest >= 2 && p[0] == '\r' && p[1] == '\n') {
            return (size_t)(p - at) + 2;
        }
    }
    return 0;
}

static void count(slot *s, size_t n) {
    s->left -= n < s->left ? n : s->left;
    s->doing = s->left == 0 ? IS_STRANGER : s->doing;
}

/* Keeps what there is of a head that is not whole. */
static bool keep(slot *s, const char *at, size_t n) {
    if (s->head.len + n > MAX_HEAD || !str_add(&s->head, at, n)) {
        return false;
    }
    s->since_us = clock_us();
    return true;
}

static void take_head(slot *s, const char *at, size_t n) {
    size_t had = s->head.len, end;
    if (had == 0 && (end = end_of_head(at, n, 0)) > 0) {
        judge(s, at, end);
    } else if (!keep(s, at, n)) { /* evhttp refuses such a head, or there is no memory for it either */
        forget_head(s);
        s->doing = READS_BODY;
        return;
    } else if ((end = end_of_head(s->head.data, s->head.len, had > 3 ? had - 3 : 0)) > 0) {
        judge(s, s->head.data, end);
        forget_head(s);
    } else {
        return;
    }
    if (s->doing == COUNTS_BODY) {
        count(s, had + n - end);
    }
}

static void take(slot *s, struct evbuffer *in, size_t from) {
    struct evbuffer_ptr   at;
    struct evbuffer_iovec parts[16];
    while (from < evbuffer_get_length(in) && evbuffer_ptr_set(in, &at, from, EVBUFFER_PTR_SET) == 0) {
        int n = evbuffer_peek(in, -1, &at, parts, 16);
        n = n < 16 ? n : 16;
        for (int i = 0; i < n; i++) {
            from += parts[i].iov_len;
            if (s->doing == READS_HEAD) {
                take_head(s, parts[i].iov_base, parts[i].iov_len);
            } else if (s->doing == COUNTS_BODY) {
                count(s, parts[i].iov_len);
            }
        }
        if (n <= 0) {
            return;
        }
    }
}

static void on_bytes(struct evbuffer *in, const struct evbuffer_cb_info *info, void *arg) {
    struct bufferevent *b = arg;
    if (info->n_added == 0 || !here || here->front->now->gateway.n_keys == 0) {
        return;
    }
    slot *s = slot_of(b);
    if (s->doing == READS_HEAD || s->doing == COUNTS_BODY) {
        take(s, in, info->orig_size);
    }
    if (s->doing == IS_STRANGER && !s->answering) {
        refuse(s, b);
    }
}

/* Nobody says here that a connection closes; one that is answered may be silent for longer. */
static void sweep(door_table *t) {
    int64_t before = clock_us() - STALE_S * 1000000LL;
    for (int i = 0; i < SWEPT; i++) {
        slot *s = &t->slots[t->swept++ % SLOTS];
        if (s->head.data && !s->answering && s->since_us < before) {
            forget_head(s);
        }
    }
}

void door_watch(struct bufferevent *b) {
    if (here) {
        sweep(here);
        slot *s = slot_of(b);
        forget_head(s);
        *s = (slot){.of = b};
        evbuffer_add_cb(bufferevent_get_input(b), on_bytes, b);
    }
}

/* Some of the next request may have come with this one's end. */
void door_idle(struct bufferevent *b) {
    slot *s = here ? slot_of(b) : NULL;
    if (s) {
        forget_head(s);
        *s = (slot){.of = b, .answering = s->answering};
        if (here->front->now->gateway.n_keys > 0) {
            take(s, bufferevent_get_input(b), 0);
        }
    }
}

void door_answering(struct bufferevent *b) {
    if (here) {
        slot_of(b)->answering = true;
    }
}

void door_answered(struct bufferevent *b) {
    slot *s = here ? slot_of(b) : NULL;
    if (s) {
        s->answering = false;
        s->since_us = clock_us();
    }
}
