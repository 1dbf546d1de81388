#include "stage/gateway.h"

#include <string.h>

const model_entry *gateway_model(const gateway *g, const char *name) {
    for (int i = 0; i < g->n_models; i++) {
        if (strcmp(g->models[i].name, name) == 0) {
            return &g->models[i];
        }
    }
    return NULL;
}

const client_key *gateway_key(const gateway *g, const char *secret) {
    sha256            hash = sha256_of(secret, strlen(secret));
    const client_key *found = NULL;
    for (int i = 0; i < g->n_keys; i++) { /* no early exit: the time must not tell which key came close */
        if (secret_equal(hash.bytes, g->keys[i].hash.bytes, sizeof hash.bytes)) {
            found = &g->keys[i];
        }
    }
    return found;
}

int64_t price_of(const price *p, int64_t prompt, int64_t cached, int64_t completion) {
    if (!p->known) {
        return 0;
    }
    if (cached > prompt) {
        cached = prompt;
    }
    /* 128 bits: a price of $1000 per million and 2^40 tokens must not wrap. A standard type of gcc and clang on every
     * 64-bit target; __extension__ says that we know. */
    __extension__ typedef __int128 wide;
    wide micro = (wide)(prompt - cached) * p->input + (wide)cached * p->cached_input + (wide)completion * p->output;
    return (int64_t)((micro + 500000) / 1000000);
}
