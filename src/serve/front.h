/* front.h - one loop's side of the server, shared by the files of this room. Not for other rooms. */
#ifndef PARE_SERVE_FRONT_H
#define PARE_SERVE_FRONT_H

#include <event2/buffer.h>
#include <event2/http.h>
#include <stdatomic.h>

#include "serve/house.h"

#define IDLE_S      120        /* a connection without a request is closed; also one that does not take its answer */
#define UNREAD_READ (64 << 10) /* bytes that may wait behind a running request */

struct live_client;
struct client;

typedef struct front { /* everything here belongs to its loop */
    struct server              *server;
    house                      *house;
    generation                 *now; /* for new requests; held */
    struct slow_table          *slow;
    struct door_table          *door;
    loop                       *loop;
    struct evhttp              *http;
    struct evhttp_bound_socket *listener;
    struct event               *pause; /* of the listener, when the system gives no more descriptors */
    int64_t                     complained_us;
    struct evbuffer            *scratch;  /* for one chunk; empty between uses */
    str                         text;     /* for one event, or the head of an answer; its memory is kept */
    char                        date[32]; /* as a Date header has it, of the second date_s */
    int64_t                     date_s;
    struct client              *clients; /* exchanges that have not finished */
    struct live_client         *live;    /* open dashboards on this loop */
    struct event               *live_timer;
    _Atomic int                 open; /* exchanges whose answer is not out yet, and questions to the database */
    uint64_t                    next_id;
} front;

bool           server_draining(const struct server *v);
double         server_uptime(const struct server *v); /* seconds */
struct keeper *server_keeper(const struct server *v);
void           front_drop(front *f, generation *g); /* one reference less; retires it when it was the last */

/* ---- reply.c: whole answers ---- */

void reply_send(struct evhttp_request *r, int status); /* what is in its output buffer; to HEAD without the body */
void reply_json(struct evhttp_request *r, int status, const char *text, size_t n);
void reply_text(struct evhttp_request *r, int status, const char *type, const char *text, size_t n);
void reply_error(struct evhttp_request *r, int status, err_code code, const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
const char    *reason_of(int status);
/* Errors are in the form of the API that the request is of: Anthropic's below /v1/messages and where its version header is
 * sent, else OpenAI's. */
const dialect *dialect_of(struct evhttp_request *r);
/* A parameter of the query string into out. Unreadable: too long for out, or the query string is malformed. */
typedef enum query_found { QUERY_ABSENT, QUERY_FOUND, QUERY_UNREADABLE } query_found;
query_found query_get(struct evhttp_request *r, const char *name, char *out, size_t size);
/* "window", default 1h; false when it has been answered with 400. */
bool        query_window(struct evhttp_request *r, int64_t *window_us);

/* The head of an answer whose length is not known yet: 200, with the headers set so far. */
void reply_start_stream(struct evhttp_request *r);

/* For close callbacks: evhttp has let go of this request, which is ours to free now. Otherwise (evhttp_free) evhttp
 * frees it behind the callback. */
bool request_is_ours(struct evhttp_request *r);

/* Takes `connection` over while its request runs: on_close comes when the peer leaves, what it sends meanwhile waits in a
 * bounded buffer, and no time limit runs. */
void connection_watch(struct evhttp_connection *connection, void (*on_close)(struct evhttp_connection *, void *),
                      void                     *arg);
/* Back to how evhttp reads a request. */
void connection_unwatch(struct evhttp_connection *connection);

/* ---- heads.c: headers ---- */

/* What every request is looked at for: the first header of each name, or NULL. The values are the request's. */
typedef struct heads {
    const char *authorization, *api_key, *cache_control, *content_length, *debug, *host, *origin, *transfer_encoding;
    int         lengths, encodings; /* how many there are of these two */
    bool        strange;            /* a name has blanks or control characters in it (RFC 9112, 5.1) */
} heads;

void        heads_read(struct evhttp_request *r, heads *h);
/* The key as sent: Authorization: Bearer KEY or x-api-key: KEY; NULL when there is none. */
const char *heads_bearer(const heads *h);
const char *bearer_of(struct evhttp_request *r);

/* Headers of an answer: begun with its Date and type, collected in f->text, given to evhttp by head_end before the answer
 * is sent. A value with a line break in it is left out. */
str *head_begin(front *f, const char *type);
void head_add(str *head, const char *name, const char *value);
void head_add_usd(str *head, const char *name, int64_t micro);
void head_end(const str *head, struct evhttp_request *r);
void head_length(struct evhttp_request *r, size_t n); /* of the body; evhttp would add it too, at more cost */

/* ---- client.c: an exchange over HTTP ---- */

#define REQUEST_MAX_BODY (32u << 20) /* bytes of a request's body */

void client_begin(front *f, struct evhttp_request *r, const heads *h, request_kind kind, const dialect *speaks);
void client_stop_all(front *f); /* cancels what runs; the clients are told */
void client_drop_all(front *f); /* the loop and the backends have ended: frees what is left of the clients */

/* ---- admin.c: what the dashboard and `pare cache` ask ---- */

void admin_stats(front *f, struct evhttp_request *r);
/* db_ask's question for the statistics of the last *(const int64_t *)window_us. */
bool admin_query_stats(struct sqlite3 *db, const void *window_us, str *json, err *e);
/* How the local models are now, as a further member of the statistics: ,"engines":[...]; and the two joined. */
void admin_engines(const front *f, str *out);
void admin_join(const str *json, const str *more, str *out);
/* A question for the database's reader thread (db_ask); its answer is the reply, with `more` (",\"name\":value") in it, which
 * is taken over. */
void admin_ask(front *f, struct evhttp_request *r, db_query_fn query, const void *arg, size_t n, str more);
void admin_cache(front *f, struct evhttp_request *r);
void admin_reload(front *f, struct evhttp_request *r);
void admin_metrics(front *f, struct evhttp_request *r);

/* ---- admin_keys.c ---- */

/* /api/keys (name NULL), /api/keys/NAME and /api/groups/NAME; the name is percent-encoded. */
void admin_keys(front *f, struct evhttp_request *r, const char *name, bool group);
void admin_limits(front *f, struct evhttp_request *r);

/* ---- cors.c ---- */

bool cors_allow(const settings *s, struct evhttp_request *r); /* adds the headers; false: not that origin */
void cors_preflight(const settings *s, struct evhttp_request *r);
/* A page of a site that is not listed: without keys nothing else would keep it from asking in its reader's name. */
bool cors_is_stranger(const settings *s, const heads *h);

/* ---- live.c: the dashboard's stream ---- */

void live_begin(front *f, struct evhttp_request *r);
void live_close_all(front *f);
void live_row(void *ctx, const ledger_row *row); /* gateway.live */

/* ---- responses_routes.c: answers that are kept ---- */

/* What stands behind "/v1/responses/": all methods. */
void stored_response(front *f, struct evhttp_request *r, const char *id_and_rest);

/* ---- count_tokens.c ---- */

void    count_tokens(front *f, struct evhttp_request *r);
int64_t count_tokens_estimate(const request *r); /* by the shape of the texts */

/* ---- models.c: GET /v1/models ---- */

bool may_ask(front *f, struct evhttp_request *r); /* false: no key that is known; it has been answered */
void models_answer(front *f, struct evhttp_request *r, const char *name); /* NULL: all of them */

/* ---- routes.c ---- */

void routes_handle(struct evhttp_request *r, void *arg); /* arg: front */

#endif
