/* live.c - the dashboard's stream: finished exchanges as they come, and fresh statistics every two seconds.
 *
 * Rows pass through one small ring for all loops; a dashboard that is too slow misses rows, nothing waits for it.     */
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/keyvalq_struct.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/money.h"
#include "serve/front.h"

#define RING        64
#define PER_TICK    20
#define TICK_MS     500
#define STATS_TICKS 4
#define MAX_UNREAD  (1u << 20)

static struct {
    pthread_mutex_t lock;
    ledger_row      rows[RING];
    uint64_t        next; /* sequence number of the next row */
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct live_client {
    struct live_client    *next;
    front                 *front;
    struct evhttp_request *request; /* NULL once the browser has gone */
    uint64_t               seen;
    int64_t                window_us;
    int                    ticks;
    bool                   asking;  /* a statistics question is at the database */
    str                    engines; /* to be told with its answer */
} live_client;

void live_row(void *ctx, const ledger_row *row) {
    (void)ctx;
    pthread_mutex_lock(&ring.lock);
    ring.rows[ring.next++ % RING] = *row;
    pthread_mutex_unlock(&ring.lock);
}

static int take_rows(uint64_t *seen, ledger_row out[PER_TICK]) {
    int n = 0;
    pthread_mutex_lock(&ring.lock);
    if (ring.next - *seen > PER_TICK) {
        *seen = ring.next - PER_TICK; /* the newest ones */
    }
    while (*seen < ring.next) {
        out[n++] = ring.rows[(*seen)++ % RING];
    }
    pthread_mutex_unlock(&ring.lock);
    return n;
}

static void write_row(str *out, const ledger_row *row) {
    str_addf(out, "{\"time\":%.3f,\"id\":", (double)row->time_us / 1e6);
    str_jsons(out, row->id);
    str_adds(out, ",\"key\":");
    str_jsons(out, row->key);
    str_adds(out, ",\"model\":");
    str_jsons(out, row->model);
    str_adds(out, ",\"stage\":");
    str_jsons(out, row->stage);
    str_adds(out, ",\"backend\":");
    str_jsons(out, row->backend);
    str_addf(out, ",\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"cost_usd\":", (long long)row->prompt_tokens,
             (long long)row->completion_tokens);
    str_usd(out, money_micro(row->cost_nano));
    str_adds(out, ",\"saved_usd\":");
    str_usd(out, money_micro(row->saved_nano));
    str_addf(out, ",\"total_ms\":%.3f,\"outcome\":\"%s\",\"stream\":%s,\"status\":%d}", (double)row->total_us / 1e3,
             row->outcome, row->stream ? "true" : "false", row->status);
}

static void send_event(live_client *c, const char *name, const char *data, size_t n) {
    struct evbuffer *out = c->front->scratch;
    evbuffer_add_printf(out, "event: %s\ndata: ", name);
    evbuffer_add(out, data, n);
    evbuffer_add(out, "\n\n", 2);
    evhttp_send_reply_chunk(c->request, out);
    evbuffer_drain(out, evbuffer_get_length(out));
}

static void unlink_client(live_client *c) {
    for (live_client **at = &c->front->live; *at; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    if (!c->front->live) {
        evtimer_del(c->front->live_timer);
    }
}

static void free_client(live_client *c) {
    str_free(&c->engines);
    free(c);
}

static void on_stats(void *ctx, const str *json, const err *e) {
    live_client *c = ctx;
    c->asking = false;
    atomic_fetch_sub(&c->front->open, 1);
    if (!c->request) {
        free_client(c); /* the browser left while we asked */
        return;
    }
    if (!e) {
        str all = {0};
        admin_join(json, &c->engines, &all);
        if (!all.failed) {
            send_event(c, "stats", all.data, all.len);
        }
        str_free(&all);
    }
}

static void tick_client(live_client *c) {
    ledger_row rows[PER_TICK];
    int        n = take_rows(&c->seen, rows);
    if (n > 0) {
        str json = {0};
        str_addc(&json, '[');
        for (int i = 0; i < n; i++) {
            str_adds(&json, i ? "," : "");
            write_row(&json, &rows[i]);
        }
        str_addc(&json, ']');
        if (!json.failed) {
            send_event(c, "requests", json.data, json.len);
        }
        str_free(&json);
    }
    if (c->ticks++ % STATS_TICKS == 0 && !c->asking) {
        c->asking = true;
        str_clear(&c->engines);
        admin_engines(c->front, &c->engines);
        atomic_fetch_add(&c->front->open, 1);
        db_ask(c->front->house->db, c->front->loop, admin_query_stats, &c->window_us, sizeof c->window_us, on_stats, c);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    front *f = arg;
    for (live_client *c = f->live, *next; c; c = next) {
        next = c->next;
        struct bufferevent *b = evhttp_connection_get_bufferevent(evhttp_request_get_connection(c->request));
        if (evbuffer_get_length(bufferevent_get_output(b)) < MAX_UNREAD) {
            tick_client(c);
        }
    }
    struct timeval tv = {.tv_usec = TICK_MS * 1000};
    if (f->live) {
        evtimer_add(f->live_timer, &tv);
    }
}

static void on_close(struct evhttp_connection *connection, void *arg) {
    (void)connection;
    live_client *c = arg;
    if (request_is_ours(c->request)) {
        evhttp_request_free(c->request);
    }
    c->request = NULL;
    unlink_client(c);
    if (!c->asking) {
        free_client(c);
    }
}

void live_begin(front *f, struct evhttp_request *r) {
    int64_t window_us = 0;
    if (!query_window(r, &window_us)) {
        return;
    }
    if (server_draining(f->server)) {
        reply_error(r, 503, ERR_BUSY, "", "pare is being shut down.");
        return;
    }
    if (evhttp_request_get_command(r) == EVHTTP_REQ_HEAD) { /* a stream without a body would never end */
        reply_text(r, 200, "text/event-stream; charset=utf-8", "", 0);
        return;
    }
    live_client *c = calloc(1, sizeof *c);
    if (!f->live_timer) {
        f->live_timer = evtimer_new(loop_base(f->loop), on_tick, f);
    }
    if (!c || !f->live_timer) {
        free(c);
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
        return;
    }
    pthread_mutex_lock(&ring.lock);
    uint64_t seen = ring.next;
    pthread_mutex_unlock(&ring.lock);
    *c = (live_client){.next = f->live, .front = f, .request = r, .seen = seen, .window_us = window_us};
    bool first = !f->live;
    f->live = c;
    connection_watch(evhttp_request_get_connection(r), on_close, c);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(r);
    evhttp_add_header(headers, "Content-Type", "text/event-stream; charset=utf-8");
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    reply_start_stream(r);
    tick_client(c);
    if (first) {
        struct timeval tv = {.tv_usec = TICK_MS * 1000};
        evtimer_add(f->live_timer, &tv);
    }
}

void live_close_all(front *f) {
    if (f->live_timer) {
        evtimer_del(f->live_timer);
    }
    while (f->live) {
        live_client *c = f->live;
        f->live = c->next;
        connection_unwatch(evhttp_request_get_connection(c->request));
        evhttp_send_reply_end(c->request);
        c->request = NULL;
        if (!c->asking) { /* else on_stats frees it */
            free_client(c);
        }
    }
}
