#include "serve/house.h"

#include <stdlib.h>
#include <string.h>

#include "backend/on_demand.h"
#include "base/files.h"
#include "base/log.h"
#include "stage/counters.h"
#include "stage/flights.h"
#include "stage/shared.h"
#include "store/keys.h"

static bool make_data_directory(const char *path, err *e) {
    err why = {0};
    return directory_make(path, &why) ||
           err_set(e, why.code, "The data directory: %s. Name another with --data DIR.", why.text);
}

/* The node's name is the database's: what it has spent stays its own over a restart. */
static bool open_shared(house *h, const settings *s, err *e) {
    char            node[20];
    struct sqlite3 *c = keys_connect(s->data, false, e);
    bool            named = c && keys_node(c, node, e);
    keys_disconnect(c);
    h->shared = named ? shared_new(s->shared.redis, node, s->shared.share, e) : NULL;
    return h->shared != NULL;
}

static bool open_stores(house *h, const settings *s, err *e) {
    if (!make_data_directory(s->data, e)) {
        return false;
    }
    str path = {0};
    str_addf(&path, "%s/pare.db", s->data);
    h->db = path.failed ? NULL : db_open(path.data, e);
    str_free(&path);
    if (!h->db) {
        return false;
    }
    db_ledger_keep(h->db, s->ledger_keep_us);
    if (s->shared.redis && !open_shared(h, s, e)) {
        return false;
    }
    if (!s->cache) {
        return true;
    }
    h->cache = cache_new((size_t)s->cache_bytes, e);
    h->flights = flights_new();
    if (!h->cache || !h->flights) {
        return h->cache ? err_set(e, ERR_MEMORY, "Out of memory.") : false;
    }
    err why = {0};
    h->cached_loaded = db_cache_load(h->db, h->cache, &why);
    if (h->cached_loaded < 0) { /* a cache that cannot be read is an empty cache, not a reason to stay down */
        log_warn("the stored answers could not be read: %s", why.text);
        h->cached_loaded = 0;
    }
    return true;
}

house *house_new(err *e) {
    house *h = calloc(1, sizeof *h);
    if (!h) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    pthread_mutex_init(&h->lock, NULL);
    return h;
}

bool house_fill(house *h, settings *s, void (*say)(const char *line), err *e) {
    h->counters = counters_new();
    stage *const row[] = {&stage_account, &stage_admit, &stage_converse, &stage_recall,
                          &stage_budget,  &stage_route, &stage_answer};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        pipeline_add(&h->pipeline, row[i]);
    }
    h->limits = limits_new(e);
    bool ok = h->counters && h->limits ? true : err_set(e, ERR_MEMORY, "Out of memory.");
    ok = ok && (!s->otlp.endpoint || (h->otlp = otlp_start(&s->otlp, h->counters, e)) != NULL);
    return ok && open_stores(h, s, e) && (h->now = generation_open(h, s, false, say, e)) != NULL;
}

house *house_open(settings *s, void (*say)(const char *line), err *e) {
    house *h = house_new(e);
    if (h && !house_fill(h, s, say, e)) {
        house_close(h);
        h = NULL;
    }
    return h;
}

generation *house_now(house *h) {
    pthread_mutex_lock(&h->lock);
    generation *g = generation_hold(h->now);
    pthread_mutex_unlock(&h->lock);
    return g;
}

static bool same_shared(const setting_shared *a, const setting_shared *b) {
    bool same = !a->redis == !b->redis && (!a->redis || strcmp(a->redis, b->redis) == 0);
    return same && !(a->share < b->share) && !(a->share > b->share);
}

/* What is made once: changing it needs a restart, and half a change would be worse than none. */
static bool same_frame(const settings *was, const settings *is, err *e) {
    const char *what = NULL;
    if (strcmp(was->address, is->address) != 0 || was->port != is->port) {
        what = "listen";
    } else if (strcmp(was->data, is->data) != 0) {
        what = "data";
    } else if (was->loops != is->loops || was->threads != is->threads) {
        what = "loops and threads";
    } else if (was->memory_bytes != is->memory_bytes || was->idle_us != is->idle_us) {
        what = "memory and idle";
    } else if (was->cache_bytes != is->cache_bytes || (is->cache && !was->cache)) {
        what = "cache.size and cache.enabled";
    } else if (!same_shared(&was->shared, &is->shared)) {
        what = "shared";
    } else if (!was->tls.certificate != !is->tls.certificate) {
        what = "whether TLS is spoken";
    } else if (!otlp_same(&was->otlp, &is->otlp)) {
        what = "telemetry";
    }
    return !what ||
           err_set(e, ERR_INVALID, "%s cannot change while pare runs: restart it, or take the change back.", what);
}

static void adopt(house *h, generation *is) {
    pthread_mutex_lock(&h->lock);
    generation *was = h->now;
    h->now = generation_hold(is);
    pthread_mutex_unlock(&h->lock);
    if (generation_drop(was)) {
        generation_free(was);
    }
}

generation *house_renew(house *h, settings *s, err *e) {
    generation *was = house_now(h), *is = NULL;
    if (same_frame(was->settings, s, e)) {
        is = generation_open(h, s, true, NULL, e);
    } else {
        settings_free(s);
    }
    generation_drop(was); /* the house's own reference remains */
    if (is) {
        adopt(h, is);
        log_setup(s->log_level, s->log_json);
    }
    return is;
}

generation *house_rekey(house *h, err *e) {
    generation *is = generation_rekey(h->now, e); /* whose only writer is this thread */
    if (is) {
        adopt(h, is);
    }
    return is;
}

void house_stop(house *h) {
    if (h->now) {
        generation_close_groups(h->now);
    }
    opened_close_all(h);
    if (h->now) {
        h->now->gateway.n_backends = 0;
    }
    if (h->now && h->now->root) {
        h->now->root->gateway.n_backends = 0;
    }
    otlp_stop(h->otlp);
    if (h->db) {
        db_close(h->db); /* its reader's answers go to the loops */
        h->db = NULL;
    }
}

void house_close(house *h) {
    if (!h) {
        return;
    }
    house_stop(h);
    if (h->now && generation_drop(h->now)) {
        generation_free(h->now);
    }
    on_demand_free(h->demand);
    if (h->compute) {
        pool_free(h->compute);
    }
    if (h->cache) {
        cache_free(h->cache);
    }
    flights_free(h->flights);
    otlp_free(h->otlp);
    counters_free(h->counters);
    limits_free(h->limits);
    shared_free(h->shared);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
