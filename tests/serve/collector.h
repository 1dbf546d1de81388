/* collector.h - a collector of telemetry that is told how to behave, a bed that sends to it, and how its JSON is read. */
#ifndef PARE_TESTS_COLLECTOR_H
#define PARE_TESTS_COLLECTOR_H

#include "bed.h"

#include <cjson/cJSON.h>

#include "serve/otlp_parts.h"

/* ---- a collector: answers as it is told, keeps what came ---- */

#define KEPT 64

typedef struct collector {
    int             fd, port;
    pthread_t       thread;
    pthread_mutex_t lock;
    atomic_int      stop, open, status, hang, requests, retry_after, partial;
    char           *paths[KEPT], *heads[KEPT];
    cJSON          *bodies[KEPT];
    int             n, unreadable;
    char            last[64];
} collector;

typedef struct collecting {
    collector *of;
    int        fd;
} collecting;

static inline void keep_request(collector *c, char *head, const char *body) {
    cJSON *root = cJSON_Parse(body);
    pthread_mutex_lock(&c->lock);
    c->unreadable += !root;
    if (root && c->n < KEPT) {
        char path[64] = "";
        sscanf(head, "POST %63s", path);
        c->paths[c->n] = strdup(path);
        c->heads[c->n] = strdup(head);
        c->bodies[c->n++] = root;
    } else {
        cJSON_Delete(root);
    }
    pthread_mutex_unlock(&c->lock);
}

static inline void *collect(void *arg) {
    collecting *q = arg;
    collector  *c = q->of;
    str         in = {0};
    char        bytes[65536];
    for (bool more = true; more && !atomic_load(&c->stop);) {
        struct pollfd p = {.fd = q->fd, .events = POLLIN};
        char         *end = in.data ? memmem(in.data, in.len, "\r\n\r\n", 4) : NULL;
        char         *length = end ? strcasestr(in.data, "content-length:") : NULL;
        size_t        head = end ? (size_t)(end - in.data) + 4 : 0, need = length ? strtoul(length + 15, NULL, 10) : 0;
        if (end && in.len >= head + need) {
            atomic_fetch_add(&c->requests, 1);
            while (atomic_load(&c->hang) && !atomic_load(&c->stop) &&
                   recv(q->fd, bytes, 1, MSG_PEEK | MSG_DONTWAIT) < 0) {
                nap(5);
            }
            int status = atomic_load(&c->status);
            if (atomic_load(&c->hang)) {
                break;
            }
            in.data[head - 1] = '\0';
            if (status == 200) {
                keep_request(c, in.data, in.data + head);
            }
            char        answer[200], retry[40] = "";
            int         after = atomic_load(&c->retry_after);
            const char *text = atomic_load(&c->partial) ? "{\"partialSuccess\":{\"rejectedSpans\":\"2\"}}" : "{}";
            if (after) {
                snprintf(retry, sizeof retry, "Retry-After: %d\r\n", after);
            }
            snprintf(answer, sizeof answer, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n%s", status, retry,
                     strlen(text), text);
            say(q->fd, answer);
            str_clear(&in);
            continue;
        }
        if (poll(&p, 1, 20) > 0) {
            ssize_t k = recv(q->fd, bytes, sizeof bytes, 0);
            more = k > 0 && str_add(&in, bytes, (size_t)k);
        }
    }
    str_free(&in);
    close(q->fd);
    free(q);
    atomic_fetch_sub(&c->open, 1);
    return NULL;
}

static inline void *accept_all(void *arg) {
    collector *c = arg;
    while (!atomic_load(&c->stop)) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        int           fd = poll(&p, 1, 20) > 0 ? accept(c->fd, NULL, NULL) : -1;
        if (fd >= 0) {
            collecting *q = calloc(1, sizeof *q);
            pthread_t   t;
            *q = (collecting){c, fd};
            atomic_fetch_add(&c->open, 1);
            assert_int_equal(pthread_create(&t, NULL, collect, q), 0);
            pthread_detach(t);
        }
    }
    return NULL;
}

static inline void collector_start(collector *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof a;
    int                port = c->port, one = 1;
    *c = (collector){.lock = PTHREAD_MUTEX_INITIALIZER, .status = 200};
    a.sin_port = htons((uint16_t)port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(c->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(c->fd, 64), 0);
    assert_int_equal(getsockname(c->fd, (struct sockaddr *)&a, &n), 0);
    c->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&c->thread, NULL, accept_all, c), 0);
}

static inline void collector_stop(collector *c) {
    atomic_store(&c->stop, 1);
    pthread_join(c->thread, NULL);
    while (atomic_load(&c->open) > 0) {
        nap(5);
    }
    close(c->fd);
    for (int i = 0; i < c->n; i++) {
        free(c->paths[i]);
        free(c->heads[i]);
        cJSON_Delete(c->bodies[i]);
    }
    c->n = 0;
}

/* ---- the bed ---- */

static const script scripts[] = {
    {"whole", JSON_HEAD, WHOLE, LENGTH, KEEP, NULL},
    {"stream", SSE_HEAD, GOOD_STREAM, CHUNKED, KEEP, NULL},
    {"wrong", "500 Oops\r\nContent-Type: application/json", "{\"error\":{\"message\":\"no\"}}", LENGTH, KEEP, NULL},
    {"many", "429 Slow\r\nContent-Type: application/json", "{\"error\":{\"message\":\"no\"}}", LENGTH, KEEP, NULL},
    {0}};

static bed       the;
static reply     r;
static collector col;

static inline void open_bed(const char *telemetry, const char *more) {
    char lines[1024];
    collector_start(&col);
    snprintf(lines, sizeof lines, "telemetry: {endpoint: \"http://127.0.0.1:%d/\", interval: 100ms%s}\n%s", col.port,
             telemetry, more);
    the = (bed){0};
    bed_open_with(&the, scripts, lines);
}

static inline int close_all(void **state) {
    (void)state;
    reply_free(&r);
    if (the.settings) {
        bed_close(&the);
        collector_stop(&col);
    }
    the = (bed){0};
    col = (collector){0};
    return 0;
}

/* ---- reading what came ---- */

static inline const cJSON *at(const cJSON *root, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(root, key);
    if (!v) {
        fail_msg("\"%s\" is missing", key);
    }
    return v;
}

static inline const char *text_at(const cJSON *root, const char *key) {
    const char *text = cJSON_GetStringValue(at(root, key));
    if (!text) {
        fail_msg("\"%s\" is no string", key);
    }
    return text;
}

static inline bool is_hex(const char *text, size_t n) {
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n && strspn(text, "0") < n;
}

/* 64-bit integers are decimal strings. */
static inline long long int64_at(const cJSON *root, const char *key) {
    const char *text = text_at(root, key);
    char       *end;
    long long   n = strtoll(text, &end, 10);
    assert_true(*text && !*end);
    return n;
}

static inline const cJSON *value_of(const cJSON *attributes, const char *key) {
    const cJSON *a, *found = NULL;
    cJSON_ArrayForEach(a, attributes) {
        if (strcmp(text_at(a, "key"), key) == 0) {
            assert_null(found); /* an attribute stands once */
            found = at(a, "value");
        }
    }
    return found;
}

static inline const char *string_of(const cJSON *attributes, const char *key) {
    const cJSON *v = value_of(attributes, key);
    return v ? cJSON_GetStringValue(cJSON_GetObjectItem(v, "stringValue")) : NULL;
}

static inline void has_string(const cJSON *attributes, const char *key, const char *want) {
    const char *found = string_of(attributes, key);
    if (!found || strcmp(found, want) != 0) {
        fail_msg("%s is \"%s\" and not \"%s\"", key, found ? found : "(none)", want);
    }
}

static inline void has_int(const cJSON *attributes, const char *key, long long want) {
    const cJSON *v = value_of(attributes, key);
    if (!v || int64_at(v, "intValue") != want) {
        fail_msg("%s is not %lld", key, want);
    }
}

static inline double double_of(const cJSON *attributes, const char *key) {
    const cJSON *v = value_of(attributes, key);
    assert_non_null(v);
    return at(v, "doubleValue")->valuedouble;
}

#endif
