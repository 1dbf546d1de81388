/* generation_models.c - who answers for a remote model: a backend, or a group of them, and at which prices. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "serve/generation.h"
#include "serve/house.h"

static const char *upstream_of(const setting_model *m, const setting_target *t) {
    return t->upstream ? t->upstream : m->upstream ? m->upstream : m->name;
}

/* What a target costs: its own price, the model's, that of the provider's name, that of ours. */
static const setting_price *price_at(const settings *s, const setting_model *m, const setting_target *t) {
    const char          *name = t->price_name ? t->price_name : m->price_name;
    const setting_price *p = settings_price(s, name ? name : upstream_of(m, t));
    return p || name ? p : settings_price(s, m->name);
}

static bool add_member(generation *n, const setting_model *m, const setting_target *t, int i, group_target *to,
                       model_target *priced) {
    const setting_backend *b = &n->settings->backends[i];
    const setting_price   *p = price_at(n->settings, m, t);
    *to = (group_target){.backend = n->gateway.backends[i], /* open_backends keeps the order */
                         .model = upstream_of(m, t),
                         .weight = t->weight * b->weight,
                         .fallback = t->fallback};
    *priced = (model_target){.backend = b->name, .upstream = to->model};
    if (p) {
        priced->price = p->price;
    } else {
        log_warn("%s of the model %s (%s) has no price; what it answers is booked with a cost of 0 (add it under "
                 "prices)",
                 b->name, m->name, to->model);
    }
    return true;
}

/* What the generation before knows of those who answer for this model. */
static void inherit(const generation *n, backend *b) {
    const generation *was = n->house->now;
    was = was && was->root ? was->root : was;
    for (int i = 0; was && i < was->n_groups; i++) {
        if (strcmp(was->groups[i]->name, b->name) == 0) {
            group_inherit(b, was->groups[i]);
        }
    }
}

bool generation_open_targets(generation *n, const setting_model *m, model_entry *entry, err *e) {
    const settings *s = n->settings;
    size_t          most = (size_t)m->n_targets * (size_t)s->n_backends + 1;
    group_target   *to = calloc(most, sizeof *to);
    model_target   *priced = arena_zero(n->settings->memory, most, sizeof *priced);
    int             count = 0;
    for (int t = 0; to && priced && t < m->n_targets; t++) {
        for (int i = 0; i < s->n_backends; i++) {
            if (strcmp(s->backends[i].of, m->targets[t].backend) == 0) {
                add_member(n, m, &m->targets[t], i, &to[count], &priced[count]);
                count++;
            }
        }
    }
    bool plain = m->alone && count == 1;
    if (!to || !priced) {
        err_set(e, ERR_MEMORY, "Out of memory.");
    } else {
        entry->upstream = to[0].model;
        entry->price = priced[0].price;
        entry->targets = count > 1 ? priced : NULL;
        entry->n_targets = count > 1 ? count : 0;
        entry->backend = plain ? to[0].backend : backend_group(m->name, to, count, &m->group, e);
    }
    if (entry->backend && !plain) {
        inherit(n, entry->backend);
        n->groups[n->n_groups++] = entry->backend;
        n->gateway.backends[n->gateway.n_backends++] = entry->backend;
    }
    free(to);
    return entry->backend != NULL;
}
