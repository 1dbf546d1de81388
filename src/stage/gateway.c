#include "stage/gateway.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

const model_entry *gateway_model(const gateway *g, const char *name) {
    for (int i = 0; i < g->n_models; i++) {
        if (strcmp(g->models[i].name, name) == 0) {
            return &g->models[i];
        }
    }
    return NULL;
}

static int by_hash(const void *a, const void *b) {
    const client_key *x = a, *y = b;
    return memcmp(x->hash.bytes, y->hash.bytes, sizeof x->hash.bytes);
}

void gateway_sort_keys(client_key *keys, int n) {
    if (n > 0) {
        qsort(keys, (size_t)n, sizeof *keys, by_hash);
    }
}

static const client_key *find_key(const gateway *g, const char *secret) {
    client_key        wanted = {.hash = sha256_of(secret, strlen(secret))};
    const client_key *found =
        g->n_keys > 0 ? bsearch(&wanted, g->keys, (size_t)g->n_keys, sizeof *g->keys, by_hash) : NULL;
    bool same = found && secret_equal(found->hash.bytes, wanted.hash.bytes, sizeof wanted.hash.bytes);
    return same && !found->revoked ? found : NULL;
}

static bool has_expired(const client_key *k) {
    return k->expires_us > 0 && clock_wall_us() >= k->expires_us;
}

const client_key *gateway_key(const gateway *g, const char *secret) {
    const client_key *k = find_key(g, secret);
    return k && !has_expired(k) ? k : NULL;
}

const client_key *gateway_expired_key(const gateway *g, const char *secret) {
    const client_key *k = find_key(g, secret);
    return k && has_expired(k) ? k : NULL;
}

bool client_key_allows(const client_key *k, const char *model) {
    return !k || ((!k->account || account_allows(k->account, model)) &&
                  (!k->group_account || account_allows(k->group_account, model)));
}

const price *gateway_price(const model_entry *m, const char *backend, const char *upstream) {
    const price *of_backend = NULL;
    for (int i = 0; backend && i < m->n_targets; i++) {
        const model_target *t = &m->targets[i];
        if (strcmp(t->backend, backend) != 0) {
            continue;
        }
        if (!upstream || strcmp(t->upstream, upstream) == 0) {
            return &t->price;
        }
        of_backend = of_backend ? of_backend : &t->price; /* a provider that renames the model in its answer */
    }
    return of_backend ? of_backend : &m->price;
}
