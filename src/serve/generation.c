#include "serve/generation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backend/on_demand.h"
#include "base/log.h"
#include "serve/assets.h"
#include "serve/house.h"
#include "serve/observe.h"
#include "stage/counters.h"

/* ---- what is open already ---- */

static opened *find_opened(const house *h, const char *definition) {
    for (opened *o = h->opened; o; o = o->next) {
        if (strcmp(o->definition, definition) == 0) {
            return o;
        }
    }
    return NULL;
}

/* Takes the backend over, also when it fails. */
static bool remember(house *h, backend *b, const char *definition, bool stays, err *e) {
    opened *o = calloc(1, sizeof *o);
    char   *copy = strdup(definition);
    if (!o || !copy) {
        free(o);
        free(copy);
        b->ops->close(b);
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    *o = (opened){.next = h->opened, .backend = b, .definition = copy, .stays = stays};
    h->opened = o;
    return true;
}

static void close_unused(house *h) {
    for (opened **at = &h->opened; *at;) {
        opened *o = *at;
        if (o->generations > 0 || o->stays) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        o->backend->ops->close(o->backend);
        free(o->definition);
        free(o);
    }
}

void opened_close_all(house *h) {
    for (opened *o = h->opened; o; o = o->next) {
        o->generations = 0;
        o->stays = false;
    }
    close_unused(h);
}

static void count_uses(generation *g, int by) {
    for (opened *o = g->house->opened; o; o = o->next) {
        for (int i = 0; i < g->gateway.n_backends; i++) {
            o->generations += g->gateway.backends[i] == o->backend ? by : 0;
        }
    }
}

/* ---- definitions ---- */

static void add_text(str *out, const char *text) {
    str_addc(out, '\n');
    str_adds(out, text ? text : "-");
}

static void add_secret(str *out, const char *secret) {
    char   hex[65];
    sha256 hash = sha256_of(secret ? secret : "", secret ? strlen(secret) : 0);
    hex_encode(hash.bytes, sizeof hash.bytes, hex);
    add_text(out, secret ? hex : NULL);
}

static void define_remote(const setting_backend *b, str *out) {
    const remote_options *r = &b->remote;
    str_adds(out, "remote");
    add_text(out, b->name);
    add_text(out, r->base_url);
    add_text(out, r->speaks ? r->speaks->name : NULL);
    add_text(out, dialect_own(NULL) == r->speaks || dialect_own(&dialect_azure) == r->speaks ? "strict" : NULL);
    add_text(out, r->api_version);
    add_text(out, r->ca_file);
    add_secret(out, r->api_key);
    str_addf(out, "\n%lld %lld %lld %lld %d", (long long)r->connect_us, (long long)r->first_us,
             (long long)r->between_us, (long long)r->total_us, r->http2);
}

/* A file that was replaced under its name is another model. */
static void define_local(const setting_model *m, str *out) {
    const local_options *o = &m->local;
    struct stat          st = {0};
    str_adds(out, "local");
    add_text(out, m->name);
    add_text(out, m->file);
    if (stat(m->file, &st) == 0) {
        str_addf(out, "\n%lld %lld.%09ld", (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    }
    str_addf(out, "\n%d %d %d %d %d %d %d %lld %lld %d %d", o->sequences, o->context, o->queue, o->step_tokens,
             o->step_ms, (int)o->kv, (int)o->pooling, (long long)o->kv_bytes, (long long)o->kv_disk_bytes, o->slide,
             o->share_all);
    add_text(out, o->kv_disk);
}

/* ---- opening ---- */

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
        local_options o = m->local;
        o.stop = &h->closing; /* the server's end does not wait for a reload that loads */
        return backend_local(m->name, path, data, n, h->compute, &o, e);
    }
    if (!h->demand && !(h->demand = on_demand_new(h->compute, s->memory_bytes, s->idle_us, e))) {
        return NULL;
    }
    return on_demand_add(h->demand, m->name, path, data, n, &m->local, e);
}

/* The backend of this definition that is open already; *lacks: there is none. */
static backend *look_up(const house *h, const str *definition, bool *lacks, err *e) {
    *lacks = false;
    if (definition->failed || !definition->data) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        return NULL;
    }
    const opened *there = find_opened(h, definition->data);
    *lacks = !there;
    return there ? there->backend : NULL;
}

/* Into the house's list; NULL stays NULL. */
static backend *take_over(house *h, backend *b, const str *definition, bool stays, err *e) {
    return b && definition->data && remember(h, b, definition->data, stays, e) ? b : NULL;
}

static backend *take_remote(house *h, const setting_backend *remote, err *e) {
    str  definition = {0};
    bool lacks;
    define_remote(remote, &definition);
    backend *b = look_up(h, &definition, &lacks, e);
    if (lacks) {
        b = take_over(h, backend_remote(remote->name, &remote->remote, e), &definition, false, e);
    }
    str_free(&definition);
    return b;
}

static backend *take_local(house *h, const settings *s, const setting_model *m, void (*say)(const char *), err *e) {
    str  definition = {0};
    bool lacks, stays = s->memory_bytes > 0; /* the others of its budget would end with it */
    define_local(m, &definition);
    backend *b = look_up(h, &definition, &lacks, e);
    if (lacks) {
        char line[256];
        snprintf(line, sizeof line, "loading %s", m->name);
        if (say) {
            say(line);
        }
        b = take_over(h, open_local(h, s, m, e), &definition, stays, e);
    }
    str_free(&definition);
    return b;
}

static bool open_backends(generation *n, err *e) {
    const settings *s = n->settings;
    gateway        *g = &n->gateway;
    g->backends = calloc((size_t)(s->n_backends + s->n_models) + 1, sizeof(backend *));
    n->groups = calloc((size_t)s->n_models + 1, sizeof(backend *));
    if (!g->backends || !n->groups) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    for (int i = 0; i < s->n_backends; i++) {
        backend *b = take_remote(n->house, &s->backends[i], e);
        if (!b) {
            return false;
        }
        g->backends[g->n_backends++] = b;
    }
    return true;
}

/* A local model costs nothing a token, unless the file says so; the price of a remote one is its target's. */
static void set_prices(const settings *s, const setting_model *m, model_entry *entry) {
    const setting_price *own = settings_price(s, m->price_name ? m->price_name : entry->upstream);
    const setting_price *base = settings_price(s, m->stands_in_for);
    if (m->file) {
        own = settings_price(s, m->price_name ? m->price_name : m->upstream);
        entry->price = own ? own->price : (price){.known = true};
    }
    entry->baseline = base ? base->price : entry->price;
    entry->most_output = m->max_output ? m->max_output : own ? own->max_output : 0;
}

static bool open_models(generation *n, void (*say)(const char *), err *e) {
    const settings *s = n->settings;
    gateway        *g = &n->gateway;
    g->models = calloc((size_t)s->n_models + 1, sizeof *g->models);
    if (!g->models) {
        return err_set(e, ERR_MEMORY, "Out of memory.");
    }
    for (int i = 0; i < s->n_models; i++) {
        if (atomic_load(&n->house->closing)) {
            return err_set(e, ERR_CANCELLED, "pare has been told to end: opening was stopped.");
        }
        const setting_model *m = &s->models[i];
        model_entry         *entry = &g->models[i];
        entry->name = m->name;
        entry->upstream = m->upstream ? m->upstream : m->name;
        entry->counted = counters_model(n->house->counters, m->name);
        if (m->file) {
            entry->backend = take_local(n->house, s, m, say, e);
            if (!entry->backend) {
                return false;
            }
            g->backends[g->n_backends++] = entry->backend;
        } else if (!generation_open_targets(n, m, entry, e)) {
            return false;
        }
        set_prices(s, m, entry);
        g->n_models++;
    }
    return true;
}

/* What all generations share, and what this one's settings say. */
static void fill(generation *n) {
    const house    *h = n->house;
    const settings *s = n->settings;
    n->gateway = (gateway){.limits = h->limits,
                           .shared = h->shared,
                           .cache = s->cache ? h->cache : NULL,
                           .cache_ttl_us = s->cache_ttl_us,
                           .drop_unsupported = s->drop_unsupported,
                           .db = h->db,
                           .flights = h->flights,
                           .counters = h->counters,
                           .live = h->live,
                           .live_ctx = h->live_ctx,
                           .finished = observe_wanted(n) ? observe_finished : NULL,
                           .finished_ctx = n};
}

generation *generation_open(house *h, settings *s, bool owns, void (*say)(const char *), err *e) {
    generation *n = calloc(1, sizeof *n);
    if (!n) {
        err_set(e, ERR_MEMORY, "Out of memory.");
        if (owns) {
            settings_free(s);
        }
        return NULL;
    }
    *n = (generation){.house = h, .settings = s, .owns = owns, .users = 1};
    fill(n);
    bool ok = !s->tls.certificate || (n->tls = tls_open(&s->tls, e)) != NULL;
    ok = ok && open_backends(n, e) && open_models(n, say, e) && generation_open_keys(n, e);
    count_uses(n, 1);
    if (!ok) {
        generation_free(n);
        return NULL;
    }
    return n;
}

/* ---- counting and ending ---- */

generation *generation_hold(generation *g) {
    atomic_fetch_add_explicit(&g->users, 1, memory_order_relaxed);
    return g;
}

bool generation_drop(generation *g) {
    return atomic_fetch_sub_explicit(&g->users, 1, memory_order_acq_rel) == 1;
}

void generation_close_groups(generation *g) {
    g = g->root ? g->root : g;
    for (int i = 0; i < g->n_groups; i++) {
        g->groups[i]->ops->close(g->groups[i]);
    }
    g->n_groups = 0;
}

void generation_free(generation *g) {
    while (g) {
        g = generation_end(g);
    }
}

generation *generation_end(generation *g) {
    generation *root = g->root;
    generation_free_keys(g);
    if (root) {
        free(g);
        return generation_drop(root) ? root : NULL;
    }
    generation_close_groups(g);
    count_uses(g, -1);
    close_unused(g->house);
    free(g->gateway.backends);
    free(g->gateway.models);
    free(g->groups);
    tls_release(g->tls);
    if (g->owns) {
        settings_free(g->settings);
    }
    free(g);
    return NULL;
}
