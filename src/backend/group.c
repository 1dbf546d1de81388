#include "backend/group_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"

#define MAX_WEIGHT  1000000
#define MAX_RETRIES 20
#define FIRST_HEDGE 100 /* the budget's beginning: one hedge */

/* ---- telling ---- */

static bool lets_in(const group *g, const circuit *c) {
    return circuit_now(c) == CIRCUIT_CLOSED || circuit_wait(c, &g->limits, clock_us()) == 0;
}

/* False only where nobody can be asked. */
static bool healthy(backend *b, err *why) {
    group *g = (group *)b;
    err    said;
    said.code = ERR_NONE;
    for (int i = 0; i < g->n; i++) {
        backend *m = g->members[i].backend;
        if (lets_in(g, &g->members[i].state->circuit) && (!m->ops->healthy || m->ops->healthy(m, &said))) {
            return true;
        }
    }
    if (said.code != ERR_NONE) {
        if (why) {
            *why = said;
        }
        return false;
    }
    return err_set(why, ERR_BUSY, "%s keeps failing and is left alone for %.0f s",
                   g->n == 1 ? g->members[0].backend->name : "everybody who answers for it",
                   ceil((double)group_wait(g, 0, clock_us()) / 1e6));
}

static const char *word_of(circuit_state s) {
    return s == CIRCUIT_CLOSED ? "closed" : s == CIRCUIT_OPEN ? "open" : "half open";
}

static bool tell_member(const member *m, int64_t now, str *out) {
    str_adds(out, "{\"backend\":");
    str_jsons(out, m->backend->name);
    str_adds(out, ",\"model\":");
    str_jsons(out, m->model);
    str_addf(out,
             ",\"fallback\":%s,\"weight\":%d,\"circuit\":\"%s\",\"busy_ms\":%lld,\"latency_ms\":%.1f,\"running\":%d,"
             "\"calls\":%lld,\"failures\":%lld,\"retries\":%lld,\"hedges\":%lld,\"hedges_won\":%lld}",
             m->fallback ? "true" : "false", m->weight, word_of(circuit_now(&m->state->circuit)),
             (long long)(circuit_busy_for(&m->state->circuit, now) / 1000), latency_now(&m->state->latency, now) / 1e3,
             atomic_load(&m->state->in_flight), (long long)atomic_load(&m->state->calls),
             (long long)atomic_load(&m->state->failures), (long long)atomic_load(&m->state->retries),
             (long long)atomic_load(&m->state->hedges), (long long)atomic_load(&m->state->hedges_won));
    return !out->failed;
}

static bool status(backend *b, str *out) {
    const group *g = (const group *)b;
    int64_t      now = clock_us();
    int          running = 0;
    for (int i = 0; i < g->n; i++) {
        running += atomic_load(&g->members[i].state->in_flight);
    }
    str_adds(out, "{\"model\":");
    str_jsons(out, g->name);
    str_addf(out, ",\"kind\":\"group\",\"running\":%d,\"waiting\":0,\"targets\":[", running);
    for (int i = 0; i < g->n; i++) {
        str_adds(out, i ? "," : "");
        tell_member(&g->members[i], now, out);
    }
    return str_adds(out, "]}");
}

typedef struct number {
    const char *name, *type, *help;
    double (*of)(const member *m, int64_t now_us);
} number;

/* One function a number, so that the table below reads as the list of what is told. */
#define NUMBER(function, expression)                                                                                   \
    static double function(const member *m, int64_t now_us) {                                                          \
        (void)now_us;                                                                                                  \
        return (double)(expression);                                                                                   \
    }
NUMBER(calls, atomic_load(&m->state->calls))
NUMBER(failures, atomic_load(&m->state->failures))
NUMBER(retries, atomic_load(&m->state->retries))
NUMBER(hedges, atomic_load(&m->state->hedges))
NUMBER(hedges_won, atomic_load(&m->state->hedges_won))
NUMBER(in_flight, atomic_load(&m->state->in_flight))
NUMBER(open_now,
       circuit_now(&m->state->circuit) == CIRCUIT_OPEN ? 2 : circuit_now(&m->state->circuit) == CIRCUIT_PROBING)
NUMBER(busy_seconds, (double)circuit_busy_for(&m->state->circuit, now_us) / 1e6)
NUMBER(latency_seconds, latency_now(&m->state->latency, now_us) / 1e6)
#undef NUMBER

static const number numbers[] = {
    {"calls_total", "counter", "Requests sent to a target of a model, retries and hedges included.", calls},
    {"failures_total", "counter", "Of these, those that failed by the target's fault or limits.", failures},
    {"retries_total", "counter", "Of these, those sent because an earlier one had failed.", retries},
    {"hedges_total", "counter", "Of these, those sent because an earlier one was slow.", hedges},
    {"hedges_won_total", "counter", "Hedges that answered first.", hedges_won},
    {"in_flight", "gauge", "Requests that the target is answering now.", in_flight},
    {"circuit_state", "gauge", "0: asked; 1: being probed; 2: left alone because it keeps failing.", open_now},
    {"busy_seconds", "gauge", "For how long the target has asked to be left alone.", busy_seconds},
    {"first_event_seconds", "gauge", "Estimate of the time to the first words; 0: not known.", latency_seconds},
};

static bool metrics(backend *const *all, int n, str *out) {
    int64_t now = clock_us();
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
        const number *x = &numbers[k];
        str_addf(out, "# HELP pare_target_%s %s\n# TYPE pare_target_%s %s\n", x->name, x->help, x->name, x->type);
        for (int i = 0; i < n; i++) {
            const group *g = (const group *)all[i];
            for (int t = 0; all[i]->ops == &group_ops && t < g->n; t++) {
                str_addf(out, "pare_target_%s{model=", x->name);
                str_label(out, g->name);
                str_adds(out, ",backend=");
                str_label(out, g->members[t].backend->name);
                str_adds(out, ",upstream=");
                str_label(out, g->members[t].model);
                str_addf(out, "} %.15g\n", x->of(&g->members[t], now));
            }
        }
    }
    return !out->failed;
}

/* ---- opening and closing ---- */

static void drop_state(member_state *s) {
    if (s && atomic_fetch_sub(&s->groups, 1) == 1) {
        free(s);
    }
}

static void drop_pace(group_pace *p) {
    if (p && atomic_fetch_sub(&p->groups, 1) == 1) {
        free(p);
    }
}

static void close_group(backend *b) {
    group *g = (group *)b;
    group_abandon(g);
    for (int i = 0; i < g->n; i++) {
        free(g->members[i].model);
        drop_state(g->members[i].state);
    }
    drop_pace(g->pace);
    free(g->members);
    free(g->name);
    free(g);
}

const backend_ops group_ops = {.kind = "group",
                               .start = group_start,
                               .cancel = group_cancel,
                               .metrics = metrics,
                               .status = status,
                               .healthy = healthy,
                               .close = close_group};

static int64_t or_default(int64_t value, int64_t otherwise) {
    return value > 0 ? value : otherwise;
}

static void set_options(group *g, const group_options *o) {
    g->o = o ? *o : (group_options){.retries = GROUP_RETRIES};
    g->o.retries = g->o.retries < 0 ? GROUP_RETRIES : g->o.retries < MAX_RETRIES ? g->o.retries : MAX_RETRIES;
    g->o.pause_us = or_default(g->o.pause_us, 200000);
    g->o.longest_us = or_default(g->o.longest_us, 5000000);
    g->o.hedge_percent = (int)or_default(g->o.hedge_percent, 5);
    g->limits.failures = (int)or_default(g->o.break_failures, 5);
    g->limits.failures = g->limits.failures < 65535 ? g->limits.failures : 65535; /* circuit.c counts that far */
    g->limits.open_us = or_default(g->o.break_us, 10000000);
    atomic_init(&g->pace->groups, 1);
    atomic_init(&g->pace->budget, FIRST_HEDGE);
    uint64_t turn = 0;
    random_bytes(&turn, sizeof turn);
    atomic_init(&g->pace->turn, turn);
}

static bool same_place(const group_target *a, const group_target *b) {
    return strcmp(a->backend->fingerprint, b->backend->fingerprint) == 0 && strcmp(a->model, b->model) == 0;
}

/* Of all places where answers come from. Further keys of one place change no answer; where there is but one place the
 * fingerprint is its own, so that what was stored before the group was one stays known. */
static bool set_fingerprint(group *g, const group_target *targets, int n) {
    str all = {0};
    int places = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (!same_place(&targets[k], &targets[i])) {
            k++;
        }
        if (k == i) { /* the first of its place */
            places++;
            str_add(&all, targets[i].backend->fingerprint, strlen(targets[i].backend->fingerprint) + 1);
            str_add(&all, targets[i].model, strlen(targets[i].model) + 1);
        }
    }
    bool ok = !all.failed;
    if (places == 1) {
        memcpy(g->base.fingerprint, targets[0].backend->fingerprint, sizeof g->base.fingerprint);
    } else if (ok) {
        sha256 hash = sha256_of(all.data, all.len);
        hex_encode(hash.bytes, sizeof hash.bytes, g->base.fingerprint);
    }
    str_free(&all);
    return ok;
}

/* The first row's before the fallbacks', both in the order given. */
static bool add_members(group *g, const group_target *targets, int n) {
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n; i++) {
            if (targets[i].fallback != (pass == 1)) {
                continue;
            }
            member *m = &g->members[g->n++];
            m->backend = targets[i].backend;
            m->model = strdup(targets[i].model);
            m->weight = targets[i].weight;
            m->fallback = targets[i].fallback;
            m->state = calloc(1, sizeof *m->state);
            g->n_row += !m->fallback;
            if (!m->model || !m->state) {
                return false;
            }
            atomic_init(&m->state->groups, 1);
        }
    }
    return true;
}

static bool check_targets(const char *name, const group_target *targets, int n, err *e) {
    int row = 0;
    if (n < 1 || n > GROUP_MAX_TARGETS) {
        return err_set(e, ERR_INVALID, "%s has %d targets; it must have 1 to %d.", name, n, GROUP_MAX_TARGETS);
    }
    for (int i = 0; i < n; i++) {
        row += !targets[i].fallback;
        if (!targets[i].fallback && (targets[i].weight < 1 || targets[i].weight > MAX_WEIGHT)) {
            return err_set(e, ERR_INVALID, "%s: the weight of %s is %d; it must be 1 to %d.", name,
                           targets[i].backend->name, targets[i].weight, MAX_WEIGHT);
        }
    }
    return row > 0 || err_set(e, ERR_INVALID, "%s has fallbacks only; it needs a target before them.", name);
}

backend *backend_group(const char *name, const group_target *targets, int n, const group_options *o, err *e) {
    if (!check_targets(name, targets, n, e)) {
        return NULL;
    }
    group *g = calloc(1, sizeof *g);
    if (g) {
        g->base.ops = &group_ops;
        g->base.name = g->name = strdup(name);
        g->members = calloc((size_t)n, sizeof *g->members);
        g->pace = calloc(1, sizeof *g->pace);
    }
    if (!g || !g->name || !g->members || !g->pace || !add_members(g, targets, n) || !set_fingerprint(g, targets, n)) {
        if (g) {
            g->n = g->members ? g->n : 0;
            close_group(&g->base);
        }
        err_set(e, ERR_MEMORY, "%s: out of memory.", name);
        return NULL;
    }
    set_options(g, o);
    return &g->base;
}

static const member *find_member(const group *g, const member *like) {
    for (int i = 0; i < g->n; i++) {
        const member *m = &g->members[i];
        if (m->backend == like->backend && strcmp(m->model, like->model) == 0) {
            return m;
        }
    }
    return NULL;
}

void group_inherit(backend *b, const backend *from) {
    group       *g = (group *)b;
    const group *was = (const group *)from;
    if (b->ops != &group_ops || from->ops != &group_ops) {
        return;
    }
    for (int i = 0; i < g->n; i++) {
        const member *m = find_member(was, &g->members[i]);
        if (m) {
            drop_state(g->members[i].state);
            g->members[i].state = m->state;
            atomic_fetch_add(&m->state->groups, 1);
        }
    }
    drop_pace(g->pace);
    g->pace = was->pace;
    atomic_fetch_add(&g->pace->groups, 1);
}
