#include "serve/house.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/on_demand.h"
#include "base/log.h"
#include "serve/assets.h"
#include "stage/counters.h"
#include "stage/flights.h"
#include "stage/stage.h"

static bool make_directory(const char *path, err *e) {
    char part[4096];
    if (strlen(path) >= sizeof part) {
        return err_set(e, ERR_INVALID, "The data directory's path is too long.");
    }
    snprintf(part, sizeof part, "%s", path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p) {
            continue;
        }
        char end = *p;
        *p = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            return err_set(e, ERR_IO, "The data directory %s cannot be made: %s. Name another with --data DIR.", part,
                           strerror(errno));
        }
        *p = end;
        if (!end) {
            return true;
        }
    }
}

static bool open_stores(house *h, const settings *s, err *e) {
    gateway *g = &h->gateway;
    if (!make_directory(s->data, e)) {
        return false;
    }
    str path = {0};
    str_addf(&path, "%s/pare.db", s->data);
    g->db = path.failed ? NULL : db_open(path.data, e);
    str_free(&path);
    if (!g->db) {
        return false;
    }
    if (!s->cache) {
        return true;
    }
    g->cache = cache_new((size_t)s->cache_bytes, e);
    g->cache_ttl_us = s->cache_ttl_us;
    g->flights = flights_new();
    if (!g->cache || !g->flights) {
        return g->cache ? err_set(e, ERR_MEMORY, "Out of memory.") : false;
    }
    err why = {0};
    h->cached_loaded = db_cache_load(g->db, g->cache, &why);
    if (h->cached_loaded < 0) { /* a cache that cannot be read is an empty cache, not a reason to stay down */
        log_warn("the stored answers could not be read: %s", why.text);
        h->cached_loaded = 0;
    }
    return true;
}

static backend *open_local(house *h, const settings *s, const setting_model *m, err *e) {
    if (!h->compute) {
        h->compute = pool_new(s->threads, e);
        if (!h->compute) {
            return NULL;
        }
    }
    bool         bundled = strcmp(m->file, "bundled") == 0;
    const asset *model = bundled ? asset_find("models/storyteller.gguf") : NULL;
    if (bundled && !model) {
        err_set(e, ERR_NOT_FOUND,
                "This pare was built without the bundled model; name one with --model NAME=FILE.gguf.");
        return NULL;
    }
    const char *path = bundled ? NULL : m->file;
    const void *data = bundled ? model->data : NULL;
    size_t      n = bundled ? model->size : 0;
    if (s->memory_bytes <= 0) {
        return backend_local(m->name, path, data, n, h->compute, &m->local, e);
    }
    if (!h->demand && !(h->demand = on_demand_new(h->compute, s->memory_bytes, s->idle_us, e))) {
        return NULL;
    }
    return on_demand_add(h->demand, m->name, path, data, n, &m->local, e);
}

static backend *find_backend(const gateway *g, const char *name) {
    for (int i = 0; i < g->n_backends; i++) {
        if (strcmp(g->backends[i]->name, name) == 0 && strcmp(g->backends[i]->ops->kind, "remote") == 0) {
            return g->backends[i];
        }
    }
    return NULL;
}

static bool open_backends(house *h, const settings *s, err *e) {
    gateway *g = &h->gateway;
    g->backends = calloc((size_t)(s->n_backends + s->n_models) + 1, sizeof(backend *));
    if (!g->backends) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    for (int i = 0; i < s->n_backends; i++) {
        backend *b = backend_remote(s->backends[i].name, &s->backends[i].remote, e);
        if (!b) {
            return false;
        }
        g->backends[g->n_backends++] = b;
    }
    return true;
}

static void set_prices(const settings *s, const setting_model *m, model_entry *entry) {
    const setting_price *own = settings_price(s, m->price_name ? m->price_name : m->upstream);
    if (!own && !m->file) {
        own = settings_price(s, m->name);
    }
    if (own) {
        entry->price = own->price;
    } else if (m->file) {
        entry->price = (price){.known = true}; /* a local model costs nothing a token */
    } else {
        log_warn("the model %s has no price; its exchanges are booked with a cost of 0 (add it under prices)", m->name);
    }
    const setting_price *base = settings_price(s, m->stands_in_for);
    entry->baseline = base ? base->price : entry->price;
}

static bool open_models(house *h, const settings *s, void (*say)(const char *), err *e) {
    gateway *g = &h->gateway;
    g->models = calloc((size_t)s->n_models + 1, sizeof *g->models);
    if (!g->models) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    for (int i = 0; i < s->n_models; i++) {
        const setting_model *m = &s->models[i];
        model_entry         *entry = &g->models[i];
        entry->name = m->name;
        entry->upstream = m->upstream ? m->upstream : m->name;
        if (m->file) {
            char line[256];
            snprintf(line, sizeof line, "loading %s", m->name);
            if (say) {
                say(line);
            }
            entry->backend = open_local(h, s, m, e);
            if (!entry->backend) {
                return false;
            }
            g->backends[g->n_backends++] = entry->backend;
        } else {
            entry->backend = find_backend(g, m->backend);
        }
        set_prices(s, m, entry);
        g->n_models++;
    }
    return true;
}

house *house_open(const settings *s, void (*say)(const char *line), err *e) {
    house *h = calloc(1, sizeof *h);
    if (!h) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    gateway *g = &h->gateway;
    g->keys = s->keys;
    g->n_keys = s->n_keys;
    g->counters = counters_new();
    stage *const row[] = {&stage_account, &stage_admit, &stage_recall, &stage_route, &stage_answer};
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        pipeline_add(&h->pipeline, row[i]);
    }
    bool ok = g->counters ? true : err_set(e, ERR_MEMORY, "Out of memory.");
    if (!ok || !open_stores(h, s, e) || !open_backends(h, s, e) || !open_models(h, s, say, e)) {
        house_close(h);
        return NULL;
    }
    return h;
}

void house_stop(house *h) {
    gateway *g = &h->gateway;
    for (int i = 0; i < g->n_backends; i++) {
        g->backends[i]->ops->close(g->backends[i]);
    }
    g->n_backends = 0;
    if (g->db) {
        db_close(g->db); /* its reader's answers go to the loops */
        g->db = NULL;
    }
}

void house_close(house *h) {
    if (!h) {
        return;
    }
    gateway *g = &h->gateway;
    house_stop(h);
    free(g->backends);
    free(g->models);
    on_demand_free(h->demand);
    if (h->compute) {
        pool_free(h->compute);
    }
    if (g->cache) {
        cache_free(g->cache);
    }
    flights_free(g->flights);
    counters_free(g->counters);
    free(h);
}
