/* admin.c - the operator's questions: statistics, metrics, the cache. */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/keeper.h"
#include "serve/later.h"
#include "stage/counters.h"
#include "stage/shared.h"

/* ---- answers that come from the database's reader thread ---- */

typedef struct question {
    later *reply;
    str    more; /* members to be added to the answer's object: ,"name":value */
} question;

static void answered(void *ctx, const str *json, const err *e) {
    question *q = ctx;
    str       all = {0};
    if (!e) {
        admin_join(json, &q->more, &all);
    }
    later_reply(q->reply, e ? 500 : 200, &all, e);
    str_free(&all);
    str_free(&q->more);
    free(q);
}

void admin_ask(front *f, struct evhttp_request *r, db_query_fn query, const void *arg, size_t n, str more) {
    question *q = more.failed ? NULL : calloc(1, sizeof *q);
    later    *l = q ? later_begin(f, r) : NULL;
    if (!l) {
        if (!q) {
            reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
        }
        str_free(&more);
        free(q);
        return;
    }
    *q = (question){.reply = l, .more = more};
    db_ask(f->house->db, f->loop, query, arg, n, answered, q);
}

/* ---- POST /api/reload ---- */

static void reloaded(void *ctx, const err *e) {
    str text = {0};
    str_adds(&text, "{\"reloaded\":true}");
    later_send(ctx, e ? 400 : 200, &text, e);
    str_free(&text);
}

void admin_reload(front *f, struct evhttp_request *r) {
    later *l = later_begin(f, r);
    if (l && !keeper_reload(server_keeper(f->server), reloaded, l)) {
        err why = {0};
        err_set(&why, ERR_MEMORY, "Out of memory.");
        later_reply(l, 500, NULL, &why);
    }
}

bool admin_query_stats(struct sqlite3 *db, const void *window_us, str *json, err *e) {
    return ledger_stats(db, clock_wall_us(), *(const int64_t *)window_us, json, e);
}

void admin_join(const str *json, const str *more, str *out) {
    size_t n = json->len > 0 && json->data[json->len - 1] == '}' ? json->len - 1 : json->len;
    str_add(out, json->data, n);
    str_add(out, more->data ? more->data : "", more->len);
    str_add(out, json->data + n, json->len - n);
}

void admin_engines(const front *f, str *out) {
    const gateway *g = &f->now->gateway;
    const char    *comma = "";
    str_adds(out, ",\"engines\":[");
    for (int i = 0; i < g->n_backends; i++) {
        if (g->backends[i]->ops->status) {
            str_adds(out, comma);
            g->backends[i]->ops->status(g->backends[i], out);
            comma = ",";
        }
    }
    str_addc(out, ']');
}

void admin_stats(front *f, struct evhttp_request *r) {
    int64_t window_us = 0;
    str     engines = {0};
    if (query_window(r, &window_us)) {
        admin_engines(f, &engines);
        admin_ask(f, r, admin_query_stats, &window_us, sizeof window_us, engines);
    }
}

/* The backends' own: those of one kind write theirs together. */
static void backend_metrics(const gateway *g, str *out) {
    for (int i = 0; i < g->n_backends; i++) {
        const backend_ops *ops = g->backends[i]->ops;
        int                first = 0;
        while (g->backends[first]->ops != ops) {
            first++;
        }
        if (ops->metrics && first == i) {
            ops->metrics(g->backends, g->n_backends, out);
        }
    }
}

static void process_metrics(const front *f, str *out) {
    str_addf(out,
             "# HELP pare_log_dropped_total Lines of the log that stderr did not take in time.\n"
             "# TYPE pare_log_dropped_total counter\npare_log_dropped_total %lld\n"
             "# HELP pare_build_info The version that runs.\n# TYPE pare_build_info gauge\n"
             "pare_build_info{version=\"" PARE_VERSION "\"} 1\n"
             "# HELP pare_uptime_seconds Since the server began.\n# TYPE pare_uptime_seconds gauge\n"
             "pare_uptime_seconds %.3f\n",
             (long long)log_dropped(), server_uptime(f->server));
}

void admin_metrics(front *f, struct evhttp_request *r) {
    const gateway *g = &f->now->gateway;
    str            out = {0};
    counters_write(g->counters, &out);
    if (g->cache) {
        cache_stats c;
        cache_stats_read(g->cache, &c);
        str_addf(
            &out,
            "# HELP pare_cache_entries Stored answers in memory.\n# TYPE pare_cache_entries gauge\npare_cache_entries "
            "%zu\n# HELP pare_cache_bytes Memory of the stored answers.\n# TYPE pare_cache_bytes gauge\n"
            "pare_cache_bytes %zu\n# HELP pare_cache_evicted_total Answers that made room for others.\n"
            "# TYPE pare_cache_evicted_total counter\npare_cache_evicted_total %lld\n",
            c.entries, c.bytes, (long long)c.evicted);
    }
    db_stats d;
    db_stats_read(g->db, &d);
    str_addf(
        &out,
        "# HELP pare_ledger_rows_total Ledger rows written.\n# TYPE pare_ledger_rows_total counter\n"
        "pare_ledger_rows_total %lld\n# HELP pare_ledger_waiting Rows that wait to be written.\n"
        "# TYPE pare_ledger_waiting gauge\npare_ledger_waiting %lld\n# HELP pare_ledger_failures_total Failed commits, "
        "retried later.\n# TYPE pare_ledger_failures_total counter\npare_ledger_failures_total %lld\n",
        (long long)d.rows_written, (long long)d.rows_waiting, (long long)d.failures);
    backend_metrics(g, &out);
    if (g->shared) {
        shared_metrics(g->shared, &out);
    }
    if (f->house->otlp) {
        otlp_metrics(f->house->otlp, &out);
    }
    process_metrics(f, &out);
    if (out.failed) {
        reply_error(r, 500, ERR_MEMORY, "", "Out of memory.");
    } else {
        reply_text(r, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len);
    }
    str_free(&out);
}

/* ---- the cache ---- */

static void purge(front *f, struct evhttp_request *r) {
    const gateway *g = &f->now->gateway;
    char           model[128], space[64], key[65];
    query_found    by_model = query_get(r, "model", model, sizeof model);
    query_found    by_space = query_get(r, "space", space, sizeof space);
    query_found    by_key = query_get(r, "key", key, sizeof key);
    size_t         count = 0;
    if (by_model == QUERY_UNREADABLE || by_space == QUERY_UNREADABLE || by_key == QUERY_UNREADABLE) {
        reply_error(r, 400, ERR_INVALID, "", "The query cannot be read; name model, space or key, or nothing for all.");
        return; /* never all of it by mistake */
    }
    if (by_key) {
        sha256 hash;
        if (strlen(key) != 64 || !hex_decode(key, hash.bytes, sizeof hash.bytes)) {
            reply_error(r, 400, ERR_INVALID, "key", "A cache key has 64 hex digits.");
            return;
        }
        count = cache_remove(g->cache, &hash);
        db_cache_remove(g->db, &hash);
    } else {
        count = cache_purge(g->cache, by_model ? model : NULL, by_space ? space : NULL);
        db_cache_purge(g->db, by_model ? model : NULL, by_space ? space : NULL);
    }
    str out = {0};
    str_addf(&out, "{\"purged\":%zu}", count);
    reply_json(r, 200, out.data, out.len);
    str_free(&out);
}

static bool query_list(struct sqlite3 *db, const void *arg, str *json, err *e) {
    return db_cache_list(db, *(const int *)arg, json, e);
}

void admin_cache(front *f, struct evhttp_request *r) {
    const gateway *g = &f->now->gateway;
    if (!g->cache) {
        reply_error(r, 404, ERR_NOT_FOUND, "", "The cache is switched off (cache.enabled in pare.yaml).");
        return;
    }
    if (evhttp_request_get_command(r) == EVHTTP_REQ_DELETE) {
        purge(f, r);
        return;
    }
    char limit[16];
    if (query_get(r, "list", limit, sizeof limit) == QUERY_FOUND) {
        long asked = strtol(limit, NULL, 10);
        int  n = asked < 1 ? 50 : asked > 10000 ? 10000 : (int)asked;
        admin_ask(f, r, query_list, &n, sizeof n, (str){0});
        return;
    }
    cache_stats s;
    cache_stats_read(g->cache, &s);
    str out = {0};
    str_addf(&out,
             "{\"entries\":%zu,\"bytes\":%zu,\"max_bytes\":%zu,\"hits\":%lld,\"misses\":%lld,\"stored\":%lld,"
             "\"evicted\":%lld,"
             "\"expired\":%lld,\"ttl_s\":%lld}",
             s.entries, s.bytes, s.max_bytes, (long long)s.hits, (long long)s.misses, (long long)s.stored,
             (long long)s.evicted, (long long)s.expired, (long long)(g->cache_ttl_us / 1000000));
    reply_json(r, 200, out.data, out.len);
    str_free(&out);
}
