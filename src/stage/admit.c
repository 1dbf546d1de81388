/* admit.c - who is asking, and is the request valid? Keys come first: a stranger's body is not even read. */
#include <string.h>

#include "stage/stage.h"

static stage_verdict unknown_model(exchange *x) {
    str names = {0};
    for (int i = 0; i < x->gateway->n_models; i++) {
        str_addf(&names, "%s\"%s\"", i ? ", " : "", x->gateway->models[i].name);
        if (names.len > 250) {
            str_adds(&names, ", ...");
            break;
        }
    }
    exchange_fail(x, 404, ERR_NOT_FOUND, "model", "The model \"%.100s\" does not exist here. Available: %s.",
                  x->request.model, names.data && !names.failed ? names.data : "none");
    str_free(&names);
    return STAGE_FAILED;
}

static stage_verdict admit_down(stage *s, exchange *x) {
    (void)s;
    x->space = "";
    if (x->gateway->n_keys > 0) {
        if (!x->bearer) {
            return exchange_fail(x, 401, ERR_DENIED, "",
                                 "No API key. Send it as \"Authorization: Bearer KEY\"; the operator hands out keys.");
        }
        x->key = gateway_key(x->gateway, x->bearer);
        const client_key *expired = x->key ? NULL : gateway_expired_key(x->gateway, x->bearer);
        if (expired) {
            return exchange_fail(x, 403, ERR_DENIED, "", "The key %s has expired.", expired->name);
        }
        if (!x->key) {
            return exchange_fail(x, 401, ERR_DENIED, "",
                                 "This API key is not known here. Check it for a typing error.");
        }
        x->space = x->key->space;
    }
    if (!x->speaks->read_request(x->kind, x->body, x->body_len, x->memory, &x->request, &x->failed)) {
        /* 400 also for what is too deep or too many: 413 is said of a body's bytes, before this. */
        x->status = x->failed.code == ERR_MEMORY ? 500 : 400;
        return STAGE_FAILED;
    }
    x->request.space = x->space;
    memcpy(x->request.passed, x->passed, sizeof x->passed);
    x->request.n_passed = x->n_passed;
    x->request.drops = arena_zero(x->memory, 1, sizeof *x->request.drops);
    if (x->request.drops) { /* without memory nothing is dropped: the request fails with the member's name */
        x->request.drops->allowed = x->gateway->drop_unsupported;
    }
    if (!client_key_allows(x->key, x->request.model)) { /* before it is told whether there is such a model */
        return exchange_fail(x, 403, ERR_DENIED, "model", "The key %s may not use the model \"%.100s\".", x->key->name,
                             x->request.model);
    }
    x->target = gateway_model(x->gateway, x->request.model);
    if (!x->target) {
        return unknown_model(x);
    }
    if (strcmp(x->target->backend->ops->kind, "local") == 0 && !x->speaks->read_local(&x->request, &x->failed)) {
        x->status = 400;
        return STAGE_FAILED;
    }
    return STAGE_NEXT;
}

stage stage_admit = {.name = "admit", .down = admit_down};
