/* route.c - which backend answers: the one of the model's name. */
#include "stage/stage.h"

static stage_verdict route_down(stage *s, exchange *x) {
    (void)s;
    err      why;
    backend *b = x->target->backend;
    why.text[0] = '\0';
    if (b->ops->healthy && !b->ops->healthy(b, &why)) {
        x->retry_after = "5"; /* seconds: circuits and models that failed to load are tried again after about that */
        return exchange_fail(x, 503, ERR_BUSY, "", "The model \"%s\" cannot answer now: %s", x->target->name, why.text);
    }
    x->backend = b;
    return STAGE_NEXT;
}

stage stage_route = {.name = "route", .down = route_down};
