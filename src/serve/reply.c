#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/config.h"
#include "serve/door.h"
#include "serve/front.h"
#include "serve/slow.h"

const char *reason_of(int status) {
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 429:
        return "Too Many Requests";
    case 500:
        return "Internal Server Error";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    default:
        return status < 500 ? "Refused" : "Failed";
    }
}

void reply_send(struct evhttp_request *r, int status) {
    if (evhttp_request_get_command(r) == EVHTTP_REQ_HEAD) { /* evhttp (2.1) would send the body, and no length */
        struct evbuffer *body = evhttp_request_get_output_buffer(r);
        head_length(r, evbuffer_get_length(body));
        evbuffer_drain(body, evbuffer_get_length(body));
    }
    evhttp_send_reply(r, status, reason_of(status), NULL);
}

void reply_text(struct evhttp_request *r, int status, const char *type, const char *text, size_t n) {
    struct evkeyvalq *headers = evhttp_request_get_output_headers(r);
    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evbuffer_add(evhttp_request_get_output_buffer(r), text, n);
    reply_send(r, status);
}

void reply_json(struct evhttp_request *r, int status, const char *text, size_t n) {
    reply_text(r, status, "application/json", text, n);
}

const dialect *dialect_of(struct evhttp_request *r) {
    static const char        messages[] = "/v1/messages";
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r);
    const char              *path = uri ? evhttp_uri_get_path(uri) : NULL;
    bool                     below = path && strncmp(path, messages, sizeof messages - 1) == 0;
    return below || evhttp_find_header(evhttp_request_get_input_headers(r), "anthropic-version") ? &dialect_anthropic
                                                                                                 : &dialect_openai;
}

void reply_error(struct evhttp_request *r, int status, err_code code, const char *param, const char *format, ...) {
    char    text[480];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err e = {0};
    err_at(&e, code, param, "%s", text);
    str json = {0};
    if (dialect_of(r)->write_error(&e, status, &json) && !json.failed) {
        reply_json(r, status, json.data, json.len);
    } else {
        evhttp_send_error(r, status, NULL);
    }
    str_free(&json);
}

query_found query_get(struct evhttp_request *r, const char *name, char *out, size_t size) {
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r);
    const char              *query = uri ? evhttp_uri_get_query(uri) : NULL;
    struct evkeyvalq         pairs;
    query_found              found = QUERY_ABSENT;
    if (!query || !*query) {
        return QUERY_ABSENT;
    }
    if (evhttp_parse_query_str(query, &pairs) != 0) {
        return QUERY_UNREADABLE;
    }
    const char *value = evhttp_find_header(&pairs, name);
    if (value && strlen(value) < size) {
        memcpy(out, value, strlen(value) + 1);
        found = QUERY_FOUND;
    } else if (value) {
        found = QUERY_UNREADABLE;
    }
    evhttp_clear_headers(&pairs);
    return found;
}

bool query_window(struct evhttp_request *r, int64_t *window_us) {
    char        text[32] = "1h";
    query_found found = query_get(r, "window", text, sizeof text);
    if (found == QUERY_UNREADABLE || !parse_duration(text, window_us) || *window_us < 1000000 ||
        *window_us > 400LL * 86400 * 1000000) {
        reply_error(r, 400, ERR_INVALID, "window", "The window \"%s\" is not a time span; write it like 15m, 1h or 7d.",
                    found == QUERY_UNREADABLE ? "..." : text);
        return false;
    }
    return true;
}

/* ---- streams and connections ---- */

/* HTTP/1.0 knows no chunks: there the end of the connection is the end of the answer, also for a client that asked to
 * keep it (evhttp would give such an answer a Content-Length of 0). */
void reply_start_stream(struct evhttp_request *r) {
    if (r->major < 1 || (r->major == 1 && r->minor == 0)) {
        while (evhttp_remove_header(evhttp_request_get_input_headers(r), "Connection") == 0) {
        }
        evhttp_add_header(evhttp_request_get_output_headers(r), "Connection", "close");
    }
    evhttp_send_reply_start(r, 200, "OK");
}

bool request_is_ours(struct evhttp_request *r) {
    return evhttp_request_get_connection(r) == NULL;
}

/* evhttp stops reading while a request is being answered, and would not see the client leave. Reading goes on with
 * evhttp's read callback taken out, so that a pipelined next request waits in the buffer. */
void connection_watch(struct evhttp_connection *connection, void (*on_close)(struct evhttp_connection *, void *),
                      void                     *arg) {
    struct bufferevent  *b = evhttp_connection_get_bufferevent(connection);
    bufferevent_data_cb  on_read, on_write;
    bufferevent_event_cb on_event;
    void                *own;
    slow_answering(b);
    door_answering(b);
    evhttp_connection_set_closecb(connection, on_close, arg);
    bufferevent_getcb(b, &on_read, &on_write, &on_event, &own);
    bufferevent_setcb(b, NULL, on_write, on_event, own);
    bufferevent_setwatermark(b, EV_READ, 0, UNREAD_READ);
    bufferevent_set_timeouts(b, NULL, NULL); /* a long answer is no idle connection */
    bufferevent_enable(b, EV_READ);
}

void connection_unwatch(struct evhttp_connection *connection) {
    struct bufferevent *b = evhttp_connection_get_bufferevent(connection);
    struct timeval      limit = {.tv_sec = IDLE_S};
    slow_idle(b);
    door_answered(b);
    evhttp_connection_set_closecb(connection, NULL, NULL);
    bufferevent_setwatermark(b, EV_READ, 0, 0); /* or a next body past the mark would never come whole */
    bufferevent_set_timeouts(b, &limit, &limit);
}
